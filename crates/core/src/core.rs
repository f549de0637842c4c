//! The core's state, and the small moves out of which every reaction is made.

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::{AttemptId, AttemptState, Epoch, Failure, JobId, TaskId, WorkerId};

use crate::{
    IndexSet, JobError, Moment, Outbox, Party, Push, Record, RevokeReason, Share,
    accounts::Accounts,
    attempt_table::AttemptTable,
    give::Seat,
    index::{Indexes, Limit},
    infirmary::Infirmary,
    job::{Job, JobEnd, JobPhase, Place, Step},
    needs::Needs,
    pauses::Pauses,
    ready::StepId,
    watch::Watch,
    worker::{Attempt, AttemptPhase, Slot, Worker},
};

/// What may be tuned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Milliseconds without a heartbeat after which a worker's attempts lapse.
    pub lease_ms: u64,
    /// Milliseconds of work that a slot keeps queued, by its own measured frame time.
    pub ahead_ms: u64,
    /// The most attempts queued on one slot behind the one that runs.
    pub max_queue: u16,
    /// A queued attempt whose turn is nearer than this many milliseconds is not taken from its slot for an
    /// idle one.
    pub steal_ms: u64,
    /// Failed attempts after which a task fails.
    pub max_failures: u8,
    /// Lapsed attempts after which a task fails.
    pub max_lapses: u8,
    /// Milliseconds in which its Blender does nothing after which an attempt is taken to hang, where its step does not
    /// say.
    pub hang_ms: u64,
    /// Milliseconds in which its Blender works and shows nothing for it after which it is taken to hang.
    pub stall_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lease_ms: 30_000,
            ahead_ms: 20_000,
            max_queue: 256,
            steal_ms: 250,
            max_failures: 3,
            max_lapses: 3,
            hang_ms: 15 * 60_000,
            stall_ms: 24 * 60 * 60_000,
        }
    }
}

/// The farm's live state, and every rule by which it changes. Give it events in the order in which they
/// happen, then call [`Core::schedule`].
///
/// At a start: [`Core::new`] with a new epoch, [`Core::restore_job`] for each job that has not ended, then let
/// workers join. Leases of restored attempts begin anew, so workers have that long to come back.
#[derive(Debug)]
pub struct Core {
    pub(crate) config: Config,
    pub(crate) epoch: Epoch,
    /// The counter of the next attempt's id.
    pub(crate) next_attempt: u64,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    /// Jobs that have not ended.
    pub(crate) active: BTreeSet<JobId>,
    /// Jobs of which nobody has looked yet whether they have ended.
    pub(crate) unsettled: BTreeSet<JobId>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) attempts: AttemptTable,
    pub(crate) needs: Needs,
    pub(crate) accounts: Accounts,
    pub(crate) limits: BTreeMap<String, Limit>,
    pub(crate) indexes: Indexes,
    /// Milliseconds of work that lower priorities are owed.
    pub(crate) owed_ms: u64,
    /// When the ends of steps were last looked at, and when they want to be again.
    pub(crate) tail_looked: Moment,
    pub(crate) tail_again: Option<Moment>,
    /// No lease runs out before this.
    pub(crate) leases_from: Moment,
    /// Workers whose state may have changed since it was last recorded.
    pub(crate) touched: BTreeSet<WorkerId>,
    pub(crate) pauses: Pauses,
    pub(crate) infirmary: Infirmary,
    pub(crate) watch: Watch,
}

impl Core {
    /// `epoch` must be higher than that of every attempt ever given out.
    pub fn new(epoch: Epoch, config: Config) -> Self {
        Self {
            config,
            epoch,
            next_attempt: 1,
            jobs: BTreeMap::new(),
            active: BTreeSet::new(),
            unsettled: BTreeSet::new(),
            workers: BTreeMap::new(),
            attempts: AttemptTable::default(),
            needs: Needs::default(),
            accounts: Accounts::default(),
            limits: BTreeMap::new(),
            indexes: Indexes::default(),
            owed_ms: 0,
            tail_looked: Moment(0),
            tail_again: None,
            leases_from: Moment(u64::MAX),
            touched: BTreeSet::new(),
            pauses: Pauses::default(),
            infirmary: Infirmary::default(),
            watch: Watch::default(),
        }
    }

    /// How a project or a user shares the farm from now on.
    pub fn set_share(&mut self, party: Party, share: Share) {
        self.accounts.set(party, share);
        self.look_again();
    }

