"""Several teachers as one: the weighted mean of what they say of the same view."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, overload

import msgspec
import numpy as np
import torch

from logitstore.arrays import I64, Bool
from logitstore.classes import ClassIndex, join, positions, read_classes
from logitstore.digests import digest
from logitstore.errors import LogitstoreError, MemoryShortError, ModelOutputError, TeacherError
from logitstore.models.machine import keep_freed_memory, out_of_memory, pick_device
from logitstore.notes import doing
from logitstore.store.format.frames import FrameSpec
from logitstore.store.format.manifest import (
    ARGUMENTS,
    CLASSES,
    CODE,
    KNOWS,
    LICENCE,
    NON_COMMERCIAL,
    NOT_COVERED,
    ORIGIN,
    POOLING,
    WINDOW,
    Member,
    known_ranges,
)
from logitstore.training.precision import pass_dtype
from logitstore.training.runs import weights_digest
from logitstore.views.recipe import Masks, Recipe
from logitstore.views.render import resample
from teachers import registry
from teachers.frames import Answer, Frames, lay
from teachers.shared import one_batch, share_front_ends
from teachers.teacher import Teacher

#: Length of views in seconds where no teacher says what it learnt from.
ANY_SECONDS = 10.0
#: In the place of class names: those that every teacher knows.
COMMON = "common"
#: How far outside [0, 1] rounding may put a probability; it is clipped. Anything further is an error.
SLACK = 1e-5
#: Probabilities are clamped to [_EPSILON, 1 - _EPSILON] before their logit, to [_TINY, 1] before their logarithm.
_EPSILON = 1e-7
_TINY = 1e-30
#: How far from 1 the softmax scores of a view may sum, in float32 and of teachers that compute with 16 bits.
SUM_SLACK, _SUM_SLACK_16 = 1e-3, 1e-2


@dataclass(frozen=True)
class Outputs:
    """What an ensemble says of B views: ``probabilities`` float32 (B, C), those of each member, ``members`` float32
    (M, B, C), and each one's ``features`` over time, float32 (B, T, D), T and D its own; none where not asked for.
    ``frames`` are the ensemble's probabilities of every frame of a store, float32 (B, T, C), where asked for."""

    probabilities: torch.Tensor
    members: torch.Tensor
    features: tuple[torch.Tensor, ...]
    frames: torch.Tensor | None = None


