"""The verdict on one image, as a dataclass. Imports no torch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from rediffuse.dire.settings import DireSettings
from rediffuse.records import digest

if TYPE_CHECKING:
    import numpy as np

    from rediffuse.images.changes import Change
    from rediffuse.images.windows import Thumbnail, Window

Decision = Literal["real", "generated", "unsure"]


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The images that a person needs to check a verdict."""

    x_0: "np.ndarray"
    """The network's input, (N, 3, S, S) float32 in [-1, 1]: the image, N = 1, or its windows."""
    x_0_hat: "np.ndarray"
    """The reconstruction, (N, 3, S, S) float32 in [-1, 1] up to rounding."""
    picture: "Thumbnail | None" = None
    """The image that the windows are cut from; None where there are none."""


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
    max_false_alarms: float | None = field(default=None, repr=False)
    """The largest share of photographs that may be called generated; `threshold` was chosen for it."""
    max_misses: float | None = field(default=None, repr=False)
    """The largest share of generated images that may be called real; `real_threshold` was chosen for it."""
    real_limit_is_for_unseen: bool | None = field(default=None, repr=False)
    """Whether `max_false_alarms` holds for photographs from sources that were not in the training."""
    generated_limit_is_for_unseen: bool | None = field(default=None, repr=False)
    """Whether `max_misses` holds for images of generators that were not in the training."""
    mean_dire: float | None = None
    """Mean |x_0 - x_0_hat| over pixels and channels, in [0, 2]."""
    bands: tuple[float, ...] = field(default=(), repr=False)
    """Relative log error e_k of each frequency band, low to high; of windows the mean."""
    coherences: tuple[float, ...] = field(default=(), repr=False)
    """Coherence c_k of image and reconstruction in each band, in [-1, 1]; of windows the mean."""
    contributions: tuple[float, ...] = field(default=(), repr=False)
    """The contribution of each band to the detector's logit; positive for `generated`."""
    windows: "tuple[Window, ...]" = field(default=(), repr=False)
    """The windows that were judged together; empty where the settings have no windows."""
    window_contributions: tuple[float, ...] = field(default=(), repr=False)
    """By how much the detector's logit falls without a window; positive for `generated`."""
    copies: tuple[JudgedCopy, ...] = field(default=(), repr=False)
    """The results for changed copies of the image (`stability`); empty where none were judged."""
    settings: DireSettings | None = field(default=None, repr=False)
    """The settings of the reconstruction."""
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
            "max_false_alarms": self.max_false_alarms,
            "max_misses": self.max_misses,
            "mean_dire": self.mean_dire,
            "num_windows": len(self.windows) or None,
            "settings": None if self.settings is None else digest(self.settings),
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
