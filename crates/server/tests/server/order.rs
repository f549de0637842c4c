//! Scheduling over the API: priorities, dependencies, shares, limits, pools and claims.

use std::collections::BTreeSet;

use kiln_api::{Assignment, ChangeJob, ChangePools, JobView, SetShare, UnmetRequirement, WaitReason};
use kiln_types::{AccountKind, DeviceClass, JobId, JobState, Priority};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{FakeWorker, Farm, hello, problem};

impl Farm {
    /// Submits a job of these frames, with more fields in the request.
    pub async fn submit_with(&self, frames: &str, more: Value) -> JobView {
        let answer = self.try_submit(frames, more).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        answer.json().await.unwrap()
    }

    async fn try_submit(&self, frames: &str, more: Value) -> reqwest::Response {
        let id = self.upload().await;
        let mut body = json!({"source": {"upload": {"id": id}}, "frames": frames});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.post("/api/v1/jobs", body).await
    }

    pub async fn refuses(&self, more: Value) -> String {
        let problem = problem(self.try_submit("1", more).await).await;
        assert!(matches!(problem.status, 400 | 422), "{}", problem.detail);
        problem.detail
    }

    async fn put(&self, path: &str, body: Value) -> reqwest::Response {
        self.request(Method::PUT, path).json(&body).send().await.unwrap()
    }
}

impl FakeWorker {
    /// Renders this number of tasks; returns their jobs, in order.
    async fn renders(&mut self, mut count: u32) -> Vec<JobId> {
        let mut jobs = Vec::new();
        while count > 0 {
            let Assignment { job, tasks, .. } = self.assignment().await;
            for task in tasks {
                self.say(kiln_api::Up::Started { attempt: task.attempt }).await;
                self.deliver(&task).await;
                jobs.push(job);
                count -= 1;
            }
        }
        jobs
    }
}

fn priority(number: u8) -> Option<Priority> {
    Some(number.try_into().unwrap())
}

#[tokio::test]
async fn the_higher_priority_is_rendered_first_whatever_came_first() {
    let farm = Farm::start().await;
    let low = farm.submit_with("1", json!({"scheduling": {"priority": 10}})).await;
    let middle = farm.submit("1").await;
    let high = farm.submit_with("1", json!({"scheduling": {"priority": 90}})).await;
    let last = farm.submit_with("1", json!({"scheduling": {"priority": 95}})).await;
    assert_eq!(
        (middle.spec.scheduling.priority, last.spec.scheduling.priority.get()),
        (Priority::default(), 95)
    );
    let changed = ChangeJob { priority: priority(5), ..ChangeJob::default() };
    assert_eq!(farm.client.change(last.id, &changed).await.unwrap().spec.scheduling.priority.get(), 5);
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    assert_eq!(worker.renders(4).await, [high.id, middle.id, low.id, last.id]);
    assert!(farm.refuses(json!({"scheduling": {"priority": 101}})).await.contains("0 to 100"));
}

#[tokio::test]
async fn a_job_waits_for_others_over_restarts_and_deletions() {
    let farm = Farm::start().await;
    let first = farm.submit("1").await;
    let second = farm.submit("1").await;
    let both = json!([first.id, second.id]);
    let third = farm.submit_with("1", json!({"scheduling": {"after": both, "priority": 100}})).await;
    let open = vec![first.id, second.id];
    assert_eq!(third.waits_for, Some(WaitReason::Dependencies { open, ended: Vec::new() }));
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    assert_eq!(worker.renders(1).await, [first.id]);
    farm.reaches(&first, JobState::Completed).await;
    farm.client.delete(first.id, false).await.unwrap();
    worker.leave().await;

    let farm = farm.restart().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    assert_eq!(worker.renders(2).await, [second.id, third.id]);
    let fourth = farm.submit_with("1", json!({"scheduling": {"after": [third.id]}})).await;
    assert_eq!(worker.renders(1).await, [fourth.id], "one that is through keeps nobody waiting");

    assert!(farm.refuses(json!({"scheduling": {"after": [999]}})).await.contains("no job 999"));
    // The worker is paused, so that no job begins.
    farm.client.tell_worker("alpha", "pause").await.unwrap();
    let fifth = farm.submit("1").await;
    let sixth = farm.submit_with("1", json!({"scheduling": {"after": [fifth.id]}})).await;
    let after = |jobs: &[JobId]| ChangeJob {
        after: Some(jobs.iter().copied().collect::<BTreeSet<_>>()),
        ..ChangeJob::default()
    };
    let round = farm.client.change(fifth.id, &after(&[sixth.id])).await.unwrap_err().to_string();
    assert!(round.contains("neither would ever start"), "{round}");
    let itself = farm.client.change(fifth.id, &after(&[fifth.id])).await.unwrap_err().to_string();
    assert!(itself.contains("cannot wait for itself"), "{itself}");
    farm.client.cancel(fifth.id).await.unwrap();
    farm.client.delete(fifth.id, false).await.unwrap();
    assert!(farm.client.job(sixth.id).await.unwrap().waits_for.is_some());
    // Other changes do not look for the deleted dependency.
    let first = ChangeJob { priority: priority(100), ..ChangeJob::default() };
    farm.client.change(sixth.id, &first).await.unwrap();
    farm.client.change(sixth.id, &after(&[])).await.unwrap();
    farm.client.tell_worker("alpha", "resume").await.unwrap();
    assert_eq!(worker.renders(1).await, [sixth.id]);
    farm.reaches(&sixth, JobState::Completed).await;
    let ended = farm.client.change(sixth.id, &first).await.unwrap_err().to_string();
    assert!(ended.contains("has ended"), "{ended}");
}

