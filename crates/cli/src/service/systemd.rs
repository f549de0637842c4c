//! The manager that runs a service, and the files that it reads.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use kiln_files::{Access, Durability, write_atomically};

use super::{role::ServiceRole, unit};
use crate::exit::{CommandError, Outcome};

/// The folder of the system's units.
const SYSTEM_UNITS: &str = "etc/systemd/system";
/// The file that names the accounts which systemd creates.
const ACCOUNTS: &str = "etc/sysusers.d/kiln.conf";
/// The folder of what belongs to services of the system.
pub const SYSTEM_SETTINGS: &str = "etc/kiln";

/// A manager of services.
#[derive(Debug, Clone)]
pub enum Manager {
    /// That of the person who asks.
    Myself,
    /// That of the system that runs, or of another one below this folder, which cannot be asked.
    System(Option<PathBuf>),
}

impl Manager {
    /// Returns whether systemd can be asked: another system is not running.
    fn runs(&self) -> bool {
        !matches!(self, Self::System(Some(_)))
    }

    /// Returns the root folder of a system; `None` for a person's manager.
    pub fn root(&self) -> Option<&Path> {
        match self {
            Self::Myself => None,
            Self::System(root) => Some(root.as_deref().unwrap_or(Path::new("/"))),
        }
    }

    /// Returns whose services these are, as people say it.
    pub fn whose(&self) -> &'static str {
        match self {
            Self::Myself => "user",
            Self::System(_) => "system",
        }
    }

    /// Demands a systemd that runs, where this one would have to.
    pub fn demand(&self) -> Outcome {
        if self.runs() && !Path::new("/run/systemd/system").is_dir() {
            return Err(CommandError::failed(
                "this machine does not run systemd, which `kiln service` needs; let whatever starts programs at boot here \
                 start `kiln server` or `kiln worker` (`kiln service install worker --print` shows what systemd would do)",
            ));
        }
        Ok(())
    }

    /// Returns the path of a unit file.
    ///
    /// # Errors
    /// Where the person has no home folder.
    pub fn file(&self, role: ServiceRole) -> Outcome<PathBuf> {
        let none = || {
            CommandError::bad_input(
                "there is no home folder for a service of yours; --system installs one of the system",
            )
        };
        let folder = match self.root() {
            Some(root) => root.join(SYSTEM_UNITS),
            None => directories::BaseDirs::new().ok_or_else(none)?.config_dir().join("systemd/user"),
        };
        Ok(folder.join(role.unit()))
    }

    /// Reads a unit file that Kiln wrote; `None` where there is none.
    ///
    /// # Errors
    /// Where somebody else wrote it.
    pub fn installed(&self, role: ServiceRole) -> Outcome<Option<String>> {
        let file = self.file(role)?;
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(CommandError::bad_input(format!("{} cannot be read ({error})", file.display())));
            }
        };
        if text.lines().next() != Some(&unit::marker(role)) {
            return Err(CommandError::bad_input(format!(
                "{} was not written by `kiln service install`; move it away, and try again",
                file.display()
            )));
        }
        Ok(Some(text))
    }

    /// Runs `systemctl` for this manager.
    pub fn systemctl(&self, arguments: &[&str]) -> Outcome<String> {
        let mut command = Command::new("systemctl");
        match self {
            Self::Myself => {
                command.arg("--user");
                with_runtime_folder(&mut command);
            }
            Self::System(Some(root)) => {
                command.arg("--root").arg(root);
            }
            Self::System(None) => {}
        }
        command.arg("--no-pager").args(arguments);
        succeeded(&format!("systemctl {}", arguments.join(" ")), command.output())
    }

    /// Reads the units again, where there is a manager that has read them before.
    pub fn reload(&self) -> Outcome {
        if self.runs() { self.systemctl(&["daemon-reload"]).map(drop) } else { Ok(()) }
    }

    /// Restarts a service; systemctl returns when it is ready. What another system is to run starts with that.
    ///
    /// # Errors
    /// Where it does not become ready, with the last thing that it said.
    pub fn start(&self, role: ServiceRole) -> Outcome {
        if !self.runs() {
            return Ok(());
        }
        let unit = role.unit();
        self.systemctl(&["restart", &unit]).map(drop).map_err(|fault| {
            let mut command = Command::new("journalctl");
            if matches!(self, Self::Myself) {
                command.arg("--user");
                with_runtime_folder(&mut command);
            }
            command.args(["--no-pager", "--quiet", "--output", "cat", "--lines", "20", "--unit", &unit]);
            let said = command.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            let said = said.unwrap_or_default();
            let error = said.lines().rev().find_map(|line| line.strip_prefix("error: "));
            let why = error.map_or(fault.message, |error| format!("{unit} does not start: {error}"));
            CommandError::failed(format!("{why} (it is tried again for as long as it is installed)"))
        })
    }

    /// Makes the account of its own, in the running system and in every later one.
    ///
    /// # Errors
    /// Where the files cannot be written.
    pub fn make_account(&self) -> Outcome {
        let Some(root) = self.root() else { return Ok(()) };
        write(&root.join(ACCOUNTS), &unit::own_account(), 0o644)?;
        let mut command = Command::new("systemd-sysusers");
        command.arg(format!("--root={}", root.display())).arg("kiln.conf");
        succeeded("systemd-sysusers", command.output()).map(drop)
    }

    /// Forgets to make the account. It stays where it is: files are its own.
    pub fn forget_account(&self) -> Outcome {
        self.root().map_or(Ok(()), |root| remove(&root.join(ACCOUNTS)))
    }

    /// Returns what systemd knows of a service; nothing where it cannot be asked.
    pub fn properties(&self, role: ServiceRole) -> BTreeMap<String, String> {
        let wanted = "--property=ActiveState,SubState,UnitFileState,MainPID,NRestarts";
        let shown = self.systemctl(&["show", wanted, &role.unit()]).unwrap_or_default();
        let pairs = shown.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// A shell that is not of a session (`su`, `ssh` to another account) lacks the variable; the folder is there all the same
/// where the person's manager runs.
fn with_runtime_folder(command: &mut Command) {
    if env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", rustix::process::getuid().as_raw()));
    }
}

