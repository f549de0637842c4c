//! The release of jobs that wait for a time or for other jobs.

use kiln_types::JobId;

use crate::{Core, Moment, state::Job};

impl Core {
    /// Takes the job out of the indexes of jobs that wait.
    pub(crate) fn stop_waiting(&mut self, id: JobId) {
        let options = &self.state.job(id).options;
        for before in &options.after {
            let waiting = self.indexes.dependents.get_mut(before);
            if waiting.is_some_and(|jobs| jobs.remove(&id) && jobs.is_empty()) {
                self.indexes.dependents.remove(before);
            }
        }
        if let Some(at) = options.not_before {
            self.indexes.starts.remove(&(at, id));
        }
    }

    /// Drops a completed job, which is forgotten, from the dependencies of others.
    pub(crate) fn drop_dependency(&mut self, completed: JobId) {
        for id in self.indexes.dependents.remove(&completed).unwrap_or_default() {
            self.state.job_quietly(id).options.after.remove(&completed);
            self.indexes.released.insert(id);
        }
    }

    /// Releases the job, or puts it into the indexes of jobs that wait.
    pub(crate) fn release_when_due(&mut self, now: Moment, id: JobId) {
        let job = self.state.job(id);
        if job.is_released {
            return;
        }
        let is_completed = |before: &JobId| self.state.find_job(*before).is_some_and(Job::is_completed);
        let mut open = job.options.after.clone();
        open.retain(|before| !is_completed(before));
        let early = job.options.not_before.filter(|at| *at > now);
        if open.is_empty() && early.is_none() {
            self.stop_waiting(id);
            self.state.job_mut(id).is_released = true;
            return;
        }
        for before in open {
            self.indexes.dependents.entry(before).or_default().insert(id);
        }
        if let Some(at) = early {
            self.indexes.starts.insert((at, id));
        }
    }

    /// Releases the jobs whose time has come, and those that waited for one that is completed.
    pub(crate) fn release_due(&mut self, now: Moment) {
        while let Some(job) = self.indexes.released.pop_first() {
            // The job may be forgotten since.
            if self.state.find_job(job).is_some() {
                self.release_when_due(now, job);
            }
        }
        while let Some(&(at, job)) = self.indexes.starts.first().filter(|(at, _)| *at <= now) {
            self.indexes.starts.remove(&(at, job));
            self.release_when_due(now, job);
        }
    }
}
