//! The table of states, step by step, without a Blender.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_types::{
    BlobHash, BundleId, DeviceClass, Epoch, Failure, FailureCause, Policy, RelPath, RenderSettings,
    ScriptPolicy, SessionSpec,
};

use super::{
    effect::{Effect, Surroundings, Told},
    state::{Phase, Slot},
    work::{Part, Work},
};
use crate::TaskKind;

struct World {
    now: Cell<Instant>,
    blender: Cell<bool>,
    room: Cell<bool>,
    outbox: Cell<bool>,
    worn: Cell<bool>,
}

impl Surroundings for World {
    fn now(&self) -> Instant {
        self.now.get()
    }
    fn has(&self, _: kiln_types::BlenderSeries) -> bool {
        self.blender.get()
    }
    fn room(&self, _: &Work) -> bool {
        self.room.get()
    }
    fn outbox_open(&self) -> bool {
        self.outbox.get()
    }
    fn worn(&self) -> bool {
        self.worn.replace(false)
    }
}

fn world() -> World {
    World {
        now: Cell::new(Instant::now()),
        blender: Cell::new(true),
        room: Cell::new(true),
        outbox: Cell::new(true),
        worn: Cell::new(false),
    }
}

fn work(counter: u64, scene: &str, trust: bool) -> Work {
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
    Work {
        attempt: kiln_types::AttemptId { epoch: Epoch(1), counter },
        task: format!("1.0.{counter}").parse().unwrap(),
        kind: TaskKind::Frame(i32::try_from(counter).unwrap()),
        key: session.key(),
        session: Arc::new(session),
        time_limit: None,
        refuse_black: false,
        part: Part::default(),
    }
}

fn short(work: &Work) -> String {
    work.kind.to_string().trim_start_matches("frame ").to_owned()
}

/// The effects, in short.
fn said(slot: &mut Slot) -> Vec<String> {
    let line = |effect| match effect {
        Effect::Start(kind, files) => {
            let files = if files.is_some() { " with files" } else { "" };
            format!("start{}{files}", if kind.trust { " trusted" } else { "" })
        }
        Effect::Fetch(_) => "fetch".to_owned(),
        Effect::Open(work) => format!("open for {}", short(&work)),
        Effect::Work(work) => match work.kind {
            TaskKind::Frame(frame) => format!("render {frame}"),
            TaskKind::Bake => "bake".to_owned(),
        },
        Effect::Recycle => "recycle".to_owned(),
        Effect::Release(_) => "release".to_owned(),
        Effect::Wake(_) => "wake".to_owned(),
        Effect::Tell(Told::Began(work)) => format!("began {}", short(&work)),
        Effect::Tell(Told::HandedBack(work)) => format!("handed back {}", short(&work)),
        Effect::Tell(Told::Failed { work, failure, .. }) => {
            format!("failed {} {}", short(&work), failure.cause)
        }
        Effect::Tell(Told::Closed) => "closed".to_owned(),
    };
    slot.take_effects().into_iter().map(line).collect()
}

/// A slot that renders frame 1 of scene A, with frames 2 and 3 behind it.
fn rendering(world: &World) -> Slot {
    let mut slot = Slot::new();
    slot.enqueue(vec![work(1, "A", false), work(2, "A", false), work(3, "A", false)], world);
    assert_eq!(said(&mut slot), ["fetch", "start"]);
    slot.fetched(work(1, "A", false).key, Ok(()), world);
    assert!(said(&mut slot).is_empty());
    slot.started(Ok(()), world);
    assert_eq!(said(&mut slot), ["began 1", "open for 1"]);
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
    assert_eq!(said(&mut slot), ["began 2", "render 2"]);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["began 3", "render 3"]);
    slot.worked(Ok(()), true, &world);
    assert!(said(&mut slot).is_empty());
    assert!(matches!(slot.phase, Phase::Idle { open: Some(_), .. }));
    slot.enqueue(vec![work(4, "A", false)], &world);
    assert_eq!(said(&mut slot), ["began 4", "render 4"], "the file is still open");
}

