"""Builds the small scenes of the tests: `blender -b --factory-startup --python scenes.py -- FOLDER`.

Each scene gets a folder of its own, with the files it refers to."""

import math
import os
import sys

import bpy

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from scene_kit import NEW, compositor, driven, image_node, material, png, start


def basic(folder):
    start()


def particles(folder):
    _, cube = start()
    cube.modifiers.new("Emitter", "PARTICLE_SYSTEM")
    settings = cube.particle_systems[0].settings
    settings.count, settings.frame_start, settings.frame_end = 60, 1, 20
    settings.render_type = "HALO" if not hasattr(settings, "instance_object") else "OBJECT"
    bpy.ops.mesh.primitive_ico_sphere_add(subdivisions=1, location=(0, 0, -9))
    settings.instance_object = bpy.context.object
    settings.particle_size = 0.3


def image_sequence(folder):
    _, cube = start()
    os.makedirs(os.path.join(folder, "seq"))
    for frame in range(1, 9):
        png(os.path.join(folder, "seq", f"tile_{frame:03}.png"), 30 * frame, 255 - 30 * frame, 90)
    node = image_node(cube, os.path.join(folder, "seq", "tile_001.png"))
    node.image.source = "SEQUENCE"
    node.image.filepath = "//seq/tile_001.png"
    node.image_user.frame_duration, node.image_user.frame_start = 8, 1
    node.image_user.use_auto_refresh = True


def drivers(folder):
    _, cube = start()
    curve = cube.driver_add("location", 2)
    curve.driver.expression = "1 + frame / 20"


def python_driver(folder):
    _, cube = start()
    cube.driver_add("location", 2).driver.expression = "max([frame / 10 for _ in range(3)])"


def script(folder):
    """A registered text: its handler moves the cube at every frame. A persistent one counts itself: it would be there
    twice after a second opening, or if it did not find itself in Blender's list. Another removes itself."""
    start()
    text = bpy.data.texts.new("move.py")
    text.write(
        "import bpy\n"
        "handlers = bpy.app.handlers\n"
        "def move(scene, *_):\n"
        "    scene.objects['Cube'].location.x = scene.frame_current / 10\n"
        "handlers.frame_change_post.append(move)\n"
        "@handlers.persistent\n"
        "def grow(scene, *_):\n"
        "    grown = [handler for handler in handlers.frame_change_pre if handler.__name__ == 'grow']\n"
        "    scene.objects['Cube'].scale.y = len(grown)\n"
        "handlers.frame_change_pre.append(grow)\n"
        "def ensure(*_):\n"
        "    if grow not in handlers.frame_change_pre:\n"
        "        handlers.frame_change_pre.append(grow)\n"
        "handlers.render_pre.append(ensure)\n"
        "def once(*_):\n"
        "    handlers.render_pre.remove(once)\n"
        "handlers.render_pre.append(once)\n"
    )
    text.use_module = True


def moved_output(folder):
    """A handler that sets the output path while the frame renders."""
    start(samples=1)
    text = bpy.data.texts.new("name.py")
    text.write(
        "import bpy\n"
        "def name(scene, *_):\n"
        "    scene.render.filepath = bpy.app.tempdir + 'moved/shot_'\n"
        "bpy.app.handlers.frame_change_post.append(name)\n"
    )
    text.use_module = True


def talks(folder):
    """After each frame two words are in both buffers, Python's and the C library's, and end no line."""
    start(samples=1)
    text = bpy.data.texts.new("talks.py")
    text.write(
        "import bpy, ctypes, sys\n"
        "def talk(*_):\n"
        # The module is a new one each time that the file is opened.
        "    frame = sys.talked = getattr(sys, 'talked', 0) + 1\n"
        "    print(f'python {frame};', end='')\n"
        "    ctypes.CDLL(None).printf(b' and c %d;', frame)\n"
        "bpy.app.handlers.render_complete.append(talk)\n"
    )
    text.use_module = True


