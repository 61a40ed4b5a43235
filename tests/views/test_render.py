import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore.audio.clips import put
from logitstore.errors import AudioError
from logitstore.views.fingerprint import difference, fingerprint
from logitstore.views.ops import Place, mel_step_hz
from logitstore.views.ops.noise import noise
from logitstore.views.recipe import Draws, draw, parse_recipe
from logitstore.views.render import Renderer, render

SAMPLES = 4000
PLACE = Place(SAMPLES, 16_000, 32)
ALL = parse_recipe(
    [
        {"op": "roll", "probability": 0.8},
        {"op": "gain"},
        {"op": "mixup", "probability": 0.7, "max_weight": 0.6},
        {"op": "noise", "probability": 0.8, "min_snr_db": 0},
    ]
)


def clips_of(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(3)
    return [random.standard_normal(int(n)).astype(np.float32) for n in random.integers(900, SAMPLES + 1, count)]


CLIPS = clips_of(24)
LENGTHS = np.array([len(clip) for clip in CLIPS])
DRAWS = draw(ALL, seed=5, keys=[(f"{i}", 0, 1) for i in range(24)], view=2, lengths=LENGTHS, place=PLACE, shard_rows=24)


def views(rows: list[int]) -> torch.Tensor:
    index = np.array(rows)
    drawn = DRAWS[index]
    mixed = zip(drawn.columns["mixup_partner"].tolist(), drawn.columns["mixup_weight"].tolist(), strict=True)
    partners = [CLIPS[partner] if weight else None for partner, weight in mixed]
    return render([CLIPS[row] for row in rows], drawn, ALL, SAMPLES, sample_rate=16_000, partners=partners)[0]


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.integers(0, 23), min_size=1, max_size=24))
def test_a_view_is_bit_identical_whatever_the_batch(rows):
    alone = {row: views([row])[0] for row in set(rows)}
    for row, view in zip(rows, views(rows), strict=True):
        assert torch.equal(view, alone[row])


def test_another_process_and_thread_count_gives_the_same_bits():
    import subprocess
    import sys

    code = (
        "import sys, hashlib, torch; sys.path.insert(0, 'tests/views'); torch.set_num_threads(int(sys.argv[1])); "
        "import test_render as t;"
        "print(hashlib.sha256(t.views(list(range(24))).numpy().tobytes()).hexdigest())"
    )
    from pathlib import Path

    root, other = Path(__file__).parents[2], "2" if torch.get_num_threads() == 1 else "1"
    command = [sys.executable, "-c", code, other]
    printed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == hashlib.sha256(views(list(range(24))).numpy().tobytes()).hexdigest()


def one(
    op: dict, clip: np.ndarray, columns: dict[str, int], partner: np.ndarray | None = None, rate: int = 16_000
) -> np.ndarray:
    draws = Draws({name: np.array([value]) for name, value in columns.items()})
    return render([clip], draws, parse_recipe([op]), SAMPLES, partners=[partner], sample_rate=rate)[0][0].numpy()


def test_roll_turns_the_clips_own_samples_before_padding():
    clip = np.arange(1, 11, dtype=np.float32)
    rolled = one({"op": "roll"}, clip, {"roll": 3})
    assert rolled[:10].tolist() == [8, 9, 10, 1, 2, 3, 4, 5, 6, 7]
    assert not rolled[10:].any()
    assert one({"op": "roll"}, clip, {"roll": -1})[:10].tolist() == [2, 3, 4, 5, 6, 7, 8, 9, 10, 1]


def test_gain_is_in_hundredths_of_a_decibel():
    clip = np.ones(100, np.float32)
    assert one({"op": "gain"}, clip, {"gain_cdb": 600})[0] == pytest.approx(10 ** (6 / 20))
    assert one({"op": "gain"}, clip, {"gain_cdb": 0})[0] == 1


def test_mixup_loops_a_short_partner_and_cuts_a_long_one():
    clip = np.zeros(10, np.float32)
    mixed = one({"op": "mixup"}, clip, {"mixup_partner": 1, "mixup_weight": 512}, np.array([2, 4, 6], np.float32))
    assert mixed[:10].tolist() == [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]
    long = one({"op": "mixup"}, clip + 8, {"mixup_partner": 1, "mixup_weight": 256}, np.arange(50, dtype=np.float32))
    assert long[:11].tolist() == [6 + i / 4 for i in range(10)] + [0]


def test_mixup_without_its_partner_is_refused():
    with pytest.raises(ValueError, match="mixup weight 512/1024 and no partner"):
        one({"op": "mixup"}, np.ones(10, np.float32), {"mixup_partner": 1, "mixup_weight": 512})


