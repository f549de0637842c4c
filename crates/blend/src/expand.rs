//! One name that stands for many files: sequences, UDIM tiles, views, folders.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

use crate::{
    disk::{DiskView, folded},
    external::{ExternalFile, ExternalKind},
    resolve::os_name,
    sequence::NumberedName,
};

/// Files that one name may stand for.
const MAX_FILES: usize = 1_000_000;
const MAX_DEPTH: usize = 32;

/// The part between the head and the tail of names that belong together.
enum Middle {
    /// Running numbers of at least `digits` digits.
    Number { digits: usize, signed: bool },
    /// `1001` to `2000`, written `<UDIM>`.
    Udim,
    /// `u1_v1`, written `<UVTILE>`.
    UvTile,
}

impl Middle {
    fn takes(&self, middle: &[u8]) -> bool {
        let number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        match self {
            Self::Number { digits: 0, .. } if middle.is_empty() => true,
            // Numbers that outgrow their width lose no zeros.
            Self::Number { digits, signed } => {
                let middle = middle.strip_prefix(b"-").filter(|_| *signed).unwrap_or(middle);
                let longer = middle.len() > *digits && middle.first() != Some(&b'0');
                number(middle) && (middle.len() == *digits || longer)
            }
            Self::Udim => middle.len() == 4 && (&b"1001"[..]..=b"2000").contains(&middle) && number(middle),
            Self::UvTile => middle.strip_prefix(b"u").is_some_and(|rest| {
                let mut parts = rest.splitn(2, |byte| *byte == b'_');
                let u = parts.next().unwrap_or_default();
                number(u) && parts.next().and_then(|v| v.strip_prefix(b"v")).is_some_and(number)
            }),
        }
    }

    fn marker(&self) -> Option<&'static [u8]> {
        match self {
            Self::Number { .. } => None,
            Self::Udim => Some(b"<UDIM>"),
            Self::UvTile => Some(b"<UVTILE>"),
        }
    }
}

/// Names that belong together.
struct Pattern<'a> {
    head: &'a [u8],
    middle: Middle,
    tail: &'a [u8],
}

impl<'a> Pattern<'a> {
    fn numbered(parts: NumberedName<'a>, signed: bool) -> Self {
        let middle = Middle::Number { digits: parts.digits, signed };
        Self { head: parts.head, middle, tail: parts.tail }
    }

    fn tiled(name: &'a [u8]) -> Option<Self> {
        for middle in [Middle::Udim, Middle::UvTile] {
            let marker = middle.marker()?;
            if let Some(at) = name.windows(marker.len()).position(|part| part == marker) {
                return Some(Self { head: &name[..at], middle, tail: &name[at + marker.len()..] });
            }
        }
        // Old files name the first tile.
        let parts = NumberedName::of_picture(name);
        parts.number.map(|_| Self::numbered(parts, false))
    }

    fn of(file: &ExternalFile, name: &'a [u8]) -> Option<Self> {
        match (file.sequence, file.tiled) {
            (true, _) => {
                let signed = matches!(file.kind, ExternalKind::Volume | ExternalKind::CacheFile);
                NumberedName::of(file, name).map(|parts| Self::numbered(parts, signed))
            }
            (_, true) => Self::tiled(name),
            _ => None,
        }
    }

    fn takes(&self, name: &[u8]) -> bool {
        let middle = name.strip_prefix(self.head).and_then(|rest| rest.strip_suffix(self.tail));
        middle.is_some_and(|middle| self.middle.takes(middle))
    }

    fn files(&self, folder: &Path, disk: &mut DiskView) -> Vec<PathBuf> {
        let listing = disk.list(folder);
        let found = listing.beginning(self.head).filter(|(_, is_folder)| !is_folder).map(|(name, _)| name);
        let found = found.filter(|name| self.takes(name.as_encoded_bytes()));
        found.take(MAX_FILES).map(|name| folder.join(name)).collect()
    }

    /// The name as it would stand for files that are there under another case or form.
    fn like(&self, folder: &Path, disk: &mut DiskView) -> Option<PathBuf> {
        let listing = disk.list(folder);
        let same = |a: &[u8], b: &[u8]| folded(&os_name(a)) == folded(&os_name(b));
        let head = folded(&os_name(self.head));
        let files = listing.names.iter().filter(|(_, is_folder)| !**is_folder);
        files.filter(|(name, _)| folded(name).starts_with(&head)).find_map(|(name, _)| {
            let name = name.as_encoded_bytes();
            // Few names hold a digit at all.
            let starts = (0..name.len()).filter(|at| name[*at].is_ascii_digit() || name[*at] == b'u');
            for start in starts {
                for end in start + 1..=name.len().min(start + 24) {
                    let fits = self.middle.takes(&name[start..end]);
                    if fits && same(&name[end..], self.tail) && same(&name[..start], self.head) {
                        let middle = self.middle.marker().unwrap_or(&name[start..end]);
                        return Some(folder.join(os_name(&[&name[..start], middle, &name[end..]].concat())));
                    }
                }
            }
            None
        })
    }
}

