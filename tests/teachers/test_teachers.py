"""Teacher specs and ensembles: what is loaded, averaged, permuted, resampled, and what is refused."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from logitstore.classes import audioset
from logitstore.errors import ModelOutputError, RunError, TeacherError
from logitstore.models.registry import build
from logitstore.training.runs import save_run
from logitstore.views.recipe import Masks, load_recipe, parse_recipe
from logitstore.views.render import resample
from teachers.contract import Contract, Window
from teachers.ensemble import Ensemble, load_ensemble
from teachers.registry import load_teacher
from teachers.teacher import Teacher


class Fixed(Teacher):
    """A teacher that says what it was told to, and remembers what it heard."""

    def __init__(self, said: Any, classes: str = "abc", scores: str = "sigmoid", rate: int = 16000) -> None:
        self.spec = f"fixed:{classes}"
        self.said = said
        self.contract = Contract(
            name=self.spec, classes=tuple(classes), scores=scores, sample_rate=rate, digest="0" * 32, takes_masks=True
        )
        self.heard: list[tuple[torch.Tensor, Masks | None]] = []

    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        self.heard.append((waveforms, masks))
        if not isinstance(self.said, list):
            return self.said  # type: ignore[no-any-return]
        return torch.tensor(self.said).repeat(len(waveforms), 1)

    def to(self, device: Any) -> Fixed:
        return self


WAVEFORMS = torch.zeros(2, 16000)
NAN = float("nan")


def test_the_mean_is_weighted() -> None:
    ensemble = Ensemble([Fixed([0.2, 0.4, 0.6]), Fixed([0.8, 0.0, 1.0])], weights=[3, 1], sample_rate=16000)
    assert ensemble.weights == (0.75, 0.25)
    mean, members = ensemble.probabilities(WAVEFORMS, None, members=True)
    torch.testing.assert_close(mean, torch.tensor([[0.35, 0.3, 0.7]]).repeat(2, 1))
    assert mean.dtype == torch.float32
    assert members.shape == (2, 2, 3)
    torch.testing.assert_close(members[1, 0], torch.tensor([0.8, 0.0, 1.0]))


def test_logits_are_averaged_where_asked() -> None:
    said = [[0.2, 0.4, 1.0], [0.6, 0.9, 0.5]]
    ensemble = Ensemble([Fixed(row) for row in said], average="logit", sample_rate=16000)
    mean = ensemble.probabilities(WAVEFORMS, None)[0]
    expected = torch.sigmoid((torch.logit(torch.tensor(said[0][:2])) + torch.logit(torch.tensor(said[1][:2]))) / 2)
    torch.testing.assert_close(mean[:2], expected)
    assert 0.999 < float(mean[2]) < 1.0


def test_softmax_logits_average_to_a_distribution_that_keeps_the_mass_of_a_subset() -> None:
    said = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    teachers = [Fixed(row.tolist(), scores="softmax") for row in said]
    mean = Ensemble(teachers, average="logit", sample_rate=16000).probabilities(WAVEFORMS, None)[0]
    geometric = said.log().mean(dim=0).exp()
    torch.testing.assert_close(mean, geometric / geometric.sum())
    kept = Ensemble(teachers, average="logit", classes=("a", "b"), sample_rate=16000).probabilities(WAVEFORMS, None)[0]
    assert float(kept.sum()) == pytest.approx(0.7)


def test_the_same_classes_in_another_order_are_permuted() -> None:
    ensemble = Ensemble([Fixed([0.1, 0.2, 0.3]), Fixed([0.3, 0.1, 0.2], classes="cab")], sample_rate=16000)
    assert ensemble.classes == ("a", "b", "c")
    torch.testing.assert_close(ensemble.probabilities(WAVEFORMS, None)[0], torch.tensor([0.1, 0.2, 0.3]))


def test_a_named_subset_lets_other_class_lists_together() -> None:
    teachers = [Fixed([0.1, 0.2, 0.3]), Fixed([0.9, 0.3, 0.1], classes="zca")]
    ensemble = Ensemble(teachers, classes=("c", "a"), sample_rate=16000)
    torch.testing.assert_close(ensemble.probabilities(WAVEFORMS, None)[0], torch.tensor([0.3, 0.1]))
    with pytest.raises(TeacherError, match=r"no teacher knows 'y' \(1 of the 2 classes"):
        Ensemble(teachers, classes=("c", "y"), sample_rate=16000)


def test_a_class_is_averaged_over_the_teachers_that_know_it() -> None:
    teachers = [Fixed([0.1, 0.2, 0.3]), Fixed([0.9, 0.3, 0.1], classes="zca")]
    ensemble = Ensemble(teachers, weights=[3, 1], sample_rate=16000)
    assert ensemble.classes == ("a", "b", "c", "z")
    mean, members = ensemble.probabilities(WAVEFORMS, None, members=True)
    torch.testing.assert_close(mean[0], torch.tensor([0.1, 0.2, 0.3, 0.9]))
    assert members[:, 0].tolist() == pytest.approx(np.array([[0.1, 0.2, 0.3, 0.0], [0.1, 0.0, 0.3, 0.9]]))
    assert [known.tolist() for known in ensemble.known] == [[True, True, True, False], [True, False, True, True]]
    assert [each["contract"].get("knows") for each in ensemble.describe()] == [[[0, 3]], [[0, 1], [2, 4]]]
    (said,) = [note for note in ensemble.notes if "join" in note]
    assert "join to 4 (3 of 'fixed:abc', 3 of 'fixed:zca'), 2 of which every teacher knows" in said
    logits = Ensemble(teachers, average="logit", sample_rate=16000).probabilities(WAVEFORMS, None)
    torch.testing.assert_close(logits[0], torch.tensor([0.1, 0.2, 0.3, 0.9]))


def test_common_keeps_what_every_teacher_knows() -> None:
    teachers = [Fixed([0.1, 0.2, 0.3]), Fixed([0.9, 0.5, 0.1], classes="zca")]
    ensemble = Ensemble(teachers, classes="common", sample_rate=16000)
    assert ensemble.classes == ("a", "c")
    torch.testing.assert_close(ensemble.probabilities(WAVEFORMS, None)[0], torch.tensor([0.1, 0.4]))
    assert not [note for note in ensemble.notes if "join" in note]
    with pytest.raises(TeacherError, match="not one class in common"):
        Ensemble([Fixed([0.1] * 3), Fixed([0.1] * 2, classes="xy")], classes="common", sample_rate=16000)


def test_unequal_softmax_vocabularies_have_no_mean() -> None:
    teachers = [Fixed([0.1, 0.2, 0.7], scores="softmax"), Fixed([0.8, 0.2], classes="ab", scores="softmax")]
    with pytest.raises(TeacherError, match=r"'fixed:ab' .* lacks 1 of the 3 classes .* 'c'.*--classes common"):
        Ensemble(teachers, sample_rate=16000)
    with pytest.raises(TeacherError, match=r"'fixed:ab' .* lacks 1 of the 2 classes"):
        Ensemble(teachers, classes=("a", "c"), sample_rate=16000)
    assert Ensemble(teachers, classes="common", sample_rate=16000).classes == ("a", "b")


def test_vocabularies_join_by_mid_before_the_name() -> None:
    table = audioset()
    names, mids = Fixed([0.2] * 2), Fixed([0.4] * 2)
    names.restate(classes=(table[0].display_name, table[5].display_name))
    mids.restate(classes=("spoken", "my own"), mids=(table[0].mid, None))
    ensemble = Ensemble([names, mids], sample_rate=16000)
    assert ensemble.classes == (table[0].display_name, table[5].display_name, "my own")
    torch.testing.assert_close(ensemble.probabilities(WAVEFORMS, None)[0], torch.tensor([0.3, 0.2, 0.4]))
    twin = Fixed([0.4] * 2)
    twin.restate(classes=(table[0].display_name, "x"), mids=("/m/other", None))  # the name of another thing
    assert Ensemble([names, twin], sample_rate=16000).classes[2] == f"{table[0].display_name} (/m/other)"


@pytest.mark.parametrize(
    ("samples", "starts"),
    [(0, [0]), (15_600, [0]), (15_601, [0, 7680]), (80_000, [7680 * n for n in range(10)]),
     (160_000, [7680 * n for n in range(20)])],
)  # fmt: skip
def test_windows_reach_to_the_end(samples: int, starts: list[int]) -> None:
    assert Window(samples=15_600, hop=7680).starts(samples) == starts


@pytest.mark.parametrize(("seconds", "windows"), [(1, 1), (3, 1), (4.4, 1), (4.5, 2), (6, 2), (9.1, 3)])
def test_a_short_rest_is_left_out(seconds: float, windows: int) -> None:
    assert len(Window(samples=144_000, hop=144_000, least=72_000).starts(round(48_000 * seconds))) == windows


def test_a_module_of_one_length_hears_windows_and_their_masks(own_folder: Path) -> None:
    Path("short.py").write_text(
        "import torch\n"
        "class Short(torch.nn.Module):\n"
        "    classes, sample_rate, scores = ['a', 'b'], 100, 'sigmoid'\n"
        "    window_seconds, hop_seconds, pooling, licence = 1.0, 0.5, 'max', 'MIT'\n"
        "    def forward(self, waveforms, masks=None):\n"
        "        assert waveforms.shape[1] == 100\n"
        "        return torch.stack([waveforms.mean(1), masks.time_start.float().clamp(0, 1)], dim=1)\n"
    )
    teacher = load_teacher("python:short:Short")
    assert teacher.contract.window == Window(samples=100, hop=50, pooling="max")
    waveforms = torch.cat([torch.zeros(1, 100), torch.ones(1, 80)], dim=1)
    said = teacher.probabilities(waveforms, Masks(*(np.full(1, value) for value in (1.5, 1.6, 0.0, 0.0))))
    assert said.tolist() == [[pytest.approx(0.8), 1.0]]  # of windows from 0, 0.5 and 1 s on
    assert teacher.contract.stored()["window"] == {"samples": 100, "hop": 50, "pooling": "max", "least": 1}
    assert teacher.contract.stored()["licence"] == "MIT"


def test_score_kinds_and_weights_are_checked() -> None:
    with pytest.raises(TeacherError, match="softmax scores and teacher 'fixed:abc' sigmoid"):
        Ensemble([Fixed([0.1] * 3), Fixed([0.1] * 3, scores="softmax")], sample_rate=16000)
    with pytest.raises(TeacherError, match="2 teacher weights for 1 teachers"):
        Ensemble([Fixed([0.1] * 3)], weights=[1, 2], sample_rate=16000)
    for weight in (0.0, -1.0, NAN):
        with pytest.raises(TeacherError, match="weights must be positive"):
            Ensemble([Fixed([0.1] * 3)], weights=[weight], sample_rate=16000)
    with pytest.raises(TeacherError, match="no teachers"):
        Ensemble([], sample_rate=16000)


def test_each_member_hears_its_own_rate_and_clips_are_resampled_alone() -> None:
    waveforms = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (3, 16001)).astype(np.float32))
    low, same, high = Fixed([0.1] * 3, rate=8000), Fixed([0.1] * 3), Fixed([0.1] * 3, rate=44100)
    Ensemble([low, same, high], sample_rate=16000).probabilities(waveforms, None)
    assert torch.equal(same.heard[0][0], waveforms)
    assert low.heard[0][0].shape == (3, 8001)  # 8,000.5, rounded half up
    assert high.heard[0][0].shape == (3, 44103)
    assert torch.equal(resample(waveforms[1:2], 16000, 44100)[0], high.heard[0][0][1])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([0.1, NAN, 0.3], "'fixed:abc' gave NaN for clip 0 of a batch of 2"),
        ([0.1, 1.5, 0.3], r"values from 0.1 to 1.5; probabilities lie in \[0, 1\]"),
        ([0.1, -0.5, 0.3], "values from -0.5 to 0.3"),
        ([0.1, float("inf"), 0.3], "values from 0.1 to inf"),
        ([0.1, 0.3], r"gave the shape \(2, 2\); it must be \(clips, classes\) = \(2, 3\)"),
        (torch.zeros(2, 3, dtype=torch.int64), "gave torch.int64; it must give a float tensor"),
        ({"logits": 1}, "gave dict; it must give a float tensor"),
    ],
)
def test_an_output_that_is_not_probabilities_names_its_teacher(said: Any, message: str) -> None:
    with pytest.raises(ModelOutputError, match=message):
        Ensemble([Fixed(said)], sample_rate=16000).probabilities(WAVEFORMS, None)


def test_a_rounding_error_above_one_is_clipped() -> None:
    ensemble = Ensemble([Fixed([-1e-6, 1 + 1e-6, 0.5])], sample_rate=16000)
    assert ensemble.probabilities(WAVEFORMS, None)[0].tolist() == [0.0, 1.0, 0.5]


def test_a_waveform_only_teacher_is_refused_under_spectrogram_ops() -> None:
    teacher = Fixed([0.1] * 3)
    teacher.restate(takes_masks=False)
    ensemble = Ensemble([Fixed([0.1] * 3), teacher], sample_rate=16000)
    ensemble.check(load_recipe("none"))
    ensemble.check(parse_recipe([{"op": "roll"}]))
    with pytest.raises(
        TeacherError, match=r"'fixed:abc' takes only waveforms .* 'ced' has the spectrogram op 'time_mask'"
    ):
        ensemble.check(load_recipe("ced"))
    teacher.restate(max_seconds=10.24)
    with pytest.raises(TeacherError, match=r"hears at most 10\.24 s and a view has 30 s"):
        ensemble.check(load_recipe("none"), clip_seconds=30.0)


def _save(folder: Path, classes: list[str], *, seed: int = 0, rate: int = 16000) -> str:
    torch.manual_seed(seed)
    model = build("cnn4", len(classes), width=4, sample_rate=rate)
    save_run(folder, "cnn4", {"width": 4, "sample_rate": rate}, classes, "sigmoid", rate, model)
    return str(folder)


def test_run_folders_are_teachers(tmp_path: Path) -> None:
    specs = [_save(tmp_path / "one", ["a", "b"]), _save(tmp_path / "two", ["b", "a"], seed=1, rate=8000)]
    ensemble = load_ensemble(specs, sample_rate=16000)
    ensemble.check(load_recipe("ced"), clip_seconds=5.0)
    waveforms = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (2, 16000)).astype(np.float32))
    masks = Masks(*(np.full(2, value) for value in (0.2, 0.5, 500.0, 1000.0)))
    mean, members = ensemble.probabilities(waveforms, masks, members=True)
    torch.testing.assert_close(mean, members.mean(dim=0))
    described = ensemble.describe()
    assert [member["name"] for member in described] == ["cnn4", "cnn4"]
    assert described[0]["digest"] != described[1]["digest"]
    assert str(tmp_path) not in json.dumps(described)
    assert load_teacher(specs[0]).features(waveforms, masks).shape == (2, 3, 32)


def test_amp_gives_float32_near_the_full_precision(tmp_path: Path) -> None:
    spec = _save(tmp_path / "one", ["a", "b"])
    waveforms = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (2, 16000)).astype(np.float32))
    full = load_ensemble([spec], sample_rate=16000).probabilities(waveforms, None)
    half = load_ensemble([spec], sample_rate=16000, precision="amp").probabilities(waveforms, None)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.02, rtol=0)


def test_specs_that_name_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        TeacherError, match=r"no teacher 'nowhere': no such run folder; allowed are a run folder, .*ced:FILE"
    ):
        load_teacher("nowhere")
    with pytest.raises(TeacherError, match="teacher 'ced:' names nothing; it is of the form ced:FILE"):
        load_teacher("ced:")
    file = tmp_path / "model.pt"
    file.write_bytes(b"")
    with pytest.raises(TeacherError, match="is a file; say what it is: ced:"):
        load_teacher(str(file))
    with pytest.raises(RunError, match="is not a run folder"):
        load_teacher(str(tmp_path))


MODULE = """
import torch

