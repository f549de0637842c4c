//! The hash of everything that the pixels of a .blend depend on; its folder is not a part (decision 019).

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use kiln_blend::{Dependencies, Dependency, ExternalKind};
use kiln_types::{BlobHash, BlobHasher, RelPath, SharedFile};

use crate::FoundExtras;

/// The identities of files: hashes or, for shared files, sizes and times.
#[derive(Default)]
pub(crate) struct KnownBytes<'a>(HashMap<&'a Path, Vec<u8>>);

impl<'a> KnownBytes<'a> {
    pub fn read(&mut self, path: &'a Path, hash: BlobHash) {
        self.0.insert(path, hash.as_bytes().to_vec());
    }

    /// Adds a shared file. If it was not read here, its size and time identify it, as they do for workers.
    pub fn shared(&mut self, path: &'a Path, file: &SharedFile) {
        let known = match file.hash {
            Some(hash) => hash.as_bytes().to_vec(),
            None => format!("{} bytes of {}", file.size, file.modified_ms).into_bytes(),
        };
        self.0.insert(path, known);
    }

    fn of(&self, path: &Path) -> &[u8] {
        self.0.get(path).map_or(&[], Vec::as_slice)
    }
}

/// Fields, each after its length, so that different lists of fields are different texts.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn add(&mut self, field: &[u8]) -> &mut Self {
        self.0.extend((field.len() as u64).to_le_bytes());
        self.0.extend(field);
        self
    }
}

/// Returns the hash of version 1: of the name of this encoding, the bytes of the .blend, its folder if that shows in pixels,
/// and, sorted, of each path to files in the .blend and its libraries with the bytes of those, and of each extra file. The
/// series of Blender follows from the .blend, or is a choice of the person.
pub(crate) fn content(
    found: &Dependencies,
    bytes: &KnownBytes<'_>,
    extras: &FoundExtras,
    place: Option<&Path>,
) -> BlobHash {
    let mut names = BTreeSet::new();
    for item in found.items.iter().filter(|item| !item.file.packed) {
        names.insert(name(item, bytes).0);
    }
    let mut head = Fields::default();
    head.add(b"kiln content 1").add(bytes.of(&found.blend));
    head.add(place.map_or(&[], |place| place.as_os_str().as_encoded_bytes()));
    let mut hasher = BlobHasher::new();
    hasher.update(&head.0);
    for name in names {
        hasher.update(Fields::default().add(&name).0.as_slice());
    }
    let mut named: Vec<&(RelPath, std::path::PathBuf)> = extras.files.iter().collect();
    named.sort();
    for (path, source) in named {
        let mut fields = Fields::default();
        fields.add(b"goes along").add(path.as_str().as_bytes()).add(bytes.of(source));
        hasher.update(Fields::default().add(&fields.0).0.as_slice());
    }
    hasher.hash()
}

fn name(item: &Dependency, bytes: &KnownBytes<'_>) -> Fields {
    let mut fields = Fields::default();
    fields.add(bytes.of(&item.holder));
    // Caches of particles have no path: Blender finds them by the name of the .blend.
    let is_named = item.file.kind != ExternalKind::PointCache;
    fields.add(if is_named { &item.file.raw } else { b"" });
    for file in &item.files {
        let within = file.strip_prefix(&item.place).ok().filter(|rest| !rest.as_os_str().is_empty());
        // A path to one file identifies it; of several, the names identify frames, tiles and views.
        let own = (*file != item.place).then(|| file.file_name().map(Path::new)).flatten();
        let part = within.or(own).map_or(&[][..], |part| part.as_os_str().as_encoded_bytes());
        fields.add(part).add(bytes.of(file));
    }
    fields
}
