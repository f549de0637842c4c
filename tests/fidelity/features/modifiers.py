"""Modeling: modifiers, each with one value that is keyed, or with something that moves what it reads."""


import bpy
from kit import VERSION, feature


def modifier(s, kind, made=None, **values):
    """Adds a modifier to the object (the subject) and sets its values."""
    made = made or s.subject
    try:
        added = made.modifiers.new(kind.title(), kind)
    except TypeError:
        s.absent("not in this version")
    if added is None:
        s.absent("not in this version")
    for name, value in values.items():
        setattr(added, name, value)
    return added


# What the modifier does shows by one keyed value.
KEYED = (
    # (modifier, section, value, its three values, the other settings, is a fine mesh needed)
    ("ARRAY", "count", "count", (1, 2, 4), {}, False),
    ("BEVEL", "width", "width", (0.05, 0.2, 0.5), {"segments": 2}, False),
    ("BUILD", "start", "frame_start", (-9.0, 0.0, 7.0), {"frame_duration": 12.0}, True),
    ("DECIMATE", "ratio", "ratio", (0.9, 0.5, 0.2), {}, True),
    ("REMESH", "scale", "scale", (0.3, 0.6, 0.9), {"mode": "BLOCKS", "octree_depth": 3}, False),
    ("SCREW", "angle", "angle", (0.5, 2.0, 4.0), {"axis": "X"}, False),
    ("SKIN", "smooth shading", "branch_smoothing", (0.0, 0.5, 1.0), {}, False),
    ("SOLIDIFY", "thickness", "thickness", (0.1, 0.5, 1.2), {"offset": 1.0}, False),
    ("SUBSURF", "levels", "render_levels", (1, 2, 4), {}, False),
    ("TRIANGULATE", "corners", "min_vertices", (4, 5, 4), {}, False),
    ("WELD", "distance", "merge_threshold", (0.01, 0.7, 1.6), {}, True),
    ("WIREFRAME", "thickness", "thickness", (0.05, 0.2, 0.4), {}, False),
    ("CAST", "factor", "factor", (0.1, 0.5, 1.0), {}, True),
    ("DISPLACE", "strength", "strength", (0.1, 0.5, 1.0), {"mid_level": 0.0}, True),
    ("LAPLACIANSMOOTH", "factor", "lambda_factor", (0.5, 4.0, 20.0), {"iterations": 3}, True),
    ("SIMPLE_DEFORM", "twist", "angle", (0.3, 1.0, 2.2), {"deform_method": "TWIST"}, True),
    ("SIMPLE_DEFORM", "bend", "angle", (0.3, 1.0, 2.2), {"deform_method": "BEND"}, True),
    ("SIMPLE_DEFORM", "taper", "factor", (0.3, 1.0, -0.8), {"deform_method": "TAPER"}, True),
    ("SIMPLE_DEFORM", "stretch", "factor", (0.3, 0.8, -0.5), {"deform_method": "STRETCH"}, True),
    ("SMOOTH", "factor", "factor", (0.2, 0.9, 1.8), {"iterations": 4}, True),
    ("CORRECTIVE_SMOOTH", "factor", "factor", (0.1, 0.5, 1.0), {"iterations": 20, "rest_source": "ORCO"}, True),
    ("WAVE", "by time", "height", (0.3, 0.5, 0.9), {"width": 1.0, "narrowness": 2.0, "speed": 0.3}, True),
    ("WARP", "strength", "strength", (0.2, 0.6, 1.0), {"falloff_radius": 3.0}, True),
    ("EDGE_SPLIT", "angle", "split_angle", (0.2, 1.6, 3.0), {}, True),
    ("OCEAN", "time", "time", (0.5, 2.0, 5.0), {"geometry_mode": "DISPLACE", "resolution": 6, "wave_scale": 3.0}, True),
    ("MULTIRES", "levels", "render_levels", (0, 0, 0), {}, False),
)


