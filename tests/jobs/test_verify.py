"""Whatever is wrong with a store, verify says so; and of a sound one it says what it checked."""

import json
import shutil
import sys

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitstore.digests import digest
from logitstore.errors import MismatchError, NotAStoreError, UsageError
from logitstore.jobs.build.extend import ExtendOptions, extend
from logitstore.jobs.build.job import build
from logitstore.jobs.verify.audit import audit
from logitstore.jobs.verify.job import VerifyOptions, verify
from logitstore.store.format.commits import decode, encode, object_name
from logitstore.store.format.manifest import decode_root, encode_root
from logitstore.store.format.objects import encode_group
from logitstore.store.storage import LocalStorage
from logitstore.views.recipe import parse_recipe
from tests.small_store import Spec, make_store
from tests.stores import contents, inside, options, write_audio

TEACHERS = ("python:tones:plain", "python:tones:steep")
MIXED = {"ops": [{"op": "mixup", "probability": 1.0, "min_weight": 0.2}, {"op": "noise"}]}


pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def made(tmp_path):
    spec = Spec(clips=12, shard_clips=8, view_ranges=((0, 2), (2, 3)), keep_members=True, failed=(10,), version=1)
    return make_store(tmp_path / "store", spec).path


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store of 20 clips and 3 views, built and then extended by 4; its audio beside it. Not to be changed."""
    root = tmp_path_factory.mktemp("built")
    with inside(root):
        write_audio(root / "audio", 16)
        build(options(root))
        write_audio(root / "all", 20)
        (root / "more.csv").write_text("path\na/016.wav\nb/017.wav\na/018.wav\nb/019.wav\n")
        extend(
            ExtendOptions(
                store=str(root / "store"), source=str(root / "more.csv"), audio_root=str(root / "all"),
                teachers=TEACHERS,
            )
        )  # fmt: skip
    return root


def problems(path, **asked):
    return audit(LocalStorage(path), **asked).problems


def changed(path, block, **arrays):
    """Put other arrays into a block and commit them, as a builder with a fault would."""
    file = path / object_name(block)
    commit = decode(file.read_bytes(), file.name)
    for name, data in encode_group(arrays, {}).items():
        if name != "zarr.json":
            (path / commit.group / name).write_bytes(data)
            commit.objects[name] = digest(data)
    file.write_bytes(encode(commit))


def recommitted(path, block, **fields):
    file = path / object_name(block)
    commit = msgspec.structs.replace(decode(file.read_bytes(), file.name), **fields)
    file.write_bytes(encode(commit))


def array(path, block, name, planes):
    from numcodecs.zstd import Zstd

    chunks = [path / "blocks" / block / name / "c" / str(plane) / "0" for plane in range(planes)]
    return np.stack([np.frombuffer(Zstd().decode(chunk.read_bytes()), np.uint8).copy() for chunk in chunks])


def test_a_sound_store_has_no_problems_and_everything_is_counted(made):
    found = audit(LocalStorage(made))
    assert found.problems == []
    assert (found.parts, found.clips, found.failed, found.shards, found.blocks) == (1, 12, 1, 2, 4)
    assert (found.views, found.stored_views, len(found.sound)) == (3, 33, 4)
    files = contents(made)
    assert (found.objects, found.checked_bytes) == (len(files), sum(map(len, files.values())))


def test_every_flipped_byte_truncation_and_deletion_is_found(made):
    random = np.random.default_rng(3)
    whole = contents(made)
    for name, content in whole.items():
        file = made / name
        place = int(random.integers(len(content)))
        flipped = bytearray(content)
        flipped[place] ^= 1 << int(random.integers(8))
        for damaged in (bytes(flipped), content[: int(random.integers(len(content)))], content + b" "):
            file.write_bytes(damaged)
            assert problems(made), (name, damaged)
        file.unlink()
        assert problems(made), name
        file.write_bytes(content)
    assert problems(made) == []
    assert contents(made) == whole


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("notes.txt", "notes.txt is no part of a store"),
        ("clips/notes.txt", "clips/notes.txt is no part of a store"),
        ("commits/notes.txt", "commits/notes.txt is no part of a store"),
        ("blocks/000000-0-2/notes.txt", "blocks/000000-0-2/notes.txt is an object that no commit names"),
        ("blocks/000000-0-9/zarr.json", "blocks/000000-0-9 is a block without a commit (1 object)"),
        ("blocks/other/zarr.json", "blocks/other is a block without a commit (1 object)"),
        ("commits/000007-0-1.json", "commits/000007-0-1.json is damaged"),
    ],
)
def test_strangers_are_named(made, name, line):
    (made / name).parent.mkdir(exist_ok=True)
    (made / name).write_text("{}")
    (made / "tmp").mkdir(exist_ok=True)
    (made / "tmp" / "a~b~1~c").write_text("of a builder")
    found = problems(made)
    assert len(found) == 1
    assert found[0].startswith(line)


def test_a_copied_commit_is_not_another_blocks(made):
    shutil.copy(made / "commits" / "000000-0-2.json", made / "commits" / "000001-0-2.json")
    assert "commits/000001-0-2.json is the commit of another block, 000000-0-2; remove it" in problems(made)


def test_missing_blocks_are_problems_unless_the_store_is_partial(tmp_path):
    spec = Spec(clips=37, view_ranges=((0, 2), (2, 3)), skip_blocks=("000001-2-3", "000002-2-3", "000004-0-2"))
    store = make_store(tmp_path / "store", spec).path
    assert problems(store) == [
        "shards 1 to 2 without views 2: their blocks are missing",
        "shard 4 without views 0 to 1: their blocks are missing",
    ]
    assert problems(store, partial=True) == []
    (store / "commits" / "000003-0-2.json").unlink()
    found = audit(LocalStorage(store), partial=True)
    assert (found.problems, found.unfinished, found.blocks) == ([], 3, 6)
    shutil.rmtree(store / "commits")
    assert problems(store)[-1] == "shards 0 to 4 without views" or "no block is finished" in problems(store)


def test_damage_to_one_block_is_one_line_and_the_rest_is_still_checked(made):
    file = made / "blocks" / "000001-0-2" / "firsts" / "c" / "0" / "0"
    file.write_bytes(b"x")
    found = audit(LocalStorage(made))
    assert found.problems == ["blocks/000001-0-2/firsts/c/0/0 is not the object that was committed"]
    assert len(found.sound) == 3


def test_a_damaged_manifest_is_a_problem_and_digests_are_still_checked(made):
    root = made / "zarr.json"
    text = root.read_text()
    root.write_text(text.replace('"seed":7', '"seed":8'))
    (made / "blocks" / "000001-0-2" / "zarr.json").unlink()
    assert problems(made) == [
        "zarr.json, which holds the manifest, is not the object that the blocks were committed under",
        "blocks/000001-0-2/zarr.json is missing",
    ]
    root.unlink()
    assert problems(made)[0] == "zarr.json, which holds the manifest, is missing"


def test_no_store_is_no_problem_list(tmp_path):
    with pytest.raises(NotAStoreError, match="no store at"):
        audit(LocalStorage(tmp_path / "nothing"))
    store = make_store(tmp_path / "store").path
    root = (store / "zarr.json").read_text().replace('"format_version":3', '"format_version":5').encode()
    for file in (store / "commits").iterdir():
        recommitted(store, file.stem, manifest_digest=digest(root))
    (store / "zarr.json").write_bytes(root)
    with pytest.raises(NotAStoreError, match="format version 5"):
        audit(LocalStorage(store))


# what a builder with a fault would commit


@pytest.mark.parametrize(
    ("name", "planes", "change", "line"),
    [
        ("draws", 6, lambda a: a[:-1], "draws is of shape (5, 16)"),
        ("draws", 6, lambda a: a[:, :-1], "draws has 15 columns, not 16"),
        ("views", 1, lambda a: a[:, :-1], "views has "),
        ("views", 1, lambda a: a | 128, "views names a view beyond its 2"),
        ("firsts", 1, lambda a: a[:, 1:], "firsts has "),
        ("residuals", 1, lambda a: np.append(a, a, axis=1), "residuals has "),
        ("members", 2, lambda a: a[:1], "members is of shape (1, "),
        ("classes", 1, lambda a: a[:, 1:], "views has "),
        ("classes", 1, lambda a: np.maximum(a, 30), "classes is not rising below 8 rows x 12 classes"),
    ],
)
def test_shapes_are_held_against_the_manifest(made, name, planes, change, line):
    stored = array(made, "000000-0-2", name, planes)
    changed(made, "000000-0-2", **{name: change(stored)})
    found = problems(made)
    assert len(found) == 1
    assert line in found[0]


def test_every_view_has_k_classes(made):
    views = array(made, "000000-0-2", "views", 1)
    one = int(np.flatnonzero(views[0] == 3)[0])
    fewer = views.copy()
    fewer[0, one] = 1
    changed(made, "000000-0-2", views=fewer, residuals=array(made, "000000-0-2", "residuals", 1)[:, 1:],
            members=array(made, "000000-0-2", "members", 2)[:, 1:])  # fmt: skip
    assert "view 1 has 4 classes, not 5 (of 1 such views)" in problems(made)[0]


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"failed": ((2, "said to have failed"),)}, "clip 2, view 0 has 5 classes, not 0, for it failed"),
        ({"failed": ((9, "no such row"),)}, "the failed rows are not rising rows of 8, with row 9"),
        ({"first_clip": 8}, "is of the clips 8 to 15 of clips/00000.parquet; its shard has 0 to 7"),
        ({"clip_table": "clips/00001.parquet"}, "clips/00001.parquet is missing"),
        ({"clip_table_digest": "0" * 32}, "clips/00000.parquet is not the object that was committed"),
        ({"manifest_digest": "0" * 32}, "commits/000000-0-2.json was committed under another manifest"),
    ],
)  # fmt: skip
def test_counts_are_held_against_the_clip_table(made, fields, line):
    recommitted(made, "000000-0-2", **fields)
    assert any(line in problem for problem in problems(made))


def test_clips_that_are_there_twice_are_named(made):
    table = pq.read_table(made / "clips" / "00000.parquet")
    twice = pa.concat_tables([table.slice(0, 11), table.slice(3, 1)])
    pq.write_table(twice, made / "clips" / "00000.parquet")
    new = digest((made / "clips" / "00000.parquet").read_bytes())
    for file in (made / "commits").iterdir():
        recommitted(made, file.stem, clip_table_digest=new)
    assert "clips 3 and 11 have the same path, start and length" in problems(made)


@pytest.mark.parametrize(
    ("plane", "value", "line"),
    [
        (3, 192, "clip 2, view 1: time_length 192 is outside of its range"),
        (2, 199, "clip 2, view 1: time_start 199 is outside of its range"),
        (4, 64, "clip 2, view 1: freq_low 64 is outside of its range"),
        (0, 17, "clip 2, view 1: roll is "),
    ],
)
def test_draws_are_those_of_the_recipe_and_seed(made, plane, value, line):
    draws = array(made, "000000-0-2", "draws", 6)  # roll in two planes, time_start, time_length, freq_low, freq_steps
    if plane:
        draws[3, 5] = draws[5, 5] = 9
    draws[plane, 5] = value
    changed(made, "000000-0-2", draws=draws)
    found = problems(made)
    assert any(line in problem for problem in found), found
    root = made / "zarr.json"
    manifest = decode_root(root.read_bytes(), "")
    root.write_bytes(encode_root(msgspec.structs.replace(manifest, device_kind="imported")))
    for file in (made / "commits").iterdir():
        recommitted(made, file.stem, manifest_digest=digest(root.read_bytes()))
    within = plane == 0  # an import's draws are its own, but within their ranges
    assert (problems(made) == []) is within


def test_a_mix_whose_partner_could_not_be_decoded_is_recorded_and_sound(tmp_path):
    write_audio(tmp_path / "audio", 8)
    whole = (tmp_path / "audio" / "a" / "004.wav").read_bytes()
    (tmp_path / "audio" / "a" / "004.wav").write_bytes(whole[: len(whole) // 2])
    summary = build(options(tmp_path, recipe=parse_recipe(MIXED), views=4))
    assert len(summary.failures) == 1
    assert problems(tmp_path / "store") == []


# with the audio and the teachers


def test_views_are_replayed_and_teachers_asked_again(built, monkeypatch):
    monkeypatch.chdir(built)
    monkeypatch.syspath_prepend(str(built))
    store, audio = str(built / "store"), str(built / "all")
    found = verify(VerifyOptions(store=store, audio_root=audio, replay=2, teachers=TEACHERS[::-1], recompute=30))
    assert found.problems == ()
    assert (found.replayed, found.recomputed.views, found.recomputed.changed) == (2, 30, 0)
    assert found.recomputed.largest_difference < 0.01
    assert found.audit.parts == 2

    with pytest.raises(MismatchError, match=r"not the teachers .*\([0-9a-f]{32}\).*given python:tones:plain \("):
        verify(VerifyOptions(store=store, audio_root=audio, teachers=TEACHERS[:1]))
    monkeypatch.setattr(sys.modules["tones"].Tones, "forward", lambda self, x, masks=None: x[:, :8] * 0 + 0.9)
    assert any("say otherwise" in p for p in verify(
        VerifyOptions(store=store, audio_root=audio, teachers=TEACHERS)).problems)  # fmt: skip


def test_other_audio_is_a_problem(built, tmp_path):
    shutil.copytree(built / "all", tmp_path / "all")
    (tmp_path / "all" / "a" / "000.wav").unlink()
    shutil.copy(tmp_path / "all" / "b" / "003.wav", tmp_path / "all" / "b" / "001.wav")
    found = verify(VerifyOptions(store=str(built / "store"), audio_root=str(tmp_path / "all"), replay=100))
    assert found.problems
    assert any("a/000.wav" in problem for problem in found.problems)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"replay": 3}, "--replay needs the clips; give --audio-root"),
        ({"teachers": TEACHERS}, "--teacher needs the clips"),
        ({"recompute": 3, "audio_root": "audio"}, "there is no --teacher SPEC"),
        ({"replay": 0, "audio_root": "audio"}, "--replay is 0; it must be at least 1"),
    ],
)
def test_options_that_do_not_go_together(built, asked, message):
    with pytest.raises(UsageError, match=message):
        verify(VerifyOptions(store=str(built / "store"), **asked))


def test_the_command_says_what_it_checked_and_what_is_wrong(made, capsys):
    from logitstore.cli.command import run
    from logitstore.cli.main import cli

    def command(*arguments):
        sys.argv = ["logitstore", "verify", *map(str, arguments)]
        with pytest.raises(SystemExit, match=r"\d") as left:
            run(cli)
        said = capsys.readouterr()
        return int(left.value.code), said.out, said.err

    code, out, err = command(made, "-q")
    assert (code, err) == (0, "")
    assert "4 in 2 shards x 3 views, 4 sound" in out
    assert "draws within their ranges, draws are those of seed 7" in out
    assert out.endswith("problems   0\n")
    name = made / "blocks" / "000001-2-3" / "views" / "c" / "0" / "0"
    name.unlink()
    code, out, err = command(made)
    assert code == 1
    assert f"problems   1\n           {name.relative_to(made).as_posix()} is missing\n" in out
    assert err.splitlines()[-1].startswith("Error: ")
    assert "1 problem, listed above" in err
    code, out, _ = command(made, "--json")
    assert code == 1
    assert json.loads(out)["problems"] == [f"{name.relative_to(made).as_posix()} is missing"]
    assert command("nowhere")[0] == 2
