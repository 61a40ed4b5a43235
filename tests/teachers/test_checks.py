"""What `examine` finds of good teachers and of bad ones, and what of it a build says of its first batch."""

from __future__ import annotations

import sys
import uuid
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from logitstore.models.registry import build
from logitstore.training.runs import save_run
from logitstore.views.recipe import Masks
from teachers import checks
from teachers.checks import Finding, examine, full_scale, try_out
from teachers.ensemble import load_ensemble
from teachers.registry import load_teacher

RATE = 8000
ZOO = """
import torch

class Bands(torch.nn.Module):
    '''Whether a view is loud in each of four bands.'''
    classes, sample_rate, scores = ["low", "middle", "high", "highest"], 8000, "sigmoid"

    def forward(self, waveforms):
        return torch.sigmoid(self.logits(waveforms))

    def logits(self, waveforms):
        bands = torch.fft.rfft(waveforms).abs().square().tensor_split(4, dim=1)
        return torch.stack([band.mean(1).add(1e-6).log10() for band in bands], 1)

class Masked(Bands):
    def forward(self, waveforms, masks):
        time = torch.arange(waveforms.shape[1]) / self.sample_rate
        hidden = (time >= masks.time_start[:, None]) & (time < masks.time_end[:, None])
        return super().forward(torch.where(hidden, 0.0, waveforms))

    def features(self, waveforms, masks):
        return waveforms.unfold(1, 400, 400)

class NoEars(Bands):
    def forward(self, waveforms, masks):
        return super().forward(waveforms)

class BadFeatures(Masked):
    def features(self, waveforms, masks):
        return waveforms

class WrongShape(Bands):
    def forward(self, waveforms):
        return super().forward(waveforms)[:, :3]

class Logits(Bands):
    def forward(self, waveforms):
        return self.logits(waveforms)

class Remembers(Bands):
    heard = 0

    def forward(self, waveforms):
        self.heard += 1
        return (super().forward(waveforms) + 0.1 * (self.heard % 2)).clamp(0, 1)

class OverTheBatch(Bands):
    '''Normalised by the level of the whole batch, as BatchNorm in train mode does.'''
    def forward(self, waveforms):
        return super().forward(waveforms / (waveforms.std() + 1e-6))

class InPlace(Bands):
    def forward(self, waveforms):
        return super().forward(waveforms.mul_(0.5))

class Divides(Bands):
    '''NaN of silence.'''
    def forward(self, waveforms):
        return super().forward(waveforms / waveforms.std(dim=1, keepdim=True))

class Clipped(Bands):
    def forward(self, waveforms):
        if waveforms.abs().max() > 0.99:
            raise ValueError("samples out of range")
        return super().forward(waveforms)

class Overflows(Bands):
    '''What a 16-bit float does not hold, and rounds away.'''
    def __init__(self):
        super().__init__()
        self.large = torch.nn.Linear(1, 4, bias=False)
        torch.nn.init.constant_(self.large.weight, 3e4)

    def forward(self, waveforms):
        large = self.large(torch.full((len(waveforms), 1), 30.0))
        return (super().forward(waveforms) + (large - large)).clamp(0, 1)

class NotOne(Bands):
    scores = "softmax"

    def forward(self, waveforms):
        return 0.9 * torch.softmax(self.logits(waveforms), dim=1)

class One(NotOne):
    def forward(self, waveforms):
        return torch.softmax(self.logits(waveforms), dim=1)

class Deaf(Bands):
    def forward(self, waveforms):
        return torch.tensor([[0.1, 0.2, 0.3, 0.9]]).repeat(len(waveforms), 1)

class Hasty(Bands):
    '''Hears the first half second.'''
    def forward(self, waveforms):
        return super().forward(waveforms[:, :4000])

class Narrow(Bands):
    '''Takes a quarter of a second and nothing else.'''
    def forward(self, waveforms):
        return super().forward(waveforms.reshape(len(waveforms), 2000))

class Windowed(Narrow):
    window_seconds = 0.25
"""


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"zoo_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(ZOO, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def views(seconds: float = 1.0, rate: int = RATE, count: int = 4) -> torch.Tensor:
    random = np.random.default_rng(5)
    levels = np.array([0.3, 0.01, 0.1, 0.05, 0.2, 0.02])[:count, None]
    sound = levels * random.normal(0, 1, (count, int(seconds * rate)))
    return torch.from_numpy(sound.clip(-0.9, 0.9).astype(np.float32))


