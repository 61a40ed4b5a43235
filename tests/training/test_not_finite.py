"""A training whose loss, gradients or weights come to nothing: where it stops, what it says, what it keeps."""

import math

import numpy as np
import pytest
import torch

from logitstore.cli.progress import TrainingProgress
from logitstore.errors import ModelOutputError
from logitstore.models.registry import build, initialised
from logitstore.training.batches import Batch
from logitstore.training.checkpoints import Checkpoints
from logitstore.training.loop import Epoch, FitOptions, FitProgress, Loss, fit
from logitstore.training.precision import _cpu_can
from tests.heard import SMALL

STEPS_AN_EPOCH = 5


def epochs(_):
    waveforms = 0.1 * torch.randn(4, 8000, generator=torch.Generator().manual_seed(1))
    batch = Batch(waveforms, None, torch.full((4, 3), 0.5), np.arange(4))
    return Epoch([np.arange(4)] * STEPS_AN_EPOCH, batch.part)


class Spoilt:
    """A loss of two terms, of which ``sweet`` is fine for ever and ``sour`` what a value says from a step on."""

    def __init__(self, value=1.0, step=10**9):
        self.value, self.step, self.done = value, step, 0

    def __call__(self, logits, frames, batch, **_):
        sweet = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), batch.targets)
        sour = torch.tensor(self.value if self.done >= self.step else 1.0)
        self.done += 1
        return Loss(sweet + sour, {"sweet": sweet.detach(), "sour": sour})


def fitted(run, objective, progress=None, **options):
    run.mkdir(exist_ok=True)
    model = initialised(lambda: build("cnn4", 3, **SMALL), 0)
    values = {"steps": 20, "lr": 1e-3, "seed": 0, "checkpoint_every": 1}
    return fit(model, FitOptions(**values | options), epochs, objective, run, progress=progress)


def finite(run):
    """The step of the newest checkpoint, all of whose tensors are finite."""
    found, notes = Checkpoints(run).newest()
    assert not notes
    for kind in ("model", "averaged"):
        assert all(tensor.isfinite().all() for tensor in found.tensors[kind].values())
    return found.values["done"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [0, 7])
@pytest.mark.parametrize("options", [{}, {"ema": 0.9, "accumulate": 2}], ids=["plain", "averaged"])
def test_a_loss_that_is_not_finite_is_named_with_its_step_and_term(tmp_path, value, step, options):
    calls = step * options.get("accumulate", 1)
    shown = []
    progress = FitProgress(step=lambda step, clips, loss: shown.append(loss))
    with pytest.raises(ModelOutputError, match=rf"the loss is {value:g} at step {step}; lower --lr \(it was") as caught:
        fitted(tmp_path / "run", Spoilt(value, calls), progress, **options)
    assert f"its terms there: sour {value:g}" in str(caught.value)
    assert caught.value.exit_code == 1
    assert all(loss is not None and math.isfinite(loss) for loss in shown)
    if step:
        assert finite(tmp_path / "run") == step
        assert f"and train in another --out (the checkpoint of step {step} stays in this one)" in str(caught.value)
    else:
        assert Checkpoints(tmp_path / "run").newest() == (None, ())
        assert str(caught.value).endswith(f"and train in another --out; its terms there: sour {value:g}")


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("options", [{}, {"ema": 0.9}], ids=["plain", "averaged"])
@pytest.mark.parametrize("every", [1, None], ids=["each step", "each epoch"])
def test_weights_that_are_not_finite_replace_no_checkpoint(tmp_path, monkeypatch, value, options, every):
    step, steps = torch.optim.AdamW.step, 0

    def spoilt(self, *arguments, **more):
        nonlocal steps
        step(self, *arguments, **more)
        steps += 1
        if steps == 2 * STEPS_AN_EPOCH:  # the last of an epoch: its loss says nothing of it
            with torch.no_grad():
                self.param_groups[0]["params"][0].view(-1)[0] = value

    monkeypatch.setattr(torch.optim.AdamW, "step", spoilt)
    measured = []
    with pytest.raises(ModelOutputError, match=r"the weights are not finite after step 9; lower --lr"):
        fit(
            initialised(lambda: build("cnn4", 3, **SMALL), 0),
            FitOptions(steps=20, lr=1e-3, seed=0, checkpoint_every=every, **options),
            epochs, Spoilt(), tmp_path,
            evaluate=lambda model, epoch, last: measured.append(epoch) or {},
        )  # fmt: skip
    assert finite(tmp_path) == (9 if every else 5)
    assert measured == [0]


def test_a_training_goes_on_from_the_checkpoint_that_was_kept(tmp_path):
    whole = fitted(tmp_path / "whole", Spoilt())
    with pytest.raises(ModelOutputError, match="at step 7"):
        fitted(tmp_path / "run", Spoilt(math.nan, 7))
    again = Spoilt()
    result = fitted(tmp_path / "run", again)
    assert again.done == 13
    assert result.loss == whole.loss
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


@pytest.mark.skipif(not _cpu_can(torch.float16), reason="this CPU cannot train with 16 bits")
def test_gradients_that_overflow_at_every_step_end_a_training_in_16_bits(tmp_path):
    def steep(logits, frames, batch, **_):
        total = (logits.float() * 1e30).mean()
        return Loss(total, {"target": total.detach()})

    with pytest.raises(ModelOutputError, match=r"the gradients are not finite.*--precision float32"):
        fitted(tmp_path / "run", steep, precision="fp16", steps=60, checkpoint_every=None)


def test_no_loss_stands_on_a_bar_before_there_is_one():
    progress = TrainingProgress()
    progress.start(0, 2)
    text = []
    for loss in (None, 0.25):
        progress._step(1, 4, loss)
        text.append(progress.says())
    assert "loss" not in text[0]
    assert "loss 0.2500" in text[1]
    assert not any("nan" in line for line in text)
