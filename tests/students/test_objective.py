"""What a training minimises: its terms against their definitions, batch mixup, and gradients where they must go."""

import numpy as np
import pytest
import torch

from logitstore.errors import RunError
from logitstore.models.grams import gram, pooled
from logitstore.models.losses import bce, kl
from logitstore.models.registry import build
from logitstore.training.batches import Batch
from logitstore.training.sampling import mix_weights, share
from students.objective import Objective
from students.terms import SIMILARITIES, Setting, find, selected
from students.terms.iusp import iusp
from students.terms.sp import sp

B, C, T, D = 7, 5, 4, 6


def random_batch(seed=0, labelled=None):
    """Seven made-up views with everything that an objective can ask for; the targets of each row sum to 1."""
    noise = torch.Generator().manual_seed(seed)
    teacher = torch.randn(B, T, D, generator=noise)
    return Batch(
        waveforms=torch.randn(B, 3200, generator=noise),
        masks=None,
        targets=torch.randn(B, C, generator=noise).softmax(dim=1),
        clips=np.arange(B),
        frame_grams=gram(teacher),
        clip_vectors=torch.nn.functional.normalize(teacher.flatten(1), dim=1),
        labels=(torch.rand(B, C, generator=noise) < 0.4).float(),
        labelled=torch.ones(B, dtype=torch.bool) if labelled is None else torch.tensor(labelled),
    )


def made(loss, temperature=1.0, *, frames=None, mixup=None, **asked):
    """An objective of the terms that the options ask for."""
    return Objective(selected(**asked), Setting(loss, temperature, frames), mixup=mixup)


def random_outputs(seed=1, frames=T, width=3):
    noise = torch.Generator().manual_seed(seed)
    logits = torch.randn(B, C, generator=noise).requires_grad_()
    return logits, torch.randn(B, frames, width, generator=noise).requires_grad_()


@pytest.mark.parametrize(("name", "temperature", "loss"), [("bce", 1.0, bce), ("kl", 3.0, kl)])
def test_alone_it_is_the_mean_loss_against_the_targets(name, temperature, loss):
    batch, (logits, _) = random_batch(), random_outputs()
    found = made(name, temperature)(logits, None, batch)
    expected = loss(logits, batch.targets, *([temperature] if name == "kl" else [])).mean()
    assert found.total.requires_grad
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert list(found.terms) == ["target"]
    assert not found.terms["target"].requires_grad


@pytest.mark.parametrize("kind", ["iusp", "sp", "both"])
@pytest.mark.parametrize("frames", [T, 2, 9])
def test_similarity_adds_its_terms_and_reaches_the_students_frames(kind, frames):
    batch, (logits, features) = random_batch(), random_outputs(frames=frames)
    objective = made("bce", terms=SIMILARITIES[kind], frames=T)
    found = objective(logits, features, batch)
    expected = {
        "iusp": iusp(features, batch.frame_grams).mean(),
        "sp": sp(features, batch.clip_vectors, T),
    }
    wanted = {"both": ("iusp", "sp")}.get(kind, (kind,))
    assert tuple(found.terms) == ("target", *wanted)
    assert objective.relations == {"iusp": ("frames",), "sp": ("clips",), "both": ("frames", "clips")}[kind]
    for name in wanted:
        assert float(found.terms[name]) == pytest.approx(expected[name].item(), rel=1e-6)
        assert float(found.terms[name]) > 0
    total = found.terms["target"] + sum(find(name).weight * found.terms[name] for name in wanted)
    assert found.total.item() == pytest.approx(float(total), rel=1e-6)
    found.total.backward()
    assert (features.grad.abs().sum(dim=(1, 2)) > 0).all()


