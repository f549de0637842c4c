"""Add-ons that a job brings, enabled for the life of the process, which serves nothing else. Nothing of it is kept
in a profile."""

import os
import sys

import bpy

from .errors import Refusal, of_python

REPOSITORY = "kiln"

_enabled = set()


def enable(paths, trust):
    """Each a Python file, a folder that is a module, or a folder with a manifest (an extension, from 4.2)."""
    for path in paths:
        if path in _enabled:
            continue
        if not trust:
            raise Refusal("bad-setting", "the job brings add-ons, and they are scripts; allow them with --trust")
        _enable(path)
        _enabled.add(path)


def _enable(path):
    import addon_utils

    name = os.path.basename(path)
    raised = []
    if os.path.isfile(os.path.join(path, "blender_manifest.toml")):
        module = _extension(path)
    elif os.path.isfile(os.path.join(path, "__init__.py")) or (os.path.isfile(path) and name.endswith(".py")):
        module = _module(path)
    else:
        raise Refusal(
            "bad-setting",
            f"{name} is no add-on: name a Python file, or the folder that holds the add-on's __init__.py",
        )
    try:
        loaded = addon_utils.enable(module, default_set=True, persistent=True, handle_error=raised.append)
    except Exception as error:
        raised.append(error)
        loaded = None
    if loaded is None:
        if raised:
            raise of_python(raised[0], f"enabling the add-on {name}")
        raise Refusal("bad-setting", f"Blender {bpy.app.version_string} does not take the add-on {name}")


def _module(path):
    folder, name = os.path.split(path)
    module = name[:-3] if name.endswith(".py") else name
    there = sys.modules.get(module)
    if there is not None and not str(getattr(there, "__file__", "")).startswith(path):
        raise Refusal("bad-setting", f"the add-on {name} has the name of a module that Blender itself uses; rename it")
    sys.path.insert(0, folder)
    return module


def _extension(path):
    name = os.path.basename(path)
    if bpy.app.version < (4, 2, 0):
        raise Refusal(
            "bad-setting", f"{name} is an extension, which Blender {bpy.app.version_string} does not know; 4.2 does"
        )
    import tomllib

    try:
        with open(os.path.join(path, "blender_manifest.toml"), "rb") as manifest:
            known_as = tomllib.load(manifest)["id"]
    except (OSError, ValueError, KeyError) as error:
        raise Refusal("bad-setting", f"the manifest of the add-on {name} cannot be read: {error}") from error
    if not str(known_as).isidentifier():
        raise Refusal("bad-setting", f"the add-on {name} has an id that cannot be one: {known_as}")
    repositories = bpy.context.preferences.extensions.repos
    # An extension has its module's name from the folder of the repository that it lies in.
    folder = os.path.join(os.path.expanduser("~"), "extensions")
    os.makedirs(folder, exist_ok=True)
    place = os.path.join(folder, known_as)
    if os.path.lexists(place):
        raise Refusal("bad-setting", f"two of the job's add-ons have the id {known_as}")
    os.symlink(path, place, target_is_directory=True)
    if not any(repository.module == REPOSITORY for repository in repositories):
        repositories.new(name=REPOSITORY, module=REPOSITORY, custom_directory=folder)
    return f"bl_ext.{REPOSITORY}.{known_as}"
