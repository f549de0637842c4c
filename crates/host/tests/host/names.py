"""Scenes whose frames are written under all sorts of names, in FOLDER; each is rendered, and `names.json` there tells what
Blender wrote: names by scene and frame."""

import json
import os
import sys

import bpy

FOLDER = os.path.realpath(sys.argv[-1])
VERSION = bpy.app.version
NEW = VERSION >= (5, 0, 0)
CAMERAS = []
FRAMES = {}


def scene(name, path, frames=(5,), **render):
    made = bpy.data.scenes.new(name)
    if not CAMERAS:
        CAMERAS.extend(bpy.data.objects.new(name, bpy.data.cameras.new(name)) for name in ("Ann", "Bob: 2/3", "Hidden"))
        CAMERAS[2].hide_render = True
    for camera in CAMERAS:
        made.collection.objects.link(camera)
    made.camera = CAMERAS[0]
    made.render.engine, made.cycles.samples, made.cycles.use_denoising = "CYCLES", 1, False
    made.render.resolution_x, made.render.resolution_y, made.render.resolution_percentage = 33, 17, 50
    made.render.fps, made.render.fps_base = 30, 1.001
    made.render.filepath = path
    for field, value in render.items():
        setattr(made.render, field, value)
    made.frame_start, made.frame_end = frames[0:1] * 2 if frames else (1, 1)
    FRAMES[made.name] = frames
    return made


class Compositor:
    def __init__(self, made):
        if NEW:
            self.tree = made.compositing_node_group = bpy.data.node_groups.new("Compositor", "CompositorNodeTree")
            self.tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
            result = self.tree.nodes.new("NodeGroupOutput")
        else:
            made.use_nodes = True
            self.tree = made.node_tree
            self.tree.nodes.clear()
            result = self.tree.nodes.new("CompositorNodeComposite")
        self.layers = self.tree.nodes.new("CompositorNodeRLayers")
        self.layers.scene = made
        self.image = self.layers.outputs["Image"]
        self.link(self.image, result.inputs[0])

    def link(self, source, socket):
        self.tree.links.new(source, socket)

    def node(self, *kinds, **fields):
        """Of the kind that this Blender has."""
        kind = next(kind for kind in kinds if hasattr(bpy.types, kind))
        made = self.tree.nodes.new(kind)
        for field, value in fields.items():
            setattr(made, field, value)
        return made

    @staticmethod
    def inside(name):
        """A compositor inside a group."""
        made = object.__new__(Compositor)
        made.tree = bpy.data.node_groups.new(name, "CompositorNodeTree")
        if hasattr(made.tree, "interface"):
            made.tree.interface.new_socket("In", in_out="INPUT", socket_type="NodeSocketColor")
        else:
            made.tree.inputs.new("NodeSocketColor", "In")
        made.image = made.tree.nodes.new("NodeGroupInput").outputs[0]
        return made

    def group(self, tree):
        """A node that hands the picture to a group."""
        self.link(self.image, self.node("CompositorNodeGroup", node_tree=tree).inputs[0])

    def output(self, folder, slots, kind="PNG", name="", stem="", views=None):
        """A File Output node; `slots` are names and what leads to them."""
        made = self.tree.nodes.new("CompositorNodeOutputFile")
        made.name = name or made.name
        if NEW:
            many = kind.endswith("LAYER")
            made.directory, made.file_name = folder, stem
            made.format.media_type = "MULTI_LAYER_IMAGE" if many else "IMAGE"
            made.format.file_format = kind
            made.file_output_items.clear()
            for slot, _ in slots:
                made.file_output_items.new("RGBA", slot or "x").name = slot
        else:
            made.format.file_format = kind
            made.base_path = folder + stem if kind.endswith("LAYER") else folder
            made.file_slots.clear()
            for slot, _ in slots:
                made.file_slots.new(slot or "x")
                if not kind.endswith("LAYER"):
                    made.file_slots[len(made.file_slots) - 1].path = slot if kind.endswith("LAYER") else stem + slot
        if views:
            made.format.views_format = views
        for (_, source), socket in zip(slots, made.inputs):
            if source:
                self.link(source, socket)
        return made


