//! What a scene shows: the objects of its collections, and of those that empties stand for, also in other files.

use std::{
    borrow::Cow,
    collections::{self, BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use foldhash::{HashMap, HashSet};

use crate::{
    dna::{Dna, View},
    parts::{Kept, Parts},
    simulations::{Simulation, SimulationKind, flag, name},
};

/// Objects and collections that are looked at before nothing more is followed: scenes of one file may all show the
/// same million objects.
pub(crate) const MAX_STEPS: usize = 50_000_000;

/// Objects and collections of a collection, by where they were in memory.
#[derive(Clone, Default)]
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

    fn one(kind: Kind, old: u64) -> Self {
        match kind {
            Kind::Object => Self { objects: vec![old], children: Vec::new() },
            Kind::Collection => Self { objects: Vec::new(), children: vec![old] },
        }
    }

    /// Bytes that they take.
    pub fn cost(&self) -> usize {
        8 * (self.objects.len() + self.children.len())
    }
}

/// The datablocks that other files may link, and that show simulations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Object,
    Collection,
}

/// What stands in a file for a datablock of a library.
struct Link {
    kind: Kind,
    name: String,
    /// The library, by where it was in memory.
    library: u64,
}

/// Who shows what in one file.
#[derive(Default)]
pub(crate) struct Reach {
    scenes: Vec<(String, Members)>,
    collections: HashMap<u64, Members>,
    /// Empties that render, and the collections that they stand for.
    instancers: HashMap<u64, u64>,
    links: HashMap<u64, Link>,
    /// Libraries as the file names them.
    libraries: HashMap<u64, Vec<u8>>,
    /// Of collections, empties that stand for one, and objects that simulate.
    names: HashMap<u64, (Kind, String)>,
}

impl Reach {
    /// What is kept of a datablock costs about this many bytes; so says each of these.
    pub fn scene(&mut self, name: String, members: Members) -> usize {
        let cost = name.len() + members.cost();
        self.scenes.push((name, members));
        cost
    }

    pub fn collection(&mut self, dna: &Dna, block: &Kept, kept: &[Kept]) -> usize {
        let view = dna.view(block.sdna, &block.bytes);
        let members = Members::of(&Parts::new(dna, kept), view);
        let cost = 64 + members.cost();
        self.collections.insert(block.old, members);
        cost + self.named(block.old, Kind::Collection, name(view))
    }

    pub fn object(&mut self, old: u64, object: View<'_>, hidden: bool) -> usize {
        const SHOWS_COLLECTION: u32 = 8;
        // Files call it what it was called first.
        let collection = object.pointer("instance_collection").or_else(|| object.pointer("dup_group"));
        match collection.filter(|_| !hidden && flag(object, "transflag", SHOWS_COLLECTION)) {
            Some(collection) => {
                self.instancers.insert(old, collection);
                64 + self.named(old, Kind::Object, name(object))
            }
            None => 0,
        }
    }

    /// An object that simulates.
    pub fn simulating(&mut self, old: u64, name: String) -> usize {
        self.named(old, Kind::Object, name)
    }

    fn named(&mut self, old: u64, kind: Kind, name: String) -> usize {
        let cost = 64 + name.len();
        self.names.insert(old, (kind, name));
        cost
    }

    pub fn library(&mut self, old: u64, library: View<'_>) -> usize {
        let name = library.bytes("name").unwrap_or_default().to_vec();
        let cost = 64 + name.len();
        self.libraries.insert(old, name);
        cost
    }

    /// What stands for a datablock of a library.
    pub fn link(&mut self, old: u64, id: View<'_>) -> usize {
        let kind = match id.bytes("name").and_then(|name| name.get(..2)) {
            Some(b"OB") => Kind::Object,
            Some(b"GR") => Kind::Collection,
            _ => return 0,
        };
        let (Some(library), Some(name)) = (id.pointer("lib"), id.text("name")) else { return 0 };
        let name = name.get(2..).unwrap_or_default().to_owned();
        let cost = 128 + name.len();
        self.links.insert(old, Link { kind, name, library });
        cost
    }

    pub fn scenes(&self) -> impl Iterator<Item = &Members> {
        self.scenes.iter().map(|(_, members)| members)
    }

    /// Objects of this collection itself, not of those within.
    pub fn objects_of(&self, collection: u64) -> &[u64] {
        self.collections.get(&collection).map_or(&[], |members| &members.objects)
    }

