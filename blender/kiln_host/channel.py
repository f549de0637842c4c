"""Lines of JSON over the inherited socket."""

import ctypes
import json
import os
import queue
import re
import signal
import socket
import sys
import threading

PR_SET_PDEATHSIG = 1


class Channel:
    """Reads on a thread of its own, so that pings are answered while a frame renders, and so that the process
    ends as soon as the other end is closed."""

    def __init__(self, number):
        own = os.dup(number)  # not inherited by what a script starts
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, number)
        os.close(null)
        self._socket = socket.socket(fileno=own)
        self._lock = threading.Lock()
        self._commands = queue.Queue()
        threading.Thread(target=self._read, name="kiln-reader", daemon=True).start()

    def send(self, event, **fields):
        fields["event"] = event
        # A name of a file may be no Unicode: JSON has no place for it.
        line = json.dumps(fields, ensure_ascii=False).encode(errors="replace") + b"\n"
        with self._lock:
            try:
                self._socket.sendall(line)
            except OSError:
                os._exit(0)

    def next(self):
        return self._commands.get()

    def _read(self):
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    command = _paths(json.loads(line))
                    if command["op"] == "ping":
                        self.send("pong")
                    else:
                        self._commands.put(command)
        finally:
            os._exit(0)


def unspelled(text):
    """The path that crates/types/src/paths.rs has spelled; bytes that are no Unicode as Python has them."""
    return re.sub("\0([0-9a-f]{2})", lambda byte: bytes.fromhex(byte[1]).decode("utf-8", "surrogateescape"), text)


def _paths(value):
    """Only paths hold what `unspelled` changes. Keys stay: those of the remap are meanings."""
    if isinstance(value, str):
        return unspelled(value)
    if isinstance(value, list):
        return [_paths(one) for one in value]
    if isinstance(value, dict):
        return {key: _paths(one) for key, one in value.items()}
    return value


class Printed:
    """The output of Blender, which is held back in two places: by Python, and by the C library where it writes to a pipe."""

    def __init__(self):
        self._flush = self._stdout = None
        try:
            library = ctypes.CDLL(None)
            self._stdout = ctypes.c_void_p.in_dll(library, "stdout")
            self._flush = library.fflush
        except (AttributeError, OSError, ValueError):
            pass  # another system names it otherwise; Blender flushes after each picture by itself

    def flush(self):
        """From here on all that was printed is in the pipe."""
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (AttributeError, OSError, ValueError):
                pass  # a script has put something else there, or closed it
        if self._flush:
            self._flush(self._stdout)


def die_with_parent():
    """Asks the kernel to end this process with the one that started it: also while Python's lock is held."""
    try:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (AttributeError, OSError):
        pass  # another system: the end of the socket does the same, a little later


def peak_memory():
    """Bytes."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
