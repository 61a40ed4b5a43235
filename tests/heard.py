"""A store with relations and some labels for tests of the trainer, made in a second or two by random teachers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from logitstore.jobs.build.job import BuildOptions, build
from logitstore.models.registry import build as build_model
from logitstore.models.registry import initialised
from logitstore.training.runs import save_run

RATE = 16_000
CLASSES = ("high", "low", "middle")
SMALL = {"width": 2, "mels": 16, "hop_ms": 40}

_RECIPE = "ops:\n- op: roll\n- op: time_mask\n  max_seconds: 0.2\n- op: frequency_mask\n  max_steps: 12\n"


def make_heard(folder: Path, clips: int = 36, views: int = 2, ending: str = "wav") -> Path:
    """``folder/store`` of labelled clips of 0.6 s in ``folder/audio``, in files with this ending."""
    random = np.random.default_rng(2)
    lines = ["path,label,fold"]
    (folder / "audio").mkdir()
    for number in range(clips):
        time = np.arange(RATE * 6 // 10) / RATE
        which = number % 3
        wave = 0.02 * random.standard_normal(len(time)) + 0.2 * np.sin(2 * np.pi * (5000, 400, 1500)[which] * time)
        soundfile.write(folder / "audio" / f"{number:02d}.{ending}", wave.astype(np.float32), RATE)
        lines.append(f"{number:02d}.{ending},{CLASSES[which]},{1 + number // 12}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "short.yaml").write_text(_RECIPE)
    teachers = []
    for seed in (1, 2):
        model = initialised(lambda: build_model("cnn4", 3, **SMALL), seed).eval()
        save_run(folder / f"teacher-{seed}", "cnn4", SMALL, CLASSES, "sigmoid", RATE, model)
        teachers.append(str(folder / f"teacher-{seed}"))
    build(
        BuildOptions(
            source=str(folder / "labels.csv"),
            audio_root=str(folder / "audio"),
            out=str(folder / "store"),
            teachers=teachers,
            views=views,
            topk=3,
            clip_seconds=0.6,
            batch_size=12,
            workers=2,
            device="cpu",
            shard_clips=16,
            recipe=str(folder / "short.yaml"),
            relations="frames,clips",
            similarity_frames=4,
        )
    )
    return folder


def student_values(root: Path, out: Path, **changes: Any) -> dict[str, Any]:
    """Fields of :class:`students.options.StudentOptions`, as JSON values."""
    values = {
        "store": str(root / "store"),
        "audio_root": str(root / "audio"),
        "student": "cnn4",
        "model_args": SMALL,
        "out": str(out),
        "epochs": 4,
        "batch_size": 12,
        "device": "cpu",
        "workers": 1,
    }
    return values | changes


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the interpreter in a process of its own, from the repository's root."""
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"} | environment,
        check=False,
    )
