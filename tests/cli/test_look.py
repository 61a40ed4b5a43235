"""The command ``logitstore look``: one screen, in colour or plain, whatever a store says."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import CliRunner
from rich.console import Console

from logitstore import open_store
from logitstore.cli.look import draw, look_command
from logitstore.cli.screen import Screen, fit
from logitstore.store.look import look
from tests.small_store import Spec, make_store

ROWS, COLUMNS = 40, 80


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = pa.array([f"\x1b[31m{number}" for number in range(37)])
    return make_store(tmp_path_factory.mktemp("look") / "store", Spec(keep_members=True, spread=0.7), label=labels).path


def screen(file: io.TextIOBase | None = None, **how: object) -> Screen:
    return Screen(Console(file=file or io.StringIO(), width=COLUMNS, highlight=False, soft_wrap=True, **how))  # type: ignore[arg-type]


def test_it_fits_on_one_screen_and_says_what_there_is(store):
    told = CliRunner().invoke(look_command, [str(store)])
    assert told.exit_code == 0
    lines = told.stdout.splitlines()
    assert len(lines) <= ROWS
    assert max(map(len, lines)) <= COLUMNS
    assert "\x1b" not in told.stdout
    for said in ("37 of 2 s at 16,000 Hz, 36 seconds; 1 clip failed", "clip 10, folder/clip 000010.wav: not audio",
                 "108 views, 3 a clip; top 5 of 12 classes", "net, net #2; mean of probability", "survival: ",
                 "frequency_mask", "most uncertain", "views disagree", "members differ"):  # fmt: skip
        assert said in told.stdout
    assert f"next       logitstore show {store} " in told.stderr
    assert "next" not in CliRunner().invoke(look_command, [str(store), "-q"]).stderr


def test_bars_are_as_long_as_the_views(store):
    found, drawn = look(open_store(store)), screen()
    draw(found, drawn)
    bars = [line.plain.count("█") for line in drawn.lines if line.plain.startswith("  class ")]
    assert bars == [found.commonest[at].views * bars[0] // found.commonest[0].views for at in range(len(bars))]
    assert len(bars) == 10


def test_colours_are_for_terminals_and_blocks_for_what_can_write_them(store):
    found = look(open_store(store))
    coloured = screen(force_terminal=True, color_system="truecolor")
    draw(found, coloured)
    coloured.print()
    assert "\x1b[36m" in coloured.console.file.getvalue()
    plain = screen(force_terminal=True, no_color=True)
    draw(found, plain)
    plain.print()
    assert "\x1b[36m" not in plain.console.file.getvalue()
    ascii_only = screen(io.TextIOWrapper(io.BytesIO(), "ascii"))
    draw(found, ascii_only)
    assert ascii_only.text().isascii()
    assert "####" in ascii_only.text()


def test_json_has_the_summary_and_the_look(store):
    told = json.loads(CliRunner().invoke(look_command, [str(store), "--json"]).stdout)
    assert told["clips"] == 37
    assert told["kept"] == look(open_store(store)).kept
    assert [each["op"] for each in told["survival"]] == ["roll", "time_mask", "frequency_mask"]


def test_several_stores_are_read_as_one(store, tmp_path):
    other = make_store(tmp_path / "other", Spec(clips=8, failed=(), seed=3)).path
    told = CliRunner().invoke(look_command, [str(store), "--also", str(other)])
    assert "45 of 2 s" in told.stdout
    assert f"show {store} " in told.stderr
    assert f"--also {other}" in told.stderr


def test_hostile_names_do_not_steer_the_terminal(tmp_path):
    from dataclasses import replace

    from logitstore.store.look import Odd

    found = look(open_store(make_store(tmp_path / "store", Spec()).path))
    odd = Odd(3, "x" * 500 + "\x1b[2Jevil\npath", 1.5, 2.0, ("\x1b]0;title\x07", "b"))
    drawn = screen(force_terminal=True)
    draw(replace(found, uncertain=(odd,)), drawn)
    drawn.print()
    assert "\x1b[2J" not in drawn.console.file.getvalue()
    assert "\x1b]0;" not in drawn.console.file.getvalue()
    assert "[2Jevil\\npath 1.5 s" in drawn.text()
    assert max(map(len, drawn.text().splitlines())) <= COLUMNS


def test_words_fit_their_columns():
    assert fit("abc", 5) == "abc  "
    assert fit("abcdef", 4) == "abc…"
    assert fit("abcdef", 4, end=True) == "…def"
    assert len(fit("日本語日本語", 5)) == 3 + 0  # two wide letters and …


def test_looking_imports_neither_torch_nor_zarr_nor_duckdb(store):
    code = (
        "import sys; from click.testing import CliRunner; from logitstore.cli.look import look_command;"
        "told = CliRunner().invoke(look_command, [sys.argv[1]]); print(told.exit_code,"
        "[name for name in ('torch', 'zarr', 'duckdb', 'matplotlib') if name in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "0 []"
