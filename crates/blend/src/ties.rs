//! Which datablocks a file's datablocks depend on, gathered from every pointer on the way through the file.

use std::rc::Rc;

use foldhash::HashSet;

use crate::{
    dna::{Dna, Pointers, View},
    fault::BlendFault,
    file::{Head, Walker},
};

/// How much is read of what depends on what.
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

/// The pointers of the present datablock.
#[derive(Default)]
pub(crate) struct Ties {
    /// Where the datablock was in memory.
    pub old: u64,
    pub uses: Vec<u64>,
    /// Those of drivers.
    pub driven_by: Vec<u64>,
    of_members: bool,
    /// Lists of pointers, which follow.
    lists: HashSet<u64>,
}

impl Ties {
    /// `None` for datablocks of no interest.
    pub fn of(head: &Head) -> Option<Self> {
        let of_members = matches!(&head.code, b"SC\0\0" | b"GR\0\0");
        (!LEADS_NOWHERE.contains(&head.code)).then(|| Self { old: head.old, of_members, ..Self::default() })
    }

    /// Of a block that belongs to the datablock. What is a list of pointers is read here; then, and where the block
    /// is of no interest, there are none.
    pub fn pointers(
        &mut self,
        dna: &Dna,
        head: &Head,
        walker: &mut Walker<'_>,
    ) -> Result<Rc<Pointers>, BlendFault> {
        if !self.lists.is_empty() && self.lists.remove(&head.old) {
            let shape = walker.shape;
            let list = walker.payload(MAX_LIST * shape.pointer as u64)?.chunks_exact(shape.pointer);
            self.uses.extend(list.map(|one| shape.u64(one)).filter(|old| *old != 0));
            return Ok(Rc::default());
        }
        if self.of_members && OF_MEMBERS.contains(&dna.name(head.sdna)) {
            return Ok(Rc::default());
        }
        Ok(dna.pointers(head.sdna))
    }

    /// Keeps where the pointers of a struct lead.
    pub fn follow(&mut self, view: &View<'_>, pointers: &Pointers) {
        /// A property that is a datablock; all others point to their own values.
        const DATABLOCK: i64 = 7;
        let name = view.struct_name();
        if name == b"IDProperty" && view.int("type") != Some(DATABLOCK) {
            return;
        }
        let found = if name == b"DriverVar" { &mut self.driven_by } else { &mut self.uses };
        found.extend(view.pointers_to_one(pointers));
        self.lists.extend(view.pointers_to_many(pointers));
    }

    /// Bytes that they take.
    pub fn cost(&self) -> usize {
        8 * (self.uses.len() + self.driven_by.len()) + 16 * self.lists.len()
    }
}
