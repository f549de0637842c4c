//! All that is read from one .blend.

use std::{
    io::{Read, Seek},
    path::Path,
};

use kiln_types::BlenderVersion;
use serde::{Deserialize, Serialize};

use crate::{
    collect::collect,
    external::ExternalFile,
    fault::{BlendError, BlendFault},
    file::{find_dna, open, peek_reader},
    scene::{self, SceneInfo},
    stream::{Bytes, Compression, Limits},
};

/// What a .blend holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// Patch releases are not told apart in files.
    pub written_by: BlenderVersion,
    pub compression: Compression,
    /// Empty in a file that only others link from.
    pub scenes: Vec<SceneInfo>,
    /// The scene that renders unless another is named.
    pub active_scene: Option<String>,
    /// Camera objects of this file, in its order.
    pub cameras: Vec<String>,
    pub external: Vec<ExternalFile>,
}

impl Inspection {
    pub fn active(&self) -> Option<&SceneInfo> {
        let name = self.active_scene.as_ref()?;
        self.scenes.iter().find(|scene| scene.name == *name)
    }
}

fn inspect_bytes(bytes: &mut dyn Bytes, limits: &Limits) -> Result<Inspection, BlendFault> {
    let peek = peek_reader(&mut *bytes)?;
    let dna = find_dna(bytes, limits)?;
    let collected = collect(bytes, &dna, limits)?;
    let scenes = collected
        .scenes
        .iter()
        .map(|raw| scene::read(&dna, raw, &collected.names, peek.written_by))
        .collect::<Result<Vec<_>, _>>()?;
    let active = collected.scenes.iter().position(|raw| Some(raw.block.old) == collected.active);
    let active_scene = scenes.get(active.unwrap_or(0)).map(|scene| scene.name.clone());
    Ok(Inspection {
        written_by: peek.written_by,
        compression: peek.compression,
        scenes,
        active_scene,
        cameras: collected.cameras,
        external: collected.external,
    })
}

/// Reads the whole file, from its header to its end mark.
///
/// # Errors
/// Where it is no .blend, or not a whole one.
pub fn inspect(path: &Path) -> Result<Inspection, BlendError> {
    let inspected = open(path).and_then(|mut file| inspect_bytes(&mut file, &Limits::default()));
    inspected.map_err(|fault| fault.at(path))
}

/// [`inspect`] of an open file or bytes in memory.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_reader<R: Read + Seek>(mut reader: R, limits: &Limits) -> Result<Inspection, BlendFault> {
    inspect_bytes(&mut reader, limits)
}
