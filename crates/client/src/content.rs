//! The hash of all that the pixels of a .blend depend on, whatever folder it lies in (decision 019).

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use kiln_blend::{Dependencies, Dependency, ExternalKind};
use kiln_types::{BlobHash, BlobHasher, RelPath, SharedFile};

use crate::FoundExtras;

/// Hashes of files on this disk, or what else tells their bytes.
#[derive(Default)]
pub(crate) struct KnownBytes<'a>(HashMap<&'a Path, Vec<u8>>);

impl<'a> KnownBytes<'a> {
    pub fn read(&mut self, path: &'a Path, hash: BlobHash) {
        self.0.insert(path, hash.as_bytes().to_vec());
    }

    /// Of a file that nobody reads here, and that workers tell by its size and time.
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

/// Fields, each with its length before it, so that no two lists of fields make one text.
#[derive(Default)]
struct Fields(Vec<u8>);

impl Fields {
    fn add(&mut self, field: &[u8]) -> &mut Self {
        self.0.extend((field.len() as u64).to_le_bytes());
        self.0.extend(field);
        self
    }
}

/// Version 1: a name for this encoding, the bytes of the .blend, the place where it shows in pixels, and, sorted, each
/// name that it or a library of it has for files, with the bytes of those, and each file that goes along because the
/// person named it. The series of Blender is that of the .blend, or a choice.
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
    // Caches of particles have no name: Blender looks beside the .blend, whatever that is called.
    let is_named = item.file.kind != ExternalKind::PointCache;
    fields.add(if is_named { &item.file.raw } else { b"" });
    for file in &item.files {
        let within = file.strip_prefix(&item.place).ok().filter(|rest| !rest.as_os_str().is_empty());
        // The file of one name alone is told by that; of several the names tell frames, tiles and views.
        let own = (*file != item.place).then(|| file.file_name().map(Path::new)).flatten();
        let told = within.or(own).map_or(&[][..], |told| told.as_os_str().as_encoded_bytes());
        fields.add(told).add(bytes.of(file));
    }
    fields
}
