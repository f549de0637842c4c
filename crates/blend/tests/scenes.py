"""Makes a project with every kind of file that a .blend can name, and truth.json: what Blender says of it.

Run inside Blender, or by a Python with the bpy wheel: ... scenes.py -- FOLDER
"""

import json
import os
import sys

import bpy

out = os.path.realpath(sys.argv[sys.argv.index("--") + 1])
project = os.path.join(out, "studio", "project")
shots = os.path.join(project, "shots")
for folder in ("shots", "tex", "lib", "lib/tex", "seq"):
    os.makedirs(os.path.join(project, folder), exist_ok=True)
os.makedirs(os.path.join(out, "elsewhere"), exist_ok=True)


def picture(*parts):
    path = os.path.join(*parts)
    image = bpy.data.images.new("made", 4, 4)
    image.filepath_raw = path
    image.file_format = "PNG"
    image.save()
    bpy.data.images.remove(image)
    return path


def fresh():
    bpy.ops.wm.read_factory_settings(use_empty=False)


def save(path, compress=False):
    bpy.ops.wm.save_as_mainfile(filepath=path, compress=compress, relative_remap=False)


def link(path, name):
    with bpy.data.libraries.load(path, link=True, relative=True) as (_, to):
        to.objects = [name]
    bpy.context.scene.collection.objects.link(to.objects[0])


fresh()
for args in [("tex", "wood.png"), ("lib/tex", "brick.png"), ("seq", "s_0001.png"), ("seq", "s_0002.png"),
             ("seq", "s_0003.png"), ("tex", "tile.1001.png"), ("tex", "tile.1002.png")]:
    picture(project, *args)
picture(out, "elsewhere", "far.png")
picture(project, "tex", "packed.png")
for name in ("a.ies", "s.osl", "m.mdd", "v.vdb", "n.txt", "c.abc", "snd.wav", "clip.mp4"):
    with open(os.path.join(project, "tex", name), "wb") as file:
        file.write(b"x")

# Libraries that link from each other: lib/a -> lib/b -> lib/a.
lib_a, lib_b = os.path.join(project, "lib", "a.blend"), os.path.join(project, "lib", "b.blend")
fresh()
bpy.data.objects["Cube"].name = "CubeB"
save(lib_b)
fresh()
bpy.data.objects["Cube"].name = "CubeA"
save(lib_a)
link(lib_b, "CubeB")
image = bpy.data.images.load(os.path.join(project, "lib", "tex", "brick.png"))
image.filepath = "//tex/brick.png"
image.use_fake_user = True
save(lib_a)
bpy.ops.wm.open_mainfile(filepath=lib_b)
link(lib_a, "CubeA")
save(lib_b)

fresh()
main = os.path.join(shots, "main.blend")
save(main)
link(lib_a, "CubeA")


def image(name, path, source="FILE"):
    data = bpy.data.images.new(name, 1, 1)
    data.source = source
    data.filepath = path
    data.use_fake_user = True
    return data


image("wood", "//../tex/wood.png")
image("again", "//../tex/wood.png")
image("far", os.path.join(out, "elsewhere", "far.png"))
image("gone", "//gone.png")
image("win", "C:\\textures\\oak.png")
image("seq", "//../seq/s_0001.png", "SEQUENCE")
image("tiles", "//../tex/tile.<UDIM>.png", "TILED")
packed = bpy.data.images.load(os.path.join(project, "tex", "packed.png"))
packed.filepath = "//../tex/packed.png"
packed.use_fake_user = True
packed.pack()
volume = bpy.data.volumes.new("vol")
volume.filepath = "//../tex/v.vdb"
volume.use_fake_user = True
text = bpy.data.texts.load(os.path.join(project, "tex", "n.txt"))
text.filepath = "//../tex/n.txt"
sound = bpy.data.sounds.load(os.path.join(project, "tex", "snd.wav"))
sound.filepath = "//../tex/snd.wav"
sound.use_fake_user = True
cube = bpy.data.objects["Cube"]
cache = cube.modifiers.new("mc", "MESH_CACHE")
cache.filepath = "//../tex/m.mdd"
material = bpy.data.materials.new("nodes")
material.use_nodes = True
material.use_fake_user = True
node = material.node_tree.nodes.new("ShaderNodeTexIES")
node.mode = "EXTERNAL"
node.filepath = "//../tex/a.ies"
node = material.node_tree.nodes.new("ShaderNodeScript")
node.mode = "EXTERNAL"
node.filepath = "//../tex/s.osl"

scene = bpy.context.scene
editor = scene.sequence_editor_create()
strips = editor.strips if hasattr(editor, "strips") else editor.sequences
strip = strips.new_image("im", "//../seq/s_0001.png", 1, 1)
strip.elements.append("s_0002.png")

scene.frame_start, scene.frame_end, scene.frame_step = -5, 120, 3
scene.render.fps, scene.render.fps_base = 30, 1.001
scene.render.resolution_x, scene.render.resolution_y, scene.render.resolution_percentage = 1280, 544, 75
scene.render.engine = "CYCLES"
scene.cycles.samples = 17
scene.cycles.device = "GPU"
scene.render.filepath = "//../render/shot_####"
scene.render.use_border, scene.render.use_crop_to_border = True, True
scene.render.border_min_x, scene.render.border_max_x = 0.25, 0.75
scene.view_layers.new("Extra").use = False
camera = bpy.data.objects.new("Second Camera é", bpy.data.cameras.new("c2"))
scene.collection.objects.link(camera)
scene.camera = camera


def output(target, fmt, depth=None):
    settings = target.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = {"FFMPEG": "VIDEO", "OPEN_EXR_MULTILAYER": "MULTI_LAYER_IMAGE"}.get(fmt, "IMAGE")
    settings.file_format = fmt
    if depth:
        settings.color_depth = depth


output(scene, "PNG", "16")
second = bpy.data.scenes.new("Zweite")
try:
    second.render.engine = "BLENDER_EEVEE"
except TypeError:
    second.render.engine = "BLENDER_EEVEE_NEXT"
second.eevee.taa_render_samples = 33
second.camera = bpy.data.objects["Camera"]
second.render.use_multiview = True
output(second, "FFMPEG")
default = bpy.data.scenes.new("Default")
default.render.engine = "CYCLES"
output(default, "OPEN_EXR_MULTILAYER", "32")
for number, (fmt, depth) in enumerate([("JPEG", None), ("TIFF", "8"), ("BMP", None), ("TARGA", None),
                                       ("TARGA_RAW", None), ("HDR", None), ("WEBP", None), ("OPEN_EXR", "16")]):
    output(bpy.data.scenes.new(f"Format{number}"), fmt, depth)


many = bpy.data.scenes.new("Many Views").render
many.use_multiview = True
many.views_format = "MULTIVIEW"
many.use_file_extension = False
for name, use in (("above", True), ("below", False)):
    view = many.views.new(name)
    view.file_suffix, view.use = "." + name, use
joined = bpy.data.scenes.new("Joined Views").render
joined.use_multiview = True
joined.image_settings.views_format = "STEREO_3D"
joined.views.new("ignored")


def truth():
    # Blender's own brushes are linked when it starts, and not saved.
    paths = bpy.utils.blend_paths(absolute=False, packed=False, local=True)
    return dict(paths=sorted(path for path in set(paths) if "/datafiles/assets/" not in path))


save(main)
save(os.path.join(shots, "packed.blend"), compress=True)
bpy.ops.wm.open_mainfile(filepath=main)
with open(os.path.join(out, "truth.json"), "w") as file:
    json.dump(truth(), file)
