"""Shading: each shader and texture node, with one input or setting that is keyed."""

from kit import feature


def node_of(s, kind, tree=None, **values):
    """A new node of the subject's material."""
    try:
        node = (tree or s.tree).nodes.new(kind)
    except RuntimeError:
        s.absent("not in this version")
    for name, value in values.items():
        setattr(node, name, value)
    return node


def socket(s, node, names):
    """The first input of the node that has one of these names and is in use."""
    for name in names:
        for one in node.inputs:
            if one.name == name and one.enabled:
                return one
    s.absent("not in this version")


# Surfaces: (node, the input by its names in the versions, its values, settings of the node, others of its inputs).
SURFACES = (
    ("BsdfDiffuse", ("Color",), ((1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)), {}, {}),
    ("BsdfDiffuse", ("Roughness",), (0.0, 0.5, 1.0), {}, {}),
    ("BsdfGlossy", ("Roughness",), (0.05, 0.4, 0.9), {}, {}),
    ("BsdfAnisotropic", ("Anisotropy",), (0.0, 0.5, 0.9), {}, {"Roughness": 0.5}),
    ("BsdfGlass", ("IOR",), (1.05, 1.5, 2.2), {}, {}),
    ("BsdfRefraction", ("IOR",), (1.05, 1.5, 2.2), {}, {}),
    ("BsdfTransparent", ("Color",), ((1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)), {}, {}),
    ("BsdfTranslucent", ("Color",), ((1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)), {}, {}),
    ("BsdfVelvet", ("Sigma",), (0.1, 0.5, 1.0), {}, {}),
    ("BsdfSheen", ("Roughness",), (0.1, 0.5, 1.0), {}, {}),
    ("BsdfToon", ("Size",), (0.2, 0.5, 0.9), {}, {}),
    ("BsdfMetallic", ("Roughness",), (0.05, 0.4, 0.9), {}, {}),
    ("BsdfHairPrincipled", ("Roughness",), (0.1, 0.4, 0.9), {}, {}),
    ("SubsurfaceScattering", ("Scale",), (0.1, 0.6, 1.5), {}, {}),
    ("Emission", ("Strength",), (0.2, 0.6, 1.5), {}, {}),
    ("BsdfPrincipled", ("Base Color",), ((1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)), {}, {}),
    ("BsdfPrincipled", ("Metallic",), (0.0, 0.5, 1.0), {}, {}),
    ("BsdfPrincipled", ("Roughness",), (0.05, 0.4, 0.9), {}, {"Metallic": 1.0}),
    ("BsdfPrincipled", ("Subsurface Weight", "Subsurface"), (0.1, 0.5, 1.0), {}, {}),
    ("BsdfPrincipled", ("Specular IOR Level", "Specular"), (0.0, 0.5, 1.0), {}, {}),
    ("BsdfPrincipled", ("Transmission Weight", "Transmission"), (0.1, 0.5, 1.0), {}, {}),
    ("BsdfPrincipled", ("Coat Weight", "Clearcoat"), (0.1, 0.5, 1.0), {}, {}),
    ("BsdfPrincipled", ("Sheen Weight", "Sheen"), (0.1, 0.5, 1.0), {}, {}),
    ("BsdfPrincipled", ("Alpha",), (0.2, 0.5, 0.9), {}, {}),
    ("BsdfPrincipled", ("Emission Strength",), (0.1, 0.5, 1.0), {}, {"Emission Color": (1, 1, 0, 1), "Emission": (1, 1, 0, 1)}),
)
for row in SURFACES:

    @feature(f"Shading / Shaders / {row[0]}: {row[1][0].lower()} keyed", *row)
    def surface(s, kind, names, values, settings, others):
        node = node_of(s, "ShaderNode" + kind, **settings)
        for name, value in others.items():
            if name in node.inputs:
                node.inputs[name].default_value = value
        s.key(socket(s, node, names), "default_value", values)
        output = next(node for node in s.tree.nodes if node.type == "OUTPUT_MATERIAL")
        s.tree.links.new(node.outputs[0], output.inputs["Surface"])


