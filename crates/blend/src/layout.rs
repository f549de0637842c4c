//! The layout of a bundle, in which the names of a .blend resolve on any machine.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
};

use kiln_types::{RelPath, ShortName};

use crate::{
    dependencies::{Dependencies, Dependency, blendcache},
    external::{ExternalFile, ExternalKind},
    gaps::RenderScope,
    meaning,
    missing::{MissingDependency, MissingReport},
    places::{Places, common_root, parent},
    usd::is_usd,
};

/// The files of a bundle and their places in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleLayout {
    /// Files to take along. Sorted; the .blend is among them.
    pub files: Vec<(RelPath, PathBuf)>,
    /// Files that stay where they are, because every worker reaches them. Sorted.
    pub shared: Vec<SharedPlace>,
    pub blend: RelPath,
    /// The names in the .blend and its libraries that do not resolve by themselves in the bundle, and the place of each: a
    /// file, one file of a sequence, the pattern of tiles, a folder. The keys are those of `meaning.rs`, which the host
    /// reads.
    pub remap: BTreeMap<String, RelPath>,
    pub missing: Vec<MissingDependency>,
    /// Names of files that are missing in whole or in part, where nothing that renders uses them: their meanings, as the
    /// keys of `remap`.
    pub unused: BTreeSet<String>,
    /// Notes for the user about files that were found under another spelling, or are not used.
    pub notices: Vec<String>,
}

/// A folder that the artist's machine and the workers share, each by a path of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedRoot {
    pub name: ShortName,
    /// Absolute.
    pub root: PathBuf,
}

/// A file that is not taken along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedPlace {
    /// The place of a link to it in the bundle.
    pub place: RelPath,
    /// The name of its root.
    pub root: ShortName,
    /// The path below the root.
    pub below: RelPath,
    /// The path on this machine.
    pub source: PathBuf,
}

