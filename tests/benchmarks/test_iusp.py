"""The benchmark of SP and IUSP: its other definitions, its tuning, SONYC-UST, and every table comes out."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import ablation, iusp, runs, scenes
from benchmarks.exact_relations import Compared, ExactFold, Unpooled, Variant
from benchmarks.folds import MANY_FRAMES, Fold
from logitstore.errors import SourceError
from logitstore.models.grams import gram, row_normalised
from logitstore.models.registry import build
from logitstore.training.batches import Batch
from students.terms import Pass
from students.terms.iusp import iusp as stored_iusp
from students.terms.sp import sp as stored_sp
from tests.benchmarks.test_ablation import sounds  # noqa: F401 - a fixture
from tests.sonyc import make_sonyc

SIZES = iusp.Sizes(
    pool=8, test=10, views=2, steps=2, teacher_steps=2, seeds=2, folds=1, tuning_seeds=1, variant_seeds=1
)
pytestmark = pytest.mark.usefixtures("one_thread")


def here(workers: int) -> ThreadPoolExecutor:
    """In the place of processes, whose start takes seconds."""
    return ThreadPoolExecutor(1)


@pytest.fixture(scope="module")
def finished(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A whole small run on sequences, in one process."""
    out = tmp_path_factory.mktemp("iusp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenes, "KINDS", {"sequences": scenes.KINDS["sequences"]})
        patch.setattr(iusp, "_FURTHEST", 0)
        patch.setattr(iusp, "processes", here)
        data = ablation.esc10_data(sounds, out, SIZES)
        patch.setattr(iusp, "WIDTHS", (4, 2))
        iusp.Iusp(out, SIZES, data, ["many"], workers=1).run()
    return out


def test_every_table_comes_out_and_a_finished_one_is_not_run_again(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iusp, "WIDTHS", (4, 2))
    before = (finished / runs.RUNS).read_text()
    iusp.main(["--out", str(finished), "--report"])
    printed = capsys.readouterr().out
    for heading in ("## sequences, 31 frames", "ratio, base labels", "weight: micro AUPRC"):
        assert heading in printed
    for name in (*iusp.ARMS, *iusp.VARIANTS):
        assert name in printed
    lines = runs.read_lines(finished)
    settings = json.loads((finished / runs.SETTINGS).read_text())
    data = [ablation.Data(**each | {"folds": tuple(each["folds"])}) for each in settings["data"]]
    again = iusp.Iusp(finished, SIZES, data, ["many"], workers=1)
    assert not [job for seed in range(2) for job in again.jobs(seed) if job.key not in {iusp._key(e) for e in lines}]
    assert (finished / runs.RUNS).read_text() == before
    weights = {line["arm"]: dict(line["weights"]) for line in lines if line["stage"] == "run"}
    assert weights["KD + both"] == weights["KD + SP"] | weights["KD + IUSP"]
    assert weights["KD"] == weights["labels"] == {}


def test_a_tuning_goes_on_until_the_best_lies_inside() -> None:
    points = {number: -abs(number - 7) for number in range(-9, 12)}
    found: dict[int, float] = {}
    while more := iusp.to_try(found, (3, 4, 5)):
        found |= {number: points[number] for number in more}
    assert max(found, key=lambda number: found[number]) == 7
    assert sorted(found) == [3, 4, 5, 6, 7, 8]
    assert [iusp.weight(number) for number in (-2, -1, 0, 1, 2, 7)] == [0.1, 0.3, 1.0, 3.0, 10.0, 3000.0]
    endless = {}
    while more := iusp.to_try(endless, (3, 4, 5)):
        endless |= {number: float(number) for number in more}
    assert max(endless) == 5 + iusp._FURTHEST


def test_other_definitions_are_what_they_say(finished: Path) -> None:
    folder = finished / "many" / "sequences" / "fold-1"
    fold, exact = Fold(folder, MANY_FRAMES), ExactFold(folder, MANY_FRAMES)
    model = build("cnn4", len(fold.classes), width=2, **MANY_FRAMES).eval()
    maps = Unpooled(len(fold.classes), width=2, **MANY_FRAMES).eval()
    maps.load_state_dict(model.state_dict())
    model.log_mel = maps.log_mel = torch.nn.Identity()
    at = np.array([3, 0, 5, 9])
    arm = iusp.Arm()
    sound, masks = fold.sound(arm, 1)
    heard = torch.from_numpy(np.array(sound[at]))
    logits, frames = model.outputs(heard, masks[at])
    same, flat = maps.outputs(heard, masks[at])
    torch.testing.assert_close(same, logits)
    assert flat.shape == (4, 31, 16 * 2)

    def loss(variant: Variant) -> float:
        term = Compared(variant, 16)
        batch = Batch(heard, None, logits, at, **exact.relations(arm, 1, at, term.relations))
        return term(Pass(same, flat, batch)).item()

    stored = fold.store("masks").relations(1, at)
    mine = {
        "iusp": stored_iusp(frames, torch.from_numpy(stored.frames)).mean().item(),
        "sp": stored_sp(frames, torch.from_numpy(stored.clips), 31).item(),
    }
    for name, value in mine.items():
        assert loss(Variant(name)) == pytest.approx(value, rel=0.05), name
    teachers = exact.relations(arm, 1, at, ("clips", "frames"))
    given = teachers["clip_vectors"][:, :, 1].transpose(0, 1)
    own = row_normalised(flat.flatten(1) @ flat.flatten(1).T)
    wanted = (row_normalised(given).mean(0) - own).square().sum() / 16
    assert loss(iusp.VARIANTS[iusp.PUBLISHED]) == pytest.approx(wanted.item(), rel=1e-4)
    by_row = row_normalised(teachers["frame_grams"][:, :, 0].float()).mean(1)
    wanted = (by_row - row_normalised(gram(frames))).square().sum(dim=(1, 2)).mean() / 31**2
    assert loss(Variant("iusp", by_row=True)) == pytest.approx(wanted.item(), rel=1e-3)
    assert torch.allclose(teachers["frame_grams"].float().flatten(3).norm(dim=3), torch.ones(4, 2, 2), rtol=2e-3)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_sonyc_is_learnt_from_train_and_measured_on_what_was_agreed(tmp_path: Path, version) -> None:  # type: ignore
    with pytest.raises(SourceError, match=r"no annotations\.csv and no annotations-dev\.csv; give the folder"):
        iusp.sonyc_data(tmp_path, "validate", tmp_path / "out")
    make_sonyc(tmp_path, version, seconds=0.1)
    data = iusp.sonyc_data(tmp_path, "validate", tmp_path / "out")
    rows = [line.split(",") for line in Path(data.manifest).read_text().splitlines()[1:]]
    assert {fold for _, _, fold, _ in rows} == {"validate", "train", "tuning"}
    assert data.folds[0] == "validate"
    assert data.folds[-1] == "tuning"
    assert all((tmp_path / path).is_file() for path, *_ in rows)
    (tmp_path / rows[0][0]).unlink()
    with pytest.raises(SourceError, match="unpack the audio there"):
        iusp.sonyc_data(tmp_path, "validate", tmp_path / "out")


def test_sonyc_gives_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore
    make_sonyc(tmp_path, seconds=1.0)
    monkeypatch.setattr(iusp, "QUICK", SIZES)
    monkeypatch.setattr(iusp, "WIDTHS", (2,))
    monkeypatch.setattr(iusp, "processes", here)
    monkeypatch.setattr(iusp, "_FURTHEST", 0)
    iusp.main(
        ["--sonyc", str(tmp_path), "--out", str(tmp_path / "out"), "--quick", "--frames", "few", "--workers", "1"]
    )
    printed = capsys.readouterr().out
    assert "## sonyc" in printed
    assert "width 2: KD + both" in printed
