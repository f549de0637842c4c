"""Makes .blend files of many kinds, and truth.json: what Blender says of each through Python once it is opened again.

Run inside Blender, or by a Python with the bpy wheel: ... truth.py -- FOLDER KILN_HOST
"""

import importlib
import json
import os
import sys
import traceback

import bpy

out, kiln_host = sys.argv[sys.argv.index("--") + 1 :][:2]
out = os.path.realpath(out)

VERSION = bpy.app.version
# As a Python module Blender dies of Mantaflow when it is to simulate.
MODULE = not bpy.app.binary_path
ZONES = hasattr(bpy.types, "GeometryNodeSimulationOutput")


# What Blender says ----------------------------------------------------------------------------------------------


def samples(scene):
    engine = scene.render.engine
    return scene.cycles.samples if engine == "CYCLES" else scene.eevee.taa_render_samples if "EEVEE" in engine else None


def denoiser(scene):
    if scene.render.engine != "CYCLES" or not scene.cycles.use_denoising:
        return None
    # Where this Blender was built with none, the property has nothing it could name.
    does = any(layer.use and layer.cycles.use_denoising for layer in scene.view_layers)
    return (scene.cycles.denoiser or "OPENIMAGEDENOISE") if does else None


def jpeg_2000(settings):
    """The format by Kiln's name, where Blender's is that of two."""
    if settings.file_format != "JPEG2000":
        return {}
    return dict(format={"JP2": "jp2", "J2K": "j2c"}[settings.jpeg2k_codec])


def views(render):
    found = [v for v in render.views if v.use] if render.use_multiview else []
    if render.views_format == "STEREO_3D":
        found = [v for v in found if v.name in ("left", "right")]
    return [dict(name=v.name, suffix=v.file_suffix) for v in found] if len(found) > 1 else []


def scene_truth(scene):
    render = scene.render
    border = dict(
        min_x=render.border_min_x, max_x=render.border_max_x, min_y=render.border_min_y, max_y=render.border_max_y,
        crop=render.use_crop_to_border,
    )
    markers = [m for m in scene.timeline_markers if m.camera]
    return dict(
        name=scene.name,
        frame_start=scene.frame_start,
        frame_end=scene.frame_end,
        frame_step=scene.frame_step,
        fps=render.fps / render.fps_base,
        engine=render.engine,
        width=render.resolution_x,
        height=render.resolution_y,
        percent=render.resolution_percentage,
        samples=samples(scene),
        denoiser=denoiser(scene),
        device=scene.cycles.device.lower(),
        camera=scene.camera.name if scene.camera else None,
        camera_markers=[
            dict(frame=m.frame, name=m.name, camera=m.camera.name) for m in sorted(markers, key=lambda m: m.frame)
        ],
        view_layers=[dict(name=layer.name, renders=layer.use) for layer in scene.view_layers],
        output_path=render.filepath,
        format_name=render.image_settings.file_format,
        depth=render.image_settings.color_depth,
        **jpeg_2000(render.image_settings),
        is_movie=render.is_movie_format,
        border=border if render.use_border else None,
        multiview=render.use_multiview,
        views=views(render),
        views_apart=render.image_settings.views_format == "INDIVIDUAL",
        use_file_extension=render.use_file_extension,
    )


def external():
    """Everything that names a file, with what is packed."""
    found = [
        (kind, data.name, data.filepath, bool(getattr(data, "packed_file", None)))
        for kind, all_of in (
            ("image", bpy.data.images),
            ("library", bpy.data.libraries),
            ("sound", bpy.data.sounds),
            ("font", bpy.data.fonts),
            ("movie-clip", bpy.data.movieclips),
            ("cache-file", bpy.data.cache_files),
            ("volume", bpy.data.volumes),
            ("text", bpy.data.texts),
        )
        for data in all_of
        if data.filepath and data.filepath != "<builtin>" and not data.library
        if getattr(data, "source", "FILE") not in ("GENERATED", "VIEWER")
        # Brushes of Blender's own are linked at its start, and not saved.
        if "/datafiles/" not in data.filepath
    ]
    return sorted([kind, name, path, packed] for kind, name, path, packed in found)


