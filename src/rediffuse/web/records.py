"""What the interface for programs answers."""

from typing import Literal

from pydantic import BaseModel, Field

from rediffuse.detection.verdict import Decision, Verdict
from rediffuse.report.words import TITLES, counts_of, headline_of, kind_of, sentences
from rediffuse.web.config import ServerLimits
from rediffuse.web.jobs import Item, Job, Jobs, State
from rediffuse.web.messages import DetectorInfo


class FileVerdict(BaseModel):
    """The verdict on one image. The report in JSON has all its numbers."""

    file: str = Field(description="The name of the file.")
    decision: Decision | None = Field(description="null: the image could not be judged.")
    title: str = Field(description="The decision in words.")
    sentences: list[str] = Field(description="What a person should read: the score, and how often it is wrong.")
    reason: str | None = Field(description="Why there is no decision, or why it is unsure.")
    probability: float | None = Field(description="Calibrated probability that the image is generated.")
    threshold: float | None = Field(description="At or above this probability the decision is generated.")
    real_threshold: float | None = Field(description="Below this probability the decision is real.")
    mean_dire: float | None = Field(description="Mean reconstruction error, in [0, 2].")

    @classmethod
    def of(cls, verdict: Verdict) -> "FileVerdict":
        return cls(
            file=verdict.file,
            decision=verdict.decision,
            title=TITLES[kind_of(verdict)],
            sentences=sentences(verdict),
            reason=verdict.reason,
            probability=verdict.probability,
            threshold=verdict.threshold,
            real_threshold=verdict.real_threshold,
            mean_dire=verdict.mean_dire,
        )


class FileStatus(BaseModel):
    """A file of a job."""

    name: str
    state: State
    verdict: FileVerdict | None

    @classmethod
    def of(cls, item: Item) -> "FileStatus":
        verdict = None if item.verdict is None else FileVerdict.of(item.verdict)
        return cls(name=item.name, state=item.state, verdict=verdict)


class JobStatus(BaseModel):
    """The state of a job, and the verdicts so far."""

    id: str
    state: State = Field(description="done: every file has a verdict, or a reason why there is none.")
    detector: str
    num_files: int
    num_done: int
    seconds_left: float | None = Field(description="An estimate; null while nothing was judged yet.")
    headline: str | None = Field(description="The result in one sentence; null until the job is done.")
    files: list[FileStatus]

    @classmethod
    def of(cls, job: Job, jobs: Jobs) -> "JobStatus":
        done = job.state == "done"
        return cls(
            id=job.id,
            state=job.state,
            detector=job.detector,
            num_files=len(job.items),
            num_done=job.num_done,
            seconds_left=0 if done else jobs.seconds_left(job),
            headline=headline_of(counts_of(job.verdicts())) if done else None,
            files=[FileStatus.of(item) for item in job.items],
        )


class DetectorRecord(BaseModel):
    """A detector, and the model that it was trained with."""

    name: str
    model: str
    sha256: str
    model_sha256: str
    image_size: int = Field(description="Side of the input of the network, in pixels.")
    num_windows: int | None = Field(description="Windows of an image that the network gets; null: the whole image.")

    @classmethod
    def of(cls, info: DetectorInfo) -> "DetectorRecord":
        return cls.model_validate(info, from_attributes=True)


class LimitsRecord(BaseModel):
    """What a client may send."""

    max_file_bytes: int
    max_request_bytes: int
    max_pixels: int
    max_files: int

    @classmethod
    def of(cls, limits: ServerLimits) -> "LimitsRecord":
        return cls.model_validate(limits, from_attributes=True)


class Models(BaseModel):
    """What the server can judge with, and the limits of requests."""

    detectors: list[DetectorRecord] = Field(description="The first one is used where a request names none.")
    device: str
    limits: LimitsRecord


class Health(BaseModel):
    """The server can judge images."""

    status: Literal["ok"] = "ok"