#[tokio::test]
async fn a_job_starts_at_its_time_and_a_held_one_when_it_is_resumed() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(since.as_millis()).unwrap()
    };
    let later = farm.submit_with("1", json!({"scheduling": {"not_before_ms": now() + 3_600_000}})).await;
    let Some(WaitReason::StartTime { at_ms, in_s }) = later.waits_for else {
        panic!("{:?}", later.waits_for)
    };
    assert_eq!(Some(at_ms), later.spec.scheduling.not_before_ms);
    assert!((3_500..=3_600).contains(&in_s), "{in_s} s");
    let held = farm.submit_with("1", json!({"held": true})).await;
    assert_eq!(held.state, JobState::Paused);
    let at = now() + 1_500;
    let soon = farm.submit_with("1", json!({"scheduling": {"not_before_ms": at}})).await;
    let past = farm.submit_with("1", json!({"scheduling": {"not_before_ms": 1}})).await;
    assert_eq!(worker.renders(2).await, [past.id, soon.id]);
    assert!(now() >= at, "it began before its time");
    farm.client.resume(held.id).await.unwrap();
    assert_eq!(worker.renders(1).await, [held.id]);
    let at_once = ChangeJob { not_before_ms: Some(None), ..ChangeJob::default() };
    farm.client.change(later.id, &at_once).await.unwrap();
    assert_eq!(worker.renders(1).await, [later.id]);
}

#[tokio::test]
async fn users_and_projects_are_weighed_and_capped_and_outlive_the_server() {
    let farm = Farm::start().await;
    let ada = farm.submit_with("1-4", json!({"user": "ada", "project": "short"})).await;
    farm.submit_with("1-4", json!({"user": "ben", "project": "short"})).await;
    assert_eq!(ada.owner.0, "ada");
    let capped = SetShare { weight: Some(300), max_slots: Some(Some(1)) };
    let view = farm.client.set_share(AccountKind::User, "ada", &capped).await.unwrap();
    assert_eq!((view.weight, view.max_slots, view.jobs), (300, Some(1), 1));
    farm.client.set_share(AccountKind::Project, "advert/2", &SetShare::default()).await.unwrap();

    let farm = farm.restart().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 4).await;
    let mut slots = std::collections::BTreeMap::<JobId, BTreeSet<u16>>::new();
    // Ada's cap is one slot: the others are Ben's.
    while slots.values().map(BTreeSet::len).sum::<usize>() < 4 {
        let assignment = worker.assignment().await;
        slots.entry(assignment.job).or_default().insert(assignment.slot.0);
    }
    assert_eq!(slots[&ada.id].len(), 1, "{slots:?}");
    let users = farm.client.accounts(AccountKind::User).await.unwrap();
    let users: Vec<_> =
        users.iter().map(|user| (user.name.as_str(), user.weight, user.slots, user.jobs)).collect();
    assert_eq!(users, [("ada", 300, 1, 1), ("ben", 100, 3, 1)]);
    let projects = farm.client.accounts(AccountKind::Project).await.unwrap();
    let projects: Vec<_> = projects.iter().map(|one| (one.name.as_str(), one.slots, one.jobs)).collect();
    assert_eq!(projects, [("advert/2", 0, 0), ("short", 4, 2)]);

    for (path, body) in [
        ("/api/v1/users/ada", json!({"weight": 0})),
        ("/api/v1/users/ada", json!({"weight": 10_001})),
        ("/api/v1/projects/%07", json!({"weight": 1})),
    ] {
        assert_eq!(problem(farm.put(path, body).await).await.status, 400, "{path}");
    }
    let free = farm.put("/api/v1/users/ada", json!({"max_slots": null})).await.json::<Value>().await.unwrap();
    assert_eq!((&free["max_slots"], &free["weight"]), (&Value::Null, &json!(300)));
}