#[test]
fn another_scene_is_fetched_ahead_and_opened_in_the_same_process() {
    let world = world();
    let mut slot = rendering(&world);
    slot.revoke(work(3, "A", false).attempt, false, &world);
    slot.enqueue(vec![work(4, "B", false)], &world);
    assert_eq!(said(&mut slot), ["handed back 3", "fetch"]);
    slot.worked(Ok(()), true, &world);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["began 2", "render 2"], "B's files are not here yet");
    slot.fetched(work(4, "B", false).key, Ok(()), &world);
    assert_eq!(said(&mut slot), ["began 4", "open for 4", "release"], "A is let go");
}

#[test]
fn no_process_crosses_the_line_of_trust() {
    let world = world();
    let mut slot = rendering(&world);
    slot.enqueue(vec![work(9, "A", true)], &world);
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
    slot.enqueue(vec![work(10, "A", false)], &world);
    let last = said(&mut slot);
    assert!(last.contains(&"recycle".to_owned()) && !last.contains(&"began 10".to_owned()), "{last:?}");
}

#[test]
fn what_renders_is_stopped_for_a_cancel_and_not_for_a_thief() {
    let world = world();
    let mut slot = rendering(&world);
    slot.revoke(work(1, "A", false).attempt, false, &world);
    assert!(said(&mut slot).is_empty());
    slot.revoke(work(1, "A", false).attempt, true, &world);
    assert_eq!(said(&mut slot), ["handed back 1", "recycle"]);
    assert!(matches!(slot.phase, Phase::Recycling));
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
    assert_eq!(said(&mut slot), ["start", "began 2", "open for 2"]);
}

#[test]
fn a_file_that_does_not_open_keeps_a_process_that_lives() {
    let world = world();
    let mut slot = Slot::new();
    slot.enqueue(vec![work(1, "A", false)], &world);
    slot.fetched(work(1, "A", false).key, Ok(()), &world);
    slot.started(Ok(()), &world);
    slot.opened(Err(fault(FailureCause::NoCamera)), true, &world);
    assert!(matches!(slot.phase, Phase::Idle { open: None, .. }));
    assert!(said(&mut slot).contains(&"failed 1 no-camera".to_owned()));
    slot.enqueue(vec![work(2, "A", false)], &world);
    slot.fetched(work(2, "A", false).key, Ok(()), &world);
    slot.opened(Err(fault(FailureCause::Crashed)), false, &world);
    assert_eq!(said(&mut slot).last().unwrap(), "release");
    assert!(matches!(slot.phase, Phase::Recycling));
}

#[test]
fn files_that_cannot_be_had_fail_one_frame_and_are_tried_again_for_the_next() {
    let world = world();
    let mut slot = Slot::new();
    slot.enqueue(vec![work(1, "A", false), work(2, "A", false)], &world);
    slot.started(Ok(()), &world);
    said(&mut slot);
    slot.fetched(work(1, "A", false).key, Err(fault(FailureCause::BundleUnavailable)), &world);
    assert_eq!(said(&mut slot), ["began 1", "failed 1 bundle-unavailable", "fetch"]);
    slot.fetched(work(2, "A", false).key, Ok(()), &world);
    assert_eq!(said(&mut slot), ["began 2", "open for 2"]);
}

#[test]
fn without_memory_frames_wait_where_they_can_be_stolen_and_then_go_back() {
    let world = world();
    world.room.set(false);
    let mut slot = Slot::new();
    slot.enqueue(vec![work(1, "A", false), work(2, "A", false)], &world);
    slot.fetched(work(1, "A", false).key, Ok(()), &world);
    slot.started(Ok(()), &world);
    assert_eq!(said(&mut slot), ["fetch", "start", "wake"]);
    slot.revoke(work(2, "A", false).attempt, false, &world);
    assert_eq!(said(&mut slot), ["handed back 2", "wake"]);
    world.now.set(world.now.get() + Duration::from_secs(11));
    slot.advance(&world);
    assert_eq!(said(&mut slot), ["handed back 1", "release"]);
    world.room.set(true);
    slot.enqueue(vec![work(3, "A", false)], &world);
    slot.fetched(work(3, "A", false).key, Ok(()), &world);
    assert_eq!(said(&mut slot), ["fetch", "began 3", "open for 3"]);
}

#[test]
fn a_full_outbox_holds_the_next_frame_back() {
    let world = world();
    let mut slot = rendering(&world);
    world.outbox.set(false);
    slot.worked(Ok(()), true, &world);
    assert!(said(&mut slot).is_empty());
    world.outbox.set(true);
    slot.advance(&world);
    assert_eq!(said(&mut slot), ["began 2", "render 2"]);
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
    assert_eq!(said(&mut slot), ["start", "began 2", "open for 2"], "the files are still here");
}

