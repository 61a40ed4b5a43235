"""``logitstore import ced``: the sample of the original, rows in any order, what is reported, and every mistake."""

from __future__ import annotations

import csv
import itertools
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.cli.import_ import import_group
from logitstore.errors import LogitstoreError, MismatchError, MissingExtraError, SourceError, UsageError
from logitstore.jobs.imports.ced import CedImport, _Gathered, import_ced
from logitstore.jobs.imports.ced_seeds import ced_draws
from logitstore.jobs.imports.shared import ImportSummary
from logitstore.jobs.verify.job import VerifyOptions, verify
from logitstore.store.reader import Store, open_store
from logitstore.views.mel import FrontEnd, band_mask, time_mask
from logitstore.views.recipe import CED, masks
from students.data import ReplayDataset
from tests.ced_folder import CLASSES, RATE, K, Row, make_rows, write_ced, write_classes, write_rank, write_wav
from tests.rendered import compared
from tests.stores import contents
from tests.test_docs import shell

SECONDS = 2.5


def wavs(root: Path, count: int = 7, samples: int = int(SECONDS * RATE)) -> list[tuple[str, float, float]]:
    """Clips of one length in two folders, and their names, starts and ends."""
    names = [f"Y{number:02d}.wav" for number in range(count)]
    for number, name in enumerate(names):
        write_wav(root / "audio" / "ab"[number % 2] / name, samples, seed=number)
    return [(name, 0.0, samples / RATE) for name in names]


def run(root: Path, **changes: Any) -> ImportSummary:
    if "classes" not in changes:
        write_classes(root / "classes.txt")
    values: dict[str, Any] = {
        "folder": str(root / "logits"),
        "audio_root": str(root / "audio"),
        "classes": str(root / "classes.txt"),
        "out": str(root / "store"),
        "value_bits": 16,
        "shard_clips": 4,
    }
    return import_ced(CedImport(**(values | changes)))


def by_clip(store: Store, view: int) -> dict[tuple[str, float], tuple[list[tuple[int, float]], dict[str, int]]]:
    """Targets, as pairs, and draws of every clip that has them, by file name and start in seconds."""
    rows = store.clips_of(view)
    classes, values = store.targets(view, rows)
    drawn = store.draws(view, rows).columns
    paths, starts, rates = (store.clips[name].to_pylist() for name in ("path", "start", "rate"))
    return {
        (Path(paths[row]).name, starts[row] / rates[row]): (
            list(zip(classes[i].tolist(), values[i].tolist(), strict=True)),
            {name: int(column[i]) for name, column in drawn.items()},
        )
        for i, row in enumerate(rows.tolist())
    }


def said(row: Row) -> list[tuple[int, float]]:
    """What a row says, in a store's order."""
    pairs = zip(row.classes.tolist(), row.values.astype(np.float32).tolist(), strict=True)
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


# the sample of the original


@pytest.fixture(scope="module")
def sample(ced_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[dict[str, str]]]:
    """The store of CED's output, its audio (noise of the same lengths), and the log of its run."""
    root = tmp_path_factory.mktemp("sample")
    with (ced_sample / "expected_draws.csv").open() as file:
        logged = list(csv.DictReader(file))
    clips = len(logged) // 2
    for number, row in enumerate(logged[:clips]):
        write_wav(root / "audio" / row["filename"], int(row["num_samples"]), seed=number)
    summary = run(
        root,
        folder=str(ced_sample),
        classes=str(write_classes(root / "classes.txt", 527)),
        shard_clips=40,
    )
    assert (summary.clips, summary.views, summary.stored_views) == (clips, 2, 2 * clips)
    assert not summary.failures
    assert not summary.notes
    return root / "store", root / "audio", logged


