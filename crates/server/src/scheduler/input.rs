//! The inputs of the scheduler.

use kiln_api::{ChangeJob, ChangePools, Hello, SetShare, Up};
use kiln_core::Account;
use kiln_store::{Due, Expired, Expiry, NewBundle};
use kiln_types::{
    AttemptId, DesiredState, Failure, FailureCause, FrameSet, JobId, JobSpec, StepSpec, TaskFile, WorkerId,
};
use tokio::sync::oneshot;

use super::{farm::FarmState, refusal::Refusal, worker::LinkHandle};
use crate::{arrivals::Received, holds::Hold};

/// Something that the scheduler has to answer.
pub(crate) enum Input {
    Submit {
        spec: Box<JobSpec>,
        notices: Vec<String>,
        /// It is paused from the start.
        held: bool,
        reply: Reply<JobId>,
    },
    Job {
        job: JobId,
        verb: JobAction,
        /// Answered with the number of tasks that run again only because their files are needed and were removed.
        reply: Reply<u32>,
    },
    /// A worker has connected and said hello. It is welcomed, or refused, through its link.
    Join {
        hello: Box<Hello>,
        link: LinkHandle,
        received: Received,
    },
    Up {
        worker: WorkerId,
        link: u64,
        up: Up,
        received: Received,
    },
    /// An attempt has left its slot. Every byte of what it made is here.
    Finished {
        worker: WorkerId,
        link: u64,
        attempt: AttemptId,
        finished: CheckedReport,
        /// Since before it was looked at.
        hold: Hold,
        received: Received,
    },
    /// The connection is gone.
    Gone {
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
    /// The person has its outputs up to this sequence.
    Fetched {
        job: JobId,
        sequence: u64,
        reply: Reply<()>,
    },
    /// Removes from the records a part of what was found to be due.
    Expire {
        expiry: Expiry,
        due: Box<Due>,
        reply: Reply<Expired>,
    },
    /// Runs when everything before it is on disk.
    Look(Look),
    /// Panics when it is applied.
    #[cfg(test)]
    Panic(Box<dyn FnOnce() + Send>),
}

/// The report of a worker ([`kiln_api::AttemptReport`]), after the server has looked for the files.
#[derive(Debug, Clone)]
pub(crate) enum CheckedReport {
    Done {
        made: MadeFiles,
        /// By the host's clock; not yet believed.
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

/// The files that an attempt made. Every byte of them is here; whether its step makes such files is not checked yet.
#[derive(Debug, Clone)]
pub(crate) enum MadeFiles {
    Files(Vec<TaskFile>),
    Bundle(NewBundle),
    /// Files without pictures, of an attempt that was not known when they came.
    Unknown,
}

/// The failure of an attempt whose report cannot be right.
pub(crate) fn misbehaved(why: String) -> Failure {
    Failure::new(FailureCause::HostMisbehaved, why)
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, Refusal>>;
pub(super) type Look = Box<dyn FnOnce(&FarmState) + Send>;

/// An action of a person on a job.
#[derive(Debug, Clone)]
pub(crate) enum JobAction {
    Pause,
    Resume,
    Cancel,
    Retry,
    /// All frames, where there are none.
    Rerender(Option<FrameSet>),
    /// Bakes again, and so renders all frames again.
    Rebake,
    Extend(FrameSet),
    AddStep(Box<StepSpec>),
    /// Lets it stand otherwise among the others.
    Change(ChangeJob),
    /// Puts it away, or takes it back out.
    Archive(bool),
    Delete {
        /// Cancel it first, where it has not ended.
        force: bool,
    },
}

/// A setting of the farm as a whole.
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
