"""Decode one clip: cut, mix to mono, resample, each clip alone, so that nothing around it can change a sample."""

from __future__ import annotations

import numpy as np

from logitstore.arrays import F32
from logitstore.audio.audiofile import Opened, mono, opened
from logitstore.audio.lengths import samples_at
from logitstore.audio.source import Source
from logitstore.errors import AudioError

#: A float file may exceed 1; what exceeds this is no sound but numbers of another kind: 120 dB over full scale.
MAX_SAMPLE = 1e6


def decode(source: Source, path: str, start: int, length: int, rate: int, sample_rate: int) -> F32:
    """The waveform of one clip.

    Read as float32 in [-1, 1] (a float file may exceed it), averaged over channels, resampled by soxr's HQ filter on
    these frames alone, then cut or zero-padded to the exact number of samples. The same bits from any
    thread or process.

    :param path: the clip's key in the source.
    :param start: first frame, in the file's own rate.
    :param length: frames; the clip is [start, start + length).
    :param rate: the file's own rate in Hz, as the clip table has it.
    :param sample_rate: of the result, in Hz.
    :returns: float32 (samples_at(length, rate, sample_rate),).
    :raises AudioError: unreadable, truncated, empty, not finite, or louder than :data:`MAX_SAMPLE`. The message is a
        reason that may be stored: it holds no path of the machine. Reading is strict: one frame short is truncated,
        whatever the format.
    """
    with opened(source.read(path)) as sound:
        clip = mono(_checked(sound, start, length, rate))
    try:
        waveform = resample_clip(clip, rate, sample_rate)
    except (RuntimeError, ValueError) as error:
        raise AudioError(f"cannot be resampled from {rate} to {sample_rate} Hz: {error}") from None
    if not len(waveform):
        raise AudioError(f"empty: {length} frames at {rate} Hz are less than one sample at {sample_rate} Hz")
    if not np.isfinite(waveform).all():
        raise AudioError("not finite: samples overflow float32 when resampled")
    return waveform


def resample_clip(clip: F32, rate: int, new_rate: int) -> F32:
    """One clip at ``new_rate`` (Hz) through soxr's HQ filter.

    :param clip: float32 (n,) at ``rate`` (Hz).
    :returns: float32 of exactly n * new_rate / rate samples, rounded half up.
    :raises ValueError, RuntimeError: soxr cannot go from the one rate to the other.
    """
    import soxr

    samples = int(samples_at(len(clip), rate, new_rate))
    out = np.zeros(samples, dtype=np.float32)
    resampled = (clip if rate == new_rate else soxr.resample(clip, rate, new_rate, quality="HQ"))[:samples]
    out[: len(resampled)] = resampled
    return out


def _checked(sound: Opened, start: int, length: int, rate: int) -> F32:
    """The frames of the clip, float32 (length, channels), all of them there and finite."""
    if not length and not sound.frames:
        raise AudioError("empty: the file has no frames")
    if sound.rate != rate and (rate or length):
        raise AudioError(f"changed: the file is at {sound.rate} Hz; it was at {rate} Hz when the clips were listed")
    if not length:
        if rate and start >= sound.frames:
            raise AudioError(f"empty: starts at frame {start} of a file of {sound.frames} frames")
        if rate:
            raise AudioError("empty: the clip's duration is less than one frame")
        raise AudioError("changed: readable now, but not when the clips were listed")
    frames, complaint = sound.read(start, length)
    if not len(frames) and not sound.frames:
        raise AudioError("empty: the file has no frames")
    if len(frames) < length:
        raise AudioError(f"truncated: {len(frames)} of {length} frames" + (f" ({complaint})" if complaint else ""))
    if complaint:
        raise AudioError(f"truncated: the stream breaks off after {start + length} frames ({complaint})")
    if sound.breaks_off and start + length >= sound.frames:
        raise AudioError(f"truncated: the Ogg stream breaks off after {sound.frames} frames")
    if not -MAX_SAMPLE <= frames.min() <= frames.max() <= MAX_SAMPLE:
        finite = np.isfinite(frames).all(axis=1)
        if not finite.all():
            raise AudioError(f"not finite: {length - int(finite.sum())} of {length} frames are NaN or infinite")
        raise AudioError(f"too loud: its largest sample is {np.abs(frames).max():.3g}; at most {MAX_SAMPLE:g} is sound")
    return frames
