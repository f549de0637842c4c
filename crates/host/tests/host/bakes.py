"""The scenes of bake.rs, and a person who steps through them: `bakes.py build FOLDER [NAME...]`, `bakes.py step FOLDER
OUT [NAME...]`."""

import os
import sys

import bpy

LAST = 12
SHOWN = (3, 7, 10)
NEW = bpy.app.version >= (4, 2, 0)
MODULE = not os.path.basename(bpy.app.binary_path).startswith("blender")


def start():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.preferences.filepaths.save_version = 0
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = 2, False
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = 64, 36, 100
    scene.frame_start, scene.frame_end = 1, LAST
    scene.render.filepath = "//frames/shot_"
    bpy.ops.object.camera_add(location=(0, -9, 4), rotation=(1.2, 0, 0))
    scene.camera = bpy.context.object
    bpy.ops.object.light_add(type="SUN", rotation=(0.6, 0.3, 0))
    bpy.context.object.data.energy = 3
    bpy.ops.mesh.primitive_plane_add(size=10)
    return scene


def move(thing, start, end):
    """Along the X axis, through all frames."""
    for frame, place in ((1, start), (LAST, end)):
        thing.location.x = place
        thing.keyframe_insert("location", frame=frame)


def short(cache):
    cache.frame_end = LAST


def wood(thing, folder):
    """A texture whose name means nothing where the file is baked."""
    path = os.path.join(folder, "assets", "wood.png")
    os.makedirs(os.path.dirname(path))
    image = bpy.data.images.new("Wood", 4, 4)
    image.pixels = [1, 0.4, 0, 1] * 16
    image.filepath_raw, image.file_format = path, "PNG"
    image.save()
    made = bpy.data.materials.new("Wood")
    made.use_nodes = True
    node = made.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images.load(path)
    made.node_tree.links.new(node.outputs["Color"], made.node_tree.nodes["Principled BSDF"].inputs["Base Color"])
    thing.data.materials.append(made)
    bpy.data.images.remove(image)


def rigid(folder):
    scene = start()
    bpy.ops.rigidbody.world_add()
    bpy.ops.rigidbody.object_add(type="PASSIVE")
    for place in (2, 4):
        bpy.ops.mesh.primitive_cube_add(size=1, location=(0.2 * place, 0, place), rotation=(0.3, 0.4, 0.1))
        bpy.ops.rigidbody.object_add()
    wood(bpy.context.object, folder)
    short(scene.rigidbody_world.point_cache)


def cloth(folder):
    start()
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=12, y_subdivisions=12, size=3, location=(0, 0, 2))
    modifier = bpy.context.object.modifiers.new("Cloth", "CLOTH")
    short(modifier.point_cache)
    # Heavy cloth is often switched off where it is worked on, and rendered all the same.
    bpy.context.object.name = "Sheet"
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.7, location=(0, 0, 1))
    bpy.context.object.modifiers.new("Collision", "COLLISION")


def soft(folder):
    start()
    bpy.context.object.modifiers.new("Collision", "COLLISION")
    bpy.ops.mesh.primitive_uv_sphere_add(radius=1, location=(0, 0, 1.5), segments=12, ring_count=8)
    modifier = bpy.context.object.modifiers.new("Softbody", "SOFT_BODY")
    modifier.settings.use_goal = False
    short(modifier.point_cache)


def hair(folder):
    start()
    bpy.ops.mesh.primitive_plane_add(size=2, location=(0, 0, 2.5))
    thing = bpy.context.object
    thing.modifiers.new("Hair", "PARTICLE_SYSTEM")
    system = thing.particle_systems[0]
    system.settings.type, system.settings.count, system.settings.hair_length = "HAIR", 40, 1
    system.use_hair_dynamics = True
    system.cloth.settings.bending_stiffness = 0.01
    move(thing, -1.5, 1.5)
    short(system.point_cache)


def waves(folder):
    """Dynamic paint, whose cache lies beside the file."""
    start()
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=20, y_subdivisions=20, size=4, location=(0, 0, 0.5))
    canvas = bpy.context.object.modifiers.new("Canvas", "DYNAMIC_PAINT")
    bpy.ops.dpaint.type_toggle(type="CANVAS")
    surface = canvas.canvas_settings.canvas_surfaces[0]
    surface.surface_type, surface.frame_end = "WAVE", LAST
    short(surface.point_cache)
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.5, location=(0, 0, 0.5))
    brush = bpy.context.object
    brush.modifiers.new("Brush", "DYNAMIC_PAINT")
    bpy.ops.dpaint.type_toggle(type="BRUSH")
    for frame, place in ((1, -1.5), (LAST, 1.5)):
        brush.location.x = place
        brush.keyframe_insert("location", frame=frame)


