"""The evidence page, opened in a real browser from the file system."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from rediffuse.files import write_bytes
from rediffuse.report.evidence import evidence_png
from rediffuse.report.page import page, picture_name, write_page
from report.verdicts import judged, unjudged

HOSTILE = "100% <b>&amp;\"'#? ü.png"
VERDICTS = [judged("a/x.jpg"), judged(HOSTILE, "unsure"), judged("a/x.png", "real"), unjudged("empty.png")]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        assert "CI" not in os.environ, "chromium is missing; `make test` installs it"
        pytest.skip("chromium is not installed (`make test` installs it)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evidence")
    for verdict in VERDICTS:
        if verdict.judged:
            write_bytes(folder / picture_name(verdict), evidence_png(verdict))
    return write_page(folder, VERDICTS)


@pytest.fixture
def opened(browser: Browser, index: Path) -> Iterator[Page]:
    tab = browser.new_page()
    requests: list[str] = []
    faults: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: faults.append(message.text))
    tab.goto(index.as_uri())
    yield tab
    assert all(url.startswith("file://") for url in requests), "the page loads something from elsewhere"
    assert faults == []
    tab.close()


def test_every_verdict_has_a_card_under_its_own_name(opened: Page) -> None:
    assert opened.locator("article h2").all_inner_texts() == [verdict.file for verdict in VERDICTS]


def test_every_picture_loads(opened: Page) -> None:
    for picture in opened.locator("img").all():
        picture.scroll_into_view_if_needed()
        opened.wait_for_function("image => image.complete", arg=picture.element_handle())
        assert picture.evaluate("image => image.naturalWidth") == 1500
    assert opened.locator("img").count() == 3


def test_a_click_on_a_decision_leaves_its_cards(opened: Page) -> None:
    opened.get_by_label("not judged (1)").check()
    assert opened.locator("article:visible h2").all_inner_texts() == ["empty.png"]
    opened.get_by_label("all (4)").check()
    assert opened.locator("article:visible").count() == 4


@pytest.mark.parametrize("width", [320, 390, 1600])
def test_nothing_is_wider_than_the_screen(opened: Page, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_light_differ(opened: Page) -> None:
    colours = set()
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        colours.add(opened.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_the_page_explains_every_decision_with_its_limit() -> None:
    html = page([judged("a.png", "unsure"), unjudged("b.png")])
    assert "The detector says so of at most 5.0% of photographs from sources that were not in its training." in html
    assert all(f"<strong>{decision}</strong></dt>" in html for decision in ("generated", "unsure", "real"))
    assert "<dl>" not in page([unjudged("b.png")])


def test_names_are_escaped() -> None:
    assert "<b>" not in page(VERDICTS)
