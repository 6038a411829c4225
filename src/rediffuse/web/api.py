"""The routes for programs."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.requests import ClientDisconnect

from rediffuse.report.tables import csv_lines, json_parts
from rediffuse.web import render
from rediffuse.web.guard import HEALTH
from rediffuse.web.jobs import Job, Jobs
from rediffuse.web.metrics import Metrics
from rediffuse.web.problems import problems
from rediffuse.web.records import DetectorRecord, FileVerdict, Health, JobStatus, LimitsRecord, Models
from rediffuse.web.supervisor import Supervisor
from rediffuse.web.uploads import body, receive

PAUSE = 0.1
"""Seconds between two events of a stream, at least."""
KINDS = {"html": "text/html", "csv": "text/csv", "json": "application/json"}
UPLOAD_PROBLEMS = (408, 413, 415, 422, 429, 503, 507)


async def find_job(id: str, request: Request) -> Job:
    """The job in the path of a request."""
    jobs: Jobs = request.app.state.jobs
    return jobs.get(id)


Found = Annotated[Job, Depends(find_job)]


def routes(jobs: Jobs, supervisor: Supervisor, metrics: Metrics, device: str) -> APIRouter:
    """The interface for programs."""
    router = APIRouter()

    @router.post("/api/jobs", status_code=202, openapi_extra=body(), responses=problems(*UPLOAD_PROBLEMS))
    async def create_job(request: Request, response: Response) -> JobStatus:
        """Upload files and queue them."""
        job = await receive(request, jobs)
        jobs.submit(job)
        response.headers["Location"] = f"/api/jobs/{job.id}"
        return JobStatus.of(job, jobs)

    @router.get("/api/jobs/{id}", responses=problems(404))
    async def read_job(job: Found) -> JobStatus:
        """The state of a job, and the verdicts so far."""
        return status_of(job)

    @router.get("/api/jobs/{id}/events", response_class=EventSourceResponse, responses=problems(404))
    async def watch_job(job: Found) -> AsyncIterator[ServerSentEvent]:
        """The state of a job, as an event `status` at every change; the stream ends when the job is done or deleted."""
        jobs.watch(job, 1)
        try:
            while True:
                changed = job.changed
                status = status_of(job)
                yield ServerSentEvent(event="status", data=status)
                if status.state == "done":
                    return
                await changed.wait()
                if job.is_deleted:
                    return
                await asyncio.sleep(PAUSE)
        finally:
            jobs.watch(job, -1)

    @router.get(
        "/api/jobs/{id}/report",
        response_class=Response,
        responses={**problems(404, 409, 422), 200: {"content": {kind: {} for kind in KINDS.values()}}},
    )
    async def read_report(job: Found, format: Literal["html", "csv", "json"] = "html") -> Response:
        """The verdicts of a finished job as a file: the page with the evidence, or a table."""
        if status_of(job).state != "done":
            raise HTTPException(409, "the job is not done yet", {"Retry-After": "1"})
        if format == "html":
            return render.report(job)
        rows = [verdict.to_row() for verdict in job.verdicts()]
        text = "".join(json_parts(rows) if format == "json" else (f"{line}\n" for line in csv_lines(rows)))
        headers = {"Content-Disposition": f'attachment; filename="verdicts.{format}"'}
        return Response(text, headers=headers, media_type=KINDS[format])

    @router.delete("/api/jobs/{id}", status_code=204, responses=problems(404))
    async def delete_job(job: Found) -> None:
        """Stop a job, and delete its files and results."""
        jobs.remove(job)

    @router.post("/api/detect", openapi_extra=body(most=1), responses=problems(*UPLOAD_PROBLEMS))
    async def detect(request: Request) -> FileVerdict:
        """Upload one image, and wait for its verdict. Nothing is kept."""
        job = await receive(request, jobs)
        try:
            if len(job.items) != 1:
                raise HTTPException(422, f"{len(job.items)} files; send one, or use /api/jobs")
            jobs.submit(job)
            await _until_done(job, request)
            [item] = job.items
            if item.is_returned:
                raise HTTPException(503, item.judged.reason or "", {"Retry-After": "30"})
            if not item.judged.judged:
                raise HTTPException(422, item.judged.reason or "")
            return FileVerdict.of(item.judged)
        finally:
            jobs.remove(job)

    @router.get("/api/models")
    async def read_models() -> Models:
        """The detectors, their models, and the limits of requests."""
        detectors = [DetectorRecord.of(info) for info in jobs.detectors.values()]
        return Models(detectors=detectors, device=device, limits=LimitsRecord.of(jobs.limits))

    @router.get(HEALTH, responses=problems(503))
    async def health() -> Health:
        """Whether the server can judge images."""
        if not supervisor.is_ready:
            raise HTTPException(503, "the worker is being started", {"Retry-After": "5"})
        return Health()

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def read_metrics() -> Response:
        """Figures in the format of Prometheus."""
        metrics.waiting.set(jobs.num_waiting)
        metrics.jobs.set(jobs.num_jobs)
        metrics.stored.set(jobs.num_bytes)
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    def status_of(job: Job) -> JobStatus:
        status = JobStatus.of(job, jobs)
        job.is_collected = status.state == "done"
        return status

    return router


async def _until_done(job: Job, request: Request) -> None:
    """Wait for the verdicts of a job.

    Raises:
        ClientDisconnect: the client went away.
    """
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        while job.state != "done":
            changed = asyncio.ensure_future(job.changed.wait())
            await asyncio.wait((gone, changed), return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if gone.done():
                raise ClientDisconnect
    finally:
        gone.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
