"""Stores that can only be read: on a web server, and on a hub that speaks as Hugging Face's does. Both on loopback."""

import http.server
import json
import re
import threading
import urllib.parse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from logitstore import open_store
from logitstore.cli.main import cli
from logitstore.errors import CorruptStoreError, NotAStoreError, StoreError, UsageError
from logitstore.jobs.build.job import build
from logitstore.jobs.verify.job import VerifyOptions, verify
from logitstore.store.storage import open_storage
from tests.stores import contents, inside, options, write_audio

pytest.importorskip("obstore")
COMMIT = "a" * 40
TOKEN = "hf_secret"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `export --format hf` writes of a small store, beside the store itself."""
    root = tmp_path_factory.mktemp("web")
    write_audio(root / "audio", 10, 0.6)
    with inside(root):
        build(options(root, views=2, clip_seconds=1.0))
    run("export", root / "store", "--format", "hf", "--out", root / "dataset", "--title", "Tones | <b>x</b>")
    return root


def run(*words, code=0):
    from click.testing import CliRunner

    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == code, (done.output, done.exception)
    return done


class Server(http.server.SimpleHTTPRequestHandler):
    """A folder as files; with ``hub``, the hub's API for one private data set of it."""

    hub = False

    def do_GET(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if not self.hub:
            return super().do_GET()
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.send_error(401)
        if path == "/api/datasets/me/tones/revision/main":
            return self.say({"sha": COMMIT})
        if match := re.fullmatch(rf"/api/datasets/me/tones/tree/{COMMIT}(?:/(.*))?", path):
            top = Path(self.directory)
            files = [each for each in sorted((top / (match[1] or "")).rglob("*")) if each.is_file()]
            listed = [
                {"type": "file", "path": each.relative_to(top).as_posix(), "size": each.stat().st_size}
                for each in files
            ]
            page = int(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query)).get("cursor", 0))
            more = {"Link": f'<http://{self.headers["Host"]}{path}?cursor={page + 7}>; rel="next"'}
            return self.say(listed[page : page + 7], more if page + 7 < len(listed) else {})
        if path.startswith(begin := f"/datasets/me/tones/resolve/{COMMIT}/"):
            self.path = "/" + path.removeprefix(begin)
            return super().do_GET()
        return self.send_error(404)

    do_HEAD = do_GET  # noqa: N815

    def say(self, document, more=None):
        content = json.dumps(document).encode()
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Serves a folder; the address, http://127.0.0.1:PORT."""
    running = []

    def start(directory, hub=False):
        kind = type("Handler", (Server,), {"hub": hub})
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), lambda *given: kind(*given, directory=str(directory))
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        running.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def hub(serve, folder, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", serve(folder / "dataset", hub=True))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return "hf://datasets/me/tones"


def same(one, other):
    for view in range(one.views):
        for mine, theirs in zip(one.targets(view, range(10)), other.targets(view, range(10)), strict=True):
            np.testing.assert_array_equal(mine, theirs)
    question = "SELECT class, count(*) n FROM topk GROUP BY class ORDER BY class"
    assert one.sql(question).to_pylist() == other.sql(question).to_pylist()


def test_a_web_server_gives_the_same_store(serve, folder):
    url = f"{serve(folder / 'dataset')}/store"
    same(open_store(url), open_store(str(folder / "store")))
    assert verify(VerifyOptions(store=url)).problems == ()
    assert "10 of 1 s" in run("inspect", url).stdout


def test_the_hub_gives_the_same_store(hub, folder):
    same(open_store(f"{hub}/store"), open_store(str(folder / "store")))
    same(open_store(f"{hub}@main/store"), open_store(str(folder / "store")))
    assert verify(VerifyOptions(store=f"{hub}/store")).problems == ()


def test_a_private_data_set_needs_its_token(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(StoreError, match=r"401 .*HF_TOKEN"):
        open_store(f"{hub}/store")


@pytest.mark.parametrize("place", ["hf://me/tones", "hf://datasets/me", "hf://datasets/me/tones/../x"])
def test_the_form_of_a_place_on_the_hub_is_said(place):
    with pytest.raises(UsageError, match="hf://datasets/OWNER/NAME"):
        open_store(place)


def test_what_is_not_there_is_said(hub, serve, folder):
    with pytest.raises(NotAStoreError, match="no such dataset"):
        open_store("hf://datasets/me/others/store")
    with pytest.raises(NotAStoreError, match=r"no zarr\.json"):
        open_store(f"{hub}/nothing")
    with pytest.raises(NotAStoreError, match=r"no listing\.json.*--format listing"):
        open_store(f"{serve(folder)}/store").sql("FROM blocks")


@pytest.mark.parametrize(
    "url", ["http://example.org/store", "https://user:secret@example.org/store", "https://h/s?x=1"]
)
def test_unsafe_urls_are_refused(url):
    with pytest.raises(UsageError, match="https://"):
        open_store(url)


@pytest.mark.parametrize("scheme", ["https", "hf"])
def test_nothing_is_written_there(scheme):
    with pytest.raises(UsageError, match="can only be read"):
        open_storage(f"{scheme}://datasets/me/x", to_write=True)


def test_a_store_on_the_web_refuses_every_change(serve, folder):
    storage = open_storage(f"{serve(folder / 'dataset')}/store")
    for change in (
        lambda: storage.put("zarr.json", b""),
        lambda: storage.create("zarr.json", b""),
        lambda: storage.delete("zarr.json"),
        lambda: storage.replace("zarr.json", b"", b""),
        lambda: storage.put_many({}),
        lambda: storage.create_many({}),
    ):
        with pytest.raises(StoreError, match="read-only"):
            change()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[]", "no listing"),
        (b"\xff", "no listing"),
        (b'{"objects": {"../../etc/passwd": 3}}', "no name of an object"),
        (b'{"objects": {"zarr.json": 99999999999}}', "at most"),
        (b'{"objects": {"zarr.json": -1}}', "at most"),
    ],
)
def test_a_listing_of_a_stranger_is_believed_nothing(serve, tmp_path, folder, content, problem):
    for name, each in contents(folder / "dataset" / "store").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content if name == "listing.json" else each)
    with pytest.raises(CorruptStoreError, match=problem):
        open_store(serve(tmp_path)).sql("FROM blocks")


