//! Radiance HDR.

use std::io::{BufRead, Read};

use kiln_types::{ColorDepth, FileFormat};

use crate::{
    fault::ImageFault,
    picture::{Head, Interleaved, Sink},
    source::PictureSource,
};

const MAX_HEADER_LINES: usize = 256;

fn line(source: &mut PictureSource<'_>) -> Result<String, ImageFault> {
    let mut bytes = Vec::new();
    source.reader.by_ref().take(4096).read_until(b'\n', &mut bytes)?;
    if bytes.pop() != Some(b'\n') {
        return Err(ImageFault::Truncated("its header has no end".to_owned()));
    }
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Height and width from `-Y 41 +X 67`.
fn size(line: &str) -> Option<(u32, u32)> {
    let mut words = line.split(' ');
    let (down, height, right, width) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (width, height) = (width.parse().ok()?, height.parse().ok()?);
    (down == "-Y" && right == "+X" && words.next().is_none() && width > 0 && height > 0)
        .then_some((width, height))
}

/// One row: four bytes a pixel, in runs a channel, or plain.
fn read_row(reader: &mut impl Read, width: usize, row: &mut [u8]) -> Result<(), ImageFault> {
    let mut first = [0; 4];
    reader.read_exact(&mut first)?;
    let runs = (8..=0x7fff).contains(&width)
        && first[..2] == [2, 2]
        && usize::from(u16::from_be_bytes([first[2], first[3]])) == width;
    if !runs {
        if first[..3] == [1, 1, 1] {
            return Err(ImageFault::unsupported("an HDR with runs of the old kind"));
        }
        row[..4].copy_from_slice(&first);
        return Ok(reader.read_exact(&mut row[4..])?);
    }
    let mut run = [0; 128];
    for channel in 0..4 {
        let mut x = 0;
        while x < width {
            let mut count = [0];
            reader.read_exact(&mut count)?;
            let repeats = count[0] > 128;
            let length = usize::from(if repeats { count[0] - 128 } else { count[0] });
            if length == 0 || x + length > width {
                return Err(ImageFault::damaged("a run does not fit its row"));
            }
            if repeats {
                let mut value = [0];
                reader.read_exact(&mut value)?;
                run[..length].fill(value[0]);
            } else {
                reader.read_exact(&mut run[..length])?;
            }
            for (i, value) in run[..length].iter().enumerate() {
                row[(x + i) * 4 + channel] = *value;
            }
            x += length;
        }
    }
    Ok(())
}

pub(crate) fn decode(mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let mut lines = 0;
    while !line(&mut source)?.is_empty() {
        lines += 1;
        if lines > MAX_HEADER_LINES {
            return Err(ImageFault::damaged("its header has no end"));
        }
    }
    let (width, height) =
        size(&line(&mut source)?).ok_or_else(|| ImageFault::damaged("its header has no size"))?;
    if !sink.begin(Head::simple(FileFormat::Hdr, (width, height), ColorDepth::ThirtyTwo, "RGB"))? {
        return Ok(());
    }
    let mut row = source.buffer(u64::from(width) * 4)?;
    let mut rows = Interleaved::new(3);
    for y in 0..height as usize {
        read_row(&mut source.reader, width as usize, &mut row)?;
        rows.row(sink, y, width as usize, |i| {
            let pixel = i / 3 * 4;
            let exponent = row[pixel + 3];
            if exponent == 0 {
                return 0.0;
            }
            f32::from(row[pixel + i % 3]) * 2f32.powi(i32::from(exponent) - 136)
        });
    }
    if source.position()? != source.len {
        return Err(ImageFault::damaged("it goes on after its end"));
    }
    Ok(())
}
