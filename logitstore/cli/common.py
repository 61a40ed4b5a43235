"""What every command shares: one line an error, the right exit code, results to stdout and progress to stderr."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import click
from rich.console import Console

from logitstore.errors import LogitstoreError

#: Progress and notes; results are printed with ``click.echo``.
stderr = Console(stderr=True, highlight=False)

INTERRUPTED = 130
_KEPT = "interrupted; what was finished is kept, and the same command goes on from there"
GOES_ON = "interrupted; the same command goes on from the training's last checkpoint"


def run(command: click.Command, interrupted: str = "interrupted") -> NoReturn:
    """Run a click command as a console script: one clear line instead of a traceback for a user's mistake.

    :param interrupted: what to say of a command that was interrupted.

    Exit codes: 0 done, 1 a failed job, 2 usage, 130 interrupted (Ctrl-C or a terminate signal).
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        command.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail(interrupted, INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except LogitstoreError as error:
        fail(str(error), error.exit_code)
    sys.exit(0)


@contextmanager
def resumable() -> Iterator[None]:
    """Around a job that the same command goes on with: an interrupt says so."""
    try:
        yield
    except KeyboardInterrupt:
        fail(_KEPT, INTERRUPTED)


def fail(message: str, code: int) -> NoReturn:
    """Print one line to stderr and leave."""
    print(f"Error: {message}", file=sys.stderr)
    sandbox = sys.modules.get("logitstore.sql.sandbox")
    if sandbox is not None and sandbox.abandoned():  # a query that does not end would go on while Python cleans up
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    sys.exit(code)


def key_values(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """click callback: ``K=V`` options as a dict; values are parsed as YAML scalars (16 is an int, true a bool)."""
    import yaml

    pairs: dict[str, Any] = {}
    for item in values:
        key, found, value = item.partition("=")
        if not found or not key:
            raise click.BadParameter(f"{item!r} is not of the form NAME=VALUE, as in width=16")
        try:
            pairs[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"{item!r}: the value is not YAML; quote it, as in NAME='\"[\"'") from error
    return pairs
