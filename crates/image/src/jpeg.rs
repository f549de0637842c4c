//! JPEG. Its data have no checksum, and its decoder fills what is missing: a cut file is known by its end mark,
//! which is then not there. A file that lost bytes in its middle and kept the mark passes.

use kiln_types::{ColorDepth, FileFormat};
use zune_core::{colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use crate::{
    fault::ImageFault,
    picture::{Head, Interleaved, Sink},
    source::PictureSource,
};

fn fault(error: &DecodeErrors) -> ImageFault {
    match error {
        DecodeErrors::ExhaustedData | DecodeErrors::IoErrors(_) => {
            ImageFault::Truncated("it ends before the picture does".to_owned())
        }
        DecodeErrors::FormatStatic("Premature end of buffer") => {
            ImageFault::Truncated("rows of pixels are missing".to_owned())
        }
        other => ImageFault::damaged(format!("{other:?}")),
    }
}

pub(crate) fn decode(mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let tail = source.tail::<2>()?;
    source.rewind()?;
    let memory = source.memory;
    let options = DecoderOptions::new_safe()
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(source.reader, options);
    decoder.decode_headers().map_err(|error| fault(&error))?;
    let info = decoder.info().ok_or_else(|| ImageFault::damaged("it has no header"))?;
    let channels = if info.components == 1 { "Y" } else { "RGB" };
    let out = if info.components == 1 { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(out));
    let (width, height) = (info.width, info.height);
    let head =
        Head::simple(FileFormat::Jpeg, (u32::from(width), u32::from(height)), ColorDepth::Eight, channels);
    if !sink.begin(head)? {
        return Ok(());
    }
    if tail != [0xff, 0xd9] {
        return Err(ImageFault::Truncated("the end mark of a JPEG is missing".to_owned()));
    }
    // Progressive pictures keep their coefficients too: two bytes a sample beside the pixels.
    let samples = usize::from(width) * usize::from(height) * channels.len();
    if 4 * samples as u64 > memory {
        return Err(ImageFault::too_large(memory));
    }
    let pixels = decoder.decode().map_err(|error| fault(&error))?;
    if pixels.len() != samples {
        return Err(ImageFault::Truncated("rows of pixels are missing".to_owned()));
    }
    let mut rows = Interleaved::new(channels.len());
    let width = usize::from(width);
    for (y, row) in pixels.chunks_exact(width * channels.len()).enumerate() {
        rows.row(sink, y, width, |i| f32::from(row[i]));
    }
    Ok(())
}
