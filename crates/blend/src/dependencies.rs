//! Every file that a .blend needs, all the way down.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
};

use crate::{
    disk::DiskView,
    expand::{self, expand},
    external::{ExternalFile, ExternalKind},
    fault::BlendError,
    inspect::{Inspection, inspect_next},
    linked::{FileGraph, LinkedSimulation, linked_simulations},
    pointer_scan::Depth,
    resolve::{is_relative, is_windows, resolve},
    sequence::SequenceUser,
    usd::{self, is_usd},
};

/// .blend files that one may draw in.
pub(crate) const MAX_LIBRARIES: usize = 10_000;
/// Paths to one library that are followed, each of which gives its relative names another meaning.
const MAX_PATHS_TO_ONE: usize = 8;

/// Missing files for which others of a like name are looked for: a file with a million names of nothing shall not keep
/// the disk busy for hours.
const MAX_SEARCHES: usize = 20_000;

/// Bytes of the longest path that Blender opens (measured in 3.4 and 5.0).
pub const LONGEST_PATH: usize = 1023;

pub(crate) fn is_too_long(path: &Path) -> bool {
    path.as_os_str().len() > LONGEST_PATH
}

/// A file, or a set of them, that a .blend names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    pub file: ExternalFile,
    /// The .blend that names it.
    pub holder: PathBuf,
    /// The name is relative to the holder's folder (`//`).
    pub relative: bool,
    /// The path that the name refers to; for a sequence one of its files, for tiles a pattern, for caches a folder. If
    /// only a file of another spelling is there, its path.
    pub place: PathBuf,
    /// The files there: all of a sequence, of the tiles, of the folder.
    pub files: Vec<PathBuf>,
    pub found_as: PathMatch,
}

/// The way in which a name matches a file on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// At the name as it is written, or not at all.
    Written,
    /// At a name that differs in the case of letters or in Unicode's form: Blender itself does not find it here.
    Alike,
    /// Not at all, but a file of that name lies at this place.
    MaybeAt(PathBuf),
}

impl Dependency {
    /// Also true of what is packed and needs no file.
    pub fn exists(&self) -> bool {
        self.file.packed || !self.files.is_empty()
    }

    /// A render without it would lack something. A USD file may name a file only to say what it was made from.
    pub fn is_missing(&self) -> bool {
        !self.exists() && self.file.kind.is_required() && !is_usd(&self.holder)
    }

    /// By the picture that it names, Blender tells a clip of pictures from a movie.
    pub(crate) fn lacks_own_picture(&self) -> bool {
        let is_clip = self.file.kind == ExternalKind::MovieClip && self.file.sequence;
        is_clip && self.exists() && !self.file.packed && !self.files.contains(&self.place)
    }

    /// A note for the user, if the file is no reason to stop.
    pub fn notice(&self) -> Option<String> {
        let (noun, path, place) = (self.file.kind.noun(), &self.file.path, self.place.display());
        if !self.exists() {
            return is_usd(&self.holder)
                .then(|| format!("{} names {path}, and nothing is there", self.holder.display()));
        }
        (self.found_as == PathMatch::Alike).then(|| {
            format!("{noun} {path} is spelled differently on disk ({place}); Kiln renders with that file")
        })
    }

    /// The path is one of Windows, and this system is another.
    pub(crate) fn is_foreign(&self) -> bool {
        is_windows(&self.file.raw) && cfg!(not(windows))
    }
}

/// A .blend and all that it needs.
#[derive(Debug)]
pub struct Dependencies {
    /// Absolute.
    pub blend: PathBuf,
    pub inspection: Inspection,
    /// The names of the .blend come first, then those of its libraries.
    pub items: Vec<Dependency>,
    /// Libraries that are there and cannot be read.
    pub broken: Vec<BlendError>,
    /// Simulations of libraries that are not baked there, and the scenes of the .blend that depend on them.
    pub linked: Vec<LinkedSimulation>,
}

