"""Makes .blend files with sequences of every kind, and truth.json: for each the picture that Blender shows on some frames,
and what Kiln's host foretells.

Run inside Blender, or by a Python with the bpy wheel: ... sequences.py -- FOLDER BLENDER_FOLDER
The second folder holds kiln_host.
"""

import json
import os
import sys

import bpy

out, home = sys.argv[sys.argv.index("--") + 1 :][:2]
out = os.path.realpath(out)
sys.path[:0] = [home, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "testkit")]
from kiln_host import sequences  # noqa: E402
from sequence_kit import (  # noqa: E402
    cached, calculated, composited_by, displaced, geometry, image_of, material_of, plane, run, scene_time, set_user, shown_by,
    strips,
)
import sequence_kit  # noqa: E402

FRAMES = (-7, -1, 0, 1, 2, 3, 4, 5, 6, 9, 12)
# Picture n is n / SCALE bright.
SCALE = 128
NAMES = (
    "s_0004_diff.png", "v2_0004.png", "shot4k_0004_v2.png", "s_-0003.png", "7.png", "name.png", "s_0004", "s.0004",
    ".0004.png", "a1b22.tar.gz", "s_99999999999.png", "s_1.5.png", "Ä3ö.png",
)
SETTINGS = (
    (10, 1, 0, False), (10, 1, 0, True), (5, 3, 3, False), (5, 3, 3, True), (0, 1, 0, False), (9, 1, -5, False),
    (1, 1, 0, True), (3, -10, 0, True), (3, -10, 2, False), (20000, -12345, 0, False),
)
found = []


def fresh(blend):
    return sequence_kit.fresh(os.path.join(out, blend))


def picture(name, number):
    image = bpy.data.images.new("made", 4, 4, float_buffer=True)
    image.colorspace_settings.name = "Non-Color"
    value = number / SCALE
    image.generated_color = (value, value, value, 1)
    image.filepath_raw, image.file_format = os.path.join(out, name), "OPEN_EXR"
    image.save()
    bpy.data.images.remove(image)


def graph():
    return bpy.context.evaluated_depsgraph_get()


def height(thing):
    return thing.evaluated_get(graph()).data.vertices[0].co.z


def named(pattern):
    """From a brightness to the name of the picture."""

    def name(value):
        number = round(value * SCALE)
        assert abs(number / SCALE - value) < 1e-3, value
        return pattern % number if number else None

    return name


def rendered(scene):
    path = os.path.join(out, "render.exr")
    scene.render.filepath = path
    bpy.ops.render.render(write_still=True)
    image = bpy.data.images.load(path)
    value = image.pixels[0]
    bpy.data.images.remove(image)
    return value


def record(scene, blend, shown, frames=FRAMES):
    """`shown` tells by label what Blender shows on the present frame."""
    users = {user.label: user for user in sequences.users(scene)}
    assert len(users) == len(shown), (sorted(users), sorted(shown))
    ways = {label: {} for label in users}
    for frame in frames:
        scene.frame_set(frame)
        for label, user in users.items():
            settings = user.settings_at(frame) if user.moves() else user.settings()
            wanted = sequences.RULES[user.rule](frame, *settings) if user.rule else None
            kiln = wanted and [os.path.basename(sequences.file_of(user.rule, user.path, wanted[0])), wanted[1]]
            ask = shown[label]
            ways[label][frame] = dict(asked=bool(ask), blender=ask() if ask else None, kiln=kiln)
    for label, user in users.items():
        found.append(dict(blend=blend, label=label, rule=user.rule, moves=user.moves(), frames=ways[label]))


def save(name):
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(out, name), compress=False, relative_remap=False)


