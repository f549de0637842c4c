"""The settings of a job, each over the file's own, in memory only."""

import bpy

from .errors import Refusal

# By Kiln's names: Blender's name, and the bits a channel it can write.
FORMATS = {
    "png": ("PNG", (8, 16)),
    "jpeg": ("JPEG", (8,)),
    "exr": ("OPEN_EXR", (16, 32)),
    "exr-multilayer": ("OPEN_EXR_MULTILAYER", (16, 32)),
    "tiff": ("TIFF", (8, 16)),
    "webp": ("WEBP", (8,)),
    "bmp": ("BMP", (8,)),
    "tga": ("TARGA", (8,)),
    "tga-raw": ("TARGA_RAW", (8,)),
    "hdr": ("HDR", (32,)),
    "iris": ("IRIS", (8,)),
    "cineon": ("CINEON", (10,)),
    "dpx": ("DPX", (8, 10, 12, 16)),
    "jp2": ("JPEG2000", (8, 12, 16)),
    "j2c": ("JPEG2000", (8, 12, 16)),
}
# Blender has one name for both kinds of JPEG 2000, and a setting beside it.
CODECS = {"jp2": "JP2", "j2c": "J2K"}


def format_of(image_settings):
    """Kiln's name of the format that is set; None where Kiln cannot check it."""
    # A Blender that was built without JPEG 2000 lacks the setting.
    codec = getattr(image_settings, "jpeg2k_codec", None)
    for ours, (name, _) in FORMATS.items():
        if name == image_settings.file_format and CODECS.get(ours) in (None, codec):
            return ours
    return None


def set_format(image_settings, ours):
    """Sets a format by Kiln's name. From 5.0 the kind of medium comes first."""
    name = FORMATS[ours][0]
    if hasattr(image_settings, "media_type"):
        many = name == "OPEN_EXR_MULTILAYER"
        image_settings.media_type = "MULTI_LAYER_IMAGE" if many else "IMAGE"
    try:
        image_settings.file_format = name
    except TypeError:
        raise Refusal("bad-setting", f"this Blender cannot write {name}; choose another with --format") from None
    if ours in CODECS:
        image_settings.jpeg2k_codec = CODECS[ours]


def is_video(render):
    return render.is_movie_format or getattr(render.image_settings, "media_type", "") == "VIDEO"


def apply(session):
    scene, wanted = session.scene, session.settings
    _camera(session, wanted.get("camera"))
    _view_layer(scene, wanted.get("view_layer"))
    _samples(session, wanted.get("samples"))
    _resolution(scene.render, wanted.get("resolution"))
    _check_format(session, wanted.get("depth"))
    render = scene.render
    render.threads_mode = "FIXED" if session.threads else "AUTO"
    if session.threads:
        render.threads = session.threads
    # What lies in the folder already is Kiln's business; the frame's own folder is always empty.
    render.use_overwrite = True
    render.use_placeholder = False


def _camera(session, wanted):
    if not wanted:
        return
    camera = session.scene.objects.get(wanted)
    if camera is None or camera.type != "CAMERA":
        there = ", ".join(o.name for o in session.scene.objects if o.type == "CAMERA") or "none"
        raise Refusal("bad-setting", f"the scene has no camera “{wanted}”; it has: {there}")
    session.scene.camera = camera
    for marker in session.scene.timeline_markers:
        marker.camera = None  # a bound marker would choose another one


def _view_layer(scene, wanted):
    if not wanted:
        return
    if wanted not in scene.view_layers:
        there = ", ".join(layer.name for layer in scene.view_layers)
        raise Refusal("bad-setting", f"the scene has no view layer “{wanted}”; it has: {there}")
    for layer in scene.view_layers:
        layer.use = layer.name == wanted
    scene.render.use_single_layer = False


