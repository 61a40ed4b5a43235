"""Which weight decay, floor, warm-up and kept weights students want: the experiment behind the trainer's defaults.

    python -m benchmarks.recipe --esc10 DIR --out OUT           # teachers, stores and runs; the tables at the end
    python -m benchmarks.recipe --prepared ABLATION --out OUT   # with the teachers and stores of benchmarks.ablation
    python -m benchmarks.recipe --out OUT --report              # the tables of the runs that are there
    python -m benchmarks.recipe --plan                          # how many runs, and about how long

Every arm differs from the trainer's defaults in one thing, and CED's own set in several (weight decay 0, a floor of 0.1
that a cosine over all steps does not quite reach, a warm-up of 1/30, the mean of the best four). Data, teachers and
stores are those of ``benchmarks/ablation.py``: *scenes* and *sequences*, three held-out folds, 40 stored views.
Arms of one (data, fold, seed, net) share initialisation, order, dropout and steps.

As ``train-student`` does by default, a twentieth of the files is held out. Of every run several weights are measured
on the test clips: the last, moving averages of two decays, the best and the mean of the best four of ten measurements
of the loss of the held-out clips. So what is kept is compared within a run, and costs none of its own.

Three parts: ``cnn4`` of 520 steps, which is each stored view once; fewer arms of 1,560 steps, as weight decay takes
time; and a transformer, the net of CED on 32 bands (64 wide, 3 blocks, patches of 16 bands by 0.64 s), which has
position embeddings. Every finished run is a line of ``OUT/runs.jsonl``: the same command goes on after an interruption.
The arms that stand for each question come first, with all their seeds; the others after them.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn

from benchmarks.ablation import Sizes, esc10_data
from benchmarks.arms import ARMS, REFERENCE
from benchmarks.cached import Rule, score, train
from benchmarks.folds import FRONT_END, MODEL, Fold, prepare
from benchmarks.intervals import Interval, paired, t_interval
from benchmarks.runs import RUNS, read_lines
from benchmarks.tables import table
from logitstore.arrays import I64
from logitstore.models.ced import Ced
from logitstore.models.machine import keep_freed_memory
from logitstore.models.registry import build, default_lr
from logitstore.models.tagger import Tagger
from logitstore.training.checkpoints import mean_weights
from logitstore.training.schedule import ema_decay
from logitstore.views.recipe import Masks
from students.held_out import held_out
from students.options import DEFAULT_HOLD_OUT

FOLDS = ("1", "2", "3")
WIDTHS = {"scenes": 8, "sequences": 4}
DECAYS = (0.99, 0.999)
MEASUREMENTS = 10
BEST = 4
_DIM = 64  # of the transformer
TRANSFORMER_LR = default_lr("ced-tiny")

DEFAULT, CED = "default", "CED's"
RULES: dict[str, Rule] = {
    DEFAULT: Rule(weight_decay=0.01, spared=True, floor=0.01, warm_up=0.1),
    CED: Rule(weight_decay=0.0, floor=0.1, warm_up=1 / 30, cosine="all"),
    "weight decay 0": Rule(weight_decay=0.0, floor=0.01, warm_up=0.1),
    "floor 0.1": Rule(weight_decay=0.01, floor=0.1, warm_up=0.1),
    "warm-up 0": Rule(weight_decay=0.01, floor=0.01, warm_up=0.0),
    "weight decay 0.05": Rule(weight_decay=0.05, floor=0.01, warm_up=0.1),
    "warm-up 20 %": Rule(weight_decay=0.01, floor=0.01, warm_up=0.2),
    "floor 0": Rule(weight_decay=0.01, floor=0.0, warm_up=0.1),
    "warm-up 5 %": Rule(weight_decay=0.01, floor=0.01, warm_up=0.05),
    "weight decay 0.5": Rule(weight_decay=0.5, floor=0.01, warm_up=0.1),
    "positions decay too": Rule(weight_decay=0.01, spared=False, floor=0.01, warm_up=0.1),
}
_FAR = ("weight decay 0.5", "positions decay too")  # asked of the transformer alone
_LESS = (DEFAULT, "weight decay 0", "weight decay 0.05", CED)
_FIRST = (DEFAULT, CED, "weight decay 0", "floor 0.1", "warm-up 0")
LAST = "last"
KEPT = (LAST, *(f"EMA {decay:g}" for decay in DECAYS), "best", f"mean of the best {BEST}")


@dataclass(frozen=True)
class Part:
    """Runs of one net and length.

    :param lag: its runs of seed s come after those of seed s + lag of the first part, so that an interruption leaves
        the first part with the most seeds. :param ms: of a step, for the plan.
    """

    name: str
    net: str
    steps: int
    rules: tuple[str, ...]
    lag: float
    ms: float


PARTS = (
    Part("cnn4, 520 steps", MODEL, 520, tuple(name for name in RULES if name not in _FAR), 0, 12),
    Part("transformer, 520 steps", "ced", 520, (*_LESS, *_FAR), 2.2, 20),
    Part("cnn4, 1,560 steps", MODEL, 1560, (DEFAULT, "floor 0.1", *_LESS[1:]), 1.5, 12),
)


class Watch:
    """What could be kept of a run: moving averages of its weights, and the weights at each measurement."""

    def __init__(self, fold: Fold, apart: I64, steps: int) -> None:
        self.steps = steps
        self.averages: dict[float, Tagger] = {}
        self.pairs: dict[float, list[list[Any]]] = {}
        self.measured: list[tuple[float, dict[str, torch.Tensor]]] = []
        views = min(fold.store("masks").views, len(apart))  # the i-th clip in view i mod V, as the trainer has it
        heard = [(fold.sound(ARMS[REFERENCE], view), apart[view::views]) for view in range(views)]
        self.sounds = torch.from_numpy(np.concatenate([sounds[at] for (sounds, _), at in heard]))
        parts = [spans[at] for (_, spans), at in heard]
        self.spans = Masks(*(torch.cat(each) for each in zip(*(vars(one).values() for one in parts), strict=True)))
        targets = [fold.targets(ARMS[REFERENCE], view)[at] for view, (_, at) in enumerate(heard)]
        self.targets = torch.from_numpy(np.concatenate(targets))

    def __call__(self, done: int, model: Tagger) -> None:
        for decay in DECAYS:
            if decay not in self.averages:
                average = self.averages[decay] = copy.deepcopy(model).eval()
                both = average, model
                self.pairs[decay] = [list(each.parameters()) for each in both] + [list(each.buffers()) for each in both]
            means, now, mean_buffers, buffers = self.pairs[decay]
            with torch.no_grad():
                torch._foreach_lerp_(means, now, 1 - ema_decay(decay, done - 1))
                for mine, each in zip(mean_buffers, buffers, strict=True):
                    mine.copy_(each)
        if done * MEASUREMENTS // self.steps > (done - 1) * MEASUREMENTS // self.steps:
            state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
            self.measured.append((self.loss(model.eval()), state))
            model.train()

    @torch.inference_mode()
    def loss(self, model: Tagger) -> float:
        """The loss of the held-out clips."""
        return float(nn.functional.binary_cross_entropy_with_logits(model(self.sounds, self.spans), self.targets))

    def kept(self, model: Tagger) -> Iterator[tuple[str, Tagger]]:
        """What each way to keep weights keeps; the last is the model itself."""
        yield LAST, model
        for decay, average in self.averages.items():
            yield f"EMA {decay:g}", average
        ranked = [state for _, state in sorted(self.measured, key=lambda each: each[0])]
        for name, states in (("best", ranked[:1]), (f"mean of the best {BEST}", ranked[:BEST])):
            other = copy.deepcopy(model)
            other.load_state_dict(mean_weights(states))
            yield name, other.eval()


def run(folder: Path, data: str, part: Part, rule: str, seed: int) -> dict[str, Any]:
    """One training: mAP on the test clips, in points, by what is kept."""
    began = time.process_time()
    fold = _fold(folder)
    apart = held_out(fold.store("masks").clips["path"].to_pylist(), DEFAULT_HOLD_OUT)
    watch = Watch(fold, fold.clips[apart], part.steps)
    rows = fold.clips[~apart]
    rates: dict[str, Any] = (
        {} if part.net == MODEL else {"highest": default_lr("ced-tiny"), "make": partial(transformer, fold)}
    )
    model = train(fold, ARMS[REFERENCE], WIDTHS[data], seed, part.steps, rows, rule=RULES[rule], after=watch, **rates)
    points = {
        name: score(kept, fold.array("test"), fold.test_labels, fold.test_row_of)["mAP"]
        for name, kept in watch.kept(model)
    }
    return {"mAP": points, "losses": [loss for loss, _ in watch.measured], "seconds": time.process_time() - began}


def transformer(fold: Fold) -> Tagger:
    """The net of CED, narrow, on the log-mels of the ablation: 2 x 8 tokens of a clip of 5 s."""
    front_end = build(MODEL, len(fold.classes), width=1, **FRONT_END).front_end
    model = Ced(len(fold.classes), name="ced-tiny", dim=_DIM, depth=3, heads=4)
    model.front_end = front_end
    model.init_bn[1] = nn.BatchNorm1d(front_end.n_mels, momentum=0.01)
    model.patch_embed.proj = nn.Conv2d(1, _DIM, kernel_size=(16, 8), stride=(16, 8))
    model.freq_pos_embed = nn.Parameter(torch.randn(1, _DIM, front_end.n_mels // 16, 1) * 0.02)
    return model


@lru_cache(maxsize=6)
def _fold(folder: Path) -> Fold:
    return Fold(folder)


def jobs(seeds: int) -> Iterator[tuple[Part, str, str, str, int]]:
    """(part, rule, data, fold, seed) of every run, seed by seed, so that an interruption leaves whole ones."""
    rounds = [
        (seed + part.lag + seeds * (part is PARTS[0] and rule not in _FIRST), part, rule, seed)
        for part, seed in product(PARTS, range(seeds))
        for rule in part.rules
    ]
    for _, part, rule, seed in sorted(rounds, key=lambda each: each[0]):
        for fold, data in product(FOLDS, WIDTHS):
            yield part, rule, data, fold, seed


def key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a run is known by."""
    return tuple(line[name] for name in ("part", "rule", "data", "fold", "seed"))


