"""``logitstore teachers check``: what it prints, what it ends with, and what it is refused for."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from logitstore.cli.main import cli
from logitstore.errors import AudioError, ModelOutputError, TeacherError
from tests.stores import options, write_audio

pytestmark = pytest.mark.usefixtures("own_folder")

BAD = """
from tones import Tones

class Silent(Tones):
    def forward(self, waveforms):
        said = super().forward(waveforms)
        return said / (waveforms.abs().amax(dim=1, keepdim=True) > 0)

class Short(Tones):
    def forward(self, waveforms):
        return super().forward(waveforms)[:, :3]
"""


@pytest.fixture
def root(tmp_path):
    write_audio(tmp_path / "audio", 5)
    options(tmp_path)
    (tmp_path / "bad.py").write_text(BAD)
    return tmp_path


def checked(*arguments):
    return CliRunner().invoke(cli, ["teachers", "check", *arguments, "--device", "cpu"])


def test_a_good_teacher_on_a_users_audio(root):
    done = checked("python:tones:plain", "audio", "--clip-seconds", "1")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        "teacher  python:tones:plain",
        "heard    clips of audio, views of 1 s at 16,000 Hz, recipe ced, on cpu",
    ]
    verdicts = {
        line[9:30].split("  ")[0].strip(): line.split()[0] for line in lines[3:] if line[:2] in ("ok", "wa", "fa")
    }
    assert verdicts.pop("survival") in ("ok", "warning")
    assert set(verdicts.values()) == {"ok"}
    assert {"answers", "silence", "clipping", "masks", "speed"} <= verdicts.keys()
    assert "share of 60 views of 5 clips that keep" in done.stdout


def test_without_a_source_sounds_are_made_and_it_says_so(root):
    done = checked("python:tones:deaf", "--clip-seconds", "1", "--recipe", "gentle")
    assert done.exit_code == 0, done.output
    assert "heard    32 sounds that were made here" in done.stdout
    assert "give a SOURCE for what counts" in done.stdout
    assert "\nwarning  hearing" in done.stdout


def test_a_broken_contract_is_exit_code_1_and_names_what_is_broken(root):
    done = checked("python:bad:Silent", "audio", "--clip-seconds", "1")
    assert isinstance(done.exception, ModelOutputError)
    assert done.exception.exit_code == 1
    assert str(done.exception) == (
        "teacher 'python:bad:Silent' breaks what is asked of every teacher: silence; what to do is told above"
    )
    assert "\nfails    silence" in done.stdout
    told = json.loads(checked("python:bad:Silent", "audio", "--clip-seconds", "1", "--json").stdout)
    assert (told["exit_code"], told["teacher"]) == (1, "python:bad:Silent")
    assert told["error"].startswith("teacher 'python:bad:Silent' breaks")
    (wrong,) = [each for each in told["findings"] if each["verdict"] == "fails"]
    assert wrong["check"] == "silence"
    assert wrong["found"].startswith("fails on a silent view: gave values from inf to inf")
    assert told["survival"]["views"] == 60


def test_nothing_is_told_of_answers_that_cannot_be_used(root):
    done = checked("python:bad:Short", "audio", "--clip-seconds", "1", "--json")
    told = json.loads(done.stdout)
    assert [each["check"] for each in told["findings"]] == ["answers"]
    assert told["survival"] is None
    assert "(clips, classes)" in told["findings"][0]["found"]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("python:tones:none", "audio"), TeacherError, "has no 'none'"),
        (("python:tones:deaf", "audio", "--recipe", "ced"), TeacherError, "takes only waveforms"),
        (("python:tones:plain", "text"), AudioError, "none of the clips of text that were tried can be decoded"),
    ],
)
def test_what_it_is_refused_for(root, arguments, error, said):
    (root / "text").mkdir()
    (root / "text" / "a.wav").write_bytes((root / "audio" / "a" / "000.wav").read_bytes()[:50])
    done = checked(*arguments)
    assert isinstance(done.exception, error), done.output
    assert said in str(done.exception)
