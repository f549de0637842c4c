//! `kiln service`: the units that it writes, and that systemd accepts and runs them.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kiln_testkit::{skip, skip_in_part, temp_dir, wait_until};

use crate::support::{Home, Running, Said, said};

const KILN: &str = env!("CARGO_BIN_EXE_kiln");
const LIMIT: Duration = Duration::from_secs(60);

/// A unit as `--print` shows it.
struct Unit(String);

impl Unit {
    /// The values of a setting.
    fn all(&self, setting: &str) -> Vec<&str> {
        self.0.lines().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('=')).collect()
    }

    #[track_caller]
    fn one(&self, setting: &str) -> &str {
        let [value] = self.all(setting)[..] else { panic!("not one {setting} in {}", self.0) };
        value
    }

    /// Starts what systemd would start, and waits for the word that it is ready. A shell splits the line: the tests use no
    /// character that means something to it or to systemd alone, but for quotes and blanks.
    fn start(&self, home: &Home, credentials: Option<&Path>) -> Running {
        let socket = home.work().join("notify");
        let _ = fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket).unwrap();
        notify.set_read_timeout(Some(LIMIT)).unwrap();
        let variables: String =
            self.all("Environment").iter().map(|value| format!("export {value}; ")).collect();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{variables}exec {}", self.one("ExecStart"))]);
        command
            .env_clear()
            .env("HOME", home.work().parent().unwrap())
            .env("NOTIFY_SOCKET", &socket)
            .current_dir("/");
        if let Some(folder) = credentials {
            command.env("CREDENTIALS_DIRECTORY", folder);
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let running = Running { child, url: String::new() };
        let mut heard = [0; 64];
        let length = notify.recv(&mut heard).expect("the service says that it is ready");
        assert_eq!(&heard[..length], b"READY=1");
        running
    }

    /// Stops it as systemd does, and demands that it is gone in time.
    fn stop(&self, mut running: Running) {
        let limit = self.one("TimeoutStopSec").strip_suffix('s').unwrap().parse().unwrap();
        let asked = Instant::now();
        // KillMode=mixed: the first process alone.
        let pid = running.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut status = None;
        wait_until(Duration::from_secs(limit), "the service stops", || {
            status = running.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{status:?} after {:?}", asked.elapsed());
    }
}

fn print(home: &Home, args: &[&str], after: &[&str]) -> Unit {
    let said =
        home.run(&[&["service", "install"], args, &["--program", KILN, "--print", "--"], after].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    Unit(said.out)
}

/// systemd's own opinion of a unit; `None` where it is not installed.
fn verify(unit: &Path) -> Option<Said> {
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(unit).output().ok()?;
    Some(said(output))
}

#[test]
fn the_very_command_of_a_unit_runs_and_stops() {
    let home = Home::new();
    let server = print(&home, &["server", "--user"], &["--listen", "127.0.0.1:0"]);
    let running = server.start(&home, None);
    wait_until(LIMIT, "the server answers", || home.run(&["jobs", "--json"]).code == 0);
    let file = fs::read(home.data().join("server.json")).unwrap();
    let url = serde_json::from_slice::<serde_json::Value>(&file).unwrap()["url"].as_str().unwrap().to_owned();
    // Another machine: another home, and the key in a file in the user's folder.
    let far = Home::new();
    fs::copy(home.data().join("farm.key"), far.work().join("farm.key")).unwrap();
    let worker = ["--server", &url, "--key-file", "farm.key", "--name", "the attic"];
    let joined = |name: &str| {
        let workers = home.json(&["workers", "--json"]);
        workers["workers"]
            .as_array()
            .unwrap()
            .iter()
            .any(|worker| worker["name"] == name && worker["state"] != "offline")
    };
    let unit = print(&far, &["worker", "--user"], &worker);
    let attic = unit.start(&far, None);
    wait_until(LIMIT, "the worker joins", || joined("the attic"));
    unit.stop(attic);

    // A service of the system gets the key from systemd, wherever the file was, and has data of its own.
    let data = far.work().join("data");
    let named = [&worker[..4], &["--name", "cellar", "--data", data.to_str().unwrap()]].concat();
    let unit = print(&far, &["worker", "--system"], &named);
    assert_eq!(unit.one("LoadCredential"), "farm.key:/etc/kiln/farm.key");
    let credentials = far.work().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::rename(far.work().join("farm.key"), credentials.join("farm.key")).unwrap();
    let cellar = unit.start(&far, Some(&credentials));
    wait_until(LIMIT, "the worker joins", || joined("cellar"));
    unit.stop(cellar);
    server.stop(running);
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let home = Home::new();
    fs::write(home.work().join("farm.key"), "key").unwrap();
    // A program whose path needs quotes.
    let folder = home.work().join("my $tools 100%; é");
    fs::create_dir(&folder).unwrap();
    let program = folder.join("kiln");
    fs::copy(KILN, &program).unwrap();
    let program = program.to_str().unwrap();
    // A path may hold control characters, unlike a name.
    let odd = "/the \"attic\" \\ 100% of $HOME ; 'é'\n[Install]\tx";
    let server = ["--key-file", "farm.key", "--server", "http://127.0.0.1:1"];
    let worker =
        [&server[..], &["--name", "the \"attic\" ; 100%", "--blender", odd, "--nice", "10"]].concat();
    for (role, scope, after) in [
        ("server", "--user", &["--listen", "127.0.0.1:0"][..]),
        ("server", "--system", &["--worker", "--slots", "1"]),
        ("worker", "--user", &worker),
        ("worker", "--system", &worker),
    ] {
        let args =
            [&["service", "install", role, scope, "--program", program, "--print", "--"], after].concat();
        let printed = home.run(&args);
        assert_eq!(printed.code, 0, "{}", printed.err);
        assert!(printed.err.contains(&format!("kiln-{role}.service")), "it says where: {}", printed.err);
        assert!(
            printed.err.contains("temporary"),
            "and that such a program is no good start: {}",
            printed.err
        );
        let file = home.work().join(format!("kiln-{role}.service"));
        fs::write(&file, &printed.out).unwrap();
        let Some(opinion) = verify(&file) else {
            return skip("there is no systemd-analyze");
        };
        assert!(
            opinion.code == 0 && opinion.err.is_empty(),
            "{}\n{}{}",
            printed.out,
            opinion.out,
            opinion.err
        );
    }
}

#[test]
fn another_system_gets_a_service_and_loses_it_again() {
    if !rustix::process::geteuid().is_root() || Command::new("systemctl").arg("--version").output().is_err() {
        return skip("only root makes accounts, and systemctl enables the unit");
    }
    let (home, image) = (Home::new(), temp_dir());
    let root = image.path().to_str().unwrap();
    fs::create_dir_all(image.path().join("usr/bin")).unwrap();
    fs::copy(KILN, image.path().join("usr/bin/kiln")).unwrap();
    fs::create_dir(image.path().join("etc")).unwrap();
    fs::write(home.work().join("farm.key"), "secret").unwrap();
    let install = |role: &str, after: &[&str]| {
        let first =
            ["service", "install", role, "--root", root, "--program", "/usr/bin/kiln", "--json", "--"];
        home.json(&[&first[..], after].concat())
    };
    let told = install("worker", &["--server", "http://10.0.0.5:8765", "--key-file", "farm.key"]);
    assert_eq!((told["started"].as_bool(), told["at_boot"].as_bool()), (Some(false), Some(true)));
    let at = |path: &str| image.path().join(path);
    let file = at("etc/systemd/system/kiln-worker.service");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(at("etc/kiln/farm.key").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(at("etc/kiln/farm.key")).unwrap(), "secret");
    let systemctl = |args: &[&str]| {
        said(Command::new("systemctl").args(["--root", root]).args(args).output().unwrap()).out
    };
    assert_eq!(systemctl(&["is-enabled", "kiln-worker.service"]).trim(), "enabled");
    let unit = Unit(fs::read_to_string(&file).unwrap());
    assert!(
        unit.one("ExecStart").contains("/usr/bin/kiln worker --server http://10.0.0.5:8765"),
        "{}",
        unit.0
    );
    assert!(unit.one("ExecStart").contains("--data /var/lib/kiln"), "{}", unit.0);
    assert_eq!(unit.one("User"), "kiln");
    assert!(fs::read_to_string(at("etc/passwd")).unwrap().contains("kiln:x:"), "the account is made");
    assert!(fs::read_to_string(at("etc/group")).unwrap().contains("render:x:"), "GPUs are open to it");

    // The same again replaces it; both go, and leave the account alone.
    install("worker", &["--server", "http://10.0.0.6:8765", "--key-file", "farm.key"]);
    assert!(fs::read_to_string(&file).unwrap().contains("10.0.0.6"));
    install("server", &["--listen", "10.0.0.5:8765", "--insecure"]);
    for role in ["worker", "server"] {
        let said = home.run(&["service", "remove", role, "--root", root]);
        assert_eq!(said.code, 0, "{}", said.err);
        home.run(&["service", "remove", role, "--root", root]).refused(2, &["no such service"]);
    }
    let mut left = Vec::new();
    let mut folders = vec![image.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().contains("kiln") {
                left.push(path.clone());
            }
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            }
        }
    }
    assert_eq!(left, [at("usr/bin/kiln")]);

    // What somebody else wrote is neither replaced nor removed.
    fs::write(&file, "[Service]\nExecStart=/bin/true\n").unwrap();
    for verb in ["install", "remove"] {
        let program = ["--program", "/usr/bin/kiln"];
        let more: &[&str] = if verb == "install" { &program } else { &[] };
        home.run(&[&["service", verb, "worker", "--root", root], more].concat())
            .refused(2, &["was not written by"]);
    }
}

