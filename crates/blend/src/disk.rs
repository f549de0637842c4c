//! Looking at folders, each read once.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use foldhash::HashMap;
use unicode_normalization::UnicodeNormalization;

use crate::resolve::os_name;

/// The most names in folders that are kept in memory. Further ones are not found.
const MAX_NAMES: usize = 2_000_000;

/// The content of a folder when it was first read.
#[derive(Default)]
pub(crate) struct Listing {
    /// Each name, and whether it is a folder.
    pub names: BTreeMap<OsString, bool>,
    alike: OnceCell<HashMap<Vec<u8>, Vec<OsString>>>,
}

impl Listing {
    /// Names that begin so, in their order.
    pub fn beginning(&self, head: &[u8]) -> impl Iterator<Item = (&OsStr, bool)> {
        let from = os_name(head);
        let head = head.to_vec();
        self.names
            .range(from..)
            .take_while(move |(name, _)| name.as_encoded_bytes().starts_with(&head))
            .map(|(name, is_folder)| (name.as_os_str(), *is_folder))
    }

    /// The name itself, or one that differs only in the case of letters and in Unicode's form. Of several, the
    /// one in which only the form differs; else the first.
    pub fn like(&self, name: &OsStr) -> Option<&OsStr> {
        if let Some((found, _)) = self.names.get_key_value(name) {
            return Some(found);
        }
        let alike = self.alike.get_or_init(|| {
            let mut alike: HashMap<Vec<u8>, Vec<OsString>> = HashMap::default();
            for name in self.names.keys() {
                alike.entry(folded(name)).or_default().push(name.clone());
            }
            alike
        });
        let found = alike.get(&folded(name))?;
        found
            .iter()
            .find(|other| composed(other) == composed(name))
            .or(found.first())
            .map(OsString::as_os_str)
    }
}

/// Unicode's composed form (NFC); what is no Unicode stays.
fn composed(name: &OsStr) -> Vec<u8> {
    name.to_str()
        .map_or_else(|| name.as_encoded_bytes().to_vec(), |text| text.nfc().collect::<String>().into())
}

/// The same for names that differ only in the case of letters and in Unicode's form.
pub(crate) fn folded(name: &OsStr) -> Vec<u8> {
    let Some(text) = name.to_str() else { return name.as_encoded_bytes().to_ascii_lowercase() };
    if text.is_ascii() {
        return text.to_ascii_lowercase().into();
    }
    text.nfc().flat_map(char::to_lowercase).nfc().collect::<String>().into()
}

/// The names of a folder that are read for each of its files that was asked for: a name costs about a tenth of a look. As
/// many files are looked at one by one before the folder is read at all.
const NAMES_A_LOOK: usize = 16;

/// The disk, as one search sees it.
#[derive(Default)]
pub(crate) struct DiskView {
    folders: HashMap<OsString, Rc<Listing>>,
    names: usize,
    /// The number of files of each folder that were asked for.
    asked: HashMap<OsString, usize>,
}

impl DiskView {
    /// Empty where the folder cannot be read.
    pub fn list(&mut self, folder: &Path) -> Rc<Listing> {
        if let Some(listing) = self.folders.get(folder.as_os_str()) {
            return listing.clone();
        }
        let names = read(folder).take(MAX_NAMES - self.names).collect();
        self.remember(folder, names)
    }

    fn remember(&mut self, folder: &Path, names: BTreeMap<OsString, bool>) -> Rc<Listing> {
        self.names += names.len();
        let listing = Rc::new(Listing { names, alike: OnceCell::new() });
        self.folders.insert(folder.into(), listing.clone());
        listing
    }

    /// A file is at the path, or a link to one.
    pub fn is_file(&mut self, path: &Path) -> bool {
        // What its folder does not list may be there: some disks take names in letters of another case.
        self.lists(path) || fs::metadata(path).is_ok_and(|meta| meta.is_file())
    }

