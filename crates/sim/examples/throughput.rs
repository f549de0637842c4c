//! The rate of decisions: `cargo run --release -p kiln-sim --example throughput [WORKERS] [TASKS]`.
//!
//! Each worker has two slots and every frame takes as long as the next; each report is a batch of its own, the
//! worst case for a server that takes all that wait at once.

use std::{collections::BTreeMap, time::Instant};

use kiln_core::{Config, Core, Finish, JobPlan, Moment, Outbox, Push, Record, StepPlan, WorkerOffer};
use kiln_types::{AttemptId, BlobHash, Epoch, JobId, SessionKey, WorkerId};

#[derive(Default)]
struct Count {
    pushes: Vec<(WorkerId, Push)>,
    records: u64,
}

impl Outbox for Count {
    fn push(&mut self, to: WorkerId, push: Push) {
        self.pushes.push((to, push));
    }
    fn record(&mut self, _: Record) {
        self.records += 1;
    }
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let workers: u64 = numbers.next().unwrap_or(1_000);
    let count = u32::try_from(numbers.next().unwrap_or(200_000)).expect("a number of tasks");
    let mut core = Core::new(Epoch(1), Config::default());
    let mut out = Count::default();
    for id in 1..=workers {
        let offer = WorkerOffer { slots: 2, ..WorkerOffer::default() };
        let id = WorkerId::from_bits(id).expect("counted from 1");
        core.worker_joined(Moment(0), id, offer, &[], &mut out);
    }
    let step = StepPlan::new(count, SessionKey(BlobHash::of(b"scene")));
    let plan = JobPlan::new(JobId(1), vec![step]).expect("a valid plan");
    core.submit(Moment(0), plan, &mut out).expect("the first job");
    let began = Instant::now();
    core.schedule(Moment(0), &mut out);
    let mut held: BTreeMap<AttemptId, WorkerId> = BTreeMap::new();
    let (mut now, mut events) = (0, 0u64);
    while !core.is_idle() {
        for (worker, push) in out.pushes.drain(..) {
            if let Push::Assign { tasks, .. } = push {
                held.extend(tasks.iter().map(|task| (task.attempt, worker)));
            }
        }
        let (attempt, worker) = held.pop_first().expect("something runs while the job does");
        now += 1;
        core.attempt_started(Moment(now), worker, attempt, &mut out);
        core.attempt_finished(Moment(now), worker, attempt, Finish::Delivered, &mut out);
        core.schedule(Moment(now), &mut out);
        events += 2;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{workers} workers, {count} tasks: {:.0} events/s, {} records",
        events as f64 / seconds,
        out.records
    );
}
