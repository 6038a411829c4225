"""The data of classifiers: every input of every image of a split, as arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from rediffuse.detection.config import InputName
from rediffuse.detection.evaluate import require_both_classes
from rediffuse.detection.features import detector_input
from rediffuse.detection.labelled import LabelledImage
from rediffuse.dire.job import FileResult


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The inputs of a detector's classifier for the images of one split, in the order of their names."""

    labels: np.ndarray
    """(N,) int, 1 for generated."""
    sources: tuple[str, ...]
    """`LabelledImage.source` of each image."""
    inputs: dict[InputName, np.ndarray]
    """Features (N, F), maps (N, C, S, S)."""
    num_skipped: int
    """Number of files without a reconstruction."""

    @property
    def counts(self) -> dict[str, int]:
        """The number of images of each source."""
        return {source: self.sources.count(source) for source in sorted(set(self.sources))}


def measure(images: Sequence[LabelledImage], results: Iterable[FileResult], names: Iterable[InputName]) -> Samples:
    """Compute the inputs of these names from the reconstructions of labelled images.

    Args:
        images: the images with their classes.
        results: their reconstructions, in any order; a file without one is left out and counted.
        names: names in `features.INPUTS`.

    Raises:
        InputError: no image of one of the two classes could be reconstructed.
    """
    of_name = {image.found.name: image for image in images}
    rows: dict[InputName, list[np.ndarray]] = {name: [] for name in names}
    kept: list[LabelledImage] = []
    skipped = []
    for result in results:
        if result.reconstruction is None:
            skipped.append(str(result.reason))
            continue
        kept.append(of_name[result.found.name])
        for name, row in rows.items():
            row.append(detector_input(name, result.reconstruction.settings).measure(result.reconstruction))
    require_both_classes([image.label for image in kept], skipped)
    # Results arrive in the order in which they are ready; sorted, so that a fit is reproducible.
    order = sorted(range(len(kept)), key=lambda index: kept[index].found.name)
    return Samples(
        labels=np.array([kept[index].label for index in order]),
        sources=tuple(kept[index].source for index in order),
        inputs={name: np.concatenate([row[index] for index in order]) for name, row in rows.items()},
        num_skipped=len(skipped),
    )
