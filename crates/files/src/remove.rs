//! Folders that are removed while a process that ends still writes into them.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// The time for which a folder is tried again that others still write into or remove from: a process that was killed
/// ends its last system call first.
const TRY_FOR: Duration = Duration::from_secs(2);
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// Removes a folder and all in it, also where parts of it are read-only; absent is fine. Waits up to two seconds for
/// others who change it at the same time.
///
/// # Errors
/// If something in it is not the owner's, or others go on changing it.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    let began = Instant::now();
    loop {
        let removed = fs::remove_dir_all(folder).or_else(|_| {
            unlock(folder)?;
            fs::remove_dir_all(folder)
        });
        let Err(error) = removed else { return Ok(()) };
        if folder.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(());
        }
        let is_changing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty);
        if !is_changing || began.elapsed() >= TRY_FOR {
            return Err(error);
        }
        thread::sleep(TRY_AGAIN);
    }
}

/// Gives the owner back the right to remove what lies in read-only folders. Follows no link.
fn unlock(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            unlock(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_read_only_parts_goes_and_an_absent_one_is_fine() {
        let data = tempfile::tempdir().unwrap();
        let (folder, outside) = (data.path().join("bundle"), data.path().join("outside"));
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        fs::write(folder.join("deep/file"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("deep/link")).unwrap();
        for part in ["deep", ""] {
            fs::set_permissions(folder.join(part), fs::Permissions::from_mode(0o555)).unwrap();
        }
        remove_folder(&folder).unwrap();
        assert!(!folder.exists() && outside.join("kept").exists());
        remove_folder(&folder).unwrap();
    }

    #[test]
    fn a_folder_goes_even_if_a_process_that_ends_still_writes_into_it() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("slot");
        fs::create_dir(&folder).unwrap();
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let began = Instant::now();
                let mut written = 0;
                while began.elapsed() < Duration::from_millis(300) {
                    // A folder that was removed meanwhile is made again, as Blender makes its own.
                    let deep = folder.join(format!("bytecode/{}", written % 50));
                    written += u32::from(fs::create_dir_all(&deep).is_ok());
                    written += u32::from(fs::write(deep.join("module.pyc"), b"x").is_ok());
                }
                assert!(written > 0);
            });
            while !writer.is_finished() {
                remove_folder(&folder).unwrap();
            }
        });
        remove_folder(&folder).unwrap();
        assert!(!folder.exists());
    }
}
