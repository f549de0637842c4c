"""Renders one frame of a file as `blender -b FILE -o OUT -f N` does, for Blenders without that command line.

Arguments: FILE, OUT (empty: the file's own output path), N, and `trust` where the file's scripts may run. The scene's
frame range stays as the artist saved it."""

import os
import sys

import bpy

arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
blend, out, frame = arguments[0], arguments[1], int(arguments[2])
bpy.ops.wm.open_mainfile(filepath=blend, load_ui=False, use_scripts="trust" in arguments[3:])
scene = bpy.context.scene
if out:
    scene.render.filepath = out
if bpy.app.version >= (5, 0, 0):
    bpy.ops.render.render(animation=True, frame_start=frame, frame_end=frame)
else:
    # `-f N` renders while the data are those of the frame that the file was saved at. Handlers that write to animated
    # objects see that, and their picture shows it. The operator has taken N by the time this handler runs. It acts
    # once: the render of a scene strip begins inside that of its scene. Without scripts nobody sees it, and animated
    # strips of 4.2 and 4.5 would stay at the saved frame.
    if "trust" in arguments[3:]:
        saved = [scene.frame_current]
        bpy.app.handlers.render_init.insert(0, lambda *_: saved and scene.frame_set(saved.pop()))
    scene.frame_set(frame)
    # A still has exactly the name that it is given: give it the one that an animation would write.
    scene.render.filepath = scene.render.frame_path(frame=frame)
    bpy.ops.render.render(write_still=True)
# The wheels may crash while they are taken down; by now all is written.
sys.stdout.flush()
os._exit(0)
