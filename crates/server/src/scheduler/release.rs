//! After the transaction of a turn: answers, and the core's pushes as messages of the wire.

use kiln_api::{AssignedTask, Assignment, Down, SlotClaim, StepWork, StreamAssignment};
use kiln_core::{Assigned, Claim, Push};
use kiln_types::{JobId, JobSpec, ProductKind, SlotIndex, StepDependency, StepInput, StepSpec, TaskSpace};

use super::{
    actor::Scheduler,
    batch::Send,
    farm::{FarmState, LiveJob},
};

impl Scheduler {
    /// Sends everything that the transaction has made durable.
    pub(super) fn release(&mut self) {
        for reply in self.batch.replies.drain(..) {
            reply(&self.farm);
        }
        for (worker, send) in self.batch.outbox.sends.drain(..) {
            let down = match send {
                Send::Down(down) => Some(down),
                Send::Push(push) => message_of(&self.farm, push),
            };
            if let Some(down) = down {
                self.farm.send(worker, down);
            }
        }
        for job in self.batch.deleted.drain(..) {
            self.logs.delete(job);
        }
        self.batch.holds.clear();
        self.batch.reports.clear();
        self.batch.held_slots.clear();
    }
}

/// Returns the message for a push of the core.
fn message_of(farm: &FarmState, push: Push) -> Option<Down> {
    match push {
        Push::Assign { slot, claim, tasks } => {
            assignment(farm, slot, claim, &tasks).map(|all| Down::Assign(Box::new(all)))
        }
        Push::Revoke { attempt, why } => Some(Down::Revoke { attempt, why }),
        Push::DesiredState(desired) => Some(Down::DesiredState { desired }),
        Push::Stream { claim, task } => {
            let live = farm.jobs.get(&task.task.job)?;
            let work = work(task.task.job, live, live.steps.get(task.task.step)?)?;
            let (job, task, memory) = (task.task.job, assigned_task(live, &task), claim.memory);
            Some(Down::Stream(Box::new(StreamAssignment { job, work, memory, task })))
        }
        Push::Place { attempt, slot, claim } => {
            let (task, ..) = farm.core.attempt_task(attempt)?;
            let claim = slot_claim(&farm.jobs.get(&task.job)?.spec, claim);
            Some(Down::Place { attempt, slot, claim })
        }
        Push::Arrived { attempt } => Some(Down::Arrived { attempt }),
    }
}

fn assignment(farm: &FarmState, slot: SlotIndex, claim: Claim, tasks: &[Assigned]) -> Option<Assignment> {
    let job = tasks.first()?.task.job;
    let live = farm.jobs.get(&job)?;
    let spec = &live.spec;
    let step = live.steps.get(tasks.first()?.task.step)?;
    let tasks = tasks.iter().map(|assigned| assigned_task(live, assigned)).collect();
    Some(Assignment { slot, job, work: work(job, live, step)?, claim: slot_claim(spec, claim), tasks })
}

fn work(job: JobId, live: &LiveJob, step: &StepSpec) -> Option<StepWork> {
    let session = match step.opens {
        StepInput::None => None,
        _ => {
            let session = live.session(step);
            if session.is_none() {
                tracing::error!(%job, "tasks dispatched before their bundle was made or their device was chosen");
            }
            Some(session?)
        }
    };
    let is_read = |after: &&StepDependency| {
        live.steps.get(after.step).is_some_and(|step| step.product != ProductKind::Bundle)
    };
    Some(StepWork {
        kind: step.kind,
        session,
        inputs: step.after.iter().filter(is_read).copied().collect(),
        parts: match step.space {
            TaskSpace::Parts(parts) => Some(parts),
            TaskSpace::One | TaskSpace::Frames => None,
        },
        product: step.product,
        time_limit_s: live.spec.frame_time_limit_s.filter(|_| step.space.per_frame().is_some()),
        refuse_black: live.spec.refuse_black,
    })
}

fn assigned_task(live: &LiveJob, assigned: &Assigned) -> AssignedTask {
    let Assigned { attempt, task, generation } = *assigned;
    let frame = live.steps.frame_of(&live.spec.frames, task.step, task.index);
    AssignedTask { attempt, task, generation, frame, part: live.steps.part_of(task.step, task.index) }
}

fn slot_claim(spec: &JobSpec, claim: Claim) -> SlotClaim {
    SlotClaim {
        // Without a request for cores, each Blender uses the cores that are free: short frames overlap well that way.
        cores: if spec.requirements.cores.is_some() || spec.requirements.whole { claim.cores } else { 0 },
        memory: claim.memory,
        gpus: claim.gpus.iter().collect(),
    }
}
