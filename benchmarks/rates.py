"""The learning rate of a net: a coarse grid around the one that it has, widened until the best lies inside.

    python -m benchmarks.rates --prepared ABLATION --out OUT [--net crnn --net densenet-tiny …]
    python -m benchmarks.rates --out OUT --report

Students of *scenes* (``benchmarks/scenes.py``) learn a store's targets, as those of the ablation do, from the folders
that ``benchmarks/ablation.py`` left behind; mAP is of the held-out fold. Rates are the net's own times powers of two:
half, once and twice at first, and further where the best is the lowest or the highest of them. Every rate has the same
folds and seeds, and the difference from the best is paired over them. Log-mels are coarser than a net's own, which
makes fewer frames and none of its layers other: 32 bands every 80 ms, and of ``crnn``, which takes 128 bands alone,
128 every 160 ms. ``cnn4`` goes through each head. Every run is a line of ``OUT/rates.jsonl``, so that the same command
goes on where it was interrupted. Trainings are short, which favours high rates: half of a best one is as good a guess
for long ones.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from benchmarks.arms import Arm
from benchmarks.cached import batches, score
from benchmarks.folds import FRONT_END, RATE, Fold, hearing_log_mels
from benchmarks.intervals import paired, t_interval
from logitstore.arrays import F32
from logitstore.audio.clips import ClipAudio
from logitstore.digests import derived_seed
from logitstore.evaluation.labelled import read_labelled
from logitstore.models.losses import bce
from logitstore.models.pooling import POOLS
from logitstore.models.registry import POOL, build, default_lr, initialised
from logitstore.models.tagger import Tagger
from logitstore.training.batches import Replayer
from logitstore.training.schedule import learning_rate, parameter_groups
from logitstore.views.recipe import Masks
from logitstore.views.render import pad
from students.data import stored_views

RUNS = "rates.jsonl"
_CHUNK = 64
_COARSE_HOP_MS = 160
_FARTHEST = 4  # powers of two that a grid may go away from a net's own rate


@dataclass(frozen=True)
class Net:
    """A net with its arguments; ``steps`` of its trainings, and whether it has log-mels of its own."""

    name: str
    args: dict[str, Any]
    steps: int
    own_log_mels: bool = False

    def make(self, classes: int, seed: int) -> Tagger:
        """A new one, whose input are log-mels."""
        model = initialised(lambda: build(self.name, classes, **self.args), seed)
        if self.own_log_mels:
            model.front_end = replace(model.front_end, hop_length=RATE * _COARSE_HOP_MS // 1000)
        return hearing_log_mels(model)


NETS = {
    "crnn": Net("crnn", {}, 150, own_log_mels=True),
    "densenet-tiny": Net("densenet-tiny", FRONT_END, 150),
    "densenet-small": Net("densenet-small", FRONT_END, 100),
    **{f"cnn4, {pool}": Net("cnn4", {"width": 8, POOL: pool, **FRONT_END}, 300) for pool in POOLS},
}


class Sounds(Fold):
    """A fold whose log-mels are those of a net's own front end, made once and kept under ``out``."""

    def __init__(self, folder: Path, net: Net, out: Path) -> None:
        super().__init__(folder)
        self.net, self.out = net, out / folder.parent.name / folder.name

    def sound(self, arm: Arm, epoch: int) -> tuple[F32, Masks]:
        sounds, masks = super().sound(arm, epoch)
        return (self._kept_of(self.view(arm, epoch)) if self.net.own_log_mels else sounds), masks

    def heard_in_test(self) -> F32:
        """Log-mels of the held-out clips as they are."""
        return self._kept_of(None) if self.net.own_log_mels else self.array("test")

    def _kept_of(self, view: int | None) -> F32:
        path = self.out / f"{self.net.name}-{'test' if view is None else view}.npy"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".partial").open("wb") as file:
                np.save(file, self._log_mels(view))
            path.with_suffix(".partial").replace(path)
        kept: F32 = np.load(path)
        return kept

    @torch.inference_mode()
    def _log_mels(self, view: int | None) -> F32:
        model = build(self.net.name, 1, **self.net.args)
        front_end = replace(model.front_end, hop_length=RATE * _COARSE_HOP_MS // 1000)
        ear = type(model.log_mel)(front_end)
        data, held_out = self.folder.parent, self.folder.name.removeprefix("fold-")
        store = self.store("masks")
        where = f"fold = '{held_out}'" if view is None else f"fold <> '{held_out}' AND number < {self._pool()}"
        labelled = read_labelled(
            str(data / "labels.csv"), str(data / "audio"), "label", where=where,
            clip_seconds=store.manifest.clip_samples / RATE, workers=1,
        )  # fmt: skip
        audio = ClipAudio(labelled.source, labelled.table, RATE)
        parts = [np.arange(start, min(len(audio), start + _CHUNK)) for start in range(0, len(audio), _CHUNK)]
        if view is None:
            return np.concatenate([
                ear(pad([audio[int(clip)] for clip in at], store.manifest.clip_samples)[0]).numpy() for at in parts
            ])  # fmt: skip
        replayer = Replayer(audio, str, store.manifest.recipe, store.manifest.clip_samples, RATE)
        views = stored_views(store, view)
        return np.concatenate([ear(replayer.batch(views, at).waveforms).numpy() for at in parts])

    def _pool(self) -> int:
        """How many rows of each fold were learnt from."""
        numbers: list[int] = self.store("masks").clips["number"].to_pylist()
        return 1 + max(numbers)


def mean_ap(fold: Sounds, rate: float, seed: int) -> float:
    """mAP in points of a student that was trained with a highest rate."""
    net = fold.net
    model = net.make(len(fold.classes), seed).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=rate, fused=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("dropout", seed))
        for step, batch in enumerate(batches(fold, Arm(), fold.clips, seed, net.steps)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, net.steps, rate)
            loss = bce(model(batch.waveforms, batch.masks), batch.targets).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return score(model.eval(), fold.heard_in_test(), fold.test_labels, fold.test_row_of)["mAP"]


