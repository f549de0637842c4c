"""Compositing: nodes of the compositor, each with one value that is keyed."""

import bpy
from kit import NEW, feature


def add(s, tree, *kinds, **values):
    """A new node: the first of the kinds that this Blender has."""
    for kind in kinds:
        try:
            node = tree.nodes.new(kind)
        except RuntimeError:
            continue
        for name, value in values.items():
            setattr(node, name, value)
        return node
    return s.absent("not in this version")


def socket(s, node, *names):
    for name in names:
        for one in node.inputs:
            if one.name == name and one.enabled:
                return one
    return None


def keyed(s, node, settings, sockets, values):
    """Keys a value that is a socket in newer versions and a setting of the node in older ones."""
    found = socket(s, node, *sockets)
    if found is not None and not (found.name in ("Image", "Color") and settings):
        if isinstance(values[0], tuple):
            values = [value[0] if found.type == "VALUE" else (*value, 1) for value in values]
        return s.key(found, "default_value", values)
    for setting in settings:
        if hasattr(node, setting):
            return s.key(node, setting, values)
    return s.absent("not in this version")


# (node by its names, settings of older versions, sockets, values, fixed settings)
NODES = (
    (("AlphaOver",), (), ("Fac", "Factor"), (0.2, 0.5, 0.9), {}),
    (("BrightContrast",), (), ("Bright", "Brightness"), (-0.2, 0.1, 0.4), {}),
    (("BrightContrast",), (), ("Contrast",), (-0.3, 0.2, 0.8), {}),
    (("ColorBalance",), ("lift",), ("Lift", "Color Lift"), ((0.9, 0.9, 0.9), (1, 0.8, 0.8), (1.2, 1, 1)), {}),
    (("ColorCorrection",), ("master_gain",), ("Gain", "Master Gain"), (0.5, 1.2, 2.0), {}),
    (("Exposure",), (), ("Exposure",), (-1.0, 0.3, 1.2), {}),
    (("Gamma", ), (), ("Gamma",), (0.5, 1.2, 2.5), {}),
    (("HueSat",), (), ("Hue",), (0.2, 0.6, 0.9), {}),
    (("HueSat",), (), ("Saturation",), (0.2, 0.7, 1.7), {}),
    (("Invert",), (), ("Fac", "Factor"), (0.2, 0.6, 1.0), {}),
    (("Tonemap",), ("gamma",), ("Gamma",), (0.5, 1.0, 2.5), {"tonemap_type": "RH_SIMPLE"}),
    (("Posterize",), (), ("Steps",), (3, 6, 12), {}),
    (("ValToRGB",), (), ("Fac",), (0.1, 0.5, 0.9), {}),
    (("Blur",), ("size_x",), ("Size X",), (2, 5, 9), {"size_y": 3}),
    (("BilateralBlur", "Bilateralblur"), ("iterations",), ("Iterations",), (1, 2, 4), {}),
    (("BokehBlur",), (), ("Size",), (1.0, 3.0, 6.0), {}),
    (("DBlur",), ("zoom",), (), (0.1, 0.4, 0.9), {"iterations": 3}),
    (("Dilateerode", "DilateErode"), ("distance",), (), (1, 3, 6), {}),
    (("Filter",), (), ("Fac", "Factor"), (0.2, 0.6, 1.0), {"filter_type": "SOBEL"}),
    (("Glare",), ("threshold",), ("Threshold",), (0.1, 0.3, 0.8), {}),
    (("Glare",), ("mix",), ("Strength",), (0.3, 0.6, 0.95), {"threshold": 0.1}),
    (("Inpaint",), ("distance",), (), (1, 3, 6), {}),
    (("Pixelate",), ("pixel_size",), ("Size",), (2, 4, 8), {}),
    (("Sunbeams",), ("ray_length",), ("Length",), (0.1, 0.3, 0.6), {}),
    (("Despeckle",), (), ("Fac", "Factor"), (0.1, 0.5, 1.0), {}),
    (("AntiAliasing",), ("threshold",), ("Threshold",), (0.0, 0.3, 1.0), {}),
    (("Kuwahara",), ("size",), ("Size",), (1, 3, 5), {}),
    (("Crop",), ("rel_min_x", ), (), (0.0, 0.2, 0.4), {"relative": True, "use_crop_size": False, "rel_max_x": 1.0, "rel_min_y": 1.0, "rel_max_y": 0.0}),
    (("Flip",), ("axis",), (), ("X", "Y", "XY"), {}),
    (("Lensdist",), (), ("Distortion", "Distort"), (0.1, 0.4, 0.9), {}),
    (("Lensdist",), (), ("Dispersion",), (0.1, 0.4, 0.9), {}),
    (("Rotate",), (), ("Degr", "Angle"), (0.1, 0.5, 1.1), {}),
    (("Scale",), (), ("X",), (0.6, 0.8, 1.3), {}),
    (("Transform",), (), ("X",), (2, 5, 9), {}),
    (("Translate",), (), ("X",), (2, 5, 9), {}),
    (("Displace",), (), ("X Scale",), (2, 5, 9), {}),
    (("ColorSpill",), ("ratio",), ("Limit Strength",), (0.2, 0.8, 1.5), {}),
    (("LumaMatte",), ("limit_max",), ("Maximum",), (0.9, 0.6, 0.4), {}),
    (("DistanceMatte",), ("tolerance",), ("Tolerance",), (0.1, 0.4, 0.8), {}),
    (("DiffMatte",), ("tolerance",), ("Tolerance",), (0.05, 0.3, 0.6), {}),
    (("SetAlpha",), (), ("Alpha",), (0.2, 0.5, 0.9), {"mode": "APPLY"}),
    (("Premulkey", "PremulKey"), ("mapping",), (), ("STRAIGHT_TO_PREMUL", "PREMUL_TO_STRAIGHT", "STRAIGHT_TO_PREMUL"), {}),
)
def known(names):
    return ["CompositorNode" + name for name in names]


