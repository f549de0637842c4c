//! Reading of .blend files in bundles, for submissions.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, Read, Seek},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use kiln_blend::{BundleSource, Inspection, LinkedSimulation, ReadLimits, RenderScope};
use kiln_blobs::{BlobReader, Blobs};
use kiln_types::{BlobHash, Bundle, JobSpec, RelPath};
use tokio::sync::mpsc;

/// Bytes of a piece of an unpacked file.
const PIECE: u64 = 1 << 20;

/// Checks that a file is a whole .blend, from its beginning to its end mark. Blocks.
pub(crate) fn check(file: File) -> Result<(), String> {
    let read = kiln_blend::inspect_reader(file, &ReadLimits::default());
    read.map(drop).map_err(|fault| format!("{fault}."))
}

/// A bundle that the server holds, in which .blend files find each other.
pub(crate) struct Contents {
    blobs: Blobs,
    bundle: Bundle,
    files: HashMap<String, BlobHash>,
    /// The names of files that are not empty, by their folder.
    folders: HashMap<String, Vec<String>>,
}

impl Contents {
    pub(crate) fn of(blobs: &Blobs, bundle: Bundle) -> Self {
        let files = bundle.files.iter().map(|file| (file.path.as_str().to_owned(), file.hash)).collect();
        let sent = bundle.files.iter().filter(|file| file.size > 0).map(|file| &file.path);
        let mut folders: HashMap<String, Vec<String>> = HashMap::new();
        for path in sent.chain(bundle.shared.iter().map(|file| &file.path)) {
            if let Some((folder, name)) = path.as_str().rsplit_once('/') {
                folders.entry(folder.to_owned()).or_default().push(name.to_owned());
            }
        }
        Self { blobs: blobs.clone(), bundle, files, folders }
    }

    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Opens one of the .blend files and calls `read` with it, where blocking is allowed.
    async fn read_blend<T: Send + 'static>(
        self: &Arc<Self>,
        blend: &RelPath,
        read: impl FnOnce(&Self, BlobReader) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (contents, blend) = (self.clone(), blend.clone());
        let open_and_read = move || {
            let hash = contents.files.get(blend.as_str()).ok_or("the bundle does not hold it.")?;
            let file = contents.blobs.open_reader(hash).map_err(|error| format!("{error}."))?;
            read(&contents, file)
        };
        let read = tokio::task::spawn_blocking(open_and_read).await;
        read.unwrap_or_else(|_| Err("reading it failed inside the server.".to_owned()))
    }

    /// Reads the scenes and the dependencies of one of the .blend files.
    pub(crate) async fn inspect(self: &Arc<Self>, blend: &RelPath) -> Result<Inspection, String> {
        let path = blend.clone();
        self.read_blend(blend, move |contents, file| {
            let read = kiln_blend::inspect_bundled(contents, &path, file, &ReadLimits::default());
            read.map_err(|fault| format!("{fault}."))
        })
        .await
    }

    /// Returns the paths of files that are not in the bundle and that no render of its only .blend uses.
    pub(crate) async fn find_unused(
        self: &Arc<Self>,
        spec: &JobSpec,
        scene: &str,
    ) -> Result<BTreeSet<String>, String> {
        let (scene, frames, settings) =
            (scene.to_owned(), spec.frames.clone(), spec.session.settings.clone());
        self.read_blend(&spec.session.blend, move |_, file| {
            let requested = RenderScope {
                view_layer: settings.view_layer.as_deref(),
                engine: settings.engine.as_deref(),
                ..RenderScope::new(&scene, &frames)
            };
            Ok(kiln_blend::find_unused_paths(file, &ReadLimits::default(), &requested))
        })
        .await
    }

    /// Returns the simulations that the .blend links from libraries in the bundle; only the libraries can bake them.
    pub(crate) async fn find_linked(
        self: &Arc<Self>,
        blend: &RelPath,
    ) -> Result<Vec<LinkedSimulation>, tokio::task::JoinError> {
        let (contents, blend) = (self.clone(), blend.clone());
        let reading = move || kiln_blend::find_linked_in_bundle(&*contents, &blend, &ReadLimits::default());
        tokio::task::spawn_blocking(reading).await
    }
}

impl BundleSource for Contents {
    type File = BlobReader;

    fn open(&self, place: &RelPath) -> Option<BlobReader> {
        self.blobs.open_reader(self.files.get(place.as_str())?).ok()
    }

    fn files_in(&self, folder: &RelPath) -> Vec<String> {
        self.folders.get(folder.as_str()).cloned().unwrap_or_default()
    }

    fn remapped(&self, meaning: &str) -> Option<&RelPath> {
        self.bundle.remap.get(meaning)
    }
}

/// Returns the bytes of a packed .blend as Blender wrote them before it packed them; `None` if it is not packed. The
/// bundle holds the unpacked bytes, because they can be split.
pub(crate) async fn unpacked(
    reader: BlobReader,
) -> io::Result<Option<impl Stream<Item = io::Result<Bytes>>>> {
    let open = move || {
        let mut reader = reader;
        let mut magic = Vec::new();
        reader.by_ref().take(4).read_to_end(&mut magic)?;
        reader.rewind()?;
        let limits = ReadLimits::default();
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
