//! The parts of a JPEG 2000 codestream (ISO 15444-1), walked without decoding them: the decoder takes less than the whole
//! for a picture, and what its tables may cost is in the header. Only what Blender writes is let through: one tile, and
//! no setting that changes within the file.

use std::io::{Seek, SeekFrom};

use crate::{fault::ImageFault, source::PictureSource};

const SOC: u16 = 0xff4f;
const SIZ: u16 = 0xff51;
const COD: u16 = 0xff52;
const TLM: u16 = 0xff55;
const PLT: u16 = 0xff58;
const QCD: u16 = 0xff5c;
const QCC: u16 = 0xff5d;
const POC: u16 = 0xff5f;
const CRG: u16 = 0xff63;
const COM: u16 = 0xff64;
const SOT: u16 = 0xff90;
const SOD: u16 = 0xff93;
const EOC: u16 = 0xffd9;

/// The most bytes in which the order of packets may change: Blender's cinema preset for 4K has two changes.
const MAX_ORDERS: u64 = 256;

/// The main header.
pub(crate) struct Codestream {
    pub width: u32,
    pub height: u32,
    pub channels: usize,
    /// Of every channel.
    pub bits: u8,
    coding: Coding,
    /// Behind the main header.
    tile_parts: u64,
    end: u64,
}

/// The coding of the one tile.
struct Coding {
    layers: u64,
    /// Exponents of a code-block's width and height.
    block: (u32, u32),
    /// Exponents of a precinct's, for each resolution from the smallest up.
    precincts: Vec<(u32, u32)>,
}

/// Reads big-endian numbers up to an end.
struct Reader<'a, 'b> {
    source: &'a mut PictureSource<'b>,
    end: u64,
}

impl Reader<'_, '_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], ImageFault> {
        // Within a container, what follows is not the codestream's.
        if self.source.position()? + N as u64 > self.end && self.end < self.source.len {
            return Err(ImageFault::damaged("a part of its codestream is missing"));
        }
        self.source.array()
    }

    fn u16(&mut self) -> Result<u16, ImageFault> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, ImageFault> {
        self.array().map(u32::from_be_bytes)
    }

    fn u8(&mut self) -> Result<u8, ImageFault> {
        self.array().map(|[byte]| byte)
    }

    /// Reads a marker that has to be this one.
    fn expect(&mut self, marker: u16) -> Result<(), ImageFault> {
        match self.u16()? {
            found if found == marker => Ok(()),
            found => {
                Err(ImageFault::damaged(format!("it has the marker {found:04x} in place of {marker:04x}")))
            }
        }
    }

    /// Reads the length of a segment, and returns where it ends.
    fn segment(&mut self) -> Result<u64, ImageFault> {
        let start = self.source.position()?;
        match self.u16()? {
            0 | 1 => Err(ImageFault::damaged("a segment of its header has no length")),
            length => Ok(start + u64::from(length)),
        }
    }

    fn seek(&mut self, to: u64) -> Result<(), ImageFault> {
        self.source.reader.seek(SeekFrom::Start(to))?;
        Ok(())
    }
}

fn unsupported<T>(what: &str) -> Result<T, ImageFault> {
    Err(ImageFault::unsupported(format!("a JPEG 2000 with {what}")))
}

impl Codestream {
    /// Reads the main header of the codestream that lies there; its end may lie beyond that of the file.
    pub fn read(source: &mut PictureSource<'_>, start: u64, end: u64) -> Result<Self, ImageFault> {
        let mut reader = Reader { source, end };
        reader.seek(start)?;
        reader.expect(SOC)?;
        reader.expect(SIZ)?;
        let (width, height, channels, bits) = size(&mut reader)?;
        let mut coding = None;
        let mut orders = 0;
        loop {
            let at = reader.source.position()?;
            let marker = reader.u16()?;
            if marker == SOT {
                let Some(coding) = coding else {
                    return Err(ImageFault::damaged("its header does not say how it is coded"));
                };
                return Ok(Self { width, height, channels, bits, coding, tile_parts: at, end });
            }
            let segment_end = reader.segment()?;
            match marker {
                COD => coding = Some(Coding::read(&mut reader)?),
                POC => orders += segment_end - at,
                QCD | QCC | COM | TLM | CRG => {}
                other => return unsupported(&format!("the marker {other:04x}")),
            }
            if orders > MAX_ORDERS {
                return unsupported("many orders of its packets");
            }
            reader.seek(segment_end)?;
        }
    }