#[test]
fn closing_hands_back_and_ends_the_process() {
    for running in [false, true] {
        let world = world();
        let mut slot = rendering(&world);
        slot.close(running, &world);
        let at_once = said(&mut slot);
        if running {
            assert_eq!(at_once, ["handed back 2", "handed back 3", "handed back 1", "recycle", "release"]);
        } else {
            assert_eq!(at_once, ["handed back 2", "handed back 3"]);
            slot.worked(Ok(()), true, &world);
            assert_eq!(said(&mut slot), ["recycle", "release"]);
        }
        slot.enqueue(vec![work(7, "A", false)], &world);
        assert_eq!(said(&mut slot), ["handed back 7"]);
        slot.recycled(&world);
        slot.advance(&world);
        assert_eq!(said(&mut slot), ["closed"], "once");
    }
}

#[test]
fn a_start_ahead_of_work_is_used_by_it_and_not_repeated_when_it_fails() {
    let world = world();
    let mut slot = Slot::new();
    slot.prestart("3.4".parse().unwrap(), &world);
    assert_eq!(said(&mut slot), ["start"]);
    slot.started(Err(fault(FailureCause::CannotStart)), &world);
    assert!(said(&mut slot).is_empty() && matches!(slot.phase, Phase::Cold));
    slot.enqueue(vec![work(1, "A", false)], &world);
    assert_eq!(said(&mut slot), ["fetch", "start"]);
    slot.started(Err(fault(FailureCause::CannotStart)), &world);
    assert_eq!(said(&mut slot), ["began 1", "failed 1 cannot-start", "release"]);
}

#[test]
fn a_process_that_does_nothing_for_long_ends_and_none_comes_in_its_place() {
    let world = world();
    let mut slot = Slot::new();
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
    slot.enqueue(vec![work(1, "A", false)], &world);
    assert_eq!(said(&mut slot), ["fetch", "start"]);
    let mut busy = rendering(&world);
    busy.end_idle(&world);
    assert!(said(&mut busy).is_empty(), "what renders is not disturbed");
}

#[test]
fn a_series_that_is_not_here_is_said_with_what_to_do() {
    let world = world();
    world.blender.set(false);
    let mut slot = Slot::new();
    slot.enqueue(vec![work(1, "A", false)], &world);
    let failed = slot.take_effects().into_iter().find_map(|effect| match effect {
        Effect::Tell(Told::Failed { failure, .. }) => Some(failure.message),
        _ => None,
    });
    assert!(failed.unwrap().contains("kiln blender install 3.4"));
}

fn bake(counter: u64, scene: &str) -> Work {
    Work { kind: TaskKind::Bake, ..work(counter, scene, false) }
}

#[test]
fn a_bake_has_its_process_for_itself_in_the_end() {
    let world = world();
    let mut slot = Slot::new();
    slot.enqueue(vec![bake(1, "A")], &world);
    assert_eq!(said(&mut slot), ["fetch", "start"]);
    slot.started(Ok(()), &world);
    assert!(said(&mut slot).is_empty(), "its files are not here");
    slot.fetched(bake(1, "A").key, Ok(()), &world);
    assert_eq!(said(&mut slot), ["began the bake", "bake"]);
    slot.enqueue(vec![work(2, "B", false)], &world);
    slot.fetched(work(2, "B", false).key, Ok(()), &world);
    assert_eq!(said(&mut slot), ["fetch"], "it is at work");
    slot.worked(Ok(()), false, &world);
    assert_eq!(said(&mut slot), ["start", "release"], "what it opened is not what it saved");
    assert!(matches!(slot.phase, Phase::Starting { .. }));
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
    slot.enqueue(vec![bake(4, "A")], &world);
    assert_eq!(said(&mut slot), ["wake"]);
    world.room.set(true);
    slot.advance(&world);
    assert_eq!(said(&mut slot), ["began the bake", "bake"]);
}

