//! What a .blend says of itself, in the words that a submission needs.

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read, Seek},
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use kiln_blend::{Inspection, Limits};
use kiln_blobs::{BlobReader, Blobs};
use kiln_types::{BlobHash, Bundle, RelPath};
use tokio::sync::mpsc;

/// Bytes in which a file is unpacked.
const PIECE: u64 = 1 << 20;

/// Reads a .blend from its beginning to its end mark, away from the tasks that must not wait.
///
/// # Errors
/// Half a sentence on why it is none.
pub(crate) async fn blend_file(
    blobs: &Blobs,
    hash: &BlobHash,
    bakes: NodeBakes,
) -> Result<Inspection, String> {
    let reader = blobs.reader(hash).await.map_err(|error| format!("{error}."))?;
    let reading = tokio::task::spawn_blocking(move || {
        kiln_blend::inspect_with(reader, &Limits::default(), &|name| bakes.has(name))
    });
    match reading.await {
        Ok(Ok(inspection)) => Ok(inspection),
        Ok(Err(fault)) => Err(format!("{fault}.")),
        Err(_) => Err("reading it failed inside the server.".to_owned()),
    }
}

/// The bytes of a packed .blend as Blender wrote them before it packed them; `None` where it is not packed. The
/// bundle holds these, because they can be split.
///
/// # Errors
/// Where it cannot be read.
pub(crate) async fn unpacked(
    reader: BlobReader,
) -> io::Result<Option<impl Stream<Item = io::Result<Bytes>>>> {
    let open = move || {
        let mut reader = reader;
        let mut magic = Vec::new();
        reader.by_ref().take(4).read_to_end(&mut magic)?;
        reader.rewind()?;
        let limits = Limits::default();
        let most = limits.unpacked.max(reader.size().saturating_mul(limits.ratio));
        let mut bytes = kiln_chunks::unpack_blend(reader, most)?;
        let mut first = Vec::new();
        bytes.by_ref().take(4).read_to_end(&mut first)?;
        Ok::<_, io::Error>((first != magic).then(|| io::Cursor::new(first).chain(bytes)))
    };
    let opened = tokio::task::spawn_blocking(open).await.map_err(io::Error::other)??;
    let Some(mut bytes) = opened else { return Ok(None) };
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        loop {
            let mut piece = Vec::new();
            let read = bytes.by_ref().take(PIECE).read_to_end(&mut piece);
            let last = !matches!(read, Ok(1..));
            if matches!(read, Ok(0))
                || sender.blocking_send(read.map(|_| Bytes::from(piece))).is_err()
                || last
            {
                return;
            }
        }
    });
    Ok(Some(stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    })))
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
