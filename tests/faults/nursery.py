"""A warm process that forks a child for every build of the fault tests, so that a hundred builds import torch once.

A child is a process like any other: it runs the real command line in a folder of its own, it can be killed, stopped and
signalled, and its output goes to a file. Faults are put in through the interpreter's audit events, which it raises
before it opens, renames, links, makes or removes a file: nothing of the package is replaced.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parent.parent.parent
HANGS_SECONDS = 120.0
_EVENTS = ("os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir")


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What happens to a child. Steps are its operations on files of the store, counted from 1.

    ``die_at``: SIGKILL before this step, ``torn``: half of what it would have moved into place being lost.
    ``full_at``: from this step on the disk is full. ``remove_at``: the step before which ``remove`` vanishes.
    ``count``: a file for the number of steps. ``lease``: seconds that its claims last, few because another process may
    get the number of one that died. ``host``: its host's name.
    """

    die_at: int = 0
    torn: bool = False
    full_at: int = 0
    remove_at: int = 0
    remove: str = ""
    count: str = ""
    lease: float = 5.0
    host: str = ""


@dataclass(frozen=True)
class Left:
    """How a child ended: its exit status (negative for a signal), and what it wrote."""

    status: int
    out: str

    @property
    def error(self) -> str:
        """Its one line that begins with ``Error: ``; fails where there is none, several, or a traceback."""
        assert "Traceback" not in self.out, self.out
        lines = [line for line in self.out.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1, self.out
        return lines[0]


class Child:
    """A running build."""

    def __init__(self, nursery: Nursery, pid: int, output: Path) -> None:
        self._nursery = nursery
        self.pid = pid
        self._output = output

    def send(self, number: int) -> None:
        """Send it a signal; nothing where it has ended."""
        os.kill(self.pid, number)  # it is a zombie until `wait`, so the number is still its own

    def wait(self) -> Left:
        """Wait for its end."""
        status = self._nursery.ask({"wait": self.pid})
        assert status != "hangs", f"after {HANGS_SECONDS:.0f} s: {self._output.read_text(errors='replace')}"
        return Left(int(status), self._output.read_text(errors="replace"))


class Nursery:
    """The warm process, from the side of the tests. A context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0

    def __enter__(self) -> Self:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # tests change teachers' modules several times within a second
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.faults.nursery import serve; serve()"],
            cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def ask(self, request: dict[str, Any]) -> Any:
        """One request and its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, folder: Path, arguments: list[str], faults: Faults | None = None) -> Child:
        """Fork a child that runs ``logitstore`` with these arguments in a folder."""
        self._number += 1
        output = self._folder / f"child-{self._number}.txt"
        request = {"folder": str(folder), "arguments": arguments, "output": str(output)}
        return Child(self, self.ask({"fork": request | {"faults": asdict(faults or Faults())}}), output)

    def run(self, folder: Path, arguments: list[str], faults: Faults | None = None) -> Left:
        """Fork a child and wait for its end."""
        return self.start(folder, arguments, faults).wait()


def serve() -> None:
    """The warm process: reads requests, forks, waits, until its input ends. It has one thread and keeps it so."""
    _warm()
    children: set[int] = set()
    for line in sys.stdin:
        request = json.loads(line)
        if "fork" in request:
            answer: Any = _fork(request["fork"])
            children.add(answer)
        else:
            answer = _wait(request["wait"])
            children.discard(request["wait"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _warm() -> None:
    """Import what a build imports. Nothing of it may start a thread."""
    import importlib

    for name in (
        "numcodecs.zstd", "pyarrow.compute", "pyarrow.parquet", "safetensors", "soundfile", "soxr", "torch", "yaml",
        "zarr.codecs", "zarr.storage", "logitstore.cli.build", "logitstore.cli.main", "logitstore.jobs.build.job",
        "logitstore.jobs.status", "logitstore.views.mel", "logitstore.audio.scan", "logitstore.audio.sources",
        "teachers.ensemble", "teachers.specs.python", "teachers.registry",
    ):  # fmt: skip
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)


def _fork(request: dict[str, Any]) -> int:
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return pid
    code = 70
    try:
        os.setpgid(0, 0)
        for number in signals:
            signal.signal(number, signal.default_int_handler)
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for target, source in ((0, nothing), (1, output), (2, output)):
            os.dup2(source, target)
        sys.stdout = sys.stderr = open(1, "w", closefd=False, buffering=1, encoding="utf-8")  # noqa: SIM115
        code = _live(request, signals)
    except BaseException:  # noqa: BLE001 - a child must never come back into its parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _live(request: dict[str, Any], signals: set[signal.Signals]) -> int:
    from logitstore.cli.command import run
    from logitstore.cli.main import cli

    os.chdir(request["folder"])
    sys.path.insert(0, request["folder"])
    sys.argv = ["logitstore", *request["arguments"]]
    faults = Faults(**request["faults"])
    steps = _prepare(faults)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        run(cli)
    except KeyboardInterrupt:  # before `run` could set its own handling up
        return 130
    except SystemExit as left:
        return int(left.code or 0)
    finally:
        if faults.count:
            Path(faults.count).write_text(str(steps["taken"]))


def _prepare(faults: Faults) -> dict[str, int]:
    import socket

    from logitstore.store import claims

    claims.Claimer.__init__.__defaults__ = (faults.lease,)
    if faults.host:
        socket.gethostname = lambda: faults.host
    steps = {"taken": 0}
    inside = f"{Path.cwd()}/store/"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(arguments[2], int) or not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                return
        elif event not in _EVENTS:
            return
        path = arguments[0]
        if isinstance(path, int) or f"{os.path.abspath(os.fsdecode(path))}/".find(inside) != 0:  # noqa: PTH100
            return
        steps["taken"] += 1
        step = steps["taken"]
        if step == faults.remove_at:
            Path(faults.remove).unlink(missing_ok=True)
        if step == faults.die_at:
            if faults.torn and event in ("os.rename", "os.link"):
                os.truncate(path, os.stat(path).st_size // 2)  # noqa: PTH116
            os.kill(os.getpid(), signal.SIGKILL)
        if faults.full_at and step >= faults.full_at and event != "os.remove" and event != "os.rmdir":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fsdecode(path))

    if faults.die_at or faults.full_at or faults.remove_at or faults.count:
        sys.addaudithook(hook)
    return steps


def _wait(pid: int) -> int | str:
    until = time.monotonic() + HANGS_SECONDS
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return "hangs"