def test_sp_of_one_process_of_several_is_that_of_the_whole_batch():
    batch, (logits, features) = random_batch(), random_outputs(frames=9)
    objective = made("bce", terms=["sp"], frames=T)
    whole = objective(logits, features, batch).terms["sp"]
    first, rest = batch.part(np.arange(3)), batch.part(np.arange(3, B))
    beside = iter([pooled(features[3:], T), rest.clip_vectors])
    gathered = objective(logits[:3], features[:3], first, gather=lambda own: torch.cat([own, next(beside)])).terms["sp"]
    assert float(gathered) == pytest.approx(float(whole), rel=1e-6)
    assert float(objective(logits[:3], features[:3], first).terms["sp"]) != pytest.approx(float(whole), rel=1e-2)


@pytest.mark.parametrize("name", ["bce", "kl"])
def test_labels_count_for_the_clips_that_have_some(name):
    labelled = [True, False, True, True, False, True, True]
    batch, (logits, _) = random_batch(labelled=labelled), random_outputs()
    batch.labels[:, 0] = 1.0  # softmax scores need a class
    batch.labels[~batch.labelled] = 0.0
    found = made(name, label_weight=0.5)(logits, None, batch)
    each = {"bce": bce, "kl": kl}[name](logits[batch.labelled], batch.labels[batch.labelled])
    assert float(found.terms["labels"]) == pytest.approx((each.sum() / B).item(), rel=1e-6)
    assert found.total.item() == pytest.approx(float(found.terms["target"] + 0.5 * found.terms["labels"]), rel=1e-6)
    found.total.backward()
    alone = torch.autograd.grad(made(name)(logits, None, batch).total, logits)[0]
    difference = (logits.grad - alone).abs().sum(dim=1)
    assert torch.isfinite(logits.grad).all()
    assert (difference > 1e-4).tolist() == labelled


def test_without_label_weight_labels_are_not_looked_at():
    batch, (logits, _) = random_batch(labelled=[False] * B), random_outputs()
    assert list(made("bce")(logits, None, batch).terms) == ["target"]


# batch mixup


def test_mix_mixes_the_losses_of_a_clip_and_of_its_partner():
    batch, (logits, _) = random_batch(), random_outputs()
    mix = mix_weights(0.5, 0, 0, B)
    found = made("bce", label_weight=1.0)(logits, None, batch, mix)
    own = mix[:, None]
    # binary cross-entropy is linear in its targets, so here the two ways agree
    expected = bce(logits, own * batch.targets + (1 - own) * batch.targets.flip(0)).mean()
    assert float(found.terms["target"]) == pytest.approx(expected.item(), rel=1e-6)
    expected = bce(logits, own * batch.labels + (1 - own) * batch.labels.flip(0)).mean()
    assert float(found.terms["labels"]) == pytest.approx(expected.item(), rel=1e-6)
    # at a temperature they do not: it is the losses that are mixed
    found = made("kl", 2.0)(logits, None, batch, mix)
    by_clip = [
        mix[i] * kl(logits[i : i + 1], batch.targets[i : i + 1], 2.0)
        + (1 - mix[i]) * kl(logits[i : i + 1], batch.targets[B - 1 - i : B - i], 2.0)
        for i in range(B)
    ]
    assert found.total.item() == pytest.approx((sum(by_clip) / B).item(), rel=1e-5)
    other = kl(logits, own * batch.targets + (1 - own) * batch.targets.flip(0), 2.0).mean()
    assert found.total.item() != pytest.approx(other.item(), rel=1e-3)


def test_a_mix_of_a_labelled_and_an_unlabelled_clip_has_the_labelled_ones_share():
    batch, (logits, _) = random_batch(labelled=[True, *[False] * (B - 1)]), random_outputs()
    mix = torch.full((B,), 0.75)
    losses = [bce(logits[i : i + 1], batch.labels[:1]) for i in (0, B - 1)]
    found = made("bce", label_weight=1.0)(logits, None, batch, mix)
    assert float(found.terms["labels"]) == pytest.approx((0.75 * losses[0] + 0.25 * losses[1]).item() / B, rel=1e-6)


