//! A farm for the tests, made of what a server would send.

use kiln_api::{JobView, WorkerView};
use serde_json::{Value, json};

use super::model::{FarmSnapshot, Model};

/// The time of the tests, in Unix milliseconds.
pub const NOW: i64 = 1_800_000_000_000;

pub fn job(id: u64, name: &str, state: &str, (done, failed, total): (u32, u32, u32), more: Value) -> JobView {
    let ended = ["completed", "failed", "cancelled"].contains(&state);
    let waiting = if ended { 0 } else { total - done - failed };
    let tasks = json!({
        "total": total, "waiting": waiting, "assigned": 0, "running": 0, "done": done, "failed": failed,
        "cancelled": 0,
    });
    let mut view = json!({
        "id": id, "name": name, "owner": "farm", "project": "default", "state": state, "reason": null,
        "spec": {
            "name": name, "frames": format!("1-{total}"), "order": "sequential", "frame_time_limit_s": null,
            "written_by": "3.4.1",
            "session": { "bundle": "0".repeat(64), "blend": "shot.blend", "blender": "3.4", "device": "cpu" },
        },
        "created_ms": NOW - 600_000, "started_ms": NOW - 500_000, "ended_ms": ended.then_some(NOW - 60_000),
        "steps": [{
            "index": 0, "kind": "render", "after": [], "tasks": tasks,
            "progress": f64::from(done) / f64::from(total), "started_ms": null, "ended_ms": null,
        }],
        "tasks": tasks, "notices": [], "workers_busy": 0, "waits_for": null, "unmet": [], "mean_frame_s": null,
        "seconds_left": null, "left": null,
        "kept": {
            "archived_ms": null, "fetched": false, "inputs": { "is": "while-open" },
            "outputs": { "is": "while-open" }, "logs": { "is": "while-open" },
        },
    });
    merge(&mut view, more);
    serde_json::from_value(view).unwrap()
}

pub fn worker(name: &str, state: &str, more: Value) -> WorkerView {
    let mut view = json!({
        "id": "00000000000000ff", "name": name, "state": state, "desired": "active", "build": "kiln 0.1.0",
        "machine": {
            "hostname": name, "system": "linux x86_64", "cpu": "Ryzen 9 7950X", "cores": 16,
            "memory": 64_u64 << 30,
        },
        "offered": { "cores": 16, "memory": 64_u64 << 30 }, "slots": 1, "tags": [], "unavailable": null, "wakes": false,
        "blenders": [{
            "version": "3.4.1", "build_hash": "abc", "flavor": "executable", "engines": [], "devices": [],
            "denoisers": [],
        }],
        "running": [], "last_seen_ms": NOW - 1_000,
    });
    merge(&mut view, more);
    serde_json::from_value(view).unwrap()
}

pub fn run(slot: u16, job: u64, frame: Option<i32>, fraction: Option<f32>, estimated: bool) -> Value {
    let kind = if frame.is_some() { "render" } else { "bake" };
    json!({
        "slot": slot, "attempt": "1-7", "job": job, "step_kind": kind, "frame": frame, "since_ms": NOW - 3_000,
        "fraction": fraction, "estimated": estimated,
    })
}

/// A farm in which something of everything happens.
pub fn farm() -> FarmSnapshot {
    let jobs = vec![
        job(
            9,
            "credits",
            "queued",
            (0, 0, 120),
            json!({
                "waits_for": {
                    "code": "no-worker-fits", "missing": [{ "code": "blender", "series": "4.5" }], "nearest": "attic",
                    "nearest_missing": [{ "code": "blender", "series": "4.5" }], "any_gpu": false,
                },
            }),
        ),
        job(
            7,
            "forest",
            "running",
            (157, 2, 250),
            json!({
                "owner": "ana", "project": "film", "workers_busy": 2, "mean_frame_s": 12.3,
                "left": { "soonest_s": 240.0, "likely_s": 300.0, "latest_s": 540.0 },
            }),
        ),
        job(
            8,
            "water_simulation_v12",
            "running",
            (0, 0, 48),
            json!({
                "steps": [
                    {
                        "index": 0, "kind": "bake", "after": [], "progress": 0.4, "started_ms": NOW, "ended_ms": null,
                        "tasks": {
                            "total": 1, "waiting": 0, "assigned": 0, "running": 1, "done": 0, "failed": 0,
                            "cancelled": 0,
                        },
                    },
                ],
            }),
        ),
        job(5, "fall", "completed", (48, 0, 48), json!({})),
        job(
            6,
            "broken",
            "failed",
            (1, 3, 48),
            json!({
                "reason": { "cause": "no-camera", "message": "the scene has no camera" },
            }),
        ),
    ];
    let workers = vec![
        worker(
            "attic",
            "rendering",
            json!({
                "slots": 2, "running": [run(0, 7, Some(157), Some(0.99), true), run(0, 7, Some(158), Some(0.63), false), run(1, 7, Some(160), Some(0.12), true)],
            }),
        ),
        worker(
            "desk",
            "unavailable",
            json!({ "unavailable": { "why": "asleep until 08:00", "until_ms": null } }),
        ),
        worker("laptop", "offline", json!({ "last_seen_ms": NOW - 7_200_000 })),
        worker(
            "rack-3",
            "quarantined",
            json!({
                "quarantine": { "why": "3 frames failed here that others delivered", "failed_probes": 2, "next_probe_ms": null },
            }),
        ),
        worker(
            "studio",
            "rendering",
            json!({
                "running": [run(0, 8, None, Some(0.4), false)], "offered": { "cores": 8, "memory": 32_u64 << 30 },
            }),
        ),
    ];
    FarmSnapshot::new(jobs, workers)
}

/// A model that has just read [`farm`].
pub fn model() -> Model {
    let mut model = Model::new("http://10.0.0.5:8765".to_owned(), NOW - 300_000);
    model.read(farm(), NOW);
    model
}

fn merge(value: &mut Value, more: Value) {
    if let (Value::Object(value), Value::Object(more)) = (value, more) {
        value.extend(more);
    }
}
