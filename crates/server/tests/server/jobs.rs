//! Jobs from the first frame to the last, and every command.

use std::collections::VecDeque;

use kiln_api::{AttemptReport, Change, Up};
use kiln_client::{AttemptFilter, JobFilter};
use kiln_types::{
    Blank, BlobHash, Failure, FailureCause, Generation, HeldPhase, JobState, NotFinite, Owner, PixelReport,
    Project, ReportOutcome, Suspicion, TaskFile, TaskState,
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{FakeWorker, Farm, held, hello, picture, problem, soon};

#[tokio::test]
async fn a_job_is_rendered_and_fetched() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = farm.submit("3-1").await;
    let assignment = worker.assignment().await;
    assert_eq!((assignment.job, assignment.work.session.as_ref()), (job.id, Some(&job.spec.session)));
    let first = assignment.tasks[0].clone();
    assert_eq!(first.frame, Some(3));
    worker.say(Up::Started { attempt: first.attempt }).await;
    worker.say(Up::Log { attempt: first.attempt, text: "Fra:3 Mem\n".to_owned() }).await;
    worker.say(Up::Progress { attempt: first.attempt, fraction: 0.25 }).await;
    worker.say(Up::Notices { job: job.id, texts: vec!["A video as frames.".to_owned(); 3] }).await;

    // While it runs: log, progress, notice. The log's attempt is in the records once the start is told.
    let running = farm.reaches(&job, JobState::Running).await;
    assert_eq!((running.tasks.running, running.workers_busy), (1, 1));
    let said = async {
        loop {
            let view = farm.client.workers().await.unwrap().remove(0);
            if view.running.first().is_some_and(|running| running.fraction == Some(0.25)) {
                return view;
            }
        }
    };
    let worker_view = soon("the progress", said).await;
    assert!(!worker_view.running[0].estimated && worker_view.running[0].name.frame == Some(3));
    assert_eq!(farm.client.attempt_log(job.id, first.attempt).await.unwrap(), "Fra:3 Mem\n");
    let text = farm.get(&format!("/api/v1/jobs/{}/logs?frame=3", job.id)).await.text().await.unwrap();
    assert!(text.starts_with("== frame 3, attempt ") && text.ends_with("Fra:3 Mem\n"), "{text}");

    assert_eq!(worker.deliver(&first).await, ReportOutcome::Committed);
    // The file can be fetched as soon as it is committed, while other frames wait.
    let path = format!("/api/v1/jobs/{}/files/out/frame_0003.png", job.id);
    let answer = farm.get(&path).await;
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert_eq!(answer.bytes().await.unwrap(), picture(&first).1);
    // A second delivery is answered, and changes nothing.
    assert_eq!(worker.deliver(&first).await, ReportOutcome::Superseded);

    let mut left: Vec<_> = assignment.tasks[1..].to_vec();
    while left.len() < 2 {
        left.extend(worker.assignment().await.tasks);
    }
    for task in &left {
        worker.say(Up::Started { attempt: task.attempt }).await;
        assert_eq!(worker.deliver(task).await, ReportOutcome::Committed);
    }
    let done = farm.reaches(&job, JobState::Completed).await;
    assert_eq!(
        (done.tasks.done, done.tasks.total, done.notices.as_slice()),
        (3, 3, &["A video as frames.".to_owned()][..])
    );
    assert_eq!(done.mean_frame_s, Some(0.5));
    let outputs = farm.client.outputs(job.id, 0).await.unwrap();
    assert_eq!(outputs.outputs.iter().map(|output| output.frame).collect::<Vec<_>>(), [3, 2, 1]);
    assert!(!outputs.more);
    let after = outputs.outputs[1].sequence;
    assert_eq!(farm.client.outputs(job.id, after).await.unwrap().outputs.len(), 1);
    let page = farm.get(&format!("/api/v1/jobs/{}/outputs?limit=2", job.id)).await;
    let page: kiln_api::OutputsPage = page.json().await.unwrap();
    assert!(page.more && page.outputs.len() == 2);
    let report = farm.client.report(job.id).await.unwrap();
    assert_eq!((report.workers[0].frames, report.workers[0].worker.as_str()), (3, "alpha"));
    assert!((report.render_s - 1.5).abs() < 1e-9);
}

