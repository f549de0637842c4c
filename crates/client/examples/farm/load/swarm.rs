//! Many workers in one process: each has a connection of its own and one slot, and renders nothing.

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
    num::NonZeroU64,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use kiln_api::{AssignedTask, AttemptReport, BlenderOffer, DeviceOffer, Down, Hello, Machine, Up};
use kiln_client::{Client, ClientError, WorkerLink};
use kiln_types::{AttemptId, DeviceClass, Name, ReportOutcome, RevokeReason, TaskId, WorkerId};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{FRAME, Failed, output};

/// Connections that are opened at a time.
const AT_ONCE: usize = 64;
/// Bytes of a small output.
const SMALL: usize = 4096;
/// Bytes of a large one.
const LARGE: usize = 1 << 20;
/// One of this number of outputs is large, if some are.
const LARGE_OF: u64 = 64;
/// Addresses of this machine that connections come from, where each worker has its own.
const ADDRESSES: u32 = 16;

/// The behaviour of the workers.
#[derive(Debug, Clone)]
pub struct Nature {
    /// Milliseconds that frames take, spread evenly.
    pub frame_ms: RangeInclusive<u64>,
    pub stores: Stores,
    /// Each worker has connections of its own for what it stores, as a real one has, and they come from several
    /// addresses; else all share those of one client.
    pub is_separate: bool,
}

/// The deliveries of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stores {
    /// One file that is there already.
    Nothing,
    /// A file of 4 KB of its own.
    Small,
    /// The same, and one of 64 has 1 MB.
    Mixed,
}

impl Stores {
    /// The bytes of an attempt's output, where it has its own: no other has them, and they do not pack.
    fn output(self, attempt: AttemptId) -> Option<Vec<u8>> {
        let size = match self {
            Self::Nothing => return None,
            Self::Mixed if attempt.counter.is_multiple_of(LARGE_OF) => LARGE,
            Self::Small | Self::Mixed => SMALL,
        };
        let numbers = (0..size as u64 / 8).map(|at| mixed(attempt.counter << 20 | at));
        Some(numbers.flat_map(u64::to_le_bytes).collect())
    }
}

/// The observations of the workers.
#[derive(Debug, Default)]
pub struct Log {
    /// From the end of a frame on a slot to the beginning of its next.
    pub gaps: Vec<(Instant, Duration)>,
    /// From the end of a frame to the answer that its output is stored.
    pub stored: Vec<(Instant, Duration)>,
    /// Bytes of all outputs.
    pub bytes: u64,
    /// From the report of a frame to the word that it is on disk.
    pub settled: Vec<(Instant, Duration)>,
    /// The times at which starts were reported.
    pub started: Vec<(TaskId, AttemptId, Instant)>,
}

pub struct Swarm {
    workers: Vec<JoinHandle<Result<Log, Failed>>>,
    stop: CancellationToken,
    committed: Arc<AtomicU64>,
}

impl Swarm {
    /// Connects a number of workers; all are welcomed when this returns.
    pub async fn join(client: &Client, count: u32, nature: &Nature) -> Result<Self, Failed> {
        let (stop, committed) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
        let joining = stream::iter(1..=count).map(|number| {
            let (client, nature, stop, committed) =
                (client.clone(), nature.clone(), stop.clone(), committed.clone());
            async move {
                let client = if nature.is_separate { own_client(&client, number)? } else { client };
                let link = connect(&client, number).await?;
                let worker = Worker {
                    link,
                    client,
                    nature,
                    committed,
                    queue: VecDeque::new(),
                    ends: None,
                    free_since: None,
                    reported: HashMap::new(),
                    log: Log::default(),
                };
                Ok::<_, Failed>(tokio::spawn(worker.run(stop)))
            }
        });
        let workers = joining.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(Self { workers, stop, committed })
    }

    /// Tasks whose commit was acknowledged.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Ends the connections, and gathers what the workers saw.
    pub async fn leave(self) -> Result<Log, Failed> {
        self.stop.cancel();
        let mut all = Log::default();
        for worker in self.workers {
            let log = worker.await.map_err(|error| Failed::Odd(error.to_string()))??;
            all.gaps.extend(log.gaps);
            all.settled.extend(log.settled);
            all.stored.extend(log.stored);
            all.bytes += log.bytes;
            all.started.extend(log.started);
        }
        Ok(all)
    }
}

/// A client whose connections are nobody else's, from one of several addresses.
fn own_client(client: &Client, number: u32) -> Result<Client, ClientError> {
    let address = Ipv4Addr::new(127, 0, 1, 1 + (number % ADDRESSES) as u8);
    Client::from_address(client.url(), client.key(), address.into())
}

async fn connect(client: &Client, number: u32) -> Result<WorkerLink, Failed> {
    let mut link = client.connect_worker().await?;
    link.send(&Up::Hello(Box::new(hello(number)))).await?;
    match link.recv().await? {
        Some(Down::Welcome(_)) => Ok(link),
        other => Err(Failed::Odd(format!("worker {number} was not welcomed: {other:?}"))),
    }
}

