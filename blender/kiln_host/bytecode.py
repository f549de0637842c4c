"""Keeps the compiled form of Blender's scripts for later starts: crates/host/src/bytecode.rs says why."""

import importlib.util
import os
import py_compile
import shutil
import sys
import tempfile


def keep(folder):
    """Compiles every module that is loaded by now into `folder`, all or nothing. Nobody depends on it."""
    making = None
    try:
        making = tempfile.mkdtemp(prefix="making-", dir=os.path.dirname(folder))
        before, sys.pycache_prefix = sys.pycache_prefix, making
        try:
            for source in _sources():
                py_compile.compile(source, cfile=importlib.util.cache_from_source(source), quiet=2)
        finally:
            sys.pycache_prefix = before
        os.rename(making, folder)
    except OSError as error:
        # Another process was quicker, or the disk is full: the next start tries again.
        print(f"compiled scripts are not kept: {error}")
        if making:
            shutil.rmtree(making, ignore_errors=True)


def _sources():
    own = os.path.dirname(os.path.abspath(__file__))
    for module in list(sys.modules.values()):
        source = getattr(module, "__file__", None)
        if isinstance(source, str) and source.endswith(".py") and not source.startswith(own):
            yield os.path.abspath(source)
