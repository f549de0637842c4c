"""Rendering: engines' settings, motion blur, passes, view layers, output formats, colour management."""

import bpy
from kit import NEW, VERSION, feature


def spin(s):
    s.key(s.subject, "rotation_euler", [0.0, 0.8, 2.4], index=2)


def blur(s):
    s.scene.render.use_motion_blur = True


@feature("Rendering / Motion blur: object")
def blur_object(s):
    blur(s)
    spin(s)
    s.move(s.subject)


@feature("Rendering / Motion blur: deformation by shape keys")
def blur_deform(s):
    blur(s)
    s.subject.shape_key_add(name="Basis")
    tall = s.subject.shape_key_add(name="Tall")
    for point in tall.data:
        point.co.z *= 2
    s.key(tall, "value", [0.0, 0.4, 1.0])


@feature("Rendering / Motion blur: camera and its lens")
def blur_camera(s):
    blur(s)
    s.move(s.camera)
    s.key(s.camera.data, "lens", [40.0, 60.0, 45.0])


for position in ("START", "CENTER", "END"):

    @feature(f"Rendering / Motion blur: shutter position {position.lower()}", position)
    def blur_position(s, position):
        blur(s)
        s.move(s.subject)
        owner = s.scene.render if hasattr(s.scene.render, "motion_blur_position") else s.scene.cycles
        owner.motion_blur_position = position


@feature("Rendering / Motion blur: shutter keyed", of_range=True)
def blur_shutter(s):
    blur(s)
    s.move(s.subject)
    s.key(s.scene.render, "motion_blur_shutter", [0.1, 1.0, 3.0])


@feature("Rendering / Motion blur: rolling shutter")
def blur_rolling(s):
    blur(s)
    s.move(s.camera)
    s.scene.cycles.rolling_shutter_type = "TOP"


@feature("Rendering / Motion blur: parent that moves, steps of the object")
def blur_steps(s):
    blur(s)
    s.subject.cycles.motion_steps = 3
    s.subject.parent = s.empty()
    s.key(s.subject.parent, "rotation_euler", [0.0, 1.0, 2.5], index=2)
    s.subject.location.x = 1


@feature("Rendering / Motion blur: particles", sim=True)
def blur_particles(s):
    blur(s)
    s.subject.modifiers.new("Emitter", "PARTICLE_SYSTEM")
    settings = s.subject.particle_systems[0].settings
    settings.count, settings.frame_start, settings.frame_end = 40, -5, 8
    settings.render_type, settings.instance_object, settings.particle_size = "OBJECT", s.box("Piece", 0.4, (0, 0, -5)), 1


CYCLES = (
    ("samples", [1, 3, 6]), ("seed", [0, 5, 9]), ("max_bounces", [0, 1, 4]), ("film_exposure", [0.3, 1.0, 2.5]),
    ("filter_width", [0.5, 1.5, 6.0]), ("sample_clamp_indirect", [0.05, 10.0, 0.3]), ("sample_clamp_direct", [0.2, 10.0, 0.5]),
    ("blur_glossy", [0.0, 5.0, 10.0]), ("transparent_max_bounces", [0, 8, 1]),
    ("diffuse_bounces", [0, 4, 1]), ("use_fast_gi", [True, False, True]), ("pixel_filter_type", ["BOX", "GAUSSIAN", "BLACKMAN_HARRIS"]),
    ("adaptive_threshold", [0.9, 0.001, 0.3]), ("film_transparent_roughness", [0.0, 0.5, 1.0]),
)
for path, values in CYCLES:

    @feature(f"Rendering / Cycles: {path} keyed", path, values)
    def cycles(s, path, values):
        if path == "transparent_max_bounces":
            s.shader.inputs["Alpha"].default_value = 0.4
        if path == "blur_glossy":
            s.shader.inputs["Roughness"].default_value = 0.0
            s.material(s.floor)[1].inputs["Roughness"].default_value = 0.02
        if path == "adaptive_threshold":
            s.scene.cycles.use_adaptive_sampling, s.scene.cycles.samples = True, 32
            s.scene.cycles.adaptive_min_samples = 2
        if path == "film_transparent_roughness":
            s.scene.render.film_transparent = s.scene.cycles.film_transparent_glass = True
            s.shader.inputs["Transmission Weight" if "Transmission Weight" in s.shader.inputs else "Transmission"].default_value = 1
            s.shader.inputs["Roughness"].default_value = 0.3
        if path in ("use_fast_gi",):
            s.scene.cycles.fast_gi_method = "REPLACE"
            s.scene.cycles.ao_bounces_render = 1
        s.key(s.scene.cycles, path, values)


