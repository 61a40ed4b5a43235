"""The machine that a job runs on: its device, and the versions of what computes there."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from logitstore.errors import UsageError


def pick_device(name: str) -> str:
    """``auto`` becomes the first GPU, or the CPU where there is none.

    :raises UsageError: a device that torch does not have here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise UsageError(f"--device {name} cannot be used here; give auto, cpu or cuda[:N]")
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise UsageError(f"--device {name} cannot be used here: {first_line}; give auto, cpu or cuda[:N]") from error
    return name


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, or of Python, says that there is no memory left, of a GPU or of the machine."""
    import torch

    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def own_memory() -> int | None:
    """Bytes of memory that this process may use, of the machine or of its container; None where nothing says it."""
    try:
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return None
    limits = [first_line(f"{folder}/{name}") for folder, name in _memory_groups()]
    return min([whole, *(int(limit) for limit in limits if limit.isdigit())])


def _memory_groups() -> Iterator[tuple[str, str]]:
    """The folders of the control groups that this process is in, the innermost first, and the file of their limit."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = [*line.split(":", 2), "", ""][:3]
        if kinds in ("", "memory"):  # of version 2; of version 1
            root, name = ("", "memory.max") if not kinds else ("/memory", "memory.limit_in_bytes")
            for inner in (path, *map(str, Path(path).parents)):
                yield f"/sys/fs/cgroup{root}{inner}".rstrip("/"), name


def first_line(file: str) -> str:
    """The first line of a file of the system; an empty text where there is none."""
    try:
        return Path(file).read_text().split("\n", 1)[0].strip()
    except OSError:
        return ""


def versions() -> dict[str, str]:
    """Versions of what computes and writes a store; recorded in it, and only warned about."""
    import soundfile

    packages = ("logitstore", "numpy", "torch", "soxr", "zarr", "numcodecs", "pyarrow")
    found = {name: importlib.metadata.version(name) for name in packages}
    return found | {"libsndfile": soundfile.__libsndfile_version__, "machine": platform.machine()}


def keep_freed_memory() -> None:
    """Make glibc keep the memory that a batch frees for the next one, which is alike: page faults are dear.

    Otherwise what is large goes back to the system whenever it is freed, and a net that is small and has large
    activations waits for the system more than for its own arithmetic. For a process that trains, or asks teachers, on
    the CPU; it takes somewhat more memory at its peak, and gives little back before it ends. Elsewhere than on glibc
    this does nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    m_trim_threshold, m_mmap_max, m_arena_max = -1, -4, -8
    libc = ctypes.CDLL(None)
    for parameter, value in ((m_mmap_max, 0), (m_trim_threshold, 2**31 - 1), (m_arena_max, 1)):
        libc.mallopt(parameter, value)
