//! The walk from block to block that picks the few blocks of interest out of all.

use std::rc::Rc;

use foldhash::{HashMap, HashSet};

use crate::{
    animation::Animation,
    dna::{Dna, View},
    external::{ExternalFile, ExternalKind},
    fault::BlendFault,
    file::{Head, Walker},
    ids::flag,
    parts::{Kept, Parts},
    reach::Mutable,
    scene,
    schema::Schema,
    shown::Shown,
    simulations::Simulations,
    spot::{Field, NameBlock, Spot},
    stream::Limits,
    ties::{Depth, OF_MEMBERS, Ties},
    uses::{self, DONE_WITH},
};

/// Names of files that one .blend may hold.
const MAX_EXTERNAL: usize = 1_000_000;
/// Names of cameras and of linked datablocks.
const MAX_NAMES: usize = 1_000_000;
const CAMERA: i64 = 11;
/// Structs read of one block that holds many.
const MAX_ARRAY: u64 = 4096;

/// A scene and the blocks that belong to it.
pub(crate) struct RawScene {
    pub block: Kept,
    pub parts: Vec<Kept>,
}

#[derive(Default)]
pub(crate) struct Collected {
    pub scenes: Vec<RawScene>,
    /// Where the active scene was in memory.
    pub active: Option<u64>,
    /// The file format's own count within a version.
    pub subversion: Option<u16>,
    pub simulations: Simulations,
    /// Byte where the first block with a DNA begins.
    pub dna_at: Option<u64>,
    /// Camera objects and linked datablocks, by where they were in memory.
    pub names: HashMap<u64, String>,
    pub cameras: Vec<String>,
    pub external: Vec<ExternalFile>,
    /// Where in memory the datablock was that names each.
    pub olds: Vec<u64>,
    pub shown: Shown,
    /// Where the name of each stands.
    pub spots: Vec<Spot>,
    /// Bytes that all of this takes, as far as files decide on it.
    pub cost: usize,
}

/// A name in a block that is still to come.
struct Pending {
    kind: ExternalKind,
    /// Numbers that tell its length too.
    counts: Vec<Field>,
}

/// A strip of the sequencer, until its elements are known.
struct Strip {
    folder: Vec<u8>,
    spot: Field,
    elements: u64,
}

/// The datablock that the present blocks belong to.
#[derive(Default)]
struct Current {
    /// Its code and name: `IMwood`.
    name: Vec<u8>,
    /// Where it was in memory.
    old: u64,
    /// It is an image that is a sequence.
    is_sequence: bool,
    /// Which parts are kept; none where only names of files are looked for.
    part: u8,
    block: Option<Kept>,
    parts: Vec<Kept>,
    /// Bytes of the budget that the parts took.
    cost: usize,
    /// `None` where they are not asked for.
    ties: Option<Ties>,
    /// `None` where it decides on nothing.
    animation: Option<(u64, Animation)>,
    is_action: bool,
    /// Scenes of the strips of a scene's sequencer.
    strip_scenes: Vec<Mutable>,
}

struct Collector<'a> {
    dna: &'a Dna,
    schema: &'a Schema,
    out: Collected,
    depth: Depth,
    /// Bytes that may still be kept.
    budget: usize,
    current: Current,
    /// Memory of a datablock that is done with: most are objects, and need as much.
    spare: Vec<u8>,
    /// What scenes and their markers use as cameras.
    looked_through: HashSet<u64>,
    /// Texts that are referred to by pointers, and follow.
    pending: HashMap<u64, Pending>,
    /// Types of the present scene's strips, by the pointer to their data.
    strip_types: HashMap<u64, i64>,
    strips: Vec<(u64, Strip)>,
    elements: HashMap<u64, Vec<(Vec<u8>, Field)>>,
}

impl<'a> Collector<'a> {
    fn new(schema: &'a Schema, limits: &Limits, depth: Depth) -> Self {
        Self {
            dna: &schema.dna,
            schema,
            out: Collected::default(),
            depth,
            budget: limits.memory,
            current: Current::default(),
            spare: Vec::new(),
            looked_through: HashSet::default(),
            pending: HashMap::default(),
            strip_types: HashMap::default(),
            strips: Vec::new(),
            elements: HashMap::default(),
        }
    }

    fn keep(&mut self, bytes: usize) -> Result<(), BlendFault> {
        // What holds a small block costs more than the block.
        self.budget = self.budget.checked_sub(bytes + 64).ok_or(BlendFault::TooMany("settings of scenes"))?;
        Ok(())
    }

