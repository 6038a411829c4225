"""The verdict on one image, as a dataclass. Imports no torch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rediffuse.dire.settings import DireSettings
from rediffuse.records import digest

if TYPE_CHECKING:
    import numpy as np

    from rediffuse.dire.job import FileMeta
    from rediffuse.images.changes import Change
    from rediffuse.images.original import Original
    from rediffuse.images.windows import Window

Decision = Literal["real", "generated", "unsure"]

BETWEEN = "between the thresholds"
"""The reason of a verdict whose score lies between the two thresholds."""


@dataclass(frozen=True, kw_only=True)
class Bound:
    """How common a score as extreme as that of an image is in one class, by the detector's left-out scores."""

    share: float
    """At most this share of the class has such a score: photographs one at least as high, generated images one at
    least as low."""
    limit: float
    """The share of the class that may get the opposite decision; a threshold of the detector was chosen for it."""
    is_for_unseen: bool
    """Whether both shares hold for sources of photographs, or generators, that were not in the training."""
    num_images: int
    """Number of left-out images of the class."""
    num_groups: int
    """Number of the sources of photographs, or of the generators, of these images."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The images and facts that a person needs to check a verdict."""

    x_0: "np.ndarray"
    """The network's input, (N, 3, S, S) float32 in [-1, 1]: the image, N = 1, or its windows."""
    x_0_hat: "np.ndarray"
    """The reconstruction, (N, 3, S, S) float32 in [-1, 1] up to rounding."""
    powers: "np.ndarray"
    """The mean power over N of x_0, x_0_hat and their difference at every frequency, (3, R) float32; see
    `dire.bands.radial_means`."""
    original: "Original | None" = None
    """The whole image, made smaller, and what its file states; None where only the input is known."""
    meta: "FileMeta | None" = None
    """Facts about the file; None for an image in memory."""


@dataclass(frozen=True, kw_only=True)
class JudgedCopy:
    """The result for a changed copy of an image."""

    change: "Change"
    probability: float
    """As `Verdict.probability`."""
    decision: Decision
    """As `Verdict.decision`."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on one image. `decision` is None if the image could not be judged; then `reason` holds the error.

    `str` gives it in one line; `repr` leaves out the numbers by band, the settings and the evidence.
    """

    file: str
    """The name of the file; for an image in memory its position, such as `image 0`."""
    decision: Decision | None = None
    reason: str | None = None
    """Why there is no decision, or why it is `unsure`; None for `real` and `generated`."""
    probability: float | None = None
    """Calibrated probability in [0, 1] that the image is generated, if half of all images are."""
    threshold: float | None = None
    """At or above this probability the decision is `generated`."""
    real_threshold: float | None = None
    """Below this probability the decision is `real`; between the two it is `unsure`."""
    real_bound: Bound | None = field(default=None, repr=False)
    """How common a score as high is among photographs; None without a score."""
    generated_bound: Bound | None = field(default=None, repr=False)
    """How common a score as low is among generated images; None without a score."""
    mean_dire: float | None = None
    """Mean |x_0 - x_0_hat| over pixels and channels, in [0, 2]."""
    bands: tuple[float, ...] = field(default=(), repr=False)
    """Relative log error e_k of each frequency band, low to high; of windows the mean."""
    coherences: tuple[float, ...] = field(default=(), repr=False)
    """Coherence c_k of image and reconstruction in each band, in [-1, 1]; of windows the mean."""
    contributions: tuple[float, ...] = field(default=(), repr=False)
    """The contribution of each band to the detector's logit; positive for `generated`. Empty unless asked for."""
    windows: "tuple[Window, ...]" = field(default=(), repr=False)
    """The windows that were judged together; empty where the settings have no windows."""
    window_contributions: tuple[float, ...] = field(default=(), repr=False)
    """By how much the detector's logit falls without a window; positive for `generated`. Empty unless asked for."""
    copies: tuple[JudgedCopy, ...] = field(default=(), repr=False)
    """The results for changed copies of the image (`stability`); empty where none were judged."""
    settings: DireSettings | None = field(default=None, repr=False)
    """The settings of the reconstruction."""
    detector_sha256: str | None = field(default=None, repr=False)
    """See `Detector.sha256`."""
    sha256: str | None = field(default=None, repr=False)
    """SHA-256 of the file's bytes, in hex; None for an image in memory, or a file that could not be decoded."""
    evidence: Evidence | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        probability = None if self.probability is None else f"probability {self.probability:.3f}"
        return f"{self.file}: " + ", ".join(filter(None, (self.decision or "not judged", probability, self.reason)))

    @property
    def judged(self) -> bool:
        """Whether there is a decision, `unsure` included."""
        return self.decision is not None

    @property
    def strongest_band(self) -> int | None:
        """The band with the largest absolute contribution, counted from 0; None without contributions."""
        if not self.contributions:
            return None
        return max(range(len(self.contributions)), key=lambda k: abs(self.contributions[k]))

    def to_row(self) -> dict[str, Any]:
        """One flat row of a table: plain values, one column per band and two per changed copy, the settings as
        their digest, no evidence."""
        row: dict[str, Any] = {
            "file": self.file,
            "decision": self.decision,
            "probability": self.probability,
            "reason": self.reason,
            "threshold": self.threshold,
            "real_threshold": self.real_threshold,
            "max_false_alarms": None if self.real_bound is None else self.real_bound.limit,
            "max_misses": None if self.generated_bound is None else self.generated_bound.limit,
            "real_above": None if self.real_bound is None else self.real_bound.share,
            "generated_below": None if self.generated_bound is None else self.generated_bound.share,
            "mean_dire": self.mean_dire,
            "num_windows": len(self.windows) or None,
            "settings": None if self.settings is None else digest(self.settings),
            "detector": self.detector_sha256,
        }
        for name, values in (
            ("error", self.bands),
            ("coherence", self.coherences),
            ("contribution", self.contributions),
        ):
            row |= {f"{name}_band_{k}": value for k, value in enumerate(values)}
        for copy in self.copies:
            row |= {f"probability_{copy.change.key}": copy.probability, f"decision_{copy.change.key}": copy.decision}
        return row