def prepared(esc10: Path, out: Path) -> Path:
    """The folder of the folds, made where they are not there yet."""
    sizes = Sizes()
    for data, held_out_fold in product(esc10_data(esc10, out, sizes), FOLDS):
        folder = out / data.name / f"fold-{held_out_fold}"
        folder.mkdir(parents=True, exist_ok=True)
        prepare(
            data, held_out_fold, folder, views=sizes.views, steps=sizes.steps, teacher_steps=sizes.teacher_steps,
            stores=("masks",),
        )  # fmt: skip
    return out


def measure(folds: Path, out: Path, seeds: int) -> None:
    """Train whatever is not there yet."""
    torch.set_num_threads(1)
    keep_freed_memory()
    out.mkdir(parents=True, exist_ok=True)
    there = read_lines(out)
    path = out / RUNS
    path.write_text("".join(json.dumps(line) + "\n" for line in there), encoding="utf-8")
    done = {key(line) for line in there}
    with path.open("a", encoding="utf-8") as lines:
        for part, rule, data, fold, seed in jobs(seeds):
            known = {"part": part.name, "rule": rule, "data": data, "fold": fold, "seed": seed}
            if key(known) in done:
                continue
            found = run(folds / data / f"fold-{fold}", data, part, rule, seed)
            lines.write(json.dumps(known | {"values": asdict(RULES[rule])} | found) + "\n")
            lines.flush()
            print(f"{part.name}: {rule}, {data}, fold {fold}, seed {seed}: {found['mAP'][LAST]:.1f}, "
                  f"{found['seconds']:.1f} s", file=sys.stderr, flush=True)  # fmt: skip


