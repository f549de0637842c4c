//! Targa: grey, 24 and 32 bits, raw or in runs.

use std::io::{Read, Seek, SeekFrom};

use kiln_types::{ColorDepth, FileFormat};

use crate::{
    fault::ImageFault,
    picture::{Head, Interleaved, Sink},
    source::PictureSource,
};

const FOOTER: &[u8] = b"TRUEVISION-XFILE.\0";

pub(crate) struct Header {
    id_length: u8,
    runs: bool,
    bytes: usize,
    width: u16,
    height: u16,
    from_top: bool,
}

impl Header {
    /// Targa has no magic: this is `None` unless every field is one that Blender writes.
    pub fn parse(head: &[u8]) -> Option<Self> {
        let head: &[u8; 18] = head.get(..18)?.try_into().ok()?;
        let (kind, bits, descriptor) = (head[2], head[16], head[17]);
        let (gray, runs) = match kind {
            2 => (false, false),
            3 => (true, false),
            10 => (false, true),
            11 => (true, true),
            _ => return None,
        };
        let bits_fit = if gray { bits == 8 } else { bits == 24 || bits == 32 };
        let width = u16::from_le_bytes([head[12], head[13]]);
        let height = u16::from_le_bytes([head[14], head[15]]);
        // No colour map; not mirrored, not interleaved.
        let plain = head[1] == 0 && head[3..8].iter().all(|byte| *byte == 0) && descriptor & 0xd0 == 0;
        (bits_fit && plain && width > 0 && height > 0).then_some(Self {
            id_length: head[0],
            runs,
            bytes: usize::from(bits / 8),
            width,
            height,
            from_top: descriptor & 0x20 != 0,
        })
    }
}

/// Pixels one after another, also where a run crosses the end of a row.
struct Pixels {
    runs: bool,
    bytes: usize,
    /// Pixels left in the packet, and whether they repeat `pixel`.
    left: u8,
    repeats: bool,
    pixel: [u8; 4],
}

impl Pixels {
    fn read_row(&mut self, reader: &mut impl Read, row: &mut [u8]) -> Result<(), ImageFault> {
        if !self.runs {
            return Ok(reader.read_exact(row)?);
        }
        let bytes = self.bytes;
        for place in row.chunks_exact_mut(bytes) {
            if self.left == 0 {
                let mut packet = [0];
                reader.read_exact(&mut packet)?;
                self.left = (packet[0] & 0x7f) + 1;
                self.repeats = packet[0] & 0x80 != 0;
                if self.repeats {
                    reader.read_exact(&mut self.pixel[..bytes])?;
                }
            }
            if self.repeats {
                place.copy_from_slice(&self.pixel[..bytes]);
            } else {
                reader.read_exact(place)?;
            }
            self.left -= 1;
        }
        Ok(())
    }
}

pub(crate) fn decode(mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let header = Header::parse(&source.array::<18>()?).ok_or(ImageFault::NotAnImage)?;
    let (channels, format) = (
        match header.bytes {
            1 => "Y",
            3 => "RGB",
            _ => "RGBA",
        },
        if header.runs { FileFormat::Targa } else { FileFormat::TargaRaw },
    );
    let size = (u32::from(header.width), u32::from(header.height));
    if !sink.begin(Head::simple(format, size, ColorDepth::Eight, channels))? {
        return Ok(());
    }
    source.reader.seek(SeekFrom::Current(i64::from(header.id_length)))?;
    let (width, height, bytes) = (usize::from(header.width), usize::from(header.height), header.bytes);
    let mut row = vec![0; width * bytes];
    let mut pixels = Pixels { runs: header.runs, bytes, left: 0, repeats: false, pixel: [0; 4] };
    let mut rows = Interleaved::new(channels.len());
    for line in 0..height {
        pixels.read_row(&mut source.reader, &mut row)?;
        let y = if header.from_top { line } else { height - 1 - line };
        // Blue comes first in the file.
        let byte = |channel: usize| if bytes >= 3 && channel < 3 { 2 - channel } else { channel };
        rows.row(sink, y, width, |i| f32::from(row[i / bytes * bytes + byte(i % bytes)]));
    }
    if pixels.left > 0 {
        return Err(ImageFault::damaged("its last run goes on after the picture"));
    }
    // What may follow is the second version's areas, which end in a mark.
    if source.position()? != source.len && source.tail::<18>()? != FOOTER {
        return Err(ImageFault::Truncated("the end mark of a Targa is missing".to_owned()));
    }
    Ok(())
}
