//! Stays with a job: shows what is reported of it, and asks what Ctrl-C means.

use std::{collections::HashSet, pin::pin, time::Duration};

use kiln_client::submission::{
    FetchResult, FollowOptions, Followed, JobHome, JobProgress, Stop, SubmissionEvent, SubmissionMessage,
    SubmittedJob,
};
use kiln_types::{JobId, JobState, Suspicion};
use tokio::{task::JoinHandle, time::MissedTickBehavior};

use crate::{
    ask,
    exit::Outcome,
    failed::SHOWN_FAILURES,
    output::{Output, submission, suspicious, text::clock},
    progress::{Inside, Progress, Tally},
    screen::Screen,
    signals::{Kind, Signals},
};

/// How often a bar moves.
const LIVE_TICK: Duration = Duration::from_millis(250);
/// How often a line is looked at that was held back.
const TICK: Duration = Duration::from_secs(1);
/// Suspicious frames that are named when they come; the end names all.
const SHOWN_SUSPICIONS: usize = 10;

/// Follows a job to its end, or until the person goes.
///
/// # Errors
/// The server refuses; a server that is only away is waited for.
pub async fn follow(
    screen: &mut Screen,
    job: SubmittedJob,
    home: JobHome,
    signals: &mut Signals,
) -> Outcome<Followed> {
    let (id, client) = (job.job().id, job.client().clone());
    let mut view = FollowView::new(screen.output, id, job.is_fetched_here());
    let stop = Stop::default();
    let options = FollowOptions { home, watches_frames: view.progress.live(), stop: stop.clone() };
    let mut tick = tokio::time::interval(if view.progress.live() { LIVE_TICK } else { TICK });
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut answer: Option<JoinHandle<Answer>> = None;
    let followed = {
        let mut work = pin!(job.follow(&options));
        loop {
            tokio::select! {
                biased;
                Some(message) = screen.messages.recv() => view.take(screen.output, message),
                followed = &mut work => break followed,
                said = answered(&mut answer), if answer.is_some() => {
                    answer = None;
                    view.progress.resume();
                    match said {
                        Answer::Stay => {}
                        Answer::Detach => stop.stop(),
                        Answer::Cancel => {
                            if let Err(error) = client.cancel(id).await {
                                break Err(error.into());
                            }
                        }
                    }
                }
                kind = signals.next_kind() => match home {
                    JobHome::Caller => stop.stop(),
                    JobHome::Farm if answer.is_some() || kind == Kind::End => stop.stop(),
                    JobHome::Farm if screen.output.can_ask() => {
                        view.progress.pause();
                        ask::prompt(&format!(
                            "\rJob {id}: [d]etach and let the farm go on, [c]ancel it, or Enter to stay? "
                        ));
                        answer = Some(tokio::task::spawn_blocking(read_answer));
                    }
                    JobHome::Farm => stop.stop(),
                },
                _ = tick.tick(), if answer.is_none() => view.redraw(),
            }
        }
    };
    while let Ok(message) = screen.messages.try_recv() {
        view.take(screen.output, message);
    }
    view.progress.finish();
    Ok(followed?)
}

/// A job that is followed, as a person sees it.
struct FollowView {
    job: JobId,
    progress: Progress,
    tally: Tally,
    /// Frames come to this machine; else it is told when they are finished.
    fetches: bool,
    /// Failures that were named.
    failures: HashSet<String>,
    /// Suspicions that were named.
    suspicions: usize,
}

impl FollowView {
    fn new(output: Output, job: JobId, fetches: bool) -> Self {
        let progress = Progress::new(output);
        Self { job, progress, tally: Tally::default(), fetches, failures: HashSet::new(), suspicions: 0 }
    }

    fn take(&mut self, output: Output, message: SubmissionMessage) {
        // Nothing is asked while a job is followed: a question that is dropped says so.
        if let SubmissionMessage::Event(event) = message {
            output.line(&event);
            self.show(event);
        }
    }

    fn redraw(&mut self) {
        self.progress.update(&self.tally);
    }

