"""The page of an evaluation: the figures of the detector above the images."""

import numpy as np

from rediffuse.detection.evaluate import Evaluation, JudgedImages, evaluation_tables, roc_curves
from rediffuse.detection.labelled import CLASSES, LabelledImage
from rediffuse.detection.verdict import Verdict
from rediffuse.report.article import Truth
from rediffuse.report.charts import line_chart
from rediffuse.report.page import Section, Table

MOST_POINTS = 200
"""Largest number of points of a curve."""


def evaluation_headline(judged: JudgedImages) -> str:
    """The errors for a person, as in `1 of 10 real images looks generated; ...`."""
    decisions = [(CLASSES[one.image.label], one.detector.decision) for one in judged.images]
    totals = {name: sum(label == name for label, _ in decisions) for name in CLASSES}
    alarms, misses = decisions.count(("real", "generated")), decisions.count(("generated", "real"))
    unsure = sum(decision == "unsure" for _, decision in decisions)
    return (
        f"{alarms} of {totals['real']} real images {'looks' if alarms == 1 else 'look'} generated; {misses} of "
        f"{totals['generated']} generated images {'shows' if misses == 1 else 'show'} no sign of generation; {unsure} "
        "could not be decided"
    )


def evaluation_section(judged: JudgedImages, evaluation: Evaluation, audit: str) -> Section:
    """The tables of the evaluation, with the ROC curves.

    Args:
        judged: the images with their results.
        evaluation: the report on them.
        audit: the conclusion of the audit of these images.
    """
    lines = {}
    for name, points in roc_curves(judged, evaluation).items():
        each = np.unique(np.linspace(0, len(points[0]) - 1, MOST_POINTS).astype(int))
        lines[name] = tuple(coordinates[each].tolist() for coordinates in points)
    chart = line_chart(
        "ROC curves",
        "The share of generated images above each threshold, against the share of real images.",
        " and ".join(lines),
        lines,
        x_label="real images above the threshold",
        x_range=(0, 1),
        y_range=(0, 1),
    )
    tables = [
        Table(caption=title, headings=rows[0], rows=rows[1:]) for title, rows in evaluation_tables(evaluation).items()
    ]
    texts = [
        f"Audit of the data: {audit}.",
        "The control is the same classifier without any reconstruction: if it is as good, the reconstruction adds "
        "nothing.",
    ]
    return Section(title="Evaluation", anchor="evaluation", texts=texts, charts=[chart], tables=tables)


def truth_of(image: LabelledImage, verdict: Verdict) -> Truth:
    """The class of an image, and whether the verdict on it is the opposite one."""
    label = CLASSES[image.label]
    return Truth(label=label, group=image.group, wrong=verdict.decision not in (None, "unsure", label))
