//! The processes of this machine, and what they cost: one pass over /proc.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

/// The name of Kiln's program.
const KILN: &str = "kiln";
/// The name of Blender's program, in every package of it.
const BLENDER: &str = "blender";
/// With one of these Blender opens no window.
const WINDOWLESS: &[&str] = &["-b", "--background", "-c", "--command", "-v", "--version", "-h", "--help"];
/// Ancestors looked at; a real chain is a dozen long.
const DEEPEST: usize = 64;

/// A Kiln that runs on this machine, with all that it started. It keeps what children of it used that have ended, so it
/// only grows as long as it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kiln {
    pid: u32,
    /// In ticks since the machine started: another process may get the same number later.
    started: u64,
}

/// The processes at one moment. Times are in the kernel's ticks, whose length cancels out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Census {
    /// Since the machine started, over all its cores: at work, and in all.
    busy: u64,
    all: u64,
    cores: u32,
    /// The ticks that each Kiln has used, this one and others. A child that is waited for while it is counted is missing once.
    ours: BTreeMap<Kiln, u64>,
    /// Bytes that this one's children hold.
    pub(crate) held: u64,
    /// Somebody has a Blender open with a window.
    pub(crate) windowed: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Process {
    parent: u32,
    name: String,
    zombie: bool,
    /// With those of children that have ended, so that nothing is lost when a Blender goes.
    ticks: u64,
    started: u64,
    pages: u64,
}

impl Census {
    /// `own` is one of Kiln's processes. `None` where this system has no such folder, or keeps it closed.
    pub(crate) fn take(proc: &Path, own: u32) -> Option<Self> {
        let (busy, all, cores) = machine(&fs::read_to_string(proc.join("stat")).ok()?)?;
        let mut processes = HashMap::new();
        for entry in fs::read_dir(proc).ok()?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // One that has ended since is not there any more.
            let Ok(stat) = fs::read(entry.path().join("stat")) else { continue };
            processes.extend(process(&String::from_utf8_lossy(&stat)).map(|process| (pid, process)));
        }
        let mut census = Self { busy, all, cores, ours: BTreeMap::new(), held: 0, windowed: false };
        for (pid, process) in &processes {
            let is_kiln = |(pid, name): &(u32, &str)| *pid == own || *name == KILN;
            let kiln = line(*pid, &processes).filter(is_kiln).last();
            if let Some((kiln, started)) =
                kiln.and_then(|(kiln, _)| Some((kiln, processes.get(&kiln)?.started)))
            {
                *census.ours.entry(Kiln { pid: kiln, started }).or_default() += process.ticks;
                if *pid != own && line(*pid, &processes).any(|(pid, _)| pid == own) {
                    census.held += process.pages * rustix::param::page_size() as u64;
                }
            } else if process.name == BLENDER && !process.zombie {
                let line = fs::read(proc.join(pid.to_string()).join("cmdline")).unwrap_or_default();
                census.windowed |= has_window(&line);
            }
        }
        Some(census)
    }

    /// Counts the cores that everything but Kiln has kept busy since an earlier census; `None` if no time has passed.
    pub(crate) fn others_since(&self, earlier: &Self) -> Option<f64> {
        let all = self.all.checked_sub(earlier.all).filter(|all| *all > 0)?;
        let busy = self.busy.saturating_sub(earlier.busy);
        // One that has ended since takes its ticks along, and nobody else's.
        let before = |kiln| earlier.ours.get(kiln).copied().unwrap_or(0);
        let ours: u64 = self.ours.iter().map(|(kiln, ticks)| ticks.saturating_sub(before(kiln))).sum();
        let others = busy.saturating_sub(ours);
        Some(others as f64 / all as f64 * f64::from(self.cores))
    }
}

/// The first line of /proc/stat, and how many cores have one of their own.
fn machine(stat: &str) -> Option<(u64, u64, u32)> {
    let mut lines = stat.lines();
    let fields: Vec<u64> = lines
        .next()?
        .strip_prefix("cpu ")?
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; those of guests are in user and nice already.
    let [user, nice, system, idle, wait, irq, soft, steal, ..] = fields[..] else { return None };
    let busy = user + nice + system + irq + soft;
    let cores = lines.take_while(|line| line.starts_with("cpu")).count();
    Some((busy, busy + idle + wait + steal, u32::try_from(cores).ok()?))
}

