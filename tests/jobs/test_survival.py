"""What of teachers' answers survives a recipe: measured, told op by op, and at a bounded cost."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from logitstore.audio.clips import ClipAudio
from logitstore.audio.scan import scan
from logitstore.audio.sources import open_source
from logitstore.cli.main import cli
from logitstore.jobs.build.dry_run import dry_run
from logitstore.jobs.build.job import Progress, build, prepare
from logitstore.jobs.survival import Kept, Sample, survival
from logitstore.views.ops import Place
from logitstore.views.recipe import BUILT_IN, load_recipe, parse_recipe
from teachers.ensemble import load_ensemble
from tests.stores import options, write_audio

pytestmark = pytest.mark.usefixtures("own_folder")

RATE = 16_000
MORE = """
import torch
from tones import TONES, Tones

class Counting(Tones):
    '''Counts the views that it is asked about.'''
    asked = 0

    def forward(self, waveforms, masks=None):
        type(self).asked += len(waveforms)
        return super().forward(waveforms, masks)

class Late(Tones):
    '''Fails on the view that it was never told that it would hear: one without a mask, of a recipe that has masks.'''
    def forward(self, waveforms, masks):
        if len(waveforms) >= 4 and not (masks.time_end + masks.freq_high).any():
            raise RuntimeError("no masks")
        return super().forward(waveforms, masks)

