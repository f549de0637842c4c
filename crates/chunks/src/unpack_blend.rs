//! A .blend as Blender writes it before it packs it: what is split must not change as a whole when a byte does.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::bufread::MultiGzDecoder;

/// Bytes read to see what a file is. The first block of a packed one unpacks from these.
const HEAD: usize = 256 << 10;

/// Windows of Blender's own files are 8 MiB at most; a decoder takes this much memory.
const WINDOW_LOG: u32 = 27;

/// The bytes of a file, unpacked where it is a .blend packed with gzip or zstd; everything else as it is, also
/// where it is packed. One that unpacks to more than `max` bytes fails with [`io::ErrorKind::InvalidData`].
pub fn unpack_blend<R: Read + Send + 'static>(reader: R, max: u64) -> io::Result<Box<dyn Read + Send>> {
    let mut head = Vec::new();
    let mut reader = reader;
    reader.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    let packing = Packing::of(&head).filter(|packing| packing.holds_blend(&head));
    // Blocks of 128 KiB and more, so that a plain file is read in large pieces past this buffer.
    let whole = BufReader::with_capacity(HEAD, Cursor::new(head).chain(reader));
    let Some(packing) = packing else { return Ok(Box::new(whole)) };
    Ok(Box::new(Bounded { inner: packing.decoder(whole)?, left: max, max }))
}

#[derive(Debug, Clone, Copy)]
enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(&[0x1f, 0x8b]) {
            Some(Self::Gzip)
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Some(Self::Zstd)
        } else {
            None
        }
    }

    fn decoder<'a>(self, bytes: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(bytes)),
            Self::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(bytes)?;
                decoder.window_log_max(WINDOW_LOG)?;
                Box::new(decoder)
            }
        })
    }

    fn holds_blend(self, head: &[u8]) -> bool {
        let mut magic = [0; 7];
        self.decoder(head).and_then(|mut decoder| decoder.read_exact(&mut magic)).is_ok()
            && magic == *b"BLENDER"
    }
}

/// Fails where more than `max` bytes come.
struct Bounded<R> {
    inner: R,
    left: u64,
    max: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            let told = format!("the packed .blend unpacks to more than {} MiB", self.max >> 20);
            io::Error::new(io::ErrorKind::InvalidData, told)
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// As Blender does it: frames of 1 MiB, then a table for seeking in a frame to skip.
    fn zstd_frames(bytes: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        for piece in bytes.chunks(1 << 20) {
            packed.extend(zstd::bulk::compress(piece, 3).unwrap());
        }
        packed.extend([0x5e, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]);
        packed
    }

    fn blend(len: usize) -> Vec<u8> {
        let mut bytes = b"BLENDER-v304".to_vec();
        bytes.resize(len / 2, 7);
        let mut noise = vec![0; len - bytes.len()];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        bytes.extend(noise);
        bytes
    }

    fn read(bytes: Vec<u8>, max: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        unpack_blend(Cursor::new(bytes), max)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn a_packed_blend_is_unpacked() {
        for len in [24, 100, 3 << 20] {
            let bytes = blend(len);
            assert!(read(gzip(&bytes), u64::MAX).unwrap() == bytes);
            assert!(read(zstd_frames(&bytes), u64::MAX).unwrap() == bytes);
            assert!(read(bytes.clone(), 0).unwrap() == bytes, "a plain one has no bound");
        }
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        let text = b"no .blend, but long enough to be packed ".repeat(10_000);
        for bytes in
            [vec![], vec![0x1f, 0x8b], b"BLEND".to_vec(), text.clone(), gzip(&text), zstd_frames(&text)]
        {
            assert!(read(bytes.clone(), 0).unwrap() == bytes);
        }
    }

    #[test]
    fn a_bomb_is_told_before_it_bursts() {
        let bytes = blend(3 << 20);
        for packed in [gzip(&bytes), zstd_frames(&bytes)] {
            let error = read(packed.clone(), (3 << 20) - 1).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(read(packed, 3 << 20).is_ok());
        }
    }

    #[test]
    fn a_packed_blend_that_is_cut_off_fails() {
        for mut packed in [gzip(&blend(1 << 20)), zstd_frames(&blend(1 << 20))] {
            packed.truncate(packed.len() / 2);
            assert!(read(packed, u64::MAX).is_err());
        }
    }
}