def main_paths():
    for number, path in enumerate(
        (
            "{blend_name}/{blend_name}_", "{fps}_", "{fps:###}_{fps:.##}_{fps:####.###}_", "{{fps}}_{{{fps}}}_",
            "{resolution_x}x{resolution_y}_", "{resolution_x:######}_{resolution_y:##.##}_{resolution_y:.#}_",
            "{resolution_x}_##.png", "nbsp\u00a0\u3000_",
        )
    ):
        scene(f"main{number}", f"//main{number}/{path}")
    if not NEW:
        scene("unknown", "//unknown/{{scene_name}}/{{{{camera_name}}}}" if VERSION >= (4, 5, 0) else "//unknown/{scene_name}}/")
        return
    for number, path in enumerate(
        (
            "//all0/{scene_name}/{scene_name}_", "{blend_dir}all1/f_", "{blend_dir_lib}/all2/{blend_name_lib}_",
            "//all3{blend_dir}f_",
        )
    ):
        scene('Sc: "e"/n#e' + str(number), path)
    marked = scene("marked", "//marked/{camera_name}/{camera_name}_", (1, 4, 5, 8))
    for frame, camera in ((3, 0), (5, 1), (5, 0), (7, 2)):
        marked.timeline_markers.new("marker", frame=frame).camera = CAMERAS[camera]
    c = Compositor(marked)
    c.output("//marked/node_{camera_name}/", (("a_", c.image),))
    bpy.context.window.scene = marked
    slowed = scene("slowed", "//slowed/{camera_name}_", (4, 6), frame_map_old=100, frame_map_new=200)
    for frame, camera in ((2, 0), (3, 1)):
        slowed.timeline_markers.new("marker", frame=frame).camera = CAMERAS[camera]


def nodes():
    made = scene("nodes", "//nodes/main_")
    c = Compositor(made)
    picture = c.image
    c.output("//nodes/{blend_name}/{fps}/", (("{resolution_x}_", picture), ("{fps}_" if NEW else "{fps:##}_", picture)), name="One: 1")
    c.output("//nodes/layers/", (("a", picture),), "OPEN_EXR_MULTILAYER", stem="{blend_name}_{fps}_")
    c.output("//nodes/empty/", (("", picture), ("named_", picture)))
    c.output("//nodes/no_slash", (("", picture),))
    inner = c.inside("Inside")
    inner.output("//nodes/inner/{fps}/", (("a_", inner.image),))
    c.group(inner.tree)
    c.output("//nodes/dotted/", (("v1.2_##.", picture), ("v1.2_#.jpg", picture)))
    if NEW:
        c.output("{blend_dir}nodes/{scene_name}/{node_name}", (("a{camera_name}_", picture),), name="No/de: 2", stem="{node_name}_")
        c.output("//nodes/joint/", (("name}_", picture), ("name}2_", picture)), stem="a{scene_")
        c.output("//nodes/forms/", (("_", picture),), stem="{fps:###.##}")
        c.output("//nodes/long/", (("{blend_dir}_", picture),), stem="f_")
        c.output("//nodes/lib/{blend_name_lib}/{blend_dir_lib}", (("a_", picture),))
        c.output("//nodes/nameless/", (("", picture),))
        c.output("//nodes/nameless_layers/", (("", picture),), "OPEN_EXR_MULTILAYER")


def linked():
    """A File Output node of a library, which lies beside the .blend."""
    if not NEW:
        return
    inner = Compositor.inside("Kit")
    inner.output("{blend_dir_lib}linked/{blend_name_lib}/{blend_name}/", (("a_", inner.image),))
    library = os.path.join(FOLDER, "sub", "kit.v2.blend")
    os.makedirs(os.path.dirname(library))
    bpy.data.libraries.write(library, {inner.tree}, path_remap="NONE")
    bpy.data.node_groups.remove(inner.tree)
    with bpy.data.libraries.load(library, link=True) as (there, here):
        here.node_groups = ["Kit"]
    bpy.data.libraries[0].filepath = "//sub/kit.v2.blend"
    Compositor(scene("linked", "//linked/main_")).group(here.node_groups[0])


