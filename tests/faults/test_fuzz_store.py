"""Stores as a stranger might send them: no mutation may end in a traceback, a hang or gigabytes.

A failing mutation is replayed by ``python -m tests.faults.fuzz_store STORE NUMBER NUMBER+1``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from logitstore.store.format.basis import Basis
from logitstore.store.format.layout import Targets, columns_for
from logitstore.store.format.manifest import decode_root
from logitstore.store.format.relations import RelationSpec
from logitstore.store.storage import LocalStorage
from logitstore.store.writer import BlockContent, StoreWriter
from logitstore.views.recipe import NONE, Draws
from tests.faults.conftest import size
from tests.faults.nursery import REPOSITORY
from tests.fixtures.make_store_v1 import STORE
from tests.small_store import Spec, make_store


def _version_1(path: Path) -> None:
    shutil.copytree(STORE, path)


def _current(path: Path) -> None:
    """With members, two ranges of views, and columns of a user."""
    spec = Spec(clips=6, shard_clips=4, view_ranges=((0, 2), (2, 3)), failed=(1,), keep_members=True)
    make_store(path, spec, label=pa.array(["a", "b", None] * 2), tags=pa.array([["x"], [], ["y", "z"]] * 2))


def _version_2(path: Path) -> None:
    """With relations and their basis, of made-up numbers."""
    template = path.with_name("template")
    make_store(template, Spec(clips=2, recipe=NONE, failed=()))
    spec = RelationSpec(frames=2, clips=64, pooled=2)
    manifest = decode_root((template / "zarr.json").read_bytes(), "")
    manifest = msgspec.structs.replace(manifest, format_version=2, relations=spec, shard_clips=4)
    assert columns_for({}) == manifest.columns
    shutil.rmtree(template)
    clips, k, chance = 5, manifest.topk, np.random.default_rng(1)
    table = pa.table({"path": [f"{number}.wav" for number in range(clips)], "start": np.zeros(clips, np.int64),
                      "length": np.full(clips, 16_000), "rate": np.full(clips, 16_000, np.int32)})  # fmt: skip
    writer = StoreWriter.open(LocalStorage(path), manifest, table)
    widths = np.array([3, 5], np.int32)
    writer.put_basis(
        Basis(
            widths,
            chance.integers(-9, 9, (16, 8)).astype(np.int8),
            np.ones((2, 16), np.float32),
            chance.integers(-9, 9, (64, 2 * 2 * 16)).astype(np.int8),
            np.ones(64, np.float32),
            np.zeros(64, np.float32),
        )
    )
    for shard in range(writer.shards):
        rows = len(writer.clips_of(shard))
        classes = np.tile(np.arange(k, dtype=np.uint16), (rows, 2, 1))
        codes = np.sort(chance.integers(0, 256, (rows, 2, k)).astype(np.uint16))[..., ::-1]
        relations = chance.integers(1, 256, (rows, 2, spec.width)).astype(np.uint8)
        relations[..., :2] = 255
        content = BlockContent(Targets(classes, codes, np.ones(rows, bool)), None, Draws({}), {}, (), relations)
        writer.write_block(shard, 0, 2, content, f"blocks/{shard:06d}-0-2")


def _quality(path: Path) -> None:
    """With a quality: views that keep different numbers of classes."""
    spec = Spec(clips=6, shard_clips=4, view_ranges=((0, 2), (2, 3)), failed=(1,), keep_members=True, quality=0.2)
    make_store(path, spec)


def _frames(path: Path) -> None:
    """With frames, two ranges of views, and a clip that failed."""
    make_store(path, Spec(clips=6, shard_clips=4, view_ranges=((0, 2), (2, 3)), failed=(1,), hop_ms=100))


#: What is fuzzed: a store of each version, by how it is made.
STORES: dict[str, Callable[[Path], None]] = {
    "version 1": _version_1, "version 2": _version_2, "current": _current, "quality": _quality, "frames": _frames,
}  # fmt: skip


@pytest.mark.parametrize("which", STORES)
def test_no_mutation_of_a_store_ends_in_a_traceback_a_hang_or_gigabytes(tmp_path, counted, which):
    STORES[which](tmp_path / "store")
    number = size("mutations of stores") // len(STORES)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-m", "tests.faults.fuzz_store", str(tmp_path / "store"), "0", str(number)],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    at = (tmp_path / "number").read_text()
    assert ran.returncode == 0, f"mutation {at}: {ran.stderr[-2000:]}"
    *faults, last = [json.loads(line) for line in ran.stdout.splitlines()]
    assert faults == []
    assert last["ran"] == number
    counted("mutations of stores answered or refused", number)
