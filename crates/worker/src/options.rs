//! How a worker is started, what happens to it, and how it ends.

use std::{fmt, path::PathBuf, time::Duration};

use kiln_client::ClientError;
use kiln_host::Device;
use kiln_types::{BlenderSeries, Epoch, Failure, JobId, SlotIndex, WorkerWish};
use serde::{Serialize, Serializer};

/// Bytes of blobs that a worker keeps where nobody says: 20 GiB.
pub const DEFAULT_CACHE_BYTES: u64 = 20 << 30;

/// What a worker needs to know. [`WorkerOptions::new`] leaves all that can be chosen to Kiln.
#[derive(Clone)]
pub struct WorkerOptions {
    /// `http://host:port`.
    pub server_url: String,
    pub key: String,
    /// Below it each worker of this machine has a folder of its own, `worker-N`.
    pub data: PathBuf,
    /// Where `kiln blender install` put its Blenders; `data` where `None`.
    pub installs: Option<PathBuf>,
    /// The folder where what is learnt of this machine's Blenders is kept, so that the next start need not ask
    /// them; `data` where `None`.
    pub blender_cache: Option<PathBuf>,
    /// The machine's name where `None`.
    pub name: Option<String>,
    /// Chosen by cores and memory where `None`.
    pub slots: Option<u16>,
    /// Threads of each Blender where the job does not say; 0 lets Blender decide, as does `None`.
    pub threads: Option<u16>,
    /// Blenders to look at besides those found.
    pub blenders: Vec<PathBuf>,
    /// The most the cache of blobs holds, in bytes; what is in use may be above it.
    pub cache_bytes: u64,
    /// Which Blender is started at once, while the connection is made; the one used last where `None`.
    pub prestart: Option<BlenderSeries>,
    /// The folder of the blob store of a server in this very process or on this disk: blobs are read from there,
    /// checked all the same, and not kept twice.
    pub local_blobs: Option<PathBuf>,
    /// Devices that Blender shall find instead of the real ones; for tests of machines that are not there.
    pub devices: Option<Vec<Device>>,
}

impl WorkerOptions {
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
            blenders: Vec::new(),
            cache_bytes: DEFAULT_CACHE_BYTES,
            prestart: None,
            local_blobs: None,
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

/// Why a worker cannot work. Each is a sentence for a person.
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
    /// In the server's own words.
    #[error("the server does not take this worker: {0}")]
    Refused(String),
    #[error(
        "the server is at reign {found} of this farm, and this worker has seen reign {seen}: an old copy of the \
         server's data seems to run. Start the right server, or, if the copy is meant, remove {}",
        file.display()
    )]
    OldReign { seen: Epoch, found: Epoch, file: PathBuf },
    #[error("the worker ended by a fault of its own: {0}")]
    Fault(String),
}

/// How a worker ended.
#[derive(Debug)]
pub enum WorkerExit {
    /// By the wish of who started it.
    Drained,
    /// By the wish of the farm (`kiln workers drain` or `stop`).
    Dismissed(WorkerWish),
    /// At once; nothing was handed back.
    Stopped,
    Failed(WorkerError),
}

/// Something that happened, for the terminal and for programs. Prints as one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Happening {
    /// The Blenders that were found, as `3.4.1`.
    Blenders {
        versions: Vec<String>,
    },
    NoBlender,
    Connected {
        name: String,
        slots: u16,
    },
    /// The server cannot be reached; the next try follows after `retry`.
    Away {
        why: String,
        /// In seconds where it is written down.
        #[serde(rename = "retry_s", serialize_with = "seconds")]
        retry: Duration,
    },
    Assigned {
        job: JobId,
        slot: SlotIndex,
        frames: Vec<i32>,
    },
    Began {
        job: JobId,
        slot: SlotIndex,
        frame: i32,
    },
    /// The frame has left Blender; it is checked and uploaded next.
    Rendered {
        job: JobId,
        slot: SlotIndex,
        frame: i32,
        seconds: f64,
        /// Seconds from the end of the slot's frame before to the start of this one, by the host's own clock,
        /// where this one was waiting by then.
        #[serde(skip_serializing_if = "Option::is_none")]
        gap: Option<f64>,
    },
    Delivered {
        job: JobId,
        slot: SlotIndex,
        frame: i32,
    },
    Failed {
        job: JobId,
        slot: SlotIndex,
        frame: i32,
        failure: Failure,
    },
    HandedBack {
        job: JobId,
        slot: SlotIndex,
        frame: i32,
    },
    Wish {
        wish: WorkerWish,
    },
    Draining,
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blenders { versions } => write!(f, "found Blender {}", versions.join(", ")),
            Self::NoBlender => write!(
                f,
                "no Blender was found, so this worker gets no frames; get one by `kiln blender install 5.0` or \
                 `apt install blender`, or name one by --blender"
            ),
            Self::Connected { name, slots: 1 } => write!(f, "connected as {name}, with 1 slot"),
            Self::Connected { name, slots } => write!(f, "connected as {name}, with {slots} slots"),
            Self::Away { why, retry } => write!(f, "{why}; trying again in {:.1} s", retry.as_secs_f64()),
            Self::Assigned { job, frames, .. } => {
                let frames: Vec<String> = frames.iter().map(ToString::to_string).collect();
                write!(f, "job {job}: got frames {}", frames.join(", "))
            }
            Self::Began { job, frame, .. } => write!(f, "job {job}: frame {frame} begins"),
            Self::Rendered { job, frame, seconds, .. } => {
                write!(f, "job {job}: frame {frame} rendered in {seconds:.2} s")
            }
            Self::Delivered { job, frame, .. } => write!(f, "job {job}: frame {frame} delivered"),
            Self::Failed { job, frame, failure, .. } => {
                write!(f, "job {job}: frame {frame} failed: {failure}")
            }
            Self::HandedBack { job, frame, .. } => write!(f, "job {job}: frame {frame} handed back"),
            Self::Wish { wish: WorkerWish::Work } => write!(f, "the farm wishes this worker to work"),
            Self::Wish { wish: WorkerWish::Pause } => write!(f, "the farm has paused this worker"),
            Self::Wish { wish: WorkerWish::Drain } => {
                write!(f, "the farm wishes this worker to finish and leave")
            }
            Self::Wish { wish: WorkerWish::Stop } => write!(f, "the farm has stopped this worker"),
            Self::Draining => write!(f, "handing back what is not finished"),
        }
    }
}