#[tokio::test]
async fn a_suspicious_frame_is_reported_until_it_is_rendered_again() {
    let black = PixelReport { blank: Some(Blank::Black), not_finite: 0 };
    let wild = PixelReport { blank: None, not_finite: 12 };
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let mut events = farm.client.events(None, None).await.unwrap();
    let job = farm.submit("1-3").await;
    let mut tasks = VecDeque::new();
    for pixels in [black, PixelReport::default(), wild] {
        if tasks.is_empty() {
            tasks.extend(worker.assignment().await.tasks);
        }
        let task = tasks.pop_front().unwrap();
        worker.say(Up::Started { attempt: task.attempt }).await;
        assert_eq!(worker.deliver_pixels(&task, pixels).await, ReportOutcome::Committed);
    }
    farm.reaches(&job, JobState::Completed).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        if let Change::TaskDone { suspicious, .. } = soon("an event", events.next()).await.unwrap().change {
            told.push(suspicious);
        }
    }
    assert_eq!(told, [vec![Suspicion::Black], vec![], vec![Suspicion::NotFinite { pixels: 12, path: None }]]);

    // The pixel reports outlive a restart.
    worker.leave().await;
    let farm = farm.restart().await;
    let report = farm.client.report(job.id).await.unwrap().suspicious;
    assert_eq!(report.black.map(|frames| frames.to_string()).as_deref(), Some("1"));
    assert_eq!(report.most_not_finite, Some(NotFinite { frame: 3, pixels: 12, path: None }));
    let outputs = farm.client.outputs(job.id, 0).await.unwrap().outputs;
    let pixels: Vec<_> = outputs.iter().map(|output| output.files.files()[0].pixels).collect();
    assert_eq!(pixels, [black, PixelReport::default(), wild]);

    // The frame is suspicious until it is rendered again.
    farm.client.rerender(job.id, Some("1".parse().unwrap())).await.unwrap();
    assert!(farm.client.report(job.id).await.unwrap().suspicious.black.is_some());
    FakeWorker::join(&farm, 1, "alpha", 1).await.render(1).await;
    let report = farm.client.report(job.id).await.unwrap().suspicious;
    assert_eq!((report.black, report.not_finite.map(|frames| frames.to_string())), (None, Some("3".into())));
}

#[tokio::test]
async fn a_report_that_is_no_output_set_fails_its_attempt() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = farm.submit("1").await;
    let first = worker.assignment().await.tasks.remove(0);
    let (outputs, bytes) = picture(&first);
    farm.client.put_blob_bytes(BlobHash::of(&bytes), bytes).await.unwrap();
    let file = TaskFile::from(outputs.files()[0].clone());
    let bare = TaskFile { picture: None, ..file.clone() };
    // One file twice, a picture beside a file that is none, and no file: each in an attempt of its own.
    let mut task = Some(first);
    for files in [vec![file.clone(), file.clone()], vec![file, bare], Vec::new()] {
        let task = match task.take() {
            Some(task) => task,
            None => worker.assignment().await.tasks.remove(0),
        };
        worker.say(Up::Started { attempt: task.attempt }).await;
        let finish = AttemptReport::Done { files, seconds: 1.0, peak_memory: 1 };
        assert_eq!(worker.report(&task, finish).await, ReportOutcome::Recorded);
        let page = farm.client.attempts(job.id, &AttemptFilter::default()).await.unwrap();
        let failed = page.attempts.iter().find(|attempt| attempt.id == task.attempt).unwrap();
        assert_eq!(failed.failure.as_ref().unwrap().cause, FailureCause::HostMisbehaved);
        if farm.client.job(job.id).await.unwrap().state == JobState::Failed {
            farm.client.retry(job.id).await.unwrap();
        }
    }
    let task = worker.assignment().await.tasks.remove(0);
    worker.say(Up::Started { attempt: task.attempt }).await;
    assert_eq!(worker.deliver(&task).await, ReportOutcome::Committed);
}

