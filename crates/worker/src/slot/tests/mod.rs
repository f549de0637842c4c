//! The table of states, step by step, without a Blender.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_types::{
    BlobHash, BundleId, DeviceClass, Epoch, Failure, FailureCause, Policy, RelPath, RenderSettings,
    ScriptPolicy, SessionSpec, StepKind, TaskName,
};

use super::{
    effects::{SlotEffect, SlotEnvironment, SlotNotice},
    state::{SlotMachine, SlotPhase},
    task::{BlenderAction, BlenderTask, SlotTask},
};
use crate::{process::MachineShare, task::TaskHead};

mod direct;

struct World {
    now: Cell<Instant>,
    blender: Cell<bool>,
    room: Cell<bool>,
    uploads: Cell<bool>,
    worn: Cell<bool>,
}

impl SlotEnvironment for World {
    fn now(&self) -> Instant {
        self.now.get()
    }
    fn has_blender(&self, _: kiln_types::BlenderSeries) -> bool {
        self.blender.get()
    }
    fn has_memory(&self, _: &SlotTask) -> bool {
        self.room.get()
    }
    fn has_upload_room(&self) -> bool {
        self.uploads.get()
    }
    fn is_worn(&self) -> bool {
        self.worn.replace(false)
    }
}

fn world() -> World {
    World {
        now: Cell::new(Instant::now()),
        blender: Cell::new(true),
        room: Cell::new(true),
        uploads: Cell::new(true),
        worn: Cell::new(false),
    }
}

fn work(counter: u64, scene: &str, trust: bool) -> BlenderTask {
    let session = SessionSpec {
        bundle: BundleId(BlobHash::of(scene.as_bytes())),
        blend: RelPath::new("a.blend").unwrap(),
        origin: None,
        file_name: None,
        blender: "3.4".parse().unwrap(),
        device: DeviceClass::Cpu,
        settings: RenderSettings::default(),
        policy: Policy {
            scripts: if trust { ScriptPolicy::Trust } else { ScriptPolicy::Stop },
            ..Policy::default()
        },
        ocio: None,
        addons: Vec::new(),
    };
    BlenderTask {
        head: TaskHead {
            attempt: kiln_types::AttemptId { epoch: Epoch(1), counter },
            task: format!("1.0.{counter}").parse().unwrap(),
            name: TaskName { kind: StepKind::Render, frame: Some(counter as i32) },
            time_limit: None,
        },
        action: BlenderAction::Render(counter as i32),
        key: session.key(),
        session: Arc::new(session),
        refuse_black: false,
        share: MachineShare::default(),
    }
}

fn enqueue(slot: &mut SlotMachine, tasks: Vec<BlenderTask>, world: &World) {
    slot.enqueue(tasks.into_iter().map(SlotTask::Blender).collect(), world);
}

fn short(task: &TaskHead) -> String {
    task.name.to_string().trim_start_matches("frame ").to_owned()
}

/// The effects, in short.
fn said(slot: &mut SlotMachine) -> Vec<String> {
    let line = |effect| match effect {
        SlotEffect::Start(kind, session) => {
            let files = if session.is_some() { " with files" } else { "" };
            format!("start{}{files}", if kind.trust { " trusted" } else { "" })
        }
        SlotEffect::Fetch(_) => "fetch".to_owned(),
        SlotEffect::Open(task) => format!("open for {}", short(&task.head)),
        SlotEffect::Work(task) => match task.action {
            BlenderAction::Render(frame) => format!("render {frame}"),
            BlenderAction::Bake => "bake".to_owned(),
        },
        SlotEffect::Run(task) => format!("run {}", short(&task.head)),
        SlotEffect::CancelRun => "cancel run".to_owned(),
        SlotEffect::Recycle => "recycle".to_owned(),
        SlotEffect::Release(_) => "release".to_owned(),
        SlotEffect::Wake(_) => "wake".to_owned(),
        SlotEffect::Tell(SlotNotice::Started(task)) => format!("started {}", short(&task)),
        SlotEffect::Tell(SlotNotice::Returned(task)) => format!("returned {}", short(&task)),
        SlotEffect::Tell(SlotNotice::Failed { task, failure, .. }) => {
            format!("failed {} {}", short(&task), failure.cause)
        }
        SlotEffect::Tell(SlotNotice::Closed) => "closed".to_owned(),
    };
    slot.take_effects().into_iter().map(line).collect()
}

