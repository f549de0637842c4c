"""Scripts, engines, the sequencer, files written by the compositor."""

import os

import bpy
from kit import NEW, VERSION, checker, feature, png

# Scripts.


def script(s, name, source):
    text = bpy.data.texts.new(name)
    text.write(source)
    text.use_module = True


HANDLERS = {
    "frame_change_pre": "scene.objects['Subject'].rotation_euler.z = scene.frame_current / 5",
    "frame_change_post": "scene.objects['Subject'].location.x = scene.frame_current / 8",
    "render_pre": "scene.objects['Sun'].data.energy = scene.frame_current",
    "render_init": "scene.objects['Sun'].data.energy = scene.frame_current",
    "depsgraph_update_post": "pass",
}
for handler, line in HANDLERS.items():

    @feature(f"Scripts / Handlers: {handler}", handler, line, trust=True)
    def handled(s, handler, line):
        if handler == "render_init":
            # It sees the frame that was saved.
            s.move(s.subject)
        if line == "pass":
            line = "bpy.data.materials['Subject'].node_tree.nodes['Principled BSDF'].inputs[0].default_value[2] = 0.1"
            s.move(s.subject)
        script(
            s, "handler.py",
            f"import bpy\ndef work(scene, *_):\n    {line}\nbpy.app.handlers.{handler}.append(work)\n",
        )


@feature("Scripts / Handlers: an image whose pixels are drawn for each frame", trust=True)
def pixels(s):
    image = bpy.data.images.new("Drawn", 8, 8)
    s.texture(image)
    script(
        s, "draw.py",
        "import bpy\ndef work(scene, *_):\n    image = bpy.data.images['Drawn']\n    f = scene.frame_current\n"
        "    image.pixels = [c for y in range(8) for x in range(8) for c in ((x + f) % 8 / 8, y / 8, f / 10, 1)]\n"
        "    image.update()\nbpy.app.handlers.frame_change_post.append(work)\n",
    )


@feature("Scripts / Handlers: a text body that counts", trust=True)
def counts(s):
    s.without_subject()
    data = bpy.data.curves.new("Count", "FONT")
    data.size = 2
    s.object("Count", data, (-1, 0, 1)).rotation_euler = (1.2, 0, 0.6)
    script(
        s, "count.py",
        "import bpy\ndef work(scene, *_):\n    bpy.data.curves['Count'].body = str(scene.frame_current)\n"
        "bpy.app.handlers.frame_change_pre.append(work)\n",
    )


@feature("Scripts / Handlers: the scene's range is read (divided by)", trust=True)
def divided(s):
    script(
        s, "range.py",
        "import bpy\ndef work(scene, *_):\n    span = scene.frame_end - scene.frame_start\n"
        "    scene.objects['Subject'].location.x = (scene.frame_current - scene.frame_start) / span\n"
        "bpy.app.handlers.frame_change_pre.append(work)\n",
    )


@feature("Scripts / Driver namespace: a function of a registered text", trust=True)
def namespace(s):
    script(
        s, "functions.py",
        "import bpy\ndef swing(frame):\n    return frame * frame / 60\nbpy.app.driver_namespace['swing'] = swing\n",
    )
    s.drive(s.subject, "location", "swing(frame)", index=2)


@feature("Scripts / Drivers: self", trust=True)
def own(s):
    driver = s.drive(s.subject, "location", "self.rotation_euler.z + frame / 9", index=2)
    driver.use_self = True


@feature("Scripts / Registered text: makes an object when the file is opened", trust=True)
def makes(s):
    script(
        s, "make.py",
        "import bpy\nmesh = bpy.data.meshes.new('Made')\n"
        "mesh.from_pydata([(0, -2, 0.2), (2, -2, 0.2), (1, -2, 2)], [], [(0, 1, 2)])\n"
        "made = bpy.data.objects.new('Made', mesh)\nbpy.context.scene.collection.objects.link(made)\n"
        "made.driver_add('location', 0).driver.expression = 'frame / 8'\n",
    )


@feature("Scripts / Registered text: without trust", refuses="--trust")
def untrusted(s):
    script(s, "anything.py", "import bpy\n")
    s.move(s.subject)


@feature("Scripts / Handlers: state that is kept between frames (a counter)", trust=True, expect="still")
def counter(s):
    script(
        s, "state.py",
        "import bpy\nseen = []\ndef work(scene, *_):\n    seen.append(scene.frame_current)\n"
        "    scene.objects['Subject'].location.x = scene.frame_current / 10\n"
        "bpy.app.handlers.frame_change_post.append(work)\n",
    )


# Engines.

EEVEE = "BLENDER_EEVEE" if VERSION < (4, 2, 0) or NEW else "BLENDER_EEVEE_NEXT"


