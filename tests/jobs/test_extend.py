"""More clips and more views for a store that is there, and parts of it built by several jobs."""

import json
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from logitstore import open_store
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.errors import AudioError, MismatchError, NotAStoreError, UsageError
from logitstore.jobs.build.extend import ExtendOptions, dry_run, extend, prepare_extend
from logitstore.jobs.build.job import Progress, build
from logitstore.jobs.status import status
from logitstore.store.format.parts import encode_clips
from logitstore.store.storage import LocalStorage
from logitstore.store.writer import StoreWriter
from tests.rendered import compared
from tests.small_store import Spec, make_store
from tests.stores import contents, options, write_audio

TEACHERS = ["python:tones:plain", "python:tones:steep"]


pytestmark = pytest.mark.usefixtures("own_folder")


@pytest.fixture
def root(tmp_path):
    """20 clips, of which ``first`` lists 12 and ``more`` the other 8."""
    write_audio(tmp_path / "audio", 20)
    paths = sorted(p.relative_to(tmp_path / "audio").as_posix() for p in (tmp_path / "audio").rglob("*.wav"))
    write_manifest(tmp_path / "first.csv", paths[:12])
    write_manifest(tmp_path / "more.csv", paths[12:])
    return tmp_path


def write_manifest(file, paths, columns=",fold", value=",1"):
    file.write_text(f"path{columns}\n" + "".join(f"{path}{value}\n" for path in paths))


def built(root, **changes):
    return build(options(root, source=str(root / "first.csv"), audio_root=str(root / "audio"), **changes))


def more(root, **changes):
    values = {
        "store": str(root / "store"),
        "source": str(root / "more.csv"),
        "teachers": TEACHERS,
        "audio_root": str(root / "audio"),
        "workers": 2,
    }
    return ExtendOptions(**(values | changes))


def test_an_extended_store_holds_the_new_clips_and_nothing_there_is_touched(root):
    built(root)
    before = contents(root / "store")
    summary = extend(more(root))
    after = contents(root / "store")
    assert {name: after[name] for name in before} == before
    assert (summary.clips, summary.made_views, summary.blocks, summary.missing) == (20, 24, 3, 0)
    assert "clips/00001.parquet" in after
    store = open_store(root / "store")
    assert [(c.shard, c.first_clip, c.clips, c.clip_table) for c in store.commits] == [
        (0, 0, 8, "clips/00000.parquet"), (1, 8, 4, "clips/00000.parquet"), (2, 12, 8, "clips/00001.parquet"),
    ]  # fmt: skip
    found = status(str(root / "store"))
    assert (found.clips, found.shards, found.shards_finished, found.missing) == (20, 3, 3, 0)
    audio = ClipAudio(open_audio(str(root / "audio")), store.clips, 16_000)
    assert compared(store, audio, 10) == (6, [])
    assert store.clips_of(2).tolist() == list(range(20))
    assert store.sql("SELECT count(*) AS n, count(DISTINCT clip) AS c FROM topk").to_pylist() == [{"n": 240, "c": 20}]
    assert store.sql("SELECT max(clip) AS c FROM clips WHERE fold = 1").to_pylist() == [{"c": 19}]


def test_an_extension_says_of_a_clip_what_a_build_of_it_says(root):
    built(root)
    extend(more(root))
    build(options(root, out=str(root / "alone"), source=str(root / "more.csv"), audio_root=str(root / "audio")))
    both, alone = open_store(root / "store"), open_store(root / "alone")
    for view in range(3):
        for extended, own in zip(both.targets(view, range(12, 20)), alone.targets(view, range(8)), strict=True):
            assert (extended == own).all()
        for name, drawn in alone.draws(view).columns.items():
            assert (both.draws(view, np.arange(12, 20)).columns[name] == drawn).all()


def test_an_interrupted_extension_goes_on_where_it_stopped(root):
    built(root, shard_clips=4)
    shutil.copytree(root / "store", root / "before")
    extend(more(root))
    whole = contents(root / "store")

    def stop(views):
        raise KeyboardInterrupt

    asked = more(root, store=str(root / "before"))
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        extend(asked, Progress(advance=stop))
    left = status(str(root / "before"))
    assert (left.clips, left.shards, left.missing) == (20, 5, 2)
    extend(asked)
    assert contents(root / "before") == whole
    assert extend(asked).made_views == 0


