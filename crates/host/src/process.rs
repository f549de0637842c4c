//! A Blender process: its own group, an empty profile, nothing inherited but a short list of variables.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    process::{ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
};

use kiln_types::BlenderFlavor;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    net::{UnixStream, unix::pipe},
    process::{Child, Command},
    runtime::Handle,
};

use crate::{BlenderInstall, HostOptions, SlotRoot, bytecode::Bytecode};

/// Variables that pass: what a program needs to find its libraries and speak its language, and the switches of
/// Cycles. All else could carry a secret.
const PASSED: &[&str] = &["PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "VK_ICD_FILENAMES"];
const PASSED_PREFIXES: &[&str] = &["CYCLES_", "CUDA_VISIBLE", "HIP_VISIBLE", "ROCR_VISIBLE", "NVIDIA_"];
/// Names a process and whatever it started, so that a child which left the group is found too.
const MARK: &str = "KILN_HOST";

/// A running process with both ends of its talk.
pub(crate) struct Process {
    child: Child,
    group: Pid,
    mark: String,
    /// A trusted script may start programs that leave the group.
    trust: bool,
}

impl Process {
    /// Starts Blender. The socket is its standard input: no other child of this process can inherit it by
    /// accident, as it could a number kept open across `exec`.
    pub(crate) async fn start(
        install: &BlenderInstall,
        root: &SlotRoot,
        boot: &std::path::Path,
        options: &HostOptions,
        bytecode: &Bytecode,
    ) -> io::Result<(Self, UnixStream, pipe::Receiver)> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let (log, printed) = io::pipe()?;
        let mark = mark();
        let mut command = Command::new(&install.program);
        match install.flavor {
            BlenderFlavor::Executable => {
                let scripts = if options.trust { "--enable-autoexec" } else { "--disable-autoexec" };
                command.args(["--background", "--factory-startup", "-noaudio", scripts, "--python"]);
                command.arg(boot);
                if matches!(bytecode, Bytecode::Use(_)) {
                    // Python looks at PYTHONPYCACHEPREFIX; the rest of the environment is ours alone.
                    command.arg("--python-use-system-env");
                }
                command.arg("--");
            }
            BlenderFlavor::Module => {
                command.arg("-I").arg(boot);
            }
        }
        command.args(["--kiln-fd", "0"]);
        if let Bytecode::Make(folder) = bytecode {
            command.arg("--kiln-bytecode").arg(folder);
        }
        command.env_clear().envs(passed()).env(MARK, &mark).envs(profile(root));
        if let Some(ocio) = &options.ocio {
            command.env("OCIO", ocio);
        }
        if let Bytecode::Use(folder) = bytecode {
            command.env("PYTHONPYCACHEPREFIX", folder);
        }
        command.current_dir(root.tmp());
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(Stdio::from(printed.try_clone()?)).stderr(Stdio::from(printed));
        command.process_group(0).kill_on_drop(true);
        let child = spawn(command, options.nice).await?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the process ended at once"))?;
        let log = pipe::Receiver::from_owned_fd(OwnedFd::from(log))?;
        Ok((Self { child, group, mark, trust: options.trust }, UnixStream::from_std(ours)?, log))
    }

    pub(crate) fn id(&self) -> u32 {
        self.group.as_raw_nonzero().get().unsigned_abs()
    }

    pub(crate) fn has_exited(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Ends the processes when it is dropped before [`Fuse::remove`]. Nobody may wait for the process meanwhile.
    pub(crate) fn fuse(&self) -> Fuse {
        Fuse { group: self.group, mark: self.trust.then(|| self.mark.clone()), lit: true }
    }

    /// Ends every process of the group at once, and what left it.
    pub(crate) fn kill(&mut self) {
        // Once the leader is waited for, its number can be given away: then only the mark tells who is ours.
        let reaped = !matches!(self.child.try_wait(), Ok(None));
        if !reaped {
            let _gone = kill_process_group(self.group, Signal::KILL);
        }
        if reaped || self.trust {
            kill_marked(&self.mark);
        }
    }
}

/// Ends a process whose request was dropped half-way.
pub(crate) struct Fuse {
    group: Pid,
    mark: Option<String>,
    lit: bool,
}

impl Fuse {
    pub(crate) fn remove(mut self) {
        self.lit = false;
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if self.lit {
            let _gone = kill_process_group(self.group, Signal::KILL);
            if let Some(mark) = &self.mark {
                kill_marked(mark);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn passed() -> Vec<(OsString, OsString)> {
    let passes = |name: &OsString| {
        name.to_str().is_some_and(|name| {
            PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
    };
    std::env::vars_os().filter(|(name, _)| passes(name)).collect()
}

/// Everything that names a folder of the person who runs the worker names one of the slot instead.
fn profile(root: &SlotRoot) -> Vec<(&'static str, OsString)> {
    let home = root.home();
    let tmp = root.tmp().into_os_string();
    let below = |name: &str| home.join(name).into_os_string();
    vec![
        ("HOME", home.clone().into_os_string()),
        ("XDG_CONFIG_HOME", below("config")),
        ("XDG_CACHE_HOME", below("cache")),
        ("XDG_DATA_HOME", below("data")),
        ("XDG_STATE_HOME", below("state")),
        ("XDG_RUNTIME_DIR", tmp.clone()),
        ("BLENDER_USER_RESOURCES", below("blender")),
        ("BLENDER_USER_CONFIG", below("blender/config")),
        ("BLENDER_USER_SCRIPTS", below("blender/scripts")),
        ("BLENDER_USER_DATAFILES", below("blender/datafiles")),
        ("BLENDER_USER_EXTENSIONS", below("blender/extensions")),
        ("TMPDIR", tmp.clone()),
        ("TMP", tmp.clone()),
        ("TEMP", tmp),
        ("PYTHONDONTWRITEBYTECODE", "1".into()),
        ("PYTHONNOUSERSITE", "1".into()),
    ]
}

fn mark() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(std::process::id());
    format!("{}-{random:016x}", std::process::id())
}

type Job = Box<dyn FnOnce() + Send>;

/// The least of all priorities.
const LAST: u8 = 19;

/// Starts the process from a thread that lives as long as the program: the kernel's "die with the parent" signal,
/// which the host asks for, is sent when the *thread* that started it ends. Each priority has a thread that has it:
/// what it starts has it from its first instruction on, in every thread of its own.
async fn spawn(mut command: Command, nice: u8) -> io::Result<Child> {
    static SPAWNERS: Mutex<BTreeMap<u8, Sender<Job>>> = Mutex::new(BTreeMap::new());
    let spawner = {
        let mut spawners = SPAWNERS.lock().unwrap_or_else(PoisonError::into_inner);
        spawners.entry(nice.min(LAST)).or_insert_with(|| spawner(nice.min(LAST))).clone()
    };
    let (reply, answer) = tokio::sync::oneshot::channel();
    let runtime = Handle::current();
    let job: Job = Box::new(move || {
        let _entered = runtime.enter();
        // Where nobody waits any more, the child is dropped, and so killed.
        let _ = reply.send(command.spawn());
    });
    let gone = || io::Error::other("the thread that starts processes is gone");
    spawner.send(job).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

fn spawner(nice: u8) -> Sender<Job> {
    let (sender, jobs) = channel::<Job>();
    let thread = std::thread::Builder::new().name("kiln-spawner".to_owned());
    // Without the thread the channel is closed, and every start says so.
    let _started = thread.spawn(move || {
        // On Linux a priority is a thread's.
        if nice > 0
            && let Err(error) = rustix::process::setpriority_process(None, nice.into())
        {
            tracing::warn!(%error, nice, "priority refused");
        }
        jobs.iter().for_each(|job| job());
    });
    sender
}

/// Puts every thread of a process behind all others, as far as it is not gone. There is no way back.
pub fn lower_priority(pid: u32) {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for thread in threads {
        let id = thread.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        if id.is_some() {
            let _gone = rustix::process::setpriority_process(id, LAST.into());
        }
    }
}

/// The resources that a process group has used so far; none where it is gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time, that of its ended children included; clock ticks, normally of 10 ms.
    pub ticks: u64,
    /// Bytes that its processes have written to disks.
    pub written: u64,
}

impl Usage {
    /// Looks through all processes of the machine.
    pub fn of_group(group: u32) -> Self {
        let mut usage = Self::default();
        for pid in running() {
            let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
            if let Some(ticks) = read("stat").and_then(|stat| ticks(&stat, group)) {
                usage.ticks += ticks;
                usage.written += read("io").and_then(|io| written(&io)).unwrap_or(0);
            }
        }
        usage
    }
}

/// Of the lines of /proc/PID/io.
fn written(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

/// Of a line of /proc/PID/stat, where it is of the group. The name is in brackets and may hold any sign itself.
fn ticks(stat: &str, group: u32) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let own: u32 = fields.nth(2)?.parse().ok()?;
    let used = fields.skip(8).take(4).filter_map(|ticks| ticks.parse::<u64>().ok());
    (own == group).then(|| used.sum())
}

fn carries(pid: &str, mark: &str) -> bool {
    let wanted = format!("{MARK}={mark}");
    std::fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes()))
}

fn running() -> impl Iterator<Item = String> {
    let numbers = |entry: io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.bytes().all(|byte| byte.is_ascii_digit()).then_some(name)
    };
    std::fs::read_dir("/proc").into_iter().flatten().filter_map(numbers)
}

fn kill_marked(mark: &str) {
    use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
    for pid in running().filter(|pid| carries(pid, mark)) {
        let Some(number) = pid.parse().ok().and_then(Pid::from_raw) else { continue };
        // Held by a descriptor and looked at again, so that a number given away meanwhile is not hit.
        if let Ok(handle) = pidfd_open(number, PidfdFlags::empty())
            && carries(&pid, mark)
        {
            let _gone = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::CommandExt as _,
        process::Command,
        time::{Duration, Instant},
    };

    use super::{Usage, ticks, written};

    #[test]
    fn the_time_of_a_process_is_read_whatever_its_name() {
        let line = "77 (a) b (c) R 1 70 70 0 -1 0 0 0 0 0 11 22 33 44 20 0 1 0 5 6 7";
        assert_eq!(ticks(line, 70), Some(110));
        assert_eq!(ticks(line, 71), None);
        assert_eq!(ticks("", 70), None);
    }

    #[test]
    fn what_a_process_has_written_is_read() {
        let io = "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n";
        assert_eq!(written(io), Some(4096));
        assert_eq!(written(""), None);
    }

    #[test]
    fn a_group_that_works_uses_time_and_one_that_waits_does_not() {
        let start = |script: &str| {
            Command::new("sh")
                .args(["-c", script])
                .process_group(0)
                .spawn()
                .expect("every machine has a shell")
        };
        let mut works = start("while :; do :; done");
        let mut waits = start("sleep 60; :");
        let deadline = Instant::now() + Duration::from_secs(60);
        while Usage::of_group(works.id()).ticks < 50 {
            assert!(Instant::now() < deadline, "it uses nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
        let waited = Usage::of_group(waits.id()).ticks;
        for child in [&mut works, &mut waits] {
            let group = rustix::process::Pid::from_child(child);
            let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            child.wait().expect("it was started here");
        }
        assert!(waited < 10, "{waited} ticks");
    }
}
