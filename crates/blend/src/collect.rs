//! The second walk: picks the few blocks of interest out of all.

use std::collections::{HashMap, HashSet};

use crate::{
    dna::{Dna, View},
    external::{ExternalFile, ExternalKind, RULES, Rule},
    fault::BlendFault,
    file::{Head, Walker},
    stream::{Bytes, Limits},
};

/// Names of files that one .blend may hold.
const MAX_EXTERNAL: usize = 1_000_000;
/// Names of cameras and of linked datablocks.
const MAX_NAMES: usize = 1_000_000;
const CAMERA: i64 = 11;

/// A block kept for later.
pub(crate) struct Kept {
    pub old: u64,
    pub sdna: usize,
    pub bytes: Vec<u8>,
}

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
    /// Camera objects and linked datablocks, by where they were in memory.
    pub names: HashMap<u64, String>,
    pub cameras: Vec<String>,
    pub external: Vec<ExternalFile>,
}

/// A strip of the sequencer, until its elements are known.
struct Strip {
    folder: Vec<u8>,
    elements: u64,
}

struct Collector<'a> {
    dna: &'a Dna,
    out: Collected,
    /// Bytes that may still be kept.
    budget: usize,
    /// Which rules apply to a struct.
    rules: HashMap<usize, Vec<&'static Rule>>,
    kinds: Kinds,
    /// The datablock that the present blocks belong to.
    owner: String,
    in_scene: bool,
    /// Texts that are referred to by pointers, and follow.
    pending: HashMap<u64, ExternalKind>,
    /// Types of the present scene's strips, by the pointer to their data.
    strip_types: HashMap<u64, i64>,
    strips: Vec<(u64, Strip)>,
    elements: HashMap<u64, Vec<Vec<u8>>>,
}

/// Struct indices that the collector knows by name.
struct Kinds {
    parts: HashSet<usize>,
    id: Option<usize>,
    object: Option<usize>,
    global: Option<usize>,
    sequence: Option<usize>,
    strip: Option<usize>,
    element: Option<usize>,
}

impl<'a> Collector<'a> {
    fn new(dna: &'a Dna, limits: &Limits) -> Self {
        let mut rules: HashMap<usize, Vec<&'static Rule>> = HashMap::new();
        for rule in RULES {
            if let Some(index) = dna.index_of(rule.strukt) {
                rules.entry(index).or_default().push(rule);
            }
        }
        let parts = ["IDProperty", "ViewLayer", "SceneRenderLayer", "SceneRenderView"];
        let kinds = Kinds {
            parts: parts.iter().filter_map(|name| dna.index_of(name)).collect(),
            id: dna.index_of("ID"),
            object: dna.index_of("Object"),
            global: dna.index_of("FileGlobal"),
            sequence: dna.index_of("Sequence"),
            strip: dna.index_of("Strip"),
            element: dna.index_of("StripElem"),
        };
        Self {
            dna,
            out: Collected::default(),
            budget: limits.memory,
            rules,
            kinds,
            owner: String::new(),
            in_scene: false,
            pending: HashMap::new(),
            strip_types: HashMap::new(),
            strips: Vec::new(),
            elements: HashMap::new(),
        }
    }

    fn keep(&mut self, bytes: usize) -> Result<(), BlendFault> {
        // What holds a small block costs more than the block.
        self.budget = self.budget.checked_sub(bytes + 64).ok_or(BlendFault::TooMany("settings of scenes"))?;
        Ok(())
    }

