//! The files that a render may read, among all that a .blend and its libraries name.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use crate::{
    caches::CacheFiles,
    dependencies::{Dependencies, Dependency, libraries},
    external::ExternalKind,
    follow::{MAX_STEPS, Purpose, Rendering, Visit, follow},
    gaps::RenderScope,
    graph::LibraryLink,
    inspect::{Inspection, inspect_bytes, inspect_within},
    linked::FileGraph,
    meaning,
    pointer_scan::Depth,
    scene,
    sequence::SequenceUser,
    stream::ReadLimits,
};

/// Bytes of a file here, as a multiple of those that its scenes and their settings may take.
const ALL_OF_ONE: usize = 4;

/// A name of a file, as written in a .blend.
type Name = (Vec<u8>, ExternalKind);
/// The addresses of the datablocks, or their parts, that hold each name.
type Names = HashMap<Name, Vec<u64>>;

/// The datablocks that a scene's picture depends on.
struct ReachedDatablocks {
    /// By files: datablocks and parts of them, by where they were in memory.
    met: HashMap<PathBuf, HashSet<u64>>,
    names: HashMap<PathBuf, Names>,
}

/// The files that a render may read.
pub(crate) struct UsedFiles {
    /// `None` where it cannot be told: then all of them.
    reached: Option<ReachedDatablocks>,
    blend: PathBuf,
}

impl UsedFiles {
    /// Reads all files once more: only where something is missing that may not be used.
    pub fn by(found: &Dependencies, requested: &RenderScope<'_>) -> Self {
        Self { reached: ReachedDatablocks::by(found, requested), blend: found.blend.clone() }
    }

    /// The render may read the file. Libraries it always does.
    pub fn file(&self, item: &Dependency) -> bool {
        let Some(reached) = self.reached.as_ref().filter(|_| item.file.kind != ExternalKind::Library) else {
            return true;
        };
        let name = (item.file.raw.clone(), item.file.kind);
        // The file may have changed since.
        let Some(olds) = reached.names.get(&item.holder).and_then(|names| names.get(&name)) else {
            return true;
        };
        let met = reached.met.get(&item.holder);
        olds.iter().any(|old| met.is_some_and(|met| met.contains(old)))
    }

    /// The render may come to this user of a sequence.
    pub fn user(&self, user: &SequenceUser) -> bool {
        // Of the scenes of the .blend itself only the one that renders has been asked for.
        let is_scene = user.holder == self.blend && user.by.starts_with("SC");
        is_scene
            || self.reached.as_ref().is_none_or(|reached| {
                reached.met.get(&user.holder).is_some_and(|met| met.contains(&user.old))
            })
    }
}

impl ReachedDatablocks {
    /// `None` where it would take too much to tell, or a file cannot be read.
    fn by(found: &Dependencies, requested: &RenderScope<'_>) -> Option<Self> {
        if !found.broken.is_empty() {
            return None;
        }
        let libraries_read = found.items.iter().filter(|item| item.file.kind == ExternalKind::Library);
        let mut paths: Vec<&Path> =
            libraries_read.flat_map(|item| &item.files).map(PathBuf::as_path).collect();
        paths.push(&found.blend);
        paths.sort_unstable();
        paths.dedup();
        let (mut last, mut files, mut names) = (None, HashMap::new(), HashMap::new());
        for path in paths {
            let (inside, follow) =
                inspect_within(&wide(&ReadLimits::default()), path, &mut last, Depth::All).ok()?;
            names.insert(path.to_owned(), names_in(&inside, &follow));
            files.insert(path, follow);
        }
        let met = walk(&files, &found.blend, &libraries(&found.items), requested)?;
        Some(Self { met, names })
    }
}

/// Names of files that nothing uses which renders of a .blend: of one that came alone, so that all of its files are
/// missing. None where it cannot be told. They are the meanings of the names, as the keys of [`crate::BundleLayout::remap`].
pub fn find_unused_paths<R: Read + Seek>(
    mut blend: R,
    limits: &ReadLimits,
    requested: &RenderScope<'_>,
) -> BTreeSet<String> {
    let beside = CacheFiles::new(b"", &|_, _| Vec::new());
    let read = inspect_bytes(&mut blend, &wide(limits), &beside, &mut None, Depth::All);
    let Ok((inside, follow)) = read else { return BTreeSet::new() };
    let (names, path) = (names_in(&inside, &follow), Path::new(""));
    let files = HashMap::from([(path, follow)]);
    let Some(met) = walk(&files, path, &|_, _| None, requested) else { return BTreeSet::new() };
    let met = met.get(path);
    let is_used = |(_, kind): &Name, olds: &[u64]| {
        *kind == ExternalKind::Library || olds.iter().any(|old| met.is_some_and(|met| met.contains(old)))
    };
    let (used, unused): (Vec<_>, Vec<_>) = names.iter().partition(|(name, olds)| is_used(name, olds));
    let keys = |names: Vec<(&Name, _)>| -> BTreeSet<String> {
        names.into_iter().map(|((raw, _), _)| meaning::key(raw, "")).collect()
    };
    // One name may occur in several places.
    let used = keys(used);
    keys(unused).into_iter().filter(|key| !used.contains(key)).collect()
}

/// All datablocks are held here, not only those that simulate.
fn wide(limits: &ReadLimits) -> ReadLimits {
    ReadLimits { memory: limits.memory.saturating_mul(ALL_OF_ONE), ..*limits }
}

fn names_in(inside: &Inspection, follow: &FileGraph) -> Names {
    let mut names = Names::new();
    for (file, old) in inside.external.iter().zip(&follow.named_in).filter(|(file, _)| !file.packed) {
        names.entry((file.raw.clone(), file.kind)).or_default().push(*old);
    }
    names
}

/// The datablocks that the picture of a scene of `main` depends on; `None` if that would take too long. `place` finds
/// a file's library.
fn walk<'a>(
    files: &'a HashMap<&'a Path, FileGraph>,
    main: &'a Path,
    place: &dyn Fn(&Path, &[u8]) -> Option<&'a Path>,
    requested: &RenderScope<'_>,
) -> Option<HashMap<PathBuf, HashSet<u64>>> {
    let beyond = |path: &'a Path, link: &LibraryLink| {
        let library = place(path, files.get(path)?.graph.library_of(link)?)?;
        let (library, file) = files.get_key_value(library)?;
        Some((*library, &file.graph, file.graph.find(link)?))
    };
    let shades_by_results =
        |file: &FileGraph| file.graph.scenes().iter().all(|shown| shown.shades_by_results);
    let rendering = Rendering {
        view_layer: requested.view_layer,
        all_nodes: !files.values().all(shades_by_results)
            || requested.engine.is_some_and(|engine| !scene::shades_by_results(engine)),
        overrides_sequencer: requested.engine.is_some_and(|engine| !scene::is_sequenced(engine)),
    };
    let (mut met, mut left) = (HashMap::<PathBuf, HashSet<u64>>::new(), MAX_STEPS);
    let graph = &files.get(main)?.graph;
    for shown in graph.scenes().iter().filter(|shown| shown.name == requested.scene) {
        let purpose = Purpose::Files(rendering);
        follow((main, graph), shown, purpose, &mut left, &beyond, &mut |one: Visit<&'a Path>| {
            if !one.counts {
                return;
            }
            // Nearly always the file is known.
            match met.get_mut(one.file) {
                Some(olds) => drop(olds.insert(one.old)),
                None => drop(met.insert(one.file.to_owned(), HashSet::from([one.old]))),
            }
        });
    }
    (left > 0).then_some(met)
}
