"""Builds one project with every kind of file that this Blender can make without a display.

blender -b --factory-startup --python elsewhere.py -- FOLDER [PROJECT [stamped]]   (or: python elsewhere.py ..., with bpy)

PROJECT is one made before by a Blender that can simulate smoke: its OpenVDB files are used where this one cannot.

With `stamped` the pictures of cut.blend show where it lies.

Writes FOLDER/shots/all.blend (one small picture in which each file leaves its mark), FOLDER/shots/cut.blend (the video
sequencer), and FOLDER/made.json: the kinds that are in them.
"""

import json
import math
import os
import struct
import sys

import bpy

arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
folder = os.path.abspath(arguments[0])
shots = os.path.join(folder, "shots")
os.makedirs(shots, exist_ok=True)
made = []


def place(*parts):
    path = os.path.join(folder, *parts)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def fresh():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 4
    scene.cycles.use_denoising = False
    scene.render.resolution_x, scene.render.resolution_y = 96, 64
    scene.render.resolution_percentage = 100
    scene.view_settings.view_transform = "Standard"
    scene.frame_start, scene.frame_end = 1, 3
    return scene


def picture(path, color, size=8):
    image = bpy.data.images.new("made", size, size)
    pixels = []
    for row in range(size):
        for column in range(size):
            shade = 1.0 if (row + column) % 2 else 0.4
            pixels += [color[0] * shade, color[1] * shade, color[2] * shade, 1.0]
    image.pixels = pixels
    image.filepath_raw = path
    image.file_format = "PNG"
    image.save()
    bpy.data.images.remove(image)
    return path


def relative(path):
    return bpy.path.relpath(path, start=shots)


CELL = [0]


