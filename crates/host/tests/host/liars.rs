//! Programs that speak the protocol in Blender's place, and lie. Each is what a hostile scene could do.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use kiln_host::{BlenderInstall, Host, HostOptions, OpenRequest, RenderRequest, SlotRoot, collect};
use kiln_testkit::{scene, temp_dir};
use kiln_types::{BlenderFlavor, Failure, FailureCause};

use crate::session;

/// The start of every liar: an honest hello, an honest open, and helpers.
const HONEST: &str = r#"#!/usr/bin/env python3
import json, os, socket, sys, time
s = socket.socket(fileno=0)
lines = s.makefile("rb")
def say(event, **fields):
    s.sendall(json.dumps({"event": event, **fields}).encode() + b"\n")
def planned(scratch="main/a.png", path="a.png"):
    return {"path": path, "scratch": scratch, "role": {"main": {"view": None}}, "format": "png",
            "depth": "8", "width": 4, "height": 4}
def done(id):
    say("rendered", id=id, started_at=0.0, ended_at=1.0, memory=1)
say("hello", version="3.4.1", build_hash="", capabilities={"engines": [], "devices": [], "denoisers": []})
open_ = json.loads(lines.readline())
say("opened", id=open_["id"], notices=[], seconds=0.0, memory=1,
    plan={"files": [planned()], "engine": "CYCLES", "device": "CPU"})
ask = json.loads(lines.readline())
id, out = ask["id"], ask["out"]
os.makedirs(out + "/main")
target = out + "/main/a.png"
"#;

/// Lets a liar render a frame, and returns what the host makes of it.
async fn lie(code: &str) -> Result<usize, Failure> {
    let folder = temp_dir();
    let program = folder.path().join("blender");
    std::fs::write(&program, format!("{HONEST}{code}\ntime.sleep(1000)\n")).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let install = BlenderInstall {
        program,
        flavor: BlenderFlavor::Executable,
        version: "3.4.1".parse().unwrap(),
        build_hash: String::new(),
    };
    let root = SlotRoot::create(folder.path().join("slot")).unwrap();
    let options = HostOptions { silence_limit: Duration::from_secs(1), ..HostOptions::default() };
    let mut host = Host::start(&install, &root, options).await.unwrap();
    let blend = scene("basic");
    let session = session(&install, &blend);
    host.open(&OpenRequest::new(blend, session)).await?;
    let out = root.fresh_out("f").unwrap();
    let request = RenderRequest { frame: 1, out: out.clone(), time_limit: Some(Duration::from_secs(30)) };
    let rendered = host.render(request).await?;
    // Opening must not wait for a writer that never comes.
    let collected = tokio::task::spawn_blocking(move || collect(&out, &rendered.planned));
    let collected = tokio::time::timeout(Duration::from_secs(5), collected).await.unwrap().unwrap()?;
    Ok(collected.len())
}

#[tokio::test]
async fn the_honest_part_is_believed() {
    let code = "say('planned', id=id, files=[planned()])\nopen(target, 'w').write('x')\ndone(id)";
    assert_eq!(lie(code).await.unwrap(), 1);
}

#[tokio::test]
async fn every_lie_is_found() {
    let plan = "say('planned', id=id, files=[planned()])\n";
    let misbehaved = FailureCause::HostMisbehaved;
    let cases: &[(&str, String, FailureCause)] = &[
        ("a symlink", format!("{plan}os.symlink('/etc/passwd', target)\ndone(id)"), misbehaved),
        (
            "a folder that is a symlink",
            format!("{plan}os.rmdir(out + '/main')\nos.symlink('/etc', out + '/main')\ndone(id)"),
            misbehaved,
        ),
        ("a FIFO", format!("{plan}os.mkfifo(target)\ndone(id)"), misbehaved),
        ("a folder", format!("{plan}os.mkdir(target)\ndone(id)"), misbehaved),
        (
            "a socket",
            format!("{plan}u = socket.socket(socket.AF_UNIX)\nu.bind(target)\ndone(id)"),
            misbehaved,
        ),
        (
            "a second name",
            format!("{plan}open(out + '/b', 'w').write('x')\nos.link(out + '/b', target)\ndone(id)"),
            misbehaved,
        ),
        (
            "many files",
            format!(
                "{plan}open(target, 'w').write('x')\n[open(out + '/%d' % i, 'w') for i in range(2000)]\ndone(id)"
            ),
            misbehaved,
        ),
        ("nothing written", format!("{plan}done(id)"), FailureCause::BadOutput),
        ("an empty file", format!("{plan}open(target, 'w')\ndone(id)"), FailureCause::BadOutput),
        (
            "a place outside",
            "say('planned', id=id, files=[planned('../../in/x')])\ndone(id)".to_owned(),
            misbehaved,
        ),
        (
            "a name outside",
            "say('planned', id=id, files=[planned(path='../x')])\ndone(id)".to_owned(),
            misbehaved,
        ),
        ("an absolute name", "say('planned', id=id, files=[planned(path='/etc/x')])".to_owned(), misbehaved),
        (
            "one name twice",
            "say('planned', id=id, files=[planned(), planned('main/b')])".to_owned(),
            misbehaved,
        ),
        ("no file", "say('planned', id=id, files=[])".to_owned(), misbehaved),
        ("no plan", "done(id)".to_owned(), misbehaved),
        ("another request's answer", format!("{plan}done(id + 7)"), misbehaved),
        ("no message", "s.sendall(b'hello there\\n')".to_owned(), misbehaved),
        ("an endless line", "while True: s.sendall(b'x' * 65536)".to_owned(), misbehaved),
        ("a flood", "while True: say('pong')".to_owned(), misbehaved),
        ("silence", "time.sleep(1000)".to_owned(), misbehaved),
        ("a closed socket", "os.close(0)".to_owned(), misbehaved),
        ("its end", "os._exit(0)".to_owned(), FailureCause::Crashed),
        ("a signal", "os.kill(os.getpid(), 11)".to_owned(), FailureCause::Crashed),
        (
            "an end for memory",
            "print('Error: Out of memory', flush=True)\nos.abort()".to_owned(),
            FailureCause::OutOfMemory,
        ),
        (
            // As Blender 3.4 printed it under a limit of 4 GB.
            "no memory for zeros",
            "print('Calloc returns null: len=402653184 in UvMapVert, total 1068042812', flush=True)\n\
             os.kill(os.getpid(), 11)"
                .to_owned(),
            FailureCause::OutOfMemory,
        ),
    ];
    for (name, code, cause) in cases {
        let failure = lie(code).await.expect_err(name);
        assert_eq!(failure.cause, *cause, "{name}: {failure}");
    }
}
