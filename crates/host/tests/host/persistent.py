"""The scenes of persistent.rs, by Debian's Blender: `persistent.py FOLDER SCENE ...`.

Each is wrong with persistent data alone. In `images`, one cell of the picture belongs to each way in which an image that
moves can be used; the names of the cells lie beside it."""

import math
import os
import struct
import sys
import zlib

import bpy

CELL, COLUMNS, FRAMES = 6, 6, 12


def start(size=(48, 36), samples=2):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising, scene.cycles.use_adaptive_sampling = samples, False, False
    scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = *size, 100
    scene.render.filepath = "//frames/shot_"
    scene.frame_start, scene.frame_end = 1, FRAMES
    scene.world = bpy.data.worlds.new("World")
    return scene


def link(thing):
    bpy.context.scene.collection.objects.link(thing)
    return thing


def keys(block, path, values, index=-1):
    """The values at frames 1, 3 and 6, each until the next."""
    for frame, value in zip((1, 3, 6), values):
        where, _, name = path.rpartition(".")
        setattr(block.path_resolve(where) if where else block, name, value)
        block.keyframe_insert(path, frame=frame, index=index)


def stage():
    """A floor, a cube, a lamp and a camera."""
    scene = start()
    bpy.ops.mesh.primitive_plane_add(size=8)
    bpy.ops.mesh.primitive_cube_add(size=1.5, location=(0, 0, 1))
    cube = bpy.context.object
    bpy.ops.object.light_add(type="POINT", location=(2, -2, 4))
    bpy.context.object.data.energy = 300
    bpy.ops.object.camera_add(location=(5, -5, 4), rotation=(1.05, 0, math.pi / 4))
    scene.camera = bpy.context.object
    return scene, cube


def glow(thing=None, name="Glow"):
    """A material that shines; its tree and its Emission node."""
    made = bpy.data.materials.new(name)
    made.use_nodes = True
    tree = made.node_tree
    tree.nodes.clear()
    output, node = tree.nodes.new("ShaderNodeOutputMaterial"), tree.nodes.new("ShaderNodeEmission")
    tree.links.new(node.outputs[0], output.inputs[0])
    if thing:
        thing.data.materials.append(made)
    return made, tree, node


# -- images that move


def pictures(folder):
    """A numbered sequence, and a video of the same pictures without loss."""
    for frame in range(1, FRAMES + 1):
        row = b"\0" + bytes((20 * frame, 250 - 20 * frame, 37 * frame % 256)) * 16
        parts = b"\x89PNG\r\n\x1a\n"
        head = struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)
        for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(row * 16)), (b"IEND", b"")):
            parts += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        with open(os.path.join(folder, f"s_{frame:03}.png"), "wb") as file:
            file.write(parts)
    scene = start((16, 16))
    strip = scene.sequence_editor_create().sequences.new_image("S", os.path.join(folder, "s_001.png"), 1, 1)
    for frame in range(2, FRAMES + 1):
        strip.elements.append(f"s_{frame:03}.png")
    strip.frame_final_duration = FRAMES
    scene.view_settings.view_transform = "Raw"
    scene.render.image_settings.file_format = "FFMPEG"
    scene.render.ffmpeg.format, scene.render.ffmpeg.codec = "MKV", "FFV1"
    scene.render.filepath = os.path.join(folder, "video.mkv")
    bpy.ops.render.render(animation=True)


def socket(group, in_out, kind):
    """Gives a node group an input or an output."""
    if bpy.app.version >= (4, 0):
        group.interface.new_socket(kind, in_out=in_out, socket_type=f"NodeSocket{kind}")
    else:
        sockets = group.inputs if in_out == "INPUT" else group.outputs
        sockets.new(f"NodeSocket{kind}", kind)