def test_clips_that_are_there_are_refused_by_name_or_skipped(root):
    built(root)
    everything = more(root, source=str(root / "audio"), audio_root=None)
    with pytest.raises(MismatchError, match=r"12 of 20 clips .* already in .*\(a/000.wav at 0\+.*, …\); give --skip"):
        extend(everything)
    with pytest.raises(MismatchError, match="12 of 12 clips of the source are already"):
        extend(more(root, source=str(root / "first.csv")))
    assert not (root / "store" / "clips" / "00001.parquet").exists()
    skipping = more(root, source=str(root / "audio"), audio_root=None, skip_known=True)
    assert extend(skipping).made_views == 24
    assert extend(skipping).made_views == 0
    assert sorted(p.name for p in (root / "store" / "clips").iterdir()) == ["00000.parquet", "00001.parquet"]
    assert open_store(root / "store").clips["fold"].to_pylist() == [1] * 12 + [None] * 8


def test_more_views_reach_every_part_whose_audio_the_source_has(root):
    built(root)
    extend(more(root))
    before = contents(root / "store")
    notes = []
    summary = built(root, views=5)
    after = contents(root / "store")
    assert {name: after[name] for name in before} == before
    assert (summary.made_views, summary.views, summary.missing) == (40, 5, 0)
    assert open_store(root / "store").clips_of(4).tolist() == list(range(20))

    (root / "elsewhere").mkdir()
    for path in ("a", "b"):
        shutil.copytree(root / "audio" / path, root / "elsewhere" / path)
    for line in (root / "more.csv").read_text().split()[1:]:
        (root / "elsewhere" / line.split(",")[0]).unlink()
    asked = options(
        root, source=str(root / "first.csv"), audio_root=str(root / "elsewhere"), views=6
    )  # fmt: skip
    summary = build(asked, Progress(note=notes.append))
    assert (summary.made_views, summary.missing, summary.shards) == (12, 1, 3)
    assert "clips/00001.parquet of the store lacks views" in notes[0]
    assert "--views 6" in notes[0]
    assert extend(more(root, views=6)).missing == 0
    assert open_store(root / "store").clips_of(5).tolist() == list(range(20))


