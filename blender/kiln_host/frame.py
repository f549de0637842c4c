"""One frame after the other, each with the pixels that a new process would give it."""

import re
import time

import bpy

from . import checks, errors, persistent, sequences
from .channel import peak_memory
from .handlers import Errors
from .one_frame import OneFrame

SAMPLE = re.compile(r"Sample (\d+)/(\d+)")
PROGRESS_EVERY = 0.25  # seconds


# Who is told of a render's progress: the renderer of the file that is open.
_listeners = []


@bpy.app.handlers.persistent
def _on_stats(stats, *_):
    for listener in _listeners:
        listener.heard(stats)


class FrameRenderer:
    def __init__(self, session, channel):
        self._session = session
        self._channel = channel
        self._last = None
        self._steps_back = 0
        self._frame = 0
        self._told = 0.0
        self._prepare()

    def render(self, request, frame, out):
        """Seconds of the clock at begin and end, and notices."""
        self._step_to(frame)
        session = self._session
        before = len(session.notices)
        checks.shown_files(session, self._sequences, frame)
        self._caches.check(session, frame)
        session.reuse.refresh()
        self._frame = frame
        try:
            session.outputs.redirect(out, frame, self._one_frame.needs_still(frame))
        except OSError as error:
            raise errors.of_disk(error, frame) from error
        planned = session.outputs.planned(frame)
        self._channel.send("planned", id=request, files=planned)
        started = time.monotonic()
        try:
            with Errors() as raised, session.path.shown():
                self._one_frame.render(frame)
        except RuntimeError as error:
            raise errors.of_render(error, frame, out) from error
        ended = time.monotonic()
        errors.check_room(frame, out)
        if raised.first:
            error, name = raised.first
            raise errors.of_python(error, f"running the scene's handler {name}")
        session.outputs.check_not_moved(out, planned)
        checks.scripts(session)
        return started, ended, session.notices[before:]

    def _step_to(self, frame):
        """Data kept between frames is right while the frames ascend; particles are not when time runs back."""
        session = self._session
        first = self._last is None
        back = not first and frame < self._last
        self._last = frame
        if not first and session.reuse.how == persistent.REOPENED:
            session.reopen()
            self._prepare()
        elif back and session.reuse.how == persistent.KEPT:
            self._steps_back += 1
            if self._steps_back > 1:
                session.persistent_data = False
            session.reopen()
            self._prepare()

    def _prepare(self):
        """After every opening of the file."""
        self._sequences = sequences.Sequences(self._session.scene, self._session.unused)
        self._caches = checks.Caches(self._session.scene)
        self._one_frame = OneFrame(self._session.scene)
        handlers = bpy.app.handlers
        if _on_stats not in handlers.render_stats:
            handlers.render_stats.append(_on_stats)
        _listeners[:] = [self]

    def heard(self, stats):
        now = time.monotonic()
        if now - self._told < PROGRESS_EVERY:
            return
        self._told = now
        found = SAMPLE.search(stats) if isinstance(stats, str) else None
        samples = [int(found[1]), int(found[2])] if found else None
        self._channel.send("progress", frame=self._frame, samples=samples, memory=peak_memory())
