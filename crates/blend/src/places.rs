//! Places in a bundle: names that every system takes, each place for one file.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ffi::OsStr,
    path::{Component, Path, PathBuf},
};

use kiln_types::{BlobHash, RelPath};

use crate::{dependencies::Dependency, disk::folded, resolve::os_name};

/// The folder of files that cannot keep their place.
const OUTSIDE: &str = "_external";
/// Bytes of a place: Blender opens no path of more than 1,023 bytes, and a worker's own folder comes before it.
const LONGEST: usize = 700;
/// Bytes of the .blend's name: Blender saves it under a longer one, and puts its caches into a folder that is called
/// after it.
const LONGEST_BLEND: usize = 200;

/// Every system allows the name: Windows reserves some names and characters.
fn is_portable(name: &str) -> bool {
    const RESERVED: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "CLOCK$", "CONIN$"];
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = ["COM", "LPT"].iter().filter_map(|port| stem.strip_prefix(port));
    let is_port = numbered.clone().any(|rest| rest.chars().count() == 1 && rest != "0" && is_digit(rest));
    !name.ends_with(['.', ' '])
        && !name.contains(['<', '>', ':', '"', '|', '?', '*'])
        && !RESERVED.contains(&stem.as_str())
        && !is_port
}

/// Windows takes the superscripts for digits.
fn is_digit(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || ['\u{b9}', '\u{b2}', '\u{b3}'].contains(&c))
}

/// A folder of the disk whose files keep their places relative to each other, below a folder of the bundle.
struct KeptFolder<'a> {
    folder: &'a Path,
    prefix: String,
}

impl KeptFolder<'_> {
    /// `None` if the path is not below, or its name cannot be part of a bundle.
    fn of(&self, path: &Path) -> Option<RelPath> {
        let below = path.strip_prefix(self.folder).ok()?;
        let parts = below.components().map(|part| part.as_os_str().to_str()).collect::<Option<Vec<_>>>()?;
        RelPath::new(&format!("{}{}", self.prefix, parts.join("/"))).ok()
    }

    fn file(&self, path: &Path) -> Option<RelPath> {
        let place = self.of(path).filter(|place| place.as_str().len() <= LONGEST)?;
        place.as_str().split('/').all(is_portable).then_some(place)
    }

    fn all(&self, item: &Dependency) -> Option<PlacedFile> {
        let files = item.files.iter().map(|path| Some((self.file(path)?, path.clone())));
        Some(PlacedFile { files: files.collect::<Option<_>>()?, meant: self.of(&item.place)? })
    }
}

/// Places for the files of one name.
pub(crate) struct PlacedFile {
    pub files: Vec<(RelPath, PathBuf)>,
    /// The target of the name: the file, one of the sequence, the pattern of the tiles, the folder.
    pub meant: RelPath,
}

/// The places that are taken. Two that differ only in the case of letters or in Unicode's form are one, as on some
/// workers' disks.
#[derive(Default)]
pub(crate) struct Places {
    pub files: BTreeMap<RelPath, PathBuf>,
    taken: HashMap<Vec<u8>, RelPath>,
    folders: HashSet<Vec<u8>>,
}

fn ancestors(place: &RelPath) -> impl Iterator<Item = Vec<u8>> {
    let text = place.as_str();
    text.match_indices('/').map(|(at, _)| folded(OsStr::new(&text[..at])))
}

impl Places {
    fn is_free(&self, place: &RelPath, source: &Path) -> bool {
        let same = folded(OsStr::new(place.as_str()));
        match self.taken.get(&same) {
            Some(other) => other == place && self.files.get(place).is_some_and(|other| other == source),
            None => {
                !self.folders.contains(&same)
                    && ancestors(place).all(|folder| !self.taken.contains_key(&folder))
            }
        }
    }

    pub fn take(&mut self, place: &RelPath, source: &Path) {
        self.taken.insert(folded(OsStr::new(place.as_str())), place.clone());
        self.folders.extend(ancestors(place));
        self.files.insert(place.clone(), source.to_owned());
    }

    fn fits(&self, placed: &PlacedFile) -> bool {
        let mut new = HashMap::new();
        placed.files.iter().all(|(place, source)| {
            self.is_free(place, source)
                && new.insert(folded(OsStr::new(place.as_str())), source).is_none_or(|other| other == source)
        })
    }

    /// The .blend's own place: its name if that can be part of a bundle.
    pub fn take_blend(&mut self, blend: &Path, root: &Path) -> RelPath {
        let kept = KeptFolder { folder: root, prefix: String::new() };
        let own = kept.file(blend).filter(|place| place.file_name().len() <= LONGEST_BLEND);
        let place = own.or_else(|| kept.file(&parent(blend).join("scene.blend")));
        let Some(place) = place.or_else(|| RelPath::new("scene.blend").ok()) else {
            unreachable!("a fixed name is a safe path")
        };
        self.take(&place, blend);
        place
    }

    /// Takes the files of a name in: where they lie below the root, else together below a folder of their own,
    /// else under other names. `None` where nothing fits.
    pub fn take_all(&mut self, item: &Dependency, root: &Path, group: &Path) -> Option<RelPath> {
        let inside = KeptFolder { folder: root, prefix: String::new() };
        let outside = KeptFolder { folder: group, prefix: format!("{OUTSIDE}/{}/", short_hash(group)) };
        let fits = |placed: &PlacedFile| self.fits(placed);
        let placed = inside.all(item).filter(fits);
        let placed = placed.or_else(|| outside.all(item).filter(fits));
        let placed = placed.or_else(|| renamed(item).filter(fits))?;
        self.commit(placed)
    }

