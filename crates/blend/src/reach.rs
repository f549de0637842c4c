//! What a scene shows, and all that its picture depends on: whatever pointers lead to, also in other files.

use std::hash::{BuildHasher, Hash};

use foldhash::{HashMap, HashSet, fast::FixedState};

use crate::{
    animation::{Animation, animated},
    dna::{Dna, View},
    ids::flag,
    parts::{Kept, Parts},
};

/// Datablocks that are looked at before nothing more is followed: scenes of one file may all show the same million
/// objects.
pub(crate) const MAX_STEPS: usize = 50_000_000;
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

    fn all(&self) -> impl Iterator<Item = u64> {
        self.objects.iter().chain(&self.children).copied()
    }

    /// Bytes that they take.
    fn cost(&self) -> usize {
        8 * (self.objects.len() + self.children.len())
    }
}

/// Where a scene's picture begins.
pub(crate) struct Shown {
    /// Where it was in memory.
    pub old: u64,
    pub name: String,
    pub draws: Draws,
    pub members: Members,
    /// Cameras, and what drives the scene's own settings.
    pub looks_through: Vec<u64>,
    /// Its world, its compositing and more; objects and collections among them are of no meaning for the picture.
    pub uses: Vec<u64>,
}

/// A datablock that something is drawn by, unless that is muted.
pub(crate) struct Mutable {
    pub old: u64,
    pub muted: bool,
}

/// Other scenes that the picture of a scene is made of.
#[derive(Default)]
pub(crate) struct Draws {
    /// Behind it.
    pub set: Option<u64>,
    /// In strips of its sequencer, where that is used.
    pub strips: Vec<Mutable>,
    /// Its compositing is on, where that is used at all.
    pub composites: bool,
    /// By its own tree of the compositor, before 5.0.
    pub layers: Layers,
}

/// What a tree of the compositor draws.
#[derive(Default)]
pub(crate) struct Layers {
    /// Scenes of render layers.
    pub scenes: Vec<Mutable>,
    /// Other trees.
    pub groups: Vec<Mutable>,
}

impl Layers {
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
    led: bool,
    /// Whom it follows.
    parent: Option<u64>,
}

/// What stands in a file for a datablock of a library.
pub(crate) struct Link {
    /// With the two letters of its kind.
    name: String,
    /// The library, by where it was in memory.
    library: u64,
}

impl Link {
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

    fn is_member(&self) -> bool {
        self.name.starts_with("OB") || self.name.starts_with("GR")
    }
}

/// Who is drawn by whom in one file.
#[derive(Default)]
pub(crate) struct Reach {
    scenes: Vec<Shown>,
    /// Places in `scenes`.
    scenes_by_old: HashMap<u64, usize>,
    /// Of trees of the compositor.
    layers: HashMap<u64, Layers>,
    /// What is animated of datablocks.
    animations: HashMap<u64, Animation>,
    /// What actions change, as bits of [`animated`].
    actions: HashMap<u64, u32>,
    objects: HashMap<u64, Body>,
    collections: HashMap<u64, Members>,
    /// Where the pointers of a datablock lead, whatever it is, as a range of `used`.
    uses: HashMap<u64, (u32, u32)>,
    used: Vec<u64>,
    links: HashMap<u64, Link>,
    /// Libraries as the file names them.
    libraries: HashMap<u64, Vec<u8>>,
    /// Every datablock by its name, of which the hash is kept.
    names: HashMap<u64, u64>,
}

/// How what is looked at came into the picture.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// A scene.
    Draws(u64),
    /// As a member of what shows: it does where it is not hidden.
    Shows(u64),
    /// Something needs it, hidden or not.
    Counts(u64),
    /// As a setting of the scene.
    Setting(u64),
}

impl Step {
    fn old(self) -> u64 {
        match self {
            Self::Draws(old) | Self::Shows(old) | Self::Counts(old) | Self::Setting(old) => old,
        }
    }

    /// The same for what it stands for in a library.
    fn at(self, there: u64) -> Self {
        match self {
            Self::Draws(_) => Self::Draws(there),
            Self::Shows(_) => Self::Shows(there),
            Self::Counts(_) | Self::Setting(_) => Self::Counts(there),
        }
    }
}