class Plain(torch.nn.Module):
    classes = ["dog", "rain"]
    sample_rate = 16000
    scores = "sigmoid"

    def __init__(self):
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(0.25))

    def forward(self, waveforms):
        return self.level.expand(len(waveforms), 2)

class Masked(Plain):
    classes = ("dog", "rain")

    def forward(self, waveforms, masks):
        seconds = masks.time_end - masks.time_start
        hertz = (masks.freq_high - masks.freq_low) / 10000
        return torch.stack([seconds, hertz], dim=1).float()

    def features(self, waveforms, masks):
        return torch.zeros(len(waveforms), 5, 3)

class NoRate(Plain):
    def __getattribute__(self, name):
        if name == "sample_rate":
            raise AttributeError(name)
        return super().__getattribute__(name)

def twice():
    teacher = Plain()
    teacher.classes = ["dog", "dog"]
    return teacher

def logits():
    teacher = Plain()
    teacher.scores = "logits"
    return teacher

def fails():
    raise RuntimeError("no weights\\nat all")

def nothing():
    return 3

constant = 7
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"teacher_module_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def test_a_python_module_in_the_current_folder_is_a_teacher(module: str) -> None:
    teacher = load_teacher(f"python:{module}:Plain")
    assert (teacher.classes, teacher.scores, teacher.sample_rate) == (("dog", "rain"), "sigmoid", 16000)
    assert not teacher.takes_masks
    ensemble = Ensemble([teacher], sample_rate=16000)
    assert ensemble.probabilities(WAVEFORMS, None).tolist() == [[0.25, 0.25]] * 2
    with pytest.raises(TeacherError, match="takes only waveforms"):
        ensemble.check(load_recipe("ced"))
    with pytest.raises(TeacherError, match="has no features over time"):
        teacher.features(WAVEFORMS, None)


