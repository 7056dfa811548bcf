"""`python -m serving.tethered COMMAND...`: runs a command that ends when the process that started it does.

A run that is killed takes no leave of its children; a model server it started for a check would stay for ever. The
kernel (Linux) sends SIGKILL instead. Elsewhere the command runs without that.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def tethered(command: Sequence[str]) -> list[str]:
    """The command line that runs `command` tied to the calling process."""
    return [sys.executable, "-m", "serving.tethered", str(os.getpid()), *command]


def main() -> None:
    """Tie this process to its parent and become the command."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # it was gone before the kernel was asked
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
