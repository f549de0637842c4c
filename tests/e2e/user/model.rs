//! The expected fate of each frame: the table of docs/files.md and decision 019, written down a second time.

use std::path::{Path, PathBuf};

use super::scene::{Content, Look};

/// A .blend as it was saved when a command read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    pub path: PathBuf,
    /// The path from the output folder, if a command knows that both are on one machine.
    pub from_out: Option<PathBuf>,
    /// The step at which it was read.
    pub read: usize,
}

/// The command that made a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maker {
    pub content: Content,
    pub choice: usize,
    pub save: Save,
}

/// The identity of a file without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub inode: u64,
    pub size: u64,
    pub modified_ns: i128,
}

/// A file in an output folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    pub kind: Kind,
    /// `None` until it was read.
    pub stamp: Option<Stamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// As Kiln wrote it.
    Frame { look: Look, by: Maker },
    /// Written by Kiln, and now empty or without its end.
    Cut,
    /// Edited by the user, or never Kiln's.
    Other,
}

/// `--existing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Continue,
    Replace,
    Skip,
    Overwrite,
    Error,
}

impl Mode {
    pub fn args(self) -> &'static [&'static str] {
        match self {
            Self::Continue => &[],
            Self::Replace => &["--existing", "replace"],
            Self::Skip => &["--existing", "skip"],
            Self::Overwrite => &["--existing", "overwrite"],
            Self::Error => &["--existing", "error"],
        }
    }
}

/// The fate of a frame that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The frame is there.
    Kept,
    /// The frame is rendered if nothing is in the way, or what is there may be replaced.
    Rendered,
    /// The frame replaces one of an older save.
    Replaced,
    /// Something is there, and is left unasked.
    Skipped,
    /// The command stops.
    Stops,
}

impl Save {
    /// The same file, read then or later.
    pub fn is_later_than(&self, other: &Self) -> bool {
        (&self.path, &self.from_out) == (&other.path, &other.from_out) && self.read >= other.read
    }
}

impl Maker {
    pub fn look(&self, frame: i32) -> Look {
        Look { content: self.content, choice: self.choice, frame }
    }

    /// The file of one of its frames, as it comes.
    pub fn file(&self, frame: i32) -> File {
        File { kind: Kind::Frame { look: self.look(frame), by: self.clone() }, stamp: None }
    }

    pub fn same_frames(&self, other: &Self) -> bool {
        self.content == other.content && self.choice == other.choice
    }

    fn same_blend(&self, other: &Save) -> bool {
        let (one, other_way) = (&self.save.from_out, &other.from_out);
        self.save.path == other.path || one.is_some() && one == other_way
    }

    /// The fate of a frame that this command asks for if that file is there. `seen` are the commands that found frames
    /// of theirs there already.
    pub fn fate(&self, mode: Mode, there: Option<&File>, seen: &[Self]) -> Fate {
        let Some(there) = there else { return Fate::Rendered };
        match (mode, &there.kind) {
            (Mode::Overwrite, _) => Fate::Rendered,
            (Mode::Error, _) => Fate::Stops,
            (_, Kind::Cut) => Fate::Rendered,
            (_, Kind::Frame { by, .. }) if by.same_frames(self) => Fate::Kept,
            (Mode::Skip, _) => Fate::Skipped,
            (_, Kind::Other) => Fate::Stops,
            (_, Kind::Frame { by, .. }) => {
                let saves =
                    || seen.iter().filter(|seen| seen.same_frames(by)).chain([by]).map(|one| &one.save);
                let known = by.content == self.content || saves().any(|save| self.same_blend(save));
                let newer = saves().any(|save| save.read > self.save.read);
                let asked = by.choice == self.choice || mode == Mode::Replace;
                if known && asked && !newer { Fate::Replaced } else { Fate::Stops }
            }
        }
    }
}

/// The way from a folder to a file, both absolute.
pub fn way(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(common).map(|_| "..");
    up.map(PathBuf::from).chain([to.components().skip(common).collect()]).collect()
}

#[test]
fn ways() {
    let way = |from: &str, to: &str| way(Path::new(from), Path::new(to)).to_str().unwrap().to_owned();
    assert_eq!(way("/w/shots", "/w/shots/shot.blend"), "shot.blend");
    assert_eq!(way("/w/out", "/w/shots/shot.blend"), "../shots/shot.blend");
    assert_eq!(way("/w/deep/out", "/w/shots/shot.blend"), "../../shots/shot.blend");
}