    /// Every object that shows through these, and every collection of a library; some more than once. `seen` are
    /// collections that were followed before.
    pub fn follow(
        &self,
        from: &Members,
        seen: &mut HashSet<u64>,
        left: &mut usize,
        each: &mut dyn FnMut(u64),
    ) {
        let mut todo = vec![from];
        while let Some(members) = todo.pop() {
            let shown = members.objects.iter().inspect(|object| each(**object));
            let instanced: Vec<u64> =
                shown.filter_map(|object| self.instancers.get(object)).copied().collect();
            for collection in members.children.iter().chain(&instanced) {
                if seen.insert(*collection) {
                    match self.collections.get(collection) {
                        Some(inside) => todo.push(inside),
                        None => each(*collection),
                    }
                }
            }
            match left.checked_sub(members.objects.len() + members.children.len() + 1) {
                Some(less) => *left = less,
                None => return,
            }
        }
    }

    fn index(&self) -> HashMap<(Kind, &str), u64> {
        self.names.iter().map(|(old, (kind, name))| ((*kind, name.as_str()), *old)).collect()
    }
}

/// A simulation of a library that a scene shows, and that no other file can bake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedSimulation {
    pub library: PathBuf,
    /// Its scenes are those of the .blend that draws it in.
    pub simulation: Simulation,
}

/// As the worker's host says it.
impl fmt::Display for LinkedSimulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let library = self.library.file_name().unwrap_or(self.library.as_os_str());
        write!(f, "{} (from {})", self.simulation, library.display())
    }
}

/// A .blend as it is followed from another.
pub(crate) struct Follow {
    pub reach: Reach,
    pub simulations: Vec<Simulation>,
}

impl Follow {
    /// What needs a bake in this file itself, by the object's name. Rigid bodies are not among it: they are baked by
    /// the scene in whose world they are.
    fn unbaked(&self) -> HashMap<&str, Vec<usize>> {
        let mut found: HashMap<&str, Vec<usize>> = HashMap::default();
        for (index, one) in self.simulations.iter().enumerate() {
            if one.needs_bake && one.kind != SimulationKind::RigidBody {
                found.entry(&one.owner).or_default().push(index);
            }
        }
        found
    }
}

/// What the scenes of `blend` show of libraries, and that is not baked. `place` tells where a file's library lies.
pub(crate) fn linked<'a>(
    blend: &'a Path,
    files: &'a collections::HashMap<PathBuf, Follow>,
    place: &dyn Fn(&Path, &[u8]) -> Option<&'a Path>,
) -> Vec<LinkedSimulation> {
    let Some(main) = files.get(blend) else { return Vec::new() };
    let known: HashMap<&Path, _> = files
        .iter()
        .map(|(path, file)| (path.as_path(), (file, file.reach.index(), file.unbaked())))
        .collect();
    let mut found: BTreeMap<(&Path, usize), BTreeSet<&str>> = BTreeMap::new();
    let mut left = MAX_STEPS;
    for (scene, members) in &main.reach.scenes {
        let mut seen: HashMap<&Path, HashSet<u64>> = HashMap::default();
        let mut met: HashSet<(&Path, u64)> = HashSet::default();
        let mut todo = vec![(blend, Cow::Borrowed(members))];
        while let Some((path, members)) = todo.pop() {
            let Some((file, _, unbaked)) = known.get(path) else { continue };
            let reach = &file.reach;
            reach.follow(&members, seen.entry(path).or_default(), &mut left, &mut |old| {
                if let Some((Kind::Object, name)) = reach.names.get(&old)
                    && path != blend
                {
                    let here = unbaked.get(name.as_str()).into_iter().flatten();
                    here.for_each(|index| found.entry((path, *index)).or_default().extend([scene.as_str()]));
                }
                let Some(link) = reach.links.get(&old).filter(|_| met.insert((path, old))) else { return };
                let library = reach.libraries.get(&link.library).and_then(|raw| place(path, raw));
                let Some((library, (_, index, _))) = library.and_then(|at| known.get_key_value(at)) else {
                    return;
                };
                if let Some(there) = index.get(&(link.kind, link.name.as_str())) {
                    todo.push((library, Cow::Owned(Members::one(link.kind, *there))));
                }
            });
        }
    }
    let told = |((path, index), scenes): ((&Path, usize), BTreeSet<&str>)| {
        let one = files.get(path)?.simulations.get(index)?;
        let scenes = scenes.into_iter().map(str::to_owned).collect();
        Some(LinkedSimulation { library: path.to_owned(), simulation: Simulation { scenes, ..one.clone() } })
    };
    found.into_iter().filter_map(told).collect()
}
