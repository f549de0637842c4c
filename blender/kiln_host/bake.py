"""Bakes what a scene simulates, and saves the file with it where it lies: a writable copy, which serves nothing else."""

import contextlib
import os
import re
import time

import bpy

from . import animated, caches, checks, errors, properties, remap, session, simulations
from .channel import peak_memory
from .errors import Refusal, names

PROGRESS_EVERY = 0.25  # seconds

# Who is told of the frames that Blender steps through.
_listeners = []


@bpy.app.handlers.persistent
def _on_frame(scene, *_):
    for listener in _listeners:
        listener.heard(scene.frame_current)


class Bake:
    def __init__(self, command, channel):
        spec = command["session"]
        self.policy = spec["policy"]
        self.notices = []
        self.scene = None
        self._blend = command["blend"]
        self._settings = spec["settings"]
        self._tree = command["tree"]
        self.unused = ()
        self._remap = command["remap"]
        self._unused = command["unused"]
        self._steps = _Steps(channel)

    def run(self):
        """Names of what is baked now."""
        self._open()
        found = list(simulations.find_unbaked(self.scene))
        if not found:
            return []
        self._check(found)
        self._settle_folders(found)
        for scene in simulations.drawn(self.scene):
            self._bake_scene(scene)
        _show_scene(self.scene)
        left = simulations.unbaked(self.scene)
        if left:
            raise _unbaked(left, "Blender did not bake it")
        checks.scripts(self)
        self._save()
        # What is not in the file is not baked, whatever Blender shows before: it is looked at as a frame will see it.
        self._open()
        left = simulations.unbaked(self.scene)
        if left:
            raise _unbaked(left, "Blender said that it baked, but nothing of it is kept")
        return list(dict.fromkeys(name for name, _, _ in found))

    def notice(self, text):
        if text not in self.notices:
            self.notices.append(text)

    def _open(self):
        with remap.elsewhere(self._remap, relative=True):
            session.load(self._blend, self.policy["scripts"] == "trust")
        self.unused = remap.Unused(self._unused)
        self.scene = session.choose_scene(self._settings)
        if self.scene != bpy.context.scene:
            raise Refusal("other", f"Blender does not show the scene “{self.scene.name}”")
        # No picture is written here, and its format is not chosen.
        properties.apply(self.scene, self._settings.get("properties", {}), leave_out=("render.image_settings.",))

    def _check(self, found):
        checks.external_files(self)
        _, linked = simulations.by_owner(found)
        if linked:
            raise _unbaked(linked, "what is linked from a library can only be baked in that file")
        fluids = [name for name, _, part in found if simulations.is_kind(part, "FLUID")]
        if fluids and not bpy.app.binary_path:
            raise Refusal(
                "needs-program",
                f"{names(fluids)} cannot be baked by Blender as a Python module, which ends in the middle of it; give a "
                "worker the Blender program, or bake in Blender and save",
            )

    def _settle_folders(self, found):
        """Caches are written into the tree, and nowhere else, by names relative to the file."""
        for number, (_, owner, part) in enumerate(found):
            if simulations.is_kind(part, "FLUID"):
                domain = part.domain_settings
                if not self._inside(domain.cache_directory):
                    domain.cache_directory = self._folder(owner, part, number)
                if domain.cache_type != "ALL":
                    # Replay bakes while it plays, and modular in parts: the outcome is the same.
                    domain.cache_type = "ALL"
            if simulations.is_kind(part, "NODES"):
                for field in ("simulation_bake_directory", "bake_directory"):
                    if hasattr(part, field) and not self._inside(getattr(part, field)):
                        setattr(part, field, self._folder(owner, part, number))
                for bake in getattr(part, "bakes", ()):
                    if bake.use_custom_path and not self._inside(bake.directory):
                        bake.use_custom_path = False
                    if owner.override_library and hasattr(bake, "bake_target"):
                        bake.bake_target = "DISK"
            if owner.override_library:
                # Of an override the file keeps no frames, and says all the same that they are there.
                for cache in simulations.point_caches(part):
                    cache.use_disk_cache = True

    def _inside(self, folder):
        if not folder.startswith("//"):
            return False
        return os.path.realpath(bpy.path.abspath(folder)).startswith(os.path.realpath(self._tree) + os.sep)

    def _folder(self, owner, part, number):
        stem = os.path.splitext(os.path.basename(self._blend))[0]
        plain = re.sub(r"[^\w-]+", "_", f"{owner.name}_{part.name}", flags=re.ASCII)
        return f"//blendcache_{stem}/{plain[:80]}_{number}"

    def _bake_scene(self, scene):
        """Bakes in each scene what it draws: each has its own gravity, forces and rigid body world."""
        found = list(simulations.find_unbaked_in(scene))
        if not found:
            return
        _show_scene(scene)
        _free(scene, found)
        with _heard(self._steps), _shown(scene, found), _long_enough(scene, self.scene):
            self._bake(scene, found)

    def _bake(self, scene, found):
        """In the order in which Blender's own buttons would be pressed: fluids may flow around what fell."""
        steps = self._steps
        before = scene.frame_current
        points = [(owner, part, cache) for _, owner, part in found for cache in simulations.point_caches(part)]
        hair = [entry for entry in points if _is_hair(entry[1])]
        others = [cache for _, part, cache in points if not _is_hair(part)]
        nodes = list({owner: None for _, owner, part in found if simulations.is_kind(part, "NODES")})
        fluids = [(owner, part) for _, owner, part in found if simulations.is_kind(part, "FLUID")]
        if others:
            steps.plan(min(c.frame_start for c in others), max(c.frame_end for c in others))
        for _, _, cache in hair:
            steps.plan(cache.frame_start, cache.frame_end)
        for _ in nodes:
            steps.plan(scene.frame_start, scene.frame_end)
        for _, part in fluids:
            steps.plan(part.domain_settings.cache_frame_start, part.domain_settings.cache_frame_end)
        if others:
            steps.begin()
            self._call(bpy.ops.ptcache.bake_all, {"scene": scene}, bake=True)
        for owner, _, cache in hair:
            # Blender leaves hair out where it bakes all.
            steps.begin()
            which = {"scene": scene, "object": owner, "active_object": owner, "point_cache": cache}
            self._call(bpy.ops.ptcache.bake, which, bake=True)
        for owner in nodes:
            steps.begin()
            which = {"scene": scene, "object": owner, "active_object": owner}
            self._call(bpy.ops.object.simulation_nodes_cache_bake, which, selected=False)
        for owner, _ in fluids:
            steps.begin()
            self._call(bpy.ops.fluid.bake_all, {"scene": scene, "object": owner, "active_object": owner})
        if scene.frame_current != before:
            scene.frame_set(before)

    def _call(self, operator, context, **arguments):
        try:
            return _overridden(operator, context, **arguments)
        except RuntimeError as error:
            raise errors.of_bake(error, self._tree) from error

    def _save(self):
        bpy.context.preferences.filepaths.save_version = 0
        try:
            bpy.ops.wm.save_mainfile(filepath=self._blend, compress=False, relative_remap=False)
        except RuntimeError as error:
            raise errors.of_bake(error, self._tree) from error


