//! All that is read from one .blend.

use std::{
    io::{Cursor, Read, Seek},
    path::Path,
    rc::Rc,
};

use kiln_types::{BlenderVersion, FrameSet};
use serde::{Deserialize, Serialize};

use crate::{
    caches::{CacheFiles, ListFolder},
    collect::{CollectedBlocks, RawScene, collect},
    external::ExternalFile,
    fault::{BlendError, BlendFault},
    file::{Walker, dna_at_end, find_dna, open},
    follow::MAX_STEPS,
    linked::FileGraph,
    pointer_scan::Depth,
    resolve::resolve,
    scene::{self, SceneInfo},
    schema::Schema,
    simulation::Simulation,
    stream::{BlendStream, ByteSource, Compression, ReadLimits},
};

/// The content of a .blend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// Patch releases are not told apart in files: the last number is always 0.
    pub written_by: BlenderVersion,
    /// Counts changes of the file format within a version, also between alphas and betas. No patch release.
    pub subversion: Option<u16>,
    pub compression: Compression,
    /// Empty in a file that only others link from.
    pub scenes: Vec<SceneInfo>,
    /// The scene that renders unless another is named.
    pub active_scene: Option<String>,
    /// Camera objects of this file, in its order.
    pub cameras: Vec<String>,
    pub external: Vec<ExternalFile>,
    /// Of objects that are in this file; what a library's objects do is told by inspecting the library.
    pub simulations: Vec<Simulation>,
}

impl Inspection {
    /// The simulations to bake before the scene renders correctly. Those of objects from libraries are not among them:
    /// [`crate::Dependencies::linked`] has them.
    pub fn unbaked(&self, scene: &str) -> impl Iterator<Item = &Simulation> {
        self.simulations
            .iter()
            .filter(move |one| one.needs_bake && one.scenes.iter().any(|name| name == scene))
    }

    /// The baked simulations of the scene that lack one of these frames.
    pub fn incomplete(&self, scene: &str, frames: &FrameSet) -> impl Iterator<Item = &Simulation> {
        self.simulations.iter().filter(move |one| {
            let shows = || one.scenes.iter().any(|name| name == scene);
            !one.missing_frames.is_empty() && shows() && frames.iter().any(|frame| one.lacks(frame))
        })
    }

    pub fn active(&self) -> Option<&SceneInfo> {
        let name = self.active_scene.as_ref()?;
        self.scenes.iter().find(|scene| scene.name == *name)
    }
}

/// `beside` tells what lies beside the file: the frames of its simulations.
pub(crate) fn inspect_bytes(
    bytes: &mut dyn ByteSource,
    limits: &ReadLimits,
    beside: &CacheFiles<'_>,
    last: &mut SchemaCache,
    depth: Depth,
) -> Result<(Inspection, FileGraph), BlendFault> {
    let mut unpacked;
    let mut stream = BlendStream::new(bytes, limits)?;
    let compression = stream.compression;
    // What can only be read forward is unpacked once, where it is small.
    stream = match stream.unpack_small(limits.memory as u64 / 2) {
        Some(small) => {
            unpacked = Cursor::new(small);
            BlendStream::new(&mut unpacked, limits)?
        }
        None => stream.restart(limits)?,
    };
    let walker = Walker::new(stream)?;
    let peek = walker.peek;
    let WalkResult { mut walker, schema, mut collected } = walk(walker, limits, last, depth)?;
    if depth == Depth::Members && collected.simulations.may_move_others(beside) {
        walker = walker.restart(limits)?;
        // Every datablock has its place in it then, not those alone that simulate.
        let more = ReadLimits { memory: limits.memory.saturating_mul(4), ..*limits };
        collected = collect(&mut walker, &schema, &more, Depth::All)?;
    }
    let graph = &collected.simulations.graph;
    let is_covered = |old: u64| graph.scene_at(old).is_some_and(|shown| graph.is_covered(shown));
    let name = |old: &u64| collected.names.get(old).cloned();
    // Many scenes may share many cameras: their lists are bounded together.
    let (mut steps, mut room) = (MAX_STEPS, limits.memory / 4);
    let mut cameras_of = |old: u64| {
        let members = graph.objects_of_scene(old, &mut steps)?;
        steps = steps.checked_sub(collected.cameras.len())?;
        let cameras = collected.cameras.iter().filter(|camera| members.contains(camera)).filter_map(name);
        let keep = |camera: String| {
            room = room.checked_sub(size_of::<String>() + camera.len())?;
            Some(camera)
        };
        cameras.map(keep).collect::<Option<Vec<String>>>()
    };
    let read = |raw: &RawScene| {
        let old = raw.block.old;
        let scene = scene::read(&schema.dna, raw, &collected.names, peek.written_by, is_covered(old))?;
        let cameras = cameras_of(old).ok_or(BlendFault::TooMany("cameras"))?;
        Ok(SceneInfo { cameras, ..scene })
    };
    let scenes = collected.scenes.iter().map(read).collect::<Result<Vec<_>, BlendFault>>()?;
    let cameras = collected.cameras.iter().filter_map(name).collect();
    let active = collected.scenes.iter().position(|raw| Some(raw.block.old) == collected.active);
    let active_scene = scenes.get(active.unwrap_or(0)).map(|scene| scene.name.clone());
    let (simulations, cost, mut external) = (collected.simulations, collected.cost, collected.external);
    let shows = collected.shown.finish(&mut external, &collected.olds, &simulations.graph);
    let inspection = Inspection {
        written_by: peek.written_by,
        subversion: collected.subversion,
        compression,
        scenes,
        active_scene,
        cameras,
        external,
        simulations: simulations.finish(beside),
    };
    let unbaked = simulations.unbaked(beside);
    let named_in = collected.named_in;
    Ok((inspection, FileGraph { graph: simulations.graph, unbaked, shows, named_in, cost }))
}

