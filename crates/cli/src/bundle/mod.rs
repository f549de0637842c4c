//! A bundle for a person: a folder or a zip with a .blend and all files that it needs, which opens anywhere.
//!
//! Workers get a table of remapped paths. Here the paths in the copies of the .blend and of its libraries are rewritten,
//! so that they lead to the files in the bundle. The artist's files stay as they are.

mod target;

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use kiln_blend::{
    BundleLayout, Dependencies, ExternalKind, RenamedPath, RewriteError, RewriteFault, rewrite,
};
use kiln_types::RelPath;
use serde::Serialize;

use target::Writer;
pub use target::{MANIFEST, Target};

/// Bytes that are read at once.
const STEP: usize = 1 << 20;

/// A file that goes into the bundle.
#[derive(Debug, Clone, Serialize)]
pub struct BundleEntry {
    pub path: RelPath,
    #[serde(serialize_with = "kiln_types::paths::shown")]
    pub source: PathBuf,
    /// Bytes of the source on the disk.
    pub size: u64,
    /// A .blend or a library: its paths are rewritten.
    pub names: bool,
}

/// The files of the bundle, sorted by their places in it.
#[derive(Debug)]
pub struct Plan {
    pub layout: BundleLayout,
    pub files: Vec<BundleEntry>,
}

/// A copy whose paths differ from those of the original.
#[derive(Debug, Serialize)]
pub struct RewrittenFile {
    /// The place in the bundle.
    pub path: RelPath,
    pub renamed: Vec<RenamedPath>,
}

/// The figures of a bundle that was written.
#[derive(Debug)]
pub struct BundleSummary {
    /// Bytes of all files together, before a zip packs them.
    pub bytes: u64,
    pub rewritten: Vec<RewrittenFile>,
}

/// The reason why no bundle is written.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error("{} is there already; name another place, or replace it with --force", .0.display())]
    Exists(PathBuf),
    #[error("{} is a folder that kiln bundle did not make, and --force does not replace it; name another place",
        .0.display())]
    NotOurs(PathBuf),
    #[error("{} holds files that the bundle is made of; name a place elsewhere", .0.display())]
    HoldsSources(PathBuf),
    #[error("{} cannot be read ({error}); make it readable, and run the command again", path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("{} changed while it was read; run the command again", .0.display())]
    Changed(PathBuf),
    #[error("{} cannot be written ({error}); make room, or name another place", path.display())]
    Write {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
    #[error("the bundle was not finished, and nothing of it was left behind")]
    Stopped,
}

