//! Copies a .blend with other names of files in it.
//!
//! The collector notes the location of each name, so that reading and writing cannot disagree. The
//! copy is the unpacked file, byte for byte, but for these places.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use kiln_files::{Access, Durability, NewFile};
use serde::Serialize;

use crate::{
    external::{ExternalFile, ExternalKind},
    fault::BlendFault,
    file::{FileEncoding, Walker, open},
    inspect::walk,
    location::{ByteRange, NameBlock, PathLocation},
    pointer_scan::Depth,
    stream::{BlendStream, ByteSource, Compression, ReadLimits},
};

/// Bytes of a name in a block of its own: more are not read.
const MAX_NAME: usize = 4096;

/// The result of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RewriteReport {
    /// Bytes of the copy, which is not packed.
    pub bytes: u64,
    pub renamed: Vec<RenamedPath>,
}

/// A name that is another in the copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RenamedPath {
    pub kind: ExternalKind,
    /// The datablock that names the file.
    pub owner: String,
    /// Bytes that are no Unicode are replaced, here and below.
    pub from: String,
    pub to: String,
}

/// A .blend that cannot be copied with other names, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be copied: {fault}", path.display())]
pub struct RewriteError {
    pub path: PathBuf,
    #[source]
    pub fault: RewriteFault,
}

/// The reason why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum RewriteFault {
    #[error(transparent)]
    Blend(#[from] BlendFault),
    #[error(
        "{owner} has room for a name of {room} bytes, and “{name}” is longer; give its folders shorter names"
    )]
    TooLong { owner: String, name: String, room: usize },
    #[error("{owner} cannot take an empty name, or one with a NUL in it")]
    NoName { owner: String },
    #[error("the copy cannot be written ({0}); make room, or choose another place")]
    Write(#[source] io::Error),
}

/// Copies a .blend, unpacked. `rename` is asked for every name of a file in it, and tells another one where the
/// copy shall have it. Names of a strip's images share one folder in the file: where the names that they are to
/// have share none, those that keep their own go along with the others.
///
/// # Errors
/// Where the file is no .blend, changes meanwhile, or a name does not fit; then the copy is of no use.
pub fn rewrite(
    path: &Path,
    out: &mut dyn Write,
    rename: impl Fn(&ExternalFile) -> Option<Vec<u8>>,
) -> Result<RewriteReport, RewriteError> {
    let opened = open(path).map_err(RewriteFault::Blend);
    let copied = opened.and_then(|file| rewrite_reader(file, &ReadLimits::default(), out, rename));
    copied.map_err(|fault| RewriteError { path: path.to_owned(), fault })
}

/// [`rewrite`] of an open file.
pub fn rewrite_reader<R: Read + Seek>(
    mut reader: R,
    limits: &ReadLimits,
    out: &mut dyn Write,
    rename: impl Fn(&ExternalFile) -> Option<Vec<u8>>,
) -> Result<RewriteReport, RewriteFault> {
    let bytes: &mut dyn ByteSource = &mut reader;
    let edits = plan_edits(bytes, limits, &rename)?;
    let bytes = edits.copy(bytes, limits, out)?;
    Ok(RewriteReport { bytes, renamed: edits.renamed })
}

/// New names for files in a .blend, and their locations.
pub(crate) struct RewritePlan {
    edits: Edits,
}

impl RewritePlan {
    /// The plan for a file. Nothing is written.
    pub(crate) fn of(
        path: &Path,
        rename: impl Fn(&ExternalFile) -> Option<Vec<u8>>,
    ) -> Result<Self, RewriteError> {
        let planned = open(path).map_err(RewriteFault::Blend);
        let planned = planned.and_then(|mut file| plan_edits(&mut file, &ReadLimits::default(), &rename));
        planned.map(|edits| Self { edits }).map_err(|fault| RewriteError { path: path.to_owned(), fault })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.edits.edits.is_empty()
    }

    /// Writes the names into the file, or into one with the same bytes. A packed file is replaced by an unpacked
    /// copy; of any other only the bytes of the names are written.
    pub(crate) fn apply(&self, path: &Path) -> Result<(), RewriteError> {
        let applied = if self.edits.keeps_places() { self.write_names(path) } else { self.replace(path) };
        applied.map_err(|fault| RewriteError { path: path.to_owned(), fault })
    }

    fn write_names(&self, path: &Path) -> Result<(), RewriteFault> {
        let mut file = File::options().read(true).write(true).open(path).map_err(RewriteFault::Write)?;
        for (at, edit) in &self.edits.edits {
            let mut there = vec![0; edit.expected.len()];
            file.seek(SeekFrom::Start(*at)).map_err(BlendFault::Unreadable)?;
            file.read_exact(&mut there).map_err(BlendFault::Unreadable)?;
            if there != edit.expected {
                return Err(BlendFault::Changed.into());
            }
            file.seek(SeekFrom::Start(*at)).map_err(RewriteFault::Write)?;
            file.write_all(&edit.comes).map_err(RewriteFault::Write)?;
        }
        Ok(())
    }

