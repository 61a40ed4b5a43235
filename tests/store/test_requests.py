"""Requests to object stores: how many there are, and that a refused, broken or lost one costs nothing but time.

Between the code and a real S3 API on loopback stands a server that refuses, cuts connections and loses answers.
"""

import random
import threading
import time

import boto3
import pytest

from logitstore.errors import StoreError
from logitstore.jobs.build.job import build
from logitstore.jobs.build.sizes import build_requests, verify_requests
from logitstore.jobs.status import status
from logitstore.jobs.verify.job import VerifyOptions, verify
from logitstore.store import claims, cloud, requests
from logitstore.store.storage import open_storage
from tests.s3 import objects, s3_server
from tests.store.faulty import Fault, faulty
from tests.stores import contents, inside, options, write_audio

NUMBERS = iter(range(1000))


@pytest.fixture(scope="module")
def server():
    """The server in between; the environment names it."""
    with s3_server() as url, faulty(url) as between, pytest.MonkeyPatch.context() as patch:
        boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="logits")
        patch.setenv("AWS_ENDPOINT_URL", between.url)
        yield between


@pytest.fixture
def url(server, monkeypatch):
    """Where no store is yet; waits are short."""
    monkeypatch.setattr(cloud, "_SECONDS", 0.0002)
    monkeypatch.setattr(cloud, "_BUSY_SECONDS", 0.002)
    monkeypatch.setattr(cloud, "_pause", cloud._Pause())
    server.faults.clear()
    server.asked.clear()
    server.moments.clear()
    return f"s3://logits/{next(NUMBERS)}"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """20 clips, and the store that an undisturbed build makes of them in a folder."""
    folder = tmp_path_factory.mktemp("requests")
    write_audio(folder / "audio", 20, seconds=0.3)
    with inside(folder):
        build(few(folder))
        yield folder


def few(folder, **changes):
    return options(folder, clip_seconds=0.3, **changes)


def asked(server):
    """What the server was asked, in the words of :class:`requests.Requests`; obstore deletes by POST."""
    kinds = {"gets": "GET", "puts": "PUT", "listings": "LIST", "heads": "HEAD", "deletes": "POST"}
    return {name: server.asked[kind] for name, kind in kinds.items()}


def counted(made):
    return {name: count for name, count in made.to_dict().items() if name not in ("total", "again")}


# sent again


def replaced(storage):
    storage.create("a/x", b"first")
    return storage.replace("a/x", b"second", b"first"), storage.get("a/x")


ACTS = {
    "GET": (lambda storage: storage.get("a/there"), b"there"),
    "PUT": (lambda storage: (storage.put("a/x", b"1"), storage.get("a/x"))[1], b"1"),
    "create": (lambda storage: (storage.create("a/x", b"1"), storage.get("a/x")), (True, b"1")),
    "create over another's": (lambda storage: (storage.create("a/there", b"1"), storage.get("a/there")),
                              (False, b"there")),
    "replace": (replaced, (True, b"second")),
    "LIST": (lambda storage: list(storage.names("a")), ["a/there"]),
    "POST": (lambda storage: (storage.delete("a/there"), list(storage.names("a")))[1], []),
    "HEAD": (lambda storage: storage.size("a/there"), 5),
}  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
def test_what_is_refused_cut_off_or_lost_is_sent_again(server, url, act):
    do, expected = ACTS[act]
    kind = act if act.isupper() else "PUT"
    storage = open_storage(url)
    conflicts = ["409"] if act in ("create", "replace") else []
    for what in ("503", "429", "500", "cut", "lost", *conflicts, *(["half"] if kind == "GET" else [])):
        storage.put("a/there", b"there")
        storage.delete("a/x")
        before = requests.sent()
        server.asked.clear()
        server.faults[:] = [Fault(kind, what, times=2)]
        assert do(storage) == expected, what
        assert server.faults[0].times == 0, what
        made = requests.since(before)
        assert counted(made) == asked(server), what
        assert made.again == 2, what


def test_a_server_that_stays_busy_or_broken_ends_in_one_line_after_a_bounded_number_of_tries(server, url):
    storage = open_storage(url)
    storage.put("a", b"")
    for what, said in (("503", "is too busy to write x"), ("500", "is out of order"), ("cut", "no answer")):
        server.faults[:] = [Fault("PUT", what, times=100)]
        for put in (storage.put, storage.create):
            server.asked.clear()
            with pytest.raises(StoreError, match=rf"{said}.*10 tries in .*every committed block is intact") as caught:
                put("x", b"")
            assert "\n" not in str(caught.value)
            assert server.asked["PUT"] == cloud.TRIES == 10
    server.asked.clear()
    server.faults[:] = [Fault("GET", "404"), Fault("GET", "501", times=100)]
    for _ in range(2):  # which no waiting mends
        with pytest.raises((FileNotFoundError, StoreError)):
            storage.get("a")
    assert server.asked["GET"] == 2


