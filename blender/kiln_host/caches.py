"""The stored frames of baked simulations: their files, and which of them are there.

Blender says of a cache that it is baked also where its files are gone: after “Save As”, for example. It then shows the
simulation standing still, or the box of a fluid."""

import collections
import json
import os
import re
import struct

import bpy

# `done`: frames are stored. `missing`: frames of the cache's own range that are not.
Bake = collections.namedtuple("Bake", "done missing", defaults=((),))
NOT_BAKED, BAKED = Bake(False), Bake(True)


class Folders:
    """Lists each folder once."""

    def __init__(self):
        self._seen = {}

    def names(self, folder):
        """The files of a folder that hold anything."""
        if folder not in self._seen:
            try:
                with os.scandir(folder) as entries:
                    self._seen[folder] = [one.name for one in entries if one.is_file() and one.stat().st_size]
            except OSError:
                self._seen[folder] = []
        return self._seen[folder]


def missing(first, last, stored, step=1):
    """Frames of a range that are neither stored nor between two that are not more than a step apart."""
    known = sorted(frame for frame in stored if first <= frame <= last)
    gone = []
    before = first - 1
    for frame in [*known, last + 1]:
        if frame - before > (step if known and before >= known[0] and frame <= last else 1):
            gone.extend(range(before + 1, frame))
        before = frame
    return tuple(gone)


# Point caches: rigid bodies, cloth, soft bodies, dynamic paint, particles, hair ------------------------------------


def of_points(cache, owner, folders, step=1):
    if cache.use_external:
        stored = _on_disk(cache, owner, folders)
        # It is another's, and is not baked again. Where nothing is there it is a missing file, and told as one.
        return Bake(True, missing(max(cache.frame_start, 1), cache.frame_end, stored, step) if stored else ())
    if not cache.is_baked:
        return NOT_BAKED
    # Frames below 1 are not all kept, also where nothing is lost.
    first, last = max(cache.frame_start, 1), cache.frame_end
    if last < first:
        # Particles that are emitted after the scene's end, for example.
        return BAKED
    if cache.use_disk_cache:
        stored = _on_disk(cache, owner, folders)
    elif isinstance(owner, bpy.types.Object) and owner.override_library:
        # The file keeps no frames of an override.
        return NOT_BAKED
    else:
        found = re.match(r"(\d+) frames? in memory", cache.info)
        if not found or step > 1:
            # Frames between steps are not counted.
            return BAKED if not found or int(found[1]) else NOT_BAKED
        stored = range(first, first + int(found[1]))
    if not stored:
        return NOT_BAKED
    return Bake(True, missing(first, last, stored, step))


def point_files(cache, owner):
    """The folder of a cache on disk, and a pattern of its files with the number of the frame."""
    if cache.use_external:
        folder = bpy.path.abspath(cache.filepath, library=owner.library)
        name = cache.name
    else:
        library = owner.library if cache.use_library_path else None
        blend = bpy.path.abspath(library.filepath) if library else bpy.data.filepath
        stem = os.path.splitext(os.path.basename(blend))[0]
        folder = os.path.join(os.path.dirname(blend), f"blendcache_{stem}")
        name = cache.name or owner.name.encode().hex().upper()
    index = rf"_{cache.index:02d}" if cache.index >= 0 else r"(?:_\d\d)?"
    return folder, re.compile(rf"{re.escape(name)}_(-?\d+){index}\.bphys")


def is_lost(cache, owner, folders):
    """Returns whether a cache that was made elsewhere has no file."""
    return cache.use_external and not _on_disk(cache, owner, folders)


def _on_disk(cache, owner, folders):
    folder, pattern = point_files(cache, owner)
    return {int(found[1]) for name in folders.names(folder) if (found := pattern.fullmatch(name))}


# Bytes of a point, by the bits that say what is stored of it (PTCacheMem.data_types).
POINT = (4, 12, 12, 16, 12, 4, 12, 20)
CLOTH, DYNAMIC_PAINT, RIGID_BODY = 2, 5, 6
COMPRESSED = 1 << 16