/// Reads the .blend and, each once, the libraries it draws in.
///
/// # Errors
/// Where the .blend itself cannot be read. What is wrong with a library is told in the result.
pub fn find_dependencies(path: &Path) -> Result<Dependencies, BlendError> {
    let mut last = None;
    let (inspection, follow) = inspect_next(path, &mut last, Depth::Members)?;
    // Fails only for an empty path, which could not have been read.
    let blend = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut search =
        Search { disk: DiskView::default(), items: Vec::new(), todo: VecDeque::new(), left: MAX_SEARCHES };
    let mut broken = Vec::new();
    let mut seen = HashSet::from([blend.clone()]);
    let mut paths_to: HashMap<_, _> = identity(&blend).into_iter().map(|file| (file, 1)).collect();
    search.take_in(&blend, &inspection);
    let mut files = HashMap::from([(blend.clone(), follow)]);
    while let Some(library) = search.todo.pop_front() {
        if seen.len() >= MAX_LIBRARIES || !seen.insert(library.clone()) {
            continue;
        }
        if let Some(file) = identity(&library) {
            let paths = paths_to.entry(file).or_insert(0);
            *paths += 1;
            if *paths > MAX_PATHS_TO_ONE {
                continue;
            }
        }
        if is_usd(&library) {
            search.take_in_layers(&library);
            continue;
        }
        match inspect_next(&library, &mut last, Depth::Members) {
            Ok((inside, follow)) => {
                search.take_in(&library, &inside);
                files.insert(library, follow);
            }
            Err(error) => broken.push(error),
        }
    }
    let mut items = search.items;
    show_linked(&mut items, &files);
    let mut linked = Vec::new();
    if files.iter().any(|(path, file)| *path != blend && !file.unbaked.is_empty()) {
        // Whether a picture depends on it is told by the pointers of all files.
        for (path, file) in &mut files {
            match inspect_next(path, &mut last, Depth::All) {
                Ok((_, follow)) => *file = follow,
                Err(error) => broken.push(error),
            }
        }
        linked = linked_simulations(&blend, &files, &libraries(&items));
    }
    Ok(Dependencies { blend, inspection, items, broken, linked })
}

/// Adds the users of sequences that lie in other files than the sequences.
fn show_linked(items: &mut [Dependency], files: &HashMap<PathBuf, FileGraph>) {
    if files.values().all(|file| file.shows.is_empty()) {
        return;
    }
    let mut users: HashMap<(PathBuf, &str), Vec<SequenceUser>> = HashMap::new();
    let place = libraries(items);
    for (holder, file) in files {
        for linked in &file.shows {
            let library = place(holder, &linked.library).map(Path::to_owned);
            let Some(library) = library else { continue };
            users.entry((library, &linked.owner)).or_default().push(linked.user.held_by(holder));
        }
    }
    drop(place);
    for item in items.iter_mut().filter(|item| item.file.sequence && !item.file.packed) {
        if let Some(users) = users.get(&(item.holder.clone(), item.file.owner.as_str())) {
            item.file.shown_by.extend(users.iter().cloned());
        }
    }
}

/// Finds the path of a library by the file that names it and the name.
pub(crate) fn libraries<'a>(items: &'a [Dependency]) -> impl Fn(&Path, &[u8]) -> Option<&'a Path> {
    let of_libraries = items.iter().filter(|item| item.file.kind == ExternalKind::Library);
    let places: HashMap<(&Path, &[u8]), &Path> = of_libraries
        .filter_map(|item| {
            Some(((item.holder.as_path(), item.file.raw.as_slice()), item.files.first()?.as_path()))
        })
        .collect();
    move |holder, name| places.get(&(holder, name)).copied()
}

/// The same for all paths to one file; `None` for what cannot be looked at.
#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

struct Search {
    disk: DiskView,
    items: Vec<Dependency>,
    todo: VecDeque<PathBuf>,
    /// Missing files that may still be searched for.
    left: usize,
}

