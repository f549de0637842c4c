//! The files in an output folder, compared with the frames to render.

use std::{fmt, io, str::FromStr};

use kiln_types::{DeviceClass, FrameSet, RelPath, Suspicion, SuspiciousFrames};
use serde::{Deserialize, Serialize};

use crate::{
    folder::OutFolder,
    made::{FrameIdentity, Relation},
    manifest::{Manifest, is_broken},
};

/// The treatment of files that are in the output folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Existing {
    /// Keeps frames of the same scene and settings, and replaces those of an earlier save; any other file is an error.
    #[default]
    Continue,
    /// The same, but also replaces frames that this .blend made with other settings.
    Replace,
    /// Keeps every file.
    Skip,
    /// Renders and replaces everything.
    Overwrite,
    /// Any file is an error.
    Error,
}

impl FromStr for Existing {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        match s {
            "replace" => Ok(Self::Replace),
            "skip" => Ok(Self::Skip),
            "overwrite" => Ok(Self::Overwrite),
            "error" => Ok(Self::Error),
            _ => Err("write replace, skip, overwrite or error".to_owned()),
        }
    }
}

/// The reasons why nothing is rendered.
#[derive(Debug, thiserror::Error)]
pub enum ExistingError {
    #[error(
        "{count} of the files are already there and were not made from this scene with these settings ({found}{}); choose \
         --existing skip, --existing overwrite, or another folder with --out", broken.in_words(), count = found.count
    )]
    Foreign {
        found: ExistingFiles,
        /// The files that are empty or cut off.
        broken: ExistingFiles,
    },
    #[error(
        "{count} of the files are already there, made from this .blend with other settings ({found}; {changes}); replace them with \
         --existing replace, or choose another folder with --out", count = found.count, changes = changes.join("; ")
    )]
    OtherChoices {
        found: ExistingFiles,
        /// The differences, in words.
        changes: Vec<String>,
    },
    #[error(
        "{count} of the files are already there, made from a later save of this .blend ({first}); replace them with \
         --existing overwrite, or choose another folder with --out", count = .0.count, first = .0
    )]
    Newer(ExistingFiles),
    #[error(
        "{count} of the files are already there ({first}); omit --existing error to continue, or choose another \
         folder with --out", count = .0.count, first = .0
    )]
    Refused(ExistingFiles),
    #[error("{path} cannot be examined ({source}); check the output folder")]
    Io { path: String, source: io::Error },
}

/// Files in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExistingFiles {
    pub count: usize,
    /// At most three.
    pub first: Vec<RelPath>,
}

impl ExistingFiles {
    fn add(&mut self, path: RelPath) {
        self.count += 1;
        if self.first.len() < 3 {
            self.first.push(path);
        }
    }

    /// Returns what an error adds about files that are empty or cut off.
    fn in_words(&self) -> String {
        match self.count {
            0 => String::new(),
            count => format!("; {count} empty or cut off: {self}"),
        }
    }
}

impl fmt::Display for ExistingFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, path) in self.first.iter().enumerate() {
            write!(f, "{}{path}", if at == 0 { "" } else { ", " })?;
        }
        if self.count > self.first.len() { f.write_str(", …") } else { Ok(()) }
    }
}

/// Returns the device that made most of the frames in the folder, of those that one of the candidates asks for. If there are
/// none, returns the device in `earlier` that made most of the frames of earlier saves.
pub fn recorded_device(
    folder: &OutFolder,
    manifest: &Manifest,
    candidates: &[(DeviceClass, FrameIdentity)],
    earlier: &[DeviceClass],
    asked: &FrameSet,
) -> Option<DeviceClass> {
    let same = manifest.most(folder, asked, |mark| {
        let one = candidates.iter().find(|(_, identity)| manifest.relation(identity, mark) == Relation::Same);
        one.map(|(device, _)| *device)
    });
    let (_, any) = candidates.first()?;
    same.or_else(|| {
        manifest
            .most(folder, asked, |mark| any.device_of_earlier(mark).filter(|device| earlier.contains(device)))
    })
}

/// The frames that are to be rendered, and the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToRender {
    /// `None` if every frame is there.
    pub frames: Option<FrameSet>,
    /// Frames that were made from this scene with these settings.
    pub kept: u32,
    /// Frames that are skipped because their files are there.
    pub skipped: u32,
    /// Frames to render that replace those of an earlier save or of other settings.
    pub replaced: u32,
    /// Frames of an earlier save that are there and are not among these; they stay.
    pub older: u32,
    /// The suspicious frames among the kept ones.
    pub suspicious: SuspiciousFrames,
    /// Files of skipped frames that Kiln did not write, and that are empty or cut off.
    pub broken: ExistingFiles,
}

