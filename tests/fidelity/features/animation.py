"""Animation & rigging: keyframes, F-curves, NLA, drivers, shape keys, markers, actions."""

import bpy
from kit import VERSION, feature


@feature("Animation / Keyframes: location of an object")
def location(s):
    s.move(s.subject)


ROTATIONS = (
    ("XYZ", "rotation_euler", [(0, 0, 0), (0.3, 0.2, 0.4), (0.5, 0.9, 0.2)]),
    ("ZXY", "rotation_euler", [(0, 0, 0), (0.3, 0.2, 0.4), (0.5, 0.9, 0.2)]),
    ("QUATERNION", "rotation_quaternion", [(1, 0, 0, 0), (0.9, 0.2, 0.3, 0.1), (0.6, 0.2, 0.3, 0.7)]),
    ("AXIS_ANGLE", "rotation_axis_angle", [(0, 0, 0, 1), (0.4, 0.3, 0, 1), (0.9, 0, 0.5, 1)]),
)
for mode, path, values in ROTATIONS:

    @feature(f"Animation / Keyframes: rotation as {mode}", mode, path, values)
    def rotation(s, mode, path, values):
        s.subject.rotation_mode = mode
        s.key(s.subject, path, values)


for path, values in (
    ("scale", [(1, 1, 1), (0.6, 1.2, 1), (1.4, 0.7, 0.5)]),
    ("delta_location", [(0, 0, 0), (0.4, 0, 0), (0.4, 0.6, 0)]),
    ("delta_rotation_euler", [(0, 0, 0), (0, 0, 0.4), (0, 0.3, 0.9)]),
    ("delta_scale", [(1, 1, 1), (0.6, 1, 1), (1.3, 0.7, 1)]),
):

    @feature(f"Animation / Keyframes: {path}", path, values)
    def transform(s, path, values):
        s.key(s.subject, path, values)


INTERPOLATIONS = (
    "CONSTANT", "LINEAR", "BEZIER", "SINE", "QUAD", "CUBIC", "QUART", "QUINT", "EXPO", "CIRC", "BACK", "BOUNCE", "ELASTIC",
)
for interpolation in INTERPOLATIONS:

    @feature(f"Animation / F-curves: interpolation {interpolation.lower()}", interpolation)
    def interpolated(s, interpolation):
        s.key(s.subject, "location", [0.0, 2.0, 0.3], index=0, frames=(1, 4, 8))
        for curve in s.curves(s.subject):
            for point in curve.keyframe_points:
                point.interpolation = interpolation
                point.easing = "EASE_IN_OUT"


@feature("Animation / F-curves: linear extrapolation")
def extrapolation(s):
    s.key(s.subject, "location", [0.0, 0.3], index=0, frames=(1, 2))
    for curve in s.curves(s.subject):
        curve.extrapolation = "LINEAR"


def modified(s, kind):
    """The cube's X location with a modifier on its F-curve."""
    s.key(s.subject, "location", [0.0, 0.8], index=0, frames=(1, 4))
    curve = s.curves(s.subject)[0]
    return curve.modifiers.new(kind)


@feature("Animation / F-curve modifiers: generator")
def generator(s):
    modifier = modified(s, "GENERATOR")
    modifier.use_additive = True
    modifier.coefficients = (0.0, 0.08)


@feature("Animation / F-curve modifiers: built-in function")
def function(s):
    modifier = modified(s, "FNGENERATOR")
    modifier.function_type, modifier.phase_multiplier, modifier.use_additive = "SIN", 0.7, True


@feature("Animation / F-curve modifiers: envelope")
def envelope(s):
    modifier = modified(s, "ENVELOPE")
    for frame, low, high in ((1, -1, 1), (9, -0.2, 2)):
        point = modifier.control_points.add(frame)
        point.min, point.max = low, high


@feature("Animation / F-curve modifiers: cycles")
def cycles(s):
    modifier = modified(s, "CYCLES")
    modifier.mode_after = "REPEAT_OFFSET"


@feature("Animation / F-curve modifiers: noise")
def noise(s):
    modifier = modified(s, "NOISE")
    modifier.strength, modifier.scale, modifier.phase = 1.5, 3, 2


