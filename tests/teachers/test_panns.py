"""PANNs checkpoints: the original's answers, what the tables in a file say, and files that are something else."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from logitstore.errors import TeacherError
from logitstore.models import panns
from logitstore.models.panns import Panns, PannsDecisionLevel, front_end_at
from logitstore.models.panns_mobile import PannsMobile
from teachers.registry import load_teacher


def _document(rate: int = 32000, mels: int = 64, **further: Any) -> dict[str, Any]:
    """A checkpoint with random weights, as it is published: tables of its front end, and a sampler's arrays."""
    torch.manual_seed(2)
    net: Any = PannsMobile if "version" in further else Panns if further else PannsDecisionLevel
    state = net(5, sample_rate=rate, mels=mels, **further).state_dict()
    front_end = front_end_at(rate, mels)
    size = front_end.n_fft
    window = torch.hann_window(size, dtype=torch.float64)
    turns = torch.outer(torch.arange(size // 2 + 1), torch.arange(size)) / size
    state["spectrogram_extractor.stft.conv_real.weight"] = (torch.cos(2 * torch.pi * turns) * window).float()[:, None]
    state["logmel_extractor.melW"] = torch.from_numpy(front_end.filter_bank().astype(np.float32))
    return {"iteration": 600_000, "model": state, "sampler": {"indexes": [np.arange(7), np.arange(3)]}}


def _save(file: Path, document: Any, **options: Any) -> str:
    torch.save(document, file, _use_new_zipfile_serialization=False)
    file.with_name(file.name + ".json").write_text('{"classes": ["a", "b", "c", "d", "e"]}')
    return f"panns:{file}"


def _old_name(file: Path) -> None:
    """The arrays' function by the name that NumPy 1 pickled."""
    content = file.read_bytes()
    for name in (b"numpy._core.multiarray", b"numpy._core.numeric"):
        content = content.replace(name, name.replace(b"_core", b"core"))
    file.write_bytes(content)


@pytest.mark.parametrize("ending", ["", "_short", "_long"])
def test_answers_are_the_originals(shared: Path, ending: str) -> None:
    folder = shared / "data/teachers/panns_cnn6"
    if not folder.is_dir():
        pytest.skip(f"no reference outputs of PANNs at {folder}")
    reference = np.load(folder / "io.npz")
    teacher = load_teacher(f"panns:{folder / 'checkpoint.pth'}")
    said = teacher.probabilities(torch.from_numpy(reference["waveform" + ending]), None).numpy()
    assert np.abs(said - reference["probabilities" + ending]).max() < 1e-5


@pytest.mark.parametrize(
    ("rate", "mels", "further"),
    [
        (32000, 64, {"name": "cnn6"}),
        (16000, 64, {"name": "cnn6"}),
        (8000, 64, {"name": "cnn10"}),
        (32000, 32, {"name": "cnn10"}),
        (32000, 128, {"name": "cnn6"}),
        (32000, 64, {"version": 1}),
        (32000, 64, {"version": 2}),
    ],
    ids=str,
)
def test_the_file_says_which_net_rate_and_bands(tmp_path: Path, rate: int, mels: int, further: dict[str, Any]) -> None:
    document = _document(rate, mels, **further)
    teacher = load_teacher(_save(tmp_path / "net.pth", document))
    assert teacher.sample_rate == rate
    assert teacher.contract.front_end is not None
    assert teacher.contract.front_end["n_mels"] == mels
    waveforms = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (2, rate)).astype(np.float32))
    net: Any = PannsMobile if "version" in further else Panns
    model = net(5, sample_rate=rate, mels=mels, **further).eval()
    model.load_state_dict({k: v for k, v in document["model"].items() if "extractor" not in k})
    with torch.inference_mode():
        torch.testing.assert_close(teacher.probabilities(waveforms, None), torch.sigmoid(model(waveforms)))


def test_a_hop_is_stated(tmp_path: Path) -> None:
    spec = _save(tmp_path / "net.pth", _document(name="cnn6"))
    assert load_teacher(f"{spec}?hop=500").contract.front_end["hop_length"] == 500  # type: ignore[index]
    with pytest.raises(TeacherError, match="hop is 'fast'; it is a whole number of samples"):
        load_teacher(f"{spec}?hop=fast")


