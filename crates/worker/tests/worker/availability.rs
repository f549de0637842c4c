//! A worker that leaves its machine to a person, with a real Blender that renders and a program that is one by name.

use std::{
    fs::File,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use kiln_api::{AttemptReport, Down};
use kiln_types::RevokeReason;
use kiln_worker::{AvailabilityOptions, OnUnavailable, RunningWorker, WorkerEvent, WorkerOptions, YieldMode};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    assert_no_blender_in, blenders_in,
    farm::{Farm, LIMIT},
    until,
};

/// Held by a test that opens a Blender, or that nobody may open one for: all see one screen, also those in other
/// processes.
pub fn hold_screen() -> File {
    // The folder itself: a file in it would stay, and be another user's.
    let folder = File::open(std::env::temp_dir()).unwrap();
    folder.lock().unwrap();
    folder
}

/// A program named `blender` without the arguments of one in the background. Ends when dropped.
pub struct Open(Pid);

impl Open {
    /// Makes the parent end at once: a child of this process, which is the worker's too, would be Kiln's own.
    pub fn new(folder: &Path) -> Self {
        let program = folder.join("blender");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$0\" 600 >/dev/null 2>&1 & echo $!"]).arg(program);
        let said = String::from_utf8(shell.output().unwrap().stdout).unwrap();
        Self(Pid::from_raw(said.trim().parse().unwrap()).unwrap())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        kill_process(self.0, Signal::KILL).unwrap();
        // The next test must not find it.
        let stat = format!("/proc/{}/stat", self.0.as_raw_nonzero());
        let lives = || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
        };
        let end = Instant::now() + Duration::from_secs(10);
        while lives() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Yields to nothing but an open Blender: hands and other programs may be busy on this machine.
fn shy(farm: &Farm, on_unavailable: OnUnavailable) -> WorkerOptions {
    let mut options = farm.options();
    let options_of = AvailabilityOptions {
        yields: YieldMode::Yes,
        idle: Duration::ZERO,
        load: Some(1e6),
        ..AvailabilityOptions::default()
    };
    options.availability = AvailabilityOptions { on_unavailable, ..options_of };
    options
}

fn nice_of(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    tasks
        .map(|task| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
            stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse().unwrap()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blender_that_somebody_opens_makes_it_rest_and_closed_again_it_works() {
    let _screen = hold_screen();
    let mut farm = Farm::open().await;
    let folder = tempfile::tempdir().unwrap();

    // The frame that renders goes on, with a priority below all others; waiting tasks are returned.
    let worker = RunningWorker::start(shy(&farm, OnUnavailable::Finish)).await.unwrap();
    let mut events = worker.subscribe();
    let mut line = farm.next().await;
    let why = "close the Blender that is open on this machine: this test opens one itself";
    assert_eq!(line.hello.unavailable, None, "{why}");
    let long = farm.session(100, 1_000_000);
    let assignment = farm.assignment(0, &long, &[1, 2]);
    let [first, second] = [0, 1].map(|at| assignment.tasks[at].attempt);
    line.send(Down::Assign(Box::new(assignment))).await;
    assert_eq!(line.started().await, first);
    let open = Open::new(folder.path());
    assert_eq!(line.next_availability(true).await.as_deref(), Some("a Blender is open on its screen"));
    assert_eq!(line.finished().await, (second, AttemptReport::Returned));
    let [pid] = blenders_in(farm.data())[..] else { panic!("one Blender renders") };
    assert!(nice_of(pid).iter().all(|nice| *nice == 19), "{:?}", nice_of(pid));
    // On a busy machine it would take minutes now.
    line.send(Down::Revoke { attempt: first, why: RevokeReason::Cancelled }).await;
    assert_eq!(line.finished().await, (first, AttemptReport::Returned));
    assert_no_blender_in(farm.data());
    let late = farm.assignment(0, &long, &[3]);
    let attempt = late.tasks[0].attempt;
    line.send(Down::Assign(Box::new(late))).await;
    assert_eq!(line.finished().await, (attempt, AttemptReport::Returned));
    drop(open);
    line.next_availability(false).await;
    until(&mut events, |event| matches!(event, WorkerEvent::Available).then_some(())).await;
    let short = farm.session(10, 1);
    line.send(Down::Assign(Box::new(farm.assignment(0, &short, &[4])))).await;
    assert!(matches!(line.finished().await.1, AttemptReport::Done { .. }));
    worker.stop_hard().await;

    // Who does not want to wait gets the machine at once.
    let worker = RunningWorker::start(shy(&farm, OnUnavailable::Stop)).await.unwrap();
    let mut line = farm.next().await;
    let assignment = farm.assignment(0, &farm.session(100, 1_000_000), &[5]);
    let attempt = assignment.tasks[0].attempt;
    line.send(Down::Assign(Box::new(assignment))).await;
    assert_eq!(line.started().await, attempt);
    let open = Open::new(folder.path());
    line.next_availability(true).await;
    assert_eq!(line.finished().await, (attempt, AttemptReport::Returned));
    assert_no_blender_in(farm.data());
    // One that comes while somebody is there says so before it can be given anything.
    worker.stop_hard().await;
    let worker = RunningWorker::start(shy(&farm, OnUnavailable::Stop)).await.unwrap();
    let line = farm.next().await;
    assert!(line.hello.unavailable.is_some());
    drop(open);
    worker.stop_hard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_blenders_have_the_niceness_that_was_set() {
    let mut farm = Farm::open().await;
    let mut options = farm.options();
    (options.nice, options.cores, options.tags) = (7, Some(1), vec!["attic".parse().unwrap()]);
    let worker = RunningWorker::start(options).await.unwrap();
    let mut line = farm.next().await;
    assert_eq!(
        (line.hello.offered.unwrap().cores, line.hello.tags.as_slice()),
        (1, &["attic".parse().unwrap()][..])
    );
    let assignment = farm.assignment(0, &farm.session(100, 1_000_000), &[1]);
    line.send(Down::Assign(Box::new(assignment))).await;
    line.started().await;
    let started = Instant::now();
    // The threads that render come after the first.
    while nice_of(blenders_in(farm.data())[0]).len() < 2 {
        assert!(started.elapsed() < LIMIT);
        tokio::task::yield_now().await;
    }
    let nice = nice_of(blenders_in(farm.data())[0]);
    assert!(nice.iter().all(|nice| *nice == 7), "{nice:?}");
    worker.stop_hard().await;
}
