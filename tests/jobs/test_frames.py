"""Frame targets from end to end: what teachers say of when, build, resume, extension, verification, joining."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from logitstore import open_store
from logitstore.cli.main import cli
from logitstore.errors import MismatchError, ModelOutputError, TeacherError, UsageError
from logitstore.jobs.build.extend import ExtendOptions, extend
from logitstore.jobs.build.job import build, prepare
from logitstore.jobs.merge import merge
from logitstore.jobs.options import MergeOptions, RepairOptions
from logitstore.jobs.repair import repair
from logitstore.jobs.verify.job import VerifyOptions, verify
from logitstore.store.format.frames import (
    FrameSpec,
    bounds_around,
    decode_frames,
    encode_frames,
    frame_bounds,
    shares,
)
from teachers.frames import Frames, lay
from teachers.registry import load_teacher
from tests.stores import contents, options, write_audio

TIMED = '''
import torch
from tones import TONES, Tones


def levels(self, waveforms, spans):
    """Probabilities of the tones in each of so many spans of a view, (B, spans, C)."""
    cut = waveforms[:, : waveforms.shape[1] // spans * spans].reshape(len(waveforms), spans, -1)
    tones = torch.tensor(TONES) * cut.shape[2] // self.sample_rate
    found = torch.fft.rfft(cut).abs()[:, :, tones] / cut.shape[2]
    return torch.sigmoid(self.slope * (torch.log10(found + 1e-4) + 1.5))


class Timed(Tones):
    """A method that says when, beside the clip's own answer."""

    spans, fault = 20, None

    def frame_probabilities(self, waveforms, masks=None):
        said = levels(self, waveforms, self.spans)
        if self.fault == "nan":
            said[-1, 3, 0] = float("nan")
        if self.fault == "logits":
            return said.logit()
        return said[:, :, :-1] if self.fault == "shape" else said


def method():
    return Timed()


def faulty(fault):
    model = Timed()
    model.fault = fault
    return model


def one_frame():
    model = Timed()
    model.spans = 1
    return model


class ByFrame(Tones):
    """Answers frame by frame; the centres are its own."""

    pooling = "mean"

    def forward(self, waveforms, masks=None):
        return levels(self, waveforms, 10)

    def frame_centers(self, frames):
        return (torch.arange(frames, dtype=torch.float64) + 0.5) / frames * 2.0


def by_frame():
    return ByFrame()


def windows():
    class Windows(Tones):
        window_seconds, hop_seconds = 0.25, 0.125

        def forward(self, waveforms, masks=None):
            return levels(self, waveforms, 1)[:, 0]

    return Windows()


def method_in_windows():
    class Both(Timed):
        """A view of 2 s would give it a frame more than 4 windows do."""

        window_seconds, spans = 0.5, 5

        def frame_probabilities(self, waveforms, masks=None):
            assert waveforms.shape[1] == self.sample_rate // 2
            return super().frame_probabilities(waveforms, masks)

    return Both()


def one_window():
    class Whole(Tones):
        window_seconds = 2.0

    return Whole()


def fewer():
    """Knows the first and the last of the classes only, and one of its own."""
    class Fewer(Timed):
        classes = [Tones.classes[7], "a siren", Tones.classes[0]]

        def forward(self, waveforms, masks=None):
            return super().forward(waveforms, masks)[:, [7, 3, 0]]

        def frame_probabilities(self, waveforms, masks=None):
            return levels(self, waveforms, 20)[:, :, [7, 3, 0]]

    return Fewer(6.0)
