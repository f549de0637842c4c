"""The loop: one command at a time, each answered once."""

import os
import time

import bpy

from . import addons, bake, bytecode, colors, errors, probe
from .channel import Channel, Printed, die_with_parent, peak_memory
from .frame import FrameRenderer
from .session import Session


def run(number, bytecode_folder=None):
    channel = Channel(number)
    die_with_parent()
    engine_field = probe.EngineField()
    capabilities = probe.capabilities()
    version = bpy.app.version
    channel.send(
        "hello",
        version=".".join(str(part) for part in version),
        build_hash=bpy.app.build_hash.decode(errors="replace"),
        capabilities=capabilities,
    )
    if bytecode_folder:
        # Now, while no file was ever open in this process.
        bytecode.keep(bytecode_folder)
    host = _Host(channel, engine_field, capabilities)
    while True:
        command = channel.next()
        try:
            host.obey(command)
        except errors.Refusal as refusal:
            host.failed(command, refusal)
        except MemoryError:
            host.failed(command, errors.Refusal("out-of-memory", "Blender ran out of memory"))
        except Exception as error:
            import traceback

            traceback.print_exc()
            host.failed(command, errors.of_python(error, "Kiln spoke with Blender"))


class _Host:
    def __init__(self, channel, engine_field, capabilities):
        self._channel = channel
        self._engine_field = engine_field
        self._capabilities = capabilities
        self._frames = None
        self._printed = Printed()

    def obey(self, command):
        if command["op"] == "open":
            self._open(command)
        elif command["op"] == "render":
            self._render(command)
        elif command["op"] == "bake":
            self._bake(command)

    def failed(self, command, refusal):
        self._answer("failed", command, cause=refusal.cause, message=refusal.message[:2000])

    def _answer(self, event, command, **fields):
        """The log ends before the answer: the reader of the answer finds all that was printed in the pipe."""
        self._printed.flush()
        self._channel.send(event, id=command["id"], **fields)

    def _open(self, command):
        self._frames = None
        started = time.monotonic()
        _bring(command)
        session = Session(command, self._engine_field, self._capabilities)
        session.open()
        plan = session.plan()
        if session.reuse.reasons:
            print(f"Kiln: data of the scene is {session.reuse.how} between frames ({'; '.join(session.reuse.reasons)})")
        self._frames = FrameRenderer(session, self._channel)
        self._answer(
            "opened",
            command,
            notices=session.notices,
            plan=plan,
            reuse={"how": session.reuse.how, "reasons": session.reuse.reasons},
            seconds=time.monotonic() - started,
            memory=peak_memory(),
        )

    def _bake(self, command):
        self._frames = None
        started = time.monotonic()
        _bring(command)
        task = bake.Bake(command, self._channel)
        simulated = task.run()
        self._answer(
            "baked",
            command,
            simulated=simulated[:1000],
            notices=task.notices,
            seconds=time.monotonic() - started,
            memory=peak_memory(),
        )

    def _render(self, command):
        if self._frames is None:
            raise errors.Refusal("other", "no file is open")
        os.makedirs(command["out"], exist_ok=True)
        started, ended, notices = self._frames.render(command["id"], command["frame"], command["out"])
        self._answer(
            "rendered",
            command,
            started_at=started,
            ended_at=ended,
            memory=peak_memory(),
            notices=notices,
        )


def _bring(command):
    colors.check()
    addons.enable(command["addons"], command["session"]["policy"]["scripts"] == "trust")