#[tokio::test]
async fn files_that_were_never_sent_are_no_delivery() {
    let farm = Farm::start().await;
    let mut liar = FakeWorker::join(&farm, 1, "liar", 1).await;
    let job = farm.submit("1").await;
    let task = liar.assignment().await.tasks.remove(0);
    liar.say(Up::Started { attempt: task.attempt }).await;
    let (outputs, _) = picture(&task);
    let finish = AttemptReport::Done { files: outputs.into(), seconds: 1.0, peak_memory: 0 };
    assert_eq!(liar.report(&task, finish).await, ReportOutcome::Recorded);
    let page = farm.get(&format!("/api/v1/jobs/{}/attempts?frame=1", job.id)).await;
    let page: kiln_api::AttemptsPage = page.json().await.unwrap();
    let failed = page.attempts.iter().find(|attempt| attempt.id == task.attempt).unwrap();
    assert_eq!(failed.failure.as_ref().unwrap().cause, FailureCause::BadOutput);
    assert_eq!(farm.get(&format!("/api/v1/jobs/{}/files/out/frame_0001.png", job.id)).await.status(), 404);
    // The frame is tried again and delivered.
    liar.render(1).await;
    farm.reaches(&job, JobState::Completed).await;
}

#[tokio::test]
async fn work_survives_a_restart_of_the_server() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 2).await;
    let job = farm.submit("1-2").await;
    let (one, two) = (worker.assignment().await, worker.assignment().await);
    let (first, second) = (one.tasks[0].clone(), two.tasks[0].clone());
    for task in [&first, &second] {
        worker.say(Up::Started { attempt: task.attempt }).await;
    }
    farm.reaches(&job, JobState::Running).await;
    let epoch = worker.welcome.epoch;
    let farm = farm.restart().await;

    // One has finished meanwhile, the other still renders. Neither starts again.
    let mut hello = hello(1, "alpha", 2);
    hello.held = vec![
        held(&one, &first, |slot| HeldPhase::Finished { slot }),
        held(&two, &second, |slot| HeldPhase::Running { slot }),
    ];
    let mut worker = FakeWorker::join_as(&farm, hello).await;
    assert!(worker.welcome.epoch > epoch);
    assert_eq!(worker.deliver(&first).await, ReportOutcome::Committed);
    assert_eq!(worker.deliver(&second).await, ReportOutcome::Committed);
    farm.reaches(&job, JobState::Completed).await;
    let attempts: kiln_api::AttemptsPage =
        farm.get(&format!("/api/v1/jobs/{}/attempts", job.id)).await.json().await.unwrap();
    assert_eq!(attempts.attempts.len(), 2);
}

#[tokio::test]
async fn pause_and_resume() {
    let farm = Farm::start().await;
    let job = farm.submit("1-2").await;
    farm.client.pause(job.id).await.unwrap();
    assert_eq!(farm.client.job(job.id).await.unwrap().state, JobState::Paused);
    let farm = farm.restart().await;
    assert_eq!(farm.client.job(job.id).await.unwrap().state, JobState::Paused);
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    farm.client.resume(job.id).await.unwrap();
    worker.render(2).await;
    farm.reaches(&job, JobState::Completed).await;
}