class Cells:
    def __init__(self, folder):
        self.folder, self.names = folder, []
        self.scene = start(samples=1)
        self.scene.cycles.max_bounces, self.scene.cycles.pixel_filter_type = 0, "BOX"
        self.scene.view_settings.view_transform = "Raw"

    def place(self, name):
        at = len(self.names)
        self.names.append(name)
        return at % COLUMNS * 2 + 1.0, at // COLUMNS * 2 + 1.0, 0.0

    def plane(self, name, parts=1):
        bpy.ops.mesh.primitive_grid_add(x_subdivisions=parts, y_subdivisions=parts, size=1.7, location=self.place(name))
        return bpy.context.object

    def image(self, source):
        name = "s_001.png" if source == "SEQUENCE" else "video.mkv"
        image = bpy.data.images.load(os.path.join(self.folder, name))
        image.source, image.filepath = source, f"//{name}"
        return image

    def node(self, tree, source, kind="ShaderNodeTexImage", **settings):
        node = tree.nodes.new(kind)
        node.image = settings.pop("image", None) or self.image(source)
        show(node.image_user, **settings)
        return node

    def group(self, source, depth):
        """A node group that shows the image, in groups `depth` deep."""
        inner = None
        for level in range(depth + 1):
            group = bpy.data.node_groups.new(f"{source} {depth} {level}", "ShaderNodeTree")
            socket(group, "OUTPUT", "Color")
            if inner:
                node = group.nodes.new("ShaderNodeGroup")
                node.node_tree = inner
            else:
                node = self.node(group, source)
            group.links.new(node.outputs[0], group.nodes.new("NodeGroupOutput").inputs[0])
            inner = group
        return inner

    def shown(self, name, make):
        """A plane that shows what a node gives."""
        thing = self.plane(name)
        _, tree, emission = glow(thing, name)
        node = make(tree)
        tree.links.new(node.outputs[0], emission.inputs[0])
        return thing, tree, node

    def grouped(self, name, group):
        def make(tree):
            node = tree.nodes.new("ShaderNodeGroup")
            node.node_tree = group
            return node

        self.shown(name, make)

    def height(self, name):
        """A plane whose colour is the height of its points."""
        thing = self.plane(name, 4)
        _, tree, emission = glow(thing, name)
        place, scale = tree.nodes.new("ShaderNodeNewGeometry"), tree.nodes.new("ShaderNodeVectorMath")
        scale.operation, scale.inputs[1].default_value = "MULTIPLY", (0, 0, 1)
        tree.links.new(place.outputs["Position"], scale.inputs[0])
        tree.links.new(scale.outputs[0], emission.inputs[0])
        return thing, tree


def show(user, **settings):
    """Auto Refresh is off, as in every node that Blender makes."""
    user.frame_duration, user.frame_start = FRAMES, 1
    for name, value in settings.items():
        setattr(user, name, value)
    assert not user.use_auto_refresh


def library(folder):
    """Materials, groups and an object that another file links."""
    cells = Cells(folder)
    blocks = set()
    for source in ("SEQUENCE", "MOVIE"):
        made, tree, emission = glow(None, f"Linked {source}")
        tree.links.new(cells.node(tree, source).outputs[0], emission.inputs[0])
        group = cells.group(source, 0)
        group.name = f"Linked {source}"
        blocks |= {made, group}
    mesh = bpy.data.meshes.new("Linked")
    mesh.from_pydata([(-0.8, -0.8, 0), (0.8, -0.8, 0), (0.8, 0.8, 0), (-0.8, 0.8, 0)], [], [(0, 1, 2, 3)])
    thing = bpy.data.objects.new("Linked", mesh)
    _, tree, emission = glow(thing, "Linked")
    tree.links.new(cells.node(tree, "SEQUENCE").outputs[0], emission.inputs[0])
    made, tree, emission = glow(None, "Overridden")
    tree.links.new(cells.node(tree, "SEQUENCE").outputs[0], emission.inputs[0])
    bpy.data.libraries.write(os.path.join(folder, "library.blend"), blocks | {thing, made}, path_remap="RELATIVE_ALL")


