"""Stored views as training data: the same sound and targets, in any order, batch, loader and process."""

import shutil
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import students
from logitstore import open_store
from logitstore.errors import MismatchError, UsageError
from logitstore.jobs.build import build
from logitstore.view.ahead import prefetched
from logitstore.view.clips import ClipAudio
from logitstore.view.fingerprint import replay_view
from logitstore.view.recipe import Masks
from logitstore.view.sources import open_audio
from students.batches import Replayer
from students.data import ReplayDataset, fresh_draws, stored_views
from students.fit import order_generator
from students.losses import dense_targets
from tests.stores import options, write_audio

MIXED = """
ops:
- op: roll
- op: mixup
  probability: 0.8
- op: noise
- op: time_mask
  max_seconds: 0.5
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two stores of the same 12 clips, one unreadable: ``ced``, and ``mixed`` under a recipe with mixup and noise."""
    folder = tmp_path_factory.mktemp("replayed")
    write_audio(folder / "audio", 12)
    (folder / "audio" / "a" / "004.wav").write_text("no audio")
    (folder / "mixed.yaml").write_text(MIXED)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        sys.modules.pop("tones", None)
        build(options(folder, out=str(folder / "ced"), views=2))
        build(options(folder, out=str(folder / "mixed"), recipe=str(folder / "mixed.yaml"), views=2))
        sys.modules.pop("tones", None)
    return folder


def clips_of(folder, store):
    return ClipAudio(open_audio(str(folder / "audio")), store.clips, store.manifest.sample_rate)


@pytest.mark.parametrize("name", ["ced", "mixed"])
def test_items_are_the_views_that_the_teachers_heard(root, name):
    store = open_store(root / name)
    audio = clips_of(root, store)
    dataset = students.ReplayDataset(store, root / "audio", 1)
    assert len(dataset) == 11
    rows = store.rows(1)
    classes, probabilities = store.targets(1, rows)
    dense = dense_targets(classes, probabilities, 8)
    for index in (0, 5, -1):
        item = dataset[index]
        waveform, spans = replay_view(store, audio, int(rows[index]), 1)
        assert item["clip"] == rows[index]
        assert item["waveform"].dtype == torch.float32
        assert torch.equal(item["waveform"], waveform)
        assert item["masks"] == {name: float(getattr(spans, name)[0]) for name in item["masks"]}
        assert np.array_equal(item["target"].numpy(), dense[index])
    with pytest.raises(IndexError, match="item 11 of a dataset of 11 views"):
        dataset[11]


@pytest.mark.forks
@pytest.mark.parametrize(("workers", "start"), [(0, None), (2, "fork"), (1, "spawn")])
def test_the_default_loader_collates_them_in_any_process(root, workers, start):
    dataset = ReplayDataset(root / "mixed", root / "audio", 0)
    loader = DataLoader(dataset, batch_size=4, num_workers=workers, multiprocessing_context=start)
    seen = []
    for batch in loader:
        masks = Masks(**batch["masks"])
        assert masks.time_start.dtype == torch.float64
        assert batch["waveform"].shape[1:] == (32_000,)
        assert batch["target"].shape[1:] == (8,)
        for row, clip in enumerate(batch["clip"].tolist()):
            item = dataset[len(seen)]
            assert item["clip"] == clip
            assert torch.equal(batch["waveform"][row], item["waveform"])
            assert float(masks.time_end[row]) == item["masks"]["time_end"]
            seen.append(clip)
    assert seen == [clip for clip in range(12) if clip != 2]


@pytest.mark.parametrize("name", ["ced", "mixed"])
def test_batches_are_the_items_whatever_their_size_and_order(root, name):
    store = open_store(root / name)
    dataset = ReplayDataset(store, root / "audio", 1, tail="random")
    items = {dataset[index]["clip"]: dataset[index] for index in range(len(dataset))}
    manifest = store.manifest
    replayer = Replayer(clips_of(root, store), str, manifest.recipe, manifest.clip_samples, manifest.sample_rate)
    for batch_size in (3, 11):
        views = stored_views(store, 1, tail="random")
        seen = []
        for batch in replayer.epoch(views, batch_size, order_generator(0, batch_size)):
            assert len(batch) <= batch_size
            for row, clip in enumerate(batch.clips.tolist()):
                seen.append(clip)
                assert torch.equal(batch.waveforms[row], items[clip]["waveform"])
                assert torch.equal(batch.targets[row], items[clip]["target"])
                assert float(batch.masks.time_start[row]) == items[clip]["masks"]["time_start"]
        assert sorted(seen) == sorted(items)
        assert seen != sorted(seen)


