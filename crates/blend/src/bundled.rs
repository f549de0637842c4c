//! A .blend as it lies in a bundle: its libraries and bakes are looked for there, not on a disk.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::{Read, Seek},
    path::{Path, PathBuf},
};

use kiln_types::RelPath;

use crate::{
    caches::{CacheFiles, ListFolder},
    dependencies::MAX_LIBRARIES,
    external::ExternalKind,
    fault::BlendFault,
    inspect::{Inspection, SchemaCache, inspect_bytes},
    linked::{FileGraph, LinkedSimulation, linked_simulations},
    meaning,
    pointer_scan::Depth,
    stream::ReadLimits,
};

/// Bytes that all libraries may take together, as a multiple of those of one file. Libraries beyond that are not followed.
const ALL_OF_ONE: usize = 4;

/// Files that lie together.
pub trait BundleSource {
    type File: Read + Seek;

    /// `None` where nothing is there, or nothing that can be read here.
    fn open(&self, place: &RelPath) -> Option<Self::File>;

    /// Names of the files of a folder that hold anything.
    fn files_in(&self, folder: &RelPath) -> Vec<String>;

    /// The place to which names of this meaning are remapped ([`crate::BundleLayout::remap`]).
    fn remapped(&self, meaning: &str) -> Option<&RelPath>;
}

/// [`crate::inspect`] of the .blend at this place of a bundle.
///
/// # Errors
/// Where it is no .blend, or not a whole one.
pub fn inspect_bundled<B: BundleSource>(
    bundle: &B,
    blend: &RelPath,
    file: B::File,
    limits: &ReadLimits,
) -> Result<Inspection, BlendFault> {
    BundleView { bundle, blend }
        .read(blend, file, limits, &mut None, Depth::Members)
        .map(|(inside, _)| inside)
}

/// [`crate::Dependencies::linked`] of a .blend in a bundle. What the bundle does not hold, or cannot be read, is passed
/// over: Blender says what is wrong with it.
pub fn find_linked_in_bundle<B: BundleSource>(
    bundle: &B,
    blend: &RelPath,
    limits: &ReadLimits,
) -> Vec<LinkedSimulation> {
    let around = BundleView { bundle, blend };
    let (mut files, mut places) = (HashMap::new(), HashMap::new());
    let (mut todo, mut seen) = (VecDeque::from([blend.clone()]), HashSet::from([blend.clone()]));
    let mut follow = LibraryWalk { around: &around, limits, last: None, left: ALL_OF_ONE * limits.memory };
    while let Some(holder) = todo.pop_front() {
        let Some((inside, follow)) = follow.read(&holder, Depth::Members) else { continue };
        files.insert(holder.to_path(), follow);
        for library in
            inside.external.iter().filter(|file| file.kind == ExternalKind::Library && !file.packed)
        {
            let Some(place) = around.place(&holder, &library.raw) else { continue };
            places.insert((holder.to_path(), library.raw.clone()), place.to_path());
            if seen.len() < MAX_LIBRARIES && seen.insert(place.clone()) {
                todo.push_back(place);
            }
        }
    }
    let main = blend.to_path();
    if files.iter().all(|(path, file)| *path == main || file.unbaked.is_empty()) {
        return Vec::new();
    }
    // Whether a picture depends on it is told by the pointers of all files.
    follow.left = ALL_OF_ONE * limits.memory;
    files =
        seen.iter().filter_map(|place| Some((place.to_path(), follow.read(place, Depth::All)?.1))).collect();
    let place =
        |holder: &Path, raw: &[u8]| places.get(&(holder.to_owned(), raw.to_owned())).map(PathBuf::as_path);
    linked_simulations(&main, &files, &place)
}

/// The .blend files of a bundle as its main one sees them.
struct BundleView<'a, B> {
    bundle: &'a B,
    blend: &'a RelPath,
}

/// A walk through many files, within the memory that is left for them.
struct LibraryWalk<'a, B> {
    around: &'a BundleView<'a, B>,
    limits: &'a ReadLimits,
    last: SchemaCache,
    /// Bytes.
    left: usize,
}

