"""The evidence picture: its size, its scale, its text."""

import io
import math
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle
from PIL import Image

from rediffuse.detection.stability import MILD, with_copies
from rediffuse.detection.verdict import JudgedCopy
from rediffuse.report.evidence import COLOURS, amplification, evidence_figure, evidence_png
from rediffuse.report.words import CAUTION
from report.verdicts import judged, judged_by_windows


def _open(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


@pytest.mark.parametrize("decision", ["generated", "unsure", "real"])
def test_every_decision_is_drawn_at_the_stated_size(decision: str) -> None:
    assert _open(evidence_png(judged("a.png", decision))).size == (1500, 984)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [1, 8])
def test_windows_are_drawn_on_their_picture(number: int) -> None:
    verdict = judged_by_windows("a.png", number)
    assert _open(evidence_png(verdict)).size == (1500, 984)
    image, reconstruction, error, *_ = evidence_figure(verdict).axes
    assert image.get_images()[0].get_extent() == [0, 200, 120, 0]
    squares = [patch for patch in image.patches if isinstance(patch, Rectangle)]
    outlined = {(round(square.get_y()), round(square.get_x())) for square in squares}
    assert outlined == {(window.top, window.left) for window in verdict.windows}
    colours = {
        window: to_rgba(COLOURS["generated" if share > 0 else "real"])
        for window, share in zip(verdict.windows, verdict.window_contributions, strict=True)
    }
    assert {square.get_edgecolor() for square in squares} == {to_rgba("white"), *colours.values()}
    side = 16 * math.ceil(math.sqrt(number))
    assert [panel.get_images()[0].get_array().shape[:2] for panel in (reconstruction, error)] == [(side, side)] * 2


def test_a_detector_without_bands_is_drawn() -> None:
    assert evidence_png(replace(judged("a.png"), bands=(), coherences=(), contributions=()))


def test_names_in_any_script_or_mathematics_are_drawn_as_text() -> None:
    assert evidence_png(judged("$\\frac{1}$ 漢字 " + "long" * 60 + ".png"))


def test_the_whole_caption_is_in_the_picture_also_with_changed_copies() -> None:
    verdict = replace(judged_by_windows("a.png", 8), decision="real")
    copies = [JudgedCopy(change=change, probability=0.9, decision="generated") for change in MILD]
    for drawn in (judged("a.png", "unsure"), verdict, with_copies(verdict, copies)):
        figure = evidence_figure(drawn)
        renderer = FigureCanvasAgg(figure).get_renderer()
        words = figure.axes[3].texts[-1]
        assert words.get_text().replace("\n", " ").endswith(CAUTION)
        box = words.get_window_extent(renderer)
        assert box.y0 >= 0
        assert box.x1 <= 0.31 * figure.bbox.width


def test_the_same_verdict_makes_the_same_picture() -> None:
    assert evidence_png(judged("a.png")) == evidence_png(judged("a.png"))


def test_the_amplification_fills_the_scale_but_does_not_overflow_it() -> None:
    for loudest in (2.0, 0.7, 0.05, 0.001):
        factor = amplification(np.linspace(0, loudest, 1000))
        assert loudest * factor <= 2.02
    assert amplification(np.full(1000, 2.0)) == 1
    assert amplification(np.zeros(10)) == 200


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    evidence_png(judged("a.png"))
    assert dict(matplotlib.rcParams) == before
