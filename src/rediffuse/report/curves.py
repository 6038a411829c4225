"""The figure of an evaluation: ROC curves, and the errors of the decisions against their number."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rediffuse.detection.calibration import Thresholds
from rediffuse.detection.evaluate import Coverage, Evaluation, JudgedImages, roc_curves
from rediffuse.errors import ConfigError
from rediffuse.files import atomic_write

# These colours can be distinguished with every type of colour vision (Okabe and Ito, 2008).
DETECTOR, CONTROL, CHANCE = "#009e73", "#6b6b6b", "#bbbbbb"
REAL, GENERATED = "#0072b2", "#d55e00"
FORMATS = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""The suffixes of figures, with the metadata that leave out the time: so the same figure is the same file."""


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure in the format of the suffix: .png, .svg or .pdf.

    Raises:
        ConfigError: another suffix.
        StorageError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"{path}: the name of a figure must end in one of {', '.join(FORMATS)}")
    with atomic_write(path) as partial:
        figure.savefig(partial, format=suffix[1:], metadata=FORMATS[suffix])


def evaluation_figure(
    judged: JudgedImages, evaluation: Evaluation, points: Sequence[Coverage], thresholds: Thresholds
) -> Figure:
    """Two panels: ROC curves of the detector and its control; errors among the decided images against their share.

    Args:
        judged: the images with their results.
        evaluation: the report on them.
        points: `detection.evaluate.coverage` of them; the thresholds of a point have one limit for both errors.
        thresholds: those of the detector; the decisions that it makes with them are marked.
    """
    figure = Figure(figsize=(11, 4.8), dpi=120, facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_roc(left, judged, evaluation)
    _draw_coverage(right, evaluation, points, thresholds)
    return figure


def _draw_roc(axes: Axes, judged: JudgedImages, evaluation: Evaluation) -> None:
    figures = evaluation.comparisons[0].detector.figures
    axes.plot([0, 1], [0, 1], ":", color=CHANCE)
    for (name, points), colour in zip(roc_curves(judged, evaluation).items(), (DETECTOR, CONTROL), strict=False):
        axes.plot(*points, color=colour, label=name)
    axes.set_title(f"{figures.num_real} real, {figures.num_generated} generated images")
    _set_shares(axes, "real images above the threshold", "generated images above the threshold")
    axes.set_ylim(0, 1.01)
    axes.legend(loc="lower right", fontsize=9)


def _draw_coverage(axes: Axes, evaluation: Evaluation, points: Sequence[Coverage], thresholds: Thresholds) -> None:
    made = {label: [group for group in evaluation.groups if group.label == label] for label in ("real", "generated")}
    for label, wrong, colour in (("real", "generated", REAL), ("generated", "real", GENERATED)):
        pairs = [(getattr(point, f"{label}_decided"), getattr(point, f"{label}_errors")) for point in points]
        known = [pair for pair in pairs if pair[1] is not None]
        axes.plot(*zip(*known, strict=True) if known else ((), ()), "-", color=colour, label=f"{label} images")
        counts = {
            name: sum(group.num_images * getattr(group, name) for group in made[label])
            for name in ("real", "unsure", "generated")
        }
        decided = counts["real"] + counts["generated"]
        if decided:
            axes.plot(decided / sum(counts.values()), counts[wrong] / decided, "o", color=colour, clip_on=False)
    limits = f"{thresholds.max_false_alarms:.3g} and {thresholds.max_misses:.3g}"
    axes.set_title(f"thresholds for all limits; points: {limits}")
    _set_shares(axes, "images that are decided", "wrong decisions among these")
    axes.set_ylim(bottom=0)
    axes.legend(loc="best", fontsize=9)


def _set_shares(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(0, 1.01)
    axes.grid(color="#eeeeee")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
