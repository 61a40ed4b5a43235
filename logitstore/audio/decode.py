"""Decode one clip: cut, mix to mono, resample, each clip alone, so that nothing around it can change a sample."""

from __future__ import annotations

import numpy as np

from logitstore.arrays import F32
from logitstore.audio.audiofile import Audio, Opened, mono, opened
from logitstore.audio.lengths import samples_at
from logitstore.audio.pcm import Samples, open_samples
from logitstore.audio.source import Source
from logitstore.errors import AudioError

#: A float file may exceed 1; what exceeds this is no sound but numbers of another kind: 120 dB over full scale.
MAX_SAMPLE = 1e6


def decode(source: Source, path: str, start: int, length: int, rate: int, sample_rate: int) -> F32:
    """The waveform of one clip of a source; see :func:`decode_audio`.

    :param path: the clip's key in the source.
    """
    return decode_audio(source.read(path), start, length, rate, sample_rate)


def decode_audio(audio: Audio, start: int, length: int, rate: int, sample_rate: int) -> F32:
    """The waveform of one clip.

    Read as float32 in [-1, 1] (a float file may exceed it), averaged over channels, resampled by soxr's HQ filter on
    these frames alone, then cut or zero-padded to the exact number of samples. The same bits from any
    thread or process.

    :param audio: what a source reads, open for this one reader.
    :param start: first frame, in the file's own rate.
    :param length: frames; the clip is [start, start + length).
    :param rate: the file's own rate in Hz, as the clip table has it.
    :param sample_rate: of the result, in Hz.
    :returns: float32 (samples_at(length, rate, sample_rate),).
    :raises AudioError: unreadable, truncated, empty, not finite, or louder than :data:`MAX_SAMPLE`. The message is a
        reason that may be stored: it holds no path of the machine. Reading is strict: one frame short is truncated,
        whatever the format.
    """
    frames = _undecoded(audio, start, length, rate)
    if frames is None:
        with opened(audio) as sound:
            frames = _checked(sound, start, length, rate)
    clip = mono(frames)
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


def write_samples(audio: Audio, start: int, length: int, rate: int, row: F32, turn: int = 0) -> int:
    """Write a clip that needs neither decoder, mixing nor resampling where it is wanted, at the start of a row.

    :param start, length, rate: as of :func:`decode`. :param row: float32 (S,), of which a longer clip is cut to S.
    :param turn: samples by which the clip is turned in a circle: ``row[(i + turn) mod n]`` is its i-th of n.
    :returns: n, the samples that were written, the bits of :func:`decode`; 0 where the clip needs one of these, or is
        not whole, and nothing in the row can be relied upon.
    """
    samples = open_samples(audio)
    if samples is None:
        return 0
    try:
        count = min(length, len(row))
        if not _holds(samples, start, length, rate) or samples.channels != 1:
            return 0
        return count if samples.read(start, row[:count], turn) else 0
    finally:
        samples.close()


def _undecoded(audio: Audio, start: int, length: int, rate: int) -> F32 | None:
    """The frames of a clip that needs no decoder, float32 (length, channels); None of every other."""
    samples = open_samples(audio)
    if samples is None:
        return None
    try:
        if not _holds(samples, start, length, rate):
            return None
        frames = np.empty(length * samples.channels, np.float32)
        return frames.reshape(length, samples.channels) if samples.read(start, frames) else None
    finally:
        samples.close()


def _holds(samples: Samples, start: int, length: int, rate: int) -> bool:
    """Whether all of a clip is there, at the rate that it was listed with."""
    return samples.rate == rate and length > 0 and start >= 0 and start + length <= samples.frames


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
