"""Data sets made of ESC-10, harder than its single labels: scenes, sequences, and varied ones.

*scenes*: two or three clips of different classes at once, each rolled, brought to one power and then changed by up to
10 dB. *sequences*: four events of 1 s one after the other, in slots of 1.25 s, at changed levels, in white noise 10 dB
below one event: what is heard depends on when one listens. *varied*: one to five events of 0.25 to 2.5 s, short ones
more often, anywhere, also at once, in the same noise. All have every class that is in them as a label, are 5 s long at
16 kHz, and are written as FLAC beside a manifest with the columns path, label, fold and number; where there are events,
their times stand in ``events.tsv``: filename, onset, offset (s), event_label.

Every scene is made of clips of one fold of ESC-10, and belongs to it; so a fold that is held out is held out whole.
Scene ``number`` of a fold depends only on (seed, data set, fold, number).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
MOST_EVENTS, SHORTEST, LONGEST = 5, 0.25, 2.5
PEAK = 0.9
MANIFEST, STRONG = "labels.csv", "events.tsv"

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


@dataclass(frozen=True)
class Scene:
    """Float32 ``wave`` (SAMPLES,), the ``labels`` in it, and its ``events``: onset, offset (samples) and label."""

    wave: F32
    labels: Sequence[str]
    events: Sequence[tuple[int, int, str]] = ()


def scene(random: np.random.Generator, clips: Clips, fold: str) -> Scene:
    """Two or three clips of different classes at once."""
    labels = sorted(clips.by_fold[fold])
    chosen = random.choice(len(labels), size=min(len(labels), int(random.integers(2, 4))), replace=False)
    mix = np.zeros(SAMPLES, dtype=np.float64)
    for label in chosen:
        clip = clips.pick(random, fold, labels[label])[:SAMPLES]
        padded = np.zeros(SAMPLES)
        padded[: len(clip)] = clip
        mix += np.roll(_levelled(random, padded), int(random.integers(SAMPLES)))
    return Scene(_peaked(mix), [labels[label] for label in chosen])


def sequence(random: np.random.Generator, clips: Clips, fold: str) -> Scene:
    """Four events one after the other in noise, of classes one of which may come again."""
    labels = sorted(clips.by_fold[fold])
    chosen = random.integers(len(labels), size=EVENTS)
    mix = random.standard_normal(SAMPLES) * 10 ** (NOISE_DB / 20)
    slot = SAMPLES // EVENTS
    events = []
    for number, label in enumerate(chosen):
        event = _levelled(random, _loudest(clips.pick(random, fold, labels[label]), _EVENT))
        start = number * slot + int(random.integers(slot - _EVENT + 1))
        events.append(_laid(mix, event, start, labels[label]))
    return Scene(_peaked(mix), [label for *_, label in events], events)


def varied(random: np.random.Generator, clips: Clips, fold: str) -> Scene:
    """One to five events of any lengths, short ones more often, anywhere in noise, of classes that may come again."""
    labels = sorted(clips.by_fold[fold])
    mix = random.standard_normal(SAMPLES) * 10 ** (NOISE_DB / 20)
    events = []
    for label in random.integers(len(labels), size=int(random.integers(1, MOST_EVENTS + 1))):
        length = int(RATE * np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST))))
        event = _levelled(random, _loudest(clips.pick(random, fold, labels[label]), length))
        events.append(_laid(mix, event, int(random.integers(SAMPLES - length + 1)), labels[label]))
    return Scene(_peaked(mix), [label for *_, label in events], sorted(events))


#: The data sets of the ablation; and all.
KINDS: Mapping[str, Callable[[np.random.Generator, Clips, str], Scene]] = {"scenes": scene, "sequences": sequence}
ALL = {**KINDS, "varied": varied}


def write(kind: str, esc10: Path, out: Path, counts: Mapping[str, int], seed: int = 0) -> Path:
    """Write a data set to ``out/audio`` and its manifest, which is returned; nothing is done where that is there.

    :param kind: "scenes", "sequences" or "varied". :param esc10: the folder of ESC-10.
    :param counts: how many of every fold.
    """
    manifest = out / MANIFEST
    if manifest.is_file():
        return manifest
    rows, events = [], []
    for path, fold, number, made in _scenes(kind, esc10, counts, seed):
        (out / "audio" / fold).mkdir(parents=True, exist_ok=True)
        soundfile.write(out / "audio" / path, made.wave, RATE, subtype="PCM_16")
        rows.append([path, ";".join(sorted(set(made.labels))), fold, number])
        events += _lines(path, made)
    if events:
        _write(out / STRONG, "\t", [_STRONG_COLUMNS, *events])
    _write(manifest, ",", [["path", "label", "fold", "number"], *rows])
    return manifest


def write_events(kind: str, esc10: Path, counts: Mapping[str, int], file: Path, seed: int = 0) -> Path:
    """Write the times of a data set's events, as :func:`write` does, without its audio: for a set that was made before.

    :raises ValueError: a kind without events.
    """
    lines = [line for path, _, _, made in _scenes(kind, esc10, counts, seed) for line in _lines(path, made)]
    if not lines:
        raise ValueError(f"{kind} have no events")
    _write(file, "\t", [_STRONG_COLUMNS, *lines])
    return file


_STRONG_COLUMNS = ["filename", "onset", "offset", "event_label"]


def _scenes(kind: str, esc10: Path, counts: Mapping[str, int], seed: int) -> Iterator[tuple[str, str, int, Scene]]:
    """Path, fold, number and scene, one after the other."""
    clips = Clips(esc10)
    for fold, count in counts.items():
        for number in range(count):
            random = np.random.default_rng(derived_seed(kind, seed, fold, number))
            yield f"{fold}/{number:04d}.flac", fold, number, ALL[kind](random, clips, fold)


def _lines(path: str, made: Scene) -> list[list[str]]:
    return [[path, f"{start / RATE:.4f}", f"{stop / RATE:.4f}", label] for start, stop, label in made.events]


def _write(file: Path, delimiter: str, rows: Sequence[Sequence[object]]) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("w", newline="", encoding="utf-8") as lines:
        csv.writer(lines, delimiter=delimiter, lineterminator="\n" if delimiter == "\t" else "\r\n").writerows(rows)
    partial.replace(file)


def _laid(mix: npt.NDArray[np.float64], event: npt.NDArray[np.float64], start: int, label: str) -> tuple[int, int, str]:
    """Add an event to a mix, faded in and out; returns where it lies."""
    length = len(event)
    fade = np.minimum(1.0, np.minimum(np.arange(length) + 1, np.arange(length)[::-1] + 1) / _FADE)
    mix[start : start + length] += event * fade
    return start, start + length, label


def _loudest(clip: F32, length: int) -> F32:
    """The loudest stretch of a clip of some length, a shorter clip padded."""
    padded = np.zeros(max(length, len(clip)), dtype=np.float64)
    padded[: len(clip)] = clip
    energy = np.concatenate([[0.0], np.cumsum(padded * padded)])
    start = int(np.argmax(energy[length:] - energy[:-length]))
    return padded[start : start + length].astype(np.float32)


def _levelled(random: np.random.Generator, wave: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """A wave at unit power, changed by up to ``GAIN_DB``."""
    power = float(np.mean(np.square(wave, dtype=np.float64)))
    gain = 10 ** (random.uniform(-GAIN_DB, GAIN_DB) / 20)
    return np.asarray(wave, dtype=np.float64) * (gain / np.sqrt(power) if power > 0 else 0.0)


def _peaked(mix: npt.NDArray[np.float64]) -> F32:
    peak = float(np.abs(mix).max())
    return (mix * (PEAK / peak if peak > 0 else 0.0)).astype(np.float32)
