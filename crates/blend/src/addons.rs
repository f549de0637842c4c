//! The files of an add-on that a job brings along: a Python file, a folder that is a module or an extension, or a
//! .zip of one.
//!
//! A .zip is unpacked here and not on the workers: a bomb or a path that climbs is then known before anything is sent,
//! and files that did not change between versions are not sent again.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use kiln_types::RelPath;

use crate::disk::DiskView;

const MAX_FILES: usize = 20_000;
/// Bytes that a .zip may unpack to.
const MAX_UNPACKED: u64 = 1 << 30;
const MAX_DEPTH: usize = 32;
const MANIFEST: &str = "blender_manifest.toml";

/// An add-on and where its files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddonFiles {
    /// The name of the Python module, or the id of the extension: Blender enables it by this.
    pub module: String,
    /// The file or folder that is the add-on, below any folder: `MODULE.py` or `MODULE`.
    pub root: RelPath,
    /// An extension (4.2 and newer), by its manifest.
    pub extension: bool,
    /// The places to each other, and the paths on this disk. Sorted.
    pub files: Vec<(RelPath, PathBuf)>,
}

/// An add-on that cannot be taken along, and why.
#[derive(Debug, thiserror::Error)]
#[error("the add-on {} cannot be used: {fault}", path.display())]
pub struct AddonError {
    pub path: PathBuf,
    #[source]
    pub fault: AddonFault,
}

