"""Work done a little ahead of its use: clips decoded by a pool, whatever else by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor, Future
from typing import TypeVar

from logitstore.arrays import F32
from logitstore.audio.clips import ClipAudio
from logitstore.errors import AudioError

Item = TypeVar("Item")


def decoded_ahead(
    audio: ClipAudio, clips: Iterable[int], pool: Executor | None, ahead: int
) -> Generator[tuple[int, F32 | AudioError], None, None]:
    """Clips in the order asked for, each decoded a little before its use; one that cannot be is given as its error.

    :param clips: their numbers. :param pool: decodes them side by side; one after the other, when used, without one.
    :param ahead: how many clips at most are decoded, or waiting to be, beyond the one that is used.
    :returns: pairs of a clip's number and its samples, float32 (n,), or why there are none.
    """

    def attempt(clip: int) -> F32 | AudioError:
        try:
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


def prefetched(items: Iterator[Item], depth: int = 3) -> Generator[Item, None, None]:
    """The same items, made by a thread of their own up to ``depth`` ahead; errors come out where the item would."""
    ready: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(more: bool, entry: Item | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put((more, entry), timeout=0.1)
            except queue.Full:
                continue
            return

    def produce() -> None:
        try:
            for item in items:
                put(True, item)
                if stopped.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - handed over to the consumer, whatever it is
            put(False, error)
        else:
            put(False, None)

    producer = threading.Thread(target=produce, name="batches", daemon=True)
    try:
        producer.start()  # within: an interrupt right after it ends the thread too
        while True:
            more, entry = ready.get()
            if isinstance(entry, BaseException):
                raise entry
            if not more:
                return
            yield entry  # type: ignore[misc]
    finally:
        stopped.set()
        if producer.ident is not None:
            producer.join()
