"""Streams that can only be decoded from their start on, read at any place.

What was decoded last is kept open, so that clips asked for one after the other cost one pass. A pass that goes on gives
the same bits as one that begins anew, so neither threads nor the order of clips can change a sample.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Generator, Hashable
from threading import Lock

import numpy as np

from logitstore.arrays import F32
from logitstore.errors import AudioError

#: Decoded frames, float32 (n, channels) at a time; an AudioError says why there are no more.
Blocks = Generator[F32, None, None]

_MOST_KEPT = 16
_kept: list[tuple[Hashable, Pass]] = []
_lock = Lock()


def _after_fork() -> None:
    global _lock
    _lock = Lock()
    _kept.clear()  # their files' positions belong to the parent


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _close_all() -> None:
    while _kept:
        _kept.pop()[1].blocks.close()


class Pass:
    """One pass through a stream, from its start to its end."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.at = 0  # the first frame that is still to be had
        self.ahead: list[F32] = []
        self.complaint: str | None = None  # once it has ended: "" or why it breaks off

    def read(self, start: int, length: int) -> tuple[F32, str]:
        """The frames [start, start + length), of which none was read before, and why there are no more after them."""
        stop = start + length
        decoded = self.at + sum(map(len, self.ahead))
        while self.complaint is None and decoded <= stop:  # one more than asked for: a stream that breaks off here
            try:
                block = next(self.blocks)
            except StopIteration:
                self.complaint = ""
            except AudioError as error:
                self.complaint = str(error)
            else:
                self.ahead.append(block)
                decoded += len(block)
                while self.ahead and self.at + len(self.ahead[0]) <= start:
                    self.at += len(self.ahead.pop(0))
        decoded_all = np.concatenate(self.ahead) if self.ahead else np.zeros((0, 1), np.float32)
        frames = decoded_all[max(0, start - self.at) : max(0, stop - self.at)].copy()
        rest = decoded_all[max(0, stop - self.at) :]
        self.at = min(stop, decoded)
        self.ahead = [rest.copy()] if len(rest) else []
        return frames, "" if len(rest) else self.complaint or ""


def from_start(key: Hashable | None, blocks: Callable[[], Blocks], start: int, length: int) -> tuple[F32, str]:
    """Frames of a stream that cannot be sought in.

    :param key: tells the stream from all others, its content included; None where it cannot be kept open.
    :param blocks: opens it anew.
    :returns: float32 (frames read, channels), and why the stream breaks off after them, or "".
    """
    taken = _take(key, start) or Pass(blocks())
    try:
        result = taken.read(start, length)
    except BaseException:
        taken.blocks.close()
        raise
    if key is None:
        taken.blocks.close()
    else:
        with _lock:
            _kept.append((key, taken))
            dropped = [_kept.pop(0)[1] for _ in range(len(_kept) - _MOST_KEPT)]
        for one in dropped:
            one.blocks.close()
    return result


def _take(key: Hashable | None, start: int) -> Pass | None:
    with _lock:
        fitting = [n for n, (of, one) in enumerate(_kept) if of == key and one.at <= start] if key is not None else []
        return _kept.pop(max(fitting, key=lambda n: _kept[n][1].at))[1] if fitting else None