@feature("Rendering / Cycles: animated seed")
def animated_seed(s):
    s.scene.cycles.use_animated_seed = True


@feature("Rendering / Cycles: persistent data set in the file")
def persistent(s):
    s.scene.render.use_persistent_data = True
    spin(s)


@feature("Rendering / Cycles: holdout of the world, transparent film keyed")
def transparent(s):
    s.scene.render.image_settings.color_mode = "RGBA"
    s.key(s.scene.render, "film_transparent", [True, False, True])


@feature("Rendering / Cycles: shadow caustics", since=(3, 2))
def caustics(s):
    s.light("POINT", "Lamp", (1.5, -1.5, 4), 400)
    bpy.data.lights["Lamp"].cycles.is_caustics_light = True
    s.subject.cycles.is_caustics_caster = s.floor.cycles.is_caustics_receiver = True
    s.shader.inputs["Transmission Weight" if "Transmission Weight" in s.shader.inputs else "Transmission"].default_value = 1
    spin(s)


@feature("Rendering / Cycles: adaptive subdivision of a displaced mesh")
def adaptive(s):
    if VERSION < (5, 0, 0):
        s.scene.cycles.feature_set = "EXPERIMENTAL"
    modifier = s.subject.modifiers.new("Subdivision", "SUBSURF")
    if hasattr(modifier, "use_adaptive_subdivision"):
        modifier.use_adaptive_subdivision = True
    else:
        s.subject.cycles.use_adaptive_subdivision = True
    material = s.subject.data.materials[0]
    owner = material if hasattr(material, "displacement_method") else material.cycles
    owner.displacement_method = "DISPLACEMENT"
    noise, node = s.tree.nodes.new("ShaderNodeTexNoise"), s.tree.nodes.new("ShaderNodeDisplacement")
    s.tree.links.new(noise.outputs[0], node.inputs["Height"])
    s.tree.links.new(node.outputs[0], s.tree.nodes["Material Output"].inputs["Displacement"])
    s.key(node.inputs["Scale"], "default_value", [0.1, 0.5, 1.0])


@feature("Rendering / Simplify: maximum subdivision keyed")
def simplify(s):
    s.scene.render.use_simplify = True
    modifier = s.subject.modifiers.new("Subdivision", "SUBSURF")
    modifier.render_levels = 4
    s.key(s.scene.render, "simplify_subdivision_render", [0, 1, 4])


@feature("Rendering / Simplify: on and off by a key, texture limit")
def simplify_texture(s):
    s.texture(s.picture(s.file("big.png"), size=256))
    s.scene.cycles.texture_limit_render = "128"
    modifier = s.subject.modifiers.new("Subdivision", "SUBSURF")
    modifier.render_levels, s.scene.render.simplify_subdivision_render = 2, 0
    s.key(s.scene.render, "use_simplify", [True, False, True])


@feature("Rendering / Dimensions: border, and cropped to it")
def crop(s):
    render = s.scene.render
    render.use_border = render.use_crop_to_border = True
    render.border_min_x, render.border_max_x, render.border_min_y, render.border_max_y = 0.2, 0.8, 0.1, 0.9
    spin(s)


@feature("Rendering / Dimensions: border that is not cropped")
def border(s):
    render = s.scene.render
    render.use_border = True
    render.border_min_x, render.border_max_x, render.border_min_y, render.border_max_y = 0.2, 0.8, 0.1, 0.9
    spin(s)