def script_error(folder):
    start()
    text = bpy.data.texts.new("broken.py")
    text.write(
        "import bpy\n"
        "def broken(scene, *_):\n"
        "    if scene.frame_current == 3:\n"
        "        scene.no_such_thing\n"
        "bpy.app.handlers.frame_change_post.append(broken)\n"
    )
    text.use_module = True


def motion_blur(folder):
    scene, cube = start()
    scene.render.use_motion_blur = True
    curve = scene.driver_add("cycles.seed")
    curve.driver.expression = "frame"


def stamped(folder):
    """The path of the file is burnt into the picture."""
    scene, _ = start()
    scene.render.use_stamp = scene.render.use_stamp_filename = True


def stereo(folder):
    scene, _ = start()
    scene.render.use_multiview = True
    scene.render.image_settings.views_format = "INDIVIDUAL"


def dotted_stereo(folder):
    """A name with a dot: the suffix of a view is before the extension all the same."""
    stereo(folder)
    bpy.context.scene.render.filepath = "//v1.2_"


def side_by_side(folder):
    scene, _ = start()
    scene.render.use_multiview = True
    scene.render.image_settings.views_format = "STEREO_3D"
    scene.render.image_settings.stereo_3d_format.display_mode = "SIDEBYSIDE"


def file_outputs(folder):
    """Two File Output nodes: pictures in folders of their own, and one file of layers."""
    scene, _ = start()
    tree, layers = compositor(scene)
    pictures, many = (tree.nodes.new("CompositorNodeOutputFile") for _ in range(2))
    pictures.name, many.name = "Pictures", "Layers"
    if NEW:
        pictures.directory, pictures.file_name = "//passes/", "sub/"
        pictures.format.media_type = "IMAGE"
        pictures.format.file_format = "PNG"
        for name in ("beauty_", "alpha_##_x"):
            pictures.file_output_items.new("RGBA", name)
        many.directory, many.file_name = "//passes/", "layers_"
        many.file_output_items.new("RGBA", "Image")
    else:
        pictures.base_path = "//passes/"
        pictures.format.file_format = "PNG"
        pictures.file_slots[0].path = "sub/beauty_"
        pictures.file_slots.new("sub/alpha_##_x")
        pictures.file_slots.new("unlinked")
        many.base_path = "//passes/layers_"
        many.format.file_format = "OPEN_EXR_MULTILAYER"
    tree.links.new(layers.outputs["Image"], pictures.inputs[0])
    tree.links.new(layers.outputs["Alpha"], pictures.inputs[1])
    tree.links.new(layers.outputs["Image"], many.inputs[0])


def data_outputs(folder):
    """A File Output node that writes a colour and what is none, as EXR of 16 bits."""
    scene, _ = start()
    bpy.context.view_layer.use_pass_z = bpy.context.view_layer.use_pass_normal = True
    tree, layers = compositor(scene)
    node = tree.nodes.new("CompositorNodeOutputFile")
    if NEW:
        node.directory, node.format.media_type = "//data/", "IMAGE"
        for kind, name in (("RGBA", "Image"), ("FLOAT", "Depth"), ("VECTOR", "Normal")):
            node.file_output_items.new(kind, name)
    else:
        node.base_path = "//data/"
        node.file_slots[0].path = "Image"
        node.file_slots.new("Depth")
        node.file_slots.new("Normal")
    node.format.file_format, node.format.color_depth = "OPEN_EXR", "16"
    for socket, name in zip(node.inputs, ("Image", "Depth", "Normal")):
        tree.links.new(layers.outputs[name], socket)


