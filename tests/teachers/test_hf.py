"""``hf:ID_OR_PATH``: tiny models with random weights, made here, against transformers' own front ends. No network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from logitstore.classes import audioset
from logitstore.errors import TeacherError
from logitstore.models.registry import build
from logitstore.views.mel import band_mask, time_mask
from logitstore.views.recipe import Masks, load_recipe
from teachers.ensemble import Ensemble
from teachers.registry import load_teacher

transformers: Any = pytest.importorskip("transformers", reason="the extra `hf` is not installed")

LABELS = {0: "dog", 1: "rain", 2: "siren"}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


def _labels(names: dict[int, str]) -> dict[str, Any]:
    return {"id2label": names, "label2id": {name: index for index, name in names.items()}}


def _ast(folder: Path, names: dict[int, str] = LABELS, frames: int = 256, **config: Any) -> str:
    torch.manual_seed(0)
    model = transformers.ASTForAudioClassification(
        transformers.ASTConfig(**SMALL, max_length=frames, num_mel_bins=128, **_labels(names), **config)
    )
    model.save_pretrained(folder)
    transformers.ASTFeatureExtractor(max_length=frames).save_pretrained(folder)
    return f"hf:{folder}"


def _wav2vec2(folder: Path, *, normalise: bool = True, kind: str = "Wav2Vec2", **config: Any) -> str:
    torch.manual_seed(0)
    settings = getattr(transformers, f"{kind}Config")(
        **SMALL,
        conv_dim=(16, 16),
        conv_kernel=(10, 8),
        conv_stride=(5, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=16,
        **_labels(LABELS),
        **config,
    )
    getattr(transformers, f"{kind}ForSequenceClassification")(settings).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalise).save_pretrained(folder)
    return f"hf:{folder}"


def _waveforms(seconds: float = 1.0, clips: int = 2) -> torch.Tensor:
    random = np.random.default_rng(0).normal(0.01, 0.1, (clips, int(16000 * seconds))).astype(np.float32)
    random[0, : random.shape[1] // 2] *= 1e-3
    return torch.from_numpy(random)


def test_the_slaney_filter_bank_is_that_of_transformers() -> None:
    front_end = build("cnn10", 1).front_end
    theirs = transformers.audio_utils.mel_filter_bank(
        num_frequency_bins=513,
        num_mel_filters=64,
        min_frequency=50.0,
        max_frequency=14000.0,
        sampling_rate=32000,
        norm="slaney",
        mel_scale="slaney",
    )
    np.testing.assert_allclose(front_end.filter_bank(), theirs, atol=1e-9)


@pytest.mark.parametrize("seconds", [1.0, 2.5])
def test_asts_features_are_those_of_transformers(tmp_path: Path, seconds: float) -> None:
    teacher: Any = load_teacher(_ast(tmp_path))
    waveforms = _waveforms(seconds)
    waveforms[1, 4000:8000] = 0.0  # digital silence
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    theirs = extractor(list(waveforms.numpy()), sampling_rate=16000, return_tensors="np")["input_values"]
    ours = teacher.inputs(waveforms, None).numpy()
    assert ours.shape == theirs.shape == (2, 256, 128)
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_ast_scores_are_those_of_transformers(tmp_path: Path) -> None:
    teacher = load_teacher(_ast(tmp_path, problem_type="multi_label_classification"))
    assert (teacher.classes, teacher.scores, teacher.sample_rate) == (("dog", "rain", "siren"), "sigmoid", 16000)
    model = transformers.ASTForAudioClassification.from_pretrained(tmp_path).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    inputs = extractor(list(_waveforms().numpy()), sampling_rate=16000, return_tensors="np")["input_values"]
    with torch.inference_mode():
        theirs = torch.sigmoid(model(torch.from_numpy(np.asarray(inputs, dtype=np.float32))).logits)
    torch.testing.assert_close(teacher.probabilities(_waveforms(), None), theirs, atol=1e-5, rtol=0)
    assert teacher.features(_waveforms(), None).shape == (2, 25, 32)
    said, frames = teacher.outputs(_waveforms(), None)  # of one pass
    torch.testing.assert_close(said, teacher.probabilities(_waveforms(), None))
    torch.testing.assert_close(frames, teacher.features(_waveforms(), None))


def test_asts_masks_are_filled_on_the_raw_filter_bank_by_the_centres_of_its_own_frames(tmp_path: Path) -> None:
    teacher: Any = load_teacher(_ast(tmp_path))
    Ensemble([teacher], sample_rate=16000).check(load_recipe("ced"))
    masks = Masks(*(np.full(2, value) for value in (0.3, 0.5, 1000.0, 3000.0)))
    plain, masked = teacher.inputs(_waveforms(), None), teacher.inputs(_waveforms(), masks)
    hidden = (plain != masked).any(dim=2)[0].nonzero().flatten()
    centres = (hidden * 160 + 200) / 16000
    full_rows = (masked == (0.0 + 4.2677393) / (2 * 4.5689974)).all(dim=2)[0, :98].nonzero().flatten()
    np.testing.assert_array_equal(full_rows, time_mask(teacher.front_end, masks, 98)[0].nonzero().flatten())
    assert centres.min() <= 0.3
    centre_seconds = (full_rows * 160 + 200).numpy() / 16000
    assert centre_seconds.min() == pytest.approx(0.3, abs=0.01)
    assert centre_seconds.max() == pytest.approx(0.49, abs=0.01)
    bands = teacher.front_end.band_centers()[band_mask(teacher.front_end, masks)[0].numpy()]
    assert 1000 <= bands.min() < bands.max() < 3000
    assert not torch.equal(teacher.probabilities(_waveforms(), masks), teacher.probabilities(_waveforms(), None))


def test_an_ast_hears_no_more_than_its_frames(tmp_path: Path) -> None:
    teacher = load_teacher(_ast(tmp_path))
    assert teacher.contract.max_seconds == pytest.approx(2.58, abs=0.01)
    with pytest.raises(TeacherError, match="hears 256 frames"):
        teacher.probabilities(_waveforms(3.0), None)
    with pytest.raises(TeacherError, match="hears at most"):
        Ensemble([teacher], sample_rate=16000).check(load_recipe("none"), clip_seconds=10.0)


@pytest.mark.parametrize(("kind", "normalise"), [("Wav2Vec2", True), ("Hubert", False), ("WavLM", True)])
def test_waveform_models_score_as_transformers_does(tmp_path: Path, kind: str, normalise: bool) -> None:
    spec = _wav2vec2(tmp_path, kind=kind, normalise=normalise, problem_type="single_label_classification")
    teacher = load_teacher(spec)
    assert (teacher.scores, teacher.takes_masks) == ("softmax", False)
    model = transformers.AutoModelForAudioClassification.from_pretrained(tmp_path).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    inputs = extractor(list(_waveforms().numpy()), sampling_rate=16000, return_tensors="np")["input_values"]
    with torch.inference_mode():
        theirs = torch.softmax(model(torch.from_numpy(np.asarray(inputs, dtype=np.float32))).logits, dim=1)
    ours = teacher.probabilities(_waveforms(), None)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    alone = torch.cat([teacher.probabilities(clip[None], None) for clip in _waveforms()])
    torch.testing.assert_close(alone, ours, atol=1e-5, rtol=0)
    with pytest.raises(TeacherError, match="takes only waveforms"):
        Ensemble([teacher], sample_rate=16000).check(load_recipe("ced"))


def test_the_score_kind_without_a_problem_type(tmp_path: Path) -> None:
    assert load_teacher(_ast(tmp_path / "a")).scores == "softmax"
    names = {row.index: row.display_name for row in audioset()}
    tagger = load_teacher(_ast(tmp_path / "b", names))
    assert tagger.scores == "sigmoid"
    assert len(tagger.classes) == 527
    assert load_teacher(f"hf:{tmp_path / 'a'}?scores=sigmoid").scores == "sigmoid"
    (tmp_path / "a.json").write_text(json.dumps({"scores": "sigmoid", "classes": ["x", "y", "z"]}), encoding="utf-8")
    sided = load_teacher(f"hf:{tmp_path / 'a'}")
    assert (sided.scores, sided.classes) == ("sigmoid", ("x", "y", "z"))


def test_models_that_cannot_teach(tmp_path: Path) -> None:
    transformers.ASTModel(transformers.ASTConfig(**SMALL, max_length=256)).save_pretrained(tmp_path / "headless")
    transformers.ASTFeatureExtractor(max_length=256).save_pretrained(tmp_path / "headless")
    with pytest.raises(TeacherError, match=r"lacks .* of its weights, the first is 'classifier"):
        load_teacher(f"hf:{tmp_path / 'headless'}")
    transformers.WhisperConfig(d_model=16).save_pretrained(tmp_path / "whisper")
    with pytest.raises(TeacherError, match="models of type 'whisper' have a front end that is not known"):
        load_teacher(f"hf:{tmp_path / 'whisper'}")
    with pytest.raises(TeacherError, match="no folder"):
        load_teacher(f"hf:{tmp_path / 'nowhere'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TeacherError, match="is not a transformers audio-classification model") as caught:
        load_teacher(f"hf:{tmp_path / 'empty'}")
    assert "\n" not in str(caught.value)
    spec = _ast(tmp_path / "swapped")
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "swapped")
    with pytest.raises(TeacherError, match="the front end Wav2Vec2FeatureExtractor is not known"):
        load_teacher(spec)


@pytest.mark.parametrize(
    ("key", "value"), [("num_attention_heads", 4), ("hidden_act", "relu"), ("layer_norm_eps", 1e-3)]
)
def test_a_config_that_says_otherwise_is_another_teacher(tmp_path: Path, key: str, value: Any) -> None:
    spec = _ast(tmp_path / "model")
    before = load_teacher(spec)
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"transformers_version": "0"}))
    assert load_teacher(spec).digest == before.digest
    file.write_text(json.dumps(config | {key: value}))
    after = load_teacher(spec)
    assert after.digest != before.digest
    assert after.earlier_digests() == before.earlier_digests() != (before.digest,)
