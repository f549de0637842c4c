"""Animation & rigging: armatures, poses, bones."""

import math

import bpy
from kit import feature


def armature(s, bones=3, length=0.7):
    """A chain of bones along Z, and a mesh that it bends."""
    s.without_subject()
    data = bpy.data.armatures.new("Rig")
    rig = s.object("Rig", data)
    s.active(rig)
    bpy.ops.object.mode_set(mode="EDIT")
    last = None
    for index in range(bones):
        bone = data.edit_bones.new(f"Bone{index}")
        bone.head, bone.tail = (0, 0, index * length), (0, 0.02 * (index == 1), (index + 1) * length)
        bone.parent, bone.use_connect = last, last is not None
        last = bone
    bpy.ops.object.mode_set(mode="OBJECT")
    points, faces = [], []
    for ring in range(bones * 3 + 1):
        z = ring * length / 3
        points += [(0.35, 0.35, z), (-0.35, 0.35, z), (-0.35, -0.35, z), (0.35, -0.35, z)]
        if ring:
            low, high = 4 * ring - 4, 4 * ring
            faces += [(low + i, low + (i + 1) % 4, high + (i + 1) % 4, high + i) for i in range(4)]
    faces.append((len(points) - 4, len(points) - 3, len(points) - 2, len(points) - 1))
    skin = s.mesh("Skin", points, faces)
    s.material(skin, (0.2, 0.6, 0.3, 1))
    for index in range(bones):
        group = skin.vertex_groups.new(name=f"Bone{index}")
        for point in skin.data.vertices:
            distance = abs(point.co.z / length - index - 0.5)
            if distance < 1:
                group.add([point.index], 1 - distance, "ADD")
    modifier = skin.modifiers.new("Armature", "ARMATURE")
    modifier.object = rig
    return rig, skin, modifier


def turn(s, bone, values=(0.0, 0.5, 1.1), axis=0):
    bone.rotation_mode = "XYZ"
    s.key(bone, "rotation_euler", list(values), index=axis)


@feature("Animation / Armatures: forward kinematics")
def forward(s):
    rig, _, _ = armature(s)
    turn(s, rig.pose.bones["Bone1"])
    turn(s, rig.pose.bones["Bone2"], (0.4, 0.1, -0.5))


@feature("Animation / Armatures: preserve volume")
def volume(s):
    rig, _, modifier = armature(s)
    modifier.use_deform_preserve_volume = True
    turn(s, rig.pose.bones["Bone1"], (0.0, 1.0, 2.0), 1)


@feature("Animation / Armatures: envelopes")
def envelopes(s):
    rig, _, modifier = armature(s)
    modifier.use_vertex_groups, modifier.use_bone_envelopes = False, True
    for bone in rig.data.bones:
        bone.envelope_distance = 0.5
    turn(s, rig.pose.bones["Bone1"])


@feature("Animation / Armatures: bendy bones")
def bendy(s):
    rig, _, _ = armature(s)
    rig.data.bones["Bone1"].bbone_segments = 6
    s.key(rig.pose.bones["Bone1"], "bbone_curveinx", [0.0, 0.5, -0.6])
    s.key(rig.pose.bones["Bone1"], "bbone_rollout", [0.0, 0.5, 1.5])


@feature("Animation / Armatures: stretch and squash of a bone")
def stretch(s):
    rig, _, _ = armature(s)
    s.key(rig.pose.bones["Bone1"], "scale", [(1, 1, 1), (0.7, 1.4, 0.7), (1.5, 0.7, 1.5)])


@feature("Animation / Armatures: inverse kinematics, the target moves")
def inverse(s):
    rig, _, _ = armature(s)
    target = s.empty("Target", (0.8, 0.2, 1.0))
    s.move(target)
    rig.pose.bones["Bone2"].constraints.new("IK").target = target


@feature("Animation / Armatures: inverse kinematics with a pole, limits and stiffness")
def inverse_pole(s):
    rig, _, _ = armature(s)
    target, pole = s.empty("Target", (0.8, 0.2, 1.0)), s.empty("Pole", (0, -3, 1))
    s.move(target)
    s.key(pole, "location", [-2.0, 0.0, 2.0], index=0)
    constraint = rig.pose.bones["Bone2"].constraints.new("IK")
    constraint.target, constraint.pole_target, constraint.chain_count = target, pole, 3
    bone = rig.pose.bones["Bone1"]
    bone.ik_stiffness_x, bone.use_ik_limit_x, bone.ik_max_x = 0.4, True, 1.0


@feature("Animation / Armatures: inverse kinematics blended with keys")
def inverse_blend(s):
    rig, _, _ = armature(s)
    target = s.empty("Target", (1.0, 0.4, 0.8))
    constraint = rig.pose.bones["Bone2"].constraints.new("IK")
    constraint.target = target
    s.key(constraint, "influence", [0.0, 0.5, 1.0])
    turn(s, rig.pose.bones["Bone0"], (0.0, 0.2, 0.4), 1)


