"""Scenes and objects: visibility, collections, instances, parents."""

import bpy
from kit import feature

ON_OFF = [True, False, True]
for path in (
    "hide_render", "visible_camera", "visible_shadow", "visible_diffuse", "visible_glossy", "is_holdout",
    "is_shadow_catcher",
):

    @feature(f"Objects / Visibility: {path} keyed", path)
    def visibility(s, path):
        # What hides the cube from one kind of ray shows in the floor, which reflects it.
        s.material(s.floor, (0.8, 0.8, 0.8, 1))[1].inputs["Roughness"].default_value = 0.1
        if path == "visible_diffuse":
            s.shader.inputs["Base Color"].default_value = (1, 0, 0, 1)
            s.emit(s.tree.nodes.new("ShaderNodeRGB").outputs[0]).inputs["Strength"].default_value = 4
        s.key(s.subject, path, ON_OFF)


@feature("Objects / Visibility: hide_render driven")
def hidden(s):
    s.drive(s.subject, "hide_render", "frame > 4 and frame < 7")


@feature("Objects / Visibility: hide_render of a parent does not hide the child")
def parent_hidden(s):
    s.subject.parent = s.box("Parent", 0.8, (1.5, 0, 0.5))
    s.key(s.subject.parent, "hide_render", ON_OFF)


@feature("Objects / Visibility: a collection that is excluded from the view layer")
def excluded(s):
    made = bpy.data.collections.new("Out")
    s.scene.collection.children.link(made)
    s.box("Gone", 1, (1.5, 0, 1))
    made.objects.link(bpy.data.objects["Gone"])
    s.scene.collection.objects.unlink(bpy.data.objects["Gone"])
    bpy.context.view_layer.layer_collection.children["Out"].exclude = True
    s.move(s.subject)


for flag in ("holdout", "indirect_only"):

    @feature(f"Objects / Visibility: a collection that is {flag.replace('_', ' ')}", flag)
    def layer_flag(s, flag):
        made = bpy.data.collections.new("Flagged")
        s.scene.collection.children.link(made)
        box = s.box("Flagged", 1, (1.2, 0, 1.2))
        made.objects.link(box)
        s.scene.collection.objects.unlink(box)
        setattr(bpy.context.view_layer.layer_collection.children["Flagged"], flag, True)
        s.move(box)


@feature("Objects / Properties: colour of the object, shown by its material")
def color(s):
    info = s.tree.nodes.new("ShaderNodeObjectInfo")
    s.emit(info.outputs["Color"])
    s.key(s.subject, "color", [(1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)])


@feature("Objects / Properties: pass index keyed, shown by its material")
def pass_index(s):
    s.emit(s.tree.nodes.new("ShaderNodeObjectInfo").outputs["Object Index"])
    s.key(s.subject, "pass_index", [0, 1, 3])


@feature("Objects / Properties: custom property as an attribute of the shader")
def attribute(s):
    node = s.tree.nodes.new("ShaderNodeAttribute")
    node.attribute_type, node.attribute_name = "OBJECT", '["heat"]'
    s.emit(node.outputs["Fac"])
    s.subject["heat"] = 0.0
    s.key(s.subject, '["heat"]', [0.1, 0.6, 1.0])


@feature("Objects / Properties: property of the view layer as an attribute of the shader", since=(3, 5))
def layer_attribute(s):
    node = s.tree.nodes.new("ShaderNodeAttribute")
    node.attribute_type, node.attribute_name = "VIEW_LAYER", "frame_current"
    math = s.tree.nodes.new("ShaderNodeMath")
    math.operation, math.inputs[1].default_value = "DIVIDE", 10
    s.tree.links.new(node.outputs["Fac"], math.inputs[0])
    s.emit(math.outputs[0])


@feature("Objects / Parenting: object")
def parent(s):
    s.subject.parent = s.empty()
    s.move(s.subject.parent)


@feature("Objects / Parenting: object with an inverse and its own keys")
def parent_inverse(s):
    empty = s.empty("Parent", (1, 0, 0))
    empty.rotation_euler = (0, 0, 0.5)
    bpy.context.view_layer.update()
    s.subject.parent = empty
    s.subject.matrix_parent_inverse = empty.matrix_world.inverted()
    s.move(empty)
    s.key(s.subject, "rotation_euler", [0.0, 0.5, 1.0], index=2)


