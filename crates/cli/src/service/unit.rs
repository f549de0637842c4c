//! The text of a unit file, as a pure function of its contents.

use std::{
    fmt::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{quoting, role::ServiceRole};

/// The account of a service of the system, unless another one is chosen.
pub const OWN_ACCOUNT: &str = "kiln";
/// The data folder of a service that runs as that account. systemd creates it (`StateDirectory=`).
pub const OWN_DATA: &str = "/var/lib/kiln";
/// The name of the key file among the credentials of a service.
const CREDENTIAL: &str = "farm.key";
/// The first release of systemd that knows `RestartSteps=`.
const RESTART_STEPS: u32 = 254;

/// The account of a service, and so the manager that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunsAs {
    /// The person who installs it: a unit of that person's own manager.
    Myself,
    /// The account `kiln`: a unit of the system.
    Own,
    /// Another account: a unit of the system.
    Named(String),
}

impl RunsAs {
    pub fn is_system(&self) -> bool {
        *self != Self::Myself
    }
}

/// A word of the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    Text(String),
    /// The path of the key file among the credentials.
    KeyFile,
}

/// The contents of a unit.
#[derive(Debug, Clone)]
pub struct ServiceUnit {
    pub role: ServiceRole,
    pub runs_as: RunsAs,
    pub program: PathBuf,
    /// The arguments after the program and the role.
    pub words: Vec<Word>,
    pub environment: Vec<(String, String)>,
    /// The service starts Blenders: a worker, or a server with one inside.
    pub renders: bool,
    /// The copy of the key file, if the words name it.
    pub key_file: Option<PathBuf>,
    /// The release of systemd, if it is known.
    pub systemd: Option<u32>,
}

/// The reason why no unit can be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("systemd cannot start a program whose path has quotes, backslashes or control characters: {}", .0.display())]
    Program(PathBuf),
    #[error("the variable {0} has control characters, which systemd does not accept")]
    Variable(String),
    #[error("the path of the key file has control characters, which systemd does not accept: {}", .0.display())]
    KeyFile(PathBuf),
}

impl ServiceUnit {
    /// Returns the text of the unit file.
    pub fn text(&self) -> Result<String, UnitError> {
        let mut text = format!("{}\n\n[Unit]\n", marker(self.role));
        let mut section = Section(&mut text);
        section.line("Description", format_args!("Kiln {}", self.role));
        let mut after = Vec::new();
        if self.runs_as.is_system() {
            // A person's manager has no such target; it repeats a start that fails.
            section.line("Wants", "network-online.target");
            after.push("network-online.target");
        }
        if self.role == ServiceRole::Worker {
            after.push("kiln-server.service");
        }
        if !after.is_empty() {
            section.line("After", after.join(" "));
        }
        // A start is repeated without end: a server that is away may be back tomorrow.
        section.line("StartLimitIntervalSec", 0);

        section.start("Service");
        section.line("Type", "notify");
        section.line("ExecStart", self.command()?);
        for (name, value) in &self.environment {
            if value.chars().any(|c| c.is_ascii_control() && c != '\t' && c != '\n') {
                return Err(UnitError::Variable(name.clone()));
            }
            section.line("Environment", quoting::word(&format!("{name}={value}")));
        }
        match &self.runs_as {
            RunsAs::Myself => {}
            RunsAs::Own => {
                section.line("User", OWN_ACCOUNT);
                section.line("StateDirectory", "kiln");
                section.line("StateDirectoryMode", "0700");
            }
            RunsAs::Named(name) => section.line("User", quoting::word(name)),
        }
        if let Some(path) = &self.key_file {
            section.line("LoadCredential", credential(path)?);
        }
        self.write_life(&mut section);
        self.write_protection(&mut section);

        section.start("Install");
        section
            .line("WantedBy", if self.runs_as.is_system() { "multi-user.target" } else { "default.target" });
        Ok(text)
    }

    fn command(&self) -> Result<String, UnitError> {
        let refused = || UnitError::Program(self.program.clone());
        let program = self.program.to_str().and_then(quoting::program).ok_or_else(refused)?;
        let mut line = format!("{program} {}", self.role);
        for word in &self.words {
            line.push(' ');
            match word {
                Word::Text(text) => line.push_str(&quoting::argument(text)),
                Word::KeyFile => line.push_str(&format!("${{CREDENTIALS_DIRECTORY}}/{CREDENTIAL}")),
            }
        }
        Ok(line)
    }

