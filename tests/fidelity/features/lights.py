"""Lights, world and cameras."""

import math

import bpy
from kit import VERSION, feature

LIGHTS = (
    ("POINT", "energy", [50.0, 300.0, 900.0]),
    ("POINT", "color", [(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
    ("POINT", "shadow_soft_size", [0.0, 0.8, 2.5]),
    ("SUN", "energy", [0.5, 3.0, 8.0]),
    ("SUN", "angle", [0.0, 0.5, 1.5]),
    ("SPOT", "energy", [100.0, 500.0, 2000.0]),
    ("SPOT", "spot_size", [0.3, 0.8, 1.5]),
    ("SPOT", "spot_blend", [0.0, 0.5, 1.0]),
    ("AREA", "energy", [50.0, 300.0, 900.0]),
    ("AREA", "size", [0.2, 1.5, 5.0]),
    ("AREA", "spread", [0.4, 1.2, 3.0]),
    ("AREA", "shape", ["SQUARE", "RECTANGLE", "DISK"]),
    ("AREA", "temperature", [2000.0, 5000.0, 9000.0]),
    ("POINT", "exposure", [-2.0, 1.0, 3.0]),
    ("SUN", "use_shadow", [True, False, True]),
    ("SPOT", "use_soft_falloff", [True, False, True]),
)
for kind, path, values in LIGHTS:

    @feature(f"Lights / {kind.capitalize()}: {path} keyed", kind, path, values)
    def light(s, kind, path, values):
        if path == "use_shadow" and VERSION < (4, 0, 0):
            s.absent("a setting of EEVEE alone in this version")
        lamp = s.light(kind, "Lamp", (1.2, -1.5, 3), 300 if kind != "SUN" else 4)
        lamp.rotation_euler = (0.5, 0.4, 0)
        bpy.data.objects.remove(s.sun)
        if kind == "AREA":
            lamp.data.size_y = 0.1
        if path == "temperature":
            if not hasattr(lamp.data, "use_temperature"):
                s.absent("lights have no temperature in this version")
            lamp.data.use_temperature = True
        if path == "use_soft_falloff":
            lamp.location, lamp.data.shadow_soft_size = (0.9, -0.9, 1.2), 0.5
        if not hasattr(lamp.data, path):
            s.absent("not in this version")
        s.key(lamp.data, path, values)


@feature("Lights / Nodes: emission strength and colour keyed")
def nodes(s):
    s.sun.data.use_nodes = True
    emission = s.sun.data.node_tree.nodes["Emission"]
    s.key(emission.inputs["Strength"], "default_value", [0.2, 1.0, 2.0])
    s.key(emission.inputs["Color"], "default_value", [(1, 0, 0, 1), (0, 1, 0, 1), (1, 1, 0, 1)])


@feature("Lights / Nodes: light falloff keyed")
def falloff(s):
    lamp = s.light("POINT", "Lamp", (1.2, -1.5, 3), 300)
    lamp.data.use_nodes = True
    tree = lamp.data.node_tree
    node = tree.nodes.new("ShaderNodeLightFalloff")
    tree.links.new(node.outputs["Constant"], tree.nodes["Emission"].inputs["Strength"])
    s.key(node.inputs["Strength"], "default_value", [1.0, 8.0, 20.0])


@feature("Lights / Nodes: IES profile from a file, strength keyed")
def ies(s):
    path = s.outside("lights", "lamp.ies")
    angles = [0, 15, 30, 45, 60, 90]
    lines = ["IESNA:LM-63-1995", "TILT=NONE", "1 1000 1 6 1 1 2 0 0 0", "1 1 100"]
    lines += [" ".join(map(str, angles)), "0", "1000 900 300 800 100 0"]
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(lines) + "\n")
    lamp = s.light("POINT", "Lamp", (0.5, -0.8, 3), 50)
    lamp.data.use_nodes = True
    tree = lamp.data.node_tree
    node = tree.nodes.new("ShaderNodeTexIES")
    node.mode, node.filepath = "EXTERNAL", path
    tree.links.new(node.outputs["Fac"], tree.nodes["Emission"].inputs["Strength"])
    s.key(node.inputs["Strength"], "default_value", [0.2, 1.0, 3.0])


@feature("Lights / Nodes: picture of a sequence projected")
def projected(s):
    lamp = s.light("SPOT", "Lamp", (1.2, -1.5, 3), 3000)
    lamp.rotation_euler = (0.5, 0.4, 0)
    lamp.data.use_nodes = True
    tree = lamp.data.node_tree
    image = tree.nodes.new("ShaderNodeTexImage")
    image.image = s.sequence(s.file("gobo", "g_%04d.png"))
    image.image_user.frame_duration = 10
    coordinates = tree.nodes.new("ShaderNodeTexCoord")
    tree.links.new(coordinates.outputs["Normal"], image.inputs["Vector"])
    tree.links.new(image.outputs["Color"], tree.nodes["Emission"].inputs["Color"])


@feature("Lights / Linking: receivers in a collection, the light moves", since=(4, 0))
def linking(s):
    lamp = s.light("POINT", "Lamp", (1.2, -1.5, 3), 400)
    receivers = bpy.data.collections.new("Receivers")
    receivers.objects.link(s.subject)
    lamp.light_linking.receiver_collection = receivers
    s.move(lamp)


@feature("Lights / Linking: shadow blockers, the light moves", since=(4, 0))
def blocking(s):
    box = s.box("Blocker", 1, (1.3, -0.6, 1.2))
    blockers = bpy.data.collections.new("Blockers")
    blockers.objects.link(box)
    s.sun.light_linking.blocker_collection = blockers
    s.key(s.sun, "rotation_euler", [0.6, 0.3, 0.0], index=0)


@feature("Lights / Light groups: pass of a group", since=(3, 2))
def groups(s):
    layer = bpy.context.view_layer
    layer.lightgroups.add(name="Key")
    s.sun.lightgroup = "Key"
    s.key(s.sun.data, "energy", [1.0, 3.0, 6.0])
    tree, layers, result = s.compositor()
    socket = layers.outputs.get("Combined_Key")
    if socket is None:
        s.absent("the pass of a light group has no socket without a window")
    tree.links.new(socket, result)


@feature("Lights / Portal: keyed size")
def portal(s):
    lamp = s.light("AREA", "Portal", (0, 0, 3), 1)
    if not hasattr(lamp.data.cycles, "is_portal"):
        s.absent("not in this version")
    lamp.data.cycles.is_portal = True
    s.world.node_tree.nodes["Background"].inputs["Strength"].default_value = 3
    s.key(lamp.data, "size", [0.5, 2.0, 6.0])


@feature("Lights / Moved, and visible to the camera")
def moved(s):
    lamp = s.light("AREA", "Lamp", (-1.5, -0.5, 1.2), 60)
    s.move(lamp)


@feature("Lights / Emission of a mesh that dies out")
def dies(s):
    box = s.box("Lamp", 0.5, (1.3, -0.8, 1.5))
    tree, _ = s.material(box)
    emission = s.emit(tree.nodes.new("ShaderNodeRGB").outputs[0], tree)
    s.key(emission.inputs["Strength"], "default_value", [30.0, 0.0, 5.0])


@feature("Lights / Instanced lights: particles that come and go", sim=True)
def particle_lights(s):
    lamp = s.light("POINT", "Lamp", (0, 0, -5), 20)
    s.subject.modifiers.new("Emitter", "PARTICLE_SYSTEM")
    settings = s.subject.particle_systems[0].settings
    settings.count, settings.frame_start, settings.frame_end, settings.lifetime = 12, 1, 8, 3
    settings.render_type, settings.instance_object = "OBJECT", lamp


# World.


def background(s):
    return s.world.node_tree.nodes["Background"]


@feature("World / Background: colour keyed")
def world_color(s):
    s.key(background(s).inputs["Color"], "default_value", [(1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)])


@feature("World / Background: strength driven")
def world_strength(s):
    s.drive(background(s).inputs["Strength"], "default_value", "frame / 4")


def sky(s, kind):
    node = s.world.node_tree.nodes.new("ShaderNodeTexSky")
    kinds = [item.identifier for item in node.bl_rna.properties["sky_type"].enum_items]
    if kind not in kinds:
        s.absent("not in this version")
    node.sky_type = kind
    s.world.node_tree.links.new(node.outputs["Color"], background(s).inputs["Color"])
    background(s).inputs["Strength"].default_value = 0.1
    return node


for kind in ("NISHITA", "PREETHAM", "HOSEK_WILKIE", "SINGLE_SCATTERING", "MULTIPLE_SCATTERING"):

    @feature(f"World / Sky texture: {kind.replace('_', ' ').lower()} keyed", kind)
    def skies(s, kind):
        node = sky(s, kind)
        if kind in ("PREETHAM", "HOSEK_WILKIE"):
            s.key(node, "turbidity", [2.0, 5.0, 9.0])
            s.key(node, "sun_direction", [(0, 0, 1), (0, 0.7, 0.7), (0.7, 0, 0.7)])
        else:
            s.key(node, "sun_elevation", [0.1, 0.6, 1.3])
            s.key(node, "sun_rotation", [0.0, 1.0, 2.0])


def environment(s, image):
    node = s.world.node_tree.nodes.new("ShaderNodeTexEnvironment")
    node.image = image
    s.world.node_tree.links.new(node.outputs["Color"], background(s).inputs["Color"])
    return node


@feature("World / Environment texture: rotated by keys")
def world_image(s):
    node = environment(s, s.picture(s.outside("world", "sky.png"), (90, 140, 230), 16))
    tree = s.world.node_tree
    mapping, coordinates = tree.nodes.new("ShaderNodeMapping"), tree.nodes.new("ShaderNodeTexCoord")
    tree.links.new(coordinates.outputs["Generated"], mapping.inputs["Vector"])
    tree.links.new(mapping.outputs[0], node.inputs["Vector"])
    s.key(mapping.inputs["Rotation"], "default_value", [(0, 0, 0), (0, 0, 1), (0, 0, 2)])


for refresh in (False, True):

    @feature(f"World / Environment texture: sequence, Auto Refresh {'on' if refresh else 'off'}", refresh)
    def world_sequence(s, refresh):
        node = environment(s, s.sequence(s.file("world", "w_%04d.png")))
        node.image_user.frame_duration, node.image_user.use_auto_refresh = 10, refresh


@feature("World / Volume: density keyed")
def world_volume(s):
    tree = s.world.node_tree
    node = tree.nodes.new("ShaderNodeVolumeScatter")
    tree.links.new(node.outputs[0], tree.nodes["World Output"].inputs["Volume"])
    # The sun is behind endless fog: the light of the world itself is seen.
    background(s).inputs["Strength"].default_value = 2
    s.light("POINT", "Lamp", (2, -2, 3), 500)
    s.key(node.inputs["Density"], "default_value", [0.01, 0.05, 0.2])


@feature("World / Ray visibility: camera keyed")
def world_rays(s):
    s.camera.rotation_euler.x = 1.3
    if hasattr(s.world, "visible_camera"):
        s.absent("it cannot be keyed here")
    s.key(s.world.cycles_visibility, "camera", [True, False, True])


@feature("World / Another world by a driver of its mix")
def world_mix(s):
    tree = s.world.node_tree
    other, mix = tree.nodes.new("ShaderNodeBackground"), tree.nodes.new("ShaderNodeMixShader")
    other.inputs["Color"].default_value = (1, 0.3, 0, 1)
    tree.links.new(background(s).outputs[0], mix.inputs[1])
    tree.links.new(other.outputs[0], mix.inputs[2])
    tree.links.new(mix.outputs[0], tree.nodes["World Output"].inputs["Surface"])
    s.drive(mix.inputs[0], "default_value", "frame / 10")


@feature("World / Fast global illumination: distance keyed")
def fast(s):
    s.scene.cycles.use_fast_gi = True
    s.scene.cycles.fast_gi_method = "REPLACE"
    s.scene.cycles.ao_bounces_render = 1
    s.scene.render.use_simplify = True
    s.key(s.world.light_settings, "distance", [0.1, 1.0, 8.0])


# Cameras.

CAMERAS = (
    ("lens", [35.0, 50.0, 90.0]), ("shift_x", [0.0, 0.15, -0.2]), ("shift_y", [0.0, 0.15, -0.2]),
    ("sensor_width", [36.0, 24.0, 50.0]), ("clip_start", [0.1, 6.3, 7.2]), ("clip_end", [100.0, 7.5, 6.6]),
)
for path, values in CAMERAS:

    @feature(f"Cameras / Perspective: {path} keyed", path, values)
    def camera(s, path, values):
        s.key(s.camera.data, path, values)


@feature("Cameras / Orthographic: scale keyed")
def orthographic(s):
    s.camera.data.type = "ORTHO"
    s.key(s.camera.data, "ortho_scale", [6.0, 4.0, 9.0])


@feature("Cameras / Type keyed")
def camera_type(s):
    s.key(s.camera.data, "type", ["PERSP", "ORTHO", "PERSP"])


PANORAMAS = (
    ("EQUIRECTANGULAR", "longitude_max", [3.1, 1.5, 0.8]), ("FISHEYE_EQUIDISTANT", "fisheye_fov", [3.1, 1.5, 0.8]),
    ("FISHEYE_EQUISOLID", "fisheye_lens", [10.0, 15.0, 7.0]), ("MIRRORBALL", None, None),
    ("EQUIANGULAR_CUBEMAP_FACE", None, None), ("FISHEYE_LENS_POLYNOMIAL", "fisheye_polynomial_k1", [-0.02, -0.05, -0.01]),
    ("CENTRAL_CYLINDRICAL", "central_cylindrical_range_u_max", [3.1, 1.5, 0.8]),
)
for kind, path, values in PANORAMAS:

    @feature(f"Cameras / Panoramic: {kind.replace('_', ' ').lower()}", kind, path, values)
    def panorama(s, kind, path, values):
        s.camera.data.type = "PANO"
        owner = s.camera.data if hasattr(s.camera.data, "panorama_type") else s.camera.data.cycles
        if kind not in [item.identifier for item in owner.bl_rna.properties["panorama_type"].enum_items]:
            s.absent("not in this version")
        owner.panorama_type = kind
        if path:
            s.key(owner, path, values)
        else:
            s.key(s.camera, "rotation_euler", [1.05, 1.3, 0.8], index=0)


for path, values in (
    ("focus_distance", [3.0, 7.0, 12.0]), ("aperture_fstop", [0.1, 0.4, 2.0]), ("aperture_blades", [3, 6, 0]),
    ("aperture_rotation", [0.0, 0.5, 1.0]), ("aperture_ratio", [1.0, 2.0, 0.5]), ("use_dof", [True, False, True]),
):

    @feature(f"Cameras / Depth of field: {path} keyed", path, values)
    def depth(s, path, values):
        dof = s.camera.data.dof
        dof.use_dof, dof.aperture_fstop, dof.focus_distance, dof.aperture_blades = True, 0.15, 4, 3
        s.key(dof, path, values)


@feature("Cameras / Depth of field: focus on an object that moves")
def focus(s):
    dof = s.camera.data.dof
    dof.use_dof, dof.aperture_fstop = True, 0.1
    dof.focus_object = s.empty("Focus", (2, -2, 1))
    s.key(dof.focus_object, "location", [(2, -2, 1), (0, 0, 1), (-4, 4, 0)])


@feature("Cameras / Moved, turned and zoomed at once")
def flight(s):
    s.move(s.camera)
    s.key(s.camera, "rotation_euler", [(1.05, 0, math.pi / 4), (1.0, 0.1, 0.8), (0.9, 0.2, 0.75)])
    s.key(s.camera.data, "lens", [50.0, 45.0, 40.0])


@feature("Cameras / The scene's camera changed by a marker to one that moves")
def changed(s):
    other = s.object("Second", bpy.data.cameras.new("Second"), (-5, -4, 5))
    other.rotation_euler = (0.95, 0, -0.9)
    s.move(other)
    for frame, made in ((1, s.camera), (5, other)):
        s.scene.timeline_markers.new(f"F{frame}", frame=frame).camera = made


def multiview(s, kind="INDIVIDUAL"):
    s.scene.render.use_multiview = True
    s.scene.render.image_settings.views_format = kind
    return s.camera.data.stereo


@feature("Cameras / Stereo: two files, distance of the eyes keyed")
def stereo(s):
    s.key(multiview(s), "interocular_distance", [0.05, 0.3, 0.8])


for mode in ("ANAGLYPH", "INTERLACE", "SIDEBYSIDE", "TOPBOTTOM"):

    @feature(f"Cameras / Stereo: {mode.lower()}", mode)
    def stereo_3d(s, mode):
        stereo = multiview(s, "STEREO_3D")
        s.scene.render.image_settings.stereo_3d_format.display_mode = mode
        s.key(stereo, "convergence_distance", [1.5, 4.0, 9.0])


@feature("Cameras / Stereo: pivot and parallel eyes keyed by mode")
def stereo_mode(s):
    stereo = multiview(s)
    stereo.interocular_distance = 0.5
    s.key(stereo, "convergence_mode", ["OFFAXIS", "PARALLEL", "TOE"])


@feature("Cameras / Multiview: three cameras by the suffix of their names")
def views(s):
    render = s.scene.render
    render.use_multiview, render.views_format = True, "MULTIVIEW"
    while len(render.views) > 1:
        render.views.remove(render.views[-1])
    render.views[0].name, render.views[0].camera_suffix = "a", "_a"
    s.camera.name = "Cam_a"
    for name, place in (("b", (-5, -5, 4)), ("c", (0, -7, 4))):
        view = render.views.new(name)
        view.camera_suffix = "_" + name
        other = s.object("Cam_" + name, bpy.data.cameras.new(name), place)
        other.rotation_euler = (1.05, 0, math.atan2(-place[0], -place[1]) * -1)
    s.move(s.subject)
