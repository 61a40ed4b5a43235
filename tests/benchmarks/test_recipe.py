"""The experiment behind the trainer's defaults: its arms, what it keeps of a run, and its tables."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import recipe
from benchmarks.cached import Rule
from benchmarks.recipe import CED, DEFAULT, KEPT, PARTS, RULES, Watch, jobs, report, transformer
from logitstore.training.loop import FitOptions
from logitstore.training.schedule import DEFAULTS
from logitstore.views.recipe import Masks
from students import presets


def test_arms_differ_from_the_trainers_defaults_in_one_thing_and_ceds_is_its_preset():
    today = DEFAULTS[-1]
    plain = Rule()
    assert (plain.weight_decay, plain.floor, plain.warm_up, plain.spared, plain.cosine) == (
        today.weight_decay, today.floor, today.warm_up, today.spared, FitOptions(steps=1, lr=1, seed=0).cosine,
    )  # fmt: skip
    for name, rule in RULES.items():
        others = [key for key, value in vars(rule).items() if value != vars(RULES[DEFAULT])[key]]
        assert len(others) == {DEFAULT: 0, CED: 4}.get(name, 1), name
    values = presets.find("ced-tiny").values
    ced = RULES[CED]
    assert (ced.weight_decay, ced.floor, ced.cosine) == (values["weight_decay"], values["floor"], values["cosine"])
    assert ced.warm_up == values["warm_up"] / (values["epochs"] * values["epoch_steps"])


def test_the_arms_that_stand_for_a_question_come_first_and_every_run_once():
    order = list(jobs(3))
    assert len(order) == len(set(order)) == 6 * 3 * sum(len(part.rules) for part in PARTS)
    first = [rule for part, rule, *_ in order if part is PARTS[0]]
    assert set(first[: 5 * 6]) == set(first[: 3 * 5 * 6]) == {DEFAULT, CED, "weight decay 0", "floor 0.1", "warm-up 0"}


def line(rule, data, fold, seed, last, **kept):
    points = dict.fromkeys(KEPT, last) | kept
    return {"part": PARTS[0].name, "rule": rule, "data": data, "fold": fold, "seed": seed, "mAP": points, "seconds": 60}


def test_an_arm_wins_where_its_interval_is_above_zero_on_both():
    lines = []
    for data, gain in (("scenes", 1.0), ("sequences", 2.0)):
        for seed in range(3):
            base = 70 + seed
            lines.append(line(DEFAULT, data, "1", seed, base, best=base + gain + 0.1 * seed))
            lines.append(line("floor 0.1", data, "1", seed, base + gain + 0.1 * seed))
            lines.append(line("warm-up 0", data, "1", seed, base + (gain if data == "scenes" else -gain)))
    text = report(lines)
    assert "| floor 0.1 | 3 | 72.1 | +1.10 ± 0.25 | 3 | 73.1 | +2.10 ± 0.25 |" in text
    assert "| best, of the same runs | 3 | 72.1 | +1.10 ± 0.25 |" in text
    assert "Better on both: floor 0.1, best, of the same runs." in text
    assert "weight decay" not in text
    assert text.count("Better on both") == 1  # parts without runs are left out
    assert "18 runs of one thread, 18 min" in text


@pytest.mark.usefixtures("one_thread")
def test_averages_and_the_best_weights_are_those_of_the_run(monkeypatch):
    """Of a transformer that hears log-mels: what is kept is what its weights were."""
    monkeypatch.setattr(recipe, "MEASUREMENTS", 5)
    none = Masks(*torch.zeros(4, 6, dtype=torch.float64))
    random = np.random.default_rng(0)
    fold = SimpleNamespace(
        classes=("a", "b"),
        store=lambda name: SimpleNamespace(views=2),
        sound=lambda arm, view: (random.normal(size=(6, 32, 62)).astype(np.float32), none),
        targets=lambda arm, view: np.full((6, 2), 0.5, np.float32),
    )
    model = transformer(fold)
    model.log_mel = torch.nn.Identity()
    watch = Watch(fold, np.array([1, 4, 5]), steps=5)
    assert watch.sounds.shape == (3, 32, 62)
    head = model.outputlayer[1]
    biases = (4.0, 1.0, 0.0, 2.0, -3.0)  # the targets want 0
    with torch.no_grad():
        head.weight.zero_()
        for step, bias in enumerate(biases):
            head.bias.fill_(bias)
            watch(step + 1, model.train())
    kept = {name: float(each.outputlayer[1].bias[0].detach()) for name, each in watch.kept(model.eval())}
    assert (kept["last"], kept["best"]) == (-3.0, 0.0)
    assert kept["mean of the best 4"] == pytest.approx((0 + 1 + 2 - 3) / 4)
    mean = biases[0]
    for step, bias in enumerate(biases):  # a decay of (1 + n) / (10 + n), which is less than both
        mean += (bias - mean) * (1 - (1 + step) / (10 + step))
    assert kept["EMA 0.99"] == kept["EMA 0.999"] == pytest.approx(mean)
    assert model(watch.sounds, watch.spans).shape == (3, 2)
