"""Simulations that nobody baked. Background Blender renders them standing still, on every farm."""

import ctypes
import os

import bpy

from . import animated, caches, particles


def unbaked(scene):
    """Names of what has no bake. Particles in free fall are right without one and are not named."""
    return [name for name, _, _ in find_unbaked(scene)]


def find_unbaked(scene):
    """Name, owner, and the modifier, particle system or rigid body world, of each simulation without a bake that the
    picture of a scene depends on."""
    told = set()
    for one in drawn(scene):
        for entry in find_unbaked_in(one):
            if entry not in told:
                told.add(entry)
                yield entry


def find_unbaked_in(scene):
    """The same of one scene alone, without the scenes that it draws."""
    for name, owner, part, _ in _needed_simulations(scene, lambda part, bake: not bake.done):
        yield name, owner, part


def incomplete(scene):
    """Name, owner and part of what is baked, and the frames of the scene that its files lack. None where these are
    not known: another scene may be seen at another time."""
    told = set()
    for one, same_time in drawn(scene).items():
        for name, owner, part, bake in _needed_simulations(one, _has_files):
            if (name, owner, part) not in told:
                told.add((name, owner, part))
                yield name, owner, part, (bake.missing if same_time or not bake.missing else None)


def drawn(scene):
    """The scene and those that its picture is made of: behind it, by its compositor, by strips of its sequencer. True
    for those that are seen at the scene's own time."""
    found, todo = {}, [(scene, True)]
    while todo:
        one, same_time = todo.pop()
        same_time = same_time and found.get(one, True)
        if one is None or found.get(one) == same_time:
            continue
        found[one] = same_time
        todo.append((one.background_set, same_time))
        todo.extend((other, same_time) for other in _composited(one))
        keyed = animated.ends(one, "sequence_editor.", ".mute")
        strips = (strip for strip in _strips(one) if strip.type == "SCENE" and (keyed or not strip.mute))
        todo.extend((strip.scene, False) for strip in strips)
    return found


def _composited(scene):
    """Scenes whose render layers the compositor takes."""
    tree = getattr(scene, "compositing_node_group", None) or getattr(scene, "node_tree", None)
    old = not hasattr(scene, "compositing_node_group")
    on = scene.use_nodes or animated.is_animated(scene, "use_nodes") if old else True
    todo, seen = [tree] if on and scene.render.use_compositing else [], set()
    while todo:
        tree = todo.pop()
        if tree is None or tree in seen:
            continue
        seen.add(tree)
        keyed = animated.ends(tree, "nodes[", "].mute")
        for node in tree.nodes:
            if node.mute and not keyed:
                continue
            if node.bl_idname == "CompositorNodeRLayers":
                yield node.scene
            todo.append(getattr(node, "node_tree", None))


def _strips(scene):
    editor = scene.sequence_editor
    return all_strips(editor) if editor and scene.render.use_sequencer else ()


def all_strips(editor):
    return editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all


def _has_files(part, bake):
    """Returns whether frames may be missing of what is baked."""
    on_disk = any(cache.use_disk_cache or cache.use_external for cache in point_caches(part))
    return bake.done and bool(bake.missing or on_disk or is_kind(part, "NODES"))


def _needed_simulations(scene, wanted):
    """Name, owner, part and bake of the simulations of one scene that its picture depends on, and that are wanted."""
    folders = caches.Folders()
    world = scene.rigidbody_world
    enabled = world and (world.enabled or animated.is_animated(scene, "rigidbody_world.enabled"))
    if enabled and world.collection:
        bake = caches.of_points(world.point_cache, scene, folders)
        for thing in world.collection.objects if wanted(world, bake) else ():
            if _moves(thing):
                # The cache is the scene's.
                yield f"rigid body {thing.name}", scene, world, bake
    shown = dict.fromkeys(rendered(scene))
    for thing in shown:
        yield from (one for one in _of_object(thing, folders) if wanted(*one[2:]))
    # What does not render may move what does.
    others = {
        thing: found
        for thing in bpy.data.objects
        if thing not in shown and (found := [one for one in _of_object(thing, folders) if wanted(*one[2:])])
    }
    if others:
        for thing in needed(scene, shown):
            yield from others.pop(thing, ())


def _moves(thing):
    """Returns whether a rigid body is moved by others in any frame."""
    body = thing.rigid_body
    if not body or body.type != "ACTIVE":
        return False
    on = body.enabled or animated.is_animated(thing, "rigid_body.enabled")
    return on and (not body.kinematic or animated.is_animated(thing, "rigid_body.kinematic"))


def _of_object(thing, folders):
    for name, owner, part, bake in _all_of_object(thing, folders):
        if bake.missing and _is_idle_at_times(thing):
            bake = bake._replace(missing=())
        yield name, owner, part, bake


def _is_idle_at_times(thing):
    """Returns whether Blender leaves an object's simulations out of some frames of a bake, as it does where a person steps
    through them: frames that are not stored are then not lost."""
    return animated.is_animated(thing, "hide_viewport") or animated.ends(thing, "modifiers[", "].show_viewport")


