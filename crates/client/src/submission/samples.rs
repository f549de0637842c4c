//! A job for the tests, as a server would send it.

use kiln_api::JobView;
use serde_json::json;

pub(crate) fn job(id: u64, state: &str) -> JobView {
    let tasks = json!({
        "total": 3, "waiting": 0, "assigned": 0, "running": 0, "done": 3, "failed": 0, "cancelled": 0,
    });
    let view = json!({
        "id": id, "name": "shot", "owner": "farm", "project": "default", "state": state, "reason": null,
        "spec": {
            "name": "shot", "frames": "1-3", "order": "sequential", "frame_time_limit_s": null,
            "written_by": "3.4.1",
            "session": { "bundle": "0".repeat(64), "blend": "shot.blend", "blender": "3.4", "device": "cpu" },
        },
        "created_ms": 1_800_000_000_000_i64, "started_ms": null, "ended_ms": null, "steps": [], "tasks": tasks,
        "notices": [], "workers_busy": 0, "waits_for": null, "unmet": [], "mean_frame_s": null,
        "seconds_left": null, "left": null,
        "kept": {
            "archived_ms": null, "fetched": false, "inputs": { "is": "while-open" },
            "outputs": { "is": "while-open" }, "logs": { "is": "while-open" },
        },
    });
    serde_json::from_value(view).unwrap()
}
