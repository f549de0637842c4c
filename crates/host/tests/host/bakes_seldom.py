"""More scenes of bake.rs: simulations that a saved file does not show, that are in another scene, or whose bake is lost."""

import os
import shutil

import bpy
from bakes import LAST, NEW, sheet, short, sliding_box, start


def fall(place, height=3):
    bpy.ops.mesh.primitive_cube_add(size=1, location=(place, 0, height), rotation=(0.3, 0.4, 0.1))
    bpy.ops.rigidbody.object_add()
    return bpy.context.object


def world(scene):
    bpy.ops.rigidbody.world_add()
    bpy.ops.rigidbody.object_add(type="PASSIVE")
    short(scene.rigidbody_world.point_cache)


def key(holder, path, *values):
    """Frame and value, one after another; the value of the first frame is the saved one."""
    for frame, value in values:
        setattr(holder, path, value)
        holder.keyframe_insert(path, frame=frame)


def drive(holder, path, expression):
    curve = holder.driver_add(path)
    curve.driver.type, curve.driver.expression = "SCRIPTED", expression


def keyed(folder):
    """Nothing of it moves, or shows, in the frame that is saved. Not among it are bodies whose *Dynamic* is keyed, or
    whose *Animated* a driver decides: with them two runs of one Blender differ by a frame."""
    scene = start()
    world(scene)
    # Held by its keys until it falls.
    held = fall(-3)
    key(held.rigid_body, "kinematic", (1, True), (4, False))
    key(held, "location", (1, (-3.5, 0, 3)), (4, (-3, 0, 3)))
    # Keys in a strip of the nonlinear animation editor.
    cloth = sheet((1.5, 0, 2))
    key(cloth, "hide_render", (1, True), (2, False), (9, True))
    data = cloth.animation_data
    data.nla_tracks.new().strips.new("Shows", 1, data.action)
    data.action = None
    drive(sheet((3, 0, 2.5)).modifiers["Cloth"], "show_render", "frame > 2")
    # It begins to fall where it is seen first.
    modifier = sheet((-1.2, 0, 3.5)).modifiers["Cloth"]
    for field in ("show_viewport", "show_render"):
        key(modifier, field, (4, True), (1, False))
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.6, location=(0, -2, 2), segments=12, ring_count=8)
    soft = bpy.context.object
    modifier = soft.modifiers.new("Softbody", "SOFT_BODY")
    modifier.settings.use_goal = False
    short(modifier.point_cache)
    # By a property that a person may turn.
    soft["shown"] = 1.0
    curve = soft.driver_add("hide_render")
    variable = curve.driver.variables.new()
    variable.type, variable.targets[0].id, variable.targets[0].data_path = "SINGLE_PROP", soft, '["shown"]'
    curve.driver.type, curve.driver.expression = "SCRIPTED", "1 - " + variable.name
    key(scene.rigidbody_world, "enabled", (1, True))
    scene.frame_set(1)
    if NEW:
        drive(sliding_box(-3).modifiers["Nodes"], "show_render", "frame > 1")


def another(name, scene):
    """Another scene, and the window shows it."""
    made = bpy.data.scenes.new(name)
    made.render.engine, made.cycles.samples, made.cycles.use_denoising = "CYCLES", 2, False
    for field in ("resolution_x", "resolution_y", "resolution_percentage"):
        setattr(made.render, field, getattr(scene.render, field))
    made.frame_start, made.frame_end = 1, LAST
    bpy.context.window.scene = made
    return made


def stage(name, scene, place):
    """A scene in which something falls."""
    made = another(name, scene)
    bpy.ops.mesh.primitive_plane_add(size=3, location=(place, 0, 0))
    world(made)
    fall(place)
    sheet((place, -1.5, 1.5))
    return made


def look(scene):
    bpy.ops.object.camera_add(location=(0, -9, 4), rotation=(1.2, 0, 0))
    scene.camera = bpy.context.object
    bpy.ops.object.light_add(type="SUN", rotation=(0.6, 0.3, 0))
    bpy.context.object.data.energy = 3


def backdrop(folder):
    """What falls is in the scene behind this one, and in the one behind that."""
    scene = start()
    # Nodes are baked for a scene's own range: this one ends before the frames that are looked at.
    near, far = stage("Near", scene, -1), stage("Far", scene, 2)
    if NEW:
        sliding_box(0)
    far.frame_end = 5
    scene.background_set, near.background_set = near, far
    bpy.context.window.scene = scene


