"""Verdicts as an HTML page: one file with everything in it, or a folder with the pictures beside the page.

The templates are in `templates/`. A page needs no script, makes no request, and escapes everything that comes from
files.
"""

import base64
import contextlib
import itertools
import mimetypes
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from rediffuse.detection.verdict import Verdict
from rediffuse.errors import StorageError
from rediffuse.files import atomic_write, remove, result_path, write_bytes
from rediffuse.journal import Journal
from rediffuse.report.article import Truth, article, context_of, order
from rediffuse.report.charts import Chart
from rediffuse.report.details import details, pictures_of
from rediffuse.report.render import template
from rediffuse.report.words import kind_of
from rediffuse.threads import thread_pool

INDEX = "index.html"
MOST_ON_PAGE = 2000
"""Images on one page; a browser becomes slow with more."""
PICTURES = "pictures"
"""The subfolder of the pictures beside a page."""


@dataclass(frozen=True, kw_only=True)
class Table:
    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page above the images."""

    title: str
    anchor: str
    """Its name in links, unique in the page."""
    texts: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class _Entry:
    """One image of the report."""

    verdict: Verdict
    """Without its evidence."""
    articles: tuple[str, ...]
    """Its HTML in each page."""
    failures: tuple[str, ...]


class Report:
    """Collects verdicts on disk and writes them as pages. Pictures are made in threads, while the caller computes.

    More than `MOST_ON_PAGE` images are split into several pages with links: `index.html`, `index-2.html` and so on.
    """

    def __init__(self, *, file: Path | None = None, folder: Path | None = None, workers: int = 2) -> None:
        """Nothing is written yet.

        Args:
            file: a page that holds its pictures; None for no such page.
            folder: gets `index.html`, and the pictures in `pictures/` as the images are added; None for no folder.
            workers: threads that make pictures, at least 1.
        """
        self._pages: dict[str, _Page] = {}
        if file is not None:
            self._pages["report"] = _Page(file, None)
        if folder is not None:
            self._pages["evidence"] = _Page(folder / INDEX, folder)
        self._pool = thread_pool(workers)
        self._ahead = 2 * workers
        self._begun: deque[Future[_Entry]] = deque()
        self._counts: Counter[str] = Counter()
        self._has_truth = False
        self._samples: dict[str, Verdict] = {}
        self._folder = tempfile.TemporaryDirectory()
        self._articles = (Path(self._folder.name) / "articles.html").open("w+b")
        self._done = Journal(Path(self._folder.name) / "articles.sqlite", is_temporary=True)  # their places in the file
        self.failures: list[str] = []
        """The errors of files that could not be written, one line each; complete after `write`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        with contextlib.suppress(OSError):  # on a full disk, which `_stored` has told
            self._articles.close()
        self._done.close()
        self._folder.cleanup()

    def add(self, verdict: Verdict, truth: Truth | None = None) -> None:
        """Add an image; waits while many images wait for their pictures. Without a page nothing is done.

        Args:
            verdict: with its evidence, or the image has no pictures.
            truth: the class of the image, where it is known.
        """
        if not self._pages:
            return
        self._has_truth |= truth is not None
        self._begun.append(self._pool.submit(_entry, verdict, truth, tuple(self._pages.values())))
        while len(self._begun) > self._ahead:
            self._take()

    def write(
        self, *, headline: str | None = None, notes: Sequence[str] = (), sections: Sequence[Section] = ()
    ) -> dict[str, Path]:
        """Write the pages, and return the paths of those that could be written: `report` and `evidence`.

        Args:
            headline: the result in one sentence, without its full stop; None for the number of images by verdict.
            notes: sentences below the headline, such as that the work was interrupted.
            sections: parts above the images.
        """
        while self._begun:
            self._take()
        context = context_of(self._counts, list(self._samples.values()))
        context |= {"notes": notes, "has_truth": self._has_truth} | ({} if headline is None else {"headline": headline})
        written = {}
        for place, (name, page) in enumerate(self._pages.items()):
            try:
                page.write_all(self._written(place), self._counts.total(), context, sections)
                written[name] = page.path
            except StorageError as error:
                self.failures.append(str(error))
        return written

    def _take(self) -> None:
        entry = self._begun.popleft().result()
        self._counts[kind_of(entry.verdict)] += 1
        kind = "judged" if entry.verdict.judged else "unjudged"
        self._samples.setdefault(kind, entry.verdict)
        # The number distinguishes images of one name.
        key = f"{order(entry.verdict)} {self._counts.total():012}"
        self._done.add(key, {"places": [self._stored(text.encode()) for text in entry.articles]})
        self.failures += entry.failures

    def _stored(self, content: bytes) -> tuple[int, int]:
        """Where an article is in the file, and its size."""
        try:
            begin = self._articles.tell()
            self._articles.write(content)
            self._articles.flush()
        except OSError as error:
            raise StorageError(f"{self._articles.name}: could not be written: {error.strerror or error}") from error
        return begin, len(content)

    def _written(self, page: int) -> Iterator[str]:
        """The articles of one of the pages, in their order."""
        for _, row in self._done:
            begin, size = row["places"][page]
            self._articles.seek(begin)
            yield self._articles.read(size).decode()


