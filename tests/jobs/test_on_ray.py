"""What a build on Ray does in its own process: what it sends to a cluster, and what it makes of what comes back."""

import pickle
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from logitstore.audio import cache
from logitstore.audio.clips import ClipAudio
from logitstore.audio.folder import FolderSource
from logitstore.errors import AudioError, StoreError
from logitstore.jobs.build import on_ray
from logitstore.jobs.build.block import BlockPlan
from logitstore.jobs.build.job import Progress, build
from logitstore.jobs.build.on_ray import _alone, _disk, _rendered, _require_audio, _Teachers
from logitstore.store.claims import Claimer
from logitstore.store.format import commits
from logitstore.store.format.parts import Part
from logitstore.store.storage import open_storage
from tests.stores import inside, options, write_audio


def clip_table(clips: int) -> pa.Table:
    numbers = np.zeros(clips, np.int64)
    paths = [f"a/{clip:06d}.wav" for clip in range(clips)]
    return pa.table({"path": paths, "start": numbers, "length": numbers, "rate": numbers, "title": paths})


def test_what_is_sent_of_a_shard_does_not_grow_with_the_clip_table():
    plan = BlockPlan(1, range(7 + 64, 7 + 128), 2, 5)

    def sent(clips):
        part = Part("", "", clip_table(clips), 7, 0)
        return _alone(SimpleNamespace(part_of=lambda _: part), plan)

    small, large = sent(128), sent(20_000)
    assert len(pickle.dumps(large)) == len(pickle.dumps(small)) < 10_000
    alone, table = large
    assert (alone.shard, alone.clips, alone.view_start, alone.view_stop) == (1, range(64), 2, 5)
    assert table.column_names == ["path", "start", "length", "rate"]
    assert table["path"].to_pylist() == [f"a/{clip:06d}.wav" for clip in range(64, 128)]


def test_a_node_is_not_blamed_for_clips_that_open_and_cannot_be_decoded(tmp_path):
    path = tmp_path / "broken.flac"
    soundfile.write(path, np.random.default_rng(1).uniform(-1, 1, 16_000), 16_000)
    content = path.read_bytes()
    path.write_bytes(content[:5_000] + bytes(20_000) + content[25_000:])
    table = pa.table({"path": ["broken.flac"], "start": [0], "length": [16_000], "rate": [16_000]})
    audio = ClipAudio(FolderSource(tmp_path), table, 16_000)
    with pytest.raises(AudioError):
        audio[0]
    _require_audio(audio, table)
    path.unlink()
    with pytest.raises(StoreError, match=r"cannot read audio that was there .*\(broken.flac: cannot be opened: No"):
        _require_audio(audio, table)


def test_all_tasks_of_a_process_share_one_audio_cache_whose_limit_is_told_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000))

    def disk(folder, size, told):
        options = SimpleNamespace(audio_cache=folder and str(tmp_path / folder), audio_cache_size=size)
        return _disk(SimpleNamespace(options=options, disk_bytes=told))

    def limit(*asked):
        return disk(*asked).most_bytes

    assert disk(None, None, None) is None
    assert disk("a", None, 300) is disk("a", None, 300)
    assert (limit("a", None, 300), limit("b", None, 9_000), limit("c", 1e-5, 9_000)) == (300, 500, 9_000)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Audio in the current folder, and in the place of a cluster its stages one after the other in this process."""
    write_audio(tmp_path / "audio", 8)
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda shared: shared))
    monkeypatch.setitem(sys.modules, "ray.data", SimpleNamespace())
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(on_ray, "_cluster", lambda *_: nullcontext())
    with inside(tmp_path):
        yield tmp_path


def in_turn(meanwhile):
    """What a cluster makes of plans, in their order. :param meanwhile: called with the plans before anything comes."""

    def made(_, setting, writer, plans):
        meanwhile(plans)
        teachers = _Teachers(setting)
        for number, plan in enumerate(plans):
            for row in _rendered({"item": [pickle.dumps((number, *_alone(writer, plan)))]}, setting):
                rows = {"rest": row["rest"], "waveforms": row["waveforms"]}
                yield pickle.loads(teachers(rows)["content"][0])

    return made


def spans(root):
    found = commits.spans(open_storage(str(root / "store")))
    return {shard: sorted((each.view_start, each.view_stop) for each in of) for shard, of in found.items()}


def asked(root, **changes):
    return options(root, **{"out": root / "store", "shard_clips": 4, "clip_seconds": 0.5, "workers": 1, **changes})


def test_what_another_builder_has_committed_meanwhile_is_left(root, monkeypatch):
    planned = []

    def meanwhile(plans):
        if not planned:
            build(asked(root, views=2, shards=":1"))  # of the three that shard 0 lacked when it was planned
        planned.append([(plan.shard, plan.view_start, plan.view_stop) for plan in plans])

    monkeypatch.setattr(on_ray, "_contents", in_turn(meanwhile))
    summary = build(asked(root, engine="ray", views=3, shards=":2"))
    assert planned == [[(0, 0, 3), (1, 0, 3)], [(0, 2, 3)]]
    assert summary.made_views == 4 * 3 + 4
    assert spans(root) == {0: [(0, 2), (2, 3)], 1: [(0, 3)]}


def test_what_another_builder_holds_is_waited_for_only_when_all_else_is_made(root, monkeypatch):
    build(asked(root, views=1, shards=":1"))
    planned, said = [], []

    def meanwhile(plans):
        planned.append([plan.shard for plan in plans])
        assert len(planned) < 4

    monkeypatch.setattr(on_ray, "_contents", in_turn(meanwhile))
    with Claimer(open_storage(str(root / "store"))) as other:
        assert other.take(0)
        monkeypatch.setattr(on_ray.time, "sleep", lambda _: other.drop(0))
        build(asked(root, engine="ray", views=2, shards=":2"), Progress(note=said.append))
    assert planned == [[1], [0]]
    waits = [
        note for note in said if note.startswith("waiting for 1 shards that other builders have claimed, as claims/")
    ]
    assert len(waits) == 1
    assert spans(root) == {0: [(0, 1), (1, 2)], 1: [(0, 2)]}
