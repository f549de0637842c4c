//! The order of inputs within and between turns: no input waits long.

use kiln_api::{Down, Hello, Up};
use kiln_core::Config;
use kiln_store::{Durability, Write};
use kiln_types::{AttemptId, FrameSet, JobId, WorkerId, WorkerState};
use tempfile::TempDir;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::{
    input::StateReader,
    tests::{hello, new_bundle, spec},
    *,
};
use crate::{
    arrivals::{Arrival, WaitingMessage},
    logs::Logs,
    space,
};

const WORKERS: u64 = 30;
const SLOTS: u16 = 100;

struct World {
    _folder: TempDir,
    scheduler: Scheduler,
    handle: SchedulerHandle,
    /// Of each worker.
    downs: Vec<mpsc::Receiver<Down>>,
    arrivals: Vec<Arc<Arrival>>,
}

impl World {
    /// A farm of thousands of idle slots.
    async fn idle() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        store.commit(vec![Write::InsertBundle { bundle: new_bundle(9), at_ms: 1 }]).await.unwrap();
        let logs = Logs::open(folder.path().join("logs"), space::of(folder.path())).unwrap();
        let hub = Arc::new(Hub::new());
        let (scheduler, handle) = Scheduler::open(store, hub, logs, Config::default(), 5_000).await.unwrap();
        let mut world = Self { _folder: folder, scheduler, handle, downs: Vec::new(), arrivals: Vec::new() };
        for number in 1..=WORKERS {
            let (out, downs) = mpsc::channel(1000);
            let hello = Hello { slots: SLOTS, ..hello(WorkerId::from_bits(number).unwrap(), Vec::new()) };
            world.downs.push(downs);
            world.arrivals.push(world.handle.connect(WorkerId::from_bits(number).unwrap()));
            let link = LinkHandle { number, out, end: CancellationToken::new() };
            world
                .handle
                .messages
                .try_send(Input::Join { hello: Box::new(hello), link, waiting: WaitingMessage::default() })
                .ok()
                .unwrap();
        }
        world.round().await;
        world
    }

    async fn round(&mut self) {
        self.scheduler.round(&mut Vec::new(), &mut Vec::new()).await.unwrap();
    }

    /// Sends a message as the link of this worker does.
    fn say(&self, number: u64, up: Up) {
        let arrival = &self.arrivals[number as usize - 1];
        let (worker, link, waiting) = (WorkerId::from_bits(number).unwrap(), number, arrival.receive());
        self.handle.messages.try_send(Input::Up { worker, link, up, waiting }).ok().unwrap();
        arrival.listen(self.scheduler.farm.clock.now());
    }

    /// Returns the workers whose leases have expired.
    fn dead(&self) -> Vec<u64> {
        let all = self.scheduler.farm.core.workers().into_iter();
        all.filter(|view| view.state == WorkerState::Offline).map(|view| view.id.bits()).collect()
    }

    fn submit(&self) -> oneshot::Receiver<Result<JobId, Refusal>> {
        let (reply, answer) = oneshot::channel();
        let mut spec = Box::new(spec(9, "sequential", false));
        spec.frames = FrameSet::range(1, 100_000, 1).unwrap();
        let input = Input::Submit { spec, notices: Vec::new(), held: false, reply };
        self.handle.requests.try_send(input).ok().unwrap();
        answer
    }

    /// Reads the number of dispatched tasks as a page shows it.
    fn page(&self, job: JobId) -> oneshot::Receiver<u32> {
        let (reply, answer) = oneshot::channel();
        let look: StateReader = Box::new(move |farm| {
            let counts = farm.core.job(job).unwrap().counts();
            reply.send(counts.assigned).unwrap();
        });
        self.handle.requests.try_send(Input::Read(look)).ok().unwrap();
        answer
    }

    /// Returns the number of tasks that workers were assigned since the last call.
    fn assigned(&mut self) -> u32 {
        let mut tasks = 0;
        for downs in &mut self.downs {
            while let Ok(down) = downs.try_recv() {
                if let Down::Assign(assignment) = down {
                    tasks += assignment.tasks.len() as u32;
                }
            }
        }
        tasks
    }
}

#[tokio::test]
async fn a_job_for_thousands_of_idle_slots_delays_neither_reads_nor_requests() {
    let mut world = World::idle().await;
    let slots = WORKERS as u32 * u32::from(SLOTS);
    let mut answer = world.submit();
    world.round().await;
    let job = answer.try_recv().unwrap().unwrap();
    let mut assigned = world.assigned();
    assert!(0 < assigned && assigned < slots / 4, "one turn dispatches a part: {assigned}");

    let mut pages = 0;
    while assigned < slots {
        // Both are answered before the other slots are filled.
        let mut page = world.page(job);
        let (reply, mut answer) = oneshot::channel();
        let fetched = Input::Fetched { job, sequence: 1, reply };
        world.handle.requests.try_send(fetched).ok().unwrap();
        world.round().await;
        assert_eq!(page.try_recv(), Ok(assigned), "a page shows what is on disk and sent");
        assert!(answer.try_recv().unwrap().is_ok());
        let more = world.assigned();
        assert!(more > 0 && more < slots / 4, "{more}");
        assigned += more;
        pages += 1;
    }
    assert!(pages > 4, "{pages}");
    world.scheduler.farm.core.sanity_check();
}

