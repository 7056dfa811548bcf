"""Local worker processes: started with TF_CONFIG, watched, and started again where one dies.

TensorFlow's workers cannot rejoin a group that lost one of them: all are stopped and go on, together, from the newest
checkpoint. None of them outlives the process that started them, however that one ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PROGRESS = "\x01"  # starts a line in which the chief reports where it is: JSON of what `send_progress` takes
_TAIL = 25
# Rows of large tables are read here and there: with pages of 2 MiB fewer reads wait for the address of a page.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
_GRACE = 10.0  # seconds for the others to end by themselves once the chief has ended well


class ProgressLine(str):
    """A line on where training is. One that is `passing` is replaced by the next within a second or so."""

    passing: bool

    def __new__(cls, line: str, passing: bool = False) -> ProgressLine:
        """Make it of a line."""
        made = super().__new__(cls, line)
        made.passing = passing
        return made


class WorkersFailedError(Exception):
    """Workers died too often. The message has the last lines of the one that died first."""


@dataclass(frozen=True)
class Role:
    """One process of a cluster, as TF_CONFIG calls it."""

    kind: str  # worker, chief or ps
    index: int

    def __str__(self) -> str:
        """Name it."""
        names = {"worker": "worker", "chief": "coordinator", "ps": "parameter server"}
        return names[self.kind] if self.kind == "chief" else f"{names[self.kind]} {self.index}"

    @property
    def leads(self) -> bool:
        """Whether it reports, keeps checkpoints and exports."""
        return self.kind == "chief" or (self.kind == "worker" and self.index == 0)


def roles(strategy: str, workers: int, parameter_servers: int) -> list[Role]:
    """Return the processes that a strategy needs, the leading one first."""
    if strategy == "parameter_server":
        others = [*(Role("worker", i) for i in range(workers)), *(Role("ps", i) for i in range(parameter_servers))]
        return [Role("chief", 0), *others]
    return [Role("worker", i) for i in range(workers)]


def run_workers(
    command: Sequence[str],
    members: Sequence[Role],
    log_folder: str,
    restarts: int,
    report: Callable[[str], None],
    log: Callable[[str, str], None] = lambda role, line: None,
    environment: Mapping[str, str] | None = None,
    tf_config: Callable[[Role], str | None] | None = None,
) -> None:
    """Run `command` once a member, each with its TF_CONFIG, until the leading one has ended well.

    `report` receives what the leading one says, `log` every other line with who said it; all lines are also kept in
    `log_folder`. When one dies all are started again; after `restarts` deaths in a row without a step forward from the
    last checkpoint, or where a process cannot start, WorkersFailedError.
    """
    Path(log_folder).mkdir(parents=True, exist_ok=True)
    failures, reached, resumed = 0, 0, -1
    while True:
        group = _Group(command, members, log_folder, report, log, environment, tf_config, reached)
        with group:
            dead = group.wait()
        if dead is None:
            return
        # A checkpoint newer than the one before is progress: only deaths without any count.
        failures = 1 if group.resumed > resumed else failures + 1
        resumed, reached = max(resumed, group.resumed), max(reached, group.reached)
        if failures > restarts:
            raise WorkersFailedError(
                f"{dead.role} {dead.how}, {failures} times in a row without getting further. Its last lines "
                f"(all of them: {dead.log_path}):\n" + "\n".join(f"  {line}" for line in dead.tail)
            )
        report(f"{dead.role} {dead.how} at step {reached:,}; starting all again from the last checkpoint")


class _Process:
    """One running member, and the thread that reads what it prints."""

    def __init__(self, role: Role, command, environment, log_folder: str, heard: Callable[[_Process, str], None]):
        self.role = role
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.log_path = f"{log_folder}/{role.kind}-{role.index}.log"
        # Its standard input is a pipe that nobody writes to: it ends when we do, and that tells the process to.
        self.popen = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, args=(heard,), daemon=True)
        self._reader.start()

    def _read(self, heard: Callable[[_Process, str], None]) -> None:
        assert self.popen.stdout is not None
        with open(self.log_path, "a", buffering=1, encoding="utf-8") as log:
            for line in self.popen.stdout:
                if not line.startswith(PROGRESS):
                    log.write(line)
                    self.tail.append(line.rstrip("\n"))
                heard(self, line.rstrip("\n"))

    @property
    def how(self) -> str:
        """Say how it ended."""
        code = self.popen.returncode
        if code is not None and code < 0:
            return f"was killed ({signal.Signals(-code).name})"
        return f"ended with exit code {code}"

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._reader.join(timeout=5)


class _Group:
    """All members of one try."""

    def __init__(self, command, members, log_folder, report, log, environment, tf_config, reached: int):
        self.reached = reached
        self.resumed = 0
        self._lost_from = reached
        self._report = report
        self._log = log
        configs = tf_config or _local_configs(members)
        self._processes: list[_Process] = []
        for role in members:
            own = LARGE_PAGES | dict(os.environ if environment is None else environment)
            if text := configs(role):
                own["TF_CONFIG"] = text
            self._processes.append(_Process(role, command, own, log_folder, self._heard))

    def __enter__(self) -> _Group:
        return self

    def __exit__(self, *error) -> None:
        for process in self._processes:
            process.kill()

    def wait(self) -> _Process | None:
        """Return the process that died first, or None once the leading one has ended well."""
        leading = self._processes[0]
        while True:
            states = [(p, p.popen.poll()) for p in self._processes]
            # Of several, one that was killed: the others only noticed.
            for process, code in sorted(states, key=lambda s: s[1] if s[1] is not None else 0):
                if code:
                    return process
            if leading.popen.returncode == 0:
                ends = time.monotonic() + (_GRACE if leading.role.kind == "worker" else 0.0)  # servers never end
                while time.monotonic() < ends and any(p.popen.poll() is None for p in self._processes):
                    time.sleep(0.05)
                return None
            time.sleep(0.05)

    def _heard(self, process: _Process, line: str) -> None:
        if not line.startswith(PROGRESS):
            self._log(str(process.role), line)
            return
        message = json.loads(line[1:])
        if message.get("resumed") is not None:
            self.resumed = message["resumed"]
            if self._lost_from > self.resumed:
                lost = self._lost_from - self.resumed
                message["line"] = f"going on from step {self.resumed:,}: {lost:,} steps lost"
        self.reached = max(self.reached, message["step"])
        if process.role.leads:
            self._report(ProgressLine(message["line"], message.get("passing", False)))


def _local_configs(members: Sequence[Role]) -> Callable[[Role], str | None]:
    """Return each member's TF_CONFIG for a cluster on free ports of this machine; None for a process alone."""
    if len(members) == 1:
        return lambda role: None
    sockets = [socket.socket() for _ in members]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        cluster: dict[str, list[str]] = {}
        for role, s in zip(members, sockets, strict=True):
            cluster.setdefault(role.kind, []).append(f"127.0.0.1:{s.getsockname()[1]}")
    finally:
        for s in sockets:
            s.close()
    return lambda role: json.dumps({"cluster": cluster, "task": {"type": role.kind, "index": role.index}})


def end_with_starter() -> None:
    """End this process when the one that started it does, even if that was killed."""

    def wait() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock the interpreter wants at its own end
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def send_progress(line: str, step: int, resumed: int | None = None, passing: bool = False) -> None:
    """Tell the process that started this one where training is."""
    message = {"line": line, "step": step, "resumed": resumed, "passing": passing}
    print(PROGRESS + json.dumps(message), flush=True)
