"""Image sequences and their like: the file that a frame shows. `crates/blend/src/sequence.rs` has the same rules; a test
compares both with what Blender opens."""

import os
import re

import bpy

from . import outputs
from .handlers import Silence

# The picture has to be there.
NEEDED = "needed"
# The picture has to be there if there are others before and after it; else the frame is outside the sequence.
BETWEEN = "between"

INT_MAX = 2**31 - 1
# Extensions by which a clip is a sequence of pictures.
PICTURES = frozenset(
    "png jpg jpeg jpe jp2 j2c exr hdr tif tiff tga bmp dpx cin webp psd psb pdd sgi rgb rgba bw iris dds".split()
)
IMAGE_FIELDS = ("frame_start", "frame_duration", "frame_offset", "use_cyclic")


# Names ----------------------------------------------------------------------------------------------------------


def split(name):
    """Head, digits and tail of the name of an image or clip: its number is the last one before the extension."""
    stem, extension = os.path.splitext(name)
    found = re.search(r"([0-9]+)[^0-9]*$", stem)
    if not found or int(found[1]) > INT_MAX:
        return stem, "", extension
    return stem[: found.start(1)], found[1], stem[found.end(1) :] + extension


def split_at_end(name):
    """The same for volumes and cache files: their number ends the name before the extension. None without one."""
    stem, extension = os.path.splitext(name)
    head = stem.rstrip("0123456789")
    return (head, stem[len(head) :], extension) if head != stem else None


def joined(parts, number):
    head, digits, tail = parts
    # Without digits Blender appends the number, and nothing for 0.
    text = str(abs(number)).zfill(len(digits)) if digits or number else ""
    return head + ("-" if number < 0 else "") + text + tail


# Numbers --------------------------------------------------------------------------------------------------------
# Each tells the number that a frame shows and how much it is needed, or None where nothing is shown.


def of_image(frame, start, duration, offset, cyclic):
    """As BKE_image_user_frame_get: before the start it is picture 0, after the end the last one."""
    if duration <= 0:
        return 0, BETWEEN
    at, how = frame - start + 1, NEEDED
    if cyclic:
        at = (at - 1) % duration + 1
    elif at < 1:
        at, how = 0, BETWEEN
    return max(min(at, duration) + offset, 0), how


def of_input(frame, number):
    """Geometry nodes are given the number."""
    return max(number, 0), BETWEEN


def of_scene_time(frame):
    return max(frame, 0), BETWEEN


def of_clip(frame, start, offset, length, first):
    """As get_sequence_filepath: it counts on from the number in the clip's own name."""
    number = max(first + frame - start + offset, 0)
    return number, NEEDED if first <= number < first + length else BETWEEN


def of_clip_strip(frame, start, offset, length, first, begin, left, right, skipped):
    """The strip's content begins at frame `begin`; it shows from `left` to before `right`."""
    if not left <= frame < right:
        return None
    return of_clip(frame - begin + skipped + start, start, offset, length, first)


def of_volume(frame, start, duration, offset, mode):
    """As volume_sequence_frame."""
    at = frame - start + 1
    if duration <= 0 or (mode == "CLIP" and not 1 <= at <= duration):
        return None
    if mode == "EXTEND":
        at = min(max(at, 1), duration)
    elif mode == "REPEAT":
        at = (at - 1) % duration + 1
    elif mode == "PING_PONG":
        at = (at - 1) % max(2 * duration - 2, 1) + 1
        at = 2 * duration - at if at > duration else at
    return at + offset, NEEDED


def of_cache(frame, override, value):
    """As BKE_cachefile_filepath_get. Where the file is not there, Blender shows the last one that the process opened."""
    return (int(value) if override else frame), NEEDED


RULES = {
    "image": of_image,
    "input": of_input,
    "scene-time": of_scene_time,
    "clip": of_clip,
    "clip-strip": of_clip_strip,
    "volume": of_volume,
    "cache": of_cache,
}


# Users ----------------------------------------------------------------------------------------------------------


