"""The listening page in a real browser: search, open, hear, judge; by mouse and by keys, on a phone, in the dark."""

from __future__ import annotations

import base64
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from logitstore.store.reader import Store
from logitstore.store.verdicts import read_verdicts
from tests.browser.conftest import HOSTILE, Opened

#: Keeps what is played: the samples of every sound that begins, as Base64, and from which second.
PLAYED = """
window.played = [];
const start = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (when, offset) {
  const bytes = new Uint8Array(this.buffer.getChannelData(0).slice().buffer);
  let text = "";
  for (const each of bytes) text += String.fromCharCode(each);
  const { sampleRate, numberOfChannels } = this.buffer;
  window.played.push({ samples: btoa(text), rate: sampleRate, channels: numberOfChannels, offset });
  return start.call(this, when, offset);
};
"""


def shown(page: Any) -> None:
    """Wait until the open clip's picture is there."""
    page.wait_for_selector(".mel canvas[aria-label]")


def played(page: Any, number: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The samples that were played as the n-th, and the rest that is known of them."""
    deadline = time.monotonic() + 60
    while len(found := page.evaluate("window.played")) <= number:
        assert time.monotonic() < deadline, "nothing is played"
        page.wait_for_timeout(20)
    return np.frombuffer(base64.b64decode(found[number]["samples"]), np.float32), found[number]


def verdicts(store: Store) -> dict[str, tuple[str, str | None, str]]:
    """What ann said, by path."""
    file = Path(store.location).parent / "verdicts.csv"
    said = read_verdicts(file) if file.exists() else {}
    return {
        key[0]: (one["ann"].verdict, one["ann"].label, one["ann"].note) for key, one in said.items() if "ann" in one
    }


def saved(store: Store, path: str, wanted: Any) -> None:
    """Wait until the file says of a clip what is wanted."""
    deadline = time.monotonic() + 60
    while verdicts(store).get(path) != wanted:
        assert time.monotonic() < deadline, f"{verdicts(store).get(path)} is saved, not {wanted}"
        time.sleep(0.02)


def test_search(opened: Opened, heard: Store) -> None:
    page = opened()
    assert page.inner_text("#found").startswith("1 to 50 of 60 clips")
    assert page.locator(".row").count() == 50
    page.click("#page-after")
    page.wait_for_selector("text=51 to 60 of 60")
    assert page.locator(".row").count() == 10
    page.fill("#text", "nothing that")
    page.press("#text", "Enter")
    page.wait_for_selector("text=/^15 clips/")
    page.click("summary")
    page.fill("#where", "clip < 20")
    page.press("#where", "Enter")
    page.wait_for_selector("text=/^5 clips/")
    page.select_option("#sort", "entropy")
    page.wait_for_selector(".row .value")
    values = [float(text) for text in page.locator(".row .value").all_inner_texts()]
    assert values == sorted(values, reverse=True)
    assert "sort=entropy" in page.url
    assert "where=clip" in page.url
    page.click("text=Clear all")
    page.wait_for_selector("text=/60 clips/")
    page.fill("#class", "tone 800 Hz")
    page.press("#class", "Enter")
    page.wait_for_url("**#class=tone+800+Hz")
    page.select_option("#question", "uncertain_clips")
    page.wait_for_url("**question=uncertain_clips")
    page.wait_for_selector("#parameters input")


def test_a_wrong_search_says_why(opened: Opened) -> None:
    page = opened()
    page.allowed.append("400")  # Chromium itself says so of every such answer
    page.click("summary")
    page.fill("#where", "lable = 'x'")
    page.press("#where", "Enter")
    page.wait_for_selector("#found.trouble")
    assert "lable" in page.inner_text("#found")


def test_a_link_opens_the_same_search_and_view(opened: Opened, heard: Store) -> None:
    page = opened("#text=tone+300&clip=4&view=1")
    shown(page)
    assert page.input_value("#text") == "tone 300"
    assert page.inner_text("h2") == Path(heard[4].path).name
    assert page.get_attribute(".views [data-view='1']", "aria-pressed") == "true"
    assert "clip=4" in page.get_attribute(".row[aria-current=true]", "href")
    assert heard[4].view(1).targets.names[0] in page.inner_text(".answers tbody tr >> nth=0")


def test_what_is_heard_is_what_the_teachers_heard(opened: Opened, heard: Store) -> None:
    page = opened("#clip=5", scripts=(PLAYED,))
    shown(page)
    page.click(".toggle")
    samples, about = played(page, 0)
    np.testing.assert_array_equal(samples, heard[5].waveform)
    assert (about["rate"], about["channels"]) == (16_000, 1)
    page.wait_for_timeout(150)
    for number, view in enumerate(heard[5].views, 1):
        page.keyboard.press(str(view))  # goes on from where it is
        samples, about = played(page, number)
        np.testing.assert_array_equal(samples, heard[5].view(view).waveform)
        assert 0.05 < about["offset"] < 2
    before = about["offset"]
    page.keyboard.press("b")
    samples, about = played(page, number + 1)
    np.testing.assert_array_equal(samples, heard[5].waveform)
    assert about["offset"] > before
    assert "Playing" in page.inner_text("#told")
    page.keyboard.press(" ")
    page.wait_for_selector(".toggle:has-text('Play')")


def test_the_picture_and_its_masks(opened: Opened, heard: Store) -> None:
    from PIL import Image

    from logitstore.views.picture import log_mel, png

    view = next(v for v in heard[6].views if len(heard[6].view(v).boxes) == 2)
    page = opened(f"#clip=6&view={view}")
    shown(page)
    drawn = page.evaluate("document.querySelector('.mel canvas').toDataURL()").split(",")[1]
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(drawn))).convert("RGB"), float)
    loudest = float(log_mel(heard[6].waveform, 16_000).max())
    image = Image.open(io.BytesIO(png(log_mel(heard[6].view(view).waveform, 16_000), loudest))).convert("RGB")
    expected = np.array(image, float)
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= 8  # a shade or two of 256, where float32 rounds another way
    place = page.evaluate("() => document.querySelector('.mel').getBoundingClientRect().toJSON()")
    boxes = page.evaluate("() => [...document.querySelectorAll('.box')].map(b => b.getBoundingClientRect().toJSON())")
    for box, wanted in zip(boxes, heard[6].view(view).boxes, strict=True):
        found = [(box["x"] - place["x"]) / place["width"], (box["y"] - place["y"]) / place["height"],
                 box["width"] / place["width"], box["height"] / place["height"]]  # fmt: skip
        np.testing.assert_allclose(found, [wanted.left, wanted.top, wanted.width, wanted.height], atol=0.01)


def test_verdicts_and_undo(opened: Opened, heard: Store) -> None:
    page = opened("#clip=8")
    shown(page)
    page.keyboard.press("n")
    page.keyboard.type("two tones")
    page.fill("[aria-label='The right label']", "tone 500 Hz")
    page.click(".judge.wrong")
    saved(heard, heard[8].path, ("wrong", "tone 500 Hz", "two tones"))
    page.wait_for_url("**#clip=9")  # the next comes by itself
    page.keyboard.press("u")
    saved(heard, heard[9].path, ("unsure", None, ""))
    page.wait_for_url("**#clip=10")
    assert page.locator(".row >> nth=8").locator(".mark").inner_text().strip() == "judged wrong"
    counted = page.inner_text("#counts").split()
    page.keyboard.press("z")
    page.wait_for_url("**#clip=9")
    saved(heard, heard[9].path, None)
    assert page.inner_text("#counts").split()[:-1] == counted[:-1]
    page.keyboard.press("z")
    page.wait_for_url("**#clip=8")
    saved(heard, heard[8].path, None)
    assert page.locator(".judge[aria-pressed=true]").count() == 0


def test_a_verdict_that_cannot_be_saved_waits(opened: Opened, heard: Store) -> None:
    page = opened("#clip=12")
    page.allowed.append("Failed to load resource")  # as Chromium says of a server that is gone
    shown(page)
    page.route("**/api/verdict", lambda route: route.abort())
    page.keyboard.press("r")
    page.wait_for_selector("#notice:has-text('A verdict is not saved')")
    assert heard[12].path not in verdicts(heard)
    page.unroute("**/api/verdict")
    page.click("text=Try again")
    saved(heard, heard[12].path, ("right", None, ""))
    page.wait_for_selector("#notice:not(:has(p))", state="attached")
    page.keyboard.press("z")
    saved(heard, heard[12].path, None)


def test_an_undo_waits_for_the_verdict_that_is_on_its_way(opened: Opened, heard: Store) -> None:
    page = opened("#clip=14")
    shown(page)

    def late(route: Any) -> None:
        answer = route.fetch()
        page.wait_for_timeout(300)
        route.fulfill(response=answer)

    page.route("**/api/verdict", late)
    page.keyboard.press("w")
    page.keyboard.press("z")
    page.wait_for_selector("#told:has-text('Taken back: clip 14 is not judged now')", state="attached")
    assert heard[14].path not in verdicts(heard)


def test_a_clip_that_failed_says_why(opened: Opened, heard: Store) -> None:
    page = opened("#clip=3")
    assert heard.failures()[0].reason[:20] in page.inner_text("#clip .trouble")


def test_names_of_the_store_are_text(opened: Opened, heard: Store) -> None:
    page = opened("#clip=2")
    shown(page)
    assert HOSTILE in page.inner_text(".against")
    page.hover(".facts div >> nth=0")
    page.click(".row >> nth=0")
    page.wait_for_selector("h2:has-text('!<img src=x')")


def test_by_keys_alone(opened: Opened, heard: Store) -> None:
    page = opened(scripts=(PLAYED,))
    page.keyboard.press("/")
    page.keyboard.type("b/")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=/30 clips/")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url("**clip=30")
    shown(page)
    page.keyboard.press("ArrowDown")
    page.wait_for_url("**clip=31")
    shown(page)
    page.keyboard.press("1")
    page.wait_for_url("**clip=31&view=1")
    page.keyboard.press(" ")
    played(page, 0)
    page.keyboard.press("?")
    assert page.locator("dialog[open]").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.evaluate("document.activeElement.blur()")
    for _ in range(200):  # and by Tab alone
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('unsure')"):
            break
    page.keyboard.press("Enter")
    saved(heard, heard[31].path, ("unsure", None, ""))
    page.keyboard.press("z")
    saved(heard, heard[31].path, None)


def test_dark(opened: Opened) -> None:
    page = opened(dark=True)
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(background) == "rgb(18, 22, 29)"
    page.select_option("#theme", "light")
    assert page.evaluate(background) == "rgb(255, 255, 255)"
    page.reload()
    page.wait_for_selector(".row")
    assert page.evaluate(background) == "rgb(255, 255, 255)"


@pytest.mark.parametrize("place", ["", "#clip=4&view=1"], ids=["list", "clip"])
def test_on_a_phone(opened: Opened, place: str) -> None:
    page = opened(place, width=360)
    if place:
        shown(page)
        page.click(".judge.wrong", trial=True)
        assert not page.is_visible("#finding")
    page.evaluate("document.getElementById('help').showModal()")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("document.getElementById('help').scrollWidth") <= 360
    page.keyboard.press("Escape")
    if place:
        page.click(".to-list")
        page.wait_for_selector("#finding", state="visible")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_accessible(opened: Opened, dark: bool) -> None:
    page = opened(dark=dark)
    _no_violations(page)
    page.click(".row >> nth=4")
    shown(page)
    page.keyboard.press("1")
    page.wait_for_url("**view=1")
    _no_violations(page)
    page.keyboard.press("?")
    _no_violations(page)


def _no_violations(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []


def test_one_file_without_a_server(opened_file: Opened, heard: Store, tmp_path: Path) -> None:
    from logitstore.jobs.serve.offline import write_listening_page

    written = write_listening_page(heard, tmp_path / "listen.html", clips="12", views=1)
    assert (written.clips, list(written.unheard)) == (12, [])
    assert (tmp_path / "listen.html").stat().st_size == written.bytes
    page = opened_file(tmp_path / "listen.html", scripts=(PLAYED,))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    assert page.locator(".row").count() == 12
    page.fill("#text", "b/")
    page.press("#text", "Enter")
    page.wait_for_url("**#text=b%2F")
    page.click(".row >> nth=1")
    shown(page)
    assert "not the exact samples" in page.inner_text("#clip")
    clip = int(page.url.split("clip=")[1])
    page.keyboard.press("o")
    page.keyboard.press(" ")
    samples, about = played(page, 0)
    original = heard[clip].waveform
    length = min(len(samples), len(original))
    spectra = [np.abs(np.fft.rfft(each[:length])) for each in (samples, original)]
    assert about["rate"] == 16_000
    assert abs(len(samples) - len(original)) <= 160
    assert np.corrcoef(*spectra)[0, 1] > 0.9
    page.keyboard.press("?")
    page.fill("#settings input[maxlength]", "bob")
    page.click("text=Close")
    page.keyboard.press("n")
    page.keyboard.type("=1+1, say")
    page.keyboard.press("Escape")
    page.keyboard.press("w")
    page.wait_for_selector(".count.wrong:has-text('1')")
    _no_violations(page)
    with page.expect_download() as download:
        page.click("text=Download")
    (said,) = read_verdicts(download.value.path()).values()
    assert [(one.verdict, one.note, one.person) for one in said.values()] == [("wrong", "=1+1, say", "bob")]
    page.keyboard.press("z")
    page.wait_for_selector(".count.wrong:has-text('0')")
    assert [url for url in asked if not url.startswith(("file:", "blob:", "data:"))] == []


def test_one_file_fetches_nothing_and_says_so(heard: Store, tmp_path: Path) -> None:
    from logitstore.jobs.serve.offline import write_listening_page

    write_listening_page(heard, tmp_path / "listen.html", clips="2")
    html = (tmp_path / "listen.html").read_text()
    assert "default-src 'none'" in html
    assert "unsafe" not in html.split("content-security-policy")[1][:600]
    assert "/static/" not in html.split("<body>")[1]
    assert "Redistribution and use in source and binary forms" in html
    assert len(json.loads(html.split('id="audio">')[1].split("</script>")[0])) == 2
