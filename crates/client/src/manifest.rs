//! The files that Kiln wrote into an output folder.
//!
//! A manifest for each .blend, `.kiln/NAME.jsonl` in the folder, lists the files that Kiln wrote and the identities of their
//! frames: a line for each frame, of which later ones count. A line is written before its files get their names, so that
//! after an interruption no file of Kiln looks foreign. A line without a frame says that a later save has the frames of its
//! content and choices, too.

use std::{
    collections::HashMap,
    io::{self, BufRead as _, BufReader, Write as _},
    sync::Arc,
};

use kiln_types::{BlobHash, FrameSet, OutputFile, OutputSet, RelPath, Suspicion};
use serde::{Deserialize, Serialize};

use crate::{
    folder::{OutFolder, Stamp},
    made::{FrameIdentity, Mark, Relation, RenderOrigin},
    reading,
};

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Frame(ManifestFrame),
    Seen { seen: RenderOrigin },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ManifestFrame {
    #[serde(flatten)]
    mark: Mark,
    frame: i32,
    pub(crate) files: Vec<WrittenFile>,
    /// The reasons why the frame is suspicious: a frame that is kept is reported again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    suspicious: Vec<Suspicion>,
}

/// A file as Kiln wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrittenFile {
    path: RelPath,
    pub(crate) hash: BlobHash,
    size: u64,
    mtime_ns: i64,
}

/// The files that Kiln wrote into a folder for one .blend.
#[derive(Debug)]
pub struct Manifest {
    place: RelPath,
    /// The lines of each frame, the last one last. Variants in one folder have a line each.
    pub(crate) frames: HashMap<i32, Vec<Arc<ManifestFrame>>>,
    /// The frames that were written to a path, the last one last, each with the index of the file.
    paths: HashMap<RelPath, Vec<(Arc<ManifestFrame>, usize)>>,
    /// Later saves that have frames of earlier ones: the newest of each .blend.
    seen: Vec<RenderOrigin>,
}

impl Manifest {
    /// Reads the manifest of the .blend with this name (without its ending). Lines that cannot be read, such as one that was
    /// interrupted, are skipped: at worst a frame renders again.
    pub fn load(folder: &OutFolder, blend: &str) -> io::Result<Self> {
        let place = place(blend)?;
        let mut manifest = Self { place, frames: HashMap::new(), paths: HashMap::new(), seen: Vec::new() };
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
        match line {
            Line::Frame(frame) => {
                let frame = Arc::new(frame);
                for (at, file) in frame.files.iter().enumerate() {
                    self.paths.entry(file.path.clone()).or_default().push((Arc::clone(&frame), at));
                }
                let lines = self.frames.entry(frame.frame).or_default();
                // A line is over when another takes one of its paths.
                let takes = |path: &RelPath| frame.files.iter().any(|file| file.path == *path);
                lines.retain(|line| !line.files.iter().any(|file| takes(&file.path)));
                lines.push(frame);
            }
            Line::Seen { seen } => {
                self.seen.retain(|earlier| !seen.is_later_than(earlier));
                self.seen.push(seen);
            }
        }
    }

    /// Returns the files that were written to a path, the last one first, with their identities.
    fn written(&self, path: &RelPath) -> impl Iterator<Item = (&Mark, &WrittenFile)> {
        let all = self.paths.get(path).into_iter().flatten().rev();
        all.filter_map(|(frame, at)| Some((&frame.mark, frame.files.get(*at)?)))
    }

    /// Returns the file that was last written to a path, with its identity.
    fn last(&self, path: &RelPath) -> Option<(&Mark, &WrittenFile)> {
        self.written(path).next()
    }

    pub(crate) fn relation(&self, identity: &FrameIdentity, mark: &Mark) -> Relation {
        let same = |seen: &&RenderOrigin| matches!(mark, Mark::Made(made) if made.is_same_frame_as(seen));
        identity.relation(mark, self.seen.iter().filter(same).map(RenderOrigin::save))
    }

    fn lines(&self, frame: i32) -> impl DoubleEndedIterator<Item = &Arc<ManifestFrame>> {
        self.frames.get(&frame).into_iter().flatten()
    }

    /// Returns the last line of a frame with this identity.
    fn line(&self, identity: &FrameIdentity, frame: i32) -> Option<&ManifestFrame> {
        let mut lines = self.lines(frame).rev();
        lines.find(|line| self.relation(identity, &line.mark) == Relation::Same).map(Arc::as_ref)
    }

    /// Returns whether all files of the frame with this identity are there.
    pub(crate) fn holds(&self, folder: &OutFolder, identity: &FrameIdentity, frame: i32) -> bool {
        self.line(identity, frame).is_some_and(|line| self.is_whole(folder, line))
    }

