"""The parts that the scenes of scenes.py are made of."""

import math
import struct
import zlib

import bpy

HEIGHT, WIDTH = 36, 64
NEW = bpy.app.version >= (5, 0, 0)


def png(path, red, green, blue):
    """An 8x8 picture in one colour, with a darker corner."""
    rows = b""
    for y in range(8):
        rows += b"\0" + b"".join(
            bytes((red // 2, green // 2, blue // 2) if x < 3 and y < 3 else (red, green, blue)) for x in range(8)
        )

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)))
        file.write(chunk(b"IEND", b""))


def start(samples=2):
    """An empty Cycles scene with a moving cube, a floor, a lamp and a camera."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples = samples
    scene.cycles.use_denoising = False
    scene.cycles.use_adaptive_sampling = False
    scene.render.resolution_x, scene.render.resolution_y = WIDTH, HEIGHT
    scene.render.resolution_percentage = 100
    scene.frame_start, scene.frame_end = 1, 8
    scene.render.filepath = "//frames/shot_"
    scene.world = bpy.data.worlds.new("World")
    bpy.ops.mesh.primitive_plane_add(size=8)
    bpy.ops.mesh.primitive_cube_add(size=1.5, location=(0, 0, 1))
    cube = bpy.context.object
    cube.name = "Cube"
    for frame, angle in ((1, 0.0), (40, 3.0)):
        cube.rotation_euler = (0.3, 0, angle)
        cube.keyframe_insert("rotation_euler", frame=frame)
    bpy.ops.object.light_add(type="SUN", rotation=(0.6, 0.3, 0))
    bpy.context.object.data.energy = 3
    bpy.ops.object.camera_add(location=(5, -5, 4), rotation=(1.05, 0, math.pi / 4))
    scene.camera = bpy.context.object
    return scene, cube


def material(cube):
    made = bpy.data.materials.new("Material")
    made.use_nodes = True
    cube.data.materials.append(made)
    return made.node_tree, made.node_tree.nodes["Principled BSDF"]


def image_node(cube, path):
    tree, shader = material(cube)
    node = tree.nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images.load(path)
    tree.links.new(node.outputs["Color"], shader.inputs["Base Color"])
    return node


def compositor(scene):
    """The compositor's tree, the Render Layers node, linked to the result."""
    if NEW:
        tree = bpy.data.node_groups.new("Compositor", "CompositorNodeTree")
        scene.compositing_node_group = tree
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        layers, result = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("NodeGroupOutput")
    else:
        scene.use_nodes = True
        tree = scene.node_tree
        tree.nodes.clear()
        layers, result = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("CompositorNodeComposite")
    tree.links.new(layers.outputs["Image"], result.inputs[0])
    return tree, layers


def driven(thing, path, index, scene, expression, *fields):
    """A driver whose variables a, b, ... are fields of a scene."""
    driver = thing.driver_add(path, index).driver
    for name, field in zip("abcd", fields):
        variable = driver.variables.new()
        variable.name, variable.type = name, "SINGLE_PROP"
        target = variable.targets[0]
        target.id_type, target.id, target.data_path = "SCENE", scene, field
    driver.expression = expression
