"""Builds the scenes of the fidelity table: one .blend for each feature of Blender's manual.

    blender -b --factory-startup --python build.py -- FOLDER [ID ...]     (or: python build.py FOLDER ..., with bpy)

One process builds all features (or those that are named), each in a fork of it and from an empty file, into FOLDER/ID/HASH. The hash is that of
the feature's source, so a feature that has not changed is not built again. Prints a line of JSON for each feature: its
facts, with `status` "built", "absent" (this Blender does not have the feature) or "failed" (an error of the row).

How to add a feature: a function in features/CHAPTER.py.

    @feature("Animation / Drivers: simple expression")
    def _(s):
        s.drive(s.subject, "location", "frame / 5", index=2)

- The title is "Chapter of the manual / section: what is animated". It gives the row its id and its place in the table.
- `s` (class Scene in kit.py) is a scene without motion: `s.subject` (a cube with a material), a floor, a sun, a grey world
  and a camera. Cycles, 48x36, 2 samples, frames 1 to 10. The table renders frames 2, 5 and 9: a row only counts if these
  frames differ from one another and from the scene without the feature. So animate the feature itself: a key, a driver.
- `s.key(owner, path, [a, b, c])` keys the values at frames 2, 5 and 9; see kit.py for the rest.
- feature(..., since=(4, 2)) / until=(5, 0): versions that have it. `s.absent(why)` says so from inside.
- trust=True: rendered with scripts allowed (handlers, Python drivers).
- sim=True: a simulation without a bake. The reference is then one process that steps through the frames.
- of_range=True: before 5.0 the reference renders a range of one frame. `-f N` takes the shutter before it sets the frame.
- refuses="words": Kiln refuses the scene, and the message has these words.
- expect="still": its frames are alike.
- leaves_out=".jpg": Kiln leaves out such a file on purpose, and says so.
- files: `s.file("textures/a.png")` is a path below the project, `s.outside("lib/a.blend")` one outside of it.
"""

import json
import os
import shutil
import sys
import traceback

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
# Hashes are taken from the source as it is now.
sys.dont_write_bytecode = True

import bpy  # noqa: E402
import features  # noqa: E402, F401
import kit  # noqa: E402
from forks import forked  # noqa: E402


def build(feature, target):
    """Builds one feature; returns its facts."""
    facts = feature.facts()
    folder = os.path.join(target, feature.id, facts["hash"])
    facts["blend"] = os.path.join(folder, "shot", feature.id + ".blend")
    known = os.path.join(folder, "facts.json")
    if os.path.exists(known):
        with open(known, encoding="utf-8") as file:
            return json.load(file)
    shutil.rmtree(os.path.join(target, feature.id), ignore_errors=True)
    os.makedirs(os.path.join(folder, "shot"))
    told = os.path.join(folder, "told.json")
    forked(lambda: tell(feature, facts, folder, told))
    if not os.path.exists(told):
        return facts | {"status": "failed", "reason": "Blender ended while it built the scene"}
    with open(told, encoding="utf-8") as file:
        facts = json.load(file)
    if facts["status"] != "failed":
        os.rename(told, known)
    return facts


def tell(feature, facts, folder, told):
    """Builds the feature and writes its facts."""
    version = bpy.app.version[:2]
    if version < feature.since or version >= feature.until:
        facts.update(status="absent", reason="not in this version")
    else:
        try:
            scene = kit.Scene(folder, feature.id)
            feature.make(scene)
            scene.save(facts["blend"])
            facts["status"] = "built"
        except kit.Absent as why:
            facts.update(status="absent", reason=str(why))
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            where = traceback.extract_tb(error.__traceback__)[-1]
            facts.update(status="failed", reason=f"{error} ({os.path.basename(where.filename)}:{where.lineno})")
    with open(told, "w", encoding="utf-8") as file:
        json.dump(facts, file)


def main():
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    target, wanted = os.path.abspath(arguments[0]), set(arguments[1:])
    with open(os.path.join(target, "rows.jsonl"), "w", encoding="utf-8") as out:
        for feature in kit.FEATURES:
            if wanted and feature.id not in wanted:
                continue
            out.write(json.dumps(build(feature, target)) + "\n")
            out.flush()
    # The wheels may crash at their end.
    sys.stdout.flush()
    os._exit(0)


try:
    main()
except BaseException:
    traceback.print_exc()
    sys.stderr.flush()
    os._exit(1)
