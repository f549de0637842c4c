//! The dependencies between the datablocks of one file, by its pointers. Datablocks are known by their address in
//! Blender's memory (`old`).

use std::hash::BuildHasher;

use foldhash::{HashMap, HashSet, fast::FixedState};

use crate::{
    animation::{Animation, animated},
    dna::{Dna, View},
    ids::flag,
    layers::{Collections, ViewLayer},
    parts::{BlockCopy, Parts},
    pointer_scan::PointerTargets,
};

/// Parents of parents that are followed: a file may make a ring of them.
const MAX_PARENTS: usize = 1000;

/// Objects and collections of a collection, by where they were in memory.
#[derive(Default)]
pub(crate) struct Members {
    pub objects: Vec<u64>,
    pub children: Vec<u64>,
}

impl Members {
    pub fn of_scene(parts: &Parts<'_>, scene: View<'_>) -> Self {
        match parts.get(scene.pointer("master_collection")) {
            Some(collection) => Self::of(parts, collection),
            // Before 2.80 a scene held its objects itself.
            None => Self {
                objects: parts
                    .list(scene.pointer("base.first"))
                    .filter_map(|base| base.pointer("object"))
                    .collect(),
                children: Vec::new(),
            },
        }
    }

    fn of(parts: &Parts<'_>, collection: View<'_>) -> Self {
        let follow = |list: &'static str, field: &'static str| {
            parts.list(collection.pointer(list)).filter_map(move |one| one.pointer(field)).collect()
        };
        Self { objects: follow("gobject.first", "ob"), children: follow("children.first", "collection") }
    }

    pub fn all(&self) -> impl Iterator<Item = u64> {
        self.objects.iter().chain(&self.children).copied()
    }

    /// Bytes that they take.
    fn cost(&self) -> usize {
        8 * (self.objects.len() + self.children.len())
    }
}

/// The content of a scene, from which its picture is made.
pub(crate) struct SceneContent {
    pub old: u64,
    pub name: String,
    pub draws: SceneSources,
    pub members: Members,
    pub view_layers: Vec<ViewLayer>,
    /// The block of the sequencer.
    pub sequencer: Option<u64>,
    /// The sequencer shows something in the frame that is saved, and replaces the picture of the scene.
    pub covered: bool,
    /// The engine reads only the nodes that lead to a result.
    pub shades_by_results: bool,
    /// Cameras, and what drives the scene's own settings.
    pub looks_through: Vec<u64>,
    /// World, compositing and more; objects and collections among them do not matter for the picture.
    pub uses: Vec<u64>,
}

/// A datablock that something is drawn by, unless that is muted.
pub(crate) struct MutableRef {
    pub old: u64,
    pub muted: bool,
}

/// Other scenes that the picture of a scene is made of.
#[derive(Default)]
pub(crate) struct SceneSources {
    /// Behind it.
    pub set: Option<u64>,
    /// In strips of its sequencer.
    pub strips: Vec<MutableRef>,
    /// The sequencer is used if the scene itself renders.
    pub sequences: bool,
    /// Compositing is on.
    pub composites: bool,
    /// By its own tree of the compositor, before 5.0.
    pub layers: CompositorInputs,
}

/// The scenes and trees that a tree of the compositor reads.
#[derive(Default)]
pub(crate) struct CompositorInputs {
    /// Scenes of render layers.
    pub scenes: Vec<MutableRef>,
    /// Other trees.
    pub groups: Vec<MutableRef>,
}

impl CompositorInputs {
    pub fn cost(&self) -> usize {
        16 * (self.scenes.len() + self.groups.len())
    }
}

/// An object as others are drawn by it, in the frame that is saved.
struct Body {
    hidden: bool,
    /// The collection that it shows in its place, and whether it does.
    collection: Option<u64>,
    shows_collection: bool,
    /// Something moves it, or its children, that is no key of it.
    moved_indirectly: bool,
    parent: Option<u64>,
}

