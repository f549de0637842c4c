//! Earlier jobs of the same machine, frames and folder: the frames that they have and still make for a command.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    model::{Fate, Maker, Mode},
    render::Ask,
    scene::frame_name,
    tree::Files,
    world::{Job, State, World},
};

/// The hashes of files.
pub type Hashes = BTreeMap<PathBuf, String>;

/// The files of a job's frames.
#[derive(Debug, Default)]
pub struct Landing {
    /// The number of frames that stay on the farm because of files in the folder.
    pub left: usize,
    /// Saves that frames are known to be of, besides the one that they are noted with.
    pub seen: Vec<Maker>,
}

/// The expected result of a command on the farm.
#[derive(Debug)]
pub struct Plan {
    /// All files once it has fetched what earlier jobs hold.
    pub files: Files,
    /// A job of these frames that goes on, and is joined where it makes any of those that lack.
    running: Option<u64>,
    /// One that may end at any time, so that it is joined or fetched.
    pub race: Option<u64>,
    /// Jobs that nothing is left to fetch of.
    pub spent: Vec<u64>,
    /// The frames that it learns of while it fetches.
    pub seen: Vec<Maker>,
    pub older: usize,
}

impl Plan {
    /// For a command without the farm.
    pub fn of_nothing(files: &Files) -> Self {
        Self {
            files: files.clone(),
            running: None,
            race: None,
            spent: Vec::new(),
            seen: Vec::new(),
            older: 0,
        }
    }
}

impl World {
    /// Plans a command. Jobs of the same frames have ended or are paused then, so that the result is certain; but for one, if
    /// it `may_race`.
    pub fn plan(&mut self, ask: &mut Ask, may_race: bool) -> Plan {
        let mut plan = Plan::of_nothing(&self.tree.files);
        let fetches = !matches!(ask.mode, Mode::Overwrite | Mode::Error);
        let here = |job: &Job| job.noted && job.side == ask.side && job.out == ask.out;
        let wanted = |job: &Job| !job.frames.is_disjoint(&ask.frames);
        let same = |job: &Job| fetches && here(job) && wanted(job) && job.by.same_frames(&ask.by);
        let ids: Vec<u64> = self.jobs.iter().filter(|(_, job)| same(job)).map(|(id, _)| *id).collect();
        if let &[id] = &ids[..]
            && may_race
            && self.is_free(&self.jobs[&id], ask)
            && self.rng.percent(60)
        {
            plan.race = Some(id);
            return plan;
        }
        for id in ids {
            self.settle(id);
            let job = self.jobs[&id].clone();
            let mut hashes = self.hashes(&ask.out);
            let mut landing = self.land(&mut plan.files, &mut hashes, &job.by, ask.mode, &ask.out, &job.done);
            plan.seen.append(&mut landing.seen);
            match job.state {
                State::Held => plan.running = Some(id),
                _ if landing.left == 0 => plan.spent.push(id),
                _ => {}
            }
            if !job.done.is_empty() {
                self.tally.count("jobs fetched by a later command");
            }
        }
        self.set_fates(ask, &plan.files);
        plan.older = self.older(ask, &plan.files);
        plan
    }

    /// The job that a command joins: none that makes nothing of what it wants.
    pub fn joined(&self, plan: &Plan, ask: &Ask) -> Option<u64> {
        plan.running.filter(|id| !ask.stops() && !self.jobs[id].frames.is_disjoint(&ask.renders()))
    }

    /// A job runs, makes some of the command's frames, and nothing is in the way of either.
    fn is_free(&self, job: &Job, ask: &Ask) -> bool {
        let fate = |frame: &i32| self.tree.fate(&self.tree.files, &job.by, ask.mode, &ask.out, *frame);
        let free = |frame: &i32| !matches!(fate(frame), Fate::Stops | Fate::Skipped);
        let runs = job.state == State::Runs && job.frames.iter().all(free);
        runs && !ask.stops() && !job.frames.is_disjoint(&ask.renders())
    }

    /// The command has fetched all of these.
    pub fn forget(&mut self, ask: &Ask, plan: &Plan) {
        plan.seen.iter().for_each(|by| self.tree.seen(&ask.out, by));
        for id in &plan.spent {
            self.jobs.get_mut(id).unwrap().noted = false;
            assert!(!self.is_noted(self.jobs[id].side, *id), "nothing of job {id} is left to fetch");
        }
    }

    /// The hashes of all frames in a folder.
    pub fn hashes(&self, out: &Path) -> Hashes {
        let folder = out.join("frames");
        let there = self.tree.files.keys().filter(|path| path.parent() == Some(&folder));
        let hash = |path: &PathBuf| kiln_types::BlobHash::of(&std::fs::read(path).unwrap()).to_string();
        there.map(|path| (path.clone(), hash(path))).collect()
    }

    /// Lets frames of a job land among these files.
    pub fn land(
        &self,
        files: &mut Files,
        hashes: &mut Hashes,
        by: &Maker,
        mode: Mode,
        out: &Path,
        done: &BTreeMap<i32, String>,
    ) -> Landing {
        let mut landing = Landing::default();
        for (frame, hash) in done {
            let path = out.join(frame_name(*frame));
            let same = hashes.get(&path) == Some(hash);
            // As this scene's, whatever is done with other files.
            let own = self.tree.fate(files, by, Mode::Continue, out, *frame) == Fate::Kept;
            let fate = self.tree.fate(files, by, mode, out, *frame);
            let line = self.tree.line(files, &path).cloned();
            if own && same {
                let known = self.tree.known(out).iter().chain(&landing.seen).chain(&line);
                if !known.into_iter().any(|known| known.same_frames(by) && known.save.is_later_than(&by.save))
                {
                    landing.seen.push(by.clone());
                }
                continue;
            }
            // What nobody knew, and is the same to the last bit, is this job's now. And rendered twice, the same picture
            // has another hour in its file.
            if !own && !same && matches!(fate, Fate::Skipped | Fate::Stops) {
                landing.left += 1;
                continue;
            }
            landing.seen.extend(line.filter(|line| line.same_frames(by) && line.save.read > by.save.read));
            files.insert(path.clone(), by.file(*frame));
            hashes.insert(path, hash.clone());
        }
        landing
    }
}
