"""The ablation: its cached path is the product's, its intervals are right, and every table comes out."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy import stats

from benchmarks import ablation, runs, scenes
from benchmarks.arms import ARMS, EXPERIMENTS, REFERENCE, Arm
from benchmarks.cached import batches, official, score, train
from benchmarks.folds import FRONT_END, MODEL, RATE, Data, Fold, coded, prepare
from benchmarks.intervals import paired, t_interval
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sonyc import COARSE, COARSE_OF, TAGS
from logitstore.audio.sources import open_audio
from logitstore.errors import LogitstoreError, RunError
from logitstore.evaluation.sonyc import Truth, evaluate, predictions_of
from logitstore.models import losses
from logitstore.models.registry import build, initialised
from logitstore.training.batches import Replayer
from logitstore.training.sampling import order_generator, plan
from students.data import fresh_draws, stored_views

FOLDS, CLASSES, SECONDS = 3, 5, 1.0
SIZES = ablation.Sizes(pool=8, test=10, views=3, steps=3, teacher_steps=3, seeds=2, folds=1)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like ESC-10's: tones of five classes in three folds."""
    root = tmp_path_factory.mktemp("esc")
    rows = []
    for fold in range(1, FOLDS + 1):
        for label in range(CLASSES):
            for number in range(2):
                path = f"c{label}/{fold}-{number}.wav"
                (root / "audio" / path).parent.mkdir(parents=True, exist_ok=True)
                time = np.arange(int(RATE * 1.5)) / RATE
                random = np.random.default_rng([fold, label, number])
                wave = 0.3 * np.sin(2 * np.pi * (300 * 1.7**label) * time) + 0.01 * random.standard_normal(len(time))
                soundfile.write(root / "audio" / path, wave, RATE)
                rows.append([path, f"class {label}", fold])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "fold"], *rows])
    return root


@pytest.fixture(scope="module")
def prepared(sounds: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Data, Fold]:
    """One held-out fold of sequences."""
    out = tmp_path_factory.mktemp("prepared")
    data = ablation.esc10_data(sounds, out, SIZES)[1]
    folder = out / "fold"
    folder.mkdir()
    prepare(data, "1", folder, views=SIZES.views, steps=SIZES.steps, teacher_steps=3)
    return data, Fold(folder)


