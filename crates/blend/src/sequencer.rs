//! The strips of a scene's sequencer: which of them show, and the files that they name.

use foldhash::{HashMap, HashSet};

use crate::{
    dna::View,
    graph::MutableRef,
    ids::flag,
    location::{ByteRange, PathLocation},
};

/// Structs that are of use.
pub(crate) const STRUCTS: [&str; 5] = ["Editing", "SeqTimelineChannel", "Sequence", "Strip", "StripElem"];

/// Blender's numbers of kinds of strips.
const IMAGE: i64 = 0;
const META: i64 = 1;
const SCENE: i64 = 2;
const MOVIE: i64 = 3;
const SOUNDS: [i64; 2] = [4, 5];
/// Blender has half of them.
const MAX_CHANNELS: usize = 256;

#[derive(Clone, Copy)]
struct Editing {
    old: u64,
    /// First of the list of strips.
    strips: Option<u64>,
    channels: Option<u64>,
}

struct Channel {
    next: Option<u64>,
    index: i64,
    muted: bool,
}

struct Strip {
    next: Option<u64>,
    kind: i64,
    muted: bool,
    channel: i64,
    scene: Option<u64>,
    data: Option<u64>,
    /// The data of an effect.
    effect: Option<u64>,
    /// Of a strip that holds others: the first of them, and of their channels.
    inside: Option<u64>,
    channels: Option<u64>,
    /// Strips that an effect is made of.
    inputs: [Option<u64>; 3],
    /// Datablocks that it plays.
    plays: [Option<u64>; 3],
}

/// The names of a strip's files, until its elements are known.
struct Names {
    data: u64,
    folder: Vec<u8>,
    location: ByteRange,
    elements: Option<u64>,
}

/// The strips of one scene, by where they were in memory.
#[derive(Default)]
pub(crate) struct Strips {
    editing: Option<Editing>,
    strips: HashMap<u64, Strip>,
    channels: HashMap<u64, Channel>,
    names: Vec<Names>,
    elements: HashMap<u64, Vec<(Vec<u8>, ByteRange)>>,
    /// Strips that others are masked by.
    masks: Vec<u64>,
    /// Changes of strips, such as of their colours.
    changes: Vec<u64>,
}

/// A file that a strip names.
pub(crate) struct StripFile {
    pub strip: u64,
    pub raw: Vec<u8>,
    pub location: PathLocation,
}

impl Strips {
    /// Reads a block with the address `old` at byte `at` of the file; elements have a function of their own. Returns
    /// how many bytes it takes.
    pub fn read(&mut self, old: u64, at: u64, view: &View<'_>) -> usize {
        match view.struct_name() {
            b"Editing" => {
                let (strips, channels) = (view.pointer("seqbase.first"), view.pointer("channels.first"));
                self.editing = Some(Editing { old, strips, channels });
                0
            }
            b"SeqTimelineChannel" => {
                const MUTED: u32 = 1;
                let (index, muted) = (view.int("index").unwrap_or(0), flag(*view, "flag", MUTED));
                self.channels.insert(old, Channel { next: view.pointer("next"), index, muted });
                32
            }
            b"Sequence" => {
                self.strips.insert(old, Strip::of(view));
                192
            }
            _ => {
                let (Some(folder), Some(place)) = (view.bytes("dir"), view.place("dir")) else { return 0 };
                let elements = view.pointer("stripdata");
                let location = ByteRange::within(at, place);
                self.names.push(Names { data: old, folder: folder.to_vec(), location, elements });
                folder.len()
            }
        }
    }

    /// A block of elements.
    pub fn elements(&mut self, old: u64, names: Vec<(Vec<u8>, ByteRange)>) {
        self.elements.insert(old, names);
    }

    /// Something that changes a strip, and may name another one as a mask.
    pub fn change(&mut self, old: u64, view: &View<'_>) {
        self.changes.push(old);
        self.masks
            .extend(view.pointer("modifier.mask_sequence").or_else(|| view.pointer("modifier.mask_strip")));
    }

    /// The address of the sequencer's own block.
    pub fn old(&self) -> Option<u64> {
        self.editing.map(|editing| editing.old)
    }

    /// Scenes that strips show.
    pub fn scenes(&self) -> Vec<MutableRef> {
        let of = |strip: &Strip| {
            (strip.kind == SCENE).then_some(MutableRef { old: strip.scene?, muted: strip.muted })
        };
        self.strips.values().filter_map(of).collect()
    }

    pub fn shows_scenes(&self) -> bool {
        self.strips.values().any(|strip| strip.kind == SCENE)
    }

    /// Something shows in the sequencer, so that Blender renders it instead of the scene, even on frames without a strip.
    pub fn covers(&self) -> bool {
        let Some(editing) = self.editing else { return false };
        let muted = self.muted_channels(editing.channels);
        self.list(editing.strips).any(|(_, strip)| {
            !SOUNDS.contains(&strip.kind) && !strip.muted && !muted.contains(&strip.channel)
        })
    }

