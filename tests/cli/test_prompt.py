"""The shell of ``inspect``: what it takes for a query, what it answers, offers, keeps, and how it goes on."""

from __future__ import annotations

import io
import stat
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from logitstore import open_store
from logitstore.cli import prompt
from logitstore.cli.ask import Manner
from logitstore.cli.inspect import inspect_command
from logitstore.cli.prompt import Shell, is_ended, split
from logitstore.cli.prompt_words import COMMANDS, Vocabulary
from logitstore.errors import MissingExtraError, QueryError, UsageError
from tests.small_store import Made, Spec, make_store

WORDS = Vocabulary(
    tables={"clips": ["clip", "path", "odd name"], "topk": ["clip", "class", "probability"]},
    classes=["Dog", "Bark", "Child's play", "Bull dog", "evil\x1b[2J"],
    questions={"classes": "Which classes?", "coverage": "How many?"},
    functions=["count", "count_if"],
    parameters={"classes": ["limit"]},
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_store(tmp_path_factory.mktemp("shell") / "store", Spec(keep_members=True))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own for what the shell keeps."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "state" / "logitstore" / "history"


def scripted(made: Made, text: str, *arguments: str) -> Result:
    return CliRunner().invoke(inspect_command, [str(made.path), "--shell", *arguments], input=text)


def conversed(made: Made, typed: str, capfd: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """What stands on stdout and stderr after a conversation of these keys."""
    shell = Shell(open_store(made.path), [str(made.path)], Manner(), {})
    with create_pipe_input() as keys:
        keys.send_text(typed + "\x04")
        shell.converse(keys, DummyOutput())
    return capfd.readouterr()


# what is a query


def test_queries_end_with_a_semicolon_or_an_empty_line_and_commands_with_their_line() -> None:
    text = "SELECT ';\n\n', /* ; */ 1 -- ;\nFROM x;;\n\n.out a.csv\n@classes -p n 1;\nSELECT\n2\n  \n"
    text += "-- only a comment;\n\nSELECT 3"
    assert split(text) == (
        [(1, "SELECT ';\n\n', /* ; */ 1 -- ;\nFROM x"), (6, ".out a.csv"), (7, "@classes -p n 1"), (8, "SELECT\n2")],
        "SELECT 3",
    )
    assert split("") == ([], "")
    assert split("SELECT 'a;\n\n") == ([], "SELECT 'a;\n\n")


@pytest.mark.parametrize(
    ("text", "ended"),
    [("", True), ("SELECT 1", False), ("SELECT 1;", True), ("SELECT 1\n", True), ("SELECT ';", False), (".help", True),
     ("@classes", True), ("SELECT 1 -- ;", False)],
    ids=["nothing", "open", "semicolon", "empty line", "open quote", "command", "question", "comment"],
)  # fmt: skip
def test_enter_ends_a_query_or_begins_a_line(text: str, ended: bool) -> None:
    assert is_ended(text) is ended


# a script


def test_a_script_is_answered_in_its_order(made: Made) -> None:
    done = scripted(
        made,
        "SELECT count(*) AS n\nFROM clips;\n.format csv\n@classes -p limit 1\n.set most 2\n"
        "SELECT clip FROM clips WHERE clip < $most;\n.out rows.parquet\nFROM failures\n\nSELECT 5 AS five;\n.quit\n"
        "no SQL",
    )
    assert done.exit_code == 0, done.exception
    lines = done.stdout.splitlines()
    assert lines[:3] == [" n", "──", "37"]
    assert lines[3].startswith("class,views,clips")
    assert lines[5:] == ["clip", "0", "1", "five", "5"]
    assert pq.read_table("rows.parquet")["clip"].to_pylist() == [10]


def test_a_script_shows_what_there_is(made: Made) -> None:
    done = scripted(
        made,
        ".tables\n.schema failures\n.questions\n@\n@classes -p limit 3 --sql\n.help\n.transpose on\n"
        "FROM teachers LIMIT 1;",
    )
    assert done.exit_code == 0, done.exception
    assert "topk      clip, view, rank, class_index, class, probability" in done.stdout
    assert "reason      VARCHAR" in done.stdout
    assert done.stdout.count("Which classes do the teachers hear?") == 3
    assert "-- $limit = 3: how many" in done.stdout
    assert all(name in done.stdout for name in COMMANDS)
    assert "── row 1 ──" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1;\nSELCT 2;", "line 2 of the script: SQL, line 1, column 1, at 'SELCT 2'"),
        ("\n\nCOPY clips TO 'x';", "line 3 of the script: .*read-only"),
        ("FROM read_csv('/etc/passwd');", "no file, network, setting or environment"),
        (".tabels", r"there is no command \.tabels; did you mean '\.tables'"),
        (".schema clip", "there is no table 'clip'; did you mean 'clips'"),
        (".schema", r"\.schema takes TABLE; give that"),
        (".format parquet", "allowed are table, markdown, csv, json, ndjson"),
        (".explain perhaps", "neither on nor off"),
        (".out rows.xlsx", "xlsx"),
        ("@classes limit 5", "after @NAME may stand -p NAME VALUE and --sql, and not 'limit'"),
        ("@clases", "did you mean classes"),
        ("@classes -p limit '5", "no closing quotation; close the quote"),
        ("SELECT 'a;\n\n", "ends within a quote or comment"),
    ],
)  # fmt: skip
def test_a_script_ends_at_its_first_mistake(made: Made, text: str, message: str) -> None:
    done = scripted(made, text)
    with pytest.raises(UsageError, match=message):
        raise done.exception or AssertionError(done.output)