class Ensemble:
    """Teachers, their weights, and one list of classes.

    :param teachers: at least one, of one score kind. The first gives the order of the classes.
    :param weights: one positive number a teacher, scaled to a sum of 1; equal unless given. ``scale_weights`` False
        takes them as they are, of a store, which has scaled them before.
    :param average: "probability" for the weighted mean of probabilities; "logit" for the sigmoid of the mean of logits
        (for softmax scores, the normalised weighted geometric mean).
    :param classes: a subset to keep, in this order, each known to one teacher at least; "common" for those that every
        teacher knows; all by default, joined by MID, then by name. A class is averaged over the teachers that know it.
        Softmax probabilities of a subset are kept as they are, not scaled to a sum of 1.
    :param sample_rate: Hz of the waveforms that :meth:`probabilities` takes; a member of another rate hears each clip
        resampled alone.
    :param precision: the number format that the members compute in once :meth:`to` has named a device, see
        :mod:`logitstore.training.precision`; results are float32.
    :raises TeacherError: no teachers, bad weights, other classes or score kinds.

    Attributes: ``members`` the teachers; ``weights``, a tuple with a sum of 1; ``classes``; ``known``, of each member
    bool (C,), which of the classes it knows; ``scores``; ``device``; ``notes``, lines on what is allowed and perhaps
    not meant, such as a teacher that is there twice.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        weights: Sequence[float] | None = None,
        average: str = "probability",
        classes: Sequence[str] | str | None = None,
        *,
        sample_rate: int,
        precision: str = "float32",
        scale_weights: bool = True,
    ) -> None:
        if not teachers:
            raise TeacherError("an ensemble of no teachers; give at least one --teacher SPEC")
        if average not in ("probability", "logit"):
            raise TeacherError(f"average {average!r}; allowed are 'probability' and 'logit'")
        first = teachers[0]
        for teacher in teachers[1:]:
            if teacher.scores != first.scores:
                raise TeacherError(
                    f"teacher {teacher.spec!r} gives {teacher.scores} scores and teacher {first.spec!r} "
                    f"{first.scores}; an ensemble needs one kind"
                )
        self.members = tuple(teachers)
        scaled = _normalised(weights, len(self.members))
        self.weights = tuple(weights) if weights and not scale_weights else scaled
        self.average = average
        self.scores = first.scores
        self.classes, at = _vocabulary(self.members, classes)
        self.known = tuple(found >= 0 for found in at)
        self.sample_rate = sample_rate
        self.precision = precision
        self.device = torch.device("cpu")
        self._dtype: torch.dtype | None = None  # of the device, so that `to` says it
        self._positions: list[torch.Tensor | None] = []
        for teacher, found in zip(self.members, at, strict=True):
            in_order = len(found) == len(teacher.classes) and bool((found == np.arange(len(found))).all())
            self._positions.append(None if in_order else torch.from_numpy(found))
        self._shares = _shares(self.weights, self.known)
        self._shared = share_front_ends(self.members)
        self.notes = [*_twins(self.members), *_unequal(self.members, self.known)]

    def check(self, recipe: Recipe, clip_seconds: float | None = None) -> None:
        """Refuse a recipe that a member cannot hear.

        :param clip_seconds: length of the views; checked against the longest that each member hears whole.
        :raises TeacherError: a spectrogram op and a member that takes only waveforms, or views that are too long.
        """
        for teacher in self.members:
            if recipe.spectrogram_ops and not teacher.takes_masks:
                raise TeacherError(
                    f"teacher {teacher.spec!r} takes only waveforms and the recipe {recipe.name!r} has the spectrogram "
                    f"op {recipe.spectrogram_ops[0].name!r}, which it would not hear; use --recipe wave, whose ops "
                    "it hears, another recipe of waveform ops, or another teacher"
                )
            longest = teacher.contract.max_seconds
            if clip_seconds is not None and longest is not None and clip_seconds > longest:
                raise TeacherError(
                    f"teacher {teacher.spec!r} hears at most {longest:.2f} s and a view has {clip_seconds:g} s; choose "
                    "a shorter --clip-seconds"
                )

    def unheard(self, reason: str) -> list[str]:
        """A line for each member that would hear more than waveforms of the ensemble's rate hold.

        :param reason: why they have that rate.
        """
        rate = self.sample_rate
        return [
            f"teacher {teacher.spec!r} takes {teacher.sample_rate:,} Hz and views have {rate:,} Hz, {reason}: it hears "
            f"nothing above {rate / 2:,.0f} Hz"
            for teacher in self.members
            if teacher.sample_rate > rate
        ]

    def learnt_seconds(self) -> tuple[float, str]:
        """How long views are unless told otherwise, in seconds, and why, in words.

        As long as the longest clips that a member learnt from, 10 s where none says; never longer than one hears whole.
        """
        learnt = [(each.contract.trained_seconds, each.spec) for each in self.members]
        seconds, spec = max(((s, spec) for s, spec in learnt if s is not None), default=(ANY_SECONDS, None))
        why = "for no teacher says what it learnt from" if spec is None else f"as teacher {spec!r} learnt from"
        limits = [(each.contract.max_seconds, each.spec) for each in self.members]
        for longest, spec in limits:
            if longest is not None and longest < seconds:
                seconds, why = math.floor(longest * 10) / 10, f"for teacher {spec!r} hears no more"
        return seconds, why

    def to(self, device: str | torch.device) -> Self:
        """Move every member to a device.

        :raises RunError: it cannot compute in the ensemble's precision.
        """
        self.device = torch.device(device)
        self._dtype = pass_dtype(self.precision, self.device)
        for teacher in self.members:
            teacher.to(self.device)
        self._positions = [None if at is None else at.to(self.device) for at in self._positions]
        self._shares = [share if isinstance(share, float) else share.to(self.device) for share in self._shares]
        return self

    def compile(self) -> Self:
        """Have torch's compiler make every member's net faster.

        :raises TeacherError: a member cannot be.
        """
        for teacher in self.members:
            teacher.compile()
        return self

    @overload
    def probabilities(
        self, waveforms: torch.Tensor, masks: Masks | None, members: Literal[False] = False
    ) -> torch.Tensor: ...

    @overload
    def probabilities(
        self, waveforms: torch.Tensor, masks: Masks | None, members: Literal[True]
    ) -> tuple[torch.Tensor, torch.Tensor]: ...

    @torch.inference_mode()
    def probabilities(
        self, waveforms: torch.Tensor, masks: Masks | None, members: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """What the ensemble says of B views.

        :param waveforms: float32 (B, S) at ``sample_rate``, replayed and padded, on any device.
        :param masks: the B masks of the draws, or None under a recipe without spectrogram ops.
        :param members: whether to give each member's probabilities too.
        :returns: float32 (B, C) in [0, 1] on the ensemble's device; with ``members``, also float32 (M, B, C).
        :raises ModelOutputError: a member failed, or gave a wrong shape, NaN, or values outside [0, 1]; the message
            names it.
        """
        said, *_ = self._asked(waveforms, masks)
        mean = self._mean(said)
        return (mean, torch.stack(said)) if members else mean

    @torch.inference_mode()
    def outputs(
        self,
        waveforms: torch.Tensor,
        masks: Masks | None,
        *,
        features: bool = True,
        frames: FrameSpec | None = None,
        heard: Bool | None = None,
        by_rate: Mapping[int, torch.Tensor] | None = None,
    ) -> Outputs:
        """As :meth:`probabilities`, with each member's probabilities and, of the same pass, its features over time.

        :param frames: how a store says when, of views of this length; then the members' frame probabilities are laid on
            its frames (see :mod:`teachers.frames`) and averaged like those of views.
        :param heard: bool (B,), which views hold a clip, the others standing in for clips that cannot be decoded: what
            is said of those is not looked at, and comes back as zeros. All of them by default.
        :param by_rate: the same waveforms as :meth:`at_rates` gives them, made before; nobody needs them any more, so
            that a member may change them.
        :raises ModelOutputError: as there; or features that are not finite numbers of shape (B, T, D).
        :raises TeacherError: frames are asked for, and a member does not say when.
        """
        said, activations, when = self._asked(
            waveforms, masks, features=features, frames=frames, heard=heard, by_rate=by_rate
        )
        laid = None
        if frames is not None:
            laid = self._mean([each.flatten(0, 1) for each in when]).reshape(len(waveforms), frames.count, -1)
        return Outputs(self._mean(said), torch.stack(said), tuple(activations), laid)

    def at_rates(self, waveforms: torch.Tensor) -> dict[int, torch.Tensor]:
        """What the members hear of waveforms, by the rates that they take: resampled, on the ensemble's device.

        :param waveforms: float32 (B, S) at ``sample_rate``, on any device.
        :raises MemoryShortError: they do not fit there.
        """
        try:
            return {
                rate: resample(waveforms, self.sample_rate, rate).to(self.device)
                for rate in dict.fromkeys(teacher.sample_rate for teacher in self.members)
            }
        except (RuntimeError, MemoryError) as error:
            if out_of_memory(error):
                raise _short("the batch itself", len(waveforms), self.device) from error
            raise

    def _mean(self, said: list[torch.Tensor]) -> torch.Tensor:
        return _mean(said, self._shares, self.average, self.scores)

    def alone(self, number: int) -> Ensemble:
        """One of the members as an ensemble of itself, over the same classes, rate, device and precision."""
        other = copy.copy(self)
        other.members, other.known = (self.members[number],), (self.known[number],)
        other.weights, other._shares, other._positions = (1.0,), [1.0], [self._positions[number]]
        other.notes = []
        return other

    def require_features(self) -> None:
        """Refuse members that give no features over time.

        :raises TeacherError: there are some; all of them are named.
        """
        without = [repr(teacher.spec) for teacher in self.members if not teacher.has_features]
        if without:
            raise TeacherError(
                f"teacher{'s' * (len(without) > 1)} {', '.join(without)} give{'s' * (len(without) == 1)} no features "
                "over time, which --relations needs; run folders, ced: and hf: teachers do, and python: modules with a "
                "method features(waveforms, masks)"
            )

    def require_frames(self, seconds: float) -> None:
        """Refuse members that do not say when.

        :param seconds: length of the views.
        :raises TeacherError: there are some; all of them are named, with the reason.
        """
        reasons = [says_whole(teacher, seconds) for teacher in self.members]
        without = [f"{each.spec!r} {why}" for each, why in zip(self.members, reasons, strict=True) if why]
        if without:
            raise TeacherError(
                f"--frames needs teachers that say when, and teacher {'; '.join(without)}. Those that do: nets that "
                "answer by frames, such as crnn, densenet or a run with --pool mean, max or attention, "
                "cnn14-decision-level-att, BEATs, YAMNet, models of shorter windows, and python: modules with a method "
                "frame_probabilities(waveforms, masks)"
            )

    def _asked(
        self,
        waveforms: torch.Tensor,
        masks: Masks | None,
        *,
        features: bool = False,
        frames: FrameSpec | None = None,
        heard: Bool | None = None,
        by_rate: Mapping[int, torch.Tensor] | None = None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor], list[torch.Tensor]]:
        """Of every member its probabilities (B, C) at the ensemble's classes, features, and frames (B, T, C)."""
        at_rate = self.at_rates(waveforms) if by_rate is None else by_rate
        said: list[torch.Tensor] = []
        activations: list[torch.Tensor] = []
        when: list[torch.Tensor] = []
        last = {teacher.sample_rate: number for number, teacher in enumerate(self.members)}
        with one_batch(self._shared):
            for number, (teacher, at) in enumerate(zip(self.members, self._positions, strict=True)):
                own = at_rate[teacher.sample_rate]
                if _may_change(teacher) and (by_rate is None or last[teacher.sample_rate] != number):
                    own = own.clone()  # it may change what it is given, and nobody else is to hear that
                answer = self._ask(teacher, own, masks, features, frames is not None)
                checked = check_output(teacher, answer.probabilities, len(waveforms), heard, self._dtype is not None)
                said.append(_chosen(checked.to(self.device), at))
                if features:
                    activations.append(check_features(teacher, answer.features, len(waveforms), heard).to(self.device))
                if frames is not None:
                    found = check_frames(teacher, answer.frames, len(waveforms), heard)
                    laid = lay(found, frames, waveforms.shape[1] / self.sample_rate).to(self.device)
                    when.append(_chosen(laid, at))
        return said, activations, when

    def _ask(
        self, teacher: Teacher, waveforms: torch.Tensor, masks: Masks | None, features: bool, frames: bool
    ) -> Answer:
        """What a member gives, unchecked. ``waveforms`` are its own to change, where it runs somebody's own code."""
        own, own_masks = waveforms, None if masks is None else masks.copy()
        try:
            with torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype is not None):
                if frames:
                    return teacher.answers(own, own_masks, features=features, frames=True)
                if features:
                    return Answer(*teacher.outputs(own, own_masks))
                return Answer(teacher.probabilities(own, own_masks))
        except LogitstoreError:
            raise
        except (Exception, SystemExit) as error:
            if out_of_memory(error):
                raise _short(f"teacher {teacher.spec!r}", len(waveforms), self.device) from error
            said = (str(error).strip().splitlines() or ["without a word"])[0]
            raise ModelOutputError(
                f"teacher {teacher.spec!r} failed: {type(error).__name__}: {said}; mend it, or what it needs, and run "
                "the same command again"
            ) from error

    def describe(self) -> list[dict[str, Any]]:
        """Each member for a manifest, without its path: name, digest, scores, sample_rate, weight, contract.

        The contract of a member whose classes are not those of the ensemble, in their order, says by a digest which
        they are, and which of the ensemble's it knows where that is not all; that of one whose digest cannot cover all
        that it is says what it leaves out.
        """
        return [
            {
                "name": teacher.name,
                "digest": teacher.digest,
                "scores": teacher.scores,
                "sample_rate": teacher.sample_rate,
                "weight": weight,
                "contract": teacher.contract.stored()
                | ({CLASSES: digest("\n".join(teacher.classes).encode())} if teacher.classes != self.classes else {})
                | ({} if known.all() else {KNOWS: known_ranges(known)}),
            }
            for teacher, weight, known in zip(self.members, self.weights, self.known, strict=True)
        ]


