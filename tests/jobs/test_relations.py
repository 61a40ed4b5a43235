"""Relations from end to end: codec, basis, build, resume, extension, reading, verification, several stores as one."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore import open_store
from logitstore.cli.main import cli
from logitstore.errors import AudioError, CorruptStoreError, MismatchError, ModelOutputError, TeacherError, UsageError
from logitstore.jobs.build.extend import ExtendOptions, extend
from logitstore.jobs.build.job import build, prepare
from logitstore.jobs.build.relate import Relator, mean_gram, relation_spec, unit_frames
from logitstore.jobs.verify.job import VerifyOptions, verify
from logitstore.models.grams import gram, pooled, pooled_gram, row_normalised
from logitstore.store.format.basis import BASIS, decode_basis, encode_basis, fit
from logitstore.store.format.relations import (
    RelationSpec,
    decode_clips,
    decode_frames,
    encode_clips,
    encode_frames,
    from_arrays,
    to_arrays,
)
from tests.stores import contents, options, write_audio

FEATURES = '''
import torch
from tones import TONES, Tones

COUNTS = {"forward": 0}


class Featured(Tones):
    """Features over time: levels of the tones in spans of 1 / FRAMES of the view, and their squares."""

    frames = 20
    fault = None

    def features(self, waveforms, masks=None):
        spans = waveforms[:, : waveforms.shape[1] // self.frames * self.frames].reshape(len(waveforms), self.frames, -1)
        tones = torch.tensor(TONES) * spans.shape[2] // self.sample_rate
        levels = torch.log10(torch.fft.rfft(spans).abs()[:, :, tones] / spans.shape[2] + 1e-4) * self.slope / 4
        found = torch.cat([levels, levels[:, :, :3].sin()], dim=2)
        if self.fault == "nan":
            found[-1, 0, 0] = float("nan")
        if self.fault == "shape":
            return found[:, 0]
        if self.fault == "kind":
            return found.int()
        return found


def one():
    return Featured()


def two():
    class Other(Featured):
        frames = 10

    return Other(6.0)


def bad(fault):
    model = Featured()
    model.fault = fault
    return model


def nan():
    return bad("nan")


def shape():
    return bad("shape")


def kind():
    return bad("kind")
'''
TEACHERS = ["python:featured:one", "python:featured:two"]


def with_relations(root: Path, **changes: Any) -> Any:
    (root / "featured.py").write_text(FEATURES)
    return options(root, **({"teachers": TEACHERS, "relations": "frames,clips"} | changes))


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def root(tmp_path, own_folder):
    write_audio(tmp_path / "audio", 12)
    return tmp_path


def exact(root: Path, store: Any, view: int, clips: Any) -> list[torch.Tensor]:
    """The teachers' features of stored views."""
    from logitstore.audio.clips import ClipAudio
    from logitstore.audio.sources import open_audio
    from logitstore.views.recipe import Masks
    from teachers.registry import load_teacher
    from tests.rendered import rendered_view

    audio = ClipAudio(open_audio(str(root / "audio")), store.clips, store.manifest.sample_rate)
    heard = [rendered_view(store, audio, int(clip), view) for clip in clips]
    spans = Masks(*(np.concatenate([getattr(span, n) for _, span in heard]) for n in Masks.__dataclass_fields__))
    waveforms = torch.stack([waveform for waveform, _ in heard])
    return [load_teacher(spec).outputs(waveforms, spans)[1] for spec in TEACHERS]


# the codec


def grams(count: int, frames: int, features: int, seed: int = 0) -> npt.NDArray[np.float64]:
    values = np.random.default_rng(seed).normal(0.4, 1, (count, frames, features))
    values *= np.exp(np.random.default_rng(seed + 1).normal(0, 0.7, (count, frames, 1)))
    return values @ values.transpose(0, 2, 1)


@pytest.mark.parametrize("features", [1, 3, 40])
def test_frames_decode_to_their_row_normalised_matrix(features):
    original = grams(50, 16, features)
    decoded = decode_frames(encode_frames(original), 16)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, decoded.transpose(0, 2, 1))
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=(1, 2)), 1, rtol=1e-5)
    rows, expected = (row_normalised(torch.from_numpy(each)).numpy() for each in (decoded, original))
    error = np.linalg.norm(rows - expected, axis=(1, 2)) / 4  # a row has norm 1, 16 rows norm 4
    assert error.max() < 0.03


