//! The blocks that belong to one datablock, found by where they were in Blender's memory.

use foldhash::{HashMap, HashSet};

use crate::dna::{Dna, View};

/// A block kept for later.
pub(crate) struct BlockCopy {
    pub old: u64,
    pub sdna: usize,
    pub bytes: Vec<u8>,
}

pub(crate) struct Parts<'a> {
    dna: &'a Dna,
    by_old: HashMap<u64, &'a BlockCopy>,
}

impl<'a> Parts<'a> {
    pub fn new(dna: &'a Dna, kept: &'a [BlockCopy]) -> Self {
        Self { dna, by_old: kept.iter().map(|part| (part.old, part)).collect() }
    }

    pub fn get(&self, old: Option<u64>) -> Option<View<'a>> {
        let kept = self.by_old.get(&old?)?;
        Some(self.dna.view(kept.sdna, &kept.bytes))
    }

    /// A block of text, to its first NUL.
    pub fn text(&self, old: Option<u64>) -> Option<&'a [u8]> {
        self.by_old.get(&old?)?.bytes.split(|byte| *byte == 0).next()
    }

    /// The structs that lie one after another in a block.
    pub fn array(&self, old: Option<u64>) -> impl Iterator<Item = View<'a>> {
        let kept = old.and_then(|old| self.by_old.get(&old)).copied();
        let dna = self.dna;
        kept.into_iter().flat_map(move |kept| {
            let size = dna.size(kept.sdna).max(1);
            kept.bytes.chunks(size).map(|bytes| dna.view(kept.sdna, bytes))
        })
    }

    /// A list by its `next` pointers; ends at a pointer that leads nowhere, or back.
    pub fn list(&self, first: Option<u64>) -> impl Iterator<Item = View<'a>> {
        self.chain(first, "next")
    }

    /// A list whose pointers to what follows have another place.
    pub fn chain(&self, first: Option<u64>, follows: &'static str) -> impl Iterator<Item = View<'a>> {
        let mut next = first;
        let mut met: HashSet<u64> = first.into_iter().collect();
        std::iter::from_fn(move || {
            let view = self.get(next)?;
            next = view.pointer(follows).filter(|old| met.insert(*old));
            Some(view)
        })
    }

    /// The member of an ID property group.
    pub fn property(&self, group: View<'a>, name: &str) -> Option<View<'a>> {
        self.list(group.pointer("data.group.first"))
            .find(|member| member.bytes("name") == Some(name.as_bytes()))
    }
}