def put(thing):
    """Into the next cell of a grid that the camera sees from above."""
    index = CELL[0]
    CELL[0] += 1
    thing.location = (index % 6 * 2 - 5, index // 6 * 2 - 3, 0)
    return thing


def plane(name):
    bpy.ops.mesh.primitive_plane_add(size=1.8)
    thing = bpy.context.object
    thing.name = name
    return put(thing)


def glowing(thing, color=(1, 1, 1, 1)):
    material = bpy.data.materials.new(thing.name)
    material.use_nodes = True
    nodes = material.node_tree.nodes
    nodes.clear()
    out = nodes.new("ShaderNodeOutputMaterial")
    emission = nodes.new("ShaderNodeEmission")
    emission.inputs["Color"].default_value = color
    material.node_tree.links.new(emission.outputs[0], out.inputs["Surface"])
    thing.data.materials.clear()
    thing.data.materials.append(material)
    return material, emission


def textured(thing, image):
    material, emission = glowing(thing)
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    material.node_tree.links.new(node.outputs["Color"], emission.inputs["Color"])
    return node


def kind(name):
    """What this Blender cannot make is left out, and said."""

    def run(make):
        before = set(bpy.data.objects)
        try:
            make()
            made.append(name)
        except Exception as error:  # noqa: BLE001
            print(f"not made: {name}: {error}", flush=True)
            for thing in set(bpy.data.objects) - before:
                bpy.data.objects.remove(thing)

    return run


# Libraries first: they are files of their own.
def library():
    scene = fresh()
    skin = picture(place("library", "textures", "Haut – кожа – 皮.png"), (0.9, 0.4, 0.1))
    bpy.ops.mesh.primitive_plane_add(size=1.8)
    thing = bpy.context.object
    thing.name = "inner"
    textured(thing, bpy.data.images.load(skin))
    bpy.ops.wm.save_as_mainfile(filepath=place("library", "deep", "inner.blend"), relative_remap=True)
    bpy.ops.file.make_paths_relative()
    bpy.ops.wm.save_mainfile()
    scene = fresh()
    with bpy.data.libraries.load(place("library", "deep", "inner.blend"), link=True) as (there, here):
        here.objects = ["inner"]
    collection = bpy.data.collections.new("asset")
    collection.objects.link(bpy.data.objects["inner"])
    scene.collection.children.link(collection)
    bpy.ops.wm.save_as_mainfile(filepath=place("library", "asset.blend"))
    bpy.ops.file.make_paths_relative()
    bpy.ops.wm.save_mainfile()


def rig():
    """What a shot changes after it has linked it."""
    scene = fresh()
    parts = bpy.data.collections.new("parts")
    scene.collection.children.link(parts)
    for at, name in ((3, "stays"), (5, "leaves")):
        bpy.ops.mesh.primitive_plane_add(size=1, location=(at, 3.7, 0))
        thing = bpy.context.object
        thing.name = name
        glowing(thing, (0.2, 0.2, 1, 1) if name == "stays" else (1, 0, 0, 1))
        part = bpy.data.collections.new(name)
        parts.children.link(part)
        for before in thing.users_collection:
            before.objects.unlink(thing)
        part.objects.link(thing)
    bpy.ops.object.armature_add()
    bpy.context.object.data.name = "bones"
    bpy.ops.wm.save_as_mainfile(filepath=place("elsewhere", "rig.blend"))


def movie(path):
    """Three frames of changing grey."""
    scene = fresh()
    scene.render.resolution_x = scene.render.resolution_y = 32
    scene.cycles.samples = 1
    world = bpy.data.worlds.new("grey")
    scene.world = world
    world.use_nodes = True
    shade = world.node_tree.nodes["Background"].inputs["Color"]
    for frame in (1, 2, 3):
        shade.default_value = (0.2 * frame, 0.1, 0.8 - 0.2 * frame, 1)
        shade.keyframe_insert("default_value", frame=frame)
    bpy.ops.object.camera_add()
    scene.camera = bpy.context.object
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "VIDEO"
    settings.file_format = "FFMPEG"
    scene.render.ffmpeg.format = "MPEG4"
    scene.render.filepath = path
    bpy.ops.render.render(animation=True)


def sound(path):
    import wave

    with wave.open(path, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(b"".join(struct.pack("<h", int(9000 * math.sin(i / 5))) for i in range(4000)))
    return path


library()
rig()
MOVIE = place("footage", "movie.mp4")
kind("movie")(lambda: movie(MOVIE))
has_movie = os.path.exists(MOVIE)
WAVE = sound(place("footage", "ton – صوت.wav"))

scene = fresh()
MAIN = os.path.join(shots, "all.blend")
bpy.ops.wm.save_as_mainfile(filepath=MAIN)
scene = bpy.context.scene
bpy.ops.object.camera_add(location=(0, 0, 20))
scene.camera = bpy.context.object
scene.camera.data.type = "ORTHO"
scene.camera.data.ortho_scale = 13


@kind("image, relative")
def _():
    path = picture(place("textures", "wood 木.png"), (0.6, 0.3, 0.1))
    textured(plane("image"), bpy.data.images.load(path)).image.filepath = relative(path)


@kind("image, absolute")
def _():
    path = picture(place("elsewhere", "absolute.png"), (0.1, 0.6, 0.3))
    textured(plane("absolute"), bpy.data.images.load(path)).image.filepath = path


@kind("image sequence")
def _():
    paths = [picture(place("textures", f"seq_{n:04}.png"), (0.3 * n, 0.2, 0.9)) for n in (1, 2, 3)]
    image = bpy.data.images.load(paths[0])
    image.source = "SEQUENCE"
    image.filepath = relative(paths[0])
    node = textured(plane("sequence"), image)
    node.image_user.frame_duration = 3
    node.image_user.use_auto_refresh = True


@kind("udim")
def _():
    for tile, color in ((1001, (1, 0, 0)), (1002, (0, 1, 0))):
        picture(place("textures", f"tiles.{tile}.png"), color)
    image = bpy.data.images.load(place("textures", "tiles.1001.png"))
    image.source = "TILED"
    if 1002 not in [tile.number for tile in image.tiles]:
        image.tiles.new(1002)
    image.filepath = relative(place("textures", "tiles.<UDIM>.png"))
    thing = plane("udim")
    textured(thing, image)
    for corner in thing.data.uv_layers[0].data:
        corner.uv[0] *= 2


if has_movie:

    @kind("movie as texture")
    def _():
        image = bpy.data.images.load(MOVIE)
        image.source = "MOVIE"
        image.filepath = relative(MOVIE)
        node = textured(plane("movie"), image)
        node.image_user.frame_duration = 3
        node.image_user.use_auto_refresh = True

    @kind("movie clip")
    def _():
        clip = bpy.data.movieclips.load(MOVIE)
        clip.filepath = relative(MOVIE)
        clip.use_fake_user = True


@kind("library in a library")
def _():
    path = place("library", "asset.blend")
    with bpy.data.libraries.load(path, link=True, relative=True) as (there, here):
        here.collections = ["asset"]
    thing = bpy.data.objects.new("linked", None)
    thing.instance_type = "COLLECTION"
    thing.instance_collection = bpy.data.collections["asset"]
    scene.collection.objects.link(put(thing))


@kind("library, absolute, changed in the shot")
def _():
    with bpy.data.libraries.load(place("elsewhere", "rig.blend"), link=True, relative=False) as (there, here):
        here.collections, here.armatures = ["parts"], ["bones"]
    parts = bpy.data.collections["parts"]
    scene.collection.children.link(parts)
    bpy.context.view_layer.layer_collection.children["parts"].children["leaves"].exclude = True
    bones = bpy.data.objects.new("posed", bpy.data.armatures["bones"])
    scene.collection.objects.link(bones)
    bpy.context.view_layer.update()
    bones.pose.bones[0].scale = (0.5, 1, 1)
    bones.pose.bones[0].constraints.new("LIMIT_ROTATION").use_limit_x = True
    held = plane("held")
    glowing(held, (1, 1, 0.5, 1))
    held.location.z -= 1  # the bone's tail
    held.parent, held.parent_type, held.parent_bone = bones, "BONE", bones.pose.bones[0].name


@kind("font")
def _():
    fonts = bpy.utils.system_resource("DATAFILES", path="fonts")
    found = [f for f in sorted(os.listdir(fonts)) if f.endswith((".ttf", ".woff2", ".otf"))] if fonts else []
    source = os.path.join(fonts, found[0]) if found else "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"
    path = place("fonts", "Schrift" + os.path.splitext(source)[1])
    with open(source, "rb") as read, open(path, "wb") as write:
        write.write(read.read())
    bpy.ops.object.text_add()
    thing = put(bpy.context.object)
    thing.data.body = "R"
    thing.data.size = 2
    thing.data.font = bpy.data.fonts.load(path)
    thing.data.font.filepath = relative(path)
    glowing(thing, (1, 1, 0, 1))


def waving():
    """Its points move, by more than a skeleton could say."""
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=6, y_subdivisions=6, size=1.8)
    thing = bpy.context.object
    wave = thing.modifiers.new("wave", "WAVE")
    wave.use_normal = False
    wave.use_x, wave.use_y = True, False
    wave.height, wave.width, wave.narrowness = 0.8, 0.5, 3
    thing.rotation_euler = (0.9, 0.4, 0)
    return thing


def imported(name, path, export, load):
    source = waving()
    source.name = name + " source"
    bpy.ops.object.select_all(action="DESELECT")
    source.select_set(True)
    export(path)
    bpy.data.objects.remove(source)
    before = set(bpy.data.objects)
    load(path)
    things = [thing for thing in set(bpy.data.objects) - before if thing.type == "MESH"]
    if not any(modifier.type == "MESH_SEQUENCE_CACHE" for modifier in things[0].modifiers):
        raise RuntimeError("the import has no cache")
    for cache in bpy.data.cache_files:
        if os.path.basename(cache.filepath) == os.path.basename(path):
            cache.filepath = relative(path)
    # The cache says where it is: it is moved by a parent.
    parent = bpy.data.objects.new(name + " place", None)
    scene.collection.objects.link(put(parent))
    things[0].parent = parent
    glowing(things[0], (0, 1, 1, 1))


@kind("alembic")
def _():
    imported(
        "alembic",
        place("caches", "wave.abc"),
        lambda path: bpy.ops.wm.alembic_export(filepath=path, selected=True, start=1, end=3),
        lambda path: bpy.ops.wm.alembic_import(filepath=path, as_background_job=False),
    )


@kind("usd")
def _():
    imported(
        "usd",
        place("caches", "wave.usdc"),
        lambda path: bpy.ops.wm.usd_export(filepath=path, selected_objects_only=True, export_animation=True),
        lambda path: bpy.ops.wm.usd_import(filepath=path),
    )


@kind("mesh cache")
def _():
    thing = plane("mesh cache")
    points = [vertex.co.copy() for vertex in thing.data.vertices]
    path = place("caches", "points.pc2")
    with open(path, "wb") as out:
        out.write(b"POINTCACHE2\0" + struct.pack("<iiffi", 1, len(points), 0.0, 1.0, 4))
        for sample in range(4):
            for point in points:
                out.write(struct.pack("<fff", point.x * (1 - 0.2 * sample), point.y, point.z))
    glowing(thing, (1, 0, 1, 1))
    modifier = thing.modifiers.new("cache", "MESH_CACHE")
    modifier.cache_format = "PC2"
    modifier.filepath = relative(path)


@kind("light profile")
def _():
    path = place("lights", "spot.ies")
    with open(path, "w") as out:
        out.write("IESNA:LM-63-2002\nTILT=NONE\n1 1000 1 5 1 1 2 0 0 0\n1 1 100\n0 22.5 45 67.5 90\n0\n1000 800 300 50 0\n")
    thing = plane("lit")
    material = bpy.data.materials.new("matte")
    thing.data.materials.append(material)
    data = bpy.data.lights.new("ies", "POINT")
    data.energy = 12
    data.use_nodes = True
    tree = data.node_tree
    node = tree.nodes.new("ShaderNodeTexIES")
    node.mode = "EXTERNAL"
    node.filepath = relative(path)
    emission = next(n for n in tree.nodes if n.bl_idname == "ShaderNodeEmission")
    tree.links.new(node.outputs["Fac"], emission.inputs["Strength"])
    light = bpy.data.objects.new("ies", data)
    scene.collection.objects.link(light)
    light.location = thing.location
    light.location.z = 1


@kind("point cache on disk")
def _():
    thing = plane("cloth")
    bpy.ops.object.mode_set(mode="EDIT")
    bpy.ops.mesh.subdivide(number_cuts=3)
    bpy.ops.object.mode_set(mode="OBJECT")
    glowing(thing, (0.5, 1, 0.2, 1))
    thing.rotation_euler = (0.6, 0.3, 0)
    modifier = thing.modifiers.new("cloth", "CLOTH")
    modifier.point_cache.frame_start, modifier.point_cache.frame_end = 1, 3
    modifier.settings.effector_weights.gravity = 4
    bpy.ops.wm.save_mainfile()
    modifier.point_cache.use_disk_cache = True
    with bpy.context.temp_override(object=thing, active_object=thing, point_cache=modifier.point_cache):
        bpy.ops.ptcache.bake(bake=True)
    if not os.path.isdir(os.path.join(shots, "blendcache_all")):
        raise RuntimeError("nothing was baked to the disk")


def smoke(thing):
    material = bpy.data.materials.new("smoke")
    material.use_nodes = True
    nodes = material.node_tree.nodes
    nodes.clear()
    out = nodes.new("ShaderNodeOutputMaterial")
    volume = nodes.new("ShaderNodeVolumePrincipled")
    volume.inputs["Emission Strength"].default_value = 1.0
    volume.inputs["Density"].default_value = 20.0
    material.node_tree.links.new(volume.outputs[0], out.inputs["Volume"])
    thing.data.materials.append(material)


@kind("fluid")
def _():
    if not bpy.app.binary_path:
        raise RuntimeError("the fluid solver of the wheels ends the process")
    bpy.ops.mesh.primitive_cube_add(size=1.6)
    domain = put(bpy.context.object)
    bpy.ops.mesh.primitive_uv_sphere_add(radius=0.4, location=domain.location)
    flow = bpy.context.object
    modifier = flow.modifiers.new("flow", "FLUID")
    modifier.fluid_type = "FLOW"
    modifier.flow_settings.flow_type = "SMOKE"
    modifier.flow_settings.flow_behavior = "INFLOW"
    flow.hide_render = True
    modifier = domain.modifiers.new("domain", "FLUID")
    modifier.fluid_type = "DOMAIN"
    settings = modifier.domain_settings
    settings.domain_type = "GAS"
    settings.resolution_max = 12
    settings.cache_frame_start, settings.cache_frame_end = 1, 3
    settings.cache_type = "ALL"
    settings.cache_directory = place("caches", "smoke", "")
    with bpy.context.temp_override(object=domain, active_object=domain):
        bpy.ops.fluid.bake_all()
    settings.cache_directory = relative(place("caches", "smoke", ""))
    smoke(domain)


@kind("volume sequence")
def _():
    grids = []
    for project in (folder, *arguments[1:]):
        for at, _, names in os.walk(os.path.join(project, "caches", "smoke")):
            grids += [os.path.join(at, name) for name in names if name.endswith(".vdb")]
    if not grids:
        raise RuntimeError("there is no OpenVDB file")
    for number, grid in enumerate(sorted(grids)[:3], 1):
        with open(grid, "rb") as read, open(place("volumes", f"puff_{number:04}.vdb"), "wb") as write:
            write.write(read.read())
    data = bpy.data.volumes.new("puff")
    data.filepath = relative(place("volumes", "puff_0001.vdb"))
    data.is_sequence = True
    data.frame_duration = 3
    thing = bpy.data.objects.new("puff", data)
    scene.collection.objects.link(put(thing))
    smoke(thing)


@kind("simulation nodes baked to the disk")
def _():
    if bpy.app.version < (4, 2, 0):
        raise RuntimeError("from 4.2 on")
    thing = plane("nodes")
    glowing(thing, (1, 0.5, 0.5, 1))
    tree = bpy.data.node_groups.new("sim", "GeometryNodeTree")
    tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    nodes, links = tree.nodes, tree.links
    first, last = nodes.new("NodeGroupInput"), nodes.new("NodeGroupOutput")
    begin, end = nodes.new("GeometryNodeSimulationInput"), nodes.new("GeometryNodeSimulationOutput")
    begin.pair_with_output(end)
    move = nodes.new("GeometryNodeSetPosition")
    move.inputs["Offset"].default_value = (0.15, 0, 0)
    links.new(first.outputs[0], begin.inputs["Geometry"])
    links.new(begin.outputs["Geometry"], move.inputs["Geometry"])
    links.new(move.outputs["Geometry"], end.inputs["Geometry"])
    links.new(end.outputs["Geometry"], last.inputs[0])
    modifier = thing.modifiers.new("sim", "NODES")
    modifier.node_group = tree
    modifier.bake_directory = relative(place("caches", "nodes", ""))
    if hasattr(modifier, "bake_target"):
        modifier.bake_target = "DISK"
    bpy.ops.wm.save_mainfile()
    bpy.ops.object.select_all(action="DESELECT")
    thing.select_set(True)
    bpy.context.view_layer.objects.active = thing
    bpy.ops.object.simulation_nodes_cache_bake(selected=True)
    if not any(names for _, _, names in os.walk(place("caches", "nodes", ""))):
        raise RuntimeError("nothing was baked to the disk")


@kind("sound")
def _():
    data = bpy.data.speakers.new("speaker")
    data.sound = bpy.data.sounds.load(WAVE)
    data.sound.filepath = relative(WAVE)
    scene.collection.objects.link(bpy.data.objects.new("speaker", data))


@kind("image in the compositor")
def _():
    if bpy.app.version >= (5, 0, 0):
        tree = bpy.data.node_groups.new("comp", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        scene.compositing_node_group = tree
        out = tree.nodes.new("NodeGroupOutput")
        mix = tree.nodes.new("CompositorNodeAlphaOver")
    else:
        scene.use_nodes = True
        tree = scene.node_tree
        tree.nodes.clear()
        out = tree.nodes.new("CompositorNodeComposite")
        mix = tree.nodes.new("CompositorNodeAlphaOver")
    layers = tree.nodes.new("CompositorNodeRLayers")
    image = tree.nodes.new("CompositorNodeImage")
    path = picture(place("textures", "stamp.png"), (0.2, 1.0, 0.9), 6)
    image.image = bpy.data.images.load(path)
    image.image.filepath = relative(path)
    pictures = [socket for socket in mix.inputs if socket.type == "RGBA"]
    tree.links.new(layers.outputs["Image"], pictures[0])
    tree.links.new(image.outputs["Image"], pictures[1])
    tree.links.new(mix.outputs[0], out.inputs[0])


scene.frame_set(1)
bpy.ops.wm.save_mainfile()

# The sequencer.
scene = fresh()
CUT = os.path.join(shots, "cut.blend")
bpy.ops.wm.save_as_mainfile(filepath=CUT)
scene = bpy.context.scene
editor = scene.sequence_editor_create()
strips = editor.strips if hasattr(editor, "strips") else editor.sequences
length = {"length": 2} if bpy.app.version >= (5, 0, 0) else {}


@kind("image strip")
def _():
    for n in (1, 2, 3):
        picture(place("footage", f"still_{n:04}.png"), (0.3 * n, 0.9, 0.1), 32)
    strip = strips.new_image("stills", relative(place("footage", "still_0001.png")), 1, 1)
    for n in (2, 3):
        strip.elements.append(f"still_{n:04}.png")
    strip.frame_final_duration = 3


if has_movie:

    @kind("movie strip")
    def _():
        strip = strips.new_movie("movie", relative(MOVIE), 2, 1)
        strip.transform.scale_x = strip.transform.scale_y = 0.5
        strip.blend_type = "ALPHA_OVER"


@kind("sound strip")
def _():
    strips.new_sound("sound", relative(WAVE), 3, 1)


if arguments[2:] == ["stamped"]:
    scene.render.use_stamp, scene.render.stamp_font_size = True, 8
    scene.render.use_stamp_date = scene.render.use_stamp_render_time = scene.render.use_stamp_memory = False
bpy.ops.wm.save_mainfile()
with open(os.path.join(folder, "made.json"), "w") as out:
    json.dump(made, out)
print("made:", ", ".join(made), flush=True)
sys.stdout.flush()
os._exit(0)
