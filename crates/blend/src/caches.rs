//! The stored frames of baked simulations. Blender marks a cache as baked even if its files are gone, and then shows
//! the simulation without motion.

use std::{cell::RefCell, collections::BTreeSet, fmt, rc::Rc};

use foldhash::HashMap;
use serde::{Deserialize, Serialize};

use crate::{
    dna::View,
    ids::{flag, name_bytes},
    parts::Parts,
};

/// Frames from the first to the last of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FrameRange {
    pub first: i32,
    pub last: i32,
}

impl fmt::Display for FrameRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Ranges of missing frames of one cache that are told of; a file that was made for it could have millions.
const MAX_RANGES: usize = 1000;
/// Frames of one cache that are stored in the file.
const MAX_STORED: usize = 1 << 20;

/// Lists the files of a folder, by the folder's name in the .blend and a folder below it.
pub(crate) type ListFolder<'a> = dyn Fn(&[u8], &str) -> Vec<Vec<u8>> + 'a;

/// The names of the files in a folder.
type Names = Rc<Vec<Vec<u8>>>;

/// The files beside a .blend.
pub(crate) struct CacheFiles<'a> {
    /// The folder of its caches, as a name in the .blend. Empty where the .blend has no name.
    caches: Vec<u8>,
    list: &'a ListFolder<'a>,
    seen: RefCell<HashMap<(Vec<u8>, String), Names>>,
}

impl<'a> CacheFiles<'a> {
    /// `stem` is the name of the .blend without its ending.
    pub fn new(stem: &[u8], list: &'a ListFolder<'a>) -> Self {
        let caches = if stem.is_empty() { Vec::new() } else { [b"//blendcache_", stem].concat() };
        Self { caches, list, seen: RefCell::default() }
    }

    /// The files that hold anything.
    fn names(&self, folder: &[u8], below: &str) -> Names {
        if folder.is_empty() {
            return Rc::default();
        }
        let key = (folder.to_vec(), below.to_owned());
        if let Some(known) = self.seen.borrow().get(&key) {
            return known.clone();
        }
        let names = Rc::new((self.list)(folder, below));
        self.seen.borrow_mut().insert(key, names.clone());
        names
    }
}

/// The state of a bake.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bake {
    /// Frames are stored.
    pub done: bool,
    /// Frames of the cache's own range that are not.
    pub missing: Vec<FrameRange>,
}

impl Bake {
    pub fn done() -> Self {
        Self { done: true, missing: Vec::new() }
    }

    /// Several as one: done where each is, and what any of them lacks.
    pub fn all(bakes: impl Iterator<Item = Self>) -> Self {
        bakes.fold(Self::done(), |mut all, one| {
            all.done &= one.done;
            all.missing.extend(one.missing);
            all.missing.sort_unstable();
            all.missing.dedup();
            all
        })
    }

    fn of(stored: &BTreeSet<i32>, first: i32, last: i32, step: i32) -> Self {
        Self { done: !stored.is_empty(), missing: missing(first, last, stored, step) }
    }
}

/// Frames of a range that are neither stored nor between two that are not more than a step apart.
fn missing(first: i32, last: i32, stored: &BTreeSet<i32>, step: i32) -> Vec<FrameRange> {
    let mut gone = Vec::new();
    let mut tell = |first: i64, last: i64| {
        if let (Ok(first), Ok(last)) = (i32::try_from(first), i32::try_from(last))
            && first <= last
            && gone.len() < MAX_RANGES
        {
            gone.push(FrameRange { first, last });
        }
    };
    if last < first {
        return gone;
    }
    let mut before = None;
    for frame in stored.range(first..=last) {
        let frame = i64::from(*frame);
        match before {
            None => tell(i64::from(first), frame - 1),
            Some(before) if frame - before > i64::from(step.max(1)) => tell(before + 1, frame - 1),
            Some(_) => {}
        }
        before = Some(frame);
    }
    tell(before.map_or(i64::from(first), |before| before + 1), i64::from(last));
    gone
}

