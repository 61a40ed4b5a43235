"""transformers audio-classification models as teachers, their features computed in torch and batched.

Every type of model that transformers itself implements for this is opened, by one of four front ends:

- the Audio Spectrogram Transformer's: Kaldi's filter bank, masks filled with 0 before it is padded and normalised;
- Whisper's: a log-mel of 30 s, the view and silence after it; masks filled with 0 once it is normalised, in the frames
  of the view, as Whisper's own SpecAugment fills them;
- Wav2Vec2-BERT's: Kaldi's filter bank with Povey's window and a scale of 16 bits, each band of a clip to zero mean
  and unit variance, then masks filled with 0, then two frames side by side;
- the waveform itself, of Wav2Vec2, HuBERT, WavLM and their kin, each clip normalised alone where the model's config
  says so; such a model takes no masks of time and frequency.

Views are rectangular and their padding is heard, so no model is given an attention mask. A CED checkpoint in the hub's
layout goes onto this project's own net, and is the same teacher as ``ced:`` of the same weights.

Classes are the config's ``id2label``. The score kind is the config's ``problem_type`` (multi-label: sigmoid,
single-label: softmax); a config without one means sigmoid where its classes are AudioSet's, softmax otherwise. A
sidecar ``PATH.json`` beside a local folder, or ``?scores=`` in the spec, says otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch.nn import functional as F

from logitstore.classes import audioset, audioset_indices, check_classes
from logitstore.digests import digest
from logitstore.documents import DocumentError, load_json
from logitstore.errors import TeacherError
from logitstore.models.fbank import KaldiFbank, KaldiFrontEnd
from logitstore.models.published import read_hub_checkpoint
from logitstore.models.sidecar import check_rate, check_scores, read_sidecar
from logitstore.models.tagger import probabilities
from logitstore.store.format.manifest import ARGUMENTS
from logitstore.training.runs import weights_digest
from logitstore.views.mel import FrontEnd, LogMel, apply_masks
from logitstore.views.recipe import Masks
from teachers.contract import Contract
from teachers.hub import Repository, load_model, loading, open_repository, said_by
from teachers.registry import split_options
from teachers.specs.ced import ced_teacher
from teachers.specs.run_folder import TaggerTeacher
from teachers.teacher import Teacher

#: Its form, and what it is; see :mod:`teachers.registry`.
EXTRA = ("hf", "transformers")
SPEC = (
    "hf:ID_OR_PATH",
    "a transformers audio-classification model, or CED's from the hub; ?scores=sigmoid|softmax overrides its config",
)

#: Models that others published; see :mod:`teachers.registry`.
PUBLISHED = (
    (
        "AST 10-10-0.4593",
        527,
        16000,
        0.459,
        "BSD-3-Clause",
        "https://huggingface.co/MIT/ast-finetuned-audioset-10-10-0.4593",
    ),
    ("CED-Tiny", 527, 16000, 0.481, "Apache-2.0", "https://huggingface.co/mispeech/ced-tiny"),
    ("CED-Mini", 527, 16000, 0.490, "Apache-2.0", "https://huggingface.co/mispeech/ced-mini"),
    ("CED-Small", 527, 16000, 0.496, "Apache-2.0", "https://huggingface.co/mispeech/ced-small"),
    ("CED-Base", 527, 16000, 0.500, "Apache-2.0", "https://huggingface.co/mispeech/ced-base"),
    ("HuBERT, keywords", 12, 16000, None, "Apache-2.0", "https://huggingface.co/superb/hubert-base-superb-ks"),
)

AST, BERT, CED, WHISPER = "audio-spectrogram-transformer", "wav2vec2-bert", "ced", "whisper"
_WAVEFORM = "Wav2Vec2FeatureExtractor"
#: The types of models that are opened, and the front end of each.
FRONT_ENDS = {
    AST: "ASTFeatureExtractor",
    "data2vec-audio": _WAVEFORM,
    "hubert": _WAVEFORM,
    "sew": _WAVEFORM,
    "sew-d": _WAVEFORM,
    "unispeech": _WAVEFORM,
    "unispeech-sat": _WAVEFORM,
    "wav2vec2": _WAVEFORM,
    BERT: "SeamlessM4TFeatureExtractor",
    "wav2vec2-conformer": _WAVEFORM,
    "wavlm": _WAVEFORM,
    WHISPER: "WhisperFeatureExtractor",
}
_AST_RATE = 16000
_WHISPER_RANGE, _WHISPER_SHIFT = 8.0, 4.0  # of log10 of power
_SIXTEEN_BITS = 32768.0
_PROBLEM_TYPES = {"multi_label_classification": "sigmoid", "single_label_classification": "softmax"}
_VARIANCE_FLOOR = 1e-7


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
        said = json.dumps(said_by(config), sort_keys=True, default=str)
        return self.restate(digest=digest(f"{self._weights} {said}".encode()))

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


class WhisperTeacher(HfTeacher):
    """A Whisper encoder with a head. It hears 30 s: what a view does not fill is silence, which it was trained with."""

    def __init__(self, spec: str, model: Any, extractor: Any, classes: tuple[str, ...], scores: str) -> None:
        super().__init__(spec, model, extractor, classes, scores)
        config = model.config
        self.samples, hop = int(extractor.n_samples), int(extractor.hop_length)
        given = (extractor.feature_size, self.samples // hop)
        taken = (config.num_mel_bins, 2 * config.max_source_positions)
        if given != taken:
            raise TeacherError(
                f"teacher {spec!r}: its feature extractor gives {given[0]} bands x {given[1]} frames and its model "
                f"takes {taken[0]} x {taken[1]}"
            )
        if extractor.dither or extractor.padding_value:
            raise TeacherError(
                f"teacher {spec!r}: its feature extractor adds noise (dither {extractor.dither:g}) or pads with "
                f"{extractor.padding_value:g}; both must be 0, so that a view always sounds the same"
            )
        self.front_end = FrontEnd(
            sample_rate=self.sample_rate,
            n_fft=int(extractor.n_fft),
            win_length=int(extractor.n_fft),
            hop_length=hop,
            n_mels=int(extractor.feature_size),
            mel_scale="slaney",
            norm="slaney",
            top_db=None,
        )
        self.log_mel = LogMel(self.front_end)
        self.restate(
            takes_masks=True,
            front_end=self.front_end.to_dict(),
            fill={"stage": "log-mel after its normalisation, in the frames of the view", "value": 0.0},
            max_seconds=self.samples / self.sample_rate,
            arguments={"padded_to": self.samples, "range": _WHISPER_RANGE},
        )

    def inputs(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        samples = waveforms.shape[1]
        if samples > self.samples:
            raise TeacherError(
                f"teacher {self.spec!r} hears {self.contract.max_seconds:g} s and a view has "
                f"{samples / self.sample_rate:g} s; choose a shorter --clip-seconds"
            )
        levels = self.log_mel(F.pad(waveforms, (0, self.samples - samples)))[..., :-1] / 10.0  # log10 of power
        levels = torch.maximum(levels, levels.amax(dim=(1, 2), keepdim=True) - _WHISPER_RANGE)
        features = (levels + _WHISPER_SHIFT) / _WHISPER_SHIFT  # (B, F, T)
        heard = self._frames(samples)
        view = apply_masks(features[..., :heard], self.front_end, masks, 0.0)
        return torch.cat((view, features[..., heard:]), dim=2)

    @torch.inference_mode()
    def outputs(self, waveforms: torch.Tensor, masks: Masks | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Features are the encoder's, (B, T, D), one every two frames of the view."""
        output = self.model(self.inputs(waveforms, masks), output_hidden_states=True)
        frames = output.hidden_states[-1][:, : -(-self._frames(waveforms.shape[1]) // 2)]
        return probabilities(output.logits, self.scores), frames

    def _frames(self, samples: int) -> int:
        return -(-samples // self.front_end.hop_length)

    def to(self, device: str | torch.device) -> Self:
        self.log_mel.to(device)
        return super().to(device)


class BertTeacher(HfTeacher):
    """A Wav2Vec2-BERT. A last frame that is not whole is left out, as it is masked in transformers."""

    def __init__(self, spec: str, model: Any, extractor: Any, classes: tuple[str, ...], scores: str) -> None:
        super().__init__(spec, model, extractor, classes, scores)
        self.stride, bands = int(extractor.stride), int(extractor.num_mel_bins)
        width = model.config.feature_projection_input_dim
        if self.stride < 1 or self.stride * bands != width:
            raise TeacherError(
                f"teacher {spec!r}: its feature extractor gives {self.stride} x {bands} values a step and its model "
                f"takes {width}"
            )
        self.front_end = KaldiFrontEnd(sample_rate=self.sample_rate, n_mels=bands, window="povey", scale=_SIXTEEN_BITS)
        self.fbank = KaldiFbank(self.front_end)
        self.restate(
            takes_masks=True,
            front_end=self.front_end.to_dict(),
            fill={"stage": "log filter bank after its normalisation", "value": 0.0},
            arguments={"stride": self.stride, ARGUMENTS: _NO_MASK},
        )

    def inputs(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        bank = self.fbank(waveforms)  # (B, F, T)
        clips = [  # one clip at a time, as waveforms are
            (clip - clip.mean(dim=1, keepdim=True)) / torch.sqrt(clip.var(dim=1, keepdim=True) + _VARIANCE_FLOOR)
            for clip in bank
        ]
        frames = apply_masks(torch.stack(clips), self.front_end, masks, 0.0).transpose(1, 2)  # (B, T, F)
        steps = frames.shape[1] // self.stride
        return frames[:, : steps * self.stride].reshape(len(frames), steps, -1)

    def to(self, device: str | torch.device) -> Self:
        self.fbank.to(device)
        return super().to(device)


#: What a contract says of models that could be given an attention mask.
_NO_MASK = {"attention_mask": "none, padding is heard"}


class WaveformTeacher(HfTeacher):
    """A model that takes waveforms."""

    def __init__(self, spec: str, model: Any, extractor: Any, classes: tuple[str, ...], scores: str) -> None:
        super().__init__(spec, model, extractor, classes, scores)
        self.normalise = bool(extractor.do_normalize)
        self.restate(arguments={"normalise": self.normalise, ARGUMENTS: _NO_MASK})

    def inputs(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        if not self.normalise:
            return waveforms
        clips = (  # one clip at a time: batched reductions may round differently at other batch sizes
            (clip - clip.mean()) / torch.sqrt(clip.var(correction=0) + _VARIANCE_FLOOR) for clip in waveforms
        )
        return torch.stack(list(clips))


_KINDS = {AST: AstTeacher, BERT: BertTeacher, WHISPER: WhisperTeacher}


def load(spec: str, rest: str) -> Teacher:
    """The teacher of ``hf:ID_OR_PATH`` or ``hf:ID_OR_PATH?scores=sigmoid``; a path is read without the network.

    :raises TeacherError: not such a model, weights that are missing, a front end that is not known; an id that is not
        there, or a hub that cannot be reached.
    :raises MissingExtraError: transformers is not installed.
    """
    source, options = split_options(spec, rest, ("scores",))
    repository = open_repository(spec, source)
    kind = repository.config["model_type"]
    if kind == CED:
        return _ced(repository, options.get("scores"))
    if kind not in FRONT_ENDS:
        if "auto_map" in repository.config:
            raise TeacherError(
                f"teacher {spec!r} brings code of its own (auto_map), which is never run; give a model that "
                f"transformers itself implements: {', '.join((CED, *FRONT_ENDS))}"
            )
        raise TeacherError(
            f"teacher {spec!r}: models of type {kind!r} have a front end that is not known; known are "
            f"{', '.join((CED, *FRONT_ENDS))}"
        )
    with loading(repository, "a transformers audio-classification model") as transformers:
        model = load_model(transformers, repository, "AutoModelForAudioClassification")
        extractor = transformers.AutoFeatureExtractor.from_pretrained(source, **repository.safe)
        written, _ = type(model.config).get_config_dict(source, **repository.safe)
        if type(extractor).__name__ != FRONT_ENDS[kind]:
            raise TeacherError(
                f"teacher {spec!r}: the front end {type(extractor).__name__} is not known for models of type {kind!r}; "
                f"known is {FRONT_ENDS[kind]}"
            )
        classes, scores = _classes_and_scores(repository, model.config, options.get("scores"))
        teacher = _KINDS.get(kind, WaveformTeacher)(spec, model, extractor, classes, scores)
    return teacher.stated(written).restate(**repository.stated())


def _classes_and_scores(repository: Repository, config: Any, option: str | None) -> tuple[tuple[str, ...], str]:
    whose = repository.whose
    sidecar = read_sidecar(repository.folder) if repository.local else None
    named = sidecar.classes if sidecar is not None else None
    classes = _names(config.id2label, whose) if named is None else named
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


def _names(labels: Mapping[Any, str], whose: str) -> tuple[str, ...]:
    """The names of an ``id2label``, whose indices must be 0 to n - 1."""
    by_index = {str(index): name for index, name in labels.items()}
    if sorted(by_index) != sorted(map(str, range(len(by_index)))):
        raise TeacherError(f"{whose}: the indices of its id2label are not 0 to {len(labels) - 1}")
    return check_classes([by_index[str(index)] for index in range(len(by_index))], whose=whose)


#: What the code beside CED's checkpoints takes for granted where its config does not say it.
_CED_HEADS = {"ced-tiny": 3, "ced-mini": 4, "ced-small": 6, "ced-base": 12}
#: What this project's net and front end have built in, by the keys of config.json and preprocessor_config.json.
_CED_BUILT_IN: dict[str, tuple[Any, ...]] = {
    "patch_size": (16,),
    "patch_stride": (16,),
    "pooling": ("mean", "token", "logit"),
    "pad_last": (True,),
    "n_mels": (64,),
    "feature_size": (64,),
    "sampling_rate": (16000,),
    "n_fft": (512,),
    "win_size": (512,),
    "hop_size": (160,),
    "f_min": (0,),
    "f_max": (8000, None),
    "center": (True,),
}


def _ced(repository: Repository, scores: str | None) -> TaggerTeacher:
    """A CED checkpoint in the hub's layout: the encoder under a prefix, its BatchNorm under another name.

    Clips of more frames than it has positions for are heard as by ``ced:``, piece by piece, which is how it was
    published first; the code on the hub averages the tokens of the pieces instead.
    """
    whose, config = repository.whose, repository.config
    extractor = repository.file("preprocessor_config.json")
    try:
        said = {} if extractor is None else load_json(extractor)
    except (OSError, DocumentError) as error:
        raise TeacherError(f"{whose}: its preprocessor_config.json cannot be read: {error}") from error
    for document in (config, said if isinstance(said, dict) else {}):
        for key, known in _CED_BUILT_IN.items():
            if key in document and document[key] not in known:
                raise TeacherError(
                    f"{whose} is a CED model with {key} {document[key]!r}; known is {' or '.join(map(repr, known))}"
                )
    if scores not in (None, "sigmoid"):
        raise TeacherError(f"{whose}: CED's scores are sigmoid, and {scores!r} were asked for")
    weights = repository.file("model.safetensors") or repository.file("pytorch_model.bin")
    if weights is None:
        raise TeacherError(f"{whose} has no weights: neither model.safetensors nor pytorch_model.bin")
    checkpoint = read_hub_checkpoint(weights, whose=whose, error=TeacherError)
    heads = _CED_HEADS.get(str(config.get("name")), config.get("num_heads", _CED_HEADS["ced-base"]))
    teacher = ced_teacher(
        repository.spec, checkpoint, str(heads), lambda outputs: _ced_classes(repository, config, outputs)
    )
    return teacher.restate(**repository.stated())


def _ced_classes(repository: Repository, config: dict[str, Any], outputs: int) -> tuple[str, ...]:
    """The names of a sidecar, or of the config; AudioSet's own where the config cuts each at its first comma."""
    sidecar = read_sidecar(repository.folder) if repository.local else None
    labels = config.get("id2label")
    if sidecar is not None and sidecar.classes is not None:
        classes = sidecar.classes
    elif outputs == len(audioset()) and (not labels or _cut(labels)):
        classes = tuple(row.display_name for row in audioset())
    elif isinstance(labels, dict) and labels:
        classes = _names(labels, repository.whose)
    else:
        raise TeacherError(
            f"{repository.whose} has {outputs} outputs and its config names none of them; name them in "
            f'{repository.folder.name + ".json"!r} beside it as {{"classes": […]}}'
        )
    if len(classes) != outputs:
        raise TeacherError(f"{repository.whose} has {outputs} outputs and {len(classes)} class names")
    return classes


def _cut(labels: Any) -> bool:
    """Whether an ``id2label`` holds what a reader of AudioSet's table makes of it that splits at every comma."""
    firsts = {str(row.index): row.display_name.split(",")[0] for row in audioset()}
    return isinstance(labels, dict) and {str(key): str(name).strip('" ') for key, name in labels.items()} == firsts
