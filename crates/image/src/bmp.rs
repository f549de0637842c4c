//! BMP as Blender writes it: 24 or 32 bits, or 8 with a palette; not compressed.

use std::io::{Read, Seek, SeekFrom};

use kiln_types::{ColorDepth, FileFormat};

use crate::{
    fault::ImageFault,
    picture::{Head, Interleaved, Sink},
    source::PictureSource,
};

pub(crate) fn decode(mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let head = source.array::<54>()?;
    let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let offset = u64::from(u32_at(10));
    let info = u64::from(u32_at(14));
    let (width, signed_height) = (u32_at(18), u32_at(22).cast_signed());
    let height = signed_height.unsigned_abs();
    let bits = u16::from_le_bytes([head[28], head[29]]);
    if info < 40 || width == 0 || height == 0 || width.cast_signed() < 0 {
        return Err(ImageFault::damaged("its header makes no sense"));
    }
    let (channels, bytes) = match bits {
        8 | 24 => ("RGB", usize::from(bits / 8)),
        32 => ("RGBA", 4),
        other => return Err(ImageFault::unsupported(format!("a BMP with {other} bits a pixel"))),
    };
    if u32_at(30) != 0 {
        return Err(ImageFault::unsupported("a compressed BMP"));
    }
    if !sink.begin(Head::simple(FileFormat::Bmp, (width, height), ColorDepth::Eight, channels))? {
        return Ok(());
    }
    let stride = (u64::from(width) * u64::from(bits)).div_ceil(32) * 4;
    let end = offset.checked_add(stride * u64::from(height));
    match end.map(|end| end.cmp(&source.len)) {
        Some(std::cmp::Ordering::Equal) => {}
        Some(std::cmp::Ordering::Less) => return Err(ImageFault::damaged("it goes on after its end")),
        _ => return Err(ImageFault::Truncated("rows of pixels are missing".to_owned())),
    }
    let mut palette = Vec::new();
    if bits == 8 {
        let start = 14 + info;
        let size = offset.checked_sub(start).filter(|size| *size <= 1024);
        let size = size.ok_or_else(|| ImageFault::damaged("its palette has no place"))?;
        source.reader.seek(SeekFrom::Start(start))?;
        palette = source.buffer(size)?;
        source.reader.read_exact(&mut palette)?;
    }
    source.reader.seek(SeekFrom::Start(offset))?;
    let mut row = source.buffer(stride)?;
    let mut rows = Interleaved::new(channels.len());
    // Blue comes first in the file.
    let byte = |channel: usize| if channel < 3 { 2 - channel } else { 3 };
    for line in 0..height as usize {
        source.reader.read_exact(&mut row)?;
        let y = if signed_height < 0 { line } else { height as usize - 1 - line };
        if bits == 8 {
            // Old Blenders leave the last grey out of the palette: a missing entry is its own number.
            let look =
                |index: u8, channel| *palette.get(usize::from(index) * 4 + byte(channel)).unwrap_or(&index);
            rows.row(sink, y, width as usize, |i| f32::from(look(row[i / 3], i % 3)));
        } else {
            rows.row(sink, y, width as usize, |i| f32::from(row[i / bytes * bytes + byte(i % bytes)]));
        }
    }
    Ok(())
}
