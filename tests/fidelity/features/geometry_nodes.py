"""Modeling: geometry nodes."""

import bpy
from kit import feature


def add(s, tree, kind, **values):
    """A new node; its settings, and by `sockets` the values of its inputs."""
    sockets = values.pop("sockets", {})
    try:
        node = tree.nodes.new(kind)
    except RuntimeError:
        s.absent("not in this version")
    for name, value in values.items():
        setattr(node, name, value)
    for name, value in sockets.items():
        node.inputs[name].default_value = value
    return node


def one(node, name, kind=None):
    """The input in use of that name (and type)."""
    found = [i for i in node.inputs if i.name == name and i.enabled and (kind is None or i.type == kind)]
    return found[0]


# A primitive with one keyed value: (node, input, values)
PRIMITIVES = (
    ("MeshCone", "Radius Bottom", (0.4, 0.8, 1.4)),
    ("MeshCube", "Size", ((0.5, 1, 1), (1, 1.6, 1), (1.8, 0.5, 2))),
    ("MeshCylinder", "Vertices", (3, 6, 12)),
    ("MeshGrid", "Size X", (0.6, 1.4, 2.6)),
    ("MeshIcoSphere", "Subdivisions", (1, 2, 4)),
    ("MeshUVSphere", "Rings", (3, 6, 12)),
    ("MeshCircle", "Radius", (0.5, 1.0, 1.8)),
)
for row in PRIMITIVES:

    @feature(f"Modeling / Geometry nodes / Primitives: {row[0]}, {row[1].lower()} keyed", *row)
    def primitive(s, kind, name, values):
        tree, _, last, _ = s.geometry()
        node = add(s, tree, "GeometryNode" + kind)
        if kind == "MeshCircle":
            node.fill_type = "NGON"
        s.key(node.inputs[name], "default_value", values)
        finish(s, tree, node.outputs[0], last)


def finish(s, tree, socket, last):
    """Gives the geometry the subject's material."""
    paint = add(s, tree, "GeometryNodeSetMaterial")
    paint.inputs["Material"].default_value = s.subject.data.materials[0]
    tree.links.new(socket, paint.inputs[0])
    tree.links.new(paint.outputs[0], last)


CURVES = (
    ("CurvePrimitiveCircle", "Radius", (0.5, 1.0, 1.6)),
    ("CurvePrimitiveQuadrilateral", "Width", (0.8, 1.6, 2.4)),
    ("CurveSpiral", "Rotations", (1.0, 2.0, 4.0)),
    ("CurveStar", "Inner Radius", (0.2, 0.6, 1.4)),
    ("CurvePrimitiveBezierSegment", "Start", ((-1, 0, 0), (-1, 1, 0), (-1, -1, 1))),
    ("CurveQuadraticBezier", "Middle", ((0, 1, 0), (0, 2, 1), (0, -2, 0))),
    ("CurvePrimitiveLine", "End", ((0, 0, 1), (0.6, 0, 1), (1.2, 0, 0.4))),
)
for row in CURVES:

    @feature(f"Modeling / Geometry nodes / Curves: {row[0]}, {row[1].lower()} keyed", *row)
    def curve(s, kind, name, values):
        tree, _, last, _ = s.geometry()
        node = add(s, tree, "GeometryNode" + kind)
        s.key(one(node, name), "default_value", values)
        tube(s, tree, node.outputs[0], last)


def tube(s, tree, socket, last):
    """Makes a curve a tube."""
    mesh = add(s, tree, "GeometryNodeCurveToMesh")
    profile = add(s, tree, "GeometryNodeCurvePrimitiveCircle", sockets={"Resolution": 6, "Radius": 0.15})
    tree.links.new(socket, mesh.inputs["Curve"])
    tree.links.new(profile.outputs[0], mesh.inputs["Profile Curve"])
    finish(s, tree, mesh.outputs[0], last)


