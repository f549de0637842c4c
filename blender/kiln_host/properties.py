"""Properties that --set names, resolved by their definitions in Blender and never evaluated as code (decision 028)."""

import ctypes
import difflib
import re

import bpy

from . import animated
from .errors import Refusal

# Owners that suggestions are taken from, behind the scene itself.
_DEPTH = 2
_SHOWN = 12  # items of an enum
# The names of the types of Python and JSON, as a person knows them.
_WANTED = {"BOOLEAN": "true or false", "INT": "a whole number", "FLOAT": "a number", "STRING": "a text"}


def apply(scene, wanted, leave_out=()):
    """Sets the properties, by path. One may decide which values another takes, or change it: then that is set again."""
    every = [_Property(scene, path, value) for path, value in wanted.items() if not path.startswith(leave_out)]
    for _ in range(len(every) + 1):
        refusals = []
        for one in every:
            if not one.is_set():
                try:
                    one.set()
                except Refusal as refusal:
                    refusals.append(refusal)
        lost = [one for one in every if not one.is_set()]
        if not lost:
            return
    raise refusals[0] if refusals else lost[0].refused("loses its value to another of the properties")


class _Property:
    def __init__(self, scene, path, value):
        self._path = path
        self._value = value
        names, _, index = path.rstrip("]").partition("[")
        if animated.is_animated(scene, names):
            raise self.refused("is animated, and its curve or driver decides at each frame; remove that in Blender")
        *parts, self._name = names.split(".")
        self._owner = scene
        for part in parts:
            self._owner = self._part(scene, part)
        self._definition = self._find(scene, self._name)
        self._index = int(index) if index else None
        self._check()

    def refused(self, why):
        return Refusal("bad-setting", f"--set {self._path} {why}")

    def _find(self, scene, name):
        found = self._owner.bl_rna.properties.get(name)
        if found is None:
            close = _close(scene, self._path.partition("[")[0])
            hint = f"; close to it: {', '.join(close)}" if close else ""
            raise self.refused(f"is no property of the scene in Blender {bpy.app.version_string}{hint}")
        return found

    def _part(self, scene, name):
        definition = self._find(scene, name)
        if not _is_part(definition):
            raise self.refused(f"lies behind {name}, which is no part of the scene; set it in Blender and save")
        part = getattr(self._owner, name, None)
        if not isinstance(part, bpy.types.bpy_struct):
            raise self.refused(f"lies behind {name}, which this scene does not have")
        return part

    def _check(self):
        """Refuses what Blender would not take, or would take as something else."""
        definition, kind = self._definition, self._definition.type
        if kind in ("POINTER", "COLLECTION"):
            raise self.refused("is no single value; name a property of it, or set it in Blender and save")
        if definition.is_readonly or self._owner.is_property_readonly(self._name):
            raise self.refused("cannot be changed")
        if kind == "STRING" and definition.subtype in ("FILE_PATH", "DIR_PATH", "FILE_NAME"):
            raise self.refused("names a file, and Kiln reads those from the .blend; set it in Blender and save")
        if kind == "ENUM" and definition.is_enum_flag:
            self._check_list("texts", None)
        elif self._index is not None or not getattr(definition, "is_array", False):
            self._check_single()
        else:
            self._check_list("values", definition.array_length)

    def _check_single(self):
        definition = self._definition
        if isinstance(self._value, list):
            raise self.refused("is a single value, not a list")
        if self._index is not None:
            length = definition.array_length if getattr(definition, "is_array", False) else 0
            if self._index >= length:
                why = f"has the indexes 0 to {length - 1}" if length else "is a single value and has no index"
                raise Refusal("bad-setting", f"--set {self._path}: the list {why}")
        self._check_item(self._value)

    def _check_list(self, what, length):
        if length is not None and self._definition.array_dimensions[1]:
            raise self.refused("is a matrix, which cannot be set")
        if not isinstance(self._value, list) or length not in (None, len(self._value)):
            count = f"{length} {what}" if length else what
            raise self.refused(f"takes a list of {count}, such as [{'A, B' if length is None else '0, 0'}…]")
        for item in self._value:
            self._check_item(item)

    def _check_item(self, item):
        definition, kind = self._definition, self._definition.type
        number = isinstance(item, (int, float)) and not isinstance(item, bool)
        fits = {
            "BOOLEAN": isinstance(item, bool),
            "INT": isinstance(item, int) and number,
            "FLOAT": number,
            # Names of items may be numbers.
            "ENUM": isinstance(item, str) or (isinstance(item, int) and number),
            "STRING": isinstance(item, str),
        }
        if not fits[kind]:
            items = [item.identifier for item in definition.enum_items] if kind == "ENUM" else ()
            wanted = _WANTED.get(kind) or (f"one of {_listed(items)}" if items else "the name of an item")
            quoted = "; quote it as a text" if kind == "STRING" else ""
            raise self.refused(f"takes {wanted}, not {_shown(item)}{quoted}")
        if kind in ("INT", "FLOAT") and not definition.hard_min <= item <= definition.hard_max:
            raise self.refused(
                f"takes {_number(definition.hard_min)} to {_number(definition.hard_max)}, not {_shown(item)}"
            )
        if kind == "STRING" and 0 < definition.length_max <= len(item.encode()):
            raise self.refused(f"takes a text of {definition.length_max - 1} bytes at most")

    def set(self):
        try:
            if self._index is None:
                setattr(self._owner, self._name, self._wanted())
            else:
                getattr(self._owner, self._name)[self._index] = self._value
        except (AttributeError, TypeError, ValueError) as error:
            there = re.search(r"not found in \((.*)\)", str(error), re.DOTALL)
            if there is None:
                raise self.refused(f"does not take {_shown(self._value)} ({error})") from None
            items = [one or other for one, other in re.findall(r"""'([^']*)'|"([^"]*)\"""", there[1])]
            raise self.refused(f"takes one of {_listed(items)}, not {_shown(self._value)}") from None
        if not self.is_set():
            raise self.refused(f"became {_shown(self._now())} when it was set to {_shown(self._value)}")

    def is_set(self):
        return self._is_same(self._now(), self._wanted())

    def _now(self):
        now = getattr(self._owner, self._name)
        return now if self._index is None else now[self._index]

    def _wanted(self):
        if self._definition.type != "ENUM":
            return self._value
        return {str(item) for item in self._value} if isinstance(self._value, list) else str(self._value)

    def _is_same(self, now, wanted):
        if isinstance(wanted, list):
            return len(now) == len(wanted) and all(map(self._is_same, now, wanted))
        if self._definition.type == "FLOAT":
            return ctypes.c_float(now).value == ctypes.c_float(wanted).value
        return now == wanted


