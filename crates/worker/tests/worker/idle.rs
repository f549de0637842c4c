//! The processes of a worker without work.

use std::time::{Duration, Instant};

use kiln_api::{AttemptReport, Down};
use kiln_worker::{AvailabilityOptions, RunningWorker, WorkerOptions};

use crate::{
    assert_no_blender_in,
    availability::{Open, hold_screen},
    blenders_in,
    farm::{Farm, LIMIT},
};

/// A worker of two slots that is idle after a second. It ignores a person who types at this machine.
fn options(farm: &Farm) -> WorkerOptions {
    let mut options = farm.options();
    options.slots = Some(2);
    options.idle_after = Duration::from_secs(1);
    options.availability = AvailabilityOptions { idle: Duration::ZERO, ..AvailabilityOptions::default() };
    options
}

/// Waits until this number of Blenders runs, this one not among them, and it stays so over a decision.
async fn settles(farm: &Farm, wanted: usize, without: Option<u32>, why: &str) {
    let started = Instant::now();
    let mut since = None;
    loop {
        let there = blenders_in(farm.data());
        let settled = there.len() == wanted && without.is_none_or(|pid| !there.contains(&pid));
        since = settled.then(|| since.unwrap_or_else(Instant::now));
        if since.is_some_and(|since: Instant| since.elapsed() > Duration::from_millis(1_200)) {
            return;
        }
        assert!(started.elapsed() < LIMIT, "{there:?} run, and not {wanted}: {why}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_keeps_one_blender_and_none_while_somebody_uses_the_machine() {
    let _screen = hold_screen();
    let folder = tempfile::tempdir().unwrap();
    let mut farm = Farm::open().await;
    let worker = RunningWorker::start(options(&farm)).await.unwrap();
    let mut line = farm.next().await;
    settles(&farm, 1, None, "both slots gave theirs back, and one waits for work").await;

    // The one that waits is what the first work gets.
    let spare = blenders_in(farm.data())[0];
    let assignment = farm.assignment(0, &farm.session(10, 1), &[1]);
    line.send(Down::Assign(Box::new(assignment))).await;
    // Looked at while it renders: a busy machine may come here when the idle second after it is over.
    let finish = {
        let mut finished = std::pin::pin!(line.finished());
        loop {
            match tokio::time::timeout(Duration::from_millis(20), &mut finished).await {
                Ok((_, finish)) => break finish,
                Err(_) => assert_eq!(blenders_in(farm.data()), [spare], "another one was started for it"),
            }
        }
    };
    assert!(matches!(finish, AttemptReport::Done { .. }));
    settles(&farm, 1, Some(spare), "the scene of the last job is not held without end").await;

    let open = Open::new(folder.path());
    settles(&farm, 0, None, "somebody has opened a Blender on this machine").await;
    // It has not gone to rest by that: nobody told it to give way.
    let assignment = farm.assignment(1, &farm.session(10, 1), &[2]);
    line.send(Down::Assign(Box::new(assignment))).await;
    assert!(matches!(line.finished().await.1, AttemptReport::Done { .. }));
    drop(open);
    settles(&farm, 1, None, "the person who had it open is gone").await;
    worker.stop_hard().await;
    assert_no_blender_in(farm.data());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_worker_that_is_given_little_memory_keeps_no_blender() {
    let mut farm = Farm::open().await;
    let mut options = options(&farm);
    options.memory = Some(1 << 30);
    let worker = RunningWorker::start(options).await.unwrap();
    let mut line = farm.next().await;
    settles(&farm, 0, None, "1 GiB is needed for scenes").await;
    let assignment = farm.assignment(0, &farm.session(10, 1), &[1]);
    line.send(Down::Assign(Box::new(assignment))).await;
    assert!(matches!(line.finished().await.1, AttemptReport::Done { .. }));
    settles(&farm, 0, None, "the job is done").await;
    worker.stop_hard().await;
}