def scaled_output(folder):
    """A File Output node behind a Scale node: its picture has a size of its own."""
    scene, _ = start()
    tree, layers = compositor(scene)
    scale, node = tree.nodes.new("CompositorNodeScale"), tree.nodes.new("CompositorNodeOutputFile")
    scale.inputs["X"].default_value = scale.inputs["Y"].default_value = 0.5
    if NEW:
        node.directory, node.format.media_type, node.format.file_format = "//small/", "IMAGE", "PNG"
        node.file_output_items.new("RGBA", "half_")
    else:
        node.base_path, node.format.file_format = "//small/", "PNG"
        node.file_slots[0].path = "half_"
    tree.links.new(layers.outputs["Image"], scale.inputs[0])
    tree.links.new(scale.outputs[0], node.inputs[0])


def suspicious(folder):
    """Frames 1 and 2 are lit, 3 and from 6 on without light; 4 has pixels that are not numbers, 5 shows nothing. Beside
    them a mask that is always black."""
    scene, cube = start()
    scene.render.film_transparent = True
    scene.render.image_settings.file_format = "OPEN_EXR"
    scene.render.image_settings.color_mode = "RGBA"
    scene.render.image_settings.color_depth = "32"
    for ob in bpy.data.objects:
        if ob.type == "LIGHT":
            for frame in range(1, 9):
                ob.hide_render = frame == 3 or frame > 5
                ob.keyframe_insert("hide_render", frame=frame)
        elif ob.type == "MESH":
            for frame in range(1, 9):
                ob.hide_render = frame == 5
                ob.keyframe_insert("hide_render", frame=frame)
    scene.world.color = (0, 0, 0)
    tree, layers = compositor(scene)

    def math(operation, *values):
        node = tree.nodes.new("CompositorNodeMath")
        node.operation = operation
        for socket, value in zip(node.inputs, values):
            if isinstance(value, bpy.types.NodeSocket):
                tree.links.new(value, socket)
            else:
                socket.default_value = value
        return node

    keyed = math("MULTIPLY", layers.outputs["Alpha"], 0)
    for frame in range(1, 9):
        keyed.inputs[1].default_value = 1e38 if frame == 4 else 0
        keyed.inputs[1].keyframe_insert("default_value", frame=frame)
    infinite = math("MULTIPLY", keyed.outputs[0], 1e38).outputs[0]
    add = tree.nodes.new("CompositorNodeMixRGB")
    add.blend_type = "ADD"
    tree.links.new(layers.outputs["Image"], add.inputs[1])
    tree.links.new(math("SUBTRACT", infinite, infinite).outputs[0], add.inputs[2])
    result = next(node for node in tree.nodes if node.bl_idname == "CompositorNodeComposite")
    tree.links.new(add.outputs[0], result.inputs[0])
    masks = tree.nodes.new("CompositorNodeOutputFile")
    masks.base_path, masks.format.file_format = "//frames/", "PNG"
    masks.format.color_mode = "BW"
    masks.file_slots[0].path = "mask_"
    tree.links.new(math("MULTIPLY", layers.outputs["Alpha"], 0).outputs[0], masks.inputs[0])


def no_camera(folder):
    scene, _ = start()
    bpy.data.objects.remove(scene.camera)


def missing_texture(folder):
    _, cube = start()
    path = os.path.join(folder, "wood.png")
    png(path, 120, 70, 20)
    image_node(cube, path).image.filepath = "//wood.png"


def missing_library(folder):
    start()
    path = os.path.join(folder, "tree.blend")
    sphere = bpy.data.meshes.new("Leaf")
    linked = bpy.data.objects.new("Leaf", sphere)
    bpy.data.libraries.write(path, {linked})
    bpy.data.objects.remove(linked)
    with bpy.data.libraries.load(path, link=True) as (_, there):
        there.objects = ["Leaf"]
    bpy.context.scene.collection.objects.link(bpy.data.objects["Leaf"])
    for library in bpy.data.libraries:
        library.filepath = "//tree.blend"


def rigid_body(folder):
    scene, cube = start()
    bpy.ops.rigidbody.world_add()
    bpy.context.view_layer.objects.active = cube
    cube.animation_data_clear()
    bpy.ops.rigidbody.object_add()


