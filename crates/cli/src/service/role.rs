//! The role of a service.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// The command that a service runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ServiceRole {
    Server,
    Worker,
}

impl ServiceRole {
    pub const ALL: [Self; 2] = [Self::Server, Self::Worker];

    /// Returns the name of the unit file.
    pub fn unit(self) -> String {
        format!("kiln-{self}.service")
    }
}

impl fmt::Display for ServiceRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Worker => "worker",
        })
    }
}
