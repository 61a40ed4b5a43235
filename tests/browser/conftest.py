"""A real Chromium, a store with hostile names in it, and the listening page that serves it."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logitstore.store.reader import Store, open_store
from tests.stores import inside, options, write_audio

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
#: Runs as soon as a page takes it for anything but text.
HOSTILE = "</script><img src=x onerror=window.ran=1>\"'`${window.ran=1}"
LABELS = ("tone 300 Hz", "tone_500_Hz", HOSTILE, "nothing that the teachers know")


@pytest.fixture(scope="module")  # Playwright's event loop runs as long
def browser() -> Iterator[Any]:
    """Chromium without a window; where there is none the tests are skipped, or fail if LOGITSTORE_BROWSER=required."""
    path = os.environ.get("LOGITSTORE_CHROMIUM", "/usr/bin/chromium")
    missing = None if Path(path).exists() else f"no Chromium at {path}; set LOGITSTORE_CHROMIUM to where it is"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "playwright is not installed"
    if missing is not None:
        if os.environ.get("LOGITSTORE_BROWSER") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="session")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """60 clips of up to 2 s in 3 views by two tone teachers; names of files, columns, labels and a class are hostile.

    Clip 3 cannot be read.
    """
    from logitstore.jobs.build.job import build

    root = tmp_path_factory.mktemp("listening")
    write_audio(root / "audio", 60)
    paths = [path.relative_to(root / "audio").as_posix() for path in sorted((root / "audio").rglob("*.wav"))]
    hostile = "a/!<img src=x onerror=window.ran=1>&#x27;.wav"
    shutil.move(root / "audio" / paths[0], root / "audio" / "a" / hostile[2:])
    paths[0] = hostile
    (root / "audio" / paths[3]).write_bytes(b"no sound")
    with (root / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "<b onmouseover=window.ran=1>"])
        writer.writerows([path, LABELS[n % 4], HOSTILE] for n, path in enumerate(paths))
    asked = options(
        root, source=str(root / "clips.csv"), audio_root=str(root / "audio"), keep_members=True, shard_clips=64
    )
    tones = root / "tones.py"
    tones.write_text(
        tones.read_text().replace(
            '[f"tone {hz} Hz" for hz in TONES]', f'[f"tone {{hz}} Hz" for hz in TONES[:-1]] + [{HOSTILE!r}]'
        )
    )
    with inside(root):
        build(asked)
    return open_store(root / "store", audio_root=root / "audio")


@pytest.fixture(scope="module")
def served(browser: Any, heard: Store) -> Iterator[str]:
    """The address of the listening page of the store."""
    root = Path(heard.location).parent
    command = [
        sys.executable,
        "-m",
        "logitstore",
        "serve",
        heard.location,
        "--audio-root",
        str(root / "audio"),
        "--person",
        "ann",
    ]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert server.stdout is not None
    said = ""
    for line in server.stdout:
        said += line
        if found := re.search(r"http://\S+token=\S+", line):
            yield found[0]
            break
    else:
        pytest.fail(f"the server did not start: {said}")
    server.terminate()
    server.wait(10)


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Any, served: str) -> Iterator[Opened]:
    """Opens the listening page as ``opened("#clip=4", width=360, dark=True)``.

    Whatever any of its pages says on its console, and any error in it, fails the test, unless ``page.allowed`` matches.
    """
    yield from _opened(browser, served)


@pytest.fixture
def opened_file(browser: Any) -> Iterator[Opened]:
    """Opens a file as ``opened`` opens the served page: ``opened_file(path, "#clip=4")``."""
    yield from _opened(browser, None)


def _opened(browser: Any, address: str | None) -> Iterator[Opened]:
    contexts, said, allowed = [], [], []

    def open_page(*place: Any, width: int = 1280, dark: bool = False, scripts: tuple[str, ...] = ()) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", accept_downloads=True
        )
        contexts.append(context)
        for script in scripts:
            context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.allowed = allowed
        *file, fragment = place if len(place) == (1 if address else 2) else (*place, "")
        page.goto(address or f"file://{file[0]}{fragment}")
        if address and fragment:
            page.evaluate("fragment => { location.hash = fragment }", fragment)
        page.wait_for_selector(".row", state="attached")
        return page

    yield open_page
    ran = [page.evaluate("window.ran") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert ran == [None] * len(ran), "a text of the store ran as a script"
    assert [each for each in said if not any(re.search(pattern, each) for pattern in allowed)] == []
