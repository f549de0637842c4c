//! Where the files of a .blend lie in a bundle, so that its names resolve on any machine.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::{Component, Path, PathBuf},
};

use kiln_types::{BlobHash, RelPath};
use serde::Serialize;

use crate::{
    dependencies::{Dependencies, Dependency},
    external::ExternalKind,
};

/// The folder of files that cannot keep their place.
const OUTSIDE: &str = "_external";

/// The files of a bundle and their places in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Sorted; the .blend is among them.
    pub files: Vec<(RelPath, PathBuf)>,
    pub blend: RelPath,
    /// Names as they stand in the .blend (or, where absolute, in one of its libraries) that do not resolve by
    /// themselves from its place in the bundle, and where the bundle holds what they mean.
    pub remap: BTreeMap<String, RelPath>,
    pub missing: Vec<Missing>,
}

/// A file that is needed and not there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    pub kind: ExternalKind,
    /// As it stands in the .blend.
    pub path: String,
    /// Where it was looked for.
    pub place: PathBuf,
    /// The .blend that names it.
    pub holder: PathBuf,
    pub owner: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} (looked for at {})", self.kind.noun(), self.path, self.place.display())
    }
}

fn ancestor(a: &Path, b: &Path) -> PathBuf {
    a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

fn depth(path: &Path) -> usize {
    path.components().filter(|part| matches!(part, Component::Normal(_))).count()
}

/// The deepest folder above `home` and as many of the others as can be had without taking in a whole disk or
/// everyone's homes.
fn common_root<'a>(home: &Path, others: impl Iterator<Item = &'a Path>) -> PathBuf {
    others
        .map(|other| ancestor(home, other))
        .filter(|root| depth(root) >= 2)
        .min_by_key(|root| depth(root))
        .filter(|root| depth(root) < depth(home))
        .unwrap_or_else(|| home.to_owned())
}

/// A folder of the disk whose files keep their places relative to each other, below a folder of the bundle.
struct Place {
    folder: PathBuf,
    prefix: String,
}

impl Place {
    /// `None` where the file is not below, or its name cannot stand in a bundle.
    fn of(&self, path: &Path) -> Option<RelPath> {
        let below = path.strip_prefix(&self.folder).ok()?;
        let parts = below.components().map(|part| part.as_os_str().to_str()).collect::<Option<Vec<_>>>()?;
        RelPath::new(&format!("{}{}", self.prefix, parts.join("/"))).ok()
    }
}

fn short_hash(path: &Path) -> String {
    let hash = BlobHash::of(path.as_os_str().as_encoded_bytes()).to_string();
    hash[..12].to_owned()
}

/// A place by itself for a file whose own name cannot be used.
fn renamed(path: &Path) -> Option<RelPath> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let plain = extension.len() <= 16 && extension.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let dot = if plain && !extension.is_empty() { format!(".{extension}") } else { String::new() };
    RelPath::new(&format!("{OUTSIDE}/{}/file{dot}", short_hash(path))).ok()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

struct Builder {
    root: Place,
    /// For each library outside: the folder that it and what it names relatively have in common.
    outside: HashMap<PathBuf, PathBuf>,
    files: BTreeMap<RelPath, PathBuf>,
    remap: BTreeMap<String, RelPath>,
}

impl Builder {
    /// Where a file goes that is not below the root. Files that one library names relatively stay together, so
    /// that its names resolve; so do the files of a sequence and of a folder.
    fn place_outside(&self, path: &Path, item: &Dependency) -> Place {
        let own = self.outside.get(path);
        let held = self.outside.get(&item.holder).filter(|folder| item.relative && path.starts_with(folder));
        let folder = held.or(own).map_or_else(|| parent(&item.place).to_owned(), Clone::clone);
        let prefix = format!("{OUTSIDE}/{}/", short_hash(&folder));
        Place { folder, prefix }
    }

