from __future__ import annotations

import io
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from logitstore.audio.decode import decode
from logitstore.audio.scan import scan
from logitstore.audio.source import normal_path
from logitstore.audio.sources import open_audio, open_source
from logitstore.errors import AudioError, SourceError

RATE = 8000


def encoded(seed: int, kind: str = "FLAC", frames: int = RATE) -> bytes:
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, frames)
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, RATE, format=kind)
    return buffer.getvalue()


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def keys(source: str, audio_root: str | None = None) -> list[str]:
    paths: list[str] = open_source(source, audio_root).listing().column("path").to_pylist()
    return sorted(paths)


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_hub(path: Path, rows: list[dict[str, Any]], row_group_size: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


def same_audio(root: str, path: str, content: bytes) -> None:
    """The piece under this key decodes to what the encoded bytes hold."""
    expected, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    got = decode(open_audio(root), path, 0, len(expected), rate, rate)
    np.testing.assert_array_equal(got, expected)


# folders


def test_folder_is_searched_recursively_and_hidden_files_are_skipped(tmp_path: Path) -> None:
    wanted = ["a.wav", "b/c.FLAC", "b/d/e.ogg", "z.mp3", "ä.opus"]
    for name in [*wanted, ".hidden.wav", ".git/x.wav", "notes.txt", "labels.parquet"]:
        put(tmp_path / name, b"x")
    assert keys(str(tmp_path)) == sorted(wanted)


def test_folder_follows_links_and_cuts_loops(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere" / "far.wav", b"x")
    put(tmp_path / "root" / "b" / "near.wav", b"x")
    (tmp_path / "root" / "b" / "loop").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "elsewhere")
    assert keys(str(tmp_path / "root")) == ["b/near.wav", "link/far.wav"]


def test_folder_keys_may_start_from_a_folder_above(tmp_path: Path) -> None:
    content = encoded(0)
    put(tmp_path / "fold1" / "a.flac", content)
    assert keys(str(tmp_path / "fold1"), str(tmp_path)) == ["fold1/a.flac"]
    same_audio(str(tmp_path), "fold1/a.flac", content)
    with pytest.raises(SourceError, match="not below the audio root"):
        open_source(str(tmp_path), str(tmp_path / "fold1"))


def test_folder_reads_nothing_outside_it(tmp_path: Path) -> None:
    put(tmp_path / "secret.wav", encoded(0, "WAV"))
    put(tmp_path / "root" / "a.wav", encoded(1, "WAV"))
    audio = open_audio(str(tmp_path / "root"))
    for path in ("../secret.wav", str(tmp_path / "secret.wav"), "x/../../secret.wav"):
        with pytest.raises(AudioError, match="leaves the audio root"):
            audio.read(path)


def notes(source: str) -> list[str]:
    found = open_source(source)
    found.listing()
    return list(found.reading.notes)  # type: ignore[attr-defined]


def test_a_name_that_is_not_utf8_is_left_out_and_named(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(SourceError, match=r"no audio that can be read; 1 is left out, a name that is not UTF-8.*'caf"):
        keys(str(tmp_path))
    put(tmp_path / "a.wav", b"x")
    assert keys(str(tmp_path)) == ["a.wav"]
    assert notes(str(tmp_path)) == ["1 is left out, a name that is not UTF-8; rename it: 'caf\\udce9.wav'"]


def test_links_that_lead_nowhere_or_round_are_named(tmp_path: Path) -> None:
    put(tmp_path / "sub" / "a.wav", b"x")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing.wav")
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "notes.txt").symlink_to(tmp_path / "nothing.txt")
    assert keys(str(tmp_path)) == ["sub/a.wav"]
    said = sorted(notes(str(tmp_path)))
    assert [note.partition(" left out, ")[2] for note in said] == [
        "a link back to a folder that it lies in: 'sub/up'",
        "a link that leads nowhere (No such file or directory): 'gone.wav'",
        "a link that leads nowhere (Too many levels of symbolic links): 'self.wav'",
    ]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "open" / "a.wav", b"x")
    put(tmp_path / "shut" / "b.wav", b"x")
    real = os.scandir

    def scandir(folder: Any) -> Any:
        if Path(folder).name == "shut":
            raise PermissionError(13, "Permission denied", str(folder))
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert keys(str(tmp_path)) == ["open/a.wav"]
    assert notes(str(tmp_path)) == ["1 is left out, a folder that cannot be listed (Permission denied): 'shut'"]
    with pytest.raises(SourceError, match="shut: cannot be listed: Permission denied"):
        keys(str(tmp_path / "shut"))


