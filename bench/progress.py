"""How far what Cycles says of a frame's progress is from the time that is over.

    blender -b --factory-startup --python bench/progress.py -- glass 500 320 180 fixed
    python bench/progress.py -- volume 500 320 180 adaptive        (with a bpy wheel)

Renders one frame and prints, for what the host would report of it, how long the frame would be taken to last by that
alone, as a part of how long it lasted.
"""

import os
import re
import sys
import tempfile
import time

import bpy

SAMPLE = re.compile(r"Sample (\d+)/(\d+)")  # as in kiln_host/frame.py
EVERY = 0.25  # seconds, as there


def build(kind, samples, width, height, adaptive):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location, camera.rotation_euler = (0, -8, 3), (1.2, 0, 0)
    lamp = bpy.data.objects.new("lamp", bpy.data.lights.new("lamp", "AREA"))
    lamp.location, lamp.data.energy, lamp.data.size = (2, -2, 6), 800, 3
    for thing in (camera, lamp):
        scene.collection.objects.link(thing)
    scene.camera = camera
    bpy.ops.mesh.primitive_plane_add(size=40)
    material = bpy.data.materials.new(kind)
    material.use_nodes = True
    nodes = material.node_tree.nodes
    shader = nodes["Principled BSDF"].inputs
    shader["Roughness"].default_value = 0.1
    if kind == "glass":
        name = "Transmission" if "Transmission" in shader else "Transmission Weight"
        shader[name].default_value = 1.0
    else:
        volume = nodes.new("ShaderNodeVolumePrincipled")
        material.node_tree.links.new(volume.outputs[0], nodes["Material Output"].inputs["Volume"])
    for x in range(-3, 4):
        for y in range(4):
            bpy.ops.mesh.primitive_uv_sphere_add(location=(x, y, 0.6), radius=0.45)
            bpy.context.object.data.materials.append(material)
    scene.render.engine = "CYCLES"
    scene.cycles.samples = samples
    scene.cycles.use_denoising = False
    scene.cycles.use_adaptive_sampling = adaptive
    scene.cycles.adaptive_threshold = 0.02
    scene.render.resolution_x, scene.render.resolution_y = width, height
    return scene


def main():
    kind, samples, width, height, sampling = sys.argv[sys.argv.index("--") + 1 :]
    scene = build(kind, int(samples), int(width), int(height), sampling == "adaptive")
    told, last = [], 0.0

    def heard(stats, *_):
        nonlocal last
        now = time.monotonic()
        found = SAMPLE.search(stats) if isinstance(stats, str) else None
        if found and now - last >= EVERY:
            last = now
            told.append((now - began, int(found[1]) / int(found[2])))

    bpy.app.handlers.render_stats.append(heard)
    scene.frame_start = scene.frame_end = 1
    with tempfile.TemporaryDirectory() as out:
        scene.render.filepath = os.path.join(out, "frame")
        began = time.monotonic()
        bpy.ops.render.render(animation=True)
        took = time.monotonic() - began
    print(f"Blender {bpy.app.version_string}, {kind}, {sampling}: {took:.1f} s, {len(told)} reports")
    for after, done in told:
        if done >= 0.1:
            print(f"  {done:4.0%} said after {after / took:4.0%}: foretells {after / done / took:.2f} of its time")
    sys.stdout.flush()
    os._exit(0)  # a wheel may hang when it is torn down


main()
