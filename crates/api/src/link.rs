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
    /// Wanted; the server makes it unique.
    pub name: Name,
    pub machine: Machine,
    pub slots: u16,
    pub blenders: Vec<BlenderOffer>,
    /// The names of the shared folders that it reaches.
    #[serde(default)]
    pub shared: Vec<ShortName>,
    /// What it gives to the farm; all that its machine has where `None`.
    #[serde(default)]
    pub offered: Option<Offered>,
    /// Names that jobs may ask for, given to it by whoever started it.
    #[serde(default)]
    pub tags: Vec<ShortName>,
    /// The reason for which it takes no work for now.
    #[serde(default)]
    pub unavailable: Option<Unavailability>,
    /// Whether the farm may wake its machine when it sleeps.
    #[serde(default)]
    pub wakes: bool,
    /// The addresses of its network cards, such as `52:54:00:12:34:56`.
    #[serde(default)]
    pub macs: Vec<String>,
    /// What it still holds from an earlier connection, so that work survives a restart of the server.
    pub held: Vec<HeldAttempt>,
}

impl Hello {
    /// Of this build, with a slot, and nothing else to offer.
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

/// The part of its machine that a worker gives to the farm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Offered {
    pub cores: u32,
    /// Bytes.
    pub memory: u64,
}

/// The reason for which a worker takes no work for now. It finishes or returns what it has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unavailability {
    /// As a person reads it: `asleep until 08:00`.
    pub why: String,
    /// Unix milliseconds, where it is known.
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
    /// The processor is always among them.
    pub devices: Vec<DeviceOffer>,
    pub denoisers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceOffer {
    pub class: DeviceClass,
    pub name: String,
    /// Bytes, where Blender or its driver tells.
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
    /// The slot began this attempt; all in front of it on the slot have left Blender.
    Started {
        attempt: AttemptId,
    },
    Progress {
        attempt: AttemptId,
        /// 0 to 1.
        fraction: f32,
    },
    /// Its Blender has worked on it since the last of these, whether or not anybody can say how far it is. Twice a
    /// minute at most.
    Alive {
        attempt: AttemptId,
        /// It also gets on: it has said something of a sample or a step, or written bytes.
        #[serde(default)]
        moved: bool,
    },
    /// A piece of what Blender printed; at most 64 KiB.
    Log {
        attempt: AttemptId,
        text: String,
    },
    /// Things about the job that the person should know.
    Notices {
        job: JobId,
        texts: Vec<String>,
    },
    /// The attempt has left the slot, and this is how. Repeated until the server answers `Settled`.
    Finished {
        attempt: AttemptId,
        task: TaskId,
        generation: Generation,
        report: AttemptReport,
    },
    /// Renews the leases of all its attempts.
    Heartbeat,
    /// It drains by its own wish (Ctrl-C): no more work, please.
    Draining,
}

/// A worker's report of how an attempt left its slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "kebab-case")]
pub enum AttemptReport {
    /// Its work is done, and every file of it stored at the server. Pictures are checked; files of a bundle take the
    /// place of those of the job's bundle, or come to them.
    Done {
        files: Vec<TaskFile>,
        /// Seconds that the work itself took, by the host's clock.
        seconds: f64,
        /// Bytes.
        peak_memory: u64,
    },
    Failed {
        failure: Failure,
        seconds: f64,
    },
    /// Unfinished: drained, revoked, or never begun.
    Returned,
}

impl AttemptReport {
    /// Files that a task may report; a worker that has more fails the attempt, and says so.
    pub const MAX_FILES: usize = 100_000;
}

/// From the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "down", rename_all = "kebab-case")]
pub enum Down {
    Welcome(Welcome),
    /// The worker gets no work, and this is why; the connection closes.
    Refused {
        reason: String,
    },
    Assign(Box<Assignment>),
    /// Begins a task before the files that it uses are all there.
    Stream(Box<StreamAssignment>),
    /// The files of this streaming attempt are all there: it goes on as an ordinary one, on this slot.
    Place {
        attempt: AttemptId,
        slot: SlotIndex,
        claim: SlotClaim,
    },
    /// There are more files for this streaming attempt. Nothing is lost with this message: the list that the worker asks
    /// for has all of them.
    Arrived {
        attempt: AttemptId,
    },
    Revoke {
        attempt: AttemptId,
        why: RevokeReason,
    },
    /// The report of this attempt is on disk: forget it.
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
    /// The name that the farm knows it by.
    pub name: String,
    pub build: String,
    pub protocol: u32,
    /// A worker refuses a server whose epoch is lower than one that it has seen.
    pub epoch: Epoch,
    pub heartbeat_ms: u64,
    pub desired: DesiredState,
}

/// Tasks of one step of a job for one slot, to be done in this order, behind what the slot already has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    pub slot: SlotIndex,
    pub job: JobId,
    pub work: StepWork,
    pub claim: SlotClaim,
    pub tasks: Vec<AssignedTask>,
}

/// A task that streams: its worker begins with the files that are there, on no slot, and may not report it as done before
/// [`Down::Place`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamAssignment {
    pub job: JobId,
    pub work: StepWork,
    /// Bytes that it may use until it has a slot; 0 where it is not known.
    pub memory: u64,
    pub task: AssignedTask,
}

/// The work that the tasks of an assignment have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepWork {
    pub kind: StepKind,
    /// The session that the tasks have open in Blender; absent in a step without Blender.
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
    /// Seconds that a task may take.
    pub time_limit_s: Option<u32>,
    /// A frame whose picture is entirely black or transparent is a failure.
    pub refuse_black: bool,
}

/// The part of its worker's machine that a slot may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotClaim {
    /// Threads of its Blender, where the job asked for cores; 0 where it did not.
    pub cores: u32,
    /// Bytes; 0 where it is not known.
    pub memory: u64,
    /// By their place among those of the job's kind that its Blender lists; empty for a job on the processor.
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