def test_one_name_in_two_unicode_forms_is_two_files_and_said(tmp_path: Path) -> None:
    names = ["caf\u00e9.wav", "cafe\u0301.wav", "plain.wav"]
    for name in names:
        put(tmp_path / name, b"x")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system takes one form only")
    assert keys(str(tmp_path)) == sorted(names)
    [note] = notes(str(tmp_path))
    assert note.startswith("1 names are there twice, in two Unicode forms")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda root: root / "nowhere", "no such file or folder"),
        (lambda root: os.mkfifo(root / "f.csv") or root / "f.csv", "neither a regular file nor a folder"),
        (lambda root: root, "no audio found"),
        (lambda root: put(root / "model.pt", b"x"), "unknown kind of source '.pt'"),
        (lambda root: root / "*.tar", "no file matches"),
        (lambda root: root / "s-{00..02}.tar", r"s-00\.tar: no such file, named by the pattern"),
        (lambda root: put(root / "bad.tar", b"not a tar at all").parent, "not readable as an uncompressed tar"),
        (lambda root: put(root / "bad.parquet", b"PAR0"), "not readable as Parquet"),
    ],
)
def test_what_is_no_source_is_one_clear_line(tmp_path: Path, make: Any, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        open_source(str(make(tmp_path))).listing()
    assert "\n" not in str(caught.value)


def test_a_folder_of_two_packed_kinds_is_ambiguous(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"a.wav": b"x"})
    put(tmp_path / "b.h5", b"x")
    with pytest.raises(SourceError, match=r"several kinds \(hdf5, tar\)"):
        open_source(str(tmp_path))


# manifests


def manifest(folder: Path, text: str, name: str = "m.csv") -> str:
    return str(put(folder / name, text.encode()))


def test_manifest_columns_keep_their_types(tmp_path: Path) -> None:
    source = manifest(tmp_path, 'path,label,fold,weight,none\na.wav,"dog, big",1,0.5,\n1,cat,2,1,\n')
    table = open_source(source).listing()
    assert table.column("path").to_pylist() == ["a.wav", "1"]
    assert [str(table.schema.field(name).type) for name in ("label", "fold", "weight", "none")] == [
        "string",
        "int64",
        "double",
        "string",
    ]


def test_manifest_as_tsv_and_parquet_says_the_same(tmp_path: Path) -> None:
    csv = open_source(manifest(tmp_path, "path,fold,start\na.wav,1,0.5\nb.wav,2,\n")).listing()
    tsv = open_source(manifest(tmp_path, "path\tfold\tstart\na.wav\t1\t0.5\nb.wav\t2\t\n", "m.tsv")).listing()
    pq.write_table(csv, tmp_path / "m.parquet")
    parquet = open_source(str(tmp_path / "m.parquet"))
    assert parquet.kind == "manifest"
    assert csv == tsv == parquet.listing()


def test_a_late_string_in_a_column_of_numbers_makes_it_text(tmp_path: Path) -> None:
    rows = "".join(f"{row}.wav,{row}\n" for row in range(200_000))
    table = open_source(manifest(tmp_path, "path,id\n" + rows + "x.wav,abc\n")).listing()
    assert str(table.schema.field("id").type) == "string"


def test_manifest_paths_are_below_the_audio_root_or_its_own_folder(tmp_path: Path) -> None:
    content = encoded(3)
    put(tmp_path / "audio" / "x" / "a.flac", content)
    source = manifest(tmp_path, "path\n./x//a.flac\n")
    audio = open_source(source, str(tmp_path / "audio"))
    assert audio.listing().column("path").to_pylist() == ["x/a.flac"]
    assert len(decode(audio, "x/a.flac", 0, RATE, RATE, RATE)) == RATE
    same_audio(str(tmp_path / "audio"), "x/a.flac", content)


