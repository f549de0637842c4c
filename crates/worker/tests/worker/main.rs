//! A whole worker with a real Blender against a server that the test plays.

#![allow(clippy::unwrap_used)]

mod availability;
mod bake;
mod farm;
mod idle;
mod steps;

use std::time::{Duration, Instant};

use farm::{Farm, LIMIT};
use kiln_api::{AttemptReport, Down, Up};
use kiln_types::{DesiredState, Epoch, FailureCause, HeldPhase, ReportOutcome, RevokeReason, SlotIndex};
use kiln_worker::{RunningWorker, WorkerError, WorkerEvent, WorkerExit};
use tokio::{sync::broadcast::Receiver, time::timeout};

/// Skips to the event that is looked for.
async fn until<T>(events: &mut Receiver<WorkerEvent>, pick: impl Fn(&WorkerEvent) -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = pick(&events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    timeout(LIMIT, found).await.expect("what is waited for does not happen")
}

/// Processes whose environment names this folder: the Blenders of this very test.
fn blenders_in(folder: &std::path::Path) -> Vec<u32> {
    let needle = folder.to_str().unwrap().as_bytes();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.windows(needle.len()).any(|window| window == needle)
    })
    .collect()
}

fn assert_no_blender_in(folder: &std::path::Path) {
    let started = Instant::now();
    // A killed process needs a moment to be gone.
    while !blenders_in(folder).is_empty() {
        assert!(started.elapsed() < Duration::from_secs(5), "orphans: {:?}", blenders_in(folder));
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_are_rendered_checked_delivered_and_the_gap_between_them_is_short() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut events = worker.subscribe();
    let mut line = farm.next().await;
    assert_eq!(line.hello.name, "anvil");
    assert_eq!(line.hello.slots, 1);
    assert!(line.hello.held.is_empty());
    assert!(
        line.hello
            .blenders
            .iter()
            .any(|offer| offer.version.series().to_string() == kiln_testkit::blender_series())
    );
    let session = farm.session(10, 1);
    let frames: Vec<i32> = (1..=12).collect();
    let assignment = farm.assignment(0, &session, &frames);
    let attempts: Vec<_> = assignment.tasks.iter().map(|task| task.attempt).collect();
    line.send(Down::Assign(Box::new(assignment))).await;
    let mut delivered = Vec::new();
    for _ in &frames {
        let (attempt, finish) = line.finished().await;
        let AttemptReport::Done { files, seconds, peak_memory } = finish else { panic!("{finish:?}") };
        assert!(seconds > 0.0 && peak_memory > 1 << 20);
        let [file] = &files[..] else { panic!("{files:?}") };
        let picture = file.picture.as_ref().unwrap();
        assert_eq!((picture.width, picture.height), (38, 21));
        assert!(farm.has(&file.hash), "the bytes are there before the report");
        delivered.push(attempt);
    }
    delivered.sort();
    assert_eq!(delivered, attempts);
    let mut gaps = Vec::new();
    while gaps.len() < frames.len() - 1 {
        let gap = until(&mut events, |event| match event {
            WorkerEvent::Rendered { gap, .. } => *gap,
            _ => None,
        });
        gaps.push(gap.await);
    }
    gaps.sort_by(f64::total_cmp);
    println!("median gap: {:.2} ms", gaps[gaps.len() / 2] * 1000.0);
    assert!(matches!(*worker.drain().await, WorkerExit::Drained));
    assert_no_blender_in(farm.data());
    for part in ["outbox", "inputs", "bundles", "roots"] {
        let left = std::fs::read_dir(farm.data().join("worker-0").join(part)).unwrap().count();
        assert_eq!(left, 0, "nothing is left in {part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_tasks_are_returned() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let long = farm.session(100, 1_000_000);
    let assignment = farm.assignment(0, &long, &[1, 2, 3]);
    let [first, second, third] = [0, 1, 2].map(|at| assignment.tasks[at].attempt);
    line.send(Down::Assign(Box::new(assignment))).await;
    assert_eq!(line.started().await, first);
    line.send(Down::Revoke { attempt: second, why: RevokeReason::Preempted }).await;
    assert_eq!(line.finished().await, (second, AttemptReport::Returned));
    // A thief does not get what renders: the answer to the cancel behind it comes first.
    line.send(Down::Revoke { attempt: first, why: RevokeReason::Preempted }).await;
    line.send(Down::Revoke { attempt: third, why: RevokeReason::Cancelled }).await;
    assert_eq!(line.finished().await, (third, AttemptReport::Returned));
    line.send(Down::Revoke { attempt: first, why: RevokeReason::Cancelled }).await;
    assert_eq!(line.finished().await, (first, AttemptReport::Returned));
    // And the slot renders on.
    let short = farm.session(10, 1);
    let assignment = farm.assignment(0, &short, &[5]);
    line.send(Down::Assign(Box::new(assignment))).await;
    assert!(matches!(line.finished().await.1, AttemptReport::Done { .. }));
    worker.stop_hard().await;
    assert_no_blender_in(farm.data());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blender_that_is_killed_fails_one_frame_and_the_next_goes_on() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let long = farm.session(100, 1_000_000);
    let assignment = farm.assignment(0, &long, &[1]);
    line.send(Down::Assign(Box::new(assignment))).await;
    line.started().await;
    let short = farm.session(10, 1);
    let next = farm.assignment(0, &short, &[2]);
    line.send(Down::Assign(Box::new(next))).await;
    let started = Instant::now();
    let pid = loop {
        if let Some(pid) = blenders_in(farm.data()).first() {
            break *pid;
        }
        assert!(started.elapsed() < LIMIT);
    };
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let (_, finish) = line.finished().await;
    let AttemptReport::Failed { failure, .. } = finish else { panic!("{finish:?}") };
    assert_eq!(failure.cause, FailureCause::Crashed, "{failure}");
    assert!(matches!(line.finished().await.1, AttemptReport::Done { .. }));
    worker.stop_hard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_beyond_its_time_is_stopped() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let long = farm.session(100, 1_000_000);
    let mut assignment = farm.assignment(0, &long, &[1]);
    assignment.work.time_limit_s = Some(1);
    line.send(Down::Assign(Box::new(assignment))).await;
    let AttemptReport::Failed { failure, seconds } = line.finished().await.1 else {
        panic!("it did not fail")
    };
    assert_eq!(failure.cause, FailureCause::TimedOut, "{failure}");
    assert!(seconds >= 1.0);
    worker.stop_hard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_told_what_is_held() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut events = worker.subscribe();
    let mut line = farm.next().await;
    let short = farm.session(10, 1);
    let assignment = farm.assignment(0, &short, &[1]);
    let done = assignment.tasks[0].attempt;
    line.send(Down::Assign(Box::new(assignment))).await;
    // Its report arrives, and is never settled.
    assert_eq!(line.report().await.0, done);
    let long = farm.session(100, 1_000_000);
    let assignment = farm.assignment(0, &long, &[2, 3]);
    let [running, queued] = [0, 1].map(|at| assignment.tasks[at].attempt);
    line.send(Down::Assign(Box::new(assignment))).await;
    assert_eq!(line.started().await, running);
    drop(line);
    until(&mut events, |event| matches!(event, WorkerEvent::Disconnected { .. }).then_some(())).await;
    farm.epoch = 2;
    let mut line = farm.next().await;
    let held: Vec<_> = line.hello.held.iter().map(|held| (held.attempt, held.phase)).collect();
    let slot = SlotIndex(0);
    let wanted = [
        (done, HeldPhase::Finished { slot }),
        (running, HeldPhase::Running { slot }),
        (queued, HeldPhase::Queued { slot }),
    ];
    assert_eq!(held, wanted);
    let (again, finish) = line.finished().await;
    assert_eq!(again, done);
    assert!(matches!(finish, AttemptReport::Done { .. }));
    // An older copy of the server's data is not worked for.
    drop(line);
    farm.epoch = 1;
    let _line = farm.next().await;
    let exit = timeout(LIMIT, worker.wait()).await.unwrap();
    let WorkerExit::Failed(WorkerError::OldEpoch { seen, found, .. }) = &*exit else { panic!("{exit:?}") };
    assert_eq!((*seen, *found), (Epoch(2), Epoch(1)));
    assert_no_blender_in(farm.data());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_returns_tasks_at_once_and_a_drain_by_the_farm_finishes_the_running_one() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let long = farm.session(100, 1_000_000);
    let assignment = farm.assignment(0, &long, &[1, 2]);
    line.send(Down::Assign(Box::new(assignment))).await;
    line.started().await;
    let draining = tokio::spawn(async move { worker.drain().await });
    let mut said_so = false;
    let mut back = 0;
    while let Some(up) = line.next().await {
        match up {
            Up::Draining => said_so = true,
            Up::Finished { attempt, report: finish, .. } => {
                assert_eq!(finish, AttemptReport::Returned);
                back += 1;
                line.send(Down::Settled { attempt, outcome: ReportOutcome::Recorded }).await;
            }
            _ => {}
        }
    }
    assert!(said_so && back == 2, "{back} frames came back");
    assert!(matches!(*draining.await.unwrap(), WorkerExit::Drained));
    assert_no_blender_in(farm.data());

    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let short = farm.session(25, 64);
    let assignment = farm.assignment(0, &short, &[1, 2]);
    let [first, second] = [0, 1].map(|at| assignment.tasks[at].attempt);
    line.send(Down::Assign(Box::new(assignment))).await;
    assert_eq!(line.started().await, first);
    line.send(Down::DesiredState { desired: DesiredState::Draining }).await;
    assert_eq!(line.finished().await, (second, AttemptReport::Returned));
    let (attempt, finish) = line.finished().await;
    assert_eq!(attempt, first);
    assert!(matches!(finish, AttemptReport::Done { .. }), "{finish:?}");
    let exit = timeout(LIMIT, worker.wait()).await.unwrap();
    assert!(matches!(*exit, WorkerExit::Dismissed(DesiredState::Draining)), "{exit:?}");
    assert_no_blender_in(farm.data());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_slots_fetch_a_bundle_once_and_two_workers_work_side_by_side() {
    let mut farm = Farm::open().await;
    let mut options = farm.options();
    options.slots = Some(2);
    let first = RunningWorker::start(options).await.unwrap();
    let mut line = farm.next().await;
    let session = farm.session(10, 1);
    for slot in 0..2 {
        let assignment = farm.assignment(slot, &session, &[1 + i32::from(slot)]);
        line.send(Down::Assign(Box::new(assignment))).await;
    }
    for _ in 0..2 {
        assert!(matches!(line.finished().await.1, AttemptReport::Done { .. }));
    }
    assert_eq!(farm.downloads(), 1);
    let second = farm.worker().await;
    let mut other = farm.next().await;
    assert_ne!(line.hello.id, other.hello.id);
    // A name that was given is kept as it is: the farm makes it unique.
    assert_eq!(other.hello.name, "anvil");
    let assignment = farm.assignment(0, &session, &[3]);
    other.send(Down::Assign(Box::new(assignment))).await;
    assert!(matches!(other.finished().await.1, AttemptReport::Done { .. }));
    first.stop_hard().await;
    drop(second);
    assert_no_blender_in(farm.data());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_the_server_lacks_and_a_refusal_are_told_plainly() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let mut session = farm.session(10, 1);
    session.bundle = kiln_types::BundleId(kiln_types::BlobHash::of(b"nothing"));
    let assignment = farm.assignment(0, &session, &[1]);
    line.send(Down::Assign(Box::new(assignment))).await;
    let AttemptReport::Failed { failure, .. } = line.finished().await.1 else { panic!("it did not fail") };
    assert_eq!(failure.cause, FailureCause::BundleUnavailable, "{failure}");
    worker.stop_hard().await;
    let worker = farm.worker().await;
    let mut line = farm.arrival().await;
    line.send(Down::Refused { reason: "this worker is too old; install Kiln 2".to_owned() }).await;
    let exit = timeout(LIMIT, worker.wait()).await.unwrap();
    let WorkerExit::Failed(error) = &*exit else { panic!("{exit:?}") };
    assert!(error.to_string().ends_with("this worker is too old; install Kiln 2"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_beside_its_server_reads_the_blobs_from_the_disk_and_checks_them() {
    let mut farm = Farm::open().await;
    let session = farm.session(10, 1);
    let store = farm.data().join("server");
    let blobs = kiln_blobs::BlobStore::open(&store, kiln_blobs::Durability::Ephemeral).await.unwrap();
    blobs.put_bytes(farm.sample()).await.unwrap();
    let mut options = farm.options();
    options.local_blobs = Some(store);
    let worker = RunningWorker::start(options).await.unwrap();
    let mut line = farm.next().await;
    let assignment = farm.assignment(0, &session, &[1]);
    line.send(Down::Assign(Box::new(assignment))).await;
    assert!(matches!(line.finished().await.1, AttemptReport::Done { .. }));
    assert_eq!(farm.downloads(), 0);
    worker.stop_hard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_another_scene_takes_the_same_blender_and_a_trusted_one_does_not() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let plain = farm.session(10, 1);
    let other = farm.session(20, 1);
    let mut trusted = farm.session(10, 2);
    trusted.policy.scripts = kiln_types::ScriptPolicy::Trust;
    let mut seen = Vec::new();
    for session in [&plain, &other, &trusted, &plain] {
        let assignment = farm.assignment(0, session, &[1]);
        line.send(Down::Assign(Box::new(assignment))).await;
        let (_, finish) = line.finished().await;
        assert!(matches!(finish, AttemptReport::Done { .. }), "{finish:?}");
        // A spare may be among those without trust.
        let (with, without): (Vec<_>, Vec<_>) = blenders_in(farm.data()).into_iter().partition(|pid| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            command.split(|byte| *byte == 0).any(|word| word == b"--enable-autoexec")
        });
        seen.push((with, without));
    }
    assert!(seen[0].1.iter().any(|pid| seen[1].1.contains(pid)), "{seen:?}");
    let with: Vec<_> = seen.iter().map(|(with, _)| with.len()).collect();
    assert_eq!(with, [0, 0, 1, 0], "{seen:?}");
    worker.stop_hard().await;
    assert_no_blender_in(farm.data());
}
