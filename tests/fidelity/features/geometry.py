"""Modeling: curves, surfaces, texts, metaballs, lattices, hair, point clouds, mesh data."""

import bpy
from kit import VERSION, feature


def bezier(s, points=((-1.5, 0, 0.5), (0, 1, 1.5), (1.5, 0, 0.7)), depth=0.15):
    s.without_subject()
    data = bpy.data.curves.new("Curve", "CURVE")
    data.dimensions, data.bevel_depth = "3D", depth
    line = data.splines.new("BEZIER")
    line.bezier_points.add(len(points) - 1)
    for point, place in zip(line.bezier_points, points):
        point.co = place
        point.handle_left_type = point.handle_right_type = "AUTO"
    made = s.object("Curve", data)
    s.material(made, (0.9, 0.3, 0.1, 1))
    return made


for path, values in (
    ("bevel_depth", [0.05, 0.2, 0.4]), ("extrude", [0.0, 0.2, 0.5]), ("offset", [0.0, 0.3, 0.6]), ("bevel_resolution", [0, 1, 5]),
    ("bevel_factor_end", [0.2, 0.6, 1.0]), ("bevel_factor_start", [0.0, 0.4, 0.8]),
    ("twist_smooth", [0.0, 4.0, 8.0]), ("use_fill_caps", [True, False, True]), ("bevel_factor_mapping_end", ["RESOLUTION", "SEGMENTS", "SPLINE"]),
):

    @feature(f"Modeling / Curves: {path} keyed", path, values)
    def curve(s, path, values):
        made = bezier(s)
        made.data.extrude = 0.15
        if path == "bevel_factor_mapping_end":
            made.data.bevel_factor_end = 0.6
            made.data.splines[0].bezier_points[1].co.x = -1.2
        if path == "twist_smooth":
            made.data.twist_mode, made.data.bevel_depth = "TANGENT", 0.02
            made.data.splines[0].bezier_points[1].tilt = 2
        s.key(made.data, path, values)


@feature("Modeling / Curves: points, handles, radius and tilt keyed")
def curve_points(s):
    made = bezier(s)
    point = made.data.splines[0].bezier_points[1]
    s.key(point, "co", [(0, 1, 1.5), (0.3, 0, 2), (-0.5, -1, 1)])
    s.key(point, "radius", [1.0, 2.0, 0.3])
    s.key(point, "tilt", [0.0, 1.0, 2.0])


for use in ("bevel_object", "taper_object"):

    @feature(f"Modeling / Curves: {use.replace('_', ' ')} whose points are keyed", use)
    def curve_object(s, use):
        made = bezier(s)
        data = bpy.data.curves.new("Profile", "CURVE")
        line = data.splines.new("POLY")
        line.points.add(2)
        for point, place in zip(line.points, ((-0.3, 0.1, 0, 1), (0, 0.4, 0, 1), (0.3, 0.1, 0, 1))):
            point.co = place
        if use == "bevel_object":
            made.data.bevel_mode = "OBJECT"
        setattr(made.data, use, s.object("Profile", data, (0, 0, -5)))
        s.key(line.points[1], "co", [(0, 0.4, 0, 1), (0, 0.8, 0, 1), (0, 0.2, 0, 1)])


@feature("Modeling / Curves: 2D, filled, with a hole, cyclic")
def filled(s):
    s.without_subject()
    data = bpy.data.curves.new("Shape", "CURVE")
    data.dimensions, data.fill_mode, data.extrude = "2D", "BOTH", 0.2
    for size in (1.5, 0.6):
        line = data.splines.new("POLY")
        line.points.add(3)
        line.use_cyclic_u = True
        for point, (x, y) in zip(line.points, ((1, 1), (-1, 1), (-1, -1), (1, -1))):
            point.co = (x * size, y * size, 0, 1)
    made = s.object("Shape", data, (0, 0, 1))
    s.key(data.splines[1].points[0], "co", [(0.6, 0.6, 0, 1), (1.2, 0.6, 0, 1), (0.3, 0.9, 0, 1)])
    s.key(made, "rotation_euler", [0.2, 0.5, 0.8], index=0)


@feature("Modeling / Curves: shape keys")
def curve_shapes(s):
    made = bezier(s)
    made.shape_key_add(name="Basis")
    other = made.shape_key_add(name="Bent")
    other.data[1].co = (0, -1.2, 0.5)
    s.key(other, "value", [0.0, 0.5, 1.0])


