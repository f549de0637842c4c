//! OpenEXR: one or many parts, any number of layers, block by block.

use std::{
    cell::Cell,
    collections::HashSet,
    io::{self, Read, Seek, SeekFrom},
    rc::Rc,
};

use exr::{
    block::{
        UncompressedBlock,
        chunk::{Chunk, CompressedBlock},
        reader::Reader,
    },
    compression::Compression,
    error::Error,
    meta::{
        BlockDescription,
        attribute::{LevelMode, SampleType},
        header::Header,
    },
    prelude::f16,
};
use kiln_types::{ColorDepth, FileFormat};

use crate::{
    fault::ImageFault,
    picture::{Black, Head, MAX_PLANES, Plane, PlaneRole, Sink},
    source::PictureSource,
};

/// Attributes hold Cryptomatte's manifests: a name for every object.
const MAX_HEADER: u64 = 64 << 20;
const MAX_PARTS: usize = 1024;

/// Refuses to be read past a limit, so that a header cannot be without end.
struct Capped<R> {
    reader: R,
    limit: Rc<Cell<u64>>,
    position: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.limit.get() {
            return Err(io::Error::other("its header is too long"));
        }
        let count = self.reader.read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<R: Seek> Seek for Capped<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.reader.seek(to)?;
        Ok(self.position)
    }
}

fn fault(error: Error) -> ImageFault {
    match error {
        Error::NotSupported(why) => ImageFault::unsupported(why),
        Error::Io(error) if error.kind() == io::ErrorKind::Other => ImageFault::damaged(error),
        Error::Io(error) => error.into(),
        // The library gives the end of the file this text.
        Error::Invalid(why) if why.contains("bytes") || why.contains("content size") => {
            ImageFault::Truncated(format!("it ends before the picture does ({why})"))
        }
        Error::Invalid(why) => ImageFault::damaged(why),
        Error::Aborted => ImageFault::damaged("its decoder failed"),
    }
}

/// Splits `ViewLayer.Combined.R` into layer and channel.
fn plane(part: Option<&str>, full_name: &str, full: bool) -> Plane {
    let (layer, channel) = full_name.rsplit_once('.').unwrap_or(("", full_name));
    let layer = match part {
        // Blender repeats the layer in the part's name, and adds the view.
        Some(part) if !part.is_empty() && part != layer => format!("{part}:{layer}"),
        _ => layer.to_owned(),
    };
    let depth = channel == "Z" && matches!(pass(&layer).next(), None | Some("" | "Depth" | "Z"));
    let role = match channel {
        _ if depth => PlaneRole::Depth,
        "A" | "a" => PlaneRole::Alpha,
        _ => PlaneRole::Color,
    };
    Plane { layer, channel: channel.to_owned(), role, full }
}

/// The end of a layer's name: `Combined` of `ViewLayer.Combined`, and behind it the name before, for those that end
/// with their view (`ViewLayer.Combined.left`).
fn pass(layer: &str) -> impl Iterator<Item = &str> {
    layer.rsplit(['.', ':']).take(2)
}

/// Passes beside the picture itself, such as normals, do not make it one that is not black. A file without the picture
/// itself is all that its passes are.
fn tell_picture_from_passes(planes: &mut [Plane]) {
    let is_picture = |plane: &Plane| pass(&plane.layer).any(|name| name == "Combined");
    if planes.iter().any(is_picture) {
        for plane in planes.iter_mut().filter(|plane| !is_picture(plane) && plane.role != PlaneRole::Depth) {
            plane.role = PlaneRole::Data;
        }
    }
}