def images(folder):
    pictures(folder)
    library(folder)
    cells = Cells(folder)
    with bpy.data.libraries.load(os.path.join(folder, "library.blend"), link=True) as (there, linked):
        linked.materials, linked.node_groups = there.materials, ["Linked SEQUENCE", "Linked MOVIE"]
        linked.objects = there.objects
    for source in ("SEQUENCE", "MOVIE"):
        cells.shown(f"material {source}", lambda tree: cells.node(tree, source))
        cells.shown(f"environment node {source}", lambda tree: cells.node(tree, source, "ShaderNodeTexEnvironment"))
        cells.shown(f"cyclic {source}", lambda tree: cells.node(tree, source, frame_duration=5, use_cyclic=True))
        cells.grouped(f"group {source}", cells.group(source, 0))
        cells.grouped(f"nested group {source}", cells.group(source, 2))
        cells.grouped(f"linked group {source}", bpy.data.node_groups[f"Linked {source}"])
        cells.plane(f"linked material {source}").data.materials.append(bpy.data.materials[f"Linked {source}"])
        same = cells.image(source)
        for offset in (0, 5):
            cells.shown(f"shared {offset} {source}", lambda tree: cells.node(tree, source, image=same, frame_offset=offset))
        _, tree, node = cells.shown(f"keyed {source}", lambda tree: cells.node(tree, source))
        for frame, offset in ((1, 0), (9, 3)):
            node.image_user.frame_offset = offset
            node.image_user.keyframe_insert("frame_offset", frame=frame)
        lamp = bpy.data.lights.new(source, "AREA")
        lamp.size, lamp.energy, lamp.use_nodes = 1.7, 30, True
        thing = link(bpy.data.objects.new(source, lamp))
        thing.location, thing.rotation_euler = cells.place(f"lamp {source}"), (math.pi, 0, 0)
        emission = lamp.node_tree.nodes["Emission"]
        lamp.node_tree.links.new(cells.node(lamp.node_tree, source).outputs[0], emission.inputs[0])
        thing, _ = cells.height(f"displace modifier {source}")
        texture = bpy.data.textures.new(source, "IMAGE")
        texture.image = cells.image(source)
        show(texture.image_user)
        modifier = thing.modifiers.new("Displace", "DISPLACE")
        modifier.texture, modifier.direction, modifier.mid_level = texture, "Z", 0
    cells.plane("overridden material").data.materials.append(bpy.data.materials["Overridden"].override_create())
    collection = bpy.data.collections.new("Linked")
    collection.objects.link(bpy.data.objects["Linked"])
    thing = link(bpy.data.objects.new("Instance", None))
    thing.instance_type, thing.instance_collection = "COLLECTION", collection
    thing.location = cells.place("linked object")
    _, tree = cells.height("displaced by the shader")
    made = bpy.data.materials["displaced by the shader"]
    owner = made if hasattr(made, "displacement_method") else made.cycles
    owner.displacement_method = "DISPLACEMENT"
    bump = tree.nodes.new("ShaderNodeDisplacement")
    bump.inputs["Midlevel"].default_value = 0
    tree.links.new(cells.node(tree, "SEQUENCE").outputs[0], bump.inputs["Height"])
    tree.links.new(bump.outputs[0], tree.nodes["Material Output"].inputs["Displacement"])
    thing = cells.plane("slot of the object")
    made, tree, emission = glow(None, "Slot")
    tree.links.new(cells.node(tree, "SEQUENCE").outputs[0], emission.inputs[0])
    thing.data.materials.append(None)
    thing.material_slots[0].link, thing.material_slots[0].material = "OBJECT", made
    thing = cells.plane("geometry nodes")
    _, tree, emission = glow(thing, "Attribute")
    attribute = tree.nodes.new("ShaderNodeAttribute")
    attribute.attribute_name = "shown"
    tree.links.new(attribute.outputs["Color"], emission.inputs[0])
    geometry_nodes(thing, cells.image("SEQUENCE"))
    cells.place("world")
    world = cells.scene.world
    world.use_nodes = True
    sky = cells.node(world.node_tree, "SEQUENCE", "ShaderNodeTexEnvironment")
    world.node_tree.links.new(sky.outputs[0], world.node_tree.nodes["Background"].inputs[0])
    rows = -(-len(cells.names) // COLUMNS)
    bpy.ops.object.camera_add(location=(COLUMNS, rows, 50))
    camera = cells.scene.camera = bpy.context.object
    camera.data.type, camera.data.ortho_scale = "ORTHO", max(COLUMNS, rows) * 2
    cells.scene.render.resolution_x, cells.scene.render.resolution_y = COLUMNS * CELL, rows * CELL
    with open(os.path.join(folder, "cells.txt"), "w", encoding="utf-8") as file:
        file.write("\n".join(cells.names))
    # What the artist chose is no reason to be wrong.
    cells.scene.render.use_persistent_data = True


def geometry_nodes(thing, image):
    group = bpy.data.node_groups.new("Geometry", "GeometryNodeTree")
    socket(group, "INPUT", "Geometry")
    socket(group, "OUTPUT", "Geometry")
    begin, end = group.nodes.new("NodeGroupInput"), group.nodes.new("NodeGroupOutput")
    texture, now = group.nodes.new("GeometryNodeImageTexture"), group.nodes.new("GeometryNodeInputSceneTime")
    store = group.nodes.new("GeometryNodeStoreNamedAttribute")
    store.data_type, store.inputs["Name"].default_value = "FLOAT_COLOR", "shown"
    texture.inputs["Image"].default_value = image
    value = next(one for one in store.inputs if one.name == "Value" and one.enabled)
    group.links.new(now.outputs["Frame"], texture.inputs["Frame"])
    group.links.new(texture.outputs[0], value)
    group.links.new(begin.outputs[0], store.inputs["Geometry"])
    group.links.new(store.outputs[0], end.inputs[0])
    thing.modifiers.new("Nodes", "NODES").node_group = group


# -- what is not kept


def handlers(folder):
    """Scripts that draw an image, write into a property that a driver reads, and add to what was there."""
    _, cube = stage()
    _, tree, emission = glow(cube)
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images.new("Drawn", 4, 4)
    tree.links.new(node.outputs[0], emission.inputs[0])
    cube["lift"] = 0.0
    driver = cube.driver_add("location", 2).driver
    variable = driver.variables.new()
    variable.targets[0].id, variable.targets[0].data_path, driver.expression = cube, '["lift"]', "var"
    text = bpy.data.texts.new("draw.py")
    text.write(
        "import bpy\n"
        "def draw(scene, *_):\n"
        "    frame = scene.frame_current\n"
        "    bpy.data.images['Drawn'].pixels[:] = [frame / 8, 0.2, 1 - frame / 8, 1] * 16\n"
        "    scene.objects['Cube']['lift'] = frame / 4\n"
        "    scene.objects['Cube'].location.x += 0.1\n"
        "bpy.app.handlers.frame_change_post.append(draw)\n"
    )
    text.use_module = True


def particles(folder):
    """They are born, fall, and die."""
    _, cube = stage()
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=1, location=(0, 0, -9))
    shown = bpy.context.object
    glow(shown)
    cube.modifiers.new("Emitter", "PARTICLE_SYSTEM")
    settings = cube.particle_systems[0].settings
    settings.count, settings.frame_start, settings.frame_end = 30, 1, 10
    settings.lifetime, settings.lifetime_random = 6, 0.5
    settings.render_type, settings.instance_object, settings.particle_size = "OBJECT", shown, 0.2


