"""One bad thing never stops the rest and is named; nothing is begun where all is bad. Over every kind of source."""

import io
import re
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from click.testing import CliRunner

from logitstore import open_store
from logitstore.cli.main import cli
from logitstore.errors import AudioError, LogitstoreError, MismatchError, ModelOutputError, SourceError
from logitstore.evaluation.labelled import read_labelled
from logitstore.jobs.build.extend import extend
from logitstore.jobs.build.job import Progress, build, prepare, run
from logitstore.jobs.options import ExtendOptions
from logitstore.jobs.status import status
from tests.stores import RATE, TONE_TEACHER, contents, options, write_audio

pytestmark = pytest.mark.usefixtures("own_folder")

TEXT, PAGE = b"no audio at all", b"<html>404 Not Found</html>"


def sound(seed, seconds=1.0):
    noise = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE))
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def folder(root, files):
    for name, content in files.items():
        (root / "audio" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "audio" / name).write_bytes(content)
    return {"source": str(root / "audio")}, list(files)


def manifest(root, files):
    folder(root, files)
    (root / "clips.csv").write_text("\n".join(["path", *files]))
    return {"source": str(root / "clips.csv"), "audio_root": str(root / "audio")}, list(files)


def tar(root, files):
    root.mkdir(exist_ok=True)
    with tarfile.open(root / "all.tar", "w") as packed:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            packed.addfile(member, io.BytesIO(content))
    return {"source": str(root / "all.tar")}, [f"all.tar/{name}" for name in files]


def parquet(root, files):
    root.mkdir(exist_ok=True)
    rows = [{"audio": {"bytes": content, "path": name}} for name, content in files.items()]
    pq.write_table(pa.Table.from_pylist(rows), root / "all.parquet")
    return {"source": str(root / "all.parquet")}, [f"all.parquet/{row:09d}" for row in range(len(files))]


def hdf5(root, files):
    h5py = pytest.importorskip("h5py")
    root.mkdir(exist_ok=True)
    with h5py.File(root / "all.h5", "w") as file:
        file["audio_name"] = np.array([name.encode() for name in files])
        encoded = file.create_dataset("mp3", (len(files),), dtype=h5py.vlen_dtype(np.uint8))
        for row, content in enumerate(files.values()):
            encoded[row] = np.frombuffer(content, dtype=np.uint8)
    return {"source": str(root / "all.h5")}, [f"all.h5/{name}" for name in files]


KINDS = pytest.mark.parametrize("pack", [folder, manifest, tar, parquet, hdf5], ids=lambda pack: pack.__name__)


def asked(root, given, **changes):
    quick = {"views": 2, "teachers": ["python:tones:plain"], "recipe": "ced", "out": str(root / "store")}
    return options(root, **(quick | given | changes))


@KINDS
def test_what_cannot_be_decoded_is_recorded_with_its_place(tmp_path, pack):
    files = {"a.wav": sound(1), "b.wav": TEXT, "c.wav": b"", "d.wav": sound(2, 3.5)[:100_000], "e.wav": PAGE}
    given, keys = pack(tmp_path / "source", files)
    job = prepare(asked(tmp_path, given))
    notes = []
    summary = run(job, Progress(note=notes.append))
    _, text, empty, cut, page = keys
    assert [failure.place for failure in summary.failures] == [text, empty, f"{cut} from 2 s", page]
    assert [failure.reason.split(":")[0] for failure in summary.failures] == [
        "not readable as audio", "empty", "truncated", "not readable as audio",
    ]  # fmt: skip
    assert notes[0].startswith(f"3 of 5 files cannot be read, and are recorded as failures ({text}: not readable")
    store = open_store(tmp_path / "store")
    assert store.clips_of(1).tolist() == [0, 3]
    rows = store.sql("SELECT path, start_s, view_start, view_stop FROM failures ORDER BY clip").to_pylist()
    assert [(row["path"], row["start_s"]) for row in rows] == [(text, None), (empty, None), (cut, 2.0), (page, None)]
    assert {(row["view_start"], row["view_stop"]) for row in rows} == {(0, 2)}
    found = status(str(tmp_path / "store"))
    assert f"clip 4, {cut} from 2 s: truncated: " in found.render()
    assert found.to_dict()["failures"][2]["start_s"] == 2.0
    shown = CliRunner().invoke(cli, ["inspect", str(tmp_path / "store")]).output
    assert f"failures   4: clip 1, {text}: not readable as audio" in shown
    assert 'all of them: "FROM failures"' in shown


