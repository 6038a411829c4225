"""The page of verdicts, opened in a real browser from the file system."""

import os
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, PngImagePlugin
from playwright.sync_api import Browser, Page

from browser import chromium
from rediffuse.detection.stability import MILD
from rediffuse.detection.verdict import JudgedCopy, Verdict
from rediffuse.errors import StorageError
from rediffuse.report.article import Truth
from rediffuse.report.page import Report, Section, Table
from rediffuse.report.words import UNKNOWN
from report.verdicts import judged, judged_by_windows, unjudged

HOSTILE = "100% <b onclick=alert(1)>&amp;\"'#? ü{{7*7}}.png"
ATTACK = "</script><script>document.title='taken'</script><img src=https://example.com/x.png onerror=alert(1)>"


def hostile_file() -> bytes:
    """A PNG file whose texts are HTML."""
    file, info = BytesIO(), PngImagePlugin.PngInfo()
    info.add_text("parameters", ATTACK)
    info.add_text("<i>", "x")
    Image.new("RGB", (200, 120)).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def verdicts() -> list[Verdict]:
    copies = tuple(JudgedCopy(change=change, probability=0.9, decision="generated") for change in MILD)
    return [
        replace(judged("a/x.png", "real"), copies=copies),
        replace(judged(HOSTILE, "unsure"), reason=ATTACK),
        replace(judged_by_windows("b.png", 3, content=hostile_file()), probability=0.97),
        judged("a/x.jpg"),
        unjudged("empty.png", f"empty.png: {ATTACK}"),
    ]


ORDER = ["b.png", "a/x.jpg", HOSTILE, "a/x.png", "empty.png"]
"""Sorted by verdict, and by score."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same verdicts as one file, as a folder, and, as `known`, with the class of each image and a section."""
    folder = tmp_path_factory.mktemp("report")
    with Report(file=folder / "report.html", folder=folder / "evidence") as report:
        for verdict in verdicts():
            report.add(verdict)
        written = report.write()
    assert report.failures == []
    table = Table(caption="Groups", headings=("group", "real"), rows=[("<u>flux</u>", "1.0%")])
    with Report(file=folder / "known.html") as report:
        for place, verdict in enumerate(verdicts()):
            report.add(verdict, Truth(label="real", group="<u>cameras", wrong=place == 3))
        known = report.write(
            headline="1 of 4 is wrong", sections=[Section(title="Figures", anchor="f", tables=[table])]
        )
    return {**written, "known": known["report"]}


@pytest.fixture(params=["report", "evidence", "known"])
def opened(browser: Browser, pages: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[Page]:
    yield from watched(browser, pages[request.param])


@pytest.fixture
def tab(browser: Browser, pages: dict[str, Path]) -> Iterator[Page]:
    """The page that is one file."""
    yield from watched(browser, pages["report"])


def watched(browser: Browser, path: Path, scripts: bool = True) -> Iterator[Page]:
    tab = browser.new_page(java_script_enabled=scripts)
    requests: list[str] = []
    faults: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: faults.append(message.text))
    tab.on("dialog", lambda dialog: faults.append(dialog.message))
    tab.goto(path.as_uri())
    yield tab
    assert all(url.startswith(("file://", "data:")) for url in requests), "the page loads something from elsewhere"
    assert faults == []
    tab.close()


def shown(tab: Page) -> list[str]:
    # Not the inner text, which a browser does not compute for what is far outside the screen.
    return tab.locator("article:visible h3").all_text_contents()


def test_the_page_begins_with_the_result_and_what_the_method_cannot_know(tab: Page) -> None:
    result = (
        "2 of 5 images look generated; 1 could not be decided; 1 shows no sign of generation; 1 could not be judged."
    )
    assert tab.locator("h1").inner_text() == result
    assert tab.title().startswith(result[:-1])
    assert tab.locator(".unknown li").all_inner_texts() == list(UNKNOWN)
    assert len(UNKNOWN) == 3


def test_every_image_is_there_sorted_by_verdict_with_its_pictures(opened: Page) -> None:
    assert shown(opened) == ORDER
    opened.evaluate("for (const image of document.images) image.loading = 'eager'")
    opened.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
    found = opened.evaluate("[...document.images].map((image) => [image.naturalWidth, image.alt])")
    assert len(found) == 13  # of four images the picture, the error and the windows, and a picture under an error
    assert all(width for width, _ in found)
    assert sum(not alt for _, alt in found) == 1


