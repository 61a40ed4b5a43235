"""Stores at URLs: a real S3 API on this machine's loopback, and memory. What is promised of a folder holds there."""

import http.server
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import numpy as np
import pytest

from logitstore import open_store
from logitstore.errors import CorruptStoreError, MissingExtraError, NotAStoreError, StoreError, UsageError
from logitstore.jobs.build.job import Progress, build, prepare, run
from logitstore.jobs.status import status
from logitstore.store import claims, piece, requests
from logitstore.store.cloud import ObjectStorage
from logitstore.store.storage import LocalStorage, open_storage
from tests.s3 import objects, s3_server
from tests.stores import contents, inside, options, write_audio

REPOSITORY = str(Path(__file__).parents[2])
BUCKETS = iter(range(1000))


@pytest.fixture(scope="module")
def server():
    """The URL of an S3 API on 127.0.0.1; the environment names it, and credentials that it accepts."""
    with s3_server() as url:
        yield url


@pytest.fixture
def s3(server):
    return boto3.client("s3", endpoint_url=server, region_name="us-east-1")


@pytest.fixture
def bucket(s3):
    name = f"stores-{next(BUCKETS)}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def url(bucket):
    return f"s3://{bucket}/logits/esc"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """20 clips, and the store that an undisturbed build makes of them in a folder."""
    folder = tmp_path_factory.mktemp("cloud")
    write_audio(folder / "audio", 20)
    with inside(folder):
        build(options(folder))
    return folder


@pytest.fixture
def audio(template):
    """That folder, as the current one, from which `python:` specs are imported."""
    with inside(template):
        yield template


@pytest.fixture
def filled(audio, url):
    """The URL of a store with the objects of the undisturbed one."""
    open_storage(url).put_many(contents(audio / "store"))
    return url


def builder(root: Path, out: str, *, kill_after: int = 1 << 30) -> subprocess.Popen[str]:
    """A process that builds, prints how many views it made, and kills itself after so many."""
    code = f"""
import os, sys, signal
sys.path[:0] = {[REPOSITORY, str(root)]!r}
from pathlib import Path
from tests.s3 import objects, s3_server
from tests.stores import options
from logitstore.jobs.build.job import Progress, build, prepare, run
left = {kill_after}
def advance(views):
    global left
    left -= views
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
print(build(options(Path({str(root)!r}), out={out!r}), Progress(advance=advance)).made_views)
"""
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


class Asked:
    """What this process has sent since it was made, or cleared."""

    def __init__(self):
        self.clear()

    def clear(self):
        self._before = requests.sent()

    def __getattr__(self, kind):
        return getattr(requests.sent() - self._before, kind)


# the storage


@pytest.fixture(params=["folder", "memory", "s3"])
def storage(request, tmp_path):
    if request.param == "folder":
        return open_storage(tmp_path / "store")
    if request.param == "memory":
        return open_storage(f"memory://{request.node.name}".replace("[", "-").replace("]", ""))
    return open_storage(request.getfixturevalue("url"))


def test_every_storage_keeps_its_promises(storage):
    assert list(storage.names()) == []
    assert storage.sizes() == {}
    with pytest.raises(FileNotFoundError):
        storage.get("a/x")
    with pytest.raises(FileNotFoundError):
        storage.size("a/x")
    storage.delete("a/x")
    storage.put("a/x", b"first")
    storage.put("a/x", b"second")
    assert storage.get("a/x") == b"second"
    assert not storage.create("a/x", b"third")
    assert storage.create("a/y-1", b"")
    assert not storage.replace("a/x", b"fourth", b"first")
    assert storage.replace("a/x", b"fourth", b"second")
    assert not storage.replace("a/absent", b"fourth", b"second")
    storage.put_many({"ab/z": b"12", "a/y-2": b"345", "top": b"6"})
    assert list(storage.get_many(["a/x", "absent", "ab/z"])) == [b"fourth", None, b"12"]
    assert list(storage.names()) == ["a/x", "a/y-1", "a/y-2", "ab/z", "top"]
    assert list(storage.names("a")) == ["a/x", "a/y-1", "a/y-2"]
    assert list(storage.names("a", "y-")) == ["a/y-1", "a/y-2"]
    assert list(storage.names("nowhere")) == []
    assert storage.sizes("a") == {"a/x": 6, "a/y-1": 0, "a/y-2": 3}
    assert storage.size("ab/z") == 2
    storage.delete("a/x")
    storage.sweep_scratch()
    assert list(storage.names()) == ["a/y-1", "a/y-2", "ab/z", "top"]


