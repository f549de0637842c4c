//! Silicon Graphics' format, which Blender calls Iris: raw or in runs, 8 or 16 bits.

use std::io::{Read, Seek, SeekFrom};

use kiln_types::{ColorDepth, FileFormat};

use crate::{
    fault::ImageFault,
    picture::{Head, Sink},
    source::PictureSource,
};

const HEADER: u64 = 512;

/// The places of the rows, one channel after another, each from the lowest row up.
pub(crate) enum Rows {
    /// One after another behind the header.
    Raw,
    /// Offset and length of each.
    Runs(Vec<(u32, u32)>),
}

/// The header and the table of rows; every row lies within the file.
pub(crate) struct Layout {
    head: Head,
    sample_bytes: usize,
    rows: Rows,
}

impl Layout {
    pub fn read(source: &mut PictureSource<'_>) -> Result<Self, ImageFault> {
        let header = source.array::<12>()?;
        let u16_at = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (in_runs, sample_bytes) = (header[2] == 1, usize::from(header[3]));
        // A picture of one dimension is a row, one of two has one channel.
        let (width, height, channels) = match (header[5], u16_at(6), u16_at(8), u16_at(10)) {
            (1, width, ..) => (width, 1, 1),
            (2, width, height, _) => (width, height, 1),
            (_, width, height, channels) => (width, height, channels),
        };
        if width == 0 || height == 0 || header[4] != 0 || !(1..=3).contains(&header[5]) {
            return Err(ImageFault::damaged("its header makes no sense"));
        }
        let names = match channels {
            1 => "Y",
            2 => "YA",
            3 => "RGB",
            4 => "RGBA",
            other => return Err(ImageFault::unsupported(format!("an Iris with {other} channels"))),
        };
        let depth = if sample_bytes == 1 { ColorDepth::Eight } else { ColorDepth::Sixteen };
        let head = Head::simple(FileFormat::Iris, (u32::from(width), u32::from(height)), depth, names);
        let rows = if in_runs { Rows::Runs(Vec::new()) } else { Rows::Raw };
        Ok(Self { head, sample_bytes, rows })
    }

    /// Reads the table of rows, if there is one, and checks that the file holds them all and nothing else.
    pub fn locate(&mut self, source: &mut PictureSource<'_>) -> Result<(), ImageFault> {
        let count = u64::from(self.head.height) * self.head.planes.len() as u64;
        let row_bytes = u64::from(self.head.width) * self.sample_bytes as u64;
        let end = match &mut self.rows {
            Rows::Raw => HEADER + count * row_bytes,
            Rows::Runs(rows) => {
                let mut table = source.buffer(count * 8)?;
                source.reader.seek(SeekFrom::Start(HEADER))?;
                source.reader.read_exact(&mut table)?;
                let (offsets, lengths) = table.split_at(table.len() / 2);
                let numbers = |bytes: &[u8]| {
                    bytes
                        .chunks_exact(4)
                        .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
                        .collect::<Vec<_>>()
                };
                rows.extend(numbers(offsets).into_iter().zip(numbers(lengths)));
                let ends = rows.iter().map(|(offset, length)| u64::from(*offset) + u64::from(*length));
                let end = ends.max().unwrap_or(0);
                let table_end = HEADER + count * 8;
                let sum: u64 = rows.iter().map(|(_, length)| u64::from(*length)).sum();
                if rows.iter().any(|(offset, _)| u64::from(*offset) < table_end) {
                    return Err(ImageFault::damaged("a row lies in its header"));
                }
                // Rows that lie upon each other would let a small file ask for any amount of work.
                if end <= source.len && sum > source.len {
                    return Err(ImageFault::unsupported("an Iris whose rows share their bytes"));
                }
                end
            }
        };
        match end.cmp(&source.len) {
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Less => Err(ImageFault::damaged("it goes on after its end")),
            std::cmp::Ordering::Greater => {
                Err(ImageFault::Truncated("rows of pixels are missing".to_owned()))
            }
        }
    }
}

/// Unpacks a row of runs; samples of two bytes have counts of two bytes.
fn expand(packed: &[u8], row: &mut [u8], sample_bytes: usize) -> Result<(), ImageFault> {
    let misfit = || ImageFault::damaged("a run does not fit its row");
    let (mut packed, mut row) = (packed, row);
    while !packed.is_empty() {
        let (count, rest) = packed.split_at_checked(sample_bytes).ok_or_else(misfit)?;
        packed = rest;
        // The lower byte counts where there are two.
        let count = count[sample_bytes - 1];
        let length = usize::from(count & 0x7f) * sample_bytes;
        if length == 0 {
            break;
        }
        let (place, rest) = std::mem::take(&mut row).split_at_mut_checked(length).ok_or_else(misfit)?;
        row = rest;
        let is_literal = count & 0x80 != 0;
        let bytes = if is_literal { length } else { sample_bytes };
        let (samples, rest) = packed.split_at_checked(bytes).ok_or_else(misfit)?;
        packed = rest;
        if is_literal {
            place.copy_from_slice(samples);
        } else {
            place.chunks_exact_mut(sample_bytes).for_each(|sample| sample.copy_from_slice(samples));
        }
    }
    if row.is_empty() && packed.is_empty() { Ok(()) } else { Err(misfit()) }
}

