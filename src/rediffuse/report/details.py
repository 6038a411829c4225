"""What the page shows of one image: its pictures, and everything that was measured, as values for `article.html`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rediffuse.detection.features import band_range
from rediffuse.detection.verdict import Evidence, Verdict
from rediffuse.images.decode import printable
from rediffuse.images.facts import FileFacts
from rediffuse.models.frequency import highest
from rediffuse.records import digest
from rediffuse.report import pixels
from rediffuse.report.charts import Chart, bar_chart, line_chart
from rediffuse.report.words import TITLES

RANGE = 300
"""Width of the scale of scores, in the units of its SVG image."""
NEGLIGIBLE = 0.05
"""A window whose influence is below this share of the largest one speaks neither for nor against generation."""
MOST_POINTS = 64
"""Largest number of points of a spectrum."""
PICTURE, ERROR, WINDOWS = "picture.jpg", "error.png", "windows.jpg"
"""The pictures of an image: how the names of their files end."""
SHOWN_DIGITS = 16
"""Length of a digest on the page."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures of one image: their files by kind, and what the page says of them."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    """`PICTURE`, `ERROR` and `WINDOWS`."""
    figures: Sequence[Mapping[str, Any]] = ()
    """The values of the first two for the template; `file` is the one that is shown, and `ground` the one under it."""
    strip: Mapping[str, Any] | None = None
    """The values of the windows enlarged."""


