"""The application: all routes behind the guard."""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer

from rediffuse.web import api, pages
from rediffuse.web.config import Address
from rediffuse.web.guard import Guard
from rediffuse.web.jobs import Jobs
from rediffuse.web.metrics import Metrics
from rediffuse.web.problems import Problem, problems, register
from rediffuse.web.supervisor import Supervisor

OPENAPI = "/api/openapi.json"


def application(
    *, jobs: Jobs, supervisor: Supervisor, metrics: Metrics, address: Address, device: str, clock: Callable[[], float]
) -> Guard:
    """The ASGI application of a server.

    Args:
        jobs: its jobs.
        supervisor: its worker.
        metrics: its figures.
        address: where it listens, and the token.
        device: the device of the networks, for clients.
        clock: seconds since any time.
    """
    has_token = address.token is not None
    app = FastAPI(
        title="rediffuse",
        version=version("rediffuse"),
        summary="Judge whether images were made by a generator, by their reconstruction error.",
        openapi_url=OPENAPI,
        docs_url=None,  # these pages would load scripts from other hosts
        redoc_url=None,
        responses=problems(*((401,) if has_token else (421,)), 403),
        dependencies=[Security(HTTPBearer(auto_error=False))] if has_token else [],
    )
    app.state.jobs = jobs
    register(app)
    app.include_router(api.routes(jobs, supervisor, metrics, device))
    app.include_router(pages.routes(jobs, lambda: guard, has_token))
    _describe_problems(app)
    guard = Guard(app, address=address, limits=jobs.limits, clock=clock, metrics=metrics)
    return guard


def _describe_problems(app: FastAPI) -> None:
    """Add the schema of problem details to the description, in place of FastAPI's schema of validation errors."""
    described = app.openapi

    def description() -> dict[str, Any]:
        if app.openapi_schema is None:
            content = described()
            schemas = content["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Problem"] = Problem.model_json_schema()
            for operations in content["paths"].values():
                for operation in operations.values():
                    if "HTTPValidationError" in str(operation["responses"].get("422")):
                        del operation["responses"]["422"]  # FastAPI's default; any text is a valid id
        return described()

    app.openapi = description  # FastAPI's way to change the description
