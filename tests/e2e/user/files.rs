//! The user among files: edits, moves, deletes and damages them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    model::{Kind, Mode},
    scene::{ASSETS, CHOICES, FRAMES, INPUTS, SHOTS, WOODS, frame_name},
    tree::{Changes, stamp},
    world::{Project, SIDES, Side, World},
};

/// Names that the user gives to folders.
const NAMES: &[&str] = &["film", "ads", "old ads", "ad\u{e9}", "a/deep/er", "v 2", "#3"];
/// Lines for `kiln.toml` that change no picture.
const HABITS: &[&str] = &[
    "",
    "hash_cache = false\n",
    "user = \"ana\"\nproject = \"movie\"\n",
    "device = \"cpu\"\n",
    "slots = 1\nthreads = 1\n",
];

impl World {
    /// Another number than this one, below `end`.
    fn other(&mut self, than: u8, end: u8) -> u8 {
        let step = 1 + self.rng.below(usize::from(end) - 1);
        (than + u8::try_from(step).unwrap()) % end
    }

    pub fn edit(&mut self) {
        let at = self.any_project_to_change();
        let Project { path, content, .. } = self.projects[at].clone();
        let (from, name) = if self.rng.percent(70) {
            let shot = self.other(content.shot, SHOTS);
            self.projects[at].content.shot = shot;
            (self.scenes.shot(shot), INPUTS[0])
        } else {
            let asset = self.other(content.asset, ASSETS);
            self.projects[at].content.asset = asset;
            (self.scenes.asset(asset), INPUTS[1])
        };
        self.tell(format!("  {} becomes {:?}", path.join(name).display(), self.projects[at].content));
        self.save(&from, path.join(name));
        self.check(&Changes::new());
    }

    pub fn texture(&mut self) {
        let at = self.any_project_to_change();
        let Project { path, content, .. } = self.projects[at].clone();
        let wood = self.other(content.wood, WOODS);
        self.projects[at].content.wood = wood;
        let (from, to) = (self.scenes.wood(wood), path.join(INPUTS[2]));
        self.tell(format!("  {} becomes {:?}", to.display(), self.projects[at].content));
        if self.rng.percent(50) {
            self.save(&from, to);
        } else {
            // Some programs write into the file that is there.
            fs::write(&to, fs::read(from).unwrap()).unwrap();
            self.tree.input(to);
        }
        self.check(&Changes::new());
    }

    pub fn settings(&mut self) {
        if self.rng.percent(65) {
            let at = self.any_project_to_change();
            let choice = (self.projects[at].choice + 1 + self.rng.below(CHOICES.len() - 1)) % CHOICES.len();
            self.projects[at].choice = choice;
            self.tell(format!("  {} renders with {:?}", self.projects[at].path.display(), CHOICES[choice]));
        } else {
            let side = *self.rng.pick(&SIDES);
            let habit = *self.rng.pick(HABITS);
            self.tell(format!("  kiln.toml on {side}: {habit:?}"));
            self.configure(side, habit);
        }
        self.check(&Changes::new());
    }

    pub fn relocate(&mut self) {
        let at = self.any_project();
        let Project { side, path, .. } = self.projects[at].clone();
        let there = self.projects.iter().filter(|one| one.side != side).count();
        let beside: Vec<usize> = (0..self.projects.len())
            .filter(|other| *other != at && self.projects[*other].side == side)
            .collect();
        match self.rng.below(10) {
            0..=2 if there < 2 => self.copy_over(at, 1 - side),
            3 if !beside.is_empty() => {
                let other = *self.rng.pick(&beside);
                let (one, two) = (path.clone(), self.projects[other].path.clone());
                let aside = self.work(side).join("aside");
                self.rename(&one, &aside);
                self.rename(&two, &one);
                self.rename(&aside, &two);
            }
            4 if self.commons(side).iter().any(|out| out.is_dir()) => {
                // A folder of frames that is no project's own.
                let outs: Vec<PathBuf> = self.commons(side).into_iter().filter(|out| out.is_dir()).collect();
                let from = self.rng.pick(&outs).clone();
                let to = self.commons(side).into_iter().find(|out| !out.exists());
                let to = to.unwrap_or_else(|| self.work(side).join(format!("kept-{}", self.step)));
                self.rename(&from, &to);
            }
            _ => {
                let to = self.free_name(side);
                self.rename(&path, &to);
            }
        }
        self.check(&Changes::new());
    }

    /// Output folders of a machine that any of its projects may use.
    pub fn commons(&self, side: Side) -> [PathBuf; 2] {
        ["frames for all", "out/deep"].map(|name| self.work(side).join(name))
    }

