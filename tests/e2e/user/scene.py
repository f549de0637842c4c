"""Builds the project of the user test in every version, and renders each as a fresh Blender would.

Argument: FOLDER. It gets shot-N.blend, asset-N.blend and wood-N.png, from which a project is put together (shot.blend,
lib/asset.blend, tex/wood.png), and cold/SHOT-ASSET-WOOD-CHOICE-FRAME.png. A picture of two that are equal would prove
nothing: the test refuses such."""

import math
import os
import shutil
import struct
import sys
import zlib

import bpy

SHOTS, ASSETS, WOODS, FRAMES = range(3), range(2), range(3), range(1, 5)
# As in scene.rs: the file's own, then --samples 3, then --resolution 50%.
CHOICES = range(3)
COLOURS = ((250, 60, 30), (40, 220, 70), (50, 80, 250))

out = sys.argv[-1]
project = os.path.join(out, "project")
cold = os.path.join(out, "cold")


def place(*parts):
    return os.path.join(project, *parts)


def png(path, colour):
    rows = b""
    for y in range(8):
        rows += b"\0" + b"".join(bytes(colour) if (x + y) % 3 else bytes(c // 3 for c in colour) for x in range(8))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)))
        file.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def save(path):
    bpy.ops.wm.save_as_mainfile(filepath=path, relative_remap=False, compress=False)


def asset(number):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    if number:
        bpy.ops.mesh.primitive_cone_add(radius1=1.4, depth=2.2, location=(0, 0, 1))
    else:
        bpy.ops.mesh.primitive_cube_add(size=1.8, location=(0, 0, 1))
    thing = bpy.context.object
    thing.name = "Thing"
    material = bpy.data.materials.new("Wood")
    material.use_nodes = True
    nodes = material.node_tree.nodes
    texture = nodes.new("ShaderNodeTexImage")
    texture.image = bpy.data.images.load(place("tex", "wood.png"))
    texture.image.filepath = "//../tex/wood.png"
    where = nodes.new("ShaderNodeTexCoord")
    material.node_tree.links.new(where.outputs["Generated"], texture.inputs["Vector"])
    material.node_tree.links.new(texture.outputs["Color"], nodes["Principled BSDF"].inputs["Base Color"])
    thing.data.materials.append(material)
    save(place("lib", "asset.blend"))
    shutil.copy(place("lib", "asset.blend"), os.path.join(out, f"asset-{number}.blend"))


def shot(number):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 1
    scene.cycles.use_denoising = False
    scene.cycles.use_adaptive_sampling = False
    scene.render.resolution_x = scene.render.resolution_y = 16
    scene.render.resolution_percentage = 100
    scene.frame_start, scene.frame_end = 1, 3
    scene.render.filepath = "//frames/f_"
    scene.world = bpy.data.worlds.new("World")
    with bpy.data.libraries.load(place("lib", "asset.blend"), link=True) as (there, wanted):
        wanted.objects = ["Thing"]
    scene.collection.objects.link(wanted.objects[0])
    bpy.data.libraries[0].filepath = "//lib/asset.blend"
    bpy.ops.mesh.primitive_plane_add(size=9)
    bpy.ops.object.light_add(type="SUN", rotation=(0.6, 0.2 + 0.4 * number, 0))
    lamp = bpy.context.object
    lamp.data.energy = 3 + number
    for frame, angle in ((1, 0.0), (40, 9.0)):
        lamp.rotation_euler = (0.6, 0.2 + 0.4 * number, angle)
        lamp.keyframe_insert("rotation_euler", frame=frame)
    bpy.ops.object.camera_add(location=(5, -5, 4), rotation=(1.05, 0, math.pi / 4))
    scene.camera = bpy.context.object
    save(place("shot.blend"))
    shutil.copy(place("shot.blend"), os.path.join(out, f"shot-{number}.blend"))


def render(path, choice, frame):
    """The file is opened again for each frame: nothing of the one before is left."""
    bpy.ops.wm.open_mainfile(filepath=place("shot.blend"), load_ui=False, use_scripts=False)
    scene = bpy.context.scene
    if choice == 1:
        scene.cycles.samples = 3
    if choice == 2:
        scene.render.resolution_percentage = 50
    scene.render.filepath = path
    if bpy.app.version >= (5, 0, 0):
        scene.render.filepath = path[: -len("0001.png")]
        bpy.ops.render.render(animation=True, frame_start=frame, frame_end=frame)
        return
    scene.frame_set(frame)
    bpy.ops.render.render(write_still=True)


for folder in (place("lib"), place("tex"), cold):
    os.makedirs(folder)
for number in WOODS:
    png(os.path.join(out, f"wood-{number}.png"), COLOURS[number])
shutil.copy(os.path.join(out, "wood-0.png"), place("tex", "wood.png"))
for number in ASSETS:
    asset(number)
for number in SHOTS:
    shot(number)
for s in SHOTS:
    shutil.copy(os.path.join(out, f"shot-{s}.blend"), place("shot.blend"))
    for a in ASSETS:
        shutil.copy(os.path.join(out, f"asset-{a}.blend"), place("lib", "asset.blend"))
        for w in WOODS:
            shutil.copy(os.path.join(out, f"wood-{w}.png"), place("tex", "wood.png"))
            for c in CHOICES:
                for frame in FRAMES:
                    render(os.path.join(cold, f"{s}-{a}-{w}-{c}-{frame:04}.png"), c, frame)
shutil.rmtree(project)
sys.stdout.flush()
os._exit(0)
