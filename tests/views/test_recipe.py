from dataclasses import fields

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from logitstore.errors import RecipeError, UsageError
from logitstore.views.ops import OPS, Place, hz_to_mel, mel_step_hz, mel_to_hz
from logitstore.views.recipe import (
    BUILT_IN,
    CED,
    NONE,
    Draws,
    Recipe,
    clip_key,
    draw,
    fitting,
    load_recipe,
    masks,
    parse_recipe,
)

PLACE = Place(clip_samples=160_000, sample_rate=16_000, shard_clips=64)
EVERYTHING = parse_recipe(
    [{"op": "roll"}, {"op": "gain"}, {"op": "mixup"}, {"op": "noise"}, {"op": "time_mask"}, {"op": "frequency_mask"}],
    "everything",
)


def keys_of(count: int, salt: str = "") -> list[tuple[str, int, int]]:
    return [(f"{salt}clip-{i}.wav", i * 100, 441_000) for i in range(count)]


def draws_of(recipe: Recipe, count: int, view: int = 0, seed: int = 0) -> Draws:
    lengths = np.full(count, 160_000)
    return draw(recipe, seed=seed, keys=keys_of(count), view=view, lengths=lengths, place=PLACE, shard_rows=count)


def test_ced_is_the_default_of_the_paper():
    assert CED.columns == ("roll", "time_start", "time_length", "freq_low", "freq_steps")
    drawn = draws_of(CED, 20_000).columns
    rolled = drawn["roll"][drawn["roll"] != 0]
    assert 0.48 < len(rolled) / 20_000 < 0.52
    assert rolled.min() >= -80_000
    assert rolled.max() <= 80_000
    assert abs(rolled.mean()) < 1500
    assert (drawn["time_length"].min(), drawn["time_length"].max()) == (0, 191)
    assert (drawn["freq_steps"].min(), drawn["freq_steps"].max()) == (0, 23)
    assert (drawn["time_start"] + drawn["time_length"]).max() <= 1000
    assert (drawn["freq_low"] + drawn["freq_steps"]).max() == 64


@given(
    seed=st.integers(0, 2**64 - 1),
    view=st.integers(0, 1000),
    chosen=st.lists(st.integers(0, 63), min_size=1, max_size=20),
)
def test_a_draw_depends_on_seed_key_view_and_op_alone(seed, view, chosen):
    lengths = np.full(64, 160_000)
    whole = draw(
        EVERYTHING, seed=seed, keys=keys_of(64), view=view, lengths=lengths, place=PLACE, shard_rows=64
    )  # fmt: skip
    rows = np.array(chosen)
    some = draw(
        EVERYTHING,
        seed=seed,
        keys=[keys_of(64)[row] for row in chosen],
        view=np.full(len(chosen), view),
        lengths=lengths[rows],
        place=PLACE,
        rows=rows,
        shard_rows=64,
    )
    for name in EVERYTHING.columns:
        np.testing.assert_array_equal(some.columns[name], whole.columns[name][rows])


def test_seed_view_key_and_position_each_change_a_draw():
    base = draws_of(CED, 200).columns["time_start"]
    assert (draws_of(CED, 200, seed=1).columns["time_start"] != base).mean() > 0.9
    assert (draws_of(CED, 200, view=1).columns["time_start"] != base).mean() > 0.9
    other = draw(CED, seed=0, keys=keys_of(200, "x"), view=0, lengths=np.full(200, 160_000), place=PLACE)
    assert (other.columns["time_start"] != base).mean() > 0.9
    moved = draws_of(parse_recipe([{"op": "time_mask"}]), 200)
    assert (moved.columns["time_start"] != base).mean() > 0.9


def test_draws_are_pinned():
    # a golden: these integers are in stores, so no release may change them
    drawn = draw(EVERYTHING, seed=7, keys=[("a/b.wav", 0, 5), ("ä.ogg", 9, 441_000)], view=3,
                 lengths=np.array([5, 160_000]), place=PLACE, shard_rows=64)  # fmt: skip
    assert {name: values.tolist() for name, values in drawn.columns.items()} == PINNED


PINNED = {
    "roll": [-1, -53597],
    "gain_cdb": [-116, 189],
    "mixup_partner": [45, 0],
    "mixup_weight": [354, 130],
    "noise_snr_cdb": [0, 0],
    "noise_key": [0, 0],
    "time_start": [221, 423],
    "time_length": [68, 117],
    "freq_low": [31, 26],
    "freq_steps": [8, 7],
}


