"""Physics."""

import bpy
from kit import feature


@feature("Physics / Rigid body: falls", sim=True)
def rigid(s):
    bpy.ops.rigidbody.world_add()
    s.active(s.subject)
    s.subject.location.z = 2
    bpy.ops.rigidbody.object_add()
