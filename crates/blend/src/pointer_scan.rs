//! Gathers the pointers of each datablock to others on the way through a file.

use std::rc::Rc;

use foldhash::{HashMap, HashSet};

use crate::{
    animation::animated,
    dna::{Dna, Pointers, View},
    fault::BlendFault,
    file::{BlockHead, Walker},
    graph::UNLINKED,
    ids::flag,
    nodes::{NodeUse, Nodes},
    sequencer::Strips,
};

/// The pointers that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Collections, and the empties that stand for them: enough for what shows.
    Members,
    /// Every pointer to a datablock. Takes twice as long, and is read where something hidden simulates.
    All,
}

/// Structs that say what is in a scene or a collection.
pub(crate) const OF_MEMBERS: [&[u8]; 5] =
    [b"Base", b"CollectionObject", b"CollectionChild", b"GroupObject", b"LayerCollection"];
/// Datablocks by which no picture is drawn, however many others they name.
const LEADS_NOWHERE: [[u8; 4]; 8] =
    [*b"WM\0\0", *b"WS\0\0", *b"SR\0\0", *b"SN\0\0", *b"LI\0\0", *b"ID\0\0", *b"IM\0\0", *b"BR\0\0"];
/// Pointers of one list: Blender counts materials in 16 bits.
const MAX_LIST: u64 = 1 << 16;

/// Structs whose pointers draw nothing: pictures that only the person who models sees, and tools.
const DRAWS_NOTHING: [&[u8]; 2] = [b"CameraBGImage", b"ToolSettings"];

/// A pointer: from a block to a datablock.
#[derive(Clone, Copy)]
struct Edge {
    from: u64,
    to: u64,
}

/// The pointers of the present datablock.
#[derive(Default)]
pub(crate) struct PointerScan {
    /// The address of the datablock.
    pub old: u64,
    uses: Vec<Edge>,
    /// Those of drivers.
    driven_by: Vec<u64>,
    of_members: bool,
    /// Lists of pointers, which follow, and the blocks that name them.
    lists: HashMap<u64, u64>,
    nodes: Nodes,
    /// Blocks that are of use only where one of these properties is animated.
    off: HashMap<u64, u32>,
}

/// The parts of a datablock that do not always count, by its own settings.
#[derive(Default, Clone, Copy)]
pub(crate) struct ConditionalParts {
    /// The tree of nodes that is part of it.
    pub tree: Option<u32>,
    /// One datablock.
    pub one: Option<(u64, u32)>,
}

impl ConditionalParts {
    pub fn of(code: [u8; 4], view: &View<'_>) -> Self {
        const COMPOSITING: u32 = 6;
        let is_unused = view.int("use_nodes") == Some(0);
        if &code != b"SC\0\0" {
            let tree = (is_unused && holds_nodes(code)).then_some(animated::USE_NODES);
            return Self { tree, one: None };
        }
        let bits = animated::USE_NODES | animated::COMPOSITING;
        let composites = flag(*view, "r.scemode", COMPOSITING);
        if view.place("compositing_node_group").is_some() {
            // The tree that is part of the scene is a copy for older Blenders.
            let group = view.pointer("compositing_node_group").filter(|_| !composites);
            return Self { tree: Some(0), one: group.map(|group| (group, animated::COMPOSITING)) };
        }
        Self { tree: (is_unused || !composites).then_some(bits), one: None }
    }
}

/// Datablocks with a tree of nodes that is part of them.
pub(crate) fn holds_nodes(code: [u8; 4]) -> bool {
    matches!(&code, b"MA\0\0" | b"WO\0\0" | b"LA\0\0" | b"TE\0\0" | b"LS\0\0")
}

/// The pointers of a datablock, told apart by its parts.
#[derive(Default)]
pub(crate) struct PointerTargets {
    /// Of the datablock as a whole.
    pub uses: Vec<u64>,
    pub driven_by: Vec<u64>,
    /// Of parts that do not always count.
    pub parts: HashMap<u64, Vec<u64>>,
    /// From the datablock or a part to a part, and the properties that decide on it; those that hold a name of a file
    /// are among them.
    pub conditional_uses: Vec<(u64, u64, u32)>,
    /// The parts that hold these names of files; none where the datablock as a whole does.
    pub names: Vec<Option<u64>>,
}

impl PointerScan {
    /// `None` for datablocks of no interest.
    pub fn of(head: &BlockHead) -> Option<Self> {
        let of_members = matches!(&head.code, b"SC\0\0" | b"GR\0\0");
        (!LEADS_NOWHERE.contains(&head.code)).then(|| Self { old: head.old, of_members, ..Self::default() })
    }

    /// Of a block that belongs to the datablock. What is a list of pointers is read here; then, and where the block
    /// is of no interest, there are none.
    pub fn pointers(
        &mut self,
        dna: &Dna,
        head: &BlockHead,
        walker: &mut Walker<'_>,
    ) -> Result<Rc<Pointers>, BlendFault> {
        if !self.lists.is_empty()
            && let Some(from) = self.lists.remove(&head.old)
        {
            let shape = walker.shape;
            let list = walker.payload(MAX_LIST * shape.pointer as u64)?.chunks_exact(shape.pointer);
            let list = list.map(|one| shape.u64(one)).filter(|old| *old != 0);
            self.uses.extend(list.map(|to| Edge { from, to }));
            return Ok(Rc::default());
        }
        if self.of_members && OF_MEMBERS.contains(&dna.name(head.sdna)) {
            return Ok(Rc::default());
        }
        Ok(dna.pointers(head.sdna))
    }

