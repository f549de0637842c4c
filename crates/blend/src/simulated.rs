//! The simulations of one datablock.

use crate::{
    caches::{FluidCache, PointCache},
    dna::View,
    graph::{CompositorInputs, MutableRef, SceneSources},
    ids::flag,
    particles::Emitter,
    parts::Parts,
    sequencer::Strips,
    simulation::SimulationKind,
};

/// The storage of a simulation's frames.
pub(crate) enum SimulationStorage {
    Points(PointCache),
    /// The surfaces of dynamic paint that are painted on vertices, and whether each is active.
    Paint(Vec<(bool, PointCache)>),
    Fluid(FluidCache),
    /// Geometry nodes: each zone in the file or in a folder; zones are told by the tree, which comes later.
    Nodes {
        tree: u64,
        zones: Vec<ZoneBake>,
        /// From before each zone had its own.
        folder: Option<Vec<u8>>,
    },
    /// Particles or hair, told by the settings, which come later.
    Particles {
        settings: u64,
        hair_dynamics: bool,
        emitter: Emitter,
        cache: PointCache,
    },
}

impl SimulationStorage {
    /// Bytes that it takes.
    pub fn cost(&self) -> usize {
        match self {
            Self::Points(cache) | Self::Particles { cache, .. } => cache.cost(),
            Self::Paint(surfaces) => surfaces.iter().map(|(_, cache)| cache.cost()).sum(),
            Self::Fluid(cache) => cache.cost(),
            Self::Nodes { zones, .. } => 128 * (1 + zones.len()),
        }
    }
}

pub(crate) struct ZoneBake {
    pub id: i64,
    pub packed: bool,
    /// The folder as the file names it, and the one below it.
    pub folder: Option<(Vec<u8>, String)>,
}

pub(crate) struct SimulationSource {
    pub kind: SimulationKind,
    /// The modifier is on for renders, in the frame that is saved.
    pub renders: bool,
    pub stored: SimulationStorage,
}

/// An active rigid body, in the frame that is saved.
#[derive(Clone, Copy)]
pub(crate) struct RigidBody {
    pub enabled: bool,
    pub kinematic: bool,
}

/// Scenes that the picture of one is made of.
pub(crate) fn drawn(parts: &Parts<'_>, scene: View<'_>, strips: &Strips) -> SceneSources {
    const SEQUENCER: u32 = 0;
    const COMPOSITING: u32 = 6;
    let sequences = flag(scene, "r.scemode", SEQUENCER);
    let mut draws = SceneSources {
        set: scene.pointer("set"),
        strips: strips.scenes(),
        sequences,
        ..SceneSources::default()
    };
    if flag(scene, "r.scemode", COMPOSITING) {
        // From 5.0 a tree by itself, which is on where there is one.
        let group = scene.pointer("compositing_node_group");
        draws.composites = group.is_some() || scene.int("use_nodes").is_some_and(|on| on != 0);
        match (group, parts.get(scene.pointer("nodetree"))) {
            (Some(old), _) => draws.layers.groups.push(MutableRef { old, muted: false }),
            (None, Some(tree)) => draws.layers = layers(parts, tree),
            (None, None) => {}
        }
    }
    draws
}

/// Reads the scenes and trees that a tree of the compositor uses.
pub(crate) fn layers(parts: &Parts<'_>, tree: View<'_>) -> CompositorInputs {
    const MUTED: u32 = 9;
    let mut layers = CompositorInputs::default();
    for node in parts.list(tree.pointer("nodes.first")) {
        let found = match node.bytes("idname") {
            Some(b"CompositorNodeRLayers") => &mut layers.scenes,
            Some(b"CompositorNodeGroup") => &mut layers.groups,
            _ => continue,
        };
        found.extend(node.pointer("id").map(|old| MutableRef { old, muted: flag(node, "flag", MUTED) }));
    }
    layers
}

