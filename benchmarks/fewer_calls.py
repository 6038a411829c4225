"""Compare solvers, depths and numbers of windows: network calls, reconstruction errors, and the AUC of a detector.

    python benchmarks/fewer_calls.py --data FOLDER/aligned --originals FOLDER/originals --out RUN
    python benchmarks/fewer_calls.py --data FOLDER/aligned --originals FOLDER/originals --out RUN2 --model FOLDER2

`benchmarks/detector_data.py` makes the two folders. Every row is a setting of the reconstruction, with a detector like
the embedded one (a logistic regression of `bands_image`) that is fitted and judged on images whose group was left out.
The first table has all solvers and depths, on a part of the images. The second one has the settings that a faster
detector could use, on all images, each with the difference of its AUC from that of the embedded detector's settings.

Distances are those of the maps |x_0 - x_0_hat| from the maps of DIRE's settings (20 steps of ddim, all of them
inverted). Reconstructions and results are kept in RUN, so that an interrupted call continues.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
from detector_search import denoised
from script import read_flags
from tqdm import tqdm

from rediffuse.detection.config import InputName
from rediffuse.detection.features import detector_input
from rediffuse.detection.labelled import LabelledImage, find_labelled
from rediffuse.detection.metrics import group_auc_interval, group_bootstrap_aucs, roc_auc
from rediffuse.dire.job import FileResult
from rediffuse.dire.reconstruct import network_calls
from rediffuse.dire.settings import DireSettings
from rediffuse.files import write_bytes
from rediffuse.training.detector import beside_data
from rediffuse.training.detector_config import DetectorTraining
from rediffuse.training.detector_search import Measured, Search
from rediffuse.training.leave_out import assign_folds
from rediffuse.training.reconstructions import ReconstructionCache
from rediffuse.training.samples import measure
from rediffuse.zoo.model import DiffusionModel, load

INPUTS: tuple[InputName, ...] = ("bands_image", "image")
"""The input of the embedded detector, and its control."""
SETTINGS = (
    *(("ddim", 20, depth) for depth in (2, 1, 5, 10, 20)),
    *(("ddim", 10, depth) for depth in (1, 2, 5, 10)),
    *(("ddim", 50, depth) for depth in (1, 2, 5)),
    *(("dpm_solver", 20, depth) for depth in (5, 10, 20)),
    *(("dpm_solver", 10, depth) for depth in (5, 10)),
    *(("heun", 20, depth) for depth in (2, 5, 10, 20)),
    *(("heun", 10, depth) for depth in (2, 5)),
)
"""Solver, steps and depth; the first is that of the embedded detector. To a depth of 2 dpm_solver has the steps of
ddim, and at depth 1 heun too."""
FAST = ((2, 8), (1, 4), (2, 2), (1, 2), (2, 1), (2, 4), (1, 8))
"""Depth, of 20 steps of ddim, and windows; the first is the embedded detector."""
NOISE_TIMESTEP = 20
"""Of 1000, of the windows that are denoised by one call."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compare settings of the reconstruction."""

    data: Path
    """Aligned images, in real/ and generated/."""
    originals: Path
    """The same groups, files as they are."""
    out: Path
    """Folder of reconstructions and results; one for each model."""
    model: str = "default"
    num_images: int = 280
    """Images of the first table, half of each class, evenly spread over the collections of a class."""
    num_maps: int = 56
    """The first of these, whose maps are compared."""
    windows: int = 2
    """Windows per image in the first table."""
    tables: tuple[Literal["solvers", "fast"], ...] = ("solvers", "fast")
    """The tables to make: the first one, the second one."""
    figure: Path | None = None
    """File for a figure of the first table."""
    batch_size: int = 32
    seed: int = 0
    """Random seed of the choice of images."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """The result of one setting."""

    name: str
    calls: int
    """Of the network, per image."""
    labels: np.ndarray
    groups: np.ndarray
    probabilities: np.ndarray
    """(N,) each: of every image, in the order of their names."""
    control: np.ndarray
    """The probabilities of the same classifier without a reconstruction."""
    distance: float
    """Root mean square difference of the maps from those of the reference, as a share of the latter's own."""
    correlation: float
    """Of the same maps; NaN, like the distance, where they are not compared."""


