//! Why a job waits, in words.

use kiln_api::{Explanation, JobView, TimeLeft};
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
    for reason in &why.reasons {
        let what = match reason.step {
            StepKind::Bake => "The bake".to_owned(),
            StepKind::Render => count(reason.tasks, "frame"),
        };
        let goes_on = "handed out as soon as a slot is free.".to_owned();
        for sentence in if reason.texts.is_empty() { std::slice::from_ref(&goes_on) } else { &reason.texts } {
            text.push_str(&format!("\n{what} wait{}: {sentence}", if reason.tasks == 1 { "s" } else { "" }));
        }
    }
    for unmet in &why.unmet {
        text.push_str(&format!("\n  {} lacks {}", unmet.worker, unmet.missing.join(", ")));
    }
    if let Some(left) = why.left {
        text.push_str(&format!("\nTime left: {}", left_of(left)));
    }
    text.lines().map(one_line).collect::<Vec<_>>().join("\n")
}

/// The time left as it is known: one figure, and how far off it may be.
pub fn left_of(left: TimeLeft) -> String {
    let TimeLeft { soonest_s, likely_s, latest_s } = left;
    format!("about {} ({} to {})", clock(likely_s), clock(soonest_s), clock(latest_s))
}
