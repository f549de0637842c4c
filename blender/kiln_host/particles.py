"""Emitted particles: which of them need a bake.

Blender takes all frames since the last one that it has seen in a single step. For particles in free fall that is exact,
as is where they are born, as long as only its own keys and those of its parents move the emitter: those alone Blender
evaluates for the moment of each birth. In every other case the frame depends on the frames before. The rules were
measured in 3.4, 4.2 and 5.0: each scene stepped through, and entered at a frame. crates/blend/src/particles.rs reads the
same from a file.
"""

import bpy

from . import animated

# They make the same mesh in every frame, of a mesh that does not move.
_STEADY = {"PARTICLE_SYSTEM", "SUBSURF", "MULTIRES", "BEVEL", "SOLIDIFY", "EDGE_SPLIT", "TRIANGULATE"}


def need_steps(emitter, settings):
    """Returns whether a frame of these particles depends on the frames before."""
    if settings.physics_type != "NEWTON":
        return settings.physics_type in ("BOIDS", "FLUID")
    return (
        not _falls_freely(settings)
        or any(map(_pushes, bpy.data.objects))
        or any(map(_sways, bpy.data.scenes))
        or _is_moved_by_others(emitter)
        or _is_shaped(emitter)
    )


def _falls_freely(settings):
    exact = settings.integrator in ("MIDPOINT", "RK4")
    braked = settings.brownian_factor or settings.drag_factor or settings.damping
    # The emitter's own speed is what it moved since the last step. What is born before frame 1 has fallen by then in a bake,
    # and begins to fall where Blender sees it first.
    born_alike = not settings.object_factor and settings.frame_start >= 1
    steady = not animated.paths(settings) and not any(settings.texture_slots)
    return exact and not braked and born_alike and steady


def _pushes(thing):
    field = thing.field
    pushes = field and (field.type != "NONE" or animated.is_animated(thing, "field.type"))
    return bool(pushes) or any(one.type == "COLLISION" for one in thing.modifiers)


def _sways(scene):
    """Returns whether gravity is animated, or the scene's frames are blurred, for which Blender steps back and forth."""
    blurs = scene.render.use_motion_blur
    return blurs or animated.is_animated(scene, "gravity", "use_gravity", "render.use_motion_blur")


def _is_moved_by_others(thing):
    """Returns whether something else moves an object than its own keys and those of its parents."""
    while thing:
        data = thing.animation_data
        if len(thing.constraints) or thing.rigid_body or (data and len(data.drivers)):
            return True
        parent = thing.parent
        # A curve may lead its children along itself.
        if parent and (thing.parent_type != "OBJECT" or parent.type == "CURVE" or parent.library != thing.library):
            return True
        thing = parent
    return False


def _is_shaped(emitter):
    """Returns whether the emitter's surface may differ from frame to frame."""
    mesh = emitter.data
    return (
        mesh.library != emitter.library
        or mesh.shape_keys is not None
        or mesh.animation_data is not None
        or any(one.type not in _STEADY for one in emitter.modifiers)
        or any(path.startswith("modifiers[") and not path.endswith("].show_render") for path in animated.paths(emitter))
    )
