//! The check that a program stays at its path after the next build and the next boot.

use std::{
    env,
    fs::Metadata,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// The reason why a service cannot start a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemporaryPath {
    #[error("{} is in a build folder, and the next build replaces it", .0.display())]
    Build(PathBuf),
    #[error("{} is in a folder for temporary files, which the next boot empties", .0.display())]
    Temporary(PathBuf),
}

/// Checks that a program is not in a folder of temporary files.
pub fn check_path(program: &Path) -> Result<(), TemporaryPath> {
    let folders = || program.ancestors().skip(1);
    // Cargo marks its folder at the top and beside the programs.
    let built =
        |folder: &Path| folder.join(".rustc_info.json").is_file() || folder.join(".fingerprint").is_dir();
    if folders().any(built) {
        return Err(TemporaryPath::Build(program.to_owned()));
    }
    let temporary = ["/tmp", "/var/tmp", "/dev/shm", "/run"].map(PathBuf::from);
    if temporary.iter().chain([&env::temp_dir()]).any(|folder| program.starts_with(folder)) {
        return Err(TemporaryPath::Temporary(program.to_owned()));
    }
    Ok(())
}

/// Returns the first part of a path that an account without rights of its own cannot pass or, at the end, run.
pub fn closed_to_others(program: &Path) -> Option<PathBuf> {
    let open = |meta: &Metadata, bits| meta.permissions().mode() & bits == bits;
    let closed = |path: &Path, bits| path.metadata().is_ok_and(|meta| !open(&meta, bits));
    let mut folders: Vec<&Path> = program.ancestors().skip(1).collect();
    folders.reverse();
    folders
        .into_iter()
        .find(|folder| closed(folder, 0o001))
        .or_else(|| closed(program, 0o005).then_some(program))
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn build_folders_and_temporary_folders_are_known() {
        // This very test lies in a build folder.
        let test = env::current_exe().unwrap();
        assert_eq!(check_path(&test), Err(TemporaryPath::Build(test.clone())));
        let temp = tempfile::tempdir().unwrap();
        let program = temp.path().join("kiln");
        assert_eq!(check_path(&program), Err(TemporaryPath::Temporary(program.clone())));
        assert_eq!(check_path(Path::new("/usr/local/bin/kiln")), Ok(()));
        assert_eq!(check_path(Path::new("/home/ana/target/bin/kiln")), Ok(()), "a name alone says nothing");
    }

    #[test]
    fn what_others_cannot_run_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("home");
        let program = folder.join("kiln");
        fs::create_dir(&folder).unwrap();
        fs::write(&program, "").unwrap();
        let chmod = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        chmod(temp.path(), 0o755);
        for (of_folder, of_program, closed) in [
            (0o755, 0o755, None),
            (0o711, 0o755, None),
            (0o750, 0o755, Some(folder.clone())),
            (0o755, 0o700, Some(program.clone())),
        ] {
            chmod(&program, of_program);
            chmod(&folder, of_folder);
            assert_eq!(closed_to_others(&program), closed);
        }
    }
}
