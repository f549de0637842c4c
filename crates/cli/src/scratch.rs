//! The temporary data of a farm inside one command. It is removed when the command ends. The next command removes what a
//! killed one left: nobody holds its lock.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

const LOCK: &str = "lock";

/// A folder of this command alone.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Creates the folder below `data`, and removes what ended commands left there. Blocking.
    pub fn new(data: &Path) -> io::Result<Self> {
        let all = data.join("render");
        fs::create_dir_all(&all)?;
        // A process that creates or removes folders holds this lock, so that no folder is removed before its owner has locked it.
        let gate = File::create(all.join(LOCK))?;
        gate.lock()?;
        for entry in fs::read_dir(&all)?.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_abandoned(&path) {
                remove(&path);
            }
        }
        let mut number = std::process::id();
        loop {
            let path = all.join(number.to_string());
            match fs::create_dir(&path) {
                Ok(()) => {
                    let lock = File::create(path.join(LOCK))?;
                    lock.try_lock()?;
                    return Ok(Self { path, _lock: lock });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    number = number.wrapping_add(1_000_003);
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn is_abandoned(path: &Path) -> bool {
    match File::open(path.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        // The owner was killed between the folder and its lock: it would hold the gate otherwise.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn remove(path: &Path) {
    // Under another name, nobody finds the folder to write into it.
    let gone = path.with_extension("gone");
    let path = if fs::rename(path, &gone).is_ok() { &gone } else { path };
    match kiln_files::remove_folder(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            tracing::debug!(path = %path.display(), "temporary data not removed yet: still written");
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "temporary data not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn leftovers_go_and_what_is_in_use_stays() {
        let data = tempfile::tempdir().unwrap();
        let left = data.path().join("render/99999999");
        fs::create_dir_all(left.join("deep")).unwrap();
        fs::write(left.join(LOCK), b"").unwrap();
        let first = Scratch::new(data.path()).unwrap();
        assert!(!left.exists());
        let second = Scratch::new(data.path()).unwrap();
        assert!(first.path().exists() && first.path() != second.path());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists() && second.path().exists());
    }

    #[test]
    fn what_a_killed_worker_left_read_only_goes() {
        let data = tempfile::tempdir().unwrap();
        let left = data.path().join("render/1");
        let bundle = left.join("worker-0/bundles/a");
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("a.blend"), "x").unwrap();
        fs::set_permissions(&bundle, fs::Permissions::from_mode(0o555)).unwrap();
        let _new = Scratch::new(data.path()).unwrap();
        assert!(!left.exists() && !left.with_extension("gone").exists());
    }
}