/// `None` for what is no active body.
pub(crate) fn active(body: View<'_>) -> Option<RigidBody> {
    const ACTIVE: i64 = 0;
    const KINEMATIC: u32 = 0;
    const DISABLED: u32 = 5;
    let (enabled, kinematic) = (!flag(body, "flag", DISABLED), flag(body, "flag", KINEMATIC));
    (body.int("type") == Some(ACTIVE)).then_some(RigidBody { enabled, kinematic })
}

/// The modifier may act on other objects, which have no pointer to its own.
pub(crate) fn acts_on_others(modifier: View<'_>) -> bool {
    let acts = [
        &b"CollisionModifierData"[..],
        b"FluidModifierData",
        b"SmokeModifierData",
        b"DynamicPaintModifierData",
        b"FluidsimModifierData",
    ];
    acts.contains(&modifier.struct_name())
}

pub(crate) fn modifier_simulation(
    parts: &Parts<'_>,
    object: View<'_>,
    modifier: View<'_>,
) -> Option<SimulationSource> {
    use SimulationKind as Kind;
    const RENDER: u32 = 1;
    const DOMAIN: u32 = 0;
    let points = |cache: Option<u64>| SimulationStorage::Points(PointCache::read(parts, cache, object));
    let domain = || parts.get(modifier.pointer("domain")).filter(|_| flag(modifier, "type", DOMAIN));
    let (kind, stored) = match modifier.struct_name() {
        b"ClothModifierData" => (Kind::Cloth, points(modifier.pointer("point_cache"))),
        b"SoftbodyModifierData" => {
            let body = parts.get(object.pointer("soft"));
            let shared = body.and_then(|body| parts.get(body.pointer("shared")));
            (Kind::SoftBody, points(shared.or(body).and_then(|body| body.pointer("pointcache"))))
        }
        b"DynamicPaintModifierData" => (Kind::DynamicPaint, painted(parts, object, modifier)?),
        b"FluidModifierData" => (Kind::Fluid, SimulationStorage::Fluid(FluidCache::read(domain()?))),
        // Before 2.82.
        b"SmokeModifierData" => (Kind::Fluid, points(domain()?.pointer("point_cache"))),
        b"NodesModifierData" => (Kind::SimulationNodes, nodes_bake(parts, modifier)?),
        _ => return None,
    };
    Some(SimulationSource { kind, renders: flag(modifier, "modifier.mode", RENDER), stored })
}

/// `None` where nothing is painted that a bake could hold.
fn painted(parts: &Parts<'_>, object: View<'_>, modifier: View<'_>) -> Option<SimulationStorage> {
    const VERTEX: i64 = 1;
    const ACTIVE: u32 = 0;
    let canvas = parts.get(modifier.pointer("canvas"))?;
    let surfaces = parts.list(canvas.pointer("surfaces.first"));
    let surfaces = surfaces.filter(|surface| surface.int("format") == Some(VERTEX));
    let read = |surface: View<'_>| {
        let cache = PointCache::read(parts, surface.pointer("pointcache"), object);
        (flag(surface, "flags", ACTIVE), cache)
    };
    let surfaces: Vec<_> = surfaces.map(read).collect();
    (!surfaces.is_empty()).then_some(SimulationStorage::Paint(surfaces))
}

fn nodes_bake(parts: &Parts<'_>, modifier: View<'_>) -> Option<SimulationStorage> {
    const CUSTOM_PATH: u32 = 1;
    let folder = |pointer| parts.text(pointer).filter(|folder| !folder.is_empty()).map(<[u8]>::to_vec);
    let own = ["simulation_bake_directory", "bake_directory"]
        .iter()
        .find_map(|field| folder(modifier.pointer(field)));
    let zones = parts
        .array(modifier.pointer("bakes"))
        .filter_map(|bake| {
            let id = bake.int("id")?;
            let place = if flag(bake, "flag", CUSTOM_PATH) {
                folder(bake.pointer("directory")).map(|folder| (folder, String::new()))
            } else {
                own.as_ref().map(|own| (own.clone(), format!("/{id}")))
            };
            Some(ZoneBake { id, packed: bake.pointer("packed").is_some(), folder: place })
        })
        .collect();
    Some(SimulationStorage::Nodes { tree: modifier.pointer("node_group")?, zones, folder: own })
}
