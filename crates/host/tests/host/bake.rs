//! A bake's frames are those of a person who steps through the scene, and what cannot be baked is named.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kiln_host::{
    BakeRequest, Baked, BlenderInstall, HostOptions, OpenRequest, OpenedFile, RenderProgress, gather,
};
use kiln_testkit::{
    Blender, Picture, all_blenders, assert_same_picture, blenders, fluid_blenders, picture, temp_dir,
};
use kiln_types::{Failure, FailureCause, Simulations};

use crate::{Slot, install, session};

/// Not in their order, and back again.
const SHOWN: [i32; 3] = [7, 3, 10];

fn run(blender: &Blender, arguments: &[&std::ffi::OsStr]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/bakes.py");
    let mut command = Command::new(blender.program());
    if matches!(blender, Blender::Executable(_)) {
        command.args(["--background", "--factory-startup", "--python"]);
    }
    command.arg(script).arg("--").args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}", said.concat());
}

/// These scenes of `bakes.py`, written by this Blender.
fn scenes(blender: &Blender, names: &[&str]) -> tempfile::TempDir {
    let folder = temp_dir();
    let into = folder.path().join("scenes");
    let names = names.iter().map(std::ffi::OsStr::new);
    run(blender, &["build".as_ref(), into.as_os_str()].into_iter().chain(names).collect::<Vec<_>>());
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to)
        } else {
            drop(fs::copy(entry.path(), to))
        }
    }
}

impl Slot {
    /// A writable copy of a scene's folder in the slot, and what a bake of it is asked for.
    fn tree(&self, scenes: &Path, name: &str) -> BakeRequest {
        let tree = self.root.path().join("work").join(name);
        copy(&scenes.join(name), &tree);
        let blend = tree.join(format!("{name}.blend"));
        let session = session(&self.install, &blend);
        BakeRequest { tree, blend, session, remap: Vec::new(), unused: Vec::new(), addons: Vec::new() }
    }

    async fn open_unbaked(&mut self, blend: PathBuf) {
        let mut session = session(&self.install, &blend);
        session.policy.simulations = Simulations::AsTheyAre;
        let request = OpenRequest::new(blend, session);
        let opened = self.host.open(&request).await.unwrap();
        assert!(opened.notices.iter().any(|notice| notice.contains("without a bake")), "{opened:?}");
    }

    async fn open_baked(&mut self, blend: PathBuf) -> Result<OpenedFile, Failure> {
        let session = session(&self.install, &blend);
        assert_eq!(session.policy.simulations, Simulations::Bake);
        let request = OpenRequest::new(blend, session);
        self.host.open(&request).await
    }
}

/// The required likeness of a baked frame to the one that a person sees.
#[derive(Clone, Copy)]
enum Same {
    Pixels,
    /// Blender's own fluid solver ends a little otherwise in each run: at most this share of the values differs, and a
    /// multiple of it where nothing is baked.
    Nearly(f64),
}

fn compare(same: Same, baked: &Path, stepped: &Path, still: &Path) {
    let Same::Nearly(most) = same else { return assert_same_picture(baked, stepped) };
    let [baked, stepped, still] = [baked, stepped, still].map(picture);
    let share = |one: &Picture, other: &Picture| {
        let different = one.values.iter().zip(&other.values).filter(|(a, b)| a != b).count();
        different as f64 / one.values.len() as f64
    };
    let (moved, stood) = (share(&baked, &stepped), share(&still, &stepped));
    assert!(moved <= most && stood > 4.0 * most, "{moved} of the values differ, and {stood} without a bake");
}

