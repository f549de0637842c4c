"""Builds the scenes of bench/animation inside Blender.

    blender --background --factory-startup --python bench/scenes.py -- NAME FILE

short     120 frames of 160x90, 4 samples: what counts is the time between frames
dense     the same with a mesh of 14,400 quads that turns: Blender alone keeps two cores nearly busy
textures  60 frames with four packed 2048x2048 textures: what counts is loading
polygons  20 frames with two million polygons: what counts is building the scene
"""

import array
import math
import random
import sys

import bpy


def empty_scene(frames, width, height, samples):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.frame_start, scene.frame_end = 1, frames
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = samples
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.use_denoising = False
    scene.render.resolution_x, scene.render.resolution_y = width, height
    scene.render.image_settings.file_format = "PNG"
    scene.render.filepath = "//frames/f_####"
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location, camera.rotation_euler = (0, -7, 4), (math.radians(62), 0, 0)
    scene.collection.objects.link(camera)
    scene.camera = camera
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.rotation_euler = 3, (0.6, 0.3, 0)
    scene.collection.objects.link(sun)
    return scene


def spin(thing, frames):
    thing.keyframe_insert("rotation_euler", frame=1)
    thing.rotation_euler[2] = math.pi
    thing.keyframe_insert("rotation_euler", frame=frames)


def short():
    empty_scene(120, 160, 90, 4)
    bpy.ops.mesh.primitive_plane_add(size=12, location=(0, 0, -1))
    bpy.ops.mesh.primitive_cube_add(size=2)
    spin(bpy.context.object, 120)


def waves(grid, height):
    place = [0.0] * (3 * len(grid.data.vertices))
    grid.data.vertices.foreach_get("co", place)
    for i in range(0, len(place), 3):
        place[i + 2] = height * math.sin(3 * place[i]) * math.cos(3 * place[i + 1])
    grid.data.vertices.foreach_set("co", place)


def dense():
    empty_scene(120, 160, 90, 4)
    bpy.ops.mesh.primitive_plane_add(size=12, location=(0, 0, -1))
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=120, y_subdivisions=120, size=4)
    waves(bpy.context.object, 0.25)
    spin(bpy.context.object, 120)


def textures():
    empty_scene(60, 160, 90, 4)
    noise = random.Random(3).randbytes(4 * 2048 * 2048)
    pixels = array.array("f", map((1 / 255).__mul__, noise))
    pixels[3::4] = array.array("f", [1]) * (2048 * 2048)
    for i in range(4):
        image = bpy.data.images.new(f"texture{i}", 2048, 2048)
        shift = 4 * 2048 * 512 * i
        image.pixels.foreach_set(pixels[shift:] + pixels[:shift])
        image.pack()
        material = bpy.data.materials.new(f"material{i}")
        material.use_nodes = True
        node = material.node_tree.nodes.new("ShaderNodeTexImage")
        node.image = image
        material.node_tree.links.new(
            node.outputs["Color"], material.node_tree.nodes["Principled BSDF"].inputs["Base Color"])
        bpy.ops.mesh.primitive_cube_add(size=1.4, location=((i - 1.5) * 1.8, 0, 0))
        bpy.context.object.data.materials.append(material)
        spin(bpy.context.object, 60)


def polygons():
    empty_scene(20, 160, 90, 4)
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=1414, y_subdivisions=1414, size=10)
    waves(bpy.context.object, 0.25)
    bpy.ops.mesh.primitive_monkey_add(size=2, location=(0, 0, 1.4))
    spin(bpy.context.object, 20)


name, target = sys.argv[-2:]
{"short": short, "dense": dense, "textures": textures, "polygons": polygons}[name]()
bpy.ops.wm.save_as_mainfile(filepath=target, compress=False)
