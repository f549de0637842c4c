//! The progress of jobs: a moving bar on a terminal, plain lines in a pipe.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use kiln_client::submission::{JobProgress, RunningFrames};
use kiln_types::{JobId, JobState};

use crate::output::{
    Output, OutputMode,
    text::{clock, count},
};

/// The shortest time between two plain lines.
const PAUSE: Duration = Duration::from_millis(250);
/// Percent of a bake between two plain lines.
const BAKE_STEP: u32 = 10;
/// The bar counts in thousandths of a frame.
const PARTS: u64 = 1000;
/// The seconds above which the progress inside a frame is shown.
const LONG_FRAME: f64 = 3.0;

/// Returns the progress of several jobs together. They wait, or bake, only if all open ones do.
pub fn sum(all: &[&JobProgress]) -> JobProgress {
    if let [one] = all {
        return (*one).clone();
    }
    let open: Vec<&&JobProgress> =
        all.iter().filter(|one| one.done + one.failed < one.total.max(1)).collect();
    let all_of = |is: fn(&JobProgress) -> bool| open.first().filter(|_| open.iter().all(|one| is(one)));
    let sum = |part: fn(&JobProgress) -> u32| all.iter().map(|one| part(one)).sum();
    let most =
        |part: fn(&JobProgress) -> Option<f64>| all.iter().filter_map(|one| part(one)).reduce(f64::max);
    let fractions = all.iter().filter_map(|one| one.running.as_ref()).map(|running| running.fractions).sum();
    JobProgress {
        state: all_of(|one| one.state == Some(JobState::Paused)).and_then(|one| one.state),
        done: sum(|one| one.done),
        failed: sum(|one| one.failed),
        total: sum(|one| one.total),
        // A worker may be busy with several of them.
        workers_busy: 0,
        seconds_left: most(|one| one.seconds_left),
        mean_frame_s: most(|one| one.mean_frame_s),
        waits_for: all_of(|one| one.waits_for.is_some()).and_then(|one| one.waits_for.clone()),
        baking: all_of(|one| one.baking.is_some()).and_then(|one| one.baking.clone()),
        running: Some(RunningFrames { fractions, first: None }),
    }
}

/// The progress of jobs, as a moving bar or as lines.
pub struct ProgressView {
    output: Output,
    /// The job to resume if all are paused.
    job: Option<JobId>,
    bar: Option<ProgressBar>,
    /// The bar is hidden while a question waits for its answer.
    paused: bool,
    started: Instant,
    /// The number of frames that were done at the first update.
    before: Option<u32>,
    last_line: Option<Instant>,
    /// The last line that was held back.
    held: Option<String>,
    waits: Option<String>,
    /// The progress of the bake in the last line about it.
    said_percent: Option<u32>,
}

impl ProgressView {
    pub fn new(output: Output, job: Option<JobId>) -> Self {
        let bar = output.live().then(new_bar);
        Self {
            output,
            job,
            bar,
            paused: false,
            started: Instant::now(),
            before: None,
            last_line: None,
            held: None,
            waits: None,
            said_percent: None,
        }
    }

    /// Returns whether the bar needs frequent updates.
    pub fn live(&self) -> bool {
        self.bar.is_some()
    }

    pub fn update(&mut self, progress: &JobProgress) {
        if self.paused {
            return;
        }
        self.before.get_or_insert(progress.done);
        if let Some(bar) = &self.bar {
            let (done, total) = match (&progress.baking, &progress.running) {
                (Some(baking), _) => (f64::from(baking.fraction), 1),
                (None, running) => {
                    let fractions = running.as_ref().map_or(0.0, |running| running.fractions);
                    (f64::from(progress.done) + fractions, progress.total.max(1))
                }
            };
            bar.set_length(u64::from(total) * PARTS);
            bar.set_position((done * PARTS as f64) as u64);
            bar.set_message(self.line(progress));
            bar.tick();
            return;
        }
        let waits = self.waits_for(progress);
        if waits != self.waits {
            if let Some(waits) = &waits {
                self.output.note(waits);
            }
            self.waits = waits;
        } else if let Some(baking) = &progress.baking {
            let percent = (baking.fraction * 100.0) as u32;
            if self.said_percent.is_none_or(|said| percent >= said + BAKE_STEP) {
                self.said_percent = Some(percent);
                self.output.note(&self.line(progress));
            }
        }
    }

    /// Shows that a frame was fetched, or is done if none are fetched.
    pub fn frame(&mut self, frame: &str, progress: &JobProgress) {
        self.before.get_or_insert(progress.done.saturating_sub(1));
        if self.bar.is_some() || self.paused || self.output.reader() == OutputMode::Quiet {
            return;
        }
        let line = format!("{frame}: {}", self.line(progress));
        if self.last_line.is_some_and(|at| at.elapsed() < PAUSE) {
            self.held = Some(line);
            return;
        }
        self.held = None;
        self.last_line = Some(Instant::now());
        self.output.note(&line);
    }

