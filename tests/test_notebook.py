"""What objects show in a notebook: whole in itself, escaped, readable, with the very samples in the player."""

from __future__ import annotations

import base64
import io
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from logitstore import notebook, open_store
from logitstore.evaluation.agreement import Place, agree
from logitstore.jobs.build.job import build
from logitstore.jobs.tag import Tagged, Window
from logitstore.store.reader import Store
from logitstore.views.recipe import BUILT_IN
from tests.stores import inside, options, write_audio

HOSTILE = "<script>alert(1)</script>\"'>\x1b[2J"
VOID = {"image", "rect", "path", "line", "polyline", "br", "img"}


class _Checked(HTMLParser):
    """Every element that is opened is closed; nothing is a script, a handler, or from elsewhere."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.links: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "style", "link", "iframe")
        self.seen.add(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href"):
                assert value is not None
                assert value.startswith("data:")
                self.links.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("notebook")
    write_audio(root / "audio", 4)
    with inside(root):
        build(options(root, recipe=BUILT_IN["ced"], clip_seconds=1.0, keep_members=True))
    return open_store(root / "store", audio_root=root / "audio")


def test_a_view_plays_the_very_samples_and_shows_its_masks(heard):
    pytest.importorskip("PIL")
    view = next(view for clip in heard for number in clip.views if len((view := clip.view(number)).boxes) == 2)
    page = _Checked(view._repr_html_())
    sound, picture = page.links
    samples, rate = soundfile.read(
        io.BytesIO(base64.b64decode(sound.removeprefix("data:audio/wav;base64,"))), dtype="float32"
    )
    assert rate == 16_000
    np.testing.assert_array_equal(samples, view.waveform)
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    html = view._repr_html_()
    (time,) = (box for box in view.boxes if box.kind == "time")
    assert f'<rect x="{54 + time.left * 600:.1f}" y="8.0" width="{time.width * 600:.1f}" height="150.0"' in html
    assert f"hidden: {time.start:.4g} to {time.stop:.4g} s" in html
    assert [name in html for name in view.members] == [True, True]


def test_a_clip_and_a_store_show_themselves(heard):
    page = _Checked(heard[1]._repr_html_())
    assert page.links[0].startswith("data:audio/wav")
    html = heard._repr_html_()
    assert "svg" in _Checked(html).seen
    assert f"{heard.location}</div>" in html
    assert "views keep their clip&#x27;s own answer" in html


def test_what_cannot_be_heard_or_drawn_says_what_to_do(heard, monkeypatch, tmp_path):
    assert "store.with_audio(FOLDER)" in open_store(heard.location)[0].view(0)._repr_html_()
    (tmp_path / "a").mkdir()
    lost = heard.with_audio(tmp_path)[0]
    assert "it cannot be heard: " in lost._repr_html_()
    monkeypatch.setitem(sys.modules, "PIL", None)
    html = heard[0].view(0)._repr_html_()
    assert "audio/wav" in html
    assert "logitstore[report]" in html


def test_everything_is_escaped():
    parts = [
        notebook.card(HOSTILE, notebook.facts([(HOSTILE, HOSTILE)])),
        notebook.table((HOSTILE, "n"), [(HOSTILE, 1)]),
        notebook.bars([(HOSTILE, 2.0, [HOSTILE])], (HOSTILE, "", "")),
        notebook.player(b"RIFF", HOSTILE),
        notebook.picture(b"png", HOSTILE, [(0.1, 0.2, 0.3, 0.4)], [(0.5, HOSTILE)], [(0.5, HOSTILE)]),
        notebook.curve([(0.0, 1.0), (1.0, 0.5)], HOSTILE, unit=HOSTILE),
        notebook.histogram([1, 0, 3], HOSTILE, HOSTILE, HOSTILE),
        notebook.beside((HOSTILE, "")),
        Tagged(HOSTILE, 2.0, 16_000, [Window(0, 2, ((HOSTILE, 0.5), ("b", 0.1)))], HOSTILE)._repr_html_(),
    ]
    for part in parts:
        _Checked(part)
        assert "\x1b" not in part
        assert "<script" not in part


def test_a_bar_is_no_longer_than_its_place_and_sound_no_larger_than_a_notebook():
    assert "width:100.0%" in notebook.bars([("a", 7.0, [])])
    assert "width:0.0%" in notebook.bars([("a", -1.0, [])])
    assert "too much for a notebook" in notebook.player(bytes(notebook.MOST_SOUND + 1), "long")


def test_hatching_stays_within_its_box():
    for x, y, width, height in ((10.0, 5.0, 100.0, 20.0), (0.0, 0.0, 3.0, 150.0), (5.0, 5.0, 50.0, 50.0)):
        path = re.search(
            r'path d="([^"]*)"', notebook.picture(b"", "", [(x / 600, y / 150, width / 600, height / 150)])
        )
        numbers = np.array(re.findall(r"[-\d.]+", path[1]), float).reshape(-1, 2) - (54, 8)
        assert (numbers[:, 0] >= x - 0.1).all()
        assert (numbers[:, 0] <= x + width + 0.1).all()
        assert (numbers[:, 1] >= y - 0.1).all()
        assert (numbers[:, 1] <= y + height + 0.1).all()


def test_a_comparison_shows_itself_in_a_line_and_in_a_page():
    from logitstore.jobs.compare import Comparison, Side

    a = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    said = agree(a, a[::-1], [HOSTILE, "b"], [Place(HOSTILE, 0.0), Place("y", 1.0, 2)])
    side = Side(spec="runs/a", classes=2, store=False, parameters=10_000, macs=None, views_per_second=3.0)
    found = Comparison(a=side, b=side, agreement=said, heard="2 views", seconds=1.0, device="cpu")
    assert repr(found).startswith("<Comparison of runs/a with runs/a: top-1 0.000, KL ")
    html = found._repr_html_()
    _Checked(html)
    assert "10,000" in html


def test_runs_show_their_learning_curves(tmp_path):
    from logitstore.models.registry import build as build_model
    from logitstore.training.loop import FitResult
    from logitstore.training.runs import load_run, save_run
    from logitstore.training.train import Trained

    args = {"width": 2, "mels": 16}
    model = build_model("cnn4", 2, **args)
    save_run(tmp_path / "run", "cnn4", args, ["a", HOSTILE.replace("\x1b", "")], "sigmoid", 16_000, model)
    run = load_run(tmp_path / "run")
    assert repr(run) == f"<Run {tmp_path / 'run'}: cnn4, 2 classes, sigmoid, 16,000 Hz>"
    assert "polyline" not in run._repr_html_()
    records = ['{"event": "step", "step": 0, "loss": 2.0}']
    records += [f'{{"event": "epoch", "epoch": {epoch}, "step": 1, "loss": {1 / (epoch + 1)}}}' for epoch in range(3)]
    (tmp_path / "run" / "log.jsonl").write_text("\n".join([*records, "not json", '{"event": "epoch", "loss": []}']))
    trained = Trained(str(tmp_path / "run"), "cnn4", 1234, FitResult(3, 3, 1.0, 2.0, 0.3), notes=("held <b>",))
    for html in (run._repr_html_(), trained._repr_html_()):
        _Checked(html)
        assert "loss, 1.0000 to 0.3333" in html
    assert "1,234 parameters" in trained._repr_html_()
    _Checked(model._repr_html_())


def test_an_evaluation_shows_itself(heard: Store):
    from logitstore.evaluation.metrics import measure
    from logitstore.evaluation.results import Evaluation

    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], np.float32)
    labels = np.array([[1, 0], [0, 1], [0, 1]], bool)
    found = Evaluation(
        members=(("runs/<a>", measure(labels, scores)),), ensemble=None, stored=None, classes=(HOSTILE, "b"), rows=3,
        clips=3, clip_seconds=1.0, sample_rate=16_000, failures=(),
    )  # fmt: skip
    assert repr(found).startswith("<Evaluation on 3 rows, 2 classes: runs/<a> mAP 1.0000")
    html = found._repr_html_()
    _Checked(html)
    assert "runs/&lt;a&gt;" in html
    assert Path(heard.location).name in repr(heard)