#[tokio::test]
async fn cancel_then_retry_then_delete() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = farm.submit("1-3").await;
    let assignment = worker.assignment().await;
    let task = assignment.tasks[0].clone();
    worker.say(Up::Started { attempt: task.attempt }).await;
    worker.say(Up::Log { attempt: task.attempt, text: "begun\n".to_owned() }).await;
    assert_eq!(worker.deliver(&task).await, ReportOutcome::Committed);
    let refused =
        problem(farm.request(Method::DELETE, &format!("/api/v1/jobs/{}", job.id)).send().await.unwrap())
            .await;
    assert!(refused.status == 409 && refused.detail.contains("cancel"), "{}", refused.detail);

    farm.client.cancel(job.id).await.unwrap();
    let cancelled = farm.reaches(&job, JobState::Cancelled).await;
    assert_eq!((cancelled.tasks.done, cancelled.tasks.cancelled), (1, 2));
    assert_eq!(
        problem(farm.post(&format!("/api/v1/jobs/{}/cancel", job.id), json!({})).await).await.status,
        409
    );
    let tasks = farm.client.tasks(job.id, None, None, None).await.unwrap().tasks;
    let states: Vec<TaskState> = tasks.iter().map(|task| task.state).collect();
    assert_eq!(states, [TaskState::Done, TaskState::Cancelled, TaskState::Cancelled]);

    // A retry after a restart reads the job from the records.
    let farm = farm.restart().await;
    assert_eq!(farm.client.job(job.id).await.unwrap().tasks, cancelled.tasks);
    farm.client.retry(job.id).await.unwrap();
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    worker.render(2).await;
    farm.reaches(&job, JobState::Completed).await;
    let logs = farm.data.path().join("logs").join(job.id.to_string());
    assert!(logs.exists());
    farm.client.delete(job.id, false).await.unwrap();
    assert_eq!(farm.get(&format!("/api/v1/jobs/{}", job.id)).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(
        farm.post(&format!("/api/v1/jobs/{}/retry", job.id), json!({})).await.status(),
        StatusCode::NOT_FOUND
    );
    // Ids are never used again.
    assert_eq!(farm.submit("1").await.id.0, job.id.0 + 1);
    assert!(!logs.exists());
}

#[tokio::test]
async fn delete_by_force_revokes_its_attempts() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = farm.submit("1").await;
    let task = worker.assignment().await.tasks.remove(0);
    worker.say(Up::Started { attempt: task.attempt }).await;
    let path = format!("/api/v1/jobs/{}?force=true", job.id);
    assert_eq!(farm.request(Method::DELETE, &path).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert!(matches!(worker.next().await, kiln_api::Down::Revoke { attempt, .. } if attempt == task.attempt));
    let late = worker.deliver(&task).await;
    assert!(matches!(late, ReportOutcome::Superseded | ReportOutcome::Unknown), "{late:?}");
    // The slot is free again.
    let next = farm.submit("7").await;
    worker.render(1).await;
    farm.reaches(&next, JobState::Completed).await;
}

#[tokio::test]
async fn rerender_and_extend() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = farm.submit("1-2").await;
    worker.render(2).await;
    farm.reaches(&job, JobState::Completed).await;
    let verb = |verb: &str| format!("/api/v1/jobs/{}/{verb}", job.id);
    let refused = problem(farm.post(&verb("rerender"), json!({"frames": "9"})).await).await;
    assert!(refused.status == 422 && refused.detail.contains("Frame 9"), "{}", refused.detail);
    assert_eq!(problem(farm.post(&verb("retry"), json!({})).await).await.status, 409);

    farm.client.rerender(job.id, Some("2".parse().unwrap())).await.unwrap();
    worker.render(1).await;
    farm.reaches(&job, JobState::Completed).await;
    let outputs = farm.client.outputs(job.id, 0).await.unwrap().outputs;
    assert_eq!(
        outputs.iter().map(|o| (o.frame, o.generation.0)).collect::<Vec<_>>(),
        [(1, 0), (2, 0), (2, 1)]
    );
    let text = farm.get(&verb("files/out/frame_0002.png")).await.text().await.unwrap();
    assert_eq!(text, "frame 2 generation 1");

    farm.client.extend(job.id, "2-4".parse().unwrap()).await.unwrap();
    worker.render(2).await;
    let done = farm.reaches(&job, JobState::Completed).await;
    assert_eq!((done.spec.frames.to_string().as_str(), done.tasks.done), ("1-2,3-4", 4));
    farm.client.rerender(job.id, None).await.unwrap();
    worker.render(4).await;
    let done = farm.reaches(&job, JobState::Completed).await;
    let tasks = farm.client.tasks(done.id, None, None, None).await.unwrap().tasks;
    assert_eq!(tasks[1].generation, Generation(2));
}

#[tokio::test]
async fn a_fault_of_the_job_stops_it() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = farm.submit("1-50").await;
    let task = worker.assignment().await.tasks.remove(0);
    worker.say(Up::Started { attempt: task.attempt }).await;
    let failure = Failure::new(FailureCause::NoCamera, "The scene has no camera.");
    assert_eq!(
        worker.report(&task, AttemptReport::Failed { failure, seconds: 0.1 }).await,
        ReportOutcome::Recorded
    );
    let failed = farm.reaches(&job, JobState::Failed).await;
    assert_eq!(failed.reason.unwrap().message, "The scene has no camera.");
    assert_eq!((failed.tasks.failed, failed.tasks.cancelled), (1, 49));
}