    /// Prints something above the bar.
    pub fn aside(&self, print: impl FnOnce(Output)) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print(self.output)),
            None => print(self.output),
        }
    }

    /// Hides the bar while a question is open; [`ProgressView::resume`] shows it again.
    pub fn pause(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
            self.paused = true;
        }
    }

    pub fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.bar = Some(new_bar());
        }
    }

    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if let Some(line) = self.held.take() {
            self.output.note(&line);
        }
    }

    /// Returns the reason why nothing renders.
    fn waits_for(&self, progress: &JobProgress) -> Option<String> {
        match (progress.state, self.job) {
            (Some(JobState::Paused), Some(job)) if progress.waits_for.is_none() => {
                Some(format!("paused; `kiln jobs resume {job}` continues it"))
            }
            _ => progress.waits_for.as_ref().map(ToString::to_string),
        }
    }

    fn line(&self, progress: &JobProgress) -> String {
        let waits = self.waits_for(progress);
        if let Some(baking) = &progress.baking {
            let what = baking.simulations.join(", ");
            let line = format!("baking simulations ({what}) {:.0}%", baking.fraction * 100.0);
            return waits.map_or(line, |waits| format!("simulations to bake, {waits}"));
        }
        let mut parts = vec![format!("{}/{} frames", progress.done, progress.total)];
        if progress.failed > 0 {
            parts.push(format!("{} failed", progress.failed));
        }
        let done = progress.done.saturating_sub(self.before.unwrap_or(0));
        let elapsed = self.started.elapsed().as_secs_f64();
        if done > 0 && elapsed > 0.0 {
            parts.push(rate(f64::from(done) / elapsed));
        }
        if let Some(waits) = waits {
            parts.push(waits);
            return parts.join(", ");
        }
        if let Some(left) = progress.seconds_left {
            parts.push(format!("{} left", clock(left)));
        }
        if progress.workers_busy > 0 {
            parts.push(format!("{} busy", count(progress.workers_busy, "worker")));
        }
        let long = progress.mean_frame_s.is_none_or(|mean| mean > LONG_FRAME);
        if long && let Some(first) = progress.running.as_ref().and_then(|running| running.first.as_ref()) {
            let estimated = if first.is_estimated { " est." } else { "" };
            parts.push(format!("frame {} at {:.0}%{estimated}", first.frame, first.fraction * 100.0));
        }
        parts.join(", ")
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:24.cyan/dim} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("━━─");
    bar.set_style(style);
    bar
}

/// Returns a bar that counts bytes, if one can be shown.
pub fn bytes_bar(output: Output, total: u64) -> Option<ProgressBar> {
    output.live().then(|| {
        let bar = new_bar();
        bar.set_length(total);
        bar
    })
}

/// Prints a rate per second, minute or hour, so that it is not too small to read.
fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 0.1 => format!("{rate:.1} frames/s"),
        rate if rate * 60.0 >= 0.1 => format!("{:.1} frames/min", rate * 60.0),
        rate => format!("{:.1} frames/h", rate * 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use kiln_api::WaitReason;
    use kiln_client::submission::{Baking, RunningFrame};

    use super::*;

    #[test]
    fn several_jobs_are_counted_together_and_wait_only_together() {
        let waits = JobProgress { total: 3, waits_for: Some(WaitReason::NoWorker), ..JobProgress::default() };
        let renders =
            JobProgress { done: 1, failed: 1, total: 5, seconds_left: Some(9.0), ..JobProgress::default() };
        let both = sum(&[&waits, &renders]);
        assert_eq!((both.done, both.failed, both.total, both.waits_for), (1, 1, 8, None));
        assert_eq!(both.seconds_left, Some(9.0));
        let ended = JobProgress { done: 5, failed: 0, ..renders };
        assert_eq!(sum(&[&waits, &ended]).waits_for, Some(WaitReason::NoWorker));
    }

    #[test]
    fn a_line_says_what_is_known_and_calls_an_estimate_one() {
        let mut view = ProgressView::new(Output::new(false, true), Some(JobId(7)));
        let progress = JobProgress {
            done: 2,
            total: 10,
            workers_busy: 1,
            seconds_left: Some(65.0),
            mean_frame_s: Some(12.0),
            running: Some(RunningFrames {
                fractions: 0.4,
                first: Some(RunningFrame { frame: 3, fraction: 0.4, is_estimated: true }),
            }),
            ..JobProgress::default()
        };
        view.update(&progress);
        assert_eq!(view.line(&progress), "2/10 frames, 1:05 left, 1 worker busy, frame 3 at 40% est.");
        let short = JobProgress { mean_frame_s: Some(0.1), failed: 1, ..progress.clone() };
        assert_eq!(view.line(&short), "2/10 frames, 1 failed, 1:05 left, 1 worker busy");
        assert_eq!(rate(0.02), "1.2 frames/min");
        let baking = Some(Baking { simulations: vec!["cloth of Flag".to_owned()], fraction: 0.43 });
        let bakes = JobProgress { baking, total: 10, ..JobProgress::default() };
        assert_eq!(view.line(&bakes), "baking simulations (cloth of Flag) 43%");
        let paused = JobProgress { state: Some(JobState::Paused), ..progress };
        assert_eq!(view.line(&paused), "2/10 frames, paused; `kiln jobs resume 7` continues it");
    }
}