@feature("Modeling / Surfaces: a NURBS patch, point keyed")
def surface(s):
    s.without_subject()
    bpy.ops.surface.primitive_nurbs_surface_surface_add(radius=1.5, location=(0, 0, 1))
    made = bpy.context.object
    s.material(made, (0.2, 0.5, 0.9, 1))
    point = made.data.splines[0].points[5]
    x, y, z, w = point.co
    s.key(point, "co", [(x, y, z, w), (x, y, z + 1.5, w), (x + 1, y, z + 3, w)])


def text(s, body="Kiln"):
    s.without_subject()
    data = bpy.data.curves.new("Text", "FONT")
    data.body, data.align_x, data.size, data.extrude = body, "CENTER", 1.6, 0.1
    made = s.object("Text", data, (0, 0, 1))
    made.rotation_euler = (1.2, 0, 0.6)
    s.material(made, (0.9, 0.8, 0.1, 1))
    return made


for path, values in (
    ("size", [1.0, 1.5, 2.2]), ("shear", [0.0, 0.5, -0.7]), ("extrude", [0.0, 0.3, 0.7]), ("bevel_depth", [0.0, 0.05, 0.15]),
    ("space_character", [1.0, 1.4, 0.7]), ("offset_y", [0.0, 0.4, -0.5]), ("align_x", ["LEFT", "CENTER", "RIGHT"]),
    ("underline_height", [0.05, 0.2, 0.4]),
):

    @feature(f"Modeling / Texts: {path} keyed", path, values)
    def text_keyed(s, path, values):
        made = text(s)
        if path == "underline_height":
            for letter in made.data.body_format:
                letter.use_underline = True
        s.key(made.data, path, values)


@feature("Modeling / Texts: along a curve whose points are keyed")
def text_curve(s):
    made = text(s)
    curve = bpy.data.curves.new("Path", "CURVE")
    curve.dimensions = "3D"
    line = curve.splines.new("BEZIER")
    line.bezier_points.add(1)
    for point, place in zip(line.bezier_points, ((-1.5, 0, 0), (1.5, 0, 0))):
        point.co = place
        point.handle_left_type = point.handle_right_type = "AUTO"
    made.data.follow_curve = s.object("Path", curve)
    s.key(line.bezier_points[1], "co", [(1.5, 0, 0), (1.5, 1, 0), (1, -1, 0)])


@feature("Modeling / Texts: a font from a file outside of the project")
def font(s):
    import glob
    import os
    import shutil

    fonts = bpy.utils.system_resource("DATAFILES", path="fonts")
    found = sorted(glob.glob(os.path.join(fonts, "*.woff2")) + glob.glob(os.path.join(fonts, "*.ttf"))) if fonts else []
    found += sorted(glob.glob("/usr/share/fonts/truetype/**/*.ttf", recursive=True))
    if not found:
        s.absent("no font here")
    path = s.outside("fonts", "Schrift" + os.path.splitext(found[0])[1])
    shutil.copyfile(found[0], path)
    made = text(s, "Rg")
    made.data.font = bpy.data.fonts.load(path)
    s.key(made.data, "size", [1.0, 1.5, 2.2])


@feature("Modeling / Metaballs: two that meet, threshold keyed")
def metaballs(s):
    s.without_subject()
    data = bpy.data.metaballs.new("Blob")
    data.render_resolution = 0.2
    for x in (-0.7, 0.7):
        ball = data.elements.new()
        ball.co = (x, 0, 1)
        ball.radius = 1.2
    made = s.object("Blob", data)
    s.material(made, (0.2, 0.8, 0.5, 1))
    s.key(data, "threshold", [0.2, 0.6, 1.2])


@feature("Modeling / Metaballs: a family, one object moves")
def family(s):
    s.without_subject()
    for index, x in enumerate((-0.6, 0.6)):
        data = bpy.data.metaballs.new("Blob")
        data.render_resolution = 0.2
        data.elements.new().radius = 1.2
        made = s.object("Blob" if not index else "Blob.001", data, (x, 0, 1))
    s.move(made)


@feature("Modeling / Lattices: shape keys of the lattice")
def lattice(s):
    data = bpy.data.lattices.new("Cage")
    cage = s.object("Cage", data, (0, 0, 1))
    cage.scale = (2, 2, 2)
    cage.shape_key_add(name="Basis")
    bent = cage.shape_key_add(name="Bent")
    for index in (4, 5, 6, 7):
        bent.data[index].co.x += 0.8
    modifier = s.subject.modifiers.new("Lattice", "LATTICE")
    modifier.object = cage
    s.key(bent, "value", [0.0, 0.5, 1.0])


