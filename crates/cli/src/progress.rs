//! How far a job is: a moving bar on a terminal, plain lines in a pipe.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::{
    Output, Reader,
    text::{clock, count},
};

/// Between two plain lines.
const PAUSE: Duration = Duration::from_millis(250);
/// Percent of a bake between two plain lines.
const BAKE_STEP: u32 = 10;
/// The bar counts in thousandths of a frame.
const PARTS: u64 = 1000;
/// Frames that take longer, in seconds, show what is estimated inside them.
const LONG_FRAME: f64 = 3.0;

/// Where a job stands.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub done: u32,
    pub failed: u32,
    pub total: u32,
    pub workers_busy: u32,
    pub seconds_left: Option<f64>,
    pub mean_frame_s: Option<f64>,
    pub inside: Inside,
    pub waits_for: Option<String>,
    /// What is baked before the first frame, and the part of it that is done; until it is.
    pub baking: Option<(String, f32)>,
}

impl Tally {
    /// The progress of several jobs together. They wait only if all of them do that are not done.
    pub fn sum(all: &[&Self]) -> Self {
        if let [one] = all {
            return (*one).clone();
        }
        let open: Vec<&&Self> = all.iter().filter(|one| one.done + one.failed < one.total.max(1)).collect();
        let all_of = |is: fn(&Self) -> bool| open.first().filter(|_| open.iter().all(|one| is(one)));
        let sum = |part: fn(&Self) -> u32| all.iter().map(|one| part(one)).sum();
        let most = |part: fn(&Self) -> Option<f64>| all.iter().filter_map(|one| part(one)).reduce(f64::max);
        Self {
            done: sum(|one| one.done),
            failed: sum(|one| one.failed),
            total: sum(|one| one.total),
            workers_busy: sum(|one| one.workers_busy),
            seconds_left: most(|one| one.seconds_left),
            mean_frame_s: most(|one| one.mean_frame_s),
            inside: Inside { parts: all.iter().map(|one| one.inside.parts).sum(), first: None },
            waits_for: all_of(|one| one.waits_for.is_some()).and_then(|one| one.waits_for.clone()),
            baking: all_of(|one| one.baking.is_some()).and_then(|one| one.baking.clone()),
        }
    }
}

/// The frames in work.
#[derive(Debug, Clone, Default)]
pub struct Inside {
    /// The parts of them that are done, together.
    pub parts: f64,
    /// Of the one that began first: its number, the part that is done, and whether that is an estimate.
    pub first: Option<(i32, f32, bool)>,
}

pub struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    /// The bar is away while a question stands.
    paused: bool,
    started: Instant,
    /// What was done already when this began.
    before: Option<u32>,
    last_line: Option<Instant>,
    /// The last line that was held back.
    held: Option<String>,
    waits: Option<String>,
    /// Of the bake, as last said in a line.
    said_percent: Option<u32>,
}

