"""Small YAMNets written as TensorFlow and Keras write weights, and one computed anew, to check the product by."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

Tensors = Mapping[str, np.ndarray]

WIDTHS = (3, 4, 6, 5, 8, 4, 6, 7, 5, 6, 4, 5, 9, 8)
STRIDES = (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
PREFIX, SUFFIX = "_yamnet/layer_with_weights-", "/.ATTRIBUTES/VARIABLE_VALUE"


def crc32c(content: bytes) -> int:
    """The checksum bit by bit: the polynomial of Castagnoli, reflected."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(content: bytes) -> int:
    crc = crc32c(content)
    return ((crc >> 15) + (crc << 17) % 2**32 + 0xA282EAD8) % 2**32


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    """A field of a message: a number, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(shape: Sequence[int], shard: int, offset: int, content: bytes, dtype: int = 1) -> bytes:
    dims = b"".join(field(2, field(1, size)) for size in shape)
    place = field(1, dtype) + field(2, dims) + field(3, shard) + field(4, offset) + field(5, len(content))
    return place + varint(6 << 3 | 5) + struct.pack("<I", masked(content))


def block(pairs: Sequence[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    """A block of a table with its trailer; a key is written whole every third time, else as what differs."""
    out, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(pairs):
        shared = 0
        if number % 3 == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    restarts = restarts or [0]
    out += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts)) + bytes([kind])
    return out + struct.pack("<I", masked(out))


def table(pairs: Sequence[tuple[bytes, bytes]], each: int = 20, kind: int = 0) -> bytes:
    """A table of LevelDB with so many keys a block."""
    out, handles = b"", []
    for start in range(0, len(pairs), each):
        part = block(pairs[start : start + each], kind)
        handles.append((pairs[min(start + each, len(pairs)) - 1][0], varint(len(out)) + varint(len(part) - 5)))
        out += part
    meta, index = block([]), block(handles)
    footer = varint(len(out)) + varint(len(meta) - 5) + varint(len(out) + len(meta)) + varint(len(index) - 5)
    return out + meta + index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_bundle(stem: Path, tensors: Tensors, shards: int = 1, kind: int = 0) -> None:
    """``STEM.index`` and its files of values, the tensors dealt out to them in turn."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    data = [b"\0" * 8 for _ in range(shards)]  # values need not start with the file
    pairs = [(b"", field(1, shards) + field(3, field(1, 1)))]
    for number, name in enumerate(sorted(tensors, key=str.encode)):
        shard = number % shards
        content = np.ascontiguousarray(tensors[name]).astype("<f4").tobytes()
        pairs.append((name.encode(), entry(tensors[name].shape, shard, len(data[shard]), content)))
        data[shard] += content
    stem.with_name(stem.name + ".index").write_bytes(table(pairs, kind=kind))
    for shard, content in enumerate(data):
        stem.with_name(f"{stem.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)


def random_yamnet(seed: int, classes: int = 7, widths: Sequence[int] = WIDTHS) -> dict[str, np.ndarray]:
    """Variables of a small net, so drawn that all of them are heard: ``0/kernel``, ``1/beta``, … ``54/bias``."""
    random = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}

    def layer(number: int, shape: tuple[int, ...], outputs: int, inputs: int) -> None:
        name = "depthwise_kernel" if shape[-1] == 1 and number else "kernel"
        found[f"{number}/{name}"] = random.normal(0, np.sqrt(2 / inputs), shape)
        found[f"{number + 1}/beta"] = random.normal(0.1, 0.3, outputs)
        found[f"{number + 1}/moving_mean"] = random.normal(0 if number else -4, 0.5, outputs)
        found[f"{number + 1}/moving_variance"] = random.uniform(0.3, 2, outputs)

    layer(0, (3, 3, 1, widths[0]), widths[0], 9)
    for pair, (inputs, outputs) in enumerate(pairwise(widths)):
        layer(4 * pair + 2, (3, 3, inputs, 1), inputs, 9)
        layer(4 * pair + 4, (1, 1, inputs, outputs), outputs, inputs)
    found["54/kernel"] = random.normal(0, 0.5, (widths[-1], classes))
    found["54/bias"] = random.normal(-1, 0.5, classes)
    return {name: tensor.astype(np.float32) for name, tensor in found.items()}


