//! The target of a bundle: a folder or a zip. Both are written under another name beside their place.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, write::DeflateEncoder};
use tempfile::TempDir;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::BundleError;

/// The file that marks a folder as a bundle, and says how to open it.
pub const MANIFEST: &str = "kiln-bundle.json";
/// A file is compressed if its beginning shrinks below this percentage.
const GAINS: usize = 95;

/// The bundle's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Folder(PathBuf),
    Zip(PathBuf),
}

impl Target {
    /// Returns the target at a path: a zip if the name ends in `.zip`.
    pub fn at(path: &Path) -> Self {
        // Fails only for an empty path, which no command line holds.
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let is_zip = whole.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
        if is_zip { Self::Zip(whole) } else { Self::Folder(whole) }
    }

    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Zip(path) => path,
        }
    }

    /// Checks that the bundle may be written there.
    pub fn check(&self, force: bool) -> Result<(), BundleError> {
        let path = self.path();
        let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
        let taken = || BundleError::Exists(path.to_owned());
        match self {
            // An empty folder holds nothing to lose.
            Self::Folder(_) if meta.is_dir() => {
                let mut inside = fs::read_dir(path).map_err(|error| self.unwritable(error))?;
                if inside.next().is_none() {
                    Ok(())
                } else if !force {
                    Err(taken())
                } else if path.join(MANIFEST).is_file() {
                    Ok(())
                } else {
                    Err(BundleError::NotOurs(path.to_owned()))
                }
            }
            Self::Zip(_) if meta.is_file() && force => Ok(()),
            Self::Zip(_) if meta.is_dir() => Err(BundleError::NotOurs(path.to_owned())),
            _ => Err(taken()),
        }
    }

    fn unwritable(&self, error: io::Error) -> BundleError {
        BundleError::Write { path: self.path().to_owned(), error }
    }
}

enum Growing {
    Folder(PathBuf, Option<File>),
    Zip(Box<ZipWriter<BufWriter<File>>>),
}

/// A bundle that is written. It is deleted if it is dropped unfinished.
pub struct Writer {
    target: Target,
    /// Beside the bundle's place, so that a rename brings it there.
    scratch: TempDir,
    into: Growing,
}

impl Writer {
    pub fn new(target: &Target) -> Result<Self, BundleError> {
        let unwritable = |error| target.unwritable(error);
        let beside = target.path().parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(beside).map_err(unwritable)?;
        let scratch =
            tempfile::Builder::new().prefix(".kiln-bundle-").tempdir_in(beside).map_err(unwritable)?;
        let growing = scratch.path().join("bundle");
        let into = match target {
            Target::Folder(_) => {
                fs::create_dir(&growing).map_err(unwritable)?;
                Growing::Folder(growing, None)
            }
            Target::Zip(_) => {
                let file = File::create(&growing).map_err(unwritable)?;
                Growing::Zip(Box::new(ZipWriter::new(BufWriter::with_capacity(1 << 20, file))))
            }
        };
        Ok(Self { target: target.clone(), scratch, into })
    }

    /// The bundle's place.
    pub fn place(&self) -> &Path {
        self.target.path()
    }

    /// A folder for temporary files.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Begins the next file, with its first bytes and its size.
    pub fn begin(&mut self, path: &str, first: &[u8], size: u64) -> Result<(), BundleError> {
        let target = &self.target;
        let unwritable = |error| target.unwritable(error);
        match &mut self.into {
            Growing::Folder(folder, file) => {
                let place = folder.join(path);
                fs::create_dir_all(place.parent().unwrap_or(folder)).map_err(unwritable)?;
                *file = Some(File::create_new(place).map_err(unwritable)?);
            }
            Growing::Zip(zip) => {
                let method =
                    if shrinks(first) { CompressionMethod::Deflated } else { CompressionMethod::Stored };
                // The same files make the same zip, so no times of today. Compression may add some bytes.
                let options = SimpleFileOptions::default()
                    .compression_method(method)
                    .last_modified_time(zip::DateTime::default())
                    .unix_permissions(0o644)
                    .large_file(size > u64::from(u32::MAX) - (64 << 20));
                zip.start_file(path, options).map_err(|error| unwritable(error.into()))?;
            }
        }
        Ok(())
    }

