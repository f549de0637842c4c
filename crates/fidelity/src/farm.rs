//! A real server and a real worker that does not see the artist's folders.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use kiln_testkit::Blender;
use serde_json::Value;

use crate::{
    cold::{Frames, files},
    compare::{difference, texts},
    rows::Facts,
};

/// The time that each row of a batch may take.
const LIMIT: Duration = Duration::from_secs(120);

/// The result of a row on the farm.
#[derive(Debug)]
pub enum Farmed {
    Equal,
    Differs(String),
    Refused(String),
}

/// Rows that were submitted.
pub struct Submitted<'a> {
    refused: BTreeMap<String, Farmed>,
    jobs: Vec<(&'a Facts, &'a Frames, String)>,
}

/// The farm; ends when dropped.
pub struct Farm {
    kiln: PathBuf,
    /// The texts inside PNGs are compared.
    texts: bool,
    home: tempfile::TempDir,
    server: Child,
    worker: Child,
}

impl Drop for Farm {
    fn drop(&mut self) {
        for child in [&mut self.worker, &mut self.server] {
            // Its process may have ended already; Blenders end with it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Farm {
    /// Starts a server, and a worker of these Blenders that does not see `hidden`.
    pub fn start(kiln: &Path, blenders: &[Blender], hidden: &Path, texts: bool) -> Result<Self> {
        if !can_hide() {
            bail!(
                "this machine lets no process hide a folder from another (unshare), so no worker can be without it"
            );
        }
        let home = tempfile::Builder::new().prefix("kiln-fidelity-farm-").tempdir()?;
        let quiet = |mut command: Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
        };
        let serve = at_home(kiln, home.path(), &["server", "--listen", "127.0.0.1:0"]);
        let server = quiet(inside(mortal(), &serve, home.path()))?;
        let ready = home.path().join("share/kiln/server.json");
        let started = Instant::now();
        while !(ready.exists() && home.path().join("share/kiln/farm.key").exists()) {
            if started.elapsed() > Duration::from_secs(60) {
                bail!("the server does not come up");
            }
            sleep(Duration::from_millis(20));
        }
        let mut args = vec!["worker".to_owned(), "--slots".to_owned(), "2".to_owned()];
        for blender in blenders {
            args.extend(["--blender".to_owned(), blender.program().display().to_string()]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let plain = at_home(kiln, home.path(), &args);
        let worker = quiet(inside(hiding(hidden), &plain, home.path()))?;
        Ok(Self { kiln: kiln.to_owned(), texts, home, server, worker })
    }

    fn json(&self, args: &[&str]) -> Result<Result<Value, String>> {
        let output = at_home(&self.kiln, self.home.path(), args).output()?;
        if !output.status.success() {
            return Ok(Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        // What reports its progress prints a line for each event before the result.
        let last = serde_json::Deserializer::from_slice(&output.stdout).into_iter().last();
        Ok(Ok(last.context("Kiln prints nothing")?.context("Kiln prints no JSON")?))
    }

    /// Submits the rows; [`Farm::fetch`] waits for them.
    pub fn submit<'a>(&mut self, rows: &[(&'a Facts, &'a Frames)]) -> Result<Submitted<'a>> {
        let mut submitted = Submitted { refused: BTreeMap::new(), jobs: Vec::new() };
        for (facts, cold) in rows {
            let blend = facts.blend.display().to_string();
            let range = facts.range();
            let mut args = vec!["submit", &blend, "--frames", &range, "--device", "cpu", "--json"];
            args.extend(facts.trust.then_some("--trust"));
            args.extend(facts.options.iter().map(String::as_str));
            match self.json(&args)? {
                Ok(job) => submitted.jobs.push((facts, cold, job["job"]["id"].to_string())),
                Err(said) => {
                    submitted.refused.insert(facts.id.clone(), Farmed::Refused(said));
                }
            }
        }
        Ok(submitted)
    }

    /// Waits for the jobs and compares their frames.
    pub fn fetch(&mut self, submitted: Submitted<'_>) -> Result<BTreeMap<String, Farmed>> {
        let Submitted { refused: mut done, mut jobs } = submitted;
        let until = Instant::now() + LIMIT + LIMIT.mul_f64(0.25) * u32::try_from(jobs.len())?;
        while !jobs.is_empty() {
            let views = match self.json(&["jobs", "--json", "--all", "--limit", "500"])? {
                Ok(mut listed) => listed["jobs"].take(),
                Err(said) => bail!("the jobs cannot be seen: {said}"),
            };
            let mut left = Vec::new();
            for (facts, cold, job) in jobs {
                let all = views.as_array().map_or(&[][..], Vec::as_slice);
                let none = Value::Null;
                let is_it = |view: &&Value| view["id"].as_u64().is_some_and(|id| id.to_string() == job);
                let view = all.iter().find(is_it).unwrap_or(&none);
                let farmed = match view["state"].as_str() {
                    Some("completed") => self.compare(facts, cold, &job)?,
                    Some("failed") => Farmed::Refused(self.reason(&job, view)?),
                    state if Instant::now() > until => {
                        let why = format!("the job is still {state:?}: {}", view["waits_for"]);
                        let _ = self.json(&["jobs", "cancel", &job, "--json"])?;
                        Farmed::Refused(why)
                    }
                    _ => {
                        left.push((facts, cold, job));
                        continue;
                    }
                };
                done.insert(facts.id.clone(), farmed);
            }
            jobs = left;
            sleep(Duration::from_millis(200));
        }
        Ok(done)
    }

    fn reason(&self, job: &str, view: &Value) -> Result<String> {
        let failures = self.json(&["jobs", "failures", job, "--json"])?.unwrap_or_default();
        let message = failures["attempts"][0]["failure"]["message"].as_str().or(view["reason"].as_str());
        Ok(message.unwrap_or("the job failed without a reason").to_owned())
    }

    fn compare(&self, facts: &Facts, cold: &Frames, job: &str) -> Result<Farmed> {
        let out = self.home.path().join(format!("out-{job}"));
        let into = out.display().to_string();
        if let Err(said) = self.json(&["jobs", "fetch", job, "--out", &into, "--json"])? {
            return Ok(Farmed::Differs(format!("the frames cannot be fetched: {said}")));
        }
        let mut came = BTreeMap::new();
        for file in files(&out)? {
            let name = file.strip_prefix(&out)?.to_string_lossy().into_owned();
            if !name.starts_with(".kiln") {
                came.insert(name, file);
            }
        }
        let mut found = Farmed::Equal;
        for frame in &facts.frames {
            // What is to be refused may have no cold frames.
            let Some(cold) = cold.get(frame) else { continue };
            let others: Vec<i32> = facts.frames.iter().copied().filter(|other| other != frame).collect();
            // The files of this frame: those that a cold render of it has, and those that no other frame has.
            let of_frame = |name: &str| {
                cold.contains_key(name) || !others.iter().any(|other| name.contains(&format!("{other:04}")))
            };
            let named: BTreeMap<_, _> =
                came.iter().filter(|(name, _)| of_frame(name)).map(|(n, f)| (n.clone(), f.clone())).collect();
            if let Some(how) = difference(cold, &named) {
                found = Farmed::Differs(format!("on the farm, frame {frame}: {how}"));
                break;
            }
            let text = cold.iter().find_map(|(name, file)| texts(file, &named[name]));
            if let (Some(how), false) = (text, facts.sim || facts.of_range || !self.texts) {
                found = Farmed::Differs(format!("on the farm, frame {frame}: {how}"));
                break;
            }
        }
        fs::remove_dir_all(&out)?;
        Ok(found)
    }
}

/// A command prefix: the command ends with this process, even if it is killed.
fn mortal() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    command
}

/// The command, behind another's arguments and with its own environment.
fn inside(mut outer: Command, command: &Command, folder: &Path) -> Command {
    outer.arg(command.get_program()).args(command.get_args()).current_dir(folder);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// A command prefix: the command sees an empty folder in place of this one.
fn hiding(hidden: &Path) -> Command {
    let mut command = mortal();
    command.arg("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", "mount -t tmpfs none \"$0\" && exec \"$@\""]).arg(hidden);
    command
}

/// This machine lets a process hide a folder from another.
pub fn can_hide() -> bool {
    let Ok(folder) = tempfile::tempdir() else { return false };
    let seen = fs::write(folder.path().join("seen"), "")
        .and_then(|()| hiding(folder.path()).args(["ls", "-A"]).arg(folder.path()).output());
    seen.is_ok_and(|output| output.status.success() && output.stdout.is_empty())
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// The program in a home of its own.
fn at_home(kiln: &Path, home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(kiln);
    command.args(args).current_dir(home).stdin(Stdio::null()).env("HOME", home);
    for (name, folder) in
        [("XDG_DATA_HOME", "share"), ("XDG_CONFIG_HOME", "config"), ("XDG_CACHE_HOME", "cache")]
    {
        command.env(name, home.join(folder));
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("KILN_") {
            command.env_remove(name);
        }
    }
    command.env("KILN_YIELD", "no");
    command
}
