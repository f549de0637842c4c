//! Decodes and verifies what Blender writes
