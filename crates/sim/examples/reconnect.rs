//! The cost of a whole farm that comes back: `cargo run --release -p kiln-sim --example reconnect`.
//!
//! Each of these workers holds ten attempts. All fall silent until their leases have run out, and give a sign of life;
//! then the server starts again, and all join with what they hold.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kiln_core::{
    Assigned, Config, Core, HeldAttempt, HeldPhase, JobPlan, Ledger, Moment, Outbox, Push, Record, StepPlan,
    WorkerOffer,
};
use kiln_types::{BlobHash, Epoch, JobId, SessionKey, SlotIndex, WorkerId};

/// Slots of a worker, each with one task that runs and one behind it.
const SLOTS: u16 = 5;

#[derive(Default)]
struct FarmSetup {
    held: BTreeMap<WorkerId, Vec<(SlotIndex, Assigned)>>,
    ledger: Ledger,
}

impl Outbox for FarmSetup {
    fn push(&mut self, to: WorkerId, push: Push) {
        if let Push::Assign { slot, tasks, .. } = push {
            self.held.entry(to).or_default().extend(tasks.into_iter().map(|task| (slot, task)));
        }
    }
    fn record(&mut self, record: Record) {
        self.ledger.apply(&record);
    }
}

fn id(number: u64) -> WorkerId {
    WorkerId::from_bits(number).expect("counted from 1")
}

fn offer() -> WorkerOffer {
    WorkerOffer { slots: SLOTS, ..WorkerOffer::default() }
}

fn turns(core: &mut Core, now: Moment, farm: &mut FarmSetup) {
    core.schedule(now, farm);
    while core.next_deadline() == Some(Moment(0)) {
        core.schedule(now, farm);
    }
}

fn measure(workers: u64) -> String {
    let (mut core, mut farm) = (Core::new(Epoch(1), Config::default()), FarmSetup::default());
    let mut now = Moment(1);
    let tasks = u32::try_from(workers).expect("few enough") * u32::from(SLOTS) * 4;
    let plan = JobPlan::new(JobId(1), vec![StepPlan::new(tasks, SessionKey(BlobHash::of(b"scene")))]);
    let plan = plan.expect("a valid plan");
    farm.ledger.add_job(&plan);
    for worker in 1..=workers {
        core.worker_joined(now, id(worker), offer(), &[], &mut farm);
    }
    core.submit(now, plan, &mut farm).expect("a new job");
    turns(&mut core, now, &mut farm);
    let attempts: usize = farm.held.values().map(Vec::len).sum();

    now = now.after(Config::default().lease_ms);
    core.tick(now, &mut farm);
    let began = Instant::now();
    for worker in 1..=workers {
        core.heartbeat(now, id(worker), &mut farm);
    }
    let silent = began.elapsed();

    let mut core = Core::new(Epoch(2), Config::default());
    let (plan, restored) = farm.ledger.restored(JobId(1)).expect("it was recorded");
    core.restore_job(now, plan, restored).expect("what was recorded makes sense");
    let held: BTreeMap<WorkerId, Vec<HeldAttempt>> = farm
        .held
        .iter()
        .map(|(worker, all)| {
            let one = |(slot, Assigned { attempt, task, generation }): &(SlotIndex, Assigned)| HeldAttempt {
                attempt: *attempt,
                task: *task,
                generation: *generation,
                phase: HeldPhase::Queued { slot: *slot },
            };
            (*worker, all.iter().map(one).collect())
        })
        .collect();
    let began = Instant::now();
    for (worker, held) in &held {
        core.worker_joined(now, *worker, offer(), held, &mut farm);
    }
    let joins = began.elapsed();
    let each = |time: Duration| time / u32::try_from(workers).expect("few enough");
    format!(
        "{workers:>7} {attempts:>9} {:>12.0?} {:>9.1?} {:>12.0?} {:>9.1?}",
        silent,
        each(silent),
        joins,
        each(joins)
    )
}

fn main() {
    println!(
        "{:>7} {:>9} {:>12} {:>9} {:>12} {:>9}",
        "workers", "attempts", "heartbeats", "each", "joins", "each"
    );
    for workers in [1_000, 3_000, 10_000] {
        println!("{}", measure(workers));
    }
}
