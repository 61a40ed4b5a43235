"""The programs of the package without the seconds that each of them takes to import torch, for sessions of a dozen.

:class:`Programs` is a folder for ``PATH``. What lies in it under a program's name has a warm process fork a child, a
process like any other: it gets the caller's arguments, environment, folder and open streams, runs the program's own
entry point and waits for its threads, and the caller ends with its exit status. Signals to the caller do not reach it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import types
from pathlib import Path
from typing import NoReturn

REPOSITORY = Path(__file__).resolve().parent.parent
#: Each program's entry point, as pyproject.toml has it.
ENTRIES = {
    "logitstore": "logitstore.cli.main",
    "train-student": "logitstore.cli.train_student",
    "train-teacher": "logitstore.cli.train_teacher",
    "export-student": "logitstore.cli.export_student",
}
_CALL = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"+"], [0, 1, 2])
    request = [os.path.basename(sys.argv[0]), sys.argv[1:], os.getcwd(), dict(os.environ)]
    server.sendall(json.dumps(request).encode())
    server.shutdown(socket.SHUT_WR)
    status = server.recv(1)
sys.exit(status[0] if status else "the warm process has ended")
"""
#: What the commands import, none of which may start a thread; extras that are not installed are left out.
_IMPORTS = (
    "duckdb", "numcodecs.zstd", "onnxscript", "pyarrow.compute", "pyarrow.parquet", "safetensors.torch",
    "scipy.signal", "sklearn.metrics", "soundfile", "soxr", "torch", "yaml", "zarr.codecs", "zarr.storage",
    "logitstore.cli.build", "logitstore.cli.evaluate", "logitstore.cli.export_student", "logitstore.cli.inspect",
    "logitstore.cli.tag", "logitstore.cli.train_student", "logitstore.cli.train_teacher", "logitstore.cli.verify",
    "logitstore.jobs.build.job", "logitstore.jobs.evaluate", "logitstore.jobs.status", "logitstore.jobs.tag",
    "logitstore.store.sql.query", "logitstore.audio.scan", "logitstore.audio.sources", "teachers.registry",
)  # fmt: skip


class Programs:
    """A folder with the programs. A context manager, which gives the folder's name."""

    def __enter__(self) -> str:
        self._folder = Path(tempfile.mkdtemp())  # a socket's name is short
        address = str(self._folder / "socket")
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.warm import serve; serve()", address], cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        (self._folder / "bin").mkdir()
        for name in (*ENTRIES, "python-c"):  # the last of them is given Python to run
            program = self._folder / "bin" / name
            program.write_text(_CALL.format(python=sys.executable, address=address))
            program.chmod(0o755)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        return str(program.parent)

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        shutil.rmtree(self._folder)


def serve() -> None:
    """The warm process: has a child answer each caller, until its input ends. It has one thread and keeps it so."""
    for name in _IMPORTS:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    threads = {
        path.read_text().strip()
        for path in Path("/proc/self/task").glob("*/comm")
        if str(os.getpid()) not in path.parts
    }
    assert threads <= {"jemalloc_bg_thd"}, f"what other threads have locked would stay so in a fork: {threads}"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(sys.argv[1])
        door.listen()
        print("ready", flush=True)
        while door in select.select([door, sys.stdin], [], [])[0]:
            caller, _ = door.accept()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if os.fork():
                caller.close()
                continue
            door.close()
            _answer(caller)
    os._exit(0)


def _answer(caller: socket.socket) -> NoReturn:
    """Fork the program that is asked for, and tell its exit status; in the program itself, run it to its end."""
    _, streams, _, _ = socket.recv_fds(caller, 1, 3)
    with caller.makefile("rb") as file:
        name, arguments, folder, environment = json.load(file)
    pid = os.fork()
    if pid:
        for stream in (*streams, 0, 1):
            os.close(stream)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        caller.sendall(bytes([code if code >= 0 else 128 - code]))
        os._exit(0)
    caller.close()
    for target, stream in enumerate(streams):
        os.dup2(stream, target)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    given = [each for each in environment.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.path[:] = given + [each for each in sys.path if each not in ("", str(REPOSITORY))]
    sys.argv = [name, *arguments]
    code = 1
    try:
        if name in ENTRIES:
            importlib.import_module(ENTRIES[name]).main()
        else:
            sys.path.insert(0, "")
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(arguments[0], "<string>", "exec", dont_inherit=True), main.__dict__)
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
        if isinstance(left.code, str):
            print(left.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - a child must never come back into its parent's loop
        traceback.print_exc()
    finally:
        for end in (threading._shutdown, atexit._run_exitfuncs, sys.stdout.flush, sys.stderr.flush):  # type: ignore[attr-defined]
            with contextlib.suppress(OSError):  # nobody reads it any more
                end()
        os._exit(code)
