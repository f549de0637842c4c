//! The Blenders of this machine.

use std::{
    collections::{BTreeMap, HashSet},
    env, fs,
    io::Read,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use kiln_files::{Access, Durability, write_atomically};
use kiln_types::{BlenderFlavor, BlenderVersion};
use serde::{Deserialize, Serialize};

/// A Blender on this machine, as a quick look without starting its engines shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlenderInstall {
    /// The program, or the Python.
    #[serde(with = "kiln_types::paths::exact")]
    pub program: PathBuf,
    pub flavor: BlenderFlavor,
    pub version: BlenderVersion,
    /// Empty where only a running Blender tells it.
    #[serde(default)]
    pub build_hash: String,
}

/// The time in which a program must name its version.
const LIMIT: Duration = Duration::from_secs(60);

/// Finds every Blender: `extra` first, then those that `kiln blender install` made below `data_dir`, then on PATH
/// and in the usual places. An extra path is a program, a folder that holds one, or a Python with `bpy`. The
/// result for each is kept in `cache_dir`, so that a second start costs nothing. Sorted by version, newest first;
/// of one version the earlier found comes first. Blocking.
pub fn discover(extra: &[PathBuf], data_dir: &Path, cache_dir: &Path) -> Vec<BlenderInstall> {
    let mut cache = Cache::load(cache_dir);
    let mut found: Vec<BlenderInstall> = Vec::new();
    let mut seen = HashSet::new();
    for path in candidates(extra, data_dir) {
        // A venv's Python is a link to one that has no bpy: its own path tells them apart.
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        let key = if is_python(&path) { path.clone() } else { real };
        if seen.insert(key)
            && let Some(install) = cache.look(&path)
        {
            found.push(install);
        }
    }
    cache.save(cache_dir);
    found.sort_by_key(|install| std::cmp::Reverse(install.version));
    found
}

/// Inspects one path as [`discover`] does, without a cache. Blocking.
pub fn inspect(path: &Path) -> Result<BlenderInstall, String> {
    let programs = programs_in(path);
    let none = || format!("{} is no Blender, no folder with one, and no Python with bpy", path.display());
    programs.iter().find_map(|program| look(program)).ok_or_else(none)
}

fn candidates(extra: &[PathBuf], data_dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = extra.iter().flat_map(|path| programs_in(path)).collect();
    paths.extend(children(&data_dir.join("blenders"), "").iter().flat_map(|venv| programs_in(venv)));
    if let Some(path) = env::var_os("PATH") {
        paths.extend(env::split_paths(&path).map(|folder| folder.join("blender")));
    }
    for fixed in ["/usr/bin/blender", "/usr/local/bin/blender", "/snap/bin/blender"] {
        paths.push(fixed.into());
    }
    let home = env::var_os("HOME").map(PathBuf::from);
    let folders = [Some(PathBuf::from("/opt")), Some(PathBuf::from("/usr/local")), home];
    for folder in folders.into_iter().flatten() {
        paths.extend(children(&folder, "blender").iter().flat_map(|folder| programs_in(folder)));
    }
    paths.retain(|path| is_program(path));
    paths
}

/// Entries of a folder whose names begin so, sorted.
fn children(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().to_lowercase();
        name.starts_with(prefix).then(|| entry.path())
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(named).collect();
    paths.sort();
    paths
}

