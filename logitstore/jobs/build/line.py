"""The line that the blocks of a build go along, so that the teachers wait for nothing that is done before or after."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from logitstore.errors import LogitstoreError
from logitstore.jobs.build.block import ENCODE, WAIT_WRITE, WRITE, Ask, Begun, BlockPlan, Gathering, asked
from logitstore.store import claims
from logitstore.store.format import commits
from logitstore.store.format.commits import Commit
from logitstore.store.shards import missing_views
from logitstore.store.writer import StoreWriter
from logitstore.views.render import Renderer

if TYPE_CHECKING:
    import torch

LOST = "the claim of shard {} was lost: this process stood still for longer than it lasts"


@dataclass
class Line:
    """The line that blocks go along: rendered, asked about, encoded and written, each by threads of its own.

    Towards the end of a block the next is begun, under a claim of its own, so that the teachers go on at once; and a
    block is written while they hear the next. At most one is being rendered, one asked about and one written.

    :param views: of every clip. :param ask, at_rates, strict: see :mod:`logitstore.jobs.build.block`.
    :param check: gives what a shard has, and refuses to go on beside blocks that were made of other audio.
    :param advance, failures, note: are told of views, of clips that failed, and what a user should know.
    """

    writer: StoreWriter
    renderer: Renderer
    claimer: claims.Claimer
    views: int
    ask: Ask
    at_rates: Callable[[torch.Tensor], Mapping[int, torch.Tensor]]
    check: Callable[[int], Sequence[Commit]]
    strict: bool
    advance: Callable[[int], None]
    failures: Callable[[int], None]
    note: Callable[[str], None]
    made: int = field(default=0, init=False)  # views

    def run(self, waiting: set[int], own: Collection[int]) -> bool:
        """Make the blocks that some shards lack and that nobody else makes; whether there was anything to do.

        :param waiting: shards; those that need nothing more leave it, and come back where their claim was lost.
        :param own: those of them to make alone, where there are any.
        """
        self._moved = False
        self._written: Future[Commit | None] | None = None
        self._shard = -1
        plans, begun, failed = (
            self._plans(waiting, sorted(waiting & set(own)) or sorted(waiting)),
            list[Begun](),
            list[LogitstoreError](),
        )

        def begin() -> None:
            try:
                plan = next(plans, None)
            except LogitstoreError as error:  # raised once the block that is asked about is written
                failed.append(error)
                return
            if plan is not None:
                begun.append(self._begin(plan))

        with ThreadPoolExecutor(1, "write") as pool:
            try:
                begin()
                while begun:
                    block = begun[0]
                    gathering = asked(block, self.ask, advance=self.advance, ending=begin)
                    del begun[0]
                    last = not begun or begun[0].plan.shard != block.plan.shard
                    self._settle(waiting)
                    self._shard = block.plan.shard
                    self._written = pool.submit(self._write, block.plan, gathering, last)
            finally:
                for each in begun:
                    each.close()
            self._settle(waiting)
        for error in failed:
            raise error
        return self._moved

    def _plans(self, waiting: set[int], turn: Sequence[int]) -> Iterator[BlockPlan]:
        """The blocks of some shards that are missing and that nobody makes; the shards are claimed from here on."""
        stored = commits.spans(self.writer.storage)
        for shard in turn:
            if not missing_views(stored.get(shard, ()), self.views):
                waiting.discard(shard)
                continue
            if not self.claimer.take(shard):
                continue
            self._moved = True
            waiting.discard(shard)
            try:
                missing = missing_views(self.check(shard), self.views)
            except BaseException:
                self.claimer.drop(shard)
                raise
            if not missing:
                self.claimer.drop(shard)
            for start, stop in missing:
                yield BlockPlan(shard, self.writer.clips_of(shard), start, stop)

    def _begin(self, plan: BlockPlan) -> Begun:
        return Begun(
            self.writer.manifest, self.writer.part_of(plan.shard), plan, self.renderer,
            at_rates=self.at_rates, strict=self.strict,
        )  # fmt: skip

    def _write(self, plan: BlockPlan, gathering: Gathering, last: bool) -> Commit | None:
        """Write a block; after the ``last`` one of its shard that goes by its claim is dropped."""
        try:
            with self.renderer.stages.of(ENCODE):
                content = gathering.content()
            with self.renderer.stages.of(WRITE):
                name = commits.block_name(plan.shard, plan.view_start, plan.view_stop)
                return self.writer.write_block(
                    plan.shard, plan.view_start, plan.view_stop, content, f"blocks/{name}",
                    keep=partial(self.claimer.keep, plan.shard),
                )  # fmt: skip
        finally:
            if last:
                self.claimer.drop(plan.shard)

    def _settle(self, waiting: set[int]) -> None:
        """Wait until the block that is being written is there, and count it."""
        if self._written is None:
            return
        with self.renderer.stages.of(WAIT_WRITE):
            written, self._written = self._written.result(), None
        if written is None:
            self.note(f"{LOST.format(self._shard)}; what is missing of it is made again")
            waiting.add(self._shard)
        else:
            self.made += written.stored_views
            self.failures(len(written.failed))
