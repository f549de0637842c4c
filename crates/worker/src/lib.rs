//! A node that renders