#[tokio::test]
async fn people_are_heard_before_workers_and_workers_while_people_ask() {
    let mut world = World::idle().await;
    let mut answer = world.submit();
    world.round().await;
    let job = answer.try_recv().unwrap().unwrap();
    // Far more messages than one turn takes, and a read behind them.
    let count = 3 * AT_ONCE;
    for at in 0..count {
        let number = at as u64 % WORKERS + 1;
        let (worker, link) = (WorkerId::from_bits(number).unwrap(), number);
        let waiting = WaitingMessage::default();
        world.handle.messages.try_send(Input::Up { worker, link, up: Up::Heartbeat, waiting }).ok().unwrap();
    }
    let (reply, mut behind) = oneshot::channel();
    let read: StateReader = Box::new(move |_| reply.send(()).unwrap());
    world.handle.messages.try_send(Input::Read(read)).ok().unwrap();

    let mut page = world.page(job);
    world.round().await;
    assert!(page.try_recv().is_ok(), "a page does not wait for messages of workers");
    assert_eq!(world.scheduler.messages.len(), count + 1 - AT_ONCE, "messages were applied, too");
    assert_eq!(behind.try_recv(), Err(TryRecvError::Empty));
    for _ in 0..2 {
        world.round().await;
        assert_eq!(behind.try_recv(), Err(TryRecvError::Empty), "it is behind all earlier messages");
    }
    world.round().await;
    assert_eq!(behind.try_recv(), Ok(()));
}

#[tokio::test]
async fn a_stall_longer_than_the_lease_expires_nobody_whose_heartbeat_waits() {
    let lease = Config::default().lease_ms;
    let mut world = World::idle().await;
    let mut answer = world.submit();
    world.round().await;
    let job = answer.try_recv().unwrap().unwrap();
    while world.assigned() > 0 {
        world.round().await;
    }
    let out = |world: &World| world.scheduler.farm.core.job(job).unwrap().counts().assigned;
    let all = out(&world);
    assert!(all >= WORKERS as u32 * u32::from(SLOTS));

    // Nothing is applied for longer than a lease. Meanwhile more messages than one turn takes have arrived, and behind them
    // the heartbeats of all workers but one.
    world.scheduler.farm.clock.advance(lease + 10_000);
    for _ in 0..AT_ONCE + 904 {
        world.say(
            1,
            Up::Alive { attempt: AttemptId { epoch: kiln_types::Epoch(9), counter: 1 }, moved: true },
        );
    }
    (1..WORKERS).for_each(|number| world.say(number, Up::Heartbeat));
    world.round().await;
    assert!(!world.scheduler.messages.is_empty(), "the heartbeats wait");
    assert_eq!(world.dead(), [WORKERS], "only the worker without a heartbeat has expired");
    assert!(out(&world) >= all - u32::from(SLOTS) * 2, "what is rendered is not thrown away");
    while !world.scheduler.messages.is_empty() {
        world.round().await;
    }
    assert_eq!(world.dead(), [WORKERS]);
    world.scheduler.farm.core.sanity_check();
}

#[tokio::test]
async fn a_lease_is_silence_that_somebody_listened_to() {
    let lease = Config::default().lease_ms;
    let mut world = World::idle().await;
    // Worker 1 sent a message early and none since; the link of 2 cannot pass on what it has received; 3 has been silent
    // from the start, and connects again.
    world.scheduler.farm.clock.advance(lease - 5_000);
    (4..=WORKERS).chain([1]).for_each(|number| world.say(number, Up::Heartbeat));
    let held = world.arrivals[1].receive();
    world.scheduler.farm.clock.advance(10_000);
    (4..=WORKERS).for_each(|number| world.say(number, Up::Heartbeat));
    let third = WorkerId::from_bits(3).unwrap();
    let again = world.scheduler.arrivals.connect(third, world.scheduler.farm.clock.now());
    let hello = again.receive();
    world.handle.messages.try_send(Input::Disconnected { worker: third, link: 3 }).ok().unwrap();
    world.round().await;
    assert_eq!(world.dead(), [3], "it held nothing, and its connection is gone");
    // The heartbeat of 1 counts from when it arrived, 10 s before it was applied.
    world.scheduler.farm.clock.advance(lease - 15_000);
    (4..=WORKERS).for_each(|number| world.say(number, Up::Heartbeat));
    world.round().await;
    assert_eq!(world.dead(), [3]);
    world.scheduler.farm.clock.advance(10_000);
    world.round().await;
    assert_eq!(world.dead(), [1, 3]);
    drop((held, hello));
}

#[tokio::test]
async fn what_runs_is_not_taken_to_hang_while_its_sign_of_life_waits() {
    let hang = Config::default().hang_ms;
    let mut world = World::idle().await;
    let mut answer = world.submit();
    world.round().await;
    let job = answer.try_recv().unwrap().unwrap();
    let mut first = |number: u64| loop {
        if let Down::Assign(assignment) = world.downs[number as usize - 1].try_recv().unwrap() {
            return assignment.tasks[0].attempt;
        }
    };
    let (alive, hung) = (first(1), first(2));
    world.say(1, Up::Started { attempt: alive });
    world.say(2, Up::Started { attempt: hung });
    world.round().await;
    // Blender has worked all the time; the message of its worker is applied late.
    world.scheduler.farm.clock.advance(hang + 10_000);
    for _ in 0..AT_ONCE {
        world.say(3, Up::Heartbeat);
    }
    world.say(1, Up::Alive { attempt: alive, moved: false });
    (1..=WORKERS).filter(|number| *number != 2).for_each(|number| world.say(number, Up::Heartbeat));
    world.arrivals[1].listen(world.scheduler.farm.clock.now());
    while !world.scheduler.messages.is_empty() {
        world.round().await;
    }
    let runs = |world: &World, attempt| world.scheduler.farm.core.attempt_task(attempt).is_some();
    assert!(runs(&world, alive), "it was ended although it works");
    assert!(!runs(&world, hung), "nothing was heard of this one");
    assert_eq!(world.scheduler.farm.core.job(job).unwrap().counts().running, 1);
    world.scheduler.farm.core.sanity_check();
}
