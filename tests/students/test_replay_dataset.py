"""Stored views as training data: the same sound and targets, in any order, batch, loader and process."""

import pickle
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset

import students
from logitstore import open_store
from logitstore.audio.ahead import Prefetched
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.errors import MismatchError, RunError, SourceError, TeacherError, UsageError
from logitstore.jobs.build.job import build
from logitstore.store.piece import Piece
from logitstore.training.batches import Replayer
from logitstore.training.sampling import order_generator, plan
from logitstore.views.mel import CED, FrontEnd, LogMel, apply_masks
from logitstore.views.recipe import Masks
from logitstore.views.render import resample
from students.data import ReplayDataset, fresh_draws, stored_views
from students.labels import clip_labels
from students.targets import dense_targets
from students.terms.iusp import iusp
from students.terms.sp import sp
from tests.rendered import rendered_view
from tests.small_store import Spec, make_store
from tests.stores import inside, options, write_audio

MIXED = """
ops:
- op: roll
- op: mixup
  probability: 0.8
- op: noise
- op: time_mask
  max_seconds: 0.5
"""


#: The labels of clip 0, 1, …: separated by ``;``, none of the classes, NULL (nothing is known); clip 2 is unreadable.
LABELS = ["tone 300 Hz; tone 7000 Hz", None, "tone 500 Hz", "", *["tone 800 Hz"] * 6, None, "tone 1300 Hz;tone 300 Hz"]

RECORDER = """
import torch
from tones import Tones

HEARD = {}  # what was said of each waveform, by its bytes


class Recorder(Tones):
    def forward(self, waveforms, masks=None):
        said = super().forward(waveforms, masks)
        for waveform, probabilities in zip(waveforms, said):
            HEARD[waveform.numpy().tobytes()] = probabilities.clone()
        return said


def teacher():
    return Recorder()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two stores of the same 12 clips, one unreadable: ``ced``, and ``mixed`` under a recipe with mixup and noise.

    The clips of ``mixed`` have labels.
    """
    folder = tmp_path_factory.mktemp("replayed")
    write_audio(folder / "audio", 12)
    paths = sorted(path.relative_to(folder / "audio").as_posix() for path in (folder / "audio").rglob("*.wav"))
    pq.write_table(pa.table({"path": paths, "label": LABELS}), folder / "labelled.parquet")
    (folder / "audio" / "a" / "004.wav").write_text("no audio")
    (folder / "mixed.yaml").write_text(MIXED)
    with inside(folder):
        build(options(folder, out=str(folder / "ced"), views=2))
        build(mixed_options(folder, out=str(folder / "mixed")))
    return folder


def mixed_options(folder, **changes):
    """What ``mixed`` is built from."""
    values = {
        "source": str(folder / "labelled.parquet"),
        "audio_root": str(folder / "audio"),
        "recipe": str(folder / "mixed.yaml"),
        "views": 2,
    }
    return options(folder, **(values | changes))


def planned(replayer, views, batch_size):
    """The batches of an epoch, as a training asks for them."""
    return (replayer.batch(views, positions) for positions in plan(len(views), batch_size, order_generator(0, 0)))


def replayer_of(folder, store):
    """What replays the views of a store."""
    manifest = store.manifest
    return Replayer(clips_of(folder, store), str, manifest.recipe, manifest.clip_samples, manifest.sample_rate)


def clips_of(folder, store):
    return ClipAudio(open_audio(str(folder / "audio")), store.clips, store.manifest.sample_rate)


@pytest.mark.parametrize("name", ["ced", "mixed"])
def test_items_are_the_views_that_the_teachers_heard(root, name):
    store = open_store(root / name)
    audio = clips_of(root, store)
    dataset = students.ReplayDataset(store, root / "audio", 1)
    assert len(dataset) == 11
    rows = store.clips_of(1)
    classes, probabilities = store.targets(1, rows)
    dense = dense_targets(classes, probabilities, 8)
    for index in (0, 5, -1):
        item = dataset[index]
        waveform, spans = rendered_view(store, audio, int(rows[index]), 1)
        assert item["clip"] == rows[index]
        assert item["waveform"].dtype == torch.float32
        assert torch.equal(item["waveform"], waveform)
        assert item["masks"] == Masks(*(float(value[0]) for value in vars(spans).values()))
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
        masks = batch["masks"]
        assert masks.time_start.dtype == torch.float64
        assert batch["waveform"].shape[1:] == (32_000,)
        assert batch["target"].shape[1:] == (8,)
        for row, clip in enumerate(batch["clip"].tolist()):
            item = dataset[len(seen)]
            assert item["clip"] == clip
            assert torch.equal(batch["waveform"][row], item["waveform"])
            assert float(masks.time_end[row]) == item["masks"].time_end
            seen.append(clip)
    assert seen == [clip for clip in range(12) if clip != 2]


