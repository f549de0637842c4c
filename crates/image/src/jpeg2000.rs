//! JPEG 2000, bare or in its container. Its data have no checksum: a file that lost bytes within and kept its parts may
//! pass.

use std::io::{Read, Seek, SeekFrom};

use hayro_jpeg2000::{DecodeSettings, DecoderContext, Image};
use kiln_types::{ColorDepth, FileFormat};

use crate::{
    codestream::Codestream,
    fault::ImageFault,
    picture::{Head, Interleaved, Sink},
    source::PictureSource,
};

/// The most boxes of a container that are looked at.
const MAX_BOXES: usize = 256;

/// A box of the container: what it is, and where its contents lie. They may end beyond the file.
struct Part {
    kind: [u8; 4],
    start: u64,
    end: u64,
}

impl Part {
    /// Reads the head of the box at this offset.
    fn read(source: &mut PictureSource<'_>, at: u64) -> Result<Self, ImageFault> {
        let [a, b, c, d, kind @ ..] = source.at::<8>(at)?;
        let (head, length) = match u32::from_be_bytes([a, b, c, d]) {
            // To the end of the file.
            0 => (8, source.len - at),
            // Too long for these four bytes.
            1 => (16, u64::from_be_bytes(source.array()?)),
            length => (8, u64::from(length)),
        };
        match at.checked_add(length) {
            Some(end) if length >= head => Ok(Self { kind, start: at + head, end }),
            _ => Err(ImageFault::damaged("a part of its container has no length")),
        }
    }
}

/// Returns where the codestream lies, which may end beyond the file.
fn find(source: &mut PictureSource<'_>) -> Result<(FileFormat, u64, u64), ImageFault> {
    if source.array::<4>()? == *b"\xff\x4f\xff\x51" {
        return Ok((FileFormat::J2c, 0, source.len));
    }
    let mut at = 0;
    for _ in 0..MAX_BOXES {
        let part = Part::read(source, at)?;
        match &part.kind {
            b"jp2c" => return Ok((FileFormat::Jp2, part.start, part.end)),
            b"jp2h" => has_no_palette(source, &part)?,
            _ => {}
        }
        at = part.end;
    }
    Err(ImageFault::damaged("its container has no codestream"))
}

/// A palette would give the samples another meaning. Blender writes none.
fn has_no_palette(source: &mut PictureSource<'_>, header: &Part) -> Result<(), ImageFault> {
    let mut at = header.start;
    for _ in 0..MAX_BOXES {
        if at >= header.end {
            return Ok(());
        }
        let part = Part::read(source, at)?;
        if matches!(&part.kind, b"pclr" | b"cmap") {
            return Err(ImageFault::unsupported("a JPEG 2000 with a palette"));
        }
        at = part.end;
    }
    Err(ImageFault::damaged("the header of its container has no end"))
}

/// Checks that every box behind the codestream ends in the file, the last one with it.
fn ends_with_a_box(source: &mut PictureSource<'_>, codestream_end: u64) -> Result<(), ImageFault> {
    let mut at = codestream_end;
    for _ in 0..MAX_BOXES {
        match at.cmp(&source.len) {
            std::cmp::Ordering::Equal => return Ok(()),
            std::cmp::Ordering::Greater => break,
            std::cmp::Ordering::Less => at = Part::read(source, at)?.end,
        }
    }
    Err(ImageFault::Truncated("a part of its container is missing".to_owned()))
}

/// Checks that the file ends where its parts say, without decoding.
pub(crate) fn is_whole(source: &mut PictureSource<'_>) -> Result<(), ImageFault> {
    source.rewind()?;
    let (_, start, end) = find(source)?;
    Codestream::read(source, start, end)?.is_whole(source)?;
    ends_with_a_box(source, end)
}

pub(crate) fn decode(mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let (format, start, end) = find(&mut source)?;
    let stream = Codestream::read(&mut source, start, end)?;
    let names = ["Y", "YA", "RGB", "RGBA"][stream.channels - 1];
    let depth = match stream.bits {
        8 => ColorDepth::Eight,
        12 => ColorDepth::Twelve,
        16 => ColorDepth::Sixteen,
        other => return Err(ImageFault::unsupported(format!("a JPEG 2000 with {other} bits a channel"))),
    };
    if !sink.begin(Head::simple(format, (stream.width, stream.height), depth, names))? {
        return Ok(());
    }
    stream.is_whole(&mut source)?;
    ends_with_a_box(&mut source, end)?;
    if stream.memory() > source.memory {
        return Err(ImageFault::too_large(source.memory));
    }
    // The bare codestream: the container may name a colour space into which the decoder would convert the samples, and
    // where Blender names one, it has not converted them itself.
    let mut bytes = source.buffer(end - start)?;
    source.reader.seek(SeekFrom::Start(start))?;
    source.reader.read_exact(&mut bytes)?;
    let settings = DecodeSettings { strict: true, ..DecodeSettings::default() };
    let image = Image::new(&bytes, &settings).map_err(ImageFault::damaged)?;
    let mut context = DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(ImageFault::damaged)?;
    let planes = decoded.components();
    let (width, pixels) = (stream.width as usize, stream.width as usize * stream.height as usize);
    if planes.len() != stream.channels || planes.iter().any(|plane| plane.samples().len() != pixels) {
        return Err(ImageFault::damaged("its channels have several sizes"));
    }
    let most = ((1_u32 << stream.bits) - 1) as f32;
    let mut rows = Interleaved::new(stream.channels);
    for y in 0..stream.height as usize {
        let row = y * width;
        rows.row(sink, y, width, |i| {
            let sample = planes[i % stream.channels].samples()[row + i / stream.channels];
            sample.round_ties_even().clamp(0.0, most)
        });
    }
    Ok(())
}
