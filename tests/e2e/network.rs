//! Three workers in three network namespaces, each with its own address; one is killed midway, one joins late.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use kiln_testkit::{Blender, assert_same_picture, blender, wait_until};

use crate::{
    sample::{SETTINGS, cold_sample, sample},
    support::{Home, Running},
};

const SERVER: &str = "10.213.77.1";
const LIMIT: Duration = Duration::from_secs(240);

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
        let name = format!("kiln{}", std::process::id());
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

    /// The same command, inside a namespace.
    fn inside(space: &str, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", space]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
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

#[test]
fn three_machines_one_killed_one_late() {
    let Some(network) = Network::new(4) else {
        println!("left out: network namespaces cannot be made here (it takes root)");
        return;
    };
    // Each machine has a home of its own: nothing is shared but the network.
    let homes: Vec<Home> = (0..5).map(|_| Home::new()).collect();
    let [server_home, client_home, worker_homes @ ..] = &homes[..] else { unreachable!() };
    let url = format!("http://{SERVER}:8765");
    let listen = format!("{SERVER}:8765");
    let spawn = |space: &str, home: &Home, args: &[&str]| Running {
        child: Network::inside(space, &home.kiln(args)).spawn().unwrap(),
        url: url.clone(),
    };
    let _server = spawn(&network.hub(), server_home, &["server", "--listen", &listen, "--insecure"]);
    let key = server_home.data().join("farm.key");
    wait_until(Duration::from_secs(30), "the server has made its key", || {
        server_home.data().join("server.json").exists() && key.exists()
    });
    let key = key.to_str().unwrap();
    let worker = |host: u8, home: &Home, name: &str| {
        spawn(
            &network.host(host),
            home,
            &["worker", "--server", &url, "--key-file", key, "--name", name, "--slots", "1"],
        )
    };
    let client = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--server", &url, "--key-file", key]);
        let mut command = Network::inside(&network.host(0), &client_home.kiln(&all));
        crate::support::said(command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap())
    };
    let json = |args: &[&str]| -> serde_json::Value {
        let said = client(args);
        assert_eq!(said.code, 0, "{args:?}: {}", said.err);
        serde_json::from_str(&said.out).unwrap()
    };

    let _first = worker(1, &worker_homes[0], "first");
    let mut second = worker(2, &worker_homes[1], "second");
    wait_until(LIMIT, "two workers are connected", || {
        json(&["workers", "--json"])["workers"].as_array().unwrap().len() == 2
    });
    let mut submit = vec!["submit", sample(), "--frames", "1-40", "--json"];
    submit.extend(SETTINGS);
    let job = json(&submit)["job"]["id"].to_string();
    let done = || json(&["jobs", "show", &job, "--json"])["job"]["tasks"]["done"].as_u64().unwrap();
    let renders = |name: &str| {
        let workers = json(&["workers", "--json"]);
        let found =
            workers["workers"].as_array().unwrap().iter().find(|worker| worker["name"] == name).cloned();
        found.is_some_and(|worker| !worker["running"].as_array().unwrap().is_empty())
    };
    wait_until(LIMIT, "the job is under way on the second worker", || done() >= 4 && renders("second"));
    // `ip netns exec` becomes the worker, so this is the worker's own process.
    second.child.kill().unwrap();
    second.child.wait().unwrap();
    let _third = worker(3, &worker_homes[2], "third");

    wait_until(LIMIT, "the job completes", || {
        let view = json(&["jobs", "show", &job, "--json"])["job"].take();
        assert!(!["failed", "cancelled"].contains(&view["state"].as_str().unwrap()), "{view:#}");
        view["state"] == "completed"
    });
    let out = client_home.work().join("frames");
    let said = client(&["jobs", "fetch", &job, "--out", out.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{}", said.err);
    let cold = client_home.work().join("cold");
    for frame in 1..=40 {
        let name = format!("vase_{frame:04}.png");
        assert!(out.join("frames").join(&name).exists(), "{name} is missing");
        // A process a frame is slow: every fifth is compared to the pixel, all were decoded when they came.
        if frame % 5 == 0 {
            cold_sample(&Blender::Executable(blender()), frame, &cold);
            assert_same_picture(&out.join("frames").join(&name), &cold.join(&name));
        }
    }
}
