"""Builds the scenes of unused.rs, each in a folder of its own: `blender -b --python unused.py -- FOLDER`."""

import math
import os
import struct
import sys
import zlib

import bpy

HEIGHT, WIDTH = 36, 64


def png(path, red, green, blue):
    """An 8x8 picture in one colour, with a darker corner."""
    rows = b""
    for y in range(8):
        rows += b"\0" + b"".join(
            bytes((red // 2, green // 2, blue // 2) if x < 3 and y < 3 else (red, green, blue)) for x in range(8)
        )

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)))
        file.write(chunk(b"IEND", b""))


def start(samples=2):
    """An empty Cycles scene with a moving cube, a floor, a lamp and a camera."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = samples
    scene.cycles.use_denoising = False
    scene.cycles.use_adaptive_sampling = False
    scene.render.resolution_x, scene.render.resolution_y = WIDTH, HEIGHT
    scene.render.resolution_percentage = 100
    scene.frame_start, scene.frame_end = 1, 8
    scene.render.filepath = "//frames/shot_"
    scene.world = bpy.data.worlds.new("World")
    bpy.ops.mesh.primitive_plane_add(size=8)
    bpy.ops.mesh.primitive_cube_add(size=1.5, location=(0, 0, 1))
    cube = bpy.context.object
    cube.name = "Cube"
    for frame, angle in ((1, 0.0), (40, 3.0)):
        cube.rotation_euler = (0.3, 0, angle)
        cube.keyframe_insert("rotation_euler", frame=frame)
    bpy.ops.object.light_add(type="SUN", rotation=(0.6, 0.3, 0))
    bpy.context.object.data.energy = 3
    bpy.ops.object.camera_add(location=(5, -5, 4), rotation=(1.05, 0, math.pi / 4))
    scene.camera = bpy.context.object
    return scene, cube


def material(cube):
    made = bpy.data.materials.new("Material")
    made.use_nodes = True
    cube.data.materials.append(made)
    return made.node_tree, made.node_tree.nodes["Principled BSDF"]


def image_node(cube, path):
    tree, shader = material(cube)
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images.load(path)
    tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    return node


def lost_image(folder, name):
    """Its file is not there."""
    path = os.path.join(folder, os.path.basename(name))
    png(path, 20, 200, 20)
    image = bpy.data.images.load(path)
    image.filepath = name
    os.remove(path)
    return image


def beside(cube, image):
    """Another cube with this image."""
    mesh = cube.data.copy()
    mesh.materials.clear()
    thing = bpy.data.objects.new("Beside", mesh)
    thing.location = (0, 2.5, 0)
    bpy.context.scene.collection.objects.link(thing)
    tree, shader = material(thing)
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    return thing, node


def unused(folder):
    """Files are missing, here and in a library, and a sequence has a gap: none of it shows."""
    scene, cube = start()
    path = os.path.join(folder, "Wood.png")
    png(path, 120, 70, 20)
    # Elsewhere Blender would not find it.
    image_node(cube, path).image.filepath = "//wood.png"
    beside(cube, lost_image(folder, "//hidden.png"))[0].hide_render = True
    lost_image(folder, "//kept.png").use_fake_user = True
    scene.camera.data.background_images.new().image = lost_image(folder, "//behind.png")
    moving, node = beside(cube, lost_image(folder, "//seq/tile_001.png"))
    moving.hide_render = True
    node.image.source, node.image_user.frame_duration = "SEQUENCE", 4
    os.makedirs(os.path.join(folder, "seq"))
    for frame in (1, 2, 4):
        png(os.path.join(folder, "seq", f"tile_{frame:03}.png"), 30, 255, 90)
    os.makedirs(os.path.join(folder, "lib"))
    image = lost_image(folder, "//held.png")
    held, _ = beside(cube, image)
    held.name, held.hide_render = "Held", True
    library = os.path.join(folder, "lib", "held.blend")
    bpy.data.libraries.write(library, {held})
    bpy.data.objects.remove(held)
    bpy.data.images.remove(image)
    with bpy.data.libraries.load(library, link=True) as (_, there):
        there.objects = ["Held"]
    scene.collection.objects.link(bpy.data.objects["Held"])
    for one in bpy.data.libraries:
        one.filepath = "//lib/held.blend"


def unused_alone(folder):
    """The only file that is missing is that of a hidden object."""
    _, cube = start()
    beside(cube, lost_image(folder, "//hidden.png"))[0].hide_render = True


def unused_at_times(folder):
    """What uses the missing file is hidden in the saved frame, and shows from frame 3 on."""
    _, cube = start()
    thing, _ = beside(cube, lost_image(folder, "//late.png"))
    for frame, hidden in ((3, False), (1, True)):
        thing.hide_render = hidden
        thing.keyframe_insert("hide_render", frame=frame)


def cut(folder):
    """The picture is the sequencer's; the settings of Cycles, which nothing uses, ask for a denoiser."""
    scene, cube = start()
    scene.cycles.use_denoising = True
    tree, shader = material(cube)
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = lost_image(folder, "//covered.png")
    tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    for channel, name in ((1, "shown"), (2, "muted")):
        path = os.path.join(folder, name + ".png")
        png(path, 220, 140, 20)
        strip = strips.new_image(name, path, channel, 1)
        strip.directory, strip.frame_final_duration, strip.mute = "//", 8, name == "muted"
    os.remove(path)


for build in (unused, unused_alone, unused_at_times, cut):
    folder = os.path.join(sys.argv[sys.argv.index("--") + 1], build.__name__)
    os.makedirs(folder)
    build(folder)
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, build.__name__ + ".blend"), relative_remap=False)