@feature("Modeling / Meshes: colour attribute shown, mesh turns")
def colors(s):
    attribute = s.subject.data.color_attributes.new("Paint", "FLOAT_COLOR", "POINT")
    for index, item in enumerate(attribute.data):
        item.color = (index % 2, index // 2 % 2, index // 4 % 2, 1)
    node = s.tree.nodes.new("ShaderNodeVertexColor")
    node.layer_name = "Paint"
    s.emit(node.outputs[0])
    s.key(s.subject, "rotation_euler", [0.0, 0.6, 1.2], index=2)


@feature("Modeling / Meshes: two materials, slot linked to the object")
def slots(s):
    other = bpy.data.materials.new("Second")
    other.use_nodes = True
    s.subject.data.materials.append(other)
    for index, polygon in enumerate(s.subject.data.polygons):
        polygon.material_index = index % 2
    s.subject.material_slots[1].link = "OBJECT"
    s.subject.material_slots[1].material = other
    s.key(other.node_tree.nodes["Principled BSDF"].inputs["Base Color"], "default_value", [(1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)])


@feature("Modeling / Hair curves: radius and points, in the scene", since=(3, 5))
def hair(s):
    data = bpy.data.hair_curves.new("Hair")
    if not hasattr(data, "add_curves"):
        s.absent("hair cannot be made by a script here")
    data.add_curves([4] * 20)
    for index, point in enumerate(data.points):
        strand, step = divmod(index, 4)
        point.position = (strand / 8 - 1.2, 0.1 * step, 0.3 + step * 0.5)
        point.radius = 0.05
    made = s.object("Hair", data)
    s.key(made, "rotation_euler", [0.0, 0.3, 0.6], index=2)


@feature("Modeling / Point clouds: radius, made by geometry nodes")
def cloud(s):
    tree, coming, going, _ = s.geometry()
    points = tree.nodes.new("GeometryNodeMeshToPoints")
    tree.links.new(coming, points.inputs[0])
    tree.links.new(points.outputs[0], going)
    s.key(points.inputs["Radius"], "default_value", [0.1, 0.4, 0.8])


@feature("Modeling / Volumes: made by geometry nodes, density keyed")
def volume(s):
    tree, _, going, modifier = s.geometry()
    node = tree.nodes.new("GeometryNodeVolumeCube")
    for name in ("Resolution X", "Resolution Y", "Resolution Z"):
        node.inputs[name].default_value = 12
    material = bpy.data.materials.new("Smoke")
    material.use_nodes = True
    nodes = material.node_tree.nodes
    shader = nodes.new("ShaderNodeVolumePrincipled")
    nodes.remove(nodes["Principled BSDF"])
    material.node_tree.links.new(shader.outputs[0], nodes["Material Output"].inputs["Volume"])
    shader.inputs["Density"].default_value = 2
    apply = tree.nodes.new("GeometryNodeSetMaterial")
    apply.inputs["Material"].default_value = material
    tree.links.new(node.outputs[0], apply.inputs[0])
    tree.links.new(apply.outputs[0], going)
    s.key(node.inputs["Density"], "default_value", [0.2, 1.0, 4.0])


# Grease Pencil: two kinds, the older until 4.2.


def pencil(s, frames=(1, 4, 8)):
    """A drawing with a stroke on each of the frames; returns the object."""
    if VERSION >= (4, 3, 0):
        data = bpy.data.grease_pencils_v3.new("Drawing") if hasattr(bpy.data, "grease_pencils_v3") else bpy.data.grease_pencils.new("Drawing")
    else:
        data = bpy.data.grease_pencils.new("Drawing")
    layer = data.layers.new("Lines")
    for index, frame in enumerate(frames):
        places = [(step * 0.4 - 1.2, -1, 0.4 + index * 0.6 + step % 2 * 0.4) for step in range(7)]
        if VERSION >= (4, 3, 0):
            drawing = layer.frames.new(frame).drawing
            drawing.add_strokes([len(places)])
            for point, place in zip(drawing.strokes[0].points, places):
                point.position, point.radius = place, 0.08
        else:
            stroke = layer.frames.new(frame).strokes.new()
            stroke.line_width = 90
            stroke.points.add(len(places))
            for point, place in zip(stroke.points, places):
                point.co, point.pressure, point.strength = place, 1, 1
    made = s.object("Drawing", data)
    material = bpy.data.materials.new("Ink")
    bpy.data.materials.create_gpencil_data(material)
    material.grease_pencil.color = (1, 0.1, 0.6, 1)
    data.materials.append(material)
    return made, layer


@feature("Grease Pencil / Drawings: other strokes on other frames")
def drawing(s):
    pencil(s)


@feature("Grease Pencil / Layers: opacity keyed")
def layer_opacity(s):
    made, layer = pencil(s, (1,))
    s.key(layer, "opacity", [1.0, 0.5, 0.2])


@feature("Grease Pencil / Layers: hidden by a key")
def layer_hide(s):
    made, layer = pencil(s, (1,))
    s.key(layer, "hide", [False, True, False])


@feature("Grease Pencil / Objects: moved by keys")
def drawing_moves(s):
    s.move(pencil(s, (1,))[0])


GREASE = (
    ("OFFSET", "location", [(0, 0, 0), (0.5, 0, 0.3), (1, 0, 0.6)]), ("THICK", "thickness_factor", [1.0, 2.0, 0.4]),
    ("OPACITY", "factor", [1.0, 0.5, 0.2]), ("NOISE", "factor", [0.0, 0.5, 1.0]), ("TINT", "factor", [0.0, 0.5, 1.0]),
    ("BUILD", None, None), ("SIMPLIFY", "length", [0.1, 0.5, 1.2]), ("SMOOTH", "factor", [0.0, 0.5, 1.0]),
    ("ARRAY", "count", [1, 2, 4]), ("MIRROR", None, None), ("TIME", "offset", [0, 3, -2]), ("COLOR", "hue", [0.5, 0.7, 0.2]),
    ("SUBDIV", "level", [1, 2, 4]), ("LENGTH", "start_factor", [0.1, 0.4, 0.8]), ("DASH", "dash_offset", [0, 1, 3]),
)
for kind, path, values in GREASE:

    @feature(f"Grease Pencil / Modifiers: {kind.lower()}", kind, path, values)
    def grease(s, kind, path, values):
        made, _ = pencil(s, (1, 4, 8) if kind in ("TIME", "MIRROR", "BUILD") else (1,))
        if VERSION >= (4, 3, 0):
            modifier = made.modifiers.new(kind, "GREASE_PENCIL_" + {"THICK": "THICKNESS"}.get(kind, kind))
        else:
            modifier = made.grease_pencil_modifiers.new(kind, "GP_" + kind)
        if kind == "NOISE":
            modifier.seed = 3
        if kind == "SIMPLIFY":
            modifier.mode = "SAMPLE"
        if kind == "OPACITY" and VERSION >= (4, 3, 0):
            # It changes what is there.
            for point in made.data.layers[0].frames[0].drawing.strokes[0].points:
                point.opacity = 0.9
        if kind == "ARRAY":
            modifier.relative_offset = (0.2, 0, 0)
        if kind == "DASH":
            modifier.segments[0].gap = 2
        if kind == "TINT":
            modifier.color = (0, 1, 0)
        if kind == "TIME":
            modifier.use_keep_loop, modifier.frame_scale = True, 1.0
        if path:
            if not hasattr(modifier, path):
                path = "color_factor"
            s.key(modifier, path, values)


for kind, path, values in (
    ("FX_BLUR", "size", [(5, 5), (20, 5), (50, 50)]), ("FX_COLORIZE", "factor", [0.1, 0.5, 1.0]),
    ("FX_GLOW", "opacity", [0.1, 0.6, 1.0]), ("FX_RIM", "offset", [(5, 5), (15, -5), (30, 20)]),
    ("FX_WAVE", "amplitude", [1, 8, 20]),
    ("FX_SHADOW", "offset", [(5, 5), (15, -5), (30, 20)]), ("FX_SWIRL", "angle", [0.5, 2.0, 5.0]),
):

    @feature(f"Grease Pencil / Effects: {kind[3:].lower()}", kind, path, values)
    def effect(s, kind, path, values):
        made, _ = pencil(s, (1,))
        shader = made.shader_effects.new(kind, kind)
        if kind == "FX_SWIRL":
            shader.object, shader.radius = s.empty("Centre", (0, -1, 1)), 200
        s.key(shader, path, values)


@feature("Grease Pencil / Line art: edges of the cube that turns")
def lineart(s):
    made, layer = pencil(s, (1,))
    if VERSION >= (4, 3, 0):
        modifier = made.modifiers.new("Line art", "LINEART")
        modifier.target_layer, modifier.target_material = layer.name, made.data.materials[0]
        modifier.radius = 0.05
    else:
        modifier = made.grease_pencil_modifiers.new("Line art", "GP_LINEART")
        modifier.target_layer, modifier.target_material, modifier.thickness = layer.info, made.data.materials[0], 40
    modifier.source_type = "SCENE"
    s.key(s.subject, "rotation_euler", [0.0, 0.5, 1.0], index=2)