def _all_of_object(thing, folders):
    for modifier in thing.modifiers:
        bake = _of_modifier(thing, modifier, folders)
        if bake and (modifier.show_render or animated.ends(thing, "modifiers[", "].show_render")):
            kind = modifier.type.lower().replace("_", " ")
            kind = "simulation nodes" if kind == "nodes" else kind
            yield f"{kind} of {thing.name}", thing, modifier, bake
    for system in thing.particle_systems:
        cache, settings = system.point_cache, system.settings
        if settings.type == "HAIR":
            if system.use_hair_dynamics or animated.ends(thing, "particle_systems[", "].use_hair_dynamics"):
                yield f"hair dynamics of {thing.name}", thing, system, caches.of_points(cache, thing, folders)
        elif settings.type == "EMITTER" and particles.need_steps(thing, settings):
            bake = caches.of_points(cache, thing, folders, max(cache.frame_step, 1))
            yield f"particles of {thing.name}", thing, system, bake


def rendered(scene):
    """The scene's objects, and those of the collections that its empties stand for, however deep."""
    todo, seen = [scene.objects], set()
    while todo:
        for thing in todo.pop():
            if thing in seen or _is_hidden(thing):
                continue
            seen.add(thing)
            yield thing
            stands_for = instanced(thing)
            if stands_for and stands_for not in seen:
                seen.add(stands_for)
                todo.append(stands_for.all_objects)


def _is_hidden(thing):
    """In every frame."""
    return thing.hide_render and not animated.is_animated(thing, "hide_render")


def instanced(thing):
    """The collection that an empty shows in its place, in any frame."""
    shown = thing.instance_collection
    if shown and (thing.instance_type == "COLLECTION" or animated.is_animated(thing, "instance_type")):
        return shown
    return None


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
            todo.extend(thing for thing in stands_for.all_objects if not _is_hidden(thing))


def _looks_at(scene, used):
    """The datablocks that a scene needs beside the objects that render: cameras, whatever drives it, its world, its compositing."""
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


def point_caches(part):
    if is_kind(part, "DYNAMIC_PAINT"):
        surfaces = part.canvas_settings.canvas_surfaces if part.canvas_settings else ()
        return [one.point_cache for one in surfaces if one.surface_format == "VERTEX"]
    cache = getattr(part, "point_cache", None)
    return [cache] if cache else []


def is_kind(part, kind):
    return isinstance(part, bpy.types.Modifier) and part.type == kind


def by_owner(found):
    """The names of what has no bake: what this file can bake, and what only a library can."""
    own = [name for name, owner, _ in found if not owner.library]
    linked = [f"{name} (from {owner.library.name})" for name, owner, _ in found if owner.library]
    return own, linked


def _of_modifier(thing, modifier, folders):
    """None for what does not simulate."""
    kind = modifier.type
    if kind in ("CLOTH", "SOFT_BODY"):
        return caches.of_points(modifier.point_cache, thing, folders)
    if kind == "DYNAMIC_PAINT":
        return _of_paint(thing, modifier, folders)
    if kind == "FLUID" and modifier.fluid_type == "DOMAIN":
        return caches.of_fluid(modifier.domain_settings, thing, folders)
    if kind == "NODES" and modifier.node_group and _simulates(modifier.node_group, set()):
        return _of_nodes(thing, modifier, folders)
    return None


def _of_paint(thing, modifier, folders):
    canvas = modifier.canvas_settings
    keyed = animated.ends(thing, "modifiers[", "].is_active")
    surfaces = [one for one in canvas.canvas_surfaces if one.is_active or keyed] if canvas else ()
    return _all(
        [caches.of_points(one.point_cache, thing, folders) for one in surfaces if one.surface_format == "VERTEX"]
    )


def _all(bakes):
    """Several as one: baked where each is, and what any of them lacks."""
    if not bakes:
        return None
    gone = sorted({frame for bake in bakes for frame in bake.missing})
    return caches.Bake(all(bake.done for bake in bakes), tuple(gone))


def _simulates(tree, seen):
    if tree is None or tree.name in seen:
        return False
    seen.add(tree.name)
    # Up to Blender 4.x whether a node is muted can be animated.
    keyed = animated.ends(tree, "nodes[", "].mute")
    return any(
        (keyed or not node.mute)
        and (
            node.bl_idname == "GeometryNodeSimulationOutput"
            or (node.bl_idname == "GeometryNodeGroup" and _simulates(node.node_tree, seen))
        )
        for node in tree.nodes
    )


def _of_nodes(thing, modifier, folders):
    if not hasattr(modifier, "bakes"):  # 3.6 and 4.0: one folder for the modifier
        return _in_folder(modifier.simulation_bake_directory, thing, folders)
    simulating = [
        bake for bake in modifier.bakes if bake.node and bake.node.bl_idname == "GeometryNodeSimulationOutput"
    ]
    # A zone inside a group names no node here; then all bakes count.
    bakes = [_of_zone(thing, modifier, bake, folders) for bake in simulating or modifier.bakes]
    return _all(bakes) or caches.BAKED


def _of_zone(thing, modifier, bake, folders):
    if _holds_packed(bake):
        return caches.BAKED
    return _in_folder(_zone_folder(modifier, bake), thing, folders)


def _zone_folder(modifier, bake):
    if bake.use_custom_path:
        return bake.directory
    return os.path.join(modifier.bake_directory, str(bake.bake_id)) if modifier.bake_directory else ""


def node_folders(thing, modifier):
    """Folders in which the bakes of a modifier lie."""
    if not hasattr(modifier, "bakes"):
        named = [modifier.simulation_bake_directory]
    else:
        named = [_zone_folder(modifier, bake) for bake in modifier.bakes if not _holds_packed(bake)]
    return [bpy.path.abspath(folder, library=thing.library) for folder in named if folder]


def _in_folder(folder, thing, folders):
    return caches.of_nodes(bpy.path.abspath(folder, library=thing.library), folders) if folder else caches.NOT_BAKED


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
