"""Audio files with damaged headers: a reason or a waveform of the right shape; never a crash, hang or traceback."""

from __future__ import annotations

import io
import json
import os
import random
import select
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.faults.conftest import size
from tests.faults.nursery import REPOSITORY

HANGS_SECONDS = 30.0
HEADER_BYTES = 96
KINDS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"), "mp3": ("MP3", None)}


class Decoder:
    """The process of ``decoder.py``; started anew after a crash."""

    def __init__(self) -> None:
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 - a pipe would fill up: libmpg123 has much to say
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.decoder"],
            cwd=REPOSITORY, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said,
        )  # fmt: skip

    def __call__(self, content: bytes, kind: int) -> dict[str, int | str]:
        """What came of a file's bytes; ``wrong`` for a crash or a hang."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(struct.pack("<IB", len(content), kind) + content)
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], HANGS_SECONDS)[0]:
            self.close()
            return {"wrong": f"it hangs for {HANGS_SECONDS:.0f} s"}
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        status = self.process.wait()
        self.said.seek(0)
        said = self.said.read().decode(errors="replace").strip().splitlines()
        return {"wrong": f"the process ended with {status}: {' / '.join(said[-6:])}"}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.said.close()


def _whole(kind: str) -> bytes:
    random_numbers = np.random.default_rng(5)
    time = np.arange(3 * 8000) / 8000
    wave = 0.3 * np.sin(2 * np.pi * 300 * time) + 0.05 * random_numbers.standard_normal(len(time))
    stereo = np.stack([wave, wave[::-1]], axis=1).astype(np.float32)
    sink = io.BytesIO()
    container, subtype = KINDS[kind]
    soundfile.write(sink, stereo, 8000, format=container, subtype=subtype)
    return sink.getvalue()


def _damaged(chance: random.Random, content: bytes) -> bytes:
    """Bytes of the header changed, numbers in it made extreme, pieces cut out, doubled, or lost at the end."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        at = (
            chance.randrange(min(HEADER_BYTES, len(damaged)))
            if chance.random() < 0.8
            else chance.randrange(len(damaged))
        )
        what = chance.random()
        if what < 0.45:
            damaged[at] = chance.randrange(256)
        elif what < 0.75:
            number = chance.choice([0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF])
            width = chance.choice([1, 2, 4])
            order = chance.choice(["little", "big"])
            damaged[at : at + width] = (number & (256**width - 1)).to_bytes(width, order)  # type: ignore[arg-type]
        elif what < 0.85:
            del damaged[at : at + chance.randint(1, 16)]
        elif what < 0.95:
            damaged[at:at] = damaged[at : at + chance.randint(1, 16)]
        else:
            del damaged[at:]
        if not damaged:
            break
    return bytes(damaged)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_audio(kind, counted, tmp_path):
    chance = random.Random(kind)
    whole, number = _whole(kind), list(KINDS).index(kind)
    decoder = Decoder()
    assert decoder(whole, number) == {"decoded": 2, "failed": 0}
    wrong, decoded, refused = [], 0, 0
    for attempt in range(size("damaged audio files") // len(KINDS)):
        content = _damaged(chance, whole)
        found = decoder(content, number)
        if "wrong" in found:
            kept = tmp_path / f"{attempt}.{kind}"
            Path(kept).write_bytes(content)
            wrong.append((str(kept), found["wrong"]))
            decoder.close()
            decoder = Decoder()
        elif found.get("decoded"):
            decoded += 1
        else:
            refused += 1
    decoder.close()
    assert wrong == []
    assert refused
    counted("damaged audio files refused with a reason", refused)
    counted("damaged audio files of which something could be decoded", decoded)
