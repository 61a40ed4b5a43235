"""Doctor: whether what this machine has is what a build and a training need, and what to do where it is not.

Everything is tried rather than believed: packages are imported, sound of every kind is encoded and read back by the
decoder that builds use, a file is written where temporary files go, and views are drawn and rendered, whose random
integers are known and whose sound has to be what it was on the machine where the known answers were written down.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import io
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from logitstore.arrays import F32
from logitstore.models.machine import first_line, own_memory

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from logitstore.audio.audiofile import InMemory

#: ``ok``; ``missing``: can be had, and nothing needs it; ``broken``: needed, and does not work.
State = Literal["ok", "missing", "broken"]

#: What each extra is for; those of ``pyproject.toml`` that are not named here are for work on this project, or unused.
EXTRAS = {
    "media": "sound in m4a, aac, wma, webm, mp4 and others",
    "hf": "teachers from Hugging Face: AST and others",
    "onnx": "teachers in ONNX; export-student",
    "tflite": "teachers in TFLite, such as BirdNET",
    "ced": "HDF5: CED's logits, PANNs' waveforms, YAMNet's .h5",
    "cloud": "stores at URLs: S3, Google Cloud Storage",
    "report": "the report, pictures of views, figures",
    "serve": "the listening page",
    "shell": "inspect --shell with history and completion",
    "tensorboard": "curves of a training in TensorBoard",
    "adam8bit": "train-student --optimizer adam8bit, and the presets of CED",
    "ray": "build --engine ray, on a cluster",
}
#: What a package is imported as, where that is not what it is installed as.
_MODULES = {"PyYAML": "yaml", "scikit-learn": "sklearn"}
#: Kinds of sound: endings, libsndfile's format and subtype, how far what is read may be from what was written.
_SNDFILE = (
    ("WAV", "wav", "WAV", "PCM_16", 1e-3),
    ("FLAC", "flac", "FLAC", "PCM_16", 1e-3),
    ("AIFF", "aiff, aif", "AIFF", "PCM_16", 1e-3),
    ("Ogg Vorbis", "ogg, oga", "OGG", "VORBIS", 0.2),
    ("Opus", "opus", "OGG", "OPUS", 0.2),
    ("MP3", "mp3", "MP3", "MPEG_LAYER_III", 0.2),
)
#: Likewise of the extra ``media``: FFmpeg's container and encoder.
_MEDIA = (
    ("AAC in MP4", "m4a, mp4", "ipod", "aac", 0.3),
    ("AAC", "aac", "adts", "aac", 0.3),
    ("WMA", "wma", "asf", "wmav2", 0.3),
    ("Opus in WebM", "webm", "webm", "libopus", 0.3),
)
_RATE = 48_000
_LITTLE_SPACE = 1 << 30  # bytes free, below which a hint is due


@dataclass(frozen=True)
class Package:
    """A package that has to be there: its ``version``, what is ``allowed``, seconds that importing it took."""

    name: str
    allowed: str
    version: str | None
    seconds: float | None
    state: State
    reason: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Sound:
    """A kind of sound, by its usual ``endings``: whether it was written and read back here; which extra reads it."""

    name: str
    endings: str
    state: State
    reason: str = ""
    extra: str | None = None


@dataclass(frozen=True)
class Extra:
    """An extra, what it ``brings``, the packages that it ``lacks``, and what installs it."""

    name: str
    brings: str
    state: State
    lacks: tuple[str, ...]
    fix: str


@dataclass(frozen=True)
class Space:
    """A folder: bytes that are free, whether files can be written there."""

    use: str
    path: str
    free_bytes: int | None
    writable: bool
    state: State
    reason: str = ""


@dataclass(frozen=True)
class Trial:
    """Something that was computed here, and whether it is what it has to be."""

    name: str
    state: State
    reason: str = ""


@dataclass(frozen=True)
class Machine:
    """``cores`` and ``memory_bytes`` that this process may use, names of its ``gpus``, or why there are none."""

    system: str
    cores: int
    memory_bytes: int | None
    gpus: tuple[str, ...]
    no_gpu: str | None


@dataclass(frozen=True)
class Findings:
    """All that was looked at."""

    packages: list[Package]
    machine: Machine
    sounds: list[Sound]
    extras: list[Extra]
    space: list[Space]
    replay: list[Trial]
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def doctor() -> Findings:
    """Look at everything; it takes as long as importing torch, and a second or two."""
    began = time.monotonic()
    required, optional = _requirements()
    packages = [_python(), _itself(), *(_package(each) for each in required), *_libsndfile()]
    extras = [_extra(name, optional.get(name, [])) for name in EXTRAS]
    found = Findings(
        packages, _machine(), [*_sounds()], extras, [_space("this folder", Path.cwd()), _temporary()], _replayed()
    )
    problems = [f"{each.name}: {each.reason}" for each in found.packages if each.state == "broken"]
    problems += [f"{each.name}: {each.reason}" for each in found.sounds if each.state == "broken"]
    problems += [f"{each.use} ({each.path}): {each.reason}" for each in found.space if each.state == "broken"]
    problems += [f"{each.name}: {each.reason}" for each in found.replay if each.state == "broken"]
    return Findings(**vars(found) | {"problems": problems, "seconds": time.monotonic() - began})


# packages


def _requirements() -> tuple[list[Requirement], dict[str, list[Requirement]]]:
    """What this package says that it needs, always and for each extra; other platforms' left out."""
    from packaging.requirements import Requirement

    always: list[Requirement] = []
    by_extra: dict[str, list[Requirement]] = {}
    for text in [] if _version("logitstore") is None else importlib.metadata.requires("logitstore") or ():
        each = Requirement(text)
        if each.marker is None or each.marker.evaluate({"extra": ""}):
            always.append(each)
            continue
        for extra in EXTRAS:
            if each.marker.evaluate({"extra": extra}):
                by_extra.setdefault(extra, []).append(each)
    return always, by_extra


