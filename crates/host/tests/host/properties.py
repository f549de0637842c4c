"""Copies of a scene: `plain`, `set` with the values that properties.rs gives by `--set`, and `animated`.

Arguments: the folder, and the scene."""

import os
import sys

import bpy

folder, blend = sys.argv[sys.argv.index("--") + 1 :]


def save(name):
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, name + ".blend"), compress=False)


bpy.ops.wm.open_mainfile(filepath=blend)
scene = bpy.context.scene
save("plain")
scene.cycles.film_exposure = 0.5
scene.cycles.seed = 7
scene.cycles.pixel_filter_type = "BOX"
scene.render.film_transparent = True
scene.view_settings.exposure = 1.25
scene.gravity = (0, 0.1, -3)
save("set")
bpy.ops.wm.open_mainfile(filepath=os.path.join(folder, "plain.blend"))
scene = bpy.context.scene
scene.render.keyframe_insert("film_transparent", frame=1)
scene.driver_add("cycles.max_bounces").driver.expression = "2"
scene.keyframe_insert("gravity", index=2, frame=1)
save("animated")
with open(os.path.join(folder, "done"), "w"):
    pass
# The wheel may crash when it ends.
os._exit(0)
