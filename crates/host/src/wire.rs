//! The lines that go over the socket, and a reader that bounds them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use kiln_types::{FailureCause, SessionSpec, paths};
use serde::{Deserialize, Serialize, Serializer};
use tokio::{io::AsyncReadExt, net::unix::OwnedReadHalf};

use crate::{Capabilities, Device, OutputPlan, PlannedFile, SceneReuse};

/// A longer line is no message.
const LINE_LIMIT: usize = 1 << 20;
/// More messages in one second are a flood. An honest host sends a few.
const MESSAGES_A_SECOND: u32 = 500;

/// The progress inside one render, or of a bake from frame to frame, as far as Blender tells.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RenderProgress {
    pub frame: i32,
    /// Samples done and asked for, where the engine counts them; in a bake, frames.
    #[serde(default)]
    pub samples: Option<(u32, u32)>,
    /// Bytes of memory the process holds.
    #[serde(default)]
    pub memory: u64,
}

/// Takes progress events; called at most a few times a second.
pub type ProgressSink = Arc<dyn Fn(RenderProgress) + Send + Sync>;

/// A path of this machine, which may be no Unicode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spelled<'a>(pub &'a Path);

impl Serialize for Spelled<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&paths::spelled(self.0.as_os_str().as_encoded_bytes()))
    }
}

pub(crate) fn spelled(paths: &[PathBuf]) -> Vec<Spelled<'_>> {
    paths.iter().map(|path| Spelled(path)).collect()
}

#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum HostCommand<'a> {
    Open {
        id: u64,
        blend: Spelled<'a>,
        session: &'a SessionSpec,
        remap: BTreeMap<&'a str, Spelled<'a>>,
        unused: &'a [String],
        addons: Vec<Spelled<'a>>,
        persistent_data: bool,
        threads: u16,
        gpus: &'a [u16],
        devices: Option<&'a [Device]>,
    },
    Render {
        id: u64,
        frame: i32,
        out: Spelled<'a>,
    },
    Bake {
        id: u64,
        tree: Spelled<'a>,
        blend: Spelled<'a>,
        session: &'a SessionSpec,
        remap: BTreeMap<&'a str, Spelled<'a>>,
        unused: &'a [String],
        addons: Vec<Spelled<'a>>,
    },
    Ping,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum HostEvent {
    Hello {
        version: String,
        build_hash: String,
        capabilities: Capabilities,
    },
    Opened {
        id: u64,
        notices: Vec<String>,
        plan: OutputPlan,
        #[serde(default)]
        reuse: SceneReuse,
        seconds: f64,
        memory: u64,
    },
    Planned {
        id: u64,
        files: Vec<PlannedFile>,
    },
    Rendered {
        id: u64,
        started_at: f64,
        ended_at: f64,
        memory: u64,
        #[serde(default)]
        notices: Vec<String>,
    },
    Baked {
        id: u64,
        simulated: Vec<String>,
        notices: Vec<String>,
        seconds: f64,
        memory: u64,
    },
    Failed {
        id: u64,
        cause: FailureCause,
        message: String,
    },
    Progress(RenderProgress),
    Pong,
}

/// The reason why the lines ended.
#[derive(Debug)]
pub(crate) enum LineError {
    /// The other end is closed.
    Closed,
    /// Something that is no message came.
    Broken(String),
}

pub(crate) struct LineReader {
    socket: OwnedReadHalf,
    buffer: Vec<u8>,
    /// The bytes at the start of the buffer that hold no line end.
    searched: usize,
    second: (Instant, u32),
}

impl LineReader {
    pub(crate) fn new(socket: OwnedReadHalf) -> Self {
        Self { socket, buffer: Vec::new(), searched: 0, second: (Instant::now(), 0) }
    }

    /// The next event. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<HostEvent, LineError> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + at).collect();
                self.searched = 0;
                self.count()?;
                return serde_json::from_slice(&line).map_err(|error| {
                    let shown: String = String::from_utf8_lossy(&line).chars().take(80).collect();
                    LineError::Broken(format!(
                        "it sent “{}”, which is no message ({error})",
                        shown.escape_debug()
                    ))
                });
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LINE_LIMIT {
                return Err(LineError::Broken("it sent a line longer than 1 MiB".to_owned()));
            }
            self.buffer.reserve(16 << 10);
            match self.socket.read_buf(&mut self.buffer).await {
                Ok(0) | Err(_) => return Err(LineError::Closed),
                Ok(_) => {}
            }
        }
    }

    fn count(&mut self) -> Result<(), LineError> {
        if self.second.0.elapsed().as_secs() >= 1 {
            self.second = (Instant::now(), 0);
        }
        self.second.1 += 1;
        if self.second.1 > MESSAGES_A_SECOND {
            return Err(LineError::Broken(format!(
                "it sent more than {MESSAGES_A_SECOND} messages in a second"
            )));
        }
        Ok(())
    }
}
