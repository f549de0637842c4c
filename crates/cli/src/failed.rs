//! The reasons why a job or its frames failed.

use kiln_api::{JobView, TaskView};
use kiln_types::{FailureCause, FrameSet, TaskName};

use crate::output::{bake::unrendered, one_line, submission::Voice};

/// The number of reasons that are printed.
pub const SHOWN_FAILURES: usize = 10;

/// Prints why a job or its frames failed, with Blender's own last lines of the first failure.
pub fn explain(output: Voice<'_>, job: &JobView, failed: &[TaskView], log_tail: &[String]) {
    if let Some(reason) = &job.reason {
        output.warning(&format!("the job was stopped: {reason}"));
        // A fault that Kiln found needs no more than its sentence; one of Blender is explained by its log.
        if !reason.cause.stops_job() || reason.cause == FailureCause::CannotOpen {
            last_lines(output, log_tail);
        }
    }
    for (reason, frames) in by_reason(failed).into_iter().take(SHOWN_FAILURES) {
        // The reason of the job was printed above.
        if job.reason.as_ref().is_none_or(|why| why.message != reason) {
            output.warning(&format!("{frames} failed: {reason}"));
        }
    }
    if let Some(why) = unrendered(job) {
        output.warning(&why);
    }
    if job.reason.is_none() {
        last_lines(output, log_tail);
    }
}

/// Groups failed frames by reason, in the order in which the reasons came up.
pub fn by_reason(failed: &[TaskView]) -> Vec<(&str, String)> {
    let mut reasons: Vec<(&str, TaskName, Vec<i32>)> = Vec::new();
    for failed in failed {
        let reason = failed.reason.as_deref().unwrap_or("no reason was given");
        match reasons.iter_mut().find(|(known, ..)| *known == reason) {
            Some((.., frames)) => frames.extend(failed.name.frame),
            None => reasons.push((reason, failed.name, failed.name.frame.into_iter().collect())),
        }
    }
    let named = |first: TaskName, frames: Vec<i32>| {
        if frames.is_empty() {
            return first.to_string();
        }
        let word = if frames.len() == 1 { "frame" } else { "frames" };
        FrameSet::from_frames(frames).map_or_else(|_| word.to_owned(), |set| format!("{word} {set}"))
    };
    reasons.into_iter().map(|(reason, first, frames)| (reason, named(first, frames))).collect()
}

fn last_lines(output: Voice<'_>, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    output.note("Blender's last lines:");
    for line in lines {
        output.note(&format!("    {}", one_line(line)));
    }
}