def tried(lines: list[dict[str, Any]], net: str) -> dict[float, dict[tuple[str, int], float]]:
    """mAP by rate, and by fold and seed, of the runs of a net that are there; rates rise."""
    found: dict[float, dict[tuple[str, int], float]] = {}
    for line in lines:
        if line["net"] == net:
            found.setdefault(line["rate"], {})[line["fold"], line["seed"]] = line["mAP"]
    return dict(sorted(found.items()))


def wanted(net: Net, found: dict[float, dict[tuple[str, int], float]], pairs: int) -> list[float]:
    """The rates to try next: those around the net's own, and then one more on the side where the best lies."""
    grid = [default_lr(net.name) * 2.0**power for power in range(-_FARTHEST, _FARTHEST + 1)]
    first = grid[_FARTHEST - 1 : _FARTHEST + 2]
    whole = [rate for rate in grid if len(found.get(rate, ())) == pairs]
    if set(first) - set(whole):
        return first
    best = max(whole, key=lambda rate: sum(found[rate].values()))
    beyond = grid.index(best) + (1 if best == whole[-1] else -1 if best == whole[0] else 0)
    return [grid[beyond]] if 0 <= beyond < len(grid) and grid[beyond] not in whole else []


def run(prepared: Path, out: Path, names: list[str], folds: list[str], seeds: int) -> None:
    """Train whatever is not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        net = NETS[name]
        opened = {fold: Sounds(prepared / "scenes" / f"fold-{fold}", net, out) for fold in folds}
        while rates := wanted(net, tried(read(out), name), len(folds) * seeds):
            for rate, fold, seed in _cells(rates, folds, seeds):
                if (fold, seed) in tried(read(out), name).get(rate, {}):
                    continue
                began = time.process_time()
                found = mean_ap(opened[fold], rate, seed)
                line = {"net": name, "rate": rate, "fold": fold, "seed": seed, "steps": net.steps, "mAP": found,
                        "seconds": round(time.process_time() - began, 1)}  # fmt: skip
                with (out / RUNS).open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(line) + "\n")
                print(f"{name} {rate:g} fold {fold} seed {seed}: {found:.2f}", file=sys.stderr, flush=True)


def _cells(rates: list[float], folds: list[str], seeds: int) -> Iterator[tuple[float, str, int]]:
    return ((rate, fold, seed) for seed in range(seeds) for fold in folds for rate in rates)


def read(out: Path) -> list[dict[str, Any]]:
    """The runs that are there."""
    path = out / RUNS
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def report(lines: list[dict[str, Any]]) -> str:
    """A table in Markdown: of each net and rate the mean mAP, and how far it is from the best, paired."""
    rows = ["| net | steps | rate | mAP | minus the best's, 95 % |", "| --- | --- | --- | --- | --- |"]
    for name in dict.fromkeys(line["net"] for line in lines):
        found = tried(lines, name)
        most = max(map(len, found.values()))
        whole = {rate: pairs for rate, pairs in found.items() if len(pairs) == most}
        best = max(whole, key=lambda rate: sum(whole[rate].values()))
        steps = next(line["steps"] for line in lines if line["net"] == name)
        for rate, pairs in whole.items():
            apart = t_interval(paired(pairs, whole[best]))
            mean = sum(pairs.values()) / len(pairs)
            there = "the best" if rate == best else f"{apart.mean:+.2f} ± {apart.half:.2f}"
            own = " (its own)" if rate == default_lr(NETS[name].name) else ""
            rows.append(f"| {name} | {steps} | {rate:g}{own} | {mean:.2f} | {there} |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepared", type=Path, help="the --out of benchmarks.ablation --prepare, with its folds")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--net", action="append", choices=NETS, help="repeatable; all by default")
    parser.add_argument("--fold", action="append", help="a held-out fold, repeatable; 1 and 2 by default")
    parser.add_argument("--seeds", type=int, default=1, help="seeds a fold")
    parser.add_argument("--report", action="store_true", help="only the table of the runs that are there")
    given = parser.parse_args(arguments)
    if not given.report:
        if given.prepared is None:
            parser.error("give --prepared, or --report")
        torch.set_num_threads(1)
        run(given.prepared, given.out, given.net or list(NETS), given.fold or ["1", "2"], given.seeds)
    print(report(read(given.out)))


if __name__ == "__main__":
    main()
