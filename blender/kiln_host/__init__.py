"""Kiln's side inside Blender: opens a scene once and renders frames on command."""
