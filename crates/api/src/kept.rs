//! What a server keeps, and what it has let go of. All times are Unix milliseconds.

use kiln_types::JobId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Until when something of a job is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Kept {
    /// The job has not ended, and needs it.
    WhileOpen,
    /// Until all of it has been fetched, and then a while longer.
    UntilFetched,
    /// At least until then; it goes with the first collection after that, unless something else needs it.
    Until {
        at_ms: i64,
    },
    UntilDeleted,
    Gone {
        at_ms: i64,
    },
}

/// What of a job is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobRetention {
    /// Put away since then: lists show it only where they are asked to.
    pub archived_ms: Option<i64>,
    /// Whether all its outputs so far are on the disk of who asked for them.
    pub fetched: bool,
    /// The files that it renders from.
    pub inputs: Kept,
    /// Its frames.
    pub outputs: Kept,
    /// What Blender printed.
    pub logs: Kept,
}

/// Which outputs are on the disk of who asked for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fetched {
    /// All up to this one.
    pub sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Collect {
    /// Nothing goes; only says what would.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a collection let go of, or would.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Collected {
    pub dry_run: bool,
    /// Jobs whose files went: they render nothing more.
    pub inputs: Vec<JobId>,
    /// Jobs whose frames went.
    pub outputs: Vec<JobId>,
    /// Jobs whose logs went.
    pub logs: Vec<JobId>,
    pub bundles: u64,
    /// Tasks whose intermediate files went.
    pub intermediates: u64,
    /// Uploads that nobody went on with.
    pub uploads: u64,
    /// Files and pieces of files on the disk.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of logs.
    pub log_bytes: u64,
    pub events: u64,
    /// How long it took.
    pub seconds: f64,
}