/// Of a node that leads to no result: no animation changes that, but some engines do not ask.
pub(crate) const UNLINKED: u32 = 1 << 31;

/// A pointer that counts only where one of these properties of its datablock is animated.
#[derive(Clone, Copy)]
pub(crate) struct ConditionalUse {
    pub to: u64,
    owner: u64,
    bits: u32,
}

/// The reference to a datablock of a library.
pub(crate) struct LibraryLink {
    /// With the two letters of its kind.
    name: String,
    /// The library, by where it was in memory.
    library: u64,
}

impl LibraryLink {
    /// With the two letters of its kind.
    pub fn full_name(&self) -> &str {
        &self.name
    }

    pub fn name(&self) -> &str {
        self.name.get(2..).unwrap_or_default()
    }

    /// A scene may hold what pushes particles, as objects and collections may.
    fn holds_objects(&self) -> bool {
        self.is_member() || self.name.starts_with("SC")
    }

    pub fn is_member(&self) -> bool {
        self.name.starts_with("OB") || self.name.starts_with("GR")
    }
}

#[derive(Default)]
pub(crate) struct DatablockGraph {
    scenes: Vec<SceneContent>,
    /// Places in `scenes`.
    scenes_by_old: HashMap<u64, usize>,
    /// Of trees of the compositor.
    layers: HashMap<u64, CompositorInputs>,
    animations: HashMap<u64, Animation>,
    /// The properties that actions change, as bits of [`animated`].
    actions: HashMap<u64, u32>,
    objects: HashMap<u64, Body>,
    /// Objects that act on others which have no pointer to them.
    acting: HashSet<u64>,
    collections: HashMap<u64, Members>,
    /// Those that do not render.
    hidden: HashSet<u64>,
    /// The targets of a datablock's pointers, as a range of `used`.
    uses: HashMap<u64, (u32, u32)>,
    used: Vec<u64>,
    /// The targets of pointers that do not always count.
    conditional_uses: HashMap<u64, Vec<ConditionalUse>>,
    links: HashMap<u64, LibraryLink>,
    /// Libraries as the file names them.
    libraries: HashMap<u64, Vec<u8>>,
    /// Every datablock by its name, of which the hash is kept.
    names: HashMap<u64, u64>,
}

impl DatablockGraph {
    /// This and the following functions return how many bytes the datablock takes.
    pub fn scene(&mut self, shown: SceneContent) -> usize {
        let cost =
            shown.name.len() + shown.members.cost() + 8 * (shown.looks_through.len() + shown.uses.len());
        let draws = &shown.draws;
        let cost = cost + 64 + 16 * draws.strips.len() + draws.layers.cost();
        let cost = cost + shown.view_layers.iter().map(ViewLayer::cost).sum::<usize>();
        self.scenes_by_old.insert(shown.old, self.scenes.len());
        self.scenes.push(shown);
        cost
    }

    pub fn layers(&mut self, old: u64, layers: CompositorInputs) -> usize {
        let cost = 64 + layers.cost();
        self.layers.insert(old, layers);
        cost
    }

    pub fn action(&mut self, old: u64, bits: u32) -> usize {
        self.actions.insert(old, bits);
        16
    }

    pub fn animation(&mut self, old: u64, animation: Animation) -> usize {
        if animation.is_empty() {
            return 0;
        }
        let cost = animation.cost();
        self.animations.insert(old, animation);
        cost
    }

    /// One of these properties of a datablock is animated. An action of a library is not read, and assumed to change all.
    pub fn is_animated(&self, old: u64, bits: u32) -> bool {
        self.animations.get(&old).is_some_and(|animation| {
            let by_action = |action: &u64| match self.actions.get(action) {
                Some(changed) => changed & bits != 0,
                None => self.links.contains_key(action),
            };
            animation.bits & bits != 0 || animation.actions.iter().any(by_action)
        })
    }

    pub fn index_of(&self, scene: u64) -> Option<usize> {
        self.scenes_by_old.get(&scene).copied()
    }

