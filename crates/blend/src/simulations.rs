//! Simulations, and whether anybody baked them. Background Blender renders what is not baked standing still, so this
//! tells whether a job needs a bake first.

use std::{collections::BTreeSet, fmt};

use foldhash::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use crate::{
    dna::{Dna, View},
    parts::{Kept, Parts},
    reach::{MAX_STEPS, Members, Reach},
};

/// What moves by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SimulationKind {
    RigidBody,
    Cloth,
    SoftBody,
    DynamicPaint,
    /// The domain of smoke, fire or liquid.
    Fluid,
    /// Geometry nodes with a simulation zone.
    SimulationNodes,
    HairDynamics,
    /// Particles that are emitted. They render rightly without a bake.
    Particles,
}

impl SimulationKind {
    pub fn noun(self) -> &'static str {
        match self {
            Self::RigidBody => "rigid body",
            Self::Cloth => "cloth",
            Self::SoftBody => "soft body",
            Self::DynamicPaint => "dynamic paint",
            Self::Fluid => "fluid",
            Self::SimulationNodes => "simulation nodes",
            Self::HairDynamics => "hair dynamics",
            Self::Particles => "particles",
        }
    }
}

/// One simulation of one object of the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Simulation {
    pub kind: SimulationKind,
    /// The object.
    pub owner: String,
    /// Scenes of the file that it takes part in.
    pub scenes: Vec<String>,
    /// Its frames are stored, in the file or beside it.
    pub baked: bool,
    /// It shows in renders, is not baked, and would be wrong without.
    pub needs_bake: bool,
}

/// `cloth of Flag`, `rigid body Crate`: as the worker's host says it.
impl fmt::Display for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if self.kind == SimulationKind::RigidBody { "" } else { "of " };
        write!(f, "{} {of}{}", self.kind.noun(), self.owner)
    }
}

/// Where a simulation's frames may be.
enum Bake {
    Done(bool),
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
        baked: bool,
    },
}

struct ZoneBake {
    id: i64,
    packed: bool,
    folder: Option<Vec<u8>>,
}

struct Found {
    kind: SimulationKind,
    /// Its modifier is switched on for renders.
    renders: bool,
    bake: Bake,
}

struct Body {
    name: String,
    hidden: bool,
    found: Vec<Found>,
    /// An active rigid body that nothing else moves.
    moving: bool,
}

struct World {
    collection: u64,
    baked: bool,
}

struct SceneWorld {
    name: String,
    world: Option<World>,
}

#[derive(Default)]
struct Tree {
    /// A simulation zone that is not muted.
    simulates: bool,
    /// Nodes that end a simulation zone, muted or not.
    zones: HashSet<i64>,
    /// Nodes that stand for another tree, and that tree; muted ones are no group.
    groups: HashMap<i64, u64>,
    muted: HashSet<i64>,
    /// Identifiers of nested nodes: the node here, and its identifier inside that node.
    nested: HashMap<i64, (i64, i64)>,
}

/// All that simulations depend on, gathered datablock by datablock.
#[derive(Default)]
pub(crate) struct Simulations {
    bodies: HashMap<u64, Body>,
    /// In the order of the file.
    order: Vec<u64>,
    scenes: Vec<SceneWorld>,
    pub reach: Reach,
    trees: HashMap<u64, Tree>,
    /// Particle settings that make hair.
    hair: HashMap<u64, bool>,
}

/// Groups within groups that are followed.
const MAX_DEPTH: usize = 64;

pub(crate) fn name(view: View<'_>) -> String {
    let name = view.text("id.name").unwrap_or_default();
    name.get(2..).unwrap_or_default().to_owned()
}

pub(crate) fn flag(view: View<'_>, field: &'static str, bit: u32) -> bool {
    view.int(field).is_some_and(|flags| flags & (1 << bit) != 0)
}

/// A point cache that is baked, or read from elsewhere.
fn cache_baked(cache: Option<View<'_>>) -> bool {
    const BAKED: u32 = 0;
    const EXTERNAL: u32 = 9;
    cache.is_some_and(|cache| flag(cache, "flag", BAKED) || flag(cache, "flag", EXTERNAL))
}