impl Search {
    fn take_in(&mut self, holder: &Path, inside: &Inspection) {
        let suffixes = suffixes(inside);
        let mut seen = HashMap::new();
        for file in &inside.external {
            // Many datablocks may name one file.
            let what = (&file.raw, file.kind, file.packed, file.sequence, file.tiled, file.views);
            if let Some(item) = seen.get(&what).and_then(|at: &usize| self.items.get_mut(*at)) {
                item.file.shown_by.extend(file.shown_by.iter().map(|user| user.held_by(holder)));
                if file.tiles != item.file.tiles {
                    item.file.tiles.extend(&file.tiles);
                    item.file.tiles.sort_unstable();
                    item.file.tiles.dedup();
                }
                continue;
            }
            seen.insert(what, self.items.len());
            let users = file.shown_by.iter().map(|user| user.held_by(holder)).collect();
            let file = ExternalFile { shown_by: users, ..file.clone() };
            let item = self.find(holder, file, &suffixes);
            let is_read = |path: &PathBuf| item.file.kind == ExternalKind::Library || is_usd(path);
            if item.file.kind.holds_names() && item.files.first().is_some_and(is_read) {
                self.todo.extend(item.files.iter().cloned());
            }
            self.items.push(item);
        }
        // Blender finds baked particles and cloth by the name of the .blend.
        if let Some(name) = blendcache(holder) {
            let mut raw = b"//".to_vec();
            raw.extend(name.as_encoded_bytes());
            let file = ExternalFile::new(ExternalKind::PointCache, raw, String::new());
            let item = self.find(holder, file, &suffixes);
            if item.exists() && item.found_as == PathMatch::Written {
                self.items.push(item);
            }
        }
    }

    /// A USD file may be made of others.
    fn take_in_layers(&mut self, holder: &Path) {
        for raw in usd::layers(holder) {
            let item = self.find(holder, ExternalFile::new(ExternalKind::CacheFile, raw, String::new()), &[]);
            self.todo.extend(item.files.iter().filter(|path| is_usd(path)).cloned());
            self.items.push(item);
        }
    }

    fn find(&mut self, holder: &Path, file: ExternalFile, suffixes: &[String]) -> Dependency {
        let folder = holder.parent().unwrap_or(Path::new("/"));
        // In a USD file all names are relative that are not absolute.
        let relative = is_relative(&file.raw) || (is_usd(holder) && !file.raw.starts_with(b"/"));
        let place = resolve(&file.raw, folder);
        let holder = holder.to_owned();
        let disk = &mut self.disk;
        let unread = file.packed || is_too_long(&place);
        let files = if unread { Vec::new() } else { expand(&file, &place, suffixes, disk) };
        let mut item = Dependency { file, holder, relative, place, files, found_as: PathMatch::Written };
        if item.exists() || self.left == 0 || is_too_long(&item.place) {
            return item;
        }
        self.left -= 1;
        let alike = expand::like(&item.file, &item.place, disk).filter(|alike| *alike != item.place);
        if let Some(alike) = alike {
            item.files = expand(&item.file, &alike, suffixes, disk);
            if item.exists() {
                item.place = alike;
                item.found_as = PathMatch::Alike;
            }
        } else if item.is_missing()
            && let Some(name) = item.place.file_name()
        {
            // Not taken: a file that is only called the same may be another.
            let beside = expand::like(&item.file, &folder.join(name), disk);
            if let Some(beside) = beside.filter(|path| !expand(&item.file, path, suffixes, disk).is_empty()) {
                item.found_as = PathMatch::MaybeAt(beside);
            }
        }
        item
    }
}

/// The folder of caches beside a .blend, as Blender calls it.
pub(crate) fn blendcache(blend: &Path) -> Option<std::ffi::OsString> {
    let mut name = std::ffi::OsString::from("blendcache_");
    name.push(blend.file_stem()?);
    Some(name)
}

/// The suffixes that files of several views have before their extension.
fn suffixes(inside: &Inspection) -> Vec<String> {
    let views = inside.scenes.iter().flat_map(|scene| &scene.views);
    let mut suffixes: Vec<String> = views.map(|view| view.suffix.clone()).collect();
    suffixes.extend(["_L".to_owned(), "_R".to_owned()]);
    suffixes.sort();
    suffixes.dedup();
    suffixes
}