/// Digits of a frame's number, and what follows.
fn number(text: &[u8]) -> Option<(i32, &[u8])> {
    let digits = text.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count() + 1;
    let (number, rest) = text.split_at_checked(digits)?;
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

/// The cache of rigid bodies, cloth, soft bodies, dynamic paint, particles or hair.
#[derive(Default)]
pub(crate) struct PointCache {
    baked: bool,
    external: bool,
    on_disk: bool,
    /// Of an external cache.
    folder: Vec<u8>,
    /// The beginning of the names of its files.
    name: Vec<u8>,
    index: i64,
    /// `None` where the file does not tell.
    range: Option<(i32, i32)>,
    step: i32,
    /// Frames in the .blend.
    stored: BTreeSet<i32>,
}

impl PointCache {
    /// `owner` is the datablock that simulates. What is no cache is not baked.
    pub fn read(parts: &Parts<'_>, cache: Option<u64>, owner: View<'_>) -> Self {
        const BAKED: u32 = 0;
        const ON_DISK: u32 = 6;
        const EXTERNAL: u32 = 9;
        let Some(cache) = parts.get(cache) else { return Self::default() };
        let frame = |field| cache.int(field).and_then(|frame| i32::try_from(frame).ok());
        let (external, on_disk) = (flag(cache, "flag", EXTERNAL), flag(cache, "flag", ON_DISK));
        let mut name = cache.bytes("name").unwrap_or_default().to_vec();
        if name.is_empty() && !external {
            name = name_bytes(owner).iter().flat_map(|byte| format!("{byte:02X}").into_bytes()).collect();
        }
        // The file keeps no frames of an override.
        let is_override = owner.pointer("id.override_library").is_some();
        let memory = parts.list(cache.pointer("mem_cache.first")).filter(|_| !is_override);
        // Blender counts them without a sign.
        let stored = memory.filter_map(|one| one.int("frame")).map(|frame| frame as i32);
        Self {
            baked: flag(cache, "flag", BAKED),
            external,
            on_disk,
            folder: cache.bytes("path").filter(|_| external).unwrap_or_default().to_vec(),
            name,
            index: cache.int("index").unwrap_or(-1),
            // Frames below 1 are not all kept, also where nothing is lost.
            range: frame("startframe").map(|first| first.max(1)).zip(frame("endframe")),
            step: frame("step").unwrap_or(1),
            stored: stored.take(MAX_STORED).collect(),
        }
    }

    /// Only of particles are some frames left out.
    pub fn bake(&self, beside: &CacheFiles<'_>, is_particles: bool) -> Bake {
        let step = if is_particles { self.step } else { 1 };
        if !self.external && !self.baked {
            return Bake::default();
        }
        // Particles that are emitted after the scene's end have no frames, for example.
        let Some((first, last)) = self.range.filter(|(first, last)| first <= last) else {
            return Bake::done();
        };
        if self.external {
            let stored = self.files(&beside.names(&self.folder, ""));
            // It is another's, and is not baked again. Where nothing is there it is a missing file, and told as one.
            return if stored.is_empty() { Bake::done() } else { Bake::of(&stored, first, last, step) };
        }
        if self.on_disk {
            let stored = self.files(&beside.names(&beside.caches, ""));
            return Self::done_in_part(&stored, first, last, step);
        }
        Self::done_in_part(&self.stored, first, last, step)
    }

    /// Nothing at all can be baked once more.
    fn done_in_part(stored: &BTreeSet<i32>, first: i32, last: i32, step: i32) -> Bake {
        if stored.is_empty() { Bake::default() } else { Bake::of(stored, first, last, step) }
    }

    /// `NAME_000012_00.bphys`.
    fn files(&self, names: &[Vec<u8>]) -> BTreeSet<i32> {
        let frame = |name: &Vec<u8>| {
            let rest = name.strip_prefix(self.name.as_slice())?.strip_prefix(b"_")?;
            let (frame, rest) = number(rest.strip_suffix(b".bphys")?)?;
            let index = format!("_{:02}", self.index);
            let is_index =
                |rest: &[u8]| matches!(rest, [b'_', a, b] if a.is_ascii_digit() && b.is_ascii_digit());
            let fits =
                if self.index >= 0 { rest == index.as_bytes() } else { rest.is_empty() || is_index(rest) };
            fits.then_some(frame)
        };
        names.iter().filter_map(frame).collect()
    }

    /// Bytes that it takes.
    pub fn cost(&self) -> usize {
        128 + self.folder.len() + self.name.len() + 32 * self.stored.len()
    }
}

/// The cache of a fluid's domain.
pub(crate) struct FluidCache {
    baked: bool,
    folder: Vec<u8>,
    /// Folders of what is drawn. The data may be gone where a mesh was made of it.
    parts: Vec<&'static str>,
    first: i32,
    last: i32,
    /// Between the frames of the scene and those of the cache.
    offset: i32,
}

impl FluidCache {
    pub fn read(domain: View<'_>) -> Self {
        /// Data, noise, mesh, particles: any of them.
        const BAKED: i64 = 2 | 8 | 32 | 128;
        const NOISE: u32 = 1;
        const MESH: u32 = 9;
        const GAS: i64 = 0;
        const SPRAY_BUBBLES_FOAM: i64 = 2 | 4 | 8;
        let frame = |field| domain.int(field).and_then(|frame| i32::try_from(frame).ok()).unwrap_or(0);
        let has = |bit, part| if flag(domain, "flags", bit) { part } else { "data" };
        let mut parts = Vec::new();
        if domain.int("type") == Some(GAS) {
            parts.push(has(NOISE, "noise"));
        } else {
            parts.push(has(MESH, "mesh"));
            if domain.int("particle_type").unwrap_or(0) & SPRAY_BUBBLES_FOAM != 0 {
                parts.push("particles");
            }
        }
        Self {
            baked: domain.int("cache_flag").unwrap_or(0) & BAKED != 0,
            folder: domain.bytes("cache_directory").unwrap_or_default().to_vec(),
            parts,
            first: frame("cache_frame_start"),
            last: frame("cache_frame_end"),
            offset: frame("cache_frame_offset"),
        }
    }

    pub fn bake(&self, beside: &CacheFiles<'_>) -> Bake {
        if !self.baked {
            return Bake::default();
        }
        // `fluid_data_0012.vdb`: the last number.
        let frame = |name: &Vec<u8>| {
            let starts = name.iter().enumerate().filter(|(_, byte)| **byte == b'_').map(|(at, _)| at + 1);
            starts
                .filter_map(|at| number(name.get(at..)?))
                .find(|(_, rest)| rest.starts_with(b"."))
                .map(|f| f.0)
        };
        let of_part = |part: &&str| -> BTreeSet<i32> {
            beside.names(&self.folder, &format!("/{part}")).iter().filter_map(frame).collect()
        };
        let both = |all: BTreeSet<i32>, part: BTreeSet<i32>| all.intersection(&part).copied().collect();
        let stored = self.parts.iter().map(of_part).reduce(both).unwrap_or_default();
        let bake = PointCache::done_in_part(&stored, self.first, self.last, 1);
        let shift = |range: FrameRange| FrameRange {
            first: range.first.saturating_add(self.offset),
            last: range.last.saturating_add(self.offset),
        };
        Bake { missing: bake.missing.into_iter().map(shift).collect(), ..bake }
    }

    /// Bytes that it takes.
    pub fn cost(&self) -> usize {
        128 + self.folder.len()
    }
}

/// A folder in which geometry nodes have baked: a file for each frame in `meta`. How far the bake was to reach is not
/// kept, and is told by the frames.
pub(crate) fn bake_of_nodes(folder: &[u8], below: &str, beside: &CacheFiles<'_>) -> Bake {
    let frame = |name: &Vec<u8>| {
        let (frame, rest) = number(name.strip_suffix(b".json")?)?;
        let is_part =
            |rest: &[u8]| rest.strip_prefix(b"_").is_some_and(|rest| rest.iter().all(u8::is_ascii_digit));
        (rest.is_empty() || is_part(rest)).then_some(frame)
    };
    let stored: BTreeSet<i32> =
        beside.names(folder, &format!("{below}/meta")).iter().filter_map(frame).collect();
    match (stored.first(), stored.last()) {
        (Some(first), Some(last)) => Bake::of(&stored, *first, *last, 1),
        _ => Bake::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(first: i32, last: i32, stored: &[i32], step: i32) -> String {
        let missing = missing(first, last, &stored.iter().copied().collect(), step);
        missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn what_is_missing_is_told_in_ranges() {
        assert_eq!(ranges(1, 5, &[1, 2, 3, 4, 5], 1), "");
        assert_eq!(ranges(1, 9, &[0, 2, 3, 7], 1), "1,4-6,8-9");
        assert_eq!(ranges(-3, 3, &[], 1), "-3-3");
        assert_eq!(ranges(5, 1, &[], 1), "");
        // Particles may leave out frames between, and none at the ends.
        assert_eq!(ranges(1, 8, &[1, 4, 6, 8], 3), "");
        assert_eq!(ranges(1, 9, &[1, 6, 8], 3), "2-5,9");
        assert_eq!(ranges(i32::MIN, i32::MAX, &[0], 1), "-2147483648--1,1-2147483647");
    }

    #[test]
    fn files_of_a_cache_are_told_by_its_name_and_index() {
        let names =
            ["41_000001_00.bphys", "41_000002_01.bphys", "41_-00003_00.bphys", "4142_000004_00.bphys"];
        let names: Vec<Vec<u8>> = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        let of = |index| PointCache { name: b"41".to_vec(), index, ..PointCache::default() }.files(&names);
        assert_eq!(of(0).into_iter().collect::<Vec<_>>(), [-3, 1]);
        assert_eq!(of(1).into_iter().collect::<Vec<_>>(), [2]);
        assert_eq!(of(-1).into_iter().collect::<Vec<_>>(), [-3, 1, 2]);
    }
}
