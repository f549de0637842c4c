//! A running Blender and the folder that it works in.

use std::{fmt, sync::Arc};

use kiln_host::{Host, SlotRoot};

use super::kind::ProcessKind;
use crate::{bundles::MaterializedBundle, monitor::AttemptMonitor, scratch::ScratchFolder};

/// A running Blender. Dropping it ends the process and removes its folder.
pub(crate) struct BlenderProcess {
    pub(crate) host: Host,
    pub(crate) root: SlotRoot,
    pub(crate) kind: ProcessKind,
    /// The most memory seen, in bytes.
    pub(crate) peak: u64,
    pub(crate) persistent: bool,
    pub(crate) monitor: AttemptMonitor,
    /// Keeps the startup files for as long as the process runs.
    pub(super) _startup: Option<Arc<MaterializedBundle>>,
    pub(super) folder: ScratchFolder,
}

impl fmt::Debug for BlenderProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlenderProcess")
            .field("host", &self.host)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl BlenderProcess {
    /// Ends the process and returns its folder, which is removed when that is dropped.
    pub(crate) async fn close(self) -> ScratchFolder {
        self.monitor.flush();
        let Self { host, folder, .. } = self;
        host.kill().await;
        folder
    }
}
