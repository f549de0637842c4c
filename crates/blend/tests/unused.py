"""Scenes in which files are missing: those named `no_...` change no pixel of a render, those named `yes_...` do; of those
named `may_...` a reader cannot know. Each scene is rendered with its files and without:
`blender -b --python unused.py -- FOLDER [thorough]`.

Every .blend of the folder is left without them."""

import os
import shutil
import sys

import bpy

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))

from unused_kit import (  # noqa: E402
    FILES, FOLDER, NEW, THOROUGH, cells, collection_of, compositor, font, image, key, layer_of, material, node_of,
    picture, plane, png, settle, shader_group, show, start, strips, wav,
)

# Scenes ---------------------------------------------------------------------------------------------------------


def objects():
    """What is hidden, and what only looks so."""
    scene = start()
    root = scene.collection
    show("yes_plain")
    image("no_fake").use_fake_user = True
    show("no_hidden").hide_render = True

    away = collection_of(root, "Away")
    away.hide_render = True
    show("no_hidden_collection", away)
    show("no_below_hidden_collection", collection_of(away, "Below"))
    out = collection_of(root, "Out")
    show("no_excluded", out)
    both = show("yes_also_elsewhere", out)
    root.objects.link(both)
    inner = collection_of(out, "Inner")
    show("yes_inside_of_excluded", inner)
    layer_of(bpy.context.view_layer, "Out").exclude = True
    layer_of(bpy.context.view_layer, "Inner").exclude = False
    second = scene.view_layers.new("Second")
    second.use = False
    only = collection_of(root, "Only")
    show("no_in_layer_that_is_off", only)
    layer_of(scene.view_layers[0], "Only").exclude = True
    layer_of(second, "Only").exclude = False

    keyed = show("yes_keyed")
    key(keyed, "hide_render", True, False)
    driven = show("yes_driven")
    driven.hide_render = True
    driven.driver_add("hide_render").driver.expression = "frame < 2"
    strip = show("yes_strip")
    key(strip, "hide_render", True, False)
    data, action = strip.animation_data, strip.animation_data.action
    data.action = None
    data.nla_tracks.new().strips.new("Strip", 1, action)
    strip.hide_render = True

    held = bpy.data.collections.new("Held")
    instance = bpy.data.objects.new("Instance", None)
    instance.instance_type, instance.instance_collection = "COLLECTION", held
    root.objects.link(instance)
    show("yes_in_place_of_empty", held)
    show("no_hidden_in_place_of_empty", held).hide_render = True
    below = collection_of(held, "Hidden below")
    below.hide_render = True
    show("no_collection_in_place_of_empty", below)
    names_only = bpy.data.objects.new("Names", None)
    names_only.instance_collection = bpy.data.collections.new("Named")
    names_only.instance_type = "NONE"
    root.objects.link(names_only)
    show("no_named_by_empty", names_only.instance_collection)

    model = show("yes_scattered")
    model.hide_render = True
    emitter = plane()
    emitter.modifiers.new("Particles", "PARTICLE_SYSTEM")
    settings = emitter.particle_systems[0].settings
    settings.type, settings.count, settings.render_type = "HAIR", 1, "OBJECT"
    settings.instance_object, settings.particle_size, settings.use_rotations = model, 1, False

    shown = bpy.data.objects.new("Picture", None)
    shown.empty_display_type, shown.data = "IMAGE", image("no_empty")
    root.objects.link(shown)
    camera = scene.camera.data
    camera.show_background_images = True
    camera.background_images.new().image = image("no_background")
    behind = camera.background_images.new()
    behind.source, behind.clip = "MOVIE_CLIP", bpy.data.movieclips.load(png("no_background_clip"))
    other = bpy.data.scenes.new("Other")
    show("no_other_scene", other.collection)
    brush = bpy.data.brushes.new("Brush", mode="TEXTURE_PAINT")
    brush.texture = bpy.data.textures.new("Brush", "IMAGE")
    brush.texture.image = image("no_brush")
    brush.use_fake_user = True
    paint = scene.tool_settings.image_paint
    if not NEW:
        paint.brush = brush
    paint.canvas, paint.stencil_image = image("no_canvas"), image("no_stencil")

    for name, renders in (("no_displace", False), ("yes_displace", True)):
        bent = plane(material=material())
        bent.modifiers.new("Finer", "SUBSURF").subdivision_type = "SIMPLE"
        change = bent.modifiers.new("Bend", "DISPLACE")
        change.direction, change.strength, change.show_render = "X", 4, renders
        change.texture = bpy.data.textures.new("Bend", "IMAGE")
        change.texture.image = image(name)
    turned = plane(material=material())
    change = turned.modifiers.new("Bend", "DISPLACE")
    change.direction, change.strength = "X", 4
    key(change, "show_render", False, True)
    change.texture = bpy.data.textures.new("Bend", "IMAGE")
    change.texture.image = image("yes_displace_keyed")
    hidden = plane(material=material())
    hidden.hide_render = True
    cached = hidden.modifiers.new("Cache", "MESH_CACHE")
    cached.cache_format, cached.filepath = "MDD", "//tex/no_cache_of_hidden.mdd"
    cached = plane(material=material()).modifiers.new("Cache", "MESH_CACHE")
    cached.cache_format, cached.filepath, cached.show_render = "MDD", "//tex/no_cache_that_is_off.mdd", False
    if hasattr(bpy.data, "volumes"):
        smoke = bpy.data.objects.new("Smoke", bpy.data.volumes.new("Smoke"))
        smoke.data.filepath = "//tex/no_volume.vdb"
        smoke.hide_render = True
        root.objects.link(smoke)
    speaker = bpy.data.objects.new("Speaker", bpy.data.speakers.new("Speaker"))
    speaker.data.sound = bpy.data.sounds.load(wav("no_speaker"))
    speaker.hide_render = True
    root.objects.link(speaker)
    for name, hidden in (("no_font", True), ("may_font", False)):
        text = bpy.data.objects.new("Text", bpy.data.curves.new("Text", "FONT"))
        text.data.font, text.hide_render = font(name), hidden
        root.objects.link(text)
    # Nothing in a file points from what flows to where it flows to.
    inflow = show("may_flow")
    inflow.hide_render = True
    inflow.modifiers.new("Fluid", "FLUID").fluid_type = "FLOW"
    save("objects")


