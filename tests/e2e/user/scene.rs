//! The project that the user works on, in every version, with its pictures as a fresh Blender renders them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use kiln_testkit::{Blender, Picture, assert_same_picture, blender, built, picture, temp_dir};

const SCRIPT: &str = include_str!("scene.py");

pub const SHOTS: u8 = 3;
pub const ASSETS: u8 = 2;
pub const WOODS: u8 = 3;
/// The frames that are ever asked for.
pub const FRAMES: std::ops::RangeInclusive<i32> = 1..=4;
/// The scene's own range.
pub const RANGE: &[i32] = &[1, 2, 3];
/// Settings that a user gives on the command line, in the order of `scene.py`.
pub const CHOICES: &[&[&str]] = &[&[], &["--samples", "3"], &["--resolution", "50%"]];

/// The files of a project: the shot, the library that it links, the texture of that.
pub const INPUTS: [&str; 3] = ["shot.blend", "lib/asset.blend", "tex/wood.png"];

/// Everything that a project's pixels depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Content {
    pub shot: u8,
    pub asset: u8,
    pub wood: u8,
}

/// One picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Look {
    pub content: Content,
    pub choice: usize,
    pub frame: i32,
}

/// The files of all versions, and the reference of each picture.
pub struct Scenes {
    folder: PathBuf,
    cold: BTreeMap<Look, Picture>,
}

impl Look {
    fn name(self) -> String {
        let Content { shot, asset, wood } = self.content;
        format!("{shot}-{asset}-{wood}-{}-{:04}.png", self.choice, self.frame)
    }

    fn all() -> impl Iterator<Item = Self> {
        let contents = (0..SHOTS).flat_map(|shot| {
            (0..ASSETS).flat_map(move |asset| (0..WOODS).map(move |wood| Content { shot, asset, wood }))
        });
        contents.flat_map(|content| {
            (0..CHOICES.len())
                .flat_map(move |choice| FRAMES.map(move |frame| Self { content, choice, frame }))
        })
    }
}

/// The name of a frame below its output folder.
pub fn frame_name(frame: i32) -> String {
    format!("frames/f_{frame:04}.png")
}

impl Scenes {
    /// Built once into the build folder.
    pub fn get() -> &'static Self {
        static BUILT: OnceLock<Scenes> = OnceLock::new();
        BUILT.get_or_init(|| {
            let folder = built("kiln-user", &[("scene.py", SCRIPT)]);
            let cold: BTreeMap<Look, Picture> =
                Look::all().map(|look| (look, picture(&folder.join("cold").join(look.name())))).collect();
            let mut seen: HashMap<(u32, &[u32]), Look> = HashMap::new();
            for (look, picture) in &cold {
                let same = seen.insert((picture.width, &picture.values), *look);
                assert_eq!(same, None, "{look:?} has the same picture: no test could tell them apart");
            }
            Self { folder, cold }
        })
    }

    pub fn shot(&self, number: u8) -> PathBuf {
        self.folder.join(format!("shot-{number}.blend"))
    }

    pub fn asset(&self, number: u8) -> PathBuf {
        self.folder.join(format!("asset-{number}.blend"))
    }

    pub fn wood(&self, number: u8) -> PathBuf {
        self.folder.join(format!("wood-{number}.png"))
    }

    /// Makes a project of this version.
    pub fn put_together(&self, project: &Path, content: Content) {
        for folder in ["lib", "tex"] {
            fs::create_dir_all(project.join(folder)).unwrap();
        }
        fs::copy(self.shot(content.shot), project.join(INPUTS[0])).unwrap();
        fs::copy(self.asset(content.asset), project.join(INPUTS[1])).unwrap();
        fs::copy(self.wood(content.wood), project.join(INPUTS[2])).unwrap();
    }

    pub fn cold(&self, look: Look) -> &Picture {
        &self.cold[&look]
    }

    /// The references that a picture equals.
    pub fn named(&self, picture: &Picture) -> Vec<Look> {
        self.cold.iter().filter(|(_, cold)| *cold == picture).map(|(look, _)| *look).collect()
    }
}

/// One process rendered them all, which opened the file for each: that is as good as a process for each frame.
#[test]
fn the_references_are_those_of_a_process_each() {
    let scenes = Scenes::get();
    let looks = [(Content { shot: 0, asset: 0, wood: 0 }, 1), (Content { shot: 2, asset: 1, wood: 2 }, 4)];
    for (content, frame) in looks {
        let project = temp_dir();
        scenes.put_together(project.path(), content);
        let out = project.path().join("f_");
        let file = project.path().join("shot.blend");
        Blender::Executable(blender()).render_cold(&file, frame, Some(&out), false);
        let look = Look { content, choice: 0, frame };
        let cold = scenes.folder.join("cold").join(look.name());
        assert_same_picture(&project.path().join(format!("f_{frame:04}.png")), &cold);
    }
}
