"""Every file that a frame writes, named before it renders, and led into the frame's folder."""

import os

import bpy

from . import places
from .errors import Refusal
from .settings import depth_of, format_of, size_of, why_unwritable

# Nodes that hand on pictures of the size they get; behind others a File Output node's size is its own.
KEEPS_SIZE = (
    "RLayers", "Alpha", "Blur", "Bright", "Color", "Curve", "Denoise", "Despeckle", "Dilate", "Exposure",
    "Filter", "Gamma", "Glare", "Hue", "Inpaint", "Invert", "Mix", "Normal", "Posterize", "Separate", "Sep",
    "Comb", "SetAlpha", "Tonemap", "ValToRGB", "Vec", "Zcombine", "Math", "Cryptomatte", "IDMask", "Convert",
    "Premul", "RGB", "Value", "Levels", "Map", "Sunbeams", "Bokeh", "Defocus", "AntiAliasing", "Kuwahara",
)


def composited(scene):
    """The compositor's tree, if it runs."""
    if not scene.render.use_compositing:
        return None
    if hasattr(scene, "compositing_node_group"):
        return scene.compositing_node_group
    return scene.node_tree if scene.use_nodes else None


def nodes_of(tree, seen=None):
    """All nodes, those inside groups too; a group that is used twice counts once."""
    seen = set() if seen is None else seen
    if tree is None or tree.as_pointer() in seen:
        return
    seen.add(tree.as_pointer())
    for node in tree.nodes:
        if node.mute:
            continue
        yield node
        if node.bl_idname == "CompositorNodeGroup" or hasattr(node, "node_tree"):
            yield from nodes_of(node.node_tree, seen)


class Outputs:
    """What a session's frames write."""

    def __init__(self, session):
        self._scene = session.scene
        self._session = session
        self._views = _views(session.scene)
        origin = session.origin
        raw = session.scene.render.filepath
        self._folder, self._name, note = places.split(raw, origin, self._film_name)
        if note:
            session.notice(note)
        self._nodes = [
            _Node(index, node, session, self._views)
            for index, node in enumerate(
                node
                for node in nodes_of(composited(session.scene))
                if node.bl_idname == "CompositorNodeOutputFile"
            )
        ]

    def redirect(self, out, frame, exact):
        """Points everything below `out`. `exact`: the render call adds no frame number by itself."""
        main = os.path.join(out, "main", "")
        os.makedirs(main, exist_ok=True)
        self._scene.render.filepath = main + self._name
        if exact:
            self._scene.render.filepath = self._scene.render.frame_path(frame=frame)
        for node in self._nodes:
            node.redirect(out)

    def check_not_moved(self, out, planned):
        """A script may set an output path while the frame renders. The picture then lies where Kiln does not look."""
        if all(os.path.exists(os.path.join(out, file["scratch"])) for file in planned):
            return
        main = os.path.join(out, "main", "")
        now = self._scene.render.filepath
        if not now.startswith(main):
            raise Refusal(
                "bad-setting",
                f"a script of the scene set the output path to “{now}” while the frame rendered; set it when the file "
                "is opened, or remove that line: Kiln names each file before it renders",
            )
        for node in self._nodes:
            node.check_not_moved(out)

    def planned(self, frame):
        """The files of a frame, as Kiln's PlannedFile. Needs no redirection."""
        render = self._scene.render
        before = render.filepath
        render.filepath = os.path.join(os.sep, "main", self._name)
        name = os.path.basename(render.frame_path(frame=frame))
        render.filepath = before
        image = render.image_settings
        shape = _shape(image, size_of(render), self._views)
        files = [
            {
                "path": places.join(self._folder, _suffixed(name, suffix)),
                "scratch": places.join("main", _suffixed(name, suffix)),
                "role": {"main": {"view": view}},
                "format": format_of(image),
                "depth": depth_of(image),
                "width": shape[0],
                "height": shape[1],
            }
            for view, suffix in _files_of(image, self._views)
        ]
        for node in self._nodes:
            files += node.planned(frame)
        return _apart(files)

    def _film_name(self, name):
        """A film's name has no place for a frame's number: `shot.mp4` becomes `shot_`."""
        stem, ending = os.path.splitext(name)
        return stem + "_" if ending.lower() in bpy.path.extensions_movie else name


