"""Writes one small picture in every format that this Blender has, and manifest.json: what each must be.

Run inside Blender, or by a Python with the bpy wheel: ... pictures.py -- FOLDER
For single-layer files the pixels as Blender itself reads them back lie beside them, as FILE.f32.
"""

import json
import os
import sys

import bpy

out = sys.argv[sys.argv.index("--") + 1]
bpy.ops.wm.read_factory_settings()
scene = bpy.context.scene
render = scene.render
settings = render.image_settings
WIDTH, HEIGHT = 67, 41
render.engine = "CYCLES"
scene.cycles.samples = 1
scene.cycles.use_denoising = False
render.resolution_x, render.resolution_y, render.resolution_percentage = WIDTH, HEIGHT, 100
manifest = []


# Formats of scanned negatives and of older machines.
OLD = ("IRIS", "CINEON", "DPX", "JPEG2000")


def dump(path):
    """What Blender reads: RGBA floats from the lowest row up."""
    image = bpy.data.images.load(path)
    image.colorspace_settings.name = "Non-Color"
    image.alpha_mode = "CHANNEL_PACKED"
    import array

    # Blender reads no bare JPEG 2000.
    if not len(image.pixels):
        bpy.data.images.remove(image)
        return
    with open(path + ".f32", "wb") as file:
        array.array("f", image.pixels[:]).tofile(file)
    bpy.data.images.remove(image)


def shot(name, fmt, depth=None, mode="RGBA", width=WIDTH, height=HEIGHT, blank=None, not_finite=False, **more):
    if hasattr(settings, "media_type"):
        settings.media_type = "MULTI_LAYER_IMAGE" if fmt == "OPEN_EXR_MULTILAYER" else "IMAGE"
    settings.file_format = fmt
    wanted = dict(color_mode=mode, **more)
    if depth and not more.get("use_jpeg2k_cinema_preset"):
        wanted["color_depth"] = str(depth)
    for key, value in wanted.items():
        try:
            setattr(settings, key, value)
        except TypeError:
            print(f"{name}: {fmt} has no {key} {value} here")
            return
    render.filepath = os.path.join(out, name)
    before = set(os.listdir(out))
    bpy.ops.render.render(write_still=True)
    for file in sorted(set(os.listdir(out)) - before):
        manifest.append(dict(file=file, format=fmt, depth=depth, width=width, height=height, blank=blank,
                             not_finite=not_finite, bare=more.get("jpeg2k_codec") == "J2K"))
        if fmt in OLD or name in ("png-RGB-8", "png-RGB-16", "tiff-RGB-8", "tiff-RGB-16", "jpeg-RGB", "bmp-RGB", "bmp-BW", "hdr-RGB",
                    "tga-RGB", "tga-RGBA", "tga-BW", "tgaraw-RGB", "webpll-RGB", "exr-ZIP-32", "exr-DWAA-16", "exr-PIZ-16"):
            dump(os.path.join(out, file))


for mode in ("BW", "RGB", "RGBA"):
    for depth in (8, 16):
        shot(f"png-{mode}-{depth}", "PNG", depth, mode)
        shot(f"tiff-{mode}-{depth}", "TIFF", depth, mode)
    if mode != "RGBA":
        shot(f"jpeg-{mode}", "JPEG", None, mode)
        shot(f"bmp-{mode}", "BMP", None, mode)
        shot(f"hdr-{mode}", "HDR", None, mode)
    if mode != "BW":
        shot(f"webp-{mode}", "WEBP", None, mode, quality=80)
        shot(f"webpll-{mode}", "WEBP", None, mode, quality=100)
    shot(f"tga-{mode}", "TARGA", None, mode)
    shot(f"tgaraw-{mode}", "TARGA_RAW", None, mode)


def old_formats(name, modes, depths=(8, 10, 12, 16), codecs=("JP2", "J2K"), **more):
    """What each of these formats can be, in names that say it. Blender writes no JPEG 2000 below 32 pixels a side."""
    for mode in modes:
        render.film_transparent = mode == "RGBA"
        shot(f"{name}iris-{mode}", "IRIS", None, mode, **more)
        for log in (False, True):
            way = "log" if log else "lin"
            # Blender fails where it should write a grey one, and old ones at a grey DPX too.
            if mode != "BW":
                shot(f"{name}cineon-{mode}-{way}", "CINEON", 10, mode, use_cineon_log=log, **more)
            for depth in depths if mode != "BW" or bpy.app.version >= (4, 2, 0) else ():
                shot(f"{name}dpx-{mode}-{depth}-{way}", "DPX", depth, mode, use_cineon_log=log, **more)
        for codec in codecs:
            for depth in [depth for depth in depths if depth != 10]:
                for quality in (100, 50) if depth == 8 or codec == "JP2" else (100,):
                    shot(f"{name}{codec}-{mode}-{depth}-{quality}", "JPEG2000", depth, mode, jpeg2k_codec=codec,
                         quality=quality, **more)
    render.film_transparent = False