def test_all_rows_of_the_sample(sample: tuple[Path, Path, list[dict[str, str]]], ced_sample: Path) -> None:
    location, _, logged = sample
    store = open_store(location)
    found = [by_clip(store, view) for view in range(2)]
    matched = 0
    for row in logged:
        view = int(row["epoch"]) - 1
        pairs, drawn = found[view][row["filename"], 0.0]
        assert drawn["roll"] == int(row["roll_samples"])
        assert drawn["time_start"] == int(row["time_mask_start_frame"])
        assert drawn["time_start"] + drawn["time_length"] == int(row["time_mask_end_frame"])
        assert drawn["freq_low"] == int(row["freq_mask_start_band"])
        assert drawn["freq_low"] + drawn["freq_steps"] == int(row["freq_mask_end_band"])
        with h5py.File(ced_sample / f"logits_ep{view + 1}_0.h5") as file:
            at = int(row["row"])
            assert file["seeds"][at] == int(row["seed"])
            stored = Row("", 0, 0, file["topk_indexes"][at], file["topk_values"][at], 0)
        assert pairs == said(stored)
        matched += 1
    assert matched == len(logged) > 0


def test_masks_are_ceds_frames_and_bands(sample: tuple[Path, Path, list[dict[str, str]]]) -> None:
    location, _, logged = sample
    store = open_store(location)
    names = store.clips["path"].to_pylist()
    spans = masks(store.manifest.recipe, store.draws(0))
    assert spans is not None
    hidden_frames = time_mask(FrontEnd(), spans.to("cpu"), 501).numpy()
    hidden_bands = band_mask(FrontEnd(), spans.to("cpu")).numpy()
    expected = {row["filename"]: row for row in logged if row["epoch"] == "1"}
    for clip, name in enumerate(names):
        row = expected[name]
        frames = range(int(row["time_mask_start_frame"]), int(row["time_mask_end_frame"]))
        bands = range(int(row["freq_mask_start_band"]), int(row["freq_mask_end_band"]))
        assert np.flatnonzero(hidden_frames[clip]).tolist() == list(frames)
        assert np.flatnonzero(hidden_bands[clip]).tolist() == list(bands)