/// The reason why an add-on cannot be part of a bundle.
#[derive(Debug, thiserror::Error)]
pub enum AddonFault {
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("it cannot be unpacked: {0}")]
    Unpack(#[source] io::Error),
    #[error("it is neither a .py file, nor a folder with an __init__.py, nor a .zip of one")]
    NoAddon,
    #[error("“{0}” is no name that Python can import; rename it")]
    Name(String),
    #[error("its {MANIFEST} names no id")]
    NoId,
    #[error("its .zip is damaged: {0}")]
    Damaged(#[source] zip::result::ZipError),
    #[error("its .zip contains {0}, which leads out of its folder; do not trust it")]
    Climbs(String),
    #[error("it has more than {MAX_FILES} files, or more than {} GiB", MAX_UNPACKED >> 30)]
    TooLarge,
    #[error("{} cannot be part of a bundle; give it a plain name", .0.display())]
    Place(PathBuf),
}

/// Finds the files of an add-on. A .zip is unpacked into `scratch`, a folder that is there and empty, and which has to
/// stay as long as the files are needed.
///
/// # Errors
/// Where it is no add-on, or one that no folder should hold.
pub fn find_addon_files(path: &Path, scratch: &Path) -> Result<AddonFiles, AddonError> {
    find(path, scratch).map_err(|fault| AddonError { path: path.to_owned(), fault })
}

fn find(path: &Path, scratch: &Path) -> Result<AddonFiles, AddonFault> {
    // A folder that is named as `.` has a name too.
    let path = path.canonicalize().map_err(AddonFault::Unreadable)?;
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    if path.is_dir() {
        return folder(&path);
    }
    match ending.as_deref() {
        Some("py") => file(&path),
        Some("zip") => {
            unpack(&path, scratch)?;
            unpacked(scratch)
        }
        _ => Err(AddonFault::NoAddon),
    }
}

fn file(path: &Path) -> Result<AddonFiles, AddonFault> {
    let module = importable(path.file_stem().and_then(|name| name.to_str()).unwrap_or_default())?;
    let root = RelPath::new(&format!("{module}.py")).map_err(|_| AddonFault::Name(module.clone()))?;
    Ok(AddonFiles { module, root: root.clone(), extension: false, files: vec![(root, path.to_owned())] })
}

fn folder(path: &Path) -> Result<AddonFiles, AddonFault> {
    if !path.join("__init__.py").is_file() {
        return Err(AddonFault::NoAddon);
    }
    let manifest = path.join(MANIFEST);
    let extension = manifest.is_file();
    let module = if extension {
        importable(&id(&manifest)?)?
    } else {
        importable(path.file_name().and_then(|name| name.to_str()).unwrap_or_default())?
    };
    let root = RelPath::new(&module).map_err(|_| AddonFault::Name(module.clone()))?;
    let mut files = Vec::new();
    let mut disk = DiskView::default();
    let mut todo = vec![(path.to_owned(), 0)];
    while let Some((folder, depth)) = todo.pop() {
        for (name, is_folder) in &disk.list(&folder).names {
            // What Python and version control put there is no part of it.
            let bytes = name.as_encoded_bytes();
            if name == "__pycache__" || bytes.starts_with(b".") || bytes.ends_with(b".pyc") {
                continue;
            }
            let source = folder.join(name);
            if *is_folder && depth < MAX_DEPTH && !source.is_symlink() {
                todo.push((source, depth + 1));
            } else if !is_folder {
                let below = source.strip_prefix(path).unwrap_or(&source);
                let parts = below.iter().map(|part| part.to_str()).collect::<Option<Vec<_>>>();
                let place =
                    parts.and_then(|parts| RelPath::new(&format!("{module}/{}", parts.join("/"))).ok());
                files.push((place.ok_or_else(|| AddonFault::Place(source.clone()))?, source));
            }
            if files.len() > MAX_FILES {
                return Err(AddonFault::TooLarge);
            }
        }
    }
    files.sort();
    Ok(AddonFiles { module, root, extension, files })
}

/// Add-ons lie in a folder or alone in their .zip, extensions also at its top.
fn unpacked(scratch: &Path) -> Result<AddonFiles, AddonFault> {
    if scratch.join(MANIFEST).is_file() {
        return folder(scratch);
    }
    let listing = DiskView::default().list(scratch);
    let mut folders =
        listing.names.iter().filter(|(_, is_folder)| **is_folder).map(|(name, _)| scratch.join(name));
    let modules: Vec<PathBuf> = folders.by_ref().filter(|path| path.join("__init__.py").is_file()).collect();
    let scripts: Vec<PathBuf> = listing
        .names
        .iter()
        .filter(|(name, is_folder)| !**is_folder && Path::new(name).extension().is_some_and(|e| e == "py"))
        .map(|(name, _)| scratch.join(name))
        .collect();
    match (&modules[..], &scripts[..]) {
        ([module], []) => folder(module),
        ([], [script]) => file(script),
        _ => Err(AddonFault::NoAddon),
    }
}

fn importable(name: &str) -> Result<String, AddonFault> {
    let fits = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if fits && name.chars().next().is_some_and(|c| !c.is_numeric()) {
        Ok(name.to_owned())
    } else {
        Err(AddonFault::Name(name.to_owned()))
    }
}

/// The `id` at the top of a manifest.
fn id(manifest: &Path) -> Result<String, AddonFault> {
    let mut text = String::new();
    let mut file = File::open(manifest).map_err(AddonFault::Unreadable)?.take(1 << 20);
    file.read_to_string(&mut text).map_err(AddonFault::Unreadable)?;
    let table: toml::Table = text.parse().map_err(|_| AddonFault::NoId)?;
    table.get("id").and_then(|id| id.as_str()).map(str::to_owned).ok_or(AddonFault::NoId)
}

fn unpack(path: &Path, scratch: &Path) -> Result<(), AddonFault> {
    let file = File::open(path).map_err(AddonFault::Unreadable)?;
    let mut archive = zip::ZipArchive::new(file).map_err(AddonFault::Damaged)?;
    if archive.len() > MAX_FILES {
        return Err(AddonFault::TooLarge);
    }
    let mut left = MAX_UNPACKED;
    for at in 0..archive.len() {
        let entry = archive.by_index(at).map_err(AddonFault::Damaged)?;
        let name = entry.name().map_err(AddonFault::Damaged)?.into_owned();
        let is_plain = !entry.is_symlink() && entry.enclosed_name().is_some();
        let place = RelPath::new(name.trim_end_matches('/')).ok().filter(|_| is_plain);
        let place = scratch.join(place.ok_or(AddonFault::Climbs(name))?.to_path());
        if entry.is_dir() {
            fs::create_dir_all(&place).map_err(AddonFault::Unpack)?;
            continue;
        }
        if let Some(folder) = place.parent() {
            fs::create_dir_all(folder).map_err(AddonFault::Unpack)?;
        }
        // The size that the archive tells may be a lie: what comes out is counted.
        let mut out = File::create(&place).map_err(AddonFault::Unpack)?;
        let written = io::copy(&mut entry.take(left + 1), &mut out).map_err(AddonFault::Unpack)?;
        left = left.checked_sub(written).ok_or(AddonFault::TooLarge)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::write::SimpleFileOptions;

    use super::*;

    fn made(names: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        for (name, text) in names {
            let path = temp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        temp
    }

    fn zipped(names: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        let mut writer = zip::ZipWriter::new(File::create(temp.path().join("addon-1.2.zip")).unwrap());
        for (name, text) in names {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        temp
    }

    fn found(path: &Path) -> Result<(String, bool, Vec<String>), AddonFault> {
        let scratch = tempfile::tempdir().unwrap();
        let found = find_addon_files(path, scratch.path()).map_err(|error| error.fault)?;
        assert!(found.files.iter().all(|(_, source)| source.is_file()));
        let root = found.root.as_str();
        assert!(found.files.iter().all(|(place, _)| place.as_str().starts_with(root)));
        Ok((found.module, found.extension, found.files.iter().map(|(place, _)| place.to_string()).collect()))
    }

    #[track_caller]
    fn check(path: &Path, module: &str, extension: bool, files: &[&str]) {
        let (a, b, c) = found(path).unwrap();
        assert_eq!((a.as_str(), b, c), (module, extension, files.iter().map(|f| (*f).to_owned()).collect()));
    }

    const EXTENSION: &str = "schema_version = \"1.0.0\"\nid = \"my_tool\"\n[permissions]\nid = \"no\"\n";

    #[test]
    fn files_folders_and_extensions() {
        let temp = made(&[
            ("one.py", ""),
            ("tool/__init__.py", ""),
            ("tool/data/x.json", ""),
            ("tool/__pycache__/a.pyc", ""),
            ("tool/.git/config", ""),
            ("My Tool-1/__init__.py", ""),
            ("My Tool-1/blender_manifest.toml", EXTENSION),
            ("bad-name/__init__.py", ""),
            ("empty/x.py", ""),
        ]);
        let at = |name: &str| temp.path().join(name);
        check(&at("one.py"), "one", false, &["one.py"]);
        check(&at("tool"), "tool", false, &["tool/__init__.py", "tool/data/x.json"]);
        check(&at("My Tool-1"), "my_tool", true, &["my_tool/__init__.py", "my_tool/blender_manifest.toml"]);
        assert!(matches!(found(&at("bad-name")), Err(AddonFault::Name(_))));
        assert!(matches!(found(&at("empty")), Err(AddonFault::NoAddon)));
        assert!(matches!(found(&at("none.py")), Err(AddonFault::Unreadable(_))));
    }

    #[test]
    fn zips_of_each() {
        let check_zip = |names: &[(&str, &str)], module: &str, extension: bool, files: &[&str]| {
            check(&zipped(names).path().join("addon-1.2.zip"), module, extension, files);
        };
        check_zip(
            &[("tool/__init__.py", ""), ("tool/a/b.py", "")],
            "tool",
            false,
            &["tool/__init__.py", "tool/a/b.py"],
        );
        check_zip(&[("solo.py", "")], "solo", false, &["solo.py"]);
        let top = [("__init__.py", ""), ("blender_manifest.toml", EXTENSION)];
        check_zip(&top, "my_tool", true, &["my_tool/__init__.py", "my_tool/blender_manifest.toml"]);
    }

    #[test]
    fn a_zip_that_lies_is_refused() {
        let refused =
            |names: &[(&str, &str)]| found(&zipped(names).path().join("addon-1.2.zip")).unwrap_err();
        for name in ["../evil.py", "/etc/evil.py", "a/../../evil.py", "C:/evil.py", "a\\..\\evil.py"] {
            assert!(matches!(refused(&[(name, "")]), AddonFault::Climbs(_)), "{name}");
        }
        assert!(matches!(refused(&[("readme.txt", "")]), AddonFault::NoAddon));
        let temp = made(&[("broken.zip", "PK\u{3}\u{4}nothing")]);
        assert!(matches!(found(&temp.path().join("broken.zip")), Err(AddonFault::Damaged(_))));
    }
}
