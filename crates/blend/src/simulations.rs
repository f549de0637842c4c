//! Simulations, and whether anybody baked them. Background Blender renders what is not baked standing still, so this
//! tells whether a job needs a bake first.

use std::{collections::BTreeSet, fmt};

use foldhash::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use crate::{
    dna::{Dna, View},
    parts::{Kept, Parts},
    reach::{Link, MAX_STEPS, Members, Met, Reach, Shown, follow},
    scene,
    ties::Ties,
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
    /// Particles that are emitted. In free fall they render rightly without a bake.
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
    /// It shows in renders, or moves what does, is not baked, and would be wrong without.
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

/// What became known of it once the whole file was read.
struct Resolved {
    kind: SimulationKind,
    baked: bool,
    /// Where it counts, it would be wrong as it is.
    wrong: bool,
}

struct Body {
    name: String,
    found: Vec<Found>,
    /// An active rigid body that nothing else moves.
    moving: bool,
}

struct World {
    collection: u64,
    baked: bool,
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
    /// Of each scene.
    worlds: Vec<Option<World>>,
    pub reach: Reach,
    trees: HashMap<u64, Tree>,
    particles: HashMap<u64, Particles>,
    /// Something of the file stops particles, or pushes them.
    pushes: bool,
}

/// What a particle system does, by its settings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Particles {
    Hair,
    /// As far as nothing stops or pushes it, which Blender works out for any frame at once.
    Falls,
    /// What it does in a frame depends on every frame before.
    Moves,
    Stays,
}

impl Particles {
    fn of(settings: View<'_>) -> Self {
        const EMITTER: i64 = 0;
        const HAIR: i64 = 2;
        const NEWTON: i64 = 1;
        const BOIDS: i64 = 3;
        const FLUID: i64 = 4;
        /// Midpoint and RK4: exact in a single long step, where nothing but gravity pulls.
        const EXACT: [Option<i64>; 2] = [Some(1), Some(2)];
        let braked =
            ["brownfac", "dragfac", "dampfac"].iter().any(|field| settings.float(field) != Some(0.0));
        match (settings.int("type"), settings.int("phystype")) {
            (Some(HAIR), _) => Self::Hair,
            (Some(EMITTER), Some(NEWTON)) if !braked && EXACT.contains(&settings.int("integrator")) => {
                Self::Falls
            }
            (Some(EMITTER), Some(NEWTON | BOIDS | FLUID)) => Self::Moves,
            _ => Self::Stays,
        }
    }
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
    pub fn scene(&mut self, parts: &Parts<'_>, scene: View<'_>, ties: Ties) -> usize {
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
        self.worlds.push(world);
        let looks_through = [scene::cameras(parts, scene), ties.driven_by].concat();
        self.reach.scene(Shown { name: name(scene), members, looks_through, uses: ties.uses })
    }

    pub fn object(&mut self, dna: &Dna, block: &Kept, kept: &[Kept], uses: &mut Vec<u64>) -> usize {
        let object = dna.view(block.sdna, &block.bytes);
        let cost = self.reach.object(block.old, object, uses);
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
        let field = parts.get(object.pointer("pd")).and_then(|field| field.int("forcefield"));
        self.pushes |= field.is_some_and(|kind| kind != 0) || collides(&parts, object);
        if found.is_empty() && !moving {
            return cost;
        }
        let name = name(object);
        let cost = cost + name.len() + 128 * (1 + found.len());
        self.order.push(block.old);
        self.bodies.insert(block.old, Body { name, found, moving });
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
        self.particles.insert(old, Particles::of(view));
        32
    }

    /// All of them, in the file's order. `has_bake` tells whether a folder of this name holds a bake of nodes.
    pub fn finish(&self, has_bake: &dyn Fn(&[u8]) -> bool) -> Vec<Simulation> {
        let ([there, counts], in_worlds) = (self.in_scenes(), self.in_worlds());
        let mut all = self.linked_bodies(&in_worlds);
        let nowhere = BTreeSet::new();
        for old in &self.order {
            let Some(body) = self.bodies.get(old) else { continue };
            if let Some(worlds) = in_worlds.get(old).filter(|_| body.moving) {
                all.extend(self.rigid_body(&body.name, worlds));
            }
            let (there, counts) = (there.get(old).unwrap_or(&nowhere), counts.get(old).unwrap_or(&nowhere));
            let only_there = there - counts;
            for found in &body.found {
                let Some(Resolved { kind, baked, wrong }) = self.resolve(found, has_bake) else { continue };
                let mut tell = |scenes: &BTreeSet<usize>, counts: bool| {
                    let (owner, scenes) = (body.name.clone(), self.names(scenes));
                    all.push(Simulation { kind, owner, scenes, baked, needs_bake: counts && wrong });
                };
                if there.is_empty() && counts.is_empty() {
                    // Others may link it.
                    tell(&nowhere, !self.reach.is_hidden(*old));
                }
                for (scenes, counts) in [(counts, true), (&only_there, false)] {
                    if !scenes.is_empty() {
                        tell(scenes, counts);
                    }
                }
            }
        }
        all
    }