    /// The same for what says itself what it costs.
    fn take(&mut self, bytes: usize) -> Result<(), BlendFault> {
        self.budget = self.budget.checked_sub(bytes).ok_or(BlendFault::TooMany("settings of scenes"))?;
        Ok(())
    }

    fn block(&mut self, head: &Head, walker: &mut Walker<'_>) -> Result<(), BlendFault> {
        if &head.code == b"GLOB" {
            if let Some(index) = self.schema.kinds.global {
                let bytes = walker.payload(1 << 16)?;
                let global = self.dna.view(index, bytes);
                self.out.active = global.pointer("curscene");
                self.out.subversion = global.int("subversion").and_then(|number| u16::try_from(number).ok());
            }
            return Ok(());
        }
        if &head.code == b"DNA1" {
            self.out.dna_at.get_or_insert(head.at);
        }
        if head.is_id() {
            return self.datablock(head, walker);
        }
        if &head.code == b"DATA" {
            return self.data(head, walker);
        }
        Ok(())
    }

    fn datablock(&mut self, head: &Head, walker: &mut Walker<'_>) -> Result<(), BlendFault> {
        self.flush()?;
        let is_object = &head.code == b"OB\0\0" && self.schema.kinds.object == Some(head.sdna);
        let is_particles = &head.code == b"PA\0\0" && self.schema.kinds.particles == Some(head.sdna);
        let mut part = match &head.code {
            b"SC\0\0" => uses::SCENE,
            b"OB\0\0" if is_object => uses::OBJECT,
            b"GR\0\0" => uses::COLLECTION,
            b"NT\0\0" => uses::TREE,
            _ => 0,
        };
        let uses = self.schema.uses.get(head.sdna).copied().unwrap_or(0);
        let is_mesh = &head.code == b"ME\0\0" && self.schema.kinds.mesh == Some(head.sdna);
        let whole =
            part != 0 || is_particles || is_mesh || uses & uses::RULES != 0 || Shown::is_owner(head.code);
        let mut ties = if self.depth == Depth::All { Ties::of(head) } else { None };
        let pointers = if ties.is_some() { self.dna.pointers(head.sdna) } else { Rc::default() };
        // Of all others the name and the pointers are of interest; every datablock begins with an ID.
        let id_size = self.schema.kinds.id.map_or(0, |id| self.dna.size(id));
        let size = if whole { self.dna.size(head.sdna).max(1) } else { id_size.max(pointers.end) } as u64;
        let bytes = walker.payload(size)?;
        let id = self.schema.kinds.id.map(|id| self.dna.view(id, bytes));
        (self.current.old, self.current.is_sequence) = (head.old, false);
        self.current.name.clear();
        self.current.name.extend_from_slice(id.and_then(|id| id.bytes("name")).unwrap_or_default());
        let view = self.dna.view(head.sdna, bytes);
        self.out.shown.datablock(head.code, head.old, &self.current.name, &view);
        let is_read = [&b"GeometryNodeTree"[..], b"CompositorNodeTree"];
        if part == uses::TREE && !view.bytes("idname").is_some_and(|name| is_read.contains(&name)) {
            part = 0;
        }
        let animates = matches!(&head.code, b"OB\0\0" | b"SC\0\0" | b"AC\0\0" | b"PA\0\0" | b"NT\0\0");
        self.current.animation = animates.then(|| (head.old, Animation::default()));
        self.current.is_action = &head.code == b"AC\0\0";
        let is_camera = is_object && view.int("type") == Some(CAMERA);
        // A scene may look through any object. Scenes come before objects.
        let is_looked_through = is_object && self.looked_through.contains(&head.old);
        if is_camera || is_looked_through || &head.code == b"ID\0\0" {
            let name = String::from_utf8_lossy(self.current.name.get(2..).unwrap_or_default()).into_owned();
            self.keep(2 * name.len())?;
            if self.out.names.len() >= MAX_NAMES {
                return Err(BlendFault::TooMany("cameras"));
            }
            if is_camera {
                self.out.cameras.push(name.clone());
            }
            self.out.names.insert(head.old, name);
        }
        if is_particles {
            let cost = self.out.simulations.particle_settings(head.old, view);
            self.keep(cost)?;
        }
        if is_mesh {
            let cost = self.out.simulations.meshes.read(head.old, view);
            self.take(cost)?;
        }
        if let Some(ties) = &mut ties {
            ties.follow(&view, &pointers);
        }
        let reach = &mut self.out.simulations.reach;
        let links = match (&head.code, id) {
            (b"ID\0\0", Some(id)) => reach.link(head.old, id),
            (b"LI\0\0", _) => reach.library(head.old, view),
            (_, Some(id)) if ties.is_some() => reach.named(head.old, id.bytes("name").unwrap_or_default()),
            _ => 0,
        };
        self.current.ties = ties;
        self.take(links)?;
        if uses & uses::RULES != 0 {
            self.apply_rules(head, head.data, &view)?;
        }
        if part != 0 {
            self.keep(bytes.len())?;
            self.current.cost = bytes.len() + 64;
            self.current.part = part;
            let mut kept = std::mem::take(&mut self.spare);
            kept.clear();
            kept.extend_from_slice(bytes);
            self.current.block = Some(Kept { old: head.old, sdna: head.sdna, bytes: kept });
        }
        Ok(())
    }