def nodes():
    """What leads to a result, and what does not."""
    scene = start()
    show("yes_linked")
    lone = material("yes_beside_unlinked")
    picture(lone.node_tree, "no_unlinked")
    mix = lone.node_tree.nodes.new("ShaderNodeInvert")
    lone.node_tree.links.new(picture(lone.node_tree, "no_leads_nowhere").outputs[0], mix.inputs[1])
    second, glow = lone.node_tree.nodes.new("ShaderNodeOutputMaterial"), lone.node_tree.nodes.new("ShaderNodeEmission")
    lone.node_tree.links.new(picture(lone.node_tree, "no_other_result").outputs[0], glow.inputs[0])
    lone.node_tree.links.new(glow.outputs[0], second.inputs[0])
    node_of(lone, "ShaderNodeOutputMaterial").is_active_output = True
    inside = lone.node_tree.nodes.new("ShaderNodeGroup")
    inside.node_tree = shader_group("no_unlinked_group")
    plane(material=lone)

    grouped = material()
    inside = grouped.node_tree.nodes.new("ShaderNodeGroup")
    inside.node_tree = shader_group("yes_group")
    picture(inside.node_tree, "no_unlinked_in_group")
    way = grouped.node_tree.nodes.new("NodeReroute")
    grouped.node_tree.links.new(inside.outputs[0], way.inputs[0])
    grouped.node_tree.links.new(way.outputs[0], node_of(grouped, "ShaderNodeEmission").inputs[0])
    plane(material=grouped)

    muted = material("no_muted")
    node_of(muted, "ShaderNodeTexImage").mute = True
    plane(material=muted)
    passes = material()
    invert = passes.node_tree.nodes.new("ShaderNodeInvert")
    invert.mute = True
    passes.node_tree.links.new(picture(passes.node_tree, "yes_through_muted").outputs[0], invert.inputs[1])
    passes.node_tree.links.new(invert.outputs[0], node_of(passes, "ShaderNodeEmission").inputs[0])
    plane(material=passes)
    if not NEW:
        # A file of an older Blender may hold such keys; 4.3 makes none.
        if bpy.app.version < (4, 3):
            keyed = material("yes_mute_keyed")
            node = node_of(keyed, "ShaderNodeTexImage")
            key(node, "mute", True, False)
            node.mute = True
            plane(material=keyed)
        unused = material("no_nodes_off")
        unused.use_nodes = False
        plane(material=unused)

    lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "SUN"))
    lamp.data.use_nodes = True
    profile = lamp.data.node_tree.nodes.new("ShaderNodeTexIES")
    profile.mode, profile.filepath = "EXTERNAL", "//tex/no_profile.ies"
    scene.collection.objects.link(lamp)
    world = scene.world
    world.use_nodes = True
    tree = world.node_tree
    tree.nodes.clear()
    out, sky = tree.nodes.new("ShaderNodeOutputWorld"), tree.nodes.new("ShaderNodeBackground")
    tree.links.new(sky.outputs[0], out.inputs[0])
    around, other = tree.nodes.new("ShaderNodeTexEnvironment"), tree.nodes.new("ShaderNodeTexEnvironment")
    around.image, other.image = image("yes_world"), image("no_world_unlinked")
    tree.links.new(around.outputs[0], sky.inputs[0])

    geometry()
    tree, result = compositor(scene)
    layers = tree.nodes.new("CompositorNodeRLayers")
    over = tree.nodes.new("CompositorNodeAlphaOver")
    front, lone, muted = (tree.nodes.new("CompositorNodeImage") for _ in range(3))
    front.image, lone.image, muted.image = image("yes_composited"), image("no_composite_unlinked"), image("no_composite_muted")
    muted.mute = True
    pictures = [socket for socket in over.inputs if socket.type == "RGBA"]
    tree.links.new(layers.outputs[0], pictures[0])
    # The world is as green as the picture.
    invert = tree.nodes.new("CompositorNodeInvert")
    tree.links.new(front.outputs[0], next(socket for socket in invert.inputs if socket.type == "RGBA"))
    tree.links.new(invert.outputs[0], pictures[1])
    tree.links.new(over.outputs[0], result)
    save("nodes")