/// The schema of the file that was read last: the next one is mostly by the same Blender.
pub(crate) type SchemaCache = Option<Rc<Schema>>;

/// A file that was read to its end, and can be read again.
pub(crate) struct WalkResult<'a> {
    walker: Walker<'a>,
    schema: Rc<Schema>,
    pub collected: CollectedBlocks,
}

/// One walk where the DNA lies where Blender puts it; else one to find it and a second one to read.
pub(crate) fn walk<'a>(
    mut walker: Walker<'a>,
    limits: &ReadLimits,
    last: &mut SchemaCache,
    depth: Depth,
) -> Result<WalkResult<'a>, BlendFault> {
    // What is wrong with a broken file is told by the walk from its beginning.
    if let Ok(Some(found)) = dna_at_end(&mut walker, last.as_ref().map(|schema| &schema.dna)) {
        let new = found.dna.map(|dna| Rc::new(Schema::new(dna)));
        if let Some(schema) = new.or_else(|| last.clone()) {
            walker = walker.restart(limits)?;
            let collected = collect(&mut walker, &schema, limits, depth)?;
            if collected.dna_at == Some(found.at) {
                *last = Some(schema.clone());
                return Ok(WalkResult { walker, schema, collected });
            }
        }
    }
    walker = walker.restart(limits)?;
    let schema = Rc::new(Schema::new(find_dna(&mut walker)?));
    walker = walker.restart(limits)?;
    let collected = collect(&mut walker, &schema, limits, depth)?;
    Ok(WalkResult { walker, schema, collected })
}

/// Reads the whole file, from its header to its end mark. Looks beside it for the frames of
/// simulations.
///
/// # Errors
/// Where it is no .blend, or not a whole one.
pub fn inspect(path: &Path) -> Result<Inspection, BlendError> {
    inspect_next(path, &mut None, Depth::Members).map(|(inspection, _)| inspection)
}

/// [`inspect`] of one file of several, and how it is followed from the others.
pub(crate) fn inspect_next(
    path: &Path,
    last: &mut SchemaCache,
    depth: Depth,
) -> Result<(Inspection, FileGraph), BlendError> {
    inspect_within(&ReadLimits::default(), path, last, depth)
}

pub(crate) fn inspect_within(
    limits: &ReadLimits,
    path: &Path,
    last: &mut SchemaCache,
    depth: Depth,
) -> Result<(Inspection, FileGraph), BlendError> {
    let folder = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = folder.parent().unwrap_or(Path::new("/"));
    let list: &ListFolder<'_> = &|name, below| {
        let mut folder = resolve(name, folder).into_os_string();
        folder.push(below);
        files_in(Path::new(&folder))
    };
    let beside = CacheFiles::new(path.file_stem().unwrap_or_default().as_encoded_bytes(), list);
    let inspected = open(path).and_then(|mut file| inspect_bytes(&mut file, limits, &beside, last, depth));
    inspected.map_err(|fault| fault.at(path))
}

/// [`inspect`] of an open file or bytes in memory. Bakes that lie beside a file are not found.
pub fn inspect_reader<R: Read + Seek>(mut reader: R, limits: &ReadLimits) -> Result<Inspection, BlendFault> {
    inspect_bytes(&mut reader, limits, &CacheFiles::new(b"", &|_, _| Vec::new()), &mut None, Depth::Members)
        .map(|(inspection, _)| inspection)
}

/// Files of a folder that hold anything.
fn files_in(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    let files = entries.filter_map(Result::ok).filter(|entry| {
        // As the host looks: through links.
        entry.path().metadata().is_ok_and(|meta| meta.is_file() && meta.len() > 0)
    });
    files.map(|entry| entry.file_name().into_encoded_bytes()).collect()
}
