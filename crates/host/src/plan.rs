//! The files of a frame, named before it renders.

use std::collections::HashSet;

use kiln_types::{ColorDepth, FileFormat, OutputRole, OutputSet, RelPath};
use serde::Deserialize;

/// One file that a frame must deliver.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PlannedFile {
    /// The artist's own name, below the output folder.
    pub path: RelPath,
    /// The path below the frame's scratch folder.
    pub scratch: RelPath,
    pub role: OutputRole,
    pub format: FileFormat,
    pub depth: ColorDepth,
    /// Pixels; 0 where a compositor node, not the scene, decides (a File Output node behind a scaled picture).
    pub width: u32,
    /// Pixels; 0 where `width` is.
    pub height: u32,
}

/// The files that every frame of an opened session writes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct OutputPlan {
    /// The files of the current frame of the .blend, as an example of the names.
    pub files: Vec<PlannedFile>,
    /// The engine that renders, by Blender's name.
    pub engine: String,
    /// The device that renders, as read back from Blender: `CPU`, or the names of the GPUs.
    pub device: String,
}

/// # Errors
/// The rule that the plan breaks.
pub(crate) fn check(files: &[PlannedFile]) -> Result<(), String> {
    if files.is_empty() {
        return Err("it plans no file at all".to_owned());
    }
    if files.len() > OutputSet::MAX_FILES {
        return Err(format!("it plans more than {} files for one frame", OutputSet::MAX_FILES));
    }
    let (mut names, mut places) = (HashSet::new(), HashSet::new());
    for file in files {
        if !names.insert(file.path.as_str().to_lowercase()) {
            return Err(format!("it plans two files named {}", file.path));
        }
        if !places.insert(file.scratch.as_str()) {
            return Err(format!("it plans two files in one place, {}", file.scratch));
        }
        let is_main = matches!(file.role, OutputRole::Main { .. });
        if (is_main && file.width == 0) || (file.width == 0) != (file.height == 0) {
            return Err(format!("it plans {} without pixels", file.path));
        }
    }
    Ok(())
}
