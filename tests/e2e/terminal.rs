//! A terminal of the test's own: a program runs in it as in a person's, and what it shows can be read.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use kiln_testkit::wait_until;
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

use crate::support::carry;

const SOON: Duration = Duration::from_secs(30);

/// The two sides of a new terminal of this size: the person's, and the program's.
pub fn pair(columns: u16, rows: u16) -> (File, File) {
    // A program that had both sides would never lose its terminal.
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    tcsetwinsize(&slave, Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    (File::from(master), slave)
}

/// The command in a session of its own, whose terminal is its standard input: that of the person who runs the tests is
/// another.
pub fn inside(command: &Command) -> Command {
    let mut inside = Command::new("setsid");
    // Whatever terminal the tests run in, if any.
    inside.arg("--ctty").env("TERM", "xterm-256color");
    carry(command, &mut inside);
    inside
}

/// A program in a terminal.
pub struct Terminal {
    pub child: Child,
    /// The person's side: what they type goes in, what they see comes out.
    master: File,
    /// The program's side, which keeps its modes when the program has ended.
    slave: File,
    before: Termios,
    screen: Arc<Mutex<Screen>>,
}

impl Terminal {
    /// Starts the program in a terminal of this size.
    pub fn run(command: &Command, columns: u16, rows: u16) -> Self {
        let (master, slave) = pair(columns, rows);
        let before = tcgetattr(&slave).unwrap();
        let side = || Stdio::from(OwnedFd::from(slave.try_clone().unwrap()));
        let child = inside(command).stdin(side()).stdout(side()).stderr(side()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(Screen::new(columns, rows)));
        let (mut reader, seen) = (master.try_clone().unwrap(), Arc::clone(&screen));
        // Ends with the terminal: reading fails once its other side is closed.
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                seen.lock().unwrap().take(&bytes[..count]);
            }
        });
        Self { child, master, slave, before, screen }
    }

    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// The text on the screen.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap().text()
    }

    /// Everything that was sent so far, with what moves and colours.
    pub fn sent(&self) -> String {
        self.screen.lock().unwrap().sent.clone()
    }

    /// Something was sent in a colour.
    pub fn coloured(&self) -> bool {
        let sent = self.sent();
        let styles = sent.split("\x1b[").filter_map(|part| {
            let end = part.find(|c: char| c.is_ascii_alphabetic())?;
            part[end..]
                .starts_with('m')
                .then(|| part[..end].split(';').map(str::to_owned).collect::<Vec<_>>())
        });
        // 39 and 49 give the terminal's own colours back.
        let colour = |code: &String| matches!(code.parse(), Ok(30..=38 | 40..=48 | 90..=107));
        styles.into_iter().any(|codes| codes.iter().any(colour))
    }

    #[track_caller]
    pub fn shows(&self, words: &str) {
        self.shows_what(words, |text| text.contains(words));
    }

    #[track_caller]
    pub fn shows_what(&self, what: &str, is: impl Fn(&str) -> bool) {
        let (started, mut last) = (std::time::Instant::now(), self.text());
        while !is(&last) {
            assert!(started.elapsed() < SOON, "“{what}” is not to be seen:\n{last}");
            thread::sleep(Duration::from_millis(5));
            last = self.text();
        }
    }

    /// Waits for its end and gives its exit code.
    #[track_caller]
    pub fn ended(&mut self) -> i32 {
        let mut status = None;
        wait_until(SOON, "the program in the terminal ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code()).unwrap_or(-1)
    }

    /// The terminal is as it was before the program: its modes, its own page, its cursor.
    #[track_caller]
    pub fn restored(&self) {
        let after = tcgetattr(&self.slave).unwrap();
        let modes = |t: &Termios| (t.input_modes, t.output_modes, t.control_modes, t.local_modes);
        assert_eq!(modes(&after), modes(&self.before), "the modes of the terminal");
        let left = || {
            let sent = self.sent();
            let last = |on: &str, off: &str| sent.rfind(on) < sent.rfind(off);
            last("\x1b[?1049h", "\x1b[?1049l") && last("\x1b[?25l", "\x1b[?25h")
        };
        wait_until(SOON, "the page that was there before is back, with its cursor", left);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The part of a terminal that knows the text at each place.
struct Screen {
    cells: Vec<Vec<char>>,
    column: usize,
    row: usize,
    /// Bytes of a sequence or letter that has not come whole.
    rest: Vec<u8>,
    sent: String,
}

impl Screen {
    fn new(columns: u16, rows: u16) -> Self {
        let cells = vec![vec![' '; columns.into()]; rows.into()];
        Self { cells, column: 0, row: 0, rest: Vec::new(), sent: String::new() }
    }

    fn text(&self) -> String {
        self.cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned() + "\n").collect()
    }

    fn take(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.len(),
            Err(error) => error.valid_up_to(),
        };
        let text = String::from_utf8(self.rest[..whole].to_vec()).unwrap();
        let mut todo = text.as_str();
        while let Some(letter) = todo.chars().next() {
            if letter != '\x1b' {
                self.put(letter);
                todo = &todo[letter.len_utf8()..];
                continue;
            }
            let Some(end) = todo.find(|c: char| c.is_ascii_alphabetic()) else { break };
            self.control(&todo[..=end]);
            todo = &todo[end + 1..];
        }
        let done = text.len() - todo.len();
        self.sent.push_str(&text[..done]);
        self.rest.drain(..done);
    }

    fn put(&mut self, letter: char) {
        match letter {
            '\r' => self.column = 0,
            '\n' => self.row += 1,
            _ => {
                if let Some(cell) = self.cells.get_mut(self.row).and_then(|row| row.get_mut(self.column)) {
                    *cell = letter;
                }
                self.column += 1;
            }
        }
    }

    /// `ESC [ 3 ; 7 H` goes to a place, `ESC [ 2 J` clears, `ESC [ ? 1049 h` shows another page; colours change nothing.
    fn control(&mut self, sequence: &str) {
        let inner = sequence.trim_start_matches(['\x1b', '[']);
        let (numbers, letter) = inner.split_at(inner.len() - 1);
        let number = |at: usize| numbers.split(';').nth(at).and_then(|n| n.parse::<usize>().ok());
        match letter {
            "H" => {
                self.row = number(0).unwrap_or(1).saturating_sub(1);
                self.column = number(1).unwrap_or(1).saturating_sub(1);
            }
            "J" => self.cells.iter_mut().flatten().for_each(|cell| *cell = ' '),
            "h" | "l" if numbers == "?1049" => {
                self.cells.iter_mut().flatten().for_each(|cell| *cell = ' ');
            }
            _ => {}
        }
    }
}
