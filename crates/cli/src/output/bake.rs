//! The bake of a job, in words.

use kiln_api::{JobView, StepView};
use kiln_types::JobState;

use super::text::clock;

/// Returns the progress of a bake: `43%`, `done in 0:12`, `failed`.
pub fn progress(job: &JobView, step: &StepView) -> String {
    let tasks = step.tasks;
    if tasks.done == tasks.total {
        return step.seconds().map_or_else(|| "done".to_owned(), |took| format!("done in {}", clock(took)));
    }
    match job.state {
        _ if tasks.failed > 0 => "failed".to_owned(),
        _ if tasks.running > 0 => format!("{:.0}%", step.progress * 100.0),
        JobState::Cancelled | JobState::Failed => "not done".to_owned(),
        _ => "waits for a worker".to_owned(),
    }
}

/// Returns a sentence on frames that were not rendered because the bake failed.
pub fn unrendered(job: &JobView) -> Option<String> {
    job.bake().filter(|step| job.state.is_end() && step.tasks.failed > 0)?;
    let (id, frames) = (job.id, &job.spec.frames);
    let word = if frames.len() == 1 { "frame" } else { "frames" };
    Some(format!("{word} {frames} not rendered, because the bake failed; `kiln jobs retry {id}` bakes again"))
}