def test_every_draw_lies_in_its_range():
    ranges = EVERYTHING.ranges(PLACE)
    assert set(ranges) == set(EVERYTHING.columns)
    for name, values in draws_of(EVERYTHING, 64).columns.items():
        low, high = ranges[name]
        assert low <= values.min()
        assert values.max() < high


def test_a_mixup_partner_is_never_the_clip_itself():
    recipe = parse_recipe([{"op": "mixup", "probability": 1, "min_weight": 0.1}])
    for count in (2, 3, 50):
        drawn = draws_of(recipe, count).columns
        assert (drawn["mixup_partner"] != np.arange(count)).all()
        assert drawn["mixup_partner"].max() < count
    alone = draws_of(recipe, 1).columns
    assert (alone["mixup_weight"], alone["mixup_partner"]) == (0, 0)


def test_masks_are_seconds_and_hz():
    drawn = Draws({
        "roll": np.array([0, 5]),
        "time_start": np.array([100, 0]), "time_length": np.array([50, 0]),
        "freq_low": np.array([32, 0]), "freq_steps": np.array([32, 0]),
    })  # fmt: skip
    spans = masks(CED, drawn)
    assert (spans.time_start[0], spans.time_end[0]) == (1.0, 1.5)
    assert spans.freq_low[0] == pytest.approx(mel_to_hz(hz_to_mel(8000) / 2))
    assert spans.freq_high[0] == pytest.approx(8000)
    assert spans.time_start[1] == spans.time_end[1]
    assert spans.freq_low[1] == spans.freq_high[1]
    assert masks(NONE, Draws({})) is None
    assert mel_step_hz(0, 0, 8000) == 0


def test_a_recipe_survives_its_document():
    for recipe in (CED, *BUILT_IN.values(), EVERYTHING):
        assert parse_recipe(yaml.safe_load(yaml.safe_dump(recipe.to_dict()))) == recipe
        for op in recipe.ops:
            given = {field.name for field in fields(op) if getattr(op, field.name) is not None}
            assert set(op.to_dict()) == {"op", *given}


def test_a_file_is_a_recipe(tmp_path):
    file = tmp_path / "strong.yaml"
    file.write_text("- op: roll\n  max_fraction: 0.25\n- op: frequency_mask\n  max_steps: 40\n")
    recipe = load_recipe(str(file))
    assert recipe.name == "strong"
    assert recipe.ops == (OPS["roll"](max_fraction=0.25), OPS["frequency_mask"](max_steps=40))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- op: reverb", f"unknown op 'reverb'; allowed are {', '.join(sorted(OPS))}"),
        ("- op: gain\n  min_db: 6\n  max_db: -6", "upside down, min_db 6 is above max_db -6"),
        ("- op: frequency_mask\n  min_hz: 8000\n  max_hz: 100", "upside down"),
        ("- op: gain\n  db: 6", "no parameter 'db'; allowed are probability, min_db, max_db"),
        ("- op: gain\n  min_db: loud", "gain.min_db is 'loud'; it must be a number"),
        ("- op: frequency_mask\n  max_steps: 2.5", "must be a whole number"),
        ("- op: roll\n  probability: 1.5", r"probability is 1.5; allowed is \[0, 1\]"),
        ("- op: time_mask\n  max_seconds: 1.925", "multiple of 0.01 s"),
        ("- op: roll\n- op: roll", "occurs twice"),
        ("- op: time_mask\n- op: roll", "waveform ops come first"),
        ("- roll", "not of the form"),
        ("roll: 1", "no list `ops`"),
        ("ops: []\nextra: 1", "unknown key 'extra'"),
        ("- op: [", "not readable YAML"),
    ],
)
def test_a_bad_recipe_is_refused_in_one_line(tmp_path, text, message):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(str(file))
    assert "\n" not in str(caught.value)


def test_a_missing_recipe_names_the_built_in_ones():
    with pytest.raises(RecipeError, match="no recipe 'cde': give a YAML file or one of ced, gentle, none, wave"):
        load_recipe("cde")