/// Files in the way, by the reason.
#[derive(Default)]
struct InTheWay {
    foreign: ExistingFiles,
    /// The foreign ones that are empty or cut off.
    broken: ExistingFiles,
    newer: ExistingFiles,
    other: ExistingFiles,
    changes: Vec<String>,
}

impl InTheWay {
    fn check(self, mode: Existing) -> Result<(), ExistingError> {
        let Self { foreign, broken, newer, other, changes } = self;
        match mode {
            Existing::Error if foreign.count > 0 => Err(ExistingError::Refused(foreign)),
            _ if foreign.count > 0 => Err(ExistingError::Foreign { found: foreign, broken }),
            _ if newer.count > 0 => Err(ExistingError::Newer(newer)),
            _ if other.count > 0 => Err(ExistingError::OtherChoices { found: other, changes }),
            _ => Ok(()),
        }
    }
}

/// Compares the frames that are asked for with the files in the folder. `names` returns the main files of a frame. Files of
/// Kiln that are empty or cut off count as absent, and so do black frames if the job refuses them.
pub fn find_frames_to_render(
    folder: &OutFolder,
    manifest: &Manifest,
    mode: Existing,
    identity: &FrameIdentity,
    refuse_black: bool,
    asked: &FrameSet,
    names: impl Fn(i32) -> Vec<RelPath>,
) -> Result<ToRender, ExistingError> {
    let mut found = ToRender {
        frames: Some(asked.clone()),
        kept: 0,
        skipped: 0,
        replaced: 0,
        older: 0,
        suspicious: SuspiciousFrames::default(),
        broken: ExistingFiles::default(),
    };
    if mode == Existing::Overwrite {
        return Ok(found);
    }
    let (mut left, mut suspicious, mut in_the_way) = (Vec::new(), Vec::new(), InTheWay::default());
    for frame in asked.iter() {
        let known = manifest.suspicions(identity, frame);
        let refused = refuse_black && known.iter().any(Suspicion::is_blank);
        let own = manifest.holds(folder, identity, frame) && (!refused || mode == Existing::Skip);
        if own && mode != Existing::Error {
            found.kept += 1;
            suspicious.extend((!known.is_empty()).then(|| (frame, known.to_vec())));
            continue;
        }
        if mode == Existing::Skip && manifest.has_remnant(folder, identity, frame) {
            left.push(frame);
            continue;
        }
        let names = names(frame);
        let mut there = Vec::new();
        for path in &names {
            let taken =
                folder.taken(path).map_err(|source| ExistingError::Io { path: path.to_string(), source })?;
            // The rest of an interrupted write may be replaced.
            if taken && (mode == Existing::Error || !manifest.is_remnant(folder, path)) {
                there.push(path.clone());
            }
        }
        match mode {
            Existing::Skip if !names.is_empty() && there.len() == names.len() => {
                found.skipped += 1;
                let foreign = there.iter().filter(|path| !manifest.knows(path));
                foreign
                    .filter(|path| is_broken(folder, path))
                    .for_each(|path| found.broken.add(path.clone()));
            }
            Existing::Skip => left.push(frame),
            Existing::Error => {
                if there.is_empty() {
                    left.push(frame);
                }
                there.into_iter().for_each(|path| in_the_way.foreign.add(path));
            }
            Existing::Continue | Existing::Replace | Existing::Overwrite => {
                left.push(frame);
                let mut replaces = false;
                for path in there {
                    match manifest.relation_of(folder, identity, &path) {
                        // An interruption between the files of a frame leaves a part of it.
                        Relation::Same => {}
                        Relation::Older => replaces = true,
                        Relation::OtherChoices(_) if mode == Existing::Replace => replaces = true,
                        Relation::OtherChoices(changes) => {
                            in_the_way.other.add(path);
                            let new = changes.into_iter().filter(|one| !in_the_way.changes.contains(one));
                            in_the_way.changes.extend(new.collect::<Vec<_>>());
                        }
                        Relation::Newer => in_the_way.newer.add(path),
                        Relation::Stranger => {
                            if is_broken(folder, &path) {
                                in_the_way.broken.add(path.clone());
                            }
                            in_the_way.foreign.add(path);
                        }
                    }
                }
                found.replaced += u32::from(replaces);
            }
        }
    }
    in_the_way.check(mode)?;
    if left.len() != asked.len() as usize {
        // `None` if no frame is left.
        found.frames = FrameSet::from_frames(left).ok();
    }
    found.older = manifest.older_besides(folder, identity, asked);
    found.suspicious = SuspiciousFrames::collect(suspicious);
    Ok(found)
}

#[cfg(test)]
mod tests;