    /// Takes a file in; says where.
    fn add(&mut self, path: &Path, item: &Dependency) -> Option<RelPath> {
        let place = self.root.of(path);
        let place = place.or_else(|| self.place_outside(path, item).of(path));
        let place = place.or_else(|| renamed(path))?;
        self.files.insert(place.clone(), path.to_owned());
        Some(place)
    }

    fn dependency(&mut self, item: &Dependency, is_main: bool) {
        let placed: Vec<Option<RelPath>> = item.files.iter().map(|path| self.add(path, item)).collect();
        let Some(Some(first)) = placed.first() else { return };
        let below_root = self.root.of(&item.place);
        let resolves = item.relative && below_root.as_ref().is_some_and(|_| self.holder_keeps_place(item));
        // A library's relative names are kept whole by its place.
        if resolves || (!is_main && item.relative) {
            return;
        }
        let meant = if item.files.len() == 1 && item.files[0] == item.place {
            first.clone()
        } else {
            // A sequence, tiles or a folder: the name itself, where it would lie.
            let outside = self.place_outside(&item.files[0], item);
            let Some(meant) = below_root.or_else(|| outside.of(&item.place)) else { return };
            meant
        };
        self.remap.insert(item.file.path.clone(), meant);
    }

    /// Backslashes, and names with parts that a bundle cannot hold, do not resolve everywhere.
    fn holder_keeps_place(&self, item: &Dependency) -> bool {
        self.root.of(&item.holder).is_some() && !item.file.raw.contains(&b'\\')
    }
}

