"""What every training can be asked, whatever it learns from. Torch is not imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from logitstore.errors import RunError
from logitstore.models.registry import POOL, names
from logitstore.options import (
    BATCH_SIZE,
    OUT,
    AudioCacheOptions,
    Device,
    Optimizer,
    Option,
    Precision,
    Workers,
    key_values,
)
from logitstore.training.schedule import FLOOR, WARM_UP_SHARE, WEIGHT_DECAY, default_warm_up

if TYPE_CHECKING:
    from logitstore.training.loop import FitOptions

_MOST_LR = 1e30  # beyond any use; much above it float32 overflows within AdamW

#: Options that change nothing in what is learned.
INDIFFERENT = ("workers", "cache_mib", "audio_cache", "audio_cache_size", "checkpoint_every", "tensorboard")

NET = Option(
    f"The net to train: {', '.join(names())}, or python:MODULE:FACTORY.", group="Model", metavar="NAME", names="net"
)
Net = Annotated[str, NET]
ModelArgs = Annotated[
    Mapping[str, Any],
    Option(
        "An argument of the net, as width=16. Repeatable.",
        group="Model", flag="model-arg", metavar="K=V", parse=key_values,
    ),
]  # fmt: skip
Run = Annotated[str, OUT.but(help="The run folder to write.", metavar="RUN")]
EPOCHS = Option("How many epochs to train for.", group="Training", metavar="N", least=1, instead="steps")
EVAL_EVERY = Option("Measure every so many epochs, and at the end.", group="Evaluation", metavar="N", least=1)


@dataclass(frozen=True, kw_only=True)
class LoopOptions(AudioCacheOptions):
    """How a training goes, whatever it learns from; None means the default that data or model suggest."""

    error: ClassVar[type[RunError]] = RunError
    unset_by_0: ClassVar[tuple[str, ...]] = ("epoch_steps",)

    pool: Annotated[
        Literal["mean", "max", "attention", "multi-attention", "feature-attention", "cnn14-attention"] | None,
        Option("How the net pools its frames to logits, the same as --model-arg pool=NAME.", group="Model",
               default="the net's own head"),
    ] = None  # fmt: skip
    epochs: Annotated[int | None, EPOCHS] = None
    steps: Annotated[
        int | None,
        Option("How many steps to train for, in place of --epochs.", group="Training", metavar="N", least=1,
               instead="epochs"),
    ] = None  # fmt: skip
    epoch_steps: Annotated[
        int | None,
        Option(
            "How many steps make an epoch; 0 for each view once.",
            group="Training",
            metavar="N",
            least=0,
            default="each view once",
        ),
    ] = None
    batch_size: Annotated[int, BATCH_SIZE.but(help="How many clips make a step.", group="Training")] = 32
    accumulate: Annotated[
        int,
        Option("Compute a step's batch in so many parts, one after the other, which takes less memory.",
               group="Training", metavar="N", least=1),
    ] = 1  # fmt: skip
    lr: Annotated[
        float | None,
        Option("The highest learning rate.", group="Training", metavar="X", above=0, most=_MOST_LR,
               default="the net's own, between 2e-4 and 1e-2"),
    ] = None  # fmt: skip
    warm_up: Annotated[
        int | None,
        Option("Over so many steps the learning rate rises from 0 to its highest.", group="Training", metavar="N",
               least=0, default=f"{WARM_UP_SHARE:.0%} of all steps, at most 5,000"),
    ] = None  # fmt: skip
    floor: Annotated[
        float | None,
        Option("The learning rate at the end of the cosine, as a share of the highest.", group="Training",
               metavar="SHARE", least=0, most=1, default=f"{FLOOR:g}"),
    ] = None  # fmt: skip
    cosine: Annotated[
        Literal["rest", "all"],
        Option("How many steps the cosine takes: the rest after the warm-up, or as many as there are in all, so that "
               "the training ends a little before it, as CED's does.", group="Training"),
    ] = "rest"  # fmt: skip
    optimizer: Annotated[
        Optimizer,
        Option("The optimizer: adamw, whose decay is apart from the gradients; adam, whose decay is added to them; "
               "adam8bit, adamw with moments of 8 bits, which need a quarter of their memory (extra `adam8bit`).",
               group="Training"),
    ] = "adamw"  # fmt: skip
    weight_decay: Annotated[
        float | None,
        Option("How much weights shrink in a step, as a share of the learning rate; biases, norms and position "
               "embeddings never do.", group="Training", metavar="X", least=0, most=1,
               default=f"{WEIGHT_DECAY:g} with adamw, 0 with the others"),
    ] = None  # fmt: skip
    precision: Annotated[
        Precision,
        Option("The number format that the net computes in; bf16 and fp16 are faster on a GPU, and keep the weights "
               "in float32.", group="Running"),
    ] = "float32"  # fmt: skip
    clip_norm: Annotated[
        float | None,
        Option("Scale gradients down where their norm, over all weights, is larger than this.", group="Training",
               metavar="X", above=0, default="never"),
    ] = None  # fmt: skip
    ema: Annotated[
        float | None,
        Option("Measure and keep a moving average of the weights with this decay, as 0.999.", group="Training",
               metavar="DECAY", above=0, below=1, default="none"),
    ] = None  # fmt: skip
    freeze_bn: Annotated[
        bool, Option("Keep the statistics of BatchNorm layers as they are at the start.", group="Training")
    ] = False
    eval_every: Annotated[int | None, EVAL_EVERY] = None
    checkpoint_every: Annotated[
        int | None,
        Option("Save where the training is every so many steps, so that a killed run goes on from there.",
               group="Running", metavar="N", least=1, default="at the end of every epoch"),
    ] = None  # fmt: skip
    tensorboard: Annotated[
        bool, Option("Write RUN/tensorboard too; needs the extra `tensorboard`.", group="Output")
    ] = False
    seed: Annotated[
        int,
        Option("Another seed gives other first weights, another order, other dropout.", group="Training", least=0,
               most=(1 << 63) - 1),
    ] = 0  # fmt: skip
    device: Device = "auto"
    workers: Workers = None
    cache_mib: Annotated[
        int, Option("Decoded audio to keep in memory, in MiB, for each set of clips.", group="Running", least=0)
    ] = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pool is not None:  # kept as what it stands for, so that a run folder knows one word for it
            object.__setattr__(self, "model_args", {**self.net_args, POOL: self.pool})
            object.__setattr__(self, "pool", None)
        for name in self.unset_by_0:  # which says no to a preset, and otherwise nothing
            if getattr(self, name) == 0:
                object.__setattr__(self, name, None)

    @property
    def net_args(self) -> Mapping[str, Any]:
        """The arguments of the net, which each kind of training declares."""
        args: Mapping[str, Any] = getattr(self, "model_args", {})
        return args

    @property
    def run_folder(self) -> str:
        """The folder that the run is written to, which each kind of training declares."""
        return str(getattr(self, "out", ""))

    @property
    def cache_bytes(self) -> int:
        """Decoded audio to keep in memory, in bytes."""
        return self.cache_mib << 20

    def fitting(self, **more: Any) -> FitOptions:
        """The part of the options that the loop takes; those that were None are resolved by now."""
        from logitstore.training.loop import FitOptions

        names = (
            "steps", "lr", "seed", "device", "warm_up", "floor", "cosine", "optimizer", "weight_decay", "precision",
            "accumulate", "clip_norm", "ema", "freeze_bn", "checkpoint_every",
        )  # fmt: skip
        return FitOptions(**{name: getattr(self, name) for name in names}, **more)


def steps_of(views: int, options: LoopOptions) -> int:
    """Number of steps of an epoch over so many views."""
    from logitstore.training.sampling import epoch_steps

    return options.epoch_steps or epoch_steps(views, options.batch_size)


def warm_up_of(options: LoopOptions, steps: int, share: float) -> int:
    """Steps of warm-up of a training of so many steps.

    :param share: of the steps, where the options say nothing.
    :raises RunError: they are more, so that the highest rate would never be reached.
    """
    if options.warm_up is None:
        return default_warm_up(steps, share)
    if options.warm_up > steps:
        raise RunError(f"--warm-up is {options.warm_up} steps and the training has {steps}; give at most as many")
    return options.warm_up


def check_loop(options: LoopOptions) -> None:
    """Refuse options that do not go together in any training.

    :raises RunError: naming them.
    """
    if options.accumulate > options.batch_size:
        raise RunError(
            f"--accumulate {options.accumulate} asks for more parts than --batch-size {options.batch_size} has clips"
        )


def check_processes(clips: int, processes: int) -> None:
    """Refuse batches that are too small for each process to get a clip of everyone.

    :param clips: of the smallest batch.
    :raises RunError: they are.
    """
    if processes > 1 and clips < 2 * processes - 1:
        raise RunError(
            f"{processes} processes share each batch, and the smallest has {clips} clips; give a --batch-size of which "
            f"every batch has at least {2 * processes - 1}, or start fewer processes"
        )