def test_one_source_may_give_the_clips_of_several_parts(root):
    columns = {"columns": "", "value": ""}
    for name in ("first", "more"):
        paths = [line.split(",")[0] for line in (root / f"{name}.csv").read_text().split()[1:]]
        write_manifest(root / f"{name}.csv", paths, **columns)
    built(root)
    extend(more(root))
    assert build(options(root, source=str(root / "audio"), views=4)).made_views == 20
    write_audio(root / "new", 2)
    shutil.copy(root / "new" / "a" / "000.wav", root / "audio" / "z.wav")
    with pytest.raises(MismatchError, match=r"1 clips of the source are not in .*z.wav at 0\+.*extend --skip-known"):
        build(options(root, source=str(root / "audio"), views=4))
    (root / "audio" / "z.wav").write_text("no audio")
    write_manifest(root / "z.csv", ["z.wav"], **columns)
    with pytest.raises(AudioError, match=r"not one of the 1 files of .*z.csv can be read"):
        build(options(root, source=str(root / "z.csv"), audio_root=str(root / "audio"), views=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teachers": TEACHERS[:1]}, r"has 2 teachers \(.*asked 1; give --teacher SPEC for each"),
        ({"teachers": ["python:tones:steep", "python:tones:steep"]}, "teachers: stored .*, asked "),
        ({"teachers": ["python:tones:others", "python:tones:steep"]}, "made otherwise: teachers"),
        ({"store": "nothing"}, "no store at nothing"),
        ({"shards": "3:5"}, "--shards 3:5 holds none of the source's shards, which are 2;"),
        ({"shards": "two"}, "--shards 'two' is not of the form A:B"),
        ({"views": 0}, "--views is 0"),
    ],
)
def test_what_cannot_be_added_is_refused(root, changes, message):
    built(root)
    with pytest.raises(UsageError, match=message):
        extend(more(root, **changes))


def test_columns_that_do_not_fit_are_refused(root):
    built(root)
    paths = [line.split(",")[0] for line in (root / "more.csv").read_text().split()[1:]]
    write_manifest(root / "more.csv", paths, value=",one")
    with pytest.raises(MismatchError, match="the column 'fold' is string in the source and int64"):
        extend(more(root))
    write_manifest(root / "more.csv", paths, columns=",Fold")
    with pytest.raises(MismatchError, match=r"a column 'Fold' and .* a column 'fold'"):
        extend(more(root))


def test_a_store_without_blocks_or_clips_is_not_extended(root):
    built(root, shard_clips=4)
    shutil.rmtree(root / "store" / "commits")
    with pytest.raises(UsageError, match="no finished block yet, so no number of views; give --views"):
        extend(more(root))
    shutil.rmtree(root / "store" / "clips")
    with pytest.raises(NotAStoreError, match="has no clips yet; run its build first"):
        extend(more(root, views=2))


def test_jobs_that_build_ranges_of_shards_fill_one_store(root):
    build(options(root, out=str(root / "whole"), shard_clips=4))
    source = options(root, shard_clips=4)
    first = build(options(root, shard_clips=4, shards="0:2"))
    assert (first.blocks, first.made_views, first.missing, first.shards) == (2, 24, 3, 5)
    (root / "store" / "blocks" / "000009-0-3").mkdir()
    (root / "store" / "blocks" / "000009-0-3" / "zarr.json").write_text("{}")
    assert build(options(root, shard_clips=4, shards="0:2")).made_views == 0
    assert (root / "store" / "blocks" / "000009-0-3").exists()  # swept only when everything is there
    assert build(options(root, shard_clips=4, shards="3:")).missing == 1
    assert build(options(root, shard_clips=4, shards="1:3")).missing == 0
    assert contents(root / "store") == contents(root / "whole")
    assert build(source).made_views == 0


def test_ranges_of_shards_of_an_extension(root):
    built(root, shard_clips=4)
    prepared = prepare_extend(more(root))
    assert dry_run(prepared).render().startswith("shards     3 to 4, in clips/00001.parquet\nclips      8,")
    assert extend(more(root, shards="4:5")).missing == 1
    assert extend(more(root, shards="3:4")).missing == 0
    commits = [json.loads(p.read_bytes()) for p in sorted((root / "store" / "commits").iterdir())]
    assert [commit["first_clip"] for commit in commits] == [0, 4, 8, 12, 16]
    assert pq.read_table(root / "store" / "clips" / "00001.parquet").num_rows == 8


class Raced(LocalStorage):
    """A folder in which another builder is a moment faster: it adds ``rival`` just before our new part."""

    rival: pa.Table | None = None

    def create(self, name, content, still=lambda: True):
        if name == "clips/00001.parquet" and self.rival is not None:
            super().create(name, encode_clips(self.rival))
        return super().create(name, content)


def test_two_extenders_at_once_share_a_part_or_make_two(tmp_path):
    made = make_store(tmp_path / "one", Spec(clips=12, shard_clips=8)).path
    shutil.copytree(made, tmp_path / "two")
    manifest = open_store(made).manifest
    clips = pq.read_table(made / "clips" / "00000.parquet")
    new, others = (
        clips.set_column(0, "path", pa.array([f"{name}/{number}" for number in range(12)])) for name in ("new", "other")
    )
    raced = Raced(made)
    raced.rival = new
    writer = StoreWriter.extend(raced, manifest, new)
    assert [(part.name, part.first_clip, part.first_shard) for part in writer.own] == [("clips/00001.parquet", 12, 2)]
    raced = Raced(tmp_path / "two")
    raced.rival = others
    writer = StoreWriter.extend(raced, manifest, new)
    assert [(part.name, part.first_clip, part.first_shard) for part in writer.own] == [("clips/00002.parquet", 24, 4)]
    assert (writer.shards, writer.clips_of(3), writer.clips_of(5)) == (6, range(20, 24), range(32, 36))
    shutil.copytree(made, tmp_path / "three")
    (tmp_path / "three" / "clips" / "00001.parquet").unlink()
    raced = Raced(tmp_path / "three")
    raced.rival = pa.concat_tables([new.slice(0, 1), others.slice(0, 1)])
    with pytest.raises(MismatchError, match="1 of 12 clips of the source are already in"):
        StoreWriter.extend(raced, manifest, new)


def test_the_command_extends_a_store(root, capsys):
    from logitstore.cli.command import run
    from logitstore.cli.main import cli

    def program(*arguments):
        sys.argv = ["logitstore", *map(str, arguments)]
        with pytest.raises(SystemExit, match=r"\d") as left:
            run(cli)
        said = capsys.readouterr()
        return int(left.value.code), said.out, said.err

    built(root)
    teachers = [part for spec in TEACHERS for part in ("--teacher", spec)]
    arguments = ("extend", "store", "more.csv", "--audio-root", "audio", *teachers)
    code, out, _ = program(*arguments, "--dry-run")
    assert (code, out.splitlines()[0]) == (0, "shards     2, in clips/00001.parquet")
    assert not (root / "store" / "clips" / "00001.parquet").exists()
    code, out, err = program(*arguments)
    assert code == 0, err
    assert "20 x 3 views, in 3 blocks" in out
    assert "missing" not in out
    code, out, _ = program("verify", "store")
    assert (code, "20 in 2 files" in out) == (0, True)
    code, _, err = program(*arguments, "--shards", "0:2")
    assert code == 2
    assert "which are 2;" in err
    for command in ("extend", "verify"):
        code, out, _ = program(command, "--help")
        assert f"logitstore {command} store" in out


def test_whatever_extend_is_asked_reaches_the_build(root):
    built(root)
    job = prepare_extend(more(root, audio_cache=str(root / "cache"), audio_cache_size=0.5, strict=True))
    assert (job.options.audio_cache, job.options.audio_cache_size, job.options.strict) == (
        str(root / "cache"),
        0.5,
        True,
    )
