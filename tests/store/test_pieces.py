"""Several stores read as one: the same answers as from each of them, under other numbers."""

import json
import pickle
import shutil
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch

from logitstore import open_store
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.errors import MismatchError, RunError, UsageError
from logitstore.jobs.build.job import build
from logitstore.views.recipe import NONE, parse_recipe
from students.data import ReplayDataset, fresh_draws, stored_views
from students.train import StudentOptions, train_student
from tests.rendered import compared, rendered_view
from tests.small_store import Spec, make_store
from tests.stores import inside, options, write_audio

MIXED = parse_recipe({"ops": [{"op": "roll"}, {"op": "mixup", "probability": 1.0, "min_weight": 0.2}]})


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Stores of 13 and 21 clips, of 3 and 4 views, of different shard sizes; both keep their members."""
    root = tmp_path_factory.mktemp("parts")
    first = make_store(
        root / "a", Spec(clips=13, shard_clips=8, recipe=MIXED, keep_members=True), fold=pa.array(range(13))
    )
    second = make_store(
        root / "b",
        Spec(
            clips=21, shard_clips=4, view_ranges=((0, 2), (2, 4)), recipe=MIXED, keep_members=True, failed=(3,), seed=9
        ),
        source=pa.array(["b"] * 21),
    )
    return first, second


@pytest.fixture(scope="module")
def both(parts):
    return open_store([part.path for part in parts])


def test_targets_and_draws_are_those_of_the_stores(parts, both):
    first, second = parts
    assert both.views == 3
    for view in range(3):
        rows = both.clips_of(view)
        assert rows.tolist() == [c for c in range(13) if c != 10] + [13 + c for c in range(21) if c != 3]
        order = np.random.default_rng(view).permutation(np.append(rows, rows[:5]))
        classes, probabilities = both.targets(view, order)
        draws = both.draws(view, order)
        for place, clip in enumerate(order):
            made, own = (first, clip) if clip < 13 else (second, clip - 13)
            assert (classes[place] == made.classes[own, view]).all()
            assert (probabilities[place] == made.probabilities[own, view]).all()
            assert all(draws.columns[name][place] == values[own, view] for name, values in made.draws.items())
        assert len(both.draws(view)) == len(rows)
    assert both.lengths(np.array([0, 33, 10])).tolist() == [16_000, 16_000, 0]
    assert [(failure.clip, failure.path) for failure in both.failures()] == [
        (10, "folder/clip 000010.wav"), (16, "folder/clip 000003.wav"),
    ]  # fmt: skip
    assert both.clips["clip"].to_pylist() == list(range(34))
    assert both.clips["source"].to_pylist() == [None] * 13 + ["b"] * 21
    stores = [open_store(part.path) for part in parts]
    assert both.shard_starts(np.array([13 + 9])) == 13 + stores[1].shard_starts(np.array([9])) == 13 + 8
    assert both.size() == sum(store.size() for store in stores)
    assert both.view_count() == (12 + 20) * 3
    assert [piece.location for piece in both.pieces] == [str(part.path) for part in parts]


def test_blocks_are_those_of_the_stores_cut_to_the_common_views(parts, both):
    first, second = parts
    names = [commit.name for commit in both.commits]
    assert len(set(names)) == len(names) == 2 + 6 * 2
    for commit in both.commits:
        made, offset = (first, 0) if commit.first_clip < 13 else (second, 13)
        rows = slice(commit.first_clip - offset, commit.first_clip - offset + commit.clips)
        views = slice(commit.view_start, commit.view_stop)
        classes, probabilities = both.block_targets(commit)
        assert (classes == made.classes[rows, views]).all()
        assert (probabilities == made.probabilities[rows, views]).all()
        assert (both.block_draws(commit)["roll"] == made.draws["roll"][rows, views]).all()
        assert (both.block_members(commit) == made.members[:, rows, views]).all()
        entries, count = both.block_classes(commit)
        assert count == 12
        assert entries.present.sum() == 5 * made.readable[rows].sum() * commit.views


def test_sql_is_that_of_one_store(parts, both):
    stores = [open_store(part.path) for part in parts]
    for table in ("clips", "views", "topk", "members", "teachers", "failures", "blocks"):
        columns = both.sql(f"DESCRIBE {table}")["column_name"].to_pylist()
        wanted = stores[0].sql(f"DESCRIBE {table}")["column_name"].to_pylist()
        assert columns == wanted + (["source"] if table == "clips" else [])
    assert both.sql("SELECT count(*) n, count(DISTINCT clip) c, max(view) v FROM topk").to_pylist() == [
        {"n": 32 * 3 * 5, "c": 32, "v": 2}
    ]
    for table, keys in (("views", "clip, view"), ("topk", "clip, view, rank"), ("members", "clip, view, rank, member")):
        whole = both.sql(f"SELECT * FROM {table} WHERE clip >= 13 ORDER BY {keys}")
        alone = stores[1].sql(f"SELECT * REPLACE (clip + 13 AS clip) FROM {table} WHERE view < 3 ORDER BY {keys}")
        assert whole.num_rows == alone.num_rows > 0
        for name in alone.column_names:
            added = 13 if name == "mixup_partner_clip" else 0
            mine, theirs = whole[name].to_pylist(), alone[name].to_pylist()
            assert mine == [value + added if added and value is not None else value for value in theirs], name
    blocks = both.sql("SELECT * FROM blocks ORDER BY shard, view_start").to_pylist()
    assert [block["first_clip"] for block in blocks] == [0, 8, *np.repeat(13 + np.arange(0, 21, 4), 2)]
    assert [block["shard"] for block in blocks] == [0, 1, *np.repeat(np.arange(2, 8), 2)]
    assert blocks[-1]["name"] == f"{parts[1].path}/000005-2-4"
    assert sum(block["bytes"] for block in blocks) > 1000
    joined = "SELECT count(*) n FROM views JOIN clips USING (clip) WHERE source = 'b' AND view = 1"
    assert both.sql(joined).to_pylist() == [{"n": 20}]
    assert both.sql("SELECT clip, path FROM failures ORDER BY clip").num_rows == 2
    assert both.sql("SELECT count(*) n FROM teachers").to_pylist() == [{"n": 2}]


def test_a_wrong_clip_or_view_is_refused(both):
    with pytest.raises(UsageError, match=r"clip 34 is not in .* \+ .*; it has clips 0 to 33"):
        both.targets(0, [34])
    with pytest.raises(UsageError, match=r"has no view 3; it has views 0 to 2 in common"):
        both.clips_of(3)
    with pytest.raises(UsageError, match=r"of .*b, whose clip 0 is clip 13 here: clip 3 has no targets, it failed"):
        both.targets(0, [16])
    with pytest.raises(UsageError, match="are several stores, and this needs one"):
        both.storage.names()


def test_it_can_be_handed_to_another_process(both):
    again = pickle.loads(pickle.dumps(both))
    for one, other in zip(again.targets(1, [0, 33]), both.targets(1, [0, 33]), strict=True):
        assert (one == other).all()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"classes": 11}, r"classes: 12, 1 of them alone as 'class 11' and 11, 0 of them alone"),
        ({"topk": 4}, r"topk: 5 and 4"),
        ({"scores": "softmax"}, r"scores: sigmoid and softmax"),
        ({"recipe": NONE}, r"recipe: .*roll.* and .*\"none\""),
    ],
)
def test_stores_that_do_not_fit_are_refused_with_both_values(parts, tmp_path, changes, reason):
    other = make_store(tmp_path / "other", Spec(**{"clips": 9, "failed": (), "recipe": MIXED, **changes})).path
    with pytest.raises(MismatchError, match=f"cannot be read as one: {reason}"):
        open_store([parts[0].path, other])


def test_other_refusals(parts, tmp_path):
    with pytest.raises(UsageError, match="is given twice"):
        open_store([parts[0].path, parts[1].path, parts[0].path])
    with pytest.raises(UsageError, match="no store was given"):
        open_store([])
    assert len(open_store([parts[0].path]).pieces) == 1
    text = make_store(tmp_path / "text", Spec(recipe=MIXED), fold=pa.array(["one"] * 37)).path
    with pytest.raises(MismatchError, match=r"the column 'fold' of the clips is int64 in .*a and string in .*text"):
        open_store([parts[0].path, text]).sql("FROM clips")
    upper = make_store(tmp_path / "upper", Spec(recipe=MIXED), Fold=pa.array(range(37))).path
    with pytest.raises(MismatchError, match=r"a column 'fold' and those of .*upper 'Fold'"):
        _ = open_store([parts[0].path, upper]).clips


# with audio


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """Two stores with an audio root each, in which the same paths are other sounds."""
    root = tmp_path_factory.mktemp("audio")
    with inside(root):
        write_audio(root / "all", 16)
        for name, low, high in (("one", 0, 6), ("two", 6, 16)):
            for number in range(low, high):
                target = root / name / f"{number - low:02d}.wav"
                target.parent.mkdir(exist_ok=True)
                shutil.copy(root / "all" / "ab"[number % 2] / f"{number:03d}.wav", target)
            build(options(root, source=str(root / name), out=str(root / f"store {name}"), views=2, recipe=MIXED))
    return root


def test_views_are_replayed_each_from_its_own_audio(audio):
    store = open_store([audio / "store one", audio / "store two"])
    data = ReplayDataset(store, [audio / "one", audio / "two"], 1)
    assert len(data) == 16
    alone = ReplayDataset(audio / "store two", audio / "two", 1)
    for index in (0, 4, 9):
        mine, own = data[6 + index], alone[index]
        assert torch.equal(mine["waveform"], own["waveform"])
        assert torch.equal(mine["target"], own["target"])
        assert mine["clip"] == own["clip"] + 6
    assert torch.equal(pickle.loads(pickle.dumps(data))[7]["waveform"], data[7]["waveform"])
    with pytest.raises(MismatchError, match="the audio is not what the teachers of"):
        ReplayDataset([audio / "store one", audio / "store two"], audio / "two", 1)
    with pytest.raises(UsageError, match="3 audio roots for 2 stores; give one for all of them"):
        ReplayDataset(store, [audio / "one"] * 3, 1)


def test_one_audio_root_may_hold_the_clips_of_all(audio, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(audio / name, tmp_path / "root" / name)
    (tmp_path / "tones.py").write_text((audio / "tones.py").read_text())
    with inside(tmp_path):
        for name in ("one", "two"):
            asked = options(
                tmp_path, source=str(tmp_path / "root" / name), audio_root=str(tmp_path / "root"),
                out=str(tmp_path / name), views=1, recipe=MIXED,
            )  # fmt: skip
            build(asked)
    store = open_store([tmp_path / "one", tmp_path / "two"])
    clips = ClipAudio(open_audio(str(tmp_path / "root")), store.clips, 16_000)
    assert compared(store, clips, 10) == (6, [])
    waveform, _ = rendered_view(store, clips, 9, 0)
    assert waveform.abs().max() > 0
    views = stored_views(store, 0)
    assert set(views.partners[:6]) <= set(range(6))
    assert set(views.partners[6:]) <= set(range(6, 16))
    assert len(fresh_draws(store, store.clips_of(0), 0, 0)) == 16
    assert len(ReplayDataset(store, tmp_path / "root", 0)) == 16


def test_a_student_learns_from_several_stores(audio, tmp_path):
    asked = {
        "store": str(audio / "store one"),
        "also": (str(audio / "store two"),),
        "audio_root": (str(audio / "one"), str(audio / "two")),
        "student": "cnn4",
        "model_args": {"width": 2, "mels": 16, "hop_ms": 40},
        "out": str(tmp_path / "run"),
        "steps": 3,
        "batch_size": 8,
        "device": "cpu",
        "workers": 1,
    }
    trained = train_student(StudentOptions(**asked))
    assert trained.result
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert '"clips": 16' in json.dumps(run)
    with pytest.raises(RunError, match="--eval is given with several audio roots"):
        train_student(StudentOptions(**asked, eval_manifest="labels.csv", label_column="label"))
    with pytest.raises(MismatchError, match=r"4 of 10 files .* are not under the audio root: 06.wav"):
        train_student(StudentOptions(**asked | {"audio_root": (str(audio / "two"), str(audio / "one"))}))


def test_inspect_takes_several_stores(parts, capsys):
    from logitstore.cli.command import run
    from logitstore.cli.main import cli

    def inspect(*arguments):
        sys.argv = ["logitstore", "inspect", *map(str, arguments)]
        with pytest.raises(SystemExit, match=r"\d") as left:
            run(cli)
        said = capsys.readouterr()
        return int(left.value.code), said.out, said.err

    first, second = (part.path for part in parts)
    code, out, err = inspect(first, "--also", second)
    assert code == 0, err
    assert f"store      {first} + {second}, format 3" in out
    assert "34 of 2 s at 16,000 Hz, 2 failed" in out
    assert "14 in 8 of 8 shards, finished" in out
    code, out, _ = inspect(first, "--also", second, "SELECT count(*) AS n FROM clips", "--format", "csv")
    assert (code, out.split()) == (0, ["n", "34"])
    code, out, _ = inspect(first, "--also", second, "--format", "json")
    assert json.loads(out)["views_stored"] == 96
    code, _, err = inspect(first, "--also", second, "SELECT 1", "--out", second / "x.csv")
    assert code == 2
    assert "lies in the store" in err
