//! Stays with a job until it ends, or until the caller stops that: reports how far it is, fetches its frames.

use std::time::{Duration, Instant};

use kiln_api::{Change, Event, JobView, StepView, WaitReason};
use kiln_types::{DeviceClass, FrameSet, RelPath, TaskName};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    bring::{FetchNews, FetchRequest, backoff, bring},
    channel::EventSender,
    error::SubmissionError,
    event::{Baking, FollowEnd, JobOutcome, JobProgress, RunningFrame, RunningFrames, SubmissionEvent},
    finish::Followed,
    submit::SubmittedJob,
};
use crate::{Client, EventStream, FetchResult, FetchedFrame};

/// The time between two looks at the running frames.
const LIVE_TICK: Duration = Duration::from_millis(250);
/// Running frames for which another [`LIVE_TICK`] is waited: of a thousand nobody sees a single one.
const RUNNING_A_TICK: u32 = 100;
/// The longest time between two looks at the running frames.
const SLOWEST_TICK: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);
/// The age at which a view is read again, if no event tells of a change.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// The time that a worker may take to say what its Blenders can do.
const STUCK: Duration = Duration::from_secs(5);

/// The owner of a job, which decides what a stop means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobHome {
    /// The caller: the job ends with it.
    Caller,
    /// A farm: the job can go on alone.
    Farm,
}

/// Ends a stay with a job. The job itself is not cancelled.
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

/// The options of a stay with a job.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    pub home: JobHome,
    /// The running frames are looked at several times a second.
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
    /// As it was told last.
    told: JobProgress,
    request: watch::Sender<FetchRequest>,
    fetches: bool,
    /// Everything is fetched that there is to fetch.
    is_fetched: bool,
    landed: u32,
    replaced: u32,
    left: Vec<(i32, RelPath)>,
    fetch_error: Option<SubmissionError>,
    /// Notices of the job that were told.
    notices: usize,
    /// The job's view is older than its last event.
    is_stale: bool,
    /// When the view was read.
    looked: Instant,
    /// When it is to be asked again how far the frames in work are.
    look_inside: Instant,
    is_away: bool,
    /// Since when nothing here can do what is left.
    stuck: Option<Instant>,
    /// The device of the job, as last seen.
    device: DeviceClass,
}

impl SubmittedJob {
    /// Follows the job to its end, and fetches its frames where they have a folder.
    ///
    /// # Errors
    /// The server refuses. A server that is only away is waited for.
    pub async fn follow(self, options: &FollowOptions) -> Result<Followed, SubmissionError> {
        let Self { client, job, target, before, notices, marker, events } = self;
        let (request, requests) = watch::channel(FetchRequest::default());
        let (news_sender, mut news) = mpsc::unbounded_channel();
        let (fetches, out) = (target.is_some(), target.as_ref().map(|target| target.path()));
        let fetcher = target.map(|target| target.fetcher(&client, &job));
        let fetching = fetcher
            .map(|fetcher| AbortOnDropHandle::new(tokio::spawn(bring(fetcher, requests, news_sender))));
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
        let followed = Followed {
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

    /// Opens the stream of events, for which it waits as for all else, and stays.
    async fn begin(
        &mut self,
        stop: &Stop,
        news: &mut mpsc::UnboundedReceiver<FetchNews>,
    ) -> Result<FollowEnd, SubmissionError> {
        let mut backoff = backoff();
        let mut events = loop {
            match self.client.events(None, Some(self.job.id)).await {
                Ok(events) => break events,
                Err(error) if error.is_transient() => self.lost(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.failed()) => {}
                () = stop.stopped() => return Ok(self.stopped()),
            }
        };
        // Whatever happened before the stream was open is in this view.
        self.refresh().await?;
        self.stay(stop, &mut events, news).await
    }

    async fn stay(
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
                        self.back();
                        self.on_event(event).await?;
                    }
                    Err(error) if error.is_transient() => {
                        self.lost(&error.to_string());
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

    /// Reads the job again. A server that is away is no error.
    async fn refresh(&mut self) -> Result<(), SubmissionError> {
        match self.client.job(self.job.id).await {
            Ok(job) => {
                self.back();
                self.job = job;
                self.is_stale = false;
                self.looked = Instant::now();
                self.see();
                Ok(())
            }
            Err(error) if error.is_transient() => {
                self.lost(&error.to_string());
                self.is_stale = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes over what the job's view says.
    fn see(&mut self) {
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
                self.back();
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
            FetchNews::Again(reason) => self.lost(&reason),
            FetchNews::Failed(error) => {
                self.fetch_error = Some(error.into());
                // Nothing more comes; the job itself is followed on.
                self.is_fetched = true;
            }
            FetchNews::Done => self.is_fetched = true,
        }
    }

    async fn on_tick(&mut self) -> Result<(), SubmissionError> {
        // What happened while the stream was broken off may come as no event.
        // Nothing tells how far a bake is, nor that what it waits for is another thing by now.
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

    /// Reads the progress of the running frames. The answer is as short for a thousand workers as for one.
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

    fn lost(&mut self, reason: &str) {
        if !self.is_away {
            self.is_away = true;
            self.events.tell(SubmissionEvent::ServerLost { reason: reason.to_owned() });
        }
    }

    fn back(&mut self) {
        if self.is_away {
            self.is_away = false;
            self.events.tell(SubmissionEvent::ServerBack);
        }
    }
}

/// The event of a frame whose files were dealt with.
pub(crate) fn frame_fetched(landed: FetchedFrame) -> SubmissionEvent {
    let FetchedFrame { frame, files, bytes, suspicious, result, left } = landed;
    SubmissionEvent::FrameFetched { frame, files, bytes, result, left, suspicious }
}

/// The progress of the job, by its view.
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

impl Followed {
    /// A job that was joined may make frames that were not asked for: what is in their way is no failure.
    fn only(mut self, asked: Option<&FrameSet>) -> Self {
        if let Some(asked) = asked {
            let all = self.left.len();
            self.left.retain(|(frame, _)| asked.index_of(*frame).is_some());
            self.leaves_others = self.left.len() < all;
        }
        self
    }
}