class _Steps:
    """The progress of the bake, from the frames that Blender steps through."""

    def __init__(self, channel):
        self._channel = channel
        self._ranges = []
        self._done = 0
        self._told = 0.0
        self._at = None

    def plan(self, first, last):
        self._ranges.append((first, max(first, last)))

    def begin(self):
        """The next range of the plan."""
        if self._at is None:
            self._at = 0
        else:
            first, last = self._ranges[self._at]
            self._done += last - first + 1
            self._at += 1

    def heard(self, frame):
        now = time.monotonic()
        if self._at is None or now - self._told < PROGRESS_EVERY:
            return
        first, last = self._ranges[self._at]
        if not first <= frame <= last:
            return
        self._told = now
        done = self._done + frame - first
        all_of_them = sum(last - first + 1 for first, last in self._ranges)
        self._channel.send("progress", frame=frame, samples=[done, all_of_them], memory=peak_memory())


@contextlib.contextmanager
def _heard(steps):
    handlers = bpy.app.handlers.frame_change_post
    handlers.append(_on_frame)
    _listeners[:] = [steps]
    try:
        yield
    finally:
        _listeners.clear()
        if _on_frame in handlers:
            handlers.remove(_on_frame)


def _overridden(operator, context, **arguments):
    if hasattr(bpy.context, "temp_override"):
        with bpy.context.temp_override(**context):
            return operator(**arguments)
    return operator({**bpy.context.copy(), **context}, **arguments)