def test_items_that_are_asked_for_at_once_are_the_items_and_the_batch(root):
    dataset = ReplayDataset(root / "mixed", root / "audio", 0)
    indices = [4, 0, -1, 4]
    together = dataset.__getitems__(indices)
    batch, alone = dataset.collate(together), [dataset[index] for index in indices]
    assert same(batch, dataset.collate(alone))
    assert same(batch, dataset.collate(list(together)))
    assert len(together) == 4
    for item, other in zip(together, alone, strict=True):
        assert torch.equal(item["waveform"], other["waveform"])
        assert item["clip"] == other["clip"]
        assert item["masks"] == other["masks"]
    assert [item["clip"] for item in together[1:3]] == [item["clip"] for item in alone[1:3]]
    with pytest.raises(IndexError, match="item 11 of a dataset of 11 views"):
        dataset.__getitems__([0, 11])


def test_loaders_of_parts_of_a_dataset_and_with_a_collate_of_their_own(root):
    dataset = ReplayDataset(root / "ced", root / "audio", 1)
    expected = dataset.collate([dataset[index] for index in (7, 2)])
    for data in (Subset(dataset, [7, 2]), ConcatDataset([Subset(dataset, [7]), Subset(dataset, [2])])):
        (batch,) = DataLoader(data, batch_size=2)
        assert same(batch, expected)
    (own,) = DataLoader(
        Subset(dataset, [7, 2]),
        batch_size=2,
        collate_fn=lambda items: torch.stack([each["waveform"] for each in items]),
    )
    assert torch.equal(own, expected["waveform"])


def same(one, other):
    """Whether two batches are the same to the bit."""
    masks = [torch.stack([getattr(batch["masks"], name) for name in vars(batch["masks"])]) for batch in (one, other)]
    tensors = [batch | {"masks": mask} for batch, mask in zip((one, other), masks, strict=True)]
    return tensors[0].keys() == tensors[1].keys() and all(
        torch.equal(tensors[0][name], tensors[1][name]) and tensors[0][name].dtype == tensors[1][name].dtype
        for name in tensors[0]
    )


@pytest.mark.forks
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_that_live_on_hear_of_the_next_epoch(root, start):
    dataset = ReplayDataset(root / "ced", root / "audio", inconsistent=start == "fork", seed=3)
    loader = DataLoader(
        dataset, batch_size=4, num_workers=2, persistent_workers=True, multiprocessing_context=start
    )  # fmt: skip
    for epoch in (0, 1, 2, 1):
        dataset.set_epoch(epoch)
        fixed = {} if start == "spawn" else {"inconsistent": True, "seed": 3}
        view = epoch % 2
        alone = ReplayDataset(root / "ced", root / "audio", view, **fixed)
        batches = list(loader)
        assert sum(len(batch["clip"]) for batch in batches) == len(alone) == len(dataset) == 11
        heard = torch.cat([batch["waveform"] for batch in batches])
        starts = torch.cat([batch["masks"].time_start for batch in batches]).tolist()
        targets = torch.cat([batch["target"] for batch in batches])
        for index in range(len(alone)):
            assert torch.equal(targets[index], alone[index]["target"])
            if start == "spawn" or epoch < 2:  # fresh draws are the epoch's, stored ones the view's
                assert torch.equal(heard[index], alone[index]["waveform"])
                assert starts[index] == alone[index]["masks"].time_start
        if start == "fork" and epoch == 2:
            assert starts != [alone[index]["masks"].time_start for index in range(len(alone))]


def test_an_epoch_that_cannot_be_is_refused(root):
    with pytest.raises(UsageError, match="a dataset of view 1 alone has no epochs; make it without a view"):
        ReplayDataset(root / "ced", root / "audio", 1).set_epoch(3)
    with pytest.raises(UsageError, match="epoch -1; it must be at least 0"):
        ReplayDataset(root / "ced", root / "audio").set_epoch(-1)


