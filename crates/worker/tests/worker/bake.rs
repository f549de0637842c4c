//! Bakes: what they make, how they are called off, and what a process brings along.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kiln_api::{AttemptReport, Down, Up};
use kiln_testkit::{assert_same_picture, blender, brought, picture, scene, temp_dir};
use kiln_types::StepKind;
use kiln_types::{
    BundleFile, FailureCause, HeldPhase, RelPath, RevokeReason, ScriptPolicy, SessionSpec, SlotIndex,
};
use kiln_worker::WorkerEvent;

use crate::{assert_no_blender_in, farm::Farm, until};

const SHOWN: [i32; 3] = [6, 2, 8];

/// Renders frames on the way through all of them, as a person does.
fn step_through(blend: &Path, out: &Path) {
    let script = format!(
        "import bpy, os\n\
         scene = bpy.context.scene\n\
         for frame in range(1, 9):\n\
         \x20   scene.frame_set(frame)\n\
         \x20   scene.render.filepath = f'{}/{{frame}}.png'\n\
         \x20   bpy.ops.render.render(write_still=True)\n",
        out.display()
    );
    let mut command = Command::new(blender());
    command.args(["--background", "--factory-startup"]).arg(blend).args(["--python-expr", &script]);
    assert!(command.stdin(Stdio::null()).output().unwrap().status.success());
}

