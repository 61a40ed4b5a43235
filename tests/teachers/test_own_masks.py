"""The page's teacher with a front end of its own hears no sound that a mask hides."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logitstore.views.recipe import Masks
from teachers.registry import load_teacher
from tests.stores import inside

PAGE = Path(__file__).parents[2] / "docs" / "teachers.md"


def test_the_example_of_the_page_hears_what_is_not_hidden(tmp_path: Path) -> None:
    text = re.search(r"```python\n(# masked\.py\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert text is not None
    (tmp_path / "masked.py").write_text(text[1])
    with inside(tmp_path):
        teacher = load_teacher("python:masked:factory")
    at = torch.arange(16_000) / 16_000
    low, high = torch.sin(2 * torch.pi * 1000 * at), torch.sin(2 * torch.pi * 6000 * at)

    def said(*ends: float | Any) -> Any:
        """log10 of the power of either half, under a mask, of both tones or the waveform that comes last."""
        waveform = ends[4] if len(ends) > 4 else low + high
        masks = Masks(*(np.array([end]) for end in ends[:4])) if ends else None
        return torch.logit(teacher.probabilities(waveform[None].float(), masks)[0].double())

    both = said()
    torch.testing.assert_close(said(0, 0, 0, 0), both)
    without_low, without_high = said(0, 0, 500, 1500), said(0, 0, 5000, 7000)
    torch.testing.assert_close(without_low[1], both[1])  # the other half is as it was
    torch.testing.assert_close(without_high[0], both[0])
    assert float(both[0] - without_low[0]) > 1  # a tenth of the power, and less
    assert float(both[1] - without_high[1]) > 1
    assert float(said(0, 1.01, 0, 0).max()) < -5  # nothing is heard at all
    early = torch.where(at < 0.5, low, 0)
    assert float(said(0.55, 1.01, 0, 0, early)[0] - said(0, 0.55, 0, 0, early)[0]) > 4
