//! Simulations and their bakes. A Blender without a window renders them without motion unless they are baked, so this
//! tells whether a job needs a bake first.

use std::collections::BTreeSet;

use foldhash::{HashMap, HashSet};

use crate::{
    animation::animated,
    caches::{Bake, CacheFiles, PointCache, bake_of_nodes},
    dna::{Dna, View},
    follow::{MAX_STEPS, Purpose, Visit, follow},
    graph::{DatablockGraph, LibraryLink, Members, SceneContent},
    ids::{flag, name},
    layers::ViewLayer,
    particles::{Meshes, Particles, collides, particles},
    parts::{BlockCopy, Parts},
    pointer_scan::PointerTargets,
    scene,
    sequencer::Strips,
    simulated::{
        RigidBody, SimulationSource, SimulationStorage, ZoneBake, active, acts_on_others, drawn, layers,
        modifier_simulation,
    },
    simulation::{Simulation, SimulationKind},
};

/// A simulation after the whole file was read.
struct Resolved {
    kind: SimulationKind,
    bake: Bake,
    /// Without a bake it would be wrong.
    matters: bool,
}

struct Body {
    name: String,
    found: Vec<SimulationSource>,
    rigid: Option<RigidBody>,
}

struct World {
    scene: u64,
    collection: u64,
    muted: bool,
    cache: PointCache,
}

#[derive(Default)]
struct Tree {
    /// A simulation zone that is not muted.
    simulates: bool,
    /// Of any, muted or not.
    has_zone: bool,
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
    pub graph: DatablockGraph,
    trees: HashMap<u64, Tree>,
    particles: HashMap<u64, Particles>,
    pub meshes: Meshes,
    /// Something of the file stops particles, or pushes them.
    pushes: bool,
    /// A scene has motion blur, for which Blender steps back and forth.
    blurs: bool,
    /// Objects whose force field is switched off in the frame that is saved.
    idle_fields: Vec<u64>,
}

/// Groups within groups that are followed.
const MAX_DEPTH: usize = 64;