    /// Keeps where the pointers of a struct lead that lay at `old`.
    pub fn follow(&mut self, old: u64, view: &View<'_>, pointers: &Pointers) {
        /// A property that is a datablock; all others point to their own values.
        const DATABLOCK: i64 = 7;
        let name = view.struct_name();
        if (name == b"IDProperty" && view.int("type") != Some(DATABLOCK)) || DRAWS_NOTHING.contains(&name) {
            return;
        }
        if name == b"DriverVar" {
            self.driven_by.extend(view.pointers_to_one(pointers));
        } else {
            self.uses.extend(view.pointers_to_one(pointers).map(|to| Edge { from: old, to }));
        }
        self.lists.extend(view.pointers_to_many(pointers).map(|list| (list, old)));
    }

    /// Takes in a part of a tree of nodes.
    pub fn node(&mut self, old: u64, view: &View<'_>) {
        self.nodes.read(old, view);
    }

    /// Takes in a modifier.
    pub fn modifier(&mut self, old: u64, view: &View<'_>) {
        const RENDERS: u32 = 1;
        if view.int("modifier.mode").is_some() && !flag(*view, "modifier.mode", RENDERS) {
            self.off.insert(old, animated::SHOW_RENDER);
        }
    }

    /// Bytes that they take.
    pub fn cost(&self) -> usize {
        16 * (self.uses.len() + self.lists.len() + self.off.len())
            + 8 * self.driven_by.len()
            + self.nodes.cost()
    }

    /// Ends the datablock. `names` are blocks that hold names of files.
    pub fn finish(self, off: ConditionalParts, strips: Option<&Strips>, names: &[u64]) -> PointerTargets {
        let Self { old: owner, mut uses, driven_by, nodes, off: blocks_off, .. } = self;
        let sorted = nodes.sort();
        // The datablock points to its own tree, whether that is of use or not.
        uses.retain(|tie| Some(tie.to) != nodes.embedded);
        let tree = nodes.embedded.filter(|_| off.tree.is_some());
        let mut parts = Known::default();
        let mut of_strips = OfStrips::default();
        if let Some((strips, sequencer)) = strips.and_then(|strips| Some((strips, strips.old()?))) {
            of_strips = OfStrips { sequencer, idle: strips.idle(), blocks: strips.blocks().collect() };
            uses.extend(strips.plays().map(|(from, to)| Edge { from, to }));
            of_strips.blocks.extend(strips.strips().map(|strip| (strip, Some(strip))));
        }
        let mut part_of = |block: u64| -> Option<u64> {
            if let Some(strip) = of_strips.blocks.get(&block) {
                let Some(strip) = strip.filter(|strip| of_strips.idle.contains(strip)) else {
                    return Some(of_strips.sequencer);
                };
                return Some(parts.add(of_strips.sequencer, strip, animated::STRIP_MUTED));
            }
            if let Some(bits) = blocks_off.get(&block) {
                return Some(parts.add(owner, block, *bits));
            }
            let (belongs, counts) = sorted.of(block)?;
            let tree = tree.zip(off.tree).map(|(tree, bits)| parts.add(owner, tree, bits));
            match counts {
                NodeUse::Unlinked => Some(parts.add(tree.unwrap_or(owner), belongs.node, UNLINKED)),
                NodeUse::Muted if !belongs.is_value => {
                    Some(parts.add(tree.unwrap_or(owner), belongs.node, animated::NODE_MUTED))
                }
                NodeUse::Muted | NodeUse::Counts => tree,
            }
        };
        let names = names.iter().map(|block| part_of(*block)).collect();
        let placed: Vec<(Option<u64>, u64)> = uses.iter().map(|tie| (part_of(tie.from), tie.to)).collect();
        let mut found = PointerTargets {
            driven_by,
            names,
            conditional_uses: parts.conditional_uses,
            ..PointerTargets::default()
        };
        for (part, to) in placed {
            match (part, off.one) {
                (Some(part), _) => found.parts.entry(part).or_default().push(to),
                (None, Some((one, bits))) if one == to => found.conditional_uses.push((owner, to, bits)),
                (None, _) => found.uses.push(to),
            }
        }
        found
    }
}

/// The blocks of a sequencer, and the strips that they belong to.
#[derive(Default)]
struct OfStrips {
    sequencer: u64,
    idle: HashSet<u64>,
    blocks: HashMap<u64, Option<u64>>,
}

/// Parts of a datablock as they become known.
#[derive(Default)]
struct Known {
    parts: HashSet<u64>,
    conditional_uses: Vec<(u64, u64, u32)>,
}

impl Known {
    fn add(&mut self, from: u64, part: u64, bits: u32) -> u64 {
        if self.parts.insert(part) {
            self.conditional_uses.push((from, part, bits));
        }
        part
    }
}
