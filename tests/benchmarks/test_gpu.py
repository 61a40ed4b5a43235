"""The benchmark for a GPU, on the device that is there."""

import pytest
import torch

from benchmarks import gpu


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"no GPU here.* --device cpu"):
        gpu.main(["--out", str(tmp_path)])


def test_both_programs_stand_beside_the_bare_passes(tmp_path):
    sizes = gpu.Sizes(members=2, clips=2, seconds=2, views=1, batch=2, steps=1, train_batch=2, side=64)
    said = gpu.measure(tmp_path, "ced-tiny", "ced-tiny", sizes, "float32", "cpu")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in said.splitlines() if line.startswith("| ")]
    rates = {row[0]: float(row[1].replace(",", "")) for row in rows if row[1][:1].isdigit()}
    assert list(rates) == ["bare forward", "logitstore build", "ready-made batches", "train-student", "its own clock"]
    assert rates["logitstore build"] < rates["bare forward"]
