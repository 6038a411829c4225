"""The data of classifiers: every input of every image of a split, as arrays."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rediffuse.detection.config import InputName
from rediffuse.detection.evaluate import require_both_classes
from rediffuse.detection.labelled import LabelledImage
from rediffuse.dire.job import FileResult
from rediffuse.dire.reconstruct import Reconstruction


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The inputs of a detector's classifier for a set of images, in the order of their names."""

    labels: np.ndarray
    """(N,) int, 1 for generated."""
    images: tuple[LabelledImage, ...]
    codecs: tuple[str, ...]
    """The format of each file."""
    inputs: dict[InputName, np.ndarray]
    """Features (N, F), maps (N, C, H, H), or the logits (N,) of a classifier of this input."""
    num_windows: np.ndarray
    """(N,) int; 0 for whole images."""
    skipped: tuple[str, ...]
    """The errors of files without a reconstruction, one line each."""

    @property
    def counts(self) -> dict[str, int]:
        """The number of images of each collection."""
        return dict(sorted(Counter(image.collection for image in self.images).items()))

    def only(self, names: set[str]) -> "Samples":
        """The images with these names."""
        kept = [index for index, image in enumerate(self.images) if image.found.name in names]
        return Samples(
            labels=self.labels[kept],
            images=tuple(self.images[index] for index in kept),
            codecs=tuple(self.codecs[index] for index in kept),
            inputs={name: rows[kept] for name, rows in self.inputs.items()},
            num_windows=self.num_windows[kept],
            skipped=self.skipped,
        )


def measure(
    images: Sequence[LabelledImage],
    results: Iterable[FileResult],
    measures: Mapping[InputName, Callable[[Reconstruction], np.ndarray]],
) -> Samples:
    """Measure the reconstructions of labelled images.

    Args:
        images: the images with their classes.
        results: their reconstructions, in any order; a file without one is left out and counted.
        measures: for each name a function of one image's reconstruction, such as `FeatureSet.measure`, to (1, ...).

    Raises:
        InputError: no image of one of the two classes could be reconstructed.
    """
    of_name = {image.found.name: image for image in images}
    rows: dict[InputName, list[np.ndarray]] = {name: [] for name in measures}
    kept: list[LabelledImage] = []
    codecs, num_windows, skipped = [], [], []
    for result in results:
        if result.reconstruction is None:
            skipped.append(str(result.reason))
            continue
        kept.append(of_name[result.found.name])
        codecs.append(result.meta.codec if result.meta else "unknown")
        num_windows.append(len(result.reconstruction.windows))
        for name, row in rows.items():
            row.append(measures[name](result.reconstruction))
    require_both_classes([image.label for image in kept], skipped)
    # Results arrive in the order in which they are ready; sorted, so that a fit is reproducible.
    order = sorted(range(len(kept)), key=lambda index: kept[index].found.name)
    return Samples(
        labels=np.array([kept[index].label for index in order]),
        images=tuple(kept[index] for index in order),
        codecs=tuple(codecs[index] for index in order),
        inputs={name: np.concatenate([row[index] for index in order]) for name, row in rows.items()},
        num_windows=np.array([num_windows[index] for index in order]),
        skipped=tuple(sorted(skipped)),
    )
