//! The walk from block to block that picks the few blocks of interest out of all.

use std::rc::Rc;

use foldhash::{HashMap, HashSet};

use crate::{
    animation::Animation,
    dna::{Dna, View},
    external::{ExternalFile, ExternalKind},
    fault::BlendFault,
    file::{BlockHead, Walker},
    location::{ByteRange, NameBlock, PathLocation},
    parts::{BlockCopy, Parts},
    pointer_scan::{ConditionalParts, Depth, OF_MEMBERS, PointerScan, PointerTargets, holds_nodes},
    scene,
    schema::Schema,
    sequence_users::SequenceUsers,
    sequencer::Strips,
    simulations::Simulations,
    stream::ReadLimits,
    uses::{self, DONE_WITH, Uses},
};

/// Names of files that one .blend may hold.
const MAX_EXTERNAL: usize = 1_000_000;
/// Names of cameras and of linked datablocks.
const MAX_NAMES: usize = 1_000_000;
/// Tiles of one image: Blender numbers them from 1001 to 2000.
const MAX_TILES: usize = 1000;
const CAMERA: i64 = 11;
/// Structs read of one block that holds many.
const MAX_ARRAY: u64 = 4096;

/// A scene and the blocks that belong to it.
pub(crate) struct RawScene {
    pub block: BlockCopy,
    pub parts: Vec<BlockCopy>,
    /// Strips of its sequencer show other scenes.
    pub shows_scenes: bool,
}

#[derive(Default)]
pub(crate) struct CollectedBlocks {
    pub scenes: Vec<RawScene>,
    /// The address of the active scene in Blender's memory, like every `old` and `olds`.
    pub active: Option<u64>,
    /// The file format's own count within a version.
    pub subversion: Option<u16>,
    pub simulations: Simulations,
    /// Byte where the first block with a DNA begins.
    pub dna_at: Option<u64>,
    /// Camera objects and linked datablocks, by where they were in memory.
    pub names: HashMap<u64, String>,
    pub cameras: Vec<u64>,
    pub external: Vec<ExternalFile>,
    /// The datablock that names each.
    pub olds: Vec<u64>,
    /// The same, or where the part of it was that names each and does not always count: only a walk of [`Depth::All`]
    /// tells such parts apart.
    pub named_in: Vec<u64>,
    pub shown: SequenceUsers,
    /// The location of each name.
    pub locations: Vec<PathLocation>,
    /// Bytes that all of this takes, as far as files decide on it.
    pub cost: usize,
}

/// A name in a block that is still to come.
struct Pending {
    kind: ExternalKind,
    /// Numbers that tell its length too.
    counts: Vec<ByteRange>,
}

/// The datablock that the present blocks belong to.
#[derive(Default)]
struct Current {
    /// The code and the name: `IMwood`.
    name: Vec<u8>,
    old: u64,
    /// An image that is a sequence.
    is_sequence: bool,
    /// Among all its names of files, that of an image of tiles.
    tiled: Option<usize>,
    /// The present block.
    at: u64,
    /// The parts to keep; none if only names of files are of interest.
    part: Uses,
    block: Option<BlockCopy>,
    parts: Vec<BlockCopy>,
    /// Bytes of the budget that the parts took.
    cost: usize,
    /// `None` where they are not asked for.
    pointer_scan: Option<PointerScan>,
    off: ConditionalParts,
    /// The index of the first of its names among all.
    names: usize,
    /// `None` where it decides on nothing.
    animation: Option<(u64, Animation)>,
    is_action: bool,
    /// Of a scene.
    strips: Strips,
}

struct Collector<'a> {
    dna: &'a Dna,
    schema: &'a Schema,
    out: CollectedBlocks,
    depth: Depth,
    /// Bytes that may still be kept.
    budget: usize,
    current: Current,
    /// Memory of a datablock that is done with: most are objects, and need as much.
    spare: Vec<u8>,
    /// Objects that scenes and their markers use as cameras.
    looked_through: HashSet<u64>,
    /// Texts that are referred to by pointers, and follow.
    pending: HashMap<u64, Pending>,
}

