"""Makes a file that holds names of files of every kind, or tells the names in a file as Blender sees them.

Run inside Blender, or by a Python with the bpy wheel: ... names.py -- FOLDER, or ... names.py -- FILE OUT
"""

import json
import os
import sys

import bpy

args = sys.argv[sys.argv.index("--") + 1:]


def attempt(make):
    """Some kinds are not in every version, or not without a file that makes sense."""
    try:
        make()
    except (AttributeError, RuntimeError, TypeError, KeyError) as error:
        print("left out:", error)


def picture(path):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    image = bpy.data.images.new("made", 4, 4)
    image.filepath_raw = path
    image.file_format = "PNG"
    image.save()
    bpy.data.images.remove(image)


def image(name, path, source="FILE"):
    data = bpy.data.images.new(name, 1, 1)
    data.source = source
    data.filepath = path
    data.use_fake_user = True
    return data


def make(folder):
    main, library = os.path.join(folder, "main.blend"), os.path.join(folder, "lib", "props.blend")
    for name in ("s_0001.png", "s_0002.png", "packed.png"):
        picture(os.path.join(folder, "tex", name))
    sound = os.path.join(folder, "tex", "snd.wav")
    with open(sound, "wb") as file:
        file.write(b"x")
    bpy.ops.wm.read_factory_settings(use_empty=False)
    os.makedirs(os.path.dirname(library), exist_ok=True)
    bpy.data.objects["Cube"].name = "Prop"
    bpy.ops.wm.save_as_mainfile(filepath=library)
    bpy.ops.wm.read_factory_settings(use_empty=False)
    bpy.ops.wm.save_as_mainfile(filepath=main)
    with bpy.data.libraries.load(library, link=True, relative=True) as (_, to):
        to.objects = ["Prop"]
    scene = bpy.context.scene
    scene.collection.objects.link(to.objects[0])

    image("wood", "//tex/wood.png")
    image("far", "/srv/textures/far.png")
    image("win", "C:\\textures\\oak.png")
    image("seq", "//tex/s_0001.png", "SEQUENCE")
    image("tiles", "//tex/tile.<UDIM>.png", "TILED")
    image("名前", "//tex/木.png")
    packed = bpy.data.images.load(os.path.join(folder, "tex", "packed.png"))
    packed.filepath = "//tex/packed.png"
    packed.pack()
    packed.use_fake_user = True
    volume = bpy.data.volumes.new("vol")
    volume.filepath = "//tex/v.vdb"
    volume.use_fake_user = True
    for number, name in enumerate(["//a", "//tex/notes.txt", "/srv/a script with a longer name.py"]):
        text = bpy.data.texts.new(f"text{number}")
        text.filepath = name
    bpy.data.sounds.load(sound).filepath = "//tex/snd.wav"
    bpy.data.sounds[0].use_fake_user = True
    clip = bpy.data.movieclips.load(os.path.join(folder, "tex", "s_0001.png"))
    clip.filepath = "//tex/s_0001.png"
    clip.use_fake_user = True

    cube = bpy.data.objects["Cube"]
    cube.modifiers.new("mesh cache", "MESH_CACHE").filepath = "//tex/m.mdd"
    fluid = cube.modifiers.new("fluid", "FLUID")

    def domain():
        fluid.fluid_type = "DOMAIN"
        fluid.domain_settings.cache_directory = "//fluids/one"

    attempt(domain)
    cloth = cube.modifiers.new("cloth", "CLOTH")
    cloth.point_cache.use_external = True
    cloth.point_cache.filepath = "//caches/cloth"
    material = bpy.data.materials.new("nodes")
    material.use_nodes = True
    material.use_fake_user = True
    for kind, path in (("ShaderNodeTexIES", "//tex/a.ies"), ("ShaderNodeScript", "/srv/s.osl")):
        node = material.node_tree.nodes.new(kind)
        node.mode = "EXTERNAL"
        node.filepath = path
    attempt(lambda: nodes(cube))

    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    strip = strips.new_image("images", "//tex/s_0001.png", 1, 1)
    strip.elements.append("s_0002.png")
    strips.new_image("one", "/srv/strips/one.png", 2, 1)
    bpy.ops.wm.save_as_mainfile(filepath=main, compress=False, relative_remap=False)
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "packed.blend"), compress=True, relative_remap=False,
                                copy=True)
    bpy.ops.wm.open_mainfile(filepath=main)
    with open(os.path.join(folder, "names.json"), "w") as file:
        json.dump(names(), file)


def nodes(cube):
    """A modifier that gives its nodes the name of a file, and has folders for what is baked."""
    tree = bpy.data.node_groups.new("reads a file", "GeometryNodeTree")
    tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    path = tree.interface.new_socket("File", in_out="INPUT", socket_type="NodeSocketString")
    tree.nodes.new("NodeGroupInput")
    tree.nodes.new("NodeGroupOutput")
    modifier = cube.modifiers.new("nodes", "NODES")
    modifier.node_group = tree
    modifier[path.identifier] = "/srv/points.csv"
    attempt(lambda: setattr(modifier, "simulation_bake_directory", "//bakes/simulation"))
    attempt(lambda: setattr(modifier, "bake_directory", "//bakes/nodes"))


def names():
    found = []
    for kind in ("images", "libraries", "sounds", "movieclips", "volumes", "texts", "cache_files"):
        for block in getattr(bpy.data, kind):
            if not getattr(block, "library", None) and "/datafiles/assets/" not in block.filepath:
                found.append([f"{kind} {block.name}", block.filepath])
    for tree in (material.node_tree for material in bpy.data.materials if material.node_tree):
        found += [[f"node {node.name}", node.filepath] for node in tree.nodes if hasattr(node, "filepath")]
    for modifier in bpy.data.objects["Cube"].modifiers:
        for owner, field in ((modifier, "filepath"), (modifier, "simulation_bake_directory"),
                             (modifier, "bake_directory"),
                             (getattr(modifier, "domain_settings", None), "cache_directory"),
                             (getattr(modifier, "point_cache", None), "filepath")):
            if getattr(owner, field, ""):
                found.append([f"modifier {modifier.name} {field}", getattr(owner, field)])
        if modifier.type == "NODES":
            found += [[f"input {key}", value] for key, value in modifier.items() if isinstance(value, str)]
    editor = bpy.context.scene.sequence_editor
    for strip in editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all:
        found += [[f"strip {strip.name} {at}", strip.directory + element.filename]
                  for at, element in enumerate(strip.elements)]
    return sorted([label, name] for label, name in found if name)


if len(args) == 1:
    make(os.path.realpath(args[0]))
else:
    bpy.ops.wm.open_mainfile(filepath=args[0])
    with open(args[1], "w") as file:
        json.dump(names(), file)
os._exit(0)
