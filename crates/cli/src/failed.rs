//! Why a job or its frames failed.

use kiln_api::{JobView, TaskView};
use kiln_client::{Client, WhichAttempts};
use kiln_types::{FailureCause, FrameSet, TaskState};

use crate::{
    exit::{Fault, Outcome},
    output::{Output, bake::unrendered, one_line, text::task},
};

/// Reasons of failed frames that are printed.
pub const SHOWN_FAILURES: usize = 10;

/// A frame that nobody has any more.
pub fn gone(job: kiln_types::JobId, frame: i32) -> Fault {
    Fault::failed(format!(
        "the server keeps frame {frame} no more; `kiln jobs rerender {job}` renders it again while the job's files \
         are there (`kiln jobs show {job}`)"
    ))
}

/// Every failed task of a job.
pub async fn failed_tasks(client: &Client, job: &JobView) -> Outcome<Vec<TaskView>> {
    let mut all = Vec::new();
    for step in job.steps.iter().filter(|step| step.tasks.failed > 0) {
        let mut from = None;
        loop {
            let page = client.tasks(job.id, Some(step.index), Some(TaskState::Failed), from).await?;
            all.extend(page.tasks);
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    Ok(all)
}

/// Says why a job or its frames failed, with Blender's own last lines of the first failure.
pub async fn explain(output: Output, client: &Client, job: &JobView, failed: &[TaskView]) -> Outcome {
    if let Some(reason) = &job.reason {
        output.warning(&format!("the job was stopped: {reason}"));
        // What Kiln found itself is said in its sentence; Blender's own troubles are told by Blender.
        if !reason.cause.stops_job() || reason.cause == FailureCause::CannotOpen {
            last_lines(output, &reason.log_tail);
        }
    }
    for (reason, frames) in by_reason(failed).into_iter().take(SHOWN_FAILURES) {
        // A job that was stopped has said it for all its frames.
        if job.reason.as_ref().is_none_or(|why| why.message != reason) {
            output.warning(&format!("{frames} failed: {reason}"));
        }
    }
    if let Some(why) = unrendered(job) {
        output.warning(&why);
    }
    if let (None, Some(first)) = (&job.reason, failed.first()) {
        let which = WhichAttempts { frame: first.frame, ..WhichAttempts::default() };
        let attempts = client.attempts(job.id, &which).await?.attempts;
        let tail = attempts.iter().rev().find_map(|attempt| attempt.failure.as_ref().map(|f| &f.log_tail));
        last_lines(output, tail.map_or(&[][..], Vec::as_slice));
    }
    Ok(())
}

/// Reasons in the order they came up, each with its frames.
pub fn by_reason(failed: &[TaskView]) -> Vec<(&str, String)> {
    let mut reasons: Vec<(&str, Vec<i32>)> = Vec::new();
    for failed in failed {
        let reason = failed.reason.as_deref().unwrap_or("no reason was given");
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, frames)) => frames.extend(failed.frame),
            None => reasons.push((reason, failed.frame.into_iter().collect())),
        }
    }
    let named = |frames: Vec<i32>| {
        if frames.is_empty() {
            return task(None);
        }
        let word = if frames.len() == 1 { "frame" } else { "frames" };
        FrameSet::from_frames(frames).map_or_else(|_| word.to_owned(), |set| format!("{word} {set}"))
    };
    reasons.into_iter().map(|(reason, frames)| (reason, named(frames))).collect()
}

fn last_lines(output: Output, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    output.note("Blender's last lines:");
    for line in lines {
        output.note(&format!("    {}", one_line(line)));
    }
}
