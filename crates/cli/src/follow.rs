//! Stays with a job until it ends, or until the person goes: shows it, brings its frames home.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use kiln_api::{Change, Event, JobView, WaitReason};
use kiln_client::{Client, EventStream, Fetcher, How};
use kiln_types::{DeviceClass, FrameSet, JobState, RelPath, Suspicion};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};

use crate::{
    ask,
    bring::{News, Wish, backoff, bring},
    exit::{Exit, Fault, Outcome},
    failed::{SHOWN_FAILURES, gone},
    output::{
        Output,
        bake::{bake, is_baking, took},
        suspicious,
        text::{clock, task},
    },
    progress::{Inside, Progress, Tally},
    signals::{Kind, Signals},
};

/// How often a bar moves.
const LIVE_TICK: Duration = Duration::from_millis(250);
/// Frames in work by which a bar moves once more rarely: of a thousand nobody sees a single one, and the farm has
/// something better to do than to count them.
const RUNNING_A_TICK: u32 = 100;
/// How rarely it moves at most.
const SLOWEST_TICK: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);
/// How old a view may become where no event tells of a change.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long a worker may take to say what its Blenders can do.
const STUCK: Duration = Duration::from_secs(5);
/// Suspicious frames that are named when they come; the end names all.
const SHOWN_SUSPICIONS: usize = 10;

/// Whose job it is, which decides what Ctrl-C can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// It lives inside this command and ends with it.
    Ours,
    /// It lives in a farm and can go on alone.
    Farm,
}

/// How the stay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The job has ended.
    Ended,
    /// The job goes on without this command.
    Detached,
    /// The job inside this command was stopped.
    Stopped,
}

pub struct Stay {
    pub end: End,
    pub job: JobView,
    /// Frames whose files came home or were there.
    pub landed: u32,
    /// Those among them that took the place of frames of an earlier save or of other settings.
    pub replaced: u32,
    /// Files that were not replaced, each with its frame.
    pub left: Vec<(i32, RelPath)>,
    /// Something of the job is left at the farm that this command did not ask for.
    pub behind: bool,
    /// What kept frames from coming home.
    pub trouble: Option<Fault>,
}

impl Stay {
    /// A job that was joined may make frames that this command did not ask for: what is in their way is no failure of it.
    pub fn only(mut self, asked: Option<&FrameSet>) -> Self {
        if let Some(asked) = asked {
            let all = self.left.len();
            self.left.retain(|(frame, _)| asked.index_of(*frame).is_some());
            self.behind = self.left.len() < all;
        }
        self
    }

    /// The exit code of this command.
    pub fn exit(&self) -> Exit {
        match (self.end, self.job.state) {
            (End::Detached, _) => Exit::Interrupted,
            (End::Stopped, _) | (_, JobState::Cancelled) => Exit::Cancelled,
            _ if self.trouble.is_some() || !self.left.is_empty() => Exit::Failed,
            (_, JobState::Completed) => Exit::Done,
            _ => Exit::Failed,
        }
    }
}

struct Follower<'a> {
    client: &'a Client,
    job: JobView,
    progress: Progress,
    tally: Tally,
    wish: watch::Sender<Wish>,
    fetches: bool,
    home: bool,
    landed: u32,
    replaced: u32,
    left: Vec<(i32, RelPath)>,
    trouble: Option<Fault>,
    told: usize,
    /// Faults that were named on the way.
    said: HashSet<String>,
    /// Suspicious frames that were named on the way.
    suspected: usize,
    /// The job's view is older than its last event.
    stale: bool,
    /// When the view was read.
    looked: Instant,
    /// When it is to be asked again how far the frames in work are.
    look_inside: Instant,
    away: bool,
    /// Since when nothing here can do what is left.
    stuck: Option<Instant>,
    /// The device of the job, as last seen.
    device: DeviceClass,
}

