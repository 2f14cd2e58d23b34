"""The page in Chromium: it asks for nothing, complains of nothing, and can be read by all and on every screen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from recsys.report.page import page as html_of
from tests.recsys.report.nights import whole_night

pytestmark = pytest.mark.integration

NIGHTS = {"published": whole_night(), "kept-back": whole_night(passed=False), "bare": {"name": "bare"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name, night in NIGHTS.items():
        (folder / f"{name}.html").write_text(html_of(night), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1180, "height": 900}, java_script_enabled=True)
    context.set_default_timeout(120_000)  # a busy machine
    yield context.new_page()
    context.close()


def opened(tab: Page, path: Path, width: int = 1180, dark: bool = False, media: str = "screen") -> Page:
    tab.set_viewport_size({"width": width, "height": 900})
    tab.emulate_media(color_scheme="dark" if dark else "light", media="print" if media == "print" else "screen")
    tab.goto(path.as_uri())
    return tab


@pytest.mark.parametrize("name", list(NIGHTS))
def test_it_asks_for_nothing_and_complains_of_nothing(tab: Page, folder: Path, name: str) -> None:
    asked: list[str] = []
    said: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: said.append(message.text))
    tab.on("pageerror", lambda error: said.append(str(error)))
    path = folder / f"{name}.html"
    opened(tab, path)
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert said == []


@pytest.mark.parametrize(("name", "dark"), [("published", False), ("kept-back", True)])
def test_axe_finds_no_fault(tab: Page, folder: Path, name: str, dark: bool) -> None:
    page = opened(tab, folder / f"{name}.html", dark=dark)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


@pytest.mark.parametrize("name", list(NIGHTS))
def test_a_phone_shows_it_without_scrolling_sideways(tab: Page, folder: Path, name: str) -> None:
    page = opened(tab, folder / f"{name}.html", width=390)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    # what is wider scrolls inside its own region, which the keyboard reaches
    wide = "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth)"
    assert page.evaluate(f"{wide}.every(one => one.tabIndex === 0)")
    if name == "published":
        small = "[...document.querySelectorAll('svg.chart')].map(one => one.getBoundingClientRect().width / 360)"
        assert min(page.evaluate(small)) > 0.9  # so that text keeps its size


def colours(page: Page) -> tuple[str, str]:
    return tuple(page.evaluate("(style => [style.backgroundColor, style.color])(getComputedStyle(document.body))"))


def test_dark_is_dark_and_print_is_black_on_white_also_where_the_screen_is_dark(tab: Page, folder: Path) -> None:
    path = folder / "published.html"
    assert colours(opened(tab, path)) == ("rgb(255, 255, 255)", "rgb(27, 31, 36)")
    assert colours(opened(tab, path, dark=True)) == ("rgb(18, 22, 27)", "rgb(230, 233, 236)")
    printed = opened(tab, path, width=720, dark=True, media="print")  # A4 between its margins
    assert colours(printed) == ("rgb(255, 255, 255)", "rgb(0, 0, 0)")
    assert printed.evaluate("document.documentElement.scrollWidth") <= 720


def test_it_can_be_printed(tab: Page, folder: Path) -> None:
    content = opened(tab, folder / "published.html").pdf(format="A4", print_background=True)
    assert content.startswith(b"%PDF")