/// Bakes scenes in one process, renders them in another, and holds the pictures against those of a person.
async fn baked_is_stepped(blender: &Blender, names: &[&str], same: Same) {
    let folder = scenes(blender, names);
    let scenes = folder.path().join("scenes");
    let stepped = folder.path().join("stepped");
    fs::create_dir(&stepped).unwrap();
    let all = names.iter().map(std::ffi::OsStr::new);
    let step = ["step".as_ref(), scenes.as_os_str(), stepped.as_os_str()];
    run(blender, &step.into_iter().chain(all).collect::<Vec<_>>());
    // The caches of who stepped would show in what stands still.
    for name in names {
        let _none = fs::remove_dir_all(scenes.join(name).join("elsewhere"));
        let _none = fs::remove_dir_all(scenes.join(name).join(format!("blendcache_{name}")));
    }
    let mut baker = Slot::start(install(blender), HostOptions::default()).await;
    let mut slot = Slot::start(install(blender), HostOptions::default()).await;
    for name in names {
        let request = baker.tree(&scenes, name);
        // As they came, frames would show it standing still.
        let failure = slot.open_baked(request.blend.clone()).await.expect_err(name);
        assert_eq!(failure.cause, FailureCause::Unbaked, "{name}: {failure}");
        assert!(failure.message.contains("--no-bake"), "{failure}");
        slot.open_unbaked(request.blend.clone()).await;
        let still = folder.path().join(format!("{name}_still.png"));
        let (out, rendered) = slot.render(*SHOWN.last().unwrap()).await.expect(name);
        fs::rename(out.join(rendered.planned[0].scratch.to_path()), &still).unwrap();
        let before = gather(&request.tree, 0).unwrap();
        let baked: Baked = baker.host.bake(&request).await.expect(name);
        assert!(
            !baked.simulated.is_empty() && baked.seconds > 0.0 && baked.peak_memory > 1 << 20,
            "{baked:?}"
        );
        let after = gather(&request.tree, before.len() + 20).unwrap();
        assert!(after.iter().all(|file| !file.path.as_str().ends_with(".blend1")), "{after:?}");
        // What is outside the tree is not what frames render from.
        let bundle = slot.root.path().join("bundle").join(name);
        copy(&request.tree, &bundle);
        fs::remove_dir_all(&request.tree).unwrap();
        slot.open_baked(bundle.join(format!("{name}.blend"))).await.expect(name);
        for frame in SHOWN {
            let (out, rendered) = slot.render(frame).await.expect(name);
            let baked = out.join(rendered.planned[0].scratch.to_path());
            compare(same, &baked, &stepped.join(format!("{name}_{frame}.png")), &still);
        }
        // What stands still is seen to: but for waves, which are low.
        let last = stepped.join(format!("{name}_{}.png", SHOWN[SHOWN.len() - 1]));
        assert!(*name == "waves" || picture(&still).values != picture(&last).values, "{name} shows nothing");
    }
}

#[tokio::test]
async fn frames_of_a_bake_are_those_of_a_person_who_steps_through_the_scene() {
    for blender in all_blenders() {
        let mut names = vec![
            "rigid", "cloth", "soft", "waves", "hair", "crowd", "costume", "puppet", "swarm", "carried",
            "rain", "sprays",
        ];
        // Debian's Blender is older than simulation nodes.
        if let Blender::Module(_) = blender {
            names.extend(["nodes", "late"]);
        }
        baked_is_stepped(&blender, &names, Same::Pixels).await;
    }
}

#[tokio::test]
async fn what_a_saved_file_does_not_show_and_what_other_scenes_hold_is_baked() {
    for blender in all_blenders() {
        let names = ["keyed", "backdrop", "composited", "cut", "lost"];
        baked_is_stepped(&blender, &names, Same::Pixels).await;
    }
}