    /// Returns whether all files of the frame are there as they were written.
    fn is_whole(&self, folder: &OutFolder, frame: &ManifestFrame) -> bool {
        frame.files.iter().all(|file| {
            // A later line, of another frame or scene, may have taken the path.
            self.last(&file.path).is_some_and(|(mark, last)| *mark == frame.mark && last == file)
                && is_unchanged(folder, file)
        })
    }

    /// Returns the reasons why the frame with this identity is suspicious.
    pub(crate) fn suspicions(&self, identity: &FrameIdentity, frame: i32) -> &[Suspicion] {
        self.line(identity, frame).map_or(&[], |line| &line.suspicious)
    }

    /// Returns the relation of the file at a path to frames with this identity. A file that Kiln did not write, or that was
    /// changed since, is a stranger.
    pub(crate) fn relation_of(
        &self,
        folder: &OutFolder,
        identity: &FrameIdentity,
        path: &RelPath,
    ) -> Relation {
        // An interruption between the line of a file and its name leaves the earlier file.
        let there = self.written(path).find(|(_, file)| is_unchanged(folder, file));
        there.map_or(Relation::Stranger, |(mark, _)| self.relation(identity, mark))
    }

    /// Returns whether Kiln wrote a file at this path, even if it is gone or changed.
    pub(crate) fn knows(&self, path: &RelPath) -> bool {
        self.paths.contains_key(path)
    }

    /// Counts the frames of earlier saves of this .blend that are there and not among these.
    pub(crate) fn older_besides(
        &self,
        folder: &OutFolder,
        identity: &FrameIdentity,
        asked: &FrameSet,
    ) -> u32 {
        let others = self.frames.iter().filter(|(frame, _)| asked.index_of(**frame).is_none());
        let is_older = |line: &Arc<ManifestFrame>| {
            self.relation(identity, &line.mark) == Relation::Older && self.is_whole(folder, line)
        };
        let older = others.filter(|(_, lines)| lines.iter().any(is_older));
        u32::try_from(older.count()).unwrap_or(u32::MAX)
    }

    /// Returns whether Kiln wrote the file at a path, and it is empty or cut off now. A whole picture of another length was edited
    /// by a person.
    pub(crate) fn is_remnant(&self, folder: &OutFolder, path: &RelPath) -> bool {
        self.last(path).is_some_and(|(_, file)| is_remnant(folder, file))
    }

    /// Returns whether a file of the frame, as these settings made it, is a remnant.
    pub(crate) fn has_remnant(&self, folder: &OutFolder, identity: &FrameIdentity, frame: i32) -> bool {
        self.line(identity, frame)
            .is_some_and(|line| line.files.iter().any(|file| self.is_remnant(folder, &file.path)))
    }

    /// Returns whether exactly these files of a frame are there, so that they need not be fetched.
    pub(crate) fn has(
        &self,
        folder: &OutFolder,
        identity: &FrameIdentity,
        frame: i32,
        set: &OutputSet,
    ) -> bool {
        let wanted =
            |file: &OutputFile| self.last(&file.path).is_some_and(|(_, written)| written.hash == file.hash);
        set.files().iter().all(wanted) && self.holds(folder, identity, frame)
    }

    /// Writes the line of a frame, before its files get their names.
    pub(crate) fn record(
        &mut self,
        folder: &OutFolder,
        identity: &FrameIdentity,
        frame: i32,
        files: Vec<WrittenFile>,
        suspicious: Vec<Suspicion>,
    ) -> io::Result<()> {
        let mark = identity.mark.clone();
        // A job that is fetched late has frames of an earlier save: that a later save has them too stays known.
        let is_later =
            |before: &&RenderOrigin| identity.made().is_some_and(|made| before.was_wanted_after(made));
        let later = self.lines(frame).filter_map(|line| line.mark.made()).find(is_later).cloned();
        let mut lines: Vec<Line> = later.map(|seen| Line::Seen { seen }).into_iter().collect();
        lines.push(Line::Frame(ManifestFrame { mark, frame, files, suspicious }));
        self.append(folder, lines)
    }

