//! WebP, lossy and lossless.

use image_webp::{DecodingError, WebPDecoder};
use kiln_types::{ColorDepth, FileFormat};

use crate::{
    fault::ImageFault,
    picture::{Head, Interleaved, Sink},
    source::PictureSource,
};

fn fault(error: DecodingError, memory: u64) -> ImageFault {
    match error {
        DecodingError::IoError(error) => error.into(),
        DecodingError::MemoryLimitExceeded => ImageFault::too_large(memory),
        other => ImageFault::damaged(other),
    }
}

pub(crate) fn decode(mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let memory = source.memory;
    let declared = u64::from(u32::from_le_bytes(source.at::<4>(4)?)) + 8;
    source.rewind()?;
    if declared > source.len {
        return Err(ImageFault::Truncated(format!("it holds {} of {declared} bytes", source.len)));
    }
    // An odd length is padded by a byte.
    if source.len > declared + 1 {
        return Err(ImageFault::damaged("it goes on after its end"));
    }
    let mut decoder = WebPDecoder::new(&mut source.reader).map_err(|error| fault(error, memory))?;
    let size = decoder.dimensions();
    let channels = if decoder.has_alpha() { "RGBA" } else { "RGB" };
    if !sink.begin(Head::simple(FileFormat::Webp, size, ColorDepth::Eight, channels))? {
        return Ok(());
    }
    if decoder.is_animated() {
        return Err(ImageFault::unsupported("an animated WebP"));
    }
    decoder.set_memory_limit(usize::try_from(memory).unwrap_or(usize::MAX));
    let samples = u64::from(size.0) * u64::from(size.1) * channels.len() as u64;
    let mut pixels = match usize::try_from(samples) {
        // The decoder holds planes of its own beside the result.
        Ok(count) if samples.saturating_mul(3) <= memory => vec![0; count],
        _ => return Err(ImageFault::too_large(memory)),
    };
    decoder.read_image(&mut pixels).map_err(|error| fault(error, memory))?;
    let mut rows = Interleaved::new(channels.len());
    let width = size.0 as usize;
    for (y, row) in pixels.chunks_exact(width * channels.len()).enumerate() {
        rows.row(sink, y, width, |i| f32::from(row[i]));
    }
    Ok(())
}
