"""Tar shards, as WebDataset writes them: the key is shard/member."""

from __future__ import annotations

import io
import json
import posixpath
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from logitstore.audio.audiofile import AUDIO_SUFFIXES, Audio, Window
from logitstore.audio.packed import Index, Packed, column_of, is_plain
from logitstore.audio.source import first_line, text_key, user_columns
from logitstore.documents import unique_keys
from logitstore.errors import AudioError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

_SIDECARS = (".json", ".txt", ".cls")
_SIDECAR_BYTES = 1 << 20


class TarSource(Packed):
    """WebDataset shards: audio members, and json, txt and cls members beside them as columns.

    A side file belongs to the audio of its whole name without the ending (``a.b.json`` to ``a.b.wav``), where there is
    one, and else to all audio of its WebDataset key, which ends at the first dot (``a.json`` to ``a.left.wav``).
    """

    kind = "tar"
    suffixes = (".tar",)

    def _list(self, name: str) -> pa.Table:
        import pyarrow as pa

        keys: list[str] = []
        members: list[str] = []
        sidecars: dict[str, dict[str, Any]] = {}
        large: list[str] = []
        file = self.root / name
        with _opened_tar(file, self.reading.notes) as listed, file.open("rb") as stream:
            for member, offset, size in listed:
                suffix = _split(member)[1]
                if suffix in AUDIO_SUFFIXES:
                    keys.append(f"{name}/{text_key(member, str(file))}")
                    members.append(member)
                elif suffix in _SIDECARS and size > _SIDECAR_BYTES:
                    large.append(member)
                elif suffix in _SIDECARS:
                    stream.seek(offset)
                    sidecars[member] = _sidecar(stream.read(size), suffix, f"{file}: {member}", self.reading.ignored)
        if large:
            self.reading.notes.append(
                f"{name}: {len(large)} side files of more than 1 MiB, such as {large[0]!r}, are left out"
            )
        fields = _fields(members, sidecars, str(file))
        columns = sorted({column for values in fields for column in values})
        table = pa.table({column: column_of([values.get(column) for values in fields]) for column in columns})
        table = user_columns(table, str(file), self.reading)
        return pa.table([pa.array(keys, pa.string()), *table.columns], names=["path", *table.column_names])

    def read(self, path: str) -> Audio:
        name, member = self._split(path)
        place = self._indexed(name, self._index).find(member)
        if place is None:
            raise AudioError("no such member in the tar")
        return _window(self.root / name, *place)

    def _index(self, name: str) -> Index:
        try:
            with _opened_tar(self.root / name) as listed:
                members = [entry for entry in listed if _split(entry[0])[1] in AUDIO_SUFFIXES]
        except SourceError:
            raise AudioError("the tar cannot be listed") from None
        return Index.of([m[0] for m in members], [m[1] for m in members], [m[2] for m in members])


@contextmanager
def _opened_tar(path: Path, notes: list[str] | None = None) -> Iterator[Iterator[tuple[str, int, int]]]:
    """The regular members of a tar that are not hidden, as (name, offset, size).

    :param notes: told at the end what kinds of members were left out.
    """
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115  # closed below; only its opening is in the try
    except (tarfile.TarError, OSError) as error:
        raise SourceError(f"{path}: not readable as an uncompressed tar: {first_line(error)}") from None
    with tar:
        yield _members(tar, path, [] if notes is None else notes)


