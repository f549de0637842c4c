//! Settings of scheduling: the scheduling options of jobs, the shares of users and projects, limits, and pools of workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kiln_api::{AccountView, Change, ChangeJob, ChangePools, LimitView, SetShare};
use kiln_core::{Account, JobError, Share};
use kiln_store::{ShareRow, Write};
use kiln_types::{AccountKind, JobId, JobSpec, JobState, ShortName};

use super::{
    actor::Scheduler,
    farm::{FarmState, LiveJob, account, kind_and_name},
    input::FarmSetting,
    plan::scheduling_of,
    refusal::Refusal,
    restore::completed_of,
};
use crate::clock::unix_ms;

/// Users and projects with a share, or limits, at most.
const MAX_NAMES: usize = 10_000;
/// Pools of one worker.
const MAX_POOLS: usize = 64;

impl Scheduler {
    pub(super) fn apply_setting(&mut self, setting: FarmSetting) -> Result<(), Refusal> {
        match setting {
            FarmSetting::Share { account, share } => self.set_share(account, share),
            FarmSetting::Limit { name, total } => self.set_limit(name, total),
            FarmSetting::Pools { worker, change } => self.set_pools(&worker, &change),
        }
    }

    fn set_share(&mut self, account: Account, set: SetShare) -> Result<(), Refusal> {
        let shares = &mut self.farm.shares;
        if !shares.contains_key(&account) && shares.len() >= MAX_NAMES {
            return Err(Refusal::TooManyShares(MAX_NAMES));
        }
        let old = shares.get(&account).copied().unwrap_or_default();
        let weight = set.weight.unwrap_or(old.weight);
        if !(1..=Share::MAX_WEIGHT).contains(&weight) {
            return Err(Refusal::BadWeight);
        }
        let share = Share { weight, max_slots: set.max_slots.unwrap_or(old.max_slots) };
        shares.insert(account.clone(), share);
        let (kind, name) = kind_and_name(&account);
        let row = ShareRow { kind, name: name.to_owned(), weight, max_slots: share.max_slots };
        self.write(Write::SetShare(row));
        self.farm.core.set_share(account, share);
        Ok(())
    }

    fn set_limit(&mut self, name: String, total: Option<u32>) -> Result<(), Refusal> {
        let limits = &mut self.farm.limits;
        match total {
            Some(total) => {
                if !limits.contains_key(&name) && limits.len() >= MAX_NAMES {
                    return Err(Refusal::TooManyLimits(MAX_NAMES));
                }
                limits.insert(name.clone(), total);
            }
            None => {
                if !limits.contains_key(&name) {
                    return Err(Refusal::NoSuchLimit(name));
                }
                let needs = |(id, live): (&JobId, &LiveJob)| {
                    (live.ended.is_none() && live.spec.requirements.limits.contains_key(name.as_str()))
                        .then_some(*id)
                };
                if let Some(job) = self.farm.jobs.iter().filter_map(needs).min() {
                    return Err(Refusal::LimitInUse { job, name });
                }
                limits.remove(&name);
            }
        }
        self.farm.core.set_limit(&name, total.unwrap_or(0));
        self.write(Write::SetLimit { name, total });
        Ok(())
    }

    fn set_pools(&mut self, name: &str, change: &ChangePools) -> Result<(), Refusal> {
        let (worker, known) = self.find_worker(name)?;
        let mut pools: BTreeSet<ShortName> = known.pools.union(&change.add).cloned().collect();
        pools.retain(|pool| !change.remove.contains(pool));
        if pools.len() > MAX_POOLS {
            return Err(Refusal::TooManyPools(MAX_POOLS));
        }
        if pools == known.pools {
            return Ok(());
        }
        known.pools.clone_from(&pools);
        let offer = known.link.is_some().then(|| known.offer());
        self.write(Write::SetWorkerPools { worker, pools });
        if let Some(offer) = offer {
            self.farm.core.worker_offer_changed(worker, offer, &mut self.batch.outbox);
        }
        Ok(())
    }

    /// Returns the completed ones of the jobs on which a job depends after this change.
    pub(super) async fn completed_before(
        &mut self,
        job: JobId,
        change: &ChangeJob,
    ) -> Result<BTreeSet<JobId>, Refusal> {
        if let Some(after) = &change.after {
            return self.completed(after).await;
        }
        let after = self.farm.jobs.get(&job).map(|live| live.spec.scheduling.after.iter().copied().collect());
        self.states_of(after.unwrap_or_default()).await.map(completed_of)
    }

    /// Returns the jobs that were completed so long ago that the core has forgotten them.
    pub(super) async fn completed(&mut self, jobs: &BTreeSet<JobId>) -> Result<BTreeSet<JobId>, Refusal> {
        if let Some(gone) = jobs.iter().find(|job| self.batch.deleted.contains(job)) {
            return Err(Refusal::NoJobToWaitFor(*gone));
        }
        let states = self.states_of(jobs.iter().copied().collect()).await?;
        let known = |job: &JobId| self.farm.jobs.contains_key(job) || states.contains_key(job);
        match jobs.iter().find(|job| !known(job)) {
            Some(gone) => Err(Refusal::NoJobToWaitFor(*gone)),
            None => Ok(completed_of(states)),
        }
    }

    /// Returns the recorded states of the jobs that the core does not hold.
    async fn states_of(&mut self, mut jobs: Vec<JobId>) -> Result<BTreeMap<JobId, JobState>, Refusal> {
        jobs.retain(|job| !self.farm.jobs.contains_key(job));
        if jobs.is_empty() {
            return Ok(BTreeMap::new());
        }
        let states = self.store.job_states(&jobs).await;
        states.map_err(|error| Refusal::failed("the jobs to wait for could not be looked up", error))
    }