impl Simulations {
    /// What is kept of the datablock costs about this many bytes.
    pub fn scene(&mut self, parts: &Parts<'_>, scene: View<'_>) -> usize {
        const MUTED: u32 = 0;
        let members = Members::of_scene(parts, scene);
        let world = parts.get(scene.pointer("rigidbody_world")).and_then(|world| {
            let cache = match parts.get(world.pointer("shared")) {
                Some(shared) => shared.pointer("pointcache"),
                None => world.pointer("pointcache"),
            };
            let collection = world.pointer("group").filter(|_| !flag(world, "flag", MUTED))?;
            Some(World { collection, baked: cache_baked(parts.get(cache)) })
        });
        self.scenes.push(SceneWorld { name: name(scene), world });
        self.reach.scene(name(scene), members)
    }

    pub fn object(&mut self, dna: &Dna, block: &Kept, kept: &[Kept]) -> usize {
        const HIDE_RENDER: u32 = 2;
        let object = dna.view(block.sdna, &block.bytes);
        let hidden =
            flag(object, "restrictflag", HIDE_RENDER) || flag(object, "visibility_flag", HIDE_RENDER);
        let cost = self.reach.object(block.old, object, hidden);
        if kept.is_empty() {
            return cost;
        }
        let parts = Parts::new(dna, kept);
        let mut found: Vec<Found> = parts
            .chain(object.pointer("modifiers.first"), "modifier.next")
            .filter_map(|modifier| modifier_simulation(&parts, object, modifier))
            .collect();
        found.extend(
            parts.list(object.pointer("particlesystem.first")).filter_map(|system| particles(&parts, system)),
        );
        let moving = parts.get(object.pointer("rigidbody_object")).is_some_and(moves);
        if found.is_empty() && !moving {
            return cost;
        }
        let name = name(object);
        let cost =
            cost + name.len() + 128 * (1 + found.len()) + self.reach.simulating(block.old, name.clone());
        self.order.push(block.old);
        self.bodies.insert(block.old, Body { name, hidden, found, moving });
        cost
    }

    pub fn tree(&mut self, dna: &Dna, block: &Kept, kept: &[Kept]) -> usize {
        const MUTED: u32 = 9;
        let (view, parts) = (dna.view(block.sdna, &block.bytes), Parts::new(dna, kept));
        let mut tree = Tree::default();
        for node in parts.list(view.pointer("nodes.first")) {
            let muted = flag(node, "flag", MUTED);
            let identifier = node.int("identifier").unwrap_or(0);
            match node.bytes("idname") {
                Some(b"GeometryNodeSimulationOutput") => {
                    tree.simulates |= !muted;
                    tree.zones.insert(identifier);
                }
                Some(b"GeometryNodeGroup") => {
                    if let Some(inside) = node.pointer("id") {
                        tree.groups.insert(identifier, inside);
                        if muted {
                            tree.muted.insert(identifier);
                        }
                    }
                }
                _ => {}
            }
        }
        for one in parts.array(view.pointer("nested_node_refs")) {
            if let (Some(id), Some(node), Some(inside)) =
                (one.int("id"), one.int("path.node_id"), one.int("path.id_in_node"))
            {
                tree.nested.insert(id, (node, inside));
            }
        }
        let cost = 64 * (tree.zones.len() + tree.groups.len() + tree.nested.len());
        self.trees.insert(block.old, tree);
        cost
    }

    pub fn particle_settings(&mut self, old: u64, view: View<'_>) -> usize {
        const HAIR: i64 = 2;
        self.hair.insert(old, view.int("type") == Some(HAIR));
        32
    }

