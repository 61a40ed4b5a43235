"""Stores that say when: frames."""

import dataclasses
import json
import shutil

import msgspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore.cli.main import cli
from logitstore.errors import CorruptStoreError, MismatchError, UsageError
from logitstore.jobs.export import export_parquet
from logitstore.jobs.verify.audit import audit
from logitstore.store.format.frames import FrameSpec, decode_frames, encode_frames, from_arrays, to_arrays
from logitstore.store.format.manifest import decode_root, encode_root, written_version
from logitstore.store.reader import open_store
from logitstore.store.storage import LocalStorage
from tests.small_store import Spec, made_frames, make_store

FRAMES = FrameSpec(hop_ms=40, count=50, bits=4, floor=0.05)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return open_store(make_store(tmp_path_factory.mktemp("v3") / "store").path).manifest


@pytest.mark.parametrize("more", [{"frames": FRAMES}, {"quality": 0.001}, {"frames": FRAMES, "quality": 0.001}])
def test_only_a_store_with_frames_or_quality_is_of_version_4(manifest, more):
    assert written_version(**more) == 4
    replaced = msgspec.structs.replace(manifest, format_version=4, **more)
    assert decode_root(encode_root(replaced), "it") == replaced
    with pytest.raises(CorruptStoreError, match="format version 3 with frames"):
        decode_root(encode_root(msgspec.structs.replace(manifest, **more)), "it")


def test_a_store_without_them_is_version_3_and_names_neither(manifest):
    written = encode_root(manifest)
    assert written_version() == manifest.format_version == 3
    assert b'"frames"' not in written
    assert b'"quality"' not in written
    with pytest.raises(CorruptStoreError, match="format version 4 with frames None, quality None"):
        decode_root(written.replace(b'"format_version":3', b'"format_version":4'), "it")


@pytest.mark.parametrize(
    "change", [{"hop_ms": 0}, {"hop_ms": 5}, {"count": 49}, {"count": 51}, {"bits": 2}, {"bits": 9},
               {"floor": 0.0}, {"floor": 1.0}, {"floor": -1}, {"hop_ms": 40.5}, {"hop_ms": None}, {"more": 1}],
)  # fmt: skip
def test_frames_that_no_store_has_are_refused(manifest, change):
    document = json.loads(encode_root(msgspec.structs.replace(manifest, format_version=4, frames=FRAMES)))
    document["attributes"]["logitstore"]["frames"] |= change
    with pytest.raises(CorruptStoreError, match="frames"):
        decode_root(json.dumps(document).encode(), "it")


# runs


def spec_of(count: int, bits: int = 5, floor: float = 0.05) -> FrameSpec:
    return FrameSpec(hop_ms=40, count=count, bits=bits, floor=floor)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 30), st.integers(3, 8), st.floats(0.01, 0.9))
def test_runs_are_read_as_they_were_written_and_say_what_was_said(seed, frames, classes, bits, floor):
    random = np.random.default_rng(seed)
    views = int(random.integers(0, 5))
    said = (random.random((views, frames, classes)) ** random.integers(1, 8)).astype(np.float32)
    said = np.repeat(said, random.integers(1, 4), axis=1)
    spec = spec_of(said.shape[1], bits, floor)
    runs = encode_frames(said, spec)
    again = from_arrays(spec, to_arrays(runs), views, classes)
    for name, values in vars(runs).items():
        np.testing.assert_array_equal(values, vars(again)[name], err_msg=name)
        assert values.dtype == vars(again)[name].dtype
    dense = decode_frames(runs, spec, classes).dense()
    assert dense.shape == said.shape
    np.testing.assert_array_equal(dense > 0, said >= np.float32(floor))
    step = np.pi / 2 / (1 << bits)
    off = np.abs(np.arcsin(np.sqrt(dense)) - np.arcsin(np.sqrt(said.astype(np.float64))))
    assert not views or off[dense > 0].max(initial=0) <= 1.01 * step


def test_a_class_that_goes_on_is_one_run_and_runs_of_a_view_rise():
    said = np.zeros((2, 50, 4), np.float32)
    said[0, 10:30, 2] = 0.5
    said[0, 30:40, 2] = 0.95
    said[1, :, 0] = np.linspace(0.6, 0.61, 50)
    said[1, 49, 3] = 1.0
    runs = encode_frames(said, spec_of(50))
    assert runs.counts.tolist() == [2, 2]
    assert runs.classes.tolist() == [2, 2, 0, 3]
    assert runs.starts.tolist() == [10, 30, 0, 49]
    assert runs.stops.tolist() == [30, 40, 50, 50]
    assert runs.take(np.array([1, 0, 1])).classes.tolist() == [0, 3, 2, 2, 0, 3]


@pytest.mark.parametrize(
    ("array", "change", "line"),
    [
        ("frame_tracks", lambda a: a[:, :-1], "frame_tracks has"),
        ("frame_tracks", lambda a: a + np.uint8(1), "tracks"),
        ("frame_classes", lambda a: a[:, :-1], "classes and"),
        ("frame_classes", lambda a: a + np.uint8(9), "have the class"),
        ("frame_runs", lambda a: a + np.uint8(1), "gaps"),
        ("frame_gaps", lambda a: a[:, :-1], "gaps"),
        ("frame_lengths", lambda a: a + np.uint8(50), "have the frame"),
        ("frame_codes", lambda a: a + np.uint8(100), "have the code"),
        ("frame_codes", lambda a: np.concatenate([a, a], axis=1), "codes"),
    ],
)
def test_arrays_that_no_view_has_are_refused(array, change, line):
    said = made_frames(3, (6, 50, 9))
    arrays = to_arrays(encode_frames(said, spec_of(50)))
    with pytest.raises(ValueError, match=line):
        from_arrays(spec_of(50), arrays | {array: change(arrays[array])}, 6, 9)


