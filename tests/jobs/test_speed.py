"""The build at the teachers' speed: what is computed once, batch sizes that are tried out, memory that runs short."""

import itertools
import json
import threading
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from logitstore import open_store
from logitstore.audio.ahead import Prefetched
from logitstore.errors import MemoryShortError, MismatchError, UsageError
from logitstore.jobs.build import batch_size
from logitstore.jobs.build.batch_size import Tried, batch_size_of, try_sizes
from logitstore.jobs.build.block import FORWARD, WAIT_AUDIO
from logitstore.jobs.build.job import Progress, build, prepare, run
from logitstore.jobs.build.limit import Limit
from logitstore.models.registry import build as build_model
from logitstore.models.registry import initialised
from logitstore.stages import Stages
from logitstore.store import claims
from logitstore.store.format.commits import read_all
from logitstore.store.storage import LocalStorage
from logitstore.training.runs import save_run
from logitstore.views.mel import LogMel
from logitstore.views.recipe import Masks
from teachers.ensemble import Ensemble
from teachers.registry import load_teacher
from teachers.teacher import Teacher
from tests.stores import contents, options, write_audio

pytestmark = pytest.mark.usefixtures("own_folder")
NETS = {
    "cnn4": {"width": 2, "mels": 16, "hop_ms": 40},
    "ced-tiny": {"dim": 8, "heads": 1, "depth": 1},
    "mobile": {"width": 0.1},
}


@pytest.fixture
def audio(tmp_path):
    write_audio(tmp_path / "audio", 20)
    return tmp_path


# what is computed once


@pytest.mark.parametrize("net", NETS)
def test_members_with_one_front_end_compute_it_once_and_say_the_same(net, tmp_path, monkeypatch):
    for seed in (1, 2):
        model = initialised(lambda: build_model(net, 3, **NETS[net]), seed).eval()
        rate = model.front_end.sample_rate
        save_run(tmp_path / f"{seed}", net, NETS[net], ["a", "b", "c"], "sigmoid", rate, model)
    waveforms = 0.1 * torch.randn(3, rate, generator=torch.Generator().manual_seed(0))
    masks = Masks(*(np.full(3, value) for value in (0.2, 0.4, 500.0, 900.0)))
    alone = [load_teacher(str(tmp_path / f"{seed}")).probabilities(waveforms, masks) for seed in (1, 2)]
    ensemble = Ensemble([load_teacher(str(tmp_path / f"{seed}")) for seed in (1, 2)], sample_rate=rate)
    front_ends = {type(member.model.log_mel.own) for member in ensemble.members}
    calls = []
    for kind in front_ends:
        plain = kind.forward
        monkeypatch.setattr(kind, "forward", lambda self, heard, plain=plain: calls.append(0) or plain(self, heard))
    for given in (masks, None, masks):  # nothing of one batch is left to the next
        said = ensemble.probabilities(waveforms, given, members=True)[1]
    assert len(calls) == 3
    assert torch.equal(said, torch.stack(alone))
    heard, single = waveforms.clone(), Ensemble([ensemble.members[0]], sample_rate=rate)
    for ask in (single.probabilities, ensemble.members[0].probabilities):  # nobody else is asked, and nothing is kept
        first = ask(heard.copy_(waveforms), masks)
        assert not torch.equal(ask(heard.copy_(waveforms.flip(1)), masks), first)


def test_members_with_other_front_ends_keep_their_own(tmp_path):
    for mels in (16, 24):
        args = NETS["cnn4"] | {"mels": mels}
        model = initialised(lambda args=args: build_model("cnn4", 3, **args), 1).eval()
        save_run(tmp_path / f"{mels}", "cnn4", args, ["a", "b", "c"], "sigmoid", 16_000, model)
    ensemble = Ensemble([load_teacher(str(tmp_path / name)) for name in ("16", "24")], sample_rate=16_000)
    assert [type(member.model.log_mel) for member in ensemble.members] == [LogMel, LogMel]


class _Spoils(Teacher):
    """Somebody's adapter, which changes what it is given."""

    def __init__(self, model: Teacher) -> None:
        self.spec, self.contract = model.spec, model.contract

    def probabilities(self, waveforms, masks):
        said = waveforms[:, :1].abs().clamp(max=1).expand(-1, len(self.classes)).clone()
        waveforms.zero_()
        return said

    def to(self, device):
        return self