impl Reach {
    /// What is kept of a datablock costs about this many bytes; so says each of these.
    pub fn scene(&mut self, shown: Shown) -> usize {
        let cost =
            shown.name.len() + shown.members.cost() + 8 * (shown.looks_through.len() + shown.uses.len());
        let draws = &shown.draws;
        let cost = cost + 64 + 16 * draws.strips.len() + draws.layers.cost();
        self.scenes_by_old.insert(shown.old, self.scenes.len());
        self.scenes.push(shown);
        cost
    }

    pub fn layers(&mut self, old: u64, layers: Layers) -> usize {
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

    /// Whether any of these properties of a datablock is animated. What an action of a library changes is not seen here,
    /// and taken for granted.
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

    /// Scenes that the picture of one is made of, which may be links to other files.
    pub fn draws(&self, shown: &Shown) -> Vec<u64> {
        let Draws { set, strips, composites, layers } = &shown.draws;
        let unmuted = |animated: bool| move |one: &&Mutable| animated || !one.muted;
        let strips_move = self.is_animated(shown.old, animated::STRIP_MUTED);
        let mut found: Vec<u64> = set.iter().copied().collect();
        found.extend(strips.iter().filter(unmuted(strips_move)).map(|strip| strip.old));
        if !composites && !self.is_animated(shown.old, animated::USE_NODES) {
            return found;
        }
        let (mut todo, mut seen) = (vec![(shown.old, layers)], HashSet::default());
        while let Some((old, layers)) = todo.pop() {
            let keyed = self.is_animated(old, animated::NODE_MUTED);
            found.extend(layers.scenes.iter().filter(unmuted(keyed)).map(|one| one.old));
            let groups = layers.groups.iter().filter(unmuted(keyed)).map(|group| group.old);
            let fresh = groups.filter(|group| seen.insert(*group));
            todo.extend(fresh.filter_map(|group| Some((group, self.layers.get(&group)?))));
        }
        found
    }

    pub fn collection(&mut self, dna: &Dna, block: &Kept, kept: &[Kept]) -> usize {
        let members = Members::of(&Parts::new(dna, kept), dna.view(block.sdna, &block.bytes));
        let cost = 64 + members.cost();
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
            // It may name a collection that it does not stand for; and of the other, what is hidden stays so.
            uses.retain(|used| Some(*used) != named);
        }
        let parent = object.pointer("parent");
        // A curve may lead its children along itself.
        let led = object.int("type") == Some(CURVE)
            || ["constraints.first", "rigidbody_object"].iter().any(|field| object.pointer(field).is_some())
            || (parent.is_some() && object.int("partype").is_none_or(|kind| kind & PARENT_TYPE != 0));
        self.objects.insert(old, Body { hidden, collection: named, shows_collection, led, parent });
        64
    }

    /// Whether something else moves an object than its own keys and those of its parents.
    pub fn is_led(&self, object: u64) -> bool {
        let mut at = object;
        for _ in 0..MAX_PARENTS {
            let Some(body) = self.objects.get(&at) else { return true };
            if body.led || self.is_animated(at, animated::DRIVEN) {
                return true;
            }
            match body.parent {
                Some(parent) => at = parent,
                None => return false,
            }
        }
        true
    }

    /// Where a datablock's pointers lead.
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

    /// What stands for a datablock of a library.
    pub fn link(&mut self, old: u64, id: View<'_>) -> usize {
        let (Some(library), Some(name)) = (id.pointer("lib"), id.text("name")) else { return 0 };
        let cost = 128 + name.len();
        self.links.insert(old, Link { name, library });
        cost
    }

    pub fn scenes(&self) -> &[Shown] {
        &self.scenes
    }

    /// In every frame.
    pub fn is_hidden(&self, object: u64) -> bool {
        self.objects.get(&object).is_some_and(|body| body.hidden)
            && !self.is_animated(object, animated::HIDE_RENDER)
    }

    /// The collection that an object shows in its place, in any frame.
    fn stands_for(&self, object: u64) -> Option<u64> {
        let body = self.objects.get(&object)?;
        let shows = || body.shows_collection || self.is_animated(object, animated::INSTANCE_TYPE);
        body.collection.filter(|_| shows())
    }

    pub fn linked(&self, old: u64) -> Option<&Link> {
        self.links.get(&old)
    }

    /// Whether objects or collections of libraries are in the file.
    pub fn has_linked_members(&self) -> bool {
        self.links.values().any(Link::holds_objects)
    }

