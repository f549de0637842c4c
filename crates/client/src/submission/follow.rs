//! Follows a job until it ends, or until the caller stops that: reports its progress, and fetches its frames.

use std::time::{Duration, Instant};

use kiln_api::{Change, Event, JobView, StepView, WaitReason};
use kiln_types::{DeviceClass, FrameSet, RelPath, TaskName};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    bring::{FetchNews, FetchRequest, backoff, fetch_frames},
    channel::EventSender,
    error::SubmissionError,
    event::{Baking, FollowEnd, JobOutcome, JobProgress, RunningFrame, RunningFrames, SubmissionEvent},
    finish::FollowedJob,
    submit::SubmittedJob,
};
use crate::{Client, EventStream, FetchResult, FetchedFrame};

/// The time between two readings of the running frames.
const LIVE_TICK: Duration = Duration::from_millis(250);
/// The number of running frames that adds a [`LIVE_TICK`] to the wait: of a thousand, nobody sees a single one.
const RUNNING_A_TICK: u32 = 100;
/// The longest time between two readings of the running frames.
const SLOWEST_TICK: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);
/// The age at which a view is read again, if no event reports a change.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The time that a worker may take to report the devices of its Blenders.
const STUCK: Duration = Duration::from_secs(5);

/// The owner of a job, which decides what a stop means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobHome {
    /// The caller: the job ends with it.
    Caller,
    /// A farm: the job can go on alone.
    Farm,
}

/// Stops following a job, without cancelling it.
#[derive(Debug, Clone, Default)]
pub struct Stop(CancellationToken);

impl Stop {
    pub fn stop(&self) {
        self.0.cancel();
    }

    async fn stopped(&self) {
        self.0.cancelled().await;
    }
}

/// The options for following a job.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    pub home: JobHome,
    /// Reads the running frames several times a second.
    pub watches_frames: bool,
    /// Ends the stay with a job inside the caller when it is held: nobody else can resume it.
    pub stops_when_held: bool,
    pub stop: Stop,
}

struct Follower<'a> {
    client: &'a Client,
    events: &'a EventSender,
    home: JobHome,
    watches_frames: bool,
    stops_when_held: bool,
    job: JobView,
    progress: JobProgress,
    /// The progress that was reported last.
    told: JobProgress,
    request: watch::Sender<FetchRequest>,
    fetches: bool,
    /// Nothing is left to fetch.
    is_fetched: bool,
    landed: u32,
    replaced: u32,
    left: Vec<(i32, RelPath)>,
    fetch_error: Option<SubmissionError>,
    /// The number of notices that were reported.
    notices: usize,
    /// The job's view is older than its last event.
    is_stale: bool,
    /// The time at which the view was read.
    looked: Instant,
    /// The time of the next reading of the running frames.
    look_inside: Instant,
    is_away: bool,
    /// The time since which nothing here can render the rest.
    stuck: Option<Instant>,
    /// The last device of the job.
    device: DeviceClass,
}