/// Follows `job` to its end. Frames are fetched where there is a `fetcher`.
///
/// # Errors
/// Where the server refuses; a server that is only away is waited for.
pub async fn follow(
    output: Output,
    client: &Client,
    job: JobView,
    fetcher: Option<Fetcher>,
    whose: Whose,
    signals: &mut Signals,
) -> Outcome<Stay> {
    let (wish, wishes) = watch::channel(Wish::default());
    let (news_sender, mut news) = mpsc::unbounded_channel();
    let fetches = fetcher.is_some();
    let fetching = fetcher.map(|fetcher| tokio::spawn(bring(fetcher, wishes, news_sender)));
    let mut follower = Follower {
        client,
        tally: Tally::default(),
        progress: Progress::new(output),
        wish,
        fetches,
        home: !fetches,
        landed: 0,
        replaced: 0,
        left: Vec::new(),
        trouble: None,
        told: 0,
        said: HashSet::new(),
        suspected: 0,
        stale: false,
        looked: Instant::now(),
        look_inside: Instant::now(),
        away: false,
        stuck: None,
        device: DeviceClass::Gpu,
        job,
    };
    let end = follower.begin(whose, &mut news, signals).await;
    follower.progress.finish();
    if let Some(fetching) = fetching {
        fetching.abort();
    }
    let end = end?;
    let Follower { job, landed, replaced, left, trouble, .. } = follower;
    Ok(Stay { end, job, landed, replaced, left, behind: false, trouble })
}

