"""One picture per image: input, reconstruction, error, and the contribution of each frequency band to the verdict.

Figures are built from objects and not with pyplot, so there is no global state, and several threads can draw.
"""

import functools
import io
import textwrap
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from rediffuse.detection.verdict import Evidence, Verdict
from rediffuse.images.montage import tile
from rediffuse.images.windows import Thumbnail
from rediffuse.report.spectrum import draw_spectra
from rediffuse.report.words import caption

# These colours can be distinguished with every type of colour vision (Okabe and Ito, 2008).
COLOURS = {"generated": "#d55e00", "real": "#0072b2", "unsure": "#6b6b6b"}
ERROR_COLOURS = "magma"
WORD_SIZES = (9, 8.5, 8, 7.5, 7, 6.5, 6, 5.5)
WORDS_HEIGHT = 180
"""Height of the caption in points."""
AMPLIFICATIONS = (1, 2, 3, 4, 6, 8, 10, 15, 20, 30, 40, 60, 80, 100, 150, 200)


def evidence_png(verdict: Verdict) -> bytes:
    """The picture of `evidence_figure` as a PNG file of 1500 x 984 pixels."""
    content = io.BytesIO()
    FigureCanvasAgg(evidence_figure(verdict)).print_png(content)
    return content.getvalue()


def evidence_figure(verdict: Verdict) -> Figure:
    """Input, reconstruction and amplified error above; verdict, spectra, error by band and contributions below.

    Args:
        verdict: a verdict with evidence.
    """
    assert verdict.decision is not None
    assert verdict.evidence is not None
    figure = Figure(figsize=(12.5, 8.2), dpi=120, facecolor="white")
    figure.text(0.02, 0.965, _drawable(_shorten(verdict.file, 110)), parse_math=False, fontsize=13, va="center")
    images = figure.add_gridspec(1, 3, left=0.02, right=0.94, bottom=0.44, top=0.91, wspace=0.06)
    _draw_images([figure.add_subplot(images[0, k]) for k in range(3)], verdict, verdict.evidence)
    _draw_words(figure.add_axes((0.02, 0.02, 0.27, 0.36)), verdict)
    _draw_spectra(figure.add_axes((0.345, 0.075, 0.155, 0.285)), verdict.evidence)
    _draw_profile(figure.add_axes((0.56, 0.075, 0.165, 0.285)), verdict)
    _draw_contributions(figure.add_axes((0.825, 0.075, 0.165, 0.285)), verdict)
    return figure


def amplification(error: np.ndarray) -> int:
    """The largest factor of `AMPLIFICATIONS` with which 99.5 % of an error in [0, 2] stays within the scale."""
    large = float(np.quantile(error, 0.995))
    return max((factor for factor in AMPLIFICATIONS if large * factor <= 2), default=1)


def _draw_images(axes: list[Axes], verdict: Verdict, evidence: Evidence) -> None:
    error = np.abs(evidence.x_0 - evidence.x_0_hat).mean(axis=1, keepdims=True)  # (N, 1, S, S), mean over channels
    factor = amplification(error)
    scale = Normalize(0, 2 / factor)
    side = error.shape[-1]
    if evidence.picture is None:
        axes[0].imshow(_displayable(evidence.x_0))
        axes[0].set_title(f"input of the network ({side} x {side})")
    else:
        _draw_windows(axes[0], verdict, evidence.picture)
        axes[0].set_title(f"{len(verdict.windows)} windows, orange: generated, blue: real")
    axes[1].imshow(_displayable(evidence.x_0_hat))
    axes[1].set_title("reconstruction" if evidence.picture is None else "reconstruction of the windows")
    axes[2].imshow(_tiled(error)[..., 0], cmap=ERROR_COLOURS, norm=scale)
    axes[2].set_title("|input - reconstruction|" + (f", amplified {factor} times" if factor > 1 else ""))
    beside = axes[2].inset_axes((1.03, 0, 0.04, 1))
    axes[2].figure.colorbar(ScalarMappable(scale, ERROR_COLOURS), cax=beside, extend="max")
    beside.set_title("of 2", fontsize=9)  # pixel values run from -1 to 1
    for panel in axes:
        panel.set_xticks([])
        panel.set_yticks([])


