//! The identity of frames in an output folder: the content that they show, the choices of the person, and the save of the
//! .blend that they were rendered from (decision 019).

use std::path::{Component, Path, PathBuf};

use kiln_types::{BlobHash, Choices, DeviceClass, JobSpec, Save, SessionKey, SessionSpec, device_word};
use serde::{Deserialize, Serialize};

/// The origin of frames, as the manifest keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RenderOrigin {
    content: BlobHash,
    #[serde(default)]
    choices: Choices,
    /// The frozen word of a device.
    device: String,
    of: SeenSave,
}

/// A save of a .blend, as seen from an output folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SeenSave {
    /// The absolute path.
    #[serde(with = "kiln_types::paths::exact")]
    blend: PathBuf,
    /// The path from the output folder, if both are on one machine.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "kiln_types::paths::exact_if_any")]
    beside: Option<PathBuf>,
    /// The time at which it was read, in Unix milliseconds.
    read_ms: i64,
}

impl SeenSave {
    fn is_same_blend(&self, other: &Self) -> bool {
        self.blend == other.blend || (self.beside.is_some() && self.beside == other.beside)
    }
}

impl RenderOrigin {
    pub(crate) fn is_same_frame_as(&self, other: &Self) -> bool {
        self.content == other.content && self.choices == other.choices && self.device == other.device
    }

    /// Returns whether this is the same save of a .blend, or a later one with the same frames.
    pub(crate) fn is_later_than(&self, other: &Self) -> bool {
        self.is_same_frame_as(other)
            && (&self.of.blend, &self.of.beside) == (&other.of.blend, &other.of.beside)
            && self.of.read_ms >= other.of.read_ms
    }

    /// Returns whether this is the same frame, of a save that was read later.
    pub(crate) fn was_wanted_after(&self, other: &Self) -> bool {
        self.is_same_frame_as(other) && self.of.read_ms > other.of.read_ms
    }

    pub(crate) fn save(&self) -> &SeenSave {
        &self.of
    }
}

/// The identity of a frame in a line of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mark {
    Made(RenderOrigin),
    /// One key for everything, including the folder of the .blend, in lines of the first version.
    Key(SessionKey),
}

impl Mark {
    pub(crate) fn made(&self) -> Option<&RenderOrigin> {
        match self {
            Self::Made(made) => Some(made),
            Self::Key(_) => None,
        }
    }
}

/// The relation of a line's frame to the one that is asked for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Relation {
    /// The same frame.
    Same,
    /// A frame of an earlier save of this .blend, made with the same choices.
    Older,
    /// A frame of a save of this .blend that was read later.
    Newer,
    /// A frame of this .blend that was made with other choices; the differences, in words.
    OtherChoices(Vec<String>),
    Stranger,
}

/// The identity of the frames of one command or job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameIdentity {
    /// The identity in new lines; that of the first version if a job does not know its save.
    pub(crate) mark: Mark,
    /// The identity in lines of the first version.
    key: SessionKey,
}

impl FrameIdentity {
    /// Returns the identity of the frames of a session. `out` is the output folder, if it is on one machine with the .blend; both
    /// are without links.
    pub(crate) fn new(session: &SessionSpec, save: &Save, choices: Choices, out: Option<&Path>) -> Self {
        let beside = out.and_then(|out| seen_from(out, &save.blend));
        let of = SeenSave { blend: save.blend.clone(), beside, read_ms: save.read_ms };
        let device = device_word(session.device).to_owned();
        let made = RenderOrigin { content: save.content, choices, device, of };
        Self { mark: Mark::Made(made), key: session.key() }
    }

    /// Returns the identity of a job's frames. `out` is as for [`FrameIdentity::new`].
    pub fn of_job(spec: &JobSpec, out: Option<&Path>) -> Self {
        let choices = Choices::of(&spec.session, spec.written_by.series());
        match &spec.save {
            Some(save) => Self::new(&spec.session, save, choices, out),
            None => {
                let key = spec.session.key();
                Self { mark: Mark::Key(key), key }
            }
        }
    }

    pub(crate) fn made(&self) -> Option<&RenderOrigin> {
        self.mark.made()
    }

    /// Returns whether both have the same content, as far as it is known.
    pub fn is_same_content(&self, other: &Self) -> bool {
        match (self.made(), other.made()) {
            (Some(made), Some(other)) => made.content == other.content,
            _ => self.key == other.key,
        }
    }

    /// Returns whether a job's frames are those that are asked for here, whichever device makes them.
    pub fn is_same_but_device(&self, other: &Self) -> bool {
        match (self.made(), other.made()) {
            (Some(made), Some(other)) => made.content == other.content && made.choices == other.choices,
            _ => self.key == other.key,
        }
    }