def images():
    """Nodes in a material, in a group, in a world and in a light, and a texture."""
    scene = fresh("images.blend")
    shown = {}

    def ask(image, owner, find):
        return lambda: os.path.basename(image.filepath_from_user(image_user=find(owner.evaluated_get(graph()))))

    def add(label, path, settings, owner, tree, kind="ShaderNodeTexImage"):
        node = tree.nodes.new(kind)
        node.image = image_of(label, path)
        set_user(node.image_user, *settings)
        inside = lambda found, name=node.name: getattr(found, "node_tree", found).nodes[name].image_user
        shown["image " + label] = ask(node.image, owner, inside)
        return node

    thing = plane()
    material = material_of("Many", thing)
    tree = material.node_tree
    for number, name in enumerate(NAMES):
        add(f"name {number}", name, (20000, 1, 0, False), material, tree)
    for number, settings in enumerate(SETTINGS):
        add(f"set {number}", "s_0001.png", settings, material, tree)
    group = bpy.data.node_groups.new("Group", "ShaderNodeTree")
    tree.nodes.new("ShaderNodeGroup").node_tree = group
    add("in group", "s_0001.png", SETTINGS[2], group, group)
    scene.world = bpy.data.worlds.new("World")
    scene.world.use_nodes = True
    add("in world", "s_0001.png", SETTINGS[3], scene.world, scene.world.node_tree, "ShaderNodeTexEnvironment")
    light = bpy.data.lights.new("Light", "POINT")
    light.use_nodes = True
    scene.collection.objects.link(bpy.data.objects.new("Light", light))
    add("in light", "s_0001.png", SETTINGS[8], light, light.node_tree)
    # What moves is for the host alone to tell.
    keyed = material_of("Keyed", thing)
    node = add("keyed", "s_0001.png", (50, 1, 0, False), keyed, keyed.node_tree)
    for frame, offset in ((1, 0), (5, 20)):
        node.image_user.frame_offset = offset
        node.image_user.keyframe_insert("frame_offset", frame=frame)
    driven = material_of("Driven", thing)
    node = add("driven", "s_0001.png", (50, 1, 0, False), driven, driven.node_tree)
    node.image_user.driver_add("frame_offset").driver.expression = "frame * 2"
    # Only the animation of a setting counts.
    light.node_tree.nodes["Emission"].inputs["Strength"].keyframe_insert("default_value", frame=3)
    off = tree.nodes.new("ShaderNodeTexImage")
    off.image, off.mute = image_of("muted", "s_0001.png"), True
    idle = bpy.data.images.new("idle", 1, 1)
    idle.source, idle.filepath, idle.use_fake_user = "SEQUENCE", "//s_0001.png", True
    save("images.blend")
    record(scene, "images.blend", shown)


def volumes():
    scene = fresh("volumes.blend")
    shown = {}

    def ask(thing):
        def shown():
            grids = thing.evaluated_get(graph()).data.grids
            grids.load()
            if grids.frame == sequences.INT_MAX:
                return None
            return grids.error_message.split(" not found")[0] or None

        return shown

    paths = ("s_0001.vdb", "s_0001_diff.vdb", "s_-0003.vdb", "9.vdb", "s.vdb")
    modes = [("s_0001.vdb", mode, *settings) for mode in ("CLIP", "EXTEND", "REPEAT", "PING_PONG")
             for settings in ((4, 1, 0), (4, 3, -5), (2, -3, 7))]
    for number, (path, mode, duration, start, offset) in enumerate(
        modes + [(path, "EXTEND", 50, -20, 0) for path in paths] + [("s_0001.vdb", "EXTEND", 0, 1, 0)]
    ):
        volume = bpy.data.volumes.new(f"v{number}")
        volume.filepath, volume.is_sequence = "//" + path, True
        volume.frame_duration, volume.frame_start, volume.frame_offset = duration, start, offset
        volume.sequence_mode = mode
        thing = bpy.data.objects.new(volume.name, volume)
        scene.collection.objects.link(thing)
        shown["volume " + volume.name] = ask(thing)
    save("volumes.blend")
    bpy.ops.wm.open_mainfile(filepath=os.path.join(out, "volumes.blend"))
    scene = bpy.context.scene
    shown = {"volume " + thing.name: ask(thing) for thing in scene.objects if thing.type == "VOLUME"}
    record(scene, "volumes.blend", shown)


def lifted(name, pick):
    """A thing that geometry nodes lift by a picture."""
    thing = plane(name)
    pick(*geometry(thing, name, image_of(name, "p_0001.exr")))
    return lambda: named("p_%04d.exr")(height(thing))


def heights():
    """What moves vertices: textures of modifiers, geometry nodes, Alembic."""
    scene = fresh("heights.blend")
    shown = {}
    for number, settings in enumerate(((5, 3, 3, False), (5, 3, 3, True))):
        thing = plane(f"t{number}")
        displace = displaced(thing, thing.name, image_of(f"texture {number}", "p_0001.exr"))
        set_user(displace.texture.image_user, *settings)
        shown[f"image texture {number}"] = lambda thing=thing: named("p_%04d.exr")(height(thing))
    shown["image fixed"] = lifted("fixed", lambda _, node: setattr(node.inputs["Frame"], "default_value", 7))
    shown["image time"] = lifted("time", scene_time)
    lifted("sum", calculated)
    shown["image sum"] = None
    if bpy.app.build_options.alembic:
        for name, override in (("cache", None), ("held", 4.7)):
            thing = plane("abc " + name)
            cache = cached(thing, os.path.join(out, "c_0001.abc"), "/made/made")
            cache.name, cache.filepath = name, "//c_0001.abc"
            if override:
                cache.override_frame, cache.frame = True, override
            shown["cache " + name] = lambda thing=thing: named("c_%04d.abc")(height(thing))
    save("heights.blend")
    # Of frames outside of the files, Blender shows the last that it opened.
    record(scene, "heights.blend", shown, (1, 2, 3, 4, 5, 6, 9, 12))