def _draw_windows(axes: Axes, verdict: Verdict, picture: Thumbnail) -> None:
    """The image with its windows, numbered in the order of the other panels; wider lines contribute more."""
    height, width, _ = picture.pixels.shape
    axes.imshow(picture.pixels, extent=(0, width * picture.factor, height * picture.factor, 0))
    contributions = np.array(verdict.window_contributions)
    largest = max(float(np.abs(contributions).max(initial=0)), 1e-9)
    for number, (window, contribution) in enumerate(zip(verdict.windows, contributions, strict=True), start=1):
        colour = COLOURS["generated" if contribution > 0 else "real"]
        linewidth = 0.8 + 2.2 * abs(contribution) / largest
        corner = (window.left, window.top)
        axes.add_patch(
            Rectangle(corner, window.size, window.size, fill=False, edgecolor="white", linewidth=linewidth + 1)
        )
        axes.add_patch(Rectangle(corner, window.size, window.size, fill=False, edgecolor=colour, linewidth=linewidth))
        number_text = axes.annotate(
            str(number), corner, xytext=(2, -2), textcoords="offset points", fontsize=7, va="top"
        )
        number_text.set(color="white", path_effects=[withStroke(linewidth=1.5, foreground="black")])


def _draw_words(axes: Axes, verdict: Verdict) -> None:
    assert verdict.decision is not None
    axes.axis("off")
    axes.text(0, 1, verdict.decision, color=COLOURS[verdict.decision], fontsize=24, weight="bold", va="top")
    size, lines = _fitting(caption(verdict))
    axes.text(0, 0.82, _drawable("\n".join(lines)), parse_math=False, fontsize=size, va="top", linespacing=1.4)


def _fitting(sentences: Sequence[str]) -> tuple[float, list[str]]:
    """The largest size in points at which the sentences fit into their part of the figure, and their lines."""
    size, lines = WORD_SIZES[0], []
    for size in WORD_SIZES:
        lines = [line for sentence in sentences for line in textwrap.wrap(sentence, int(450 / size))]
        if len(lines) * 1.4 * size <= WORDS_HEIGHT:
            break
    return size, lines


def _draw_spectra(axes: Axes, evidence: Evidence) -> None:
    axes.set_title("power by frequency")
    draw_spectra(axes, torch.from_numpy(evidence.x_0), torch.from_numpy(evidence.x_0_hat))


def _draw_profile(axes: Axes, verdict: Verdict) -> None:
    axes.set_title("error by frequency band")
    if not verdict.bands:
        _write(axes, "no errors by band were computed")
        return
    bands = np.arange(len(verdict.bands))
    axes.plot(bands, verdict.bands, "o-", color="black")
    axes.set_ylabel("log(error / image energy)")
    _label_bands(axes, len(bands))
    coherence = axes.twinx()
    coherence.plot(bands, verdict.coherences, "s--", color="#009e73")
    coherence.set_ylim(min(0.0, *verdict.coherences) - 0.05, 1.05)
    coherence.set_ylabel("coherence: 1 agrees, 0 unrelated", color="#009e73")


def _draw_contributions(axes: Axes, verdict: Verdict) -> None:
    axes.set_title("contribution of each band")
    if not verdict.contributions:
        _write(axes, "this detector uses the whole error map,\nnot frequency bands")
        return
    values = np.array(verdict.contributions)
    axes.bar(np.arange(len(values)), values, color=[COLOURS["generated" if value > 0 else "real"] for value in values])
    axes.axhline(0, color="black", linewidth=1)
    limit = max(1.0, float(np.abs(values).max())) * 1.15
    axes.set_ylim(-limit, limit)
    axes.set_ylabel("real  <  log-odds  >  generated")
    _label_bands(axes, len(values))


def _label_bands(axes: Axes, num_bands: int) -> None:
    axes.set_xticks(range(num_bands))
    axes.set_xlabel("frequency band, coarse to fine")


def _write(axes: Axes, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, ha="center", va="center", color="0.4", transform=axes.transAxes)


def _displayable(images: np.ndarray) -> np.ndarray:
    """(N, 3, S, S) in [-1, 1] to one picture in [0, 1]; a reconstruction without clipping may have values outside."""
    return np.clip((_tiled(images) + 1) / 2, 0, 1)


def _tiled(images: np.ndarray) -> np.ndarray:
    """(N, C, S, S) to one picture (rows * S, columns * S, C)."""
    return tile(images.transpose(0, 2, 3, 1))


def _shorten(name: str, length: int) -> str:
    """Cut the middle out of a long name, and keep its folder and its suffix."""
    half = length // 2
    return name if len(name) <= length else f"{name[:half]} ... {name[-half:]}"


def _drawable(text: str) -> str:
    """The text with a question mark for every character that the figure's font cannot draw."""
    glyphs = _glyphs()
    return "".join(char if char == "\n" or ord(char) in glyphs else "?" for char in text)


@functools.cache
def _glyphs() -> frozenset[int]:
    return frozenset(FT2Font(font_manager.findfont(font_manager.FontProperties())).get_charmap())