@pytest.mark.parametrize("name", [REFERENCE, "inconsistent", "stored mixup", "strong masks, consistent"])
def test_a_cached_batch_gives_what_the_replaying_reader_gives(prepared: tuple[Data, Fold], name: str) -> None:
    data, fold = prepared
    arm, epoch = ARMS[name], 1
    store = fold.store(arm.store)
    audio = ClipAudio(open_audio(data.audio_root), store.clips, RATE)
    manifest = store.manifest
    replayer = Replayer(audio, str, manifest.recipe, manifest.clip_samples, manifest.sample_rate)
    views = stored_views(store, epoch, fresh=(0, epoch) if arm.sound == "fresh" else None)
    model = initialised(lambda: build(MODEL, len(fold.classes), width=4, **FRONT_END), 0).eval()
    deaf = initialised(lambda: build(MODEL, len(fold.classes), width=4, **FRONT_END), 0).eval()
    deaf.log_mel = torch.nn.Identity()
    steps = -(-len(fold.clips) // 32)
    cached = list(batches(fold, arm, fold.clips, seed=7, steps=2 * steps))[steps:]  # those of epoch 1
    order = plan(len(fold.clips), 32, order_generator(7, epoch))
    assert len(order) == len(cached)
    for positions, batch in zip(order, cached, strict=True):
        wanted = replayer.batch(views, positions)
        assert np.array_equal(wanted.clips, batch.clips)
        assert torch.equal(wanted.targets, batch.targets)
        heard, said = model(wanted.waveforms, wanted.masks), deaf(batch.waveforms, batch.masks)
        torch.testing.assert_close(said, heard, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(losses.bce(said, batch.targets), losses.bce(heard, wanted.targets))


def test_an_arm_without_roll_hears_the_clip_as_it_is_under_fresh_masks(prepared: tuple[Data, Fold]) -> None:
    _, fold = prepared
    sound, spans = fold.sound(ARMS["inconsistent, no roll"], 1)
    drawn = fresh_draws(fold.store("masks"), fold.clips, 0, 1)
    assert np.array_equal(sound, fold.array("still"))
    assert np.array_equal(spans.time_start.numpy(), drawn.columns["time_start"] / 100)
    assert not np.array_equal(fold.array("stored")[1], fold.array("still"))


def test_exact_targets_are_what_the_store_coded(prepared: tuple[Data, Fold]) -> None:
    _, fold = prepared
    exact = fold.targets(ARMS["exact targets"], 2)
    stored = fold.targets(ARMS[REFERENCE], 2)
    assert np.abs(coded(np.array(exact), len(fold.classes), 8) - stored).max() < 0.013  # a step, where rounding differs
    assert not np.array_equal(exact, stored)
    few = fold.targets(ARMS["K = 3"], 2)
    assert (np.count_nonzero(few, axis=1) == 3).all()
    assert np.abs(fold.targets(ARMS["float16"], 2) - exact).max() < 1e-3


def test_fresh_sounds_are_never_used_twice(prepared: tuple[Data, Fold]) -> None:
    _, fold = prepared
    with pytest.raises(RunError, match="never used twice"):
        fold.sound(Arm(sound="fresh"), len(fold.array("fresh")))


def test_arms_share_initialisation_order_and_steps(prepared: tuple[Data, Fold]) -> None:
    _, fold = prepared
    one, again, other = ([], [], [])
    train(fold, ARMS[REFERENCE], 4, 0, 3, losses=one)
    train(fold, ARMS[REFERENCE], 4, 0, 3, losses=again)
    train(fold, ARMS["exact targets"], 4, 0, 3, losses=other)
    assert one == again
    assert one != other
    assert np.allclose(one, other, atol=0.02)


def test_the_terms_of_an_arm_count(prepared: tuple[Data, Fold]) -> None:
    _, fold = prepared
    found = {}
    terms = {"iusp": 2.0, "sp": 3.0}
    for name, asked in (("none", {}), ("iusp", {"iusp": 2.0}), ("sp", {"sp": 3.0}), ("both", terms)):
        kept: list[float] = []
        train(fold, Arm(terms=tuple(asked.items())), 4, 0, 1, losses=kept)
        found[name] = kept[0]
    assert found["iusp"] > found["none"]
    assert found["sp"] > found["none"]
    extra = (found["iusp"] - found["none"]) + (found["sp"] - found["none"])
    assert found["both"] - found["none"] == pytest.approx(extra, rel=1e-3)


def test_intervals_are_students() -> None:
    random = np.random.default_rng(0)
    one, other = random.standard_normal(15) + 1, random.standard_normal(15)
    arm, against = ({("1", seed): value for seed, value in enumerate(values)} for values in (one, other))
    interval = t_interval(paired(arm, against))
    low, high = stats.ttest_rel(one, other).confidence_interval(0.95)
    assert (interval.low, interval.high, interval.count) == pytest.approx((low, high, 15))
    assert not interval.inside(0.5)
    assert t_interval([0.1, -0.1, 0.2, 0.0]).inside(0.5)
    assert math.isnan(t_interval([1.0]).half)
    assert not t_interval([1.0]).inside(5.0)
    with pytest.raises(ValueError, match="no values"):
        t_interval([])


def test_the_official_area_is_that_of_coarse_classes() -> None:
    random = np.random.default_rng(0)
    true, scores = random.random((40, len(COARSE))) < 0.3, random.random((40, len(COARSE))).astype(np.float32)
    files = [str(each) for each in range(40)]
    tags = np.zeros((40, len(TAGS)), dtype=np.bool_)
    tags[:, [COARSE_OF.tolist().index(each) for each in range(len(COARSE))]] = true
    found = evaluate(
        "s", Truth(tuple(files), tags, "validate"), predictions_of(files, COARSE, scores.astype(np.float64))
    )
    assert official(true, scores) == pytest.approx(found.levels[0].micro.auprc, abs=1e-12)


@pytest.mark.parametrize("kind", ["scenes", "sequences"])
def test_a_scene_depends_on_its_number_alone(sounds: Path, tmp_path: Path, kind: str) -> None:
    few = scenes.write(kind, sounds, tmp_path / "few", {"1": 2, "2": 1})
    more = scenes.write(kind, sounds, tmp_path / "more", {"2": 3, "1": 4})
    for name in ("1/0001.flac", "2/0000.flac"):
        assert (few.parent / "audio" / name).read_bytes() == (more.parent / "audio" / name).read_bytes()
    wave, rate = soundfile.read(few.parent / "audio" / "1/0000.flac")
    assert (len(wave), rate) == (scenes.SAMPLES, scenes.RATE)
    rows = list(csv.DictReader(more.open()))
    assert [row["fold"] for row in rows] == ["2", "2", "2", "1", "1", "1", "1"]
    counts = [len(row["label"].split(";")) for row in rows]
    assert min(counts) >= (2 if kind == "scenes" else 1)
    assert max(counts) <= (3 if kind == "scenes" else 4)


def result(line: dict[str, object]) -> str:
    return json.dumps({name: value for name, value in line.items() if name != "seconds"})


def test_every_table_comes_out_and_a_finished_ablation_is_not_run_again(
    sounds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "QUICK", SIZES)
    monkeypatch.setattr(scenes, "KINDS", {"sequences": scenes.KINDS["sequences"]})
    given = ["--esc10", str(sounds), "--out", str(tmp_path), "--quick", "--workers", "2"]
    ablation.main([*given, "--prepare"])
    assert capsys.readouterr().out == ""
    assert {line["stage"] for line in runs.read_lines(tmp_path)} == {"prepare"}
    ablation.main(given)
    printed = capsys.readouterr().out
    for experiment in EXPERIMENTS:
        assert f"### {experiment.number}. " in printed
    shown = [arm for arm in ARMS if ARMS[arm].views is None or ARMS[arm].views < SIZES.views]
    for arm in shown:
        assert arm in printed, arm
    assert "Students of the store (8 bits, default K) less students of exact float32 targets" in printed
    lines = runs.read_lines(tmp_path)
    assert len({json.dumps(line) for line in lines}) == len(lines)
    content = (tmp_path / runs.RUNS).read_text()
    ablation.main(given)
    assert (tmp_path / runs.RUNS).read_text() == content
    again = capsys.readouterr().out
    assert again == printed
    ablation.main(["--out", str(tmp_path), "--report"])
    assert capsys.readouterr().out == printed
    (tmp_path / runs.RUNS).write_text("".join(content.splitlines(keepends=True)[:-3]) + '{"stage": "ru')
    assert len(runs.read_lines(tmp_path)) == len(lines) - 3
    ablation.main([*given[:-1], "1"])  # it goes on
    capsys.readouterr()
    assert sorted(map(result, runs.read_lines(tmp_path))) == sorted(map(result, lines))
    with pytest.raises(SystemExit):
        ablation.main([*given, "--steps", "4"])
    assert "of other sizes" in capsys.readouterr().err


def test_any_manifest_will_do(sounds: Path, tmp_path: Path) -> None:
    manifest = str(sounds / "labels.csv")
    data = ablation.own_data(manifest, str(sounds / "audio"), "label", "fold", SECONDS, tmp_path)
    assert (data.folds, data.pool) == (("1", "2", "3"), None)
    hashed = ablation.own_data(manifest, str(sounds / "audio"), "label", None, SECONDS, tmp_path)
    assert set(hashed.folds) <= {"1", "2", "3", "4", "5"}
    with pytest.raises(LogitstoreError, match="no column 'sort'"):
        ablation.own_data(manifest, str(sounds / "audio"), "label", "sort", SECONDS, tmp_path)
    with pytest.raises(RunError, match="give --folds 2 or fewer"):
        ablation.Ablation(tmp_path, ablation.Sizes(folds=3), [data], 1)


def test_a_score_is_of_the_rows(prepared: tuple[Data, Fold]) -> None:
    _, fold = prepared
    model = train(fold, ARMS[REFERENCE], 2, 0, 1)
    found = score(model, fold.array("test"), fold.test_labels, fold.test_row_of)
    assert set(found) == {"mAP", "micro", "official"}
    assert all(0 < value <= 100 for value in found.values())


def test_the_plan_counts_each_run_once() -> None:
    text = ablation.plan(ablation.Sizes(), ["scenes"])
    runs = sum(int(line.split(" runs more")[0].rsplit(", ", 1)[1]) for line in text.splitlines() if "runs more" in line)
    distinct = {(width, arm) for each in EXPERIMENTS for width, arm, _ in each.cells(8)}
    assert runs == 15 * len(distinct)