@feature("Animation / F-curve modifiers: limits")
def limits(s):
    modifier = modified(s, "LIMITS")
    modifier.use_max_y, modifier.max_y = True, 0.6
    s.key(s.subject, "location", [0.0, 0.9], index=1, frames=(4, 9))


@feature("Animation / F-curve modifiers: stepped")
def stepped(s):
    s.key(s.subject, "location", [0.0, 1.6], index=0, frames=(1, 10))
    modifier = s.curves(s.subject)[0].modifiers.new("STEPPED")
    modifier.frame_step = 3


def action(s, name, values, path="location", index=0, frames=(1, 9)):
    """An action of the subject, taken off it again."""
    s.key(s.subject, path, values, index=index, frames=frames)
    made = s.subject.animation_data.action
    made.name = name
    s.subject.animation_data.action = None
    return made


def track(s, name="Track"):
    added = s.subject.animation_data_create().nla_tracks.new()
    added.name = name
    return added


def strip(s, on, start, made):
    added = on.strips.new(made.name, start, made)
    if VERSION >= (4, 4, 0) and not added.action_slot:
        added.action_slot = made.slots[0]
    return added


@feature("Animation / NLA: a strip that starts later")
def nla(s):
    made = action(s, "Go", [0.0, 1.5])
    strip(s, track(s), 3, made)


@feature("Animation / NLA: repeated, scaled and reversed")
def nla_repeat(s):
    made = action(s, "Go", [0.0, 1.5], frames=(1, 4))
    added = strip(s, track(s), 1, made)
    added.repeat, added.scale, added.use_reverse = 3, 1.3, True


for blend in ("ADD", "SUBTRACT", "MULTIPLY", "COMBINE"):

    @feature(f"Animation / NLA: two tracks, blended by {blend.lower()}", blend)
    def nla_blend(s, blend):
        one = action(s, "One", [0.3, 1.5])
        other = action(s, "Other", [0.5, 1.2], index=0)
        strip(s, track(s), 1, one)
        strip(s, track(s, "Upper"), 1, other).blend_type = blend


@feature("Animation / NLA: influence keyed")
def nla_influence(s):
    added = strip(s, track(s), 1, action(s, "Go", [0.5, 1.5]))
    added.use_animated_influence = True
    s.key(added, "influence", [0.1, 0.5, 1.0])


@feature("Animation / NLA: strip time keyed")
def nla_time(s):
    added = strip(s, track(s), 1, action(s, "Go", [0.5, 2.0]))
    added.use_animated_time = True
    s.key(added, "strip_time", [1.0, 9.0, 4.0])


@feature("Animation / NLA: blend in and out between two strips")
def nla_transition(s):
    made = action(s, "Go", [0.0, 1.0], frames=(1, 4))
    on = track(s)
    strip(s, on, 1, made).blend_out = 3
    added = strip(s, on, 7, action(s, "Back", [1.5, 0.2], frames=(1, 4)))
    added.blend_in = 2


@feature("Animation / NLA: a muted track and one alone")
def nla_mute(s):
    strip(s, track(s), 1, action(s, "Go", [0.0, 1.5]))
    other = track(s, "Muted")
    strip(s, other, 1, action(s, "Off", [-2.0, -1.5]))
    other.mute = True


@feature("Animation / Actions: two slots of one action", since=(4, 4))
def slots(s):
    s.key(s.subject, "location", [0.0, 0.5, 1.2], index=0)
    made = s.subject.animation_data.action
    data = s.sun.animation_data_create()
    data.action = made
    data.action_slot = made.slots.new("OBJECT", "Sun")
    s.key(s.sun, "rotation_euler", [0.2, 0.6, 1.0], index=0)


@feature("Animation / Actions: a muted channel and a muted group")
def muted(s):
    s.move(s.subject)
    s.key(s.subject, "rotation_euler", [0.0, 0.5, 1.0], index=2)
    for curve in s.curves(s.subject):
        curve.mute = curve.data_path == "location" and curve.array_index == 0