#[tokio::test]
async fn a_limit_of_one_is_held_by_one_slot_at_a_time() {
    let farm = Farm::start().await;
    assert!(farm.refuses(json!({"requirements": {"limits": {"nuke": 1}}})).await.contains("no limit “nuke”"));
    farm.client.set_limit("nuke", 1).await.unwrap();
    assert!(farm.refuses(json!({"requirements": {"limits": {"nuke": 2}}})).await.contains("the farm has 1"));
    let job = farm.submit_with("1-2", json!({"requirements": {"limits": {"nuke": 1}}})).await;
    let farm = farm.restart().await;
    let mut alpha = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let mut beta = FakeWorker::join(&farm, 2, "beta", 1).await;
    let first = alpha.assignment().await;
    let limits = farm.client.limits().await.unwrap();
    assert_eq!((limits[0].name.as_str(), limits[0].total, limits[0].in_use), ("nuke", 1, 1));
    let needed = problem(farm.request(Method::DELETE, "/api/v1/limits/nuke").send().await.unwrap()).await;
    assert!(needed.status == 409 && needed.detail.contains(&format!("Job {}", job.id)), "{}", needed.detail);
    // A job without the limit overtakes.
    let free = farm.submit("1").await;
    assert_eq!(beta.assignment().await.job, free.id);
    for task in &first.tasks {
        alpha.deliver(task).await;
    }
    let left = 2 - u32::try_from(first.tasks.len()).unwrap();
    alpha.renders(left).await;
    farm.reaches(&job, JobState::Completed).await;
    assert_eq!(farm.client.limits().await.unwrap()[0].in_use, 0);
    farm.client.remove_limit("nuke").await.unwrap();
    assert!(farm.client.limits().await.unwrap().is_empty());
    assert!(farm.client.remove_limit("nuke").await.unwrap_err().to_string().contains("no limit"));
}

#[tokio::test]
async fn a_pool_takes_only_its_workers_and_is_kept() {
    let farm = Farm::start().await;
    let _outside = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let inside = FakeWorker::join(&farm, 2, "beta", 1).await;
    let job = farm.submit_with("1", json!({"requirements": {"pool": "night"}})).await;
    let night = || UnmetRequirement::Pool { name: "night".to_owned() };
    let all_lack = |job: JobView| match job.waits_for {
        Some(WaitReason::NoWorkerFits { missing, .. }) => missing,
        other => panic!("{other:?}"),
    };
    assert_eq!(all_lack(farm.client.job(job.id).await.unwrap()), [night()]);
    inside.leave().await;
    let pools = |add: &[&str], remove: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        ChangePools { add: names(add), remove: names(remove) }
    };
    let view = farm.client.change_pools("beta", &pools(&["night", "big"], &[])).await.unwrap();
    assert_eq!(view.pools, ["big", "night"]);
    farm.client.change_pools("beta", &pools(&[], &["big"])).await.unwrap();
    let farm = farm.restart().await;
    let _outside = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let mut inside = FakeWorker::join(&farm, 2, "beta", 1).await;
    assert_eq!(inside.renders(1).await, [job.id]);
    assert_eq!(farm.client.workers().await.unwrap()[1].pools, ["night"]);
    let answer = farm.post("/api/v1/workers/beta/pools", json!({"add": ["a,b"]})).await;
    let refused = problem(answer).await;
    assert!(refused.detail.contains("commas"), "{}", refused.detail);
    // The worker leaves the pool while it is connected.
    farm.client.change_pools("beta", &pools(&[], &["night"])).await.unwrap();
    assert_eq!(all_lack(farm.submit_with("1", json!({"requirements": {"pool": "night"}})).await), [night()]);
}