# Operations on the cube: (node, input, values, settings)
OPERATIONS = (
    ("TransformGeometry", "Translation", ((0, 0, 0.2), (0.4, 0, 0.4), (0.8, 0.5, 0.1)), {}),
    ("SubdivisionSurface", "Level", (0, 1, 3), {}),
    ("ExtrudeMesh", "Offset Scale", (0.1, 0.4, 0.9), {}),
    ("ScaleElements", "Scale", (0.4, 0.8, 1.4), {}),
    ("MergeByDistance", "Distance", (0.1, 1.6, 2.4), {}),
    ("SetPosition", "Offset", ((0, 0, 0.2), (0.4, 0, 0.4), (0.8, 0.5, 0.1)), {}),
    ("DualMesh", None, None, {}),
    ("Triangulate", None, None, {}),
    ("FlipFaces", None, None, {}),
    ("SplitEdges", None, None, {}),
    ("ConvexHull", None, None, {}),
    ("BoundBox", None, None, {}),
    ("MeshToVolume", None, None, {}),
    ("MeshToPoints", "Radius", (0.1, 0.3, 0.6), {}),
    ("MeshToCurve", None, None, {}),
    ("DeleteGeometry", None, None, {"domain": "FACE"}),
    ("SeparateGeometry", None, None, {"domain": "FACE"}),
)
for row in OPERATIONS:

    @feature(f"Modeling / Geometry nodes / Operations: {row[0]}", *row)
    def operation(s, kind, name, values, settings):
        tree, first, last, _ = s.geometry()
        names = {"TransformGeometry": ("GeometryNodeTransform",)}.get(kind, ("GeometryNode" + kind,))
        node = add(s, tree, names[0], **settings)
        # What comes in is bent, so that the outcome moves with it.
        bent = add(s, tree, "GeometryNodeSetPosition")
        noise, turn = add(s, tree, "ShaderNodeTexNoise"), add(s, tree, "ShaderNodeVectorMath", operation="MULTIPLY")
        tree.links.new(first, bent.inputs[0])
        tree.links.new(noise.outputs["Color"], turn.inputs[0])
        tree.links.new(turn.outputs[0], one(bent, "Offset"))
        s.key(turn.inputs[1], "default_value", ((0.3, 0.3, 0.3), (0.8, 0.2, 0.6), (1.4, 1.0, 0.3)))
        tree.links.new(bent.outputs[0], node.inputs[0])
        if name:
            s.key(one(node, name), "default_value", values)
        if kind in ("DeleteGeometry", "SeparateGeometry"):
            index, less = add(s, tree, "GeometryNodeInputIndex"), add(s, tree, "FunctionNodeCompare", data_type="INT")
            tree.links.new(index.outputs[0], one(less, "A", "INT"))
            s.key(one(less, "B", "INT"), "default_value", (1, 3, 5))
            tree.links.new(less.outputs[0], one(node, "Selection"))
        out = node.outputs[0]
        if kind == "MeshToCurve":
            return tube(s, tree, out, last)
        if kind == "MeshToVolume":
            back = add(s, tree, "GeometryNodeVolumeToMesh")
            tree.links.new(out, back.inputs[0])
            out = back.outputs[0]
        finish(s, tree, out, last)


for kind, name, values in (
    ("SetShadeSmooth", "Shade Smooth", (True, False, True)),
    ("ReplaceMaterial", None, None),
    ("SetMaterialIndex", "Material Index", (0, 1, 0)),
):

    @feature(f"Modeling / Geometry nodes / Materials: {kind}", kind, name, values)
    def materials(s, kind, name, values):
        from features.modifiers import dense

        dense(s)
        other = s.box("Other", 0.3, (3, 3, 0), (0, 0.9, 0.2, 1)).data.materials[0]
        s.subject.data.materials.append(other)
        tree, first, last, _ = s.geometry()
        node = add(s, tree, "GeometryNode" + kind)
        tree.links.new(first, node.inputs[0])
        s.key(s.subject, "rotation_euler", (0.2, 0.8, 1.6), index=2)
        if kind == "ReplaceMaterial":
            node.inputs[1].default_value, node.inputs[2].default_value = s.subject.data.materials[0], other
        else:
            s.key(one(node, name), "default_value", values)
        tree.links.new(node.outputs[0], last)