def _samples(session, wanted):
    if not wanted:
        return
    scene = session.scene
    engine = scene.render.engine
    if engine == "CYCLES":
        scene.cycles.samples = wanted
    elif engine.startswith("BLENDER_EEVEE"):
        scene.eevee.taa_render_samples = wanted
    else:
        session.notice(f"{engine} counts no samples; --samples has no effect")


def _resolution(render, wanted):
    if not wanted:
        return
    if "percent" in wanted:
        render.resolution_percentage = wanted["percent"]
        return
    render.resolution_x = wanted["pixels"]["width"]
    render.resolution_y = wanted["pixels"]["height"]
    render.resolution_percentage = 100


def choose_format(session):
    """The format that is asked for; frames in place of a video."""
    image, wanted = session.scene.render.image_settings, session.settings.get("format")
    video = is_video(session.scene.render)
    if wanted:
        set_format(image, wanted)
    elif video:
        set_format(image, "png")
        image.color_depth = session.settings.get("depth") or "16"
    if video:
        session.notice(
            f"the scene's output is a video; it is rendered as frames ({image.file_format}), to be encoded once"
        )


def _check_format(session, depth):
    render = session.scene.render
    image = render.image_settings
    ours = format_of(image)
    if ours is None:
        raise Refusal(
            "bad-setting",
            f"the scene writes {image.file_format}, which Kiln cannot check; choose another with --format",
        )
    if depth:
        if is_cinema(image) and depth != "12":
            raise Refusal("bad-setting", f"the cinema preset of the scene's {ours} has 12 bits, and no {depth}-bit form")
        try:
            image.color_depth = depth
        except TypeError:
            bits = " or ".join(str(bit) for bit in FORMATS[ours][1])
            raise Refusal("bad-setting", f"{ours} has no {depth}-bit form; it can be {bits} bit") from None
    unwritable = why_unwritable(image, size_of(render))
    if unwritable:
        raise Refusal("bad-setting", f"the scene writes {unwritable}")
    if getattr(image, "use_preview", False):
        image.use_preview = False
        session.notice("the small JPEG that the scene writes beside each frame is left out")


def is_cinema(image_settings):
    """Returns whether JPEG 2000 is written by the preset for digital cinema, which has 12 bits whatever the depth says."""
    return format_of(image_settings) in CODECS and image_settings.use_jpeg2k_cinema_preset


def why_unwritable(image_settings, size):
    """The reason why Blender fails to write after it has rendered, with a remedy; None where it can write. A size of zero is not
    known."""
    ours = format_of(image_settings)
    gray_fails = ours == "cineon" or (ours == "dpx" and bpy.app.version < (4, 0, 0))
    if gray_fails and image_settings.color_mode == "BW":
        return f"a {ours} of one channel, which this Blender cannot; set its colour to RGB, or choose another format"
    if ours in CODECS and 0 < min(size) < 32:
        return f"a JPEG 2000 of {size[0]}x{size[1]} pixels, and Blender needs 32 on each side; choose another format"
    return None


def depth_of(image_settings):
    """Bits a channel, as Kiln names them."""
    if is_cinema(image_settings):
        return "12"
    depths = FORMATS[format_of(image_settings)][1]
    try:
        bits = int(image_settings.color_depth)
    except ValueError:
        bits = depths[0]
    return str(bits if bits in depths else min(depths, key=lambda depth: abs(depth - bits)))


def size_of(render):
    """Width and height in pixels; Blender cuts fractions off, in single precision."""
    import ctypes

    def cut(share, whole):
        return int(ctypes.c_float(ctypes.c_float(share).value * whole).value)

    width = render.resolution_x * render.resolution_percentage // 100
    height = render.resolution_y * render.resolution_percentage // 100
    if render.use_border and render.use_crop_to_border:
        left, right = cut(render.border_min_x, width), cut(render.border_max_x, width)
        low, high = cut(render.border_min_y, height), cut(render.border_max_y, height)
        return max(right - left, 1), max(high - low, 1)
    return width, height