def _show_scene(scene):
    """Operators work on the scene that the window shows."""
    if bpy.context.window and bpy.context.window.scene != scene:
        bpy.context.window.scene = scene


def _free(scene, found):
    """Frees the bakes that have lost their files: they are not baked again before."""
    for _, owner, part in found:
        which = {"scene": scene}
        if isinstance(owner, bpy.types.Object):
            which.update(object=owner, active_object=owner)
        for cache in simulations.point_caches(part):
            if cache.is_baked and not caches.of_points(cache, owner, caches.Folders()).done:
                _overridden(bpy.ops.ptcache.free_bake, {**which, "point_cache": cache})
        if simulations.is_kind(part, "FLUID"):
            # Blender goes on behind the last frame that it baked. Its own operator that frees a fluid is no way to the first
            # one: it works on a thread, into the bake that follows.
            for kind in ("data", "noise", "mesh", "particles", "guide"):
                setattr(part.domain_settings, f"cache_frame_pause_{kind}", 0)


@contextlib.contextmanager
def _long_enough(scene, main):
    """Nodes are baked for the range of their scene; what another scene draws of them shall reach as far as that."""
    before = scene.frame_end
    if scene != main and scene.frame_end < main.frame_end:
        scene.frame_end = main.frame_end
    try:
        yield
    finally:
        scene.frame_end = before


@contextlib.contextmanager
def _shown(scene, found):
    """Shows what is hidden from the view, or in no collection of the scene: it is not simulated then, and pictures may need
    it. Where animation hides it, the simulation begins when it is seen first, as for a person who steps through."""
    undo = []

    def show(thing, field, wanted):
        before = getattr(thing, field)
        if before != wanted:
            undo.append((thing, field, before))
            setattr(thing, field, wanted)

    modifiers, linked, own, shown = [], [], set(scene.objects), set(simulations.rendered(scene))
    for _, owner, part in found:
        if isinstance(part, bpy.types.ParticleSystem):
            for modifier in owner.modifiers:
                if modifier.type == "PARTICLE_SYSTEM" and modifier.particle_system == part:
                    modifiers.append(modifier)
        if isinstance(part, bpy.types.Modifier):
            modifiers.append(part)
    for modifier in modifiers:
        if f"{modifier.path_from_id()}.show_viewport" not in animated.paths(modifier.id_data):
            show(modifier, "show_viewport", True)
    owners = [owner for _, owner, _ in found if isinstance(owner, bpy.types.Object)]
    # What is in the scene only through empties shows where these do.
    through = [] if own.issuperset(owners) else filter(simulations.instanced, shown)
    for thing in {*owners, *through}:
        if not animated.is_animated(thing, "hide_viewport"):
            show(thing, "hide_viewport", False)
        seen = thing.visible_get() or (thing in shown and thing not in own)
        if not seen and thing not in set(scene.collection.objects):
            scene.collection.objects.link(thing)
            linked.append(thing)
    try:
        yield
    finally:
        for owner in linked:
            scene.collection.objects.unlink(owner)
        for thing, field, before in reversed(undo):
            setattr(thing, field, before)


def _is_hair(part):
    return isinstance(part, bpy.types.ParticleSystem) and part.settings.type == "HAIR"


def _unbaked(found, why):
    return Refusal(
        "unbaked",
        f"cannot be baked: {names(found)}; {why}; bake it in Blender and save, or render it standing still with "
        "--no-bake",
    )
