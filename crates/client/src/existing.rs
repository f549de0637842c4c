//! What is in the output folder already, and what that means for the frames asked for.
//!
//! A small file for each .blend, `.kiln/NAME.jsonl` in the output folder, tells which files Kiln put there and
//! from which scene and settings: a line a frame, later lines count. A line is written before its files take their
//! names, so that after a break at any moment nothing of Kiln's own looks foreign.

use std::{
    collections::HashMap,
    fmt,
    io::{self, BufRead as _, BufReader, Write as _},
    str::FromStr,
};

use kiln_types::{BlobHash, FrameSet, OutputFile, OutputSet, RelPath, SessionKey};
use serde::{Deserialize, Serialize};

use crate::{
    folder::{OutFolder, Stamp},
    reading,
};

/// What is done with files that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// Frames that the same scene and settings made are kept; any other file is an error.
    #[default]
    Continue,
    /// Whatever is there is kept.
    Skip,
    /// Everything is rendered and replaced.
    Overwrite,
    /// Any file that is there is an error.
    Error,
}

impl FromStr for Existing {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "skip" => Ok(Self::Skip),
            "overwrite" => Ok(Self::Overwrite),
            "error" => Ok(Self::Error),
            _ => Err("write skip, overwrite or error".to_owned()),
        }
    }
}

/// Why nothing was begun.
#[derive(Debug, thiserror::Error)]
pub enum ExistingError {
    #[error(
        "{count} of the files are already there and are not this scene's with these settings ({first}); choose \
         --existing skip, --existing overwrite, or another folder with --out", count = .0.count, first = .0
    )]
    Foreign(Found),
    #[error(
        "{count} of the files are already there ({first}); leave --existing error out to continue, or choose another \
         folder with --out", count = .0.count, first = .0
    )]
    Refused(Found),
    #[error("{path} cannot be looked at ({source}); check the output folder")]
    Io { path: String, source: io::Error },
}

/// Files in the way.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub count: usize,
    /// At most three.
    pub first: Vec<RelPath>,
}

impl Found {
    fn add(&mut self, path: RelPath) {
        self.count += 1;
        if self.first.len() < 3 {
            self.first.push(path);
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, path) in self.first.iter().enumerate() {
            write!(f, "{}{path}", if at == 0 { "" } else { ", " })?;
        }
        if self.count > self.first.len() { f.write_str(", …") } else { Ok(()) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    key: SessionKey,
    frame: i32,
    files: Vec<Written>,
}

/// A file as Kiln wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Written {
    path: RelPath,
    pub(crate) hash: BlobHash,
    size: u64,
    mtime_ns: i64,
}

/// What Kiln knows to have written in a folder for one .blend.
#[derive(Debug)]
pub struct Manifest {
    place: RelPath,
    frames: HashMap<i32, Line>,
    /// The key and the file last written under a path.
    paths: HashMap<RelPath, (SessionKey, Written)>,
}

impl Manifest {
    /// Reads the file of the .blend with this name (without its ending). Lines that cannot be read, as a break
    /// may leave one at the end, are passed over: at worst a frame renders again.
    ///
    /// # Errors
    /// Where the file is there and cannot be opened.
    pub fn load(folder: &OutFolder, blend: &str) -> io::Result<Self> {
        let place = place(blend)?;
        let mut manifest = Self { place, frames: HashMap::new(), paths: HashMap::new() };
        let file = match folder.read(&manifest.place) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(manifest),
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).lines() {
            if let Ok(line) = serde_json::from_str(&line?) {
                manifest.take(line);
            }
        }
        Ok(manifest)
    }

    fn take(&mut self, line: Line) {
        for file in &line.files {
            self.paths.insert(file.path.clone(), (line.key, file.clone()));
        }
        self.frames.insert(line.frame, line);
    }

    /// Whether every file of the frame is there as this scene and these settings made it.
    fn holds(&self, folder: &OutFolder, key: SessionKey, frame: i32) -> bool {
        self.frames.get(&frame).is_some_and(|line| {
            line.key == key
                && line.files.iter().all(|file| {
                    // A later line, of another frame or scene, may have taken the path over.
                    self.paths.get(&file.path).is_some_and(|(k, last)| *k == key && last == file)
                        && unchanged(folder, file)
                })
        })
    }