old_formats("", ("BW", "RGB", "RGBA"))
shot("ycc", "JPEG2000", 8, "RGB", jpeg2k_codec="JP2", quality=100, use_jpeg2k_ycc=True)
settings.use_jpeg2k_ycc = False
for frames in (False, True):
    shot(f"cinema-{frames}", "JPEG2000", 12, "RGB", use_jpeg2k_cinema_preset=True, use_jpeg2k_cinema_48=frames)
settings.use_jpeg2k_cinema_preset = False
# Rows that end within a word, one pixel, and a part of the picture.
render.resolution_x, render.resolution_y = 7, 5
old_formats("odd-", ("RGB", "RGBA"), (10, 16), (), width=7, height=5)
render.resolution_x, render.resolution_y, render.resolution_percentage = 4, 4, 25
old_formats("one-", ("RGB", "RGBA"), (8, 10), (), width=1, height=1)
render.resolution_x, render.resolution_y, render.resolution_percentage = WIDTH, HEIGHT, 100
render.use_border = render.use_crop_to_border = True
render.border_min_x, render.border_max_x, render.border_min_y, render.border_max_y = 0.25, 0.75, 0.0, 0.8
old_formats("crop-", ("RGB",), (10, 12), width=34, height=32)
render.use_border = render.use_crop_to_border = False
for codec in ("NONE", "PXR24", "ZIP", "PIZ", "RLE", "ZIPS", "B44", "B44A", "DWAA", "DWAB"):
    for depth in (16, 32):
        shot(f"exr-{codec}-{depth}", "OPEN_EXR", depth, exr_codec=codec)
for codec in ("NONE", "PACKBITS", "LZW", "DEFLATE"):
    shot(f"tiff-codec-{codec}", "TIFF", 8, "RGB", tiff_codec=codec)
shot("exr-BW", "OPEN_EXR", 32, "BW", exr_codec="ZIP")
layer = bpy.context.view_layer
for name in ("z", "normal", "mist", "vector", "cryptomatte_object"):
    setattr(layer, f"use_pass_{name}", True)
for codec in ("ZIP", "PIZ", "DWAA", "DWAB", "ZIPS", "PXR24"):
    for depth in (16, 32):
        shot(f"ml-{codec}-{depth}", "OPEN_EXR_MULTILAYER", depth, exr_codec=codec)
scene.view_layers.new("Second")
shot("ml-two", "OPEN_EXR_MULTILAYER", 32, exr_codec="ZIP")
render.use_multiview = True
shot("ml-stereo", "OPEN_EXR_MULTILAYER", 16, views_format="MULTIVIEW")
shot("exr-stereo", "OPEN_EXR", 16, exr_codec="DWAA", views_format="MULTIVIEW")
shot("exr-indiv", "OPEN_EXR", 16, views_format="INDIVIDUAL")
shot("png-indiv", "PNG", 8, views_format="INDIVIDUAL")
settings.stereo_3d_format.display_mode = "SIDEBYSIDE"
shot("png-s3d", "PNG", 8, "RGB", 2 * WIDTH, views_format="STEREO_3D")


