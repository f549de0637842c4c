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

use kiln_types::{
    BlobHash, FrameSet, OutputFile, OutputSet, RelPath, SessionKey, Suspicion, SuspiciousFrames,
};
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
        "{count} of the files are already there and are not this scene's with these settings ({found}{}); choose \
         --existing skip, --existing overwrite, or another folder with --out", broken.in_words(), count = found.count
    )]
    Foreign {
        found: Found,
        /// Those that are empty or cut off.
        broken: Found,
    },
    #[error(
        "{count} of the files are already there ({first}); leave --existing error out to continue, or choose another \
         folder with --out", count = .0.count, first = .0
    )]
    Refused(Found),
    #[error("{path} cannot be looked at ({source}); check the output folder")]
    Io { path: String, source: io::Error },
}

/// Files in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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

    /// Of those that are empty or cut off, what an error adds.
    fn in_words(&self) -> String {
        match self.count {
            0 => String::new(),
            count => format!("; {count} empty or cut off: {self}"),
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
    /// Why somebody should look at the frame, so that a frame that is kept is reported again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    suspicious: Vec<Suspicion>,
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
        for line in BufReader::new(file).split(b'\n') {
            if let Ok(line) = serde_json::from_slice(&line?) {
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

    /// Whether the frame as it was last written is one that a job may refuse.
    fn is_blank(&self, frame: i32) -> bool {
        self.frames.get(&frame).is_some_and(|line| line.suspicious.iter().any(Suspicion::is_blank))
    }

    /// What was suspicious in the frame as it was last written, where anything was.
    fn suspicions(&self, frame: i32) -> Option<Vec<Suspicion>> {
        let line = self.frames.get(&frame)?;
        (!line.suspicious.is_empty()).then(|| line.suspicious.clone())
    }

    /// Whether what lies at this path is what Kiln wrote there for this scene and these settings.
    pub(crate) fn own(&self, folder: &OutFolder, key: SessionKey, path: &RelPath) -> bool {
        self.paths.get(path).is_some_and(|(k, file)| *k == key && unchanged(folder, file))
    }

    /// Whether Kiln wrote the file at this path, of whichever scene, and nothing or only a beginning is left of it. One
    /// of another length that is a whole picture was edited: it is somebody's.
    pub(crate) fn is_remnant(&self, folder: &OutFolder, path: &RelPath) -> bool {
        self.paths.get(path).is_some_and(|(_, file)| is_remnant(folder, file))
    }

    /// Whether a file of the frame, as these settings made it, is a remnant.
    fn has_remnant(&self, folder: &OutFolder, key: SessionKey, frame: i32) -> bool {
        let line = self.frames.get(&frame).filter(|line| line.key == key);
        line.is_some_and(|line| line.files.iter().any(|file| self.is_remnant(folder, &file.path)))
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
        suspicious: Vec<Suspicion>,
    ) -> io::Result<()> {
        let line = Line { key, frame, files, suspicious };
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

fn is_remnant(folder: &OutFolder, file: &Written) -> bool {
    match folder.stamp(&file.path) {
        Ok(Some(Stamp { size: 0, .. })) => true,
        Ok(Some(stamp)) if stamp.size < file.size => {
            folder.read(&file.path).and_then(kiln_image::is_cut_off).unwrap_or(false)
        }
        _ => false,
    }
}

/// Whether a file that is not Kiln's is empty, or seems to be cut off.
fn is_broken(folder: &OutFolder, path: &RelPath) -> bool {
    match folder.stamp(path) {
        Ok(Some(Stamp { size: 0, .. })) => true,
        Ok(Some(_)) => folder.read(path).and_then(kiln_image::seems_cut_off).unwrap_or(false),
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToRender {
    /// `None` where every frame is there.
    pub frames: Option<FrameSet>,
    /// Frames that this scene and these settings already made.
    pub kept: u32,
    /// Frames left out because files of their names are there.
    pub skipped: u32,
    /// Those among the kept ones that somebody should look at.
    pub suspicious: SuspiciousFrames,
    /// Files of skipped frames that Kiln did not write, and that are empty or cut off.
    pub broken: Found,
}

/// Compares what is asked for with what is there. `names` tells the main files of a frame. What is empty or cut off of
/// Kiln's own files counts as absent, and so does a black frame where the job refuses them.
///
/// # Errors
/// Where files are in the way, or the folder cannot be looked at.
pub fn to_render(
    folder: &OutFolder,
    manifest: &Manifest,
    mode: Existing,
    key: SessionKey,
    refuse_black: bool,
    asked: &FrameSet,
    names: impl Fn(i32) -> Vec<RelPath>,
) -> Result<ToRender, ExistingError> {
    let (mut kept, mut skipped) = (0, 0);
    let (mut left, mut found) = (Vec::new(), Found::default());
    let (mut suspicious, mut broken) = (Vec::new(), Found::default());
    if mode == Existing::Overwrite {
        let suspicious = SuspiciousFrames::default();
        let broken = Found::default();
        return Ok(ToRender { frames: Some(asked.clone()), kept, skipped, suspicious, broken });
    }
    for frame in asked.iter() {
        let refused = refuse_black && manifest.is_blank(frame);
        let own = manifest.holds(folder, key, frame) && (!refused || mode == Existing::Skip);
        if own && mode != Existing::Error {
            kept += 1;
            suspicious.extend(manifest.suspicions(frame).map(|all| (frame, all)));
            continue;
        }
        if mode == Existing::Skip && manifest.has_remnant(folder, key, frame) {
            left.push(frame);
            continue;
        }
        let names = names(frame);
        let mut taken = Vec::new();
        for path in &names {
            let there =
                folder.taken(path).map_err(|source| ExistingError::Io { path: path.to_string(), source })?;
            if there && mode != Existing::Error && manifest.is_remnant(folder, path) {
                continue;
            }
            // Part of a frame of this very scene, as a break between two files leaves it, is no stranger.
            let foreign = there && (mode == Existing::Error || !manifest.own(folder, key, path));
            if there && (foreign || mode == Existing::Skip) {
                taken.push(path.clone());
            }
        }
        match mode {
            Existing::Skip if !names.is_empty() && taken.len() == names.len() => {
                skipped += 1;
                let foreign = taken.into_iter().filter(|path| !manifest.paths.contains_key(path));
                foreign.filter(|path| is_broken(folder, path)).for_each(|path| broken.add(path));
            }
            Existing::Skip => left.push(frame),
            _ if taken.is_empty() => left.push(frame),
            _ => {
                for path in taken {
                    if is_broken(folder, &path) {
                        broken.add(path.clone());
                    }
                    found.add(path);
                }
            }
        }
    }
    match (found.count, mode) {
        (0, _) => {}
        (_, Existing::Error) => return Err(ExistingError::Refused(found)),
        _ => return Err(ExistingError::Foreign { found, broken }),
    }
    let frames = if left.len() == asked.len() as usize {
        Some(asked.clone())
    } else {
        // Fails only where it is empty: these are frames of a set.
        FrameSet::from_frames(left).ok()
    };
    let suspicious = SuspiciousFrames::collect(suspicious);
    Ok(ToRender { frames, kept, skipped, suspicious, broken })
}

#[cfg(test)]
mod tests;