    /// All of them, in the file's order. `has_bake` tells whether a folder of this name holds a bake of nodes.
    pub fn finish(&self, has_bake: &dyn Fn(&[u8]) -> bool) -> Vec<Simulation> {
        let mut scenes_of: HashMap<u64, BTreeSet<usize>> = HashMap::default();
        let mut worlds_of: HashMap<u64, BTreeSet<usize>> = HashMap::default();
        let mut left = MAX_STEPS;
        for (index, (scene, members)) in self.scenes.iter().zip(self.reach.scenes()).enumerate() {
            self.reach.follow(members, &mut HashSet::default(), &mut left, &mut |object| {
                if self.bodies.contains_key(&object) {
                    scenes_of.entry(object).or_default().insert(index);
                }
            });
            // Of a rigid body world its own objects alone count, not those of collections within.
            let bodies = scene.world.iter().flat_map(|world| self.reach.objects_of(world.collection));
            for object in bodies.filter(|object| self.bodies.contains_key(object)) {
                worlds_of.entry(*object).or_default().insert(index);
            }
        }
        let names =
            |scenes: &BTreeSet<usize>| scenes.iter().map(|index| self.scenes[*index].name.clone()).collect();
        let mut all = Vec::new();
        for old in &self.order {
            let Some(body) = self.bodies.get(old) else { continue };
            if let Some(worlds) = worlds_of.get(old).filter(|_| body.moving) {
                // A scene has one world, and each its own bake.
                for baked in [true, false] {
                    let state =
                        |index: &usize| self.scenes[*index].world.as_ref().is_some_and(|w| w.baked == baked);
                    let scenes: BTreeSet<usize> = worlds.iter().copied().filter(state).collect();
                    if !scenes.is_empty() {
                        let (kind, owner) = (SimulationKind::RigidBody, body.name.clone());
                        let scenes = names(&scenes);
                        all.push(Simulation { kind, owner, scenes, baked, needs_bake: !baked });
                    }
                }
            }
            let scenes = scenes_of.get(old).map(names).unwrap_or_default();
            for found in &body.found {
                let Some((kind, baked)) = self.resolve(found, has_bake) else { continue };
                let needs_bake = !baked && !body.hidden && found.renders && kind != SimulationKind::Particles;
                let owner = body.name.clone();
                all.push(Simulation { kind, owner, scenes: scenes.clone(), baked, needs_bake });
            }
        }
        all
    }

    fn resolve(&self, found: &Found, has_bake: &dyn Fn(&[u8]) -> bool) -> Option<(SimulationKind, bool)> {
        match &found.bake {
            Bake::Done(baked) => Some((found.kind, *baked)),
            Bake::Particles { settings, hair_dynamics, baked } => {
                match (self.hair.get(settings), hair_dynamics) {
                    (Some(true), true) => Some((SimulationKind::HairDynamics, *baked)),
                    // Hair that does not move is no simulation.
                    (Some(true), false) => None,
                    _ => Some((SimulationKind::Particles, *baked)),
                }
            }
            Bake::Nodes { tree, zones, folder } => {
                if !self.simulates(*tree, &mut HashSet::default()) {
                    return None;
                }
                let there = |folder: &Option<Vec<u8>>| folder.as_deref().is_some_and(has_bake);
                let zone_there = |zone: &&ZoneBake| zone.packed || there(&zone.folder);
                let simulating: Vec<&ZoneBake> =
                    zones.iter().filter(|zone| self.is_zone(*tree, zone.id, MAX_DEPTH)).collect();
                let baked = if !simulating.is_empty() {
                    simulating.iter().all(zone_there)
                } else if zones.is_empty() {
                    there(folder)
                } else {
                    zones.iter().all(|zone| zone_there(&zone))
                };
                Some((found.kind, baked))
            }
        }
    }

    fn simulates(&self, tree: u64, seen: &mut HashSet<u64>) -> bool {
        let mut todo = vec![tree];
        while let Some(tree) = todo.pop() {
            let Some(tree) = self.trees.get(&tree).filter(|_| seen.insert(tree)) else { continue };
            if tree.simulates {
                return true;
            }
            todo.extend(
                tree.groups.iter().filter(|(node, _)| !tree.muted.contains(node)).map(|(_, inside)| *inside),
            );
        }
        false
    }

    /// Whether the nested node of this identifier is a simulation zone.
    fn is_zone(&self, tree: u64, id: i64, depth: usize) -> bool {
        let Some(tree) = self.trees.get(&tree) else { return false };
        let Some((node, inside)) = tree.nested.get(&id) else { return false };
        match tree.groups.get(node) {
            Some(group) => depth > 0 && self.is_zone(*group, *inside, depth - 1),
            None => tree.zones.contains(node),
        }
    }
}