def values():
    """Slots to which no picture leads."""
    made = scene("values", "//values/main_")
    c = Compositor(made)

    def through(node, source=None):
        if source:
            c.link(source, next(socket for socket in node.inputs if socket.enabled))
        return node.outputs[0]

    def value():
        return c.node("CompositorNodeValue", "ShaderNodeValue").outputs[0]

    def group(inner, source=None):
        tree = bpy.data.node_groups.new("Group", "CompositorNodeTree")
        if hasattr(tree, "interface"):
            tree.interface.new_socket("In", in_out="INPUT", socket_type="NodeSocketColor")
            tree.interface.new_socket("Out", in_out="OUTPUT", socket_type="NodeSocketColor")
        else:
            tree.inputs.new("NodeSocketColor", "In")
            tree.outputs.new("NodeSocketColor", "Out")
        begin, end = tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")
        if inner:
            node = tree.nodes.new(inner)
            if inner == "CompositorNodeRLayers":
                node.scene = made
            tree.links.new(node.outputs[0], end.inputs[0])
        else:
            tree.links.new(begin.outputs[0], end.inputs[0])
        return through(c.node("CompositorNodeGroup", node_tree=tree), source)

    math = ("CompositorNodeMath", "ShaderNodeMath")
    slots = [
        ("value_", value()), ("rgb_", c.node("CompositorNodeRGB").outputs[0]), ("math_", through(c.node(*math), value())),
        ("math_of_nothing_", through(c.node(*math))), ("blur_", through(c.node("CompositorNodeBlur"), value())),
        ("blurred_", through(c.node("CompositorNodeBlur"), c.image)), ("reroute_", through(c.node("NodeReroute"))),
        ("rerouted_", through(c.node("NodeReroute"), c.image)), ("bokeh_", through(c.node("CompositorNodeBokehImage"))),
        ("box_", through(c.node("CompositorNodeBoxMask"))), ("group_of_nothing_", group(None)),
        ("group_of_value_", group(None, value())), ("group_of_picture_", group(None, c.image)),
        ("group_with_rgb_", group("CompositorNodeRGB")),
        ("group_with_picture_", group("CompositorNodeRLayers" if NEW else "CompositorNodeBokehImage")),
        ("muted_", through(c.node("CompositorNodeBlur", mute=True), value())),
        ("muted_picture_", through(c.node("CompositorNodeBlur", mute=True), c.image)),
        ("levels_", through(c.node("CompositorNodeLevels"), c.image)), ("time_", through(c.node("CompositorNodeTime"))),
        ("normal_", through(c.node("CompositorNodeNormal"))), ("no_image_", through(c.node("CompositorNodeImage"))),
        ("no_mask_", through(c.node("CompositorNodeMask"))), ("nothing_", None),
    ]
    c.output("//values/", slots)
    c.output("//values/layers/", (("a", value()),), "OPEN_EXR_MULTILAYER", stem="values_")
    c.output("//values/mixed/", (("a", value()), ("b", c.image)), "OPEN_EXR_MULTILAYER", stem="mixed_")
    c.output("//values/none/", (("a", None),), "OPEN_EXR_MULTILAYER", stem="none_")


def views():
    for name, extension in (("views", True), ("bare", False)):
        made = scene(name, f"//{name}/v1.2_", use_file_extension=extension, use_multiview=True, views_format="STEREO_3D")
        c = Compositor(made)
        for kind in ("PNG", "OPEN_EXR", "OPEN_EXR_MULTILAYER"):
            c.output(f"//{name}/{kind}/", (("a.b_" if not kind.endswith("LAYER") else "a", c.image),), kind, stem="v1.2_", views="INDIVIDUAL")
        c.output(f"//{name}/joined/", (("v1.2_", c.image),), views="STEREO_3D")
        c.output(f"//{name}/ended/", (("v1.2_#.png", c.image),))
    made = scene("ending", "//ending/v1.2_", use_file_extension=False)
    c = Compositor(made)
    c.output("//ending/node/", (("v1.2_", c.image), ("v1.2_#.png", c.image), ("plain_", c.image)))


def refused():
    """Paths to which Blender does not write."""
    if VERSION < (4, 5, 0):
        return
    for number, path in enumerate(("{nope}", "{fps:a}", "{fps:##.}", "{blend_name:##}", "a}b", "a{b", "{}")):
        scene(f"refused{number}", f"//refused/{path}_", ())
    c = Compositor(scene("refused_node", "//refused/main_", ()))
    c.output("//refused/{nope}/", (("a", c.image),), name="Broken")
    # What writes nothing harms nobody.
    c = Compositor(scene("unused", "//unused/main_"))
    c.output("//unused/{nope}/", (("a", None),))


for add in (main_paths, nodes, linked, values, views, refused):
    add()
if NEW:
    # Markers have chosen another one.
    bpy.context.scene.camera = CAMERAS[2]
bpy.ops.wm.save_as_mainfile(filepath=os.path.join(FOLDER, 'odd {na"me}.v1.blend'), relative_remap=False)


def written():
    return {
        os.path.relpath(os.path.join(at, name), FOLDER)
        for at, _, files in os.walk(FOLDER)
        for name in files
        if not name.endswith((".blend", ".py"))
    }


told, before = {}, written()
for name, frames in FRAMES.items():
    told[name] = {}
    for frame in frames:
        # What a frame leaves behind must not name the next.
        bpy.ops.wm.open_mainfile(filepath=bpy.data.filepath)
        if NEW:
            which = {} if bpy.context.scene.name == name else {"scene": name}
            bpy.ops.render.render(animation=True, frame_start=frame, frame_end=frame, **which)
        else:
            bpy.data.scenes[name].frame_start = bpy.data.scenes[name].frame_end = frame
            bpy.ops.render.render(animation=True, scene=name)
        now = written()
        told[name][frame] = sorted(now - before)
        before = now
for name in (name for name, frames in FRAMES.items() if not frames):
    try:
        bpy.ops.render.render(animation=True, scene=name)
        assert name == "refused_node" and not os.path.exists(os.path.join(FOLDER, "refused", "a0001.png")), name
    except RuntimeError:
        assert name != "refused_node"
with open(os.path.join(FOLDER, "names.json"), "w") as file:
    json.dump(told, file)
print("made", flush=True)
os._exit(0)
