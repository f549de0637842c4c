//! The check that a file is the picture that was asked for.

use std::{
    fs::File,
    io::{Read, Seek},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use kiln_types::{Blank, ColorDepth, FileFormat, PixelReport};
use serde::{Deserialize, Serialize};

use crate::{
    fault::ImageFault,
    format,
    picture::{Head, Layer, PlaneRole, Sink},
    source::{Bytes, PictureSource},
};

/// The cost limits of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Bytes a decoder may hold at once. Most formats are read in rows, strips or blocks and need little of it; JPEG,
    /// WebP and JPEG 2000 need the whole picture.
    pub memory: u64,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self { memory: 1 << 30 }
    }
}

/// The picture that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    pub format: FileFormat,
    /// Pixels of the file itself: both eyes where stereo is written side by side.
    pub width: u32,
    pub height: u32,
    /// `None` takes any.
    pub depth: Option<ColorDepth>,
    /// The layers of an OpenEXR file may cover only a part of the picture.
    pub cropped: bool,
    pub limits: DecodeLimits,
}

impl Expectation {
    pub fn new(format: FileFormat, width: u32, height: u32) -> Self {
        Self { format, width, height, depth: None, cropped: false, limits: DecodeLimits::default() }
    }

    #[must_use]
    pub fn depth(self, depth: Option<ColorDepth>) -> Self {
        Self { depth, ..self }
    }
}

/// A file that was decoded to its end and is what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// As the file's bytes say.
    pub format: FileFormat,
    pub width: u32,
    pub height: u32,
    pub depth: ColorDepth,
    pub layers: Vec<Layer>,
    pub pixels: PixelReport,
}

struct Checker<'a> {
    expected: &'a Expectation,
    head: Option<Head>,
    /// A colour is above the level of black.
    above_black: bool,
    /// A colour is no density of black.
    not_density_of_black: bool,
    /// The picture has alpha, and it is not zero everywhere.
    covered: bool,
    not_finite: Pixels,
}

/// Pixels that were met, each counted once however many channels it has.
#[derive(Default)]
struct Pixels {
    count: u64,
    /// A bit a pixel, from the first one on.
    seen: Vec<u64>,
}

impl Pixels {
    /// Counts the pixel with this number out of `total`.
    fn add(&mut self, pixel: usize, total: usize) {
        if self.seen.is_empty() {
            self.seen = vec![0; total.div_ceil(64)];
        }
        let Some(word) = self.seen.get_mut(pixel / 64) else { return };
        let bit = 1 << (pixel % 64);
        self.count += u64::from(*word & bit == 0);
        *word |= bit;
    }
}

impl<'a> Checker<'a> {
    fn new(expected: &'a Expectation) -> Self {
        let not_finite = Pixels::default();
        Self {
            expected,
            head: None,
            above_black: false,
            not_density_of_black: false,
            covered: false,
            not_finite,
        }
    }

    /// Returns whether a colour was met that is not black.
    fn is_lit(&self) -> bool {
        let has_densities = self.head.as_ref().is_some_and(|head| head.black.densities.is_some());
        self.above_black && (self.not_density_of_black || !has_densities)
    }

    fn report(&self) -> PixelReport {
        let planes = self.head.as_ref().map_or(&[][..], |head| &head.planes);
        let has = |role| planes.iter().any(|plane| plane.role == role);
        let blank = (!self.is_lit() && has(PlaneRole::Color))
            .then(|| if has(PlaneRole::Alpha) && !self.covered { Blank::Transparent } else { Blank::Black });
        PixelReport { blank, not_finite: self.not_finite.count }
    }
}

