"""What the scenes with image sequences are made of, for the tests of crates/blend and of crates/host."""

import os
import sys
import traceback

import bpy


def fresh(path, end=250):
    """A scene that renders a few pixels, looked at from above."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = 1, False
    # As large as the pictures.
    scene.render.resolution_x = scene.render.resolution_y = 4
    scene.frame_start, scene.frame_end = 1, end
    scene.view_settings.view_transform = "Raw"
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = "IMAGE"
    settings.file_format = "OPEN_EXR"
    camera = bpy.data.objects.new("Eye", bpy.data.cameras.new("Eye"))
    camera.location = (0, 0, 1)
    scene.collection.objects.link(camera)
    scene.camera = camera
    # Before that relative names lead nowhere, and Blender remembers it.
    bpy.ops.wm.save_as_mainfile(filepath=path, compress=False, relative_remap=False)
    return scene


def image_of(name, path):
    image = bpy.data.images.new(name, 1, 1)
    image.source, image.filepath = "SEQUENCE", "//" + path
    image.colorspace_settings.name = "Non-Color"
    return image


def set_user(user, duration, start=1, offset=0, cyclic=False):
    user.frame_duration, user.frame_start, user.frame_offset, user.use_cyclic = duration, start, offset, cyclic
    user.use_auto_refresh = True


def plane(name="Plane"):
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [], [(0, 1, 2, 3)])
    mesh.uv_layers.new()
    thing = bpy.data.objects.new(name, mesh)
    bpy.context.scene.collection.objects.link(thing)
    return thing


def material_of(name, thing=None):
    """A material of nodes, of the thing if there is one."""
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    if thing:
        thing.data.materials.append(material)
    return material


def shown_by(material, image):
    """A node of the material that shows the image."""
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = image
    return node


def displaced(thing, texture_name, image):
    """A modifier by a texture of the image."""
    texture = bpy.data.textures.new(texture_name, "IMAGE")
    texture.image = image
    modifier = thing.modifiers.new("Displace", "DISPLACE")
    modifier.texture, modifier.mid_level = texture, 0
    return modifier


def geometry(thing, name, image):
    """A tree of geometry nodes, which lifts the thing by the image, and the node that reads it."""
    tree = bpy.data.node_groups.new(name, "GeometryNodeTree")
    if hasattr(tree, "interface"):
        tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
        tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    else:
        tree.inputs.new("NodeSocketGeometry", "Geometry")
        tree.outputs.new("NodeSocketGeometry", "Geometry")
    new, link = tree.nodes.new, tree.links.new
    move, texture, up = new("GeometryNodeSetPosition"), new("GeometryNodeImageTexture"), new("ShaderNodeCombineXYZ")
    link(new("NodeGroupInput").outputs[0], move.inputs[0])
    link(move.outputs[0], new("NodeGroupOutput").inputs[0])
    link(texture.outputs[0], up.inputs[2])
    link(up.outputs[0], move.inputs["Offset"])
    texture.inputs["Image"].default_value = image
    thing.modifiers.new("Nodes", "NODES").node_group = tree
    return tree, texture


def scene_time(tree, texture):
    """Leads the scene's frame to the node."""
    tree.links.new(tree.nodes.new("GeometryNodeInputSceneTime").outputs["Frame"], texture.inputs["Frame"])


def calculated(tree, texture):
    """Leads a number to the node that nobody can foretell."""
    tree.links.new(tree.nodes.new("ShaderNodeMath").outputs[0], texture.inputs["Frame"])


def cached(thing, path, inside):
    """A sequence of Alembic files, in a modifier of the thing."""
    bpy.ops.cachefile.open(filepath=path)
    cache = bpy.data.cache_files[os.path.basename(path)]
    cache.is_sequence = True
    modifier = thing.modifiers.new("Cache", "MESH_SEQUENCE_CACHE")
    modifier.cache_file, modifier.object_path = cache, inside
    return cache


def composited(scene):
    """The compositor's tree, and where its picture goes."""
    if hasattr(scene, "compositing_node_group"):
        tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        scene.compositing_node_group = tree
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        return tree, tree.nodes.new("NodeGroupOutput").inputs[0]
    scene.use_nodes = True
    scene.node_tree.nodes.clear()
    return scene.node_tree, scene.node_tree.nodes.new("CompositorNodeComposite").inputs[0]


def composited_by(scene, kind):
    """A new node in the compositor, whose picture is shown."""
    tree, end = composited(scene)
    node = tree.nodes.new(kind)
    tree.links.new(node.outputs[0], end)
    return node


def strips(scene):
    editor = scene.sequence_editor_create()
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def run(what):
    """Does it, and ends: a wheel may hang at its end."""
    try:
        what()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(3)
    sys.stdout.flush()
    os._exit(0)
