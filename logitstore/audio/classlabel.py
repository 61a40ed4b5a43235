"""Labels of the Hugging Face hub: integers whose names stand in the metadata of the Parquet schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from logitstore.errors import SourceError

if TYPE_CHECKING:
    import pyarrow as pa


def with_names(table: pa.Table, what: str) -> pa.Table:
    """The table with its ClassLabel columns, and lists of them, as the names; -1, the hub's sign for none, is null.

    :raises SourceError: a number that has no name.
    """
    for column, names in class_names(table.schema).items():
        at = table.schema.get_field_index(column)
        if at >= 0:
            table = table.set_column(at, column, _named(table.column(column), names, f"{what}: the column {column!r}"))
    return table


def class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of every column of ClassLabel, or of a list of them, that the schema's metadata knows."""
    try:
        document = json.loads((schema.metadata or {}).get(b"huggingface", b"null"))
        features = document["info"]["features"]
        return {str(name): names for name, feature in features.items() if (names := _names_of(feature))}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _names_of(feature: Any) -> list[str] | None:
    if isinstance(feature, list) and len(feature) == 1:  # an older form of a sequence
        return _names_of(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names")
        return [str(name) for name in names] if isinstance(names, list) and names else None
    return _names_of(feature["feature"]) if feature.get("_type") in ("Sequence", "List", "LargeList") else None


def _named(column: pa.ChunkedArray, names: list[str], what: str) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type) or pa.types.is_fixed_size_list(column.type):
        values = column.to_pylist()
        flat = pa.chunked_array([pa.array([each for value in values for each in value or []], column.type.value_type)])
        named = iter(_named(flat, names, what).to_pylist())
        lists = [None if value is None else [next(named) for _ in value] for value in values]
        lists = [None if each is None else [name for name in each if name is not None] for each in lists]
        return pa.chunked_array([pa.array(lists, pa.list_(pa.string()))])
    if not pa.types.is_integer(column.type):
        return column
    known = pc.and_(pc.greater_equal(column, -1), pc.less(column, len(names)))
    strange = pc.filter(column, pc.invert(pc.fill_null(known, True)))
    if len(strange):
        row = pc.index(pc.fill_null(known, True), False).as_py()
        raise SourceError(
            f"{what}, row {row + 1}: {strange[0].as_py()} is none of the {len(names)} classes (ClassLabel) that the "
            "file's metadata names, 0 to "
            f"{len(names) - 1}; mend the column or the metadata"
        )
    index = pc.if_else(pc.less(column, 0), pa.scalar(None, column.type), column).cast(pa.int64())
    return pa.chunked_array([pa.array(names, pa.string()).take(index.combine_chunks())])
