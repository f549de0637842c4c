//! The timeline of a farm: its runs, commits and ends.

use std::collections::BTreeMap;

use kiln_core::Claim;
use kiln_types::{AttemptId, FailureCause, JobId, JobState, SlotIndex, TaskId};

/// One run of one frame on one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub attempt: AttemptId,
    pub task: TaskId,
    /// The place of the node in the farm.
    pub node: usize,
    pub slot: SlotIndex,
    pub claim: Claim,
    pub began: u64,
    /// The time at which the slot was vacant again.
    pub ended: u64,
    pub end: RunEnd,
    /// The slot had to open the scene.
    pub opened: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    Rendered,
    Failed(FailureCause),
    /// The server revoked the attempt.
    Stopped,
    /// The machine died.
    Lost,
    /// The run of the farm ended before.
    Unfinished,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The runs in the order of their starts.
    pub runs: Vec<Run>,
    /// The time of each frame's commit.
    pub commits: BTreeMap<TaskId, u64>,
    /// The tasks that failed, with the reason.
    pub failed: BTreeMap<TaskId, String>,
    /// The time and the state of each job's end.
    pub ends: BTreeMap<JobId, (u64, JobState)>,
    pub speculations: u64,
    pub preemptions: u64,
}

impl Timeline {
    /// The end of the last job.
    pub fn took_ms(&self) -> u64 {
        self.ends.values().map(|(at, _)| *at).max().unwrap_or(0)
    }

    pub fn end_of(&self, job: u64) -> Option<u64> {
        self.ends.get(&JobId(job)).map(|(at, _)| *at)
    }

    pub fn completed(&self) -> bool {
        self.ends.values().all(|(_, state)| *state == JobState::Completed)
    }

    pub fn of(&self, job: u64) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(move |run| run.task.job == JobId(job))
    }

    /// The start of the first frame of the job.
    pub fn start_of(&self, job: u64) -> Option<u64> {
        self.of(job).map(|run| run.began).min()
    }

    /// Milliseconds of slots that the job had between these times.
    pub fn busy_ms(&self, job: u64, from: u64, to: u64) -> u64 {
        self.of(job).map(|run| run.ended.min(to).saturating_sub(run.began.max(from))).sum()
    }

    /// The most of these runs at one time.
    pub fn most_at_once(runs: impl Iterator<Item = (u64, u64)>) -> usize {
        let mut edges: Vec<(u64, i32)> = runs.flat_map(|(began, ended)| [(began, 1), (ended, -1)]).collect();
        // At one time, ends come first.
        edges.sort_unstable();
        let (mut now, mut most) = (0, 0);
        for (_, edge) in edges {
            now += edge;
            most = most.max(now);
        }
        most as usize
    }

    pub fn openings(&self) -> usize {
        self.runs.iter().filter(|run| run.opened).count()
    }

    /// The percentage of the rendering that was wasted.
    pub fn wasted_percent(&self) -> u64 {
        let ms = |run: &Run| run.ended - run.began;
        let all: u64 = self.runs.iter().map(ms).sum();
        let lost = self.runs.iter().filter(|run| run.end != RunEnd::Rendered).map(ms).sum::<u64>();
        lost * 100 / all.max(1)
    }
}
