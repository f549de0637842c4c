//! The warm process: one request at a time, and no belief in what comes back.

use std::time::{Duration, Instant};

use kiln_types::{BlenderVersion, Failure, FailureCause, ScriptPolicy, SessionKey, SessionSpec};
use tokio::{
    io::AsyncWriteExt,
    net::unix::OwnedWriteHalf,
    time::{sleep_until, timeout},
};

use crate::{
    BakeRequest, Baked, BlenderInstall, Capabilities, HostError, HostOptions, OpenRequest, OpenedFile,
    PlannedFile, RenderRequest, Rendered, SlotRoot,
    bytecode::Bytecode,
    death::{OomCount, explain},
    log::Log,
    plan,
    process::Process,
    sources,
    wire::{HostCommand, HostEvent, LineError, LineReader, Spelled, spelled},
};

/// A warm Blender. One request at a time; dropping the host, or the future of a request, ends the process and
/// every process it started.
pub struct Host {
    process: Process,
    reader: LineReader,
    writer: OwnedWriteHalf,
    log: Log,
    options: HostOptions,
    /// Threads where the session does not say, before those of the options.
    part_threads: Option<u16>,
    root: SlotRoot,
    capabilities: Capabilities,
    version: BlenderVersion,
    build_hash: String,
    session: Option<SessionKey>,
    frames_rendered: u64,
    last_id: u64,
    out_of_memory_before: OomCount,
    /// Set while a request is under way: one left by a dropped future makes the process unusable.
    busy: bool,
    dead: bool,
    _sources: tempfile::TempDir,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("pid", &self.pid()).field("dead", &self.dead).finish_non_exhaustive()
    }
}

impl Host {
    /// Starts a process and waits until it is up. Needs a tokio runtime.
    pub async fn start(
        install: &BlenderInstall,
        root: &SlotRoot,
        options: HostOptions,
    ) -> Result<Self, HostError> {
        let (sources, boot) = sources::write(root.path()).map_err(HostError::Prepare)?;
        let spawn = |source| HostError::Spawn { program: install.program.clone(), source };
        let before = OomCount::now();
        let bytecode = Bytecode::of(install, options.bytecode.as_deref());
        let (process, socket, printed) =
            Process::start(install, root, &boot, &options, &bytecode).await.map_err(spawn)?;
        let (read, writer) = socket.into_split();
        let mut host = Self {
            process,
            reader: LineReader::new(read),
            writer,
            log: Log::read(printed, options.log.clone()),
            root: root.clone(),
            capabilities: Capabilities::default(),
            version: install.version,
            build_hash: install.build_hash.clone(),
            session: None,
            frames_rendered: 0,
            last_id: 0,
            out_of_memory_before: before,
            busy: true,
            dead: false,
            options,
            part_threads: None,
            _sources: sources,
        };
        let limit = host.options.start_limit;
        let hello = timeout(limit, host.reader.next()).await;
        host.busy = false;
        match hello {
            Ok(Ok(HostEvent::Hello { version, build_hash, capabilities })) => {
                host.version = version.parse().unwrap_or(install.version);
                host.build_hash = build_hash;
                host.capabilities = capabilities;
                if let Some(devices) = &host.options.devices_override {
                    host.capabilities.devices.clone_from(devices);
                }
                Ok(host)
            }
            Ok(Ok(_)) => Err(HostError::NotUp(host.misbehaved("it spoke before its hello").await)),
            Ok(Err(error)) => {
                let failure = host.ended(error, "starting").await;
                Err(HostError::NotUp(host.unreadable_colors().unwrap_or(failure)))
            }
            Err(_) => {
                let message = format!("it said nothing for {} seconds", limit.as_secs());
                Err(HostError::NotUp(host.end(Failure::new(FailureCause::TimedOut, message)).await))
            }
        }
    }

    /// Sets the threads, unless 0, and the GPUs of the files that are opened from now on.
    pub fn use_part(&mut self, threads: u16, gpus: Vec<u16>) {
        self.options.gpus = gpus;
        self.part_threads = (threads > 0).then_some(threads);
    }