impl Progress {
    pub fn new(output: Output) -> Self {
        let bar = output.live().then(new_bar);
        Self {
            output,
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

    /// Whether the bar wants news often.
    pub fn live(&self) -> bool {
        self.bar.is_some()
    }

    pub fn update(&mut self, tally: &Tally) {
        if self.paused {
            return;
        }
        self.before.get_or_insert(tally.done);
        if let Some(bar) = &self.bar {
            if let Some((_, part)) = &tally.baking {
                bar.set_length(PARTS);
                bar.set_position((f64::from(*part) * PARTS as f64) as u64);
                bar.set_message(self.line(tally));
                bar.tick();
                return;
            }
            let parts = u64::from(tally.done) * PARTS + (tally.inside.parts * PARTS as f64) as u64;
            bar.set_length(u64::from(tally.total.max(1)) * PARTS);
            bar.set_position(parts);
            bar.set_message(self.line(tally));
            bar.tick();
        } else if tally.waits_for != self.waits {
            if let Some(waits) = &tally.waits_for {
                self.output.note(waits);
            }
            self.waits.clone_from(&tally.waits_for);
        } else if let Some((_, part)) = &tally.baking {
            let percent = (part * 100.0) as u32;
            if self.said_percent.is_none_or(|said| percent >= said + BAKE_STEP) {
                self.said_percent = Some(percent);
                self.output.note(&self.line(tally));
            }
        }
    }

    /// Shows that a frame, named in words, was fetched (or is done, if none are fetched).
    pub fn frame(&mut self, frame: &str, tally: &Tally) {
        self.before.get_or_insert(tally.done.saturating_sub(1));
        if self.bar.is_some() || self.paused || self.output.reader() == Reader::Quiet {
            return;
        }
        let line = format!("{frame}: {}", self.line(tally));
        if self.last_line.is_some_and(|at| at.elapsed() < PAUSE) {
            self.held = Some(line);
            return;
        }
        self.held = None;
        self.last_line = Some(Instant::now());
        self.output.note(&line);
    }

    /// Prints something without tearing the bar.
    pub fn aside(&self, print: impl FnOnce(Output)) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print(self.output)),
            None => print(self.output),
        }
    }

    /// Takes the bar away, so that a question stands alone; [`Progress::resume`] brings it back.
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

    fn line(&self, tally: &Tally) -> String {
        if let Some((what, part)) = &tally.baking {
            let line = format!("baking simulations ({what}) {:.0}%", part * 100.0);
            return tally.waits_for.as_ref().map_or(line, |waits| format!("simulations to bake, {waits}"));
        }
        let mut parts = vec![format!("{}/{} frames", tally.done, tally.total)];
        if tally.failed > 0 {
            parts.push(format!("{} failed", tally.failed));
        }
        let done = tally.done.saturating_sub(self.before.unwrap_or(0));
        let elapsed = self.started.elapsed().as_secs_f64();
        if done > 0 && elapsed > 0.0 {
            parts.push(rate(f64::from(done) / elapsed));
        }
        if let Some(waits) = &tally.waits_for {
            parts.push(waits.clone());
            return parts.join(", ");
        }
        if let Some(left) = tally.seconds_left {
            parts.push(format!("{} left", clock(left)));
        }
        if tally.workers_busy > 0 {
            parts.push(format!("{} busy", count(tally.workers_busy, "worker")));
        }
        let long = tally.mean_frame_s.is_none_or(|mean| mean > LONG_FRAME);
        if long && let Some((frame, part, estimated)) = tally.inside.first {
            let estimated = if estimated { " est." } else { "" };
            parts.push(format!("frame {frame} at {:.0}%{estimated}", part * 100.0));
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

/// A bar of bytes, where one can be shown.
pub fn bytes_bar(output: Output, total: u64) -> Option<ProgressBar> {
    output.live().then(|| {
        let bar = new_bar();
        bar.set_length(total);
        bar
    })
}

/// Slow renders are read by the minute or the hour.
fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 0.1 => format!("{rate:.1} frames/s"),
        rate if rate * 60.0 >= 0.1 => format!("{:.1} frames/min", rate * 60.0),
        rate => format!("{:.1} frames/h", rate * 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_jobs_are_counted_together_and_wait_only_together() {
        let waits = Tally { total: 3, waits_for: Some("no worker".to_owned()), ..Tally::default() };
        let renders = Tally { done: 1, failed: 1, total: 5, seconds_left: Some(9.0), ..Tally::default() };
        let both = Tally::sum(&[&waits, &renders]);
        assert_eq!((both.done, both.failed, both.total, both.waits_for), (1, 1, 8, None));
        assert_eq!(both.seconds_left, Some(9.0));
        let ended = Tally { done: 5, failed: 0, ..renders };
        assert_eq!(Tally::sum(&[&waits, &ended]).waits_for.as_deref(), Some("no worker"));
    }

    #[test]
    fn a_line_says_what_is_known_and_calls_an_estimate_one() {
        let mut progress = Progress::new(Output::new(false, true));
        let tally = Tally {
            done: 2,
            total: 10,
            workers_busy: 1,
            seconds_left: Some(65.0),
            mean_frame_s: Some(12.0),
            inside: Inside { parts: 0.4, first: Some((3, 0.4, true)) },
            ..Tally::default()
        };
        progress.update(&tally);
        assert_eq!(progress.line(&tally), "2/10 frames, 1:05 left, 1 worker busy, frame 3 at 40% est.");
        let short = Tally { mean_frame_s: Some(0.1), failed: 1, ..tally };
        assert_eq!(progress.line(&short), "2/10 frames, 1 failed, 1:05 left, 1 worker busy");
        assert_eq!(rate(0.02), "1.2 frames/min");
        let baking =
            Tally { baking: Some(("cloth of Flag".to_owned(), 0.43)), total: 10, ..Tally::default() };
        assert_eq!(progress.line(&baking), "baking simulations (cloth of Flag) 43%");
    }
}
