"""HDF5 audio: CED's int16 data sets by name, and PaSST's encoded bytes: the key is file/name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from logitstore.audio import packed
from logitstore.audio.audiofile import Audio, InMemory, Pcm
from logitstore.audio.packed import Index, column_of
from logitstore.audio.source import text_key, user_columns
from logitstore.errors import AudioError, MissingExtraError, SourceError

if TYPE_CHECKING:
    import pyarrow as pa

_CED_RATE = 16000
_LEAST_RATE, _MOST_RATE = 100, 10_000_000
_MOST_PACKED = 1 << 14  # how many times shorter a filter makes silence
_SPARE_BYTES = 1 << 20
_RATE_NAMES = ("sample_rate", "sampling_rate", "sr", "rate")

_hdf5_files: dict[tuple[int, Path], Any] = {}  # by process: a handle does not survive a fork, nor may a child close it


class Hdf5Source(packed.Packed):
    """CED: one int16 data set a name (16 kHz unless an attribute ``sample_rate`` says otherwise).

    PaSST: ``audio_name`` and ``mp3`` (encoded bytes, uint8 of varying length) side by side; other one-dimensional
    data sets of numbers or text beside them become columns. Data sets of other kinds are left alone.
    """

    kind = "hdf5"
    suffixes = (".h5", ".hdf5")

    def _list(self, name: str) -> pa.Table:
        import pyarrow as pa

        file = self.root / name
        with packed.lock:
            handle = _hdf5(file, SourceError, f"{file}: ")
            encoded = _encoded(handle)
            if encoded is None:
                keys = [text_key(key, str(file)) for key in _int16_names(handle, self.reading.notes, name)]
                if not keys:
                    own = [key for key in list(handle)[:3] if _lies_within(handle, key)]
                    found = ", ".join(f"{key} {handle[key].dtype}" for key in own)
                    raise SourceError(
                        f"{file}: neither int16 data sets (CED) nor audio_name and mp3 (PaSST); found {found or 'none'}"
                    )
                try:
                    _rate_of(handle.attrs)
                except AudioError as error:
                    raise SourceError(f"{file}: {error}") from None
                return pa.table({"path": pa.array([f"{name}/{key}" for key in keys], pa.string())})
            keys = _texts(data_set(handle, "audio_name", SourceError, f"{file}: "))
            recordings = len(data_set(handle, encoded, SourceError, f"{file}: "))
            if recordings != len(keys):
                raise SourceError(f"{file}: audio_name has {len(keys)} names, and {encoded} {recordings} recordings")
            columns = {}
            for key in sorted(handle):
                if key in ("audio_name", encoded):
                    continue
                item = handle[key] if _lies_within(handle, key) else None
                if item is not None and _is_column(item, len(keys)):
                    columns[key] = column_of(_texts(item) if item.dtype.kind in "SO" else item[...].tolist())
                else:
                    self.reading.ignored[key] = "no data set of the file itself" if item is None else _described(item)
        paths = [f"{name}/{text_key(key, str(file))}" for key in keys]
        others = user_columns(pa.table(columns), str(file), self.reading)
        return pa.table([pa.array(paths, pa.string()), *others.columns], names=["path", *others.column_names])

    def read(self, path: str) -> Audio:
        name, key = self._split(path)
        file = self.root / name
        with packed.lock:
            handle = _hdf5(file, AudioError, "")
            encoded = _encoded(handle)
            if encoded is not None:
                place = self._indexed(name, _names_index(handle)).find(key)
                if place is None:
                    raise AudioError("no such audio_name in the HDF5 file")
                try:
                    return InMemory(np.asarray(data_set(handle, encoded, AudioError)[place[0]]).tobytes())
                except OSError:
                    raise AudioError("the HDF5 file cannot be read at this row") from None
            if not _is_int16(item := data_set(handle, key, AudioError)):
                raise AudioError("no int16 data set of this name in the HDF5 file")
            frames, rate = len(item), _rate(handle, key)

        def samples(start: int, stop: int) -> npt.NDArray[np.int16]:
            with packed.lock:
                try:
                    return cast("npt.NDArray[np.int16]", _hdf5(file, AudioError, "")[key][start:stop])
                except OSError:
                    raise AudioError("the HDF5 data set cannot be read") from None

        return Pcm(frames, rate, samples)


def _hdf5(file: Path, error_type: type[SourceError] | type[AudioError], prefix: str) -> Any:
    """This process's handle of an HDF5 file; the caller holds the lock."""
    try:
        import h5py
    except ImportError:
        raise MissingExtraError("h5py", "ced", "reading HDF5 audio") from None
    place = (os.getpid(), file)
    if place not in _hdf5_files:
        try:
            _hdf5_files[place] = h5py.File(file, "r", locking=False)
        except OSError:
            raise error_type(f"{prefix}not readable as HDF5") from None
    return _hdf5_files[place]


