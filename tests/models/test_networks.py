"""The nets of related work and the heads over frames: counts, answers, and all that a student goes through."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from logitstore.errors import RunError
from logitstore.models.densenet import DenseNet
from logitstore.models.pooling import POOLS, ClassAttention, FeatureAttention, MeanPool, MultiAttention, Pool, weighted
from logitstore.models.registry import build, initialised, names
from logitstore.training.runs import load_run, save_run
from logitstore.views.recipe import Masks
from students import export
from students.init import load_init
from students.options import StudentOptions
from tests.heard import SMALL as CNN4
from tests.heard import make_heard, student_values

pytestmark = pytest.mark.usefixtures("one_thread")

#: Small forms of the nets; and every head on one net or another.
SMALL: dict[str, dict[str, Any]] = {
    "cnn-lstm-tiny": {},
    "crnn": {},
    "densenet-tiny": {"mels": 16, "hop_ms": 20},
}
HEADS = {f"cnn4, {pool}": CNN4 | {"pool": pool} for pool in POOLS}
TINY_CED = {"dim": 32, "depth": 1, "heads": 2, "frames": 96}


def _build(which: str, classes: int = 3, **further: Any) -> Any:
    args = SMALL.get(which) or HEADS.get(which, {})
    return initialised(lambda: build(which.partition(",")[0], classes, **args, **further), 0)


def _noise(clips: int, samples: int, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    tones = np.sin(np.arange(samples) * random.uniform(0.02, 2.5, (clips, 1)))
    return torch.from_numpy((0.2 * (tones + random.normal(0, 0.3, (clips, samples)))).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "args", "counts"),
    [
        ("cnn-lstm", {}, (83_784, 83_914, 117_519)),
        ("cnn-lstm", {"mels": 64}, (264_008, None, None)),
        ("cnn-lstm-small", {}, (21_416, None, None)),
        ("cnn-lstm-tiny", {}, (5_592, None, None)),
        ("crnn", {}, (1_111_392, 1_112_420, 1_378_158)),
        ("cnn14-decision-level-att", {}, (None, None, 81_834_492)),
        ("densenet-121", {}, (6_955_784, 6_957_834, 7_487_759)),
        ("densenet-63", {}, (2_307_648, 2_308_682, 2_575_971)),
        ("densenet-small", {}, (331_153, 331_541, 431_839)),
        ("densenet-tiny", {}, (63_984, 64_122, 99_795)),
    ],
    ids=str,
)
def test_parameters_are_those_of_the_tables(name: str, args: dict[str, Any], counts: tuple[int | None, ...]) -> None:
    for classes, count in zip((8, 10, 527), counts, strict=True):
        if count is not None:
            with torch.device("meta"):
                model = build(name, classes, **args)
            assert sum(each.numel() for each in model.parameters()) == count


def test_the_page_has_the_parameters_that_the_nets_have() -> None:
    page = (Path(__file__).parents[2] / "docs" / "students.md").read_text()
    rows = re.findall(r"^\| `([\w-]+)`(?:, `mels=(\d+)`)? \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", page, re.MULTILINE)
    assert {name for name, *_ in rows} == {
        name for name in names() if name.startswith(("cnn-lstm", "crnn", "densenet", "cnn14-"))
    }
    for name, mels, *said in rows:
        for classes, count in zip((8, 10, 527), said, strict=True):
            with torch.device("meta"):
                model = build(name, classes, **({"mels": int(mels)} if mels else {}))
            assert f"{sum(each.numel() for each in model.parameters()):,}" == count, name


def test_heads_have_the_parameters_of_the_published_ones() -> None:
    """On Kong's embedded layers, from 128 features, and 527 classes."""

    def dense(inputs: int) -> list[nn.Module]:
        return [nn.Linear(inputs, 1024, bias=False), nn.BatchNorm1d(1024)]

    with torch.device("meta"):
        two = nn.Sequential(nn.BatchNorm1d(128), *dense(128), *dense(1024))
        three = nn.Sequential(two, *dense(1024))
        found = {
            name: nn.Sequential(two if name == "multi-attention" else three, POOLS[name](1024, 527, "sigmoid"))
            for name in ("mean", "max", "attention", "multi-attention", "feature-attention")
        }
        panns = POOLS["cnn14-attention"](2048, 527, "sigmoid")
    counts = {name: sum(each.numel() for each in module.parameters()) for name, module in found.items()}
    assert counts == {
        "mean": 2_774_799, "max": 2_774_799, "attention": 3_314_974, "multi-attention": 3_870_959,
        "feature-attention": 4_876_047,
    }  # fmt: skip
    assert sum(each.numel() for each in panns.parameters()) == 2048 * 2049 + 2 * (2048 * 527 + 527)