    fn replace(&self, path: &Path) -> Result<(), RewriteFault> {
        let mut source = open(path)?;
        let copy = NewFile::create(path, Access::Usual).map_err(RewriteFault::Write)?;
        let mut out = BufWriter::new(copy);
        self.edits.copy(&mut source, &ReadLimits::default(), &mut out)?;
        let copy = out.into_inner().map_err(|error| RewriteFault::Write(error.into_error()))?;
        // It is made from another file, and can be made again.
        copy.commit(Durability::Ephemeral).map_err(RewriteFault::Write)
    }
}

fn plan_edits(
    bytes: &mut dyn ByteSource,
    limits: &ReadLimits,
    rename: &dyn Fn(&ExternalFile) -> Option<Vec<u8>>,
) -> Result<Edits, RewriteFault> {
    let stream = BlendStream::new(bytes, limits)?;
    let packed = stream.compression != Compression::None;
    let walker = Walker::new(stream)?;
    let shape = walker.shape;
    let collected = walk(walker, limits, &mut None, Depth::Members)?.collected;
    let named = || collected.external.iter().zip(&collected.locations);
    let mut edits = Edits { shape, packed, edits: BTreeMap::new(), renamed: Vec::new() };
    let mut strips: BTreeMap<u64, Vec<Element<'_>>> = BTreeMap::new();
    for (file, location) in named() {
        let to = rename(file).filter(|name| *name != file.raw);
        match location {
            PathLocation::Strip { folder, shared, element } => {
                let element = Element { file, folder: *folder, shared: *shared, field: *element, to };
                strips.entry(folder.at).or_default().push(element);
            }
            PathLocation::Field(field) => {
                if let Some(to) = to {
                    edits.field(file, *field, &file.raw, &to)?;
                    edits.tell(file, &to);
                }
            }
            PathLocation::Block(block) => {
                if let Some(to) = to {
                    edits.block(file, block, &to)?;
                    edits.tell(file, &to);
                }
            }
        }
    }
    for elements in strips.values() {
        edits.strip(elements)?;
    }
    Ok(edits)
}

/// An image of a strip.
struct Element<'a> {
    file: &'a ExternalFile,
    folder: ByteRange,
    /// Bytes of the name that are in the folder.
    shared: usize,
    field: ByteRange,
    to: Option<Vec<u8>>,
}

/// Bytes that take the place of others.
struct Edit {
    /// The bytes that must be there, for it to be the file that was read.
    expected: Vec<u8>,
    goes: usize,
    comes: Vec<u8>,
}

struct Edits {
    shape: FileEncoding,
    /// The places are those of the unpacked file, and the file is packed.
    packed: bool,
    /// By the place in the file.
    edits: BTreeMap<u64, Edit>,
    renamed: Vec<RenamedPath>,
}

impl Edits {
    /// The file keeps its length, and every other byte its place.
    fn keeps_places(&self) -> bool {
        !self.packed && self.edits.values().all(|edit| edit.goes == edit.comes.len())
    }

    /// Returns the length of the copy.
    fn copy(
        &self,
        bytes: &mut dyn ByteSource,
        limits: &ReadLimits,
        out: &mut dyn Write,
    ) -> Result<u64, RewriteFault> {
        let mut copy = Copy { stream: BlendStream::new(bytes, limits)?, out, written: 0 };
        for (at, edit) in &self.edits {
            copy.up_to(*at)?;
            copy.edit(edit)?;
        }
        copy.up_to(u64::MAX)?;
        Ok(copy.written)
    }

    fn tell(&mut self, file: &ExternalFile, to: &[u8]) {
        self.renamed.push(RenamedPath {
            kind: file.kind,
            owner: file.owner.clone(),
            from: file.path.clone(),
            to: String::from_utf8_lossy(to).into_owned(),
        });
    }

    fn field(
        &mut self,
        file: &ExternalFile,
        field: ByteRange,
        from: &[u8],
        to: &[u8],
    ) -> Result<(), RewriteFault> {
        // The last byte is a NUL.
        fits(file, to, field.len.saturating_sub(1))?;
        let mut comes = to.to_vec();
        comes.resize(field.len, 0);
        self.edits.insert(field.at, Edit { expected: from.to_vec(), goes: field.len, comes });
        Ok(())
    }

    fn block(&mut self, file: &ExternalFile, block: &NameBlock, to: &[u8]) -> Result<(), RewriteFault> {
        fits(file, to, MAX_NAME - 1)?;
        let mut comes = to.to_vec();
        comes.push(0);
        for count in &block.counts {
            let number = self.shape.bytes(comes.len() as u64, count.len.min(8));
            self.edits.insert(count.at, Edit { expected: Vec::new(), goes: count.len, comes: number });
        }
        // As Blender itself once did; every version reads it.
        comes.resize(comes.len().next_multiple_of(4), 0);
        let length = self.shape.length_in_head();
        let size = (length.end - length.start) as usize;
        let number = |number: usize| self.shape.bytes(number as u64, size);
        let (expected, new) = (number(block.data.len), number(comes.len()));
        self.edits.insert(block.head + length.start, Edit { expected, goes: size, comes: new });
        let expected = file.raw.clone();
        self.edits.insert(block.data.at, Edit { expected, goes: block.data.len, comes });
        Ok(())
    }

