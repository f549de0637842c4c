"""The handlers of the scene's scripts: when they hear of changes, and when they go."""

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
        listed[:] = [h for h in listed if h in kept or getattr(h, "__wrapped__", None) in kept or _is_ours(h)]


def _is_ours(handler):
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