@feature("Modeling / Geometry nodes / Inputs: scene time", since=(3, 1))
def scene_time(s):
    tree, first, last, _ = s.geometry()
    time, move = add(s, tree, "GeometryNodeInputSceneTime"), add(s, tree, "GeometryNodeTransform")
    scale = add(s, tree, "ShaderNodeMath", operation="MULTIPLY")
    scale.inputs[1].default_value = 0.12
    vector = add(s, tree, "ShaderNodeCombineXYZ")
    tree.links.new(time.outputs["Frame"], scale.inputs[0])
    tree.links.new(scale.outputs[0], vector.inputs[2])
    tree.links.new(first, move.inputs[0])
    tree.links.new(vector.outputs[0], one(move, "Translation"))
    tree.links.new(move.outputs[0], last)


@feature("Modeling / Geometry nodes / Inputs: object info of an object that moves")
def object_info(s):
    other = s.box("Other", 0.8, (1, 0, 1.4))
    other.hide_render = True
    s.move(other)
    tree, first, last, _ = s.geometry()
    info, join = add(s, tree, "GeometryNodeObjectInfo", transform_space="RELATIVE"), add(s, tree, "GeometryNodeJoinGeometry")
    info.inputs[0].default_value = other
    tree.links.new(first, join.inputs[0])
    tree.links.new(info.outputs["Geometry"], join.inputs[0])
    tree.links.new(join.outputs[0], last)


@feature("Modeling / Geometry nodes / Inputs: collection info, as instances")
def collection_info(s):
    group = bpy.data.collections.new("Parts")
    for number in range(3):
        part = s.box(f"Part{number}", 0.4, (number * 0.6 - 0.6, 0, 0.3))
        s.scene.collection.objects.unlink(part)
        group.objects.link(part)
        s.key(part, "location", (0.2, 0.5 + number * 0.3, 1.2), index=2)
    tree, first, last, _ = s.geometry()
    info, join = add(s, tree, "GeometryNodeCollectionInfo"), add(s, tree, "GeometryNodeJoinGeometry")
    info.inputs[0].default_value = group
    tree.links.new(first, join.inputs[0])
    tree.links.new(info.outputs[0], join.inputs[0])
    tree.links.new(join.outputs[0], last)


@feature("Modeling / Geometry nodes / Inputs: the active camera", since=(4, 1))
def active_camera(s):
    tree, first, last, _ = s.geometry()
    camera = add(s, tree, "GeometryNodeInputActiveCamera")
    info = add(s, tree, "GeometryNodeObjectInfo", transform_space="RELATIVE")
    point = add(s, tree, "GeometryNodeTransform")
    scale = add(s, tree, "ShaderNodeVectorMath", operation="SCALE")
    scale.inputs["Scale"].default_value = 0.2
    tree.links.new(camera.outputs[0], info.inputs[0])
    tree.links.new(info.outputs["Location"], scale.inputs[0])
    tree.links.new(first, point.inputs[0])
    tree.links.new(scale.outputs[0], one(point, "Translation"))
    tree.links.new(point.outputs[0], last)
    s.key(s.camera, "location", ((5, -5, 4), (5.2, -4.6, 4.2), (4.6, -5.2, 4.4)))


@feature("Modeling / Geometry nodes / Inputs: a value of the modifier that is keyed")
def modifier_input(s):
    tree, first, last, added = s.geometry(more=[("Shift", "NodeSocketVector")])
    move = add(s, tree, "GeometryNodeTransform")
    tree.links.new(first, move.inputs[0])
    tree.links.new(first.node.outputs[1], one(move, "Translation"))
    tree.links.new(move.outputs[0], last)
    name = next(name for name in added.keys() if name.startswith(("Socket_", "Input_")) and "_use" not in name and "_attr" not in name and name not in ("Socket_0", "Input_0"))
    path = f'modifiers["{added.name}"]["{name}"]'
    for frame, value in zip((2, 5, 9), ((0, 0, 0.2), (0.5, 0, 0.4), (0.9, 0.4, 0.1))):
        added[name] = value
        s.subject.keyframe_insert(path, frame=frame)


@feature("Modeling / Geometry nodes / Instances: on points, the instance moves")
def instances(s):
    part = s.box("Part", 0.3, (4, 4, -3))
    s.key(part, "rotation_euler", (0.1, 0.6, 1.2), index=2)
    s.key(part, "scale", ((1, 1, 1), (1.6, 1, 1), (1, 2.4, 1)))
    tree, first, last, _ = s.geometry()
    points, info = add(s, tree, "GeometryNodeInstanceOnPoints"), add(s, tree, "GeometryNodeObjectInfo")
    info.inputs[0].default_value = part
    tree.links.new(first, points.inputs[0])
    tree.links.new(info.outputs["Geometry"], points.inputs["Instance"])
    tree.links.new(info.outputs["Scale"], points.inputs["Scale"])
    tree.links.new(points.outputs[0], last)