pub(crate) fn decode(mut source: PictureSource<'_>, sink: &mut dyn Sink) -> Result<(), ImageFault> {
    let mut layout = Layout::read(&mut source)?;
    if !sink.begin(layout.head.clone())? {
        return Ok(());
    }
    layout.locate(&mut source)?;
    let (width, height, bytes) =
        (layout.head.width as usize, layout.head.height as usize, layout.sample_bytes);
    let mut row = vec![0; width * bytes];
    // A sample that does not repeat costs its count, too; a row ends with an empty run.
    let longest = (2 * width + 1) * bytes;
    let mut packed = Vec::new();
    let mut samples = Vec::with_capacity(width);
    source.reader.seek(SeekFrom::Start(HEADER))?;
    for index in 0..height * layout.head.planes.len() {
        match &layout.rows {
            Rows::Raw => source.reader.read_exact(&mut row)?,
            Rows::Runs(rows) => {
                let (offset, length) = rows[index];
                if length as usize > longest {
                    return Err(ImageFault::damaged("a run does not fit its row"));
                }
                packed.resize(length as usize, 0);
                let position = source.position()?;
                source.reader.seek_relative(i64::from(offset) - position.cast_signed())?;
                source.reader.read_exact(&mut packed)?;
                expand(&packed, &mut row, bytes)?;
            }
        }
        if sink.wants() {
            let value =
                |sample: &[u8]| sample.iter().fold(0_u16, |value, byte| value << 8 | u16::from(*byte));
            samples.clear();
            samples.extend(row.chunks_exact(bytes).map(|sample| f32::from(value(sample))));
            sink.put(index / height, 0, height - 1 - index % height, &samples);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use crate::compare;

    /// A file of one dimension more than its channels need, with these rows behind the table or the header.
    fn file(kind: [u8; 2], size: [u16; 3], table: &[u32], data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![1, 0xda, kind[0], kind[1], 0, 3];
        size.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        bytes.resize(512, 0);
        table.iter().for_each(|number| bytes.extend(number.to_be_bytes()));
        bytes.extend(data);
        bytes
    }

    fn planes(bytes: Vec<u8>) -> Vec<(String, Vec<f32>)> {
        let picture = compare::decode(Cursor::new(bytes)).unwrap();
        picture.planes.into_iter().map(|plane| (plane.channel, plane.samples)).collect()
    }

    fn fault(bytes: Vec<u8>) -> String {
        compare::decode(Cursor::new(bytes)).unwrap_err().to_string()
    }

    #[test]
    fn raw_rows_are_one_channel_after_another_from_the_lowest_up() {
        let eight = file([0, 1], [2, 2, 2], &[], &[1, 2, 3, 4, 255, 254, 253, 252]);
        let alpha = ("A".to_owned(), vec![253.0, 252.0, 255.0, 254.0]);
        assert_eq!(planes(eight), [alpha, ("Y".to_owned(), vec![3.0, 4.0, 1.0, 2.0])]);
        let sixteen = file([0, 2], [2, 1, 1], &[], &[1, 2, 255, 255]);
        assert_eq!(planes(sixteen), [("Y".to_owned(), vec![258.0, 65535.0])]);
    }

    #[test]
    fn runs_of_both_sizes_are_unpacked() {
        // Three times 7, then 1 and 2; the second row, without its end mark, lies before the first.
        let rows = [0x83, 9, 8, 7, 2, 6, 3, 7, 0x82, 1, 2, 0];
        let eight = file([1, 1], [5, 2, 1], &[534, 528, 6, 6], &rows);
        let expected = vec![9.0, 8.0, 7.0, 6.0, 6.0, 7.0, 7.0, 7.0, 1.0, 2.0];
        assert_eq!(planes(eight), [("Y".to_owned(), expected)]);
        let sixteen = file([1, 2], [3, 1, 1], &[520, 10], &[0, 2, 1, 0, 0, 0x81, 1, 1, 0, 0]);
        assert_eq!(planes(sixteen), [("Y".to_owned(), vec![256.0, 256.0, 257.0])]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let row = |data: &[u8]| file([1, 1], [3, 1, 1], &[520, data.len() as u32], data);
        assert!(planes(row(&[3, 7, 0])).len() == 1);
        for misfit in [&[4, 7, 0][..], &[2, 7, 0], &[3], &[0x83, 1, 2], &[3, 7, 0, 0], &[0], &[3, 7, 1, 7]] {
            let why = fault(row(misfit));
            assert!(why.contains("a run does not fit its row"), "{misfit:?}: {why}");
        }
        let table = |table: [u32; 4]| fault(file([1, 1], [3, 2, 1], &table, &[3, 7, 0, 3, 8, 0]));
        assert!(table([528, 531, 3, 4]).contains("cut off"));
        assert!(table([528, 528, 3, 3]).contains("after its end"));
        assert!(table([527, 531, 4, 3]).contains("in its header"));
        assert!(table([u32::MAX, 531, u32::MAX, 3]).contains("cut off"));
        // A thousand rows in one place.
        let shared: Vec<u32> = [[8512_u32; 1000], [80; 1000]].concat();
        let bomb = file([1, 1], [9999, 1000, 1], &shared, &[vec![127; 79], vec![0]].concat());
        assert!(fault(bomb).contains("share their bytes"));
        let huge = file([1, 1], [65535, 65535, 4], &[], &[]);
        assert!(fault(huge).contains("too large"));
    }
}