def _python() -> Package:
    from packaging.specifiers import SpecifierSet

    about = None if _version("logitstore") is None else importlib.metadata.metadata("logitstore")
    allowed = "" if about is None else str(about["Requires-Python"] or "")
    version = platform.python_version()
    if SpecifierSet(allowed).contains(version, prereleases=True):
        return Package("Python", allowed, version, None, "ok")
    return Package("Python", allowed, version, None, "broken", f"{version} is not {allowed}", "install another Python")


def _itself() -> Package:
    version = _version("logitstore")
    if version is not None:
        return Package("logitstore", "", version, None, "ok")
    return Package("logitstore", "", None, None, "broken", "it runs, and is not installed", "pip install .")


def _package(required: Requirement) -> Package:
    allowed, version = str(required.specifier), _version(required.name)
    fix = f"pip install '{required.name}{allowed}'"
    if version is None:
        return Package(required.name, allowed, None, None, "broken", "not installed", fix)
    began = time.monotonic()
    reason = _failing(lambda: importlib.import_module(_MODULES.get(required.name, required.name)))
    seconds = time.monotonic() - began
    if reason:
        return Package(required.name, allowed, version, None, "broken", f"cannot be imported: {reason}", fix)
    if not required.specifier.contains(version, prereleases=True):
        return Package(required.name, allowed, version, seconds, "broken", f"{version} is not {allowed}", fix)
    return Package(required.name, allowed, version, seconds, "ok")


def _libsndfile() -> Iterator[Package]:
    """The library that reads most sound; it comes with soundfile, or with the system."""
    soundfile = sys.modules.get("soundfile")
    if soundfile is not None:
        yield Package("libsndfile", "", soundfile.__libsndfile_version__, None, "ok")


def _extra(name: str, required: list[Requirement]) -> Extra:
    lacks = []
    for each in required:
        version = _version(each.name)
        if version is None:
            lacks.append(each.name)
        elif not each.specifier.contains(version, prereleases=True):
            lacks.append(f"{each.name}{each.specifier} ({version} is there)")
    return Extra(name, EXTRAS[name], "missing" if lacks else "ok", tuple(lacks), f"pip install 'logitstore[{name}]'")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _failing(what: Callable[[], object]) -> str:
    """Why something cannot be done here; an empty text where it can."""
    try:
        what()
    except Exception as error:  # noqa: BLE001 - what a broken installation raises can be anything
        text = " ".join(str(error).split())
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return ""


# the machine


def _machine() -> Machine:
    gpus, why = _gpus()
    return Machine(f"{platform.system()} {platform.machine()}", _cores(), own_memory(), gpus, why)


