"""Files in which what shows depends on what does not: the part of truth.py that is about simulations."""

import bpy

from truth import active, fresh, path_of, rigid, save, short, thing


def instance(collection, into, hidden=False):
    made = bpy.data.objects.new("Instance of " + collection.name, None)
    made.instance_type, made.instance_collection, made.hide_render = "COLLECTION", collection, hidden
    into.objects.link(made)
    return made


def cloth(name, into, hidden=False):
    made = thing(name, into)
    short(made.modifiers.new("Cloth", "CLOTH").point_cache)
    made.hide_render = hidden
    return made


def brought(library, name, relative=True):
    with bpy.data.libraries.load(path_of(library), link=True, relative=relative) as (_, there):
        there.collections = [name]
    return bpy.data.collections[name]


def instances():
    """Simulations that are in a scene through empties alone, of this file and of libraries of libraries."""
    scene = fresh()
    deepest, deep, far = (bpy.data.collections.new(name) for name in ("Deepest", "Deep", "Far"))
    cloth("Cape", deepest)
    cloth("Proxy", deepest, hidden=True)
    instance(deepest, far)
    far.children.link(deep)
    thing("Jelly", deep).modifiers.new("Soft", "SOFT_BODY")
    cloth("Lonely", scene.collection)
    for collection in (far, deepest):
        collection.use_fake_user = True
    save("wardrobe")
    scene = fresh()
    save("house")
    house = bpy.data.collections.new("House")
    house.use_fake_user = True
    instance(brought("wardrobe", "Far"), house)
    cloth("Curtain", house)
    save("house")
    scene = fresh()
    save("instances")
    second = bpy.data.scenes.new("Second")
    third = bpy.data.scenes.new("Third")
    empty = bpy.data.scenes.new("Hidden")
    own, inner = bpy.data.collections.new("Own"), bpy.data.collections.new("Inner")
    cloth("Flag", inner)
    instance(inner, own)
    instance(own, scene.collection)
    instance(own, empty.collection, hidden=True)
    # It stands for nothing any longer, and still names the collection.
    off = instance(own, empty.collection)
    off.instance_type = "NONE"
    instance(brought("house", "House"), scene.collection)
    second.collection.children.link(bpy.data.collections["House"])
    with bpy.data.libraries.load(path_of("wardrobe"), link=True, relative=False) as (_, there):
        there.objects = ["Lonely", "Proxy"]
    for made in there.objects:
        third.collection.objects.link(made)
    save("instances", compress=True)


def reads(made, other):
    """A driver of an object that reads another's transform."""
    curve = made.driver_add("location", 2)
    variable = curve.driver.variables.new()
    variable.type, variable.targets[0].id = "TRANSFORMS", other


def showing(name, *, collection=None, thing=None):
    """A tree of nodes that shows a collection, or an object that its modifier names."""
    tree = bpy.data.node_groups.new(name, "GeometryNodeTree")
    out = tree.nodes.new("NodeGroupOutput")
    sockets = [("OUTPUT", "NodeSocketGeometry")] + ([("INPUT", "NodeSocketObject")] if thing else [])
    for direction, kind in sockets:
        if hasattr(tree, "interface"):
            tree.interface.new_socket(kind, in_out=direction, socket_type=kind)
        else:
            (tree.outputs if direction == "OUTPUT" else tree.inputs).new(kind, kind)
    info = tree.nodes.new("GeometryNodeCollectionInfo" if collection else "GeometryNodeObjectInfo")
    if collection:
        info.inputs["Collection"].default_value = collection
    else:
        before = tree.nodes.new("NodeGroupInput")
        tree.links.new(before.outputs[0], info.inputs["Object"])
    tree.links.new(info.outputs["Geometry" if thing else 0], out.inputs[0])
    return tree