@feature("Rendering / Dimensions: percentage and aspect of the file")
def percentage(s):
    s.scene.render.resolution_percentage, s.scene.render.pixel_aspect_y = 60, 1.3
    spin(s)


@feature("Rendering / Dither: noise keyed")
def dither(s):
    s.key(s.scene.render, "dither_intensity", [0.0, 1.0, 2.0])


@feature("Rendering / Metadata: burnt into the picture, with frame and range")
def stamp(s):
    render = s.scene.render
    render.resolution_x, render.resolution_y = 320, 180
    render.use_stamp = True
    render.use_stamp_date = render.use_stamp_render_time = render.use_stamp_memory = render.use_stamp_hostname = False
    render.use_stamp_frame_range = render.use_stamp_camera = render.use_stamp_scene = render.use_stamp_lens = True
    render.use_stamp_filename = True
    render.stamp_font_size = 10


@feature("Rendering / Metadata: marker and note")
def stamp_note(s):
    render = s.scene.render
    render.resolution_x, render.resolution_y = 320, 180
    render.use_stamp = render.use_stamp_note = render.use_stamp_marker = True
    render.use_stamp_date = render.use_stamp_render_time = render.use_stamp_memory = render.use_stamp_hostname = False
    render.stamp_note_text = "take 7"
    for frame, name in ((1, "in"), (4, "turn"), (8, "out")):
        s.scene.timeline_markers.new(name, frame=frame)


# View layers and passes.

PASSES = (
    ("use_pass_z", "Depth"), ("use_pass_mist", "Mist"), ("use_pass_normal", "Normal"), ("use_pass_position", "Position"),
    ("use_pass_uv", "UV"), ("use_pass_vector", "Vector"), ("use_pass_object_index", "IndexOB"),
    ("use_pass_material_index", "IndexMA"), ("use_pass_diffuse_direct", "DiffDir"), ("use_pass_diffuse_color", "DiffCol"),
    ("use_pass_glossy_direct", "GlossDir"), ("use_pass_transmission_color", "TransCol"), ("use_pass_emit", "Emit"),
    ("use_pass_environment", "Env"), ("use_pass_ambient_occlusion", "AO"), ("use_pass_shadow", "Shadow"),
    ("use_pass_cryptomatte_object", "CryptoObject00"), ("use_pass_cryptomatte_material", "CryptoMaterial00"),
)


def exr(s, layers=False, depth="32"):
    settings = s.scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "MULTI_LAYER_IMAGE" if layers else "IMAGE"
    settings.file_format = "OPEN_EXR_MULTILAYER" if layers else "OPEN_EXR"
    settings.color_depth = depth
    settings.color_mode = "RGBA"


for path, name in PASSES:

    @feature(f"Rendering / Passes: {name}, in a multilayer EXR", path)
    def passes(s, path):
        layer = bpy.context.view_layer
        if not hasattr(layer, path):
            s.absent("not in this version")
        setattr(layer, path, True)
        s.subject.pass_index = s.subject.data.materials[0].pass_index = 2
        exr(s, layers=True)
        spin(s)


@feature("Rendering / Passes: AOV of a shader, value and colour")
def aov(s):
    layer = bpy.context.view_layer
    for name, kind in (("heat", "VALUE"), ("tint", "COLOR")):
        made = layer.aovs.add()
        made.name, made.type = name, kind
        node = s.tree.nodes.new("ShaderNodeOutputAOV")
        if hasattr(node, "aov_name"):
            node.aov_name = name
        else:
            node.name = name
        if kind == "VALUE":
            s.key(node.inputs["Value"], "default_value", [0.1, 0.6, 2.0])
    exr(s, layers=True)


@feature("Rendering / Passes: denoising data")
def denoising_data(s):
    bpy.context.view_layer.cycles.denoising_store_passes = True
    exr(s, layers=True)
    spin(s)


@feature("Rendering / Passes: shadow catcher")
def catcher(s):
    s.scene.render.film_transparent = True
    s.floor.is_shadow_catcher = True
    bpy.context.view_layer.cycles.use_pass_shadow_catcher = True
    exr(s, layers=True)
    spin(s)