def test_a_quiet_frame_keeps_its_row_and_silence_stays_silent():
    original = grams(1, 8, 5)
    original[:, 3] *= 1e-5
    original[:, :, 3] *= 1e-5
    rows, expected = (
        row_normalised(torch.from_numpy(each))[0, 3].numpy()
        for each in (decode_frames(encode_frames(original), 8), original)
    )
    np.testing.assert_allclose(rows, expected, atol=0.02)
    silent = np.zeros((1, 8, 8))
    assert not decode_frames(encode_frames(silent), 8).any()
    silent[0, 2, 2] = 4.0  # one frame alone
    expected = np.zeros((8, 8))
    expected[2, 2] = 1
    np.testing.assert_allclose(decode_frames(encode_frames(silent), 8)[0], expected, atol=1e-6)


def test_clips_decode_within_half_a_step():
    mean = np.linspace(-0.9, 0.9, 64).astype(np.float32)
    vectors = (mean + np.random.default_rng(0).normal(0, 0.05, (100, 64))).astype(np.float32)
    vectors[0], vectors[1] = -mean, mean  # as far away as can be, and not at all
    decoded = decode_clips(encode_clips(vectors, mean), mean)
    widest = np.abs(vectors - mean).max(axis=1, keepdims=True) + 2 / 255  # a scale is rounded up
    assert (np.abs(decoded - vectors) <= widest / 127 / 2 * 1.01).all()


