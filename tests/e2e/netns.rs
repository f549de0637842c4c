//! Machines that share nothing but a network: namespaces on one bridge.

use std::{
    io::{BufRead as _, BufReader, Lines},
    path::Path,
    process::{ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use kiln_testkit::{skip, wait_until};
use serde_json::Value;

use crate::support::{Home, Running, Said, carry, said};

/// The address of the hub.
const SERVER: &str = "10.213.77.1";

/// A server's namespace with a bridge, and namespaces that hang on it. Gone when dropped.
struct Network {
    name: String,
    hosts: u8,
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Network {
    /// `None` where this process may not make namespaces.
    fn new(hosts: u8) -> Option<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("kiln{}n{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let network = Self { name, hosts };
        let hub = network.hub();
        if !ip(&["netns", "add", &hub]) {
            return None;
        }
        let made = ip(&["-n", &hub, "link", "set", "lo", "up"])
            && ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"])
            && ip(&["-n", &hub, "addr", "add", &format!("{SERVER}/24"), "dev", "br0"])
            && ip(&["-n", &hub, "link", "set", "br0", "up"]);
        assert!(made, "the bridge cannot be made");
        for host in 0..hosts {
            let (space, port) = (network.host(host), format!("port{host}"));
            let made = ip(&["netns", "add", &space])
                && ip(&[
                    "link", "add", &port, "netns", &hub, "type", "veth", "peer", "name", "eth0", "netns",
                    &space,
                ])
                && ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"])
                && ip(&["-n", &space, "addr", "add", &format!("10.213.77.{}/24", host + 10), "dev", "eth0"])
                && ip(&["-n", &space, "link", "set", "eth0", "up"])
                && ip(&["-n", &space, "link", "set", "lo", "up"]);
            assert!(made, "the namespace {space} cannot be made");
        }
        Some(network)
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn host(&self, host: u8) -> String {
        format!("{}-{host}", self.name)
    }

    /// The same command, inside a namespace; with `hidden`, in one in which this folder is empty.
    fn inside(space: &str, hidden: Option<&Path>, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", space]);
        if let Some(folder) = hidden {
            let hide = "mount -t tmpfs none \"$0\" && exec \"$@\"";
            inside.args(["unshare", "--mount", "sh", "-c", hide]).arg(folder);
        }
        carry(command, &mut inside);
        inside.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        inside
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            ip(&["netns", "delete", &self.host(host)]);
        }
        ip(&["netns", "delete", &self.hub()]);
    }
}

/// A network card that waits for a call that wakes its machine.
pub struct Card {
    _process: Running,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Card {
    /// The call, as hexadecimal digits.
    #[track_caller]
    pub fn heard(mut self) -> String {
        self.lines.next().expect("no call came").unwrap()
    }
}

/// A server on the hub, and a machine that submits to it; others join as workers. Each has a home of its own.
pub struct Lan {
    network: Network,
    _server: Running,
    url: String,
    key: String,
    /// Host 0 submits from here.
    pub client: Home,
    _home: Home,
}

impl Lan {
    /// `None` where this process may not make namespaces; it has said so then.
    pub fn new(workers: u8) -> Option<Self> {
        let Some(network) = Network::new(workers + 1) else {
            skip("network namespaces cannot be made here (it takes root)");
            return None;
        };
        let (home, client) = (Home::new(), Home::new());
        let listen = format!("{SERVER}:8765");
        let command = home.kiln(&["server", "--listen", &listen, "--insecure"]);
        let url = format!("http://{listen}");
        let child = Network::inside(&network.hub(), None, &command).spawn().unwrap();
        let server = Running { child, url: url.clone() };
        let key = home.data().join("farm.key");
        wait_until(Duration::from_secs(30), "the server has made its key", || {
            home.data().join("server.json").exists() && key.exists()
        });
        let key = key.to_str().unwrap().to_owned();
        Some(Self { network, _server: server, url, key, client, _home: home })
    }

    /// The names in a folder, as machine 1, 2, ... sees them that does not see `hidden`.
    pub fn names_in(&self, host: u8, folder: &Path, hidden: &Path) -> String {
        let mut list = Command::new("ls");
        list.arg(folder);
        let mut command = Network::inside(&self.network.host(host), Some(hidden), &list);
        let listed = command.stdout(Stdio::piped()).output().unwrap();
        assert!(listed.status.success(), "the folder cannot be listed");
        String::from_utf8(listed.stdout).unwrap()
    }

    /// A worker on machine 1, 2, ... that does not see the folder `hidden`.
    pub fn worker(&self, host: u8, home: &Home, more: &[&str], hidden: Option<&Path>) -> Running {
        let mut args = vec!["worker", "--server", &self.url, "--key-file", &self.key];
        args.extend(more);
        let mut command = Network::inside(&self.network.host(host), hidden, &home.kiln(&args));
        Running { child: command.spawn().unwrap(), url: self.url.clone() }
    }

    /// The address of the network card of machine 1, 2, ..., as hexadecimal digits.
    pub fn mac(&self, host: u8) -> String {
        let mut show = Command::new("cat");
        show.arg("/sys/class/net/eth0/address");
        let mut command = Network::inside(&self.network.host(host), None, &show);
        let shown = command.stdout(Stdio::piped()).output().unwrap();
        String::from_utf8(shown.stdout).unwrap().trim().replace(':', "")
    }

    /// Returns the network card of a machine (1, 2, ...), which listens for wake-up packets.
    pub fn card(&self, host: u8) -> Card {
        let script = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(120); \
                      s.bind(('', 9)); print('listens', flush=True); print(s.recv(200).hex())";
        let mut python = Command::new("python3");
        python.args(["-c", script]);
        let mut command = Network::inside(&self.network.host(host), None, &python);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "listens");
        Card { _process: Running { child, url: String::new() }, lines }
    }

    /// A command of the person's, on machine 0.
    pub fn run(&self, args: &[&str]) -> Said {
        self.run_with(args, None)
    }

    /// The same with a file, whose name may be no Unicode.
    pub fn run_with(&self, args: &[&str], file: Option<&Path>) -> Said {
        let mut all = args.to_vec();
        all.extend(["--server", &self.url, "--key-file", &self.key]);
        let mut kiln = self.client.kiln(&all);
        kiln.args(file);
        let mut command = Network::inside(&self.network.host(0), None, &kiln);
        said(command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap())
    }

    /// [`Lan::run`] of a command that succeeds and prints JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let said = self.run(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        said.json()
    }

    /// Waits until the job is complete.
    #[track_caller]
    pub fn wait(&self, job: &str, limit: Duration) {
        wait_until(limit, "the job completes", || {
            let view = self.json(&["jobs", "show", job, "--json"])["job"].take();
            assert!(!["failed", "cancelled"].contains(&view["state"].as_str().unwrap()), "{view:#}");
            view["state"] == "completed"
        });
    }
}
