//! The explanation of a job that waits, in words.

use kiln_api::{Explanation, JobView, TimeLeft, UnmetView};
use kiln_types::StepKind;

use super::{
    one_line,
    text::{clock, count},
};

/// Explains why a job waits, a line for each sentence.
pub fn explanation(job: &JobView, why: &Explanation) -> String {
    let counts = job.tasks;
    let mut text = format!(
        "Job {} ({}) is {}: {} of {} done, {} running, {} waiting.",
        job.id,
        job.name,
        job.state,
        counts.done,
        count(counts.total, "frame"),
        counts.running,
        counts.waiting + counts.assigned,
    );
    for step in &why.steps {
        let what = match step.step {
            StepKind::Render => count(step.tasks, "frame"),
            kind => format!("The {kind}"),
        };
        let wait = if step.tasks == 1 { "waits" } else { "wait" };
        if step.reasons.is_empty() {
            text.push_str(&format!("\n{what} {wait}: dispatched as soon as a slot is free."));
        }
        for reason in &step.reasons {
            text.push_str(&format!("\n{what} {wait}: {reason}"));
        }
    }
    for unmet in &why.unmet {
        text.push_str(&format!("\n  {}", lacks(unmet)));
    }
    if let Some(left) = why.left {
        text.push_str(&format!("\nTime left: {}", left_of(left)));
    }
    text.lines().map(one_line).collect::<Vec<_>>().join("\n")
}

/// Returns the line of a worker that does not meet the requirements of a job.
pub fn lacks(unmet: &UnmetView) -> String {
    let missing: Vec<String> = unmet.missing.iter().map(ToString::to_string).collect();
    format!("{} lacks {}", unmet.worker, missing.join(", "))
}

/// Describes the time left: the most likely figure, and its range.
pub fn left_of(left: TimeLeft) -> String {
    let TimeLeft { soonest_s, likely_s, latest_s } = left;
    format!("about {} ({} to {})", clock(likely_s), clock(soonest_s), clock(latest_s))
}
