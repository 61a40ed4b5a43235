"""Every net, and every head, through what a student goes through: replay, 16 bits, resumption, export.

Some of them each time; under ``LOGITSTORE_NETS=full`` every net with every head. Two processes train them in
``tests/training/test_distributed.py``; files of some are checked in ``tests/jobs/test_export_student.py`` and
``tests/models/test_networks.py`` too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

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


def _noise(clips: int, samples: int) -> torch.Tensor:
    random = np.random.default_rng(samples)
    tones = np.sin(np.arange(samples) * random.uniform(0.02, 2.5, (clips, 1)))
    return torch.from_numpy((0.2 * (tones + random.normal(0, 0.3, (clips, samples)))).astype(np.float32))
