"""Front ends that several members of an ensemble have: each is computed once for a batch, for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from teachers.teacher import Teacher


class Shared(nn.Module):
    """A front end, which within :func:`one_batch` gives what it gave before where it is asked about the same waveforms.

    ``forward``: as of ``own``. What it gives is the members' in common: none may change it.
    """

    def __init__(self, own: nn.Module) -> None:
        super().__init__()
        self.own = own
        self._keeps = False
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        last = self._last
        if last is not None and last[0] is waveforms:
            return last[1]
        found: torch.Tensor = self.own(waveforms)
        if self._keeps:
            self._last = (waveforms, found)
        return found

    def keep(self, keeps: bool) -> None:
        """From now on, keep what it gave last, or keep nothing and compute whatever it is asked about."""
        self._keeps, self._last = keeps, None


def share_front_ends(members: Sequence[Teacher]) -> list[Shared]:
    """Make members that have the same front end have it in common: those front ends.

    Only those of this project's own nets without weights are, of which it is known that no net changes what it is given
    by them; the answers stay the same bit for bit.
    """
    alike: dict[Any, list[Any]] = {}
    for teacher in members:
        net: Any = getattr(teacher, "model", None)
        own = getattr(net, "log_mel", None)
        if not isinstance(own, nn.Module) or not type(net).__module__.startswith("logitstore."):
            continue
        plain = own.own if isinstance(own, Shared) else own
        if not list(plain.parameters()) and not plain.state_dict():
            alike.setdefault((type(plain), net.front_end), []).append(net)
    made = []
    for nets in alike.values():
        if len({id(net) for net in nets}) > 1:
            first = nets[0].log_mel
            shared = first if isinstance(first, Shared) else Shared(first)
            for net in nets:
                net.log_mel = shared
            made.append(shared)
    return made


@contextmanager
def one_batch(shared: Sequence[Shared]) -> Iterator[None]:
    """While it lasts, the members are asked about one batch; nothing of it is kept afterwards."""
    for each in shared:
        each.keep(True)
    try:
        yield
    finally:
        for each in shared:
            each.keep(False)
