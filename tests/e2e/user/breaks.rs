//! Interruptions: terminals that are closed, servers and workers that are restarted.

use std::{
    collections::BTreeSet,
    thread::sleep,
    time::{Duration, SystemTime},
};

use kiln_testkit::wait_until;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    call::Call,
    earlier::Plan,
    render::Ask,
    tree::{Changes, stamp},
    world::{Late, SIDES, State, World},
};

/// The time until a process handles signals, on a busy machine.
const SETTLING: Duration = Duration::from_millis(50);
const AGAIN: Duration = Duration::from_secs(10);

/// The way in which a command is ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    HangUp,
    Interrupt,
    Kill,
    /// The terminal is closed, and the output is lost.
    Closed,
}

/// The moment of an interruption.
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
        let mut ask = self.ask();
        let local = self.rng.percent(30);
        let plan = if local { Plan::of_nothing(&self.tree.files) } else { self.plan(&mut ask, false) };
        let end = *self.rng.pick(&[End::HangUp, End::Interrupt, End::Kill, End::Closed]);
        // A job that is held brings no frame.
        let held = self.joined(&plan, &ask).is_some();
        let moment = match self.rng.below(3) {
            0 => Moment::After(Duration::from_millis(self.rng.below(if local { 1500 } else { 400 }) as u64)),
            1 if !local => Moment::Named,
            _ if held => Moment::Named,
            _ => Moment::Frame,
        };
        // A job that waits for the user is there for certain when the terminal is closed.
        let hold = !local && moment != Moment::Frame && self.rng.percent(50);
        let mut more = vec![if local { "--local" } else { "--no-local" }];
        more.extend(hold.then_some("--hold"));
        let args = ask.args("render", &more);
        self.tell(format!("  {end:?} at {moment:?}"));
        let notes = self.tree.notes_seen(&ask.out);
        // A person may be asked there, and says nothing.
        let terminal = end == End::Closed
            && !(moment == Moment::Frame && (ask.stops() || !self.others(&ask).is_empty()));
        let mut call = if terminal {
            self.tell(format!("  in a terminal on {}: kiln {}", ask.side, args.join(" ")));
            Call::in_terminal(&self.command(ask.side, &args))
        } else {
            self.start(ask.side, &args)
        };
        match moment {
            Moment::After(time) => sleep(time),
            Moment::Named => {
                call.comes_to("it names something", |call| {
                    let told = call.told();
                    told.contains("job ") || told.contains("[y/N]")
                });
            }
            Moment::Frame => {
                let renders = ask.renders();
                call.comes_to("a frame", |_| {
                    renders.is_empty() || renders.iter().any(|frame| self.came(&ask, *frame))
                });
            }
        }
        match end {
            End::HangUp => call.signal(Signal::HUP),
            End::Interrupt => call.signal(Signal::INT),
            End::Kill => call.signal(Signal::KILL),
            End::Closed => {
                // Before its first word it may not even have got the terminal.
                call.comes_to("a first word", |call| !call.told().is_empty());
                call.hang_up();
                call.signal(Signal::HUP);
            }
        }
        // In the first moment of a process, while its handlers are put up, a signal may be lost. Somebody presses again.
        if matches!(moment, Moment::After(time) if time < SETTLING) && !call.ends_within(AGAIN) {
            self.tally.count("signals lost at a start");
            call.signal(Signal::INT);
        }
        let said = self.ends(call);
        self.tally.count(if local {
            "renders without the farm broken off"
        } else {
            "renders on the farm broken off"
        });
        self.closed(&ask, &plan, said.code, (!local).then_some(hold), notes);
    }

    /// Another file than before is at the place of a frame.
    fn came(&self, ask: &Ask, frame: i32) -> bool {
        let path = ask.path(frame);
        let now = stamp(&path);
        now.is_some() && now != self.tree.files.get(&path).and_then(|file| file.stamp)
    }

    /// Checks the files after a command that was interrupted anywhere. `farm` tells if its job was to be paused, for a job of
    /// the farm.
    fn closed(&mut self, ask: &Ask, plan: &Plan, code: i32, farm: Option<bool>, seen: usize) {
        let mut may = vec![130, -1, 0];
        may.extend(ask.stops().then_some(2));
        may.extend(farm.is_none().then_some(4));
        assert!(may.contains(&code), "exit {code}");
        self.tree.out(&ask.out);
        self.tree.broken_off(&ask.out);
        let mut changes = self.tree.changes(&plan.files);
        let renders = if ask.stops() { BTreeSet::new() } else { ask.renders() };
        if !ask.stops() {
            for (path, mut may) in self.written(ask) {
                may.push(plan.files.get(&path).cloned());
                changes.insert(path, may);
            }
        }
        // One that had ended by itself had done it all.
        if !matches!(code, 0 | 2) {
            for (path, may) in &mut changes {
                may.push(self.tree.files.get(path).cloned());
            }
        }
        if let Some(hold) = farm {
            let new = self.new_jobs();
            assert!(new.len() <= usize::from(!renders.is_empty()), "{new:#?}");
            let state = if hold { State::Held } else { State::Runs };
            if new.is_empty() && !renders.is_empty() && !matches!(code, 0 | 2) {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
                let until_ms = i64::try_from(now.as_millis()).unwrap();
                self.late = Some(Late { ask: ask.clone(), state, until_ms });
            }
            for (id, view) in new {
                self.made_so(id, &view, ask, state);
            }
            for id in plan.spent.iter().chain(&self.joined(plan, ask)) {
                let mode = self.noted_mode(ask.side, *id);
                let job = self.jobs.get_mut(id).unwrap();
                (job.noted, job.mode) = (mode.is_some(), mode.unwrap_or(job.mode));
            }
        }
        let seen = self.tree.notes_seen(&ask.out) - seen;
        plan.seen.iter().chain([&ask.by]).take(seen).for_each(|by| self.tree.seen(&ask.out, by));
        self.check(&changes);
    }

    pub fn restart(&mut self) {
        if self.rng.percent(40) {
            // Somebody renders meanwhile, and goes on when the server is back.
            return self.render_in_pipe(|world, call| {
                if call.tells(" at http://") {
                    world.tally.count("servers restarted under a command");
                    world.restart_server();
                }
            });
        }
        self.restart_server();
        self.check(&Changes::new());
    }

    fn restart_server(&mut self) {
        let signal = *self.rng.pick(&[Signal::INT, Signal::TERM, Signal::KILL]);
        let worker = self.rng.percent(25);
        self.tell(format!("  the server gets {signal:?}{}", if worker { ", the worker too" } else { "" }));
        let mut server = self.server.take().unwrap();
        if worker {
            // What it has in work goes to the one that comes after it.
            self.worker = None;
        }
        kill_process(Pid::from_child(&server.child), signal).unwrap();
        wait_until(Duration::from_secs(30), "the server ends", || server.child.try_wait().unwrap().is_some());
        self.start_server();
        if worker {
            self.start_worker();
        }
        for side in SIDES {
            let said = self.run(side, &["jobs", "--json", "--limit", "500"]);
            assert_eq!(said.code, 0, "{}", said.err);
        }
    }
}
