"""The learning curve in the terminal: where its points stand, its axes, what is left out, and when it is shown."""

from __future__ import annotations

import json

import pytest

from logitstore.cli import progress as shown
from logitstore.cli.command import stderr
from logitstore.cli.curve import Curve, drawn, of_run
from logitstore.cli.progress import TrainingProgress


def curve(steps: int = 100, first: float = 1.0, last: float = 0.5) -> Curve:
    """Losses on a straight line, one held-out loss in the middle and one at the end."""
    made = Curve()
    for step in range(steps):
        loss = first + (last - first) * step / (steps - 1)
        made.add({"event": "step", "step": step, "loss": loss})
    for step in (steps // 2, steps):
        made.add({"event": "epoch", "step": step, "loss": 0.7, "held_out_loss": last})
    return made


def test_axes_are_numbers_and_losses_stand_where_they_belong():
    lines = drawn(curve(), 80, ascii_only=True)
    assert lines[0] == "loss: * training; o held-out clips"
    rows = [line.split("+" if "+" in line else "|")[1] for line in lines[1:11]]
    top, middle, bottom = (float(line.split()[0]) for line in lines[1:11] if "+" in line)
    assert (top, middle, bottom) == (pytest.approx(1, abs=0.02), pytest.approx(0.72, abs=0.02), 0.5)
    assert lines[-1].split() == ["1", "50", "100", "steps"]
    assert max(map(len, lines)) <= 80
    places = [row.index("*") for row in rows]
    assert places == sorted(places)  # it falls from the left to the right
    assert [number for number, row in enumerate(rows) if "o" in row] == [9]  # the lowest there is
    assert rows[9].rindex("o") == max(len(row) for row in rows) - 1


def test_what_falls_far_has_a_logarithmic_axis():
    assert "logarithmic" in drawn(curve(first=2.0, last=0.01), 80)[0]
    assert "logarithmic" not in drawn(curve(first=2.0, last=0.5), 80)[0]
    assert "logarithmic" not in drawn(curve(first=2.0, last=-1.0), 80)[0]


def test_a_line_has_no_gaps_where_steps_are_few():
    for ascii_only in (False, True):
        rows = drawn(curve(steps=5), 80, ascii_only=ascii_only)[1:11]
        columns = zip(*(row[10:].ljust(64) for row in rows), strict=True)
        assert all(any(cell != " " for cell in column) for column in columns)


@pytest.mark.parametrize("constant", [0.0, 0.25])
def test_a_loss_that_does_not_change_is_a_line(constant):
    assert len(drawn(curve(first=constant, last=constant), 80)) == 13


def test_no_curve_of_nothing_or_without_room():
    assert drawn(Curve(), 80) == []
    assert drawn(curve(), 20) == []


def test_a_log_is_read_as_far_as_it_can_be(tmp_path):
    lines = [json.dumps({"event": "step", "step": 0, "loss": 0.9}), "{broken", "[1]", '{"event": "step", "step": "x"}']
    lines += [json.dumps({"event": "step", "step": 1, "loss": None}), '{"event": "step", "step": 2, "loss": NaN}']
    lines += [json.dumps({"event": "epoch", "step": 3, "loss": 0.5, "held_out_loss": 0.4})]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    found = of_run(tmp_path)
    assert (found.training, found.held_out) == ([(1, 0.9)], [(3, 0.4)])
    assert of_run(tmp_path / "none") == Curve()


def test_it_is_shown_where_asked_or_on_a_terminal(tmp_path, capsys, monkeypatch):
    records = [{"event": "step", "step": step, "loss": 1 / (step + 1)} for step in range(30)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    monkeypatch.setattr(stderr, "quiet", False)
    TrainingProgress().show_curve(str(tmp_path), asked=False)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(shown, "_prints", lambda text: False)
    TrainingProgress().show_curve(str(tmp_path), asked=True)
    assert "30 steps" in capsys.readouterr().err
    monkeypatch.setattr(stderr, "quiet", True)
    TrainingProgress().show_curve(str(tmp_path), asked=True)
    assert capsys.readouterr().err == ""


def test_it_grows_above_the_bar():
    meter = TrainingProgress()
    told = meter.callbacks()
    told.start(1000, 0)
    for step in range(19):
        told.log({"event": "step", "step": step, "loss": 1.0})
    assert meter.above() == []
    for step in range(19, 40):
        told.log({"event": "step", "step": step, "loss": 0.5})
    before = meter.above()
    assert before[-1].endswith("40 steps")
    told.log({"event": "step", "step": 40, "loss": 0.5})
    assert meter.above() is before  # not for every step