fn head_of(headers: &[Header], memory: u64) -> Result<Head, ImageFault> {
    let first = headers.first().ok_or_else(|| ImageFault::damaged("it has no part"))?;
    let channels: usize = headers.iter().map(|header| header.channels.list.len()).sum();
    if headers.len() > MAX_PARTS || channels > MAX_PLANES {
        return Err(ImageFault::TooLarge(format!(
            "it has {} parts with {channels} channels; {MAX_PARTS} and {MAX_PLANES} are the most",
            headers.len()
        )));
    }
    let window = first.shared_attributes.display_window;
    let mut planes = Vec::with_capacity(channels);
    let mut multilayer = false;
    let mut half = false;
    for header in headers {
        if header.deep {
            return Err(ImageFault::unsupported("deep OpenEXR data"));
        }
        if header.shared_attributes.display_window != window {
            return Err(ImageFault::damaged("its parts differ in size"));
        }
        let data = header.data_window();
        let inside = data.position.x() >= window.position.x()
            && data.position.y() >= window.position.y()
            && data.end().x() <= window.end().x()
            && data.end().y() <= window.end().y();
        if !inside {
            return Err(ImageFault::unsupported("OpenEXR data outside the picture"));
        }
        block_fits(header, memory)?;
        let part = header.own_attributes.layer_name.as_ref().map(ToString::to_string);
        let part = if headers.len() > 1 { part } else { None };
        for channel in &header.channels.list {
            if channel.sampling.x() != 1 || channel.sampling.y() != 1 {
                return Err(ImageFault::unsupported("OpenEXR channels of reduced size"));
            }
            let name = channel.name.to_string();
            multilayer |= name.split('.').count() >= 3;
            half |= channel.sample_type == SampleType::F16;
            planes.push(plane(part.as_deref(), &name, data == window));
        }
    }
    tell_picture_from_passes(&mut planes);
    let names = |key: &str| {
        first.own_attributes.other.keys().any(|name| name == key)
            || first.shared_attributes.other.keys().any(|name| name == key)
    };
    // Layers make a file multilayer. A plain one names its channels R, G, B, A, or after its views; a File
    // Output node writes layers without Blender's mark.
    let own = &first.own_attributes;
    let has_views = headers.len() > 1 || own.view_name.is_some() || own.multi_view_names.is_some();
    let has_layers = planes.iter().any(|plane| !plane.layer.is_empty());
    let multilayer = multilayer || (has_layers && (names("BlenderMultiChannel") || !has_views));
    let size =
        |length: usize| u32::try_from(length).map_err(|_| ImageFault::damaged("its size makes no sense"));
    let format = if multilayer { FileFormat::OpenExrMultilayer } else { FileFormat::OpenExr };
    let depth = if half { ColorDepth::Sixteen } else { ColorDepth::ThirtyTwo };
    Ok(Head {
        format,
        width: size(window.size.width())?,
        height: size(window.size.height())?,
        depth,
        planes,
        black: Black::of(format, depth),
    })
}

/// A block is decoded as a whole: it must fit the memory allowed.
fn block_fits(header: &Header, memory: u64) -> Result<(), ImageFault> {
    let (width, height) = (header.layer_size.width() as u64, header.layer_size.height() as u64);
    let pixels = match header.blocks {
        BlockDescription::ScanLines => {
            width.saturating_mul(height.min(header.compression.scan_lines_per_block() as u64))
        }
        BlockDescription::Tiles(tiles) => {
            if tiles.level_mode != LevelMode::Singular {
                return Err(ImageFault::unsupported("OpenEXR with several resolutions"));
            }
            let (tile_width, tile_height) = (tiles.tile_size.width() as u64, tiles.tile_size.height() as u64);
            width.min(tile_width).saturating_mul(height.min(tile_height))
        }
    };
    let bytes = pixels.saturating_mul(header.channels.bytes_per_pixel as u64);
    // The table of blocks is held as well: eight bytes each.
    if bytes > memory || 8 * header.chunk_count as u64 > memory {
        return Err(ImageFault::too_large(memory));
    }
    Ok(())
}

pub(crate) fn decode(source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let limit = Rc::new(Cell::new(MAX_HEADER));
    let capped = Capped { reader: source.reader, limit: Rc::clone(&limit), position: 0 };
    let reader = Reader::read_from_buffered(capped, false).map_err(fault)?;
    let head = head_of(reader.headers(), source.memory)?;
    if !sink.begin(head)? {
        return Ok(());
    }
    limit.set(u64::MAX);
    let meta = reader.meta_data().clone();
    let headers = meta.headers.as_slice();
    // Every block is at least a few bytes of the file.
    let blocks: u64 = headers.iter().map(|header| header.chunk_count as u64).sum();
    if blocks.saturating_mul(8) > source.len {
        return Err(ImageFault::Truncated("blocks of pixels are missing".to_owned()));
    }
    let mut missing: Vec<usize> =
        headers.iter().map(|header| header.layer_size.width() * header.layer_size.height()).collect();
    let mut seen = HashSet::new();
    let mut scratch = Vec::new();
    // Reads by the table of blocks, as every other program will.
    for chunk in reader.filter_chunks(true, |_, _, _| true).map_err(fault)? {
        let chunk = chunk.map_err(fault)?;
        counters_make_sense(&chunk, headers)?;
        let block = UncompressedBlock::decompress_chunk(chunk, &meta, true).map_err(fault)?;
        let index = block.index;
        let place = (index.layer, index.pixel_position.x(), index.pixel_position.y());
        let left = missing.get_mut(index.layer).filter(|_| seen.insert(place));
        let left = left.ok_or_else(|| ImageFault::damaged("a block of pixels comes twice"))?;
        *left = left
            .checked_sub(index.pixel_size.width() * index.pixel_size.height())
            .ok_or_else(|| ImageFault::damaged("blocks of pixels overlap"))?;
        hand_over(&block, headers, sink, &mut scratch);
    }
    if missing.iter().any(|pixels| *pixels > 0) {
        return Err(ImageFault::Truncated("blocks of pixels are missing".to_owned()));
    }
    Ok(())
}

