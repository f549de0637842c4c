"""Makes a seed of the fuzzer: a small file of this Blender's, cut down to what the reader looks at, in gzip.

Run inside Blender, or by a Python with the bpy wheel: ... seeds.py -- FOLDER
"""

import gzip
import os
import struct
import sys

sys.argv.append("")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))

import bpy
import truth

KEPT = (b"GLOB", b"SC", b"OB", b"GR", b"NT", b"PA", b"IM", b"LI", b"SO", b"VF", b"MC", b"CF", b"VO", b"TX", b"MA", b"ID")
# Of meshes and the like only the numbers are large.
DROPPED = ("MVert", "MLoop", "MPoly", "MEdge", "CustomDataLayer", "ParticleData", "HairKey", "PTCacheMem", "ToolSettings")


def blocks(data):
    large = data[7:9].isdigit()
    at = 17 if large else 12
    while True:
        if large:
            code, sdna, old, size, count = struct.unpack_from("<4sIQqq", data, at)
            body = at + 32
        else:
            code, size, old, sdna, count = struct.unpack_from("<4siQii", data, at)
            body = at + 24
        yield code, sdna, old, count, data[body : body + size]
        if code == b"ENDB":
            return
        at = body + size


class Dna:
    def __init__(self, data):
        self.data, self.at = data, 4
        self.names, self.types = self.texts(), self.texts()
        self.skip(4)
        self.sizes = [self.short() for _ in self.types]
        self.align()
        self.skip(4)
        self.structs = []
        for _ in range(self.int()):
            kind = self.short()
            self.structs.append((kind, [(self.short(), self.short()) for _ in range(self.short())]))

    def align(self):
        self.at = (self.at + 3) & ~3

    def skip(self, count):
        self.at += count

    def number(self, form):
        found = struct.unpack_from(form, self.data, self.at)[0]
        self.at += struct.calcsize(form)
        return found

    def int(self):
        return self.number("<I")

    def short(self):
        return self.number("<H")

    def texts(self):
        self.skip(4)
        found = []
        for _ in range(self.int()):
            end = self.data.index(b"\0", self.at)
            found.append(self.data[self.at : end])
            self.at = end + 1
        self.align()
        return found

    def cut(self, wanted):
        """The description of these structs and of those that lie in them; and their new indices."""
        of_type = {kind: index for index, (kind, _) in enumerate(self.structs)}
        todo, kept = list(wanted), set()
        while todo:
            index = todo.pop()
            if index not in kept:
                kept.add(index)
                todo += [
                    of_type[kind]
                    for kind, name in self.structs[index][1]
                    if kind in of_type and not self.names[name].startswith((b"*", b"(*"))
                ]
        kept = sorted(kept)
        names = sorted({name for index in kept for _, name in self.structs[index][1]})
        types = sorted({kind for index in kept for kind, _ in self.structs[index][1]} | {self.structs[i][0] for i in kept})
        name_at, type_at = {n: i for i, n in enumerate(names)}, {t: i for i, t in enumerate(types)}
        out = bytearray(b"SDNA")

        def align():
            out.extend(bytes(-len(out) % 4))

        for tag, which, texts in ((b"NAME", names, self.names), (b"TYPE", types, self.types)):
            out.extend(tag + struct.pack("<I", len(which)))
            out.extend(b"".join(texts[one] + b"\0" for one in which))
            align()
        out.extend(b"TLEN" + b"".join(struct.pack("<H", self.sizes[kind]) for kind in types))
        align()
        out.extend(b"STRC" + struct.pack("<I", len(kept)))
        for index in kept:
            kind, fields = self.structs[index]
            out.extend(struct.pack("<HH", type_at[kind], len(fields)))
            for field, name in fields:
                out.extend(struct.pack("<HH", type_at[field], name_at[name]))
        return bytes(out), {index: new for new, index in enumerate(kept)}


def cut(data):
    """The same file with the blocks of interest alone, and a DNA that describes just them."""
    all_blocks = list(blocks(data))
    dna = Dna(next(body for code, *_, body in all_blocks if code == b"DNA1"))
    name = lambda sdna: dna.types[dna.structs[sdna][0]].decode()
    kept, inside = [], False
    for block in all_blocks:
        code, sdna, _, _, body = block
        if code not in (b"DATA", b"DNA1", b"ENDB"):
            inside = code.rstrip(b"\0") in KEPT
        if inside and code not in (b"DNA1", b"ENDB") and name(sdna) not in DROPPED and len(body) < 8192 and len(kept) < 700:
            kept.append(block)
    described, index = dna.cut({sdna for _, sdna, *_ in kept} | {0})
    kept.append((b"DNA1", 0, 1, 1, described))
    kept.append((b"ENDB", 0, 0, 0, b""))
    large = data[7:9].isdigit()
    out = bytearray(data[: 17 if large else 12])
    for code, sdna, old, count, body in kept:
        sdna = index.get(sdna, 0)
        head = (code, sdna, old, len(body), count) if large else (code, len(body), old, sdna, count)
        out += struct.pack("<4sIQqq" if large else "<4siQii", *head) + body
    return bytes(out)


def small():
    """One of each that the reader understands."""
    scene = truth.fresh()
    scene.name = "Shot"
    camera = bpy.data.objects.new("Eye", bpy.data.cameras.new("Eye"))
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.timeline_markers.new("cut", frame=5).camera = camera
    scene.render.use_multiview = True
    scene.render.engine = "CYCLES"
    truth.rigid(scene, [(truth.thing("Ball", scene.collection), "ACTIVE", True, False)])
    group = bpy.data.collections.new("Group")
    scene.collection.children.link(group)
    flag = truth.thing("Flag", group)
    flag.modifiers.new("Cloth", "CLOTH")
    # Hidden, and counts by a driver of what shows: every pointer is read.
    under = truth.thing("Under", scene.collection)
    under.modifiers.new("Cloth", "CLOTH")
    under.hide_render = True
    variable = flag.driver_add("location", 0).driver.variables.new()
    variable.targets[0].id = under
    flag.modifiers.new("Sparks", "PARTICLE_SYSTEM")
    if truth.ZONES:
        inner = truth.zone_tree("Inner")
        grows = truth.thing("Grows", scene.collection).modifiers.new("Nodes", "NODES")
        grows.node_group = truth.zone_tree("Outer", [(inner, False)], zone=False)
    image = bpy.data.images.new("wood", 1, 1)
    image.source, image.filepath, image.use_fake_user = "FILE", "//wood.png", True
    editor = scene.sequence_editor_create()
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    strips.new_image("strip", "//s_0001.png", 1, 1)
    material = bpy.data.materials.new("material")
    material.use_nodes = material.use_fake_user = True
    node = material.node_tree.nodes.new("ShaderNodeTexIES")
    node.mode, node.filepath = "EXTERNAL", "//a.ies"
    scene.frame_set(1)


def main():
    folder = sys.argv[sys.argv.index("--") + 1]
    name = os.path.join(folder, "v{}{}.blend".format(*bpy.app.version))
    small()
    bpy.ops.wm.save_as_mainfile(filepath=name, compress=False)
    with open(name, "rb") as file:
        data = cut(file.read())
    # No time inside: the same file gives the same bytes.
    with open(name, "wb") as file:
        file.write(gzip.compress(data, 9, mtime=0))


truth.run(main)
