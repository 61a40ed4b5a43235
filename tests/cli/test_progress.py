"""Progress: a bar on a terminal, a line every 30 s in a log, nothing of what is short, quiet or another process's."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from rich.console import Console

from logitstore.cli import progress as shown
from logitstore.cli.command import stderr
from logitstore.cli.progress import BuildProgress, Meter, TrainingProgress, counting, of_total, span, working
from logitstore.notes import doing


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(autouse=True)
def no_thread(monkeypatch):
    """Lines are asked for here, and not by a thread that waits."""
    monkeypatch.setattr(Meter, "_tell", lambda self: None)
    monkeypatch.setattr(stderr, "quiet", False)


def said(capsys) -> list[str]:
    return [line.removeprefix("progress   ") for line in capsys.readouterr().err.splitlines()]


def test_a_build_says_hours_views_rate_time_left_and_failures(clock, capsys):
    with BuildProgress(10, 10.0, clock=clock) as meter:
        told = meter.callbacks()
        told.start(72_000, 360_000)  # of 36,000 clips of 10 s: 100 h
        clock.now += 30
        told.advance(3000)
        told.failures(2)
        meter.tick()
        doing("asking what of the answers survives the recipe")
        clock.now += 30
        meter.tick()
        clock.now += 1
    assert said(capsys) == [
        "0:30  building: 20.8 of 100.0 h, 75,000 of 360,000 views, 100 views/s, 47:30 left, 2 failures",
        "1:00  asking what of the answers survives the recipe",
        "1:01  building is done: 20.8 of 100.0 h, 75,000 of 360,000 views, 100 views/s, 2 failures",
    ]


def test_short_audio_is_told_in_minutes(clock):
    meter = BuildProgress(4, 2.0, clock=clock)
    meter.start(0, 400)
    meter.advance(100)
    assert meter.says() == "building: 0.8 of 3.3 min, 100 of 400 views, 0 failures"


def test_a_training_says_step_loss_rate_and_what_was_measured(clock, capsys):
    with TrainingProgress(clock=clock) as meter:
        told = meter.callbacks()
        meter.tick()
        told.start(600, 100)
        clock.now += 50
        told.step(200, 6400, None)
        meter.tick()
        told.step(201, 64, 0.25)
        told.epoch({"epoch": 0, "loss": 0.3, "held_out_loss": 0.21})
        meter.tick()
    lines = said(capsys)
    assert lines[:3] == [
        "0:00  training",
        "0:50  training: 200 of 600 steps, 128 clips/s, 3:20 left",
        "0:50  training: 201 of 600 steps, 129 clips/s, 3:18 left, loss 0.2500, held-out loss 0.2100",
    ]
    assert lines[3].startswith("0:50  training is done: 201 of 600 steps")


def test_what_is_short_quiet_or_another_process_says_nothing(clock, capsys, monkeypatch):
    with of_total("merging", "blocks") as told:
        told(3, 3)
    assert said(capsys) == []
    monkeypatch.undo()
    for quiet, speaks in ((True, True), (False, False)):
        monkeypatch.setattr(stderr, "quiet", quiet)
        before = threading.active_count()
        with Meter("merging", "blocks", speaks=speaks, every=0.001):
            assert threading.active_count() == before  # nobody who would speak
    monkeypatch.setattr(stderr, "quiet", False)
    assert said(capsys) == []


def test_a_log_has_lines_by_itself_also_while_nothing_moves(capsys, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(stderr, "quiet", False)
    enough = threading.Event()
    tick = Meter.tick

    def ticked(self: Meter) -> None:
        tick(self)
        enough.set()

    monkeypatch.setattr(Meter, "tick", ticked)
    monkeypatch.setattr(shown, "EVERY", 0.001)
    with Meter("verifying", "blocks", every=0.001) as meter:
        meter.update(2, 5)
        assert enough.wait(20)
    lines = said(capsys)
    assert lines[-1].endswith("verifying is done: 2 of 5 blocks")
    assert any("verifying" in line for line in lines[:-1])


def test_a_job_that_fails_does_not_end_with_a_line_that_it_is_done(clock, capsys):
    def fails() -> None:
        with Meter("verifying", "blocks", clock=clock) as meter:
            meter.tick()
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fails()
    assert said(capsys) == ["0:00  verifying"]


def test_stages_and_counts_take_turns(clock):
    with Meter("scoring", "clips", clock=clock) as meter:
        doing("opening files", 5, 2000)
        assert meter.says() == "opening files: 5 of 2,000"
        meter.update(64, 500)
        assert meter.says() == "scoring: 64 of 500 clips"
        with working("loading the teacher") as stage:
            doing("elsewhere")
            assert meter.says() == "scoring: 64 of 500 clips"  # the inner one hears it
            stage("compiling")
        doing("opening files")
        assert meter.says() == "opening files"
    doing("nobody listens")


def test_a_bar_on_a_terminal_shows_the_same_words_and_goes_away(clock, monkeypatch):
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(shown, "stderr", terminal)
    with counting("exporting", "views") as advance:
        advance(1200)
    with BuildProgress(1, 3600.0, clock=clock) as meter:
        told = meter.callbacks()
        told.start(0, 100)
        clock.now += 10
        told.advance(25)
        meter.pause()
        terminal.print("a result")
        meter.resume()
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "1,200 views" in text
    assert "25.0 of 100.0 h, 2.5 views/s, 0:30 left, 0 failures" in text
    assert "a result" in text
    assert max(map(len, re.split(r"[\r\n]", text))) <= 80


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (7322, "2:02:02")])
def test_times_that_are_left(seconds, text):
    assert span(seconds) == text


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_what_steers_a_terminal_reaches_it_and_stdout_is_left_alone(tmp_path):
    code = """
from logitstore.cli.command import _escaping
from logitstore.cli.progress import Meter
import sys
with _escaping(), Meter("tagging", "windows") as meter:
    meter.update(3, 4)
    print("a result")
    print("a warning \\x1b[31m", file=sys.stderr)
"""
    ours, theirs = os.openpty()
    with (tmp_path / "out").open("wb") as out:
        done = subprocess.Popen([sys.executable, "-c", code], stdout=out, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # the end of a terminal that nobody has open any more
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    assert done.wait() == 0
    assert (tmp_path / "out").read_text() == "a result\n"
    assert b"3 of 4 windows" in shown
    assert b"\x1b[" in shown  # as rich has it
    assert shown.count(b"\\x1b") == 1  # as the warning has it
