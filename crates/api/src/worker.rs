//! Workers and what they run, for people.

use kiln_types::{AttemptId, DesiredState, Epoch, JobId, Owner, SlotIndex, TaskName, WorkerId, WorkerState};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{BlenderOffer, Machine, MachineOffer, Unavailability};

/// The public facts of a server; no key is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// `kiln`.
    pub program: String,
    pub build: String,
    /// The newest worker protocol of the server.
    pub protocol: u32,
    pub oldest_protocol: u32,
}

/// The principal of the key.
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
    /// 0 to 1, from Blender or from the times of neighbouring frames.
    pub fraction: Option<f32>,
    /// `fraction` comes from neighbouring frames.
    pub estimated: bool,
    /// Milliseconds that other frames of the job take on this worker; present if this one takes far longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow: Option<u64>,
}

/// The running tasks of one job or of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunningList {
    /// The number of running tasks; `running` may list fewer.
    pub count: u32,
    /// The sum of the fractions of all running frames: 1 is a whole frame.
    pub inside: f64,
    /// The oldest first for one job; by the names of workers for all jobs.
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
    /// The part of its machine that it offers.
    pub offered: MachineOffer,
    pub slots: u16,
    pub tags: Vec<String>,
    #[serde(default)]
    pub pools: Vec<String>,
    pub unavailable: Option<Unavailability>,
    pub quarantine: Option<WorkerQuarantine>,
    /// The farm wakes its machine when work waits for it.
    pub wakes: bool,
    pub blenders: Vec<BlenderOffer>,
    pub running: Vec<RunningView>,
    pub last_seen_ms: i64,
}

/// The quarantine of a worker that fails, or goes down, where others deliver. It gets nothing but probes, single tasks
/// from time to time, until one succeeds.
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