def masks(count: int = 4) -> Masks:
    return Masks(*(np.full(count, value) for value in (0.1, 0.2, 500.0, 1000.0)))


def examined(spec: str, rate: int = RATE, waveforms: torch.Tensor | None = None) -> dict[str, Finding]:
    teacher = load_teacher(spec)
    heard = views(rate=rate) if waveforms is None else waveforms
    found = examine(
        teacher, heard, masks(len(heard)) if teacher.takes_masks else None, rate=rate, device="cpu"
    )  # fmt: skip
    assert len({each.check for each in found}) == len(found)
    return {each.check: each for each in found}


def unwell(found: dict[str, Finding]) -> dict[str, str]:
    return {name: each.verdict for name, each in found.items() if each.verdict != "ok"}


@pytest.mark.parametrize("name", ["Bands", "Masked", "One", "Windowed"])
def test_a_good_teacher_has_nothing_said_against_it(zoo: str, name: str) -> None:
    found = examined(f"python:{zoo}:{name}")
    assert unwell(found) == {}
    always = {"answers", "the same twice", "speed", "alone or in a batch", "silence", "clipping", "the whole view",
              "half precision", "its input"}  # fmt: skip
    more = {"Masked": {"masks", "features"}, "Windowed": {"frames"}}
    assert found.keys() == always | more.get(name, set())
    assert found["answers"].found.startswith(f"4 classes, {'softmax' if name == 'One' else 'sigmoid'} scores from 0.")


def test_it_may_hear_another_rate_than_its_own(zoo: str) -> None:
    assert unwell(examined(f"python:{zoo}:Masked", rate=16_000)) == {}


@pytest.mark.parametrize(
    ("name", "check", "verdict", "said"),
    [
        ("WrongShape", "answers", "fails", r"gave the shape (4, 3); it must be (clips, classes) = (4, 4)"),
        ("Logits", "answers", "fails", "are these logits?"),
        ("NotOne", "answers", "fails", "states softmax scores, and those of clip"),
        ("Narrow", "answers", "fails", "failed: RuntimeError"),
        ("Remembers", "the same twice", "fails", "what is stored then depends on what it was asked before"),
        ("OverTheBatch", "alone or in a batch", "fails", "let no step of it reckon over the batch"),
        ("InPlace", "its input", "warning", "is changed in place"),
        ("Divides", "silence", "fails", "fails on a silent view: gave NaN for clip 0 of a batch of 1"),
        ("Clipped", "clipping", "fails", "fails on a view at full scale: failed: ValueError: samples out of range"),
        ("NoEars", "masks", "fails", "takes masks and does not hear them"),
        ("BadFeatures", "further answers", "fails", "gave features of the shape (2, 8000)"),
        ("Deaf", "hearing", "warning", "says the same of a view, of silence, of a square wave and of noise"),
        ("Hasty", "the whole view", "warning", "does not hear the last 0.1 s of a view of 1 s"),
    ],
)
def test_what_is_wrong_is_found_and_nothing_else(zoo: str, name: str, check: str, verdict: str, said: str) -> None:
    found = examined(f"python:{zoo}:{name}")
    assert said in found[check].line
    also = {"half precision"} if name == "OverTheBatch" else set()  # of a smaller batch
    assert {key: value for key, value in unwell(found).items() if key not in also} == {check: verdict}