/// Lays the bundle out. Files at or below the root of the project (the deepest folder above the .blend and all
/// that it and its libraries name relatively) keep their places, others go below `_external`. Files below a shared
/// root get a place too, and stay where they are. The disk is only looked at; the .blend stays as it is.
/// Of image sequences only the pictures of `requested` frames count as missing. A file is unused if none of these renders
/// uses it.
pub fn plan_layout(
    found: &Dependencies,
    shared: &[SharedRoot],
    requested: &[RenderScope<'_>],
) -> BundleLayout {
    let root = project_root(found);
    let mut places = Places::default();
    let blend = places.take_blend(&found.blend, &root);
    let mut builder = Builder {
        groups: groups(found, &root),
        holders: HashMap::from([(found.blend.clone(), blend.clone())]),
        root,
        places,
        remap: BTreeMap::new(),
        notices: found.items.iter().filter_map(Dependency::notice).collect(),
    };
    for item in found.items.iter().filter(|item| !item.files.is_empty()) {
        builder.item(item, &blend);
    }
    // Each may read all files once more, and renders by several cameras lack the same.
    let is_first = |(at, one): &(usize, &RenderScope<'_>)| !requested[..*at].contains(*one);
    let distinct = requested.iter().enumerate().filter(is_first);
    let each = distinct.map(|(_, one)| found.find_missing(Some(*one)));
    let lacking = each.reduce(MissingReport::and).unwrap_or_else(|| found.find_missing(None));
    let unused = lacking.unused.iter().filter_map(|one| found.items.get(one.index));
    let unused = unused.filter_map(|item| builder.meaning(item, &blend)).collect();
    builder.notices.extend(lacking.notices());
    let (files, shared) = divide(builder.places.files, &found.blend, shared);
    let Builder { remap, notices, .. } = builder;
    BundleLayout { files, shared, blend, remap, missing: lacking.missing, unused, notices }
}

impl BundleLayout {
    /// The name to write for the file into the .blend or library at `holder`, so that it resolves without
    /// [`BundleLayout::remap`]; `None` if the name can stay.
    pub fn name_at(&self, holder: &RelPath, file: &ExternalFile) -> Option<Vec<u8>> {
        let from = folder(holder);
        let key = meaning::key(&file.raw, &meaning::way(&folder(&self.blend), &from));
        let place = self.remap.get(&key).filter(|_| !file.packed)?;
        Some(format!("//{}", meaning::way(&from, place.as_str())).into_bytes())
    }
}

/// Nothing for the bundle itself.
fn folder(place: &RelPath) -> String {
    place.parent().map_or_else(String::new, |parent| parent.as_str().to_owned())
}

struct Builder {
    root: PathBuf,
    /// For each file that names others and lies outside the root: the folder that it and what it names relatively
    /// have in common.
    groups: HashMap<PathBuf, PathBuf>,
    /// The places in the bundle of the files that name others.
    holders: HashMap<PathBuf, RelPath>,
    places: Places,
    remap: BTreeMap<String, RelPath>,
    notices: Vec<String>,
}

impl Builder {
    fn item(&mut self, item: &Dependency, blend: &RelPath) {
        let Some(holder) = self.holders.get(&item.holder).cloned() else { return };
        if item.file.kind == ExternalKind::PointCache {
            // No name leads here: Blender looks beside the .blend, whatever that is called.
            if let Some(name) = blendcache(&holder.to_path()) {
                let folder = parent(&holder.to_path()).join(name).to_string_lossy().replace('\\', "/");
                self.places.take_below(item, &folder);
            }
            return;
        }
        let group = self.group(item).to_owned();
        let Some(meant) = self.places.take_all(item, &self.root, &group) else { return };
        for path in &item.files {
            // Of several places for one library, what it names relatively lies beside the first.
            self.holders.entry(path.clone()).or_insert_with(|| meant.clone());
        }
        let from_root = meaning::key(&item.file.raw, &folder(&holder));
        if item.relative && from_root.strip_prefix("//") == Some(meant.as_str()) {
            return;
        }
        if is_usd(&item.holder) {
            // Blender cannot be told what a USD file means by a name.
            let (name, holder) = (&item.file.path, item.holder.display());
            self.notices.push(format!(
                "{holder} names the layer {name} in a way that leads nowhere on another machine; name it relatively, and \
                 spell it as on disk"
            ));
            return;
        }
        let Some(key) = self.meaning(item, blend) else { return };
        // One file alone may be one of a sequence too.
        if item.files.len() > 1 || !self.remap.contains_key(&key) {
            self.remap.insert(key, meant);
        }
    }

    /// The meaning of an item's name; `None` if the file that names it has no place.
    fn meaning(&self, item: &Dependency, blend: &RelPath) -> Option<String> {
        let holder = self.holders.get(&item.holder)?;
        Some(meaning::key(&item.file.raw, &meaning::way(&folder(blend), &folder(holder))))
    }

    /// The folder that keeps files together that are not below the root: those that one library names relatively,
    /// so that its names resolve; those of a sequence and of a folder.
    fn group<'a>(&'a self, item: &'a Dependency) -> &'a Path {
        let first = &item.files[0];
        let own = self.groups.get(first);
        let held = self.groups.get(&item.holder).filter(|folder| item.relative && first.starts_with(folder));
        held.or(own).map_or_else(|| parent(&item.place), PathBuf::as_path)
    }
}

/// The deepest folder above the .blend and all that is reached through relative names alone.
fn project_root(found: &Dependencies) -> PathBuf {
    let mut near = HashSet::from([found.blend.as_path()]);
    let mut folders = Vec::new();
    // Libraries come after what names them.
    for item in relative(found) {
        if near.contains(item.holder.as_path()) {
            folders.extend(item.files.first().map(|path| parent(path)));
            if item.file.kind.holds_names() {
                near.extend(item.files.iter().map(PathBuf::as_path));
            }
        }
    }
    common_root(parent(&found.blend), folders.into_iter())
}

fn relative(found: &Dependencies) -> impl Iterator<Item = &Dependency> {
    found.items.iter().filter(|item| item.relative && !item.files.is_empty())
}

fn groups(found: &Dependencies, root: &Path) -> HashMap<PathBuf, PathBuf> {
    let mut named: HashMap<&Path, Vec<&Path>> = HashMap::new();
    for item in relative(found) {
        named.entry(&item.holder).or_default().extend(item.files.first().map(|path| parent(path)));
    }
    let holders = found.items.iter().filter(|item| item.file.kind.holds_names()).flat_map(|item| &item.files);
    let outside = holders.filter(|path| !path.starts_with(root));
    let group = |path: &PathBuf| {
        let inner = named.get(path.as_path()).map_or(&[][..], Vec::as_slice);
        common_root(parent(path), inner.iter().copied())
    };
    outside.map(|path| (path.clone(), group(path))).collect()
}

/// Parts the files below shared roots from those that are taken along, as the .blend always is.
fn divide(
    files: BTreeMap<RelPath, PathBuf>,
    blend: &Path,
    roots: &[SharedRoot],
) -> (Vec<(RelPath, PathBuf)>, Vec<SharedPlace>) {
    let mut taken = Vec::new();
    let mut shared = Vec::new();
    // The deepest root is the one that was meant.
    let mut roots: Vec<&SharedRoot> = roots.iter().collect();
    roots.sort_by_key(|root| std::cmp::Reverse(root.root.components().count()));
    for (place, source) in files {
        let below = roots.iter().filter(|_| source != blend).find_map(|root| {
            let parts = source.strip_prefix(&root.root).ok()?.iter().map(|part| part.to_str());
            let below = RelPath::new(&parts.collect::<Option<Vec<_>>>()?.join("/")).ok()?;
            Some((root.name.clone(), below))
        });
        match below {
            Some((root, below)) => shared.push(SharedPlace { place, root, below, source }),
            None => taken.push((place, source)),
        }
    }
    (taken, shared)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        Compression, ExternalFile, Inspection, dependencies::PathMatch, disk::DiskView, expand, resolve,
    };

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn root(&self) -> PathBuf {
            self.0.path().canonicalize().unwrap()
        }

        fn file(&self, name: &str) -> PathBuf {
            let path = self.root().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"x").unwrap();
            path
        }

        fn item(&self, holder: &Path, name: &str, kind: ExternalKind, sequence: bool) -> Dependency {
            let path = name.replace("ROOT", self.root().to_str().unwrap());
            let raw = path.clone().into_bytes();
            let place = resolve::resolve(&raw, holder.parent().unwrap());
            let relative = resolve::is_relative(&raw);
            let file = ExternalFile { sequence, ..ExternalFile::new(kind, raw, "XXowner".to_owned()) };
            let files = expand::expand(&file, &place, &[], &mut DiskView::default());
            let holder = holder.to_owned();
            Dependency { file, holder, relative, place, files, found_as: PathMatch::Written }
        }

        fn plan_layout(&self, blend: &Path, items: Vec<Dependency>) -> BundleLayout {
            plan_layout(&self.found(blend, items), &[], &[])
        }

        fn found(&self, blend: &Path, items: Vec<Dependency>) -> Dependencies {
            let inspection = Inspection {
                written_by: "3.4".parse().unwrap(),
                compression: Compression::None,
                scenes: Vec::new(),
                active_scene: None,
                cameras: Vec::new(),
                subversion: None,
                simulations: Vec::new(),
                external: Vec::new(),
            };
            Dependencies {
                blend: blend.to_owned(),
                inspection,
                items,
                broken: Vec::new(),
                linked: Vec::new(),
            }
        }
    }

    fn places(layout: &BundleLayout) -> Vec<&str> {
        layout.files.iter().map(|(place, _)| place.as_str()).collect()
    }

    #[test]
    fn a_library_outside_keeps_what_it_names_beside_it() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("p/shots/main.blend");
        let library = disk.file("assets/chars/hero.blend");
        disk.file("assets/tex/skin.png");
        let items = vec![
            disk.item(&main, "ROOT/assets/chars/hero.blend", ExternalKind::Library, false),
            disk.item(&library, "//../tex/skin.png", ExternalKind::Image, false),
        ];
        let layout = disk.plan_layout(&main, items);
        let found = &layout.remap[library.to_str().unwrap()];
        let prefix = found.as_str().strip_suffix("/chars/hero.blend").unwrap();
        assert!(prefix.starts_with("_external/"));
        assert!(places(&layout).contains(&format!("{prefix}/tex/skin.png").as_str()), "{:?}", layout.files);
        assert_eq!(layout.blend.as_str(), "main.blend");
        assert_eq!(layout.remap.len(), 1);
        let linked =
            ExternalFile::new(ExternalKind::Library, library.to_str().unwrap().into(), String::new());
        assert_eq!(layout.name_at(&layout.blend, &linked).unwrap(), format!("//{found}").into_bytes());
        let skin = ExternalFile::new(ExternalKind::Image, b"//../tex/skin.png".to_vec(), String::new());
        assert_eq!(layout.name_at(found, &skin), None, "it lies beside the library as before");
        // The library names itself, absolutely.
        assert_eq!(layout.name_at(found, &linked).unwrap(), b"//hero.blend");
        assert_eq!(layout.name_at(found, &ExternalFile { packed: true, ..linked }), None);
    }

    #[test]
    fn sequences_outside_stay_together_and_folders_too() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("p/main.blend");
        for name in ["q/s_01.png", "q/s_02.png", "cache/data/a", "cache/mesh/b"] {
            disk.file(name);
        }
        let items = vec![
            disk.item(&main, "ROOT/q/s_01.png", ExternalKind::Image, true),
            disk.item(&main, "ROOT/cache", ExternalKind::FluidCache, false),
            disk.item(&main, "ROOT/never", ExternalKind::FluidCache, false),
            disk.item(&main, "//none.png", ExternalKind::Image, false),
        ];
        let layout = disk.plan_layout(&main, items);
        let first = layout.remap.values().find(|place| place.file_name() == "s_01.png").unwrap();
        let second = format!("{}/s_02.png", first.parent().unwrap());
        assert!(places(&layout).contains(&second.as_str()), "{:?}", layout.files);
        let cache = disk.root().join("cache");
        let folder = &layout.remap[cache.to_str().unwrap()];
        for name in ["data/a", "mesh/b"] {
            assert!(
                places(&layout).contains(&format!("{folder}/{name}").as_str()),
                "{folder} {:?}",
                layout.files
            );
        }
        assert_eq!(layout.missing.len(), 1, "a cache that was never baked is not missing");
        let place = disk.root().join("p/none.png");
        assert_eq!(
            layout.missing[0].to_string(),
            format!("image //none.png (looked for at {})", place.display())
        );
    }

    #[test]
    fn names_that_no_bundle_can_hold_are_replaced() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("p/bad\\name.blend");
        disk.file("p/a\nb.png");
        let layout =
            disk.plan_layout(&main, vec![disk.item(&main, "//a\nb.png", ExternalKind::Image, false)]);
        assert_eq!(layout.blend.as_str(), "scene.blend");
        let place = &layout.remap["//a\nb.png"];
        assert!(place.as_str().starts_with("_external/") && place.file_name() == "file.png");
        assert_eq!(layout.files.len(), 2);
    }

    #[test]
    fn names_of_libraries_are_put_right_from_the_main_files_folder() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("p/shots/main.blend");
        let library = disk.file("p/lib/a.blend");
        disk.file("p/shots/x.png");
        disk.file("p/lib/Tex/Wood.PNG");
        let mut alike = disk.item(&library, "//tex/wood.png", ExternalKind::Image, false);
        alike.place = disk.root().join("p/lib/Tex/Wood.PNG");
        alike.files = vec![alike.place.clone()];
        alike.found_as = PathMatch::Alike;
        let items = vec![
            disk.item(&main, "//../lib/a.blend", ExternalKind::Library, false),
            disk.item(&main, "x.png", ExternalKind::Image, false),
            alike,
        ];
        let layout = disk.plan_layout(&main, items);
        let remap: Vec<_> = layout.remap.iter().map(|(key, place)| (key.as_str(), place.as_str())).collect();
        let expected = [("//../lib/tex/wood.png", "lib/Tex/Wood.PNG")];
        // A bare name is relative to wherever Blender was started; Kiln takes it from the .blend, as Blender then does.
        assert_eq!(remap, [expected[0], ("//x.png", "shots/x.png")]);
        assert!(layout.notices[0].starts_with("image //tex/wood.png is spelled differently on disk"));
    }

    #[test]
    fn no_two_files_meet_on_any_disk() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("p/main.blend");
        let names = ["Wood.png", "wood.png", "aux.png", "what?.png", "s:01.png", "s:02.png"];
        for name in names {
            disk.file(&format!("p/{name}"));
        }
        let image =
            |name: &str, sequence| disk.item(&main, &format!("//{name}"), ExternalKind::Image, sequence);
        let items = vec![
            image("Wood.png", false),
            image("wood.png", false),
            image("aux.png", false),
            image("what?.png", false),
            image("s:01.png", true),
        ];
        let layout = disk.plan_layout(&main, items);
        let folded: HashSet<String> = places(&layout).iter().map(|place| place.to_lowercase()).collect();
        assert_eq!(folded.len(), 7, "{:?}", layout.files);
        assert!(places(&layout).contains(&"Wood.png") && !places(&layout).contains(&"wood.png"));
        for name in ["wood.png", "aux.png", "what?.png", "s:01.png"] {
            let place = &layout.remap[&format!("//{name}")];
            assert!(places(&layout).contains(&place.as_str()) && place.as_str().starts_with("_external/"));
        }
        let second = layout.remap["//s:01.png"].as_str().replace("01.png", "02.png");
        assert!(places(&layout).contains(&second.as_str()), "the sequence stays one: {:?}", layout.files);
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_unicode_keep_a_key_of_their_own() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("p/main.blend");
        let mut items = Vec::new();
        for byte in [0xe8, 0xe9] {
            let raw = [b"//caf", &[byte][..], b".png"].concat();
            let place = resolve::resolve(&raw, &disk.root().join("p"));
            fs::write(&place, [byte]).unwrap();
            let file = ExternalFile::new(ExternalKind::Image, raw, "IMx".to_owned());
            let (holder, files) = (main.clone(), vec![place.clone()]);
            items.push(Dependency {
                file,
                holder,
                relative: true,
                place,
                files,
                found_as: PathMatch::Written,
            });
        }
        let layout = disk.plan_layout(&main, items);
        assert_eq!(layout.remap.keys().collect::<Vec<_>>(), ["//caf\0e8.png", "//caf\0e9.png"]);
        assert_eq!(layout.files.len(), 3);
    }

    #[test]
    fn no_place_is_deeper_than_blender_opens_behind_a_workers_folder() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let deep = ["d"; 4].map(|letter| letter.repeat(200)).join("/");
        let long = format!("{}.blend", "n".repeat(249));
        let main = disk.file(&format!("p/{long}"));
        let (wood, own) = (format!("{deep}/wood.png"), format!("{}.png", "w".repeat(251)));
        for name in [&wood, &own] {
            disk.file(&format!("p/{name}"));
        }
        let image = |name: &str| disk.item(&main, &format!("//{name}"), ExternalKind::Image, false);
        let layout = disk.plan_layout(&main, vec![image(&wood), image(&own)]);
        assert_eq!(
            layout.blend.as_str(),
            "scene.blend",
            "it is saved, and its caches are called, after its name"
        );
        assert!(places(&layout).contains(&own.as_str()), "{:?}", layout.files);
        let place = &layout.remap[&format!("//{wood}")];
        assert!(place.as_str().starts_with("_external/") && place.as_str().len() < 100, "{place}");
        assert_eq!(layout.remap.len(), 1);
    }

    #[test]
    fn what_lies_deeper_than_blender_opens_is_missing() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("p/main.blend");
        let mut folder = disk.root().join("p");
        while folder.as_os_str().len() < 1023 {
            folder.push("e".repeat(200));
        }
        fs::create_dir_all(&folder).unwrap();
        let name = folder.join("wood.png").strip_prefix(disk.root().join("p")).unwrap().display().to_string();
        fs::write(folder.join("wood.png"), b"x").unwrap();
        let item = |files| Dependency {
            files,
            ..disk.item(&main, &format!("//{name}"), ExternalKind::Image, false)
        };
        let missing = disk.plan_layout(&main, vec![item(Vec::new())]).missing;
        let told = missing[0].to_string();
        assert!(told.contains("Blender opens none of more than 1023"), "{told}");
    }

    #[test]
    fn caches_follow_the_name_that_the_blend_gets() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("p/bad\\name.blend");
        disk.file("p/blendcache_bad\\name/x_000001_00.bphys");
        let mut cache = disk.item(&main, "//none", ExternalKind::PointCache, false);
        cache.place = disk.root().join("p/blendcache_bad\\name");
        cache.files = vec![cache.place.join("x_000001_00.bphys")];
        let layout = disk.plan_layout(&main, vec![cache]);
        assert_eq!(places(&layout), ["blendcache_scene/x_000001_00.bphys", "scene.blend"]);
        assert!(layout.remap.is_empty());
    }

    #[test]
    fn below_a_shared_root_nothing_is_taken_but_the_blend() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("srv/p/main.blend");
        for name in ["srv/p/a.png", "srv/deep/b.png", "own/c.png"] {
            disk.file(name);
        }
        let items = vec![
            disk.item(&main, "//a.png", ExternalKind::Image, false),
            disk.item(&main, "ROOT/srv/deep/b.png", ExternalKind::Image, false),
            disk.item(&main, "ROOT/own/c.png", ExternalKind::Image, false),
        ];
        let roots = ["srv", "srv/deep"]
            .map(|name| SharedRoot { name: name.parse().unwrap(), root: disk.root().join(name) });
        let found = disk.found(&main, items);
        let layout = plan_layout(&found, &roots, &[]);
        let shared: Vec<_> =
            layout.shared.iter().map(|file| (file.root.as_str(), file.below.as_str())).collect();
        assert_eq!(shared, [("srv/deep", "b.png"), ("srv", "p/a.png")]);
        assert_eq!(layout.files.len(), 2, "{:?}", layout.files);
    }
}
