"""global-local: a trained net hears the clip, and a second one the pieces where its best classes are loudest.

Global-local attention for weakly labelled tagging (arXiv 2102.01931), around any net here that has a head over frames.
The first net is frozen. Of the N classes that it holds most probable, one after the other, the second net's last layers
find the frame of the first net's features that speaks for the class most; the second net hears a piece of the clip
around it, and half as many frames as a piece has are left out of the search for the next classes. Where the second net
says q_n of the pieces, its answer is (max q_n + mean q_n) / 2, and the model's the same of that and the first net's.
While it is trained, its logits are the second net's answer alone, which is what the loss is of; the choice of pieces
has no gradient. Both nets start from the weights of a trained one.

Published: Cnn10 as both nets, N = 5, pieces of 3 s, Adam at 2e-4 in batches of 32. A piece that would leave the clip is
moved into it, and so are the frames that are left out; a clip shorter than a piece has silence after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as F

from logitstore.errors import RunError
from logitstore.models.registry import POOL, build, names
from logitstore.models.tagger import Scores, Tagger, at_least, average, in_range
from logitstore.views.recipe import Masks

#: Its net and its learning rate; see :mod:`logitstore.models.registry`.
TEACHERS = {"global-local": ("GlobalLocal", 2e-4)}


class GlobalLocal(Tagger):
    """The two nets, of one architecture; frame features are the first one's.

    :param net: its name, and ``net_args`` its arguments; see :meth:`begin` for the weights.
    :param pieces: N, how many classes have a piece, at most; ``seconds``: length of a piece.
    """

    head_name = "local"

    def __init__(
        self,
        classes: int,
        *,
        scores: Scores = "sigmoid",
        net: str = "",
        net_args: Mapping[str, Any] | None = None,
        pieces: int = 5,
        seconds: float = 3.0,
    ) -> None:
        if net not in names():
            raise RunError(
                f"global-local is two nets of one kind, and its is {net!r}; allowed are {', '.join(names())}: give a "
                "trained one, as train-teacher --model global-local --model-arg of=RUN"
            )
        if scores != "sigmoid":
            raise RunError(f"global-local has sigmoid scores alone, and {scores} were asked for")
        make = [build(net, classes, scores=scores, **dict(net_args or {})) for _ in range(2)]
        super().__init__(make[0].front_end, classes, scores, torch.nn.Identity())
        self.whole, self.local = make
        self.fill_stage, self.fill_value = self.whole.fill_stage, self.whole.fill_value
        self.pieces = at_least("pieces", pieces, 1)
        self.seconds = in_range("seconds", seconds, 0.1, 1000.0)
        self.no_weight_decay = tuple(f"local.{name}" for name in self.local.no_weight_decay)
        self.whole.requires_grad_(False).eval()
        if self.local.pool is not None and not self.local.has_frames:
            raise RunError(
                f"global-local asks a head what it says of single frames, and pool={(net_args or {})[POOL]} says "
                "nothing; give a net with its own head, or with pool=mean, max or attention"
            )

    def begin(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Let both nets have the weights of a trained one."""
        for each in (self.whole, self.local):
            each.load_state_dict(dict(weights))

    def train(self, mode: bool = True) -> GlobalLocal:
        """The frozen net stays in eval mode."""
        super().train(mode)
        self.whole.eval()
        return self

    def centers(self, frames: Any, count: int, seconds: float) -> Any:
        return self.whole.centers(frames, count, seconds)

    def contract(self) -> dict[str, Any]:
        return super().contract() | {"pieces": self.pieces, "seconds": self.seconds}

    def outputs(
        self, waveforms: torch.Tensor, masks: Masks | None = None, mix: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (B, C), in training those of the pieces alone, and the first net's frame features (B, T, D).

        :raises RunError: batch mixup, of which there are no pieces.
        """
        if mix is not None:
            raise RunError("global-local hears pieces of clips, which a mix of the batch has none of")
        with torch.no_grad():
            whole, frames = self.whole.outputs(waveforms, masks)
            size = round(self.seconds * self.front_end.sample_rate)
            waveforms = F.pad(waveforms, (0, max(0, size - waveforms.shape[1])))
            modes = {module: module.training for module in self.local.modules()}  # of which some may be frozen
            self.local.eval()  # which classes' frames are loudest is not to be had by dropout
            loud = activations(self.local, frames)
            for module, mode in modes.items():
                module.training = mode
            peaks = choose(whole, loud, self.pieces, size / waveforms.shape[1])
            seconds = self.centers(peaks.double(), frames.shape[1], waveforms.shape[1] / self.front_end.sample_rate)
            starts = begins(seconds, waveforms.shape[1], size, self.front_end.sample_rate)  # (B, N)
            heard, hidden = cut(waveforms, masks, starts, size, self.front_end.sample_rate)
        said = self.local(heard, hidden).reshape(*starts.shape, self.classes)
        pieces = both(said)
        return (pieces if self.training else both(torch.stack((whole.float(), pieces), dim=1))), frames


def both(logits: torch.Tensor) -> torch.Tensor:
    """Logits (B, C) of (max + mean) / 2 over P of the probabilities of logits (B, P, C)."""
    logits = logits.float()
    return average(torch.stack((logits.amax(dim=1), average(logits, "sigmoid")), dim=1), "sigmoid")


def activations(net: Tagger, frames: torch.Tensor) -> torch.Tensor:
    """What a net's last layers say of every frame of features (B, T, D): logits (B, T, C).

    Where it has no such answer of its own, the layers of its head go over single frames, with ReLU between them.

    :raises RunError: a head that says nothing of single frames.
    """
    if net.has_frames or net.pool is not None:
        return net.frame_logits(frames)
    *hidden, last = net.head_modules or (net.head_name,)
    for name in hidden:
        frames = F.relu(net.get_submodule(name)(frames))
    logits: torch.Tensor = net.get_submodule(last)(frames)
    return logits


def choose(whole: torch.Tensor, frames: torch.Tensor, pieces: int, share: float) -> torch.Tensor:
    """The frames around which pieces are heard, int64 (B, N) in [0, T), N being ``pieces`` or C where that is less.

    :param whole: logits (B, C) of the clips; the most probable class is first, of equal ones the lower.
    :param frames: logits (B, T, C) of frames. :param share: of a clip that a piece is, in (0, 1].
    """
    batch, count, classes = frames.shape
    width = max(1, 2 * (int(count * share) // 4))
    at, clip = torch.arange(count, device=frames.device), torch.arange(batch, device=frames.device)
    left = whole.float()  # -inf of classes that had their turn
    maps = frames.float()  # -inf of frames that are left out
    peaks = []
    for _ in range(min(pieces, classes)):
        best = left.argmax(dim=1)
        left = left.scatter(1, best[:, None], -torch.inf)
        peak = maps[clip, :, best].argmax(dim=1)
        first = (peak - width // 2).clamp(0, count - width)[:, None]
        maps = maps.masked_fill(((first <= at) & (at < first + width))[..., None], -torch.inf)
        peaks.append(peak)
    return torch.stack(peaks, dim=1)


def begins(seconds: torch.Tensor, samples: int, size: int, sample_rate: int) -> torch.Tensor:
    """First samples of pieces of ``size`` around moments of clips of so many samples, int64 of the moments' shape."""
    return ((seconds * sample_rate).round().long() - size // 2).clamp(0, samples - size)


def cut(
    waveforms: torch.Tensor, masks: Masks | None, starts: torch.Tensor, size: int, sample_rate: int
) -> tuple[torch.Tensor, Masks | None]:
    """The pieces (B N, size) of waveforms (B, S) that begin at ``starts`` (B, N), and the masks that fall on them."""
    at = starts[..., None] + torch.arange(size, device=starts.device)
    pieces = waveforms[:, None].expand(-1, starts.shape[1], -1).gather(2, at).flatten(0, 1)
    if masks is None:
        return pieces, None
    first, end, low, high = (torch.as_tensor(each, device=starts.device)[:, None] for each in vars(masks).values())
    seconds = starts.to(first.dtype) / sample_rate
    ends = (first - seconds, end - seconds, low.expand_as(seconds), high.expand_as(seconds))
    return pieces, Masks(*(each.flatten() for each in ends))