def still(simulations, scene, which):
    return sorted(simulations.by_owner(list(simulations.find_unbaked(scene)))[which])


def missing(simulations, scene):
    """Name and frames of what is baked and not whole, of this file."""
    found = simulations.incomplete(scene)
    return sorted([name, list(gone)] for name, owner, _, gone in found if gone and not owner.library)


def truth(simulations):
    return dict(
        version=list(VERSION),
        # This Blender is the one that wrote it.
        subversion=bpy.app.version_file[2],
        active=bpy.context.scene.name,
        cameras=[o.name for o in bpy.data.objects if o.type == "CAMERA" and not o.library],
        scenes=[scene_truth(s) for s in bpy.data.scenes if not s.library],
        external=external(),
        unbaked={s.name: still(simulations, s, 0) for s in bpy.data.scenes if not s.library},
        linked={s.name: still(simulations, s, 1) for s in bpy.data.scenes if not s.library},
        missing={s.name: missing(simulations, s) for s in bpy.data.scenes if not s.library},
        particles=sorted(
            [o.name, p.point_cache.is_baked]
            for o in bpy.data.objects
            if not o.library
            for p in o.particle_systems
            if p.settings.type == "EMITTER"
        ),
    )


# Files ----------------------------------------------------------------------------------------------------------


def fresh():
    bpy.ops.wm.read_factory_settings(use_empty=True)
    return bpy.context.scene


def path_of(name):
    return os.path.join(out, name + ".blend")


def save(name, compress=False):
    bpy.ops.wm.save_as_mainfile(filepath=path_of(name), compress=compress, relative_remap=False)


def set_format(scene, fmt, depth=None, mode=None):
    settings = scene.render.image_settings
    if hasattr(settings, "media_type"):
        settings.media_type = {"FFMPEG": "VIDEO", "OPEN_EXR_MULTILAYER": "MULTI_LAYER_IMAGE"}.get(fmt, "IMAGE")
    try:
        settings.file_format = "JPEG2000" if fmt == "J2K" else fmt
    except TypeError:  # This Blender was built without it.
        return False
    if fmt == "J2K":
        settings.jpeg2k_codec = fmt
    if mode:
        settings.color_mode = mode
    if depth:
        settings.color_depth = depth
    return True