/// A slot that renders frame 1 of scene A, with frames 2 and 3 behind it.
fn rendering(world: &World) -> SlotMachine {
    let mut slot = SlotMachine::new();
    enqueue(&mut slot, vec![work(1, "A", false), work(2, "A", false), work(3, "A", false)], world);
    assert_eq!(said(&mut slot), ["fetch", "start"]);
    slot.fetched(work(1, "A", false).key, Ok(()), world);
    assert!(said(&mut slot).is_empty());
    slot.started(Ok(()), world);
    assert_eq!(said(&mut slot), ["started 1", "open for 1"]);
    slot.opened(Ok(()), true, world);
    assert_eq!(said(&mut slot), ["render 1"]);
    slot
}

fn fault(cause: FailureCause) -> Failure {
    Failure::new(cause, "no")
}

#[test]
fn frames_of_one_scene_follow_each_other_without_a_pause() {
    let world = world();
    let mut slot = rendering(&world);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["started 2", "render 2"]);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["started 3", "render 3"]);
    slot.worked(Ok(()), true, &world);
    assert!(said(&mut slot).is_empty());
    assert!(matches!(slot.phase, SlotPhase::Idle { open: Some(_), .. }));
    enqueue(&mut slot, vec![work(4, "A", false)], &world);
    assert_eq!(said(&mut slot), ["started 4", "render 4"], "the file is still open");
}

#[test]
fn another_scene_is_fetched_ahead_and_opened_in_the_same_process() {
    let world = world();
    let mut slot = rendering(&world);
    slot.revoke(work(3, "A", false).head.attempt, false, &world);
    enqueue(&mut slot, vec![work(4, "B", false)], &world);
    assert_eq!(said(&mut slot), ["returned 3", "fetch"]);
    slot.worked(Ok(()), true, &world);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["started 2", "render 2"], "B's files are not here yet");
    slot.fetched(work(4, "B", false).key, Ok(()), &world);
    assert_eq!(said(&mut slot), ["started 4", "open for 4", "release"], "A is released");
}

#[test]
fn no_process_crosses_the_line_of_trust() {
    let world = world();
    let mut slot = rendering(&world);
    enqueue(&mut slot, vec![work(9, "A", true)], &world);
    for _ in 0..3 {
        slot.worked(Ok(()), true, &world);
    }
    let ended = said(&mut slot);
    assert!(ended.contains(&"recycle".to_owned()) && !ended.contains(&"open for 9".to_owned()), "{ended:?}");
    slot.fetched(work(9, "A", true).key, Ok(()), &world);
    slot.recycled(&world);
    assert_eq!(said(&mut slot).last().unwrap(), "start trusted");
    slot.started(Ok(()), &world);
    slot.opened(Ok(()), true, &world);
    slot.worked(Ok(()), true, &world);
    enqueue(&mut slot, vec![work(10, "A", false)], &world);
    let last = said(&mut slot);
    assert!(last.contains(&"recycle".to_owned()) && !last.contains(&"started 10".to_owned()), "{last:?}");
}

#[test]
fn a_running_task_is_stopped_by_a_cancel_and_not_by_a_preemption() {
    let world = world();
    let mut slot = rendering(&world);
    slot.revoke(work(1, "A", false).head.attempt, false, &world);
    assert!(said(&mut slot).is_empty());
    slot.revoke(work(1, "A", false).head.attempt, true, &world);
    assert_eq!(said(&mut slot), ["returned 1", "recycle"]);
    assert!(matches!(slot.phase, SlotPhase::Recycling));
    slot.worked(Ok(()), true, &world);
    assert!(said(&mut slot).is_empty(), "nothing begins while the old Blender may run");
    slot.recycled(&world);
    assert_eq!(said(&mut slot), ["start"]);
}

#[test]
fn a_crash_costs_one_frame_and_the_next_goes_on() {
    let world = world();
    let mut slot = rendering(&world);
    slot.worked(Err((fault(FailureCause::Crashed), 0.1)), true, &world);
    assert_eq!(said(&mut slot), ["failed 1 crashed", "recycle"]);
    slot.recycled(&world);
    slot.started(Ok(()), &world);
    assert_eq!(said(&mut slot), ["start", "started 2", "open for 2"]);
}

