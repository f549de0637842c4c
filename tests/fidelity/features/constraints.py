"""Animation & rigging: constraints of objects and of bones."""


import bpy
from features.modifiers import bezier, skeleton
from kit import feature


def constrain(s, kind, made=None, **values):
    """Adds a constraint to the object (the subject) or bone and sets its values."""
    added = (made or s.subject).constraints.new(kind)
    for name, value in values.items():
        setattr(added, name, value)
    return added


def moving(s, location=(1, 0.5, 1)):
    """An empty that moves and turns, to be followed."""
    target = s.empty("Target", location)
    s.move(target)
    s.key(target, "rotation_euler", (0.2, 0.7, 1.5), index=2)
    return target


# Constraint, section, settings: each follows the target.
FOLLOWS = (
    ("COPY_LOCATION", "all axes", {}),
    ("COPY_LOCATION", "with offset, one axis inverted", {"use_offset": True, "invert_x": True}),
    ("COPY_ROTATION", "all axes", {}),
    ("COPY_ROTATION", "mixed before", {"mix_mode": "BEFORE", "invert_z": True}),
    ("COPY_TRANSFORMS", "replace", {}),
    ("LIMIT_DISTANCE", "on the surface", {"limit_mode": "LIMITDIST_ONSURFACE", "distance": 1.2}),
    ("DAMPED_TRACK", "along X", {"track_axis": "TRACK_X"}),
    ("LOCKED_TRACK", "along X", {"track_axis": "TRACK_X", "lock_axis": "LOCK_Z"}),
    ("TRACK_TO", "along Y", {"track_axis": "TRACK_Y", "up_axis": "UP_Z"}),
    ("STRETCH_TO", "with volume", {"rest_length": 1.0}),
    ("FLOOR", "above the target", {"floor_location": "FLOOR_Z", "offset": 0.4}),
    ("CHILD_OF", "without an inverse", {}),
    ("PIVOT", "around the target", {"rotation_range": "ALWAYS_ACTIVE"}),
)
for kind, section, settings in FOLLOWS:

    @feature(f"Animation / Constraints / {kind.replace('_', ' ').capitalize()}: {section}", kind, settings)
    def follows(s, kind, settings):
        constrain(s, kind, target=moving(s, (1, 0.8, 1)), **settings)
        if kind == "PIVOT":
            s.key(s.subject, "rotation_euler", (0.2, 0.8, 1.6), index=2)


@feature("Animation / Constraints / Copy scale: of an object that grows")
def copy_scale(s):
    target = s.empty("Target")
    s.key(target, "scale", ((1, 1, 1), (0.5, 1.2, 1), (1.4, 0.6, 1.2)))
    constrain(s, "COPY_SCALE", target=target)


@feature("Animation / Constraints / Limit location: keyed limit")
def limit_location(s):
    s.move(s.subject)
    s.key(constrain(s, "LIMIT_LOCATION", use_max_z=True), "max_z", (1.0, 0.6, 0.2))


@feature("Animation / Constraints / Limit rotation: of a turn that goes on")
def limit_rotation(s):
    s.key(s.subject, "rotation_euler", (0.2, 1.0, 3.0), index=2)
    constrain(s, "LIMIT_ROTATION", use_limit_z=True, min_z=0.4, max_z=1.2)


@feature("Animation / Constraints / Limit scale: of an object that grows")
def limit_scale(s):
    s.key(s.subject, "scale", ((0.4, 1, 1), (0.9, 1, 1), (3, 1, 1)))
    constrain(s, "LIMIT_SCALE", use_min_x=True, min_x=0.6, use_max_x=True, max_x=1.4)


@feature("Animation / Constraints / Maintain volume: of an object that grows")
def maintain_volume(s):
    s.key(s.subject, "scale", ((0.5, 1, 1), (1.2, 1, 1), (2, 1, 1)))
    constrain(s, "MAINTAIN_VOLUME", free_axis="SAMEVOL_X", volume=1.0)


for kind in ("LOCATION", "ROTATION", "SCALE"):

    @feature(f"Animation / Constraints / Transformation: location becomes {kind.lower()}", kind)
    def transformation(s, kind):
        added = constrain(s, "TRANSFORM", target=moving(s), map_to=kind, use_motion_extrapolate=True)
        added.from_min_x, added.from_max_x = 0, 3
        added.map_to_z_from = "X"
        suffix = {"LOCATION": "", "ROTATION": "_rot", "SCALE": "_scale"}[kind]
        setattr(added, f"to_min_z{suffix}", 0.5)
        setattr(added, f"to_max_z{suffix}", 2.5)


@feature("Animation / Constraints / Clamp to: a curve")
def clamp_to(s):
    s.key(s.subject, "location", (-0.8, 0.1, 0.9), index=0)
    constrain(s, "CLAMP_TO", target=bezier(s), main_axis="CLAMPTO_X")