def _cores() -> int:
    """Cores that this process may use: of the machine, those that a scheduler or a container leaves it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = first_line("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit() and int(period):
        cores = max(1, min(cores, int(quota) // int(period)))
    return cores


def _gpus() -> tuple[tuple[str, ...], str | None]:
    """The names of the GPUs that ``--device cuda`` would use; where there is none, why."""
    torch = sys.modules.get("torch")
    if torch is None:
        return (), "torch cannot be imported"
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        return (), f"torch {torch.__version__} is built for the CPU alone; see pytorch.org for one with CUDA"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return (), f"CUDA_VISIBLE_DEVICES is {visible!r}, which hides all"
    reason = _failing(torch.cuda.init)
    if reason:
        return (), reason.partition(": ")[2].split(". ")[0] or reason
    names = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return tuple(f"{each.name}, {each.total_memory / 2**30:.0f} GiB" for each in names), None if names else "no GPU"


# sound


def _sounds() -> Iterator[Sound]:
    """Every kind of sound, written and read back; what the extra ``media`` reads only where it is there."""
    waveform = _tones()
    for name, endings, container, codec, allowed in _SNDFILE:
        yield Sound(name, endings, *_tried(_by_soundfile, waveform, container, codec, allowed))
    there = importlib.util.find_spec("av") is not None
    for name, endings, container, codec, allowed in _MEDIA:
        if there:
            yield Sound(name, endings, *_tried(_by_av, waveform, container, codec, allowed), "media")
        else:
            yield Sound(name, endings, "missing", "needs the extra media", "media")


def _tried(
    write: Callable[[F32, str, str], InMemory], waveform: F32, container: str, codec: str, allowed: float
) -> tuple[State, str]:
    """Whether sound of a kind is read here, as far as it can be written; and why not."""
    written: list[InMemory] = []
    reason = _failing(lambda: written.append(write(waveform, container, codec)))
    if reason:
        return "missing", f"cannot be written here, so reading it was not tried ({reason})"
    reason = _failing(lambda: _read_back(written[0], waveform, allowed))
    return ("broken" if reason else "ok"), reason


def _tones() -> F32:
    """Half a second of two tones, float32 (24000,)."""
    at = np.arange(_RATE // 2) / _RATE
    return (0.3 * np.sin(2 * np.pi * 440 * at) + 0.2 * np.sin(2 * np.pi * 1000 * at)).astype(np.float32)


def _by_soundfile(waveform: F32, container: str, subtype: str) -> InMemory:
    import soundfile

    from logitstore.audio.audiofile import InMemory

    stream = io.BytesIO()
    soundfile.write(stream, waveform, _RATE, format=container, subtype=subtype)
    return InMemory(stream.getvalue())


def _by_av(waveform: F32, container: str, codec: str) -> InMemory:
    import av

    from logitstore.audio.audiofile import InMemory

    stream = io.BytesIO()
    with av.open(stream, "w", format=container) as file:
        track: Any = file.add_stream(codec, rate=_RATE, layout="mono", bit_rate=128_000)
        kind = track.codec_context.format.name if track.codec_context.format is not None else "fltp"
        resampler = av.AudioResampler(format=kind, layout="mono", rate=_RATE)
        frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        frame.sample_rate = _RATE
        for each in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(track.encode(each))
        file.mux(track.encode(None))
    return InMemory(stream.getvalue())


def _read_back(stream: InMemory, waveform: F32, allowed: float) -> None:
    """Read what was written as a build would.

    :param allowed: share of the sound's level that the error may have, at the shift where it is least.
    :raises ValueError: it is another sound. :raises AudioError: it cannot be read.
    """
    from logitstore.audio.audiofile import mono, opened

    with opened(stream) as sound:
        heard = mono(sound.read(0, sound.frames)[0])
    if abs(len(heard) - len(waveform)) > _RATE // 10:
        raise ValueError(f"{len(heard) / _RATE:.2f} s of {len(waveform) / _RATE:.2f} s were read back")
    size = len(heard) + len(waveform)
    cross = np.fft.irfft(np.fft.rfft(heard, size) * np.fft.rfft(waveform, size).conj())  # at every shift
    error = 1 - float(cross.max() / np.linalg.norm(heard) / np.linalg.norm(waveform))
    if not error <= allowed:
        raise ValueError("another sound was read back than the one that was written")


# space


def _space(use: str, folder: Path) -> Space:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Space(use, str(folder), None, False, "broken", error.strerror or str(error))
    if not os.access(folder, os.W_OK):
        return Space(use, str(folder), free, False, "ok", "cannot be written to; give --out elsewhere")
    hint = "less than 1 GiB is free" if free < _LITTLE_SPACE else ""
    return Space(use, str(folder), free, True, "ok", hint)


def _temporary() -> Space:
    """The folder of temporary files, where SQL puts what does not fit into memory; a file is written there."""
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile() as file:
            file.write(bytes(1 << 16))
            file.flush()
    except OSError as error:
        return Space("temporary files", "", None, False, "broken", f"{error.strerror or error}; set TMPDIR")
    return _space("temporary files", folder)


# replay

#: What Random123 publishes of philox4x32-10: counter, key, words.
_PHILOX = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)
#: Digests of what is drawn of four clips under these recipes, and the band levels (dB) of the first view.
_KNOWN = {
    "ced": (
        "35a013f11f98df632c0261999aa3cc65",
        (9.793, 11.216, 12.752, 14.349, 3.833, 2.189, 18.502, 19.764),
    ),
    "wave": (
        "951828226f4611630c2babab2c09a672",
        (4.655, 6.062, 7.556, 9.274, -31.706, -49.482, 13.672, 14.711),
    ),
}
_CLIPS, _SAMPLES, _SOUND_RATE = 4, 32_000, 16_000


def _replayed() -> list[Trial]:
    checks: list[tuple[str, Callable[[], object]]] = [("random numbers are Random123's", _philox)]
    for recipe in _KNOWN:
        checks.append((f"draws and views of the recipe {recipe} are as ever", lambda name=recipe: _view(name)))  # type: ignore[misc]
    return [Trial(name, "broken" if reason else "ok", reason) for name, what in checks for reason in [_failing(what)]]


def _philox() -> None:
    from logitstore.views.philox import philox4x32

    for counter, key, words in _PHILOX:
        found = tuple(int(word) for word in philox4x32(counter, key))
        if found != words:
            raise ValueError(f"counter {counter} and key {key} give {found} and not {words}")


def _view(name: str) -> None:
    """Draw and render four clips, together and alone, and compare them with each other and with what is known."""
    drawn, together, alone, bands = rendered(name)
    known, levels = _KNOWN[name]
    if drawn != known:
        raise ValueError(
            f"the draws have the digest {drawn}, and had {known}; stores from elsewhere cannot be replayed"
        )
    if together != alone:
        raise ValueError("a view sounds otherwise in a batch than alone; this machine cannot replay what it builds")
    from logitstore.views.fingerprint import TOLERANCE_DB

    worst = max(abs(a - b) for a, b in zip(bands, levels, strict=True))
    if not worst <= TOLERANCE_DB:
        raise ValueError(f"band levels are {worst:.2f} dB off; stores from elsewhere cannot be replayed")


def rendered(name: str) -> tuple[str, str, str, tuple[float, ...]]:
    """Views of four clips of noise: digests of the draws, of the views rendered in a batch, of those rendered alone,
    and the band levels of the first, in dB."""
    from logitstore.digests import digest
    from logitstore.views.fingerprint import fingerprint
    from logitstore.views.ops import Place
    from logitstore.views.philox import philox4x32
    from logitstore.views.recipe import BUILT_IN, draw
    from logitstore.views.render import render

    lengths = np.array([_SAMPLES - 4000 * clip for clip in range(_CLIPS)], np.int64)
    words = [philox4x32((np.arange(length), clip, 0, 0), (10, 0))[0] for clip, length in enumerate(lengths.tolist())]
    clips = [(each.astype(np.float64) * 2.0**-32 - 0.5).astype(np.float32) for each in words]
    place = Place(_SAMPLES, _SOUND_RATE)
    recipe = BUILT_IN[name].fitted(place)
    keys = [(f"clip-{number}.wav", 0, length) for number, length in enumerate(lengths.tolist())]
    draws = draw(recipe, seed=7, keys=keys, view=3, lengths=lengths, place=place)

    def view(rows: slice) -> tuple[Any, Any]:
        return render(clips[rows], draws[rows], recipe, _SAMPLES, sample_rate=_SOUND_RATE)

    waveforms, masks = view(slice(None))
    singles = [view(slice(row, row + 1))[0][0].numpy() for row in range(_CLIPS)]
    first = fingerprint(0, 3, waveforms[0], None if masks is None else view(slice(0, 1))[1], _SOUND_RATE)
    integers = b"".join(draws.columns[column].astype("<i8").tobytes() for column in sorted(draws.columns))
    return digest(integers), digest(waveforms.numpy().tobytes()), digest(np.stack(singles).tobytes()), first.bands
