"""Renders frames of a scene as a person does who steps through it: the reference of simulations that are not baked.

    step.py BLEND FRAME ...     (behind `--` for the program)
"""

import os
import sys

import bpy

arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
bpy.ops.wm.open_mainfile(filepath=arguments[0], load_ui=False, use_scripts="trust" in arguments)
wanted = [int(number) for number in arguments[1:] if number != "trust"]
scene = bpy.context.scene
path = scene.render.filepath
for frame in range(scene.frame_start, max(wanted) + 1):
    scene.frame_set(frame)
    if frame in wanted:
        scene.render.filepath = path
        scene.render.filepath = scene.render.frame_path(frame=frame)
        bpy.ops.render.render(write_still=True)
os._exit(0)