impl<B: BundleSource> LibraryWalk<'_, B> {
    fn read(&mut self, place: &RelPath, depth: Depth) -> Option<(Inspection, FileGraph)> {
        let limits = ReadLimits { memory: self.limits.memory.min(self.left), ..*self.limits };
        let file = self.around.bundle.open(place)?;
        let read = self.around.read(place, file, &limits, &mut self.last, depth).ok()?;
        self.left = self.left.saturating_sub(read.1.cost);
        Some(read)
    }
}

impl<B: BundleSource> BundleView<'_, B> {
    fn read(
        &self,
        place: &RelPath,
        mut file: B::File,
        limits: &ReadLimits,
        last: &mut SchemaCache,
        depth: Depth,
    ) -> Result<(Inspection, FileGraph), BlendFault> {
        let list: &ListFolder<'_> = &|name, below| {
            let folder = self.place(place, name).and_then(|folder| match below {
                "" => Some(folder),
                below => RelPath::new(&format!("{folder}{below}")).ok(),
            });
            let names = folder.map(|folder| self.bundle.files_in(&folder)).unwrap_or_default();
            names.into_iter().map(String::into_bytes).collect()
        };
        let stem = place.file_name().strip_suffix(".blend").unwrap_or(place.file_name());
        inspect_bytes(&mut file, limits, &CacheFiles::new(stem.as_bytes(), list), last, depth)
    }

    /// The place in the bundle of the file that a name in `holder` refers to; `None` if it is outside.
    fn place(&self, holder: &RelPath, raw: &[u8]) -> Option<RelPath> {
        let home = folder(self.blend);
        let meaning = meaning::key(raw, &meaning::way(home, folder(holder)));
        match self.bundle.remapped(&meaning) {
            Some(place) => Some(place.clone()),
            None => place_of(&meaning, home),
        }
    }
}

/// The place in the bundle to which a relative name leads, by its meaning; `None` for absolute ones, and outside.
pub(crate) fn place_of(meaning: &str, home: &str) -> Option<RelPath> {
    let mut parts: Vec<&str> = home.split('/').filter(|part| !part.is_empty()).collect();
    for part in meaning.strip_prefix("//")?.split('/') {
        match part {
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    RelPath::new(&parts.join("/")).ok()
}

pub(crate) fn folder(place: &RelPath) -> &str {
    place.as_str().rsplit_once('/').map_or("", |(folder, _)| folder)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Cursor};

    use super::*;

    /// Nothing but names.
    struct Names(BTreeMap<String, RelPath>);

    impl BundleSource for Names {
        type File = Cursor<Vec<u8>>;

        fn open(&self, _: &RelPath) -> Option<Self::File> {
            None
        }

        fn files_in(&self, _: &RelPath) -> Vec<String> {
            Vec::new()
        }

        fn remapped(&self, meaning: &str) -> Option<&RelPath> {
            self.0.get(meaning)
        }
    }

    #[test]
    fn names_lead_to_places_of_the_bundle_or_nowhere() {
        let path = |text: &str| RelPath::new(text).unwrap();
        let remap = [("/home/ana/lib.blend", "_external/lib.blend"), ("//../elsewhere.blend", "here.blend")];
        let names = Names(remap.map(|(key, place)| (key.to_owned(), path(place))).into());
        let around = BundleView { bundle: &names, blend: &path("shots/one/shot.blend") };
        let check = |holder: &str, raw: &str, expected: Option<&str>| {
            let found = around.place(&path(holder), raw.as_bytes());
            assert_eq!(found.as_ref().map(RelPath::as_str), expected, "{raw} in {holder}");
        };
        check("shots/one/shot.blend", "//lib.blend", Some("shots/one/lib.blend"));
        check("shots/one/shot.blend", "//..\\..\\libs/./a.blend", Some("libs/a.blend"));
        check("libs/a.blend", "//b.blend", Some("libs/b.blend"));
        check("libs/deep/a.blend", "//../b.blend", Some("libs/b.blend"));
        check("libs/a.blend", "/home/ana/lib.blend", Some("_external/lib.blend"));
        check("shots/one/shot.blend", "//../elsewhere.blend", Some("here.blend"));
        for lost in ["//../../../lib.blend", "/etc/passwd", "C:\\lib.blend", "//../../..", "", "\u{fffd}/\0"]
        {
            let expected = None;
            check("libs/a.blend", lost, if lost.is_empty() { Some("libs") } else { expected });
        }
    }
}
