"""Stores that are drawn alike for other teachers: what comes from the store, and what is refused beside it."""

import dataclasses
import shutil

import numpy as np
import pytest
import soundfile

import logitstore
from logitstore import open_store
from logitstore.errors import MismatchError, UsageError
from logitstore.jobs.build.extend import extend
from logitstore.jobs.build.job import build, prepare
from logitstore.jobs.build.like import DEFAULT_VIEWS
from logitstore.jobs.options import ExtendOptions
from logitstore.views.recipe import parse_recipe
from tests.stores import contents, inside, options, write_audio

MIXED = parse_recipe({"name": "mixed", "ops": [{"op": "roll"}, {"op": "mixup", "probability": 0.5}]})
OTHER = ["python:tones:reversed_classes"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Twenty clips, and a store of them with a recipe, seed and shards of its own."""
    root = tmp_path_factory.mktemp("like")
    write_audio(root / "audio", 20)
    with inside(root):
        build(options(root, recipe=MIXED, seed=41, topk=3))
        yield root


def asked(root, **changes):
    """Options of a build like the store, of which nothing is said but where the audio is."""
    values = {"like": str(root / "store"), "teachers": OTHER, "out": str(root / "other"), "clip_seconds": None}
    return options(root, **(values | {"views": None, "topk": None, "shard_clips": None} | changes))


@pytest.mark.parametrize("given", ["source", "audio root"])
def test_all_that_must_match_comes_from_the_store(root, tmp_path, given):
    where = {"audio_root": str(root / "audio"), "source": ()} if given == "audio root" else {}
    build(asked(root, out=str(tmp_path / "b"), **where))
    first, second = open_store(root / "store"), open_store(tmp_path / "b")
    assert second.views == first.views == 3
    for view in range(3):
        here, there = first.draws(view).columns, second.draws(view).columns
        assert all((here[name] == there[name]).all() for name in here)
    assert first.clips.equals(second.clips)
    prints = [[each for commit in store.commits for each in commit.fingerprints] for store in (first, second)]
    assert prints[0] == prints[1]
    same = ("seed", "sample_rate", "clip_seconds", "shard_clips", "recipe_document", "topk")
    assert all(getattr(first.manifest, name) == getattr(second.manifest, name) for name in same)
    assert second.manifest.classes[0] == first.manifest.classes[-1]


def test_what_is_said_beside_it_must_agree(root, tmp_path):
    agreeing = asked(root, seed=41, recipe=MIXED, clip_seconds=2.0, sample_rate=16_000, out=str(tmp_path / "b"))
    assert prepare(agreeing).manifest.seed == 41
    with pytest.raises(MismatchError, match=r"--seed: the store has 41, asked 0; .*--sample-rate.*asked 8000"):
        prepare(dataclasses.replace(agreeing, seed=0, sample_rate=8_000))
    with pytest.raises(MismatchError, match=r"--recipe: the store has mixed, asked wave, whose ops are others"):
        prepare(dataclasses.replace(agreeing, recipe="wave"))
    with pytest.raises(MismatchError, match=r"--clip-seconds: the store has 2\.0, asked 1\.0"):
        prepare(dataclasses.replace(agreeing, clip_seconds=1.0))
    assert not (tmp_path / "b").exists()


def test_nowhere_to_find_the_clips_is_refused(root):
    with pytest.raises(UsageError, match=r"says which clips there are, not where; give --audio-root, or SOURCE"):
        prepare(asked(root, source=()))
    with pytest.raises(UsageError, match=r"--where says how to read SOURCE, and there is none"):
        prepare(asked(root, source=(), audio_root=str(root / "audio"), where="clip < 3"))
    with pytest.raises(UsageError, match=r"no SOURCE was given; give the audio, or --like STORE"):
        prepare(asked(root, source=(), like=None))


def test_other_clips_are_refused_by_name(root, tmp_path):
    shutil.copytree(root / "audio", tmp_path / "audio")
    (tmp_path / "audio" / "a" / "000.wav").rename(tmp_path / "audio" / "a" / "new.wav")
    with pytest.raises(MismatchError, match=r"1 clips are new .* \(as a/new\.wav"):
        prepare(asked(root, source=str(tmp_path / "audio")))
    (tmp_path / "audio" / "a" / "new.wav").unlink()
    job = prepare(asked(root, source=str(tmp_path / "audio"), out=str(tmp_path / "b")))
    assert any("1 of 20 files" in note and "a/000.wav" in note for note in job.notes)
    assert build(job.options).failures[0].path == "a/000.wav"
    soundfile.write(tmp_path / "audio" / "a" / "000.wav", np.zeros(100), 16_000)
    with pytest.raises(MismatchError, match=r"a/000\.wav has 100 frames and had \d+ or more \(1 such files\)"):
        prepare(asked(root, source=(), audio_root=str(tmp_path / "audio")))


def test_other_sound_of_the_same_names_is_refused_before_anything_is_written(root, tmp_path):
    shutil.copytree(root / "audio", tmp_path / "audio")
    for file in (tmp_path / "audio").rglob("*.wav"):
        sound, rate = soundfile.read(file)
        soundfile.write(file, 0.5 * sound, rate, subtype="PCM_16")
    changed = asked(root, source=str(tmp_path / "audio"), out=str(tmp_path / "b"))
    with pytest.raises(MismatchError, match=r"is not the one that .*store was made from: clip \d+ .*band levels"):
        build(changed)
    assert not (tmp_path / "b").exists()


def test_a_build_like_an_extended_store_has_its_parts_and_goes_on_as_it_grows(root, tmp_path):
    shutil.copytree(root / "audio", tmp_path / "audio")
    shutil.copytree(root / "store", tmp_path / "store")
    grown = asked(root, like=str(tmp_path / "store"), source=(), audio_root=str(tmp_path / "audio"),
                  out=str(tmp_path / "b"))  # fmt: skip
    build(grown)
    shutil.copy(tmp_path / "audio" / "a" / "000.wav", tmp_path / "audio" / "a" / "new.wav")
    teachers = ["python:tones:plain", "python:tones:steep"]
    extend(ExtendOptions(store=str(tmp_path / "store"), source=str(tmp_path / "audio"), teachers=teachers,
                         skip_known=True, device="cpu"))  # fmt: skip
    build(grown)
    first, second = open_store(tmp_path / "store"), open_store(tmp_path / "b")
    assert len(first) == len(second) == 21
    assert [each.name for each in first.commits] == [each.name for each in second.commits]
    build(dataclasses.replace(grown, out=str(tmp_path / "at once")))
    assert contents(tmp_path / "b") == contents(tmp_path / "at once")


def test_a_build_goes_on_with_no_store_but_the_one_that_it_was_begun_like(root, tmp_path):
    with inside(root):
        logitstore.build(**vars(asked(root, out=str(tmp_path / "b"))))
        write_audio(tmp_path / "others", 7)
        build(options(root, source=str(tmp_path / "others"), out=str(tmp_path / "c"), recipe=MIXED, seed=41, topk=3))
        with pytest.raises(MismatchError, match=r"00000\.parquet of .* holds other clips than the store"):
            build(asked(root, source=str(tmp_path / "others"), like=str(tmp_path / "c"), out=str(tmp_path / "b")))


def test_a_store_of_no_views_yet_leaves_their_number_open(root, tmp_path):
    shutil.copytree(root / "store", tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "commits")
    job = prepare(asked(root, like=str(tmp_path / "store"), out=str(tmp_path / "b")))
    assert job.options.views == DEFAULT_VIEWS


def test_imported_stores_draw_by_no_seed(root, tmp_path):
    shutil.copytree(root / "store", tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "commits")
    root_object = tmp_path / "store" / "zarr.json"
    root_object.write_text(root_object.read_text().replace('"device_kind":"cpu"', '"device_kind":"imported"'))
    with pytest.raises(MismatchError, match=r"was imported: its draws are not those of its seed"):
        prepare(asked(root, like=str(tmp_path / "store")))