def _double(logits: torch.Tensor, scores: str) -> torch.Tensor:
    return torch.softmax(logits, dim=-1) if scores == "softmax" else torch.sigmoid(logits)


def _expected(pool: Pool, frames: torch.Tensor) -> torch.Tensor:
    """Probabilities (B, C) of a head in float64, by the plain formulas of its paper."""
    say: Any = pool
    if isinstance(pool, MultiAttention):
        deeper = F.relu(pool.norm(pool.hidden(frames).transpose(1, 2)).transpose(1, 2))
        said = [_expected(pool.attention, each) for each in (frames, deeper)]
        return _double(pool.output(torch.cat(said, dim=1)), pool.scores)
    if isinstance(pool, FeatureAttention):
        weights = torch.sigmoid(pool.weigh(frames)).clamp(1e-7, 1 - 1e-7)
        pooled = (weights / weights.sum(dim=1, keepdim=True) * pool.values(frames)).sum(dim=1)
        return _double(pool.output(F.relu(pool.norm(pooled))), pool.scores)
    if isinstance(pool, MeanPool):
        each = _double(pool.output(frames), pool.scores)
        found = each.mean(dim=1) if type(pool) is MeanPool else each.amax(dim=1)
    elif isinstance(pool, POOLS["cnn14-attention"]):
        rows = F.pad(frames, (0, 0, 1, 1), value=-torch.inf).unfold(1, 3, 1).amax(dim=3)
        rows = rows + F.pad(frames, (0, 0, 1, 1)).unfold(1, 3, 1).mean(dim=3)
        hidden = F.relu(say.hidden(rows))
        weights = torch.softmax(say.weigh(hidden).clamp(-10, 10), dim=1)
        found = (weights * _double(say.output(hidden), pool.scores)).sum(dim=1)
    else:
        kind = (
            torch.softmax(say.weigh(frames), dim=2) if isinstance(pool, ClassAttention) else say.weigh(frames).sigmoid()
        )
        weights = kind.clamp(1e-7, 1 - 1e-7)
        found = (weights / weights.sum(dim=1, keepdim=True) * _double(say.output(frames), pool.scores)).sum(dim=1)
    return found / found.sum(dim=1, keepdim=True) if pool.scores == "softmax" else found


