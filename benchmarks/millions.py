"""Stores of many clips: what opening, asking, sampling, verifying and the start of a training cost, and what grows.

    python -m benchmarks.millions --clips 2e5 2e7 --out DIR    # an hour of one core, 4 GB of disk

Each store is written by the store's own writer, in pieces of two million clips (the first begins it, the others extend
it), a process each: every draw, object, digest and commit is a build's; only what flushes them to the disk is left out.
The teachers are fake, and take no time: each view says what one of 4,096 synthetic views says, and one clip of each
shard failed. The audio is fake too: 4,096 short WAV files, which every folder of the audio root is a link to. So
20,000,000 clips have 20,000,000 paths that can be read, and the audio of each is one of 4,096 files.

What a command costs is measured in a process of its own: seconds of its whole life, its interpreter's start and imports
among them, seconds of the processor (all that tells where other work goes on), seconds until what the row names, and
the largest resident set (Linux).

What is there in DIR is used: an interrupted run goes on, ``--again STEP`` measures a step anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.arrays import I64

PIECE = 2_000_000
FILES = 4096  # of audio, and clips of a shard: a shard's clips lie in one folder
VIEWS, K, CLASSES, RATE = 2, 20, 527, 16_000
VIEW_SECONDS, SAMPLES = 2.0, 8_000  # of a view; frames of a clip, half a second
_CHARACTERS = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", "S1")


# making a store


def make_audio(root: Path, clips: int) -> None:
    """A folder of short sounds, and as many links to it as it takes for so many paths."""
    import soundfile

    sounds = root.parent / f"{root.name}.sounds"
    if not (sounds / "done").exists():
        sounds.mkdir(parents=True, exist_ok=True)
        for number in range(FILES):
            random = np.random.default_rng(number)
            tone = np.sin(np.arange(SAMPLES) * random.uniform(0.02, 2)) * random.uniform(0.05, 0.5)
            soundfile.write(sounds / _file(number), tone + 0.02 * random.standard_normal(SAMPLES), RATE)
        (sounds / "done").touch()
    root.mkdir(parents=True, exist_ok=True)
    for number in range(-(-clips // FILES)):
        link = root / _folder(number)
        if not link.is_symlink():
            link.symlink_to(sounds.absolute())


def clip_table(first: int, stop: int) -> pa.Table:
    """The clips [first, stop): a path, a column of eleven random letters as an identifier, nothing cut."""
    import pyarrow as pa

    count = stop - first
    files = [_file(number) for number in range(FILES)]
    paths = [f"{_folder(number // FILES)}/{files[number % FILES]}" for number in range(first, stop)]
    letters = np.random.default_rng(first).integers(0, len(_CHARACTERS), (count, 11))
    return pa.table({
        "path": pa.array(paths, pa.string()),
        "start": pa.array(np.zeros(count, np.int64)),
        "length": pa.array(np.full(count, SAMPLES, np.int64)),
        "rate": pa.array(np.full(count, RATE, np.int32)),
        "id": pa.array(_CHARACTERS[letters].view("S11")[:, 0].astype(str), pa.string()),
    })  # fmt: skip


def _folder(number: int) -> str:
    return f"{number:05d}-{number * 2654435761 % 2**32:08x}"


def _file(number: int) -> str:
    return f"recording-{number:04d}.wav"


def make_piece(folder: Path, clips: int, piece: int) -> None:
    """Write a piece of a store of so many clips, or what it lacks of it."""
    from benchmarks.synthetic import YAMNET_CED, Case, synthetic_manifest, top_k
    from logitstore.audio.clips import ClipAudio
    from logitstore.audio.sources import open_audio
    from logitstore.jobs.build.block import BlockPlan, block_draws
    from logitstore.store.format import commits
    from logitstore.store.format.layout import Targets
    from logitstore.store.storage import LocalStorage
    from logitstore.store.writer import BlockContent, StoreWriter
    from logitstore.views.fingerprint import fingerprint
    from logitstore.views.recipe import Draws
    from logitstore.views.render import Renderer

    os.fsync = lambda fd: None
    manifest, storage = synthetic_manifest(CLASSES, K, 8, RATE, VIEW_SECONDS, FILES), LocalStorage(folder)
    first = piece * PIECE
    table = clip_table(first, min(first + PIECE, clips))
    began = time.perf_counter()
    writer = (StoreWriter.extend if piece else StoreWriter.open)(storage, manifest, table)
    print(f"piece {piece}: opened in {time.perf_counter() - began:.1f} s", file=sys.stderr, flush=True)
    classes, probabilities = top_k(Case(clips=FILES, classes=CLASSES, k=K, views=VIEWS, ensemble=YAMNET_CED))
    codes = manifest.quantizer.encode(probabilities)
    done = commits.spans(storage)
    part = writer.parts[piece]
    audio = ClipAudio(open_audio(str(_audio_of(folder))), table, RATE)
    for shard in part.shards(manifest.shard_clips):
        if shard in done:
            continue
        numbers = writer.clips_of(shard)
        plan = BlockPlan(shard, numbers, 0, VIEWS)
        columns = block_draws(manifest, part, plan)
        one = Draws({name: values[:1, 0] for name, values in columns.items()})
        heard = Renderer(audio, manifest.recipe, manifest.place).batch(np.array([numbers.start - first]), one, None)
        mark = fingerprint(0, 0, heard.waveforms[0], heard.masks, RATE)
        rows = np.random.default_rng(shard).permutation(FILES)[: len(numbers)]
        failed = 1 + shard * 7919 % (len(numbers) - 1)
        readable = np.arange(len(numbers)) != failed
        kept, coded = (np.where(readable[:, None, None], each[rows], 0) for each in (classes, codes))
        targets = Targets(kept, coded, readable)
        content = BlockContent(targets, None, Draws(columns), {failed: "not audio"}, [mark])
        writer.write_block(shard, 0, VIEWS, content, f"blocks/{commits.block_name(shard, 0, VIEWS)}")


# what is done with it


def do_open(store: str) -> dict[str, float]:
    """Open a store, and ask what every reader does first."""
    began = time.perf_counter()
    from logitstore import open_store

    opened = open_store(store)
    counted = len(opened), opened.views
    assert all(counted)
    return {"opened": time.perf_counter() - began, "opened, processor": time.process_time()}


def do_sample(store: str) -> dict[str, float]:
    """The targets and draws of 32 clips from all over a store, and one clip to look at."""
    from logitstore import open_store

    opened = open_store(store)
    blocks = np.random.default_rng(0).permutation(len(opened.commits))[:32]
    clips = np.array([opened.commits[block].first_clip for block in blocks])
    began = time.perf_counter()
    opened.targets(0, clips)
    opened.draws(0, clips)
    first = time.perf_counter() - began
    began = time.perf_counter()
    repr(opened[int(clips[0])].view(1))
    return {"32 views": first, "one clip": time.perf_counter() - began}


def do_replay(store: str) -> dict[str, float]:
    """The first batch of a ``ReplayDataset``, from the start of its making."""
    from torch.utils.data import DataLoader

    from students.data import ReplayDataset

    began = time.perf_counter()
    data = ReplayDataset(store, str(_audio_of(Path(store))))
    made = time.perf_counter() - began
    random = np.random.default_rng(0)
    order: I64 = random.integers(0, len(data), 64 * 32)
    loader = DataLoader(data, batch_size=32, sampler=order.tolist())
    times = [time.perf_counter()]
    busy = 0.0
    for _ in loader:
        busy = busy or time.process_time()
        times.append(time.perf_counter())
    return {
        "made": made,
        "first batch": times[1] - began,
        "first batch, processor": busy,
        "a batch": (times[-1] - times[1]) / (len(times) - 2),
    }


class _FirstStepError(Exception):
    """The first step is done, and no other is wanted."""


def do_first(store: str) -> dict[str, float]:
    """``train-student`` to its first step."""
    return _train(store, first_only=True)


def do_train(store: str) -> dict[str, float]:
    """``train-student`` for 1,000 steps of 32 views."""
    return _train(store, first_only=False)


def _train(store: str, first_only: bool) -> dict[str, float]:
    import shutil

    import logitstore
    from logitstore.training.loop import FitProgress
    from students.options import StudentOptions
    from students.train import train_student

    del logitstore
    out = f"{store}.run"
    shutil.rmtree(out, ignore_errors=True)
    began, times, busy = time.perf_counter(), list[float](), list[float]()

    def step(*_: object) -> None:
        times.append(time.perf_counter())
        busy.append(time.process_time())
        if first_only:
            raise _FirstStepError

    options = StudentOptions(
        store=store, audio_root=str(_audio_of(Path(store))), student="cnn4", out=out, steps=1000, batch_size=32,
        model_args={"width": 4, "mels": 32, "hop_ms": 20},
    )  # fmt: skip
    with contextlib.suppress(_FirstStepError):
        train_student(options, FitProgress(step=step))
    first = {"first step": times[0] - began, "first step, processor": busy[0]}
    if first_only:
        return first
    return first | {
        "1,000 steps": times[-1] - began,
        "a step at the end": (times[-1] - times[-101]) / 100,
    }


#: What is measured, by name: how it is called, and a function of this module or the words of a command.
STEPS: dict[str, tuple[str, Callable[[str], dict[str, float]] | Sequence[str]]] = {
    "open": ("open_store, its clips and views", do_open),
    "status": ("logitstore status STORE", ("status", "{store}")),
    "inspect": ("logitstore inspect STORE", ("inspect", "{store}")),
    "query-clip": (
        "inspect: topk of one clip",
        ("inspect", "{store}", "SELECT * FROM topk WHERE clip = 123456"),
    ),
    "query-all": (
        "inspect: classes counted over all views",
        ("inspect", "{store}", "SELECT class, count(*) AS n FROM topk GROUP BY class", "--timeout", "0"),
    ),
    "sample": ("targets and draws of 32 clips from all over", do_sample),
    "verify": (
        "verify --sample 10, and 16 views replayed",
        ("verify", "{store}", "--sample", "10", "--state", "{store}.state", "--audio-root", "{audio}"),
    ),
    "replay": ("ReplayDataset, 64 batches of 32 shuffled views", do_replay),
    "first": ("train-student, to its first step", do_first),
    "train": ("train-student, 1,000 steps of 32 views", do_train),
}


# measuring


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=float, nargs="+", default=[2e5, 2e7], help="of each store")
    parser.add_argument("--out", type=Path, required=True, help="where stores and figures go; what is there is used")
    parser.add_argument("--steps", nargs="+", choices=list(STEPS), default=list(STEPS), help="what to measure")
    parser.add_argument("--again", nargs="+", choices=list(STEPS), default=[], help="what to measure anew")
    parser.add_argument("--piece", type=int, help=argparse.SUPPRESS)  # the process that makes a piece
    parser.add_argument("--do", help=argparse.SUPPRESS)  # the process that is measured
    given = parser.parse_args()
    sizes = [int(size) for size in given.clips]
    if given.piece is not None:
        make_piece(given.out, sizes[0], given.piece)
    elif given.do is not None:
        step = STEPS[given.do][1]
        assert callable(step)
        print(json.dumps(step(str(given.out))), flush=True)
    else:
        figures = []
        for clips in sizes:
            file = given.out / f"{clips}.json"
            known = json.loads(file.read_text()) if file.exists() else {}
            store = given.out / str(clips)
            if "build" not in known:
                known["build"] = _build(store, clips)
                file.write_text(json.dumps(known, indent=1))
            for step in given.steps:
                if step not in known or step in given.again:
                    known[step] = _step(step, store)
                    file.write_text(json.dumps(known, indent=1))
                    print(clips, step, known[step], file=sys.stderr, flush=True)
            figures.append(known)
        print(table(sizes, figures))


def _audio_of(store: Path) -> Path:
    return store.with_name("audio")


def _build(store: Path, clips: int) -> dict[str, float]:
    make_audio(_audio_of(store), clips)
    each = []
    for piece in range(-(-clips // PIECE)):
        file = store.parent / f"{clips}.piece{piece}.json"
        if not file.exists():
            took = _measured(["--clips", str(clips), "--piece", str(piece), "--out", str(store)])
            file.write_text(json.dumps(took))
        each.append(json.loads(file.read_text()))
    objects = [path.stat().st_size for path in store.rglob("*") if path.is_file()]
    return {
        "seconds": sum(one["seconds"] for one in each),
        "processor": sum(one["processor"] for one in each),
        "peak MB": max(one["peak MB"] for one in each),
        "bytes": sum(objects),
        "objects": len(objects),
    }


def _step(step: str, store: Path) -> dict[str, Any]:
    what = STEPS[step][1]
    if callable(what):
        return _measured(["--do", step, "--out", str(store)])
    words = [word.format(store=store, audio=_audio_of(store)) for word in what]
    return _measured(words, "logitstore")


def _measured(arguments: Sequence[str], module: str = "benchmarks.millions") -> dict[str, Any]:
    """What a process of a module took: seconds, seconds of processors, peak in MB, and what it says in JSON."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}")
    return {
        "seconds": time.perf_counter() - began,
        "processor": used.ru_utime + used.ru_stime,
        "peak MB": used.ru_maxrss / 1024,
        **(json.loads(said) if said.startswith("{") else {}),
    }


def table(sizes: Sequence[int], figures: Sequence[dict[str, Any]]) -> str:
    """Seconds of each process, of the processor in brackets, and its peak as Markdown, a column a store."""
    lines = ["| | " + " | ".join(f"{size:,} clips" for size in sizes) + " |", "| --- |" + " ---: |" * len(sizes)]
    sizes_of = (f"{each['build']['bytes'] / 1e6:,.1f} MB, {each['build']['objects']:,}" for each in figures)
    lines.append("| bytes, objects | " + " | ".join(sizes_of) + " |")
    names = {"build": "all pieces written, the largest of their peaks", **{step: STEPS[step][0] for step in STEPS}}
    for step, name in names.items():
        found = [each[step] for each in figures if step in each]
        if len(found) < len(figures):
            continue
        whole = (f"{each['seconds']:,.1f} s ({each['processor']:,.1f}), {each['peak MB']:,.0f} MB" for each in found)
        lines.append(f"| {name} | {' | '.join(whole)} |")
        for key in found[0]:
            if key not in ("seconds", "processor", "peak MB", "bytes", "objects") and all(key in one for one in found):
                lines.append(f"| … {key} | {' | '.join(f'{each[key]:,.2f} s' for each in found)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
