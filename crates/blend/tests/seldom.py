"""Files in which simulations are animated away from the saved frame, are in other scenes, or have lost frames: the part
of truth.py that is about what a file does not show by itself."""

import os
import shutil

import bpy

from depends import cloth, instance
from truth import ZONES, active, fresh, out, path_of, rigid, save, short, thing, zone_tree


def keyed(holder, path, *values):
    """Frame and value, one after another; the last is the saved one."""
    for frame, value in values:
        setattr(holder, path, value)
        holder.keyframe_insert(path, frame=frame)


def driven(holder, path):
    holder.driver_add(path).driver.expression = "frame"


def animated():
    """Every property that decides on a simulation, as far as Blender can animate it."""
    scene = fresh()
    into, second = scene.collection, bpy.data.scenes.new("Second")
    keyed(cloth("Keyed", into, hidden=True), "hide_render", (1, False), (5, True))
    driven(cloth("Driven", into, hidden=True), "hide_render")
    keyed(cloth("Elsewhere", into, hidden=True), "location", (1, (0, 0, 0)), (5, (1, 0, 0)))
    keyed(cloth("Only seen", into, hidden=True), "hide_viewport", (1, False), (5, True))
    strips = cloth("In strips", into, hidden=True)
    keyed(strips, "hide_render", (1, False), (5, True))
    # Another object may use the same action.
    cloth("Shared", into, hidden=True).animation_data_create().action = strips.animation_data.action
    strips.animation_data.nla_tracks.new().strips.new("Strip", 1, strips.animation_data.action)
    strips.animation_data.action = None
    for name, change in (("Modifier keyed", lambda m: keyed(m, "show_render", (1, True), (3, False))),
                         ("Modifier driven", lambda m: driven(m, "show_render")),
                         ("Modifier off", lambda m: keyed(m, "show_viewport", (1, True), (3, False)))):
        modifier = cloth(name, into).modifiers["Cloth"]
        modifier.show_render = False
        change(modifier)
    stage = bpy.data.collections.new("Stage")
    cloth("Behind", stage)
    empty = instance(stage, into)
    keyed(empty, "instance_type", (1, "COLLECTION"), (2, "NONE"))
    fur = thing("Fur", into)
    fur.modifiers.new("Hair", "PARTICLE_SYSTEM")
    fur.particle_systems[0].settings.type = "HAIR"
    keyed(fur.particle_systems[0], "use_hair_dynamics", (1, True), (2, False))
    for name, path, value in (("Sparks", "integrator", "RK4"), ("Slowed", "drag_factor", 0.0), ("Free", "size_random", 0.0)):
        emitter = thing(name, into)
        emitter.modifiers.new("Sparks", "PARTICLE_SYSTEM")
        settings = emitter.particle_systems[0].settings
        # From one state of free fall to the same.
        keyed(settings, path, (1, value), (2, value))
        short(emitter.particle_systems[0].point_cache)
    canvas = thing("Canvas", into)
    modifier = canvas.modifiers.new("Paint", "DYNAMIC_PAINT")
    active(scene, canvas)
    bpy.ops.dpaint.type_toggle(type="CANVAS")
    keyed(modifier.canvas_settings.canvas_surfaces[0], "is_active", (1, True), (2, False))
    bodies = [thing(name, into) for name in ("Held", "Driven body", "Dynamic", "Passive", "Fixed", "Moved")]
    rigid(scene, [
        (bodies[0], "ACTIVE", True, True), (bodies[1], "ACTIVE", True, True), (bodies[2], "ACTIVE", False, False),
        (bodies[3], "PASSIVE", True, True), (bodies[4], "ACTIVE", True, True), (bodies[5], "ACTIVE", True, True),
    ])
    for at in (0, 3):
        keyed(bodies[at].rigid_body, "kinematic", (1, False), (4, True))
    driven(bodies[1].rigid_body, "kinematic")
    keyed(bodies[2].rigid_body, "enabled", (1, True), (4, False))
    keyed(bodies[5], "location", (1, (0, 0, 1)), (4, (0, 0, 2)))
    rigid(second, [(thing("In a world", second.collection), "ACTIVE", True, False)])
    keyed(second.rigidbody_world, "enabled", (1, True), (2, False))
    bpy.context.window.scene = scene
    if ZONES:
        tree = zone_tree("Muted", mute=True)
        thing("Nodes", into).modifiers.new("Nodes", "NODES").node_group = tree
        end = next(node for node in tree.nodes if node.bl_idname == "GeometryNodeSimulationOutput")
        try:
            tree.driver_add(f'nodes["{end.name}"].mute')
        except (RuntimeError, TypeError):
            pass  # From 5.0 it is not animated.
    scene.frame_set(1)
    save("animated")


