"""One opened .blend with its settings: applied in memory, never saved."""

import os

import bpy

from . import artist, checks, devices, outputs, persistent, properties, remap, settings
from .channel import unspelled
from .errors import Refusal
from .handlers import Silence, remove_of_files


class Session:
    """Everything between opening a file and the first frame."""

    def __init__(self, command, engine_field, capabilities):
        spec = command["session"]
        self.blend = command["blend"]
        self.origin = spec.get("origin")
        name = spec.get("file_name") or os.path.basename(spec["blend"])
        # Of the .blend, on the artist's machine.
        self.artists_path = artist.spelled(self.origin, name)
        self.device = spec["device"]
        self.settings = spec["settings"]
        self.policy = spec["policy"]
        self.threads = command["threads"]
        self.gpus = command["gpus"]
        self.persistent_data = command["persistent_data"]
        self.capabilities = capabilities
        self.notices = []
        self.scene = None
        self.device_used = ""
        self.outputs = None
        self.path = None
        self.reuse = None
        self.unused = ()
        self._remap = command["remap"]
        self._unused = command["unused"]
        self._made_up_devices = command["devices"]
        self._engine_field = engine_field

    @property
    def trust(self):
        return self.policy["scripts"] == "trust"

    def open(self):
        remove_of_files()
        with remap.elsewhere(self._remap), artist.opening(self):
            load(self.blend, self.trust)
        self.unused = remap.Unused(self._unused)
        self.scene = choose_scene(self.settings)
        # Engine and format decide which values some properties take.
        self._check_engine()
        settings.choose_format(self)
        properties.apply(self.scene, self.settings.get("properties", {}))
        settings.apply(self)
        checks.camera(self)
        checks.denoiser(self)
        self.device_used = devices.choose(self, self._made_up_devices)
        # Drivers are evaluated here: a blocked one is known from now on.
        with Silence():
            self.scene.view_layers[0].update()
        checks.external_files(self)
        checks.scripts(self)
        checks.simulations(self)
        self.outputs = outputs.Outputs(self)
        self.path = artist.ArtistPath(self)
        self.reuse = persistent.Reuse(self.scene, self.persistent_data)
        self.reuse.apply(self.scene)

    def reopen(self):
        """The same file again, clean: what an earlier frame left in simulations and caches is gone."""
        notices, self.notices = self.notices, []
        self.open()
        self.notices = notices

    def plan(self):
        return {
            "files": self.outputs.planned(self.scene.frame_current),
            "engine": self.scene.render.engine,
            "device": self.device_used,
        }

    def artists_library(self, library):
        """The path of a library on the artist's machine."""
        here = os.path.normpath(bpy.path.abspath(library.filepath))
        for meaning, place in self._remap.items():
            if os.path.normpath(place) == here:
                name = unspelled(meaning)
                break
        else:
            name = "//" + os.path.relpath(here, os.path.dirname(self.blend))
        return artist.spelled(self.origin, name[2:]) if name.startswith("//") else name

    def notice(self, text):
        if text not in self.notices:
            self.notices.append(text)

    def _check_engine(self):
        named = self.settings.get("engine") or self._engine_field.name(self.scene)
        # One engine, two names: 4.2 to 4.5 call the new EEVEE so.
        other = {"BLENDER_EEVEE": "BLENDER_EEVEE_NEXT", "BLENDER_EEVEE_NEXT": "BLENDER_EEVEE"}.get(named)
        there = self.capabilities["engines"]
        registered = [getattr(e, "bl_idname", "") for e in bpy.types.RenderEngine.__subclasses__()]
        for name in (named, other):
            if name and (name in there or name in registered):
                if self.scene.render.engine != name:
                    self.scene.render.engine = name
                return
        raise Refusal(
            "engine-missing",
            f"the engine {named} is not in Blender {bpy.app.version_string}; it has: {', '.join(there)} "
            "(choose one with --engine)",
        )


def load(blend, trust):
    name = os.path.basename(blend)
    try:
        bpy.ops.wm.open_mainfile(filepath=blend, load_ui=False, use_scripts=trust)
    except RuntimeError as error:
        text = " ".join(str(error).replace("Error: ", "").split()).replace(blend, name)
        raise Refusal("cannot-open", f"{name} cannot be opened: {text}") from error
    if os.path.realpath(bpy.data.filepath) != os.path.realpath(blend):
        raise Refusal("cannot-open", f"{name} cannot be opened: Blender kept another file open")


def choose_scene(settings):
    wanted = settings.get("scene")
    if not wanted:
        return bpy.context.scene
    scene = bpy.data.scenes.get(wanted)
    if scene is None:
        there = ", ".join(scene.name for scene in bpy.data.scenes)
        raise Refusal("bad-setting", f"the file has no scene “{wanted}”; it has: {there}")
    if bpy.context.window:
        bpy.context.window.scene = scene
    return scene
