//! The log, the progress and the signs of life of attempts, sent while they run.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kiln_host::Usage;
use kiln_types::AttemptId;
use tokio::task::spawn_blocking;

use crate::sink::EventSink;

/// Bytes of log that one message carries.
const LOG_PIECE: usize = 64 << 10;
/// A frame that renders long shows its log as it goes; a short one sends it once.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Bytes of log that one attempt may send.
const LOG_MOST: usize = 10 << 20;

/// The time between two looks at a process, and the clock ticks that it must have used in between to be at work: a
/// hundredth of the time. A process that hangs answers pings, and uses less.
const ALIVE_EVERY: Duration = Duration::from_secs(30);
const ALIVE_TICKS: u64 = 30;

/// A message about an attempt that runs.
#[derive(Debug)]
pub(crate) enum TaskReport {
    Log {
        attempt: AttemptId,
        text: String,
    },
    Progress {
        attempt: AttemptId,
        fraction: f32,
    },
    /// The attempt is at work; `moved` if it also reported progress or wrote something.
    Alive {
        attempt: AttemptId,
        moved: bool,
    },
}

/// The attempt that is served now, with its unsent log.
#[derive(Debug, Default)]
struct Served {
    attempt: Option<AttemptId>,
    text: String,
    sent: usize,
    last_sent: Option<Instant>,
    /// The last one sent.
    fraction: f32,
    /// Progress was reported since the last sign of life.
    moved: bool,
}

/// Sends the output of a process, or of a task without one, as that of the attempt that it works for.
#[derive(Debug, Clone)]
pub(crate) struct AttemptMonitor {
    served: Arc<Mutex<Served>>,
    reports: EventSink<TaskReport>,
}

impl AttemptMonitor {
    pub(crate) fn new(reports: EventSink<TaskReport>) -> Self {
        Self { served: Arc::default(), reports }
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attributes all output from here on to this attempt.
    pub(crate) fn serve(&self, attempt: AttemptId) {
        let mut served = self.served();
        if served.attempt != Some(attempt) {
            self.send_log(&mut served);
            *served = Served { attempt: Some(attempt), ..Served::default() };
        }
    }

    /// Sends the log that is held back.
    pub(crate) fn flush(&self) {
        self.send_log(&mut self.served());
    }

    fn send_log(&self, served: &mut Served) {
        let Some(attempt) = served.attempt else {
            served.text.clear();
            return;
        };
        served.last_sent = Some(Instant::now());
        while !served.text.is_empty() {
            let end = served.text.floor_char_boundary(LOG_PIECE.min(served.text.len()));
            let rest = served.text.split_off(end);
            let text = std::mem::replace(&mut served.text, rest);
            self.reports.send(TaskReport::Log { attempt, text });
        }
    }

    /// Sends a piece of log, at once or together with what follows within a second.
    pub(crate) fn log(&self, text: &str) {
        if self.hold_log(text) {
            let monitor = (Arc::downgrade(&self.served), self.reports.clone());
            tokio::spawn(async move {
                tokio::time::sleep(LOG_EVERY).await;
                if let (Some(served), reports) = (monitor.0.upgrade(), monitor.1) {
                    Self { served, reports }.flush();
                }
            });
        }
    }

    /// Returns whether this is the first text that is held back.
    fn hold_log(&self, text: &str) -> bool {
        let mut served = self.served();
        if served.attempt.is_none() || served.sent > LOG_MOST {
            return false;
        }
        let was_empty = served.text.is_empty();
        served.sent += text.len();
        served.text.push_str(text);
        if served.sent > LOG_MOST {
            served.text.push_str("(this attempt printed more than 10 MiB; the rest is left out)\n");
        }
        let last_sent = *served.last_sent.get_or_insert_with(Instant::now);
        if served.text.len() >= LOG_PIECE / 2 || last_sent.elapsed() >= LOG_EVERY {
            self.send_log(&mut served);
        }
        was_empty && !served.text.is_empty()
    }

    /// Notes a sign of progress, and sends its fraction if that is higher than before.
    pub(crate) fn progress(&self, samples: Option<(u32, u32)>) {
        let mut served = self.served();
        served.moved = true;
        if let (Some(attempt), Some((done, all))) = (served.attempt, samples)
            && all > 0
        {
            let fraction = (f64::from(done) / f64::from(all)).clamp(0.0, 1.0) as f32;
            if fraction > served.fraction {
                served.fraction = fraction;
                self.reports.send(TaskReport::Progress { attempt, fraction });
            }
        }
    }

    /// Sends signs of life while the process group uses the processor, writes, or reports progress. Its log does not
    /// count: an endless loop may print. Opening a file, compiling shaders, a bake and a compositor report nothing else, and
    /// Cycles next to nothing while it computes.
    pub(crate) fn watch_processes(&self, group: u32) {
        let (served, reports) = (Arc::downgrade(&self.served), self.reports.clone());
        tokio::spawn(async move {
            let mut used = Usage::default();
            loop {
                tokio::time::sleep(ALIVE_EVERY).await;
                let now = spawn_blocking(move || Usage::of_group(group)).await.unwrap_or(used);
                let Some(served) = served.upgrade() else { return };
                let mut served = served.lock().unwrap_or_else(PoisonError::into_inner);
                let moved = std::mem::take(&mut served.moved) || now.written > used.written;
                let works = moved || now.ticks.saturating_sub(used.ticks) >= ALIVE_TICKS;
                used = now;
                if works && let Some(attempt) = served.attempt {
                    reports.send(TaskReport::Alive { attempt, moved });
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    fn monitor() -> (AttemptMonitor, UnboundedReceiver<TaskReport>) {
        let (sender, sent) = unbounded_channel();
        (AttemptMonitor::new(EventSink::new(sender, |report| report)), sent)
    }

    #[test]
    fn a_log_goes_up_in_pieces_and_ends_at_its_limit() {
        let (monitor, mut sent) = monitor();
        monitor.serve("1-1".parse().unwrap());
        let line = format!("{}\n", "é".repeat(10_000));
        for _ in 0..1000 {
            monitor.hold_log(&line);
        }
        monitor.flush();
        let mut total = 0;
        let mut last = String::new();
        while let Ok(TaskReport::Log { text, .. }) = sent.try_recv() {
            assert!(text.len() <= LOG_PIECE);
            total += text.len();
            last = text;
        }
        assert!(total > LOG_MOST && total < LOG_MOST + LOG_PIECE, "{total}");
        assert!(last.ends_with("the rest is left out)\n"));
    }

    #[test]
    fn output_for_no_attempt_is_not_sent() {
        let (monitor, mut sent) = monitor();
        monitor.hold_log("Blender 3.4.1\n");
        monitor.flush();
        assert!(sent.try_recv().is_err());
    }
}
