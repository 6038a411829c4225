"""Every error as problem details (RFC 9457); for a person who uses the page, as a page."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteError
from starlette.requests import ClientDisconnect

from rediffuse.web.render import html

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(default="about:blank", description="A kind of problem; about:blank: the status says it.")
    title: str = Field(description="The name of the status.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What was given, and what is allowed.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route in OpenAPI for these statuses."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def answer(request: Request, status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that failed."""
    title = HTTPStatus(status).phrase
    if wants_page(request):
        response = html("problem.html", status=status, title=title, detail=detail)
    else:
        problem = Problem(title=title, status=status, detail=detail)
        response = JSONResponse(problem.model_dump(), status, media_type=MEDIA_TYPE)
    response.headers.update(headers or {})
    return response


def wants_page(request: Request) -> bool:
    """Whether a person in a browser asked."""
    return not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


def register(app: FastAPI) -> None:
    """Make all errors of an application problem details."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteError)
        return answer(request, error.status_code, str(error.detail), error.headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer(request, 422, "; ".join(map(_in_words, error.errors())))

    async def failed(request: Request, error: Exception) -> Response:
        return answer(request, 500, "an error of the server; its log says more")

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it

    for kind, handler in (
        (StarletteError, refused),
        (HTTPException, refused),
        (RequestValidationError, invalid),
        (ClientDisconnect, gone),
        (Exception, failed),
    ):
        app.add_exception_handler(kind, handler)


def _in_words(error: Mapping[str, Any]) -> str:
    place: Sequence[Any] = error["loc"]
    return f"{'.'.join(map(str, place[1:])) or place[0]}: {error['msg']}"
