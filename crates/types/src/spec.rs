//! A job as it was asked for, and the part of it that a warm Blender holds.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    BlenderSeries, BlenderVersion, BlobHash, BundleId, DeviceClass, FrameSet, Order, Owner, Policy, Project,
    RelPath, RenderSettings,
};

/// What a Blender process has open: everything of a job but its frames. Two jobs with equal session specs can
/// share a warm process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct SessionSpec {
    pub bundle: BundleId,
    /// The .blend inside the bundle.
    pub blend: RelPath,
    /// The folder of the .blend on the artist's machine: output paths below it keep their place.
    #[serde(default)]
    pub origin: Option<String>,
    /// The series of Blender that renders.
    pub blender: BlenderSeries,
    pub device: DeviceClass,
    #[serde(default)]
    pub settings: RenderSettings,
    #[serde(default)]
    pub policy: Policy,
}

/// Names a [`SessionSpec`]: the hash of its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct SessionKey(pub BlobHash);

impl SessionSpec {
    pub fn key(&self) -> SessionKey {
        // Cannot fail: the type holds no map with keys other than text, and no float.
        let json = serde_json::to_vec(self).unwrap_or_default();
        SessionKey(BlobHash::of(&json))
    }
}

/// One submission, as it is stored and as the job's page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobSpec {
    pub name: String,
    #[serde(default)]
    pub owner: Owner,
    #[serde(default)]
    pub project: Project,
    pub frames: FrameSet,
    pub order: Order,
    /// A frame that takes longer, in seconds, is a failed attempt.
    pub frame_time_limit_s: Option<u32>,
    /// The version that wrote the .blend.
    pub written_by: BlenderVersion,
    pub session: SessionSpec,
}

/// The manifest of a bundle: the files of a job, laid out as they lie beside each other on a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Bundle {
    pub files: Vec<BundleFile>,
    /// Paths as they stand in the .blend, and where the bundle holds those files: only for paths that do not
    /// resolve by themselves from the .blend's place in the bundle.
    #[serde(default)]
    pub remap: BTreeMap<String, RelPath>,
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct BundleFile {
    pub path: RelPath,
    pub hash: BlobHash,
    /// Bytes.
    pub size: u64,
}

impl Bundle {
    pub const MAX_FILES: usize = 1_000_000;

    /// The manifest's bytes: what is stored, and what [`BundleId`] is the hash of. Files are sorted, so that
    /// the same files make the same bundle.
    pub fn to_manifest(&self) -> Vec<u8> {
        let mut sorted = self.clone();
        sorted.files.sort_by(|a, b| a.path.cmp(&b.path));
        serde_json::to_vec(&sorted).unwrap_or_default()
    }

    pub fn id(&self) -> BundleId {
        BundleId(BlobHash::of(&self.to_manifest()))
    }

    /// Bytes of all files together.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}
