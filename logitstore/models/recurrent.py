"""Recurrent layers over frames, in every format that a net computes in, and as one operator of an exported graph."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

#: The order that ONNX has a layer's gates in, by their places in torch's: of an LSTM i, o, f, c; of a GRU z, r, h.
_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}


def recurrent(layer: nn.LSTM | nn.GRU, frames: torch.Tensor) -> torch.Tensor:
    """The outputs (B, T, H) of a layer with ``batch_first`` over frames (B, T, D), in float32.

    Autocast is off, since not every machine has such a layer in 16 bits.
    """
    if getattr(torch.compiler, "is_exporting", bool)():  # no torch before 2.7 says so, nor exports such a net
        return _exported(layer, frames)
    with torch.autocast(frames.device.type, enabled=False):
        outputs: torch.Tensor = layer(frames.float())[0]
    return outputs


def _exported(layer: nn.LSTM | nn.GRU, frames: torch.Tensor) -> torch.Tensor:
    """The same as ONNX's operators, for any number of frames: torch would unroll the ones that it traces."""
    kind, ways = layer.mode, 2 if layer.bidirectional else 1
    attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
    attributes |= {"direction": "bidirectional"} if layer.bidirectional else {}
    attributes |= {"linear_before_reset": 1} if kind == "GRU" else {}
    values = frames.transpose(0, 1)  # (T, B, D)
    for number in range(layer.num_layers):
        endings = [f"l{number}", f"l{number}_reverse"][:ways]
        weights = [
            torch.stack([_gates(layer, f"{name}_{end}") for end in endings]) for name in ("weight_ih", "weight_hh")
        ]
        biases = torch.stack(
            [torch.cat([_gates(layer, f"{name}_{end}") for name in ("bias_ih", "bias_hh")]) for end in endings]
        )
        shape = (values.shape[0], ways, values.shape[1], layer.hidden_size)
        outputs = torch.onnx.ops.symbolic(
            kind, (values, *weights, biases), attributes, dtype=values.dtype, shape=shape, version=18
        )
        values = outputs.transpose(1, 2).reshape(values.shape[0], values.shape[1], ways * layer.hidden_size)
    return values.transpose(0, 1)


def _gates(layer: nn.LSTM | nn.GRU, name: str) -> torch.Tensor:
    parts = layer.get_parameter(name).chunk(len(_GATES[layer.mode]))
    return torch.cat([parts[place] for place in _GATES[layer.mode]])
