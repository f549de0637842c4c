//! What the user renders: on the farm and without it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde_json::Value;

use super::{
    model::{Fate, Maker, Mode},
    scene::{FRAMES, INPUTS, RANGE, frame_name},
    tree::Changes,
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
        self.set_fates(&mut ask);
        // Who is refused says what is wanted, or tries it once more.
        if (ask.stops() && self.rng.percent(60)) || self.rng.percent(12) {
            ask.mode = self.any_mode();
            ask.args.extend(ask.mode.args().iter().map(ToString::to_string));
            self.set_fates(&mut ask);
        }
        ask
    }

    fn set_fates(&self, ask: &mut Ask) {
        let fate = |frame: &i32| ask.by.fate(ask.mode, self.tree.files.get(&ask.path(*frame)));
        ask.fates = ask.frames.iter().map(|frame| (*frame, fate(frame))).collect();
    }

    /// Frames of an older save of the same .blend that these frames leave where they are.
    pub fn older(&self, ask: &Ask) -> usize {
        let folder = ask.out.join("frames");
        let files = self.tree.files.iter().filter(|(path, _)| path.parent() == Some(&folder));
        files.filter(|(path, file)| {
            let asked = ask.frames.iter().any(|frame| **path == ask.path(*frame));
            !asked && ask.by.fate(Mode::Continue, Some(file)) == Fate::Replaced
        }).count()
    }

    /// Whether a command refused because files are in the way, as it must then.
    #[track_caller]
    pub fn refused(&mut self, ask: &Ask, code: i32, err: &str) -> bool {
        if !ask.stops() {
            return false;
        }
        assert_eq!(code, 2, "{ask:#?}\n{err}");
        assert!(err.contains("already there"), "{err}");
        self.check(&Changes::new());
        true
    }

    /// Compares what a command said at its end with what it had to do: `came` frames were rendered.
    #[track_caller]
    pub fn said_so(&mut self, ask: &Ask, answer: &Value, came: usize) {
        let counts = ["kept", "skipped", "landed"].map(|name| answer[name].as_u64().unwrap_or(u64::MAX) as usize);
        let kept = ask.with(Fate::Kept).len();
        assert_eq!(counts, [kept, ask.with(Fate::Skipped).len(), came], "{ask:#?}\n{answer:#}");
        assert_eq!(answer["left"], Value::Array(Vec::new()), "{answer:#}");
    }

    /// Each of these frames is written, for certain.
    pub fn written(ask: &Ask, frames: &BTreeSet<i32>) -> Changes {
        frames.iter().map(|frame| (ask.path(*frame), vec![Some(ask.by.file(*frame))])).collect()
    }

    pub fn render_here(&mut self) {
        let ask = self.ask();
        let said = self.run(ask.side, &ask.args("render", &["--local", "--json"]));
        if self.refused(&ask, said.code, &said.err) {
            return;
        }
        assert_eq!(said.code, 0, "{}", said.err);
        let renders = ask.renders();
        self.said_so(&ask, &serde_json::from_str(&said.out).unwrap(), renders.len());
        if !renders.is_empty() {
            self.tree.out(&ask.out);
        }
        self.check(&Self::written(&ask, &renders));
        let left = self.homes[ask.side].leftovers();
        assert!(left.is_empty(), "a farm inside a command is left: {left:?}");
    }

    pub fn render_on_farm(&mut self) {
        let ask = self.ask();
        let mut args = ask.args("render", &["--json"]);
        if self.rng.percent(75) {
            args.push("--no-local");
        }
        let said = self.run(ask.side, &args);
        if self.refused(&ask, said.code, &said.err) {
            return;
        }
        assert_eq!(said.code, 0, "{}", said.err);
        let renders = ask.renders();
        let answer: Value = serde_json::from_str(&said.out).unwrap();
        self.said_so(&ask, &answer, renders.len());
        if !renders.is_empty() {
            self.tree.out(&ask.out);
            let id = answer["job"]["id"].as_u64().unwrap();
            self.made(id, &ask, State::Runs);
            self.settle(id);
        }
        self.check(&Self::written(&ask, &renders));
    }

    pub fn submit(&mut self) {
        let ask = self.ask();
        let hold = self.rng.percent(45);
        let said = self.run(ask.side, &ask.args("submit", if hold { &["--json", "--hold"] } else { &["--json"] }));
        if self.refused(&ask, said.code, &said.err) {
            return;
        }
        assert_eq!(said.code, 0, "{}", said.err);
        let answer: Value = serde_json::from_str(&said.out).unwrap();
        if ask.renders().is_empty() {
            self.said_so(&ask, &answer, 0);
        } else {
            let id = answer["job"]["id"].as_u64().unwrap();
            self.made(id, &ask, if hold { State::Held } else { State::Runs });
        }
        self.check(&Changes::new());
    }

    /// The farm has this job now.
    pub fn made(&mut self, id: u64, ask: &Ask, state: State) {
        let noted = self.is_noted(ask.side, id);
        let job = Job {
            side: ask.side,
            out: ask.out.clone(),
            by: ask.by.clone(),
            frames: ask.renders(),
            mode: ask.mode,
            noted,
            state,
            done: BTreeMap::new(),
        };
        assert!(self.jobs.insert(id, job).is_none(), "job {id} was there");
    }
}
