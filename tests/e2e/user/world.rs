//! A farm, two machines with their disks, and the model of both.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kiln_testkit::{free_port, wait_until};
use kiln_types::FrameSet;
use serde_json::Value;

use super::{
    call::{Call, get},
    model::{Maker, Mode, Save, way},
    render::Ask,
    scene::{CHOICES, Content, INPUTS, Scenes},
    tree::{Changes, Tree},
    walk::{Action, Rng, Tally},
};
use crate::support::{Home, Running, Said};

const SOON: Duration = Duration::from_secs(60);

/// One of the two machines: both reach the farm, neither reaches the other's disk. The server runs on the first.
pub type Side = usize;
pub const SIDES: [Side; 2] = [0, 1];

/// A folder that the user works in.
#[derive(Debug, Clone)]
pub struct Project {
    pub side: Side,
    pub path: PathBuf,
    pub content: Content,
    /// The settings that the user gives when rendering it, by their place in [`CHOICES`].
    pub choice: usize,
}

/// A job on the farm.
#[derive(Debug, Clone)]
pub struct Job {
    pub side: Side,
    pub out: PathBuf,
    pub by: Maker,
    pub frames: BTreeSet<i32>,
    pub mode: Mode,
    /// The machine that made it remembers the folder of its frames.
    pub noted: bool,
    pub state: State,
    /// Frames that the farm has, as far as they are known, by the hashes of their files.
    pub done: BTreeMap<i32, String>,
}

/// A job that a command had asked for when it was broken off, and that may come yet.
pub struct Late {
    pub ask: Ask,
    pub state: State,
    /// A later command that reads the .blend is another one.
    pub until_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The job is paused, with no frame in work.
    Held,
    /// The job ends by itself.
    Runs,
    Completed,
    Cancelled,
}

impl State {
    pub fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Cancelled)
    }
}

pub struct World {
    // They end in this order: the one that uses the farm first.
    pub worker: Option<Running>,
    pub server: Option<Running>,
    pub homes: [Home; 2],
    pub port: u16,
    key: String,
    pub scenes: &'static Scenes,
    pub projects: Vec<Project>,
    pub jobs: BTreeMap<u64, Job>,
    pub late: Option<Late>,
    pub tree: Tree,
    /// Drawn again for each step, so that a race in one step changes no choice of a later one.
    pub rng: Rng,
    /// The files that commands with a farm inside left at the last look.
    scratch: [Vec<PathBuf>; 2],
    pub step: usize,
    pub tally: Tally,
    from: usize,
    seed: u64,
    story: Vec<String>,
}

impl World {
    /// `from`: the place in the walk where it begins.
    pub fn new(seed: u64, from: usize) -> Self {
        let homes = [Home::new(), Home::new()];
        let port = free_port();
        let tree = Tree::new(homes.iter().map(Home::work).collect());
        let mut world = Self {
            worker: None,
            server: None,
            homes,
            port,
            key: String::new(),
            scenes: Scenes::get(),
            projects: Vec::new(),
            jobs: BTreeMap::new(),
            late: None,
            tree,
            rng: Rng::new(seed),
            scratch: [Vec::new(), Vec::new()],
            step: from,
            tally: Tally::default(),
            from,
            seed,
            story: Vec::new(),
        };
        world.start_server();
        world.start_worker();
        let key_file = world.homes[0].data().join("farm.key");
        world.key = fs::read_to_string(&key_file).unwrap().trim().to_owned();
        world.configure(1, "");
        for name in ["film", "ads"] {
            let path = world.homes[0].work().join(name);
            let content = Content { shot: 0, asset: 0, wood: u8::from(name == "ads") };
            world.make_project(0, path, content);
        }
        world
    }

    /// Notes an action, which is printed if the test fails.
    pub fn tell(&mut self, what: impl Into<String>) {
        self.story.push(format!("{:4} {}", self.step, what.into()));
    }