@feature("Rendering / View layers: two with other collections, both in a multilayer EXR")
def layers(s):
    other = s.scene.view_layers.new("Second")
    made = bpy.data.collections.new("Only here")
    s.scene.collection.children.link(made)
    box = s.box("Extra", 1, (1.5, 0, 1))
    made.objects.link(box)
    s.scene.collection.objects.unlink(box)
    s.scene.view_layers[0].layer_collection.children["Only here"].exclude = True
    other.use_pass_z = True
    exr(s, layers=True)
    s.move(box)


@feature("Rendering / View layers: one that is not used")
def unused(s):
    s.scene.view_layers.new("Off").use = False
    exr(s, layers=True)
    spin(s)


@feature("Rendering / View layers: material override")
def override(s):
    material = bpy.data.materials.new("Clay")
    material.use_nodes = True
    bpy.context.view_layer.material_override = material
    s.key(material.node_tree.nodes["Principled BSDF"].inputs["Base Color"], "default_value", [(1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)])


for path, values in (("use_sky", [True, False, True]), ("use_solid", [True, False, True]), ("samples", [1, 4, 8])):

    @feature(f"Rendering / View layers: {path} keyed", path, values)
    def layer_setting(s, path, values):
        if path == "use_sky":
            s.camera.rotation_euler.x = 1.3
        try:
            s.key(bpy.context.view_layer, path, values)
        except (TypeError, ValueError, RuntimeError) as error:
            s.absent(f"it cannot be keyed: {error}")


@feature("Rendering / Freestyle: lines of the cube, thickness keyed")
def freestyle(s):
    s.scene.render.use_freestyle = True
    layer = bpy.context.view_layer
    if not hasattr(layer, "freestyle_settings") or not s.scene.render.use_freestyle:
        s.absent("built without Freestyle")
    lineset = layer.freestyle_settings.linesets[0] if layer.freestyle_settings.linesets else layer.freestyle_settings.linesets.new("Lines")
    if lineset.linestyle is None:
        lineset.linestyle = bpy.data.linestyles.new("Style")
    s.key(lineset.linestyle, "thickness", [1.0, 3.0, 6.0])


# Output formats.

FORMATS = (
    ("PNG", "RGB", "8"), ("PNG", "RGBA", "16"), ("PNG", "BW", "8"), ("JPEG", "RGB", "8"), ("BMP", "RGB", "8"),
    ("TIFF", "RGB", "8"), ("TIFF", "RGBA", "16"), ("WEBP", "RGB", "8"), ("TARGA", "RGB", "8"), ("TARGA_RAW", "RGBA", "8"),
    ("HDR", "RGB", "32"), ("OPEN_EXR", "RGB", "16"), ("OPEN_EXR", "RGBA", "32"), ("OPEN_EXR_MULTILAYER", "RGBA", "16"),
)
for kind, mode, depth in FORMATS:

    @feature(f"Rendering / Output: {kind}, {mode}, {depth} bits", kind, mode, depth)
    def output(s, kind, mode, depth):
        settings = s.scene.render.image_settings
        if hasattr(settings, "media_type"):
            settings.media_type = "MULTI_LAYER_IMAGE" if kind.endswith("LAYER") else "IMAGE"
        settings.file_format, settings.color_mode = kind, mode
        if depth in [item.identifier for item in settings.bl_rna.properties["color_depth"].enum_items]:
            try:
                settings.color_depth = depth
            except TypeError:
                pass
        s.scene.render.film_transparent = mode == "RGBA"
        spin(s)


