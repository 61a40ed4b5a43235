"""Independent references: CED's log-mels, network and draws written out anew, to check the product's numbers by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import erf

from logitstore.models.registry import build
from logitstore.views.mel import CED, FrontEnd
from logitstore.views.ops.frequency_mask import FrequencyMask
from logitstore.views.ops.roll import Roll
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.recipe import Recipe

F64 = np.ndarray


def filter_bank(front_end: FrontEnd) -> F64:
    """Triangles drawn point by point with np.interp, on mel scales written out anew; (bins, bands)."""

    def mel(hz: float) -> float:
        if front_end.mel_scale == "htk":
            return float(2595 * np.log10(1 + hz / 700))
        return hz * 3 / 200 if hz < 1000 else float(15 + 27 * np.log(hz / 1000) / np.log(6.4))

    def hz(mels: float) -> float:
        if front_end.mel_scale == "htk":
            return 700 * (10 ** (mels / 2595) - 1)
        return mels * 200 / 3 if mels < 15 else 1000 * np.exp((mels - 15) * np.log(6.4) / 27)

    corners = [hz(m) for m in np.linspace(mel(front_end.f_min), mel(front_end.f_max), front_end.n_mels + 2)]
    bins = np.linspace(0, front_end.sample_rate / 2, front_end.n_fft // 2 + 1)
    bank = np.zeros((len(bins), front_end.n_mels))
    for band in range(front_end.n_mels):
        low, peak, high = corners[band : band + 3]
        height = 2 / (high - low) if front_end.norm == "slaney" else 1.0
        bank[:, band] = np.interp(bins, [low, peak, high], [0, height, 0], left=0, right=0)
    return bank


def log_mel(clip: np.ndarray, front_end: FrontEnd) -> F64:
    """One clip, frame by frame, in float64; (bands, frames)."""
    edge = front_end.n_fft // 2
    padded = np.pad(clip.astype(np.float64), edge, mode="reflect")
    window = np.zeros(front_end.n_fft)
    offset = (front_end.n_fft - front_end.win_length) // 2
    phase = 2 * np.pi * np.arange(front_end.win_length) / front_end.win_length
    window[offset : offset + front_end.win_length] = 0.5 - 0.5 * np.cos(phase)
    bank = filter_bank(front_end)
    columns = []
    for start in range(0, len(padded) - front_end.n_fft + 1, front_end.hop_length):
        power = np.abs(np.fft.rfft(padded[start : start + front_end.n_fft] * window)) ** 2
        columns.append(10 * np.log10(np.maximum(power @ bank, 1e-10)))
    mel = np.stack(columns, axis=1)
    return mel if front_end.top_db is None else np.maximum(mel, mel.max() - front_end.top_db)


def ced_probabilities(weights: Mapping[str, np.ndarray], mel: F64, heads: int) -> F64:
    """What a CED checkpoint says of one log-mel (64, T) of at most 1,012 frames, in float64; (classes,)."""
    w = {name: np.asarray(value, np.float64) for name, value in weights.items()}

    def norm(x: F64, name: str, eps: float) -> F64:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: F64, name: str) -> F64:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    scale = w["init_bn.1.weight"] / np.sqrt(w["init_bn.1.running_var"] + 1e-5)
    mel = (mel - w["init_bn.1.running_mean"][:, None]) * scale[:, None] + w["init_bn.1.bias"][:, None]
    tokens = []
    for band in range(mel.shape[0] // 16):
        for step in range(mel.shape[1] // 16):
            patch = mel[16 * band : 16 * band + 16, 16 * step : 16 * step + 16]
            token = (w["patch_embed.proj.weight"][:, 0] * patch).sum((1, 2)) + w["patch_embed.proj.bias"]
            tokens.append(token + w["time_pos_embed"][0, :, 0, step] + w["freq_pos_embed"][0, :, band, 0])
    x = np.stack(tokens)  # (N, D)
    size = x.shape[1] // heads
    for block in range(len({name.split(".")[1] for name in w if name.startswith("blocks.")})):
        name = f"blocks.{block}"
        query, key, value = np.split(linear(norm(x, f"{name}.norm1", 1e-6), f"{name}.attn.qkv"), 3, axis=1)
        heard = []
        for head in range(heads):
            own = slice(size * head, size * (head + 1))
            weight = np.exp(query[:, own] @ key[:, own].T / np.sqrt(size))
            heard.append(weight @ value[:, own] / weight.sum(1, keepdims=True))
        x = x + linear(np.concatenate(heard, axis=1), f"{name}.attn.proj")
        hidden = linear(norm(x, f"{name}.norm2", 1e-6), f"{name}.mlp.fc1")
        x = x + linear(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, f"{name}.mlp.fc2")
    logits = linear(norm(norm(x, "norm", 1e-6).mean(0), "outputlayer.0", 1e-5), "outputlayer.1")
    return np.asarray(1 / (1 + np.exp(-logits)))


def ced_weights() -> dict[str, np.ndarray]:
    """A checkpoint of 2 blocks of 48 and 3 heads, random, but such that norms, positions and attention all matter."""
    random = np.random.default_rng(5)
    weights = {"front_end.0.spectrogram.window": np.hanning(513)[:512], "front_end.0.mel_scale.fb": filter_bank(CED)}
    for name, tensor in build("ced-tiny", 527, dim=48, depth=2, heads=3).state_dict().items():
        noise = random.standard_normal(tuple(tensor.shape))
        if name == "init_bn.1.running_mean":
            weights[name] = -15 + 5 * noise
        elif name == "init_bn.1.running_var":
            weights[name] = 100 * np.exp(0.3 * noise)
        elif name.endswith("weight") and noise.ndim == 1:
            weights[name] = 1 + 0.2 * noise
        elif noise.ndim > 1 and name.endswith("weight"):
            weights[name] = 1.5 * noise / np.sqrt(noise[0].size)
        else:
            weights[name] = 0.2 * noise
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def write_ced_reference(folder: Path) -> None:
    """``checkpoint.pt`` and ``io.npz``: clips of 1 and 10 s, their log-mels, what is said of them, bare and masked."""
    weights = ced_weights()
    torch.save({"model": {name: torch.from_numpy(value) for name, value in weights.items()}}, folder / "checkpoint.pt")
    random = np.random.default_rng(6)
    masks = np.array([[709, 884, 36, 57], [0, 192, 0, 24], [371, 396, 23, 26], [995, 1001, 63, 64]], np.int32)
    arrays: dict[str, Any] = {"masks_10p0": masks}
    for length, seconds in (("1p0", 1), ("10p0", 10)):
        time = np.arange(seconds * 16_000) / 16_000
        tones = np.sin(2 * np.pi * random.uniform(100, 7000, (4, 1)) * time)
        noise = random.normal(0, 1, (4, len(time))) * random.uniform(0, 1, (4, seconds * 10)).repeat(1600, axis=1)
        waves = (random.uniform(0.02, 0.3, (4, 1)) * (tones + noise)).astype(np.float32)
        mels = np.stack([log_mel(wave, CED) for wave in waves])
        arrays |= {f"wave_{length}": waves, f"logmel_{length}": mels.astype(np.float32)}
        arrays[f"output_{length}"] = np.stack([ced_probabilities(weights, mel, 3) for mel in mels]).astype(np.float32)
    for mel, (start, stop, low, high) in zip(mels, masks, strict=True):
        mel[:, start:stop] = 0
        mel[low:high] = 0
    said = np.stack([ced_probabilities(weights, mel, 3) for mel in mels])
    np.savez(folder / "io.npz", masked_output_10p0=said.astype(np.float32), **arrays)


def ced_draws(seed: int, length: int, recipe: Recipe, frames: int) -> list[int]:
    """The sequence of calls of CED's code, torch-audiomentations' Shift and its two masks, with PyTorch itself."""
    torch.manual_seed(seed)
    ops = {op.name: op for op in recipe.ops}
    roll = 0
    shift = ops.get("roll")
    if isinstance(shift, Roll) and torch.distributions.Bernoulli(shift.probability).sample((1,)).bool():
        low, high = round(-shift.max_fraction * length), round(shift.max_fraction * length)
        roll = int(torch.randint(low, high + 1, (1,), dtype=torch.int32)) if low != high else low
    value, place = torch.rand(1), torch.rand(1)
    drawn = {"roll": [roll % max(length, 1)]}
    time, freq = ops.get("time_mask"), ops.get("frequency_mask")
    for name, size, bound in (
        ("time_mask", frames, time.max_ticks if isinstance(time, TimeMask) else 0),
        ("frequency_mask", 64, freq.max_steps if isinstance(freq, FrequencyMask) else 0),
    ):
        span = value * bound
        drawn[name] = [int((place * (size - span)).long()), int(span.long())]
    return [number for op in recipe.ops for number in drawn[op.name]]
