"""Notes: what a user should know of what was asked, and that is no error. A command prints them to stderr."""

from __future__ import annotations

import logging

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