# the reader


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("frames") / "store", Spec(hop_ms=40, view_ranges=((0, 2), (2, 3))))


def test_a_reader_gives_runs_and_dense_frames_of_any_clips_in_any_order(made):
    store = open_store(made.path)
    spec = store.require_frames()
    assert (spec.hop, spec.count, store.manifest.format_version) == (0.04, 50, 4)
    clips = np.array([31, 3, 3, 17, 0])
    for view in range(3):
        frames = store.frames(view, clips)
        assert frames.hop == 0.04
        assert frames.shape == (5, 50, 12)
        assert (np.diff(frames.clips) >= 0).all()
        dense = frames.dense()
        said = made.frames[clips, view]
        np.testing.assert_array_equal(dense > 0, said >= np.float32(0.05))
        assert np.abs(dense - said)[dense > 0].max() < 0.05
        for at, clip in enumerate(clips):
            np.testing.assert_array_equal(store.frames(view, [clip]).dense()[0], dense[at])
    assert store.frames(0, []).dense().shape == (0, 50, 12)
    with pytest.raises(UsageError, match="clip 10 has no targets"):
        store.frames(0, [10])
    with pytest.raises(UsageError, match="no view 3"):
        store.frames(3, [0])


def test_blocks_give_the_same_frames(made):
    store = open_store(made.path)
    for commit in store.commits:
        block = store.block_frames(commit).dense().reshape(commit.clips, commit.views, 50, 12)
        assert not block[[row for row, _ in commit.failed]].any()
        for view in range(commit.view_start, commit.view_stop):
            here = store.frames(view, commit.first_clip + commit.readable).dense()
            np.testing.assert_array_equal(block[commit.readable, view - commit.view_start], here)


def test_several_pieces_are_asked_as_one(made, tmp_path):
    other = make_store(tmp_path / "other", Spec(hop_ms=40, seed=5, clips=9, failed=(), path="other {}.wav"))
    store = open_store([made.path, other.path])
    assert store.manifest.frames == store.require_frames()
    clips = np.array([40, 3, 38, 0])
    dense = store.frames(1, clips).dense()
    np.testing.assert_array_equal(dense[[1, 3]], open_store(made.path).frames(1, [3, 0]).dense())
    np.testing.assert_array_equal(dense[[0, 2]], open_store(other.path).frames(1, [3, 1]).dense())


def test_a_store_that_does_not_say_when_is_refused(made, tmp_path):
    plain = make_store(tmp_path / "plain", Spec(path="plain {}.wav"))
    with pytest.raises(MismatchError, match=r"does not say when.*--frames 40"):
        open_store(plain.path).frames(0, [0])
    with pytest.raises(MismatchError, match="plain does not say when"):
        open_store([made.path, plain.path]).frames(0, [0])
    coarse = make_store(tmp_path / "coarse", Spec(hop_ms=100, path="coarse {}.wav"))
    with pytest.raises(MismatchError, match=r"not of one hop \(40 ms in .*100 ms in"):
        open_store([made.path, coarse.path]).require_frames()


def test_frames_that_would_not_fit_into_memory_are_refused(made):
    frames = open_store(made.path).frames(0, [0])
    with pytest.raises(UsageError, match=r"would take .* GiB"):
        dataclasses.replace(frames, shape=(1, 65_535, 65_536)).dense()


def test_damaged_frames_are_found_when_they_are_used_and_by_verify(made, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(made.path, copy)
    file = next(copy.glob("blocks/000001-0-2/frames/c/0/0"))
    file.write_bytes(file.read_bytes()[:-7])
    store = open_store(copy)
    store.targets(0, [9])
    with pytest.raises(CorruptStoreError, match="frames/c/0/0 is not the object that was committed"):
        store.frames(0, [9])
    assert any("frames/c/0/0" in line for line in audit(LocalStorage(copy)).problems)
    file.unlink()
    with pytest.raises(CorruptStoreError, match="frames/c/0/0 is missing"):
        open_store(copy).frames(0, [9])
    assert not audit(LocalStorage(made.path)).problems


def test_a_view_to_look_at_says_when_too(made):
    view = open_store(made.path)[4].view(1)
    dense = view.frames.dense()[0]
    sounding = view.sounding(0.4)
    assert sounding
    assert [each[1:3] for each in sounding] == sorted(each[1:3] for each in sounding)
    for name, start, end, highest in sounding:
        label = made.names.index(name)
        part = dense[round(start / 0.04) : round(end / 0.04 + 0.49), label]
        assert part.min() >= 0.4
        assert part.max() == pytest.approx(highest)
    said = CliRunner().invoke(cli, ["show", str(made.path), "4", "--view", "1"]).output
    assert "  when class " in said
    told = json.loads(CliRunner().invoke(cli, ["show", str(made.path), "4", "--view", "1", "--json"]).output)
    assert told["shown"][0]["sounding"][0].keys() == {"class", "start_s", "end_s", "highest"}


def test_an_export_has_the_stretches_of_every_view(made, tmp_path):
    store = open_store(made.path)
    export_parquet(store, tmp_path / "flat.parquet")
    rows = pq.read_table(tmp_path / "flat.parquet").to_pylist()
    stretches = store.sql("SELECT * FROM frames ORDER BY clip, view, class_index, start_s").to_pylist()
    flat = [(row["clip"], row["view"], *each.values()) for row in rows for each in row["frames"]]
    told = [
        tuple(row[name] for name in ("clip", "view", "class", "start_s", "end_s", "probability")) for row in stretches
    ]
    assert sorted(flat) == sorted(told)
    assert len(flat) == sum(len(store.block_frames(commit)) for commit in store.commits)
