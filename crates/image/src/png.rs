//! PNG, row by row, with every checksum.

use kiln_types::{ColorDepth, FileFormat};
use png::{BitDepth, ColorType, DecodeOptions, Decoder, DecodingError, Limits, Transformations};

use crate::{
    fault::ImageFault,
    picture::{Head, Interleaved, Sink},
    source::PictureSource,
};

pub(crate) const END: [u8; 12] = *b"\0\0\0\0IEND\xae\x42\x60\x82";

fn fault(error: DecodingError, memory: u64) -> ImageFault {
    match error {
        DecodingError::IoError(error) => error.into(),
        DecodingError::LimitsExceeded => ImageFault::too_large(memory),
        other => ImageFault::damaged(other),
    }
}

pub(crate) fn decode(mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let tail = source.tail::<12>()?;
    source.rewind()?;
    let memory = source.memory;
    let mut options = DecodeOptions::default();
    options.set_ignore_adler32(false);
    options.set_ignore_crc(false);
    options.set_skip_ancillary_crc_failures(false);
    let mut decoder = Decoder::new_with_options(source.reader, options);
    decoder.set_limits(Limits { bytes: usize::try_from(memory).unwrap_or(usize::MAX) });
    decoder.set_transformations(Transformations::EXPAND);

    let info = decoder.read_header_info().map_err(|error| fault(error, memory))?;
    let (width, height) = info.size();
    if info.interlaced {
        return Err(ImageFault::unsupported("an interlaced PNG"));
    }
    let depth = if info.bit_depth == BitDepth::Sixteen { ColorDepth::Sixteen } else { ColorDepth::Eight };
    let early = match info.color_type {
        ColorType::Grayscale => "Y",
        ColorType::GrayscaleAlpha => "YA",
        ColorType::Rgb | ColorType::Indexed => "RGB",
        ColorType::Rgba => "RGBA",
    };
    if !sink.begin(Head::simple(FileFormat::Png, (width, height), depth, early))? {
        return Ok(());
    }
    if tail != END {
        return Err(ImageFault::Truncated("the end mark of a PNG is missing".to_owned()));
    }
    let mut reader = decoder.read_info().map_err(|error| fault(error, memory))?;
    // A palette with transparency expands to more channels than the header named.
    let channels = reader.output_color_type().0.samples();
    if channels != early.len() {
        return Err(ImageFault::unsupported("a PNG with a transparent colour"));
    }
    let mut rows = Interleaved::new(channels);
    let width = width as usize;
    for y in 0..height as usize {
        let row = reader.next_row().map_err(|error| fault(error, memory))?;
        let row = row.ok_or_else(|| ImageFault::Truncated("rows of pixels are missing".to_owned()))?;
        let data = row.data();
        match depth {
            ColorDepth::Sixteen => {
                rows.row(sink, y, width, |i| f32::from(u16::from_be_bytes([data[2 * i], data[2 * i + 1]])))
            }
            _ => rows.row(sink, y, width, |i| f32::from(data[i])),
        }
    }
    reader.finish().map_err(|error| fault(error, memory))
}
