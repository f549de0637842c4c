"""The artist's colour configuration, which Blender read from OCIO when it started."""

import os

import bpy

from .errors import Refusal


def check():
    """From 4.0 Blender takes its own configuration, and prints a line, where it cannot read the one it was given."""
    path = os.environ.get("OCIO")
    if not path or path.endswith(".ocioz"):
        return
    try:
        with open(path, encoding="utf-8", errors="replace") as config:
            text = config.read(16 << 20)
    except OSError:
        text = ""
    spaces = bpy.types.ColorManagedInputColorspaceSettings.bl_rna.properties["name"].enum_items.keys()
    # Roles and names that a configuration derives may be among them; of another one most are unknown.
    known = sum(name in text for name in spaces)
    if 2 * known < len(spaces):
        raise Refusal(
            "bad-setting",
            f"Blender {bpy.app.version_string} cannot read the colour configuration {os.path.basename(path)}; the "
            "log says why",
        )
