"""Started by Blender (`--python`) or by a Python with bpy. Blender's own arguments are before `--kiln-fd`."""

import os
import sys


def start():
    at = sys.argv.index("--kiln-fd")
    number = int(sys.argv[at + 1])
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from kiln_host import main

    keep = sys.argv[sys.argv.index("--kiln-bytecode") + 1] if "--kiln-bytecode" in sys.argv else None
    main.run(number, keep)


if __name__ == "__main__":
    try:
        start()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        # Blender goes on after a script that fails; nobody could speak to it then.
        os._exit(3)