def test_a_python_module_with_a_parameter_masks_is_handed_them(module: str) -> None:
    teacher = load_teacher(f"python:{module}:Masked")
    ensemble = Ensemble([teacher], sample_rate=16000)
    ensemble.check(load_recipe("ced"))
    masks = Masks(np.array([0.0, 0.5]), np.array([0.0, 1.0]), np.array([0.0, 1000.0]), np.array([5000.0, 2000.0]))
    torch.testing.assert_close(ensemble.probabilities(WAVEFORMS, masks), torch.tensor([[0.0, 0.5], [0.5, 0.1]]))
    assert ensemble.probabilities(WAVEFORMS, None).tolist() == [[0.0, 0.0]] * 2  # equal ends where there are no masks
    assert teacher.has_features
    assert teacher.features(WAVEFORMS, masks).shape == (2, 5, 3)


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("{module}", "is not of the form python:MODULE:FACTORY"),
        ("no_such_module:make", "cannot import 'no_such_module': ModuleNotFoundError"),
        ("{module}:absent", "has no 'absent'"),
        ("{module}:constant", "cannot be called"),
        ("{module}:fails", r"fails\(\) failed: RuntimeError: no weights at all"),
        ("{module}:nothing", r"nothing\(\) gave int; it must give a torch\.nn\.Module"),
        ("{module}:NoRate", "has no attribute 'sample_rate'"),
        ("{module}:twice", "'dog' occurs twice"),
        ("{module}:logits", "the score kind is 'logits'"),
    ],
)
def test_python_modules_that_are_not_teachers(module: str, rest: str, message: str) -> None:
    with pytest.raises(TeacherError, match=message) as caught:
        load_teacher("python:" + rest.format(module=module))
    assert "\n" not in str(caught.value)


def test_audioset_teachers_agree_by_any_column() -> None:
    teacher = Fixed([0.0] * 526 + [1.0])
    teacher.restate(classes=tuple(row.display_name for row in audioset()))
    other = Fixed([1.0] + [0.0] * 526)
    other.restate(classes=tuple(row.mid for row in reversed(audioset())))
    mean = Ensemble([teacher, other], sample_rate=16000).probabilities(WAVEFORMS, None)
    assert mean[0].nonzero().flatten().tolist() == [526]
