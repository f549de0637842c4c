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
print("as it should be", flush=True)
os._exit(0)
