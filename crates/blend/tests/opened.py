"""Opens a .blend as Kiln's host does and tells where all that it names leads, and renders frame 2.

... opened.py -- BLEND REMAP RESULT PICTURE [SAVED]
REMAP is a JSON file of what `elsewhere` takes, or empty for a file that is at home. RESULT becomes JSON: what names a
file (its datablock and field), to where that leads; and what Blender's own list has that is not among them. With SAVED,
names are made relative and the file is saved there, and nothing else is done.
"""

import json
import os
import sys

import bpy

sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../../../blender"))
from kiln_host import remap  # noqa: E402

blend, table, result, shown, *saved = sys.argv[sys.argv.index("--") + 1 :]


def absolute(path, owner):
    base = blend
    if owner.library and not isinstance(owner, bpy.types.Library):
        base = absolute(owner.library.filepath, owner.library)
    path = path.replace("\\", "/")
    return os.path.normpath(os.path.dirname(base) + "/" + path[2:] if path.startswith("//") else path)


def trees():
    for owner in (*bpy.data.materials, *bpy.data.lights):
        if owner.node_tree:
            yield owner, owner.node_tree
    for group in bpy.data.node_groups:
        yield group, group


def names():
    for kind in ("images", "libraries", "fonts", "movieclips", "sounds", "volumes", "cache_files", "texts"):
        for block in getattr(bpy.data, kind):
            packed = getattr(block, "packed_file", None)
            if block.filepath and block.filepath != "<builtin>" and not packed:
                yield f"{kind} {block.name}", block, block.filepath
    for owner, tree in trees():
        for node in tree.nodes:
            if getattr(node, "filepath", ""):
                yield f"{owner.name} {node.name}", owner, node.filepath
            for socket in node.inputs:
                if node.bl_idname.startswith("GeometryNodeImport") and socket.default_value:
                    yield f"{owner.name} {node.name}", owner, socket.default_value
    for thing in bpy.data.objects:
        for modifier in thing.modifiers:
            for field in ("filepath", "bake_directory", "simulation_bake_directory"):
                if getattr(modifier, field, ""):
                    yield f"{thing.name} {modifier.name} {field}", thing, getattr(modifier, field)
            domain = getattr(modifier, "domain_settings", None)
            if domain:
                yield f"{thing.name} fluid", thing, domain.cache_directory
            cache = getattr(modifier, "point_cache", None)
            if cache and cache.use_external:
                yield f"{thing.name} points", thing, cache.filepath
            for name, value in modifier.items() if modifier.type == "NODES" else ():
                if isinstance(value, str) and value:
                    yield f"{thing.name} {name}", thing, value
    for scene in bpy.data.scenes:
        editor = scene.sequence_editor
        for strip in (editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all) if editor else ():
            if strip.type == "IMAGE":
                for number, element in enumerate(strip.elements):
                    yield f"{strip.name} {number}", scene, strip.directory + element.filename
            elif strip.type == "MOVIE":
                yield f"{strip.name}", scene, strip.filepath


def numbers(*values):
    return [round(number, 5) for value in values for number in (value if hasattr(value, "__len__") else [value])]


def shot():
    """What the shot says of what it links."""
    layers = list(bpy.context.view_layer.layer_collection.children)
    for layer in layers:
        layers += layer.children
        told = (layer.exclude, layer.holdout, layer.indirect_only, layer.hide_viewport)
        yield f"layer {layer.name}", told
    evaluated = bpy.context.evaluated_depsgraph_get()
    for thing in bpy.data.objects:
        label = f"{thing.name} of {thing.library.name if thing.library else 'this file'}"
        yield f"place {label}", numbers(*thing.evaluated_get(evaluated).matrix_world)
        yield f"parts {label}", [part.type for part in (*thing.modifiers, *thing.constraints)]
        yield f"slots {label}", [(slot.link, slot.material and slot.material.name) for slot in thing.material_slots]
        yield f"shape {label}", (thing.show_only_shape_key, thing.active_shape_key_index)
        yield f"values {label}", sorted((name, value) for name, value in thing.items() if isinstance(value, float))
        for system in thing.particle_systems:
            yield f"hair {label}", (system.vertex_group_density, system.settings.type, system.settings.count)
        for bone in thing.pose.bones if thing.pose else ():
            shape = bone.custom_shape and bone.custom_shape.name
            held = [constraint.type for constraint in bone.constraints]
            yield f"bone {label} {bone.name}", (numbers(*bone.matrix), held, shape, bone.get("mood"))
        moved = thing.animation_data
        if moved:
            action = moved.action and moved.action.name
            slot = getattr(moved, "action_slot", None) and moved.action_slot.identifier
            strips = [strip.action.name for track in moved.nla_tracks for strip in track.strips]
            drivers = [(curve.data_path, curve.driver.is_valid) for curve in moved.drivers]
            yield f"moved {label}", (action, slot, strips, drivers)
        for modifier in thing.modifiers:
            if modifier.type == "NODES":
                values = ((name, getattr(value, "to_list", lambda: value)()) for name, value in modifier.items())
                yield f"nodes {label}", sorted((name, value) for name, value in values if not isinstance(value, str))
        mesh = thing.evaluated_get(evaluated).data if thing.type == "MESH" else None
        if mesh and not thing.library:
            yield f"points {label}", numbers(*(vertex.co for vertex in list(mesh.vertices)[:8]))
    for owner, tree in trees():
        for node in tree.nodes:
            if getattr(node, "node_tree", None):
                sockets = [(socket.name, socket.is_linked) for socket in node.inputs]
                yield f"group {owner.name} {node.name}", (node.node_tree.name, sockets)


def spelled(path):
    return os.fsencode(path).hex()


places = {}
if table:
    with open(table) as file:
        places = json.load(file)
with remap.elsewhere(places, relative=bool(saved)):
    bpy.ops.wm.open_mainfile(filepath=blend, load_ui=False)
if saved:
    bpy.ops.wm.save_as_mainfile(filepath=saved[0], relative_remap=False)
    sys.stdout.flush()
    os._exit(0)
ours = {label: absolute(path, owner) for label, owner, path in names()}
listed = bpy.utils.blend_paths(absolute=True, packed=False, local=False)
# Brushes come from Blender's own folders.
theirs = {os.path.normpath(path) for path in listed if path and "/datafiles/assets/" not in path}
scene = bpy.context.scene
scene.frame_set(2)
sizes = {image.name: list(image.size) for image in bpy.data.images if image.source in ("FILE", "MOVIE", "TILED")}
scene.render.filepath = shown
scene.render.image_settings.file_format = "PNG"
scene.frame_start = scene.frame_end = 2
bpy.ops.render.render(animation=True)
found = {
    "names": {label: spelled(path) for label, path in ours.items()},
    "only_blender": sorted(spelled(path) for path in theirs - set(ours.values())),
    "missing": [library.name for library in bpy.data.libraries if getattr(library, "is_missing", False)],
    "sizes": sizes,
    "played": {
        thing.name: [modifier.point_cache.is_baked for modifier in thing.modifiers if modifier.type == "CLOTH"]
        for thing in bpy.data.objects
    },
    "shot": {label: json.dumps(told) for label, told in shot()},
    "grids": {volume.name: volume.grids.load() for volume in bpy.data.volumes},
}
with open(result, "w") as file:
    json.dump(found, file)
sys.stdout.flush()
os._exit(0)
