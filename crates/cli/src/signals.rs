//! Ctrl-C and SIGTERM.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The sender of a signal that ends this command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The person who sits there (Ctrl-C), and who can be asked.
    Interrupt,
    /// A terminal that closes, a system that goes down, another program.
    End,
}

/// SIGINT, SIGTERM and SIGHUP, from the moment this is made.
pub struct Signals {
    all: [Signal; 3],
}

impl Signals {
    /// # Errors
    /// Where the system does not let a program listen.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            all: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    /// The next one. Safe to cancel.
    pub async fn next(&mut self) {
        self.next_kind().await;
    }

    /// The next one, and who sent it. Safe to cancel.
    pub async fn next_kind(&mut self) -> Kind {
        let [interrupt, terminate, hangup] = &mut self.all;
        tokio::select! {
            _ = interrupt.recv() => Kind::Interrupt,
            _ = terminate.recv() => Kind::End,
            _ = hangup.recv() => Kind::End,
        }
    }
}