def load_ensemble(
    teachers: Sequence[str | Teacher],
    weights: Sequence[float] | None = None,
    average: str = "probability",
    classes: str | Sequence[str] | None = None,
    *,
    sample_rate: int | None = None,
    device: str = "cpu",
    precision: str = "float32",
    scale_weights: bool = True,
) -> Ensemble:
    """The one way to an :class:`Ensemble`, whose arguments these are, on a device.

    On the CPU the process keeps from now on what a batch frees, for the next: see
    :func:`logitstore.models.machine.keep_freed_memory`.

    :param teachers: their specs; one that is loaded already is taken as it is.
    :param classes: those to keep, a file of them, or "common" for those that all teachers know.
    :param sample_rate: Hz; the highest of the teachers by default.
    :param device: "auto", "cpu" or "cuda", "cuda:1", ….
    :raises TeacherError: as :func:`teachers.registry.load_teacher` and :class:`Ensemble` do.
    :raises UsageError: a device that is not there.
    """
    members = []
    for number, each in enumerate(teachers):
        if isinstance(each, str):
            doing("loading the teachers", number, len(teachers))
        members.append(registry.load_teacher(each) if isinstance(each, str) else each)
    ensemble = Ensemble(
        members,
        weights,
        average,
        read_classes(classes) if isinstance(classes, str) and classes != COMMON else classes,
        sample_rate=sample_rate or max((teacher.sample_rate for teacher in members), default=0),
        precision=precision,
        scale_weights=scale_weights,
    )
    where = pick_device(device)
    if where == "cpu":
        keep_freed_memory()
    return ensemble.to(where)