for row in NODES:
    shown = (row[1] or row[2])[0].lower().replace("_", " ")
    if row[0][0] not in ("ValToRGB", "Flip", "Inpaint", "AntiAliasing", "Premulkey", "DiffMatte"):

        @feature(f"Compositing / Nodes / {row[0][0]}: {shown} keyed", *row)
        def node(s, names, settings, sockets, values, fixed):
            tree, layers, result = s.compositor()
            added = add(s, tree, *known(names))
            for name, value in fixed.items():
                if hasattr(added, name):
                    setattr(added, name, value)
            s.key(s.subject, "location", (0.9, 1.0, 1.1), index=2)
            picture = next((one for one in added.inputs if one.type == "RGBA"), added.inputs[0])
            if names[0] == "AlphaOver":
                picture = [one for one in added.inputs if one.type == "RGBA"][-1]
                s.scene.render.film_transparent = True
            if names[0] == "Dilateerode":
                s.scene.render.film_transparent = True
                s.floor.hide_render = True
                tree.links.new(layers.outputs["Alpha"], added.inputs[0])
            else:
                tree.links.new(layers.outputs["Image"], picture)
            keyed(s, added, settings, sockets, values)
            tree.links.new(added.outputs[0], result)


@feature("Compositing / Nodes / Mix: colours with a keyed factor")
def mix(s):
    tree, layers, result = s.compositor()
    node = add(s, tree, "CompositorNodeMixRGB", "ShaderNodeMix")
    if hasattr(node, "data_type"):
        node.data_type = "RGBA"
    colors = [one for one in node.inputs if one.type == "RGBA" and one.enabled]
    factor = next(one for one in node.inputs if one.type == "VALUE" and one.enabled)
    tree.links.new(layers.outputs["Image"], colors[0])
    colors[1].default_value = (0, 0.2, 0.9, 1)
    s.key(factor, "default_value", (0.2, 0.5, 0.9))
    tree.links.new(next(one for one in node.outputs if one.type == "RGBA" and one.enabled), result)


@feature("Compositing / Nodes / Curves: through a keyed factor")
def curves(s):
    tree, layers, result = s.compositor()
    node = add(s, tree, "CompositorNodeCurveRGB")
    node.mapping.curves[3].points.new(0.4, 0.9)
    tree.links.new(layers.outputs["Image"], node.inputs["Image"])
    s.key(socket(s, node, "Fac", "Factor"), "default_value", (0.2, 0.6, 1.0))
    tree.links.new(node.outputs[0], result)


