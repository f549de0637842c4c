//! Requests that schemathesis derives from the OpenAPI document, valid and invalid ones, to a server that has jobs and a
//! worker: every answer must be documented. In parts, which run in parallel.
//!
//! By hand, with other requests and more of them: `KILN_SCHEMATHESIS="SEED EXAMPLES"`.

use std::{path::PathBuf, process::Stdio, time::Duration};

use kiln_api::Up;
use kiln_types::BlobHash;
use serde_json::{Value, json};

use crate::support::{FakeWorker, Farm, sample};

const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemathesis.toml");
/// The requests are the same each time.
const SEED: &str = "1";
/// Requests of each operation, besides those that follow from its schema alone.
const EXAMPLES: &str = "8";
/// The time after which a part is taken to hang.
const LIMIT: Duration = Duration::from_secs(110);

/// A farm in which every path exists.
struct Living {
    farm: Farm,
    worker: FakeWorker,
    /// The document, with existing names and ids as examples.
    document: Value,
}

impl Living {
    async fn start() -> Self {
        let farm = Farm::start().await;
        let job = farm.submit("1-4").await;
        let mut worker = FakeWorker::join(&farm, 9, "rack", 1).await;
        let assignment = worker.assignment().await;
        let task = assignment.tasks[0].clone();
        worker.say(Up::Started { attempt: task.attempt }).await;
        worker.say(Up::Log { attempt: task.attempt, text: "Fra:1 Mem:1M\n".to_owned() }).await;
        worker.deliver(&task).await;
        for (kind, name) in [("users", "ada"), ("projects", "film")] {
            let path = format!("/api/v1/{kind}/{name}");
            let set = farm.request(reqwest::Method::PUT, &path).json(&json!({"weight": 200}));
            assert!(set.send().await.unwrap().status().is_success());
        }
        let limit = farm.request(reqwest::Method::PUT, "/api/v1/limits/nuke").json(&json!({"total": 3}));
        assert!(limit.send().await.unwrap().status().is_success());
        let outputs: Value = farm.get("/api/v1/jobs/1/outputs").await.json().await.unwrap();
        let output = &outputs["outputs"][0]["files"][0];
        let (finished, begun) =
            (farm.upload().await, farm.post("/api/v1/uploads", json!({"name": "a"})).await);
        let begun: Value = begun.json().await.unwrap();
        let bundle = job.spec.session.bundle;
        let attempt = task.attempt.to_string();
        let example = |path: &str, name: &str| match (name, path.split('/').nth(3).unwrap_or_default()) {
            ("id", "jobs") => Some(json!(job.id)),
            ("id", "bundles") => Some(json!(bundle)),
            ("id", "uploads") => Some(begun["id"].clone()),
            ("name", "workers") => Some(json!("rack")),
            ("name", "users") => Some(json!("ada")),
            ("name", "projects") => Some(json!("film")),
            ("name", "limits") => Some(json!("nuke")),
            ("hash", _) => Some(output["hash"].clone()),
            ("path", _) => Some(output["path"].clone()),
            ("attempt", _) => Some(json!(attempt)),
            ("Upload-Offset" | "since", _) => Some(json!(0)),
            _ => None,
        };
        let mut document: Value = serde_json::from_str(&kiln_server::openapi_json()).unwrap();
        for (path, item) in document["paths"].as_object_mut().unwrap() {
            for (_, operation) in item.as_object_mut().unwrap() {
                let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
                for parameter in parameters.into_iter().flatten() {
                    if let Some(value) = example(path, parameter["name"].as_str().unwrap()) {
                        parameter["example"] = value;
                    }
                }
            }
        }
        // In a build for tests, a job of all two million frames takes seconds.
        let few = "[0-9]{1,3}(-[0-9]{1,3}(x[1-9][0-9]{0,2})?)?";
        document["components"]["schemas"]["FrameSet"]["pattern"] = json!(format!("^{few}(,{few})*$"));
        let file = json!({"path": "a.blend", "hash": BlobHash::of(&sample()), "size": sample().len()});
        for (path, bodies) in [
            (
                "/api/v1/jobs",
                json!({
                    "bundle": {"value": {"source": {"bundle": {"id": bundle, "blend": "shot.blend"}}, "frames": "1-3"}},
                    "upload": {"value": {"source": {"upload": {"id": finished}}, "requirements": {"limits": {"nuke": 1}}}}
                }),
            ),
            ("/api/v1/bundles", json!({"one": {"value": {"files": [file]}}})),
        ] {
            document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["examples"] =
                bodies;
        }
        Self { farm, worker, document }
    }
}

async fn part(tags: &[&str]) {
    let Some(program) = std::env::var_os("KILN_TEST_SCHEMATHESIS").map(PathBuf::from) else {
        return kiln_testkit::skip("KILN_TEST_SCHEMATHESIS names no schemathesis");
    };
    let Living { farm, mut worker, document } = Living::start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("openapi.json"), document.to_string()).unwrap();
    let by_hand = std::env::var("KILN_SCHEMATHESIS").ok();
    let (seed, examples) =
        by_hand.as_deref().and_then(|both| both.split_once(' ')).unwrap_or((SEED, EXAMPLES));
    let key = format!("Authorization: Bearer {}", farm.key);
    let mut command = tokio::process::Command::new(program);
    command
        .args(["--config-file", CONFIG, "run", "openapi.json", "--url", &farm.url, "--header", &key])
        .args(["--seed", seed, "--max-examples", examples, "--generation-database", "none", "--no-color"])
        .args(tags.iter().flat_map(|tag| ["--include-tag", tag]))
        // The program must not read what an earlier run has stored.
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let limit = if by_hand.is_some() { LIMIT * 60 } else { LIMIT };
    let running = tokio::time::timeout(limit, command.output());
    // The worker answers pings for as long as the server has it.
    let listening = async {
        worker.listen().await;
        std::future::pending::<()>().await;
    };
    let output = tokio::select! {
        output = running => output.expect("schemathesis ends").expect("schemathesis can be run"),
        () = listening => unreachable!("it waits without end"),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    if by_hand.is_some() {
        println!("{said}");
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{errors}", output.status);
    assert!(said.contains("generated"), "nothing was asked: {said}");
    // The server has gone through all of it.
    assert_eq!(farm.get("/healthz").await.text().await.unwrap(), "ok\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_answer_as_documented() {
    part(&["jobs"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_answer_as_documented() {
    part(&["blobs", "bundles", "chunks", "uploads"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_and_the_farm_answer_as_documented() {
    part(&["server", "workers", "events"]).await;
}