fn hello(number: u32) -> Hello {
    let name = format!("simulated-{number}");
    let cpu = DeviceOffer { class: DeviceClass::Cpu, name: "none".to_owned(), memory: None };
    Hello {
        machine: Machine { hostname: name.clone(), cores: 8, memory: 32 << 30, ..Machine::default() },
        blenders: ["3.4.1", "5.0.1"]
            .into_iter()
            .filter_map(|version| version.parse().ok())
            .map(|version| BlenderOffer {
                version,
                build_hash: "simulated".to_owned(),
                flavor: kiln_types::BlenderFlavor::Executable,
                engines: vec!["CYCLES".to_owned(), "BLENDER_EEVEE".to_owned()],
                devices: vec![cpu.clone()],
                denoisers: Vec::new(),
            })
            .collect(),
        ..Hello::new(
            WorkerId::new(NonZeroU64::MIN.saturating_add(u64::from(number))),
            Name::nearest(&name).unwrap_or_else(|| Name::from_static("node")),
        )
    }
}

struct Worker {
    link: WorkerLink,
    client: Client,
    nature: Nature,
    committed: Arc<AtomicU64>,
    /// The first one renders where `ends` is there.
    queue: VecDeque<AssignedTask>,
    ends: Option<Instant>,
    /// Since its last frame ended.
    free_since: Option<Instant>,
    reported: HashMap<AttemptId, Instant>,
    log: Log,
}

impl Worker {
    async fn run(mut self, stop: CancellationToken) -> Result<Log, Failed> {
        let mut beat = tokio::time::interval(Duration::from_secs(5));
        loop {
            let end = async {
                match self.ends {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(self.log),
                down = self.link.recv() => match down {
                    Ok(Some(down)) => self.hear(down).await?,
                    Ok(None) => return Err(Failed::Odd("the server closed the connection of a worker".to_owned())),
                    Err(error) => return Err(error.into()),
                },
                () = end => self.end().await?,
                _ = beat.tick() => self.link.send(&Up::Heartbeat).await?,
            }
        }
    }

    async fn hear(&mut self, down: Down) -> Result<(), Failed> {
        match down {
            Down::Assign(assignment) => {
                self.queue.extend(assignment.tasks);
                self.begin().await?;
            }
            Down::Settled { attempt, outcome } => {
                if let Some(since) = self.reported.remove(&attempt) {
                    self.log.settled.push((since, since.elapsed()));
                }
                self.committed.fetch_add(u64::from(outcome == ReportOutcome::Committed), Ordering::Relaxed);
            }
            Down::Revoke { attempt, why } => {
                let Some(at) = self.queue.iter().position(|task| task.attempt == attempt) else {
                    return Ok(());
                };
                let running = at == 0 && self.ends.is_some();
                if running && why == RevokeReason::Preempted {
                    return Ok(());
                }
                if let Some(task) = self.queue.remove(at) {
                    self.report(&task, AttemptReport::Returned).await?;
                }
                if running {
                    (self.ends, self.free_since) = (None, None);
                    self.begin().await?;
                }
            }
            Down::Welcome(_) | Down::DesiredState { .. } | Down::Arrived { .. } => {}
            Down::Stream(_) | Down::Place { .. } => {
                return Err(Failed::Odd("the server streams a task of a job without such a step".to_owned()));
            }
            Down::Refused { reason } => return Err(Failed::Odd(reason)),
        }
        Ok(())
    }

    /// Begins the first in the queue, unless one runs.
    async fn begin(&mut self) -> Result<(), ClientError> {
        if self.ends.is_some() {
            return Ok(());
        }
        let Some(AssignedTask { attempt, task, .. }) = self.queue.front().cloned() else { return Ok(()) };
        let now = Instant::now();
        if let Some(since) = self.free_since.take() {
            self.log.gaps.push((now, now - since));
        }
        self.log.started.push((task, attempt, now));
        self.link.send(&Up::Started { attempt }).await?;
        self.link.send(&Up::Progress { attempt, fraction: 0.5 }).await?;
        let (least, most) = (*self.nature.frame_ms.start(), *self.nature.frame_ms.end());
        let spread = mixed(attempt.counter) % (most - least + 1);
        self.ends = Some(now + Duration::from_millis(least + spread));
        Ok(())
    }

    async fn end(&mut self) -> Result<(), Failed> {
        self.ends = None;
        let Some(task) = self.queue.pop_front() else { return Ok(()) };
        let frame = task.frame.unwrap_or_default();
        let file = match self.nature.stores.output(task.attempt) {
            Some(bytes) => {
                let (file, size, ended) = (output(frame, &bytes)?, bytes.len() as u64, Instant::now());
                self.client.put_blob_bytes(file.hash, bytes.into()).await?;
                self.log.stored.push((ended, ended.elapsed()));
                self.log.bytes += size;
                file
            }
            None => output(frame, FRAME)?,
        };
        let seconds = *self.nature.frame_ms.end() as f64 / 1000.0;
        self.free_since = Some(Instant::now());
        self.report(&task, AttemptReport::Done { files: vec![file.into()], seconds, peak_memory: 1 << 30 })
            .await?;
        Ok(self.begin().await?)
    }

    async fn report(&mut self, task: &AssignedTask, finish: AttemptReport) -> Result<(), ClientError> {
        if matches!(finish, AttemptReport::Done { .. }) {
            self.reported.insert(task.attempt, Instant::now());
        }
        let AssignedTask { attempt, task, generation, .. } = *task;
        self.link.send(&Up::Finished { attempt, task, generation, report: finish }).await
    }
}

/// The finalizer of SplitMix64: neighbours become far apart.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
