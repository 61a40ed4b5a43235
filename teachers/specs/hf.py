"""transformers audio-classification models as teachers, their features computed in torch and batched.

Two front ends are known. The Audio Spectrogram Transformer's: Kaldi's filter bank, masks filled with 0 on it before it
is padded and normalised. And the waveform itself, of Wav2Vec2, HuBERT, WavLM and their kin, each clip normalised alone
where the model's config says so; such a model takes no masks. Any other front end is refused by its name.

Classes are the config's ``id2label``. The score kind is the config's ``problem_type`` (multi-label: sigmoid,
single-label: softmax); a config without one means sigmoid where its classes are AudioSet's, softmax otherwise. A
sidecar ``PATH.json`` beside a local folder, or ``?scores=`` in the spec, says otherwise.
"""

from __future__ import annotations

import importlib
import json
import pickle
import warnings
from pathlib import Path
from typing import Any, Self

import safetensors
import torch
from torch.nn import functional as F

from logitstore.classes import audioset_indices, check_classes
from logitstore.digests import digest
from logitstore.errors import MissingExtraError, TeacherError
from logitstore.models.fbank import KaldiFbank, KaldiFrontEnd
from logitstore.models.sidecar import check_rate, check_scores, read_sidecar
from logitstore.models.tagger import probabilities
from logitstore.plugins import OWN_ERRORS
from logitstore.training.runs import weights_digest
from logitstore.views.mel import apply_masks
from logitstore.views.recipe import Masks
from teachers.contract import Contract
from teachers.registry import split_options
from teachers.teacher import Teacher

#: Its form, and what it is; see :mod:`teachers.registry`.
SPEC = ("hf:ID_OR_PATH", "a transformers audio-classification model; ?scores=sigmoid|softmax overrides its config")

AST = "audio-spectrogram-transformer"
_AST_RATE = 16000
_WAVEFORM_MODELS = (
    "data2vec-audio",
    "hubert",
    "sew",
    "sew-d",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-conformer",
    "wavlm",
)
_PROBLEM_TYPES = {"multi_label_classification": "sigmoid", "single_label_classification": "softmax"}
_VARIANCE_FLOOR = 1e-7
#: Keys of a config file that decide nothing of what a model says.
_SAYS_NOTHING = ("transformers_version", "torch_dtype", "dtype", "architectures")


