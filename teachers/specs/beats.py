"""BEATs checkpoints as published: ``cfg`` states the sizes, ``label_dict`` which class an output is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from logitstore.classes import audioset, check_classes
from logitstore.errors import TeacherError
from logitstore.models.beats import Beats, BeatsSize
from logitstore.models.published import classes_of
from logitstore.models.sidecar import read_sidecar
from logitstore.models.torchfile import loaded, read_torch_file, state_of
from logitstore.training.runs import weights_digest
from teachers.specs.run_folder import TaggerTeacher

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = ("beats:FILE", "a BEATs checkpoint that was fine-tuned to tag, as published")
_ORIGIN = "https://github.com/microsoft/unilm/tree/master/beats"
#: Its published models; see :mod:`teachers.registry`.
PUBLISHED = (
    ("BEATs iter1 (AS2M)", 527, 16000, None, "MIT", "https://github.com/microsoft/unilm/tree/master/beats"),
    ("BEATs iter2 (AS2M)", 527, 16000, None, "MIT", "https://github.com/microsoft/unilm/tree/master/beats"),
    ("BEATs iter3 (AS2M)", 527, 16000, None, "MIT", "https://github.com/microsoft/unilm/tree/master/beats"),
    ("BEATs iter3+ (AS2M)", 527, 16000, None, "MIT", "https://github.com/microsoft/unilm/tree/master/beats"),
)

_WHAT = "a BEATs checkpoint"
#: A number of the checkpoint's ``cfg`` -> what it is of the net, and the most that it can be.
_SIZES = {
    "encoder_layers": ("layers", 96),
    "encoder_embed_dim": ("dim", 8192),
    "encoder_ffn_embed_dim": ("hidden", 32768),
    "encoder_attention_heads": ("heads", 128),
    "input_patch_size": ("patch", 128),
    "embed_dim": ("patch_dim", 8192),
    "conv_pos": ("conv_positions", 1024),
    "conv_pos_groups": ("conv_groups", 1024),
    "num_buckets": ("buckets", 8192),
    "max_distance": ("max_distance", 65536),
}
_FLAGS = {"gru_rel_pos": "gated", "deep_norm": "deep_norm", "layer_norm_first": "norm_first", "conv_bias": "patch_bias"}
_BIAS = "self_attn.relative_attention_bias.weight"
_POSITIONS = "encoder.pos_conv.0"


def load(spec: str, rest: str) -> TaggerTeacher:
    """The teacher of ``beats:FILE``.

    Classes are AudioSet's display names by the MIDs of the file's ``label_dict``, or those of a sidecar ``FILE.json``.

    :raises TeacherError: no such file, not a PyTorch file, not a BEATs checkpoint, or one without a classifier.
    """
    path = Path(rest)
    whose = f"teacher {spec!r}"
    document = read_torch_file(path, whose=whose, what=_WHAT, error=TeacherError)
    if not isinstance(document, dict) or not isinstance(document.get("cfg"), dict) or "model" not in document:
        raise TeacherError(f"{whose} is not {_WHAT}: {rest!r} holds no 'cfg' and 'model'")
    config = document["cfg"]
    state = state_of(document, path, whose=whose, what=_WHAT, error=TeacherError)
    if "predictor.weight" not in state:
        raise TeacherError(
            f"{whose} was never fine-tuned to tag (it has no 'predictor.weight'), so it gives features and no scores; "
            "take a checkpoint whose name says finetuned_on_AS2M or AS20K"
        )
    size = _size(config, whose)
    state = _ours(state, size, whose)
    outputs = len(state["predictor.weight"])
    model = loaded(lambda: Beats(outputs, size=size), state, whose=whose, what=_WHAT)
    classes, mids = _classes(document.get("label_dict"), path, outputs, whose)
    return TaggerTeacher(
        spec, "beats", model, classes, weights_digest(model.state_dict()),
        mids=mids, trained_seconds=10.0, licence="MIT (the published weights)", origin=_ORIGIN,
    )  # fmt: skip


def _size(config: dict[Any, Any], whose: str) -> BeatsSize:
    """The sizes that the checkpoint states.

    :raises TeacherError: one that no such net can have.
    """
    said: dict[str, Any] = {}
    for key, (name, most) in _SIZES.items():
        value = config.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise TeacherError(f"{whose} is not {_WHAT}: its cfg has {key} {value!r}; it is 1 to {most:,}")
        said[name] = value
    for key, name in _FLAGS.items():
        said[name] = bool(config.get(key))
    if said["dim"] % said["heads"] or said["dim"] % said["conv_groups"] or said["buckets"] < 4:
        raise TeacherError(
            f"{whose} is not {_WHAT}: its width {said['dim']} is no multiple of {said['heads']} heads and "
            f"{said['conv_groups']} groups, or it has fewer than 4 buckets"
        )
    for key, known in (("activation_fn", "gelu"), ("relative_position_embedding", True)):
        if config.get(key) != known:
            raise TeacherError(f"{whose}: its cfg has {key} {config.get(key)!r}; known is {known!r}")
    return BeatsSize(**said)


def _ours(state: dict[str, torch.Tensor], size: BeatsSize, whose: str) -> dict[str, torch.Tensor]:
    """The tensors as our net has them: the weight norm multiplied out, the bias of positions once.

    :raises TeacherError: either is not as BEATs has it.
    """
    gain, direction = state.pop(f"{_POSITIONS}.weight_g", None), state.pop(f"{_POSITIONS}.weight_v", None)
    biases = {key: state.pop(key) for key in list(state) if key.endswith(_BIAS)}
    first = next(iter(biases.values()), None)
    if gain is None or direction is None or first is None or direction.dim() != 3:
        raise TeacherError(f"{whose} is not {_WHAT}: it lacks {_POSITIONS}.weight_g, weight_v or a layer's {_BIAS}")
    if not all(torch.equal(first, bias) for bias in biases.values()):
        raise TeacherError(f"{whose}: its layers have different biases of relative positions; in BEATs they share one")
    norm = direction.double().pow(2).sum(dim=(0, 1), keepdim=True).sqrt()
    weight = (direction.double() * (gain.double() / norm)).float()
    return state | {f"{_POSITIONS}.weight": weight, "encoder.relative_attention_bias.weight": first}


def _classes(
    labels: Any, path: Path, outputs: int, whose: str
) -> tuple[tuple[str, ...], tuple[str | None, ...] | None]:
    """Names and MIDs of the outputs.

    :raises TeacherError: labels that are not one for each output.
    """
    sidecar = read_sidecar(path)
    if labels is None or (sidecar is not None and sidecar.classes is not None):
        return classes_of(whose, path, outputs), None
    if not isinstance(labels, dict) or sorted(labels, key=str) != sorted(range(outputs), key=str):
        raise TeacherError(f"{whose}: its label_dict does not name the outputs 0 to {outputs - 1}")
    names = {row.mid: row.display_name for row in audioset()}
    said = [str(labels[index]) for index in range(outputs)]
    mids = tuple(mid if mid in names else None for mid in said)
    return check_classes([names.get(mid, mid) for mid in said], whose=whose), mids