    pub fn begin(&mut self, action: Action) {
        self.step += 1;
        self.rng = Rng::new(self.seed ^ (self.step as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
        self.tell(format!("{action:?}"));
    }

    // The farm.

    pub fn start_server(&mut self) {
        self.server = Some(crate::crash::start(&self.homes[0], self.port));
    }

    pub fn start_worker(&mut self) {
        self.worker = Some(self.homes[0].worker(&self.url(), "one"));
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A document of the server; `None` where it has none.
    pub fn get(&self, path: &str) -> Option<Value> {
        get(self.port, &self.key, path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Writes a machine's `kiln.toml`, which also names the farm.
    pub fn configure(&self, side: Side, more: &str) {
        let folder = self.homes[side].work().parent().unwrap().join("config/kiln");
        fs::create_dir_all(&folder).unwrap();
        let mut text = more.to_owned();
        if side != 0 {
            let key = folder.join("farm.key");
            fs::write(&key, &self.key).unwrap();
            text.push_str(&format!("server = \"{}\"\nkey_file = \"{}\"\n", self.url(), key.display()));
        }
        fs::write(folder.join("kiln.toml"), text).unwrap();
    }

    /// Waits until a job has ended, or nothing of it is in work any more, and learns which frames there are.
    #[track_caller]
    pub fn settle(&mut self, id: u64) {
        let mut view = Value::Null;
        wait_until(SOON, "the job comes to rest", || {
            view = self.get(&format!("jobs/{id}")).unwrap();
            let is_still =
                view["state"] == "paused" && view["tasks"]["running"] == 0 && view["tasks"]["assigned"] == 0;
            is_still
                || view["state"] == "completed"
                || view["state"] == "cancelled"
                || view["state"] == "failed"
        });
        let outputs = self.get(&format!("jobs/{id}/outputs?after=0&limit=1000")).unwrap();
        let mut done = BTreeMap::new();
        for one in outputs["outputs"].as_array().unwrap() {
            let frame = i32::try_from(one["frame"].as_i64().unwrap()).unwrap();
            done.insert(frame, one["files"][0]["hash"].as_str().unwrap().to_owned());
        }
        let job = self.jobs.get_mut(&id).unwrap();
        let state = match view["state"].as_str() {
            Some("paused") => State::Held,
            Some("completed") => State::Completed,
            Some("cancelled") => State::Cancelled,
            _ => panic!("job {id} cannot have come to this: {view:#}"),
        };
        assert!(
            job.state == state || job.state == State::Runs,
            "job {id} is {state:?}, after {:?}",
            job.state
        );
        job.state = state;
        // A command that joined it may have added some.
        let spec: FrameSet = view["spec"]["frames"].as_str().unwrap().parse().unwrap();
        assert!(job.frames.iter().all(|frame| spec.iter().any(|one| one == *frame)), "job {id} has {spec}");
        job.frames = spec.iter().collect();
        let frames: BTreeSet<i32> = done.keys().copied().collect();
        assert!(frames.is_subset(&job.frames), "job {id}: {frames:?} of {:?}", job.frames);
        assert!(
            state != State::Completed || frames == job.frames,
            "job {id} lacks frames: it has {frames:?}"
        );
        assert!(
            job.done.iter().all(|(frame, hash)| done.get(frame) == Some(hash)),
            "job {id} lost what it had"
        );
        job.done = done;
    }

    /// The jobs that the server has and the model does not, oldest first. One that a command which was broken off had
    /// asked for just before may be made a little later.
    pub fn new_jobs(&mut self) -> Vec<(u64, Value)> {
        let list = self.get("jobs?limit=500").unwrap();
        let id = |view: &Value| view["id"].as_u64().unwrap();
        let views = list["jobs"].as_array().unwrap().iter().filter(|view| !self.jobs.contains_key(&id(view)));
        let mut new: Vec<(u64, Value)> = views.map(|view| (id(view), view.clone())).collect();
        new.reverse();
        if let Some(Late { ask, state, until_ms }) = &self.late
            && new.first().is_some_and(|(_, view)| view["spec"]["save"]["read_ms"].as_i64() < Some(*until_ms))
        {
            let (ask, state, (id, view)) = (ask.clone(), *state, new.remove(0));
            self.late = None;
            self.tally.count("jobs made after their command was gone");
            self.made_so(id, &view, &ask, state);
        }
        new
    }

    /// The machine remembers the folder of a job's frames.
    pub fn is_noted(&self, side: Side, id: u64) -> bool {
        self.noted_mode(side, id).is_some()
    }

    /// The mode that a machine remembers for files that are in the way of a job's frames.
    pub fn noted_mode(&self, side: Side, id: u64) -> Option<Mode> {
        let notes = fs::read_dir(self.homes[side].data().join("jobs")).into_iter().flatten().flatten();
        let end = format!("-{id}.json");
        let note = notes.into_iter().find(|note| note.file_name().to_string_lossy().ends_with(&end))?;
        let note: Value = serde_json::from_slice(&fs::read(note.path()).ok()?).ok()?;
        let modes = [Mode::Continue, Mode::Replace, Mode::Skip, Mode::Overwrite, Mode::Error];
        modes.into_iter().find(|mode| note["existing"] == format!("{mode:?}").to_lowercase())
    }

    // The machines.

    pub fn command(&self, side: Side, args: &[&str]) -> Command {
        self.homes[side].kiln(args)
    }

    /// Starts a command, and notes it.
    pub fn start(&mut self, side: Side, args: &[&str]) -> Call {
        self.tell(format!("  on {side}: kiln {}", args.join(" ")));
        let home = &self.homes[side];
        Call::start(home.kiln(args), home.work().parent().unwrap())
    }

    /// Runs a command to its end.
    #[track_caller]
    pub fn run(&mut self, side: Side, args: &[&str]) -> Said {
        let call = self.start(side, args);
        self.ends(call)
    }

    #[track_caller]
    pub fn ends(&mut self, call: Call) -> Said {
        let said = call.end();
        self.tell(format!("    exit {}: {}", said.code, said.err.trim().replace('\n', "\n           ")));
        said
    }

    pub fn work(&self, side: Side) -> PathBuf {
        self.homes[side].work()
    }

    /// The end of a walk: what still runs ends, everything is in its place, and nothing goes on behind.
    pub fn finish(&mut self) {
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            self.settle(id);
        }
        self.check(&Changes::new());
        (self.worker, self.server) = (None, None);
        let folders: Vec<PathBuf> = SIDES.iter().map(|side| self.work(*side)).collect();
        let homes: Vec<&[u8]> =
            folders.iter().map(|work| work.parent().unwrap().as_os_str().as_bytes()).collect();
        let is_ours =
            |line: &[u8]| homes.iter().any(|home| line.windows(home.len()).any(|part| part == *home));
        wait_until(SOON, "every process has ended", || {
            let processes = fs::read_dir("/proc").unwrap().flatten();
            let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
            !lines.into_iter().any(|line| is_ours(&line))
        });
    }

    /// The files of a killed command go with the next but one at the latest: the next may find them still in use.
    #[track_caller]
    pub fn check_scratch(&mut self, side: Side) {
        let left = self.homes[side].leftovers();
        let stays: Vec<&PathBuf> = left.iter().filter(|path| self.scratch[side].contains(path)).collect();
        assert!(stays.is_empty(), "a farm inside a command is left: {stays:?}");
        self.scratch[side] = left;
    }

    // The user's files.

    pub fn make_project(&mut self, side: Side, path: PathBuf, content: Content) {
        self.scenes.put_together(&path, content);
        INPUTS.iter().for_each(|name| self.tree.input(path.join(name)));
        self.projects.push(Project { side, path, content, choice: 0 });
    }

    /// Saves a file as Blender does: the new one takes the name of the old.
    pub fn save(&mut self, from: &Path, to: PathBuf) {
        let fresh = to.with_extension("blend@");
        fs::copy(from, &fresh).unwrap();
        fs::rename(&fresh, &to).unwrap();
        self.tree.input(to);
    }

    /// One of the user's projects.
    pub fn any_project(&mut self) -> usize {
        self.rng.below(self.projects.len())
    }

    /// The identity of a command that reads this project now, for frames that go to `out`.
    pub fn maker(&self, project: &Project, out: &Path) -> Maker {
        let path = project.path.join(INPUTS[0]);
        let save = Save { from_out: Some(way(out, &path)), path, read: self.step };
        Maker { content: project.content, choice: project.choice, save }
    }

    /// Compares all folders and the farm's list of jobs with the model.
    #[track_caller]
    pub fn check(&mut self, changes: &Changes) -> Vec<PathBuf> {
        let written = self.tree.check(self.scenes, changes).unwrap_or_else(|why| panic!("{why}"));
        if self.server.is_some() {
            let new = self.new_jobs();
            assert!(new.is_empty(), "jobs that nobody made: {new:#?}");
        }
        written
    }
}

/// The flags of a choice.
pub fn flags(choice: usize) -> &'static [&'static str] {
    CHOICES[choice]
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("The user did:\n{}", self.story.join("\n"));
            for project in &self.projects {
                eprintln!("{project:?}");
            }
            for (id, job) in &self.jobs {
                eprintln!("job {id}: {job:?}");
            }
            eprintln!("Again: scripts/user-test {} {} {}", self.step - self.from, self.seed, self.from);
        }
    }
}
