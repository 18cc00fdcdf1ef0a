"""Real kills between any two file operations of a piece of code."""

import os
import signal
import sys
from pathlib import Path

_OPERATIONS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
"""What Python announces before it asks the system."""


def survivors(root, begin, change, read):
    """What is found after a SIGKILL before the n-th file operation of `change`, for every n.

    Args:
        root: an empty folder.
        begin: makes what there is before, in the folder that it is given.
        change: is killed, in a process of its own.
        read: what a later run finds.

    Returns:
        One finding a kill, the last one without.
    """
    found = []
    while True:
        folder = Path(root) / f"killed_{len(found)}"
        folder.mkdir()
        begin(folder)
        was_killed = _killed_at(len(found), change, folder)
        found.append(read(folder))
        if not was_killed:
            return found


def _killed_at(number, change, folder):
    child = os.fork()
    if child == 0:
        left, within = [number], str(folder)

        def watch(event, arguments):
            if event in _OPERATIONS and any(str(part).startswith(within) for part in arguments):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1

        code = 1
        try:
            sys.addaudithook(watch)
            change(folder)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the change itself failed"
    return False