def composite(make):
    """The compositor gives the picture that the function makes of the render layers and of a maker of Math nodes."""
    if hasattr(scene, "compositing_node_group"):
        tree = bpy.data.node_groups.new("Composite", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        scene.compositing_node_group = tree
        end, kind = tree.nodes.new("NodeGroupOutput"), "ShaderNodeMath"
    else:
        scene.use_nodes = True
        tree = scene.node_tree
        tree.nodes.clear()
        end, kind = tree.nodes.new("CompositorNodeComposite"), "CompositorNodeMath"

    def math(operation, *values):
        node = tree.nodes.new(kind)
        node.operation = operation
        for socket, value in zip(node.inputs, values):
            if hasattr(value, "is_output"):
                tree.links.new(value, socket)
            else:
                socket.default_value = value
        return node.outputs[0]

    tree.links.new(make(tree.nodes.new("CompositorNodeRLayers").outputs, math), end.inputs[0])


def no_compositor():
    if hasattr(scene, "compositing_node_group"):
        scene.compositing_node_group = None
    else:
        scene.use_nodes = False


def infinite(layers, math):
    """Beyond all numbers where the cube is, zero around it."""
    return math("MULTIPLY", math("MULTIPLY", layers["Alpha"], 1e38), 1e38)


def no_number(layers, math):
    return math("SUBTRACT", infinite(layers, math), infinite(layers, math))


render.use_multiview = False
settings.views_format = "INDIVIDUAL"
scene.view_layers.remove(scene.view_layers["Second"])
# Pixels that are no numbers: halves have no infinity here, and whole numbers neither.
render.film_transparent = True
composite(infinite)
shot("infinite", "OPEN_EXR", 32, exr_codec="ZIP", not_finite=True)
shot("infinite-half", "OPEN_EXR", 16, exr_codec="ZIP")
composite(no_number)
shot("nan", "OPEN_EXR", 32, exr_codec="PIZ", not_finite=True)
shot("nan-half", "OPEN_EXR", 16, "RGB", exr_codec="ZIP", not_finite=True)
shot("nan-ml", "OPEN_EXR_MULTILAYER", 32, exr_codec="ZIP", not_finite=True)
no_compositor()
# A shape without light: black, though the alpha has a picture.
scene.world.color = (0, 0, 0)
for node in scene.world.node_tree.nodes if scene.world.node_tree else ():
    if node.type == "BACKGROUND":
        node.inputs["Strength"].default_value = 0
for ob in bpy.data.objects:
    if ob.type == "LIGHT":
        ob.hide_render = True
shot("shape", "OPEN_EXR", 32, blank="black")
shot("shape", "PNG", 8, blank="black")
render.film_transparent = False
shot("black-bw", "OPEN_EXR", 32, "BW", blank="black")
shot("black-dwa", "OPEN_EXR", 16, exr_codec="DWAA", blank="black")
# The passes of a black picture are not black.
shot("black-ml", "OPEN_EXR_MULTILAYER", 32, exr_codec="ZIP", blank="black")
for dither in (0, 1, 2):
    render.dither_intensity = dither
    for transform in ("Standard", "Filmic", "AgX", "Khronos PBR Neutral", "Filmic Log"):
        try:
            scene.view_settings.view_transform = transform
        except TypeError:
            continue
        shot(f"black-{dither}-{transform}", "PNG", 8, "RGB", blank="black")
    shot(f"black-{dither}", "JPEG", None, "RGB", quality=100, blank="black")
    shot(f"black-{dither}", "TARGA", None, "RGB", blank="black")
    shot(f"black-{dither}", "WEBP", None, "RGB", quality=50, blank="black")
    shot(f"black-{dither}", "HDR", None, "RGB", blank="black")
    old_formats(f"black-{dither}-", ("RGB",), codecs=("JP2",), blank="black")
for transform in ("Standard", "Filmic", "AgX", "Khronos PBR Neutral", "Filmic Log"):
    try:
        scene.view_settings.view_transform = transform
    except TypeError:
        continue
    shot(f"black-{transform}", "PNG", 16, "RGBA", blank="black")
    shot(f"black-{transform}", "TIFF", 16, "RGB", blank="black")
# One lamp in the night is no black picture, with the darkest of its pixels or with the others.
scene.view_settings.view_transform = "Standard"
scene.world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0.05
shot("dim", "PNG", 8, "RGB")
shot("dim", "OPEN_EXR", 16, "RGB")
old_formats("dim-", ("RGB",), (8, 10), ("JP2",))
scene.world.node_tree.nodes["Background"].inputs["Strength"].default_value = 0
for ob in bpy.data.objects:
    ob.hide_render = ob.type != "CAMERA"
render.film_transparent = True
for fmt, depth in (("PNG", 8), ("PNG", 16), ("OPEN_EXR", 16), ("WEBP", None), ("TARGA", None)):
    shot(f"empty-{depth}", fmt, depth, blank="transparent")
render.dither_intensity = 1
old_formats("empty-", ("RGBA",), (8, 10), (), blank="transparent")
render.film_transparent = True
shot("empty", "JPEG2000", 8, jpeg2k_codec="JP2", quality=100, blank="transparent")
render.film_transparent = True
shot("empty-ml", "OPEN_EXR_MULTILAYER", 16, exr_codec="ZIP", blank="transparent")
with open(os.path.join(out, "manifest.json"), "w") as file:
    json.dump(manifest, file)
