//! Jobs that may render on one of several devices: the first worker that takes a task pins the job to one of them.
//!
//! Two devices never make the same picture, so all of a job renders on one. As long as no task was delivered and no
//! attempt is open, the pin is released: the next worker may have another device.

use kiln_types::{AttemptId, JobId, SessionKey, WorkerId};

use crate::{
    Core, Label, Outbox, Record, StepPlan,
    ids::StepRef,
    state::{Job, Step},
};

impl StepPlan {
    /// The sessions of the step on all devices.
    pub(crate) fn all_sessions(&self) -> impl Iterator<Item = SessionKey> {
        let options = self.device.iter().flat_map(|device| &device.options).map(|option| option.session);
        options.chain(self.device.as_ref().map_or(self.session, |device| Some(device.session)))
    }
}

impl Job {
    /// Returns whether the device is open until a worker takes a task.
    pub fn is_device_open(&self) -> bool {
        self.pinned.is_none() && self.steps.iter().any(|step| step.plan.device.is_some())
    }

    /// Returns whether the steps that render on the device have no delivery, no open attempt and no done task.
    fn is_untouched(&self) -> bool {
        let is_untouched = |step: &Step| {
            step.tasks.live_len() + step.tasks.streaming().len() == 0
                && step.tasks.done().is_empty()
                && step.first_failures.is_open()
        };
        self.steps.iter().filter(|step| step.plan.device.is_some()).all(is_untouched)
    }
}

impl Core {
    /// Pins the job to the best device of the worker, which is about to get a task of the step, if the device is open.
    pub(crate) fn pin_device(&mut self, of: StepRef, worker: WorkerId, out: &mut impl Outbox) {
        let (step, worker) = (self.state.step(of), self.state.worker(worker));
        if step.plan.device.is_none() || self.state.job(of.job).pinned.is_some() {
            return;
        }
        let best = step.plan.best_device(&worker.offer.labels);
        let Some(label) = best.map(|option| option.label.clone()) else { return };
        self.set_device(of.job, Some(label), out);
        // Work is being dispatched: from now on waiting tasks go to the workers of this device.
        self.reindex();
    }

    /// Releases the pins of changed jobs without deliveries and open attempts. Expired attempts that may still deliver keep
    /// the pin as long as another worker has the device.
    pub(crate) fn release_devices(&mut self, out: &mut impl Outbox) {
        let is_unbound = |id: &&JobId| {
            // The job may be forgotten since.
            let job = self.state.find_job(**id).filter(|job| job.pinned.is_some() && !job.has_ended());
            job.filter(|job| job.is_untouched()).is_some_and(|job| {
                let has_worker = |step: &Step| self.workers_for(step.requirement) > 0;
                self.expired_on_device(job).is_empty() || !job.steps.iter().any(has_worker)
            })
        };
        let unbound: Vec<JobId> = self.state.changed_jobs.iter().filter(is_unbound).copied().collect();
        for id in unbound {
            for attempt in self.expired_on_device(self.state.job(id)) {
                self.drop_expired(attempt);
            }
            self.set_device(id, None, out);
        }
    }

    /// The expired attempts of the steps that render on the device of the job.
    fn expired_on_device(&self, job: &Job) -> Vec<AttemptId> {
        let is_on_it = |id: &AttemptId| self.state.step(self.state.attempt(*id).task).plan.device.is_some();
        job.expired().filter(is_on_it).collect()
    }

    fn set_device(&mut self, id: JobId, label: Option<Label>, out: &mut impl Outbox) {
        let job = self.state.job_mut(id);
        job.steps.iter_mut().for_each(|step| step.plan.set_device(label.as_ref()));
        job.pinned.clone_from(&label);
        self.widen_requirements(id);
        out.record(Record::JobPinned { job: id, device: label });
    }
}
