"""The scene that every feature of the fidelity table starts from, and short ways to change it."""

import hashlib
import inspect
import math
import os
import re
import struct
import types
import zlib

import bpy

# The frames that are rendered. A row counts only if they differ from one another.
FRAMES = (2, 5, 9)
VERSION = bpy.app.version
NEW = VERSION >= (5, 0, 0)
FEATURES = []


class Absent(Exception):
    """This Blender does not have the feature."""


class Feature:
    """A row of the table."""

    def __init__(self, title, make, facts, parameters):
        self.title, self.make, self.parameters = title, make, parameters
        self.id = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        self.since = tuple(facts.pop("since", (0, 0)))
        self.until = tuple(facts.pop("until", (99, 0)))
        self.more = facts

    def facts(self):
        """What the runner must know of it."""
        source = "\n".join([self.id, repr(self.parameters), *sorted(sources(self.make)), *sorted(sources(Scene.__init__))])
        digest = hashlib.sha256(source.encode()).hexdigest()[:16]
        facts = {"id": self.id, "title": self.title, "hash": digest, "frames": list(FRAMES)}
        return facts | {"trust": False, "sim": False, "refuses": "", "expect": "", "options": []} | self.more


def feature(title, *parameters, **facts):
    """Makes a row of the function. `parameters` are handed to it behind the scene."""

    def add(function):
        def make(scene):
            return function(scene, *parameters)

        row = Feature(title, make, dict(facts), parameters)
        row.make.source = function
        if any(other.id == row.id for other in FEATURES):
            raise ValueError(f"two features have the id {row.id}")
        FEATURES.append(row)
        return function

    return add


def sources(function, seen=None):
    """The source of a function and of those of these modules that it names."""
    seen = {} if seen is None else seen
    function = getattr(function, "source", function)
    if not isinstance(function, types.FunctionType) or function in seen:
        return []
    seen[function] = True
    found = [inspect.getsource(function)]
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        for name in code.co_names:
            used = function.__globals__.get(name) or getattr(Scene, name, None)
            if isinstance(used, types.FunctionType):
                found += sources(used, seen)
            elif isinstance(used, (str, int, float, tuple, list, dict)):
                found.append(f"{name} = {used!r}")
    return found


