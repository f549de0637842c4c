//! Does a file end before its picture does? For files that lie in an output folder, of whatever size and depth.

use std::io::{self, Read, Seek, SeekFrom};

use kiln_types::FileFormat;

use crate::{
    cineon, dpx, exr,
    fault::ImageFault,
    format, iris, jpeg2000,
    picture::{Head, Sink},
    source::PictureSource,
    verify::{DecodeLimits, run},
};

/// Takes every picture, and none of its samples.
struct Any;

impl Sink for Any {
    fn begin(&mut self, _head: Head) -> Result<bool, ImageFault> {
        Ok(true)
    }
    fn wants(&self) -> bool {
        false
    }
    fn put(&mut self, _plane: usize, _x: usize, _y: usize, _samples: &[f32]) {}
}

/// Remembers whether somebody wanted to read beyond the end.
struct Watched<R> {
    inner: R,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

impl<R: Seek> Seek for Watched<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// Returns whether the file is empty, or the beginning of a picture whose rest is missing. Decodes it: a picture of
/// another kind than Blender's, or damaged within, or no picture at all, is not cut off.
pub fn is_cut_off<R: Read + Seek>(file: R) -> io::Result<bool> {
    let mut watched = Watched { inner: file, ended: false };
    match run(&mut watched, DecodeLimits::default().memory, &mut Any) {
        Ok(()) => Ok(false),
        Err(ImageFault::Empty | ImageFault::Truncated(_)) => Ok(true),
        Err(ImageFault::Unreadable(error)) => Err(error),
        Err(ImageFault::Damaged(_)) => Ok(watched.ended),
        Err(ImageFault::NotAnImage) => {
            let mut head = Vec::new();
            watched.seek(SeekFrom::Start(0))?;
            watched.take(32).read_to_end(&mut head)?;
            Ok(format::may_begin(&head))
        }
        Err(_) => Ok(false),
    }
}

/// The same without decoding, for many files: it looks only at where the format says that the file ends. `false` where
/// the format does not say.
pub fn seems_cut_off<R: Read + Seek>(mut file: R) -> io::Result<bool> {
    let mut told = || -> Result<bool, ImageFault> {
        let mut source = PictureSource::new(&mut file, DecodeLimits::default().memory)?;
        let (format, _) = format::recognise(&mut source)?;
        let len = source.len;
        Ok(match format {
            FileFormat::Png => source.tail::<12>()? != crate::png::END,
            FileFormat::Jpeg => source.tail::<2>()? != [0xff, 0xd9],
            FileFormat::Webp => u64::from(u32::from_le_bytes(source.at::<4>(4)?)) + 8 > len,
            FileFormat::Bmp => u64::from(u32::from_le_bytes(source.at::<4>(2)?)) > len,
            FileFormat::OpenExr | FileFormat::OpenExrMultilayer => exr::ends_early(source)?,
            // An early end is an error.
            FileFormat::Iris => {
                iris::Layout::read(&mut source)?.locate(&mut source)?;
                false
            }
            FileFormat::Dpx => {
                dpx::raster(&mut source)?.is_whole(len)?;
                false
            }
            FileFormat::Cineon => {
                cineon::raster(&mut source)?.is_whole(len)?;
                false
            }
            FileFormat::Jp2 | FileFormat::J2c => {
                jpeg2000::is_whole(&mut source)?;
                false
            }
            FileFormat::Tiff | FileFormat::Targa | FileFormat::TargaRaw | FileFormat::Hdr => false,
        })
    };
    match told() {
        Ok(cut) => Ok(cut),
        Err(ImageFault::Empty | ImageFault::Truncated(_)) => Ok(true),
        Err(ImageFault::Unreadable(error)) => Err(error),
        Err(_) => Ok(false),
    }
}
