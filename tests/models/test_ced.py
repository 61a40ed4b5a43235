"""``ced:FILE`` against the original's own inputs and outputs, and against files that are not CED checkpoints."""

from __future__ import annotations

import json
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from logitstore.classes import audioset
from logitstore.errors import TeacherError
from logitstore.models.registry import build
from logitstore.views.ops import mel_step_hz
from logitstore.views.recipe import Masks
from teachers.registry import load_teacher

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def checkpoint(ced_reference: Path) -> Path:
    return ced_reference / "checkpoint.pt"


@pytest.fixture(scope="module")
def io(ced_reference: Path) -> dict[str, Any]:
    return dict(np.load(ced_reference / "io.npz"))


def _masks(spans: np.ndarray) -> Masks:
    axis = mel_step_hz(np.arange(65), 0.0, 8000.0)
    return Masks(spans[:, 0] / 100, spans[:, 1] / 100, axis[spans[:, 2]], axis[spans[:, 3]])


@pytest.mark.parametrize("length", ["1p0", "10p0"])
def test_outputs_are_the_originals_alone_and_in_a_batch(checkpoint: Path, io: dict[str, Any], length: str) -> None:
    teacher = load_teacher(f"ced:{checkpoint}")
    waveforms, theirs = torch.from_numpy(io[f"wave_{length}"]), io[f"output_{length}"]
    batch = teacher.probabilities(waveforms, None).numpy()
    alone = np.concatenate([teacher.probabilities(clip[None], None).numpy() for clip in waveforms])
    np.testing.assert_allclose(batch, theirs, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(alone, theirs, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(alone, batch, atol=1e-6, rtol=0)
    assert np.abs(batch - theirs).max() < 2e-5  # another number of heads is 3e-5 to 6e-5 away in all of these


def test_outputs_under_masks_are_the_originals(checkpoint: Path, io: dict[str, Any]) -> None:
    teacher = load_teacher(f"ced:{checkpoint}")
    waveforms, masks, theirs = torch.from_numpy(io["wave_10p0"]), _masks(io["masks_10p0"]), io["masked_output_10p0"]
    batch = teacher.probabilities(waveforms, masks).numpy()
    alone = np.concatenate(
        [teacher.probabilities(waveforms[row][None], masks[row : row + 1]).numpy() for row in range(len(waveforms))]
    )
    np.testing.assert_allclose(batch, theirs, atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(alone, theirs, atol=TOLERANCE, rtol=0)
    unmasked = teacher.probabilities(waveforms, None).numpy()
    assert np.abs(unmasked - theirs).max() > 10 * np.abs(batch - theirs).max()


def test_what_a_ced_teacher_states(checkpoint: Path) -> None:
    teacher = load_teacher(f"ced:{checkpoint}")
    assert teacher.classes == tuple(row.display_name for row in audioset())
    assert (teacher.scores, teacher.sample_rate, teacher.takes_masks) == ("sigmoid", 16000, True)
    assert teacher.contract.fill == {"stage": "log-mel in dB, before the BatchNorm", "value": 0.0}
    assert teacher.contract.arguments["heads"] == 3
    json.dumps(teacher.contract.stored())
    assert teacher.digest == load_teacher(f"ced:{checkpoint}?heads=6").digest
    assert teacher.features(torch.zeros(2, 160000), None).shape == (2, 62, 48)


def test_longer_audio_is_cut_after_the_batchnorm_and_averaged(checkpoint: Path) -> None:
    model: Any = load_teacher(f"ced:{checkpoint}").model  # type: ignore[attr-defined]
    waveform = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, 25 * 16000)).astype(np.float32))

    def said_of(frames: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(model.head(model._tokens(frames)))

    with torch.inference_mode():
        features = model.init_bn(model.log_mel(waveform))  # 2,501 frames
        last = torch.zeros(1, 64, 1012)
        last[..., : 2501 - 2024] = features[..., 2024:]
        expected = (said_of(features[..., :1012]) + said_of(features[..., 1012:2024]) + said_of(last)) / 3
        torch.testing.assert_close(torch.sigmoid(model(waveform)), expected, atol=1e-6, rtol=0)
        full = waveform[:, : 2023 * 160]  # 2,024 frames: the original leaves out a last piece that is exactly full
        first = said_of(model.init_bn(model.log_mel(full))[..., :1012])
        torch.testing.assert_close(torch.sigmoid(model(full)), first, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "pooling"), [("ced-tiny", "mean"), ("ced-tiny", "token"), ("ced-mini", "mean")])
