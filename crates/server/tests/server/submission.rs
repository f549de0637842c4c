//! The whole way of a submission as a library: no terminal, a real server, and workers that speak the real protocol.

use std::{num::NonZeroU32, path::Path};

use kiln_api::WaitReason;
use kiln_client::{
    Existing, JobFilter, Request,
    submission::{
        EventReceiver, EventSender, FetchTarget, FollowEnd, FollowOptions, JobHome, JobOptions, JobOutcome,
        PlannedSubmission, QuestionTopic, RenderPlace, Stop, Submission, SubmissionEvent, SubmissionMessage,
        SubmissionOptions, SubmittedJob, VariantChoices, VariantRun, VariantsResult, follow_all,
    },
};
use kiln_types::{JobState, RenderSettings};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{FakeWorker, Farm, sample, soon};

/// A person's machine: a .blend, an output folder, and notes of jobs.
struct Desk {
    home: TempDir,
}

impl Desk {
    fn new() -> Self {
        let home = kiln_testkit::temp_dir();
        std::fs::write(home.path().join("shot.blend"), sample()).unwrap();
        Self { home }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }

    fn options(&self, settings: RenderSettings) -> SubmissionOptions {
        let frames = Some("1-2".parse().unwrap());
        SubmissionOptions {
            choices: VariantChoices { files: vec![self.path("shot.blend")], ..VariantChoices::default() },
            request: Request { frames, settings, ..Request::default() },
            out: Some(self.path("out")),
            existing: Existing::Continue,
            job: JobOptions::default(),
            joins_running_job: true,
            data: Some(self.path("data")),
        }
    }

    async fn plan(&self, farm: &Farm, settings: RenderSettings, events: EventSender) -> PlannedSubmission {
        let read = Submission::new(self.options(settings), events).read().await.unwrap();
        read.plan(&RenderPlace::Farm(&farm.client)).await.unwrap()
    }

    /// Plans and submits as the scene says.
    async fn submit(&self, farm: &Farm) -> (SubmittedJob, EventReceiver) {
        let (events, messages) = EventSender::channel();
        let planned = self.plan(farm, RenderSettings::default(), events).await;
        let runs = planned.submit(&farm.client).await.unwrap();
        (jobs(runs).remove(0), messages)
    }

    fn notes(&self) -> usize {
        std::fs::read_dir(self.path("data/jobs")).map_or(0, Iterator::count)
    }
}

fn jobs(runs: Vec<VariantRun>) -> Vec<SubmittedJob> {
    let job = |run| if let VariantRun::Job(job) = run { Some(*job) } else { None };
    runs.into_iter().filter_map(job).collect()
}

fn options(stop: &Stop) -> FollowOptions {
    FollowOptions { home: JobHome::Farm, watches_frames: false, stops_when_held: false, stop: stop.clone() }
}

