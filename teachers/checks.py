"""What a teacher is tried for, beyond what is asked of every answer: a look at its first batch, or a closer one.

:func:`try_out` is for the first batch of a build: cheap, and what it finds is said. :func:`examine` is for
``logitstore teachers check``: every check there is, of one teacher.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch

from logitstore.arrays import Bool
from logitstore.errors import LogitstoreError, ModelOutputError, RunError
from logitstore.store.format.frames import BITS, FLOOR, FrameSpec
from logitstore.views.philox import philox4x32, uniform_integers
from logitstore.views.recipe import Masks
from teachers.ensemble import SLACK, SUM_SLACK, Ensemble, Outputs, load_ensemble, says_whole
from teachers.frames import Answer
from teachers.teacher import Teacher

#: How far apart the answers to the same sound may be for rounding, which depends on the device's kernels and on the
#: size of a batch; in float32, and of teachers that compute with 16 bits.
_REPEAT_SLACK, _REPEAT_SLACK_16 = 1e-3, 3e-2
_HEARD = 1e-6  # an answer that changes by less has not changed
_SIGMOID_OF_1 = 1 / (1 + math.exp(-1)) + SLACK
_HALF_SLACK = 0.05  # how far 16 bits may move a probability before it is warned of
_SQUARE_HZ = 250
_HIDDEN_HZ = (500.0, 4000.0)
_LAST = 0.1  # of a view, which is changed to see whether it is heard
_SOFT = 0.1  # of full scale, what it is changed to
_SINGLY = 2  # views that are asked about alone
_FRAME_SECONDS = 0.04  # of the frames that what is said of when is looked at in
_SLOW = 1.0  # views a second
_MANY = 10_000  # views

Verdict = Literal["ok", "warning", "fails"]


@dataclass(frozen=True)
class Finding:
    """What one check found. It ``fails`` where what is asked of every teacher is broken; ``remedy`` says what to do."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """What was found, and what to do."""
        return f"{self.found}; {self.remedy}" if self.remedy else self.found


def try_out(
    ensemble: Ensemble,
    waveforms: torch.Tensor,
    masks: Masks | None,
    *,
    features: bool = True,
    frames: FrameSpec | None = None,
    heard: Bool | None = None,
) -> Outputs:
    """What an ensemble says of a first batch, with a look at what no single answer can be refused for.

    ``ensemble.notes`` gets a line for each member whose sigmoid scores look like a distribution, or like a sigmoid of
    probabilities; for one of somebody's own that answers the same batch otherwise when it is asked again; and for one
    that fails on silence or on clipped sound, whose answer depends on what else is in a batch, that masks do not
    change, or that says the same of every sound. Arguments and errors are those of
    :meth:`~teachers.ensemble.Ensemble.outputs`.
    """
    said = ensemble.outputs(waveforms, masks, features=features, frames=frames, heard=heard)
    rows = np.arange(len(waveforms)) if heard is None else np.flatnonzero(heard)
    if not len(rows):
        return said
    at = torch.from_numpy(rows).to(ensemble.device)
    first = slice(int(rows[0]), int(rows[0]) + 1)
    for number, teacher in enumerate(ensemble.members):
        alone, answers = ensemble.alone(number), said.members[number]
        found = _remarks(teacher, answers[at])
        if teacher.own_code:
            again = alone.outputs(waveforms, masks, features=False, heard=heard).members[0]
            found.append(_twice(alone, answers[at], again[at]))
        found += _unusual(alone, waveforms[first], None if masks is None else masks[first], answers[first])
        told = [finding for finding in _independent(found) if finding.verdict != "ok"]
        ensemble.notes += [f"teacher {teacher.spec!r} {finding.line}" for finding in told]
    return said


def examine(teacher: Teacher, waveforms: torch.Tensor, masks: Masks | None, *, rate: int, device: str) -> list[Finding]:
    """Every check of a teacher on some views.

    :param waveforms: float32 (B, S), B at least 2, at ``rate`` (Hz). :param masks: of the B views, or None.
    :param device: as of :func:`~teachers.ensemble.load_ensemble`.
    """
    watched = _Watched(teacher)
    alone = load_ensemble([watched], sample_rate=rate, device=device)
    try:
        first = alone.probabilities(waveforms, masks)
    except LogitstoreError as error:
        return [Finding("answers", "fails", f"{_unnamed(teacher, error)} (nothing else was tried)")]
    low, high = (float(bound) for bound in first.aminmax())
    findings = [
        Finding("answers", "ok", f"{first.shape[1]:,} classes, {teacher.scores} scores from {low:.3g} to {high:.3g}"),
        *_remarks(teacher, first),
    ]
    checks: list[Callable[[], list[Finding]]] = [
        lambda: _repeated(alone, waveforms, masks, first),
        lambda: _unusual(
            alone,
            waveforms[:1],
            None if masks is None else masks[:1],
            first[:1],
            _singly(alone, waveforms, masks, first),
        ),
        lambda: _last(alone, waveforms[:1], None if masks is None else masks[:1]),
        lambda: _features(alone, waveforms[:2], None if masks is None else masks[:2]),
        lambda: _frames(teacher, alone, waveforms[:2], None if masks is None else masks[:2]),
        lambda: [_half(watched, waveforms[:4], None if masks is None else masks[:4], first[:4], rate, device)],
    ]
    for check in checks:
        try:
            findings += check()
        except LogitstoreError as error:
            findings.append(Finding("further answers", "fails", _unnamed(teacher, error)))
    findings.append(watched.finding())
    return _independent(findings)


def _independent(findings: list[Finding]) -> list[Finding]:
    """Findings without those that another one explains."""
    unwell = {each.check for each in findings if each.verdict != "ok"}
    explained: set[str] = set()
    if "the same twice" in unwell:
        explained |= {"alone or in a batch", "the whole view", "half precision"}
    if "hearing" in unwell:
        explained |= {"the whole view"}
    return [each for each in findings if each.check not in explained]


def full_scale(kind: Literal["square", "noise"], samples: int, rate: int) -> torch.Tensor:
    """A sound as loud as sound can be: float32 (samples,) in [-1, 1], at ``rate`` (Hz), the same everywhere."""
    index = np.arange(samples)
    if kind == "square":
        values = np.where(2 * _SQUARE_HZ * index // rate % 2, -1.0, 1.0)
    else:
        values = uniform_integers(philox4x32((index, 0, 0, 0), (0, 0))[0], -(1 << 15), 1 << 15) / (1 << 15)
    return torch.from_numpy(values.astype(np.float32))


def _remarks(teacher: Teacher, said: torch.Tensor) -> list[Finding]:
    """What is odd in sigmoid scores (B, C) that are each allowed."""
    if teacher.scores != "sigmoid" or not said.numel() or said.shape[1] < 2:
        return []
    if float((said.double().sum(dim=1) - 1).abs().max()) <= SUM_SLACK:
        return [
            Finding(
                "scores",
                "warning",
                "states sigmoid scores, and those of every clip of its first batch sum to 1, as a softmax's do; "
                "students learn them as independent probabilities",
                "if they are a distribution, let it state scores = 'softmax'",
            )
        ]
    if float(said.min()) >= 0.5 and float(said.max()) <= _SIGMOID_OF_1:
        return [
            Finding(
                "scores",
                "warning",
                "gives scores that all lie between 0.5 and 0.7311 in its first batch, as those of a sigmoid that was "
                "applied to probabilities",
                "apply it once",
            )
        ]
    return []


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max()) if one.numel() else 0.0


def _slack(alone: Ensemble) -> float:
    return _REPEAT_SLACK if alone.precision == "float32" else _REPEAT_SLACK_16


def _twice(alone: Ensemble, first: torch.Tensor, second: torch.Tensor) -> Finding:
    apart = _apart(first, second)
    if apart <= _slack(alone):
        return Finding("the same twice", "ok", "the same answers" if not apart else f"up to {apart:.2g} apart")
    return Finding(
        "the same twice",
        "fails",
        f"was asked the same batch twice, and its answers are up to {apart:.3g} apart: a dropout that is always on, or "
        "a state that it keeps?",
        "what is stored then depends on what it was asked before",
    )


def _repeated(alone: Ensemble, waveforms: torch.Tensor, masks: Masks | None, first: torch.Tensor) -> list[Finding]:
    began = time.perf_counter()
    second = alone.probabilities(waveforms, masks)
    rate = len(waveforms) / max(time.perf_counter() - began, 1e-9)
    speed = f"{rate:,.1f} views/s on {alone.device}, {_MANY:,} views in {_duration(_MANY / rate)}"
    slow = "use a GPU, or a smaller teacher" if alone.device.type == "cpu" else "use a smaller teacher"
    return [
        _twice(alone, first, second),
        Finding("speed", "ok", speed) if rate >= _SLOW else Finding("speed", "warning", speed, slow),
    ]


def _duration(seconds: float) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _beside_others(alone: Ensemble, apart: float) -> Finding:
    if apart <= _slack(alone):
        return Finding("alone or in a batch", "ok", "the same answers" if not apart else f"up to {apart:.2g} apart")
    return Finding(
        "alone or in a batch",
        "fails",
        f"gives answers that depend on what else is in the batch: up to {apart:.3g} apart for the same sound",
        "let no step of it reckon over the batch, such as a mean over all clips, or BatchNorm in train mode; what is "
        "stored depends on --batch-size else",
    )


def _singly(alone: Ensemble, waveforms: torch.Tensor, masks: Masks | None, first: torch.Tensor) -> float:
    """How far apart what is said of the first views alone is from what was said of them in a batch."""
    apart = 0.0
    for row in range(min(_SINGLY, len(waveforms))):
        own = slice(row, row + 1)
        said = alone.probabilities(waveforms[own], None if masks is None else masks[own])
        apart = max(apart, _apart(said, first[own]))
    return apart


def _unusual(
    alone: Ensemble, view: torch.Tensor, masks: Masks | None, said: torch.Tensor, apart: float = 0.0
) -> list[Finding]:
    """What a teacher says of a view (1, S) beside unusual sounds, and of those.

    :param said: what it said of the view before, beside other views, (1, C). :param apart: how far from that its
        answers to views have been otherwise.
    """
    teacher, samples, rate = alone.members[0], view.shape[1], alone.sample_rate
    square, noise = (full_scale(kind, samples, rate).to(view) for kind in ("square", "noise"))
    sounds = torch.stack([view[0], torch.zeros_like(view[0]), square, noise, noise])
    hidden: Masks | None = _hidden(masks, samples / rate)
    names = ("", "silence", "clipping", "clipping", "masks")
    rows = len(sounds) if teacher.takes_masks else len(sounds) - 1
    sounds, hidden = sounds[:rows], hidden[:rows] if hidden is not None and teacher.takes_masks else None
    try:
        answers = alone.probabilities(sounds, hidden)
    except LogitstoreError as error:
        return _to_blame(alone, sounds, hidden, names, error)
    findings = [
        _beside_others(alone, max(apart, _apart(answers[:1], said))),
        Finding("silence", "ok", "probabilities"),
        Finding("clipping", "ok", "probabilities of a square wave and of noise at full scale"),
    ]
    if float((answers[:4] - answers[:1]).abs().max()) <= _HEARD:
        same = "says the same of a view, of silence, of a square wave and of noise"
        return [*findings, Finding("hearing", "warning", same, "see that it gets the sound, at the level it expects")]
    if teacher.takes_masks:
        findings.append(_masked(_apart(answers[3], answers[4])))
    return findings


def _hidden(masks: Masks | None, seconds: float) -> Masks:
    """The masks of a view, of three sounds with none, and of one of which half is hidden."""
    ends = Masks(*(np.zeros(5) for _ in range(4)))
    if masks is not None:
        for mine, its in zip(vars(ends).values(), vars(masks).values(), strict=True):
            mine[0] = float(its[0])
    ends.time_start[4], ends.time_end[4] = seconds / 4, seconds * 3 / 4
    ends.freq_low[4], ends.freq_high[4] = _HIDDEN_HZ
    return ends


def _masked(apart: float) -> Finding:
    if apart > _HEARD:
        return Finding("masks", "ok", f"half of the time and of the bands hidden moves an answer by {apart:.2g}")
    return Finding(
        "masks",
        "fails",
        "takes masks and does not hear them: hiding half of the time and 0.5 to 4 kHz changes nothing",
        "let its front end fill what they hide (logitstore.views.mel.apply_masks), or let it take waveforms alone",
    )


def _to_blame(
    alone: Ensemble, sounds: torch.Tensor, hidden: Masks | None, names: tuple[str, ...], error: LogitstoreError
) -> list[Finding]:
    """Which of some sounds a teacher fails on, each asked about alone."""
    teacher = alone.members[0]
    findings: dict[str, Finding] = {}
    for row, name in enumerate(names[: len(sounds)]):
        own = slice(row, row + 1)
        try:
            alone.probabilities(sounds[own], None if hidden is None else hidden[own])
        except LogitstoreError as failed:
            what = {"silence": "a silent view", "clipping": "a view at full scale", "masks": "a masked view"}
            said = f"fails on {what.get(name, 'a view alone')}: {_unnamed(teacher, failed)}"
            findings.setdefault(name, Finding(name or "alone or in a batch", "fails", said))
    together = f"fails on a batch of which it hears each clip: {_unnamed(teacher, error)}"
    return list(findings.values()) or [Finding("alone or in a batch", "fails", together)]


def _last(alone: Ensemble, view: torch.Tensor, masks: Masks | None) -> list[Finding]:
    """Whether the end of a view (1, S) is heard."""
    samples, rate = view.shape[1], alone.sample_rate
    start = samples - max(1, round(_LAST * samples))
    other = view.clone()
    other[:, start:] = _SOFT * full_scale("noise", samples - start, rate).to(view)
    both = None if masks is None else masks[np.zeros(2, int)]
    one, changed = alone.probabilities(torch.cat([view, other]), both)
    seconds = (samples - start) / rate
    if _apart(one, changed) > _HEARD:
        return [Finding("the whole view", "ok", f"its last {seconds:.2g} s are heard")]
    return [
        Finding(
            "the whole view",
            "warning",
            f"does not hear the last {seconds:.2g} s of a view of {samples / rate:g} s",
            "give the --clip-seconds that it hears, or let it state its window or its longest view",
        )
    ]


def _features(alone: Ensemble, waveforms: torch.Tensor, masks: Masks | None) -> list[Finding]:
    if not alone.members[0].has_features:
        return []
    frames = alone.outputs(waveforms, masks, features=True).features[0]
    return [Finding("features", "ok", f"{frames.shape[1]:,} frames of {frames.shape[2]:,} numbers a view")]


def _frames(teacher: Teacher, alone: Ensemble, waveforms: torch.Tensor, masks: Masks | None) -> list[Finding]:
    """Whether what it says of when is probabilities of moments within the view; nothing of one that does not."""
    seconds = waveforms.shape[1] / alone.sample_rate
    if says_whole(teacher, seconds) is not None:
        return []
    count = max(2, math.ceil(seconds / _FRAME_SECONDS))
    spec = FrameSpec(hop_ms=round(1000 * _FRAME_SECONDS), count=count, bits=BITS, floor=FLOOR)
    said = alone.outputs(waveforms, masks, features=False, frames=spec).frames
    span = 0.0 if said is None else float((said.amax(dim=1) - said.amin(dim=1)).amax())
    return [Finding("frames", "ok", f"says when: within a view a class differs by up to {span:.2g}")]


def _half(
    teacher: Teacher, waveforms: torch.Tensor, masks: Masks | None, first: torch.Tensor, rate: int, device: str
) -> Finding:
    """How far 16 bits move the answers; that is asked for by --precision alone, so nothing here fails."""
    said: list[str] = []
    poor: list[str] = []
    for precision in ("bf16", "fp16"):
        try:
            alone = load_ensemble([teacher], sample_rate=rate, device=device, precision=precision)
            apart = _apart(alone.probabilities(waveforms, masks), first)
        except RunError:
            said.append(f"{precision} is not for this device")
        except ModelOutputError as error:
            said.append(f"{precision}: {_unnamed(teacher, error)}")
            poor.append(precision)
        else:
            said.append(f"{precision} moves answers by up to {apart:.2g}")
            poor += [precision] if apart > _HALF_SLACK else []
    remedy = f"leave --precision {' and '.join(poor)} alone; float32 is the default" if poor else ""
    return Finding("half precision", "warning" if poor else "ok", ", ".join(said), remedy)


def _unnamed(teacher: Teacher, error: LogitstoreError) -> str:
    """An error about a teacher, without its name."""
    return str(error).removeprefix(f"teacher {teacher.spec!r}").lstrip(": ")


class _Watched(Teacher):
    """A teacher, and whether it changed what it was given."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.spec, self.contract = teacher.spec, teacher.contract
        self.own_code, self.if_logits = True, teacher.if_logits  # it is given a copy, as any that may change one
        self.changed = False

    def _asked(self, method: Callable[..., Any], waveforms: torch.Tensor, masks: Masks | None) -> Any:
        before = waveforms.clone(), None if masks is None else masks.copy()
        said = method(waveforms, masks)
        self.changed |= not torch.equal(waveforms, before[0]) or not _same(masks, before[1])
        return said

    def probabilities(self, waveforms: torch.Tensor, masks: Masks | None) -> torch.Tensor:
        said: torch.Tensor = self._asked(self.teacher.probabilities, waveforms, masks)
        return said

    def outputs(self, waveforms: torch.Tensor, masks: Masks | None) -> tuple[torch.Tensor, torch.Tensor]:
        said: tuple[torch.Tensor, torch.Tensor] = self._asked(self.teacher.outputs, waveforms, masks)
        return said

    def answers(
        self, waveforms: torch.Tensor, masks: Masks | None, *, features: bool = False, frames: bool = False
    ) -> Answer:
        ask = partial(self.teacher.answers, features=features, frames=frames)
        said: Answer = self._asked(ask, waveforms, masks)
        return said

    def to(self, device: str | torch.device) -> Self:
        self.teacher.to(device)
        return self

    def finding(self) -> Finding:
        """Whether it left its input as it was."""
        if not self.changed:
            return Finding("its input", "ok", "left as it is")
        return Finding(
            "its input",
            "warning",
            "is changed in place; every teacher gets a copy here, so nobody else hears that",
            "clone it first where other programs use the model",
        )


def _same(one: Masks | None, other: Masks | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(
        np.array_equal(here, there) for here, there in zip(vars(one).values(), vars(other).values(), strict=True)
    )