def engine(s, name):
    s.scene.render.engine = name
    if name != "BLENDER_WORKBENCH":
        s.scene.eevee.taa_render_samples = 2


@feature("Engines / EEVEE: an object that moves and a colour that is keyed")
def eevee(s):
    engine(s, EEVEE)
    s.move(s.subject)
    s.key(s.shader.inputs["Base Color"], "default_value", [(1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)])


@feature("Engines / EEVEE: image sequence, Auto Refresh off")
def eevee_sequence(s):
    engine(s, EEVEE)
    node = s.texture(s.sequence(s.outside("textures", "t_%04d.png")))
    node.image_user.frame_duration = 10


@feature("Engines / EEVEE: motion blur")
def eevee_blur(s):
    engine(s, EEVEE)
    s.scene.render.use_motion_blur = True
    s.move(s.subject)


@feature("Engines / Workbench: an object that moves")
def workbench_moves(s):
    engine(s, "BLENDER_WORKBENCH")
    s.move(s.subject)


# The sequencer.


def strips(s):
    editor = s.scene.sequence_editor_create()
    return editor.strips if hasattr(editor, "strips") else editor.sequences


def ends(strip, start, end):
    strip.frame_final_start, strip.frame_final_end = start, end
    return strip


def effect(s, kind, channel=5, start=1, end=11, **inputs):
    """Adds an effect; the names of its arguments changed in 4.5 and 5.0."""
    keyword = {"length": end - start} if NEW else {"frame_end": end}
    late = VERSION >= (4, 5, 0)
    names = {"one": "input1" if late else "seq1", "two": "input2" if late else "seq2"}
    chosen = {names[key]: value for key, value in inputs.items() if value is not None}
    return strips(s).new_effect(kind.lower(), kind, channel, start, **keyword, **chosen)


def color(s, channel=1, value=(0.8, 0.2, 0.1), start=1, end=11):
    made = effect(s, "COLOR", channel, start, end)
    made.color = value
    return made


def image_strip(s, channel=2, count=10, place="outside"):
    folder = s.outside if place == "outside" else s.file
    paths = s.pictures(folder("cut", "c_%04d.png"), count)
    made = strips(s).new_image("pictures", paths[0], channel, 1, fit_method="STRETCH")
    for path in paths[1:]:
        made.elements.append(os.path.basename(path))
    return made


@feature("Sequencer / Strips: colour keyed")
def strip_color(s):
    s.key(color(s), "color", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])


for place in ("outside", "file"):

    @feature(f"Sequencer / Strips: images, {'outside of the project' if place == 'outside' else 'in the project'}", place)
    def strip_images(s, place):
        image_strip(s, place=place)


@feature("Sequencer / Strips: a movie")
def strip_movie(s):
    path = s.movie(s.outside("cut", "m.mp4"))
    strips(s).new_movie("movie", path, 1, 1, fit_method="STRETCH")


@feature("Sequencer / Strips: this scene, blended with pictures")
def strip_scene(s):
    s.move(s.subject)
    other = bpy.data.scenes.new("Edit")
    render = other.render
    render.resolution_x, render.resolution_y = 48, 36
    render.filepath = s.scene.render.filepath
    render.engine = "CYCLES"
    other.cycles.use_denoising = False
    other.frame_start, other.frame_end = 1, 10
    other.view_settings.view_transform = "Standard"
    other.camera = s.camera
    three = s.scene
    s.scene = other
    ends(strips(s).new_scene("3D", three, 1, 1), 1, 11)
    image_strip(s).blend_alpha = 0.4
    bpy.context.window.scene = other


@feature("Sequencer / Strips: text, size keyed")
def strip_text(s):
    color(s, value=(0.1, 0.1, 0.1))
    made = effect(s, "TEXT", 2)
    made.text = "KILN"
    s.key(made, "font_size", [8.0, 14.0, 22.0])


@feature("Sequencer / Strips: adjustment layer with a keyed modifier")
def strip_adjustment(s):
    if NEW:
        s.absent("Blender ends where a script adds a modifier to a strip without a window")
    image_strip(s, 1)
    made = effect(s, "ADJUSTMENT", 2)
    modifier = made.modifiers.new("Bright", "BRIGHT_CONTRAST")
    s.key(modifier, "bright", [0.0, 20.0, 50.0])


@feature("Sequencer / Strips: movie clip")
def strip_clip(s):
    clip = bpy.data.movieclips.load(s.movie(s.outside("cut", "m.mp4")))
    strips(s).new_clip("clip", clip, 1, 1)


