//! Tasks without a Blender, and streaming attempts, against a server that a test plays.

use kiln_api::{AttemptReport, Down, StepFile, StreamAssignment, Up};
use kiln_testkit::wait_until;
use kiln_types::{
    AttemptId, BlobHash, DependencyScope, DependencyStart, FailureCause, Generation, HeldPhase, ProductKind,
    RelPath, RevokeReason, SlotIndex, StepDependency, StepIndex, TaskIndex,
};
use kiln_worker::WorkerExit;

use crate::farm::{Farm, LIMIT, Line};

/// The step whose files the streams of these tests use.
const PARTS: StepIndex = StepIndex(1);

impl Farm {
    /// A part of frame 7, without a Blender.
    fn part(&mut self, part: u16) -> kiln_api::Assignment {
        let mut assignment = self.test_task(0);
        assignment.tasks[0].task.step = PARTS;
        assignment.tasks[0].part = Some(part);
        assignment
    }

    /// A stream that merges the parts of frame 7.
    fn stream(&mut self) -> StreamAssignment {
        let kiln_api::Assignment { job, mut work, tasks, .. } = self.test_task(0);
        work.product = ProductKind::Preview;
        work.inputs = vec![StepDependency {
            scope: DependencyScope::Frame,
            start: DependencyStart::FirstDone,
            ..PARTS.into()
        }];
        StreamAssignment { job, work, memory: 1 << 20, task: tasks[0].clone() }
    }

    /// Commits a part of frame 7, or of the other frame.
    fn commit(&self, sequence: u64, frame: i32, part: u16, text: &str) -> BlobHash {
        let hash = self.put(text.as_bytes());
        self.list(StepFile {
            sequence,
            index: TaskIndex(u32::from(part)),
            frame: Some(frame),
            part: Some(part),
            generation: Generation(0),
            path: RelPath::new(&format!("test/1/{frame}-{part}")).unwrap(),
            hash,
            size: text.len() as u64,
        });
        hash
    }

    fn waits_for_downloads(&self, count: usize) {
        wait_until(LIMIT, &format!("{count} files are fetched"), || self.downloads() >= count);
        assert_eq!(self.downloads(), count);
    }

    /// The folders of inputs that are there.
    fn inputs(&self) -> usize {
        std::fs::read_dir(self.data().join("worker-0/inputs")).unwrap().count()
    }

    fn has_no_inputs(&self) {
        wait_until(LIMIT, "no inputs are left over", || self.inputs() == 0);
    }
}

fn place(attempt: AttemptId) -> Down {
    Down::Place { attempt, slot: SlotIndex(0), claim: Default::default() }
}

