"""Builds scenes that show the path of their .blend, with files that they name relatively.

... artist.py -- FOLDER: shot.blend (a render with two view layers, motion blur and a compositor) and cut.blend (the video
sequencer with a strip of another scene).
"""

import os
import sys

import bpy

folder = sys.argv[sys.argv.index("--") + 1]
os.makedirs(folder, exist_ok=True)
NEW = bpy.app.version >= (5, 0, 0)

SCRIPT = """
import bpy, os

@bpy.app.handlers.persistent
def before(scene, *_):
    bpy.data.objects["before"].location.x = len(bpy.data.filepath) / 20
    # A name that is resolved only when the frame is rendered.
    name, image = "//seq_%d.png" % (scene.frame_current % 3 + 1), bpy.data.images["chosen"]
    if not image.filepath.endswith(name[2:]):
        image.filepath = name

@bpy.app.handlers.persistent
def after(scene, *_):
    words, body = bpy.data.curves["words"], os.path.dirname(bpy.data.filepath)[-12:]
    if words.body != body:
        words.body = body
    assert os.path.exists(bpy.path.abspath("//wood.png"))

@bpy.app.handlers.persistent
def loaded(*_):
    bpy.data.objects["loaded"].location.x = len(bpy.data.filepath) / 12
    assert os.path.exists(bpy.path.abspath("//wood.png"))

bpy.app.handlers.load_post.append(loaded)
bpy.app.handlers.frame_change_pre.append(before)
bpy.app.handlers.frame_change_post.append(after)
"""


def picture(name, colour):
    image = bpy.data.images.new("made", 8, 8)
    image.generated_color = (*colour, 1)
    image.filepath_raw = os.path.join(folder, name)
    image.file_format = "PNG"
    image.save()
    bpy.data.images.remove(image)


def fresh(name, engine="CYCLES"):
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, name))
    stamped(scene, engine)
    return scene


def stamped(scene, engine):
    scene.render.engine = engine
    scene.cycles.samples, scene.cycles.use_denoising = 2, False
    render = scene.render
    render.resolution_x, render.resolution_y, render.resolution_percentage = 288, 96, 100
    scene.frame_start, scene.frame_end = 1, 8
    render.filepath = "//frames/shot_"
    render.use_stamp, render.stamp_font_size = True, 9
    for kind in ("date", "render_time", "memory", "hostname"):
        setattr(render, f"use_stamp_{kind}", False)
    render.use_stamp_filename = True
    scene.view_settings.view_transform = "Standard"
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location = (0, 0, 14)
    scene.collection.objects.link(camera)
    scene.camera = camera


def glowing(name, x, y, image=None, moving=False):
    mesh = bpy.data.meshes.new(name)
    mesh.from_pydata([(-1, -1, 0), (1, -1, 0), (1, 1, 0), (-1, 1, 0)], [], [(0, 1, 2, 3)])
    mesh.uv_layers.new()
    thing = bpy.data.objects.new(name, mesh)
    thing.location = (x, y, 0)
    bpy.context.scene.collection.objects.link(thing)
    material = bpy.data.materials.new(name)
    material.use_nodes = True
    nodes, links = material.node_tree.nodes, material.node_tree.links
    glow = nodes.new("ShaderNodeEmission")
    links.new(glow.outputs[0], nodes["Material Output"].inputs["Surface"])
    mesh.materials.append(material)
    if image:
        texture = nodes.new("ShaderNodeTexImage")
        texture.image = image
        links.new(texture.outputs[0], glow.inputs[0])
        if image.source == "SEQUENCE":
            user = texture.image_user
            user.frame_duration, user.frame_start, user.use_auto_refresh, user.use_cyclic = 3, 1, True, True
    if moving:
        for frame in (1, 9):
            thing.location.x = x + frame / 8
            thing.keyframe_insert("location", frame=frame)
    return thing


def loaded(name, path, source="FILE"):
    image = bpy.data.images.new(name, 1, 1)
    image.source, image.filepath = source, path
    return image


def library():
    fresh("lib.blend")
    glowing("linked", 5, 2, loaded("of library", "//wood.png"))
    bpy.ops.wm.save_mainfile()


