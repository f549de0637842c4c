//! The external files that a .blend names, and the fields that hold the names.

use serde::{Deserialize, Serialize};

use crate::{
    dna::View,
    sequence::{SequenceUser, is_picture},
};

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
    /// An image or video of the sequencer.
    Strip,
    /// A light profile (IES).
    LightProfile,
    /// A shader or a camera in OSL.
    Shader,
    MeshCache,
    /// Displacement that a multiresolution modifier stores outside the .blend.
    Displacement,
    /// A file that geometry nodes read.
    NodeInput,
    /// A folder of baked fluid.
    FluidCache,
    /// A folder of a baked ocean.
    OceanCache,
    /// A folder of baked geometry nodes.
    NodesBake,
    /// The folder of baked particles, cloth and the like beside a .blend.
    PointCache,
    /// A folder with baked particles, cloth and the like that a simulation plays as they are.
    ExternalPointCache,
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
            Self::Displacement => "displacement",
            Self::NodeInput => "file of geometry nodes",
            Self::FluidCache => "fluid cache",
            Self::OceanCache => "ocean cache",
            Self::NodesBake => "geometry nodes bake",
            Self::PointCache => "point cache",
            Self::ExternalPointCache => "external point cache",
        }
    }

    pub fn is_folder(self) -> bool {
        matches!(
            self,
            Self::FluidCache
                | Self::OceanCache
                | Self::NodesBake
                | Self::PointCache
                | Self::ExternalPointCache
        )
    }

    /// The file may name others relatively.
    pub(crate) fn holds_names(self) -> bool {
        matches!(self, Self::Library | Self::CacheFile)
    }

    /// The bytes in the field of a name are a name.
    pub(crate) fn takes(self, raw: &[u8]) -> bool {
        let drive = matches!(raw, [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
        match self {
            // A text that nodes are given may be anything: only what is a path by itself counts.
            Self::NodeInput => drive || raw.starts_with(b"/") || raw.starts_with(b"\\\\"),
            Self::Font => !raw.is_empty() && raw != b"<builtin>",
            _ => !raw.is_empty(),
        }
    }

    /// A render lacks something without the file. A folder of caches may never have been baked, and a text that nodes
    /// are given may be no name of a file.
    pub fn is_required(self) -> bool {
        match self {
            Self::ExternalPointCache => true,
            Self::Text | Self::NodeInput => false,
            kind => !kind.is_folder(),
        }
    }
}

/// A file that a .blend names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalFile {
    pub kind: ExternalKind,
    /// As written in the .blend; bytes that are no Unicode are replaced.
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
    /// The numbers of those tiles.
    #[serde(skip)]
    pub tiles: Vec<u16>,
    /// One file of a set for the eyes, or for more views.
    #[serde(default)]
    pub views: bool,
    /// Of a sequence: what shows it, and by which rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shown_by: Vec<SequenceUser>,
}

impl ExternalFile {
    pub(crate) fn new(kind: ExternalKind, raw: Vec<u8>, owner: String) -> Self {
        let path = String::from_utf8_lossy(&raw).into_owned();
        let (packed, sequence, tiled, views) = (false, false, false, false);
        let (tiles, shown_by) = (Vec::new(), Vec::new());
        Self { kind, path, raw, owner, packed, sequence, tiled, tiles, views, shown_by }
    }

    /// Reads the fields that describe the file.
    pub(crate) fn described_by(mut self, view: &View<'_>) -> Self {
        const USE_VIEWS: i64 = 1 << 14;
        let source = view.int("source");
        self.packed = view.pointer("packedfile").is_some()
            || view.pointer("packedfiles.first").is_some()
            // A library from which all that is used was packed into this file.
            || view.pointer("archive_parent_library").is_some();
        self.sequence = match self.kind {
            ExternalKind::Image => source == Some(2),
            // Blender calls a clip a movie while its picture cannot be read.
            ExternalKind::MovieClip => source == Some(1) || is_picture(&self.raw),
            _ => view.int("is_sequence").is_some_and(|flag| flag != 0),
        };
        self.tiled = self.kind == ExternalKind::Image && source == Some(6);
        self.views =
            self.kind == ExternalKind::Image && view.int("flag").is_some_and(|flag| flag & USE_VIEWS != 0);
        self
    }
}

