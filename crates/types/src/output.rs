//! The files that a task makes.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{BlobHash, BundleFile, FileFormat, PixelReport, RelPath};

/// The role of a file among those of its frame.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutputRole {
    /// The picture itself; one for each view if the views are separate files.
    Main { view: Option<String> },
    /// A slot of a File Output node in the compositor.
    FileOutput { node: String, slot: String, view: Option<String> },
}

/// A file of an output set, checked and stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct OutputFile {
    /// The path below the output folder, by Blender's own rules.
    pub path: RelPath,
    pub role: OutputRole,
    pub hash: BlobHash,
    /// Bytes.
    pub size: u64,
    pub format: FileFormat,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The remarkable things in its pixels.
    #[serde(default, skip_serializing_if = "PixelReport::is_clear")]
    pub pixels: PixelReport,
}

/// A file of any kind that a task made. Stored at the server before it is reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFile {
    /// The path below the output folder, by Blender's own rules; or the path in its bundle.
    pub path: RelPath,
    pub hash: BlobHash,
    /// Bytes.
    pub size: u64,
    /// Absent for a file of a bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture: Option<PictureFacts>,
}

/// The part of an [`OutputFile`] that a file of a bundle does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureFacts {
    pub role: OutputRole,
    pub format: FileFormat,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    #[serde(default, skip_serializing_if = "PixelReport::is_clear")]
    pub pixels: PixelReport,
}

impl From<OutputFile> for TaskFile {
    fn from(file: OutputFile) -> Self {
        let OutputFile { path, role, hash, size, format, width, height, pixels } = file;
        Self { path, hash, size, picture: Some(PictureFacts { role, format, width, height, pixels }) }
    }
}

impl From<BundleFile> for TaskFile {
    fn from(BundleFile { path, hash, size }: BundleFile) -> Self {
        Self { path, hash, size, picture: None }
    }
}

impl From<TaskFile> for BundleFile {
    fn from(TaskFile { path, hash, size, picture: _ }: TaskFile) -> Self {
        Self { path, hash, size }
    }
}

/// All files that a task delivered: at least one, and no path twice. Every way to make one checks that.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Vec<OutputFile>", into = "Vec<OutputFile>")]
#[schema(value_type = Vec<OutputFile>)]
pub struct OutputSet(Vec<OutputFile>);

/// The reason why files are not an output set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutputSetError {
    #[error("an output set holds at least one file")]
    Empty,
    #[error("an output set holds at most {} files", OutputSet::MAX_FILES)]
    TooMany,
    #[error("two files of an output set are named {0}")]
    Twice(RelPath),
    #[error("{0} is an empty file")]
    EmptyFile(RelPath),
    #[error("{0} is no picture")]
    NoPicture(RelPath),
}

impl OutputSet {
    pub const MAX_FILES: usize = 1024;

    /// Checks the files. Names that differ only in letter case count as the same, because on some disks they are.
    pub fn new(files: Vec<OutputFile>) -> Result<Self, OutputSetError> {
        if files.is_empty() {
            return Err(OutputSetError::Empty);
        }
        if files.len() > Self::MAX_FILES {
            return Err(OutputSetError::TooMany);
        }
        let mut names = HashSet::new();
        for file in &files {
            if !names.insert(file.path.as_str().to_lowercase()) {
                return Err(OutputSetError::Twice(file.path.clone()));
            }
            if file.size == 0 {
                return Err(OutputSetError::EmptyFile(file.path.clone()));
            }
        }
        Ok(Self(files))
    }

    pub fn files(&self) -> &[OutputFile] {
        &self.0
    }
}

impl TryFrom<Vec<OutputFile>> for OutputSet {
    type Error = OutputSetError;
    fn try_from(files: Vec<OutputFile>) -> Result<Self, OutputSetError> {
        Self::new(files)
    }
}

impl From<OutputSet> for Vec<OutputFile> {
    fn from(set: OutputSet) -> Self {
        set.0
    }
}

impl TryFrom<Vec<TaskFile>> for OutputSet {
    type Error = OutputSetError;
    fn try_from(files: Vec<TaskFile>) -> Result<Self, OutputSetError> {
        let output = |TaskFile { path, hash, size, picture }: TaskFile| match picture {
            Some(PictureFacts { role, format, width, height, pixels }) => {
                Ok(OutputFile { path, role, hash, size, format, width, height, pixels })
            }
            None => Err(OutputSetError::NoPicture(path)),
        };
        Self::new(files.into_iter().map(output).collect::<Result<_, _>>()?)
    }
}

impl From<OutputSet> for Vec<TaskFile> {
    fn from(set: OutputSet) -> Self {
        set.0.into_iter().map(TaskFile::from).collect()
    }
}