def check_output(
    teacher: Teacher, output: object, clips: int, heard: Bool | None = None, reduced: bool = False
) -> torch.Tensor:
    """A teacher's output as float32 (clips, C) in [0, 1]; softmax scores of a clip sum to 1.

    :param heard: bool (clips,), the rows to look at; the others are given as zeros.
    :param reduced: whether it was computed in a 16-bit type.
    :raises ModelOutputError: not such a tensor; a value may be outside [0, 1] by rounding only, and is then clipped.
    """
    wanted = (clips, len(teacher.classes))
    whose = f"teacher {teacher.spec!r}"
    if not isinstance(output, torch.Tensor) or not output.is_floating_point():
        kind = output.dtype if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelOutputError(f"{whose} gave {kind}; it must give a float tensor of shape {wanted}")
    if tuple(output.shape) != wanted:
        raise ModelOutputError(f"{whose} gave the shape {tuple(output.shape)}; it must be (clips, classes) = {wanted}")
    values = output.float()
    if not clips:
        return values
    if heard is not None and not heard.all():
        values = values.masked_fill(~torch.from_numpy(heard).to(values.device)[:, None], 0.0)
    low, high = (float(bound) for bound in values.aminmax())  # NaN where any value is
    if math.isnan(low) or math.isnan(high):
        row, column = (int(at) for at in values.isnan().nonzero()[0])
        count = int(values.isnan().sum())
        raise ModelOutputError(
            f"{whose} gave NaN for clip {row} of a batch of {clips}, class {teacher.classes[column]!r} ({count} of "
            f"{values.numel()} values); mend it, or leave such clips out with --where",
            row,
        )
    if low < -SLACK or high > 1 + SLACK:
        worst = values.argmax() if high - 1 > -low else values.argmin()
        row, column = divmod(int(worst), wanted[1])
        raise ModelOutputError(
            f"{whose} gave values from {low:g} to {high:g}; probabilities lie in [0, 1]; are these logits? "
            f"({float(values[row, column]):g} is for clip {row} of a batch of {clips}, class "
            f"{teacher.classes[column]!r}); {teacher.if_logits}",
            row,
        )
    if teacher.scores == "softmax":
        slack = _SUM_SLACK_16 if reduced or output.dtype in (torch.float16, torch.bfloat16) else SUM_SLACK
        rows = torch.arange(clips) if heard is None else torch.from_numpy(heard.nonzero()[0])
        sums = values.double().sum(dim=1).cpu()[rows]
        off = (sums - 1).abs()
        if len(off) and float(off.max()) > slack:
            at = int(off.argmax())
            raise ModelOutputError(
                f"{whose} states softmax scores, and those of clip {int(rows[at])} of a batch of {clips} sum to "
                f"{float(sums[at]):.4g} (of all: {float(sums.min()):.4g} to {float(sums.max()):.4g}); the "
                f"probabilities of one clip sum to 1; {teacher.if_logits}",
                int(rows[at]),
            )
    return values.clamp(0.0, 1.0)


