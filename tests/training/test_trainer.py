"""What the loop does with a step, with the weights, and with held-out clips."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from logitstore.cli.progress import render_training as render
from logitstore.errors import ModelOutputError, RunError
from logitstore.models.registry import build, initialised
from logitstore.training import precision
from logitstore.training.batches import Batch
from logitstore.training.checkpoints import mean_weights
from logitstore.training.loop import Epoch, FitOptions, FitProgress, fit
from logitstore.training.runs import load_run
from logitstore.training.schedule import ema_decay, learning_rate
from logitstore.training.selection import Selection
from students.held_out import held_out
from students.objective import Objective
from students.options import StudentOptions
from students.terms import Setting, selected
from students.train import train_student
from tests.heard import RATE, SMALL, make_heard, student_values

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_heard(tmp_path_factory.mktemp("heard"))


def log_of(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def learn(root, out, **changes):
    return train_student(StudentOptions(**student_values(root, out, **changes)))


def plain_model():
    return initialised(lambda: build("cnn4", 3, **SMALL | {"dropout": 0.0}), 0)


def noise(clips, steps):
    """An epoch of one batch, again and again."""
    random = torch.Generator().manual_seed(1)
    waveforms = 0.1 * torch.randn(clips, RATE // 2, generator=random)
    batch = Batch(waveforms, None, torch.rand(clips, 3, generator=random), np.arange(clips))
    return lambda epoch: Epoch([np.arange(clips)] * steps, batch.part)


def fitted(folder, clips=7, steps=4, evaluate=lambda model, epoch, last: {}, **options):
    model = plain_model()
    folder.mkdir()
    fit(
        model,
        FitOptions(**{"steps": steps, "lr": 1e-3, "seed": 0} | options),
        noise(clips, steps),
        Objective({"target": 1.0}, Setting("bce")),
        folder,
        evaluate=evaluate,
    )
    return model


def test_a_batch_in_parts_makes_the_step_of_the_whole(tmp_path):
    whole = fitted(tmp_path / "whole", freeze_bn=True)
    for parts in (2, 3, 7):
        split = fitted(tmp_path / f"{parts}", freeze_bn=True, accumulate=parts)
        for name, tensor in whole.state_dict().items():
            torch.testing.assert_close(split.state_dict()[name], tensor, rtol=1e-4, atol=1e-6)
        losses = [[record["loss"] for record in log_of(tmp_path / each)] for each in ("whole", str(parts))]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_weights_that_the_last_step_spoilt_are_not_kept(tmp_path, monkeypatch):
    step = torch.optim.AdamW.step

    def spoilt(self, *arguments, **more):
        step(self, *arguments, **more)
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("nan"))

    monkeypatch.setattr(torch.optim.AdamW, "step", spoilt)
    with pytest.raises(ModelOutputError, match="the weights are not finite after step 0; lower --lr"):
        fitted(tmp_path / "run", steps=1)


def test_too_little_memory_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate …")

    monkeypatch.setattr("logitstore.models.tagger.Tagger.outputs", full)
    with pytest.raises(RunError, match="too little memory for a step of 7 clips; give --accumulate N"):
        fitted(tmp_path / "run")


def test_frozen_batch_norms_keep_their_statistics_and_others_do_not(tmp_path):
    start = plain_model().state_dict()
    for frozen in (True, False):
        trained = fitted(tmp_path / str(frozen), freeze_bn=frozen).state_dict()
        assert torch.equal(trained["bn0.running_mean"], start["bn0.running_mean"]) is frozen
        assert not torch.equal(trained["bn0.weight"], start["bn0.weight"])


def test_gradients_are_clipped_to_a_norm(tmp_path, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def watched(self, *arguments, **more):
        gradients = [each.grad.norm() for group in self.param_groups for each in group["params"]]
        norms.append(float(torch.stack(gradients).norm()))
        return step(self, *arguments, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    fitted(tmp_path / "free")
    free = norms.copy()
    norms.clear()
    fitted(tmp_path / "clipped", clip_norm=free[0] / 10)
    assert all(norm <= free[0] / 10 * 1.001 for norm in norms)
    assert norms[0] == pytest.approx(free[0] / 10, rel=1e-3)


def test_the_decay_of_averaged_weights_rises_to_what_was_asked():
    assert [ema_decay(0.75, step) for step in (0, 2, 25, 26, 1000)] == [0.1, 0.25, 26 / 35, 0.75, 0.75]


def test_averaged_weights_are_measured_and_kept_and_buffers_are_the_latest(tmp_path):
    seen = []
    kept = fitted(
        tmp_path / "ema", ema=0.75, steps=1, evaluate=lambda model, *_: seen.append(copy.deepcopy(model)) or {}
    )
    start, last = plain_model(), fitted(tmp_path / "last", steps=1)
    for (name, first), now, mean in zip(start.named_parameters(), last.parameters(), kept.parameters(), strict=True):
        torch.testing.assert_close(mean, 0.1 * first + 0.9 * now, msg=name)
    for now, mine in zip(last.buffers(), kept.buffers(), strict=True):
        assert torch.equal(now, mine)
    assert all(torch.equal(a, b) for a, b in zip(seen[0].parameters(), kept.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_mixed_precision_learns_in_float32_weights(tmp_path, kind):
    if kind == "fp16" and not precision._cpu_can(torch.float16):
        pytest.skip("this torch does not compute in float16 on the CPU")
    mixed = fitted(tmp_path / kind, steps=30, precision=kind)
    losses = [record["loss"] for record in log_of(tmp_path / kind) if record["event"] == "step"]
    assert losses[-1] < losses[0]
    assert all(value.dtype in (torch.float32, torch.int64) for value in mixed.state_dict().values())
    exact = fitted(tmp_path / "float32", steps=30)
    assert losses[0] != log_of(tmp_path / "float32")[0]["loss"]
    assert losses[0] == pytest.approx(log_of(tmp_path / "float32")[0]["loss"], rel=0.02)
    assert not torch.equal(mixed.output.weight, exact.output.weight)


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(precision, "_cpu_can", lambda dtype: False)
    with pytest.raises(RunError, match=r"fp16 cannot be used on the CPU with torch .*; use float32 or bf16"):
        precision.pass_dtype("fp16", torch.device("cpu"))
    assert precision.pass_dtype("float32", torch.device("cpu")) is None


def test_warm_up_and_floor_are_as_asked():
    rates = [learning_rate(step, 100, 1.0, warm_up=20, floor=0.25) for step in range(100)]
    assert rates[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert rates[-1] == pytest.approx(0.25)
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert learning_rate(0, 100, 1.0, warm_up=0) == 1.0


def test_files_are_held_out_whole_and_the_same_ones_each_time():
    paths = [f"{number // 3:04d}.wav" for number in range(3000)]
    chosen = held_out(paths, 0.1)
    assert 60 < chosen[::3].sum() < 140
    assert all(len(set(chosen[start : start + 3].tolist())) == 1 for start in range(0, 3000, 3))
    more = held_out(["new.wav", *paths], 0.1)
    assert np.array_equal(more[1:], chosen)
    assert np.all(held_out(paths, 0.2)[chosen])
    assert held_out(paths, 1e-9).sum() == 3


def test_held_out_clips_are_not_learned_from_and_measured(root, tmp_path):
    trained = learn(root, tmp_path / "run", hold_out=0.25, eval_every=1, epochs=3)
    epochs = [record for record in log_of(tmp_path / "run") if record["event"] == "epoch"]
    assert {record["clips"] + record["held_out_clips"] for record in epochs} == {36}
    assert epochs[0]["held_out_clips"] == held_out([f"{number:02d}.wav" for number in range(36)], 0.25).sum()
    assert trained.result.metrics["held_out_loss"] == epochs[-1]["held_out_loss"]
    assert trained.result.averaged == []
    assert "held out   loss 0." in render(trained)


def test_the_best_evaluations_are_averaged_and_named(root, tmp_path, monkeypatch):
    saved = {}

    def remember(self, step, state):
        saved[step] = {name: tensor.clone() for name, tensor in state.items()}
        real(self, step, state)

    from logitstore.training.checkpoints import Checkpoints

    real = Checkpoints.save_weights
    monkeypatch.setattr(Checkpoints, "save_weights", remember)
    trained = learn(root, tmp_path / "run", average_best=2, hold_out=0.25, eval_every=1, epochs=5, lr=0.05)
    epochs = [record for record in log_of(tmp_path / "run") if record["event"] == "epoch"]
    best = sorted(epochs, key=lambda record: record["held_out_loss"])[:2]
    assert [each["step"] for each in trained.result.averaged] == [record["step"] for record in best]
    expected = mean_weights([saved[record["step"]] for record in best])
    model = load_run(tmp_path / "run").model.state_dict()
    assert all(torch.equal(model[name], tensor) for name, tensor in expected.items())
    kept = log_of(tmp_path / "run")[-1]
    assert kept["event"] == "kept"
    assert trained.result.metrics["held_out_loss"] == kept["held_out_loss"]
    steps = ", ".join(str(record["step"]) for record in best)
    assert f"kept       the mean of those after the steps {steps}" in render(trained)


def test_patience_ends_a_training_and_keeps_its_best_weights(root, tmp_path):
    trained = learn(root, tmp_path / "run", patience=2, hold_out=0.25, eval_every=1, epochs=40, lr=1.0, warm_up=0)
    epochs = [record for record in log_of(tmp_path / "run") if record["event"] == "epoch"]
    losses = [record["held_out_loss"] for record in epochs]
    assert len(losses) < 40
    assert losses.index(min(losses)) == len(losses) - 3
    assert trained.result.stopped
    assert [each["step"] for each in trained.result.averaged] == [epochs[-3]["step"]]
    assert trained.result.metrics["held_out_loss"] == min(losses)
    assert "stopped early" in render(trained)


def test_labels_can_decide_what_is_best(root, tmp_path):
    trained = learn(
        root, tmp_path / "run", average_best=1, select_by="mAP", eval_manifest=str(root / "labels.csv"),
        label_column="label", eval_every=1, epochs=3, hold_out=0,
    )  # fmt: skip
    epochs = [record for record in log_of(tmp_path / "run") if record["event"] == "epoch"]
    assert trained.result.averaged[0]["mAP"] == max(record["mAP"] for record in epochs)
    assert "held_out_loss" not in epochs[0]


def test_selection_counts_from_the_last_best_and_prefers_the_earlier_of_equals():
    selection = Selection("loss", keep=2, patience=2)
    kept = [selection.add(step, step, {"held_out_loss": loss}) for step, loss in enumerate([3.0, 2.0, 2.0, 4.0])]
    assert kept == [True, True, True, False]
    assert [each.step for each in selection.best] == [1, 2]
    assert selection.over
    again = Selection("loss", keep=2, patience=2)
    again.restore(json.loads(json.dumps(selection.state())))
    assert again == selection
    assert not Selection("mAP", keep=1).add(0, 0, {"mAP": float("nan")})


def test_epochs_of_a_number_of_steps_and_the_losses_of_every_step(root, tmp_path):
    learn(
        root, tmp_path / "run", epochs=3, epoch_steps=2, batch_size=5, similarity="both", label_weight=0.5,
        label_column="label", weight_by="entropy",
    )  # fmt: skip
    records = log_of(tmp_path / "run")
    assert [record["event"] for record in records] == ["step", "step", "epoch"] * 3
    steps = [record for record in records if record["event"] == "step"]
    assert all(record["clips"] == 5 for record in steps)
    for record in steps:
        total = sum(weight * record[name] for name, weight in selected(["iusp", "sp"], label_weight=0.5).items())
        assert record["loss"] == pytest.approx(total, rel=1e-5)


def test_a_run_starts_from_another_and_says_so(root, tmp_path):
    learn(root, tmp_path / "first", epochs=2)
    trained = learn(root, tmp_path / "second", epochs=1, init=str(tmp_path / "first"), lr=1e-9)
    first, second = load_run(tmp_path / "first"), load_run(tmp_path / "second")
    torch.testing.assert_close(second.model.output.weight, first.model.output.weight)
    assert second.config["init"]["digest"] == second.config["training"]["init"] == first.digest
    assert any(note.startswith("loaded ") for note in trained.notes)


def test_progress_hears_of_every_record(root, tmp_path):
    heard = []
    options = StudentOptions(**student_values(root, tmp_path / "run", epochs=2))
    train_student(options, FitProgress(log=heard.append))
    assert heard == log_of(tmp_path / "run")


def test_a_warm_up_that_never_ends_is_refused(root, tmp_path):
    with pytest.raises(RunError, match="--warm-up is 5 steps and the training has 4; give at most as many"):
        learn(root, tmp_path / "run", epochs=None, steps=4, warm_up=5)
