"""A part of a large store a night: which blocks are next, and what has been checked so far, in a file beside the store.

The blocks of a store are gone through in their order, a part at a run, and from the start again after the last. A run
that is interrupted is gone on with. Blocks that were found damaged are looked at in every run until they are sound.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from logitstore.errors import UsageError
from logitstore.files import write_whole
from logitstore.store.format.commits import Commit
from logitstore.store.storage import is_url

_SAMPLE = re.compile(r"(?P<share>\d+(\.\d+)?)\s*%|(?P<blocks>\d+)")


class State(msgspec.Struct, forbid_unknown_fields=True):
    """What has been checked of a store: up to the block ``after``, with ``left`` blocks to go in a run that was
    interrupted; ``round`` counts how often the store was begun from its start; ``damaged`` names blocks."""

    manifest: str
    after: tuple[int, int] | None = None
    left: int = 0
    round: int = 1
    damaged: list[str] = msgspec.field(default_factory=list)


class Sample:
    """The part of this run.

    :param size: "1%" of the blocks, or a number of them. :param file: where the state is kept.
    :raises UsageError: a size that is none, or a file that cannot be used.
    """

    def __init__(self, size: str, file: str, store: str, manifest: str) -> None:
        match = _SAMPLE.fullmatch(size.strip())
        self.share = float(match["share"]) / 100 if match and match["share"] else None
        self.count = int(match["blocks"]) if match and match["blocks"] else None
        if (self.share is not None and not 0 < self.share <= 1) or match is None or self.count == 0:
            raise UsageError(f"--sample {size!r} is no part of a store; give a share, as 1%, or a number of blocks")
        self.file = Path(file)
        if not is_url(store) and self.file.resolve().is_relative_to(Path(store).resolve()):
            raise UsageError(f"--state {file} lies in the store; give a file beside it")
        self.state = self._read(manifest)
        self.blocks: dict[str, tuple[int, int]] = {}
        self.done = 0
        self.begun = 0

    def _read(self, manifest: str) -> State:
        try:
            state = msgspec.json.decode(self.file.read_bytes(), type=State)
        except FileNotFoundError:
            return State(manifest)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"--state {self.file} cannot be read ({error}); give another, or remove it") from error
        if state.manifest != manifest:
            raise UsageError(f"--state {self.file} is of another store; give one file for each store")
        return state

    def choose(self, committed: Sequence[Commit]) -> set[str]:
        """The names of the blocks of this run."""
        self.blocks = {commit.name: (commit.shard, commit.view_start) for commit in committed}
        state, total = self.state, len(self.blocks)
        ahead = [name for name, place in self.blocks.items() if state.after is None or place > state.after]
        if not ahead and total:
            state.after, state.left, state.round = None, 0, state.round + 1
            ahead = list(self.blocks)
        if not state.left:
            state.left = self.count if self.count is not None else math.ceil(total * (self.share or 1))
        state.left = min(state.left, len(ahead))
        self.begun = total - len(ahead)
        state.damaged = [name for name in state.damaged if name in self.blocks]
        return {*ahead[: state.left], *state.damaged}

    def checked(self, name: str, sound: bool) -> None:
        """Remember that a block was checked."""
        state, place = self.state, self.blocks[name]
        if sound == (name in state.damaged):
            (state.damaged.remove if sound else state.damaged.append)(name)
        if state.left and (state.after is None or place > state.after):
            state.after, state.left, self.done = place, state.left - 1, self.done + 1
        try:
            write_whole(self.file, msgspec.json.encode(state))
        except OSError as error:
            raise UsageError(f"--state {self.file} cannot be written: {error.strerror}; give another file") from error

    def render(self) -> str:
        """What was covered so far, in words."""
        total, covered = len(self.blocks), self.begun + self.done
        share = 100 * covered / total if total else 100.0
        which = f"blocks {self.begun + 1:,} to {covered:,}" if self.done else "no block"
        return f"{which} of {total:,}; {share:.1f} % covered in round {self.state.round:,}"