class _Node:
    """A File Output node, its files each a slot's; or one file of many layers."""

    def __init__(self, index, node, session, views):
        self._node = node
        self._views = views
        self._new = hasattr(node, "file_output_items")
        self._many = node.format.file_format == "OPEN_EXR_MULTILAYER"
        self._scratch = f"node-{index}"
        self._label = node.label or node.name
        if self._new:
            raw = os.path.join(node.directory, "")
            node.file_name = places.clean(node.file_name)
            self._stem = node.file_name
        else:
            raw = node.base_path if self._many else os.path.join(node.base_path, "")
            self._stem = ""
        self._folder, name, note = places.split(raw, session.origin)
        if note:
            session.notice(f"File Output node “{self._label}”: {note}")
        if not self._new and self._many:
            self._stem = name
        self._slots = [] if self._many else list(self._read_slots())
        linked = any(socket.is_linked for socket in node.inputs)
        self._writes = bool(self._slots) or (self._many and linked)
        self._size = size_of(session.scene.render) if _keeps_size(node) else (0, 0)
        for name, settings, _ in self._slots or [("", node.format, True)]:
            if self._writes and format_of(settings) is None:
                raise Refusal(
                    "bad-setting",
                    f"File Output node “{self._label}” writes {settings.file_format}, which Kiln cannot check; "
                    "choose another format in the node (--format changes the main picture only)",
                )
            unwritable = why_unwritable(settings, self._size) if self._writes else None
            if unwritable:
                raise Refusal("bad-setting", f"File Output node “{self._label}” writes {unwritable} in the node")

    def _read_slots(self):
        """Name and format of every slot that something is linked to, and whether that is a colour; the others write
        nothing."""
        node = self._node
        if self._new:
            for item, socket in zip(node.file_output_items, node.inputs):
                if socket.is_linked:
                    settings = item.format if item.override_node_format else node.format
                    yield item.name, settings, item.socket_type == "RGBA"
            return
        for slot, socket in zip(node.file_slots, node.inputs):
            slot.path = places.clean(slot.path)
            if socket.is_linked:
                settings = node.format if slot.use_node_format else slot.format
                yield slot.path, settings, socket.links[0].from_socket.type == "RGBA"

    def redirect(self, out):
        folder = os.path.join(out, self._scratch, "")
        os.makedirs(folder, exist_ok=True)
        if self._new:
            self._node.directory = folder
        else:
            self._node.base_path = folder + (self._stem if self._many else "")

    def check_not_moved(self, out):
        now = self._node.directory if self._new else self._node.base_path
        if self._writes and not now.startswith(os.path.join(out, self._scratch, "")):
            raise Refusal(
                "bad-setting",
                f"a script of the scene set the folder of the File Output node “{self._label}” to “{now}” while the frame "
                "rendered; set it when the file is opened, or remove that line: Kiln names each file before it renders",
            )

    def planned(self, frame):
        if not self._writes:
            return []
        files = []
        for slot, settings, is_color in self._slots or [("", self._node.format, True)]:
            # Before 4.2 the views of all slots follow the node.
            stereo = settings if bpy.app.version >= (4, 2, 0) else self._node.format
            shape = _shape(stereo, self._size, self._views) if all(self._size) else (0, 0)
            name = places.framed(self._stem + slot, frame, format_of(settings))
            for view, suffix in _files_of(stereo, self._views):
                suffixed = _suffixed(name, suffix)
                files.append(
                    {
                        "path": places.join(self._folder, suffixed),
                        "scratch": places.join(self._scratch, suffixed),
                        "role": {
                            "file_output": {"node": self._node.name, "slot": slot or "layers", "view": view}
                        },
                        "format": format_of(settings),
                        "depth": "32" if _keeps_all_bits(settings, is_color) else depth_of(settings),
                        "width": shape[0],
                        "height": shape[1],
                        "label": self._label,
                    }
                )
        return files


def _keeps_all_bits(settings, is_color):
    """Whether an EXR of 16 bits has 32 all the same: measured in 4.2, 4.3, 4.5 and 5.0, and not so in 3.4."""
    return not is_color and settings.file_format == "OPEN_EXR" and bpy.app.version >= (4, 2, 0)


def _apart(files):
    """Two nodes that write one name would overwrite each other: the later goes into a folder of its node's."""
    taken = set()
    for file in files:
        label = file.pop("label", "frame")
        number = 1
        path = file["path"]
        while path.lower() in taken:
            folder = places.clean(label).replace("/", "_") or "node"
            path = places.join(folder if number == 1 else f"{folder}-{number}", file["path"])
            number += 1
        file["path"] = path
        taken.add(path.lower())
    return files


def _views(scene):
    """Name and suffix of each view; nothing where the picture is a single one."""
    render = scene.render
    if not render.use_multiview:
        return []
    views = [view for view in render.views if view.use]
    if render.views_format == "STEREO_3D":
        views = [view for view in views if view.name in ("left", "right")]
    return [(view.name, view.file_suffix) for view in views] if len(views) > 1 else []


def _files_of(image_settings, views):
    """View and suffix of each file."""
    if not views or image_settings.views_format != "INDIVIDUAL":
        return [(None, "")]
    return views


def _shape(image_settings, size, views):
    """Two views in one picture make it wider or higher."""
    width, height = size
    if views and image_settings.views_format == "STEREO_3D":
        stereo = image_settings.stereo_3d_format
        if not stereo.use_squeezed_frame:
            if stereo.display_mode == "SIDEBYSIDE":
                width *= 2
            elif stereo.display_mode == "TOPBOTTOM":
                height *= 2
    return width, height


def _suffixed(name, suffix):
    stem, ending = os.path.splitext(name)
    return stem + suffix + ending


def _keeps_size(node):
    """Whether all that leads to the node has the render's size."""
    waiting, seen = [node], set()
    while waiting:
        for socket in waiting.pop().inputs:
            for link in socket.links:
                source = link.from_node
                if source.name in seen:
                    continue
                seen.add(source.name)
                kind = source.bl_idname.replace("CompositorNode", "").replace("ShaderNode", "")
                if kind != "NodeReroute" and not kind.startswith(KEEPS_SIZE):
                    return False
                waiting.append(source)
    return True
