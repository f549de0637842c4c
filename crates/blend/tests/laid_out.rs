//! Every kind of file, found by Kiln and layout out elsewhere: a real Blender has to find each of them there, once home
//! is gone.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use kiln_blend::{
    BundleLayout, Dependencies, ExternalKind, SharedRoot, find_dependencies, find_ocio_files, plan_layout,
    point_libraries,
};
use kiln_testkit::{
    Blender, all_blenders, assert_same_picture, blender, is_blender_3_4, picture, skip, temp_dir, wheel,
};
use serde::Deserialize;

/// Blender's own account of an opened file.
#[derive(Deserialize)]
struct Opened {
    /// The datablock that names a file, and the path: bytes in hexadecimal digits.
    names: BTreeMap<String, String>,
    /// Of Blender's own list, what the names have not.
    only_blender: Vec<String>,
    missing: Vec<String>,
    sizes: BTreeMap<String, [u32; 2]>,
    played: BTreeMap<String, Vec<bool>>,
    grids: BTreeMap<String, bool>,
    /// The linked data of the shot.
    shot: BTreeMap<String, String>,
}

fn path(digits: &str) -> PathBuf {
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    OsString::from_vec((0..digits.len()).step_by(2).map(byte).collect()).into()
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

#[track_caller]
fn run(blender: &Blender, name: &str, arguments: &[&Path], made: &Path) {
    let mut command = blender.script(&script(name));
    let output = command.args(arguments).output().expect("Blender starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(made.exists(), "{command:?}\n{out}\n{err}");
}

fn open(blender: &Blender, blend: &Path, remap: &Path, folder: &Path, shot: &str) -> Opened {
    let result = folder.join(format!("{shot}.json"));
    run(blender, "opened.py", &[blend, remap, &result, &folder.join(shot)], &result);
    serde_json::from_slice(&fs::read(result).unwrap()).unwrap()
}

/// A project, what Blender says of it at home, and what Kiln found.
struct Project {
    blender: Blender,
    folder: tempfile::TempDir,
    home: Opened,
    found: Dependencies,
}

impl Project {
    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(below)
    }

    fn make(blender: Blender, fluid: Option<&Path>) -> Self {
        let folder = temp_dir();
        let root = folder.path().canonicalize().unwrap();
        let main = root.join("home/project/shots/main.blend");
        let arguments: Vec<&Path> = [root.as_path()].into_iter().chain(fluid).collect();
        run(&blender, "kinds.py", &arguments, &root.join("home/project/shots/main.blend1"));
        let found = find_dependencies(&main).unwrap();
        // At home, too, somebody has to put the case of the letters right.
        fs::create_dir(root.join("home/project/lib/tex")).unwrap();
        fs::copy(root.join("home/project/lib/Tex/Leaf.PNG"), root.join("home/project/lib/tex/leaf.png"))
            .unwrap();
        let home = open(&blender, &main, Path::new(""), &root, "home");
        fs::remove_dir_all(root.join("home/project/lib/tex")).unwrap();
        // Whatever still leads home leads nowhere from now on.
        fs::rename(root.join("home"), root.join("gone")).unwrap();
        Self { blender, folder, home, found }
    }

    /// The path of a file of the home after the move.
    fn moved(&self, path: &Path) -> PathBuf {
        self.path("gone").join(path.strip_prefix(self.path("home")).unwrap())
    }

    /// The layout, made before home was gone, as a worker lays it out.
    fn lay_out(&self, layout: &BundleLayout, below: &str) -> PathBuf {
        let bundle = self.path(below);
        for (place, source) in &layout.files {
            let place = bundle.join(place.to_path());
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(self.moved(source), place).unwrap();
        }
        point_libraries(&bundle, &layout.blend, &layout.remap).unwrap();
        let remap: BTreeMap<&String, PathBuf> =
            layout.remap.iter().map(|(key, place)| (key, bundle.join(place.to_path()))).collect();
        fs::write(bundle.join("remap.json"), serde_json::to_vec(&remap).unwrap()).unwrap();
        bundle
    }

    /// All that was found at home is found in the bundle, byte for byte.
    #[track_caller]
    fn check(&self, away: &Opened, bundle: &Path, shot: &str) {
        let name = &self.blender;
        assert_eq!(away.missing, [""; 0], "{name:?}");
        assert_eq!(
            away.names.keys().collect::<Vec<_>>(),
            self.home.names.keys().collect::<Vec<_>>(),
            "{name:?}"
        );
        for (label, there) in &away.names {
            let (here, there) = (path(&self.home.names[label]), path(there));
            assert!(there.starts_with(bundle), "{name:?}: {label} leads to {}", there.display());
            let pairs = pairs(&self.moved(&spelled_right(&here)), &there);
            assert!(!pairs.is_empty(), "{name:?}: {label} leads to an empty folder");
            for (here, there) in pairs {
                let read = |path: &Path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
                // Libraries that name others may name them elsewhere now.
                let library = there.extension().is_some_and(|ending| ending == "blend");
                assert!(
                    library || read(&here) == read(&there),
                    "{name:?}: {label}: {} changed",
                    there.display()
                );
            }
        }
        assert_eq!(away.sizes, self.home.sizes, "{name:?}");
        for (label, told) in &self.home.shot {
            assert_eq!(away.shot.get(label), Some(told), "{name:?}: {label}");
        }
        assert_eq!(away.shot.len(), self.home.shot.len(), "{name:?}");
        assert_eq!((&away.played, &away.grids), (&self.home.played, &self.home.grids), "{name:?}");
        let shown = |shot: &str| self.path(&format!("{shot}0002.png"));
        println!("{name:?}: {shot}");
        assert_same_picture(&shown("home"), &shown(shot));
    }
}

/// The one that is found although the .blend spells it otherwise.
fn spelled_right(path: &Path) -> PathBuf {
    let text = path.to_str().unwrap_or_default();
    if text.ends_with("lib/tex/leaf.png") {
        text.replace("tex/leaf.png", "Tex/Leaf.PNG").into()
    } else {
        path.into()
    }
}

/// The files that a path stands for, at home and in the bundle.
fn pairs(here: &Path, there: &Path) -> Vec<(PathBuf, PathBuf)> {
    if let Some(text) = there.to_str().filter(|text| text.contains("<UDIM>")) {
        let here = here.to_str().unwrap();
        let tile = |text: &str, number: &str| PathBuf::from(text.replace("<UDIM>", number));
        return ["1001", "1002"].map(|number| (tile(here, number), tile(text, number))).to_vec();
    }
    if !here.is_dir() {
        return vec![(here.to_owned(), there.to_owned())];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(here).unwrap() {
        let name = entry.unwrap().file_name();
        found.extend(pairs(&here.join(&name), &there.join(&name)));
    }
    found
}

/// The whole of it, by one Blender: home goes only once, and takes a while to make.
fn check_all(blender: Blender) {
    // Only Debian's Blender can bake fluids: the wheels abort.
    let is_wheel = matches!(blender, Blender::Module(_));
    let fluid = is_wheel.then(|| {
        let system = Blender::Executable(kiln_testkit::blender());
        system.build(&script("kinds.py"), &[], "home/project/shots/main.blend1").join("home/far/fluid")
    });
    let project = Project::make(blender, fluid.as_deref());
    let shared = SharedRoot { name: "far".parse().unwrap(), root: project.path("home/far") };
    let (layout, apart) =
        (plan_layout(&project.found, &[], &[]), plan_layout(&project.found, &[shared], &[]));
    every_name_in_blender_is_a_dependency(&project);
    a_bundle_renders_where_home_is_gone(&project, &layout);
    what_is_saved_after_a_bake_still_finds_all(&project, &layout);
    files_on_a_shared_root_are_linked_not_taken(&project, &layout, &apart);
}

/// By the Python that a variable names, if it does.
fn check_wheel(variable: &str) {
    match wheel(variable) {
        Some(python) => check_all(Blender::Module(python)),
        None => skip(&format!("{variable} names no Python with a bpy wheel")),
    }
}

#[test]
fn all_is_found_and_laid_out_in_3_4() {
    if is_blender_3_4() {
        check_all(Blender::Executable(blender()));
    }
}

#[test]
fn all_is_found_and_laid_out_in_4_2() {
    check_wheel("KILN_TEST_BPY_42");
}

#[test]
fn all_is_found_and_laid_out_in_4_5() {
    check_wheel("KILN_TEST_BPY_45");
}

#[test]
fn all_is_found_and_laid_out_in_5_0() {
    check_wheel("KILN_TEST_BPY");
}

fn every_name_in_blender_is_a_dependency(project: &Project) {
    let name = &project.blender;
    let ours: BTreeSet<&Path> = project.found.items.iter().map(|item| item.place.as_path()).collect();
    let theirs = project.home.names.values().chain(&project.home.only_blender).map(|digits| path(digits));
    let missed: Vec<PathBuf> = theirs.filter(|path| !ours.contains(spelled_right(path).as_path())).collect();
    assert!(missed.is_empty(), "{name:?}: missed {missed:?} of {ours:?}");
    assert_eq!(project.home.only_blender, [""; 0], "{name:?}: this test knows less than Blender");
    let kinds: BTreeSet<ExternalKind> = project.found.items.iter().map(|item| item.file.kind).collect();
    // Alembic, USD and nodes that simulate or read files are in the newer ones.
    assert!(kinds.len() >= 16, "{name:?}: {kinds:?}");
    let stereo = project.path("home/far/stereo/e_R.png");
    assert!(project.found.items.iter().any(|item| item.files.contains(&stereo)), "{name:?}");
    assert!(project.found.items.iter().all(|item| item.exists()), "{name:?}");
    // One is named by a text, the other by a binary file.
    for layer in ["shape.usdc", "other.usd"] {
        let path = project.path("home/far/caches/layers").join(layer);
        let found = project.found.items.iter().any(|item| item.files.contains(&path));
        assert_eq!(found, project.home.names.contains_key("cache_files wave.usda"), "{name:?}: {layer}");
    }
}

fn a_bundle_renders_where_home_is_gone(project: &Project, layout: &BundleLayout) {
    assert_eq!(layout.missing, [], "{:?}", project.blender);
    assert!(layout.notices.len() == 1 && layout.notices[0].contains("leaf.png"), "{:?}", layout.notices);
    let bundle = project.lay_out(layout, "bundle");
    let blend = bundle.join(layout.blend.to_path());
    let root = project.path("");
    let away = open(&project.blender, &blend, &bundle.join("remap.json"), &root, "away");
    project.check(&away, &bundle, "away");
}

fn what_is_saved_after_a_bake_still_finds_all(project: &Project, layout: &BundleLayout) {
    let bundle = project.lay_out(layout, "baked");
    let (blend, remap) = (bundle.join(layout.blend.to_path()), bundle.join("remap.json"));
    let saved = blend.with_file_name("main-saved.blend");
    let none = Path::new("");
    run(&project.blender, "opened.py", &[&blend, &remap, none, none, &saved], &saved);
    fs::rename(&saved, &blend).unwrap();
    // Names in the .blend itself resolve without any help, wherever the bundle lies.
    let own = find_dependencies(&blend).unwrap();
    let far: Vec<_> = own
        .items
        .iter()
        .filter(|item| item.holder == own.blend && !item.place.starts_with(&bundle))
        .collect();
    assert!(far.is_empty(), "{:?}: {far:?}", project.blender);
    let elsewhere = project.path("elsewhere");
    fs::rename(&bundle, &elsewhere).unwrap();
    let places: BTreeMap<&String, PathBuf> =
        layout.remap.iter().map(|(key, place)| (key, elsewhere.join(place.to_path()))).collect();
    let remap = elsewhere.join("remap.json");
    fs::write(&remap, serde_json::to_vec(&places).unwrap()).unwrap();
    let blend = elsewhere.join(layout.blend.to_path());
    let away = open(&project.blender, &blend, &remap, &project.path(""), "saved");
    project.check(&away, &elsewhere, "saved");
}

fn files_on_a_shared_root_are_linked_not_taken(
    project: &Project,
    layout: &BundleLayout,
    apart: &BundleLayout,
) {
    let name = &project.blender;
    assert_eq!((&apart.remap, &apart.blend), (&layout.remap, &layout.blend), "{name:?}");
    assert_eq!(apart.files.len() + apart.shared.len(), layout.files.len(), "{name:?}");
    assert!(
        apart
            .files
            .iter()
            .all(|(_, source)| !source.starts_with(project.path("home/far")) || source.to_str().is_none())
    );
    let bundle = project.lay_out(apart, "shared");
    for file in &apart.shared {
        assert_eq!(file.root, "far");
        let place = bundle.join(file.place.to_path());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(project.path("gone/far").join(file.below.to_path()), place).unwrap();
    }
    let gone = |name: &str| fs::read(project.path("gone/far").join(name)).unwrap();
    let hero = gone("lib/hero.blend");
    point_libraries(&bundle, &apart.blend, &apart.remap).unwrap();
    assert!(gone("lib/hero.blend") == hero, "what all machines share is not written to");
    let is_link = |name: &str| {
        let shared = apart.shared.iter().find(|file| file.below.as_str() == name).unwrap();
        bundle.join(shared.place.to_path()).is_symlink()
    };
    assert!(!is_link("lib/hero.blend") && is_link("props/prop.blend") && is_link("rig/rig.blend"));
    let blend = bundle.join(apart.blend.to_path());
    let away = open(&project.blender, &blend, &bundle.join("remap.json"), &project.path(""), "shared");
    project.check(&away, &bundle, "shared");
}

#[test]
fn a_colour_configuration_is_taken_with_its_tables() {
    for blender in all_blenders() {
        let temp = temp_dir();
        let at = |name: &str| temp.path().join(name);
        run(&blender, "colour.py", &[&at("where"), &at("home.png")], &at("where"));
        let config = PathBuf::from(fs::read_to_string(at("where")).unwrap());
        let found = find_ocio_files(&config).unwrap();
        assert_eq!(found.missing, [""; 0], "{:?}", blender);
        assert!(found.files.len() > 5, "{:?}: {:?}", blender, found.files);
        for (place, source) in &found.files {
            let place = at("layout").join(place.to_path());
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(source, place).unwrap();
        }
        let layout = at("layout").join(found.config.to_path());
        let render = |shot: &str| {
            let mut command = blender.script(&script("colour.py"));
            command.env("OCIO", &layout).arg(at("ignored")).arg(at(shot)).output().unwrap();
            at(shot)
        };
        assert_same_picture(&at("home.png"), &render("away.png"));
        for (place, _) in found.files.iter().filter(|(place, _)| *place != found.config) {
            fs::remove_file(at("layout").join(place.to_path())).unwrap();
        }
        let bare = render("bare.png");
        assert!(
            !bare.exists() || picture(&bare) != picture(&at("home.png")),
            "{:?}: tables do nothing",
            blender
        );
    }
}
