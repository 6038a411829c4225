"""Judge files with the workers of a Ray cluster; the verdicts are those of `detect.detect_each` on one machine."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rediffuse.cluster import LEFT_OUT, Pool, each
from rediffuse.detection.detect import detect_each
from rediffuse.detection.detector import Detector, load_detector
from rediffuse.detection.stability import MILD
from rediffuse.detection.verdict import Verdict
from rediffuse.dire.on_cluster import chunk_size
from rediffuse.images.find import FoundImage
from rediffuse.zoo.model import load


def detect_on_cluster(
    found: Sequence[FoundImage],
    pool: Pool,
    *,
    model: str | Path,
    detector: str | Path,
    stability: bool,
    batch_size: int,
    num_files: int,
    **options: Any,
) -> Iterator[tuple[int, Verdict]]:
    """As `detect.detect_each`, with the network in each worker of the connected cluster.

    Args:
        found: the files, which every worker must be able to read by their paths.
        pool: from `cluster.choose_pool`.
        model: an argument of `load` that every worker can load.
        detector: an argument of `load_detector` that every worker can load.
        stability: see `detect_each`.
        batch_size: see `detect_each`.
        num_files: see `detect_each`.
        options: the other arguments of `detect_each`.

    Yields:
        The place of a file in `found` and its verdict, as they are computed.

    Raises:
        RediffuseError: see `detect_each` and `cluster.each`.
    """
    images_per_file = 1 + len(MILD) * stability
    size = chunk_size(
        load_detector(detector).settings,
        pool,
        batch_size=batch_size,
        images_per_file=images_per_file,
        num_files=num_files,
        num_left=len(found),
    )
    options |= {"stability": stability, "batch_size": batch_size, "num_files": num_files}
    return each(partial(_Judge, model, detector, options), found, pool, chunk_size=size)


class _Judge:
    """A `cluster.Work`."""

    def __init__(self, model: str | Path, detector: str | Path, options: dict[str, Any]) -> None:
        self._model = load(model, device=options["device"])
        self._detector = load_detector(detector, device=self._model.device)
        self._options = options

    def __call__(self, items: Sequence[FoundImage]) -> Iterator[Verdict]:
        return detect_each(items, model=self._model, detector=self._detector, **self._options)

    def left_out(self, item: FoundImage) -> Verdict:
        detector: Detector = self._detector
        return Verdict(
            file=item.name,
            reason=f"{item.source}: {LEFT_OUT}",
            settings=detector.settings,
            detector_sha256=detector.sha256,
        )
