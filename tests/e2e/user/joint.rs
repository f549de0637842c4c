//! Renders on the farm that continue jobs that were made earlier.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    call::Call,
    earlier::{Hashes, Plan},
    model::{Fate, Mode},
    render::Ask,
    tree::Changes,
    world::{Job, State, World},
};
use crate::support::Said;

const QUESTION: &str = "[y/N]";

impl World {
    pub fn render_on_farm(&mut self) {
        if self.rng.percent(20) {
            self.render_in_terminal();
        } else {
            self.render_in_pipe(|_, _| {});
        }
    }

    /// Renders on the farm, while something else happens.
    pub fn render_in_pipe(&mut self, meanwhile: impl FnOnce(&mut Self, &mut Call)) {
        let mut ask = self.ask();
        let plan = self.plan(&mut ask, true);
        let hashes = self.hashes(&ask.out);
        let args =
            ask.args("render", if self.rng.percent(75) { &["--json", "--no-local"] } else { &["--json"] });
        let mut call = self.start(ask.side, &args);
        if let Some(id) = self.joined(&plan, &ask) {
            self.release(id, &ask, &mut call);
        }
        meanwhile(self, &mut call);
        let said = self.ends(call);
        let answer = (said.code == 0).then(|| said.json());
        self.rendered(&ask, &plan, &said, answer, hashes);
    }

    /// Somebody lets a job go in another window, which a command has joined.
    fn release(&mut self, id: u64, ask: &Ask, call: &mut Call) {
        assert!(
            call.tells(&format!("job {id}, made ")) && call.tells(&format!("job {id} at ")),
            "it joins job {id}"
        );
        let said = self.run(1 - ask.side, &["jobs", "resume", &id.to_string()]);
        assert_eq!(said.code, 0, "{}", said.err);
        self.jobs.get_mut(&id).unwrap().state = State::Runs;
    }

    /// Jobs of other frames that still render into the folder.
    pub fn others(&self, ask: &Ask) -> Vec<u64> {
        let here = |job: &Job| job.noted && job.side == ask.side && job.out == ask.out && !job.state.is_end();
        let other = |job: &Job| here(job) && !job.by.same_frames(&ask.by);
        self.jobs.iter().filter(|(_, job)| other(job)).map(|(id, _)| *id).collect()
    }

    /// A person at a terminal is asked, and answers.
    fn render_in_terminal(&mut self) {
        let mut ask = self.ask_plainly();
        self.others(&ask).into_iter().for_each(|id| self.settle(id));
        let plan = self.plan(&mut ask, false);
        let asks = !matches!(ask.mode, Mode::Overwrite | Mode::Error);
        let others = if asks { self.others(&ask) } else { Vec::new() };
        let hashes = self.hashes(&ask.out);
        let args = ask.args("render", &["--no-local"]);
        self.tell(format!("  in a terminal on {}: kiln {}", ask.side, args.join(" ")));
        let mut call = Call::in_terminal(&self.command(ask.side, &args));
        for (asked, id) in others.iter().enumerate() {
            let yes = self.answer(&mut call, asked, "Cancel it?");
            if yes {
                self.tally.count("jobs of other frames cancelled by an answer");
                call.comes_to("it is cancelled", |call| {
                    call.told().contains(&format!("job {id} is cancelled"))
                });
                self.jobs.get_mut(id).unwrap().state = State::Runs;
                self.settle(*id);
                assert_eq!(self.jobs[id].state, State::Cancelled);
            }
        }
        if ask.stops() && ask.mode == Mode::Continue {
            let mut instead = Ask { mode: Mode::Replace, ..ask.clone() };
            self.set_fates(&mut instead, &plan.files);
            if !instead.stops() && self.answer(&mut call, others.len(), "Replace them?") {
                self.tally.count("frames of other settings replaced by an answer");
                ask = instead;
            }
        }
        if let Some(id) = self.joined(&plan, &ask) {
            self.release(id, &ask, &mut call);
        }
        let said = self.ends(call);
        self.rendered(&ask, &plan, &said, None, hashes);
    }

    /// Waits for the next question after `before` others, and answers it.
    fn answer(&mut self, call: &mut Call, before: usize, what: &str) -> bool {
        let is_asked =
            |call: &mut Call| call.told().matches(QUESTION).count() > before && call.told().contains(what);
        assert!(call.comes_to(what, is_asked), "no question: {}", call.told());
        let yes = self.rng.percent(50);
        self.tell(format!("    {what} {yes}"));
        call.types(if yes { "y\n" } else { "n\n" });
        yes
    }