    fn block(&mut self, head: &Head, walker: &mut Walker<'_>) -> Result<(), BlendFault> {
        if &head.code == b"GLOB" {
            if let Some(index) = self.kinds.global {
                let bytes = walker.payload(1 << 16)?;
                self.out.active = self.dna.view(index, &bytes).pointer("curscene");
            }
            return Ok(());
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
        self.in_scene = &head.code == b"SC\0\0";
        let is_object = &head.code == b"OB\0\0" && self.kinds.object == Some(head.sdna);
        let whole = self.in_scene || is_object || self.rules.contains_key(&head.sdna);
        // Of all others the name alone is of interest; every datablock begins with an ID.
        let id_size = self.kinds.id.map_or(0, |id| self.dna.size(id)) as u64;
        let size = if whole { self.dna.size(head.sdna).max(1) as u64 } else { id_size };
        let bytes = walker.payload(size)?;
        let id = self.kinds.id.map(|id| self.dna.view(id, &bytes));
        self.owner = id.and_then(|id| id.text("name")).unwrap_or_default();
        let view = self.dna.view(head.sdna, &bytes);
        if self.in_scene {
            self.keep(bytes.len())?;
            let block = Kept { old: head.old, sdna: head.sdna, bytes };
            self.out.scenes.push(RawScene { block, parts: Vec::new() });
            return Ok(());
        }
        let is_camera = is_object && view.int("type") == Some(CAMERA);
        if is_camera || &head.code == b"ID\0\0" {
            let name = self.owner.get(2..).unwrap_or_default().to_owned();
            self.keep(2 * name.len())?;
            if self.out.names.len() >= MAX_NAMES {
                return Err(BlendFault::TooMany("cameras"));
            }
            if is_camera {
                self.out.cameras.push(name.clone());
            }
            self.out.names.insert(head.old, name);
        }
        self.apply_rules(head, &view)
    }

    fn data(&mut self, head: &Head, walker: &mut Walker<'_>) -> Result<(), BlendFault> {
        if let Some(kind) = self.pending.remove(&head.old) {
            let bytes = walker.payload(4096)?;
            let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
            return self.external(kind, text.to_vec(), false);
        }
        let size = self.dna.size(head.sdna).max(1);
        if self.in_scene {
            if self.kinds.parts.contains(&head.sdna) {
                let bytes = walker.payload(size as u64)?;
                self.keep(bytes.len())?;
                if let Some(scene) = self.out.scenes.last_mut() {
                    scene.parts.push(Kept { old: head.old, sdna: head.sdna, bytes });
                }
                return Ok(());
            }
            if [self.kinds.sequence, self.kinds.strip, self.kinds.element].contains(&Some(head.sdna)) {
                return self.sequencer(head, walker, size);
            }
        }
        if self.rules.contains_key(&head.sdna) {
            // Bakes of nodes lie in arrays.
            let count = (head.len / size as u64).min(4096);
            let bytes = walker.payload(count * size as u64)?;
            for one in bytes.chunks(size) {
                let view = self.dna.view(head.sdna, one);
                self.apply_rules(head, &view)?;
            }
        }
        Ok(())
    }

    fn sequencer(&mut self, head: &Head, walker: &mut Walker<'_>, size: usize) -> Result<(), BlendFault> {
        let index = Some(head.sdna);
        if index == self.kinds.element {
            let count = head.len / size as u64;
            let mut names = Vec::new();
            for _ in 0..count {
                let bytes = walker.payload(size as u64)?;
                let name = self.dna.view(head.sdna, &bytes).bytes("name").unwrap_or_default().to_vec();
                self.keep(name.len())?;
                names.push(name);
            }
            self.elements.insert(head.old, names);
            return Ok(());
        }
        let bytes = walker.payload(size as u64)?;
        let view = self.dna.view(head.sdna, &bytes);
        if index == self.kinds.sequence {
            if let (Some(data), Some(kind)) = (view.pointer("strip"), view.int("type")) {
                self.keep(16)?;
                self.strip_types.insert(data, kind);
            }
        } else if let (Some(folder), Some(elements)) = (view.bytes("dir"), view.pointer("stripdata")) {
            self.keep(folder.len())?;
            self.strips.push((head.old, Strip { folder: folder.to_vec(), elements }));
        }
        Ok(())
    }

    /// Ends what belongs to the present datablock.
    fn flush(&mut self) -> Result<(), BlendFault> {
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
            let paths: Vec<Vec<u8>> =
                names.iter().take(count).map(|name| [&strip.folder[..], name].concat()).collect();
            for path in paths {
                self.external(ExternalKind::Strip, path, false)?;
            }
        }
        self.strip_types.clear();
        self.elements.clear();
        self.pending.clear();
        Ok(())
    }

    fn apply_rules(&mut self, head: &Head, view: &View<'_>) -> Result<(), BlendFault> {
        let Some(rules) = self.rules.get(&head.sdna).cloned() else { return Ok(()) };
        for rule in rules {
            if rule.kind == ExternalKind::OceanCache && view.int("cached") == Some(0) {
                continue;
            }
            if let Some(pointer) = view.pointer(rule.field) {
                if self.pending.len() < MAX_EXTERNAL {
                    self.pending.insert(pointer, rule.kind);
                }
                continue;
            }
            let Some(name) = view.bytes(rule.field) else { continue };
            let packed = view.pointer("packedfile").is_some()
                || view.pointer("packedfiles.first").is_some()
                // A library from which all that is used was packed into this file.
                || view.pointer("archive_parent_library").is_some();
            let before = self.out.external.len();
            let source = view.int("source");
            match (rule.kind, source) {
                // Made by Blender itself: generated, or the result of a render.
                (ExternalKind::Image, Some(4 | 5)) => continue,
                // Frame and text nodes may hold their source in the .blend.
                (ExternalKind::Shader | ExternalKind::LightProfile, _) if view.int("mode") == Some(0) => {
                    continue;
                }
                _ => self.external(rule.kind, name.to_vec(), packed)?,
            }
            if let Some(file) = self.out.external.get_mut(before) {
                file.sequence = match rule.kind {
                    ExternalKind::Image => source == Some(2),
                    ExternalKind::MovieClip => source == Some(1),
                    _ => view.int("is_sequence").is_some_and(|flag| flag != 0),
                };
                file.tiled = rule.kind == ExternalKind::Image && source == Some(6);
            }
        }
        Ok(())
    }

    fn external(&mut self, kind: ExternalKind, raw: Vec<u8>, packed: bool) -> Result<(), BlendFault> {
        if raw.is_empty() || raw == b"<builtin>" {
            return Ok(());
        }
        if self.out.external.len() >= MAX_EXTERNAL {
            return Err(BlendFault::TooMany("names of files"));
        }
        let path = String::from_utf8_lossy(&raw).into_owned();
        let owner = self.owner.clone();
        self.out.external.push(ExternalFile {
            kind,
            path,
            raw,
            owner,
            packed,
            sequence: false,
            tiled: false,
        });
        Ok(())
    }
}

pub(crate) fn collect(bytes: &mut dyn Bytes, dna: &Dna, limits: &Limits) -> Result<Collected, BlendFault> {
    let mut walker = Walker::new(bytes, limits)?;
    let mut collector = Collector::new(dna, limits);
    while let Some(head) = walker.next()? {
        collector.block(&head, &mut walker)?;
    }
    collector.flush()?;
    Ok(collector.out)
}
