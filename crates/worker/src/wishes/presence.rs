//! What is read from this machine to know whether a person needs it. Linux; elsewhere nothing would be known.

use std::{path::Path, time::Duration};

use tokio::task::spawn_blocking;

use super::{
    person::{self, Desktop, Inputs},
    processes::Census,
};

/// Between two looks.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a look at the machine found.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Facts {
    /// Whether a person has a graphical session on this machine.
    pub(crate) desktop: bool,
    /// How long nobody has touched the machine; `None` where nothing tells.
    pub(crate) idle: Option<Duration>,
    /// Whether a Blender is open with a window.
    pub(crate) blender: bool,
    /// How many cores everything but Kiln keeps busy; `None` at the first look.
    pub(crate) others: Option<f64>,
}

/// Looks at the machine again and again.
#[derive(Debug)]
pub(crate) struct Watch {
    inputs: Inputs,
    census: Option<Census>,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self { inputs: Inputs::open(Path::new("/dev/input")), census: None }
    }

    pub(crate) async fn look(mut self) -> (Self, Facts) {
        let sessions = person::graphical_sessions(Path::new("/run"));
        let told = person::desktop(&sessions).await;
        // Without logind a screen shows by what programs on it are given.
        let screen = || ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some());
        let desktop = !sessions.is_empty() || screen();
        let walk = spawn_blocking(move || {
            let idle = self.idle(told);
            let census = Census::take(Path::new("/proc"), std::process::id());
            let both = census.as_ref().zip(self.census.as_ref());
            let facts = Facts {
                desktop,
                idle,
                blender: census.as_ref().is_some_and(|census| census.windowed),
                others: both.and_then(|(now, before)| now.others_since(before)),
            };
            self.census = census;
            (self, facts)
        });
        // A look that was called off has seen nothing.
        walk.await.unwrap_or_else(|_| (Self::new(), Facts { desktop, ..Facts::default() }))
    }

    fn idle(&mut self, told: Option<Desktop>) -> Option<Duration> {
        let touched = self.inputs.idle();
        let told = match told {
            Some(Desktop::GoneFor(away)) => Some(away),
            // Many desktops say so as long as they run; hands on the keys are a better witness, where they are seen.
            Some(Desktop::There) if self.inputs.are_read() => None,
            Some(Desktop::There) => Some(Duration::ZERO),
            None => None,
        };
        [touched, told, person::terminals_idle(Path::new("/dev"))].into_iter().flatten().min()
    }
}

/// Bytes that this process's Blenders hold.
pub(crate) fn held() -> u64 {
    Census::take(Path::new("/proc"), std::process::id()).map_or(0, |census| census.held)
}
