"""What the listening page shows of a store: documents, sounds and pictures, to be served or written into one file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from logitstore.errors import AudioError, UsageError
from logitstore.jobs.serve.index import NOTHING, Index
from logitstore.jobs.serve.search import Asked, Search
from logitstore.store.clip import StoredClip, StoredView
from logitstore.store.format.manifest import member_names
from logitstore.store.measures import entropy
from logitstore.store.sql.tables import verdicts_table
from logitstore.store.verdicts import VERDICTS, Key, Verdict, Verdicts, agreed, clip_numbers
from logitstore.views.picture import log_mel, png, wav

if TYPE_CHECKING:
    import pyarrow as pa

    from logitstore.store.reader import Store

#: Bytes of sounds and pictures that are kept, the most recently used.
KEPT_BYTES = 64 << 20
_RENDERED = 4  # views at a time
_MOST_SAMPLES = 1 << 27  # of a view that is sent
_TOP = 3  # classes in a row of results
_MOST_CELL = 2000  # characters of a cell of the clip table


class Listening:
    """A store as its listening page has it. Safe to share between threads.

    :param store: opened with its audio. :param index: of the same store. :param verdicts: of its clips; None for a page
        without. :param person: whose page it is.
    """

    def __init__(self, store: Store, index: Index, verdicts: Verdicts | None = None, person: str = "") -> None:
        self.store, self.index, self.verdicts, self.person = store, index, verdicts, person
        self.search = Search(store, index, self._codes, self._verdict_table)
        self._judged = _Judged(index.clips)
        self._reading = threading.Lock()
        self._rendering = threading.BoundedSemaphore(_RENDERED)
        self._kept = _Kept(KEPT_BYTES)
        self._members: OrderedDict[str, Any] = OrderedDict()
        self._failed = {each.clip: each.reason for each in store.failures()}

    # documents

    def store_document(self) -> dict[str, Any]:
        """What the store is, and what can be asked of it."""
        store, manifest = self.store, self.store.manifest
        return {
            "name": Path(store.pieces[0].location.rstrip("/")).name or store.location,
            "location": store.location,
            "clips": len(self.index),
            "views": store.views,
            "stored_views": store.view_count(),
            "classes": list(manifest.classes),
            "columns": list(self.index.columns),
            "members": member_names(manifest) if manifest.keep_members else [],
            "recipe": manifest.recipe.name,
            "ops": [op.name for op in manifest.recipe.ops],
            "sample_rate": manifest.sample_rate,
            "clip_seconds": manifest.clip_seconds,
            "scores": manifest.scores,
            "topk": manifest.topk,
            "questions": [
                {
                    "name": each.name,
                    "asks": each.asks,
                    "tells": each.tells,
                    "parameters": [asdict(one) for one in self.search.parameters(each)],
                    "needs": list(each.needs),
                    "usable": usable,
                }
                for each, usable in self.search.questions()
            ],
            "measures": [
                {"name": each.name, "title": each.title, "descending": each.descending}
                for each in self.index.measures.values()
            ],
            "label_column": self.index.label_column,
            "person": self.person,
            "verdicts_file": "" if self.verdicts is None else str(self.verdicts.file),
            "read_only": self.verdicts is None,
        }

    def results(self, wanted: Asked, offset: int = 0, limit: int = 50) -> dict[str, Any]:
        """A page of the clips that a search finds.

        :raises UsageError: as :class:`~logitstore.jobs.serve.search.Search`.
        """
        found = self.search(wanted)
        probabilities = self.search.of_class(wanted.of_class) if wanted.of_class else None
        rows = self.rows(found.clips[offset : offset + limit])
        if probabilities is not None:
            for row in rows:
                row["probability"] = float(probabilities[row["clip"]])
        return {"total": len(found.clips), "rows": rows, "sql": found.sql, "seconds": round(found.seconds, 4)}

    def rows(self, clips: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
        """What a list of results shows of some clips."""
        import pyarrow as pa

        index, judged = self.index, self._verdicts_by_clip()
        column = index.label_column
        names = ["path", "start", "length", "rate", *([] if column is None else [column])]
        keys = index.clips.select(names).take(pa.array(clips)).to_pylist()
        found = []
        for clip, key in zip(clips.tolist(), keys, strict=True):
            rate = max(key["rate"], 1)
            verdict = self._shown(judged.get(clip, {}))
            found.append(
                {
                    "clip": clip,
                    "path": cell_text(key["path"]),
                    "start_s": key["start"] / rate,
                    "length_s": key["length"] / rate,
                    "label": None if column is None else cell_text(key[column]),
                    "top": self._mean(clip)[:_TOP],
                    "measures": {name: _number(each.values[clip]) for name, each in index.measures.items()},
                    "failed": self._failed.get(clip),
                    "verdict": None if verdict is None else verdict.to_dict(),
                }
            )
        return found

    def clip_document(self, number: int) -> dict[str, Any]:
        """Everything about one clip: its columns, views, mean and verdicts.

        :raises UsageError: there is no such clip.
        """
        with self._reading:
            clip = self.store[number]
            views = [self._view_document(clip, clip.view(view)) for view in clip.views]
            failed = clip.failed
        said = self._verdicts_by_clip().get(number, {})
        own = said.get(self.person)
        column = self.index.label_column
        return {
            "clip": number,
            "path": cell_text(clip.path),
            "start_s": clip.start_s,
            "length_s": clip.length_s,
            "columns": {name: cell_text(value) for name, value in clip.columns.items()},
            "failed": failed,
            "label": None if column is None else cell_text(clip.columns[column]),
            "views": views,
            "mean": [{"class": name, "probability": share} for name, share in self._mean(number)],
            "measures": {name: _number(each.values[number]) for name, each in self.index.measures.items()},
            "verdict": None if own is None else own.to_dict(),
            "verdicts": [each.to_dict() for each in sorted(said.values(), key=lambda each: each.at)],
        }

    def _view_document(self, clip: StoredClip, view: StoredView) -> dict[str, Any]:
        targets, members, manifest = view.targets, self._said_by_members(clip, view.number), self.store.manifest
        rest = None if view.rest is None else np.array(view.rest, np.float32)
        classes = []
        for rank, (name, share) in enumerate(zip(targets.names, targets.probabilities.tolist(), strict=True)):
            of = {member: _number(values[rank]) for member, values in members.items()}
            classes.append({"class": name, "probability": share, "members": of})
        return {
            "view": view.number,
            "parameters": view.parameters,
            "boxes": [vars(box) for box in view.boxes],
            "entropy": float(entropy(targets.probabilities, manifest.scores, rest, len(manifest.classes))),
            "classes": classes,
        }

    def _said_by_members(self, clip: StoredClip, view: int) -> Mapping[str, Any]:
        """What each member said of the classes of a view, (k,) each; nothing where that was not kept."""
        if not self.store.manifest.keep_members:
            return {}
        (block,) = (each for each in clip.blocks if each.view_start <= view < each.view_stop)
        if block.name not in self._members:
            self._members[block.name] = self.store.block_members(block)
            while len(self._members) > 4:
                self._members.popitem(last=False)
        said, names = self._members[block.name], member_names(self.store.manifest)
        row = clip.number - block.first_clip
        return {names[i]: said[i, row, view - block.view_start] for i in self.store.block_teachers(block)}

    def _mean(self, clip: int) -> list[tuple[str, float]]:
        names = self.store.manifest.classes
        each = zip(self.index.classes[clip].tolist(), self.index.probabilities[clip].tolist(), strict=True)
        return [(names[number], share) for number, share in each if number != NOTHING]

    # sounds and pictures

    def sound(self, clip: int, view: int | None) -> bytes:
        """A WAV file of the very samples: of a view as build rendered it, or (None) of the clip before any op.

        :raises UsageError: there is no such clip or view. :raises AudioError: it cannot be decoded.
        """
        return self._kept.get(("wav", clip, view), lambda: wav(self._waveform(clip, view), self._rate))

    def picture(self, clip: int, view: int | None) -> bytes:
        """A PNG of the log-mel; of a view in the colours of its original, so that what is quieter looks quieter.

        :raises UsageError, AudioError: as :meth:`sound`.
        """

        def draw() -> bytes:
            loudest = None if view is None else self._loudest(clip)
            return png(log_mel(self._waveform(clip, view), self._rate), loudest)

        return self._kept.get(("png", clip, view), draw)

    def warm(self) -> None:
        """Import what renders views, so that the first one is not kept waiting for it."""
        import torch  # noqa: F401

        import logitstore.views.mel
        import logitstore.views.render  # noqa: F401

    @property
    def _rate(self) -> int:
        return self.store.manifest.sample_rate

    def _loudest(self, clip: int) -> float:
        def reckon() -> bytes:
            return np.float64(log_mel(self._waveform(clip, None), self._rate).max()).tobytes()

        return float(np.frombuffer(self._kept.get(("loudest", clip, None), reckon), np.float64)[0])

    def _waveform(self, clip: int, view: int | None) -> npt.NDArray[np.float32]:
        if self.store.manifest.place.clip_samples > _MOST_SAMPLES:
            raise AudioError(f"views of {self.store.manifest.clip_seconds:g} s are too long for the page")

        def render() -> bytes:
            with self._reading:
                found: StoredClip | StoredView = self.store[clip]
                if isinstance(found, StoredClip) and view is not None:
                    found = found.view(view)
                    found.draw  # noqa: B018 - it is read here, and what follows can go on beside others
            with self._rendering:
                try:
                    return np.ascontiguousarray(found.waveform, np.float32).tobytes()
                except (OSError, MemoryError) as error:
                    raise AudioError(f"clip {clip} cannot be decoded: {error}") from error

        return np.frombuffer(self._kept.get(("samples", clip, view), render), np.float32)

    # verdicts

    def give(self, clip: int, verdict: str | None, note: str, label: str | None) -> Verdict | None:
        """Write this person's verdict on a clip; None takes it away.

        :raises UsageError: no such clip or verdict, a page without verdicts, an unknown label.
        """
        if not 0 <= clip < len(self.index):
            raise UsageError(f"clip {clip} is not in {self.store.location}; it has clips 0 to {len(self.index) - 1}")
        (key,) = self.index.clips.select(["path", "start", "length", "rate"]).slice(clip, 1).to_pylist()
        of = (key["path"], key["start"], key["length"])
        return self._writable().give(self.person, of, max(key["rate"], 0), verdict, label, note)

    def undo(self) -> tuple[int | None, Verdict | None]:
        """Take back this person's last verdict; gives the clip (None where it is not of this store) and what is now.

        :raises UsageError: there is nothing to undo, or the page is without verdicts.
        """
        key, now = self._writable().undo(self.person)
        return next(iter(clip_numbers(self.index.clips, [key])), None), now

    def counts(self) -> dict[str, int]:
        """How many clips of this store have which verdict, as this person sees them."""
        codes = self._codes()
        return {verdict: int((codes == code).sum()) for code, verdict in enumerate(VERDICTS)}

    def _writable(self) -> Verdicts:
        if self.verdicts is None:
            raise UsageError("this page takes no verdicts: it was started with --read-only")
        return self.verdicts

    def _shown(self, said: Mapping[str, Verdict]) -> Verdict | None:
        """A clip's verdict as this person sees it: the own one, or what the others' come to."""
        return said.get(self.person) or agreed(said.values())

    def _verdicts_by_clip(self) -> Mapping[int, Mapping[str, Verdict]]:
        return {} if self.verdicts is None else self._judged.by_clip(self.verdicts)

    def _codes(self) -> npt.NDArray[np.int8]:
        codes = np.full(len(self.index), -1, np.int8)
        for clip, said in self._verdicts_by_clip().items():
            if (shown := self._shown(said)) is not None:
                codes[clip] = VERDICTS.index(shown.verdict)
        return codes

    def _verdict_table(self) -> pa.Table:
        return verdicts_table(self._verdicts_by_clip())


class _Judged:
    """The verdicts of a file by the clips of one store; made anew when the file has changed."""

    def __init__(self, clips: pa.Table) -> None:
        self._clips = clips
        self._lock = threading.Lock()
        self._version = -1
        self._known: dict[Key, list[int]] = {}
        self._found: dict[int, Mapping[str, Verdict]] = {}

    def by_clip(self, verdicts: Verdicts) -> Mapping[int, Mapping[str, Verdict]]:
        """The verdicts on each clip that has any, by person."""
        with self._lock:
            version = verdicts.refresh()
            if version != self._version:
                said = verdicts.all()
                new = [key for key in said if key not in self._known]  # others cost no look at the clip table
                self._known |= {key: [] for key in new}
                for clip, key in clip_numbers(self._clips, new).items():
                    self._known[key].append(clip)
                self._found = {clip: of for key, of in said.items() for clip in self._known[key]}
                self._version = version
            return self._found


class _Kept:
    """Bytes by a key, the most recently used up to a number of bytes. Safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._entries: OrderedDict[Any, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any, make: Callable[[], bytes]) -> bytes:
        """What is kept, or what ``make`` gives, which is kept from now on."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        made = make()
        with self._lock:
            if key not in self._entries and len(made) <= self._most // 4:
                self._entries[key] = made
                self._size += len(made)
            while self._size > self._most:
                self._size -= len(self._entries.popitem(last=False)[1])
        return made


def cell_text(value: Any) -> str | None:
    """A cell of the clip table as text; None for NULL."""
    if value is None:
        return None
    if isinstance(value, list):
        return "; ".join(str(each) for each in value)[:_MOST_CELL]
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    return str(value)[:_MOST_CELL]


def _number(value: Any) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None
