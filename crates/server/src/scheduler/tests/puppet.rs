//! The workers of the random farms.

use kiln_api::AssignedTask;

use super::*;

/// A simulated worker and the attempts that it holds.
pub(super) struct Puppet {
    pub id: WorkerId,
    pub link: u64,
    pub downs: Option<mpsc::Receiver<kiln_api::Down>>,
    pub held: BTreeMap<AttemptId, (HeldAttempt, Makes)>,
    pub revoked: Vec<(AttemptId, RevokeReason)>,
}

/// The files that a task makes.
#[derive(Clone, Copy)]
pub(super) enum Makes {
    Frame(i32),
    Bundle,
    /// The files of an added step.
    Files,
}

impl Puppet {
    pub fn new(id: u64) -> Self {
        Self {
            id: WorkerId::from_bits(id).unwrap(),
            link: 0,
            downs: None,
            held: BTreeMap::new(),
            revoked: Vec::new(),
        }
    }

    pub fn take(&mut self, task: &AssignedTask, kind: StepKind, phase: HeldPhase) {
        let AssignedTask { attempt, task: id, generation, frame, .. } = *task;
        let makes = match (kind, frame) {
            (StepKind::Render, Some(frame)) => Makes::Frame(frame),
            (StepKind::Test, _) => Makes::Files,
            _ => Makes::Bundle,
        };
        self.held.insert(attempt, (HeldAttempt { attempt, task: id, generation, phase }, makes));
    }
}