class HfTeacher(Teacher):
    """What the two kinds share; a subclass turns waveforms into the model's input."""

    def __init__(self, spec: str, model: Any, extractor: Any, classes: tuple[str, ...], scores: str) -> None:
        self.spec = spec
        self.model = model.eval()
        self._weights = weights_digest(model.state_dict())
        self.contract = Contract(
            name=f"hf:{type(model).__name__}",
            classes=classes,
            scores=scores,
            sample_rate=check_rate(extractor.sampling_rate, whose=f"teacher {spec!r}"),
            digest=self._weights,
            output="logits",
            has_features=True,
        )

    def stated(self, config: dict[str, Any]) -> Self:
        """This teacher, known by its config file too, which says how weights are used: heads, strides, activation."""
        said = {key: value for key, value in config.items() if not key.startswith("_") and key not in _SAYS_NOTHING}
        return self.restate(digest=digest(f"{self._weights} {json.dumps(said, sort_keys=True, default=str)}".encode()))

    def earlier_digests(self) -> tuple[str, ...]:
        return (self._weights,)

    def inputs(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        """The model's input of waveforms float32 (B, S)."""
        raise NotImplementedError(f"{type(self).__name__} is an abstract teacher")

    @torch.inference_mode()
    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        return probabilities(self.model(self.inputs(waveforms, masks)).logits, self.scores)

    @torch.inference_mode()
    def features(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        return self.outputs(waveforms, masks)[1]

    @torch.inference_mode()
    def outputs(self, waveforms: torch.Tensor, masks: Masks | None) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.model(self.inputs(waveforms, masks), output_hidden_states=True)
        return probabilities(output.logits, self.scores), self.frames_of(output.hidden_states[-1])

    def frames_of(self, hidden: torch.Tensor) -> torch.Tensor:
        """Features (B, T, D) of the last hidden states."""
        return hidden

    def to(self, device: str | torch.device) -> Self:
        self.model.to(device)
        return self


class AstTeacher(HfTeacher):
    """An Audio Spectrogram Transformer."""

    def __init__(self, spec: str, model: Any, extractor: Any, classes: tuple[str, ...], scores: str) -> None:
        super().__init__(spec, model, extractor, classes, scores)
        if self.sample_rate != _AST_RATE:
            raise TeacherError(
                f"teacher {spec!r}: an Audio Spectrogram Transformer at {self.sample_rate} Hz; known is {_AST_RATE}"
            )
        config = model.config
        if (extractor.num_mel_bins, extractor.max_length) != (config.num_mel_bins, config.max_length):
            raise TeacherError(
                f"teacher {spec!r}: its feature extractor gives {extractor.num_mel_bins} bands x "
                f"{extractor.max_length} frames and its model takes {config.num_mel_bins} x {config.max_length}"
            )
        self.front_end = KaldiFrontEnd(sample_rate=self.sample_rate, n_mels=extractor.num_mel_bins)
        self.fbank = KaldiFbank(self.front_end)
        self.max_frames = int(extractor.max_length)
        self.shift, self.scale = (
            (float(extractor.mean), 2.0 * float(extractor.std)) if extractor.do_normalize else (0.0, 1.0)
        )
        longest = (self.max_frames - 1) * self.front_end.hop_length + self.front_end.win_length
        self.restate(
            takes_masks=True,
            front_end=self.front_end.to_dict(),
            fill={"stage": "log filter bank, before padding and normalisation", "value": 0.0},
            max_seconds=(longest + self.front_end.hop_length - 1) / self.sample_rate,
            arguments={"frames": self.max_frames, "mean": self.shift, "twice_std": self.scale},
        )

    def inputs(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        bank = apply_masks(self.fbank(waveforms), self.front_end, masks, 0.0)  # (B, F, T)
        if bank.shape[2] > self.max_frames:
            raise TeacherError(
                f"teacher {self.spec!r} hears {self.max_frames} frames, {self.contract.max_seconds:.2f} s, and a view "
                f"has {bank.shape[2]}; choose a shorter --clip-seconds"
            )
        padded = F.pad(bank, (0, self.max_frames - bank.shape[2]))
        return ((padded - self.shift) / self.scale).transpose(1, 2)  # (B, T, F)

    def frames_of(self, hidden: torch.Tensor) -> torch.Tensor:
        """Patches averaged over frequency, (B, T, D); the two class tokens are left out."""
        patches = hidden[:, 2:]  # (B, F' * T', D)
        config = self.model.config
        bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        return patches.reshape(len(patches), bands, -1, patches.shape[2]).mean(dim=1)

    def to(self, device: str | torch.device) -> Self:
        self.fbank.to(device)
        return super().to(device)


class WaveformTeacher(HfTeacher):
    """A model that takes waveforms."""

    def __init__(self, spec: str, model: Any, extractor: Any, classes: tuple[str, ...], scores: str) -> None:
        super().__init__(spec, model, extractor, classes, scores)
        self.normalise = bool(extractor.do_normalize)
        self.restate(arguments={"normalise": self.normalise})

    def inputs(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        if not self.normalise:
            return waveforms
        clips = (  # one clip at a time: batched reductions may round differently at other batch sizes
            (clip - clip.mean()) / torch.sqrt(clip.var(correction=0) + _VARIANCE_FLOOR) for clip in waveforms
        )
        return torch.stack(list(clips))


def load(spec: str, rest: str) -> HfTeacher:
    """The teacher of ``hf:ID_OR_PATH`` or ``hf:ID_OR_PATH?scores=sigmoid``; a path is read without the network.

    :raises TeacherError: not such a model, weights that are missing, a front end that is not known.
    :raises MissingExtraError: transformers is not installed.
    """
    try:
        transformers: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtraError("transformers", "hf", f"teacher {spec!r}") from error

    hub: Any = importlib.import_module("huggingface_hub.errors")
    wrong_field: type[Exception] = getattr(hub, "StrictDataclassError", ValueError)  # younger than some of its versions
    source, options = split_options(spec, rest, ("scores",))
    path = Path(source)
    if not path.is_dir() and (path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise TeacherError(f"teacher {spec!r}: no folder {source!r}; give a model's folder or its id on the hub")
    local = path.is_dir()
    known_noise = "At least one mel filter"  # of a filter bank that is not used here
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        safe = {"local_files_only": local, "trust_remote_code": False}
        config = transformers.AutoConfig.from_pretrained(source, **safe)
        written, _ = type(config).get_config_dict(source, local_files_only=local)
        if config.model_type != AST and config.model_type not in _WAVEFORM_MODELS:
            raise TeacherError(
                f"teacher {spec!r}: models of type {config.model_type!r} have a front end that is not known; known "
                f"are {AST}, {', '.join(_WAVEFORM_MODELS)}"
            )
        if getattr(config, "quantization_config", None) is not None:
            raise TeacherError(
                f"teacher {spec!r}: its weights are quantised, by a library that would come with it; give the model "
                "that was quantised, in float32 or float16"
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=known_noise)
            extractor = transformers.AutoFeatureExtractor.from_pretrained(source, **safe)
        model, report = transformers.AutoModelForAudioClassification.from_pretrained(
            source, config=config, output_loading_info=True, dtype=torch.float32, **safe
        )
    except (*OWN_ERRORS, EOFError, pickle.UnpicklingError, safetensors.SafetensorError, wrong_field) as error:
        if isinstance(error, TeacherError):
            raise
        if "trust_remote_code" in str(error):
            raise TeacherError(
                f"teacher {spec!r} brings code of its own (auto_map), which is never run; give a model that "
                "transformers itself implements"
            ) from error
        raise TeacherError(
            f"teacher {spec!r} is not a transformers audio-classification model that can be loaded: {_one_line(error)}"
        ) from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    missing = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if missing:
        raise TeacherError(
            f"teacher {spec!r} lacks {len(missing)} of its weights, the first is {missing[0]!r}; a model that was "
            "never trained to classify cannot teach"
        )
    expected = "ASTFeatureExtractor" if config.model_type == AST else "Wav2Vec2FeatureExtractor"
    if type(extractor).__name__ != expected:
        raise TeacherError(
            f"teacher {spec!r}: the front end {type(extractor).__name__} is not known for models of type "
            f"{config.model_type!r}; known is {expected}"
        )
    classes, scores = _classes_and_scores(spec, path if local else None, config, options.get("scores"))
    kind = AstTeacher if config.model_type == AST else WaveformTeacher
    return kind(spec, model, extractor, classes, scores).stated(written)


def _classes_and_scores(spec: str, path: Path | None, config: Any, option: str | None) -> tuple[tuple[str, ...], str]:
    whose = f"teacher {spec!r}"
    sidecar = read_sidecar(path) if path is not None else None
    if sidecar is not None and sidecar.classes is not None:
        classes = sidecar.classes
    else:
        labels = config.id2label
        if sorted(labels) != list(range(len(labels))):
            raise TeacherError(f"{whose}: the indices of its id2label are not 0 to {len(labels) - 1}")
        classes = check_classes([labels[index] for index in range(len(labels))], whose=whose)
    if len(classes) != config.num_labels:
        raise TeacherError(f"{whose} has {config.num_labels} outputs and {len(classes)} class names")
    if option is not None:
        return classes, check_scores(option, whose=whose)
    if sidecar is not None and sidecar.scores is not None:
        return classes, sidecar.scores
    if config.problem_type is None:
        return classes, "sigmoid" if audioset_indices(classes) is not None else "softmax"
    if config.problem_type not in _PROBLEM_TYPES:
        raise TeacherError(
            f"{whose}: its problem_type is {config.problem_type!r}; allowed are {', '.join(_PROBLEM_TYPES)}"
        )
    return classes, _PROBLEM_TYPES[config.problem_type]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
