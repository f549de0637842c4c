//! The Blenders of this machine: the installed ones, how they are started, and the spare process.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use kiln_host::{BlenderInstall, Capabilities, Device, Host, HostOptions, SlotRoot};
use kiln_types::{BlenderSeries, BlenderVersion, Failure, FailureCause};

use super::{blender::BlenderProcess, kind::ProcessKind};
use crate::{
    bundles::MaterializedBundle,
    monitor::{AttemptMonitor, TaskReport},
    scratch::{ScratchFolder, on_disk},
    sink::EventSink,
};

/// The options that all processes of a worker are started with.
#[derive(Debug)]
pub(crate) struct PoolOptions {
    /// Each process has a folder below it.
    pub(crate) roots: PathBuf,
    pub(crate) threads: u16,
    pub(crate) nice: u8,
    pub(crate) devices_override: Option<Vec<Device>>,
    /// The folder of compiled Python scripts.
    pub(crate) bytecode: PathBuf,
    pub(crate) reports: EventSink<TaskReport>,
    pub(crate) probed: EventSink<ProbedBlender>,
}

/// Starts Blender processes, and keeps the spare one.
#[derive(Debug)]
pub(crate) struct ProcessPool {
    options: PoolOptions,
    counter: AtomicU64,
    installs: Mutex<Vec<BlenderInstall>>,
    spare: Mutex<Spare>,
}

#[derive(Debug, Default)]
enum Spare {
    #[default]
    None,
    Starting,
    Ready(Box<BlenderProcess>),
}

/// A Blender that was started, and its description of itself.
#[derive(Debug)]
pub(crate) struct ProbedBlender {
    pub(crate) install: BlenderInstall,
    pub(crate) version: BlenderVersion,
    pub(crate) build_hash: String,
    pub(crate) capabilities: Capabilities,
}

impl ProcessPool {
    pub(crate) fn new(options: PoolOptions) -> Self {
        Self { options, counter: AtomicU64::new(0), installs: Mutex::default(), spare: Mutex::default() }
    }