@pytest.mark.parametrize("name", ["ced", "mixed"])
def test_inconsistent_views_have_other_draws_and_the_stored_targets(root, name):
    store = open_store(root / name)
    stored = ReplayDataset(store, root / "audio", 0)
    fresh = ReplayDataset(store, root / "audio", 0, inconsistent=True, seed=3)
    again = ReplayDataset(store, root / "audio", 0, inconsistent=True, seed=3)
    other = ReplayDataset(store, root / "audio", 0, inconsistent=True, seed=4)
    differ = 0
    for index in range(len(stored)):
        assert torch.equal(fresh[index]["target"], stored[index]["target"])
        assert torch.equal(fresh[index]["waveform"], again[index]["waveform"])
        differ += fresh[index]["masks"] != stored[index]["masks"] and fresh[index]["masks"] != other[index]["masks"]
    assert differ > 8


def test_fresh_draws_do_not_depend_on_the_clips_beside_them(root):
    store = open_store(root / "mixed")
    rows = store.rows(0)
    together = fresh_draws(store, rows, 1, 5)
    some = fresh_draws(store, rows[[7, 2]], 1, 5)
    for name, values in some.columns.items():
        assert np.array_equal(values, together.columns[name][[7, 2]])
    weights, partners = together.columns["mixup_weight"], together.columns["mixup_partner"]
    first = np.where(rows < 8, 0, 8)
    assert not np.any((weights > 0) & (first + partners == 2))  # clip 2 is unreadable
    assert np.all((first + partners)[weights > 0] < 12)


def test_rows_choose_the_clips(root):
    dataset = ReplayDataset(root / "ced", root / "audio", 0, rows=[9, 1])
    assert [dataset[index]["clip"] for index in range(len(dataset))] == [9, 1]
    with pytest.raises(UsageError, match="clip 2 has no targets, it failed: not readable as audio"):
        ReplayDataset(root / "ced", root / "audio", 0, rows=[2])
    with pytest.raises(UsageError, match=r"clip 12 is not in .*; it has clips 0 to 11"):
        ReplayDataset(root / "ced", root / "audio", 0, rows=[12])
    with pytest.raises(UsageError, match="has no view 2; it has views 0 to 1"):
        ReplayDataset(root / "ced", root / "audio", 2)
    with pytest.raises(UsageError, match="no tail fill 'one'"):
        ReplayDataset(root / "ced", root / "audio", 0, tail="one")


def test_other_audio_is_refused_by_name(root, tmp_path):
    write_audio(tmp_path / "other", 14)
    (tmp_path / "other" / "a" / "000.wav").unlink()
    shutil.copy(tmp_path / "other" / "a" / "002.wav", tmp_path / "other" / "a" / "000.wav")
    with pytest.raises(MismatchError, match=r"not what the teachers of .* heard, in 1 of 2 .*a/000\.wav"):
        ReplayDataset(root / "ced", tmp_path / "other", 0)
    with pytest.raises(MismatchError, match=r"clip 0 \(a/000\.wav\): cannot be opened"):
        ReplayDataset(root / "ced", tmp_path, 0)
    unchecked = ReplayDataset(root / "ced", tmp_path, 0, checked_views=0)
    with pytest.raises(MismatchError, match=r"clip 0 \(a/000\.wav\) is not what the teachers heard: cannot be opened"):
        unchecked[0]


def test_prefetching_keeps_order_hands_errors_over_and_stops_its_thread():
    def items():
        yield from range(5)
        raise ValueError("after five")

    seen = []
    with pytest.raises(ValueError, match="after five"):
        seen.extend(prefetched(items()))
    assert seen == list(range(5))
    endless = prefetched(iter(int, 1))
    assert next(endless) == 0
    endless.close()