for kind in ("MixShader", "AddShader"):

    @feature(f"Shading / Shaders / {kind}: of two shaders", kind)
    def two(s, kind):
        node = node_of(s, "ShaderNode" + kind)
        first, second = node_of(s, "ShaderNodeEmission"), node_of(s, "ShaderNodeBsdfGlossy")
        first.inputs["Color"].default_value = (0.1, 0.3, 0.9, 1)
        sockets = [one for one in node.inputs if one.type == "SHADER"]
        s.tree.links.new(first.outputs[0], sockets[0])
        s.tree.links.new(second.outputs[0], sockets[1])
        owner = node.inputs[0] if kind == "MixShader" else first.inputs["Strength"]
        s.key(owner, "default_value", (0.1, 0.5, 0.9))
        output = next(node for node in s.tree.nodes if node.type == "OUTPUT_MATERIAL")
        s.tree.links.new(node.outputs[0], output.inputs["Surface"])


# Textures and inputs: (node, output, what is keyed: an input's names or a setting, values, settings).
TEXTURES = (
    ("TexBrick", 0, ("Scale",), (3, 6, 12), {}),
    ("TexBrick", 0, ".offset", (0.1, 0.5, 0.9), {}),
    ("TexChecker", 0, ("Scale",), (3, 6, 12), {}),
    ("TexGradient", 0, None, None, {"gradient_type": "RADIAL"}),
    ("TexMagic", 0, ("Distortion",), (0.5, 1.5, 3.0), {}),
    ("TexMusgrave", 0, ("Scale",), (2, 5, 9), {}),
    ("TexNoise", 0, ("W",), (0.1, 0.6, 1.3), {"noise_dimensions": "4D"}),
    ("TexNoise", 1, ("Distortion",), (0.1, 0.9, 2.0), {}),
    ("TexVoronoi", 0, ("Randomness",), (0.1, 0.5, 1.0), {}),
    ("TexVoronoi", 1, ("Scale",), (2, 4, 8), {"feature": "SMOOTH_F1"}),
    ("TexWave", 0, ("Phase Offset",), (0.2, 1.5, 3.0), {}),
    ("TexWhiteNoise", 1, ("W",), (0.1, 0.5, 0.9), {"noise_dimensions": "4D"}),
    ("TexGabor", 0, ("Frequency",), (1.0, 2.0, 4.0), {}),
    ("TexSky", 0, None, None, {}),
    ("Wireframe", 0, ("Size",), (0.05, 0.2, 0.5), {}),
    ("LayerWeight", 1, ("Blend",), (0.1, 0.5, 0.9), {}),
    ("Fresnel", 0, ("IOR",), (1.1, 1.5, 3.0), {}),
    ("AmbientOcclusion", 1, ("Distance",), (0.2, 1.0, 3.0), {}),
    ("Bevel", 0, ("Radius",), (0.05, 0.3, 0.7), {}),
    ("RGB", 0, None, None, {}),
    ("Value", 0, None, None, {}),
    ("Blackbody", 0, ("Temperature",), (1500, 3000, 9000), {}),
    ("Wavelength", 0, ("Wavelength",), (450, 540, 640), {}),
    ("CombineColor", 0, ("Red",), (0.1, 0.5, 0.9), {}),
    ("CombineColor", 0, ("Hue", "Red"), (0.1, 0.5, 0.9), {"mode": "HSV"}),
    ("CombineXYZ", 0, ("X",), (0.1, 0.5, 0.9), {}),
    ("ObjectInfo", 0, None, None, {}),
    ("CameraData", 1, None, None, {}),
    ("Geometry", 0, None, None, {}),
    ("Geometry", 1, None, None, {}),
    ("TexCoord", 0, None, None, {}),
    ("TexCoord", 3, None, None, {}),
    ("TexCoord", 4, None, None, {}),
    ("TexCoord", 5, None, None, {}),
    ("LightPath", 0, None, None, {}),
)
for row in TEXTURES:
    shown = row[2][0].lower() if isinstance(row[2], tuple) else (row[2] or f"output {row[1]}, the object turns").strip(".")

    @feature(f"Shading / Inputs and textures / {row[0]} {row[4].get('mode', '')}: {shown}", *row)
    def texture(s, kind, output, keyed, values, settings):
        node = node_of(s, "ShaderNode" + kind, **settings)
        if keyed is None:
            s.key(s.subject, "rotation_euler", (0.2, 0.8, 1.6), index=2)
            s.key(s.subject, "location", ((0, 0, 1), (0.3, 0, 1.2), (0.6, 0.3, 1.4)))
        elif isinstance(keyed, str):
            s.key(node, keyed[1:], values)
        else:
            if settings.get("mode") == "HSV":
                node.inputs[1].default_value = node.inputs[2].default_value = 0.9
            s.key(socket(s, node, keyed), "default_value", values)
        s.emit(node.outputs[output])


