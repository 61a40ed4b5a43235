"""``logitstore demo``: the main job on synthetic sounds, each step a command that could be typed."""

from __future__ import annotations

import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from logitstore.cli.command import command, echo, next_steps, part_of_more
from logitstore.errors import UsageError
from logitstore.options import Option, Options
from logitstore.texts import in_lines

_MARK = ".logitstore-demo"
_CLASSES = 60
_SECONDS = 4.0
_TRAIN, _TEST = 900, 300
_VIEWS = 10
#: Three teachers that hear differently: bands, hop and width of a cnn4.
_TEACHERS = (
    ("teacher-1", ("width=24", "mels=40", "hop_ms=32")),
    ("teacher-2", ("width=24", "mels=48", "hop_ms=32")),
    ("teacher-3", ("width=24", "mels=32", "hop_ms=32")),
)
_STUDENT = ("width=12", "mels=40", "hop_ms=32")

_QUESTIONS = (
    (
        "What do the teachers hear most?",
        "SELECT class, count(*) AS views, round(avg(probability), 3) AS mean FROM topk WHERE rank = 1 "
        "GROUP BY class ORDER BY views DESC, class LIMIT 5",
    ),
    (
        "Which clips do their views disagree about?",
        "SELECT path, count(DISTINCT top1) AS answers, round(avg(entropy), 2) AS entropy, any_value(labels) AS labels "
        "FROM views JOIN clips USING (clip) GROUP BY path ORDER BY answers DESC, entropy DESC, path LIMIT 5",
    ),
    (
        "Does a long time mask make them less sure?",
        "SELECT (time_end_ms - time_start_ms) // 480 * 480 AS masked_ms, count(*) AS views, "
        "round(avg(top1_probability), 3) AS top1 FROM views GROUP BY masked_ms ORDER BY masked_ms",
    ),
)


@dataclass(frozen=True, kw_only=True)
class _Demo(Options):
    out: Annotated[
        str,
        Option("The folder to write; a demo that is there is made anew.", group="Output", short="o", metavar="DIR"),
    ] = "demo"
    seed: Annotated[int, Option("Another seed gives other sounds.", group="Audio")] = 0


@command("demo", _Demo)
def demo_command(options: _Demo) -> None:
    """Do the whole job on a small set of synthetic sound events: teachers, store, SQL, students, one table.

    \b
    Example:
      logitstore demo --out demo --seed 1
    """
    from logitstore.jobs.synth import write_scenes

    began, seed = time.monotonic(), options.seed
    root = _fresh(Path(options.out))
    echo(f"# {_TRAIN + _TEST} clips of {_SECONDS:g} s, {_CLASSES} classes of synthetic sounds, in {root}/audio")
    write_scenes(root, clips=_TRAIN, test_clips=_TEST, classes=_CLASSES, seconds=_SECONDS, seed=seed)
    manifest, audio, store = str(root / "scenes.csv"), str(root / "audio"), str(root / "store")

    echo("\n# three small teachers, trained on labels: the only step that reads any")
    for number, (name, model_args) in enumerate(_TEACHERS):
        _run(
            "train-teacher", manifest, "--audio-root", audio, "--label-column", "labels", "--where", "split = 'train'",
            "--model", "cnn4", *_model_args(model_args), "--steps", "500", "--seed", str(10 * seed + number),
            "--out", str(root / name),
        )  # fmt: skip

    echo(f"\n# what they say of {_VIEWS} views of every clip")
    teachers = [part for name, _ in _TEACHERS for part in ("--teacher", str(root / name))]
    _run(
        "logitstore", "build", manifest, "--audio-root", audio, "--where", "split = 'train'", "--out", store, *teachers,
        "--clip-seconds", f"{_SECONDS:g}", "--views", str(_VIEWS), "--seed", str(seed),
    )  # fmt: skip

    for question, sql in _QUESTIONS:
        echo(f"\n# {question}")
        _run("logitstore", "inspect", store, sql)

    echo("\n# a student that hears what the teachers heard, and one that hears something else; no labels")
    for name, flags in (("student", ()), ("student-inconsistent", ("--inconsistent",))):
        _run(
            "train-student", store, "--audio-root", audio, "--student", "cnn4", *_model_args(_STUDENT),
            "--epochs", "20", "--seed", str(seed), *flags, "--out", str(root / name),
        )  # fmt: skip

    echo("\n# mAP on the clips that nobody has learnt from")
    echo(_table(manifest, audio, root))
    echo(f"\n# done in {time.monotonic() - began:.0f} s")
    next_steps(
        f"logitstore look {shlex.quote(store)}",
        f"logitstore serve {shlex.quote(store)} --audio-root {shlex.quote(audio)}",
        f"logitstore inspect {shlex.quote(store)} @",
    )


def _table(manifest: str, audio: str, root: Path) -> str:
    from logitstore.jobs.evaluate import evaluate
    from logitstore.jobs.options import EvaluateOptions
    from logitstore.store.reader import open_store

    def scores(*specs: str) -> Any:
        return evaluate(
            EvaluateOptions(
                manifest=manifest, teachers=specs, label_column="labels", audio_root=audio, where="split = 'test'"
            )
        )

    teachers = scores(*(str(root / name) for name, _ in _TEACHERS))
    rows = [(Path(spec).name, metrics.mAP) for spec, metrics in teachers.members]
    rows.append(("ensemble", teachers.ensemble.mAP))
    for label, name in (("student, consistent", "student"), ("student, inconsistent", "student-inconsistent")):
        rows.append((label, scores(str(root / name)).members[0][1].mAP))
    store = open_store(root / "store")
    lines = [f"{label:24}{value:8.3f}" for label, value in rows]
    lines.append(f"{'bytes a view':24}{store.size() / store.view_count():8.1f}")
    return in_lines(lines)


def _run(program: str, *arguments: str) -> None:
    """Show a command and run it, in this process."""
    from logitstore.cli.main import cli
    from logitstore.cli.train_student import train_student_command
    from logitstore.cli.train_teacher import train_teacher_command

    programs = {"logitstore": cli, "train-student": train_student_command, "train-teacher": train_teacher_command}
    echo(f"\n$ {program} {shlex.join(arguments)}")
    with part_of_more():
        programs[program].main(args=list(arguments), prog_name=program, standalone_mode=False)


def _model_args(pairs: tuple[str, ...]) -> list[str]:
    return [part for pair in pairs for part in ("--model-arg", pair)]


def _fresh(root: Path) -> Path:
    if root.exists() and any(root.iterdir() if root.is_dir() else [root]):
        if not (root / _MARK).is_file():
            raise UsageError(f"{root} exists and no demo made it; choose another --out")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / _MARK).touch()
    return root