def _members(tar: tarfile.TarFile, path: Path, notes: list[str]) -> Iterator[tuple[str, int, int]]:
    left_out: dict[str, list[str]] = {}
    while True:
        try:
            member = tar.next()
        except (tarfile.TarError, OSError) as error:
            raise SourceError(f"{path}: the tar breaks off: {first_line(error)}; pack it again") from None
        if member is None:
            break
        if member.size < 0 or tar.offset <= member.offset:
            raise SourceError(f"{path}: the member {member.name!r} says that it has {member.size} bytes; pack it again")
        tar.members.clear()  # type: ignore[attr-defined]  # else every header stays in memory
        name = posixpath.normpath(member.name)
        parts = name.split("/")
        if name.startswith("/") or ".." in parts:
            left_out.setdefault("whose names lead out of the tar", []).append(member.name)
        elif member.isdir() or any(part.startswith(".") for part in parts):
            continue
        elif member.islnk() or member.issym():
            left_out.setdefault("that are links", []).append(name)
        elif not member.isreg() or member.issparse():
            left_out.setdefault("that are no regular files", []).append(name)
        else:
            yield name, member.offset_data, member.size
    for what, names in left_out.items():
        notes.append(f"{path.name}: {len(names)} members {what}, such as {names[0]!r}, are left out")


def _split(member: str) -> tuple[str, str]:
    """The name of a member without its last ending, and that."""
    stem, suffix = posixpath.splitext(member)
    return stem, suffix.lower()


def _key(member: str) -> str:
    """The WebDataset key of a member: its name up to the first dot of its file name."""
    folder, _, file = member.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}"


def _fields(members: list[str], sidecars: dict[str, dict[str, Any]], what: str) -> list[dict[str, Any]]:
    """What the side files say of each audio member.

    :raises SourceError: two side files of one member say a thing in two ways.
    """
    stems = {_split(member)[0] for member in members}
    by_stem: dict[str, list[str]] = {}
    by_key: dict[str, list[str]] = {}
    for side in sidecars:
        stem = _split(side)[0]
        (by_stem.setdefault(stem, []) if stem in stems else by_key.setdefault(_key(side), [])).append(side)

    def gathered(sides: list[str], member: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        said_by: dict[str, str] = {}
        for side in sides:
            for name, value in sidecars[side].items():
                if name in found and (found[name] != value or type(found[name]) is not type(value)):
                    raise SourceError(
                        f"{what}: {said_by[name]!r} and {side!r} both say {name!r} of {member!r}, and differ; "
                        "leave out one"
                    )
                found[name], said_by[name] = value, side
        return found

    fields = []
    for member in members:
        shared = gathered(by_key.get(_key(member), []), member)
        fields.append(shared | gathered(by_stem.get(_split(member)[0], []), member))
    return fields


def _sidecar(content: bytes, suffix: str, what: str, ignored: dict[str, str]) -> dict[str, Any]:
    """The fields of a side file: scalars, and lists of them.

    :param ignored: told which fields are left out, and why.
    """
    try:
        text = content.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=unique_keys) if suffix == ".json" else text.strip()
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{what}: not readable as {suffix[1:]}: {first_line(error)}") from None
    if suffix == ".json":
        fields = value.items() if isinstance(value, dict) else [("json", value)]
        kept = {_text(name): field for name, field in fields if field is not None and is_plain(field)}
        ignored.update({_text(name): "nested" for name, field in fields if not is_plain(field)})
        return kept
    if suffix == ".cls" and re.fullmatch(r"-?[1-9][0-9]{0,17}|0", value):
        return {"cls": int(value)}
    return {suffix[1:]: value}


def _text(name: str) -> str:
    """A name as UTF-8 can hold it: JSON may escape half of a character."""
    return name.encode("utf-8", "backslashreplace").decode()


def _window(path: Path, offset: int, size: int) -> BinaryIO:
    try:
        return cast(BinaryIO, io.BufferedReader(_Member(path, offset, size), 1 << 16))
    except OSError as error:
        raise AudioError(f"cannot be opened: {error.strerror}") from None


class _Member(Window):
    """Bytes [offset, offset + size) of a file."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        super().__init__(size)
        self._file, self._offset = path.open("rb", buffering=0), offset

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(0, min(len(view), self._size - self._at))]
        self._file.seek(self._offset + self._at)
        count = self._file.readinto(view) if len(view) else 0
        self._at += count or 0
        return count or 0

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
