//! Cold renders: a process of its own for each frame, kept beside the scene.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, anyhow, bail};
use kiln_testkit::Blender;
use serde::Serialize;

use crate::rows::{Facts, python};

/// The files of each frame, by their names below the project.
pub type Frames = BTreeMap<i32, BTreeMap<String, PathBuf>>;

/// The folder of the cold frames of a row.
const KEPT: &str = "cold";

/// The input of `cold.py` for a row.
#[derive(Serialize)]
struct Work<'a> {
    blend: &'a Path,
    folder: &'a Path,
    frames: &'a [i32],
    trust: bool,
    sim: bool,
    of_range: bool,
    /// The row is the only one: a simulation then needs no fork.
    alone: bool,
    kept: PathBuf,
}

impl<'a> Work<'a> {
    fn of(facts: &'a Facts, kept: &str, alone: bool) -> Self {
        let kept = facts.folder().join(kept);
        let Facts { blend, frames, trust, sim, of_range, .. } = facts;
        let (trust, sim, of_range) = (*trust, *sim, *of_range);
        Self { blend, folder: facts.folder(), frames, trust, sim, of_range, alone, kept }
    }
}

/// The cold frames of each row. Those that are not kept are rendered: each in a process of its own, which is a fork of a
/// Blender that has opened nothing, `threads` of them side by side.
pub fn cold(
    blender: &Blender,
    scripts: &Path,
    rows: &[&Facts],
    threads: usize,
) -> Result<BTreeMap<String, Result<Frames>>> {
    let missing: Vec<_> = rows.iter().filter(|row| !whole(row, KEPT)).collect();
    let folder = tempfile::tempdir()?;
    let mut running = Vec::new();
    for (index, part) in missing.chunks(missing.len().div_ceil(threads).max(1)).enumerate() {
        let work: Vec<_> = part.iter().map(|row| Work::of(row, KEPT, false)).collect();
        let file = folder.path().join(format!("{index}.json"));
        fs::write(&file, serde_json::to_vec(&work)?)?;
        let mut command = python(blender, &scripts.join("cold.py"));
        running.push(command.arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
    }
    for mut child in running {
        // What it has not rendered is rendered below, with its reason.
        child.wait()?;
    }
    let mut done = BTreeMap::new();
    for row in rows {
        let frames =
            if whole(row, KEPT) { kept(row, KEPT) } else { new_processes(blender, scripts, row, KEPT) };
        done.insert(row.id.clone(), frames);
    }
    Ok(done)
}

/// The frames of a row by completely new processes, kept below this name.
pub fn new_processes(blender: &Blender, scripts: &Path, facts: &Facts, name: &str) -> Result<Frames> {
    let folder = facts.folder().join(name);
    if facts.sim || facts.of_range {
        let work = tempfile::NamedTempFile::new()?;
        fs::write(work.path(), serde_json::to_vec(&[Work::of(facts, name, true)])?)?;
        let output = python(blender, &scripts.join("cold.py")).arg(work.path()).output()?;
        if !whole(facts, name) {
            let said = [output.stdout, output.stderr].concat();
            bail!("a cold render fails: {}", tail(&String::from_utf8_lossy(&said)));
        }
        return kept(facts, name);
    }
    for frame in &facts.frames {
        if folder.join(format!("{frame}.whole")).exists() {
            continue;
        }
        let before = files(facts.folder())?;
        let render = || blender.render_cold(&facts.blend, *frame, None, facts.trust);
        catch_unwind(AssertUnwindSafe(render)).map_err(|panic| {
            let said = panic.downcast_ref::<String>().map_or("Blender failed", String::as_str);
            anyhow!("a cold render fails: {}", tail(said))
        })?;
        keep(&folder, *frame, &new_files(facts, &before)?)?;
    }
    kept(facts, name)
}

/// The end of what a process said.
fn tail(said: &str) -> String {
    let lines: Vec<_> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(6)..].join(" | ")
}

fn whole(facts: &Facts, name: &str) -> bool {
    let kept = facts.folder().join(name);
    facts.frames.iter().all(|frame| kept.join(format!("{frame}.whole")).exists())
}

fn kept(facts: &Facts, name: &str) -> Result<Frames> {
    let mut frames = Frames::new();
    for frame in &facts.frames {
        let folder = facts.folder().join(name).join(frame.to_string());
        let mut named = BTreeMap::new();
        for file in files(&folder)? {
            let name = file.strip_prefix(&folder)?.to_string_lossy().into_owned();
            named.insert(name, file);
        }
        frames.insert(*frame, named);
    }
    Ok(frames)
}

/// Takes other frames for the cold ones of a row.
pub fn replace(facts: &Facts, by: &str) -> Result<Frames> {
    fs::remove_dir_all(facts.folder().join(KEPT))?;
    fs::rename(facts.folder().join(by), facts.folder().join(KEPT))?;
    kept(facts, KEPT)
}

/// The files that were written since, with the name below the project.
fn new_files(facts: &Facts, before: &[PathBuf]) -> Result<Vec<(String, PathBuf)>> {
    let mut made = Vec::new();
    for file in files(facts.folder())? {
        if before.binary_search(&file).is_err() {
            let Ok(name) = file.strip_prefix(facts.project()) else { continue };
            // Caches of simulations and of the sequencer are no output.
            let name = name.to_string_lossy().into_owned();
            if !name.starts_with("blendcache_") {
                made.push((name, file));
            }
        }
    }
    Ok(made)
}

fn keep(kept: &Path, frame: i32, made: &[(String, PathBuf)]) -> Result<()> {
    if made.is_empty() {
        bail!("a cold render of frame {frame} wrote nothing");
    }
    for (name, file) in made {
        let to = kept.join(frame.to_string()).join(name);
        fs::create_dir_all(to.parent().unwrap_or(kept))?;
        fs::rename(file, to)?;
    }
    fs::write(kept.join(format!("{frame}.whole")), "")?;
    Ok(())
}

/// All files below a folder, sorted; cold renders that are kept, and their marks, are passed over.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(one) = folders.pop() {
        for entry in fs::read_dir(&one).with_context(|| one.display().to_string())? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                if !(one == folder && entry.file_name().to_string_lossy().starts_with("cold")) {
                    folders.push(entry.path());
                }
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