def waves(folder):
    """Dynamic paint on a floor with a texture; its cache lies beside the file."""
    _, cube = start(samples=1)
    cube.animation_data_clear()
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=20, y_subdivisions=20, size=4, location=(0, 0, 1))
    floor = bpy.context.object
    path = os.path.join(folder, "sea.png")
    png(path, 40, 90, 200)
    image_node(floor, path).image.filepath = "//sea.png"
    canvas = floor.modifiers.new("Canvas", "DYNAMIC_PAINT")
    bpy.ops.dpaint.type_toggle(type="CANVAS")
    surface = canvas.canvas_settings.canvas_surfaces[0]
    surface.surface_type, surface.frame_end, surface.point_cache.frame_end = "WAVE", 8, 8
    cube.modifiers.new("Brush", "DYNAMIC_PAINT")
    bpy.context.view_layer.objects.active = cube
    bpy.ops.dpaint.type_toggle(type="BRUSH")
    for frame, place in ((1, -1.5), (8, 1.5)):
        cube.location.x = place
        cube.keyframe_insert("location", frame=frame)


def endless_cloth(folder):
    """Takes minutes to bake."""
    start(samples=1)
    bpy.ops.mesh.primitive_grid_add(x_subdivisions=150, y_subdivisions=150, size=3, location=(0, 0, 2))
    modifier = bpy.context.object.modifiers.new("Cloth", "CLOTH")
    modifier.settings.quality = 20
    modifier.point_cache.frame_end = 1000


def linked_cloth(folder):
    """What moves is in a library, and nobody has baked it there."""
    scene, _ = start()
    bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, "linked_cloth.blend"))
    library = os.path.join(os.path.dirname(folder), "endless_cloth", "endless_cloth.blend")
    with bpy.data.libraries.load(library, link=True, relative=True) as (_, linked):
        linked.objects = ["Grid"]
    scene.collection.objects.link(linked.objects[0])


def video(folder):
    scene, _ = start()
    if NEW:
        scene.render.image_settings.media_type = "VIDEO"
    scene.render.image_settings.file_format = "FFMPEG"
    scene.render.filepath = "//video/shot.mp4"


def multilayer(folder):
    scene, _ = start()
    if NEW:
        scene.render.image_settings.media_type = "MULTI_LAYER_IMAGE"
    scene.render.image_settings.file_format = "OPEN_EXR_MULTILAYER"


def denoise(folder):
    scene, _ = start()
    scene.cycles.use_denoising = True


def foreign_engine(folder):
    scene, _ = start()

    class Foreign(bpy.types.RenderEngine):
        bl_idname, bl_label = "FOREIGN", "Foreign"

    bpy.utils.register_class(Foreign)
    scene.render.engine = "FOREIGN"


def absolute(folder):
    scene, _ = start()
    scene.render.filepath = "/elsewhere/deep/abs_"


def gray(folder):
    scene, _ = start()
    scene.render.image_settings.color_mode = "BW"


def old_formats(folder):
    """The formats of cinema and of older machines: the picture as a DPX, and a File Output node that writes each."""
    scene, _ = start()
    settings = scene.render.image_settings
    settings.file_format, settings.color_mode, settings.color_depth = "DPX", "RGB", "10"
    settings.use_cineon_log = True
    tree, layers = compositor(scene)
    node = tree.nodes.new("CompositorNodeOutputFile")
    node.base_path = "//frames/"
    node.file_slots.clear()
    for name, kind, depth in (
        ("cineon_", "CINEON", "10"), ("iris_", "IRIS", "8"), ("dpx_", "DPX", "16"), ("jp2_", "JPEG2000", "12"),
        ("j2c_", "JPEG2000", "16"), ("cinema_", "JPEG2000", "8"),
    ):
        node.file_slots.new(name)
        slot = node.file_slots[-1]
        slot.use_node_format = False
        slot.format.file_format, slot.format.color_depth = kind, depth
        if name == "j2c_":
            slot.format.jpeg2k_codec = "J2K"
        slot.format.use_jpeg2k_cinema_preset = name == "cinema_"
        tree.links.new(layers.outputs["Image"], node.inputs[-1])


