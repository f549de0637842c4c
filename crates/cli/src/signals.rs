//! Ctrl-C and SIGTERM.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The kind of a signal that ends this command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Ctrl-C, from a person who can be asked.
    Interrupt,
    /// From a terminal that closes, a system that shuts down, or another program.
    End,
}

/// SIGINT, SIGTERM and SIGHUP, from the moment at which this is created.
pub struct Signals {
    all: [Signal; 3],
}

impl Signals {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            all: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    /// Waits for the next signal. Safe to cancel.
    pub async fn next(&mut self) {
        self.next_kind().await;
    }

    /// Waits for the next signal, and returns its kind. Safe to cancel.
    pub async fn next_kind(&mut self) -> Kind {
        let [interrupt, terminate, hangup] = &mut self.all;
        tokio::select! {
            _ = interrupt.recv() => Kind::Interrupt,
            _ = terminate.recv() => Kind::End,
            _ = hangup.recv() => Kind::End,
        }
    }
}