@feature("Modeling / Geometry nodes / Instances: their number changes")
def instance_count(s):
    tree, _, last, _ = s.geometry()
    line, points = add(s, tree, "GeometryNodeMeshLine", mode="OFFSET"), add(s, tree, "GeometryNodeInstanceOnPoints")
    line.inputs["Offset"].default_value = (0, 0, 0.35)
    s.key(line.inputs["Count"], "default_value", (2, 4, 7))
    ball = add(s, tree, "GeometryNodeMeshUVSphere", sockets={"Segments": 8, "Rings": 6, "Radius": 0.2})
    tree.links.new(line.outputs[0], points.inputs[0])
    tree.links.new(ball.outputs[0], points.inputs["Instance"])
    finish(s, tree, points.outputs[0], last)


for kind in ("RotateInstances", "ScaleInstances", "TranslateInstances", "RealizeInstances", "InstancesToPoints"):

    @feature(f"Modeling / Geometry nodes / Instances: {kind}", kind)
    def instance_tool(s, kind):
        tree, first, last, _ = s.geometry()
        points, node = add(s, tree, "GeometryNodeInstanceOnPoints"), add(s, tree, "GeometryNode" + kind)
        cube = add(s, tree, "GeometryNodeMeshCube", sockets={"Size": (0.3, 0.5, 0.3)})
        tree.links.new(first, points.inputs[0])
        tree.links.new(cube.outputs[0], points.inputs["Instance"])
        tree.links.new(points.outputs[0], node.inputs[0])
        name = {"RotateInstances": "Rotation", "ScaleInstances": "Scale", "TranslateInstances": "Translation", "InstancesToPoints": "Radius"}.get(kind)
        if kind == "InstancesToPoints":
            s.key(one(node, name), "default_value", (0.1, 0.3, 0.6))
        elif name:
            s.key(one(node, name), "default_value", ((0.2, 0.5, 0.3), (0.6, 0.9, 0.8), (1.4, 0.4, 1.8)))
        else:
            s.key(points.inputs["Scale"], "default_value", ((0.5, 1, 1), (1, 2, 1), (2, 1, 3)))
        finish(s, tree, node.outputs[0], last)


@feature("Modeling / Geometry nodes / Points: distributed on faces, density keyed")
def distribute(s):
    tree, first, last, _ = s.geometry()
    spread, points = add(s, tree, "GeometryNodeDistributePointsOnFaces"), add(s, tree, "GeometryNodeInstanceOnPoints")
    ball = add(s, tree, "GeometryNodeMeshUVSphere", sockets={"Segments": 6, "Rings": 4, "Radius": 0.15})
    tree.links.new(first, spread.inputs[0])
    s.key(one(spread, "Density"), "default_value", (1.0, 3.0, 8.0))
    tree.links.new(spread.outputs[0], points.inputs[0])
    tree.links.new(ball.outputs[0], points.inputs["Instance"])
    finish(s, tree, points.outputs[0], last)


@feature("Modeling / Geometry nodes / Attributes: captured from a noise that moves")
def captured(s):
    from features.modifiers import dense

    dense(s)
    tree, first, last, _ = s.geometry()
    noise, move = add(s, tree, "ShaderNodeTexNoise", noise_dimensions="4D"), add(s, tree, "GeometryNodeSetPosition")
    s.key(one(noise, "W"), "default_value", (0.2, 0.9, 2.1))
    tree.links.new(first, move.inputs[0])
    tree.links.new(noise.outputs["Color"], one(move, "Offset"))
    tree.links.new(move.outputs[0], last)