def compositing():
    for number, settings in enumerate(((5, 3, 3, False), (5, 3, 3, True))):
        blend = f"composited {number}.blend"
        scene = fresh(blend)
        node = composited_by(scene, "CompositorNodeImage")
        node.image = image_of("composited", "p_0001.exr")
        set_user(node, *settings)
        save(blend)
        record(scene, blend, {"image composited": lambda: named("p_%04d.exr")(rendered(scene))}, (-2, 1, 3, 5, 9))
    scene = fresh("clip.blend")
    clip = bpy.data.movieclips.load(os.path.join(out, "p_0005.exr"))
    clip.name, clip.filepath, clip.colorspace_settings.name = "clip", "//p_0005.exr", "Non-Color"
    clip.frame_start, clip.frame_offset = 3, 1
    composited_by(scene, "CompositorNodeMovieClip").clip = clip
    save("clip.blend")
    record(scene, "clip.blend", {"movie clip clip": lambda: named("p_%04d.exr")(rendered(scene))}, (-1, 1, 3, 5, 9))


def sequencer():
    scene = fresh("strip.blend")
    clip = bpy.data.movieclips.load(os.path.join(out, "p_0005.exr"))
    clip.name, clip.filepath, clip.colorspace_settings.name = "strip", "//p_0005.exr", "Non-Color"
    clip.frame_start, clip.frame_offset = 3, 1
    strip = strips(scene).new_clip("Strip", clip, 1, 2)
    strip.frame_offset_start = 1
    save("strip.blend")
    blank = named("p_%04d.exr")
    record(scene, "strip.blend", {"movie clip strip": lambda: blank(rendered(scene))}, (1, 2, 3, 4, 5, 6))


def linked():
    """A library with an image and two materials, of which the other file links the image and one of the materials."""
    fresh("library.blend")
    for name in ("far", "near", "lost"):
        for number in (1, 2, 4):
            with open(os.path.join(out, f"{name}_{number:04}.png"), "w") as file:
                file.write("x")

    def showing(name, image):
        material = material_of(name)
        material.use_fake_user = True
        node = shown_by(material, image)
        set_user(node.image_user, 4)
        material.node_tree.links.new(node.outputs[0], material.node_tree.nodes["Principled BSDF"].inputs[0])
        return material

    image_of("far", "far_0001.png").use_fake_user = True
    for name in ("near", "lost"):
        showing(name, image_of(name, name + "_0001.png"))
    save("library.blend")
    fresh("linking.blend")
    with bpy.data.libraries.load(os.path.join(out, "library.blend"), link=True, relative=True) as (_, to):
        to.images, to.materials = ["far"], ["near"]
    slots = plane().data.materials
    slots.append(bpy.data.materials["near"])
    slots.append(showing("own", bpy.data.images["far"]))
    # While its picture is not there, Blender takes a clip for a movie.
    clip = bpy.data.movieclips.load(os.path.join(out, "p_0001.exr"))
    clip.filepath, clip.use_fake_user = "//later_0001.png", True
    bpy.context.scene.frame_set(2)
    assert clip.source == "MOVIE"
    for number in (1, 2, 4):
        with open(os.path.join(out, f"later_{number:04}.png"), "w") as file:
            file.write("x")
    save("linking.blend")


def main():
    for number in range(1, 21):
        picture(f"p_{number:04}.exr", number)
    if bpy.app.build_options.alembic:
        fresh("alembic.blend")
        for number in range(1, 13):
            thing = plane("made")
            for vertex in thing.data.vertices:
                vertex.co.z = number / SCALE
            bpy.ops.wm.alembic_export(filepath=os.path.join(out, f"c_{number:04}.abc"), start=1, end=1)
            bpy.data.objects.remove(thing)
            for mesh in list(bpy.data.meshes):
                bpy.data.meshes.remove(mesh)
    for make in (images, volumes, heights, compositing, sequencer, linked):
        make()
    with open(os.path.join(out, "truth.json"), "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    run(main)