    /// Returns the relation of a line's frame to these. `seen` are further saves that have the frame of the line.
    pub(crate) fn relation<'a>(&self, mark: &Mark, mut seen: impl Iterator<Item = &'a SeenSave>) -> Relation {
        let line = match mark {
            Mark::Key(key) if *key == self.key => return Relation::Same,
            Mark::Key(_) => return Relation::Stranger,
            Mark::Made(line) => line,
        };
        let Some(mine) = self.made() else { return Relation::Stranger };
        if line.is_same_frame_as(mine) {
            return Relation::Same;
        }
        let mut same_blend = line.content == mine.content || mine.of.is_same_blend(&line.of);
        let mut newer = line.of.read_ms > mine.of.read_ms;
        for of in &mut seen {
            same_blend |= mine.of.is_same_blend(of);
            newer |= of.read_ms > mine.of.read_ms;
        }
        let mut changes = line.choices.changes(&mine.choices);
        // Without a choice of the GPU, any GPU is the same.
        let is_open = mine.device == device_word(DeviceClass::Gpu);
        if line.device != mine.device && !(is_open && line.device != device_word(DeviceClass::Cpu)) {
            changes.push(format!("device: {}, now {}", line.device, mine.device));
        }
        match () {
            () if !same_blend => Relation::Stranger,
            () if newer => Relation::Newer,
            () if !changes.is_empty() => Relation::OtherChoices(changes),
            () => Relation::Older,
        }
    }

    /// Returns the device of a line's frame if it is of this .blend and differs in no other choice.
    pub(crate) fn device_of_earlier(&self, mark: &Mark) -> Option<DeviceClass> {
        let (Mark::Made(line), Some(mine)) = (mark, self.made()) else { return None };
        let same_blend = line.content == mine.content || mine.of.is_same_blend(&line.of);
        let fits = same_blend && line.choices == mine.choices;
        DeviceClass::ALL.iter().copied().find(|device| fits && device_word(*device) == line.device)
    }
}

/// Returns the relative path from a folder to a file. Both are absolute.
fn seen_from(folder: &Path, file: &Path) -> Option<PathBuf> {
    let is_plain = |path: &Path| {
        path.is_absolute() && path.components().all(|part| !matches!(part, Component::ParentDir))
    };
    if !is_plain(folder) || !is_plain(file) {
        return None;
    }
    let (from, to): (Vec<_>, Vec<_>) = (folder.components().collect(), file.components().collect());
    let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from.iter().skip(shared).map(|_| Component::ParentDir);
    Some(up.chain(to.into_iter().skip(shared)).collect())
}

#[cfg(test)]
pub(crate) mod samples {
    use super::*;

    pub fn save(blend: &str, content: u8, read_ms: i64) -> Save {
        Save { content: BlobHash::of(&[content]), blend: blend.into(), read_ms }
    }

    pub fn identity(save: &Save, samples: Option<u32>, device: DeviceClass, out: &str) -> FrameIdentity {
        let mut session = SessionSpec {
            bundle: kiln_types::BundleId(save.content),
            blend: kiln_types::RelPath::new("a.blend").unwrap(),
            origin: None,
            file_name: None,
            blender: "5.0".parse().unwrap(),
            device,
            settings: Default::default(),
            policy: Default::default(),
            ocio: None,
            addons: Vec::new(),
        };
        session.settings.samples = samples;
        let choices = Choices::of(&session, "5.0".parse().unwrap());
        FrameIdentity::new(&session, save, choices, Some(Path::new(out)))
    }

    /// The mark of the same frame in a line of the first version.
    pub fn first_version(identity: &FrameIdentity) -> Mark {
        Mark::Key(identity.key)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        samples::{identity, save},
        *,
    };

    #[test]
    fn the_way_from_a_folder_to_a_file() {
        let way = |folder, file| seen_from(Path::new(folder), Path::new(file));
        assert_eq!(way("/p/out", "/p/shot.blend"), Some("../shot.blend".into()));
        assert_eq!(way("/p", "/p/shot.blend"), Some("shot.blend".into()));
        assert_eq!(way("/renders", "/p/shot.blend"), Some("../p/shot.blend".into()));
        assert_eq!(way("/p/../q", "/p/shot.blend"), None);
        assert_eq!(way("p", "/p/shot.blend"), None);
    }

    #[test]
    fn what_a_frame_is_to_another() {
        let (first, later) = (save("/p/shot.blend", 1, 10), save("/p/shot.blend", 2, 20));
        let cpu = DeviceClass::Cpu;
        let of = |save: &Save| identity(save, None, cpu, "/p/out");
        let relation =
            |now: &FrameIdentity, line: &FrameIdentity| now.relation(&line.mark.clone(), std::iter::empty());
        assert_eq!(relation(&of(&first), &of(&first)), Relation::Same);
        assert_eq!(relation(&of(&later), &of(&first)), Relation::Older);
        assert_eq!(relation(&of(&first), &of(&later)), Relation::Newer, "an older job never replaces");
        let moved = identity(&save("/q/shot.blend", 2, 20), None, cpu, "/q/out");
        assert_eq!(relation(&moved, &of(&first)), Relation::Older, "the way from the folder is the same");
        let elsewhere = identity(&save("/q/shot.blend", 2, 20), None, cpu, "/p/out");
        assert_eq!(relation(&elsewhere, &of(&first)), Relation::Stranger, "the name alone is not enough");
        let elsewhere = identity(&save("/q/shot.blend", 1, 20), None, cpu, "/p/out");
        assert_eq!(relation(&elsewhere, &of(&first)), Relation::Same, "wherever it lies");
        let test = identity(&later, Some(1), cpu, "/p/out");
        let changes = vec!["samples: the file's own, now 1".to_owned()];
        assert_eq!(relation(&test, &of(&first)), Relation::OtherChoices(changes));
        let optix = identity(&first, None, DeviceClass::Optix, "/p/out");
        let changes = vec!["device: cpu, now optix".to_owned()];
        assert_eq!(relation(&optix, &of(&first)), Relation::OtherChoices(changes));
        assert_eq!(optix.device_of_earlier(&of(&first).mark), Some(cpu));
        assert_eq!(test.device_of_earlier(&of(&first).mark), None);
        // Looked at again later: what was rendered in between is older than that.
        let seen = identity(&save("/p/shot.blend", 1, 30), None, cpu, "/p/out");
        let mark = of(&first).mark;
        assert_eq!(of(&later).relation(&mark, std::iter::once(seen.made().unwrap().save())), Relation::Newer);
    }
}
