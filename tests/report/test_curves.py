"""The figure of an evaluation shows its numbers, with and without a control, in every format."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from rediffuse.detection.evaluate import Judged, JudgedImages, Outcome, coverage, evaluate
from rediffuse.detection.labelled import LabelledImage
from rediffuse.detection.left_out import LeftOut
from rediffuse.errors import ConfigError
from rediffuse.images.find import FoundImage
from rediffuse.report.curves import evaluation_figure, write_figure


def scores(seed: int, distance: float = 1.5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        name: 1 / (1 + np.exp(-rng.normal(centre, 1, 100)))
        for name, centre in (("real", -distance / 2), ("generated", distance / 2))
    }


LEFT_OUT = LeftOut(**{name: {"a": tuple(values.tolist())} for name, values in scores(0).items()})
THRESHOLDS = LEFT_OUT.thresholds(0.05, 0.05)


def judged_images(with_control: bool) -> JudgedImages:
    controls = scores(2, distance=0.7)
    judged = tuple(
        Judged(
            LabelledImage(FoundImage(Path(f"{name}{index}"), f"{name}{index}"), label, name),
            "PNG",
            Outcome(score, THRESHOLDS.decide(score), None),
            Outcome(float(controls[name][index]), "unsure", None) if with_control else None,
        )
        for label, (name, values) in enumerate(scores(1).items())
        for index, score in enumerate(values.tolist())
    )
    return JudgedImages(input="bands", control_input="image" if with_control else None, images=judged)


def figure_of(judged: JudgedImages, left_out: LeftOut = LEFT_OUT) -> Figure:
    return evaluation_figure(judged, evaluate(judged), coverage(judged, left_out), THRESHOLDS)


def texts(figure: Figure, panel: int) -> list[str]:
    legend = figure.axes[panel].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_the_legend_has_the_aucs_of_detector_and_control() -> None:
    judged = judged_images(with_control=True)
    comparison = evaluate(judged).comparisons[0]
    assert comparison.control is not None
    assert texts(figure_of(judged), 0) == [
        f"bands, AUC {comparison.detector.figures.auc}",
        f"image (control), AUC {comparison.control.figures.auc}",
    ]


def test_the_curves_have_the_coverage_of_every_limit_and_points_for_the_limits_of_the_detector() -> None:
    judged = judged_images(with_control=False)
    points = coverage(judged, LEFT_OUT)
    figure = figure_of(judged)
    assert texts(figure, 1) == ["real images", "generated images"]
    real, own, *_ = figure.axes[1].get_lines()
    np.testing.assert_allclose(
        np.stack(real.get_data(), axis=1),
        [(point.real_decided, point.real_errors) for point in points if point.real_errors is not None],
    )
    at_5_percent = next(point for point in points if point.limit == 0.05)
    np.testing.assert_allclose(np.ravel(own.get_data()), (at_5_percent.real_decided, at_5_percent.real_errors))


def test_without_control_and_without_supported_limits_the_figure_is_drawn_all_the_same(tmp_path: Path) -> None:
    few = LeftOut(real={"a": (0.5,)}, generated={"b": (0.5,)})
    figure = figure_of(judged_images(with_control=False), few)
    assert len(texts(figure, 0)) == 1
    write_figure(tmp_path / "figure.png", figure)


def test_the_suffix_is_the_format(tmp_path: Path) -> None:
    figure = figure_of(judged_images(with_control=True))
    for suffix, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("PDF", b"%PDF")):
        write_figure(tmp_path / f"figure.{suffix}", figure)
        content = (tmp_path / f"figure.{suffix}").read_bytes()
        assert content.startswith(start)
        assert b"CreationDate" not in content
    with pytest.raises(ConfigError, match=r"^a\.jpg: the name of a figure must end in one of \.png, \.svg, \.pdf$"):
        write_figure(Path("a.jpg"), figure)