@pytest.mark.parametrize("front_end", [CED, FrontEnd(sample_rate=8000, f_max=4000.0)])
def test_log_mels_are_masked_already_at_the_front_ends_rate(root, front_end):
    plain, ready = (ReplayDataset(root / "ced", root / "audio", 0, **more) for more in ({}, {"front_end": front_end}))
    masked = 0
    for batch, features in zip(DataLoader(plain, batch_size=3), DataLoader(ready, batch_size=3), strict=True):
        assert set(features) == {"log_mel", "target", "clip"}
        log_mel = LogMel(front_end)(resample(batch["waveform"], 16_000, front_end.sample_rate))
        expected = apply_masks(log_mel, front_end, batch["masks"], 0.0)
        torch.testing.assert_close(features["log_mel"], expected, rtol=0, atol=1e-3)
        assert torch.equal(features["log_mel"] == 0, expected == 0)
        assert torch.equal(features["target"], batch["target"])
        masked += int((expected == 0).sum())
    assert masked > 100
    filled = ReplayDataset(root / "ced", root / "audio", 0, front_end=front_end, fill=-7.0)[0]["log_mel"]
    assert torch.equal(filled == -7.0, ready[0]["log_mel"] == 0)


@pytest.mark.parametrize("name", ["ced", "mixed"])
def test_batches_are_the_items_whatever_their_size_and_order(root, name):
    store = open_store(root / name)
    dataset = ReplayDataset(store, root / "audio", 1, tail="random")
    items = {dataset[index]["clip"]: dataset[index] for index in range(len(dataset))}
    replayer = replayer_of(root, store)
    for batch_size in (3, 11):
        views = stored_views(store, 1, tail="random")
        seen = []
        for batch in planned(replayer, views, batch_size):
            assert len(batch) <= batch_size
            for row, clip in enumerate(batch.clips.tolist()):
                seen.append(clip)
                assert torch.equal(batch.waveforms[row], items[clip]["waveform"])
                assert torch.equal(batch.targets[row], items[clip]["target"])
                assert float(batch.masks.time_start[row]) == items[clip]["masks"].time_start
        assert sorted(seen) == sorted(items)
        assert seen != sorted(seen)


def test_under_mixup_a_student_hears_bit_for_bit_what_the_teachers_heard(root, tmp_path, own_folder):
    (tmp_path / "recorder.py").write_text(RECORDER)
    made = mixed_options(root, out=str(tmp_path / "store"), teachers=["python:recorder:teacher"], batch_size=5, topk=8)
    (tmp_path / "tones.py").write_text((root / "tones.py").read_text())
    build(made)
    heard = sys.modules["recorder"].HEARD
    store = open_store(tmp_path / "store")
    replayer = replayer_of(root, store)
    mixed, students = 0, set()
    for view in range(2):
        weights = store.draws(view, store.clips_of(view)).columns["mixup_weight"]
        mixed += np.count_nonzero(weights)
        for batch_size in (1, 4, 11):
            views = stored_views(store, view, store.clips_of(view)[::-1])
            for batch in planned(replayer, views, batch_size):
                for waveform, target in zip(batch.waveforms, batch.targets, strict=True):
                    students.add(waveform.numpy().tobytes())
                    said = heard[waveform.numpy().tobytes()]  # KeyError: no teacher heard this
                    assert torch.allclose(said, target, atol=0.00308)  # half a step of the 8 bits
    assert len(students) == 22  # every view of every clip is another sound
    assert 10 < mixed < 22


def test_labels_are_mixed_as_the_waveforms_are(root):
    store = open_store(root / "mixed")
    labels = clip_labels(store, "label")
    names = list(store.manifest.classes)
    rows = store.clips_of(0)
    replayer = replayer_of(root, store)
    own = np.zeros((12, 8), np.float32)
    for clip, cell in enumerate(LABELS):
        own[clip, [names.index(name.strip()) for name in (cell or "").split(";") if name]] = 1
    known = np.array([cell is not None for cell in LABELS])
    assert known.sum() == 10
    views = stored_views(store, 0, rows, labels=labels)
    drawn = store.draws(0, rows).columns
    seen = []
    for batch in planned(replayer, views, 4):
        assert batch.labels.dtype == torch.float32
        assert batch.labelled.dtype == torch.bool
        for clip, found, labelled in zip(batch.clips.tolist(), batch.labels, batch.labelled.tolist(), strict=True):
            place = int(np.flatnonzero(rows == clip)[0])
            weight = drawn["mixup_weight"][place] / 1024
            partner = int(views.partners[place]) if weight else clip
            assert found.numpy() == pytest.approx((1 - weight) * own[clip] + weight * own[partner], abs=1e-6)
            assert labelled == (known[clip] and known[partner])
            seen.append((labelled, weight > 0))
    assert set(seen) == {(False, True), (True, True), (True, False)}
    assert replayer.batch(stored_views(store, 0, rows), np.arange(3)).labels is None


