"""What a file is that is not what somebody took it for, told from its first bytes."""

from __future__ import annotations

import errno
from pathlib import Path

from logitstore.errors import TeacherError
from logitstore.files import require_no_hole

_HEAD = 512
#: First bytes, and what files begin with them.
_MARKS = (
    (
        b"version https://git-lfs",
        "a pointer of Git LFS, which stands for a file that was not fetched: run `git lfs pull`",
    ),
    (b"\x89HDF\r\n", "an HDF5 file, such as Keras' weights"),
    (b"PK\x03\x04", "a ZIP archive, as torch.save and Keras write"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"RIFF", "a RIFF file, such as WAV"),
    (b"\x80", "a pickle, which is never opened"),
)
TFLITE, ONNX = "TensorFlow Lite", "ONNX"


def looks_like(path: Path) -> str:
    """In words, what a file that cannot be opened looks like.

    :raises OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "an empty file"
    for mark, what in _MARKS:
        if head.startswith(mark):
            return what
    if head[4:8] == b"TFL3":
        return f"a {TFLITE} model that is cut, damaged or beyond this runtime"
    if head.lstrip()[:1] == b"<":
        return "a page of HTML or XML: what was downloaded is a web page and no model"
    if head[8:9] == b"{" and head[:8].rstrip(b"\0") != head[:8]:
        return "a safetensors file"
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON"
    if head[0] == 8 and head[1] < 128:
        return f"an {ONNX} model that is cut, damaged or beyond this runtime"
    if b"\0" not in head and head.isascii():
        return "a file of text"
    return "none of the formats that are known here"


def require_model(spec: str, path: Path, what: str) -> None:
    """Refuse a path that holds no file, or a hole, before a runtime opens it.

    :param what: the kind of model that is due, as "an ONNX model".
    :raises TeacherError: there is no such file, or its size is not to be believed.
    """
    if path.is_dir():
        raise TeacherError(f"teacher {spec!r}: {str(path)!r} is a folder; give the file of {what}")
    if not path.exists():
        raise TeacherError(f"teacher {spec!r}: no file {str(path)!r}; give {what}")
    try:
        require_no_hole(path)
    except OSError as error:
        reason = error.strerror if error.errno == errno.EINVAL else str(error)
        raise TeacherError(f"teacher {spec!r}: {str(path)!r} is not {what}: {reason}") from error