def test_share_one_is_no_mix_for_the_model_and_for_the_loss():
    model = build("cnn4", C, width=2).eval()
    batch = random_batch()
    ones, zeros = torch.ones(B), torch.zeros(B)
    with torch.no_grad():
        plain = model(batch.waveforms)
        assert torch.equal(model(batch.waveforms, None, ones), plain)
        assert torch.equal(model(batch.waveforms, None, zeros), plain.flip(0))
    objective = made("bce", label_weight=1.0)
    assert torch.equal(objective(plain, None, batch, ones).total, objective(plain, None, batch).total)
    # share 0: the student hears the partner alone, and learns what was said of it
    heard = objective(plain.flip(0), None, batch, zeros).total
    assert float(heard) == pytest.approx(float(objective(plain, None, batch).total), rel=1e-6)


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("name", ["bce", "kl"])
def test_parts_of_a_batch_add_up_to_the_whole(name, parts):
    model = build("cnn4", C, width=2).eval()
    batch = random_batch(labelled=[True, False, True, True, False, False, True])
    batch.labels[:, 2] = 1.0
    objective = made(name, 2.0 if name == "kl" else 1.0, label_weight=0.3)
    mix = mix_weights(0.5, 4, 9, B)
    with torch.no_grad():
        whole = objective(model(batch.waveforms, None, mix), None, batch, mix)
        total = 0.0
        for number in range(parts):
            own = share(B, parts, number)
            part = batch.part(own)
            assert part.clips.tolist() == own.tolist()
            found = objective(model(part.waveforms, None, mix[own]), None, part, mix[own])
            total += found.total.item() * len(part) / B
    assert total == pytest.approx(whole.total.item(), rel=1e-5)


def test_the_shares_depend_on_seed_and_step_alone_and_are_beta_distributed():
    found = mix_weights(0.5, 7, 100, 32)
    assert found.dtype == torch.float32
    torch.manual_seed(5)
    np.random.seed(5)
    assert torch.equal(found, mix_weights(0.5, 7, 100, 32))
    for other in (mix_weights(0.5, 8, 100, 32), mix_weights(0.5, 7, 101, 32)):
        assert not np.isclose(found, other).any()
    # Beta(1/2, 1/2) has the distribution function 2 / pi asin(sqrt(x)): not folded, as often below a half as above
    drawn = np.sort(np.concatenate([mix_weights(0.5, 0, step, 50).numpy() for step in range(200)]).astype(np.float64))
    assert drawn[0] >= 0
    assert drawn[-1] <= 1
    reached = (np.arange(len(drawn)) + 0.5) / len(drawn)
    assert np.abs(2 / np.pi * np.arcsin(np.sqrt(drawn)) - reached).max() < 0.0163  # Kolmogorov, 1 %
    assert mix_weights(2.0, 0, 0, 20_000).numpy().var() == pytest.approx(1 / 20, rel=0.03)


# what cannot be asked


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_weight": float("nan")}, "--label-weight is nan"),
        ({"mixup": 0.0}, "--mixup is 0; it must be more than 0"),
        (
            {"mixup": 0.5, "terms": ["sp"]},
            "--mixup and --term sp are both given: .* no store has relations of",
        ),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(RunError, match=message):
        made("bce", **options)


def test_a_mix_with_a_similarity_is_refused_when_it_comes():
    logits, features = random_outputs()
    with pytest.raises(RunError, match="--mixup and --term iusp are both given"):
        made("bce", terms=["iusp"])(logits, features, random_batch(), torch.ones(B))


def test_a_batch_without_what_is_asked_of_it_is_an_error():
    logits, features = random_outputs()
    bare = Batch(torch.zeros(B, 8), None, torch.zeros(B, C), np.arange(B))
    for objective, missing in (
        (made("bce", terms=["iusp"]), "frame_grams"),
        (made("bce", terms=["sp"], frames=T), "clip_vectors"),
        (made("bce", label_weight=1.0), "labels"),
    ):
        with pytest.raises(ValueError, match=f"needs {missing}, and the batch was made without"):
            objective(logits, features, bare)
    with pytest.raises(ValueError, match="made without the teachers' number of frames"):
        made("bce", terms=["sp"])(logits, features, random_batch())
