//! What breaks off: terminals that are closed, servers and workers that are restarted.

use std::{thread::sleep, time::Duration};

use rustix::process::Signal;

use super::{
    call::Call,
    render::Ask,
    tree::Changes,
    world::{SIDES, State, World},
};

/// How a command is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    HangUp,
    Interrupt,
    Kill,
    /// Its terminal goes away with all that it could say.
    Closed,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    After(Duration),
    /// The farm has the job.
    Named,
    /// A frame has come.
    Frame,
}

impl World {
    pub fn close(&mut self) {
        let ask = self.ask();
        let local = self.rng.percent(30);
        let end = *self.rng.pick(&[End::HangUp, End::Interrupt, End::Kill, End::Closed]);
        let moment = match self.rng.below(3) {
            0 => Moment::After(Duration::from_millis(self.rng.below(if local { 1500 } else { 400 }) as u64)),
            1 if !local => Moment::Named,
            _ => Moment::Frame,
        };
        // A job that waits for the user is there for certain when the terminal is closed.
        let hold = !local && moment != Moment::Frame && self.rng.percent(50);
        let mut more = vec![if local { "--local" } else { "--no-local" }];
        more.extend(hold.then_some("--hold"));
        let args = ask.args("render", &more);
        self.tell(format!("  {end:?} at {moment:?}"));
        // Where files are in the way, a terminal is asked.
        let mut call = if end == End::Closed && !ask.stops() {
            self.tell(format!("  in a terminal on {}: kiln {}", ask.side, args.join(" ")));
            Call::in_terminal(&self.command(ask.side, &args))
        } else {
            self.start(ask.side, &args)
        };
        match moment {
            Moment::After(time) => sleep(time),
            Moment::Named => {
                call.tells("job ");
            }
            Moment::Frame => {
                let some = ask.renders().into_iter().next();
                call.comes_to("a frame", |_| some.is_none_or(|_| ask.renders().iter().any(|frame| self.came(&ask, *frame))));
            }
        }
        match end {
            End::HangUp => call.signal(Signal::HUP),
            End::Interrupt => call.signal(Signal::INT),
            End::Kill => call.signal(Signal::KILL),
            End::Closed => {
                call.hang_up();
                call.signal(Signal::HUP);
            }
        }
        let said = call.end();
        self.tell(format!("    exit {}: {}", said.code, said.err.trim().replace('\n', "\n           ")));
        self.closed(&ask, said.code, local, hold);
    }

    /// Whether another file than before is at the place of a frame.
    fn came(&self, ask: &Ask, frame: i32) -> bool {
        let path = ask.path(frame);
        let now = super::tree::stamp(&path);
        now.is_some() && now != self.tree.files.get(&path).and_then(|file| file.stamp)
    }

    /// What may be there after a command that was broken off anywhere.
    fn closed(&mut self, ask: &Ask, code: i32, local: bool, hold: bool) {
        let mut may = vec![130, -1, 0];
        may.extend(ask.stops().then_some(2));
        may.extend(local.then_some(4));
        assert!(may.contains(&code), "exit {code}");
        let mut changes = Changes::new();
        if !ask.stops() {
            self.tree.out(&ask.out);
            self.tree.broken_off(&ask.out);
            for frame in ask.renders() {
                let path = ask.path(frame);
                let before = self.tree.files.get(&path).cloned();
                let mut may = vec![Some(ask.by.file(frame))];
                // One that had ended by itself had brought all.
                if code != 0 {
                    may.push(before);
                }
                changes.insert(path, may);
            }
            let new = if local { Vec::new() } else { self.new_jobs() };
            assert!(new.len() <= usize::from(!ask.renders().is_empty()), "{new:#?}");
            for (id, _) in new {
                self.made(id, ask, if hold { State::Held } else { State::Runs });
            }
        }
        self.check(&changes);
    }

    pub fn restart(&mut self) {
        let signal = *self.rng.pick(&[Signal::INT, Signal::TERM, Signal::KILL]);
        let worker = self.rng.percent(25);
        self.tell(format!("  the server gets {signal:?}{}", if worker { ", the worker too" } else { "" }));
        let mut server = self.server.take().unwrap();
        if worker {
            // Its jobs go to the one that comes after it.
            self.worker = None;
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&server.child), signal).unwrap();
        kiln_testkit::wait_until(Duration::from_secs(30), "the server ends", || {
            server.child.try_wait().unwrap().is_some()
        });
        self.check(&Changes::new());
        self.start_server();
        if worker {
            self.start_worker();
        }
        for side in SIDES {
            let said = self.run(side, &["jobs", "--json", "--limit", "500"]);
            assert_eq!(said.code, 0, "{}", said.err);
        }
        self.check(&Changes::new());
    }
}
