//! Remarkable things in the pixels of a frame: facts for its artist, not faults.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{FrameSet, OutputRole, OutputSet, RelPath, render::text_enum};

text_enum!(
    /// A picture without any light in it.
    Blank {
        /// Every colour sample is zero.
        Black = "black",
        /// Every colour sample is zero, and every sample of the alpha channel too.
        Transparent = "transparent",
    }
);

/// The remarkable things in the pixels of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct PixelReport {
    /// Present if the whole picture is black or transparent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blank: Option<Blank>,
    /// Pixels with a sample that is not a number, or is infinite.
    #[serde(skip_serializing_if = "is_zero")]
    pub not_finite: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl PixelReport {
    pub fn is_clear(&self) -> bool {
        *self == Self::default()
    }
}

/// The reason why a frame is suspicious. The frame is delivered like any other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Suspicion {
    /// The picture is entirely black.
    Black,
    /// The picture is entirely transparent.
    Transparent,
    /// One of several views is entirely black or transparent, and another is not.
    BlankView { path: RelPath },
    /// Pixels that are not numbers, in the file that has the most of them.
    NotFinite {
        pixels: u64,
        /// The file, if it is not the picture itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<RelPath>,
    },
}

impl Suspicion {
    /// Returns whether a job that refuses black frames refuses the frame for it.
    pub fn is_blank(&self) -> bool {
        !matches!(self, Self::NotFinite { .. })
    }

    /// Returns the suspicions about these files of a frame. Only the picture itself counts as black: a mask or a data pass
    /// of a File Output node may well be black.
    pub fn of<'a>(files: impl IntoIterator<Item = (&'a RelPath, &'a OutputRole, PixelReport)>) -> Vec<Self> {
        let (mut views, mut blank) = (0, Vec::new());
        let mut worst: Option<(u64, Option<&RelPath>)> = None;
        for (path, role, pixels) in files {
            let is_main = matches!(role, OutputRole::Main { .. });
            views += usize::from(is_main);
            blank.extend(pixels.blank.filter(|_| is_main).map(|how| (path, how)));
            if pixels.not_finite > worst.map_or(0, |(most, _)| most) {
                worst = Some((pixels.not_finite, (!is_main).then_some(path)));
            }
        }
        let mut all = Vec::new();
        if !blank.is_empty() && blank.len() == views {
            let transparent = blank.iter().all(|(_, how)| *how == Blank::Transparent);
            all.push(if transparent { Self::Transparent } else { Self::Black });
        } else {
            all.extend(blank.into_iter().map(|(path, _)| Self::BlankView { path: path.clone() }));
        }
        all.extend(worst.map(|(pixels, path)| Self::NotFinite { pixels, path: path.cloned() }));
        all
    }
}

impl OutputSet {
    pub fn suspicions(&self) -> Vec<Suspicion> {
        Suspicion::of(self.files().iter().map(|file| (&file.path, &file.role, file.pixels)))
    }
}

/// Pixels that are not numbers in one file of one frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NotFinite {
    pub frame: i32,
    pub pixels: u64,
    /// The file, where it is not the picture itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<RelPath>,
}

/// The suspicious frames of a job. They are delivered like any other.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SuspiciousFrames {
    /// Frames whose picture is entirely black.
    pub black: Option<FrameSet>,
    /// Frames whose picture is entirely transparent.
    pub transparent: Option<FrameSet>,
    /// Frames with a view that is entirely black or transparent, and another that is not.
    pub blank_view: Option<FrameSet>,
    /// Frames with pixels that are not numbers, or infinite.
    pub not_finite: Option<FrameSet>,
    /// The file with the most of those pixels.
    pub most_not_finite: Option<NotFinite>,
}