@feature("Compositing / Nodes / Separate and combine colours: one channel keyed")
def channels(s):
    tree, layers, result = s.compositor()
    apart = add(s, tree, "CompositorNodeSeparateColor", "CompositorNodeSepRGBA")
    together = add(s, tree, "CompositorNodeCombineColor", "CompositorNodeCombRGBA")
    tree.links.new(layers.outputs["Image"], apart.inputs[0])
    tree.links.new(apart.outputs[0], together.inputs[1])
    tree.links.new(apart.outputs[1], together.inputs[2])
    s.key(together.inputs[0], "default_value", (0.1, 0.5, 0.9))
    tree.links.new(together.outputs[0], result)


@feature("Compositing / Nodes / Time: by the frame")
def time(s):
    tree, layers, result = s.compositor()
    node = add(s, tree, "CompositorNodeTime")
    if hasattr(node, "frame_end"):
        node.frame_start, node.frame_end = 1, 10
    else:
        node.inputs["Start Frame"].default_value, node.inputs["End Frame"].default_value = 1, 10
    blend = add(s, tree, "CompositorNodeExposure")
    tree.links.new(layers.outputs["Image"], blend.inputs[0])
    tree.links.new(node.outputs[0], blend.inputs[1])
    tree.links.new(blend.outputs[0], result)


@feature("Compositing / Nodes / Scene time: by the frame", since=(3, 1))
def scene_time(s):
    tree, layers, result = s.compositor()
    node, blend = add(s, tree, "CompositorNodeSceneTime"), add(s, tree, "CompositorNodeExposure")
    tree.links.new(layers.outputs["Image"], blend.inputs[0])
    tree.links.new(node.outputs[0], blend.inputs[1])
    tree.links.new(blend.outputs[0], result)


for shape in ("Box", "Ellipse"):

    @feature(f"Compositing / Nodes / {shape} mask: moves", shape)
    def mask(s, shape):
        tree, layers, result = s.compositor()
        node = add(s, tree, f"CompositorNode{shape}Mask")
        if socket(s, node, "Position"):
            s.key(socket(s, node, "Position"), "default_value", ((0.3, 0.3), (0.5, 0.5), (0.7, 0.4)))
        else:
            s.key(node, "x", (0.3, 0.5, 0.7))
        alpha = add(s, tree, "CompositorNodeSetAlpha", "ShaderNodeMix")
        tree.links.new(layers.outputs["Image"], alpha.inputs[0])
        tree.links.new(node.outputs[0], alpha.inputs[1])
        tree.links.new(alpha.outputs[0], result)


@feature("Compositing / Nodes / Image: a sequence")
def sequence(s):
    tree, layers, result = s.compositor()
    node = add(s, tree, "CompositorNodeImage")
    node.image = s.sequence(s.file("textures", "c_%04d.png"))
    node.frame_duration, node.frame_start = 10, 1
    over = add(s, tree, "CompositorNodeAlphaOver")
    pictures = [one for one in over.inputs if one.type == "RGBA"]
    tree.links.new(layers.outputs["Image"], pictures[0])
    tree.links.new(node.outputs[0], pictures[1])
    tree.links.new(over.outputs[0], result)


@feature("Compositing / Nodes / Image: a movie")
def movie(s):
    path = s.movie(s.file("textures", "c.mp4"))
    image = bpy.data.images.load(path)
    image.source, image.filepath = "MOVIE", s.relative(path)
    tree, layers, result = s.compositor()
    node = add(s, tree, "CompositorNodeImage")
    node.image = image
    node.frame_duration, node.frame_start = 10, 1
    over = add(s, tree, "CompositorNodeAlphaOver")
    pictures = [one for one in over.inputs if one.type == "RGBA"]
    tree.links.new(layers.outputs["Image"], pictures[0])
    tree.links.new(node.outputs[0], pictures[1])
    tree.links.new(over.outputs[0], result)


@feature("Compositing / Nodes / Texture: clouds that are keyed", until=(5, 0))
def texture(s):
    tree, layers, result = s.compositor()
    node = add(s, tree, "CompositorNodeTexture")
    node.texture = bpy.data.textures.new("Clouds", "CLOUDS")
    s.key(node.texture, "noise_scale", (0.1, 0.3, 0.8))
    blend = add(s, tree, "CompositorNodeMixRGB")
    tree.links.new(layers.outputs["Image"], blend.inputs[1])
    tree.links.new(node.outputs[1], blend.inputs[2])
    tree.links.new(blend.outputs[0], result)