    pub(crate) fn installs(&self) -> Vec<BlenderInstall> {
        self.installs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_installs(&self, installs: Vec<BlenderInstall>) {
        *self.installs.lock().unwrap_or_else(PoisonError::into_inner) = installs;
    }

    /// Returns the Blender that renders jobs of this series.
    pub(crate) fn install(&self, series: BlenderSeries) -> Option<BlenderInstall> {
        self.installs().into_iter().find(|install| install.version.series() == series)
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_spare(&self) -> bool {
        !matches!(*self.spare(), Spare::None)
    }

    /// Returns a process of this kind: the spare one if it is of that kind, or a new one.
    pub(crate) async fn acquire(
        &self,
        kind: ProcessKind,
        startup: Option<Arc<MaterializedBundle>>,
    ) -> Result<Box<BlenderProcess>, Failure> {
        if let Some(process) = self.take_spare(&kind) {
            return Ok(process);
        }
        self.start(kind, startup).await
    }

    fn take_spare(&self, kind: &ProcessKind) -> Option<Box<BlenderProcess>> {
        let mut spare = self.spare();
        match std::mem::take(&mut *spare) {
            // One that died is dropped here, and another will be started in time.
            Spare::Ready(mut process) if process.kind == kind.without_share() => {
                process.host.is_alive().then_some(process)
            }
            other => {
                *spare = other;
                None
            }
        }
    }

    /// Starts the spare process, unless there is one.
    pub(crate) async fn start_spare(&self, series: BlenderSeries) {
        {
            let mut spare = self.spare();
            if !matches!(*spare, Spare::None) {
                return;
            }
            *spare = Spare::Starting;
        }
        let started = self.start(ProcessKind::plain(series), None).await;
        *self.spare() = match started {
            Ok(process) => Spare::Ready(process),
            Err(failure) => {
                tracing::warn!(%failure, "spare Blender failed to start");
                Spare::None
            }
        };
    }

    pub(crate) fn drop_spare(&self) {
        *self.spare() = Spare::None;
    }

    /// Starts a Blender to learn its capabilities, and ends it.
    pub(crate) async fn probe(&self, kind: ProcessKind) -> Result<ProbedBlender, Failure> {
        let (process, probed) = self.start_and_probe(kind, None).await?;
        process.close().await.remove().await;
        Ok(probed)
    }

    async fn start(
        &self,
        kind: ProcessKind,
        startup: Option<Arc<MaterializedBundle>>,
    ) -> Result<Box<BlenderProcess>, Failure> {
        let (process, probed) = self.start_and_probe(kind, startup).await?;
        self.options.probed.send(probed);
        Ok(process)
    }

    async fn start_and_probe(
        &self,
        kind: ProcessKind,
        startup: Option<Arc<MaterializedBundle>>,
    ) -> Result<(Box<BlenderProcess>, ProbedBlender), Failure> {
        let cannot = |why: String| Failure::new(FailureCause::CannotStart, why);
        let install = self
            .install(kind.series)
            .ok_or_else(|| cannot(format!("this worker has no Blender {}", kind.series)))?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let folder = ScratchFolder::new(self.options.roots.join(number.to_string()));
        let (path, starts, with) = (folder.path().to_owned(), kind.clone(), startup.clone());
        let created = on_disk(move || Ok((SlotRoot::create(path)?, ocio(&starts, with.as_deref()))));
        let (root, ocio) =
            created.await.map_err(|error| cannot(format!("a folder for Blender cannot be made: {error}")))?;
        let monitor = AttemptMonitor::new(self.options.reports.clone());
        let (log, progress) = (monitor.clone(), monitor.clone());
        let options = HostOptions {
            trust: kind.trust,
            threads: self.options.threads,
            nice: self.options.nice,
            ocio: ocio?,
            log: Some(Arc::new(move |text| log.log(&text))),
            progress: Some(Arc::new(move |sample| progress.progress(sample.samples))),
            devices_override: self.options.devices_override.clone(),
            bytecode: Some(self.options.bytecode.clone()),
            ..HostOptions::default()
        };
        let host = Host::start(&install, &root, options).await?;
        monitor.watch_processes(host.pid());
        tracing::debug!(pid = host.pid(), version = %host.version(), "Blender started");
        let probed = ProbedBlender {
            install,
            version: host.version(),
            build_hash: host.build_hash().to_owned(),
            capabilities: host.capabilities().clone(),
        };
        let process = BlenderProcess {
            host,
            root,
            kind,
            peak: 0,
            persistent: false,
            monitor,
            _startup: startup,
            folder,
        };
        Ok((Box::new(process), probed))
    }
}

/// Returns the path of the colour configuration that a process starts with.
fn ocio(kind: &ProcessKind, bundle: Option<&MaterializedBundle>) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = kind.startup.as_ref().and_then(|files| files.ocio.as_ref()) else { return Ok(None) };
    let place = bundle.map(|bundle| bundle.folder.join(path.to_path())).filter(|place| place.is_file());
    place.map(Some).ok_or_else(|| {
        let message = format!("the colour configuration {path} is not among the job's files");
        Failure::new(FailureCause::BadSetting, message)
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_spare_is_taken_once_and_only_by_its_kind() {
        let folder = tempfile::Builder::new().prefix("kiln-test-").tempdir().unwrap();
        let (reports, _reports) = unbounded_channel();
        let (probed, _probed) = unbounded_channel();
        let pool = ProcessPool::new(PoolOptions {
            roots: folder.path().join("roots"),
            threads: 0,
            nice: 0,
            devices_override: None,
            bytecode: folder.path().join("bytecode"),
            reports: EventSink::new(reports, |report| report),
            probed: EventSink::new(probed, |probed| probed),
        });
        let found = kiln_host::discover(&[], folder.path(), folder.path());
        let series =
            found.first().expect("these tests need a Blender (apt install blender)").version.series();
        pool.set_installs(found);
        pool.start_spare(series).await;
        assert!(pool.has_spare());
        let plain = ProcessKind::plain(series);
        assert!(pool.take_spare(&ProcessKind { trust: true, ..plain.clone() }).is_none());
        let mut process = pool.acquire(plain, None).await.unwrap();
        assert!(!pool.has_spare(), "the slot has it now");
        assert!(process.host.is_alive());
        let (root, pid) = (process.root.path().to_owned(), process.host.pid());
        process.close().await.remove().await;
        assert!(!root.exists(), "a process that ends takes its folder along");
        pool.start_spare(series).await;
        pool.drop_spare();
        assert!(!pool.has_spare());
        let gone = std::path::PathBuf::from(format!("/proc/{pid}/cmdline"));
        let cmdline = std::fs::read(gone).unwrap_or_default();
        assert!(cmdline.is_empty(), "it is killed, at most not yet reaped");
    }
}