async fn text_of(line: &mut Line, farm: &Farm, attempt: AttemptId) -> (String, String) {
    let (reported, report) = line.finished().await;
    let AttemptReport::Done { files, .. } = report else { panic!("{report:?}") };
    assert_eq!(reported, attempt);
    let [file] = &files[..] else { panic!("{files:?}") };
    assert!(file.picture.is_none());
    let bytes = farm.blob(&file.hash);
    assert_eq!(bytes.len() as u64, file.size);
    (file.path.to_string(), String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_a_blender_runs_on_its_slot_between_two_frames_of_an_open_file() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let session = farm.session(10, 1);
    let (first, part, second) =
        (farm.assignment(0, &session, &[1]), farm.part(2), farm.assignment(0, &session, &[2]));
    let attempt = part.tasks[0].attempt;
    line.send(Down::Assign(Box::new(first))).await;
    assert!(matches!(line.finished().await.1, AttemptReport::Done { .. }));
    let blender = crate::blenders_in(farm.data());
    line.send(Down::Assign(Box::new(part))).await;
    line.send(Down::Assign(Box::new(second))).await;
    assert_eq!(line.started().await, attempt);
    let (path, text) = text_of(&mut line, &farm, attempt).await;
    assert_eq!(path, "test/1/7-2");
    assert!(text.starts_with("job 1 step 1 frame 7 part 2 generation 0\n"), "{}", &text[..60]);
    assert!(matches!(line.finished().await.1, AttemptReport::Done { .. }));
    let after = crate::blenders_in(farm.data());
    assert!(blender.iter().all(|pid| after.contains(pid)), "{blender:?} {after:?}");
    worker.stop_hard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_fetches_files_as_they_come_and_ends_on_its_slot() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    // More than a page; and one of another frame.
    let hashes: Vec<_> =
        [2, 0, 4].into_iter().zip(1..).map(|(part, at)| farm.commit(at, 7, part, "early")).collect();
    farm.commit(4, 8, 0, "other");
    let stream = farm.stream();
    let attempt = stream.task.attempt;
    line.send(Down::Stream(Box::new(stream.clone()))).await;
    farm.waits_for_downloads(3);
    let third = farm.commit(5, 7, 3, "third");
    line.send(Down::Arrived { attempt }).await;
    farm.waits_for_downloads(4);

    // The server restarts, and its message about the last file is lost.
    drop(line);
    let last = farm.commit(6, 7, 1, "last\nof all");
    farm.epoch = 2;
    let mut line = farm.next().await;
    let held: Vec<_> = line.hello.held.iter().map(|held| (held.attempt, held.phase)).collect();
    assert_eq!(held, [(attempt, HeldPhase::Streaming)]);
    line.send(Down::Stream(Box::new(stream))).await;
    farm.waits_for_downloads(5);
    line.send(place(attempt)).await;
    line.send(place(attempt)).await;
    assert_eq!(line.started().await, attempt);
    let (path, text) = text_of(&mut line, &farm, attempt).await;
    assert_eq!(path, "test/0/7");
    let lines: Vec<String> = [(0, hashes[1]), (1, last), (2, hashes[0]), (3, third), (4, hashes[2])]
        .into_iter()
        .map(|(part, hash)| {
            let first = if part == 1 {
                "last"
            } else if part == 3 {
                "third"
            } else {
                "early"
            };
            format!("test/1/7-{part} {hash} {first}")
        })
        .collect();
    assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    assert_eq!(farm.downloads(), 5, "nothing is fetched twice");
    farm.has_no_inputs();
    worker.stop_hard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_revoked_is_returned_for_every_reason_and_leaves_nothing() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    farm.commit(1, 7, 0, "part");
    let reasons = [
        RevokeReason::Cancelled,
        RevokeReason::Preempted,
        RevokeReason::Stale,
        RevokeReason::TimedOut,
        RevokeReason::Displaced,
    ];
    for (count, why) in (1..).zip(reasons) {
        let stream = farm.stream();
        let attempt = stream.task.attempt;
        line.send(Down::Stream(Box::new(stream))).await;
        farm.waits_for_downloads(count);
        line.send(Down::Revoke { attempt, why }).await;
        assert_eq!(line.finished().await, (attempt, AttemptReport::Returned), "{why:?}");
        // It comes too late, and is answered as a revoke is.
        line.send(place(attempt)).await;
        assert_eq!(line.finished().await, (attempt, AttemptReport::Returned), "{why:?}");
        farm.has_no_inputs();
    }
    let stream = farm.stream();
    let attempt = stream.task.attempt;
    line.send(Down::Stream(Box::new(stream))).await;
    farm.waits_for_downloads(reasons.len() + 1);
    let draining = tokio::spawn(async move { worker.drain().await });
    assert_eq!(line.finished().await, (attempt, AttemptReport::Returned));
    while line.next().await.is_some() {}
    assert!(matches!(*draining.await.unwrap(), WorkerExit::Drained));
    assert_eq!(farm.inputs(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_files_are_gone_fails_and_one_that_gets_other_bytes_does_not_believe_them() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let lost = farm.commit(1, 7, 0, "lost");
    farm.remove(&lost);
    let stream = farm.stream();
    let attempt = stream.task.attempt;
    line.send(Down::Stream(Box::new(stream))).await;
    let (failed, AttemptReport::Failed { failure, .. }) = line.finished().await else {
        panic!("it has not failed")
    };
    assert_eq!((failed, failure.cause), (attempt, FailureCause::BundleUnavailable), "{failure}");

    farm.damage(lost, b"tsol");
    let before = farm.downloads();
    let stream = farm.stream();
    let attempt = stream.task.attempt;
    line.send(Down::Stream(Box::new(stream))).await;
    wait_until(LIMIT, "it tries again", || farm.downloads() >= before + 2);
    farm.put(b"lost");
    line.send(place(attempt)).await;
    let (_, text) = text_of(&mut line, &farm, attempt).await;
    assert_eq!(text, format!("test/1/7-0 {lost} lost\n"));
    worker.stop_hard().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_a_blender_keeps_to_its_time_and_is_stopped_by_a_cancel() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    // It waits for a list that the server does not give.
    farm.list_nothing();
    let StreamAssignment { work, task, .. } = farm.stream();
    let mut late = farm.test_task(0);
    late.work = work.clone();
    late.work.time_limit_s = Some(1);
    let attempt = late.tasks[0].attempt;
    line.send(Down::Assign(Box::new(late))).await;
    let (failed, AttemptReport::Failed { failure, seconds }) = line.finished().await else {
        panic!("it has not failed")
    };
    assert_eq!((failed, failure.cause), (attempt, FailureCause::TimedOut), "{failure}");
    assert!(seconds >= 1.0);

    let mut assignment = farm.test_task(0);
    (assignment.work, assignment.tasks) = (work, vec![task]);
    let attempt = assignment.tasks[0].attempt;
    line.send(Down::Assign(Box::new(assignment))).await;
    assert_eq!(line.started().await, attempt);
    line.send(Down::Revoke { attempt, why: RevokeReason::Cancelled }).await;
    assert_eq!(line.finished().await, (attempt, AttemptReport::Returned));
    farm.has_no_inputs();
    let part = farm.part(0);
    line.send(Down::Assign(Box::new(part))).await;
    loop {
        // The log goes up before the report.
        match line.next().await.expect("the worker has left") {
            Up::Log { text, .. } => assert_eq!(text, "test step of task 1.1.0\n"),
            Up::Finished { report, .. } => {
                assert!(matches!(report, AttemptReport::Done { .. }), "{report:?}");
                break;
            }
            _ => {}
        }
    }
    worker.stop_hard().await;
}