for fixed in (True, False):

    @feature(f"Animation / Constraints / Follow path: {'fixed position' if fixed else 'by the evaluation time'}", fixed)
    def follow_path(s, fixed):
        path = bezier(s)
        path.data.use_path = True
        path.data.path_duration = 10
        added = constrain(s, "FOLLOW_PATH", target=path, use_curve_follow=True, use_fixed_location=fixed)
        s.subject.location = (0, 0, 0)
        if fixed:
            s.key(added, "offset_factor", (0.1, 0.35, 0.95))
        else:
            s.key(path.data, "eval_time", (1, 3.5, 9))


@feature("Animation / Constraints / Shrinkwrap: onto an object that moves")
def shrinkwrap(s):
    target = s.box("Ground", 1.2, (0.4, 0, 1.2))
    s.subject.scale = (0.4, 0.4, 0.4)
    s.subject.location = (0, -2, 1)
    constrain(s, "SHRINKWRAP", target=target, distance=0.3)
    s.move(target)


@feature("Animation / Constraints / Action: a target's turn plays it")
def action(s):
    target = moving(s)
    played = s.empty("Player")
    s.key(played, "location", ((0, 0, 1), (0.5, 0, 1.5), (1, 0.5, 2)))
    added = constrain(s, "ACTION", target=target, transform_channel="LOCATION_X", target_space="WORLD")
    added.action = played.animation_data.action
    if hasattr(added, "action_slot"):
        added.action_slot = played.animation_data.action_slot
    added.min, added.max, added.frame_start, added.frame_end = 1, 2, 2, 9


@feature("Animation / Constraints / Armature: two bones pull")
def armature(s):
    rig, names = skeleton(s)
    bone = rig.pose.bones[names[1]]
    bone.rotation_mode = "XYZ"
    s.key(bone, "rotation_euler", (0.3, 0.9, -0.8), index=0)
    added = constrain(s, "ARMATURE")
    for name in names:
        target = added.targets.new()
        target.target, target.subtarget = rig, name


@feature("Animation / Constraints / Influence: keyed")
def influence(s):
    s.key(constrain(s, "COPY_LOCATION", target=s.empty("Target", (1.2, 0.6, 1.6))), "influence", (0.2, 0.6, 1.0))


@feature("Animation / Constraints / Muted: keyed")
def muted(s):
    added = constrain(s, "COPY_LOCATION", target=moving(s, (0.5, 0.5, 1)))
    s.key(added, "mute" if added.bl_rna.properties.get("enabled") is None else "enabled", (True, False, True))
    s.key(s.subject, "rotation_euler", (0.2, 0.8, 1.6), index=2)


@feature("Animation / Constraints / Target of vertices: follows a group that is deformed")
def vertex_group(s):
    other = s.box("Source", 1, (0, 0, 0.6))
    group = other.vertex_groups.new(name="Corner")
    group.add([0, 1], 1, "REPLACE")
    other.shape_key_add(name="Basis")
    key = other.shape_key_add(name="Out")
    for point in list(key.data)[:2]:
        point.co.x -= 1.5
    s.key(key, "value", (0.2, 0.6, 1.0))
    s.subject.scale = (0.5, 0.5, 0.5)
    constrain(s, "COPY_LOCATION", target=other, subtarget="Corner")


def arm(s, bones=3):
    """A chain of bones, each with a box as its child. Returns the rig and the names."""
    data = bpy.data.armatures.new("Rig")
    rig = s.object("Rig", data, (-0.5, 0, 0.2))
    s.active(rig)
    bpy.ops.object.mode_set(mode="EDIT")
    names, before = [], None
    for number in range(bones):
        bone = data.edit_bones.new(f"Bone{number}")
        bone.head, bone.tail = (0.1 * (number % 2), 0, 0.8 * number), (0.1 * ((number + 1) % 2), 0, 0.8 * (number + 1))
        bone.parent, before = before, bone
        names.append(bone.name)
    bpy.ops.object.mode_set(mode="OBJECT")
    s.subject.hide_render = True
    for name in names:
        part = s.box(f"Part {name}", 0.5, (0, -0.4, 0))
        part.parent, part.parent_type, part.parent_bone = rig, "BONE", name
    return rig, names


for bone_kind in ("COPY_ROTATION", "DAMPED_TRACK", "COPY_LOCATION", "STRETCH_TO"):

    @feature(f"Animation / Bone constraints / {bone_kind.replace('_', ' ').capitalize()}: follows an object", bone_kind)
    def bones(s, bone_kind):
        rig, names = arm(s)
        constrain(s, bone_kind, rig.pose.bones[names[1]], target=moving(s))