@feature("Sequencer / Strips: mask, its points keyed")
def strip_mask(s):
    mask = bpy.data.masks.new("Mask")
    layer = mask.layers.new(name="Layer")
    line = layer.splines.new()
    line.points.add(3)
    for point, place in zip(line.points, ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8))):
        point.co = place
        point.handle_left_type = point.handle_right_type = "VECTOR"
        point.handle_left = point.handle_right = place
    line.use_cyclic = True
    s.key(layer, "alpha", [0.3, 0.6, 1.0])
    strips(s).new_mask("mask", mask, 1, 1)


EFFECTS = (
    "CROSS", "GAMMA_CROSS", "ADD", "SUBTRACT", "MULTIPLY", "ALPHA_OVER", "ALPHA_UNDER", "WIPE", "GLOW", "GAUSSIAN_BLUR", "SPEED",
    "TRANSFORM", "COLORMIX",
)
for kind in EFFECTS:

    @feature(f"Sequencer / Effects: {kind.lower().replace('_', ' ')}", kind)
    def effects(s, kind):
        one = image_strip(s, 1)
        two = None if kind in ("GLOW", "GAUSSIAN_BLUR", "SPEED", "TRANSFORM") else color(s, 2, (0.1, 0.7, 0.3))
        if kind == "ALPHA_UNDER":
            one, two = two, one
        try:
            made = effect(s, kind, 3, one=one, two=two)
        except TypeError as error:
            s.absent(f"not in this version: {error}")
        if two:
            two.blend_alpha = 0.5
        if kind == "ALPHA_UNDER":
            # Opaque, it would hide the other.
            one.blend_alpha, two.blend_alpha = 0.5, 1
        if kind == "GAUSSIAN_BLUR":
            s.key(made, "size_x", [0.0, 4.0, 9.0])
        if kind == "SPEED":
            made.speed_control, made.speed_factor = "MULTIPLY", 1.5


for blend in ("ADD", "SCREEN", "OVERLAY", "DIFFERENCE", "MULTIPLY", "ALPHA_OVER"):

    @feature(f"Sequencer / Blending: {blend.lower().replace('_', ' ')}, opacity keyed", blend)
    def blending(s, blend):
        image_strip(s, 1)
        made = color(s, 2, (0.3, 0.6, 0.2))
        made.blend_type = blend
        s.key(made, "blend_alpha", [0.1, 0.5, 1.0])


@feature("Sequencer / Strips: transform and crop keyed")
def transformed(s):
    made = image_strip(s)
    s.key(made.transform, "offset_x", [0.0, 10.0, -10.0])
    s.key(made.transform, "rotation", [0.0, 0.4, 0.9])
    s.key(made.crop, "max_x", [0, 2, 4])


MODIFIERS = (
    ("BRIGHT_CONTRAST", "contrast", [0.0, 30.0, 80.0]), ("COLOR_BALANCE", "color_multiply", [0.5, 1.0, 2.0]),
    ("CURVES", None, None), ("HUE_CORRECT", None, None), ("WHITE_BALANCE", None, None), ("TONEMAP", "key", [0.1, 0.4, 0.9]),
)
for kind, path, values in MODIFIERS:

    @feature(f"Sequencer / Modifiers: {kind.lower().replace('_', ' ')}", kind, path, values)
    def strip_modifier(s, kind, path, values):
        if NEW:
            s.absent("Blender ends where a script adds a modifier to a strip without a window")
        modifier = image_strip(s).modifiers.new(kind, kind)
        if path:
            s.key(modifier, path, values)


@feature("Sequencer / Meta strip: two strips in one")
def meta(s):
    made = strips(s).new_meta("meta", 1, 1) if hasattr(strips(s), "new_meta") else s.absent("not in this version")
    inside = made.strips if hasattr(made, "strips") else made.sequences
    for channel, start in ((1, 1), (2, 7)):
        last = {"length": 11 - start} if NEW else {"frame_end": 11}
        strip = inside.new_effect(f"color {channel}", "COLOR", channel, start, **last)
        strip.color = (0.1, 0.7, 0.3)
        if channel == 1:
            s.key(strip, "color", [(1, 0, 0), (0, 0, 1), (1, 1, 0)])
    made.frame_final_end = 11


@feature("Sequencer / Multicam: the camera is keyed")
def multicam(s):
    image_strip(s, 1)
    color(s, 2)
    made = effect(s, "MULTICAM", 3)
    s.key(made, "multicam_source", [1, 2, 1])


@feature("Sequencer / A strip that is muted, and one that ends")
def muted(s):
    image_strip(s, 1)
    color(s, 2).mute = True
    color(s, 3, (0, 0, 1), 4, 7)


