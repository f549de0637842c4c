//! The common parts of DPX and Cineon: rows of packed samples, and a code for the light of a film negative.

use std::{
    io::{Read, Seek, SeekFrom},
    ops::RangeInclusive,
};

use kiln_types::ColorDepth;

use crate::{
    fault::ImageFault,
    picture::{Head, Interleaved, Sink},
    source::PictureSource,
};

/// A field that was left out has all bits set.
const UNDEFINED: u32 = u32::MAX;

/// Numbers of a header in the file's own byte order.
pub(crate) struct Fields<'a> {
    pub bytes: &'a [u8; 2048],
    pub big_endian: bool,
}

impl Fields<'_> {
    pub fn u8(&self, at: usize) -> u8 {
        self.bytes[at]
    }

    pub fn u16(&self, at: usize) -> u16 {
        let bytes = [self.bytes[at], self.bytes[at + 1]];
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    pub fn u32(&self, at: usize) -> u32 {
        let bytes = [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]];
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    /// `None` where the field is left out.
    pub fn defined(&self, at: usize) -> Option<u32> {
        Some(self.u32(at)).filter(|value| *value != UNDEFINED)
    }
}

/// The bits of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bits {
    Eight,
    Ten,
    Twelve,
    Sixteen,
}

impl Bits {
    pub fn new(bits: u8) -> Result<Self, ImageFault> {
        match bits {
            8 => Ok(Self::Eight),
            10 => Ok(Self::Ten),
            12 => Ok(Self::Twelve),
            16 => Ok(Self::Sixteen),
            other => Err(ImageFault::unsupported(format!("{other} bits a sample"))),
        }
    }

    fn count(self) -> u32 {
        match self {
            Self::Eight => 8,
            Self::Ten => 10,
            Self::Twelve => 12,
            Self::Sixteen => 16,
        }
    }

    fn max(self) -> f32 {
        ((1_u32 << self.count()) - 1) as f32
    }

    pub fn depth(self) -> ColorDepth {
        match self {
            Self::Eight => ColorDepth::Eight,
            Self::Ten => ColorDepth::Ten,
            Self::Twelve => ColorDepth::Twelve,
            Self::Sixteen => ColorDepth::Sixteen,
        }
    }

    /// The codes of a black picture whose light is coded as the density of a film negative: black is 95 of 1023 and white
    /// 685, 2.048 densities are the whole range, and the negative has a gamma of 0.6. Eight bits are dithered before they are
    /// coded.
    pub fn log_black(self) -> RangeInclusive<f32> {
        const BLACK: f32 = 95.0 / 1023.0;
        const WHITE: f32 = 685.0 / 1023.0;
        const SLOPE: f32 = 2.048 / 0.6;
        let light = if self == Self::Eight { 3.0 / 255.0 } else { 1.0 / self.max() };
        let gain = 1.0 / (1.0 - 10_f32.powf((BLACK - WHITE) * SLOPE));
        let code = WHITE + ((light + gain - 1.0) / gain).log10() / SLOPE;
        (BLACK * self.max()).floor()..=(code * self.max()).ceil()
    }
}

/// The layout of samples in the words of a row. Samples of 8 and 16 bits fill bytes, whatever it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// One after another, the first in the lowest bits of a word of 32 bits.
    Tight,
    /// Three samples of 10 bits in a word of 32, one of 12 bits in a word of 16; the lowest bits are left over.
    /// Method A of DPX, "left" of Cineon.
    Upper,
    /// The same, with the highest bits left over. Method B, "right".
    Lower,
}

/// The pixels of a picture in one piece, from the top row down.
pub(crate) struct Raster {
    pub head: Head,
    pub offset: u64,
    pub bits: Bits,
    pub packing: Packing,
    pub big_endian: bool,
    /// Samples of 10 bits begin at the lower end of their word: a DPX with one channel.
    pub from_low: bool,
    /// The channel of the picture for each sample of a pixel.
    pub order: &'static [usize],
    /// Bytes between two rows.
    pub row_padding: u64,
    /// Bytes of the whole file, as its header has them.
    pub file_size: Option<u32>,
}

impl Raster {
    fn row_samples(&self) -> u64 {
        u64::from(self.head.width) * self.order.len() as u64
    }

    /// Bytes of a row. Blender rounds rows of 8 and 10 bits up to words of 32 bits, and those of 12 and 16 not; from 4.2
    /// rows of 8 bits neither.
    fn stride(&self) -> u64 {
        let samples = self.row_samples();
        match (self.bits, self.packing) {
            (Bits::Eight, _) => samples.div_ceil(4) * 4,
            (Bits::Ten | Bits::Twelve, Packing::Tight) => {
                (samples * u64::from(self.bits.count())).div_ceil(32) * 4
            }
            (Bits::Ten, _) => samples.div_ceil(3) * 4,
            (Bits::Twelve | Bits::Sixteen, _) => samples * 2,
        }
    }

