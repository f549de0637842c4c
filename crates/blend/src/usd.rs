//! The layers that a USD file is made of: names of other USD files, in its text or in its binary ("crate") form.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

const MAX_NAME: usize = 4096;
const MAX_LAYERS: usize = 10_000;
/// Bytes of the table of tokens of a binary file, unpacked.
const MAX_TOKENS: usize = 256 << 20;
const MAX_SECTIONS: u64 = 64;

pub(crate) fn is_usd(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    // A .usdz holds all that it needs.
    ending.is_some_and(|ending| ["usd", "usda", "usdc"].contains(&ending.as_str()))
}

/// Names of the layers that a file names; none where it cannot be read.
pub(crate) fn layers(path: &Path) -> Vec<Vec<u8>> {
    let mut names = read(path).unwrap_or_default();
    names.sort();
    names.dedup();
    names
}

fn read(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    if file.fill_buf()?.starts_with(b"PXR-USDC") { tokens(&mut file) } else { text(&mut file) }
}

/// A name without the part behind the file's own: arguments, or a file in a .usdz.
fn layer(name: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(name).ok()?;
    let text = text.split(":SDF_FORMAT_ARGS:").next().unwrap_or(text);
    let text = text.split('[').next().unwrap_or(text);
    let path = Path::new(text);
    let is_layer = is_usd(path) || path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("usdz"));
    // What is asked of a service is no file.
    (is_layer && !text.contains("://")).then(|| text.as_bytes().to_vec())
}

/// `@name@`, or `@@@name@@@`.
fn text(file: &mut impl BufRead) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    let mut part = Vec::new();
    while found.len() < MAX_LAYERS {
        // Names are short: what is longer is not one, and need not be held.
        part.clear();
        let read = file.by_ref().take(MAX_NAME as u64).read_until(b'@', &mut part)?;
        if read == 0 {
            break;
        }
        if part.pop() == Some(b'@') {
            found.extend(layer(&part));
        }
    }
    Ok(found)
}

fn number(file: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    file.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn bad() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// Every name in a binary file is in its table of tokens.
fn tokens(file: &mut (impl Read + Seek)) -> io::Result<Vec<Vec<u8>>> {
    let mut version = [0; 8];
    file.seek(SeekFrom::Start(8))?;
    file.read_exact(&mut version)?;
    let contents = number(file)?;
    file.seek(SeekFrom::Start(contents))?;
    for _ in 0..number(file)?.min(MAX_SECTIONS) {
        let mut name = [0; 16];
        file.read_exact(&mut name)?;
        let (start, _size) = (number(file)?, number(file)?);
        if !name.starts_with(b"TOKENS\0") {
            continue;
        }
        file.seek(SeekFrom::Start(start))?;
        let _count = number(file)?;
        let size = usize::try_from(number(file)?).ok().filter(|size| *size <= MAX_TOKENS).ok_or_else(bad)?;
        // Packed from 0.4 on.
        let packed = version[..2] >= [0, 4][..];
        let stored = if packed { number(file)? } else { size as u64 };
        let mut bytes = Vec::new();
        file.take(stored.min(MAX_TOKENS as u64)).read_to_end(&mut bytes)?;
        let bytes = if packed { unpack(&bytes, size).ok_or_else(bad)? } else { bytes };
        return Ok(bytes.split(|byte| *byte == 0).filter_map(layer).take(MAX_LAYERS).collect());
    }
    Err(bad())
}

/// A count of chunks, 0 where there is but one without a size before it; each is an LZ4 block.
fn unpack(bytes: &[u8], size: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (count, mut rest) = bytes.split_first()?;
    if *count == 0 {
        lz4(rest, size, &mut out)?;
        return Some(out);
    }
    for _ in 0..*count {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_le_bytes(*head)).ok()?;
        lz4(tail.get(..length)?, size, &mut out)?;
        rest = &tail[length..];
    }
    Some(out)
}

fn lz4(mut input: &[u8], limit: usize, out: &mut Vec<u8>) -> Option<()> {
    fn length(first: u8, input: &mut &[u8]) -> Option<usize> {
        let mut length = usize::from(first);
        if first == 15 {
            loop {
                let (more, rest) = input.split_first()?;
                *input = rest;
                length = length.checked_add(usize::from(*more))?;
                if *more != 255 {
                    break;
                }
            }
        }
        Some(length)
    }
    let begin = out.len();
    while let Some((token, rest)) = input.split_first() {
        input = rest;
        let literals = length(token >> 4, &mut input)?;
        out.extend(input.get(..literals)?);
        input = &input[literals..];
        // The last sequence is literals alone.
        let Some((offset, rest)) = input.split_first_chunk::<2>() else { break };
        input = rest;
        let back = usize::from(u16::from_le_bytes(*offset));
        let copied = length(token & 15, &mut input)?.checked_add(4)?;
        let from = out.len().checked_sub(back).filter(|from| back > 0 && *from >= begin)?;
        if out.len().checked_add(copied)? > limit {
            return None;
        }
        for at in 0..copied {
            out.push(out[from + at]);
        }
    }
    (out.len() <= limit).then_some(())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn names(found: Vec<Vec<u8>>) -> Vec<String> {
        found.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn layers_of_a_text() {
        let source = "#usda 1.0\n( subLayers = [ @./sub/geo.usdc@, @@@odd@name.usda@@@ ] )\n\
            def \"A\" ( references = @b.usd:SDF_FORMAT_ARGS:x=1@</A> payload = @pack.usdz[in.usd]@ )\n\
            asset t = @tex/wood.png@ asset s = @https://host/x.usd@ string w = \"a@b.c\"\n";
        let found = names(text(&mut Cursor::new(source)).unwrap());
        for name in ["./sub/geo.usdc", "b.usd", "pack.usdz"] {
            assert!(found.iter().any(|one| one == name), "{name} in {found:?}");
        }
        assert!(!found.iter().any(|name| name.contains("wood") || name.contains("host")), "{found:?}");
    }

    #[test]
    fn lz4_blocks_and_lies() {
        // Five literals, then six bytes from five back, then three literals.
        let block = [0x52, b'a', b'.', b'u', b's', b'd', 5, 0, 0x30, 0, b'x', 0];
        let mut out = Vec::new();
        lz4(&block, 64, &mut out).unwrap();
        assert_eq!(out, b"a.usda.usda\0x\0");
        for cut in 1..block.len() {
            let _ = lz4(&block[..cut], 64, &mut Vec::new());
        }
        assert!(lz4(&block, 8, &mut Vec::new()).is_none(), "more than was said");
        assert!(lz4(&[0x12, b'a', 9, 0], 64, &mut Vec::new()).is_none(), "from before the start");
        assert!(lz4(&[0x12, b'a', 0, 0], 64, &mut Vec::new()).is_none());
        assert!(unpack(&[2, 255, 255, 255, 255], 8).is_none());
        assert!(tokens(&mut Cursor::new(b"PXR-USDC".to_vec())).is_err());
    }
}
