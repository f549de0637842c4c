//! The options, the errors and the exit of a worker.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use kiln_client::ClientError;
use kiln_host::Device;
use kiln_types::{BlenderSeries, DesiredState, DeviceClass, Epoch, Name, ShortName};

use crate::availability::AvailabilityOptions;

/// The default size of a worker's cache: 20 GiB.
pub const DEFAULT_CACHE_BYTES: u64 = 20 << 30;
/// An artist who tries one thing and then another finds a Blender in each slot.
const IDLE_AFTER: Duration = Duration::from_secs(5 * 60);

/// The options of a worker. [`WorkerOptions::new`] leaves all that can be chosen to Kiln.
#[derive(Clone)]
pub struct WorkerOptions {
    /// `http://host:port`.
    pub server_url: String,
    pub key: String,
    /// Below it each worker of this machine has a folder of its own, `worker-N`.
    pub data: PathBuf,
    /// The folder of `kiln blender install`; `data` if `None`.
    pub installs: Option<PathBuf>,
    /// The folder that remembers the properties of this machine's Blenders for the next start; `data` if `None`.
    pub blender_cache: Option<PathBuf>,
    /// The machine's name where `None`.
    pub name: Option<Name>,
    /// Chosen by cores and memory where `None`.
    pub slots: Option<u16>,
    /// Threads of each Blender where the job does not say; 0 lets Blender decide, as does `None`.
    pub threads: Option<u16>,
    /// Cores that it gives to the farm: fewer slots, and fewer threads of each Blender. All where `None`.
    pub cores: Option<u32>,
    /// Bytes of memory that it gives to the farm; all where `None`.
    pub memory: Option<u64>,
    /// The `nice` value of its Blenders, from 0 to 19.
    pub nice: u8,
    /// Names that jobs may ask for.
    pub tags: Vec<ShortName>,
    /// The farm may wake this machine.
    pub wakes: bool,
    pub availability: AvailabilityOptions,
    /// Blenders to look at besides those found.
    pub blenders: Vec<PathBuf>,
    /// The most the cache of blobs holds, in bytes; what is in use may be above it.
    pub cache_bytes: u64,
    /// The time without work after which at most one spare Blender is kept.
    pub idle_after: Duration,
    /// The Blender that is started at once, while the connection is made; the one used last if `None`.
    pub prestart: Option<BlenderSeries>,
    /// The folder of the blob store of a server in this very process or on this disk: blobs are read from there,
    /// checked all the same, and not kept twice.
    pub local_blobs: Option<PathBuf>,
    /// Folders that this machine and the artists' machines share, by the names that the artists give them.
    pub shared: BTreeMap<ShortName, PathBuf>,
    /// Devices that Blender shall find instead of the real ones; for tests of machines that are not there.
    pub devices: Option<Vec<Device>>,
}

impl WorkerOptions {
    /// The number of GPUs of a simulated machine; one GPU is listed once for each backend.
    pub(crate) fn gpus(&self) -> Option<u32> {
        let devices = self.devices.as_ref()?;
        let of = |class: &DeviceClass| devices.iter().filter(|device| device.backend == *class).count();
        let most = DeviceClass::ALL.iter().filter(|class| class.is_gpu()).map(of).max();
        u32::try_from(most.unwrap_or(0)).ok()
    }

    pub fn new(server_url: impl Into<String>, key: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        Self {
            server_url: server_url.into(),
            key: key.into(),
            data: data.into(),
            installs: None,
            blender_cache: None,
            name: None,
            slots: None,
            threads: None,
            cores: None,
            memory: None,
            nice: 0,
            tags: Vec::new(),
            wakes: false,
            availability: AvailabilityOptions::default(),
            blenders: Vec::new(),
            cache_bytes: DEFAULT_CACHE_BYTES,
            idle_after: IDLE_AFTER,
            prestart: None,
            local_blobs: None,
            shared: BTreeMap::new(),
            devices: None,
        }
    }
}

impl fmt::Debug for WorkerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerOptions")
            .field("server_url", &self.server_url)
            .field("data", &self.data)
            .field("name", &self.name)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}

/// The reason for which a worker cannot work. Each is a sentence for a person.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(
        "the worker's folder cannot be used ({}: {source}); check its permissions, or give another by --data",
        path.display()
    )]
    Data { path: PathBuf, source: std::io::Error },
    #[error("{most} workers run on {} already; give this one another folder by --data", data.display())]
    TooMany { data: PathBuf, most: u16 },
    #[error("a worker cannot have {0} slots; give it 1 to 1024")]
    Slots(u16),
    #[error("the worker's cache cannot be used: {0}")]
    Cache(#[from] kiln_blobs::BlobError),
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The reason is the server's.
    #[error("the server does not take this worker: {0}")]
    Refused(String),
    #[error(
        "the server is at epoch {found} of this farm, and this worker has seen epoch {seen}: an old copy of the \
         server's data seems to run. Start the right server, or, if the copy is meant, remove {}",
        file.display()
    )]
    OldEpoch { seen: Epoch, found: Epoch, file: PathBuf },
    #[error("the worker ended by a fault of its own: {0}")]
    Fault(String),
}

/// The way in which a worker ended.
#[derive(Debug)]
pub enum WorkerExit {
    /// On its own order, such as Ctrl-C.
    Drained,
    /// On the order of the farm (`kiln workers drain` or `stop`).
    Dismissed(DesiredState),
    /// At once; nothing was returned.
    Stopped,
    Failed(WorkerError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_several_backends_use_is_one() {
        let device = |backend, name: &str| Device { backend, name: name.to_owned() };
        let mut options = WorkerOptions::new("http://farm", "key", "data");
        assert_eq!(options.gpus(), None, "the machine itself is asked");
        options.devices = Some(vec![device(DeviceClass::Cpu, "cpu")]);
        assert_eq!(options.gpus(), Some(0));
        let both = |name| [device(DeviceClass::Cuda, name), device(DeviceClass::Optix, name)];
        options.devices = Some(["first", "second"].into_iter().flat_map(both).collect());
        assert_eq!(options.gpus(), Some(2));
    }
}