    /// Writes how the service starts, ends and restarts.
    fn write_life(&self, section: &mut Section<'_>) {
        // A server may have to migrate its records first.
        section.line("TimeoutStartSec", "15min");
        // After SIGTERM a worker returns its frames and leaves within ten seconds; a server closes its connections, ends its
        // worker and writes its records.
        section.line("TimeoutStopSec", if self.role == ServiceRole::Server { "90s" } else { "30s" });
        // Kiln ends its Blenders; processes that remain after it are killed.
        section.line("KillMode", "mixed");
        // A service that was told to leave is not restarted, even if a second signal ended it at once.
        section.line("Restart", "on-failure");
        section.line("SuccessExitStatus", 130);
        section.line("RestartSec", "5s");
        if self.systemd.is_some_and(|release| release >= RESTART_STEPS) {
            section.line("RestartSteps", 6);
            section.line("RestartMaxDelaySec", "2min");
        }
    }

    /// Writes the limits of the service, and what happens when memory is short.
    fn write_protection(&self, section: &mut Section<'_>) {
        // For connections and cached files; the usual 1,024 are too few for a server.
        section.line("LimitNOFILE", if self.role == ServiceRole::Server { 524_288 } else { 65_536 });
        if self.renders {
            // A Blender that is killed for its memory must not end its worker, which reports it.
            section.line("OOMPolicy", "continue");
        }
        if self.role == ServiceRole::Worker {
            // Rather than a program of the desktop, a Blender is killed, which inherits this value.
            section.line("OOMScoreAdjust", 500);
        }
        if self.runs_as.is_system() {
            // The system's folders are read-only; the account decides on the others.
            section.line("ProtectSystem", "full");
        }
        if self.renders {
            // Stricter settings break rendering: drivers load modules and create devices through setuid programs
            // (nvidia-modprobe), snaps start through one (snap-confine), and shaders are compiled at run time.
            return;
        }
        section.line("NoNewPrivileges", "yes");
        if self.runs_as.is_system() {
            for setting in ["PrivateTmp", "PrivateDevices", "ProtectKernelTunables", "ProtectControlGroups"] {
                section.line(setting, "yes");
            }
        }
    }
}

/// Returns the first line of a unit that Kiln wrote, and may replace and remove.
pub fn marker(role: ServiceRole) -> String {
    format!("# Written by `kiln service install {role}`; `kiln service remove {role}` removes it.")
}

/// Returns the file for systemd-sysusers that creates the account, in the groups that may use GPUs.
pub fn own_account() -> String {
    format!(
        "# Written by `kiln service install`.\nu {OWN_ACCOUNT} - \"Kiln render farm\" {OWN_DATA}\nm {OWN_ACCOUNT} video\n\
         m {OWN_ACCOUNT} render\n"
    )
}

/// Writes the value of `LoadCredential=`, which has specifiers but neither quotes nor escapes.
fn credential(path: &Path) -> Result<String, UnitError> {
    let refused = || UnitError::KeyFile(path.to_owned());
    let path =
        path.to_str().filter(|path| !path.contains(|c: char| c.is_ascii_control())).ok_or_else(refused)?;
    Ok(format!("{CREDENTIAL}:{}", path.replace('%', "%%")))
}

struct Section<'a>(&'a mut String);