fn moves(body: View<'_>) -> bool {
    const ACTIVE: i64 = 0;
    const KINEMATIC: u32 = 0;
    const DISABLED: u32 = 5;
    body.int("type") == Some(ACTIVE) && !flag(body, "flag", KINEMATIC) && !flag(body, "flag", DISABLED)
}

fn particles(parts: &Parts<'_>, system: View<'_>) -> Option<Found> {
    const HAIR_DYNAMICS: u32 = 2;
    let bake = Bake::Particles {
        settings: system.pointer("part")?,
        hair_dynamics: flag(system, "flag", HAIR_DYNAMICS),
        baked: cache_baked(parts.get(system.pointer("pointcache"))),
    };
    Some(Found { kind: SimulationKind::Particles, renders: true, bake })
}

fn modifier_simulation(parts: &Parts<'_>, object: View<'_>, modifier: View<'_>) -> Option<Found> {
    use SimulationKind as Kind;
    const RENDER: u32 = 1;
    let done = |kind, cache: Option<u64>| (kind, Bake::Done(cache_baked(parts.get(cache))));
    let (kind, bake) = match modifier.struct_name() {
        b"ClothModifierData" => done(Kind::Cloth, modifier.pointer("point_cache")),
        b"SoftbodyModifierData" => {
            let body = parts.get(object.pointer("soft"));
            let shared = body.and_then(|body| parts.get(body.pointer("shared")));
            done(Kind::SoftBody, shared.or(body).and_then(|body| body.pointer("pointcache")))
        }
        b"DynamicPaintModifierData" => (Kind::DynamicPaint, Bake::Done(paint_baked(parts, modifier)?)),
        b"FluidModifierData" => (Kind::Fluid, Bake::Done(fluid_baked(parts, modifier)?)),
        // Before 2.82.
        b"SmokeModifierData" => {
            const DOMAIN: u32 = 0;
            let domain = parts.get(modifier.pointer("domain")).filter(|_| flag(modifier, "type", DOMAIN))?;
            done(Kind::Fluid, domain.pointer("point_cache"))
        }
        b"NodesModifierData" => (Kind::SimulationNodes, nodes_bake(parts, modifier)?),
        _ => return None,
    };
    Some(Found { kind, renders: flag(modifier, "modifier.mode", RENDER), bake })
}

/// `None` where nothing is painted that a bake could hold.
fn paint_baked(parts: &Parts<'_>, modifier: View<'_>) -> Option<bool> {
    const VERTEX: i64 = 1;
    const ACTIVE: u32 = 0;
    let canvas = parts.get(modifier.pointer("canvas"))?;
    parts
        .list(canvas.pointer("surfaces.first"))
        .filter(|surface| flag(*surface, "flags", ACTIVE) && surface.int("format") == Some(VERTEX))
        .map(|surface| cache_baked(parts.get(surface.pointer("pointcache"))))
        .reduce(|all, one| all && one)
}

/// `None` for what is no domain.
fn fluid_baked(parts: &Parts<'_>, modifier: View<'_>) -> Option<bool> {
    const DOMAIN: u32 = 0;
    /// Data, noise, mesh, particles: any of them.
    const BAKED: i64 = 2 | 8 | 32 | 128;
    let domain = parts.get(modifier.pointer("domain")).filter(|_| flag(modifier, "type", DOMAIN))?;
    Some(domain.int("cache_flag").unwrap_or(0) & BAKED != 0)
}

fn nodes_bake(parts: &Parts<'_>, modifier: View<'_>) -> Option<Bake> {
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
                folder(bake.pointer("directory"))
            } else {
                own.as_ref().map(|own| [own.as_slice(), b"/", id.to_string().as_bytes()].concat())
            };
            Some(ZoneBake { id, packed: bake.pointer("packed").is_some(), folder: place })
        })
        .collect();
    Some(Bake::Nodes { tree: modifier.pointer("node_group")?, zones, folder: own })
}
