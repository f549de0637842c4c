//! One name that stands for many files: sequences, UDIM tiles, folders.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use crate::external::ExternalFile;

/// Files that one name may stand for.
const MAX_FILES: usize = 1_000_000;
const MAX_DEPTH: usize = 32;

/// `shot_0012.png` is `shot_`, four digits, `.png`: the last digits before the extension.
fn split_number(name: &str) -> Option<(&str, usize, &str)> {
    let stem_end = name.rfind('.').filter(|dot| *dot > 0).unwrap_or(name.len());
    let end = name[..stem_end].rfind(|c: char| c.is_ascii_digit())? + 1;
    let start = name[..end]
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |at| at + name[at..].chars().next().map_or(1, char::len_utf8));
    Some((&name[..start], end - start, &name[end..]))
}

/// Regular files beside `path` whose names `wanted` takes, sorted.
fn siblings(path: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let Some(entries) = path.parent().and_then(|folder| fs::read_dir(folder).ok()) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(&wanted))
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .take(MAX_FILES)
        .collect();
    found.sort();
    found
}

fn sequence(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().and_then(OsStr::to_str);
    let Some((head, digits, tail)) = name.and_then(split_number) else { return single(path) };
    siblings(path, |name| {
        let number = name.strip_prefix(head).and_then(|rest| rest.strip_suffix(tail));
        number.is_some_and(|n| {
            let whole = !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit());
            // Numbers that outgrow their width lose no zeros.
            whole && (n.len() == digits || (n.len() > digits && !n.starts_with('0')))
        })
    })
}

/// `<UDIM>` stands for 1001 to 2000, `<UVTILE>` for `u1_v1`.
fn tiles(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name().and_then(OsStr::to_str) else { return single(path) };
    let middle = |marker: &str, name: &str, fits: &dyn Fn(&str) -> bool| {
        let (head, tail) = marker_split(path, marker)?;
        Some(name.strip_prefix(head.as_str())?.strip_suffix(tail.as_str()).is_some_and(fits))
    };
    if name.contains("<UDIM>") {
        return siblings(path, |name| {
            let fits = |n: &str| n.len() == 4 && n.parse::<u16>().is_ok_and(|n| (1001..=2000).contains(&n));
            middle("<UDIM>", name, &fits).unwrap_or(false)
        });
    }
    if name.contains("<UVTILE>") {
        return siblings(path, |name| {
            let number = |n: &str| !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit());
            let fits = |n: &str| {
                n.strip_prefix('u')
                    .and_then(|n| n.split_once("_v"))
                    .is_some_and(|(u, v)| number(u) && number(v))
            };
            middle("<UVTILE>", name, &fits).unwrap_or(false)
        });
    }
    // Old files name the first tile.
    sequence(path)
}

fn marker_split(path: &Path, marker: &str) -> Option<(String, String)> {
    let (head, tail) = path.file_name()?.to_str()?.split_once(marker)?;
    Some((head.to_owned(), tail.to_owned()))
}

/// Every file below a folder; links to folders are not followed.
pub(crate) fn folder(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![(path.to_owned(), 0)];
    while let Some((folder, depth)) = todo.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.filter_map(Result::ok) {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < MAX_DEPTH {
                todo.push((entry.path(), depth + 1));
            } else if !kind.is_dir() && entry.path().is_file() && found.len() < MAX_FILES {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn single(path: &Path) -> Vec<PathBuf> {
    if path.is_file() { vec![path.to_owned()] } else { Vec::new() }
}

/// The files on disk that a name stands for; none where it is missing.
pub(crate) fn expand(file: &ExternalFile, path: &Path) -> Vec<PathBuf> {
    if file.kind.is_folder() {
        folder(path)
    } else if file.sequence {
        sequence(path)
    } else if file.tiled {
        tiles(path)
    } else {
        single(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names() {
        assert_eq!(split_number("shot_0012.png"), Some(("shot_", 4, ".png")));
        assert_eq!(split_number("12.v2.exr"), Some(("12.v", 1, ".exr")));
        assert_eq!(split_number("é7"), Some(("é", 1, "")));
        assert_eq!(split_number("name.mp4"), None);
        assert_eq!(split_number("007"), Some(("", 3, "")));
    }

    #[test]
    fn sequences_tiles_and_folders() {
        let temp = tempfile::tempdir().unwrap();
        let touch = |name: &str| {
            let path = temp.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        };
        for name in [
            "s_0001.png",
            "s_0002.png",
            "s_10000.png",
            "s_00003.png",
            "s_2.png",
            "t_0001.png",
            "w.1001.png",
            "w.1002.png",
            "w.0999.png",
            "c/a/one",
            "c/two",
        ] {
            touch(name);
        }
        let names = |found: Vec<PathBuf>| -> Vec<String> {
            found.iter().map(|p| p.strip_prefix(temp.path()).unwrap().display().to_string()).collect()
        };
        let found = names(sequence(&temp.path().join("s_0001.png")));
        assert_eq!(found, ["s_0001.png", "s_0002.png", "s_10000.png"]);
        assert_eq!(names(tiles(&temp.path().join("w.<UDIM>.png"))), ["w.1001.png", "w.1002.png"]);
        assert_eq!(names(folder(&temp.path().join("c"))), ["c/a/one", "c/two"]);
        assert!(sequence(&temp.path().join("none_1.png")).is_empty());
    }
}