# Changes of a colour: (node, what is keyed, values, settings).
COLORS = (
    ("BrightContrast", ("Bright",), (-0.2, 0.2, 0.6), {}),
    ("Gamma", ("Gamma",), (0.4, 1.2, 3.0), {}),
    ("HueSaturation", ("Hue",), (0.1, 0.4, 0.8), {}),
    ("HueSaturation", ("Saturation",), (0.2, 0.7, 1.6), {}),
    ("Invert", ("Fac",), (0.1, 0.5, 1.0), {}),
    ("RGBCurve", ("Fac",), (0.1, 0.5, 1.0), {}),
    ("MixRGB", ("Fac",), (0.1, 0.5, 1.0), {}),
    ("Math", ("Value",), (0.1, 0.5, 0.9), {"operation": "MULTIPLY"}),
    ("ShaderToRGB", ("Shader",), None, {}),
    ("Clamp", ("Max",), (0.2, 0.5, 0.8), {}),
    ("MapRange", ("To Max",), (0.2, 0.6, 1.0), {}),
    ("VectorMath", ("Vector",), ((0.1, 0, 0), (0.4, 0.2, 0), (0.1, 0.5, 0.9)), {"operation": "ADD"}),
    ("VectorRotate", ("Angle",), (0.2, 0.9, 1.8), {}),
    ("Mapping", ("Rotation",), ((0, 0, 0.2), (0, 0.4, 0.9), (0.7, 0, 1.8)), {}),
    ("SeparateColor", ("Color",), ((0.2, 0, 0, 1), (0.5, 0, 0, 1), (0.9, 0, 0, 1)), {}),
    ("RGBToBW", ("Color",), ((0.2, 0, 0, 1), (0.5, 0.4, 0, 1), (0.9, 0, 0.8, 1)), {}),
    ("VectorTransform", ("Vector",), ((0.2, 0, 0), (0.5, 0.3, 0), (0.9, 0, 0.5)), {}),
)
for row in COLORS:
    if row[0] != "ShaderToRGB":

        @feature(f"Shading / Converters / {row[0]}: {row[1][0].lower()}", *row)
        def color(s, kind, names, values, settings):
            node = node_of(s, "ShaderNode" + kind, **settings)
            noise = s.tree.nodes.new("ShaderNodeTexNoise")
            if kind == "Invert" and "Factor" in [one.name for one in node.inputs]:
                names = ("Factor",)
            if names == ("Fac",) and not any(one.name == "Fac" for one in node.inputs):
                names = ("Factor",)
            keyed = socket(s, node, names)
            if kind == "RGBCurve":
                node.mapping.curves[3].points.new(0.5, 0.9)
            source = noise.outputs["Color"] if any(one.type == "RGBA" for one in node.inputs) else noise.outputs[0]
            others = [one for one in node.inputs if one.enabled and one != keyed and one.name not in ("Min", "From Min")]
            other = next((one for one in others if one.type == "RGBA"), others[0] if others else None)
            if other is not None:
                s.tree.links.new(source, other)
            s.key(keyed, "default_value", values)
            s.emit(node.outputs[0])


