"""Linked data."""

import bpy
from kit import feature


@feature("Linking / Library: animated object, absolute path outside of the project")
def linked_object(s):
    made = s.box("Linked")
    s.move(made)
    path = s.library(s.outside("lib", "a.blend"), {made})
    bpy.data.objects.remove(made)
    for made in s.link(path, "objects", ["Linked"]):
        s.scene.collection.objects.link(made)