    /// How many slots at once may count against the limit of this name; 0 where it was never set.
    pub fn set_limit(&mut self, name: &str, total: u32) {
        let limit = self.limits.entry(name.to_owned()).or_default();
        limit.total = total;
        if *limit == Limit::default() {
            self.limits.remove(name);
        }
        self.look_again();
    }

    /// Workers whose leases end by now. Of whom something has arrived that the core has not been told yet, is to be told
    /// before [`Core::tick`], by [`Core::renew_lease`]: a server that was held up must not take its workers for dead.
    pub fn expiring(&self, now: Moment) -> Vec<WorkerId> {
        if now < self.leases_from {
            return Vec::new();
        }
        let ends = |worker: &Worker| worker.presence.lease_end().is_some_and(|end| end <= now);
        self.workers.iter().filter(|(_, worker)| ends(worker)).map(|(id, _)| *id).collect()
    }

    /// Lapses the leases that have run out, ends the pauses of workers that refused work, and releases jobs whose time
    /// has come.
    pub fn tick(&mut self, now: Moment, out: &mut impl Outbox) {
        self.end_pauses(now);
        self.start_due(now);
        self.end_overdue(now, out);
        self.end_convalescences(now);
        if self.leases_from <= now {
            for worker in self.expiring(now) {
                self.lapse(now, worker, true, out);
            }
            let ends = self.workers.values().filter_map(|worker| worker.presence.lease_end());
            self.leases_from = ends.min().unwrap_or(Moment(u64::MAX));
        }
        self.record_workers(out);
    }

    /// When [`Core::tick`] and [`Core::schedule`] next have something to do by themselves. May be too early.
    pub fn next_deadline(&self) -> Option<Moment> {
        let leases = Some(self.leases_from).filter(|from| from.0 < u64::MAX && !self.workers.is_empty());
        let start = self.indexes.starts.first().map(|(at, _)| *at);
        let trial = self.infirmary.next_deadline();
        let watch = self.watch.next_deadline();
        let all = leases.into_iter().chain(self.pauses.next_deadline()).chain(start).chain(self.next_tail());
        all.chain(trial).chain(watch).chain(self.indexes.more.then_some(Moment(0))).min()
    }

    /// To change it: its job is filed anew.
    pub(crate) fn step_mut(&mut self, task: TaskId) -> Option<&mut Step> {
        self.indexes.changed.insert(task.job);
        self.jobs.get_mut(&task.job)?.steps.get_mut(usize::from(task.step.0))
    }

    pub(crate) fn step(&self, task: TaskId) -> Option<&Step> {
        self.step_of((task.job, task.step))
    }

    pub(crate) fn step_of(&self, (job, step): StepId) -> Option<&Step> {
        self.jobs.get(&job)?.steps.get(usize::from(step.0))
    }

    pub(crate) fn slot(&self, (worker, slot): Seat) -> Option<&Slot> {
        self.workers.get(&worker)?.slots.get(usize::from(slot.0))
    }

    /// The end of a lease that begins now.
    pub(crate) fn renewed(&mut self, now: Moment) -> Moment {
        let end = now.after(self.config.lease_ms);
        self.leases_from = self.leases_from.min(end);
        end
    }

    /// Takes a live attempt off its slot and its task; the task is then in no place, unless it has a twin, which is
    /// its one live attempt from then on. The attempt is gone.
    pub(crate) fn detach(&mut self, id: AttemptId) -> Option<Attempt> {
        if !self.attempts.get(&id)?.phase.is_live() {
            return None;
        }
        let attempt = self.attempts.remove(&id)?;
        if let Some(worker) = self.workers.get_mut(&attempt.worker)
            && let Some(slot) = worker.slots.get_mut(usize::from(attempt.slot.0))
        {
            slot.detach(id);
        }
        self.watch.end(id);
        self.trial_is_over(attempt.worker, id);
        self.touch(attempt.worker);
        self.repay(&attempt);
        let index = attempt.task.index;
        let twin = self.step(attempt.task).and_then(|step| step.twins.get(&index)).copied();
        let twin_begun =
            twin.and_then(|twin| self.attempts.get(&twin)).is_some_and(|twin| twin.phase.has_begun());
        if let Some(step) = self.step_mut(attempt.task) {
            match twin {
                Some(twin) if twin == id => drop(step.twins.remove(&index)),
                Some(twin) => {
                    step.twins.remove(&index);
                    step.live.insert(index, twin);
                    step.running -= u32::from(attempt.phase.has_begun());
                    step.running += u32::from(twin_begun);
                }
                None => {
                    step.live.remove(&index);
                    step.running -= u32::from(attempt.phase.has_begun());
                }
            }
        }
        Some(attempt)
    }

