"""The evidence picture: its size, its scale, its text."""

import io
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from rediffuse.report.evidence import amplification, evidence_png
from report.verdicts import judged


def _open(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


@pytest.mark.parametrize("decision", ["generated", "unsure", "real"])
def test_every_decision_is_drawn_at_the_stated_size(decision: str) -> None:
    assert _open(evidence_png(judged("a.png", decision))).size == (1500, 984)  # type: ignore[arg-type]


def test_a_detector_without_bands_is_drawn() -> None:
    assert evidence_png(replace(judged("a.png"), bands=(), coherences=(), contributions=()))


def test_names_in_any_script_or_mathematics_are_drawn_as_text() -> None:
    assert evidence_png(judged("$\\frac{1}$ 漢字 " + "long" * 60 + ".png"))


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
