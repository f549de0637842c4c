"""One .blend for each kind of image sequence: its files 1, 2, 4 and 5 are there, 3 is not.

Run inside Blender, or by a Python with the bpy wheel: ... sequences.py -- FOLDER
Prints the names of what it made.
"""

import os
import sys
import traceback

import bpy

out = os.path.realpath(sys.argv[sys.argv.index("--") + 1])


def fresh(name):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.samples, scene.cycles.use_denoising = 1, False
    scene.render.resolution_x = scene.render.resolution_y = 8
    scene.frame_start, scene.frame_end = 1, 5
    camera = bpy.data.objects.new("Eye", bpy.data.cameras.new("Eye"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(out, name + ".blend"))
    return scene


def image_of(name):
    image = bpy.data.images.new("pictures", 1, 1)
    image.source, image.filepath = "SEQUENCE", "//" + name
    return image


def set_user(user, duration=5):
    user.frame_duration, user.frame_start, user.frame_offset, user.use_auto_refresh = duration, 1, 0, True


def plane():
    mesh = bpy.data.meshes.new("Plane")
    mesh.from_pydata([(-1, -1, -2), (1, -1, -2), (1, 1, -2), (-1, 1, -2)], [], [(0, 1, 2, 3)])
    mesh.uv_layers.new()
    thing = bpy.data.objects.new("Plane", mesh)
    bpy.context.scene.collection.objects.link(thing)
    return thing


def material(name="in_0001_side.png"):
    material = bpy.data.materials.new("Shown")
    material.use_nodes = True
    plane().data.materials.append(material)
    node = material.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = image_of(name)
    set_user(node.image_user)
    return node


def keyed():
    """Frame 2 shows picture 3."""
    user = material("s_0001.png").image_user
    for frame, offset in ((1, 0), (2, 1), (3, 1)):
        user.frame_offset = offset
        user.keyframe_insert("frame_offset", frame=frame)


def driven():
    material("s_0001.png").image_user.driver_add("frame_offset").driver.expression = "frame * 0 + 1"


def displace():
    texture = bpy.data.textures.new("Bumps", "IMAGE")
    texture.image = image_of("s_0001.png")
    set_user(texture.image_user)
    plane().modifiers.new("Displace", "DISPLACE").texture = texture


def nodes(inside):
    thing = plane()
    tree = bpy.data.node_groups.new("Nodes", "GeometryNodeTree")
    if hasattr(tree, "interface"):
        tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    else:
        tree.outputs.new("NodeSocketGeometry", "Geometry")
    texture = tree.nodes.new("GeometryNodeImageTexture")
    texture.inputs["Image"].default_value = image_of("s_0001.png")
    tree.links.new(inside(tree), texture.inputs["Frame"])
    thing.modifiers.new("Nodes", "NODES").node_group = tree


def composited():
    scene = bpy.context.scene
    if hasattr(scene, "compositing_node_group"):
        tree = bpy.data.node_groups.new("Compositing", "CompositorNodeTree")
        scene.compositing_node_group = tree
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        return tree, tree.nodes.new("NodeGroupOutput").inputs[0]
    scene.use_nodes = True
    scene.node_tree.nodes.clear()
    return scene.node_tree, scene.node_tree.nodes.new("CompositorNodeComposite").inputs[0]


def compositor():
    tree, end = composited()
    node = tree.nodes.new("CompositorNodeImage")
    node.image = image_of("s_0001.png")
    set_user(node)
    tree.links.new(node.outputs[0], end)


def load_clip():
    return bpy.data.movieclips.load(os.path.join(out, "s_0001.png"))


def clip():
    tree, end = composited()
    node = tree.nodes.new("CompositorNodeMovieClip")
    node.clip = load_clip()
    tree.links.new(node.outputs[0], end)


def stored():
    """Its picture is not there when the file is saved: a movie, for Blender."""
    clip()
    found = bpy.data.movieclips[0]
    found.filepath = "//late_0001.png"
    bpy.context.scene.frame_set(2)
    assert found.source == "MOVIE"


def strips():
    editor = bpy.context.scene.sequence_editor_create()
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def strip():
    made = strips().new_image("Pictures", os.path.join(out, "s_0001.png"), 1, 1)
    for number in range(2, 6):
        made.elements.append(f"s_{number:04}.png")


def clip_strip():
    clip = load_clip()
    made = strips().new_clip("Clip", clip, 1, 1)
    # Blender counts the pictures before the first gap.
    made.frame_final_duration = 5


def volume():
    volume = bpy.data.volumes.new("smoke")
    volume.filepath, volume.is_sequence, volume.frame_duration = "//s_0001.vdb", True, 5
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("Smoke", volume))


def cache():
    path = os.path.join(out, "s_0001.abc")
    bpy.ops.cachefile.open(filepath=path)
    cache = bpy.data.cache_files[0]
    cache.is_sequence = True
    modifier = plane().modifiers.new("Cache", "MESH_SEQUENCE_CACHE")
    modifier.cache_file, modifier.object_path = cache, "/made"


def time():
    nodes(lambda tree: tree.nodes.new("GeometryNodeInputSceneTime").outputs["Frame"])


def unknown():
    nodes(lambda tree: tree.nodes.new("ShaderNodeMath").outputs[0])


def outside():
    """Shorter than the scene, and it begins later."""
    user = material("o_0001.png").image_user
    user.frame_duration, user.frame_start = 2, 3


def main():
    fresh("made")
    picture = bpy.data.images.new("made", 4, 4)
    for number in (1, 2, 4, 5):
        for name in ("s_{:04}.png", "in_{:04}_side.png", "o_{:04}.png"):
            if name[0] != "o" or number < 3:
                picture.filepath_raw, picture.file_format = os.path.join(out, name.format(number)), "PNG"
                picture.save()
        for ending in ("vdb", "abc"):
            # What is in them is of no matter.
            with open(os.path.join(out, f"s_{number:04}.{ending}"), "w") as file:
                file.write("x")
    makers = [material, keyed, driven, displace, time, compositor, clip, strip, clip_strip, volume, unknown, outside, stored]
    if bpy.app.build_options.alembic:
        makers.append(cache)
    for maker in makers:
        fresh(maker.__name__)
        maker()
        bpy.ops.wm.save_mainfile()
    os.link(os.path.join(out, "s_0001.png"), os.path.join(out, "late_0001.png"))
    os.remove(os.path.join(out, "made.blend"))


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(3)
    sys.stdout.flush()
    # A wheel may hang at its end.
    os._exit(0)
