//! The retention of files and records, and their collection. All times are Unix milliseconds.

use kiln_types::JobId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The time for which a part of a job is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum RetentionState {
    /// The job has not ended, and needs it.
    WhileOpen,
    /// Until all outputs have been fetched, and then for a time.
    UntilFetched,
    /// At least until then; the first collection after that removes it, unless something else needs it.
    Until {
        at_ms: i64,
    },
    UntilDeleted,
    Gone {
        at_ms: i64,
    },
}

/// The retention of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobRetention {
    /// Lists show an archived job only on request.
    pub archived_ms: Option<i64>,
    /// All outputs so far have been fetched.
    pub fetched: bool,
    pub inputs: RetentionState,
    pub outputs: RetentionState,
    pub logs: RetentionState,
}

/// Reports the outputs that a client has fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fetched {
    /// All outputs up to this one are on the client's disk.
    pub sequence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Collect {
    /// Removes nothing, and reports what would be removed.
    #[serde(default)]
    pub dry_run: bool,
}

/// The report of a collection, or of a dry run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Collected {
    pub dry_run: bool,
    /// Jobs whose inputs were removed: they cannot render again.
    pub inputs: Vec<JobId>,
    /// Jobs whose outputs were removed.
    pub outputs: Vec<JobId>,
    /// Jobs whose logs were removed.
    pub logs: Vec<JobId>,
    pub bundles: u64,
    /// Tasks whose intermediates were removed.
    pub intermediates: u64,
    /// Abandoned uploads.
    pub uploads: u64,
    /// Blobs and chunks.
    pub blobs: u64,
    /// The bytes of these blobs and chunks.
    pub bytes: u64,
    pub log_bytes: u64,
    pub events: u64,
    pub seconds: f64,
}