'''

pytestmark = pytest.mark.usefixtures("one_thread")


def with_frames(root: Path, *kinds: str, **changes: Any) -> Any:
    (root / "timed.py").write_text(TIMED)
    specs = [f"python:timed:{kind}" for kind in kinds or ("method", "by_frame")]
    return options(root, **({"teachers": specs, "frames": 50, "recipe": "none"} | changes))


@pytest.fixture
def root(tmp_path, own_folder):
    write_audio(tmp_path / "audio", 12)
    return tmp_path


def heard(root: Path, store: Any, clip: int, view: int = 0) -> torch.Tensor:
    """A view's waveform, (1, S)."""
    return torch.from_numpy(open_store(store, audio_root=root / "audio")[clip].view(view).waveform[None])


def spec_of(count: int, hop_ms: int) -> FrameSpec:
    return FrameSpec(hop_ms=hop_ms, count=count, bits=8, floor=0.01)


# how a teacher's frames are laid on a store's


def laid(centers: list[float], count: int, hop_ms: int, seconds: float) -> np.ndarray:
    return shares(frame_bounds(count, hop_ms, seconds), bounds_around(np.array(centers), seconds))


def test_frames_stand_for_the_time_that_is_nearest_to_their_centre():
    share = laid([0.1, 0.3, 0.5, 0.7, 0.9], 3, 400, 1.0)
    np.testing.assert_allclose(share, [[0.5, 0.5, 0, 0, 0], [0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 1]], atol=1e-6)
    repeated = laid([0.25, 0.75], 10, 100, 1.0)
    np.testing.assert_allclose(repeated[:, 0], [1, 1, 1, 1, 1, 0, 0, 0, 0, 0], atol=1e-6)
    windows = laid([0.48, 0.96, 1.44], 5, 400, 1.92)  # of .96 s every .48 s
    np.testing.assert_allclose(windows, [[1, 0, 0], [0.8, 0.2, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1]], atol=1e-6)
    beyond = laid([0.5, 1.5, 2.5], 2, 500, 1.0)  # of a teacher that pads
    np.testing.assert_allclose(beyond, [[1, 0, 0], [1, 0, 0]], atol=1e-6)


def test_a_frame_of_the_store_is_the_mean_over_its_own_time():
    said = torch.rand(2, 25, 3)
    centers = (np.arange(25) + 0.5) * 0.04
    laid = lay(Frames(said, centers), spec_of(5, 200), 1.0)
    torch.testing.assert_close(laid, said.reshape(2, 5, 5, 3).mean(dim=2))
    same = lay(Frames(said, centers), spec_of(25, 40), 1.0)
    torch.testing.assert_close(same, said, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["method", "by_frame", "windows", "method_in_windows"])
def test_a_store_holds_what_a_teacher_says_of_when(root, kind):
    asked = with_frames(root, kind, views=1)
    build(asked)
    store = open_store(root / "store")
    spec = store.require_frames()
    assert (spec.hop, spec.count, store.manifest.format_version) == (0.05, 40, 4)
    teacher = load_teacher(f"python:timed:{kind}")
    for clip in (0, 7):
        answer = teacher.answers(heard(root, root / "store", clip), None, frames=True)
        laid = lay(answer.frames, spec, store.manifest.clip_seconds).numpy()
        expected = decode_frames(encode_frames(laid, spec), spec, 8).dense()
        np.testing.assert_array_equal(store.frames(0, [clip]).dense(), expected)
        assert expected.any()


def test_clip_and_frame_answers_of_a_model_by_frames_come_from_one_pass(root):
    with_frames(root, "by_frame")
    teacher = load_teacher("python:timed:by_frame")
    waves = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (3, 16_000)).astype(np.float32))
    calls: list[object] = []
    teacher.module.register_forward_hook(lambda *given: calls.append(given))
    answer = teacher.answers(waves, None, frames=True)
    assert len(calls) == 1
    torch.testing.assert_close(answer.probabilities, teacher.probabilities(waves, None), rtol=0, atol=0)
    assert answer.frames.probabilities.shape == (3, 10, 8)


def test_members_are_averaged_as_they_weigh_over_the_classes_that_they_know(root):
    build(with_frames(root, "method", "fewer", weights=[3.0, 1.0], views=1))
    store = open_store(root / "store")
    assert len(store.manifest.classes) == 9
    spec, waves = store.require_frames(), heard(root, root / "store", 2)
    first, second = (
        lay(load_teacher(f"python:timed:{kind}").frame_probabilities(waves.clone(), None), spec, 2.0).numpy()
        for kind in ("method", "fewer")
    )
    expected = np.concatenate([first, second[:, :, 1:2]], axis=2)
    expected[:, :, 7] = 0.75 * first[:, :, 7] + 0.25 * second[:, :, 0]
    expected[:, :, 0] = 0.75 * first[:, :, 0] + 0.25 * second[:, :, 2]
    dense = store.frames(0, [2]).dense()
    np.testing.assert_array_equal(dense > 0, expected >= 0.05)
    assert np.abs(dense - expected)[dense > 0].max() < 0.05


@pytest.mark.parametrize(
    ("kinds", "line"),
    [
        (("tones", "method"), "'python:tones:plain' says one thing of a whole view. Those that do: .*densenet"),
        (("one_window",), "hears a view of 2 s as one window of 2 s"),
    ],
)
def test_teachers_that_do_not_say_when_are_refused_with_those_that_do(root, kinds, line):
    asked = with_frames(root, *kinds)
    asked.teachers[:] = [spec.replace("timed:tones", "tones:plain") for spec in asked.teachers]
    with pytest.raises(TeacherError, match=line):
        prepare(asked)


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("nan", "gave frames with values from"),
        ("logits", "are these logits"),
        ("shape", r"gave frames of the shape \(\d+, 20, 7\)"),
        ("one_frame", "1 frames of a view, which do not say when"),
    ],
)
def test_frames_that_are_no_probabilities_are_refused(root, fault, line):
    asked = with_frames(root, "method")
    kind = fault if fault == "one_frame" else f"faulty?fault={fault}"
    asked.teachers[:] = [f"python:timed:{kind}"]
    with pytest.raises(ModelOutputError, match=line):
        build(asked)
    assert not (root / "store").exists() or not list((root / "store").glob("commits/*"))


@pytest.mark.parametrize(("hop", "line"), [(2000, "makes 1 frames"), (1500, None)])
def test_hops_that_make_no_frames_are_refused(root, hop, line):
    if line is None:
        assert prepare(with_frames(root, frames=hop)).manifest.frames.count == 2
        return
    with pytest.raises(UsageError, match=line):
        prepare(with_frames(root, frames=hop))


# the life of a store


def test_a_killed_build_goes_on_to_the_same_bytes(root):
    broken = root / "audio" / "a" / "004.wav"
    broken.write_bytes(broken.read_bytes()[:44])
    build(with_frames(root, shard_clips=4, recipe="ced"))
    whole = contents(root / "store")
    shutil.move(root / "store", root / "first")
    asked = with_frames(root, shard_clips=4, recipe="ced")
    calls = []

    class KilledError(Exception):
        pass

    def stop(views: int) -> None:
        calls.append(views)
        if len(calls) == 4:
            raise KilledError

    from logitstore.jobs.build.job import Progress

    with pytest.raises(KilledError):
        build(asked, Progress(advance=stop))
    assert 0 < len(list((root / "store").glob("commits/*"))) < 3
    build(asked)
    assert contents(root / "store") == whole
    store = open_store(root / "store")
    assert [each.path for each in store.failures()] == ["a/004.wav"]
    verified = verify(VerifyOptions(store=str(root / "store"), audio_root=str(root / "audio"),
                                    teachers=asked.teachers))  # fmt: skip
    assert not verified.problems
    assert verified.recomputed.frame_error < 0.02
    again = build(with_frames(root, shard_clips=4, recipe="ced", frames=50))
    assert again.made_views == 0


def test_another_hop_is_another_store(root):
    build(with_frames(root))
    with pytest.raises(MismatchError, match=r"frames: stored every 50 ms, 5 bits from 0.05 on, asked every 100 ms"):
        build(with_frames(root, frames=100))
    with pytest.raises(MismatchError, match=r"frames: stored every 50 ms.*asked None"):
        build(with_frames(root, frames=None))


def test_a_store_without_frames_is_the_same_to_the_byte_whatever_its_teachers_could_say(root):
    build(with_frames(root, frames=None))
    plain = contents(root / "store")
    assert b'"format_version":3' in plain["zarr.json"]
    shutil.rmtree(root / "store")
    build(with_frames(root))
    kept = contents(root / "store")
    for name in plain:
        if name.startswith(("blocks/", "clips/")) and "/frames" not in name:
            assert kept[name] == plain[name]


def test_other_shard_sizes_say_the_same(root):
    build(with_frames(root, shard_clips=4, batch_size=8))
    build(with_frames(root, shard_clips=64, batch_size=8, out=str(root / "other")))
    one, other = open_store(root / "store"), open_store(root / "other")
    clips = np.arange(12)
    np.testing.assert_allclose(one.frames(1, clips).dense(), other.frames(1, clips).dense(), atol=0.1)


def test_more_clips_and_a_block_made_again_say_when_too(root):
    asked = with_frames(root, shard_clips=4)
    build(asked)
    before = contents(root / "store")
    write_audio(root / "more", 3)
    for file in sorted((root / "more").rglob("*.wav")):
        shutil.move(file, root / "audio" / f"new {file.name}")
    new = root / "new.csv"
    new.write_text("path\n" + "\n".join(sorted(each.name for each in (root / "audio").glob("new *.wav"))) + "\n")
    extend(ExtendOptions(store=str(root / "store"), source=str(new), audio_root=str(root / "audio"),
                         teachers=asked.teachers))  # fmt: skip
    store = open_store(root / "store")
    assert store.frames(0, [13]).dense().any()
    after = contents(root / "store")
    assert {name: after[name] for name in before if name.startswith("blocks/")} == {
        name: content for name, content in before.items() if name.startswith("blocks/")
    }
    file = root / "store" / "blocks" / "000001-0-3" / "frames" / "c" / "0" / "0"
    file.write_bytes(file.read_bytes()[::-1])
    assert verify(VerifyOptions(store=str(root / "store"))).problems
    repair(RepairOptions(store=str(root / "store"), source=str(root / "audio"), teachers=asked.teachers))
    assert contents(root / "store") == after


# several stores


def test_stores_that_heard_the_same_views_are_one_ensemble_of_frames(root):
    build(with_frames(root, "method", "fewer", views=1, topk=3))
    build(with_frames(root, "method", views=1, topk=3, out=str(root / "one")))
    build(with_frames(root, "fewer", views=1, topk=3, out=str(root / "two")))
    joint = open_store([root / "one", root / "two"])
    assert joint.manifest.frames == joint.require_frames()
    whole = open_store(root / "store")
    clips = np.array([5, 0, 11])
    both, exact = joint.frames(0, clips).dense(), whole.frames(0, clips).dense()
    assert both.shape == exact.shape
    assert np.abs(both - exact).mean() < 0.02
    merge(MergeOptions(stores=[str(root / "one"), str(root / "two")], ensemble=True, out=str(root / "merged")))
    merged = open_store(root / "merged")
    assert merged.manifest.format_version == 4
    np.testing.assert_array_equal(merged.frames(0, clips).dense(), both)
    build(with_frames(root, "by_frame", views=1, frames=100, out=str(root / "three")))
    with pytest.raises(MismatchError, match="not of one hop"):
        open_store([root / "one", root / "three"]).require_frames()


def test_the_command_says_what_it_keeps_and_refuses_what_cannot_be(root):
    asked = with_frames(root)
    command = ["build", str(root / "audio"), "--out", str(root / "store"), "--views", "1", "--clip-seconds", "1"]
    command += [part for spec in asked.teachers for part in ("--teacher", spec)]
    run = CliRunner().invoke(cli, [*command, "--frames", "0.04"])
    assert run.exit_code == 2
    assert "--frames" in run.output
    run = CliRunner().invoke(cli, [*command, "--frames", "40"])
    assert run.exit_code == 0, run.output
    assert "frames     every 40 ms, " in run.output
    assert "every 40 ms, 25 of a view" in CliRunner().invoke(cli, ["inspect", str(root / "store")]).output