#[tokio::test]
async fn a_frame_that_a_bake_lacks_is_refused_by_name_and_the_others_render() {
    for blender in blenders() {
        let folder = scenes(&blender, &["holes"]);
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        let request = slot.tree(&folder.path().join("scenes"), "holes");
        slot.open_baked(request.blend.clone()).await.unwrap();
        // One is gone, and one ends too early; and of nodes, what one frame alone names.
        let mut refused = vec![(7, "cloth of Sheet"), (9, "cloth of Sheet")];
        if let Blender::Module(_) = blender {
            refused.push((5, "simulation nodes of Cube"));
        }
        for (frame, name) in &refused {
            let failure = slot.render(*frame).await.expect_err(name);
            assert_eq!(failure.cause, FailureCause::Unbaked, "{failure}");
            for words in [*name, &format!("frame {frame} "), "--no-bake"] {
                assert!(failure.message.contains(words), "“{words}” is not in: {failure}");
            }
        }
        for frame in [3, 8, 10] {
            let (_, rendered) = slot.render(frame).await.unwrap();
            assert!(rendered.notices.is_empty(), "{rendered:?}");
        }
        let mut session = session(&slot.install, &request.blend);
        session.policy.simulations = Simulations::AsTheyAre;
        let open = OpenRequest::new(request.blend, session);
        slot.host.open(&open).await.unwrap();
        let mut notices = Vec::new();
        for (frame, _) in &refused {
            notices.extend(slot.render(*frame).await.unwrap().1.notices);
        }
        for (_, name) in refused {
            assert!(notices.iter().any(|notice| notice.contains(name)), "{notices:?}");
        }
    }
}

#[tokio::test]
async fn a_fluid_is_baked_into_the_tree_wherever_its_file_wanted_it() {
    // The wheels' own fluid solver ends the process.
    let programs = fluid_blenders().into_iter().filter(|blender| matches!(blender, Blender::Executable(_)));
    for program in programs {
        baked_is_stepped(&program, &["liquid", "drained"], Same::Nearly(0.01)).await;
    }
}

#[tokio::test]
async fn what_a_bake_cannot_do_is_named_and_the_process_lives() {
    for blender in blenders() {
        let folder = scenes(&blender, &["linked", "library", "still", "cloth"]);
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        for name in ["linked", "library"] {
            let request = slot.tree(&folder.path().join("scenes"), name);
            let opened = slot.open_baked(request.blend.clone()).await.unwrap_err();
            for failure in [opened, slot.host.bake(&request).await.unwrap_err()] {
                assert_eq!(failure.cause, FailureCause::Unbaked, "{failure}");
                for word in ["cloth of Sheet (from wardrobe.blend)", "--no-bake"] {
                    assert!(failure.message.contains(word), "“{word}” is not in: {failure}");
                }
            }
        }
        let request = slot.tree(&folder.path().join("scenes"), "still");
        let bytes = fs::read(&request.blend).unwrap();
        let baked = slot.host.bake(&request).await.unwrap();
        assert!(baked.simulated.is_empty(), "{baked:?}");
        assert_eq!(fs::read(&request.blend).unwrap(), bytes, "a scene without simulations stays as it is");
        let mut request = slot.tree(&folder.path().join("scenes"), "cloth");
        request.tree = folder.path().to_owned();
        let failure = slot.host.bake(&request).await.unwrap_err();
        assert!(failure.message.contains("not below"), "{failure}");
        assert!(slot.host.is_alive());
    }
}

#[tokio::test]
async fn textures_that_lay_elsewhere_are_named_from_the_file_once_it_is_baked() {
    for blender in blenders() {
        let folder = scenes(&blender, &["rigid"]);
        let scenes = folder.path().join("scenes");
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        let mut request = slot.tree(&scenes, "rigid");
        // What the artist's machine has at this name, no other has.
        let named = scenes.join("rigid/assets/wood.png");
        fs::remove_file(&named).unwrap();
        let failure = slot.host.bake(&request).await.unwrap_err();
        assert_eq!(failure.cause, FailureCause::MissingFiles, "{failure}");
        request.remap =
            vec![(named.to_str().unwrap().to_owned(), request.tree.join("assets").join("wood.png"))];
        slot.host.bake(&request).await.unwrap();
        let moved = slot.root.path().join("moved");
        fs::rename(&request.tree, &moved).unwrap();
        slot.open_baked(moved.join("rigid.blend"))
            .await
            .expect("every file is found from where the file lies");
    }
}

