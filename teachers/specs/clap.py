"""CLAP models of transformers as zero-shot teachers: the user's own class names, and a tagger without one label.

A CLAP model puts a sound and a text into one space. Here each class is a text, the ``prompt`` with the class's name in
the place of ``{}``; the texts' embeddings are made once, when the teacher is loaded. What it says of a view is

    softmax over the classes of s <audio, text>,

with both embeddings of length 1 and s the scale that the model learnt with them: which of the classes it is, if it is
one of them. With ``scores=sigmoid``, each class is alone against a ``neutral`` text, 1 / (1 + exp(-s (<audio, text> -
<audio, neutral>))): whether the class's text fits better than the text that fits everything.

The log-mel is that of transformers' extractor: up to 10 s at 48 kHz, a shorter view repeated as often as it fits whole
and zeros after it. A longer view is heard window by window, never at a random place; a last window with less than half
of it in the view is left out. A model with fusion hears the same windows: none is longer than it can hear, so that it
fuses nothing. Masks are filled with what is 0 after the first BatchNorm, in every repetition of the view.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
import torch
from torch.nn import functional as F

from logitstore.arrays import F64
from logitstore.classes import read_classes
from logitstore.digests import digest
from logitstore.errors import TeacherError
from logitstore.models.sidecar import check_rate, check_scores
from logitstore.models.tagger import probabilities
from logitstore.texts import shown
from logitstore.training.runs import weights_digest
from logitstore.views.mel import FrontEnd, LogMel, band_mask, time_mask
from logitstore.views.recipe import Masks
from teachers.contract import Contract, Window
from teachers.frames import Answer, answered
from teachers.hub import load_model, loading, open_repository, said_by
from teachers.registry import split_options
from teachers.teacher import Teacher
from teachers.windows import in_windows

#: Its form, and what it is; see :mod:`teachers.registry`.
EXTRA = ("hf", "transformers")
SPEC = (
    "clap:ID_OR_PATH?classes=FILE",
    "a CLAP model of transformers, zero-shot for the class names in FILE; &prompt=the sound of {}, &scores=sigmoid",
)

#: Models that others published; see :mod:`teachers.registry`.
PUBLISHED = (
    ("CLAP HTSAT unfused", None, 48000, None, "Apache-2.0", "https://huggingface.co/laion/clap-htsat-unfused"),
    ("CLAP HTSAT fused", None, 48000, None, "Apache-2.0", "https://huggingface.co/laion/clap-htsat-fused"),
)

_PROMPT, _NEUTRAL, _PLACE = "the sound of {}", "a sound", "{}"
_PADDINGS = ("repeatpad", "repeat", "pad")
_TEXTS = 64  # that are embedded at once


class ClapTeacher(Teacher):
    """A CLAP model and the texts of some classes."""

    def __init__(
        self, spec: str, model: Any, extractor: Any, texts: _Texts, classes: tuple[str, ...], scores: str
    ) -> None:
        self.spec = spec
        whose = f"teacher {spec!r}"
        config = model.config.audio_config
        self.fused = bool(config.enable_fusion)
        self.padding = str(extractor.padding)
        if (extractor.truncation == "fusion") != self.fused or self.padding not in _PADDINGS:
            raise TeacherError(
                f"{whose}: its feature extractor has truncation {extractor.truncation!r} and padding {self.padding!r}, "
                f"its model {'has' if self.fused else 'no'} fusion; known are fusion for the one, rand_trunc for the "
                f"other, and padding {', '.join(_PADDINGS)}"
            )
        rate = check_rate(extractor.sampling_rate, whose=whose)
        self.samples = int(extractor.nb_max_samples)
        self.front_end = FrontEnd(
            sample_rate=rate,
            n_fft=int(extractor.fft_window_size),
            win_length=int(extractor.fft_window_size),
            hop_length=int(extractor.hop_length),
            n_mels=int(extractor.feature_size),
            f_min=float(extractor.frequency_min),
            f_max=float(extractor.frequency_max),
            mel_scale="htk" if self.fused else "slaney",
            norm=None if self.fused else "slaney",
            top_db=None,
        )
        frames = self.front_end.n_frames(self.samples)
        widest = config.spec_size * (config.spec_size // config.num_mel_bins)
        if self.front_end.n_mels != config.num_mel_bins or frames > widest:
            raise TeacherError(
                f"{whose}: its feature extractor gives {self.front_end.n_mels} bands x {frames} frames and its model "
                f"takes {config.num_mel_bins} x {widest} at most"
            )
        self.log_mel = LogMel(self.front_end)
        self.audio, self.projection = model.audio_model.eval(), model.audio_projection.eval()
        self.scale = float(model.logit_scale_a.detach().exp())
        self.texts = texts.embedded(model)  # (C, D), and the neutral one where there is one
        self.fill = _silence_of(model.audio_model.audio_encoder.batch_norm)
        self.neutral = texts.neutral is not None
        self.contract = Contract(
            name="clap:ClapModel",
            classes=classes,
            scores=scores,
            sample_rate=rate,
            digest=weights_digest(model.state_dict()),
            output="logits",
            takes_masks=True,
            front_end=self.front_end.to_dict(),
            fill={"stage": "log-mel after the first BatchNorm", "value": 0.0},
            window=Window(samples=self.samples, hop=self.samples, least=max(1, self.samples // 2)),
            trained_seconds=self.samples / rate,
            has_frames=True,
            arguments={
                "prompt": texts.prompt,
                "scale": round(self.scale, 3),
                "padding": self.padding,
                "fusion": "of whole windows alone" if self.fused else "none",
            }
            | ({} if texts.neutral is None else {"neutral": texts.neutral}),
        )

    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        window = self.contract.window
        if window is None or waveforms.shape[1] <= window.samples:
            return self._said(waveforms, masks)
        return in_windows(waveforms, masks, window, self.sample_rate, self._said)

    def answers(
        self, waveforms: torch.Tensor, masks: Masks | None, *, features: bool = False, frames: bool = False
    ) -> Answer:
        if not frames or features:
            return super().answers(waveforms, masks, features=features, frames=frames)
        window = self.contract.window if waveforms.shape[1] > self.samples else None
        return answered(waveforms, masks, window, None, self.sample_rate, self._said)

    @torch.inference_mode()
    def _said(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        mel = self.inputs(waveforms, masks)
        longer = torch.zeros(len(mel), 1, dtype=torch.bool, device=mel.device)
        pooled = self.audio(input_features=mel, is_longer=longer).pooler_output
        audio = F.normalize(self.projection(pooled).float(), dim=1)
        with torch.autocast(audio.device.type, enabled=False):
            logits = self.scale * (audio @ self.texts.T)  # (B, C), and one more column for the neutral text
        if self.neutral:
            logits = logits[:, :-1] - logits[:, -1:]
        return probabilities(logits, self.scores)

    def inputs(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        """The model's input of waveforms float32 (B, S) of one window at most: (B, 1 or 4, T, F), decibels."""
        samples = waveforms.shape[1]
        times = max(1, self.samples // samples) if self.padding != "pad" else 1
        repeated = waveforms.repeat(1, times + 1 if self.padding == "repeat" else times)[:, : self.samples]
        mel = self.log_mel(F.pad(repeated, (0, self.samples - repeated.shape[1])))  # (B, F, T)
        if masks is not None:
            axes = _Repeated(self.front_end, samples, repeated.shape[1])
            inside = torch.from_numpy(axes.frame_centers(mel.shape[2]) >= 0).to(mel.device)
            frames, bands = time_mask(axes, masks, mel.shape[2]).to(mel.device), band_mask(axes, masks).to(mel.device)
            hidden = (frames[:, None, :] | bands[:, :, None]) & inside
            mel = torch.where(hidden, self.fill[:, None], mel)
        given: torch.Tensor = mel.transpose(1, 2)[:, None].expand(-1, 4 if self.fused else 1, -1, -1)
        return given

    def to(self, device: str | torch.device) -> Self:
        for module in (self.audio, self.projection, self.log_mel):
            module.to(device)
        self.texts, self.fill = self.texts.to(device), self.fill.to(device)
        return self


@dataclass(frozen=True)
class _Repeated:
    """The axes of a view of ``samples`` that is heard again and again, ``filled`` samples in all.

    A frame lies where the view has what is heard in it; one after the last repetition below 0, where no mask is.
    """

    front_end: FrontEnd
    samples: int
    filled: int

    def frame_centers(self, n_frames: int) -> F64:
        """Seconds from the start of the view, float64 (n_frames,)."""
        centers = np.arange(n_frames) * self.front_end.hop_length
        last = (self.filled - 1) // self.samples  # the frame at its very end belongs to it, too
        inside = centers - np.minimum(centers // self.samples, last) * self.samples
        return np.where(centers <= self.filled, inside, -1) / self.front_end.sample_rate

    def band_centers(self) -> F64:
        """Hz, float64 (F,)."""
        return self.front_end.band_centers()


def _silence_of(norm: Any) -> torch.Tensor:
    """What a BatchNorm over bands makes 0, float32 (F,): what its input is in the mean, where it adds nothing."""
    spread = torch.sqrt(norm.running_var + norm.eps)
    gain = torch.where(norm.weight == 0, torch.ones_like(norm.weight), norm.weight)
    filled: torch.Tensor = norm.running_mean - norm.bias / gain * spread
    return filled.detach()


class _Texts:
    """What is said for each class, and the neutral text where there is one, as tokens."""

    def __init__(
        self, whose: str, tokenizer: Any, model: Any, names: tuple[str, ...], prompt: str, neutral: str | None
    ):
        self.prompt, self.neutral = prompt, neutral
        texts = [prompt.replace(_PLACE, name) for name in names] + ([] if neutral is None else [neutral])
        self.tokens: list[list[int]] = [list(tokenizer(text)["input_ids"]) for text in texts]
        config = model.config.text_config
        most = config.max_position_embeddings - config.pad_token_id - 1
        for text, tokens in zip(texts, self.tokens, strict=True):
            if len(tokens) > most:
                raise TeacherError(
                    f"{whose}: the text {shown(text)} has {len(tokens)} tokens and its model reads {most}; shorten it"
                )
            if not all(0 <= token < config.vocab_size for token in tokens):
                raise TeacherError(f"{whose}: its tokeniser has more words than the {config.vocab_size} of its model")
        said: dict[tuple[int, ...], str] = {}
        for text, tokens in zip(texts, self.tokens, strict=True):
            if said.setdefault(tuple(tokens), text) != text:
                raise TeacherError(
                    f"{whose}: {shown(said[tuple(tokens)])} and {shown(text)} are the same to its tokeniser, which "
                    "lacks some of their letters; write one of them another way"
                )
        self.padding = int(config.pad_token_id)

    @torch.inference_mode()
    def embedded(self, model: Any) -> torch.Tensor:
        """The texts' embeddings, float32 (C or C + 1, D), of length 1."""
        found = []
        for first in range(0, len(self.tokens), _TEXTS):
            some = self.tokens[first : first + _TEXTS]
            width = max(map(len, some))
            ids = torch.tensor([tokens + [self.padding] * (width - len(tokens)) for tokens in some])
            known = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in some])
            pooled = model.text_model(input_ids=ids, attention_mask=known).pooler_output
            found.append(F.normalize(model.text_projection(pooled), dim=1))
        return torch.cat(found)