/// Reads a line of /proc/PID/stat. The name is in brackets and may hold brackets and spaces itself.
fn process(stat: &str) -> Option<Process> {
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = (11..=14).try_fold(0_u64, |sum, at| Some(sum.saturating_add(number(at)?)))?;
    Some(Process {
        parent: u32::try_from(number(1)?).ok()?,
        name,
        zombie: matches!(fields.first(), Some(&("Z" | "X"))),
        ticks,
        started: number(19)?,
        pages: number(21)?,
    })
}

/// A process and its ancestors, with their names.
fn line(pid: u32, processes: &HashMap<u32, Process>) -> impl Iterator<Item = (u32, &str)> {
    let mut next = Some(pid);
    let walk = std::iter::from_fn(move || {
        let pid = next?;
        let process = processes.get(&pid)?;
        next = (process.parent != pid).then_some(process.parent);
        Some((pid, process.name.as_str()))
    });
    walk.take(DEEPEST)
}

/// Decides from its command line whether a Blender has a window.
fn has_window(command_line: &[u8]) -> bool {
    let words = command_line.split(|byte| *byte == 0).skip(1).take_while(|word| word != b"--");
    let mut words = words.map(String::from_utf8_lossy);
    // One without a command line is about to end.
    !command_line.is_empty() && !words.any(|word| WINDOWLESS.contains(&&*word))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::process::CommandExt as _,
        process::{Child, Command, Stdio},
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn the_kernels_lines_are_read() {
        let stat = "cpu  100 20 30 400 50 6 7 8 99 0\ncpu0 1 2 3\ncpu1 1 2 3\nintr 5\n";
        assert_eq!(machine(stat), Some((163, 621, 2)));
        assert_eq!(machine("cpu 1 2"), None);
        let line = "42 (a (b) c) S 7 42 42 0 -1 4194304 101 0 0 0 1 2 3 4 20 0 1 0 99 4096 25 0";
        let expected = Process {
            parent: 7,
            name: "a (b) c".to_owned(),
            zombie: false,
            ticks: 10,
            started: 99,
            pages: 25,
        };
        assert_eq!(process(line), Some(expected));
        assert_eq!(process("42 (a"), None);
        assert_eq!(process("42 (a) S 7"), None);
    }

    #[test]
    fn a_blender_in_the_background_has_no_window() {
        assert!(has_window(b"/opt/blender/blender\0shot.blend\0"));
        assert!(has_window(b"blender\0"));
        assert!(has_window(b"blender\0shot.blend\0--\0-b\0"), "what follows is the script's");
        assert!(!has_window(b"blender\0-b\0shot.blend\0-a\0"));
        assert!(!has_window(b"blender\0--factory-startup\0--background\0"));
        assert!(!has_window(b""));
    }

    #[test]
    fn what_kiln_uses_is_not_counted_as_others() {
        let kilns = |ticks: &[(u32, u64)]| -> BTreeMap<Kiln, u64> {
            ticks.iter().map(|(pid, ticks)| (Kiln { pid: *pid, started: 1 }, *ticks)).collect()
        };
        let ours = kilns(&[(1, 500), (2, 7000)]);
        let earlier = Census { busy: 1000, all: 4000, cores: 4, ours, held: 0, windowed: false };
        let later = |busy, all, ticks: u64| Census {
            busy,
            all,
            ours: kilns(&[(1, ticks), (2, 7000)]),
            ..earlier.clone()
        };
        // In 100 ticks of each of 4 cores, 3 were busy, 2 of them with Kiln.
        assert_eq!(later(1300, 4400, 700).others_since(&earlier), Some(1.0));
        assert_eq!(later(1300, 4400, 500).others_since(&earlier), Some(3.0));
        // A Kiln that ended takes its own ticks along; a new one brings all of its.
        let ended = Census { ours: kilns(&[(1, 700)]), ..later(1300, 4400, 0) };
        assert_eq!(ended.others_since(&earlier), Some(1.0));
        let begun = Census { ours: kilns(&[(1, 600), (2, 7000), (3, 100)]), ..ended };
        assert_eq!(begun.others_since(&earlier), Some(1.0));
        assert_eq!(later(1300, 4400, 900).others_since(&earlier), Some(0.0));
        assert_eq!(earlier.others_since(&earlier), None);
    }

    /// A process that leads a group of its own: all of it ends with the test, also where the test fails.
    struct Ends(Child);

    impl Ends {
        fn start(script: &str) -> Self {
            let mut command = Command::new("sh");
            command.args(["-c", script]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
            Self(command.spawn().unwrap())
        }

        fn said(&mut self) -> impl Iterator<Item = String> + use<> {
            BufReader::new(self.0.stdout.take().unwrap()).lines().map(Result::unwrap)
        }
    }

    impl Drop for Ends {
        fn drop(&mut self) {
            // It may be gone.
            let group = rustix::process::Pid::from_child(&self.0);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = self.0.wait();
        }
    }

    /// The kernel keeps nanoseconds and tells ticks: of each process, and of all children that have ended together, each
    /// rounded down, for user and system time apart.
    const ROUNDED_OFF: u64 = 4;

    /// Ticks that a real process has used.
    fn ticks_of(pid: u32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        process(&stat).unwrap().ticks
    }

    #[test]
    fn a_busy_child_is_kilns_own_also_when_it_has_ended() {
        let proc = Path::new("/proc");
        // A worker with one child that works as hard as it can.
        let script = "while :; do :; done & echo $!; wait; echo over; read line";
        let mut worker = Ends::start(script);
        let mut said = worker.said();
        let child: u32 = said.next().unwrap().parse().unwrap();
        let take = || Census::take(proc, worker.0.id()).unwrap();
        // Other Kilns of this machine may come and go.
        let used =
            |census: &Census| *census.ours.iter().find(|(kiln, _)| kiln.pid == worker.0.id()).unwrap().1;
        let before = take();
        let began = Instant::now();
        // Half a second of a core, however busy the machine is.
        while ticks_of(child) < 50 {
            assert!(began.elapsed() < Duration::from_secs(60), "it gets no time");
            std::thread::sleep(Duration::from_millis(20));
        }
        let during = take();
        assert!(used(&during) >= used(&before) + 40, "{before:?} {during:?}");
        assert!(during.held > 0);
        assert!(Command::new("kill").arg(child.to_string()).status().unwrap().success());
        assert_eq!(said.next().unwrap(), "over");
        let after = take();
        assert!(used(&after) + ROUNDED_OFF >= used(&during), "what it used stays used: {during:?} {after:?}");
        assert_eq!(after.held, 0);
        // Whatever else runs here: the same moment without a Kiln shows what was left out.
        let others = after.others_since(&before).unwrap();
        let child = 40.0 / (after.all - before.all) as f64 * f64::from(after.cores);
        let [after, before] = [after, before].map(|census| Census { ours: BTreeMap::new(), ..census });
        let all = after.others_since(&before).unwrap();
        assert!(others <= all - child, "{others} of {all}, with {child} of its own");
    }

    #[test]
    fn a_process_that_is_not_kilns_counts_as_others() {
        let proc = Path::new("/proc");
        // Its parent ends at once, so that it is nobody's child here.
        let mut parent = Ends::start("(while :; do :; done) >/dev/null 2>&1 & echo $!");
        let pid: u32 = parent.said().next().unwrap().parse().unwrap();
        parent.0.wait().unwrap();
        let before = (Census::take(proc, std::process::id()).unwrap(), ticks_of(pid));
        let began = Instant::now();
        while ticks_of(pid) < before.1 + 50 && began.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let after = (Census::take(proc, std::process::id()).unwrap(), ticks_of(pid));
        let used = after.1 - before.1;
        assert!(used >= 50, "it got no time");
        let cores = used as f64 / (after.0.all - before.0.all) as f64 * f64::from(after.0.cores);
        let others = after.0.others_since(&before.0).unwrap();
        assert!(others >= cores * 0.8, "{others} cores, of which {cores} are its own");
    }
}
