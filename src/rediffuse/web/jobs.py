"""The jobs of all clients: their files, the places in the queue, the order of work, and when they are deleted.

Everything here runs in the event loop of the server, so there are no locks.
"""

import asyncio
import logging
import math
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import Literal

from fastapi import HTTPException

from rediffuse.detection.verdict import Verdict
from rediffuse.images.names import safe_part
from rediffuse.report.article import article
from rediffuse.web.config import ServerLimits
from rediffuse.web.messages import DetectorInfo, Task
from rediffuse.web.metrics import Metrics

LOGGER = logging.getLogger(__name__)

State = Literal["waiting", "judging", "done"]

MOST_DEATHS = 2
"""The worker may end this often while it judges a file; then the file gets a reason instead of a verdict."""
NUM_TIMES = 16
"""Results from which the time of a file is estimated; those of one batch come together."""
LONGEST_NAME = 200
"""Most characters of a file's name that are kept."""


@dataclass(eq=False)
class Item:
    """One uploaded file."""

    job: "Job"
    key: int
    name: str
    path: Path
    """The upload; it is deleted when there is a verdict."""
    num_bytes: int = 0
    num_deaths: int = 0
    is_at_worker: bool = False
    verdict: Verdict | None = None
    is_returned: bool = False
    """Whether there is no decision because of the server, and not because of the file."""
    short_article: str | None = None
    """The HTML of the image, where it is not in a file: it has no pictures."""

    @property
    def state(self) -> State:
        if self.verdict is not None:
            return "done"
        return "judging" if self.is_at_worker else "waiting"

    @property
    def article_path(self) -> Path:
        return self.path.with_suffix(".html")

    @property
    def judged(self) -> Verdict:
        """The verdict of a file that is done."""
        assert self.verdict is not None
        return self.verdict

    def article(self) -> str:
        """The HTML of the image, when it is done."""
        if self.short_article is not None:
            return self.short_article
        try:
            return self.article_path.read_text(encoding="utf-8")
        except OSError:
            return article(self.judged, problem="The job was deleted while this page was made.")


@dataclass(eq=False)
class Job:
    """The files that a client sent in one request."""

    id: str
    """Cannot be guessed; who knows it may read and delete the job."""
    folder: Path
    detector: str
    items: list[Item] = field(default_factory=list)
    unsent: deque[Item] = field(default_factory=deque)
    """Files that wait for the worker."""
    names: set[str] = field(default_factory=set)
    num_bytes: int = 0
    """On the disk."""
    begun_at: float | None = None
    finished_at: float | None = None
    is_deleted: bool = False
    is_collected: bool = False
    """Whether a client has seen that the job is done."""
    num_watchers: int = 0
    left_at: float | None = None
    """When the last watcher went away; None if there was none, or there are some."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at the next change; then the job gets another one."""

    @property
    def num_done(self) -> int:
        return sum(item.verdict is not None for item in self.items)

    @property
    def state(self) -> State:
        if self.finished_at is not None:
            return "done"
        return "waiting" if self.begun_at is None else "judging"

    def verdicts(self) -> list[Verdict]:
        """Those that there are, in the order of the files."""
        return [item.verdict for item in self.items if item.verdict is not None]

    def notify(self) -> None:
        """Wake those that wait for `changed`."""
        before, self.changed = self.changed, asyncio.Event()
        before.set()


