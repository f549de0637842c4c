//! Broken invariants, injected into a running scheduler: what is dropped, what is kept, and what clients are told.

use std::panic::panic_any;

use kiln_api::{Down, Up};
use kiln_core::{BrokenInvariant, Config};
use kiln_store::{Durability, Write};
use kiln_types::{HeldAttempt, HeldPhase, JobId, JobState, TaskIndex, WorkerId};
use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};

use super::{
    tests::{hello, new_bundle, spec},
    *,
};
use crate::{arrivals::WaitingMessage, logs::Logs, space};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

struct World {
    folder: TempDir,
    store: Store,
    handle: SchedulerHandle,
    stop: CancellationToken,
    running: JoinHandle<Result<(), ServerError>>,
    links: u64,
}

/// A worker's connection.
struct Connection {
    end: CancellationToken,
    downs: mpsc::Receiver<Down>,
    link: u64,
}

impl World {
    async fn start() -> Self {
        Self::open(tempfile::tempdir().unwrap()).await
    }

    async fn open(folder: TempDir) -> Self {
        let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        store.commit(vec![Write::InsertBundle { bundle: new_bundle(9), at_ms: 1 }]).await.unwrap();
        let logs = Logs::open(folder.path().join("logs"), space::of(folder.path())).unwrap();
        let hub = Arc::new(Hub::new());
        let (scheduler, handle) =
            Scheduler::open(store.clone(), hub, logs, Config::default(), 5_000).await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(scheduler.run(stop.clone()));
        Self { folder, store, handle, stop, running, links: 0 }
    }

    /// Ends the scheduler as a server that stops does, and starts it again.
    async fn reopen(self) -> Self {
        self.stop.cancel();
        self.running.await.unwrap().unwrap();
        self.store.close().await.unwrap();
        drop(self.store);
        Self::open(self.folder).await
    }

    async fn join(&mut self, held: Vec<HeldAttempt>) -> Connection {
        self.links += 1;
        let (out, downs) = mpsc::channel(1_000);
        let end = CancellationToken::new();
        let link = LinkHandle { number: self.links, out, end: end.clone() };
        let hello = Box::new(hello(worker(), held));
        self.handle.tell(Input::Join { hello, link, waiting: WaitingMessage::default() }).await;
        Connection { end, downs, link: self.links }
    }

    async fn submit(&self) -> JobId {
        let spec = Box::new(spec(9, "sequential", false));
        self.handle.ask(|reply| Input::Submit { spec, notices: vec![], held: false, reply }).await.unwrap()
    }

    async fn command(&self, job: JobId, command: JobCommand) -> Result<u32, Refusal> {
        self.handle.ask(|reply| Input::Job { job, command, reply }).await
    }

    async fn state(&self, job: JobId) -> JobState {
        self.handle.read(move |farm| farm.core.job(job).unwrap().state).await.unwrap()
    }

    /// Breaks an invariant about this job, after all earlier messages.
    async fn contradict(&self, job: Option<JobId>) {
        let broken = BrokenInvariant { job, what: "made by a test".to_owned() };
        self.handle.tell(Input::Panic(Box::new(|| panic_any(broken)))).await;
    }

    /// Pauses the job in the batch that the broken invariant about `about` drops; returns the answer.
    async fn pause_in_a_dropped_batch(&self, job: JobId, about: Option<JobId>) -> Refusal {
        // Both are in their queues before the scheduler runs again: this is its only thread.
        let (paused, ()) = tokio::join!(self.command(job, JobCommand::Pause), self.contradict(about));
        paused.unwrap_err()
    }
}

fn worker() -> WorkerId {
    WorkerId::from_bits(1).unwrap()
}

impl Connection {
    async fn next(&mut self) -> Down {
        timeout(LIMIT, self.downs.recv())
            .await
            .expect("the scheduler says something")
            .expect("it is connected")
    }

