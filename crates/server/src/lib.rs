//! The farm's brain behind HTTP