    fn free_name(&mut self, side: Side) -> PathBuf {
        let work = self.work(side);
        let free: Vec<PathBuf> =
            NAMES.iter().map(|name| work.join(name)).filter(|path| !path.exists()).collect();
        self.rng.some(&free).unwrap_or_else(|| work.join(format!("folder {}", self.step)))
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        self.tell(format!("  {} is called {}", from.display(), to.display()));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(from, to).unwrap();
        self.tree.moved(from, to, false);
        for project in &mut self.projects {
            if let Ok(rest) = project.path.strip_prefix(from) {
                project.path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
    }

    fn copy_over(&mut self, at: usize, side: Side) {
        let Project { path, content, choice, .. } = self.projects[at].clone();
        let to = self.free_name(side);
        self.tell(format!("  {} is copied to {}", path.display(), to.display()));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // Some ways keep the times of files, some do not.
        let how = if self.rng.percent(50) { "-a" } else { "-r" };
        assert!(Command::new("cp").arg(how).args([&path, &to]).status().unwrap().success());
        self.tree.moved(&path, &to, true);
        self.projects.push(Project { side, path: to, content, choice });
    }

    /// Every folder that frames may lie in.
    fn outs(&self) -> Vec<PathBuf> {
        let mut outs: Vec<PathBuf> = self.projects.iter().map(|project| project.path.clone()).collect();
        outs.extend(SIDES.into_iter().flat_map(|side| self.commons(side)));
        outs.extend(self.jobs.values().map(|job| job.out.clone()));
        outs.sort();
        outs.dedup();
        outs
    }

    /// A place for a frame, rather one that is taken.
    fn any_frame(&mut self) -> PathBuf {
        let taken: Vec<PathBuf> = self.tree.files.keys().cloned().collect();
        if self.rng.percent(80)
            && let Some(path) = self.rng.some(&taken)
        {
            return path;
        }
        let at = self.any_project();
        let frame = *self.rng.pick(&FRAMES.collect::<Vec<_>>());
        self.projects[at].path.join(frame_name(frame))
    }

    /// Somebody works on a frame by hand, or a disk loses some of it.
    pub fn touch(&mut self) {
        let path = self.any_frame();
        let kiln = matches!(self.tree.files.get(&path).map(|file| &file.kind), Some(Kind::Frame { .. }));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let shown = path.display().to_string();
        match self.rng.below(4) {
            0 if kiln => {
                self.tell(format!("  {shown} is touched"));
                fs::File::options()
                    .write(true)
                    .open(&path)
                    .unwrap()
                    .set_modified(std::time::SystemTime::now())
                    .unwrap();
                let kind = self.tree.files[&path].kind.clone();
                self.tree.put(path, kind);
            }
            1 if kiln => {
                let length = stamp(&path).unwrap().size;
                let left = *self.rng.pick(&[0, length / 2, length - 5]);
                self.tell(format!("  {shown} loses all but {left} of {length} bytes"));
                fs::File::options().write(true).open(&path).unwrap().set_len(left).unwrap();
                self.tree.put(path, Kind::Cut);
            }
            _ => {
                self.tell(format!("  {shown} is painted by hand"));
                let wood = u8::try_from(self.rng.below(usize::from(WOODS))).unwrap();
                fs::copy(self.scenes.wood(wood), &path).unwrap();
                self.tree.put(path, Kind::Other);
            }
        }
        self.check(&Changes::new());
    }

    pub fn delete(&mut self) {
        match self.rng.below(10) {
            0..=3 => self.delete_frames(),
            4 => {
                let outs: Vec<PathBuf> =
                    self.outs().into_iter().filter(|out| out.join(".kiln").is_dir()).collect();
                match self.rng.some(&outs) {
                    Some(out) => {
                        self.tell(format!("  Kiln's notes in {} are deleted", out.display()));
                        self.tree.forget(&out);
                    }
                    None => self.delete_frames(),
                }
            }
            5 if self.projects.len() > 2 => {
                let of_two: Vec<usize> =
                    (0..self.projects.len()).filter(|at| self.projects[*at].side == 1).collect();
                let Some(at) = self.rng.some(&of_two) else { return self.delete_frames_and_check() };
                let path = self.projects.remove(at).path;
                self.tell(format!("  {} is deleted", path.display()));
                fs::remove_dir_all(&path).unwrap();
                self.tree.removed(&path);
                self.projects.retain(|project| !project.path.starts_with(&path));
            }
            _ => return self.delete_job(),
        }
        self.check(&Changes::new());
    }

    fn delete_frames_and_check(&mut self) {
        self.delete_frames();
        self.check(&Changes::new());
    }

    /// Some of the frames of a folder, or all; rather where somebody's files are in the way.
    fn delete_frames(&mut self) {
        let taken: Vec<PathBuf> = self.tree.files.keys().cloned().collect();
        let foreign: Vec<PathBuf> =
            taken.iter().filter(|path| self.tree.files[*path].kind == Kind::Other).cloned().collect();
        let from = if !foreign.is_empty() && self.rng.percent(60) { foreign } else { taken.clone() };
        let Some(one) = self.rng.some(&from) else { return };
        let all = self.rng.percent(50);
        let gone = taken.into_iter().filter(|path| *path == one || all && path.parent() == one.parent());
        for path in gone.collect::<Vec<_>>() {
            self.tell(format!("  {} is deleted", path.display()));
            fs::remove_file(&path).unwrap();
            self.tree.files.remove(&path);
        }
    }

    /// The way that a mode is chosen where the usual one stops.
    pub fn any_mode(&mut self) -> Mode {
        *self.rng.pick(&[Mode::Replace, Mode::Skip, Mode::Overwrite, Mode::Error])
    }
}
