//! The header of a picture, and the sink for its samples.

use std::ops::RangeInclusive;

use kiln_types::{ColorDepth, FileFormat};
use serde::{Deserialize, Serialize};

use crate::{fault::ImageFault, source::PictureSource};

/// The most channels that all layers of a picture may have together.
pub(crate) const MAX_PLANES: usize = 4096;

/// A layer of a picture; formats other than OpenEXR have one without a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub name: String,
    pub channels: Vec<String>,
}

/// The role of a channel in the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PlaneRole {
    /// A colour of the picture itself: it counts when the picture is called black.
    Color,
    /// The alpha of the picture itself.
    Alpha,
    /// Of another pass.
    Data,
    /// A distance, which may be infinite.
    Depth,
}

/// One channel of one layer.
#[derive(Debug, Clone)]
pub(crate) struct Plane {
    pub layer: String,
    pub channel: String,
    pub role: PlaneRole,
    /// The data fill the whole picture.
    pub full: bool,
}

/// The facts of a picture that its header holds.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub format: FileFormat,
    pub width: u32,
    pub height: u32,
    pub depth: ColorDepth,
    pub planes: Vec<Plane>,
    pub black: Black,
}

/// The samples of a black picture, in the file's own units.
#[derive(Debug, Clone)]
pub(crate) struct Black {
    /// The largest.
    pub level: f32,
    /// The range of black samples, where the file says that its numbers are densities of a negative. Some programs say so and write plain
    /// numbers.
    pub densities: Option<RangeInclusive<f32>>,
}

impl Black {
    /// Blender's dither makes noise of 0 to 3 out of a black of 8 bits; some of its view transforms lift the black of 16
    /// bits by up to 20.
    pub fn of(format: FileFormat, depth: ColorDepth) -> Self {
        let level = match (format, depth) {
            (FileFormat::OpenExr | FileFormat::OpenExrMultilayer | FileFormat::Hdr, _) => 1e-6,
            // A low quality makes a little more of dither.
            (FileFormat::Jp2 | FileFormat::J2c, ColorDepth::Eight) => 5.0,
            (_, ColorDepth::Eight) => 3.0,
            (_, ColorDepth::Ten) => 1.0,
            (_, ColorDepth::Twelve) => 2.0,
            (_, ColorDepth::Sixteen) => 32.0,
            (_, ColorDepth::ThirtyTwo) => 1e-6,
        };
        Self { level, densities: None }
    }
}

impl Head {
    /// One layer of interleaved channels, named by their letters ("RGBA").
    pub fn simple(format: FileFormat, size: (u32, u32), depth: ColorDepth, channels: &str) -> Self {
        let plane = |channel: char| Plane {
            layer: String::new(),
            channel: channel.to_string(),
            role: if channel == 'A' { PlaneRole::Alpha } else { PlaneRole::Color },
            full: true,
        };
        let planes = channels.chars().map(plane).collect();
        Self { format, width: size.0, height: size.1, depth, planes, black: Black::of(format, depth) }
    }

    pub fn layers(&self) -> Vec<Layer> {
        let mut layers: Vec<Layer> = Vec::new();
        for plane in &self.planes {
            match layers.iter_mut().rfind(|layer| layer.name == plane.layer) {
                Some(layer) => layer.channels.push(plane.channel.clone()),
                None => {
                    layers.push(Layer { name: plane.layer.clone(), channels: vec![plane.channel.clone()] })
                }
            }
        }
        layers
    }
}

/// The receiver of a decoder's results.
pub(crate) trait Sink {
    /// Called once, before any memory is taken for pixels. `false` ends the decoding there.
    fn begin(&mut self, head: Head) -> Result<bool, ImageFault>;
    /// Returns whether samples are of use; if not, they are decoded all the same, but not put. Runs with samples that are
    /// not finite are always put.
    fn wants(&self) -> bool;
    /// A run of samples of a plane.
    fn put(&mut self, plane: usize, x: usize, y: usize, samples: &[f32]);
}

/// A decoder: reads the whole file, and puts its results into the sink.
pub(crate) type Decode = fn(PictureSource<'_>, &mut dyn Sink) -> Result<(), ImageFault>;

/// Splits rows of interleaved samples into planes.
pub(crate) struct Interleaved {
    channels: usize,
    scratch: Vec<f32>,
}

impl Interleaved {
    pub fn new(channels: usize) -> Self {
        Self { channels, scratch: Vec::new() }
    }

    /// Puts a row; `sample(i)` is the i-th interleaved sample of it.
    pub fn row(&mut self, sink: &mut dyn Sink, y: usize, width: usize, sample: impl Fn(usize) -> f32) {
        if !sink.wants() {
            return;
        }
        for channel in 0..self.channels {
            self.scratch.clear();
            self.scratch.extend((0..width).map(|x| sample(x * self.channels + channel)));
            sink.put(channel, 0, y, &self.scratch);
        }
    }
}