def test_what_a_member_does_to_its_input_is_heard_by_nobody_else(audio):
    """In a build the last of them gets the batch itself, for nobody needs it any more."""
    options(audio)
    spoils = _Spoils(load_teacher("python:tones:plain"))
    waveforms = torch.full((2, 16_000), 0.5)
    ensemble = Ensemble([spoils, spoils], sample_rate=16_000)
    assert torch.equal(ensemble.probabilities(waveforms, None), torch.full((2, len(spoils.classes)), 0.5))
    assert bool((waveforms == 0.5).all())
    given = ensemble.outputs(waveforms, None, features=False, by_rate=ensemble.at_rates(waveforms))
    assert torch.equal(given.members, torch.full((2, 2, len(spoils.classes)), 0.5))
    assert not waveforms.any()


def test_a_clip_is_decoded_once_for_all_its_views_and_as_a_partner(audio, monkeypatch):
    from logitstore.audio import clips

    decoded, plain = [], clips.decode_audio

    def counting(audio, *cut):
        decoded.append(threading.current_thread().name)
        return plain(audio, *cut)

    monkeypatch.setattr(clips, "decode_audio", counting)
    (audio / "mix.yaml").write_text("ops:\n- op: mixup\n  probability: 1.0\n")
    asked = options(audio, recipe=str(audio / "mix.yaml"), shard_clips=20, batch_size=4)
    run(prepare(asked), Progress())
    # once in the build; the trial of its first batch and what survives are beside it
    few = len(decoded) - 20
    decoded.clear()
    run(prepare(options(audio, recipe=str(audio / "mix.yaml"), shard_clips=20, batch_size=4, views=9, out="other")),
        Progress())  # fmt: skip
    assert len(decoded) - 20 <= few + 4


# the line of blocks


def test_the_next_block_is_begun_before_one_is_written_and_all_claims_go(audio, monkeypatch):
    events = []
    from logitstore.store.writer import StoreWriter

    take, write = claims.Claimer.take, StoreWriter.write_block

    def taking(self, shard):
        events.append(("claimed", shard))
        return take(self, shard)

    def writing(self, shard, *given, **keywords):
        events.append(("written", shard))
        return write(self, shard, *given, **keywords)

    monkeypatch.setattr(claims.Claimer, "take", taking)
    monkeypatch.setattr(StoreWriter, "write_block", writing)
    build(options(audio))
    assert events.index(("claimed", 1)) < events.index(("written", 0))
    assert sorted(shard for what, shard in events if what == "written") == [0, 1, 2]
    assert not list((audio / "store").glob("claims/*"))


