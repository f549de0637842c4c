"""Which GPUs are enabled of those that Cycles lists: this machine may have none, so the list is made up here."""

import os
import sys
import types

import bpy

sys.path.insert(0, sys.argv[sys.argv.index("--") + 1])

from kiln_host import devices  # noqa: E402


class Listed:
    def __init__(self, kind, number):
        self.type, self.id, self.name, self.use = kind, f"{kind}_{number}", f"{kind} {number}", True


class Preferences:
    compute_device_type = "NONE"

    def __init__(self):
        self.devices = [Listed("CUDA", 0), Listed("CUDA", 1), Listed("OPTIX", 0), Listed("OPTIX", 1), Listed("CPU", 0)]

    def get_devices_for_type(self, kind):
        return [device for device in self.devices if device.type in (kind, "CPU")]


def enabled(wanted, gpus):
    preferences = Preferences()
    devices.cycles_preferences = lambda: preferences
    scene = types.SimpleNamespace(
        cycles=types.SimpleNamespace(device="CPU"), render=types.SimpleNamespace(engine="CYCLES")
    )
    session = types.SimpleNamespace(scene=scene, device=wanted, gpus=gpus)
    told = devices.choose(session, None)
    used = [device.name for device in preferences.devices if device.use]
    assert told == ", ".join(used), (told, used)
    # Another scene of the file, as its compositor or a strip may show it.
    assert scene.cycles.device == bpy.context.scene.cycles.device == "GPU"
    return used


assert enabled("cuda", []) == ["CUDA 0", "CUDA 1"]
assert enabled("cuda", [0]) == ["CUDA 0"]
assert enabled("optix", [1]) == ["OPTIX 1"]
assert enabled("cuda", [0, 1]) == ["CUDA 0", "CUDA 1"]
assert enabled("cuda", [3]) == ["CUDA 1"], "a longer list of another maker is counted"
try:
    enabled("hip", [0])
except devices.Refusal as refusal:
    assert refusal.cause == "device-missing", refusal.cause
else:
    raise AssertionError("a GPU that is not there was used")


def tree_of(scene):
    if hasattr(scene, "compositing_node_group"):
        scene.compositing_node_group = bpy.data.node_groups.new("tree", "CompositorNodeTree")
        return scene.compositing_node_group
    scene.use_nodes = True
    return scene.node_tree


def told(wanted, gpu):
    """What a scene is told of two others, the second of which only the first shows."""
    notices = []
    for one in (layer, strip):
        one.render.engine, one.cycles.device = "CYCLES", gpu
    session = types.SimpleNamespace(scene=main, device=wanted, gpus=[], notice=notices.append)
    used = devices.choose(session, None)
    return used, notices, {one.cycles.device for one in (main, layer, strip)}


main, layer, strip = bpy.context.scene, bpy.data.scenes.new("Layer"), bpy.data.scenes.new("Strip")
main.render.engine = "BLENDER_WORKBENCH"
node = tree_of(main).nodes.new("CompositorNodeRLayers")
node.scene = layer
editor = layer.sequence_editor_create()
strips = editor.strips if hasattr(editor, "strips") else editor.sequences
strips.new_scene("S", strip, 1, 1)
assert told("cpu", "CPU") == ("CPU", [], {"CPU"})
used, notices, set_to = told("cpu", "GPU")
assert (used, set_to) == ("CPU", {"CPU"})
assert len(notices) == 2 and "“Layer” is set to GPU" in notices[0] and "“Strip”" in notices[1], notices
preferences = Preferences()
devices.cycles_preferences = lambda: preferences
assert told("optix", "CPU") == ("OPTIX 0, OPTIX 1", [], {"GPU"}), told("optix", "CPU")
try:
    told("hip", "GPU")
except devices.Refusal as refusal:
    assert refusal.cause == "device-missing", refusal.cause
else:
    raise AssertionError("a scene that the compositor shows rendered on the CPU")
node.mute = True
assert told("optix", "GPU")[0] == "OPTIX (by BLENDER_WORKBENCH)"
print("as it should be", flush=True)
os._exit(0)