    /// Opens a .blend and applies the session's settings in memory; what lacks, or is passed over in silence by
    /// Blender, is found here, before the first frame.
    ///
    /// # Errors
    /// A [`Failure`] with its cause; after most the process lives on ([`Host::is_alive`]).
    pub async fn open(&mut self, request: &OpenRequest) -> Result<OpenedFile, Failure> {
        self.check_trust(&request.session)?;
        self.session = None;
        self.log.forget();
        let id = self.begin();
        let own = self.part_threads.unwrap_or(self.options.threads);
        let threads = request.session.settings.threads.unwrap_or(own);
        let devices = self.options.devices_override.clone();
        let gpus = self.options.gpus.clone();
        let command = HostCommand::Open {
            id,
            blend: Spelled(&request.blend),
            session: &request.session,
            remap: request.remap.iter().map(|(from, to)| (from.as_str(), Spelled(to))).collect(),
            unused: &request.unused,
            addons: spelled(&request.addons),
            persistent_data: request.persistent_data,
            threads,
            gpus: &gpus,
            devices: devices.as_deref(),
        };
        // A file that takes long to open holds Python's lock, and nobody can answer.
        let limits = Limits {
            whole: Some((self.options.open_limit, "which is as long as it may take")),
            silence: None,
        };
        let done = self.request(&command, "opening the file", limits).await?;
        let Done::Opened(opened) = done else {
            return Err(self.misbehaved("it answered an open with something else").await);
        };
        if let Err(why) = plan::check(&opened.plan.files) {
            return Err(self.misbehaved(&why).await);
        }
        self.session = Some(request.session.key());
        Ok(opened)
    }

    /// Bakes the scene's simulations and saves the file where it lies. Afterwards no session is open, and the
    /// process has done its share: what it holds in memory is not what a frame would open.
    ///
    /// # Errors
    /// A [`Failure`] with its cause, [`FailureCause::Unbaked`] where it names what cannot be baked.
    pub async fn bake(&mut self, request: &BakeRequest) -> Result<Baked, Failure> {
        self.check_trust(&request.session)?;
        if !request.tree.starts_with(self.root.path()) || !request.blend.starts_with(&request.tree) {
            return Err(Failure::new(FailureCause::Other, "the bake's folder is not below that of its slot"));
        }
        self.session = None;
        self.log.forget();
        let id = self.begin();
        let command = HostCommand::Bake {
            id,
            tree: Spelled(&request.tree),
            blend: Spelled(&request.blend),
            session: &request.session,
            remap: request.remap.iter().map(|(from, to)| (from.as_str(), Spelled(to))).collect(),
            unused: &request.unused,
            addons: spelled(&request.addons),
        };
        // The file is opened and saved on the way.
        let silence = self.options.silence_limit.max(self.options.open_limit);
        let limits = Limits { whole: None, silence: Some(silence) };
        match self.request(&command, "baking", limits).await? {
            Done::Baked(baked) => Ok(baked),
            _ => Err(self.misbehaved("it answered a bake with something else").await),
        }
    }

    /// Renders one frame of the opened session.
    ///
    /// # Errors
    /// A [`Failure`] with its cause; after most the process lives on ([`Host::is_alive`]).
    pub async fn render(&mut self, request: RenderRequest) -> Result<Rendered, Failure> {
        if self.session.is_none() {
            return Err(Failure::new(FailureCause::Other, "no file is open in this Blender"));
        }
        if !request.out.starts_with(self.root.out()) {
            return Err(Failure::new(
                FailureCause::Other,
                "the frame's folder is not below that of its slot",
            ));
        }
        let id = self.begin();
        let command = HostCommand::Render { id, frame: request.frame, out: Spelled(&request.out) };
        let doing = format!("rendering frame {}", request.frame);
        let whole = request.time_limit.map(|limit| (limit, "the time limit of this job's frames"));
        let limits = Limits { whole, silence: Some(self.options.silence_limit) };
        match self.request(&command, &doing, limits).await? {
            Done::Rendered(rendered) => {
                self.frames_rendered += 1;
                Ok(rendered)
            }
            _ => Err(self.misbehaved("it answered a render with something else").await),
        }
    }

