//! The presence of a person at this machine, as Linux shows it without a window system's libraries.
//!
//! Three things know something, and the one that says "a moment ago" is believed: terminals, whose access time moves
//! when somebody types there; input devices, where this process may read them; and logind, which desktops tell when
//! the person has gone or the screen is locked.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use tokio::{process::Command, time::timeout};

/// Bytes of an input device's event where a time is two words of the machine: time, type, code, value.
const EVENT: usize = 2 * size_of::<usize>() + 8;
/// A key or button, and a movement of a mouse. Positions are left out: accelerometers and old sticks send those alone.
const KEY: u16 = 1;
const MOVED: u16 = 2;
/// For one answer of logind.
const ANSWER: Duration = Duration::from_secs(2);

/// The input devices that may be read, each from now on.
#[derive(Debug, Default)]
pub(crate) struct InputDevices {
    devices: Vec<File>,
    touched: Option<Instant>,
}

impl InputDevices {
    /// All `event*` of a folder. Where there are none, or this process may read none, nothing is known.
    pub(crate) fn open(folder: &Path) -> Self {
        let mut devices = Vec::new();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("event") {
                let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
                devices.extend(File::options().read(true).custom_flags(flags).open(entry.path()));
            }
        }
        Self { devices, touched: None }
    }

    pub(crate) fn are_read(&self) -> bool {
        !self.devices.is_empty()
    }

    /// Reads what came since the last look; how long ago the last touch was, where there was one.
    pub(crate) fn idle(&mut self) -> Option<Duration> {
        let mut buffer = [0; EVENT * 64];
        let mut touched = false;
        self.devices.retain_mut(|device| {
            loop {
                match device.read(&mut buffer) {
                    Ok(0) => return true,
                    Ok(read) => touched |= buffer[..read].chunks_exact(EVENT).any(is_touch),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
                    // It was pulled out.
                    Err(_) => return false,
                }
            }
        });
        if touched {
            self.touched = Some(Instant::now());
        }
        self.touched.map(|touched| touched.elapsed())
    }
}

fn is_touch(event: &[u8]) -> bool {
    let kind = u16::from_ne_bytes([event[EVENT - 8], event[EVENT - 7]]);
    kind == KEY || kind == MOVED
}

/// The time since somebody typed at a terminal of this machine, here or over the network.
pub(crate) fn terminals_idle(dev: &Path) -> Option<Duration> {
    let of = |folder: &Path, prefix: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let numbered = entries.filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(prefix)).unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        numbered.filter_map(|entry| entry.metadata().ok()?.accessed().ok()).max()
    };
    let last = of(&dev.join("pts"), "").max(of(dev, "tty"))?;
    // A clock that was set back makes it now.
    Some(SystemTime::now().duration_since(last).unwrap_or_default())
}

/// The graphical sessions of people at this machine's own screens, by logind's ids.
pub(crate) fn graphical_sessions(run: &Path) -> Vec<String> {
    let entries = fs::read_dir(run.join("systemd/sessions")).into_iter().flatten().flatten();
    let mut sessions: Vec<String> = entries
        .filter(|entry| fs::read_to_string(entry.path()).is_ok_and(|text| is_graphical(&text)))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    sessions.sort();
    sessions
}

fn is_graphical(text: &str) -> bool {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let screen = matches!(value("TYPE"), Some("x11" | "wayland" | "mir"));
    screen && value("REMOTE") != Some("1") && value("CLASS").is_none_or(|class| class == "user")
}

/// The presence of a person, as a desktop reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Desktop {
    There,
    GoneFor(Duration),
}

/// Of several sessions the one with somebody at it; `None` where logind does not answer.
pub(crate) async fn desktop(sessions: &[String]) -> Option<Desktop> {
    if sessions.is_empty() {
        return None;
    }
    let mut command = Command::new("loginctl");
    command.arg("show-session").args(sessions).kill_on_drop(true);
    for property in ["Active", "IdleHint", "IdleSinceHint", "LockedHint"] {
        command.arg(format!("--property={property}"));
    }
    let output =
        timeout(ANSWER, command.output()).await.ok()?.ok().filter(|output| output.status.success())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    told(&String::from_utf8_lossy(&output.stdout), now)
}