@KINDS
@pytest.mark.parametrize(
    ("bad", "place"), [({"b.wav": TEXT}, ""), ({"b.wav": sound(2, 6.0)[:100_000]}, " from 2 s")], ids=["file", "piece"]
)
def test_strict_names_the_file_and_writes_nothing(tmp_path, pack, bad, place):
    given, keys = pack(tmp_path / "source", {"a.wav": sound(1), **bad})
    with pytest.raises(AudioError, match=f"^{keys[1]}{place}: (not readable|truncated)"):
        build(asked(tmp_path, given, strict=True))
    assert not (tmp_path / "store").exists()


@KINDS
@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.wav": TEXT, "b.wav": b""}, r"not one of the 2 files of .* can be read \({key}: not readable as audio"),
        ({"a.wav": sound(1)[:5000]}, r"not one of the 1 clips of .* can be decoded \({key}: truncated: 2478 of 16000"),
    ],
    ids=["headers", "frames"],
)
def test_a_source_of_which_nothing_can_be_heard_is_an_error(tmp_path, pack, files, said):
    given, keys = pack(tmp_path / "source", files)
    with pytest.raises(AudioError, match=said.replace("{key}", keys[0])) as caught:
        build(asked(tmp_path, given))
    assert caught.value.exit_code == 1
    assert not (tmp_path / "store").exists()


def test_a_store_keeps_its_targets_when_the_audio_is_gone(tmp_path):
    given, _ = folder(tmp_path, {name: sound(seed) for seed, name in enumerate(("a.wav", "b.wav"))})
    build(asked(tmp_path, given))
    before = contents(tmp_path / "store")
    more, keys = folder(tmp_path / "more", {"c.wav": TEXT})
    values = {"store": str(tmp_path / "store"), "teachers": ["python:tones:plain"], "device": "cpu"}
    with pytest.raises(AudioError, match=f"not one of the 1 files of .*more/audio can be read .{keys[0]}"):
        extend(ExtendOptions(**values, **more))
    job = prepare(asked(tmp_path, given, views=4))
    for file in (tmp_path / "audio").iterdir():
        file.unlink()
    with pytest.raises(AudioError, match=r"not one of the 2 clips of .*a.wav: cannot be opened: No such file"):
        run(job, Progress())
    assert contents(tmp_path / "store") == before
    folder(tmp_path / "more", {"d.wav": sound(5)})
    with pytest.raises(AudioError, match=r"^c.wav: not readable as audio"):
        extend(ExtendOptions(**values, **more, strict=True))
    assert contents(tmp_path / "store") == before
    assert [failure.path for failure in extend(ExtendOptions(**values, **more)).failures] == ["c.wav"]


def test_the_last_shard_may_hold_nothing_that_can_be_heard(tmp_path):
    given, keys = folder(tmp_path, {"a.wav": sound(1), "b.wav": sound(2), "c.wav": TEXT})
    whole = build(asked(tmp_path, given, shard_clips=1, out=str(tmp_path / "whole")))
    for shards in ("2:3", ":2"):
        build(asked(tmp_path, given, shard_clips=1, shards=shards))
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert [failure.path for failure in whole.failures] == keys[2:]


