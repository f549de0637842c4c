"""One .blend for each kind of image sequence: its files 1, 2, 4 and 5 are there, 3 is not.

Run inside Blender, or by a Python with the bpy wheel: ... sequences.py -- FOLDER
"""

import os
import sys

import bpy

out = os.path.realpath(sys.argv[sys.argv.index("--") + 1])
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "..", "..", "testkit"))
from sequence_kit import (  # noqa: E402
    cached, calculated, composited_by, displaced, fresh, geometry, image_of, material_of, plane, run, scene_time, set_user,
    shown_by, strips,
)


def material(name="in_0001_side.png", duration=5, start=1):
    node = shown_by(material_of("Shown", plane()), image_of("pictures", name))
    set_user(node.image_user, duration, start)
    return node


def keyed():
    """Frame 2 shows picture 3."""
    user = material("s_0001.png").image_user
    for frame, offset in ((1, 0), (2, 1), (3, 1)):
        user.frame_offset = offset
        user.keyframe_insert("frame_offset", frame=frame)


def driven():
    material("s_0001.png").image_user.driver_add("frame_offset").driver.expression = "frame * 0 + 1"


def displace():
    modifier = displaced(plane(), "Bumps", image_of("pictures", "s_0001.png"))
    set_user(modifier.texture.image_user, 5)


def compositor():
    node = composited_by(bpy.context.scene, "CompositorNodeImage")
    node.image = image_of("pictures", "s_0001.png")
    set_user(node, 5)


def load_clip():
    return bpy.data.movieclips.load(os.path.join(out, "s_0001.png"))


def clip():
    composited_by(bpy.context.scene, "CompositorNodeMovieClip").clip = load_clip()


def stored():
    """Its picture is not there when the file is saved: a movie, for Blender."""
    clip()
    found = bpy.data.movieclips[0]
    found.filepath = "//late_0001.png"
    bpy.context.scene.frame_set(2)
    assert found.source == "MOVIE"


def strip():
    made = strips(bpy.context.scene).new_image("Pictures", os.path.join(out, "s_0001.png"), 1, 1)
    for number in range(2, 6):
        made.elements.append(f"s_{number:04}.png")


def clip_strip():
    made = strips(bpy.context.scene).new_clip("Clip", load_clip(), 1, 1)
    # Blender counts the pictures before the first gap.
    made.frame_final_duration = 5


def volume():
    volume = bpy.data.volumes.new("smoke")
    volume.filepath, volume.is_sequence, volume.frame_duration = "//s_0001.vdb", True, 5
    bpy.context.scene.collection.objects.link(bpy.data.objects.new("Smoke", volume))


def cache():
    cached(plane(), os.path.join(out, "s_0001.abc"), "/made")


def time():
    scene_time(*geometry(plane(), "Nodes", image_of("pictures", "s_0001.png")))


def unknown():
    calculated(*geometry(plane(), "Nodes", image_of("pictures", "s_0001.png")))


def outside():
    """Shorter than the scene, and it begins later."""
    material("o_0001.png", duration=2, start=3)


def main():
    fresh(os.path.join(out, "made.blend"))
    picture = bpy.data.images.new("made", 4, 4)
    for number in (1, 2, 4, 5):
        for name in ("s_{:04}.png", "in_{:04}_side.png", "o_{:04}.png"):
            if name[0] != "o" or number < 3:
                picture.filepath_raw, picture.file_format = os.path.join(out, name.format(number)), "PNG"
                picture.save()
        for ending in ("vdb", "abc"):
            # What is in them is of no matter.
            with open(os.path.join(out, f"s_{number:04}.{ending}"), "w") as file:
                file.write("x")
    makers = [material, keyed, driven, displace, time, compositor, clip, strip, clip_strip, volume, unknown, outside, stored]
    if bpy.app.build_options.alembic:
        makers.append(cache)
    for maker in makers:
        fresh(os.path.join(out, maker.__name__ + ".blend"), end=5)
        maker()
        bpy.ops.wm.save_mainfile()
    os.link(os.path.join(out, "s_0001.png"), os.path.join(out, "late_0001.png"))
    os.remove(os.path.join(out, "made.blend"))


if __name__ == "__main__":
    run(main)
