"""The call that renders one frame, as `blender -b FILE -f N` does it.

The scene must not notice that only one frame is rendered, nor that other frames were rendered before. What it can see
is its frame range (stamps, drivers, Grease Pencil's Time Offset), the current frame, and the order of the events that
its handlers get. docs/files.md says what a scene can still notice."""

import bpy

from .handlers import Silence

# Before 5.0 the operator renders the scene's own range.
TAKES_FRAMES = bpy.app.version >= (5, 0, 0)


class OneFrame:
    """Renders single frames of a scene. Make a new one each time that the file is opened."""

    def __init__(self, scene):
        self._scene = scene
        self._first, self._last = scene.frame_start, scene.frame_end
        self._current = scene.frame_current, scene.frame_subframe
        self._silence = Silence()
        self._begun = False

    def needs_still(self, frame):
        """Before 5.0 no range can be set that begins below 0."""
        return not TAKES_FRAMES and frame < 0

    def render(self, frame):
        scene = self._scene
        which = {} if scene == bpy.context.scene else {"scene": scene.name}
        handlers = bpy.app.handlers
        self._begun = False
        self._silence.begin()
        # The operator has read its frames when this handler runs, and no handler of the scene has run.
        handlers.render_init.insert(0, self._begin)
        handlers.render_complete.append(self._end)
        handlers.render_cancel.append(self._end)
        still = self.needs_still(frame)
        if still:
            handlers.render_complete.insert(0, self._step_back)
        try:
            if TAKES_FRAMES:
                bpy.ops.render.render(animation=True, frame_start=frame, frame_end=frame, **which)
            elif still:
                _set_current(scene, frame, 0.0)
                _render(write_still=True, **which)
            else:
                scene.frame_start = scene.frame_end = frame
                _render(animation=True, **which)
        finally:
            for listed, ours in (
                (handlers.render_init, self._begin),
                (handlers.render_complete, self._end),
                (handlers.render_complete, self._step_back),
                (handlers.render_cancel, self._end),
            ):
                # The scene's scripts may have emptied the list.
                if ours in listed:
                    listed.remove(ours)
            # Also what a script of the scene did to them: the next frame is another process's first.
            self._restore()
            self._silence.end()

    def _begin(self, *_):
        # A scene strip's own render begins inside this one.
        if self._begun:
            return
        self._begun = True
        self._restore()
        self._silence.end()

    def _end(self, scene=None, *_):
        # After the last event the operator evaluates the scene at the frame of before.
        if scene == self._scene:
            self._silence.begin()

    def _step_back(self, scene=None, *_):
        """At the end of an animation the current frame is what it was before; at the end of a still it is not."""
        if scene == self._scene:
            self._restore_current()

    def _restore(self):
        scene = self._scene
        # Only what differs: every assignment makes Blender evaluate the scene again. The start can move the end.
        if (scene.frame_start, scene.frame_end) != (self._first, self._last):
            scene.frame_start = self._first
            scene.frame_end = self._last
        self._restore_current()

    def _restore_current(self):
        scene = self._scene
        if (scene.frame_current, scene.frame_subframe) != self._current:
            _set_current(scene, *self._current)


def _set_current(scene, frame, subframe):
    """Unlike `frame_set`, evaluates nothing; a preference forbids negative frames to it."""
    edit = bpy.context.preferences.edit
    before = edit.use_negative_frames
    edit.use_negative_frames = True
    scene.frame_current, scene.frame_subframe = frame, subframe
    edit.use_negative_frames = before


def _render(**arguments):
    """`bpy.ops.render.render`, without the evaluation that its Python wrapper puts in front.

    It would show the drivers the range of one frame. Blender disables a driver for good when it fails once, and one that
    divides by the length of the range would. Only for versions before 5.0, which no longer change."""
    from _bpy import ops

    if bpy.app.version < (4, 0, 0):
        ops.call("RENDER_OT_render", None, arguments)
    else:
        ops.call("RENDER_OT_render", arguments)