@feature("Animation / Actions: one action for two objects")
def shared(s):
    s.move(s.subject)
    other = s.box("Other")
    data = other.animation_data_create()
    data.action = s.subject.animation_data.action
    if VERSION >= (4, 4, 0):
        data.action_slot = s.subject.animation_data.action_slot
    other.delta_location = (-2, 1, 0)


for kind, values in (("AVERAGE", "x"), ("SUM", "x"), ("MIN", "x"), ("MAX", "x")):

    @feature(f"Animation / Drivers: {kind.lower()} of two properties", kind)
    def driver_kind(s, kind):
        empty = s.empty()
        s.move(empty)
        curve = s.subject.driver_add("location", 0)
        curve.driver.type = kind
        for name, path in (("a", "location[0]"), ("b", "location[1]")):
            s.variable(curve.driver, empty, path, name)


@feature("Animation / Drivers: simple expression")
def driver_simple(s):
    s.drive(s.subject, "location", "frame / 8", index=2)


@feature("Animation / Drivers: Python expression", trust=True)
def driver_python(s):
    s.drive(s.subject, "location", "max([frame / 8 for _ in range(3)])", index=2)


@feature("Animation / Drivers: Python expression without trust", refuses="--trust")
def driver_untrusted(s):
    s.drive(s.subject, "location", "max([frame / 8 for _ in range(3)])", index=2)


@feature("Animation / Drivers: transform of an object as a variable")
def driver_transform(s):
    empty = s.empty()
    s.move(empty)
    driver = s.drive(s.subject, "location", "x * 1.5", index=0)
    variable = driver.variables.new()
    variable.name, variable.type = "x", "TRANSFORMS"
    variable.targets[0].id, variable.targets[0].transform_type = empty, "LOC_X"


@feature("Animation / Drivers: distance of two objects as a variable")
def driver_distance(s):
    empty = s.empty()
    s.move(empty)
    driver = s.drive(s.subject, "rotation_euler", "x", index=2)
    variable = driver.variables.new()
    variable.name, variable.type = "x", "LOC_DIFF"
    variable.targets[0].id, variable.targets[1].id = empty, s.camera


@feature("Animation / Drivers: angle between two objects as a variable")
def driver_angle(s):
    empty = s.empty()
    s.key(empty, "rotation_euler", [0.0, 0.6, 1.3], index=2)
    driver = s.drive(s.subject, "rotation_euler", "x", index=2)
    variable = driver.variables.new()
    variable.name, variable.type = "x", "ROTATION_DIFF"
    variable.targets[0].id, variable.targets[1].id = empty, s.floor


@feature("Animation / Drivers: property of the scene as a variable (context property)", since=(4, 0))
def driver_context(s):
    s.scene["wind"] = 0.5
    s.key(s.scene, '["wind"]', [0.2, 0.6, 1.1])
    driver = s.drive(s.subject, "location", "x", index=0)
    variable = driver.variables.new()
    variable.name, variable.type = "x", "CONTEXT_PROP"
    variable.targets[0].context_property, variable.targets[0].data_path = "ACTIVE_SCENE", '["wind"]'


@feature("Animation / Drivers: custom property")
def driver_custom(s):
    s.subject["grow"] = 1.0
    s.key(s.subject, '["grow"]', [1.0, 1.4, 0.6])
    s.variable(s.drive(s.subject, "scale", "x", index=2), s.subject, '["grow"]')


@feature("Animation / Drivers: shaped by the points of an F-curve")
def driver_shape(s):
    curve = s.subject.driver_add("location", 2)
    curve.driver.type = "SCRIPTED"
    curve.driver.expression = "frame"
    for modifier in list(curve.modifiers):
        curve.modifiers.remove(modifier)
    for frame, value in ((0, 0.2), (5, 1.8), (10, 0.6)):
        curve.keyframe_points.insert(frame, value)


def driven(title, owner):
    @feature(f"Animation / Drivers: on {title}", title)
    def made(s, title):
        target, path, expression, index = owner(s)
        s.drive(target, path, expression, index)