impl SubmittedJob {
    /// Follows the job until it ends, and fetches its frames if they have a folder. Waits for a server that is away.
    pub async fn follow(self, options: &FollowOptions) -> Result<FollowedJob, SubmissionError> {
        let Self { client, job, target, before, notices, marker, events } = self;
        let (request, requests) = watch::channel(FetchRequest::default());
        let (news_sender, mut news) = mpsc::unbounded_channel();
        let (fetches, out) = (target.is_some(), target.as_ref().map(|target| target.path()));
        let fetcher = target.map(|target| target.fetcher(&client, &job));
        let fetching = fetcher.map(|fetcher| {
            AbortOnDropHandle::new(tokio::spawn(fetch_frames(fetcher, requests, news_sender)))
        });
        let mut follower = Follower {
            client: &client,
            events: &events,
            home: options.home,
            watches_frames: options.watches_frames,
            stops_when_held: options.stops_when_held,
            progress: JobProgress::default(),
            told: JobProgress::default(),
            request,
            fetches,
            is_fetched: !fetches,
            landed: 0,
            replaced: 0,
            left: Vec::new(),
            fetch_error: None,
            notices: 0,
            is_stale: false,
            looked: Instant::now(),
            look_inside: Instant::now(),
            is_away: false,
            stuck: None,
            device: DeviceClass::Gpu,
            job,
        };
        let end = follower.begin(&options.stop, &mut news).await;
        drop(fetching);
        let Follower { job, landed, replaced, left, fetch_error, .. } = follower;
        let followed = FollowedJob {
            end: end?,
            job,
            landed,
            replaced,
            left,
            leaves_others: false,
            fetch_error,
            out,
            before,
            notices,
            client,
            events,
        };
        let asked = followed.before.as_ref().and_then(|before| before.frames.clone());
        let followed = followed.only(asked.as_ref());
        if let Some((data, marker)) = marker
            && followed.outcome() == JobOutcome::Done
            && !followed.leaves_others
        {
            marker.forget(&data);
        }
        Ok(followed)
    }
}