def test_a_server_that_has_never_answered_is_not_asked_for_long(server, url):
    server.faults[:] = [Fault("GET", "cut", times=100)]
    with pytest.raises(StoreError, match=r"no answer.*4 tries"):
        open_storage(url).get("a")


def test_credentials_that_do_not_come_for_once_are_asked_for_again_by_one_who_had_some(server, url, monkeypatch):
    monkeypatch.setattr(cloud.time, "sleep", lambda _: None)
    storage, tries = open_storage(url), []
    text = "error sending request for url (http://169.254.169.254/latest/api/token), kind: Connect"

    def send():
        tries.append(0)
        raise storage._errors.BaseError(text)

    for said, most in (("no credentials for", 2), ("no answer at http://169.254.169.254", 10)):
        tries.clear()
        with pytest.raises(StoreError, match=said):
            storage._sent("gets", "read", "a", send)
        assert len(tries) == most
        storage.put("a", b"")  # it has answered
    text = "no answer for meta-data/x, kind: Connect"  # an object's name
    with pytest.raises(StoreError, match="no answer"):
        open_storage(url)._sent("gets", "read", "meta-data/x", send)


def test_all_requests_wait_while_a_server_asks_to_slow_down(server, url, monkeypatch):
    monkeypatch.setattr(cloud, "_BUSY_SECONDS", 0.6)
    storage = open_storage(url)
    names = [f"a/{number:02d}" for number in range(40)]
    storage.put("a/there", b"")
    server.moments.clear()
    server.faults[:] = [Fault("PUT", "503", name="a/20")]
    storage.put_many(dict.fromkeys(names, b"1"))
    refused = next(moment for moment, _, name in server.moments if name.endswith("a/20"))
    under_way = cloud.REQUESTS  # those that were sent before the answer came
    later = sorted(moment for moment, _, _ in server.moments if moment > refused)[under_way:]
    assert later
    assert min(later) - refused >= 0.3  # half of what it begins with, at least
    assert list(storage.names("a")) == [*names, "a/there"]


def test_waits_double_and_are_drawn_at_random(server, url, monkeypatch):
    waits = []
    monkeypatch.setattr(cloud, "_SECONDS", 1.0)
    monkeypatch.setattr(cloud.time, "sleep", waits.append)
    storage = open_storage(url)
    storage.put("a", b"")
    server.faults[:] = [Fault("PUT", "500", times=9)]
    storage.put("a", b"")
    assert len(waits) == 9
    bounds = [min(cloud._MOST_SECONDS, 2.0**number) for number in range(9)]
    assert all(bound / 2 <= wait <= bound for bound, wait in zip(bounds, waits, strict=True))
    shares = [wait / bound for bound, wait in zip(bounds, waits, strict=True)]
    assert max(shares) - min(shares) > 0.01


# a lost answer is not a lost block


@pytest.mark.parametrize("seed", range(2))
def test_a_build_over_a_bad_line_is_the_undisturbed_one(template, server, url, seed, monkeypatch):
    chance = random.Random(seed)
    what = ("503", "429", "500", "cut", "lost", "lost")
    monkeypatch.setattr(server, "line", lambda: chance.choice(what) if chance.random() < 0.3 else "")
    summary = build(few(template, out=url))
    assert summary.made_views == 60
    assert summary.requests.again > 5
    monkeypatch.undo()
    assert objects(url) == contents(template / "store")


def test_a_block_whose_answers_are_lost_is_written_once(template, server, url):
    written = ("claims/", "commits/", "clips/", "zarr.json", "packed/")
    server.faults[:] = [*(Fault("PUT", "lost", name, times=3) for name in written), Fault("POST", "lost", times=2)]
    assert build(few(template, out=url)).made_views == 60
    assert [fault.times for fault in server.faults] == [0] * 6
    assert objects(url) == contents(template / "store")


def test_a_claim_whose_removal_got_no_answer_is_not_removed_twice(server, url, monkeypatch):
    storage = open_storage(url)
    other = b'{"host":"elsewhere","pid":1,"token":"other","expires":%d}' % (time.time() + 60)
    with claims.Claimer(storage) as claimer:
        assert claimer.take(3)
        server.faults[:] = [Fault("POST", "lost")]
        sure = claimer._sure

        def looked(name):
            if not server.faults[0].times:
                assert storage.create(name, other)  # at this very moment
            return sure(name)

        monkeypatch.setattr(claimer, "_sure", looked)
        claimer.drop(3)
        assert server.asked["POST"] == 1
    assert storage.get("claims/000003.json") == other


