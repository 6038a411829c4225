"""Receive multipart/form-data: files go to the disk in the chunks in which they arrive."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from fastapi import HTTPException, Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from rediffuse.web.jobs import Item, Job, Jobs, no_room

FILES, DETECTOR = "files", "detector"
"""The names of the fields."""
LONGEST_TEXT = 1000
"""Most bytes of a field that is no file."""


def body(most: int | None = None) -> dict[str, Any]:
    """The request of an upload of at most so many files, in OpenAPI.

    It is not declared by parameters, because FastAPI would store a whole upload before the server could look at it.
    """
    files: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
    files |= {"description": "Image files."} | ({} if most is None else {"maxItems": most})
    detector = {"type": "string", "description": "A name of /api/models; without it the first one is used."}
    schema = {
        "type": "object",
        "required": [FILES],
        "additionalProperties": False,
        "properties": {FILES: files, DETECTOR: detector},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


async def receive(request: Request, jobs: Jobs) -> Job:
    """Store the files of a request as a new job, which is not queued yet.

    Whatever goes wrong, also that the client goes away, nothing of the request is left.

    Raises:
        HTTPException: see `Jobs.open`, `add` and `grow`; 408 if it takes too long, 415 for another type of content, 422
            if a field is missing, unknown or wrong, 507 if the disk is full.
    """
    kind, parameters = parse_options_header(request.headers.get("content-type"))
    boundary = parameters.get(b"boundary")
    if kind != b"multipart/form-data":
        raise HTTPException(415, "multipart/form-data is needed", {"Accept": "multipart/form-data"})
    if not boundary:
        raise HTTPException(422, "Content-Type: multipart/form-data without a boundary")
    job = jobs.open()
    upload = _Upload(jobs, job)
    try:
        async with asyncio.timeout(jobs.limits.max_seconds):
            await upload.read(request, boundary)
        job.detector = _detector(upload.texts.get(DETECTOR), jobs)
        if not job.items:
            raise HTTPException(422, f"{FILES}: no file was sent")
    except BaseException as error:
        upload.close()
        jobs.remove(job)
        if isinstance(error, FormParserError):
            raise HTTPException(422, f"the request is not multipart/form-data: {error}") from error
        if isinstance(error, TimeoutError):
            raise HTTPException(408, f"the upload took longer than {jobs.limits.max_seconds:g} s") from error
        if isinstance(error, OSError):
            raise no_room(error) from error
        raise
    return job


def _detector(given: bytes | None, jobs: Jobs) -> str:
    if not given:
        return next(iter(jobs.detectors))
    name = given.decode("utf-8", "replace")
    if name not in jobs.detectors:
        raise HTTPException(422, f"{DETECTOR}: {name!r} is none of {', '.join(jobs.detectors)}")
    return name


@dataclass
class _Part:
    """The part of the form that is being read."""

    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str = ""
    file_name: str = ""
    item: Item | None = None
    file: BinaryIO | None = None


class _Upload:
    """A parser whose callbacks open files, and collect what is then written in a thread."""

    def __init__(self, jobs: Jobs, job: Job) -> None:
        self._jobs, self._job = jobs, job
        self._part = _Part()
        self._field, self._value = b"", b""
        self._pending: list[tuple[BinaryIO, bytes]] = []
        self._written: list[BinaryIO] = []
        self._is_complete = False
        self.texts: dict[str, bytes] = {}
        """The fields that are no files."""

    async def read(self, request: Request, boundary: bytes) -> None:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._take_field,
                "on_header_value": self._take_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._open,
                "on_part_data": self._take,
                "on_part_end": self._end,
                "on_end": self._complete,
            },
        )
        async for chunk in request.stream():
            if chunk:
                parser.write(chunk)
                await asyncio.to_thread(self._flush)
        parser.finalize()
        if not self._is_complete:
            raise FormParserError("its end is missing")

    def close(self) -> None:
        """Close the open files."""
        for file in (self._part.file, *self._written):
            if file is not None:
                with contextlib.suppress(OSError):  # the disk is full
                    file.close()

    def _flush(self) -> None:
        for file, content in self._pending:
            file.write(content)
        self._pending.clear()
        while self._written:
            self._written.pop().close()

    def _complete(self) -> None:
        self._is_complete = True

    def _begin(self) -> None:
        self._part = _Part()

    def _take_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _take_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._part.headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _open(self) -> None:
        _, parameters = parse_options_header(self._part.headers.get(b"content-disposition"))
        name = self._part.name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if name == DETECTOR:
            self.texts[name] = b""
        elif name == FILES:
            given = self._part.file_name = parameters.get(b"filename", b"").decode("utf-8", "replace")
            self._part.item = self._jobs.add(self._job, given)
            self._part.file = self._part.item.path.open("wb")
        else:
            raise HTTPException(422, f"{name[:50]!r}: no field of that name; {FILES} and {DETECTOR} are known")

    def _take(self, data: bytes, start: int, end: int) -> None:
        content = data[start:end]
        if self._part.item is not None and self._part.file is not None:
            self._jobs.grow(self._part.item, len(content))
            self._pending.append((self._part.file, content))
        else:
            self.texts[self._part.name] += content
            if len(self.texts[self._part.name]) > LONGEST_TEXT:
                raise HTTPException(422, f"{self._part.name}: more than {LONGEST_TEXT} bytes")

    def _end(self) -> None:
        item, file = self._part.item, self._part.file
        if item is not None and file is not None:
            self._written.append(file)
            self._part.file = None
            if item.num_bytes == 0 and not self._part.file_name:  # a browser sends this where no file was chosen
                self._jobs.drop(item)
