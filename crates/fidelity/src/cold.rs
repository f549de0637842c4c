//! Cold renders: one new process for each frame, kept beside the scene.

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context as _, Result, anyhow, bail};
use kiln_testkit::Blender;

use crate::rows::{Facts, python};

/// The files of each frame, by their names below the project.
pub type Frames = BTreeMap<i32, BTreeMap<String, PathBuf>>;

/// The cold render of a row, `attempt` 0 for the reference. Renders what is not there yet.
pub fn cold(blender: &Blender, scripts: &Path, facts: &Facts, attempt: u32) -> Result<Frames> {
    let kept = facts.folder().join(if attempt == 0 { "cold".to_owned() } else { format!("cold-{attempt}") });
    let missing: Vec<i32> =
        facts.frames.iter().copied().filter(|frame| !kept.join(format!("{frame}.whole")).exists()).collect();
    if facts.sim && !missing.is_empty() {
        let before = files(facts.folder())?;
        let mut command = python(blender, &scripts.join("step.py"));
        command.arg(&facts.blend).args(facts.frames.iter().map(ToString::to_string));
        command.args(facts.trust.then_some("trust"));
        let output = command.output()?;
        let made = new_files(facts, &before)?;
        for frame in &facts.frames {
            let ending = format!("{frame:04}.");
            let of_frame = made.iter().filter(|(name, _)| name.contains(&ending)).collect();
            keep(&kept, *frame, of_frame).with_context(|| {
                format!(
                    "{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                )
            })?;
        }
    } else {
        for frame in missing {
            let before = files(facts.folder())?;
            let render = || blender.render_cold(&facts.blend, frame, None, facts.trust);
            catch_unwind(AssertUnwindSafe(render)).map_err(|panic| {
                let said = panic.downcast_ref::<String>().map_or("Blender failed", String::as_str);
                anyhow!("a cold render fails: {}", said.chars().take(2000).collect::<String>())
            })?;
            let made = new_files(facts, &before)?;
            keep(&kept, frame, made.iter().collect())?;
        }
    }
    let mut frames = Frames::new();
    for frame in &facts.frames {
        let folder = kept.join(frame.to_string());
        let mut named = BTreeMap::new();
        for file in files(&folder)? {
            let name = file.strip_prefix(&folder)?.to_string_lossy().into_owned();
            named.insert(name, file);
        }
        frames.insert(*frame, named);
    }
    Ok(frames)
}

/// What is new since, with its name below the project.
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

fn keep(kept: &Path, frame: i32, made: Vec<&(String, PathBuf)>) -> Result<()> {
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

/// Renders the rows that lack cold frames, two at a time.
pub fn cold_all(
    blender: &Blender,
    scripts: &Path,
    rows: &[&Facts],
    threads: usize,
) -> BTreeMap<String, Result<Frames>> {
    let queue = Mutex::new(rows.iter());
    let done = Mutex::new(BTreeMap::new());
    let next = || queue.lock().ok().and_then(|mut rows| rows.next().copied());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(row) = next() {
                    let frames = cold(blender, scripts, row, 0);
                    if let Ok(mut done) = done.lock() {
                        done.insert(row.id.clone(), frames);
                    }
                }
            });
        }
    });
    done.into_inner().unwrap_or_default()
}