impl Plan {
    /// Looks at the size of every file.
    pub fn new(found: &Dependencies, layout: BundleLayout) -> Result<Self, BundleError> {
        let libraries = found.items.iter().filter(|item| item.file.kind == ExternalKind::Library);
        // A library that cannot be read is copied as it is.
        let broken: HashSet<&Path> = found.broken.iter().map(|error| error.path.as_path()).collect();
        let blends: HashSet<&Path> = libraries
            .flat_map(|item| &item.files)
            .map(PathBuf::as_path)
            .chain([found.blend.as_path()])
            .filter(|path| !broken.contains(path))
            .collect();
        let plan = |(path, source): &(RelPath, PathBuf)| {
            let meta =
                fs::metadata(source).map_err(|error| BundleError::Read { path: source.clone(), error })?;
            let names = blends.contains(source.as_path());
            Ok::<_, BundleError>(BundleEntry {
                path: path.clone(),
                source: source.clone(),
                size: meta.len(),
                names,
            })
        };
        let files = layout.files.iter().map(plan).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { layout, files })
    }

    /// Bytes that will be read.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Writes the bundle, which gets its name once it is whole. `step` is called with the bytes that were read, and stops
    /// the writing by returning `false`. After an error nothing is left behind.
    pub fn write(
        &self,
        target: &Target,
        force: bool,
        manifest: &[u8],
        mut step: impl FnMut(u64) -> bool,
    ) -> Result<BundleSummary, BundleError> {
        let mut writer = self.begin(target, force)?;
        let mut made = BundleSummary { bytes: 0, rewritten: Vec::new() };
        for file in &self.files {
            let before = stamp(&file.source)?;
            let size = if file.names {
                let (mut copy, renamed) = self.rewrite(file, &writer)?;
                let read = |error| BundleError::Read { path: file.source.clone(), error };
                let size = copy.seek(SeekFrom::End(0)).map_err(read)?;
                copy.seek(SeekFrom::Start(0)).map_err(read)?;
                copy_bytes(&mut copy, file, size, &mut writer, |_| step(0))?;
                if !step(file.size) {
                    return Err(BundleError::Stopped);
                }
                if !renamed.is_empty() {
                    made.rewritten.push(RewrittenFile { path: file.path.clone(), renamed });
                }
                size
            } else {
                let read = |error| BundleError::Read { path: file.source.clone(), error };
                let mut source = File::open(&file.source).map_err(read)?;
                copy_bytes(&mut source, file, before.0, &mut writer, &mut step)?;
                before.0
            };
            if stamp(&file.source)? != before {
                return Err(BundleError::Changed(file.source.clone()));
            }
            made.bytes += size;
        }
        let taken = self.files.iter().any(|file| file.path.as_str().eq_ignore_ascii_case(MANIFEST));
        if !taken {
            writer.begin(MANIFEST, manifest, manifest.len() as u64)?;
            writer.write(manifest)?;
        }
        writer.finish(force)?;
        Ok(made)
    }

    fn begin(&self, target: &Target, force: bool) -> Result<Writer, BundleError> {
        target.check(force)?;
        // A bundle replaces the folder or the zip in its place as a whole.
        let real = |path: &Path| path.canonicalize().ok();
        if let Some(place) = real(target.path())
            && self
                .files
                .iter()
                .any(|file| real(&file.source).is_some_and(|source| source.starts_with(&place)))
        {
            return Err(BundleError::HoldsSources(target.path().to_owned()));
        }
        Writer::new(target)
    }

    /// Writes a .blend with its new paths, decompressed, to a file without a name.
    fn rewrite(&self, file: &BundleEntry, writer: &Writer) -> Result<(File, Vec<RenamedPath>), BundleError> {
        let out = |error| BundleError::Write { path: writer.place().to_owned(), error };
        let mut copy = tempfile::tempfile_in(writer.scratch()).map_err(out)?;
        let mut buffered = io::BufWriter::with_capacity(STEP, &mut copy);
        let rewritten = rewrite(&file.source, &mut buffered, |named| self.layout.name_at(&file.path, named));
        let renamed = match rewritten {
            Ok(rewritten) => rewritten.renamed,
            Err(RewriteError { fault: RewriteFault::Write(error), .. }) => return Err(out(error)),
            Err(error) => return Err(error.into()),
        };
        buffered.flush().map_err(out)?;
        drop(buffered);
        Ok((copy, renamed))
    }
}

/// Returns the size and the time of a file, which show a change.
fn stamp(path: &Path) -> Result<(u64, Option<SystemTime>), BundleError> {
    let meta = fs::metadata(path).map_err(|error| BundleError::Read { path: path.to_owned(), error })?;
    Ok((meta.len(), meta.modified().ok()))
}

/// Copies exactly `size` bytes from the source into the bundle.
fn copy_bytes(
    source: &mut File,
    file: &BundleEntry,
    size: u64,
    writer: &mut Writer,
    mut step: impl FnMut(u64) -> bool,
) -> Result<(), BundleError> {
    let mut buffer = Vec::with_capacity(STEP);
    let mut left = size;
    let mut begun = false;
    while left > 0 || !begun {
        buffer.clear();
        let wanted = left.min(STEP as u64);
        let read = Read::take(&mut *source, wanted).read_to_end(&mut buffer);
        let count = read.map_err(|error| BundleError::Read { path: file.source.clone(), error })? as u64;
        if count < wanted {
            return Err(BundleError::Changed(file.source.clone()));
        }
        if !begun {
            writer.begin(file.path.as_str(), &buffer, size)?;
            begun = true;
        }
        writer.write(&buffer)?;
        left -= count;
        if !step(count) {
            return Err(BundleError::Stopped);
        }
    }
    Ok(())
}
