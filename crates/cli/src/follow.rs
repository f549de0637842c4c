//! Follows jobs: shows their events, and asks what Ctrl-C means.

use std::{collections::HashSet, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use kiln_api::WaitReason;
use kiln_client::{
    Client, ClientError, FetchResult,
    submission::{
        FollowOptions, JobHome, JobProgress, Stop, SubmissionEvent, SubmissionMessage, SubmittedJob,
        VariantEvent, VariantFollowed, follow_all,
    },
};
use kiln_types::{JobId, JobState, Suspicion};
use tokio::{task::JoinHandle, time::MissedTickBehavior};

use crate::{
    ask,
    exit::Outcome,
    failed::SHOWN_FAILURES,
    output::{
        Output,
        submission::{self, Voice},
        suspicious,
        text::{self, clock},
    },
    progress::{ProgressView, sum},
    screen::Screen,
    signals::{Kind, Signals},
};

/// The time between two moves of a bar.
const LIVE_TICK: Duration = Duration::from_millis(250);
/// The time between two checks for a line that was held back.
const TICK: Duration = Duration::from_secs(1);
/// Suspicious frames that are named when they are delivered; the last lines name all.
const SHOWN_SUSPICIONS: usize = 10;

/// Follows the jobs of a submission until they end or the person detaches. Fails if a job cannot be cancelled or resumed.
pub async fn follow(
    screen: &mut Screen,
    jobs: Vec<SubmittedJob>,
    home: JobHome,
    signals: &mut Signals,
) -> Outcome<Vec<VariantFollowed>> {
    let client = jobs.first().map(|job| job.client().clone());
    let mut view = FollowView::new(screen.output, &jobs, home);
    let stop = Stop::default();
    let can_ask = screen.output.can_ask();
    let options = FollowOptions {
        home,
        watches_frames: view.progress.live(),
        stops_when_held: home == JobHome::Caller && !can_ask,
        stop: stop.clone(),
    };
    let mut tick = tokio::time::interval(if view.progress.live() { LIVE_TICK } else { TICK });
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answer: Option<JoinHandle<Answer>> = None;
    let followed = {
        let mut work = pin!(follow_all(jobs, &options));
        loop {
            tokio::select! {
                biased;
                Some(message) = screen.messages.recv() => view.take(screen.output, message),
                followed = &mut work => break Ok(followed),
                said = next_answer(&mut answer), if answer.is_some() => {
                    answer = None;
                    view.progress.resume();
                    match said {
                        Answer::Stay if view.has_asked && view.is_held() => {
                            let resumed = change_all(&client, &view.open_jobs(), Client::resume).await;
                            if let Err(error) = resumed {
                                break Err(error);
                            }
                            view.resumed();
                        }
                        Answer::Stay => {}
                        Answer::Detach => stop.stop(),
                        Answer::Cancel => {
                            let cancelled = change_all(&client, &view.open_jobs(), Client::cancel).await;
                            if let Err(error) = cancelled {
                                break Err(error);
                            }
                        }
                    }
                }
                kind = signals.next_kind() => match home {
                    JobHome::Caller => stop.stop(),
                    JobHome::Farm if answer.is_some() || kind == Kind::End => stop.stop(),
                    JobHome::Farm if screen.output.can_ask() => {
                        view.progress.pause();
                        ask::prompt(&view.question());
                        answer = Some(tokio::task::spawn_blocking(read_answer));
                    }
                    JobHome::Farm => stop.stop(),
                },
                _ = tick.tick(), if answer.is_none() => {
                    view.redraw();
                    if can_ask && view.is_held() && !view.has_asked {
                        view.has_asked = true;
                        view.progress.pause();
                        ask::prompt(&view.held_question(home));
                        answer = Some(tokio::task::spawn_blocking(read_answer));
                    }
                }
            }
        }
    };
    while let Ok(message) = screen.messages.try_recv() {
        view.take(screen.output, message);
    }
    view.progress.finish();
    Ok(followed?)
}

/// The jobs that are followed, and what the person was told of them.
struct FollowView {
    jobs: Vec<JobLine>,
    progress: ProgressView,
    /// Failures that were named.
    failures: HashSet<String>,
    /// Suspicions that were named.
    suspicions: usize,
    /// Jobs that cannot reach the server.
    away: usize,
    /// The person was asked whether held jobs continue.
    has_asked: bool,
    /// The jobs are this command's alone.
    is_local: bool,
}

struct JobLine {
    variant: Option<Arc<str>>,
    job: JobId,
    progress: JobProgress,
    /// The folder on this machine that the frames are fetched to, if they are.
    out: Option<PathBuf>,
}

impl JobLine {
    fn has_ended(&self) -> bool {
        self.progress.state.is_some_and(JobState::is_end)
    }

    /// Returns whether the job is held after its first frames.
    fn is_held(&self) -> bool {
        matches!(self.progress.waits_for, Some(WaitReason::Held { .. }))
    }
}

impl FollowView {
    fn new(output: Output, jobs: &[SubmittedJob], home: JobHome) -> Self {
        let line = |job: &SubmittedJob| JobLine {
            variant: job.variant().cloned(),
            job: job.job().id,
            progress: JobProgress { total: job.job().tasks.total, ..JobProgress::default() },
            out: job.out(),
        };
        let jobs: Vec<JobLine> = jobs.iter().map(line).collect();
        let is_local = home == JobHome::Caller;
        let on_a_farm = jobs.first().filter(|_| !is_local);
        let progress = ProgressView::new(output, on_a_farm.map(|line| line.job));
        Self { jobs, progress, failures: HashSet::new(), suspicions: 0, away: 0, has_asked: false, is_local }
    }

    /// The jobs that have not ended.
    fn open(&self) -> impl Iterator<Item = &JobLine> {
        self.jobs.iter().filter(|one| !one.has_ended())
    }

    fn open_jobs(&self) -> Vec<JobId> {
        self.open().map(|one| one.job).collect()
    }

    fn question(&self) -> String {
        match &self.open_jobs()[..] {
            [job] => {
                format!("\rJob {job}: [d]etach and leave it to the farm, [c]ancel it, or Enter to stay? ")
            }
            jobs => {
                let jobs: Vec<String> = jobs.iter().map(ToString::to_string).collect();
                format!(
                    "\rJobs {}: [d]etach and leave them to the farm, [c]ancel all, or Enter to stay? ",
                    jobs.join(", ")
                )
            }
        }
    }

    /// Returns whether all open jobs wait for a person to resume them.
    fn is_held(&self) -> bool {
        let mut open = self.open().peekable();
        open.peek().is_some() && open.all(JobLine::is_held)
    }

    fn resumed(&mut self) {
        self.jobs.iter_mut().filter(|one| one.is_held()).for_each(|one| one.progress.waits_for = None);
        self.has_asked = false;
    }

    fn held_question(&self, home: JobHome) -> String {
        let all = self.sum();
        let folders: Vec<String> = self.open().filter_map(|one| one.out.as_deref().map(text::path)).collect();
        let there = if folders.is_empty() { String::new() } else { format!(", in {}", folders.join(", ")) };
        let leave = match home {
            JobHome::Caller => "Ctrl-C stops",
            JobHome::Farm => "[d]etach, [c]ancel",
        };
        format!(
            "\rHeld after {} of {}{there}. Enter renders the others, {leave}: ",
            all.done + all.failed,
            text::count(all.total, "frame")
        )
    }

    fn take(&mut self, output: Output, message: SubmissionMessage) {
        // No question is expected while a job is followed; to drop one refuses it.
        if let SubmissionMessage::Event(event) = message {
            output.line(&event);
            self.show(event);
        }
    }

    fn sum(&self) -> JobProgress {
        let mut sum = sum(&self.jobs.iter().map(|one| &one.progress).collect::<Vec<_>>());
        if self.is_local {
            // The end of the command says so; here there is no farm to name, and no job for `kiln jobs`.
            let is_said =
                |why: &mut _| matches!(why, WaitReason::NoWorkerFits { .. } | WaitReason::Held { .. });
            sum.waits_for.take_if(is_said);
        }
        sum
    }

    fn redraw(&mut self) {
        self.progress.update(&self.sum());
    }

    fn show(&mut self, VariantEvent { event, variant }: VariantEvent) {
        let at = self.jobs.iter().position(|one| one.variant == variant);
        let variant = variant.as_deref();
        match event {
            SubmissionEvent::Progress(progress) => {
                if let Some(line) = at.map(|at| &mut self.jobs[at]) {
                    let was_held = line.is_held();
                    line.progress = *progress;
                    if line.is_held()
                        && !was_held
                        && let Some(out) = line.out.as_deref().map(text::path)
                    {
                        self.note(variant, &format!("the first frames are in {out}"));
                    }
                }
                self.redraw();
            }
            SubmissionEvent::Baked { seconds } => {
                self.note(variant, &format!("simulations baked in {}", clock(seconds)));
            }
            SubmissionEvent::DevicePinned { device } => {
                self.note(variant, &format!("all frames render on {device}"));
            }
            SubmissionEvent::Notice { text } => self.note(variant, &format!("note: {text}")),
            SubmissionEvent::AttemptFailed { task, worker, cause, message } => {
                // The same fault often fails every frame: it is printed once here, and the last lines name the frames.
                // A failure that stops the job is printed at its end.
                let is_new = !cause.stops_job()
                    && self.failures.len() < SHOWN_FAILURES
                    && self.failures.insert(message.clone());
                if is_new {
                    let worker = worker.as_deref().unwrap_or("a worker");
                    self.note(variant, &format!("{task} on {worker}: {message}"));
                }
            }
            SubmissionEvent::FrameFinished { frame, suspicious, .. }
                if at.is_some_and(|at| self.jobs[at].out.is_none()) =>
            {
                self.note_suspicious(variant, frame, &suspicious);
                self.progress.frame(&frame_name(variant, frame), &self.sum());
            }
            SubmissionEvent::FrameFetched { frame, result, left, suspicious, .. } => {
                match result {
                    FetchResult::Written | FetchResult::Replaced | FetchResult::AlreadyThere => {
                        self.note_suspicious(variant, frame, &suspicious);
                    }
                    // The last lines name it.
                    FetchResult::Gone => {}
                    FetchResult::Left => {
                        let first = left.first().map(ToString::to_string).unwrap_or_default();
                        self.aside(variant, |voice| {
                            voice.warning(&format!(
                                "frame {frame}: {first} was there before, and was left as it is"
                            ));
                        });
                    }
                }
                self.progress.frame(&frame_name(variant, frame), &self.sum());
            }
            // Each job reports the loss of the same server.
            SubmissionEvent::ServerLost { reason } => {
                self.away += 1;
                if self.away == 1 {
                    self.aside(None, |voice| {
                        voice.warning(&format!("{reason}; trying again until it is back"))
                    });
                }
            }
            SubmissionEvent::ServerBack => {
                self.away = self.away.saturating_sub(1);
                if self.away == 0 {
                    self.note(None, "the server is back");
                }
            }
            other => self.aside(variant, |voice| submission::print_event(voice, &other)),
        }
    }

    fn aside(&self, variant: Option<&str>, say: impl FnOnce(Voice<'_>)) {
        self.progress.aside(|output| say(Voice::of(output, variant)));
    }

    fn note(&self, variant: Option<&str>, text: &str) {
        self.aside(variant, |voice| voice.note(text));
    }

    fn note_suspicious(&mut self, variant: Option<&str>, frame: i32, suspicions: &[Suspicion]) {
        for suspicion in suspicions {
            self.suspicions += 1;
            let more = match self.suspicions {
                ..SHOWN_SUSPICIONS => "",
                SHOWN_SUSPICIONS => "; more such frames are named at the end",
                _ => return,
            };
            let what = suspicious::of_frame(frame, suspicion);
            self.note(variant, &format!("note: {what}{more}"));
        }
    }
}

fn frame_name(variant: Option<&str>, frame: i32) -> String {
    variant.map_or_else(|| format!("frame {frame}"), |variant| format!("{variant} frame {frame}"))
}

/// Changes all of these jobs, and fails if one cannot be changed.
async fn change_all(
    client: &Option<Client>,
    jobs: &[JobId],
    change: impl AsyncFn(&Client, JobId) -> Result<(), ClientError>,
) -> Result<(), ClientError> {
    let Some(client) = client else { return Ok(()) };
    let mut changed = Ok(());
    for job in jobs {
        changed = changed.and(change(client, *job).await);
    }
    changed
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Stay,
    Detach,
    Cancel,
}

/// Waits for the answer to the question.
async fn next_answer(answer: &mut Option<JoinHandle<Answer>>) -> Answer {
    match answer {
        Some(answer) => answer.await.unwrap_or(Answer::Detach),
        None => std::future::pending().await,
    }
}

fn read_answer() -> Answer {
    match ask::line().as_deref() {
        None | Some("d" | "detach") => Answer::Detach,
        Some("c" | "cancel") => Answer::Cancel,
        Some(_) => Answer::Stay,
    }
}
