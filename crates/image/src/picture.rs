//! What a decoder says about a picture, and where its samples go.

use kiln_types::{ColorDepth, FileFormat};
use serde::{Deserialize, Serialize};

use crate::{fault::ImageFault, source::Source};

/// The most channels that all layers of a picture may have together.
pub(crate) const MAX_PLANES: usize = 4096;

/// A layer of a picture; formats other than OpenEXR have one without a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    pub name: String,
    pub channels: Vec<String>,
}

/// What a channel is to the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
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
    pub part: Part,
    /// Whether its data fill the whole picture.
    pub full: bool,
}

/// What is known of a picture once its header has been read.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub format: FileFormat,
    pub width: u32,
    pub height: u32,
    pub depth: ColorDepth,
    pub planes: Vec<Plane>,
}

impl Head {
    /// One layer of interleaved channels, named by their letters ("RGBA").
    pub fn simple(format: FileFormat, size: (u32, u32), depth: ColorDepth, channels: &str) -> Self {
        let plane = |channel: char| Plane {
            layer: String::new(),
            channel: channel.to_string(),
            part: if channel == 'A' { Part::Alpha } else { Part::Color },
            full: true,
        };
        Self { format, width: size.0, height: size.1, depth, planes: channels.chars().map(plane).collect() }
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

/// Takes what a decoder finds.
pub(crate) trait Sink {
    /// Called once, before any memory is taken for pixels. `false` ends the decoding there.
    fn begin(&mut self, head: Head) -> Result<bool, ImageFault>;
    /// Whether samples are of use; if not, they are still decoded, but not handed over. Runs with samples that are not
    /// finite are always handed over.
    fn wants(&self) -> bool;
    /// A run of samples of a plane.
    fn put(&mut self, plane: usize, x: usize, y: usize, samples: &[f32]);
}

/// A decoder: reads the whole file, hands what it finds to the sink.
pub(crate) type Decode = fn(Source<'_>, &mut dyn Sink) -> Result<(), ImageFault>;

/// Splits rows of interleaved samples into planes.
pub(crate) struct Interleaved {
    channels: usize,
    scratch: Vec<f32>,
}

impl Interleaved {
    pub fn new(channels: usize) -> Self {
        Self { channels, scratch: Vec::new() }
    }

    /// Hands a row over; `sample(i)` is the i-th interleaved sample of it.
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