    fn data(&mut self, head: &Head, walker: &mut Walker<'_>) -> Result<(), BlendFault> {
        if !self.pending.is_empty()
            && let Some(Pending { kind, counts }) = self.pending.remove(&head.old)
        {
            let bytes = walker.payload(4096)?;
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            self.part(head, bytes)?;
            // No block in memory is longer than that.
            let len = usize::try_from(head.len).unwrap_or(usize::MAX);
            let data = Field { at: head.data, len };
            return self.named(kind, text, Spot::Block(NameBlock { head: head.at, data, counts }));
        }
        let animation = self.current.animation.as_mut().map(|(_, animation)| animation);
        let animation = animation.and_then(|animation| animation.awaits(head.old).then_some(animation));
        let shown = self.out.shown.takes_path(head.old).then_some(&mut self.out.shown);
        if animation.is_some() || shown.is_some() {
            // No path of interest is longer.
            let path = walker.payload(4096)?;
            if let Some(animation) = animation {
                animation.path(path);
            }
            if let Some(shown) = shown {
                shown.path(head.old, path);
            }
            return Ok(());
        }
        let uses = self.schema.uses.get(head.sdna).copied().unwrap_or(0);
        let animates = if self.current.animation.is_some() { uses::ANIMATION } else { 0 };
        let mut wanted = uses & (self.current.part | uses::RULES | uses::SHOWN | animates);
        if wanted & uses::SHOWN != 0 && !self.out.shown.wants(self.dna.name(head.sdna)) {
            wanted &= !uses::SHOWN;
        }
        let for_sequencer = self.current.part == uses::SCENE && uses & uses::SEQUENCER != 0;
        let pointers = match &mut self.current.ties {
            Some(ties) => ties.pointers(self.dna, head, walker)?,
            None => Rc::default(),
        };
        // Most blocks.
        if wanted == 0 && !for_sequencer && pointers.is_empty() {
            return Ok(());
        }
        let size = self.dna.size(head.sdna).max(1);
        if for_sequencer {
            return self.sequencer(head, walker, size);
        }
        // Bakes of nodes lie in arrays.
        let count = (head.len / size as u64).clamp(1, MAX_ARRAY);
        let bytes = walker.payload(count * size as u64)?;
        if let Some(ties) = self.current.ties.as_mut().filter(|_| !pointers.is_empty()) {
            bytes.chunks(size).for_each(|one| ties.follow(&self.dna.view(head.sdna, one), &pointers));
            if ties.cost() > self.budget {
                return Err(BlendFault::TooMany("settings of scenes"));
            }
        }
        if wanted & uses::ANIMATION != 0
            && let Some((_, animation)) = &mut self.current.animation
        {
            bytes.chunks(size).for_each(|one| animation.read(self.dna.view(head.sdna, one)));
            if animation.cost() > self.budget {
                return Err(BlendFault::TooMany("settings of scenes"));
            }
        }
        if wanted & uses::RULES != 0 {
            for (index, one) in bytes.chunks(size).enumerate() {
                let view = self.dna.view(head.sdna, one);
                self.apply_rules(head, head.data + (index * size) as u64, &view)?;
            }
        }
        if wanted & uses::SHOWN != 0 {
            for (index, one) in bytes.chunks(size).enumerate() {
                let old = head.old.wrapping_add((index * size) as u64);
                self.out.shown.block(old, &self.dna.view(head.sdna, one));
            }
        }
        if wanted & self.current.part != 0 {
            self.part(head, bytes)?;
        }
        Ok(())
    }