@pytest.mark.parametrize("ratio", [-5, 0, 20])
def test_noise_has_the_ratio_that_was_drawn(ratio):
    clip = (np.sin(np.arange(SAMPLES) / 7) * 0.3).astype(np.float32)
    noisy = one({"op": "noise"}, clip, {"noise_snr_cdb": ratio * 100, "noise_key": 99})
    added = noisy - clip
    measured = 10 * np.log10(np.mean(clip.astype(np.float64) ** 2) / np.mean(added.astype(np.float64) ** 2))
    assert measured == pytest.approx(ratio, abs=0.3)
    assert one({"op": "noise"}, clip, {"noise_snr_cdb": 0, "noise_key": 0}).tolist() == clip.tolist()
    silent = one({"op": "noise"}, clip * 0, {"noise_snr_cdb": 0, "noise_key": 5})
    assert not silent.any()


def test_noise_is_white_of_unit_variance_and_pinned():
    sample = noise(12345, 40_000)
    assert abs(sample.mean()) < 0.02
    assert sample.std() == pytest.approx(1, abs=0.01)
    assert abs(np.corrcoef(sample[:-1], sample[1:])[0, 1]) < 0.02
    assert noise(12345, 7).tolist() == sample[:7].tolist()
    assert np.round(sample[:4] * 147.8, 0).tolist() == NOISE


NOISE = [-417.0, 41.0, 183.0, -348.0]


def test_rendering_leaves_its_input_alone():
    before = CLIPS[0].copy()
    render([CLIPS[0]], Draws({"roll": np.array([7])}), parse_recipe([{"op": "roll"}]), SAMPLES, sample_rate=16_000)
    assert (before == CLIPS[0]).all()


class Sounds:
    """The clips as audio, of which some cannot be decoded."""

    def __init__(self, *broken):
        self.broken = broken

    def __getitem__(self, clip):
        if clip in self.broken:
            raise AudioError(f"no clip {clip}")
        return CLIPS[clip]

    def write(self, clip, row, turn=0):
        return put(self[clip], row, turn)


PARTNERS = ALL.partners(DRAWS)


@pytest.mark.parametrize("size", [1, 5, 24])
def test_a_renderer_decodes_clips_and_partners(size):
    renderer = Renderer(Sounds(), ALL, PLACE)
    order = np.repeat(np.arange(24), 2)
    made = list(renderer.batches(order, DRAWS[order], PARTNERS[order], size, ahead=3))
    assert torch.equal(torch.cat([batch.waveforms for batch in made]), views(order.tolist()))
    assert not any(batch.failures or batch.errors for batch in made)
    waveform, masks = renderer.view(5, DRAWS[[5]], int(PARTNERS[5]))
    assert torch.equal(waveform, views([5])[0])
    assert masks is None


def test_a_clip_that_is_there_twice_and_threads_change_nothing():
    positions = np.array([3, 7, 3, 0, 11, 7, 20, 5, 1])
    with ThreadPoolExecutor(3) as pool:
        made = Renderer(Sounds(2), ALL, PLACE, pool=pool).batch(positions, DRAWS[positions], PARTNERS[positions])
    assert torch.equal(made.waveforms, views(positions.tolist()))


def test_memory_of_a_batch_is_used_again_once_nobody_has_it():
    renderer = Renderer(Sounds(), ALL, PLACE)
    held, seen = [], set()
    for number in range(12):
        positions = (np.arange(4) + number) % 24
        made = renderer.batch(positions, DRAWS[positions], PARTNERS[positions]).waveforms
        seen.add(made.data_ptr())
        held.append((positions, made[1:3]))  # a part keeps the whole
        held = held[-3:]
        for kept, part in held:
            assert torch.equal(part, views(kept[1:3].tolist()))
    assert len(seen) <= 4


def test_a_view_that_cannot_be_rendered_is_silence_with_a_reason():
    mixed = np.flatnonzero(PARTNERS >= 0)
    broken = int(PARTNERS[mixed[0]])
    blamed = sorted({broken, *np.flatnonzero(broken == PARTNERS).tolist()})
    everything = np.arange(24)
    given_draws = Renderer(Sounds(broken), ALL, PLACE).batch(everything, DRAWS, PARTNERS)
    assert given_draws.failures == dict.fromkeys(blamed, broken)
    assert [(clip, str(error)) for clip, error in given_draws.errors.items()] == [(broken, f"no clip {broken}")]
    kept = np.flatnonzero(given_draws.readable)
    assert sorted({*range(24)} - {*kept.tolist()}) == blamed
    assert torch.equal(given_draws.waveforms[kept], views(kept.tolist()))
    assert not given_draws.waveforms[blamed].any()
    with pytest.raises(AudioError, match=f"no clip {broken}"):
        Renderer(Sounds(broken), ALL, PLACE).view(int(mixed[0]), DRAWS[[mixed[0]]], broken)


