"""Work done a little ahead of its use, by a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")


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
    producer.start()
    try:
        while True:
            more, entry = ready.get()
            if isinstance(entry, BaseException):
                raise entry
            if not more:
                return
            yield entry  # type: ignore[misc]
    finally:
        stopped.set()
        producer.join()
