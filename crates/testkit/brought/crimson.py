"""An add-on that shows in the picture: it paints every lamp red, in every file that is opened."""

bl_info = {"name": "Crimson", "blender": (2, 80, 0), "category": "Render"}

import bpy


@bpy.app.handlers.persistent
def paint(*_):
    for light in bpy.data.lights:
        light.color = (0.8, 0.0, 0.1)


def register():
    bpy.app.handlers.load_post.append(paint)


def unregister():
    bpy.app.handlers.load_post.remove(paint)