def data_set(handle: Any, name: str, error_type: type[SourceError] | type[AudioError], prefix: str = "") -> Any:
    """A data set whose data lie in the file itself, all of them.

    HDF5 lets a link, a data set's storage, or a view of other data sets name any file of the machine, and a size stand
    for data that were never written.

    :raises SourceError, AudioError: the data lie elsewhere, or are not there; ``prefix`` comes before the message.
    """
    import h5py

    def refuse(what: str) -> SourceError | AudioError:
        return error_type(f"{prefix}the HDF5 data set {name!r} {what}; copy the data into the file")

    group, parts = handle, [part for part in name.split("/") if part]
    for number, part in enumerate(parts):
        link = group.get(part, getlink=True)
        if link is None:
            raise error_type(f"{prefix}no data set {name!r} in the HDF5 file")
        if not isinstance(link, h5py.HardLink):
            raise refuse("is a link to somewhere else")
        group = group[part]
        if number + 1 < len(parts) and not isinstance(group, h5py.Group):
            raise error_type(f"{prefix}no data set {name!r} in the HDF5 file")
    if not isinstance(group, h5py.Dataset):
        raise error_type(f"{prefix}{name!r} is no data set in the HDF5 file")
    if group.external:
        raise refuse(f"has its data in another file, {group.external[0][0]!r}")
    if group.is_virtual:
        raise refuse("is a view of other files")
    claimed, there = group.size * group.dtype.itemsize, group.id.get_storage_size()
    if claimed > _MOST_PACKED * there + _SPARE_BYTES:
        raise refuse(f"claims {claimed:,} bytes, of which {there:,} are there")
    return group


def _lies_within(handle: Any, key: str) -> bool:
    """Whether an entry is in the file itself; what is not is left alone, and never opened."""
    import h5py

    if not isinstance(handle.get(key, getlink=True), h5py.HardLink):
        return False
    item = handle[key]
    return isinstance(item, h5py.Dataset) and not item.external and not item.is_virtual


def _encoded(handle: Any) -> str | None:
    """The data set of encoded bytes beside ``audio_name``: ``mp3``, or the first one of uint8 of varying length."""
    import h5py

    if not _may_hold(handle, "audio_name"):
        return None
    own = [key for key in sorted(handle) if _lies_within(handle, key)]
    candidates = [key for key in own if h5py.check_vlen_dtype(handle[key].dtype) == np.uint8]
    return "mp3" if _may_hold(handle, "mp3") else next(iter(candidates), None)


def _may_hold(handle: Any, key: str) -> bool:
    """Whether an entry has a value for each row; one that lies elsewhere may, and is refused when it is read."""
    import h5py

    link = handle.get(key, getlink=True)
    if not isinstance(link, h5py.HardLink):
        return link is not None
    return isinstance(handle[key], h5py.Dataset) and handle[key].shape is not None and len(handle[key].shape) > 0


def _is_int16(item: Any) -> bool:
    return getattr(item, "dtype", None) == np.int16 and len(item.shape) == 1


def _int16_names(handle: Any, notes: list[str], file: str) -> list[str]:
    """The data sets of sound, by name.

    :param notes: told of other data sets, which are left out.
    """
    names: list[str] = []
    others: list[str] = []

    def visit(name: str, item: Any) -> None:
        if _is_int16(item):
            names.append(name)
        elif hasattr(item, "dtype"):
            others.append(f"{name!r} ({_described(item)})")

    handle.visititems(visit)
    if names and others:
        notes.append(
            f"{file}: {len(others)} data sets that are not int16 of one axis are left out, such as {others[0]}"
        )
    return names


def _described(item: Any) -> str:
    """What a data set holds, for messages."""
    return f"{item.dtype} of shape {item.shape}" if hasattr(item, "dtype") else "a group"


def _is_column(item: Any, rows: int) -> bool:
    """A data set of one number or one text a row."""
    import h5py

    if getattr(item, "shape", None) != (rows,):
        return False
    return item.dtype.kind in tuple("iufb") or h5py.check_string_dtype(item.dtype) is not None


def _texts(item: Any) -> list[str]:
    return [value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value) for value in item[...]]


def _names_index(handle: Any) -> Callable[[str], Index]:
    def build(_name: str) -> Index:
        names = _texts(data_set(handle, "audio_name", AudioError))
        return Index.of(names, list(range(len(names))), [0] * len(names))

    return build


def _rate(handle: Any, key: str) -> int:
    """The rate of a data set in Hz: its own attribute's, the file's, or CED's.

    :raises AudioError: an attribute that is no rate.
    """
    return _rate_of(handle[key].attrs) or _rate_of(handle.attrs) or _CED_RATE


def _rate_of(attributes: Any) -> int | None:
    """The rate that attributes state in Hz; None where they state none.

    :raises AudioError: one that is no whole number of Hz that sound can have.
    """
    for name in _RATE_NAMES:
        if name not in attributes:
            continue
        value: Any = None
        try:
            value = attributes[name]
            values = np.asarray(value if not hasattr(value, "shape") or value.shape is not None else [])
            (stated,) = values.reshape(-1).tolist()
            rate = float(stated.decode() if isinstance(stated, bytes) else stated)
        except (ValueError, TypeError, OSError, UnicodeDecodeError):
            rate = float("nan")
        if rate.is_integer() and _LEAST_RATE <= rate <= _MOST_RATE:
            return int(rate)
        raise AudioError(
            f"the attribute {name} is {str(value)[:40]!r}; it must be one whole number of Hz, "
            f"{_LEAST_RATE:,} to {_MOST_RATE:,}"
        )
    return None
