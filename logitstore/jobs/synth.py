"""A small labelled set of synthetic sound events, different at every seed: what the demo learns from.

Every class is a kind of sound (a harmonic tone, a glide, a warble, a band of noise, a train of clicks, a two-tone
call) with parameters drawn from the seed, so neighbouring classes differ by little. A clip is a scene of a few events
at random times, levels and small detunings, over coloured noise.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F64

RATE = 16_000
LEAST_HZ, MOST_HZ = 150.0, 6000.0
EVENT_SECONDS = (0.5, 1.6)
LEVEL_DB = (-18.0, -4.0)
DETUNE = 0.02


@dataclass(frozen=True)
class EventClass:
    """A class of sound events: its name, its kind and two parameters of that kind."""

    name: str
    kind: str
    hz: float
    shape: float


def event_classes(count: int, seed: int) -> list[EventClass]:
    """``count`` classes drawn from a seed; the kinds take turns."""
    random = np.random.default_rng([seed, 1])
    kinds = list(KINDS)
    a_kind = -(-count // len(kinds))
    found = []
    for number in range(count):
        kind, place = kinds[number % len(kinds)], number // len(kinds)
        # a kind's classes share the octaves from LEAST_HZ to MOST_HZ / 2, each somewhere in its own part of them
        share = (place + random.uniform(0.2, 0.8)) / a_kind
        hz = LEAST_HZ * (MOST_HZ / 2 / LEAST_HZ) ** share
        found.append(EventClass(f"{kind} {place + 1:02d}", kind, float(hz), float(random.uniform())))
    return found


def write_scenes(
    folder: Path, *, clips: int, test_clips: int, classes: int, seconds: float, seed: int
) -> tuple[Path, list[str]]:
    """Write ``folder/audio/*.flac`` and ``folder/scenes.csv`` with the columns path, labels (``;``-separated), split.

    :returns: the manifest and the class names, sorted.
    """
    import soundfile

    kinds = event_classes(classes, seed)
    audio = folder / "audio"
    audio.mkdir(parents=True, exist_ok=True)
    manifest = folder / "scenes.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["path", "labels", "split"])
        for number in range(clips + test_clips):
            random = np.random.default_rng([seed, 2, number])
            # every class comes up equally often: classes are dealt in shuffled rounds
            chosen = [kinds[i] for i in _deal(classes, number, seed)]
            name = f"{number:05d}.flac"
            soundfile.write(audio / name, scene(chosen, seconds, random), RATE, subtype="PCM_16")
            labels = ";".join(sorted(event.name for event in chosen))
            rows.writerow([name, labels, "train" if number < clips else "test"])
    return manifest, sorted(event.name for event in kinds)


def scene(events: list[EventClass], seconds: float, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """One clip: the events at random places and levels, over noise; float32 in [-1, 1]."""
    samples = int(seconds * RATE)
    mix = _coloured_noise(samples, random) * 10 ** (random.uniform(-45, -28) / 20)
    for event in events:
        length = int(random.uniform(*EVENT_SECONDS) * RATE)
        start = int(random.integers(0, samples - length))
        detuned = event.hz * (1 + random.uniform(-DETUNE, DETUNE))
        sound = KINDS[event.kind](np.arange(length) / RATE, detuned, event.shape, random)
        sound *= _envelope(length, random) * 10 ** (random.uniform(*LEVEL_DB) / 20) / (np.abs(sound).max() + 1e-9)
        mix[start : start + length] += sound
    peak = np.abs(mix).max()
    scaled: npt.NDArray[np.float32] = (mix / max(1.0, peak / 0.99)).astype(np.float32)
    return scaled


def _deal(classes: int, number: int, seed: int) -> list[int]:
    """Two, three or four classes for a clip in turn, so nine for every three clips, dealt from shuffled rounds."""
    count = 2 + number % 3
    offset = 9 * (number // 3) + (0, 2, 5)[number % 3]
    hand: list[int] = []
    while len(hand) < count:
        dealt, place = divmod(offset, classes)
        card = int(np.random.default_rng([seed, 3, dealt]).permutation(classes)[place])
        if card not in hand:
            hand.append(card)
        offset += 1
    return hand


def _envelope(length: int, random: np.random.Generator) -> F64:
    attack = random.uniform(0.005, 0.1) * RATE
    time = np.arange(length)
    rise = np.minimum(time / attack, 1.0)
    fall = np.minimum((length - time) / (random.uniform(0.05, 0.3) * RATE), 1.0)
    return np.asarray(rise * fall)


def _coloured_noise(samples: int, random: np.random.Generator) -> F64:
    spectrum = np.fft.rfft(random.standard_normal(samples))
    tilt = (np.arange(len(spectrum)) + 20.0) ** -random.uniform(0.0, 0.8)
    noise = np.fft.irfft(spectrum * tilt, samples)
    return np.asarray(noise / (noise.std() + 1e-12))


def _tone(time: F64, hz: float, shape: float, random: np.random.Generator) -> F64:
    harmonics = np.arange(1, 9)
    heard = harmonics[harmonics * hz < MOST_HZ]
    levels = heard ** -(0.4 + 2.2 * shape)
    phases = random.uniform(0, 2 * np.pi, len(heard))
    return np.asarray((levels[:, None] * np.sin(2 * np.pi * heard[:, None] * hz * time + phases[:, None])).sum(axis=0))


def _glide(time: F64, hz: float, shape: float, random: np.random.Generator) -> F64:
    octaves = 2.4 * (shape - 0.5)
    travel = time / time[-1]
    frequency = hz * 2 ** (octaves * travel)
    return np.asarray(np.sin(2 * np.pi * np.cumsum(frequency) / RATE))


def _warble(time: F64, hz: float, shape: float, random: np.random.Generator) -> F64:
    rate = 3 + 22 * shape
    phase = 2 * np.pi * hz * time + 0.12 * hz / rate * np.sin(2 * np.pi * rate * time)
    return np.asarray(np.sin(phase))


def _band(time: F64, hz: float, shape: float, random: np.random.Generator) -> F64:
    spectrum = np.fft.rfft(random.standard_normal(len(time)))
    frequency = np.fft.rfftfreq(len(time), 1 / RATE)
    width = hz * (0.05 + 0.6 * shape)
    return np.asarray(np.fft.irfft(spectrum * np.exp(-0.5 * ((frequency - hz) / width) ** 2), len(time)))


def _clicks(time: F64, hz: float, shape: float, random: np.random.Generator) -> F64:
    rate = 4 + 36 * shape
    since = np.mod(time, 1 / rate)
    return np.asarray(np.exp(-since * 140) * np.sin(2 * np.pi * hz * since))


def _call(time: F64, hz: float, shape: float, random: np.random.Generator) -> F64:
    second = hz * 2 ** (1 / 6 + shape)
    switch = np.mod(time, 0.3) < 0.15
    return np.asarray(np.sin(2 * np.pi * np.cumsum(np.where(switch, hz, second)) / RATE))


KINDS: dict[str, Callable[[F64, float, float, np.random.Generator], F64]] = {
    "tone": _tone,
    "glide": _glide,
    "warble": _warble,
    "band": _band,
    "clicks": _clicks,
    "call": _call,
}
