"""Fuzzing of what lies beside stores: recipes, options, class lists, tables, archives, runs, checkpoints, side files.

Run as a program, ``python -m tests.faults.fuzz_files FOLDER FIRST STOP``, it makes the files in a folder, tries
mutations of them, one file a mutation, and prints what :mod:`tests.faults.fuzz_store` prints.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import resource
import sys
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.faults import mutate
from tests.faults.fuzz_store import _peak, fault
from tests.faults.mutate import Changes

RATE = 8000
MOST_MIB = 1024  # that a mutation may add to the memory: pyarrow believes what a page of Parquet says of its size
_MOST_ROWS = 300  # of a table: a group of rows of audio is read whole, however well it was packed


def make(folder: Path) -> dict[str, Callable[[Path], object]]:
    """Write one of each into a folder; returns the files that are mutated, and what is done with each."""
    import h5py
    import pyarrow as pa
    import pyarrow.parquet as pq
    import soundfile
    import torch
    import yaml

    from logitstore.audio.scan import scan
    from logitstore.audio.sources import open_source
    from logitstore.classes import read_classes
    from logitstore.files import read_whole
    from logitstore.jobs.build.job import BuildOptions
    from logitstore.models.ced import Ced
    from logitstore.models.registry import build
    from logitstore.options import read_config
    from logitstore.training.checkpoints import DamagedCheckpoint, decode, encode
    from logitstore.training.runs import save_run
    from logitstore.views.ops import Place
    from logitstore.views.recipe import load_recipe
    from teachers.registry import load_teacher

    def scanned(path: Path) -> None:
        table = scan(open_source(str(path), str(folder)), clip_seconds=1)
        assert table.num_rows < 10_000, "more clips than there is audio for"

    def recipe(path: Path) -> None:
        load_recipe(str(path)).check(Place(32_000, 16_000, 8))

    def checkpoint(path: Path) -> None:
        try:
            decode(read_whole(path))
        except (DamagedCheckpoint, OSError):
            return

    def options(path: Path) -> None:
        read_config(str(path), BuildOptions)

    sound = io.BytesIO()
    soundfile.write(sound, 0.1 * np.sin(np.arange(2 * RATE) * 0.1), RATE, format="WAV")
    for name in ("a.wav", "b.wav", "Yabcdefghijk.wav"):
        (folder / name).write_bytes(sound.getvalue())
    done: dict[str, Callable[[Path], object]] = {}

    def put(name: str, content: str | bytes, what: Callable[[Path], object]) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        done[name] = what

    ops = [{"op": "roll", "max_fraction": 0.5}, {"op": "gain"}, {"op": "time_mask", "max_seconds": 0.3}]
    put("recipe.yaml", yaml.safe_dump({"name": "mine", "ops": ops}), recipe)
    put("options.yaml", yaml.safe_dump({"views": 3, "teacher": ["ced:x.pt"], "clip_seconds": 2.5}), options)
    put("classes.txt", "".join(f"class {n}\n" for n in range(40)), read_classes)
    put(
        "classes.csv",
        "index,mid,display_name\n" + "".join(f'{n},/m/{n:03d},"name, {n}"\n' for n in range(40)),
        read_classes,
    )
    put("classes.json", json.dumps([f"class {n}" for n in range(9)]), read_classes)
    rows = [["path", "start", "end", "label"], ["a.wav", "0", "1.5", "Dog;Rain"], ["b.wav", "0.5", "2", '["Dog"]']]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    put("clips.csv", text.getvalue(), scanned)
    put("clips.tsv", text.getvalue().replace(",", "\t"), scanned)
    put(
        "clips.jsonl",
        "".join(json.dumps({"path": n, "start": 0, "label": ["x"]}) + "\n" for n in ("a.wav", "b.wav")),
        scanned,
    )
    put(
        "audioset.csv",
        "# made\n# num=1\n# YTID, start_seconds, end_seconds, positive_labels\n"
        'abcdefghijk, 0.000, 1.500, "/m/09x0r,/m/05zppz"\n',
        scanned,
    )
    table = pa.table({"path": ["a.wav", "b.wav"], "label": [["Dog"], []], "fold": [1, 2]})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    put("clips.parquet", sink.getvalue().to_pybytes(), scanned)
    sink = pa.BufferOutputStream()
    packed = [{"bytes": sound.getvalue(), "path": f"{n}.wav"} for n in range(3)]
    pq.write_table(pa.table({"audio": packed, "label": [0, 1, 0]}), sink)
    put("packed/audio.parquet", sink.getvalue().to_pybytes(), scanned)
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in (("a.wav", sound.getvalue()), ("a.json", b'{"label": "Dog", "n": 3}'), ("a.cls", b"4")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    put("shard.tar", whole.getvalue(), scanned)
    with h5py.File(folder / "audio.h5", "w") as file:
        file["a.wav"] = np.ones(RATE, np.int16)
        file["a.wav"].attrs["sample_rate"] = RATE
    put("audio.h5", (folder / "audio.h5").read_bytes(), scanned)
    put("labels/c.txt", "0.0\t1.0\tDog\n\\\t100.0\t2000.0\n1.0\t1.5\tRain\n", lambda path: scanned(path))
    (folder / "labels/c.wav").write_bytes(sound.getvalue())
    torch.manual_seed(0)
    save_run(folder / "run", "cnn4", {"width": 2}, ["a", "b"], "sigmoid", 16_000, build("cnn4", 2, width=2))
    for name in ("run/run.json", "run/model.safetensors"):
        put(name, (folder / name).read_bytes(), lambda path: load_teacher(str(path.parent)))
    saved = io.BytesIO()
    torch.save(Ced(3, dim=16, depth=1, heads=1).state_dict(), saved)
    put("model.pt", saved.getvalue(), lambda path: load_teacher(f"ced:{path}?heads=1"))
    put("model.pt.json", json.dumps({"classes": ["a", "b", "c"], "clip_seconds": 2.0}),
        lambda path: load_teacher(f"ced:{path.with_suffix('')}?heads=1"))  # fmt: skip
    put(
        "step-000000001.ckpt",
        encode({"about": {}, "done": 1, "weights": []}, {"model": {"a": torch.ones(3)}}),
        checkpoint,
    )
    return done


def mutation(files: dict[str, bytes], number: int) -> Changes:
    """What mutation ``number`` makes of one of the files, which take turns."""
    chance = random.Random(number)
    name = sorted(files)[number % len(files)]
    content = files[name]
    if chance.randrange(12) == 0:
        special = mutate.special(chance)
        folder = special.kind == "link" and special.target in (".", "..", "/")  # a folder that is a user's to search
        return {name: mutate.Special("link", "nowhere") if folder else special}
    if name.endswith(".json") and chance.random() < 0.8:
        return {name: mutate.json_text(chance, json.loads(content))}
    if name.endswith(".yaml") and chance.random() < 0.8:
        import yaml

        return {name: mutate.json_text(chance, yaml.safe_load(content))}
    if name.endswith(".jsonl") and chance.random() < 0.6:
        lines = [json.loads(line) for line in content.splitlines()]
        at = chance.randrange(len(lines))
        return {
            name: b"\n".join(
                json.dumps(e).encode() if n != at else mutate.json_text(chance, e) for n, e in enumerate(lines)
            )
        }
    if name.endswith(".parquet"):
        changed = mutate.change_parquet(chance, content)
        return {name: changed if _rows(changed) < _MOST_ROWS else mutate.change_bytes(chance, content)}
    if name.endswith((".csv", ".tsv", ".txt")) and chance.random() < 0.8:
        return {name: _text(chance, content)}
    return {name: mutate.change_bytes(chance, content)}


def _rows(content: bytes) -> int:
    """Rows that a Parquet file says it has; none of one that is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(pa.BufferReader(content)).num_rows)
    except (pa.ArrowException, OSError):
        return 0