    /// The path is known to be a file because its folder was read.
    fn lists(&mut self, path: &Path) -> bool {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        if let Some(listing) = self.folders.get(folder.as_os_str()) {
            return listing.names.get(name) == Some(&false);
        }
        let Some(asked) = self.asked.get_mut(folder.as_os_str()) else {
            self.asked.insert(folder.into(), 1);
            return false;
        };
        *asked += 1;
        let most = (*asked * NAMES_A_LOOK).min(MAX_NAMES - self.names);
        if *asked < NAMES_A_LOOK || !asked.is_power_of_two() {
            return false;
        }
        let mut entries = read(folder);
        let names: BTreeMap<_, _> = entries.by_ref().take(most).collect();
        entries.next().is_none() && self.remember(folder, names).names.get(name) == Some(&false)
    }

    /// The path as it lies on the disk where letters of another case or another form of Unicode are in the way;
    /// `None` where nothing is alike. The last part is only looked for where `whole`.
    pub fn like(&mut self, path: &Path, whole: bool) -> Option<PathBuf> {
        let parts: Vec<Component<'_>> = path.components().collect();
        let count = if whole { parts.len() } else { parts.len().checked_sub(1)? };
        // The longest beginning that exists as written needs no reading of folders.
        let there = (0..=count).rev().find(|there| {
            let path: PathBuf = parts[..*there].iter().collect();
            *there == 0 || path.symlink_metadata().is_ok()
        })?;
        let mut found: PathBuf = parts[..there].iter().collect();
        for part in &parts[there..count] {
            let Component::Normal(name) = part else { return None };
            let name = self.list(&found).like(name)?.to_owned();
            found.push(name);
        }
        found.extend(&parts[count..]);
        Some(found)
    }
}

/// Each name in a folder, and whether it is a folder. What a link leads to counts; a broken one, a socket or the like
/// is no file.
fn read(folder: &Path) -> impl Iterator<Item = (OsString, bool)> {
    fs::read_dir(folder).into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        let kind = entry.file_type().ok()?;
        if kind.is_file() || kind.is_dir() {
            return Some((entry.file_name(), kind.is_dir()));
        }
        let meta = fs::metadata(entry.path()).ok().filter(|meta| meta.is_file() || meta.is_dir())?;
        Some((entry.file_name(), meta.is_dir()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_another_case_or_form_are_found() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        for name in ["Tex/Wood.PNG", "Tex/caf\u{e9}.png", "a/x", "A/X"] {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"x").unwrap();
        }
        let mut disk = DiskView::default();
        let mut like = |name: &str| disk.like(&root.join(name), true);
        assert_eq!(like("tex/wood.png"), Some(root.join("Tex/Wood.PNG")));
        assert_eq!(like("tex/cafe\u{301}.png"), Some(root.join("Tex/caf\u{e9}.png")));
        assert_eq!(like("TEX/CAFE\u{301}.PNG"), Some(root.join("Tex/caf\u{e9}.png")));
        assert_eq!(like("a/x"), Some(root.join("a/x")), "a path that exists as written is taken");
        assert_eq!(like("A/x"), Some(root.join("A/X")), "an existing folder is not left for another");
        assert_eq!(like("tex/none.png"), None);
        assert_eq!(disk.like(&root.join("tex/none.png"), false), Some(root.join("Tex/none.png")));
        assert_eq!(disk.list(&root.join("nowhere")).names.len(), 0);
    }
    #[test]
    fn a_folder_that_is_asked_for_often_is_read_unless_it_holds_far_more() {
        let temp = tempfile::tempdir().unwrap();
        let (few, many) = (temp.path().join("few"), temp.path().join("many"));
        fs::create_dir_all(few.join("folder")).unwrap();
        fs::create_dir_all(&many).unwrap();
        (0..40).for_each(|number| fs::write(few.join(number.to_string()), b"x").unwrap());
        (0..600).for_each(|number| fs::write(many.join(number.to_string()), b"x").unwrap());
        let mut disk = DiskView::default();
        for folder in [&few, &many] {
            for number in 0..20 {
                assert!(disk.is_file(&folder.join(number.to_string())));
                assert!(!disk.is_file(&folder.join(format!("none {number}"))));
            }
        }
        assert!(!disk.is_file(&few.join("folder")), "a folder is no file");
        assert!(disk.folders.contains_key(few.as_os_str()));
        assert!(!disk.folders.contains_key(many.as_os_str()), "600 names are too many for 32 questions");
        fs::write(few.join("new"), b"x").unwrap();
        assert!(disk.is_file(&few.join("new")), "what the names lack is still looked for");
    }
}