    /// Whether what lies at this path is what Kiln wrote there for this scene and these settings.
    pub(crate) fn own(&self, folder: &OutFolder, key: SessionKey, path: &RelPath) -> bool {
        self.paths.get(path).is_some_and(|(k, file)| *k == key && unchanged(folder, file))
    }

    /// Whether exactly these files of a frame are there, so that they need not be fetched.
    pub(crate) fn has(&self, folder: &OutFolder, key: SessionKey, frame: i32, set: &OutputSet) -> bool {
        let wanted = |file: &OutputFile| {
            self.paths.get(&file.path).is_some_and(|(_, written)| written.hash == file.hash)
        };
        set.files().iter().all(wanted) && self.holds(folder, key, frame)
    }

    /// Notes the files of a frame, before they take their names.
    pub(crate) fn record(
        &mut self,
        folder: &OutFolder,
        key: SessionKey,
        frame: i32,
        files: Vec<Written>,
    ) -> io::Result<()> {
        let line = Line { key, frame, files };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        let mut file = folder.append(&self.place)?;
        // A line that a break cut must not swallow this one.
        if cut(&mut file)? {
            text.insert(0, '\n');
        }
        file.write_all(text.as_bytes())?;
        self.take(line);
        Ok(())
    }
}

impl Written {
    pub(crate) fn new(file: &OutputFile, stamp: Stamp) -> Self {
        Self { path: file.path.clone(), hash: file.hash, size: stamp.size, mtime_ns: stamp.mtime_ns }
    }
}

/// Whether a file ends in the middle of a line.
fn cut(file: &mut std::fs::File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.read_exact_at(&mut last, length - 1)?;
    Ok(last != [b'\n'])
}

fn place(blend: &str) -> io::Result<RelPath> {
    let name = format!(".kiln/{blend}.jsonl");
    let safe =
        RelPath::new(&name).ok().filter(|path| path.parent().is_some_and(|dir| dir.as_str() == ".kiln"));
    safe.map_or_else(
        || {
            let hash = BlobHash::of(blend.as_bytes());
            RelPath::new(&format!(".kiln/{hash}.jsonl")).map_err(io::Error::other)
        },
        Ok,
    )
}

/// By size and time; where only the time differs, by content.
fn unchanged(folder: &OutFolder, file: &Written) -> bool {
    match folder.stamp(&file.path) {
        Ok(Some(stamp)) if stamp.size == file.size => {
            stamp.mtime_ns == file.mtime_ns || same_bytes(folder, &file.path, file.hash)
        }
        _ => false,
    }
}

/// Whether the file at this path has this hash.
pub(crate) fn same_bytes(folder: &OutFolder, path: &RelPath, hash: BlobHash) -> bool {
    let read = || -> io::Result<BlobHash> { Ok(reading::hash_of(&mut folder.read(path)?)?.0) };
    read().is_ok_and(|found| found == hash)
}

/// The key that most of the frames that are there were made by, of these, the best of which comes first; `None` where
/// none of them has made any.
pub fn recorded(
    folder: &OutFolder,
    manifest: &Manifest,
    keys: impl IntoIterator<Item = SessionKey>,
    asked: &FrameSet,
) -> Option<SessionKey> {
    let mut best: Option<(usize, SessionKey)> = None;
    for key in keys {
        // A part of a frame, as a break between two files leaves it, counts too.
        let made = |frame: &i32| {
            let line = manifest.frames.get(frame).filter(|line| line.key == key);
            line.is_some_and(|line| line.files.iter().any(|file| manifest.own(folder, key, &file.path)))
        };
        let count = asked.iter().filter(made).count();
        if count > best.map_or(0, |(most, _)| most) {
            best = Some((count, key));
        }
    }
    best.map(|(_, key)| key)
}

/// Which of the frames are to be rendered.
#[derive(Debug, PartialEq, Eq)]
pub struct ToRender {
    /// `None` where every frame is there.
    pub frames: Option<FrameSet>,
    /// Frames that this scene and these settings already made.
    pub kept: u32,
    /// Frames left out because files of their names are there.
    pub skipped: u32,
}

