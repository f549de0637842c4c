//! The specification of a job, and the part of it that a Blender process holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    BlenderSeries, BlenderVersion, BlobHash, BundleId, DeviceClass, FrameSet, JobRequirements, JobScheduling,
    Order, Owner, Policy, Project, RelPath, RenderSettings, ShortName, frozen,
};

/// The contents of a Blender process: everything of a job but its frames. Two jobs with equal session specs can
/// share a warm process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct SessionSpec {
    pub bundle: BundleId,
    /// The .blend inside the bundle.
    pub blend: RelPath,
    /// The folder of the .blend on the artist's machine: output paths below it keep their place. As
    /// [`crate::paths::spelled`] writes it.
    #[serde(default)]
    pub origin: Option<String>,
    /// The name of the .blend there, if the bundle has it under another; written in the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// The series of Blender that renders.
    pub blender: BlenderSeries,
    pub device: DeviceClass,
    #[serde(default)]
    pub settings: RenderSettings,
    #[serde(default)]
    pub policy: Policy,
    /// The artist's colour configuration (OCIO) inside the bundle; Blender's own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocio: Option<RelPath>,
    /// Add-ons inside the bundle, each a Python file or a folder that is a module or an extension; needs trust.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addons: Vec<RelPath>,
}

/// The hash of the frozen encoding of a [`SessionSpec`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct SessionKey(pub BlobHash);

impl SessionSpec {
    pub fn key(&self) -> SessionKey {
        frozen::session_key(self)
    }

    /// The name of the .blend on the artist's machine without its ending, as [`crate::paths::spelled`] writes it.
    pub fn own_stem(&self) -> &str {
        let name = self.file_name.as_deref().unwrap_or(self.blend.file_name());
        match name.rsplit_once('.') {
            Some((stem, _)) if !stem.is_empty() => stem,
            _ => name,
        }
    }

    /// Returns the same session on another device.
    pub fn on(&self, device: DeviceClass) -> Self {
        Self { device, ..self.clone() }
    }
}

/// The save of a .blend that is rendered. It identifies the frames in output folders (decision 019); the farm does not use
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Save {
    /// The hash of everything in the .blend that the pixels depend on.
    pub content: BlobHash,
    /// The .blend, absolute and in a folder without links, on the machine that read it.
    #[serde(with = "crate::paths::exact")]
    #[schema(schema_with = crate::paths::exact::schema)]
    pub blend: PathBuf,
    /// The time at which it was read, in Unix milliseconds.
    pub read_ms: i64,
}

/// A submission, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobSpec {
    pub name: String,
    #[serde(default)]
    pub owner: Owner,
    #[serde(default)]
    pub project: Project,
    pub frames: FrameSet,
    pub order: Order,
    /// The time limit of a frame, in seconds.
    pub frame_time_limit_s: Option<u32>,
    /// The hang timeout in seconds; by default that of the farm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hang_s: Option<u32>,
    /// A frame whose picture is entirely black or transparent fails. Not part of the session: it changes no pixel.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refuse_black: bool,
    #[serde(default)]
    pub scheduling: JobScheduling,
    #[serde(default)]
    pub requirements: JobRequirements,
    /// The version that wrote the .blend.
    pub written_by: BlenderVersion,
    /// The job was submitted for any GPU. `session.device` is `gpu` until the first worker takes a task, and then the
    /// backend of that worker.
    #[serde(default, skip_serializing_if = "is_false")]
    pub any_gpu: bool,
    /// The denoiser of Cycles, by Blender's name; not every Blender is built with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denoiser: Option<String>,
    /// The simulations that are baked before the first frame, in words for a person.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bake: Vec<String>,
    /// The shared folders with files that the bundle does not have: only workers that can read all of them render the job.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<String>,
    /// The frames after which the job pauses, so that a person can look at them; absent if it does not pause, and once it is
    /// resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<FrameSet>,
    /// The save that this job renders; absent if the client did not state it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<Save>,
    /// The artist's session; frames after a bake render from the bundle that the bake made.
    pub session: SessionSpec,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl JobSpec {
    /// Returns the same job on this device.
    pub fn on(&self, device: DeviceClass) -> Self {
        Self { session: self.session.on(device), ..self.clone() }
    }
}