def dense(s):
    """Replaces the cube's mesh by a finer, rounded one."""
    import kit

    cuts, size = 6, 1.5
    flat, squares = kit.grid_mesh(cuts, size)
    half = size / 2
    sides = (
        lambda x, y: (x, y, half), lambda x, y: (y, x, -half), lambda x, y: (half, x, y),
        lambda x, y: (-half, y, x), lambda x, y: (y, half, x), lambda x, y: (x, -half, y),
    )
    numbers, faces = {}, []
    for side in sides:
        corners = [tuple(round(value, 4) for value in side(x, y)) for x, y, _ in flat]
        places = [numbers.setdefault(corner, len(numbers)) for corner in corners]
        faces += [tuple(places[corner] for corner in square) for square in squares]
    points = list(numbers)
    material = s.subject.data.materials[0]
    mesh = bpy.data.meshes.new("Dense")
    mesh.from_pydata(points, [], faces)
    mesh.uv_layers.new(name="UVMap")
    mesh.materials.append(material)
    s.subject.data = mesh
    return s.subject


def add_keyed(kind, section, path, values, settings, needs_points):
    name = kind.replace("_", " ").capitalize()

    @feature(f"Modeling / Modifiers / {name}: {section} keyed", kind, path, values, settings, needs_points)
    def keyed(s, kind, path, values, settings, needs_points):
        if needs_points:
            dense(s)
        if kind in ("DECIMATE", "CORRECTIVE_SMOOTH"):
            modifier(s, "CAST", factor=0.9)  # something round to reduce, or bent to correct
        if kind == "WARP":
            settings = settings | {"object_from": s.empty("From", (0, 0, 1)), "object_to": s.empty("To", (1, 0.5, 1.8))}
        s.key(modifier(s, kind, **settings), path, values)


for row in KEYED:
    if row[0] not in ("SKIN", "MULTIRES", "TRIANGULATE", "EDGE_SPLIT"):
        add_keyed(*row)


@feature("Modeling / Modifiers / Skin: radius keyed by scale")
def skin(s):
    mesh = bpy.data.meshes.new("Stick")
    mesh.from_pydata([(0, 0, -1), (0, 0, 0), (0.8, 0, 1)], [(0, 1), (1, 2)], [])
    mesh.materials.append(s.subject.data.materials[0])
    s.subject.data = mesh
    added = modifier(s, "SKIN")
    s.key(added, "show_render", (True, False, True))
    s.move(s.subject)


@feature("Modeling / Modifiers / Edge split: flat and smooth shading")
def edge_split(s):
    dense(s)
    for polygon in s.subject.data.polygons:
        polygon.use_smooth = True
    s.key(modifier(s, "EDGE_SPLIT"), "split_angle", (0.2, 1.2, 3.0))
    s.key(modifier(s, "SIMPLE_DEFORM", deform_method="BEND"), "angle", (0.5, 1.2, 2.4))


@feature("Modeling / Modifiers / Triangulate: with a bent face")
def triangulate(s):
    s.subject.data.vertices[0].co.z -= 0.8
    s.key(modifier(s, "TRIANGULATE"), "min_vertices", (4, 5, 4))
    s.key(s.subject, "rotation_euler", (0.2, 0.6, 1.4), index=2)


@feature("Modeling / Modifiers / Mirror: object moves")
def mirror(s):
    other = s.empty(location=(1, 0, 0))
    modifier(s, "MIRROR", mirror_object=other)
    s.move(other)


for operation in ("DIFFERENCE", "UNION", "INTERSECT"):

    @feature(f"Modeling / Modifiers / Boolean: {operation.lower()} with an object that moves", operation)
    def boolean(s, operation):
        other = s.box("Cutter", 1.2, (0.6, -0.5, 1.2))
        other.hide_render = True
        modifier(s, "BOOLEAN", object=other, operation=operation)
        s.key(other, "location", (0.9, 0.6, 0.2), index=0)


@feature("Modeling / Modifiers / Array: offset object moves")
def array_object(s):
    other = s.empty(location=(0.5, 0, 0))
    modifier(s, "ARRAY", count=4, use_relative_offset=False, use_object_offset=True, offset_object=other)
    s.move(other)


@feature("Modeling / Modifiers / Array: length keyed")
def array_length(s):
    s.subject.scale = (0.4, 0.4, 0.4)
    s.key(modifier(s, "ARRAY", fit_type="FIT_LENGTH"), "fit_length", (2, 4, 7))


@feature("Modeling / Modifiers / Mask: inverted")
def mask(s):
    dense(s)
    weights(s)
    s.key(modifier(s, "MASK", vertex_group="Top"), "threshold", (0.2, 0.5, 0.8))


