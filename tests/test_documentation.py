"""The site of `make docs` is built with strict checks, is complete, and makes no requests to other hosts."""

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import rediffuse

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
PARTS = {path.parent.name for path in (ROOT / "src" / "rediffuse").glob("*/__init__.py")} - {"cli"}


class Page(HTMLParser):
    """The anchors of a page, and its references."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        """The targets of its links."""
        self.resources: set[str] = set()
        """The files that a browser loads for this page."""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        if "id" in given:
            self.ids.add(given["id"])
        if "src" in given:
            self.resources.add(given["src"])
        if "href" in given:
            (self.resources if tag == "link" else self.links).add(given["href"])


@pytest.fixture(scope="module")
def report() -> str:
    """The output of the build of the site."""
    here = ("-o", ".venv/.dev", f"BIN={Path(sys.executable).parent}")  # what is installed already
    built = subprocess.run(["make", *here, "docs"], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    return built.stdout + built.stderr


@pytest.fixture(scope="module")
def pages(report: str) -> dict[Path, Page]:
    """The pages of the site by their paths in it."""
    return {path.relative_to(SITE): Page(path) for path in SITE.rglob("*.html")}


def test_docstrings_describe_parameters_that_exist_one_at_a_time(report: str) -> None:
    assert [line for line in report.splitlines() if "griffe:" in line] == []


def test_every_public_name_and_every_part_but_the_commands_has_its_place(pages: dict[Path, Page]) -> None:
    reference = Path("docs", "reference")
    modules = {"errors": ("foundation", "rediffuse.errors"), "samplers": ("diffusion", "rediffuse.diffusion.samplers")}
    names = {f"rediffuse.{name}" for name in rediffuse.__all__ if name not in modules}
    assert names <= pages[reference / "index.html"].ids
    for page, anchor in modules.values():
        assert anchor in pages[reference / f"{page}.html"].ids
    foundation = {f"rediffuse.{name}" for name in ("errors", "records", "files", "progress")}
    assert foundation <= pages[reference / "foundation.html"].ids
    for part in PARTS:
        assert f"rediffuse.{part}" in pages[reference / f"{part}.html"].ids


def test_every_page_can_be_reached_from_the_navigation(pages: dict[Path, Page]) -> None:
    reached = {(SITE / link).resolve() for link in pages[Path("index.html")].links if not urlsplit(link).scheme}
    assert {path for path in pages if (SITE / path).resolve() not in reached} == {Path("404.html")}


def test_links_and_pictures_of_the_site_lead_to_files(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        for link in page.links | page.resources:
            if not urlsplit(link).scheme and path != Path("404.html"):
                assert (SITE / path.parent / unquote(urlsplit(link).path)).exists(), f"{path}: {link}"


def test_pages_load_nothing_from_other_hosts(pages: dict[Path, Page]) -> None:
    assert not {resource for page in pages.values() for resource in page.resources if urlsplit(resource).netloc}