#[tokio::test]
async fn a_bake_tells_how_far_it_is_and_ends_when_it_is_called_off() {
    for blender in blenders() {
        let folder = scenes(&blender, &["long"]);
        let told: Arc<Mutex<Vec<RenderProgress>>> = Arc::default();
        let (noted, notify) = (told.clone(), Arc::new(tokio::sync::Notify::new()));
        let wake = notify.clone();
        let options = HostOptions {
            progress: Some(Arc::new(move |progress| {
                noted.lock().unwrap().push(progress);
                wake.notify_one();
            })),
            ..HostOptions::default()
        };
        let mut slot = Slot::start(install(&blender), options).await;
        let request = slot.tree(&folder.path().join("scenes"), "long");
        let pid = slot.host.pid();
        {
            let bake = slot.host.bake(&request);
            tokio::pin!(bake);
            while told.lock().unwrap().len() < 3 {
                tokio::select! {
                    result = &mut bake => panic!("it takes minutes: {result:?}"),
                    () = notify.notified() => {}
                }
            }
        }
        let called_off = Instant::now();
        let gone = || fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty();
        kiln_testkit::wait_until(Duration::from_secs(2), "the process ends", gone);
        println!("ended {:.0} ms after it was called off", called_off.elapsed().as_secs_f64() * 1000.0);
        let told = told.lock().unwrap();
        let done: Vec<_> = told.iter().map(|progress| progress.samples.unwrap()).collect();
        assert!(done.is_sorted() && done[0].0 < done[2].0, "{done:?}");
        assert!(done.iter().all(|(_, all)| *all == 1000), "{done:?}");
        assert!(!slot.host.is_alive());
    }
}

#[tokio::test]
async fn a_wheel_that_would_end_on_a_fluid_says_so_first() {
    let Some(wheel) = blenders().into_iter().find(|blender| matches!(blender, Blender::Module(_))) else {
        return;
    };
    let Some(program @ Blender::Executable(_)) = fluid_blenders().into_iter().next() else { return };
    let folder = scenes(&program, &["liquid"]);
    let install: BlenderInstall = install(&wheel);
    let mut slot = Slot::start(install, HostOptions::default()).await;
    let request = slot.tree(&folder.path().join("scenes"), "liquid");
    let failure = slot.host.bake(&request).await.unwrap_err();
    assert!(failure.message.contains("Python module"), "{failure}");
    assert_eq!(failure.cause, FailureCause::NeedsProgram, "{failure}");
    assert!(failure.cause.is_worker_failure() && !failure.cause.stops_job(), "another worker can");
}

/// With the gravity that a person sets, what falls is baked as it then falls: not at all.
#[tokio::test]
async fn a_bake_simulates_with_the_properties_that_are_set() {
    for blender in blenders() {
        let folder = scenes(&blender, &["rigid"]);
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        let mut pictures = Vec::new();
        for gravity in [-9.81, 0.0] {
            let mut baker = Slot::start(install(&blender), HostOptions::default()).await;
            let mut request = baker.tree(&folder.path().join("scenes"), "rigid");
            let set = serde_json::json!({"gravity[2]": gravity, "render.image_settings.color_mode": "RGB"});
            request.session.settings.properties = serde_json::from_value(set).unwrap();
            assert!(!baker.host.bake(&request).await.unwrap().simulated.is_empty());
            for frame in [1, 10] {
                slot.host
                    .open(&OpenRequest::new(request.blend.clone(), request.session.clone()))
                    .await
                    .unwrap();
                let (out, rendered) = slot.render(frame).await.unwrap();
                pictures.push(picture(&out.join(rendered.planned[0].scratch.to_path())));
            }
        }
        let [start, fallen, floating_start, floating] = pictures.try_into().unwrap();
        assert!(start != fallen && fallen != floating, "{blender:?}");
        assert!(floating_start == floating, "{blender:?}");
    }
}
