"""The handlers of the scene's scripts: when they hear of changes, when they go, and what they raise."""

import sys

import bpy

# Kiln evaluates the scene outside of a render, and so does the render operator. `-f N` does not, and sends none of these.
CHANGES = ("frame_change_pre", "frame_change_post", "depsgraph_update_pre", "depsgraph_update_post")

# By list: the handlers of Blender and of add-ons. Filled before the first file is opened.
_not_of_files = {}


def remove_of_files():
    """Removes what an earlier opening of a file left. A handler that its script made persistent survives the next opening
    and would run twice, because the script registers it once more."""
    lists = {name: listed for name in dir(bpy.app.handlers) if isinstance(listed := getattr(bpy.app.handlers, name), list)}
    if not _not_of_files:
        _not_of_files.update({name: list(listed) for name, listed in lists.items()})
        return
    for name, listed in lists.items():
        kept = _not_of_files.get(name, [])
        listed[:] = [handler for handler in listed if handler in kept or is_ours(handler)]


def is_ours(handler):
    """True for a handler of Kiln, false for one of the scene or of an add-on."""
    return str(getattr(handler, "__module__", "")).startswith(__package__)


class Silence:
    """While it lasts, the scene's handlers do not hear of changes. Use it around every evaluation that is Kiln's."""

    def __init__(self):
        self._kept = {}

    def __enter__(self):
        self.begin()

    def __exit__(self, *_):
        self.end()

    def begin(self):
        for name in CHANGES:
            listed = getattr(bpy.app.handlers, name)
            self._kept.setdefault(name, []).extend(listed)
            listed.clear()

    def end(self):
        for name, kept in self._kept.items():
            getattr(bpy.app.handlers, name)[:0] = kept
        self._kept.clear()


class Errors:
    """While it lasts, keeps the first exception of a handler until the picture is written. Blender prints it and renders
    on. The handlers themselves stay as they are: scripts look for their own in Blender's lists."""

    def __init__(self):
        self.first = None  # the exception and the handler's name
        self._print = sys.excepthook
        self._listens = True

    def __enter__(self):
        self._print, sys.excepthook = sys.excepthook, self._heard
        bpy.app.handlers.render_write.insert(0, self._written)
        return self

    def __exit__(self, *_):
        sys.excepthook = self._print
        if self._written in bpy.app.handlers.render_write:
            bpy.app.handlers.render_write.remove(self._written)

    def _heard(self, kind, error, trace):
        self._print(kind, error, trace)
        code = trace.tb_frame.f_code if trace else None
        # Blender prints and disables a driver that fails, on the command line too.
        if self._listens and self.first is None and code and code.co_filename != "<bpy driver>":
            self.first = error.with_traceback(trace), code.co_name

    def _written(self, *_):
        self._listens = False
