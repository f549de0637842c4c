//! The wire: HTTP and WebSocket messages, problem details
