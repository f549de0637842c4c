//! The data that a process keeps between frames never shows: where persistent data alone is wrong, it is cured or off.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kiln_host::{HostOptions, OpenRequest, OpenedFile, ReuseMode};
use kiln_testkit::{
    Blender, Picture, all_blenders, assert_same_picture, blender, blenders, picture, temp_dir,
};

use kiln_types::Simulations;

use crate::{Slot, install, session, trusted, trusting};

/// Leaps, and a frame back: the file is opened again.
const ORDER: [i32; 4] = [1, 2, 6, 4];

fn scenes(names: &[&str]) -> tempfile::TempDir {
    let folder = temp_dir();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/host/persistent.py");
    let mut command = Command::new(blender());
    command
        .args(["--background", "--factory-startup", "--python", script, "--"])
        .arg(folder.path())
        .args(names);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{}", said.concat());
    folder
}

fn blend(scenes: &Path, name: &str) -> PathBuf {
    scenes.join(name).join(format!("{name}.blend"))
}

impl Slot {
    async fn open_kept(&mut self, blend: PathBuf, trust: bool) -> OpenedFile {
        let mut session = session(&self.install, &blend);
        if trust {
            trusted(&mut session);
            session.policy.simulations = Simulations::AsTheyAre;
        }
        let request = OpenRequest::new(blend, session);
        self.host.open(&request).await.unwrap()
    }

    /// Renders the frames in their order; where each picture lies.
    async fn pictures(&mut self, frames: &[i32]) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for frame in frames {
            let (out, rendered) = self.render(*frame).await.unwrap();
            found.push(out.join(rendered.planned[0].scratch.to_path()));
        }
        found
    }
}

fn cold(blender: &Blender, blend: &Path, frame: i32, trust: bool, folder: &Path) -> PathBuf {
    blender.render_cold(blend, frame, Some(&folder.join("cold_####")), trust);
    folder.join(format!("cold_{frame:04}.png"))
}

/// The pixels of one of the cells that `persistent.py` lays out from below.
fn cell(whole: &Picture, at: usize) -> Vec<u32> {
    const CELL: usize = 6;
    const COLUMNS: usize = 6;
    let (width, height) = (whole.width as usize, whole.height as usize);
    let channels = whole.values.len() / width / height;
    let left = at % COLUMNS * CELL * channels;
    let top = height - (at / COLUMNS + 1) * CELL;
    let rows = (top..top + CELL).map(|row| row * width * channels + left);
    rows.flat_map(|from| whole.values[from..from + CELL * channels].to_vec()).collect()
}

#[tokio::test]
async fn images_that_move_are_never_stale() {
    let scenes = scenes(&["images"]);
    let file = blend(scenes.path(), "images");
    let names = fs::read_to_string(file.with_file_name("cells.txt")).unwrap();
    for blender in all_blenders() {
        let mut slot = Slot::start(install(&blender), HostOptions::default()).await;
        let opened = slot.open_kept(file.clone(), false).await;
        assert_eq!(opened.reuse.how, ReuseMode::Kept, "{:?}", opened.reuse);
        let warm = slot.pictures(&ORDER).await;
        let folder = temp_dir();
        let mut seen = Vec::new();
        for (at, frame) in ORDER.iter().enumerate().skip(2) {
            let cold = picture(&cold(&blender, &file, *frame, false, folder.path()));
            let warm = picture(&warm[at]);
            for (at, name) in names.lines().enumerate() {
                assert!(cell(&warm, at) == cell(&cold, at), "{blender:?}, frame {frame}: {name}");
            }
            assert!(warm == cold, "{blender:?}, frame {frame}");
            seen.push(cold);
        }
        for (at, name) in names.lines().enumerate() {
            let different: HashSet<_> = seen.iter().map(|whole| cell(whole, at)).collect();
            assert_eq!(different.len(), seen.len(), "{blender:?}: {name} does not move");
        }
    }
}

#[tokio::test]
async fn what_persistent_data_gets_wrong_is_rendered_without() {
    let expected = [
        ("handlers", ReuseMode::Reopened),
        ("particles", ReuseMode::Reopened),
        ("cloth", ReuseMode::Reopened),
        ("itasc", ReuseMode::Dropped),
        ("rest", ReuseMode::Dropped),
        ("simplify", ReuseMode::Dropped),
        ("shutter", ReuseMode::Dropped),
        ("layer", ReuseMode::Dropped),
        ("hair", ReuseMode::Dropped),
        ("appear", ReuseMode::Dropped),
    ];
    let scenes = scenes(&expected.map(|(name, _)| name));
    for blender in blenders() {
        let mut slot = Slot::start(install(&blender), trusting()).await;
        for (name, how) in expected {
            let file = blend(scenes.path(), name);
            let opened = slot.open_kept(file.clone(), true).await;
            assert_eq!(opened.reuse.how, how, "{name}: {:?}", opened.reuse);
            assert_eq!(opened.reuse.reasons.len(), 1, "{name}: {:?}", opened.reuse);
            let warm = slot.pictures(&ORDER).await;
            let folder = temp_dir();
            for (at, frame) in ORDER.iter().enumerate().skip(2) {
                assert_same_picture(&warm[at], &cold(&blender, &file, *frame, true, folder.path()));
            }
        }
    }
}