@feature("Modeling / Modifiers / Armature: a bone turns")
def armature(s):
    dense(s)
    rig, bones = skeleton(s)
    for name in bones:
        group = s.subject.vertex_groups.new(name=name)
        low, high = (-9, 0) if name == bones[0] else (0, 9)
        group.add([v.index for v in s.subject.data.vertices if low <= v.co.z < high], 1, "REPLACE")
    modifier(s, "ARMATURE", object=rig)
    bone = rig.pose.bones[bones[1]]
    bone.rotation_mode = "XYZ"
    s.key(bone, "rotation_euler", (0.3, 0.8, -0.6), index=0)


@feature("Modeling / Modifiers / Curve: the curve moves")
def curve(s):
    dense(s)
    path = bezier(s)
    path.hide_render = True
    modifier(s, "CURVE", object=path)
    s.key(path.data.splines[0].bezier_points[1], "co", ((1, 0.2, 0), (1, 1, 0), (1, -1.4, 0.8)))


@feature("Modeling / Modifiers / Hook: the object moves")
def hook(s):
    dense(s)
    other = s.empty(location=(0, 0, 1))
    added = modifier(s, "HOOK", object=other, falloff_radius=2)
    added.vertex_indices_set([v.index for v in s.subject.data.vertices if v.co.z > 0])
    s.move(other)


@feature("Modeling / Modifiers / Lattice: the lattice is keyed")
def lattice(s):
    dense(s)
    cage = s.object("Cage", bpy.data.lattices.new("Cage"), (0, 0, 1))
    cage.scale = (2, 2, 2)
    modifier(s, "LATTICE", object=cage)
    s.key(cage.data.points[7], "co_deform", ((0.6, 0.6, 0.6), (1, 1, 1), (1.4, 0.2, 1)))


@feature("Modeling / Modifiers / Mesh deform: the cage moves")
def mesh_deform(s):
    dense(s)
    cage = s.box("Cage", 2.4)
    cage.hide_render = True
    added = modifier(s, "MESH_DEFORM", object=cage, precision=3)
    s.active(s.subject)
    bpy.ops.object.meshdeform_bind(modifier=added.name)
    cage.shape_key_add(name="Basis")
    key = cage.shape_key_add(name="Up")
    for point in list(key.data)[:4]:
        point.co.x -= 0.8
    s.key(key, "value", (0.2, 0.6, 1.0))


@feature("Modeling / Modifiers / Surface deform: the target moves")
def surface_deform(s):
    dense(s)
    target = s.grid("Target", 4, 3)
    target.hide_render = True
    added = modifier(s, "SURFACE_DEFORM", target=target)
    s.active(s.subject)
    bpy.ops.object.surfacedeform_bind(modifier=added.name)
    target.shape_key_add(name="Basis")
    key = target.shape_key_add(name="Bent")
    for point in key.data:
        point.co.z += point.co.x * point.co.x
    s.key(key, "value", (0.2, 0.6, 1.0))


@feature("Modeling / Modifiers / Laplacian deform: the anchors move")
def laplacian_deform(s):
    dense(s)
    anchors = s.subject.vertex_groups.new(name="Anchors")
    anchors.add([v.index for v in s.subject.data.vertices if abs(v.co.z) > 0.7], 1, "REPLACE")
    other = s.empty(location=(0, 0, 1.75))
    hook = modifier(s, "HOOK", object=other)
    hook.vertex_indices_set([v.index for v in s.subject.data.vertices if v.co.z > 0.7])
    modifier(s, "LAPLACIANDEFORM", vertex_group="Anchors", iterations=2)
    s.move(other)


for method in ("NEAREST_SURFACEPOINT", "PROJECT", "NEAREST_VERTEX", "TARGET_PROJECT"):

    @feature(f"Modeling / Modifiers / Shrinkwrap: {method.lower().replace('_', ' ')}, the target moves", method)
    def shrinkwrap(s, method):
        dense(s)
        target = s.box("Target", 2.2, (0.3, 0.2, 1))
        target.hide_render = True
        added = modifier(s, "SHRINKWRAP", target=target, wrap_method=method)
        if method == "PROJECT":
            added.use_negative_direction = added.use_positive_direction = added.use_project_z = True
        s.move(target)


@feature("Modeling / Modifiers / Displace: a texture that an object moves")
def displace_texture(s):
    dense(s)
    texture = bpy.data.textures.new("Clouds", "CLOUDS")
    texture.noise_scale = 0.5
    other = s.empty()
    modifier(s, "DISPLACE", texture=texture, texture_coords="OBJECT", texture_coords_object=other, strength=0.8)
    s.move(other)


