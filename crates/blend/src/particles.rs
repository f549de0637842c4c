//! Emitted particles: which of them need a bake. `kiln_host/particles.py` asks Blender the same, and says why.

use foldhash::HashSet;

use crate::{
    animation::animated,
    caches::PointCache,
    dna::View,
    graph::DatablockGraph,
    ids::flag,
    parts::Parts,
    simulated::{SimulationSource, SimulationStorage},
    simulation::SimulationKind,
};

/// The motion of a particle system, by its settings.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Particles {
    Hair,
    /// As far as nothing stops or pushes it, which Blender works out for any frame at once.
    Falls,
    /// A frame of it depends on every frame before.
    Moves,
    Stays,
}

impl Particles {
    pub fn of(settings: View<'_>) -> Self {
        const EMITTER: i64 = 0;
        const HAIR: i64 = 2;
        const NEWTON: i64 = 1;
        const BOIDS: i64 = 3;
        const FLUID: i64 = 4;
        match (settings.int("type"), settings.int("phystype")) {
            (Some(HAIR), _) => Self::Hair,
            (Some(EMITTER), Some(NEWTON)) if falls_freely(settings) => Self::Falls,
            (Some(EMITTER), Some(NEWTON | BOIDS | FLUID)) => Self::Moves,
            _ => Self::Stays,
        }
    }
}

fn falls_freely(settings: View<'_>) -> bool {
    /// Midpoint and RK4: exact in a single long step, where nothing but gravity pulls.
    const EXACT: [Option<i64>; 2] = [Some(1), Some(2)];
    let nothing = |field| settings.float(field) == Some(0.0);
    let free = ["brownfac", "dragfac", "dampfac"].into_iter().all(nothing);
    // The emitter's own speed is what it moved since the last step. What is born before frame 1 has fallen by then in a
    // bake, and begins to fall where Blender sees it first.
    let born_alike = nothing("obfac") && settings.float("sta").is_some_and(|start| start >= 1.0);
    let textured = settings.raw("mtex").is_some_and(|slots| slots.iter().any(|byte| *byte != 0));
    EXACT.contains(&settings.int("integrator")) && free && born_alike && !textured
}

/// The object that particles come from.
pub(crate) struct Emitter {
    mesh: Option<u64>,
    /// Modifiers may change its surface from frame to frame.
    shaped: bool,
}

impl Emitter {
    fn read(parts: &Parts<'_>, object: View<'_>) -> Self {
        /// Modifiers that make the same mesh in every frame, of a mesh that does not change.
        const STEADY: [&[u8]; 7] = [
            b"ParticleSystemModifierData",
            b"SubsurfModifierData",
            b"MultiresModifierData",
            b"BevelModifierData",
            b"SolidifyModifierData",
            b"EdgeSplitModifierData",
            b"TriangulateModifierData",
        ];
        let shaped = modifiers(parts, object).any(|one| !STEADY.contains(&one.struct_name()));
        Self { mesh: object.pointer("data"), shaped }
    }

    /// Blender works out each birth from any other frame.
    pub fn is_steady(&self, old: u64, meshes: &Meshes, graph: &DatablockGraph) -> bool {
        let mesh = self.mesh.is_some_and(|mesh| meshes.steady.contains(&mesh));
        mesh && !self.shaped && !graph.is_animated(old, animated::MODIFIER) && !graph.is_moved_indirectly(old)
    }
}

/// Meshes of the file that are the same in every frame.
#[derive(Default)]
pub(crate) struct Meshes {
    steady: HashSet<u64>,
}

impl Meshes {
    /// Returns how many bytes the datablock takes.
    pub fn read(&mut self, old: u64, mesh: View<'_>) -> usize {
        if mesh.pointer("key").is_some() || mesh.pointer("adt").is_some() {
            return 0;
        }
        self.steady.insert(old);
        16
    }
}

pub(crate) fn collides(parts: &Parts<'_>, object: View<'_>) -> bool {
    modifiers(parts, object).any(|one| one.struct_name() == b"CollisionModifierData")
}

fn modifiers<'a>(parts: &Parts<'a>, object: View<'_>) -> impl Iterator<Item = View<'a>> {
    parts.chain(object.pointer("modifiers.first"), "modifier.next")
}

pub(crate) fn particles(parts: &Parts<'_>, object: View<'_>, system: View<'_>) -> Option<SimulationSource> {
    const HAIR_DYNAMICS: u32 = 2;
    let stored = SimulationStorage::Particles {
        settings: system.pointer("part")?,
        hair_dynamics: flag(system, "flag", HAIR_DYNAMICS),
        emitter: Emitter::read(parts, object),
        cache: PointCache::read(parts, system.pointer("pointcache"), object),
    };
    Some(SimulationSource { kind: SimulationKind::Particles, renders: true, stored })
}
