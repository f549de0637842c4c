//! The guard under which `scripts/test` runs each test.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use kiln_testkit::{temp_dir, wait_until};

/// Starts two processes that outlive the shell, one of them an orphan in a session of its own, and writes their ids to
/// files.
const LEAVES: &str = r#"
sleep 1000 & echo $! >"$0/first"
setsid sh -c 'sleep 1000 & echo $! >"$0/second.part"; mv "$0/second.part" "$0/second"' "$0"
"#;

fn guarded(folder: &Path, then: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guard"));
    command.args(["sh", "-c", &format!("{LEAVES}\n{then}")]).arg(folder).stdout(Stdio::null());
    command
}

#[track_caller]
fn are_gone(folder: &Path) {
    for name in ["first", "second"] {
        let process = fs::read_to_string(folder.join(name)).unwrap();
        assert!(!Path::new("/proc").join(process.trim()).exists(), "the {name} one still runs");
    }
}

#[test]
fn what_is_left_running_is_killed_and_the_exit_code_is_the_programs() {
    for (then, code) in [("exit 0", 0), ("exit 7", 7), ("kill -SEGV $$", 139)] {
        let folder = temp_dir();
        assert_eq!(guarded(folder.path(), then).status().unwrap().code(), Some(code));
        are_gone(folder.path());
    }
}

#[test]
fn a_signal_ends_the_program_and_all_that_it_started() {
    for signal in ["TERM", "INT"] {
        let folder = temp_dir();
        // The program ignores both signals.
        let mut guard =
            guarded(folder.path(), "trap '' TERM INT; while :; do sleep 1000; done").spawn().unwrap();
        wait_until(Duration::from_secs(20), "both run", || folder.path().join("second").exists());
        let kill = Command::new("kill").args(["-s", signal, &guard.id().to_string()]).status().unwrap();
        assert!(kill.success());
        assert_eq!(guard.wait().unwrap().code(), Some(137));
        are_gone(folder.path());
    }
}

#[test]
fn temporary_files_go_with_the_program() {
    for then in ["exit 0", "kill -KILL $$"] {
        let folder = temp_dir();
        let then = format!("mktemp -d >\"$0/name\"; {then}");
        guarded(folder.path(), &then).env("TMPDIR", folder.path()).status().unwrap();
        let made = fs::read_to_string(folder.path().join("name")).unwrap();
        let run = Path::new(made.trim()).parent().unwrap();
        assert_eq!(run.parent(), Some(folder.path()));
        assert!(!run.exists(), "{} is still there", run.display());
    }
}

#[test]
fn what_cannot_be_started_is_told() {
    let output = Command::new(env!("CARGO_BIN_EXE_guard")).arg("/no/such/program").output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("guard: /no/such/program: "), "{output:?}");
}