/// A scene whose script names every frame's file alike: the second must not take the first one's place.
#[tokio::test]
async fn two_frames_cannot_deliver_one_file() {
    let farm = Farm::start().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let job = farm.submit("1-2").await;
    let mut tasks = worker.assignment().await.tasks;
    if tasks.len() < 2 {
        tasks.extend(worker.assignment().await.tasks);
    }
    let (outputs, bytes) = picture(&tasks[0]);
    farm.client.put_blob_bytes(outputs.files()[0].hash, bytes.clone()).await.unwrap();
    let finish = AttemptReport::Done { files: outputs.into(), seconds: 0.5, peak_memory: 1 };
    assert_eq!(worker.report(&tasks[0], finish.clone()).await, ReportOutcome::Committed);

    // Frame 2 says the same file, after a restart, which knows of it by the records alone. So would every other.
    worker.leave().await;
    let farm = farm.restart().await;
    let mut worker = FakeWorker::join(&farm, 1, "alpha", 1).await;
    let again = worker.assignment().await.tasks[0].clone();
    assert_eq!(
        (again.frame, worker.report(&again, finish.clone()).await),
        (Some(2), ReportOutcome::Recorded)
    );
    let failed = farm.reaches(&job, JobState::Failed).await;
    let reason = failed.reason.unwrap();
    assert_eq!((reason.cause, failed.tasks.done), (FailureCause::SamePath, 1));
    let text = reason.message;
    assert!(
        text.contains("Frame 2 wrote out/frame_0001.png, which frame 1 of this job has delivered"),
        "{text}"
    );
}

#[tokio::test]
async fn a_list_shows_the_jobs_that_are_asked_for() {
    let farm = Farm::start().await;
    let upload = farm.upload().await;
    let of = async |user: &str, project: &str| {
        let body =
            json!({"source": {"upload": {"id": upload}}, "frames": "1", "user": user, "project": project});
        let answer = farm.post("/api/v1/jobs", body).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        answer.json::<kiln_api::JobView>().await.unwrap().id
    };
    let (first, second) = (of("ana", "short & more").await, of("ana", "advert").await);
    let (third, fourth) = (of("ben", "short & more").await, of("ben", "advert").await);
    farm.client.cancel(third).await.unwrap();
    farm.client.pause(fourth).await.unwrap();

    let list = async |which: JobFilter| {
        let page = farm.client.jobs(&which).await.unwrap();
        page.jobs.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    let (user, project) = (
        |name: &str| Some(name.parse::<Owner>().unwrap()),
        |name: &str| Some(name.parse::<Project>().unwrap()),
    );
    let open: Vec<JobState> = JobState::ALL.iter().copied().filter(|state| !state.is_end()).collect();
    assert_eq!(list(JobFilter::default()).await, [fourth, third, second, first]);
    let which = JobFilter { states: open.clone(), ..JobFilter::default() };
    assert_eq!(list(which.clone()).await, [fourth, second, first]);
    assert_eq!(list(JobFilter { limit: Some(1), before: Some(fourth), ..which.clone() }).await, [second]);
    assert_eq!(list(JobFilter { user: user("ben"), ..which.clone() }).await, [fourth]);
    assert_eq!(list(JobFilter { project: project("short & more"), ..which }).await, [first]);
    let which = JobFilter { user: user("ana"), project: project("advert"), ..JobFilter::default() };
    assert_eq!(list(which).await, [second]);
    let which = JobFilter { states: vec![JobState::Cancelled], ..JobFilter::default() };
    assert_eq!(list(which).await, [third]);
    assert!(list(JobFilter { user: user("nobody"), ..JobFilter::default() }).await.is_empty());

    let answer = farm.get("/api/v1/jobs?state=paused,queued,paused&user=ben").await;
    let page: kiln_api::JobList = answer.json().await.unwrap();
    assert_eq!(page.jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [fourth]);
}