@feature("Sequencer / Sound: a strip of sound beside the pictures")
def sound(s):
    import struct
    import wave

    path = s.outside("cut", "tone.wav")
    with wave.open(path, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(b"".join(struct.pack("<h", index * 37 % 9000) for index in range(8000)))
    try:
        strips(s).new_sound("tone", path, 2, 1)
    except RuntimeError as error:
        s.absent(f"this build has no sound: {error}")
    image_strip(s, 1)


@feature("Sequencer / Images with a gap", refuses="missing")
def strip_gap(s):
    image_strip(s)
    os.remove(s.outside("cut", "c_0005.png"))


# Files that the compositor writes.


def file_output(s, base, names, kind="PNG"):
    tree, layers, result = s.compositor()
    tree.links.new(layers.outputs["Image"], result)
    node = tree.nodes.new("CompositorNodeOutputFile")
    if NEW:
        node.directory, node.file_name = base, ""
        node.format.media_type = "MULTI_LAYER_IMAGE" if kind.endswith("LAYER") else "IMAGE"
        node.format.file_format = kind
        for name in names:
            node.file_output_items.new("RGBA", name)
    else:
        node.base_path, node.format.file_format = base, kind
        if kind.endswith("LAYER"):
            node.layer_slots.clear()
            for name in names:
                node.layer_slots.new(name)
        else:
            node.file_slots.clear()
            for name in names:
                node.file_slots.new(name)
    return tree, layers, node


@feature("Compositor / File Output: two files in folders of their own")
def outputs(s):
    tree, layers, node = file_output(s, "//passes/", ("beauty_", "sub/alpha_"))
    tree.links.new(layers.outputs["Image"], node.inputs[0])
    tree.links.new(layers.outputs["Alpha"], node.inputs[1])
    s.move(s.subject)


@feature("Compositor / File Output: a multilayer EXR")
def outputs_layers(s):
    base = "//passes/" if NEW else "//passes/all_"
    tree, layers, node = file_output(s, base, ("beauty", "mask"), "OPEN_EXR_MULTILAYER")
    if NEW:
        node.file_name = "all_"
    tree.links.new(layers.outputs["Image"], node.inputs[0])
    tree.links.new(layers.outputs["Alpha"], node.inputs[1])
    s.move(s.subject)


@feature("Compositor / File Output: a depth pass as EXR beside PNGs")
def outputs_depth(s):
    bpy.context.view_layer.use_pass_z = True
    tree, layers, node = file_output(s, "//depth/", ("z_",), "OPEN_EXR")
    tree.links.new(layers.outputs["Depth"], node.inputs[0])
    s.move(s.subject)


@feature("Compositor / File Output: views of a stereo scene")
def outputs_stereo(s):
    s.scene.render.use_multiview = True
    tree, layers, node = file_output(s, "//passes/", ("eye_",))
    tree.links.new(layers.outputs["Image"], node.inputs[0])
    s.move(s.subject)


def over(tree, below, above, result):
    """Half of one picture over another; the sockets changed their places in 5.0."""
    node = tree.nodes.new("CompositorNodeAlphaOver")
    if NEW:
        back, front, factor = (node.inputs[name] for name in ("Background", "Foreground", "Factor"))
    else:
        factor, back, front = node.inputs[0], node.inputs[1], node.inputs[2]
    factor.default_value = 0.5
    tree.links.new(below, back)
    tree.links.new(above, front)
    tree.links.new(node.outputs[0], result)


@feature("Compositor / Image node: a sequence mixed in, outside of the project")
def image_node(s):
    tree, layers, result = s.compositor()
    node = tree.nodes.new("CompositorNodeImage")
    for frame in range(1, 11):
        png(s.outside("plates", f"p_{frame:04}.png"), checker((25 * frame, 200, 90, 255), 48))
    image = bpy.data.images.load(s.outside("plates", "p_0001.png"))
    image.source = "SEQUENCE"
    node.image = image
    node.frame_duration, node.use_auto_refresh = 10, True
    over(tree, layers.outputs["Image"], node.outputs["Image"], result)


@feature("Compositor / Movie clip node")
def clip_node(s):
    tree, layers, result = s.compositor()
    node = tree.nodes.new("CompositorNodeMovieClip")
    node.clip = bpy.data.movieclips.load(s.movie(s.outside("plates", "m.mp4")))
    tree.links.new(node.outputs["Image"], result)


@feature("Compositor / Render layers of a second scene")
def second_scene(s):
    other = bpy.data.scenes.new("Second")
    other.render.engine = "CYCLES"
    other.cycles.samples, other.cycles.use_denoising = 1, False
    other.render.resolution_x, other.render.resolution_y = 48, 36
    other.camera = s.camera
    for made in (s.subject, s.box("Only there", 0.8, (-1, 0, 2.5))):
        other.collection.objects.link(made)
    s.move(s.subject)
    other.collection.objects.link(s.sun)
    tree, layers, result = s.compositor()
    second = tree.nodes.new("CompositorNodeRLayers")
    second.scene = other
    over(tree, layers.outputs["Image"], second.outputs["Image"], result)
