"""Causes, in the words of Kiln's FailureCause."""

import errno
import os
import re
import traceback


class Refusal(Exception):
    """The reason why a file is not opened or a frame not rendered: one sentence for a person."""

    def __init__(self, cause, message):
        super().__init__(message)
        self.cause = cause
        self.message = message


def names(found, most=5):
    """`a, b and 3 more`."""
    found = list(dict.fromkeys(found))
    shown = ", ".join(found[:most])
    rest = len(found) - most
    return f"{shown} and {rest} more" if rest > 0 else shown


def _text(error):
    """Blender's text of a RuntimeError, without its `Error: ` and line ends."""
    lines = [re.sub(r"^Error: ", "", line.strip()) for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines) or type(error).__name__


def _disk_full(folder, below=1 << 20):
    try:
        stat = os.statvfs(folder)
        return stat.f_bavail * stat.f_frsize < below or (stat.f_files and stat.f_favail == 0)
    except OSError:
        return False


def check_room(frame, out):
    """Blender writes half an EXR to a full disk and calls it done: where nothing is left, no frame is whole."""
    if _disk_full(out, below=1 << 16):
        raise _no_room(frame)


def _no_room(frame):
    return Refusal("disk-full", f"the disk of the worker is full; frame {frame} could not be written")


def of_render(error, frame, out):
    """The cause behind what `bpy.ops.render.render` raised."""
    text = _text(error)
    low = text.lower()
    if "no camera" in low or ("camera" in low and "missing" in low):
        return Refusal("no-camera", "the scene has no camera; add one in Blender, or name one with --camera")
    if "openimagedenois" in low or "denoiser" in low:
        return Refusal(
            "denoiser-missing",
            "this Blender was built without the denoiser that the scene uses; render with another Blender "
            f"(--blender-version), or switch denoising off ({text})",
        )
    if "out of memory" in low or "malloc" in low:
        return Refusal("out-of-memory", f"Blender ran out of memory on frame {frame}: {text}")
    if "cannot save" in low or "could not write" in low or "cannot write" in low or "no space left" in low:
        if "no space left" in low or _disk_full(out):
            return _no_room(frame)
        return Refusal("cannot-write", f"Blender could not write frame {frame}: {text}")
    return Refusal("other", f"Blender could not render frame {frame}: {text}")


def of_bake(error, folder):
    """The cause behind what an operator of a bake, or the save after it, raised."""
    text = _text(error)
    low = text.lower()
    if "no space left" in low or _disk_full(folder):
        return Refusal("disk-full", "the disk of the worker is full; the bake could not be written")
    if "out of memory" in low or "malloc" in low:
        return Refusal("out-of-memory", f"Blender ran out of memory in the bake: {text}")
    return Refusal("unbaked", f"Blender could not bake the scene: {text}; bake it in Blender, or use --no-bake")


def of_disk(error, frame):
    """The cause behind an OSError of Kiln's own."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _no_room(frame)
    return Refusal("cannot-write", f"frame {frame} could not be written: {error.strerror}")


def of_python(error, doing):
    """A Python error, with the place where it was raised."""
    places = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(places[-1].filename)}, line {places[-1].lineno})" if places else ""
    last = traceback.format_exception_only(type(error), error)[-1].strip()
    return Refusal("python-error", f"Python error while {doing}: {last}{where}")