#[test]
fn a_bake_that_is_taken_back_ends_and_one_that_fails_is_told() {
    let world = world();
    let baking = || {
        let mut slot = Slot::new();
        slot.enqueue(vec![bake(1, "A")], &world);
        slot.fetched(bake(1, "A").key, Ok(()), &world);
        slot.started(Ok(()), &world);
        said(&mut slot);
        slot
    };
    let mut slot = baking();
    slot.revoke(bake(1, "A").attempt, false, &world);
    assert!(said(&mut slot).is_empty(), "nobody steals what has begun");
    slot.revoke(bake(1, "A").attempt, true, &world);
    assert_eq!(said(&mut slot), ["handed back the bake", "recycle", "release"]);
    slot.recycled(&world);
    assert!(matches!(slot.phase, Phase::Cold));
    let mut slot = baking();
    slot.worked(Err((fault(FailureCause::Unbaked), 2.0)), false, &world);
    assert_eq!(said(&mut slot), ["failed the bake unbaked", "release"]);
    let mut slot = baking();
    slot.close(true, &world);
    assert_eq!(said(&mut slot), ["handed back the bake", "recycle", "release"]);
}

#[test]
fn a_process_that_brings_something_starts_when_its_files_are_here_and_serves_nothing_else() {
    let world = world();
    let colored = |counter, addon: Option<&str>| {
        let plain = work(counter, "A", true);
        let session = SessionSpec {
            ocio: Some(RelPath::new("aces/config.ocio").unwrap()),
            addons: addon.map(|name| RelPath::new(name).unwrap()).into_iter().collect(),
            ..(*plain.session).clone()
        };
        Work { key: session.key(), session: Arc::new(session), ..plain }
    };
    let mut slot = Slot::new();
    slot.enqueue(vec![colored(1, None)], &world);
    assert_eq!(said(&mut slot), ["fetch"]);
    slot.fetched(colored(1, None).key, Err(fault(FailureCause::BundleUnavailable)), &world);
    assert_eq!(said(&mut slot), ["began 1", "failed 1 bundle-unavailable"]);
    slot.enqueue(vec![colored(2, None), work(3, "A", true), colored(4, Some("tool.py"))], &world);
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
fn a_slot_that_rests_ends_its_frame_and_lets_its_process_go() {
    let world = world();
    let mut slot = rendering(&world);
    slot.begin_rest(false, &world);
    assert_eq!(said(&mut slot), ["handed back 2", "handed back 3"]);
    slot.enqueue(vec![work(4, "A", false)], &world);
    assert_eq!(said(&mut slot), ["handed back 4"], "it takes nothing");
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["recycle", "release"]);
    slot.recycled(&world);
    slot.prestart("3.4".parse().unwrap(), &world);
    assert!(said(&mut slot).is_empty(), "nothing is started for nobody");
    slot.end_rest(&world);
    slot.enqueue(vec![work(5, "A", false)], &world);
    assert_eq!(said(&mut slot), ["fetch", "start"]);
}

#[test]
fn a_slot_that_must_rest_at_once_hands_all_back() {
    let world = world();
    let mut slot = rendering(&world);
    slot.begin_rest(true, &world);
    assert_eq!(said(&mut slot), ["handed back 2", "handed back 3", "handed back 1", "recycle", "release"]);
    slot.recycled(&world);
    slot.close(true, &world);
    assert_eq!(said(&mut slot), ["closed"], "one that rests can be closed");
}

#[test]
fn a_process_takes_up_gpus_once_and_is_replaced_for_others() {
    let world = world();
    let on = |counter, scene: &str, gpus: &[u16]| Work {
        part: Part { threads: 0, gpus: gpus.to_vec() },
        ..work(counter, scene, false)
    };
    let mut slot = Slot::new();
    slot.enqueue(vec![work(1, "A", false), on(2, "A", &[1]), on(3, "A", &[1]), on(4, "A", &[0, 1])], &world);
    slot.fetched(work(1, "A", false).key, Ok(()), &world);
    slot.started(Ok(()), &world);
    slot.opened(Ok(()), true, &world);
    assert!(said(&mut slot).contains(&"render 1".to_owned()));
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["began 2", "open for 2"], "it has used no GPU before");
    slot.opened(Ok(()), true, &world);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["render 2", "began 3", "render 3"]);
    slot.worked(Ok(()), true, &world);
    assert_eq!(said(&mut slot), ["recycle"]);
    slot.recycled(&world);
    assert_eq!(said(&mut slot), ["start"]);
}
