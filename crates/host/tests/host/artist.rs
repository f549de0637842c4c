//! A scene shows the path that its .blend has on the artist's machine, and finds its files where they lie here.

use std::{fs, path::Path, process::Command};

use kiln_host::OpenRequest;
use kiln_testkit::{Blender, all_blenders, assert_same_picture, picture, temp_dir};

use crate::{Slot, install, session, trusted, trusting};

/// Builds the scenes in this folder.
fn build(blender: &Blender, folder: &Path) {
    let mut command = Command::new(blender.program());
    if let Blender::Executable(_) = blender {
        command.args(["--background", "--factory-startup", "-noaudio", "--python"]);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/artist.py");
    let output = command.arg(script).arg("--").arg(folder).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("made"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn holds(file: &Path, text: &str) -> bool {
    let bytes = fs::read(file).unwrap();
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

#[tokio::test]
async fn pictures_show_the_artists_path_and_names_still_lead_to_files() {
    for blender in all_blenders() {
        let folder = temp_dir();
        let at = |name: &str| folder.path().join(name);
        let (home, bundle) = (at("home/project"), at("bundle"));
        build(&blender, &home);
        copy(&home, &bundle);
        let names = ["shot", "cut"];
        for name in names {
            let (blend, out) = (home.join(name).with_extension("blend"), at(&format!("cold-{name}-####")));
            blender.render_cold(&blend, 5, Some(&out), true);
        }
        fs::rename(at("home"), at("gone")).unwrap();
        let mut slot = Slot::start(install(&blender), trusting()).await;
        for (name, origin) in
            [("shot", &*home.to_string_lossy()), ("cut", &*home.to_string_lossy()), ("shot", "C:\\project")]
        {
            let blend = bundle.join(name).with_extension("blend");
            let mut session = session(&slot.install, &blend);
            trusted(&mut session);
            session.origin = Some(origin.to_owned());
            let windows = origin.contains('\\');
            let opened = slot.host.open(&OpenRequest::new(blend, session)).await.unwrap();
            assert!(!opened.notices.iter().any(|notice| notice.contains("worker")), "{:?}", opened.notices);
            // The last one goes back in time.
            for frame in if windows { vec![5] } else { vec![3, 6, 5] } {
                let (out, rendered) = slot.render(frame).await.unwrap();
                let slash = if windows { "\\" } else { "/" };
                let shown = format!("{origin}{slash}{name}.blend");
                for file in &rendered.planned {
                    let path = out.join(file.scratch.to_path());
                    // Before 4.2 the compositor's files have no metadata.
                    let bare = file.scratch.as_str().starts_with("node") && !holds(&path, "File\0");
                    assert!(bare || holds(&path, &shown), "{blender:?}: {} {shown}", path.display());
                    for here in [&bundle, slot.root.path()] {
                        let here = here.to_str().unwrap();
                        assert!(!holds(&path, here), "{blender:?}: {} names {here}", path.display());
                    }
                }
                if frame != 5 {
                    continue;
                }
                let warm = out.join(rendered.planned[0].scratch.to_path());
                let cold = at(&format!("cold-{name}-0005.png"));
                if windows {
                    assert!(picture(&warm) != picture(&cold), "{blender:?}: the path is not in the picture");
                } else {
                    println!("{blender:?}: {name}");
                    assert_same_picture(&warm, &cold);
                }
            }
        }
    }
}
