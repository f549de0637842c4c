//! From a data folder to a server that answers, and back.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::{Duration, SystemTime},
};

use kiln_api::{BUILD, Collected};
use kiln_blobs::{BlobStore, Blobs, ChunkStore, Uploads};
use kiln_files::{Access, write_atomically};
use kiln_store::{Durability, ReadPool, Store};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::App,
    auth::{Gate, Hosts},
    collector::Collector,
    connections::ConnectionLimits,
    error::ServerError,
    events::Hub,
    holds::Holds,
    key::FarmKey,
    listen,
    logs::Logs,
    retention::Retention,
    routes::{self, MAX_BLOB},
    scheduler::Scheduler,
    space,
    splitter::{SplitQueue, Splitter},
    wake::Waker,
};

/// The default address of a server.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8765);

/// The options of a server.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The folder of records, bytes, logs and the farm key; created if it does not exist.
    pub data: PathBuf,
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Allows listening where other machines can reach it, although nothing is encrypted yet.
    pub insecure: bool,
    /// `Ephemeral` for the server inside a `kiln render`.
    pub durability: Durability,
    /// Host names besides this machine's own under which the server answers.
    pub allowed_hosts: Vec<String>,
    /// Milliseconds of silence after which a worker's lease expires.
    pub lease_ms: u64,
    /// The time for which a Blender may work on a frame and show nothing for it: no sample, no message, no byte.
    pub stall: Duration,
    /// Milliseconds between two heartbeats of a worker.
    pub heartbeat_ms: u64,
    /// `None` for a temporary server.
    pub retention: Option<Retention>,
    /// Keeps files of bundles as chunks. On a disk that workers read as well, whole files are better.
    pub chunks: bool,
    /// The addresses to which wake-on-LAN packets go; `None` for the broadcast address of every network of this machine.
    pub wake_to: Option<Vec<SocketAddr>>,
    /// The time for which work waits before a sleeping worker is woken for it.
    pub wake_after: Duration,
}

impl ServerOptions {
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            listen: DEFAULT_LISTEN,
            insecure: false,
            durability: Durability::Durable,
            allowed_hosts: Vec::new(),
            lease_ms: kiln_core::Config::default().lease_ms,
            stall: Duration::from_millis(kiln_core::Config::default().stall_ms),
            heartbeat_ms: 5_000,
            retention: Some(Retention::default()),
            chunks: true,
            wake_to: None,
            wake_after: Duration::from_secs(20),
        }
    }
}

/// `server.json` in the data folder, which exists while the server runs: local commands find the server by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFile {
    pub url: String,
    pub pid: u32,
    pub build: String,
}

impl ServerFile {
    pub fn path(data: &Path) -> PathBuf {
        data.join("server.json")
    }

    /// Returns `None` if no server runs on this folder, or its file cannot be read.
    pub fn read(data: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(data)).ok()?).ok()
    }

    fn write(&self, data: &Path) -> io::Result<()> {
        // A loss of power ends the server, too.
        let text = serde_json::to_vec(self)?;
        write_atomically(&Self::path(data), &text, Access::Usual, Durability::Ephemeral)
    }
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Starts a server, which answers once this returns.
    pub async fn start(options: ServerOptions) -> Result<RunningServer, ServerError> {
        if !options.listen.ip().is_loopback() && !options.insecure {
            return Err(ServerError::NeedsInsecure(options.listen));
        }
        listen::raise_file_limit();
        let data = options.data.clone();
        // First: if the port is in use, nothing has been created yet.
        let listener = listen::bind(options.listen).await.map_err(|error| explain_port(&data, error))?;
        make_folder(&data).map_err(|error| ServerError::Data { folder: data.clone(), error })?;
        // This locks the folder: a second server must not touch the first one's files.
        let (store, epoch) = Store::open(&data, options.durability).await?;
        let addr =
            listener.local_addr().map_err(|error| ServerError::Listen { listen: options.listen, error })?;
        let key = FarmKey::load_or_create(&data)?;
        let (app, scheduler, split_queue) = open(&options, store.clone()).await?;
        let file = ServerFile { url: url(addr), pid: std::process::id(), build: BUILD.to_owned() };
        file.write(&data).map_err(|error| ServerError::Data { folder: data.clone(), error })?;
        tracing::info!(url = %file.url, data = %data.display(), %epoch, "server started");
        let gate = Gate { key: key.clone(), hosts: Hosts::new(addr, &options.allowed_hosts) };
        let stop = app.stop.clone();
        let collector = Arc::downgrade(&app.collector);
        let task = tokio::spawn(run(app, scheduler, split_queue, gate, listener, store, data));
        Ok(RunningServer { addr, key: key.as_str().to_owned(), stop, collector, task })
    }
}

/// Returns the more helpful error if the server of this very folder uses the port.
fn explain_port(data: &Path, error: ServerError) -> ServerError {
    let ServerError::PortInUse { port, .. } = error else { return error };
    let own =
        ServerFile::read(data).filter(|file| file.url.ends_with(&format!(":{port}"))).is_some_and(|file| {
            let pid = i32::try_from(file.pid).ok().and_then(rustix::process::Pid::from_raw);
            pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
        });
    if own { ServerError::DataInUse(data.to_owned()) } else { error }
}

/// Creates a folder that only its owner may read: it holds the key and everyone's scenes.
fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