    /// The library of a link, as the file names it.
    pub fn library_of(&self, link: &Link) -> Option<&[u8]> {
        self.libraries.get(&link.library).map(Vec::as_slice)
    }

    /// Where in this file, a library, what another links lies.
    pub fn find(&self, link: &Link) -> Option<u64> {
        self.names.get(&hash(link.name.as_bytes())).copied()
    }

    /// Objects of this collection itself, not of those within. `None` where it is in a library.
    pub fn objects_of(&self, collection: u64) -> Option<&[u64]> {
        self.collections.get(&collection).map(|members| members.objects.as_slice())
    }

    fn used_by(&self, old: u64) -> &[u64] {
        let Some((from, count)) = self.uses.get(&old) else { return &[] };
        let rest = self.used.get(*from as usize..).unwrap_or_default();
        rest.get(..*count as usize).unwrap_or_default()
    }
}

/// Names are compared within one file: two of one hash could only mislead about a file that was made for it.
fn hash(name: &[u8]) -> u64 {
    FixedState::default().hash_one(name)
}

/// A datablock in one of several files.
pub(crate) type Place<'a, F> = (F, &'a Reach, u64);

/// A datablock that a scene comes to.
pub(crate) struct Met<F> {
    pub file: F,
    pub old: u64,
    /// The picture depends on it; else it is only there.
    pub counts: bool,
}

/// Tells of every object that is in a scene, and of every datablock that the scene's picture depends on, however deep;
/// of the scenes that it draws, too. `beyond` finds what a link stands for, in which file.
pub(crate) fn follow<'a, F: Copy + Eq + Hash>(
    (file, reach): (F, &'a Reach),
    shown: &'a Shown,
    left: &mut usize,
    beyond: &dyn Fn(F, &Link) -> Option<Place<'a, F>>,
    each: &mut dyn FnMut(Met<F>),
) {
    let enter = |shown: &Shown, reach: &Reach| -> Vec<Step> {
        let steps = shown.members.all().map(Step::Shows);
        let steps = steps.chain(shown.looks_through.iter().copied().map(Step::Counts));
        let steps = steps.chain(shown.uses.iter().copied().map(Step::Setting));
        steps.chain(reach.draws(shown).into_iter().map(Step::Draws)).collect()
    };
    let mut todo: Vec<_> = enter(shown, reach).into_iter().map(|step| (file, reach, step)).collect();
    let mut seen = HashSet::from_iter([(file, Step::Draws(shown.old))]);
    while let Some((file, reach, step)) = todo.pop() {
        if !seen.insert((file, step)) {
            continue;
        }
        match left.checked_sub(1) {
            Some(less) => *left = less,
            None => return,
        }
        let old = step.old();
        if let Some(link) = reach.links.get(&old) {
            let is_setting = matches!(step, Step::Setting(_));
            let there = beyond(file, link).filter(|_| !(is_setting && link.is_member()));
            todo.extend(there.map(|(file, reach, there)| (file, reach, step.at(there))));
            continue;
        }
        let (object, members) = (reach.objects.get(&old), reach.collections.get(&old));
        let mut go_on = |step| todo.push((file, reach, step));
        match step {
            Step::Draws(_) => {
                if let Some(drawn) = reach.index_of(old).and_then(|index| reach.scenes.get(index)) {
                    each(Met { file, old, counts: true });
                    enter(drawn, reach).into_iter().for_each(go_on);
                }
            }
            Step::Shows(_) => {
                if let Some(members) = members {
                    members.all().map(Step::Shows).for_each(go_on);
                } else if object.is_some() {
                    each(Met { file, old, counts: false });
                    if !reach.is_hidden(old) {
                        go_on(Step::Counts(old));
                    }
                }
            }
            Step::Counts(_) => {
                each(Met { file, old, counts: true });
                members.into_iter().flat_map(Members::all).map(Step::Counts).for_each(&mut go_on);
                reach.used_by(old).iter().copied().map(Step::Counts).for_each(&mut go_on);
                reach.stands_for(old).map(Step::Shows).into_iter().for_each(go_on);
            }
            Step::Setting(_) if object.is_some() || members.is_some() => {}
            Step::Setting(_) => go_on(Step::Counts(old)),
        }
    }
}
