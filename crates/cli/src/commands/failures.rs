//! `kiln jobs failures`: every attempt that failed, and why.

use std::collections::BTreeSet;

use kiln_api::{AttemptView, TaskView};
use kiln_client::{AttemptFilter, Client, submission::failed_tasks};
use kiln_types::{JobId, StepIndex, TaskIndex};
use serde_json::json;

use super::Context;
use crate::{
    exit::{Exit, Outcome},
    output::{table::table, text::count},
};

/// Failures that `kiln jobs show` prints.
const SHOWN: usize = 30;

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
            text.push_str(&format!("\n\n{frames} failed. `kiln jobs retry {id}` tries them again."));
        }
        text
    });
    Ok(Exit::Done)
}

/// Returns the lines of `kiln jobs show` on the frames that have failed for good: each attempt, up to a number of them.
pub async fn of_failed_frames(client: &Client, id: JobId, failed: &[TaskView]) -> Outcome<Option<String>> {
    let failed = gone(failed);
    let page = client.attempts(id, &of_failed()).await?;
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
    text.push_str(&format!("\n`kiln jobs retry {id}` tries them again."));
    Ok(Some(text))
}

/// Returns all attempts that failed, by frame and age.
async fn all(client: &Client, id: JobId) -> Outcome<Vec<AttemptView>> {
    let mut all = client.all_attempts(id, of_failed()).await?;
    sort(&mut all);
    Ok(all)
}

fn of_failed() -> AttemptFilter {
    AttemptFilter { failed: true, ..AttemptFilter::default() }
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
            let what = attempt.name.to_string();
            vec![what, attempt.worker.clone(), attempt.id.to_string(), cause, why, then.to_owned()]
        }),
    )
}