#[test]
fn a_file_that_does_not_open_keeps_a_process_that_lives() {
    let world = world();
    let mut slot = SlotMachine::new();
    enqueue(&mut slot, vec![work(1, "A", false)], &world);
    slot.fetched(work(1, "A", false).key, Ok(()), &world);
    slot.started(Ok(()), &world);
    slot.opened(Err(fault(FailureCause::NoCamera)), true, &world);
    assert!(matches!(slot.phase, SlotPhase::Idle { open: None, .. }));
    assert!(said(&mut slot).contains(&"failed 1 no-camera".to_owned()));
    enqueue(&mut slot, vec![work(2, "A", false)], &world);
    slot.fetched(work(2, "A", false).key, Ok(()), &world);
    slot.opened(Err(fault(FailureCause::Crashed)), false, &world);
    assert_eq!(said(&mut slot).last().unwrap(), "release");
    assert!(matches!(slot.phase, SlotPhase::Recycling));
}

#[test]
fn files_that_cannot_be_had_fail_one_frame_and_are_tried_again_for_the_next() {
    let world = world();
    let mut slot = SlotMachine::new();
    enqueue(&mut slot, vec![work(1, "A", false), work(2, "A", false)], &world);
    slot.started(Ok(()), &world);
    said(&mut slot);
    slot.fetched(work(1, "A", false).key, Err(fault(FailureCause::BundleUnavailable)), &world);
    assert_eq!(said(&mut slot), ["started 1", "failed 1 bundle-unavailable", "fetch"]);
    slot.fetched(work(2, "A", false).key, Ok(()), &world);
    assert_eq!(said(&mut slot), ["started 2", "open for 2"]);
}

#[test]
fn without_memory_frames_wait_where_they_can_be_preempted_and_are_returned_then() {
    let world = world();
    world.room.set(false);
    let mut slot = SlotMachine::new();
    enqueue(&mut slot, vec![work(1, "A", false), work(2, "A", false)], &world);
    slot.fetched(work(1, "A", false).key, Ok(()), &world);
    slot.started(Ok(()), &world);
    assert_eq!(said(&mut slot), ["fetch", "start", "wake"]);
    slot.revoke(work(2, "A", false).head.attempt, false, &world);
    assert_eq!(said(&mut slot), ["returned 2", "wake"]);
    world.now.set(world.now.get() + Duration::from_secs(11));
    slot.advance(&world);
    assert_eq!(said(&mut slot), ["returned 1", "release"]);
    world.room.set(true);
    enqueue(&mut slot, vec![work(3, "A", false)], &world);
    slot.fetched(work(3, "A", false).key, Ok(()), &world);
    assert_eq!(said(&mut slot), ["fetch", "started 3", "open for 3"]);
}

#[test]
fn a_full_outbox_holds_the_next_frame_back() {
    let world = world();
    let mut slot = rendering(&world);
    world.uploads.set(false);
    slot.worked(Ok(()), true, &world);
    assert!(said(&mut slot).is_empty());
    world.uploads.set(true);
    slot.advance(&world);
    assert_eq!(said(&mut slot), ["started 2", "render 2"]);
}

#[test]
fn a_worn_process_is_replaced_between_two_frames() {
    let world = world();
    let mut slot = rendering(&world);
    world.worn.set(true);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["recycle"]);
    slot.recycled(&world);
    slot.started(Ok(()), &world);
    assert_eq!(said(&mut slot), ["start", "started 2", "open for 2"], "the files are still here");
}

#[test]
fn closing_returns_tasks_and_ends_the_process() {
    for running in [false, true] {
        let world = world();
        let mut slot = rendering(&world);
        slot.close(running, &world);
        let at_once = said(&mut slot);
        if running {
            assert_eq!(at_once, ["returned 2", "returned 3", "returned 1", "recycle", "release"]);
        } else {
            assert_eq!(at_once, ["returned 2", "returned 3"]);
            slot.worked(Ok(()), true, &world);
            assert_eq!(said(&mut slot), ["recycle", "release"]);
        }
        enqueue(&mut slot, vec![work(7, "A", false)], &world);
        assert_eq!(said(&mut slot), ["returned 7"]);
        slot.recycled(&world);
        slot.advance(&world);
        assert_eq!(said(&mut slot), ["closed"], "once");
    }
}

#[test]
fn a_start_ahead_of_work_is_used_by_it_and_not_repeated_when_it_fails() {
    let world = world();
    let mut slot = SlotMachine::new();
    slot.prestart("3.4".parse().unwrap(), &world);
    assert_eq!(said(&mut slot), ["start"]);
    slot.started(Err(fault(FailureCause::CannotStart)), &world);
    assert!(said(&mut slot).is_empty() && matches!(slot.phase, SlotPhase::Cold));
    enqueue(&mut slot, vec![work(1, "A", false)], &world);
    assert_eq!(said(&mut slot), ["fetch", "start"]);
    slot.started(Err(fault(FailureCause::CannotStart)), &world);
    assert_eq!(said(&mut slot), ["started 1", "failed 1 cannot-start", "release"]);
}

