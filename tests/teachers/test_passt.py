"""PaSST checkpoints: the original's answers, other sizes, long views, and files that are not what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from logitstore.errors import TeacherError
from logitstore.models.ced import Block
from logitstore.models.kaldi_mel import KaldiMel, KaldiMelFrontEnd
from logitstore.models.passt import Passt
from logitstore.views.recipe import Masks
from teachers.registry import load_teacher


def _state(**arguments: Any) -> dict[str, torch.Tensor]:
    """A checkpoint with random weights, as it is published."""
    torch.manual_seed(5)
    state = Passt(527, **({"dim": 64, "depth": 1, "heads": 1, "hidden": 48} | arguments)).state_dict()
    state = {key: value + 0.02 * torch.randn_like(value) for key, value in state.items()}
    named = {key.replace("classifier.", "head."): value for key, value in state.items()}
    return named | {"head_dist.weight": torch.zeros(527, 64), "head_dist.bias": torch.zeros(527)}


def _save(file: Path, state: Any) -> str:
    torch.save(state, file)
    return f"passt:{file}"


def _sound(samples: int, clips: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(samples).normal(0, 0.1, (clips, samples)).astype(np.float32))


@pytest.mark.parametrize(
    ("ending", "logits"), [("", ""), ("_short", "_short"), ("_long", "_long"), ("_12s", "_12s_scene")]
)
def test_answers_are_the_originals(shared: Path, ending: str, logits: str) -> None:
    folder = shared / "data/teachers/passt"
    if not folder.is_dir():
        pytest.skip(f"no reference outputs of PaSST at {folder}")
    reference = np.load(folder / "io.npz")
    teacher = load_teacher(f"passt:{folder / 'checkpoint.pt'}")
    said = teacher.probabilities(torch.from_numpy(reference["waveform" + ending]), None).numpy()
    assert np.abs(said - 1 / (1 + np.exp(-reference["logits" + logits]))).max() < 1e-5


@pytest.mark.parametrize(("stride", "bands", "times", "frames"), [(10, 12, 99, 99), (16, 8, 62, 62), (10, 12, 299, 99)])
def test_the_stride_follows_from_the_positions(
    tmp_path: Path, stride: int, bands: int, times: int, frames: int
) -> None:
    teacher = load_teacher(_save(tmp_path / "net.pt", _state(stride=stride, bands=bands, times=times)))
    assert teacher.contract.arguments["stride"] == stride
    _, features = teacher.outputs(_sound(320_000), None)
    assert features.shape == (1, frames, 64)


def test_a_long_view_is_heard_in_windows(tmp_path: Path) -> None:
    teacher = load_teacher(_save(tmp_path / "net.pt", _state()))
    sound = _sound(360_000)
    turned = sound.flip(1)
    padded = torch.cat([turned[:, -160_001:-1], sound, turned[:, 1:160_001]], dim=1)
    windows = [padded[:, start : start + 320_000] for start in (0, 80_000, 160_000, 240_000, 320_000)]
    logits = torch.stack([torch.logit(teacher.probabilities(window, None).double()) for window in windows]).mean(dim=0)
    torch.testing.assert_close(teacher.probabilities(sound, None), torch.sigmoid(logits).float(), atol=1e-6, rtol=0)
    late = Masks(*(np.full(1, value) for value in (11.0, 11.2, 0.0, 0.0)))  # in the last windows, and reflected
    assert (teacher.probabilities(sound, late) - teacher.probabilities(sound, None)).abs().max() > 1e-6


def test_a_block_is_torchs_own() -> None:
    torch.manual_seed(0)
    block = Block(32, 4, 48)
    layer = nn.TransformerEncoderLayer(
        32, 4, 48, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    names = {"attn.qkv.weight": "self_attn.in_proj_weight", "attn.qkv.bias": "self_attn.in_proj_bias",
             "attn.proj.": "self_attn.out_proj.", "mlp.fc1": "linear1", "mlp.fc2": "linear2"}  # fmt: skip
    state = {}
    for key, value in block.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        state[key] = value
    layer.load_state_dict(state)
    tokens = torch.randn(2, 7, 32)
    torch.testing.assert_close(block(tokens), layer(tokens), atol=1e-5, rtol=0)


def test_the_log_mel_of_one_frame() -> None:
    front_end = KaldiMelFrontEnd()
    sound = np.random.default_rng(4).normal(0, 0.1, 3201).astype(np.float32)
    emphasised = sound[1:].astype(np.float64) - 0.97 * sound[:-1]
    window = np.zeros(1024)
    window[112:912] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 799)
    frame = emphasised[4 * 320 - 512 : 4 * 320 + 512] * window
    bands = np.abs(np.fft.rfft(frame)) ** 2 @ front_end.filter_bank()
    found = KaldiMel()(torch.from_numpy(sound)[None])[0]
    assert found.shape == (128, front_end.n_frames(3201))
    np.testing.assert_allclose(found[:, 4].numpy(), (np.log(bands + 1e-5) + 4.5) / 5, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("time_new_pos_embed"), "none is 'time_new_pos_embed' of 4 dimensions"),
        (lambda state: state.update(freq_new_pos_embed=torch.zeros(1, 64, 3, 1)), "3 positions of frequency"),
        (lambda state: state.pop("norm.bias"), "1 tensors differ, the first is 'norm.bias'"),
        (lambda state: state.update({"head.1.weight": torch.zeros(9, 64)}), "tensors differ"),
    ],
    ids=range(4),
)
def test_what_is_no_such_checkpoint(tmp_path: Path, change: Any, said: str) -> None:
    state = _state()
    change(state)
    with pytest.raises(TeacherError, match=said) as refused:
        load_teacher(_save(tmp_path / "net.pt", state))
    assert "\n" not in str(refused.value)


def test_a_module_that_was_pickled_whole_is_never_loaded(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="holds pickled objects other than tensors, which are never loaded"):
        load_teacher(_save(tmp_path / "net.pt", nn.Linear(2, 2)))
