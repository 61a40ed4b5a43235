"""What each kind of teacher says of when."""

from typing import Self

import numpy as np
import pytest
import torch

from logitstore.errors import TeacherError
from logitstore.models.registry import build
from logitstore.models.tagger import probabilities
from logitstore.models.yamnet import Yamnet
from teachers.contract import Contract, Window
from teachers.ensemble import Ensemble
from teachers.model_file import FileTeacher
from teachers.specs.run_folder import TaggerTeacher

CLASSES = ("a", "b", "c")


def views(count: int = 2, seconds: float = 2.0) -> torch.Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.normal(0, 0.1, (count, int(seconds * 16_000))).astype(np.float32))


def of(name: str, **arguments: object) -> TaggerTeacher:
    torch.manual_seed(0)
    return TaggerTeacher("it", name, build(name, 3, **arguments), CLASSES, "0" * 32)


@pytest.mark.parametrize(
    ("name", "arguments", "frames", "hop", "first"),
    [
        ("densenet-tiny", {}, 12, 0.08, 0.04),
        ("crnn", {}, 15, 0.064, 0.032),
        ("cnn4", {"pool": "attention", "time_halvings": 2, "width": 4}, 12, 0.08, 0.04),
        ("cnn4", {"pool": "max", "width": 4}, 3, 0.32, 0.16),
        ("mobile", {"pool": "mean", "width": 0.1}, 4, 0.32, 0.0),
    ],
)
def test_a_net_that_answers_by_frames_says_when_and_of_the_view_what_it_says_alone(name, arguments, frames, hop, first):
    teacher, waves = of(name, **arguments), views(1, 1.0)
    assert teacher.has_frames
    answer = teacher.answers(waves, None, features=True, frames=True)
    assert answer.frames.probabilities.shape == (1, frames, 3)
    np.testing.assert_allclose(np.diff(answer.frames.centers), hop, rtol=1e-6)
    assert abs(answer.frames.centers[0] - first) < 1e-6
    torch.testing.assert_close(answer.probabilities, teacher.probabilities(waves, None), rtol=0, atol=0)
    again = teacher.frame_probabilities(waves, None)
    torch.testing.assert_close(again.probabilities, answer.frames.probabilities, rtol=0, atol=0)
    if name == "densenet-tiny":  # the mean of its class activations is the clip's logit
        mean = torch.logit(answer.frames.probabilities).mean(dim=1).sigmoid()
        torch.testing.assert_close(mean, answer.probabilities, rtol=0, atol=1e-6)


@pytest.mark.parametrize("arguments", [{}, {"pool": "feature-attention"}, {"pool": "multi-attention"}])
def test_a_net_that_does_not_is_asked_in_vain(arguments):
    teacher = of("cnn4", width=4, **arguments)
    assert not teacher.has_frames
    with pytest.raises(TeacherError, match="does not say when"):
        teacher.frame_probabilities(views(), None)
    with pytest.raises(TeacherError, match="'it' says one thing of a whole view"):
        Ensemble([teacher], sample_rate=16_000).require_frames(2.0)


def test_yamnet_says_when_by_its_patches():
    torch.manual_seed(0)
    net = Yamnet(3, channels=(8,) * 14)
    teacher = TaggerTeacher("it", "yamnet", net, CLASSES, "0" * 32)
    waves = views(seconds=2.5)
    answer = teacher.answers(waves, None, frames=True)
    assert answer.frames.centers.tolist() == pytest.approx(
        [0.4875, 0.9675, 1.4475, 1.9275, 2.4075][: len(answer.frames[1])]
    )
    with torch.inference_mode():
        _, patches = net.outputs(waves)
        alone = probabilities(net.output(patches), "sigmoid")
    torch.testing.assert_close(answer.frames.probabilities, alone, rtol=0, atol=0)
    torch.testing.assert_close(alone.mean(dim=1), answer.probabilities, rtol=0, atol=1e-6)


class Model(FileTeacher):
    """A model file whose answer is the mean square of what it hears, whole or in ``frames`` parts."""

    def __init__(self, frames: int | None, window: Window | None) -> None:
        self.spec, self.frames = "file", frames
        self.contract = Contract(
            name="file", classes=CLASSES, scores="sigmoid", sample_rate=16_000, digest="0" * 32, window=window,
            pooling=None if frames is None else "max", has_frames=True,
        )  # fmt: skip

    def _run(self, clips, masks):
        parts = np.stack(np.split(clips, self.frames or 1, axis=1), axis=1)
        said = np.repeat(np.clip((parts**2).mean(axis=2, keepdims=True), 0, 1), 3, axis=2)
        return said if self.frames is not None else said[:, 0]

    def to(self, device) -> Self:
        return self


@pytest.mark.parametrize(
    ("frames", "window", "centers"),
    [
        (4, None, [0.25, 0.75, 1.25, 1.75]),
        (None, Window(samples=8_000, hop=4_000), [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]),
        (2, Window(samples=16_000, hop=16_000), [0.25, 0.75, 1.25, 1.75]),
        (2, Window(samples=16_000, hop=8_000), [0.25, 0.75, 0.75, 1.25, 1.25, 1.75]),
    ],
)
def test_a_model_file_says_when_by_its_frames_and_windows(frames, window, centers):
    teacher, waves = Model(frames, window), views()
    answer = teacher.answers(waves, None, frames=True)
    assert answer.frames.centers.tolist() == pytest.approx(centers)
    torch.testing.assert_close(answer.probabilities, teacher.probabilities(waves, None), rtol=0, atol=0)
    half = 4_000  # samples on either side of a centre: all of these frames are half a second long
    for place, center in enumerate(centers):
        start = round(center * 16_000)
        part = waves[:, start - half : start + half]
        expected = part.square().mean(dim=1)
        torch.testing.assert_close(answer.frames.probabilities[:, place, 0], expected, rtol=1e-4, atol=1e-6)
