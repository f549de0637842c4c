"""Shading: image textures from files."""

from kit import feature


@feature("Shading / Image texture: sequence without Auto Refresh")
def sequence(s):
    node = s.texture(s.sequence(s.file("textures", "t_%04d.png")))
    node.image_user.frame_duration = 10


@feature("Shading / Image texture: sequence with Auto Refresh")
def sequence_refresh(s):
    node = s.texture(s.sequence(s.file("textures", "t_%04d.png")))
    node.image_user.frame_duration = 10
    node.image_user.use_auto_refresh = True


@feature("Shading / Image texture: sequence outside of the project")
def sequence_outside(s):
    node = s.texture(s.sequence(s.outside("textures", "t_%04d.png")))
    node.image_user.frame_duration = 10
    node.image_user.use_auto_refresh = True


@feature("Shading / Image texture: movie with Auto Refresh")
def movie(s):
    import bpy

    path = s.movie(s.file("textures", "m.mp4"))
    image = bpy.data.images.load(path)
    image.source = "MOVIE"
    image.filepath = s.relative(path)
    node = s.texture(image)
    node.image_user.frame_duration = 10
    node.image_user.use_auto_refresh = True
