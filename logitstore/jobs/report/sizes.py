"""Where the bytes are: by part of the store, and a view."""

from __future__ import annotations

import numpy as np

from logitstore.errors import CorruptStoreError
from logitstore.jobs.report.charts import bars
from logitstore.jobs.report.page import Content, Note, Part, Section, Table, sized
from logitstore.store.format.objects import FRAMES, PACKED, packed_parts
from logitstore.store.format.relations import ARRAYS
from logitstore.store.piece import Piece

PART = {"place": 20, "class": "Sizes"}
_MOST_READ = 200  # blocks whose packed arrays are told apart
_PACKED_SHARD = f"/{PACKED}/c/0/0"
#: What the arrays of a block hold, see ``docs/format.md``.
_ARRAYS = (
    {"views": "classes", "lowest": "values", "firsts": "values", "residuals": "values"}
    | {array: f"relations of {what}" for array, what in ARRAYS.items()}
    | {FRAMES: "frames, which say when"}
)
_CLIPS, _COMMITS, _REST = "clip table", "commits", "descriptions (zarr.json) and manifest"


class Sizes(Part):
    """Bytes of classes, values, draws and the rest, from a listing; packed arrays are told apart by their index."""

    def section(self) -> Section | None:
        """Nothing of a store without bytes."""
        sizes: dict[str, float] = {}
        read = blocks = 0
        for piece in self.report.store.pieces:
            listed = piece.sizes()
            packed = [name for name in listed if name.startswith("blocks/") and name.endswith(_PACKED_SHARD)]
            for name, size in listed.items():
                if not name.endswith(_PACKED_SHARD):
                    sizes[_what(name)] = sizes.get(_what(name), 0) + size
            spread = np.linspace(0, len(packed), min(len(packed), _MOST_READ), endpoint=False).astype(int)
            chosen = [packed[at] for at in spread.tolist()]
            apart: dict[str, int] = {}
            for name in chosen:
                for what, size in packed_sizes(piece, name).items():
                    apart[what] = apart.get(what, 0) + size
            scale = sum(listed[name] for name in packed) / max(1, sum(apart.values()))
            for array, size in apart.items():
                what = _ARRAYS.get(array, array)
                sizes[what] = sizes.get(what, 0) + size * scale
            read, blocks = read + len(chosen), blocks + len(packed)
        total, views = sum(sizes.values()), self.report.summary.stored_views
        if not total:
            return None
        rows = sorted(sizes.items(), key=lambda each: -each[1])
        table = Table(
            "Bytes by part",
            ("part", "bytes", "share", "bytes a view"),
            ("", ",.0f", ".1%", ",.2f"),
            [(name, size, size / total, size / views if views else None) for name, size in rows],
        )
        chart = bars(
            "Bytes a view, by part" if views else "Bytes, by part",
            f"The largest part: {rows[0][0]}.",
            [(name, size / max(1, views)) for name, size in rows],
            "bytes a view" if views else "bytes",
            ",.2f" if views else ",.0f",
            "part",
        )
        content: list[Content] = [chart, table]
        if read < blocks:
            content.append(
                Note(f"Told apart within {read:,} of {blocks:,} blocks, spread over all, and scaled to the rest.")
            )
        share = self.report.summary.percent_of_pcm
        lead = f"{sized(total)} in all" + ("." if share is None else f", {share:.2f} % of the clips as 16-bit PCM.")
        return Section("sizes", "Where the bytes are", lead, content)


def packed_sizes(piece: Piece, name: str) -> dict[str, int]:
    """Bytes of each array in a packed one, and of its index; they sum to the object's own.

    :param name: of the shard object.
    :raises StoreError: it cannot be read, or is not what it says.
    """
    shard = piece.storage.get(name)
    try:
        parts = packed_parts(piece.storage.get(f"{name.removesuffix('c/0/0')}zarr.json"), name.split("/")[2])
        planes = sum(part.planes for part in parts.values())
        index = np.frombuffer(shard[-16 * planes - 4 : -4], "<u8").reshape(planes, 2)
    except ValueError as error:
        raise CorruptStoreError(f"{piece.location}: {name} is damaged ({error}); run logitstore verify") from error
    found = {part: int(index[row : row + count, 1].sum()) for part, (row, count, _) in parts.items()}
    return found | {"index of planes": len(shard) - sum(found.values())}


def _what(name: str) -> str:
    """The part that an object belongs to, by its name."""
    parts = name.split("/")
    if parts[0] == "blocks" and len(parts) > 3 and not name.endswith("zarr.json"):
        return _ARRAYS.get(parts[2], parts[2])
    return {"clips": _CLIPS, "commits": _COMMITS, "basis.safetensors": "relations' basis"}.get(parts[0], _REST)
