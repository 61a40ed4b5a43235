"""Options of the commands that train, which ``train-student`` and ``train-teacher`` share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

PRECISIONS = ("float32", "bf16", "fp16")  # as logitstore.training.precision has them, which imports torch

_OPTIONS = (
    click.option("--steps", type=int, help="Number of steps, instead of --epochs."),
    click.option("--epoch-steps", type=int, metavar="N", help="Steps an epoch.  [default: each view once]"),
    click.option("--batch-size", type=int, default=32, show_default=True, help="Clips a step."),
    click.option(
        "--accumulate",
        type=int,
        default=1,
        show_default=True,
        metavar="N",
        help="A step's batch in N parts: less memory.",
    ),
    click.option(
        "--lr",
        type=float,
        help="Highest learning rate.  [default: cnn4, mobile 5e-3; ced-small, -base 3e-4; others 1e-3]",
    ),
    click.option("--warm-up", type=int, metavar="STEPS", help="[default: a tenth of all steps, at most 5,000]"),
    click.option(
        "--floor", type=float, default=0.01, show_default=True, help="Last learning rate, a share of the highest."
    ),
    click.option("--clip-norm", type=float, metavar="X", help="The most that the norm of all gradients may be."),
    click.option(
        "--ema", type=float, metavar="DECAY", help="Measure and keep weights averaged with this decay, as 0.999."
    ),
    click.option(
        "--freeze-bn", is_flag=True, help="BatchNorm layers use and keep the statistics that they start with."
    ),
    click.option(
        "--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True, help="bf16, fp16: mixed."
    ),
    click.option(
        "--checkpoint-every", type=int, metavar="STEPS", help="Beside the ends of epochs, where a killed run goes on."
    ),
    click.option("--tensorboard", is_flag=True, help="Write RUN/tensorboard too (needs the extra of that name)."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of weights, order, dropout and fresh draws."),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option("--workers", type=int, help="Decoding threads.  [default: the number of cores]"),
    click.option(
        "--cache-mib",
        type=int,
        default=1024,
        show_default=True,
        help="Decoded audio to keep in memory, for each set of clips.",
    ),
    click.option("--config", metavar="FILE", help="Options in YAML, as every run's config.yaml; those given here win."),
)


def loop_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the shared options to a command, after its own."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