Values = dict[tuple[str, int], float]  # (fold, seed) -> points


def values(lines: Sequence[Mapping[str, Any]], part: str, rule: str, data: str, kept: str = LAST) -> Values:
    """mAP of every finished run of an arm, by (fold, seed)."""
    wanted = part, rule, data
    return {
        (line["fold"], line["seed"]): line["mAP"][kept]
        for line in lines
        if (line["part"], line["rule"], line["data"]) == wanted
    }


def report(lines: Sequence[Mapping[str, Any]]) -> str:
    """The tables, Markdown, and what wins."""
    parts = [
        "mAP on the clips of the held-out fold, in points; differences are means over pairs (fold, seed) ± half of the "
        "95 % t-interval, against the first row.\n"
    ]
    for part in PARTS:
        arms = [(rule, rule, LAST) for rule in part.rules]
        arms += [(f"{kept}, of the same runs", DEFAULT, kept) for kept in KEPT[1:]]
        arms.append((f"{CED}, {KEPT[-1]}", CED, KEPT[-1]))
        rows, wins = [], []
        for name, rule, kept in arms:
            cells, found = [name], []
            for data in WIDTHS:
                mine = values(lines, part.name, rule, data, kept)
                against = values(lines, part.name, DEFAULT, data)
                if not mine or not against:
                    cells += ["", "", ""]
                    continue
                interval = t_interval(paired(mine, against))
                found.append(interval)
                first = (rule, kept) == (DEFAULT, LAST)
                cells += [str(len(mine)), f"{sum(mine.values()) / len(mine):.1f}", "" if first else _shown(interval)]
            rows += [cells] * any(cells[1:])
            wins += [name] * (len(found) == len(WIDTHS) and all(each.low > 0 for each in found))
        if not rows:
            continue
        header = ["arm", *(f"{data}: {what}" for data in WIDTHS for what in ("runs", "mAP", "difference"))]
        parts.append(f"### {part.name}\n\n{table(header, rows)}")
        parts.append(f"Better on both: {', '.join(wins) or 'none'}.\n")
    seconds = sum(line["seconds"] for line in lines)
    parts.append(f"{len(lines)} runs of one thread, {seconds / 60:,.0f} min of processor time.\n")
    return "\n".join(parts)