def pictures_of(verdict: Verdict) -> Pictures:
    """Draw the pictures of a verdict; none without evidence."""
    evidence = verdict.evidence
    if evidence is None:
        return Pictures()
    error = pixels.error_of(evidence)
    drawn = pixels.error_picture(verdict, evidence, error)
    width, height = pixels.size_of(evidence)
    side, number = evidence.x_0.shape[-1], len(evidence.x_0)
    name = printable(verdict.file)
    levels = f"{255 / error.factor:.3g} of 255 levels"
    means = 127.5 * error.values.mean(axis=(1, 2))
    mean = f"The mean is {127.5 * float(error.values.mean()):.2g} levels"
    largest = f", largest in window {int(means.argmax()) + 1}" if number > 1 else ""
    windows = "1 window" if number == 1 else f"{number} windows"
    of_windows = bool(verdict.windows)
    enlarged = f", enlarged {drawn.zoom} times" if drawn.zoom > 1 else ""
    own = [(float(one.left), float(one.top), float(max(one.size, width // 40))) for one in verdict.windows]
    shown_width, shown_height = pixels.shown_size(width, height)
    error_width, error_height = (shown_width, shown_height) if of_windows else pixels.shown_size(side, side)
    figures = (
        {
            "file": PICTURE,
            "ground": None,
            "width": shown_width,
            "height": shown_height,
            "alt": f"{name}, the image",
            "caption": f"The image, {width} x {height} pixels" + (f", and its {windows}" if of_windows else ""),
            "levels": None,
            **_frame(verdict, own, width, height),
        },
        {
            "file": ERROR,
            "ground": PICTURE if of_windows else None,
            "width": error_width,
            "height": error_height,
            "alt": f"{name}, the reconstruction error in colours. {mean}{largest}.",
            "caption": f"Reconstruction error of the windows{enlarged}"
            if of_windows
            else f"Reconstruction error of the input of the network, {side} x {side} pixels",
            "levels": levels,
            **_frame(verdict, drawn.places, *drawn.size),
        },
    )
    scale = max(1, min(3, 960 // (side * number)))
    strip = {
        "file": WINDOWS,
        "width": scale * side * number,
        "height": scale * 3 * side,
        "alt": f"{windows} of {name}, their reconstructions, and the errors",
        "caption": f"{'The windows from 1 on' if of_windows else 'The input of the network'}; below, the "
        f"reconstruction; below that, the error, whose scale ends at {levels}.",
    }
    files = {PICTURE: pixels.picture(evidence), ERROR: drawn.png, WINDOWS: pixels.strip(evidence, error)}
    return Pictures(files=files, figures=figures, strip=strip)


def details(verdict: Verdict) -> dict[str, Any]:
    """The charts, tables and facts of a verdict; all of them empty for an image that was not judged."""
    return {
        "details": verdict.judged,
        "scale": _scale(verdict),
        "charts": _charts(verdict),
        "bands": _bands(verdict),
        "windows": [
            (number, f"{window.left} px", f"{window.top} px", f"{part:+.2f}")
            for number, (window, part) in enumerate(zip(verdict.windows, verdict.window_contributions, strict=True), 1)
        ],
        "copies": [(copy.change, f"{copy.probability:.3f}", TITLES[copy.decision]) for copy in verdict.copies],
        "numbers": _numbers(verdict),
        "file": [] if verdict.evidence is None else _file(verdict.evidence),
    }


def _frame(verdict: Verdict, places: Sequence[tuple[float, float, float]], width: int, height: int) -> dict[str, Any]:
    """The outlines of the windows, in pixels of a picture of this size."""
    text_size = max(width, height) / 22
    parts = verdict.window_contributions or (0.0,) * len(places)
    largest = max(1e-9, *map(abs, parts), 0)
    outlines, labels = [], []
    for number, ((left, top, side), part) in enumerate(zip(places, parts, strict=True), 1):
        relative = abs(part) / largest
        kind = "unsure" if relative < NEGLIGIBLE else "generated" if part > 0 else "real"
        outlines.append(
            (kind, f"M{left:.1f} {top:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z", f"{1.5 + 3 * relative:.1f}")
        )
        above = top - 0.25 * text_size
        label_y = above if above > text_size else top + side + text_size
        labels.append((number, f"{left + side / 2:.1f}", f"{label_y:.1f}"))
    return {"outlines": outlines, "labels": labels, "across": width, "down": height, "text_size": f"{text_size:.1f}"}


def _scale(verdict: Verdict) -> dict[str, Any] | None:
    """The line from 0 to 1 with the thresholds and the score."""
    score, low, high = verdict.probability, verdict.real_threshold, verdict.threshold
    if score is None or low is None or high is None or not np.isfinite(score):
        return None
    return {
        "at": round(RANGE * score, 1),
        "low": round(RANGE * low, 1),
        "high": round(RANGE * high, 1),
        "low_label": f"{low:.2f}" if 0.08 < low < 0.92 and high - low > 0.1 else "",
        "high_label": f"{high:.2f}" if 0.08 < high < 0.92 else "",
        "summary": f"Score {score:.2f}; below {low:.2f} no sign of generation, from {high:.2f} on looks generated",
    }


def _charts(verdict: Verdict) -> list[Chart]:
    label, number = "frequency band, coarse to fine", range(len(verdict.bands))
    charts = []
    if verdict.contributions:
        strongest = verdict.strongest_band
        charts.append(
            bar_chart(
                "Contribution of each band to the score",
                "Log-odds: above 0 for generation, below 0 against it.",
                f"band {strongest} has the largest influence, {verdict.contributions[strongest or 0]:+.2f}",
                verdict.contributions,
                ["generated" if part > 0 else "real" for part in verdict.contributions],
                x_label=label,
            )
        )
    if verdict.bands:
        charts.append(
            line_chart(
                "Error by band",
                "Logarithm of the ratio of the error's energy to the image's; 0: as large as the image.",
                f"from {verdict.bands[0]:.1f} in the coarsest band to {verdict.bands[-1]:.1f} in the finest",
                {"error": (number, verdict.bands)},
                x_label=label,
                x_range=(0, len(number) - 1),
                x_ticks=number,
            )
        )
        charts.append(
            line_chart(
                "Coherence by band",
                "1: image and reconstruction agree; 0: they are unrelated.",
                f"from {verdict.coherences[0]:.2f} in the coarsest band to {verdict.coherences[-1]:.2f} in the finest",
                {"coherence": (number, verdict.coherences)},
                x_range=(0, len(number) - 1),
                x_ticks=number,
                y_range=(min(0.0, *verdict.coherences), 1.0),
                x_label=label,
            )
        )
    if verdict.evidence is not None:
        charts.append(_spectra(verdict.evidence))
    return charts


def _spectra(evidence: Evidence) -> Chart:
    num_rings = evidence.powers.shape[1]
    each = slice(1, None, max(1, num_rings // MOST_POINTS))
    frequencies = (np.arange(num_rings) / evidence.x_0.shape[-1])[each].tolist()
    # Power below that of rounding to 8 bits, (2/255)^2 / 12 = 5e-6, has no meaning.
    logarithms = np.log10(np.maximum(evidence.powers[:, each], 1e-7)).tolist()
    names = ("input", "reconstruction", "error")
    lines = {name: (frequencies, own) for name, own in zip(names, logarithms, strict=True)}
    return line_chart(
        "Spectra",
        "Power at each frequency.",
        "the power of input, reconstruction and error at each frequency",
        lines,
        x_label="cycles per pixel",
        x_range=(0, highest(2)),
        powers=True,
    )


def _bands(verdict: Verdict) -> list[tuple[object, ...]]:
    rows = []
    of_bands = zip(verdict.bands, verdict.coherences, verdict.contributions, strict=True)
    for band, (error, coherence, part) in enumerate(of_bands):
        low, high = band_range(band, len(verdict.bands))
        rows.append((band, f"{low:.2f} to {high:.2f}", f"{error:.2f}", f"{coherence:.3f}", f"{part:+.2f}"))
    return rows


def _numbers(verdict: Verdict) -> list[tuple[str, str]]:
    facts = []
    if verdict.probability is not None:
        facts.append(("score", f"{verdict.probability:.4f}"))
    if verdict.threshold is not None and verdict.real_threshold is not None:
        low, high = f"{verdict.real_threshold:.4f}", f"{verdict.threshold:.4f}"
        facts.append(("thresholds", f"looks generated from {high} on; no sign of generation below {low}"))
    if verdict.mean_dire is not None:
        facts.append(("mean error", f"{verdict.mean_dire:.4f} of at most 2 ({127.5 * verdict.mean_dire:.2f} levels)"))
    if verdict.settings is not None:
        facts.append(("settings", digest(verdict.settings)))
        facts.append(("model", verdict.settings.model_sha256[:SHOWN_DIGITS]))
    if verdict.detector_sha256 is not None:
        facts.append(("detector", verdict.detector_sha256[:SHOWN_DIGITS]))
    return facts


def _file(evidence: Evidence) -> list[tuple[str, str]]:
    rows = []
    original, meta = evidence.original, evidence.meta
    if original is not None and original.facts is not None and original.num_bytes is not None:
        rows.append(("format", _format(original.facts)))
        rows.append(("size", f"{original.facts.width} x {original.facts.height} pixels, {original.num_bytes} bytes"))
    if meta is not None:
        rows.append(("SHA-256", meta.sha256))
    if original is not None and original.facts is not None:
        facts = original.facts
        kinds = [name for name in ("exif", "icc", "xmp", "text") if getattr(facts, name)]
        rows.append(("metadata", ", ".join(name if name == "text" else name.upper() for name in kinds) or "none"))
        rows += [(f"states: {name}", value) for name, value in original.metadata.items()]
    return rows


def _format(facts: FileFacts) -> str:
    parts = [facts.codec, f"{facts.bit_depth} bits, {facts.mode}"]
    parts += [] if facts.quality is None else [f"quality {facts.quality}"]
    parts += [] if facts.subsampling is None else [f"colour {facts.subsampling}"]
    parts += ["progressive"] * facts.progressive
    return ", ".join(parts)