impl Follower<'_> {
    /// Opens the stream of events, for which it waits as for all else, and stays.
    async fn begin(
        &mut self,
        whose: Whose,
        news: &mut mpsc::UnboundedReceiver<News>,
        signals: &mut Signals,
    ) -> Outcome<End> {
        let mut backoff = backoff();
        let mut events = loop {
            match self.client.events(None, Some(self.job.id)).await {
                Ok(events) => break events,
                Err(error) if error.is_transient() => self.lost(&error.to_string()),
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.failed()) => {}
                () = signals.next() => return Ok(if whose == Whose::Ours { End::Stopped } else { End::Detached }),
            }
        };
        // Whatever happened before the stream was open is in this view.
        self.refresh().await?;
        self.stay(whose, &mut events, news, signals).await
    }

    async fn stay(
        &mut self,
        whose: Whose,
        events: &mut EventStream,
        news: &mut mpsc::UnboundedReceiver<News>,
        signals: &mut Signals,
    ) -> Outcome<End> {
        let mut tick = tokio::time::interval(if self.progress.live() { LIVE_TICK } else { TICK });
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut answer: Option<JoinHandle<Answer>> = None;
        loop {
            if self.job.state.is_end() && self.home {
                return Ok(End::Ended);
            }
            if whose == Whose::Ours {
                self.check_stuck()?;
            }
            tokio::select! {
                event = events.next() => match event {
                    Ok(event) => {
                        self.back();
                        self.on_event(&event).await?;
                    }
                    Err(error) if error.is_transient() => {
                        self.lost(&error.to_string());
                        self.stale = true;
                    }
                    Err(error) => return Err(error.into()),
                },
                Some(news) = news.recv() => self.on_news(news),
                _ = tick.tick(), if answer.is_none() => self.on_tick().await?,
                said = async { match &mut answer { Some(answer) => answer.await, None => std::future::pending().await } } => {
                    answer = None;
                    self.progress.resume();
                    match said.unwrap_or(Answer::Detach) {
                        Answer::GoOn => {}
                        Answer::Detach => return Ok(End::Detached),
                        Answer::Cancel => self.client.cancel(self.job.id).await?,
                    }
                }
                kind = signals.next_kind() => match whose {
                    Whose::Ours => return Ok(End::Stopped),
                    Whose::Farm if answer.is_some() || kind == Kind::End => return Ok(End::Detached),
                    Whose::Farm => {
                        let id = self.job.id;
                        let mut asked = false;
                        self.progress.aside(|output| asked = output.can_ask());
                        if !asked {
                            return Ok(End::Detached);
                        }
                        self.progress.pause();
                        ask::prompt(&format!(
                            "\rJob {id}: [d]etach and let the farm go on, [c]ancel it, or Enter to stay? "
                        ));
                        answer = Some(tokio::task::spawn_blocking(read_answer));
                    }
                },
            }
        }
    }

    /// What waits for something that this machine lacks waits for ever: no other joins a farm inside a command. Which
    /// GPUs there are is told late, and was asked before.
    fn check_stuck(&mut self) -> Outcome {
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
        let waits = match waits {
            WaitReason::NoWorkerFits { missing, .. } if !missing.is_empty() => {
                let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                format!("Nothing here has {}.", missing.join(" or "))
            }
            other => other.to_string(),
        };
        Err(Fault::failed(format!("{waits} Render with another Blender (--blender-version), or on a farm.")))
    }

    /// Reads the job anew. A server that is away is no error.
    async fn refresh(&mut self) -> Outcome {
        match self.client.job(self.job.id).await {
            Ok(job) => {
                self.back();
                self.job = job;
                self.stale = false;
                self.looked = Instant::now();
                self.see();
                Ok(())
            }
            Err(error) if error.is_transient() => {
                self.lost(&error.to_string());
                self.stale = true;
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes over what the job's view says.
    fn see(&mut self) {
        let job = &self.job;
        self.tally.done = job.tasks.done;
        self.tally.failed = job.tasks.failed;
        self.tally.total = job.tasks.total;
        self.tally.workers_busy = job.workers_busy;
        self.tally.seconds_left = job.seconds_left;
        self.tally.mean_frame_s = job.mean_frame_s;
        self.tally.waits_for = job.waits_for.as_ref().map(ToString::to_string);
        let baking = is_baking(job).then(|| bake(job)).flatten();
        if let (None, Some(_), Some(took)) =
            (baking, &self.tally.baking, bake(job).filter(|step| step.tasks.failed == 0).and_then(took))
        {
            self.progress.aside(|output| output.note(&format!("simulations baked in {}", clock(took))));
        }
        self.tally.baking = baking.map(|step| (job.spec.bake.join(", "), step.progress as f32));
        if job.state == JobState::Paused {
            self.tally.waits_for = Some(format!("paused; `kiln jobs resume {}` goes on", job.id));
        }
        let device = job.spec.session.device;
        if job.spec.any_gpu
            && std::mem::replace(&mut self.device, device) != device
            && device != DeviceClass::Gpu
        {
            self.progress.aside(|output| output.note(&format!("all frames render on {device}")));
        }
        for notice in job.notices.iter().skip(self.told) {
            self.progress.aside(|output| output.note(&format!("note: {notice}")));
        }
        self.told = self.told.max(job.notices.len());
        let ended = job.state.is_end();
        self.wish.send_modify(|wish| {
            wish.sweep += 1;
            wish.last |= ended;
        });
        self.progress.update(&self.tally);
    }

    async fn on_event(&mut self, event: &Event) -> Outcome {
        match &event.change {
            Change::TaskDone { frame: None, .. } => self.refresh().await?,
            Change::TaskDone { frame: Some(frame), suspicious, .. } => {
                self.tally.done = (self.tally.done + 1).min(self.tally.total);
                self.stale = true;
                if self.fetches {
                    self.wish.send_modify(|wish| wish.sweep += 1);
                } else {
                    self.suspect(*frame, suspicious);
                    self.progress.frame(*frame, &self.tally);
                }
            }
            Change::TaskFailed { frame: None, .. } => self.stale = true,
            Change::TaskFailed { frame, reason, .. } => {
                self.stale = true;
                self.tally.failed += 1;
                tracing::debug!(frame, reason, "frame failed");
            }
            Change::AttemptEnded { frame, failure: Some(failure), .. } => {
                // The same fault meets every frame: once is enough on the way, and the end names the frames. What stops
                // the job is its end.
                let stops = failure.cause.stops_job();
                if !stops && self.said.len() < SHOWN_FAILURES && self.said.insert(failure.message.clone()) {
                    let worker = event.worker.as_deref().unwrap_or("a worker");
                    self.progress.aside(|output| {
                        output.note(&format!("{} on {worker}: {failure}", task(*frame)));
                    });
                }
            }
            Change::JobState { .. }
            | Change::JobNotice { .. }
            | Change::JobDevice { .. }
            | Change::JobExtended { .. } => {
                self.refresh().await?;
            }
            Change::JobDeleted => {
                let id = self.job.id;
                return Err(Fault::failed(format!("job {id} was deleted while this command waited for it")));
            }
            _ => self.stale = true,
        }
        Ok(())
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Landed(landed) => {
                self.back();
                match landed.how {
                    How::Written | How::Replaced | How::AlreadyThere => {
                        self.landed += 1;
                        self.replaced += u32::from(landed.how == How::Replaced);
                        self.suspect(landed.frame, &landed.suspicious);
                    }
                    How::Gone => self.trouble = Some(gone(self.job.id, landed.frame)),
                    How::Left(paths) => {
                        let first = paths.first().map(ToString::to_string).unwrap_or_default();
                        self.progress.aside(|output| {
                            output.warning(&format!(
                                "frame {}: {first} is there, is not this job's, and was left as it is",
                                landed.frame
                            ));
                        });
                        self.left.extend(paths.into_iter().map(|path| (landed.frame, path)));
                    }
                }
                self.progress.frame(landed.frame, &self.tally);
            }
            News::Again(why) => self.lost(&why),
            News::Failed(error) => {
                self.trouble = Some(error.into());
                // Nothing more comes home; the job itself is followed on.
                self.home = true;
            }
            News::Home => self.home = true,
        }
    }

    /// Names a suspicious frame.
    fn suspect(&mut self, frame: i32, suspicions: &[Suspicion]) {
        for suspicion in suspicions {
            self.suspected += 1;
            let more = match self.suspected {
                ..SHOWN_SUSPICIONS => "",
                SHOWN_SUSPICIONS => "; more such frames are named at the end",
                _ => return,
            };
            let what = suspicious::of_frame(frame, suspicion);
            self.progress.aside(|output| output.note(&format!("note: {what}{more}")));
        }
    }

    async fn on_tick(&mut self) -> Outcome {
        // What happened while the stream was broken off may come as no event.
        // Nothing tells how far a bake is, nor that what it waits for is another thing by now.
        let due = if self.tally.done == 0 { TICK } else { LOOK_AGAIN };
        if self.stale || self.looked.elapsed() >= due {
            self.refresh().await?;
        }
        let long = self.tally.mean_frame_s.is_none_or(|mean| mean > 1.0);
        if self.progress.live() && long && !self.job.state.is_end() && Instant::now() >= self.look_inside {
            self.look_inside().await;
        }
        self.progress.update(&self.tally);
        Ok(())
    }

    /// How far the frames in work are. The answer is as short for a thousand workers as for one.
    async fn look_inside(&mut self) {
        let Ok(running) = self.client.running(self.job.id, 1).await else { return };
        let first = running.running.first().map(|first| &first.task);
        let first = first.and_then(|run| Some((run.frame?, run.fraction?.clamp(0.0, 1.0), run.estimated)));
        self.tally.inside = Inside { parts: running.inside, first };
        let pause = LIVE_TICK * (running.count / RUNNING_A_TICK);
        self.look_inside = Instant::now() + pause.min(SLOWEST_TICK);
    }

    fn lost(&mut self, why: &str) {
        if !self.away {
            self.away = true;
            self.progress.aside(|output| output.warning(&format!("{why}; trying on until it is back")));
        }
    }

    fn back(&mut self) {
        if self.away {
            self.away = false;
            self.progress.aside(|output| output.note("the server is back"));
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    GoOn,
    Detach,
    Cancel,
}

fn read_answer() -> Answer {
    match ask::line().as_deref() {
        None | Some("d" | "detach") => Answer::Detach,
        Some("c" | "cancel") => Answer::Cancel,
        Some(_) => Answer::GoOn,
    }
}