@dataclass(frozen=True)
class _Page:
    path: Path
    folder: Path | None
    """The folder beside whose page the pictures are; None for a page that holds them."""

    def address(self, name: str, kind: str, content: bytes) -> str:
        """Store a picture; the value of its `src`, which has nothing that must be escaped."""
        if self.folder is None:
            return f"data:{mimetypes.guess_type(kind)[0]};base64,{base64.b64encode(content).decode()}"
        path = result_path(self.folder / PICTURES, name, f".{kind}")
        write_bytes(path, content)
        return quote(path.relative_to(self.folder).as_posix())

    def write_all(
        self, articles: Iterator[str], number: int, context: Mapping[str, Any], sections: Sequence[Section]
    ) -> None:
        """Write the page, and the further ones of many images; those of an earlier, longer report are removed."""
        num_pages = max(1, -(-number // MOST_ON_PAGE))
        for page in range(1, num_pages + 1):
            first = (page - 1) * MOST_ON_PAGE + 1
            own = {
                "sections": sections if page == 1 else (),
                "articles": itertools.islice(articles, MOST_ON_PAGE),
                "links": [(other, self._part(other).name) for other in range(1, num_pages + 1)],
                "part": page,
                "first": first,
                "last": min(number, first + MOST_ON_PAGE - 1),
                "number": number,
            }
            self._write(self._part(page), **{**context, **own})
        page = num_pages + 1
        while (old := self._part(page)).exists():
            remove(old)
            page += 1

    def _part(self, page: int) -> Path:
        return self.path if page == 1 else self.path.with_stem(f"{self.path.stem}-{page}")

    def _write(self, path: Path, **context: Any) -> None:
        context |= {"pictures_from": "data:" if self.folder is None else "'self' file:"}
        with atomic_write(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(template("page.html").generate(**context))


def self_contained(verdict: Verdict) -> str:
    """The HTML of one image, which holds its pictures, for `article.page`."""
    return _entry(verdict, None, [_Page(Path(), None)]).articles[0]


def _entry(verdict: Verdict, truth: Truth | None, pages: Sequence[_Page]) -> _Entry:
    pictures = pictures_of(verdict)
    facts = details(verdict)
    articles, failures = [], []
    for one in pages:
        addresses, problem = {}, None
        try:
            addresses = {kind: one.address(verdict.file, kind, content) for kind, content in pictures.files.items()}
        except StorageError as error:
            problem = f"The pictures are missing: {error}"
            failures.append(str(error))
        shown = {
            "pictures": pictures.figures if addresses else (),
            "strip": pictures.strip if addresses else None,
            "addresses": addresses,
        }
        articles.append(article(verdict, truth=truth, problem=problem, **facts, **shown))
    return _Entry(replace(verdict, evidence=None), tuple(articles), tuple(failures))
