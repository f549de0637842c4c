//! The animated properties that decide on simulations and on what shows: a value that a file holds is only that of one
//! frame.

use foldhash::HashSet;

use crate::dna::View;

/// Properties that actions, strips of the nonlinear animation editor and drivers may change.
pub(crate) mod animated {
    pub const HIDE_RENDER: u32 = 1;
    pub const INSTANCE_TYPE: u32 = 1 << 1;
    /// Of any modifier.
    pub const SHOW_RENDER: u32 = 1 << 2;
    pub const BODY_ENABLED: u32 = 1 << 3;
    pub const BODY_KINEMATIC: u32 = 1 << 4;
    pub const WORLD_ENABLED: u32 = 1 << 5;
    pub const HAIR_DYNAMICS: u32 = 1 << 6;
    pub const SURFACE_ACTIVE: u32 = 1 << 7;
    pub const FIELD_TYPE: u32 = 1 << 8;
    /// Gravity, or whether frames are blurred.
    pub const FALL: u32 = 1 << 9;
    /// Of any node.
    pub const NODE_MUTED: u32 = 1 << 10;
    /// Of any strip of the sequencer.
    pub const STRIP_MUTED: u32 = 1 << 11;
    pub const USE_NODES: u32 = 1 << 12;
    /// A setting of a modifier, but whether it renders.
    pub const MODIFIER: u32 = 1 << 13;
    /// Any property, by a driver.
    pub const DRIVEN: u32 = 1 << 14;
    /// An object or a modifier shows in the view.
    pub const VIEWPORT: u32 = 1 << 16;
    /// Any property.
    pub const ANY: u32 = 1 << 15;
    /// The sequencer renders.
    pub const SEQUENCER: u32 = 1 << 17;
    /// The compositor renders.
    pub const COMPOSITING: u32 = 1 << 18;
    /// A setting of a view layer.
    pub const VIEW_LAYER: u32 = 1 << 19;
}

/// The bits of a data path, as Blender spells it.
fn property(path: &[u8]) -> u32 {
    let within = |begin: &[u8], end: &[u8]| path.starts_with(begin) && path.ends_with(end);
    let own = match path {
        b"hide_render" => animated::HIDE_RENDER,
        b"hide_viewport" => animated::VIEWPORT,
        b"instance_type" => animated::INSTANCE_TYPE,
        b"rigid_body.enabled" => animated::BODY_ENABLED,
        b"rigid_body.kinematic" => animated::BODY_KINEMATIC,
        b"rigidbody_world.enabled" => animated::WORLD_ENABLED,
        b"field.type" => animated::FIELD_TYPE,
        b"use_nodes" => animated::USE_NODES,
        b"render.use_sequencer" => animated::SEQUENCER,
        b"render.use_compositing" => animated::COMPOSITING,
        b"gravity" | b"use_gravity" | b"render.use_motion_blur" => animated::FALL,
        _ if within(b"modifiers[", b"].show_render") => animated::SHOW_RENDER,
        _ if within(b"modifiers[", b"].is_active") => animated::SURFACE_ACTIVE | animated::MODIFIER,
        _ if within(b"modifiers[", b"].show_viewport") => animated::VIEWPORT | animated::MODIFIER,
        _ if path.starts_with(b"modifiers[") => animated::MODIFIER,
        _ if within(b"particle_systems[", b"].use_hair_dynamics") => animated::HAIR_DYNAMICS,
        _ if within(b"nodes[", b"].mute") => animated::NODE_MUTED,
        _ if within(b"sequence_editor.", b".mute") => animated::STRIP_MUTED,
        _ if path.starts_with(b"view_layers[") => animated::VIEW_LAYER,
        _ => 0,
    };
    own | animated::ANY
}

/// The animation of one datablock. Slots of an action are not told apart, and what is switched off counts: a bake too
/// many costs time, one too few a wrong picture.
#[derive(Default)]
pub(crate) struct Animation {
    pub bits: u32,
    /// Actions by where they were in memory.
    pub actions: Vec<u64>,
    /// Data paths that follow.
    awaited: HashSet<u64>,
}

impl Animation {
    /// Structs that are of use.
    pub const STRUCTS: [&'static str; 3] = ["AnimData", "FCurve", "NlaStrip"];

    /// Takes in a struct of the datablock.
    pub fn read(&mut self, view: View<'_>) {
        match view.struct_name() {
            // While a strip is edited, the action that was active before waits.
            b"AnimData" => {
                self.actions.extend(view.pointer("action").into_iter().chain(view.pointer("tmpact")))
            }
            b"NlaStrip" => self.actions.extend(view.pointer("act")),
            b"FCurve" => {
                self.awaited.extend(view.pointer("rna_path"));
                if view.pointer("driver").is_some() {
                    self.bits |= animated::DRIVEN;
                }
            }
            _ => {}
        }
    }

    /// Returns whether the block at this address is a path.
    pub fn awaits(&mut self, old: u64) -> bool {
        !self.awaited.is_empty() && self.awaited.remove(&old)
    }

    pub fn path(&mut self, block: &[u8]) {
        self.bits |= property(block.split(|byte| *byte == 0).next().unwrap_or_default());
    }

    pub fn is_empty(&self) -> bool {
        self.bits == 0 && self.actions.is_empty()
    }

    /// Bytes that it takes.
    pub fn cost(&self) -> usize {
        32 + 8 * self.actions.len() + 16 * self.awaited.len()
    }
}
