"""The queue: turns, places, estimates, the end of the worker, and what is deleted."""

import asyncio
from pathlib import Path

import pytest
from fastapi import HTTPException

from rediffuse.detection.verdict import Verdict
from rediffuse.web.config import ServerLimits
from rediffuse.web.jobs import Item, Job, Jobs
from rediffuse.web.messages import DetectorInfo
from rediffuse.web.metrics import Metrics

LIMITS = ServerLimits(max_waiting=10, max_files=6, max_file_bytes=1000, max_disk_bytes=5000, max_seconds=100, keep=1)


class Clock:
    """A clock that tests move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def jobs(tmp_path: Path, clock: Clock) -> Jobs:
    infos = [
        DetectorInfo(name=name, model="m", sha256="", model_sha256="", image_size=16, num_windows=None, round_size=size)
        for name, size in (("first", 4), ("second", 2))
    ]
    detectors = {info.name: info for info in infos}
    return Jobs(folder=tmp_path, limits=LIMITS, detectors=detectors, clock=clock, metrics=Metrics())


def job_of(jobs: Jobs, number: int, detector: str = "first", num_bytes: int = 10) -> Job:
    job = jobs.open()
    job.detector = detector
    for place in range(number):
        item = jobs.add(job, f"{place}.png")
        jobs.grow(item, num_bytes)
        item.path.write_bytes(bytes(num_bytes))
    jobs.submit(job)
    return job


def judge(jobs: Jobs, *items: Item, seconds: float = 1.0) -> None:
    for item in items:
        jobs.judged(item.key, Verdict(file=item.name, decision="unsure", reason="?"), "<article>", seconds)


def places(items: list[Item], *of: Job) -> list[tuple[int, str]]:
    return [(of.index(item.job), item.name) for item in items]


def test_jobs_take_turns_within_a_round(jobs: Jobs) -> None:
    a, b = job_of(jobs, 5), job_of(jobs, 2)
    assert places(jobs.next_round(), a, b) == [(0, "0.png"), (1, "0.png"), (0, "1.png"), (1, "1.png")]
    assert places(jobs.next_round(), a, b) == [(0, "2.png"), (0, "3.png"), (0, "4.png")]
    assert jobs.next_round() == []


def test_a_round_has_one_detector_and_its_own_size(jobs: Jobs) -> None:
    a, b = job_of(jobs, 3, "second"), job_of(jobs, 1)
    assert places(jobs.next_round(), a, b) == [(0, "0.png"), (0, "1.png")]
    assert [item.job for item in jobs.next_round() + jobs.next_round()] == [b, a]


def test_a_full_queue_says_when_to_come_again(jobs: Jobs) -> None:
    a, _ = job_of(jobs, 5), job_of(jobs, 5)
    with pytest.raises(HTTPException) as refused:
        jobs.open()
    assert refused.value.status_code == 429
    assert int((refused.value.headers or {})["Retry-After"]) >= 1
    jobs.remove(a)
    assert jobs.num_waiting == 5
    job_of(jobs, 5)


def test_the_number_of_files_of_a_job_is_limited(jobs: Jobs) -> None:
    with pytest.raises(HTTPException, match="more than 6 files"):
        job_of(jobs, 7)


def test_the_bytes_of_a_file_and_of_all_files_are_limited(jobs: Jobs) -> None:
    with pytest.raises(HTTPException, match="more than 1000 bytes"):
        job_of(jobs, 1, num_bytes=1001)
    with pytest.raises(HTTPException) as refused:
        job_of(jobs, 6, num_bytes=999)
    assert refused.value.status_code == 507


def test_names_are_data(jobs: Jobs, tmp_path: Path) -> None:
    job = jobs.open()
    given = ["../../etc/passwd", "C:\\a\\b.png", "", "..", "b.png", "a\nb\0.png", "x" * 999]
    names = [jobs.add(job, name).name for name in given[:6]]
    assert names == ["passwd", "b.png", "image 3", "image 4", "b-2.png", "a_b_.png"]
    assert {item.path.parent.parent for item in job.items} == {tmp_path}
    assert len(jobs.add(jobs.open(), given[6]).name) == 200


def test_an_upload_is_deleted_when_it_is_judged_and_the_result_after_some_minutes(
    jobs: Jobs, clock: Clock, tmp_path: Path
) -> None:
    job = job_of(jobs, 2)
    judge(jobs, *jobs.next_round())
    assert job.state == "done"
    assert sorted(path.name for path in job.folder.iterdir()) == ["0.html", "1.html"]
    clock.now = 60
    jobs.sweep()
    assert jobs.get(job.id) is job
    clock.now = 61
    jobs.sweep()
    assert list(tmp_path.iterdir()) == []
    assert jobs.num_bytes == jobs.num_waiting == 0


def test_a_file_with_which_the_worker_ends_twice_is_not_judged_and_the_others_are(jobs: Jobs) -> None:
    a, b = job_of(jobs, 2), job_of(jobs, 2)
    first = jobs.next_round()
    judge(jobs, first[0])
    later = job_of(jobs, 1)
    second = jobs.next_round()
    jobs.give_back([[item.key for item in first[1:]], [item.key for item in second]])
    suspects = [jobs.next_round() for _ in first[1:]]
    assert suspects == [[item] for item in first[1:]]
    jobs.give_back([[item.key for item in items] for items in suspects])
    assert suspects[0][0].verdict is not None
    assert "ended the worker" in (suspects[0][0].verdict.reason or "")
    while items := jobs.next_round():
        judge(jobs, *items)
    assert [job.state for job in (a, b, later)] == ["done"] * 3


def test_the_time_left_counts_the_turns_of_other_jobs(jobs: Jobs) -> None:
    a, b = job_of(jobs, 6), job_of(jobs, 3)
    assert jobs.seconds_left(a) is None
    judge(jobs, jobs.next_round()[0], seconds=2)
    assert jobs.seconds_left(b) == 2 * (3 + 3)
    assert jobs.seconds_left(a) == 2 * (5 + 3)


def test_a_job_that_takes_too_long_or_whose_client_has_gone_is_stopped(jobs: Jobs, clock: Clock) -> None:
    slow, left, waiting = job_of(jobs, 2), job_of(jobs, 2), job_of(jobs, 2)
    jobs.next_round()
    judge(jobs, slow.items[0])
    waiting.begun_at = None
    jobs.watch(left, 1)
    jobs.watch(left, -1)
    clock.now = LIMITS.patience + 1
    jobs.sweep()
    assert [job.state for job in (slow, left)] == ["judging", "done"]
    assert "went away" in (left.items[0].judged.reason or "")
    clock.now = LIMITS.max_seconds + 1
    jobs.sweep()
    assert [job.state for job in (slow, left, waiting)] == ["done", "done", "waiting"]
    assert slow.items[0].judged.decision == "unsure"
    assert slow.items[1].is_returned
    assert {item.job for item in jobs.next_round()} == {waiting}


def test_a_result_that_cannot_be_written_is_shown_without_pictures(jobs: Jobs) -> None:
    job = job_of(jobs, 1)
    job.folder.rename(job.folder.with_name("elsewhere"))
    judge(jobs, *jobs.next_round())
    assert "The pictures are missing" in job.items[0].article()
    assert job.items[0].judged.decision == "unsure"


def test_those_who_wait_are_woken_by_every_change(jobs: Jobs) -> None:
    async def wait() -> int:
        job = job_of(jobs, 2)
        waiting = asyncio.ensure_future(job.changed.wait())
        await asyncio.sleep(0)
        judge(jobs, jobs.next_round()[0])
        await asyncio.wait_for(waiting, 1)
        return job.num_done

    assert asyncio.run(wait()) == 1