/// A struct that names a file.
pub(crate) struct Rule {
    pub strukt: &'static str,
    /// The field with the name, or a pointer to it.
    pub field: &'static str,
    pub kind: ExternalKind,
    /// Returns whether Blender reads the file.
    pub applies: fn(&View<'_>) -> bool,
}

const fn rule(strukt: &'static str, field: &'static str, kind: ExternalKind) -> Rule {
    Rule { strukt, field, kind, applies: |_| true }
}

const fn rule_if(
    strukt: &'static str,
    field: &'static str,
    kind: ExternalKind,
    applies: fn(&View<'_>) -> bool,
) -> Rule {
    Rule { strukt, field, kind, applies }
}

/// Nodes and cameras may hold their source in the .blend.
fn is_outside(view: &View<'_>) -> bool {
    view.int("mode").or_else(|| view.int("custom_mode")) != Some(0)
}

/// Names of fields as files have them: Blender's source has newer ones for some, files keep the old.
///
/// Not here, because no render reads them: icons of brushes, proxies of strips and clips, folders that results are
/// written to, and links back to where an asset was appended from.
pub(crate) const RULES: &[Rule] = &[
    // 4 and 5 are made by Blender itself: generated, or the result of a render.
    rule_if("Image", "name", ExternalKind::Image, |image| !matches!(image.int("source"), Some(4 | 5))),
    rule("ImageView", "filepath", ExternalKind::Image),
    rule("Library", "name", ExternalKind::Library),
    rule("bSound", "name", ExternalKind::Sound),
    rule("VFont", "name", ExternalKind::Font),
    rule("MovieClip", "name", ExternalKind::MovieClip),
    rule("CacheFile", "filepath", ExternalKind::CacheFile),
    rule("CacheFileLayer", "filepath", ExternalKind::CacheFile),
    rule("Volume", "filepath", ExternalKind::Volume),
    rule("Text", "name", ExternalKind::Text),
    rule_if("NodeShaderTexIES", "filepath", ExternalKind::LightProfile, is_outside),
    rule_if("NodeShaderScript", "filepath", ExternalKind::Shader, is_outside),
    rule_if("Camera", "custom_filepath", ExternalKind::Shader, is_outside),
    rule("MeshCacheModifierData", "filepath", ExternalKind::MeshCache),
    rule("CustomDataExternal", "filename", ExternalKind::Displacement),
    // Texts that nodes are given are names of files where their subtype says so.
    rule_if("bNodeSocketValueString", "value", ExternalKind::NodeInput, |socket| {
        socket.int("subtype") == Some(1)
    }),
    // What a modifier gives to its nodes; its names tell apart what other properties are for.
    rule_if("IDProperty", "data.pointer", ExternalKind::NodeInput, |property| {
        const STRING: i64 = 0;
        let name = property.bytes("name").unwrap_or_default();
        let is_input = name.starts_with(b"Socket_") || name.starts_with(b"Input_");
        is_input && property.int("type") == Some(STRING)
    }),
    rule("FluidDomainSettings", "cache_directory", ExternalKind::FluidCache),
    rule_if("OceanModifierData", "cachepath", ExternalKind::OceanCache, |ocean| {
        ocean.int("cached") != Some(0)
    }),
    rule("NodesModifierData", "simulation_bake_directory", ExternalKind::NodesBake),
    rule("NodesModifierBake", "directory", ExternalKind::NodesBake),
    rule_if("PointCache", "path", ExternalKind::ExternalPointCache, |cache| {
        const EXTERNAL: i64 = 1 << 9;
        cache.int("flag").is_some_and(|flag| flag & EXTERNAL != 0)
    }),
];
