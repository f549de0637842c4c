"""The features of the fidelity table, a module for each part of Blender's manual."""

import importlib
import pkgutil

for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
    importlib.import_module(f"{__name__}.{module.name}")
