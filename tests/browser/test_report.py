"""The report in a real Chromium: axe-core finds nothing, nothing is loaded; keyboard, phone, print and dark work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logitstore import report
from logitstore.store.reader import Store

Opened = Callable[..., Any]


@pytest.fixture(scope="module")
def page_file(heard: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of the store of hostile names, with spectrograms."""
    file = tmp_path_factory.mktemp("report") / "report.html"
    audio = Path(heard.location).parent / "audio"
    report(store=heard.location, audio_root=str(audio), out=str(file))
    return file


@pytest.fixture
def shown(browser: Any, page_file: Path) -> Iterator[Opened]:
    """Opens the report as ``shown(width=360, dark=True)``. What its page says on the console fails the test, and so
    does whatever it loads, and a text of the store that runs."""
    contexts, said, loaded = [], [], []

    def open_page(width: int = 1280, dark: bool = False, **context: Any) -> Any:
        made = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", **context
        )
        contexts.append(made)
        page = made.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: loaded.append(request.url))
        page.goto(page_file.as_uri())
        return page

    yield open_page
    ran = [page.evaluate("window.ran") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert ran == [None] * len(ran), "a text of the store ran as a script"
    assert said == []
    assert {url for url in loaded if not url.startswith("data:")} <= {page_file.as_uri()}


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (360, True)])
def test_axe_finds_nothing(shown, width, dark):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = shown(width, dark, bypass_csp=True)  # axe-core is a script that the page's policy does not know
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_a_phone_scrolls_the_page_in_one_direction(shown):
    page = shown(360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.evaluate("document.querySelectorAll('.mel img').length") >= 9
    assert page.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")


def test_the_keyboard_alone_skips_and_sorts(shown):
    page = shown()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.id === 'store'")
    table = "table.sortable[aria-label='Classes']"
    page.locator(f"{table} thead button").nth(4).focus()
    order = f'[...document.querySelectorAll("{table} tbody tr")].map(row => Number(row.cells[4].dataset.v))'
    page.keyboard.press("Enter")
    falling = page.evaluate(order)
    assert falling == sorted(falling, reverse=True)
    page.keyboard.press("Space")
    assert page.evaluate(order) == sorted(falling)
    assert page.locator(f"{table} th").nth(4).get_attribute("aria-sort") == "ascending"
    assert page.locator(f"{table} [aria-sort]").count() == 1
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_button_turns_the_theme(shown):
    page = shown(dark=True)
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(paper) != dark
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(paper) == dark


def test_all_can_be_read_without_scripts(shown):
    page = shown(java_script_enabled=False)
    assert page.get_by_role("heading", level=2).count() >= 8
    assert page.locator("table.sortable tbody tr").count() > 30
    assert page.locator("figure svg[role=img]").count() >= 10
    assert page.locator("button:visible").count() == 0


def test_print_is_light_and_whole(shown):
    page = shown(794, dark=True)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav:visible, details:visible, #theme:visible").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 794
    assert page.evaluate(
        "[...document.querySelectorAll('.scroll')].every(each => each.scrollHeight <= each.clientHeight + 1)"
    )
    assert page.pdf(format="A4").startswith(b"%PDF")
