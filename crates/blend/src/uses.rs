//! What structs of a .blend are of use for: parts of which datablocks are kept, and more.

use foldhash::HashMap;

use crate::{animation::Animation, dna::Dna, external::Rule, shown};

pub(crate) const SCENE: u8 = 1;
pub(crate) const OBJECT: u8 = 2;
pub(crate) const COLLECTION: u8 = 4;
/// A tree of geometry nodes.
pub(crate) const TREE: u8 = 8;
pub(crate) const SEQUENCER: u8 = 16;
/// It names a file.
pub(crate) const RULES: u8 = 32;
/// It tells who shows an image sequence.
pub(crate) const SHOWN: u8 = 64;
/// It is part of an animation.
pub(crate) const ANIMATION: u8 = 128;

const PARTS: &[(u8, &[&str])] = &[
    (
        SCENE,
        &[
            "IDProperty",
            "ViewLayer",
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
    (SEQUENCER, &["Sequence", "Strip", "StripElem"]),
    (SHOWN, &shown::STRUCTS),
    (ANIMATION, &Animation::STRUCTS),
];

/// Parts of scenes that are done with once the scene is read.
pub(crate) const DONE_WITH: [&[u8]; 3] = [b"PTCacheMem", b"bNodeTree", b"bNode"];

/// What every struct of the file is of use for.
pub(crate) fn table(
    dna: &Dna,
    by_name: &HashMap<&[u8], usize>,
    rules: &HashMap<usize, Vec<&'static Rule>>,
) -> Vec<u8> {
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