def composited(folder):
    """The picture is that of another scene, by the compositor; behind it is a third."""
    scene = start()
    far = stage("Far", scene, 2)
    near = stage("Near", scene, -1)
    look(near)
    near.background_set = far
    bpy.context.window.scene = scene
    if hasattr(scene, "compositing_node_group"):
        tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        scene.compositing_node_group, out = tree, tree.nodes.new("NodeGroupOutput")
    else:
        scene.use_nodes = True
        tree = scene.node_tree
        tree.nodes.clear()
        out = tree.nodes.new("CompositorNodeComposite")
    layers = tree.nodes.new("CompositorNodeRLayers")
    layers.scene = near
    tree.links.new(layers.outputs["Image"], out.inputs[0])


def cut(folder):
    """The picture is that of another scene, by a strip of the sequencer, at another time."""
    scene = start()
    near = stage("Near", scene, 0)
    look(near)
    near.frame_start = 2
    bpy.context.window.scene = scene
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    strips.new_scene("Near", near, 1, 1)


def bake(scene, *things):
    """What a person presses."""
    bpy.context.window.scene = scene
    bpy.ops.ptcache.bake_all(bake=True)
    for thing in things:
        with bpy.context.temp_override(object=thing, active_object=thing):
            bpy.ops.object.simulation_nodes_cache_bake(selected=False)


def on_disk(folder, name):
    """Cloth and nodes whose caches lie beside the file."""
    scene = start()
    cloth = sheet((1, 0, 2))
    cloth.name = "Sheet"
    box = sliding_box(-2) if NEW else None
    # A name to start from.
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, name))
    cloth.modifiers["Cloth"].point_cache.use_disk_cache = True
    if box:
        box.modifiers["Nodes"].bake_directory = "//nodes"
        if hasattr(box.modifiers["Nodes"], "bake_target"):
            box.modifiers["Nodes"].bake_target = "DISK"
    scene.frame_set(1)
    bake(scene, *filter(None, [box]))
    scene.frame_set(1)


def lost(folder):
    """Baked, and saved under another name: Blender says that it is baked, and finds none of its frames."""
    on_disk(folder, "before.blend")
    shutil.rmtree(os.path.join(folder, "nodes"), ignore_errors=True)


def holes(folder):
    """Baked, and some of its files are gone or end too early."""
    on_disk(folder, "holes.blend")
    caches = os.path.join(folder, "blendcache_holes")
    for name in os.listdir(caches):
        path = os.path.join(caches, name)
        if "_000007_" in name:
            os.remove(path)
        elif "_000009_" in name:
            with open(path, "r+b") as file:
                file.truncate(os.path.getsize(path) - 20)
    if NEW:
        (bake_of_nodes,) = os.listdir(os.path.join(folder, "nodes"))
        os.remove(os.path.join(folder, "nodes", bake_of_nodes, "blobs", "00005_00000.blob"))


def drained(folder):
    """A liquid whose bake is lost: Blender shows the box of its domain."""
    from bakes import liquid

    liquid(folder)
    thing = next(one for one in bpy.context.scene.objects if any(m.type == "FLUID" for m in one.modifiers))
    domain = thing.modifiers["Fluid"].domain_settings
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "drained.blend"))
    domain.cache_type, domain.cache_directory = "ALL", "//fluid"
    which = {"scene": bpy.context.scene, "object": thing, "active_object": thing}
    bpy.ops.fluid.bake_all({**bpy.context.copy(), **which})
    assert domain.has_cache_baked_mesh
    bpy.context.scene.frame_set(1)
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "drained.blend"))
    shutil.rmtree(os.path.join(folder, "fluid"))


def by_hand(name, scene):
    """What a person does before stepping through the scene."""
    if name in ("backdrop", "composited", "cut"):
        # Each scene by itself; nodes are simulated on the way.
        for one in bpy.data.scenes:
            bake(one)
        bpy.context.window.scene = scene
    if name == "drained":
        # Simulated on the way.
        domain = bpy.data.objects["Cube"].modifiers["Fluid"].domain_settings
        domain.cache_type, domain.cache_directory = "REPLAY", "//elsewhere"
    if name == "lost":
        cloth = bpy.data.objects["Sheet"]
        which = {"scene": scene, "object": cloth, "point_cache": cloth.modifiers["Cloth"].point_cache}
        if NEW:
            with bpy.context.temp_override(**which):
                bpy.ops.ptcache.free_bake()
            box = bpy.data.objects["Cube"].modifiers["Nodes"]
            box.bake_directory = ""
        else:
            bpy.ops.ptcache.free_bake({**bpy.context.copy(), **which})


BUILT = [keyed, backdrop, composited, cut, lost, holes, drained]
