"""Builds sample.blend: a glazed vase and its cups turn in front of the embers of a kiln.

    blender --background --factory-startup --python examples/make_sample.py -- examples/sample.blend

Cycles on the processor, 48 frames of 384x216, keyframes, a packed texture. Written by Blender 3.4, so that 3.4
and everything newer renders it.
"""

import math
import random
import sys

import bpy

FRAMES = 48
random.seed(7)


def material(name, color, roughness, metallic=0.0):
    mat = bpy.data.materials.new(name)
    mat.use_nodes = True
    shader = mat.node_tree.nodes["Principled BSDF"]
    shader.inputs["Base Color"].default_value = (*color, 1)
    shader.inputs["Roughness"].default_value = roughness
    shader.inputs["Metallic"].default_value = metallic
    return mat, shader


def glow(name, color, strength):
    mat = bpy.data.materials.new(name)
    mat.use_nodes = True
    nodes = mat.node_tree.nodes
    nodes.clear()
    emit = nodes.new("ShaderNodeEmission")
    emit.inputs["Color"].default_value = (*color, 1)
    emit.inputs["Strength"].default_value = strength
    mat.node_tree.links.new(emit.outputs[0], nodes.new("ShaderNodeOutputMaterial").inputs["Surface"])
    return mat


def glaze_image(size=512):
    """Bands and brush dots, as on a slip-painted pot; drawn here and packed into the file."""
    image = bpy.data.images.new("glaze", size, size)
    cream, blue, rust = (0.86, 0.78, 0.62), (0.05, 0.13, 0.28), (0.48, 0.14, 0.04)
    pixels = []
    for y in range(size):
        v = y / size
        for x in range(size):
            u = x / size
            color = cream
            if 0.16 < v < 0.22 or 0.78 < v < 0.81 or 0.83 < v < 0.85:
                color = blue
            wave = 0.5 + 0.10 * math.sin(u * 2 * math.pi * 8)
            if abs(v - wave) < 0.022:
                color = blue
            du, dv = (u * 16) % 1 - 0.5, (v - 0.68) * 16
            if du * du + dv * dv < 0.11:
                color = rust
            du, dv = (u * 16 + 0.5) % 1 - 0.5, (v - 0.31) * 16
            if du * du + dv * dv < 0.11:
                color = rust
            pixels += [*color, 1.0]
    image.pixels = pixels
    image.pack()
    return image


def lathe(name, profile, mat, segments=48):
    """Turns a profile of (radius, height) about the z axis, with texture coordinates."""
    verts, faces, uvs = [], [], []
    for i in range(segments + 1):
        angle = 2 * math.pi * i / segments
        verts += [(r * math.cos(angle), r * math.sin(angle), h) for r, h in profile]
    count = len(profile)
    for i in range(segments):
        for k in range(count - 1):
            a, b = i * count + k, (i + 1) * count + k
            faces.append((a, b, b + 1, a + 1))
            u0, u1 = i / segments, (i + 1) / segments
            v0, v1 = k / (count - 1), (k + 1) / (count - 1)
            uvs += [(u0, v0), (u1, v0), (u1, v1), (u0, v1)]
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata(verts, [], faces)
    layer = mesh.uv_layers.new(name="UVMap")
    for loop, uv in zip(layer.data, uvs):
        loop.uv = uv
    for polygon in mesh.polygons:
        polygon.use_smooth = True
    mesh.materials.append(mat)
    thing = bpy.data.objects.new(name, mesh)
    bpy.context.collection.objects.link(thing)
    return thing


def turn(thing, turns, frames=FRAMES):
    thing.rotation_euler[2] = 0
    thing.keyframe_insert("rotation_euler", index=2, frame=1)
    thing.rotation_euler[2] = turns * 2 * math.pi
    thing.keyframe_insert("rotation_euler", index=2, frame=frames + 1)
    for curve in thing.animation_data.action.fcurves:
        for point in curve.keyframe_points:
            point.interpolation = "LINEAR"


def smooth(points, steps=6):
    """A Catmull-Rom curve through the points of a profile."""
    out = []
    for i in range(len(points) - 1):
        p0, p1 = points[max(i - 1, 0)], points[i]
        p2, p3 = points[i + 1], points[min(i + 2, len(points) - 1)]
        for s in range(steps):
            t = s / steps
            out.append(tuple(
                0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t * t + (3 * b - a - 3 * c + d) * t ** 3)
                for a, b, c, d in zip(p0, p1, p2, p3)
            ))
    return [*out, points[-1]]


