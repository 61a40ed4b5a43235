"""Several sources read as one: keys are relative to a folder that all of them lie below."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from logitstore.audio.audiofile import Audio
from logitstore.audio.folder import FolderSource
from logitstore.audio.packed import KINDS, Packed
from logitstore.audio.source import Reading, Source, join_tables, normal_path

if TYPE_CHECKING:
    import pyarrow as pa


class AudioFiles(FolderSource):
    """Audio files that were named one by one, or by a pattern."""

    kind = "files"

    def __init__(self, root: Path, keys: tuple[str, ...]) -> None:
        super().__init__(root)
        self.keys = keys

    def listing(self) -> pa.Table:
        import pyarrow as pa

        return pa.table({"path": pa.array(self.keys, pa.string())})


class AnythingBelow(FolderSource):
    """A folder of audio files and packed files of any kind, read by key."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._packed: dict[str, Packed] = {}

    def read(self, path: str) -> Audio:
        if normal_path(path) == path and not (self.root / path).exists():
            at = path.find("/")
            while at >= 0:
                name = path[:at]
                kind = KINDS.get(Path(name).suffix.lower())
                if kind is not None and (self.root / name).is_file():
                    if name not in self._packed:
                        self._packed[name] = kind(self.root, (name,))
                    return self._packed[name].read(path)
                at = path.find("/", at + 1)
        return super().read(path)


class Several:
    """Sources one after the other.

    :param sources: each with what its keys are put behind, "" for nothing. :param audio: reads their keys.
    """

    kind = "several"

    def __init__(self, sources: Sequence[tuple[str, Source]], audio: Source, what: str) -> None:
        self.sources = tuple(sources)
        self.audio = audio
        self.what = what
        self.segmented = any(source.segmented for _, source in sources)
        self.reading = Reading()

    @property
    def notes(self) -> list[str]:
        """What the sources say of what they left out."""
        return [note for _, source in self.sources for note in getattr(source, "notes", ())]

    @property
    def cut_already(self) -> bool:
        """Whether files no longer than their row's span may be that span."""
        return all(getattr(source, "cut_already", False) for _, source in self.sources)

    def listing(self) -> pa.Table:
        import pyarrow.compute as pc

        self.reading = Reading()
        tables = []
        for folder, source in self.sources:
            table = source.listing()
            if folder:
                keys = pc.binary_join_element_wise(folder, table.column("path"), "/")
                table = table.set_column(table.schema.get_field_index("path"), "path", keys)
            tables.append(table)
            said = getattr(source, "reading", None)
            if said is not None:
                self.reading.used.update(said.used)
                self.reading.renamed.update(said.renamed)
                self.reading.ignored.update(said.ignored)
                self.reading.notes += said.notes
        return join_tables(tables, self.what)

    def read(self, path: str) -> Audio:
        return self.audio.read(path)