    /// Ends every process of the group and waits until the first of them is gone.
    pub async fn kill(mut self) {
        self.stop().await;
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Returns whether another request can be made.
    pub fn is_alive(&mut self) -> bool {
        if self.busy || self.dead {
            return false;
        }
        self.dead = self.process.has_exited();
        !self.dead
    }

    pub fn frames_rendered(&self) -> u64 {
        self.frames_rendered
    }

    pub fn session(&self) -> Option<SessionKey> {
        self.session
    }

    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    pub fn version(&self) -> BlenderVersion {
        self.version
    }

    pub fn build_hash(&self) -> &str {
        &self.build_hash
    }

    /// The last lines that Blender printed, oldest first.
    pub fn log_tail(&self) -> Vec<String> {
        self.log.tail()
    }

    fn check_trust(&self, session: &SessionSpec) -> Result<(), Failure> {
        if (session.policy.scripts == ScriptPolicy::Trust) == self.options.trust {
            return Ok(());
        }
        Err(Failure::new(
            FailureCause::Other,
            "the session's trust in scripts is not that of the process; start another process for it",
        ))
    }

    /// Before 4.0 Blender ends where it cannot read a colour configuration.
    fn unreadable_colors(&self) -> Option<Failure> {
        let name = self.options.ocio.as_ref()?.file_name()?.to_string_lossy().into_owned();
        let printed = self.log.tail();
        let why = printed.iter().find_map(|line| line.split_once("OpenColorIO Error:"))?.1;
        let message = format!("Blender cannot read the colour configuration {name}: {}", sentence(why));
        Some(Failure { cause: FailureCause::BadSetting, message, log_tail: printed })
    }

    fn begin(&mut self) -> u64 {
        self.log.begin();
        self.last_id += 1;
        self.last_id
    }

    async fn request(
        &mut self,
        command: &HostCommand<'_>,
        doing: &str,
        limits: Limits,
    ) -> Result<Done, Failure> {
        if !self.is_alive() {
            let failure = self.ended(LineError::Closed, doing).await;
            return Err(failure);
        }
        self.busy = true;
        let fuse = self.process.fuse();
        let result = self.exchange(command, doing, limits).await;
        if matches!(result, Ok(_) | Err(Stop::Said(_))) {
            self.log.drain().await;
        }
        fuse.remove();
        self.busy = false;
        match result {
            Ok(done) => Ok(done),
            Err(Stop::Said(mut failure)) => {
                failure.log_tail = self.log.tail();
                Err(failure)
            }
            Err(Stop::Lines(error)) => Err(self.ended(error, doing).await),
            Err(Stop::Kill(failure)) => Err(self.end(failure).await),
        }
    }

    async fn exchange(
        &mut self,
        command: &HostCommand<'_>,
        doing: &str,
        Limits { whole, silence }: Limits,
    ) -> Result<Done, Stop> {
        self.send(command).await?;
        let (asked, started) = (self.last_id, Instant::now());
        let deadline = whole.map(|(limit, whose)| (started + limit, limit, whose));
        let mut heard = started;
        let mut planned = None;
        let ping_every = (self.options.silence_limit / 4).min(Duration::from_secs(10));
        let mut next_ping = started + ping_every;
        loop {
            let silent_until = silence.map(|limit| heard + limit);
            let ends = deadline.map(|(at, ..)| at);
            let wake = [ends, silent_until, silence.map(|_| next_ping)].into_iter().flatten().min();
            let wake = wake.unwrap_or(started + Duration::from_secs(365 * 24 * 3600));
            let event = tokio::select! {
                event = self.reader.next() => Some(event.map_err(Stop::Lines)?),
                () = sleep_until(wake.into()) => None,
            };
            let now = Instant::now();
            if let Some((at, limit, whose)) = deadline
                && now >= at
            {
                let seconds = limit.as_secs_f64();
                return Err(Stop::Kill(Failure::new(
                    FailureCause::TimedOut,
                    format!("Blender was still {doing} after {seconds} s, {whose}; it was stopped"),
                )));
            }
            let Some(event) = event else {
                if silent_until.is_some_and(|until| now >= until) {
                    return Err(Stop::Kill(Failure::new(
                        FailureCause::HostMisbehaved,
                        format!(
                            "Blender answered nothing for {} seconds while {doing}; it was stopped",
                            silence.unwrap_or_default().as_secs_f64()
                        ),
                    )));
                }
                self.send(&HostCommand::Ping).await?;
                next_ping = now + ping_every;
                continue;
            };
            heard = now;
            if let Some(done) = self.answer(event, asked, &mut planned)? {
                return Ok(done);
            }
        }
    }

    /// Takes an event in for the request under way.
    fn answer(
        &self,
        event: HostEvent,
        asked: u64,
        planned: &mut Option<Vec<PlannedFile>>,
    ) -> Result<Option<Done>, Stop> {
        let lie = |why: &str| Err(Stop::Lines(LineError::Broken(why.to_owned())));
        match event {
            HostEvent::Pong => Ok(None),
            HostEvent::Progress(progress) => {
                if let Some(sink) = &self.options.progress {
                    sink(progress);
                }
                Ok(None)
            }
            HostEvent::Planned { id, files } if id == asked && planned.is_none() => {
                if let Err(why) = plan::check(&files) {
                    return lie(&why);
                }
                *planned = Some(files);
                Ok(None)
            }
            HostEvent::Opened { id, notices, plan, mut reuse, seconds, memory } if id == asked => {
                reuse.reasons = bounded(reuse.reasons);
                Ok(Some(Done::Opened(OpenedFile { notices: bounded(notices), plan, reuse, seconds, memory })))
            }
            HostEvent::Rendered { id, started_at, ended_at, memory, notices } if id == asked => {
                let Some(planned) = planned.take() else {
                    return lie("it rendered a frame without naming its files first");
                };
                Ok(Some(Done::Rendered(Rendered {
                    planned,
                    seconds: (ended_at - started_at).max(0.0),
                    peak_memory: memory,
                    started_at,
                    ended_at,
                    notices: bounded(notices),
                })))
            }
            HostEvent::Baked { id, simulated, notices, seconds, memory } if id == asked => {
                Ok(Some(Done::Baked(Baked {
                    simulated: simulated.iter().take(1000).map(|name| sentence(name)).collect(),
                    notices: bounded(notices),
                    seconds: seconds.max(0.0),
                    peak_memory: memory,
                })))
            }
            HostEvent::Failed { id, cause, message } if id == asked => {
                Err(Stop::Said(Failure::new(cause, sentence(&message))))
            }
            HostEvent::Hello { .. } => lie("it greeted twice"),
            HostEvent::Planned { .. }
            | HostEvent::Opened { .. }
            | HostEvent::Rendered { .. }
            | HostEvent::Baked { .. }
            | HostEvent::Failed { .. } => lie("it answered what nobody asked"),
        }
    }

    async fn send(&mut self, command: &HostCommand<'_>) -> Result<(), Stop> {
        let mut line = serde_json::to_vec(command).map_err(|error| {
            Stop::Said(Failure::new(
                FailureCause::Other,
                format!("the request cannot be written down: {error}"),
            ))
        })?;
        line.push(b'\n');
        // A host that reads nothing must not hold this up without end.
        match timeout(self.options.silence_limit, self.writer.write_all(&line)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Stop::Lines(LineError::Closed)),
        }
    }

