"""The library: every name is there and documented, every example runs, nothing heavy is imported before it is used."""

import csv
import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import logitstore
from logitstore.errors import LogitstoreError, UsageError
from logitstore.jobs.options import BuildOptions
from logitstore.options import with_keywords
from tests.stores import write_audio

#: The examples, each in the folder that those before it have filled.
EXAMPLES = (
    "train_teacher", "build", "verify", "plan", "train_student", "", "extend", "evaluate", "compare", "tag",
    "export_student",
)  # fmt: skip
JOBS = (
    "build", "extend", "verify", "plan", "evaluate", "compare", "tag", "train_student", "train_teacher",
    "export_student",
)  # fmt: skip


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_audio(tmp_path / "audio", 12)
    write_audio(tmp_path / "new", 4)
    for number, file in enumerate(sorted((tmp_path / "new").rglob("*.wav"))):
        target = tmp_path / "more" / "later" / f"{number}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    names = sorted(str(path.relative_to("audio")) for path in Path("audio").rglob("*.wav"))
    with Path("labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *((name, f"class {i % 3}") for i, name in enumerate(names))])
    return tmp_path


def test_every_example_runs(workshop):
    pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
    runner, parser = doctest.DocTestRunner(), doctest.DocTestParser()
    for name in EXAMPLES:
        text = inspect.getdoc(getattr(logitstore, name) if name else logitstore) or ""
        test = parser.get_doctest(text, {"logitstore": logitstore}, name or "logitstore", None, None)
        assert test.examples, name
        said: list[str] = []
        assert runner.run(test, out=said.append).failed == 0, "".join(said)
    assert {name for name in EXAMPLES if name} == set(JOBS)


def test_every_name_is_there_and_documented():
    assert set(logitstore.__all__) <= set(dir(logitstore))
    for name in logitstore.__all__:
        thing = getattr(logitstore, name)
        assert inspect.getdoc(thing), name
    with pytest.raises(AttributeError, match="has no attribute 'biuld'"):
        _ = logitstore.biuld


def test_jobs_take_the_options_as_keywords():
    keywords = inspect.signature(logitstore.build).parameters
    assert {"source", "teachers", "views", "precision"} <= set(keywords)
    assert keywords["batch_size"].default == 32
    with pytest.raises(UsageError, match="--views is 0; it must be at least 1"):
        logitstore.build(source="audio", out="store", teachers=["t"], views=0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'viewz'"):
        logitstore.build(source="audio", out="store", teachers=["t"], viewz=3)
    asked = with_keywords(BuildOptions)(lambda options: options)
    assert asked(source=Path("audio"), out="store", teachers=["t"]).source == "audio"


def test_every_error_is_there():
    def below(kind: type) -> set[str]:
        return {kind.__name__}.union(*map(below, kind.__subclasses__()))

    ours = {name for name in below(LogitstoreError) if hasattr(sys.modules["logitstore.errors"], name)}
    assert ours <= set(logitstore.__all__)


def test_nothing_heavy_is_imported_before_it_is_used():
    code = (
        "import sys, logitstore; dir(logitstore); logitstore.build, logitstore.open_store, logitstore.load_teacher; "
        "sys.exit(','.join(m for m in ('torch', 'zarr', 'pyarrow', 'duckdb') if m in sys.modules) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
