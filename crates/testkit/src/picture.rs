//! Pictures as numbers, to compare what two Blenders made.

use std::path::Path;

use exr::prelude::{FlatSamples, read_all_flat_layers_from_file};

/// A decoded picture: every channel of every pixel.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// Bits a channel.
    pub depth: u8,
    /// Integers as they are stored; floats by their bits, so that equal means equal.
    pub values: Vec<u32>,
}

/// Decodes a picture of any format that the tests make.
///
/// # Panics
/// If the file is not a picture.
#[track_caller]
pub fn picture(path: &Path) -> Picture {
    if path.extension().is_some_and(|ending| ending == "exr") { exr(path) } else { plain(path) }
}

fn plain(path: &Path) -> Picture {
    let decoded = image::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (width, height) = (decoded.width(), decoded.height());
    let channels = u16::from(decoded.color().channel_count());
    let depth = u8::try_from(decoded.color().bits_per_pixel() / channels).unwrap();
    let values = match depth {
        8 => decoded.as_bytes().iter().map(|byte| u32::from(*byte)).collect(),
        16 => {
            decoded.as_bytes().chunks_exact(2).map(|b| u32::from(u16::from_ne_bytes([b[0], b[1]]))).collect()
        }
        _ => {
            decoded.as_bytes().chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
    };
    Picture { width, height, depth, values }
}

fn exr(path: &Path) -> Picture {
    let decoded =
        read_all_flat_layers_from_file(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let size = decoded.layer_data[0].size;
    let mut values = Vec::new();
    let mut depth = 16;
    for layer in &decoded.layer_data {
        for channel in &layer.channel_data.list {
            match &channel.sample_data {
                FlatSamples::F16(samples) => values.extend(samples.iter().map(|v| u32::from(v.to_bits()))),
                FlatSamples::F32(samples) => {
                    depth = 32;
                    values.extend(samples.iter().map(|v| v.to_bits()));
                }
                FlatSamples::U32(samples) => values.extend(samples),
            }
        }
    }
    let side = |pixels: usize| u32::try_from(pixels).unwrap();
    Picture { width: side(size.0), height: side(size.1), depth, values }
}

/// # Panics
/// Where the pictures differ in size, depth or any pixel.
#[track_caller]
pub fn assert_same_picture(one: &Path, other: &Path) {
    let (a, b) = (picture(one), picture(other));
    let shape = |p: &Picture| (p.width, p.height, p.depth, p.values.len());
    assert_eq!(shape(&a), shape(&b), "{} and {} have different shapes", one.display(), other.display());
    let different = a.values.iter().zip(&b.values).filter(|(a, b)| a != b).count();
    assert!(
        different == 0,
        "{} and {} differ in {different} of {} values",
        one.display(),
        other.display(),
        a.values.len()
    );
}
