"""``logitstore import npy``, and the session of docs/imports.md as a user would type it."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.errors import LogitstoreError, SourceError
from logitstore.jobs.imports.npy import NpyImport, import_npy
from logitstore.jobs.imports.shared import ImportSummary
from logitstore.store.reader import open_store
from tests.ced_folder import RATE, make_rows, write_ced, write_classes, write_wav
from tests.rendered import compared
from tests.stores import contents
from tests.test_docs import BLOCK, REPOSITORY, commands, shell

CLASSES = 30
NAMES = ["Ybb", "Yaa", "Ydd", "Ycc"]


def logits(rows: int = len(NAMES)) -> np.ndarray:
    return np.random.default_rng(3).normal(-3, 2, (rows, CLASSES)).astype(np.float32)


def write(root: Path, array: np.ndarray, names: list[str]) -> None:
    np.save(root / "scores.npy", array)
    (root / "names.txt").write_text("".join(f"{name}\n" for name in names))
    write_classes(root / "classes.txt", CLASSES)


def audio(root: Path, names: list[str] = NAMES, samples: int = RATE) -> None:
    for number, name in enumerate(names):
        write_wav(root / "audio" / "xy"[number % 2] / f"{name}.wav", samples, seed=number)


def run(root: Path, **changes: Any) -> ImportSummary:
    values: dict[str, Any] = {
        "array": str(root / "scores.npy"),
        "names": str(root / "names.txt"),
        "classes": str(root / "classes.txt"),
        "out": str(root / "store"),
        "scores": "logits",
        "audio_root": str(root / "audio"),
        "clip_seconds": 1.0,
        "value_bits": 16,
    }
    return import_npy(NpyImport(**(values | changes)))


def expected(array: np.ndarray, row: int, k: int) -> dict[int, float]:
    p = 1 / (1 + np.exp(-array[row].astype(np.float64)))
    return {int(c): float(np.float32(np.float16(np.float32(p[c])))) for c in np.argsort(-p, kind="stable")[:k]}


@pytest.mark.parametrize("ending", ["", ".wav", ".mp3"])
@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_logits(tmp_path: Path, ending: str, kind: str) -> None:
    array = logits().astype(kind)
    write(tmp_path, array, [name + ending for name in NAMES])
    audio(tmp_path)
    summary = run(tmp_path, shard_clips=3)
    assert (summary.clips, summary.views, summary.blocks, summary.failures, summary.notes) == (4, 1, 2, [], [])
    store = open_store(tmp_path / "store")
    assert store.manifest.recipe.name == "none"
    assert store.manifest.topk == 20
    classes, values = store.targets(0, np.arange(4))
    for clip, path in enumerate(store.clips["path"].to_pylist()):
        found = dict(zip(classes[clip].tolist(), values[clip].tolist(), strict=True))
        assert found == expected(array, NAMES.index(Path(path).stem), 20)
    sounds = ClipAudio(open_audio(str(tmp_path / "audio")), store.clips, RATE)
    assert compared(store, sounds, 10) == (2, [])


def test_probabilities_and_topk(tmp_path: Path) -> None:
    array = logits()
    probabilities = (1 / (1 + np.exp(-array.astype(np.float64)))).astype(np.float32)
    write(tmp_path, array, NAMES)
    audio(tmp_path)
    run(tmp_path, topk=CLASSES)
    np.save(tmp_path / "scores.npy", probabilities)
    run(tmp_path, topk=CLASSES, scores="probabilities", out=str(tmp_path / "other"))
    first, second = contents(tmp_path / "store"), contents(tmp_path / "other")
    assert {n: c for n, c in first.items() if n.startswith("blocks")} == {
        n: c for n, c in second.items() if n.startswith("blocks")
    }


def test_what_the_audio_root_lacks(tmp_path: Path) -> None:
    array = logits(6)
    write(tmp_path, array, [*NAMES, "Ymissing", "Ybroken"])
    audio(tmp_path, samples=2 * RATE)
    (tmp_path / "audio/Ybroken.wav").write_bytes(b"no audio")
    summary = run(tmp_path)
    assert {failure.path: failure.reason for failure in summary.failures} == {
        "Ymissing": "missing: the audio root has no file of this name",
        "Ybroken.wav": "unreadable: the header of the file cannot be read",
    }
    assert summary.notes == ["4 files are longer than --clip-seconds 1: their clips are what they begin with"]
    store = open_store(tmp_path / "store")
    for clip in store.clips_of(0).tolist():
        path = Path(store.clips["path"][clip].as_py())
        classes, values = store.targets(0, [clip])
        assert dict(zip(classes[0].tolist(), values[0].tolist(), strict=True)) == expected(
            array, NAMES.index(path.stem), 20
        )
    with pytest.raises(SourceError, match="2 of 6 clips cannot be imported, as Ymissing: missing"):
        run(tmp_path, strict=True, out=str(tmp_path / "other"))


def test_without_audio(tmp_path: Path) -> None:
    write(tmp_path, logits(), NAMES)
    summary = run(tmp_path, audio_root=None)
    assert "nothing can be trained from it" in summary.notes[0]
    store = open_store(tmp_path / "store")
    assert store.clips["path"].to_pylist() == sorted(NAMES)
    assert store.sql("SELECT count(*) n FROM topk").to_pylist() == [{"n": 80}]
    write_wav(tmp_path / "audio/Yaa.wav", RATE)
    done = shell("train-student store --audio-root audio --student cnn4 --steps 1 --out run", tmp_path)
    assert done.returncode in (1, 2)
    note, error = done.stderr.splitlines()
    assert "nothing is held out" in note
    assert error.startswith("Error: ")


@pytest.mark.parametrize(
    ("array", "names", "changes", "message"),
    [
        (logits()[:3], NAMES, {}, r"names.txt has 4 lines and .*scores.npy has 3 rows"),
        (logits()[:, :29], NAMES, {}, "has 29 columns and .* names 30 classes"),
        (logits()[0], NAMES, {}, r"holds float32 of shape \(30,\)"),
        (logits().astype(int), NAMES, {}, "holds int64"),
        (np.array([{"a": 1}]), NAMES, {}, "not readable as a .npy array: .*Python objects"),
        (logits() * np.nan, NAMES, {}, "row 0, column 0 is nan; allowed are finite numbers"),
        (logits(), NAMES, {"scores": "probabilities"}, "allowed are 0 to 1 .for logits say --scores logits"),
        (logits(), ["Yaa", "Yaa", "Ycc", "Ydd"], {}, "Yaa stands on lines 1 and 2"),
        (logits(), ["Yaa", " ", "Ycc", "Ydd"], {}, "line 2 is empty"),
        (logits(), ["Yaa", "Yaa.wav", "Ycc", "Ydd"], {}, "Yaa and Yaa.wav are both y/Yaa.wav below"),
        (logits(), ["Yaa", "twins", "Ycc", "Ydd"], {}, "twins is ambiguous .* may be t/twins.wav or u/twins.wav"),
        (logits(), ["a", "b", "c", "d"], {}, "none of the clips can be imported, as a: missing"),
        (logits(), NAMES, {"topk": 31}, "--topk 31 is more than the 30 classes"),
        (logits(), NAMES, {"topk": 0}, "--topk is 0; it must be at least 1"),
        (logits(), NAMES, {"sample_rate": 0}, "--sample-rate is 0; it must be at least 1000"),
        (logits(), NAMES, {"array": "nowhere.npy"}, "nowhere.npy is not readable"),
        (logits(), NAMES, {"names": "nowhere.txt"}, "nowhere.txt cannot be read as text"),
    ],
)
def test_mistakes(tmp_path: Path, array: np.ndarray, names: list[str], changes: dict[str, Any], message: str) -> None:
    write(tmp_path, array, names)
    audio(tmp_path)
    for folder in "tu":
        write_wav(tmp_path / "audio" / folder / "twins.wav", RATE)
    with pytest.raises(LogitstoreError, match=message) as found:
        run(tmp_path, **changes)
    assert found.value.exit_code == 2
    assert "\n" not in str(found.value)
    assert not (tmp_path / "store").exists()


# the documentation


def test_the_session_of_the_documentation(tmp_path: Path, programs: str) -> None:
    """Every command of docs/imports.md, in its order, on small files of the same names."""
    names = [f"Y{number}.wav" for number in range(5)]
    for number, name in enumerate(names):
        write_wav(tmp_path / "audio" / name, 3 * RATE, seed=number)
    write_ced(tmp_path / "logits/chunk_10", make_rows([(name, 0.0, 3.0) for name in names]))
    write_classes(tmp_path / "classes.txt", CLASSES)
    np.save(tmp_path / "ensemble.npy", logits(5))
    rows = {name.removesuffix(".wav"): number for number, name in enumerate(reversed(names))}
    (tmp_path / "fname_to_index.pkl").write_bytes(pickle.dumps(rows))
    document = (REPOSITORY / "docs/imports.md").read_text()
    blocks = BLOCK.findall(document)
    for language, text in blocks:
        if language == "python":
            (tmp_path / text.splitlines()[0].removeprefix("# ")).write_text(text)
    typed = [command for language, text in blocks if language == "console" for command, _ in commands(text)]
    ordered = sorted(typed, key=lambda command: not command.startswith("python names.py"))
    assert len(ordered) == 7
    for command in ordered:
        done = shell(command, tmp_path, programs)
        said = [line for line in done.stderr.splitlines() if not line.startswith(("next ", " "))]  # what one does next
        assert (done.returncode, said) == (0, []), command
    assert (tmp_path / "names.txt").read_text().split() == [name.removesuffix(".wav") for name in reversed(names)]
    assert {path.name for path in (tmp_path / "ced").iterdir()} == {
        f"logits_ep{epoch}_0.{ending}" for epoch in (1, 2) for ending in ("h5", "parquet")
    }

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "fname_to_index.pkl").write_bytes(pickle.dumps({"Y0": Evil()}))
    done = shell("python names.py fname_to_index.pkl", tmp_path)
    assert done.returncode == 1
    assert re.match(r"the pickle asks for .*; a dict of texts and numbers needs nothing", done.stderr)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_that_another_system_wrote(tmp_path: Path, ending: str, encoding: str) -> None:
    write(tmp_path, logits(), NAMES)
    table = ["index,mid,display_name", *(f'{number},/m/0{number},"class, {number}"' for number in range(CLASSES))]
    for file, lines in (("names.txt", NAMES), ("classes.txt", table)):
        (tmp_path / file).write_bytes(ending.join([*lines, ""]).encode(encoding))
    run(tmp_path, audio_root=None)
    store = open_store(tmp_path / "store")
    assert store.clips["path"].to_pylist() == sorted(NAMES)
    assert store.manifest.classes == tuple(f"class, {number}" for number in range(CLASSES))


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("names.txt", "filename", r"has 5 lines and .* has 4 rows \(is line 1, 'filename', a header\? take it out\)"),
        ("classes.txt", "one more", "has 30 columns and .* names 31 classes"),
    ],
)
def test_lists_of_another_length_are_refused(tmp_path: Path, file: str, line: str, message: str) -> None:
    write(tmp_path, logits(), NAMES)
    (tmp_path / file).write_text(f"{line}\n" + (tmp_path / file).read_text())
    with pytest.raises(LogitstoreError, match=message):
        run(tmp_path, audio_root=None)