    /// The bytes of a row that fits this file, or how the file does not hold its rows.
    fn fitting_stride(&self, len: u64) -> Result<u64, ImageFault> {
        let end = |stride: u64| {
            let rows = (stride + self.row_padding).checked_mul(u64::from(self.head.height));
            rows.and_then(|rows| rows.checked_add(self.offset))
        };
        let stride = self.stride();
        // A file beyond 4 GiB has the lower half of its size in the header.
        if self.file_size.is_some_and(|size| size != len as u32 && u64::from(size) > len) {
            return Err(ImageFault::Truncated("rows of pixels are missing".to_owned()));
        }
        // Other programs round all rows up, as the standard says. Rows of bytes that are not would be those of a file that
        // is cut, if its header did not have its size.
        let has_size = self.file_size == Some(len as u32);
        let bytes = (self.bits == Bits::Eight && has_size).then(|| self.row_samples());
        for stride in [stride, stride.next_multiple_of(4)].into_iter().chain(bytes) {
            if end(stride) == Some(len) {
                return Ok(stride);
            }
        }
        match end(stride) {
            Some(end) if end < len => Err(ImageFault::damaged("it goes on after its end")),
            _ => Err(ImageFault::Truncated("rows of pixels are missing".to_owned())),
        }
    }

    /// Checks that the file has all rows, without reading them.
    pub fn is_whole(&self, len: u64) -> Result<(), ImageFault> {
        self.fitting_stride(len).map(drop)
    }

    pub fn decode(self, mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
        if !sink.begin(self.head.clone())? {
            return Ok(());
        }
        let stride = self.fitting_stride(source.len)?;
        let mut row = source.buffer(stride)?;
        let (width, channels) = (self.head.width as usize, self.order.len());
        let mut place = vec![0; channels];
        for (sample, channel) in self.order.iter().enumerate() {
            place[*channel] = sample;
        }
        let mut rows = Interleaved::new(channels);
        source.reader.seek(SeekFrom::Start(self.offset))?;
        for y in 0..self.head.height as usize {
            source.reader.read_exact(&mut row)?;
            source.reader.seek_relative(self.row_padding.cast_signed())?;
            rows.row(sink, y, width, |i| {
                f32::from(self.sample(&row, i / channels * channels + place[i % channels]))
            });
        }
        Ok(())
    }