@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
@pytest.mark.parametrize("name", [*POOLS, "crnn"])
def test_heads_say_what_their_formulas_say(name: str, scores: Any) -> None:
    torch.manual_seed(1)
    kind = ClassAttention if name == "crnn" else POOLS[name]
    pool = kind(6, 4, scores).eval()
    frames = 5 * torch.randn(3, 9, 6)
    found = _double(pool(frames).double(), scores)
    torch.testing.assert_close(found, _expected(pool.double(), frames.double()), rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("far", [-60.0, 60.0])
def test_a_probability_near_0_or_1_keeps_its_digits(far: float) -> None:
    """Where float32 probabilities are 0 or 1, or their complement is lost."""
    random = torch.Generator().manual_seed(0)
    logits = far + torch.randn(2, 7, 3, generator=random)
    weights = torch.rand(2, 7, 3, generator=random).log()
    share = torch.softmax(weights.double(), dim=1)
    yes, no = ((share * torch.sigmoid(sign * logits.double())).sum(dim=1) for sign in (1, -1))
    torch.testing.assert_close(weighted(weights, logits, "sigmoid").double(), yes.log() - no.log(), rtol=1e-6, atol=0)


def test_an_unknown_head_is_refused_in_a_line() -> None:
    with pytest.raises(
        RunError, match=r"model argument pool is 'mode'; allowed are mean, max, attention, multi-attention"
    ):
        build("cnn4", 3, pool="mode")
    with pytest.raises(RunError, match=r"has no argument 'depth'; allowed are width, .*, pool$"):
        build("cnn4", 3, depth=3)
    with pytest.raises(RunError, match="says nothing of single frames"):
        build("cnn4", 3, **CNN4).frame_logits(torch.zeros(1, 4, 16))


@pytest.mark.parametrize("name", ["cnn4", "cnn6", "mobile", "ced-tiny", "cnn-lstm-tiny", "crnn", "densenet-tiny"])
def test_every_net_takes_every_head(name: str) -> None:
    args = {"cnn4": CNN4, "mobile": {"width": 0.1}, "ced-tiny": TINY_CED}.get(name, SMALL.get(name, {}))
    waveforms = _noise(2, 12_000)
    for pool in POOLS if name == "cnn4" else ("attention", "feature-attention"):
        model = initialised(lambda pool=pool: build(name, 3, pool=pool, **args), 0).train()  # type: ignore[misc]
        logits, frames = model.outputs(waveforms)
        (logits.square().sum() + frames.square().sum()).backward()
        unused = [each for each, parameter in model.named_parameters() if parameter.grad is None]
        assert (logits.shape, frames.ndim, unused) == ((2, 3), 3, [])


@pytest.mark.parametrize("which", [*SMALL, "cnn4, attention"])
def test_shapes_masks_and_lengths(which: str) -> None:
    model = _build(which).eval()
    rate = model.front_end.sample_rate
    waveforms = _noise(2, rate)
    masks = Masks(*(np.full(2, value) for value in (0.3, 0.6, 500.0, 2000.0)))
    with torch.inference_mode():
        logits, frames = model.outputs(waveforms)
        masked = model(waveforms, masks)
        assert (logits.shape, frames.shape[0]) == ((2, 3), 2)
        assert not torch.allclose(masked, logits)
        filled = model.masked(torch.full((2, model.front_end.n_mels, 60), 7.0), masks)
        assert filled.unique().tolist() == pytest.approx([model.fill_value, 7.0])
        nothing = Masks(*(np.zeros(2) for _ in range(4)))
        torch.testing.assert_close(model(waveforms, nothing), logits, rtol=0, atol=0)
        torch.testing.assert_close(model(waveforms[:1]), logits[:1], rtol=1e-4, atol=1e-5)
        swapped = model(waveforms, mix=torch.zeros(2))
        torch.testing.assert_close(swapped, logits.flip(0), rtol=1e-4, atol=1e-5)
        for samples in (export.shortest(model), rate // 7):
            assert bool(model(_noise(2, samples)).isfinite().all())


def test_frames_are_as_many_as_the_tables_say() -> None:
    front_end = build("cnn-lstm-tiny", 2).front_end
    assert front_end.n_frames(160_000) == 998
    with torch.inference_mode():
        clip = _noise(1, 160_000)
        assert build("cnn-lstm-tiny", 2).eval().frame_features(clip).shape == (1, 497, 16)
        assert build("crnn", 2).eval().frame_features(clip).shape == (1, 156, 256)
        assert build("densenet-tiny", 2, mels=8).eval().frame_features(clip).shape == (1, 1001 // 8, 68)
        assert build("densenet-tiny", 2, mels=8, time_poolings=1).eval().frame_features(clip).shape == (1, 500, 68)


def test_time_and_channel_of_a_cnn_lstm_are_not_mixed() -> None:
    """A frame of the LSTM hears what came before it and nothing after."""
    model = _build("cnn-lstm-tiny").eval()
    waveforms = _noise(1, 16_000)
    changed = waveforms.clone()
    changed[:, 8_000:] = 0
    with torch.inference_mode():
        before, after = model.frame_features(waveforms), model.frame_features(changed)
    kept = (8_000 - 400) // 160 // 2 - 2
    torch.testing.assert_close(after[:, :kept], before[:, :kept], rtol=0, atol=1e-6)
    assert not torch.allclose(after[:, kept + 6 :], before[:, kept + 6 :], atol=1e-3)


def test_the_mean_of_a_densenets_class_activations_is_the_clips_logit() -> None:
    model = _build("densenet-tiny").eval()
    assert isinstance(model, DenseNet)
    with torch.inference_mode():
        logits, frames = model.outputs(_noise(2, 16_000))
        activations = model.frame_logits(frames)
    assert activations.shape == (2, frames.shape[1], 3)
    assert model.frame_centers(2, 1.0) == pytest.approx([4 * 0.02, 12 * 0.02])
    torch.testing.assert_close(activations.mean(dim=1), logits)


@pytest.mark.parametrize(
    "which", ["crnn", *(name for name in HEADS if "-attention" not in name), "cnn4, cnn14-attention"]
)
def test_clips_and_frames_are_answered_at_once_under_one_dropout(which: str) -> None:
    model = _build(which)
    frames = model.eval().frame_features(_noise(2, 16_000)).detach()
    logits, by_frame = model.answers_by_frame(frames)
    torch.testing.assert_close(logits, model.answers(frames))
    assert by_frame.shape == (2, frames.shape[1], 3)
    head = model.train().pool or model.attention
    outputs = []
    with head.output.register_forward_hook(lambda layer, given, out: outputs.append(out)):
        _, by_frame = model.answers_by_frame(frames)
    assert len(outputs) == 1
    assert torch.equal(outputs[0], by_frame)


@pytest.mark.parametrize("pool", ["multi-attention", "feature-attention"])
def test_a_head_that_classifies_no_frames_says_so(pool: str) -> None:
    model = _build(f"cnn4, {pool}")
    with pytest.raises(
        RunError, match=f"the head {pool} says nothing of single frames; use pool=mean, max or attention"
    ):
        model.frame_logits(torch.zeros(1, 4, 16))


def test_a_cnn4_that_halves_time_less_often_has_shorter_frames() -> None:
    sizes = {}
    for poolings in (0, 1, 4):
        model = build("cnn4", 3, **CNN4, time_halvings=poolings).eval()
        sizes[poolings] = model.frame_features(torch.zeros(1, 16_000)).shape[1]
        assert np.diff(model.frame_centers(sizes[poolings], 1.0)) == pytest.approx(0.04 * 2**poolings)
    assert sizes == {0: 26, 1: 13, 4: 1}
    with pytest.raises(RunError, match="time_halvings is 5; it must be a number from 0 to 4"):
        build("cnn4", 3, time_halvings=5)


def test_classes_in_another_order_need_a_new_head_where_several_layers_know_them(tmp_path: Path) -> None:
    args = CNN4 | {"pool": "attention"}
    save_run(tmp_path / "run", "cnn4", args, ("a", "b"), "sigmoid", 16_000, build("cnn4", 2, **args))
    assert load_init(build("cnn4", 2, **args), str(tmp_path / "run"), False, ("a", "b")).made_anew == {}
    with pytest.raises(
        RunError, match="in another order, and more than one layer of such a head knows it; give --new-"
    ):
        load_init(build("cnn4", 2, **args), str(tmp_path / "run"), False, ("b", "a"))
    assert load_init(build("cnn4", 2, **args), str(tmp_path / "run"), True, ("b", "a")).made_anew == {"pool": 4}


@pytest.mark.parametrize("which", ["cnn-lstm-tiny", "crnn"])
def test_a_file_says_what_the_net_says(which: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxscript", reason="the extra `onnx` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    model = _build(which).eval()
    name, args = which.partition(",")[0], SMALL.get(which) or HEADS.get(which, {})
    save_run(tmp_path / "run", name, args, ("a", "b", "c"), "sigmoid", 16_000, model)
    run = load_run(tmp_path / "run")
    content = export.graph_of(run, masks=which != "crnn").SerializeToString()
    heard = [
        _noise(clips, samples).numpy() for clips, samples in ((1, export.shortest(model)), (3, 7_000), (2, 40_000))
    ]
    assert export.compare(content, run.model, heard).largest < 1e-4


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_heard(tmp_path_factory.mktemp("heard"), clips=15, views=1)


def test_the_option_pool_is_the_argument_pool(tmp_path: Path) -> None:
    values = student_values(tmp_path, tmp_path / "run", pool="max", model_args={"width": 2})
    options = StudentOptions(**values)
    assert (options.model_args, options.pool) == ({"width": 2, "pool": "max"}, None)
    assert StudentOptions(**(values | {"pool": None})).model_args == {"width": 2}
    with pytest.raises(RunError, match="--pool is 'mode'"):
        StudentOptions(**(values | {"pool": "mode"}))
    from typing import get_args, get_type_hints

    named = get_args(get_args(get_type_hints(StudentOptions)["pool"])[0])
    assert named == tuple(POOLS)