def itasc(folder):
    """A chain of bones whose pose depends on the pose before."""
    _, cube = stage()
    armature = bpy.data.armatures.new("Chain")
    chain = link(bpy.data.objects.new("Chain", armature))
    bpy.context.view_layer.objects.active = chain
    bpy.ops.object.mode_set(mode="EDIT")
    above = None
    for at in range(4):
        bone = armature.edit_bones.new(f"Bone{at}")
        bone.head, bone.tail, bone.parent = (0, 0.05 * (at % 2), at), (0, 0.05 * ((at + 1) % 2), at + 1), above
        above = bone
    bpy.ops.object.mode_set(mode="OBJECT")
    goal = link(bpy.data.objects.new("Goal", None))
    chain.pose.bones["Bone3"].constraints.new("IK").target = goal
    for frame, place in ((1, (0, 0, 4)), (6, (2, 0, 2)), (10, (-2, -1, 1))):
        goal.location = place
        goal.keyframe_insert("location", frame=frame)
    chain.pose.ik_solver = "ITASC"
    chain.pose.ik_param.mode = "SIMULATION"
    cube.parent, cube.parent_type, cube.parent_bone, cube.location = chain, "BONE", "Bone3", (0, 0, 0)


def rest(folder):
    """A posed bone that bends the cube; the armature goes to its rest position."""
    _, cube = stage()
    armature = bpy.data.armatures.new("Rig")
    rig = link(bpy.data.objects.new("Rig", armature))
    bpy.context.view_layer.objects.active = rig
    bpy.ops.object.mode_set(mode="EDIT")
    armature.edit_bones.new("Bone").tail = (0, 0, 1)
    bpy.ops.object.mode_set(mode="OBJECT")
    rig.pose.bones["Bone"].location = (1, 0.5, 0)
    cube.vertex_groups.new(name="Bone").add(range(len(cube.data.vertices)), 1, "ADD")
    cube.modifiers.new("Armature", "ARMATURE").object = rig
    keys(armature, "pose_position", ("POSE", "POSE", "REST"))