def _text(chance: random.Random, content: bytes) -> bytes:
    """A table or list as another program, or another person, would have written it."""
    lines = content.decode().splitlines(keepends=True)
    at = chance.randrange(len(lines))
    how = chance.randrange(9)
    if how == 0:
        lines[at] *= chance.choice((0, 2, 300))
    elif how == 1:
        cells = lines[at].rstrip("\n").split(",")
        cells[chance.randrange(len(cells))] = str(mutate.value(chance))
        lines[at] = ",".join(cells) + "\n"
    elif how == 2:
        lines.insert(at, chance.choice(("\n", ",,,\n", "#\n", '"\n', "\0\n", "\ufeff\n", "x" * 200_000 + "\n")))
    elif how == 3:
        lines = [line.replace("\n", chance.choice(("\r\n", "\r", ""))) for line in lines]
    elif how == 4:
        lines[0] = (
            ",".join(chance.choices(("path", "start", "end", "clip", "rate", "", "duration", "label"), k=4)) + "\n"
        )
    elif how == 5:
        lines[at] = lines[at].replace(chance.choice('",;01'), chance.choice(("", '"', "-", "1e308", "nan", "'", "\t")))
    changed = "".join(lines)
    if how == 6:
        return changed.encode(chance.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7")))
    if how == 7:
        return mutate.change_bytes(chance, content)
    return changed.encode("utf-8", "surrogatepass")


def try_all(folder: Path, numbers: range) -> Iterator[dict[str, Any]]:
    """The faults of some mutations; the last of them says how many ran."""
    done = make(folder)
    files = {name: (folder / name).read_bytes() for name in done}
    for name, what in done.items():
        found = fault(what, folder / name)
        if found is not None:
            yield {"number": -1, "changed": [name], "fault": found}
        what(folder / name)
    base = _peak()
    for number in numbers:
        (folder / "number").write_text(str(number))  # for who finds this process dead
        changes = mutation(files, number)
        (name,) = changes
        mutate.apply(folder, changes)
        found = fault(done[name], folder / name)
        if found is not None:
            yield {"number": number, "changed": [name], "fault": found}
        if _peak() - base > MOST_MIB:
            yield {"number": number, "changed": [name], "fault": f"{_peak() - base} MiB"}
            base = _peak()
        mutate.restore(folder, files, changes)
    yield {"ran": len(numbers), "mib": _peak() - base}


def main(arguments: list[str]) -> None:
    """Try mutations FIRST to STOP in a folder."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    folder, first, stop = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    os.environ["TMPDIR"] = str(folder)
    limit = 8 << 30
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for found in try_all(folder, range(first, stop)):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