    /// The account gets back what it was charged for an attempt that never ran.
    fn repay(&mut self, attempt: &Attempt) {
        if !attempt.phase.has_begun()
            && let Some(job) = self.jobs.get(&attempt.task.job)
        {
            self.accounts.charge(job.account, -i64::from(attempt.charged_ms));
        }
    }

    /// Keeps a detached attempt in mind: it may still deliver.
    pub(crate) fn keep_late(&mut self, id: AttemptId, mut attempt: Attempt, counted: bool) {
        let task = attempt.task;
        attempt.phase = AttemptPhase::Late { counted, was: attempt.phase.held() };
        if let Some(step) = self.step_mut(task) {
            step.troubles.entry(task.index).or_default().late.push(id);
            self.attempts.insert(id, attempt);
        }
    }

    /// Forgets an attempt that was kept in mind.
    pub(crate) fn drop_late(&mut self, id: AttemptId) -> Option<Attempt> {
        let attempt = self.attempts.remove(&id)?;
        let index = attempt.task.index;
        if let Some(step) = self.step_mut(attempt.task)
            && let Some(trouble) = step.troubles.get_mut(&index)
        {
            trouble.late.retain(|late| *late != id);
            if trouble.is_over() {
                step.troubles.remove(&index);
            }
        }
        Some(attempt)
    }

    /// Ends a live attempt that the core no longer wants. Its slot stays closed until the worker reports it,
    /// unless it has left the slot already. The task is then in no place.
    pub(crate) fn revoke(
        &mut self,
        id: AttemptId,
        why: RevokeReason,
        state: AttemptState,
        out: &mut impl Outbox,
    ) -> Option<Attempt> {
        let attempt = self.detach(id)?;
        if attempt.phase != AttemptPhase::Delivering
            && let Some(worker) = self.workers.get_mut(&attempt.worker)
            && let Some(slot) = worker.slot_mut(attempt.slot)
        {
            slot.close(id);
        }
        out.record(Record::AttemptClosed { attempt: id, task: attempt.task, state, failure: None });
        self.push(attempt.worker, Push::Revoke { attempt: id, why }, out);
        Some(attempt)
    }

    /// Asks for an attempt back, unless it has begun.
    pub(crate) fn recall(&mut self, id: AttemptId, out: &mut impl Outbox) {
        if let Some(attempt) = self.attempts.get_mut(&id)
            && attempt.phase == (AttemptPhase::Assigned { recalled: false })
        {
            attempt.phase = AttemptPhase::Assigned { recalled: true };
            let worker = attempt.worker;
            self.push(worker, Push::Revoke { attempt: id, why: RevokeReason::Recalled }, out);
        }
    }

    /// Sends to a worker that is connected. What one that is not should know, it learns when it joins.
    pub(crate) fn push(&self, to: WorkerId, push: Push, out: &mut impl Outbox) {
        if self.workers.get(&to).is_some_and(|worker| worker.presence.is_connected()) {
            out.push(to, push);
        }
    }

    /// Ends the job if nothing of it can go on, and records what changed about its steps.
    pub(crate) fn settle(&mut self, id: JobId, out: &mut impl Outbox) {
        let Some(job) = self.jobs.get(&id) else { return };
        if !job.has_ended()
            && let Some(end) = job.end()
        {
            return self.end_job(id, end, None, out);
        }
        self.record_steps(id, out);
    }