def _is_part(definition):
    """A pointer to something that belongs to the scene alone, not to another datablock."""
    if definition.type != "POINTER" or definition.identifier == "rna_type":
        return False
    kind = definition.fixed_type
    while kind is not None:
        if kind.identifier == "ID":
            return False
        kind = kind.base
    return True


def _close(scene, path):
    """Paths that may be meant: of the same name elsewhere, or written alike."""
    paths = list(_paths(scene))
    last = path.rpartition(".")[2]
    same = [one for one in paths if one.rpartition(".")[2] == last]
    return list(dict.fromkeys(same + difflib.get_close_matches(path, paths, n=3)))[:3]


def _paths(owner, before="", depth=_DEPTH):
    for definition in owner.bl_rna.properties:
        name = definition.identifier
        if _is_part(definition):
            part = getattr(owner, name, None) if depth else None
            if isinstance(part, bpy.types.bpy_struct):
                yield from _paths(part, f"{before}{name}.", depth - 1)
        elif definition.type not in ("POINTER", "COLLECTION") and not definition.is_readonly:
            yield before + name


def _listed(items):
    shown = ", ".join(items[:_SHOWN]) or "none in this Blender"
    return shown + (f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else "")


def _shown(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, str):
        return f"“{value[:60]}”"
    return "[" + ", ".join(_shown(item) for item in value) + "]"


def _number(number):
    return f"{number:.7g}" if isinstance(number, float) else str(number)