def geometry():
    """Geometry nodes move a plane by a picture."""
    bent = plane(material=material())
    tree = bpy.data.node_groups.new("Bend", "GeometryNodeTree")
    if hasattr(tree, "interface"):
        for way in ("INPUT", "OUTPUT"):
            tree.interface.new_socket("Geometry", in_out=way, socket_type="NodeSocketGeometry")
    else:
        tree.inputs.new("NodeSocketGeometry", "Geometry")
        tree.outputs.new("NodeSocketGeometry", "Geometry")
    first, last = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
    move, read, lone = (
        tree.nodes.new(kind) for kind in ("GeometryNodeSetPosition", "GeometryNodeImageTexture", "GeometryNodeImageTexture")
    )
    read.inputs["Image"].default_value, lone.inputs["Image"].default_value = image("yes_geometry"), image("no_geometry")
    tree.links.new(first.outputs[0], move.inputs["Geometry"])
    tree.links.new(read.outputs["Color"], move.inputs["Offset"])
    tree.links.new(move.outputs[0], last.inputs[0])
    bent.modifiers.new("Bend", "NODES").node_group = tree


def switched_off():
    """A scene behind; the compositor and the sequencer are there, and switched off."""
    scene = start()
    show("yes_shown")
    behind = bpy.data.scenes.new("Behind")
    show("yes_behind", behind.collection)
    show("no_hidden_behind", behind.collection).hide_render = True
    scene.background_set = behind
    tree, result = compositor(scene)
    front = tree.nodes.new("CompositorNodeImage")
    front.image = image("no_composite")
    tree.links.new(front.outputs[0], result)
    scene.render.use_compositing = False
    strip = strips(scene).new_image("Strip", png("no_strip"), 1, 1)
    strip.frame_final_duration = 9
    scene.render.use_sequencer = False
    save("switched_off")


