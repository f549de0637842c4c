"""The CPU, or the GPUs of one backend: what was asked for, or nothing."""

import bpy

from . import outputs
from .errors import Refusal
from .probe import cycles_preferences


def _absent(backend):
    return Refusal(
        "device-missing",
        f"the job asks for a GPU ({backend}), and this machine has none that Blender can use; it is not rendered "
        "on the CPU instead",
    )


def picked(devices, places):
    """The devices at these places, or every one. A machine with GPUs of two makers counts the longer list: a place that
    is not in this one means another of it."""
    if not places or not devices:
        return devices
    wanted = {place % len(devices) for place in places}
    return [device for place, device in enumerate(devices) if place in wanted]


def _others(scene):
    """The scenes that render for this one besides itself: its compositor or its strips show them, or theirs do."""
    found, left = [], [scene]
    while left:
        one = left.pop()
        if one in found:
            continue
        found.append(one)
        nodes = outputs.nodes_of(outputs.composited(one))
        left += [node.scene for node in nodes if node.type == "R_LAYERS" and node.scene]
        editor = one.sequence_editor if one.render.use_sequencer else None
        strips = getattr(editor, "strips_all", None) or getattr(editor, "sequences_all", ())
        left += [strip.scene for strip in strips if strip.type == "SCENE" and strip.scene and not strip.mute]
    return [one for one in found[1:] if one.render.engine == "CYCLES"]


def _set_device(scene, device):
    """Also of every other scene: its compositor or its strips may render them, and a job has one device."""
    for one in (scene, *bpy.data.scenes):
        if hasattr(one, "cycles"):
            one.cycles.device = device


def choose(session, made_up):
    """Sets backend and devices, which an empty profile leaves at none, and reads back what is used."""
    scene, wanted = session.scene, session.device
    if wanted == "cpu":
        # A scene that is set to GPU itself, and all the same renders on the CPU, was asked about before.
        if scene.render.engine != "CYCLES" or scene.cycles.device != "GPU":
            for other in _others(scene):
                if other.cycles.device == "GPU":
                    session.notice(
                        f"the scene “{other.name}” is set to GPU, and “{scene.name}”, which shows it, is not: both render "
                        "on the CPU (--device gpu renders both on a GPU)"
                    )
        _set_device(scene, "CPU")
        return "CPU"
    if wanted == "gpu":
        # The farm chooses a backend before a session is opened: a picture must not depend on who happens to open it.
        raise Refusal("device-missing", "the job asks for a GPU, and which backend that is was not decided")
    backend = wanted.upper()
    if made_up is not None and not any(device["backend"] == wanted for device in made_up):
        raise _absent(backend)
    if scene.render.engine != "CYCLES" and not _others(scene):
        return f"{backend} (by {scene.render.engine})"
    preferences = cycles_preferences()
    try:
        preferences.compute_device_type = backend
        listed = preferences.get_devices_for_type(backend)
    except (AttributeError, TypeError, ValueError):
        raise _absent(backend) from None
    mine = {device.id for device in picked([d for d in listed if d.type == backend], session.gpus)}
    for device in preferences.devices:
        device.use = device.type == backend and device.id in mine
    used = [device.name for device in listed if device.type == backend and device.use]
    _set_device(scene, "GPU")
    if not used or preferences.compute_device_type != backend or scene.cycles.device != "GPU":
        raise _absent(backend)
    return ", ".join(used)