/// The events that wait, as JSON.
fn events(messages: &mut EventReceiver) -> Vec<Value> {
    let mut all = Vec::new();
    while let Ok(SubmissionMessage::Event(event)) = messages.try_recv() {
        all.push(serde_json::to_value(event).unwrap());
    }
    all
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

fn has(folder: &Path, frame: u32) -> bool {
    folder.join(format!("out/frame_{frame:04}.png")).is_file()
}

#[tokio::test]
async fn a_submission_goes_from_a_blend_to_frames_on_the_disk() {
    let (farm, desk) = (Farm::start().await, Desk::new());
    let (job, mut messages) = desk.submit(&farm).await;
    let id = job.job().id;
    assert_eq!(desk.notes(), 1, "where its frames go is noted");
    let before = events(&mut messages);
    let before = names(&before);
    assert_eq!(before.first(), Some(&"reading"));
    assert_eq!(before[before.len() - 2..], ["uploading", "submitted"], "{before:?}");
    for name in ["hashing", "inputs", "planned"] {
        assert!(before.contains(&name), "{name}: {before:?}");
    }

    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let options = options(&Stop::default());
    let (follow, work) = (job.follow(&options), worker.render(2));
    let (followed, ()) = soon("the end", async { tokio::join!(follow, work) }).await;
    let followed = followed.unwrap();
    assert_eq!((followed.end(), followed.outcome()), (FollowEnd::Ended, JobOutcome::Done));
    let finished = followed.finish().await.unwrap();
    assert_eq!((finished.landed, finished.kept, finished.job.unwrap().id), (2, 0, id));
    assert_eq!(finished.report.unwrap().workers[0].frames, 2);
    let told = events(&mut messages);
    for frame in [1, 2] {
        assert!(has(&desk.path("out"), frame));
        let of_frame =
            |name: &str| told.iter().find(|event| event["event"] == name && event["frame"] == frame);
        assert_eq!(of_frame("frame-finished").unwrap()["worker"], "alpha");
        assert_eq!(of_frame("frame-fetched").unwrap()["result"], "written");
    }
    let last = told.iter().rfind(|event| event["event"] == "progress").unwrap();
    assert_eq!((&last["state"], &last["done"]), (&"completed".into(), &2.into()));
    assert_eq!(desk.notes(), 0, "nothing is left to fetch");

    // The same once more finds its frames, asks nobody, and has nothing to do.
    let planned = desk.plan(&farm, RenderSettings::default(), EventSender::silent()).await;
    assert!(planned.blender().is_none() && planned.left().all(|left| left.is_none()));
    let finished = planned.nothing_left().remove(0).result.unwrap();
    assert_eq!((finished.outcome, finished.kept, finished.job), (JobOutcome::Done, 2, None));
}

#[tokio::test]
async fn a_job_that_was_left_goes_on_and_is_found_again() {
    let (farm, desk) = (Farm::start().await, Desk::new());
    let (job, _messages) = desk.submit(&farm).await;
    let view = job.job().clone();
    let stop = Stop::default();
    stop.stop();
    let followed = soon("the stop", job.follow(&options(&stop))).await.unwrap();
    assert_eq!((followed.end(), followed.outcome()), (FollowEnd::Detached, JobOutcome::Detached));
    let finished = followed.finish().await.unwrap();
    assert!(finished.report.is_none() && finished.landed == 0);
    assert_eq!(desk.notes(), 1, "it is to be fetched");

    // The same joins it, and makes no other.
    let (again, mut messages) = desk.submit(&farm).await;
    assert_eq!(again.job().id, view.id);
    let told = events(&mut messages);
    let joined = told.iter().find(|event| event["event"] == "already-rendering").unwrap();
    assert_eq!((&joined["others"], &joined["frames"]), (&"none".into(), &2.into()));
    assert_eq!(told.last().unwrap()["new"], false);

    // What it made meanwhile is fetched before anything else is done.
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    soon("the frames", worker.render(2)).await;
    farm.reaches(&view, JobState::Completed).await;
    let (events_of_plan, mut messages) = EventSender::channel();
    let planned = desk.plan(&farm, RenderSettings::default(), events_of_plan).await;
    assert!(planned.blender().is_none());
    let told = events(&mut messages);
    let fetched = told.iter().find(|event| event["event"] == "earlier-fetched").unwrap();
    assert_eq!(fetched["frames"], 2);
    assert!(has(&desk.path("out"), 1) && has(&desk.path("out"), 2) && desk.notes() == 0);

    // And elsewhere by its number alone.
    let target = FetchTarget::open(desk.path("far"), "shot", Existing::Continue, false).await.unwrap();
    let attached = SubmittedJob::attach(farm.client.clone(), view, Some(target), None, EventSender::silent());
    let totals = attached.fetch().await.unwrap().unwrap();
    assert!((totals.fetched, totals.there) == (2, 0) && totals.is_whole());
    assert!(has(&desk.path("far"), 2));
}

#[tokio::test]
async fn a_job_with_other_settings_is_cancelled_where_the_answer_is_yes() {
    let (farm, desk) = (Farm::start().await, Desk::new());
    let (job, _messages) = desk.submit(&farm).await;
    let first = job.leave();
    let other = || RenderSettings { samples: Some(1), ..RenderSettings::default() };

    // Where nobody can be asked, it is named.
    let (sender, mut messages) = EventSender::channel();
    let nobody = async {
        let mut named = false;
        while let Some(message) = messages.recv().await {
            let SubmissionMessage::Event(told) = message else { continue };
            named |= matches!(told.event, SubmissionEvent::OtherJob(_));
        }
        named
    };
    let plan = async { drop(desk.plan(&farm, other(), sender).await) };
    let ((), named) = soon("the plan", async { tokio::join!(plan, nobody) }).await;
    assert!(named && !farm.client.job(first.id).await.unwrap().state.is_end());

    let (sender, mut messages) = EventSender::channel();
    let person = async {
        let mut asked = 0;
        while let Some(message) = messages.recv().await {
            if let SubmissionMessage::Question(question) = message {
                assert!(
                    matches!(&question.topic, QuestionTopic::CancelOtherJob(other) if other.job == first.id)
                );
                question.answer(true);
                asked += 1;
            }
        }
        asked
    };
    let plan = async { drop(desk.plan(&farm, other(), sender).await) };
    let ((), asked) = soon("the plan", async { tokio::join!(plan, person) }).await;
    assert_eq!(asked, 1);
    farm.reaches(&first, JobState::Cancelled).await;
}

#[tokio::test]
async fn variants_are_jobs_of_their_own_with_folders_of_their_own() {
    let (farm, desk) = (Farm::start().await, Desk::new());
    std::fs::copy(desk.path("shot.blend"), desk.path("other.blend")).unwrap();
    let both = || {
        let files = ["shot", "other"].map(|name| desk.path(&format!("{name}.blend")));
        let mut options = desk.options(RenderSettings::default());
        options.choices.files = files.into();
        options
    };
    let plan = async |options: SubmissionOptions, events: EventSender| {
        let read = Submission::new(options, events).read().await.unwrap();
        read.plan(&RenderPlace::Farm(&farm.client)).await
    };

    // Files in one folder would overwrite each other: nothing is begun.
    let same = SubmissionOptions { out: Some(desk.path("{scene}")), ..both() };
    let refused = plan(same, EventSender::silent()).await.err().unwrap().to_string();
    assert!(refused.contains("shot and other would both write"), "{refused}");
    assert!(
        !desk.path("Scene").exists()
            && farm.client.jobs(&JobFilter::default()).await.unwrap().jobs.is_empty()
    );

    // A plan that is dropped leaves no folder behind.
    drop(plan(both(), EventSender::silent()).await.unwrap());
    assert!(!desk.path("out").exists());

    let (sender, mut messages) = EventSender::channel();
    let planned = plan(both(), sender).await.unwrap();
    let jobs = jobs(planned.submit(&farm.client).await.unwrap());
    assert_eq!(jobs.iter().map(|job| job.job().name.as_str()).collect::<Vec<_>>(), ["shot", "other"]);
    let told = events(&mut messages);
    let submitted: Vec<&Value> = told.iter().filter(|event| event["event"] == "submitted").collect();
    assert_eq!((&submitted[0]["variant"], &submitted[1]["variant"]), (&"shot".into(), &"other".into()));
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let options = options(&Stop::default());
    let (follow, work) = (follow_all(jobs, &options), worker.render(4));
    let (followed, ()) = soon("the end", async { tokio::join!(follow, work) }).await;
    let mut results = Vec::new();
    for one in followed {
        results.push(one.finish().await);
    }
    let all = VariantsResult::of(&results);
    assert_eq!((all.outcome, all.variants.len()), (JobOutcome::Done, 2));
    for variant in ["shot", "other"] {
        assert!(has(&desk.path("out").join(variant), 2));
    }

    let again = plan(both(), EventSender::silent()).await.unwrap();
    assert!(again.blender().is_none(), "every variant is there");
    let all = VariantsResult::of(&again.nothing_left());
    assert_eq!((all.outcome, all.variants[1].frames), (JobOutcome::Done, 2));
}

#[tokio::test]
async fn a_job_is_held_after_its_first_frames_also_over_a_restart() {
    let (farm, desk) = (Farm::start().await, Desk::new());
    let mut asked = desk.options(RenderSettings::default());
    asked.job.hold_after = NonZeroU32::new(1);
    let read = Submission::new(asked, EventSender::silent()).read().await.unwrap();
    let planned = read.plan(&RenderPlace::Farm(&farm.client)).await.unwrap();
    let job = jobs(planned.submit(&farm.client).await.unwrap()).remove(0).leave();
    assert_eq!(job.spec.hold, Some("1".parse().unwrap()));
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 2).await;
    soon("the first frame", worker.render(1)).await;
    farm.reaches(&job, JobState::Paused).await;
    let held = farm.client.job(job.id).await.unwrap();
    assert_eq!(held.waits_for, Some(WaitReason::Held { job: job.id, frames: 1 }));
    assert_eq!((held.tasks.done, held.tasks.waiting), (1, 1));

    drop(worker);
    let farm = farm.restart().await;
    let held = farm.client.job(job.id).await.unwrap();
    assert_eq!((held.state, held.tasks.done), (JobState::Paused, 1));
    farm.client.resume(job.id).await.unwrap();
    let farm = farm.restart().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 2).await;
    soon("the other frame", worker.render(1)).await;
    farm.reaches(&job, JobState::Completed).await;
    assert_eq!(farm.client.job(job.id).await.unwrap().spec.hold, None);
}