def sequencer():
    """The sequencer's picture takes the place of the scene's."""
    scene = start()
    show("no_covered")
    new = strips(scene)

    def strip(name, channel, owner=new):
        made = owner.new_image(name, png(name), channel, 1)
        made.frame_final_duration = 9
        # Each is seen beside the others.
        made.transform.offset_x, made.transform.offset_y = 5 * (channel % 4) - 10, 5 * (channel // 4) - 10
        return made

    strip("yes_strip", 1)
    strip("no_muted_strip", 2).mute = True
    whole = new.new_meta("Meta", 3, 1)
    whole.frame_final_duration = 9
    whole.mute = True
    meta = whole.strips if hasattr(whole, "strips") else whole.sequences
    strip("no_in_muted_meta", 1, meta)
    mixed, also = strip("yes_below_effect", 4), strip("may_above_effect", 5)
    mixed.mute = also.mute = True
    effect(new, "ADD", 6, mixed, also)
    idle, other = strip("no_below_muted_effect", 7), strip("no_above_muted_effect", 8)
    idle.mute = other.mute = True
    effect(new, "ADD", 9, idle, other).mute = True
    strip("no_muted_channel", 10)
    title = effect(new, "TEXT", 14)
    title.font, title.mute = font("no_muted_font"), True
    scene.sequence_editor.channels[10].mute = True
    new.new_sound("Sound", wav("no_muted_sound"), 11, 1).mute = True
    clip = new.new_clip("Clip", bpy.data.movieclips.load(png("no_muted_clip")), 12, 1)
    clip.mute = True
    inner = bpy.data.scenes.new("Inner")
    settle(inner)
    show("no_in_muted_scene_strip", inner.collection)
    new.new_scene("Scene", inner, 13, 1).mute = True
    save("sequencer")


def effect(new, kind, channel, *inputs):
    length = {"length": 9} if NEW else {"frame_end": 10}
    names = ("input1", "input2") if NEW else ("seq1", "seq2")
    return new.new_effect("Effect", kind, channel, 1, **length, **dict(zip(names, inputs)))


def sequencer_keyed():
    """Whether a strip is muted is keyed: then any strip may show."""
    scene = start()
    show("may_be_covered")
    strip = strips(scene).new_image("Strip", png("yes_keyed_strip"), 1, 1)
    strip.frame_final_duration = 9
    key(strip, "mute", True, False)
    strip.mute = True
    save("sequencer_keyed")


def sequencer_scenes():
    """A strip shows another scene; one shows that scene's sequencer, which is switched off there."""
    scene = start()
    show("no_covered")
    inner = bpy.data.scenes.new("Inner")
    settle(inner)
    show("yes_in_scene_strip", inner.collection)
    strip = strips(scene).new_scene("Scene", inner, 1, 1)
    strip.frame_final_duration = 9
    cut = bpy.data.scenes.new("Cut")
    settle(cut)
    cut.render.use_sequencer = False
    inside = strips(cut).new_image("Inside", png("yes_in_cut_of_strip"), 1, 1)
    inside.frame_final_duration = 9
    strip = strips(scene).new_scene("Cut", cut, 2, 1)
    strip.scene_input, strip.frame_final_duration, strip.blend_type = "SEQUENCER", 9, "ADD"
    save("sequencer_scenes")


def workbench():
    """Workbench shows the picture that is chosen among the nodes, linked or not."""
    scene = start()
    lone = material()
    picture(lone.node_tree, "may_be_chosen")
    plane(material=lone)
    show("no_hidden").hide_render = True
    scene.render.engine = "BLENDER_WORKBENCH"
    save("workbench", render=False)


def tiles():
    """Of three tiles one is there."""
    start()
    os.makedirs(os.path.join(FOLDER, "kept"))
    for name, marker, first in (("yes", "<UDIM>", "1001"), ("no", "<UVTILE>", "u1_v1")):
        shown = show(name + "_tiles")
        shown.hide_render = name == "no"
        path = os.path.join(FOLDER, "kept", f"{name}_tiles.{first}.png")
        os.rename(os.path.join(FILES, name + "_tiles.png"), path)
        tiled = bpy.data.images[name + "_tiles.png"]
        tiled.source, tiled.filepath = "TILED", f"//kept/{name}_tiles.{marker}.png"
        for number in (1002, 1011):
            tiled.tiles.new(number)
    save("tiles", render=False)


def libraries():
    """The same for what is linked."""
    start()
    held = collection_of(bpy.context.scene.collection, "Held")
    show("yes_linked", held)
    show("no_linked_hidden", held).hide_render = True
    below = collection_of(held, "Below")
    below.hide_render = True
    show("no_linked_below_hidden", below)
    made = material("yes_linked_material")
    made.name = "Glow"
    made.use_fake_user = True
    picture(made.node_tree, "no_linked_unlinked")
    image("yes_linked_image").use_fake_user = True
    unused = collection_of(bpy.context.scene.collection, "Unused")
    show("no_not_linked", unused)
    path = os.path.join(FOLDER, "held.blend")
    bpy.ops.wm.save_as_mainfile(filepath=path, check_existing=False)
    files = {name: open(os.path.join(FILES, name), "rb").read() for name in os.listdir(FILES)}
    count = len(cells)
    scene = start()
    cells.extend([1] * count)
    for name, data in files.items():
        with open(os.path.join(FILES, name), "wb") as file:
            file.write(data)
    with bpy.data.libraries.load(path, link=True, relative=True) as (there, wanted):
        wanted.collections, wanted.materials = ["Held"], ["Glow"]
        wanted.images = ["yes_linked_image.png"]
    scene.collection.children.link(bpy.data.collections["Held"])
    plane(material=bpy.data.materials["Glow"])
    own = material()
    node = own.node_tree.nodes.new("ShaderNodeTexImage")
    node.image = bpy.data.images["yes_linked_image.png"]
    own.node_tree.links.new(node.outputs[0], node_of(own, "ShaderNodeEmission").inputs[0])
    plane(material=own)
    show("no_own_hidden").hide_render = True
    save("libraries")


# Truth ----------------------------------------------------------------------------------------------------------


def save(name, render=True):
    path = os.path.join(FOLDER, name + ".blend")
    bpy.ops.wm.save_as_mainfile(filepath=path, relative_remap=True, check_existing=False)
    for block in (*bpy.data.images, *bpy.data.sounds, *bpy.data.movieclips, *bpy.data.fonts):
        if not block.library and block.filepath not in ("", "<builtin>") and not block.filepath.startswith("//"):
            block.filepath = bpy.path.relpath(block.filepath)
    bpy.ops.wm.save_mainfile()
    os.remove(path + "1")
    files = sorted(os.listdir(FILES))
    if render:
        whole = pictures(path)
        without(of(files, "no_"), lambda: check(name, pictures(path) == whole))
        # One after another where there is time for it.
        shown = of(files, "yes_")
        for some in [[file] for file in shown] if THOROUGH else [shown]:
            without(some, lambda: check(" ".join(some), pictures(path) != whole))
    shutil.rmtree(FILES)


def check(name, holds):
    if not holds:
        print("WRONG:", name)
        with open(os.path.join(FOLDER, "wrong.txt"), "a") as file:
            file.write(name + "\n")


def of(files, kind):
    return [file for file in files if file.startswith(kind)]


def without(files, call):
    for file in files:
        os.rename(os.path.join(FILES, file), os.path.join(FOLDER, file))
    call()
    for file in files:
        os.rename(os.path.join(FOLDER, file), os.path.join(FILES, file))


def pictures(path):
    """Frames 1 and 2."""
    bpy.ops.wm.open_mainfile(filepath=path)
    scene, found = bpy.context.scene, []
    for frame in (1, 2):
        scene.frame_set(frame)
        scene.render.filepath = os.path.join(FOLDER, "out.bmp")
        bpy.ops.render.render(write_still=True)
        with open(scene.render.filepath, "rb") as file:
            found.append(file.read())
    return found


for build in (objects, nodes, switched_off, sequencer, sequencer_keyed, sequencer_scenes, workbench, tiles, libraries):
    build()
with open(os.path.join(FOLDER, "done"), "w"):
    pass
