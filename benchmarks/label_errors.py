"""How well ``@label_errors`` finds labels that were made wrong: AUROC, and precision among the first 40.

    python -m benchmarks.label_errors --store STORE [--store …] --label-column label
    python -m benchmarks.label_errors --store STORE --labels labels.csv   # joined by path
    python -m benchmarks.label_errors --made                              # answers of known confusion

A share of the clips, drawn at random, gets one of its labels replaced by another of the collection's, drawn at random
among those that it has not. That is done in memory, for five seeds; the store is only read. Beside the question stand
two plain baselines: ``entropy``, the mean entropy of a clip's views, which knows no labels; and, where labels are
classes of the store, ``1 - p``, one less the mean probability of the label (of several the least likely one). Intervals
are 95 % ones of the mean over the seeds (Student's t). What is wrong in the labels to begin with counts as right: no
method can reach 1 on labels that are not clean.

``--made`` draws answers: 4,000 clips of 40 labels whose counts fall like 1 / rank. A label raises the logits of six of
527 classes, none of which is called by its name, and shares three of them with one sibling.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.metrics import roc_auc_score

from benchmarks.intervals import t_interval
from logitstore.arrays import F64, Bool
from logitstore.queries import asked
from logitstore.sql.limits import Limits
from logitstore.sql.sandbox import Sandbox
from logitstore.store.reader import Store, open_store
from logitstore.store.sql.tables import tables

SEEDS = 5
FIRST = 40


@dataclass(frozen=True)
class Found:
    """How a ranking does on labels of which some are wrong: of each seed, float64 (SEEDS,)."""

    auroc: F64
    precision: F64

    def line(self) -> str:
        """The means with their intervals."""
        parts = []
        for values in (self.auroc, self.precision):
            found = t_interval(values.tolist())
            parts.append(f"{found.mean:.4f} +- {found.half:.4f}")
        return "   ".join(parts)


def corrupted(labels: Sequence[tuple[str, ...]], share: float, seed: int) -> tuple[list[tuple[str, ...]], Bool]:
    """The labels of each clip, one replaced in a share of those that have any, and where: bool (n,)."""
    random = np.random.default_rng(seed)
    every = sorted({label for each in labels for label in each})
    labelled = np.flatnonzero([0 < len(each) < len(every) for each in labels])
    wrong = np.zeros(len(labels), dtype=bool)
    wrong[random.permutation(labelled)[: round(share * len(labelled))]] = True
    changed = list(labels)
    for clip in np.flatnonzero(wrong).tolist():
        out = labels[clip][int(random.integers(len(labels[clip])))]
        others = [label for label in every if label not in labels[clip]]
        new = others[int(random.integers(len(others)))]
        changed[clip] = tuple(new if label == out else label for label in labels[clip])
    return changed, wrong


def ask(store: Store, question: str, clips: pa.Table, **values: Any) -> pa.Table:
    """The answer to a question of a store whose clip table is another one."""
    makers = dict(tables(store)) | {"clips": lambda: clips}
    sql, given = asked(question, values, makers, store.location, lambda: clips.column_names)
    with Sandbox(Limits.of("0", "4GB", "8GB")) as sandbox:
        for name in ("clips", "views", "topk", "teachers"):
            sandbox.register(name, makers[name]())
        with sandbox.stream(sql, given) as reader:
            return reader.read_all()


def with_labels(store: Store, labels: Sequence[tuple[str, ...]]) -> pa.Table:
    """A store's clip table with the column ``label`` of lists."""
    table = tables(store)["clips"]().scanner(["clip", "path", "start", "length", "rate"]).to_reader().read_all()
    return table.append_column("label", pa.array([list(each) for each in labels], pa.list_(pa.string())))