fn fetch(farm: &Farm, finish: AttemptReport, to: &Path) -> PathBuf {
    let AttemptReport::Done { files, .. } = finish else { panic!("{finish:?}") };
    let file = &files[0];
    let path = to.join(file.path.file_name());
    std::fs::write(&path, farm.blob(&file.hash)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bake_goes_to_the_server_and_its_frames_are_those_of_a_person_who_steps_through() {
    let blend = scene("waves");
    let folder = temp_dir();
    step_through(&blend, folder.path());
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut events = worker.subscribe();
    let mut line = farm.next().await;
    let session = farm.session_of(blend.parent().unwrap(), "waves.blend");
    let bake = farm.bake(0, &session);
    let attempt = bake.tasks[0].attempt;
    line.send(Down::Assign(Box::new(bake))).await;
    assert_eq!(line.started().await, attempt);
    let AttemptReport::Done { files, seconds, peak_memory } = line.finished().await.1 else {
        panic!("no bake")
    };
    assert!(seconds > 0.0 && peak_memory > 1 << 20);
    let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
    assert!(paths.contains(&"waves.blend"), "{paths:?}");
    assert!(paths.iter().filter(|path| path.starts_with("blendcache_waves/")).count() >= 8, "{paths:?}");
    assert!(!paths.contains(&"sea.png") && paths.iter().all(|path| !path.contains("blend1")), "{paths:?}");
    assert!(files.iter().all(|file| farm.has(&file.hash)), "the bytes are there before the report");
    until(&mut events, |event| match event {
        WorkerEvent::Delivered { task, .. } if task.kind == StepKind::Bake => Some(()),
        _ => None,
    })
    .await;
    let baked =
        farm.keep(farm.bundle(session.bundle).overlaid(files.into_iter().map(BundleFile::from).collect()));
    let session = SessionSpec { bundle: baked, ..session };
    let frames = farm.assignment(0, &session, &SHOWN);
    line.send(Down::Assign(Box::new(frames))).await;
    let ours = temp_dir();
    for frame in SHOWN {
        let picture = fetch(&farm, line.finished().await.1, ours.path());
        assert!(picture.ends_with(format!("shot_{frame:04}.png")), "{}", picture.display());
        assert_same_picture(&picture, &folder.path().join(format!("{frame}.png")));
    }
    worker.drain().await;
    assert_no_blender_in(farm.data());
    for part in ["outbox", "inputs", "bundles", "roots"] {
        let left = std::fs::read_dir(farm.data().join("worker-0").join(part)).unwrap().count();
        assert_eq!(left, 0, "nothing is left in {part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bake_tells_its_progress_is_presented_again_and_is_called_off_within_two_seconds() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let blend = scene("endless_cloth");
    let session = farm.session_of(blend.parent().unwrap(), "endless_cloth.blend");
    let bake = farm.bake(0, &session);
    let attempt = bake.tasks[0].attempt;
    line.send(Down::Assign(Box::new(bake))).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        if let Up::Progress { attempt: of, fraction } = line.next().await.expect("the worker has left") {
            assert_eq!(of, attempt);
            told.push(fraction);
        }
    }
    assert!(0.0 < told[0] && told[0] < told[1] && told[1] < 1.0, "{told:?}");
    // The server goes and comes back: the bake goes on.
    drop(line);
    let mut line = farm.next().await;
    let held: Vec<_> = line.hello.held.iter().map(|held| (held.attempt, held.phase)).collect();
    assert_eq!(held, [(attempt, HeldPhase::Running { slot: SlotIndex(0) })]);
    let called_off = Instant::now();
    line.send(Down::Revoke { attempt, why: RevokeReason::Cancelled }).await;
    assert_eq!(line.finished().await, (attempt, AttemptReport::Returned));
    // And the slot has a process again.
    let short = farm.session(10, 1);
    let frame = farm.assignment(0, &short, &[5]);
    let took = called_off.elapsed();
    line.send(Down::Assign(Box::new(frame))).await;
    assert!(matches!(line.finished().await.1, AttemptReport::Done { .. }));
    assert!(took < Duration::from_secs(2), "{took:?}");
    println!("called off in {:.0} ms", took.as_secs_f64() * 1000.0);
    worker.stop_hard().await;
    assert_no_blender_in(farm.data());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bake_that_cannot_be_says_why_and_leaves_nothing() {
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let blend = scene("rigid_body");
    let mut session = farm.session_of(blend.parent().unwrap(), "rigid_body.blend");
    session.settings.scene = Some("Elsewhere".to_owned());
    let bake = farm.bake(0, &session);
    line.send(Down::Assign(Box::new(bake))).await;
    let AttemptReport::Failed { failure, .. } = line.finished().await.1 else { panic!("it did not fail") };
    assert_eq!(failure.cause, FailureCause::BadSetting, "{failure}");
    assert!(failure.message.contains("Elsewhere"), "{failure}");
    worker.drain().await;
    let left = std::fs::read_dir(farm.data().join("worker-0").join("outbox")).unwrap().count();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_artists_colours_and_add_ons_are_there_for_their_own_job_alone() {
    let blend = scene("basic");
    let folder = temp_dir();
    std::fs::copy(&blend, folder.path().join("basic.blend")).unwrap();
    for name in ["dark.ocio", "crimson.py"] {
        std::fs::copy(brought(name), folder.path().join(name)).unwrap();
    }
    let mut farm = Farm::open().await;
    let worker = farm.worker().await;
    let mut line = farm.next().await;
    let plain = farm.session_of(folder.path(), "basic.blend");
    let colored = SessionSpec { ocio: Some(RelPath::new("dark.ocio").unwrap()), ..plain.clone() };
    let mut tinted = SessionSpec { addons: vec![RelPath::new("crimson.py").unwrap()], ..plain.clone() };
    tinted.policy.scripts = ScriptPolicy::Trust;
    let mut trusted = plain.clone();
    trusted.policy.scripts = ScriptPolicy::Trust;
    let mut made = Vec::new();
    for (at, session) in [&plain, &colored, &tinted, &trusted, &plain].into_iter().enumerate() {
        let ours = folder.path().join(at.to_string());
        std::fs::create_dir(&ours).unwrap();
        let frame = farm.assignment(0, session, &[1]);
        line.send(Down::Assign(Box::new(frame))).await;
        made.push(picture(&fetch(&farm, line.finished().await.1, &ours)));
    }
    assert!(made[0] != made[1], "the colours are the artist's");
    assert!(made[0] != made[2], "the add-on is at work");
    assert!(made[0] == made[3], "and serves no other job, also where that is trusted");
    assert!(made[0] == made[4]);
    let lost = SessionSpec { ocio: Some(RelPath::new("gone.ocio").unwrap()), ..plain.clone() };
    let frame = farm.assignment(0, &lost, &[1]);
    line.send(Down::Assign(Box::new(frame))).await;
    let AttemptReport::Failed { failure, .. } = line.finished().await.1 else { panic!("it did not fail") };
    assert_eq!(failure.cause, FailureCause::BadSetting, "{failure}");
    worker.stop_hard().await;
}