def liquid(folder):
    """A domain that bakes while it plays, into a folder that the machine does not have."""
    start()
    bpy.ops.mesh.primitive_cube_add(size=4, location=(0, 0, 2))
    domain = bpy.context.object.modifiers.new("Fluid", "FLUID")
    domain.fluid_type = "DOMAIN"
    settings = domain.domain_settings
    settings.domain_type, settings.resolution_max, settings.use_mesh = "LIQUID", 16, True
    settings.cache_type, settings.cache_frame_end = "REPLAY", LAST
    settings.cache_directory = os.path.join(folder, "elsewhere", "cache_fluid")
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.6, location=(0, 0, 3))
    flow = bpy.context.object.modifiers.new("Fluid", "FLUID")
    flow.fluid_type = "FLOW"
    flow.flow_settings.flow_type = "LIQUID"


def nodes(folder):
    start()
    sliding_box(-2)


def late(folder):
    """The job goes on where the scene ends; nodes do not, also for who steps on."""
    nodes(folder)
    bpy.context.scene.frame_end = 6


def sliding_box(place):
    bpy.ops.mesh.primitive_cube_add(size=1, location=(place, 0, 1))
    tree = bpy.data.node_groups.new("Simulation", "GeometryNodeTree")
    for direction in ("INPUT", "OUTPUT"):
        tree.interface.new_socket("Geometry", in_out=direction, socket_type="NodeSocketGeometry")
    before, after = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    into, out = tree.nodes.new("GeometryNodeSimulationInput"), tree.nodes.new("GeometryNodeSimulationOutput")
    into.pair_with_output(out)
    move = tree.nodes.new("GeometryNodeSetPosition")
    move.inputs["Offset"].default_value = (0.3, 0, 0.05)
    for one, other in (
        (before.outputs[0], into.inputs["Geometry"]),
        (into.outputs["Geometry"], move.inputs[0]),
        (move.outputs[0], out.inputs["Geometry"]),
        (out.outputs["Geometry"], after.inputs[0]),
    ):
        tree.links.new(one, other)
    box = bpy.context.object
    box.modifiers.new("Nodes", "NODES").node_group = tree
    return box


def move_to(collection, thing):
    for one in list(thing.users_collection):
        one.objects.unlink(thing)
    collection.objects.link(thing)


def instance(collection, into):
    empty = bpy.data.objects.new("Instance of " + collection.name, None)
    empty.instance_type, empty.instance_collection = "COLLECTION", collection
    into.objects.link(empty)
    return empty


def linked_wardrobe(folder):
    """A library's collection with cloth."""
    cloth(folder)
    sheet, wardrobe = bpy.data.objects["Sheet"], bpy.data.collections.new("Wardrobe")
    move_to(wardrobe, sheet)
    path = os.path.join(folder, "wardrobe.blend")
    bpy.data.libraries.write(path, {wardrobe}, fake_user=True)
    bpy.data.objects.remove(sheet)
    bpy.data.collections.remove(wardrobe)
    # A relative name needs a place to start from.
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, os.path.basename(folder) + ".blend"))
    with bpy.data.libraries.load(path, link=True, relative=True) as (_, there):
        there.collections = ["Wardrobe"]
    return bpy.data.collections["Wardrobe"]


def crowd(folder):
    """Cloth, and boxes that move by nodes, in a collection that is in the scene through another's empty alone."""
    cloth(folder)
    inner, outer = bpy.data.collections.new("Inner"), bpy.data.collections.new("Outer")
    move_to(inner, bpy.data.objects["Sheet"])
    instance(inner, outer)
    # Hidden where it is worked on.
    instance(outer, bpy.context.scene.collection).hide_viewport = True
    if NEW:
        for place in (-2, -3):
            box = sliding_box(place)
            move_to(inner if place == -2 else bpy.context.scene.collection, box)


def costume(folder):
    """Cloth of a library, overridden here: the file itself keeps no frames of it."""
    wardrobe, scene = linked_wardrobe(folder), bpy.context.scene
    wardrobe.override_hierarchy_create(scene, scene.view_layers[0])


def sheet(place):
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=12, y_subdivisions=12, size=2, location=place)
    made = bpy.context.object
    short(made.modifiers.new("Cloth", "CLOTH").point_cache)
    return made


def rain(folder):
    """Particles that meet a floor, and a flock: none of them falls freely."""
    start()
    bpy.context.object.modifiers.new("Collision", "COLLISION")
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.15, location=(0, 90, 0), segments=8, ring_count=6)
    drop = bpy.context.object
    for place in (-1.5, 1.5):
        bpy.ops.mesh.primitive_plane_add(size=2, location=(place, 0, 0.6))
        emitter = bpy.context.object
        emitter.show_instancer_for_render = False
        emitter.modifiers.new("Rain", "PARTICLE_SYSTEM")
        settings = emitter.particle_systems[0].settings
        settings.count, settings.frame_start, settings.frame_end = 30, 1, 4
        settings.render_type, settings.instance_object, settings.particle_size = "OBJECT", drop, 1
        settings.physics_type = "NEWTON" if place < 0 else "BOIDS"
        settings.normal_factor = -3 if place < 0 else 1
        short(emitter.particle_systems[0].point_cache)


