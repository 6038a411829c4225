"""The pages of the server: the templates and the style of the report, and those of `templates/`."""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from fastapi.responses import HTMLResponse, Response, StreamingResponse
from jinja2 import Template

from rediffuse.report.article import order, page
from rediffuse.report.render import environment, policy
from rediffuse.web.config import ServerLimits
from rediffuse.web.jobs import Job

CHUNK = 1 << 16
"""Smallest number of characters that are sent together."""


def html(name: str, *, script: str | None = None, status: int = 200, **context: Any) -> Response:
    """A page.

    Args:
        name: its template.
        script: the template of its script; None for none.
        status: the status of the response, which the template also gets.
        context: the other values of the templates.
    """
    given = _shared() | context | {"status": status}
    given["script"] = None if script is None else _template(script).render(given)
    return HTMLResponse(_template(name).render(given), status, headers=_headers(given))


def results(job: Job, limits: ServerLimits) -> Response:
    """The page of a finished job: that of the report, with links to its files."""
    given = _shared() | {"script": _template("page.js").render(), "job": job, "limits": limits}
    return StreamingResponse(_page(job, given, _template("done.html")), headers=_headers(given), media_type="text/html")


def report(job: Job) -> Response:
    """The report of a finished job as a file, which `detect --report` would write."""
    given = {**environment().globals, "script": _template("page.js").render()}
    headers = _headers(given) | {"Content-Disposition": 'attachment; filename="report.html"'}
    return StreamingResponse(_page(job, {}, None), headers=headers, media_type="text/html")


def _page(job: Job, context: Mapping[str, Any], template: Template | None) -> Iterator[str]:
    items = sorted(job.items, key=lambda item: order(item.judged))
    articles = (item.article() for item in items)
    return _chunks(page([item.judged for item in items], articles, of=template, **context))


def _chunks(parts: Iterable[str]) -> Iterator[str]:
    begun: list[str] = []
    size = 0
    for part in parts:
        begun.append(part)
        size += len(part)
        if size >= CHUNK:
            yield "".join(begun)
            begun, size = [], 0
    yield "".join(begun)


def _template(name: str) -> Template:
    return environment("rediffuse.web").get_template(name)


@cache
def _shared() -> dict[str, Any]:
    """What all pages have: the style, and that they may talk to this server."""
    style = f"{environment().globals['style']}{_template('web.css').render()}"
    return {"style": style, "pictures_from": "data: blob:", "sends_to": "'self'", "referrer": "same-origin"}


def _headers(given: Mapping[str, Any]) -> dict[str, str]:
    allowed = policy(*(given[name] for name in ("style", "script", "pictures_from", "sends_to")))
    return {"Content-Security-Policy": f"{allowed}; frame-ancestors 'none'"}
