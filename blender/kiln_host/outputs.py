"""Every file that a frame writes, named before it renders, and redirected into the frame's folder."""

import os

import bpy

from . import places, sockets, templates
from .errors import Refusal
from .settings import depth_of, format_of, size_of, why_unwritable

# Nodes that hand on pictures of the size they get; behind others a File Output node's size is its own.
KEEPS_SIZE = (
    "RLayers", "Alpha", "Blur", "Bright", "Color", "Curve", "Denoise", "Despeckle", "Dilate", "Exposure",
    "Filter", "Gamma", "Glare", "Hue", "Inpaint", "Invert", "Mix", "Normal", "Posterize", "Separate", "Sep",
    "Comb", "SetAlpha", "Tonemap", "ValToRGB", "Vec", "Zcombine", "Math", "Cryptomatte", "IDMask", "Convert",
    "Premul", "RGB", "Value", "Levels", "Map", "Sunbeams", "BokehBlur", "Defocus", "AntiAliasing", "Kuwahara",
)

# A view's suffix comes before the last dot of the name; later the ending is added before it, but for EXR.
SUFFIX_IS_EARLY = bpy.app.version < (4, 1, 0)
# A slot without a name writes beside the node's folder, under its name.
EMPTY_IS_FOLDER = bpy.app.version < (4, 1, 0)


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
    """The files that a session's frames write."""

    def __init__(self, session):
        self._scene = session.scene
        self._session = session
        self._views = _views(session.scene)
        self._raw = session.scene.render.filepath
        # Paths of nodes name it also where a marker chooses another one.
        self._camera = session.scene.camera
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
        variables = self._variables(frame)
        self._scene.render.filepath = templates.escape(main + self._main(variables)[1])
        if exact:
            self._scene.render.filepath = templates.escape(self._scene.render.frame_path(frame=frame))
        for node in self._nodes:
            node.redirect(out, variables)

    def check_not_moved(self, out, planned):
        """A script may set an output path while the frame renders. The picture then lies where Kiln does not look."""
        if all(os.path.exists(os.path.join(out, file["scratch"])) for file in planned):
            return
        main = os.path.join(out, "main", "")
        now = self._scene.render.filepath
        if not now.startswith(templates.escape(main)):
            raise Refusal(
                "bad-setting",
                f"a script of the scene set the output path to “{now}” while the frame rendered; set it when the file "
                "is opened, or remove that line: Kiln names each file before it renders",
            )
        for node in self._nodes:
            node.check_not_moved(out)

    def planned(self, frame):
        """The files of a frame, as Kiln's PlannedFile. Needs no redirection."""
        variables = self._variables(frame)
        folder, name = self._main(variables)
        render = self._scene.render
        before = render.filepath
        render.filepath = templates.escape(os.path.join(os.sep, "main", name))
        name = os.path.basename(render.frame_path(frame=frame))
        render.filepath = before
        image = render.image_settings
        shape = _shape(image, size_of(render), self._views)
        files = [
            {
                "path": places.join(folder, places.suffixed(name, suffix)),
                "scratch": places.join("main", places.suffixed(name, suffix)),
                "role": {"main": {"view": view}},
                "format": format_of(image),
                "depth": depth_of(image),
                "width": shape[0],
                "height": shape[1],
            }
            for view, suffix in _files_of(image, self._views)
        ]
        for node in self._nodes:
            files += node.planned(frame, variables)
        for file in files:
            if places.is_too_long(file["path"]) or places.is_too_long(file["scratch"]):
                raise Refusal(
                    "bad-setting",
                    f"no disk takes a name as long as {file['path'][:60]}…: a folder or file has {places.MOST_OF_NAME} "
                    f"bytes at most, a path {places.MOST}; shorten the output path in Blender",
                )
        return _apart(files)

    def _variables(self, frame):
        return templates.Variables(self._session, self._scene, templates.camera_at(self._scene, frame), self._camera)

    def _main(self, variables):
        """Folder below the output folder, and name without the frame's number."""
        try:
            path = templates.expand(self._raw, variables.values)
        except templates.BadTemplate as why:
            raise _refused(f"the output path “{self._raw}”", why) from why
        folder, name, note = places.split(path, self._session.origin, self._video_name)
        if note:
            self._session.notice(note)
        return folder, name

    def _video_name(self, name):
        """A video's name has no place for a frame's number: `shot.mp4` becomes `shot_`."""
        stem, ending = os.path.splitext(name)
        return stem + "_" if ending.lower() in bpy.path.extensions_movie else name


