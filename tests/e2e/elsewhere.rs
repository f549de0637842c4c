//! One project of each Blender, with every kind of file that it can make, submitted from its folder and rendered on a
//! machine in another network that has none of its paths.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use kiln_testkit::{Blender, assert_same_picture, fluid_blenders, skip};

use crate::{netns::Lan, support::Home};

const LIMIT: Duration = Duration::from_secs(300);
pub const SCRIPT: &str = include_str!("elsewhere.py");
/// The kinds that every Blender must have made, or the test would prove less than it says.
const KINDS: &[&str] = &[
    "movie",
    "movie as texture",
    "movie strip",
    "font",
    "image in the compositor",
    "image sequence",
    "image strip",
    "image, absolute",
    "image, relative",
    "library in a library",
    "library, absolute, changed in the shot",
    "light profile",
    "mesh cache",
    "movie clip",
    "point cache on disk",
    "sound",
    "udim",
    "volume sequence",
];
/// The kinds that Debian's Blender was built without, or cannot do yet.
const OF_WHEELS: &[&str] = &["alembic", "usd", "simulation nodes baked to the disk"];

/// Builds the project; `first` is one whose OpenVDB files may be used. With `stamped`, the pictures of the cut show
/// where it lies.
pub fn build(blender: &Blender, script: &Path, project: &Path, first: &Path, stamped: bool) {
    let mut command = Command::new(blender.program());
    match blender {
        Blender::Executable(_) => {
            command.args(["--background", "--factory-startup", "--python"]).arg(script).arg("--");
        }
        Blender::Module(_) => {
            command.arg("-I").arg(script);
        }
    }
    let output = command.arg(project).arg(first).args(stamped.then_some("stamped")).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let made = fs::read(project.join("made.json"));
    let made: BTreeSet<String> = made.map_or_else(
        |_| panic!("{blender:?} made no project:\n{said}{}", String::from_utf8_lossy(&output.stderr)),
        |text| serde_json::from_slice(&text).unwrap(),
    );
    let more = match blender {
        Blender::Executable(_) => &["fluid"][..],
        Blender::Module(_) => OF_WHEELS,
    };
    for kind in KINDS.iter().chain(more) {
        assert!(made.contains(*kind), "{blender:?} did not make “{kind}”:\n{said}");
    }
}

#[test]
fn every_kind_of_file_is_taken_along() {
    let blenders = fluid_blenders();
    if blenders.is_empty() {
        return skip("no Blender here makes the files");
    }
    let Some(lan) = Lan::new(1) else { return };
    let script = lan.client.work().join("elsewhere.py");
    fs::write(&script, SCRIPT).unwrap();
    let projects = lan.client.work().join("projects");
    let at_home = lan.client.work().join("at-home");
    let project = |index: usize| projects.join(format!("Проект {index}"));
    for (index, blender) in blenders.iter().enumerate() {
        build(blender, &script, &project(index), &project(0), true);
    }

    assert_eq!(lan.names_in(1, &projects, &projects), "", "the other machine sees none of it");

    let home = Home::new();
    let mut options = vec!["--slots", "2"];
    for blender in &blenders {
        options.extend(["--blender", blender.program().to_str().unwrap()]);
    }
    let _worker = lan.worker(1, &home, &options, Some(&projects));
    let mut jobs = Vec::new();
    for index in 0..blenders.len() {
        for (name, frames) in [("all", "1,3"), ("cut", "2")] {
            let blend = project(index).join(format!("shots/{name}.blend"));
            let submitted = lan.json(&["submit", blend.to_str().unwrap(), "--frames", frames, "--json"]);
            jobs.push((index, name, frames, blend, submitted["job"]["id"].to_string()));
        }
    }
    for (index, name, frames, blend, job) in jobs {
        lan.wait(&job, LIMIT);
        let out = lan.client.work().join(format!("out-{index}-{name}"));
        let said = lan.run(&["jobs", "fetch", &job, "--out", out.to_str().unwrap()]);
        assert_eq!(said.code, 0, "{}", said.err);
        for frame in frames.split(',').map(|frame| frame.parse().unwrap()) {
            let cold = at_home.join(format!("{index}-{name}-"));
            blenders[index].render_cold(&blend, frame, Some(&cold), false);
            let cold = at_home.join(format!("{index}-{name}-{frame:04}.png"));
            let came = fetched(&out, frame);
            println!("{:?} {name} {frame}", blenders[index]);
            assert_same_picture(&came, &cold);
            assert_names_only(&came, &blend, &home.data());
        }
    }
}

/// The picture's metadata name the artist's .blend, and nothing of the machine that rendered it.
#[track_caller]
pub fn assert_names_only(picture: &Path, blend: &Path, elsewhere: &Path) {
    let bytes = fs::read(picture).unwrap();
    let names = |text: &Path| {
        let text = text.as_os_str().as_encoded_bytes();
        bytes.windows(text.len()).any(|part| part == text)
    };
    assert!(names(blend), "{} does not name {}", picture.display(), blend.display());
    assert!(!names(elsewhere), "{} names {}", picture.display(), elsewhere.display());
}

/// The one picture of this frame below the folder.
pub fn fetched(out: &Path, frame: i32) -> std::path::PathBuf {
    let ending = format!("{frame:04}.png");
    let mut folders = vec![out.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(&ending) {
                found.push(path);
            }
        }
    }
    assert_eq!(found.len(), 1, "{found:?} in {}", out.display());
    found.remove(0)
}