impl Follower<'_> {
    fn stopped(&self) -> FollowEnd {
        match self.home {
            JobHome::Caller => FollowEnd::Stopped,
            JobHome::Farm => FollowEnd::Detached,
        }
    }

    /// Opens the stream of events, and follows the job.
    async fn begin(
        &mut self,
        stop: &Stop,
        news: &mut mpsc::UnboundedReceiver<FetchNews>,
    ) -> Result<FollowEnd, SubmissionError> {
        let mut backoff = backoff();
        let mut events = loop {
            match self.client.events(None, Some(self.job.id)).await {
                Ok(events) => break events,
                Err(error) if error.is_transient() => self.server_lost(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.failed()) => {}
                () = stop.stopped() => return Ok(self.stopped()),
            }
        };
        // Earlier changes are in this view.
        self.refresh().await?;
        self.run(stop, &mut events, news).await
    }

    async fn run(
        &mut self,
        stop: &Stop,
        events: &mut EventStream,
        news: &mut mpsc::UnboundedReceiver<FetchNews>,
    ) -> Result<FollowEnd, SubmissionError> {
        let mut tick = tokio::time::interval(if self.watches_frames { LIVE_TICK } else { TICK });
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.job.state.is_end() && self.is_fetched {
                return Ok(FollowEnd::Ended);
            }
            if self.is_left_held() {
                return Ok(FollowEnd::Held);
            }
            if self.home == JobHome::Caller {
                self.check_stuck()?;
            }
            tokio::select! {
                event = events.next() => match event {
                    Ok(event) => {
                        self.server_back();
                        self.on_event(event).await?;
                    }
                    Err(error) if error.is_transient() => {
                        self.server_lost(&error.to_string());
                        self.is_stale = true;
                    }
                    Err(error) => return Err(error.into()),
                },
                Some(news) = news.recv() => self.on_news(news),
                _ = tick.tick() => self.on_tick().await?,
                () = stop.stopped() => return Ok(self.stopped()),
            }
        }
    }

    /// Returns whether the job is held, its first frames are here, and nobody can resume it.
    fn is_left_held(&self) -> bool {
        let is_held = matches!(self.job.waits_for, Some(WaitReason::Held { .. }));
        let is_here = !self.fetches || self.is_fetched || self.landed >= self.job.tasks.done;
        self.stops_when_held && is_held && is_here
    }

    /// Fails if the job waits for something that this machine lacks: no other joins a farm inside a command. Which GPUs
    /// there are is known late, and was asked before.
    fn check_stuck(&mut self) -> Result<(), SubmissionError> {
        let JobView { state, tasks, unmet, spec, .. } = &self.job;
        let cpu = spec.session.device == DeviceClass::Cpu;
        let stuck = !state.is_end() && tasks.running == 0 && !unmet.is_empty() && cpu;
        let Some(waits) = self.job.waits_for.as_ref().filter(|_| stuck) else {
            self.stuck = None;
            return Ok(());
        };
        if self.stuck.get_or_insert_with(Instant::now).elapsed() < STUCK {
            return Ok(());
        }
        Err(SubmissionError::NothingHere(waits.clone()))
    }

    /// Reads the job again, unless the server is away.
    async fn refresh(&mut self) -> Result<(), SubmissionError> {
        match self.client.job(self.job.id).await {
            Ok(job) => {
                self.server_back();
                self.job = job;
                self.is_stale = false;
                self.looked = Instant::now();
                self.apply_view();
                Ok(())
            }
            Err(error) if error.is_transient() => {
                self.server_lost(&error.to_string());
                self.is_stale = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes over the view of the job.
    fn apply_view(&mut self) {
        let was_baking = self.progress.baking.is_some();
        self.progress = JobProgress { running: self.progress.running.take(), ..progress_of(&self.job) };
        let bake = self.job.bake().filter(|step| step.tasks.failed == 0);
        if was_baking
            && self.progress.baking.is_none()
            && let Some(seconds) = bake.and_then(StepView::seconds)
        {
            self.events.tell(SubmissionEvent::Baked { seconds });
        }
        let device = self.job.spec.session.device;
        if self.job.spec.any_gpu
            && std::mem::replace(&mut self.device, device) != device
            && device != DeviceClass::Gpu
        {
            self.events.tell(SubmissionEvent::DevicePinned { device });
        }
        for notice in self.job.notices.iter().skip(self.notices) {
            self.events.tell(SubmissionEvent::Notice { text: notice.clone() });
        }
        self.notices = self.notices.max(self.job.notices.len());
        let ended = self.job.state.is_end();
        self.request.send_modify(|request| {
            request.sweep += 1;
            request.is_last |= ended;
        });
        self.tell_progress();
    }

    fn tell_progress(&mut self) {
        if self.progress != self.told {
            self.told = self.progress.clone();
            self.events.tell(SubmissionEvent::Progress(Box::new(self.progress.clone())));
        }
    }

    async fn on_event(&mut self, event: Event) -> Result<(), SubmissionError> {
        match event.change {
            Change::TaskDone { name: TaskName { frame: None, .. }, .. } => self.refresh().await?,
            Change::TaskDone { name: TaskName { frame: Some(frame), .. }, seconds, suspicious, .. } => {
                self.progress.done = (self.progress.done + 1).min(self.progress.total);
                self.is_stale = true;
                let worker = event.worker;
                if self.fetches {
                    self.request.send_modify(|request| request.sweep += 1);
                }
                self.tell_progress();
                self.events.tell(SubmissionEvent::FrameFinished { frame, seconds, worker, suspicious });
            }
            Change::TaskFailed { name, reason, .. } => {
                self.is_stale = true;
                self.progress.failed += u32::from(name.frame.is_some());
                tracing::debug!(task = %name, reason, "task failed");
            }
            Change::AttemptEnded { name, failure: Some(failure), .. } => {
                self.events.tell(SubmissionEvent::AttemptFailed {
                    task: name,
                    worker: event.worker,
                    cause: failure.cause,
                    message: failure.message,
                });
            }
            Change::JobState { .. }
            | Change::JobNotice { .. }
            | Change::JobDevice { .. }
            | Change::JobExtended { .. } => {
                self.refresh().await?;
            }
            Change::JobDeleted => return Err(SubmissionError::Deleted(self.job.id)),
            _ => self.is_stale = true,
        }
        Ok(())
    }

    fn on_news(&mut self, news: FetchNews) {
        match news {
            FetchNews::Landed(landed) => {
                self.server_back();
                match landed.result {
                    FetchResult::Written | FetchResult::Replaced | FetchResult::AlreadyThere => {
                        self.landed += 1;
                        self.replaced += u32::from(landed.result == FetchResult::Replaced);
                    }
                    FetchResult::Gone => {
                        let (job, frame) = (self.job.id, landed.frame);
                        self.fetch_error = Some(SubmissionError::FrameGone { job, frame });
                    }
                    FetchResult::Left => {
                        self.left.extend(landed.left.iter().map(|path| (landed.frame, path.clone())));
                    }
                }
                self.events.tell(frame_fetched(landed));
            }
            FetchNews::Again(reason) => self.server_lost(&reason),
            FetchNews::Failed(error) => {
                self.fetch_error = Some(error.into());
                // Nothing else is fetched; the job is followed on.
                self.is_fetched = true;
            }
            FetchNews::Done => self.is_fetched = true,
        }
    }

    async fn on_tick(&mut self) -> Result<(), SubmissionError> {
        // Events may be missing, and none reports the progress of a bake, or another reason to wait.
        let due = if self.progress.done == 0 { TICK } else { LOOK_AGAIN };
        if self.is_stale || self.looked.elapsed() >= due {
            self.refresh().await?;
        }
        let long = self.progress.mean_frame_s.is_none_or(|mean| mean > 1.0);
        if self.watches_frames && long && !self.job.state.is_end() && Instant::now() >= self.look_inside {
            self.look_inside().await;
        }
        self.tell_progress();
        Ok(())
    }

    /// Reads the progress of the running frames, in an answer that does not grow with the workers.
    async fn look_inside(&mut self) {
        let Ok(running) = self.client.running(self.job.id, 1).await else { return };
        let first = running.running.first().map(|first| &first.task);
        let first = first.and_then(|run| {
            let fraction = run.fraction?.clamp(0.0, 1.0);
            Some(RunningFrame { frame: run.name.frame?, fraction, is_estimated: run.estimated })
        });
        self.progress.running = Some(RunningFrames { fractions: running.inside, first });
        let pause = LIVE_TICK * (running.count / RUNNING_A_TICK);
        self.look_inside = Instant::now() + pause.min(SLOWEST_TICK);
    }

    fn server_lost(&mut self, reason: &str) {
        if !self.is_away {
            self.is_away = true;
            self.events.tell(SubmissionEvent::ServerLost { reason: reason.to_owned() });
        }
    }

    fn server_back(&mut self) {
        if self.is_away {
            self.is_away = false;
            self.events.tell(SubmissionEvent::ServerBack);
        }
    }
}

/// Returns the event of a frame that was fetched.
pub(crate) fn frame_fetched(landed: FetchedFrame) -> SubmissionEvent {
    let FetchedFrame { frame, files, bytes, suspicious, result, left } = landed;
    SubmissionEvent::FrameFetched { frame, files, bytes, result, left, suspicious }
}

/// Returns the progress in a view of a job.
fn progress_of(job: &JobView) -> JobProgress {
    JobProgress {
        state: Some(job.state),
        done: job.tasks.done,
        failed: job.tasks.failed,
        total: job.tasks.total,
        workers_busy: job.workers_busy,
        seconds_left: job.seconds_left,
        mean_frame_s: job.mean_frame_s,
        waits_for: job.waits_for.clone().filter(|reason| !matches!(reason, WaitReason::Paused { .. })),
        baking: job
            .open_bake()
            .map(|step| Baking { simulations: job.spec.bake.clone(), fraction: step.progress as f32 }),
        running: None,
    }
}

impl FollowedJob {
    /// Ignores files in the way of frames that were not asked for: a job that was joined may have some.
    fn only(mut self, asked: Option<&FrameSet>) -> Self {
        if let Some(asked) = asked {
            let all = self.left.len();
            self.left.retain(|(frame, _)| asked.index_of(*frame).is_some());
            self.leaves_others = self.left.len() < all;
        }
        self
    }
}
