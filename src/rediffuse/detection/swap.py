"""The swap test: does a detector respond to signs of generation, or to how files were encoded?

The images of one class only are re-encoded as JPEG. They show the same pictures as before, so the AUC of a detector of
generated images should hardly change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rediffuse.detection.metrics import Interval, auc_change, auc_interval
from rediffuse.errors import InputError
from rediffuse.images.changes import Change, ChangedImage
from rediffuse.images.find import FoundImage
from rediffuse.progress import Progress, counted, unobserved

if TYPE_CHECKING:
    from rediffuse.detection.detector import Detector
    from rediffuse.zoo.model import DiffusionModel

ALLOWED = 0.02
"""Largest change of the AUC that counts as none."""


@dataclass(frozen=True, kw_only=True)
class SwapTest:
    """The AUC of a detector, and its change when one class only is re-encoded."""

    num_real: int
    num_generated: int
    quality: int
    """Of the JPEG, whose colour planes are subsampled 4:2:0."""
    unchanged: Interval
    real: Interval
    """Change of the AUC when only the real images are re-encoded."""
    generated: Interval
    """Change of the AUC when only the generated images are re-encoded."""

    @property
    def moves(self) -> bool:
        """Whether the whole interval of a change is larger than `ALLOWED`, in either direction."""
        return any(max(moved.low, -moved.high) > ALLOWED for moved in (self.real, self.generated))

    def __str__(self) -> str:
        moved = (f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]" for one in (self.real, self.generated))
        real, generated = moved
        return (
            f"AUC {self.unchanged}; change with only the real images as JPEG {self.quality}: {real}, with only the "
            f"generated ones: {generated}"
        )


def swap_test(
    model: "DiffusionModel",
    detector: "Detector",
    images: Sequence[tuple[FoundImage, int]],
    *,
    quality: int = 75,
    batch_size: int = 16,
    workers: int = 2,
    progress: Progress = unobserved,
) -> SwapTest:
    """Judge images as they are, and again after a JPEG.

    Args:
        model: the diffusion model that the detector was trained with.
        detector: the detector that is tested.
        images: files and their classes, 0 real and 1 generated; those that cannot be judged are left out.
        quality: of the JPEG, 1 to 100.
        batch_size: images per call of the network.
        workers: number of threads that decode images.
        progress: called with the number of images that were judged.

    Raises:
        InputError: no image of one of the classes can be judged.
        SettingsMismatch: the detector was trained with another model.
    """
    from rediffuse.detection.judge import judge

    def probabilities(files: Sequence[FoundImage | ChangedImage], what: str) -> dict[str, float]:
        verdicts = judge(model, files, detector, batch_size=batch_size, workers=workers)
        judged = counted(verdicts, what, len(files), progress)
        return {verdict.file: verdict.probability for verdict in judged if verdict.probability is not None}

    before = probabilities([found for found, _ in images], "swap test: as they are")
    encoded = [ChangedImage(found, Change("jpeg", quality)) for found, _ in images if found.name in before]
    after = probabilities(encoded, f"swap test: JPEG {quality}")
    usable = [(found, label) for found, label in images if found.name in after]
    labels = np.array([label for _, label in usable])
    if set(labels.tolist()) != {0, 1}:
        raise InputError("the swap test needs images of both classes that can be judged")
    plain, swapped = (np.array([scores[found.name] for found, _ in usable]) for scores in (before, after))
    return SwapTest(
        num_real=int((labels == 0).sum()),
        num_generated=int((labels == 1).sum()),
        quality=quality,
        unchanged=auc_interval(labels, plain),
        real=auc_change(labels, plain, np.where(labels == 0, swapped, plain)),
        generated=auc_change(labels, plain, np.where(labels == 1, swapped, plain)),
    )