/// Returns whether blocks of pixels are missing; they are read, and not unpacked.
pub(crate) fn ends_early(source: PictureSource<'_>) -> Result<bool, ImageFault> {
    let len = source.len;
    let capped = Capped { reader: source.reader, limit: Rc::new(Cell::new(u64::MAX)), position: 0 };
    let reader = Reader::read_from_buffered(capped, false).map_err(fault)?;
    let blocks: u64 = reader.headers().iter().map(|header| header.chunk_count as u64).sum();
    if blocks.saturating_mul(8) > len {
        return Ok(true);
    }
    let mut chunks = reader.filter_chunks(false, |_, _, _| true).map_err(fault)?;
    chunks.try_for_each(|chunk| chunk.map(drop)).map_err(fault)?;
    Ok(false)
}

/// A DWA block begins with the sizes of its sections, which the decoder takes as they are: none can be much
/// larger than the pixels that come out.
fn counters_make_sense(chunk: &Chunk, headers: &[Header]) -> Result<(), ImageFault> {
    let damaged = || ImageFault::damaged("a block of pixels has sizes that make no sense");
    let header = headers.get(chunk.layer_index).ok_or_else(damaged)?;
    if !matches!(header.compression, Compression::DWAA(_) | Compression::DWAB(_)) {
        return Ok(());
    }
    let bytes = match &chunk.compressed_block {
        CompressedBlock::ScanLine(block) => &block.compressed_pixels_le,
        CompressedBlock::Tile(block) => &block.compressed_pixels_le,
        _ => return Err(damaged()),
    };
    let lines = header.layer_size.height().min(header.compression.scan_lines_per_block());
    // Coefficients come in squares of eight pixels.
    let padded = (header.layer_size.width() + 8) as u64 * (lines + 8) as u64;
    let most = padded * 4 * header.channels.list.len() as u64 * 2 + 4096;
    let counters = bytes
        .chunks_exact(8)
        .take(11)
        .map(|b| b.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)));
    // A block that did not shrink is kept raw, without counters.
    let raw = bytes.len() == header.layer_size.width() * lines * header.channels.bytes_per_pixel;
    if !raw && bytes.len() >= 88 && counters.skip(1).any(|counter| counter > most) {
        return Err(damaged());
    }
    Ok(())
}

fn hand_over(block: &UncompressedBlock, headers: &[Header], sink: &mut dyn Sink, scratch: &mut Vec<f32>) {
    let wanted = sink.wants();
    let header = &headers[block.index.layer];
    // All samples of the block at once, where they are of one kind: most blocks need nothing else.
    if !wanted
        && let Some(kind) = header.channels.uniform_sample_type
        && is_finite(kind, &block.data)
    {
        return;
    }
    let first_plane: usize = headers[..block.index.layer].iter().map(|h| h.channels.list.len()).sum();
    let origin = header.shared_attributes.display_window.position;
    let shift = |data: i32, window: i32| usize::try_from(i64::from(data) - i64::from(window)).unwrap_or(0);
    let data = header.own_attributes.layer_position;
    let (dx, dy) = (shift(data.x(), origin.x()), shift(data.y(), origin.y()));
    for line in block.lines(&header.channels) {
        let place = line.location;
        let bytes = line.value;
        let kind = header.channels.list[place.channel].sample_type;
        if !wanted && is_finite(kind, bytes) {
            continue;
        }
        scratch.clear();
        match kind {
            SampleType::F16 => {
                scratch.extend(bytes.chunks_exact(2).map(|b| f16::from_ne_bytes([b[0], b[1]]).to_f32()))
            }
            SampleType::F32 => {
                scratch.extend(bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])));
            }
            SampleType::U32 => scratch
                .extend(bytes.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]) as f32)),
        }
        sink.put(first_plane + place.channel, place.position.x() + dx, place.position.y() + dy, scratch);
    }
}

/// Returns whether every sample is a finite number, told by the bits: an exponent of ones is infinity or no number, and one more
/// than that carries into the sign. Goes through all samples of all pictures, so it is made of what a processor does to
/// many at once.
fn is_finite(kind: SampleType, bytes: &[u8]) -> bool {
    match kind {
        SampleType::F16 => {
            let carry = |b: &[u8]| (u16::from_ne_bytes([b[0], b[1]]) & 0x7c00) + 0x0400;
            bytes.chunks_exact(2).fold(0, |all, b| all | carry(b)) & 0x8000 == 0
        }
        SampleType::F32 => {
            let carry = |b: &[u8]| (u32::from_ne_bytes([b[0], b[1], b[2], b[3]]) & 0x7f80_0000) + 0x0080_0000;
            bytes.chunks_exact(4).fold(0, |all, b| all | carry(b)) & 0x8000_0000 == 0
        }
        SampleType::U32 => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_infinity_and_what_is_no_number_is_not_finite() {
        for bits in 0..=u16::MAX {
            let finite = f16::from_bits(bits).is_finite();
            assert_eq!(is_finite(SampleType::F16, &bits.to_ne_bytes()), finite, "{bits:x}");
            let bits = u32::from(bits) << 16 | 1;
            let finite = f32::from_bits(bits).is_finite();
            assert_eq!(is_finite(SampleType::F32, &bits.to_ne_bytes()), finite, "{bits:x}");
        }
    }
}
