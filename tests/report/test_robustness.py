"""The picture of the curves: its panels, their direction, and what they show."""

import io
import math
from dataclasses import replace
from pathlib import Path

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from rediffuse.detection.robustness import STRENGTHS, RobustnessRow, changes_of, key_of
from rediffuse.images.config import ChangeName
from rediffuse.report.curves import FORMATS, write_figure
from rediffuse.report.robustness import robustness_figure

UNCHANGED = RobustnessRow(
    change="unchanged",
    strength=None,
    num_real=10,
    num_generated=10,
    auc=0.8,
    real_called_generated=0.05,
    generated_called_real=0.1,
    decided=0.4,
    digest="",
)


def rows_of(*names: ChangeName) -> list[RobustnessRow]:
    rows = []
    for place, change in enumerate(changes_of(names)):
        name, strength = key_of(change)
        rows.append(replace(UNCHANGED, change=name, strength=strength, auc=0.8 - place / 100))
    return rows


def test_every_change_has_a_panel_with_its_curves() -> None:
    rows = rows_of(*STRENGTHS)
    panels = [panel for panel in robustness_figure(rows).axes if panel.get_title()]
    assert [panel.get_title() for panel in panels] == [
        *("JPEG", "WebP", "reduction", "crop", "blur", "noise", "screenshot"),
    ]
    for panel, (name, strengths) in zip(panels, STRENGTHS.items(), strict=True):
        curves = {str(line.get_label()): line for line in panel.lines}
        assert tuple(curves["AUC"].get_xdata()) == strengths
        assert list(curves["AUC"].get_ydata()) == [row.auc for row in rows if row.change == name]
        assert set(curves["generated images called real"].get_ydata()) == {0.1}
        assert set(curves["photographs called generated"].get_ydata()) == {0.05}
        assert panel.xaxis_inverted() == (strengths[0] > strengths[-1])  # stronger changes are further right


@pytest.mark.parametrize("names", [("blur",), ("blur", "jpeg"), ("blur", "jpeg", "crop"), tuple(STRENGTHS)])
def test_the_legend_is_within_the_figure(names: tuple[ChangeName, ...]) -> None:
    figure = robustness_figure(rows_of(*names))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    box = figure.legends[0].get_window_extent(canvas.get_renderer())
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert sum(panel.axison for panel in figure.axes) == len(names)


def test_figures_that_could_not_be_measured_are_gaps() -> None:
    rows = rows_of("blur")
    rows[2] = replace(rows[2], auc=None)
    [panel] = robustness_figure(rows).axes
    [auc] = [line for line in panel.lines if line.get_label() == "AUC"]
    assert [math.isnan(value) for value in auc.get_ydata()] == [False, True, False, False]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_can_be_written(suffix: str, tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    path = tmp_path / f"figure{suffix}"
    write_figure(path, robustness_figure(rows_of("blur")))
    content = path.read_bytes()
    assert dict(matplotlib.rcParams) == before
    if suffix == ".png":
        assert min(Image.open(io.BytesIO(content)).size) > 300
    else:
        assert content.startswith({".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
