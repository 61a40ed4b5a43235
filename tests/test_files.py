"""Where results are written: whole or not at all, through links, pipes and devices, never in their place."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from logitstore.errors import OutputError, UsageError
from logitstore.files import check_out, open_out


def put(place: Path | str, content: bytes = b"new") -> None:
    with open_out(place) as file:
        file.write(content)


def test_a_file_appears_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    put(file, b"old")
    file.chmod(0o640)
    with open_out(file) as out:
        out.write(b"new")
        out.flush()
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    with pytest.raises(TypeError, match="bytes-like"), open_out(file) as out:
        out.writelines([b"half", "text"])
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, there: bool) -> None:
    (tmp_path / "kept").mkdir()
    target = tmp_path / "kept" / "target"
    if there:
        target.write_bytes(b"old")
    (tmp_path / "first").symlink_to("kept/target")
    (tmp_path / "second").symlink_to(tmp_path / "first")
    put(tmp_path / "second")
    assert target.read_bytes() == b"new"
    assert (tmp_path / "first").is_symlink()
    assert (tmp_path / "second").is_symlink()
    assert list((tmp_path / "kept").iterdir()) == [target]


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe, heard = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    reader.start()
    put(pipe)
    reader.join(10)
    assert heard == [b"new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_devices_and_own_streams_are_written_through(tmp_path: Path) -> None:
    put("/dev/null")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with (tmp_path / "log").open("ab") as log:
        log.write(b"before ")
        log.flush()
        put(f"/dev/fd/{log.fileno()}")
        (tmp_path / "link").symlink_to(f"/proc/self/fd/{log.fileno()}")
        put(tmp_path / "link")
    assert (tmp_path / "log").read_bytes() == b"before newnew"
    with pytest.raises(OutputError, match=r"'/dev/full' cannot be written: No space left"):
        put("/dev/full")


def test_a_pipe_that_nobody_reads_any_more_is_no_error_of_the_file(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError, match="pipe"):
        put(f"/dev/fd/{writing}")
    os.close(writing)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", "is a folder; give the name of a file"),
        ("new/", "is a folder; give the name of a file"),
        ("none/x.csv", "there is no folder .*none'; make it"),
        ("file/x.csv", "there is no folder .*file'; make it"),
        ("circle", "is a symbolic link that leads in a circle"),
        ("", "is no name of a file"),
        ("a\0b", "is no name of a file"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_place_that_is_none_is_refused(own_folder: Path, name: str, message: str) -> None:
    Path("folder").mkdir()
    Path("file").touch()
    Path("circle").symlink_to("round")
    Path("round").symlink_to("circle")
    with pytest.raises(UsageError, match=message):
        put(name)
    assert not list(own_folder.glob(".*"))


@pytest.mark.parametrize("name", ["x.xlsx", "x", "x.csv.gz", "x.feather", "csv"])
def test_an_ending_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"must end in \.csv or \.json"):
        check_out(name, endings=(".csv", ".json"))
    check_out("x.CSV", endings=(".csv", ".json"))
    check_out("/dev/null", endings=(".csv",))
