"""PaSST checkpoints as published: a bare state dict, whose shapes say the architecture.

The stride follows from the positions of frequency (12 bands of patches: 10; 8: 16), the longest view from those of
time; a head is 64 wide. The distillation token's own classifier is never asked, as in the authors' package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from logitstore.errors import TeacherError
from logitstore.models.kaldi_mel import KaldiMelFrontEnd
from logitstore.models.passt import Passt
from logitstore.models.published import classes_of
from logitstore.models.torchfile import loaded, read_torch_file, state_of
from logitstore.training.runs import weights_digest
from teachers.specs.run_folder import TaggerTeacher

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = ("passt:FILE", "a PaSST checkpoint, as published")
#: Its published models; see :mod:`teachers.registry`.
PUBLISHED = (
    ("PaSST-S s10", 527, 32000, 0.476, "Apache-2.0", "https://github.com/kkoutini/PaSST/releases"),
    ("PaSST-S s16", 527, 32000, 0.468, "Apache-2.0", "https://github.com/kkoutini/PaSST/releases"),
)

_WHAT = "a PaSST checkpoint"
_HEAD, _TIMES, _BANDS = "head.1.weight", "time_new_pos_embed", "freq_new_pos_embed"
_HEAD_WIDTH = 64
#: Tensors of the file that are no part of what is asked.
_UNUSED = ("head_dist.", "pos_embed", "time_pos_embed", "freq_pos_embed")


def load(spec: str, rest: str) -> TaggerTeacher:
    """The teacher of ``passt:FILE``. Classes are AudioSet's 527, or those of a sidecar ``FILE.json``.

    :raises TeacherError: no such file, not a PyTorch file, not a PaSST checkpoint, or one of another form.
    """
    path = Path(rest)
    whose = f"teacher {spec!r}"
    document = read_torch_file(path, whose=whose, what=_WHAT, error=TeacherError)
    state = state_of(document, path, whose=whose, what=_WHAT, error=TeacherError, keys=("model", "state_dict"))
    state = {key.removeprefix("net."): value for key, value in state.items()}
    for key, dimensions in ((_HEAD, 2), (_TIMES, 4), (_BANDS, 4), ("blocks.0.mlp.fc1.weight", 2)):
        if key not in state or state[key].dim() != dimensions:
            raise TeacherError(
                f"{whose} is not {_WHAT}: {str(path)!r} has {len(state)} tensors, and none is {key!r} of {dimensions} "
                "dimensions"
            )
    arguments = _arguments(state, whose)
    outputs = len(state[_HEAD])
    ours = {
        key.replace("head.", "classifier.") if key.startswith("head.") else key: value
        for key, value in state.items()
        if not key.startswith(_UNUSED)
    }
    model = loaded(lambda: Passt(outputs, **arguments), ours, whose=whose, what=_WHAT)
    return TaggerTeacher(
        spec, "passt", model, classes_of(whose, path, outputs), weights_digest(model.state_dict()),
        trained_seconds=10.0, licence="Apache-2.0 (the published weights)", origin="https://github.com/kkoutini/PaSST",
    )  # fmt: skip


def _arguments(state: dict[str, torch.Tensor], whose: str) -> dict[str, Any]:
    """What the shapes say of the net.

    :raises TeacherError: positions that no stride gives; a width that is no number of heads.
    """
    dim, bands, times = state[_TIMES].shape[1], state[_BANDS].shape[2], state[_TIMES].shape[3]
    mels = KaldiMelFrontEnd().n_mels
    strides = [stride for stride in range(1, 17) if (mels - 16) // stride + 1 == bands]
    usual = [stride for stride in strides if stride in (10, 16)] or strides[:1]
    if not usual or dim % _HEAD_WIDTH:
        raise TeacherError(
            f"{whose} is not {_WHAT} of a known form: {bands} positions of frequency for {mels} bands, and tokens of "
            f"{dim}, which must be a multiple of {_HEAD_WIDTH}"
        )
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    return {
        "dim": dim, "depth": depth, "heads": dim // _HEAD_WIDTH, "hidden": len(state["blocks.0.mlp.fc1.weight"]),
        "stride": usual[0], "times": times, "bands": bands,
    }  # fmt: skip