def frame_range(folder):
    """Everything that can see a scene's frame range: stamps, drivers, Grease Pencil's Time Offset, handlers. The
    handlers print what they see."""
    scene, cube = start(samples=1)
    scene.frame_start, scene.frame_end, scene.frame_step = 1, 120, 2
    render = scene.render
    render.resolution_x = render.resolution_y = 96
    # Remapped time, and markers that choose the camera.
    render.frame_map_old, render.frame_map_new = 100, 150
    second = bpy.data.objects.new("Second", scene.camera.data)
    second.matrix_world = scene.camera.matrix_world.copy()
    second.location.x += 0.5
    scene.collection.objects.link(second)
    for frame, camera in ((-9, second), (0, scene.camera), (9, second)):
        scene.timeline_markers.new(f"at {frame}", frame=frame).camera = camera
    render.use_stamp, render.stamp_font_size = True, 12
    for field in dir(render):
        if field.startswith("use_stamp_"):
            setattr(render, field, field in ("use_stamp_frame", "use_stamp_frame_range", "use_stamp_note"))

    other = bpy.data.scenes.new("Other")
    other.frame_start, other.frame_end = 3, 50
    driven(cube, "location", 2, scene, "0.5 + a / 100", "frame_end")
    driven(cube, "location", 0, other, "(b - a) / 50 - frame / 20", "frame_start", "frame_end")
    # A driver that fails once is disabled for good.
    driven(cube, "scale", 2, scene, "1 + 60 / (b - a) * frame / 20", "frame_start", "frame_end")

    # Kiln evaluates the scene to know which picture this shows.
    os.makedirs(os.path.join(folder, "seq"))
    for frame in range(1, 9):
        png(os.path.join(folder, "seq", f"tile_{frame:03}.png"), 255 - 20 * frame, 200, 90)
    node = image_node(cube, os.path.join(folder, "seq", "tile_001.png"))
    node.image.source, node.image.filepath = "SEQUENCE", "//seq/tile_001.png"
    user = node.image_user
    user.frame_duration, user.use_cyclic, user.use_auto_refresh = 8, True, True
    driven(node.id_data, f'nodes["{node.name}"].image_user.frame_offset', -1, scene, "a / 40 + frame / 5", "frame_end")

    material = bpy.data.materials.new("Ink")
    bpy.data.materials.create_gpencil_data(material)
    material.grease_pencil.color = (1, 0, 0, 1)
    # Blender 4.3 has another Grease Pencil, and the old one's name for annotations.
    is_old = bpy.app.version < (4, 3)
    pencils = bpy.data.grease_pencils if is_old or bpy.app.version >= (5,) else bpy.data.grease_pencils_v3
    pencil = pencils.new("Pencil")
    pencil.materials.append(material)
    layer = pencil.layers.new("Layer")
    for frame in (1, 30, 100, 120):
        if is_old:
            stroke = layer.frames.new(frame).strokes.new()
            stroke.line_width = 60
            stroke.points.add(2)
        else:
            drawing = layer.frames.new(frame).drawing
            drawing.add_strokes([2])
            stroke = drawing.strokes[0]
        for point, x in zip(stroke.points, (-2, 2)):
            at = (x, 0, frame / 60)
            if is_old:
                point.co, point.pressure, point.strength = at, 1, 1
            else:
                point.position, point.radius, point.opacity = at, 0.03, 1
    drawn = bpy.data.objects.new("Drawn", pencil)
    modifiers, kind = (
        (drawn.grease_pencil_modifiers, "GP_TIME") if is_old else (drawn.modifiers, "GREASE_PENCIL_TIME")
    )
    modifiers.new("Time", kind).offset = -15
    scene.collection.objects.link(drawn)

    text = bpy.data.texts.new("look.py")
    text.write(
        "import bpy\n"
        "def look(kind):\n"
        "    def handler(*_):\n"
        "        shot, other = bpy.data.scenes['Scene'], bpy.data.scenes['Other']\n"
        "        first, last = shot.frame_start, shot.frame_end\n"
        "        shot.objects['Cube'].scale.y = 1 + 30 / (last - first)\n"
        "        shot.render.stamp_note_text = f'{first} to {last} by {shot.frame_step}'\n"
        "        print(f'saw {kind} at {shot.frame_current}: {first} to {last}, {other.frame_end}', flush=True)\n"
        "    return handler\n"
        "for kind in dir(bpy.app.handlers):\n"
        "    if kind.startswith(('render_', 'frame_', 'depsgraph_')) and kind != 'render_stats':\n"
        "        getattr(bpy.app.handlers, kind).append(look(kind))\n"
        "def longer(scene, *_):\n"
        "    if scene.frame_current == 5:\n"
        "        scene.frame_start, scene.frame_end = 2, 300\n"
        "bpy.app.handlers.render_write.append(longer)\n"
    )
    text.use_module = True


