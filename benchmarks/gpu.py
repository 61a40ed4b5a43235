"""A build and a training on a GPU: five ced-base as the ensemble, ced-tiny as the student, beside the bare passes.

    python -m benchmarks.gpu --out DIR                        # on a GPU (some ten minutes)
    python -m benchmarks.gpu --out DIR --device cpu --quick   # the same code, small, where there is none

Nets have random weights, as fast as others. The build and the training are the programs, whole processes with their
start; beside each are the same nets, in the same precision, on batches that lie on the device already, in this process.
Arithmetic is that of the nets' multiply-accumulates, two operations each and three times as many with gradients; its
share is of the fastest of some square matrix products of the same type, measured here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.build import CLASSES, RATE, write_audio
from benchmarks.tables import table
from logitstore.models.cost import macs_of
from logitstore.models.machine import pick_device
from logitstore.models.registry import build, initialised
from logitstore.training.batches import Batch
from logitstore.training.loop import Epoch, FitOptions, fit
from logitstore.training.precision import pass_dtype
from logitstore.training.sampling import order_generator, plan
from students.objective import Objective
from students.terms import TARGET, Setting
from teachers.ensemble import load_ensemble

_REPEATS = 3


@dataclass(frozen=True)
class Sizes:
    """What is done: members of the ensemble, clips, their seconds, views of each, views of a batch; steps and batch of
    a training, and the side of the matrices whose product is the peak."""

    members: int = 5
    clips: int = 4096
    seconds: int = 10
    views: int = 4
    batch: int = 128
    steps: int = 400
    train_batch: int = 256
    side: int = 8192


QUICK = Sizes(members=2, clips=16, views=2, batch=8, steps=4, train_batch=8, side=512)


def seconds_of(run: Callable[[], Any], device: str) -> float:
    """The shortest of some runs, after one that does not count."""
    took = []
    for _ in range(_REPEATS + 1):
        _wait(device)
        started = time.perf_counter()
        run()
        _wait(device)
        took.append(time.perf_counter() - started)
    return min(took[1:])


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def peak_operations(side: int, precision: str, device: str) -> float:
    """Operations a second of a product of two square matrices."""
    dtype = pass_dtype(precision, torch.device(device)) or torch.float32
    one = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / seconds_of(lambda: one @ one, device)


def write_teachers(folder: Path, net: str, members: int) -> list[str]:
    """Specs of checkpoints with random weights, laid out as CED's are."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = []
    for number in range(members):
        file = folder / f"{net}-{number}.pt"
        if not file.exists():
            model = initialised(lambda: build(net, CLASSES), number)
            torch.save({"model": {name: each.contiguous() for name, each in model.state_dict().items()}}, file)
        specs.append(f"ced:{file}")
    return specs