driven("a light", lambda s: (s.sun.data, "energy", "frame / 2", -1))
driven("a camera", lambda s: (s.camera.data, "lens", "20 + 5 * frame", -1))
driven("a node of a material", lambda s: (s.shader.inputs["Roughness"], "default_value", "frame / 10", -1))
driven("a node of the world", lambda s: (s.world.node_tree.nodes["Background"].inputs[1], "default_value", "frame / 4", -1))
driven("a modifier", lambda s: (s.subject.modifiers.new("Bevel", "BEVEL"), "width", "frame / 15", -1))
driven("the scene", lambda s: (s.scene.view_settings, "exposure", "frame / 5 - 1", -1))
driven("visibility", lambda s: (s.subject, "hide_render", "frame == 5", -1))


@feature("Animation / Drivers: the scene's frame range")
def driver_range(s):
    driver = s.drive(s.subject, "location", "x / 10 + y / 10 + frame / 10", index=0)
    for name, path in (("x", "frame_end"), ("y", "frame_start")):
        variable = driver.variables.new()
        variable.name = name
        variable.targets[0].id_type = "SCENE"
        variable.targets[0].id = s.scene
        variable.targets[0].data_path = path


def keys(s):
    """Two shape keys of the cube."""
    s.subject.shape_key_add(name="Basis")
    wide = s.subject.shape_key_add(name="Wide")
    tall = s.subject.shape_key_add(name="Tall")
    for point in wide.data:
        point.co.x *= 1.6
    for point in tall.data:
        point.co.z *= 1.5
    return wide, tall


@feature("Animation / Shape keys: values keyed")
def shape_value(s):
    wide, tall = keys(s)
    s.key(wide, "value", [0.0, 0.6, 1.0])
    s.key(tall, "value", [1.0, 0.2, 0.4])


@feature("Animation / Shape keys: value driven")
def shape_driven(s):
    wide, _ = keys(s)
    s.drive(wide, "value", "frame / 10")


@feature("Animation / Shape keys: muted by a key")
def shape_mute(s):
    wide, _ = keys(s)
    wide.value = 1
    s.key(wide, "mute", [True, False, True])


@feature("Animation / Shape keys: relative to another, with a vertex group")
def shape_relative(s):
    wide, tall = keys(s)
    tall.relative_key = wide
    s.subject.vertex_groups.new(name="Half").add([0, 1, 2, 3], 1.0, "ADD")
    tall.vertex_group = "Half"
    s.key(tall, "value", [0.0, 0.5, 1.0])


@feature("Animation / Shape keys: absolute, evaluation time keyed")
def shape_absolute(s):
    keys(s)
    block = s.subject.data.shape_keys
    block.use_relative = False
    s.key(block, "eval_time", [0.0, 8.0, 18.0])


@feature("Animation / Markers: bound cameras")
def markers(s):
    other = s.object("Second", bpy.data.cameras.new("Second"), (-5, -4, 5))
    other.rotation_euler = (0.95, 0, -0.9)
    third = s.object("Third", bpy.data.cameras.new("Third"), (0, 0, 9))
    for frame, camera in ((1, s.camera), (4, other), (8, third)):
        marker = s.scene.timeline_markers.new(f"F_{frame:02}", frame=frame)
        marker.camera = camera


@feature("Animation / Time: frame map old and new")
def remapped(s):
    s.move(s.subject)
    s.scene.render.frame_map_old, s.scene.render.frame_map_new = 100, 60


@feature("Animation / Time: frame rate base, in a driver")
def rate(s):
    s.scene.render.fps, s.scene.render.fps_base = 30, 1.5
    driver = s.drive(s.subject, "location", "frame / x", index=0)
    variable = driver.variables.new()
    variable.name = "x"
    variable.targets[0].id_type, variable.targets[0].id, variable.targets[0].data_path = "SCENE", s.scene, "render.fps"


@feature("Animation / Keyframes: on subframes")
def subframes(s):
    s.key(s.subject, "location", [0.0, 1.0, 0.2, 1.4], index=0, frames=(1.5, 3.25, 5.75, 9.5))


@feature("Animation / Keyframes: points of a mesh")
def points(s):
    for index in (0, 3, 7):
        point = s.subject.data.vertices[index]
        x, y, z = point.co
        s.key(point, "co", [(x, y, z), (x * 1.4, y, z), (x, y * 0.5, z * 1.5)])
