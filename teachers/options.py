"""What ``train-teacher`` can be asked. Torch is not imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from logitstore.models.registry import names
from logitstore.options import (
    CLASSES,
    EVAL_WHERE,
    AudioRoot,
    ClipSeconds,
    ColumnOptions,
    LabelColumn,
    Labels,
    LabelSeparator,
    Level,
    Option,
    Where,
)
from logitstore.training.options import EPOCHS, EVAL_EVERY, LoopOptions, ModelArgs, Run


@dataclass(frozen=True, kw_only=True)
class TeacherOptions(LoopOptions, ColumnOptions):
    """What ``train-teacher`` is asked; None means the default that the data or the model suggests."""

    manifest: Annotated[
        str,
        Option("A table of labelled audio: CSV, TSV, JSON lines or Parquet.", argument=True, names="source"),
    ]
    model: Annotated[
        str,
        Option(
            f"The net to train: {', '.join(names())}, or python:MODULE:FACTORY; and, around the one of a trained RUN "
            f"(--model-arg of=RUN), {', '.join(names('TEACHERS'))}.",
            group="Model",
            metavar="NAME",
            names="teacher net",
        ),
    ]
    out: Run
    label_column: LabelColumn = None
    labels: Labels = None
    level: Level = None
    label_separator: LabelSeparator = None
    audio_root: AudioRoot = None
    model_args: ModelArgs = field(default_factory=dict)
    where: Where = None
    classes: Annotated[
        str | None,
        CLASSES.but(
            help="A file with the names of the classes, one a line.",
            group="Audio",
            default="the labels, sorted by name",
        ),
    ] = None
    scores: Annotated[
        Literal["sigmoid", "softmax"],
        Option("What the net gives: sigmoid, for any number of labels a row, or softmax, for exactly one.",
               group="Model"),
    ] = "sigmoid"  # fmt: skip
    recipe: Annotated[
        str | None,
        Option("How clips are augmented in training: ced, none, or a YAML file.", group="Audio", metavar="NAME|FILE",
               names="recipe", default="roll, gain of ±6 dB, a time and a frequency mask"),
    ] = None  # fmt: skip
    clip_seconds: ClipSeconds = None
    eval_where: Annotated[
        str | None,
        EVAL_WHERE.but(help="Measure mAP on the rows for which this SQL condition holds.", default="do not measure"),
    ] = None
    epochs: Annotated[int | None, EPOCHS.but(default="10, or as many as make 400 steps")] = None
    eval_every: Annotated[int | None, EVAL_EVERY.but(default="five times in all")] = None