def test_verify_tells_an_old_listing(folder, tmp_path):
    for name, each in contents(folder / "dataset" / "store").items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(each)
    assert verify(VerifyOptions(store=str(tmp_path))).problems == ()
    listed = json.loads((tmp_path / "listing.json").read_text())
    listed["objects"].pop("clips/00000.parquet")
    (tmp_path / "listing.json").write_text(json.dumps(listed))
    (problem,) = verify(VerifyOptions(store=str(tmp_path))).problems
    assert re.search(r"first difference is clips/00000\.parquet; write it again", problem)


def test_the_listing_is_written_into_the_store_itself(folder, tmp_path):
    store = folder / "dataset" / "store"
    before = (store / "listing.json").read_bytes()
    run("export", store, "--format", "listing", "--out", store / "listing.json")
    assert (store / "listing.json").read_bytes() == before
    done = run("export", store, "--format", "listing", "--out", tmp_path / "other.json")
    assert "under the name listing.json" in done.stderr


def test_the_folder_for_the_hub(folder):
    top = folder / "dataset"
    stored = contents(folder / "store")
    assert {name: each for name, each in contents(top / "store").items() if name != "listing.json"} == stored
    assert pq.read_table(top / "targets/views.parquet").num_rows == 20
    text = (top / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == "other"
    assert head["configs"] == [{"config_name": "targets", "data_files": "targets/views.parquet"}]
    assert head["size_categories"] == ["n<1K"]
    assert head["pretty_name"] == "Tones | <b>x</b>"
    assert "# Tones \\| \\<b\\>x\\</b\\>" in text  # a title is text, not Markdown
    assert "2 augmented views of each of 10 clips" in text
    assert text.count("not stated") >= 4  # licence and origin of two teachers
    assert "hf upload OWNER/NAME" in run("export", top / "store", "--format", "hf", "--out", folder / "again").stderr


def test_licences_of_the_teachers_stand_on_the_card(folder):
    from dataclasses import replace

    import msgspec

    from logitstore.jobs.export_hub import card
    from logitstore.store.summary import summarise

    about = summarise(open_store(str(folder / "store")))
    first, second = about.manifest.teachers
    says = first.contract | {"licence": "CC BY-NC-SA 4.0", "non_commercial": True, "origin": "https://example.org"}
    unfree = msgspec.structs.replace(first, name="bird|s", contract=says)
    manifest = msgspec.structs.replace(about.manifest, teachers=(unfree, second))
    text = card(replace(about, manifest=manifest), title="x", licence="cc-by-nc-sa-4.0")
    assert yaml.safe_load(text.split("---\n")[1])["license"] == "cc-by-nc-sa-4.0"
    assert "| bird\\|s | 0.5 | CC BY-NC-SA 4.0, not for commercial use | https://example.org |" in text
    assert "The weights of bird\\|s are not for commercial use" in text


@pytest.mark.parametrize(
    "words",
    [["--format", "parquet", "--title", "x"], ["--format", "listing", "--licence", "mit"],
     ["--format", "hf", "--class-indices"]],
)  # fmt: skip
def test_options_of_another_format_are_refused(folder, tmp_path, words):
    run("export", folder / "store", *words, "--out", tmp_path / "out.json", code=2)