    /// Returns the first assigned task, as the worker reports later that it holds it.
    async fn assigned(&mut self) -> HeldAttempt {
        loop {
            if let Down::Assign(assignment) = self.next().await {
                let task = &assignment.tasks[0];
                return HeldAttempt {
                    attempt: task.attempt,
                    task: task.task,
                    generation: task.generation,
                    phase: HeldPhase::Running { slot: assignment.slot },
                };
            }
        }
    }
}

#[tokio::test]
async fn a_broken_invariant_drops_its_batch_and_nothing_that_was_acknowledged() {
    let mut world = World::start().await;
    let mut connection = world.join(vec![]).await;
    let job = world.submit().await;
    let held = connection.assigned().await;
    let started = Up::Started { attempt: held.attempt };
    let input = Input::Up {
        worker: worker(),
        link: connection.link,
        up: started,
        waiting: WaitingMessage::default(),
    };
    world.handle.tell(input).await;
    world.handle.read_after_messages(|_| ()).await.unwrap();

    let refusal = world.pause_in_a_dropped_batch(job, Some(job)).await;
    assert_eq!(refusal, Refusal::BatchDropped, "a program knows that it may try again");
    timeout(LIMIT, connection.end.cancelled()).await.expect("the worker is told to connect again");
    assert_ne!(world.state(job).await, JobState::Paused, "what was not acknowledged did not happen");

    // The worker reports its attempt, and resumes it.
    let mut connection = world.join(vec![held]).await;
    let kept = held.attempt;
    let task = world
        .handle
        .read_after_messages(move |farm| farm.core.attempt_task(kept).map(|(task, ..)| task))
        .await
        .unwrap();
    assert_eq!(task, Some(held.task));
    let next = connection.assigned().await;
    assert_ne!(next.task.index, held.task.index, "it renders already");
    assert!(next.attempt.epoch > held.attempt.epoch, "what is decided from here on belongs to a new epoch");
    assert_eq!(held.task.index, TaskIndex(0));
    world.handle.read(|farm| farm.core.sanity_check()).await.unwrap();

    // The same request succeeds when it is repeated.
    world.command(job, JobCommand::Pause).await.unwrap();
    assert_eq!(world.state(job).await, JobState::Paused);
}

#[tokio::test]
async fn a_job_that_breaks_an_invariant_twice_is_paused_with_the_reason_and_others_go_on() {
    let mut world = World::start().await;
    let (bad, good) = (world.submit().await, world.submit().await);
    world.contradict(Some(bad)).await;
    assert_ne!(world.state(bad).await, JobState::Paused);
    world.contradict(Some(bad)).await;
    world.handle.read_after_messages(|_| ()).await.unwrap();
    assert_eq!(world.state(bad).await, JobState::Paused);
    let reason = world.store.job(bad).await.unwrap().unwrap().reason.expect("a reason");
    assert!(reason.message.contains("made by a test"), "{}", reason.message);

    let mut connection = world.join(vec![]).await;
    assert_eq!(connection.assigned().await.task.job, good);
    // The pause outlives the server, until a user resumes the job.
    let world = world.reopen().await;
    assert_eq!(world.state(bad).await, JobState::Paused);
    world.command(bad, JobCommand::Resume).await.unwrap();
    assert_ne!(world.state(bad).await, JobState::Paused);
}

#[tokio::test]
async fn a_second_broken_invariant_that_concerns_no_job_ends_the_server() {
    let world = World::start().await;
    let job = world.submit().await;
    let refusal = world.pause_in_a_dropped_batch(job, None).await;
    assert_eq!(refusal, Refusal::BatchDropped);
    world.command(job, JobCommand::Pause).await.unwrap();
    // A panic outside the core counts, too.
    world.handle.tell(Input::Panic(Box::new(|| panic!("index out of range")))).await;
    let ended = timeout(LIMIT, world.running).await.expect("the scheduler ends").unwrap();
    assert!(matches!(&ended, Err(ServerError::Inside(what)) if what == "index out of range"), "{ended:?}");
    let unanswered = world.handle.read(|_| ()).await.unwrap_err();
    assert_eq!(unanswered, Refusal::Stopping, "trying again is of no use");
    assert_eq!(world.store.job(job).await.unwrap().unwrap().state, JobState::Paused, "what was acknowledged");
}
