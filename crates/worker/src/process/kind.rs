//! The properties of a Blender process that it keeps for its life.

use std::sync::Arc;

use kiln_types::{BlenderSeries, BundleId, RelPath, ScriptPolicy, SessionSpec};

/// The properties of a process that decide which sessions it can serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessKind {
    pub(crate) series: BlenderSeries,
    /// Scripts inside a .blend run: such a process serves nothing else.
    pub(crate) trust: bool,
    pub(crate) startup: Option<Arc<StartupFiles>>,
    /// Memory that a GPU was used for stays on it; a process that has used no GPU can take any share.
    pub(crate) share: MachineShare,
}

/// Files of a bundle that change Blender itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct StartupFiles {
    pub(crate) bundle: BundleId,
    /// Read when the process starts.
    pub(crate) ocio: Option<RelPath>,
    /// Enabled when a file is first opened, and never disabled.
    pub(crate) addons: Vec<RelPath>,
}

/// The part of the machine that a slot may use for a task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MachineShare {
    /// Threads of Blender; 0 if the job asks for no number.
    pub(crate) threads: u16,
    /// By their places among those that Blender lists; empty for all.
    pub(crate) gpus: Vec<u16>,
}

impl ProcessKind {
    /// The kind that serves most sessions.
    pub(crate) fn plain(series: BlenderSeries) -> Self {
        Self { series, trust: false, startup: None, share: MachineShare::default() }
    }

    /// The kind that a session needs.
    pub(crate) fn of_session(session: &SessionSpec, share: MachineShare) -> Self {
        let SessionSpec { bundle, ocio, addons, .. } = session;
        let startup = (ocio.is_some() || !addons.is_empty())
            .then(|| Arc::new(StartupFiles { bundle: *bundle, ocio: ocio.clone(), addons: addons.clone() }));
        Self { series: session.blender, trust: session.policy.scripts == ScriptPolicy::Trust, startup, share }
    }

    /// Returns true if a running process can become one of the other kind.
    pub(crate) fn can_become(&self, other: &Self) -> bool {
        self.share.gpus.is_empty() && Self { share: other.share.clone(), ..self.clone() } == *other
    }

    /// The kind as a process starts, before it has a share.
    pub(crate) fn without_share(&self) -> Self {
        Self { share: MachineShare::default(), ..self.clone() }
    }
}
