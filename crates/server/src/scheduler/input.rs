//! The inputs of the scheduler.

use kiln_api::{ChangeJob, ChangePools, Hello, SetShare, Up};
use kiln_core::Account;
use kiln_store::{Due, Expired, Expiry, NewBundle};
use kiln_types::{
    AttemptId, DesiredState, Failure, FailureCause, FrameSet, JobId, JobSpec, StepSpec, TaskFile, WorkerId,
};
use tokio::sync::oneshot;

use super::{farm::FarmState, refusal::Refusal, worker::LinkHandle};
use crate::{arrivals::WaitingMessage, holds::Hold};

/// An input of the scheduler.
pub(crate) enum Input {
    Submit {
        spec: Box<JobSpec>,
        notices: Vec<String>,
        /// The job is paused from the start.
        held: bool,
        reply: Reply<JobId>,
    },
    Job {
        job: JobId,
        command: JobCommand,
        /// Receives the number of tasks that run again only because their files are needed and were removed.
        reply: Reply<u32>,
    },
    /// A worker has connected and sent its hello. The welcome goes through its link.
    Join {
        hello: Box<Hello>,
        link: LinkHandle,
        waiting: WaitingMessage,
    },
    Up {
        worker: WorkerId,
        link: u64,
        up: Up,
        waiting: WaitingMessage,
    },
    /// An attempt has left its slot. Every byte of its files is here.
    Finished {
        worker: WorkerId,
        link: u64,
        attempt: AttemptId,
        report: CheckedReport,
        /// Held since before its files were checked.
        hold: Hold,
        waiting: WaitingMessage,
    },
    Disconnected {
        worker: WorkerId,
        link: u64,
    },
    DesiredState {
        name: String,
        desired: DesiredState,
        reply: Reply<()>,
    },
    Set {
        setting: FarmSetting,
        reply: Reply<()>,
    },
    Unquarantine {
        name: String,
        reply: Reply<()>,
    },
    RemoveWorker {
        name: String,
        reply: Reply<()>,
    },
    /// A client has fetched the outputs up to this sequence.
    Fetched {
        job: JobId,
        sequence: u64,
        reply: Reply<()>,
    },
    /// Removes a part of what is due from the records.
    Expire {
        expiry: Expiry,
        due: Box<Due>,
        reply: Reply<Expired>,
    },
    /// Runs when all inputs before it are on disk.
    Read(StateReader),
    /// Panics when it is applied.
    #[cfg(test)]
    Panic(Box<dyn FnOnce() + Send>),
}

/// The report of a worker ([`kiln_api::AttemptReport`]), after the check of its files.
#[derive(Debug, Clone)]
pub(crate) enum CheckedReport {
    Done {
        made: MadeFiles,
        /// By the host's clock; not validated yet.
        seconds: f64,
        /// Bytes.
        peak_memory: u64,
    },
    Failed {
        failure: Failure,
        seconds: f64,
    },
    Returned,
}

/// The files that an attempt made. Every byte of them is here; that its step makes such files is not checked yet.
#[derive(Debug, Clone)]
pub(crate) enum MadeFiles {
    Files(Vec<TaskFile>),
    Bundle(NewBundle),
    /// Files without pictures, of an attempt that was not known when they arrived.
    Unknown,
}

/// Returns the failure of an attempt whose report cannot be right.
pub(crate) fn misbehaved(why: String) -> Failure {
    Failure::new(FailureCause::HostMisbehaved, why)
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;
pub(super) type StateReader = Box<dyn FnOnce(&FarmState) + Send>;

/// A command of a user for a job.
#[derive(Debug, Clone)]
pub(crate) enum JobCommand {
    Pause,
    Resume,
    Cancel,
    Retry,
    /// Renders these frames again, or all.
    Rerender(Option<FrameSet>),
    /// Bakes again, and renders all frames again.
    Rebake,
    Extend(FrameSet),
    AddStep(Box<StepSpec>),
    Change(ChangeJob),
    /// Archives the job, or takes it out of the archive.
    Archive(bool),
    Delete {
        /// Cancels the job first if it has not ended.
        force: bool,
    },
}

/// A setting of the farm.
#[derive(Debug, Clone)]
pub(crate) enum FarmSetting {
    Share {
        account: Account,
        share: SetShare,
    },
    /// Without a total, the limit is removed.
    Limit {
        name: String,
        total: Option<u32>,
    },
    Pools {
        worker: String,
        change: ChangePools,
    },
}