def check_features(teacher: Teacher, features: object, clips: int, heard: Bool | None = None) -> torch.Tensor:
    """A teacher's features over time as float32 (clips, T, D).

    :param heard: bool (clips,), the rows to look at; the others are given as zeros.
    :raises ModelOutputError: not such a tensor, or one with values that are not finite.
    """
    wanted = f"(clips, frames, features) = ({clips}, T, D)"
    if not isinstance(features, torch.Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, torch.Tensor) else type(features).__name__
        raise ModelOutputError(
            f"teacher {teacher.spec!r} gave features of {kind}; it must give a float tensor of shape {wanted}"
        )
    if features.ndim != 3 or len(features) != clips or 0 in features.shape[1:]:
        raise ModelOutputError(
            f"teacher {teacher.spec!r} gave features of the shape {tuple(features.shape)}; it must be {wanted}"
        )
    values = features.float()
    if heard is not None and not heard.all():
        values = values.masked_fill(~torch.from_numpy(heard).to(values.device)[:, None, None], 0.0)
    finite = values.isfinite().flatten(1).all(dim=1)
    if not bool(finite.all()):
        row = int((~finite).nonzero()[0])
        raise ModelOutputError(
            f"teacher {teacher.spec!r} gave features that are not finite for clip {row} of a batch of {clips}", row
        )
    return values