/// Blocks of `Name=value`, with an empty line between two sessions. `now`: since 1970.
fn told(text: &str, now: Duration) -> Option<Desktop> {
    let session = |block: &str| {
        let value = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let since = value("IdleSinceHint").and_then(|text| text.parse().ok()).map(Duration::from_micros);
        let gone = value("IdleHint")? == "yes"
            || value("LockedHint") == Some("yes")
            || value("Active") == Some("no");
        // One that is locked need not say since when.
        let away =
            since.filter(|since| !since.is_zero()).map_or(Duration::MAX, |since| now.saturating_sub(since));
        Some(if gone { Desktop::GoneFor(away) } else { Desktop::There })
    };
    let sessions: Vec<Desktop> = text.split("\n\n").filter_map(session).collect();
    sessions.into_iter().min_by_key(|desktop| match desktop {
        Desktop::There => Duration::ZERO,
        Desktop::GoneFor(away) => *away,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_key_is_a_touch_and_a_swaying_machine_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let device = folder.path().join("event3");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &device,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let mut inputs = InputDevices::open(folder.path());
        assert!(inputs.are_read());
        assert_eq!(inputs.idle(), None, "nothing is known of before");
        let mut hand = File::options().write(true).open(&device).unwrap();
        let mut send = |kind: u16| {
            let mut event = [0; EVENT];
            event[EVENT - 8..EVENT - 6].copy_from_slice(&kind.to_ne_bytes());
            hand.write_all(&event).unwrap();
        };
        send(3);
        assert_eq!(inputs.idle(), None);
        send(KEY);
        assert!(inputs.idle().unwrap() < Duration::from_secs(10));
        assert!(!InputDevices::open(&folder.path().join("none")).are_read());
    }

    /// The kernel moves the time in steps of eight seconds, so a terminal of now is used.
    #[test]
    fn typing_at_a_terminal_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(terminals_idle(folder.path()), None);
        let pts = folder.path().join("pts");
        fs::create_dir(&pts).unwrap();
        fs::write(pts.join("ptmx"), "").unwrap();
        assert_eq!(terminals_idle(folder.path()), None, "no terminal of anybody");
        let long_ago = SystemTime::now() - Duration::from_secs(1000);
        for (name, ago) in [("pts/7", long_ago), ("tty1", long_ago - Duration::from_secs(9000))] {
            let file = File::create(folder.path().join(name)).unwrap();
            file.set_times(fs::FileTimes::new().set_accessed(ago)).unwrap();
        }
        let idle = terminals_idle(folder.path()).unwrap();
        assert!((1000..1060).contains(&idle.as_secs()), "{idle:?}");
    }

    #[test]
    fn a_real_terminal_is_seen() {
        let script = "import os, pty, sys; far, near = pty.openpty(); os.write(far, b'x\\n'); os.read(near, 9); \
                      print('typed', flush=True); sys.stdin.read()";
        let mut command = std::process::Command::new("python3");
        command.args(["-c", script]).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut typist = command.spawn().unwrap();
        // The pipe stays open: Python may write the end of the line by itself.
        let mut out = typist.stdout.take().unwrap();
        let mut said = [0; 6];
        out.read_exact(&mut said).unwrap();
        let idle = terminals_idle(Path::new("/dev"));
        drop(typist.stdin.take());
        typist.wait().unwrap();
        assert!(idle.is_some_and(|idle| idle < Duration::from_secs(30)), "{idle:?}");
    }

    #[test]
    fn what_logind_writes_is_read() {
        let session =
            "# This is private data. Do not parse.\nUID=1000\nACTIVE=1\nREMOTE=0\nTYPE=wayland\nCLASS=user\n";
        assert!(is_graphical(session));
        assert!(!is_graphical(&session.replace("wayland", "tty")));
        assert!(!is_graphical(&session.replace("REMOTE=0", "REMOTE=1")));
        assert!(!is_graphical(&session.replace("CLASS=user", "CLASS=greeter")));
        let now = Duration::from_secs(5000);
        let gone = "Active=yes\nIdleHint=yes\nIdleSinceHint=4000000000\nLockedHint=no\n";
        assert_eq!(told(gone, now), Some(Desktop::GoneFor(Duration::from_secs(1000))));
        let there = "Active=yes\nIdleHint=no\nIdleSinceHint=0\nLockedHint=no\n";
        assert_eq!(told(there, now), Some(Desktop::There));
        assert_eq!(told(&format!("{gone}\n{there}"), now), Some(Desktop::There));
        let locked = there.replace("LockedHint=no", "LockedHint=yes");
        assert_eq!(told(&locked, now), Some(Desktop::GoneFor(Duration::MAX)));
        assert_eq!(told("", now), None);
    }
}