@feature("Compositing / Nodes / Depth: normalized")
def depth(s):
    tree, layers, result = s.compositor()
    s.scene.view_layers[0].use_pass_z = True
    node = add(s, tree, "CompositorNodeNormalize")
    tree.links.new(layers.outputs["Depth"], node.inputs[0])
    s.move(s.subject)
    tree.links.new(node.outputs[0], result)


for kind in ("OBJECT", "MATERIAL"):

    @feature(f"Compositing / Nodes / ID mask: {kind.lower()} index", kind)
    def id_mask(s, kind):
        tree, layers, result = s.compositor()
        layer = s.scene.view_layers[0]
        if kind == "OBJECT":
            layer.use_pass_object_index, s.subject.pass_index = True, 3
        else:
            layer.use_pass_material_index, s.subject.data.materials[0].pass_index = True, 3
        node = add(s, tree, "CompositorNodeIDMask")
        if socket(s, node, "Index"):
            socket(s, node, "Index").default_value = 3
        else:
            node.index = 3
        tree.links.new(layers.outputs["IndexOB" if kind == "OBJECT" else "IndexMA"] if not NEW else layers.outputs[
            "Object Index" if kind == "OBJECT" else "Material Index"], node.inputs[0])
        s.move(s.subject)
        tree.links.new(node.outputs[0], result)


@feature("Compositing / Nodes / Cryptomatte: an object that moves")
def cryptomatte(s):
    tree, layers, result = s.compositor()
    s.scene.view_layers[0].use_pass_cryptomatte_object = True
    node = add(s, tree, "CompositorNodeCryptomatteV2")
    node.scene = s.scene
    node.matte_id = "Subject"
    tree.links.new(layers.outputs["Image"], node.inputs[0])
    s.move(s.subject)
    tree.links.new(node.outputs[0], result)


@feature("Compositing / Nodes / Vector blur: of an object that moves")
def vector_blur(s):
    tree, layers, result = s.compositor()
    s.scene.view_layers[0].use_pass_vector = s.scene.view_layers[0].use_pass_z = True
    node = add(s, tree, "CompositorNodeVecBlur")
    tree.links.new(layers.outputs["Image"], node.inputs["Image"])
    tree.links.new(layers.outputs["Depth"], node.inputs["Z"])
    tree.links.new(layers.outputs["Vector"], node.inputs["Speed"])
    s.move(s.subject)
    tree.links.new(node.outputs[0], result)


@feature("Compositing / Nodes / Defocus: by the depth")
def defocus(s):
    tree, layers, result = s.compositor()
    s.scene.view_layers[0].use_pass_z = True
    node = add(s, tree, "CompositorNodeDefocus", use_zbuffer=True, scene=s.scene)
    s.key(node, "f_stop", (1, 3, 9))
    s.camera.data.dof.focus_distance = 3
    s.key(s.subject, "location", (0.8, 1.2, 1.6), index=2)
    tree.links.new(layers.outputs["Image"], node.inputs["Image"])
    tree.links.new(layers.outputs["Depth"], node.inputs[1])
    tree.links.new(node.outputs[0], result)


@feature("Compositing / Groups: a value inside a group is keyed")
def group(s):
    tree, layers, result = s.compositor()
    inner, first, last = s.group(
        "CompositorNodeTree", "Look", [("Image", "NodeSocketColor")], [("Image", "NodeSocketColor")]
    )
    node = add(s, inner, "CompositorNodeExposure")
    inner.links.new(first.outputs[0], node.inputs[0])
    inner.links.new(node.outputs[0], last.inputs[0])
    s.key(node.inputs[1], "default_value", (-1.0, 0.4, 1.2))
    outer = add(s, tree, "CompositorNodeGroup", node_tree=inner)
    tree.links.new(layers.outputs["Image"], outer.inputs[0])
    tree.links.new(outer.outputs[0], result)


