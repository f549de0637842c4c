//! Files that Blender builds for tests: once, by the first test process that asks for them.

use std::{
    env,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Blender, blender};

/// Returns a folder that `build` has filled. It is built once for all test processes, below the target folder, and again
/// when `inputs` change; processes that ask meanwhile wait. Tests must not write to it.
///
/// # Panics
/// If `build` panics or the disk fails. The next call builds it again.
pub fn build_once(name: &str, inputs: impl Hash, build: impl FnOnce(&Path)) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    let test = env::current_exe().expect("a test knows its own program");
    let target = test.parent().and_then(Path::parent).expect("tests lie in a target folder");
    let folder = target.join(format!("{name}-{:016x}", hasher.finish()));
    // The files may hold their own path, so they are built in place and not moved when they are complete.
    let complete = folder.with_extension("complete");
    if !complete.exists() {
        let lock = File::create(folder.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        if !complete.exists() {
            if folder.exists() {
                fs::remove_dir_all(&folder).unwrap();
            }
            fs::create_dir(&folder).unwrap();
            build(&folder);
            File::create(&complete).unwrap();
        }
    }
    folder
}

/// Returns the folder that a script for [`blender`] has filled; it is the script's only argument. `files` are the script
/// and the modules that lie beside it, as names and texts. See [`build_once`].
///
/// # Panics
/// If the script fails.
pub fn built(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let program = Blender::Executable(blender());
    build_once(name, (files, program.age()), |folder| {
        let sources = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(sources.path().join(name), text).unwrap();
        }
        run(program.script(&sources.path().join(files[0].0)).arg(folder));
    })
}

impl Blender {
    /// Returns the folder that a script has filled with this Blender, see [`build_once`]. The script's arguments are the
    /// folder and `more`. It writes the file `last` at its end: the exit code proves nothing, because a wheel may crash
    /// afterwards.
    ///
    /// # Panics
    /// If the script does not write that file.
    pub fn build(&self, script: &Path, more: &[&Path], last: &str) -> PathBuf {
        let name = format!("kiln-{}", script.file_stem().expect("a script has a name").to_string_lossy());
        let mut sources = Vec::new();
        let modules = imported(script);
        for path in modules.iter().map(PathBuf::as_path).chain([script]).chain(more.iter().copied()) {
            read_all(path, &mut sources);
        }
        build_once(&name, (self.age(), sources), |folder| {
            let mut command = self.script(script);
            let output = command.arg(folder).args(more).output().expect("Blender can be started");
            assert!(folder.join(last).is_file(), "{command:?} wrote no {last}:\n{}", said(&output));
        })
    }

    /// Returns a value that changes when this program is replaced.
    fn age(&self) -> impl Hash {
        (self.program().to_path_buf(), self.program().metadata().and_then(|meta| meta.modified()).ok())
    }
}

/// The modules beside a script that it imports: it is built again when one of them changes.
fn imported(script: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(script).unwrap();
    let names =
        text.lines().filter_map(|line| line.strip_prefix("import ").or_else(|| line.strip_prefix("from ")));
    let names = names.flat_map(|rest| rest.split(" import ").next().unwrap_or_default().split(','));
    names
        .map(|name| script.with_file_name(format!("{}.py", name.trim())))
        .filter(|path| path.is_file())
        .collect()
}

/// Reads a file, or the files of a folder in the order of their names, without Python's caches.
fn read_all(path: &Path, into: &mut Vec<(PathBuf, Vec<u8>)>) {
    if path.is_dir() {
        let mut below: Vec<PathBuf> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        below.retain(|path| path.file_name().is_none_or(|name| name != "__pycache__"));
        below.sort();
        below.iter().for_each(|path| read_all(path, into));
    } else {
        into.push((path.to_path_buf(), fs::read(path).unwrap()));
    }
}

/// Runs a Blender to its end.
///
/// # Panics
/// If it fails.
#[track_caller]
pub(crate) fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("Blender can be started");
    assert!(output.status.success(), "{command:?} ended with {}:\n{}", output.status, said(&output));
}

fn said(output: &std::process::Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_beside_a_script_are_inputs_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for (name, text) in [
            ("a.py", "import os, b\nfrom c import d\nprint('import e')\n"),
            ("b.py", ""),
            ("c.py", ""),
            ("e.py", ""),
        ] {
            fs::write(path(name), text).unwrap();
        }
        assert_eq!(imported(&path("a.py")), [path("b.py"), path("c.py")]);
    }
}