def is_whole(path):
    """Returns whether a file of a point cache ends where it says that it does."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError:
        return False
    if len(data) < 20 or data[:8] != b"BPHYSICS":
        return False
    kind, points, types = struct.unpack_from("<3I", data, 8)
    if kind & 0xFFFF == DYNAMIC_PAINT:
        return True
    at = 20
    sizes = [size for bit, size in enumerate(POINT) if types & (1 << bit)]
    if not kind & COMPRESSED:
        return len(data) >= at + points * sum(sizes)
    for size in sizes:
        if at >= len(data):
            return False
        packed, at = data[at], at + 1
        if not packed:
            at += points * size
        elif at + 4 > len(data):
            return False
        else:
            at += 4 + struct.unpack_from("<I", data, at)[0]
            if packed == 2 and at + 4 <= len(data):
                # LZMA keeps its settings behind the data.
                at += 4 + struct.unpack_from("<I", data, at)[0]
    return at <= len(data)


# Fluids ------------------------------------------------------------------------------------------------------------


def of_fluid(domain, owner, folders):
    if not (domain.has_cache_baked_data or domain.has_cache_baked_any):
        return NOT_BAKED
    folder = bpy.path.abspath(domain.cache_directory, library=owner.library)
    first, last, offset = domain.cache_frame_start, domain.cache_frame_end, domain.cache_frame_offset
    stored = None
    for part in _fluid_parts(domain):
        names = folders.names(os.path.join(folder, part))
        frames = {int(found[1]) for name in names if (found := re.search(r"_(-?\d+)\.", name))}
        stored = frames if stored is None else stored & frames
    if not stored:
        return NOT_BAKED
    return Bake(True, tuple(frame + offset for frame in missing(first, last, stored)))


def _fluid_parts(domain):
    """The caches that are drawn of a fluid: its data may be gone where a mesh was made of it."""
    if domain.domain_type == "GAS":
        return ["noise" if domain.use_noise else "data"]
    shown = ["mesh" if domain.use_mesh else "data"]
    if domain.use_spray_particles or domain.use_foam_particles or domain.use_bubble_particles:
        shown.append("particles")
    return shown


# Geometry nodes ----------------------------------------------------------------------------------------------------


def of_nodes(folder, folders):
    """A folder of one bake: a file for each frame in `meta`, and what these name in `blobs`."""
    stored = {int(name[:-5].split("_")[0]) for name in folders.names(os.path.join(folder, "meta")) if _is_meta(name)}
    if not stored:
        return NOT_BAKED
    # How far it was to reach is not kept: that is told by the frames.
    return Bake(True, missing(min(stored), max(stored), stored))


def _is_meta(name):
    return re.fullmatch(r"-?\d+(_\d+)?\.json", name)


def nodes_whole(folder, frame):
    """Returns whether all is there of the frame that a bake shows."""
    found = {}
    for name in Folders().names(os.path.join(folder, "meta")):
        if _is_meta(name):
            found[int(name[:-5].split("_")[0])] = name
    before = [one for one in found if one <= frame]
    if not before:
        return True
    try:
        with open(os.path.join(folder, "meta", found[max(before)]), encoding="utf-8") as file:
            told = json.load(file)
    except (OSError, ValueError):
        return False
    return all(_is_there(folder, *part) for part in _blobs(told))


def _blobs(told):
    todo = [told]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo.extend(one)
        elif isinstance(one, dict):
            name = one.get("name")
            if isinstance(name, str) and name.endswith(".blob"):
                yield name, int(one.get("start", 0)) + int(one.get("size", 0))
            todo.extend(one.values())


def _is_there(folder, name, size):
    try:
        return os.path.getsize(os.path.join(folder, "blobs", os.path.basename(name))) >= size
    except OSError:
        return False