def test_the_store_is_no_place_for_output(made: Made) -> None:
    done = scripted(made, f".out {made.path}/x.csv")
    with pytest.raises(UsageError, match="lies in the store, which is read-only"):
        raise done.exception or AssertionError(done.output)


def test_limits_hold_in_the_shell(made: Made) -> None:
    done = scripted(
        made, "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(100000) b;", "--timeout", "0.2"
    )
    with pytest.raises(QueryError, match=r"line 1 of the script: the query was ended after 0\.2 s"):
        raise done.exception or AssertionError(done.output)


@pytest.mark.parametrize(
    "arguments", [("FROM clips",), ("--json",), ("--out", "x.csv"), ("--sql",)], ids=["SQL", "json", "out", "sql"]
)
def test_what_does_not_go_with_the_shell_is_refused(made: Made, arguments: tuple[str, ...]) -> None:
    done = scripted(made, "", *arguments)
    with pytest.raises(UsageError, match=r"--shell asks for queries itself; leave .* out"):
        raise done.exception or AssertionError(done.output)


# at the prompt


def test_a_conversation_goes_on_after_a_mistake(made: Made, capfd: pytest.CaptureFixture[str], state: Path) -> None:
    out, err = conversed(
        made, "SELECT 1 +\r1 AS two;\rSELCT;\rSELECT 3 AS three\r\r@classes -p limit 1\r.nothing\r", capfd
    )
    assert "two\n───\n  2\n" in out
    assert "three\n─────\n    3\n" in out
    assert "mean_probability" in out
    assert err.count("Error: ") == 2
    assert "there is no command .nothing" in err
    kept = state.read_text()
    assert "+SELECT 1 +\n+1 AS two;" in kept
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o700


def test_ctrl_c_gives_up_a_line_and_ends_a_query_but_not_the_shell(
    made: Made, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompt.ask

    def ask(store: object, sql: str, *rest: object) -> object:
        if "slow" in sql:
            raise KeyboardInterrupt
        return asked(store, sql, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(prompt, "ask", ask)
    out, err = conversed(made, "SELECT nothing\x03SELECT 'slow';SELECT 8;\rSELECT 9 AS nine;\r", capfd)
    assert "nine" in out
    assert "8" not in out.splitlines()
    assert err.strip() == "Error: interrupted; the query was ended"


def test_tab_completes(made: Made, capfd: pytest.CaptureFixture[str]) -> None:
    """The prompt completes in a thread, which a pipe of keys does not wait for: what it is given is asked for here."""
    words = Vocabulary.of(open_store(made.path))
    assert [each.text for each in words.suggest("FROM topk WHERE class = 'class 1")] == [
        "'class 1'",
        "'class 10'",
        "'class 11'",
    ]
    assert "@uncertain_clips" in [each.text for each in words.suggest("@unc")]


def test_a_history_that_cannot_be_kept_is_said(made: Made, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    out, err = conversed(made, "SELECT 1 AS one;\r", capfd)
    assert "one" in out
    assert "what is asked is not kept for the next time: " in err


def test_without_the_extra_a_terminal_is_told_and_a_script_works(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prompt_toolkit", None)
    assert scripted(made, "SELECT 1 AS one;").exit_code == 0
    with pytest.raises(MissingExtraError, match=r"needs the package 'prompt_toolkit'.*logitstore\[shell\]"):
        Shell(open_store(made.path), [], Manner(), {}).converse()


def test_a_prompt_needs_a_terminal_to_be_shown_on(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(UsageError, match="--shell shows its prompt on stdout, which is no terminal; give the queries"):
        Shell(open_store(made.path), [], Manner(), {}).run()


def test_a_script_imports_nothing_heavy(made: Made) -> None:
    code = (
        "import sys; from logitstore.cli.inspect import inspect_command as c; "
        "c.main(sys.argv[1:], standalone_mode=False); "
        "sys.exit(','.join(m for m in ('torch', 'zarr', 'prompt_toolkit', 'pygments') if m in sys.modules) or 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(made.path), "--shell"],
        input="SELECT 1;",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")


# what is offered


@pytest.mark.parametrize(
    ("before", "first"),
    [
        (".sch", [".schema"]),
        (".schema to", ["topk"]),
        (".format m", ["markdown"]),
        ("@c", ["@classes", "@coverage"]),
        ("@classes -", ["-p limit", "--sql"]),
        ("SELECT * FROM ", ["clips", "topk"]),
        ("SELECT * FROM clips JOIN t", ["topk"]),
        ("SELECT t. FROM topk t WHERE t.cl", ["clip", "class"]),
        ("SELECT topk.p", ["probability"]),
        ("SELECT x.p FROM topk", []),
        ("FROM clips WHERE o", ['"odd name"']),
        ("SELECT pro", ["probability"]),
        ("SELE", ["SELECT"]),
        ("sele", ["select"]),
        ("SELECT cou", ["count(", "count_if("]),
        ("WHERE class = 'do", ["'Dog'", "'Bull dog'"]),
        ("WHERE class = chi", ["'Child''s play'"]),
        ("WHERE class = 'Dog' AND class = 'b", ["'Bark'", "'Bull dog'"]),
        ("WHERE class = 'evil", []),
        ("-- a com", []),
        ('SELECT "pro', []),
    ],
)  # fmt: skip
def test_what_is_offered_fits_what_stands_there(before: str, first: list[str]) -> None:
    found = WORDS.suggest(before)
    assert [word.text for word in found][: max(len(first), 1)] == first
    for word in found:
        assert len(word.text) >= 1 <= len(before) >= word.replaces


def test_nothing_is_offered_unasked_before_a_letter() -> None:
    assert WORDS.suggest("SELECT ", asked=False) == []
    assert "clip" in [word.text for word in WORDS.suggest("SELECT ", asked=True)]