/// Lays the bundle out. Files at or below the root of the project (the deepest folder above the .blend and all
/// that it and its libraries name relatively) keep their places, others go below `_external`. The disk is only
/// looked at; the .blend stays as it is.
pub fn layout(found: &Dependencies) -> Layout {
    let home = parent(&found.blend);
    let relative = || found.items.iter().filter(|item| item.relative && !item.files.is_empty());
    // Holders that are reached through relative names alone; libraries come after what names them.
    let mut near = HashSet::from([found.blend.as_path()]);
    let mut folders = Vec::new();
    for item in relative() {
        if near.contains(item.holder.as_path()) {
            folders.extend(item.files.first().map(|path| parent(path)));
            if item.file.kind == ExternalKind::Library {
                near.extend(item.files.iter().map(PathBuf::as_path));
            }
        }
    }
    let root = common_root(home, folders.into_iter());

    let mut outside: HashMap<PathBuf, PathBuf> = HashMap::new();
    for library in found.items.iter().filter(|item| item.file.kind == ExternalKind::Library) {
        for path in library.files.iter().filter(|path| !path.starts_with(&root)) {
            let inner =
                relative().filter(|item| item.holder == *path).flat_map(|item| item.files.iter().take(1));
            let inner: Vec<&Path> = inner.map(|path| parent(path)).collect();
            outside.insert(path.clone(), common_root(parent(path), inner.into_iter()));
        }
    }

    let mut builder = Builder {
        root: Place { folder: root, prefix: String::new() },
        outside,
        files: BTreeMap::new(),
        remap: BTreeMap::new(),
    };
    // A name that cannot stand in a bundle is replaced, in its own folder where that can be.
    let blend = builder.root.of(&found.blend).or_else(|| builder.root.of(&home.join("scene.blend")));
    let Some(blend) = blend.or_else(|| RelPath::new("scene.blend").ok()) else {
        unreachable!("a fixed name is a safe path")
    };
    builder.files.insert(blend.clone(), found.blend.clone());
    for item in &found.items {
        builder.dependency(item, item.holder == found.blend);
    }
    let missing = found
        .items
        .iter()
        .filter(|item| item.is_missing())
        .map(|item| Missing {
            kind: item.file.kind,
            path: item.file.path.clone(),
            place: item.place.clone(),
            holder: item.holder.clone(),
            owner: item.file.owner.clone(),
        })
        .collect();
    Layout { files: builder.files.into_iter().collect(), blend, remap: builder.remap, missing }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{Compression, ExternalFile, Inspection, expand, resolve};

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
            let owner = "XXowner".to_owned();
            let file = ExternalFile { kind, path, raw, owner, packed: false, sequence, tiled: false };
            let files = expand::expand(&file, &place);
            Dependency { file, holder: holder.to_owned(), relative, place, files }
        }

        fn layout(&self, blend: &Path, items: Vec<Dependency>) -> Layout {
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
            layout(&Dependencies { blend: blend.to_owned(), inspection, items, broken: Vec::new() })
        }
    }

    fn places(layout: &Layout) -> Vec<&str> {
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
        let laid = disk.layout(&main, items);
        let found = &laid.remap[library.to_str().unwrap()];
        let prefix = found.as_str().strip_suffix("/chars/hero.blend").unwrap();
        assert!(prefix.starts_with("_external/"));
        assert!(places(&laid).contains(&format!("{prefix}/tex/skin.png").as_str()), "{:?}", laid.files);
        assert_eq!(laid.blend.as_str(), "main.blend");
        assert_eq!(laid.remap.len(), 1);
    }

    #[test]
    fn sequences_outside_stay_together_and_folders_too() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("p/main.blend");
        for name in ["q/s_01.png", "q/s_02.png", "cache/data/a", "cache/b"] {
            disk.file(name);
        }
        let items = vec![
            disk.item(&main, "ROOT/q/s_01.png", ExternalKind::Image, true),
            disk.item(&main, "ROOT/cache", ExternalKind::FluidCache, false),
            disk.item(&main, "ROOT/never", ExternalKind::FluidCache, false),
            disk.item(&main, "//none.png", ExternalKind::Image, false),
        ];
        let laid = disk.layout(&main, items);
        let first = laid.remap.values().find(|place| place.file_name() == "s_01.png").unwrap();
        let second = format!("{}/s_02.png", first.parent().unwrap());
        assert!(places(&laid).contains(&second.as_str()), "{:?}", laid.files);
        let cache = disk.root().join("cache");
        let folder = &laid.remap[cache.to_str().unwrap()];
        for name in ["data/a", "b"] {
            assert!(
                places(&laid).contains(&format!("{folder}/{name}").as_str()),
                "{folder} {:?}",
                laid.files
            );
        }
        assert_eq!(laid.missing.len(), 1, "a cache that was never baked is not missing");
        let place = disk.root().join("p/none.png");
        assert_eq!(
            laid.missing[0].to_string(),
            format!("image //none.png (looked for at {})", place.display())
        );
    }

    #[test]
    fn names_that_no_bundle_can_hold_are_replaced() {
        let disk = Disk(tempfile::tempdir().unwrap());
        let main = disk.file("p/bad\\name.blend");
        disk.file("p/a\nb.png");
        let laid = disk.layout(&main, vec![disk.item(&main, "//a\nb.png", ExternalKind::Image, false)]);
        assert_eq!(laid.blend.as_str(), "scene.blend");
        let place = &laid.remap["//a\nb.png"];
        assert!(place.as_str().starts_with("_external/") && place.file_name() == "file.png");
        assert_eq!(laid.files.len(), 2);
    }

    #[test]
    fn the_root_never_takes_in_a_whole_disk() {
        let root = |home: &str, others: &[&str]| {
            common_root(Path::new(home), others.iter().map(|other| Path::new(*other))).display().to_string()
        };
        assert_eq!(
            root("/home/ada/film/shots", &["/home/ada/film/tex", "/home/ada/film/shots/a"]),
            "/home/ada/film"
        );
        assert_eq!(root("/home/ada/film/shots", &["/home/bob/tex"]), "/home/ada/film/shots");
        assert_eq!(root("/home/ada/film/shots", &["/srv/tex", "/home/ada/lib"]), "/home/ada");
        assert_eq!(root("/tmp", &["/tmp/tex"]), "/tmp");
    }
}