def test_a_block_that_was_asked_about_is_written_though_the_next_one_is_refused(audio):
    """Its audio is another one by now: what came before it is kept."""
    build(options(audio, views=1))
    for path in sorted((audio / "audio").rglob("*.wav"))[8:]:
        samples, rate = soundfile.read(path, dtype="int16")
        soundfile.write(path, samples[::-1] // 2, rate, subtype="PCM_16")
    with pytest.raises(MismatchError, match="not the one that"):
        build(options(audio, views=2))
    assert {each.shard for each in read_all(LocalStorage(str(audio / "store"))) if each.view_start} == {0}


def test_prefetched_items_are_made_before_they_are_asked_for():
    made = threading.Event()

    def items():
        made.set()
        yield 1

    ahead = Prefetched(items())
    assert made.wait(10)
    assert list(ahead) == [1]
    assert list(ahead) == []
    ahead.close()


# batches that are tried out


def _tried(fits: int, seconds_of) -> Tried:
    now = [0.0]

    def ask(views: int) -> None:
        if views > fits:
            raise MemoryShortError("full")
        now[0] += seconds_of(views)

    return try_sizes(ask, clock=lambda: now[0])


def test_the_smallest_batch_that_is_as_fast_as_any_is_chosen_with_room_to_spare():
    plateau = _tried(10**6, lambda views: 0.010 + 0.001 * views)
    assert plateau.chosen == 256  # 962 views/s, of at most 1,000
    assert max(plateau.rates) <= 2048
    short = _tried(100, lambda views: 0.010 + 0.001 * views)
    assert (short.chosen, short.short) == (32, 128)  # 64 fit, and leave no room for another 64
    assert _tried(1, lambda views: 0.010).chosen == 1
    assert "batches of 32 views" in short.said("cuda:0")
    assert "128 do not fit" in short.said("cuda:0")
    with pytest.raises(MemoryShortError):
        _tried(0, lambda views: 0.010)


class _Gpu:
    """An ensemble on a GPU whose memory holds 40 views."""

    device = torch.device("cuda")

    def __init__(self):
        self.asked = []

    def at_rates(self, waveforms):
        return {16_000: waveforms}

    def outputs(self, waveforms, masks, *, features, frames, by_rate):
        assert masks is not None
        assert len(masks.time_start) == len(waveforms)
        assert waveforms.shape[1] == 1600
        self.asked.append(len(waveforms))
        if len(waveforms) > 40:
            raise MemoryShortError("full")
        return SimpleNamespace(probabilities=torch.zeros(len(waveforms), 3))


def test_auto_tries_a_gpu_once_keeps_what_a_store_has_and_is_the_default_on_a_cpu(audio, monkeypatch):
    asked, gpu = options(audio, batch_size="auto"), _Gpu()
    ticks = itertools.count()  # every batch takes as long, so larger ones are faster
    monkeypatch.setattr(batch_size, "try_sizes", partial(try_sizes, clock=lambda: float(next(ticks))))
    size, said = batch_size_of(asked, gpu, 1600, None, masked=True, frames=None)
    assert size == 16
    assert max(gpu.asked) == 64
    assert said[0].startswith(f"batches of {size} views")
    begun = SimpleNamespace(batch_size=7)
    assert batch_size_of(asked, gpu, 1600, begun, masked=True, frames=None)[0] == 7
    assert batch_size_of(options(audio, batch_size=5), gpu, 1600, begun, masked=True, frames=None) == (5, [])
    monkeypatch.setattr(batch_size, "processes", lambda: 2)
    with pytest.raises(UsageError, match="--batch-size auto tries out one GPU"):
        batch_size_of(asked, gpu, 1600, None, masked=True, frames=None)
    notes = []
    build(asked, Progress(note=notes.append))
    assert "batches of 32 views, as --batch-size auto has on a CPU" in notes
    assert open_store(audio / "store").manifest.batch_size == 32


def test_a_batch_size_is_a_number_or_auto(audio):
    with pytest.raises(UsageError, match="--batch-size is 'many'; it must be a whole number or auto"):
        options(audio, batch_size="many")
    with pytest.raises(UsageError, match="--batch-size is 0; it must be at least 1"):
        options(audio, batch_size=0)


@pytest.mark.parametrize("error", ["torch.cuda.OutOfMemoryError('CUDA out of memory')", "MemoryError()"])
def test_memory_that_runs_short_stops_a_build_with_advice_and_keeps_its_blocks(error, audio):
    (audio / "hungry.py").write_text(
        "import torch, tones\n"
        "def teacher():\n"
        "    net = tones.plain()\n"
        "    plain, seen = net.forward, []\n"
        "    def forward(waveforms, masks=None):\n"
        "        seen.append(len(waveforms))\n"
        f"        if len(seen) > 6: raise {error}\n"
        "        return plain(waveforms, masks)\n"
        "    net.forward = forward\n"
        "    net.digest = 'hungry'\n"
        "    return net\n"
    )
    with pytest.raises(MemoryShortError, match=r"a batch of \d+ views does not fit into the memory of cpu; .*--out"):
        build(options(audio, teachers=["python:hungry:teacher"], batch_size=8))
    assert [each.shard for each in read_all(LocalStorage(str(audio / "store")))] == [0]


# what limited it


def test_a_limit_is_the_largest_share_and_shares_sum_to_one():
    stages = Stages()
    stages.add(FORWARD, 3.0, 3.0)
    stages.add(WAIT_AUDIO, 6.0, 0.0)
    found = Limit.of(stages, 10.0)
    assert found is not None
    assert found.by == "audio"
    assert found.shares == pytest.approx({"forward": 0.3, "audio": 0.6, "writing": 0, "top-k": 0, "rest": 0.1})
    assert found.render().startswith("audio, which the teachers waited for: 60 % of the time (forward 30 %, rest 10 %")
    assert Limit.of(Stages(), 10.0) is None


def test_a_finished_build_says_what_limited_it_and_one_that_made_nothing_does_not(audio):
    from logitstore.cli.progress import build_document, render_build

    first, second = build(options(audio)), build(options(audio))
    assert first.limit is not None
    assert sum(first.limit.shares.values()) == pytest.approx(1)
    assert first.limit.stages["decode"] > 0
    assert "limit      " in render_build(first)
    assert json.loads(json.dumps(build_document(first)))["limit"]["by"] == first.limit.by
    assert second.limit is None
    assert "limit" not in render_build(second)


def test_a_store_has_the_same_bytes_whatever_waits_for_what(audio, monkeypatch):
    """The teachers fast or slow, so that blocks are written before or after the next one is rendered."""
    build(options(audio, out="plain"))
    said = Ensemble.outputs

    def slowly(*given, **named):
        time.sleep(0.02)
        return said(*given, **named)

    monkeypatch.setattr(Ensemble, "outputs", slowly)
    build(options(audio, out="slow"))
    assert contents(audio / "plain") == contents(audio / "slow")
