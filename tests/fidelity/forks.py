"""Work in a process of its own, which is a fork of this one."""

import os
import sys
import time

# A process that takes longer is ended, in seconds.
LIMIT = 300
# So is one that does nothing for so long: a fork has none of the threads of the process that it is a fork of, and may wait for
# one of them.
IDLE = 15


def forked(work):
    """Runs it in a new process; whether it ended well."""
    child = os.fork()
    if not child:
        try:
            work()
            sys.stdout.flush()
            os._exit(0)
        except BaseException as error:  # noqa: BLE001
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
    until = time.time() + LIMIT
    pause, worked, since = 0.005, -1, time.time()
    while time.time() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(pause)
        pause = min(pause * 1.3, 0.2)
        now = ticks(child)
        if now != worked:
            worked, since = now, time.time()
        elif time.time() - since > IDLE:
            break
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def ticks(process):
    """The processor time that it has used."""
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
