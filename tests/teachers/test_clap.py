"""``clap:ID_OR_PATH?classes=FILE``: tiny CLAP models with random weights and their tokeniser, made here, against
transformers' own extractor, tokeniser and model. No network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import logitstore
from logitstore.errors import TeacherError
from logitstore.jobs.build.job import build
from logitstore.store.reader import open_store
from logitstore.views.mel import band_mask, time_mask
from logitstore.views.recipe import Masks, load_recipe
from teachers.ensemble import Ensemble
from teachers.registry import load_teacher
from tests.stores import inside, options, write_audio

transformers: Any = pytest.importorskip("transformers", reason="the extra `hf` is not installed")

NAMES = ("dog", "rain", "church bells", "a siren, far away")
RATE = 48_000


def _tokeniser(folder: Path) -> None:
    """Byte-level words of one letter each, and the file names that RoBERTa's have."""
    letters = [chr(code) for code in range(33, 127)] + ["Ġ"]
    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, "th", "the"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "RobertaTokenizer"}))


def _clap(
    folder: Path, *, fused: bool = False, seconds: int = 1, config: dict[str, Any] | None = None, **more: Any
) -> str:
    """A model of windows of 1 s; gives the spec up to its options."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    text = {"vocab_size": 110, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 32, "max_position_embeddings": 64} | (config or {})  # fmt: skip
    audio = {"spec_size": 64, "num_mel_bins": 16, "patch_embeds_hidden_size": 8, "depths": [1, 1], "window_size": 4,
             "num_attention_heads": [2, 2], "hidden_size": 16, "num_hidden_layers": 2, "enable_fusion": fused,
             "fusion_type": "channel_map" if fused else None}  # fmt: skip
    if fused:
        audio["fusion_type"] = "aff_2d"
    model = transformers.ClapModel(
        transformers.ClapConfig(
            text_config=text, audio_config=audio, projection_dim=8, logit_scale_init_value=40.0 if fused else 5.0
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embeddings" not in name:
                parameter.normal_(std=0.4)
        norm = model.audio_model.audio_encoder.batch_norm
        norm.running_mean.normal_(-30.0, 5.0)
        norm.running_var.uniform_(50.0, 200.0)
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.normal_()
    model.save_pretrained(folder)
    settings = {"feature_size": 16, "max_length_s": seconds, "frequency_min": 50}
    settings["truncation"] = "fusion" if fused else "rand_trunc"
    transformers.ClapFeatureExtractor(**settings | more).save_pretrained(folder)
    _tokeniser(folder)
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    return f"clap:{folder}?classes={folder / 'names.txt'}"


def _waveforms(seconds: float) -> torch.Tensor:
    random = np.random.default_rng(1).normal(0.0, 0.1, (2, int(RATE * seconds))).astype(np.float32)
    time = np.arange(random.shape[1]) / RATE
    random[0] = 0.1 * random[0] + 0.3 * np.sin(2 * np.pi * 700 * time)
    return torch.from_numpy(random)


def _theirs(
    folder: Path, waveforms: torch.Tensor, prompt: str = "the sound of {}"
) -> tuple[torch.Tensor, torch.Tensor]:
    """transformers' own input features, and similarity logits (B, C); no clip counts as longer than the window."""
    extractor = transformers.ClapFeatureExtractor.from_pretrained(folder)
    tokeniser = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.ClapModel.from_pretrained(folder).eval()
    heard = extractor(list(waveforms.numpy()), sampling_rate=RATE, return_tensors="pt")["input_features"].float()
    words = tokeniser([prompt.replace("{}", name) for name in NAMES], padding=True, return_tensors="pt")
    with torch.inference_mode():
        said = model(input_features=heard, is_longer=torch.zeros(len(heard), 1, dtype=torch.bool), **words)
    return heard, said.logits_per_audio


@pytest.mark.parametrize(
    ("fused", "padding"), [(False, "repeatpad"), (False, "repeat"), (False, "pad"), (True, "repeatpad")]
)
def test_it_hears_and_scores_as_in_transformers(tmp_path: Path, fused: bool, padding: str) -> None:
    teacher: Any = load_teacher(_clap(tmp_path, fused=fused, padding=padding))
    assert (teacher.classes, teacher.scores, teacher.sample_rate) == (NAMES, "softmax", RATE)
    for seconds in (1.0, 0.37):
        waveforms = _waveforms(seconds)
        heard, logits = _theirs(tmp_path, waveforms)
        torch.testing.assert_close(teacher.inputs(waveforms, None), heard, atol=2e-3, rtol=0)  # dB
        ours = teacher.probabilities(waveforms, None)
        torch.testing.assert_close(ours, torch.softmax(logits, dim=1), atol=1e-4, rtol=0)
        assert (ours[0] - ours[1]).abs().max() > 0.01
        alone = torch.cat([teacher.probabilities(clip[None], None) for clip in waveforms])
        torch.testing.assert_close(alone, ours, atol=1e-5, rtol=0)