/// Returns the release of systemd; `None` where there is none.
pub fn release() -> Option<u32> {
    let output = Command::new("systemctl").arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1)?.parse().ok()
}

/// Returns whether the user's services run without a session. logind knows nobody who is neither logged in nor lingers.
pub fn lingers() -> bool {
    let uid = rustix::process::getuid().as_raw().to_string();
    let output = Command::new("loginctl").args(["show-user", &uid, "--property=Linger", "--value"]).output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"yes")
}

/// Lets the person's services run without a session.
///
/// # Errors
/// Where logind refuses.
pub fn linger() -> Outcome {
    let uid = rustix::process::getuid().as_raw().to_string();
    succeeded("loginctl enable-linger", Command::new("loginctl").args(["enable-linger", &uid]).output())
        .map(drop)
}

/// Returns whether this system has an account of this name.
pub fn account_exists(name: &str) -> bool {
    Command::new("id").args(["-u", "--", name]).output().is_ok_and(|output| output.status.success())
}

fn succeeded(what: &str, output: io::Result<Output>) -> Outcome<String> {
    let output = output.map_err(|error| CommandError::failed(format!("`{what}` cannot be run ({error})")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it does not say why");
    Err(CommandError::failed(format!("`{what}` failed: {said}")))
}

/// Writes a file whole, with its folder.
pub fn write(file: &Path, text: &str, mode: u32) -> Outcome {
    let fail =
        |error: io::Error| CommandError::failed(format!("{} cannot be written ({error})", file.display()));
    let folder = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(fail)?;
    // Whatever the umask of this shell is, systemd must be able to read it.
    write_atomically(file, text.as_bytes(), Access::Exactly(mode), Durability::Durable).map_err(fail)
}

/// Removes a file that may have gone already.
pub fn remove(file: &Path) -> Outcome {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CommandError::failed(format!("{} cannot be removed ({error})", file.display())))
        }
        _ => Ok(()),
    }
}
