"""The pages of the server in a real browser, from the choice of images to the saved report."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from skimage import data

from browser import chromium
from web.conftest import TOKEN
from web.running import Running, picture

HOSTILE = "<b onclick=alert(1)>{{7*7}} ü.png"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture
def tab(browser: Browser, site: Running) -> Iterator[Page]:
    yield from watched(browser, site)


def watched(browser: Browser, site: Running, scripts: bool = True) -> Iterator[Page]:
    """The start page. At the end: no request left the server, and the browser found no fault."""
    tab = browser.new_page(java_script_enabled=scripts, accept_downloads=True)
    requests: list[str] = []
    faults: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.on("console", lambda message: faults.append(message.text))
    tab.on("pageerror", lambda error: faults.append(str(error)))
    tab.on("dialog", lambda dialog: faults.append(dialog.message))
    tab.goto(site.url)
    yield tab
    assert all(url.startswith((site.url, "data:", "blob:")) for url in requests)
    assert faults == []
    tab.close()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A file that is no image, and three photographs of scikit-image."""
    folder = tmp_path_factory.mktemp("images")
    for name in ("astronaut", "chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.jpg")
    (folder / HOSTILE).write_text("no image")
    return sorted(folder.iterdir(), key=lambda path: path.name.lower())


def judge(tab: Page, files: list[Path]) -> None:
    """Send images, and wait for the results."""
    tab.get_by_label("Choose images").set_input_files(files)
    tab.get_by_role("button", name="Judge").click()
    expect(tab.get_by_role("navigation", name="This job")).to_be_visible(timeout=30_000)


def test_four_files_are_uploaded_watched_judged_and_saved(tab: Page, images: list[Path], tmp_path: Path) -> None:
    tab.get_by_label("Choose images").set_input_files(images)
    expect(tab.get_by_role("status")).to_contain_text("4 images, ")
    assert tab.locator("#chosen bdi").all_inner_texts() == [path.name for path in images]
    tab.get_by_role("button", name="Judge").click()
    headline = "None of 4 images look generated; 3 could not be decided; 1 could not be judged."
    expect(tab.get_by_role("heading", level=1)).to_have_text(headline, timeout=30_000)
    names = tab.locator("article h3").all_text_contents()
    assert [*sorted(names[:3]), names[3]] == ["astronaut.jpg", "chelsea.jpg", "coffee.jpg", HOSTILE]
    tab.evaluate("for (const image of document.images) image.loading = 'eager'")
    tab.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
    assert tab.evaluate("[...document.images].filter((image) => image.naturalWidth).length") == 9
    for name, start in (("Report", "<!doctype html>"), ("CSV", "file,decision"), ("JSON", "[")):
        with tab.expect_download() as download:
            tab.get_by_role("link", name=name).click()
        download.value.save_as(tmp_path / name)
        assert (tmp_path / name).read_text().lstrip().startswith(start)
    assert tab.context.browser is not None
    page = tab.context.browser.new_page()
    page.goto((tmp_path / "Report").rename(tmp_path / "report.html").as_uri())
    expect(page.get_by_role("heading", level=1)).to_have_text(headline)
    page.close()
    tab.get_by_role("button", name="Delete now").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("Was an image made by a generator?")


@contextmanager
def stopped(site: Running) -> Iterator[None]:
    """The worker waits until the block ends."""
    worker = site.children()[0]
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def test_progress_and_the_time_left_are_seen_per_file(tab: Page, site: Running, tmp_path: Path) -> None:
    many = [tmp_path / f"{number}.png" for number in range(40)]
    for number, path in enumerate(many):
        path.write_bytes(picture(number))
    judge(tab, many[:1])
    tab.get_by_role("link", name="Judge other images").click()
    seen: list[str] = []
    tab.expose_function("saw", lambda text: seen.append(text))
    with stopped(site):
        tab.get_by_label("Choose images").set_input_files(many)
        tab.get_by_role("button", name="Judge").click()
        expect(tab.get_by_role("status")).to_contain_text("s left")
        expect(tab.locator("#files li").first).to_contain_text("is being judged")
        expect(tab.get_by_role("heading", level=1)).to_have_text("0 of 40 images are judged")
        assert Axe().run(tab).violations_count == 0
        tab.evaluate(
            """() => new MutationObserver(([{ target }]) => saw(target.innerText))
                .observe(document.getElementById("files"), { childList: true, subtree: true })"""
        )
    expect(tab.get_by_role("navigation", name="This job")).to_be_visible(timeout=30_000)
    assert "Could not be decided" in seen[-1]


