//! Jobs that may render on one of several devices: the first worker that takes a task pins the job to one of them.
//!
//! Two devices never make the same picture, so all of a job renders on one. As long as nothing of the job was ever
//! delivered and nothing of it is at work, a pin binds nothing and is released: the next worker may have another device.

use kiln_types::{AttemptId, JobId, SessionKey, WorkerId};

use crate::{
    Core, DeviceOption, Label, Outbox, Record, StepPlan,
    core::step_index,
    job::{Job, Step},
};

impl StepPlan {
    /// The device that a worker with these labels would render the step on, where none is chosen yet.
    pub(crate) fn best_device(&self, has: impl Fn(&Label) -> bool) -> Option<&DeviceOption> {
        self.device.as_ref()?.options.iter().find(|option| has(&option.label))
    }

    /// What a process may have open for the step.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = SessionKey> {
        let options = self.device.iter().flat_map(|device| &device.options);
        options.map(|option| option.session).chain([self.session])
    }

    /// The same, whichever device it requires now.
    pub(crate) fn all_sessions(&self) -> impl Iterator<Item = SessionKey> {
        let open = self.device.iter();
        let open = open
            .flat_map(|device| device.options.iter().map(|option| option.session).chain([device.session]));
        open.chain(self.device.is_none().then_some(self.session))
    }

    /// Requires the device of this label, or again whichever there is.
    pub(crate) fn set_device(&mut self, label: Option<&Label>) {
        let Some(device) = &self.device else { return };
        let option = label.and_then(|label| device.options.iter().find(|option| option.label == *label));
        for known in device.options.iter().map(|option| &option.label).chain([&device.any]) {
            self.requires.labels.remove(known);
        }
        self.requires.labels.insert(option.map_or(&device.any, |option| &option.label).clone());
        self.session = option.map_or(device.session, |option| option.session);
    }
}

impl Job {
    /// Whether a worker will have to decide on which device it renders.
    pub fn is_open(&self) -> bool {
        self.pinned.is_none() && self.steps.iter().any(|step| step.plan.device.is_some())
    }

    /// Whether nothing of it was ever delivered, and nothing is at work.
    fn is_untouched(&self) -> bool {
        let untouched = |step: &Step| step.live.is_empty() && step.done.is_empty() && step.firsts.is_open();
        self.steps.iter().all(untouched)
    }

    /// Closed attempts that may yet deliver.
    fn late(&self) -> impl Iterator<Item = AttemptId> {
        let troubles = self.steps.iter().flat_map(|step| step.troubles.values());
        troubles.flat_map(|trouble| trouble.late.iter().copied())
    }
}

impl Core {
    /// The session that the worker would have open for the step; `None` where it has no device for it.
    pub(crate) fn session_on(&self, id: WorkerId, job: &Job, step: &Step) -> Option<SessionKey> {
        if job.pinned.is_some() || step.plan.device.is_none() {
            return Some(step.plan.session);
        }
        let labels = &self.workers.get(&id)?.offer.labels;
        step.plan.best_device(|label| labels.contains(label)).map(|option| option.session)
    }

    /// The worker is about to take a task of the job: where the job is pinned to no device yet, it is pinned to the
    /// best that the worker has.
    pub(crate) fn pin_device(&mut self, id: JobId, worker: WorkerId, out: &mut impl Outbox) {
        let Some((job, worker)) = self.jobs.get(&id).zip(self.workers.get(&worker)) else { return };
        if !job.is_open() {
            return;
        }
        let has = |label: &Label| worker.offer.labels.contains(label);
        let best = job.steps.iter().find_map(|step| step.plan.best_device(has));
        let Some(label) = best.map(|option| option.label.clone()) else { return };
        self.set_device(id, Some(label), out);
        // Work is being handed out: what waits is on offer to the workers of this device from now on.
        self.reindex();
    }

    /// Releases the pins that bind nothing, of the jobs that changed. What a lost worker may yet deliver binds a job as long
    /// as another worker has the device; after that it comes too late.
    pub(crate) fn release_devices(&mut self, out: &mut impl Outbox) {
        let is_unbound = |id: &&JobId| {
            let job = self.jobs.get(*id).filter(|job| job.pinned.is_some() && !job.has_ended());
            job.filter(|job| job.is_untouched()).is_some_and(|job| {
                job.late().next().is_none() || job.steps.iter().all(|step| self.willing(step.need) == 0)
            })
        };
        let unbound: Vec<JobId> = self.indexes.changed.iter().filter(is_unbound).copied().collect();
        for id in unbound {
            let late: Vec<AttemptId> = self.jobs.get(&id).into_iter().flat_map(Job::late).collect();
            for attempt in late {
                self.drop_late(attempt);
            }
            self.set_device(id, None, out);
        }
    }

    fn set_device(&mut self, id: JobId, label: Option<Label>, out: &mut impl Outbox) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        job.steps.iter_mut().for_each(|step| step.plan.set_device(label.as_ref()));
        job.pinned.clone_from(&label);
        let steps = job.steps.len();
        (0..steps).map(step_index).for_each(|step| self.size_step(id, step));
        self.indexes.changed.insert(id);
        out.record(Record::JobPinned { job: id, device: label });
    }
}
