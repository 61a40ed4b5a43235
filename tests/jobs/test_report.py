"""The report: what the page says is what the store holds, of stores of every kind; what a store says is only text."""

from __future__ import annotations

import json
import re
import shlex
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from logitstore import open_store, report
from logitstore.cli.main import cli
from logitstore.errors import MissingExtraError, OutputError, RunError, UsageError
from logitstore.jobs.report import draws as draws_part
from logitstore.jobs.report import members as members_part
from logitstore.jobs.report.charts import histogram, lines, ticks
from logitstore.jobs.report.job import parts
from logitstore.jobs.report.runs import read_run
from logitstore.jobs.report.views import jensen_shannon, ranges
from logitstore.store.measures import entropy
from logitstore.views.ops import Place
from logitstore.views.recipe import BUILT_IN, CED, NONE, parse_recipe
from tests.small_store import Spec, make_store
from tests.stores import inside, options, write_audio

HOSTILE = "</style></script><script>window.ran=1</script><img src=x onerror=window.ran=1>\"'&{{7*7}}\x1b[31m\u202e"


class Page(HTMLParser):
    """Tables by their name, as (columns, rows); a cell is a number where it says one. ``sections`` by name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: dict[str, tuple[list[str], list[list[object]]]] = {}
        self.sections: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self._cell: list[str] | None = None
        self._value: str | None = None
        self.html = path.read_text("utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        said = dict(attrs)
        self.tags.add(tag)
        assert not any(name.startswith("on") for name in said), said
        if tag == "section":
            self.sections.append(said["id"])
        if tag == "table":
            self._columns, self._rows = [], []
            self.tables[said["aria-label"]] = (self._columns, self._rows)
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th"):
            self._cell, self._value = [], said.get("data-v")

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._cell is not None:
            text = "".join(self._cell)
            self._rows[-1].append(text if self._value is None else float(self._value))
            self._cell = None
        if tag == "thead":
            self._columns += self._rows.pop()

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell.append(data)

    def column(self, table: str, column: str) -> list[object]:
        columns, rows = self.tables[table]
        return [row[columns.index(column)] for row in rows]

    def by(self, table: str, column: str) -> dict[object, object]:
        """A column by the first one."""
        return dict(zip(self.column(table, self.tables[table][0][0]), self.column(table, column), strict=True))


def page_of(folder: Path, **asked) -> Page:
    found = report(store=str(folder), out=str(folder.parent / "page.html"), **asked)
    assert found.bytes == (folder.parent / "page.html").stat().st_size
    made = Page(folder.parent / "page.html")
    assert list(found.sections) == made.sections
    assert not made.tags & {"iframe", "object", "link rel=stylesheet", "form", "base"}
    assert not re.search(r"(src|href)=[\"']?(https?:)?//", made.html)
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    return make_store(root / "store", Spec(keep_members=True))


@pytest.fixture(scope="module")
def page(made):
    return page_of(made.path)


def test_the_counts_of_classes_are_those_that_numpy_counts(made, page):
    kept = made.readable
    classes, p = made.classes[kept], made.probabilities[kept].astype(np.float64)
    dense = np.zeros((*classes.shape[:2], len(made.names)))
    np.put_along_axis(dense, classes.astype(int), p, axis=2)
    means = dense.mean(axis=1)
    own = means.argmax(axis=1)
    at = [made.names.index(name) for name in page.column("Classes", "class")]
    assert page.column("Classes", "own answer of clips") == np.bincount(own, minlength=12)[at].tolist()
    assert page.column("Classes", "clips") == np.count_nonzero(means, axis=0)[at].tolist()
    views = np.bincount(classes.reshape(-1), minlength=12)
    assert page.column("Classes", "views") == views[at].tolist()
    assert (
        page.column("Classes", "first in views") == np.bincount(classes[..., 0].reshape(-1), minlength=12)[at].tolist()
    )
    total = np.bincount(classes.reshape(-1), p.reshape(-1), minlength=12)
    assert page.column("Classes", "mean p") == pytest.approx((total[at] / views[at]).tolist())
    assert page.column("Classes", "highest p") == pytest.approx(dense.max(axis=(0, 1))[at].tolist())
    seconds = np.bincount(own, minlength=12)  # of one second each
    assert page.column("Classes", "hours") == pytest.approx((seconds[at] / 3600).tolist())
    first = classes[..., 0]
    share = (first == own[:, None]).mean()
    assert f"in {share:.1%} of {first.size:,} views the first class is the clip's own answer" in page.text


def test_the_same_counts_as_the_questions_that_ship_with_the_tool(made, page):
    store = open_store(made.path)

    def told(question, value):
        return {row["class"]: row[value] for row in store.sql(question).to_pylist()}

    assert page.by("Classes", "views") == told("@classes", "views")
    assert page.by("Classes", "clips") == told("@classes", "clips")
    assert page.by("Classes", "first in views") == told("@classes", "first")
    assert page.by("Classes", "own answer of clips") == told("@hours", "clips")
    assert page.by("Classes", "hours") == pytest.approx(told("@hours", "hours"), abs=1e-4)
    apart = told("@member_disagreement", "disagreement")
    assert page.by("Disagreement by class", "divergence, nats") == pytest.approx(apart, abs=1e-5)
    kept = store.sql("@survival").to_pylist()[0]["kept"]
    assert f"in {kept:.1%} of 108 views" in page.text
    tail = {row["k"]: row["last"] for row in store.sql("@topk_tail").to_pylist()}
    assert page.by("By rank", "mean p") == pytest.approx(tail, abs=1e-5)


def test_softmax_members_are_as_far_apart_as_sql_says(tmp_path):
    made = make_store(tmp_path / "store", Spec(scores="softmax", keep_members=True))
    apart = open_store(made.path).sql("@member_disagreement").to_pylist()
    page = page_of(made.path)
    found = page.by("Disagreement by class", "divergence, nats")
    assert found == pytest.approx({row["class"]: row["disagreement"] for row in apart}, abs=1e-5)


def test_the_cut_at_k(made, page):
    p = made.probabilities[made.readable].astype(np.float64).reshape(-1, 5)
    assert page.column("By rank", "mean p") == pytest.approx(p.mean(axis=0).tolist())
    assert page.column("By rank", "kept by this k") == pytest.approx(
        (p.mean(axis=0).cumsum() / p.mean(axis=0).sum()).tolist()
    )
    assert page.column("By rank", "p ≥ 0.1") == pytest.approx((p >= 0.1).mean(axis=0).tolist())


def test_the_divergence_of_members(made, page):
    said = made.members[:, made.readable].astype(np.float64)  # (M, N, V, k)

    def h(p):
        return -(p * np.log(p) + (1 - p) * np.log(1 - p))

    terms = h(said.mean(axis=0)) - h(said).mean(axis=0)
    classes = made.classes[made.readable].reshape(-1)
    views = np.bincount(classes, minlength=12)
    expected = np.bincount(classes, terms.reshape(-1), minlength=12) / np.maximum(views, 1)
    for name, value in page.by("Disagreement by class", "divergence, nats").items():
        assert value == pytest.approx(expected[made.names.index(name)], abs=1e-9)
    total = terms.sum(axis=2).mean()
    assert page.by("Values of Divergence by pair, nats a view", "net #2")["net"] == pytest.approx(total)
    same = (said[0].argmax(axis=2) == said[1].argmax(axis=2)).mean()
    assert page.by("Values of Same first class, by pair", "net #2")["net"] == pytest.approx(same)


class _Views(SimpleNamespace):
    def __len__(self) -> int:
        return len(self.classes)


def test_divergences_of_views_are_told_apart_however_many_classes_are_kept(monkeypatch):
    shown = {}
    monkeypatch.setattr(members_part, "histogram", lambda title, says, edges, used, *rest, **more: shown.update(
        edges=edges, used=used))  # fmt: skip
    spread = np.linspace(0.02, 0.3, 200)
    k = 128
    manifest = SimpleNamespace(
        topk=k, keep_members=True, teachers=[SimpleNamespace(weight=0.5, name=name) for name in "ab"]
    )
    monkeypatch.setattr(members_part, "member_names", lambda manifest: ["a", "b"])
    part = members_part.Members(
        SimpleNamespace(summary=SimpleNamespace(manifest=manifest), classes=[str(at) for at in range(k)], softmax=False)
    )
    said = np.full((2, 200, k), 0.5, np.float32)
    part.see(_Views(
        members=said, disagreement=np.repeat(spread[:, None] / k, k, axis=1), scores="sigmoid",
        classes=np.tile(np.arange(k), (200, 1)), used=np.ones((200, k), bool),
    ))  # fmt: skip
    part.section()
    assert np.count_nonzero(shown["used"]) > 20
    assert shown["used"].sum() == 200
    middles = (shown["edges"][:-1] + shown["edges"][1:]) / 2
    assert float((middles * shown["used"]).sum() / 200) == pytest.approx(spread.mean(), abs=0.01)


def test_members_that_do_not_know_a_class_are_left_out_of_it():
    said = np.array([[[0.2, 0.9]], [[0.4, np.nan]], [[np.nan, np.nan]]], np.float32)
    found = jensen_shannon(said, (0.5, 0.3, 0.2), "sigmoid")[0]
    alone = jensen_shannon(said[:2, :, :1], (0.5, 0.3), "sigmoid")[0]
    assert found[0] == pytest.approx(alone[0])
    assert found[0] > 0
    assert found[1] == 0


def test_survival_by_strength_counts_every_view_once_for_every_op(made, page):
    drawn = made.draws["time_length"][made.readable].reshape(-1)
    columns, rows = page.tables["By op, and how much it did"]
    assert columns == ["op", "how much it did", "views", "keep the answer"]
    for op in ("roll", "time_mask", "frequency_mask"):
        assert sum(row[2] for row in rows if row[0] == op) == drawn.size
    assert sum(row[2] for row in rows if row[:2] == ["roll", "nothing"]) == np.count_nonzero(
        made.draws["roll"][made.readable] == 0
    )


def test_draws_against_their_ranges(made, page):
    for name, (low, high) in CED.ranges(Place(32_000, 16_000, 8)).items():
        values = made.draws[name][made.readable]
        assert page.by("Draws, as they are stored", "may be from")[name] == low
        assert page.by("Draws, as they are stored", "to")[name] == high - 1
        assert page.by("Draws, as they are stored", "lowest")[name] == values.min()
        assert page.by("Draws, as they are stored", "highest")[name] == values.max()
        assert page.by("Draws, as they are stored", "mean")[name] == pytest.approx(values.mean())
        assert page.by("Draws, as they are stored", "out of range")[name] == 0


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name != "none"])
def test_the_axis_of_a_draw_holds_all_that_its_op_draws(tmp_path, name):
    made = make_store(
        tmp_path / "store", Spec(clips=40, shard_clips=40, recipe=BUILT_IN[name].fitted(Place(32_000, 16_000)))
    )
    manifest = open_store(made.path).manifest
    for op in manifest.recipe.ops:
        ends = draws_part.extremes(op, manifest)
        own = {column: values[made.readable].reshape(-1) for column, values in made.draws.items()}
        for column in op.sql_columns():
            shown = np.asarray(column.values(own), np.float64)
            low, high = np.min(column.values(ends)), np.max(column.values(ends))
            assert low <= shown.min()
            assert shown.max() <= high


def test_the_bytes_add_up_to_the_store(made, page):
    assert sum(page.column("Bytes by part", "bytes")) == open_store(made.path).size()
    assert {"classes", "values", "draws", "members", "commits", "clip table"} <= set(
        page.column("Bytes by part", "part")
    )


def test_the_oddest_clips_are_those_of_the_highest_entropy(made, page):
    mean = entropy(made.probabilities[made.readable], "sigmoid").mean(axis=1)
    clips = np.flatnonzero(made.readable)[np.argsort(-mean, kind="stable")][:10]
    assert page.column("Least certain", "clip") == clips.tolist()
    assert page.column("Least certain", "entropy, nats") == pytest.approx(np.sort(mean)[::-1][:10].tolist())
    assert page.column("Least certain", "path") == [f"folder/clip {clip:06d}.wav" for clip in clips]
    assert "give --audio-root DIR" in page.text


def test_failures_are_named(page):
    assert page.tables["Reasons"][1] == [["not audio", 1.0, 10.0]]
    assert page.column("Clips that failed", "path") == ["folder/clip 000010.wav"]


KINDS = {
    "no members": Spec(),
    "softmax": Spec(scores="softmax"),
    "one view": Spec(view_ranges=((0, 1),)),
    "recipe none": Spec(recipe=NONE),
    "all classes": Spec(topk=12),
    "k of 1": Spec(topk=1),
    "unfinished": Spec(skip_blocks=("000001-0-3", "000004-0-3")),
    "views in two blocks, one missing": Spec(view_ranges=((0, 2), (2, 5)), skip_blocks=("000002-2-5",)),
    "every clip failed": Spec(clips=8, failed=tuple(range(8))),
    "one clip": Spec(clips=1, failed=()),
    "mixup and noise": Spec(
        recipe=parse_recipe({"ops": [{"op": "roll"}, {"op": "noise"}, {"op": "mixup", "probability": 0.5}]})
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_stores_of_every_kind(tmp_path, kind):
    made = make_store(tmp_path / "store", KINDS[kind])
    page = page_of(made.path)
    assert page.sections[:3] == ["store", "sizes", "coverage"]
    assert "nan" not in re.sub(r"[a-z]*nan[a-z]+|[a-z]+nan", "", page.html.lower())
    store = open_store(made.path)
    held = sum(len(views) for views in ranges(store))
    assert held == store.view_count() == sum(page.column("Classes", "first in views"))
    if kind == "unfinished":
        assert "3 of 5 shards are finished" in page.text
    if kind == "one view":
        assert "what survives cannot be told from the store" in page.text
    if kind == "every clip failed":
        assert "certainty" not in page.sections
    if kind == "softmax":
        left = 1 - made.probabilities[made.readable].sum(axis=2, dtype=np.float64)
        assert f"Mean {left.mean():.3g} of a view's sum of 1." in page.text


def test_views_come_by_clip_and_in_bounded_ranges(tmp_path, monkeypatch):
    made = make_store(tmp_path / "store", Spec(view_ranges=((0, 2), (2, 4)), keep_members=True))
    monkeypatch.setattr("logitstore.jobs.report.views._MOST_CELLS", 40)
    seen = list(ranges(open_store(made.path)))
    assert max(views.clips for views in seen) == 2
    clips = np.concatenate([views.first + views.clip for views in seen])
    numbers = np.concatenate([views.view for views in seen])
    assert clips.tolist() == np.repeat(np.flatnonzero(made.readable), 4).tolist()
    for name, values in (("classes", made.classes), ("probabilities", made.probabilities)):
        assert np.array_equal(np.concatenate([getattr(views, name) for views in seen]), values[clips, numbers])
    assert np.array_equal(np.concatenate([views.members for views in seen], axis=1), made.members[:, clips, numbers])
    for name, values in made.draws.items():
        assert np.array_equal(np.concatenate([views.draws[name] for views in seen]), values[clips, numbers])


def test_several_stores_are_read_as_one(tmp_path):
    first = make_store(tmp_path / "a", Spec(clips=13, failed=(3,)))
    second = make_store(tmp_path / "b", Spec(clips=9, failed=(), seed=5))
    page = page_of(first.path, also=[str(second.path)])
    both = np.concatenate([first.classes[first.readable], second.classes[second.readable]])
    expected = np.bincount(both[..., 0].reshape(-1), minlength=12)
    for name, number in page.by("Classes", "first in views").items():
        assert number == expected[first.names.index(name)]


def test_what_a_store_says_is_only_text(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tests.small_store.names_of", lambda spec: (HOSTILE, *(f"c {n}" for n in range(11))), raising=True
    )
    path = HOSTILE.replace("{", "{{").replace("}", "}}") + "{}"
    spec = Spec(clips=16, failed=(3,), keep_members=True, path=path, reason=HOSTILE)
    made = make_store(tmp_path / "store", spec, **{HOSTILE: pa.array([HOSTILE] * 16)})
    page = page_of(made.path)
    assert page.html.count("<script>") == 1
    assert page.html.count("<style>") == 1
    assert "<img" not in page.html
    assert "49" not in "".join(str(name) for name in page.column("Classes", "class"))
    assert "\x1b" not in page.html
    assert "\u202e" not in page.html
    assert any(
        "<script>window.ran=1</script>" in str(name) for name in page.column("Classes", "class")
    )  # shown as text


def test_the_policy_of_the_page_allows_its_own_style_and_script_alone(page):
    import base64
    import hashlib

    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page.html)
    said = policy.replace("&#39;", "'")
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.html, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}'" in said
    assert said.startswith("default-src 'none'; img-src data:;")
    assert " style=" not in page.html


# runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs of tiny students: one with epochs, held-out loss and agreement, one of steps alone."""
    from logitstore.models.registry import build
    from logitstore.training.runs import save_run

    root = tmp_path_factory.mktemp("runs")
    agreed = {
        "views": 8,
        "clips": 4,
        "classes": 3,
        "top1": 0.625,
        "top5": 1.0,
        "kl": 0.25,
        "mAP": None,
        "decided": 0,
        "ece": 0.125,
        "by_class": [{"name": HOSTILE, "views": 4, "average_precision": 0.5, "mean_a": 0.5, "mean_b": 0.25}],
        "worst": [{"path": HOSTILE, "second": 0.0, "view": 1, "kl": 1.5, "a": ["x", 0.9], "b": ["y", 0.8]}],
    }
    for name, width, extra in (("wide", 3, {"agreement": agreed}), ("narrow", 1, {})):
        model = build("cnn4", 3, width=width, mels=16)
        save_run(
            root / name,
            "cnn4",
            {"width": width, "mels": 16},
            ["x", "y", "z"],
            "sigmoid",
            16_000,
            model,
            {"result": {"steps": 6, "seconds": 30.0, "clips_per_second": 12.5, "loss": 0.5}} | extra,
        )
        steps = [{"event": "step", "step": n, "epoch": n // 3, "lr": 0.01, "loss": 1 / (n + 1)} for n in range(6)]
        epochs = [
            {"event": "epoch", "step": 3 * n + 3, "epoch": n, "loss": 0.6 - n / 10, "held_out_loss": 0.7 - n / 5}
            for n in range(2)
        ]
        log = steps + (epochs if extra else [])
        (root / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return root


def test_runs_side_by_side(made, runs, tmp_path):
    found = report(
        store=str(made.path), runs=[str(runs / "wide"), str(runs / "narrow")], out=str(tmp_path / "page.html")
    )
    page = Page(tmp_path / "page.html")
    assert page.sections[-3:] == ["runs", "learning", "agreement"]
    assert found.runs == 2
    for name in ("wide", "narrow"):
        model = read_run(str(runs / name))
        assert page.by("Runs", "parameters")[name] == model.parameters > 0
        assert page.by("Runs", "million MACs")[name] == pytest.approx(model.macs / 1e6)
        assert page.by("Runs", "clips/s here")[name] > 0
        assert page.by("Runs", "trained, min")[name] == 0.5
    assert page.by("Values of Training loss", "wide")[3.0] == pytest.approx(0.6)
    assert page.by("Values of Training loss", "narrow")[5.0] == pytest.approx(1 / 6)
    assert page.by("Values of Held out loss", "wide") == {3.0: 0.7, 6.0: pytest.approx(0.5)}
    assert page.by("Held-out clips", "same first class") == {"wide": 0.625}
    assert page.by("Held-out clips", "mAP") == {"wide": "–"}
    assert "narrow held no clips out" in page.text
    assert page.html.count("<script>") == 1


def test_a_log_of_any_length_is_thinned(runs, tmp_path):
    import shutil

    shutil.copytree(runs / "narrow", tmp_path / "long")
    records = ({"event": "step", "step": n, "loss": 1.0, "lr": 0.1} for n in range(9000))
    (tmp_path / "long" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    run = read_run(str(tmp_path / "long"))
    assert 1000 < len(run.steps) <= 2001
    assert run.steps[0]["step"] == 0
    assert run.steps[-1]["step"] > 8900


def test_a_folder_that_is_no_run_is_refused(made, runs, tmp_path):
    for wrong in (str(tmp_path), str(tmp_path / "nowhere"), str(made.path)):
        with pytest.raises(RunError, match="run folder"):
            report(store=str(made.path), runs=[wrong], out=str(tmp_path / "page.html"))
    import shutil

    shutil.copytree(runs / "narrow", tmp_path / "damaged")
    (tmp_path / "damaged" / "log.jsonl").write_text('{"event": "step", "step": 0}\nno JSON\n')
    with pytest.raises(RunError, match=r"line 2 of log\.jsonl is no record"):
        report(store=str(made.path), runs=[str(tmp_path / "damaged")], out=str(tmp_path / "page.html"))
    assert not (tmp_path / "page.html").exists()


# with audio and teachers


def test_with_audio_there_are_pictures_and_with_teachers_the_ops_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("logitstore.jobs.report.odd._PICTURED", 2)
    from logitstore.jobs.build.job import build

    with inside(tmp_path):
        write_audio(tmp_path / "audio", 12)
        build(options(tmp_path, recipe="ced", keep_members=True))
        (tmp_path / "audio" / "a" / "000.wav").write_bytes(b"gone")
        page = page_of(
            tmp_path / "store",
            audio_root=str(tmp_path / "audio"),
            device="cpu",
            teachers=["python:tones:plain", "python:tones:steep"],
        )
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page.html)
    assert len(pictures) >= 9
    assert len(pictures) % 3 == 0
    assert any("masked: " in alt for _, alt in pictures)
    assert page.html.count('class="mask"') >= 4
    import base64

    assert all(base64.b64decode(data).startswith(b"\x89PNG") for data, _ in pictures)
    assert "cannot be decoded now" in page.text
    (title,) = [name for name in page.tables if name.startswith("Measured")]
    assert "teachers asked again" in title
    assert page.column(title, "teacher") == ["python:tones:plain", "python:tones:steep", "ensemble"]
    assert all(0 <= share <= 1 for share in page.column(title, "roll: keep"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"none of the \d clips to draw can be decoded from --audio-root"):
        report(store=str(tmp_path / "store"), audio_root=str(tmp_path / "empty"), out=str(tmp_path / "none.html"))
    assert not (tmp_path / "none.html").exists()


def test_the_session_of_the_page_about_reports_runs(made, runs, tmp_path, monkeypatch):
    from tests.test_docs import sessions

    write_audio(tmp_path / "audio", 2, seconds=2.0)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "student").symlink_to(runs / "wide")
    (tmp_path / "store").symlink_to(make_store(tmp_path / "made", Spec(clips=2, failed=(), path="a/{:03d}.wav")).path)
    (tmp_path / "audio" / "b" / "001.wav").rename(tmp_path / "audio" / "a" / "001.wav")
    monkeypatch.chdir(tmp_path)
    ran = [command for command, _ in sessions("docs/report.md")]
    assert len(ran) == 2
    for command in ran:
        program, *words = shlex.split(command)
        assert program == "logitstore"
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.output
    assert "data:image/png" in (tmp_path / "report.html").read_text()


# the command


def test_the_command_says_what_it_wrote(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = CliRunner().invoke(cli, ["report", str(made.path), "-o", "page.html", "--json"])
    document = json.loads(said.stdout)
    assert document["path"] == "page.html"
    assert document["bytes"] == (tmp_path / "page.html").stat().st_size
    assert document["views"] == 36 * 3
    assert "store" in document["sections"]
    assert (document["command"], document["exit_code"], document["error"]) == ("report", 0, None)
    plain = CliRunner().invoke(cli, ["report", str(made.path)])
    assert plain.exit_code == 0
    assert "report     report.html" in plain.stdout
    assert "next" in plain.stderr


def test_mistakes_are_named(made, tmp_path, monkeypatch):
    with pytest.raises(OutputError, match="is a folder"):
        report(store=str(made.path), out=str(tmp_path))
    with pytest.raises(OutputError, match="no folder"):
        report(store=str(made.path), out=str(tmp_path / "nowhere" / "page.html"))
    with pytest.raises(UsageError, match="give --audio-root too"):
        report(store=str(made.path), teachers=["runs/teacher"], out=str(tmp_path / "page.html"))
    for package, name in (("jinja2", "jinja2"), ("PIL", "pillow")):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"{name}.*logitstore\[report\]"):
            report(store=str(made.path), out=str(tmp_path / "page.html"))
        monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_parts_of_the_page_are_the_files_that_say_so():
    names = [part.__module__.rpartition(".")[2] for part in parts()]
    assert names == [
        "holds",
        "sizes",
        "coverage",
        "certainty",
        "cut",
        "members",
        "survival",
        "draws",
        "odd",
        "failures",
        "cost",
        "learning",
        "agreement",
    ]


def test_ticks_are_round_and_within():
    assert ticks(0, 1, 5) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(3, 97, 4) == [25, 50, 75]
    assert ticks(-0.02, 0.013, 4) == [-0.02, -0.01, 0, 0.01]


def test_charts_of_nothing_and_of_what_is_not_finite():
    empty = histogram("t", "s", np.linspace(0, 1, 5), np.zeros(4, int), "x")
    assert "<rect" not in empty.svg
    assert empty.values.rows == []
    odd = lines("t", "s", [("a<b", np.array([0, 1, 2]), np.array([1.0, np.nan, np.inf]))], "x", "y", log=True)
    assert "nan" not in odd.svg
    assert "inf" not in odd.svg
    assert "a&lt;b" in odd.svg
    assert odd.values.rows == [[0.0, 1.0]]
