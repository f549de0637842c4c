//! Whole pictures in memory: for comparing one with another.

use std::{
    fs::File,
    io::{Read, Seek},
    path::Path,
};

use kiln_types::{ColorDepth, FileFormat};

use crate::{
    fault::ImageFault,
    picture::{Head, Sink},
    verify::{DecodeLimits, run},
};

/// A decoded picture.
#[derive(Debug, Clone)]
pub struct Picture {
    pub format: FileFormat,
    pub width: u32,
    pub height: u32,
    pub depth: ColorDepth,
    /// Sorted by layer and channel.
    pub planes: Vec<PlanePixels>,
}

/// One channel of one layer, rows from the top; integers are kept as the file has them.
#[derive(Debug, Clone)]
pub struct PlanePixels {
    pub layer: String,
    pub channel: String,
    pub samples: Vec<f32>,
}

/// The difference between two pictures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// In the file's own units: 1 is one step of an 8 or 16-bit integer.
    pub max_abs: f32,
    /// Samples that are not equal.
    pub differing: u64,
    /// Samples compared.
    pub total: u64,
}

impl Difference {
    pub fn is_none(&self) -> bool {
        self.differing == 0
    }
}

#[derive(Default)]
struct Collector {
    memory: u64,
    head: Option<Head>,
    planes: Vec<Vec<f32>>,
}

impl Sink for Collector {
    fn begin(&mut self, head: Head) -> Result<bool, ImageFault> {
        let samples = u64::from(head.width) * u64::from(head.height);
        let all = samples.saturating_mul(4 * head.planes.len() as u64);
        let Some(count) = usize::try_from(samples).ok().filter(|_| all <= self.memory) else {
            return Err(ImageFault::too_large(self.memory));
        };
        self.planes = vec![vec![0.0; count]; head.planes.len()];
        self.head = Some(head);
        Ok(true)
    }

    fn wants(&self) -> bool {
        true
    }

    fn put(&mut self, plane: usize, x: usize, y: usize, samples: &[f32]) {
        let width = self.head.as_ref().map_or(0, |head| head.width as usize);
        let start = y * width + x;
        if let Some(place) = self.planes.get_mut(plane).and_then(|p| p.get_mut(start..start + samples.len()))
        {
            place.copy_from_slice(samples);
        }
    }
}

/// The pixels of all layers.
///
/// # Errors
/// The file is not a whole picture, or holds more than 4 GiB of samples.
pub fn decode<R: Read + Seek>(mut file: R) -> Result<Picture, ImageFault> {
    let mut sink = Collector { memory: 4 << 30, ..Collector::default() };
    run(&mut file, DecodeLimits::default().memory, &mut sink)?;
    let head = sink.head.ok_or_else(|| ImageFault::damaged("it has no header"))?;
    let mut planes: Vec<_> = head
        .planes
        .into_iter()
        .zip(sink.planes)
        .map(|(plane, samples)| PlanePixels { layer: plane.layer, channel: plane.channel, samples })
        .collect();
    planes.sort_by(|a, b| (&a.layer, &a.channel).cmp(&(&b.layer, &b.channel)));
    Ok(Picture { format: head.format, width: head.width, height: head.height, depth: head.depth, planes })
}

/// Compares every sample of every layer.
///
/// # Errors
/// A file is not a whole picture, or they do not have the same size, depth and channels.
pub fn same_pixels(a: &Path, b: &Path) -> Result<Difference, ImageFault> {
    let open = |path| File::open(path).map_err(ImageFault::Unreadable).and_then(|file| decode(&file));
    let (a, b) = (open(a)?, open(b)?);
    let differ = |what: &str| Err(ImageFault::NotComparable(what.to_owned()));
    if (a.width, a.height) != (b.width, b.height) {
        return differ("they differ in size");
    }
    if a.depth != b.depth {
        return differ("they differ in bits a channel");
    }
    let names =
        |p: &Picture| -> Vec<_> { p.planes.iter().map(|p| (p.layer.clone(), p.channel.clone())).collect() };
    if names(&a) != names(&b) {
        return differ("they differ in layers or channels");
    }
    let mut difference = Difference { max_abs: 0.0, differing: 0, total: 0 };
    for (a, b) in a.planes.iter().zip(&b.planes) {
        difference.total += a.samples.len() as u64;
        for (a, b) in a.samples.iter().zip(&b.samples) {
            if a != b && !(a.is_nan() && b.is_nan()) {
                let distance = (a - b).abs();
                difference.differing += 1;
                difference.max_abs =
                    if distance.is_nan() { f32::INFINITY } else { difference.max_abs.max(distance) };
            }
        }
    }
    Ok(difference)
}
