import bpy


def paint(red):
    for light in bpy.data.lights:
        light.color = (red, 0.0, 0.1)
