"""Shading: images, from files, packed, generated, sequences, movies, tiles."""

import os

import bpy
from kit import checker, feature, png


def seq(s, place="file", refresh=False, count=10):
    folder = s.file if place == "file" else s.outside
    node = s.texture(s.sequence(folder("textures", "t_%04d.png"), count))
    node.image_user.frame_duration, node.image_user.use_auto_refresh = count, refresh
    return node


for refresh in (False, True):
    for place in ("file", "outside"):
        where = "in the project" if place == "file" else "outside of the project"

        @feature(f"Shading / Images / Sequence: {where}, Auto Refresh {'on' if refresh else 'off'}", place, refresh)
        def sequence(s, place, refresh):
            seq(s, place, refresh)


@feature("Shading / Images / Sequence: offset, start and cyclic")
def user(s):
    node = seq(s, refresh=True)
    node.image_user.frame_duration, node.image_user.frame_start, node.image_user.frame_offset = 5, 3, 1
    node.image_user.use_cyclic = True


@feature("Shading / Images / Sequence: frame offset keyed")
def offset(s):
    node = seq(s, refresh=True)
    s.key(node.image_user, "frame_offset", [0, 3, -6])


@feature("Shading / Images / Sequence: frame offset driven, Auto Refresh off")
def offset_driven(s):
    node = seq(s)
    s.drive(node.image_user, "frame_offset", "frame % 3")


@feature("Shading / Images / Sequence: shorter than the scene, not cyclic")
def short(s):
    seq(s, refresh=True, count=6)


@feature("Shading / Images / Sequence: number in the middle of the name")
def middle(s):
    for frame in range(1, 11):
        png(s.file("textures", f"s_{frame:04}_diff.png"), checker((25 * frame, 255 - 25 * frame, 80)))
    image = bpy.data.images.load(s.file("textures", "s_0001_diff.png"))
    image.source, image.filepath = "SEQUENCE", "//textures/s_0001_diff.png"
    node = s.texture(image)
    node.image_user.frame_duration, node.image_user.use_auto_refresh = 10, True


@feature("Shading / Images / Sequence: used twice with other users")
def twice(s):
    one = seq(s, refresh=True)
    other = s.tree.nodes.new("ShaderNodeTexImage")
    other.image = one.image
    other.image_user.frame_duration, other.image_user.frame_offset = 7, 3
    other.image_user.use_auto_refresh = True
    mix = s.tree.nodes.new("ShaderNodeMixRGB")
    s.tree.links.new(one.outputs[0], mix.inputs[1])
    s.tree.links.new(other.outputs[0], mix.inputs[2])
    s.emit(mix.outputs[0])


@feature("Shading / Images / Sequence: in a node group, Auto Refresh off")
def grouped(s):
    group, _, last = s.group("ShaderNodeTree", "Picture", (), [("Color", "NodeSocketColor")])
    node = group.nodes.new("ShaderNodeTexImage")
    node.image = s.sequence(s.file("textures", "t_%04d.png"))
    node.image_user.frame_duration = 10
    group.links.new(node.outputs["Color"], last.inputs[0])
    holder = s.tree.nodes.new("ShaderNodeGroup")
    holder.node_tree = group
    s.emit(holder.outputs[0])


@feature("Shading / Images / Sequence: as bump, alpha and roughness")
def parts(s):
    node = s.tree.nodes.new("ShaderNodeTexImage")
    node.image = s.sequence(s.file("textures", "t_%04d.png"))
    node.image_user.frame_duration, node.image_user.use_auto_refresh = 10, True
    node.image.colorspace_settings.name = "Non-Color"
    bump = s.tree.nodes.new("ShaderNodeBump")
    s.tree.links.new(node.outputs["Color"], bump.inputs["Height"])
    s.tree.links.new(bump.outputs[0], s.shader.inputs["Normal"])
    s.tree.links.new(node.outputs["Color"], s.shader.inputs["Roughness"])
    s.tree.links.new(node.outputs["Color"], s.shader.inputs["Alpha"])


def add_movie(s, path, refresh, clip=False):
    s.movie(path)
    image = bpy.data.images.load(path)
    image.source = "MOVIE"
    node = s.texture(image)
    node.image_user.frame_duration, node.image_user.use_auto_refresh = 10, refresh
    return node


for refresh in (False, True):

    @feature(f"Shading / Images / Movie: Auto Refresh {'on' if refresh else 'off'}", refresh)
    def movie(s, refresh):
        add_movie(s, s.outside("footage", "m.mp4"), refresh)


@feature("Shading / Images / Movie: relative, offset and cyclic")
def movie_cyclic(s):
    path = s.file("footage", "m.mp4")
    node = add_movie(s, path, True)
    node.image.filepath = s.relative(path)
    node.image_user.frame_duration, node.image_user.frame_start, node.image_user.use_cyclic = 5, 3, True


