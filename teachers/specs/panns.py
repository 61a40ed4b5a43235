"""PANNs checkpoints as published, without what else their authors' files pickle.

The file holds the tables of its own front end: their sizes and values say the rate and the bands, and are held against
ours. The hop is not in it, and is 10 ms unless ``panns:FILE?hop=N`` says how many samples.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logitstore.errors import TeacherError
from logitstore.models.panns import Panns, PannsDecisionLevel, front_end_at
from logitstore.models.panns_mobile import PannsMobile
from logitstore.models.published import classes_of
from logitstore.models.tagger import Tagger
from logitstore.models.torchfile import loaded, read_torch_file, state_of
from logitstore.training.runs import weights_digest
from teachers.registry import split_options
from teachers.specs.run_folder import TaggerTeacher

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = (
    "panns:FILE",
    "a PANNs checkpoint, as published: Cnn6, Cnn10, Cnn14, Cnn14_DecisionLevelAtt, MobileNetV1 or 2; ?hop=SAMPLES",
)
#: Its published models; see :mod:`teachers.registry`.
PUBLISHED = (
    ("Cnn14", 527, 32000, 0.431, "CC BY 4.0", "https://zenodo.org/records/3987831"),
    ("Cnn14_16k", 527, 16000, 0.438, "CC BY 4.0", "https://zenodo.org/records/3987831"),
    ("Cnn14_8k", 527, 8000, 0.416, "CC BY 4.0", "https://zenodo.org/records/3987831"),
    ("Cnn14_mel32", 527, 32000, None, "CC BY 4.0", "https://zenodo.org/records/3987831"),
    ("Cnn14_mel128", 527, 32000, None, "CC BY 4.0", "https://zenodo.org/records/3987831"),
    ("Cnn14_DecisionLevelAtt", 527, 32000, None, "CC BY 4.0", "https://zenodo.org/records/3987831"),
    ("Cnn10", 527, 32000, 0.380, "CC BY 4.0", "https://zenodo.org/records/3987831"),
    ("Cnn6", 527, 32000, 0.343, "CC BY 4.0", "https://zenodo.org/records/3987831"),
    ("MobileNetV1", 527, 32000, 0.389, "CC BY 4.0", "https://zenodo.org/records/3987831"),
    ("MobileNetV2", 527, 32000, 0.383, "CC BY 4.0", "https://zenodo.org/records/3987831"),
)

_WHAT = "a PANNs checkpoint"
_KNOWN = "Cnn6, Cnn10, Cnn14, Cnn14_DecisionLevelAtt, MobileNetV1 and MobileNetV2"
_WINDOW, _BANK = "spectrogram_extractor.stft.conv_real.weight", "logmel_extractor.melW"
_TABLES = ("spectrogram_extractor.", "logmel_extractor.")
_HEAD, _BY_ATTENTION = "fc_audioset.weight", "att_block.cla.weight"
_RATES = {1024: 32000, 512: 16000, 256: 8000}
#: In the names of nets whose tensors are Cnn14's, and which pool answers over time instead of features.
_BY_FRAMES = "DecisionLevel"
_TOLERANCE = 1e-3  # of the largest weight of a band


def load(spec: str, rest: str) -> TaggerTeacher:
    """The teacher of ``panns:FILE`` or ``panns:FILE?hop=N``. Classes are AudioSet's 527, or those of ``FILE.json``.

    :raises TeacherError: no such file, not a PyTorch file, not one of the nets that are known, another front end.
    """
    name, options = split_options(spec, rest, ("hop",))
    path = Path(name)
    whose = f"teacher {spec!r}"
    document = read_torch_file(path, whose=whose, what=_WHAT, error=TeacherError, allowed=_arrays(), zipped=False)
    state = state_of(document, path, whose=whose, what=_WHAT, error=TeacherError)
    if _BY_FRAMES in path.name and _BY_ATTENTION not in state:
        raise TeacherError(
            f"{whose}: by its name, {path.name!r} answers frame by frame; its tensors are those of Cnn14, which would "
            f"say something else with them. Known are {_KNOWN}"
        )
    if _HEAD not in state and _BY_ATTENTION not in state:
        raise TeacherError(f"{whose} is not {_WHAT}: {name!r} has {len(state)} tensors, and none is {_HEAD!r}")
    arguments = _front_end(state, whose) | {"hop": _hop(spec, options.get("hop"))}
    own = {key: value for key, value in state.items() if not key.startswith(_TABLES)}
    outputs = len(state[_BY_ATTENTION if _BY_ATTENTION in state else _HEAD])
    kind, further = _kind(own, whose)
    model = loaded(lambda: kind(outputs, **further, **arguments), own, whose=whose, what=f"{_WHAT} ({_KNOWN})")
    net = further.get("name") or (
        f"mobilenetv{further['version']}" if "version" in further else "cnn14-decision-level-att"
    )
    return TaggerTeacher(
        spec, f"panns {net}", model, classes_of(whose, path, outputs), weights_digest(model.state_dict()),
        trained_seconds=10.0, licence="CC BY 4.0 (the published weights)", origin="https://zenodo.org/records/3987831",
    )  # fmt: skip


def _arrays() -> list[Any]:
    """What the state of a sampler is pickled as beside the weights: NumPy arrays of whole numbers."""
    from numpy._core.multiarray import _reconstruct  # by the name that NumPy 1 gave it

    kinds = [type(np.dtype(kind)) for kind in ("int64", "int32", "float64", "float32")]
    return [(_reconstruct, "numpy.core.multiarray._reconstruct"), _reconstruct, np.ndarray, np.dtype, *kinds]


def _front_end(state: dict[str, torch.Tensor], whose: str) -> dict[str, Any]:
    """Rate and bands, of the tables in the file.

    :raises TeacherError: none, or others than ours.
    """
    window, bank = state.get(_WINDOW), state.get(_BANK)
    if window is None or bank is None or window.dim() != 3 or bank.dim() != 2:
        raise TeacherError(f"{whose} is not {_WHAT}: it lacks the tables {_WINDOW!r} and {_BANK!r} of its front end")
    rate, mels = _RATES.get(window.shape[2]), bank.shape[1]
    ours = None if rate is None or not 32 <= mels <= 1024 else front_end_at(rate, mels).filter_bank()
    known = ours is not None and ours.shape == tuple(bank.shape) and _is_hann(window)
    if ours is None or not known or float(np.abs(bank.numpy() - ours).max()) > _TOLERANCE * float(ours.max()):
        raise TeacherError(
            f"{whose} has another front end: a window of {window.shape[2]} samples and {tuple(bank.shape)} weights of "
            "bands; known are windows of 1,024, 512 and 256 samples at 32, 16 and 8 kHz, a periodic Hann "
            "and Slaney bands from 50 Hz to 14, 8 and 4 kHz"
        )
    return {"sample_rate": rate, "mels": mels}


def _is_hann(real: torch.Tensor) -> bool:
    """Whether the real part of a transform, (bins, 1, N), is one through a periodic Hann window."""
    bins, _, size = real.shape
    angles = 2 * np.pi * np.outer(np.arange(bins), np.arange(size)) / size
    expected = np.cos(angles) * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size))
    return bins == size // 2 + 1 and float(np.abs(real[:, 0].numpy() - expected).max()) < _TOLERANCE


def _kind(state: dict[str, torch.Tensor], whose: str) -> tuple[Callable[..., Tagger], dict[str, Any]]:
    """The net, and which of its forms.

    :raises TeacherError: none that is known.
    """
    first = state.get("conv_block1.conv1.weight")
    if "features.18.0.weight" in state:
        return PannsMobile, {"version": 2}
    if "features.13.4.weight" in state:
        return PannsMobile, {"version": 1}
    if first is not None and first.dim() == 4:
        if _BY_ATTENTION in state:
            return PannsDecisionLevel, {}
        if "conv_block6.conv1.weight" in state:
            return Panns, {"name": "cnn14"}
        return Panns, {"name": "cnn6" if first.shape[2] == 5 else "cnn10"}
    raise TeacherError(f"{whose} is none of the PANNs that are known: {_KNOWN}")


def _hop(spec: str, given: str | None) -> int | None:
    if given is not None and (not given.isdecimal() or not 1 <= int(given) <= 100_000):
        raise TeacherError(f"teacher {spec!r}: hop is {given!r}; it is a whole number of samples, such as 320")
    return None if given is None else int(given)
