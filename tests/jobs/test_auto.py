"""What a build takes from its teachers and from the store that is there: the recipe, the rate of the views."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile

from logitstore import open_store
from logitstore.errors import MismatchError, UsageError
from logitstore.jobs.build.extend import ExtendOptions, extend
from logitstore.jobs.build.job import Progress, build, prepare
from logitstore.store.format.manifest import ROOT
from logitstore.views.recipe import BUILT_IN, CED, load_recipe
from tests.stores import contents, options, write_audio

pytestmark = pytest.mark.usefixtures("own_folder")

RATES = """
import torch

class Bands(torch.nn.Module):
    classes, scores = ["below 8 kHz", "above 8 kHz"], "sigmoid"

    def __init__(self, rate=32000):
        super().__init__()
        self.sample_rate = rate

    def forward(self, waveforms, masks=None):
        power = torch.fft.rfft(waveforms).abs().square()
        edge = 16000 * len(power[0]) // self.sample_rate
        low, high = power[:, :edge].sum(1), power[:, edge:].sum(1)
        return torch.stack([low, high], 1).div((low + high)[:, None] + 1e-9).clamp(0, 0.95)

make = Bands
"""


@pytest.fixture
def root(tmp_path):
    write_audio(tmp_path / "audio", 3)
    (tmp_path / "rates.py").write_text(RATES)
    return tmp_path


def built(root, **changes):
    """A build, and what it said of its recipe and its rate."""
    notes: list[str] = []
    build(options(root, **changes), Progress(note=notes.append))
    return [note for note in notes if note.startswith("recipe ") or " Hz" in note]


@pytest.mark.parametrize(
    ("teachers", "recipe", "why"),
    [
        (["plain", "steep"], "ced", "every teacher takes masks"),
        (["deaf"], "wave", "'python:tones:deaf' takes only waveforms"),
        (["plain", "deaf"], "wave", "'python:tones:deaf' takes only waveforms"),
    ],
)
def test_the_recipe_is_what_every_teacher_hears(root, teachers, recipe, why):
    of = {"teachers": [f"python:tones:{name}" for name in teachers]}
    assert f"recipe {recipe}, for {why}" in built(root, **of)
    store = open_store(root / "store")
    assert store.manifest.recipe == load_recipe(recipe).fitted(store.manifest.place)
    before = contents(root / "store")
    assert built(root, **of) == []  # the same again is finished, whatever the recipe is called
    assert built(root, recipe="auto", **of) == built(root, recipe=recipe, **of) == []
    assert contents(root / "store") == before
    assert b'"auto"' not in before[ROOT]


def test_a_store_of_another_recipe_is_gone_on_with_by_that(root):
    built(root, recipe="none")
    assert built(root, views=4) == ["recipe none, which the store was begun with"]
    assert open_store(root / "store").views == 4
    with pytest.raises(MismatchError, match=r"recipe: stored .*none.*, asked .*ced"):
        built(root, recipe="ced")


@pytest.mark.parametrize("recipe", ["auto", "ced"])
def test_a_store_whose_masks_an_earlier_release_bounded_by_seconds_alone_is_gone_on_with(root, recipe):
    """Of views of less than 10 s; the recipe is written out in the manifest."""
    build(options(root, recipe=CED))
    before = contents(root / "store")
    assert open_store(root / "store").manifest.recipe == CED
    assert build(options(root, recipe=recipe)).made_views == 0
    assert build(options(root, recipe=recipe, views=4)).made_views == 3
    assert {name: contents(root / "store")[name] for name in before} == before


def test_a_store_of_10_s_is_as_it_always_was(root):
    job = prepare(options(root, clip_seconds=10.0))
    assert job.manifest.recipe_document == {
        "name": "ced",
        "ops": [
            {"op": "roll", "probability": 0.5, "max_fraction": 0.5},
            {"op": "time_mask", "probability": 1.0, "max_seconds": 1.92},
            {"op": "frequency_mask", "probability": 1.0, "max_steps": 24, "min_hz": 0.0, "max_hz": 8000.0},
        ],
    }


@pytest.mark.parametrize("seconds", [0.1, 0.25, 1, 30])
@pytest.mark.parametrize("recipe", sorted(BUILT_IN))
def test_every_built_in_recipe_builds_views_of_any_length(root, seconds, recipe):
    built(root, clip_seconds=seconds, recipe=recipe, views=2, sample_rate=8000)
    store = open_store(root / "store")
    assert store.views == 2
    ops = store.manifest.recipe_document["ops"]
    assert all("max_share" not in op and op.get("max_seconds", 0) <= 0.192 * seconds + 0.005 for op in ops)


def test_views_have_the_highest_rate_that_a_teacher_takes(root):
    time = np.arange(44_100) / 44_100
    wave = 0.02 * np.sin(2 * np.pi * 500 * time) + 0.4 * np.sin(2 * np.pi * 11_000 * time)
    shutil.rmtree(root / "audio")
    (root / "audio").mkdir()
    soundfile.write(root / "audio" / "high.wav", wave, 44_100)
    of = {"recipe": "none", "views": 1, "topk": 2, "clip_seconds": 1.0}
    two = ["python:rates:make", "python:rates:make?rate=16000"]
    assert built(root, teachers=two, **of) == []
    store = open_store(root / "store")
    assert (store.manifest.sample_rate, [m.sample_rate for m in store.manifest.teachers]) == (32_000, [32_000, 16_000])
    one = {"teachers": two[:1], "out": str(root / "one")}
    assert built(root, **one, **of) == []
    classes, probabilities = open_store(root / "one").targets(0, [0])
    assert (classes[0, 0], probabilities[0, 0] > 0.9) == (1, True)
    # asked for, a lower rate is taken, and said
    low = {"teachers": two[:1], "out": str(root / "low"), **of}
    said = "teacher 'python:rates:make' takes 32,000 Hz and views have 16,000 Hz, {}: it hears nothing above 8,000 Hz"
    assert built(root, sample_rate=16_000, **low) == [said.format("as --sample-rate asks")]
    assert open_store(root / "low").targets(0, [0])[0][0, 0] == 0
    # a store that is there keeps its rate
    assert said.format("which the store was begun with") in built(root, **low | {"views": 2})
    assert open_store(root / "low").views == 2
    with pytest.raises(MismatchError, match="sample_rate: stored 16000, asked 32000"):
        built(root, sample_rate=32_000, **low)


def test_an_extension_keeps_the_stores_rate_and_recipe(root):
    of = {"teachers": ["python:rates:make"], "topk": 2}
    built(root, sample_rate=8000, **of)
    write_audio(root / "more", 5)
    extend(
        ExtendOptions(
            store=str(root / "store"), source=str(root / "more"), teachers=of["teachers"], skip_known=True, workers=1
        )
    )
    store = open_store(root / "store")
    assert (store.manifest.sample_rate, store.clips.num_rows, store.manifest.recipe.name) == (8000, 5, "ced")


def test_the_command_says_what_it_chose(root):
    import subprocess
    import sys

    options(root)
    asked = [sys.executable, "-m", "logitstore", "build", "audio", "--out", "s", "--teacher", "python:tones:deaf"]
    asked += ["--clip-seconds", "1", "--views", "2", "--topk", "4"]
    said = subprocess.run(asked, capture_output=True, text=True, cwd=root, check=False)
    assert said.returncode == 0, said.stderr
    assert "note       recipe wave, for 'python:tones:deaf' takes only waveforms" in said.stderr
    recipe = json.loads((root / "s" / ROOT).read_text())["attributes"]["logitstore"]["recipe"]
    assert [op["op"] for op in recipe["ops"]] == ["roll", "silence", "band_stop"]


def test_a_recipe_that_nobody_has_is_refused(root):
    with pytest.raises(UsageError, match="no recipe 'automatic': give a YAML file or one of ced, gentle, none, wave"):
        built(root, recipe="automatic")