    /// A scene of this file, by its address.
    pub fn scene_at(&self, old: u64) -> Option<&SceneContent> {
        self.scenes.get(self.index_of(old)?)
    }

    /// Scenes that the picture of one is made of, which may be links to other files.
    pub fn draws(&self, shown: &SceneContent) -> Vec<u64> {
        let strips = if shown.draws.sequences { self.in_strips(shown) } else { Vec::new() };
        self.behind(shown).into_iter().chain(strips).collect()
    }

    /// Those in strips of the sequencer.
    pub fn in_strips(&self, shown: &SceneContent) -> Vec<u64> {
        let keyed = self.is_animated(shown.old, animated::STRIP_MUTED);
        let unmuted = shown.draws.strips.iter().filter(|strip| keyed || !strip.muted);
        unmuted.map(|strip| strip.old).collect()
    }

    /// Those behind it, and those of its compositing.
    pub fn behind(&self, shown: &SceneContent) -> Vec<u64> {
        let SceneSources { set, composites, layers, .. } = &shown.draws;
        let mut found: Vec<u64> = set.iter().copied().collect();
        if !composites && !self.is_animated(shown.old, animated::USE_NODES) {
            return found;
        }
        let (mut todo, mut seen) = (vec![(shown.old, layers)], HashSet::default());
        while let Some((old, layers)) = todo.pop() {
            let keyed = self.is_animated(old, animated::NODE_MUTED);
            let unmuted = |one: &&MutableRef| keyed || !one.muted;
            found.extend(layers.scenes.iter().filter(unmuted).map(|one| one.old));
            let groups = layers.groups.iter().filter(unmuted).map(|group| group.old);
            let fresh = groups.filter(|group| seen.insert(*group));
            todo.extend(fresh.filter_map(|group| Some((group, self.layers.get(&group)?))));
        }
        found
    }

    /// The sequencer's picture replaces the scene's in every frame.
    pub fn is_covered(&self, shown: &SceneContent) -> bool {
        shown.covered && !self.is_animated(shown.old, animated::STRIP_MUTED | animated::SEQUENCER)
    }

    /// The sequencer's picture may replace the scene's.
    pub fn sequences(&self, shown: &SceneContent) -> bool {
        shown.draws.sequences || self.is_animated(shown.old, animated::SEQUENCER)
    }

    /// Tells of what renders of a scene in one of these of its view layers. `left` is how many steps it may take.
    pub fn rendered(
        &self,
        shown: &SceneContent,
        picked: &dyn Fn(&ViewLayer) -> bool,
        left: &mut usize,
        each: &mut dyn FnMut(u64),
    ) {
        let layers = shown.view_layers.iter().filter(|layer| picked(layer));
        let layers: Vec<&ViewLayer> = layers.collect();
        if layers.iter().all(|layer| layer.is_empty()) || self.is_animated(shown.old, animated::VIEW_LAYER) {
            shown.members.all().for_each(each);
            return;
        }
        for layer in layers {
            layer.each((&shown.members.objects, &shown.members.children), self, left, each);
        }
    }

    pub fn collection(&mut self, dna: &Dna, block: &BlockCopy, kept: &[BlockCopy]) -> usize {
        const HIDE_RENDER: u32 = 3;
        let view = dna.view(block.sdna, &block.bytes);
        // No Blender animates collections yet.
        if flag(view, "flag", HIDE_RENDER) && view.pointer("adt").is_none() {
            self.hidden.insert(block.old);
        }
        let members = Members::of(&Parts::new(dna, kept), view);
        let cost = 72 + members.cost();
        self.collections.insert(block.old, members);
        cost
    }

