"""One student of the ablation: the project's model, losses, rates and order, on log-mels that are already there.

The loop is tiny and the pieces are the project's: ``initialised`` weights, ``order_generator`` and the batches of an
epoch, AdamW with the trainer's groups and learning rates, the trainer's losses. Arms of one seed start from the same
weights, meet the clips in the same order, drop out alike and take the same number of steps. Tests compare it with the
replaying reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.arms import Arm
from benchmarks.folds import BATCH, MODEL, Fold, by_row, hearing_log_mels
from logitstore.arrays import F32, I64
from logitstore.digests import derived_seed
from logitstore.errors import ModelOutputError
from logitstore.evaluation.metrics import measure
from logitstore.evaluation.sonyc import area, coarse_curve, micro_curve
from logitstore.models.registry import build, default_lr, initialised
from logitstore.models.tagger import Tagger, probabilities
from logitstore.training.batches import Batch
from logitstore.training.sampling import mix_weights, order_generator, plan
from logitstore.training.schedule import FLOOR, WARM_UP_SHARE, WEIGHT_DECAY, learning_rate, parameter_groups
from students.objective import Objective
from students.terms import TARGET, Setting, Term


@dataclass(frozen=True)
class Rule:
    """How the optimiser goes, beside the highest rate; see :mod:`logitstore.training.schedule`.

    ``warm_up`` is a share of the steps here.
    """

    weight_decay: float = WEIGHT_DECAY
    spared: bool = True
    floor: float = FLOOR
    warm_up: float = WARM_UP_SHARE
    cosine: str = "rest"


def train(
    fold: Fold,
    arm: Arm,
    width: int,
    seed: int,
    steps: int,
    rows: I64 | None = None,
    losses: list[float] | None = None,
    *,
    rule: Rule | None = None,
    make: Callable[[], Tagger] | None = None,
    highest: float = default_lr(MODEL),
    after: Callable[[int, Tagger], None] = lambda done, model: None,
    also: tuple[float, Term] | None = None,
) -> Tagger:
    """A student of some arm, in eval mode; it takes log-mels.

    :param rows: the clips of the pool to learn from, int64 (n,); all of them by default.
    :param losses: gets the loss of every step.
    :param rule: the trainer's own by default. :param highest: the highest learning rate.
    :param make: a net in the place of the ablation's own, which hears the same log-mels.
    :param also: a term that is none of the product's, and its weight.
    :param after: is called after each step with the number of those done, and leaves the model in train mode.
    """
    chosen = fold.clips if rows is None else rows
    make = make or partial(build, MODEL, len(fold.classes), width=width, **fold.model_args)
    model = hearing_log_mels(initialised(make, seed)).train()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rule = rule or Rule()
    groups = parameter_groups(model, rule.weight_decay, spared=rule.spared)
    optimizer = torch.optim.AdamW(groups, lr=highest, fused=True)
    rising = round(rule.warm_up * steps)
    relations = fold.store(arm.store).manifest.relations
    setting = Setting("bce", frames=None if relations is None else relations.pooled)
    objective = Objective({TARGET: 1.0} | dict(arm.terms), setting, mixup=arm.mixup or None)
    if also is not None:
        objective.weights["also"], objective.terms["also"] = also
        objective.relations += also[1].relations
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed("dropout", seed))
        for step, batch in enumerate(batches(fold, arm, chosen, seed, steps, objective.relations)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, highest, warm_up=rising, floor=rule.floor, cosine=rule.cosine)
            mix = mix_weights(arm.mixup, seed, step, len(batch)) if arm.mixup else None
            logits, frames = model.outputs(batch.waveforms, batch.masks, mix)
            loss = objective(logits, frames, batch, mix).total
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            after(step + 1, model)
            if losses is not None:
                losses.append(float(loss.detach()))
    if not torch.isfinite(loss.detach()):
        raise ModelOutputError(f"the loss of {arm}, width {width}, seed {seed}, is not finite")
    return model.eval()


def batches(fold: Fold, arm: Arm, rows: I64, seed: int, steps: int, relations: tuple[str, ...] = ()) -> Iterator[Batch]:
    """The batches of a training, log-mels in the place of waveforms, as the trainer's plan orders them."""
    epoch = done = 0
    while done < steps:
        sounds, spans = fold.sound(arm, epoch)
        targets = fold.targets(arm, epoch)
        for positions in plan(len(rows), BATCH, order_generator(seed, epoch))[: steps - done]:
            at = rows[positions]
            yield Batch(
                torch.from_numpy(np.array(sounds[at])),
                spans[at],
                torch.from_numpy(np.array(targets[at])),
                at,
                **fold.relations(arm, epoch, at, relations),
            )
            done += 1
        epoch += 1


@torch.inference_mode()
def score(model: Tagger, sounds: F32, labels: npt.NDArray[np.bool_], row_of: I64) -> dict[str, float]:
    """mAP and micro areas of a student on clips as they are, in points (0 to 100).

    ``micro`` is average precision over all (row, class) pairs, ``official`` the micro AUPRC of :func:`official`.
    """
    said = [probabilities(model(torch.from_numpy(np.array(part))), "sigmoid") for part in np.array_split(sounds, 4)]
    scores = by_row(torch.cat(said).numpy(), row_of)
    metrics = measure(labels, scores)
    return {
        "mAP": 100 * metrics.mAP,
        "micro": 100 * metrics.micro_auprc,
        "official": 100 * official(labels, scores),
    }


def official(labels: npt.NDArray[np.bool_], scores: F32) -> float:
    """Micro AUPRC as DCASE 2019 task 5 measures it, every class taken for a coarse one; in [0, 1].

    Counts of all classes are summed at every score of at least 0.01, and the area is trapezoidal.
    """
    curves = [coarse_curve(labels[:, each], scores[:, each].astype(np.float64)) for each in range(labels.shape[1])]
    return area(micro_curve(curves), rising=True).auprc
