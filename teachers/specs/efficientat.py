"""EfficientAT checkpoints as published: a bare state dict, whose shapes say width, head and kind of blocks.

What shapes cannot say is in the name of a published file, ``mn10_as_hop_15_mAP_463.pt``: hop (ms), bands, strides;
under other names ``?hop=SAMPLES``, ``?mels=N`` and ``?strides=2221`` do, and what is not said is the usual. How sharply
a dymn chooses among its kernels, its temperature, is in no file: 1 for the published ones that were trained on
AudioSet, and to be said of any other.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from logitstore.errors import TeacherError
from logitstore.models.efficientat import EfficientAt
from logitstore.models.mobile import channels_at
from logitstore.models.published import classes_of
from logitstore.models.torchfile import loaded, read_torch_file, state_of
from logitstore.training.runs import weights_digest
from teachers.registry import split_options
from teachers.specs.run_folder import TaggerTeacher

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = (
    "efficientat:FILE",
    "an EfficientAT checkpoint, as published: mn or dymn; ?hop=, ?mels=, ?strides=, ?temperature= under another name",
)
#: Its published models; see :mod:`teachers.registry`.
PUBLISHED = (
    ("mn01_as", 527, 32000, 0.298, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("mn02_as", 527, 32000, 0.378, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("mn04_as", 527, 32000, 0.432, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("mn05_as", 527, 32000, 0.443, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("mn10_as", 527, 32000, 0.471, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("mn20_as", 527, 32000, 0.478, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("mn30_as", 527, 32000, 0.482, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("mn40_as", 527, 32000, 0.484, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("mn40_as_ext", 527, 32000, 0.487, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("dymn04_as", 527, 32000, 0.450, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("dymn10_as", 527, 32000, 0.477, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
    ("dymn20_as", 527, 32000, 0.493, "MIT", "https://github.com/fschmid56/EfficientAT/releases"),
)

_WHAT = "an EfficientAT checkpoint"
_WIDTHS = tuple(tenths / 10 for tenths in range(1, 81))
_SAMPLES_A_MS = 32
_PUBLISHED_NAME = re.compile(r"(dy)?mn\d\d_(replace_se_)?(as|im)\w*?(_hop_(?P<hop>\d+))?(_mels_(?P<mels>\d+))?"
                             r"(_s(?P<strides>[12]{4}))?(_mAP_\d+)?(\(\d\))?")  # fmt: skip


def load(spec: str, rest: str) -> TaggerTeacher:
    """The teacher of ``efficientat:FILE``, or of ``efficientat:FILE?hop=…&mels=…&strides=…&temperature=…``.

    Classes are AudioSet's 527, or those of a sidecar ``FILE.json``.

    :raises TeacherError: no such file, not a PyTorch file, none of these nets, an option that cannot be, or a dymn of
        which nobody says the temperature.
    """
    name, options = split_options(spec, rest, ("hop", "mels", "strides", "temperature"))
    path = Path(name)
    whose = f"teacher {spec!r}"
    document = read_torch_file(path, whose=whose, what=_WHAT, error=TeacherError)
    state = state_of(document, path, whose=whose, what=_WHAT, error=TeacherError)
    head = next((key for key in ("classifier.5.weight", "classifier.0.weight") if key in state), None)
    dynamic = _dynamic(state)
    if head is None or dynamic is None:
        raise TeacherError(
            f"{whose} is not {_WHAT}: of its {len(state)} tensors none is the first convolution and the head of one"
        )
    arguments = _stated(spec, path, options, dynamic != "none")
    arguments |= {"dynamic": dynamic, "convolutional": head == "classifier.0.weight"}
    outputs = len(state[head])
    width = _width(outputs, arguments, state)
    model = loaded(lambda: EfficientAt(outputs, width=width, **arguments), state, whose=whose, what=_WHAT)
    kind = "mn" if dynamic == "none" else "dymn"
    return TaggerTeacher(
        spec, f"efficientat {kind}", model, classes_of(whose, path, outputs), weights_digest(model.state_dict()),
        trained_seconds=10.0, licence="MIT (the published weights)", origin="https://github.com/fschmid56/EfficientAT",
    )  # fmt: skip


def _dynamic(state: dict[str, torch.Tensor]) -> str | None:
    """Which blocks are dynamic: "none", "all", or "se"; None of no such net."""
    if "features.0.0.weight" in state and "features.15.block.0.0.weight" in state:
        return "none"
    if "in_c.0.weight" in state and "layers.14.context_gen.joint_conv.weight" in state:
        return "all" if "layers.0.context_gen.joint_conv.weight" in state else "se"
    return None


def _width(outputs: int, arguments: dict[str, Any], state: dict[str, torch.Tensor]) -> float:
    """The width that the shapes are of, or are nearest to."""
    shapes = {name: tensor.shape for name, tensor in state.items()}
    tail = state["classifier.0.weight" if arguments["convolutional"] else "classifier.5.weight"].shape[1]
    likely = [width for width in _WIDTHS if tail in (6 * channels_at(160, width), channels_at(1280, width))]

    def differing(width: float) -> int:
        with torch.device("meta"):
            model = EfficientAt(outputs, width=width, **arguments)
        ours = {name: tensor.shape for name, tensor in model.state_dict().items()}
        return sum(ours.get(name) != shape for name, shape in shapes.items())

    return min(likely or _WIDTHS, key=differing)


def _stated(spec: str, path: Path, options: dict[str, str], dynamic: bool) -> dict[str, Any]:
    """What the name of the file and the options say that shapes do not.

    :raises TeacherError: an option that cannot be; a dymn without a temperature.
    """
    found = _PUBLISHED_NAME.fullmatch(path.stem)
    named = {} if found is None else {key: value for key, value in found.groupdict().items() if value is not None}
    said: dict[str, Any] = {}
    for key, low, high in (("hop", 32, 32_000), ("mels", 16, 1024)):
        text = options.get(key, named.get(key))
        if text is None:
            continue
        factor = _SAMPLES_A_MS if key == "hop" and key not in options else 1
        if not text.isdecimal() or not low <= int(text) * factor <= high:
            raise TeacherError(f"teacher {spec!r}: {key} is {text!r}; it is a whole number from {low} to {high:,}")
        said[key] = int(text) * factor
    strides = options.get("strides", named.get("strides"))
    if strides is not None:
        if not re.fullmatch("[12]{4}", strides):
            raise TeacherError(f"teacher {spec!r}: strides is {strides!r}; it is four digits of 1 and 2, such as 2221")
        said["strides"] = tuple(int(digit) for digit in strides)
    if "temperature" in options or dynamic:
        said["temperature"] = _temperature(spec, options.get("temperature"), found, dynamic)
    return said


def _temperature(spec: str, given: str | None, found: re.Match[str] | None, dynamic: bool) -> float:
    if not dynamic:
        raise TeacherError(f"teacher {spec!r} is no dymn, and has no temperature; leave it out")
    if given is None and found is not None and found[1] and found[3] == "as":
        return 1.0
    try:
        value = float(given or "")
    except ValueError:
        value = 0.0
    if not 0 < value <= 1000:
        raise TeacherError(
            f"teacher {spec!r} is a dymn, and the file does not say at which temperature it chooses among its kernels: "
            f"add ?temperature=1, as of those trained to the end, or the one that it was left at"
            + ("" if given is None else f"; {given!r} is no number from 0 to 1,000")
        )
    return value
