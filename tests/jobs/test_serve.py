"""The listening page's server: who may ask, what a search finds, that one hears what the teachers heard, verdicts."""

import csv
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from starlette.testclient import TestClient

from logitstore import open_store
from logitstore.audio.clips import ClipAudio
from logitstore.audio.sources import open_audio
from logitstore.errors import UsageError
from logitstore.jobs.serve.app import Door, make_app
from logitstore.jobs.serve.index import make_index
from logitstore.jobs.serve.job import ServeOptions, serve
from logitstore.jobs.serve.listening import Listening
from logitstore.jobs.serve.search import Search
from logitstore.sql.limits import Limits
from logitstore.store.measures import entropy
from logitstore.store.verdicts import Verdicts
from logitstore.views.picture import log_mel, png
from tests.rendered import rendered_view
from tests.small_store import Spec, make_store
from tests.stores import TONES, contents, inside, options, write_audio

HOST = "127.0.0.1:8000"
TOKEN = "the-token"
REPOSITORY = Path(__file__).parent.parent.parent
HOSTILE = "<img src=x onerror=alert(1)>'\" .wav"


def door(**changes):
    return Door(**({"token": TOKEN, "port": 8000, "hosts": frozenset(["127.0.0.1", "localhost"])} | changes))


def client(listening, token=TOKEN, **changes):
    made = TestClient(make_app(listening, door(**changes)), base_url=f"http://{HOST}", raise_server_exceptions=False)
    if token:
        assert made.get(f"/?token={token}", follow_redirects=False).status_code == 303
    return made


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """A store of real audio, under a recipe that changes the samples; one name is hostile, one file no audio."""
    from logitstore.jobs.build.job import build

    root = tmp_path_factory.mktemp("serve")
    write_audio(root / "audio", 9)
    (root / "audio/a/000.wav").rename(root / "audio/a" / HOSTILE)
    (root / "audio/b/zz.wav").write_bytes(b"no audio")
    (root / "recipe.yaml").write_text("- op: roll\n- op: mixup\n  probability: 0.7\n- op: gain\n- op: time_mask\n")
    with (root / "audio/list.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "remark"])
        for number, path in enumerate(sorted(root.rglob("*.wav"))):
            table.writerow([path.relative_to(root / "audio"), f"tone {TONES[number % 8]} Hz", f"<b>{number}</b>"])
    with inside(root):
        asked = options(root, source=str(root / "audio/list.csv"), recipe="recipe.yaml", keep_members=True)
        build(asked)
    return root


@pytest.fixture
def listening(heard, tmp_path):
    store = open_store(heard / "store", audio_root=heard / "audio")
    return Listening(store, make_index(store), Verdicts(tmp_path / "verdicts.csv"), "ann")


@pytest.fixture
def page(listening):
    return client(listening)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of made-up targets of known values: 37 clips, clip 10 unreadable, views in two blocks a shard."""
    folder = tmp_path_factory.mktemp("made")
    tags = pa.array([["x", f"tag {n}"] if n % 2 else None for n in range(37)])
    return make_store(
        folder / "store", Spec(view_ranges=((0, 2), (2, 3)), spread=3.0), fold=pa.array([n % 5 for n in range(37)]),
        tags=tags,
    )  # fmt: skip


@pytest.fixture(scope="module")
def search(made):
    store = open_store(made.path)
    return client(Listening(store, make_index(store)))


def found(page, **query):
    answer = page.get("/api/search", params={"limit": 500, **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def clips(page, **query):
    return [row["clip"] for row in found(page, **query)["rows"]]


# who may ask


def test_nothing_is_answered_without_the_token(listening):
    paths = ("/", "/api/store", "/api/search", "/api/clip/0", "/audio/0/original.wav", "/picture/0/0.png",
             "/static/theme.css", "/api/verdicts", "/nothing")  # fmt: skip
    stranger = client(listening, token=None)
    for path in paths:
        assert stranger.get(path).status_code == 401, path
    for path in ("/api/verdict", "/api/undo"):
        assert stranger.post(path, json={"clip": 0, "verdict": "right"}).status_code == 401
    for wrong in ("", "the-toke", "the-token2", "é", "the-token&token=x"):
        assert stranger.get("/", params={"token": wrong}, follow_redirects=False).status_code == 401
        assert stranger.get("/api/store", headers={"cookie": f"logitstore-8000={wrong!r}".encode()}).status_code == 401
    assert stranger.get("/api/store?token=the-token").status_code == 401
    assert not listening.verdicts.file.exists()


def test_the_token_opens_the_page_by_a_cookie_that_scripts_and_other_sites_do_not_get(listening):
    answer = client(listening, token=None).get(f"/?token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert answer.headers["set-cookie"] == "logitstore-8000=the-token; HttpOnly; Path=/; SameSite=strict"


@pytest.mark.parametrize("host", ["evil.example:8000", "127.0.0.1:9000", "127.0.0.1", "127.0.0.1:8000.evil.example",
                                  "10.0.0.1:8000", "", "[::1]:8000", "127.0.0.1:8000:8000"])  # fmt: skip
def test_a_name_that_was_made_to_lead_here_is_refused(page, host):
    answer = page.get("/api/store", headers={"host": host})
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


def test_which_hosts_a_server_knows():
    everywhere = door(any_address=True)
    assert [everywhere.knows(host) for host in ("10.0.0.1:8000", "[fe80::1]:8000", "LOCALHOST:8000", "a.b:8000")] == [
        True, True, True, False,
    ]  # fmt: skip
    assert not door().knows("10.0.0.1:8000")


def test_pages_of_other_sites_and_ports_may_not_ask(page, listening):
    for headers in ({"origin": "http://127.0.0.1:9000"}, {"origin": "null"}, {"sec-fetch-site": "same-site"},
                    {"sec-fetch-site": "cross-site"}):  # fmt: skip
        assert page.get("/audio/0/original.wav", headers=headers).status_code == 401
        assert page.post("/api/verdict", json={"clip": 0, "verdict": "right"}, headers=headers).status_code == 401
    assert page.post("/api/verdict", content=b'{"clip": 0, "verdict": "right"}').status_code == 400  # a form could
    assert not listening.verdicts.file.exists()
    own = {"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}
    assert page.post("/api/verdict", json={"clip": 0, "verdict": "right"}, headers=own).status_code == 200


def test_every_answer_has_its_headers(page):
    for path in ("/", "/api/store", "/nothing", "/audio/0/original.wav", "/api/search?where=1;"):
        headers = page.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path",
    ["/static/..%2fapp.py", "/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/app.py",
     "/audio/0/..%2f..%2flist.csv", "/audio/..%2flist.csv/original.wav", "/audio/0/original.wav%00", "/audio/-1/0.wav",
     "/audio/٣/0.wav", "/audio/99/original.wav", "/audio/0/9.wav", "/picture/0/0.wav", "/audio/0/0.png",
     "/api/clip/1e1", "/api/clip/99999999999999999999", "/api/clip/-1"],
)  # fmt: skip
def test_nothing_from_outside_is_a_path(page, path):
    answer = page.get(path)
    assert (answer.status_code, list(answer.json())) == (404, ["error"])


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ("1; DROP TABLE clips", "syntax error"),
        ("1) UNION SELECT 0 FROM (SELECT 1", "syntax error|not one SQL expression"),
        ("true) --", "syntax error"),
        ("clip IN (SELECT 1 FROM read_csv('/etc/passwd'))", "read_csv"),
        ("clip IN (SELECT 1 FROM '/etc/passwd')", "there is no table"),
        ("clip IN (FROM read_text('/etc/passwd'))", "read_text"),
        ("getenv('HOME') <> ''", "getenv"),
        ("current_setting('memory_limit') <> ''", "current_setting"),
        ("clip IN (SELECT 1 FROM duckdb_settings())", "duckdb_settings"),
        ("clip IN (COPY clips TO '/tmp/x.csv')", "syntax error"),
        ("clip = $secret", "secret"),
        ("nothing = 1", "nothing"),
        ("", None),
    ],
)
def test_sql_reaches_nothing_but_the_tables(search, condition, reason):
    answer = search.get("/api/search", params={"where": condition})
    if reason is None:
        assert answer.status_code == 200
        return
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert any(part in error for part in reason.split("|")), error
    assert "\n" not in error


def test_bodies_and_queries_have_an_end(page, listening):
    huge = json.dumps({"clip": 0, "verdict": "right", "note": "x" * 100_000})
    assert page.post("/api/verdict", content=huge, headers={"content-type": "application/json"}).status_code == 413
    streamed = page.post(
        "/api/verdict", content=(b"[" * 1000 for _ in range(10_000)), headers={"content-type": "application/json"}
    )
    assert streamed.status_code == 413
    assert page.get("/api/search", params={"where": "1 = 1 AND " * 500 + "true"}).status_code == 400
    assert page.get("/api/search", params={"limit": 501}).status_code == 400
    for wrong in (b"[]", b"nonsense", b"[" * 5000, b'{"clip": "0", "verdict": "right"}',
                  b'{"clip": true, "verdict": "right"}',
                  b'{"clip": 0}', b'{"clip": 0, "verdict": "right", "more": 1}', b'{"clip": 0, "verdict": "fine"}',
                  b'{"clip": -1, "verdict": "right"}', b'{"clip": 1e400, "verdict": "right"}'):  # fmt: skip
        answer = page.post("/api/verdict", content=wrong, headers={"content-type": "application/json"})
        assert (answer.status_code, list(answer.json())) == (400, ["error"]), wrong
    assert not listening.verdicts.file.exists()


def test_a_slow_query_ends_and_hurts_no_other(made):
    store = open_store(made.path)
    listening = Listening(store, make_index(store))
    listening.search = Search(store, listening.index, listening._codes, listening._verdict_table, Limits(timeout=1.0))
    page = client(listening)
    slow = "clip IN (SELECT count(*) FROM topk a, topk b, topk c, topk d WHERE a.probability < b.probability)"
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(page.get("/api/search", params={"where": slow})))
        for _ in range(2)
    ]
    for each in threads:
        each.start()
    time.sleep(0.2)
    assert clips(page, sort="clip") == list(range(37))
    assert page.get("/api/clip/3").status_code == 200
    for each in threads:
        each.join()
    assert [answer.status_code for answer in answers] == [400, 400]
    assert all("the query was ended after 1 s" in answer.json()["error"] for answer in answers)
    assert clips(page, where="clip < 2") == [0, 1]


# what a search finds


def means(made):
    """The mean over the views of what the store holds, float64 (clips, classes), 0 for what a view does not hold."""
    dense = np.zeros((*made.classes.shape[:2], 12))
    np.put_along_axis(dense, made.classes.astype(np.int64), made.probabilities.astype(np.float64), axis=2)
    dense[~made.readable] = 0
    return dense.mean(axis=1)


def test_the_likeliest_classes_are_those_of_the_mean_over_the_views(search, made):
    mean = means(made)
    for row in found(search)["rows"]:
        clip = row["clip"]
        if clip == 10:
            assert (row["top"], row["failed"] is not None) == ([], True)
            assert all(value is None for value in row["measures"].values())
            continue
        best = np.argsort(-mean[clip], kind="stable")[:3]
        assert [name for name, _ in row["top"]] == [f"class {c}" for c in best]
        assert [share for _, share in row["top"]] == pytest.approx(mean[clip][best])
        assert row["failed"] is None


def test_a_class_finds_the_clips_that_have_it_the_likeliest_first(search, made):
    mean = means(made)
    among = np.argsort(-mean, axis=1, kind="stable")[:, :5]
    expected = [clip for clip in range(37) if 4 in among[clip] and mean[clip, 4] > 0]
    expected.sort(key=lambda clip: -mean[clip, 4])
    answer = found(search, **{"class": "class 4"})
    assert [row["clip"] for row in answer["rows"]] == expected
    assert [row["probability"] for row in answer["rows"]] == pytest.approx(mean[expected, 4])
    assert clips(search, **{"class": "class 4", "descending": 0}) == expected[::-1]
    assert clips(search, **{"class": "class 4", "sort": "clip"}) == sorted(expected)


def test_measures_sort_and_clips_without_one_come_last(search, made):
    readable = np.flatnonzero(made.readable)
    entropies = np.full(37, np.nan)
    entropies[readable] = entropy(made.probabilities[readable], "sigmoid").mean(axis=1)
    expected = readable[np.argsort(-entropies[readable], kind="stable")].tolist()
    assert clips(search, sort="entropy") == [*expected, 10]
    rising = clips(search, sort="entropy", descending=0)
    assert (rising[0], rising[-1]) == (expected[-1], 10)
    rows = found(search, sort="entropy", limit=5, offset=3)
    assert ([row["clip"] for row in rows["rows"]], rows["total"]) == (expected[3:8], 37)
    assert found(search, offset=1000)["rows"] == []
    for measure in search.get("/api/store").json()["measures"]:
        assert len(clips(search, sort=measure["name"])) == 37


@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
def test_the_measures_are_those_of_the_questions(tmp_path, scores):
    ranges = ((0, 1), (1, 3))
    made = make_store(tmp_path / "store", Spec(clips=21, keep_members=True, view_ranges=ranges, scores=scores))
    store = open_store(made.path)
    index = make_index(store)
    asked = store.sql("@measures").to_pydict()
    names = set(index.measures) - {"member_disagreement"}
    assert names <= set(asked)
    for name in names:
        np.testing.assert_allclose(index.measures[name].values[asked["clip"]], asked[name], atol=6e-4, err_msg=name)
    classes = [store.manifest.classes[number] for number in index.classes[asked["clip"], 0]]
    assert classes == asked["answer"]
    apart = store.sql("@member_measures").to_pydict()
    values = index.measures["member_disagreement"].values
    np.testing.assert_allclose(values[apart["clip"]], apart["member_disagreement"], atol=6e-5)
    assert np.flatnonzero(np.isnan(values)).tolist() == [10]


def test_conditions_text_and_questions_narrow_and_rank(search, made):
    assert clips(search, where="fold = 2 AND clip > 9") == [12, 17, 22, 27, 32]
    low = clips(search, where="entropy < (SELECT median(entropy) FROM clips)")
    assert len(low) == 18
    by_hand = np.unique(np.nonzero((made.probabilities[:, :, 0] > 0.9) & made.readable[:, None])[0]).tolist()
    asked = "clip IN (SELECT clip FROM topk WHERE rank = 1 AND probability > 0.9)"
    assert clips(search, where=asked) == by_hand
    assert clips(search, where=asked + "\n-- a comment") == by_hand
    assert clips(search, text="CLIP 000007") == [7]
    assert clips(search, text="tag 3", where="clip < 10") == [3]
    shown = [row["clip"] for row in found(search)["rows"] if "class 11" in dict(row["top"])]
    assert clips(search, text="Class 11") == shown
    store = open_store(made.path)
    ranked = [row["clip"] for row in store.sql("@uncertain_clips", {"limit": 500}).to_pylist()]
    assert clips(search, question="uncertain_clips") == ranked
    assert clips(search, question="uncertain_clips", **{"p.limit": 4}) == ranked[:4]
    assert clips(search, question="uncertain_clips", where="fold = 1") == [clip for clip in ranked if clip % 5 == 1]
    assert "mean_entropy" in found(search, question="uncertain_clips")["sql"]
    named = {each["name"]: each["usable"] for each in search.get("/api/store").json()["questions"]}
    assert named["torn"]
    assert "coverage" not in named


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"class": "siren"}, "there is no class 'siren'"),
        ({"sort": "size"}, "there is nothing called 'size' to sort by"),
        ({"question": "nothing"}, "there is no question @nothing"),
        ({"question": "torn", "p.x": "1"}, "has no parameter 'x'"),
        ({"question": "coverage"}, "no column clip"),
        ({"verdict": "fine"}, "'fine' is no verdict to search for"),
        ({"limit": "0"}, "limit is '0'; allowed are 1 to 500"),
        ({"offset": "-1"}, "offset is '-1'"),
        ({"descending": "yes"}, "descending is 'yes'; allowed are 0 and 1"),
        ({"page": "2"}, "a search takes no 'page'"),
    ],
)
def test_what_cannot_be_searched_for_is_said(search, query, reason):
    answer = search.get("/api/search", params=query)
    assert answer.status_code == 400
    assert reason in answer.json()["error"]


# what one hears and sees


def rendered(store, root, clip, view):
    """The samples of a view, by the functions that a build uses."""
    audio = ClipAudio(open_audio(str(root / "audio")), store.clips, 16_000)
    waveform, _ = rendered_view(store, audio, clip, view)
    return waveform.numpy()


def samples(answer):
    assert answer.status_code == 200
    waveform, rate = soundfile.read(io.BytesIO(answer.content), dtype="float32")
    assert rate == 16_000
    return waveform


def test_one_hears_the_very_samples_that_build_rendered(page, heard):
    store = open_store(heard / "store", audio_root=heard / "audio")
    changed = 0
    for clip in (0, 3, 8):
        original = samples(page.get(f"/audio/{clip}/original.wav"))
        np.testing.assert_array_equal(original, store[clip].waveform)
        for view in range(3):
            sound = samples(page.get(f"/audio/{clip}/{view}.wav"))
            np.testing.assert_array_equal(sound, rendered(store, heard, clip, view))
            changed += not np.array_equal(sound, original)
    assert changed > 5


def test_requests_at_the_same_time_are_answered_as_those_in_turn(listening, heard):
    paths = [f"/{kind}/{clip}/{view}.{end}" for clip in (0, 1, 2, 5) for view in (0, 2)
             for kind, end in (("audio", "wav"), ("picture", "png"))]  # fmt: skip
    paths += [f"/api/clip/{clip}" for clip in range(9)] + ["/api/search?where=clip+<+5", "/api/search?question=torn"]
    store = open_store(heard / "store", audio_root=heard / "audio")
    alone = client(Listening(store, make_index(store), listening.verdicts, "ann"))
    page = client(listening)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(page.get, paths))
    for path, answer in zip(paths, together, strict=True):
        assert answer.status_code == 200, path
        expected = alone.get(path)
        if "/api/search" in path:
            assert answer.json()["rows"] == expected.json()["rows"]
        else:
            assert answer.content == expected.content


def test_pictures_are_in_the_colours_of_the_original(page, heard):
    store = open_store(heard / "store", audio_root=heard / "audio")
    cells = log_mel(store[2].waveform, 16_000)
    assert page.get("/picture/2/original.png").content == png(cells)
    expected = png(log_mel(store[2].view(1).waveform, 16_000), float(cells.max()))
    assert page.get("/picture/2/1.png").content == expected


def test_ranges_and_what_a_browser_has_already(page):
    whole = page.get("/audio/1/0.wav")
    size, tag = len(whole.content), whole.headers["etag"]
    for asked, (first, last) in {"0-99": (0, 99), "100-": (100, size - 1), "-50": (size - 50, size - 1),
                                 f"10-{size * 2}": (10, size - 1)}.items():  # fmt: skip
        part = page.get("/audio/1/0.wav", headers={"range": f"bytes={asked}"})
        assert (part.status_code, part.content) == (206, whole.content[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
    for asked in (f"{size}-", "-0"):
        assert page.get("/audio/1/0.wav", headers={"range": f"bytes={asked}"}).status_code == 416
    for asked in ("bytes=5-1,7-9", "lines=1-2", "bytes=-"):
        assert page.get("/audio/1/0.wav", headers={"range": asked}).status_code == 200
    assert page.get("/audio/1/0.wav", headers={"range": "bytes=0-9", "if-range": '"other"'}).status_code == 200
    assert page.get("/audio/1/0.wav", headers={"if-none-match": tag}).status_code == 304
    assert page.get("/audio/1/1.wav").headers["etag"] != tag


def test_a_clip_says_all_that_is_known_of_it(page, heard):
    store = open_store(heard / "store", audio_root=heard / "audio")
    document = page.get("/api/clip/4").json()
    view, shown = store[4].view(2), document["views"][2]
    assert document["path"] == store[4].path
    assert document["columns"] == {"label": document["label"], "remark": "<b>4</b>"}
    assert [each["class"] for each in shown["classes"]] == list(view.targets.names)
    assert [each["probability"] for each in shown["classes"]] == pytest.approx(view.targets.probabilities.tolist())
    for member, values in view.members.items():
        assert [each["members"][member] for each in shown["classes"]] == pytest.approx(values.tolist())
    assert shown["parameters"] == view.parameters
    assert shown["boxes"] == [vars(box) for box in view.boxes]
    assert document["mean"][0]["class"] == found(page)["rows"][4]["top"][0][0]


def test_what_cannot_be_decoded_is_told_and_hostile_names_are_only_text(page, heard):
    rows = found(page)["rows"]
    (broken,) = (row for row in rows if row["path"].endswith("zz.wav"))
    assert broken["failed"]
    answer = page.get(f"/audio/{broken['clip']}/original.wav")
    assert (answer.status_code, list(answer.json())) == (404, ["error"])
    document = page.get(f"/api/clip/{broken['clip']}").json()
    assert (document["views"], document["failed"]) == ([], broken["failed"])
    (hostile,) = (row for row in rows if row["path"] == f"a/{HOSTILE}")
    answer = page.get("/api/search", params={"text": HOSTILE})
    assert answer.headers["content-type"] == "application/json"
    assert [row["clip"] for row in answer.json()["rows"]] == [hostile["clip"]]
    samples(page.get(f"/audio/{hostile['clip']}/0.wav"))


# verdicts


def give(page, clip, verdict, **more):
    answer = page.post("/api/verdict", json={"clip": clip, "verdict": verdict, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_verdicts_are_kept_searched_and_undone(page, listening, heard):
    said = give(page, 3, "wrong", note="a siren", label="siren")
    assert (said["verdict"]["person"], said["counts"]) == ("ann", {"right": 0, "wrong": 1, "unsure": 0})
    give(page, 4, "right")
    assert clips(page, verdict="wrong") == [3]
    assert clips(page, verdict="any") == [3, 4]
    assert 3 not in clips(page, verdict="none")
    assert clips(page, where="clip IN (SELECT clip FROM verdicts WHERE label = 'siren')") == [3]
    assert page.get("/api/clip/3").json()["verdict"]["note"] == "a siren"
    assert give(page, 4, None)["verdict"] is None
    assert clips(page, where="clip IN (SELECT clip FROM verdicts)") == [3]
    assert page.post("/api/undo", json={}).json()["verdict"]["verdict"] == "right"
    undone = [page.post("/api/undo", json={}).json() for _ in range(2)]
    assert [(each["clip"], each["verdict"]) for each in undone] == [(4, None), (3, None)]
    assert undone[-1]["counts"] == {"right": 0, "wrong": 0, "unsure": 0}
    answer = page.post("/api/undo", json={})
    assert (answer.status_code, answer.json()["error"]) == (400, "there is no verdict of ann to undo")


def test_two_people_at_two_servers_share_a_file_and_it_goes_on_after_a_restart(listening, heard):
    file = listening.verdicts.file
    other = Listening(listening.store, listening.index, Verdicts(file), "ben")
    ann, ben = client(listening), client(other)

    def judge(page, verdict):
        for clip in range(8):
            give(page, clip, verdict)

    threads = [threading.Thread(target=judge, args=each) for each in ((ann, "right"), (ben, "wrong"))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert ann.get("/api/verdicts").json()["counts"] == {"right": 8, "wrong": 0, "unsure": 0}
    assert ben.get("/api/verdicts").json()["counts"] == {"right": 0, "wrong": 8, "unsure": 0}
    assert {each["person"] for each in ann.get("/api/clip/5").json()["verdicts"]} == {"ann", "ben"}
    eve = client(Listening(listening.store, listening.index, Verdicts(file), "eve"))
    assert eve.get("/api/verdicts").json()["counts"] == {"right": 0, "wrong": 0, "unsure": 8}
    again = client(Listening(listening.store, listening.index, Verdicts(file), "ben"))
    assert again.post("/api/undo", json={}).json()["clip"] == 7
    assert found(eve, verdict="right")["rows"][0]["verdict"]["person"] == "ann"


def test_a_damaged_file_of_verdicts_is_said_and_a_page_can_do_without(listening, page, heard):
    give(page, 1, "right")
    file = listening.verdicts.file
    file.write_text(file.read_text() + "half a line")
    before = file.read_bytes()
    for answer in (page.post("/api/verdict", json={"clip": 1, "verdict": "wrong"}), page.get("/api/search")):
        assert (answer.status_code, "its last line has no end" in answer.json()["error"]) == (400, True)
    assert file.read_bytes() == before
    silent = client(Listening(listening.store, listening.index))
    assert silent.get("/api/store").json()["read_only"]
    assert "--read-only" in silent.post("/api/verdict", json={"clip": 1, "verdict": "wrong"}).json()["error"]
    assert found(silent)["rows"][1]["verdict"] is None


# the command


def test_the_session_of_the_document_serves_until_it_is_interrupted_and_uses_the_verdicts(heard, tmp_path):
    import httpx

    session = re.findall(r"^\$ (logitstore .*)$", (REPOSITORY / "docs/listening.md").read_text(), re.MULTILINE)
    shutil.copytree(heard / "store", tmp_path / "store")
    (tmp_path / "audio").symlink_to(heard / "audio")
    before = contents(tmp_path / "store")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command, *rest = session
    server = subprocess.Popen(
        shlex.split(command), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment
    )
    try:
        address = server.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        with httpx.Client(base_url=address.partition("/?")[0], timeout=30) as browser:
            assert browser.get("/api/store").status_code == 401
            assert browser.get(address).status_code == 303
            assert browser.get("/api/store").json()["clips"] == 10
            for clip, verdict, label in ((0, "wrong", "tone 800 Hz"), (1, "wrong", None), (2, "unsure", None)):
                asked = {"clip": clip, "verdict": verdict, "label": label}
                assert browser.post("/api/verdict", json=asked).status_code == 200
            assert "server" not in browser.get("/api/verdicts").headers
        server.send_signal(signal.SIGINT)
        _, told = server.communicate(timeout=30)
    finally:
        server.kill()
    assert server.returncode == 0, told
    for line in ("10 clips, 27 views; labels: label", "verdicts of ann go to ", "Ctrl-C ends the server"):
        assert line in told
    assert "Traceback" not in told
    for command in rest:
        done = subprocess.run(
            shlex.split(command), cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert " inspect " in command or " report " in command or "of 3 judged clips 2 are wrong" in done.stderr
    assert before == contents(tmp_path / "store")


def test_mistakes_are_said_before_anything_is_served(heard, tmp_path, monkeypatch):
    import socket

    asked = {"store": str(heard / "store"), "audio_root": str(heard / "audio")}
    (tmp_path / "verdicts.csv").write_text("path,label\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for more, reason in (
            ({"label_column": "lable"}, "no column 'lable', which --label-column names; did you mean 'label'"),
            ({"verdicts": str(tmp_path / "verdicts.csv")}, "is no file of verdicts that can be used: its columns are"),
            ({"port": taken.getsockname()[1]}, "cannot be listened at: Address already in use"),
            ({"host": "no.such.host.invalid"}, "'no.such.host.invalid', port 0, cannot be listened at"),
            ({"person": " "}, "a verdict needs the name of the person"),
        ):
            values = asked | {"verdicts": str(tmp_path / "new.csv")} | more
            with pytest.raises(UsageError, match=reason):
                serve(ServeOptions(**values), lambda _: pytest.fail("it serves"))
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(
        UsageError, match=r"needs the package 'uvicorn'; install it with: pip install 'logitstore\[serve\]'"
    ):
        serve(ServeOptions(**asked), lambda _: None)
