//! The folders of both machines: what must be in them, compared with what is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use kiln_testkit::picture;

use super::{
    model::{Fate, File, Kind, Maker, Mode, Stamp},
    scene::{Scenes, frame_name},
};

/// For each file that a step may change, what it may be afterwards; nothing else may change.
pub type Changes = BTreeMap<PathBuf, Vec<Option<File>>>;

/// Files where frames land, by their paths.
pub type Files = BTreeMap<PathBuf, File>;

/// Every file below the folders of a machine.
#[derive(Default)]
pub struct Tree {
    /// The folders that are compared.
    roots: Vec<PathBuf>,
    /// Files in output folders.
    pub files: Files,
    /// The command that wrote a frame last, even if the frame is gone.
    lines: BTreeMap<PathBuf, Maker>,
    /// Files that the user makes, and that no command may write.
    inputs: BTreeMap<PathBuf, Stamp>,
    /// Output folders, where Kiln keeps notes of its own, and the commands that found frames of theirs in each.
    notes: BTreeMap<PathBuf, Vec<Maker>>,
    /// Output folders that a command which was broken off may have left a part of a file in, for the next one to go on.
    parts: BTreeSet<PathBuf>,
}

pub fn stamp(path: &Path) -> Option<Stamp> {
    let meta = fs::symlink_metadata(path).ok()?;
    let modified_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
    Some(Stamp { inode: meta.ino(), size: meta.len(), modified_ns })
}

impl Tree {
    pub fn new(roots: Vec<PathBuf>) -> Self {
        Self { roots, ..Self::default() }
    }

    /// The user wrote this file.
    pub fn input(&mut self, path: PathBuf) {
        let stamp = stamp(&path).unwrap();
        self.inputs.insert(path, stamp);
    }

    /// The user wrote this file where a frame belongs.
    pub fn put(&mut self, path: PathBuf, kind: Kind) {
        let stamp = stamp(&path);
        assert!(stamp.is_some(), "{} is there", path.display());
        self.files.insert(path, File { kind, stamp });
    }

    /// Kiln may keep notes in this output folder from here on.
    pub fn out(&mut self, out: &Path) {
        self.notes.entry(out.to_owned()).or_default();
    }

    /// A command found frames there that are what it asks for, or joined a job that makes them.
    pub fn seen(&mut self, out: &Path, by: &Maker) {
        self.notes.entry(out.to_owned()).or_default().push(by.clone());
    }

    /// The number of commands in Kiln's own notes that found frames there: to be certain after an interruption.
    pub fn notes_seen(&self, out: &Path) -> usize {
        let notes = fs::read_to_string(out.join(".kiln/shot.jsonl")).unwrap_or_default();
        notes.lines().filter(|line| line.starts_with("{\"seen\"")).count()
    }

    /// The command that is noted to have written a frame last, given these files.
    pub fn line<'a>(&'a self, files: &'a Files, path: &Path) -> Option<&'a Maker> {
        match files.get(path).map(|file| &file.kind) {
            Some(Kind::Frame { by, .. }) => Some(by),
            _ => self.lines.get(path),
        }
    }

    /// The commands that are known to have found frames of theirs there.
    pub fn known(&self, out: &Path) -> &[Maker] {
        self.notes.get(out).map_or(&[], Vec::as_slice)
    }

    /// The fate of a frame that a command asks for, given these files.
    pub fn fate(&self, files: &Files, by: &Maker, mode: Mode, out: &Path, frame: i32) -> Fate {
        by.fate(mode, files.get(&out.join(frame_name(frame))), self.known(out))
    }

    /// The changes from the files that are there to these.
    pub fn changes(&self, into: &Files) -> Changes {
        let other = into.iter().filter(|(path, file)| self.files.get(*path) != Some(*file));
        other.map(|(path, file)| (path.clone(), vec![Some(file.clone())])).collect()
    }

    /// A command that writes there was broken off.
    pub fn broken_off(&mut self, out: &Path) {
        self.parts.insert(out.to_owned());
    }

    /// The user took Kiln's notes away: what Kiln wrote is anybody's now.
    pub fn forget(&mut self, out: &Path) {
        let _ = fs::remove_dir_all(out.join(".kiln"));
        self.notes.remove(out);
        self.lines.retain(|path, _| path.parent().and_then(Path::parent) != Some(out));
        for (path, file) in &mut self.files {
            if path.parent().and_then(Path::parent) == Some(out) {
                file.kind = Kind::Other;
            }
        }
    }

