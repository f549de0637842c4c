//! Runs a program, kills every process and removes every temporary file that it leaves behind:
//! `guard PROGRAM ARGUMENT ...`.
//!
//! The guard is the parent of all orphans below it (a "child subreaper" of Linux), also of those with a session of their
//! own. When the program has ended, for any reason, it kills them. `SIGTERM` and `SIGINT` end the program at once. The
//! program's `TMPDIR` is a folder of its own that goes with it: a killed program cannot remove its files, and a `bpy`
//! module never removes its own. The exit code is the program's, or 128 and the number of the signal that ended it.

use std::{
    env, fs,
    process::{Command, ExitCode},
};

use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process, set_child_subreaper, wait,
};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut words = env::args_os().skip(1);
    let Some(program) = words.next() else {
        eprintln!("guard PROGRAM ARGUMENT ...: runs a program and clears away what it leaves behind");
        return ExitCode::from(2);
    };
    match guard(Command::new(&program).args(words)).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("guard: {}: {error}", program.display());
            ExitCode::from(127)
        }
    }
}

async fn guard(command: &mut Command) -> std::io::Result<u8> {
    set_child_subreaper(Some(getpid()))?;
    let mut ended = signal(SignalKind::child())?;
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let temporary = tempfile::Builder::new().prefix("kiln-run-").tempdir()?;
    let program = Pid::from_child(&command.env("TMPDIR", temporary.path()).spawn()?);
    let code = loop {
        tokio::select! {
            _ = ended.recv() => if let Some(status) = reap(program) { break status },
            _ = terminated.recv() => kill(program),
            _ = interrupted.recv() => kill(program),
        }
    };
    // Each process that is killed may leave children, which then become children of the guard.
    loop {
        for child in children() {
            kill(child);
        }
        // No child is left.
        if wait(WaitOptions::empty()).is_err() {
            return Ok(code);
        }
    }
}

/// Reaps all children that have ended. Returns the exit code of `program` if it is among them. Zombies must not stay: a
/// test that waits for the end of a process would take them for running.
fn reap(program: Pid) -> Option<u8> {
    let mut code = None;
    while let Ok(Some((child, status))) = wait(WaitOptions::NOHANG) {
        if child == program {
            code = Some(exit_code(status));
        }
    }
    code
}

fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn kill(process: Pid) {
    // It may have ended already.
    let _ = kill_process(process, Signal::KILL);
}

/// Returns all children of this process.
fn children() -> Vec<Pid> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers =
        all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(Pid::from_raw);
    numbers.filter(|process| parent(*process) == Some(getpid())).collect()
}

fn parent(process: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).ok()?;
    // `PID (NAME) STATE PARENT ...`, and the name may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    Pid::from_raw(rest.split_whitespace().nth(1)?.parse().ok()?)
}
