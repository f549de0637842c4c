//! Why jobs, frames and attempts failed: `kiln jobs failures`, and what a command that stays with a job says at its end.

use std::collections::BTreeSet;

use kiln_api::{AttemptView, JobView, TaskView};
use kiln_client::Client;
use kiln_types::{FailureCause, FrameSet, JobId, StepIndex, TaskIndex, TaskState};
use serde_json::json;

use super::Context;
use crate::{
    exit::{Exit, Outcome},
    output::{
        Output,
        bake::unrendered,
        one_line,
        table::table,
        text::{count, task},
    },
};

/// Lines that `kiln jobs show` gives to them.
const SHOWN: usize = 30;
/// Reasons of failed frames that a command names at its end.
const SHOWN_REASONS: usize = 10;

pub async fn list(context: &Context, client: &Client, id: JobId) -> Outcome<Exit> {
    let job = client.job(id).await?;
    let failed = failed_tasks(client, &job).await?;
    let attempts = all(client, id).await?;
    context.output.result(&json!({ "job": id, "failed": failed, "attempts": attempts }), || {
        if attempts.is_empty() {
            return format!("No attempt of job {id} has failed.");
        }
        let mut text = shown(&attempts, &gone(&failed));
        if !failed.is_empty() {
            let frames = count(failed.len() as u32, "frame");
            text.push_str(&format!("\n\n{frames} failed. `kiln jobs retry {id}` lets them try again."));
        }
        text
    });
    Ok(Exit::Done)
}

/// What `kiln jobs show` says of the frames that have failed for good: each attempt, up to a number of them.
pub async fn of_failed_frames(client: &Client, id: JobId, failed: &[TaskView]) -> Outcome<Option<String>> {
    let failed = gone(failed);
    let page = client.failed_attempts(id, None).await?;
    let mut attempts = page.attempts;
    attempts.retain(|attempt| failed.contains(&(attempt.step, attempt.index)));
    let more = page.next.is_some() || attempts.len() > SHOWN;
    sort(&mut attempts);
    attempts.truncate(SHOWN);
    if attempts.is_empty() {
        return Ok(None);
    }
    let mut text = shown(&attempts, &failed);
    if more {
        text.push_str(&format!("\n(more: kiln jobs failures {id})"));
    }
    text.push_str(&format!("\n`kiln jobs retry {id}` lets them try again."));
    Ok(Some(text))
}

/// Oldest first, frame by frame.
async fn all(client: &Client, id: JobId) -> Outcome<Vec<AttemptView>> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = client.failed_attempts(id, before).await?;
        all.extend(page.attempts);
        match page.next {
            Some(next) => before = Some(next),
            None => break,
        }
    }
    sort(&mut all);
    Ok(all)
}

fn sort(attempts: &mut [AttemptView]) {
    attempts.sort_by_key(|attempt| (attempt.step, attempt.index, attempt.id));
}

type Tasks = BTreeSet<(StepIndex, TaskIndex)>;

fn gone(failed: &[TaskView]) -> Tasks {
    failed.iter().map(|task| (task.step, task.index)).collect()
}

fn shown(attempts: &[AttemptView], failed: &Tasks) -> String {
    table(
        &["WHAT", "WORKER", "ATTEMPT", "CAUSE", "WHY", "THEN"],
        attempts.iter().map(|attempt| {
            let (cause, why) = match &attempt.failure {
                Some(failure) => (failure.cause.to_string(), failure.message.clone()),
                None => ("lost".to_owned(), "the worker was lost with it".to_owned()),
            };
            let failed = failed.contains(&(attempt.step, attempt.index));
            let then = if failed { "failed for good" } else { "tried again" };
            let what = task(attempt.frame);
            vec![what, attempt.worker.clone(), attempt.id.to_string(), cause, why, then.to_owned()]
        }),
    )
}

/// Every failed task of a job.
///
/// # Errors
/// As every request.
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
///
/// # Errors
/// As every request.
pub async fn explain(output: Output, client: &Client, job: &JobView, failed: &[TaskView]) -> Outcome {
    if let Some(reason) = &job.reason {
        output.warning(&format!("the job was stopped: {reason}"));
        // What Kiln found itself is said in its sentence; Blender's own troubles are told by Blender.
        if !reason.cause.stops_job() || reason.cause == FailureCause::CannotOpen {
            last_lines(output, &reason.log_tail);
        }
    }
    for (reason, frames) in by_reason(failed).into_iter().take(SHOWN_REASONS) {
        // A job that was stopped has said it for all its frames.
        if job.reason.as_ref().is_none_or(|why| why.message != reason) {
            output.warning(&format!("{frames} failed: {reason}"));
        }
    }
    if let Some(why) = unrendered(job) {
        output.warning(&why);
    }
    if let (None, Some(first)) = (&job.reason, failed.first()) {
        let attempts = client.attempts(job.id, first.frame, None).await?.attempts;
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