class User:
    """One way in which a scene shows a sequence."""

    def __init__(self, rule, label, path, block, struct=None, fields=(), fixed=(), find=None):
        # None: nobody can foretell which picture is shown.
        self.rule = rule
        self.label = label
        self.path = path
        # The datablock that holds the animation of the struct, the fields that the rule takes, and more values for it.
        self._block = block
        self._struct = struct
        self._fields = fields
        self._fixed = fixed
        # Finds the struct as Blender evaluated it.
        self._find = find

    def moves(self):
        """None, "keyed", or "driven": that takes an evaluation."""
        data = self._block.animation_data if self._fields else None
        if not data:
            return None
        paths = {self._struct.path_from_id(field) for field in self._fields}
        if any(curve.data_path in paths for curve in data.drivers) or any(not track.mute for track in data.nla_tracks):
            return "driven"
        return "keyed" if any(curve.data_path in paths for curve in _curves(data)) else None

    def settings(self):
        return tuple(getattr(self._struct, field) for field in self._fields) + self._fixed

    def settings_at(self, frame):
        """The same where they move; None where nobody can tell."""
        if self.moves() == "driven":
            struct = self._find(bpy.context.evaluated_depsgraph_get()) if self._find else None
            return struct and tuple(getattr(struct, field) for field in self._fields) + self._fixed
        curves = {curve.data_path: curve for curve in _curves(self._block.animation_data) if not curve.mute}
        found = []
        for field in self._fields:
            value = getattr(self._struct, field)
            curve = curves.get(self._struct.path_from_id(field))
            # Blender cuts what lies between two whole numbers.
            found.append(type(value)(curve.evaluate(frame)) if curve and not isinstance(value, str) else value)
        return tuple(found) + self._fixed


def _curves(data):
    action = data.action
    if action is None:
        return
    if getattr(action, "layers", None) and not getattr(action, "is_action_legacy", False):
        for layer in action.layers:
            for strip in layer.strips:
                bag = strip.channelbag(data.action_slot) if data.action_slot else None
                yield from bag.fcurves if bag else ()
    elif hasattr(action, "fcurves"):
        yield from action.fcurves


def users(scene):
    for owner, nodes in _trees(scene):
        for node in nodes:
            if not node.mute:
                yield from _of_node(owner, node)
    for texture in bpy.data.textures:
        if texture.type == "IMAGE" and _is_sequence(texture.image) and _renders(texture):
            find = lambda graph, texture=texture: texture.evaluated_get(graph).image_user
            yield _of_image(texture.image, texture, texture.image_user, find)
    for volume in bpy.data.volumes:
        if volume.users and volume.is_sequence and volume.filepath and not volume.packed_file:
            fields = ("frame_start", "frame_duration", "frame_offset", "sequence_mode")
            label = f"volume {volume.name}"
            yield User("volume", label, path_of(volume), volume, volume, fields, (), volume.evaluated_get)
    for cache in bpy.data.cache_files:
        if cache.users and cache.is_sequence and cache.filepath:
            fields = ("override_frame", "frame")
            yield User("cache", f"cache {cache.name}", path_of(cache), cache, cache, fields, (), cache.evaluated_get)
    for strip in _strips(scene):
        span = _span(strip)
        if span and strip.type == "MOVIECLIP":
            for clip in filter(_is_clip, _clips(scene, strip)):
                yield _of_clip("clip-strip", clip, (*span, getattr(strip, "animation_offset_start", 0)))


def path_of(block):
    return bpy.path.abspath(block.filepath, library=block.library)


def _is_sequence(image):
    if not isinstance(image, bpy.types.Image) or image.source != "SEQUENCE" or not image.filepath:
        return False
    return not (image.packed_file or len(image.packed_files))


def _is_clip(clip):
    if not isinstance(clip, bpy.types.MovieClip) or clip.source != "SEQUENCE":
        return False
    return clip_number(clip) is not None


def _renders(texture):
    """Brushes do not."""
    brushes = sum((brush.texture == texture) + (brush.mask_texture == texture) for brush in bpy.data.brushes)
    return texture.users > brushes + texture.use_fake_user


def _trees(scene):
    """The nodes of every tree that may be in a picture, and their owner."""
    for tree in bpy.data.node_groups:
        if tree.users and tree.bl_idname != "CompositorNodeTree":
            yield tree, tree.nodes
    may_be_off = bpy.app.version < (5, 0, 0)
    for owners in (bpy.data.materials, bpy.data.worlds, bpy.data.lights, bpy.data.linestyles, bpy.data.textures):
        for owner in owners:
            if owner.users and owner.node_tree and not (may_be_off and not owner.use_nodes):
                yield owner, owner.node_tree.nodes
    # Blender evaluates the compositor for the render alone.
    yield None, list(outputs.nodes_of(outputs.composited(scene)))