for kind, path, values in (
    ("CLOUDS", "noise_scale", (0.3, 0.6, 1.2)),
    ("WOOD", "turbulence", (2.0, 9.0, 20.0)),
    ("MARBLE", "turbulence", (2.0, 6.0, 12.0)),
    ("MAGIC", "turbulence", (1.0, 3.0, 6.0)),
    ("VORONOI", "noise_scale", (0.3, 0.6, 1.2)),
    ("MUSGRAVE", "noise_intensity", (0.2, 0.45, 0.8)),
    ("STUCCI", "noise_scale", (0.3, 0.6, 1.2)),
    ("BLEND", "intensity", (0.7, 1.2, 1.9)),
    ("DISTORTED_NOISE", "distortion", (0.5, 2.0, 5.0)),
):

    @feature(f"Modeling / Modifiers / Displace: {kind.lower().replace('_', ' ')} texture keyed", kind, path, values)
    def displace_kind(s, kind, path, values):
        dense(s)
        texture = bpy.data.textures.new("Texture", kind)
        if kind == "WOOD":
            texture.wood_type = "BANDNOISE"
        modifier(s, "DISPLACE", texture=texture, strength=0.8, texture_coords="GLOBAL")
        s.key(texture, path, values)


for kind in ("DISPLACE", "WAVE", "WARP"):

    @feature(f"Modeling / Modifiers / {kind.capitalize()}: texture of an image sequence", kind)
    def sequence(s, kind):
        dense(s)
        texture = bpy.data.textures.new("Frames", "IMAGE")
        texture.image = s.sequence(s.file("textures", "d_%04d.png"))
        texture.image_user.frame_duration = 10
        texture.image_user.use_auto_refresh = True
        if kind == "WARP":
            start, end = s.empty("From", (0, 0, 1)), s.empty("To", (0.8, 0.5, 1.6))
            modifier(s, kind, texture=texture, object_from=start, object_to=end, falloff_radius=4)
        elif kind == "WAVE":
            modifier(s, kind, texture=texture, texture_coords="UV", height=0.8, width=2, speed=0.1)
        else:
            modifier(s, kind, texture=texture, texture_coords="UV", strength=1.2, mid_level=0)


@feature("Modeling / Modifiers / Warp: the objects move")
def warp(s):
    dense(s)
    start, end = s.empty("From", (0, 0, 1)), s.empty("To", (0.5, 0.5, 1.6))
    modifier(s, "WARP", object_from=start, object_to=end, falloff_radius=3)
    s.move(end)


@feature("Modeling / Modifiers / Explode: with particles", sim=True)
def explode(s):
    dense(s)
    modifier(s, "PARTICLE_SYSTEM")
    settings = s.subject.particle_systems[0].settings
    settings.count, settings.frame_start, settings.frame_end, settings.lifetime = 60, 1, 3, 60
    settings.normal_factor = 3
    s.subject.show_instancer_for_render = True
    modifier(s, "EXPLODE")


@feature("Modeling / Modifiers / Particle instance: follows particles", sim=True)
def particle_instance(s):
    emitter = s.box("Emitter", 1, (0, 0, 1))
    modifier(s, "PARTICLE_SYSTEM", emitter)
    settings = emitter.particle_systems[0].settings
    settings.count, settings.frame_start, settings.frame_end, settings.lifetime = 8, 1, 2, 60
    s.subject.scale = (0.3, 0.3, 0.3)
    modifier(s, "PARTICLE_INSTANCE", object=emitter, use_path=False)


@feature("Modeling / Modifiers / Data transfer: colours of an object that moves")
def data_transfer(s):
    dense(s)
    source = s.box("Source", 1.6)
    source.hide_render = True
    layer = source.data.color_attributes.new("Paint", "FLOAT_COLOR", "CORNER")
    for number, one in enumerate(layer.data):
        one.color = ((number * 0.17) % 1, (number * 0.31) % 1, (number * 0.53) % 1, 1)
    s.subject.data.color_attributes.new("Paint", "FLOAT_COLOR", "CORNER")
    added = modifier(s, "DATA_TRANSFER", object=source, use_loop_data=True, use_object_transform=True)
    added.data_types_loops = {"COLOR_CORNER"} if VERSION >= (3, 5, 0) else {"VCOL"}
    added.loop_mapping = "POLYINTERP_NEAREST"
    attribute = s.tree.nodes.new("ShaderNodeVertexColor")
    attribute.layer_name = "Paint"
    s.emit(attribute.outputs["Color"])
    s.key(source, "rotation_euler", (0.3, 1.2, 2.5), index=2)