def animated_field():
    """A field that pushes only later."""
    scene = fresh()
    emitter = thing("Sparks", scene.collection)
    emitter.modifiers.new("Sparks", "PARTICLE_SYSTEM")
    short(emitter.particle_systems[0].point_cache)
    wind = thing("Wind", scene.collection)
    active(scene, wind)
    bpy.ops.object.forcefield_toggle()
    keyed(wind.field, "type", (1, "WIND"), (2, "NONE"))
    save("animated field")


def compositor(scene):
    if hasattr(scene, "compositing_node_group"):
        scene.compositing_node_group = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        return scene.compositing_node_group
    scene.use_nodes = True
    return scene.node_tree


def other_scenes():
    """Scenes behind others, in compositors, and in strips."""
    main = fresh()
    made = {}
    for name in ("Set", "Behind the set", "Layers", "In a group", "Muted layers", "Strip", "Muted strip", "In a meta",
                 "Off", "Idle"):
        made[name] = bpy.data.scenes.new(name)
        cloth(f"Cloth of {name}", made[name].collection)
        rigid(made[name], [(thing(f"Body of {name}", made[name].collection), "ACTIVE", True, False)])
    bpy.context.window.scene = main
    main.background_set, made["Set"].background_set = made["Set"], made["Behind the set"]
    composited, cut, both = (bpy.data.scenes.new(name) for name in ("Composited", "Cut", "Both"))
    tree = compositor(composited)
    for name, mute in (("Layers", False), ("Muted layers", True)):
        node = tree.nodes.new("CompositorNodeRLayers")
        node.scene, node.mute = made[name], mute
    inner = bpy.data.node_groups.new("Inner", "CompositorNodeTree")
    try:
        inner.nodes.new("CompositorNodeRLayers").scene = made["In a group"]
    except RuntimeError:
        pass  # Before 5.0 only a scene's own tree takes them.
    tree.nodes.new("CompositorNodeGroup").node_tree = inner
    off = bpy.data.scenes.new("No compositing")
    compositor(off).nodes.new("CompositorNodeRLayers").scene = made["Off"]
    off.render.use_compositing = False
    editor = cut.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    for channel, name in enumerate(("Strip", "Muted strip"), 1):
        strips.new_scene(name, made[name], channel, 1).mute = name == "Muted strip"
    metas = strips.new_meta("Meta", 5, 1)
    inside = metas.strips if hasattr(metas, "strips") else metas.sequences
    inside.new_scene("In a meta", made["In a meta"], 1, 1)
    # What is drawn draws others itself.
    strips_of_both = both.sequence_editor_create()
    strips_of_both = strips_of_both.strips if hasattr(strips_of_both, "strips") else strips_of_both.sequences
    strips_of_both.new_scene("Main", main, 1, 1)
    both.background_set = cut
    unused = bpy.data.scenes.new("No sequencer").sequence_editor_create()
    (unused.strips if hasattr(unused, "strips") else unused.sequences).new_scene("Off", made["Off"], 1, 1)
    bpy.data.scenes["No sequencer"].render.use_sequencer = False
    save("other scenes")
    # The same in a library.
    scene = fresh()
    save("linked set")
    with bpy.data.libraries.load(path_of("other scenes"), link=True, relative=True) as (_, there):
        there.scenes = ["Set"]
    scene.background_set = there.scenes[0]
    save("linked set")


