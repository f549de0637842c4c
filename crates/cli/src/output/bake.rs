//! The bake of a job, in words.

use kiln_api::{JobView, StepView};
use kiln_types::{JobState, StepKind};

use super::text::clock;

/// The step that bakes, where the job has one.
pub fn bake(job: &JobView) -> Option<&StepView> {
    job.steps.iter().find(|step| step.kind == StepKind::Bake)
}

/// Whether the job's frames still wait for its bake.
pub fn is_baking(job: &JobView) -> bool {
    !job.state.is_end() && bake(job).is_some_and(|step| step.tasks.done < step.tasks.total)
}

/// What a bake took, once it is done; seconds.
pub fn took(step: &StepView) -> Option<f64> {
    let (started, ended) = (step.started_ms?, step.ended_ms?);
    Some((ended - started).max(0) as f64 / 1000.0)
}

/// How far it is: `43%`, `done in 0:12`, `failed`.
pub fn progress(job: &JobView, step: &StepView) -> String {
    let tasks = step.tasks;
    if tasks.done == tasks.total {
        return took(step).map_or_else(|| "done".to_owned(), |took| format!("done in {}", clock(took)));
    }
    match job.state {
        _ if tasks.failed > 0 => "failed".to_owned(),
        _ if tasks.running > 0 => format!("{:.0}%", step.progress * 100.0),
        JobState::Cancelled | JobState::Failed => "not done".to_owned(),
        _ => "waits for a worker".to_owned(),
    }
}

/// The frames that nobody rendered, because what they wait for failed: a sentence.
pub fn unrendered(job: &JobView) -> Option<String> {
    bake(job).filter(|step| job.state.is_end() && step.tasks.failed > 0)?;
    let (id, frames) = (job.id, &job.spec.frames);
    let word = if frames.len() == 1 { "frame" } else { "frames" };
    Some(format!("{word} {frames} not rendered, because the bake failed; `kiln jobs retry {id}` bakes again"))
}