/// The file of one tile, where the name has a place for its number.
pub(crate) fn tile(name: &[u8], number: u16) -> Option<Vec<u8>> {
    let at = number.checked_sub(1001)?;
    let (column, row) = (at % 10 + 1, at / 10 + 1);
    [(Middle::Udim, number.to_string()), (Middle::UvTile, format!("u{column}_v{row}"))].iter().find_map(
        |(middle, text)| {
            let marker = middle.marker()?;
            let at = name.windows(marker.len()).position(|part| part == marker)?;
            Some([&name[..at], text.as_bytes(), &name[at + marker.len()..]].concat())
        },
    )
}

fn name_of(path: &Path) -> &[u8] {
    path.file_name().unwrap_or(OsStr::new("")).as_encoded_bytes()
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The files of all views: `wood_L.png` and `wood_R.png`.
fn views(path: &Path, suffixes: &[String], disk: &mut DiskView) -> Vec<PathBuf> {
    let name = name_of(path);
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let own = suffixes.iter().filter(|suffix| !suffix.is_empty());
    let Some(prefix) = own.filter_map(|suffix| stem.strip_suffix(suffix.as_bytes())).next() else {
        return single(path, disk);
    };
    let listing = disk.list(parent(path));
    let all = suffixes.iter().map(|suffix| os_name(&[prefix, suffix.as_bytes(), extension].concat()));
    let mut found: Vec<PathBuf> = all
        .filter(|name| listing.names.get(name) == Some(&false))
        .map(|name| parent(path).join(name))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// An entry of a folder of caches is part of the cache. A user may have chosen a folder with other things in it.
fn belongs(kind: ExternalKind, name: &OsStr, is_folder: bool) -> bool {
    let name = name.as_encoded_bytes();
    match kind {
        ExternalKind::FluidCache => {
            let parts: [&[u8]; 7] =
                [b"config", b"data", b"noise", b"mesh", b"particles", b"guiding", b"script"];
            is_folder && parts.contains(&name)
        }
        ExternalKind::OceanCache => {
            let parts: [&[u8]; 4] = [b"disp_", b"foam_", b"spray_", b"normal_"];
            !is_folder && parts.iter().any(|part| name.starts_with(part))
        }
        // Of one bake, or of a modifier with a folder for each bake.
        ExternalKind::NodesBake => {
            is_folder && (name == b"meta" || name == b"blobs" || name.iter().all(u8::is_ascii_digit))
        }
        ExternalKind::ExternalPointCache => {
            !is_folder && (name.ends_with(b".bphys") || name.ends_with(b".bphys.gz"))
        }
        _ => true,
    }
}

/// Every file of a cache; links to folders below it are not followed.
fn folder(path: &Path, kind: ExternalKind, disk: &mut DiskView) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![(path.to_owned(), 0)];
    while let Some((folder, depth)) = todo.pop() {
        for (name, is_folder) in &disk.list(&folder).names {
            let path = folder.join(name);
            if depth == 0 && !belongs(kind, name, *is_folder) {
                continue;
            }
            if *is_folder && depth < MAX_DEPTH && !path.is_symlink() {
                todo.push((path, depth + 1));
            } else if !is_folder && found.len() < MAX_FILES {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn single(path: &Path, disk: &mut DiskView) -> Vec<PathBuf> {
    if disk.is_file(path) { vec![path.to_owned()] } else { Vec::new() }
}

/// The files on disk that a name stands for; none where it is missing. `suffixes` are those of the views.
pub(crate) fn expand(
    file: &ExternalFile,
    path: &Path,
    suffixes: &[String],
    disk: &mut DiskView,
) -> Vec<PathBuf> {
    if file.kind.is_folder() {
        folder(path, file.kind, disk)
    } else if let Some(pattern) = Pattern::of(file, name_of(path)) {
        pattern.files(parent(path), disk)
    } else if file.views {
        views(path, suffixes, disk)
    } else {
        single(path, disk)
    }
}

/// Finds the path under a name that differs in the case of letters or the form of Unicode.
pub(crate) fn like(file: &ExternalFile, path: &Path, disk: &mut DiskView) -> Option<PathBuf> {
    match Pattern::of(file, name_of(path)) {
        Some(pattern) => {
            let near = disk.like(path, false)?;
            pattern.like(parent(&near), disk)
        }
        None => disk.like(path, true),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(kind: ExternalKind) -> ExternalFile {
        ExternalFile::new(kind, b"x".to_vec(), String::new())
    }

    struct Made(tempfile::TempDir);

    impl Made {
        fn new(names: &[&[u8]]) -> Self {
            let temp = tempfile::tempdir().unwrap();
            for name in names {
                let path = temp.path().join(os_name(name));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, b"x").unwrap();
            }
            Self(temp)
        }

        #[track_caller]
        fn check(&self, file: &ExternalFile, name: &str, expected: &[&str]) {
            let suffixes = ["_L".to_owned(), "_R".to_owned()];
            let found = expand(file, &self.0.path().join(name), &suffixes, &mut DiskView::default());
            let found: Vec<_> =
                found.iter().map(|p| p.strip_prefix(self.0.path()).unwrap().to_string_lossy()).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn sequences_take_what_has_the_numbers_width_or_outgrew_it() {
        let made = Made::new(&[
            b"s_0001.png",
            b"s_0002.png",
            b"s_10000.png",
            b"s_00003.png",
            b"s_2.png",
            b"t_0001.png",
            b"caf\xe9_01.png",
            b"caf\xe9_02.png",
            b"12.v1.exr",
            b"12.v2.exr",
            b"name.mp4",
        ]);
        let sequence = ExternalFile { sequence: true, ..file(ExternalKind::Image) };
        made.check(&sequence, "s_0001.png", &["s_0001.png", "s_0002.png", "s_10000.png"]);
        made.check(&sequence, "s_0099.png", &["s_0001.png", "s_0002.png", "s_10000.png"]);
        made.check(&sequence, "12.v1.exr", &["12.v1.exr", "12.v2.exr"]);
        made.check(&sequence, "name.mp4", &["name.mp4"]);
        made.check(&sequence, "none_1.png", &[]);
        let latin = os_name(b"caf\xe9_01.png");
        let found = expand(&sequence, &made.0.path().join(latin), &[], &mut DiskView::default());
        assert_eq!(found.len(), 2, "a name that is no Unicode has numbers too");
    }

    #[test]
    fn tiles_and_views() {
        let made = Made::new(&[
            b"w.1001.png",
            b"w.1002.png",
            b"w.0999.png",
            b"w.2001.png",
            b"x.u1_v2.png",
            b"x.u1_2.png",
            b"e_L.png",
            b"e_R.png",
            b"e.png",
        ]);
        let tiled = ExternalFile { tiled: true, ..file(ExternalKind::Image) };
        made.check(&tiled, "w.<UDIM>.png", &["w.1001.png", "w.1002.png"]);
        made.check(&tiled, "x.<UVTILE>.png", &["x.u1_v2.png"]);
        let views = ExternalFile { views: true, ..file(ExternalKind::Image) };
        made.check(&views, "e_L.png", &["e_L.png", "e_R.png"]);
        made.check(&views, "e.png", &["e.png"]);
    }

    #[test]
    fn of_a_folder_with_other_things_only_the_cache_is_taken() {
        let made = Made::new(&[
            b"c/data/a/one.vdb",
            b"c/mesh/two.bobj.gz",
            b"c/movie.mp4",
            b"c/other/x",
            b"c/disp_0001.exr",
            b"c/123/meta/f.json",
            b"c/n_000001_00.bphys",
        ]);
        made.check(&file(ExternalKind::FluidCache), "c", &["c/data/a/one.vdb", "c/mesh/two.bobj.gz"]);
        made.check(&file(ExternalKind::OceanCache), "c", &["c/disp_0001.exr"]);
        made.check(&file(ExternalKind::NodesBake), "c", &["c/123/meta/f.json"]);
        made.check(&file(ExternalKind::ExternalPointCache), "c", &["c/n_000001_00.bphys"]);
        let mut disk = DiskView::default();
        assert_eq!(folder(&made.0.path().join("c"), ExternalKind::PointCache, &mut disk).len(), 7);
    }

    #[test]
    fn sets_of_another_case_are_found() {
        let made = Made::new(&[b"Tex/Wood.1001.PNG", b"Tex/Wood.1002.PNG", b"Seq/Shot_0001.png"]);
        let root = made.0.path();
        let tiled = ExternalFile { tiled: true, ..file(ExternalKind::Image) };
        let sequence = ExternalFile { sequence: true, ..file(ExternalKind::Image) };
        let mut disk = DiskView::default();
        let found = like(&tiled, &root.join("tex/wood.<UDIM>.png"), &mut disk);
        assert_eq!(found, Some(root.join("Tex/Wood.<UDIM>.PNG")));
        let found = expand(&sequence, &root.join("Seq/Shot_0002.png"), &[], &mut disk);
        assert_eq!(found, [root.join("Seq/Shot_0001.png")]);
        fs::remove_dir_all(root.join("Seq")).unwrap();
        let found = expand(&sequence, &root.join("Seq/Shot_0001.png"), &[], &mut disk);
        assert_eq!(found.len(), 1, "a folder is read once, however many sequences are in it");
        fs::create_dir(root.join("Seq")).unwrap();
        let found = like(&sequence, &root.join("seq/shot_0005.PNG"), &mut disk);
        assert_eq!(found, Some(root.join("Seq/Shot_0001.png")));
        assert_eq!(like(&sequence, &root.join("seq/other_0005.PNG"), &mut disk), None);
    }
}
