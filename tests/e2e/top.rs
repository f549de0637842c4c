//! `kiln top` in a real terminal, on a farm that renders.

use std::process::Command;

use kiln_testkit::{free_port, scene};

use crate::{
    crash::start,
    support::{Home, Running},
    terminal::Terminal,
};

/// A frame of the basic scene that takes some seconds.
const LONG: &[&str] = &["--samples", "400", "--resolution", "200%"];

impl Home {
    fn top(&self, columns: u16, rows: u16) -> Terminal {
        let mut command = self.kiln(&["top"]);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").env("CLICOLOR", "1");
        Terminal::run(&command, columns, rows)
    }
}

fn signal(terminal: &Terminal, name: &str) {
    assert!(Command::new("kill").args([name, &terminal.child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_farm_is_watched_and_steered_in_a_terminal() {
    let home = Home::new();
    for name in ["dawn.blend", "dusk.blend"] {
        home.copy(&scene("basic"), name);
    }
    let port = free_port();
    let server = start(&home, port);
    let worker = home.worker(&server.url, "attic");
    home.connected(1);

    let mut top = home.top(80, 24);
    top.shows("kiln  http://127.0.0.1");
    top.shows("attic");
    top.shows("no jobs");
    assert!(top.coloured());

    // A job that comes is seen, its frames too as they end.
    let job = home.submit(&["dawn.blend", "--frames", "1-6"]);
    top.shows("dawn");
    top.shows("6/6");
    top.shows("completed");
    top.shows("frames/min");

    // What renders now, and how far it is.
    let long = home.submit(&[&["dusk.blend", "--frames", "1-90"], LONG].concat());
    top.shows_what("a frame of dusk with its percent", |text| {
        text.lines().any(|line| line.contains("attic") && line.contains("dusk ") && line.contains('%'))
    });
    assert!(top.text().contains("1 rendering"), "{}", top.text());

    // Keys act, with a question before what cannot be undone.
    top.press("\x1b[B\x1b[A");
    top.press("e");
    top.shows(&format!("Job {long} (dusk) is running"));
    top.press("x");
    top.press("++");
    top.shows("has priority 70");
    assert_eq!(home.show(&long)["spec"]["scheduling"]["priority"], 70);
    top.press("p");
    top.shows("is paused");
    top.press("c");
    top.shows("Cancel job");
    top.press("n");
    top.shows_what("no question", |text| !text.contains("Cancel job"));
    assert_eq!(home.show(&long)["state"], "paused");
    top.shows_what("dusk is paused", |text| {
        text.lines().any(|line| line.contains("dusk ") && line.contains(" paused "))
    });
    top.press("p");
    top.shows("continues");
    // What was asked for before it ended is done all the same.
    let mut brief = home.top(80, 24);
    brief.shows("dusk");
    brief.press("cyq");
    assert_eq!(brief.ended(), 0);
    assert_eq!(home.show(&long)["state"], "cancelled");
    top.shows("cancelled");
    top.press("\td");
    top.shows("attic finishes what it renders, then leaves");
    top.shows("offline");

    // The server goes, and comes back.
    drop(server);
    top.shows("away for");
    top.shows("trying again until it is back: the server http");
    let server = start(&home, port);
    top.shows("● live");

    top.press("q");
    assert_eq!(top.ended(), 0);
    top.restored();
    drop(worker);

    let snapshot = home.run(&["top", "--once"]);
    assert_eq!(snapshot.code, 0);
    for words in ["dawn", "6/6", "dusk", "cancelled", "attic", "offline"] {
        assert!(snapshot.out.contains(words), "{words}: {}", snapshot.out);
    }
    assert!(!snapshot.out.contains('\x1b'), "plain text: {:?}", snapshot.out);
    assert_eq!(home.run(&["top"]).out.lines().count(), snapshot.out.lines().count(), "in a pipe too");
    let value = home.json(&["top", "--json"]);
    assert_eq!(value["jobs"][0]["id"].to_string(), long, "what ended last comes first");
    assert_eq!(value["jobs"][1]["id"].to_string(), job);
    assert_eq!(value["workers"][0]["state"], "offline");
    assert_eq!(server.interrupt(), 0);
    home.run(&["top"]).refused(3, &["no farm is known here"]);
}

#[test]
fn however_it_ends_the_terminal_is_as_it_was() {
    let home = Home::new();
    let _server: Running = home.server(&[]);
    for end in ["\x03", "\x1b"] {
        let mut top = home.top(80, 24);
        top.shows("no workers");
        top.press(end);
        assert_eq!(top.ended(), 0, "{end:?}");
        top.restored();
    }
    for name in ["-TERM", "-INT", "-HUP"] {
        let mut top = home.top(30, 8);
        top.shows("kiln");
        signal(&top, name);
        assert_eq!(top.ended(), 130, "{name}");
        top.restored();
    }
    let mut command = home.kiln(&["top"]);
    command.env("TERM", "xterm").env("NO_COLOR", "1");
    let mut plain = Terminal::run(&command, 100, 30);
    plain.shows("no workers");
    plain.press("?");
    plain.shows("quit");
    plain.press("qq");
    assert_eq!(plain.ended(), 0);
    plain.restored();
    assert!(!plain.coloured(), "NO_COLOR is honoured: {:?}", plain.sent());
    // A terminal that can do nothing gets text.
    let mut command = home.kiln(&["top"]);
    command.env("TERM", "dumb");
    let mut dumb = Terminal::run(&command, 80, 24);
    assert_eq!(dumb.ended(), 0);
    dumb.shows("no workers");
    assert!(!dumb.sent().contains('\x1b'));
}