@feature("Shading / Converters / ColorRamp: a stop moves")
def ramp(s):
    node, noise = node_of(s, "ShaderNodeValToRGB"), s.tree.nodes.new("ShaderNodeTexNoise")
    s.tree.links.new(noise.outputs[0], node.inputs[0])
    s.key(node.color_ramp.elements[1], "position", (0.5, 0.6, 0.9))
    s.emit(node.outputs[0])


@feature("Shading / Converters / Float curve: factor keyed", since=(3, 0))
def float_curve(s):
    node, noise = node_of(s, "ShaderNodeFloatCurve"), s.tree.nodes.new("ShaderNodeTexNoise")
    node.mapping.curves[0].points.new(0.5, 0.95)
    s.tree.links.new(noise.outputs[0], node.inputs[1])
    s.key(node.inputs[0], "default_value", (0.1, 0.5, 1.0))
    s.emit(node.outputs[0])


for operation in ("ADD", "MULTIPLY", "SCREEN", "DIFFERENCE", "OVERLAY", "HUE", "SOFT_LIGHT"):

    @feature(f"Shading / Converters / Mix colours: {operation.lower().replace('_', ' ')}", operation)
    def mix(s, operation):
        node = node_of(s, "ShaderNodeMixRGB", blend_type=operation)
        noise = s.tree.nodes.new("ShaderNodeTexNoise")
        s.tree.links.new(noise.outputs["Color"], node.inputs[1])
        node.inputs[2].default_value = (0.9, 0.4, 0.1, 1)
        s.key(node.inputs[0], "default_value", (0.2, 0.6, 1.0))
        s.emit(node.outputs[0])


for operation in ("SINE", "POWER", "MODULO", "PINGPONG", "SMOOTH_MIN", "ARCTAN2", "SNAP"):

    @feature(f"Shading / Converters / Math: {operation.lower().replace('_', ' ')}", operation)
    def math(s, operation):
        node = node_of(s, "ShaderNodeMath", operation=operation)
        gradient = s.tree.nodes.new("ShaderNodeTexNoise")
        add = node_of(s, "ShaderNodeMath", operation="MULTIPLY")
        s.tree.links.new(gradient.outputs[0], add.inputs[0])
        s.key(add.inputs[1], "default_value", (0.4, 1.1, 2.3))
        s.tree.links.new(add.outputs[0], node.inputs[0])
        s.emit(node.outputs[0])


for where in ("Bump", "NormalMap", "Displacement", "VectorDisplacement"):

    @feature(f"Shading / Vectors / {where}: keyed", where)
    def relief(s, where):
        noise, node = s.tree.nodes.new("ShaderNodeTexNoise"), node_of(s, "ShaderNode" + where)
        names = {"Bump": "Height", "NormalMap": "Color", "Displacement": "Height", "VectorDisplacement": "Vector"}
        s.tree.links.new(noise.outputs["Color" if where in ("NormalMap", "VectorDisplacement") else 0], node.inputs[names[where]])
        s.key(node.inputs["Scale" if "Displacement" in where else "Strength"], "default_value", (0.1, 0.5, 1.0))
        if "Displacement" in where:
            output = next(node for node in s.tree.nodes if node.type == "OUTPUT_MATERIAL")
            s.tree.links.new(node.outputs[0], output.inputs["Displacement"])
        else:
            s.tree.links.new(node.outputs[0], s.shader.inputs["Normal"])


@feature("Shading / Vectors / Vector curves: through a keyed factor")
def vector_curves(s):
    node, noise = node_of(s, "ShaderNodeVectorCurve"), s.tree.nodes.new("ShaderNodeTexNoise")
    node.mapping.curves[0].points.new(0.3, 0.9)
    s.tree.links.new(noise.outputs["Color"], node.inputs["Vector"])
    s.key(node.inputs[0], "default_value", (0.1, 0.5, 1.0))
    s.emit(node.outputs[0])