    /// The lines have ended: either the process died, which is explained, or it broke its protocol.
    async fn ended(&mut self, error: LineError, doing: &str) -> Failure {
        match error {
            LineError::Broken(why) => self.misbehaved(&why).await,
            LineError::Closed => {
                // Its end of the socket closes a moment before the process is gone.
                let status = timeout(Duration::from_secs(2), self.process.wait()).await;
                let Ok(status) = status else {
                    return self.misbehaved("it closed its socket and lived on").await;
                };
                self.log.finish().await;
                let failure = explain(status.ok(), &self.log, self.out_of_memory_before, doing);
                self.end(failure).await
            }
        }
    }

    async fn misbehaved(&mut self, why: &str) -> Failure {
        let message = format!("the process in Blender's place broke its protocol: {why}; it was stopped");
        self.end(Failure::new(FailureCause::HostMisbehaved, message)).await
    }

    async fn end(&mut self, mut failure: Failure) -> Failure {
        self.stop().await;
        self.log.finish().await;
        failure.log_tail = self.log.tail();
        failure
    }

    async fn stop(&mut self) {
        self.dead = true;
        self.process.kill();
        // SIGKILL cannot be refused; a process in an uninterruptible read of a dead disk can still be slow.
        let _gone = timeout(Duration::from_secs(10), self.process.wait()).await;
    }
}

enum Done {
    Opened(OpenedFile),
    Rendered(Rendered),
    Baked(Baked),
}

/// The time limit of a request, with what it is to a person, and the longest silence meanwhile.
#[derive(Debug, Clone, Copy)]
struct Limits {
    whole: Option<(Duration, &'static str)>,
    silence: Option<Duration>,
}

/// The reason why a request has no result.
enum Stop {
    /// The host said so, and lives on.
    Said(Failure),
    Lines(LineError),
    Kill(Failure),
}

/// Text from inside Blender, short enough for a page.
fn sentence(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(600).collect();
    line.trim().to_owned()
}

fn bounded(notices: Vec<String>) -> Vec<String> {
    notices.iter().take(50).map(|notice| sentence(notice)).collect()
}

/// Starts a Blender once to learn what it can do here. Callers keep the answer.
pub async fn probe(install: &BlenderInstall) -> Result<Capabilities, HostError> {
    let folder = tempfile::tempdir().map_err(HostError::Prepare)?;
    let root = SlotRoot::create(folder.path()).map_err(HostError::Prepare)?;
    let host = Host::start(install, &root, HostOptions::default()).await?;
    let capabilities = host.capabilities.clone();
    host.kill().await;
    Ok(capabilities)
}