def test_a_job_can_be_stopped(tab: Page, site: Running, images: list[Path]) -> None:
    with stopped(site):
        tab.get_by_label("Choose images").set_input_files(images)
        tab.get_by_role("button", name="Judge").click()
        tab.get_by_role("button", name="Stop and delete").click()
        expect(tab.get_by_role("heading", level=1)).to_have_text("Was an image made by a generator?")


def test_everything_can_be_done_by_keyboard(tab: Page, images: list[Path]) -> None:
    tab.on("filechooser", lambda chooser: None)  # from a while after the first listener on, no chooser is cancelled
    tab.keyboard.press("Tab")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.id") == "choose"
    with tab.expect_file_chooser() as chooser:
        tab.keyboard.press("Space")
    chooser.value.set_files(images[:2])
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.textContent") == "Remove"
    assert tab.locator("#chosen li").count() == 1
    while tab.evaluate("document.activeElement.id") != "judge":
        tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("navigation", name="This job")).to_be_visible(timeout=30_000)
    while tab.evaluate("document.activeElement.textContent") != "CSV":
        tab.keyboard.press("Tab")
    with tab.expect_download():
        tab.keyboard.press("Enter")


def test_images_can_be_dropped_and_pasted(tab: Page) -> None:
    given = """([name, content]) => {
        const transfer = new DataTransfer();
        const bytes = Uint8Array.from(content);
        transfer.items.add(new File([bytes], name, { type: "image/png" }));
        return transfer;
    }"""
    dropped = tab.evaluate_handle(given, ["dropped.png", list(picture())])
    tab.locator("main").dispatch_event("drop", {"dataTransfer": dropped})
    pasted = tab.evaluate_handle(given, ["pasted.png", list(picture(1))])
    tab.evaluate("(data) => document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data }))", pasted)
    assert tab.locator("#chosen bdi").all_inner_texts() == ["dropped.png", "pasted.png"]


def test_what_the_server_would_refuse_is_said_before_the_upload(tab: Page, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(3_000_001))
    tab.get_by_label("Choose images").set_input_files(tmp_path / "large.png")
    expect(tab.get_by_role("status")).to_have_text("1 image is larger than 3.0 MB.")
    assert tab.get_by_role("button", name="Judge").is_disabled()


def test_detectors_can_be_chosen_and_used(tab: Page, images: list[Path], weights: Path) -> None:
    tab.get_by_label("Detector").select_option(str(weights / "second"))
    judge(tab, images[1:2])
    assert "and its 4 windows" in tab.locator("figcaption").first.inner_text()


def test_without_scripts_it_is_a_form(browser: Browser, site: Running, images: list[Path]) -> None:
    for tab in watched(browser, site, scripts=False):
        judge(tab, images)
        assert tab.locator("article h3").count() == 4


def test_a_refusal_is_a_page_for_a_person(browser: Browser, site: Running) -> None:
    tab = browser.new_page()
    tab.goto(f"{site.url}/jobs/nothing")
    expect(tab.get_by_role("heading", level=1)).to_have_text("Not Found")
    assert "no such job" in tab.locator("main").inner_text()
    tab.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_and_nothing_is_wider_than_a_phone(
    tab: Page, images: list[Path], scheme: Literal["light", "dark"]
) -> None:
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.get_by_label("Choose images").set_input_files(images)
    form = Axe().run(tab)
    assert form.violations_count == 0, form.generate_report()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.get_by_role("button", name="Judge").click()
    expect(tab.get_by_role("navigation", name="This job")).to_be_visible(timeout=30_000)
    results = Axe().run(tab)
    assert results.violations_count == 0, results.generate_report()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


def test_results_print_as_a_document_without_controls(tab: Page, images: list[Path]) -> None:
    judge(tab, images)
    tab.emulate_media(media="print")
    assert not tab.get_by_role("navigation", name="This job").is_visible()
    assert tab.locator("article:visible").count() == 4
    assert tab.pdf().startswith(b"%PDF-")


def test_a_person_logs_in_uses_the_page_and_logs_out(browser: Browser, guarded: Running, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    url = guarded.url.replace("0.0.0.0", "127.0.0.1")
    tab = browser.new_page()
    tab.goto(url)
    assert Axe().run(tab).violations_count == 0
    tab.get_by_label("Token").fill(TOKEN)
    tab.keyboard.press("Enter")
    judge(tab, [tmp_path / "a.png"])
    tab.get_by_role("link", name="Judge other images").click()
    tab.get_by_role("button", name="Log out").click()
    expect(tab.get_by_role("heading", level=1)).to_have_text("This server needs a token")
    tab.close()