def check_frames(teacher: Teacher, frames: Frames | None, clips: int, heard: Bool | None = None) -> Frames:
    """A teacher's frame probabilities as float32 (clips, T, C) in [0, 1].

    :param heard: bool (clips,), the rows to look at; the others are given as zeros.
    :raises ModelOutputError: not such a tensor; centres that fall, or are others in number; one frame alone.
    """
    whose = f"teacher {teacher.spec!r}"
    wanted = f"(clips, frames, classes) = ({clips}, T, {len(teacher.classes)})"
    said = None if frames is None else frames.probabilities
    if frames is None or not isinstance(said, torch.Tensor) or not said.is_floating_point():
        kind = said.dtype if isinstance(said, torch.Tensor) else type(said).__name__
        raise ModelOutputError(f"{whose} gave frames of {kind}; it must give a float tensor of shape {wanted}")
    if said.ndim != 3 or (said.shape[0], said.shape[2]) != (clips, len(teacher.classes)):
        raise ModelOutputError(f"{whose} gave frames of the shape {tuple(said.shape)}; it must be {wanted}")
    if said.shape[1] < 2:
        raise ModelOutputError(f"{whose} gave {said.shape[1]} frames of a view, which do not say when")
    centers = np.asarray(frames.centers, dtype=np.float64)
    if centers.shape != (said.shape[1],) or not np.isfinite(centers).all() or (np.diff(centers) < 0).any():
        raise ModelOutputError(
            f"{whose} gave {said.shape[1]} frames and {centers.size} centres; a finite one of each frame is due, in "
            "seconds, not falling"
        )
    values = said.float()
    if heard is not None and not heard.all():
        values = values.masked_fill(~torch.from_numpy(heard).to(values.device)[:, None, None], 0.0)
    if values.numel():
        low, high = (float(bound) for bound in values.aminmax())  # NaN where any value is
        if not (low >= -SLACK and high <= 1 + SLACK):
            inside = ((values >= -SLACK) & (values <= 1 + SLACK)).flatten(1).all(dim=1)
            row = int((~inside).nonzero()[0])
            raise ModelOutputError(
                f"{whose} gave frames with values from {low:g} to {high:g} (clip {row} of a batch of {clips}); "
                "probabilities lie in [0, 1]; are these logits?",
                row,
            )
    return Frames(values.clamp(0.0, 1.0), centers)


def _short(whose: str, views: int, device: torch.device) -> MemoryShortError:
    return MemoryShortError(
        f"{whose}: a batch of {views:,} views does not fit into the memory of {device}; see what else uses it, or "
        "give a smaller --batch-size"
    )


def _may_change(teacher: Teacher) -> bool:
    """Whether a teacher may change the waveforms that it is given: whatever runs code that is not this project's."""
    ours = type(teacher).__module__.split(".")[0] == __name__.split(".")[0]
    return not ours or teacher.own_code or CODE in teacher.contract.arguments


