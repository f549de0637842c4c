"""Work in a process of its own, which is a fork of this one."""

import os
import sys
import time

# A process that takes longer is ended, in seconds.
LIMIT = 300


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
    pause = 0.005
    while time.time() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(pause)
        pause = min(pause * 1.3, 0.2)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False
