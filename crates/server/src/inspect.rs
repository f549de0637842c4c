//! What a .blend says of itself, in the words that a submission needs.

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
};

use kiln_blend::Inspection;
use kiln_types::{Bundle, RelPath};

/// Reads a .blend from its beginning to its end mark, away from the tasks that must not wait.
///
/// # Errors
/// Half a sentence on why it is none.
pub(crate) async fn blend_file(path: PathBuf, bakes: NodeBakes) -> Result<Inspection, String> {
    let reading =
        tokio::task::spawn_blocking(move || kiln_blend::inspect_with(&path, &|name| bakes.has(name)));
    match reading.await {
        Ok(Ok(inspection)) => Ok(inspection),
        Ok(Err(error)) => Err(format!("{}.", error.fault)),
        Err(_) => Err("reading it failed inside the server.".to_owned()),
    }
}

/// The folders of a bundle in which geometry nodes have baked: they write a file a frame into `meta`.
#[derive(Default)]
pub(crate) struct NodeBakes {
    folders: HashSet<String>,
    /// The parts of the .blend's folder.
    home: Vec<String>,
    remap: BTreeMap<String, RelPath>,
}

impl NodeBakes {
    pub(crate) fn of(bundle: &Bundle, blend: &RelPath) -> Self {
        let sent = bundle.files.iter().map(|file| &file.path);
        let paths = sent.chain(bundle.shared.iter().map(|file| &file.path));
        let folders = paths.filter_map(|path| {
            let (folder, _) = path.as_str().rsplit_once("/meta/")?;
            Some(folder.to_owned())
        });
        let home = blend
            .parent()
            .map_or_else(Vec::new, |home| home.as_str().split('/').map(str::to_owned).collect());
        Self { folders: folders.collect(), home, remap: bundle.remap.clone() }
    }

    /// By the folder's name in the .blend.
    fn has(&self, name: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name);
        let Some(below) = name.strip_prefix("//") else {
            return self.remap.get(name.as_ref()).is_some_and(|place| self.folders.contains(place.as_str()));
        };
        let mut parts: Vec<&str> = self.home.iter().map(String::as_str).collect();
        for part in below.split(['/', '\\']) {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        self.folders.contains(&parts.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use kiln_types::{BlobHash, BundleFile};

    use super::*;

    #[test]
    fn bakes_of_nodes_are_found_in_a_bundle_by_their_names_in_the_file() {
        let file =
            |path: &str| BundleFile { path: RelPath::new(path).unwrap(), hash: BlobHash::of(b"x"), size: 1 };
        let files = vec![
            file("scenes/shot.blend"),
            file("scenes/blendcache_shot/123/meta/0001_00.json"),
            file("caches/old/meta/0001_00.json"),
            file("caches/empty/blobs/1.blob"),
        ];
        let remap = BTreeMap::from([("/home/ana/old".to_owned(), RelPath::new("caches/old").unwrap())]);
        let bundle = Bundle { files, remap, ..Bundle::default() };
        let bakes = NodeBakes::of(&bundle, &RelPath::new("scenes/shot.blend").unwrap());
        for there in ["//blendcache_shot/123", "//blendcache_shot\\123/", "//../caches/old", "/home/ana/old"]
        {
            assert!(bakes.has(there.as_bytes()), "{there}");
        }
        for lacking in ["//123", "//../caches/empty", "/home/ana", "//../../../..", "", "\u{fffd}"] {
            assert!(!bakes.has(lacking.as_bytes()), "{lacking}");
        }
    }
}
