//! The checks of any bytes that are read as a .blend. Run by cargo-fuzz, and on stable Rust by `tests/fuzz.rs`.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use kiln_blend::{Compression, ReadLimits, inspect_reader, rewrite_reader};

/// Little, so that a breach shows.
const LIMITS: ReadLimits = ReadLimits { unpacked: 8 << 20, ratio: 16, memory: 4 << 20 };

/// Counts what is read of it.
struct Counted<'a> {
    bytes: Cursor<&'a [u8]>,
    read: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.bytes.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

impl Seek for Counted<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

/// # Panics
/// Where reading the bytes costs more than it may, or one way to read them says other than another.
pub fn check(data: &[u8]) {
    let mut counted = Counted { bytes: Cursor::new(data), read: 0 };
    let found = inspect_reader(&mut counted, &LIMITS);
    // A look at its end and four walks, each of which may read on past what it wants.
    let most = 5 * data.len() as u64 + (4 << 20);
    assert!(counted.read <= most, "{} bytes read of {}", counted.read, data.len());
    let Ok(found) = found else { return };
    // With something after its end, the DNA is found by a walk instead of by a look at the end.
    let longer = [data, b"\0"].concat();
    if found.compression == Compression::None {
        let again = inspect_reader(Cursor::new(&longer), &LIMITS);
        assert_eq!(again.ok().as_ref(), Some(&found), "found in two ways");
        let mut same = Vec::new();
        rewrite_reader(Cursor::new(data), &LIMITS, &mut same, |_| None)
            .expect("what can be read can be copied");
        assert!(same == data, "a copy without a new name");
    }
    let mut copy = Vec::new();
    if rewrite_reader(Cursor::new(data), &LIMITS, &mut copy, |_| Some(b"//k".to_vec())).is_ok() {
        let again = inspect_reader(Cursor::new(&copy), &LIMITS).expect("a copy can be read");
        let names = again.external.iter().map(|file| file.path.as_str());
        assert!(names.eq(found.external.iter().map(|_| "//k")), "a copy says its new names");
    }
}