def composite(scene):
    scene.use_nodes = True
    if NEW:
        tree = bpy.data.node_groups.new("composite", "CompositorNodeTree")
        tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
        scene.compositing_node_group = tree
        last = tree.nodes.new("NodeGroupOutput")
    else:
        tree = scene.node_tree
        tree.nodes.clear()
        last = tree.nodes.new("CompositorNodeComposite")
    layers, image = tree.nodes.new("CompositorNodeRLayers"), tree.nodes.new("CompositorNodeImage")
    image.image = loaded("composited", "//over.png")
    over = tree.nodes.new("CompositorNodeAlphaOver")
    pictures = [socket for socket in over.inputs if socket.type == "RGBA"]
    tree.links.new(layers.outputs["Image"], pictures[0])
    tree.links.new(image.outputs["Image"], pictures[1])
    tree.links.new(over.outputs[0], last.inputs[0])
    out = tree.nodes.new("CompositorNodeOutputFile")
    if NEW:
        out.directory, out.file_name = "//extra", "extra_"
        out.file_output_items.new("RGBA", "Image")
        out.format.media_type = "IMAGE"
        out.format.file_format = "PNG"
    else:
        out.base_path = "//extra"
        out.format.file_format = "PNG"
    tree.links.new(layers.outputs["Image"], out.inputs[0])


def cloth(scene):
    """Baked to the disk, where Blender finds it by the name of the .blend alone."""
    thing = glowing("cloth", -2, -2)
    thing.rotation_euler = (1, 0, 0)
    modifier = thing.modifiers.new("cloth", "CLOTH")
    modifier.point_cache.use_disk_cache = True
    modifier.point_cache.frame_end = 8
    bpy.context.view_layer.objects.active = thing
    bpy.ops.wm.save_mainfile()
    bpy.ops.ptcache.bake_all(bake=True)
    assert modifier.point_cache.is_baked


def shot():
    scene = fresh("shot.blend")
    scene.render.use_motion_blur = True
    scene.view_layers.new("second")
    glowing("wood", -5, 2, loaded("wood", "//wood.png"))
    glowing("sequence", -2.5, 2, loaded("sequence", "//seq_1.png", "SEQUENCE"), moving=True)
    glowing("chosen", 0, 2, loaded("chosen", "//seq_1.png"))
    glowing("before", 0, -2)
    glowing("loaded", 0, -0.5)
    driver = glowing("driven", 4, -2).driver_add("rotation_euler", 2).driver
    driver.type, driver.expression = "SCRIPTED", "len(bpy.data.filepath) / 9 + bpy.data.objects['wood'].location.y"
    words = bpy.data.objects.new("words", bpy.data.curves.new("words", "FONT"))
    words.location = (-5.5, -0.5, 0)
    words.data.body = "?"
    words.data.materials.append(bpy.data.materials["wood"])
    scene.collection.objects.link(words)
    with bpy.data.libraries.load(os.path.join(folder, "lib.blend"), link=True, relative=True) as (_, to):
        to.objects = ["linked"]
    scene.collection.objects.link(to.objects[0])
    composite(scene)
    text = bpy.data.texts.new("show.py")
    text.write(SCRIPT)
    text.use_module = True
    cloth(scene)
    bpy.ops.wm.save_mainfile()


def cut():
    scene = fresh("cut.blend", "BLENDER_WORKBENCH")
    other = bpy.data.scenes.new("other")
    bpy.context.window.scene = other
    stamped(other, "CYCLES")
    glowing("wood", -5, 2, loaded("wood", "//wood.png"))
    glowing("sequence", -2.5, 2, loaded("sequence", "//seq_1.png", "SEQUENCE"))
    bpy.context.window.scene = scene
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    inner = strips.new_scene("inner", other, 1, 1)
    inner.frame_final_duration = 8
    images = strips.new_image("images", os.path.join(folder, "seq_1.png"), 2, 1)
    images.directory = "//"
    for number in (2, 3):
        images.elements.append(f"seq_{number}.png")
    images.frame_final_duration = 8
    images.transform.scale_x = images.transform.scale_y = 0.4
    images.blend_type = "ALPHA_OVER"
    scene.render.use_sequencer = True
    bpy.ops.wm.save_mainfile()


picture("wood.png", (0.6, 0.3, 0.1))
picture("over.png", (0.1, 0.6, 0.3))
for number, colour in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 1)), 1):
    picture(f"seq_{number}.png", colour)
library()
shot()
cut()
print("made")
sys.stdout.flush()
os._exit(0)
