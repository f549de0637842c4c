//! Where Blender keeps the names of files.

use serde::{Deserialize, Serialize};

/// What an external file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExternalKind {
    Image,
    Library,
    Sound,
    Font,
    MovieClip,
    /// Alembic or USD.
    CacheFile,
    /// OpenVDB.
    Volume,
    /// A text also kept in a file; the .blend holds its words.
    Text,
    /// An image or film of the video sequencer.
    Strip,
    /// A light profile (IES).
    LightProfile,
    /// A shader in OSL.
    Shader,
    MeshCache,
    /// A folder of baked fluid.
    FluidCache,
    /// A folder of a baked ocean.
    OceanCache,
    /// A folder of baked geometry nodes.
    NodesBake,
    /// The folder of baked particles, cloth and the like beside a .blend.
    PointCache,
}

impl ExternalKind {
    /// In a sentence: "image textures/wood.png is missing".
    pub fn noun(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Library => "library",
            Self::Sound => "sound",
            Self::Font => "font",
            Self::MovieClip => "movie clip",
            Self::CacheFile => "cache file",
            Self::Volume => "volume",
            Self::Text => "text",
            Self::Strip => "sequencer strip",
            Self::LightProfile => "light profile",
            Self::Shader => "shader",
            Self::MeshCache => "mesh cache",
            Self::FluidCache => "fluid cache",
            Self::OceanCache => "ocean cache",
            Self::NodesBake => "geometry nodes bake",
            Self::PointCache => "point cache",
        }
    }

    pub fn is_folder(self) -> bool {
        matches!(self, Self::FluidCache | Self::OceanCache | Self::NodesBake | Self::PointCache)
    }

    /// Whether a render lacks something where the file is missing. Folders of caches may never have been baked.
    pub fn is_required(self) -> bool {
        !self.is_folder() && self != Self::Text
    }
}

/// A file that a .blend names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalFile {
    pub kind: ExternalKind,
    /// As it stands in the .blend; what is no Unicode is replaced.
    pub path: String,
    /// The same, byte for byte.
    #[serde(skip)]
    pub raw: Vec<u8>,
    /// The datablock that names it, with its code of two letters: `IMwood`.
    pub owner: String,
    /// The .blend holds the file's bytes: nothing is needed.
    pub packed: bool,
    /// One file of many with running numbers.
    pub sequence: bool,
    /// One file of a set of UDIM tiles.
    pub tiled: bool,
}

/// A struct that names a file.
pub(crate) struct Rule {
    pub strukt: &'static str,
    /// The field with the name, or a pointer to it.
    pub field: &'static str,
    pub kind: ExternalKind,
}

const fn rule(strukt: &'static str, field: &'static str, kind: ExternalKind) -> Rule {
    Rule { strukt, field, kind }
}

/// Names of fields as they stand in files: Blender's source has newer ones for some, files keep the old.
pub(crate) const RULES: &[Rule] = &[
    rule("Image", "name", ExternalKind::Image),
    rule("Library", "name", ExternalKind::Library),
    rule("bSound", "name", ExternalKind::Sound),
    rule("VFont", "name", ExternalKind::Font),
    rule("MovieClip", "name", ExternalKind::MovieClip),
    rule("CacheFile", "filepath", ExternalKind::CacheFile),
    rule("Volume", "filepath", ExternalKind::Volume),
    rule("Text", "name", ExternalKind::Text),
    rule("NodeShaderTexIES", "filepath", ExternalKind::LightProfile),
    rule("NodeShaderScript", "filepath", ExternalKind::Shader),
    rule("MeshCacheModifierData", "filepath", ExternalKind::MeshCache),
    rule("FluidDomainSettings", "cache_directory", ExternalKind::FluidCache),
    rule("OceanModifierData", "cachepath", ExternalKind::OceanCache),
    rule("NodesModifierData", "simulation_bake_directory", ExternalKind::NodesBake),
    rule("NodesModifierBake", "directory", ExternalKind::NodesBake),
];