def says_whole(teacher: Teacher, seconds: float) -> str | None:
    """Why a teacher does not say when of views of so many seconds; None where it does."""
    says = teacher.contract
    if not says.has_frames:
        return "says one thing of a whole view"
    if says.window is not None and says.pooling is None:
        samples = math.floor(seconds * says.sample_rate + 0.5)
        if len(says.window.starts(samples)) < 2:
            return f"hears a view of {seconds:g} s as one window of {says.window.samples / says.sample_rate:g} s"
    return None


def _twins(members: Sequence[Teacher]) -> list[str]:
    """A line for each member that is another one over again: the same spec, or the same weights."""
    empty = weights_digest({})
    notes = []
    for number, teacher in enumerate(members):
        for other in members[:number]:
            if teacher.spec == other.spec:
                what = "is given twice"
            elif teacher.digest == other.digest != empty:
                what = f"has the same weights as {other.spec!r}"
            else:
                continue
            cost = "an ensemble of both costs twice the time, and weighs that one twice"
            notes.append(f"teacher {teacher.spec!r} {what}; {cost}")
            break
    return notes


def _normalised(weights: Sequence[float] | None, members: int) -> tuple[float, ...]:
    given = [1.0] * members if weights is None or not len(weights) else [float(weight) for weight in weights]
    if len(given) != members:
        raise TeacherError(f"{len(given)} teacher weights for {members} teachers; give one a teacher, or none")
    for weight in given:
        if not (math.isfinite(weight) and weight > 0):
            raise TeacherError(f"teacher weight {weight:g}; weights must be positive numbers")
    total = math.fsum(given)
    return tuple(weight / total for weight in given)


def _vocabulary(members: Sequence[Teacher], asked: Sequence[str] | str | None) -> tuple[tuple[str, ...], list[I64]]:
    """The classes of an ensemble, and where each stands among those of each member, int64 (C,): -1 where it does not.

    :raises TeacherError: a class that was asked for and that nobody knows; softmax members of unequal classes.
    """
    joint, called = join([(each.contract.classes, each.contract.mids) for each in members])
    if asked is not None and asked != COMMON:
        chosen = tuple(asked)
        at = [_found(each, chosen, called[number], joint) for number, each in enumerate(members)]
        unknown = [name for name, *found in zip(chosen, *at, strict=True) if max(found) < 0]
        if unknown:
            if len(members) == 1:
                positions(members[0].classes, chosen, whose=f"teacher {members[0].spec!r}", subset=True)
            shown = ", ".join(repr(name) for name in unknown[:3])
            raise TeacherError(
                f"no teacher knows {shown}{', …' if len(unknown) > 3 else ''} ({len(unknown)} of the {len(chosen)} "
                "classes that are asked for); take them out of the --classes file"
            )
    else:
        shared = set.intersection(*map(set, called)) if asked == COMMON else set(joint)
        chosen = tuple(name for name in joint if name in shared)
        if not chosen:
            raise TeacherError(
                "the teachers have not one class in common, by MID or by name; leave out --classes common"
            )
        at = [np.array([names.get(name, -1) for name in chosen], dtype=np.int64) for names in map(_places, called)]
    if members[0].scores == "softmax" and any((found < 0).any() for found in at):
        first = next(number for number, found in enumerate(at) if (found < 0).any())
        lacking = [name for name, place in zip(chosen, at[first].tolist(), strict=True) if place < 0]
        raise TeacherError(
            f"teacher {members[first].spec!r} has another class list: it lacks {len(lacking)} of the {len(chosen)} "
            f"classes of the ensemble, such as {lacking[0]!r}, and softmax scores over unequal classes have no mean; "
            "give teachers of one class list, or --classes common for what they share"
        )
    return chosen, at


def _places(names: Sequence[str]) -> dict[str, int]:
    return {name: place for place, name in reversed(list(enumerate(names)))}


def _found(teacher: Teacher, wanted: Sequence[str], called: Sequence[str], joint: Sequence[str]) -> I64:
    """Where the wanted classes stand among a member's: by its own names, MIDs and indices, or by the ensemble's."""
    index, places, names = ClassIndex(teacher.classes), _places(called), ClassIndex(joint)
    found = []
    for name in wanted:
        at = index.find(name)
        if at is None and (place := names.find(name)) is not None:
            at = places.get(names.classes[place])
        found.append(-1 if at is None else at)
    taken = [at for at in found if at >= 0]
    if len(set(taken)) != len(taken):
        raise TeacherError(
            f"teacher {teacher.spec!r}: two of the {len(wanted)} wanted classes are the same class of AudioSet"
        )
    return np.array(found, dtype=np.int64)