def test_a_student_hears_the_views_of_the_sample(sample: tuple[Path, Path, list[dict[str, str]]]) -> None:
    location, audio, logged = sample
    store = open_store(location)
    assert store.manifest.clip_seconds == 5.001
    views = ReplayDataset(store, audio, 1)
    rolled = int(np.flatnonzero(store.draws(1).columns["roll"])[0])
    clip = ClipAudio(open_audio(str(audio)), store.clips, RATE)[rolled]
    expected = np.roll(clip, store.draws(1).columns["roll"][rolled])
    assert np.array_equal(views[rolled]["waveform"].numpy(), expected)
    count, problems = compared(store, ClipAudio(open_audio(str(audio)), store.clips, RATE), 100)
    assert (count, problems) == (-(-len(logged) // 2 // 40), [])  # one in a block


# rows, ranks and chunks


def test_rows_in_any_order_and_from_several_ranks(tmp_path: Path) -> None:
    epochs = make_rows(wavs(tmp_path), epochs=3)
    write_ced(tmp_path / "logits", epochs)
    run(tmp_path)
    rng = np.random.default_rng(1)
    write_ced(tmp_path / "shuffled", [[rows[i] for i in rng.permutation(len(rows))] for rows in epochs], ranks=3)
    (tmp_path / "shuffled" / "meta.pt").write_bytes(b"a pickle that nobody opens")
    run(tmp_path, folder=str(tmp_path / "shuffled"), out=str(tmp_path / "other"))
    store = open_store(tmp_path / "store")
    for view, rows in enumerate(epochs):
        assert {row.clip: said(row) for row in rows} == {clip: s for clip, (s, _) in by_clip(store, view).items()}
    first, second = contents(tmp_path / "store"), contents(tmp_path / "other")
    assert first.keys() == second.keys()
    same = [name for name in first if name.startswith(("blocks/", "clips/"))]
    assert [name for name in same if first[name] != second[name]] == []


def test_long_files_become_chunks(tmp_path: Path) -> None:
    write_wav(tmp_path / "audio/long.wav", int(2.75 * 5 * RATE) + 7)
    end = float(np.float32((int(2.75 * 5 * RATE) + 7) / RATE))
    clips = [("long.wav", 2.5 * i, min(2.5 * (i + 1), end)) for i in range(6)]
    epochs = make_rows(clips)
    write_ced(tmp_path / "logits", epochs)
    assert not run(tmp_path, chunk_seconds=2.5).failures
    store = open_store(tmp_path / "store")
    assert store.clips["start"].to_pylist() == [40_000 * i for i in range(6)]
    assert store.clips["length"].to_pylist() == [40_000] * 5 + [20_007]
    frames = 1 + 40_000 // 160
    for row in epochs[1]:
        expected = ced_draws(CED, np.array([row.seed]), np.array([40_000 if row.start < 12 else 20_007]), frames)
        drawn = by_clip(store, 1)[row.clip][1]
        assert drawn == {name: int(values[0]) for name, values in expected.columns(CED).items()}


def test_frames_and_shorter_clips(tmp_path: Path) -> None:
    clips = wavs(tmp_path, 5)
    write_wav(tmp_path / "audio/short.wav", 36_000)
    epochs = make_rows([*clips, ("short.wav", 0.0, 36_000 / RATE)])
    write_ced(tmp_path / "logits", epochs)
    summary = run(tmp_path)
    assert len(summary.notes) == 1
    assert "2 rows are of 1 clips shorter than 251 frames" in summary.notes[0]
    run(tmp_path, out=str(tmp_path / "other"), frames=226)
    short = epochs[0][-1]
    for out, frames in (("store", 251), ("other", 226)):
        expected = ced_draws(CED, np.array([short.seed]), np.array([36_000]), frames).columns(CED)
        drawn = by_clip(open_store(tmp_path / out), 0)[short.clip][1]
        assert drawn == {name: int(values[0]) for name, values in expected.items()}
    for frames in (191, 252):
        with pytest.raises(UsageError, match=rf"--frames is {frames}; allowed are 192 .* to 251"):
            run(tmp_path, out=str(tmp_path / "third"), frames=frames)


def test_masks_end_within_the_view(tmp_path: Path) -> None:
    """CED's front end has one frame more than the view has ticks; its masks never reach that one."""
    clips = wavs(tmp_path, 1)
    seeds = np.arange(300_000)
    drawn = ced_draws(CED, seeds, np.full(len(seeds), 40_000), 251)
    ends = drawn.time_start + drawn.time_length
    assert ends.max() == 250
    epochs = [[replace(make_rows(clips, 1)[0][0], seed=int(seeds[ends.argmax()]))]]
    write_ced(tmp_path / "logits", epochs)
    run(tmp_path)
    store = open_store(tmp_path / "store")
    spans = masks(store.manifest.recipe, store.draws(0))
    assert spans is not None
    assert spans.time_end[0] == 2.5 == store.manifest.clip_seconds
    assert np.flatnonzero(time_mask(FrontEnd(), spans.to("cpu"), 251)[0])[-1] == 249
    assert verify(VerifyOptions(store=str(tmp_path / "store"))).problems == ()


def test_another_recipe(tmp_path: Path) -> None:
    epochs = make_rows(wavs(tmp_path))
    write_ced(tmp_path / "logits", epochs)
    (tmp_path / "mine.yaml").write_text(
        "- {op: roll, max_fraction: 0.25, probability: 1.0}\n- {op: time_mask, max_seconds: 0.5}\n"
    )
    run(tmp_path, recipe=str(tmp_path / "mine.yaml"))
    store = open_store(tmp_path / "store")
    assert store.manifest.recipe.columns == ("roll", "time_start", "time_length")
    drawn = by_clip(store, 0)
    length = 40_000
    for _, draws in drawn.values():
        assert 0 < min(draws["roll"], length - draws["roll"]) <= length // 4
        assert draws["time_length"] < 50
    run(tmp_path, recipe="none", out=str(tmp_path / "plain"))
    assert open_store(tmp_path / "plain").manifest.columns == ()


# what is reported


def test_what_the_audio_root_lacks_is_not_shifted(tmp_path: Path) -> None:
    clips = wavs(tmp_path)
    epochs = make_rows(clips)
    write_ced(tmp_path / "logits", [epochs[0], epochs[1][:-1]])  # the last clip, Y06, is in one epoch only
    (tmp_path / "audio/b/Y01.wav").unlink()
    write_wav(tmp_path / "audio/a/Y02.wav", 40_001)
    write_wav(tmp_path / "audio/b/Y03.wav", 39_999)
    (tmp_path / "audio/a/Y04.wav").write_bytes(b"no audio")
    summary = run(tmp_path)
    assert {failure.path: failure.reason for failure in summary.failures} == {
        "Y01.wav": "missing: the audio root has no file of this name",
        "a/Y02.wav": "other length: CED's chunk ends at 2.5 s, the file at 2.50006 s (40001 frames at 16000 Hz)",
        "b/Y03.wav": "other length: CED's chunk ends at 2.5 s, the file at 2.49994 s (39999 frames at 16000 Hz)",
        "a/Y04.wav": "unreadable: the header of the file cannot be read",
        "a/Y06.wav": "incomplete: only 1 of 2 epochs have this clip",
    }
    store = open_store(tmp_path / "store")
    for view in range(2):
        assert {clip: s for clip, (s, _) in by_clip(store, view).items()} == {
            row.clip: said(row) for row in epochs[view] if row.name in ("Y00.wav", "Y05.wav")
        }
    with pytest.raises(SourceError, match=r"5 of 7 clips cannot be imported, as Y01.wav: missing"):
        run(tmp_path, out=str(tmp_path / "other"), strict=True)
    assert not (tmp_path / "other").exists()


def test_a_file_at_another_rate_may_be_a_sample_off(tmp_path: Path) -> None:
    clips = wavs(tmp_path, 2)
    write_wav(tmp_path / "audio/c.wav", 79_997, rate=32_000)  # 39,998.5 samples: CED's resampler made 39,998
    write_wav(tmp_path / "audio/d.wav", 79_990, rate=32_000)  # 39,995 samples
    epochs = make_rows([*clips, ("c.wav", 0.0, 39_998 / RATE), ("d.wav", 0.0, 39_998 / RATE)])
    write_ced(tmp_path / "logits", epochs)
    summary = run(tmp_path)
    assert [failure.path for failure in summary.failures] == ["d.wav"]
    assert any("1 clips are one sample longer or shorter" in note for note in summary.notes)
    seed = epochs[0][2].seed
    expected = ced_draws(CED, np.array([seed]), np.array([39_998]), 251).columns(CED)
    assert by_clip(open_store(tmp_path / "store"), 0)["c.wav", 0.0][1]["roll"] == expected["roll"][0]


def test_ambiguous_names(tmp_path: Path) -> None:
    epochs = make_rows(wavs(tmp_path))
    write_ced(tmp_path / "logits", epochs)
    write_wav(tmp_path / "audio/c/Y03.wav", 40_000)
    with pytest.raises(SourceError, match=r"Y03.wav is ambiguous .*: it may be b/Y03.wav or c/Y03.wav"):
        run(tmp_path)


def test_nothing_found(tmp_path: Path) -> None:
    write_ced(tmp_path / "logits", make_rows([("other.wav", 0.0, 2.5)]))
    wavs(tmp_path)
    with pytest.raises(SourceError, match=r"none of the clips can be imported, as other.wav: missing"):
        run(tmp_path)


def test_an_interrupted_import_goes_on(tmp_path: Path) -> None:
    write_ced(tmp_path / "logits", make_rows(wavs(tmp_path, 10)))
    run(tmp_path)
    calls = itertools.count()

    def interrupt(_: int) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt

    options = CedImport(
        folder=str(tmp_path / "logits"), audio_root=str(tmp_path / "audio"), classes=str(tmp_path / "classes.txt"),
        out=str(tmp_path / "other"), value_bits=16, shard_clips=4,
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        import_ced(options, interrupt)
    assert len(open_store(tmp_path / "other").commits) == 2
    import_ced(options)
    assert contents(tmp_path / "other") == contents(tmp_path / "store")
    with pytest.raises(MismatchError, match="recipe"):
        import_ced(replace(options, recipe="none"))


def test_an_imported_store_is_a_store(tmp_path: Path) -> None:
    write_ced(tmp_path / "logits", make_rows(wavs(tmp_path)))
    run(tmp_path, value_bits=8, keep_seeds=True)
    store = open_store(tmp_path / "store")
    manifest = store.manifest
    assert [(member.name, member.weight) for member in manifest.teachers] == [("import:ced", 1.0)]
    assert (manifest.device_kind, manifest.precision, manifest.scores) == ("imported", "imported", "sigmoid")
    counted = store.sql("SELECT count(*) n, count(DISTINCT class) c FROM topk").to_pylist()[0]
    assert (counted["n"], counted["c"] <= CLASSES) == (7 * 2 * K, True)
    assert store.sql("SELECT ced_seeds[2] s FROM clips WHERE path = 'a/Y00.wav'").num_rows == 1
    digests = {member.digest for member in manifest.teachers}
    write_ced(tmp_path / "logits", make_rows([(f"Y{i:02d}.wav", 0.0, 2.5) for i in range(7)], seed=6))
    run(tmp_path, out=str(tmp_path / "other"))
    assert digests != {member.digest for member in open_store(tmp_path / "other").manifest.teachers}


# mistakes


Break = Callable[[Path, list[list[Row]]], None]


def _row(**changes: Any) -> Break:
    def change(folder: Path, epochs: list[list[Row]]) -> None:
        epochs[1][3] = replace(epochs[1][3], **changes)
        write_ced(folder, epochs)

    return change


def _lost(name: str) -> Break:
    return lambda folder, _: (folder / name).unlink()


def _written(name: str, content: bytes) -> Break:
    def write(folder: Path, _epochs: list[list[Row]]) -> None:
        (folder / name).write_bytes(content)

    return write


def _twice(folder: Path, epochs: list[list[Row]]) -> None:
    write_ced(folder, [epochs[0], [*epochs[1], epochs[1][2]]])


def _cut_short(folder: Path, epochs: list[list[Row]]) -> None:
    table = pq.read_table(folder / "logits_ep2_0.parquet")
    pq.write_table(table.slice(0, 4), folder / "logits_ep2_0.parquet")


def _other_columns(folder: Path, epochs: list[list[Row]]) -> None:
    pq.write_table(pa.table({"name": ["a"] * 7}), folder / "logits_ep1_0.parquet")


def _other_arrays(folder: Path, epochs: list[list[Row]]) -> None:
    with h5py.File(folder / "logits_ep2_0.h5", "a") as file:
        del file["seeds"]


def _other_k(folder: Path, epochs: list[list[Row]]) -> None:
    short = [replace(row, classes=row.classes[:3], values=row.values[:3]) for row in epochs[1]]
    write_rank(folder / "logits_ep2_0", short)


MISTAKES: dict[str, tuple[Break, str]] = {
    "not a number": (_row(values=np.array([0.9, 0.8, np.nan, 0.1, 0.1], np.float16)), "ep2_0.h5: row 3 holds nan"),
    "too high": (_row(values=np.array([2.0, 0.8, 0.1, 0.1, 0.1], np.float16)), "row 3 holds 2.0; allowed are prob"),
    "no such class": (_row(classes=np.array([1, 2, 3, 4, 30], np.int16)), "row 3 holds 30; .* classes from 0 to 29"),
    "class twice": (_row(classes=np.array([1, 2, 3, 3, 4], np.int16)), "row 3 names a class twice"),
    "negative seed": (_row(seed=-1), "row 3 holds -1; allowed are seeds"),
    "starts between chunks": (_row(start=1.0), "Y03.wav starts at 1 s, which is no multiple of 10 s"),
    "too long a chunk": (_row(end=11.0), "Y03.wav is from 0 to 11 s, and chunks are of at most 10 s"),
    "other end": (_row(end=2.0), "Y03.wav at 0 s ends at 2 s in epoch 2 and at 2.5 s before"),
    "row twice": (_twice, "Y02.wav at 0 s is twice in epoch 2"),
    "no table": (_lost("logits_ep2_0.parquet"), "logits_ep2_0.parquet is missing"),
    "no arrays": (_lost("logits_ep1_0.h5"), "logits_ep1_0.h5 is missing"),
    "damaged table": (_written("logits_ep1_0.parquet", b"PAR1 no more"), "ep1_0.parquet is not readable as Parquet"),
    "damaged arrays": (_written("logits_ep2_0.h5", b"no"), "ep2_0.h5 is not readable as HDF5 .*--epochs"),
    "cut short": (_cut_short, "do not fit: 4 names, topk_values 7x5.*--epochs"),
    "other columns": (_other_columns, "has no column 'filename'"),
    "other arrays": (_other_arrays, "no data set 'seeds' of the kind"),
    "another k": (_other_k, "has 3 classes a row and .* has 5"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_damaged_files(tmp_path: Path, mistake: str) -> None:
    epochs = make_rows(wavs(tmp_path))
    write_ced(tmp_path / "logits", epochs)
    spoil, message = MISTAKES[mistake]
    spoil(tmp_path / "logits", epochs)
    with pytest.raises(SourceError, match=message) as found:
        run(tmp_path)
    assert "\n" not in str(found.value)
    assert found.value.exit_code == 2
    assert not (tmp_path / "store").exists()


def test_the_first_epochs_alone(tmp_path: Path) -> None:
    epochs = make_rows(wavs(tmp_path), epochs=3)
    write_ced(tmp_path / "logits", epochs)
    (tmp_path / "logits/logits_ep3_0.parquet").unlink()
    (tmp_path / "logits/logits_ep3_0.h5").write_bytes(b"cut short")
    assert run(tmp_path, epochs=2).views == 2
    with pytest.raises(SourceError, match="holds epochs up to 3, --epochs is 4"):
        run(tmp_path, epochs=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "nowhere"}, "nowhere is not a folder"),
        ({"folder": "."}, "holds no logits_ep1_0.h5"),
        ({"audio_root": "nowhere"}, "no such file or folder"),
        ({"classes": "nowhere"}, "cannot be read"),
        ({"recipe": "nowhere"}, "no recipe 'nowhere'"),
        ({"value_bits": 9}, "9 bits a value cannot be stored"),
        ({"chunk_seconds": 0.0}, "--chunk-seconds is 0; it must be at least 0.1"),
        ({"epochs": 0}, "--epochs is 0; it must be at least 1"),
        ({"shard_clips": 0}, "--shard-clips is 0"),
    ],
)
def test_options_that_cannot_be_right(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_ced(tmp_path / "logits", make_rows(wavs(tmp_path)))
    with pytest.raises(LogitstoreError, match=message) as found:
        run(tmp_path, **{name: str(tmp_path) if value == "." else value for name, value in changes.items()})
    assert found.value.exit_code == 2


def test_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ced(tmp_path / "logits", make_rows(wavs(tmp_path)))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'logitstore[ced]'")):
        run(tmp_path)


def test_the_command(tmp_path: Path) -> None:
    """As a user types it, and one line for a mistake."""
    write_ced(tmp_path / "logits/chunk_10", make_rows(wavs(tmp_path)))
    write_classes(tmp_path / "classes.txt")
    command = "logitstore import ced logits/chunk_10 --audio-root audio --classes classes.txt --out store"
    done = shell(f"{command} -q", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^clips      7 x 2 views, in 1 blocks$", done.stdout, re.MULTILINE)
    refused = shell(command.replace("chunk_10", "chunk_5"), tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert re.fullmatch(r"Error: logits/chunk_5 is not a folder; .*\n", refused.stderr)
    assert sorted(import_group.commands) == ["ced", "npy"]


def test_a_list_whose_last_classes_never_occur_is_doubted():
    """As one would with a header for its first class: all are shifted, and the last one is in no row."""
    many = SimpleNamespace(highest=29, classes=np.zeros(31 * 20))
    assert _Gathered.unheard_of(many, 30, "c.txt") == []
    assert "no row names a class after 29, and c.txt names 31" in _Gathered.unheard_of(many, 31, "c.txt")[0]
    assert _Gathered.unheard_of(SimpleNamespace(highest=2, classes=np.zeros(60)), 30, "c.txt") == []
