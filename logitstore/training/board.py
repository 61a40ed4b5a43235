"""TensorBoard, for ``--tensorboard``: what the log says, as curves. The package is imported when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from logitstore.errors import MissingExtraError

FOLDER = "tensorboard"

_AXES = ("event", "step", "epoch", "clips", "view")


class Board:
    """Writes the records of a training's log into ``RUN/tensorboard``.

    :param done: steps of the checkpoint that the training goes on from; what was written of later ones is hidden.
    :raises MissingExtraError: the package is not installed.
    """

    def __init__(self, run: Path, done: int) -> None:
        self._writer: Any = _writer_class()(str(run / FOLDER), purge_step=done or None)

    def record(self, record: dict[str, Any]) -> None:
        """A record of the log: its losses, metrics and learning rate by step."""
        for name, value in record.items():
            if name not in _AXES and isinstance(value, int | float) and not isinstance(value, bool):
                self._writer.add_scalar(f"{record['event']}/{name}", value, record.get("step", 0))

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


def require() -> None:
    """Refuse to begin without TensorBoard.

    :raises MissingExtraError: the package is not installed.
    """
    _writer_class()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingExtraError("tensorboard", "tensorboard", "--tensorboard") from error
    return SummaryWriter