    /// Takes the files of a folder in below this one.
    pub fn take_below(&mut self, item: &Dependency, folder: &str) -> Option<RelPath> {
        let kept = KeptFolder { folder: &item.place, prefix: format!("{folder}/") };
        let files = item.files.iter().map(|path| Some((kept.file(path)?, path.clone())));
        let placed = PlacedFile { files: files.collect::<Option<_>>()?, meant: RelPath::new(folder).ok()? };
        if self.fits(&placed) { self.commit(placed) } else { None }
    }

    fn commit(&mut self, placed: PlacedFile) -> Option<RelPath> {
        for (place, source) in &placed.files {
            self.take(place, source);
        }
        Some(placed.meant)
    }
}

/// Names of their own for files whose names cannot be used: what they share is replaced, what tells them apart
/// (numbers, tiles, views) stays.
fn renamed(item: &Dependency) -> Option<PlacedFile> {
    let base = format!("{OUTSIDE}/{}", short_hash(&item.place));
    if item.file.kind.is_folder() {
        let kept = KeptFolder { folder: &item.place, prefix: format!("{base}/") };
        let files = item.files.iter().map(|path| Some((kept.file(path)?, path.clone())));
        return Some(PlacedFile { files: files.collect::<Option<_>>()?, meant: RelPath::new(&base).ok()? });
    }
    let extension = item.place.extension().and_then(OsStr::to_str).unwrap_or_default();
    let plain = extension.len() <= 16 && extension.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let dot = if plain && !extension.is_empty() { format!(".{extension}") } else { String::new() };
    let name_of = |path: &Path| path.file_stem().unwrap_or_default().as_encoded_bytes().to_vec();
    let meant = name_of(&item.place);
    let mut shared = meant.clone();
    for path in &item.files {
        let name = name_of(path);
        let same = shared.iter().zip(&name).take_while(|(a, b)| a == b).count();
        shared.truncate(same);
    }
    if item.files.len() == 1 && item.files[0] == item.place && !item.file.sequence {
        shared.clone_from(&meant);
    } else {
        while shared.last().is_some_and(u8::is_ascii_digit) {
            shared.pop();
        }
    }
    let place = |path: &Path| {
        let name = name_of(path);
        let rest = os_name(name.get(shared.len()..)?);
        RelPath::new(&format!("{base}/file{}{dot}", rest.to_str()?)).ok()
    };
    let files = item.files.iter().map(|path| Some((place(path)?, path.clone())));
    Some(PlacedFile { files: files.collect::<Option<_>>()?, meant: place(&item.place)? })
}

fn short_hash(path: &Path) -> String {
    let hash = BlobHash::of(path.as_os_str().as_encoded_bytes()).to_string();
    hash[..12].to_owned()
}

pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn ancestor(a: &Path, b: &Path) -> PathBuf {
    a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

fn depth(path: &Path) -> usize {
    path.components().filter(|part| matches!(part, Component::Normal(_))).count()
}

/// The deepest folder above `home` and as many of the others as can be had without taking in a whole disk or
/// everyone's homes.
pub(crate) fn common_root<'a>(home: &Path, others: impl Iterator<Item = &'a Path>) -> PathBuf {
    others
        .map(|other| ancestor(home, other))
        .filter(|root| depth(root) >= 2)
        .min_by_key(|root| depth(root))
        .filter(|root| depth(root) < depth(home))
        .unwrap_or_else(|| home.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_windows_keeps_for_itself() {
        for name in
            ["con", "Aux.png", "COM1.tar.gz", "lpt9", "lpt\u{b2}", "a.", "a ", "a:b", "what?", "nul .x"]
        {
            assert!(!is_portable(name), "{name}");
        }
        for name in ["console.png", "COM", "com0", "com10.png", ".hidden", "a.b", "\u{e9}", "shot 1"] {
            assert!(is_portable(name), "{name}");
        }
    }

    #[test]
    fn a_place_is_one_files_on_every_disk() {
        let place = |text: &str| RelPath::new(text).unwrap();
        let mut places = Places::default();
        places.take(&place("tex/Caf\u{e9}.png"), Path::new("/a"));
        assert!(places.is_free(&place("tex/Caf\u{e9}.png"), Path::new("/a")));
        assert!(!places.is_free(&place("tex/Caf\u{e9}.png"), Path::new("/b")));
        assert!(!places.is_free(&place("TEX/cafe\u{301}.png"), Path::new("/a")));
        assert!(!places.is_free(&place("Tex"), Path::new("/c")), "a folder is there");
        assert!(!places.is_free(&place("tex/caf\u{e9}.PNG/x"), Path::new("/c")), "a file is there");
        assert!(places.is_free(&place("tex/other.png"), Path::new("/c")));
    }

    #[test]
    fn the_root_never_takes_in_a_whole_disk() {
        let root = |home: &str, others: &[&str]| {
            common_root(Path::new(home), others.iter().map(|other| Path::new(*other))).display().to_string()
        };
        assert_eq!(
            root("/home/ada/shorts/s1", &["/home/ada/shorts/tex", "/home/ada/shorts/s1/a"]),
            "/home/ada/shorts"
        );
        assert_eq!(root("/home/ada/shorts/s1", &["/home/bob/tex"]), "/home/ada/shorts/s1");
        assert_eq!(root("/home/ada/shorts/s1", &["/srv/tex", "/home/ada/lib"]), "/home/ada");
        assert_eq!(root("/tmp", &["/tmp/tex"]), "/tmp");
    }
}