def _of_node(owner, node):
    kind, tree = node.bl_idname, node.id_data

    def evaluated(graph):
        found = owner.evaluated_get(graph)
        return getattr(found, "node_tree", found).nodes[node.name]

    find = evaluated if owner else None
    image, clip = getattr(node, "image", None), getattr(node, "clip", None)
    if kind == "GeometryNodeImageTexture":
        yield from _of_geometry(tree, node, find)
    elif kind == "GeometryNodeInputImage" and _is_sequence(image):
        yield _unknown(image)
    elif _is_sequence(image):
        # A compositor node holds the settings itself.
        user = getattr(node, "image_user", node)
        yield _of_image(image, tree, user, find and (lambda graph: getattr(find(graph), "image_user", None)))
    elif kind in ("CompositorNodeMovieClip", "CompositorNodeKeyingScreen") and _is_clip(clip):
        yield _of_clip("clip", clip)


def _of_image(image, block, user, find):
    return User("image", f"image {image.name}", path_of(image), block, user, IMAGE_FIELDS, (), find)


def _of_clip(rule, clip, fixed=()):
    fields, fixed = ("frame_start", "frame_offset", "frame_duration"), (clip_number(clip), *fixed)
    return User(rule, f"movie clip {clip.name}", path_of(clip), clip, clip, fields, fixed, clip.evaluated_get)


def misread_clips():
    """Clips that Blender took for movies because their picture could not be read when they were made: it shows no more
    than that picture."""
    for clip in bpy.data.movieclips:
        if clip.users and clip.source == "MOVIE" and clip.filepath.rsplit(".", 1)[-1].lower() in PICTURES:
            yield clip


def clip_number(clip):
    """None where the name has none: then it is one picture."""
    digits = split(os.path.basename(clip.filepath))[1]
    return int(digits) if digits else None


def _of_geometry(tree, node, find):
    source, number = node.inputs["Image"], node.inputs["Frame"]
    if source.is_linked:
        # It may come from what a modifier is given.
        yield from map(_unknown, filter(_is_sequence, _given()))
        return
    image = source.default_value
    if not _is_sequence(image):
        return
    label, path = f"image {image.name}", path_of(image)
    link = number.links[0] if number.is_linked and len(number.links) == 1 else None
    if not number.is_linked:
        inside = find and (lambda graph: find(graph).inputs["Frame"])
        yield User("input", label, path, tree, number, ("default_value",), (), inside)
    elif link and link.from_node.bl_idname == "GeometryNodeInputSceneTime" and link.from_socket.name == "Frame":
        yield User("scene-time", label, path, tree)
    else:
        yield _unknown(image)


def _unknown(image):
    return User(None, f"image {image.name}", path_of(image), image)


def _given():
    for thing in bpy.data.objects:
        for modifier in thing.modifiers:
            for name in modifier.keys() if modifier.type == "NODES" else ():
                try:
                    yield modifier[name]
                except (KeyError, TypeError):
                    pass


def _strips(scene):
    editor = scene.sequence_editor if scene.render.use_sequencer else None
    if editor:
        strips = editor.strips_all if hasattr(editor, "strips_all") else editor.sequences_all
        yield from (strip for strip in strips if not strip.mute)


def _clips(scene, strip):
    """Before 4.5 a strip does not tell its clip: then the scene's, if it is the only one."""
    if hasattr(strip, "clip"):
        return [strip.clip]
    clips = [clip for clip, users in bpy.data.user_map(subset=bpy.data.movieclips).items() if scene in users]
    return clips if len(clips) == 1 else []


def _span(strip):
    """The first frame of the content, and from where to before where it shows; None where its speed is changed."""
    if strip.type not in ("IMAGE", "MOVIE", "MOVIECLIP"):
        return None
    if getattr(strip, "speed_factor", 1) != 1 or len(getattr(strip, "retiming_keys", ())) > 2:
        return None
    if getattr(strip, "strobe", 1) > 1 or getattr(strip, "use_reverse_frames", False):
        return None
    return int(strip.frame_start), strip.frame_final_start, strip.frame_final_end


def _pictures(scene):
    """Of strips of the sequencer: label, folder, names, and the frames that show them."""
    for strip in _strips(scene):
        span = _span(strip)
        if span and strip.type == "IMAGE":
            folder = bpy.path.abspath(strip.directory, library=scene.library)
            names = [element.filename for element in strip.elements][strip.animation_offset_start :]
            yield f"strip {strip.name}", folder, names, *span
        elif span and strip.type == "MOVIE":
            folder, name = os.path.split(bpy.path.abspath(strip.filepath, library=scene.library))
            yield f"strip {strip.name}", folder, [name], *span


