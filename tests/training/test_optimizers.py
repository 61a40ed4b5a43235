"""The optimizers, and what of a model decays."""

import builtins

import pytest
import torch

from logitstore.errors import MissingExtraError, RunError
from logitstore.models.registry import build
from logitstore.training.optimizers import make_optimizer, require_optimizer
from logitstore.training.schedule import parameter_groups

CPU = torch.device("cpu")


def stepped(name, decay, gradient=0.0, lr=0.1):
    """One weight of 1, 4,096 times, after a step."""
    weight = torch.nn.Parameter(torch.ones(64, 64))
    weight.grad = torch.full((64, 64), gradient)
    make_optimizer(name, [{"params": [weight], "weight_decay": decay}], lr, CPU).step()
    return float(weight[0, 0].detach())


def test_decay_is_apart_from_the_gradients_of_adamw_and_added_to_those_of_adam():
    assert stepped("adamw", 0.5) == pytest.approx(1 - 0.1 * 0.5)
    assert stepped("adamw", 0.0) == 1
    # Adam's first step is the learning rate in the direction of the gradient, whatever its size
    assert stepped("adam", 0.5) == pytest.approx(0.9)
    assert stepped("adam", 0.0, gradient=0.3) == stepped("adamw", 0.0, gradient=0.3) == pytest.approx(0.9)


def test_8_bits_are_adam_and_decay_as_adamw_does():
    pytest.importorskip("bitsandbytes")
    require_optimizer("adam8bit", CPU)
    assert stepped("adam8bit", 0.0, gradient=0.3) == pytest.approx(0.9, abs=1e-3)
    assert stepped("adam8bit", 0.5) == pytest.approx(1 - 0.1 * 0.5, abs=1e-3)
    for decay in (0.0, 0.5):  # so what is the same with moments of 32 bits is adamw, which adam is not
        assert stepped("adam8bit", decay, gradient=0.3) == pytest.approx(
            stepped("adamw", decay, gradient=0.3), abs=1e-3
        )
    assert stepped("adam", 0.5, gradient=0.3) != pytest.approx(stepped("adam8bit", 0.5, gradient=0.3), abs=1e-2)
    weight = torch.nn.Parameter(torch.ones(64, 64))
    weight.grad = torch.ones(64, 64)
    optimizer = make_optimizer("adam8bit", [{"params": [weight]}], 0.1, CPU)
    optimizer.step()
    moments = [each for each in optimizer.state[weight].values() if torch.is_tensor(each) and each.shape == (64, 64)]
    assert [each.dtype for each in moments] == [torch.uint8] * 2
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)
    assert optimizer.param_groups[0]["eps"] == 1e-8


def test_8_bits_that_are_not_installed_or_cannot_run_are_refused_with_what_to_do(monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **more):
        if name == "bitsandbytes":
            raise ImportError(name)
        return real(name, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without)
        with pytest.raises(
            MissingExtraError,
            match=r"--optimizer adamw with --weight-decay 0, or the .*: the same.*pip install 'logitstore\[adam8bit\]'",
        ):
            require_optimizer("adam8bit", CPU)
        require_optimizer("adamw", CPU)
    bitsandbytes = pytest.importorskip("bitsandbytes")

    def fails(self, closure=None):
        raise NotImplementedError

    monkeypatch.setattr(bitsandbytes.optim.Adam8bit, "step", fails)
    with pytest.raises(
        RunError,
        match=r"cannot be used on cpu with bitsandbytes .*; install a newer one, or give --optimizer adamw with",
    ):
        require_optimizer("adam8bit", CPU)


def test_position_embeddings_never_decay_unless_a_run_was_begun_so():
    model = build("ced-tiny", 3, dim=16, depth=1, heads=2, pooling="token")
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def decayed(**options):
        groups = parameter_groups(model, 0.05, **options)
        assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
        assert sorted(map(id, groups[0]["params"] + groups[1]["params"])) == sorted(names)
        return {names[id(each)] for each in groups[0]["params"]}

    positions = {"time_pos_embed", "freq_pos_embed", "cls_token", "token_pos_embed"}
    assert decayed(spared=False) - decayed() == positions
    assert "outputlayer.1.weight" in decayed()
    assert "outputlayer.1.bias" not in decayed()
