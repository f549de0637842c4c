//! What the user renders: on the farm and without it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;

use crate::support::Said;

use super::{
    model::{Fate, Maker, Mode},
    scene::{FRAMES, INPUTS, RANGE, frame_name},
    tree::{Changes, Files},
    world::{Job, Side, State, World, flags},
};

/// A command that renders, and what must come of it.
#[derive(Debug, Clone)]
pub struct Ask {
    pub side: Side,
    pub args: Vec<String>,
    pub out: PathBuf,
    pub frames: BTreeSet<i32>,
    pub mode: Mode,
    pub by: Maker,
    pub fates: BTreeMap<i32, Fate>,
}

impl Ask {
    pub fn args<'a>(&'a self, verb: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let mut args = vec![verb];
        args.extend(self.args.iter().map(String::as_str));
        args.extend(more);
        args
    }

    /// Whether files are in the way.
    pub fn stops(&self) -> bool {
        self.fates.values().any(|fate| *fate == Fate::Stops)
    }

    /// The frames with this fate.
    pub fn with(&self, wanted: Fate) -> BTreeSet<i32> {
        self.fates.iter().filter(|(_, fate)| **fate == wanted).map(|(frame, _)| *frame).collect()
    }

    /// The frames that are rendered.
    pub fn renders(&self) -> BTreeSet<i32> {
        self.with(Fate::Rendered).into_iter().chain(self.with(Fate::Replaced)).collect()
    }

    pub fn path(&self, frame: i32) -> PathBuf {
        self.out.join(frame_name(frame))
    }
}

impl World {
    /// The command of a user who renders one of the projects.
    pub fn ask(&mut self) -> Ask {
        let at = self.any_project();
        let project = self.projects[at].clone();
        let mut args = vec![project.path.join(INPUTS[0]).to_str().unwrap().to_owned()];
        let out = if self.rng.percent(15) {
            let commons = self.commons(project.side);
            self.rng.pick(&commons).clone()
        } else {
            project.path.clone()
        };
        if out != project.path {
            args.extend(["--out".to_owned(), out.to_str().unwrap().to_owned()]);
        }
        let (range, frames): (&str, &[i32]) = *self.rng.pick(&[
            ("", RANGE),
            ("", RANGE),
            ("", RANGE),
            ("1-2", &[1, 2]),
            ("2", &[2]),
            ("3-4", &[3, 4]),
        ]);
        if !range.is_empty() {
            args.extend(["--frames".to_owned(), range.to_owned()]);
        }
        assert!(frames.iter().all(|frame| FRAMES.contains(frame)));
        args.extend(flags(project.choice).iter().map(ToString::to_string));
        let mut ask = Ask {
            side: project.side,
            by: self.maker(&project, &out),
            args,
            out,
            frames: frames.iter().copied().collect(),
            mode: Mode::Continue,
            fates: BTreeMap::new(),
        };
        self.set_fates(&mut ask, &self.tree.files);
        // Who is refused says what is wanted, or tries it once more.
        if (ask.stops() && self.rng.percent(60)) || self.rng.percent(12) {
            ask.mode = self.any_mode();
            ask.args.extend(ask.mode.args().iter().map(ToString::to_string));
            self.set_fates(&mut ask, &self.tree.files);
        }
        ask
    }

    pub fn set_fates(&self, ask: &mut Ask, files: &Files) {
        let fate = |frame: i32| self.tree.fate(files, &ask.by, ask.mode, &ask.out, frame);
        ask.fates = ask.frames.iter().map(|frame| (*frame, fate(*frame))).collect();
    }

    /// Frames of an older save of the same .blend that these frames leave where they are.
    pub fn older(&self, ask: &Ask, files: &Files) -> usize {
        let others = FRAMES.filter(|frame| !ask.frames.contains(frame));
        let fate = |frame| self.tree.fate(files, &ask.by, Mode::Continue, &ask.out, frame);
        if ask.mode == Mode::Overwrite { 0 } else { others.filter(|frame| fate(*frame) == Fate::Replaced).count() }
    }

    /// Whether a command refused because files are in the way, as it must then.
    #[track_caller]
    fn refused(&mut self, ask: &Ask, said: &Said, changes: &Changes) -> bool {
        if !ask.stops() {
            assert_eq!(said.code, 0, "{ask:#?}\n{}", said.err);
            return false;
        }
        assert_eq!(said.code, 2, "{ask:#?}\n{}", said.err);
        assert!(said.err.contains("already there"), "{}", said.err);
        self.check(changes);
        true
    }

    /// Compares what a command said with what it had to find.
    #[track_caller]
    fn counted(&mut self, ask: &Ask, answer: &Value, names: &[(&str, usize)]) {
        for (name, count) in names {
            assert_eq!(answer[name], *count, "{name}: {ask:#?}\n{answer:#}");
        }
        assert!(answer["left"].as_array().is_none_or(Vec::is_empty), "{answer:#}");
    }

    /// It found frames of its own, and noted that; or it joined a job that makes them.
    pub fn found(&mut self, ask: &Ask, joined: bool) {
        if joined || !ask.with(Fate::Kept).is_empty() {
            self.tree.seen(&ask.out, &ask.by);
        }
    }

    pub fn render_here(&mut self) {
        let ask = self.ask();
        let older = self.older(&ask, &self.tree.files);
        let said = self.run(ask.side, &ask.args("render", &["--local", "--json"]));
        if self.refused(&ask, &said, &Changes::new()) {
            return;
        }
        self.counted(&ask, &serde_json::from_str(&said.out).unwrap(), &[
            ("kept", ask.with(Fate::Kept).len()),
            ("skipped", ask.with(Fate::Skipped).len()),
            ("landed", ask.renders().len()),
            ("replaced", ask.with(Fate::Replaced).len()),
            ("older", older),
        ]);
        self.found(&ask, false);
        self.tree.out(&ask.out);
        let mut files = self.tree.files.clone();
        files.extend(ask.renders().iter().map(|frame| (ask.path(*frame), ask.by.file(*frame))));
        self.check(&self.tree.changes(&files));
        self.check_scratch(ask.side);
    }