@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("other", "give the folder that the paths start from"),
        ("deep", r"--audio-root .*deep/audio has them, it seems"),
        ("deep/audio/below", r"--audio-root .*deep/audio has them, it seems"),
        ("all.tar", "no packed file of this name"),
    ],
)
def test_a_wrong_audio_root_is_named(tmp_path, root, said):
    (tmp_path / "other").mkdir()
    given, keys = manifest(tmp_path / "deep", {"a.wav": sound(1), "b.wav": sound(2)})
    (tmp_path / "deep" / "audio" / "below").mkdir()
    tar(tmp_path, {"z.wav": sound(3)})
    wrong = given | {"audio_root": str(tmp_path / root)}
    match = f"none of the 2 files that .*clips.csv names is below the audio root .*{root} .{keys[0]}: .*{said}"
    with pytest.raises(SourceError, match=match) as caught:
        prepare(asked(tmp_path, wrong))
    assert caught.value.exit_code == 2
    labels = tmp_path / "deep" / "labels" / "clips.csv"
    labels.parent.mkdir()
    labels.write_text("path,label\na.wav,x\nb.wav,y\n")
    with pytest.raises(SourceError, match=match):
        read_labelled(str(labels), wrong["audio_root"], "label")


def test_a_wrong_audio_root_of_several_tables_is_named(tmp_path):
    given = [manifest(tmp_path / name, {f"{name}.wav": sound(1)})[0]["source"] for name in "xy"]
    (tmp_path / "other").mkdir()
    with pytest.raises(SourceError, match=r"none of the 2 files that .*x.clips.csv, .*y.clips.csv .* root .*other"):
        prepare(asked(tmp_path, {"source": given, "audio_root": str(tmp_path / "other")}))


def test_some_files_under_the_root_are_enough(tmp_path):
    given, keys = manifest(tmp_path, {"a.wav": sound(1), "b.wav": sound(2), "c.wav": sound(3)})
    for name in keys[1:]:
        (tmp_path / "audio" / name).unlink()
    assert [failure.path for failure in build(asked(tmp_path, given)).failures] == keys[1:]


def test_a_student_is_told_which_audio_root_is_wrong(tmp_path):
    from students.train import StudentOptions, train_student

    given, _ = folder(tmp_path, {"a.wav": sound(1), "b.wav": sound(2)})
    build(asked(tmp_path, given))
    (tmp_path / "other").mkdir()
    values = {"store": str(tmp_path / "store"), "student": "cnn4", "out": str(tmp_path / "run")}
    with pytest.raises(MismatchError, match=r"2 of 2 files .* a.wav, b.wav; .*, not .*other"):
        train_student(StudentOptions(**values, audio_root=str(tmp_path / "other")))


@pytest.mark.parametrize("strict", [False, True])
def test_an_import_with_audio_that_cannot_be_decoded(tmp_path, strict):
    from logitstore.jobs.imports.npy import import_npy
    from logitstore.jobs.options import NpyImport

    folder(tmp_path, {"a.wav": sound(1)[:5000], "b.wav": sound(2)[:5000]})
    np.save(tmp_path / "scores.npy", np.full((2, 3), 0.5, np.float32))
    (tmp_path / "names.txt").write_text("a.wav\nb.wav\n")
    (tmp_path / "classes.txt").write_text("x\ny\nz\n")
    values = {"array": "scores.npy", "names": "names.txt", "classes": "classes.txt", "scores": "probabilities"}
    asked = NpyImport(**values, audio_root="audio", out="imported", strict=strict)
    said = "^a.wav: truncated" if strict else r"not one clip of imported has targets now \(a.wav: truncated"
    with pytest.raises(AudioError, match=said):
        import_npy(asked)