    fn part(&mut self, head: &Head, bytes: &[u8]) -> Result<(), BlendFault> {
        if self.current.part != 0 {
            self.keep(bytes.len())?;
            self.current.cost += bytes.len() + 64;
            self.current.parts.push(Kept { old: head.old, sdna: head.sdna, bytes: bytes.to_vec() });
        }
        Ok(())
    }

    fn sequencer(&mut self, head: &Head, walker: &mut Walker<'_>, size: usize) -> Result<(), BlendFault> {
        const STRIP_OF_SCENE: i64 = 2;
        const MUTED: u32 = 5;
        let index = Some(head.sdna);
        if index == self.schema.kinds.element {
            let count = head.len / size as u64;
            let mut names = Vec::new();
            for index in 0..count {
                let bytes = walker.payload(size as u64)?;
                let view = self.dna.view(head.sdna, bytes);
                let (Some(name), Some(place)) = (view.bytes("name"), view.place("name")) else { break };
                self.keep(name.len())?;
                names.push((name.to_vec(), Field::within(head.data + index * size as u64, place)));
            }
            self.elements.insert(head.old, names);
            return Ok(());
        }
        let bytes = walker.payload(size as u64)?;
        let view = self.dna.view(head.sdna, bytes);
        if index == self.schema.kinds.sequence {
            if let (Some(data), Some(kind)) = (view.pointer("strip"), view.int("type")) {
                self.keep(16)?;
                self.strip_types.insert(data, kind);
            }
            self.out.shown.strip(&view);
            if let (Some(scene), Some(STRIP_OF_SCENE)) = (view.pointer("scene"), view.int("type")) {
                self.keep(16)?;
                self.current.strip_scenes.push(Mutable { old: scene, muted: flag(view, "flag", MUTED) });
            }
        } else if let (Some(folder), Some(place), Some(elements)) =
            (view.bytes("dir"), view.place("dir"), view.pointer("stripdata"))
        {
            self.keep(folder.len())?;
            let spot = Field::within(head.data, place);
            self.strips.push((head.old, Strip { folder: folder.to_vec(), spot, elements }));
        }
        Ok(())
    }

    /// Ends the present datablock: of all but scenes little stays.
    fn flush(&mut self) -> Result<(), BlendFault> {
        self.flush_strips()?;
        let shown = self.out.shown.flush();
        self.take(shown)?;
        self.pending.clear();
        self.flush_animation()?;
        let mut ties = self.current.ties.take().unwrap_or_default();
        let Some(block) = self.current.block.take() else { return self.flush_ties(ties) };
        let Current { part, mut parts, cost, strip_scenes, .. } = std::mem::take(&mut self.current);
        if part == uses::SCENE {
            return self.flush_scene(block, parts, ties, strip_scenes);
        }
        let simulations = &mut self.out.simulations;
        let stays = match part {
            uses::OBJECT => simulations.object(self.dna, &block, &parts, &mut ties.uses),
            uses::COLLECTION => simulations.reach.collection(self.dna, &block, &parts),
            _ => simulations.tree(self.dna, &block, &parts),
        };
        self.take(stays)?;
        self.flush_ties(ties)?;
        self.budget += cost;
        parts.clear();
        self.current.parts = parts;
        self.spare = block.bytes;
        Ok(())
    }

    fn flush_animation(&mut self) -> Result<(), BlendFault> {
        let Some((old, animation)) = self.current.animation.take() else { return Ok(()) };
        let reach = &mut self.out.simulations.reach;
        let cost = if self.current.is_action {
            reach.action(old, animation.bits)
        } else {
            reach.animation(old, animation)
        };
        self.take(cost)
    }

    fn flush_ties(&mut self, mut ties: Ties) -> Result<(), BlendFault> {
        ties.uses.append(&mut ties.driven_by);
        let cost = self.out.simulations.reach.uses(ties.old, ties.uses);
        self.take(cost)
    }