    fn strip(&mut self, elements: &[Element<'_>]) -> Result<(), RewriteFault> {
        let changed = || elements.iter().filter_map(|element| element.to.as_deref());
        if changed().next().is_none() {
            return Ok(());
        }
        let all = elements.iter().map(|element| element.to.as_deref().unwrap_or(&element.file.raw));
        let for_all = common_folder(all);
        let folder = if for_all.is_empty() { common_folder(changed()) } else { for_all };
        for element in elements {
            let raw = &element.file.raw;
            let (old_folder, old_name) = raw.split_at(element.shared.min(raw.len()));
            let to = element.to.as_deref().unwrap_or(raw);
            let name = to.strip_prefix(folder).unwrap_or(old_name);
            self.field(element.file, element.folder, old_folder, folder)?;
            self.field(element.file, element.field, old_name, name)?;
            let to = [folder, name].concat();
            if to != *raw {
                self.tell(element.file, &to);
            }
        }
        Ok(())
    }
}

fn fits(file: &ExternalFile, name: &[u8], room: usize) -> Result<(), RewriteFault> {
    if name.contains(&0) {
        return Err(RewriteFault::NoName { owner: file.owner.clone() });
    }
    if name.len() > room {
        let name = String::from_utf8_lossy(name).into_owned();
        return Err(RewriteFault::TooLong { owner: file.owner.clone(), name, room });
    }
    Ok(())
}

/// The deepest folder that all lie below, with its last slash; empty where there is none.
fn common_folder<'a>(mut names: impl Iterator<Item = &'a [u8]>) -> &'a [u8] {
    let Some(first) = names.next() else { return b"" };
    let folder =
        |name: &[u8]| name.iter().rposition(|byte| matches!(byte, b'/' | b'\\')).map_or(0, |at| at + 1);
    // `//` and `/` are roots of their own.
    let root = |name: &[u8]| name.iter().take_while(|byte| **byte == b'/').count().min(2);
    let mut common = &first[..folder(first)];
    for name in names {
        if root(name) != root(first) {
            return b"";
        }
        let same = common.iter().zip(name).take_while(|(a, b)| a == b).count();
        common = &common[..folder(&common[..same])];
    }
    common
}

/// The file on its way into the copy.
struct Copy<'a> {
    stream: BlendStream<'a>,
    out: &'a mut dyn Write,
    written: u64,
}

impl Copy<'_> {
    /// Copies what lies before this byte, or all that is left.
    fn up_to(&mut self, at: u64) -> Result<(), RewriteFault> {
        let mut buffer = vec![0; 128 << 10];
        while self.stream.position() < at {
            let most = (at - self.stream.position()).min(buffer.len() as u64) as usize;
            let count = self.stream.chunk(&mut buffer[..most])?;
            if count == 0 && at < u64::MAX {
                return Err(BlendFault::Changed.into());
            }
            if count == 0 {
                break;
            }
            self.write(&buffer[..count])?;
        }
        Ok(())
    }

    fn edit(&mut self, edit: &Edit) -> Result<(), RewriteFault> {
        let mut left = edit.goes;
        let mut expected = edit.expected.as_slice();
        while left > 0 {
            let mut buffer = [0; 1024];
            let count = self.stream.chunk(&mut buffer[..left.min(1024)])?;
            let known = expected.len().min(count);
            if count == 0 || buffer[..known] != expected[..known] {
                return Err(BlendFault::Changed.into());
            }
            expected = &expected[known..];
            left -= count;
        }
        self.write(&edit.comes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), RewriteFault> {
        self.out.write_all(bytes).map_err(RewriteFault::Write)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_has_the_deepest_folder_of_its_images() {
        let common = |names: &[&'static str]| {
            let folder = common_folder(names.iter().map(|name| name.as_bytes()));
            String::from_utf8(folder.to_vec()).unwrap()
        };
        assert_eq!(common(&["//a/b/1.png", "//a/b/2.png"]), "//a/b/");
        assert_eq!(common(&["//a/b1/1.png", "//a/b2/2.png"]), "//a/");
        assert_eq!(common(&["//a/1.png", "//2.png"]), "//");
        assert_eq!(common(&["//a/1.png", "/a/1.png"]), "");
        assert_eq!(common(&["/a/1.png", "/b/1.png"]), "/");
        assert_eq!(common(&["//a\\1.png", "//a\\2.png"]), "//a\\");
        assert_eq!(common(&[]), "");
    }
}
