"""The curves of `detection.robustness` as one picture: a panel for each change."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rediffuse.detection.robustness import STRENGTHS, UNCHANGED, RobustnessRow
from rediffuse.images.config import ChangeName

ACROSS = 4
"""Largest number of panels side by side."""

# These colours can be distinguished with every type of colour vision (Okabe and Ito, 2008).
LINES = {
    "auc": ("AUC", "#000000", "o"),
    "real_called_generated": ("photographs called generated", "#d55e00", "s"),
    "generated_called_real": ("generated images called real", "#0072b2", "^"),
}
"""The figures of a row that are drawn: their names, colours and marks."""
STRENGTH_NAMES: dict[ChangeName, tuple[str, str]] = {
    "jpeg": ("JPEG", "quality"),
    "webp": ("WebP", "quality"),
    "reduce": ("reduction", "share of each side that is left"),
    "crop": ("crop", "share of each side that is left"),
    "blur": ("blur", "sigma in pixels"),
    "noise": ("noise", "sigma in levels of 0 to 255"),
    "screenshot": ("screenshot", "display scale"),
}
"""Of each change the title of its panel, and what its strength is."""


def robustness_figure(rows: Sequence[RobustnessRow]) -> Figure:
    """AUC and both error rates against the strength, one panel for each change; a stronger change is further right.

    Dotted lines are the figures of the unchanged images.

    Args:
        rows: one row for the unchanged images, and those of at least one change.
    """
    [unchanged] = [row for row in rows if row.change == UNCHANGED]
    drawn: dict[ChangeName, list[RobustnessRow]] = {}
    for row in rows:
        if row.change != UNCHANGED:
            drawn.setdefault(row.change, []).append(row)
    across = min(ACROSS, len(drawn))
    down = math.ceil(len(drawn) / across)
    figure = Figure(
        figsize=(max(7.5, 3.1 * across), 0.6 + 2.7 * down), dpi=120, facecolor="white", layout="constrained"
    )
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for panel, (name, group) in zip(panels, drawn.items(), strict=False):
        _draw(panel, name, group, unchanged)
    for panel in panels[len(drawn) :]:
        panel.set_axis_off()
    names = panels[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside upper center", ncols=4 if across > 2 else 2, frameon=False)
    return figure


def _draw(panel: Axes, name: ChangeName, rows: Sequence[RobustnessRow], unchanged: RobustnessRow) -> None:
    title, axis = STRENGTH_NAMES[name]
    panel.set_title(title)
    panel.set_xlabel(axis)
    panel.set_ylim(-0.03, 1.03)
    panel.grid(alpha=0.25)
    strengths = [_number(row.strength) for row in rows]
    for field, (label, colour, mark) in LINES.items():
        panel.axhline(_number(getattr(unchanged, field)), color=colour, linestyle=":", linewidth=1)
        values = [_number(getattr(row, field)) for row in rows]
        panel.plot(strengths, values, color=colour, marker=mark, markersize=4, linewidth=1.5, label=label)
    panel.plot([], [], color="0.4", linestyle=":", linewidth=1, label="unchanged images")
    panel.set_xticks(strengths, [f"{strength:g}" for strength in strengths])
    if STRENGTHS[name][0] > STRENGTHS[name][-1]:
        panel.invert_xaxis()


def _number(value: float | None) -> float:
    """NaN, which is not drawn, for a figure that could not be measured."""
    return math.nan if value is None else value