def driving():
    """What does not show, and moves what does: by every kind of pointer that Blender has for it; and what does not."""
    scene = fresh()
    into, second = scene.collection, bpy.data.scenes.new("Second")
    aside = bpy.data.collections.new("Aside")
    aside.use_fake_user = True

    def hidden(name, where=into):
        return cloth(name, where, hidden=where == into)

    shown = thing("Shown", into)
    for name in ("Idle", "Idle too"):
        hidden(name, into if name == "Idle" else aside)
    for kind, field in (("SHRINKWRAP", "target"), ("SURFACE_DEFORM", "target"), ("BOOLEAN", "object"),
                        ("DATA_TRANSFER", "object"), ("MESH_DEFORM", "object"), ("HOOK", "object"), ("CAST", "object")):
        setattr(shown.modifiers.new(kind, kind), field, hidden(kind.capitalize(), aside if kind == "BOOLEAN" else into))
    # From one to the next.
    frame = bpy.data.objects.new("Frame", bpy.data.lattices.new("Frame"))
    into.objects.link(frame)
    frame.hide_render = True
    short(frame.modifiers.new("Soft", "SOFT_BODY").point_cache)
    shown.modifiers.new("Lattice", "LATTICE").object = frame
    middle = bpy.data.objects.new("Middle", None)
    into.objects.link(middle)
    middle.hide_render = True
    middle.parent = hidden("Deep")
    shown.constraints.new("COPY_LOCATION").target = middle
    reads(shown, hidden("Driver"))
    shown["friend"] = hidden("Property")
    thing("Child", into).parent = hidden("Parent")
    # By the shape of a curve, by a material, by the keys of a shape.
    bevel = bpy.data.objects.new("Bevel", bpy.data.curves.new("Bevel", "CURVE"))
    aside.objects.link(bevel)
    short(bevel.modifiers.new("Soft", "SOFT_BODY").point_cache)
    pipe = bpy.data.curves.new("Pipe", "CURVE")
    pipe.bevel_mode, pipe.bevel_object = "OBJECT", bevel
    into.objects.link(bpy.data.objects.new("Pipe", pipe))
    material = bpy.data.materials.new("Paint")
    material.use_nodes = True
    material.node_tree.nodes.new("ShaderNodeTexCoord").object = hidden("Painter")
    shown.data.materials.append(material)
    shown.shape_key_add(name="Basis")
    curve = shown.shape_key_add(name="Key").driver_add("value")
    variable = curve.driver.variables.new()
    variable.type, variable.targets[0].id = "TRANSFORMS", hidden("Shaper")
    # By particles and nodes.
    for name, field in (("Swarm", "instance_object"), ("Crowd", "instance_collection")):
        emitter = thing(name, into)
        emitter.modifiers.new("P", "PARTICLE_SYSTEM")
        emitter.particle_systems[0].settings.type = "HAIR"
        collection = bpy.data.collections.new(name)
        copied = cloth("Of the " + name, collection)
        setattr(emitter.particle_systems[0].settings, field, copied if field == "instance_object" else collection)
        collection.use_fake_user = True
    inside = bpy.data.collections.new("Inside")
    cloth("Of nodes", inside, hidden=True)
    thing("Nodes", into).modifiers.new("Nodes", "NODES").node_group = showing("Collection", collection=inside)
    modifier = thing("Input", into).modifiers.new("Nodes", "NODES")
    modifier.node_group = showing("Object", thing=True)
    identifiers = [key for key in modifier.keys() if key.endswith(("_2", "_1", "_0")) and "use_" not in key]
    modifier[identifiers[0]] = hidden("Of an input")
    # What the scene looks through, hidden or not.
    for number, holder in enumerate(("Watching", "Marking", "Waiting")):
        camera = bpy.data.objects.new(holder, bpy.data.cameras.new(holder))
        into.objects.link(camera)
        camera.hide_render, camera.parent = number > 0, hidden(f"Carries {holder}")
        if holder == "Watching":
            scene.camera = camera
        elif holder == "Marking":
            scene.timeline_markers.new("cut", frame=3).camera = camera
    scene.driver_add("gravity", 0).driver.variables.new().targets[0].id = hidden("Pulls")
    scene.world = bpy.data.worlds.new("Sky")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes.new("ShaderNodeTexCoord").object = hidden("Lights")
    second.collection.objects.link(bpy.data.objects["Shrinkwrap"])
    # An empty may name a collection that it does not stand for, and be needed by what shows.
    unused = bpy.data.collections.new("Unused")
    cloth("Not shown", unused)
    off = instance(unused, into)
    off.instance_type = "NONE"
    held_stage = instance(bpy.data.collections.new("Stage"), into, hidden=True)
    cloth("Behind", held_stage.instance_collection)
    cloth("Behind, hidden", held_stage.instance_collection, hidden=True)
    shown.constraints.new("COPY_ROTATION").target = held_stage
    shown.constraints.new("COPY_SCALE").target = off
    save("driving")
    # The same from another file, and over it.
    scene = fresh()
    muscles = bpy.data.collections.new("Muscles")
    muscles.use_fake_user = True
    thing("Skin", muscles).modifiers.new("S", "SHRINKWRAP").target = cloth("Muscle", muscles, hidden=True)
    cloth("Spare muscle", muscles, hidden=True)
    mesh = thing("Mesh's", muscles)
    mesh.data.materials.append(bpy.data.materials.new("Wet"))
    wet = mesh.data.materials[0]
    wet.use_nodes = True
    wet.node_tree.nodes.new("ShaderNodeTexCoord").object = cloth("Wets", scene.collection)
    ball = thing("Ball", muscles)
    rigid(scene, [(ball, "ACTIVE", True, False)])
    save("muscles")
    scene = fresh()
    save("driven")
    there = brought("muscles", "Muscles")
    third = bpy.data.scenes.new("Third")
    instance(there, scene.collection)
    with bpy.data.libraries.load(path_of("muscles"), link=True) as (_, to):
        to.materials = ["Wet"]
    thing("Own", third.collection).data.materials.append(to.materials[0])
    fourth = bpy.data.scenes.new("Fourth")
    bpy.context.window.scene = fourth
    bpy.ops.rigidbody.world_add()
    fourth.rigidbody_world.collection = bpy.data.collections.new("Bodies")
    fourth.rigidbody_world.collection.objects.link(bpy.data.objects["Ball"])
    fourth.collection.objects.link(bpy.data.objects["Ball"])
    save("driven")


