//! The use of this machine by a person or by other programs, on Linux.

use std::{path::Path, time::Duration};

use tokio::task::spawn_blocking;

use super::{
    processes::Census,
    user::{self, Desktop, InputDevices},
};
use crate::sink::EventSink;

/// The time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The use of the machine, as one look found it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct MachineUse {
    /// A person has a graphical session on this machine.
    pub(crate) desktop: bool,
    /// The time since somebody touched the machine, if known.
    pub(crate) idle: Option<Duration>,
    /// A Blender is open with a window.
    pub(crate) blender: bool,
    /// Cores that everything but Kiln keeps busy; `None` at the first look.
    pub(crate) others: Option<f64>,
}

/// Observes the use of the machine, from look to look.
#[derive(Debug)]
pub(crate) struct ActivityMonitor {
    devices: InputDevices,
    census: Option<Census>,
}

impl ActivityMonitor {
    pub(crate) fn new() -> Self {
        Self { devices: InputDevices::open(Path::new("/dev/input")), census: None }
    }

    pub(crate) async fn look(mut self) -> (Self, MachineUse) {
        let sessions = user::graphical_sessions(Path::new("/run"));
        let told = user::desktop(&sessions).await;
        // Without logind a screen shows by what programs on it are given.
        let screen = || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
        let desktop = !sessions.is_empty() || screen();
        let walk = spawn_blocking(move || {
            let idle = self.idle(told);
            let census = Census::take(Path::new("/proc"), std::process::id());
            let both = census.as_ref().zip(self.census.as_ref());
            let seen = MachineUse {
                desktop,
                idle,
                blender: census.as_ref().is_some_and(|census| census.windowed),
                others: both.and_then(|(now, before)| now.others_since(before)),
            };
            self.census = census;
            (self, seen)
        });
        // A cancelled look has seen nothing.
        walk.await.unwrap_or_else(|_| (Self::new(), MachineUse { desktop, ..MachineUse::default() }))
    }

    fn idle(&mut self, told: Option<Desktop>) -> Option<Duration> {
        let touched = self.devices.idle();
        let told = match told {
            Some(Desktop::GoneFor(away)) => Some(away),
            // Many desktops say so as long as they run; hands on the keys are a better witness, where they are seen.
            Some(Desktop::There) if self.devices.are_read() => None,
            Some(Desktop::There) => Some(Duration::ZERO),
            None => None,
        };
        [touched, told, user::terminals_idle(Path::new("/dev"))].into_iter().flatten().min()
    }
}

/// Reports the use of the machine until the worker ends.
pub(crate) async fn watch_machine(mut monitor: ActivityMonitor, seen: EventSink<MachineUse>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (looked, machine) = monitor.look().await;
        monitor = looked;
        if !seen.send(machine) {
            return;
        }
    }
}

/// Counts the bytes that this process's Blenders hold.
pub(crate) fn held_memory() -> u64 {
    Census::take(Path::new("/proc"), std::process::id()).map_or(0, |census| census.held)
}
