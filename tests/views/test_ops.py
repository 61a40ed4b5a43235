"""Ops own themselves: each is one file, and one that another package brings is known everywhere."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from logitstore import open_store
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.errors import RecipeError
from logitstore.jobs.build.job import build
from logitstore.jobs.verify.job import VerifyOptions, verify
from logitstore.views.ops import OPS, Clips, Op, Place, Words
from logitstore.views.ops.time_mask import TimeMask
from logitstore.views.philox import philox4x32
from logitstore.views.recipe import Recipe, load_recipe
from tests.rendered import compared, rendered_view
from tests.stores import options, write_audio

PLACE = Place(32_000, 16_000, 8)
BUILT_IN = ("band_stop", "frequency_mask", "gain", "mixup", "noise", "roll", "silence", "time_mask")


@pytest.mark.parametrize("name", BUILT_IN)
def test_an_op_is_one_documented_file(name):
    kind = OPS[name]
    assert kind.__module__ == f"logitstore.views.ops.{name}"
    op = kind()
    assert kind.__doc__
    specification = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
    assert all(f"`{column}`" in specification for column in op.columns)
    assert all(op.columns.values())
    shown = op.sql_columns()
    assert shown
    assert all(column.doc for column in shown)
    clips = Clips(np.array([32_000, 5]), np.arange(2), 2, PLACE)
    drawn = op.draw(Words(*philox4x32((np.arange(2), 0, 0, 0), (1, 2))), clips)
    assert tuple(drawn) == tuple(op.columns) == tuple(op.ranges(PLACE)) == tuple(op.imported_ranges(PLACE))
    assert not any(wrong.any() for wrong in op.impossible(drawn, np.arange(2), 2, PLACE).values())
    assert [len(column.values(drawn)) for column in shown] == [2] * len(shown)


POLARITY = '''
"""Polarity: the clip upside down."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from logitstore.views.ops.base import SqlColumn, WaveformOp


@dataclass(frozen=True, kw_only=True)
class Polarity(WaveformOp):
    """The clip upside down, with a probability."""

    name: ClassVar[str] = "polarity"
    columns: ClassVar[dict[str, str]] = {"polarity": "1 where the clip is upside down, else 0"}

    probability: float = 0.5

    def ranges(self, place):
        return {"polarity": (0, 2)}

    def draw(self, words, clips):
        return {"polarity": self._acts(words).astype(np.int64)}

    def apply(self, waveforms, lengths, draws, partners, sample_rate):
        for position, turned in enumerate(draws["polarity"].tolist()):
            if turned:
                waveforms[position] = -waveforms[position]

    def sql_columns(self):
        return (SqlColumn("upside_down", "whether the clip is upside down", lambda draws: draws["polarity"] == 1),)
'''


@pytest.fixture
def polarity(tmp_path, monkeypatch):
    """An installed package that brings one op, in one module."""
    package = tmp_path / "site"
    (package / "polarity-1.0.dist-info").mkdir(parents=True)
    (package / "polarity_op.py").write_text(POLARITY)
    (package / "polarity-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: polarity\nVersion: 1.0\n"
    )
    (package / "polarity-1.0.dist-info" / "entry_points.txt").write_text("[logitstore.ops]\npolarity = polarity_op\n")
    monkeypatch.syspath_prepend(str(package))
    yield
    OPS.pop("polarity", None)
    __import__("sys").modules.pop("polarity_op", None)


@pytest.mark.usefixtures("own_folder", "polarity")
def test_an_op_of_another_package_is_known_to_recipe_store_sql_and_replay(tmp_path):
    write_audio(tmp_path / "audio", 12)
    (tmp_path / "turned.yaml").write_text("- op: polarity\n- op: time_mask\n  max_seconds: 0.5\n")
    recipe = load_recipe(str(tmp_path / "turned.yaml"))
    assert recipe.columns == ("polarity", "time_start", "time_length")
    build(options(tmp_path, recipe="turned.yaml"))
    OPS.pop("polarity")  # as in a process that opens the store: found again from the recipe in its manifest
    __import__("sys").modules.pop("polarity_op")
    store = open_store(tmp_path / "store")
    assert [column.name for column in store.manifest.columns] == ["polarity", "time_start", "time_length"]
    turned = store.draws(1).columns["polarity"]
    assert 0 < turned.sum() < 12
    shown = store.sql("SELECT upside_down, time_start_ms FROM views WHERE view = 1 ORDER BY clip")
    assert shown["upside_down"].to_pylist() == (turned == 1).tolist()
    clips = ClipAudio(open_audio(str(tmp_path / "audio")), store.clips, 16_000)
    for clip in range(12):
        waveform = rendered_view(store, clips, clip, 1)[0].numpy()
        own = clips[clip]
        assert (waveform[: len(own)] == (-own if turned[clip] else own)).all()
    assert compared(store, clips, 10) == (4, [])
    checked = verify(VerifyOptions(store=str(tmp_path / "store"), audio_root=str(tmp_path / "audio")))
    assert checked.problems == ()


@pytest.mark.usefixtures("polarity")
def test_an_unknown_op_names_those_of_other_packages_too(tmp_path):
    (tmp_path / "recipe.yaml").write_text("- op: reverb\n")
    with pytest.raises(
        RecipeError, match=r"unknown op 'reverb'; allowed are .*, noise, polarity, roll, silence, time_mask"
    ):
        load_recipe(str(tmp_path / "recipe.yaml"))


def test_two_ops_of_one_name_are_refused():
    with pytest.raises(RecipeError, match=r"two ops are named 'gain': logitstore\.views\.ops\.gain\.Gain and .*Louder"):

        @dataclass(frozen=True, kw_only=True)
        class Louder(Op):
            name = "gain"

    assert OPS["gain"].__name__ == "Gain"


def test_two_masks_of_one_axis_are_refused():
    @dataclass(frozen=True, kw_only=True)
    class Pause(TimeMask):
        name = "pause"
        columns = {"pause_start": "as of a time mask", "pause_length": "likewise"}  # noqa: RUF012

    try:
        with pytest.raises(RecipeError, match="the ops 'time_mask' and 'pause' both mask time; keep one"):
            Recipe("both", (TimeMask(), Pause()))
    finally:
        OPS.pop("pause")
