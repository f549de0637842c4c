"""Renders frames cold, each in a process of its own: a fork of a Blender that has just started and has opened no file.

    cold.py WORK     (behind `--` for the program)

WORK is a JSON list of {blend, folder, frames, trust, sim, of_range, alone, kept}. What a frame writes below `folder` is moved to
kept/FRAME/, by its name below the .blend's folder, and kept/FRAME.whole tells that it is whole. A frame that fails has none.
A simulation without a bake is rendered as a person sees it who steps through the frames, in one process.
"""

import json
import os
import shutil
import sys

import bpy

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from forks import forked  # noqa: E402


def writes_exr(scene):
    """Whether a frame writes OpenEXR, for which the library wants threads that a fork does not have."""
    formats = [scene.render.image_settings.file_format]
    tree = getattr(scene, "compositing_node_group", None) or getattr(scene, "node_tree", None)
    formats += [node.format.file_format for node in (tree.nodes if tree else ()) if node.type == "OUTPUT_FILE"]
    return any(name.startswith("OPEN_EXR") for name in formats)


def still(scene, frame, trust, of_range):
    """One frame, without touching the scene's range, unless it is to be rendered as a range of one frame."""
    render = scene.render
    if writes_exr(scene):
        raise ValueError("left to a new process")
    if bpy.app.version >= (5, 0, 0):
        bpy.ops.render.render(animation=True, frame_start=frame, frame_end=frame)
        return
    if of_range:
        scene.frame_start = scene.frame_end = frame
        bpy.ops.render.render(animation=True)
        return
    # As `-f N`: the data are those of the frame that the file was saved at, until the render sets the frame.
    # Once: the render of a scene strip begins inside that of its scene. Only scripts see it, and animated strips of 4.2 and
    # 4.5 would stay at the saved frame.
    if trust:
        saved = [scene.frame_current]
        bpy.app.handlers.render_init.insert(0, lambda *_: saved and scene.frame_set(saved.pop()))
    scene.frame_set(frame)
    render.filepath = render.frame_path(frame=frame)
    bpy.ops.render.render(write_still=True)


def press_bake(scene):
    """Blender draws hair, blurs particles, and lets those fall that are born early, in another way once a cache counts as
    baked: there the person has pressed the button."""
    systems = [system for thing in scene.objects for system in thing.particle_systems]
    if systems and (scene.render.use_motion_blur or any(system.settings.frame_start < 1 for system in systems)):
        bpy.ops.ptcache.bake_all(bake=True)
    for thing in scene.objects:
        for system in thing.particle_systems:
            if system.use_hair_dynamics and hasattr(bpy.context, "temp_override"):
                with bpy.context.temp_override(object=thing, active_object=thing, point_cache=system.point_cache):
                    bpy.ops.ptcache.bake(bake=True)


def step(scene, frames):
    """All frames, as a person sees them."""
    path = scene.render.filepath
    press_bake(scene)
    for frame in range(scene.frame_start, max(frames) + 1):
        scene.frame_set(frame)
        if frame in frames:
            scene.render.filepath = path
            scene.render.filepath = scene.render.frame_path(frame=frame)
            bpy.ops.render.render(write_still=True)


def files(folder):
    found = set()
    for where, _, names in os.walk(folder):
        if not os.path.relpath(where, folder).startswith("cold"):
            found.update(os.path.join(where, name) for name in names)
    return found


def keep(row, frame, made):
    project = os.path.dirname(row["blend"])
    for file in made:
        name = os.path.relpath(file, project)
        if name.startswith((".", "blendcache_")):
            continue
        to = os.path.join(row["kept"], str(frame), name)
        os.makedirs(os.path.dirname(to), exist_ok=True)
        shutil.move(file, to)
    if os.path.isdir(os.path.join(row["kept"], str(frame))):
        open(os.path.join(row["kept"], f"{frame}.whole"), "w").close()


def directly(work):
    work()
    return True


def render(row):
    def opened():
        bpy.ops.wm.open_mainfile(filepath=row["blend"], load_ui=False, use_scripts=row["trust"])
        return bpy.context.scene

    missing = [frame for frame in row["frames"] if not os.path.exists(os.path.join(row["kept"], f"{frame}.whole"))]
    if row["sim"] and missing:
        before = files(row["folder"])
        # A fork has no threads: what depends on which of them is first comes to light without one.
        if (directly if row["alone"] else forked)(lambda: step(opened(), row["frames"])):
            made = files(row["folder"]) - before
            for frame in row["frames"]:
                keep(row, frame, [file for file in made if f"{frame:04}." in os.path.basename(file)])
        return
    for frame in missing:
        before = files(row["folder"])
        well = forked(lambda: still(opened(), frame, row["trust"], row["of_range"]))
        made = files(row["folder"]) - before
        if not well:
            # The next render must find none of it.
            for file in made:
                os.remove(file)
            return
        keep(row, frame, made)


arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
with open(arguments[0], encoding="utf-8") as work:
    for one in json.load(work):
        render(one)
sys.stdout.flush()
os._exit(0)
