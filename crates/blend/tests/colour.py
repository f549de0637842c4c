"""Tells where Blender's own colour configuration lies, and renders a glowing scene through a view of it.

... colour.py -- WHERE PICTURE
"""

import os
import sys

import bpy

where, shown = sys.argv[sys.argv.index("--") + 1 :]
bpy.ops.wm.read_factory_settings(use_empty=True)
scene = bpy.context.scene
scene.render.engine, scene.cycles.samples, scene.cycles.use_denoising = "CYCLES", 1, False
scene.render.resolution_x, scene.render.resolution_y = 16, 16
scene.world = bpy.data.worlds.new("w")
scene.world.use_nodes = True
scene.world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.9, 0.4, 0.1, 1)
scene.camera = bpy.data.objects.new("c", bpy.data.cameras.new("c"))
scene.view_settings.view_transform = "Filmic"
for look in ("Very High Contrast", "Filmic - Very High Contrast"):
    try:
        scene.view_settings.look = look
    except TypeError:
        pass  # each version knows one of the two
scene.render.filepath = shown
bpy.ops.render.render(write_still=True)
with open(where, "w") as file:
    file.write(os.path.join(bpy.utils.system_resource("DATAFILES"), "colormanagement", "config.ocio"))
sys.stdout.flush()
os._exit(0)