    pub fn render_on_farm(&mut self) {
        let mut ask = self.ask();
        let plan = self.plan(&mut ask);
        let mut args = ask.args("render", &["--json"]);
        if self.rng.percent(75) {
            args.push("--no-local");
        }
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut call = self.start(ask.side, &args);
        if let Some(id) = plan.joined.filter(|id| self.jobs[id].state == State::Held) {
            // Somebody lets it go in another window.
            assert!(call.tells(&format!("job {id}, made ")) && call.tells(&format!("job {id} at ")), "it joins {id}");
            let said = self.run(1 - ask.side, &["jobs", "resume", &id.to_string()]);
            assert_eq!(said.code, 0, "{}", said.err);
            self.jobs.get_mut(&id).unwrap().state = State::Runs;
        }
        let said = self.ends(call);
        let mut files = plan.files.clone();
        if self.refused(&ask, &said, &self.tree.changes(&files)) {
            return self.forget(&plan);
        }
        let answer: Value = serde_json::from_str(&said.out).unwrap();
        self.tree.out(&ask.out);
        self.forget(&plan);
        self.found(&ask, plan.joined.is_some());
        let id = answer["job"]["id"].as_u64();
        let mut landed = 0;
        match plan.joined {
            _ if ask.renders().is_empty() => assert_eq!(id, None, "{answer:#}"),
            Some(joined) => {
                assert_eq!(id, Some(joined), "it joins the job that runs: {answer:#}");
                self.settle(joined);
                let job = self.jobs[&joined].clone();
                assert!(ask.renders().is_subset(&job.frames), "job {joined} makes all that is asked for: {job:?}");
                let left = self.land(&mut files, &mut BTreeMap::new(), &job.by, ask.mode, &ask.out, &job.done);
                assert_eq!(left, 0, "nothing is in the way: the plan would have stopped");
                landed = job.done.len();
                self.note(joined, ask.side, ask.mode);
            }
            None => {
                let id = id.unwrap();
                self.made(id, &ask, State::Runs);
                self.settle(id);
                files.extend(ask.renders().iter().map(|frame| (ask.path(*frame), ask.by.file(*frame))));
                landed = ask.renders().len();
                self.note(id, ask.side, ask.mode);
            }
        }
        self.counted(&ask, &answer, &[
            ("kept", ask.with(Fate::Kept).len()),
            ("skipped", ask.with(Fate::Skipped).len()),
            ("landed", landed),
            ("older", plan.older),
        ]);
        if plan.joined.is_none() {
            self.counted(&ask, &answer, &[("replaced", ask.with(Fate::Replaced).len())]);
        }
        self.check(&self.tree.changes(&files));
    }

    pub fn submit(&mut self) {
        let mut ask = self.ask();
        let plan = self.plan(&mut ask);
        let hold = self.rng.percent(45);
        let said = self.run(ask.side, &ask.args("submit", if hold { &["--json", "--hold"] } else { &["--json"] }));
        let changes = self.tree.changes(&plan.files);
        if self.refused(&ask, &said, &changes) {
            return self.forget(&plan);
        }
        self.forget(&plan);
        self.found(&ask, plan.joined.is_some());
        self.tree.out(&ask.out);
        let answer: Value = serde_json::from_str(&said.out).unwrap();
        self.counted(&ask, &answer, &[
            ("kept", ask.with(Fate::Kept).len()),
            ("replaced", ask.with(Fate::Replaced).len()),
            ("older", plan.older),
        ]);
        let id = answer["job"]["id"].as_u64();
        let others: BTreeSet<i32> = match plan.joined {
            Some(id) => ask.renders().difference(&self.jobs[&id].frames).copied().collect(),
            None => ask.renders(),
        };
        match plan.joined {
            _ if ask.renders().is_empty() => assert_eq!(id, None, "{answer:#}"),
            Some(joined) if others.is_empty() => {
                assert_eq!((id, &answer["new"]), (Some(joined), &Value::Bool(false)), "{answer:#}");
                self.note(joined, ask.side, ask.mode);
            }
            _ => {
                // What a job makes already is not made twice.
                let id = id.unwrap();
                self.made(id, &ask, if hold { State::Held } else { State::Runs });
                self.jobs.get_mut(&id).unwrap().frames = others;
            }
        }
        self.check(&changes);
    }

    /// The farm has this job now.
    pub fn made(&mut self, id: u64, ask: &Ask, state: State) {
        let job = Job {
            side: ask.side,
            out: ask.out.clone(),
            by: ask.by.clone(),
            frames: ask.renders(),
            mode: ask.mode,
            noted: false,
            state,
            done: BTreeMap::new(),
        };
        assert!(self.jobs.insert(id, job).is_none(), "job {id} was there");
        self.note(id, ask.side, ask.mode);
    }

    /// A command was given about a job: whether the machine remembers where its frames go.
    pub fn note(&mut self, id: u64, side: Side, mode: Mode) {
        let noted = self.noted_mode(side, id);
        assert!(noted.is_none_or(|noted| noted == mode), "job {id} is noted with {noted:?}, and not {mode:?}");
        let job = self.jobs.get_mut(&id).unwrap();
        (job.noted, job.mode) = (noted.is_some(), mode);
    }
}