def test_manifest_over_packed_audio(tmp_path: Path) -> None:
    write_tar(tmp_path / "shards" / "s.tar", {"a.flac": encoded(1)})
    source = open_source(manifest(tmp_path, "path,label\ns.tar/a.flac,dog\n"), str(tmp_path / "shards"))
    table = scan(source, clip_seconds=10)
    assert table.to_pylist() == [{"path": "s.tar/a.flac", "start": 0, "length": RATE, "rate": RATE, "label": "dog"}]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name,label\na.wav,x\n", "no column 'path'; found 'name', 'label'; name .* with --path-column"),
        ("path\n", "no rows"),
        ("", "not readable as a manifest: it is empty"),
        ("path,a\nx.wav\n", "line 2: 1 cell where the header has 2"),
        ("path\na.wav\n../b.wav\n", r"line 3: the path '\.\./b\.wav' leaves the audio root"),
        ("path\nx/../../b.wav\n", "line 2: .* leaves the audio root"),
        ("path\n/etc/passwd\n", "line 2: the path '/etc/passwd' is absolute"),
        ("path,a\n,1\n", "line 2: the path is empty"),
        ("path,start\na.wav,-1\n", "line 2: start is -1 s; allowed is 0 or more"),
        ("path,start\na.wav,inf\n", "line 2: start is inf s"),
        ("path,duration\na.wav,1\nb.wav,0\n", "line 3: duration is 0 s; allowed is more than 0"),
        ("path,duration\na.wav,long\n", "line 2: duration is 'long'; it must be a number of seconds"),
        ("path,a,A\na.wav,1,2\n", "'A' is there twice"),
        ("path,path\na.wav,b.wav\n", "'path' is there twice"),
    ],
)
def test_what_a_manifest_cannot_say(tmp_path: Path, text: str, match: str) -> None:
    with pytest.raises(SourceError, match=match) as caught:
        open_source(manifest(tmp_path, text)).listing()
    assert "\n" not in str(caught.value)


def test_latin1_manifest_is_refused(tmp_path: Path) -> None:
    put(tmp_path / "m.csv", "path,label\na.wav,Gerät\n".encode("latin-1"))
    with pytest.raises(SourceError, match="'label' is not UTF-8; save the manifest as UTF-8"):
        open_source(str(tmp_path / "m.csv")).listing()


@given(st.text(alphabet="./ab", max_size=12))
def test_normal_paths_stay_inside(path: str) -> None:
    normal = normal_path(path)
    if normal is not None:
        assert normal_path(normal) == normal
        assert ".." not in normal.split("/")
        assert not normal.startswith("/")


# packed audio


def test_tar_members_and_sidecars(tmp_path: Path) -> None:
    first, second = encoded(1), encoded(2, "WAV")
    write_tar(
        tmp_path / "s-000.tar",
        {
            "./a.flac": first,
            "a.json": b'{"label": "dog", "fold": 3, "tags": ["x"], "ok": true}',
            "sub/b.x.wav": second,
            "sub/b.cls": b"7\n",
            "sub/b.txt": b"a cat",
            "._a.flac": b"rubbish",
        },
    )
    source = open_source(str(tmp_path / "s-000.tar"))
    rows = {row["path"]: row for row in source.listing().to_pylist()}
    assert list(rows) == ["s-000.tar/a.flac", "s-000.tar/sub/b.x.wav"]
    assert {name: rows["s-000.tar/a.flac"][name] for name in ("label", "fold", "ok", "cls")} == {
        "label": "dog",
        "fold": 3,
        "ok": True,
        "cls": None,
    }
    assert rows["s-000.tar/sub/b.x.wav"]["cls"] == 7
    assert rows["s-000.tar/sub/b.x.wav"]["txt"] == "a cat"
    for root in (tmp_path, tmp_path / "s-000.tar", tmp_path / "*.tar", tmp_path / "s-{000..000}.tar"):
        same_audio(str(root), "s-000.tar/a.flac", first)
        same_audio(str(root), "s-000.tar/sub/b.x.wav", second)


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_every_encoding_reads_out_of_a_tar(tmp_path: Path, kind: str) -> None:
    name = f"x.{kind.lower()}"
    content = encoded(5, kind)
    write_tar(tmp_path / "s.tar", {"pad.txt": b"offset", name: content})
    table = scan(open_source(str(tmp_path)), clip_seconds=10)
    put(tmp_path / "plain" / name, content)
    plain = scan(open_source(str(tmp_path / "plain")), clip_seconds=10)
    assert table.column("length").to_pylist() == plain.column("length").to_pylist()
    length = table.column("length")[0].as_py()
    np.testing.assert_array_equal(
        decode(open_audio(str(tmp_path / "s.tar")), f"s.tar/{name}", 0, length, RATE, 16000),
        decode(open_audio(str(tmp_path / "plain")), name, 0, length, RATE, 16000),
    )