    fn show(&mut self, event: SubmissionEvent) {
        match event {
            SubmissionEvent::Progress(progress) => {
                self.tally = tally(self.job, *progress);
                self.progress.update(&self.tally);
            }
            SubmissionEvent::Baked { seconds } => {
                self.note(&format!("simulations baked in {}", clock(seconds)));
            }
            SubmissionEvent::DevicePinned { device } => self.note(&format!("all frames render on {device}")),
            SubmissionEvent::Notice { text } => self.note(&format!("note: {text}")),
            SubmissionEvent::AttemptFailed { task, worker, cause, message } => {
                // The same fault meets every frame: once is enough on the way, and the end names the frames. What stops
                // the job is its end.
                let is_new = !cause.stops_job()
                    && self.failures.len() < SHOWN_FAILURES
                    && self.failures.insert(message.clone());
                if is_new {
                    let worker = worker.as_deref().unwrap_or("a worker");
                    self.note(&format!("{task} on {worker}: {message}"));
                }
            }
            SubmissionEvent::FrameFinished { frame, suspicious, .. } if !self.fetches => {
                self.suspect(frame, &suspicious);
                self.progress.frame(frame, &self.tally);
            }
            SubmissionEvent::FrameFetched { frame, result, left, suspicious, .. } => {
                match result {
                    FetchResult::Written | FetchResult::Replaced | FetchResult::AlreadyThere => {
                        self.suspect(frame, &suspicious);
                    }
                    // The end says so.
                    FetchResult::Gone => {}
                    FetchResult::Left => {
                        let first = left.first().map(ToString::to_string).unwrap_or_default();
                        self.progress.aside(|output| {
                            output.warning(&format!(
                                "frame {frame}: {first} is there, is not this job's, and was left as it is"
                            ));
                        });
                    }
                }
                self.progress.frame(frame, &self.tally);
            }
            SubmissionEvent::ServerLost { reason } => {
                self.progress
                    .aside(|output| output.warning(&format!("{reason}; trying on until it is back")));
            }
            SubmissionEvent::ServerBack => self.note("the server is back"),
            other => self.progress.aside(|output| submission::tell(output, &other)),
        }
    }

    fn note(&self, text: &str) {
        self.progress.aside(|output| output.note(text));
    }

    /// Names a suspicious frame.
    fn suspect(&mut self, frame: i32, suspicions: &[Suspicion]) {
        for suspicion in suspicions {
            self.suspicions += 1;
            let more = match self.suspicions {
                ..SHOWN_SUSPICIONS => "",
                SHOWN_SUSPICIONS => "; more such frames are named at the end",
                _ => return,
            };
            let what = suspicious::of_frame(frame, suspicion);
            self.note(&format!("note: {what}{more}"));
        }
    }
}

/// What the bar and the lines show of it.
fn tally(job: JobId, progress: JobProgress) -> Tally {
    let waits_for = match progress.state {
        Some(JobState::Paused) => Some(format!("paused; `kiln jobs resume {job}` goes on")),
        _ => progress.waits_for.map(|reason| reason.to_string()),
    };
    let running = progress.running;
    let first = running.as_ref().and_then(|running| running.first.as_ref());
    let inside = Inside {
        parts: running.as_ref().map_or(0.0, |running| running.fractions),
        first: first.map(|first| (first.frame, first.fraction, first.is_estimated)),
    };
    Tally {
        done: progress.done,
        failed: progress.failed,
        total: progress.total,
        workers_busy: progress.workers_busy,
        seconds_left: progress.seconds_left,
        mean_frame_s: progress.mean_frame_s,
        inside,
        waits_for,
        baking: progress.baking.map(|baking| (baking.simulations.join(", "), baking.fraction)),
    }
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Stay,
    Detach,
    Cancel,
}

/// Waits for the answer to the question.
async fn answered(answer: &mut Option<JoinHandle<Answer>>) -> Answer {
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

#[cfg(test)]
mod tests {
    use kiln_client::submission::{Baking, RunningFrame, RunningFrames};

    use super::*;

    #[test]
    fn a_paused_job_says_how_it_goes_on() {
        let progress = JobProgress {
            state: Some(JobState::Paused),
            done: 2,
            total: 10,
            baking: Some(Baking { simulations: vec!["cloth of Flag".to_owned()], fraction: 0.5 }),
            running: Some(RunningFrames {
                fractions: 0.25,
                first: Some(RunningFrame { frame: 3, fraction: 0.25, is_estimated: true }),
            }),
            ..JobProgress::default()
        };
        let tally = tally(JobId(7), progress);
        assert_eq!(tally.waits_for.as_deref(), Some("paused; `kiln jobs resume 7` goes on"));
        assert_eq!((tally.done, tally.total, tally.inside.first), (2, 10, Some((3, 0.25, true))));
        assert_eq!(tally.baking, Some(("cloth of Flag".to_owned(), 0.5)));
    }
}