@feature("Modeling / Modifiers / UV project: the projector moves")
def uv_project(s):
    projector = s.empty("Projector", (0, 0, 3))
    added = modifier(s, "UV_PROJECT", uv_layer="UVMap", projector_count=1)
    added.projectors[0].object = projector
    s.texture(s.picture(s.file("textures", "p.png")))
    s.move(projector)


@feature("Modeling / Modifiers / UV warp: offset keyed")
def uv_warp(s):
    added = modifier(s, "UV_WARP", uv_layer="UVMap")
    s.texture(s.picture(s.file("textures", "p.png")))
    s.key(added, "offset", ((0.1, 0), (0.4, 0.2), (0.7, 0.6)))


@feature("Modeling / Modifiers / Vertex weight edit: feeds a mask")
def weight_edit(s):
    dense(s)
    weights(s)
    added = modifier(s, "VERTEX_WEIGHT_EDIT", vertex_group="Top", use_add=True, use_remove=True)
    s.key(added, "remove_threshold", (0.2, 0.5, 0.8))
    modifier(s, "MASK", vertex_group="Top", threshold=0.05)


@feature("Modeling / Modifiers / Vertex weight proximity: feeds a displacement")
def weight_proximity(s):
    dense(s)
    weights(s)
    target = s.empty(location=(0.5, 0, 1.5))
    modifier(
        s, "VERTEX_WEIGHT_PROXIMITY", vertex_group="Top", target=target, proximity_mode="OBJECT", max_dist=3.0
    )
    modifier(s, "DISPLACE", vertex_group="Top", strength=0.8, mid_level=0)
    s.move(target)


@feature("Modeling / Modifiers / Vertex weight mix: feeds a displacement")
def weight_mix(s):
    dense(s)
    weights(s)
    weights(s, "Side", axis=0)
    added = modifier(s, "VERTEX_WEIGHT_MIX", vertex_group_a="Top", vertex_group_b="Side", mix_set="ALL", mix_mode="ADD")
    s.key(added, "mask_constant", (0.1, 0.5, 1.0))
    modifier(s, "DISPLACE", vertex_group="Top", strength=0.8, mid_level=0)


@feature("Modeling / Modifiers / Normal edit: offset keyed")
def normal_edit(s):
    dense(s)
    for polygon in s.subject.data.polygons:
        polygon.use_smooth = True
    if hasattr(s.subject.data, "use_auto_smooth"):
        s.subject.data.use_auto_smooth = True
    added = modifier(s, "NORMAL_EDIT", mode="RADIAL")
    s.key(added, "offset", ((0, 0, 0.5), (1, 0, 1), (-1, 1, 2)))


@feature("Modeling / Modifiers / Weighted normal: weight keyed")
def weighted_normal(s):
    modifier(s, "BEVEL", width=0.3, segments=2)
    for polygon in s.subject.data.polygons:
        polygon.use_smooth = True
    if hasattr(s.subject.data, "use_auto_smooth"):
        s.subject.data.use_auto_smooth = True
    s.key(modifier(s, "WEIGHTED_NORMAL"), "weight", (1, 50, 100))
    s.key(s.subject, "rotation_euler", (0.1, 0.6, 1.2), index=2)


@feature("Modeling / Modifiers / Multires: turns off")
def multires(s):
    added = modifier(s, "MULTIRES")
    s.active(s.subject)
    bpy.ops.object.multires_subdivide(modifier=added.name)
    bpy.ops.object.multires_subdivide(modifier=added.name)
    s.key(added, "render_levels", (0, 1, 2))


@feature("Modeling / Modifiers / Volume to mesh: threshold keyed")
def volume_to_mesh(s):
    volume = s.object("Fog", bpy.data.volumes.new("Fog"), (0, 0, 0))
    modifier(s, "MESH_TO_VOLUME", volume, object=s.subject, resolution_mode="VOXEL_AMOUNT", voxel_amount=24)
    volume.hide_render = True
    other = s.box("Shell", 0.2, (0, 0, 0))
    added = modifier(s, "VOLUME_TO_MESH", other, object=volume, resolution_mode="VOXEL_AMOUNT", voxel_amount=20)
    s.subject.hide_render = True
    s.move(s.subject)
    s.key(added, "adaptivity", (0.0, 0.3, 0.9))