for kind, points in (("VERTEX", (3, 0, 0)), ("VERTEX_3", (0, 5, 20))):

    @feature(f"Objects / Parenting: {kind.replace('_', ' ').lower()}", kind, points)
    def parent_vertex(s, kind, points):
        grid = s.grid("Cloth", 6, 2, (0, 0, 0.2))
        wave = grid.modifiers.new("Wave", "WAVE")
        wave.height, wave.width, wave.narrowness, wave.speed = 0.8, 1, 2, 0.2
        s.subject.parent, s.subject.parent_type, s.subject.parent_vertices = grid, kind, points
        s.key(grid, "rotation_euler", [0.0, 0.3, 0.6], index=2)


@feature("Objects / Parenting: curve that is followed")
def parent_curve(s):
    data = bpy.data.curves.new("Path", "CURVE")
    data.dimensions = "3D"
    line = data.splines.new("BEZIER")
    line.bezier_points.add(2)
    for point, place in zip(line.bezier_points, ((-1.5, 0, 0), (0, 1, 0), (1.5, 0, 0.5))):
        point.co = place
        point.handle_left_type = point.handle_right_type = "AUTO"
    data.use_path, data.use_path_follow, data.path_duration = True, True, 10
    s.key(data, "eval_time", [0.0, 5.0, 10.0])
    s.subject.parent = s.object("Path", data)


for kind in ("VERTS", "FACES"):

    @feature(f"Objects / Instancing: {kind.lower()}", kind)
    def instances(s, kind):
        grid = s.grid("Many", 2, 3, (0, 0, 0.5))
        grid.instance_type = kind
        grid.use_instance_faces_scale = True
        s.subject.parent = grid
        s.subject.location = (0, 0, 0)
        s.subject.scale = (0.3, 0.3, 0.3)
        s.key(grid, "rotation_euler", [0.0, 0.4, 0.8], index=2)
        s.key(s.subject, "rotation_euler", [0.0, 0.4, 0.8], index=0)


def group(s, name="Group"):
    """The cube in a collection that is not in the scene."""
    made = bpy.data.collections.new(name)
    made.objects.link(s.subject)
    s.scene.collection.objects.unlink(s.subject)
    return made


def instance(s, collection, location=(0, 0, 0)):
    empty = s.empty("Instance", location)
    empty.instance_type, empty.instance_collection = "COLLECTION", collection
    return empty


@feature("Objects / Instancing: collection, with keys inside and outside")
def instance_collection(s):
    made = group(s)
    s.key(s.subject, "rotation_euler", [0.0, 0.5, 1.0], index=2)
    one, _ = instance(s, made, (-1, 0, 0)), instance(s, made, (1.2, 0.5, 0))
    s.move(one)


@feature("Objects / Instancing: collection in a collection")
def instance_nested(s):
    inner = group(s, "Inner")
    outer = bpy.data.collections.new("Outer")
    empty = instance(s, inner, (0.5, 0, 0))
    outer.objects.link(empty)
    s.scene.collection.objects.unlink(empty)
    s.key(empty, "location", [0.0, 0.6, 1.2], index=2)
    s.key(instance(s, outer), "rotation_euler", [0.0, 0.6, 1.2], index=2)


@feature("Objects / Instancing: an instance that is shown and hidden")
def instance_hidden(s):
    s.key(instance(s, group(s)), "hide_render", ON_OFF)


@feature("Objects / Instancing: the instancer itself shown by a key")
def instancer(s):
    grid = s.grid("Many", 2, 3, (0, 0, 0.5))
    grid.instance_type = "VERTS"
    s.subject.parent = grid
    s.subject.scale = (0.2, 0.2, 0.2)
    s.key(grid, "show_instancer_for_render", ON_OFF)


@feature("Scenes / Background set: its objects move")
def background(s):
    other = bpy.data.scenes.new("Set")
    made = s.box("Backdrop", 1.5, (1.5, 1, 1))
    other.collection.objects.link(made)
    s.scene.collection.objects.unlink(made)
    s.move(made)
    s.scene.background_set = other


@feature("Scenes / Active camera keyed by a marker of another name, scene with two view layers")
def two_layers(s):
    s.scene.view_layers.new("Second")
    s.move(s.subject)


@feature("Scenes / A second scene in the file, the first is rendered")
def two_scenes(s):
    other = bpy.data.scenes.new("Other")
    other.frame_start, other.frame_end = 50, 60
    other.collection.objects.link(s.subject)
    s.move(s.subject)


@feature("Scenes / Gravity and units: scale of the scene")
def units(s):
    s.scene.unit_settings.scale_length = 0.1
    s.move(s.subject)