    /// Checks that every part of the tile is there, that the file's end follows, and nothing after it.
    pub fn is_whole(&self, source: &mut PictureSource<'_>) -> Result<(), ImageFault> {
        if self.end > source.len {
            return Err(ImageFault::Truncated("a part of its codestream is missing".to_owned()));
        }
        let mut reader = Reader { source, end: self.end };
        reader.seek(self.tile_parts)?;
        let (mut orders, mut data) = (0, 0);
        loop {
            let start = reader.source.position()?;
            match reader.u16()? {
                SOT => {}
                EOC if start + 2 == self.end => {
                    // The decoder takes what is missing for zeros. A packet has a byte at least.
                    let resolutions = self.coding.precincts.len() as u64;
                    if data < self.coding.layers * resolutions * self.channels as u64 {
                        return Err(ImageFault::damaged("packets of its tile are missing"));
                    }
                    return Ok(());
                }
                EOC => return Err(ImageFault::damaged("it goes on after its end")),
                found => {
                    return Err(ImageFault::damaged(format!(
                        "it has the marker {found:04x} between its parts"
                    )));
                }
            }
            let header_end = reader.segment()?;
            let (tile, length) = (reader.u16()?, reader.u32()?);
            // The last part may leave its length open.
            let end = if length == 0 { self.end.saturating_sub(2) } else { start + u64::from(length) };
            if tile != 0 {
                return Err(ImageFault::damaged("a part belongs to no tile"));
            }
            if end > reader.source.len {
                return Err(ImageFault::Truncated("a part of its tile is missing".to_owned()));
            }
            reader.seek(header_end)?;
            loop {
                let at = reader.source.position()?;
                match reader.u16()? {
                    SOD => break,
                    POC => {
                        let segment_end = reader.segment()?;
                        orders += segment_end - at;
                        reader.seek(segment_end)?;
                    }
                    COM | PLT => {
                        let segment_end = reader.segment()?;
                        reader.seek(segment_end)?;
                    }
                    other => return unsupported(&format!("the marker {other:04x} in its tile")),
                }
                if orders > MAX_ORDERS {
                    return unsupported("many orders of its packets");
                }
            }
            match end.checked_sub(reader.source.position()?) {
                Some(length) => data += length,
                None => return Err(ImageFault::damaged("a part is shorter than its header")),
            }
            reader.seek(end)?;
        }
    }

    /// At least the bytes that decoding takes.
    pub fn memory(&self) -> u64 {
        let (width, height, channels) = (u64::from(self.width), u64::from(self.height), self.channels as u64);
        let pixels = width.saturating_mul(height);
        // Every channel, one of them in pieces, and twice while it is put together; all as floats.
        let samples = pixels.saturating_mul(4 * (channels + 3));
        let largest = self.coding.precincts.len() - 1;
        let tables = self.coding.precincts.iter().enumerate().fold(0_u64, |sum, (resolution, precinct)| {
            let halved = |length: u64| length.div_ceil(1_u64 << (largest - resolution).min(63));
            let (width, height) = (halved(width), halved(height));
            // But for the smallest, a resolution has three bands of half its size.
            let (bands, half) = if resolution == 0 { (1, 0) } else { (3, 1) };
            let count = |length: u64, exponent: u32| (length >> exponent.min(63)) + 2;
            let precincts = count(width, precinct.0).saturating_mul(count(height, precinct.1));
            let (across, down) = (
                self.coding.block.0.min(precinct.0.saturating_sub(half)),
                self.coding.block.1.min(precinct.1.saturating_sub(half)),
            );
            let blocks = count(width >> half, across).saturating_mul(count(height >> half, down));
            let bytes = blocks
                .max(precincts)
                .saturating_mul(256 + 96 * self.coding.layers)
                .saturating_add(precincts.saturating_mul(256));
            sum.saturating_add(bytes.saturating_mul(bands))
        });
        let file = self.end - self.tile_parts;
        samples.saturating_add(tables.saturating_mul(channels)).saturating_add(file)
    }
}

/// Reads width, height, channels and bits a sample.
fn size(reader: &mut Reader<'_, '_>) -> Result<(u32, u32, usize, u8), ImageFault> {
    let end = reader.segment()?;
    let _profile = reader.u16()?;
    let (width, height) = (reader.u32()?, reader.u32()?);
    let (left, top) = (reader.u32()?, reader.u32()?);
    let (tile_width, tile_height) = (reader.u32()?, reader.u32()?);
    let (tile_left, tile_top) = (reader.u32()?, reader.u32()?);
    let channels = usize::from(reader.u16()?);
    if width == 0 || height == 0 || channels == 0 {
        return Err(ImageFault::damaged("its header makes no sense"));
    }
    if (left, top, tile_left, tile_top) != (0, 0, 0, 0) {
        return unsupported("a picture that is moved on its canvas");
    }
    if tile_width < width || tile_height < height {
        return unsupported("tiles");
    }
    if channels > 4 {
        return unsupported(&format!("{channels} channels"));
    }
    let mut bits = None;
    for _ in 0..channels {
        let [depth, across, down] = reader.array()?;
        if (across, down) != (1, 1) {
            return unsupported("channels of several sizes");
        }
        // The highest bit says that samples have a sign.
        if depth & 0x80 != 0 || bits.is_some_and(|bits| bits != depth + 1) {
            return unsupported("channels of several kinds");
        }
        bits = Some(depth + 1);
    }
    if reader.source.position()? != end {
        return Err(ImageFault::damaged("its header makes no sense"));
    }
    Ok((width, height, channels, bits.unwrap_or(0)))
}