for mode in ("ANIMATION", "SIMULATION"):

    @feature(f"Animation / Armatures: iTaSC, {mode.lower()}", mode)
    def itasc(s, mode):
        rig, _, _ = armature(s)
        rig.pose.ik_solver = "ITASC"
        rig.pose.ik_param.mode = mode
        target = s.empty("Target", (0.8, 0.2, 1.0))
        s.move(target)
        rig.pose.bones["Bone2"].constraints.new("IK").target = target


@feature("Animation / Armatures: spline IK")
def spline(s):
    rig, _, _ = armature(s)
    data = bpy.data.curves.new("Path", "CURVE")
    data.dimensions = "3D"
    path = data.splines.new("NURBS")
    path.points.add(3)
    for index, place in enumerate(((0, 0, 0, 1), (0.5, 0.3, 0.8, 1), (-0.3, 0.4, 1.5, 1), (0.4, 0, 2.2, 1))):
        path.points[index].co = place
    path.use_endpoint_u, path.order_u = True, 4
    curve = s.object("Path", data)
    for index in (1, 3):
        x, y, z, w = path.points[index].co
        s.key(path.points[index], "co", [(x, y, z, w), (-x, y, z, w), (x, y + 0.8, z, w)])
    constraint = rig.pose.bones["Bone2"].constraints.new("SPLINE_IK")
    constraint.target, constraint.chain_count = curve, 3


@feature("Animation / Armatures: driver on a bone")
def bone_driver(s):
    rig, _, _ = armature(s)
    bone = rig.pose.bones["Bone1"]
    bone.rotation_mode = "XYZ"
    s.drive(bone, "rotation_euler", "frame / 8", index=0)


@feature("Animation / Armatures: custom property of a bone drives a shape key")
def bone_property(s):
    rig, skin, _ = armature(s)
    bone = rig.pose.bones["Bone0"]
    bone["fat"] = 0.0
    s.key(bone, '["fat"]', [0.0, 0.5, 1.0])
    skin.shape_key_add(name="Basis")
    fat = skin.shape_key_add(name="Fat")
    for point in fat.data:
        point.co.x *= 2
    s.variable(s.drive(fat, "value", "x"), rig, 'pose.bones["Bone0"]["fat"]')


@feature("Animation / Armatures: bone turned by another's transform (driver variable)")
def bone_transform(s):
    rig, _, _ = armature(s)
    turn(s, rig.pose.bones["Bone0"], (0.0, 0.2, 0.5), 1)
    bone = rig.pose.bones["Bone2"]
    bone.rotation_mode = "XYZ"
    driver = s.drive(bone, "rotation_euler", "-2 * x", index=1)
    variable = driver.variables.new()
    variable.name, variable.type = "x", "TRANSFORMS"
    target = variable.targets[0]
    target.id, target.bone_target, target.transform_type, target.transform_space = rig, "Bone0", "ROT_Y", "LOCAL_SPACE"


@feature("Animation / Armatures: object parented to a bone")
def bone_child(s):
    rig, _, _ = armature(s)
    turn(s, rig.pose.bones["Bone1"])
    box = s.box("Hat", 0.8, (0, 0, 0.3))
    box.parent, box.parent_type, box.parent_bone = rig, "BONE", "Bone2"


@feature("Animation / Armatures: a muted bone constraint, and one whose influence is keyed")
def bone_constraint(s):
    rig, _, _ = armature(s)
    target = s.empty("Target", (0, 0, 2))
    s.key(target, "rotation_euler", [0.0, 0.6, 1.2], index=1)
    bone = rig.pose.bones["Bone1"]
    one, other = bone.constraints.new("COPY_ROTATION"), bone.constraints.new("COPY_ROTATION")
    one.target = other.target = target
    other.mute = True
    s.key(one, "influence", [1.0, 0.4, 0.8])


@feature("Animation / Armatures: rest position keyed")
def rest(s):
    rig, _, _ = armature(s)
    turn(s, rig.pose.bones["Bone1"], (0.9, 0.9, 0.9))
    s.key(rig.data, "pose_position", ["POSE", "REST", "POSE"])


@feature("Animation / Armatures: pose without keys, the rig moves")
def pose(s):
    rig, _, _ = armature(s)
    for bone in rig.pose.bones:
        bone.rotation_mode = "XYZ"
        bone.rotation_euler = (0.3, 0.1, 0.2)
    s.key(rig, "rotation_euler", [0.0, 1.0, 2.0], index=2)


@feature("Animation / Armatures: an armature inherits no rotation and no scale")
def inherit(s):
    rig, _, _ = armature(s)
    bone = rig.data.bones["Bone2"]
    bone.use_inherit_rotation, bone.inherit_scale = False, "NONE"
    turn(s, rig.pose.bones["Bone1"])
    s.key(rig.pose.bones["Bone1"], "scale", [(1, 1, 1), (1.4, 1, 1), (0.6, 1, 1)])


@feature("Animation / Armatures: two armatures, the modifiers stacked")
def two(s):
    rig, skin, _ = armature(s)
    data = rig.data.copy()
    other = s.object("Second", data)
    bpy.context.view_layer.update()
    modifier = skin.modifiers.new("Second", "ARMATURE")
    modifier.object, modifier.use_multi_modifier = other, True
    turn(s, rig.pose.bones["Bone1"])
    turn(s, other.pose.bones["Bone2"], (math.pi / 6, 0, 0.3), 1)
