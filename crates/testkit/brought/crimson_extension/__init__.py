"""Crimson as an extension: a package with preferences of its own, which it finds by the name Blender gives it."""

import bpy

from .paint import paint


class Preferences(bpy.types.AddonPreferences):
    bl_idname = __package__

    red: bpy.props.FloatProperty(default=0.8)


@bpy.app.handlers.persistent
def opened(*_):
    paint(bpy.context.preferences.addons[__package__].preferences.red)


def register():
    bpy.utils.register_class(Preferences)
    bpy.app.handlers.load_post.append(opened)


def unregister():
    bpy.app.handlers.load_post.remove(opened)
    bpy.utils.unregister_class(Preferences)