    pub(crate) fn record_steps(&mut self, id: JobId, out: &mut impl Outbox) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        for index in 0..job.steps.len() {
            let state = job.step_state(index);
            if job.steps[index].state != state {
                job.steps[index].state = state;
                out.record(Record::StepState { job: id, step: step_index(index), state });
            }
        }
    }

    /// Revokes what is live, cancels what waits, and closes the job.
    pub(crate) fn end_job(&mut self, id: JobId, end: JobEnd, reason: Option<Failure>, out: &mut impl Outbox) {
        let Some(job) = self.jobs.get(&id) else { return };
        for index in 0..job.steps.len() {
            let live: Vec<AttemptId> = self.jobs[&id].steps[index].attempts().collect();
            let mut changed = !live.is_empty();
            for attempt in live {
                let why = RevokeReason::Cancelled;
                if let Some(gone) = self.revoke(attempt, why, AttemptState::Revoked, out)
                    && let Some(step) = self.step_mut(gone.task)
                    && !step.live.contains_key(&gone.task.index)
                {
                    step.cancelled.insert(gone.task.index);
                }
            }
            let Some(step) = self.jobs.get_mut(&id).and_then(|job| job.steps.get_mut(index)) else {
                continue;
            };
            changed |= step.cancel_waiting();
            for late in std::mem::take(&mut step.troubles).values().flat_map(|trouble| &trouble.late) {
                self.attempts.remove(late);
            }
            if changed {
                let tasks = step.cancelled.clone();
                out.record(Record::CancelledTasks { job: id, step: step_index(index), tasks });
            }
        }
        self.active.remove(&id);
        self.indexes.changed.insert(id);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.phase = JobPhase::Ended(end);
            let state = job.state();
            self.record_steps(id, out);
            out.record(Record::JobState { job: id, state, reason });
        }
        self.indexes.released.extend(
            self.indexes.dependents.get(&id).filter(|_| end == JobEnd::Completed).into_iter().flatten(),
        );
    }

    /// A task of the job has started.
    pub(crate) fn begin(&mut self, id: JobId, out: &mut impl Outbox) {
        if let Some(job) = self.jobs.get_mut(&id)
            && !job.begun
        {
            job.begun = true;
            if job.phase == JobPhase::Active {
                out.record(Record::JobState { job: id, state: job.state(), reason: None });
            }
        }
    }

    /// Records the state of each worker that was touched, where it changed.
    pub(crate) fn record_workers(&mut self, out: &mut impl Outbox) {
        for id in std::mem::take(&mut self.touched) {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.resize();
                let state = worker.state();
                if worker.state != state {
                    worker.state = state;
                    out.record(Record::WorkerState { worker: id, state });
                }
            }
        }
    }

    pub(crate) fn forget_job(&mut self, id: JobId) {
        self.active.remove(&id);
        // What its slots held of limits and shares is given back while it is known.
        let on: Vec<WorkerId> =
            self.jobs.get(&id).into_iter().flat_map(|job| job.on.keys().copied()).collect();
        on.into_iter().for_each(|worker| self.reindex_worker(worker));
        self.unfile(id);
        let Some(job) = self.jobs.remove(&id) else { return };
        self.let_go_of(&job);
        if job.phase == JobPhase::Ended(JobEnd::Completed) {
            self.remember_completed(id);
        }
        for late in job.steps.iter().flat_map(|step| step.troubles.values()).flat_map(|trouble| &trouble.late)
        {
            self.attempts.remove(late);
        }
    }

    /// Gives back what a job, in no index any more, holds of needs, sessions and accounts.
    pub(crate) fn let_go_of(&mut self, job: &Job) {
        for step in &job.steps {
            self.needs.release(step.need);
            step.plan.all_sessions().for_each(|session| self.indexes.release_session(session));
        }
        self.accounts.close(job.account);
    }

    /// # Errors
    /// Where there is no such job.
    pub(crate) fn job_ref(&self, id: JobId) -> Result<&Job, JobError> {
        self.jobs.get(&id).ok_or(JobError::NoSuchJob(id))
    }

    /// Whether a generation of a task may still be committed, and where its task is.
    pub(crate) fn open_place(&self, attempt: &Attempt) -> Option<Place> {
        let step = self.step(attempt.task)?;
        let place = step.place(attempt.task.index)?;
        let open = matches!(place, Place::Waiting | Place::Live(_));
        (open && step.generations.get(attempt.task.index) == attempt.generation).then_some(place)
    }
}

pub(crate) fn step_index(index: usize) -> kiln_types::StepIndex {
    // A plan has at most `JobPlan::MAX_STEPS` steps.
    kiln_types::StepIndex(index as u16)
}

/// Writes down that these tasks wait again, each in its present generation.
pub(crate) fn record_reopened(id: JobId, index: usize, step: &Step, tasks: &IndexSet, out: &mut impl Outbox) {
    for span in tasks.spans() {
        for (tasks, generation) in step.generations.pieces(span) {
            out.record(Record::TasksReopened { job: id, step: step_index(index), tasks, generation });
        }
    }
}