def overridden():
    """What an override was made from is not drawn."""
    scene = fresh()
    save("overridden")
    brought("muscles", "Muscles").override_hierarchy_create(scene, scene.view_layers[0])
    save("overridden")


SPARKS = dict(
    plain={}, exact=dict(integrator="RK4"), rough=dict(integrator="EULER"), old=dict(integrator="VERLET"),
    shaken=dict(brownian_factor=1), slowed=dict(drag_factor=0.5), damped=dict(damping=0.5),
    flock=dict(physics_type="BOIDS"), drops=dict(physics_type="FLUID"), keyed=dict(physics_type="KEYED"),
    still=dict(physics_type="NO"),
)


def sparks(name, push):
    scene = fresh()
    for kind, fields in SPARKS.items():
        emitter = thing(kind, scene.collection)
        emitter.modifiers.new("Sparks", "PARTICLE_SYSTEM")
        for field, value in fields.items():
            setattr(emitter.particle_systems[0].settings, field, value)
        short(emitter.particle_systems[0].point_cache)
    push(thing("Pushes", scene.collection))
    save(name)


def sparks_free():
    sparks("sparks free", lambda one: None)


def sparks_stopped():
    sparks("sparks stopped", lambda one: one.modifiers.new("Collision", "COLLISION"))


def sparks_blown():
    def wind(one):
        active(bpy.context.scene, one)
        bpy.ops.object.forcefield_toggle()

    sparks("sparks blown", wind)


def key(holder, path, *values):
    """In the first frames, and back again."""
    was = getattr(holder, path)
    for frame, value in enumerate((*values, was), 1):
        setattr(holder, path, value)
        holder.keyframe_insert(path, frame=frame)


def follow(one):
    one.constraints.new("COPY_LOCATION").mute = True


def on_a_bone(one):
    armature = bpy.data.objects.new("Rig", bpy.data.armatures.new("Rig"))
    bpy.context.scene.collection.objects.link(armature)
    one.parent, one.parent_type = armature, "BONE"


def on_a_curve(one):
    one.parent = bpy.data.objects.new("Path", bpy.data.curves.new("Path", "CURVE"))
    bpy.context.scene.collection.objects.link(one.parent)


def child(one, change=lambda parent: None):
    one.parent = bpy.data.objects.new("Parent", None)
    bpy.context.scene.collection.objects.link(one.parent)
    change(one.parent)


def textured(one):
    one.particle_systems[0].settings.texture_slots.add().texture = bpy.data.textures.new("Clouds", "CLOUDS")


def weighed(one):
    active(bpy.context.scene, one)
    bpy.ops.rigidbody.object_add(type="PASSIVE")



# All emit what falls freely. The first six are right in any frame.
EMITTERS = {
    "unmoved": lambda one: None,
    "moves": lambda one: key(one, "location", (1, 0, 0)),
    "child": child,
    "grandchild that moves": lambda one: child(one, lambda parent: child(parent, lambda far: key(far, "scale", (2, 2, 2)))),
    "subdivided": lambda one: one.modifiers.new("Smooth", "SUBSURF"),
    "shown later": lambda one: key(one.modifiers[0], "show_render", False),
    "guided": follow,
    "driven": lambda one: one.driver_add("location", 0),
    "child of one that is guided": lambda one: child(one, follow),
    "on a bone": on_a_bone,
    "on a curve": on_a_curve,
    "in the world of bodies": weighed,
    "shaped": lambda one: one.shape_key_add(name="Basis"),
    "mesh keyed": lambda one: one.data.vertices[0].keyframe_insert("co", frame=1),
    "waves": lambda one: one.modifiers.new("Wave", "WAVE"),
    "modifier keyed": lambda one: key(one.modifiers.new("Round", "BEVEL"), "width", 1),
    "thrown harder": lambda one: key(one.particle_systems[0].settings, "normal_factor", 5),
    "textured": textured,
    "early": lambda one: setattr(one.particle_systems[0].settings, "frame_start", 0.5),
    "fast": lambda one: setattr(one.particle_systems[0].settings, "object_factor", 1),
}


def emitters(name="emitters"):
    scene = fresh()
    bpy.ops.rigidbody.world_add()
    for kind, change in EMITTERS.items():
        emitter = thing(kind, scene.collection)
        emitter.modifiers.new("Sparks", "PARTICLE_SYSTEM")
        short(emitter.particle_systems[0].point_cache)
        change(emitter)
    save(name)
    return scene


def blurred():
    emitters("blurred").render.use_motion_blur = True
    save("blurred")


def heavier_and_heavier():
    key(emitters("heavier and heavier"), "gravity", (0, 0, 1))
    save("heavier and heavier")


MAKERS = [sparks_free, sparks_stopped, sparks_blown, emitters, blurred, heavier_and_heavier, instances, driving, overridden]
