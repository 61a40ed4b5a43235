"""The build benchmark: both sides hear the same, whole processes are timed, and shares are what they are called."""

import argparse

import pytest
import soundfile

from benchmarks import build
from logitstore.models.registry import initialised
from logitstore.training.runs import save_run


@pytest.fixture
def teacher(tmp_path):
    small = {"width": 2, "mels": 16, "hop_ms": 40}
    model = initialised(lambda: build.build_model("cnn4", 24, **small), 1).eval()
    save_run(tmp_path / "teacher", "cnn4", small, [f"class {n}" for n in range(24)], "sigmoid", build.RATE, model)
    return str(tmp_path / "teacher")


def test_audio_is_of_both_kinds_and_the_same_files_again(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "DISTINCT", 2)
    for kind, rate in (("pcm", 16_000), ("ogg", 44_100)):
        build.write_audio(tmp_path / kind, 5, 0.2, kind)
        files = sorted((tmp_path / kind).iterdir())
        assert [soundfile.info(file).samplerate for file in files] == [rate] * 5
        assert files[4].read_bytes() == files[0].read_bytes() != files[1].read_bytes()


def test_a_build_and_the_bare_forward_take_turns(tmp_path, teacher):
    build.write_audio(tmp_path / "audio", 3, 0.5, "ogg")
    own = build.own_cost(tmp_path, 0.5, 2, 4)
    assert own["views"] == 6
    assert 0 < own["inside"] < own["seconds"]
    with build.Bare(tmp_path / "audio", 0.5, [teacher]) as forward:
        forward.run(0.0)
        whole = build.timed_build(tmp_path / "audio", tmp_path / "store", [teacher], 0.5, forward, (0.5, 0.3))
    assert len(forward.turns) > 1  # the first, and at least one while the build was stopped
    assert min(forward.rates) > 0
    assert forward.total("busy") > 0
    assert whole["views_made"] == 3 * build.VIEWS
    assert whole["limit"]["shares"].keys() == {"forward", "audio", "writing", "top-k", "rest"}
    assert 0 < whole["inside"] < whole["wall"]
    assert 0 < whole["ran"] <= 1


def test_memory_kept_stands_beside_memory_given_back(tmp_path, teacher, monkeypatch, capsys):
    kept = []

    class Bare(build.Bare):
        def __init__(self, source, seconds, teachers, keeps, batch_size):
            super().__init__(source, seconds, teachers, keeps, batch_size)
            kept.append((keeps, self))

    monkeypatch.setattr(build, "Bare", Bare)
    monkeypatch.setattr(build, "DISTINCT", 2)
    monkeypatch.setattr(build, "make_teachers", lambda *_: {"net": [teacher], "2 net": [teacher] * 2})
    build.memory(tmp_path, argparse.Namespace(yamnet=None, only=None, quick=True, batch_size=4))
    (_, keeps), (_, gives_back) = sorted(kept, key=lambda each: not each[0])
    assert [each for each, _ in kept] == [True, False]
    row = capsys.readouterr().out.rstrip().splitlines()[-1].strip("| ").split(" | ")
    assert [row[0], row[1], row[4]] == ["net", f"{gives_back.rates[0]:,.1f}", f"{keeps.rates[0]:,.1f}"]
    assert row[3] == f"{gives_back.turns[0]['peak']:,.0f}"
    assert row[7] == f"{keeps.rates[0] / gives_back.rates[0]:.2f}"


def test_what_a_build_stood_still_is_counted_where_it_stood_still():
    assert build._within([(0, 2), (3, 4), (9, 20)], 1, 10) == 1 + 1 + 1
    assert build._within([(0, 1)], 2, 3) == 0


def test_the_share_is_of_the_whole_process_over_the_bare_rate(tmp_path, monkeypatch, capsys):
    def timed(source, store, *_):
        store.mkdir()
        shares = {"forward": 0.9, "audio": 0.06, "writing": 0.0, "top-k": 0.0, "rest": 0.04}
        limit = {"by": "forward", "shares": shares, "stages": {"decode": 5.0}}
        return {"views_made": 1000, "wall": 12.5, "busy": 20.0, "inside": 11.0, "ran": 0.6, "limit": limit}

    class Bare(build.Bare):
        def __init__(self, *_):
            self.turns = []

        def run(self, seconds):
            views = 110 if self.turns else 270
            self.turns.append({"views": views, "seconds": 3.0 if views == 270 else 1.0, "busy": 0.018 * views})

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(build, "Bare", Bare)
    monkeypatch.setattr(build, "timed_build", timed)
    monkeypatch.setattr(build, "make_teachers", lambda *_: {"net": ["a"], "2 net": ["a", "b"]})
    asked = {"yamnet": None, "only": ["2 net"], "audio": "pcm", "quick": False, "minutes": 0.1}
    monkeypatch.setattr(build, "write_audio", lambda *_: _[0].mkdir())
    build.whole(tmp_path, argparse.Namespace(**asked))
    said = capsys.readouterr().out
    assert "| 2 net | 16-bit PCM | 1,000 | 12.5 | 80.0 | 95.0 | 0.842 | 0.957 | 0.900 |" in said
    assert "forward 79.2 %" in said
    assert "start and end 12.0 %" in said
    assert "decode 3.00;" in said
    assert "2 turns of the bare forward, 90.0 to 110.0" in said