def stored():
    """Caches on the disk: whole, lost, with holes, with a file of nothing, of another name, of a step, and external."""
    scene = fresh()
    scene.frame_start, scene.frame_end = 1, 6
    save("stored before")
    names = ("Whole", "Lost", "Holes 天", "Empty", "Ends", "Short")
    for name in names:
        cache = cloth(name, scene.collection).modifiers["Cloth"].point_cache
        cache.use_disk_cache, cache.frame_end = True, 6 if name != "Short" else 3
    cloth("In memory", scene.collection)
    # In the first frames Blender leaves them out, and stores nothing.
    for name, on_disk in (("Idle", True), ("Idle in memory", False)):
        modifier = cloth(name, scene.collection).modifiers["Cloth"]
        modifier.point_cache.use_disk_cache, modifier.point_cache.frame_end = on_disk, 6
        keyed(modifier, "show_viewport", (4, True), (1, False))
    cloth("Never", scene.collection, hidden=True).modifiers["Cloth"].point_cache.use_disk_cache = True
    named = cloth("Named", scene.collection).modifiers["Cloth"].point_cache
    named.use_disk_cache, named.name = True, "mine"
    sparks = thing("Sparks", scene.collection)
    sparks.modifiers.new("Sparks", "PARTICLE_SYSTEM")
    cache = sparks.particle_systems[0].point_cache
    sparks.particle_systems[0].settings.integrator = "EULER"
    cache.use_disk_cache, cache.frame_step = True, 3
    short(cache)
    cache.frame_end = 6
    # From below the first frame, and never.
    early = cloth("Early", scene.collection).modifiers["Cloth"].point_cache
    early.frame_start, early.use_disk_cache = -2, True
    cloth("Early in memory", scene.collection).modifiers["Cloth"].point_cache.frame_start = -2
    later = thing("Later", scene.collection)
    later.modifiers.new("Sparks", "PARTICLE_SYSTEM")
    settings = later.particle_systems[0].settings
    settings.integrator, settings.frame_end, settings.frame_start = "EULER", 30, 20
    box = None
    if ZONES:
        box = thing("Nodes", scene.collection)
        modifier = box.modifiers.new("Nodes", "NODES")
        modifier.node_group = zone_tree("Zone")
        modifier.bake_directory = "//nodes"
        if hasattr(modifier, "bake_target"):
            modifier.bake_target = "DISK"
    scene.frame_set(1)
    bpy.ops.ptcache.bake_all(bake=True)
    if box:
        with bpy.context.temp_override(object=box, active_object=box):
            bpy.ops.object.simulation_nodes_cache_bake(selected=False)
    save("stored before")
    caches = os.path.join(out, "blendcache_stored before")
    outside = cloth("Outside", scene.collection).modifiers["Cloth"].point_cache
    shutil.copytree(caches, os.path.join(out, "external"))
    for name in os.listdir(os.path.join(out, "external")):
        if not name.startswith("mine"):
            os.remove(os.path.join(out, "external", name))
    outside.use_external, outside.filepath, outside.name, outside.index = True, "//external", "mine", 0
    save("stored before")
    shutil.copytree(caches, os.path.join(out, "blendcache_stored"))
    save("stored")

    def files(name, frames):
        begin = name.encode().hex().upper()
        return [os.path.join(out, "blendcache_stored", f"{begin}_{frame:06}_00.bphys") for frame in frames]

    for path in files("Lost", range(1, 7)) + files("Holes 天", (2, 4, 5)) + files("Ends", (6,)):
        os.remove(path)
    with open(files("Empty", (3,))[0], "w"):
        pass
    os.remove(os.path.join(out, "external", "mine_000003_00.bphys"))
    if box:
        (zone,) = os.listdir(os.path.join(out, "nodes"))
        os.remove(os.path.join(out, "nodes", zone, "meta", "00004_00000.json"))


MAKERS = [animated, animated_field, other_scenes, stored]