def measure(store: Store, labels: Sequence[tuple[str, ...]], share: float) -> dict[str, Found]:
    """What the question, and each baseline, finds."""
    plain = ask(store, "@measures", with_labels(store, labels))
    entropy = dict(zip(plain["clip"].to_pylist(), plain["entropy"].to_pylist(), strict=True))
    classes = {name: number for number, name in enumerate(store.manifest.classes)}
    mean = _means(store) if all(label in classes for each in labels for label in each) else None
    scores: dict[str, list[tuple[float, float]]] = {}
    for seed in range(SEEDS):
        changed, wrong = corrupted(labels, share, seed)
        answer = ask(store, "@label_errors", with_labels(store, changed), limit=len(labels))
        clips = answer["clip"].to_numpy()
        ranked = {"@label_errors": answer["score"].to_numpy()}
        ranked["entropy"] = np.array([entropy[clip] for clip in clips.tolist()])
        if mean is not None:
            ranked["1 - p"] = np.array(
                [1 - min(mean[clip, classes[label]] for label in changed[clip]) for clip in clips.tolist()]
            )
        for name, score in ranked.items():
            first = np.argsort(-score, kind="stable")[:FIRST]
            area = float(roc_auc_score(wrong[clips], score))
            scores.setdefault(name, []).append((area, float(wrong[clips][first].mean())))
    return {name: Found(*np.array(each).T) for name, each in scores.items()}


def _means(store: Store) -> F64:
    """The mean over the views of every clip's answer, float64 (clips, C); what is not stored counts as 0."""
    total, seen = np.zeros((len(store), len(store.manifest.classes))), np.zeros(len(store))
    for view in range(store.views):
        clips = store.clips_of(view)
        classes, probabilities = store.targets(view, clips)
        np.add.at(total, (clips[:, None], classes.astype(np.int64)), probabilities.astype(np.float64))
        seen[clips] += 1
    return total / np.maximum(seen, 1)[:, None]


def make(folder: Path, clips: int = 4000, labels: int = 40, views: int = 3) -> list[tuple[str, ...]]:
    """Write a store of made answers; the true label of every clip is returned."""
    from benchmarks.footprint import write_store
    from benchmarks.synthetic import clip_names

    random, count, k = np.random.default_rng(0), 527, 20
    raised = np.zeros((labels, count))
    for label in range(labels):
        own = random.choice(count, 6, replace=False)
        if label % 2:
            own[:3] = np.flatnonzero(raised[label - 1])[:3]
        raised[label, own] = random.uniform(3, 6, 6)
    share = 1 / np.arange(1, labels + 1)
    of = random.choice(labels, clips, p=share / share.sum())
    prior = random.normal(-7, 1, count)
    level = prior + raised[of] * random.uniform(0.4, 1.2, (clips, count)) + random.normal(0, 1, (clips, count))
    logits = level[:, None] + random.normal(0, 0.7, (clips, views, count))
    best = np.argsort(-logits, axis=2, kind="stable")[..., :k]
    values = 1 / (1 + np.exp(-np.take_along_axis(logits, best, 2)))
    write_store(folder, clip_names(clips), best.astype(np.uint16), values.astype(np.float32), count, 8)
    return [(f"label {label}",) for label in of.tolist()]


def labels_of(store: Store, column: str, separator: str, file: str | None) -> list[tuple[str, ...]]:
    """The labels of each clip, from its own column or from a CSV file by path."""
    if file is None:
        cells = store.clips[column].to_pylist()
    else:
        with Path(file).open(encoding="utf-8", newline="") as lines:
            by_path = {row["path"]: row[column] for row in csv.DictReader(lines)}
        cells = [by_path.get(path) for path in store.clips["path"].to_pylist()]
    split = [cell if isinstance(cell, list) else str(cell or "").split(separator) for cell in cells]
    return [tuple(dict.fromkeys(label.strip() for label in each if label.strip())) for each in split]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", action="append", default=[], help="a store to ask; repeatable")
    parser.add_argument("--made", action="store_true", help="made answers of known confusion")
    parser.add_argument("--labels", help="a CSV file with the columns path and --label-column")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--label-separator", default=";")
    parser.add_argument("--share", type=float, default=0.1, help="share of the clips that get a wrong label")
    options = parser.parse_args()
    print(f"{'AUROC':>16}   {'precision at 40':>17}   method, {options.share:.0%} of the labels wrong")
    with tempfile.TemporaryDirectory() as folder:
        cases = []
        if options.made:
            made = make(Path(folder) / "made")
            cases.append((open_store(f"{folder}/made"), made))
        for place in options.store:
            store = open_store(place)
            cases.append((store, labels_of(store, options.label_column, options.label_separator, options.labels)))
        for store, labels in cases:
            print(f"{store!r}, {len({label for each in labels for label in each})} labels")
            for name, found in measure(store, labels, options.share).items():
                print(f"{found.line()}   {name}", flush=True)


if __name__ == "__main__":
    main()
