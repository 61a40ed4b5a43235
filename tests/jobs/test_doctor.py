"""Doctor: what works is said to work, what is broken or missing is named with what mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import tomllib
from pathlib import Path

import pytest

from logitstore.cli.command import run
from logitstore.cli.main import cli
from logitstore.jobs import doctor as job


@pytest.fixture
def quick(monkeypatch):
    """Without the core packages, which take seconds to import in a process that has not; and one that always is."""
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy>=1.26", 'av>=18; extra == "media"'])


def asked(capsys, monkeypatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["logitstore", "doctor", *arguments])
    with pytest.raises(SystemExit) as left:
        run(cli)
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


@pytest.mark.usefixtures("quick")
def test_what_works_ends_with_a_line_that_says_so(capsys, monkeypatch):
    code, out, err = asked(capsys, monkeypatch)
    assert (code, "Error" in err) == (0, False), err
    assert out.rstrip().splitlines()[-1].startswith("all that is needed works here")
    assert "logitstore teachers" in err  # what one does next
    assert not [line for line in out.splitlines() if len(line) > 80 and not line.startswith("        ")]


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [("numpy<1", "is not <1"), ("nothing-of-that-name>=3", "not installed"), ("iniconfig", "cannot be imported")],
)
def test_a_core_package_that_does_not_do_is_an_error_with_its_install_line(capsys, monkeypatch, requirement, reason):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: [requirement])
    monkeypatch.setattr(job, "_MODULES", {"iniconfig": "no_such_module"})
    code, out, err = asked(capsys, monkeypatch)
    assert code == 1
    assert reason in out
    assert f"pip install '{requirement}'" in out
    assert err.startswith("Error: not everything works here: ")
    assert len(err.splitlines()) == 1


def test_json_of_a_missing_extra(capsys, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ['nothing-of-that-name; extra == "media"'])
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "av" else find(name, *more))
    code, out, _ = asked(capsys, monkeypatch, "--json")
    found = json.loads(out)
    assert (code, found["error"], found["problems"]) == (0, None, [])
    media = next(each for each in found["extras"] if each["name"] == "media")
    assert (media["state"], media["lacks"]) == ("missing", ["nothing-of-that-name"])
    assert media["fix"] == "pip install 'logitstore[media]'"
    kinds = {each["name"]: each["state"] for each in found["sounds"]}
    assert (kinds["WAV"], kinds["Ogg Vorbis"], kinds["AAC in MP4"]) == ("ok", "ok", "missing")


@pytest.mark.usefixtures("quick")
def test_a_decoder_that_gives_another_sound_is_broken(monkeypatch):
    from logitstore.audio import audiofile

    monkeypatch.setattr(audiofile, "mono", lambda frames: frames[::-1, 0] ** 3)
    states = {each.name: each.state for each in job._sounds()}
    assert states["WAV"] == "broken"


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", ["draws", "bands", "batch"])
def test_views_that_do_not_replay_are_told(monkeypatch, fault):
    drawn, together, alone, bands = job.rendered("wave")
    other = {
        "draws": ("0" * 32, together, alone, bands),
        "bands": (drawn, together, alone, (bands[0] + 0.2, *bands[1:])),
        "batch": (drawn, together, "0" * 32, bands),
    }[fault]
    assert [each.state for each in job._replayed()] == ["ok"] * 3
    real = job.rendered
    monkeypatch.setattr(job, "rendered", lambda name: other if name == "wave" else real(name))
    assert [each.state for each in job._replayed()] == ["ok", "ok", "broken"]


def test_a_folder_for_temporary_files_that_cannot_be_written(monkeypatch):
    def refuse() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    found = job._temporary()
    assert (found.state, found.writable) == ("broken", False)
    assert "No space left on device; set TMPDIR" in found.reason


def test_every_extra_for_users_is_known():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"].keys() - job.EXTRAS.keys() == {"docs", "examples", "dev"}
    assert job.EXTRAS.keys() <= project["optional-dependencies"].keys()
