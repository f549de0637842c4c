//! The work of a slot, and the process that it needs.

use std::{sync::Arc, time::Duration};

use kiln_types::{
    AttemptId, BlenderSeries, BundleId, JobId, RelPath, ScriptPolicy, SessionKey, SessionSpec, TaskId,
};

use crate::TaskKind;

/// One task, as a slot does it.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) attempt: AttemptId,
    pub(crate) task: TaskId,
    pub(crate) kind: TaskKind,
    pub(crate) session: Arc<SessionSpec>,
    pub(crate) key: SessionKey,
    pub(crate) time_limit: Option<Duration>,
    /// A black frame is a failure.
    pub(crate) refuse_black: bool,
    pub(crate) part: Part,
}

/// What of the machine a slot may use for its work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Threads of Blender; 0 where nobody asked for so many.
    pub(crate) threads: u16,
    /// By their places among those that Blender lists; every one where there is none.
    pub(crate) gpus: Vec<u16>,
}

impl Work {
    pub(crate) fn job(&self) -> JobId {
        self.task.job
    }

    pub(super) fn process(&self) -> Kind {
        let SessionSpec { bundle, ocio, addons, .. } = &*self.session;
        let brings = (ocio.is_some() || !addons.is_empty())
            .then(|| Arc::new(Brings { bundle: *bundle, ocio: ocio.clone(), addons: addons.clone() }));
        let trust = self.session.policy.scripts == ScriptPolicy::Trust;
        Kind { series: self.session.blender, trust, brings, part: self.part.clone() }
    }
}

/// What a process is fixed to for its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) series: BlenderSeries,
    /// Whether scripts inside a .blend run: such a process serves nothing else.
    pub(crate) trust: bool,
    pub(crate) brings: Option<Arc<Brings>>,
    /// What a GPU has been used for stays on it; a process that has used none takes up any part.
    pub(crate) part: Part,
}

impl Kind {
    /// One that serves most sessions.
    pub(crate) fn plain(series: BlenderSeries) -> Self {
        Self { series, trust: false, brings: None, part: Part::default() }
    }

    /// Whether the process can become one of that kind as it is.
    pub(super) fn may_become(&self, other: &Self) -> bool {
        self.part.gpus.is_empty() && Self { part: other.part.clone(), ..self.clone() } == *other
    }

    /// As it starts.
    pub(crate) fn unused(&self) -> Self {
        Self { part: Part::default(), ..self.clone() }
    }
}

/// Files of a bundle that change Blender itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Brings {
    pub(crate) bundle: BundleId,
    /// Read when the process starts.
    pub(crate) ocio: Option<RelPath>,
    /// Enabled when a file is first opened, and never taken back.
    pub(crate) addons: Vec<RelPath>,
}