def _shown(interval: Interval) -> str:
    return f"{interval.mean:+.2f}" + (f" ± {interval.half:.2f}" if interval.count > 1 else "")


def plan(seeds: int) -> str:
    """How many runs there are, and minutes of one core that they take."""
    counts: dict[str, int] = {}
    for part, *_ in jobs(seeds):
        counts[part.name] = counts.get(part.name, 0) + 1
    minutes = {part.name: counts[part.name] * part.steps * part.ms / 60_000 for part in PARTS}
    lines = [f"{name}: {count} runs, about {minutes[name]:.0f} min of one core" for name, count in counts.items()]
    return "\n".join([*lines, f"in all {sum(minutes.values()):.0f} min"])


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--esc10", type=Path, help="folder of ESC-10: labels.csv (path, label, fold) and audio/")
    parser.add_argument("--prepared", type=Path, help="the --out of benchmarks.ablation --prepare")
    parser.add_argument("--out", type=Path, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--report", action="store_true", help="only the tables, of the runs that are there")
    parser.add_argument("--plan", action="store_true", help="only how many runs there are, and about how long")
    given = parser.parse_args(arguments)
    if given.plan:
        print(plan(given.seeds))
        return
    if given.out is None or not (given.report or given.esc10 or given.prepared):
        parser.error("give --out, and --esc10 or --prepared")
    if not given.report:
        measure(given.prepared or prepared(given.esc10, given.out), given.out, given.seeds)
    print(report(read_lines(given.out)))


if __name__ == "__main__":
    main()
