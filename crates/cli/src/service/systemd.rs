//! The systemd manager that runs a service, and its files.

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
/// The folder of the settings of services of the system.
pub const SYSTEM_SETTINGS: &str = "etc/kiln";

/// A manager of services.
#[derive(Debug, Clone)]
pub enum Manager {
    /// The manager of the person.
    Myself,
    /// The manager of the running system, or that of a system below this folder, which does not run.
    System(Option<PathBuf>),
}

impl Manager {
    /// Returns whether the manager runs.
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

    /// Returns the owner of its services, in a word.
    pub fn whose(&self) -> &'static str {
        match self {
            Self::Myself => "user",
            Self::System(_) => "system",
        }
    }

    /// Checks that systemd runs, if this manager should.
    pub fn demand(&self) -> Outcome {
        if self.runs() && !Path::new("/run/systemd/system").is_dir() {
            return Err(CommandError::failed(
                "this machine does not run systemd, which `kiln service` needs; use what starts programs at boot here to \
                 start `kiln server` or `kiln worker` (`kiln service install worker --print` shows what systemd would do)",
            ));
        }
        Ok(())
    }

    /// Returns the path of a unit file. A person without a home folder has none.
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

    /// Reads a unit file, if there is one. Fails if Kiln did not write it.
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

    /// Lets a manager that runs read its units again.
    pub fn reload(&self) -> Outcome {
        if self.runs() { self.systemctl(&["daemon-reload"]).map(drop) } else { Ok(()) }
    }

    /// Restarts a service and waits until it is ready, if the manager runs. The error has the last one of the service.
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
            CommandError::failed(format!("{why} (systemd tries again for as long as it is installed)"))
        })
    }

    /// Creates the account of services, now and in a system that is installed from this one.
    pub fn create_account(&self) -> Outcome {
        let Some(root) = self.root() else { return Ok(()) };
        write(&root.join(ACCOUNTS), &unit::own_account(), 0o644)?;
        let mut command = Command::new("systemd-sysusers");
        command.arg(format!("--root={}", root.display())).arg("kiln.conf");
        succeeded("systemd-sysusers", command.output()).map(drop)
    }

    /// Removes the file that creates the account. The account stays, because files belong to it.
    pub fn forget_account(&self) -> Outcome {
        self.root().map_or(Ok(()), |root| remove(&root.join(ACCOUNTS)))
    }

    /// Returns the state of a service; nothing if systemd does not answer.
    pub fn properties(&self, role: ServiceRole) -> BTreeMap<String, String> {
        let wanted = "--property=ActiveState,SubState,UnitFileState,MainPID,NRestarts";
        let shown = self.systemctl(&["show", wanted, &role.unit()]).unwrap_or_default();
        let pairs = shown.lines().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// Sets the runtime folder, which a shell outside a session (`su`, for one) does not know.
fn with_runtime_folder(command: &mut Command) {
    if env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", rustix::process::getuid().as_raw()));
    }
}

/// Returns the release of systemd, if it is installed.
pub fn release() -> Option<u32> {
    let output = Command::new("systemctl").arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1)?.parse().ok()
}

/// Returns whether the user's services run without a session.
pub fn lingers() -> bool {
    let uid = rustix::process::getuid().as_raw().to_string();
    let output = Command::new("loginctl").args(["show-user", &uid, "--property=Linger", "--value"]).output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"yes")
}

/// Lets the user's services run without a session.
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
    let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it gives no reason");
    Err(CommandError::failed(format!("`{what}` failed: {said}")))
}

/// Writes a file, and creates its folder.
pub fn write(file: &Path, text: &str, mode: u32) -> Outcome {
    let fail =
        |error: io::Error| CommandError::failed(format!("{} cannot be written ({error})", file.display()));
    let folder = file.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(fail)?;
    // systemd must be able to read it, whatever the umask of this shell is.
    write_atomically(file, text.as_bytes(), Access::Exactly(mode), Durability::Durable).map_err(fail)
}

/// Removes a file, if it exists.
pub fn remove(file: &Path) -> Outcome {
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CommandError::failed(format!("{} cannot be removed ({error})", file.display())))
        }
        _ => Ok(()),
    }
}
