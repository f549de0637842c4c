//! The throw-away data of a farm inside one command. It goes when the command ends; what a killed command left is
//! taken away by the next one, told by its lock and not by its age.

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
    /// Makes the folder below `data`, and takes away what ended commands left there. Blocking.
    pub fn new(data: &Path) -> io::Result<Self> {
        let all = data.join("render");
        fs::create_dir_all(&all)?;
        // A process that makes or removes folders holds this lock, so that none is taken before its owner has locked it.
        let gate = File::create(all.join(LOCK))?;
        gate.lock()?;
        for entry in fs::read_dir(&all)?.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && abandoned(&path) {
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

fn abandoned(path: &Path) -> bool {
    match File::open(path.join(LOCK)) {
        Ok(lock) => lock.try_lock().is_ok(),
        // Killed between making the folder and its lock; nobody else is inside the gate.
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn remove(path: &Path) {
    // Under another name nobody finds it any more to put something in.
    let gone = path.with_extension("gone");
    let path = if fs::rename(path, &gone).is_ok() { &gone } else { path };
    match kiln_files::remove_folder(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            tracing::debug!(path = %path.display(), "throw-away data is still being written; the next run removes it");
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "throw-away data could not be removed; the next run tries again");
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