ODD_TEACHERS = (
    TONE_TEACHER
    + '''

class Odd(Tones):
    """Says what a function makes of the tones' scores."""

    def __init__(self, change, scores="sigmoid"):
        super().__init__()
        self.change, self.scores = change, scores

    def forward(self, waveforms, masks=None):
        return self.change(super().forward(waveforms, masks))


def put(row, value):
    def change(said):
        said[row, 2] = value
        return said
    return change


def nan(): return Odd(put(1, float("nan")))
def infinite(): return Odd(put(1, float("inf")))
def logits(): return Odd(torch.logit)
def sigmoid_as_softmax(): return Odd(lambda said: said, "softmax")
def one_short(): return Odd(lambda said: torch.softmax(said, 1) * torch.tensor([1.0] * 7 + [0.9])[:, None], "softmax")
def fewer_clips(): return Odd(lambda said: said[1:])
def fewer_classes(): return Odd(lambda said: said[:, 1:])
def numbers(): return Odd(lambda said: (said * 100).long())
def array(): return Odd(lambda said: said.numpy())
def pair(): return Odd(lambda said: (said, said))


class Unforeseen(Exception):
    pass


def fails():
    def change(said):
        raise Unforeseen("no more\\nof this")
    return Odd(change)


def leaves():
    def change(said):
        raise SystemExit(0)
    return Odd(change)


def distribution(): return Odd(lambda said: torch.softmax(said, 1))
def twice(): return Odd(torch.sigmoid)
def drops(): return Odd(lambda said: torch.nn.functional.dropout(said, 0.5, training=True) / 2)
def again(): return Tones()


class Vandal(Tones):
    """Overwrites what it was given."""

    def forward(self, waveforms, masks=None):
        said = super().forward(waveforms, masks)
        waveforms.zero_()
        if masks is not None:
            for span in (masks.time_start, masks.time_end, masks.freq_low, masks.freq_high):
                span.zero_()
        self.train()
        return said


def vandal(): return Vandal(3.0)


class DeafToSilence(Tones):
    def forward(self, waveforms, masks=None):
        said = super().forward(waveforms, masks)
        return torch.where((waveforms == 0).all(1, keepdim=True), float("nan"), said)


def deaf_to_silence(): return DeafToSilence()
'''
)


@pytest.fixture
def odd(tmp_path):
    """Options over four clips; teachers of :data:`ODD_TEACHERS` by their names."""
    given, _ = folder(tmp_path, {f"{name}.wav": sound(seed) for seed, name in enumerate("abcd")})

    def made(*teachers, **changes):
        values = asked(tmp_path, given, teachers=[f"python:odd:{name}" for name in teachers], **changes)
        (tmp_path / "odd.py").write_text(ODD_TEACHERS)
        return values

    return made


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        ("nan", r"^a.wav, view 1: teacher 'python:odd:nan' gave NaN for clip 1 of a batch of 8, class 'tone 800 Hz'"),
        ("infinite", r"^a.wav, view 1: .*gave values from .* to inf; probabilities lie in \[0, 1\]; are these logits"),
        ("logits", r"gave values from -.*are these logits\?.*forward end with torch.sigmoid"),
        ("sigmoid_as_softmax", r"states softmax scores, and those of clip \d of a batch of 8 sum to .*\(of all: "),
        ("one_short", r"^d.wav, view 1: .*softmax scores, and those of clip 7 of a batch of 8 sum to 0.9 \(of all"),
        ("fewer_clips", r"gave the shape \(7, 8\); it must be \(clips, classes\) = \(8, 8\)"),
        ("fewer_classes", r"gave the shape \(8, 7\)"),
        ("numbers", "gave torch.int64; it must give a float tensor"),
        ("array", "gave ndarray; it must give a float tensor"),
        ("pair", "gave tuple; it must give a float tensor"),
        ("fails", "failed: Unforeseen: no more; mend it"),
        ("leaves", "failed: SystemExit: 0; mend it"),
    ],
)  # fmt: skip
def test_a_teacher_is_refused_by_name_at_its_first_batch_before_anything_is_written(odd, tmp_path, teacher, said):
    with pytest.raises(ModelOutputError, match=said) as caught:
        build(odd("again", teacher) if teacher in ("nan", "fails") else odd(teacher))
    assert f"'python:odd:{teacher}'" in str(caught.value)
    assert caught.value.exit_code == 1
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("teachers", "said"),
    [
        (["distribution"], "teacher 'python:odd:distribution' states sigmoid scores, and those of every .* sum to 1"),
        (["twice"], "teacher 'python:odd:twice' gives scores that all lie between 0.5 and 0.7311 in its first batch"),
        (["drops"], r"teacher 'python:odd:drops' was asked the same batch twice, .* answers are up to 0.\d+ apart"),
        (["again", "again"], "teacher 'python:odd:again' is given twice; an ensemble of both costs twice"),
        (["again", "plain"], "teacher 'python:odd:plain' has the same weights as 'python:odd:again'"),
    ],
)  # fmt: skip
def test_what_is_allowed_and_perhaps_not_meant_is_said(odd, teachers, said):
    notes = []
    build(odd(*teachers), Progress(note=notes.append))
    assert len(notes) == 1
    assert re.match(said, notes[0])