#[test]
fn a_process_that_does_nothing_for_long_ends_and_none_comes_in_its_place() {
    let world = world();
    let mut slot = SlotMachine::new();
    slot.prestart("3.4".parse().unwrap(), &world);
    assert_eq!(said(&mut slot), ["start"]);
    slot.end_idle(&world);
    assert!(said(&mut slot).is_empty(), "it is not up yet");
    slot.started(Ok(()), &world);
    slot.end_idle(&world);
    assert_eq!(said(&mut slot), ["recycle"]);
    slot.recycled(&world);
    slot.end_idle(&world);
    assert!(said(&mut slot).is_empty());
    enqueue(&mut slot, vec![work(1, "A", false)], &world);
    assert_eq!(said(&mut slot), ["fetch", "start"]);
    let mut busy = rendering(&world);
    busy.end_idle(&world);
    assert!(said(&mut busy).is_empty(), "what renders is not disturbed");
}

#[test]
fn a_missing_series_fails_with_what_to_do() {
    let world = world();
    world.blender.set(false);
    let mut slot = SlotMachine::new();
    enqueue(&mut slot, vec![work(1, "A", false)], &world);
    let failed = slot.take_effects().into_iter().find_map(|effect| match effect {
        SlotEffect::Tell(SlotNotice::Failed { failure, .. }) => Some(failure.message),
        _ => None,
    });
    assert!(failed.unwrap().contains("kiln blender install 3.4"));
}

fn bake(counter: u64, scene: &str) -> BlenderTask {
    let task = work(counter, scene, false);
    let name = TaskName { kind: StepKind::Bake, frame: None };
    BlenderTask { action: BlenderAction::Bake, head: TaskHead { name, ..task.head }, ..task }
}

#[test]
fn a_bake_has_its_process_for_itself_in_the_end() {
    let world = world();
    let mut slot = SlotMachine::new();
    enqueue(&mut slot, vec![bake(1, "A")], &world);
    assert_eq!(said(&mut slot), ["fetch", "start"]);
    slot.started(Ok(()), &world);
    assert!(said(&mut slot).is_empty(), "its files are not here");
    slot.fetched(bake(1, "A").key, Ok(()), &world);
    assert_eq!(said(&mut slot), ["started the bake", "bake"]);
    enqueue(&mut slot, vec![work(2, "B", false)], &world);
    slot.fetched(work(2, "B", false).key, Ok(()), &world);
    assert_eq!(said(&mut slot), ["fetch"], "it is at work");
    slot.worked(Ok(()), false, &world);
    assert_eq!(said(&mut slot), ["start", "release"], "what it opened is not what it saved");
    assert!(matches!(slot.phase, SlotPhase::Starting { .. }));
}

#[test]
fn a_bake_begins_also_where_its_file_is_open_and_waits_for_memory() {
    let world = world();
    let mut slot = rendering(&world);
    slot.worked(Ok(()), true, &world);
    slot.worked(Ok(()), true, &world);
    slot.worked(Ok(()), true, &world);
    said(&mut slot);
    world.room.set(false);
    enqueue(&mut slot, vec![bake(4, "A")], &world);
    assert_eq!(said(&mut slot), ["wake"]);
    world.room.set(true);
    slot.advance(&world);
    assert_eq!(said(&mut slot), ["started the bake", "bake"]);
}

#[test]
fn a_revoked_bake_ends_and_a_failed_one_is_reported() {
    let world = world();
    let baking = || {
        let mut slot = SlotMachine::new();
        enqueue(&mut slot, vec![bake(1, "A")], &world);
        slot.fetched(bake(1, "A").key, Ok(()), &world);
        slot.started(Ok(()), &world);
        said(&mut slot);
        slot
    };
    let mut slot = baking();
    slot.revoke(bake(1, "A").head.attempt, false, &world);
    assert!(said(&mut slot).is_empty(), "a running task is not preempted");
    slot.revoke(bake(1, "A").head.attempt, true, &world);
    assert_eq!(said(&mut slot), ["returned the bake", "recycle", "release"]);
    slot.recycled(&world);
    assert!(matches!(slot.phase, SlotPhase::Cold));
    let mut slot = baking();
    slot.worked(Err((fault(FailureCause::Unbaked), 2.0)), false, &world);
    assert_eq!(said(&mut slot), ["failed the bake unbaked", "release"]);
    let mut slot = baking();
    slot.close(true, &world);
    assert_eq!(said(&mut slot), ["returned the bake", "recycle", "release"]);
}

