"""What a quality costs: bytes a view against what is lost of it, and what students make of it.

    python -m benchmarks.rate curves --out OUT                      # of synthetic ensembles, two minutes
    python -m benchmarks.rate curves --out OUT --prepared DIR       # and of the trained ones that an ablation made
    python -m benchmarks.rate curves --out OUT --store NAME=STORE   # and of a store of all classes, in 16 bits
    python -m benchmarks.rate students --out OUT --prepared DIR     # students of five qualities, of exact targets
    python -m benchmarks.rate report --out OUT                      # the tables and the picture of what is there

``DIR`` is the ``--out`` of ``benchmarks.ablation``: teachers, views and their exact answers of every held-out fold.
Bytes are of the targets alone: classes, codes, rests, and what it takes to find them; draws, names and metadata come to
another 6 to 7 bytes a view (``benchmarks.footprint``), whatever the quality. What is lost is the KL divergence of the
exact answers to what is read back, over all classes. A grid of (bits, K) is measured likewise: stores without a quality
keep no rest, so each gets here the best one that a view can have, which flatters them.

Students share fold, seed, first weights, order and dropout, and differ in their targets alone. Every finished run is a
line of ``OUT/rate.jsonl``; the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.intervals import paired, t_interval
from benchmarks.synthetic import SURE, YAMNET_CED, YAMNET_GENTLE, Case, probabilities
from logitstore import open_store
from logitstore.arrays import F32
from logitstore.store.format import layout, quality
from logitstore.store.format.codec import quantizer
from logitstore.store.format.objects import PACKED, encode_group
from logitstore.store.format.quality import dense

QUALITIES = (0.02, 0.05, 0.1, 0.2, 0.5)  # of the students
ASKED = (0.005, 0.01, *QUALITIES, 1.0, 2.0, 4.0)
GRID = tuple((bits, k) for bits in (4, 6, 8) for k in (3, 5, 10, 20, 50))
MAIN_WIDTHS = {"scenes": 8, "sequences": 4}
MARGIN = 0.3  # points of mAP
_RESULTS = "rate.jsonl"


@dataclass(frozen=True)
class Coded:
    """Answers as a store reads them back: dense float32 (n, V, C), and what that takes and loses."""

    read: F32
    bits: int
    classes: float  # kept a view, in the mean
    loss: float
    size: float  # bytes a view


def coded(said: F32, asked: float, bound: int) -> Coded:
    """Answers (n, V, C) as one block of a store with a quality holds them."""
    clips, views, classes = said.shape
    k = min(bound, classes)
    found = quality.answers(said.reshape(-1, classes), k, "sigmoid")
    chosen = quality.choose(found, asked, "sigmoid", classes, np.ones(clips * views, bool))
    kept = layout.Kept(chosen.counts.reshape(clips, views), chosen.rests.reshape(clips, views), chosen.bits)
    shape = (clips, views, k)
    targets = layout.Targets(found.classes.reshape(shape), chosen.codes.reshape(shape), np.ones(clips, bool), kept)
    read = _read(found.classes, chosen.codes, chosen.counts, quality.REST.table()[chosen.rests], classes)
    loss = float(quality.loss(said.reshape(-1, classes), read, "sigmoid").mean())
    size = _size(targets, classes, 4) / (clips * views)
    return Coded(read.reshape(said.shape), chosen.bits, float(chosen.counts.mean()), loss, size)


def coded_as_grid(said: F32, bits: int, k: int) -> Coded:
    """Answers (n, V, C) as one block of a store of so many bits and classes holds them, with the best of rests."""
    clips, views, classes = said.shape
    found = quality.answers(said.reshape(-1, classes), k, "sigmoid")
    scale = quantizer("sigmoid", bits)
    codes, shape = scale.encode(found.probabilities), (clips, views, k)
    order = np.lexsort((found.classes, -codes.astype(np.int64)), axis=1)
    stored, ordered = (np.take_along_axis(each, order, axis=1).reshape(shape) for each in (found.classes, codes))
    size = _size(layout.Targets(stored, ordered, np.ones(clips, bool)), classes, 3) / (clips * views)
    counts = np.full(clips * views, k)
    read = _read(found.classes, codes, counts, quality.REST.table()[found.rests[:, -1]], classes, scale.table())
    loss = float(quality.loss(said.reshape(-1, classes), read, "sigmoid").mean())
    return Coded(read.reshape(said.shape), bits, k, loss, size)


def _read(classes: Any, codes: Any, counts: Any, rests: F32, class_count: int, table: F32 | None = None) -> F32:
    values = (quantizer("sigmoid", quality.VALUE_BITS).table() if table is None else table)[codes]
    used = np.arange(classes.shape[1]) < counts[:, None]
    return dense(np.where(used, classes, class_count), values, class_count, rests)


def _size(targets: layout.Targets, classes: int, version: int) -> int:
    """Bytes of the packed arrays of a block."""
    objects = encode_group({}, {}, {PACKED: layout.encode_targets(targets, classes, 1, version=version)})
    return sum(len(data) for data in objects.values())


# curves


def ensembles(prepared: Path | None, stores: list[str]) -> Iterator[tuple[str, F32]]:
    """The ensembles by name, and what each says: float32 (clips, views, classes)."""
    for name, ensemble, classes, noise in (
        ("sure", SURE, 527, 0.35), ("as YAMNet, ced", YAMNET_CED, 521, None),
        ("as YAMNet, gentle", YAMNET_GENTLE, 521, None),
    ):  # fmt: skip
        yield name, np.concatenate([*probabilities(Case(256, classes, noise=noise, ensemble=ensemble))])
    for given in stores:
        name, _, place = given.partition("=")
        store = open_store(place)
        if store.manifest.topk < len(store.manifest.classes):
            raise SystemExit(f"{place} does not keep all classes; build it with --topk {len(store.manifest.classes)}")
        clips = np.intersect1d(store.clips_of(0), store.clips_of(store.views - 1))
        said = [dense(*store.targets(view, clips), len(store.manifest.classes), None) for view in range(store.views)]
        yield name, np.stack(said, axis=1)
    for folder in [] if prepared is None else sorted(prepared.glob("*/fold-1")):
        exact = np.load(folder / "exact.npy", mmap_mode="r")[0, :10]
        yield f"trained, {folder.parent.name}", np.ascontiguousarray(exact.transpose(1, 0, 2))


def curves(out: Path, prepared: Path | None, stores: list[str]) -> None:
    """Measure every point that is not there yet."""
    done = {(line["of"], line["asked"], line["bound"]) for line in _lines(out) if line["kind"] == "curve"}
    for name, said in ensembles(prepared, stores):
        points = [(asked, bound) for bound in (20, quality.MOST_CLASSES_KEPT) for asked in ASKED]
        if said.shape[2] <= 20:
            points = [(asked, bound) for asked, bound in points if bound == 20]
        for asked, bound in points:
            if (name, asked, bound) not in done:
                _add(out, kind="curve", of=name, asked=asked, bound=bound, **_numbers(coded(said, asked, bound)))
        for bits, k in GRID:
            if k <= said.shape[2] and (name, None, f"{bits} bits, K = {k}") not in done:
                found = coded_as_grid(said, bits, k)
                _add(out, kind="curve", of=name, asked=None, bound=f"{bits} bits, K = {k}", **_numbers(found))


def _numbers(found: Coded) -> dict[str, float]:
    return {"bits": found.bits, "classes": round(found.classes, 2), "loss": found.loss, "size": round(found.size, 2)}


# students


def arms(zero: bool, asked_for: Sequence[float] = QUALITIES) -> dict[str, tuple[float | None, str]]:
    """The students by name: the quality, None for exact targets; and what stands for classes that are not kept.

    :param zero: whether there are students, too, that learn 0 for these.
    """
    named: dict[str, tuple[float | None, str]] = {"exact": (None, "")}
    named |= {f"{asked:g} nats": (asked, "stored") for asked in asked_for}
    return named | {f"{asked:g} nats, tail zero": (asked, "zero") for asked in (0.1, 0.5) if zero}


def students(
    out: Path, prepared: Path, folds: list[str], seeds: int, steps: int, asked_for: Sequence[float], zero: bool
) -> None:
    """Train and measure whatever is not there yet, seed after seed."""
    from benchmarks.arms import Arm
    from benchmarks.cached import score, train
    from benchmarks.folds import Fold

    class Targets(Fold):
        """A fold whose targets are those of some arm."""

        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            self.read: F32 | None = None

        def targets(self, arm: Arm, epoch: int) -> F32:
            of_view: F32 = self.array("exact")[0] if self.read is None else self.read
            targets: F32 = of_view[self.view(arm, epoch)]
            return targets

    told = [each for each in _lines(out) if each["kind"] == "student"]
    done = {(each["data"], each["fold"], each["arm"], each["seed"]) for each in told}
    kept: dict[tuple[str, str], dict[float, Coded]] = {}
    for seed in range(seeds):
        for data, width in MAIN_WIDTHS.items():
            for number in folds:
                fold = Targets(prepared / data / f"fold-{number}")
                exact = np.ascontiguousarray(fold.array("exact")[0].transpose(1, 0, 2))
                made: dict[float, Coded] = kept.setdefault((data, number), {})
                for name, (asked, tail) in arms(zero, asked_for).items():
                    if (data, number, name, seed) in done:
                        continue
                    found = None if asked is None else made.get(asked) or coded(exact, asked, 20)
                    if asked is not None and found is not None:
                        made[asked] = found
                    fold.read = None if found is None else _as_learnt(found, tail)
                    model = train(fold, Arm(target="exact"), width, seed, steps)
                    scores = score(model, fold.array("test"), fold.test_labels, fold.test_row_of)
                    size = {} if found is None else _numbers(found)
                    _add(out, kind="student", data=data, fold=number, arm=name, seed=seed, mAP=scores["mAP"], **size)


def _as_learnt(found: Coded, tail: str) -> F32:
    """Targets (V, n, C); with the tail ``zero`` what is not kept is 0."""
    read = found.read.transpose(1, 0, 2)
    if tail == "stored":
        return np.ascontiguousarray(read)
    rest = quality.REST.table()
    return np.where(np.isin(read, rest), np.float32(0), read)


# report


def report(out: Path) -> None:
    """Print the tables, and draw the picture."""
    lines = _lines(out)
    told = [line for line in lines if line["kind"] == "curve"]
    for name in dict.fromkeys(line["of"] for line in told):
        print(f"\n**{name}**\n\n| asked (nats) | at most | bits | classes a view | lost (nats) | bytes a view |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        for line in (each for each in told if each["of"] == name):
            asked = "" if line["asked"] is None else f"{line['asked']:g}"
            print(f"| {asked} | {line['bound']} | {line['bits']} | {line['classes']:.1f} | {line['loss']:.3f} | "
                  f"{line['size']:.2f} |")  # fmt: skip
    runs = [line for line in lines if line["kind"] == "student"]
    if runs:
        print(
            "\n| students | " + " | ".join(f"{data}: bits, classes, bytes, mAP - exact" for data in MAIN_WIDTHS) + " |"
        )
        print("| --- |" + " --- |" * len(MAIN_WIDTHS))
    for name in arms(True) if runs else ():
        cells = []
        for data in MAIN_WIDTHS:
            here = [line for line in runs if line["data"] == data]
            of = {arm: {(each["fold"], each["seed"]): each["mAP"] for each in here if each["arm"] == arm}
                  for arm in (name, "exact")}  # fmt: skip
            mean = np.mean([*of[name].values()]) if of[name] else float("nan")
            if name == "exact" or not of[name]:
                cells.append(f"mAP {mean:.2f} of {len(of[name])}" if of[name] else "")
                continue
            found = t_interval(paired(of[name], of["exact"]))
            shown = [each for each in here if each["arm"] == name]
            bits, classes, size = (np.mean([each[key] for each in shown]) for key in ("bits", "classes", "size"))
            inside = "inside" if found.inside(MARGIN) else "not inside"
            cells.append(f"{bits:.1f}, {classes:.1f}, {size:.1f}, {found.mean:+.2f} "
                         f"[{found.low:+.2f}, {found.high:+.2f}] of {found.count}, {inside} {MARGIN}")  # fmt: skip
        print(f"| {name} | " + " | ".join(cells) + " |")
    _picture(out, told)


def _picture(out: Path, told: list[dict[str, Any]]) -> None:
    """Rate-distortion curves, one field an ensemble, as ``OUT/rate.png``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(line["of"] for line in told))
    figure, fields = pyplot.subplots(1, max(1, len(names)), figsize=(3.6 * max(1, len(names)), 3.4), squeeze=False)
    for field, name in zip(fields[0], names, strict=False):
        here = [line for line in told if line["of"] == name]
        for bound, style in ((20, "o-"), (quality.MOST_CLASSES_KEPT, "s--")):
            points = sorted((each["size"], each["loss"]) for each in here if each["bound"] == bound)
            if points:
                field.plot(*zip(*points, strict=True), style, ms=3, label=f"--quality, up to {bound} classes")
        grid = [each for each in here if each["asked"] is None]
        field.plot([each["size"] for each in grid], [each["loss"] for each in grid], "kx", ms=4, label="bits x K")
        field.set(title=name, xlabel="bytes a view (targets)", xscale="log", yscale="log")
        low, high = field.get_xlim()
        ticks = [size for size in (1, 2, 5, 10, 20, 50, 100) if low <= size <= high]
        field.set_xticks(ticks, labels=map(str, ticks))
        field.minorticks_off()
    fields[0][0].set_ylabel("lost, nats a view")
    fields[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out / "rate.png", dpi=110)
    print(f"\n{out / 'rate.png'}")


def _lines(out: Path) -> list[dict[str, Any]]:
    file = out / _RESULTS
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def _add(out: Path, **line: Any) -> None:
    out.mkdir(parents=True, exist_ok=True)
    with (out / _RESULTS).open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curves", "students", "report"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prepared", type=Path, help="the --out of benchmarks.ablation --prepare")
    parser.add_argument("--store", action="append", default=[], metavar="NAME=STORE")
    parser.add_argument("--folds", default="1,2", help="of students")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=520)
    parser.add_argument("--zero", action="store_true", help="students, too, whose tail is zero")
    parser.add_argument("--asked", default=",".join(map(str, QUALITIES)), help="qualities of the students, in nats")
    given = parser.parse_args()
    asked = [float(each) for each in given.asked.split(",")]
    if given.what == "curves":
        curves(given.out, given.prepared, given.store)
    elif given.what == "report":
        report(given.out)
    elif given.prepared is None:
        parser.error("students need --prepared DIR")
    else:
        students(given.out, given.prepared, given.folds.split(","), given.seeds, given.steps, asked, given.zero)


if __name__ == "__main__":
    main()