#[test]
fn what_cannot_be_a_service_is_said_in_one_line() {
    let home = Home::new();
    let refused = |after: &[&str], words: &[&str]| {
        let args = ["service", "install", "worker", "--user", "--program", KILN, "--print", "--"];
        home.run(&[&args[..], after].concat()).refused(2, words);
    };
    refused(&["--key", "secret"], &["everybody can read", "--key-file"]);
    refused(&["--slts", "2"], &["--slts"]);
    refused(&["--key-file", "missing.key"], &["missing.key"]);
    home.run(&["service", "install", "worker", "--print", "--program", "/nowhere/kiln"])
        .refused(2, &["/nowhere/kiln"]);
    home.run(&["service", "install", "desk", "--print"]).refused(2, &["desk"]);
    let root = ["service", "install", "worker", "--system", "--run-as", "root", "--program", KILN, "--print"];
    home.run(&root).refused(2, &["root"]);
    let with_key = home
        .kiln(&["service", "install", "worker", "--user", "--program", KILN, "--print"])
        .env("KILN_KEY", "x")
        .output();
    said(with_key.unwrap()).refused(2, &["KILN_KEY_FILE"]);
    if Path::new("/run/systemd/system").exists() {
        return skip_in_part("this machine runs systemd, and a test must not install services on it");
    }
    for args in [&["install", "worker"][..], &["remove", "server"], &["status"]] {
        home.run(&[&["service"], args].concat()).refused(1, &["does not run systemd"]);
    }
}
