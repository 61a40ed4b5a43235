"""Pictures and sounds of a view for people: a log-mel as PNG, where its masks lie in it, its samples as a WAV file.

Pages, notebooks and ``logitstore show`` use these, so that a view looks the same everywhere. The picture is of all that
the audio holds, from 0 Hz to half its rate, and hides nothing: masks are boxes that are drawn over it.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from logitstore.arrays import F32
from logitstore.errors import MissingExtraError

if TYPE_CHECKING:
    from logitstore.views.mel import FrontEnd
    from logitstore.views.recipe import Masks

BANDS, FRAMES = 96, 500
#: Decibels from the loudest cell down to what is drawn as silence.
RANGE_DB = 80.0
#: No picture's brightest colour stands for less, so that silence looks dark: noise of the last bit of 16 is at -50.
QUIETEST_DB = -40.0
#: Colours from silence to the loudest, evenly spaced: dark blue, violet, red, orange, pale yellow.
_COLOURS = (
    (6, 6, 26), (43, 15, 92), (98, 25, 122), (157, 42, 116), (212, 70, 87), (245, 122, 53), (250, 186, 74),
    (250, 250, 190),
)  # fmt: skip


@dataclass(frozen=True)
class Box:
    """What a mask hides of a picture: ``kind`` "time" or "frequency", its bounds in seconds or Hz, half-open, and its
    edges as shares of the picture's width from the left, and of its height from the top."""

    kind: str
    start: float
    stop: float
    left: float
    top: float
    width: float
    height: float


def front_end(seconds: float, sample_rate: int) -> FrontEnd:
    """What pictures of views are made with: 96 mel bands to half the rate, about 500 frames however long a view is.

    :param seconds: length of a view. :param sample_rate: of its waveform, in Hz.
    """
    from logitstore.views.mel import FrontEnd

    n_fft = 1 << max(5, int(np.ceil(np.log2(sample_rate * 0.032))))
    hop = max(1, round(seconds * sample_rate / FRAMES))
    return FrontEnd(
        sample_rate=sample_rate, n_fft=n_fft, win_length=n_fft, hop_length=hop, n_mels=BANDS, f_max=sample_rate / 2
    )


def log_mel(waveform: F32, sample_rate: int) -> F32:
    """The cells of the picture of a waveform, in decibels: float32 (96, T), low bands first.

    :param waveform: float32 (S,) at ``sample_rate`` (Hz), of at least one sample.
    """
    import torch

    from logitstore.views.mel import LogMel

    made = front_end(len(waveform) / sample_rate, sample_rate)
    short = max(0, made.n_fft // 2 + 1 - len(waveform))
    padded = torch.from_numpy(np.pad(np.asarray(waveform, np.float32), (0, short)))
    return np.asarray(LogMel(made)(padded[None])[0].numpy(), np.float32)


def png(cells: F32, loudest: float | None = None) -> bytes:
    """A PNG file of decibels, low bands at the bottom, one pixel a cell.

    :param cells: float32 (bands, frames).
    :param loudest: decibels of the brightest colour; by default the highest cell. Give that of the
        original to pictures of its views, so that what is quieter looks quieter.
    :raises MissingExtraError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("pillow", "report", "a picture of a view") from None
    shade = shades(cells, float(cells.max()) if loudest is None else loudest) * 255
    image = Image.fromarray(np.ascontiguousarray(shade[::-1].astype(np.uint8)), "L")
    image = image.convert("P")  # an index into 256 colours
    image.putpalette(palette().tobytes())
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def shades(cells: F32, loudest: float) -> F32:
    """Decibels as shares of a picture's range of loudness, float32 in [0, 1], 1 for what is as loud as ``loudest``."""
    top = max(loudest, QUIETEST_DB)
    return np.asarray(np.clip((cells - top + RANGE_DB) / RANGE_DB, 0, 1), np.float32)


def boxes(masks: Masks | None, seconds: float, sample_rate: int) -> list[Box]:
    """Where the masks of one view lie in its picture; none where nothing is hidden.

    :param masks: of one row, or None. :param seconds: length of the view. :param sample_rate: of its waveform, in Hz.
    """
    if masks is None:
        return []
    start, stop, low, high = (
        float(np.asarray(ends).reshape(-1)[0])
        for ends in (masks.time_start, masks.time_end, masks.freq_low, masks.freq_high)
    )
    found = []
    if start < stop:
        left, right = np.clip((start / seconds, stop / seconds), 0, 1).tolist()
        found.append(Box("time", start, stop, left, 0.0, right - left, 1.0))
    if low < high:
        under, over = np.clip([height(low, sample_rate), height(high, sample_rate)], 0, 1).tolist()
        found.append(Box("frequency", low, high, 0.0, 1.0 - over, 1.0, over - under))
    return found


def height(hertz: float, sample_rate: int) -> float:
    """Where a frequency lies in a picture, from 0 at its bottom to 1 at its top: the HTK mel scale to half the rate."""
    return float(np.log1p(hertz / 700.0) / np.log1p(sample_rate / 2 / 700.0))


def wav(waveform: F32, sample_rate: int) -> bytes:
    """A WAV file of 32-bit floats: the very samples that the teachers heard. The same samples give the same bytes.

    :param waveform: float32 (S,). :param sample_rate: in Hz.
    """
    samples = np.asarray(waveform, "<f4").tobytes()  # libsndfile would write the time beside the peak
    form = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 3, 1, sample_rate, 4 * sample_rate, 4, 32, 0)
    chunks = form + struct.pack("<4sII4sI", b"fact", 4, len(waveform), b"data", len(samples)) + samples
    return struct.pack("<4sI4s", b"RIFF", 4 + len(chunks), b"WAVE") + chunks


def palette() -> npt.NDArray[np.uint8]:
    """256 colours, uint8 (256, 3)."""
    stops = np.linspace(0, 255, len(_COLOURS))
    channels = [np.interp(np.arange(256), stops, channel) for channel in np.array(_COLOURS).T]
    return np.stack(channels, axis=1).round().astype(np.uint8)