class Jobs:
    """All jobs of a server."""

    def __init__(
        self,
        *,
        folder: Path,
        limits: ServerLimits,
        detectors: Mapping[str, DetectorInfo],
        clock: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        """No jobs.

        Args:
            folder: gets one folder for each job.
            limits: what clients may send, and what is kept.
            detectors: those that the worker has, by name; the first one is the default.
            clock: seconds since any time.
            metrics: counts the verdicts.
        """
        self.limits, self.detectors = limits, detectors
        self._folder, self._clock, self._metrics = folder, clock, metrics
        self._jobs: dict[str, Job] = {}
        self._items: dict[int, Item] = {}
        """Those that are at the worker or wait, by key."""
        self._queue: deque[Job] = deque()
        """Jobs with files that wait, the next one first."""
        self._suspects: deque[Item] = deque()
        """Files at which the worker may have ended; each is judged alone."""
        self._num_keys = 0
        self._num_files = 0
        self._num_places = 0
        self._seconds: deque[float] = deque(maxlen=NUM_TIMES)
        self.num_bytes = 0
        self.is_stopping = False
        self.more = asyncio.Event()
        """Set when there are files to judge."""

    @property
    def num_waiting(self) -> int:
        """Files that are uploaded, wait or are judged."""
        return self._num_places

    @property
    def num_jobs(self) -> int:
        return len(self._jobs)

    def open(self) -> Job:
        """A new job, into which files are uploaded.

        Raises:
            HTTPException: 503 if the server is being stopped, 429 if the queue is full, 507 if the disk is.
        """
        if self.is_stopping:
            raise HTTPException(503, "the server is being stopped", {"Retry-After": "30"})
        self._require_place()
        self._require_room()
        name = secrets.token_urlsafe(16)
        job = Job(id=name, folder=self._folder / name, detector=next(iter(self.detectors)))
        try:
            job.folder.mkdir()
        except OSError as error:
            raise no_room(error) from error
        self._jobs[name] = job
        return job

    def add(self, job: Job, name: str) -> Item:
        """A place for one more file.

        Args:
            job: from `open`.
            name: as the client gave it.

        Raises:
            HTTPException: 413 if the job has too many files, 429 if the queue is full.
        """
        if len(job.items) >= self.limits.max_files:
            raise HTTPException(413, f"more than {self.limits.max_files} files; send several requests")
        self._require_place()
        self._num_keys += 1
        self._num_files += 1
        self._num_places += 1
        clean = safe_part(PurePosixPath(name.replace("\\", "/")).name)[-LONGEST_NAME:]
        if clean.strip(". ") == "":
            clean = f"image {len(job.items) + 1}"
        free = _first_free(PurePosixPath(clean), job.names)
        job.names.add(free.casefold())
        item = Item(job, self._num_keys, free, job.folder / f"{len(job.items)}.upload")
        job.items.append(item)
        self._items[item.key] = item
        return item

    def drop(self, item: Item) -> None:
        """Take the newest file of a job back, from which nothing was uploaded."""
        item.job.items.remove(item)
        self._num_files -= 1
        item.job.names.discard(item.name.casefold())
        self._free(item)
        item.path.unlink(missing_ok=True)

    def grow(self, item: Item, num_bytes: int) -> None:
        """Count bytes that are about to be written.

        Raises:
            HTTPException: 413 if the file is too large, 507 if the disk is full.
        """
        item.num_bytes += num_bytes
        self._count(item.job, num_bytes)
        if item.num_bytes > self.limits.max_file_bytes:
            raise HTTPException(413, f"{item.name}: more than {self.limits.max_file_bytes} bytes; save it smaller")
        self._require_room()

    def submit(self, job: Job) -> None:
        """Queue the files of a job, whose upload is complete."""
        job.unsent.extend(job.items)
        self._queue.append(job)
        self.more.set()

    def get(self, name: str) -> Job:
        """The job of this id.

        Raises:
            HTTPException: 404 if there is none.
        """
        job = self._jobs.get(name)
        if job is None:
            raise HTTPException(404, "no such job: it was deleted, or the address is wrong")
        return job

    def remove(self, job: Job) -> None:
        """Delete a job with its files. Results of the worker that come later are discarded."""
        if self._jobs.pop(job.id, None) is None:
            return
        for item in job.items:
            self._free(item)
        self._num_files -= len(job.items)
        self._forget(job)
        job.is_deleted = True
        shutil.rmtree(job.folder, ignore_errors=True)
        self._count(job, -job.num_bytes)
        job.notify()

    def next_round(self) -> list[Item]:
        """The files that are judged next, one of each job in turn; one at which the worker may have ended is alone."""
        if self._suspects:
            return self._sent([self._suspects.popleft()])
        taken: list[Item] = []
        while self._queue:
            detector = taken[0].job.detector if taken else self._queue[0].detector
            job = next((job for job in self._queue if job.detector == detector), None)
            if job is None or len(taken) >= self.detectors[detector].round_size:
                break
            self._queue.remove(job)
            taken.append(job.unsent.popleft())
            if job.unsent:
                self._queue.append(job)
        return self._sent(taken)

    def judged(self, key: int, verdict: Verdict, html: str, seconds: float) -> None:
        """Keep the result of a file.

        Args:
            key: of its task; a file that was deleted meanwhile is ignored.
            verdict: without its evidence.
            html: its article.
            seconds: since the result before, or since the worker got work.
        """
        self._seconds.append(seconds)
        item = self._items.get(key)
        if item is None:
            return
        try:
            item.article_path.write_text(html, encoding="utf-8")
            self._count(item.job, item.article_path.stat().st_size)
        except OSError as error:
            item.article_path.unlink(missing_ok=True)
            LOGGER.error("the pictures of a file could not be kept: %s", error.strerror)
            item.short_article = article(
                verdict, problem=f"The pictures are missing: the disk of the server: {error.strerror}"
            )
        self._finish(item, verdict)

    def give_back(self, rounds: Iterable[Iterable[int]]) -> None:
        """Queue the files of an ended worker again.

        Args:
            rounds: the keys without a result, in the order of work. The worker may have ended because of one of the
                first round, so these are judged alone; a file with which it ends twice is not judged.
        """
        for place, keys in enumerate(rounds):
            for key in keys:
                item = self._items.get(key)
                if item is None:
                    continue
                item.is_at_worker = False
                if place == 0:
                    item.num_deaths += 1
                    if item.num_deaths >= MOST_DEATHS:
                        self._return(item, "its judging ended the worker of the server twice")
                    else:
                        self._suspects.append(item)
                else:
                    item.job.unsent.appendleft(item)
                    if item.job not in self._queue:
                        self._queue.appendleft(item.job)
                item.job.notify()
        self.more.set()

    def sweep(self) -> None:
        """Stop jobs that nobody watches any more or that take too long, and delete those that were kept long enough."""
        now = self._clock()
        for job in list(self._jobs.values()):
            if job.finished_at is not None:
                if now > job.finished_at + 60 * self.limits.keep:
                    self.remove(job)
            elif job.left_at is not None and now > job.left_at + self.limits.patience:
                self.end(job, "the client went away before this image was judged")
            elif job.begun_at is not None and now > job.begun_at + self.limits.max_seconds:
                self.end(job, f"the job took longer than {self.limits.max_seconds:g} s")

    def end(self, job: Job, reason: str) -> None:
        """Give the files of a job that are left a reason instead of a verdict."""
        for item in job.items:
            if item.verdict is None:
                self._return(item, reason)
        self._forget(job)

    def end_all(self) -> None:
        """Return what is left, because the server is stopped."""
        for job in self.unfinished():
            self.end(job, "the server was stopped before this image was judged; send it again")

    def unfinished(self) -> list[Job]:
        """The jobs that have files without a verdict, also those that are being uploaded."""
        return [job for job in self._jobs.values() if job.finished_at is None]

    def seconds_left(self, job: Job) -> float | None:
        """The estimated time until a job is done; None if nothing was judged yet.

        Jobs take turns: until this one is done, of every other one at most as many files are judged.
        """
        if not self._seconds:
            return None
        left = len(job.items) - job.num_done
        others = (len(one.items) - one.num_done for one in self._jobs.values() if one is not job and one.unsent)
        return fmean(self._seconds) * (left + sum(min(left, other) for other in others))

    def watch(self, job: Job, change: int) -> None:
        """Count a client that watches a job (1) or stops to (-1)."""
        job.num_watchers += change
        job.left_at = None if job.num_watchers else self._clock()

    def _sent(self, items: list[Item]) -> list[Item]:
        for item in items:
            item.is_at_worker = True
            item.job.begun_at = item.job.begun_at or self._clock()
            item.job.notify()
        return items

    def _return(self, item: Item, reason: str) -> None:
        verdict = Verdict(file=item.name, reason=f"{item.name}: {reason}")
        item.short_article, item.is_returned = article(verdict), True
        self._finish(item, verdict)

    def _finish(self, item: Item, verdict: Verdict) -> None:
        item.verdict = verdict
        self._free(item)
        item.path.unlink(missing_ok=True)
        self._count(item.job, -item.num_bytes)
        self._metrics.verdicts.labels(verdict.decision or "none").inc()
        if item.job.num_done == len(item.job.items):
            item.job.finished_at = self._clock()
        item.job.notify()

    def _free(self, item: Item) -> None:
        if self._items.pop(item.key, None) is not None:
            self._num_places -= 1

    def _forget(self, job: Job) -> None:
        """Take what waits out of the queue."""
        job.unsent.clear()
        if job in self._queue:
            self._queue.remove(job)
        self._suspects = deque(item for item in self._suspects if item.job is not job)

    def _count(self, job: Job, num_bytes: int) -> None:
        job.num_bytes += num_bytes
        self.num_bytes += num_bytes

    def _require_place(self) -> None:
        if self._num_places >= self.limits.max_waiting:
            seconds = fmean(self._seconds or [1]) * self._num_places / 2
            again = str(min(600, max(1, math.ceil(seconds))))
            raise HTTPException(429, f"{self._num_places} files wait already; send yours later", {"Retry-After": again})
        if self._num_files >= self.limits.max_kept:
            detail = f"{self._num_files} files are kept already; delete jobs, or send yours later"
            raise HTTPException(429, detail, {"Retry-After": "60"})

    def _require_room(self) -> None:
        if self.num_bytes > self.limits.max_disk_bytes:
            raise no_room(None)


def no_room(error: OSError | None) -> HTTPException:
    """The answer where the disk is full."""
    reason = "its share of the disk is full" if error is None else error.strerror
    return HTTPException(507, f"the server could not keep the upload: {reason}", {"Retry-After": "60"})


def task_of(item: Item) -> Task:
    """What the worker needs to know of a file."""
    return Task(key=item.key, path=item.path, name=item.name)


def _first_free(name: PurePosixPath, taken: set[str]) -> str:
    """The name, or if it is in `taken` (lower case), the name with the first free number before its suffix."""
    free, number = name, 1
    while str(free).casefold() in taken:
        number += 1
        free = name.with_name(f"{name.stem}-{number}{name.suffix}")
    return str(free)
