"""The faults of a scene that Blender passes over in silence, and Kiln does not."""

import os

import bpy

from . import animated, caches, outputs, sequences, simulations as sims
from .errors import Refusal, names

# Engines that render no more than scenes: the sequencer may replace them.
SEQUENCED = {"CYCLES", "BLENDER_EEVEE", "BLENDER_EEVEE_NEXT", "BLENDER_WORKBENCH"}
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


def _only_cut(scene):
    """Returns whether the picture is that of the sequencer in every frame, and no strip of it shows a scene: then neither the
    engine nor the compositor runs. `crates/blend/src/sequencer.rs` has the same rule."""
    editor = scene.sequence_editor
    if not scene.render.use_sequencer or not editor or scene.render.engine not in SEQUENCED:
        return False
    if animated.ends(scene, "sequence_editor.", ".mute") or animated.is_animated(scene, "render.use_sequencer"):
        return False
    if any(strip.type == "SCENE" for strip in sims.all_strips(editor)):
        return False
    muted = {index for index, channel in enumerate(getattr(editor, "channels", ())) if channel.mute}
    strips = editor.strips if hasattr(editor, "strips") else editor.sequences
    return any(strip.type != "SOUND" and not strip.mute and strip.channel not in muted for strip in strips)


def denoiser(session):
    scene = session.scene
    if _only_cut(scene):
        return
    there = session.capabilities["denoisers"]
    by_cycles = scene.render.engine == "CYCLES" and any(
        layer.use and layer.cycles.use_denoising for layer in scene.view_layers
    )
    # A denoiser's name, and how to do without it.
    wanted = []
    if by_cycles and scene.cycles.use_denoising:
        # Where none is built in, the property has nothing it could name.
        name = scene.cycles.denoiser or "OPENIMAGEDENOISE"
        wanted.append((name, "switch denoising off (--set cycles.use_denoising=false)"))
    nodes = outputs.nodes_of(outputs.composited(scene))
    if any(node.bl_idname == "CompositorNodeDenoise" for node in nodes):
        wanted.append(("OPENIMAGEDENOISE", "take the denoise nodes out of the compositor"))
    for name, without in wanted:
        if name not in there:
            raise Refusal(
                "denoiser-missing",
                f"Blender {bpy.app.version_string} here was built without the denoiser {name}, which the scene "
                f"“{scene.name}” uses; render with another Blender (--blender-version), or {without}",
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
    _settle(session, _missing(session.unused))
    for clip in sequences.misread_clips():
        session.notice(
            f"the movie clip {clip.name} is stored as a movie, and names a picture: Blender shows that picture at most; "
            "choose its file once more in Blender"
        )


def shown_files(session, found, frame):
    """`found` are the sequences of the session's file."""
    lacking, notes = found.look(frame)
    _settle(session, lacking)
    for note in notes:
        session.notice(note)


def simulations(session):
    found = list(sims.find_unbaked(session.scene))
    if not found:
        return
    own, linked = sims.by_owner(found)
    policy = session.policy["simulations"]
    if policy == "as-they-are":
        session.notice(f"rendered as they are, without a bake: {names(own + linked)}")
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


class Caches:
    """The files of what is baked, looked at before each frame: Blender shows what it does not find standing still."""

    def __init__(self, scene):
        render = scene.render
        self._time = render.frame_map_old / render.frame_map_new
        self._blurred = render.use_motion_blur
        self._baked = []
        for name, owner, part, gone in sims.incomplete(scene):
            named = f"{name} (from {owner.library.name})" if owner.library else name
            gone = frozenset(gone) if gone is not None else None
            points = [_plain(cache, owner) for cache in sims.point_caches(part)]
            nodes = sims.node_folders(owner, part) if sims.is_kind(part, "NODES") else []
            if gone is None or gone or nodes or any(points):
                self._baked.append((named, gone, [files for files in points if files], nodes))

    def check(self, session, frame):
        at = int(frame * self._time)
        shown = (at - 1, at, at + 1) if self._blurred else (at,)
        lacking = [name for name, *files in self._baked if _lacks(*files, at, shown)]
        if not lacking:
            return
        if session.policy["simulations"] == "as-they-are":
            session.notice(f"rendered although frames of the bake are missing: {names(lacking)}")
            return
        raise Refusal(
            "unbaked",
            f"frame {frame} is not whole in the bake of {names(lacking)}: files are missing or damaged, and Blender would "
            "show it standing still; put the files back, or bake again in Blender and save, or go on all the same with "
            "--no-bake",
        )


def _plain(cache, owner):
    """The folder and the names of a cache on disk."""
    return caches.point_files(cache, owner) if cache.use_disk_cache or cache.use_external else None


def _lacks(gone, points, nodes, at, shown):
    if gone is None or not gone.isdisjoint(shown):
        return True
    for folder, pattern in points:
        found = {int(match[1]): name for name in _listed(folder) if (match := pattern.fullmatch(name))}
        if any(frame in found and not caches.is_whole(os.path.join(folder, found[frame])) for frame in shown):
            return True
    return not all(caches.nodes_whole(folder, at) for folder in nodes)


def _listed(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


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


def _path(block):
    return bpy.path.abspath(block.filepath, library=block.library)


def _missing(unused):
    """`unused` are the files that may be missing."""
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
            if _path(image) not in unused:
                found += [f"image {image.name} ({name})" for name in _missing_of_image(image)]
    folders = caches.Folders()
    for thing in bpy.data.objects:
        for part in (*thing.modifiers, *thing.particle_systems):
            lost = [cache for cache in sims.point_caches(part) if caches.is_lost(cache, thing, folders)]
            if any(bpy.path.abspath(cache.filepath, library=thing.library) not in unused for cache in lost):
                found.append(f"external point cache of {thing.name}")
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
            if path in unused:
                continue
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
