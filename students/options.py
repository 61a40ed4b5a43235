"""What ``train-student`` can be asked, and which of it goes together. Torch is not imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from logitstore.audio.sonyc import column_for
from logitstore.errors import RunError
from logitstore.options import (
    CLIPS,
    EVAL,
    EVAL_WHERE,
    LABEL_SEPARATOR,
    LABELS,
    LEVEL,
    STORE_WEIGHT,
    VERDICTS,
    Level,
    Option,
    Stores,
    StoreWeights,
    filling,
)
from logitstore.training.options import EPOCHS, EVAL_EVERY, NET, LoopOptions, ModelArgs, Net, Run, check_loop
from students import presets
from students.terms import SIMILARITIES, names, selected, weighed

#: The share of files that is held out where --hold-out is not given.
DEFAULT_HOLD_OUT = 0.05
NOTHING_TO_EVALUATE = "--eval-every says how often to evaluate, and there is no --eval MANIFEST and nothing is held out"


@filling
@dataclass(frozen=True, kw_only=True)
class StudentOptions(LoopOptions):
    """What ``train-student`` is asked; None means the default that the store or the model suggests.

    ``similarity`` is kept as the ``terms`` that it is short for.

    Several ``store``, and ``also``, are read as one: those of the same clips, seed and recipe as an ensemble.
    ``audio_root`` is one for all, or one for each in their order.
    ``terms`` are further ones of the loss, as ``NAME=W``. ``preset`` gives those that are not given, ``student`` too.
    """

    unset_by_0: ClassVar[tuple[str, ...]] = ("epoch_steps", "mixup", "patience", "average_best")

    store: Stores
    audio_root: Annotated[
        str | Sequence[str],
        Option("The audio that the store was built from; of several stores one for all, or one for each in their "
               "order.", group="Audio", metavar="DIR", names="audio", many=True),
    ]  # fmt: skip
    student: Annotated[Net, NET.but(help=f"{NET.help} A preset names its own.")]
    out: Run
    preset: Annotated[
        str | None,
        Option(f"Train as was published: {', '.join(presets.names())}. Short for values of other options, which win "
               "where they are given.", group="Training", metavar="NAME", short_for=True, default="none"),
    ] = None  # fmt: skip
    also: Annotated[
        Sequence[str],
        Option("Another store to learn from, as if both were one. Repeatable.", group="Audio", metavar="STORE",
               names="store"),
    ] = ()  # fmt: skip
    store_weights: Annotated[StoreWeights, STORE_WEIGHT.but(group="Audio")] = None
    model_args: ModelArgs = field(default_factory=dict)
    init: Annotated[
        str | None,
        Option("Start from these weights: ced:FILE, a published checkpoint, or a run folder.", group="Model",
               metavar="SPEC", default="random ones"),
    ] = None  # fmt: skip
    new_head: Annotated[bool, Option("Give the net of --init a new last layer, for other classes.", group="Model")] = (
        False
    )
    where: Annotated[
        str | None,
        Option("Learn only from the clips for which this SQL condition on the table `clips` holds.", group="Audio",
               metavar="SQL"),
    ] = None  # fmt: skip
    clips: Annotated[str | None, CLIPS] = None
    verdicts: Annotated[str | None, VERDICTS] = None
    loss: Annotated[
        Literal["bce", "kl"] | None,
        Option("What brings the student to the targets: binary cross-entropy or Kullback-Leibler divergence.",
               group="Loss", default="bce for sigmoid targets, kl for softmax"),
    ] = None  # fmt: skip
    temperature: Annotated[float, Option("The temperature of the loss kl.", group="Loss", metavar="T", above=0)] = 1.0
    tail: Annotated[
        Literal["stored", "zero", "mean", "half", "random", "uniform"] | None,
        Option("What to take for the probabilities of classes that the store does not hold for a view.", group="Loss",
               default="stored where the store was built with --quality, zero otherwise"),
    ] = None  # fmt: skip
    inconsistent: Annotated[
        bool,
        Option("Hear other augmentations than the teachers did: the comparison that shows what consistency is worth.",
               group="Loss"),
    ] = False  # fmt: skip
    similarity: Annotated[
        Literal["iusp", "sp", "both"] | None,
        Option("Also learn how alike the teachers find frames (iusp) or clips (sp), each at its own weight; needs a "
               "store built with --relations. Short for --term.", group="Loss", default="neither"),
    ] = None  # fmt: skip
    label_weight: Annotated[
        float,
        Option("How much the labels of the store's clips, in --label-column, count beside the targets.", group="Loss",
               metavar="W", least=0),
    ] = 0.0  # fmt: skip
    terms: Annotated[
        Sequence[str],
        Option(f"Add a term to the loss, or change its weight: {', '.join(names())}. Repeatable.", group="Loss",
               flag="term", metavar="NAME=W"),
    ] = ()  # fmt: skip
    label_column: Annotated[
        str | None,
        Option("The column of labels, in the table of --eval and in the store's table `clips`.", group="Evaluation",
               metavar="NAME"),
    ] = None  # fmt: skip
    labels: Annotated[
        Literal["sonyc"] | None,
        LABELS.but(
            help="The labels of a data set as it was released, in place of --label-column: sonyc, of SONYC-UST's "
            "annotations.csv; of the classes of an X nothing is learnt.",
            group="Evaluation",
        ),
    ] = None
    label_separator: Annotated[str | None, LABEL_SEPARATOR.but(group="Evaluation")] = None
    mixup: Annotated[
        float | None,
        Option("Mix the log-mels of a batch in pairs, with shares from Beta(A, A); no teacher has heard the mix. 0 for "
               "no mixing.", group="Loss", metavar="A", least=0, default="no mixing"),
    ] = None  # fmt: skip
    balance: Annotated[
        bool,
        Option("Draw clips so that rare classes come as often as common ones, by what the teachers said.",
               group="Audio", instead="weight_by"),
    ] = False  # fmt: skip
    weight_by: Annotated[
        str | None,
        Option("Draw clips in proportion to this SQL expression over the tables `views` and `clips`.", group="Audio",
               metavar="SQL", instead="balance"),
    ] = None  # fmt: skip
    hold_out: Annotated[
        float | None,
        Option("Do not learn from this share of the audio files, and measure on them how far the student agrees with "
               "its teachers; 0 for none.", group="Evaluation", metavar="SHARE", least=0, below=1,
               default="0.05, less where that is more than 500 clips; none of fewer than 20 files"),
    ] = None  # fmt: skip
    patience: Annotated[
        int | None,
        Option("Stop after so many measurements without a better one; 0 for never.", group="Evaluation", metavar="N",
               least=0, default="train to the end"),
    ] = None  # fmt: skip
    average_best: Annotated[
        int | None,
        Option("Keep the average of the weights at the best so many measurements; 0 for the last, or the best with "
               "--patience.", group="Evaluation",
               metavar="N", least=0, default="the last weights, or the best with --patience"),
    ] = None  # fmt: skip
    select_by: Annotated[
        Literal["loss", "mAP", "sonyc"],
        Option("What makes a measurement better: a lower loss of held-out files, a higher mAP of --eval, or a higher "
               "official micro AUPRC (sonyc, with --eval-measure).", group="Evaluation"),
    ] = "loss"  # fmt: skip
    eval_manifest: Annotated[str | None, EVAL] = None
    eval_audio_root: Annotated[
        str | None,
        Option("What the paths of that table are relative to.", group="Evaluation", metavar="DIR", names="audio",
               default="--audio-root"),
    ] = None  # fmt: skip
    eval_where: Annotated[str | None, EVAL_WHERE] = None
    eval_measure: Annotated[
        Literal["sonyc"] | None,
        Option("Give the official measure of a challenge too: sonyc, of the agreed labels of one split of --eval, "
               "SONYC-UST's annotations.csv.", group="Evaluation", metavar="sonyc"),
    ] = None  # fmt: skip
    eval_split: Annotated[
        Literal["train", "validate", "test"] | None,
        Option("The split that --eval-measure is of.", group="Evaluation", default="validate"),
    ] = None  # fmt: skip
    level: Annotated[
        Level, LEVEL.but(help="The level that --eval-measure sonyc is at, of 8 coarse or 23 fine classes.",
                         group="Evaluation")
    ] = None  # fmt: skip
    epochs: Annotated[
        int | None,
        EPOCHS.but(
            help="How many epochs to train for; epoch e learns from view e of every clip, then from the first again.",
            default="as many as make 600 steps or more, all views alike",
        ),
    ] = None
    eval_every: Annotated[int | None, EVAL_EVERY.but(default="ten times in all")] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.similarity is not None:
            object.__setattr__(self, "terms", (*SIMILARITIES[self.similarity], *self.terms))
            object.__setattr__(self, "similarity", None)

    def column(self, classes: Sequence[str]) -> str | None:
        """The column of labels, of a store's clips and of what is measured on; None where there is none."""
        return column_for(classes) if self.labels or self.eval_measure else self.label_column

    @classmethod
    def filled(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        return presets.filled(values)

    @classmethod
    def today(cls, recorded: dict[str, Any]) -> dict[str, Any]:
        """``similarity`` is short for terms, and ``similarity_weight``, one for all of them, a weight of each.

        Terms that a training recorded have their weights, those without one their own.
        """
        there = dict(recorded)
        weights = [there.pop(key) for key in ("similarity-weight", "similarity_weight") if key in there]
        kinds = SIMILARITIES.get(str(there.get("similarity")), ())
        key = next((each for each in ("term", "terms") if each in there), "terms")
        further = there.get(key) or []
        asked = [further] if isinstance(further, str) else list(further)
        if weights and not (not kinds and weights[0] == 1):  # which was recorded without --similarity too
            if not kinds or not isinstance(weights[0], int | float):
                raise cls.error(
                    "--similarity-weight is no option any more; give each term its own: --term iusp=W --term sp=W"
                )
            kinds = tuple(f"{name}={weights[0]:.12g}" for name in kinds)
        if kinds:
            there |= {"similarity": None, key: [*kinds, *asked]}
        if "terms" in there and all(isinstance(each, str) for each in asked):
            with suppress(RunError):  # what is wrong with them is said where they are used
                there["terms"] = weighed([*kinds, *asked])
        return there

    @property
    def stores(self) -> list[str]:
        """The stores to learn from, also where there is one."""
        return [*([self.store] if isinstance(self.store, str) else self.store), *self.also]

    @property
    def audio_roots(self) -> list[str]:
        """The audio roots, also where there is one."""
        return [self.audio_root] if isinstance(self.audio_root, str) else list(self.audio_root)

    @property
    def weights(self) -> dict[str, float]:
        """The terms of the loss and their weights; see :func:`students.terms.selected`."""
        return selected(self.terms, label_weight=self.label_weight)


def check_student(options: StudentOptions) -> None:
    """Refuse options that do not go together, whatever the store holds.

    :raises RunError: naming the option.
    """
    check_loop(options)
    if options.new_head and options.init is None:
        raise RunError("--new-head makes the head of a checkpoint anew, and there is no --init SPEC")
    if "labels" in options.weights and options.label_column is None and options.labels is None:
        asked = "--label-weight" if options.label_weight else "--term labels"
        raise RunError(f"{asked} is given without --label-column; name the column of the store's clip table")
    if options.verdicts is not None and "labels" not in options.weights:
        raise RunError("--verdicts corrects the labels of --label-weight, and none is given; --clips leaves clips out")
    _check_evaluation(options)


def _check_evaluation(options: StudentOptions) -> None:
    selecting = options.patience is not None or options.average_best is not None
    _check_official(options)
    if options.label_separator is not None and options.label_column is None:
        raise RunError("--label-separator says how to read --label-column NAME, and there is none")
    if needs_held_out(options) and options.hold_out == 0:
        remedy = (
            "leave it out" if options.preset is None else f"it is preset {options.preset}'s, so give --hold-out SHARE"
        )
        raise RunError(
            "--patience and --average-best go by the loss of held-out files, and --hold-out 0 leaves none; "
            f"{remedy}, or use --select-by mAP"
        )
    if options.select_by != "loss" and not selecting:
        raise RunError(
            f"--select-by {options.select_by} says what --patience and --average-best go by, and neither is given"
        )
    if options.eval_manifest is None:
        if options.select_by == "mAP" and options.preset is not None:
            raise RunError(
                f"--preset {options.preset} keeps weights by the mAP of labelled audio; give --eval MANIFEST and "
                "--label-column NAME, or --select-by loss --hold-out 0.05 to go by the loss of held-out files"
            )
        if options.select_by != "loss":
            raise RunError(
                f"--select-by {options.select_by} needs labelled audio; give --eval MANIFEST, or use --select-by loss"
            )
        for flag, value in (("--eval-where", options.eval_where), ("--eval-audio-root", options.eval_audio_root)):
            if value is not None:
                raise RunError(f"{flag} says how to evaluate, and there is no --eval MANIFEST")
        if options.eval_every is not None and options.hold_out == 0:
            raise RunError(NOTHING_TO_EVALUATE)
        if (options.label_column or options.labels) and "labels" not in options.weights:
            flag = "--labels" if options.label_column is None else "--label-column"
            raise RunError(f"{flag} is for --eval MANIFEST and --label-weight, and neither is given")
    elif options.eval_audio_root is None and len(options.audio_roots) > 1:
        raise RunError("--eval is given with several audio roots; say with --eval-audio-root which is its own")
    elif options.label_column is None and options.labels is None and options.eval_measure is None:
        raise RunError("--eval is given without --label-column; name the manifest's column of labels")


def _check_official(options: StudentOptions) -> None:
    if options.eval_measure is None:
        if options.select_by == "sonyc":
            raise RunError("--select-by sonyc goes by an official measure; give --eval-measure sonyc too")
        for flag, given in (("--eval-split", options.eval_split), ("--level", options.level)):
            if given is not None:
                raise RunError(f"{flag} is of an official measure; give --eval-measure sonyc too")
        return
    if options.eval_manifest is None:
        raise RunError("--eval-measure sonyc needs labels and audio; give SONYC-UST's annotations.csv as --eval")
    for flag, value in (("--label-column", options.label_column), ("--eval-where", options.eval_where)):
        if value is not None:
            raise RunError(
                f"--eval-measure sonyc takes the agreed labels of --eval-split, and {flag} others; leave it out"
            )


def needs_held_out(options: StudentOptions) -> bool:
    """Whether the loss of held-out clips says which weights are kept."""
    return options.select_by == "loss" and (options.patience is not None or options.average_best is not None)
