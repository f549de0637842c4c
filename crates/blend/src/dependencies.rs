//! Every file that a .blend needs, all the way down.

use std::{
    collections::{HashSet, VecDeque},
    path::{Path, PathBuf},
};

use crate::{
    expand,
    external::{ExternalFile, ExternalKind},
    fault::BlendError,
    inspect::{Inspection, inspect},
    resolve::{is_relative, resolve},
};

/// .blend files that one may draw in.
const MAX_LIBRARIES: usize = 10_000;

/// A file, or a set of them, that a .blend names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependency {
    pub file: ExternalFile,
    /// The .blend that names it.
    pub holder: PathBuf,
    /// Whether the name is relative to the holder's folder (`//`).
    pub relative: bool,
    /// Where the name points; for a sequence one of its files, for tiles a pattern, for caches a folder.
    pub place: PathBuf,
    /// What lies there: all files of a sequence, of the tiles, of the folder.
    pub files: Vec<PathBuf>,
}

impl Dependency {
    /// Also true of what is packed and needs no file.
    pub fn exists(&self) -> bool {
        self.file.packed || !self.files.is_empty()
    }

    /// Whether a render without it would lack something.
    pub fn is_missing(&self) -> bool {
        !self.exists() && self.file.kind.is_required()
    }
}

/// A .blend and all that it needs.
#[derive(Debug)]
pub struct Dependencies {
    /// Absolute.
    pub blend: PathBuf,
    pub inspection: Inspection,
    /// What the .blend names comes first, then what its libraries name.
    pub items: Vec<Dependency>,
    /// Libraries that are there and cannot be read.
    pub broken: Vec<BlendError>,
}

/// Reads the .blend and, each once, the libraries it draws in.
///
/// # Errors
/// Where the .blend itself cannot be read. What is wrong with a library is told in the result.
pub fn dependencies(path: &Path) -> Result<Dependencies, BlendError> {
    let inspection = inspect(path)?;
    // Fails only for an empty path, which could not have been read.
    let blend = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut items = Vec::new();
    let mut broken = Vec::new();
    let mut seen = HashSet::from([identity(&blend)]);
    let mut todo = VecDeque::new();
    take_in(&blend, &inspection.external, &mut items, &mut todo);
    while let Some(library) = todo.pop_front() {
        if seen.len() >= MAX_LIBRARIES || !seen.insert(identity(&library)) {
            continue;
        }
        match inspect(&library) {
            Ok(inside) => take_in(&library, &inside.external, &mut items, &mut todo),
            Err(error) => broken.push(error),
        }
    }
    Ok(Dependencies { blend, inspection, items, broken })
}

/// The same for all paths to one file.
fn identity(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn take_in(
    holder: &Path,
    external: &[ExternalFile],
    items: &mut Vec<Dependency>,
    todo: &mut VecDeque<PathBuf>,
) {
    let folder = holder.parent().unwrap_or(Path::new("/"));
    let mut seen = HashSet::new();
    for file in external {
        // Many datablocks may name one file.
        if !seen.insert((file.raw.clone(), file.kind, file.packed, file.sequence)) {
            continue;
        }
        let place = resolve(&file.raw, folder);
        let files = if file.packed { Vec::new() } else { expand::expand(file, &place) };
        if file.kind == ExternalKind::Library {
            todo.extend(files.iter().cloned());
        }
        let relative = is_relative(&file.raw);
        items.push(Dependency { file: file.clone(), holder: holder.to_owned(), relative, place, files });
    }
    // Blender finds baked particles and cloth by the name of the .blend.
    if let Some(stem) = holder.file_stem() {
        let mut name = std::ffi::OsString::from("blendcache_");
        name.push(stem);
        let place = folder.join(&name);
        let files = if place.is_dir() { expand::folder(&place) } else { Vec::new() };
        if !files.is_empty() {
            let path = format!("//{}", name.to_string_lossy());
            let file = ExternalFile {
                kind: ExternalKind::PointCache,
                raw: path.clone().into_bytes(),
                path,
                owner: String::new(),
                packed: false,
                sequence: false,
                tiled: false,
            };
            items.push(Dependency { file, holder: holder.to_owned(), relative: true, place, files });
        }
    }
}
