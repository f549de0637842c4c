"""The sockets of the compositor to which a picture leads. For a single value Blender writes no file.

Measured slot by slot in 3.4, 4.2, 4.3, 4.5 and 5.0."""

import os

import bpy

# A multilayer file is written also where no picture leads to it, of one pixel.
WRITES_WITHOUT_PICTURE = (4, 4, 0) <= bpy.app.version < (5, 0, 0)

# What gives single values, whatever leads to it.
_SINGLE = {"Value", "RGB", "Time", "SceneTime", "TrackPos", "ImageInfo"}
# What shows a picture of its own, and the field that holds it.
_OF_DATA = {"Image": "image", "MovieClip": "clip", "KeyingScreen": "clip", "Mask": "mask", "Texture": "texture"}
# What shows one without any data.
_OF_NOTHING = {"BokehImage", "BoxMask", "EllipseMask", "Cryptomatte", "CryptomatteV2"}
if bpy.app.version < (4, 2, 0):
    _OF_NOTHING.add("Mask")
if bpy.app.version < (4, 4, 0):
    _OF_NOTHING.add("Texture")
if bpy.app.version[:2] == (4, 2) or bpy.app.version >= (4, 4, 0):
    _SINGLE.add("Levels")


def carries_picture(socket):
    return _Walk().carries(socket, ())


class _Walk:
    """Goes back along the links."""

    def __init__(self):
        self._seen = set()

    def carries(self, socket, groups):
        """`groups` are the group nodes through which the socket's tree is seen, innermost last."""
        return any(self._gives(link.from_node, link.from_socket, groups) for link in socket.links if not link.is_muted)

    def _gives(self, node, socket, groups):
        key = (node.as_pointer(), socket.identifier, *(group.as_pointer() for group in groups))
        if key in self._seen:
            return False
        self._seen.add(key)
        kind = node.bl_idname.replace("CompositorNode", "").replace("ShaderNode", "")
        if node.mute:
            through = [link.from_socket for link in node.internal_links if link.to_socket == socket]
            return any(self.carries(one, groups) for one in through)
        if kind == "NodeGroupInput":
            # Of a node that was met inside a group, nobody knows through which.
            return not groups or self._carries_like(groups[-1].inputs, socket, groups[:-1])
        if kind == "Group":
            inner = node.node_tree.nodes if node.node_tree else ()
            ends = (one for one in inner if one.bl_idname == "NodeGroupOutput" and one.is_active_output)
            return any(self._carries_like(end.inputs, socket, (*groups, node)) for end in ends)
        if kind in _SINGLE:
            return False
        if kind in _OF_NOTHING or (kind in _OF_DATA and _has_data(getattr(node, _OF_DATA[kind]))):
            return True
        if kind == "RLayers":
            return socket.enabled
        if kind == "Switch":
            return self._carries_chosen(node, groups)
        # A texture is calculated for each pixel.
        return kind.startswith("Tex") or any(self.carries(one, groups) for one in node.inputs if one.enabled)

    def _carries_like(self, sockets, other, groups):
        return any(self.carries(one, groups) for one in sockets if one.identifier == other.identifier)

    def _carries_chosen(self, node, groups):
        by_socket = node.inputs.get("Switch")
        if by_socket and by_socket.is_linked:
            return any(self.carries(one, groups) for one in node.inputs)
        on = by_socket.default_value if by_socket else node.check
        return self.carries(node.inputs[len(node.inputs) - 1 if on else len(node.inputs) - 2], groups)


def _has_data(block):
    """A picture whose file is not there is a single value too."""
    if block is None:
        return False
    if not isinstance(block, bpy.types.Image) or block.source != "FILE" or block.packed_file:
        return True
    return os.path.exists(bpy.path.abspath(block.filepath, library=block.library))