impl SuspiciousFrames {
    /// Sorts frames by their suspicions.
    pub fn collect(frames: impl IntoIterator<Item = (i32, Vec<Suspicion>)>) -> Self {
        let (mut black, mut transparent, mut view, mut not_finite) = (vec![], vec![], vec![], vec![]);
        let mut most: Option<NotFinite> = None;
        for (frame, suspicions) in frames {
            for suspicion in suspicions {
                match suspicion {
                    Suspicion::Black => black.push(frame),
                    Suspicion::Transparent => transparent.push(frame),
                    Suspicion::BlankView { .. } => view.push(frame),
                    Suspicion::NotFinite { pixels, path } => {
                        not_finite.push(frame);
                        if most.as_ref().is_none_or(|most| pixels > most.pixels) {
                            most = Some(NotFinite { frame, pixels, path });
                        }
                    }
                }
            }
        }
        Self {
            black: set(black),
            transparent: set(transparent),
            blank_view: set(view),
            not_finite: set(not_finite),
            most_not_finite: most,
        }
    }

    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the frames of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let both = |a: Option<FrameSet>, b: Option<FrameSet>| {
            set(a.iter().chain(&b).flat_map(FrameSet::iter).collect())
        };
        let most = [self.most_not_finite, other.most_not_finite];
        Self {
            black: both(self.black, other.black),
            transparent: both(self.transparent, other.transparent),
            blank_view: both(self.blank_view, other.blank_view),
            not_finite: both(self.not_finite, other.not_finite),
            most_not_finite: most.into_iter().flatten().max_by_key(|most| most.pixels),
        }
    }
}

/// The set of these frames in their order; `None` for none.
fn set(mut frames: Vec<i32>) -> Option<FrameSet> {
    frames.sort_unstable();
    FrameSet::from_frames(frames).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rel(path: &str) -> RelPath {
        RelPath::new(path).unwrap()
    }

    fn main(view: Option<&str>) -> OutputRole {
        OutputRole::Main { view: view.map(str::to_owned) }
    }

    fn mask() -> OutputRole {
        OutputRole::FileOutput { node: "Masks".to_owned(), slot: "mask".to_owned(), view: None }
    }

    fn black() -> PixelReport {
        PixelReport { blank: Some(Blank::Black), not_finite: 0 }
    }

    #[test]
    fn only_the_picture_itself_counts_as_black() {
        let (picture, other) = (rel("7.exr"), rel("mask/7.exr"));
        let clear = PixelReport::default();
        let of = |main_pixels, mask_pixels| {
            Suspicion::of([(&picture, &main(None), main_pixels), (&other, &mask(), mask_pixels)])
        };
        assert_eq!(of(clear, black()), []);
        assert_eq!(of(black(), clear), [Suspicion::Black]);
        let broken = PixelReport { blank: None, not_finite: 12 };
        assert_eq!(of(broken, clear), [Suspicion::NotFinite { pixels: 12, path: None }]);
        assert_eq!(of(clear, broken), [Suspicion::NotFinite { pixels: 12, path: Some(other.clone()) }]);
    }

    #[test]
    fn a_frame_is_black_where_all_its_views_are() {
        let (left, right) = (rel("7_L.png"), rel("7_R.png"));
        let of = |left_pixels, right_pixels| {
            Suspicion::of([
                (&left, &main(Some("left")), left_pixels),
                (&right, &main(Some("right")), right_pixels),
            ])
        };
        let transparent = PixelReport { blank: Some(Blank::Transparent), not_finite: 0 };
        assert_eq!(of(black(), black()), [Suspicion::Black]);
        assert_eq!(of(black(), transparent), [Suspicion::Black]);
        assert_eq!(of(transparent, transparent), [Suspicion::Transparent]);
        assert_eq!(of(PixelReport::default(), black()), [Suspicion::BlankView { path: right.clone() }]);
    }

    #[test]
    fn frames_are_sorted_by_what_is_suspicious() {
        let wild = |pixels| vec![Suspicion::NotFinite { pixels, path: None }];
        let some = SuspiciousFrames::collect([(41, vec![Suspicion::Black]), (7, wild(12)), (9, wild(3))]);
        let more = SuspiciousFrames::collect([(40, vec![Suspicion::Black]), (12, vec![Suspicion::Black])]);
        let all = some.and(more);
        assert_eq!(all.black.unwrap().to_string(), "12,40-41");
        assert_eq!(all.not_finite.unwrap().to_string(), "7,9");
        assert_eq!(all.most_not_finite, Some(NotFinite { frame: 7, pixels: 12, path: None }));
        assert!(SuspiciousFrames::collect([(1, vec![])]).is_empty());
    }
}
