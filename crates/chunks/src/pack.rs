//! From bytes to frames and back.

use std::fmt;

use bytes::Bytes;
use kiln_types::BlobHash;
use zstd::bulk::{Compressor, Decompressor};

use crate::{Chunk, Coding, Frame, FrameError, FrameHead, MAX_CHUNK};

/// Measured with `bench/chunks`: level 3 makes a .blend 4 % smaller and takes a quarter more time.
const LEVEL: i32 = 1;

/// Of a chunk longer than this, a part is packed first: where that gains nothing, the rest is not tried.
const PROBED: usize = 64 << 10;
const PROBE: usize = 16 << 10;

/// Packs chunks; keeps what packing needs from one to the next.
pub struct Packer {
    zstd: Option<Compressor<'static>>,
    buffer: Vec<u8>,
}

impl Packer {
    pub fn new() -> Self {
        // Without memory for it, chunks stay as they are.
        Self { zstd: Compressor::new(LEVEL).ok(), buffer: Vec::new() }
    }

    /// The chunk as a frame: packed where that saves a twentieth or more. `bytes` are those of the chunk.
    pub fn pack(&mut self, chunk: Chunk, bytes: &[u8]) -> Frame {
        debug_assert_eq!(chunk.len as usize, bytes.len());
        if let Some(packed) = self.try_pack(bytes) {
            return Frame::new(chunk, Coding::Zstd, Bytes::copy_from_slice(packed));
        }
        Frame::new(chunk, Coding::Raw, Bytes::copy_from_slice(bytes))
    }

    /// The chunk as a frame at the end of `body`: `read` puts the bytes of the chunk there, and nothing copies them
    /// again where they stay as they are.
    pub fn pack_into<E>(
        &mut self,
        chunk: Chunk,
        body: &mut Vec<u8>,
        read: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let head = body.len();
        let start = head + FrameHead::LEN;
        body.resize(start, 0);
        if let Err(error) = read(body) {
            body.truncate(head);
            return Err(error);
        }
        debug_assert_eq!(chunk.len as usize, body.len() - start);
        let coding = match self.try_pack(&body[start..]) {
            Some(packed) => {
                body.truncate(start);
                body.extend_from_slice(packed);
                Coding::Zstd
            }
            None => Coding::Raw,
        };
        let stored = body.len() - start;
        body[head..start].copy_from_slice(&FrameHead::new(chunk, coding, stored).to_bytes());
        Ok(())
    }

    fn try_pack(&mut self, bytes: &[u8]) -> Option<&[u8]> {
        let zstd = self.zstd.as_mut()?;
        // Room for a result that is worth it: zstd itself fails if it needs more.
        let worth = |len: usize| len - len.div_ceil(20);
        self.buffer.resize(worth(MAX_CHUNK), 0);
        if bytes.len() > PROBED {
            let middle = (bytes.len() - PROBE) / 2;
            let probe = &bytes[middle..middle + PROBE];
            zstd.compress_to_buffer(probe, &mut self.buffer[..worth(PROBE)]).ok()?;
        }
        let len = zstd.compress_to_buffer(bytes, &mut self.buffer[..worth(bytes.len())]).ok()?;
        Some(&self.buffer[..len])
    }
}

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").finish_non_exhaustive()
    }
}

/// Unpacks frames; keeps what unpacking needs from one to the next.
#[derive(Default)]
pub struct Unpacker {
    zstd: Option<Decompressor<'static>>,
    buffer: Vec<u8>,
}

impl Unpacker {
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of the chunk, which are those that its hash names. Never more than its head says.
    ///
    /// # Errors
    /// [`FrameError::Packed`], [`FrameError::Mismatch`]; [`FrameError::Io`] where there is no memory.
    pub fn unpack<'a>(&'a mut self, frame: &'a Frame) -> Result<&'a [u8], FrameError> {
        let bytes = self.unpack_unchecked(frame)?;
        let (expected, found) = (frame.chunk().hash, BlobHash::of(bytes));
        if found == expected { Ok(bytes) } else { Err(FrameError::Mismatch { expected, found }) }
    }

