//! Typed HTTP client of a Kiln server