    /// The sample of a row with this number.
    fn sample(&self, row: &[u8], index: usize) -> u16 {
        let u16_at = |at: usize| {
            let bytes = [row[at], row[at + 1]];
            if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        };
        let word = |number: usize| {
            let at = number * 4;
            let bytes = [row[at], row[at + 1], row[at + 2], row[at + 3]];
            if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        match (self.bits, self.packing) {
            (Bits::Eight, _) => u16::from(row[index]),
            (Bits::Sixteen, _) => u16_at(index * 2),
            (Bits::Twelve, Packing::Upper) => u16_at(index * 2) >> 4,
            (Bits::Twelve, Packing::Lower) => u16_at(index * 2) & 0xfff,
            (Bits::Ten, packing @ (Packing::Upper | Packing::Lower)) => {
                let slot = if self.from_low { index % 3 } else { 2 - index % 3 };
                let unused = if packing == Packing::Upper { 2 } else { 0 };
                (word(index / 3) >> (unused + 10 * slot) & 0x3ff) as u16
            }
            (Bits::Ten | Bits::Twelve, Packing::Tight) => {
                let count = self.bits.count() as usize;
                let bit = index * count;
                let low = u64::from(word(bit / 32));
                // A sample may begin in one word and end in the next.
                let high = if bit % 32 + count > 32 { u64::from(word(bit / 32 + 1)) } else { 0 };
                ((high << 32 | low) >> (bit % 32) & ((1 << count) - 1)) as u16
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use kiln_types::FileFormat;

    use super::*;
    use crate::compare;

    fn raster_of(bits: u8, packing: Packing) -> Raster {
        let bits = Bits::new(bits).unwrap();
        Raster {
            head: Head::simple(FileFormat::Dpx, (5, 1), bits.depth(), "Y"),
            offset: 0,
            bits,
            packing,
            big_endian: true,
            from_low: false,
            order: &[0],
            row_padding: 0,
            file_size: None,
        }
    }

    fn samples(raster: &Raster, row: &[u8]) -> Vec<u16> {
        assert_eq!(raster.stride(), row.len() as u64);
        (0..5).map(|index| raster.sample(row, index)).collect()
    }

    #[test]
    fn each_packing_is_read_to_the_bit() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        let five = [1_u32, 1023, 2, 512, 1022];
        let ten = five.map(|sample| sample as u16);
        let upper = words(&[1 << 22 | 1023 << 12 | 2 << 2, 512 << 22 | 1022 << 12]);
        assert_eq!(samples(&raster_of(10, Packing::Upper), &upper), ten);
        let lower = words(&[1 << 20 | 1023 << 10 | 2, 512 << 20 | 1022 << 10]);
        assert_eq!(samples(&raster_of(10, Packing::Lower), &lower), ten);
        let from_low = Raster { from_low: true, ..raster_of(10, Packing::Upper) };
        assert_eq!(samples(&from_low, &words(&[1 << 2 | 1023 << 12 | 2 << 22, 512 << 2 | 1022 << 12])), ten);
        let stream =
            five.iter().enumerate().fold(0_u64, |all, (i, sample)| all | u64::from(*sample) << (10 * i));
        let tight = words(&[stream as u32, (stream >> 32) as u32]);
        assert_eq!(samples(&raster_of(10, Packing::Tight), &tight), ten);
        let little = Raster { big_endian: false, ..raster_of(10, Packing::Tight) };
        let swapped: Vec<u8> = tight.chunks(4).flat_map(|word| word.iter().rev().copied()).collect();
        assert_eq!(samples(&little, &swapped), ten);

        let twelve = [1_u16, 4095, 2, 2048, 4094];
        let shorts = |shift: u32| twelve.iter().flat_map(|s| (s << shift).to_be_bytes()).collect::<Vec<u8>>();
        assert_eq!(samples(&raster_of(12, Packing::Upper), &shorts(4)), twelve);
        assert_eq!(samples(&raster_of(12, Packing::Lower), &shorts(0)), twelve);
        let stream = twelve.iter().enumerate().fold(0_u64, |all, (i, s)| all | u64::from(*s) << (12 * i));
        assert_eq!(
            samples(&raster_of(12, Packing::Tight), &words(&[stream as u32, (stream >> 32) as u32])),
            twelve
        );
        assert_eq!(samples(&raster_of(16, Packing::Tight), &shorts(0)), twelve);
        assert_eq!(samples(&raster_of(8, Packing::Tight), &[1, 2, 3, 4, 255, 0, 0, 0]), [1, 2, 3, 4, 255]);
    }

    #[test]
    fn rows_may_be_rounded_up_and_must_end_with_the_file() {
        let raster = || raster_of(16, Packing::Tight);
        let fault = |len: u64| raster().is_whole(len).map_err(|fault| fault.to_string());
        assert!(fault(10).is_ok() && fault(12).is_ok());
        assert!(fault(9).unwrap_err().contains("cut off"));
        assert!(fault(11).unwrap_err().contains("after its end"));
        let told = Raster { file_size: Some(12), ..raster() };
        assert!(matches!(told.is_whole(10), Err(ImageFault::Truncated(_))));
        let bytes = |file_size| Raster { file_size, ..raster_of(8, Packing::Tight) };
        assert!(bytes(Some(5)).is_whole(5).is_ok() && bytes(None).is_whole(8).is_ok());
        assert!(matches!(bytes(None).is_whole(5), Err(ImageFault::Truncated(_))));
        let huge = Raster { row_padding: u64::MAX / 2, ..raster() };
        assert!(huge.is_whole(u64::MAX).is_err());
    }

    #[test]
    fn black_of_a_negative_is_its_lowest_density() {
        for (bits, black, light) in [
            (Bits::Eight, 24.0, 60.0),
            (Bits::Ten, 95.0, 110.0),
            (Bits::Twelve, 380.0, 400.0),
            (Bits::Sixteen, 6086.0, 6200.0),
        ] {
            let range = bits.log_black();
            assert!(range.contains(&black) && !range.contains(&light) && !range.contains(&0.0), "{range:?}");
        }
    }

    #[test]
    fn junk_behind_a_magic_never_panics() {
        let mut state = 7_u64;
        for magic in [b"SDPX", b"XPDS", b"\x80\x2a\x5f\xd7", b"\xd7\x5f\x2a\x80"] {
            for _ in 0..2000 {
                let mut bytes = magic.to_vec();
                bytes.resize_with(2100, || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Mostly zeros: a header of noise alone is refused at its first field.
                    if state >> 61 == 0 { (state >> 40) as u8 } else { 0 }
                });
                assert!(compare::decode(Cursor::new(bytes)).is_err());
            }
        }
    }
}