class Loudest(torch.nn.Module):
    '''The share of each tone in the loudness of all.'''
    classes, sample_rate, scores = Tones.classes, 16_000, "softmax"

    def forward(self, waveforms):
        samples = waveforms.shape[1]
        level = torch.fft.rfft(waveforms).abs()[:, torch.tensor(TONES) * samples // self.sample_rate]
        return level / level.sum(dim=1, keepdim=True)
"""


@pytest.fixture
def root(tmp_path):
    write_audio(tmp_path / "audio", 12)
    options(tmp_path)
    (tmp_path / "more.py").write_text(MORE)
    return tmp_path


def sampled(root, recipe, *, shard_clips=8, **more):
    place = Place(2 * RATE, RATE, shard_clips)
    source = open_source(str(root / "audio"), None)
    table = scan(source, clip_seconds=2.0)
    return Sample.of(recipe.fitted(place), place, table, ClipAudio(source, table, RATE), seed=3, **more)


def measured(root, recipe, *specs, **more):
    ensemble = load_ensemble(specs or ["python:tones:plain"], sample_rate=RATE)
    return survival(ensemble, sampled(root, recipe, **more), batch_size=5)


def test_nothing_changes_where_the_ops_do_nothing(root):
    still = parse_recipe([{"op": "roll", "probability": 0.0}, {"op": "gain", "min_db": 0, "max_db": 0}])
    found = measured(root, still, "python:tones:plain", "python:tones:steep")
    assert [each.teacher for each in found.teachers] == ["python:tones:plain", "python:tones:steep", "ensemble"]
    for each in found.teachers:
        assert each.ops.keys() == {"roll", "gain"}
        for kept in (each.recipe, *each.ops.values()):
            assert kept == Kept(1.0, pytest.approx(0.0, abs=1e-12))
    assert found.warnings() == []
    assert (found.clips, found.views) == (12, 24)


@pytest.mark.parametrize("name", ["roll", "band_stop", "gain"])
def test_an_op_alone_has_the_draws_that_it_has_in_the_recipe(root, name):
    def recipe(acting):
        ops = [{"op": "roll"}, {"op": "gain", "min_db": -30, "max_db": -10}, {"op": "band_stop", "max_steps": 60}]
        return parse_recipe([op if op["op"] in acting else op | {"probability": 0.0} for op in ops])

    every = measured(root, recipe(("roll", "gain", "band_stop")), views=36).teachers[0]
    alone = measured(root, recipe((name,)), views=36).teachers[0]
    assert every.ops[name] == alone.recipe
    assert every.recipe != alone.recipe


def test_what_a_view_keeps_is_told_of_the_clip_that_it_is_of(root):
    """By hand: the answers to the clips, and to the views as they are rendered one by one."""
    recipe = load_recipe("ced")
    sample = sampled(root, recipe, views=24)
    teacher = load_ensemble(["python:tones:plain"], sample_rate=RATE)
    top, apart = [], []
    for position, clip in enumerate(sample.clips.tolist()):
        own = np.zeros(2 * RATE, np.float32)
        sound = sample.audio[clip]
        own[: len(sound)] = sound
        clean = teacher.probabilities(torch.from_numpy(own)[None], None)
        view = sample.views(slice(position, position + 1))
        said = teacher.probabilities(view.waveforms, view.masks)
        top.append(int(clean.argmax()) == int(said.argmax()))
        p, q = (each[0].double().clamp(1e-7, 1 - 1e-7).numpy() for each in (clean, said))
        apart.append(float((p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).sum()))
    found = measured(root, recipe, views=24).teachers[0].recipe
    assert 0 < sum(top) < len(top)
    assert found.top == pytest.approx(np.mean(top))
    assert found.kl == pytest.approx(np.mean(apart), rel=1e-4)


def test_a_partner_is_left_out_of_the_recipe_and_told_alone(root):
    mixed = [{"op": "mixup", "probability": 1.0, "min_weight": 0.9, "max_weight": 0.95}]
    found = measured(root, parse_recipe([*mixed, {"op": "gain"}]), "python:more:Loudest", shard_clips=4)
    (teacher,) = found.teachers
    assert teacher.recipe.top == teacher.ops["gain"].top == 1.0
    assert teacher.ops["mixup"].top < 0.6
    assert found.warnings() == []
    assert found.lines()[-1].startswith("mixup mixes in another clip by intent, so the top class may rightly change")


def test_too_little_that_survives_is_warned_of_with_the_op_to_leave_out(root):
    harsh = parse_recipe([{"op": "roll"}, {"op": "band_stop", "max_steps": 64}], "harsh")
    found = measured(root, harsh, "python:tones:plain", "python:tones:deaf", views=48)
    low, deaf, _ = found.teachers
    assert low.recipe.top < 0.6
    assert deaf.recipe.top == 1.0
    told = found.warnings()
    assert told[0].startswith("teacher 'python:tones:plain' keeps its top class in 0.")
    assert "under band_stop alone, which costs most" in told[0]
    assert "use --recipe gentle, or a YAML file without band_stop" in told[0]
    assert all("deaf" not in line for line in told)
    gentle = replace(found, recipe="gentle")
    assert "--recipe" not in gentle.warnings()[0]


def test_clips_that_cannot_be_decoded_are_passed_over(root):
    files = sorted((root / "audio").rglob("*.wav"))
    for file in files[:-1]:
        file.write_bytes(file.read_bytes()[:60])
    found = measured(root, load_recipe("gentle"), clips=4, views=6)
    assert (found.clips, found.views) == (1, 6)
    files[-1].write_text("no audio")
    assert sampled(root, load_recipe("gentle")) is None


def test_gentle_is_heard_by_every_teacher_and_silences_what_wave_does(root):
    place = Place(2 * RATE, RATE, 8)
    gentle, wave = BUILT_IN["gentle"].fitted(place), BUILT_IN["wave"].fitted(place)
    assert gentle.spectrogram_ops == ()
    one, other = (sampled(root, recipe).draws.columns for recipe in (gentle, wave))
    for column in ("roll", "silence_start", "silence_length"):
        np.testing.assert_array_equal(one[column], other[column])
    assert build(options(root, recipe="gentle", teachers=["python:tones:deaf"])).survival.recipe == "gentle"


@pytest.mark.parametrize(("views", "clips", "most"), [(2, 6, 8), (40, 12, 16)])
def test_a_build_asks_no_more_than_a_batch_or_a_fiftieth_of_its_views(root, views, clips, most):
    import more

    for file in sorted((root / "audio").rglob("*.wav"))[clips:]:
        file.unlink()
    asked = []
    for recipe in ("none", "ced"):
        more.Counting.asked = 0
        of = {"teachers": ["python:more:Counting"], "recipe": recipe, "out": str(root / recipe)}
        summary = build(options(root, views=views, batch_size=8, **of))
        asked.append(more.Counting.asked)
        assert (summary.survival is None) == (recipe == "none")
    assert summary.made_views == views * clips
    assert 0 < asked[1] - asked[0] <= most + 3 * 8  # op by op where it keeps too little
    more.Counting.asked = 0
    assert build(options(root, views=views, batch_size=8, **of)).survival is None  # nothing was made
    assert more.Counting.asked == 0


def test_a_teacher_that_fails_on_clean_clips_does_not_fail_a_build(root):
    notes = []
    summary = build(options(root, teachers=["python:more:Late"], recipe="ced"), Progress(note=notes.append))
    assert summary.stored_views == 36
    assert summary.survival is None
    assert any(
        note.startswith("what survives recipe 'ced' cannot be told: teacher 'python:more:Late'") for note in notes
    )


def test_a_dry_run_shows_it(root):
    plan = dry_run(prepare(options(root)))
    assert (plan.survival.clips, plan.survival.recipe) == (12, "ced")
    lines = plan.render().splitlines()
    at = next(
        number for number, line in enumerate(lines) if line.startswith("survival   share of 24 views of 12 clips")
    )
    assert lines[at + 1].split() == ["ced", "roll", "time_mask", "frequency_mask"]
    assert [line.split()[0] for line in lines[at + 2 : at + 5]] == [*options(root).teachers, "ensemble"]
    assert plan.to_dict()["dry_run"] == plan.lines
    assert dry_run(prepare(options(root, recipe="none"))).survival is None


def program(*arguments):
    done = CliRunner().invoke(cli, [str(each) for each in arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_build_ends_with_it(root):
    (root / "harsh.yaml").write_text("- {op: band_stop, max_steps: 64}\n")
    given = ("build", "audio", "--teacher", "python:tones:plain", "--recipe", "harsh.yaml", "--views", 2,
             "--clip-seconds", 2, "--device", "cpu", "--out")  # fmt: skip
    said = program(*given, "one")
    assert "\nsurvival   share of 12 views of 12 clips that keep the clip's top class" in said
    assert "\nwarning    teacher 'python:tones:plain' keeps its top class in 0." in said
    told = json.loads(program(*given, "two", "--json"))["survival"]
    assert told["recipe"] == "harsh"
    (teacher,) = told["teachers"]
    assert teacher["ops"]["band_stop"] == teacher["recipe"]
    assert teacher["recipe"].keys() == {"top", "kl"}