# Checks ---------------------------------------------------------------------------------------------------------


class Sequences:
    """The sequences of an opened file, but for those that may lack files because nothing that renders uses them. Plain
    values: a script may remove what they were read from."""

    def __init__(self, scene, unused=()):
        self._scene = scene
        self._unused = unused
        self._fixed = set()
        self._unknown = {}
        moves = set()
        for user in users(scene):
            if user.path in unused:
                continue
            if user.rule is None:
                self._unknown[user.label, user.path] = None
            elif user.moves():
                moves.add(user.moves())
            else:
                self._fixed.add((user.rule, user.label, user.path, user.settings()))
        self._moves, self._driven = bool(moves), "driven" in moves
        self._pictures = list(_pictures(scene))

    def look(self, frame):
        """The files that a frame shows and that are not there, and sentences about what is less certain."""
        lacking, notes = [], []
        for rule, label, path, settings in self._fixed:
            _look(rule, label, path, settings, frame, lacking, notes)
        if self._moves:
            self._look_at_moving(frame, lacking, notes)
        for label, path in self._unknown:
            notes += [f"{label} lacks {name}, and Kiln cannot tell which frames show it" for name in gaps(path)[:5]]
        self._unknown.clear()
        for label, folder, names, begin, left, right in self._pictures:
            if names and left <= frame < right:
                name = names[min(max(frame - begin, 0), len(names) - 1)]
                path = os.path.join(folder, name)
                if not os.path.exists(path) and path not in self._unused:
                    lacking.append(_named(name, frame, label))
        return lacking, notes

    def _look_at_moving(self, frame, lacking, notes):
        if not self._driven:
            self._look_at_users(frame, lacking, notes)
            return
        scene = self._scene
        current, subframe = scene.frame_current, scene.frame_subframe
        # The scene's handlers do not hear of it, and the data go back to where a new process has them.
        with Silence():
            scene.frame_set(frame)
            self._look_at_users(frame, lacking, notes)
            scene.frame_set(current, subframe=subframe)

    def _look_at_users(self, frame, lacking, notes):
        for user in users(self._scene):
            if user.rule is None or user.path in self._unused or not user.moves():
                continue
            settings = user.settings_at(frame)
            if settings is None:
                self._unknown[user.label, user.path] = None
            else:
                _look(user.rule, user.label, user.path, settings, frame, lacking, notes)


def _named(name, frame, label):
    return f"{name} (frame {frame} of {label})"


def _look(rule, label, path, settings, frame, lacking, notes):
    wanted = RULES[rule](frame, *settings)
    if wanted is None:
        return
    number, how = wanted
    shown = file_of(rule, path, number)
    if os.path.exists(shown):
        return
    numbers = present(rule, path)
    if how == NEEDED or (numbers and numbers[0] < number < numbers[-1]):
        lacking.append(_named(os.path.basename(shown), frame, label))
    elif not rule.startswith("clip"):
        notes.append(f"{label} has no {os.path.basename(shown)}, which Blender looks for outside of its frames")


def _parts(rule, name):
    return split_at_end(name) if rule in ("volume", "cache") else split(name)


def file_of(rule, path, number):
    folder, name = os.path.split(path)
    parts = _parts(rule, name)
    return os.path.join(folder, joined(parts, number)) if parts else path


def present(rule, path):
    """The numbers of the files that are there, in their order."""
    folder, name = os.path.split(path)
    parts = _parts(rule, name)
    try:
        names = os.listdir(folder) if parts else []
    except OSError:
        return []
    found = []
    for one in names:
        head, _, tail = parts
        middle = one[len(head) : len(one) - len(tail)]
        if re.fullmatch("-?[0-9]+", middle) and joined(parts, int(middle)) == one:
            found.append(int(middle))
    return sorted(found)


def gaps(path, rule="image"):
    """The names that a sequence lacks between its first and its last file; of a long gap the first hundred."""
    found = present(rule, path)
    lacking = []
    for before, after in zip(found, found[1:]):
        numbers = range(before + 1, min(after, before + 101))
        lacking += [os.path.basename(file_of(rule, path, number)) for number in numbers]
    return lacking