def simplify(folder):
    scene, cube = stage()
    cube.modifiers.new("Subdivision", "SUBSURF").render_levels = 3
    scene.render.use_simplify = True
    keys(scene, "render.simplify_subdivision_render", (0, 1, 3))


def shutter(folder):
    scene, cube = stage()
    scene.render.use_motion_blur = True
    keys(cube, "location", ((-1, 0, 1), (0, 0, 2), (1, 0, 1)))
    keys(scene, "render.motion_blur_shutter", (0.1, 1.0, 3.0))


def layer(folder):
    """One that leaves out all surfaces in one frame."""
    scene, _ = stage()
    keys(scene, f'view_layers["{scene.view_layers[0].name}"].use_solid', (True, True, False))


def hair(folder):
    """On something that moves."""
    _, cube = stage()
    cube.modifiers.new("Hair", "PARTICLE_SYSTEM")
    settings = cube.particle_systems[0].settings
    settings.type, settings.count, settings.hair_length, settings.root_radius = "HAIR", 80, 0.8, 8
    keys(cube, "location", ((-1, 0, 1), (0, 0, 2), (1, 0, 1)))


def cloth(folder):
    """Without a bake: it goes on from whatever frame was rendered before."""
    stage()
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=6, y_subdivisions=6, size=2, location=(0, 0, 3))
    bpy.context.object.modifiers.new("Cloth", "CLOTH")


def appear(folder):
    """Planes in one place: which of them is seen depends on the order in which Cycles got to know them."""
    stage()
    hidden = ((True, False, False), (False, True, False), (True, True, False), (False, False, True))
    for name, color, when in zip("zAmd", ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)), hidden):
        bpy.ops.mesh.primitive_plane_add(size=3, location=(0, 0, 2))
        thing = bpy.context.object
        thing.name = name
        glow(thing)[2].inputs[0].default_value = (*color, 1)
        keys(thing, "hide_render", when)


def main():
    target, *wanted = sys.argv[sys.argv.index("--") + 1 :]
    for build in map(globals().get, wanted):
        folder = os.path.join(target, build.__name__)
        os.makedirs(folder)
        build(folder)
        bpy.context.preferences.filepaths.save_version = 0
        bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, f"{build.__name__}.blend"), relative_remap=False)
    os._exit(0)


try:
    main()
except BaseException:
    import traceback

    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