/// The manifest of a bundle: the files of a job, laid out as they lie beside each other on a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Bundle {
    #[schema(min_items = 1)]
    pub files: Vec<BundleFile>,
    /// The remapped paths: the meanings of names in the .blend and its libraries (`meaning.rs` of kiln-blend), and the places
    /// of those files, patterns or folders in the bundle. Names that resolve by themselves are left out.
    #[serde(default)]
    pub remap: BTreeMap<String, RelPath>,
    /// The meanings, as in `remap`, of files that no render uses and that the bundle does not have, or not all of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unused: BTreeSet<String>,
    /// Files on a file server that the workers can read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<SharedFile>,
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct BundleFile {
    pub path: RelPath,
    pub hash: BlobHash,
    /// Bytes.
    pub size: u64,
}

/// A file that is not uploaded: it is in a shared folder, which the artist's machine and the workers reach by paths of
/// their own. A worker makes a link at its place in the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct SharedFile {
    /// The place in the bundle.
    pub path: RelPath,
    /// The name of the shared folder in `--shared NAME=ROOT`.
    pub root: ShortName,
    /// The path below that folder.
    pub below: RelPath,
    /// Bytes. A worker whose file has another size or time does not render.
    pub size: u64,
    /// Unix milliseconds of the last change.
    pub modified_ms: i64,
    /// Compared instead of the time, if present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<BlobHash>,
}

impl Bundle {
    pub const MAX_FILES: usize = 1_000_000;

    /// Returns the manifest; its hash is the [`BundleId`]. Files are sorted, so that the same files make the same bundle.
    pub fn to_manifest(&self) -> Vec<u8> {
        let mut sorted = self.clone();
        sorted.files.sort_by(|a, b| a.path.cmp(&b.path));
        sorted.shared.sort_by(|a, b| a.path.cmp(&b.path));
        serde_json::to_vec(&sorted).unwrap_or_default()
    }

    pub fn id(&self) -> BundleId {
        BundleId(BlobHash::of(&self.to_manifest()))
    }

    /// Returns the bundle with these files, which replace those of the same paths.
    pub fn overlaid(&self, files: Vec<BundleFile>) -> Self {
        let mut all: BTreeMap<RelPath, BundleFile> =
            self.files.iter().map(|file| (file.path.clone(), file.clone())).collect();
        let shared = self.shared.iter().filter(|file| !files.iter().any(|new| new.path == file.path));
        let shared = shared.cloned().collect();
        all.extend(files.into_iter().map(|file| (file.path.clone(), file)));
        let (remap, unused) = (self.remap.clone(), self.unused.clone());
        Self { files: all.into_values().collect(), remap, unused, shared }
    }

    /// The bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: &[u8]) -> BundleFile {
        let path = RelPath::new(path).unwrap();
        BundleFile { path, hash: BlobHash::of(bytes), size: bytes.len() as u64 }
    }

    #[test]
    fn the_files_of_a_bake_replace_those_of_the_bundle() {
        let bundle = Bundle {
            files: vec![file("a.blend", b"scene"), file("wood.png", b"wood")],
            unused: ["//oak.png".to_owned()].into(),
            ..Bundle::default()
        };
        let baked = bundle.overlaid(vec![file("a.blend", b"baked"), file("blendcache_a/1.bphys", b"1")]);
        let paths: Vec<_> = baked.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a.blend", "blendcache_a/1.bphys", "wood.png"]);
        assert_eq!(baked.unused, bundle.unused);
        assert_eq!(baked.files[0].hash, BlobHash::of(b"baked"));
    }

    #[test]
    fn a_bundle_without_shared_files_keeps_the_name_it_had() {
        let bundle = Bundle { files: vec![file("a.blend", b"x")], ..Bundle::default() };
        assert!(!String::from_utf8(bundle.to_manifest()).unwrap().contains("shared"));
    }
}
