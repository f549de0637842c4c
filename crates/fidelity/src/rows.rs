//! The rows of the table: built by Blender, judged here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use kiln_testkit::Blender;
use serde::{Deserialize, Serialize};

/// The facts of a feature in one version, as `tests/fidelity/build.py` prints them.
#[derive(Debug, Clone, Deserialize)]
pub struct Facts {
    pub id: String,
    pub title: String,
    /// Of the feature's source.
    pub hash: String,
    pub blend: PathBuf,
    pub frames: Vec<i32>,
    pub trust: bool,
    /// A simulation that is not baked: the reference steps through the frames.
    pub sim: bool,
    /// The reference of 4.2 and 4.5 renders a range of one frame: it takes a setting as the frame before left it, as `-f N`
    /// does, and a still does not.
    #[serde(default)]
    pub of_range: bool,
    /// Words of the message with which Kiln refuses it; empty where it renders.
    pub refuses: String,
    /// `still` where the frames are alike, or empty.
    pub expect: String,
    /// The ending of files that Kiln leaves out on purpose, and says so.
    #[serde(default)]
    pub leaves_out: Option<String>,
    /// More options of `kiln submit`.
    pub options: Vec<String>,
    /// `built`, `absent` or `failed`.
    pub status: String,
    #[serde(default)]
    pub reason: String,
}

impl Facts {
    /// The folder of the project, where the .blend lies.
    pub fn project(&self) -> &Path {
        self.blend.parent().unwrap_or(Path::new("/"))
    }

    /// The folder of the row: the project and what lies outside of it.
    pub fn folder(&self) -> &Path {
        self.project().parent().unwrap_or(Path::new("/"))
    }

    /// The frames as `kiln submit` takes them.
    pub fn range(&self) -> String {
        self.frames.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }
}

/// The cell of a row and a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Verdict {
    /// Every file of every frame has the pixels of the cold render, whichever way it was rendered.
    Equal,
    /// Kiln refuses, as it should, with this message.
    Refused { why: String },
    /// Two cold renders differ.
    BlenderDiffers { how: String },
    /// This version does not have the feature.
    Absent { why: String },
    /// Nobody has rendered it yet.
    NotRun,
    /// Kiln's pixels are not Blender's: a bug.
    Differs { how: String },
    /// Kiln refuses what it should render, or renders what it should refuse: a bug.
    Unexpected { why: String },
    /// The row proves nothing: an error of the row.
    ProvesNothing { why: String },
    /// Blender itself cannot build or render it: an error of the row.
    Broken { why: String },
}

impl Verdict {
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Equal | Self::Refused { .. } | Self::BlenderDiffers { .. } | Self::Absent { .. })
    }
}

/// A result that is kept in the cache folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Known {
    pub version: String,
    pub id: String,
    pub title: String,
    pub hash: String,
    /// Of the Kiln that rendered it.
    pub kiln: String,
    pub verdict: Verdict,
    /// The place of the feature in its chapter.
    pub order: usize,
}

/// The results that are kept, the latest of each row and version.
pub fn known(file: &Path) -> Result<BTreeMap<(String, String), Known>> {
    let mut all = BTreeMap::new();
    let Ok(text) = fs::read_to_string(file) else { return Ok(all) };
    for line in text.lines() {
        // A run that was killed may leave half a line.
        let Ok(one) = serde_json::from_str::<Known>(line) else { continue };
        all.insert((one.version.clone(), one.id.clone()), one);
    }
    Ok(all)
}

/// Builds the features in one process of this Blender; those that have not changed are there already.
pub fn build(blender: &Blender, scripts: &Path, target: &Path, only: &[String]) -> Result<Vec<Facts>> {
    fs::create_dir_all(target)?;
    let mut command = python(blender, &scripts.join("build.py"));
    let output = command.arg(target).args(only).output().context("Blender cannot be started")?;
    let said =
        || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let log = target.join("build.log");
    fs::write(&log, said())?;
    if !output.status.success() {
        bail!("the features cannot be built by {blender:?}; see {}", log.display());
    }
    let text = fs::read_to_string(target.join("rows.jsonl"))?;
    let mut facts = Vec::new();
    for line in text.lines() {
        facts.push(serde_json::from_str(line)?);
    }
    Ok(facts)
}

/// A command that runs a script in a new process of this Blender; the script's arguments follow.
pub fn python(blender: &Blender, script: &Path) -> Command {
    let mut command = Command::new(blender.program());
    match blender {
        Blender::Executable(_) => {
            command.args(["--background", "--factory-startup", "--python-exit-code", "1", "--python"]);
            command.arg(script).arg("--");
        }
        Blender::Module(_) => {
            command.arg("-I").arg(script);
        }
    }
    command.stdin(Stdio::null());
    command
}
