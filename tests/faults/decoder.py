"""A process that reads damaged audio, so that a crash or a hang of a decoder is seen and survived.

On its input: a length as four bytes and a file's bytes, again and again. On its output: a line of JSON each.
"""

from __future__ import annotations

import json
import resource
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np

from logitstore.audio.decode import decode
from logitstore.audio.lengths import samples_at
from logitstore.audio.scan import scan
from logitstore.audio.sources import open_source
from logitstore.errors import LogitstoreError

MEMORY_BYTES = 4 << 30
CLIP_SECONDS = 2.0
RATE = 16_000
MOST_CLIPS = 4  # of one file that are decoded


def main() -> None:
    """Read files until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        while head := sys.stdin.buffer.read(5):
            length, suffix = struct.unpack("<IB", head)
            ending = (".wav", ".flac", ".ogg", ".mp3")[suffix]
            file = Path(folder) / f"clip{ending}"
            file.write_bytes(sys.stdin.buffer.read(length))
            print(json.dumps(_try(folder)), flush=True)
            file.unlink()


def _try(folder: str) -> dict[str, int | str]:
    """What came of the one file in a folder; any error but a typed one leaves this process."""
    source = open_source(folder)
    try:
        clips = scan(source, clip_seconds=CLIP_SECONDS)
    except LogitstoreError as error:
        return {"refused": str(error)}
    decoded = failed = 0
    for clip in clips.slice(0, MOST_CLIPS).to_pylist():
        key = (clip["path"], clip["start"], clip["length"], clip["rate"])
        if min(key[1:]) < 0:
            return {"wrong": f"a clip {key}"}
        try:
            waveform = decode(source, *key, RATE)
        except LogitstoreError as error:
            if "\n" in str(error) or folder in str(error):
                return {"wrong": f"the message {error}"}
            failed += 1
            continue
        wanted = int(samples_at(clip["length"], clip["rate"], RATE))
        if waveform.dtype != np.float32 or waveform.shape != (wanted,) or not np.isfinite(waveform).all():
            return {"wrong": f"{waveform.dtype} {waveform.shape} of {wanted}"}
        decoded += 1
    return {"decoded": decoded, "failed": failed}


if __name__ == "__main__":
    main()