def test_a_net_that_answers_by_frames_is_not_taken_for_cnn14(tmp_path: Path) -> None:
    spec = _save(tmp_path / "Cnn14_DecisionLevelMax_mAP=0.385.pth", _document(name="cnn6"))
    with pytest.raises(TeacherError, match=r"by its name, .* answers frame by frame; its tensors are those of Cnn14"):
        load_teacher(spec)


def test_attention_over_frames_is_read_by_the_published_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names as in the file, and its formula in float64; narrower than the published net, whose widths the code has."""
    with torch.device("meta"):
        shapes = {name: tuple(each.shape) for name, each in PannsDecisionLevel(527).state_dict().items()}
    assert {name: shape for name, shape in shapes.items() if not name.startswith(("bn0.", "conv_block"))} == {
        "fc1.weight": (2048, 2048), "fc1.bias": (2048,),
        "att_block.att.weight": (527, 2048, 1), "att_block.att.bias": (527,),
        "att_block.cla.weight": (527, 2048, 1), "att_block.cla.bias": (527,),
        "att_block.bn_att.weight": (527,), "att_block.bn_att.bias": (527,), "att_block.bn_att.running_mean": (527,),
        "att_block.bn_att.running_var": (527,), "att_block.bn_att.num_batches_tracked": (),
    }  # fmt: skip
    monkeypatch.setitem(panns._CHANNELS, "cnn14", (4, 4, 8, 8, 8, 16))
    document = _document()
    teacher: Any = load_teacher(_save(tmp_path / "Cnn14_DecisionLevelAtt.pth", document))
    assert teacher.contract.name == "panns cnn14-decision-level-att"
    waveforms = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (2, 64_000)).astype(np.float32))
    said, features = teacher.outputs(waveforms, None)
    state = {name: each.double() for name, each in document["model"].items()}
    rows = features.double().transpose(1, 2)
    rows = F.pad(rows, (1, 1), value=-torch.inf).unfold(2, 3, 1).amax(3) + F.pad(rows, (1, 1)).unfold(2, 3, 1).mean(3)
    hidden = F.relu(rows.transpose(1, 2) @ state["fc1.weight"].T + state["fc1.bias"])
    att, cla = (
        hidden @ state[f"att_block.{name}.weight"][..., 0].T + state[f"att_block.{name}.bias"]
        for name in ("att", "cla")
    )
    expected = (torch.softmax(att.clamp(-10, 10), dim=1) * torch.sigmoid(cla)).sum(dim=1)
    torch.testing.assert_close(said.double(), expected, rtol=1e-5, atol=0)


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("run",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["model"].pop("fc_audioset.weight"), "none is 'fc_audioset.weight'"),
        (lambda d: d["model"].pop("logmel_extractor.melW"), "it lacks the tables"),
        (lambda d: d["model"]["logmel_extractor.melW"].mul_(1.1), "has another front end: a window of 1024 samples"),
        (lambda d: d["model"]["spectrogram_extractor.stft.conv_real.weight"].mul_(0.9), "has another front end"),
        (lambda d: d["model"].pop("conv_block1.conv1.weight"), "is none of the PANNs that are known"),
        (lambda d: d["model"].update({"att_block.att.weight": torch.ones(2)}), "1 tensors differ"),
        (lambda d: d.update(sampler=_Evil()), "holds pickled objects other than tensors, which are never loaded"),
    ],
    ids=range(7),
)
def test_what_is_no_such_checkpoint(tmp_path: Path, change: Any, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = _document(name="cnn6")
    change(document)
    with pytest.raises(TeacherError, match=said) as refused:
        load_teacher(_save(tmp_path / "net.pth", document))
    assert "\n" not in str(refused.value)
    assert "run" not in capsys.readouterr().out


def test_files_that_are_cut_or_something_else(tmp_path: Path) -> None:
    file = tmp_path / "net.pth"
    spec = _save(file, _document(name="cnn6"))
    content = file.read_bytes()
    for wrong in (content[: len(content) // 2], b"RIFF" + bytes(40), b"", pickle.dumps([1, 2])):
        file.write_bytes(wrong)
        with pytest.raises(TeacherError, match="is not a PANNs checkpoint"):
            load_teacher(spec)