def test_one_builder_alone_takes_over_an_expired_claim(url):
    storage = open_storage(url)
    gone = b'{"host":"elsewhere","pid":1,"token":"x","expires":%d}'
    for shard in range(10):
        storage.create(f"claims/{shard:06d}.json", gone % (time.time() - 1))
    builders = [claims.Claimer(storage) for _ in range(6)]
    taken: list[tuple[int, int]] = []

    def take(number: int) -> None:
        taken.extend((shard, number) for shard in range(10) if builders[number].take(shard))

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(shard for shard, _ in taken) == list(range(10))
    assert claims.claimed_shards(storage) == list(range(10))


def test_a_claim_that_another_took_is_neither_renewed_nor_dropped(storage):
    with claims.Claimer(storage, lease_seconds=0.3) as slow:
        assert slow.take(4)
        other = b'{"host":"elsewhere","pid":1,"token":"other","expires":%d}' % (time.time() + 60)
        storage.put("claims/000004.json", other)
        time.sleep(0.3)
        slow.drop(4)
        assert not slow.take(4)
    assert storage.get("claims/000004.json") == other


# build


def test_a_build_writes_the_objects_that_a_folder_would_hold(audio, url):
    summary = build(options(audio, out=url))
    local = contents(audio / "store")
    assert objects(url) == local
    assert (summary.location, summary.stored_views) == (url, 60)
    assert summary.store_bytes == sum(map(len, local.values())) == open_store(url).size()
    assert build(options(audio, out=url)).made_views == 0


@pytest.mark.parametrize("views", [24, 40])
def test_a_killed_build_resumes_to_the_same_objects(audio, url, views):
    killed = builder(audio, url, kill_after=views)
    _, said = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, said
    assert any(name.startswith("claims/") for name in objects(url))
    assert status(url).missing > 0
    build(options(audio, out=url))
    assert objects(url) == contents(audio / "store")


def test_two_builders_at_once_finish_a_store_once(audio, url):
    both = [builder(audio, url) for _ in range(2)]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum(int(out) for out, _ in said) == 60
    assert objects(url) == contents(audio / "store")


def test_a_store_that_another_builder_begins_at_this_moment_is_shared(audio, url, monkeypatch):
    get = ObjectStorage.get

    def late(storage, name):
        monkeypatch.setattr(ObjectStorage, "get", get)
        assert name == "zarr.json"
        build(options(audio, out=url))
        raise FileNotFoundError

    job = prepare(options(audio, out=url))
    monkeypatch.setattr(ObjectStorage, "get", late)
    assert run(job, Progress()).made_views == 0
    assert objects(url) == contents(audio / "store")


# reading


def test_reading_a_store_at_a_url(audio, filled, monkeypatch):
    asked = Asked()
    store, local = open_store(filled), open_store(audio / "store")
    for view in range(3):
        for here, there in zip(local.targets(view, range(20)), store.targets(view, range(20)), strict=True):
            np.testing.assert_array_equal(here, there)
    assert store.draws(1).columns.keys() == local.draws(1).columns.keys()
    assert store.clips.equals(local.clips)
    question = "SELECT class, count(*) n, sum(probability) p FROM topk GROUP BY class ORDER BY n DESC, class"
    assert store.sql(question).equals(local.sql(question))
    for table in ("clips", "views", "blocks", "failures", "teachers"):
        assert store.sql(f"FROM {table}").equals(local.sql(f"FROM {table}")), table
    assert status(filled).to_dict() | {"requests": None} == status(str(audio / "store")).to_dict() | {"store": filled}
    assert asked.puts == asked.deletes == 0


def test_targets_and_draws_of_all_read_every_object_once_whatever_there_is_room_for(filled, monkeypatch):
    monkeypatch.setattr(piece, "READ_BYTES", 1)
    store = open_store(filled)
    asked = Asked()
    store.targets(0, range(20))
    before = asked.gets
    store.draws(0, range(20))
    assert (before > 0, asked.gets) == (True, before)


def test_a_summary_lists_and_does_not_ask_for_every_object(audio, filled, monkeypatch):
    from logitstore.store.summary import summarise

    asked = Asked()
    found = summarise(open_store(filled)).to_dict()
    assert found == summarise(open_store(audio / "store")).to_dict() | {"store": filled}
    assert asked.gets == 1 + 3 + 1  # manifest, commits, clip table
    assert asked.listings == 3  # commits, clip tables, sizes


def test_sql_reads_the_clip_table_and_the_needed_blocks_once(filled, monkeypatch):
    store = open_store(filled)
    asked = Asked()
    store.sql("SELECT count(*) FROM topk WHERE clip < 8")
    assert asked.gets <= 3 + 1 + 20  # commits, the clip table that they must fit, and one block of three
    asked.clear()
    store.sql("SELECT a.path FROM clips a JOIN clips b USING (clip)")
    store.sql("SELECT count(*) FROM clips")
    assert asked.gets == 0