OLD_FORMATS = (
    ("IRIS", "RGB", "8", {}), ("IRIS", "RGBA", "8", {}), ("CINEON", "RGB", "10", {}), ("DPX", "RGB", "8", {}),
    ("DPX", "RGB", "10", {}), ("DPX", "RGB", "10", {"use_cineon_log": True}), ("DPX", "RGBA", "16", {}),
    ("JPEG2000", "RGB", "8", {}), ("JPEG2000", "RGBA", "16", {"quality": 100}), ("JPEG2000", "RGB", "12", {"jpeg2k_codec": "J2K"}),
    ("JPEG2000", "RGB", "12", {"use_jpeg2k_cinema_preset": True}),
)
for kind, mode, depth, more in OLD_FORMATS:

    @feature(", ".join([f"Rendering / Output: {kind}, {mode}, {depth} bits", *more]), kind, mode, depth, more)
    def old_output(s, kind, mode, depth, more):
        settings = s.scene.render.image_settings
        try:
            settings.file_format = kind
        except TypeError:
            s.absent("built without it")
        settings.color_mode = mode
        if not more.get("use_jpeg2k_cinema_preset"):
            settings.color_depth = depth
        for key, value in more.items():
            setattr(settings, key, value)
        s.scene.render.film_transparent = mode == "RGBA"
        spin(s)


for codec in ("NONE", "PIZ", "DWAA", "B44", "RLE", "ZIPS"):

    @feature(f"Rendering / Output: EXR compressed by {codec}", codec)
    def compressed(s, codec):
        exr(s, depth="16")
        try:
            s.scene.render.image_settings.exr_codec = codec
        except TypeError:
            s.absent("not in this version")
        spin(s)


for title, path in (
    ("hashes in the name", "//frames/shot.####.v2"), ("six digits", "//frames/######"), ("folders", "//a/b c/d_"),
    ("letters of other scripts", "//кадры/場面_"), ("a dot in the name", "//v1.2_"), ("a name without digits ahead", "//frames/"),
):

    @feature(f"Rendering / Output: path with {title}", path)
    def named(s, path):
        s.scene.render.filepath = path
        spin(s)


@feature("Rendering / Output: no extension")
def bare(s):
    s.scene.render.use_file_extension = False
    s.scene.render.filepath = "//frames/shot_####.png"
    spin(s)


@feature("Rendering / Output: preview beside an EXR (Kiln leaves the preview out, and says so)", leaves_out=".jpg")
def preview(s):
    exr(s)
    settings = s.scene.render.image_settings
    if not hasattr(settings, "use_preview"):
        s.absent("not in this version")
    settings.use_preview = True
    spin(s)


@feature("Rendering / Output: colour management of the file overridden", since=(3, 4))
def file_color(s):
    settings = s.scene.render.image_settings
    settings.color_management = "OVERRIDE"
    settings.view_settings.exposure = 1.5
    spin(s)


# Colour management.

for path, values in (("exposure", [-1.0, 0.0, 2.0]), ("gamma", [0.5, 1.0, 2.0])):

    @feature(f"Rendering / Colour management: {path} keyed", path, values)
    def managed(s, path, values):
        s.key(s.scene.view_settings, path, values)


for transform in ("Filmic", "AgX", "Khronos PBR Neutral", "Filmic Log", "False Color", "Raw", "ACES 2.0"):

    @feature(f"Rendering / Colour management: view transform {transform}", transform)
    def transformed(s, transform):
        try:
            s.scene.view_settings.view_transform = transform
        except TypeError:
            s.absent("not in this version")
        s.key(s.sun.data, "energy", [1.0, 5.0, 20.0])


@feature("Rendering / Colour management: look")
def look(s):
    s.scene.view_settings.view_transform = "Filmic"
    looks = [item for item in ("High Contrast", "Filmic - High Contrast") if True]
    for name in looks:
        try:
            s.scene.view_settings.look = name
            break
        except TypeError:
            continue
    s.key(s.sun.data, "energy", [1.0, 5.0, 20.0])


@feature("Rendering / Colour management: curves")
def curves(s):
    s.scene.view_settings.use_curve_mapping = True
    mapping = s.scene.view_settings.curve_mapping
    mapping.curves[3].points.new(0.3, 0.7)
    mapping.update()
    spin(s)


@feature("Rendering / Colour management: white balance keyed", since=(4, 3))
def white(s):
    s.scene.view_settings.use_white_balance = True
    s.key(s.scene.view_settings, "white_balance_temperature", [3000.0, 6500.0, 9000.0])


@feature("Rendering / No camera", refuses="camera")
def no_camera(s):
    spin(s)
    bpy.data.objects.remove(s.camera)