    /// Checks the result of a command that was waited for. `hashes` are those of the files before.
    fn rendered(&mut self, ask: &Ask, plan: &Plan, said: &Said, answer: Option<Value>, mut hashes: Hashes) {
        let mut files = plan.files.clone();
        if self.refused(ask, said, &self.tree.changes(&files)) {
            return self.forget(ask, plan);
        }
        if let Some(id) = plan.race {
            return self.raced(ask, id, true);
        }
        self.tree.out(&ask.out);
        self.forget(ask, plan);
        let joined = self.joined(plan, ask);
        self.found(ask, joined.is_some());
        let new = self.new_jobs();
        let id = joined.or(new.first().map(|(id, _)| *id));
        let expected = joined.is_none() && !ask.renders().is_empty();
        assert_eq!(new.len(), usize::from(expected), "joined {joined:?}: {new:#?}");
        let mut landed = 0;
        if ask.renders().is_empty() {
            self.tally.count("renders with nothing left to do");
        } else if let Some(id) = joined {
            self.tally.count("renders that joined a job");
            self.settle(id);
            let job = self.jobs[&id].clone();
            assert!(ask.renders().is_subset(&job.frames), "job {id} makes all that is asked for: {job:?}");
            let landing = self.land(&mut files, &mut hashes, &job.by, ask.mode, &ask.out, &job.done);
            landing.seen.iter().for_each(|by| self.tree.seen(&ask.out, by));
            landed = job.done.len() - landing.left;
            // What the command did not ask for may be left: then it is still known where it belongs.
            self.note(id, ask.side, ask.mode);
            assert_eq!(self.jobs[&id].noted, landing.left > 0, "job {id} is noted");
            if landing.left > 0 {
                self.tally.count("renders that left what they had not asked for");
            }
        } else if let Some(id) = id {
            self.made(id, ask, State::Runs);
            self.settle(id);
            let done = self.jobs[&id].done.clone();
            let landing = self.land(&mut files, &mut hashes, &ask.by, ask.mode, &ask.out, &done);
            assert_eq!(landing.left, 0, "nothing is in the way: the plan would have stopped");
            landing.seen.iter().for_each(|by| self.tree.seen(&ask.out, by));
            landed = done.len();
        }
        if let Some(answer) = answer {
            assert_eq!(answer["job"]["id"].as_u64(), id.filter(|_| landed > 0), "{answer:#}");
            self.counted(
                ask,
                &answer,
                &[
                    ("kept", ask.with(Fate::Kept).len()),
                    ("skipped", ask.with(Fate::Skipped).len()),
                    ("landed", landed),
                    ("older", plan.older),
                ],
            );
            if joined.is_none() {
                self.counted(ask, &answer, &[("replaced", ask.with(Fate::Replaced).len())]);
            }
        }
        self.check(&self.tree.changes(&files));
    }

    /// Checks the result of a command that met a job which ended at the same time; `all`: it was waited for.
    fn raced(&mut self, ask: &Ask, id: u64, all: bool) {
        self.tally.count("commands that met a job which was about to end");
        self.tally.count(if all { "  renders" } else { "  submits" });
        self.tree.out(&ask.out);
        self.tree.seen(&ask.out, &ask.by);
        for (new, view) in self.new_jobs() {
            self.made_so(new, &view, ask, State::Runs);
            if all {
                self.settle(new);
            }
        }
        if all {
            self.settle(id);
        }
        let mode = self.noted_mode(ask.side, id);
        let job = self.jobs.get_mut(&id).unwrap();
        (job.noted, job.mode) = (mode.is_some(), mode.unwrap_or(job.mode));
        let job = job.clone();
        let frames: BTreeSet<i32> = job.frames.union(&ask.renders()).copied().collect();
        let mut changes = Changes::new();
        for frame in frames {
            let there = self.tree.files.get(&ask.path(frame)).cloned();
            let by = if ask.frames.contains(&frame) { &ask.by } else { &job.by };
            let kept = self.tree.fate(&self.tree.files, by, Mode::Continue, &ask.out, frame) == Fate::Kept;
            let mut may = vec![Some(by.file(frame))];
            if kept || !all {
                may.push(there);
            }
            changes.insert(ask.path(frame), may);
        }
        self.check(&changes);
    }

    pub fn submit(&mut self) {
        let mut ask = self.ask();
        let plan = self.plan(&mut ask, true);
        let hold = self.rng.percent(45);
        let said =
            self.run(ask.side, &ask.args("submit", if hold { &["--json", "--hold"] } else { &["--json"] }));
        let changes = self.tree.changes(&plan.files);
        if self.refused(&ask, &said, &changes) {
            return self.forget(&ask, &plan);
        }
        if let Some(id) = plan.race {
            return self.raced(&ask, id, false);
        }
        self.forget(&ask, &plan);
        let joined = self.joined(&plan, &ask);
        self.found(&ask, joined.is_some());
        self.tree.out(&ask.out);
        let answer = said.json();
        self.counted(
            &ask,
            &answer,
            &[
                ("kept", ask.with(Fate::Kept).len()),
                ("replaced", ask.with(Fate::Replaced).len()),
                ("older", plan.older),
            ],
        );
        let id = answer["job"]["id"].as_u64();
        let theirs = joined.map(|id| self.jobs[&id].frames.clone()).unwrap_or_default();
        let others: BTreeSet<i32> = ask.renders().difference(&theirs).copied().collect();
        if ask.renders().is_empty() {
            assert_eq!(id, None, "{answer:#}");
        } else if let Some(joined) = joined.filter(|_| others.is_empty()) {
            self.tally.count("submits of what a job makes already");
            assert_eq!((id, &answer["new"]), (Some(joined), &Value::Bool(false)), "{answer:#}");
            self.note(joined, ask.side, ask.mode);
        } else {
            // What a job makes already is not made twice.
            let id = id.unwrap();
            self.made(id, &ask, if hold { State::Held } else { State::Runs });
            self.jobs.get_mut(&id).unwrap().frames = others;
        }
        self.check(&changes);
    }
}