def test_the_error_is_seen_in_colours_over_the_gray_image(tab: Page) -> None:
    """The three windows take 13 % of the picture, and their largest errors are coloured."""
    article = tab.locator("article").first
    frame = article.locator(".frame:has(.error)")
    frame.locator("svg").evaluate("outlines => outlines.remove()")
    frame.evaluate("frame => Promise.all([...frame.querySelectorAll('img')].map((image) => image.decode()))")
    shown = np.asarray(Image.open(BytesIO(frame.screenshot())).convert("RGB")).astype(int)  # (H, W, 3)
    is_coloured = np.ptp(shown, axis=2) > 30
    assert 0.05 < is_coloured.mean() < 0.15


@pytest.mark.parametrize(("page", "scheme"), [("report", "light"), ("known", "dark")])
def test_axe_finds_no_violation(
    browser: Browser, pages: dict[str, Path], page: str, scheme: Literal["light", "dark"]
) -> None:
    for tab in watched(browser, pages[page]):
        tab.emulate_media(color_scheme=scheme)
        tab.get_by_role("button", name="Open all details").click()
        results = Axe().run(tab)
        assert results.violations_count == 0, results.generate_report()


def test_names_reasons_and_metadata_are_text(opened: Page) -> None:
    opened.get_by_role("button", name="Open all details").click()
    text = opened.locator("#list").text_content() or ""
    assert text.count(ATTACK) == 3
    assert HOSTILE in text
    assert "states: <i>" in text
    assert opened.title() != "taken"
    assert opened.locator("script").count() == 1
    assert opened.locator("article b[onclick], article i, main u").count() == 0


def test_the_policy_stops_scripts_and_requests_that_are_not_the_pages_own(browser: Browser, tmp_path: Path) -> None:
    with Report(file=tmp_path / "a.html") as report:
        report.add(judged("a.png"))
        report.write()
    page = (tmp_path / "a.html").read_text()
    assert ATTACK not in page
    (tmp_path / "b.html").write_text(page.replace("</main>", f"</main>{ATTACK}<p style='color: red'>"))
    tab = browser.new_page()
    failures: dict[str, str | None] = {}
    tab.on("request", lambda request: failures.setdefault(request.url, None))
    tab.on("requestfailed", lambda request: failures.update({request.url: request.failure}))
    tab.goto((tmp_path / "b.html").as_uri())
    assert tab.title() != "taken"
    assert failures.pop("https://example.com/x.png") == "csp"
    assert all(url.startswith(("file:", "data:")) for url in failures)
    assert tab.locator("main + script + img + p").evaluate("one => getComputedStyle(one).color") != "rgb(255, 0, 0)"
    tab.close()


def test_search_filter_and_order_work_by_keyboard(tab: Page) -> None:
    tab.get_by_label("Name contains").focus()
    tab.keyboard.type("A/X")
    assert shown(tab) == ["a/x.jpg", "a/x.png"]
    assert tab.get_by_role("status").inner_text() == "2 of 5 images are shown"
    tab.get_by_label("Looks generated (2)").focus()
    tab.keyboard.press("Space")
    assert shown(tab) == ["a/x.png"]
    tab.keyboard.press("Space")
    tab.get_by_label("Name contains").fill("")
    tab.get_by_label("Order").select_option("name")
    assert shown(tab) == [HOSTILE, "a/x.jpg", "a/x.png", "b.png", "empty.png"]
    tab.get_by_label("Order").select_option("verdict")
    assert shown(tab) == ORDER
    tab.locator("summary").first.focus()
    tab.keyboard.press("Enter")
    assert tab.locator("details[open]").count() == 1


def test_wrong_verdicts_can_be_shown_alone_where_the_class_is_known(browser: Browser, pages: dict[str, Path]) -> None:
    for tab in watched(browser, pages["known"]):
        tab.get_by_label("wrong verdicts only").check()
        assert shown(tab) == ["a/x.jpg"]
        assert "The verdict is wrong." in tab.locator("article:visible").inner_text()
        assert tab.locator("h1").inner_text() == "1 of 4 is wrong."
        assert tab.get_by_role("table", name="Groups").locator("td").all_inner_texts() == ["1.0%"]


