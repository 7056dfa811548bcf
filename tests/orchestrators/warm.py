"""`recsys` for tests that start it dozens of times: each call is a process of its own, forked from one that has
imported TFX already, which takes longer than most nodes.

    python -m tests.orchestrators.warm SOCKET      the process that is forked
    client(SOCKET)                                 text of an executable that stands for `recsys`

The child gets the caller's arguments, environment, folder and standard streams, calls `pipeline.cli.main` and ends with
its exit code. It dies with the caller, as a child of the caller would in its group.
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
from pathlib import Path

CLIENT = """\
#!{python} -IS
import array, json, os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect({path!r})
told = json.dumps({{"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd()}}).encode()
s.sendmsg([len(told).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
s.sendall(told)
code = s.recv(1)
os._exit(code[0] if code else 1)
"""


def client(path: str) -> str:
    """Return the program that asks the process behind the socket at `path`."""
    return CLIENT.format(
        python=os.path.realpath(sys.executable) if sys.prefix == sys.base_prefix else sys.executable, path=path
    )


def serve(path: str) -> None:
    """Fork a child a call until standard input ends."""
    for module in ("pipeline.cli", "pipeline.running.nodes", "pipeline.running.summaries", "pipeline.graph.plan"):
        importlib.import_module(module)

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ)
    waiting.register(sys.stdin, selectors.EVENT_READ)
    while True:
        ready = {key.fileobj for key, _ in waiting.select()}
        if sys.stdin in ready:
            os._exit(0)
        call, _ = listener.accept()
        _start(call)


def _start(call: socket.socket) -> None:
    size, descriptors, _, _ = socket.recv_fds(call, 8, 3)
    told, wanted = b"", int.from_bytes(size, "big")
    while len(told) < wanted:
        told += call.recv(wanted - len(told))
    caller = json.loads(told)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        os.chdir(caller["cwd"])
        os.environ.clear()
        os.environ.update(caller["env"])
        sys.argv = ["recsys", *caller["argv"]]
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        from pipeline.cli import main

        main()
    for descriptor in descriptors:
        os.close(descriptor)
    threading.Thread(target=_watch, args=(call, child), daemon=True).start()


def _watch(call: socket.socket, child: int) -> None:
    """Send the child's exit code; kill the child where the caller goes first."""
    gone = threading.Thread(target=_kill_without_caller, args=(call, child), daemon=True)
    gone.start()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    try:
        call.sendall(bytes([code if code >= 0 else 128 - code]))
        call.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _kill_without_caller(call: socket.socket, child: int) -> None:
    try:
        if call.recv(1) == b"":
            os.killpg(child, signal.SIGKILL)
    except OSError:
        pass


def write_client(folder: Path, path: str) -> Path:
    """Write the executable and return it."""
    executable = folder / "recsys"
    executable.write_text(client(path), encoding="utf-8")
    executable.chmod(0o755)
    return executable


if __name__ == "__main__":
    serve(sys.argv[1])