@feature("Modeling / Geometry nodes / Utilities: raycast onto an object that moves")
def raycast(s):
    from features.modifiers import dense

    dense(s)
    other = s.box("Other", 1.4, (0, 0, 3))
    other.hide_render = True
    s.key(other, "location", ((-0.6, 0, 3), (0.2, 0, 3), (0.9, 0.4, 3)))
    tree, first, last, _ = s.geometry()
    info, ray = add(s, tree, "GeometryNodeObjectInfo", transform_space="RELATIVE"), add(s, tree, "GeometryNodeRaycast")
    info.inputs[0].default_value = other
    one(ray, "Ray Direction").default_value = (0, 0, 1)
    tree.links.new(info.outputs["Geometry"], ray.inputs[0])
    move = add(s, tree, "GeometryNodeSetPosition")
    tree.links.new(first, move.inputs[0])
    tree.links.new(ray.outputs["Is Hit"], one(move, "Offset"))
    tree.links.new(move.outputs[0], last)


@feature("Modeling / Geometry nodes / Utilities: nearest surface of an object that moves")
def proximity(s):
    from features.modifiers import dense

    dense(s)
    other = s.box("Other", 0.8, (1, 0, 1.5))
    other.hide_render = True
    s.move(other)
    tree, first, last, _ = s.geometry()
    info, near = add(s, tree, "GeometryNodeObjectInfo", transform_space="RELATIVE"), add(s, tree, "GeometryNodeProximity")
    info.inputs[0].default_value = other
    tree.links.new(info.outputs["Geometry"], near.inputs[0])
    move = add(s, tree, "GeometryNodeSetPosition")
    tree.links.new(first, move.inputs[0])
    tree.links.new(near.outputs["Distance"], one(move, "Offset"))
    tree.links.new(move.outputs[0], last)


@feature("Modeling / Geometry nodes / Utilities: random values with a keyed seed")
def random(s):
    tree, first, last, _ = s.geometry()
    value, move = add(s, tree, "FunctionNodeRandomValue", data_type="FLOAT_VECTOR"), add(s, tree, "GeometryNodeSetPosition")
    s.key(one(value, "Seed"), "default_value", (1, 4, 9))
    tree.links.new(first, move.inputs[0])
    tree.links.new(value.outputs[0], one(move, "Offset"))
    tree.links.new(move.outputs[0], last)


@feature("Modeling / Geometry nodes / Utilities: a switch that is keyed")
def switch(s):
    tree, first, last, _ = s.geometry()
    node = add(s, tree, "GeometryNodeSwitch", input_type="GEOMETRY")
    ball = add(s, tree, "GeometryNodeMeshUVSphere", sockets={"Radius": 0.8})
    tree.links.new(first, one(node, "False"))
    tree.links.new(ball.outputs[0], one(node, "True"))
    s.key(one(node, "Switch"), "default_value", (True, False, True))
    s.key(s.subject, "location", (0.9, 1.1, 1.4), index=2)
    tree.links.new(next(out for out in node.outputs if out.enabled), last)


@feature("Modeling / Geometry nodes / Utilities: strings become curves")
def text(s):
    tree, _, last, _ = s.geometry()
    value, curves = add(s, tree, "FunctionNodeValueToString"), add(s, tree, "GeometryNodeStringToCurves", sockets={"Size": 1.5})
    found = next(i for i in value.inputs if i.type == "VALUE")
    s.key(found, "default_value", (1.0, 22.0, 333.0))
    tree.links.new(value.outputs[0], curves.inputs["String"])
    real, fill = add(s, tree, "GeometryNodeRealizeInstances"), add(s, tree, "GeometryNodeFillCurve")
    tree.links.new(curves.outputs[0], real.inputs[0])
    tree.links.new(real.outputs[0], fill.inputs[0])
    finish(s, tree, fill.outputs[0], last)


@feature("Modeling / Geometry nodes / Textures: an image whose frame is keyed")
def image(s):
    from features.modifiers import dense

    dense(s)
    tree, first, last, _ = s.geometry()
    node = add(s, tree, "GeometryNodeImageTexture")
    node.inputs["Image"].default_value = s.sequence(s.file("textures", "g_%04d.png"))
    s.key(node.inputs["Frame"], "default_value", (1, 5, 9))
    uv = add(s, tree, "GeometryNodeInputPosition")
    tree.links.new(uv.outputs[0], node.inputs["Vector"])
    move = add(s, tree, "GeometryNodeSetPosition")
    tree.links.new(first, move.inputs[0])
    tree.links.new(node.outputs["Color"], one(move, "Offset"))
    tree.links.new(move.outputs[0], last)


