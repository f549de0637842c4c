//! What jobs that were made earlier hold and still make for a command that is given on the same machine, for the same
//! frames and folder.

use std::{collections::BTreeMap, path::{Path, PathBuf}};

use super::{
    model::{Fate, Maker, Mode},
    render::Ask,
    scene::frame_name,
    tree::Files,
    world::{State, World},
};

/// What a command on the farm comes to.
#[derive(Debug)]
pub struct Plan {
    /// All files once it has fetched what earlier jobs hold.
    pub files: Files,
    /// The job that it joins.
    pub joined: Option<u64>,
    /// Jobs that nothing is left to fetch of.
    pub spent: Vec<u64>,
    pub older: usize,
}

impl Plan {
    /// For a command without the farm.
    pub fn of_nothing(files: &Files) -> Self {
        Self { files: files.clone(), joined: None, spent: Vec::new(), older: 0 }
    }
}

impl World {
    /// What the command finds, and its fates with that. Jobs of the same frames have come to rest then, so that it is
    /// certain.
    pub fn plan(&mut self, ask: &mut Ask) -> Plan {
        let mut plan = Plan::of_nothing(&self.tree.files);
        let fetches = !matches!(ask.mode, Mode::Overwrite | Mode::Error);
        let ids: Vec<u64> = self.jobs.keys().copied().collect();
        for id in ids.into_iter().filter(|_| fetches) {
            let job = self.jobs[&id].clone();
            let here = job.noted && job.side == ask.side && job.out == ask.out;
            if !here || !job.by.same_frames(&ask.by) {
                continue;
            }
            self.settle(id);
            let job = self.jobs[&id].clone();
            let mut hashes = self.hashes(&ask.out);
            let left = self.land(&mut plan.files, &mut hashes, &job.by, ask.mode, &ask.out, &job.done);
            match job.state {
                State::Held => plan.joined = Some(id),
                _ if left == 0 => plan.spent.push(id),
                _ => {}
            }
        }
        self.set_fates(ask, &plan.files);
        // It joins none that makes nothing of what it wants.
        plan.joined = plan.joined.filter(|id| !self.jobs[id].frames.is_disjoint(&ask.renders()));
        plan.older = self.older(ask, &plan.files);
        plan
    }

    /// The command has fetched all of these.
    pub fn forget(&mut self, plan: &Plan) {
        for id in &plan.spent {
            self.jobs.get_mut(id).unwrap().noted = false;
            assert!(!self.is_noted(self.jobs[id].side, *id), "nothing of job {id} is left to fetch");
        }
    }

    /// The hashes of all frames in a folder.
    pub fn hashes(&self, out: &Path) -> BTreeMap<PathBuf, String> {
        let folder = out.join("frames");
        let there = self.tree.files.keys().filter(|path| path.parent() == Some(&folder));
        let hash = |path: &PathBuf| kiln_types::BlobHash::of(&std::fs::read(path).unwrap()).to_string();
        there.map(|path| (path.clone(), hash(path))).collect()
    }

    /// Lets frames of a job land among these files, and returns how many are left at the farm because of what is there.
    pub fn land(
        &mut self,
        files: &mut Files,
        hashes: &mut BTreeMap<PathBuf, String>,
        by: &Maker,
        mode: Mode,
        out: &Path,
        done: &BTreeMap<i32, String>,
    ) -> usize {
        let mut left = 0;
        for (frame, hash) in done {
            let path = out.join(frame_name(*frame));
            let same = hashes.get(&path) == Some(hash);
            // As this scene's, whatever is done with other files.
            let own = self.tree.fate(files, by, Mode::Continue, out, *frame) == Fate::Kept;
            let fate = self.tree.fate(files, by, mode, out, *frame);
            if own && same {
                continue;
            }
            // What nobody knew, and is the same to the last bit, is this job's now. And rendered twice, the same picture
            // has another hour in its file.
            if !own && !same && matches!(fate, Fate::Skipped | Fate::Stops) {
                left += 1;
                continue;
            }
            files.insert(path.clone(), by.file(*frame));
            hashes.insert(path, hash.clone());
        }
        left
    }
}
