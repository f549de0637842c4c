//! The lines that Blender prints: kept, never parsed for success.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kiln_types::Failure;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

/// Takes chunks of Blender's output, each some whole lines.
pub type LogSink = Arc<dyn Fn(String) + Send + Sync>;

/// Lines kept to explain a death.
const KEPT_LINES: usize = 200;
/// Longer lines are cut.
const LINE_BYTES: usize = 4096;
/// The most bytes that one request passes on; more is dropped, with a line that says so.
const BYTES_A_REQUEST: usize = 1 << 20;
/// The most bytes that are read at the end of a request; a thread that prints without end must not hold it up.
const BYTES_AT_END: usize = 1 << 20;
const CHUNK: usize = 16 << 10;

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    passed: usize,
}

/// The printed output of one process.
pub(crate) struct Log {
    state: Arc<Mutex<State>>,
    reader: Option<JoinHandle<()>>,
    /// Asks the reader to answer when it has read all that is in the pipe.
    drains: mpsc::UnboundedSender<oneshot::Sender<()>>,
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Reads until the last process that holds the pipe is gone.
    pub(crate) fn read(pipe: pipe::Receiver, sink: Option<LogSink>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (drains, asked) = mpsc::unbounded_channel();
        let lines = Lines { state: state.clone(), sink, rest: Vec::new() };
        let reader = tokio::spawn(lines.follow(pipe, asked));
        Self { state, reader: Some(reader), drains }
    }

    /// Passes on all that was printed before this call: what comes later belongs to the next request.
    pub(crate) async fn drain(&self) {
        let (done, read) = oneshot::channel();
        if self.drains.send(done).is_ok() {
            // Where the reader has ended, all was read.
            let _ = timeout(Duration::from_secs(1), read).await;
        }
    }

    /// Begins the share of a new request.
    pub(crate) fn begin(&self) {
        locked(&self.state).passed = 0;
    }

    /// Drops the lines of the file before, perhaps somebody else's: they explain nothing of the next.
    pub(crate) fn forget(&self) {
        locked(&self.state).lines.clear();
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

    /// Waits until the last line of a process that has ended is read.
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

/// The reading side.
struct Lines {
    state: Arc<Mutex<State>>,
    sink: Option<LogSink>,
    /// The begin of a line whose end is not read yet.
    rest: Vec<u8>,
}

impl Lines {
    async fn follow(
        mut self,
        mut pipe: pipe::Receiver,
        mut asked: mpsc::UnboundedReceiver<oneshot::Sender<()>>,
    ) {
        let mut chunk = vec![0; CHUNK];
        loop {
            tokio::select! {
                read = pipe.read(&mut chunk) => match read.unwrap_or(0) {
                    0 => break,
                    read => self.heard(&chunk[..read]),
                },
                Some(done) = asked.recv() => {
                    self.drain(&pipe, &mut chunk);
                    let _ = done.send(());
                }
            }
        }
        self.pass(self.rest.len());
    }

    fn heard(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        match self.rest.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => self.pass(at + 1),
            None if self.rest.len() > LINE_BYTES => self.pass(self.rest.len()),
            None => {}
        }
    }

    /// Reads what is there, without the runtime: it may not have noticed yet that there is something.
    fn drain(&mut self, pipe: &pipe::Receiver, chunk: &mut [u8]) {
        let mut total = 0;
        while total < BYTES_AT_END
            && let Ok(read @ 1..) = rustix::io::read(pipe, &mut *chunk)
        {
            total += read;
            self.heard(&chunk[..read]);
        }
        self.pass(self.rest.len());
    }

    /// Passes on this much of what was heard.
    fn pass(&mut self, bytes: usize) {
        let text: Vec<u8> = self.rest.drain(..bytes).collect();
        take(&self.state, &text, self.sink.as_ref());
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