impl<'a> Collector<'a> {
    fn new(schema: &'a Schema, limits: &ReadLimits, depth: Depth) -> Self {
        Self {
            dna: &schema.dna,
            schema,
            out: CollectedBlocks::default(),
            depth,
            budget: limits.memory,
            current: Current::default(),
            spare: Vec::new(),
            looked_through: HashSet::default(),
            pending: HashMap::default(),
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

    fn block(&mut self, head: &BlockHead, walker: &mut Walker<'_>) -> Result<(), BlendFault> {
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

    fn datablock(&mut self, head: &BlockHead, walker: &mut Walker<'_>) -> Result<(), BlendFault> {
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
        let whole = part != 0
            || is_particles
            || is_mesh
            || uses & uses::RULES != 0
            || SequenceUsers::is_owner(head.code);
        let mut pointer_scan = if self.depth == Depth::All { PointerScan::of(head) } else { None };
        let pointers = if pointer_scan.is_some() { self.dna.pointers(head.sdna) } else { Rc::default() };
        // Of all others the name and the pointers are of interest; every datablock begins with an ID.
        let id_size = self.schema.kinds.id.map_or(0, |id| self.dna.size(id));
        let size = if whole { self.dna.size(head.sdna).max(1) } else { id_size.max(pointers.end) } as u64;
        let bytes = walker.payload(size)?;
        let id = self.schema.kinds.id.map(|id| self.dna.view(id, bytes));
        (self.current.old, self.current.at, self.current.is_sequence) = (head.old, head.old, false);
        (self.current.names, self.current.tiled) = (self.out.external.len(), None);
        self.current.name.clear();
        self.current.name.extend_from_slice(id.and_then(|id| id.bytes("name")).unwrap_or_default());
        let view = self.dna.view(head.sdna, bytes);
        self.out.shown.datablock(head.code, head.old, &self.current.name, &view);
        let is_read = [&b"GeometryNodeTree"[..], b"CompositorNodeTree"];
        if part == uses::TREE && !view.bytes("idname").is_some_and(|name| is_read.contains(&name)) {
            part = 0;
        }
        let animates = matches!(&head.code, b"OB\0\0" | b"SC\0\0" | b"AC\0\0" | b"PA\0\0" | b"NT\0\0")
            || (pointer_scan.is_some() && holds_nodes(head.code));
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
                self.out.cameras.push(head.old);
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
        if let Some(pointer_scan) = &mut pointer_scan {
            pointer_scan.follow(head.old, &view, &pointers);
            self.current.off = ConditionalParts::of(head.code, &view);
        }
        let graph = &mut self.out.simulations.graph;
        let links = match (&head.code, id) {
            (b"ID\0\0", Some(id)) => graph.link(head.old, id),
            (b"LI\0\0", _) => graph.library(head.old, view),
            (_, Some(id)) if self.depth == Depth::All => {
                graph.named(head.old, id.bytes("name").unwrap_or_default())
            }
            _ => 0,
        };
        self.current.pointer_scan = pointer_scan;
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
            self.current.block = Some(BlockCopy { old: head.old, sdna: head.sdna, bytes: kept });
        }
        Ok(())
    }

    fn data(&mut self, head: &BlockHead, walker: &mut Walker<'_>) -> Result<(), BlendFault> {
        self.current.at = head.old;
        if !self.pending.is_empty()
            && let Some(Pending { kind, counts }) = self.pending.remove(&head.old)
        {
            let bytes = walker.payload(4096)?;
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
            self.part(head, bytes)?;
            // No block in memory is longer than that.
            let len = usize::try_from(head.len).unwrap_or(usize::MAX);
            let data = ByteRange { at: head.data, len };
            return self.named(kind, text, PathLocation::Block(NameBlock { head: head.at, data, counts }));
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
        let nodes = if self.current.pointer_scan.is_some() { uses::NODES } else { 0 };
        let tiles = if self.current.tiled.is_some() { uses::TILES } else { 0 };
        let mut wanted = uses & (self.current.part | uses::RULES | uses::SHOWN | animates | nodes | tiles);
        if wanted & uses::SHOWN != 0 && !self.out.shown.wants(self.dna.name(head.sdna)) {
            wanted &= !uses::SHOWN;
        }
        let for_sequencer = self.current.part == uses::SCENE && uses & uses::SEQUENCER != 0;
        let pointers = match &mut self.current.pointer_scan {
            Some(pointer_scan) => pointer_scan.pointers(self.dna, head, walker)?,
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
        if let Some(pointer_scan) = &mut self.current.pointer_scan {
            let is_modifier = wanted & uses::OBJECT != 0;
            let is_change =
                self.current.part == uses::SCENE && self.dna.has_field(head.sdna, "modifier.mask_id");
            for (index, one) in bytes.chunks(size).enumerate() {
                let (old, view) = (place_in(head.old, index, size), self.dna.view(head.sdna, one));
                if !pointers.is_empty() {
                    pointer_scan.follow(old, &view, &pointers);
                }
                if wanted & uses::NODES != 0 {
                    pointer_scan.node(old, &view);
                }
                if is_modifier {
                    pointer_scan.modifier(old, &view);
                }
                if is_change {
                    self.current.strips.change(old, &view);
                }
            }
            if pointer_scan.cost() > self.budget {
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
        if wanted & uses::TILES != 0
            && let Some(image) = self.current.tiled.and_then(|at| self.out.external.get_mut(at))
            && image.tiles.len() < MAX_TILES
        {
            let number = self.dna.view(head.sdna, bytes).int("tile_number");
            image.tiles.extend(number.and_then(|number| u16::try_from(number).ok()));
        }
        if wanted & uses::RULES != 0 {
            for (index, one) in bytes.chunks(size).enumerate() {
                let view = self.dna.view(head.sdna, one);
                self.current.at = place_in(head.old, index, size);
                self.apply_rules(head, head.data + (index * size) as u64, &view)?;
            }
        }
        if wanted & uses::SHOWN != 0 {
            for (index, one) in bytes.chunks(size).enumerate() {
                let old = place_in(head.old, index, size);
                self.out.shown.block(old, &self.dna.view(head.sdna, one));
            }
        }
        if wanted & self.current.part != 0 {
            self.part(head, bytes)?;
        }
        Ok(())
    }

    fn part(&mut self, head: &BlockHead, bytes: &[u8]) -> Result<(), BlendFault> {
        if self.current.part != 0 {
            self.keep(bytes.len())?;
            self.current.cost += bytes.len() + 64;
            self.current.parts.push(BlockCopy { old: head.old, sdna: head.sdna, bytes: bytes.to_vec() });
        }
        Ok(())
    }

    fn sequencer(
        &mut self,
        head: &BlockHead,
        walker: &mut Walker<'_>,
        size: usize,
    ) -> Result<(), BlendFault> {
        let strips = &mut self.current.strips;
        if self.dna.name(head.sdna) == b"StripElem" {
            let mut names = Vec::new();
            for index in 0..head.len / size as u64 {
                let view = self.dna.view(head.sdna, walker.payload(size as u64)?);
                let (Some(name), Some(place)) = (view.bytes("name"), view.place("name")) else { break };
                self.budget =
                    self.budget.checked_sub(name.len() + 64).ok_or(BlendFault::TooMany("strips"))?;
                names.push((name.to_vec(), ByteRange::within(head.data + index * size as u64, place)));
            }
            strips.elements(head.old, names);
            return Ok(());
        }
        let view = self.dna.view(head.sdna, walker.payload(size as u64)?);
        if view.struct_name() == b"Sequence" {
            self.out.shown.strip(&view);
        }
        let cost = strips.read(head.old, head.data, &view);
        self.keep(cost)
    }

    /// Ends the present datablock: of all but scenes little stays.
    fn flush(&mut self) -> Result<(), BlendFault> {
        self.flush_strips()?;
        let shown = self.out.shown.flush();
        self.take(shown)?;
        self.pending.clear();
        self.flush_animation()?;
        let mut targets = self.flush_ties();
        let Some(block) = self.current.block.take() else { return self.flush_uses(targets) };
        let Current { part, mut parts, cost, strips, old, names, .. } = std::mem::take(&mut self.current);
        (self.current.old, self.current.names) = (old, names);
        if part == uses::SCENE {
            return self.flush_scene(block, parts, targets, &strips);
        }
        let simulations = &mut self.out.simulations;
        let stays = match part {
            uses::OBJECT => simulations.object(self.dna, &block, &parts, &mut targets.uses),
            uses::COLLECTION => simulations.graph.collection(self.dna, &block, &parts),
            _ => simulations.tree(self.dna, &block, &parts),
        };
        self.take(stays)?;
        self.flush_uses(targets)?;
        self.budget += cost;
        parts.clear();
        self.current.parts = parts;
        self.spare = block.bytes;
        Ok(())
    }

    /// Tells the pointers of the present datablock apart by its parts; none where they are not asked for.
    fn flush_ties(&mut self) -> PointerTargets {
        let names = self.out.named_in.get_mut(self.current.names..).unwrap_or_default();
        let Some(pointer_scan) = self.current.pointer_scan.take() else {
            names.fill(self.current.old);
            return PointerTargets::default();
        };
        let strips = Some(&self.current.strips).filter(|_| self.current.part == uses::SCENE);
        let mut targets = pointer_scan.finish(self.current.off, strips, names);
        for (name, part) in names.iter_mut().zip(std::mem::take(&mut targets.names)) {
            *name = part.unwrap_or(self.current.old);
        }
        targets
    }

    fn flush_uses(&mut self, mut targets: PointerTargets) -> Result<(), BlendFault> {
        let mut uses = std::mem::take(&mut targets.uses);
        uses.append(&mut targets.driven_by);
        let (graph, old) = (&mut self.out.simulations.graph, self.current.old);
        let cost = graph.uses(old, uses) + graph.parts(old, targets);
        self.take(cost)
    }

    fn flush_animation(&mut self) -> Result<(), BlendFault> {
        let Some((old, animation)) = self.current.animation.take() else { return Ok(()) };
        let graph = &mut self.out.simulations.graph;
        let cost = if self.current.is_action {
            graph.action(old, animation.bits)
        } else {
            graph.animation(old, animation)
        };
        self.take(cost)
    }

    fn flush_scene(
        &mut self,
        block: BlockCopy,
        mut parts: Vec<BlockCopy>,
        mut targets: PointerTargets,
        strips: &Strips,
    ) -> Result<(), BlendFault> {
        let known = Parts::new(self.dna, &parts);
        let scene = self.dna.view(block.sdna, &block.bytes);
        let stays = self.out.simulations.scene(&known, (block.old, scene), &mut targets, strips);
        self.looked_through.extend(scene::cameras(&known, scene));
        self.keep(stays)?;
        let pointer_scan = self.out.simulations.graph.parts(block.old, targets);
        self.take(pointer_scan)?;
        let before = parts.iter().map(|part| part.bytes.len() + 64).sum::<usize>();
        parts.retain(|part| {
            let name = self.dna.name(part.sdna);
            !OF_MEMBERS.contains(&name) && !DONE_WITH.contains(&name)
        });
        let after = parts.iter().map(|part| part.bytes.len() + 64).sum::<usize>();
        self.budget += before - after;
        self.out.scenes.push(RawScene { block, parts, shows_scenes: strips.shows_scenes() });
        Ok(())
    }

    fn flush_strips(&mut self) -> Result<(), BlendFault> {
        for file in self.current.strips.take_files() {
            self.current.at = file.strip;
            self.named(ExternalKind::Strip, file.raw, file.location)?;
        }
        Ok(())
    }

    /// For a struct that begins at byte `at` of the file.
    fn apply_rules(&mut self, head: &BlockHead, at: u64, view: &View<'_>) -> Result<(), BlendFault> {
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
                    let counts = counts.map(|place| ByteRange::within(at, place)).collect();
                    self.pending.insert(pointer, Pending { kind: rule.kind, counts });
                }
            } else if let (Some(name), Some(place)) = (view.bytes(rule.field), view.place(rule.field)) {
                let file = ExternalFile::new(rule.kind, name.to_vec(), self.owner());
                let mut file = file.described_by(view);
                match rule.strukt {
                    "Image" => {
                        self.current.is_sequence = file.sequence;
                        self.current.tiled = file.tiled.then_some(self.out.external.len());
                    }
                    "ImageView" => file.sequence = self.current.is_sequence,
                    _ => {}
                }
                self.external(file, PathLocation::Field(ByteRange::within(at, place)))?;
            }
        }
        Ok(())
    }

    fn named(&mut self, kind: ExternalKind, raw: Vec<u8>, location: PathLocation) -> Result<(), BlendFault> {
        self.external(ExternalFile::new(kind, raw, self.owner()), location)
    }

    fn owner(&self) -> String {
        String::from_utf8_lossy(&self.current.name).into_owned()
    }

    fn external(&mut self, file: ExternalFile, location: PathLocation) -> Result<(), BlendFault> {
        if !file.kind.takes(&file.raw) {
            return Ok(());
        }
        if self.out.external.len() >= MAX_EXTERNAL {
            return Err(BlendFault::TooMany("names of files"));
        }
        self.out.external.push(file);
        self.out.olds.push(self.current.old);
        self.out.named_in.push(self.current.at);
        self.out.locations.push(location);
        Ok(())
    }
}

/// The address of one of the structs in a block.
fn place_in(old: u64, index: usize, size: usize) -> u64 {
    old.wrapping_add((index * size) as u64)
}

/// From the first block to the end mark.
pub(crate) fn collect(
    walker: &mut Walker<'_>,
    schema: &Schema,
    limits: &ReadLimits,
    depth: Depth,
) -> Result<CollectedBlocks, BlendFault> {
    let mut collector = Collector::new(schema, limits, depth);
    while let Some(head) = walker.next()? {
        collector.block(&head, walker)?;
    }
    collector.flush()?;
    Ok(CollectedBlocks { cost: limits.memory.saturating_sub(collector.budget), ..collector.out })
}
