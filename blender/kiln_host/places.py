"""Names of files: by Blender's rules, and always below the output folder."""

import re
import unicodedata

import bpy

# By Kiln's names of the formats.
ENDINGS = {
    "png": (".png",),
    "jpeg": (".jpg", ".jpeg"),
    "exr": (".exr",),
    "exr-multilayer": (".exr",),
    "tiff": (".tif", ".tiff"),
    "webp": (".webp",),
    "bmp": (".bmp",),
    "tga": (".tga",),
    "tga-raw": (".tga",),
    "hdr": (".hdr",),
    "iris": (".rgb",),
    "cineon": (".cin",),
    "dpx": (".dpx",),
    "jp2": (".jp2",),
    "j2c": (".j2c",),
}


# Bytes: what a disk takes for a name, and what a path of an output can have (crates/types/src/path.rs).
MOST_OF_NAME = 255
MOST = 1024


def clean(path):
    """The parts of a path that name something: no root, no dots, no control characters, Unicode alone. As `cleaned` of
    crates/client/src/naming.rs."""
    path = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    path = "".join(c for c in path.replace("\\", "/") if unicodedata.category(c) != "Cc")
    path = re.sub(r"^[A-Za-z]:", "", path)
    parts = path.split("/")
    kept = [part for part in parts[:-1] if part not in ("", ".", "..")]
    last = "" if parts[-1] in (".", "..") else parts[-1]
    return "/".join([*kept, last])


def join(*parts):
    return "/".join(part for part in parts if part)


def split(raw, origin, rename=lambda name: name):
    """Folder below the output folder, name, and a note for a person, for a path as the scene has it.

    `//x/y_` and paths below the .blend's own folder keep their place; of others only the name is kept."""
    path = raw.replace("\\", "/")
    home = (origin or "").replace("\\", "/").rstrip("/")
    if path.startswith("//"):
        below = path[2:]
    elif home and path.startswith(home + "/"):
        below = path[len(home) + 1 :]
    else:
        below = None
    folder, _, name = (path if below is None else below).rpartition("/")
    parts = []
    for part in folder.split("/"):
        if part in ("", "."):
            continue
        if part == ".." and not parts:
            below = None
        elif part == "..":
            parts.pop()
        else:
            parts.append(part)
    name = rename(clean(name))
    if below is not None:
        return clean("/".join([*parts, ""])).rstrip("/"), name, None
    # Blender's own default is nobody's choice.
    if path == "/tmp/":
        return "", name, None
    where = f"are named “{name}…” in the output folder" if name else "go to the output folder"
    return "", name, f"the output path {raw} lies outside the .blend's folder; its files {where}"


def is_too_long(path):
    """Returns whether no disk takes the path."""
    return len(path.encode()) > MOST or any(len(part.encode()) > MOST_OF_NAME for part in path.split("/"))


def suffixed(path, suffix):
    """Before the last dot of the name, wherever that is."""
    folder, slash, name = path.rpartition("/")
    dot = name.rfind(".") if "." in name else len(name)
    return folder + slash + name[:dot] + suffix + name[dot:]


def numbered(path, frame):
    """A File Output node's name for a frame: the last run of # is the number, else four digits at the end."""
    folder, slash, name = path.rpartition("/")
    runs = list(re.finditer("#+", name))
    if runs:
        start, end = runs[-1].span()
        name = name[:start] + _padded(frame, end - start) + name[end:]
    else:
        name += _padded(frame, 4)
    return folder + slash + name


def with_ending(path, ours):
    """The name with the ending of the format with Kiln's name `ours`, in the place of another picture's."""
    folder, slash, name = path.rpartition("/")
    endings = ENDINGS[ours]
    low = name.lower()
    if not low.endswith(endings):
        for ending in bpy.path.extensions_image:
            if low.endswith(ending):
                name = name[: -len(ending)]
                break
        name = name.rstrip(".") + endings[0]
    return folder + slash + name


def _padded(frame, digits):
    return ("-" if frame < 0 else "") + str(abs(frame)).zfill(digits)
