//! A Blender process with the folder it lives in, and the spare one that waits.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use kiln_host::{BlenderInstall, Capabilities, Device, Host, HostOptions, Progress, SlotRoot, Usage};
use kiln_types::{AttemptId, BlenderSeries, BlenderVersion, Failure, FailureCause};
use tokio::{sync::mpsc::UnboundedSender, task::spawn_blocking};

use crate::{
    bundles::Laid,
    scratch::{ScratchFolder, on_disk},
    slot::Kind,
    worker::Input,
};

/// Bytes of log that one message carries.
const LOG_PIECE: usize = 64 << 10;
/// A frame that renders long shows its log as it goes; a short one sends it once.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Bytes of log that one attempt may send.
const LOG_MOST: usize = 10 << 20;

/// How often it is looked whether a Blender does anything, and the clock ticks that it must have used since for that:
/// a hundredth of the time. One that hangs answers pings, and uses less.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
const ALIVE_TICKS: u64 = 30;

/// Sorts what Blender prints to the attempt that it is printed for.
#[derive(Debug, Default)]
struct Book {
    attempt: Option<AttemptId>,
    text: String,
    sent: usize,
    /// When the last piece went up.
    last: Option<Instant>,
    /// The last fraction told.
    fraction: f32,
    /// Blender has said something since the last sign of life.
    stirred: bool,
}

/// A running Blender. Dropping it ends the process and removes its folder.
pub(crate) struct Seat {
    pub(crate) host: Host,
    pub(crate) root: SlotRoot,
    pub(crate) kind: Kind,
    /// The most memory seen, in bytes.
    pub(crate) peak: u64,
    pub(crate) persistent: bool,
    book: Arc<Mutex<Book>>,
    inputs: UnboundedSender<Input>,
    /// What it brought lies here for as long as it lives.
    _brought: Option<Arc<Laid>>,
    folder: ScratchFolder,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seat").field("host", &self.host).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Seat {
    /// Ends the process. Its folder is there for as long as what is returned.
    pub(crate) async fn close(self) -> ScratchFolder {
        self.flush();
        let Self { host, folder, .. } = self;
        host.kill().await;
        folder
    }

    /// What is printed from here on belongs to this attempt.
    pub(crate) fn serve(&self, attempt: AttemptId) {
        let mut book = lock(&self.book);
        if book.attempt != Some(attempt) {
            send_log(&mut book, &self.inputs);
            *book = Book { attempt: Some(attempt), ..Book::default() };
        }
    }

    /// Sends what is held of the log.
    pub(crate) fn flush(&self) {
        send_log(&mut lock(&self.book), &self.inputs);
    }
}

fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn send_log(book: &mut Book, inputs: &UnboundedSender<Input>) {
    let Some(attempt) = book.attempt else {
        book.text.clear();
        return;
    };
    book.last = Some(Instant::now());
    while !book.text.is_empty() {
        let end = book.text.floor_char_boundary(LOG_PIECE.min(book.text.len()));
        let rest = book.text.split_off(end);
        let text = std::mem::replace(&mut book.text, rest);
        // Where nobody listens, the worker is ending.
        let _ = inputs.send(Input::Log { attempt, text });
    }
}

/// Returns whether this is the first text that waits.
fn note_log(book: &mut Book, text: &str, inputs: &UnboundedSender<Input>) -> bool {
    if book.attempt.is_none() || book.sent > LOG_MOST {
        return false;
    }
    let first_text = book.text.is_empty();
    book.sent += text.len();
    book.text.push_str(text);
    if book.sent > LOG_MOST {
        book.text.push_str("(this attempt printed more than 10 MiB; the rest is left out)\n");
    }
    let first = *book.last.get_or_insert_with(Instant::now);
    if book.text.len() >= LOG_PIECE / 2 || first.elapsed() >= LOG_EVERY {
        send_log(book, inputs);
    }
    first_text && !book.text.is_empty()
}

/// A frame that says something and then is silent for an hour shows what it said.
fn send_soon(book: &Arc<Mutex<Book>>, inputs: &UnboundedSender<Input>) {
    let (book, inputs) = (Arc::downgrade(book), inputs.clone());
    tokio::spawn(async move {
        tokio::time::sleep(LOG_EVERY).await;
        if let Some(book) = book.upgrade() {
            send_log(&mut lock(&book), &inputs);
        }
    });
}

fn note_progress(book: &mut Book, progress: &Progress, inputs: &UnboundedSender<Input>) {
    book.stirred = true;
    if let (Some(attempt), Some((done, all))) = (book.attempt, progress.samples)
        && all > 0
    {
        let fraction = (f64::from(done) / f64::from(all)).clamp(0.0, 1.0) as f32;
        if fraction > book.fraction {
            book.fraction = fraction;
            let _ = inputs.send(Input::Progress { attempt, fraction });
        }
    }
}

