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


def dump(path):
    """What Blender reads: RGBA floats from the lowest row up."""
    image = bpy.data.images.load(path)
    image.colorspace_settings.name = "Non-Color"
    image.alpha_mode = "CHANNEL_PACKED"
    import array

    with open(path + ".f32", "wb") as file:
        array.array("f", image.pixels[:]).tofile(file)
    bpy.data.images.remove(image)


def shot(name, fmt, depth=None, mode="RGBA", width=WIDTH, **more):
    if hasattr(settings, "media_type"):
        settings.media_type = "MULTI_LAYER_IMAGE" if fmt == "OPEN_EXR_MULTILAYER" else "IMAGE"
    settings.file_format = fmt
    settings.color_mode = mode
    if depth:
        settings.color_depth = str(depth)
    for key, value in more.items():
        try:
            setattr(settings, key, value)
        except TypeError:
            print(f"{name}: {fmt} has no {key} {value} here")
            return
    render.filepath = os.path.join(out, name)
    before = set(os.listdir(out))
    bpy.ops.render.render(write_still=True)
    for file in sorted(set(os.listdir(out)) - before):
        manifest.append(dict(file=file, format=fmt, depth=depth, width=width, height=HEIGHT, black=name == "black"))
        if name in ("png-RGB-8", "png-RGB-16", "tiff-RGB-8", "tiff-RGB-16", "jpeg-RGB", "bmp-RGB", "bmp-BW", "hdr-RGB",
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
render.use_multiview = False
for ob in bpy.data.objects:
    ob.hide_render = ob.type != "CAMERA"
scene.world.color = (0, 0, 0)
for node in scene.world.node_tree.nodes if scene.world.node_tree else ():
    if node.type == "BACKGROUND":
        node.inputs["Strength"].default_value = 0
settings.views_format = "INDIVIDUAL"
shot("black", "OPEN_EXR", 32)
scene.render.dither_intensity = 0
shot("black", "PNG", 8, "RGB")
with open(os.path.join(out, "manifest.json"), "w") as file:
    json.dump(manifest, file)