@settings(max_examples=60, deadline=None)
@given(
    frames=st.one_of(st.none(), st.integers(2, 9)),
    clips=st.booleans(),
    rows=st.integers(1, 4),
    views=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_any_codes_come_back_from_their_arrays(frames, clips, rows, views, seed):
    if frames is None and not clips:
        return
    spec = RelationSpec(frames=frames, clips=64 if clips else None, pooled=frames or 5)
    codes = np.random.default_rng(seed).integers(0, 256, (rows, views, spec.width)).astype(np.uint8)
    arrays = to_arrays(spec, codes)
    assert {name: array.shape for name, array in arrays.items()} == {
        name: (1, length * rows * views) for name, length in spec.lengths.items()
    }
    np.testing.assert_array_equal(from_arrays(spec, arrays, rows, views), codes)


# the basis


def test_a_basis_keeps_the_inner_products_of_low_rank_features():
    random = np.random.default_rng(0)
    members = []
    for width in (12, 30):
        frame_parts = random.normal(size=(5, width))
        parts = random.normal(size=(20, 16, 5)) @ frame_parts
        members.append(
            torch.from_numpy((random.normal(size=(300, 20)) @ parts.reshape(20, -1)).reshape(300, 16, width))
        )
    whole = [part.numpy() for part in unit_frames([member.float() for member in members], 16)]
    basis = fit([part[:200] for part in whole])
    assert basis.frames == 16
    assert encode_basis(decode_basis(encode_basis(basis), "here")) == encode_basis(basis)
    assert encode_basis(fit([part[:200] for part in whole])) == encode_basis(basis)
    vectors = basis.project([part[200:] for part in whole])
    flat = np.concatenate([part[200:].reshape(100, -1) for part in whole], axis=1)
    np.testing.assert_allclose(np.linalg.norm(flat, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors @ vectors.T, flat @ flat.T, atol=0.01)
    rows = basis.rows[np.abs(basis.rows).max(axis=1) > 0]
    assert (np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1) > 0).all()


def test_a_damaged_basis_is_named():
    basis = fit([np.ones((3, 4, 2), np.float32)])
    with pytest.raises(CorruptStoreError, match=r"basis\.safetensors is damaged"):
        decode_basis(encode_basis(basis)[:-1], "here")
    from safetensors.numpy import load, save

    arrays = load(encode_basis(basis))
    with pytest.raises(CorruptStoreError, match="mean is float64"):
        decode_basis(save(arrays | {"mean": arrays["mean"].astype(np.float64)}), "here")


# a store


def test_a_store_gives_back_what_the_teachers_features_say(root):
    summary = build(with_relations(root, similarity_frames=8, value_bits=16))
    store = open_store(root / "store")
    assert store.manifest.format_version == 3
    assert store.manifest.relations == RelationSpec(frames=8, clips=64, pooled=8)
    clips = store.clips_of(1)[[5, 0, 11, 5]]
    found, features = store.relations(1, clips), exact(root, store, 1, clips)
    assert found.frames is not None
    assert found.clips is not None
    expected = row_normalised(mean_gram(features, 8)).numpy()
    error = np.linalg.norm(row_normalised(torch.from_numpy(found.frames)).numpy() - expected) / np.linalg.norm(expected)
    assert error < 0.02
    whole = torch.cat([part.flatten(1) for part in unit_frames(features, 8)], dim=1).numpy()
    np.testing.assert_allclose(found.clips @ found.clips.T, whole @ whole.T, atol=0.03)
    assert summary.relation_bytes["basis"] == (root / "store" / BASIS).stat().st_size
    # pooled first and normalised then: what a student of 4 frames is held to
    four = row_normalised(pooled_gram(torch.from_numpy(found.frames), 4)).numpy()
    members = [gram(pooled(pooled(member, 8), 4)) for member in features]
    sizes = [torch.linalg.matrix_norm(gram(pooled(member, 8)), keepdim=True) for member in features]
    direct = row_normalised(sum(m / s for m, s in zip(members, sizes, strict=True))).numpy()
    np.testing.assert_allclose(four, direct, atol=0.02)


@pytest.mark.parametrize("relations", ["frames", "clips"])
def test_one_of_the_two_alone(root, relations):
    build(with_relations(root, relations=relations))
    store = open_store(root / "store")
    found = store.relations(0, store.clips_of(0))
    assert (found.frames is None, found.clips is None) == (relations == "clips", relations == "frames")
    assert (root / "store" / BASIS).exists() == (relations == "clips")
    other = {"frames": "clips", "clips": "frames"}[relations]
    with pytest.raises(MismatchError, match=f"has the relations {relations}, and {other} are needed; build a store"):
        store.require_relations(**{other: True})
    assert not verify(VerifyOptions(store=str(root / "store"))).problems


def test_targets_are_the_same_with_relations_and_without(root):
    build(with_relations(root))
    build(with_relations(root, out=str(root / "plain"), relations=None))
    with_, without = contents(root / "store"), contents(root / "plain")
    assert BASIS not in without
    assert all(b'"basis"' not in content for name, content in without.items() if name.startswith("commits/"))
    assert b'"format_version":3' in without["zarr.json"]
    for name, content in without.items():
        if name.startswith("blocks/"):
            assert with_[name] == content
    with pytest.raises(MismatchError, match=r"plain has no relations.*logitstore build … --relations frames,clips"):
        open_store(root / "plain").relations(0, [0])
    with pytest.raises(MismatchError, match="relations: stored None, asked frames of 16 frames"):
        build(with_relations(root, out=str(root / "plain"), relations="frames"))


def test_failed_clips_have_no_relations(root):
    (root / "audio" / "a" / "000.wav").write_text("no audio")
    build(with_relations(root))
    store = open_store(root / "store")
    clip = store.failures()[0].clip
    with pytest.raises(UsageError, match=f"clip {clip} has no targets, it failed"):
        store.relations(0, [clip])
    assert not verify(VerifyOptions(store=str(root / "store"))).problems


def test_a_clip_that_failed_under_the_basis_is_mended_on_it(root):
    whole = soundfile.read(root / "audio" / "a" / "000.wav", dtype="float32")
    soundfile.write(root / "audio" / "a" / "000.wav", np.full_like(whole[0], np.nan), whole[1], subtype="FLOAT")
    with pytest.raises(AudioError, match="finite"):
        build(with_relations(root, strict=True))
    assert not (root / "store" / BASIS).exists()
    build(with_relations(root))
    store = open_store(root / "store")
    clip = store.failures()[0].clip
    basis = (root / "store" / BASIS).read_bytes()
    soundfile.write(root / "audio" / "a" / "000.wav", *whole, subtype="FLOAT")
    assert build(with_relations(root, retry_failed=True)).made_views == 3
    assert (root / "store" / BASIS).read_bytes() == basis
    found = open_store(root / "store").relations(0, [clip])
    features = unit_frames(exact(root, open_store(root / "store"), 0, [clip]), 16)
    want = store.basis.project([each.numpy() for each in features])
    np.testing.assert_allclose(found.clips, want, atol=0.01)
    assert not verify(VerifyOptions(store=str(root / "store"))).problems


def test_a_basis_without_blocks_that_is_damaged_or_anothers(root):
    build(with_relations(root))
    for folder in ("commits", "blocks"):
        shutil.rmtree(root / "store" / folder)
    whole = (root / "store" / BASIS).read_bytes()
    (root / "store" / BASIS).write_bytes(whole[:-1])
    with pytest.raises(CorruptStoreError, match=r"where no block is committed yet, delete it and build again"):
        build(with_relations(root))
    anothers = fit([np.random.default_rng(0).normal(size=(70, 8, 11)).astype(np.float32)])
    (root / "store" / BASIS).write_bytes(encode_basis(anothers))
    problems = verify(VerifyOptions(store=str(root / "store"), partial=True)).problems
    assert problems == (f"{BASIS} is of 1 teachers and 8 frames, and the manifest has 2 and 16",)
    (root / "store" / BASIS).unlink()
    write_audio(root / "more", 5, seconds=0.7)
    more = ExtendOptions(store=str(root / "store"), source=str(root / "more"), teachers=TEACHERS, device="cpu", views=3)
    before = contents(root / "store")
    with pytest.raises(UsageError, match="has no basis for its clips' vectors yet, which its build fits; run that"):
        extend(more)
    assert contents(root / "store") == before
    build(with_relations(root))
    assert (root / "store" / BASIS).read_bytes() == whole


def test_the_size_of_features_is_of_no_account():
    random = torch.Generator().manual_seed(0)
    features = [torch.randn(3, 9, 5, generator=random), torch.randn(3, 6, 4, generator=random)]
    features[1][2] = 0
    for power in (-90, -30, 60, 120):
        other = [each * 2.0**power for each in features]
        assert torch.equal(mean_gram(features, 6), mean_gram(other, 6))
        assert all(map(torch.equal, unit_frames(features, 6), unit_frames(other, 6)))


def test_a_store_at_a_url_holds_the_same_objects(root):
    pytest.importorskip("obstore")
    from logitstore.store.storage import open_storage

    build(with_relations(root))
    place = f"memory://relations/{root.name}"
    build(with_relations(root, out=place))
    storage = open_storage(place)
    assert {name: storage.get(name) for name in storage.names()} == contents(root / "store")
    found, expected = (open_store(each).relations(1, [3, 0]) for each in (place, root / "store"))
    np.testing.assert_array_equal(found.clips, expected.clips)


class Killed(BaseException):
    """Not an error that anything handles."""


def test_a_killed_build_goes_on_to_the_same_bytes(root, monkeypatch):
    from logitstore.store.storage import LocalStorage

    build(with_relations(root, out=str(root / "whole")))
    left = {"writes": 0}

    def counted(act: Any) -> Any:
        def write(self: Any, name: str, content: bytes) -> Any:
            left["writes"] -= 1
            if left["writes"] < 0:
                raise Killed
            return act(self, name, content)

        return write

    monkeypatch.setattr(LocalStorage, "_put", counted(LocalStorage._put))
    monkeypatch.setattr(LocalStorage, "_create", counted(LocalStorage._create))
    kills = 0
    for writes in itertools.count(0, 2):
        left["writes"] = writes
        try:
            build(with_relations(root))
            break
        except Killed:
            kills += 1
    assert kills > 5
    assert contents(root / "store") == contents(root / "whole")


def test_more_views_and_more_clips_use_the_basis_that_is_there(root):
    build(with_relations(root))
    before = contents(root / "store")
    build(with_relations(root, views=5))
    write_audio(root / "more" / "later", 5, seconds=0.7)
    extend(ExtendOptions(store=str(root / "store"), source=str(root / "more"), teachers=TEACHERS, device="cpu"))
    after = contents(root / "store")
    assert all(after[name] == content for name, content in before.items())
    store = open_store(root / "store")
    assert len({commit.basis for commit in store.commits}) == 1
    found = store.relations(4, np.arange(17))
    assert found.frames is not None
    assert found.frames.shape == (17, 16, 16)
    assert not verify(VerifyOptions(store=str(root / "store"))).problems


def test_another_builder_that_was_first_decides_the_basis(root, monkeypatch):
    import logitstore.jobs.build.relate as relations

    other = fit([np.random.default_rng(0).normal(size=(70, 16, 11)).astype(np.float32)] * 2)

    def late(sample: Any) -> Any:
        (root / "store" / BASIS).write_bytes(encode_basis(other))
        return fit(sample)

    monkeypatch.setattr(relations, "fit", late)
    build(with_relations(root))
    assert (root / "store" / BASIS).read_bytes() == encode_basis(other)
    store = open_store(root / "store")
    relator = Relator(RelationSpec(frames=16, clips=64, pooled=16), other, torch.device("cpu"))
    found = store.relations(0, store.clips_of(0)).clips
    assert found is not None
    np.testing.assert_allclose(found, relator.vectors(exact(root, store, 0, store.clips_of(0))), atol=0.01)


def test_verify_finds_wrong_relations_and_asks_the_teachers_again(root):
    build(with_relations(root))
    place = str(root / "store")
    asked = verify(VerifyOptions(store=place, audio_root=str(root / "audio"), teachers=TEACHERS, recompute=6))
    assert not asked.problems
    assert asked.recomputed is not None
    assert asked.recomputed.relation_error == pytest.approx(0, abs=0.02)
    assert "relations (frames,clips)" in asked.render()
    basis = root / "store" / BASIS
    content = basis.read_bytes()
    basis.write_bytes(content[:-1] + b"\1")
    assert verify(VerifyOptions(store=place)).problems == (
        f"{BASIS} is not the object that the blocks were committed with",
    )
    with pytest.raises(CorruptStoreError, match="is not the object that block"):
        open_store(root / "store").relations(0, [0])
    with pytest.raises(CorruptStoreError, match=r"basis\.safetensors is not the file that was committed"):
        build(with_relations(root, views=4))
    basis.unlink()
    assert verify(VerifyOptions(store=place)).problems == (f"{BASIS} is missing",)


def test_verify_finds_relations_of_the_wrong_size(root):
    from logitstore.digests import digest
    from logitstore.store.format import commits
    from logitstore.store.format.objects import encode_group

    build(with_relations(root))
    name = sorted((root / "store" / "commits").iterdir())[0]
    commit = commits.decode(name.read_bytes(), name.name)
    for array, wrong in (("frame_angles", np.zeros((1, 77), np.uint8)), ("clip_vectors", None)):
        group = root / "store" / commit.group
        objects = dict(commit.objects)
        if wrong is None:
            wrong = np.zeros((1, 64 * commit.clips * commit.views), np.uint8)
        made = {key: data for key, data in encode_group({array: wrong}, {}).items() if key != "zarr.json"}
        kept = {key: (group / key).read_bytes() for key in made}
        for key, data in made.items():
            (group / key).write_bytes(data)
            objects[key] = digest(data)
        name.write_bytes(commits.encode(msgspec.structs.replace(commit, objects=objects)))
        (problem,) = verify(VerifyOptions(store=str(root / "store"))).problems
        assert ("frame_angles has 77 columns" if array == "frame_angles" else "has a code 0, which is none") in problem
        for key, data in kept.items():
            (group / key).write_bytes(data)
        name.write_bytes(commits.encode(commit))
    assert not verify(VerifyOptions(store=str(root / "store"))).problems


def test_several_stores_as_one(root):
    build(with_relations(root))
    write_audio(root / "more", 3, seconds=0.8)
    build(with_relations(root, source=str(root / "more"), out=str(root / "second")))
    one, other = open_store(root / "store"), open_store(root / "second")
    both = open_store([root / "store", root / "second"])
    found, first, second = both.relations(2, [13, 2]), one.relations(2, [2]), other.relations(2, [1])
    assert found.frames is not None
    assert found.clips is None  # of another basis
    np.testing.assert_array_equal(found.frames[1], first.frames[0])
    np.testing.assert_array_equal(found.frames[0], second.frames[0])
    with pytest.raises(MismatchError, match=r"cannot be read as one .*clips one basis.*extend one store"):
        both.require_relations(clips=True)
    build(with_relations(root, source=str(root / "more"), out=str(root / "third"), similarity_frames=4))
    with pytest.raises(MismatchError, match=r"cannot be read as one \(16 frames and 4 frames\)"):
        open_store([root / "store", root / "third"]).relations(0, [0])


def test_a_store_in_another_process_and_without_room_gives_the_same(root, monkeypatch):
    import pickle

    build(with_relations(root))
    store = open_store(root / "store")
    expected = store.relations(1, [3, 1])
    small = open_store(root / "store")
    small.decoded_bytes = 0
    for other in (small, pickle.loads(pickle.dumps(store))):
        found = other.relations(1, [3, 1])
        np.testing.assert_array_equal(found.frames, expected.frames)
        np.testing.assert_array_equal(found.clips, expected.clips)


# what is refused, and what is said


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"relations": "rows"}, UsageError, "--relations 'rows'; allowed are frames"),
        ({"similarity_frames": 1}, UsageError, "--similarity-frames is 1; allowed are 2 to 64"),
        (
            {"teachers": ["python:tones:plain", "python:featured:one"]},
            TeacherError,
            "'python:tones:plain' gives no feat",
        ),
        (
            {"teachers": ["python:tones:plain", "python:tones:steep"]},
            TeacherError,
            "'python:tones:steep' give no feat",
        ),
    ],
)
def test_bad_options_are_refused_before_any_work(root, changes, error, words):
    with pytest.raises(error, match=words):
        prepare(with_relations(root, **changes))
    assert not (root / "store").exists()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nan", "'python:featured:nan' gave features that are not finite for clip"),
        ("shape", r"gave features of the shape \(8, 11\); it must be \(clips, frames, features\) = \(8, T, D\)"),
        ("kind", "gave features of torch.int32"),
    ],
)
def test_wrong_features_are_named(root, fault, words):
    with pytest.raises(ModelOutputError, match=words):
        build(with_relations(root, teachers=[f"python:featured:{fault}"], relations="frames"))


