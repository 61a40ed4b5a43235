"""Every net, and every head, through what a student goes through: replay, 16 bits, resumption, export.

Some of them each time; under ``LOGITSTORE_NETS=full`` every net with every head. Two processes train them in
``tests/training/test_distributed.py``; files of some are checked in ``tests/jobs/test_export_student.py`` and
``tests/models/test_networks.py`` too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from logitstore.models.panns import PannsDecisionLevel
from logitstore.models.pooling import POOLS
from logitstore.models.registry import build, initialised, names
from logitstore.models.tagger import probabilities
from logitstore.training.loop import FitProgress
from logitstore.training.runs import load_run, save_run
from students import export
from students.options import StudentOptions
from students.train import train_student
from tests.heard import make_heard, student_values
from tests.nets import CASES, FULL, args_of, called
from tests.training.test_resume import assert_same_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_heard(tmp_path_factory.mktemp("heard"), clips=12, views=1)


class _KilledError(Exception):
    """A training ends here."""


def test_every_head_and_every_kind_of_net_is_tried() -> None:
    assert {pool for _, pool in CASES if pool is not None} == set(POOLS)
    nets = {name for name, _ in CASES}
    for name in set(names()) - nets:  # of the same class as another
        assert name.startswith(("cnn6", "cnn10", "cnn14", "ced-", "densenet-", "cnn-lstm"))


@pytest.mark.parametrize("case", CASES, ids=called)
def test_a_student_in_16_bits_goes_on_where_it_was_killed(
    root: Path, tmp_path: Path, case: tuple[str, str | None]
) -> None:
    def learn(out: str, progress: FitProgress | None = None) -> None:
        values = student_values(
            root, tmp_path / out, student=case[0], model_args=args_of(*case), epochs=None, steps=3, batch_size=4,
            precision="bf16", checkpoint_every=1, similarity="iusp", hold_out=0.0,
        )  # fmt: skip
        train_student(StudentOptions(**values), progress)

    def stop(number: int, clips: int, loss: float | None) -> None:
        if number == 2:
            raise _KilledError

    learn("whole")
    with pytest.raises(_KilledError):
        learn("run", FitProgress(step=stop))
    learn("run")
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    model = load_run(tmp_path / "run").model
    with torch.inference_mode():
        said = probabilities(model(_noise(2, model.front_end.sample_rate)), "sigmoid")
    assert said.shape == (2, 3)
    assert bool(said.isfinite().all())


@pytest.mark.skipif(not FULL, reason="each takes seconds; LOGITSTORE_NETS=full exports all of them")
@pytest.mark.parametrize("case", [*CASES, ("global-local", None)], ids=called)
def test_a_file_says_what_the_net_says(case: tuple[str, str | None], tmp_path: Path) -> None:
    for module in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason="the extra `onnx` is not installed")
    name, args = case[0], args_of(*case)
    if name.startswith("ced-") and case[1] == "cnn14-attention":
        pytest.xfail("torch exports no pooling over frames whose number it does not know")
    if name == "global-local":
        args = {"net": "cnn4", "net_args": args_of("cnn4", "attention"), "seconds": 0.4}
    model = initialised(lambda: build(name, 3, **args), 0).eval()
    rate = model.front_end.sample_rate
    save_run(tmp_path / "run", name, args, ("a", "b", "c"), "sigmoid", rate, model)
    run = load_run(tmp_path / "run")
    content = export.graph_of(run, masks=True).SerializeToString()
    heard = [_noise(*shape).numpy() for shape in ((1, export.shortest(model)), (3, rate), (2, 5 * rate))]
    assert export.compare(content, run.model, heard).largest < 1e-4


#: A net of every kind with arguments by which its frames come out of strides, pieces or windows.
_HEARD: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn4": ("cnn4", {"width": 4}),
    "cnn6": ("cnn6", {"sample_rate": 8000, "mels": 64}),
    "cnn-lstm": ("cnn-lstm-tiny", {}),
    "crnn": ("crnn", {}),
    "densenet": ("densenet-tiny", {"mels": 16}),
    "densenet, strides": ("densenet-63", {"mels": 32, "time_poolings": 0}),
    "mobile": ("mobile", {"width": 0.25}),
    "ced": ("ced-tiny", {"dim": 32, "depth": 1, "heads": 2}),
    "ced, pieces": ("ced-tiny", {"dim": 32, "depth": 1, "heads": 2, "frames": 82}),  # 2 frames of each are left over
    "global-local": ("global-local", {"net": "mobile", "net_args": {"width": 0.25}}),
}


def test_the_frames_of_every_net_of_this_package_are_listened_to() -> None:
    with torch.device("meta"):
        kinds = {type(build(name, 1, **args)) for name, args in _HEARD.values()}
        every = {type(build(name, 1)) for name in names()}
    assert every <= kinds | {PannsDecisionLevel}  # cnn6's frames, with a head


@pytest.mark.parametrize("case", _HEARD)
def test_what_sounds_at_a_time_moves_the_frames_that_are_centred_there(case: str) -> None:
    """In the noise of each clip 40 ms are loud; where, is the mean of the frames that they move, near by."""
    name, args = _HEARD[case]
    model = initialised(lambda: build(name, 3, **args), 0).eval()
    rate, seconds = model.front_end.sample_rate, 6.15
    times = np.linspace(0.5, 5.5, 18)
    quiet = np.random.default_rng(0).normal(0, 1e-3, round(seconds * rate)).astype(np.float32)
    heard = np.tile(quiet, (len(times) + 1, 1))
    for clip, time in enumerate(times):
        heard[clip, round((time - 0.02) * rate) : round((time + 0.02) * rate)] *= 1000
    with torch.inference_mode():
        frames = model.frame_features(torch.from_numpy(heard)).double().numpy()
    centers = model.frame_centers(frames.shape[1], seconds)
    frame = float(np.median(np.diff(centers)))
    moved = np.square(frames[:-1] - frames[-1]).sum(axis=2)  # (18, T)
    away = centers[None] - times[:, None]
    near = moved * (np.abs(away) < 2.5 * frame)
    error = (near * away).sum(axis=1) / near.sum(axis=1)
    for part in np.split(error, 3):
        assert abs(part.mean()) < frame / 4 + model.front_end.hop_length / rate / 2, error / frame


def _noise(clips: int, samples: int) -> torch.Tensor:
    random = np.random.default_rng(samples)
    tones = np.sin(np.arange(samples) * random.uniform(0.02, 2.5, (clips, 1)))
    return torch.from_numpy((0.2 * (tones + random.normal(0, 0.3, (clips, samples)))).astype(np.float32))
