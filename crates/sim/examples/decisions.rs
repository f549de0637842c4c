//! The cost of one decision: `cargo run --release -p kiln-sim --example decisions`.
//!
//! A frame is reported as delivered and the slot's next as started, each a batch of its own, and the queue is filled:
//! with a number of tasks waiting, in one job and in jobs of 100 frames of 50 users and 11 priorities; and with as many
//! done.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use kiln_core::{
    Config, Core, Finish, JobPlan, Moment, Outbox, Push, Record, SchedulingOptions, StepPlan, WorkerOffer,
};
use kiln_types::{AttemptId, BlobHash, Epoch, JobId, SessionKey, WorkerId};

const WORKERS: u64 = 1000;
/// Decisions that are measured for each line.
const MEASURED: usize = 5000;
/// Milliseconds that a frame takes.
const FRAME_MS: u64 = 5000;

/// The attempts that each worker holds, by its number.
struct Held(Vec<VecDeque<AttemptId>>);

impl Outbox for Held {
    fn push(&mut self, to: WorkerId, push: Push) {
        let queue = &mut self.0[to.bits() as usize - 1];
        // Nothing is revoked: more waits than there are slots, and all came at once.
        if let Push::Assign { tasks, .. } = push {
            queue.extend(tasks.iter().map(|task| task.attempt));
        }
    }
    fn record(&mut self, _: Record) {}
}

struct FarmSetup {
    core: Core,
    held: Held,
    now: Moment,
    next: u64,
}

impl FarmSetup {
    /// A farm with `tasks` tasks, in jobs of `frames` frames.
    fn new(tasks: u32, frames: u32) -> Self {
        let mut farm = Self {
            core: Core::new(Epoch(1), Config::default()),
            held: Held(vec![VecDeque::new(); WORKERS as usize]),
            now: Moment(1),
            next: 0,
        };
        for id in 0..WORKERS {
            let offer = WorkerOffer { slots: 1, ..WorkerOffer::default() };
            farm.core.worker_joined(farm.now, worker_id(id), offer, &[], &mut farm.held);
        }
        for job in 1..=tasks.div_ceil(frames) {
            let session = SessionKey(BlobHash::of(&job.to_le_bytes()));
            let steps = vec![StepPlan::new(frames.min(tasks), session)];
            let options = SchedulingOptions {
                priority: u8::try_from(job % 11 * 10).expect("a priority"),
                user: format!("user {}", job % 50),
                ..SchedulingOptions::default()
            };
            let plan = JobPlan::new(JobId(job.into()), steps).expect("a valid plan").scheduled(options);
            farm.core.submit(farm.now, plan, &mut farm.held).expect("a new job");
        }
        farm.turn();
        (0..WORKERS).for_each(|worker| farm.start(worker));
        farm.now = farm.now.after(FRAME_MS);
        farm
    }

    /// Runs turns until none is behind, as the server does.
    fn turn(&mut self) {
        self.core.schedule(self.now, &mut self.held);
        while self.core.next_deadline() == Some(Moment(0)) {
            self.core.schedule(self.now, &mut self.held);
        }
    }

    fn start(&mut self, worker: u64) {
        let first = *self.held.0[worker as usize]
            .front()
            .unwrap_or_else(|| panic!("worker {worker} has nothing at {:?}", self.now));
        self.core.attempt_started(self.now, worker_id(worker), first, &mut self.held);
        self.turn();
    }

    /// A worker's frame is rendered, and it begins its next.
    fn decide(&mut self) -> Duration {
        let worker = self.next;
        self.next = (worker + 1) % WORKERS;
        self.now = self.now.after(FRAME_MS / WORKERS);
        let done = self.held.0[worker as usize].pop_front().expect("it renders");
        let began = Instant::now();
        let delivered = Finish::Delivered;
        self.core.attempt_finished(self.now, worker_id(worker), done, delivered, &mut self.held);
        self.turn();
        self.start(worker);
        began.elapsed()
    }

    fn measure(&mut self) -> String {
        let mut times: Vec<Duration> = (0..MEASURED).map(|_| self.decide()).collect();
        times.sort_unstable();
        let micros = |part: f64| times[((MEASURED - 1) as f64 * part) as usize].as_secs_f64() * 1e6;
        format!("{:>8.1} {:>8.1}", micros(0.5), micros(0.99))
    }
}

fn main() {
    println!(
        "microseconds for the end of a frame, the start of the next, and what is dispatched then; {WORKERS} workers; median and 99th percentile"
    );
    println!("{:>10}  {:^17}  {:^17}  {:^17}", "tasks", "waiting: one job", "jobs of 100", "done: one job");
    for tasks in [1_000_u32, 10_000, 100_000, 1_000_000] {
        // Dispatched tasks do not wait.
        let spare = 2 * WORKERS as u32 + 4 * MEASURED as u32;
        let one = FarmSetup::new(tasks + spare, tasks + spare).measure();
        let many = FarmSetup::new(tasks + spare, 100).measure();
        let mut done = FarmSetup::new(tasks + spare, tasks + spare);
        for _ in 0..tasks {
            done.decide();
        }
        println!("{tasks:>10}  {one}  {many}  {}", done.measure());
    }
}

fn worker_id(number: u64) -> WorkerId {
    WorkerId::from_bits(number + 1).expect("counted from 1")
}
