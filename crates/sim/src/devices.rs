//! The checks of jobs that may render on one of several devices: all deliveries of a job come from one.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::{JobPlan, Label, Record, WorkerOffer};
use kiln_types::{AttemptId, AttemptState, JobId, StepIndex, TaskId, WorkerId};

#[derive(Debug, Default)]
pub struct Devices {
    offers: BTreeMap<WorkerId, BTreeSet<Label>>,
    /// Jobs with several devices to choose from.
    jobs: BTreeMap<JobId, Job>,
    pub pins: u64,
    pub releases: u64,
}

#[derive(Debug, Default)]
struct Job {
    options: Vec<Label>,
    /// The steps that render on the device.
    steps: BTreeSet<StepIndex>,
    pinned: Option<Label>,
    /// The device of each attempt, also of closed ones, which may deliver late.
    attempts: BTreeMap<AttemptId, Label>,
    open: BTreeSet<AttemptId>,
    /// The device of all deliveries.
    delivered: Option<Label>,
}

impl Devices {
    pub fn new(offers: impl IntoIterator<Item = (WorkerId, WorkerOffer)>) -> Self {
        let offers = offers.into_iter().map(|(id, offer)| (id, offer.labels)).collect();
        Self { offers, ..Self::default() }
    }

    pub fn submitted(&mut self, plan: &JobPlan) {
        let device = plan.steps().iter().find_map(|step| step.device.as_ref());
        if let Some(device) = device {
            let options = device.options.iter().map(|option| option.label.clone()).collect();
            let steps = plan.steps().iter().enumerate().filter(|(_, step)| step.device.is_some());
            let steps = steps.map(|(place, _)| StepIndex(place as u16)).collect();
            self.jobs.insert(plan.id(), Job { options, steps, ..Job::default() });
        }
    }

    pub fn forget(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// The job of a task that renders on a device.
    fn job(&mut self, task: &TaskId) -> Option<&mut Job> {
        self.jobs.get_mut(&task.job).filter(|job| job.steps.contains(&task.step))
    }

    pub fn record(&mut self, record: &Record) {
        match record {
            Record::JobPinned { job, device } => self.pinned(*job, device.as_ref()),
            Record::AttemptOpened { attempt, task, worker, .. }
            | Record::StreamOpened { attempt, task, worker, .. } => {
                let offered = self.offers[worker].clone();
                let Some(job) = self.job(task) else { return };
                let Some(device) = &job.pinned else { panic!("{attempt} is dispatched without a device") };
                assert!(offered.contains(device), "{worker} has no {device} and gets {task}");
                if job.open.is_empty() && job.attempts.is_empty() {
                    let best = job.options.iter().find(|option| offered.contains(*option));
                    assert_eq!(Some(device), best, "job {} is not pinned to the best of {worker}", task.job);
                }
                job.attempts.insert(*attempt, device.clone());
                job.open.insert(*attempt);
            }
            Record::AttemptResumed { attempt, task, .. } => {
                let Some(job) = self.job(task) else { return };
                assert_eq!(
                    job.attempts.get(attempt),
                    job.pinned.as_ref(),
                    "{attempt} is resumed on another device"
                );
                job.open.insert(*attempt);
            }
            Record::AttemptClosed { attempt, task, state, .. } => {
                let Some(job) = self.job(task) else { return };
                job.open.remove(attempt);
                if *state == AttemptState::Committed {
                    let device = job.attempts[attempt].clone();
                    let first = job.delivered.get_or_insert_with(|| device.clone());
                    assert_eq!(*first, device, "job {} is delivered from two devices", task.job);
                }
            }
            _ => {}
        }
    }

    fn pinned(&mut self, id: JobId, device: Option<&Label>) {
        let job = self.jobs.get_mut(&id).expect("only a job with devices to choose from is pinned");
        match device {
            Some(device) => {
                assert_eq!(job.pinned, None, "job {id} is pinned twice");
                assert!(job.options.contains(device), "job {id} is pinned to {device}");
                self.pins += 1;
            }
            None => {
                assert!(job.pinned.is_some(), "job {id} was not pinned");
                assert!(job.delivered.is_none() && job.open.is_empty(), "job {id} is bound to its device");
                self.releases += 1;
            }
        }
        job.pinned = device.cloned();
    }
}
