"""Two data sets made of ESC-10, harder than its single labels: scenes and sequences.

*scenes*: two or three clips of different classes at once, each rolled, brought to one power and then changed by up to
10 dB. *sequences*: four events of 1 s one after the other, in slots of 1.25 s, at changed levels, in white noise 10 dB
below one event: what is heard depends on when one listens. Both have every class that is in them as a label, are 5 s
long at 16 kHz, and are written as FLAC beside a manifest with the columns path, label, fold and number.

Every scene is made of clips of one fold of ESC-10, and belongs to it; so a fold that is held out is held out whole.
Scene ``number`` of a fold depends only on (seed, data set, fold, number).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from logitstore.arrays import F32
from logitstore.audio.clips import ClipAudio
from logitstore.digests import derived_seed
from logitstore.evaluation.labelled import read_labelled

RATE, SECONDS = 16_000, 5.0
SAMPLES = int(RATE * SECONDS)
GAIN_DB = 10.0
EVENTS, EVENT_SECONDS, NOISE_DB = 4, 1.0, -10.0
PEAK = 0.9
MANIFEST = "labels.csv"

_EVENT = int(RATE * EVENT_SECONDS)
_FADE = RATE // 100  # 10 ms
_CACHE_BYTES = 1 << 30


class Clips:
    """The clips of ESC-10 by fold and class, decoded when used: ``folder`` holds labels.csv and audio/."""

    def __init__(self, folder: Path) -> None:
        labelled = read_labelled(str(folder / "labels.csv"), str(folder / "audio"), "label", clip_seconds=60.0)
        self._audio = ClipAudio(labelled.source, labelled.table, RATE, _CACHE_BYTES)
        self.by_fold: dict[str, dict[str, list[int]]] = {}
        for row, fold in enumerate(labelled.table["fold"].to_pylist()):
            (label,) = labelled.labels[labelled.row_of[row]]  # clips lie in the order of their paths
            self.by_fold.setdefault(str(fold), {}).setdefault(label, []).append(row)

    def pick(self, random: np.random.Generator, fold: str, label: str) -> F32:
        """Some clip of a fold and class, at 16 kHz."""
        rows = self.by_fold[fold][label]
        return self._audio[rows[int(random.integers(len(rows)))]]


def scene(random: np.random.Generator, clips: Clips, fold: str) -> tuple[F32, list[str]]:
    """Two or three clips of different classes at once; float32 (SAMPLES,) and their classes."""
    labels = sorted(clips.by_fold[fold])
    chosen = random.choice(len(labels), size=min(len(labels), int(random.integers(2, 4))), replace=False)
    mix = np.zeros(SAMPLES, dtype=np.float64)
    for label in chosen:
        clip = clips.pick(random, fold, labels[label])[:SAMPLES]
        padded = np.zeros(SAMPLES)
        padded[: len(clip)] = clip
        mix += np.roll(_levelled(random, padded), int(random.integers(SAMPLES)))
    return _peaked(mix), [labels[label] for label in chosen]


def sequence(random: np.random.Generator, clips: Clips, fold: str) -> tuple[F32, list[str]]:
    """Four events one after the other in noise; float32 (SAMPLES,) and their classes, one of which may come again."""
    labels = sorted(clips.by_fold[fold])
    chosen = random.integers(len(labels), size=EVENTS)
    mix = random.standard_normal(SAMPLES) * 10 ** (NOISE_DB / 20)
    slot = SAMPLES // EVENTS
    fade = np.minimum(1.0, np.minimum(np.arange(_EVENT) + 1, np.arange(_EVENT)[::-1] + 1) / _FADE)
    for number, label in enumerate(chosen):
        event = _levelled(random, _loudest(clips.pick(random, fold, labels[label])))
        start = number * slot + int(random.integers(slot - _EVENT + 1))
        mix[start : start + _EVENT] += event * fade
    return _peaked(mix), [labels[label] for label in chosen]


KINDS: Mapping[str, Callable[[np.random.Generator, Clips, str], tuple[F32, list[str]]]] = {
    "scenes": scene,
    "sequences": sequence,
}


def write(kind: str, esc10: Path, out: Path, counts: Mapping[str, int], seed: int = 0) -> Path:
    """Write a data set to ``out/audio`` and its manifest, which is returned; nothing is done where that is there.

    :param kind: "scenes" or "sequences". :param esc10: the folder of ESC-10.
    :param counts: how many of every fold.
    """
    manifest = out / MANIFEST
    if manifest.is_file():
        return manifest
    clips = Clips(esc10)
    rows = []
    for fold, count in counts.items():
        (out / "audio" / fold).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            random = np.random.default_rng(derived_seed(kind, seed, fold, number))
            wave, labels = KINDS[kind](random, clips, fold)
            path = f"{fold}/{number:04d}.flac"
            soundfile.write(out / "audio" / path, wave, RATE, subtype="PCM_16")
            rows.append([path, ";".join(sorted(set(labels))), fold, number])
    partial = manifest.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines).writerows([["path", "label", "fold", "number"], *rows])
    partial.replace(manifest)
    return manifest


def _loudest(clip: F32) -> F32:
    """The loudest second of a clip, a shorter clip padded."""
    padded = np.zeros(max(_EVENT, len(clip)), dtype=np.float64)
    padded[: len(clip)] = clip
    energy = np.concatenate([[0.0], np.cumsum(padded * padded)])
    start = int(np.argmax(energy[_EVENT:] - energy[:-_EVENT]))
    return padded[start : start + _EVENT].astype(np.float32)


def _levelled(random: np.random.Generator, wave: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """A wave at unit power, changed by up to ``GAIN_DB``."""
    power = float(np.mean(np.square(wave, dtype=np.float64)))
    gain = 10 ** (random.uniform(-GAIN_DB, GAIN_DB) / 20)
    return np.asarray(wave, dtype=np.float64) * (gain / np.sqrt(power) if power > 0 else 0.0)


def _peaked(mix: npt.NDArray[np.float64]) -> F32:
    peak = float(np.abs(mix).max())
    return (mix * (PEAK / peak if peak > 0 else 0.0)).astype(np.float32)