/// Compares what is asked for with what is there. `names` tells the main files of a frame.
///
/// # Errors
/// Where files are in the way, or the folder cannot be looked at.
pub fn to_render(
    folder: &OutFolder,
    manifest: &Manifest,
    mode: Existing,
    key: SessionKey,
    asked: &FrameSet,
    names: impl Fn(i32) -> Vec<RelPath>,
) -> Result<ToRender, ExistingError> {
    let (mut kept, mut skipped) = (0, 0);
    let (mut left, mut found) = (Vec::new(), Found::default());
    if mode == Existing::Overwrite {
        return Ok(ToRender { frames: Some(asked.clone()), kept, skipped });
    }
    for frame in asked.iter() {
        let own = manifest.holds(folder, key, frame);
        if own && mode != Existing::Error {
            kept += 1;
            continue;
        }
        let names = names(frame);
        let mut taken = Vec::new();
        for path in &names {
            let there =
                folder.taken(path).map_err(|source| ExistingError::Io { path: path.to_string(), source })?;
            // Part of a frame of this very scene, as a break between two files leaves it, is no stranger.
            let foreign = there && (mode == Existing::Error || !manifest.own(folder, key, path));
            if there && (foreign || mode == Existing::Skip) {
                taken.push(path.clone());
            }
        }
        match mode {
            Existing::Skip if !names.is_empty() && taken.len() == names.len() => skipped += 1,
            Existing::Skip => left.push(frame),
            _ if taken.is_empty() => left.push(frame),
            _ => taken.into_iter().for_each(|path| found.add(path)),
        }
    }
    match (found.count, mode) {
        (0, _) => {}
        (_, Existing::Error) => return Err(ExistingError::Refused(found)),
        _ => return Err(ExistingError::Foreign(found)),
    }
    let frames = if left.len() == asked.len() as usize {
        Some(asked.clone())
    } else {
        // Fails only where it is empty: these are frames of a set.
        FrameSet::from_frames(left).ok()
    };
    Ok(ToRender { frames, kept, skipped })
}

#[cfg(test)]
mod tests {
    use kiln_types::{FileFormat, OutputRole};

    use super::*;

    struct Bed {
        dir: tempfile::TempDir,
        folder: OutFolder,
        manifest: Manifest,
    }

    fn key(n: u8) -> SessionKey {
        SessionKey(BlobHash::of(&[n]))
    }

    fn names(frame: i32) -> Vec<RelPath> {
        vec![RelPath::new(&format!("f_{frame:04}.png")).unwrap()]
    }

    impl Bed {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let folder = OutFolder::prepare(dir.path()).unwrap();
            let manifest = Manifest::load(&folder, "shot").unwrap();
            Self { dir, folder, manifest }
        }

        /// As a frame lands: note, then name.
        fn land(&mut self, key: SessionKey, frame: i32, bytes: &[u8]) {
            let file = OutputFile {
                path: names(frame).remove(0),
                role: OutputRole::Main { view: None },
                hash: BlobHash::of(bytes),
                size: bytes.len() as u64,
                format: FileFormat::Png,
                width: 1,
                height: 1,
            };
            let mut part = self.folder.part(&file.path, file.hash).unwrap();
            part.file.write_all(bytes).unwrap();
            let written = Written::new(&file, part.stamp().unwrap());
            self.manifest.record(&self.folder, key, frame, vec![written]).unwrap();
            OutFolder::place(&part, &file.path, true).unwrap();
        }

        fn foreign(&self, frame: i32) {
            std::fs::write(self.dir.path().join(names(frame)[0].to_path()), b"mine").unwrap();
        }

