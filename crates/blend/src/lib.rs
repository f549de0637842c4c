//! Reads .blend files without Blender
