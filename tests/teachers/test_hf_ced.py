"""``hf:`` of CED checkpoints in the hub's layout: the teacher that ``ced:`` is of the same weights; no code ever."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from logitstore.classes import audioset
from logitstore.errors import TeacherError
from logitstore.models.ced import Ced
from logitstore.views.recipe import Masks
from teachers.registry import load_teacher

NAMES = ("dog", "rain", "siren")


def net_of(outputs: int = len(NAMES), **arguments: Any) -> Ced:
    torch.manual_seed(3)
    net = Ced(outputs, **{"dim": 24, "depth": 2, "heads": 3} | arguments)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        net.init_bn[1].running_mean.normal_(-30.0, 5.0)
        net.init_bn[1].running_var.uniform_(50.0, 200.0)
    return net.eval()


def hub_layout(folder: Path, net: Ced, *, pickled: bool = False, **config: Any) -> str:
    """What the hub's folders hold, as they are written with the code beside them: other names, and that code."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {}
    for name, tensor in net.state_dict().items():
        if not name.startswith(("outputlayer.", "log_mel.")):
            name = "encoder." + name.replace("init_bn.1.", "init_bn.")
        state[name] = tensor.contiguous()
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    outputs = net.classes
    written = {
        "architectures": ["CedForAudioClassification"],
        "auto_map": {
            "AutoConfig": "configuration_ced.CedConfig",
            "AutoModelForAudioClassification": "modeling_ced.CedForAudioClassification",
        },
        "model_type": "ced",
        "num_heads": net.heads,
        "embed_dim": 24,
        "outputdim": outputs,
        "pooling": net.pooling,
        "target_length": net.frames,
        "id2label": {str(index): name for index, name in enumerate(NAMES)},
    }
    (folder / "config.json").write_text(json.dumps(written | config))
    extractor = {"feature_extractor_type": "CedFeatureExtractor", "sampling_rate": 16000, "f_max": None, "n_fft": 512}
    (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    for name in ("configuration_ced", "modeling_ced"):
        (folder / f"{name}.py").write_text("raise SystemExit('code of a repository ran')\n")
    return f"hf:{folder}"


def _ced(file: Path, net: Ced, names: tuple[str, ...] = NAMES) -> str:
    torch.save({"model": net.state_dict()}, file)
    file.with_name(file.name + ".json").write_text(json.dumps({"classes": list(names)}))
    return f"ced:{file}?heads={net.heads}"


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "token"])
def test_the_hubs_layout_answers_as_the_first_publication(tmp_path: Path, pooling: str, pickled: bool) -> None:
    net = net_of(pooling=pooling, frames=64)
    ours = load_teacher(hub_layout(tmp_path / "hub", net, pickled=pickled))
    theirs = load_teacher(_ced(tmp_path / "ced.pt", net))
    assert ours.contract == theirs.contract
    masks = Masks(*(torch.full((2,), value) for value in (0.1, 0.3, 500.0, 900.0)))
    for samples in (8_000, 16_000):  # of 640 ms in one piece
        waveforms = torch.randn(2, samples) * torch.tensor([[0.1], [0.01]])
        torch.testing.assert_close(ours.probabilities(waveforms, masks), theirs.probabilities(waveforms, masks))
        torch.testing.assert_close(ours.probabilities(waveforms, None), torch.sigmoid(net(waveforms)))
    assert (ours.classes, ours.scores, ours.takes_masks, ours.has_features) == (NAMES, "sigmoid", True, True)


def test_nobody_is_asked_about_code_even_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("a prompt")

    spec = hub_layout(tmp_path / "hub", net_of())
    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert load_teacher(spec).name == "ced"
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config | {"model_type": "ced-2"}))
    with pytest.raises(TeacherError, match="brings code of its own"):
        load_teacher(spec)


@pytest.mark.parametrize("as_written", ["whole", "cut at commas", "not at all"])
def test_audiosets_classes_have_their_whole_names(tmp_path: Path, as_written: str) -> None:
    """The code on the hub splits AudioSet's table at every comma, so that names are cut, and some occur twice."""
    whole = [row.display_name for row in audioset()]
    names = {"whole": whole, "cut at commas": [name.split(",")[0] for name in whole], "not at all": []}[as_written]
    labels = {str(index): name for index, name in enumerate(names)} or None
    teacher = load_teacher(hub_layout(tmp_path / "hub", net_of(527), id2label=labels))
    assert list(teacher.classes) == whole


