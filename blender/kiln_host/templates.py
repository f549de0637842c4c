"""Path templates: what `{scene_name}` and the like become in an output path, from Blender 4.5 on.

Blender expands them with what the worker's process has open. The artist's folder and the name of the .blend are others
there, so Kiln expands them itself and gives Blender the finished names. crates/client/src/template.rs has the same rules.
"""

import math
import ntpath
import os
import posixpath
import re

import bpy

# Before, braces stand for themselves.
KNOWN = bpy.app.version >= (4, 5, 0)
# Before, the file's name, the rate and the size were all.
_MORE = bpy.app.version >= (5, 0, 0)
# What Blender replaces in the name of a datablock.
_UNSAFE = re.compile(r'[\x01-\x1f/\\?*:|"<>]')
_MOST_DIGITS = 255


class BadTemplate(Exception):
    """The reason why Blender would not write to a path: a fragment of a sentence."""


class Variables:
    """The values of the variables in a path of the scene: its camera at the frame, and that of nodes."""

    def __init__(self, session, scene, camera, camera_of_nodes):
        render = scene.render
        self._session = session
        self._camera_of_nodes = camera_of_nodes
        artists = session.artists_path
        self.values = values = {
            "blend_name": _name(artists),
            "resolution_x": render.resolution_x * render.resolution_percentage // 100,
            "resolution_y": render.resolution_y * render.resolution_percentage // 100,
            "fps": render.fps / render.fps_base,
        }
        if _MORE:
            values["blend_dir"] = _folder(artists)
            self._of_library(values, scene)
            values["scene_name"] = _safe(scene.name)
            if camera:
                values["camera_name"] = _safe(camera.name)

    def of_node(self, node):
        """The same in a path of a node."""
        if not _MORE:
            return self.values
        values = dict(self.values, node_name=_safe(node.name))
        values.pop("camera_name", None)
        if self._camera_of_nodes:
            values["camera_name"] = _safe(self._camera_of_nodes.name)
        self._of_library(values, node.id_data)
        return values

    def _of_library(self, values, owner):
        path = self._session.artists_library(owner.library) if owner.library else self._session.artists_path
        values["blend_name_lib"], values["blend_dir_lib"] = _name(path), _folder(path)


def camera_at(scene, frame):
    """The camera that the scene's markers choose at a frame, as Blender chooses it."""
    now = int(frame * scene.render.frame_map_old / scene.render.frame_map_new)
    bound = [marker for marker in scene.timeline_markers if marker.camera and not marker.camera.hide_render]
    if not bound:
        return scene.camera
    before = [marker for marker in bound if marker.frame <= now]
    # Of several at one frame, the first in Blender's list.
    chosen = max(before, key=lambda marker: marker.frame) if before else min(bound, key=lambda marker: marker.frame)
    return chosen.camera


def expand(text, values):
    """The path that Blender makes of a template."""
    if not KNOWN or ("{" not in text and "}" not in text):
        return text
    done, at = [], 0
    while at < len(text):
        letter = text[at]
        if letter not in "{}":
            done.append(letter)
            at += 1
        elif text[at + 1 : at + 2] == letter:
            done.append(letter)
            at += 2
        elif letter == "}":
            raise BadTemplate("it has a } without a { before it")
        else:
            end = next((i for i in range(at + 1, len(text)) if text[i] in "{}"), len(text))
            if text[end : end + 1] != "}":
                raise BadTemplate(f"the brace of {text[at:end]} is not closed")
            done.append(_value(text[at + 1 : end], values))
            at = end + 1
    return "".join(done)


def escape(text):
    """The template that becomes this text."""
    return text.replace("{", "{{").replace("}", "}}") if KNOWN else text


def without(text, values):
    """The path, or a name alike where there is none."""
    try:
        return expand(text, values)
    except BadTemplate:
        return re.sub("[{}]", "_", text)


def _value(expression, values):
    name, colon, form = expression.partition(":")
    if colon:
        digits = re.fullmatch(r"(#*)(?:(\.)(#+))?", form)
        if not form or not digits or max(len(digits[1]), len(digits[3] or "")) > _MOST_DIGITS:
            raise BadTemplate(f"{form or 'nothing'} is no form of a number in {{{expression}}}; write ### or ##.##")
    if name not in values:
        raise BadTemplate(f"Blender {bpy.app.version[0]}.{bpy.app.version[1]} has no value for {{{name}}} in it")
    value = values[name]
    if isinstance(value, str):
        if colon:
            raise BadTemplate(f"{{{name}}} is a text, which takes no form ({form})")
        return value
    if not colon:
        return repr(value)
    whole, after = len(digits[1]), len(digits[3] or "")
    if isinstance(value, float) and digits[2]:
        return f"{value:0{whole + after + 1}.{after}f}" if whole else f"{value:.{after}f}"
    if isinstance(value, float):
        # Blender rounds a half away from zero.
        value = math.floor(value + 0.5)
    return f"{value:0{whole}d}" + ("." + "0" * after if after else "") if whole else f"{value}.{'0' * after}"


def _safe(name):
    name = _UNSAFE.sub("_", name)
    return "_" + name[1:] if name and not name.strip(".") else name


def _kind(path):
    return ntpath if path[1:2] == ":" or path.startswith("\\\\") else posixpath


def _name(path):
    return os.path.splitext(_kind(path).basename(path))[0]


def _folder(path):
    """With its slash at the end; the .blend's own, by another name, where that is not known."""
    name = _kind(path).basename(path)
    return path[: len(path) - len(name)] or "//"
