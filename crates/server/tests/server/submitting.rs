//! Submissions that are refused before anything starts.

use kiln_api::{JobView, ProblemCode, WaitReason};
use kiln_client::JobFilter;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Farm, problem, sample};

#[tokio::test]
async fn only_the_source_is_needed() {
    let farm = Farm::start().await;
    let id = farm.upload().await;
    let answer = farm.post("/api/v1/jobs", json!({"source": {"upload": {"id": id}}})).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let job: JobView = answer.json().await.unwrap();
    assert_eq!((job.id.0, job.name.as_str()), (1, "shot"));
    assert_eq!(job.spec.session.blender, job.spec.written_by.series());
    assert!(job.tasks.total > 1 && job.tasks.total == job.tasks.waiting, "{:?}", job.tasks);
    assert_eq!(job.tasks.total, job.spec.frames.len());
    assert_eq!(job.waits_for, Some(WaitReason::NoWorker));
}

#[tokio::test]
async fn impossible_choices_are_refused_with_the_possible_ones() {
    let farm = Farm::start().await;
    let id = farm.upload().await;
    let check = async |change: Value, words: &[&str]| {
        let mut request = json!({"source": {"upload": {"id": id}}});
        request.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let refused = problem(farm.post("/api/v1/jobs", request).await).await;
        let known = [ProblemCode::BadRequest, ProblemCode::Unprocessable];
        assert!(known.contains(&refused.code), "{change}: {} ({:?})", refused.detail, refused.code);
        for word in words {
            assert!(refused.detail.contains(word), "{change}: {}", refused.detail);
        }
    };
    check(json!({"settings": {"scene": "Nowhere"}}), &["Nowhere", "its scenes are"]).await;
    check(json!({"settings": {"camera": "Eye"}}), &["Eye", "its cameras are"]).await;
    check(json!({"settings": {"view_layer": "None"}}), &["its view layers are", "ViewLayer"]).await;
    check(json!({"settings": {"samples": 0}}), &["Samples"]).await;
    let reserved = json!({"settings": {"properties": {"render.resolution_x": 64}}});
    check(reserved, &["render.resolution_x", "--resolution"]).await;
    let twice = json!({"settings": {"properties": {"gravity[2]": 0, "gravity": [0, 0, 0]}}});
    check(twice, &["gravity"]).await;
    check(json!({"blender": "2.93"}), &["3.4", "older"]).await;
    check(json!({"frames": "1-2000000000"}), &["2000000000"]).await;
    let repeats = ["1-1048574"; 65].join(",");
    check(json!({"frames": repeats}), &["several jobs"]).await;
    check(json!({"frames": ""}), &["empty"]).await;
    check(json!({"frames": "one"}), &["one"]).await;
    check(json!({"frame_time_limit_s": 0}), &["second"]).await;
    check(json!({"hang_s": 59}), &["twice a minute", "60 seconds"]).await;
    check(json!({"name": ""}), &["cannot be a name: it is empty"]).await;
    check(json!({"ocio": "_ocio/config.ocio"}), &["holds no _ocio/config.ocio"]).await;
    check(json!({"ocio": "../config.ocio"}), &[]).await;
    check(json!({"addons": ["shot.blend"]}), &["trust"]).await;
    let trusted = json!({"addons": ["_addons/kit"], "policy": {"scripts": "trust"}});
    check(trusted, &["holds no _addons/kit"]).await;
    check(json!({"source": {"bundle": {"id": "a", "blend": "../x.blend"}}}), &[]).await;
    assert!(farm.client.jobs(&JobFilter::default()).await.unwrap().jobs.is_empty());
}

#[tokio::test]
async fn files_and_folders_may_have_any_name() {
    let farm = Farm::start().await;
    let bundle = farm.submit("1").await.spec.session.bundle;
    let submit = async |origin: &str, file_name: &str| {
        let source = json!({"id": bundle, "blend": "shot.blend", "origin": origin, "file_name": file_name});
        farm.post("/api/v1/jobs", json!({"source": {"bundle": source}})).await
    };
    let answer = submit("/fi\nlm/\0e9", "sh\u{1b}[31m\0e9ot.blend").await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let job: JobView = answer.json().await.unwrap();
    assert_eq!(job.spec.session.origin.as_deref(), Some("/fi\nlm/\0e9"));
    assert_eq!(job.spec.session.own_stem(), "sh\u{1b}[31m\0e9ot");
    for (origin, name) in [("/a\0b", "a.blend"), ("/a", "b/a.blend"), ("/a", ""), ("/a", "a\0.blend")] {
        let refused = problem(submit(origin, name).await).await;
        assert_eq!(refused.code, ProblemCode::Unprocessable, "{origin:?} {name:?}: {}", refused.detail);
    }
}

#[tokio::test]
async fn an_uploaded_file_keeps_a_name_that_no_bundle_holds() {
    let farm = Farm::start().await;
    let id = farm.upload_as("shots/sh\not.blend", sample()).await;
    let answer = farm.post("/api/v1/jobs", json!({"source": {"upload": {"id": id}}})).await;
    assert_eq!(answer.status(), StatusCode::CREATED);
    let job: JobView = answer.json().await.unwrap();
    assert_eq!((job.name.as_str(), job.spec.session.blend.as_str()), ("scene", "scene.blend"));
    assert_eq!(job.spec.session.file_name.as_deref(), Some("sh\not.blend"));
}

#[tokio::test]
async fn a_newer_blender_stays_visible() {
    let farm = Farm::start().await;
    let id = farm.upload().await;
    let answer = farm.post("/api/v1/jobs", json!({"source": {"upload": {"id": id}}, "blender": "5.0"})).await;
    let job: JobView = answer.json().await.unwrap();
    assert_eq!(job.spec.session.blender.to_string(), "5.0");
    assert_eq!(job.spec.written_by.series().to_string(), "3.4");
}

#[tokio::test]
async fn sources_that_are_not_there() {
    let farm = Farm::start().await;
    let hash = "a".repeat(64);
    for (source, status) in [
        (json!({"upload": {"id": "00000000000000aa"}}), 404),
        (json!({"bundle": {"id": hash, "blend": "a.blend"}}), 404),
    ] {
        assert_eq!(problem(farm.post("/api/v1/jobs", json!({"source": source})).await).await.status, status);
    }
    let begun = farm.post("/api/v1/uploads", json!({"name": "x.blend"})).await.json::<Value>().await.unwrap();
    let unfinished = json!({"source": {"upload": {"id": begun["id"]}}});
    assert_eq!(problem(farm.post("/api/v1/jobs", unfinished).await).await.code, ProblemCode::Conflict);
}