def program(name: str, *given: object) -> tuple[dict[str, Any], float]:
    """What a program prints with --json, and how many seconds it took from its start to its end."""
    code = f"from logitstore.cli.{name} import main; main()"
    command = [sys.executable, "-c", code, *map(str, given), "--json", "--quiet"]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{' '.join(command[3:])}\n{done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document, took


def heard_bare(specs: list[str], sizes: Sizes, precision: str, device: str) -> tuple[float, int]:
    """Views a second of the ensemble on one ready-made batch, and the multiply-accumulates of a view."""
    ensemble = load_ensemble(specs, device=device, precision=precision)
    waves = torch.randn(sizes.batch, sizes.seconds * RATE, device=device) / 10
    with torch.inference_mode():
        rate = sizes.batch / seconds_of(lambda: ensemble.probabilities(waves, None), device)
        return rate, macs_of(lambda: ensemble.probabilities(waves[:1], None)) or 0


def trained_bare(student: str, sizes: Sizes, precision: str, device: str) -> float:
    """Clips a second of a training on one ready-made batch."""
    model = build(student, CLASSES)
    count = sizes.train_batch
    batch = Batch(
        torch.randn(count, sizes.seconds * RATE) / 10, None, torch.rand(count, CLASSES) ** 8, np.arange(count)
    ).to(torch.device(device))  # fmt: skip
    objective = Objective({TARGET: 1.0}, Setting("bce", 1.0, None))

    def run(steps: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            options = FitOptions(steps=steps, lr=1e-4, seed=0, device=device, precision=precision)
            epoch = lambda number: Epoch(plan(count, count, order_generator(0, number)), lambda _: batch)  # noqa: E731
            started = time.perf_counter()
            fit(model, options, epoch, objective, Path(folder))
            _wait(device)
            return time.perf_counter() - started

    run(2)
    return count * sizes.steps / run(sizes.steps)


def measure(out: Path, member: str, student: str, sizes: Sizes, precision: str, device: str) -> str:
    """The tables, as text."""
    audio = out / "audio"
    out.mkdir(parents=True, exist_ok=True)
    if not audio.exists():
        write_audio(audio, sizes.clips, sizes.seconds)
    specs = write_teachers(out / "teachers", member, sizes.members)
    peak = peak_operations(sizes.side, precision, device)
    bare, macs = heard_bare(specs, sizes, precision, device)
    store = out / "store"
    given = [audio, "--out", store, "--views", sizes.views, "--clip-seconds", sizes.seconds, "--topk", 20]
    where = ["--device", device, "--precision", precision]
    teachers = [word for spec in specs for word in ("--teacher", spec)]
    built, build_took = program("main", "build", *given, *teachers, *where, "--batch-size", sizes.batch)
    made = built["views_made"]
    rows = [
        ["bare forward", f"{bare:,.1f}", "", f"{2 * macs * bare / peak:.0%}"],
        ["logitstore build", f"{made / build_took:,.1f}", f"{made / build_took / bare:.2f}",
         f"{2 * macs * made / build_took / peak:.0%}"],
    ]  # fmt: skip
    lines = [
        f"{sizes.members} x {member}, {precision}, on {_named(device)}: {sizes.clips:,} clips of {sizes.seconds} s x "
        f"{sizes.views} views, batches of {sizes.batch}; peak {peak / 1e12:,.2f} TFLOP/s\n",
        table(["ensemble", "views/s", "to bare", "of the peak"], rows),
        f"\nwhat limited the build: {json.dumps(built['limit'])}",
    ]
    bare = trained_bare(student, sizes, precision, device)
    model = build(student, CLASSES).eval()
    with torch.inference_mode():
        macs = macs_of(lambda: model(torch.randn(1, sizes.seconds * RATE))) or 0
    document, took = program(
        "train_student", store, "--audio-root", audio, "--student", student, "--steps", sizes.steps,
        "--batch-size", sizes.train_batch, "--out", out / "student", "--hold-out", 0, *where,
    )  # fmt: skip
    clips = sizes.steps * sizes.train_batch
    rows = [["ready-made batches", f"{bare:,.1f}", "", f"{6 * macs * bare / peak:.0%}"]]
    for name, rate in (("train-student", clips / took), ("its own clock", document["clips_per_second"])):
        rows.append([name, f"{rate:,.1f}", f"{rate / bare:.2f}", f"{6 * macs * rate / peak:.0%}"])
    lines += [
        f"\n{student}, {precision}, batches of {sizes.train_batch}, {sizes.steps} steps\n",
        table(["training", "clips/s", "to ready-made", "of the peak"], rows),
    ]
    return "\n".join(lines)


def _named(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} threads of a CPU of {os.cpu_count()} cores"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder for audio, teachers, store and student")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="bf16", choices=("float32", "bf16", "fp16"))
    parser.add_argument("--member", default="ced-base", help="net of the members")
    parser.add_argument("--student", default="ced-tiny")
    parser.add_argument("--quick", action="store_true", help="two members, 16 clips, 4 steps")
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here, so there is nothing to measure; --device cpu --quick runs the same")
    device = pick_device(given.device)
    sizes = QUICK if given.quick else Sizes()
    print(measure(given.out, given.member, given.student, sizes, given.precision, device))


if __name__ == "__main__":
    main()