@feature("Modeling / Modifiers / Volume displace: strength keyed")
def volume_displace(s):
    volume = s.object("Fog", bpy.data.volumes.new("Fog"), (0, 0, 0))
    material = bpy.data.materials.new("Fog")
    material.use_nodes = True
    material.node_tree.nodes.clear()
    absorb = material.node_tree.nodes.new("ShaderNodeVolumePrincipled")
    absorb.inputs["Density"].default_value = 3
    out = material.node_tree.nodes.new("ShaderNodeOutputMaterial")
    material.node_tree.links.new(absorb.outputs[0], out.inputs["Volume"])
    volume.data.materials.append(material)
    modifier(s, "MESH_TO_VOLUME", volume, object=s.subject, voxel_amount=24, density=1)
    clouds = bpy.data.textures.new("Clouds", "CLOUDS")
    clouds.cloud_type = "COLOR"
    added = modifier(s, "VOLUME_DISPLACE", volume, texture=clouds, texture_map_mode="GLOBAL")
    s.subject.hide_render = True
    s.key(added, "strength", (0.3, 1.5, 4.0))


@feature("Modeling / Modifiers / Mesh sequence cache: shape from a PC2 file")
def mesh_cache(s):
    import struct


    points = len(s.subject.data.vertices)
    path = s.file("caches", "move.pc2")
    with open(path, "wb") as out:
        out.write(b"POINTCACHE2\0" + struct.pack("<iiffi", 1, points, 0.0, 1.0, 12))
        for frame in range(12):
            for vertex in s.subject.data.vertices:
                x, y, z = vertex.co
                out.write(struct.pack("<fff", x * (1 + frame / 8), y, z + frame / 12))
    added = modifier(s, "MESH_CACHE", cache_format="PC2", filepath=s.relative(path))
    added.frame_start = 0


@feature("Modeling / Modifiers / Subdivision: shown in renders only when keyed")
def shown(s):
    s.key(modifier(s, "SUBSURF", render_levels=3), "show_render", (True, False, True))
    s.key(s.subject, "rotation_euler", (0.1, 0.6, 1.2), index=2)


@feature("Modeling / Modifiers / Smooth by angle: shading of a mesh that bends")
def smooth_by_angle(s):
    dense(s)
    s.active(s.subject)
    if hasattr(s.subject.data, "use_auto_smooth"):
        s.subject.data.use_auto_smooth = True
    for polygon in s.subject.data.polygons:
        polygon.use_smooth = True
    s.key(modifier(s, "SIMPLE_DEFORM", deform_method="BEND"), "angle", (0.5, 1.2, 2.4))


def weights(s, name="Top", axis=2):
    """A vertex group whose weight grows along an axis."""
    group = s.subject.vertex_groups.new(name=name)
    for vertex in s.subject.data.vertices:
        group.add([vertex.index], min(max(vertex.co[axis] / 1.5 + 0.5, 0), 1), "REPLACE")
    return group


def bezier(s):
    """A short curve along X."""
    data = bpy.data.curves.new("Path", "CURVE")
    data.dimensions = "3D"
    spline = data.splines.new("BEZIER")
    spline.bezier_points.add(1)
    for point, x in zip(spline.bezier_points, (-1, 1)):
        point.co = (x, 0, 0)
        point.handle_left_type = point.handle_right_type = "AUTO"
    return s.object("Path", data, (0, 0, 1))


def skeleton(s):
    """An armature with two bones above one another."""
    data = bpy.data.armatures.new("Rig")
    rig = s.object("Rig", data, (0, 0, 0.25))
    s.active(rig)
    bpy.ops.object.mode_set(mode="EDIT")
    lower, upper = data.edit_bones.new("Lower"), data.edit_bones.new("Upper")
    lower.head, lower.tail = (0, 0, 0), (0, 0, 0.75)
    upper.head, upper.tail = (0, 0, 0.75), (0, 0, 1.5)
    upper.parent = lower
    bpy.ops.object.mode_set(mode="OBJECT")
    return rig, ("Lower", "Upper")