def main(flags: Flags) -> None:
    model = load(flags.model)
    cache = ReconstructionCache(
        folder=flags.out / "reconstructions", model=model, batch_size=flags.batch_size, workers=1
    )
    everything = [*find_labelled(flags.data), *beside_data(_config(flags))]
    if "solvers" in flags.tables:
        rows = list(_solver_rows(flags, cache, _spread(everything, flags.num_images, flags.seed)))
        print(_table(rows, with_maps=True), flush=True)
        if flags.figure is not None:
            _draw(rows, flags.figure)
    if "fast" in flags.tables:
        print(_table(list(_fast_rows(flags, cache, everything)), with_maps=False))


def _solver_rows(flags: Flags, cache: ReconstructionCache, images: Sequence[LabelledImage]) -> Iterator[Row]:
    reference = DireSettings.for_model(cache.model, steps=20, depth=20, crop=f"windows:{flags.windows}")
    for solver, steps, depth in SETTINGS:
        settings = replace(reference, solver=solver, steps=steps, depth=depth, grid="aligned")
        yield _row(flags, cache, images, f"{solver}, {depth} of {steps} steps", settings, reference)


def _fast_rows(flags: Flags, cache: ReconstructionCache, images: Sequence[LabelledImage]) -> Iterator[Row]:
    for depth, windows in FAST:
        crop = f"windows:{windows}"
        settings = DireSettings.for_model(cache.model, steps=20, depth=depth, grid="aligned", crop=crop)
        yield _row(flags, cache, images, f"{depth} of 20 steps, {windows} windows", settings, None)
        if (depth, windows) == FAST[0]:
            name = f"one denoising call at t = {NOISE_TIMESTEP}, {windows} windows"
            yield _row(flags, cache, images, name, settings, None, denoises=True)


def _row(
    flags: Flags,
    cache: ReconstructionCache,
    images: Sequence[LabelledImage],
    name: str,
    settings: DireSettings,
    reference: DireSettings | None,
    *,
    denoises: bool = False,
) -> Row:
    """Reconstruct, fit and judge, or read the result; `denoises` takes one call in the place of the reconstruction."""
    path = flags.out / f"{len(images)}_images" / f"{name.replace(' ', '_')}_{settings.crop}.json"
    if not path.exists():
        results = tqdm(
            cache.reconstruct([image.found for image in images], settings), name, total=len(images), unit="image"
        )
        given = (_denoised(cache.model, result) for result in results) if denoises else results
        measures = {one: detector_input(one, settings).measure for one in INPUTS}
        calls = (settings.num_windows or 1) if denoises else network_calls(cache.model, settings)
        measured = Measured(settings=settings, network_calls=calls, samples=measure(images, given, measures))
        probabilities, control = _judged(flags, measured)
        distance, correlation = np.nan, np.nan
        if reference is not None:
            some = [image.found for image in _spread(images, flags.num_maps, flags.seed)]
            found = ({r.found.name: r for r in cache.reconstruct(some, one)} for one in (settings, reference))
            distance, correlation = _compared(*found)
        record = {
            "calls": calls,
            "labels": measured.samples.labels.tolist(),
            "groups": [image.group for image in measured.samples.images],
            "probabilities": probabilities.tolist(),
            "control": control.tolist(),
            "distance": distance,
            "correlation": correlation,
        }
        write_bytes(path, json.dumps(record).encode())
    record = json.loads(path.read_text())
    fields: dict[str, Any] = {key: np.array(one) if isinstance(one, list) else one for key, one in record.items()}
    return Row(name=name, **fields)


def _judged(flags: Flags, measured: Measured) -> tuple[np.ndarray, np.ndarray]:
    """(N,) each: the probability of every image by a detector, and by its control, made without the image's fold."""
    search = Search(_config(flags), [measured], flags.out / "runs")
    found = np.full((2, len(search.images)), np.nan)
    for rows, *detectors in search.without_each(assign_folds(search.images)):
        for place, detector in enumerate(detectors):
            found[place, rows] = [outcome.probability for outcome in search.outcomes(detector, rows)]
    return found[0], found[1]


