"""The abilities of this Blender on this machine."""

import ctypes
import platform

import bpy

BACKENDS = ("CUDA", "OPTIX", "HIP", "ONEAPI", "METAL")
BUILT_IN = ("BLENDER_EEVEE", "BLENDER_EEVEE_NEXT", "BLENDER_WORKBENCH")


def cycles_preferences():
    addon = bpy.context.preferences.addons.get("cycles")
    return addon.preferences if addon else None


def engines():
    scene = bpy.context.scene
    before = scene.render.engine
    registered = [getattr(engine, "bl_idname", "") for engine in bpy.types.RenderEngine.__subclasses__()]
    found = []
    for name in dict.fromkeys((*BUILT_IN, *registered)):
        try:
            scene.render.engine = name
        except TypeError:
            continue
        found.append(name)
    scene.render.engine = before
    return found


def devices():
    found = [{"backend": "cpu", "name": platform.processor() or platform.machine()}]
    preferences = cycles_preferences()
    for backend in BACKENDS:
        try:
            listed = preferences.get_devices_for_type(backend)
        except (AttributeError, TypeError, ValueError):
            continue
        found += [{"backend": backend.lower(), "name": d.name} for d in listed if d.type == backend]
    return found


def denoisers(found_devices):
    found = []
    try:
        import _cycles

        if getattr(_cycles, "with_openimagedenoise", False):
            found.append("OPENIMAGEDENOISE")
    except ImportError:
        pass
    if any(device["backend"] == "optix" for device in found_devices):
        found.append("OPTIX")
    return found


def capabilities():
    found = devices()
    return {"engines": engines(), "devices": found, "denoisers": denoisers(found)}


class EngineField:
    """Reads the engine that a scene really names. `scene.render.engine` answers with another one, in silence,
    where the named one is not in this Blender. Where the name lies in memory is learnt from a scene whose engine
    is known."""

    _SEARCHED = 4096  # bytes; a Scene is longer in every version
    _LENGTH = 32

    def __init__(self):
        scene = bpy.context.scene
        before = scene.render.engine
        scene.render.engine = "BLENDER_WORKBENCH"
        raw = ctypes.string_at(scene.as_pointer(), self._SEARCHED)
        self._offset = raw.find(b"BLENDER_WORKBENCH\0")
        scene.render.engine = before

    def name(self, scene):
        if self._offset < 0:
            return scene.render.engine
        raw = ctypes.string_at(scene.as_pointer() + self._offset, self._LENGTH)
        return raw.split(b"\0")[0].decode(errors="replace")