def thing(name, collection, location=(0, 0, 0), size=1.0):
    mesh = bpy.data.meshes.new(name)
    s = size / 2
    corners = [(x, y, z) for x in (-s, s) for y in (-s, s) for z in (-s, s)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    mesh.from_pydata(corners, [], faces)
    made = bpy.data.objects.new(name, mesh)
    made.location = location
    collection.objects.link(made)
    return made


def active(scene, made):
    bpy.context.window.scene = scene
    bpy.context.view_layer.objects.active = made


def rigid(scene, bodies):
    """bodies: object, type, enabled, kinematic."""
    bpy.context.window.scene = scene
    if not scene.rigidbody_world:
        bpy.ops.rigidbody.world_add()
    world = scene.rigidbody_world
    if not world.collection:
        world.collection = bpy.data.collections.new("Bodies of " + scene.name)
    for made, kind, enabled, kinematic in bodies:
        world.collection.objects.link(made)
        made.rigid_body.type, made.rigid_body.enabled, made.rigid_body.kinematic = kind, enabled, kinematic
    world.point_cache.frame_start, world.point_cache.frame_end = 1, 4
    return world


def short(cache):
    cache.frame_start, cache.frame_end = 1, 4


def zone_tree(name, groups=(), zone=True, mute=False):
    """Geometry nodes that simulate, themselves or in groups."""
    tree = bpy.data.node_groups.new(name, "GeometryNodeTree")
    if hasattr(tree, "interface"):
        tree.interface.new_socket("Geometry", in_out="INPUT", socket_type="NodeSocketGeometry")
        tree.interface.new_socket("Geometry", in_out="OUTPUT", socket_type="NodeSocketGeometry")
    else:
        tree.inputs.new("NodeSocketGeometry", "Geometry")
        tree.outputs.new("NodeSocketGeometry", "Geometry")
    at = tree.nodes.new("NodeGroupInput").outputs[0]
    if zone:
        begin = tree.nodes.new("GeometryNodeSimulationInput")
        end = tree.nodes.new("GeometryNodeSimulationOutput")
        begin.pair_with_output(end)
        end.mute = begin.mute = mute
        tree.links.new(at, begin.inputs["Geometry"])
        tree.links.new(begin.outputs["Geometry"], end.inputs["Geometry"])
        at = end.outputs["Geometry"]
    for inside, muted in groups:
        node = tree.nodes.new("GeometryNodeGroup")
        node.node_tree, node.mute = inside, muted
        tree.links.new(at, node.inputs[0])
        at = node.outputs[0]
    tree.links.new(at, tree.nodes.new("NodeGroupOutput").inputs[0])
    return tree


def physics():
    """Simulations of every kind, seen and hidden, on and off, in scenes and in collections within collections."""
    scene = fresh()
    scene.name = "Fälle"
    scene.frame_start, scene.frame_end = 1, 4
    inner = bpy.data.collections.new("Inner")
    outer = bpy.data.collections.new("Outer")
    scene.collection.children.link(outer)
    outer.children.link(inner)
    excluded = bpy.data.collections.new("Excluded")
    scene.collection.children.link(excluded)
    scene.view_layers[0].layer_collection.children["Excluded"].exclude = True
    second = bpy.data.scenes.new("Second")
    third = bpy.data.scenes.new("Third")
    second.collection.children.link(outer)

    crates = [thing(f"Crate {n}", scene.collection, (n * 2, 0, 3)) for n in range(5)]
    rigid(scene, [
        (crates[0], "ACTIVE", True, False), (crates[1], "PASSIVE", True, False), (crates[2], "ACTIVE", False, False),
        (crates[3], "ACTIVE", True, True), (crates[4], "ACTIVE", True, False),
    ])
    crates[4].hide_render = True
    ball = thing("Ball", third.collection, (0, 0, 5))
    rigid(third, [(ball, "ACTIVE", True, False)]).enabled = False
    ball = thing("Other Ball", second.collection, (0, 0, 5))
    rigid(second, [(ball, "ACTIVE", True, False)])
    bpy.context.window.scene = scene

    for name, where, render, hidden in (
        ("Flag", inner, True, False), ("Off", scene.collection, False, False), ("Hidden", inner, True, True),
        ("Unused", excluded, True, False), ("天", scene.collection, True, False),
    ):
        cloth = thing(name, where)
        cloth.modifiers.new("Subdivide", "SUBSURF")
        modifier = cloth.modifiers.new("Cloth", "CLOTH")
        modifier.show_render, cloth.hide_render = render, hidden
        short(modifier.point_cache)
    thing("Lonely", bpy.data.collections.new("Nowhere")).modifiers.new("Cloth", "CLOTH")
    soft = thing("Jelly", inner)
    short(soft.modifiers.new("Soft", "SOFT_BODY").point_cache)
    linked_cache = thing("From Elsewhere", scene.collection)
    linked_cache.modifiers.new("Cloth", "CLOTH").point_cache.use_external = True

    emitter = thing("Emitter", scene.collection)
    emitter.modifiers.new("Sparks", "PARTICLE_SYSTEM")
    short(emitter.particle_systems[0].point_cache)
    for name, dynamics in (("Fur", True), ("Still Fur", False)):
        hairy = thing(name, scene.collection)
        hairy.modifiers.new("Hair", "PARTICLE_SYSTEM")
        hairy.particle_systems[0].settings.type = "HAIR"
        hairy.particle_systems[0].settings.count = 4
        hairy.particle_systems[0].use_hair_dynamics = dynamics

    for name, formats in (("Vertices", ["VERTEX"]), ("Pictures", ["IMAGE"]), ("Both", ["IMAGE", "VERTEX"])):
        canvas = thing(name, scene.collection)
        modifier = canvas.modifiers.new("Paint", "DYNAMIC_PAINT")
        modifier.ui_type = "CANVAS"
        active(scene, canvas)
        bpy.ops.dpaint.type_toggle(type="CANVAS")
        for number, surface_format in enumerate(formats):
            if number:
                bpy.ops.dpaint.surface_slot_add()
            modifier.canvas_settings.canvas_surfaces[-1].surface_format = surface_format
        for surface in modifier.canvas_settings.canvas_surfaces:
            surface.frame_start, surface.frame_end = 1, 4
            short(surface.point_cache)
    brush = thing("Brush", scene.collection)
    brush.modifiers.new("Paint", "DYNAMIC_PAINT").ui_type = "BRUSH"

    for name, kind in (("Tank", "DOMAIN"), ("Pipe", "FLOW"), ("Wall", "EFFECTOR")):
        modifier = thing(name, scene.collection, (20, 0, 0), 2 if kind == "DOMAIN" else 0.5).modifiers.new("F", "FLUID")
        modifier.show_viewport = not MODULE
        modifier.fluid_type = kind
        if kind == "DOMAIN":
            domain = modifier.domain_settings
            domain.resolution_max, domain.cache_frame_start, domain.cache_frame_end = 8, 1, 2
            domain.cache_type = "ALL"
            domain.cache_directory = os.path.join(out, "fluid")

    if ZONES:
        zone = zone_tree("Zone")
        muted = zone_tree("Muted", mute=True)
        deep = zone_tree("Deep", [(zone_tree("Deeper", [(zone, False)], zone=False), False)], zone=False)
        for name, tree in (
            ("Grows", zone), ("Grows Deep", deep), ("Does Not Grow", muted),
            ("Group Muted", zone_tree("Outside", [(zone, True)], zone=False)),
            ("Plain Nodes", zone_tree("Plain", zone=False)),
            ("Twice", zone_tree("Two", [(zone, False)])),
        ):
            modifier = thing(name, scene.collection).modifiers.new("Nodes", "NODES")
            modifier.node_group = tree
    scene.frame_set(1)
    return scene


def bake_zones(scene):
    """Each by itself: `simulation_nodes_cache_bake` bakes nothing in 4.2."""
    if not ZONES:
        return
    for frame in range(scene.frame_start, scene.frame_end + 1):
        scene.frame_set(frame)
    for made in scene.objects:
        for modifier in made.modifiers:
            if modifier.type == "NODES":
                for bake in modifier.bakes:
                    bpy.ops.object.geometry_node_bake_single(
                        session_uid=made.session_uid, modifier_name=modifier.name, bake_id=bake.bake_id
                    )


def physics_unbaked():
    physics()
    save("physics unbaked", compress=True)


def physics_baked():
    scene = physics()
    # Obstacles and flows in so small a tank are too much for Mantaflow.
    for name in ("Pipe", "Wall", "Tank") if MODULE else ("Pipe", "Wall"):
        bpy.data.objects.remove(bpy.data.objects[name])
    save("physics baked")
    for one in bpy.data.scenes:
        bpy.context.window.scene = one
        bpy.ops.ptcache.bake_all(bake=True)
    bpy.context.window.scene = scene
    bake_zones(scene)
    if "Tank" in bpy.data.objects:
        active(scene, bpy.data.objects["Tank"])
        bpy.ops.fluid.bake_all()
    save("physics baked")
    # Some of it is lost again.
    bpy.data.objects["Flag"].modifiers["Cloth"].name = "Renamed"
    bpy.context.window.scene = bpy.data.scenes["Second"]
    with bpy.context.temp_override(point_cache=bpy.data.scenes["Second"].rigidbody_world.point_cache):
        bpy.ops.ptcache.free_bake()
    bpy.context.window.scene = scene
    save("physics half baked")


def physics_packed():
    """From 4.3 a bake of nodes may lie in the .blend."""
    if not ZONES or "bake_target" not in bpy.types.NodesModifier.bl_rna.properties:
        return
    scene = fresh()
    scene.frame_end = 3
    for name, target in (("Inside", "PACKED"), ("Outside", "DISK")):
        modifier = thing(name, scene.collection).modifiers.new("Nodes", "NODES")
        modifier.node_group = zone_tree("Zone " + name)
        modifier.bake_target = target
    save("physics packed")
    bake_zones(scene)
    thing("Late", scene.collection).modifiers.new("Nodes", "NODES").node_group = bpy.data.node_groups[0]
    save("physics packed")


NAMES = ["Scène", "Сцена", "シーン", "مشهد", "장면", "สถานที่", "😀", "A" * 60, "with / slash \\ and \"quotes\"", "  spaces "]
FORMATS = [
    ("PNG", "8", "RGBA"), ("PNG", "16", "RGB"), ("JPEG", None, "RGB"), ("OPEN_EXR", "16", "RGBA"),
    ("OPEN_EXR", "32", "RGB"), ("OPEN_EXR_MULTILAYER", "16", None), ("OPEN_EXR_MULTILAYER", "32", None),
    ("TIFF", "8", "RGB"), ("TIFF", "16", "RGBA"), ("BMP", None, "RGB"), ("TARGA", None, "RGBA"),
    ("TARGA_RAW", None, "RGB"), ("HDR", None, "RGB"), ("WEBP", None, "RGBA"), ("CINEON", None, None),
    ("DPX", "10", None), ("DPX", "16", None), ("JPEG2000", "12", None), ("J2K", "16", None), ("IRIS", None, None),
    ("FFMPEG", None, "RGB"), ("AVI_JPEG", None, "RGB"), ("AVI_RAW", None, "RGB"),
]


def engines():
    there = {item.identifier for item in bpy.types.RenderSettings.bl_rna.properties["engine"].enum_items}
    eevee = {"BLENDER_EEVEE_NEXT"} if (4, 2) <= VERSION < (5, 0) else {"BLENDER_EEVEE"}
    return sorted(there | eevee | {"CYCLES", "BLENDER_WORKBENCH"})


def settings():
    """Scenes with every engine, format and odd number."""
    scene = fresh()
    cameras = []
    for name in ("Eye", "Œil", "目"):
        camera = bpy.data.objects.new(name, bpy.data.cameras.new(name))
        scene.collection.objects.link(camera)
        cameras.append(camera)
    # Not only cameras can look.
    lamp = bpy.data.objects.new("Lamp", bpy.data.lights.new("Lamp", "SPOT"))
    scene.collection.objects.link(lamp)
    for number, (fmt, depth, mode) in enumerate(FORMATS):
        one = bpy.data.scenes.new(NAMES[number % len(NAMES)] + str(number))
        if not set_format(one, fmt, depth, mode):
            continue
        one.frame_start, one.frame_end, one.frame_step = (number - 3) * 7, (number - 3) * 7 + number, 1 + number % 4
        render = one.render
        render.fps, render.fps_base = [(24, 1.0), (30, 1.001), (25, 1.0), (60, 1.001), (1, 3.7)][number % 5]
        render.resolution_x, render.resolution_y = 4 + 97 * number, 65536 - number
        render.resolution_percentage = [100, 1, 33, 250][number % 4]
        render.engine = engines()[number % len(engines())]
        if number % 3:
            one.cycles.samples, one.eevee.taa_render_samples = 1 + number * 11, 2 + number * 13
        if number % 5:
            one.cycles.use_denoising = number % 5 > 1
            one.cycles.device = ("CPU", "GPU")[number % 2]
        for layer in one.view_layers if number % 7 == 4 else ():
            layer.cycles.use_denoising = False
        render.filepath = ["//", "/tmp/é/####", "C:\\out\\shot_", "//../出力/" + "x" * 200, ""][number % 5]
        render.use_border, render.use_crop_to_border = number % 2 == 0, number % 4 == 0
        render.border_min_x, render.border_max_x = 0.1, 0.3 + number / 100
        render.border_min_y, render.border_max_y = 0.0, 1.0
        render.use_file_extension = number % 3 != 0
        one.camera = (cameras + [lamp, None])[number % 5]
        for index in range(number % 4):
            one.view_layers.new(NAMES[index]).use = index % 2 == 0
        for index, camera in enumerate((cameras + [lamp])[: number % 5]):
            one.timeline_markers.new(f"cut {index}", frame=100 - 10 * index).camera = camera
            one.timeline_markers.new("no camera", frame=index)
    bpy.context.window.scene = bpy.data.scenes[len(bpy.data.scenes) // 2]


def many_views():
    """Stereo, several views, one file for all and one for each."""
    scene = fresh()
    scene.render.use_multiview = True
    for number in range(8):
        render = bpy.data.scenes.new(f"Views {number}").render
        render.use_multiview = number != 3
        render.views_format = "MULTIVIEW" if number % 2 else "STEREO_3D"
        for name in ("above", "unten ü")[: number % 3]:
            render.views.new(name).file_suffix = "." + name
        render.views[number % len(render.views)].use = number < 5
        render.image_settings.views_format = "STEREO_3D" if number >= 6 else "INDIVIDUAL"


def settings_plain():
    settings()
    save("settings")


def settings_packed():
    settings()
    save("settings packed", compress=True)


def views_plain():
    many_views()
    save("views")


def linked():
    """A camera, objects and pictures of a library; packed files, and names in many scripts."""
    scene = fresh()
    camera = bpy.data.objects.new("Far Eye", bpy.data.cameras.new("Far Eye"))
    scene.collection.objects.link(camera)
    save("library")
    library = path_of("library")
    scene = fresh()
    save("linked")
    with bpy.data.libraries.load(library, link=True, relative=True) as (_, to):
        to.objects = ["Far Eye"]
    scene.collection.objects.link(to.objects[0])
    scene.camera = to.objects[0]
    scene.timeline_markers.new("cut", frame=3).camera = to.objects[0]
    own = bpy.data.objects.new("Own Eye", bpy.data.cameras.new("Own Eye"))
    scene.collection.objects.link(own)
    for name in NAMES[:7]:
        image = bpy.data.images.new(name, 1, 1)
        image.source, image.filepath, image.use_fake_user = "FILE", f"//textures/{name}.png", True
    path = os.path.join(out, "packed.png")
    image = bpy.data.images.new("made", 4, 4)
    image.filepath_raw, image.file_format = path, "PNG"
    image.save()
    image = bpy.data.images.load(path)
    image.use_fake_user = True
    image.pack()
    text = bpy.data.texts.new("words")
    text.filepath = "//words.txt"
    volume = bpy.data.volumes.new("smoke")
    volume.filepath, volume.use_fake_user = "//煙.vdb", True
    save("linked")


MAKERS = [settings_plain, settings_packed, views_plain, linked, physics_unbaked, physics_baked, physics_packed]


def host_module():
    """The worker's own judgement of simulations."""
    sys.path.insert(0, os.path.dirname(os.path.realpath(kiln_host)))
    return importlib.import_module("kiln_host.simulations")


def main():
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    import depends
    import seldom

    for maker in MAKERS + depends.MAKERS + seldom.MAKERS:
        maker()
    found, simulations = {}, host_module()
    for name in sorted(os.listdir(out)):
        if name.endswith(".blend"):
            bpy.ops.wm.open_mainfile(filepath=os.path.join(out, name), load_ui=False)
            found[name] = truth(simulations)
    with open(os.path.join(out, "truth.json"), "w") as file:
        json.dump(found, file)


def run(what):
    """A wheel may hang at its end."""
    try:
        what()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(3)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    run(main)