@feature("Modeling / Geometry nodes / Zones: repeat, iterations keyed", since=(4, 0))
def repeat(s):
    tree, first, last, _ = s.geometry()
    start, end = add(s, tree, "GeometryNodeRepeatInput"), add(s, tree, "GeometryNodeRepeatOutput")
    start.pair_with_output(end)
    s.key(start.inputs["Iterations"], "default_value", (1, 3, 5))
    copy, join = add(s, tree, "GeometryNodeTransform"), add(s, tree, "GeometryNodeJoinGeometry")
    one(copy, "Translation").default_value = (0.3, 0.1, 0.3)
    tree.links.new(first, start.inputs["Geometry"])
    tree.links.new(start.outputs["Geometry"], copy.inputs[0])
    tree.links.new(start.outputs["Geometry"], join.inputs[0])
    tree.links.new(copy.outputs[0], join.inputs[0])
    tree.links.new(join.outputs[0], end.inputs["Geometry"])
    tree.links.new(end.outputs["Geometry"], last)


@feature("Modeling / Geometry nodes / Zones: simulation", since=(3, 6), sim=True)
def simulation(s):
    tree, first, last, _ = s.geometry()
    start, end = add(s, tree, "GeometryNodeSimulationInput"), add(s, tree, "GeometryNodeSimulationOutput")
    start.pair_with_output(end)
    move = add(s, tree, "GeometryNodeSetPosition")
    one(move, "Offset").default_value = (0.08, 0.02, 0.1)
    tree.links.new(first, start.inputs["Geometry"])
    tree.links.new(start.outputs["Geometry"], move.inputs[0])
    tree.links.new(move.outputs[0], end.inputs["Geometry"])
    tree.links.new(end.outputs["Geometry"], last)


@feature("Modeling / Geometry nodes / Curves: resampled and trimmed by keys")
def trimmed(s):
    tree, _, last, _ = s.geometry()
    spiral, trim = add(s, tree, "GeometryNodeCurveSpiral"), add(s, tree, "GeometryNodeTrimCurve")
    s.key(one(trim, "End"), "default_value", (0.3, 0.6, 0.95))
    tree.links.new(spiral.outputs[0], trim.inputs[0])
    tube(s, tree, trim.outputs[0], last)


@feature("Modeling / Geometry nodes / Curves: filled, with a radius that is keyed")
def radius(s):
    tree, _, last, _ = s.geometry()
    circle, size = add(s, tree, "GeometryNodeCurvePrimitiveCircle"), add(s, tree, "GeometryNodeSetCurveRadius")
    s.key(one(size, "Radius"), "default_value", (0.5, 1.2, 2.5))
    tree.links.new(circle.outputs[0], size.inputs[0])
    mesh = add(s, tree, "GeometryNodeCurveToMesh")
    profile = add(s, tree, "GeometryNodeCurvePrimitiveCircle", sockets={"Resolution": 6, "Radius": 0.15})
    tree.links.new(size.outputs[0], mesh.inputs["Curve"])
    tree.links.new(profile.outputs[0], mesh.inputs["Profile Curve"])
    if "Scale" in mesh.inputs:  # from 5.0 the radius is handed over
        read = add(s, tree, "GeometryNodeInputRadius")
        tree.links.new(read.outputs[0], mesh.inputs["Scale"])
    finish(s, tree, mesh.outputs[0], last)


@feature("Modeling / Geometry nodes / Groups: a group inside a group, keyed within")
def groups(s):
    inner, first, last = s.group("GeometryNodeTree", "Inner", [("Geometry", "NodeSocketGeometry")], [("Geometry", "NodeSocketGeometry")])
    move = add(s, inner, "GeometryNodeTransform")
    s.key(one(move, "Translation"), "default_value", ((0, 0, 0.2), (0.5, 0, 0.4), (0.9, 0.4, 0.1)))
    inner.links.new(first.outputs[0], move.inputs[0])
    inner.links.new(move.outputs[0], last.inputs[0])
    tree, start, end, _ = s.geometry()
    node = add(s, tree, "GeometryNodeGroup", node_tree=inner)
    tree.links.new(start, node.inputs[0])
    tree.links.new(node.outputs[0], end)