    /// Flushes the lines to the disk.
    pub(crate) fn flush(&self, folder: &OutFolder) -> io::Result<()> {
        match folder.read(&self.place) {
            Ok(file) => file.sync_all(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Writes that a later save of its .blend has a frame, too.
    pub fn see(
        &mut self,
        folder: &OutFolder,
        identity: &FrameIdentity,
        frame: Option<i32>,
    ) -> io::Result<()> {
        let Mark::Made(made) = &identity.mark else { return Ok(()) };
        let lines = frame.into_iter().flat_map(|frame| self.lines(frame)).filter_map(|line| line.mark.made());
        if self.seen.iter().chain(lines).any(|known| known.is_later_than(made)) {
            return Ok(());
        }
        self.append(folder, vec![Line::Seen { seen: made.clone() }])
    }

    /// Writes that this save has the frames that are there, too. Lines of the first version are replaced.
    pub fn renew(
        &mut self,
        folder: &OutFolder,
        identity: &FrameIdentity,
        asked: &FrameSet,
    ) -> io::Result<()> {
        let kept: Vec<&ManifestFrame> = asked
            .iter()
            .filter_map(|frame| self.line(identity, frame))
            .filter(|line| self.is_whole(folder, line))
            .collect();
        let Mark::Made(made) = &identity.mark else { return Ok(()) };
        let is_told = |line: &&ManifestFrame| matches!(&line.mark, Mark::Made(of) if of == made);
        if kept.is_empty() || kept.iter().all(is_told) {
            return Ok(());
        }
        let old = kept.iter().filter(|line| matches!(line.mark, Mark::Key(_)));
        let again = |line: &&ManifestFrame| {
            Line::Frame(ManifestFrame { mark: Mark::Made(made.clone()), ..(*line).clone() })
        };
        let mut lines: Vec<Line> = old.map(again).collect();
        lines.push(Line::Seen { seen: made.clone() });
        self.append(folder, lines)
    }

    fn append(&mut self, folder: &OutFolder, lines: Vec<Line>) -> io::Result<()> {
        let mut text = String::new();
        for line in &lines {
            text.push_str(&serde_json::to_string(line)?);
            text.push('\n');
        }
        let mut file = folder.append(&self.place)?;
        // A line that was interrupted must not swallow this one.
        if cut(&mut file)? {
            text.insert(0, '\n');
        }
        file.write_all(text.as_bytes())?;
        lines.into_iter().for_each(|line| self.take(line));
        Ok(())
    }

    /// Returns the value of `which` that most of the frames in the folder have.
    pub(crate) fn most<T: Eq + std::hash::Hash>(
        &self,
        folder: &OutFolder,
        asked: &FrameSet,
        which: impl Fn(&Mark) -> Option<T>,
    ) -> Option<T> {
        let mut counts: HashMap<T, usize> = HashMap::new();
        for line in asked.iter().flat_map(|frame| self.lines(frame)) {
            // An interrupted frame, of which only some files are there, counts too.
            let is_there = || {
                let own = |file: &WrittenFile| self.last(&file.path).is_some_and(|(_, last)| last == file);
                line.files.iter().any(|file| own(file) && is_unchanged(folder, file))
            };
            if let Some(one) = which(&line.mark).filter(|_| is_there()) {
                *counts.entry(one).or_default() += 1;
            }
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(one, _)| one)
    }
}

impl WrittenFile {
    pub(crate) fn new(file: &OutputFile, stamp: Stamp) -> Self {
        Self { path: file.path.clone(), hash: file.hash, size: stamp.size, mtime_ns: stamp.mtime_ns }
    }
}

/// Returns whether a file ends in the middle of a line.
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

/// Compares a file by size and time; if only the time differs, by content.
fn is_unchanged(folder: &OutFolder, file: &WrittenFile) -> bool {
    match folder.stamp(&file.path) {
        Ok(Some(stamp)) if stamp.size == file.size => {
            stamp.mtime_ns == file.mtime_ns || same_bytes(folder, &file.path, file.hash)
        }
        _ => false,
    }
}

fn is_remnant(folder: &OutFolder, file: &WrittenFile) -> bool {
    match folder.stamp(&file.path) {
        Ok(Some(Stamp { size: 0, .. })) => true,
        Ok(Some(stamp)) if stamp.size < file.size => {
            folder.read(&file.path).and_then(kiln_image::is_cut_off).unwrap_or(false)
        }
        _ => false,
    }
}

/// Returns whether a file that is not Kiln's is empty, or seems to be cut off.
pub(crate) fn is_broken(folder: &OutFolder, path: &RelPath) -> bool {
    match folder.stamp(path) {
        Ok(Some(Stamp { size: 0, .. })) => true,
        Ok(Some(_)) => folder.read(path).and_then(kiln_image::seems_cut_off).unwrap_or(false),
        _ => false,
    }
}

/// Returns whether the file at this path has this hash.
pub(crate) fn same_bytes(folder: &OutFolder, path: &RelPath, hash: BlobHash) -> bool {
    let read = || -> io::Result<BlobHash> { Ok(reading::hash_of(&mut folder.read(path)?)?.0) };
    read().is_ok_and(|found| found == hash)
}