    /// Strips that show nothing in the frame that is saved.
    pub fn idle(&self) -> HashSet<u64> {
        // Those that are in no list count.
        let mut idle = HashSet::default();
        let mut seen = HashSet::default();
        let mut todo = vec![(
            self.editing.and_then(|editing| editing.strips),
            self.editing.and_then(|editing| editing.channels),
            false,
        )];
        while let Some((first, channels, within_muted)) = todo.pop() {
            let muted = self.muted_channels(channels);
            for (old, strip) in self.list(first) {
                if !seen.insert(old) {
                    break;
                }
                let is_muted = within_muted || strip.muted || muted.contains(&strip.channel);
                if is_muted {
                    idle.insert(old);
                }
                if strip.kind == META {
                    todo.push((strip.inside, strip.channels, is_muted));
                }
            }
        }
        // What an effect is made of shows through it, muted or not; so does a mask.
        let counting = self.strips.iter().filter(|(old, _)| !idle.contains(*old));
        let mut todo: Vec<u64> = counting.flat_map(|(_, strip)| strip.inputs).flatten().collect();
        todo.extend(&self.masks);
        let mut within = HashSet::default();
        while let Some(old) = todo.pop() {
            if !idle.remove(&old) {
                continue;
            }
            let Some(strip) = self.strips.get(&old) else { continue };
            todo.extend(strip.inputs.into_iter().flatten());
            todo.extend(self.list(strip.inside).map(|(old, _)| old).take_while(|old| within.insert(*old)));
        }
        idle
    }

    fn muted_channels(&self, first: Option<u64>) -> HashSet<i64> {
        let mut muted = HashSet::default();
        let mut next = first;
        for _ in 0..MAX_CHANNELS {
            let Some(channel) = next.and_then(|old| self.channels.get(&old)) else { break };
            if channel.muted {
                muted.insert(channel.index);
            }
            next = channel.next;
        }
        muted
    }

    /// A list of strips; ends where it leads nowhere, or back.
    fn list(&self, first: Option<u64>) -> impl Iterator<Item = (u64, &Strip)> {
        let (mut next, mut seen) = (first, HashSet::default());
        std::iter::from_fn(move || {
            let old = next.filter(|old| seen.insert(*old))?;
            let strip = self.strips.get(&old)?;
            next = strip.next;
            Some((old, strip))
        })
    }

    /// From a strip to the datablocks that it plays.
    pub fn plays(&self) -> impl Iterator<Item = (u64, u64)> {
        self.strips
            .iter()
            .flat_map(|(old, strip)| strip.plays.into_iter().flatten().map(|played| (*old, played)))
    }

    /// Other blocks than those of strips that belong to the sequencer: to a strip, or to no single one.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, Option<u64>)> {
        let effects = self.strips.iter().filter_map(|(old, strip)| Some((strip.effect?, Some(*old))));
        effects.chain(self.changes.iter().map(|change| (*change, None)))
    }

    pub fn strips(&self) -> impl Iterator<Item = u64> {
        self.strips.keys().copied()
    }

    /// Takes the files that the strips name, in the order of the file.
    pub fn take_files(&mut self) -> Vec<StripFile> {
        let by_data: HashMap<u64, u64> =
            self.strips.iter().filter_map(|(old, strip)| Some((strip.data?, *old))).collect();
        let mut files = Vec::new();
        for names in std::mem::take(&mut self.names) {
            let Some((strip, kind)) =
                by_data.get(&names.data).and_then(|old| Some((*old, self.strips.get(old)?.kind)))
            else {
                continue;
            };
            let Some(elements) = names.elements.and_then(|old| self.elements.get(&old)) else { continue };
            let count = match kind {
                IMAGE => elements.len(),
                MOVIE => 1,
                // Sounds are datablocks of their own.
                _ => 0,
            };
            files.extend(elements.iter().take(count).map(|(name, element)| StripFile {
                strip,
                raw: [&names.folder[..], name].concat(),
                location: PathLocation::Strip {
                    folder: names.location,
                    shared: names.folder.len(),
                    element: *element,
                },
            }));
        }
        files
    }
}

impl Strip {
    fn of(view: &View<'_>) -> Self {
        const MUTED: u32 = 5;
        Self {
            next: view.pointer("next"),
            kind: view.int("type").unwrap_or(-1),
            muted: flag(*view, "flag", MUTED),
            channel: view.int("machine").or_else(|| view.int("channel")).unwrap_or(0),
            scene: view.pointer("scene"),
            data: view.pointer("strip"),
            effect: view.pointer("effectdata"),
            inside: view.pointer("seqbase.first"),
            channels: view.pointer("channels.first"),
            inputs: [view.pointer("seq1"), view.pointer("seq2"), view.pointer("seq3")],
            plays: [view.pointer("sound"), view.pointer("clip"), view.pointer("mask")],
        }
    }
}
