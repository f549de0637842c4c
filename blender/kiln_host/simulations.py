"""Simulations that nobody baked. Background Blender renders them standing still, on every farm."""

import ctypes
import os

import bpy


def unbaked(scene):
    """Names of what has no bake. Particles in free fall are right without one and are not named."""
    return [name for name, _, _ in standing(scene)]


def standing(scene):
    """Name, owner, and the modifier, particle system or rigid body world, of each simulation without a bake."""
    world = scene.rigidbody_world
    if world and world.enabled and world.collection and not _baked(world.point_cache):
        for thing in world.collection.objects:
            body = thing.rigid_body
            if body and body.type == "ACTIVE" and body.enabled and not body.kinematic:
                # The cache is the scene's.
                yield f"rigid body {thing.name}", scene, world
    shown = dict.fromkeys(rendered(scene))
    for thing in shown:
        yield from _of_object(thing)
    # What does not render may move what does.
    others = {thing: found for thing in bpy.data.objects if thing not in shown and (found := list(_of_object(thing)))}
    if others:
        for thing in needed(scene, shown):
            yield from others.pop(thing, ())


def _of_object(thing):
    for modifier in thing.modifiers:
        if modifier.show_render and _modifier_unbaked(thing, modifier):
            kind = modifier.type.lower().replace("_", " ")
            kind = "simulation nodes" if kind == "nodes" else kind
            yield f"{kind} of {thing.name}", thing, modifier
    for system in thing.particle_systems:
        if _baked(system.point_cache):
            continue
        if system.settings.type == "HAIR" and system.use_hair_dynamics:
            yield f"hair dynamics of {thing.name}", thing, system
        if system.settings.type == "EMITTER" and _wanders(system.settings):
            yield f"particles of {thing.name}", thing, system


def _wanders(settings):
    """Whether where particles are depends on every frame before. Blender jumps over frames in one step, which is
    exact for what falls freely alone."""
    if settings.physics_type != "NEWTON":
        return settings.physics_type in ("BOIDS", "FLUID")
    free = settings.integrator in ("MIDPOINT", "RK4")
    braked = settings.brownian_factor or settings.drag_factor or settings.damping
    return not free or bool(braked) or any(map(_pushes, bpy.data.objects))


def _pushes(thing):
    field = thing.field
    return bool(field and field.type != "NONE") or any(one.type == "COLLISION" for one in thing.modifiers)


def rendered(scene):
    """The scene's objects, and those of the collections that its empties stand for, however deep."""
    todo, seen = [scene.objects], set()
    while todo:
        for thing in todo.pop():
            if thing.hide_render or thing in seen:
                continue
            seen.add(thing)
            yield thing
            stands_for = instanced(thing)
            if stands_for and stands_for not in seen:
                seen.add(stands_for)
                todo.append(stands_for.all_objects)


def instanced(thing):
    """The collection that an empty shows in its place."""
    return thing.instance_collection if thing.instance_type == "COLLECTION" else None


def needed(scene, shown):
    """Datablocks of every kind that the scene's picture depends on, however deep, by whatever pointers they have."""
    uses = {}
    for used, users in bpy.data.user_map().items():
        for user in users:
            uses.setdefault(user, set()).add(used)
    todo, seen = [*shown, *_looks_at(scene, uses.get(scene, ()))], set()
    while todo:
        one = todo.pop()
        if one in seen or isinstance(one, bpy.types.Scene):
            continue
        seen.add(one)
        yield one
        todo.extend(uses.get(one, set()) - _no_need(one))
        stands_for = instanced(one) if isinstance(one, bpy.types.Object) else None
        if stands_for:
            todo.extend(thing for thing in stands_for.all_objects if not thing.hide_render)


def _looks_at(scene, used):
    """What a scene needs beside the objects that render: cameras, whatever drives it, its world, its compositing."""
    yield from (thing for thing in scene.objects if thing.type == "CAMERA")
    yield from filter(None, [scene.camera, *(marker.camera for marker in scene.timeline_markers)])
    for driven in (scene, getattr(scene, "node_tree", None)):
        for curve in driven.animation_data.drivers if driven and driven.animation_data else ():
            for variable in curve.driver.variables:
                yield from (target.id for target in variable.targets if target.id)
    yield from (one for one in used if not isinstance(one, (bpy.types.Object, bpy.types.Collection)))


