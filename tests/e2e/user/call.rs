//! Commands as the user gives them: each with a limit, and what it has said so far.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::TcpStream,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    process::{Pid, Signal, kill_process},
};
use serde_json::Value;

use crate::{
    support::Said,
    terminal::{inside, pair},
};

/// The time that any command may take on a busy machine. A job is three frames of a few milliseconds each.
const LIMIT: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(2);

/// A command that runs. It is killed where the test ends before it does.
pub struct Call {
    child: Child,
    words: String,
    ears: Ears,
}

/// The receiver of its output.
enum Ears {
    Files {
        out: PathBuf,
        err: PathBuf,
    },
    /// The user's side of the terminal it runs in, and what came.
    Terminal {
        master: File,
        heard: Vec<u8>,
    },
}

impl Call {
    /// Starts it, with files for its words in `folder`.
    pub fn start(mut command: Command, folder: &std::path::Path) -> Self {
        let words = said_as(&command);
        let [out, err] = ["out", "err"].map(|end| folder.join(format!("said.{}.{end}", nth())));
        let open = |path: &PathBuf| File::create(path).unwrap();
        let child = command.stdout(open(&out)).stderr(open(&err)).spawn().unwrap();
        Self { child, words, ears: Ears::Files { out, err } }
    }

    /// Starts it in a terminal of its own.
    pub fn in_terminal(command: &Command) -> Self {
        let (master, slave) = pair(200, 40);
        fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
        let mut outer = inside(command);
        let side = || Stdio::from(OwnedFd::from(slave.try_clone().unwrap()));
        let child = outer.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        Self { child, words: said_as(command), ears: Ears::Terminal { master, heard: Vec::new() } }
    }

    /// Returns all that it has printed for the user.
    pub fn told(&mut self) -> String {
        match &mut self.ears {
            Ears::Files { err, .. } => fs::read_to_string(err).unwrap_or_default(),
            Ears::Terminal { master, heard } => {
                // Ends where nothing more is there: an error, as for a terminal that its program has left.
                let _ = master.read_to_end(heard);
                String::from_utf8_lossy(heard).into_owned()
            }
        }
    }

    /// Waits until it has printed a text; false if it ended without.
    #[track_caller]
    pub fn tells(&mut self, what: &str) -> bool {
        self.comes_to(what, |call| call.told().contains(what))
    }

    /// Waits until something has come to pass; false where it ended before.
    #[track_caller]
    pub fn comes_to(&mut self, what: &str, mut is: impl FnMut(&mut Self) -> bool) -> bool {
        let started = Instant::now();
        loop {
            let ended = self.ended().is_some();
            // A terminal that nobody reads fills up.
            self.told();
            if is(self) {
                return true;
            }
            if ended {
                return false;
            }
            if started.elapsed() >= LIMIT {
                let told = self.told();
                panic!("{}: “{what}” does not come: {told}", self.words);
            }
            sleep(LOOK);
        }
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Types something in its terminal.
    pub fn types(&mut self, text: &str) {
        if let Ears::Terminal { master, .. } = &mut self.ears {
            master.write_all(text.as_bytes()).unwrap();
        }
    }

    /// Returns true if it ends within this time.
    pub fn ends_within(&mut self, limit: Duration) -> bool {
        let started = Instant::now();
        while self.ended().is_none() && started.elapsed() < limit {
            self.told();
            sleep(LOOK);
        }
        self.ended().is_some()
    }

    /// Closes its terminal, as somebody does who has seen enough.
    pub fn hang_up(&mut self) {
        let nothing = Ears::Files { out: PathBuf::new(), err: PathBuf::new() };
        drop(std::mem::replace(&mut self.ears, nothing));
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Said {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            if started.elapsed() >= LIMIT {
                let told = self.told();
                panic!("{} does not end: {told}", self.words);
            }
            if matches!(self.ears, Ears::Terminal { .. }) {
                self.told();
            }
            sleep(LOOK);
        };
        let err = self.told();
        let out = match &self.ears {
            Ears::Files { out, err } => {
                let text = fs::read_to_string(out).unwrap_or_default();
                let _ = (fs::remove_file(out), fs::remove_file(err));
                text
            }
            Ears::Terminal { .. } => String::new(),
        };
        Said { code: status.code().unwrap_or(-1), out, err }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number that no other call of this process has.
fn nth() -> usize {
    static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn said_as(command: &Command) -> String {
    let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
    format!("kiln {}", args.join(" "))
}

/// Asks the server for a document, without a command of Kiln's; `None` where there is no such thing.
///
/// # Errors
/// Where the server is away.
#[track_caller]
pub fn get(port: u16, key: &str, path: &str) -> io::Result<Option<Value>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let host = format!("Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {key}\r\nConnection: close");
    write!(stream, "GET /api/v1/{path} HTTP/1.1\r\n{host}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.starts_with("HTTP/1.1 404") {
        return Ok(None);
    }
    assert!(head.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    Ok(Some(serde_json::from_str(body)?))
}
