//! The use of each struct of a .blend: the parts of datablocks that are kept, and more.

use foldhash::HashMap;

use crate::{animation::Animation, dna::Dna, external::Rule, nodes, sequence_users, sequencer};

/// Several of them, as bits.
pub(crate) type Uses = u16;

pub(crate) const SCENE: Uses = 1;
pub(crate) const OBJECT: Uses = 1 << 1;
pub(crate) const COLLECTION: Uses = 1 << 2;
/// A tree of geometry nodes.
pub(crate) const TREE: Uses = 1 << 3;
pub(crate) const SEQUENCER: Uses = 1 << 4;
/// The struct names a file.
pub(crate) const RULES: Uses = 1 << 5;
/// The struct tells which datablock shows an image sequence.
pub(crate) const SHOWN: Uses = 1 << 6;
/// The struct is part of an animation.
pub(crate) const ANIMATION: Uses = 1 << 7;
/// The struct is part of a tree of nodes.
pub(crate) const NODES: Uses = 1 << 8;
/// The struct is a tile of an image.
pub(crate) const TILES: Uses = 1 << 9;

const PARTS: &[(Uses, &[&str])] = &[
    (
        SCENE,
        &[
            "IDProperty",
            "ViewLayer",
            "LayerCollection",
            "SceneRenderLayer",
            "SceneRenderView",
            "TimeMarker",
            "Base",
            "Collection",
            "CollectionObject",
            "CollectionChild",
            "RigidBodyWorld",
            "RigidBodyWorld_Shared",
            "PointCache",
            "PTCacheMem",
            "bNodeTree",
            "bNode",
        ],
    ),
    (
        OBJECT,
        &[
            "PointCache",
            "PTCacheMem",
            "SoftBody",
            "SoftBody_Shared",
            "DynamicPaintCanvasSettings",
            "DynamicPaintSurface",
            "FluidDomainSettings",
            "SmokeDomainSettings",
            "NodesModifierBake",
            "ParticleSystem",
            "RigidBodyOb",
            "PartDeflect",
        ],
    ),
    (COLLECTION, &["CollectionObject", "CollectionChild", "GroupObject"]),
    (TREE, &["bNode", "bNestedNodeRef"]),
    (TILES, &["ImageTile"]),
    (SEQUENCER, &sequencer::STRUCTS),
    (NODES, &nodes::STRUCTS),
    (SHOWN, &sequence_users::STRUCTS),
    (ANIMATION, &Animation::STRUCTS),
];

/// Parts of scenes that are done with once the scene is read.
pub(crate) const DONE_WITH: [&[u8]; 3] = [b"PTCacheMem", b"bNodeTree", b"bNode"];

/// The uses of every struct of the file.
pub(crate) fn table(
    dna: &Dna,
    by_name: &HashMap<&[u8], usize>,
    rules: &HashMap<usize, Vec<&'static Rule>>,
) -> Vec<Uses> {
    let mut table = vec![0; dna.len()];
    for (one, names) in PARTS {
        names.iter().filter_map(|name| by_name.get(name.as_bytes())).for_each(|index| table[*index] |= one);
    }
    // Every modifier, of whatever kind, is a link in the list of them.
    for (name, index) in by_name {
        if name.ends_with(b"ModifierData") && dna.has_field(*index, "modifier") {
            table[*index] |= OBJECT;
        }
    }
    rules.keys().for_each(|index| table[*index] |= RULES);
    table
}