def test_labels_of_an_unmixed_store_are_the_clips_own(root):
    store = open_store(root / "mixed")
    labels = clip_labels(store, "label")
    found, known = labels(np.array([3, 1, 0, 3]))
    assert known.tolist() == [True, False, True, True]
    assert found.sum(axis=1).tolist() == [0, 0, 2, 0]
    plain = open_store(root / "ced")
    views = stored_views(plain, 1, [3, 1, 0], labels=labels)
    values, there = views.labels(np.array([2, 0]))
    assert np.array_equal(values, found[[2, 0]])
    assert there.tolist() == [True, True]


def test_labels_that_cannot_be_used_are_refused(root, tmp_path):
    store = open_store(root / "mixed")
    with pytest.raises(
        SourceError, match=r"have no column 'event' to take labels from; found 'clip', 'path', .*'label'"
    ):
        clip_labels(store, "event")
    with pytest.raises(TeacherError, match="12 of 12 labels are no class of the store"):
        clip_labels(store, "path")
    softmax = Spec(clips=3, scores="softmax", failed=())
    make_store(tmp_path / "softmax", softmax, label=pa.array(["class 1", None, " "]), nothing=pa.nulls(3, pa.string()))
    store = open_store(tmp_path / "softmax")
    with pytest.raises(
        RunError, match=r"clip 2 \(folder/clip 000002\.wav\) has an empty cell in the column 'label', and"
    ):
        clip_labels(store, "label")
    with pytest.raises(RunError, match=r"no clip of .* has labels in the column 'nothing', it is all NULL"):
        clip_labels(store, "nothing")


def test_labels_can_be_lists(tmp_path):
    lists = pa.array([["class 1", "class 2"], [], None])
    make_store(tmp_path / "store", Spec(clips=3, failed=()), label=lists)
    found, known = clip_labels(open_store(tmp_path / "store"), "label")(np.arange(3))
    assert np.nonzero(found)[1].tolist() == [1, 2]
    assert found.max() == 1
    assert known.tolist() == [True, True, False]


def test_beside_softmax_scores_the_labels_of_a_clip_share_one(tmp_path):
    spec = Spec(clips=3, failed=(), scores="softmax")
    make_store(tmp_path / "store", spec, label=pa.array(["class 1;class 4", "class 0", None]))
    found, known = clip_labels(open_store(tmp_path / "store"), "label")(np.array([0, 2, 1]))
    assert found.sum(axis=1).tolist() == [1, 0, 1]
    assert found[0, [1, 4]].tolist() == [0.5, 0.5]
    assert known.tolist() == [True, False, True]


FRAMES = """
import torch
from tones import Tones


class Frames(Tones):
    def features(self, waveforms, masks=None):
        return torch.fft.rfft(waveforms.reshape(len(waveforms), 16, -1)).abs()[:, :, 20:180]  # 160 Hz to 1440 Hz


def teacher():
    return Frames()
"""


@pytest.fixture(scope="module")
def related(root, tmp_path_factory):
    """A store of the mixed views with frame relations to 8 frames, clip relations, and its teacher."""
    folder = tmp_path_factory.mktemp("related")
    (folder / "frames.py").write_text(FRAMES)
    (folder / "tones.py").write_text((root / "tones.py").read_text())
    with inside(folder):
        asked = {"relations": "frames,clips", "similarity_frames": 8, "teachers": ["python:frames:teacher"]}
        build(mixed_options(root, out=str(folder / "store"), **asked))
        return open_store(folder / "store"), sys.modules["frames"].teacher()


def test_items_bring_the_relations_of_what_they_hold(root, related):
    store, teacher = related
    dataset = ReplayDataset(store, root / "audio", 1, rows=store.clips_of(1)[::-1], relations=True)
    loader = DataLoader(dataset, batch_size=len(dataset))
    (batch,) = list(loader)
    assert batch["frame_gram"].shape == (11, 8, 8)
    assert batch["frame_gram"].dtype == batch["clip_vector"].dtype == torch.float32
    heard = teacher.features(batch["waveform"])
    own = iusp(heard, batch["frame_gram"])
    others = iusp(heard, batch["frame_gram"].roll(1, dims=0))
    assert own.max() < 1e-4  # what storing them in bytes costs
    assert (others > 3 * own).all()
    together = float(sp(heard, batch["clip_vector"], 8))
    assert together < 1e-3
    assert float(sp(heard, batch["clip_vector"].roll(1, dims=0), 8)) > 10 * together
    elsewhere = pickle.loads(pickle.dumps(dataset))
    assert all(torch.equal(elsewhere[3][name], dataset[3][name]) for name in ("frame_gram", "clip_vector", "waveform"))
    assert "frame_gram" not in ReplayDataset(store, root / "audio", 1)[0]