def test_tar_sidecars_of_other_shards_promote(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"a.wav": b"x", "a.json": b'{"n": 1}'})
    write_tar(tmp_path / "b.tar", {"b.wav": b"x", "b.json": b'{"n": 1.5, "m": "y"}'})
    table = open_source(str(tmp_path)).listing()
    assert table.column("n").to_pylist() == [1.0, 1.5]
    assert table.column("m").to_pylist() == [None, "y"]


def test_tar_errors(tmp_path: Path) -> None:
    write_tar(tmp_path / "json" / "a.tar", {"a.wav": b"x", "a.json": b"{"})
    with pytest.raises(SourceError, match=r"a\.json: not readable as json"):
        keys(str(tmp_path / "json"))
    write_tar(tmp_path / "twice" / "a.tar", {"a.wav": b"x", "./a.wav": b"y"})
    with pytest.raises(SourceError, match=r"duplicate clips, 1 in all: 'a\.tar/a\.wav'"):
        scan(open_source(str(tmp_path / "twice")), clip_seconds=10)
    write_tar(tmp_path / "none" / "a.tar", {"a.txt": b"x"})
    with pytest.raises(SourceError, match="no audio found in 1 packed files"):
        keys(str(tmp_path / "none"))
    audio = open_audio(str(write_tar(tmp_path / "ok" / "a.tar", {"a.wav": b"x"})))
    for path in ("a.tar/b.wav", "b.tar/a.wav", "a.tar/../../x.wav", "a.tar"):
        with pytest.raises(AudioError, match=r"no such member|no packed file"):
            audio.read(path)


@pytest.mark.parametrize("size", [-512, -5, -(1 << 70)])
def test_a_tar_with_a_negative_size_ends(tmp_path: Path, size: int) -> None:
    import io
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.wav"), io.BytesIO())
    header = bytearray((tmp_path / "a.tar").read_bytes()[:512])
    header[124:136] = b"\xff" + (size % (1 << 88)).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(2048))
    with pytest.raises(SourceError, match=f"the member 'a.wav' says that it has {size} bytes|not readable"):
        open_source(str(tmp_path / "a.tar")).listing()


@pytest.mark.parametrize("document", ['{"x": "\\ud800"}', '{"\\ud800": 1}'])
def test_half_a_character_in_json_is_shown_escaped(tmp_path: Path, document: str) -> None:
    import io
    import tarfile

    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in (("a.wav", b"RIFF"), ("a.json", document.encode())):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert "\\ud800" in str(open_source(str(tmp_path / "a.tar")).listing().to_pylist())
    (tmp_path / "m.jsonl").write_text(document.replace("{", '{"path": "a.wav", ') + "\n")
    assert "\\ud800" in str(open_source(str(tmp_path / "m.jsonl")).listing().to_pylist())


