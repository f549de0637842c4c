//! Workers as people see them.

use kiln_types::{AttemptId, DesiredState, Epoch, JobId, Owner, SlotIndex, TaskName, WorkerId, WorkerState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{BlenderOffer, Machine, Offered, Unavailability};

/// What anyone may know of a server, without a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// `kiln`.
    pub program: String,
    pub build: String,
    /// The protocol numbers of workers that it speaks.
    pub protocol: u32,
    pub oldest_protocol: u32,
}

/// Who the key belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    pub owner: Owner,
    pub epoch: Epoch,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunningView {
    pub slot: SlotIndex,
    pub attempt: AttemptId,
    pub job: JobId,
    #[serde(flatten)]
    pub name: TaskName,
    pub since_ms: i64,
    /// 0 to 1: said by Blender where it says it, else estimated from the frame's neighbours.
    pub fraction: Option<f32>,
    /// Whether `fraction` is an estimate.
    pub estimated: bool,
    /// Milliseconds that other frames of its job take on this worker; only there if this one takes far longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<u64>,
}

/// What runs now, of one job or of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunningList {
    /// All that run; `running` may hold fewer.
    pub count: u32,
    /// The parts that are done of all frames that run, together: 1 is a whole frame.
    pub inside: f64,
    /// Of one job the oldest first; of all jobs by the names of workers.
    pub running: Vec<RunningTask>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunningTask {
    /// The worker's name.
    pub worker: String,
    #[serde(flatten)]
    pub task: RunningView,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    pub id: WorkerId,
    /// Unique in the farm.
    pub name: String,
    pub state: WorkerState,
    pub desired: DesiredState,
    pub build: String,
    pub machine: Machine,
    /// What of its machine it gives to the farm.
    pub offered: Offered,
    pub slots: u16,
    pub tags: Vec<String>,
    /// The pools that the farm has put it in.
    #[serde(default)]
    pub pools: Vec<String>,
    /// The reason for which it takes no work for now: its schedule, a person, or other load.
    pub unavailable: Option<Unavailability>,
    /// The reason for which the farm gives it single probes alone: it fails, or goes down, where others deliver.
    pub quarantine: Option<WorkerQuarantine>,
    /// Whether the farm wakes its machine when work waits for it.
    pub wakes: bool,
    pub blenders: Vec<BlenderOffer>,
    pub running: Vec<RunningView>,
    pub last_seen_ms: i64,
}

/// The quarantine of a worker: until it delivers, it gets one task from time to time, a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerQuarantine {
    /// One sentence for a person.
    pub why: String,
    /// The number of probes that failed.
    pub failed_probes: u32,
    /// The time of the next probe; absent if one runs, or if the next task that fits is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_probe_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    pub workers: Vec<WorkerView>,
}
