//! A machine that boots: the real systemd, as the first process of a namespace, over a copy of this machine's files that is
//! kept in memory. Installs the services there, kills them, cuts the power, and looks whether they are back.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use kiln_testkit::{skip, temp_dir, wait_until};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    install::program,
    support::{Said, said},
};

const LIMIT: Duration = Duration::from_secs(60);
const SYSTEMD: &str = "/lib/systemd/systemd";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Makes the files of the machine in the folder `$1`, and a group of processes for it, and keeps them until its input
/// ends. Nothing of this machine's own services is started there.
const FILES: &str = r#"
set -e
mount -t tmpfs kiln-reboot "$1"
mkdir "$1/changes" "$1/work" "$1/root" "$1/groups"
mount -t cgroup2 cgroup2 "$1/groups"
group=$1/groups$(sed -n 's/^0:://p' /proc/self/cgroup)/kiln-reboot-$$
mkdir "$group"
ln -s "$group" "$1/group"
# The last process may take a moment to go.
trap 'for try in 1 2 3 4 5; do find "$group" -depth -type d -exec rmdir {} + && break; sleep 0.2; done' EXIT
mount -t overlay kiln-reboot "$1/root" -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work"
cd "$1/root"
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires etc/systemd/system/kiln-* lib/systemd/system/*.wants etc/fstab
mkdir -p etc/systemd/system.conf.d etc/systemd/system/sockets.target.wants
printf '[Manager]\nLogTarget=null\n' >etc/systemd/system.conf.d/kiln-test.conf
ln -s /lib/systemd/system/systemd-journald.socket etc/systemd/system/sockets.target.wants
echo 'ana:x:4711:4711::/home/ana:/bin/sh' >>etc/passwd
echo 'ana:x:4711:' >>etc/group
mkdir -p home/ana/.config home/ana/.local/share
chown -R 4711:4711 home/ana
echo ready
cat
"#;

/// Goes into the machine's group, so that it looks like the only one, and boots. The machine ends with the test.
const POWER: &str = r#"
echo $$ >"$1/group/cgroup.procs" || exit 1
exec setpriv --pdeathsig KILL unshare --mount --pid --cgroup --uts --ipc --fork --kill-child bash -c "$2" boot "$1/root" "$3"
"#;

/// Boots in the folder `$1`. What systemd could change of the machine around it is read-only.
const BOOT: &str = r#"
set -e
cd "$1"
mount -t proc proc proc
mount --bind -o ro proc/sys proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs run run
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
exec chroot . /usr/bin/env -i container=kiln "$2" /lib/systemd/systemd --unit=multi-user.target
"#;

struct Machine {
    folder: TempDir,
    files: Child,
    power: Option<Child>,
}

impl Machine {
    /// `None` where this process may not make one.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new(SYSTEMD).exists() {
            skip("only root can boot another machine, with the systemd of this one");
            return None;
        }
        let folder = temp_dir();
        let mut files = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "bash", "-c", FILES, "files"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut ready = String::new();
        BufReader::new(files.stdout.take()?).read_line(&mut ready).ok()?;
        let mut machine = Self { folder, files, power: None };
        if ready.trim() != "ready" || !machine.boot() {
            skip("this machine lets nobody mount an overlay or a cgroup");
            return None;
        }
        Some(machine)
    }

    /// The command, among the files of the machine.
    fn inside(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.files.id().to_string()]);
        command
    }

    /// Installs the program for everybody on the machine, from outside.
    fn install(&self) {
        let mut install = self.inside();
        install.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install"));
        install.args(["--prefix", "/usr/local", "--program"]).arg(program());
        let said = said(install.env("DESTDIR", self.folder.path().join("root")).output().unwrap());
        assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    }

    fn boot(&mut self) -> bool {
        let mut boot = self.inside();
        boot.args(["bash", "-c", POWER, "power"]).arg(self.folder.path()).args([BOOT, PATH]);
        self.power = boot.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok();
        let mut state = String::new();
        wait_until(LIMIT, "the machine has booted", || {
            let ended =
                self.power.as_mut().is_none_or(|power| power.try_wait().is_ok_and(|status| status.is_some()));
            state = if ended { "ended".into() } else { self.run(&["systemctl", "is-system-running"]).out };
            ["ended", "running", "degraded"].contains(&state.trim())
        });
        state.trim() != "ended"
    }

    /// The first process of the machine.
    fn init(&self) -> Option<String> {
        let power = self.power.as_ref()?.id();
        let children = fs::read_to_string(format!("/proc/{power}/task/{power}/children")).ok()?;
        Some(children.split_whitespace().next()?.to_owned())
    }

    /// Kills everything in it at once, without a signal to end.
    fn cut_power(&mut self) {
        if let Some(init) = self.init() {
            let _ = Command::new("kill").args(["-KILL", &init]).status();
        }
        if let Some(mut power) = self.power.take() {
            let _ = power.wait();
        }
    }

    /// Runs a command on the machine, as root.
    fn run(&self, args: &[&str]) -> Said {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init().unwrap_or_default()]);
        command.args([
            "--mount",
            "--pid",
            "--cgroup",
            "--uts",
            "--ipc",
            "--root",
            "--wd",
            "env",
            "-i",
            PATH,
            "HOME=/root",
        ]);
        said(command.args(args).stdin(Stdio::null()).output().unwrap())
    }

    /// Runs it as a person who is logged in.
    fn run_as_ana(&self, args: &[&str]) -> Said {
        let ana = [
            "setpriv",
            "--reuid=4711",
            "--regid=4711",
            "--clear-groups",
            "env",
            "HOME=/home/ana",
            "USER=ana",
        ];
        self.run(&[&ana[..], &["XDG_RUNTIME_DIR=/run/user/4711"], args].concat())
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}{}", said.out, said.err);
        said.out
    }

    /// The services, as `kiln service status` shows them.
    fn services(&self) -> Vec<Value> {
        let told: Value = serde_json::from_str(&self.done(&["kiln", "service", "status", "--json"])).unwrap();
        told["services"].as_array().unwrap().clone()
    }

    /// The process of a service that runs.
    fn pid(&self, role: &str) -> Option<u64> {
        let services = self.services();
        let service =
            services.iter().find(|service| service["role"] == role && service["state"] == "active")?;
        service["pid"].as_u64()
    }

    /// The worker of the system has joined the server of the system.
    fn joined(&self) -> bool {
        let told = self.run(&["kiln", "workers", "--json", "--data", "/var/lib/kiln"]);
        let Ok(told) = serde_json::from_str::<Value>(&told.out) else { return false };
        told["workers"].as_array().is_some_and(|all| all.iter().any(|worker| worker["state"] != "offline"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cut_power();
        drop(self.files.stdin.take());
        let _ = self.files.wait();
    }
}

#[test]
fn a_farm_survives_kills_and_reboots() {
    let Some(mut machine) = Machine::new() else { return };
    machine.install();
    assert!(machine.done(&["kiln", "service", "status"]).contains("no services"));

    let told = machine.done(&["kiln", "service", "install", "server", "--", "--listen", "127.0.0.1:0"]);
    assert!(told.contains("starts again at boot") && told.contains("/var/lib/kiln/farm.key"), "{told}");
    machine.done(&[
        "kiln",
        "service",
        "install",
        "worker",
        "--",
        "--slots",
        "1",
        "--name",
        "my \"$HOME\" 100%",
    ]);
    wait_until(LIMIT, "the worker joins", || machine.joined());
    let workers = machine.done(&["kiln", "workers", "--json", "--data", "/var/lib/kiln"]);
    assert!(workers.contains(r#""my \"$HOME\" 100%""#), "systemd reads what was quoted: {workers}");
    for service in machine.services() {
        assert_eq!((&service["state"], &service["at_boot"]), (&"active".into(), &true.into()), "{service}");
    }
    let owner = machine.done(&["stat", "-c", "%U %a", "/var/lib/kiln", "/var/lib/kiln/farm.key"]);
    assert_eq!(owner, "kiln 700\nkiln 600\n");

    // Killed, it is back. Nobody waits the seconds of a real service here.
    machine.done(&["sh", "-c", "for role in server worker; do mkdir -p /run/systemd/system/kiln-$role.service.d; \
        printf '[Service]\\nRestartSec=50ms\\n' >/run/systemd/system/kiln-$role.service.d/soon.conf; done; systemctl daemon-reload"]);
    for role in ["server", "worker"] {
        let before = machine.pid(role).unwrap();
        machine.done(&["kill", "-KILL", &before.to_string()]);
        wait_until(LIMIT, "the service is back", || machine.pid(role).is_some_and(|pid| pid != before));
    }
    wait_until(LIMIT, "the worker is back at the farm", || machine.joined());

    machine.cut_power();
    assert!(machine.boot());
    wait_until(LIMIT, "the farm is back after a power cut", || machine.joined());

    // Who is asked to leave stays away until somebody starts it.
    let worker = |property: &str| {
        machine
            .done(&["systemctl", "show", &format!("--property={property}"), "--value", "kiln-worker"])
            .trim()
            .to_owned()
    };
    machine.done(&["kiln", "workers", "stop", "my \"$HOME\" 100%", "--data", "/var/lib/kiln"]);
    wait_until(LIMIT, "the worker leaves", || worker("ActiveState") == "inactive");
    assert_eq!((worker("Result"), worker("SubState")), ("success".into(), "dead".into()));
    machine.done(&["systemctl", "start", "kiln-worker"]);

    // Stopped, it ends well and stays away; and it goes without a trace but for its data.
    machine.done(&["systemctl", "stop", "kiln-worker"]);
    assert_eq!(worker("Result"), "success");
    for role in ["worker", "server"] {
        machine.done(&["kiln", "service", "remove", role]);
    }
    assert!(machine.services().is_empty());
    assert_eq!(machine.done(&["systemctl", "list-units", "--all", "--no-legend", "kiln-*"]), "");
    let left =
        machine.done(&["find", "/etc", "/run", "-iname", "*kiln-*.service*", "-o", "-path", "/etc/kiln*"]);
    assert!(left.lines().all(|line| line.ends_with(".d") || line.ends_with("soon.conf")), "{left}");

    // One that cannot start is said at once.
    let listen = ["--", "--listen", "203.0.113.9:8765", "--insecure"];
    machine
        .run(&[&["kiln", "service", "install", "server"], &listen[..]].concat())
        .refused(1, &["kiln-server", "no address 203.0.113.9"]);
    machine.done(&["kiln", "service", "remove", "server"]);

    a_person_has_services_too(&mut machine);
}

fn a_person_has_services_too(machine: &mut Machine) {
    // logind starts the manager of a person who logs in or lingers; there is no logind here.
    let log_in = |machine: &Machine| {
        machine.done(&["install", "-d", "-o", "4711", "-g", "4711", "-m", "700", "/run/user/4711"]);
        let first = ["systemd-run", "--quiet", "--uid=4711", "--gid=4711", "--property=Delegate=yes"];
        let places =
            ["--setenv=HOME=/home/ana", "--setenv=XDG_RUNTIME_DIR=/run/user/4711", SYSTEMD, "--user"];
        machine.done(&[&first[..], &places].concat());
        wait_until(LIMIT, "ana's manager answers", || {
            let state = machine.run_as_ana(&["systemctl", "--user", "is-system-running"]).out;
            ["running", "degraded"].contains(&state.trim())
        });
    };
    let joined = |machine: &Machine| {
        let told = machine.run_as_ana(&["kiln", "workers", "--json"]).out;
        told.contains("\"state\": \"idle\"")
    };
    let nobody = machine.run_as_ana(&["kiln", "service", "install", "server"]);
    nobody.refused(1, &["systemctl"]);
    log_in(machine);
    let told = machine.run_as_ana(&[
        "kiln",
        "service",
        "install",
        "server",
        "--json",
        "--",
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_eq!(told.code, 0, "{}", told.err);
    assert!(told.err.contains("sudo loginctl enable-linger ana"), "{}", told.err);
    let value: Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((&value["of"], &value["at_boot"]), (&"user".into(), &false.into()));
    assert_eq!(value["file"], "/home/ana/.config/systemd/user/kiln-server.service");
    let worker = ["worker", "--", "--slots", "1", "--yield=no"];
    let worker = machine.run_as_ana(&[&["kiln", "service", "install"], &worker[..]].concat());
    assert_eq!(worker.code, 0, "{}", worker.err);
    wait_until(LIMIT, "ana's worker has joined", || joined(machine));
    machine.cut_power();
    assert!(machine.boot());
    assert!(!joined(machine));
    log_in(machine);
    wait_until(LIMIT, "ana's farm is back", || joined(machine));
    for role in ["worker", "server"] {
        let removed = machine.run_as_ana(&["kiln", "service", "remove", role]);
        assert_eq!(removed.code, 0, "{}", removed.err);
    }
    machine.run_as_ana(&["kiln", "jobs"]).refused(3, &["no farm"]);
}