impl Section<'_> {
    fn start(&mut self, name: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "\n[{name}]\n");
    }

    fn line(&mut self, setting: &str, value: impl fmt::Display) {
        let _ = writeln!(self.0, "{setting}={value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(role: ServiceRole, runs_as: RunsAs) -> ServiceUnit {
        ServiceUnit {
            role,
            runs_as,
            program: "/usr/local/bin/kiln".into(),
            words: Vec::new(),
            environment: Vec::new(),
            renders: role == ServiceRole::Worker,
            key_file: None,
            systemd: Some(252),
        }
    }

    fn values<'a>(text: &'a str, setting: &str) -> Vec<&'a str> {
        text.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('=')).collect()
    }

    #[test]
    fn a_worker_of_a_person() {
        let mut unit = unit(ServiceRole::Worker, RunsAs::Myself);
        unit.words = ["--name", "my desk"].map(|word| Word::Text(word.into())).to_vec();
        unit.environment = vec![("PATH".into(), "/home/ana/50% bin:/usr/bin".into())];
        let text = unit.text().unwrap();
        assert_eq!(
            text,
            "# Written by `kiln service install worker`; `kiln service remove worker` removes it.\n\
             \n\
             [Unit]\n\
             Description=Kiln worker\n\
             After=kiln-server.service\n\
             StartLimitIntervalSec=0\n\
             \n\
             [Service]\n\
             Type=notify\n\
             ExecStart=/usr/local/bin/kiln worker --name \"my desk\"\n\
             Environment=\"PATH=/home/ana/50%% bin:/usr/bin\"\n\
             TimeoutStartSec=15min\n\
             TimeoutStopSec=30s\n\
             KillMode=mixed\n\
             Restart=on-failure\n\
             SuccessExitStatus=130\n\
             RestartSec=5s\n\
             LimitNOFILE=65536\n\
             OOMPolicy=continue\n\
             OOMScoreAdjust=500\n\
             \n\
             [Install]\n\
             WantedBy=default.target\n"
        );
    }

    #[test]
    fn a_service_of_the_system_waits_for_the_network_and_has_an_account() {
        let mut unit = unit(ServiceRole::Worker, RunsAs::Own);
        unit.words = vec![Word::Text("--key-file".into()), Word::KeyFile];
        unit.key_file = Some("/etc/kiln/farm.key".into());
        let text = unit.text().unwrap();
        assert_eq!(values(&text, "After"), ["network-online.target kiln-server.service"]);
        assert_eq!(values(&text, "User"), ["kiln"]);
        assert_eq!(values(&text, "StateDirectory"), ["kiln"]);
        assert_eq!(values(&text, "LoadCredential"), ["farm.key:/etc/kiln/farm.key"]);
        assert!(
            values(&text, "ExecStart")[0].ends_with(" --key-file ${CREDENTIALS_DIRECTORY}/farm.key"),
            "{text}"
        );
        assert_eq!(values(&text, "WantedBy"), ["multi-user.target"]);
        unit.runs_as = RunsAs::Named("ana".into());
        let text = unit.text().unwrap();
        assert_eq!((values(&text, "User"), values(&text, "StateDirectory").len()), (vec!["ana"], 0));
    }

    #[test]
    fn what_renders_keeps_its_ways_to_devices() {
        let alone = unit(ServiceRole::Server, RunsAs::Own).text().unwrap();
        let mut with_worker = unit(ServiceRole::Server, RunsAs::Own);
        with_worker.renders = true;
        let with_worker = with_worker.text().unwrap();
        let worker = unit(ServiceRole::Worker, RunsAs::Own).text().unwrap();
        for setting in ["NoNewPrivileges", "PrivateDevices", "PrivateTmp"] {
            assert_eq!(values(&alone, setting), ["yes"]);
            assert!(
                values(&with_worker, setting).is_empty() && values(&worker, setting).is_empty(),
                "{setting}"
            );
        }
        assert_eq!(values(&with_worker, "OOMPolicy"), ["continue"], "a Blender may be killed in it too");
        assert!(values(&with_worker, "OOMScoreAdjust").is_empty(), "the server itself is not to go first");
    }

    #[test]
    fn the_delay_grows_where_systemd_can() {
        let mut unit = unit(ServiceRole::Server, RunsAs::Myself);
        for (release, grows) in [(None, false), (Some(252), false), (Some(254), true), (Some(257), true)] {
            unit.systemd = release;
            assert_eq!(!values(&unit.text().unwrap(), "RestartMaxDelaySec").is_empty(), grows, "{release:?}");
        }
    }

    #[test]
    fn odd_characters_stay_in_their_line() {
        let odd = "a \"b\" 'c' \\d %n $HOME ${X} ;\n[Install]\nWantedBy=evil.target é\u{1b}";
        let mut unit = unit(ServiceRole::Worker, RunsAs::Named("o'neil".into()));
        unit.program = "/opt/my tools $5/kiln".into();
        unit.words = vec![Word::Text("--name".into()), Word::Text(odd.into())];
        unit.environment = vec![("KILN_TAG".into(), "tab\there \"and\" $there".into())];
        let text = unit.text().unwrap();
        assert_eq!(values(&text, "WantedBy"), ["multi-user.target"]);
        let command = values(&text, "ExecStart")[0];
        let rest = command.strip_prefix("\"/opt/my tools $5/kiln\" ").unwrap();
        assert_eq!(quoting::tests::read_back(rest, true), ["worker", "--name", odd]);
        let environment = quoting::tests::read_back(values(&text, "Environment")[0], false);
        assert_eq!(environment, ["KILN_TAG=tab\there \"and\" $there"]);
    }

    #[test]
    fn what_no_unit_can_say_is_refused() {
        let mut odd = unit(ServiceRole::Server, RunsAs::Myself);
        odd.program = "/opt/it's/kiln".into();
        assert_eq!(odd.text(), Err(UnitError::Program("/opt/it's/kiln".into())));
        let mut odd = unit(ServiceRole::Server, RunsAs::Myself);
        odd.environment = vec![("KILN_TAG".into(), "\u{1b}[1m".into())];
        assert_eq!(odd.text(), Err(UnitError::Variable("KILN_TAG".into())));
        let mut odd = unit(ServiceRole::Worker, RunsAs::Own);
        odd.key_file = Some("/a\nb".into());
        assert_eq!(odd.text(), Err(UnitError::KeyFile("/a\nb".into())));
    }
}