def sprays(folder):
    """Particles that fall freely, from emitters whose earlier frames Blender does not look up: moved by a constraint, changed
    in shape, thrown harder from frame to frame, and thrown by the emitter's own speed."""
    start()
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.15, location=(0, 90, 0), segments=8, ring_count=6)
    drop = bpy.context.object
    guide = bpy.data.objects.new("Guide", None)
    bpy.context.scene.collection.objects.link(guide)
    guide.location.z = 2
    move(guide, -3, 0)
    emitters = []
    for place in (-3, -1, 1, 3):
        bpy.ops.mesh.primitive_plane_add(size=0.5, location=(place, 0, 2))
        emitters.append(bpy.context.object)
        emitters[-1].show_instancer_for_render = False
        emitters[-1].modifiers.new("Spray", "PARTICLE_SYSTEM")
        system = emitters[-1].particle_systems[0]
        settings = system.settings
        settings.count, settings.frame_start, settings.frame_end = 20, 1, 9
        settings.render_type, settings.instance_object, settings.particle_size = "OBJECT", drop, 1
        short(system.point_cache)
    moved, shaped, thrown, fast = emitters
    moved.constraints.new("COPY_LOCATION").target = guide
    shaped.shape_key_add(name="Small")
    wide = shaped.shape_key_add(name="Wide")
    for point in wide.data:
        point.co *= 3
    for frame, value in ((1, 0), (9, 1)):
        wide.value = value
        wide.keyframe_insert("value", frame=frame)
        settings = thrown.particle_systems[0].settings
        settings.normal_factor = 5 * value
        settings.keyframe_insert("normal_factor", frame=frame)
    fast.particle_systems[0].settings.object_factor = 1
    move(fast, 3, 1)


def aside(*things):
    """A collection that is in no scene."""
    made = bpy.data.collections.new("Aside")
    made.use_fake_user = True
    for thing in things:
        move_to(made, thing)
    return made


def puppet(folder):
    """Cloth that nobody sees, and that moves what everybody sees: one in the scene, one in no scene at all."""
    start()
    hidden = sheet((-1.5, 0, 2))
    hidden.vertex_groups.new(name="Pin").add(list(range(12)), 1, "REPLACE")
    hidden.modifiers["Cloth"].settings.vertex_group_mass = "Pin"
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=6, y_subdivisions=6, size=1.8, location=(-1.5, 0, 2))
    skin = bpy.context.object
    skin.modifiers.new("Skin", "SURFACE_DEFORM").target = hidden
    bpy.ops.object.surfacedeform_bind(modifier="Skin")
    assert skin.modifiers["Skin"].is_bound
    hidden.hide_render = hidden.hide_viewport = True
    other = sheet((1.5, 0, 2))
    aside(other)
    bpy.ops.mesh.primitive_cube_add(size=1, location=(1.5, 0, 1.6))
    bpy.context.object.modifiers.new("Wrap", "SHRINKWRAP").target = other


def swarm(folder):
    """What particles and nodes show again and again is in the scene through them alone."""
    start()
    bpy.ops.mesh.primitive_uv_sphere_add(radius=1, segments=12, ring_count=8)
    jelly = bpy.context.object
    modifier = jelly.modifiers.new("Softbody", "SOFT_BODY")
    modifier.settings.use_goal = False
    short(modifier.point_cache)
    bpy.ops.mesh.primitive_plane_add(size=3, location=(0, 0, 4))
    emitter = bpy.context.object
    emitter.modifiers.new("Hair", "PARTICLE_SYSTEM")
    settings = emitter.particle_systems[0].settings
    settings.type, settings.count, settings.particle_size = "HAIR", 5, 0.4
    settings.render_type, settings.instance_collection = "COLLECTION", aside(jelly)
    shown = [sheet((0, 0, 2))]
    if NEW:
        shown.append(sliding_box(-2))
    tree = bpy.data.node_groups.new("Shows", "GeometryNodeTree")
    if NEW:
        tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    else:
        tree.outputs.new("NodeSocketGeometry", "Geometry")
    info, out = tree.nodes.new("GeometryNodeCollectionInfo"), tree.nodes.new("NodeGroupOutput")
    info.inputs["Collection"].default_value = aside(*shown)
    tree.links.new(info.outputs[0], out.inputs[0])
    bpy.ops.mesh.primitive_plane_add()
    bpy.context.object.modifiers.new("Nodes", "NODES").node_group = tree