def test_a_tar_that_breaks_off(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.wav": encoded(0, "WAV"), "b.wav": encoded(1, "WAV")})
    with tarfile.open(path) as tar:
        cut = tar.getmember("b.wav").offset_data + 4000
    put(path, path.read_bytes()[:cut])
    with pytest.raises(SourceError, match="breaks off"):
        keys(str(path))


def test_hub_parquet_rows(tmp_path: Path) -> None:
    sounds = [encoded(seed) for seed in range(5)]
    rows = [
        {"audio": {"bytes": sound, "path": f"{n}.flac"}, "label": n % 2, "text": "x"} for n, sound in enumerate(sounds)
    ]
    rows.append({"audio": {"bytes": None, "path": "gone.flac"}, "label": 0, "text": "y"})
    write_hub(tmp_path / "data" / "train-0.parquet", rows)
    source = open_source(str(tmp_path / "data"))
    assert source.kind == "parquet"
    table = source.listing()
    assert table.column_names == ["path", "label", "text", "audio_path"]
    assert str(table.schema.field("label").type) == "int64"
    assert table.column("path").to_pylist() == [f"train-0.parquet/{row:09d}" for row in range(6)]
    assert table.column("audio_path")[4].as_py() == "4.flac"
    for row in (4, 0, 3):
        same_audio(str(tmp_path / "data"), f"train-0.parquet/{row:09d}", sounds[row])
    with pytest.raises(AudioError, match="no audio bytes"):
        source.read("train-0.parquet/000000005")
    with pytest.raises(AudioError, match="no such row"):
        source.read("train-0.parquet/000000006")


def test_binary_parquet_with_a_path_column_is_no_manifest(tmp_path: Path) -> None:
    sound = encoded(1)
    write_hub(tmp_path / "x.parquet", [{"path": "a.flac", "sound": sound, "fold": 1}])
    source = open_source(str(tmp_path / "x.parquet"))
    assert source.listing().to_pylist() == [{"path": "x.parquet/000000000", "fold": 1, "sound_path": "a.flac"}]
    same_audio(str(tmp_path / "x.parquet"), "x.parquet/000000000", sound)
    write_hub(tmp_path / "y.parquet", [{"one": b"x", "two": b"y"}])
    with pytest.raises(SourceError, match=r"several columns of bytes \(one, two\)"):
        keys(str(tmp_path / "y.parquet"))


def test_ced_hdf5_of_int16(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    samples = np.random.default_rng(0).integers(-32768, 32767, 24000, dtype=np.int16)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["Yabc.wav"] = samples
        file["group/other"] = samples[:100]
        file["slow"] = samples
        file["slow"].attrs["sample_rate"] = 8000
        file["numbers"] = np.arange(3.0)
    table = scan(open_source(str(tmp_path / "a.h5")), clip_seconds=1, workers=2)
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("a.h5/Yabc.wav", 0, 16000, 16000),
        ("a.h5/Yabc.wav", 16000, 8000, 16000),
        ("a.h5/group/other", 0, 100, 16000),
        ("a.h5/slow", 0, 8000, 8000),
        ("a.h5/slow", 8000, 8000, 8000),
        ("a.h5/slow", 16000, 8000, 8000),
    ]
    got = decode(open_audio(str(tmp_path)), "a.h5/Yabc.wav", 16000, 8000, 16000, 16000)
    np.testing.assert_array_equal(got, samples[16000:].astype(np.float32) / 32768)
    with pytest.raises(AudioError, match="no int16 data set"):
        open_audio(str(tmp_path)).read("a.h5/numbers")


def test_passt_hdf5_of_encoded_bytes(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    sounds = [encoded(seed, "MP3") for seed in range(3)]
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["audio_name"] = np.array([b"b.mp3", b"a.mp3", b"c.mp3"])
        mp3 = file.create_dataset("mp3", (3,), dtype=h5py.vlen_dtype(np.uint8))
        for row, sound in enumerate(sounds):
            mp3[row] = np.frombuffer(sound, dtype=np.uint8)
        file["fold"] = np.array([1, 2, 3])
        file["target"] = np.zeros((3, 66), dtype=np.uint8)
    source = open_source(str(tmp_path))
    assert source.listing().to_pylist() == [
        {"path": "a.hdf5/b.mp3", "fold": 1},
        {"path": "a.hdf5/a.mp3", "fold": 2},
        {"path": "a.hdf5/c.mp3", "fold": 3},
    ]
    for name, sound in zip("bac", sounds, strict=True):
        same_audio(str(tmp_path / "a.hdf5"), f"a.hdf5/{name}.mp3", sound)
    with pytest.raises(AudioError, match="no such audio_name"):
        source.read("a.hdf5/d.mp3")


def test_hdf5_of_neither_layout_and_no_hdf5_at_all(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["numbers"] = np.arange(3.0)
    with pytest.raises(SourceError, match=r"neither int16 data sets .* found numbers float64"):
        keys(str(tmp_path / "a.h5"))
    put(tmp_path / "b.h5", b"x")
    with pytest.raises(SourceError, match="not readable as HDF5"):
        keys(str(tmp_path / "b.h5"))


def test_a_used_source_survives_pickling(tmp_path: Path) -> None:
    sound = encoded(1)
    write_tar(tmp_path / "a.tar", {"a.flac": sound})
    source = open_audio(str(tmp_path))
    before = decode(source, "a.tar/a.flac", 0, RATE, RATE, 16000)
    after = decode(pickle.loads(pickle.dumps(source)), "a.tar/a.flac", 0, RATE, RATE, 16000)
    np.testing.assert_array_equal(before, after)


def test_side_files_belong_to_the_audio_of_their_whole_name(tmp_path: Path) -> None:
    wav = b"x"
    write_tar(
        tmp_path / "s.tar",
        {
            "a.b.wav": wav,
            "a.b.json": b'{"label": "b"}',
            "a.c.wav": wav,
            "a.c.json": b'{"label": "c"}',
            "a.json": b'{"both": 1, "label": "neither"}',
            "1.5s.dog.wav": wav,
            "1.5s.dog.cls": b"007",
            "d.wav": wav,
            "d.caption.txt": b"a dog",
            "d.json": b'\xef\xbb\xbf{"tags": ["x"], "deep": {"k": 1}, "id": "1e5", "none": null}',
            "e.wav": wav,
            "e.cls": b"3",
            "sub/a.b.wav": wav,
            "sub/a.b.cls": b"4",
        },
    )
    source = open_source(str(tmp_path / "s.tar"))
    rows = {
        row.pop("path")[6:]: {k: v for k, v in row.items() if v is not None} for row in source.listing().to_pylist()
    }
    assert rows == {
        "a.b.wav": {"label": "b", "both": 1},
        "a.c.wav": {"label": "c", "both": 1},
        "1.5s.dog.wav": {"cls": "007"},
        "d.wav": {"txt": "a dog", "tags": ["x"], "id": "1e5"},
        "e.wav": {"cls": "3"},
        "sub/a.b.wav": {"cls": "4"},
    }
    assert source.reading.ignored == {"deep": "nested"}


@pytest.mark.parametrize(
    ("members", "match"),
    [
        (
            {"a.wav": b"", "a.x.json": b'{"n": 1}', "a.y.json": b'{"n": 2}'},
            "'a.x.json' and 'a.y.json' both say 'n' of 'a.wav'",
        ),
        ({"a.wav": b"", "a.x.txt": b"1", "a.y.txt": b"2"}, "'a.x.txt' and 'a.y.txt' both say 'txt'"),
        ({"a.b.wav": b"", "a.c.json": b'{"n": 1}', "a.json": b'{"n": true}'}, "both say 'n' of 'a.b.wav', and differ"),
    ],
)
def test_side_files_that_contradict_each_other(tmp_path: Path, members: dict[str, bytes], match: str) -> None:
    write_tar(tmp_path / "s.tar", members)
    with pytest.raises(SourceError, match=match):
        keys(str(tmp_path / "s.tar"))


def test_columns_of_side_files_with_our_own_names(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar",
        {"a.wav": encoded(1, "WAV"), "a.json": b'{"path": "b", "start": 3, "rate": 5, "source_rate": 6}'},
    )
    [row] = scan(open_source(str(tmp_path)), clip_seconds=10).to_pylist()
    assert row == {
        "path": "a.tar/a.wav",
        "start": 0,
        "length": RATE,
        "rate": RATE,
        "source_path": "b",
        "source_start": 3,
        "source_rate_2": 5,
        "source_rate": 6,
    }


def test_members_that_are_left_out_are_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        long = "ü" * 150 + ".wav"
        for name in ("a.wav", "../out.wav", "/abs.wav", long):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
        for name, kind in (
            ("soft.wav", tarfile.SYMTYPE),
            ("hard.wav", tarfile.LNKTYPE),
            ("pipe.wav", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "a.wav"
            tar.addfile(info)
    source = open_source(str(tmp_path / "a.tar"))
    assert sorted(source.listing()["path"].to_pylist()) == ["a.tar/a.wav", f"a.tar/{long}"]
    assert source.reading.notes == [
        "a.tar: 2 members whose names lead out of the tar, such as '../out.wav', are left out",
        "a.tar: 2 members that are links, such as 'soft.wav', are left out",
        "a.tar: 1 members that are no regular files, such as 'pipe.wav', are left out",
    ]


def test_shards_whose_columns_are_of_several_types(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"a.wav": b"x", "a.cls": b"1", "a.json": b'{"tags": "x", "n": 1}'})
    write_tar(tmp_path / "b.tar", {"b.wav": b"x", "b.cls": b"one", "b.json": b'{"tags": ["y"], "n": 2.5}'})
    table = open_source(str(tmp_path)).listing()
    assert table["cls"].to_pylist() == ["1", "one"]
    assert table["tags"].to_pylist() == [["x"], ["y"]]
    assert table["n"].to_pylist() == [1.0, 2.5]


def test_bytes_in_parquet_that_are_not_the_audio_are_named(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary_view()), ("path", pa.string())])
    table = pa.table(
        {
            "audio": pa.array([{"bytes": encoded(1), "path": "a.flac"}], kind),
            "image": pa.array([b"x"]),
            "thumb": pa.array([b"x"], pa.large_binary()),
            "start": [3.0],
            "half": pa.array([np.float16(1)]),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    source = open_source(str(tmp_path / "x.parquet"))
    [row] = scan(source, clip_seconds=10).to_pylist()
    assert row == {
        "path": "x.parquet/000000000",
        "start": 0,
        "length": RATE,
        "rate": RATE,
        "source_start": 3.0,
        "half": 1.0,
        "audio_path": "a.flac",
    }
    assert source.reading.ignored == {"image": "binary", "thumb": "large_binary"}


RATES = [
    (np.array([8000]), 8000),
    (np.array([[8000.0]]), 8000),
    (np.float32(8000), 8000),
    ("8000", 8000),
    (b"8000", 8000),
    (np.array([b"8000"]), 8000),
    ("16 kHz", None),
    (0, None),
    (-8000, None),
    (float("nan"), None),
    (float("inf"), None),
    (np.array([], np.int64), None),
    (np.array([8000, 16000]), None),
    (8000.5, None),
    ("", None),
    (16, None),
    (2**40, None),
]


@pytest.mark.parametrize(("stated", "rate"), RATES)
def test_the_rate_that_an_attribute_states(tmp_path: Path, stated: Any, rate: int | None) -> None:
    h5py = pytest.importorskip("h5py")
    for whose in ("file", "set"):
        with h5py.File(tmp_path / f"{whose}.h5", "w") as file:
            file["a"] = np.ones(800, np.int16)
            (file if whose == "file" else file["a"]).attrs["sample_rate"] = stated
    if rate is None:
        with pytest.raises(SourceError, match=r"file\.h5: the attribute sample_rate is .* whole number of Hz"):
            keys(str(tmp_path / "file.h5"))
        with pytest.raises(AudioError, match="the attribute sample_rate is"):
            open_audio(str(tmp_path / "set.h5")).read("set.h5/a")
        assert scan(open_source(str(tmp_path / "set.h5")), clip_seconds=1)["rate"].to_pylist() == [0]
    else:
        for whose in ("file", "set"):
            assert scan(open_source(str(tmp_path / f"{whose}.h5")), clip_seconds=1)["rate"].to_pylist() == [rate]


def test_an_empty_attribute_and_data_sets_that_are_no_sound(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = np.ones(800, np.int16)
        file["b"] = np.ones((800, 1), np.int16)
        file["c"] = np.ones(800, np.float32)
        file["d"] = np.int16(3)
    source = open_source(str(tmp_path / "a.h5"))
    assert source.listing()["path"].to_pylist() == ["a.h5/a"]
    assert source.reading.notes == [
        "a.h5: 3 data sets that are not int16 of one axis are left out, such as 'b' (int16 of shape (800, 1))"
    ]
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["a"] = np.ones(800, np.int16)
        file.attrs["sample_rate"] = h5py.Empty("i8")
    with pytest.raises(SourceError, match="the attribute sample_rate"):
        keys(str(tmp_path / "b.h5"))


def test_what_encoded_hdf5_may_hold_beside_its_sound(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["audio_name"] = np.array([b"b.mp3", b"a.mp3"])
        mp3 = file.create_dataset("mp3", (2,), dtype=h5py.vlen_dtype(np.uint8))
        for row in range(2):
            mp3[row] = np.frombuffer(encoded(row, "MP3"), np.uint8)
        file["label"] = np.array([b"007", b"1e5"])
        file["rate"] = np.array([1, 2])
        file["target"] = np.zeros((2, 5))
    source = open_source(str(tmp_path / "a.h5"))
    table = scan(source, clip_seconds=10)
    assert table["label"].to_pylist() == ["1e5", "007"]
    assert table["source_rate"].to_pylist() == [2, 1]
    assert source.reading.ignored == {"target": "float64 of shape (2, 5)"}
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["audio_name"] = np.array([b"b.mp3", b"a.mp3"])
        file.create_dataset("mp3", (1,), dtype=h5py.vlen_dtype(np.uint8))
    with pytest.raises(SourceError, match="audio_name has 2 names, and mp3 1 recordings"):
        keys(str(tmp_path / "b.h5"))


def test_packed_parquet_with_a_column_twice_is_refused_by_name(tmp_path: Path) -> None:
    sound = pa.array([b"RIFF"], pa.binary())
    pq.write_table(pa.table([sound, sound], names=["audio", "audio"]), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="the column 'audio' is there twice"):
        open_source(str(tmp_path / "a.parquet")).listing()