def test_the_commands_work_on_a_url(filled, capsys, monkeypatch):
    from logitstore.cli.command import run as command_line
    from logitstore.cli.main import cli

    def printed(*arguments: str) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["logitstore", *arguments])
        with pytest.raises(SystemExit, match="0"):
            command_line(cli)
        return capsys.readouterr().out

    assert printed("status", filled).startswith(f"store      {filled}, finished\n")
    assert "60 stored" in printed("inspect", filled)
    assert "clips\n60" in printed("inspect", filled, "SELECT count(*) AS clips FROM views", "--format", "csv")


def test_a_student_trained_from_a_url_is_the_one_trained_from_the_folder(audio, filled, tmp_path):
    from students.train import StudentOptions, train_student

    for name, place in (("folder", str(audio / "store")), ("url", filled)):
        train_student(
            StudentOptions(
                store=place, audio_root=str(audio / "audio"), student="cnn4",
                model_args={"width": 2, "mels": 16, "hop_ms": 40}, out=str(tmp_path / name), steps=4, batch_size=8,
                device="cpu", workers=1,
            )
        )  # fmt: skip
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("folder", "url"))
    assert one == other


def test_workers_of_a_loader_need_no_network(audio, filled):
    from torch.utils.data import DataLoader

    from students.data import ReplayDataset

    views = ReplayDataset(filled, audio / "audio", 1)
    assert sum(len(batch["clip"]) for batch in DataLoader(views, batch_size=8, num_workers=1)) == 20


def test_a_store_at_a_url_is_extended_and_verified(audio, filled, tmp_path):
    from logitstore.jobs.build.extend import ExtendOptions, extend
    from logitstore.jobs.verify.job import VerifyOptions, verify

    found = verify(VerifyOptions(store=filled, audio_root=str(audio / "audio"), replay=2))
    assert (found.problems, found.audit.objects) == ((), len(contents(audio / "store")))
    write_audio(tmp_path / "more" / "new", 3)
    teachers = ["python:tones:plain", "python:tones:steep"]
    more = ExtendOptions(store=filled, source=str(tmp_path / "more"), teachers=teachers, workers=2, device="cpu")
    assert extend(more).made_views == 9
    assert verify(VerifyOptions(store=filled)).problems == ()
    storage = open_storage(filled)
    storage.put("blocks/000000-0-3/packed/c/0/0", b"something else")
    storage.delete("blocks/000001-0-3/packed/zarr.json")
    problems = "\n".join(verify(VerifyOptions(store=filled)).problems)
    assert "000000-0-3/packed/c/0/0" in problems
    assert "000001-0-3/packed/zarr.json" in problems


def test_changed_and_missing_objects_are_detected(filled):
    storage = open_storage(filled)
    name = "blocks/000001-0-3/packed/c/0/0"
    whole = storage.get(name)
    storage.put(name, whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptStoreError, match=rf"{name} is not the object that was committed; delete commits"):
        open_store(filled).targets(0, range(20))
    storage.delete(name)
    with pytest.raises(CorruptStoreError, match=rf"{filled}: {name} is missing"):
        open_store(filled).targets(0, range(20))
    open_store(filled).targets(0, range(8))
    storage.put("commits/000000-0-3.json", storage.get("commits/000001-0-3.json")[:-9])
    with pytest.raises(CorruptStoreError, match=r"000000-0-3\.json is damaged"):
        open_store(filled).targets(0, range(8))
    storage.delete("clips/00000.parquet")
    with pytest.raises(CorruptStoreError, match=r"clips/00000\.parquet is missing|damaged"):
        status(filled)


def test_memory_is_shared_within_the_process(audio):
    summary = build(options(audio, out="memory://shared/store"))
    assert summary.made_views == 60
    kept = open_storage("memory://shared/store/")
    assert {name: kept.get(name) for name in kept.names()} == contents(audio / "store")
    store = open_store("memory://shared/store")
    assert store.sql("SELECT count(*) n FROM topk")["n"].to_pylist() == [240]
    with pytest.raises(NotAStoreError, match="no store at memory://another"):
        open_store("memory://another")


# what goes wrong


def one_line(caught: pytest.ExceptionInfo[BaseException], *parts: str) -> None:
    assert "\n" not in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("location", ["s3://bucket/store", "gs://bucket/store", "memory://store"])