        fn ask(&self, mode: Existing, k: u8, frames: &str) -> Result<(String, u32, u32), String> {
            // Read anew, as the next run of the program does.
            let manifest = Manifest::load(&self.folder, "shot").unwrap();
            to_render(&self.folder, &manifest, mode, key(k), &frames.parse().unwrap(), names)
                .map(|r| (r.frames.map(|f| f.to_string()).unwrap_or_default(), r.kept, r.skipped))
                .map_err(|error| error.to_string())
        }
    }

    #[test]
    fn the_same_command_continues() {
        let mut bed = Bed::new();
        bed.land(key(1), 1, b"one");
        bed.land(key(1), 2, b"two");
        assert_eq!(bed.ask(Existing::Continue, 1, "1-4"), Ok(("3-4".into(), 2, 0)));
        assert_eq!(bed.ask(Existing::Continue, 1, "1-2"), Ok((String::new(), 2, 0)));
        assert_eq!(bed.ask(Existing::Overwrite, 1, "1-4"), Ok(("1-4".into(), 0, 0)));
        assert_eq!(bed.ask(Existing::Skip, 1, "1-4"), Ok(("3-4".into(), 2, 0)));
        assert!(bed.ask(Existing::Error, 1, "1-4").unwrap_err().contains("f_0001.png, f_0002.png"));
    }

    #[test]
    fn what_is_there_tells_by_which_key_it_was_made() {
        let mut bed = Bed::new();
        let recorded = |bed: &Bed, keys: [u8; 2], frames: &str| {
            let manifest = Manifest::load(&bed.folder, "shot").unwrap();
            super::recorded(&bed.folder, &manifest, keys.map(key), &frames.parse().unwrap())
        };
        assert_eq!(recorded(&bed, [1, 2], "1-4"), None);
        bed.land(key(2), 1, b"one");
        bed.land(key(1), 2, b"two");
        assert_eq!(recorded(&bed, [1, 2], "1-4"), Some(key(1)), "of as many, the better");
        assert_eq!(recorded(&bed, [1, 2], "1"), Some(key(2)));
        bed.land(key(2), 3, b"three");
        assert_eq!(recorded(&bed, [1, 2], "1-4"), Some(key(2)));
        assert_eq!(recorded(&bed, [1, 3], "1,3-4"), None);
        // Whoever takes the frames away begins anew.
        for frame in [1, 2, 3] {
            std::fs::remove_file(bed.dir.path().join(names(frame)[0].to_path())).unwrap();
        }
        assert_eq!(recorded(&bed, [1, 2], "1-4"), None);
    }

    #[test]
    fn another_scene_or_a_strangers_file_is_not_overwritten() {
        let mut bed = Bed::new();
        bed.land(key(1), 1, b"one");
        bed.foreign(2);
        let error = bed.ask(Existing::Continue, 2, "1-4").unwrap_err();
        assert!(error.contains("2 of the files") && error.contains("f_0001.png, f_0002.png"), "{error}");
        assert!(error.contains("--existing skip"), "{error}");
        assert_eq!(bed.ask(Existing::Skip, 2, "1-4"), Ok(("3-4".into(), 0, 2)));
    }

    #[test]
    fn a_frame_that_was_changed_or_removed_is_noticed() {
        let mut bed = Bed::new();
        bed.land(key(1), 1, b"one");
        bed.land(key(1), 2, b"two");
        bed.land(key(1), 3, b"four");
        std::fs::remove_file(bed.dir.path().join("f_0001.png")).unwrap();
        // Same bytes, another time: still the same frame.
        std::fs::write(bed.dir.path().join("f_0002.png"), b"two").unwrap();
        assert_eq!(bed.ask(Existing::Continue, 1, "1-3"), Ok(("1".into(), 2, 0)));
        bed.foreign(3);
        assert!(bed.ask(Existing::Continue, 1, "1-3").unwrap_err().contains("f_0003.png"));
    }

    #[test]
    fn a_cut_line_costs_only_itself() {
        let mut bed = Bed::new();
        bed.land(key(1), 1, b"one");
        let place = bed.dir.path().join(".kiln/shot.jsonl");
        let mut text = std::fs::read_to_string(&place).unwrap();
        text.push_str("{\"key\":\"");
        std::fs::write(&place, text).unwrap();
        bed.land(key(1), 2, b"two");
        assert_eq!(bed.ask(Existing::Continue, 1, "1-3"), Ok(("3".into(), 2, 0)));
    }
}
