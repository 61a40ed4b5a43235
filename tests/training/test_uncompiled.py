"""Trainings and run folders leave torch's compiler alone, and nothing else about them changes."""

import subprocess
import sys

import torch

from logitstore.training.uncompiled import uncompiled


def test_the_same_weights_as_of_torchs_own_optimizer() -> None:
    found = []
    for kind in (torch.optim.AdamW, uncompiled(torch.optim.AdamW)):
        torch.manual_seed(0)
        layer = torch.nn.Linear(7, 3)
        optimizer = kind([{"params": [layer.weight], "weight_decay": 0.1}, {"params": [layer.bias]}], lr=0.1)
        for step in range(3):
            if step == 2:
                optimizer.load_state_dict(optimizer.state_dict())
            optimizer.zero_grad(set_to_none=True)
            layer(torch.ones(2, 7)).square().mean().backward()
            optimizer.step()
        found.append((layer.weight.detach(), layer.bias.detach()))
    assert all(torch.equal(*each) for each in zip(*found, strict=True))


def test_no_step_and_no_net_without_memory_imports_the_compiler() -> None:
    said = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True, timeout=300
    )  # fmt: skip
    assert said.stdout.split() == []


_SCRIPT = """
import sys
import torch
from logitstore.models.registry import build, names
from logitstore.models.torchfile import shapes_alone
from logitstore.training.uncompiled import uncompiled

for name in names():
    with shapes_alone():
        build(name, 3)
    if "torch._dynamo" in sys.modules:
        sys.exit(print(name))
layer = torch.nn.Linear(2, 2)
optimizer = uncompiled(torch.optim.AdamW)(layer.parameters(), lr=0.1)
optimizer.zero_grad()
layer(torch.ones(1, 2)).sum().backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
if "torch._dynamo" in sys.modules:
    print("step")
"""