def write_saved_model(folder: Path, net: Tensors, prefix: str = "", names: Sequence[str] | None = None) -> Path:
    """A folder as TensorFlow leaves it, the graph left empty, with other variables beside the net's."""
    tensors = {f"{prefix}{PREFIX}{name}{SUFFIX}": tensor for name, tensor in net.items()}
    others = {f"keras_api/metrics/0/total{SUFFIX}": np.float32(3), f"variables/0{SUFFIX}": np.ones((4, 2))}
    write_bundle(folder / "variables" / "variables", {**tensors, **{key: np.asarray(v) for key, v in others.items()}})
    (folder / "saved_model.pb").write_bytes(b"")
    if names is not None:
        (folder / "assets").mkdir()
        write_class_map(folder / "assets" / "yamnet_class_map.csv", names)
    return folder


def write_class_map(file: Path, names: Sequence[str]) -> None:
    rows = [f'{number},/m/0{number},"{name}"' for number, name in enumerate(names)]
    file.write_text("\n".join(["index,mid,display_name", *rows]) + "\n")


def write_keras(file: Path, net: Tensors, within: str = "") -> None:
    """A file of weights as Keras 2 writes it: groups of layers, which say what they hold in attributes."""
    import h5py

    kinds = {"kernel": "conv", "depthwise_kernel": "depthwise_conv", "beta": "bn"}
    with h5py.File(file, "w") as handle:
        root = handle.create_group(within) if within else handle
        layers = ["input_1", "reshape"]
        for number in range(55):
            names = [name for name in net if name.split("/")[0] == str(number)]
            layer = f"layer{number // 4 + 1}/{kinds[names[0].split('/')[1]]}_{number}" if number < 54 else "dense"
            layers += [layer, f"relu_{number}"]
            group = root.create_group(layer)
            weights = [f"{layer}/{name.split('/')[1]}:0" for name in names]
            group.attrs["weight_names"] = [weight.encode() for weight in weights]
            for weight, name in zip(weights, names, strict=True):
                group.create_dataset(weight, data=net[name])
        for layer in layers:
            root.require_group(layer).attrs.setdefault("weight_names", np.zeros(0, "S1"))
        root.attrs["layer_names"] = [layer.encode() for layer in layers]


def log_mel(clip: np.ndarray) -> np.ndarray:
    """One clip, float64 (T, 64), frame by frame."""
    total = 15_600
    while total < len(clip):
        total += 7_680
    clip = np.concatenate([clip.astype(np.float64), np.zeros(total - len(clip))])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return 1127 * np.log(1 + np.asarray(hz) / 700)

    corners = np.linspace(mel(125), mel(7500), 66)
    bins = mel(np.arange(257) * 16_000 / 512)
    bank = np.stack([np.interp(bins, corners[b : b + 3], [0, 1, 0], left=0, right=0) for b in range(64)], axis=1)
    frames = [clip[start : start + 400] * window for start in range(0, total - 399, 160)]
    return np.stack([np.log(np.abs(np.fft.rfft(frame, 512)) @ bank + 0.001) for frame in frames])


def said(net: Tensors, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (P, C) and embeddings (P, D) of the patches of a log-mel (T, 64), in float64."""
    answers, embeddings = [], []
    for start in range(0, len(features) - 95, 48):
        maps = features[start : start + 96, :, None]  # (time, bands, channels)
        for number in range(0, 54, 2):
            stride = STRIDES[(number + 2) // 4] if number % 4 == 2 or number == 0 else 1
            kernel = net.get(f"{number}/kernel", net.get(f"{number}/depthwise_kernel"))
            maps = _convolved(maps, kernel.astype(np.float64), stride, f"{number}/depthwise_kernel" in net)
            scale = 1 / np.sqrt(net[f"{number + 1}/moving_variance"].astype(np.float64) + 1e-4)
            maps = (maps - net[f"{number + 1}/moving_mean"]) * scale + net[f"{number + 1}/beta"]
            maps = np.maximum(maps, 0)
        embedding = maps.mean(axis=(0, 1))
        embeddings.append(embedding)
        answers.append(1 / (1 + np.exp(-(embedding @ net["54/kernel"] + net["54/bias"]))))
    return np.stack(answers), np.stack(embeddings)


def _convolved(maps: np.ndarray, kernel: np.ndarray, stride: int, depthwise: bool) -> np.ndarray:
    """TensorFlow's SAME: output i of ceil(n / stride) is centred so that the odd row of padding comes last."""
    size = kernel.shape[0]
    padding = []
    for length in maps.shape[:2]:
        whole = max(0, (int(np.ceil(length / stride)) - 1) * stride + size - length)
        padding.append((whole // 2, whole - whole // 2))
    padded = np.pad(maps, [*padding, (0, 0)])
    patches = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))[::stride, ::stride]
    return (
        np.einsum("tfcij,ijc->tfc", patches, kernel[..., 0])
        if depthwise
        else np.einsum("tfcij,ijcd->tfd", patches, kernel)
    )
