"""What the scenes of unused.py are built of."""

import os
import shutil
import struct
import sys
import wave
import zlib

import bpy

FOLDER, *THOROUGH = sys.argv[sys.argv.index("--") + 1 :]
FILES = os.path.join(FOLDER, "tex")
NEW = bpy.app.version >= (5, 0, 0)
SIZE = 12  # cells a side

cells = []


def png(name):
    """A green picture: what Blender shows for one that is missing is pink."""
    rows = b"".join(b"\0" + b"\x10\xd0\x20" * 4 for _ in range(4))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 4, 4, 8, 2, 0, 0, 0)
    path = os.path.join(FILES, name + ".png")
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)))
        file.write(chunk(b"IEND", b""))
    return path


def wav(name):
    path = os.path.join(FILES, name + ".wav")
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0\0" * 4000)
    return path


def font(name):
    """One of Blender's own."""
    folder = bpy.utils.system_resource("DATAFILES", path="fonts")
    own = next(one for one in sorted(os.listdir(folder)) if one.endswith((".woff2", ".ttf", ".pfb")))
    path = os.path.join(FILES, name + os.path.splitext(own)[1])
    shutil.copy(os.path.join(folder, own), path)
    return bpy.data.fonts.load(path)


def image(name):
    return bpy.data.images.load(png(name))


def start():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    shutil.rmtree(FILES, ignore_errors=True)
    os.makedirs(FILES)
    scene = bpy.context.scene
    cells.clear()
    settle(scene)
    return scene


def settle(scene):
    scene.render.engine = "CYCLES"
    scene.cycles.samples = 1
    scene.cycles.use_denoising = False
    scene.render.resolution_x = scene.render.resolution_y = 4 * SIZE
    scene.render.resolution_percentage = 100
    scene.render.image_settings.file_format = "BMP"
    scene.frame_start, scene.frame_end = 1, 2
    camera = bpy.data.objects.new("Camera", bpy.data.cameras.new("Camera"))
    camera.data.type, camera.data.ortho_scale = "ORTHO", SIZE
    camera.location = (SIZE / 2, SIZE / 2, 10)
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.world = bpy.data.worlds.new("World")


def plane(collection=None, material=None):
    """In a cell of its own, seen by the camera."""
    x, y = len(cells) % SIZE, len(cells) // SIZE
    cells.append(1)
    mesh = bpy.data.meshes.new("Plane")
    corners = [(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)]
    mesh.from_pydata([(a, b, 0) for a, b in corners], [], [(0, 1, 2, 3)])
    layer = mesh.uv_layers.new()
    for loop, corner in zip(layer.data, corners):
        loop.uv = corner
    if material:
        mesh.materials.append(material)
    thing = bpy.data.objects.new("Plane", mesh)
    thing.location = (x, y, 0)
    (collection or bpy.context.scene.collection).objects.link(thing)
    return thing


def material(name=None):
    """It glows in the colours of a picture."""
    made = bpy.data.materials.new("Material")
    made.use_nodes = True
    tree = made.node_tree
    tree.nodes.clear()
    out, glow = tree.nodes.new("ShaderNodeOutputMaterial"), tree.nodes.new("ShaderNodeEmission")
    tree.links.new(glow.outputs[0], out.inputs[0])
    if name:
        tree.links.new(picture(tree, name).outputs[0], glow.inputs[0])
    return made


def picture(tree, name):
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = image(name)
    return node


def node_of(made, kind):
    return next(node for node in made.node_tree.nodes if node.bl_idname == kind)


def show(name, collection=None):
    return plane(collection, material(name))


def collection_of(parent, name):
    made = bpy.data.collections.new(name)
    parent.children.link(made)
    return made


def layer_of(view_layer, name):
    todo = [view_layer.layer_collection]
    while todo:
        one = todo.pop()
        if one.name == name:
            return one
        todo += one.children
    raise KeyError(name)


def key(thing, path, *values):
    """On frames 1, 2, ..."""
    for frame, value in enumerate(values, 1):
        setattr(thing, path, value)
        thing.keyframe_insert(path, frame=frame)


def compositor(scene):
    """The tree, and the socket of its result."""
    if NEW:
        tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        scene.compositing_node_group = tree
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        return tree, tree.nodes.new("NodeGroupOutput").inputs[0]
    scene.use_nodes = True
    tree = scene.node_tree
    tree.nodes.clear()
    return tree, tree.nodes.new("CompositorNodeComposite").inputs[0]


def shader_group(name):
    tree = bpy.data.node_groups.new("Group", "ShaderNodeTree")
    out = tree.nodes.new("NodeGroupOutput")
    if hasattr(tree, "interface"):
        tree.interface.new_socket("Color", in_out="OUTPUT", socket_type="NodeSocketColor")
    else:
        tree.outputs.new("NodeSocketColor", "Color")
    tree.links.new(picture(tree, name).outputs[0], out.inputs[0])
    return tree


def strips(scene):
    editor = scene.sequence_editor_create()
    return editor.strips if hasattr(editor, "strips") else editor.sequences