def test_the_front_end_of_the_published_size() -> None:
    """64 bands, 10 s: the log-mel alone, against transformers' extractor."""
    from logitstore.views.mel import FrontEnd, LogMel

    extractor = transformers.ClapFeatureExtractor(truncation="rand_trunc", frequency_min=50)
    theirs = extractor(_waveforms(10.0)[0].numpy(), sampling_rate=RATE, return_tensors="pt")["input_features"]
    front_end = FrontEnd(
        sample_rate=RATE, n_fft=1024, win_length=1024, hop_length=480, n_mels=64, f_min=50.0, f_max=14_000.0,
        mel_scale="slaney", norm="slaney", top_db=None
    )  # fmt: skip
    ours = LogMel(front_end)(_waveforms(10.0)[:1]).transpose(1, 2)[:, None]
    torch.testing.assert_close(ours, theirs.float(), atol=2e-3, rtol=0)


def test_longer_views_are_heard_in_windows_and_never_at_random(tmp_path: Path) -> None:
    teacher = load_teacher(_clap(tmp_path))
    window = teacher.contract.window
    assert window is not None
    assert (window.samples, window.hop, window.least) == (RATE, RATE, RATE // 2)
    waveforms = _waveforms(2.4)
    said = teacher.probabilities(waveforms, None)
    parts = [teacher.probabilities(waveforms[:, first : first + RATE], None) for first in (0, RATE)]
    torch.testing.assert_close(said, torch.stack(parts).mean(dim=0))  # .4 s at the end are less than half a window
    assert torch.equal(said, teacher.probabilities(waveforms, None))
    assert teacher.contract.trained_seconds == 1.0


def test_masks_are_filled_after_the_first_norm_in_every_repetition_of_the_view(tmp_path: Path) -> None:
    teacher: Any = load_teacher(_clap(tmp_path))
    Ensemble([teacher], sample_rate=RATE).check(load_recipe("ced"))
    masks = Masks(*(np.full(2, value) for value in (0.1, 0.2, 1000.0, 4000.0)))
    waveforms = _waveforms(0.4)
    plain, masked = (teacher.inputs(waveforms, given)[:, 0] for given in (None, masks))  # (B, T, F)
    norm = teacher.audio.audio_encoder.batch_norm
    changed = plain != masked
    bands = band_mask(teacher.front_end, masks)[0]
    frames = torch.zeros(101, dtype=torch.bool)
    frames[[*range(10, 20), *range(50, 60)]] = True  # of both times that .4 s fit into 1 s
    hidden = frames[:, None] | bands
    hidden[81:] = False  # zeros after the second
    assert torch.equal(changed, hidden.expand(2, -1, -1))
    after = norm(masked.transpose(1, 2)[..., None])[..., 0].transpose(1, 2)
    assert after[:, hidden].abs().max() < 1e-5
    assert (teacher.probabilities(waveforms, masks) - teacher.probabilities(waveforms, None)).abs().max() > 1e-3
    whole = _waveforms(1.0)
    plain, masked = (teacher.inputs(whole, given)[:, 0] for given in (None, masks))
    alone = time_mask(teacher.front_end, masks, 101)[0][:, None] | bands
    assert torch.equal(plain != masked, alone.expand(2, -1, -1))


def test_sigmoid_scores_stand_alone_against_a_neutral_text(tmp_path: Path) -> None:
    spec = _clap(tmp_path)
    waveforms = _waveforms(1.0)
    _, logits = _theirs(tmp_path, waveforms)
    for neutral, option in (("a sound", ""), ("noise & more", "&neutral=noise %26 more")):
        teacher = load_teacher(f"{spec}&scores=sigmoid{option}")
        assert teacher.scores == "sigmoid"
        assert teacher.contract.arguments["neutral"] == neutral
        against = _theirs(tmp_path, waveforms, neutral)[1][:, :1]
        theirs = torch.sigmoid(logits - against)
        torch.testing.assert_close(teacher.probabilities(waveforms, None), theirs, atol=1e-4, rtol=0)


def test_the_digest_covers_all_that_decides_what_it_says(tmp_path: Path) -> None:
    spec = _clap(tmp_path / "a")
    known = load_teacher(spec).digest
    assert load_teacher(spec).digest == known
    assert load_teacher(_clap(tmp_path / "b")).digest == known  # wherever it lies
    others = [load_teacher(f"{spec}&prompt=this is {{}}").digest, load_teacher(f"{spec}&scores=sigmoid").digest]
    (tmp_path / "a" / "names.txt").write_text("\n".join(reversed(NAMES)))
    others.append(load_teacher(spec).digest)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    config["audio_config"]["layer_norm_eps"] = 1e-2
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    others.append(load_teacher(f"clap:{tmp_path / 'b'}?classes={tmp_path / 'b' / 'names.txt'}").digest)
    _tokeniser(tmp_path / "b")
    (tmp_path / "b" / "merges.txt").write_text("#version: 0.2\n")
    others.append(load_teacher(f"clap:{tmp_path / 'b'}?classes={tmp_path / 'b' / 'names.txt'}").digest)
    assert len({known, *others}) == 1 + len(others)


def test_what_cannot_be_a_zero_shot_teacher(tmp_path: Path) -> None:
    spec = _clap(tmp_path / "model")
    bare = spec.partition("?")[0]
    (tmp_path / "one.txt").write_text("dog\n")
    wrong = {
        bare: r"names no classes.*add \?classes=FILE, one name a line",
        f"{bare}?classes=": "names no classes",
        f"{bare}?classes={tmp_path / 'none.txt'}": "cannot be read: No such file",
        f"{spec}&prompt=the sound": r"the prompt is 'the sound'; it must have \{\} once",
        f"{spec}&prompt={{}} and {{}}": "once",
        f"{spec}&scores=logits": "the score kind is 'logits'",
        f"{spec}&neutral=noise": "add &scores=sigmoid",
        f"{spec}&heads=3": "unknown option 'heads=3'",
        f"{bare}?classes={tmp_path / 'one.txt'}": "of one class alone, softmax says 1",
        f"{spec}&prompt=" + "very " * 20 + "{}": r"has \d+ tokens and its model reads 62",
        f"clap:{tmp_path / 'nowhere'}?classes={tmp_path / 'one.txt'}&scores=sigmoid": "no folder",
    }
    for given, message in wrong.items():
        with pytest.raises(TeacherError, match=message) as caught:
            load_teacher(given)
        assert "\n" not in str(caught.value)
    with pytest.raises(TeacherError, match="models of type 'clap' have a front end that is not known"):
        load_teacher("hf:" + bare.removeprefix("clap:"))
    transformers.ASTConfig().save_pretrained(tmp_path / "ast")
    with pytest.raises(TeacherError, match="is a model of type 'audio-spectrogram-transformer'; clap: opens"):
        load_teacher(f"clap:{tmp_path / 'ast'}?classes={tmp_path / 'model' / 'names.txt'}")


def test_models_and_files_beside_them_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="has truncation 'fusion' and padding 'repeatpad', its model no fusion"):
        load_teacher(_clap(tmp_path / "a", truncation="fusion"))
    with pytest.raises(TeacherError, match="gives 16 bands x 301 frames and its model takes 16 x 256 at most"):
        load_teacher(_clap(tmp_path / "b", seconds=3))
    with pytest.raises(TeacherError, match="tokeniser has more words than the 40 of its model"):
        load_teacher(_clap(tmp_path / "c", config={"vocab_size": 40}))
    spec = _clap(tmp_path / "d")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / "d" / name).unlink()
    with pytest.raises(
        TeacherError, match=r"has no tokeniser: neither tokenizer\.json nor vocab\.json with merges\.txt"
    ):
        load_teacher(spec)


def test_a_zero_shot_teacher_from_sound_to_student(tmp_path: Path) -> None:
    """Random weights: that it goes through, not that it is right."""
    spec = _clap(tmp_path / "model")
    write_audio(tmp_path / "audio", 6)
    with inside(tmp_path):
        build(options(tmp_path, teachers=[spec], clip_seconds=None, topk=3, views=2))
        store = open_store(str(tmp_path / "store"))
        assert store.manifest.classes == NAMES
        (member,) = store.manifest.teachers
        assert (store.manifest.sample_rate, store.manifest.clip_samples) == (RATE, RATE)
        assert member.contract["window"]["samples"] == RATE
        run = tmp_path / "run"
        logitstore.train_student(
            store="store", audio_root="audio", student="cnn4", model_args={"width": 2, "mels": 16}, steps=2,
            batch_size=4, out=str(run)
        )  # fmt: skip
        student = load_teacher(str(run))
        assert student.classes == NAMES
        assert student.scores == "softmax"
