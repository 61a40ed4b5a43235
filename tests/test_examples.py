"""The examples run as they stand, hear another view in every epoch, and see masks that are filled already."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from logitstore.jobs.build.job import build
from students.data import ReplayDataset
from tests.stores import inside, options, write_audio

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    """A folder with a store of the recipe `ced`, two views, and its audio."""
    root = tmp_path_factory.mktemp("examples")
    write_audio(root / "audio", 12)
    with inside(root):
        build(options(root, views=2, clip_seconds=1.0))
    return root


@pytest.fixture
def seen(monkeypatch):
    """The items that a dataset gave, by its epoch."""
    given: dict[int, list[dict]] = {}
    plain, together = ReplayDataset.__getitem__, ReplayDataset.__getitems__

    def kept(self, index):
        item = plain(self, index)
        given.setdefault(int(self._epoch), []).append(item)
        return item

    def all_kept(self, indices):
        items = together(self, indices)
        given.setdefault(int(self._epoch), []).extend(items)
        return items

    monkeypatch.setattr(ReplayDataset, "__getitem__", kept)
    monkeypatch.setattr(ReplayDataset, "__getitems__", all_kept)
    return given


def run(name, folder, monkeypatch, capsys, *words):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    torch.manual_seed(0)
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "package"),
    [("plain_loop.py", "torch"), ("lightning_module.py", "lightning"), ("hf_trainer.py", "accelerate")],
)
@pytest.mark.filterwarnings("ignore")
def test_a_loop_of_ones_own(name, package, workshop, seen, monkeypatch, capsys):
    pytest.importorskip(package)
    if name == "hf_trainer.py":
        pytest.importorskip("transformers")
    said = run(name, workshop, monkeypatch, capsys, "store", "audio", 2)
    assert float(re.findall(r"loss (\d\.\d+)", said)[-1]) > 0
    assert {epoch: len(items) for epoch, items in seen.items()} == {0: 12, 1: 12}
    items = [item for some in seen.values() for item in some]
    assert all("waveform" not in item and item["log_mel"].shape == (64, 101) for item in items)
    filled = [
        item for item in items if (item["log_mel"] == 0).all(dim=0).any() or (item["log_mel"] == 0).all(dim=1).any()
    ]
    assert len(filled) > len(items) / 2  # a loud bar of 0 dB, as the recipe draws them
    for clip in range(12):  # another view of it in the second epoch
        one, other = (next(item for item in seen[epoch] if item["clip"] == clip) for epoch in (0, 1))
        assert not torch.equal(one["log_mel"], other["log_mel"])


def test_a_net_of_ones_own_is_trained(workshop, monkeypatch, capsys):
    import logitstore

    with inside(workshop):
        (workshop / "own_student.py").write_text((EXAMPLES / "own_student.py").read_text())
        assert "parameters, loss" in run("own_student.py", workshop, monkeypatch, capsys, "store", "audio", 2)
        module = runpy.run_path(str(EXAMPLES / "own_student.py"))
        assert set(module["REGISTRY"]) == {"separable_tiny", "separable_small"}
        student = logitstore.load_student(workshop / "runs/separable_tiny", student="python:own_student:separable_tiny")
        assert student(torch.zeros(2, 16_000)).shape == (2, 8)


def test_the_store_in_tables(workshop, monkeypatch, capsys):
    pytest.importorskip("pandas")
    said = run("tables.py", workshop, monkeypatch, capsys, "store")
    assert "mean_entropy" in said
    assert "tone 300 Hz" in said


def test_the_plain_loop_is_short():
    lines = (EXAMPLES / "plain_loop.py").read_text().splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 40


def test_every_example_is_listed():
    listed = re.findall(r"examples/(\w+\.py)", (EXAMPLES / "README.md").read_text())
    assert sorted(listed) == sorted(file.name for file in EXAMPLES.glob("*.py"))