def test_a_checkpoint_of_any_size_is_read_from_its_shapes(tmp_path: Path, name: str, pooling: str) -> None:
    torch.manual_seed(0)
    model = build(name, 527, depth=2, pooling=pooling).eval()
    file = tmp_path / "model.pt"
    torch.save(model.state_dict(), file)  # a bare state dict, without the filter bank
    teacher = load_teacher(f"ced:{file}")
    waveforms = torch.randn(2, 16000) * 0.1
    with torch.inference_mode():
        torch.testing.assert_close(teacher.probabilities(waveforms, None), torch.sigmoid(model(waveforms)))


def test_another_number_of_outputs_needs_a_sidecar(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.save({"model": build("ced-tiny", 2, depth=1, dim=64, heads=1).state_dict()}, file)
    with pytest.raises(TeacherError, match="has 2 outputs and AudioSet has 527 classes"):
        load_teacher(f"ced:{file}")
    (tmp_path / "model.pt.json").write_text('{"classes": ["a", "b"]}', encoding="utf-8")
    assert load_teacher(f"ced:{file}").classes == ("a", "b")
    (tmp_path / "model.pt.json").write_text('{"classes": ["a"]}', encoding="utf-8")
    with pytest.raises(TeacherError, match="has 2 outputs and its sidecar has 1 classes"):
        load_teacher(f"ced:{file}")


class _Harmful:
    def __reduce__(self) -> Any:
        return (print, ("this must never run",))


def _text(file: Path) -> None:
    file.write_text("not a checkpoint", encoding="utf-8")


def _truncated(file: Path) -> None:
    torch.save(build("ced-tiny", 527, depth=1, dim=64, heads=1).state_dict(), file)
    file.write_bytes(file.read_bytes()[:-2000])


def _flipped(file: Path) -> None:
    torch.save(build("ced-tiny", 527, depth=1, dim=64, heads=1).state_dict(), file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def _zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello.txt", "hello")


def _pickled(file: Path) -> None:
    torch.save({"model": _Harmful()}, file)


def _another_model(file: Path) -> None:
    torch.save({"model": build("cnn4", 527).state_dict()}, file)


def _no_head(file: Path) -> None:
    state = build("ced-tiny", 527, depth=1, dim=64, heads=1).state_dict()
    torch.save(OrderedDict((key, value) for key, value in state.items() if not key.startswith("outputlayer")), file)


def _lacking(file: Path) -> None:
    state = build("ced-tiny", 527, depth=1, dim=64, heads=1).state_dict()
    del state["blocks.0.norm1.weight"]
    torch.save(state, file)


def _other_bank(file: Path) -> None:
    state = dict(build("ced-tiny", 527, depth=1, dim=64, heads=1).state_dict())
    torch.save(state | {"front_end.0.mel_scale.fb": torch.rand(257, 64)}, file)


def _tensor(file: Path) -> None:
    torch.save(torch.zeros(3), file)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_text, "not a file that torch.save writes"),
        (_truncated, "not a file that torch.save writes"),
        (_flipped, "is damaged|not a file that torch.save writes"),
        (_zip, "not a file that torch.save writes"),
        (_pickled, "pickled objects other than tensors"),
        (_another_model, "none is 'time_pos_embed'"),
        (_no_head, "none is 'outputlayer.1.weight'"),
        (_lacking, "blocks.0.norm1.weight"),
        (_other_bank, "another filter bank"),
        (_tensor, "not a table of tensors by name"),
    ],
)
def test_a_file_that_is_not_a_ced_checkpoint_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, message: str
) -> None:
    file = tmp_path / "model.pt"
    make(file)
    with pytest.raises(TeacherError, match=message) as caught:
        load_teacher(f"ced:{file}")
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    assert "must never run" not in capsys.readouterr().out


def test_specs_that_cannot_be_right(checkpoint: Path) -> None:
    with pytest.raises(TeacherError, match=r"no file 'nowhere\.pt'"):
        load_teacher("ced:nowhere.pt")
    with pytest.raises(TeacherError, match="heads is '5'; it must be a whole number that divides 48"):
        load_teacher(f"ced:{checkpoint}?heads=5")
    with pytest.raises(TeacherError, match="unknown option 'depth=2'; allowed are heads="):
        load_teacher(f"ced:{checkpoint}?depth=2")