def _chosen(said: torch.Tensor, at: torch.Tensor | None) -> torch.Tensor:
    """Scores (…, C) of the classes that stand at ``at``, 0 where that is -1; where it is None all, as they are."""
    return said if at is None else said[..., at.clamp(min=0)].masked_fill(at < 0, 0.0)


def _shares(weights: Sequence[float], known: Sequence[Bool]) -> list[float | torch.Tensor]:
    """Each member's share of the mean; float32 (C,), summing to 1 over the members that know a class, where not all
    know all."""
    if all(every.all() for every in known):
        return list(weights)
    shares = np.asarray(weights, dtype=np.float64)[:, None] * np.stack(known)
    shares /= shares.sum(axis=0)
    return [torch.from_numpy(share.astype(np.float32)) for share in shares]


def _unequal(members: Sequence[Teacher], known: Sequence[Bool]) -> list[str]:
    """A line on members that do not know every class of the ensemble."""
    if all(every.all() for every in known):
        return []
    counts = ", ".join(f"{int(every.sum())} of {each.spec!r}" for each, every in zip(members, known, strict=True))
    shared = int(np.logical_and.reduce(known).sum())
    return [
        f"the classes join to {len(known[0])} ({counts}), {shared} of which every teacher knows; a class is averaged "
        "over the teachers that know it (--classes common keeps only those that all know)"
    ]


def _mean(said: list[torch.Tensor], weights: Sequence[float | torch.Tensor], average: str, scores: str) -> torch.Tensor:
    if len(said) == 1:
        return said[0]
    if average == "probability":
        return _weighted(said, weights).clamp_(0.0, 1.0)
    if scores == "sigmoid":
        return torch.sigmoid(_weighted([torch.logit(member, eps=_EPSILON) for member in said], weights))
    logs = _weighted([member.clamp(min=_TINY).log() for member in said], weights)
    mass = _weighted(
        [member.sum(dim=1, keepdim=True) for member in said], weights
    )  # 1, less where classes were left out
    return (torch.softmax(logs, dim=1) * mass).clamp_(0.0, 1.0)


def _weighted(values: list[torch.Tensor], weights: Sequence[float | torch.Tensor]) -> torch.Tensor:
    total = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        total = total + value * weight
    return total


#: What :meth:`Ensemble.describe` says in a contract only of members that need it, and earlier releases did not.
_ADDED = (ARGUMENTS, CLASSES, CODE, KNOWS, LICENCE, NON_COMMERCIAL, NOT_COVERED, ORIGIN, POOLING, WINDOW)


def members_as_stored(ensemble: Ensemble, stored: Sequence[Member]) -> tuple[tuple[Member, ...], list[str]]:
    """The members for a manifest, each as it stands in a store that an earlier release began, and what to say of that.

    Such a store's digests cover less than today's; a member that has that digest, and is the same in all else that the
    store says, is taken for the store's.

    :param stored: the members of the store; none where there is no store.
    """
    asked = [msgspec.convert(member, Member) for member in ensemble.describe()]
    if len(stored) != len(asked):
        return tuple(asked), []
    members, notes = [], []
    for teacher, now, before in zip(ensemble.members, asked, stored, strict=True):
        plain = {key: value for key, value in now.contract.items() if key not in _ADDED or key in before.contract}
        words = (LICENCE, NON_COMMERCIAL, ORIGIN)  # which decide nothing of what it says
        plain |= {key: before.contract[key] for key in words if key in before.contract}
        known = now.digest, *(teacher.earlier_digests() if now.digest != before.digest else ())
        as_before = msgspec.structs.replace(now, digest=before.digest, contract=plain)
        if now != before and as_before == before and before.digest in known:
            members.append(before)
            if now.digest != before.digest:
                notes.append(
                    f"the store knows teacher {teacher.spec!r} by the digest {before.digest[:12]}, which an earlier "
                    "release made of its weights alone; whether all else of it is as it was cannot be told"
                )
        else:
            members.append(now)
    return tuple(members), notes