def test_heads_where_the_config_leaves_them_out(tmp_path: Path) -> None:
    """transformers writes no value that is the default, and those of ced-base are."""
    net = net_of(heads=12)
    spec = hub_layout(tmp_path / "hub", net)
    file = tmp_path / "hub" / "config.json"
    config = json.loads(file.read_text())
    del config["num_heads"]
    file.write_text(json.dumps(config))
    waveforms = torch.randn(1, 16_000) * 0.1
    torch.testing.assert_close(load_teacher(spec).probabilities(waveforms, None), torch.sigmoid(net(waveforms)))
    file.write_text(json.dumps(config | {"name": "ced-tiny"}))
    assert load_teacher(spec).contract.arguments["heads"] == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pooling": "dm"}, "with pooling 'dm'; known is 'mean' or 'token' or 'logit'"),
        ({"n_mels": 128}, "with n_mels 128; known is 64"),
        ({"f_min": 20}, "with f_min 20; known is 0"),
        ({"num_heads": 5}, "heads is '5'; it must be a whole number that divides 24"),
        ({"id2label": {"0": "dog"}}, "has 3 outputs and 1 class names"),
        ({"id2label": None}, "has 3 outputs and its config names none of them"),
    ],
)
def test_what_the_net_does_not_have(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(TeacherError, match=message):
        load_teacher(hub_layout(tmp_path / "hub", net_of(), **config))


def test_damaged_folders(tmp_path: Path) -> None:
    spec = hub_layout(tmp_path / "hub", net_of())
    with pytest.raises(TeacherError, match="CED's scores are sigmoid, and 'softmax' were asked for"):
        load_teacher(f"{spec}?scores=softmax")
    weights = tmp_path / "hub" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-100])
    with pytest.raises(TeacherError, match="is not a safetensors file"):
        load_teacher(spec)
    state = safetensors.torch.load(content)
    safetensors.torch.save_file({name: state[name] for name in state if "outputlayer" not in name}, weights)
    with pytest.raises(TeacherError, match=r"none is 'outputlayer\.1\.weight'"):
        load_teacher(spec)
    weights.unlink()
    with pytest.raises(TeacherError, match=r"has no weights: neither model\.safetensors nor pytorch_model\.bin"):
        load_teacher(spec)
    (tmp_path / "hub" / "config.json").write_text("{")
    with pytest.raises(TeacherError, match=r"its config\.json cannot be read: line 1"):
        load_teacher(spec)
    (tmp_path / "hub" / "config.json").write_text("[]")
    with pytest.raises(TeacherError, match="names no model_type"):
        load_teacher(spec)


@pytest.mark.parametrize(
    ("card", "licence", "non_commercial"),
    [
        ("---\nlicense: apache-2.0\ntags:\n- audio\n---\n# CED\n", "Apache-2.0", False),
        ("---\r\nlicense: cc-by-nc-4.0\r\n---\r\n", "CC-BY-NC-4.0", True),
        ("---\nlicense: other\nlicense_name: their-own\n---\n", "their-own", False),
        ("---\nlicense: [mit, bsd-3-clause]\n---\n", "MIT or BSD-3-Clause", False),
        ("# no front matter\nlicense: mit\n", None, False),
        ("---\nlicense: [\n---\n", None, False),
        ("---\n" + "a: 1\n" * 20_000 + "license: mit\n---\n", None, False),
    ],
    ids=["apache", "non-commercial", "own name", "two", "none", "broken", "too long"],
)
def test_the_licence_is_that_of_the_model_card(
    tmp_path: Path, card: str, licence: str | None, non_commercial: bool
) -> None:
    spec = hub_layout(tmp_path / "hub", net_of())
    (tmp_path / "hub" / "README.md").write_bytes(card.encode())
    contract = load_teacher(spec).contract
    assert (contract.licence, contract.non_commercial, contract.origin) == (licence, non_commercial, None)
