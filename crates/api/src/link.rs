//! The worker's WebSocket: JSON text messages, `Up` from the worker, `Down` from the server.
//!
//! The first message is `Up::Hello`, the first answer `Down::Welcome` or `Down::Refused`. Bytes never travel
//! here: bundles and outputs go over plain HTTP as blobs.

use std::num::NonZeroU16;

use kiln_types::{
    AttemptId, BlenderFlavor, BlenderVersion, DesiredState, DeviceClass, Epoch, Failure, Generation,
    HeldAttempt, JobId, Name, ProductKind, ReportOutcome, RevokeReason, SessionSpec, ShortName, SlotIndex,
    StepDependency, StepKind, TaskFile, TaskId, WorkerId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A worker introduces itself, at each connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    pub build: String,
    pub id: WorkerId,
    /// The name that it asks for; the server makes it unique.
    pub name: Name,
    pub machine: Machine,
    pub slots: u16,
    pub blenders: Vec<BlenderOffer>,
    /// The shared folders that it can read.
    #[serde(default)]
    pub shared: Vec<ShortName>,
    /// The part of its machine that it offers; all of it if `None`.
    #[serde(default)]
    pub offered: Option<MachineOffer>,
    /// Names that jobs may require, set by the person who started it.
    #[serde(default)]
    pub tags: Vec<ShortName>,
    #[serde(default)]
    pub unavailable: Option<Unavailability>,
    /// The farm may wake its machine when it sleeps.
    #[serde(default)]
    pub wakes: bool,
    /// The addresses of its network cards, such as `52:54:00:12:34:56`.
    #[serde(default)]
    pub macs: Vec<String>,
    /// Attempts that it still has from an earlier connection, so that work survives a restart of the server.
    pub held: Vec<HeldAttempt>,
}

impl Hello {
    /// A worker of this build with one slot, and nothing else to offer.
    pub fn new(id: WorkerId, name: Name) -> Self {
        Self {
            protocol: crate::PROTOCOL,
            build: crate::BUILD.to_owned(),
            id,
            name,
            machine: Machine::default(),
            slots: 1,
            blenders: Vec::new(),
            shared: Vec::new(),
            offered: None,
            tags: Vec::new(),
            unavailable: None,
            wakes: false,
            macs: Vec::new(),
            held: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    pub hostname: String,
    /// `linux x86_64`.
    pub system: String,
    pub cpu: String,
    pub cores: u32,
    /// Bytes.
    pub memory: u64,
}

/// The part of its machine that a worker offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MachineOffer {
    pub cores: u32,
    /// Bytes.
    pub memory: u64,
}

/// The reason for which a worker takes no work for now. The worker finishes or returns its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unavailability {
    /// For a person: `asleep until 08:00`.
    pub why: String,
    /// Unix milliseconds, if known.
    #[serde(default)]
    pub until_ms: Option<i64>,
}

/// A Blender that a worker can start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlenderOffer {
    pub version: BlenderVersion,
    pub build_hash: String,
    pub flavor: BlenderFlavor,
    pub engines: Vec<String>,
    /// Always includes the processor.
    pub devices: Vec<DeviceOffer>,
    pub denoisers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceOffer {
    pub class: DeviceClass,
    pub name: String,
    /// Bytes, if Blender or the driver reports them.
    #[serde(default)]
    pub memory: Option<u64>,
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "up", rename_all = "kebab-case")]
pub enum Up {
    Hello(Box<Hello>),
    /// The worker's Blenders changed (one was found, or its full probe is done), or its availability.
    Offer {
        blenders: Vec<BlenderOffer>,
        #[serde(default)]
        unavailable: Option<Unavailability>,
    },
    /// The slot began this attempt; the earlier ones of the slot have left Blender.
    Started {
        attempt: AttemptId,
    },
    Progress {
        attempt: AttemptId,
        /// 0 to 1.
        fraction: f32,
    },
    /// Blender has worked on the attempt since the last of these messages. Sent at most twice a minute.
    Alive {
        attempt: AttemptId,
        /// Blender also reported a sample or a step, or wrote bytes.
        #[serde(default)]
        moved: bool,
    },
    /// A piece of what Blender printed; at most 64 KiB.
    Log {
        attempt: AttemptId,
        text: String,
    },
    /// Messages about the job for the person.
    Notices {
        job: JobId,
        texts: Vec<String>,
    },
    /// The attempt has left the slot. Repeated until the server answers `Settled`.
    Finished {
        attempt: AttemptId,
        task: TaskId,
        generation: Generation,
        report: AttemptReport,
    },
    /// Renews the leases of all attempts of the worker.
    Heartbeat,
    /// The worker drains by itself (Ctrl-C) and takes no further work.
    Draining,
}

