//! The nodes of one tree: which blocks of a file belong to which of them, and from which something comes.

use foldhash::{HashMap, HashSet};

use crate::dna::View;

/// Structs that are of use.
pub(crate) const STRUCTS: [&str; 4] = ["bNodeTree", "bNode", "bNodeSocket", "bNodeLink"];
/// Kinds of nodes of which one is the tree's result; the others of the same kind are idle.
const RESULTS: [&[u8]; 6] = [
    b"ShaderNodeOutputMaterial",
    b"ShaderNodeOutputWorld",
    b"ShaderNodeOutputLight",
    b"ShaderNodeOutputLineStyle",
    b"CompositorNodeComposite",
    b"NodeGroupOutput",
];

struct Node {
    muted: bool,
    /// Nothing has to be linked to it for it to count.
    ends: bool,
    /// The index among [`RESULTS`], and the engines that it is for.
    result: Option<(usize, i64)>,
    /// The one of its kind that counts.
    active: bool,
    /// First of the list of sockets.
    inputs: Option<u64>,
    outputs: Option<u64>,
    storage: Option<u64>,
    properties: Option<u64>,
}

struct Socket {
    next: Option<u64>,
    value: Option<u64>,
    properties: Option<u64>,
}

/// The blocks of a tree, by where they were in memory.
#[derive(Default)]
pub(crate) struct Nodes {
    /// The tree itself, where it is part of another datablock.
    pub embedded: Option<u64>,
    nodes: HashMap<u64, Node>,
    sockets: HashMap<u64, Socket>,
    /// From a node to a node.
    links: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NodeUse {
    /// The result of the node counts.
    Counts,
    /// The node is muted: what its sockets hold passes on, and it reads nothing itself.
    Muted,
    /// Nothing comes of it.
    Unlinked,
}

/// The node that a block belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodePart {
    pub node: u64,
    /// The block is the value of a socket.
    pub is_value: bool,
}

/// The nodes of a whole tree, with the use of each.
#[derive(Default)]
pub(crate) struct SortedNodes {
    blocks: HashMap<u64, NodePart>,
    uses: HashMap<u64, NodeUse>,
}

impl SortedNodes {
    pub fn of(&self, block: u64) -> Option<(NodePart, NodeUse)> {
        let belongs = self.blocks.get(&block)?;
        Some((*belongs, *self.uses.get(&belongs.node)?))
    }
}

impl Nodes {
    /// Takes in a block that lay at `old`.
    pub fn read(&mut self, old: u64, view: &View<'_>) {
        match view.struct_name() {
            b"bNodeTree" => self.embedded = Some(old),
            b"bNode" => {
                self.nodes.insert(old, Node::of(view));
            }
            b"bNodeSocket" => {
                let (next, value) = (view.pointer("next"), view.pointer("default_value"));
                self.sockets.insert(old, Socket { next, value, properties: view.pointer("prop") });
            }
            b"bNodeLink" => self.links.extend(view.pointer("fromnode").zip(view.pointer("tonode"))),
            _ => {}
        }
    }

    /// Bytes that they take.
    pub fn cost(&self) -> usize {
        160 * self.nodes.len() + 64 * self.sockets.len() + 16 * self.links.len()
    }

    pub fn sort(&self) -> SortedNodes {
        let mut sorted = SortedNodes::default();
        for (node, own) in &self.nodes {
            let (part, value) =
                (NodePart { node: *node, is_value: false }, NodePart { node: *node, is_value: true });
            let blocks = [Some(*node), own.storage, own.properties];
            sorted.blocks.extend(blocks.into_iter().flatten().map(|block| (block, part)));
            for first in [own.inputs, own.outputs] {
                let mut next = first;
                // A socket is in one list; one that leads back ends it.
                while let Some((old, socket)) = next.and_then(|old| Some((old, self.sockets.get(&old)?))) {
                    if sorted.blocks.insert(old, value).is_some() {
                        break;
                    }
                    let blocks = [socket.value, socket.properties];
                    sorted.blocks.extend(blocks.into_iter().flatten().map(|block| (block, value)));
                    next = socket.next;
                }
            }
        }
        let counts = self.leading_to_results();
        for (old, node) in &self.nodes {
            let used = match (counts.contains(old), node.muted) {
                (false, _) => NodeUse::Unlinked,
                (true, true) => NodeUse::Muted,
                (true, false) => NodeUse::Counts,
            };
            sorted.uses.insert(*old, used);
        }
        sorted
    }

    /// Muted nodes and muted links count as others do: something may pass through.
    fn leading_to_results(&self) -> HashSet<u64> {
        let active: HashSet<_> =
            self.nodes.values().filter(|node| node.active).filter_map(|node| node.result).collect();
        let is_idle =
            |node: &Node| !node.active && node.result.is_some_and(|result| active.contains(&result));
        let mut leads_to: HashMap<u64, Vec<u64>> = HashMap::default();
        for (from, to) in &self.links {
            leads_to.entry(*to).or_default().push(*from);
        }
        let ends = self.nodes.iter().filter(|(_, node)| node.ends && !is_idle(node));
        let mut todo: Vec<u64> = ends.map(|(old, _)| *old).collect();
        let mut found = HashSet::default();
        while let Some(node) = todo.pop() {
            if found.insert(node) {
                todo.extend(leads_to.get(&node).into_iter().flatten());
            }
        }
        found
    }
}

impl Node {
    fn of(view: &View<'_>) -> Self {
        const ACTIVE_RESULT: i64 = 1 << 6;
        const MUTED: i64 = 1 << 9;
        let (kind, flag) = (view.bytes("idname").unwrap_or_default(), view.int("flag").unwrap_or(0));
        let outputs = view.pointer("outputs.first");
        // The first node of a zone decides how often the zone runs, whatever is linked to it; and a node that writes a
        // file, or shows something, needs no other.
        let ends = outputs.is_none()
            || kind.ends_with(b"Input")
            || kind.ends_with(b"Viewer")
            || kind.ends_with(b"OutputFile");
        let result = RESULTS.iter().position(|result| *result == kind);
        Self {
            muted: flag & MUTED != 0,
            ends,
            result: result.map(|result| (result, view.int("custom1").unwrap_or(0))),
            active: flag & ACTIVE_RESULT != 0,
            inputs: view.pointer("inputs.first"),
            outputs,
            storage: view.pointer("storage"),
            properties: view.pointer("prop"),
        }
    }
}