def build():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.name = "Kiln"

    glazed, shader = material("glazed", (1, 1, 1), 0.18)
    texture = glazed.node_tree.nodes.new("ShaderNodeTexImage")
    texture.image = glaze_image()
    texture.interpolation = "Cubic"
    glazed.node_tree.links.new(texture.outputs["Color"], shader.inputs["Base Color"])
    celadon, _ = material("celadon", (0.16, 0.36, 0.27), 0.12)
    clay, _ = material("clay", (0.34, 0.14, 0.07), 0.75)
    iron, _ = material("iron", (0.05, 0.045, 0.04), 0.35, 0.9)
    ash, _ = material("ash", (0.055, 0.04, 0.035), 0.85)

    vase = smooth([(0.02, 0), (0.42, 0.0), (0.62, 0.30), (0.74, 0.72), (0.56, 1.16), (0.27, 1.42), (0.25, 1.56),
                   (0.37, 1.70)]) + [(0.33, 1.70), (0.21, 1.56), (0.2, 1.3)]
    cup = smooth([(0.01, 0), (0.17, 0), (0.24, 0.10), (0.26, 0.36)]) + [(0.23, 0.36), (0.20, 0.10), (0.02, 0.04)]
    disc = [(0.01, 0), (1.55, 0), (1.6, -0.04), (1.6, -0.12), (1.5, -0.16)]

    wheel = lathe("wheel", disc[::-1], iron, 64)
    turn(wheel, 1)
    pot = lathe("vase", vase, glazed)
    pot.parent = wheel
    for i in range(5):
        angle = 2 * math.pi * (i + 0.5) / 5
        one = lathe(f"cup{i}", cup, celadon if i % 2 else clay, 32)
        one.location = (1.16 * math.cos(angle), 1.16 * math.sin(angle), 0)
        one.parent = wheel

    bpy.ops.mesh.primitive_plane_add(size=40, location=(0, 0, -0.5))
    bpy.context.object.data.materials.append(ash)

    warm = [glow(f"ember{i}", color, power) for i, (color, power) in enumerate(
        [((1, 0.18, 0.02), 9), ((1, 0.33, 0.05), 16), ((1, 0.08, 0.01), 5)])]
    for i in range(46):
        bpy.ops.mesh.primitive_ico_sphere_add(
            subdivisions=1, radius=random.uniform(0.06, 0.2),
            location=(random.uniform(-4.2, 4.2), random.uniform(2.6, 4.4), random.uniform(-0.45, -0.2)))
        ember = bpy.context.object
        ember.data.materials.append(warm[i % 3])
        ember.rotation_euler = [random.uniform(0, 3) for _ in range(3)]
        base = ember.location.z
        for k in range(5):
            ember.location.z = base + 0.16 * math.sin(k * math.pi / 2 + i)
            ember.keyframe_insert("location", index=2, frame=1 + k * FRAMES // 4)

    for name, place, size, power, color in [
        ("key", (-3.2, -2.6, 3.6), 2.2, 190, (1, 0.80, 0.58)),
        ("rim", (3.4, 2.2, 2.4), 1.2, 170, (0.42, 0.58, 1)),
    ]:
        light = bpy.data.lights.new(name, "AREA")
        light.energy, light.size, light.color = power, size, color
        lamp = bpy.data.objects.new(name, light)
        lamp.location = place
        scene.collection.objects.link(lamp)
        aim(lamp, (0, 0, 0.6))

    world = bpy.data.worlds.new("night")
    world.use_nodes = True
    world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.006, 0.007, 0.012, 1)
    scene.world = world

    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.data.lens = 50
    scene.collection.objects.link(camera)
    scene.camera = camera
    for frame, height in ((1, 2.1), (FRAMES // 2 + 1, 1.5), (FRAMES + 1, 2.1)):
        camera.location = (0.0, -7.0, height)
        aim(camera, (0, 0, 0.72))
        camera.keyframe_insert("location", frame=frame)
        camera.keyframe_insert("rotation_euler", frame=frame)

    scene.frame_start, scene.frame_end = 1, FRAMES
    scene.render.engine = "CYCLES"
    scene.cycles.device = "CPU"
    scene.cycles.samples = 16
    scene.cycles.use_adaptive_sampling = False
    scene.cycles.use_denoising = False
    scene.cycles.max_bounces = 4
    scene.cycles.sample_clamp_indirect = 1.0
    scene.cycles.caustics_reflective = scene.cycles.caustics_refractive = False
    scene.view_settings.look = "Medium High Contrast"
    scene.render.resolution_x, scene.render.resolution_y = 384, 216
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "PNG"
    scene.render.image_settings.color_mode = "RGB"
    scene.render.filepath = "//frames/vase_####"


def aim(thing, target):
    from mathutils import Vector

    direction = Vector(target) - thing.location
    thing.rotation_euler = direction.to_track_quat("-Z", "Y").to_euler()


build()
bpy.ops.wm.save_as_mainfile(filepath=sys.argv[-1], compress=True)