/// A worker's report of how an attempt left its slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum AttemptReport {
    /// The task is done, and every file is stored at the server. Pictures are checked; files of a bundle replace those of
    /// the job's bundle, or are added to them.
    Done {
        files: Vec<TaskFile>,
        /// Seconds of the task alone, by the host's clock.
        seconds: f64,
        /// Bytes.
        peak_memory: u64,
    },
    Failed {
        failure: Failure,
        seconds: f64,
    },
    /// The attempt was drained or revoked, or never begun.
    Returned,
}

impl AttemptReport {
    /// Files that a task may report; a worker fails an attempt that has more.
    pub const MAX_FILES: usize = 100_000;
}

/// From the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "down", rename_all = "kebab-case")]
pub enum Down {
    Welcome(Welcome),
    /// The worker gets no work; the connection closes.
    Refused {
        reason: String,
    },
    Assign(Box<Assignment>),
    /// Begins a task before all files that it uses are committed.
    Stream(Box<StreamAssignment>),
    /// All files of this streaming attempt are committed: it continues on this slot.
    Place {
        attempt: AttemptId,
        slot: SlotIndex,
        claim: SlotClaim,
    },
    /// There are more files for this streaming attempt. The message may be lost: the worker's next list of files has all
    /// of them.
    Arrived {
        attempt: AttemptId,
    },
    Revoke {
        attempt: AttemptId,
        why: RevokeReason,
    },
    /// The report of this attempt is on disk; the worker forgets it.
    Settled {
        attempt: AttemptId,
        outcome: ReportOutcome,
    },
    DesiredState {
        desired: DesiredState,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The unique name of the worker in the farm.
    pub name: String,
    pub build: String,
    pub protocol: u32,
    /// A worker refuses a server whose epoch is lower than one that it has seen.
    pub epoch: Epoch,
    pub heartbeat_ms: u64,
    pub desired: DesiredState,
}

/// Tasks of one step of a job for one slot, in this order, behind those that the slot already has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    pub slot: SlotIndex,
    pub job: JobId,
    pub work: StepWork,
    pub claim: SlotClaim,
    pub tasks: Vec<AssignedTask>,
}

/// A task that streams: its worker begins with the files that are committed, without a slot, and may not report it as done
/// before [`Down::Place`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamAssignment {
    pub job: JobId,
    pub work: StepWork,
    /// Bytes that it may use until it has a slot; 0 if unknown.
    pub memory: u64,
    pub task: AssignedTask,
}

/// The work that the tasks of an assignment have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepWork {
    pub kind: StepKind,
    /// The Blender session of the tasks; absent in a step without Blender.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionSpec>,
    /// The earlier steps whose files the tasks use: `GET /api/v1/jobs/{id}/steps/{step}/files` lists them, those of the
    /// task's own frame where the scope of the dependency is a frame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<StepDependency>,
    /// The number of parts of each frame, in a step that has parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<NonZeroU16>,
    /// The purpose of the files that the tasks make.
    pub product: ProductKind,
    /// Seconds for each task.
    pub time_limit_s: Option<u32>,
    /// A frame whose picture is entirely black or transparent fails.
    pub refuse_black: bool,
}

/// The part of its worker's machine that a slot may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotClaim {
    /// Threads of its Blender; 0 if the job did not ask for cores.
    pub cores: u32,
    /// Bytes; 0 if unknown.
    pub memory: u64,
    /// The positions of its GPUs among those of the job's kind that its Blender lists; empty for a job on the processor.
    pub gpus: Vec<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedTask {
    pub attempt: AttemptId,
    pub task: TaskId,
    pub generation: Generation,
    /// Absent in a step that is not about single frames.
    pub frame: Option<i32>,
    /// The part of its frame that the task is, from 0 on; absent in a step that has no parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_are_tolerated() {
        let text = r#"{"up":"started","attempt":"1-2","from_the_future":true}"#;
        let up: Up = serde_json::from_str(text).unwrap();
        assert_eq!(up, Up::Started { attempt: "1-2".parse().unwrap() });
    }
}
