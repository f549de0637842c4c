//! Nobody waits long: what goes first, by the order of what happens.

use kiln_api::Down;
use kiln_core::Config;
use kiln_store::{Durability, Write};
use tempfile::TempDir;
use tokio::sync::oneshot::error::TryRecvError;

use super::{
    tests::{hello, new_bundle, spec},
    *,
};
use crate::{logs::Logs, space};

const WORKERS: u64 = 30;
const SLOTS: u16 = 100;

struct World {
    _folder: TempDir,
    brain: Brain,
    handle: BrainHandle,
    /// Of each worker.
    downs: Vec<mpsc::Receiver<Down>>,
}

impl World {
    /// A farm of thousands of idle slots.
    async fn idle() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(folder.path(), Durability::Ephemeral).await.unwrap();
        store.commit(vec![Write::InsertBundle { bundle: new_bundle(9), at_ms: 1 }]).await.unwrap();
        let logs = Logs::open(folder.path().join("logs"), space::of(folder.path())).unwrap();
        let hub = Arc::new(Hub::new());
        let (brain, handle) = Brain::open(store, hub, logs, Config::default(), 5_000).await.unwrap();
        let mut world = Self { _folder: folder, brain, handle, downs: Vec::new() };
        for number in 1..=WORKERS {
            let (out, downs) = mpsc::channel(1000);
            let hello = Hello { slots: SLOTS, ..hello(WorkerId::from_bits(number).unwrap(), Vec::new()) };
            world.downs.push(downs);
            let link = Link { number, out, end: CancellationToken::new() };
            world.handle.told.try_send(Input::Join { hello: Box::new(hello), link }).ok().unwrap();
        }
        world.round().await;
        world
    }

    async fn round(&mut self) {
        self.brain.round(&mut Vec::new(), &mut Vec::new()).await.unwrap();
    }

    fn submit(&self) -> oneshot::Receiver<Answer<JobId>> {
        let (reply, answer) = oneshot::channel();
        let mut spec = Box::new(spec(9, "sequential", false));
        spec.frames = FrameSet::range(1, 100_000, 1).unwrap();
        let input = Input::Submit { spec, notices: Vec::new(), held: false, reply };
        self.handle.asked.try_send(input).ok().unwrap();
        answer
    }

    /// How many tasks a page shows as handed out.
    fn page(&self, job: JobId) -> oneshot::Receiver<u32> {
        let (reply, answer) = oneshot::channel();
        let look: Look = Box::new(move |farm| {
            let counts = farm.core.job(job).unwrap().counts();
            reply.send(counts.assigned).unwrap();
        });
        self.handle.asked.try_send(Input::Look(look)).ok().unwrap();
        answer
    }

    /// How many tasks workers were told of since the last time.
    fn told(&mut self) -> u32 {
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
async fn a_job_for_thousands_of_idle_slots_holds_up_neither_a_page_nor_another_wish() {
    let mut world = World::idle().await;
    let slots = WORKERS as u32 * u32::from(SLOTS);
    let mut answer = world.submit();
    world.round().await;
    let job = answer.try_recv().unwrap().unwrap();
    let mut told = world.told();
    assert!(0 < told && told < slots / 4, "one turn hands out some of it: {told}");

    let mut pages = 0;
    while told < slots {
        // Both are answered before the rest of the slots is served.
        let mut page = world.page(job);
        let (reply, mut wish) = oneshot::channel();
        let fetched = Input::Fetched { job, sequence: 1, reply };
        world.handle.asked.try_send(fetched).ok().unwrap();
        world.round().await;
        assert_eq!(page.try_recv(), Ok(told), "a page shows what is on disk and told");
        assert!(wish.try_recv().unwrap().is_ok());
        let more = world.told();
        assert!(more > 0 && more < slots / 4, "{more}");
        told += more;
        pages += 1;
    }
    assert!(pages > 4, "{pages}");
    world.brain.farm.core.sanity_check();
}

#[tokio::test]
async fn people_are_heard_before_workers_and_workers_while_people_ask() {
    let mut world = World::idle().await;
    let mut answer = world.submit();
    world.round().await;
    let job = answer.try_recv().unwrap().unwrap();
    // Far more than one turn takes of what workers say, and behind all of it one who looks.
    let said = 3 * AT_ONCE;
    for at in 0..said {
        let number = at as u64 % WORKERS + 1;
        let (worker, link) = (WorkerId::from_bits(number).unwrap(), number);
        world.handle.told.try_send(Input::Up { worker, link, up: Up::Heartbeat }).ok().unwrap();
    }
    let (reply, mut behind) = oneshot::channel();
    let look: Look = Box::new(move |_| reply.send(()).unwrap());
    world.handle.told.try_send(Input::Look(look)).ok().unwrap();

    let mut page = world.page(job);
    world.round().await;
    assert!(page.try_recv().is_ok(), "a page waits for no worker's turn");
    assert_eq!(world.brain.told.len(), said + 1 - AT_ONCE, "workers were heard all the same");
    assert_eq!(behind.try_recv(), Err(TryRecvError::Empty));
    for _ in 0..2 {
        world.round().await;
        assert_eq!(behind.try_recv(), Err(TryRecvError::Empty), "it stands behind what was told before");
    }
    world.round().await;
    assert_eq!(behind.try_recv(), Ok(()));
}
