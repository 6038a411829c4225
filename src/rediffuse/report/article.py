"""The HTML of a verdict, and of the page around many of them. Imports no torch: a server shows verdicts without it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Template

from rediffuse.detection.verdict import Verdict
from rediffuse.images.decode import printable
from rediffuse.report.render import template
from rediffuse.report.words import (
    KINDS,
    TITLES,
    UNKNOWN,
    counts_of,
    headline_of,
    kind_of,
    meanings,
    sentences,
    settings_facts,
)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The class that an image has in the data."""

    label: str
    """real or generated."""
    group: str
    wrong: bool
    """Whether the verdict is the opposite."""


def article(verdict: Verdict, *, truth: Truth | None = None, problem: str | None = None, **shown: Any) -> str:
    """The HTML of one image.

    Args:
        verdict: its verdict.
        truth: the class of the image, where it is known.
        problem: a sentence about what is missing.
        shown: what `details.details` returns, and `pictures`, `strip` and `addresses` of `article.html`; without them
            only the verdict is shown.
    """
    kind = kind_of(verdict)
    given = {
        "kind": kind,
        "score": "" if verdict.probability is None else f"{verdict.probability:.6f}",
        "name": printable(verdict.file),
        "title": TITLES[kind],
        "sentences": sentences(verdict),
        "truth": truth,
        "problem": problem,
    }
    return template("article.html").render({"details": None, "scale": None, "pictures": None} | given | shown)


def order(verdict: Verdict) -> str:
    """A text by which images are sorted: by verdict, then by score, then by name."""
    kind, score = KINDS.index(kind_of(verdict)), verdict.probability or 0
    return f"{kind} {1 - score:.17f} {verdict.file}"


def context_of(counts: Counter[str], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """The values for `page.html` that do not depend on the articles of one page.

    Args:
        counts: how many images of each kind the report has.
        verdicts: some of its verdicts, at least one that was judged, if there are any.
    """
    meaning = meanings(next((verdict for verdict in verdicts if verdict.judged), None))
    shown = [kind for kind in KINDS if kind != "unjudged" or counts[kind]]
    settings = next((verdict.settings for verdict in verdicts if verdict.settings), None)
    detector = next((verdict.detector_sha256 for verdict in verdicts if verdict.detector_sha256), None)
    facts = [] if settings is None else settings_facts(settings)
    facts += [] if detector is None else [("detector, SHA-256", detector)]
    return {
        "headline": headline_of(counts),
        "notes": (),
        "sections": (),
        "has_truth": False,
        "kinds": [
            {"name": kind, "title": TITLES[kind], "count": counts[kind], "meaning": meaning[kind]} for kind in shown
        ],
        "unknown": UNKNOWN,
        "settings": facts,
        "script": template("page.js").render(),
        "links": (),
        "part": 1,
    }


def page(
    verdicts: Sequence[Verdict], articles: Iterable[str], *, of: Template | None = None, **context: Any
) -> Iterator[str]:
    """The HTML of a page, in parts.

    Args:
        verdicts: those of all images, in the order of the page (see `order`).
        articles: the HTML of each image.
        of: a template that extends `page.html`; None for that one.
        context: further values for the template, also in place of those of `context_of`.
    """
    computed = context_of(counts_of(verdicts), verdicts)
    return (of or template("page.html")).generate(**computed | {"articles": articles} | context)