    /// Tells also what of the object's `uses` nothing is drawn by.
    pub fn object(&mut self, old: u64, object: View<'_>, uses: &mut Vec<u64>) -> usize {
        const HIDE_RENDER: u32 = 2;
        const SHOWS_COLLECTION: u32 = 8;
        const EMPTY: i64 = 0;
        const CURVE: i64 = 2;
        const CAMERA: i64 = 11;
        /// The bits that tell to what of the parent; none stands for all of it.
        const PARENT_TYPE: i64 = 15;
        let hidden =
            flag(object, "restrictflag", HIDE_RENDER) || flag(object, "visibility_flag", HIDE_RENDER);
        // Nobody sees a camera, and everything through one.
        let hidden = hidden && object.int("type") != Some(CAMERA);
        // Files call it what it was called first.
        let named = object.pointer("instance_collection").or_else(|| object.pointer("dup_group"));
        let shows_collection = flag(object, "transflag", SHOWS_COLLECTION);
        if object.int("type") == Some(EMPTY) {
            // It may name a collection that it does not stand for; and of the other, what is hidden stays so. Its picture
            // is for the eyes of the person who models.
            let picture = object.pointer("data");
            uses.retain(|used| Some(*used) != named && Some(*used) != picture);
        }
        let parent = object.pointer("parent");
        // A curve may lead its children along itself.
        let moved_indirectly = object.int("type") == Some(CURVE)
            || ["constraints.first", "rigidbody_object"].iter().any(|field| object.pointer(field).is_some())
            || (parent.is_some() && object.int("partype").is_none_or(|kind| kind & PARENT_TYPE != 0));
        self.objects
            .insert(old, Body { hidden, collection: named, shows_collection, moved_indirectly, parent });
        64
    }

    /// The object moves by something else than its own keys and those of its parents.
    pub fn is_moved_indirectly(&self, object: u64) -> bool {
        let mut at = object;
        for _ in 0..MAX_PARENTS {
            let Some(body) = self.objects.get(&at) else { return true };
            if body.moved_indirectly || self.is_animated(at, animated::DRIVEN) {
                return true;
            }
            match body.parent {
                Some(parent) => at = parent,
                None => return false,
            }
        }
        true
    }

    /// An object that acts on others, whether it renders or not.
    pub fn acts(&mut self, object: u64) -> usize {
        self.acting.insert(object);
        16
    }

    /// In any frame.
    pub fn is_acting(&self, object: u64) -> bool {
        self.acting.contains(&object) || self.is_animated(object, animated::FIELD_TYPE)
    }

    /// Adds the targets of the pointers of a datablock's parts, and of those that do not always count.
    pub fn parts(&mut self, owner: u64, targets: PointerTargets) -> usize {
        let mut cost = 0;
        for (part, uses) in targets.parts {
            cost += self.uses(part, uses);
        }
        for (from, to, bits) in targets.conditional_uses {
            self.conditional_uses.entry(from).or_default().push(ConditionalUse { to, owner, bits });
            cost += 64;
        }
        cost
    }

    /// Adds the targets of a datablock's pointers.
    pub fn uses(&mut self, old: u64, mut uses: Vec<u64>) -> usize {
        uses.sort_unstable();
        uses.dedup();
        let range = u32::try_from(self.used.len()).ok().zip(u32::try_from(uses.len()).ok());
        let Some(range) = range.filter(|(_, count)| *count > 0) else { return 0 };
        self.used.extend(&uses);
        self.uses.insert(old, range);
        32 + 8 * uses.len()
    }

    /// With the two letters of its kind.
    pub fn named(&mut self, old: u64, name: &[u8]) -> usize {
        self.names.insert(hash(name), old);
        32
    }

    pub fn library(&mut self, old: u64, library: View<'_>) -> usize {
        let name = library.bytes("name").unwrap_or_default().to_vec();
        let cost = 64 + name.len();
        self.libraries.insert(old, name);
        cost
    }

    pub fn link(&mut self, old: u64, id: View<'_>) -> usize {
        let (Some(library), Some(name)) = (id.pointer("lib"), id.text("name")) else { return 0 };
        let cost = 128 + name.len();
        self.links.insert(old, LibraryLink { name, library });
        cost
    }

    pub fn scenes(&self) -> &[SceneContent] {
        &self.scenes
    }

