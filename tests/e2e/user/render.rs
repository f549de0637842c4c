//! Renders of the user: on the farm and without it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use kiln_types::FrameSet;
use serde_json::Value;

use crate::support::Said;

use super::{
    model::{Fate, Maker, Mode},
    scene::{FRAMES, INPUTS, RANGE, frame_name},
    tree::{Changes, Files},
    world::{Job, Project, Side, State, World, flags},
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

    /// Files are in the way.
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
        let mut ask = self.ask_plainly();
        // Who is refused says what is wanted, or tries it once more.
        if (ask.stops() && self.rng.percent(60)) || self.rng.percent(12) {
            ask.mode = self.any_mode();
            ask.args.extend(ask.mode.args().iter().map(ToString::to_string));
            self.set_fates(&mut ask, &self.tree.files);
        }
        ask
    }

    /// The same, of one who says nothing of files that may be there.
    pub fn ask_plainly(&mut self) -> Ask {
        let at = self.any_project();
        let mut project = self.projects[at].clone();
        // Rather what was given to the farm before, once more.
        let given = self.given_before();
        let latest = given.last().cloned().filter(|_| self.rng.percent(80));
        let again = latest.or_else(|| self.rng.some(&given)).filter(|_| self.rng.percent(80));
        if let Some((at, _)) = &again {
            project = self.projects[*at].clone();
        }
        let mut args = vec![project.path.join(INPUTS[0]).to_str().unwrap().to_owned()];
        let out = if let Some((_, out)) = again {
            out
        } else if self.rng.percent(15) {
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
        ask
    }

    /// Projects and output folders of jobs whose frames are still to be fetched, those last that are of the project as it
    /// is now, and of these those that go on.
    fn given_before(&self) -> Vec<(usize, PathBuf)> {
        let noted = self.jobs.values().filter(|job| job.noted);
        let of = |job: &Job| {
            let is = |one: &Project| one.side == job.side && job.by.save.path == one.path.join(INPUTS[0]);
            let at = self.projects.iter().position(is)?;
            let Project { content, choice, .. } = self.projects[at];
            let same = (content, choice) == (job.by.content, job.by.choice);
            Some(((same, !job.state.is_end()), at, job.out.clone()))
        };
        let mut given: Vec<_> = noted.filter_map(of).collect();
        given.sort_by_key(|(rank, ..)| *rank);
        given.into_iter().map(|(_, at, out)| (at, out)).collect()
    }

    /// One of the user's projects to change, rather one that nothing is under way of.
    pub fn any_project_to_change(&mut self) -> usize {
        let given = self.given_before();
        let apart: Vec<usize> =
            (0..self.projects.len()).filter(|at| given.iter().all(|(given, _)| given != at)).collect();
        let rather = self.rng.percent(60);
        self.rng.some(&apart).filter(|_| rather).unwrap_or_else(|| self.any_project())
    }

    pub fn set_fates(&self, ask: &mut Ask, files: &Files) {
        let fate = |frame: i32| self.tree.fate(files, &ask.by, ask.mode, &ask.out, frame);
        ask.fates = ask.frames.iter().map(|frame| (*frame, fate(*frame))).collect();
    }

    /// Frames of an older save of the same .blend that these frames leave where they are.
    pub fn older(&self, ask: &Ask, files: &Files) -> usize {
        let others = FRAMES.filter(|frame| !ask.frames.contains(frame));
        let fate = |frame| self.tree.fate(files, &ask.by, Mode::Continue, &ask.out, frame);
        if ask.mode == Mode::Overwrite {
            0
        } else {
            others.filter(|frame| fate(*frame) == Fate::Replaced).count()
        }
    }

    /// Returns true if a command refused because files are in the way, as it must then.
    #[track_caller]
    pub fn refused(&mut self, ask: &Ask, said: &Said, changes: &Changes) -> bool {
        if !ask.stops() {
            assert_eq!(said.code, 0, "{ask:#?}\n{}", said.err);
            return false;
        }
        assert_eq!(said.code, 2, "{ask:#?}\n{}", said.err);
        assert!(said.err.contains("already there"), "{}", said.err);
        self.tally.count("commands refused");
        if !changes.is_empty() {
            self.tree.out(&ask.out);
        }
        self.check(changes);
        true
    }

    /// Compares what a command said with what it had to find.
    #[track_caller]
    pub fn counted(&mut self, ask: &Ask, answer: &Value, names: &[(&str, usize)]) {
        for (name, count) in names {
            assert_eq!(answer[name], *count, "{name}: {ask:#?}\n{answer:#}");
        }
        assert!(answer["left"].as_array().is_none_or(Vec::is_empty), "{answer:#}");
    }

    /// The files that a command that renders writes.
    pub fn written(&self, ask: &Ask) -> Changes {
        let may = |frame: i32| {
            let there = self.tree.files.get(&ask.path(frame)).cloned();
            // What is overwritten by the same bytes is not written.
            let fate = self.tree.fate(&self.tree.files, &ask.by, Mode::Continue, &ask.out, frame);
            [Some(ask.by.file(frame))].into_iter().chain((fate == Fate::Kept).then_some(there)).collect()
        };
        ask.renders().into_iter().map(|frame| (ask.path(frame), may(frame))).collect()
    }

    /// The command found frames of its own, and noted that; or it joined a job that makes them.
    pub fn found(&mut self, ask: &Ask, joined: bool) {
        for (fate, what) in
            [(Fate::Kept, "commands that kept frames"), (Fate::Replaced, "commands that replaced frames")]
        {
            if !ask.with(fate).is_empty() {
                self.tally.count(what);
            }
        }
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
        self.counted(
            &ask,
            &said.json(),
            &[
                ("kept", ask.with(Fate::Kept).len()),
                ("skipped", ask.with(Fate::Skipped).len()),
                ("landed", ask.renders().len()),
                ("replaced", ask.with(Fate::Replaced).len()),
                ("older", older),
            ],
        );
        self.found(&ask, false);
        self.tree.out(&ask.out);
        self.check(&self.written(&ask));
        self.check_scratch(ask.side);
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

    /// The same, of a command that did not tell.
    pub fn made_so(&mut self, id: u64, view: &Value, ask: &Ask, state: State) {
        self.made(id, ask, state);
        let frames: FrameSet = view["spec"]["frames"].as_str().unwrap().parse().unwrap();
        self.jobs.get_mut(&id).unwrap().frames = frames.iter().collect();
    }

    /// A command was given about a job: whether the machine remembers where its frames go.
    pub fn note(&mut self, id: u64, side: Side, mode: Mode) {
        let noted = self.noted_mode(side, id);
        assert!(
            noted.is_none_or(|noted| noted == mode),
            "job {id} is noted with {noted:?}, and not {mode:?}"
        );
        let job = self.jobs.get_mut(&id).unwrap();
        (job.noted, job.mode) = (noted.is_some(), mode);
    }
}
