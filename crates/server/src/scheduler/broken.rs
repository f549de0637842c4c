//! Broken invariants, and the inputs that are dropped with a turn.

use std::collections::BTreeMap;

use kiln_types::{JobId, WorkerId};

use super::input::Input;

/// The numbers of broken invariants so far.
#[derive(Debug, Default)]
pub(super) struct BrokenCounts {
    by_job: BTreeMap<JobId, u32>,
    without_job: u32,
}

/// The measure against a broken invariant, besides the restart from the records.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    None,
    /// For the second invariant about one job.
    Pause(JobId),
    /// For the second invariant about no job.
    End,
}

impl BrokenCounts {
    pub(super) fn note(&mut self, job: Option<JobId>) -> Remedy {
        let count = match job {
            Some(job) => self.by_job.entry(job).or_default(),
            None => &mut self.without_job,
        };
        *count += 1;
        match (*count, job) {
            (1, _) => Remedy::None,
            (_, Some(job)) => Remedy::Pause(job),
            (_, None) => Remedy::End,
        }
    }
}

/// An applied input, as the log shows it if its batch is dropped.
#[derive(Debug, Clone, Copy)]
pub(super) struct AppliedInput {
    pub what: &'static str,
    pub job: Option<JobId>,
    pub worker: Option<WorkerId>,
}

impl AppliedInput {
    pub(super) fn of(input: &Input) -> Self {
        let (what, job, worker) = match input {
            Input::Submit { .. } => ("submit", None, None),
            Input::Job { job, .. } => ("change of a job", Some(*job), None),
            Input::Join { hello, .. } => ("hello", None, Some(hello.id)),
            Input::Up { worker, .. } => ("message", None, Some(*worker)),
            Input::Finished { worker, .. } => ("report", None, Some(*worker)),
            Input::Disconnected { worker, .. } => ("lost connection", None, Some(*worker)),
            Input::DesiredState { .. } => ("desired state", None, None),
            Input::Set { .. } => ("setting", None, None),
            Input::Unquarantine { .. } => ("end of a quarantine", None, None),
            Input::RemoveWorker { .. } => ("removal of a worker", None, None),
            Input::Fetched { job, .. } => ("fetched outputs", Some(*job), None),
            Input::Expire { .. } => ("expiry", None, None),
            Input::Read(_) => ("read", None, None),
            #[cfg(test)]
            Input::Panic(_) => ("panic", None, None),
        };
        Self { what, job, worker }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_paused_the_second_time_and_without_a_job_the_server_ends() {
        let mut broken = BrokenCounts::default();
        let (one, other) = (Some(JobId(1)), Some(JobId(2)));
        assert_eq!(broken.note(one), Remedy::None);
        assert_eq!(broken.note(other), Remedy::None);
        assert_eq!(broken.note(None), Remedy::None);
        assert_eq!(broken.note(one), Remedy::Pause(JobId(1)));
        assert_eq!(broken.note(one), Remedy::Pause(JobId(1)));
        assert_eq!(broken.note(None), Remedy::End);
    }
}