    /// In every frame.
    pub fn is_hidden(&self, object: u64) -> bool {
        self.objects.get(&object).is_some_and(|body| body.hidden)
            && !self.is_animated(object, animated::HIDE_RENDER)
    }

    pub fn is_hidden_collection(&self, collection: u64) -> bool {
        self.hidden.contains(&collection)
    }

    /// The collection that an object shows in its place, in any frame.
    pub fn stands_for(&self, object: u64) -> Option<u64> {
        let body = self.objects.get(&object)?;
        let shows = || body.shows_collection || self.is_animated(object, animated::INSTANCE_TYPE);
        body.collection.filter(|_| shows())
    }

    pub fn linked(&self, old: u64) -> Option<&LibraryLink> {
        self.links.get(&old)
    }

    /// Objects or collections of libraries are in the file.
    pub fn has_linked_members(&self) -> bool {
        self.links.values().any(LibraryLink::holds_objects)
    }

    /// The library of a link, as the file names it.
    pub fn library_of(&self, link: &LibraryLink) -> Option<&[u8]> {
        self.libraries.get(&link.library).map(Vec::as_slice)
    }

    /// The datablock of this file, a library, to which a link of another file refers.
    pub fn find(&self, link: &LibraryLink) -> Option<u64> {
        self.names.get(&hash(link.name.as_bytes())).copied()
    }

    /// Objects of this collection itself, not of those within. `None` where it is in a library.
    pub fn objects_of(&self, collection: u64) -> Option<&[u64]> {
        self.collections.get(&collection).map(|members| members.objects.as_slice())
    }

    /// The objects of a scene, with those of all collections in it that are in this file; `None` if it takes more than
    /// `left` steps.
    pub fn objects_of_scene(&self, old: u64, left: &mut usize) -> Option<HashSet<u64>> {
        let (mut objects, mut seen) = (HashSet::default(), HashSet::default());
        let mut todo: Vec<&Members> = self.scene_at(old).map(|shown| &shown.members).into_iter().collect();
        while let Some(members) = todo.pop() {
            *left = left.checked_sub(1 + members.objects.len() + members.children.len())?;
            objects.extend(&members.objects);
            let fresh = members.children.iter().filter(|child| seen.insert(**child));
            todo.extend(fresh.filter_map(|child| self.collections.get(child)));
        }
        Some(objects)
    }

    pub fn is_object(&self, old: u64) -> bool {
        self.objects.contains_key(&old)
    }

    pub fn members_of(&self, collection: u64) -> Option<&Members> {
        self.collections.get(&collection)
    }

    /// Pointers of a datablock that count at times.
    pub fn conditional_uses(&self, old: u64) -> &[ConditionalUse] {
        self.conditional_uses.get(&old).map_or(&[], Vec::as_slice)
    }

    /// The pointer counts in some frame. Idle nodes count only with `all_nodes`.
    pub fn counts(&self, one: &ConditionalUse, all_nodes: bool) -> bool {
        let moves = one.bits & !UNLINKED;
        let is_idle_node = one.bits & (UNLINKED | animated::NODE_MUTED) != 0;
        (all_nodes && is_idle_node) || (moves != 0 && self.is_animated(one.owner, moves))
    }

    pub fn used_by(&self, old: u64) -> &[u64] {
        let Some((from, count)) = self.uses.get(&old) else { return &[] };
        let rest = self.used.get(*from as usize..).unwrap_or_default();
        rest.get(..*count as usize).unwrap_or_default()
    }
}

/// Names are compared within one file: two of one hash could only mislead about a file that was made for it.
fn hash(name: &[u8]) -> u64 {
    FixedState::default().hash_one(name)
}

impl Collections for DatablockGraph {
    fn members(&self, collection: u64) -> Option<(&[u64], &[u64])> {
        self.collections.get(&collection).map(|members| (&members.objects[..], &members.children[..]))
    }

    fn hides(&self, collection: u64) -> bool {
        self.is_hidden_collection(collection)
    }
}
