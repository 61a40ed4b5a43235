"""EfficientAT checkpoints: the original's answers, what names say, and files that are something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from logitstore.errors import TeacherError
from logitstore.models.efficientat import EfficientAt, _Kernels, _Lines
from logitstore.views.recipe import Masks
from teachers.registry import load_teacher


def _save(file: Path, classes: int = 527, **arguments: Any) -> str:
    torch.manual_seed(1)
    state = EfficientAt(classes, **({"width": 0.1} | arguments)).state_dict()
    for key, value in state.items():  # so that what a layer hears reaches the answer
        if value.ndim == 1 and value.is_floating_point() and not key.endswith(("lambdas", "init_v", "running_var")):
            value.add_(0.3 * torch.rand_like(value))
        elif "classifier" in key and value.is_floating_point():
            value.mul_(20.0)
    torch.save(state, file)
    return f"efficientat:{file}"


def _sound(clips: int = 2, samples: int = 40_000) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(0, 0.1, (clips, samples)).astype(np.float32))


@pytest.mark.parametrize("ending", ["", "_short", "_long"])
def test_answers_are_the_originals(shared: Path, ending: str) -> None:
    folder = shared / "data/teachers/efficientat_mn01"
    if not folder.is_dir():
        pytest.skip(f"no reference outputs of EfficientAT at {folder}")
    reference = np.load(folder / "io.npz")
    teacher = load_teacher(f"efficientat:{folder / 'checkpoint.pt'}")
    said = teacher.probabilities(torch.from_numpy(reference["waveform" + ending]), None).numpy()
    assert np.abs(said - 1 / (1 + np.exp(-reference["logits" + ending]))).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "arguments", "hop", "mels", "stated"),
    [
        ("mn02_as_mAP_378", {"width": 0.2}, 320, 128, {"strides": [2, 2, 2, 2]}),
        ("mn10_as_hop_15_mAP_463", {}, 480, 128, {"strides": [2, 2, 2, 2]}),
        ("mn10_as_mels_64_mAP_461", {}, 320, 64, {"strides": [2, 2, 2, 2]}),
        ("mn10_as_fc_s2211_mAP_466", {"convolutional": True}, 320, 128, {"strides": [2, 2, 1, 1]}),
        ("dymn04_as", {"dynamic": "all"}, 320, 128, {"strides": [2, 2, 2, 2], "temperature": 1.0}),
        ("dymn04_replace_se_as", {"dynamic": "se"}, 320, 128, {"strides": [2, 2, 2, 2], "temperature": 1.0}),
    ],
)
def test_shapes_and_the_published_name_say_what_it_is(
    tmp_path: Path, name: str, arguments: dict[str, Any], hop: int, mels: int, stated: dict[str, Any]
) -> None:
    teacher = load_teacher(_save(tmp_path / f"{name}.pt", **arguments))
    front_end = teacher.contract.front_end
    assert front_end is not None
    assert (front_end["hop_length"], front_end["n_mels"], teacher.contract.arguments) == (hop, mels, stated)
    said, frames = teacher.outputs(_sound(), None)
    halvings = int(np.prod(stated["strides"])) * 2
    assert frames.shape[:2] == (2, -(-((40_000 - 1) // hop + 1) // halvings))
    alone = torch.cat([teacher.probabilities(_sound()[[row]], None) for row in range(2)])
    torch.testing.assert_close(said, alone, atol=1e-5, rtol=0)
    hidden = teacher.probabilities(_sound(), Masks(*(np.full(2, value) for value in (0.2, 0.6, 300.0, 4000.0))))
    assert not torch.equal(hidden, said)


def test_what_a_name_does_not_say_is_asked_for(tmp_path: Path) -> None:
    spec = _save(tmp_path / "mine.pt", dynamic="all")
    with pytest.raises(TeacherError, match=r"does not say at which temperature .* add \?temperature=1"):
        load_teacher(spec)
    one, thirty = (load_teacher(f"{spec}?temperature={value}").probabilities(_sound(), None) for value in (1, 30))
    assert not torch.equal(one, thirty)
    with pytest.raises(TeacherError, match="'cold' is no number from 0 to 1,000"):
        load_teacher(f"{spec}?temperature=cold")
    assert load_teacher(_save(tmp_path / "mn.pt") + "?hop=800&mels=64&strides=2111").contract.arguments == {
        "strides": [2, 1, 1, 1]
    }
    for option, said in (("hop=1", "hop is '1'"), ("strides=2223", "four digits"), ("temperature=1", "is no dymn")):
        with pytest.raises(TeacherError, match=said):
            load_teacher(_save(tmp_path / "mn.pt") + f"?{option}")
    with pytest.raises(TeacherError, match="does not say at which temperature"):
        load_teacher(_save(tmp_path / "dymn10_im.pt", dynamic="all"))  # of ImageNet alone


def test_a_dynamic_convolution_is_one_of_mixed_kernels() -> None:
    torch.manual_seed(0)
    layer = _Kernels(6, 8, 3, 2, 5, 2.0, groups=2)
    maps, context = torch.randn(3, 6, 9, 7), torch.randn(3, 5)
    kernels = layer.weight.reshape(4, 8, 3, 3, 3)
    for clip in range(3):
        share = torch.softmax(layer.residuals(context[clip]) / 2.0, dim=0)
        mixed = sum(share[number] * kernels[number] for number in range(4))
        alone = F.conv2d(maps[[clip]], mixed, stride=2, padding=1, groups=2)
        torch.testing.assert_close(layer(maps, context)[[clip]], alone, atol=1e-5, rtol=0)


def test_a_dynamic_activation_is_the_larger_of_two_lines() -> None:
    torch.manual_seed(0)
    layer = _Lines(2, 3)
    maps, context = torch.randn(1, 2, 4, 5), torch.randn(1, 3)
    theta = (2 * torch.sigmoid(layer.coef_net(context)) - 1).reshape(2, 4)
    for channel in range(2):
        first, second, low, high = theta[channel]
        x = maps[0, channel]
        lines = torch.maximum((1 + first) * x + 0.5 * low, second * x + 0.5 * high)
        torch.testing.assert_close(layer(maps, context)[0, channel], lines)


def test_what_is_no_such_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    for state, said in (
        ({"a": torch.ones(2)}, "none is the first convolution"),
        (EfficientAt(527, width=0.1).state_dict() | {"more": torch.ones(1)}, "1 tensors differ, the first is 'more'"),
        ({"model": 3}, "is not a table of tensors"),
    ):
        torch.save(state, file)
        with pytest.raises(TeacherError, match=said):
            load_teacher(f"efficientat:{file}")
    with pytest.raises(TeacherError, match="has 9 outputs and AudioSet has 527 classes"):
        load_teacher(_save(file, classes=9))
    content = file.read_bytes()
    file.write_bytes(content[:-3000])
    with pytest.raises(TeacherError, match="cut short"):
        load_teacher(f"efficientat:{file}")