/// The programs that a path may mean.
fn programs_in(path: &Path) -> Vec<PathBuf> {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    if !path.is_dir() {
        return if is_program(&path) { vec![path] } else { Vec::new() };
    }
    let mut programs: Vec<PathBuf> = ["blender", "bin/python", "bin/python3"]
        .iter()
        .map(|name| path.join(name))
        .filter(|path| is_program(path))
        .collect();
    programs.dedup_by(|a, b| is_python(a) && is_python(b));
    if programs.is_empty() {
        // A folder of Blenders, as archives unpack.
        programs =
            children(&path, "").iter().map(|child| child.join("blender")).filter(|p| is_program(p)).collect();
    }
    programs
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn is_python(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"))
}

fn look(program: &Path) -> Option<BlenderInstall> {
    let install = if is_python(program) { look_python(program) } else { look_blender(program) };
    if install.is_none() {
        tracing::warn!(program = %program.display(), "program skipped: it names no Blender version");
    }
    install
}

fn look_blender(program: &Path) -> Option<BlenderInstall> {
    let text = output(Command::new(program).arg("--version"))?;
    let first = text.lines().find_map(|line| line.trim().strip_prefix("Blender "))?;
    let version = first.split_whitespace().next()?.parse().ok()?;
    let hash = text.lines().find_map(|line| line.trim().strip_prefix("build hash:"));
    Some(BlenderInstall {
        program: program.to_path_buf(),
        flavor: BlenderFlavor::Executable,
        version,
        build_hash: hash.unwrap_or_default().trim().to_owned(),
    })
}

/// Asks for the wheel's version without importing it: the import alone takes half a second.
fn look_python(program: &Path) -> Option<BlenderInstall> {
    let script = "import importlib.metadata as m; print(m.version('bpy'))";
    let text = output(Command::new(program).args(["-I", "-c", script]))?;
    let version = text.trim().parse().ok()?;
    Some(BlenderInstall {
        program: program.to_path_buf(),
        flavor: BlenderFlavor::Module,
        version,
        build_hash: String::new(),
    })
}

/// Returns the output of a program; `None` where it fails, hangs, or prints more than a version needs.
fn output(command: &mut Command) -> Option<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let stdout = child.stdout.take()?;
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _cut = stdout.take(64 << 10).read_to_end(&mut text);
        text
    });
    let started = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if started.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(2)),
            _ => {
                let _gone = child.kill();
                let _reaped = child.wait();
                return None;
            }
        }
    };
    let text = reader.join().ok()?;
    status.success().then(|| String::from_utf8_lossy(&text).into_owned())
}

/// The results for programs, by path, valid while time and size of the file stay.
#[derive(Default, Serialize, Deserialize)]
struct Cache {
    known: BTreeMap<PathBuf, Known>,
    #[serde(skip)]
    changed: bool,
}

#[derive(Serialize, Deserialize)]
struct Known {
    stamp: String,
    install: Option<BlenderInstall>,
}

const CACHE_NAME: &str = "blenders.json";

impl Cache {
    fn load(folder: &Path) -> Self {
        let bytes = fs::read(folder.join(CACHE_NAME)).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// A cache that cannot be written costs time, nothing else.
    fn save(&self, folder: &Path) {
        if !self.changed {
            return;
        }
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            let text = serde_json::to_vec(self)?;
            write_atomically(&folder.join(CACHE_NAME), &text, Access::Owner, Durability::Ephemeral)
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "cache of Blenders not written");
        }
    }

    fn look(&mut self, program: &Path) -> Option<BlenderInstall> {
        let stamp = stamp(program)?;
        if let Some(known) = self.known.get(program)
            && known.stamp == stamp
        {
            return known.install.clone();
        }
        let install = look(program);
        self.changed = true;
        self.known.insert(program.to_path_buf(), Known { stamp, install: install.clone() });
        install
    }
}

/// Changes when the program does; for a Python also when packages come and go.
fn stamp(program: &Path) -> Option<String> {
    let one = |path: &Path| {
        let meta = path.metadata().ok()?;
        Some(format!("{}.{}+{}", meta.mtime(), meta.mtime_nsec(), meta.size()))
    };
    let mut stamp = one(program)?;
    if is_python(program) {
        let lib = program.parent().and_then(Path::parent).map(|venv| venv.join("lib"));
        for python in lib.iter().flat_map(|lib| children(lib, "python")) {
            stamp.extend(one(&python.join("site-packages")));
        }
    }
    Some(stamp)
}