/// As long as the Blender of this process group lives, tells every now and then that it does something: that it uses
/// the processor, writes, or says how far it is. What it prints does not count: an endless loop may print. Opening a file, compiling shaders, a bake and a compositor tell nothing else,
/// and Cycles next to nothing while it computes.
fn show_life(group: u32, book: &Arc<Mutex<Book>>, inputs: &UnboundedSender<Input>) {
    let (book, inputs) = (Arc::downgrade(book), inputs.clone());
    tokio::spawn(async move {
        let mut used = Usage::default();
        loop {
            tokio::time::sleep(ALIVE_EVERY).await;
            let now = spawn_blocking(move || Usage::of_group(group)).await.unwrap_or(used);
            let Some(book) = book.upgrade() else { return };
            let mut book = lock(&book);
            let moved = std::mem::take(&mut book.stirred) || now.written > used.written;
            let works = moved || now.ticks.saturating_sub(used.ticks) >= ALIVE_TICKS;
            used = now;
            if works && let Some(attempt) = book.attempt {
                let _ = inputs.send(Input::Alive { attempt, moved });
            }
        }
    });
}

/// The Blenders of this machine, and how they are started.
#[derive(Debug)]
pub(crate) struct Garage {
    roots: PathBuf,
    threads: u16,
    nice: u8,
    devices_override: Option<Vec<Device>>,
    /// Where compiled scripts of Blenders are kept.
    bytecode: PathBuf,
    counter: AtomicU64,
    installs: Mutex<Vec<BlenderInstall>>,
    spare: Mutex<Spare>,
    inputs: UnboundedSender<Input>,
}

#[derive(Debug, Default)]
enum Spare {
    #[default]
    None,
    Starting,
    Ready(Box<Seat>),
}

/// What a started Blender says of itself.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) install: BlenderInstall,
    pub(crate) version: BlenderVersion,
    pub(crate) build_hash: String,
    pub(crate) capabilities: Capabilities,
}

impl Garage {
    pub(crate) fn new(
        roots: PathBuf,
        threads: u16,
        nice: u8,
        devices_override: Option<Vec<Device>>,
        bytecode: PathBuf,
        inputs: UnboundedSender<Input>,
    ) -> Self {
        Self {
            roots,
            threads,
            nice,
            devices_override,
            bytecode,
            counter: AtomicU64::new(0),
            installs: Mutex::default(),
            spare: Mutex::default(),
            inputs,
        }
    }

