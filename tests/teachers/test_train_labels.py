"""What ``train-teacher`` says of its labels before it begins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from logitstore.cli.train_teacher import train_teacher_command
from logitstore.errors import SourceError
from logitstore.training.runs import load_run

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = ["--model", "cnn4", "--model-arg", "width=2", "--model-arg", "mels=16", "--model-arg", "hop_ms=40", "--steps",
         "1", "--recipe", "none", "--device", "cpu", "--label-column", "labels", "--workers", "1"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        soundfile.write(f"{number}.wav", 0.1 * np.sin(np.arange(1600) * 0.1 * (number + 1)), 16_000)
    return tmp_path


def trained(rows: list[str], *more: str) -> tuple[tuple[str, ...], str]:
    Path("m.csv").write_text("path,labels\n" + "\n".join(rows) + "\n")
    done = CliRunner().invoke(train_teacher_command, ["m.csv", *SMALL, "--out", "run", *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return load_run("run").classes, done.stderr


@pytest.mark.parametrize(
    ("rows", "more", "classes", "said"),
    [
        (['0.wav,"Dog,Bark"', "1.wav,Dog", "2.wav,Bark"], [], ("Bark", "Dog"), "'Dog,Bark' is read as 2 labels"),
        (["0.wav,Dog|Bark", "1.wav,Dog"], [], ("Dog", "Dog|Bark"), "'Dog|Bark' is taken for one label"),
        (["0.wav,Dog|Bark", "1.wav,Dog"], ["--label-separator", "|"], ("Bark", "Dog"), ""),
        (["0.wav,Dog", "0.wav,Bark", "1.wav,nan", "2.wav,"], [], ("Bark", "Dog"), "2 of 3 rows have no label"),
        (["0.wav,Dog", "0.wav,Bark"], [], ("Bark", "Dog"), "2 rows name 1 segments more than once"),
        (["0.wav,Dog", "1.wav,Bark"], ["--eval-where", "labels = 'Dog'"], ("Bark", "Dog"),
         "1 of 1 files that are measured with --eval-where are learnt from too, as '0.wav'"),
    ],
)  # fmt: skip
def test_labels_are_told_apart_or_the_cell_is_shown(
    here: Path, rows: list[str], more: list[str], classes: tuple[str, ...], said: str
) -> None:
    found, notes = trained(rows, *more)
    assert found == classes
    assert said in notes


def test_the_same_label_in_two_spellings_is_refused(here: Path) -> None:
    with pytest.raises(SourceError, match=r"'Dog' \(1 rows\) and 'dog' \(1 rows\) differ only by case"):
        trained(["0.wav,Dog", "1.wav,dog"])
    Path("classes.txt").write_text("Dog\ndog\n")
    assert trained(["0.wav,Dog", "1.wav,dog"], "--classes", "classes.txt")[0] == ("Dog", "dog")