def test_without_scripts_everything_can_be_read(browser: Browser, pages: dict[str, Path]) -> None:
    for tab in watched(browser, pages["report"], scripts=False):
        assert shown(tab) == ORDER
        assert not tab.locator("form").is_visible()
        tab.locator("summary").first.click()
        assert tab.get_by_role("table", name="Frequency bands").first.is_visible()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_nothing_is_wider_than_the_screen(opened: Page, width: int) -> None:
    opened.set_viewport_size({"width": width, "height": 800})
    opened.get_by_role("button", name="Open all details").click()
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_paper_is_white_and_has_no_controls(tab: Page) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(colour) != "rgb(255, 255, 255)"
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate(colour) == "rgb(255, 255, 255)"
    assert not tab.locator("form").is_visible()
    assert tab.locator("article:visible").count() == 5


def test_windows_are_outlined_by_what_they_say(tab: Page) -> None:
    squares = tab.locator("article").first.locator(".frame").first.locator("path:not(.halo)")
    assert [square.get_attribute("class") for square in squares.all()] == ["real", "real", "generated"]
    cells = tab.locator("article").first.locator("table").nth(1).locator("tr td:last-child")
    assert cells.all_text_contents() == ["-1.00", "-0.25", "+0.50"]


def test_files_that_cannot_be_written_do_not_stop_the_others(tmp_path: Path) -> None:
    in_the_way = tmp_path / "evidence" / "pictures" / "a"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.touch()
    (tmp_path / "file").touch()
    with Report(file=tmp_path / "file" / "report.html", folder=tmp_path / "evidence") as report:
        for name in ("a/x.png", "b.png", "c" * 255):
            report.add(judged(name))
        written = report.write()
    assert list(written) == ["evidence"]
    assert [failure.split(": ")[0] for failure in report.failures] == [
        str(in_the_way / "x.png.picture.jpg"),
        str(tmp_path / "file" / "report.html"),
    ]
    page = written["evidence"].read_text()
    assert page.count("<img") == 6
    assert "The pictures are missing: " in page
    assert len([*(tmp_path / "evidence" / "pictures").glob("*.*g")]) == 6


def test_a_full_disk_for_the_articles_is_an_error_of_one_line(tmp_path: Path) -> None:
    report = Report(file=tmp_path / "report.html")
    with Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), report._articles.fileno())
    report.add(judged("a.png"))
    with pytest.raises(StorageError, match=r"articles\.html: could not be written: No space left on device$"), report:
        report.write()
    assert not (tmp_path / "report.html").exists()


def test_the_same_verdicts_make_the_same_page(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        with Report(file=tmp_path / name) as report:
            for verdict in verdicts():
                report.add(verdict)
            report.write(notes=["<interrupted>"])
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert "&lt;interrupted&gt;" in (tmp_path / "a.html").read_text()


def test_many_images_are_split_into_pages_that_link_to_one_another(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rediffuse.report.page.MOST_ON_PAGE", 2)
    for number in (5, 3):  # the second report is shorter, and leaves no page of the first
        with Report(file=tmp_path / "a b.html") as report:
            for verdict in verdicts()[:number]:
                report.add(verdict)
            path = report.write(sections=[Section(title="Figures", anchor="f")])["report"]
        pages = [tmp_path / name for name in ("a b.html", "a b-2.html", "a b-3.html")]
        assert sorted(tmp_path.glob("*.html")) == sorted(pages[: -(-number // 2)])
        if number == 5:
            for tab in watched(browser, path):
                assert shown(tab) == ORDER[:2]
                assert "Images 1 to 2 of 5" in tab.get_by_role("navigation", name="Pages", exact=True).inner_text()
                assert Axe().run(tab).violations_count == 0
                tab.get_by_role("link", name="3").first.click()
                assert shown(tab) == ORDER[4:]
                assert tab.title().startswith("2 of 5 images look generated")
                assert tab.locator("#f").count() == 0
                tab.get_by_role("link", name="2").last.click()
                assert shown(tab) == ORDER[2:4]


def test_a_report_without_images_is_a_page(tmp_path: Path) -> None:
    with Report(file=tmp_path / "a.html") as report:
        report.write()
    assert "None of 0 images look generated" in (tmp_path / "a.html").read_text()
