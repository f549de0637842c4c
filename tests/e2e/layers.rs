//! The layers of the crates that have many files: no file imports one above it.

use crate::house::root;

/// The files of the core, the highest layer first.
const CORE: &[&str] = &[
    // Requests.
    "reactor.rs",
    "ledger.rs",
    "restore.rs",
    "explain.rs",
    "hold.rs",
    "view.rs",
    "check.rs",
    // The turn.
    "schedule/turn.rs",
    "schedule/streaming.rs",
    "schedule/speculation.rs",
    "schedule/probes.rs",
    "schedule/select.rs",
    "schedule/dispatch.rs",
    "schedule/eligibility.rs",
    // The tasks of a worker, and failures.
    "reconcile.rs",
    "failure/lease.rs",
    "failure/time_limit.rs",
    "failure/retry.rs",
    "failure/quarantine.rs",
    "failure/common.rs",
    "failure/memory.rs",
    "failure/cooldown.rs",
    "failure/fleet.rs",
    "failure/classify.rs",
    "failure/mod.rs",
    // The life of jobs and attempts, and the indexes.
    "jobs.rs",
    "attempts.rs",
    "schedule/devices.rs",
    "schedule/releases.rs",
    "schedule/reindex.rs",
    "schedule/limits.rs",
    "schedule/mod.rs",
    "estimate/frames.rs",
    "estimate/mod.rs",
    "core.rs",
    // Lookups.
    "schedule/indexes.rs",
    "schedule/requirements.rs",
    "schedule/fair_share.rs",
    // The live state.
    "state/mod.rs",
    "state/time_limits.rs",
    "state/quarantine.rs",
    "state/cooldowns.rs",
    "state/job.rs",
    "state/step.rs",
    "state/tasks.rs",
    "state/worker.rs",
    "state/slot.rs",
    "state/streams.rs",
    "state/attempt.rs",
    "state/first_failures.rs",
    "state/history.rs",
    "state/waiting.rs",
    "state/order.rs",
    // Estimates of frames and workers.
    "estimate/frame_times.rs",
    "estimate/memory_use.rs",
    "estimate/speed.rs",
    // Names, input and output.
    "claims.rs",
    "ids.rs",
    "invariant.rs",
    "message.rs",
    "state/incident.rs",
    "error.rs",
    "plan.rs",
    "tuning.rs",
    "moment.rs",
    "index_set.rs",
];

/// The files of the worker, the highest layer first.
const WORKER: &[&str] = &[
    "running.rs",
    // The actor that owns all others.
    "worker/mod.rs",
    "worker/streams.rs",
    "worker/tasks.rs",
    "worker/upkeep.rs",
    "worker/availability.rs",
    "worker/actor.rs",
    "link.rs",
    "offers.rs",
    "attempts.rs",
    // Slots.
    "slot/mod.rs",
    "slot/requests.rs",
    "slot/actor.rs",
    "slot/advance.rs",
    "slot/state.rs",
    "slot/context.rs",
    "slot/effects.rs",
    "slot/task.rs",
    // The work of a slot, and the way of its files.
    "direct/mod.rs",
    "direct/test_step.rs",
    "direct/work.rs",
    "process/mod.rs",
    "process/pool.rs",
    "process/blender.rs",
    "process/kind.rs",
    "upload.rs",
    "output.rs",
    "bake_tree.rs",
    "inputs.rs",
    "bundles.rs",
    "shared.rs",
    "transfer.rs",
    "task.rs",
    "monitor.rs",
    // The machine.
    "memory.rs",
    "sizing.rs",
    "folder.rs",
    "options.rs",
    "availability/mod.rs",
    "availability/activity.rs",
    "availability/processes.rs",
    "availability/user.rs",
    "availability/schedule.rs",
    "event.rs",
    "gpus.rs",
    "hardware.rs",
    "scratch.rs",
    "sink.rs",
];

/// The files of the server, the highest layer first.
const SERVER: &[&str] = &[
    "start.rs",
    // The HTTP API.
    "routes/mod.rs",
    "routes/uploads.rs",
    "routes/submit.rs",
    "routes/step_files.rs",
    "routes/shares.rs",
    "routes/running.rs",
    "routes/workers.rs",
    "routes/refusals.rs",
    "routes/logs.rs",
    "routes/farm.rs",
    "routes/events.rs",
    "routes/chunks.rs",
    "routes/bundles.rs",
    "routes/blobs.rs",
    "routes/job_data.rs",
    "routes/jobs.rs",
    "routes/page.rs",
    "routes/body.rs",
    "routes/document.rs",
    // Connections and their messages.
    "listen.rs",
    "links.rs",
    "made.rs",
    "bundles.rs",
    "inspect.rs",
    "auth.rs",
    "connections.rs",
    "problem.rs",
    "strict.rs",
    // The state that all of them share, and what works beside the scheduler.
    "app.rs",
    "wake/mod.rs",
    "wake/wakeable.rs",
    "wake/packet.rs",
    "wake/decide.rs",
    "splitter.rs",
    "collector.rs",
    // The scheduler.
    "scheduler/turn_tests.rs",
    "scheduler/recover_tests.rs",
    "scheduler/tests.rs",
    "scheduler/mod.rs",
    "scheduler/release.rs",
    "scheduler/recover.rs",
    "scheduler/order.rs",
    "scheduler/loading.rs",
    "scheduler/apply.rs",
    "scheduler/absorb.rs",
    "scheduler/views.rs",
    "scheduler/explain.rs",
    "scheduler/handle.rs",
    "scheduler/actor.rs",
    "scheduler/reading.rs",
    "scheduler/restore.rs",
    "scheduler/broken.rs",
    "scheduler/batch.rs",
    "scheduler/input.rs",
    "scheduler/refusal.rs",
    "scheduler/farm.rs",
    "scheduler/roster.rs",
    "scheduler/worker.rs",
    "scheduler/plan.rs",
    "scheduler/paths.rs",
    // Used by all of them.
    "events.rs",
    "error.rs",
    "key.rs",
    "clock.rs",
    "arrivals.rs",
    "retention.rs",
    "logs.rs",
    "space.rs",
    "holds.rs",
];

fn assert_imports_go_down(name: &str, layers: &[&str]) {
    let upward = kiln_testkit::upward_imports(&root().join("crates").join(name).join("src"), layers);
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn imports_of_the_core_go_down() {
    assert_imports_go_down("core", CORE);
}

#[test]
fn imports_of_the_worker_go_down() {
    assert_imports_go_down("worker", WORKER);
}

#[test]
fn imports_of_the_server_go_down() {
    assert_imports_go_down("server", SERVER);
}