    /// Appends bytes to the present file.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BundleError> {
        let written = match &mut self.into {
            Growing::Folder(_, Some(file)) => file.write_all(bytes),
            Growing::Folder(_, None) => Ok(()),
            Growing::Zip(zip) => zip.write_all(bytes),
        };
        written.map_err(|error| self.target.unwritable(error))
    }

    /// Gives the whole bundle its name.
    pub fn finish(self, force: bool) -> Result<(), BundleError> {
        let Self { target, scratch, into } = self;
        let unwritable = |error| target.unwritable(error);
        match into {
            Growing::Folder(folder, _) => kiln_files::flush_tree(&folder).map_err(unwritable)?,
            Growing::Zip(zip) => {
                let buffered = zip.finish().map_err(|error| unwritable(error.into()))?;
                let file = buffered.into_inner().map_err(|error| unwritable(error.into_error()))?;
                file.sync_all().map_err(unwritable)?;
            }
        }
        // Somebody else may have taken the place meanwhile.
        target.check(force)?;
        let (whole, place) = (scratch.path().join("bundle"), target.path());
        let old = scratch.path().join("old");
        let replaces = matches!(target, Target::Folder(_)) && place.is_dir();
        if replaces {
            fs::rename(place, &old).map_err(unwritable)?;
        }
        let renamed = fs::rename(&whole, place);
        if renamed.is_err() && replaces {
            // The old bundle goes back; if even this fails, it stays in the folder beside.
            if fs::rename(&old, place).is_err() {
                let _ = scratch.keep();
            }
        }
        renamed.and_then(|()| kiln_files::flush_folder(place.parent().unwrap_or(place))).map_err(unwritable)
    }
}

/// Returns whether compression is worth it, judged by the file's beginning.
fn shrinks(first: &[u8]) -> bool {
    let mut packer = DeflateEncoder::new(Vec::new(), Compression::fast());
    // Writing into memory does not fail.
    let packed = packer.write_all(first).and_then(|()| packer.finish());
    packed.is_ok_and(|packed| packed.len() * 100 < first.len() * GAINS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(target: &Target, force: bool) -> String {
        target.check(force).unwrap_err().to_string()
    }

    #[test]
    fn only_what_was_made_by_a_bundle_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Target::at(&temp.path().join("out"));
        folder.check(false).unwrap();
        fs::create_dir(folder.path()).unwrap();
        folder.check(false).unwrap();
        fs::write(folder.path().join("notes.txt"), "precious").unwrap();
        assert!(error(&folder, false).contains("--force"));
        assert!(error(&folder, true).contains("did not make"));
        fs::write(folder.path().join(MANIFEST), "{}").unwrap();
        folder.check(true).unwrap();
        let zip = Target::at(&temp.path().join("out.ZIP"));
        assert!(matches!(zip, Target::Zip(_)));
        zip.check(false).unwrap();
        fs::write(zip.path(), "zip").unwrap();
        assert!(error(&zip, false).contains("--force"));
        zip.check(true).unwrap();
    }

    #[test]
    fn an_unfinished_bundle_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["out", "out.zip"] {
            let mut writer = Writer::new(&Target::at(&temp.path().join(name))).unwrap();
            writer.begin("a/b.png", b"bytes", 5).unwrap();
            writer.write(b"by").unwrap();
            drop(writer);
            assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_does_not_shrink_is_not_packed() {
        assert!(shrinks(&[0; 1000]));
        assert!(!shrinks(b""));
        let mut random = 1u64;
        let noise: Vec<u8> = (0..4096)
            .map(|_| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (random >> 56) as u8
            })
            .collect();
        assert!(!shrinks(&noise));
    }
}