def test_answers_that_cannot_be_used_end_the_examination(zoo: str) -> None:
    assert list(examined(f"python:{zoo}:WrongShape")) == ["answers"]


def test_sixteen_bits_that_do_not_hold_it_are_warned_of(zoo: str) -> None:
    found = examined(f"python:{zoo}:Overflows")["half precision"]
    if "fp16 is not for this device" in found.found:
        pytest.skip("this device does not compute in fp16")
    assert found.verdict == "warning"
    assert "fp16: gave NaN" in found.found
    assert "float32 is the default" in found.remedy


def test_a_slow_teacher_is_warned_of(zoo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count()
    monkeypatch.setattr(checks.time, "perf_counter", lambda: 8.0 * next(ticks))
    found = examined(f"python:{zoo}:Bands")["speed"]
    assert (found.verdict, found.found) == ("warning", "0.5 views/s on cpu, 10,000 views in 6 hours")


def test_a_run_folder_is_examined_too(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = build("cnn4", 3, width=4, sample_rate=RATE)
    for name, bad in (("good", False), ("bad", True)):
        if bad:
            next(model.parameters()).data.fill_(float("nan"))
        save_run(tmp_path / name, "cnn4", {"width": 4, "sample_rate": RATE}, list("abc"), "sigmoid", RATE, model)
    found = examined(str(tmp_path / "good"))
    assert unwell(found) == {}
    assert {"masks", "features"} <= found.keys()
    assert "gave NaN for clip 0 of a batch of 4" in examined(str(tmp_path / "bad"))["answers"].found


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Bands", None),
        ("Masked", None),
        ("InPlace", None),
        ("Divides", "fails on a silent view: gave NaN"),
        ("Clipped", "fails on a view at full scale: failed: ValueError"),
        ("OverTheBatch", "gives answers that depend on what else is in the batch: up to"),
        ("NoEars", "takes masks and does not hear them"),
        ("Remembers", "was asked the same batch twice"),
        ("Deaf", "says the same of a view, of silence"),
    ],
)
def test_the_first_batch_of_a_build_says_what_it_shows(zoo: str, name: str, said: str | None) -> None:
    spec = f"python:{zoo}:{name}"
    ensemble = load_ensemble([spec], sample_rate=RATE)
    takes_masks = ensemble.members[0].takes_masks
    heard = np.array([False, True, True, True])
    outputs = try_out(ensemble, views(), masks() if takes_masks else None, features=False, heard=heard)
    assert bool((outputs.probabilities[0] == 0).all())  # a clip that was not heard
    if said is None:
        assert ensemble.notes == []
    else:
        assert any(note.startswith(f"teacher {spec!r} {said}") for note in ensemble.notes)


def test_every_member_of_an_ensemble_is_tried(zoo: str) -> None:
    specs = [f"python:{zoo}:{name}" for name in ("Bands", "Divides", "Clipped")]
    ensemble = load_ensemble(specs, classes=["high", "low"], sample_rate=16_000)
    try_out(ensemble, views(rate=16_000), None, features=False)
    told = [note for note in ensemble.notes if " fails on " in note]
    assert [spec for spec in specs if any(spec in note for note in told)] == specs[1:]
    alone = ensemble.alone(1).probabilities(views(rate=16_000), None)
    torch.testing.assert_close(alone, ensemble.probabilities(views(rate=16_000), None, members=True)[1][1])


def test_full_scale_is_full_scale() -> None:
    kinds: tuple[Any, ...] = ("square", "noise")
    square, noise = (full_scale(kind, 8000, RATE) for kind in kinds)
    assert set(square.tolist()) == {-1.0, 1.0}
    assert 0.99 < float(noise.abs().max()) <= 1.0
    assert abs(float(noise.mean())) < 0.02
    assert torch.equal(noise, full_scale("noise", 8000, RATE))
