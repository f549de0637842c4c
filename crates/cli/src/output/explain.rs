//! The explanation of a job that waits, as people read it.

use kiln_api::{Explanation, JobView, TimeLeft, UnmetView};
use kiln_types::StepKind;

use super::{
    one_line,
    text::{clock, count},
};

/// A sentence a line.
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

/// The line of a worker that does not meet the requirement of a job.
pub fn lacks(unmet: &UnmetView) -> String {
    let missing: Vec<String> = unmet.missing.iter().map(ToString::to_string).collect();
    format!("{} lacks {}", unmet.worker, missing.join(", "))
}

/// The time left as it is known: one figure, and how far off it may be.
pub fn left_of(left: TimeLeft) -> String {
    let TimeLeft { soonest_s, likely_s, latest_s } = left;
    format!("about {} ({} to {})", clock(likely_s), clock(soonest_s), clock(latest_s))
}
