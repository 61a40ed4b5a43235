"""A small data set with the tables and folders of SONYC-UST, made up."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile

from logitstore.audio.sonyc import COARSE, TAGS, TAXONOMY

RATE = 16_000
CLIPS = {"train": 12, "validate": 10, "test": 4}
#: Validate clips without an agreed row, which 2020's baseline leaves out.
UNVERIFIED = 2
_V2 = ("year", "week", "day", "hour", "borough", "block", "latitude", "longitude")


def make_sonyc(folder: Path, version: Literal["v1", "v2"] = "v2", *, seconds: float | None = None) -> None:
    """``annotations.csv``, ``scores.csv`` of the verified validate clips and, where ``seconds`` are said, the audio.

    Three volunteers a clip, one of whom marks nothing; a member of the team who judged machinery-impact alone; what the
    team agreed on. A clip's tags can be heard: each is a tone.
    """
    random = np.random.default_rng(11)
    rows, scores = [], []
    number = 0
    for split, count in CLIPS.items():
        for place in range(count):
            name = f"{number:02d}_{random.integers(1_000_000):06d}.wav"
            tags = random.random(len(TAGS)) < 0.15
            tags[number % len(TAGS)] = True
            verified = split != "train" and not (split == "validate" and place >= count - UNVERIFIED)
            said = [(1 + number % 5, tags), (7, tags & (random.random(len(TAGS)) < 0.7)), (9, np.zeros_like(tags))]
            rows += [_row(version, split, number, name, who, heard.astype(int)) for who, heard in said]
            if split != "train":
                judged = np.array([tag.startswith("2-") for tag in TAGS])
                rows.append(_row(version, split, number, name, -3, np.where(judged, tags, -1).astype(int)))
            if verified:
                rows.append(_row(version, split, number, name, 0, tags.astype(int)))
            if split == "validate" and verified:
                heard = np.round(np.clip(0.35 * tags + 0.6 * random.random(len(TAGS)), 0, 1), 3)
                coarse = [max(heard[TAGS.index(tag)] for tag in each.fine) for each in TAXONOMY]
                scores.append([name, *heard.tolist(), *coarse])
            if seconds is not None:
                below = folder / ("audio" if version == "v2" else split)
                below.mkdir(parents=True, exist_ok=True)
                time = np.arange(round(seconds * RATE)) / RATE
                tones = sum(np.sin(2 * np.pi * 200 * (at + 1) * time) for at in np.flatnonzero(tags))
                wave = 0.02 * tones + 0.01 * random.standard_normal(len(time))
                soundfile.write(below / name, wave.astype(np.float32), RATE)
            number += 1
    with (folder / "annotations.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with (folder / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["audio_filename", *TAGS, *COARSE], *scores])


def _row(version: str, split: str, clip: int, name: str, who: int, heard: np.ndarray) -> dict[str, object]:
    row: dict[str, object] = {"split": split, "sensor_id": clip % 5, "audio_filename": name, "annotator_id": who}
    if version == "v2":
        row |= dict(zip(_V2, (2019, 1 + clip, clip % 7, clip % 24, 1, 547, 40.72, -73.99), strict=True))
    values = dict(zip(TAGS, heard.tolist(), strict=True))
    row |= {f"{tag}_presence": value if clip % 2 else float(value) for tag, value in values.items()}
    row |= {f"{tag}_proximity": "near" if value == 1 else -1 for tag, value in values.items()}
    for each in TAXONOMY:
        row[f"{each.name}_presence"] = max(values[tag] for tag in each.tags)
    return row
