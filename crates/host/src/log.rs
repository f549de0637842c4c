//! What Blender prints: kept, never parsed for success.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kiln_types::Failure;
use tokio::{io::AsyncReadExt, net::unix::pipe, task::JoinHandle, time::timeout};

/// Takes chunks of what Blender printed, each some whole lines.
pub type LogSink = Arc<dyn Fn(String) + Send + Sync>;

/// Lines kept to explain a death.
const KEPT_LINES: usize = 200;
/// Longer lines are cut.
const LINE_BYTES: usize = 4096;
/// What one request may pass on; more is dropped, with a line that says so.
const BYTES_A_REQUEST: usize = 1 << 20;

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    passed: usize,
}

/// The printed output of one process.
pub(crate) struct Log {
    state: Arc<Mutex<State>>,
    reader: Option<JoinHandle<()>>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Reads until the last process that holds the pipe is gone.
    pub(crate) fn read(mut pipe: pipe::Receiver, sink: Option<LogSink>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let reader = tokio::spawn(async move {
            let mut chunk = vec![0; 16 << 10];
            let mut rest: Vec<u8> = Vec::new();
            loop {
                let read = pipe.read(&mut chunk).await.unwrap_or(0);
                rest.extend_from_slice(&chunk[..read]);
                let whole = match rest.iter().rposition(|byte| *byte == b'\n') {
                    _ if read == 0 => rest.len(),
                    Some(at) => at + 1,
                    None if rest.len() > LINE_BYTES => rest.len(),
                    None => continue,
                };
                let text: Vec<u8> = rest.drain(..whole).collect();
                take(&shared, &text, sink.as_ref());
                if read == 0 {
                    break;
                }
            }
        });
        Self { state, reader: Some(reader) }
    }

    /// A new request: its share of the log begins.
    pub(crate) fn begin(&self) {
        locked(&self.state).passed = 0;
    }

    /// The last lines, oldest first.
    pub(crate) fn tail(&self) -> Vec<String> {
        let state = locked(&self.state);
        let skipped = state.lines.len().saturating_sub(Failure::LOG_LINES);
        state.lines.iter().skip(skipped).cloned().collect()
    }

    pub(crate) fn any(&self, matches: impl Fn(&str) -> bool) -> bool {
        locked(&self.state).lines.iter().any(|line| matches(line))
    }

    /// Waits until a process that has ended is heard to its last line.
    pub(crate) async fn finish(&mut self) {
        if let Some(reader) = &mut self.reader
            && timeout(Duration::from_secs(1), reader).await.is_ok()
        {
            self.reader = None;
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
    }
}

fn take(state: &Mutex<State>, text: &[u8], sink: Option<&LogSink>) {
    let mut passed = String::new();
    {
        let mut state = locked(state);
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = &line[..line.len().min(LINE_BYTES)];
            let line: String =
                String::from_utf8_lossy(line).chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            if state.passed < BYTES_A_REQUEST {
                state.passed += line.len() + 1;
                passed.push_str(&line);
                passed.push('\n');
                if state.passed >= BYTES_A_REQUEST {
                    passed.push_str("(Blender printed more than 1 MiB here; the rest is left out)\n");
                }
            }
            if state.lines.len() == KEPT_LINES {
                state.lines.pop_front();
            }
            state.lines.push_back(line);
        }
    }
    if let Some(sink) = sink
        && !passed.is_empty()
    {
        sink(passed);
    }
}