    pub(crate) fn installs(&self) -> Vec<BlenderInstall> {
        self.installs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_installs(&self, installs: Vec<BlenderInstall>) {
        *self.installs.lock().unwrap_or_else(PoisonError::into_inner) = installs;
    }

    /// The one that renders jobs of this series.
    pub(crate) fn install(&self, series: BlenderSeries) -> Option<BlenderInstall> {
        self.installs().into_iter().find(|install| install.version.series() == series)
    }

    fn spare(&self) -> std::sync::MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has_spare(&self) -> bool {
        !matches!(*self.spare(), Spare::None)
    }

    /// A process of this kind: the spare where it fits, else a new one.
    pub(crate) async fn seat(&self, kind: Kind, brought: Option<Arc<Laid>>) -> Result<Box<Seat>, Failure> {
        if let Some(seat) = self.take_spare(&kind) {
            return Ok(seat);
        }
        self.start(kind, brought).await
    }

    fn take_spare(&self, kind: &Kind) -> Option<Box<Seat>> {
        let mut spare = self.spare();
        match std::mem::take(&mut *spare) {
            // One that died is dropped here, and another will be started in time.
            Spare::Ready(mut seat) if seat.kind == kind.unused() => seat.host.is_alive().then_some(seat),
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
        let started = self.start(Kind::plain(series), None).await;
        *self.spare() = match started {
            Ok(seat) => Spare::Ready(seat),
            Err(failure) => {
                tracing::warn!(%failure, "the spare Blender could not be started");
                Spare::None
            }
        };
    }

    pub(crate) fn drop_spare(&self) {
        *self.spare() = Spare::None;
    }

    /// Starts a Blender to learn what it can do, and ends it.
    pub(crate) async fn meet(&self, kind: Kind) -> Result<Met, Failure> {
        let (seat, met) = self.start_and_meet(kind, None).await?;
        seat.close().await.remove().await;
        Ok(met)
    }

    async fn start(&self, kind: Kind, brought: Option<Arc<Laid>>) -> Result<Box<Seat>, Failure> {
        let (seat, met) = self.start_and_meet(kind, brought).await?;
        let _ = self.inputs.send(Input::Met(Box::new(met)));
        Ok(seat)
    }

    async fn start_and_meet(
        &self,
        kind: Kind,
        brought: Option<Arc<Laid>>,
    ) -> Result<(Box<Seat>, Met), Failure> {
        let cannot = |why: String| Failure::new(FailureCause::CannotStart, why);
        let install = self
            .install(kind.series)
            .ok_or_else(|| cannot(format!("this worker has no Blender {}", kind.series)))?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let folder = ScratchFolder::new(self.roots.join(number.to_string()));
        let (place, starts, with) = (folder.path().to_owned(), kind.clone(), brought.clone());
        let made = on_disk(move || Ok((SlotRoot::create(place)?, ocio(&starts, with.as_deref()))));
        let (root, ocio) =
            made.await.map_err(|error| cannot(format!("a folder for Blender cannot be made: {error}")))?;
        let book = Arc::new(Mutex::new(Book::default()));
        let (log_book, log_inputs) = (book.clone(), self.inputs.clone());
        let (progress_book, progress_inputs) = (book.clone(), self.inputs.clone());
        let options = HostOptions {
            trust: kind.trust,
            threads: self.threads,
            nice: self.nice,
            ocio: ocio?,
            log: Some(Arc::new(move |text| {
                let waits = note_log(&mut lock(&log_book), &text, &log_inputs);
                if waits {
                    send_soon(&log_book, &log_inputs);
                }
            })),
            progress: Some(Arc::new(move |progress| {
                note_progress(&mut lock(&progress_book), &progress, &progress_inputs);
            })),
            devices_override: self.devices_override.clone(),
            bytecode: Some(self.bytecode.clone()),
            ..HostOptions::default()
        };
        let host = Host::start(&install, &root, options).await?;
        show_life(host.pid(), &book, &self.inputs);
        tracing::debug!(pid = host.pid(), version = %host.version(), "Blender is up");
        let met = Met {
            install,
            version: host.version(),
            build_hash: host.build_hash().to_owned(),
            capabilities: host.capabilities().clone(),
        };
        let seat = Seat {
            host,
            root,
            kind,
            peak: 0,
            persistent: false,
            book,
            inputs: self.inputs.clone(),
            _brought: brought,
            folder,
        };
        Ok((Box::new(seat), met))
    }
}

/// Where the colour configuration lies that a process starts with.
fn ocio(kind: &Kind, brought: Option<&Laid>) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = kind.brings.as_ref().and_then(|brings| brings.ocio.as_ref()) else { return Ok(None) };
    let place = brought.map(|laid| laid.folder.join(path.to_path())).filter(|place| place.is_file());
    place.map(Some).ok_or_else(|| {
        let message = format!("the colour configuration {path} is not among the job's files");
        Failure::new(FailureCause::BadSetting, message)
    })
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn a_log_goes_up_in_pieces_and_ends_at_its_limit() {
        let (inputs, mut sent) = unbounded_channel();
        let mut book = Book { attempt: Some("1-1".parse().unwrap()), ..Book::default() };
        let line = format!("{}\n", "é".repeat(10_000));
        for _ in 0..1000 {
            note_log(&mut book, &line, &inputs);
        }
        send_log(&mut book, &inputs);
        let mut total = 0;
        let mut last = String::new();
        while let Ok(Input::Log { text, .. }) = sent.try_recv() {
            assert!(text.len() <= LOG_PIECE);
            total += text.len();
            last = text;
        }
        assert!(total > LOG_MOST && total < LOG_MOST + LOG_PIECE, "{total}");
        assert!(last.ends_with("the rest is left out)\n"));
    }

    #[test]
    fn what_belongs_to_no_attempt_goes_nowhere() {
        let (inputs, mut sent) = unbounded_channel();
        let mut book = Book::default();
        note_log(&mut book, "Blender 3.4.1\n", &inputs);
        send_log(&mut book, &inputs);
        assert!(sent.try_recv().is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_spare_is_taken_once_and_only_by_its_kind() {
        let folder = tempfile::Builder::new().prefix("kiln-test-").tempdir().unwrap();
        let (inputs, _sent) = unbounded_channel();
        let garage =
            Garage::new(folder.path().join("roots"), 0, 0, None, folder.path().join("bytecode"), inputs);
        let found = kiln_host::discover(&[], folder.path(), folder.path());
        let series =
            found.first().expect("these tests need a Blender (apt install blender)").version.series();
        garage.set_installs(found);
        garage.start_spare(series).await;
        assert!(garage.has_spare());
        let plain = Kind::plain(series);
        assert!(garage.take_spare(&Kind { trust: true, ..plain.clone() }).is_none());
        let mut seat = garage.seat(plain, None).await.unwrap();
        assert!(!garage.has_spare(), "the slot has it now");
        assert!(seat.host.is_alive());
        let (root, pid) = (seat.root.path().to_owned(), seat.host.pid());
        seat.close().await.remove().await;
        assert!(!root.exists(), "a process that goes takes its folder along");
        garage.start_spare(series).await;
        garage.drop_spare();
        assert!(!garage.has_spare());
        let gone = std::path::PathBuf::from(format!("/proc/{pid}/cmdline"));
        let cmdline = std::fs::read(gone).unwrap_or_default();
        assert!(cmdline.is_empty(), "it is killed, at most not yet reaped");
    }
}
