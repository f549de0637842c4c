//! Simulations of libraries that show in a scene, and that only their own file can bake.

use std::{
    collections::{self, BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use foldhash::HashMap;

use crate::{
    follow::{MAX_STEPS, Purpose, Visit, follow},
    graph::{DatablockGraph, LibraryLink},
    sequence_users::LinkedUser,
    simulation::Simulation,
};

/// A simulation of a library that a scene's picture depends on, and that no other file can bake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedSimulation {
    pub library: PathBuf,
    /// The scenes are those of the .blend that links the library.
    pub simulation: Simulation,
}

/// As the worker's host says it.
impl fmt::Display for LinkedSimulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let library = self.library.file_name().unwrap_or(self.library.as_os_str());
        write!(f, "{} (from {})", self.simulation, library.display())
    }
}

/// A .blend as it is followed from another.
pub(crate) struct FileGraph {
    pub graph: DatablockGraph,
    /// The simulations that are not baked in this file, by object. Rigid bodies are not among them: the scene with their
    /// world bakes them.
    pub unbaked: HashMap<u64, Vec<Simulation>>,
    /// Sequences of libraries that this file shows.
    pub shows: Vec<LinkedUser>,
    /// Of each of its names of files: where the datablock was in memory that holds it, or the part of it.
    pub named_in: Vec<u64>,
    /// Bytes that all of it takes, at most.
    pub cost: usize,
}

/// The simulations of libraries that the scenes of `blend` need and that are not baked. `place` finds a file's library.
pub(crate) fn linked_simulations<'a>(
    blend: &'a Path,
    files: &'a collections::HashMap<PathBuf, FileGraph>,
    place: &dyn Fn(&Path, &[u8]) -> Option<&'a Path>,
) -> Vec<LinkedSimulation> {
    let Some(main) = files.get(blend) else { return Vec::new() };
    let beyond = |path: &'a Path, link: &LibraryLink| {
        let library = place(path, files.get(path)?.graph.library_of(link)?)?;
        let graph = &files.get(library)?.graph;
        Some((library, graph, graph.find(link)?))
    };
    let mut found: BTreeMap<(&Path, &Simulation), BTreeSet<&str>> = BTreeMap::new();
    let mut left = MAX_STEPS;
    for scene in main.graph.scenes() {
        let purpose = Purpose::Simulations;
        follow((blend, &main.graph), scene, purpose, &mut left, &beyond, &mut |met: Visit<&'a Path>| {
            if !met.counts || met.file == blend {
                return;
            }
            let here = files.get(met.file).and_then(|file| file.unbaked.get(&met.old));
            for one in here.into_iter().flatten() {
                found.entry((met.file, one)).or_default().insert(&scene.name);
            }
        });
    }
    let told = |((path, one), scenes): ((&Path, &Simulation), BTreeSet<&str>)| LinkedSimulation {
        library: path.to_owned(),
        simulation: Simulation { scenes: scenes.into_iter().map(str::to_owned).collect(), ..one.clone() },
    };
    found.into_iter().map(told).collect()
}