@pytest.mark.parametrize("order", [("vandal", "again"), ("again", "vandal"), ("vandal", "vandal")])
def test_no_member_changes_what_is_heard(odd, tmp_path, order):
    build(odd(*order, keep_members=True))
    store = open_store(tmp_path / "store")
    for position, name in enumerate(order):
        build(odd("plain" if name == "again" else "vandal", out=f"alone-{position}", topk=8))
        single = open_store(tmp_path / f"alone-{position}")
        for commit, own in zip(store.commits, single.commits, strict=True):
            classes, _ = store.block_targets(commit)
            all_classes, values = single.block_targets(own)
            dense = np.zeros_like(values)
            np.put_along_axis(dense, all_classes.astype(np.int64), values, axis=2)
            expected = np.take_along_axis(dense, classes.astype(np.int64), axis=2)
            np.testing.assert_array_equal(store.block_members(commit)[position], expected)


def test_what_a_teacher_says_of_a_clip_that_failed_is_of_no_account(odd, tmp_path):
    (tmp_path / "audio" / "b.wav").write_bytes(TEXT)
    summary = build(odd("deaf_to_silence"))
    assert [failure.path for failure in summary.failures] == ["b.wav"]
    assert open_store(tmp_path / "store").clips_of(0).tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    ("recipe", "views", "alike"),
    [
        ("[]", 2, True),
        ("[]", 1, False),
        ("[{op: roll, probability: 0}]", 3, True),
        ("[{op: gain, min_db: 3, max_db: 3}]", 2, True),
        ("[{op: noise, probability: 0}, {op: mixup, probability: 0}]", 10, True),
        ("[{op: mixup, max_weight: 0}]", 2, True),
        ("[{op: time_mask, max_seconds: 0.01}]", 2, True),
        ("[{op: roll, probability: 0.5}]", 4, False),
        ("[{op: gain}]", 2, False),
    ],
)
def test_views_that_are_all_alike_are_said(odd, tmp_path, recipe, views, alike):
    (tmp_path / "mine.yaml").write_text(f"name: mine\nops: {recipe}\n")
    notes = prepare(odd("again", recipe=str(tmp_path / "mine.yaml"), views=views)).notes
    assert [note for note in notes if f"all {views} views of a clip are alike" in note] == notes
    assert len(notes) == alike


def test_the_commands_say_it_on_stderr_and_exit_with_1(tmp_path):
    write_audio(tmp_path / "audio", 2)
    options(tmp_path)
    given = [
        "build",
        "audio",
        "--teacher",
        "python:tones:plain",
        "--views",
        "2",
        "--clip-seconds",
        "2",
        "--recipe",
        "none",
    ]
    for dry in ([], ["--dry-run"]):
        said = CliRunner().invoke(cli, [*given, "--out", "store", *dry])
        assert said.exit_code == 0, said.output
        assert "note       all 2 views of a clip are alike, for the recipe 'none' has no op" in said.stderr.replace(
            "\n", " "
        )
    shutil.rmtree(tmp_path / "audio")
    folder(tmp_path, {"[red]a.wav": TEXT, "b.wav": sound(1)})
    said = CliRunner().invoke(cli, [*given, "--out", "other"])
    assert "[red]a.wav: not readable" in said.stderr
    assert "failures   1\n           clip 0, [red]a.wav: not readable as audio" in said.stdout
    strict = CliRunner().invoke(cli, [*given, "--out", "strict", "--strict"])
    assert isinstance(strict.exception, LogitstoreError)
    assert strict.exception.exit_code == 1
