//! The running tasks of a job, and lists of its attempts, with limits on their size.

use kiln_api::{AttemptsPage, RunningList, Up};
use kiln_client::AttemptFilter;
use kiln_types::{AttemptState, FailureCause, JobState};

use crate::support::{FakeWorker, Farm, problem, soon};

#[tokio::test]
async fn what_runs_is_counted_in_whole_and_shown_in_part() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "anvil", 2).await;
    let (job, other) = (farm.submit("1-4").await, farm.submit("1-2").await);
    let mut begun = Vec::new();
    while begun.len() < 2 {
        let assignment = worker.assignment().await;
        if assignment.job == job.id {
            let first = assignment.tasks[0].clone();
            worker.say(Up::Started { attempt: first.attempt }).await;
            begun.push(first);
        }
    }
    worker.say(Up::Progress { attempt: begun[0].attempt, fraction: 0.25 }).await;
    let list = async {
        loop {
            let list = farm.client.running(job.id, 10).await.unwrap();
            if list.count == 2 && list.inside > 0.0 {
                return list;
            }
            tokio::task::yield_now().await;
        }
    };
    let list = soon("two frames in work", list).await;
    assert!((list.inside - 0.25).abs() < 1e-6, "{}", list.inside);
    let shown: Vec<_> = list.running.iter().map(|run| (run.worker.as_str(), run.task.name.frame)).collect();
    assert_eq!(shown, [("anvil", begun[0].frame), ("anvil", begun[1].frame)], "the first first");
    assert_eq!((list.running[0].task.fraction, list.running[0].task.estimated), (Some(0.25), false));
    let one = farm.client.running(job.id, 1).await.unwrap();
    assert_eq!((one.count, one.running.len(), one.inside), (2, 1, 0.25));
    assert_eq!(farm.client.running(other.id, 1).await.unwrap().count, 0);
    // And that is all that runs anywhere.
    assert_eq!(farm.client.running_everywhere().await.unwrap(), list);
    let views = farm.client.workers().await.unwrap();
    let tasks: Vec<_> = list.running.into_iter().map(|run| run.task).collect();
    assert_eq!(views[0].running, tasks);

    let nobody = farm.get("/api/v1/jobs/999/running").await;
    assert_eq!(problem(nobody).await.status, 404);
    farm.client.cancel(job.id).await.unwrap();
    farm.reaches(&job, JobState::Cancelled).await;
    // After a restart only the records know of it.
    let farm = farm.restart().await;
    let answer = farm.get(&format!("/api/v1/jobs/{}/running?limit=1", job.id)).await;
    let list: RunningList = answer.json().await.unwrap();
    assert_eq!((list.count, list.running.len()), (0, 0));
}

#[tokio::test]
async fn attempts_are_found_by_their_state() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "anvil", 1).await;
    let job = farm.submit("1-3").await;
    let mut tasks = worker.assignment().await.tasks;
    worker.say(Up::Started { attempt: tasks[0].attempt }).await;
    worker.deliver(&tasks[0]).await;
    if tasks.len() == 1 {
        tasks.extend(worker.assignment().await.tasks);
    }
    let task = tasks[1].clone();
    worker.say(Up::Started { attempt: task.attempt }).await;
    let failure = kiln_types::Failure::new(FailureCause::Crashed, "it went wrong");
    worker.report(&task, kiln_api::AttemptReport::Failed { failure, seconds: 1.0 }).await;
    let states = async |which: AttemptFilter| {
        let page = farm.client.attempts(job.id, &which).await.unwrap();
        page.attempts.into_iter().map(|attempt| attempt.state).collect::<Vec<_>>()
    };
    let only = |state| AttemptFilter { state: Some(state), limit: Some(1), ..AttemptFilter::default() };
    assert_eq!(states(only(AttemptState::Committed)).await, [AttemptState::Committed]);
    assert_eq!(states(only(AttemptState::Failed)).await, [AttemptState::Failed]);
    assert!(states(only(AttemptState::Revoked)).await.is_empty());
    let failed = |state| AttemptFilter { failed: true, ..only(state) };
    assert_eq!(states(failed(AttemptState::Failed)).await, [AttemptState::Failed]);
    assert!(states(failed(AttemptState::Committed)).await.is_empty());
    let all = farm.client.all_attempts(job.id, AttemptFilter::default()).await.unwrap();
    let page: AttemptsPage =
        farm.get(&format!("/api/v1/jobs/{}/attempts", job.id)).await.json().await.unwrap();
    assert_eq!(all, page.attempts);
}