    /// As [`Unpacker::unpack`], for who holds the bytes against a hash of its own: they are as many as the head says,
    /// and may be others than its hash names.
    ///
    /// # Errors
    /// [`FrameError::Packed`]; [`FrameError::Io`] where there is no memory.
    pub fn unpack_unchecked<'a>(&'a mut self, frame: &'a Frame) -> Result<&'a [u8], FrameError> {
        if frame.head().coding() == Coding::Raw {
            return Ok(&frame.stored()[..]);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let len = frame.chunk().len as usize;
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        let unpacked = self.unpack_to(frame, &mut buffer[..len]);
        self.buffer = buffer;
        unpacked.map(|()| &self.buffer[..len])
    }

    /// As [`Unpacker::unpack_unchecked`], to a place that is as long as the chunk.
    pub fn unpack_to(&mut self, frame: &Frame, place: &mut [u8]) -> Result<(), FrameError> {
        debug_assert_eq!(frame.chunk().len as usize, place.len());
        match frame.head().coding() {
            Coding::Raw => place.copy_from_slice(frame.stored()),
            Coding::Zstd => {
                let zstd = match &mut self.zstd {
                    Some(zstd) => zstd,
                    none => none.insert(Decompressor::new()?),
                };
                let unpacked = zstd.decompress_to_buffer(frame.stored(), place);
                // The head's length may lie, too.
                if unpacked.ok() != Some(place.len()) {
                    return Err(FrameError::Packed(frame.chunk().hash));
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

/// As [`Packer::pack`], for one chunk alone: 1 to [`MAX_CHUNK`] bytes.
pub fn pack(bytes: &[u8]) -> Frame {
    Packer::new().pack(Chunk::of(bytes), bytes)
}

/// As [`Unpacker::unpack`], for one frame alone.
pub fn unpack(frame: &Frame) -> Result<Vec<u8>, FrameError> {
    Ok(Unpacker::new().unpack(frame)?.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::FrameDecoder;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 1..3000),
            prop::collection::vec(0_u8..3, 1..100_000),
            (1_usize..=MAX_CHUNK, any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        ]
    }

    proptest! {
        // A case of a megabyte is no text to keep: what is found becomes a test of its own.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn a_frame_unpacks_to_what_was_packed(bytes in bytes()) {
            let frame = pack(&bytes);
            prop_assert!(unpack(&frame).unwrap() == bytes);
            prop_assert!(frame.stored().len() <= bytes.len());
        }

        #[test]
        fn frames_survive_any_cutting(all in prop::collection::vec(bytes(), 0..4), seed: u64) {
            let frames: Vec<_> = all.iter().map(|bytes| pack(bytes)).collect();
            let mut wire = Vec::new();
            for frame in &frames {
                frame.write_to(&mut wire).unwrap();
            }
            let (mut rest, mut state) = (&wire[..], seed | 1);
            let (mut decoder, mut found) = (FrameDecoder::default(), Vec::new());
            while !rest.is_empty() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let size = 1 + (state >> 33) as usize % if state >> 63 == 0 { 60 } else { 50_000 };
                let (piece, after) = rest.split_at(size.min(rest.len()));
                rest = after;
                decoder.push(piece);
                while let Some(frame) = decoder.take().unwrap() {
                    found.push(frame);
                }
            }
            decoder.finish().unwrap();
            prop_assert!(found == frames);
            let mut reader = &wire[..];
            for frame in &frames {
                prop_assert!(Frame::read_from(&mut reader).unwrap().as_ref() == Some(frame));
            }
            prop_assert!(Frame::read_from(&mut reader).unwrap().is_none());
        }

        #[test]
        fn a_frame_that_was_changed_never_unpacks(bytes in bytes(), at: prop::sample::Index, flip in 1_u8..) {
            let mut wire = Vec::new();
            pack(&bytes).write_to(&mut wire).unwrap();
            let at = at.index(wire.len());
            prop_assert!(is_told(&bytes, &wire, at, flip));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic_or_hold_much(
            noise in prop::collection::vec(any::<u8>(), 0..200),
            len in prop_oneof![Just(0_u32), 1_u32..100, Just(MAX_CHUNK as u32), any::<u32>()],
            stored in any::<u32>(),
        ) {
            let mut wire = vec![7; 32];
            wire.extend_from_slice(&len.to_le_bytes());
            wire.extend_from_slice(&stored.to_le_bytes());
            wire.extend_from_slice(&noise);
            let mut decoder = FrameDecoder::default();
            decoder.push(&wire);
            while let Ok(Some(frame)) = decoder.take() {
                prop_assert!(frame.stored().len() <= wire.len());
                prop_assert!(unpack(&frame).is_err());
            }
            let _ = Frame::read_from(&mut &wire[..]);
            let _ = decoder.finish();
        }
    }

    /// A frame of these bytes, with one byte of it changed, is refused, or still has the same bytes.
    fn is_told(bytes: &[u8], wire: &[u8], at: usize, flip: u8) -> bool {
        let mut wire = wire.to_vec();
        wire[at] ^= flip;
        let Ok(Some(frame)) = Frame::read_from(&mut &wire[..]) else { return true };
        // A bit of zstd's own head may mean nothing; the bytes are right all the same.
        unpack(&frame).map_or(true, |unpacked| unpacked == bytes && at >= FrameHead::LEN)
    }

    /// Found by chance once: a head that lies about the length of what packs well.
    #[test]
    fn a_frame_of_zeros_that_was_changed_anywhere_never_unpacks() {
        let bytes = vec![0; 1_441_793];
        let mut wire = Vec::new();
        pack(&bytes).write_to(&mut wire).unwrap();
        for at in 0..wire.len() {
            assert!(is_told(&bytes, &wire, at, 2), "byte {at}");
        }
    }

    #[test]
    fn what_packing_does_not_shrink_stays_as_it_is() {
        let mut noise = vec![0; 300_000];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        assert_eq!(pack(&noise).head().coding(), Coding::Raw);
        assert_eq!(pack(&noise[..100]).head().coding(), Coding::Raw);
        assert_eq!(pack(b"k").head().coding(), Coding::Raw);
        assert_eq!(pack(&[7; 300_000]).head().coding(), Coding::Zstd);
    }

    #[test]
    fn a_bomb_unpacks_to_no_more_than_its_head_says() {
        let packed = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        let chunk = Chunk { hash: BlobHash::of(b""), len: MAX_CHUNK as u32 };
        let frame = Frame::new(chunk, Coding::Zstd, packed.into());
        assert!(matches!(unpack(&frame), Err(FrameError::Packed(_))));
    }

    #[test]
    fn a_body_that_ends_early_is_told() {
        let mut wire = Vec::new();
        pack(b"kiln").write_to(&mut wire).unwrap();
        for end in 1..wire.len() {
            let mut decoder = FrameDecoder::default();
            decoder.push(&wire[..end]);
            assert!(decoder.take().unwrap().is_none());
            assert!(matches!(decoder.finish(), Err(FrameError::CutOff)));
            assert!(matches!(Frame::read_from(&mut &wire[..end]), Err(FrameError::CutOff)));
        }
    }
}