#[test]
fn a_process_with_startup_files_starts_when_they_are_here_and_serves_nothing_else() {
    let world = world();
    let colored = |counter, addon: Option<&str>| {
        let plain = work(counter, "A", true);
        let session = SessionSpec {
            ocio: Some(RelPath::new("aces/config.ocio").unwrap()),
            addons: addon.map(|name| RelPath::new(name).unwrap()).into_iter().collect(),
            ..(*plain.session).clone()
        };
        BlenderTask { key: session.key(), session: Arc::new(session), ..plain }
    };
    let mut slot = SlotMachine::new();
    enqueue(&mut slot, vec![colored(1, None)], &world);
    assert_eq!(said(&mut slot), ["fetch"]);
    slot.fetched(colored(1, None).key, Err(fault(FailureCause::BundleUnavailable)), &world);
    assert_eq!(said(&mut slot), ["started 1", "failed 1 bundle-unavailable"]);
    enqueue(&mut slot, vec![colored(2, None), work(3, "A", true), colored(4, Some("tool.py"))], &world);
    assert_eq!(said(&mut slot), ["fetch", "fetch", "fetch"]);
    for key in [colored(2, None).key, work(3, "A", true).key, colored(4, Some("tool.py")).key] {
        slot.fetched(key, Ok(()), &world);
    }
    assert_eq!(said(&mut slot), ["start trusted with files"]);
    for (next, started) in [(2, "start trusted"), (3, "start trusted with files")] {
        slot.started(Ok(()), &world);
        slot.opened(Ok(()), true, &world);
        slot.worked(Ok(()), true, &world);
        slot.recycled(&world);
        let lines = said(&mut slot);
        assert!(lines.contains(&format!("render {next}")), "{lines:?}");
        assert!(lines.contains(&"recycle".to_owned()), "{lines:?}");
        assert!(lines.contains(&started.to_owned()), "{lines:?}");
    }
}

#[test]
fn an_unavailable_slot_finishes_its_frame_and_ends_its_process() {
    let world = world();
    let mut slot = rendering(&world);
    slot.make_unavailable(false, &world);
    assert_eq!(said(&mut slot), ["returned 2", "returned 3"]);
    enqueue(&mut slot, vec![work(4, "A", false)], &world);
    assert_eq!(said(&mut slot), ["returned 4"], "it takes nothing");
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["recycle", "release"]);
    slot.recycled(&world);
    slot.prestart("3.4".parse().unwrap(), &world);
    assert!(said(&mut slot).is_empty(), "nothing is started for nobody");
    slot.make_available(&world);
    enqueue(&mut slot, vec![work(5, "A", false)], &world);
    assert_eq!(said(&mut slot), ["fetch", "start"]);
}

#[test]
fn a_slot_that_is_unavailable_at_once_returns_all() {
    let world = world();
    let mut slot = rendering(&world);
    slot.make_unavailable(true, &world);
    assert_eq!(said(&mut slot), ["returned 2", "returned 3", "returned 1", "recycle", "release"]);
    slot.recycled(&world);
    slot.close(true, &world);
    assert_eq!(said(&mut slot), ["closed"], "an unavailable slot can be closed");
}

#[test]
fn a_process_takes_up_gpus_once_and_is_replaced_for_others() {
    let world = world();
    let on = |counter, scene: &str, gpus: &[u16]| BlenderTask {
        share: MachineShare { threads: 0, gpus: gpus.to_vec() },
        ..work(counter, scene, false)
    };
    let mut slot = SlotMachine::new();
    enqueue(
        &mut slot,
        vec![work(1, "A", false), on(2, "A", &[1]), on(3, "A", &[1]), on(4, "A", &[0, 1])],
        &world,
    );
    slot.fetched(work(1, "A", false).key, Ok(()), &world);
    slot.started(Ok(()), &world);
    slot.opened(Ok(()), true, &world);
    assert!(said(&mut slot).contains(&"render 1".to_owned()));
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["started 2", "open for 2"], "it has used no GPU before");
    slot.opened(Ok(()), true, &world);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["render 2", "started 3", "render 3"]);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["recycle"]);
    slot.recycled(&world);
    assert_eq!(said(&mut slot), ["start"]);
}
