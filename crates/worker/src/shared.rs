//! Files that are not sent, because this machine reaches them too: found below its own roots, and verified with what
//! the artist's machine saw.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use kiln_client::hash_file;
use kiln_types::{Failure, FailureCause, SharedFile, ShortName};

/// Milliseconds by which the times of one file may differ: file servers round them.
const TOLERANCE_MS: i64 = 2000;

/// This machine's paths of the folders that a farm shares, by their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct SharedRoots(BTreeMap<ShortName, PathBuf>);

/// A shared file as it was when it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VerifiedFile {
    /// The path on this machine.
    pub(crate) path: PathBuf,
    size: u64,
    modified: SystemTime,
}

impl VerifiedFile {
    /// Compares the file with what it was.
    pub(crate) fn is_unchanged(&self) -> bool {
        self.path.metadata().is_ok_and(|meta| {
            meta.len() == self.size && meta.modified().is_ok_and(|modified| modified == self.modified)
        })
    }
}

impl SharedRoots {
    pub(crate) fn new(roots: BTreeMap<ShortName, PathBuf>) -> Self {
        Self(roots)
    }

    /// Finds each file and compares it with what the artist's machine saw. Blocking.
    pub(crate) fn verify(&self, files: &[SharedFile]) -> Result<Vec<VerifiedFile>, Failure> {
        files.iter().map(|file| self.verify_one(file)).collect()
    }

    fn verify_one(&self, file: &SharedFile) -> Result<VerifiedFile, Failure> {
        let bad = |why: String| Failure::new(FailureCause::BundleUnavailable, why);
        let Some(root) = self.0.get(&file.root) else {
            return Err(bad(format!(
                "this worker does not know the shared folder {0}; start it with --shared {0}=PATH",
                file.root
            )));
        };
        let path = root.join(file.below.to_path());
        let shown = path.display().to_string();
        let absent = |error: io::Error| {
            bad(format!(
                "the shared file {shown} cannot be read ({error}); check that {} is mounted",
                root.display()
            ))
        };
        let meta = fs::metadata(&path).map_err(absent)?;
        let other = |what: String| {
            bad(format!(
                "the shared file {shown} is not the one that the job was made with ({what}); wait until the file \
                 server has caught up, or submit again"
            ))
        };
        if !meta.is_file() {
            return Err(other("it is no file".to_owned()));
        }
        if meta.len() != file.size {
            return Err(other(format!("it has {} bytes, not {}", meta.len(), file.size)));
        }
        let modified = meta.modified().map_err(absent)?;
        match file.hash {
            Some(expected) => {
                let (found, _) = hash_file(&path).map_err(|error| bad(error.to_string()))?;
                if found != expected {
                    return Err(other("its bytes are others".to_owned()));
                }
            }
            None if (unix_ms(modified) - file.modified_ms).abs() > TOLERANCE_MS => {
                return Err(other("it was changed at another time".to_owned()));
            }
            None => {}
        }
        Ok(VerifiedFile { path, size: meta.len(), modified })
    }
}

fn unix_ms(time: SystemTime) -> i64 {
    let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => ms(after),
        Err(before) => -ms(before.duration()),
    }
}

/// Links to the file from its place in a bundle's folder.
pub(crate) fn link(place: &Path, file: &VerifiedFile) -> io::Result<()> {
    std::os::unix::fs::symlink(&file.path, place)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiln_types::{BlobHash, RelPath};

    use super::*;

    struct Bench {
        dir: tempfile::TempDir,
        roots: SharedRoots,
        file: SharedFile,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("maps")).unwrap();
        let path = dir.path().join("maps/wood.png");
        fs::write(&path, b"wood").unwrap();
        let modified_ms = unix_ms(path.metadata().unwrap().modified().unwrap());
        let file = SharedFile {
            path: RelPath::new("maps/wood.png").unwrap(),
            root: "studio".parse().unwrap(),
            below: RelPath::new("maps/wood.png").unwrap(),
            size: 4,
            modified_ms,
            hash: None,
        };
        let roots = SharedRoots::new(BTreeMap::from([("studio".parse().unwrap(), dir.path().to_owned())]));
        Bench { dir, roots, file }
    }

    impl Bench {
        fn refused(&self, change: impl FnOnce(&mut SharedFile)) -> String {
            let mut file = self.file.clone();
            change(&mut file);
            let failure = self.roots.verify(&[file]).unwrap_err();
            assert_eq!(failure.cause, FailureCause::BundleUnavailable);
            assert!(failure.cause.is_worker_failure());
            failure.message
        }
    }

    #[test]
    fn a_file_of_the_same_size_and_about_the_same_time_is_the_one() {
        let bench = bench();
        let path = bench.dir.path().join("maps/wood.png");
        for off in [-1900, 0, 1900] {
            let file = SharedFile { modified_ms: bench.file.modified_ms + off, ..bench.file.clone() };
            let verified = bench.roots.verify(&[file]).unwrap();
            assert_eq!(verified[0].path, path);
            assert!(verified[0].is_unchanged());
        }
        let verified = bench.roots.verify(std::slice::from_ref(&bench.file)).unwrap();
        fs::write(&path, b"burnt").unwrap();
        assert!(!verified[0].is_unchanged());
    }

    #[test]
    fn any_other_file_is_named_with_what_to_do() {
        let bench = bench();
        assert!(bench.refused(|file| file.modified_ms += 2500).contains("another time"));
        assert!(bench.refused(|file| file.size = 5).contains("4 bytes, not 5"));
        assert!(bench.refused(|file| file.below = RelPath::new("maps").unwrap()).contains("no file"));
        let gone = bench.refused(|file| file.below = RelPath::new("maps/oak.png").unwrap());
        assert!(gone.contains("oak.png") && gone.contains("mounted"), "{gone}");
        let unknown = bench.refused(|file| file.root = "nas".parse().unwrap());
        assert!(unknown.contains("--shared nas=PATH"), "{unknown}");
    }

    #[test]
    fn a_hash_counts_more_than_the_time() {
        let bench = bench();
        let hashed = |bytes: &[u8]| SharedFile {
            hash: Some(BlobHash::of(bytes)),
            modified_ms: 0,
            ..bench.file.clone()
        };
        assert!(bench.roots.verify(&[hashed(b"wood")]).is_ok());
        let path = bench.dir.path().join("maps/wood.png");
        let time = path.metadata().unwrap().modified().unwrap();
        fs::write(&path, b"dark").unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(time + Duration::ZERO).unwrap();
        assert!(bench.roots.verify(&[hashed(b"wood")]).unwrap_err().message.contains("bytes are others"));
    }
}