impl Sink for Checker<'_> {
    fn begin(&mut self, head: Head) -> Result<bool, ImageFault> {
        let expected = self.expected;
        if !format::matches(expected.format, head.format) {
            return Err(ImageFault::WrongFormat { expected: expected.format, found: head.format });
        }
        if (head.width, head.height) != (expected.width, expected.height) {
            return Err(ImageFault::WrongSize {
                expected: (expected.width, expected.height),
                found: (head.width, head.height),
            });
        }
        if let Some(depth) = expected.depth
            && depth != head.depth
        {
            return Err(ImageFault::WrongDepth { expected: depth, found: head.depth });
        }
        if let Some(plane) = head.planes.iter().find(|plane| !plane.full)
            && !expected.cropped
        {
            return Err(ImageFault::Cropped { layer: plane.layer.clone() });
        }
        self.head = Some(head);
        Ok(true)
    }

    fn wants(&self) -> bool {
        !self.is_lit()
    }

    fn put(&mut self, plane: usize, x: usize, y: usize, samples: &[f32]) {
        let Some(head) = &self.head else { return };
        let Some(plane) = head.planes.get(plane) else { return };
        let size = (head.width as usize, head.height as usize);
        let black = &head.black;
        match plane.role {
            // What is no number is not black either.
            PlaneRole::Color => {
                self.above_black |=
                    samples.iter().any(|sample| sample.is_nan() || sample.abs() > black.level);
                let densities = black.densities.as_ref();
                self.not_density_of_black |=
                    densities.is_some_and(|range| samples.iter().any(|sample| !range.contains(sample)));
            }
            PlaneRole::Alpha => self.covered |= samples.iter().any(|sample| *sample != 0.0),
            PlaneRole::Data => {}
            PlaneRole::Depth => return,
        }
        for (at, _) in samples.iter().enumerate().filter(|(_, sample)| !sample.is_finite()) {
            self.not_finite.add(y * size.0 + x + at, size.0 * size.1);
        }
    }
}

struct Prober(Option<Head>);

impl Sink for Prober {
    fn begin(&mut self, head: Head) -> Result<bool, ImageFault> {
        self.0 = Some(head);
        Ok(false)
    }
    fn wants(&self) -> bool {
        false
    }
    fn put(&mut self, _plane: usize, _x: usize, _y: usize, _samples: &[f32]) {}
}

/// Recognises and decodes; a decoder that panics on what it was fed counts as a damaged file.
pub(crate) fn run(bytes: &mut dyn Bytes, memory: u64, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let work = AssertUnwindSafe(|| {
        let mut source = PictureSource::new(bytes, memory)?;
        let (_, decode) = format::recognise(&mut source)?;
        decode(source, sink)
    });
    catch_unwind(work).unwrap_or_else(|_| Err(ImageFault::damaged("its decoder failed")))
}

/// Decodes the file to its end and compares it with what was asked for. The caller opens it (without following
/// links, where the file's maker is not believed): `verify(&file, &expected)` leaves its position anywhere.
///
/// # Errors
/// The file is not wholly the picture that was asked for.
pub fn verify<R: Read + Seek>(mut file: R, expected: &Expectation) -> Result<Checked, ImageFault> {
    let mut checker = Checker::new(expected);
    run(&mut file, expected.limits.memory, &mut checker)?;
    let pixels = checker.report();
    let head = checker.head.ok_or_else(|| ImageFault::damaged("it has no header"))?;
    let layers = head.layers();
    Ok(Checked {
        format: head.format,
        width: head.width,
        height: head.height,
        depth: head.depth,
        layers,
        pixels,
    })
}

/// [`verify`] of a path; links are followed.
pub fn verify_path(path: &Path, expected: &Expectation) -> Result<Checked, ImageFault> {
    verify(&File::open(path).map_err(ImageFault::Unreadable)?, expected)
}

/// Format and size in pixels, from the header alone: the rest of the file may be broken.
///
/// # Errors
/// The header is no picture's.
pub fn probe<R: Read + Seek>(mut file: R) -> Result<(FileFormat, u32, u32), ImageFault> {
    let mut prober = Prober(None);
    run(&mut file, DecodeLimits::default().memory, &mut prober)?;
    let head = prober.0.ok_or_else(|| ImageFault::damaged("it has no header"))?;
    Ok((head.format, head.width, head.height))
}