#[tokio::test]
async fn an_assignment_holds_the_claim_of_its_slot() {
    let farm = Farm::start().await;
    let mut hello = hello(1, "gpus", 2);
    hello.machine.memory = 64 << 30;
    hello.tags = vec!["fast".parse().unwrap()];
    let gpu = |name: &str| kiln_api::DeviceOffer {
        class: DeviceClass::Cuda,
        name: name.to_owned(),
        memory: Some(8 << 30),
    };
    for blender in &mut hello.blenders {
        blender.devices.extend([gpu("first"), gpu("second")]);
    }
    let mut worker = FakeWorker::join_as(&farm, hello).await;

    // By default, each slot has one GPU.
    let each = farm.submit_with("1-2", json!({"device": "cuda", "requirements": {"tags": ["fast"]}})).await;
    let claims = [worker.assignment().await, worker.assignment().await];
    assert!(claims.iter().all(|assignment| assignment.job == each.id));
    let mut gpus: Vec<_> = claims.iter().map(|assignment| assignment.claim.gpus.clone()).collect();
    gpus.sort();
    assert_eq!(gpus, [vec![0], vec![1]]);
    assert!(claims.iter().all(|assignment| assignment.claim.cores == 0));
    for assignment in &claims {
        worker.deliver(&assignment.tasks[0]).await;
    }

    let all =
        farm.submit_with("1", json!({"device": "cuda", "requirements": {"gpus": "all", "cores": 3}})).await;
    let claim = worker.assignment().await;
    assert_eq!((claim.job, claim.claim.gpus.clone()), (all.id, vec![0, 1]));
    assert_eq!(claim.claim.cores, 3);
    worker.deliver(&claim.tasks[0]).await;

    let more =
        farm.submit_with("1", json!({"device": "cuda", "requirements": {"gpu_memory": 9_u64 << 30}})).await;
    assert_eq!(
        more.waits_for.unwrap().to_string(),
        "No worker of the farm has a GPU with 9.0 GiB of memory."
    );
    let none = json!({"requirements": {"gpus": "all"}});
    assert!(farm.refuses(none).await.contains("renders on the processor"));
    let both = json!({"requirements": {"cores": 2, "whole": true}});
    assert!(farm.refuses(both).await.contains("leave one of the two out"));
    assert!(farm.refuses(json!({"requirements": {"cores": 1025}})).await.contains("at most 1024 threads"));
    let many: Vec<String> = (0..65).map(|number| format!("tag {number}")).collect();
    assert!(farm.refuses(json!({"requirements": {"tags": many}})).await.contains("at most 64 tags"));
}

/// A frame that took half of the machine leaves room for one other, also after a restart.
#[tokio::test]
async fn memory_is_learned_from_the_frames_that_are_done() {
    let farm = Farm::start().await;
    let mut hello = hello(1, "alpha", 3);
    hello.machine.memory = 10 << 30;
    let mut worker = FakeWorker::join_as(&farm, hello.clone()).await;
    let job = farm.submit_with("1-9", json!({"held": true, "requirements": {"memory": 9_u64 << 30}})).await;
    farm.client.resume(job.id).await.unwrap();
    let first = worker.assignment().await;
    assert_eq!(first.claim.memory, 9 << 30);
    farm.client.cancel(job.id).await.unwrap();
    worker.leave().await;

    let job = farm.submit("1-9").await;
    let mut worker = FakeWorker::join_as(&farm, hello.clone()).await;
    let assignment = worker.assignment().await;
    worker.deliver_with(&assignment.tasks[0], 4 << 30).await;
    // A number that cannot be is no more than a number.
    let absurd =
        farm.submit_with("1", json!({"scheduling": {"priority": 100, "not_before_ms": i64::MAX}})).await;
    assert_eq!(absurd.state, JobState::Queued);
    farm.client.cancel(absurd.id).await.unwrap();
    worker.leave().await;
    let farm = farm.restart().await;
    let mut worker = FakeWorker::join_as(&farm, hello).await;
    let slots = |farm: &Farm| {
        let client = farm.client.clone();
        async move { client.accounts(AccountKind::User).await.unwrap()[0].slots }
    };
    let assignment = worker.assignment().await;
    assert_eq!(assignment.job, job.id);
    assert!(assignment.claim.memory > 4 << 30);
    assert_eq!(slots(&farm).await, 2, "a third does not fit");
}

#[tokio::test]
async fn a_job_is_on_at_most_its_number_of_workers() {
    let farm = Farm::start().await;
    let job = farm.submit_with("1-9", json!({"scheduling": {"max_workers": 1}})).await;
    let mut alpha = FakeWorker::join(&farm, 1, "alpha", 1).await;
    alpha.assignment().await;
    let mut beta = FakeWorker::join(&farm, 2, "beta", 1).await;
    let other = farm.submit("1").await;
    assert_eq!(beta.renders(1).await, [other.id]);
    let more = ChangeJob { max_workers: Some(None), ..ChangeJob::default() };
    let changed = farm.client.change(job.id, &more).await.unwrap();
    assert_eq!(changed.spec.scheduling.max_workers, None);
    assert_eq!(beta.assignment().await.job, job.id);
}