def test_where_draws_are_made_a_partner_that_cannot_be_decoded_is_left_out_of_them():
    mixed = np.flatnonzero(PARTNERS >= 0)
    broken = int(PARTNERS[mixed[0]])
    made = Renderer(Sounds(broken), ALL, PLACE, mix_without=True).batch(np.arange(24), DRAWS, PARTNERS)
    assert made.failures == {broken: broken}
    alone = (broken == PARTNERS) | (np.arange(24) == broken)
    assert (made.draws.columns["mixup_weight"][alone] == 0).all()
    assert (made.draws.columns["mixup_partner"][alone] == 0).all()
    for name in ALL.columns:
        assert (made.draws.columns[name][~alone] == DRAWS.columns[name][~alone]).all()
    again = [None if other < 0 else CLIPS[other] for other in ALL.partners(made.draws).tolist()]
    sounds = [clip if number != broken else clip[:0] for number, clip in enumerate(CLIPS)]
    assert torch.equal(made.waveforms, render(sounds, made.draws, ALL, SAMPLES, sample_rate=16_000, partners=again)[0])


@pytest.mark.parametrize(("start", "length", "rate"), [(3, 7, 16_000), (0, 25, 22_050), (20, 40, 16_000), (5, 3, 8000)])
def test_silence_is_zero_where_it_was_drawn_and_nowhere_else(start, length, rate):
    clip = np.ones(3000, np.float32)
    quiet = one({"op": "silence"}, clip, {"silence_start": start, "silence_length": length}, rate=rate)
    seconds = np.arange(SAMPLES) / rate
    inside = (seconds >= start / 100) & (seconds < (start + length) / 100)
    assert (quiet == np.where(inside | (np.arange(SAMPLES) >= 3000), 0, 1)).all()


def test_no_silence_and_no_band_leave_every_bit():
    for name, columns in (("silence", ("silence_start", "silence_length")), ("band_stop", ("stop_low", "stop_steps"))):
        assert (one({"op": name}, CLIPS[0], dict.fromkeys(columns, 0), rate=8000)[: len(CLIPS[0])] == CLIPS[0]).all()


def spectrum(clip: np.ndarray) -> np.ndarray:
    return np.abs(np.fft.rfft(clip.astype(np.float64)))


@pytest.mark.parametrize("length", [1600, 3001, 4000])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
@pytest.mark.parametrize(("low", "steps"), [(0, 23), (0, 3), (20, 2), (41, 23), (61, 3), (30, 34)])
def test_a_band_is_40_db_down_and_the_rest_as_it_was(length, rate, low, steps):
    clip = np.random.default_rng(5).standard_normal(length).astype(np.float32)
    less = one({"op": "band_stop"}, clip, {"stop_low": low, "stop_steps": steps}, rate=rate)
    assert not less[length:].any()
    bottom, top = mel_step_hz([low, low + steps], 0, 8000)
    hz = np.arange(length // 2 + 1) * rate / length
    inside = (hz >= 1.05 * bottom) & (hz <= (0.95 * top if top < rate / 2 else np.inf))
    outside = (hz < 0.95 * bottom) | (hz > 1.05 * top)
    before, after = spectrum(clip), spectrum(less[:length])
    assert (after[inside] <= before[inside] / 100 + 1e-3).all()
    np.testing.assert_allclose(after[outside], before[outside], rtol=1e-3, atol=1e-3)
    if bottom < rate / 2:
        phase = np.fft.rfft(less[:length])[outside] / np.fft.rfft(clip)[outside]
        assert np.abs(phase.imag).max(initial=0) < 1e-3


def test_a_band_beyond_half_of_the_rate_takes_nothing():
    clip = CLIPS[0]
    assert (one({"op": "band_stop"}, clip, {"stop_low": 50, "stop_steps": 10}, rate=4000)[: len(clip)] == clip).all()


def test_a_band_stop_of_a_batch_is_that_of_each_clip_alone():
    recipe = parse_recipe([{"op": "silence", "max_seconds": 0.1}, {"op": "band_stop"}])
    keys = [(str(i), 0, 1) for i in range(24)]
    drawn = draw(recipe, seed=1, keys=keys, view=0, lengths=LENGTHS, place=PLACE)
    together = render(CLIPS, drawn, recipe, SAMPLES, sample_rate=16_000)[0]
    for row, clip in enumerate(CLIPS):
        assert torch.equal(render([clip], drawn[[row]], recipe, SAMPLES, sample_rate=16_000)[0][0], together[row])


@pytest.mark.parametrize(("samples", "rate"), [(100, 1000), (160, 1600), (256, 2560)])
def test_a_view_shorter_than_a_window_has_a_fingerprint(samples, rate):
    quiet, loud = (fingerprint(0, 0, torch.full((samples,), level), None, rate) for level in (0.01, 0.5))
    assert difference(quiet, loud)
    assert difference(loud, loud) is None
