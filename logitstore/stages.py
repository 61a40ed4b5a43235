"""What the stages of a job take, added up over its threads: where its time goes, and what it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stages:
    """Seconds of each stage by its name, on the clock and of a processor. Safe to share between threads.

    A stage that is timed within another of the same thread counts for both.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.processor: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, stage: str, seconds: float, processor: float) -> None:
        """Count seconds for a stage: on the clock, and of a processor."""
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            self.processor[stage] = self.processor.get(stage, 0.0) + processor

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        """What is done within counts for a stage; of a processor, what this thread does alone."""
        began, busy = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - began, time.thread_time() - busy)
