"""BEATs checkpoints: the original's answers, its labels, and files that are not what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from logitstore.classes import audioset
from logitstore.errors import TeacherError
from logitstore.models.beats import Beats, BeatsSize, _buckets
from logitstore.models.fbank import KaldiFbank, KaldiFrontEnd
from logitstore.views.recipe import Masks
from teachers.registry import load_teacher

CFG = {
    "encoder_layers": 2, "encoder_embed_dim": 32, "encoder_ffn_embed_dim": 48, "encoder_attention_heads": 4,
    "input_patch_size": 16, "embed_dim": 24, "conv_pos": 9, "conv_pos_groups": 4, "num_buckets": 32,
    "max_distance": 50, "gru_rel_pos": True, "deep_norm": True, "layer_norm_first": False, "conv_bias": False,
    "activation_fn": "gelu", "relative_position_embedding": True, "finetuned_model": True,
}  # fmt: skip


def _document(labels: list[str], **changes: Any) -> dict[str, Any]:
    """A checkpoint with random weights, as it is published."""
    torch.manual_seed(3)
    config = CFG | changes
    size = BeatsSize(
        layers=config["encoder_layers"], dim=config["encoder_embed_dim"], hidden=config["encoder_ffn_embed_dim"],
        heads=4, patch_dim=config["embed_dim"], conv_positions=config["conv_pos"], conv_groups=4, buckets=32,
        max_distance=50, gated=config["gru_rel_pos"], norm_first=config["layer_norm_first"],
        deep_norm=config["deep_norm"],
    )  # fmt: skip
    state = Beats(len(labels), size=size).state_dict()
    weight = state.pop("encoder.pos_conv.0.weight")
    state["encoder.pos_conv.0.weight_v"] = weight * torch.rand(1, 1, weight.shape[2]).add(0.5)
    state["encoder.pos_conv.0.weight_g"] = weight.pow(2).sum(dim=(0, 1), keepdim=True).sqrt()
    bias = state.pop("encoder.relative_attention_bias.weight")
    for layer in range(size.layers):
        state[f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight"] = bias
    return {"cfg": config, "model": state, "label_dict": dict(enumerate(labels))}


def _save(file: Path, document: dict[str, Any]) -> str:
    torch.save(document, file)
    return f"beats:{file}"


MIDS = [row.mid for row in audioset()][40:45]


@pytest.mark.parametrize("ending", ["", "_short", "_long"])
def test_answers_are_the_originals(shared: Path, ending: str) -> None:
    folder = shared / "data/teachers/beats"
    if not folder.is_dir():
        pytest.skip(f"no reference outputs of BEATs at {folder}")
    reference = np.load(folder / "io.npz")
    teacher = load_teacher(f"beats:{folder / 'checkpoint.pt'}")
    said = teacher.probabilities(torch.from_numpy(reference["waveform" + ending]), None)
    assert np.abs(said.numpy() - reference["probabilities" + ending]).max() < 1e-5
    assert teacher.classes[0] == "Drum kit"  # of its own order


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gru_rel_pos": False},
        {"layer_norm_first": True, "deep_norm": False},
        {"embed_dim": 32, "conv_pos": 8},
    ],
    ids=["usual", "ungated", "first", "narrow"],
)
def test_other_sizes_and_labels(tmp_path: Path, changes: dict[str, Any]) -> None:
    document = _document(MIDS[::-1], **changes)
    if changes.get("embed_dim") == 32:
        assert not any(key.startswith("post_extract") for key in document["model"])
    teacher = load_teacher(_save(tmp_path / "net.pt", document))
    assert teacher.classes == tuple(row.display_name for row in audioset()[40:45][::-1])
    assert teacher.contract.mids == tuple(MIDS[::-1])
    waveforms = torch.from_numpy(np.random.default_rng(1).normal(0, 0.1, (3, 20_000)).astype(np.float32))
    said, frames = teacher.outputs(waveforms, None)
    assert frames.shape == (3, 7, 32)  # 123 frames
    alone = torch.cat([teacher.probabilities(waveforms[[row]], None) for row in range(3)])
    torch.testing.assert_close(said, alone, atol=1e-6, rtol=0)
    hidden = teacher.probabilities(waveforms, Masks(*(np.full(3, value) for value in (0.2, 0.6, 300.0, 900.0))))
    assert (hidden - said).abs().max() > 1e-5
    assert teacher.probabilities(waveforms[:, :500], None).shape == (3, 5)


def test_attention_is_as_the_paper_writes_it() -> None:
    """Softmax of q k / sqrt(d) plus the gated bias, one query after another in float64."""
    torch.manual_seed(0)
    size = BeatsSize(layers=1, dim=12, hidden=8, heads=3, patch_dim=12, conv_groups=1, buckets=16, max_distance=20)
    attention = Beats(2, size=size).double().encoder.layers[0].self_attn
    attention.grep_a.data.normal_()
    tokens, bias = torch.randn(1, 6, 12, dtype=torch.float64), torch.randn(3, 6, 6, dtype=torch.float64)
    heard = []
    for head in range(3):
        part = slice(4 * head, 4 * head + 4)
        q, k, v = (layer(tokens[0])[:, part] for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
        rows = []
        for place in range(6):
            gates = attention.grep_linear(q[place]).reshape(2, 4).sum(1).sigmoid()
            factor = gates[0] * (gates[1] * attention.grep_a[0, head, 0, 0] - 1) + 2
            rows.append(torch.softmax(k @ q[place] / 2 + factor * bias[head, place], 0) @ v)
        heard.append(torch.stack(rows))
    torch.testing.assert_close(attention(tokens, bias)[0], attention.out_proj(torch.cat(heard, dim=1)))


def test_buckets_are_those_of_wavlm() -> None:
    wavlm = pytest.importorskip("transformers.models.wavlm.modeling_wavlm", reason="the extra `hf` is not installed")
    attention = wavlm.WavLMAttention(8, 2, num_buckets=320, max_distance=800)
    at = torch.arange(1200)
    assert torch.equal(_buckets(1200, 320, 800), attention._relative_positions_bucket(at[None] - at[:, None]))


def test_povey_is_hann_to_the_power() -> None:
    front_end = KaldiFrontEnd(window="povey", scale=32768.0)
    sound = np.random.default_rng(2).normal(0, 0.1, 560).astype(np.float32)
    expected = []
    for start in (0, 160):
        frame = sound[start : start + 400].astype(np.float64) * 32768
        frame -= frame.mean()
        frame -= 0.97 * np.concatenate([frame[:1], frame[:-1]])
        frame *= (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
        power = np.abs(np.fft.rfft(frame, 512)) ** 2
        expected.append(np.log(np.maximum(power @ front_end.filter_bank(), front_end.floor)))
    found = KaldiFbank(front_end)(torch.from_numpy(sound)[None])[0].T.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert {"window", "scale"}.isdisjoint(KaldiFrontEnd().to_dict())  # as stores of AST have it


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["model"].pop("predictor.weight"), "was never fine-tuned to tag"),
        (lambda d: d.pop("cfg"), "holds no 'cfg' and 'model'"),
        (lambda d: d["cfg"].update(encoder_layers=10**9), "encoder_layers 1000000000; it is 1 to 96"),
        (lambda d: d["cfg"].update(activation_fn="relu"), "activation_fn 'relu'; known is 'gelu'"),
        (lambda d: d["cfg"].update(encoder_attention_heads=5), "no multiple of 5 heads"),
        (lambda d: d["model"].pop("encoder.layers.1.fc1.bias"), "1 tensors differ, the first is 'encoder.layers.1.fc1"),
        (lambda d: d["model"].pop("encoder.pos_conv.0.weight_g"), "lacks encoder.pos_conv.0.weight_g"),
        (lambda d: d["label_dict"].pop(2), "does not name the outputs 0 to 4"),
        (lambda d: d["model"].update({"encoder.layers.1.self_attn.relative_attention_bias.weight": torch.ones(32, 4)}),
         "they share one"),
    ],
    ids=range(9),
)  # fmt: skip
def test_what_is_no_such_checkpoint(tmp_path: Path, change: Any, said: str) -> None:
    document = _document(MIDS)
    change(document)
    with pytest.raises(TeacherError, match=said) as refused:
        load_teacher(_save(tmp_path / "net.pt", document))
    assert "\n" not in str(refused.value)


def test_files_that_are_cut_or_something_else(tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    _save(file, _document(MIDS))
    content = file.read_bytes()
    for wrong, said in ((content[: len(content) // 2], "cut short"), (b"RIFF" + bytes(40), "not a file that torch")):
        file.write_bytes(wrong)
        with pytest.raises(TeacherError, match=said):
            load_teacher(f"beats:{file}")
    with pytest.raises(TeacherError, match="no file"):
        load_teacher(f"beats:{tmp_path / 'none.pt'}")
