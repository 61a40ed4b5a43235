"""Mixed precision: the 16-bit type that a model's passes compute in, and whether a device can.

Weights, gradients and the optimiser stay in float32. fp16 has too few exponents for small gradients, so its loss is
scaled (and a step whose gradients overflow is left out, the scale halved); bf16 needs no scaling.
"""

from __future__ import annotations

from typing import get_args

import torch

from logitstore.errors import RunError
from logitstore.options import Precision

#: What stores call the 16-bit type that a kind of device is made for: bf16 of a CPU, fp16 of a GPU.
AMP = "amp"
PRECISIONS = get_args(Precision)

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pass_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What autocast is to use: None for float32.

    :raises RunError: an unknown precision, or one that the device or this torch cannot compute in.
    """
    if precision == AMP:
        precision = _own_type(device.type)
    if precision not in PRECISIONS:
        raise RunError(f"--precision is {precision!r}; allowed are {', '.join(PRECISIONS)}")
    if precision == "float32":
        return None
    dtype = _DTYPES[precision]
    if (
        device.type == "cuda"
        and dtype == torch.bfloat16
        and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        raise RunError(f"--precision bf16 cannot be used on {torch.cuda.get_device_name(device)}; use fp16 or float32")
    if device.type == "cpu" and not _cpu_can(dtype):
        raise RunError(
            f"--precision {precision} cannot be used on the CPU with torch {torch.__version__}; use float32 or bf16"
        )
    return dtype


def stored_precision(precision: str, device_kind: str) -> str:
    """What a store's manifest says of a precision: ``amp`` for the 16-bit type that the kind of device is made for."""
    return AMP if precision == _own_type(device_kind) else precision


def _own_type(device_kind: str) -> str:
    return "bf16" if device_kind == "cpu" else "fp16"


def _cpu_can(dtype: torch.dtype) -> bool:
    """Whether the CPU computes a layer of each kind in a type, forward and back."""
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2)).to(dtype)
    try:
        torch.autograd.backward(model(torch.zeros(1, 1, 4, 4, dtype=dtype)).sum())
    except RuntimeError:
        return False
    return True