def variants(folder):
    """Two scenes of the same objects, each with several cameras and view layers."""
    day, cube = start()
    day.name, day.camera.name = "Day", "Near"
    day.view_layers[0].name = "Beauty"
    day.view_layers.new("Cube alone")
    day.view_layers["Cube alone"].use_sky = False
    far = bpy.data.objects.new("Far", day.camera.data)
    far.matrix_world = day.camera.matrix_world.copy()
    far.location = (9, -9, 7)
    day.collection.objects.link(far)
    night = bpy.data.scenes.new("Night")
    for name in ("engine", "resolution_x", "resolution_y", "filepath"):
        setattr(night.render, name, getattr(day.render, name))
    for name in ("samples", "use_denoising", "use_adaptive_sampling"):
        setattr(night.cycles, name, getattr(day.cycles, name))
    night.frame_start, night.frame_end = day.frame_start, day.frame_end
    night.world = bpy.data.worlds.new("Dark")
    night.camera = day.camera
    for thing in day.collection.objects:
        if thing.name != far.name:
            night.collection.objects.link(thing)
    lamp = bpy.data.objects.new("Moon", bpy.data.lights.new("Moon", "SUN"))
    night.collection.objects.link(lamp)
    lamp.rotation_euler, lamp.data.energy, lamp.data.color = (0.2, -0.9, 0), 4, (0.2, 0.3, 1)
    inside = bpy.data.collections.new("Rig")
    night.collection.children.link(inside)
    above = bpy.data.objects.new("Above: 1/2", day.camera.data)
    above.location, above.rotation_euler = (0, 0, 9), (0, 0, 0.4)
    inside.objects.link(above)


SCENES = (
    basic, particles, image_sequence, drivers, python_driver, script, talks, script_error, motion_blur, stereo,
    dotted_stereo, side_by_side, file_outputs, data_outputs, scaled_output, suspicious, no_camera, missing_texture,
    missing_library, rigid_body, waves, endless_cloth, linked_cloth, video, multilayer,
    denoise, foreign_engine, absolute, gray, old_formats, frame_range, moved_output, stamped, variants,
)
# Removed once the scene is saved.
GONE = {"missing_texture": "wood.png", "missing_library": "tree.blend"}


def main():
    target = sys.argv[sys.argv.index("--") + 1]
    for build in SCENES:
        folder = os.path.join(target, build.__name__)
        os.makedirs(folder)
        build(folder)
        bpy.ops.wm.save_as_mainfile(filepath=os.path.join(folder, build.__name__ + ".blend"), relative_remap=False)
        if build.__name__ in GONE:
            os.remove(os.path.join(folder, GONE[build.__name__]))
        print("built", build.__name__, flush=True)
    os._exit(0)


try:
    main()
except BaseException:
    import traceback

    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
