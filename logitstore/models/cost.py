"""What a model costs: its parameters, and multiply-accumulates, counted while it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def parameters_of(owner: object) -> int | None:
    """The parameters of all torch modules among an object's attributes; None where it has none."""
    modules = {id(value): value for value in vars(owner).values() if isinstance(value, nn.Module)}
    own = {id(each): each for module in modules.values() for each in module.parameters()}
    return sum(each.numel() for each in own.values()) or None


def macs_of(run: Callable[[], Any]) -> int | None:
    """Multiply-accumulates of convolutions, matrix products and attention while something runs on the CPU or a GPU.

    Half of the floating-point operations that ``torch.utils.flop_counter`` counts: no additions, activations,
    normalisations or Fourier transforms. None where torch computes nothing, as where another runtime does.
    """
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which the counter does not know by itself
    with FlopCounterMode(display=False, custom_mapping={on_cpu: attention}) as counter:
        run()
    return counter.get_total_flops() // 2 or None
