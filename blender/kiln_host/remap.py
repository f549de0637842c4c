"""Points a .blend that is open at the files of its bundle, where its names do not resolve by themselves.

The keys of the table are what names mean, as crates/blend/src/meaning.rs writes them: `/` between parts, no `.` and as
few `..` as can be, relative ones (`//`) from the main .blend's folder whichever library has them, and a byte that
is no Unicode as NUL and two hexadecimal digits. So one table serves the .blend and all its libraries.
"""

import contextlib
import posixpath

import bpy

from .channel import unspelled

PATH_BLOCKS = ("images", "fonts", "movieclips", "sounds", "volumes", "cache_files", "texts")
NODE_OWNERS = ("materials", "worlds", "lights", "textures", "linestyles", "scenes")


@contextlib.contextmanager
def elsewhere(remap, relative=False):
    """Points what is opened inside elsewhere before Blender evaluates it for the first time: what a simulation
    did not find then, Blender 4.2 does not look for again."""
    errors = []

    @bpy.app.handlers.persistent
    def point(*_):
        try:
            point_elsewhere(remap, relative)
        except Exception as error:  # noqa: BLE001: Blender would print it, and go on
            errors.append(error)

    bpy.app.handlers.load_post.append(point)
    try:
        yield
    finally:
        bpy.app.handlers.load_post.remove(point)
    if errors:
        raise errors[0]


def point_elsewhere(remap, relative=False):
    """`remap` leads from meanings to absolute places. Nothing is saved; with `relative`, what belongs to the main
    .blend gets names relative to it, for those who save it afterwards."""
    if not remap:
        return
    table = _Table(remap, relative)
    for name in PATH_BLOCKS:
        for block in getattr(bpy.data, name):
            _block(table, block)
    for camera in bpy.data.cameras:
        table.set(camera, camera, "custom_filepath")  # from 5.0: a camera in OSL
    for tree in trees():
        for node in tree.nodes:
            _node(table, tree, node)
    for thing in bpy.data.objects:
        for modifier in thing.modifiers:
            _modifier(table, thing, modifier)
        for system in thing.particle_systems:
            _point_cache(table, thing, system.point_cache)
    for scene in bpy.data.scenes:
        if scene.rigidbody_world:
            _point_cache(table, scene, scene.rigidbody_world.point_cache)
        editor = scene.sequence_editor
        if editor:
            for strip in editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all:
                _strip(table, scene, strip)


def meaning(name, folder):
    """Blender too takes a backslash for a slash, and a name of a Windows share for a relative one, on other systems."""
    name = name.replace("\\", "/")
    if name.startswith("//"):
        name = f"{folder}/{name[2:]}"
    elif not name.startswith("/") and name[1:3] != ":/":
        name = f"{folder}/{name}"
    return posixpath.normpath(name)


class Unused:
    """Names of files that may be missing, because nothing that renders uses them. The keys are like those of a table
    that points elsewhere; what they lead to is compared, so a file that is open tells what its names mean."""

    def __init__(self, keys):
        self._folder = _folder(bpy.data.filepath)
        self._paths = {meaning(unspelled(key), self._folder) for key in keys}

    def __contains__(self, path):
        """`path` is absolute, or beside the .blend."""
        return bool(self._paths) and meaning(path, self._folder) in self._paths


class _Table:
    def __init__(self, remap, relative):
        self._folder = _folder(bpy.data.filepath)
        self._relative = relative
        self._places = {meaning(unspelled(key), self._folder): place for key, place in remap.items()}

    def find(self, block, name):
        """The place that a name in `block` shall lead to; None where it stays as it is."""
        return self._places.get(self.meaning(block, name)) if name else None

    def meaning(self, block, name):
        folder = self._folder
        # The name of a library always is relative to the main .blend, also where another library named it.
        if block.library and not isinstance(block, bpy.types.Library):
            folder = _folder(meaning(block.library.filepath, folder))
        return meaning(name, folder)

    def spelled(self, block, place):
        return bpy.path.relpath(place) if self._relative and not block.library else place

    def set(self, block, owner, field):
        """True where the field has changed."""
        name = getattr(owner, field, None)
        place = self.find(block, name) if isinstance(name, str) else None
        if place is None or self.spelled(block, place) == name:
            return False
        setattr(owner, field, self.spelled(block, place))
        return True


def _folder(path):
    return posixpath.dirname(path.replace("\\", "/"))


def _block(table, block):
    changed = table.set(block, block, "filepath")
    for layer in getattr(block, "layers", ()) if isinstance(block, bpy.types.CacheFile) else ():
        table.set(block, layer, "filepath")
    if changed and getattr(block, "use_multiview", False):
        # Names of the views are made from the name of the image.
        block.views_format = block.views_format


def trees():
    yield from bpy.data.node_groups
    for name in NODE_OWNERS:
        for owner in getattr(bpy.data, name):
            if getattr(owner, "node_tree", None):
                yield owner.node_tree


def _node(table, tree, node):
    if node.bl_idname in ("ShaderNodeScript", "ShaderNodeTexIES"):
        table.set(tree, node, "filepath")
    for socket in node.inputs:
        if socket.type == "STRING" and _is_path(socket.default_value):
            table.set(tree, socket, "default_value")


def _modifier(table, thing, modifier):
    kind = modifier.type
    if kind in ("MESH_CACHE", "OCEAN"):
        table.set(thing, modifier, "filepath")
    elif kind == "MULTIRES" and modifier.is_external:
        table.set(thing, modifier, "filepath")
    elif kind == "FLUID" and modifier.fluid_type == "DOMAIN":
        table.set(thing, modifier.domain_settings, "cache_directory")
    elif kind == "NODES":
        for field in ("simulation_bake_directory", "bake_directory"):
            table.set(thing, modifier, field)
        for bake in getattr(modifier, "bakes", ()):
            table.set(thing, bake, "directory")
        for name, value in modifier.items():
            place = table.find(thing, value) if isinstance(value, str) and _is_path(value) else None
            if place is not None:
                modifier[name] = table.spelled(thing, place)
    elif kind in ("CLOTH", "SOFT_BODY"):
        _point_cache(table, thing, modifier.point_cache)
    elif kind == "DYNAMIC_PAINT" and modifier.canvas_settings:
        for surface in modifier.canvas_settings.canvas_surfaces:
            _point_cache(table, thing, surface.point_cache)


def _is_path(text):
    """A text that nodes are given may be anything: only what is a path by itself counts."""
    return text.startswith(("/", "\\\\")) or text[1:3] in (":/", ":\\")


def _point_cache(table, owner, cache):
    if cache and cache.use_external:
        table.set(owner, cache, "filepath")


def _strip(table, scene, strip):
    if strip.type == "MOVIE":
        table.set(scene, strip, "filepath")
    elif strip.type == "IMAGE":
        names = [strip.directory + element.filename for element in strip.elements]
        if not any(table.find(scene, name) for name in names):
            return
        # One folder holds all elements, wherever they came to lie.
        places = [table.find(scene, name) or table.meaning(scene, name) for name in names]
        places = [place.replace("\\", "/") for place in places]
        folder = posixpath.commonpath([posixpath.dirname(place) for place in places])
        strip.directory = table.spelled(scene, folder) + "/"
        for element, place in zip(strip.elements, places):
            element.filename = posixpath.relpath(place, folder)