def carried(folder):
    """Rigid bodies that nobody sees, by a constraint and a driver; and one of a library, whose frames are kept here."""
    rigid(folder)
    scene = bpy.context.scene
    bodies = scene.rigidbody_world.collection.objects
    rock, *hidden = [body for body in bodies if body.rigid_body.type == "ACTIVE"]
    bpy.ops.mesh.primitive_cube_add(size=1, location=(-1, 0, 5))
    bpy.ops.rigidbody.object_add()
    hidden.append(bpy.context.object)
    for number, body in enumerate(hidden):
        body.hide_render = True
        bpy.ops.mesh.primitive_cube_add(size=1, location=(-3, 0, 1))
        follower = bpy.context.object
        if number:
            follower.constraints.new("COPY_TRANSFORMS").target = body
            continue
        variable = follower.driver_add("location", 2).driver.variables.new()
        variable.type, variable.targets[0].id, variable.targets[0].transform_type = "TRANSFORMS", body, "LOC_Z"
        follower.animation_data.drivers[0].driver.type = "SUM"
    rock.name = "Rock"
    path = os.path.join(folder, "rocks.blend")
    bpy.data.libraries.write(path, {rock})
    bpy.data.objects.remove(rock)
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "carried.blend"))
    with bpy.data.libraries.load(path, link=True, relative=True) as (_, there):
        there.objects = ["Rock"]
    rock = bpy.data.objects["Rock"]
    scene.collection.objects.link(rock)
    if rock not in set(bodies):
        bodies.link(rock)


def linked(folder):
    """Cloth that belongs to another file."""
    cloth(folder)
    sheet = bpy.data.objects["Sheet"]
    path = os.path.join(folder, "wardrobe.blend")
    bpy.data.libraries.write(path, {sheet})
    bpy.data.objects.remove(sheet)
    with bpy.data.libraries.load(path, link=True, relative=True) as (_, there):
        there.objects = ["Sheet"]
    bpy.context.scene.collection.objects.link(bpy.data.objects["Sheet"])


def library(folder):
    """The same, through an empty."""
    wardrobe = linked_wardrobe(folder)
    instance(wardrobe, bpy.context.scene.collection)


def still(folder):
    """Nothing to bake: what moves does not show, and nothing that shows looks at it."""
    start()
    sheet((0, 0, 2)).hide_render = True
    aside(sheet((0, 0, 2)))


def long(folder):
    """Cloth that takes minutes."""
    start()
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=150, y_subdivisions=150, size=3, location=(0, 0, 2))
    modifier = bpy.context.object.modifiers.new("Cloth", "CLOTH")
    modifier.settings.quality = 20
    modifier.point_cache.frame_end = 1000


BUILT = [rigid, cloth, soft, hair, waves, crowd, costume, puppet, swarm, carried, rain, sprays, linked, library, still,
         long]
if NEW:
    BUILT.extend((nodes, late))
if not MODULE:
    BUILT.append(liquid)


def chosen(names):
    import bakes_seldom

    every = BUILT + bakes_seldom.BUILT
    return [make for make in every if make.__name__ in names] if names else BUILT


def build(target, *names):
    for make in chosen(names):
        folder = os.path.join(target, make.__name__)
        os.makedirs(folder)
        make(folder)
        path = os.path.join(folder, make.__name__ + ".blend")
        bpy.ops.wm.save_as_mainfile(filepath=path, relative_remap=False)
        print("built", make.__name__, flush=True)


def press_bake(thing):
    """Hair is drawn in another way once its cache counts as baked: there the person has pressed the button."""
    cache = thing.particle_systems[0].point_cache
    with bpy.context.temp_override(object=thing, active_object=thing, point_cache=cache):
        bpy.ops.ptcache.bake(bake=True)


def step(source, out, *names):
    """Renders the frames that are looked at on the way through all of them."""
    import bakes_seldom

    for make in chosen(names):
        name = make.__name__
        if name in ("linked", "library", "still", "long"):
            continue
        bpy.ops.wm.open_mainfile(filepath=os.path.join(source, name, name + ".blend"), load_ui=False)
        scene = bpy.context.scene
        if name == "hair":
            press_bake(bpy.data.objects["Plane.001"])
        bakes_seldom.by_hand(name, scene)
        for thing in scene.objects:
            # Who steps through a simulation looks at it.
            thing.hide_viewport = False
        for frame in range(1, max(SHOWN) + 1):
            scene.frame_set(frame)
            if frame in SHOWN:
                scene.render.filepath = os.path.join(out, f"{name}_{frame}.png")
                bpy.ops.render.render(write_still=True)


def main():
    try:
        sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
        verb, *rest = sys.argv[sys.argv.index("--") + 1 :]
        {"build": build, "step": step}[verb](*rest)
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    main()