@feature("Compositing / Nodes / Switch: keyed")
def switch(s):
    tree, layers, result = s.compositor()
    node, other = add(s, tree, "CompositorNodeSwitch"), add(s, tree, "CompositorNodeExposure")
    other.inputs[1].default_value = 1.0
    tree.links.new(layers.outputs["Image"], other.inputs[0])
    pictures = [one for one in node.inputs if one.type == "RGBA"]
    tree.links.new(layers.outputs["Image"], pictures[0])
    tree.links.new(other.outputs[0], pictures[1])
    s.key(s.subject, "location", (0.8, 1.2, 1.6), index=2)
    if socket(s, node, "Switch"):
        s.key(socket(s, node, "Switch"), "default_value", (True, False, True))
    else:
        s.key(node, "check", (True, False, True))
    tree.links.new(node.outputs[0], result)


@feature("Compositing / Passes: diffuse and glossy light, put together")
def passes(s):
    tree, layers, result = s.compositor()
    layer = s.scene.view_layers[0]
    layer.use_pass_diffuse_direct = layer.use_pass_glossy_direct = True
    node = add(s, tree, "CompositorNodeMixRGB", "ShaderNodeMix")
    if hasattr(node, "data_type"):
        node.data_type = "RGBA"
    node.blend_type = "ADD"
    factor = next(one for one in node.inputs if one.type == "VALUE" and one.enabled)
    factor.default_value = 1
    colors = [one for one in node.inputs if one.type == "RGBA" and one.enabled]
    names = ("DiffDir", "GlossDir") if not NEW else ("Diffuse Direct", "Glossy Direct")
    for name, one in zip(names, colors):
        tree.links.new(layers.outputs[name], one)
    s.key(s.sun.data, "energy", (1, 4, 9))
    tree.links.new(next(one for one in node.outputs if one.type == "RGBA" and one.enabled), result)


@feature("Compositing / Scenes: another scene's render layers")
def other_scene(s):
    tree, layers, result = s.compositor()
    other = bpy.data.scenes.new("Other")
    other.render.engine = "CYCLES"
    other.cycles.samples, other.cycles.use_denoising = 2, False
    other.world, other.camera = s.world, s.camera
    for one in (s.camera, s.sun):
        other.collection.objects.link(one)
    ball = s.box("Ball", 1.2, (0.5, 0.5, 1.5), (0.1, 0.8, 0.2, 1))
    other.collection.objects.link(ball)
    s.scene.collection.objects.unlink(ball)
    s.move(ball)
    other.render.film_transparent = True
    node = tree.nodes.new("CompositorNodeRLayers")
    node.scene = other
    over = add(s, tree, "CompositorNodeAlphaOver")
    pictures = [one for one in over.inputs if one.type == "RGBA"]
    tree.links.new(layers.outputs["Image"], pictures[0])
    tree.links.new(node.outputs["Image"], pictures[1])
    tree.links.new(over.outputs[0], result)


@feature("Compositing / Output: a File Output node writes a pass")
def file_output(s):
    tree, layers, result = s.compositor()
    tree.links.new(layers.outputs["Image"], result)
    s.scene.view_layers[0].use_pass_z = True
    node = tree.nodes.new("CompositorNodeOutputFile")
    if hasattr(node, "file_output_items"):
        node.directory, node.file_name = "//passes", "depth_"
        node.format.media_type = "IMAGE"
        node.format.file_format = "OPEN_EXR"
        node.file_output_items.new("FLOAT", "Z")
    else:
        node.base_path, node.format.file_format = "//passes", "OPEN_EXR"
        node.file_slots[0].path = "depth_"
    tree.links.new(layers.outputs["Depth"], node.inputs[0])
    s.move(s.subject)


@feature("Compositing / Masks: a mask data-block whose spline moves")
def mask_block(s):
    tree, layers, result = s.compositor()
    mask = bpy.data.masks.new("Mask")
    spline = mask.layers.new(name="Layer").splines.new()
    spline.use_cyclic = True
    spline.points.add(3)
    for point, place in zip(spline.points, ((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8))):
        point.co = point.handle_left = point.handle_right = place
        point.handle_left_type = point.handle_right_type = "VECTOR"
    node = add(s, tree, "CompositorNodeMask", mask=mask)
    s.key(mask.layers[0], "alpha", (0.2, 0.6, 1.0))
    alpha = add(s, tree, "CompositorNodeSetAlpha")
    tree.links.new(layers.outputs["Image"], alpha.inputs[0])
    tree.links.new(node.outputs[0], alpha.inputs[1])
    tree.links.new(alpha.outputs[0], result)
