//! Points the .blend files of a bundle at their libraries in it, before Blender reads them.
//!
//! Blender builds view layers, poses and overrides while it reads a file. Where a library is missing then, it builds
//! them from placeholders, and what a shot says of linked data is lost for good: to name the right file and reload it
//! comes too late. So the names of libraries are put right in the bundle's own copies of the files.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet, VecDeque},
    fs, io,
    path::Path,
};

use kiln_types::RelPath;

use crate::{
    bundled::{folder, place_of},
    dependencies::MAX_LIBRARIES,
    external::{ExternalFile, ExternalKind},
    meaning,
    rewrite::{RewriteError, RewriteFault, RewritePlan},
};

/// Bytes that every version of Blender has for the name of a library, with the NUL at its end.
const ROOM: usize = 1024;
/// Endings of files that Blender links from; backups have a number behind it.
const ENDINGS: [&str; 3] = [".blend", ".ble", ".blend.gz"];

/// Rewrites the names of libraries that do not resolve by themselves, in the .blend at this place of a bundle that lies
/// in `root` and in all its libraries. Files are changed where they lie, and what is a link becomes a copy; the others
/// are only read, and none at all where `remap` ([`crate::BundleLayout::remap`]) leads to no library. Returns the files that
/// have changed. A library that cannot be read stays as it is, and Blender says what is wrong with it.
pub fn point_libraries(
    root: &Path,
    blend: &RelPath,
    remap: &BTreeMap<String, RelPath>,
) -> Result<Vec<RelPath>, RewriteError> {
    let mut changed = Vec::new();
    if !remap.values().any(is_library) {
        return Ok(changed);
    }
    let home = folder(blend);
    let (mut todo, mut seen) = (VecDeque::from([blend.clone()]), HashSet::from([blend.clone()]));
    while let Some(holder) = todo.pop_front() {
        let found = RefCell::new(Vec::new());
        let rename = |file: &ExternalFile| {
            if file.kind != ExternalKind::Library || file.packed {
                return None;
            }
            let from = folder(&holder);
            let meaning = meaning::key(&file.raw, &meaning::way(home, from));
            let Some(place) = remap.get(&meaning) else {
                found.borrow_mut().extend(place_of(&meaning, home));
                return None;
            };
            found.borrow_mut().push(place.clone());
            // What is too long for Blender is missing then, and said to be.
            let name = format!("//{}", meaning::way(from, place.as_str())).into_bytes();
            (name.len() < ROOM).then_some(name)
        };
        let path = root.join(holder.to_path());
        let Ok(plan) = RewritePlan::of(&path, rename) else { continue };
        if !plan.is_empty() {
            let owned = own(&path);
            owned.map_err(|error| RewriteError { path: path.clone(), fault: RewriteFault::Write(error) })?;
            plan.apply(&path)?;
            changed.push(holder.clone());
        }
        for place in found.into_inner() {
            if seen.len() < MAX_LIBRARIES && seen.insert(place.clone()) {
                todo.push_back(place);
            }
        }
    }
    Ok(changed)
}

fn is_library(place: &RelPath) -> bool {
    let name = place.file_name().to_ascii_lowercase();
    let name = name.trim_end_matches(|letter: char| letter.is_ascii_digit());
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

/// Makes the file one that is the bundle's own, and that can be written.
fn own(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_symlink() {
        let source = fs::canonicalize(path)?;
        fs::remove_file(path)?;
        // By reference where the disk can.
        fs::copy(source, path)?;
    }
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_without_remapped_libraries_is_not_even_read() {
        let place = |text: &str| RelPath::new(text).unwrap();
        let nowhere = Path::new("/nowhere/at/all");
        let remap = BTreeMap::from([("/home/ana/wood.png".to_owned(), place("_external/wood.png"))]);
        assert_eq!(point_libraries(nowhere, &place("a.blend"), &remap).unwrap(), []);
        for (name, expected) in [
            ("lib/a.blend", true),
            ("lib/A.BLEND", true),
            ("a.blend1", true),
            ("a.blend.gz", true),
            ("a.blend/wood.png", false),
            ("blend", false),
        ] {
            assert_eq!(is_library(&place(name)), expected, "{name}");
        }
    }
}