def test_batches_bring_the_relations_asked_for_in_any_order(root, related):
    store, _ = related
    items = {item["clip"]: item for item in ReplayDataset(store, root / "audio", 0, relations=True)}
    replayer = replayer_of(root, store)
    for asked, fresh in ((("frames",), None), (("clips",), None), (("frames", "clips"), (3, 0)), ((), None)):
        views = stored_views(store, 0, relations=asked, fresh=fresh)
        for batch in planned(replayer, views, 3):
            assert (batch.frame_grams is not None) == ("frames" in asked)
            assert (batch.clip_vectors is not None) == ("clips" in asked)
            for row, clip in enumerate(batch.clips.tolist()):
                if batch.frame_grams is not None:  # the stored ones, under fresh draws too
                    assert torch.equal(batch.frame_grams[row], items[clip]["frame_gram"])
                if batch.clip_vectors is not None:
                    assert torch.equal(batch.clip_vectors[row], items[clip]["clip_vector"])
                assert torch.equal(batch.waveforms[row], items[clip]["waveform"]) == (fresh is None)


def test_a_part_of_a_batch_and_a_batch_elsewhere_have_everything_that_the_batch_has(root, related):
    store, _ = related
    replayer = replayer_of(root, store)
    labels = clip_labels(store, "label")
    views = stored_views(store, 0, relations=("frames", "clips"), labels=labels)
    whole = replayer.batch(views, np.arange(8))
    chosen = np.array([6, 1, 3])
    part, alone = whole.part(chosen), replayer.batch(views, chosen)
    elsewhere = whole.to(torch.device("meta"))
    tensors = [name for name, value in vars(whole).items() if isinstance(value, torch.Tensor)]
    assert tensors == ["waveforms", "targets", "frame_grams", "clip_vectors", "labels", "labelled"]
    for name in tensors:
        assert torch.equal(getattr(part, name), getattr(alone, name))
        assert getattr(elsewhere, name).device.type == "meta"
        assert getattr(elsewhere, name).shape == getattr(whole, name).shape
    assert part.clips.tolist() == alone.clips.tolist() == whole.clips[chosen].tolist()
    assert torch.equal(part.masks.time_end, alone.masks.time_end)
    assert elsewhere.masks.time_end.device.type == "meta"


def test_relations_of_a_store_without_them_are_refused(root):
    with pytest.raises(MismatchError, match=r"has no relations, .* build a store with: logitstore build … --relations"):
        ReplayDataset(root / "ced", root / "audio", 0, relations=True)
    with pytest.raises(MismatchError, match=r"has no relations, .* --relations frames$"):
        stored_views(open_store(root / "mixed"), 0, relations=("frames",))


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
    rows = store.clips_of(0)
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
    with pytest.raises(MismatchError, match=r"not what the teachers of .* heard, in 1 of 4 .*a/000\.wav"):
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
        seen.extend(Prefetched(items()))
    assert seen == list(range(5))
    endless = Prefetched(iter(int, 1))
    assert next(endless) == 0
    endless.close()


@pytest.mark.parametrize("name", ["ced", "mixed"])
def test_views_of_many_clips_are_decoded_where_batches_need_them_and_are_the_same(root, name, monkeypatch):
    positions = np.array([7, 0, 10, 7])
    store = open_store(root / name)
    labels = clip_labels(store, "label", ";") if name == "mixed" else None
    whole = replayer_of(root, store).batch(stored_views(store, 1, labels=labels), positions)
    monkeypatch.setattr("students.data._AHEAD", 4)
    monkeypatch.setattr("logitstore.store.piece.DRAWS_BYTES", 1)
    many = open_store(root / name)
    many.decoded_bytes = 0  # what others have decoded is not looked at
    asked: list[str] = []
    decode = Piece._decode
    monkeypatch.setattr(Piece, "_decode", lambda *given: (asked.append(given[1].name), decode(*given))[1])
    views = stored_views(many, 1, labels=labels)
    assert len(asked) == 1  # a look at the block of the first clip, and no more
    part = replayer_of(root, many).batch(views, positions)
    for field, value in vars(whole).items():
        other = getattr(part, field)
        if isinstance(value, Masks):
            assert all(map(np.array_equal, vars(value).values(), vars(other).values())), field
        else:
            assert (other is None) == (value is None), field
            assert value is None or np.array_equal(value, other), field
    with pytest.raises(UsageError, match=r"clip 12 is not in .*; it has clips 0 to 11"):
        stored_views(many, 1, [1, 2, 3, 4, 5, 12])
