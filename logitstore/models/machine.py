"""The machine that a job runs on: its device, and the versions of what computes there."""

from __future__ import annotations

import importlib.metadata
import platform

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


def versions() -> dict[str, str]:
    """Versions of what computes and writes a store; recorded in it, and only warned about."""
    import soundfile

    packages = ("logitstore", "numpy", "torch", "soxr", "zarr", "numcodecs", "pyarrow")
    found = {name: importlib.metadata.version(name) for name in packages}
    return found | {"libsndfile": soundfile.__libsndfile_version__, "machine": platform.machine()}