impl Coding {
    fn read(reader: &mut Reader<'_, '_>) -> Result<Self, ImageFault> {
        let style = reader.u8()?;
        let _order = reader.u8()?;
        let layers = u64::from(reader.u16()?);
        let _mixes_channels = reader.u8()?;
        let levels = reader.u8()?;
        let block = (u32::from(reader.u8()?) + 2, u32::from(reader.u8()?) + 2);
        let block_style = reader.u8()?;
        let _transform = reader.u8()?;
        if layers == 0 || levels > 32 || block.0 > 10 || block.1 > 10 || block.0 + block.1 > 12 {
            return Err(ImageFault::damaged("its header makes no sense"));
        }
        if layers > 32 || block_style != 0 {
            return unsupported("blocks coded in another way");
        }
        let mut precincts = vec![(15, 15); usize::from(levels) + 1];
        if style & 1 != 0 {
            for precinct in &mut precincts {
                let exponents = u32::from(reader.u8()?);
                *precinct = (exponents & 15, exponents >> 4);
            }
        }
        Ok(Self { layers, block, precincts })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use crate::{ImageFault, verify};
    use kiln_types::FileFormat;

    /// A codestream of one part with this number of empty packets: the size, that of its tiles, and the contents of COD.
    fn codestream(size: (u32, u32), tile: (u32, u32), cod: &[u8], packets: usize) -> Vec<u8> {
        let mut bytes = b"\xff\x4f\xff\x51\x00\x2f\x00\x00".to_vec();
        for number in [size.0, size.1, 0, 0, tile.0, tile.1, 0, 0] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(b"\x00\x03\x07\x01\x01\x07\x01\x01\x07\x01\x01\xff\x52");
        bytes.extend((cod.len() as u16 + 2).to_be_bytes());
        bytes.extend(cod);
        bytes.extend(b"\xff\x5c\x00\x13@@HHPHHPHHPHHPHHP");
        bytes.extend(b"\xff\x90\x00\x0a\x00\x00");
        bytes.extend((14 + packets as u32).to_be_bytes());
        bytes.extend(b"\x00\x01\xff\x93");
        bytes.resize(bytes.len() + packets, 0);
        bytes.extend(b"\xff\xd9");
        bytes
    }

    fn fault(bytes: &[u8], size: (u32, u32)) -> ImageFault {
        let expected = verify::Expectation::new(FileFormat::J2c, size.0, size.1);
        verify::verify(Cursor::new(bytes), &expected).unwrap_err()
    }

    #[test]
    fn what_decoding_costs_is_known_before_it_begins() {
        let size = (4096, 4096);
        // Style, order, layers, channels mixed, levels, width and height of a block, its style, transform.
        let plain = [0, 0, 0, 1, 1, 5, 4, 4, 0, 1];
        let whole = codestream(size, size, &plain, 17);
        assert!(fault(&whole, size).to_string().contains("packets of its tile are missing"));
        let tiny_blocks = [0, 0, 0, 32, 1, 5, 0, 0, 0, 1];
        let tiny_precincts = [1, 0, 0, 1, 1, 5, 4, 4, 0, 1, 0, 0, 0, 0, 0, 0];
        for cod in [&tiny_blocks[..], &tiny_precincts] {
            let bomb = codestream(size, size, cod, 1000);
            assert!(matches!(fault(&bomb, size), ImageFault::TooLarge(_)), "{}", fault(&bomb, size));
        }
        let large = (60_000, 60_000);
        assert!(matches!(fault(&codestream(large, large, &plain, 18), large), ImageFault::TooLarge(_)));
        assert!(matches!(fault(&codestream(size, (1, 1), &plain, 18), size), ImageFault::Unsupported(_)));
        assert!(matches!(
            fault(&codestream(size, size, &[0, 0, 1, 0, 1, 5, 4, 4, 0, 1], 18), size),
            ImageFault::Unsupported(_)
        ));
        assert!(matches!(
            fault(&codestream(size, size, &[0, 0, 0, 1, 1, 33, 4, 4, 0, 1], 18), size),
            ImageFault::Damaged(_)
        ));
        for cut in 4..whole.len() {
            assert!(matches!(fault(&whole[..cut], size), ImageFault::Truncated(_)), "cut at {cut}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert!(matches!(fault(&longer, size), ImageFault::Damaged(_)));
    }
}
