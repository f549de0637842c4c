//! TIFF, strip by strip.

use std::io::{Read, Seek};

use kiln_types::{ColorDepth, FileFormat};
use tiff::{
    ColorType, TiffError,
    decoder::{ChunkType, Decoder, DecodingResult, Limits},
    tags::Tag,
};

use crate::{
    fault::ImageFault,
    picture::{Head, Interleaved, Sink},
    source::PictureSource,
};

fn fault(error: TiffError, memory: u64) -> ImageFault {
    match error {
        TiffError::IoError(error) => error.into(),
        TiffError::LimitsExceeded => ImageFault::too_large(memory),
        TiffError::UnsupportedError(why) => ImageFault::unsupported(why),
        other => ImageFault::damaged(other),
    }
}

pub(crate) fn decode(source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let (memory, source_len) = (source.memory, source.len);
    let mut limits = Limits::default();
    let bytes = usize::try_from(memory).unwrap_or(usize::MAX);
    limits.decoding_buffer_size = bytes;
    limits.intermediate_buffer_size = bytes;
    // Blender embeds colour profiles: a few megabytes at most.
    limits.ifd_value_size = 16 << 20;
    let to_fault = |error| fault(error, memory);
    let mut decoder = Decoder::new(source.reader).map_err(to_fault)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(to_fault)?;
    let (channels, bits) = match decoder.colortype().map_err(to_fault)? {
        ColorType::Gray(bits) => ("Y", bits),
        ColorType::GrayA(bits) => ("YA", bits),
        ColorType::RGB(bits) => ("RGB", bits),
        ColorType::RGBA(bits) => ("RGBA", bits),
        other => return Err(ImageFault::unsupported(format!("a TIFF with pixels of the kind {other:?}"))),
    };
    let depth = match bits {
        8 => ColorDepth::Eight,
        16 => ColorDepth::Sixteen,
        32 => ColorDepth::ThirtyTwo,
        other => return Err(ImageFault::unsupported(format!("a TIFF with {other} bits a channel"))),
    };
    if !sink.begin(Head::simple(FileFormat::Tiff, (width, height), depth, channels))? {
        return Ok(());
    }
    if decoder.get_chunk_type() != ChunkType::Strip {
        return Err(ImageFault::unsupported("a TIFF in tiles"));
    }
    if decoder.image_buffer_layout().map_err(to_fault)?.planes != 1 {
        return Err(ImageFault::unsupported("a TIFF with its channels apart"));
    }
    every_tag_is_there(&mut decoder, source_len, memory)?;
    let mut rows = Interleaved::new(channels.len());
    let (width, height) = (width as usize, height as usize);
    let stride = width * channels.len();
    let mut y = 0;
    for strip in 0..decoder.strip_count().map_err(to_fault)? {
        let pixels = decoder.read_chunk(strip).map_err(to_fault)?;
        let count = match &pixels {
            DecodingResult::U8(v) => v.len(),
            DecodingResult::U16(v) => v.len(),
            DecodingResult::F32(v) => v.len(),
            _ => return Err(ImageFault::unsupported("a TIFF with samples of another kind")),
        };
        let lines = (count / stride.max(1)).min(height - y);
        for line in 0..lines {
            let at = line * stride;
            match &pixels {
                DecodingResult::U8(v) => rows.row(sink, y, width, |i| f32::from(v[at + i])),
                DecodingResult::U16(v) => rows.row(sink, y, width, |i| f32::from(v[at + i])),
                DecodingResult::F32(v) => rows.row(sink, y, width, |i| v[at + i]),
                _ => {}
            }
            y += 1;
        }
    }
    if y < height {
        return Err(ImageFault::Truncated("rows of pixels are missing".to_owned()));
    }
    Ok(())
}

/// Values of tags that no pixel needs may lie at the very end of the file; so may a strip whose last bytes a
/// decoder does not miss.
fn every_tag_is_there<R: Read + Seek>(
    decoder: &mut Decoder<R>,
    len: u64,
    memory: u64,
) -> Result<(), ImageFault> {
    for tag in decoder.tag_iter() {
        tag.map_err(|error| fault(error, memory))?;
    }
    let offsets = decoder.get_tag_u64_vec(Tag::StripOffsets).map_err(|error| fault(error, memory))?;
    let sizes = decoder.get_tag_u64_vec(Tag::StripByteCounts).map_err(|error| fault(error, memory))?;
    let whole = |(offset, size): (&u64, &u64)| offset.checked_add(*size).is_some_and(|end| end <= len);
    if offsets.len() != sizes.len() || !offsets.iter().zip(&sizes).all(whole) {
        return Err(ImageFault::Truncated("rows of pixels are missing".to_owned()));
    }
    Ok(())
}
