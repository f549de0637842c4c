//! A home of its own for each test, and the program in it.

use std::{
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use kiln_testkit::{blender_series, temp_dir, wait_until};
use serde_json::Value;
use tempfile::TempDir;

/// The time until a server answers on a busy machine.
const READY: Duration = Duration::from_secs(30);
/// The series of Blender that saved `examples/sample.blend`.
const SAMPLE_SERIES: &str = "3.4";

/// A temporary home: nothing of the person who runs the tests is seen or touched.
pub struct Home {
    dir: TempDir,
}

/// The output of a finished command.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// The last JSON document that the command printed: one that reports its progress printed a line for each event before
    /// it.
    #[track_caller]
    pub fn json(&self) -> Value {
        self.json_lines().pop().unwrap_or_else(|| panic!("no JSON: {}{}", self.out, self.err))
    }

    /// All JSON documents that the command printed.
    #[track_caller]
    pub fn json_lines(&self) -> Vec<Value> {
        let all = serde_json::Deserializer::from_str(&self.out).into_iter();
        all.map(|value| value.unwrap_or_else(|error| panic!("{error}: {}", self.out))).collect()
    }
}

impl Home {
    pub fn new() -> Self {
        let dir = temp_dir();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        Self { dir }
    }

    /// A folder to work in.
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The folder of Kiln's data.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("share/kiln")
    }

    /// A copy of a .blend in the folder to work in.
    pub fn copy(&self, blend: &Path, name: &str) -> PathBuf {
        let path = self.work().join(name);
        std::fs::copy(blend, &path).unwrap();
        path
    }

    /// The program, in this home and its folder to work in.
    pub fn kiln(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        let base = self.dir.path();
        command
            .args(args)
            .current_dir(self.work())
            .stdin(Stdio::null())
            .env("HOME", base)
            .env("XDG_DATA_HOME", base.join("share"))
            .env("XDG_CONFIG_HOME", base.join("config"))
            .env("XDG_CACHE_HOME", base.join("cache"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KILN_") {
                command.env_remove(name);
            }
        }
        // Somebody may use this machine while the tests run.
        command.env("KILN_YIELD", "no");
        // The sample is of Blender 3.4; a machine with another renders it all the same.
        if blender_series() != SAMPLE_SERIES {
            command.env("KILN_BLENDER_NEWER", "true");
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Said {
        said(self.kiln(args).output().unwrap())
    }

    /// Runs as a user who owns nothing, in this home all the same. Only root can.
    pub fn run_as_nobody(&self, args: &[&str]) -> Said {
        const NOBODY: u32 = 65534;
        // The build folder may be closed to others: a copy of the program is not.
        let program = self.dir.path().join("kiln");
        std::fs::copy(env!("CARGO_BIN_EXE_kiln"), &program).unwrap();
        for folder in [self.dir.path(), &self.work()] {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let whole = self.kiln(args);
        let mut command = Command::new(program);
        command.args(args).current_dir(self.work()).stdin(Stdio::null()).uid(NOBODY).gid(NOBODY);
        for (name, value) in whole.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        // Another test may start a program while the copy is open for writing, and so hold it open for a moment.
        let mut output = None;
        wait_until(READY, "the copy can be run", || {
            output = match command.output() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => None,
                other => Some(other.unwrap()),
            };
            output.is_some()
        });
        said(output.unwrap())
    }

    /// Runs, demands success, and reads what it printed as JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.json()
    }

    /// A server on a free port, ready when this returns.
    pub fn server(&self, more: &[&str]) -> Running {
        let mut args = vec!["server", "--listen", "127.0.0.1:0"];
        args.extend(more);
        let child = self.kiln(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut running = Running { child, url: String::new() };
        let file = self.data().join("server.json");
        wait_until(READY, "the server is ready", || {
            let Ok(text) = std::fs::read(&file) else { return false };
            let Ok(value) = serde_json::from_slice::<Value>(&text) else { return false };
            if value["pid"] != u64::from(running.child.id()) {
                return false;
            }
            running.url = value["url"].as_str().unwrap_or_default().to_owned();
            true
        });
        running
    }

    /// Folders of commands with a farm inside them that are still there.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data().join("render")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }
}

pub fn said(output: Output) -> Said {
    let mut err = String::from_utf8_lossy(&output.stderr).into_owned();
    if blender_series() != SAMPLE_SERIES {
        // See `Home::kiln`: every test would have to expect this line.
        let is_note =
            |line: &str| line.contains("was saved by Blender") && line.contains(": it renders with");
        err = err.split_inclusive('\n').filter(|line| !is_note(line)).collect();
    }
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err,
    }
}

impl Said {
    /// The command refused: this exit code, one line that holds these words, nothing on standard output.
    #[track_caller]
    pub fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.err);
        assert_eq!(self.err.trim().lines().count(), 1, "one line: {}", self.err);
        assert!(self.err.starts_with("error: "), "{}", self.err);
        assert_eq!(self.out, "");
        for word in words {
            assert!(self.err.contains(word), "“{word}” is not in: {}", self.err);
        }
    }
}

/// A process that ends with the test.
pub struct Running {
    pub child: Child,
    pub url: String,
}

impl Running {
    /// Kills it in the midst of its work.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, as Ctrl-C does, and waits for its exit code.
    pub fn interrupt(mut self) -> i32 {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
        let mut code = None;
        wait_until(READY, "the process ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command with its environment and folder, as what the outer one starts behind its own arguments.
pub fn carry(command: &Command, outer: &mut Command) {
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        outer.current_dir(folder);
    }
}