def test_without_the_extra_the_error_says_what_to_install(monkeypatch, location):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'obstore'.*pip install 'logitstore\[cloud\]'"):
        open_store(location)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (
            "ftp://host/store",
            "ftp:// is no place for a store; allowed are s3://, gs://, memory://, https://, hf:// and a ",
        ),
        ("s4://bucket/store", "s4:// is no place"),
        ("s3://", "needs the name of a bucket"),
        ("s3:///store", "needs the name of a bucket, and '' is none"),
        ("s3://bucket/a//b", "empty, '.' or '..' part"),
        ("s3://bucket/../b", "empty, '.' or '..' part"),
        (Path("s3://bucket/store"), "give the URL as a string"),
    ],
)
def test_urls_that_cannot_be(server, location, message):
    with pytest.raises(UsageError, match=message) as caught:
        open_store(location)
    one_line(caught)


def test_credentials_in_a_url_are_refused_and_not_repeated(server):
    with pytest.raises(UsageError, match="credentials in environment variables") as caught:
        open_store("s3://key:secret@bucket/store")
    assert "secret" not in str(caught.value)


def test_a_bucket_that_does_not_exist(audio, server):
    for call in (
        lambda: open_store("s3://nowhere/store"),
        lambda: build(options(audio, out="s3://nowhere/store")),
        lambda: open_storage("s3://nowhere/store").put("x", b""),
        lambda: open_storage("s3://nowhere/store").create("x", b""),
        lambda: open_storage("s3://nowhere/store").sizes(),
    ):
        with pytest.raises(
            StoreError, match=f"there is no bucket 'nowhere' at {server}; create it, or check"
        ) as caught:
            call()
        one_line(caught, "AWS_ENDPOINT_URL")


def test_a_bucket_without_a_store(url):
    with pytest.raises(NotAStoreError, match=rf"no store at {url}: there is no zarr\.json in it") as caught:
        open_store(url)
    one_line(caught)


def test_a_build_beside_other_objects_is_refused(audio, s3, bucket):
    s3.put_object(Bucket=bucket, Key="theses/thesis.tex", Body=b"dear")
    with pytest.raises(NotAStoreError, match=r"is not a store \(it holds thesis\.tex\)"):
        build(options(audio, out=f"s3://{bucket}/theses"))


def test_a_refused_connection(server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(
        StoreError, match=r"no answer at http://127.0.0.1:\d+ \(Connection refused.*check the network"
    ) as caught:
        open_store("s3://bucket/store")
    one_line(caught, "AWS_ENDPOINT_URL")


class _Refuses(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied.</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        """Say nothing."""


def test_access_that_is_refused(server, monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refuses) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{refusing.server_port}")
        storage = open_storage("s3://bucket/store")
        for call in (
            lambda: storage.get("x"),
            lambda: storage.put("x", b""),
            lambda: storage.create("x", b""),
            lambda: list(storage.names()),
        ):
            with pytest.raises(
                StoreError, match=r"refused to .*AccessDenied: Access Denied.*AWS_ACCESS_KEY_ID"
            ) as caught:
                call()
            one_line(caught)
        refusing.shutdown()


def test_endpoints_that_cannot_be(server, monkeypatch):
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(UsageError, match="not encrypted; use https://, or set AWS_ALLOW_HTTP=true"):
        open_store("s3://bucket/store")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL is 'localhost:9000'; it must begin with https://"):
        open_store("s3://bucket/store")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(
        StoreError, match=r"no credentials for s3://bucket/store were found; set .*AWS_SECRET_ACCESS_KEY"
    ):
        open_store("s3://bucket/store")


def test_a_forked_copy_is_told_so_and_does_not_hang(audio, filled):
    code = f"""
import os, sys
sys.path.insert(0, {REPOSITORY!r})
from logitstore import open_store
from logitstore.errors import StoreError
store = open_store({filled!r})
store.commits
child = os.fork()
if not child:
    try:
        open_store({filled!r})
    except StoreError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(len(store.targets(0, range(20))[0]))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "was opened before this process was forked" in said.splitlines()[0]
    assert said.splitlines()[1] == "20"


def test_a_folder_needs_nothing_of_the_extra(audio):
    code = (
        f"import sys; sys.path.insert(0, {REPOSITORY!r}); sys.modules['obstore'] = None; import logitstore;"
        f"store = logitstore.open_store({str(audio / 'store')!r}); store.targets(0, [0]); store.size();"
        "assert 'logitstore.store.cloud' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_progress_and_local_paths_are_as_they_were(audio, tmp_path):
    assert isinstance(open_storage(str(tmp_path)), LocalStorage)
    assert isinstance(open_storage("a:b/c"), LocalStorage)
    seen: list[int] = []
    build(options(audio, out="memory://progress"), Progress(advance=seen.append))
    assert sum(seen) == 60