def load(spec: str, rest: str) -> ClapTeacher:
    """The teacher of ``clap:ID_OR_PATH?classes=FILE``, with ``&prompt=``, ``&scores=`` and ``&neutral=`` where wanted.

    In a prompt, ``%26`` stands for ``&`` and ``%3F`` for ``?``.

    :raises TeacherError: no such model, no classes, a prompt without a place for their names.
    :raises MissingExtraError: transformers is not installed.
    """
    source, options = split_options(spec, rest, ("classes", "prompt", "scores", "neutral"))
    whose = f"teacher {spec!r}"
    if not options.get("classes"):
        raise TeacherError(
            f"{whose} names no classes, and a CLAP model has none of its own; add ?classes=FILE, one name a line"
        )
    prompt = unquote(options.get("prompt", _PROMPT))
    if prompt.count(_PLACE) != 1:
        raise TeacherError(
            f"{whose}: the prompt is {shown(prompt)}; it must have {_PLACE} once, where the class's name goes, as in "
            f"{_PROMPT!r}"
        )
    scores = check_scores(options.get("scores", "softmax"), whose=whose)
    if "neutral" in options and scores == "softmax":
        raise TeacherError(f"{whose}: a neutral text is what scores=sigmoid compares with; add &scores=sigmoid")
    neutral = unquote(options.get("neutral", _NEUTRAL)) if scores == "sigmoid" else None
    classes = read_classes(Path(options["classes"]).expanduser())
    if scores == "softmax" and len(classes) < 2:
        raise TeacherError(f"{whose}: of one class alone, softmax says 1; give two or more, or add &scores=sigmoid")
    repository = open_repository(spec, source)
    kind = repository.config["model_type"]
    if kind != "clap":
        raise TeacherError(f"{whose} is a model of type {kind!r}; clap: opens those of type 'clap', hf: the others")
    if repository.file("tokenizer.json") is None and not all(map(repository.file, ("vocab.json", "merges.txt"))):
        raise TeacherError(f"{whose} has no tokeniser: neither tokenizer.json nor vocab.json with merges.txt")
    with loading(repository, "a CLAP model of transformers") as transformers:
        model = load_model(transformers, repository, "ClapModel")
        extractor = transformers.ClapFeatureExtractor.from_pretrained(repository.source, **repository.safe)
        tokenizer = transformers.RobertaTokenizer.from_pretrained(repository.source, **repository.safe)
        texts = _Texts(whose, tokenizer, model, classes, prompt, neutral)
        teacher = ClapTeacher(spec, model, extractor, texts, classes, scores)
    said = {"weights": teacher.digest, "config": said_by(repository.config), "classes": classes, "tokens": texts.tokens}
    return teacher.restate(digest=digest(json.dumps(said, sort_keys=True).encode()), **repository.stated())