def test_a_source_with_nothing_to_fit_a_basis_on_is_refused(tmp_path, own_folder):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "text.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"not one of the 1 files of .*audio can be read \(text.wav: not readable"):
        build(with_relations(tmp_path))


def test_no_relations_are_asked_for_by_default():
    assert relation_spec(None, 16) is None
    assert relation_spec("clips, frames", 16) == RelationSpec(frames=16, clips=64, pooled=16)


def test_the_commands_say_what_relations_cost(root):
    with_relations(root)
    arguments = ["build", "audio", "--out", "store", "--teacher", TEACHERS[0], "--teacher", TEACHERS[1], "--views", "2",
                 "--topk", "4", "--clip-seconds", "2", "--device", "cpu", "--relations", "frames,clips"]  # fmt: skip
    planned = CliRunner().invoke(cli, [*arguments, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert "relations  frames " in planned.output
    built = CliRunner().invoke(cli, arguments)
    assert built.exit_code == 0, built.output
    assert "relations  frames " in built.output
    shown = CliRunner().invoke(cli, ["inspect", "store"])
    assert "relations  Gram matrices of 16 frames and vectors of 64 components; frames " in shown.output
    found = msgspec.json.decode(CliRunner().invoke(cli, ["inspect", "store", "--format", "json"]).output)["relations"]
    assert (found["frames"], found["clips"], found["pooled"]) == (16, 64, 16)
    assert set(found["bytes_a_view"]) == {"frames", "clips", "basis"}
    assert (root / "store" / BASIS).stat().st_size == pytest.approx(found["bytes_a_view"]["basis"] * 24)


def test_run_folders_give_features_in_the_same_pass(tmp_path):
    from logitstore.models.registry import build as build_model
    from teachers.specs.run_folder import TaggerTeacher

    model = build_model("cnn4", 3, width=2)
    passes: list[int] = []
    model.log_mel.register_forward_hook(lambda *_: passes.append(1))
    teacher = TaggerTeacher("here", "cnn4", model, ("a", "b", "c"), "0")
    waveforms = torch.randn(2, 16000)
    said, frames = teacher.outputs(waveforms, None)
    assert len(passes) == 1
    torch.testing.assert_close(said, teacher.probabilities(waveforms, None))
    torch.testing.assert_close(frames, teacher.features(waveforms, None))
