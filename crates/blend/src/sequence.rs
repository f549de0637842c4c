//! Image sequences and their like: the file that a frame shows. `blender/kiln_host/sequences.py` has the same rules; a
//! test compares both with what Blender opens.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::external::{ExternalFile, ExternalKind};

/// Extensions by which a clip is a sequence of pictures, whatever the file says: Blender looks at the file itself.
const PICTURES: [&str; 24] = [
    "png", "jpg", "jpeg", "jpe", "jp2", "j2c", "exr", "hdr", "tif", "tiff", "tga", "bmp", "dpx", "cin",
    "webp", "psd", "psb", "pdd", "sgi", "rgb", "rgba", "bw", "iris", "dds",
];

/// The number in a file's name: `shot_0012_v.png` is `shot_`, four digits, `_v.png`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NumberedName<'a> {
    pub head: &'a [u8],
    /// Digits of the number in the name itself; shorter numbers get zeros.
    pub digits: usize,
    pub tail: &'a [u8],
    /// None without digits.
    pub number: Option<i64>,
}

impl<'a> NumberedName<'a> {
    /// As Blender reads the names of images and clips: the last digits before the extension count. A name without
    /// digits gets the number appended.
    pub fn of_picture(name: &'a [u8]) -> Self {
        let stem = stem(name);
        let end = stem.iter().rposition(u8::is_ascii_digit).map_or(0, |last| last + 1);
        let start = stem[..end].iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1);
        match number(&stem[start..end]) {
            Some(number) => {
                let (head, tail) = (&name[..start], &name[end..]);
                Self { head, digits: end - start, tail, number: Some(number) }
            }
            None => Self { head: stem, digits: 0, tail: &name[stem.len()..], number: None },
        }
    }

    /// As it reads those of volumes and cache files: the digits right before the extension. None without any.
    pub fn at_end(name: &'a [u8]) -> Option<Self> {
        let stem = stem(name);
        let start = stem.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |at| at + 1);
        let number = number(&stem[start..])?;
        let (head, tail) = (&name[..start], &name[stem.len()..]);
        Some(Self { head, digits: stem.len() - start, tail, number: Some(number) })
    }

    /// None where the file is no sequence, or its name has no number that Blender would count.
    pub fn of(file: &ExternalFile, name: &'a [u8]) -> Option<Self> {
        match file.kind {
            _ if !file.sequence => None,
            ExternalKind::Volume | ExternalKind::CacheFile => Self::at_end(name),
            ExternalKind::MovieClip => Some(Self::of_picture(name)).filter(|name| name.number.is_some()),
            _ => Some(Self::of_picture(name)),
        }
    }

    /// The name with another number.
    pub fn with(&self, number: i64) -> Vec<u8> {
        let sign = if number < 0 { "-" } else { "" };
        let digits = match (self.digits, number.unsigned_abs()) {
            (0, 0) => String::new(),
            (digits, number) => format!("{number:0digits$}"),
        };
        [self.head, sign.as_bytes(), digits.as_bytes(), self.tail].concat()
    }

    /// The number of a name that differs in it alone.
    pub fn number_of(&self, name: &[u8]) -> Option<i64> {
        let middle = name.strip_prefix(self.head)?.strip_suffix(self.tail)?;
        if middle.is_empty() {
            return (self.digits == 0).then_some(0);
        }
        let (sign, digits) = middle.strip_prefix(b"-").map_or((1, middle), |rest| (-1, rest));
        let number = sign * number(digits)?;
        (self.with(number) == name).then_some(number)
    }
}

/// All before the extension.
fn stem(name: &[u8]) -> &[u8] {
    let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0);
    &name[..dot.unwrap_or(name.len())]
}

/// Blender keeps numbers in 32 bits, and takes longer ones for none.
fn number(digits: &[u8]) -> Option<i64> {
    let digits =
        std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse::<i32>().ok().map(i64::from)
}

/// The name of a clip is that of a picture.
pub(crate) fn is_picture(name: &[u8]) -> bool {
    let extension = name.rsplit(|byte| *byte == b'.').next().unwrap_or_default().to_ascii_lowercase();
    PICTURES.iter().any(|one| one.as_bytes() == extension)
}

/// The rule by which a frame chooses the number of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "rule")]
pub enum SequenceRule {
    /// The settings of an image in a node or a texture.
    Image {
        start: i64,
        duration: i64,
        offset: i64,
        cyclic: bool,
    },
    /// Geometry nodes are given the number.
    Input {
        number: i64,
    },
    /// Geometry nodes are given the scene's frame.
    SceneTime,
    /// A movie clip in the compositor. It counts on from the number in its own name.
    Clip(Clip),
    /// A movie clip in the sequencer: its content begins at frame `begin`, `skipped` pictures late, and it shows from
    /// `left` to before `right`.
    ClipStrip {
        #[serde(flatten)]
        clip: Clip,
        begin: i64,
        left: i64,
        right: i64,
        skipped: i64,
    },
    Volume {
        start: i64,
        duration: i64,
        offset: i64,
        mode: VolumeMode,
    },
    /// Alembic or USD: the scene's frame, or a number in its place.
    Cache {
        frame: Option<i64>,
    },
    /// Keyed or driven, or calculated by nodes: not to be told without Blender.
    Unknown,
}

/// The settings of a movie clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clip {
    /// The number in the clip's own name.
    pub first: i64,
    pub start: i64,
    pub offset: i64,
    /// Pictures that Blender counted.
    pub length: i64,
}

