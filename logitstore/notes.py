"""Notes: what a user should know of what was asked, and that is no error. A command prints them to stderr."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Where notes go; a command prints what comes here once, and Python prints it to stderr where nobody listens.
LOGGER = logging.getLogger("logitstore")


def note(message: str) -> None:
    """Say one line to the user: what was understood, and what to do if it was meant otherwise."""
    LOGGER.warning("%s", message)


def say(kind: str, message: str) -> None:
    """Say what was understood before something long begins; programs hear it at the level INFO of the logger.

    :param kind: one word for what it is of, as "source"; a command prints it before the message.
    """
    LOGGER.info("%s", message, extra={"kind": kind})


#: What a job is at, how many are done, of how many (None where that is not known).
Listener = Callable[[str, int, "int | None"], None]
_listeners: list[Listener] = []


def doing(what: str, done: int = 0, total: int | None = None) -> None:
    """Say what a long job is at now, beside the views or steps that it counts; nothing where nobody listens.

    :param what: in words, as "opening files"; shown until the job says otherwise or counts on.
    """
    for listener in _listeners[-1:]:
        listener(what, done, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """While it lasts, a listener is told what jobs are at, in the place of the one before."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