def _no_need(one):
    """Pointers that nothing is drawn by."""
    ignored, override = set(), one.override_library
    if override:
        # From 3.1 on there is a root.
        ignored |= {override.reference, getattr(override, "hierarchy_root", None)}
    if isinstance(one, bpy.types.Object) and one.type == "EMPTY":
        # It may name a collection that it does not stand for; and of the other, what is hidden stays so.
        ignored.add(one.instance_collection)
    return ignored


def by_owner(found):
    """What stands still, by name, and what of it only another file can bake."""
    own = [name for name, owner, _ in found if not owner.library]
    linked = [f"{name} (from {owner.library.name})" for name, owner, _ in found if owner.library]
    return own, linked


def _baked(cache):
    return cache.is_baked or cache.use_external


def _modifier_unbaked(thing, modifier):
    kind = modifier.type
    if kind in ("CLOTH", "SOFT_BODY"):
        return not _baked(modifier.point_cache)
    if kind == "DYNAMIC_PAINT":
        canvas = modifier.canvas_settings
        surfaces = canvas.canvas_surfaces if canvas else ()
        return any(s.is_active and s.surface_format == "VERTEX" and not _baked(s.point_cache) for s in surfaces)
    if kind == "FLUID" and modifier.fluid_type == "DOMAIN":
        domain = modifier.domain_settings
        return not (domain.has_cache_baked_data or domain.has_cache_baked_any)
    if kind == "NODES" and modifier.node_group and _simulates(modifier.node_group, set()):
        return not _nodes_baked(thing, modifier)
    return False


def _simulates(tree, seen):
    if tree is None or tree.name in seen:
        return False
    seen.add(tree.name)
    return any(
        not node.mute
        and (
            node.bl_idname == "GeometryNodeSimulationOutput"
            or (node.bl_idname == "GeometryNodeGroup" and _simulates(node.node_tree, seen))
        )
        for node in tree.nodes
    )


def _nodes_baked(thing, modifier):
    if not hasattr(modifier, "bakes"):  # 3.6 and 4.0: one folder for the modifier
        return _has_files(modifier.simulation_bake_directory, thing)
    simulating = [
        bake for bake in modifier.bakes if bake.node and bake.node.bl_idname == "GeometryNodeSimulationOutput"
    ]
    # A zone inside a group names no node here; then all bakes count.
    return all(_bake_there(thing, modifier, bake) for bake in simulating or modifier.bakes)


def _bake_there(thing, modifier, bake):
    if _holds_packed(bake):
        return True
    if bake.use_custom_path:
        return _has_files(bake.directory, thing)
    return _has_files(os.path.join(modifier.bake_directory, str(bake.bake_id)), thing) if modifier.bake_directory else False


def _has_files(folder, thing):
    if not folder:
        return False
    path = bpy.path.abspath(folder, library=thing.library)
    return os.path.isdir(os.path.join(path, "meta")) and bool(os.listdir(os.path.join(path, "meta")))


class _NodesModifierBake(ctypes.Structure):
    """Blender's Python does not tell whether a bake is packed into the file; its memory does (DNA, from 4.3)."""

    _fields_ = [
        ("id", ctypes.c_int),
        ("flag", ctypes.c_uint32),
        ("bake_mode", ctypes.c_uint8),
        ("bake_target", ctypes.c_int8),
        ("padding", ctypes.c_char * 6),
        ("directory", ctypes.c_void_p),
        ("frame_start", ctypes.c_int),
        ("frame_end", ctypes.c_int),
        ("data_blocks_num", ctypes.c_int),
        ("active_data_block", ctypes.c_int),
        ("data_blocks", ctypes.c_void_p),
        ("packed", ctypes.c_void_p),
    ]


def _holds_packed(bake):
    if not hasattr(bake, "bake_target"):
        return False
    raw = _NodesModifierBake.from_address(bake.as_pointer())
    # Another layout would show here: then nothing is concluded.
    known = (raw.id, raw.frame_start, raw.frame_end) == (bake.bake_id, bake.frame_start, bake.frame_end)
    return known and bool(raw.packed)
