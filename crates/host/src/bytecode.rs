//! Compiled Python for Blenders that come without.
//!
//! A Blender from Debian carries the sources of its scripts only, and its Python may not write what it compiles:
//! every start compiles some 350 modules again, 0.3 s of 0.75. The first process of a Blender keeps the compiled
//! form, before it opens any file; later ones are pointed at it. Python itself checks each entry against its
//! source's time and size, so an upgrade in place is only slow, never wrong.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError},
};

use kiln_types::{BlenderFlavor, BlobHash};

use crate::BlenderInstall;

/// The use of compiled scripts by a process that is about to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bytecode {
    /// Nothing: a wheel brings its own.
    Off,
    /// Use what is there.
    Use(PathBuf),
    /// Make it.
    Make(PathBuf),
}

impl Bytecode {
    /// `store` holds one folder for each Blender.
    pub(crate) fn of(install: &BlenderInstall, store: Option<&Path>) -> Self {
        let (Some(store), BlenderFlavor::Executable) = (store, install.flavor) else { return Self::Off };
        let folder = store.join(name(install));
        if folder.is_dir() {
            return Self::Use(folder);
        }
        // One process of this program is enough.
        static MAKING: OnceLock<Mutex<HashSet<PathBuf>>> = OnceLock::new();
        let first = MAKING
            .get_or_init(Mutex::default)
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(folder.clone());
        if first && fs::create_dir_all(store).is_ok() { Self::Make(folder) } else { Self::Off }
    }
}

fn name(install: &BlenderInstall) -> String {
    let changed = fs::metadata(&install.program).map(|meta| (meta.mtime(), meta.size())).unwrap_or_default();
    let BlenderInstall { program, version, build_hash, .. } = install;
    let hash = BlobHash::of(format!("{} {version} {build_hash} {changed:?}", program.display()).as_bytes());
    hash.to_string()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_makes_it_and_later_ones_use_it() {
        let store = tempfile::tempdir().unwrap();
        let install = BlenderInstall {
            program: store.path().join("blender"),
            flavor: BlenderFlavor::Executable,
            version: "3.4.1".parse().unwrap(),
            build_hash: String::new(),
        };
        let Bytecode::Make(folder) = Bytecode::of(&install, Some(store.path())) else { panic!("not made") };
        assert_eq!(Bytecode::of(&install, Some(store.path())), Bytecode::Off);
        fs::create_dir(&folder).unwrap();
        assert_eq!(Bytecode::of(&install, Some(store.path())), Bytecode::Use(folder));
        let module = BlenderInstall { flavor: BlenderFlavor::Module, ..install.clone() };
        assert_eq!(Bytecode::of(&module, Some(store.path())), Bytecode::Off);
        assert_eq!(Bytecode::of(&install, None), Bytecode::Off);
    }
}