for volume in ("VolumeAbsorption", "VolumeScatter", "VolumePrincipled"):

    @feature(f"Shading / Volumes / {volume}: density keyed", volume)
    def volumes(s, volume):
        node = node_of(s, "ShaderNode" + volume)
        output = next(node for node in s.tree.nodes if node.type == "OUTPUT_MATERIAL")
        for link in list(output.inputs["Surface"].links):
            s.tree.links.remove(link)
        s.tree.links.new(node.outputs[0], output.inputs["Volume"])
        s.key(node.inputs["Density"], "default_value", (0.3, 1.0, 4.0))


@feature("Shading / Attributes: a custom property that is keyed")
def attribute(s):
    s.subject["heat"] = 0.0
    s.key(s.subject, '["heat"]', (0.1, 0.5, 0.9))
    node = node_of(s, "ShaderNodeAttribute", attribute_type="OBJECT", attribute_name="heat")
    s.emit(node.outputs["Fac"])


@feature("Shading / Attributes: a view layer's property", since=(3, 3))
def layer_attribute(s):
    s.scene["mood"] = 0.0
    s.key(s.scene, '["mood"]', (0.1, 0.5, 0.9))
    node = node_of(s, "ShaderNodeAttribute", attribute_type="VIEW_LAYER", attribute_name="mood")
    s.emit(node.outputs["Fac"])


@feature("Shading / Attributes: UVs that a modifier moves")
def uv_map(s):
    added = s.subject.modifiers.new("Warp", "UV_WARP")
    added.uv_layer = "UVMap"
    s.key(added, "offset", ((0.1, 0), (0.3, 0.2), (0.8, 0.5)))
    node = node_of(s, "ShaderNodeUVMap", uv_map="UVMap")
    s.emit(node.outputs[0])


@feature("Shading / Groups: an input of a node group is keyed")
def group_input(s):
    tree, first, last = s.group("ShaderNodeTree", "Paint", [("Amount", "NodeSocketFloat")], [("Color", "NodeSocketColor")])
    noise = tree.nodes.new("ShaderNodeTexNoise")
    tree.links.new(first.outputs[0], noise.inputs["Scale"])
    tree.links.new(noise.outputs["Color"], last.inputs[0])
    node = node_of(s, "ShaderNodeGroup", node_tree=tree)
    s.key(node.inputs[0], "default_value", (2, 5, 9))
    s.emit(node.outputs[0])


@feature("Shading / Groups: a node inside two groups is keyed")
def group_inside(s):
    inner, _, end = s.group("ShaderNodeTree", "Inner", (), [("Color", "NodeSocketColor")])
    noise = inner.nodes.new("ShaderNodeTexNoise")
    inner.links.new(noise.outputs["Color"], end.inputs[0])
    s.key(noise.inputs["Scale"], "default_value", (2, 5, 9))
    outer, _, last = s.group("ShaderNodeTree", "Outer", (), [("Color", "NodeSocketColor")])
    node = outer.nodes.new("ShaderNodeGroup")
    node.node_tree = inner
    outer.links.new(node.outputs[0], last.inputs[0])
    s.emit(node_of(s, "ShaderNodeGroup", node_tree=outer).outputs[0])


@feature("Shading / Materials: a slot whose material index is keyed by an object's colour")
def object_color(s):
    s.key(s.subject, "color", ((1, 0, 0, 1), (0, 1, 0, 1), (0, 0, 1, 1)))
    s.emit(node_of(s, "ShaderNodeObjectInfo").outputs["Color"])


@feature("Shading / Materials: pass index keyed and read by a node")
def index(s):
    s.key(s.subject, "pass_index", (1, 2, 4))
    divide = node_of(s, "ShaderNodeMath", operation="DIVIDE")
    s.tree.links.new(node_of(s, "ShaderNodeObjectInfo").outputs["Object Index"], divide.inputs[0])
    divide.inputs[1].default_value = 5
    s.emit(divide.outputs[0])
