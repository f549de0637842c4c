//! Frames come home under the names that a cold Blender gives them, whatever the paths of the scene are.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use kiln_host::{HostOptions, OpenRequest, PlannedFile};
use kiln_testkit::{Blender, all_blenders, picture, temp_dir};
use kiln_types::{FailureCause, RelPath, SessionSpec};

use crate::{Slot, install, session};

type Told = BTreeMap<String, BTreeMap<i32, BTreeSet<String>>>;

/// Builds the scenes in this folder, and tells what Blender wrote for them.
fn build(blender: &Blender, folder: &Path) -> Told {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/names.py");
    let output = blender.script(&script).arg(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("made"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&fs::read(folder.join("names.json")).unwrap()).unwrap()
}

/// The session of a file that lies here under another name than on the artist's machine.
fn moved(slot: &Slot, blend: &Path, scene: &str) -> OpenRequest {
    let own = blend.file_name().unwrap().to_str().unwrap();
    let here = slot.root.input().join("scene.blend");
    fs::copy(blend, &here).unwrap();
    let library = blend.with_file_name("sub/kit.v2.blend");
    if library.is_file() {
        fs::create_dir_all(here.with_file_name("sub")).unwrap();
        fs::copy(library, here.with_file_name("sub/kit.v2.blend")).unwrap();
    }
    let mut session = SessionSpec {
        blend: RelPath::new("scene.blend").unwrap(),
        origin: Some(blend.parent().unwrap().to_str().unwrap().to_owned()),
        file_name: Some(own.to_owned()),
        ..session(&slot.install, &here)
    };
    session.settings.scene = Some(scene.to_owned());
    OpenRequest::new(here, session)
}

/// Wherever the artist's folder is said to be, and on whichever system: `{blend_dir}` is the output folder.
async fn check_origins(slot: &mut Slot, blend: &Path) {
    for (origin, expected) in [
        (Some("C:\\project\\shots"), "all1/f_0005.png"),
        (Some("/fi\nlm/\0e9"), "all1/f_0005.png"),
        (Some("../../.."), "all1/f_0005.png"),
        (None, "all1/f_0005.png"),
    ] {
        let mut request = moved(slot, blend, "Sc: \"e\"/n#e1");
        request.session.origin = origin.map(str::to_owned);
        slot.host.open(&request).await.unwrap_or_else(|failure| panic!("{origin:?}: {failure}"));
        let (_, rendered) = slot.render(5).await.unwrap_or_else(|failure| panic!("{origin:?}: {failure}"));
        let names: Vec<&str> = rendered.planned.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(names, [expected], "{origin:?}");
    }
    // A library that lies elsewhere on the artist's machine.
    let mut request = moved(slot, blend, "linked");
    let library = request.blend.with_file_name("sub/kit.v2.blend");
    request.remap = vec![("//../kits/\0e9/Kit: 1.blend".to_owned(), library)];
    request.session.origin = Some("/project/shots".to_owned());
    slot.host.open(&request).await.unwrap();
    let (_, rendered) = slot.render(5).await.unwrap();
    let names: Vec<&str> = rendered.planned.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(names, ["linked/main_0005.png", "a_0005.png"], "its folder lies outside");
}

fn blend_in(folder: &Path) -> PathBuf {
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|ending| ending == "blend")).unwrap()
}

#[tokio::test]
async fn frames_are_called_as_a_cold_blender_calls_them() {
    for blender in all_blenders() {
        let home = temp_dir();
        let folder = home.path().canonicalize().unwrap();
        let told = build(&blender, &folder);
        // The worker's own folder may have any name too, and braces in it mean nothing.
        let own = OsStr::from_bytes(b"{blend_dir} {nope\n\xe9");
        let mut slot = Slot::start_in(own, install(&blender), HostOptions::default()).await;
        let blend = blend_in(&folder);
        if install(&blender).version.series() >= "5.0".parse().unwrap() {
            check_origins(&mut slot, &blend).await;
        }
        for (scene, frames) in &told {
            let request = moved(&slot, &blend, scene);
            if frames.is_empty() {
                let failure = slot.host.open(&request).await.unwrap_err();
                assert_eq!(failure.cause, FailureCause::BadSetting, "{scene}: {failure}");
                assert!(failure.message.contains("Blender cannot write to"), "{scene}: {failure}");
                continue;
            }
            slot.host.open(&request).await.unwrap_or_else(|failure| panic!("{blender:?} {scene}: {failure}"));
            for (frame, names) in frames {
                let (out, rendered) = slot
                    .render(*frame)
                    .await
                    .unwrap_or_else(|failure| panic!("{blender:?} {scene} frame {frame}: {failure}"));
                let ours: BTreeSet<String> =
                    rendered.planned.iter().map(|file| file.path.to_string()).collect();
                assert_eq!(&ours, names, "{blender:?} {scene} frame {frame}");
                let ended = |file: &&PlannedFile| {
                    file.path.as_str().ends_with("png") || file.path.as_str().ends_with("exr")
                };
                for file in rendered.planned.iter().filter(|file| file.width > 0).filter(ended) {
                    let found = picture(&out.join(file.scratch.to_path()));
                    assert_eq!((found.width, found.height), (file.width, file.height), "{}", file.path);
                }
            }
        }
    }
}
