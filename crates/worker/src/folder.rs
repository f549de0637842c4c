//! The folder and the identity of a worker.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use kiln_files::{Access, Durability, remove_drafts, remove_folder, write_atomically};
use kiln_types::{BlenderSeries, BlobHash, Epoch, Name, WorkerId};

use crate::{options::WorkerError, scratch::create_folder};

/// Workers that may run side by side on one data folder.
const MOST: u16 = 256;

/// A worker's folder, locked for as long as this lives.
///
/// `lock` and `id` stay for life, `epochs` remembers the epochs seen, `last-series` what to start first; `roots`
/// (Blender's folders), `bundles`, `inputs` and `outbox` are emptied at each start; `cache` holds blobs.
#[derive(Debug)]
pub(crate) struct WorkerFolder {
    pub(crate) id: WorkerId,
    /// The number of this worker on its machine, from 0.
    pub(crate) number: u16,
    pub(crate) folder: PathBuf,
    _lock: File,
}

impl WorkerFolder {
    /// Takes the first folder `worker-N` below `data` that nobody has locked, and clears what a worker that died
    /// left in it. Blocking.
    pub(crate) fn claim(data: &Path) -> Result<Self, WorkerError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| WorkerError::Data { path, source }
        };
        for number in 0..MOST {
            let folder = data.join(format!("worker-{number}"));
            create_folder(&folder).map_err(failed(&folder))?;
            let folder = folder.canonicalize().map_err(failed(&folder))?;
            let path = folder.join("lock");
            let lock = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(0o600)
                .open(&path)
                .map_err(failed(&path))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(failed(&path)(error)),
            }
            remove_drafts(&folder).map_err(failed(&folder))?;
            let id = id(&folder).map_err(failed(&folder.join("id")))?;
            tidy(&folder).map_err(failed(&folder))?;
            return Ok(Self { id, number, folder, _lock: lock });
        }
        Err(WorkerError::TooMany { data: data.to_owned(), most: MOST })
    }

    /// Empties the folders that are only for the time of a run.
    pub(crate) async fn tidy(&self) -> io::Result<()> {
        let folder = self.folder.clone();
        tokio::task::spawn_blocking(move || tidy(&folder)).await.map_err(io::Error::other)?
    }

    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the wanted name, or the machine's, with a number where another worker of this machine runs beside it.
    pub(crate) fn name(&self, wanted: Option<&Name>, hostname: &str) -> Name {
        let numbered = || match self.number {
            0 => hostname.to_owned(),
            number => format!("{hostname}-{}", number + 1),
        };
        wanted.cloned().or_else(|| Name::nearest(&numbered())).unwrap_or_else(|| Name::from_static("worker"))
    }

    pub(crate) fn last_series(&self) -> Option<BlenderSeries> {
        fs::read_to_string(self.part("last-series")).ok()?.trim().parse().ok()
    }

    /// Only a hint for the next start: one that cannot be written costs that start a second.
    pub(crate) fn remember_series(&self, series: BlenderSeries) {
        let (path, text) = (self.part("last-series"), series.to_string());
        if let Err(error) = write_atomically(&path, text.as_bytes(), Access::Owner, Durability::Ephemeral) {
            tracing::debug!(%error, "the last series of Blender cannot be remembered");
        }
    }

    /// The highest epoch seen of the farm that this key opens. The key is made with the server's data, so it
    /// names the farm, whatever address it has.
    pub(crate) fn epoch(&self, key: &str) -> Epoch {
        self.epochs().get(&farm(key)).copied().unwrap_or_default()
    }

    pub(crate) fn remember_epoch(&self, key: &str, epoch: Epoch) -> io::Result<()> {
        let mut epochs = self.epochs();
        if epochs.get(&farm(key)).is_some_and(|seen| *seen >= epoch) {
            return Ok(());
        }
        epochs.insert(farm(key), epoch);
        let text = serde_json::to_vec(&epochs)?;
        write_atomically(&self.part("epochs"), &text, Access::Owner, Durability::Durable)
    }

    fn epochs(&self) -> BTreeMap<String, Epoch> {
        let bytes = fs::read(self.part("epochs")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

fn tidy(folder: &Path) -> io::Result<()> {
    for part in ["roots", "bundles", "inputs", "outbox"] {
        let part = folder.join(part);
        remove_folder(&part)?;
        create_folder(&part)?;
    }
    Ok(())
}

fn farm(key: &str) -> String {
    BlobHash::of(key.as_bytes()).to_string()[..16].to_owned()
}

/// The worker's id, drawn at its first start.
fn id(folder: &Path) -> io::Result<WorkerId> {
    let path = folder.join("id");
    match fs::read_to_string(&path) {
        Ok(text) => {
            if let Ok(id) = text.trim().parse() {
                return Ok(id);
            }
            tracing::warn!(path = %path.display(), "this file holds no worker id; a new one is drawn");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = WorkerId::new(rand::random());
    write_atomically(&path, id.to_string().as_bytes(), Access::Owner, Durability::Durable)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn two_workers_are_two_and_come_back_as_themselves() {
        let data = tempfile::tempdir().unwrap();
        let first = WorkerFolder::claim(data.path()).unwrap();
        let second = WorkerFolder::claim(data.path()).unwrap();
        assert_ne!(first.id, second.id);
        assert_eq!((first.number, second.number), (0, 1));
        assert_eq!(&*first.name(None, "anvil"), "anvil");
        assert_eq!(&*second.name(None, "anvil"), "anvil-2");
        assert_eq!(&*first.name(None, " \n"), "worker");
        assert_eq!(&*second.name(Some(&"left".parse().unwrap()), "anvil"), "left");
        let id = first.id;
        drop(first);
        let again = WorkerFolder::claim(data.path()).unwrap();
        assert_eq!((again.id, again.number), (id, 0));
    }

    #[test]
    fn what_a_dead_worker_left_is_cleared_and_its_neighbour_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let first = WorkerFolder::claim(data.path()).unwrap();
        let second = WorkerFolder::claim(data.path()).unwrap();
        for worker in [&first, &second] {
            let locked = worker.part("bundles").join("b");
            create_folder(&locked).unwrap();
            fs::write(locked.join("f"), b"x").unwrap();
            fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
        }
        drop(first);
        let again = WorkerFolder::claim(data.path()).unwrap();
        assert!(again.part("bundles").is_dir() && !again.part("bundles").join("b").exists());
        assert!(second.part("bundles").join("b/f").exists());
        remove_folder(&second.part("bundles")).unwrap();
    }

    #[test]
    fn epochs_are_remembered_by_farm() {
        let data = tempfile::tempdir().unwrap();
        let worker = WorkerFolder::claim(data.path()).unwrap();
        assert_eq!(worker.epoch("key"), Epoch(0));
        worker.remember_epoch("key", Epoch(5)).unwrap();
        worker.remember_epoch("key", Epoch(3)).unwrap();
        assert_eq!(worker.epoch("key"), Epoch(5));
        assert_eq!(worker.epoch("another farm's"), Epoch(0));
        let text = fs::read_to_string(worker.part("epochs")).unwrap();
        assert!(!text.contains("key"), "the key itself is kept nowhere");
    }

    #[test]
    fn a_data_folder_that_cannot_be_is_named() {
        let data = tempfile::tempdir().unwrap();
        let file = data.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = WorkerFolder::claim(&file).unwrap_err().to_string();
        assert!(error.contains("file"), "{error}");
    }
}