    /// Removes the dependencies on a completed job that is deleted: it can no longer be looked up in the records.
    pub(super) fn drop_dependency(&mut self, completed: JobId) {
        let waits = |live: &LiveJob| live.ended.is_none() && live.spec.scheduling.after.contains(&completed);
        for (job, live) in self.farm.jobs.iter_mut().filter(|(_, live)| waits(live)) {
            let spec = Arc::make_mut(&mut live.spec);
            spec.scheduling.after.remove(&completed);
            let spec = Box::new(spec.clone());
            self.batch.writes.push(Write::SetJobSpec { job: *job, spec });
        }
    }

    /// Changes the scheduling options of a job; `completed` are those of its dependencies that are completed.
    pub(super) fn change_job(
        &mut self,
        job: JobId,
        change: ChangeJob,
        completed: &BTreeSet<JobId>,
    ) -> Result<(), Refusal> {
        let now = self.farm.clock.now();
        let view = self.farm.core.job(job).ok_or(JobError::NoSuchJob(job))?;
        if view.state.is_end() {
            return Err(JobError::JobEnded { job, state: view.state }.into());
        }
        let counts = view.counts();
        let waits = change.after.as_ref().is_some_and(|after| !after.is_empty())
            || change.not_before_ms.flatten().is_some_and(|at_ms| at_ms > unix_ms());
        if waits && counts.running + counts.done + counts.failed > 0 {
            return Err(Refusal::HasBegun(job));
        }
        if let Some(after) = &change.after
            && let Some(other) = after.iter().find(|other| self.farm.waits_for_job(**other, job))
        {
            return Err(if *other == job {
                Refusal::WaitsForItself(job)
            } else {
                Refusal::WaitsInCircle { job, other: *other }
            });
        }
        let live = self.farm.jobs.get_mut(&job).ok_or(JobError::NoSuchJob(job))?;
        let mut spec = JobSpec::clone(&live.spec);
        let scheduling = &mut spec.scheduling;
        let ChangeJob { priority, max_workers, after, not_before_ms } = change;
        scheduling.priority = priority.unwrap_or(scheduling.priority);
        scheduling.max_workers = max_workers.unwrap_or(scheduling.max_workers);
        scheduling.after = after.unwrap_or_else(|| std::mem::take(&mut scheduling.after));
        scheduling.not_before_ms = not_before_ms.unwrap_or(scheduling.not_before_ms);
        live.spec = Arc::new(spec.clone());
        let in_core = scheduling_of(&spec, &self.farm.clock, completed);
        let changed = Change::JobChanged { scheduling: spec.scheduling.clone() };
        self.farm.core.set_scheduling(now, job, in_core)?;
        self.write(Write::SetJobSpec { job, spec: Box::new(spec) });
        self.event(unix_ms(), Some(job), None, &changed);
        Ok(())
    }
}

impl FarmState {
    /// Checks that the farm has the limits that a job requires.
    pub(super) fn check_limits(&self, spec: &JobSpec) -> Result<(), Refusal> {
        for (name, count) in &spec.requirements.limits {
            let (name, count) = (name.to_string(), count.get());
            match self.limits.get(&name) {
                None => return Err(Refusal::RequiresNoSuchLimit(name)),
                Some(&total) if count > total => {
                    return Err(Refusal::RequiresMoreThanLimit { name, count, total });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Returns whether the first is the second, or waits for it, directly or through others.
    fn waits_for_job(&self, first: JobId, second: JobId) -> bool {
        let (mut seen, mut open) = (BTreeSet::new(), vec![first]);
        while let Some(job) = open.pop() {
            if job == second {
                return true;
            }
            if seen.insert(job)
                && let Some(live) = self.jobs.get(&job)
            {
                open.extend(&live.spec.scheduling.after);
            }
        }
        false
    }

    /// Returns the users, or projects, that have a share or a job that has not ended.
    pub(crate) fn accounts(&self, kind: AccountKind) -> Vec<AccountView> {
        let mut jobs: BTreeMap<&str, u32> = BTreeMap::new();
        for live in self.jobs.values().filter(|live| live.ended.is_none()) {
            let name = match kind {
                AccountKind::User => live.spec.owner.0.as_str(),
                AccountKind::Project => live.spec.project.0.as_str(),
            };
            *jobs.entry(name).or_default() += 1;
        }
        let set = self.shares.keys().map(kind_and_name).filter(|(of, _)| *of == kind).map(|(_, name)| name);
        let names: BTreeSet<&str> = jobs.keys().copied().chain(set).collect();
        let held = self.core.held_slots();
        let view = |name: &str| {
            let account = account(kind, name.to_owned());
            let share = self.shares.get(&account).copied().unwrap_or_default();
            AccountView {
                name: name.to_owned(),
                weight: share.weight,
                max_slots: share.max_slots,
                slots: held.get(&account).copied().unwrap_or_default(),
                jobs: jobs.get(name).copied().unwrap_or_default(),
            }
        };
        names.into_iter().map(view).collect()
    }

    pub(crate) fn limit_views(&self) -> Vec<LimitView> {
        let used: BTreeMap<&str, u32> = self.core.limits().map(|(name, limit)| (name, limit.used)).collect();
        let view = |(name, total): (&String, &u32)| LimitView {
            name: name.clone(),
            total: *total,
            in_use: used.get(name.as_str()).copied().unwrap_or_default(),
        };
        self.limits.iter().map(view).collect()
    }
}
