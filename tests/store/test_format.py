"""docs/format.md is enough: this reader uses zarr, pyarrow and the standard library, and nothing of the package."""

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from tests.stores import options, write_audio

MIXUP = """
- {op: roll}
- {op: gain}
- {op: mixup}
- {op: noise}
- {op: time_mask, max_seconds: 0.5}
- {op: frequency_mask}
"""


class PlainReader:
    """Reads a store by its specification alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.manifest = json.loads((root / "zarr.json").read_text())["attributes"]["logitstore"]
        assert self.manifest["format_version"] == (4 if "frames" in self.manifest else 3)
        self.clips = pq.read_table(root / "clips" / "00000.parquet").to_pylist()
        self.commits = [json.loads(path.read_bytes()) for path in sorted((root / "commits").iterdir())]

    def check(self) -> None:
        def digest(content: bytes) -> str:
            return hashlib.blake2b(content, digest_size=16).hexdigest()

        for path in sorted((self.root / "commits").iterdir()):
            raw = path.read_bytes()
            commit = json.loads(raw)
            assert digest(raw.replace(commit["digest"].encode(), b"")) == commit["digest"]
            assert digest((self.root / "zarr.json").read_bytes()) == commit["manifest_digest"]
            assert digest((self.root / commit["clip_table"]).read_bytes()) == commit["clip_table_digest"]
            if (self.manifest["relations"] or {}).get("clips"):
                assert digest((self.root / "basis.safetensors").read_bytes()) == commit["basis"]
            else:
                assert "basis" not in commit
            group = self.root / commit["group"]
            on_disk = {p.relative_to(group).as_posix() for p in group.rglob("*") if p.is_file()}
            assert on_disk == set(commit["objects"])
            for name, expected in commit["objects"].items():
                assert digest((group / name).read_bytes()) == expected

    def probability(self, code: int) -> float:
        bits = self.manifest["value_bits"]
        if bits == 16:
            return float(np.array([code], np.uint16).view(np.float16)[0])
        middle = (code + 0.5) / 2**bits
        return (
            math.sin(middle * math.pi / 2) ** 2
            if self.manifest["scores"] == "sigmoid"
            else math.exp(-16 * (1 - middle))
        )

    def arrays(self, commit: dict, holder: str = "packed") -> dict[str, np.ndarray]:
        """The arrays that are packed into one."""
        packed = zarr.open_group(self.root / commit["group"], mode="r")[holder]
        rows, found, at = packed[:], {}, 0
        for name, planes, length in packed.attrs["parts"]:
            assert not rows[at : at + planes, length:].any()
            found[name] = rows[at : at + planes, :length]
            at += planes
        assert at == len(rows)
        return found

    def targets(self, commit: dict) -> dict[tuple[int, int], list[tuple[int, int]]]:
        """(clip, view) -> [(class, code)], falling."""
        arrays, rows = self.arrays(commit), commit["clips"]
        views = commit["view_stop"] - commit["view_start"]
        numbers, position, gap = [], -1, 0
        for byte in arrays["classes"][0].tolist():
            gap += byte
            if byte < 255:
                position += gap
                numbers.append(position)
                gap = 0
        width = len(arrays["firsts"])

        def values(planes: np.ndarray) -> list[int]:
            return sum(plane.astype(int) << 8 * i for i, plane in enumerate(planes)).tolist()

        def mean(codes: list[int]) -> int:
            return (2 * sum(codes) + len(codes)) // (2 * len(codes)) if codes else 0

        gaps, firsts = values(arrays["lowest"]), values(arrays["firsts"])
        sequences = [iter(values(arrays["residuals"][i * width : (i + 1) * width])) for i in range(4)]
        failed = {row for row, _ in commit["failed"]}
        lowest: list[list[int]] = [[] for _ in range(rows)]
        above: list[list[int]] = [[] for _ in numbers]
        found: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for view in range(views):
            for row in set(range(rows)) - failed:
                lowest[row].append((gaps[row * views + view] + mean(lowest[row])) % 256**width)
            for entry, number in enumerate(numbers):
                label, row = divmod(number, rows)
                if not arrays["views"][view // 8, entry] >> (view % 8) & 1:
                    continue
                if not above[entry]:
                    above[entry].append(firsts[entry])
                else:
                    expected = mean(above[entry])
                    level = expected >> 8 * (width - 1)
                    sequence = sequences[(level >= 4) + (level >= 10) + (level >= 22)]
                    above[entry].append((next(sequence) + expected) % 256**width)
                target = (label, above[entry][-1] + lowest[row][-1])
                found.setdefault((commit["first_clip"] + row, commit["view_start"] + view), []).append(target)
        assert not any(any(sequence) for sequence in sequences)
        return {key: sorted(pairs, key=lambda pair: (-pair[1], pair[0])) for key, pairs in found.items()}

    def draws(self, commit: dict) -> dict[str, np.ndarray]:
        array = self.arrays(commit)["draws"].astype(np.int64)
        columns, at = {}, 0
        for column in self.manifest["draw_columns"]:
            planes = array[at : at + column["planes"]]
            at += column["planes"]
            columns[column["name"]] = column["low"] + sum(plane << 8 * i for i, plane in enumerate(planes))
        return columns

    def frames(self, commit: dict) -> np.ndarray:
        """Probabilities of every frame of a block, (rows x views, T, C)."""
        arrays, spec = self.arrays(commit, "frames"), self.manifest["frames"]
        views = commit["clips"] * (commit["view_stop"] - commit["view_start"])

        def numbers(name: str):
            number = 0
            for byte in arrays[name][0].tolist():
                number += byte
                if byte < 255:
                    yield number
                    number = 0

        classes, runs, gaps, lengths = (numbers(f"frame_{name}") for name in ("classes", "runs", "gaps", "lengths"))
        codes = iter(arrays["frame_codes"][0].tolist())
        dense = np.zeros((views, spec["count"], len(self.manifest["classes"])))
        for view in range(views):
            label = -1
            for _ in range(sum(int(plane[view]) << 8 * i for i, plane in enumerate(arrays["frame_tracks"]))):
                label += next(classes) + 1
                at = code = 0
                for _ in range(next(runs) + 1):
                    at += next(gaps)
                    length = next(lengths) + 1
                    code = (code + next(codes)) % 256
                    probability = math.sin((code + 0.5) / 2 ** spec["bits"] * math.pi / 2) ** 2
                    dense[view, at : at + length, label] = probability
                    at += length
        assert not any([*classes, *runs, *gaps, *lengths, *codes])
        return dense

    def relations(self, commit: dict, row: int, view: int) -> tuple[list[list[float]], list[float]]:
        """G and the vector of one view of a block: row within the block, view within the block."""
        group, frames = zarr.open_group(self.root / commit["group"], mode="r"), self.manifest["relations"]["frames"]
        views = commit["view_stop"] - commit["view_start"]

        def codes(name: str) -> list[int]:
            array = group[name][0]
            return array[row * views + view :: commit["clips"] * views].tolist()

        norms: list[int] = []
        for byte in codes("frame_norms"):
            norms.append(((norms[-1] if norms else 0) + byte) % 256)
        angles = {(i, i): 0 for i in range(frames)}
        stored = iter(codes("frame_angles"))
        for apart in range(1, frames):
            for i in range(frames - apart):
                j = i + apart
                if apart == 1:
                    expected = angles[i - 1, i] if i else 0
                elif apart == 2:
                    expected = max(angles[i, j - 1], angles[i + 1, j])
                else:
                    left, down = angles[i, j - 1], angles[i + 1, j]
                    expected = sorted([left, down, left + down - angles[i + 1, j - 1]])[1]
                angles[i, j] = (expected + next(stored)) % 256
        products = [
            [norms[i] * norms[j] * math.cos(angles[min(i, j), max(i, j)] / 255 * math.pi) for j in range(frames)]
            for i in range(frames)
        ]
        size = math.sqrt(sum(value**2 for line in products for value in line))
        content = (self.root / "basis.safetensors").read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        first, last = json.loads(content[8:start])["mean"]["data_offsets"]
        mean = np.frombuffer(content[start + first : start + last], "<f4").tolist()
        (scale,) = codes("clip_scales")
        vector = [m + (c - 128) * 2 * scale / (255 * 127) for m, c in zip(mean, codes("clip_vectors"), strict=True)]
        return [[value / size for value in line] for line in products], vector


def test_relations_are_read_the_same_from_the_specification(tmp_path, own_folder):
    from logitstore import open_store
    from logitstore.jobs.build.job import build
    from tests.jobs.test_relations import with_relations

    write_audio(tmp_path / "audio", 10)
    build(with_relations(tmp_path, similarity_frames=7))
    plain, store = PlainReader(tmp_path / "store"), open_store(tmp_path / "store")
    plain.check()
    for commit in plain.commits:
        for row in range(commit["clips"]):
            for view in range(commit["view_stop"]):
                products, vector = plain.relations(commit, row, view)
                found = store.relations(view, [commit["first_clip"] + row])
                np.testing.assert_allclose(found.frames[0], products, atol=1e-6)
                np.testing.assert_allclose(found.clips[0], vector, atol=1e-6)


def test_frames_are_read_the_same_from_the_specification(tmp_path):
    from logitstore import open_store
    from tests.small_store import Spec, make_store

    make_store(tmp_path / "store", Spec(hop_ms=10, clips=12, view_ranges=((0, 2), (2, 3)), classes=7))
    plain, store = PlainReader(tmp_path / "store"), open_store(tmp_path / "store")
    plain.check()
    for commit, own in zip(plain.commits, store.commits, strict=True):
        np.testing.assert_allclose(store.block_frames(own).dense(), plain.frames(commit), atol=1e-6)
        assert plain.frames(commit).any()


@pytest.mark.parametrize("changes", [{}, {"value_bits": 16}, {"value_bits": 5, "teachers": ["python:tones:softmax"]},
                                     {"views": 11, "recipe": "mixup.yaml"}])  # fmt: skip
def test_a_reader_written_from_the_specification_reads_the_same(tmp_path, own_folder, changes):
    from logitstore import open_store
    from logitstore.jobs.build.job import build

    (tmp_path / "mixup.yaml").write_text(MIXUP)
    write_audio(tmp_path / "audio", 10)
    (tmp_path / "audio" / "text.wav").write_text("no audio")
    build(options(tmp_path, **changes))

    plain, store = PlainReader(tmp_path / "store"), open_store(tmp_path / "store")
    plain.check()
    assert [clip["path"] for clip in plain.clips] == store.clips["path"].to_pylist()
    seen = 0
    for commit in plain.commits:
        targets, draws = plain.targets(commit), plain.draws(commit)
        failed = {row for row, _ in commit["failed"]}
        views = range(commit["view_start"], commit["view_stop"])
        for row in sorted(set(range(commit["clips"])) - failed):
            for view in views:
                clip = commit["first_clip"] + row
                classes, probabilities = store.targets(view, [clip])
                assert [label for label, _ in targets[clip, view]] == classes[0].tolist()
                expected = [plain.probability(code) for _, code in targets[clip, view]]
                np.testing.assert_allclose(expected, probabilities[0], rtol=1e-6)
                for name, values in store.draws(view, [clip]).columns.items():
                    assert values[0] == draws[name][row * len(views) + view - commit["view_start"]]
                seen += 1
        assert not {clip for clip, _ in targets} & {commit["first_clip"] + row for row in failed}
    assert seen == store.view_count()


def test_draws_follow_from_the_specification(tmp_path, own_folder):
    from logitstore import open_store
    from logitstore.jobs.build.job import build

    write_audio(tmp_path / "audio", 4)
    build(options(tmp_path, seed=2**40 + 3))
    store = open_store(tmp_path / "store")

    def philox(counter: list[int], key: list[int]) -> list[int]:
        for _ in range(10):
            first, second = counter[0] * 0xD2511F53, counter[2] * 0xCD9E8D57
            counter = [
                (second >> 32) ^ counter[1] ^ key[0], second & 0xFFFFFFFF,
                (first >> 32) ^ counter[3] ^ key[1], first & 0xFFFFFFFF,
            ]  # fmt: skip
            key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
        return counter

    def pick(word: int, low: int, high: int) -> int:
        return low + (word * (high - low) >> 32)

    for view in range(3):
        drawn = store.draws(view, range(4)).columns
        for clip in store.clips.to_pylist():
            content = clip["path"].encode() + b"\0"
            content += clip["start"].to_bytes(8, "little") + clip["length"].to_bytes(8, "little")
            number = int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")
            words = [
                philox([number & 0xFFFFFFFF, number >> 32, view, op], [(2**40 + 3) & 0xFFFFFFFF, (2**40 + 3) >> 32])
                for op in range(3)
            ]
            most = clip["length"] // 2
            assert drawn["roll"][clip["clip"]] == (pick(words[0][1], -most, most + 1) if words[0][0] < 2**31 else 0)
            length = pick(words[1][1], 0, 38)  # 0.192 of 2 s
            assert drawn["time_length"][clip["clip"]] == length
            assert drawn["time_start"][clip["clip"]] == (pick(words[1][2], 0, 200 - length + 1) if length else 0)
            steps = pick(words[2][1], 0, 24)
            assert drawn["freq_steps"][clip["clip"]] == steps
            assert drawn["freq_low"][clip["clip"]] == (pick(words[2][2], 0, 65 - steps) if steps else 0)
