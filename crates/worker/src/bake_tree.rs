//! The tree that a bake writes into: the job's files in real, writable folders.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    sync::Arc,
};

use kiln_host::{gather, open_gathered};
use kiln_types::{BlobHash, BlobHasher, BundleFile, Failure, FailureCause, RelPath};

use crate::{
    bundles::MaterializedBundle,
    scratch::{ScratchFolder, create_folder},
};

/// Endings of files that no simulation writes, and that are large: the tree holds links to them. All else is copied,
/// because a bake may write over it.
const ONLY_READ: &[&str] = &[
    "png", "jpg", "jpeg", "exr", "tif", "tiff", "tga", "bmp", "hdr", "webp", "dpx", "cin", "jp2", "psd",
    "tx", "blend", "abc", "usd", "usda", "usdc", "usdz", "mp4", "mov", "mkv", "avi", "webm", "mpg", "wav",
    "mp3", "ogg", "flac", "aac", "ttf", "otf", "ttc", "ies", "osl", "oso", "ocio", "cube", "spi1d", "spi3d",
    "clf", "vdb",
];
/// Bytes of a report's list of files: less than the server takes in one message.
const MOST_REPORTED: usize = 12 << 20;

/// The files of a finished bake, out of Blender's reach.
#[derive(Debug)]
pub(crate) struct BakedTree {
    pub(crate) folder: ScratchFolder,
    /// Files, folders and links that were in it before the bake.
    pub(crate) entries: usize,
    /// The bundle that it was made from.
    pub(crate) source: Arc<MaterializedBundle>,
    pub(crate) blend: RelPath,
}

/// Makes the tree at `folder`; returns how many entries it has. Blocking.
pub(crate) fn make(folder: &Path, source: &Path, blend: &RelPath) -> io::Result<usize> {
    create_folder(folder)?;
    let blend = source.join(blend.to_path());
    let mut entries = 0;
    let mut folders = vec![(source.to_owned(), folder.to_owned())];
    while let Some((from, to)) = folders.pop() {
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            let kind = entry.file_type()?;
            entries += 1;
            if kind.is_dir() {
                create_folder(&to)?;
                folders.push((from, to));
            } else if kind.is_file() && (from == blend || may_be_written(&from)) {
                fs::copy(&from, &to)?;
                fs::set_permissions(&to, fs::Permissions::from_mode(0o600))?;
            } else {
                symlink(&from, &to)?;
            }
        }
    }
    Ok(entries)
}

fn may_be_written(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // The cache of a fluid, which its next bake overwrites.
    let fluid = ending == "vdb" && name.starts_with("fluid_");
    fluid || !ONLY_READ.contains(&&*ending)
}

/// The files that a bake made or changed, and the .blend also where there was nothing to bake. Blocking.
pub(crate) fn changed_files(tree: &BakedTree) -> Result<Vec<BundleFile>, Failure> {
    let mut files = Vec::new();
    let folder = tree.folder.path();
    for found in gather(folder, tree.entries)? {
        let (mut file, size) = open_gathered(folder, &found.path)?;
        let hash = hash(&mut file).map_err(|error| unreadable(&found.path, &error))?;
        let before = tree.source.folder.join(found.path.to_path());
        let same = before.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == size)
            && fs::File::open(&before)
                .and_then(|mut before| self::hash(&mut before))
                .is_ok_and(|old| old == hash);
        if !same || found.path == tree.blend {
            files.push(BundleFile { path: found.path, hash, size });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if serde_json::to_vec(&files).map_or(usize::MAX, |json| json.len()) > MOST_REPORTED {
        let message =
            format!("the bake left {} files, whose names are more than a report holds", files.len());
        return Err(Failure::new(FailureCause::BadOutput, message));
    }
    Ok(files)
}

fn hash(file: &mut fs::File) -> io::Result<BlobHash> {
    let mut hasher = BlobHasher::new();
    io::copy(file, &mut hasher)?;
    Ok(hasher.hash())
}

fn unreadable(path: &RelPath, error: &io::Error) -> Failure {
    Failure::new(FailureCause::BadOutput, format!("{path}, which the bake made, cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        os::unix::fs::MetadataExt,
    };

    use super::*;

    fn bundle_in(root: &Path) -> Arc<MaterializedBundle> {
        let folder = root.join("source");
        fs::create_dir_all(folder.join("maps")).unwrap();
        fs::create_dir_all(folder.join("blendcache_a")).unwrap();
        for (name, bytes) in
            [("a.blend", "scene"), ("maps/wood.PNG", "wood"), ("blendcache_a/1.bphys", "old"), ("notes", "n")]
        {
            fs::write(folder.join(name), bytes).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o444)).unwrap();
        }
        Arc::new(MaterializedBundle {
            folder,
            remap: BTreeMap::new(),
            unused: BTreeSet::new(),
            size: 12,
            shared: Vec::new(),
        })
    }

    #[test]
    fn new_and_changed_files_are_the_result_and_the_bundle_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let source = bundle_in(dir.path());
        let folder = dir.path().join("work");
        let entries = make(&folder, &source.folder, &RelPath::new("a.blend").unwrap()).unwrap();
        assert_eq!(entries, 6);
        let blend = RelPath::new("a.blend").unwrap();
        let tree = BakedTree { folder: ScratchFolder::new(folder.clone()), entries, source, blend };
        let files = changed_files(&tree).unwrap();
        assert_eq!(files.len(), 1, "a copy is no change: {files:?}");
        assert_eq!(files[0].hash, BlobHash::of(b"scene"));
        assert!(folder.join("maps/wood.PNG").is_symlink() && !folder.join("maps").is_symlink());
        // As Blender saves: beside it, and renamed over it. And a cache is written over.
        fs::write(folder.join("a.blend@"), "baked").unwrap();
        fs::rename(folder.join("a.blend@"), folder.join("a.blend")).unwrap();
        fs::write(folder.join("blendcache_a/1.bphys"), "new").unwrap();
        fs::create_dir_all(folder.join("cache_fluid/data")).unwrap();
        fs::write(folder.join("cache_fluid/data/fluid_data_0001.vdb"), "").unwrap();
        symlink("/etc/passwd", folder.join("secret")).unwrap();
        let files = changed_files(&tree).unwrap();
        let named: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
        assert_eq!(
            named,
            [("a.blend", 5), ("blendcache_a/1.bphys", 3), ("cache_fluid/data/fluid_data_0001.vdb", 0)]
        );
        assert_eq!(files[0].hash, BlobHash::of(b"baked"));
        assert_eq!(fs::read(tree.source.folder.join("blendcache_a/1.bphys")).unwrap(), b"old");
    }

    #[test]
    fn what_a_bake_may_write_over_shares_no_inode_with_what_others_read() {
        let dir = tempfile::tempdir().unwrap();
        let source = bundle_in(dir.path());
        let folder = dir.path().join("work");
        make(&folder, &source.folder, &RelPath::new("a.blend").unwrap()).unwrap();
        for name in ["a.blend", "blendcache_a/1.bphys", "notes"] {
            let inode = |root: &Path| root.join(name).symlink_metadata().unwrap().ino();
            assert_ne!(inode(&folder), inode(&source.folder), "{name}");
            assert!(folder.join(name).symlink_metadata().unwrap().is_file(), "{name}");
        }
        for (name, written) in
            [("fluid_data_0001.vdb", true), ("smoke_0001.vdb", false), ("x.uni", true), ("b.blend", false)]
        {
            assert_eq!(may_be_written(Path::new(name)), written, "{name}");
        }
    }
}
