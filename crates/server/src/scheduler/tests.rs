//! Random farms: the state of a job by its replayed records must be the state that the database returns.

mod puppet;
pub(super) mod samples;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use kiln_api::{ChangeJob, Up};
use kiln_core::{Account, Config, Core, Ledger, Moment, RestoredJob, SchedulingOptions, Share};
use kiln_store::{Durability, Expiry, NewBundle, Write};
use kiln_types::{
    AttemptId, BlobHash, BundleId, DeviceClass, Epoch, Failure, FailureCause, FrameSet, HeldAttempt,
    HeldPhase, JobId, JobScheduling, Owner, Project, RevokeReason, StepKind, WorkerId,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::sync::oneshot;

use puppet::{Makes, Puppet};
use samples::{baked, delivered, made, plan};
pub(super) use samples::{hello, spec};
use steps::made_by;

use super::*;
use crate::{arrivals::WaitingMessage, holds::Holds, space};

const WORKERS: u64 = 3;
const BUNDLES: i32 = 60;

/// Several jobs share each.
fn bundle(count: i32) -> BundleId {
    BundleId(BlobHash::of(format!("bundle {}", count % BUNDLES).as_bytes()))
}

pub(super) fn new_bundle(count: i32) -> NewBundle {
    NewBundle {
        id: bundle(count),
        owner: Owner::default(),
        project: Project::default(),
        size: 1,
        blobs: vec![],
    }
}

/// The settings of users: shares, totals of limits, pools of workers, and the scheduling options of unfinished jobs.
type Settings = (
    BTreeMap<Account, Share>,
    BTreeMap<String, u32>,
    BTreeMap<WorkerId, BTreeSet<kiln_types::ShortName>>,
    BTreeMap<JobId, JobScheduling>,
);

struct World {
    folder: TempDir,
    scheduler: Option<Scheduler>,
    ledger: Ledger,
    /// The number of steps of each job that the ledger knows.
    steps: BTreeMap<JobId, usize>,
    puppets: Vec<Puppet>,
    rng: StdRng,
    links: u64,
    /// The number of comparisons of each kind, so that the test cannot pass without any.
    compared: BTreeMap<&'static str, usize>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            scheduler: None,
            ledger: Ledger::default(),
            steps: BTreeMap::new(),
            puppets: (1..=WORKERS).map(Puppet::new).collect(),
            rng: StdRng::seed_from_u64(seed),
            links: 0,
            compared: BTreeMap::new(),
        };
        world.open().await;
        world
    }

    async fn open(&mut self) {
        let (store, _) = Store::open(self.folder.path(), Durability::Ephemeral).await.unwrap();
        let logs = Logs::open(self.folder.path().join("logs"), space::of(self.folder.path())).unwrap();
        let hub = Arc::new(Hub::new());
        let (scheduler, _) = Scheduler::open(store, hub, logs, Config::default(), 5_000).await.unwrap();
        self.scheduler = Some(scheduler);
        self.bring_bundles().await;
    }

    async fn bring_bundles(&mut self) {
        let made = |count| Write::InsertBundle { bundle: new_bundle(count), at_ms: 1 };
        self.scheduler().store.commit((0..BUNDLES).map(made).collect()).await.unwrap();
    }

    /// Removes everything that has ended; afterwards a new job may or may not find its files.
    async fn expire(&mut self) {
        let due = Some(i64::MAX);
        let at_ms = crate::clock::unix_ms();
        let expiry = Expiry {
            at_ms,
            inputs_ms: due,
            outputs_ms: due,
            logs_ms: due,
            spent_ms: due,
            unused_ms: due,
            promised_ms: i64::MAX,
        };
        let (reply, mut answer) = oneshot::channel();
        // Decisions that are not written yet need not be seen here.
        let due = Box::new(self.scheduler().store.find_due(&expiry).await.unwrap());
        self.input(Input::Expire { expiry, due, reply }).await;
        self.turn().await;
        let expired = answer.try_recv().unwrap().unwrap();
        *self.compared.entry("jobs without files").or_default() += expired.inputs.len();
        if self.rng.random_bool(0.5) {
            self.bring_bundles().await;
        }
    }

    /// Checks that a job that may render has its files.
    async fn files_are_there(&mut self) {
        let scheduler = self.scheduler.as_mut().unwrap();
        for stored in scheduler.store.unfinished_jobs().await.unwrap() {
            let row = stored.row;
            assert_eq!(row.kept.inputs_gone_ms, None, "job {}", row.id);
            assert!(
                scheduler.store.bundle(row.spec.session.bundle).await.unwrap().is_some(),
                "job {}",
                row.id
            );
        }
    }

    fn scheduler(&mut self) -> &mut Scheduler {
        self.scheduler.as_mut().unwrap()
    }

    async fn input(&mut self, input: Input) {
        let scheduler = self.scheduler.as_mut().unwrap();
        let last = scheduler.farm.last_job;
        scheduler.take(input).await.unwrap();
        scheduler.settle().await;
        for job in last.0 + 1..=scheduler.farm.last_job.0 {
            let plan = plan(JobId(job), &scheduler.farm.jobs[&JobId(job)].spec);
            self.steps.insert(JobId(job), plan.steps().len());
            self.ledger.add_job(&plan);
        }
        self.learn_steps();
        self.learn();
        for job in self.scheduler().batch.deleted.clone() {
            self.ledger.remove_job(job);
        }
    }

    fn learn(&mut self) {
        for record in std::mem::take(&mut self.scheduler().batch.outbox.seen) {
            self.ledger.apply(&record);
        }
    }

    async fn turn(&mut self) {
        self.scheduler().turn().await.unwrap();
        self.learn();
        let scheduler = self.scheduler.as_ref().unwrap();
        let store = scheduler.store.clone();
        for puppet in &mut self.puppets {
            while let Some(Ok(down)) = puppet.downs.as_mut().map(mpsc::Receiver::try_recv) {
                match down {
                    kiln_api::Down::Assign(assignment) => {
                        let live = &scheduler.farm.jobs[&assignment.job];
                        let at_home = live.spec.session.bundle;
                        let bundle = assignment.work.session.as_ref().map(|session| session.bundle);
                        if assignment.work.kind == StepKind::Render && !live.spec.bake.is_empty() {
                            // The frames render from the bundle of the last bake, on disk as in memory.
                            let stored = store.job(assignment.job).await.unwrap().unwrap();
                            assert_eq!(stored.steps[0].bundle, bundle);
                            assert_eq!(stored.steps[0].done, 1, "frames before their bake");
                            assert_ne!(bundle, Some(at_home));
                            *self.compared.entry("frames behind a bake").or_default() += 1;
                        } else {
                            let opens = assignment.work.kind != StepKind::Test;
                            assert_eq!(bundle, opens.then_some(at_home));
                        }
                        let phase = HeldPhase::Queued { slot: assignment.slot };
                        for task in &assignment.tasks {
                            puppet.take(task, assignment.work.kind, phase);
                        }
                    }
                    kiln_api::Down::Stream(stream) => {
                        puppet.take(&stream.task, stream.work.kind, HeldPhase::Streaming);
                    }
                    kiln_api::Down::Place { attempt, slot, .. } => {
                        if let Some((held, _)) = puppet.held.get_mut(&attempt) {
                            held.phase = HeldPhase::Queued { slot };
                            *self.compared.entry("streams on a slot").or_default() += 1;
                        }
                    }
                    kiln_api::Down::Revoke { attempt, why } => puppet.revoked.push((attempt, why)),
                    _ => {}
                }
            }
        }
        self.scheduler().farm.core.sanity_check();
    }

    async fn up(&mut self, worker: usize, up: Up) {
        let (worker, link) = (self.puppets[worker].id, self.puppets[worker].link);
        self.input(Input::Up { worker, link, up, waiting: WaitingMessage::default() }).await;
    }

    async fn join(&mut self, worker: usize) {
        self.links += 1;
        let (out, downs) = mpsc::channel(1_000);
        let puppet = &mut self.puppets[worker];
        puppet.downs = Some(downs);
        puppet.link = self.links;
        puppet.revoked.clear();
        let held = puppet.held.values().map(|(held, _)| *held).collect();
        let hello = Box::new(hello(puppet.id, held));
        let link = LinkHandle { number: self.links, out, end: CancellationToken::new() };
        self.input(Input::Join { hello, link, waiting: WaitingMessage::default() }).await;
    }

    async fn finish(&mut self, worker: usize, attempt: AttemptId, report: Option<CheckedReport>) {
        let Some((held, makes)) = self.puppets[worker].held.remove(&attempt) else { return };
        let report = report.unwrap_or_else(|| {
            made(match makes {
                Makes::Frame(frame) => delivered(frame),
                Makes::Bundle => MadeFiles::Bundle(baked(held.task.job, attempt)),
                Makes::Files => made_by(attempt),
            })
        });
        let (worker, link) = (self.puppets[worker].id, self.puppets[worker].link);
        let (hold, waiting) = (Holds::default().begin(), WaitingMessage::default());
        self.input(Input::Finished { worker, link, attempt, report, hold, waiting }).await;
    }

    /// Makes one random input.
    async fn happen(&mut self) {
        let worker = self.rng.random_range(0..self.puppets.len());
        let last = self.scheduler().farm.last_job.0.max(1);
        let job = JobId(self.rng.random_range(1..=last));
        let held: Vec<AttemptId> = self.puppets[worker].held.keys().copied().collect();
        let some = (!held.is_empty()).then(|| held[self.rng.random_range(0..held.len())]);
        let frame = self.rng.random_range(1..12);
        if self.rng.random_bool(0.04) {
            return self.expire().await;
        }
        match self.rng.random_range(0..46) {
            0 | 1 => {
                let count = self.rng.random_range(1..10);
                let order = ["sequential", "reverse", "coarse", "every-3"][self.rng.random_range(0..4)];
                let (reply, _) = oneshot::channel();
                let bakes = self.rng.random_bool(0.4);
                let mut spec = Box::new(spec(count, order, bakes));
                spec.session.bundle = bundle(self.rng.random_range(0..BUNDLES));
                spec.owner = self.someone().parse().unwrap();
                spec.requirements.limits = self.limits();
                if self.rng.random_bool(0.3) {
                    (spec.any_gpu, spec.session.device) = (true, DeviceClass::Gpu);
                }
                if self.rng.random_bool(0.1) {
                    spec.scheduling = self.any_scheduling(job);
                }
                self.input(Input::Submit { spec, notices: Vec::new(), held: false, reply }).await;
            }
            2..=4 => self.join(worker).await,
            5 => {
                // The process of the worker died with all its attempts.
                self.puppets[worker].held.clear();
                self.join(worker).await;
            }
            6 => {
                let (id, link) = (self.puppets[worker].id, self.puppets[worker].link);
                self.puppets[worker].downs = None;
                self.input(Input::Disconnected { worker: id, link }).await;
            }
            7..=13 => {
                if let Some(attempt) = some {
                    let phase = &mut self.puppets[worker].held.get_mut(&attempt).unwrap().0.phase;
                    // What streams begins when it has a slot.
                    if let Some(slot) = phase.slot() {
                        *phase = HeldPhase::Running { slot };
                        self.up(worker, Up::Started { attempt }).await;
                    }
                }
            }
            14..=19 => {
                if let Some(attempt) = some {
                    self.finish(worker, attempt, None).await;
                }
            }
            20..=23 => {
                if let Some(attempt) = some {
                    let cause = match self.rng.random_range(0..12) {
                        0 => FailureCause::NoCamera,
                        1 | 2 => FailureCause::CannotStart,
                        _ => FailureCause::Crashed,
                    };
                    let failure = Failure::new(cause, "it went wrong");
                    self.finish(worker, attempt, Some(CheckedReport::Failed { failure, seconds: 1.0 })).await;
                }
            }
            24 => {
                // At times the worker confuses a bake with something else.
                if let Some(attempt) = some.filter(|_| self.rng.random_bool(0.3)) {
                    let (held, makes) = &self.puppets[worker].held[&attempt];
                    let wrong = match makes {
                        Makes::Bundle => delivered(frame),
                        _ => MadeFiles::Bundle(baked(held.task.job, attempt)),
                    };
                    self.finish(worker, attempt, Some(made(wrong))).await;
                } else if let Some(attempt) = some {
                    self.finish(worker, attempt, Some(CheckedReport::Returned)).await;
                }
            }
            25..=27 => self.answer_revokes(worker).await,
            28 => self.pass(worker, 40_000).await,
            // Long enough for the core to forget ended jobs: commands read them again.
            29 => self.pass(worker, 11 * 60_000).await,
            30 => {
                let attempt = AttemptId { epoch: Epoch(1), counter: self.rng.random_range(1..50) };
                if !held.contains(&attempt) {
                    self.up(worker, Up::Started { attempt }).await;
                }
            }
            31 => self.command(job, JobCommand::Pause).await,
            32 | 33 => self.command(job, JobCommand::Resume).await,
            34 => self.command(job, JobCommand::Cancel).await,
            35 => self.command(job, JobCommand::Retry).await,
            36 => self.command(job, JobCommand::Rebake).await,
            37 => {
                let frames = self.rng.random_bool(0.7).then(|| FrameSet::range(frame, frame, 1).unwrap());
                self.command(job, JobCommand::Rerender(frames)).await;
            }
            38 => {
                let more = FrameSet::range(frame, frame + 1, 1).unwrap();
                self.command(job, JobCommand::Extend(more)).await;
            }
            40 => {
                let JobScheduling { priority, after, not_before_ms, max_workers } = self.any_scheduling(job);
                let change = ChangeJob {
                    priority: Some(priority),
                    max_workers: Some(max_workers),
                    after: self.rng.random_bool(0.3).then_some(after),
                    not_before_ms: Some(not_before_ms),
                };
                let job = JobId(self.rng.random_range(1..=last));
                self.command(job, JobCommand::Change(change)).await;
            }
            41 => self.set(worker).await,
            42..=44 => self.add_step(job).await,
            45 => self.calm().await,
            _ => match self.rng.random_range(0..4) {
                0 => self.command(job, JobCommand::Delete { force: true }).await,
                1 => self.contradict(job).await,
                _ => self.restart().await,
            },
        }
    }

    /// Returns what was revoked. What has begun goes on if it is only preempted.
    async fn answer_revokes(&mut self, worker: usize) {
        for (attempt, why) in std::mem::take(&mut self.puppets[worker].revoked) {
            let held = self.puppets[worker].held.get(&attempt);
            let goes_on = why == RevokeReason::Preempted
                && held.is_some_and(|(held, _)| !matches!(held.phase, HeldPhase::Queued { .. }));
            if !goes_on {
                self.finish(worker, attempt, Some(CheckedReport::Returned)).await;
            }
        }
    }

    fn someone(&mut self) -> String {
        ["ada", "ben", "cid"][self.rng.random_range(0..3)].to_owned()
    }

    /// Returns limits, at times one that the farm does not have, or whose total is too small.
    fn limits(&mut self) -> BTreeMap<kiln_types::ShortName, std::num::NonZeroU32> {
        let some = self.rng.random_bool(0.1);
        let count = self.rng.random_range(1..3).try_into().unwrap();
        some.then(|| ("nuke".parse().unwrap(), count)).into_iter().collect()
    }

    /// Returns options with a dependency on this job, and perhaps a start time, which may have passed.
    fn any_scheduling(&mut self, after: JobId) -> JobScheduling {
        let at_ms = crate::clock::unix_ms() + self.rng.random_range(-10..60_000);
        JobScheduling {
            priority: self.rng.random_range(0..=100).try_into().unwrap(),
            after: [after].into(),
            not_before_ms: self.rng.random_bool(0.3).then_some(at_ms),
            max_workers: self.rng.random_range(0..3).try_into().ok(),
        }
    }

    async fn set(&mut self, worker: usize) {
        let setting = match self.rng.random_range(0..4) {
            0 => {
                let most = self.rng.random_range(2..6);
                let share = kiln_api::SetShare { weight: Some(most), max_slots: Some(Some(most)) };
                FarmSetting::Share { account: Account::User(self.someone()), share }
            }
            1 => {
                let share = kiln_api::SetShare { weight: None, max_slots: Some(None) };
                FarmSetting::Share { account: Account::User(self.someone()), share }
            }
            2 => {
                let total = self.rng.random_range(0..4);
                FarmSetting::Limit { name: "nuke".to_owned(), total: (total > 0).then_some(total) }
            }
            _ => {
                let worker = format!("worker {}", self.puppets[worker].id);
                let (add, remove) =
                    ([self.someone().parse().unwrap()].into(), [self.someone().parse().unwrap()].into());
                FarmSetting::Pools { worker, change: kiln_api::ChangePools { add, remove } }
            }
        };
        let (reply, _) = oneshot::channel();
        self.input(Input::Set { setting, reply }).await;
    }

    fn arranged(&mut self) -> Settings {
        let farm = &self.scheduler().farm;
        let pools: BTreeMap<_, _> =
            farm.workers.iter().map(|(id, known)| (*id, known.pools.clone())).collect();
        let open = farm.jobs.iter().filter(|(_, live)| live.ended.is_none());
        let scheduling: BTreeMap<_, _> = open.map(|(id, live)| (*id, live.spec.scheduling.clone())).collect();
        (farm.shares.clone(), farm.limits.clone(), pools, scheduling)
    }

    async fn command(&mut self, job: JobId, command: JobCommand) {
        let (reply, _) = oneshot::channel();
        self.input(Input::Job { job, command, reply }).await;
    }

    /// Lets time pass, after which only this worker sends a heartbeat: leases may have expired.
    async fn pass(&mut self, worker: usize, ms: u64) {
        self.scheduler().farm.clock.advance(ms);
        self.turn().await;
        self.up(worker, Up::Heartbeat).await;
    }

    async fn restart(&mut self) {
        self.turn().await;
        let arranged = self.arranged();
        let scheduler = self.scheduler.take().unwrap();
        scheduler.store.close().await.unwrap();
        drop(scheduler);
        self.disconnect();
        self.open().await;
        self.is_restored(&arranged);
    }

    /// Breaks an invariant about this job: a batch with one input is dropped as if it had never arrived.
    async fn contradict(&mut self, job: JobId) {
        self.turn().await;
        let arranged = self.arranged();
        let (reply, mut answer) = oneshot::channel();
        let command = if self.rng.random_bool(0.5) { JobCommand::Cancel } else { JobCommand::Rerender(None) };
        let scheduler = self.scheduler();
        scheduler.take(Input::Job { job, command, reply }).await.unwrap();
        let broken = kiln_core::BrokenInvariant { job: Some(job), what: "made by a test".to_owned() };
        scheduler.recover(Box::new(broken)).await.unwrap();
        assert!(answer.try_recv().is_err(), "it is acknowledged although it was dropped");
        self.disconnect();
        self.turn().await;
        self.is_restored(&arranged);
        *self.compared.entry("dropped batches").or_default() += 1;
    }

    fn disconnect(&mut self) {
        for puppet in &mut self.puppets {
            puppet.downs = None;
            puppet.link = 0;
        }
    }

    /// Checks that the scheduler has the settings, and the state of each job by its records.
    fn is_restored(&mut self, arranged: &Settings) {
        assert_eq!(self.arranged(), *arranged, "what was set is another after a restart");
        // A core that was built from the replayed records has the state of the server's core.
        let mut core = Core::new(Epoch(u32::MAX), Config::default());
        for id in self.ledger.job_ids().collect::<Vec<_>>() {
            let (plan, restored) = self.ledger.restored(id).unwrap();
            core.restore_job(Moment(0), plan, restored).unwrap();
            if let Some(view) = self.scheduler().farm.core.job(id) {
                assert_eq!(core.job(id).unwrap(), view, "job {id} is another after a restart");
                *self.compared.entry("restarted jobs").or_default() += 1;
            }
        }
        self.scheduler().farm.core.sanity_check();
    }

    async fn compare(&mut self) {
        self.files_are_there().await;
        self.compare_files().await;
        let store = self.scheduler().store.clone();
        let open: BTreeSet<JobId> =
            store.unfinished_jobs().await.unwrap().into_iter().map(|stored| stored.row.id).collect();
        let ids: Vec<JobId> = self.ledger.job_ids().collect();
        for id in &ids {
            let (plan, expected) = self.ledger.restored(*id).unwrap();
            let stored = store.stored_job(*id).await.unwrap().expect("the job is in the records");
            let (stored_plan, found) = restore::restored_job(&stored, SchedulingOptions::default()).unwrap();
            assert_eq!(stored_plan.steps(), plan.steps(), "job {id}");
            assert_eq!(open.contains(id), !expected.state.is_end(), "job {id}");
            let (expected, found) = (plain(expected), plain(found));
            assert_eq!(found, expected, "job {id}: the database (left) and the records (right) differ");
            let mut count = |what, times| *self.compared.entry(what).or_default() += times;
            for step in &found.steps {
                count("done tasks", step.done.len() as usize);
                count("failed tasks", step.failed.len() as usize);
                count("cancelled tasks", step.cancelled.len() as usize);
                count("histories", step.histories.len());
                count("losses", step.histories.iter().map(|history| history.lost_on.len()).sum());
                count("attempts", step.attempts.len());
                let raised = (0..20).filter(|i| step.generations.get(kiln_types::TaskIndex(*i)).0 > 0);
                count("later generations", raised.count());
            }
            let bakes = stored.row.plan.of_kind(StepKind::Bake).is_some();
            if bakes && found.steps[0].generations.get(kiln_types::TaskIndex(0)).0 > 0 {
                count("bakes again", 1);
            }
        }
        assert!(open.iter().all(|id| ids.contains(id)), "a job came back from the dead");
        let workers = store.workers().await.unwrap().into_iter();
        let quarantined: Vec<_> = workers
            .filter_map(|row| row.quarantine.map(|known| (row.id, known.reason, known.failed_probes)))
            .collect();
        let expected =
            self.ledger.quarantined().map(|(id, known)| (id, known.reason.clone(), known.failed_probes));
        assert_eq!(
            quarantined.iter().cloned().collect::<BTreeSet<_>>(),
            expected.collect(),
            "the quarantined workers"
        );
        *self.compared.entry("quarantined workers").or_default() += quarantined.len();
    }
}

/// Sorts the parts whose order differs.
fn plain(mut job: RestoredJob) -> RestoredJob {
    for step in &mut job.steps {
        step.histories.sort_by_key(|history| history.task);
        step.attempts.sort_by_key(|attempt| attempt.attempt);
    }
    job
}

/// `KILN_SEED=N` runs one seed, `KILN_SEEDS=N` that number of seeds.
#[tokio::test]
async fn the_database_gives_back_what_the_records_say() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let one = number("KILN_SEED");
    let many = number("KILN_SEEDS").unwrap_or(16);
    let mut compared = BTreeMap::<&str, usize>::new();
    for seed in one.map_or(1..=many, |seed| seed..=seed) {
        println!("seed {seed}");
        let mut world = World::new(seed).await;
        for _ in 0..150 {
            for _ in 0..world.rng.random_range(1..4) {
                world.happen().await;
            }
            world.turn().await;
            world.compare().await;
        }
        for (what, times) in world.compared {
            *compared.entry(what).or_default() += times;
        }
    }
    println!("{compared:?}");
    assert!(
        one.is_some() || compared.len() == 18 && compared.values().all(|times| *times > 20),
        "{compared:?}"
    );
}