    /// What moves and is not baked, by where its object was in memory, whether it shows here or not. Rigid bodies are
    /// not among it.
    pub fn unbaked(&self, has_bake: &dyn Fn(&[u8]) -> bool) -> HashMap<u64, Vec<Simulation>> {
        let mut all: HashMap<u64, Vec<Simulation>> = HashMap::default();
        for (old, body) in &self.bodies {
            let resolved = body.found.iter().filter_map(|found| self.resolve(found, has_bake));
            for Resolved { kind, .. } in resolved.filter(|resolved| resolved.wrong) {
                let (owner, scenes) = (body.name.clone(), Vec::new());
                let one = Simulation { kind, owner, scenes, baked: false, needs_bake: true };
                all.entry(*old).or_default().push(one);
            }
        }
        all
    }

    /// Whether something would be wrong, and does not show in every scene: pointers tell whether it counts all the same.
    pub fn may_move_others(&self, has_bake: &dyn Fn(&[u8]) -> bool) -> bool {
        let [_, counts] = self.in_scenes();
        let scenes = self.reach.scenes().len();
        self.unbaked(has_bake).keys().any(|old| counts.get(old).map_or(0, BTreeSet::len) < scenes)
    }

    /// Of every object that simulates, the scenes that it is in, and those whose picture depends on it.
    fn in_scenes(&self) -> [HashMap<u64, BTreeSet<usize>>; 2] {
        let [mut there, mut counts]: [HashMap<u64, BTreeSet<usize>>; 2] = Default::default();
        let mut left = MAX_STEPS;
        if self.bodies.values().all(|body| body.found.is_empty()) {
            return [there, counts];
        }
        for (index, scene) in self.reach.scenes().iter().enumerate() {
            follow(((), &self.reach), scene, &mut left, &|(), _| None, &mut |met: Met<()>| {
                if self.bodies.contains_key(&met.old) {
                    let scenes = if met.counts { &mut counts } else { &mut there };
                    scenes.entry(met.old).or_default().insert(index);
                }
            });
        }
        [there, counts]
    }

    fn names(&self, scenes: &BTreeSet<usize>) -> Vec<String> {
        let known = scenes.iter().filter_map(|index| self.reach.scenes().get(*index));
        known.map(|scene| scene.name.clone()).collect()
    }

    /// The scenes in whose world each body is. Of the world's collection its own objects alone count, not those of
    /// collections within; of one in a library, which is not seen, it stands itself for them.
    fn in_worlds(&self) -> HashMap<u64, BTreeSet<usize>> {
        let mut all: HashMap<u64, BTreeSet<usize>> = HashMap::default();
        for (index, world) in self.worlds.iter().enumerate() {
            let Some(world) = world else { continue };
            let whole = [world.collection];
            for body in self.reach.objects_of(world.collection).unwrap_or(&whole) {
                all.entry(*body).or_default().insert(index);
            }
        }
        all
    }

    /// A scene has one world, and each its own bake.
    fn rigid_body(&self, name: &str, worlds: &BTreeSet<usize>) -> impl Iterator<Item = Simulation> {
        [true, false].into_iter().filter_map(move |baked| {
            let state = |index: &usize| matches!(self.worlds.get(*index), Some(Some(w)) if w.baked == baked);
            let scenes: BTreeSet<usize> = worlds.iter().copied().filter(state).collect();
            let (kind, owner, scenes) = (SimulationKind::RigidBody, name.to_owned(), self.names(&scenes));
            (!scenes.is_empty()).then_some(Simulation { kind, owner, scenes, baked, needs_bake: !baked })
        })
    }

    /// Bodies of libraries in worlds of this file, which keep their frames. Whether they move stands in the library:
    /// of what a person put into a world that is taken for granted.
    fn linked_bodies(&self, in_worlds: &HashMap<u64, BTreeSet<usize>>) -> Vec<Simulation> {
        let name = |body: &u64| self.reach.linked(*body).map(Link::name);
        let mut linked: Vec<_> =
            in_worlds.iter().filter_map(|(body, worlds)| Some((name(body)?, worlds))).collect();
        linked.sort();
        linked.into_iter().flat_map(|(name, worlds)| self.rigid_body(name, worlds)).collect()
    }

    fn resolve(&self, found: &Found, has_bake: &dyn Fn(&[u8]) -> bool) -> Option<Resolved> {
        let wrong_unless = |kind, baked: bool| Resolved { kind, baked, wrong: found.renders && !baked };
        match &found.bake {
            Bake::Done(baked) => Some(wrong_unless(found.kind, *baked)),
            Bake::Particles { settings, hair_dynamics, baked } => match self.particles.get(settings) {
                Some(Particles::Hair) => {
                    hair_dynamics.then(|| wrong_unless(SimulationKind::HairDynamics, *baked))
                }
                of => {
                    // What libraries hold is not seen here: it may stop or push them.
                    let pushed = self.pushes || self.reach.has_linked_members();
                    let moves = of == Some(&Particles::Moves) || (of == Some(&Particles::Falls) && pushed);
                    let resolved = wrong_unless(SimulationKind::Particles, *baked);
                    Some(Resolved { wrong: resolved.wrong && moves, ..resolved })
                }
            },
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
                Some(wrong_unless(found.kind, baked))
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

fn collides(parts: &Parts<'_>, object: View<'_>) -> bool {
    parts
        .chain(object.pointer("modifiers.first"), "modifier.next")
        .any(|one| one.struct_name() == b"CollisionModifierData")
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
