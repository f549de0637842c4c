//! What breaks off: terminals that are closed, servers and workers that are restarted.

use std::{collections::BTreeSet, thread::sleep, time::Duration};

use kiln_testkit::wait_until;
use kiln_types::FrameSet;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    call::Call,
    earlier::Plan,
    render::Ask,
    tree::{Changes, stamp},
    world::{Job, SIDES, State, World},
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
        let mut ask = self.ask();
        let local = self.rng.percent(30);
        let plan = if local { Plan::of_nothing(&self.tree.files) } else { self.plan(&mut ask) };
        let end = *self.rng.pick(&[End::HangUp, End::Interrupt, End::Kill, End::Closed]);
        // A job that is held brings no frame.
        let held = plan.joined.is_some();
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
        let terminal = end == End::Closed && !(moment == Moment::Frame && (ask.stops() || self.others_run(&ask)));
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
                call.hang_up();
                call.signal(Signal::HUP);
            }
        }
        let said = self.ends(call);
        self.closed(&ask, &plan, said.code, (!local).then_some(hold), notes);
    }

    /// Whether jobs of other frames still render into the folder, so that a person at a terminal is asked.
    fn others_run(&self, ask: &Ask) -> bool {
        let here = |job: &&Job| job.noted && job.side == ask.side && job.out == ask.out && !job.state.is_end();
        self.jobs.values().filter(here).any(|job| !job.by.same_frames(&ask.by))
    }

    /// Whether another file than before is at the place of a frame.
    fn came(&self, ask: &Ask, frame: i32) -> bool {
        let path = ask.path(frame);
        let now = stamp(&path);
        now.is_some() && now != self.tree.files.get(&path).and_then(|file| file.stamp)
    }

    /// What may be there after a command that was broken off anywhere. `farm` tells whether its job was to be held, where
    /// it was to be the farm's.
    fn closed(&mut self, ask: &Ask, plan: &Plan, code: i32, farm: Option<bool>, seen: usize) {
        let mut may = vec![130, -1, 0];
        may.extend(ask.stops().then_some(2));
        may.extend(farm.is_none().then_some(4));
        assert!(may.contains(&code), "exit {code}");
        self.tree.out(&ask.out);
        self.tree.broken_off(&ask.out);
        let mut changes = self.tree.changes(&plan.files);
        let renders = if ask.stops() { BTreeSet::new() } else { ask.renders() };
        for frame in &renders {
            let path = ask.path(*frame);
            let fetched = plan.files.get(&path).cloned();
            changes.insert(path, vec![Some(ask.by.file(*frame)), fetched]);
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
            for (id, view) in new {
                self.made(id, ask, if hold { State::Held } else { State::Runs });
                let frames: FrameSet = view["spec"]["frames"].as_str().unwrap().parse().unwrap();
                self.jobs.get_mut(&id).unwrap().frames = frames.iter().collect();
            }
            for id in plan.spent.iter().chain(&plan.joined) {
                let mode = self.noted_mode(ask.side, *id);
                let job = self.jobs.get_mut(id).unwrap();
                (job.noted, job.mode) = (mode.is_some(), mode.unwrap_or(job.mode));
            }
        }
        if self.tree.notes_seen(&ask.out) > seen {
            self.tree.seen(&ask.out, &ask.by);
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
        kill_process(Pid::from_child(&server.child), signal).unwrap();
        wait_until(Duration::from_secs(30), "the server ends", || {
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
