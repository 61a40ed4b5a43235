"""Work done a little ahead of its use: clips decoded by a pool, whatever else by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import nullcontext
from typing import TypeVar

from logitstore.arrays import F32
from logitstore.audio.clips import ClipAudio
from logitstore.errors import AudioError
from logitstore.stages import Stages

DECODE = "decode"  # a stage
Item = TypeVar("Item")


def decoded_ahead(
    audio: ClipAudio, clips: Iterable[int], pool: Executor | None, ahead: int, stages: Stages | None = None
) -> Generator[tuple[int, F32 | AudioError], None, None]:
    """Clips in the order asked for, each decoded a little before its use; one that cannot be is given as its error.

    :param clips: their numbers. :param pool: decodes them side by side; one after the other, when used, without one.
    :param ahead: how many clips at most are decoded, or waiting to be, beyond the one that is used.
    :param stages: told what it takes, as ``decode``.
    :returns: pairs of a clip's number and its samples, float32 (n,), or why there are none.
    """

    def attempt(clip: int) -> F32 | AudioError:
        try:
            with nullcontext() if stages is None else stages.of(DECODE):
                return audio[clip]
        except AudioError as error:
            return error

    if pool is None:
        for clip in clips:
            yield clip, attempt(clip)
        return
    pending: deque[tuple[int, Future[F32 | AudioError]]] = deque()
    try:
        for clip in clips:
            pending.append((clip, pool.submit(attempt, clip)))
            if len(pending) > ahead:
                first, future = pending.popleft()
                yield first, future.result()
        while pending:
            first, future = pending.popleft()
            yield first, future.result()
    finally:
        for _, future in pending:
            future.cancel()


class Prefetched(Iterator[Item]):
    """The same items, made by a thread of their own up to ``depth`` ahead; errors come out where the item would.

    The thread is at work from the beginning, and until :meth:`close`.
    """

    def __init__(self, items: Iterator[Item], depth: int = 3) -> None:
        self._items = items
        self._ready: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(depth)
        self._stopped, self._ended = threading.Event(), False
        self._producer = threading.Thread(target=self._produce, name="batches", daemon=True)
        self._producer.start()

    def __next__(self) -> Item:
        if self._ended:
            raise StopIteration
        more, entry = self._ready.get()
        if more:
            return entry  # type: ignore[return-value]
        self._ended = True
        if isinstance(entry, BaseException):
            raise entry
        raise StopIteration

    def close(self) -> None:
        """End the thread, after the item that it is at."""
        self._stopped.set()
        self._ended = True
        self._producer.join()

    def _put(self, more: bool, entry: Item | BaseException | None) -> None:
        while not self._stopped.is_set():
            try:
                self._ready.put((more, entry), timeout=0.1)
            except queue.Full:
                continue
            return

    def _produce(self) -> None:
        try:
            for item in self._items:
                self._put(True, item)
                del item  # which may be all that holds a buffer
                if self._stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - handed over to the consumer, whatever it is
            self._put(False, error)
        else:
            self._put(False, None)
        finally:
            close = getattr(self._items, "close", None)
            if close is not None:
                close()