def test_a_mask_longer_than_a_view_is_refused():
    with pytest.raises(RecipeError, match="longer than a view of 1 s"):
        CED.check(Place(16_000, 16_000))


def test_a_seed_out_of_range_is_refused():
    with pytest.raises(UsageError, match="seed -1 is out of range"):
        draws_of(CED, 1, seed=-1)


def test_a_clip_key_holds_path_start_and_length():
    assert len({clip_key("a", 0, 1), clip_key("b", 0, 1), clip_key("a", 1, 1), clip_key("a", 0, 2)}) == 4


def test_at_10_s_the_recipe_ced_is_the_published_one():
    fitted = load_recipe("ced").fitted(PLACE)
    assert fitted == CED
    assert fitted.to_dict()["ops"][1] == {"op": "time_mask", "probability": 1.0, "max_seconds": 1.92}


@pytest.mark.parametrize("name", sorted(BUILT_IN))
@pytest.mark.parametrize("seconds", [0.1, 0.11, 0.5, 1, 3.7, 9.99, 10, 60, 3600])
@pytest.mark.parametrize("rate", [1000, 16_000, 22_050, 48_000])
def test_a_built_in_recipe_fits_views_of_any_length(name, seconds, rate):
    place = Place(round(seconds * rate), rate, 8)
    recipe = load_recipe(name).fitted(place)
    recipe.check(place)
    assert parse_recipe(recipe.to_dict()) == recipe.unshared() == recipe  # nothing is left that depends on the length
    lengths = np.full(500, place.clip_samples)
    drawn = draw(recipe, seed=1, keys=keys_of(500), view=0, lengths=lengths, place=place)
    drawn_before = draw(load_recipe(name), seed=1, keys=keys_of(500), view=0, lengths=lengths, place=place)
    for column, (low, high) in recipe.ranges(place).items():
        assert drawn.columns[column].tolist() == drawn_before.columns[column].tolist()
        assert low <= drawn.columns[column].min()
        assert drawn.columns[column].max() < high
        assert len(set(drawn.columns[column].tolist())) > 1
    if name != "none":
        longest = next(op for op in recipe.ops if hasattr(op, "max_seconds")).max_seconds
        assert longest == pytest.approx(min(1.92, 0.192 * seconds), abs=0.0051)


@pytest.mark.parametrize(
    ("text", "seconds", "longest"),
    [
        ("- op: time_mask\n  max_share: 0.5", 30, 15),
        ("- op: silence\n  max_share: 0.5\n  max_seconds: 2", 30, 2),
        ("- op: silence\n  max_share: 0.5\n  max_seconds: 2", 3, 1.5),
        ("- op: time_mask\n  max_share: 1", 0.1, 0.1),
        ("- op: time_mask\n  max_share: 0.001", 0.1, 0.01),
    ],
)
def test_a_file_may_bound_a_span_by_a_share_of_the_view(tmp_path, text, seconds, longest):
    (tmp_path / "own.yaml").write_text(text)
    fitted = load_recipe(str(tmp_path / "own.yaml")).fitted(Place(round(seconds * 16_000), 16_000))
    assert fitted.ops[0].max_seconds == longest
    assert "max_share" not in fitted.to_dict()["ops"][0]


@pytest.mark.parametrize("share", ["0", "-0.1", "1.01"])
def test_a_share_is_a_share(tmp_path, share):
    (tmp_path / "own.yaml").write_text(f"- op: time_mask\n  max_share: {share}")
    with pytest.raises(RecipeError, match=r"max_share is .*; (allowed is \(0, 1\]|it must be a number)"):
        load_recipe(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("seconds", [1, 10])
def test_wave_hides_what_ced_hides(seconds):
    place = Place(seconds * 16_000, 16_000)
    heard = {"lengths": np.full(300, place.clip_samples), "place": place, "keys": keys_of(300), "view": 3, "seed": 9}
    ced = draw(fitting(True), **heard).columns
    wave = draw(fitting(False), **heard).columns
    assert (wave["roll"] == ced["roll"]).all()
    for one, other in (("silence_start", "time_start"), ("silence_length", "time_length")):
        assert (wave[one] == ced[other]).all()
    for one, other in (("stop_low", "freq_low"), ("stop_steps", "freq_steps")):
        assert (wave[one] == ced[other]).all()
    assert masks(fitting(False), draw(fitting(False), **heard)) is None
