"""The routes for people: pages that also work without scripts."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import RedirectResponse

from rediffuse.report.words import TITLES, UNKNOWN, kind_of
from rediffuse.web import render
from rediffuse.web.api import Found
from rediffuse.web.guard import COOKIE, LOGIN, Guard
from rediffuse.web.jobs import Jobs
from rediffuse.web.uploads import receive


def routes(jobs: Jobs, guard: Callable[[], Guard], has_token: bool) -> APIRouter:
    """The pages.

    Args:
        jobs: the jobs of the server.
        guard: returns what checks the token; it is made after the routes.
        has_token: whether the server has a token.
    """
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def show_form() -> Response:
        return render.html(
            "index.html",
            script="upload.js",
            detectors=list(jobs.detectors.values()),
            limits=jobs.limits,
            unknown=UNKNOWN,
            has_token=has_token,
        )

    @router.post("/jobs")
    async def create_job(request: Request) -> Response:
        job = await receive(request, jobs)
        jobs.submit(job)
        return RedirectResponse(f"/jobs/{job.id}", 303)

    @router.get("/jobs/{id}")
    async def show_job(job: Found) -> Response:
        if job.state == "done":
            job.is_collected = True
            return render.results(job, jobs.limits)
        words = {"waiting": "waits", "judging": "is being judged"}
        files = [(item.name, words.get(item.state) or TITLES[kind_of(item.judged)]) for item in job.items]
        return render.html("job.html", script="job.js", job=job, files=files, seconds_left=jobs.seconds_left(job))

    @router.post("/jobs/{id}/delete")
    async def delete_job(job: Found) -> Response:
        jobs.remove(job)
        return RedirectResponse("/", 303)

    @router.get(LOGIN)
    async def show_login() -> Response:
        return render.html("login.html", is_wrong=False)

    @router.post(LOGIN)
    async def log_in(request: Request, token: Annotated[str, Form()]) -> Response:
        if not guard().is_token(token):
            return render.html("login.html", status=401, is_wrong=True)
        response = RedirectResponse("/", 303)
        is_safe = request.url.scheme == "https"
        response.set_cookie(COOKIE, guard().session, httponly=True, samesite="strict", secure=is_safe)
        return response

    @router.post("/logout")
    async def log_out() -> Response:
        response = RedirectResponse(LOGIN, 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response

    return router