def test_a_claim_that_a_busy_server_does_not_remove_costs_time_and_no_build(server, url, caplog):
    storage = open_storage(url)
    with claims.Claimer(storage) as claimer:
        for shard, times in ((1, 6), (2, 100), (3, 100)):
            assert claimer.take(shard)
            server.asked.clear()
            server.faults[:] = [Fault("POST", "503", times=times)]
            before = time.monotonic()
            claimer.drop(shard)
            assert server.asked["POST"] == min(times + 1, cloud.TRIES)
            assert time.monotonic() - before >= 0.001 * 2**5  # half of the sixth wait, at least
            assert not claimer.keep(shard)
    assert list(storage.names("claims")) == ["claims/000002.json", "claims/000003.json"]
    told = [text for text in caplog.messages if "could not be removed" in text]
    assert len(told) == 1
    assert "claims/000002.json could not be removed, and expires within 60 s: " in told[0]


def test_a_claim_is_kept_while_the_renewal_of_another_takes_long(monkeypatch):
    storage = open_storage("memory://renewal")
    renewing, go_on = threading.Event(), threading.Event()
    with claims.Claimer(storage, lease_seconds=1.5) as claimer:
        assert claimer.take(1)
        assert claimer.take(2)
        replace = storage.replace

        def slow(name, content, expected):
            if threading.current_thread() is not threading.main_thread() and name.endswith("1.json"):
                renewing.set()
                go_on.wait(20)
            return replace(name, content, expected)

        monkeypatch.setattr(storage, "replace", slow)
        assert renewing.wait(20)
        assert claimer.keep(2)  # would wait for ever
        assert not go_on.is_set()
        go_on.set()


def test_what_goes_by_a_claim_is_not_sent_again_once_that_is_lost(server, url):
    storage = open_storage(url)
    asked = []

    def lost():
        asked.append(storage.put("commits/a", b"another's"))  # who has claimed it meanwhile
        return False

    assert storage.put("commits/a", b"first", lost)  # at once
    for what in ("503", "cut", "lost"):
        server.faults[:] = [Fault("PUT", what)]
        assert not storage.put("commits/a", b"first", lost)
        assert storage.get("commits/a") == b"another's"
    assert asked == [True] * 3
    server.faults[:] = [Fault("PUT", "lost")]
    assert storage.put("commits/a", b"first", lambda: False)  # it had been done


# how many


def test_a_build_asks_nine_requests_a_shard_and_sixteen(template, server, url):
    for shards in (20, 40):
        folder = template.parent / f"{template.name}-{shards}"
        write_audio(folder / "audio", shards, seconds=0.1)
        with inside(folder):
            server.asked.clear()
            place = f"{url}/{shards}"
            alone = few(folder, out=place, shard_clips=1, views=1, teachers=["python:tones:plain"])
            made = build(alone).requests
            assert counted(made) == {
                "gets": 2 * shards + 3, "puts": 5 * shards + 2, "listings": shards + 11, "heads": 0, "deletes": shards,
            }  # fmt: skip
            assert (made.total, made.again) == (9 * shards + 16, 0)
            assert made.total == build_requests(shards)
            assert counted(made) == asked(server)
            again = build(alone).requests
            assert (again.gets, again.puts, again.total) == (shards + 5, 0, shards + 17)
    asking = status(place).requests
    assert (asking.gets, asking.listings, asking.total) == (shards + 2, 3, shards + 5)
    checked = verify(VerifyOptions(store=place))
    assert checked.requests.total == 4 * shards + 8 == verify_requests(shards)
    assert f"requests   {checked.requests}" in checked.render()


def test_a_listing_of_more_than_a_page_is_whole(server, url):
    storage = open_storage(url)
    names = [f"commits/{number:06d}-0-1.json" for number in range(1203)]
    storage.put_many(dict.fromkeys(names, b"x"))
    before = requests.sent()
    for fault in ([], [Fault("LIST", "503")], [Fault("LIST", "cut", name="")]):
        server.faults[:] = fault
        assert list(storage.names("commits")) == names
    assert requests.since(before).listings == 3 * 2 + 2
    assert list(storage.names("commits", "000700-")) == ["commits/000700-0-1.json"]
    assert sum(storage.sizes().values()) == 1203
    assert dict(storage.contents("commits", "0001")) == dict.fromkeys(names[100:200], b"x")


def test_commits_are_read_once_and_again_when_they_have_changed(server, url):
    storage, other = open_storage(url), open_storage(url)
    names = [f"commits/{number:06d}-0-1.json" for number in range(3)]
    other.put_many(dict.fromkeys(names, b"x"))
    before = requests.sent()
    for _ in range(3):
        assert list(storage.contents("commits")) == [(name, b"x") for name in names]
    assert requests.since(before).gets == 3
    other.put(names[1], b"y")
    other.delete(names[2])
    assert list(storage.contents("commits")) == [(names[0], b"x"), (names[1], b"y")]
    assert storage.get(names[1]) == b"y"