def png(path, rows):
    """Writes rows (from the top) of (red, green, blue) or (red, green, blue, alpha) from 0 to 255."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    channels = len(rows[0][0])
    data = b"".join(b"\0" + b"".join(bytes(pixel) for pixel in row) for row in rows)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 2 if channels == 3 else 6, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b""))
    return path


def checker(color, size=8):
    """Rows of a chequered picture in this colour."""
    dark = tuple(value // 3 for value in color)
    return [[color if (x // 2 + y // 2) % 2 else dark for x in range(size)] for y in range(size)]


class Scene:
    """A still scene with a cube; what a feature changes."""

    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        bpy.ops.wm.read_factory_settings(use_empty=True)
        self.scene = scene = bpy.context.scene
        scene.render.engine = "CYCLES"
        scene.cycles.samples = 2
        scene.cycles.use_denoising = False
        scene.cycles.use_adaptive_sampling = False
        scene.cycles.max_bounces = 3
        scene.render.resolution_x, scene.render.resolution_y = 48, 36
        scene.render.resolution_percentage = 100
        scene.frame_start, scene.frame_end = 1, 10
        scene.render.filepath = "//frames/shot_"
        scene.view_settings.view_transform = "Standard"
        self.world = scene.world = bpy.data.worlds.new("World")
        self.world.use_nodes = True
        self.world.node_tree.nodes["Background"].inputs["Color"].default_value = (0.2, 0.25, 0.3, 1)
        self.floor = self.mesh("Floor", *grid_mesh(1, 8))
        self.subject = self.mesh("Subject", *box_mesh(1.5), location=(0, 0, 1))
        self.tree, self.shader = self.material(self.subject, (0.8, 0.35, 0.1, 1))
        self.sun = self.light("SUN", "Sun", energy=3)
        self.sun.rotation_euler = (0.6, 0.3, 0)
        self.camera = self.object("Camera", bpy.data.cameras.new("Camera"), (5, -5, 4))
        self.camera.rotation_euler = (1.05, 0, math.pi / 4)
        scene.camera = self.camera

    # Files.

    def file(self, *parts):
        """A path below the project's folder; its folders are made."""
        path = os.path.join(self.folder, "shot", *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def outside(self, *parts):
        """A path outside of the project's folder."""
        path = os.path.join(self.folder, "elsewhere", *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def relative(self, path):
        """The path as the .blend names it relatively."""
        return "//" + os.path.relpath(path, os.path.join(self.folder, "shot"))

    def save(self, path):
        """Saves the scene on frame 1, as an artist would."""
        bpy.context.scene.frame_set(1)
        bpy.ops.wm.save_as_mainfile(filepath=path, relative_remap=False, compress=False)

    def absent(self, why):
        raise Absent(why)

    # Objects.

    def object(self, name, data, location=(0, 0, 0), collection=None):
        made = bpy.data.objects.new(name, data)
        made.location = location
        (collection or self.scene.collection).objects.link(made)
        return made

    def mesh(self, name, points, faces, location=(0, 0, 0), collection=None):
        mesh = bpy.data.meshes.new(name)
        mesh.from_pydata(points, [], faces)
        mesh.uv_layers.new(name="UVMap")
        for polygon in mesh.polygons:
            for corner, uv in zip(polygon.loop_indices, ((0, 0), (1, 0), (1, 1), (0, 1))):
                mesh.uv_layers[0].data[corner].uv = uv
        return self.object(name, mesh, location, collection)

    def grid(self, name="Grid", cuts=8, size=3, location=(0, 0, 1)):
        made = self.mesh(name, *grid_mesh(cuts, size), location=location)
        made.data.materials.append(self.subject.data.materials[0])
        return made

    def box(self, name="Box", size=1, location=(0, 0, 1), color=(0.1, 0.4, 0.8, 1)):
        made = self.mesh(name, *box_mesh(size), location=location)
        self.material(made, color)
        return made

    def empty(self, name="Empty", location=(0, 0, 0)):
        return self.object(name, None, location)

    def light(self, kind, name="Light", location=(2, -2, 4), energy=100):
        data = bpy.data.lights.new(name, kind)
        data.energy = energy
        return self.object(name, data, location)

    def without_subject(self):
        """Takes the cube out, to make room for something else."""
        bpy.data.objects.remove(self.subject)

    def active(self, made):
        """Makes it the active and only selected object, for operators."""
        bpy.context.view_layer.update()
        for other in bpy.context.view_layer.objects:
            # Before 5.0 a place in the list may be empty after an object was removed.
            if other:
                other.select_set(False)
        bpy.context.view_layer.objects.active = made
        made.select_set(True)
        return made

    # Animation.

    def key(self, owner, path, values, index=-1, frames=FRAMES):
        """Keys the values at the frames."""
        for frame, value in zip(frames, values):
            if index >= 0:
                getattr(owner, path)[index] = value
            elif path.startswith("["):
                owner[path[2:-2]] = value
            else:
                setattr(owner, path, value)
            if not owner.keyframe_insert(path, index=index, frame=frame):
                raise ValueError(f"{owner}.{path} cannot be keyed")

    def move(self, made, frames=FRAMES):
        """Moves it a little, so that what follows it has something to follow."""
        x, y, z = made.location
        self.key(made, "location", [(x, y, z), (x + 0.5, y + 0.3, z + 0.3), (x + 1, y - 0.5, z + 0.8)], frames=frames)

    def drive(self, owner, path, expression, index=-1):
        """Drives a value by an expression; a simple one runs without trust."""
        curve = owner.driver_add(path, index) if index >= 0 else owner.driver_add(path)
        curve.driver.type = "SCRIPTED"
        curve.driver.expression = expression
        return curve.driver

    def variable(self, driver, owner, path, name="x"):
        """Gives a driver a variable that reads a value of a data-block."""
        variable = driver.variables.new()
        variable.name = name
        variable.targets[0].id_type = owner.id_type if hasattr(owner, "id_type") else variable.targets[0].id_type
        variable.targets[0].id = owner
        variable.targets[0].data_path = path
        return variable

    def curves(self, owner):
        """The F-curves of a data-block's action."""
        data = owner.animation_data
        if VERSION >= (4, 4, 0):
            strip = data.action.layers[0].strips[0]
            return strip.channelbag(data.action_slot).fcurves
        return data.action.fcurves

    # Nodes.

    def material(self, made, color=(0.5, 0.5, 0.5, 1)):
        """Gives the object a new material; returns its tree and its shader."""
        material = bpy.data.materials.new(made.name)
        material.use_nodes = True
        made.data.materials.clear()
        made.data.materials.append(material)
        shader = material.node_tree.nodes["Principled BSDF"]
        shader.inputs["Base Color"].default_value = color
        return material.node_tree, shader

    def emit(self, socket, tree=None):
        """Makes the subject (or the tree's surface) show a socket's value as light."""
        tree = tree or self.tree
        emission = tree.nodes.new("ShaderNodeEmission")
        output = next(node for node in tree.nodes if node.type in ("OUTPUT_MATERIAL", "OUTPUT_WORLD"))
        tree.links.new(socket, emission.inputs["Color"])
        tree.links.new(emission.outputs[0], output.inputs["Surface"])
        return emission

    def texture(self, image, tree=None):
        """An image texture node that the subject shows."""
        tree = tree or self.tree
        node = tree.nodes.new("ShaderNodeTexImage")
        node.image = image
        self.emit(node.outputs["Color"], tree)
        return node

    def group(self, kind="GeometryNodeTree", name="Group", inputs=(), outputs=()):
        """A node group with sockets: (name, type) pairs. Returns the tree, its input and its output node."""
        tree = bpy.data.node_groups.new(name, kind)
        for direction, sockets in (("INPUT", inputs), ("OUTPUT", outputs)):
            for label, socket in sockets:
                if VERSION >= (4, 0, 0):
                    tree.interface.new_socket(label, in_out=direction, socket_type=socket)
                elif direction == "INPUT":
                    tree.inputs.new(socket, label)
                else:
                    tree.outputs.new(socket, label)
        return tree, tree.nodes.new("NodeGroupInput"), tree.nodes.new("NodeGroupOutput")

    def geometry(self, made=None, more=()):
        """A geometry nodes modifier. Returns its tree, the geometry that comes in, the socket that goes out, the modifier."""
        made = made or self.subject
        sockets = [("Geometry", "NodeSocketGeometry")]
        tree, first, last = self.group("GeometryNodeTree", "Geometry", sockets + list(more), sockets)
        if hasattr(tree, "is_modifier"):
            tree.is_modifier = True
        modifier = made.modifiers.new("Nodes", "NODES")
        modifier.node_group = tree
        return tree, first.outputs[0], last.inputs[0], modifier

    def compositor(self):
        """The compositor's tree, the picture that is rendered and the socket of the result (both to be linked)."""
        if NEW:
            tree = bpy.data.node_groups.new("Compositor", "CompositorNodeTree")
            self.scene.compositing_node_group = tree
            tree.interface.new_socket("Image", in_out="OUTPUT", socket_type="NodeSocketColor")
            result = tree.nodes.new("NodeGroupOutput")
        else:
            self.scene.use_nodes = True
            tree = self.scene.node_tree
            tree.nodes.clear()
            result = tree.nodes.new("CompositorNodeComposite")
        layers = tree.nodes.new("CompositorNodeRLayers")
        return tree, layers, result.inputs[0]

    # Pictures.

    def picture(self, path, color=(230, 60, 40), size=8):
        """Writes a chequered PNG and loads it."""
        png(path, checker(color, size))
        image = bpy.data.images.load(path)
        if path.startswith(os.path.join(self.folder, "shot")):
            image.filepath = self.relative(path)
        return image

    def pictures(self, pattern, count=10, first=1):
        """Writes a sequence of PNGs, each of another colour; returns their paths. `pattern` holds a %d."""
        paths = []
        for number in range(first, first + count):
            step = number - first
            color = (25 * step + 5, 255 - 25 * step, (90 * step) % 256)
            paths.append(png(pattern % number, checker(color)))
        return paths

    def sequence(self, pattern, count=10, first=1):
        """A sequence as an image."""
        image = bpy.data.images.load(self.pictures(pattern, count, first)[0])
        image.source = "SEQUENCE"
        if pattern.startswith(os.path.join(self.folder, "shot")):
            image.filepath = self.relative(pattern % first)
        return image

    def movie(self, path, count=10):
        """Encodes a short movie of a sequence of pictures, in a scene of its own."""
        paths = self.pictures(os.path.join(self.folder, "making", "m_%04d.png"), count)
        scene = bpy.data.scenes.new("Making")
        scene.render.resolution_x = scene.render.resolution_y = 32
        scene.render.resolution_percentage = 100
        scene.frame_start, scene.frame_end = 1, count
        scene.view_settings.view_transform = "Standard"
        editor = scene.sequence_editor_create()
        strips = editor.strips if hasattr(editor, "strips") else editor.sequences
        strip = strips.new_image("m", paths[0], 1, 1, fit_method="STRETCH")
        for other in paths[1:]:
            strip.elements.append(os.path.basename(other))
        if hasattr(scene.render.image_settings, "media_type"):
            scene.render.image_settings.media_type = "VIDEO"
        scene.render.image_settings.file_format = "FFMPEG"
        scene.render.ffmpeg.format = "MPEG4"
        scene.render.ffmpeg.codec = "MPEG4"
        scene.render.filepath = path
        bpy.ops.render.render(animation=True, scene=scene.name)
        bpy.data.scenes.remove(scene)
        if not os.path.exists(path):
            raise ValueError("no movie was written")
        return path

    def library(self, path, blocks):
        """Writes data-blocks into a .blend of their own."""
        bpy.data.libraries.write(path, set(blocks), fake_user=True)
        return path

    def link(self, path, kind, names, relative=False):
        """Links data-blocks of a library; `kind` such as "objects"."""
        with bpy.data.libraries.load(path, link=True, relative=relative) as (_, wanted):
            setattr(wanted, kind, list(names))
        return list(getattr(wanted, kind))


def grid_mesh(cuts, size):
    """Points and faces of a flat grid."""
    step = size / cuts
    points = [(x * step - size / 2, y * step - size / 2, 0) for y in range(cuts + 1) for x in range(cuts + 1)]
    row = cuts + 1
    faces = [(y * row + x, y * row + x + 1, (y + 1) * row + x + 1, (y + 1) * row + x) for y in range(cuts) for x in range(cuts)]
    return points, faces


def box_mesh(size):
    """Points and faces of a cube."""
    half = size / 2
    points = [(x, y, z) for x in (-half, half) for y in (-half, half) for z in (-half, half)]
    faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return points, faces


@feature("Base: nothing is animated")
def base(s):
    """The scene that every other row is compared with."""
