"""Shows a scene the path that its .blend has on the artist's machine.

Blender writes the path of the open file into stamps and into the metadata of pictures, and handlers read it as
`bpy.data.filepath`. All of them read one text in Blender's memory, in which the artist's path is in place while a frame
renders. Names that begin with `//` are resolved by the same text: those that Blender reads while it renders are made
absolute before. What it reads while it evaluates a scene (disk caches have no name that could be made absolute) is
read by the path that the file has here: the dependency graph says when it begins and when it has done.
"""

import contextlib
import ctypes
import ntpath
import os
import posixpath

import bpy

from . import remap
from .handlers import Silence, is_ours

_ROOM = 1024  # bytes of Blender's text, with the NUL at its end
_BEFORE = 64  # bytes at most in front of it

BEFORE_FRAMES = ("render_init", "render_pre", "frame_change_pre", "frame_change_post")

# That of the session that renders a frame now.
_shown = []
# Where the open file lies, while another path is shown.
_from = []
_abspath = bpy.path.abspath


def spelled(origin, name):
    """The artist's path, in the spelling of the artist's system. Where the folder is not known, the name alone."""
    if not origin:
        return name
    windows = "\\" in origin or origin[1:2] == ":"
    kind = ntpath if windows else posixpath
    # As Blender spells the path of a file that it opens.
    return kind.normpath(kind.join(origin, name))


class _Text:
    """The text in Blender's memory that is the path of the open file."""

    def __init__(self, session):
        self.real = bpy.data.filepath
        self.artists = session.artists_path
        text = os.fsencode(self.artists)[: _ROOM - 1]
        self._texts = {True: text, False: os.fsencode(self.real)}
        self.differs = self.artists != self.real
        self.known = self.differs and self._find(os.fsdecode(text))

    def _find(self, artists):
        """Returns whether the text is where it was in all versions so far."""
        known = self._texts[False] + b"\0"
        self._offset = ctypes.string_at(bpy.data.as_pointer(), _BEFORE + len(known)).find(known)
        if self._offset < 0:
            return False
        self.show(True)
        found = bpy.data.filepath == artists
        self.show(False)
        return found and bpy.data.filepath == self.real

    def show(self, artists):
        ctypes.memmove(bpy.data.as_pointer() + self._offset, self._texts[artists].ljust(_ROOM, b"\0"), _ROOM)


class ArtistPath:
    """Of the file that is open."""

    def __init__(self, session):
        self._text = _Text(session)
        self.scene = session.scene
        self.renders = False
        if not self._text.known:
            if self._text.differs:
                session.notice("stamps and metadata show the path that the .blend has on the worker")
            return
        with Silence():
            make_absolute()
        _place_handlers()
        if session.trust:
            # Drivers are evaluated while the real path is in its place.
            data = _Instead(bpy.data, filepath=self._text.artists)
            bpy.app.driver_namespace["bpy"] = _Instead(bpy, data=data)

    def show(self, artists):
        self._text.show(artists)

    @contextlib.contextmanager
    def shown(self):
        """Around the render of a frame: what Blender evaluates before and after it needs the real path."""
        if not self._text.known:
            yield
            return
        _shown.append(self)
        _from.append(self._text.real)
        try:
            yield
        finally:
            _shown.clear()
            _from.clear()
            self.show(False)


@contextlib.contextmanager
def opening(session):
    """Around the opening of a file: its own `load_post` handlers see the artist's path."""
    handlers, texts = bpy.app.handlers.load_post, []

    @bpy.app.handlers.persistent
    def first(*_):
        text = _Text(session)
        if text.known:
            texts.append(text)
            _from.append(text.real)
            handlers.append(last)
            text.show(True)

    @bpy.app.handlers.persistent
    def last(*_):
        # Behind them Blender evaluates the scene.
        _from.clear()
        while texts:
            texts.pop().show(False)

    if session.trust:
        handlers.append(first)
    try:
        yield
    finally:
        # Also where a script has emptied the list.
        last()
        handlers[:] = [handler for handler in handlers if handler not in (first, last)]


class _Instead:
    """Something with other attributes."""

    def __init__(self, thing, **others):
        self.__dict__.update(others, _thing=thing)

    def __getattr__(self, name):
        return getattr(self._thing, name)


def make_absolute():
    """Makes the relative names of the main .blend absolute; a library's names are relative to the library, wherever it is named."""
    bpy.ops.file.make_paths_absolute()
    # What Blender leaves out.
    for library in bpy.data.libraries:
        _absolute(library, "filepath")
    for camera in bpy.data.cameras:
        _absolute(camera, "custom_filepath")
    for tree in remap.trees():
        if not tree.library:
            for node in tree.nodes:
                if node.bl_idname in ("ShaderNodeScript", "ShaderNodeTexIES"):
                    _absolute(node, "filepath")
                # Of another scene, that a strip shows: never written where the artist's files are.
                for field in ("base_path", "directory") if node.bl_idname == "CompositorNodeOutputFile" else ():
                    _absolute(node, field)


def _absolute(owner, field):
    name = getattr(owner, field, None)
    block = owner.id_data
    if isinstance(name, str) and name.startswith("//") and not block.library:
        setattr(owner, field, bpy.path.abspath(name))


@bpy.app.handlers.persistent
def _at_begin(*_):
    for path in _shown:
        path.renders = True
        path.show(True)


@bpy.app.handlers.persistent
def _at_end(scene=None, *_):
    for path in _shown:
        # A scene strip's own render ends inside the scene's.
        if scene == path.scene:
            path.renders = False
            path.show(False)


@bpy.app.handlers.persistent
def _before_evaluation(*_):
    for path in _shown:
        path.show(False)


@bpy.app.handlers.persistent
def _after_evaluation(*_):
    for path in _shown:
        path.show(path.renders)


@bpy.app.handlers.persistent
def _after_scripts(*_):
    """A script may have set a relative name for this frame."""
    if _shown and any(not is_ours(handler) for name in BEFORE_FRAMES for handler in getattr(bpy.app.handlers, name)):
        for image in bpy.data.images:
            # The other field would make Blender read the file a second time.
            _absolute(image, "filepath_raw")
        for blocks in (bpy.data.movieclips, bpy.data.volumes, bpy.data.fonts):
            for block in blocks:
                _absolute(block, "filepath")


def _from_here(path, start=None, library=None):
    """`bpy.path.abspath` with the folder in which the file lies, not the artist's."""
    if _from and start is None and library is None:
        start = os.path.dirname(_from[0])
    return _abspath(path, start=start, library=library)


def _place_handlers():
    """The scene's own handlers see the artist's path, before and after the scene is evaluated."""
    for name, first, last in PLACES:
        handlers = getattr(bpy.app.handlers, name)
        handlers[:] = [handler for handler in handlers if handler not in (first, last)]
        if first:
            handlers.insert(0, first)
        if last:
            handlers.append(last)


# Handlers in front of those of the scene, and behind them.
PLACES = (
    ("render_init", _at_begin, None),
    ("frame_change_pre", None, _before_evaluation),
    ("frame_change_post", _after_evaluation, _after_scripts),
    ("render_complete", None, _at_end),
    ("render_cancel", None, _at_end),
)
bpy.path.abspath = _from_here