    fn flush_scene(
        &mut self,
        block: Kept,
        mut parts: Vec<Kept>,
        ties: Ties,
        strips: Vec<Mutable>,
    ) -> Result<(), BlendFault> {
        let known = Parts::new(self.dna, &parts);
        let scene = self.dna.view(block.sdna, &block.bytes);
        let stays = self.out.simulations.scene(&known, (block.old, scene), ties, strips);
        self.looked_through.extend(scene::cameras(&known, scene));
        self.keep(stays)?;
        let before = parts.iter().map(|part| part.bytes.len() + 64).sum::<usize>();
        parts.retain(|part| {
            let name = self.dna.name(part.sdna);
            !OF_MEMBERS.contains(&name) && !DONE_WITH.contains(&name)
        });
        let after = parts.iter().map(|part| part.bytes.len() + 64).sum::<usize>();
        self.budget += before - after;
        self.out.scenes.push(RawScene { block, parts });
        Ok(())
    }

    fn flush_strips(&mut self) -> Result<(), BlendFault> {
        const IMAGE: i64 = 0;
        const MOVIE: i64 = 3;
        for (old, strip) in std::mem::take(&mut self.strips) {
            let kind = self.strip_types.get(&old).copied();
            let Some(names) = self.elements.get(&strip.elements) else { continue };
            let count = match kind {
                Some(IMAGE) => names.len(),
                Some(MOVIE) => 1,
                // Sounds are datablocks of their own.
                _ => 0,
            };
            let paths: Vec<(Vec<u8>, Field)> = names
                .iter()
                .take(count)
                .map(|(name, element)| ([&strip.folder[..], name].concat(), *element))
                .collect();
            for (path, element) in paths {
                let spot = Spot::Strip { folder: strip.spot, shared: strip.folder.len(), element };
                self.named(ExternalKind::Strip, path, spot)?;
            }
        }
        self.strip_types.clear();
        self.elements.clear();
        Ok(())
    }

    /// For a struct that begins at byte `at` of the file.
    fn apply_rules(&mut self, head: &Head, at: u64, view: &View<'_>) -> Result<(), BlendFault> {
        let Some(rules) = self.schema.rules.get(&head.sdna) else { return Ok(()) };
        for rule in rules.iter().filter(|rule| (rule.applies)(view)) {
            if let Some(pointer) = view.pointer(rule.field) {
                if self.pending.len() < MAX_EXTERNAL {
                    // A property tells the length of its text; what others point to ends with a NUL. How much
                    // memory the text once had is no length of it, and nobody reads it.
                    let of_text = |field: &&'static str| view.int(field) == view.int("len");
                    let counts = ["len", "totallen"].into_iter().filter(of_text);
                    let counts = counts.filter_map(|field| view.place(field));
                    let counts = counts.filter(|_| view.struct_name() == b"IDProperty");
                    let counts = counts.map(|place| Field::within(at, place)).collect();
                    self.pending.insert(pointer, Pending { kind: rule.kind, counts });
                }
            } else if let (Some(name), Some(place)) = (view.bytes(rule.field), view.place(rule.field)) {
                let file = ExternalFile::new(rule.kind, name.to_vec(), self.owner());
                let mut file = file.described_by(view);
                match rule.strukt {
                    "Image" => self.current.is_sequence = file.sequence,
                    "ImageView" => file.sequence = self.current.is_sequence,
                    _ => {}
                }
                self.external(file, Spot::Field(Field::within(at, place)))?;
            }
        }
        Ok(())
    }

    fn named(&mut self, kind: ExternalKind, raw: Vec<u8>, spot: Spot) -> Result<(), BlendFault> {
        self.external(ExternalFile::new(kind, raw, self.owner()), spot)
    }

    fn owner(&self) -> String {
        String::from_utf8_lossy(&self.current.name).into_owned()
    }

    fn external(&mut self, file: ExternalFile, spot: Spot) -> Result<(), BlendFault> {
        if !file.kind.takes(&file.raw) {
            return Ok(());
        }
        if self.out.external.len() >= MAX_EXTERNAL {
            return Err(BlendFault::TooMany("names of files"));
        }
        self.out.external.push(file);
        self.out.olds.push(self.current.old);
        self.out.spots.push(spot);
        Ok(())
    }
}

/// From the first block to the end mark.
pub(crate) fn collect(
    walker: &mut Walker<'_>,
    schema: &Schema,
    limits: &Limits,
    depth: Depth,
) -> Result<Collected, BlendFault> {
    let mut collector = Collector::new(schema, limits, depth);
    while let Some(head) = walker.next()? {
        collector.block(&head, walker)?;
    }
    collector.flush()?;
    Ok(Collected { cost: limits.memory.saturating_sub(collector.budget), ..collector.out })
}