def _denoised(model: DiffusionModel, result: FileResult) -> FileResult:
    made = result.reconstruction
    if made is None:
        return result
    return replace(result, reconstruction=replace(made, x_0_hat=denoised(model, made.x_0, NOISE_TIMESTEP)))


def _compared(results: dict[str, FileResult], reference: dict[str, FileResult]) -> tuple[float, float]:
    """The distance of all maps together from those of the reference, and their correlation."""
    maps, references = (
        torch.cat([one[name].reconstruction.map.values for name in sorted(reference)])  # type: ignore[union-attr]
        for one in (results, reference)
    )
    distance = (maps - references).square().mean().sqrt() / references.square().mean().sqrt()
    both = torch.stack([maps.flatten(), references.flatten()])
    return distance.item(), torch.corrcoef(both)[0, 1].item()


def _spread(images: Sequence[LabelledImage], number: int, seed: int) -> list[LabelledImage]:
    """At least `number` images: half of each class, and as many of each of its collections; a smaller number is a part
    of a larger one."""
    chosen = []
    for label in (0, 1):
        collections = sorted({image.collection for image in images if image.label == label})
        for place, name in enumerate(collections):
            own = sorted((one for one in images if one.collection == name), key=lambda one: one.found.name)
            order = np.random.default_rng([seed, label, place]).permutation(len(own))
            chosen += [own[index] for index in order[: -(-number // (2 * len(collections)))]]
    return chosen


def _config(flags: Flags) -> DetectorTraining:
    return DetectorTraining(data=flags.data, originals=flags.originals, features=INPUTS[:1])


def _table(rows: Sequence[Row], *, with_maps: bool) -> str:
    headings = ["setting", "network calls", "AUC [95 %]", "difference from the first row [95 %]", "of the control"]
    if with_maps:
        headings += ["distance of the map", "correlation"]
    lines = ["\n| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    for row in rows:
        auc = group_auc_interval(row.labels, row.probabilities, row.groups)
        control = roc_auc(row.labels, row.control)
        cells = [row.name, str(row.calls), str(auc), _difference(row, rows[0]), f"{control:.3f}"]
        if with_maps:
            cells += [f"{row.distance:.2f}", f"{row.correlation:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _difference(row: Row, other: Row) -> str:
    if row is other:
        return ""
    own, theirs = ((one.labels, one.probabilities, one.groups) for one in (row, other))
    value = roc_auc(*own[:2]) - roc_auc(*theirs[:2])
    aucs, others = (group_bootstrap_aucs(*data, resamples=2000, seed=0) for data in (own, theirs))
    low, high = np.quantile(aucs - others, [0.025, 0.975])
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _draw(rows: Sequence[Row], path: Path) -> None:
    """AUC and distance of the map against the number of network calls, one line for each solver and grid."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.8), layout="constrained")
    for solver, steps in dict.fromkeys((solver, steps) for solver, steps, _ in SETTINGS):
        own = [row for row in rows if row.name.startswith(f"{solver}, ") and row.name.endswith(f" {steps} steps")]
        own.sort(key=lambda row: row.calls)
        intervals = [group_auc_interval(row.labels, row.probabilities, row.groups) for row in own]
        calls, label = [row.calls for row in own], f"{solver}, {steps} steps"
        values = np.array([one.value for one in intervals])
        spans = [values - [one.low for one in intervals], [one.high for one in intervals] - values]
        left.errorbar(calls, values, spans, marker="o", linewidth=1, elinewidth=0.5, label=label)
        right.plot(calls, [row.distance for row in own], marker="o", linewidth=1, label=label)
    left.axhline(roc_auc(rows[0].labels, rows[0].control), color="gray", linestyle="--", label="control")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="network calls per image")
        axes.grid(alpha=0.3)
    left.set(ylabel="AUC, groups left out")
    right.set(ylabel="distance of the map")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize="small")
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main(read_flags(Flags))
