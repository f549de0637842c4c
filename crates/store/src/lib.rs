//! Durable records in SQLite: jobs, tasks, attempts, events