async fn open(options: &ServerOptions, store: Store) -> Result<(App, Scheduler, SplitQueue), ServerError> {
    let durability = options.durability;
    let whole = BlobStore::open(&options.data, durability).await?;
    let uploads = Uploads::open(&options.data, whole.clone(), MAX_BLOB).await?;
    let chunks = match options.chunks {
        true => Some(ChunkStore::open(&options.data, durability).await?),
        false => None,
    };
    let space = space::of(&options.data);
    if let Some(chunks) = &chunks {
        chunks.keep_free(space.clone());
    }
    let blobs = Blobs::new(whole, chunks);
    let (splitter, split_queue) = Splitter::new();
    let folder = options.data.join("logs");
    let logs = Logs::open(folder, space.clone()).map_err(|error| ServerError::Inside(error.to_string()))?;
    let hub = Arc::new(Hub::new());
    let stall_ms = u64::try_from(options.stall.as_millis()).unwrap_or(u64::MAX);
    let config = kiln_core::Config { lease_ms: options.lease_ms, stall_ms, ..kiln_core::Config::default() };
    let heartbeat_ms = options.heartbeat_ms;
    let (scheduler, handle) =
        Scheduler::open(store.clone(), hub.clone(), logs.clone(), config, heartbeat_ms).await?;
    let holds = Holds::default();
    let collector = Arc::new(Collector {
        retention: options.retention,
        store: store.reading_by(ReadPool::Scans),
        blobs: blobs.clone(),
        uploads: uploads.clone(),
        logs: logs.clone(),
        scheduler: handle.clone(),
        holds: holds.clone(),
        space: space.clone(),
        running: Default::default(),
    });
    let waker =
        Waker { scheduler: handle.clone(), targets: options.wake_to.clone(), patience: options.wake_after };
    let app = App {
        waker: Arc::new(waker),
        store,
        blobs,
        uploads,
        scheduler: handle,
        hub,
        logs,
        holds,
        collector,
        space,
        splitter,
        heartbeat_ms,
        stop: CancellationToken::new(),
        links: TaskTracker::new(),
    };
    Ok((app, scheduler, split_queue))
}

/// Runs the server until it is stopped, or the scheduler cannot go on.
async fn run(
    app: App,
    scheduler: Scheduler,
    split_queue: SplitQueue,
    gate: Gate,
    listener: TcpListener,
    store: Store,
    data: PathBuf,
) -> Result<(), ServerError> {
    let (stop, links) = (app.stop.clone(), app.links.clone());
    let app = Arc::new(app);
    let scheduler_stop = CancellationToken::new();
    let scheduler = tokio::spawn({
        let (scheduler_stop, stop) = (scheduler_stop.clone(), stop.clone());
        async move {
            let ended = scheduler.run(scheduler_stop).await;
            if let Err(error) = &ended {
                tracing::error!(%error, "scheduler ended");
            }
            // Without the scheduler no request can be carried out.
            stop.cancel();
            ended
        }
    });
    let collecting = tokio::spawn(app.collector.clone().run(stop.clone()));
    let sweeping = tokio::spawn(app.collector.clone().sweep_deleted(stop.clone()));
    let waking = tokio::spawn({
        let (waker, stop) = (app.waker.clone(), stop.clone());
        async move { waker.run(stop).await }
    });
    let (blobs, space) = (app.blobs.clone(), app.space.clone());
    let splitting = split_queue.run(blobs, store.reading_by(ReadPool::Scans), space, stop.clone());
    let splitting = tokio::spawn(splitting);
    let router = routes::router(app.clone(), Arc::new(gate));
    let limits = ConnectionLimits::of(listen::raise_file_limit());
    listen::serve(listener, router, stop, limits).await;
    links.close();
    let _ = tokio::time::timeout(Duration::from_secs(3), links.wait()).await;
    scheduler_stop.cancel();
    let ended = match scheduler.await {
        Ok(ended) => ended,
        Err(panic) => Err(ServerError::Inside(panic.to_string())),
    };
    let _ = waking.await;
    let _ = collecting.await;
    let _ = sweeping.await;
    let _ = splitting.await;
    app.logs.flush().await;
    let _ = fs::remove_file(ServerFile::path(&data));
    // The folder is free for the next server only when the records are closed.
    store.close().await?;
    tracing::info!(data = %data.display(), "server stopped");
    ended
}

/// Returns the URL by which clients on this machine reach the server.
fn url(addr: SocketAddr) -> String {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, addr.port()))
}

/// A running server. Dropping it asks it to stop; [`RunningServer::stop`] also waits until it has.
pub struct RunningServer {
    addr: SocketAddr,
    key: String,
    stop: CancellationToken,
    collector: Weak<Collector>,
    task: JoinHandle<Result<(), ServerError>>,
}

impl std::fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningServer").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl RunningServer {
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns `http://host:port`, as this machine reaches the server.
    pub fn url(&self) -> String {
        url(self.addr)
    }

    /// Returns the farm key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Collects as if it were this time: with a later one, more is due. Requests in progress keep what they need.
    pub async fn collect_as_of(&self, now: SystemTime) -> Result<Collected, ServerError> {
        let ended = || ServerError::Inside("it has ended".to_owned());
        let collector = self.collector.upgrade().ok_or_else(ended)?;
        collector.collect(now, false).await.map_err(|error| ServerError::Inside(error.to_string()))
    }

    /// Closes the connections of workers and clients, writes what is left, and releases the data folder.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.stop.cancel();
        self.wait().await
    }

    /// Waits until the server ends by itself, which happens only if it cannot write its records. Call it at most once; the
    /// future may be dropped.
    pub async fn wait(&mut self) -> Result<(), ServerError> {
        match (&mut self.task).await {
            Ok(ended) => ended,
            Err(panic) => Err(ServerError::Inside(panic.to_string())),
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