def _refused(what, why):
    return Refusal(
        "bad-setting",
        f"Blender cannot write to {what}: {why}; correct it in Blender ({{{{ and }}}} stand for braces)",
    )


class _Slot:
    """A socket of a File Output node to which a picture leads."""

    def __init__(self, raw, settings, is_color, pictures, owner, field):
        self.raw = raw
        self.settings = settings
        self.is_color = is_color
        self.size_known = bool(pictures) and _keeps_size(pictures)
        # What holds its name, which is read while a frame renders.
        self._owner, self._field = owner, field

    def rename(self, name):
        """Blender may make it another one."""
        if getattr(self._owner, self._field) != name:
            setattr(self._owner, self._field, name)
        return getattr(self._owner, self._field)


class _Node:
    """A File Output node, its files each a slot's; or one file of many layers."""

    def __init__(self, index, node, session, views):
        self._node = node
        self._session = session
        self._views = views
        self._new = hasattr(node, "file_output_items")
        self._many = node.format.file_format == "OPEN_EXR_MULTILAYER"
        self._scratch = f"node-{index}"
        self._label = node.label or node.name
        self._raw = node.directory if self._new else node.base_path
        self._raw_name = node.file_name if self._new else ""
        self._extension = session.scene.render.use_file_extension
        self._slots = list(self._layers() if self._many else self._read_slots())
        self._size = size_of(session.scene.render)
        for slot in self._slots:
            if format_of(slot.settings) is None:
                raise Refusal(
                    "bad-setting",
                    f"File Output node “{self._label}” writes {slot.settings.file_format}, which Kiln cannot check; "
                    "choose another format in the node (--format changes the main picture only)",
                )
            unwritable = why_unwritable(slot.settings, self._size if slot.size_known else (0, 0))
            if unwritable:
                raise Refusal("bad-setting", f"File Output node “{self._label}” writes {unwritable} in the node")

    def _layers(self):
        """The one file of all layers, where Blender writes it."""
        pictures = [socket for socket in self._node.inputs if sockets.carries_picture(socket)]
        if pictures or sockets.WRITES_WITHOUT_PICTURE:
            yield _Slot("", self._node.format, True, pictures, None, None)

    def _read_slots(self):
        """Slots without a picture write nothing."""
        node = self._node
        if self._new:
            for item, socket in zip(node.file_output_items, node.inputs):
                if self._is_written(socket, item.name):
                    settings = item.format if item.override_node_format else node.format
                    yield _Slot(item.name, settings, item.socket_type == "RGBA", [socket], item, "name")
            return
        for slot, socket in zip(node.file_slots, node.inputs):
            if self._is_written(socket, slot.path):
                settings = node.format if slot.use_node_format else slot.format
                yield _Slot(slot.path, settings, socket.links[0].from_socket.type == "RGBA", [socket], slot, "path")

    def _is_written(self, socket, name):
        if not socket.is_linked:
            return False
        if sockets.carries_picture(socket):
            return True
        self._session.notice(
            f"File Output node “{self._label}”: Blender writes no file for “{name}”, because a single value leads to it, "
            "not a picture"
        )
        return False

    def redirect(self, out, variables):
        folder = os.path.join(out, self._scratch, "")
        os.makedirs(folder, exist_ok=True)
        self._name_for(variables)
        if self._new:
            self._node.directory = templates.escape(folder)
        else:
            self._node.base_path = templates.escape(folder + "".join(self._here if self._many else ()))

    def check_not_moved(self, out):
        now = self._node.directory if self._new else self._node.base_path
        if self._slots and not now.startswith(templates.escape(os.path.join(out, self._scratch, ""))):
            raise Refusal(
                "bad-setting",
                f"a script of the scene set the folder of the File Output node “{self._label}” to “{now}” while the frame "
                "rendered; set it when the file is opened, or remove that line: Kiln names each file before it renders",
            )

    def _name_for(self, variables):
        """Places of the slots' files for a frame, without its number: the artist's, and what Blender writes here. There
        Blender finds no template: it would expand it by what this process has open."""
        self._here = []
        if not self._slots:
            return
        values = variables.of_node(self._node)
        try:
            base = templates.expand(self._raw, values)
            names = [templates.expand(self._raw_name + slot.raw, values) for slot in self._slots]
        except templates.BadTemplate as why:
            raise _refused(f"a file of the File Output node “{self._label}” (“{self._shown()}”)", why) from why
        self._places = [self._place(base, name) for name in names]
        if self._many:
            self._here = [name for _, name in self._places]
        else:
            self._here = [self._name_here(slot, values) for slot in self._slots]
        if self._new:
            stem = self._here[0] if self._many else self._stem(values)
            if self._node.file_name != templates.escape(stem):
                self._node.file_name = templates.escape(stem)

    def _shown(self):
        """The paths as the node has them."""
        names = [self._raw_name + slot.raw for slot in self._slots]
        return ", ".join(os.path.join(self._raw, name) for name in names)

    def _place(self, base, name):
        """Folder below the output folder, and name."""
        if self._many and not self._new or (not name and EMPTY_IS_FOLDER):
            folder, name, note = places.split(base if self._many else base.rstrip("/"), self._session.origin)
        else:
            folder, _, note = places.split(os.path.join(base, ""), self._session.origin)
            name = places.clean(name)
        if note:
            self._session.notice(f"File Output node “{self._label}”: {note}")
        return folder, name

    def _stem(self, values):
        return places.clean(templates.without(self._raw_name, values)) if self._new else ""

    def _name_here(self, slot, values):
        name = places.clean(templates.without(slot.raw, values)) or ("_" if EMPTY_IS_FOLDER else "")
        return self._stem(values) + templates.without(slot.rename(templates.escape(name)), {})

    def planned(self, frame, variables):
        if not self._slots:
            return []
        self._name_for(variables)
        files = []
        for slot, (folder, name), here in zip(self._slots, self._places, self._here):
            # Before 4.2 the views of all slots follow the node.
            stereo = slot.settings if bpy.app.version >= (4, 2, 0) else self._node.format
            shape = _shape(stereo, self._size, self._views) if slot.size_known else (0, 0)
            for view, suffix in _files_of(stereo, self._views):
                files.append(
                    {
                        "path": places.join(folder, self._framed(name, frame, slot.settings, suffix)),
                        "scratch": places.join(self._scratch, self._framed(here, frame, slot.settings, suffix)),
                        "role": {
                            "file_output": {
                                "node": self._node.name,
                                "slot": "layers" if self._many else slot.raw,
                                "view": view,
                            }
                        },
                        "format": format_of(slot.settings),
                        "depth": "32" if _keeps_all_bits(slot.settings, slot.is_color) else depth_of(slot.settings),
                        "width": shape[0],
                        "height": shape[1],
                        "label": self._label,
                    }
                )
        return files

    def _framed(self, name, frame, settings, suffix):
        name = places.numbered(name, frame)
        early = SUFFIX_IS_EARLY or settings.file_format.startswith("OPEN_EXR")
        if early:
            name = places.suffixed(name, suffix)
        if self._extension:
            name = places.with_ending(name, format_of(settings))
        return name if early else places.suffixed(name, suffix)


def _keeps_all_bits(settings, is_color):
    """Returns whether an EXR of 16 bits has 32 all the same: measured in 4.2, 4.3, 4.5 and 5.0, and not so in 3.4."""
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


def _keeps_size(inputs):
    """Returns whether all that leads to these sockets has the render's size."""
    waiting, seen = list(inputs), set()
    while waiting:
        for link in waiting.pop().links:
            source = link.from_node
            if source.name in seen:
                continue
            seen.add(source.name)
            kind = source.bl_idname.replace("CompositorNode", "").replace("ShaderNode", "")
            if kind != "NodeReroute" and not kind.startswith(KEEPS_SIZE):
                return False
            waiting.extend(source.inputs)
    return True