@feature("Shading / Images / UDIM: tiles, mapping keyed")
def tiles(s):
    for number, color in ((1001, (230, 40, 40)), (1002, (40, 230, 40)), (1011, (40, 40, 230))):
        png(s.outside("tiles", f"t.{number}.png"), checker(color))
    image = bpy.data.images.load(s.outside("tiles", "t.1001.png"))
    image.source = "TILED"
    for number in (1002, 1011):
        if number not in [tile.number for tile in image.tiles]:
            image.tiles.new(number)
    image.filepath = os.path.join(os.path.dirname(s.outside("tiles", "x")), "t.<UDIM>.png")
    node = s.texture(image)
    mapping, coordinates = s.tree.nodes.new("ShaderNodeMapping"), s.tree.nodes.new("ShaderNodeTexCoord")
    s.tree.links.new(coordinates.outputs["UV"], mapping.inputs["Vector"])
    s.tree.links.new(mapping.outputs[0], node.inputs["Vector"])
    s.key(mapping.inputs["Location"], "default_value", [(0.2, 0.1, 0), (0.9, 0.2, 0), (0.3, 0.9, 0)])


def still(s, image, extra=None):
    """Shows the image, moved over the surface by keys."""
    node = s.texture(image)
    mapping, coordinates = s.tree.nodes.new("ShaderNodeMapping"), s.tree.nodes.new("ShaderNodeTexCoord")
    s.tree.links.new(coordinates.outputs["UV"], mapping.inputs["Vector"])
    s.tree.links.new(mapping.outputs[0], node.inputs["Vector"])
    s.key(mapping.inputs["Location"], "default_value", [(0, 0, 0), (0.3, 0.1, 0), (0.6, 0.4, 0)])
    return node


@feature("Shading / Images / Single: relative path")
def single(s):
    still(s, s.picture(s.file("textures", "a.png")))


@feature("Shading / Images / Single: outside of the project, name in other letters")
def unicode(s):
    still(s, s.picture(s.outside("Текстуры 木", "Haut – кожа.png")))


@feature("Shading / Images / Single: packed, the file is gone")
def packed(s):
    image = s.picture(s.outside("gone", "p.png"))
    image.pack()
    os.remove(s.outside("gone", "p.png"))
    still(s, image)


for kind in ("BLANK", "UV_GRID", "COLOR_GRID"):

    @feature(f"Shading / Images / Generated: {kind.replace('_', ' ').lower()}", kind)
    def generated(s, kind):
        image = bpy.data.images.new("Made", 32, 32)
        image.generated_type, image.generated_color = kind, (0.2, 0.8, 0.4, 1)
        if kind == "BLANK":
            node = s.texture(image)
            emission = next(n for n in s.tree.nodes if n.type == "EMISSION")
            s.key(emission.inputs["Strength"], "default_value", [0.3, 1.0, 2.0])
            return node
        return still(s, image)


for path, values in (("interpolation", ("Closest", "Cubic")), ("extension", ("EXTEND", "CLIP")), ("projection", ("BOX", "SPHERE"))):
    for value in values:

        @feature(f"Shading / Images / Node: {path} {value.lower()}", path, value)
        def node_setting(s, path, value):
            setattr(still(s, s.picture(s.file("textures", "a.png"))), path, value)


for space in ("Non-Color", "Linear Rec.709", "Linear", "Filmic Log", "Raw"):

    @feature(f"Shading / Images / Colour space: {space}", space)
    def space_row(s, space):
        image = s.picture(s.file("textures", "a.png"))
        try:
            image.colorspace_settings.name = space
        except TypeError:
            s.absent("not in this version")
        still(s, image)


@feature("Shading / Images / Single: alpha, straight and premultiplied")
def alpha(s):
    rows = [[(230, 60, 40, 30 * x + 10) for x in range(8)] for _ in range(8)]
    image = bpy.data.images.load(png(s.outside("textures", "alpha.png"), rows))
    image.alpha_mode = "PREMUL"
    node = still(s, image)
    s.tree.links.new(node.outputs["Alpha"], s.shader.inputs["Alpha"])


@feature("Shading / Images / Single: missing", refuses="missing")
def missing(s):
    still(s, s.picture(s.outside("gone", "m.png")))
    os.remove(s.outside("gone", "m.png"))


@feature("Shading / Images / Sequence: with a gap", refuses="missing")
def gap(s):
    seq(s, "outside", True)
    os.remove(s.outside("textures", "t_0005.png"))


@feature("Shading / Images / Brush texture of a displace modifier: image sequence")
def legacy(s):
    texture = bpy.data.textures.new("Bumps", "IMAGE")
    texture.image = s.sequence(s.outside("bumps", "b_%04d.png"))
    texture.image_user.frame_duration, texture.image_user.use_auto_refresh = 10, True
    grid = s.grid("Hills", 12, 3)
    s.without_subject()
    modifier = grid.modifiers.new("Displace", "DISPLACE")
    modifier.texture, modifier.strength, modifier.texture_coords = texture, 1.5, "UV"
