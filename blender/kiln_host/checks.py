"""What Blender passes over in silence, and Kiln does not."""

import os

import bpy

from . import outputs, sequences, simulations as sims
from .errors import Refusal, names

FILE_SOURCES = {"FILE", "SEQUENCE", "TILED", "MOVIE"}


def camera(session):
    scene = session.scene
    if scene.camera or any(marker.camera for marker in scene.timeline_markers):
        return
    editor = scene.sequence_editor
    if scene.render.use_sequencer and editor:
        if len(editor.strips if hasattr(editor, "strips") else editor.sequences):
            return
    tree = outputs.composited(scene)
    if tree and not any(node.bl_idname == "CompositorNodeRLayers" for node in outputs.nodes_of(tree)):
        return
    raise Refusal(
        "no-camera", f"the scene “{scene.name}” has no camera; add one in Blender, or name one with --camera"
    )


def denoiser(session):
    scene = session.scene
    there = session.capabilities["denoisers"]
    by_cycles = scene.render.engine == "CYCLES" and any(
        layer.use and layer.cycles.use_denoising for layer in scene.view_layers
    )
    wanted = []
    if by_cycles and scene.cycles.use_denoising:
        # Where none is built in, the property has nothing it could name.
        wanted.append(scene.cycles.denoiser or "OPENIMAGEDENOISE")
    nodes = outputs.nodes_of(outputs.composited(scene))
    if any(node.bl_idname == "CompositorNodeDenoise" for node in nodes):
        wanted.append("OPENIMAGEDENOISE")
    for name in wanted:
        if name not in there:
            raise Refusal(
                "denoiser-missing",
                f"Blender {bpy.app.version_string} here was built without the denoiser {name}, which the scene "
                f"“{scene.name}” uses; render with another Blender (--blender-version), or switch denoising off "
                "in the file",
            )


def scripts(session):
    """A script or Python driver that Blender held back."""
    policy = session.policy["scripts"]
    if policy == "trust" or not bpy.app.autoexec_fail:
        return
    which = bpy.app.autoexec_fail_message or "a script"
    if policy == "stop":
        raise Refusal(
            "scripts-blocked",
            f"the file wants to run scripts ({which}), and they may change the picture; allow them with --trust, "
            "or render without them with --no-scripts",
        )
    session.notice(f"scripts of the file did not run: {which}")


def external_files(session):
    _settle(session, _missing())
    for clip in sequences.misread_clips():
        session.notice(
            f"the film {clip.name} is stored as a movie, and names a picture: Blender shows that picture at most; "
            "choose its file once more in Blender"
        )


def shown_files(session, found, frame):
    """`found` are the sequences of the session's file."""
    lacking, notes = found.look(frame)
    _settle(session, lacking)
    for note in notes:
        session.notice(note)


def simulations(session):
    found = list(sims.standing(session.scene))
    if not found:
        return
    own, linked = sims.by_owner(found)
    policy = session.policy["simulations"]
    if policy == "as-they-are":
        session.notice(f"rendered as they stand, without a bake: {names(own + linked)}")
        return
    still = "background Blender renders simulations without a bake standing still"
    if linked:
        raise Refusal(
            "unbaked",
            f"not baked: {names(linked)}, which no other file can bake; {still}; bake in the library and save, or go on "
            "all the same with --no-bake",
        )
    raise Refusal(
        "unbaked",
        f"not baked: {names(own)}; {still}; bake them in Blender and save, or go on all the same with --no-bake",
    )


def _settle(session, missing):
    if not missing:
        return
    if session.policy["external_files"] == "required":
        raise Refusal(
            "missing-files",
            f"missing: {names(missing)}; put the files back, pack them, or go on without them with --allow-missing",
        )
    session.notice(f"rendered without missing files: {names(missing)}")


def _packed(block):
    return bool(getattr(block, "packed_file", None) or len(getattr(block, "packed_files", ())))


def _path(block, parent=None):
    library = block.library if parent is None else parent
    return bpy.path.abspath(block.filepath, library=library)


def _missing():
    found = []
    for library in bpy.data.libraries:
        # Relative to the main .blend, also where another library named it.
        path = bpy.path.abspath(library.filepath)
        if getattr(library, "is_missing", False) or not (library.packed_file or os.path.exists(path)):
            found.append(f"library {os.path.basename(path)}")
    if len(bpy.data.libraries) and "is_missing" in bpy.types.ID.bl_rna.properties:
        found += [f"{block.name} of {block.library.name}" for block in _linked() if block.is_missing]
    for image in bpy.data.images:
        if image.source in FILE_SOURCES and image.users and image.filepath and not _packed(image):
            found += [f"image {image.name} ({name})" for name in _missing_of_image(image)]
    groups = (
        ("font", [f for f in bpy.data.fonts if f.filepath != "<builtin>"]),
        ("film", bpy.data.movieclips),
        ("volume", bpy.data.volumes),
        ("cache", bpy.data.cache_files),
    )
    for kind, blocks in groups:
        for block in blocks:
            if not block.users or not block.filepath or _packed(block):
                continue
            path = _path(block)
            if not os.path.exists(path) and not getattr(block, "is_sequence", False):
                found.append(f"{kind} {block.name} ({os.path.basename(path)})")
    return found


def _linked():
    for name in ("objects", "collections", "meshes", "materials", "node_groups", "worlds", "images"):
        for block in getattr(bpy.data, name):
            if block.library:
                yield block


def _missing_of_image(image):
    path = _path(image)
    if image.source == "TILED":
        for tile in image.tiles:
            column, row = (tile.number - 1001) % 10, (tile.number - 1001) // 10
            one = path.replace("<UDIM>", str(tile.number)).replace("<UVTILE>", f"u{column + 1}_v{row + 1}")
            if not os.path.exists(one):
                yield os.path.basename(one)
    elif image.source == "SEQUENCE":
        # Single frames are looked at before each is rendered.
        if not os.path.isdir(os.path.dirname(path)):
            yield os.path.basename(path)
    elif not os.path.exists(path):
        yield os.path.basename(path)