/// The frames of a volume outside of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeMode {
    /// Nothing.
    Clip,
    /// The first and the last.
    Extend,
    Repeat,
    PingPong,
}

/// The file that a frame shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameDemand {
    /// None.
    Nothing,
    /// The one with this number has to be there.
    Needed(i64),
    /// The one with this number has to be there if there are others before and after it; else the frame lies outside of
    /// the sequence.
    Between(i64),
}

impl SequenceRule {
    pub fn wanted(&self, frame: i32) -> FrameDemand {
        let frame = i64::from(frame);
        match *self {
            Self::Image { start, duration, offset, cyclic } => {
                of_image(frame, start, duration, offset, cyclic)
            }
            Self::Input { number } => FrameDemand::Between(number.max(0)),
            Self::SceneTime => FrameDemand::Between(frame.max(0)),
            Self::Clip(clip) => clip.wanted(frame),
            Self::ClipStrip { clip, begin, left, right, skipped } => {
                if (left..right).contains(&frame) {
                    clip.wanted(frame - begin + skipped + clip.start)
                } else {
                    FrameDemand::Nothing
                }
            }
            Self::Volume { start, duration, offset, mode } => of_volume(frame, start, duration, offset, mode),
            Self::Cache { frame: instead } => FrameDemand::Needed(instead.unwrap_or(frame)),
            Self::Unknown => FrameDemand::Nothing,
        }
    }
}

impl Clip {
    fn wanted(&self, frame: i64) -> FrameDemand {
        let number = (self.first + frame - self.start + self.offset).max(0);
        if (self.first..self.first + self.length).contains(&number) {
            FrameDemand::Needed(number)
        } else {
            FrameDemand::Between(number)
        }
    }
}

/// Before the start it is picture 0, after the end the last one.
fn of_image(frame: i64, start: i64, duration: i64, offset: i64, cyclic: bool) -> FrameDemand {
    if duration <= 0 {
        return FrameDemand::Between(0);
    }
    let at = frame - start + 1;
    if cyclic {
        FrameDemand::Needed(((at - 1).rem_euclid(duration) + 1 + offset).max(0))
    } else if at < 1 {
        FrameDemand::Between(offset.max(0))
    } else {
        FrameDemand::Needed((at.min(duration) + offset).max(0))
    }
}

fn of_volume(frame: i64, start: i64, duration: i64, offset: i64, mode: VolumeMode) -> FrameDemand {
    let at = frame - start + 1;
    if duration <= 0 {
        return FrameDemand::Nothing;
    }
    let at = match mode {
        VolumeMode::Clip if !(1..=duration).contains(&at) => return FrameDemand::Nothing,
        VolumeMode::Clip => at,
        VolumeMode::Extend => at.clamp(1, duration),
        VolumeMode::Repeat => (at - 1).rem_euclid(duration) + 1,
        VolumeMode::PingPong => {
            let at = (at - 1).rem_euclid((2 * duration - 2).max(1)) + 1;
            if at > duration { 2 * duration - at } else { at }
        }
    };
    FrameDemand::Needed(at + offset)
}

/// One way in which a scene shows a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceUser {
    /// The datablock that shows it, with its code of two letters: `MAwood`.
    pub by: String,
    #[serde(flatten)]
    pub rule: SequenceRule,
    /// The address of that datablock, and the .blend that holds it.
    #[serde(skip)]
    pub(crate) old: u64,
    #[serde(skip)]
    pub(crate) holder: PathBuf,
}

impl SequenceUser {
    pub(crate) fn held_by(&self, holder: &Path) -> Self {
        Self { holder: holder.to_owned(), ..self.clone() }
    }
}

impl ExternalFile {
    /// The name of the file that shows on a frame; None where none does.
    pub fn picture(&self, wanted: FrameDemand) -> Option<Vec<u8>> {
        let (FrameDemand::Needed(number) | FrameDemand::Between(number)) = wanted else { return None };
        let name = self.raw.rsplit(|byte| matches!(byte, b'/' | b'\\')).next().unwrap_or_default();
        Some(NumberedName::of(self, name).map_or_else(|| name.to_vec(), |parts| parts.with(number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_digits_before_the_extension_count() {
        for (name, number, expected) in [
            ("s_0004_diff.png", 12, "s_0012_diff.png"),
            ("shot4k_0004_v2.png", 12345, "shot4k_0004_v12345.png"),
            ("s_-0003.png", 5, "s_-0005.png"),
            ("name.png", 5, "name5.png"),
            ("name.png", 0, "name.png"),
            (".0004.png", 7, ".0007.png"),
            ("s_99999999999.png", 1, "s_999999999991.png"),
        ] {
            let parts = NumberedName::of_picture(name.as_bytes());
            assert_eq!(String::from_utf8_lossy(&parts.with(number)), expected, "{name}");
            assert_eq!(parts.number_of(expected.as_bytes()), Some(number), "{name}");
        }
        assert_eq!(NumberedName::at_end(b"s_0001_diff.vdb"), None);
        let parts = NumberedName::at_end(b"v_0001.vdb").unwrap();
        assert_eq!(parts.with(-3), b"v_-0003.vdb");
        assert_eq!(parts.number_of(b"v_-0003.vdb"), Some(-3));
        for other in ["v_1.vdb", "v_00001.vdb", "v_.vdb", "v_0001.abc", "w_0001.vdb", "v_--001.vdb"] {
            assert_eq!(parts.number_of(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_volume_of_one_frame_may_go_to_and_fro() {
        assert_eq!(of_volume(9, 1, 1, 0, VolumeMode::PingPong), FrameDemand::Needed(1));
    }
}
