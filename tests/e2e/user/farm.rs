//! The user on the farm: fetches, cancels, deletes jobs, restarts the server, goes away.

use std::path::Path;

use super::{
    model::Mode,
    tree::Changes,
    world::{Job, Side, State, World},
};

/// A number that no job has.
const NOBODY: u64 = 1_000_000;

impl World {
    fn ids(&self, is: impl Fn(&Job) -> bool) -> Vec<u64> {
        self.jobs.iter().filter(|(_, job)| is(job)).map(|(id, _)| *id).collect()
    }

    /// A job, rather one like this.
    fn any_job(&mut self, rather: impl Fn(&Job) -> bool) -> Option<u64> {
        let (some, all) = (self.ids(rather), self.ids(|_| true));
        if !some.is_empty() && self.rng.percent(80) { self.rng.some(&some) } else { self.rng.some(&all) }
    }

    /// A command about a job that the farm never had.
    fn about_nobody(&mut self, verb: &str) {
        let said = self.run(1, &["jobs", verb, &NOBODY.to_string()]);
        assert_eq!(said.code, 2, "{}", said.err);
        self.check(&Changes::new());
    }

    pub fn cancel(&mut self) {
        let Some(id) = self.any_job(|job| !job.state.is_end()) else { return self.about_nobody("cancel") };
        let side = self.rng.below(2);
        let said = self.run(side, &["jobs", "cancel", &id.to_string(), "--json"]);
        let job = self.jobs.get_mut(&id).unwrap();
        let before = job.state;
        if before == State::Held {
            job.state = State::Runs;
        }
        self.settle(id);
        let after = self.jobs[&id].state;
        let may: &[(i32, State)] = match before {
            State::Held => &[(0, State::Cancelled)],
            // It may have ended before it was heard.
            State::Runs => &[(0, State::Cancelled), (1, State::Completed)],
            ended => &[(1, ended)],
        };
        assert!(may.contains(&(said.code, after)), "{before:?}, exit {}, {after:?}: {}", said.code, said.err);
        self.check(&Changes::new());
    }

    pub fn delete_job(&mut self) {
        let Some(id) = self.any_job(|job| job.state.is_end()) else { return self.about_nobody("delete") };
        let (side, force) = (self.rng.below(2), self.rng.percent(60));
        let text = id.to_string();
        let mut args = vec!["jobs", "delete", &text, "--json"];
        args.extend(force.then_some("--force"));
        let said = self.run(side, &args);
        let gone = self.get(&format!("jobs/{id}")).is_none();
        let may: &[(i32, bool)] = match self.jobs[&id].state {
            _ if force => &[(0, true)],
            State::Held => &[(1, false)],
            State::Runs => &[(1, false), (0, true)],
            _ => &[(0, true)],
        };
        assert!(may.contains(&(said.code, gone)), "exit {}, gone {gone}: {}", said.code, said.err);
        if gone {
            self.jobs.remove(&id);
        }
        self.check(&Changes::new());
    }

    /// The user brings frames of a job to the machine that made it.
    pub fn fetch(&mut self) {
        let Some(id) = self.any_job(|job| job.noted) else { return self.about_nobody("fetch") };
        let job = self.jobs[&id].clone();
        let waits = self.rng.percent(40) && job.state != State::Held;
        let mut args = vec!["jobs", if waits { "wait" } else { "fetch" }];
        let text = id.to_string();
        args.extend([text.as_str(), "--json"]);
        let out = job.out.to_str().unwrap().to_owned();
        if !job.noted {
            args.extend(["--out", &out]);
        }
        let mode = if job.noted { job.mode } else { Mode::Continue };
        self.brings(id, job.side, &job.out, mode, &args);
    }

    /// The user brings frames of a job to a machine that does not know it.
    pub fn elsewhere(&mut self) {
        let Some(id) = self.any_job(|job| job.state.is_end()) else { return self.about_nobody("fetch") };
        let side = 1 - self.jobs[&id].side;
        let mut outs = self.commons(side).to_vec();
        outs.extend(self.projects.iter().filter(|one| one.side == side).map(|one| one.path.clone()));
        let out = self.rng.pick(&outs).clone();
        let mode = if self.rng.percent(75) { Mode::Continue } else { self.any_mode() };
        let (text, shown) = (id.to_string(), out.to_str().unwrap().to_owned());
        let mut args = vec!["jobs", "fetch", &text, "--json", "--out", &shown];
        args.extend(mode.args());
        self.brings(id, side, &out, mode, &args);
    }

    fn brings(&mut self, id: u64, side: Side, out: &Path, mode: Mode, args: &[&str]) {
        let waits = args.contains(&"wait");
        if self.rng.percent(60) {
            self.settle(id);
        }
        let ran = self.jobs[&id].state == State::Runs;
        let (mut files, mut hashes) = (self.tree.files.clone(), self.hashes(out));
        let seen = self.tree.notes_seen(out);
        let said = self.run(side, args);
        let answer = said.json();
        self.settle(id);
        let job = self.jobs[&id].clone();
        let mut by = job.by.clone();
        // The folder of the .blend is known on its own machine only.
        if !(job.noted && side == job.side) {
            by.save.from_out = None;
        }
        let landing = self.land(&mut files, &mut hashes, &by, mode, out, &job.done);
        let left = landing.left;
        let mut changes = self.tree.changes(&files);
        // Frames that come while they are fetched may be fetched or not.
        let race = ran && !waits;
        if race {
            for (path, may) in &mut changes {
                may.push(self.tree.files.get(path).cloned());
            }
        }
        if !job.done.is_empty() {
            self.tree.out(out);
        }
        let written = self.check(&changes).len();
        let noted = self.is_noted(job.side, id);
        self.jobs.get_mut(&id).unwrap().noted = noted;
        if race {
            // Which of them it met is not known.
            let seen = self.tree.notes_seen(out) - seen;
            landing.seen.iter().take(seen).for_each(|by| self.tree.seen(out, by));
            return;
        }
        landing.seen.iter().for_each(|by| self.tree.seen(out, by));
        if left > 0 {
            self.tally.count("fetches that left what is in the way");
        }
        let exit = match job.state {
            State::Cancelled if waits => 4,
            _ => i32::from(left > 0),
        };
        assert_eq!(said.code, exit, "{answer:#}\n{changes:#?}\n{}", said.err);
        assert_eq!(answer["left"].as_array().map(Vec::len), Some(left), "{answer:#}");
        let came = job.done.len() - left;
        if waits {
            assert_eq!(answer["landed"], came, "{answer:#}");
        } else {
            assert_eq!([&answer["fetched"], &answer["there"]], [written, came - written], "{answer:#}");
        }
        // Nothing is left to fetch: it is forgotten where that was the folder that was meant.
        assert!(noted == job.noted || job.noted && left == 0, "job {id} is noted: {noted}");
    }
}
