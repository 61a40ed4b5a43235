"""The optimizers of a training: AdamW, Adam, and Adam whose moments take 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import torch

from logitstore.errors import MissingExtraError, RunError
from logitstore.training.uncompiled import uncompiled

#: Its moments lie in memory as the weights do: both in the order of their axes, not channels last.
IN_ORDER = ("adam8bit",)

_IN_32_BITS = "--optimizer adamw with --weight-decay 0, or the one that you gave: the same with moments of 32 bits"
_LEAST_8BIT = 4096  # values of a tensor, below which its moments have 32 bits


def make_optimizer(
    name: str, groups: Iterable[dict[str, Any]], lr: float, device: torch.device
) -> torch.optim.Optimizer:
    """An optimizer with betas .9 and .999 and epsilon 1e-8.

    :param name: "adamw"; "adam"; "adam8bit", bitsandbytes' Adam8bit (arXiv 2110.02861), whose moments take 8 bits in
        tensors of 4,096 values or more, and whose weight decay is that of AdamW.
    :param groups: of :func:`logitstore.training.schedule.parameter_groups`, on the device.
    :raises MissingExtraError: bitsandbytes is not installed.
    """
    fused = device.type == "cuda"
    if name == "adam8bit":
        return _bitsandbytes().optim.Adam8bit(list(groups), lr=lr, min_8bit_size=_LEAST_8BIT)  # type: ignore[no-any-return]
    kind = uncompiled(torch.optim.AdamW if name == "adamw" else torch.optim.Adam)
    return kind(groups, lr=lr, fused=fused)


def require_optimizer(name: str, device: torch.device) -> None:
    """Refuse an optimizer that is not installed or cannot run on a device, before any work: one step of it is taken.

    :raises MissingExtraError: it is not installed. :raises RunError: it cannot run there.
    """
    if name != "adam8bit":
        return
    _bitsandbytes()
    weight = torch.nn.Parameter(torch.ones(_LEAST_8BIT, device=device))
    weight.grad = torch.ones_like(weight)
    try:
        make_optimizer(name, [{"params": [weight]}], 1e-3, device).step()
        fine = bool((weight < 1).all())
    except (AttributeError, NotImplementedError, RuntimeError, ValueError):
        fine = False
    if not fine:
        raise RunError(
            f"--optimizer {name} cannot be used on {device.type} with bitsandbytes {version('bitsandbytes')}; install "
            f"a newer one, or give {_IN_32_BITS}"
        )


def _bitsandbytes() -> Any:
    logger = logging.getLogger("bitsandbytes")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it says that kernels of other parts of it are missing
    try:
        import bitsandbytes
    except ImportError:
        raise MissingExtraError("bitsandbytes", "adam8bit", f"--optimizer adam8bit ({_IN_32_BITS})") from None
    finally:
        logger.setLevel(level)
    return bitsandbytes