impl Simulations {
    /// Returns how many bytes the datablock takes.
    pub fn scene(
        &mut self,
        parts: &Parts<'_>,
        (old, scene): (u64, View<'_>),
        targets: &mut PointerTargets,
        strips: &Strips,
    ) -> usize {
        const MUTED: u32 = 0;
        const MOTION_BLUR: u32 = 14;
        self.blurs |= flag(scene, "r.mode", MOTION_BLUR);
        let members = Members::of_scene(parts, scene);
        let world = parts.get(scene.pointer("rigidbody_world")).and_then(|world| {
            let cache = match parts.get(world.pointer("shared")) {
                Some(shared) => shared.pointer("pointcache"),
                None => world.pointer("pointcache"),
            };
            let (collection, muted) = (world.pointer("group")?, flag(world, "flag", MUTED));
            Some(World { scene: old, collection, muted, cache: PointCache::read(parts, cache, scene) })
        });
        let cost = world.as_ref().map_or(0, |world| world.cache.cost());
        self.worlds.push(world);
        let looks_through = [scene::cameras(parts, scene), std::mem::take(&mut targets.driven_by)].concat();
        let draws = drawn(parts, scene, strips);
        let engine = scene::engine(scene);
        let shown = SceneContent {
            old,
            name: name(scene),
            covered: draws.sequences && strips.covers() && scene::is_sequenced(&engine),
            draws,
            members,
            view_layers: ViewLayer::read(parts, scene),
            sequencer: strips.old(),
            shades_by_results: scene::shades_by_results(&engine),
            looks_through,
            uses: std::mem::take(&mut targets.uses),
        };
        cost + self.graph.scene(shown)
    }

    pub fn object(&mut self, dna: &Dna, block: &BlockCopy, kept: &[BlockCopy], uses: &mut Vec<u64>) -> usize {
        let object = dna.view(block.sdna, &block.bytes);
        let cost = self.graph.object(block.old, object, uses);
        if kept.is_empty() {
            return cost;
        }
        let parts = Parts::new(dna, kept);
        let mut found: Vec<SimulationSource> = parts
            .chain(object.pointer("modifiers.first"), "modifier.next")
            .filter_map(|modifier| modifier_simulation(&parts, object, modifier))
            .collect();
        let systems = parts.list(object.pointer("particlesystem.first"));
        found.extend(systems.filter_map(|system| particles(&parts, object, system)));
        let rigid = parts.get(object.pointer("rigidbody_object"));
        let acts = rigid.is_some()
            || parts.chain(object.pointer("modifiers.first"), "modifier.next").any(acts_on_others);
        let rigid = rigid.and_then(active);
        let field = parts.get(object.pointer("pd")).and_then(|field| field.int("forcefield"));
        self.pushes |= field.is_some_and(|kind| kind != 0) || collides(&parts, object);
        if field == Some(0) {
            self.idle_fields.push(block.old);
        }
        let acts = acts || field.is_some_and(|kind| kind != 0);
        let cost = if acts { cost + self.graph.acts(block.old) } else { cost };
        if found.is_empty() && rigid.is_none() {
            return cost + 8;
        }
        let name = name(object);
        let caches: usize = found.iter().map(|one| one.stored.cost()).sum();
        let cost = cost + name.len() + 128 * (1 + found.len()) + caches;
        self.order.push(block.old);
        self.bodies.insert(block.old, Body { name, found, rigid });
        cost
    }

    pub fn tree(&mut self, dna: &Dna, block: &BlockCopy, kept: &[BlockCopy]) -> usize {
        const MUTED: u32 = 9;
        let (view, parts) = (dna.view(block.sdna, &block.bytes), Parts::new(dna, kept));
        if view.bytes("idname") == Some(b"CompositorNodeTree") {
            return self.graph.layers(block.old, layers(&parts, view));
        }
        let mut tree = Tree::default();
        for node in parts.list(view.pointer("nodes.first")) {
            let muted = flag(node, "flag", MUTED);
            let identifier = node.int("identifier").unwrap_or(0);
            match node.bytes("idname") {
                Some(b"GeometryNodeSimulationOutput") => {
                    tree.simulates |= !muted;
                    tree.has_zone = true;
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

    /// All of them, in the file's order.
    pub fn finish(&self, beside: &CacheFiles<'_>) -> Vec<Simulation> {
        let ([there, counts], in_worlds) = (self.in_scenes(), self.in_worlds());
        let drawn_by = self.drawn_by();
        let mut all = self.linked_bodies(&in_worlds, &drawn_by, beside);
        let nowhere = BTreeSet::new();
        for old in &self.order {
            let Some(body) = self.bodies.get(old) else { continue };
            if let Some(worlds) = in_worlds.get(old).filter(|_| self.moves(*old, body)) {
                all.extend(self.rigid_body(&body.name, worlds, &drawn_by, beside));
            }
            let (there, counts) = (there.get(old).unwrap_or(&nowhere), counts.get(old).unwrap_or(&nowhere));
            let only_there = there - counts;
            for found in &body.found {
                let Some(Resolved { kind, bake, matters }) = self.resolve(*old, found, beside) else {
                    continue;
                };
                let mut tell = |scenes: &BTreeSet<usize>, counts: bool| {
                    let (owner, scenes, baked) = (body.name.clone(), self.names(scenes), bake.done);
                    let missing = if counts && matters && baked { &bake.missing[..] } else { &[] };
                    let needs_bake = counts && matters && !baked;
                    let missing_frames = missing.to_vec();
                    all.push(Simulation { kind, owner, scenes, baked, needs_bake, missing_frames });
                };
                if there.is_empty() && counts.is_empty() {
                    // Others may link it.
                    tell(&nowhere, !self.graph.is_hidden(*old));
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

    /// The simulations that are not baked, shown or not, by the address of their object; rigid bodies by the scene of
    /// their world.
    pub fn unbaked(&self, beside: &CacheFiles<'_>) -> HashMap<u64, Vec<Simulation>> {
        let mut all = self.unbaked_objects(beside);
        let of = |kind, owner: String| {
            let (scenes, missing_frames) = (Vec::new(), Vec::new());
            Simulation { kind, owner, scenes, baked: false, needs_bake: true, missing_frames }
        };
        for world in self.worlds.iter().flatten() {
            if !self.world_counts(world) || world.cache.bake(beside, false).done {
                continue;
            }
            let whole = [world.collection];
            for old in self.graph.objects_of(world.collection).unwrap_or(&whole) {
                let own = self.bodies.get(old).filter(|body| self.moves(*old, body));
                let own = own.map(|body| body.name.clone());
                let name = own.or_else(|| self.graph.linked(*old).map(|link| link.name().to_owned()));
                let found = name.map(|name| of(SimulationKind::RigidBody, name));
                all.entry(world.scene).or_default().extend(found);
            }
        }
        all.retain(|_, found| !found.is_empty());
        all
    }

    fn unbaked_objects(&self, beside: &CacheFiles<'_>) -> HashMap<u64, Vec<Simulation>> {
        let mut all: HashMap<u64, Vec<Simulation>> = HashMap::default();
        for (old, body) in &self.bodies {
            let resolved = body.found.iter().filter_map(|found| self.resolve(*old, found, beside));
            for Resolved { kind, .. } in resolved.filter(|resolved| resolved.matters && !resolved.bake.done) {
                let (owner, scenes, missing_frames) = (body.name.clone(), Vec::new(), Vec::new());
                let one = Simulation { kind, owner, scenes, baked: false, needs_bake: true, missing_frames };
                all.entry(*old).or_default().push(one);
            }
        }
        all
    }

    /// Something would be wrong and is not visible in every scene: then pointers decide whether it counts.
    pub fn may_move_others(&self, beside: &CacheFiles<'_>) -> bool {
        let [_, counts] = self.in_scenes();
        let scenes = self.graph.scenes().len();
        let everywhere = |old: &u64| counts.get(old).map_or(0, BTreeSet::len) == scenes;
        let wrong = |resolved: Resolved| {
            resolved.matters && !(resolved.bake.done && resolved.bake.missing.is_empty())
        };
        self.bodies.iter().any(|(old, body)| {
            let mut resolved = body.found.iter().filter_map(|found| self.resolve(*old, found, beside));
            !everywhere(old) && resolved.any(wrong)
        })
    }

    /// The rigid body is moved by others in some frame.
    fn moves(&self, old: u64, body: &Body) -> bool {
        body.rigid.is_some_and(|rigid| {
            (rigid.enabled || self.graph.is_animated(old, animated::BODY_ENABLED))
                && (!rigid.kinematic || self.graph.is_animated(old, animated::BODY_KINEMATIC))
        })
    }

    fn world_counts(&self, world: &World) -> bool {
        !world.muted || self.graph.is_animated(world.scene, animated::WORLD_ENABLED)
    }

    /// Of every object that simulates, the scenes that it is in, and those whose picture depends on it.
    fn in_scenes(&self) -> [HashMap<u64, BTreeSet<usize>>; 2] {
        let [mut there, mut counts]: [HashMap<u64, BTreeSet<usize>>; 2] = Default::default();
        let mut left = MAX_STEPS;
        if self.bodies.values().all(|body| body.found.is_empty()) {
            return [there, counts];
        }
        for (index, scene) in self.graph.scenes().iter().enumerate() {
            let purpose = Purpose::Simulations;
            follow(((), &self.graph), scene, purpose, &mut left, &|(), _| None, &mut |met: Visit<()>| {
                if self.bodies.contains_key(&met.old) {
                    let scenes = if met.counts { &mut counts } else { &mut there };
                    scenes.entry(met.old).or_default().insert(index);
                }
            });
        }
        [there, counts]
    }

    /// Of every scene, those whose picture is made of it; itself among them.
    fn drawn_by(&self) -> Vec<BTreeSet<usize>> {
        let scenes = self.graph.scenes();
        let mut all = vec![BTreeSet::new(); scenes.len()];
        let mut left = MAX_STEPS;
        for (index, _) in scenes.iter().enumerate() {
            let mut todo = vec![index];
            while let Some(at) = todo.pop() {
                let Some(less) = left.checked_sub(1) else { return all };
                left = less;
                let (Some(by), Some(scene)) = (all.get_mut(at), scenes.get(at)) else { continue };
                if by.insert(index) {
                    let drawn = self.graph.draws(scene);
                    todo.extend(drawn.into_iter().filter_map(|old| self.graph.index_of(old)));
                }
            }
        }
        all
    }

    fn names(&self, scenes: &BTreeSet<usize>) -> Vec<String> {
        let known = scenes.iter().filter_map(|index| self.graph.scenes().get(*index));
        known.map(|scene| scene.name.clone()).collect()
    }

    /// The scenes in whose world each body is. Of the world's collection its own objects alone count, not those of
    /// collections within; a collection of a library, which is not read, represents its objects.
    fn in_worlds(&self) -> HashMap<u64, BTreeSet<usize>> {
        let mut all: HashMap<u64, BTreeSet<usize>> = HashMap::default();
        for (index, world) in self.worlds.iter().enumerate() {
            let Some(world) = world.as_ref().filter(|world| self.world_counts(world)) else { continue };
            let whole = [world.collection];
            for body in self.graph.objects_of(world.collection).unwrap_or(&whole) {
                all.entry(*body).or_default().insert(index);
            }
        }
        all
    }

    /// A scene has one world, and each its own bake. It counts for all scenes that draw that one.
    fn rigid_body(
        &self,
        name: &str,
        worlds: &BTreeSet<usize>,
        drawn_by: &[BTreeSet<usize>],
        beside: &CacheFiles<'_>,
    ) -> Vec<Simulation> {
        let mut states: Vec<(Bake, BTreeSet<usize>)> = Vec::new();
        for index in worlds {
            let Some(Some(world)) = self.worlds.get(*index) else { continue };
            let bake = world.cache.bake(beside, false);
            let scenes = drawn_by.get(*index).into_iter().flatten().copied();
            match states.iter_mut().find(|(known, _)| *known == bake) {
                Some((_, known)) => known.extend(scenes),
                None => states.push((bake, scenes.collect())),
            }
        }
        states.sort_by_key(|(bake, _)| !bake.done);
        let told = |(bake, scenes): (Bake, BTreeSet<usize>)| Simulation {
            kind: SimulationKind::RigidBody,
            owner: name.to_owned(),
            scenes: self.names(&scenes),
            baked: bake.done,
            needs_bake: !bake.done,
            missing_frames: if bake.done { bake.missing } else { Vec::new() },
        };
        states.into_iter().map(told).collect()
    }

    /// Bodies of libraries in worlds of this file, which keep their frames. Only the library tells whether they move:
    /// of what a person put into a world that is taken for granted.
    fn linked_bodies(
        &self,
        in_worlds: &HashMap<u64, BTreeSet<usize>>,
        drawn_by: &[BTreeSet<usize>],
        beside: &CacheFiles<'_>,
    ) -> Vec<Simulation> {
        let name = |body: &u64| self.graph.linked(*body).map(LibraryLink::name);
        let mut linked: Vec<_> =
            in_worlds.iter().filter_map(|(body, worlds)| Some((name(body)?, worlds))).collect();
        linked.sort();
        linked
            .into_iter()
            .flat_map(|(name, worlds)| self.rigid_body(name, worlds, drawn_by, beside))
            .collect()
    }

    fn resolve(&self, old: u64, found: &SimulationSource, beside: &CacheFiles<'_>) -> Option<Resolved> {
        let mut resolved = self.resolve_all(old, found, beside)?;
        // Blender leaves it out of some frames of a bake, as it does where a person steps through them: frames that are
        // not stored are then not lost.
        if self.graph.is_animated(old, animated::VIEWPORT) {
            resolved.bake.missing.clear();
        }
        Some(resolved)
    }

    fn resolve_all(&self, old: u64, found: &SimulationSource, beside: &CacheFiles<'_>) -> Option<Resolved> {
        let renders = found.renders || self.graph.is_animated(old, animated::SHOW_RENDER);
        let of = |kind, bake| Resolved { kind, bake, matters: renders };
        match &found.stored {
            SimulationStorage::Points(cache) => Some(of(found.kind, cache.bake(beside, false))),
            SimulationStorage::Paint(surfaces) => {
                let keyed = self.graph.is_animated(old, animated::SURFACE_ACTIVE);
                let painted = surfaces.iter().filter(|(active, _)| *active || keyed);
                let mut bakes = painted.map(|(_, cache)| cache.bake(beside, false)).peekable();
                bakes.peek()?;
                Some(of(found.kind, Bake::all(bakes)))
            }
            SimulationStorage::Fluid(cache) => Some(of(found.kind, cache.bake(beside))),
            SimulationStorage::Particles { settings, hair_dynamics, emitter, cache } => {
                match self.particles.get(settings) {
                    Some(Particles::Hair) => {
                        let simulates =
                            *hair_dynamics || self.graph.is_animated(old, animated::HAIR_DYNAMICS);
                        simulates.then(|| of(SimulationKind::HairDynamics, cache.bake(beside, false)))
                    }
                    known => {
                        let moves = match known {
                            Some(Particles::Moves) => true,
                            Some(Particles::Falls) => {
                                self.is_pushed()
                                    || self.graph.is_animated(*settings, animated::ANY)
                                    || !emitter.is_steady(old, &self.meshes, &self.graph)
                            }
                            _ => false,
                        };
                        let resolved = of(SimulationKind::Particles, cache.bake(beside, true));
                        Some(Resolved { matters: resolved.matters && moves, ..resolved })
                    }
                }
            }
            SimulationStorage::Nodes { tree, zones, folder } => {
                if !self.simulates(*tree, &mut HashSet::default()) {
                    return None;
                }
                let zone = |zone: &ZoneBake| match &zone.folder {
                    _ if zone.packed => Bake::done(),
                    Some((folder, below)) => bake_of_nodes(folder, below, beside),
                    None => Bake::default(),
                };
                let simulating: Vec<&ZoneBake> =
                    zones.iter().filter(|zone| self.is_zone(*tree, zone.id, MAX_DEPTH)).collect();
                let bake = if !simulating.is_empty() {
                    Bake::all(simulating.into_iter().map(zone))
                } else if zones.is_empty() {
                    folder.as_ref().map(|folder| bake_of_nodes(folder, "", beside)).unwrap_or_default()
                } else {
                    Bake::all(zones.iter().map(zone))
                };
                Some(of(found.kind, bake))
            }
        }
    }

    /// Something stops or pushes particles, from frame to frame. What libraries hold is not seen here: it may do so, too.
    fn is_pushed(&self) -> bool {
        let by_field = |old: &u64| self.graph.is_animated(*old, animated::FIELD_TYPE);
        let by_fall = |scene: &SceneContent| self.graph.is_animated(scene.old, animated::FALL);
        self.pushes
            || self.blurs
            || self.graph.has_linked_members()
            || self.idle_fields.iter().any(by_field)
            || self.graph.scenes().iter().any(by_fall)
    }

    fn simulates(&self, tree: u64, seen: &mut HashSet<u64>) -> bool {
        let mut todo = vec![tree];
        while let Some(tree) = todo.pop() {
            // Up to Blender 4.x whether a node is muted can be animated.
            let keyed = self.graph.is_animated(tree, animated::NODE_MUTED);
            let Some(tree) = self.trees.get(&tree).filter(|_| seen.insert(tree)) else { continue };
            if tree.simulates || (keyed && tree.has_zone) {
                return true;
            }
            let groups = tree.groups.iter().filter(|(node, _)| keyed || !tree.muted.contains(node));
            todo.extend(groups.map(|(_, inside)| *inside));
        }
        false
    }

    /// The nested node of this identifier is a simulation zone.
    fn is_zone(&self, tree: u64, id: i64, depth: usize) -> bool {
        let Some(tree) = self.trees.get(&tree) else { return false };
        let Some((node, inside)) = tree.nested.get(&id) else { return false };
        match tree.groups.get(node) {
            Some(group) => depth > 0 && self.is_zone(*group, *inside, depth - 1),
            None => tree.zones.contains(node),
        }
    }
}