    /// The user renamed a folder, or copied it where `copied`.
    pub fn moved(&mut self, from: &Path, to: &Path, copied: bool) {
        let there = |path: &PathBuf| Some(to.join(path.strip_prefix(from).ok()?));
        let keep = |path: &PathBuf| copied || !path.starts_with(from);
        let files: Vec<_> =
            self.files.iter().filter_map(|(path, file)| Some((there(path)?, file.clone()))).collect();
        self.files.retain(|path, _| keep(path));
        for (path, mut file) in files {
            if copied {
                file.stamp = stamp(&path);
            }
            self.files.insert(path, file);
        }
        let inputs: Vec<PathBuf> = self.inputs.keys().filter_map(there).collect();
        self.inputs.retain(|path, _| keep(path));
        inputs.into_iter().for_each(|path| self.input(path));
        let lines: Vec<_> =
            self.lines.iter().filter_map(|(path, by)| Some((there(path)?, by.clone()))).collect();
        self.lines.retain(|path, _| keep(path));
        self.lines.extend(lines);
        let notes: Vec<_> =
            self.notes.iter().filter_map(|(out, seen)| Some((there(out)?, seen.clone()))).collect();
        self.notes.retain(|out, _| keep(out));
        self.notes.extend(notes);
        let parts: Vec<PathBuf> = self.parts.iter().filter_map(there).collect();
        self.parts.retain(keep);
        self.parts.extend(parts);
    }

    /// The user took away all that lies here.
    pub fn removed(&mut self, folder: &Path) {
        self.files.retain(|path, _| !path.starts_with(folder));
        self.lines.retain(|path, _| !path.starts_with(folder));
        self.inputs.retain(|path, _| !path.starts_with(folder));
        self.notes.retain(|path, _| !path.starts_with(folder));
        self.parts.retain(|path| !path.starts_with(folder));
    }

    /// Compares every folder with what it must hold, and learns which of the possible changes came true. Returns the
    /// files that Kiln wrote.
    ///
    /// # Errors
    /// A file that is missing, that should not be there, or that has another picture than its cold render.
    pub fn check(&mut self, scenes: &Scenes, changes: &Changes) -> Result<Vec<PathBuf>, String> {
        let mut found = BTreeMap::new();
        for root in &self.roots {
            walk(root, &mut found);
        }
        for (path, before) in &self.inputs {
            match found.remove(path) {
                Some(now) if now == *before => {}
                now => {
                    return Err(format!("{} is the user's, was {before:?}, and is {now:?}", path.display()));
                }
            }
        }
        let mut written = Vec::new();
        let paths: BTreeSet<PathBuf> = self.files.keys().chain(changes.keys()).cloned().collect();
        for path in paths {
            let before = self.files.get(&path).cloned();
            let now = found.remove(&path);
            let usual = [before.clone()];
            let may = changes.get(&path).map_or(&usual[..], Vec::as_slice);
            let same = |file: &Option<File>| file.as_ref().and_then(|file| file.stamp) == now;
            let fits = match (may.iter().find(|file| same(file) && (now.is_some() || file.is_none())), now) {
                (Some(file), _) => file.clone(),
                (None, None) => None,
                (None, Some(now)) if before.as_ref().and_then(|file| file.stamp) != Some(now) => {
                    let pixels = picture(&path);
                    let fits = may.iter().flatten().find(|file| {
                        matches!(file.kind, Kind::Frame { look, .. } if *scenes.cold(look) == pixels)
                            && file.stamp.is_none()
                    });
                    if fits.is_none() {
                        let named = scenes.named(&pixels);
                        return Err(format!(
                            "{} was written and shows {named:?}; it was {before:?} and may become {may:#?}",
                            path.display()
                        ));
                    }
                    written.push(path.clone());
                    fits.map(|file| File { stamp: Some(now), ..file.clone() })
                }
                (None, Some(_)) => {
                    return Err(format!(
                        "{} was not written: {before:?}; it must become {may:#?}",
                        path.display()
                    ));
                }
            };
            match fits {
                Some(file) => {
                    if let Kind::Frame { by, .. } = &file.kind {
                        self.lines.insert(path.clone(), by.clone());
                    }
                    self.files.insert(path, file)
                }
                None if may.contains(&None) => self.files.remove(&path),
                None => {
                    return Err(format!("{} is not there: was {before:?}, must be {may:#?}", path.display()));
                }
            };
        }
        let stranger = found.keys().find(|path| !self.is_kilns(path));
        stranger.map_or(Ok(written), |path| Err(format!("{} should not be there", path.display())))
    }

    /// The file is one of Kiln's own.
    fn is_kilns(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let folder = path.parent().unwrap_or(Path::new(""));
        let note = folder.ends_with(".kiln") && name.ends_with(".jsonl");
        if note {
            return folder.parent().is_some_and(|out| self.notes.contains_key(out));
        }
        name.starts_with('.')
            && name.ends_with(".kiln-part")
            && self.parts.iter().any(|out| path.starts_with(out))
    }
}

fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Stamp>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if let Some(stamp) = stamp(&path) {
            found.insert(path, stamp);
        }
    }
}
