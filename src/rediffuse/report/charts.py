"""Curves and bars as numbers that `templates/macros.html` draws as SVG."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

WIDTH, HEIGHT = 320, 210
LEFT, RIGHT, TOP, BOTTOM = 38, 312, 8, 168
STYLES = ("first", "second", "third", "fourth")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart, in the coordinates of its SVG image."""

    title: str
    caption: str
    summary: str
    """What the chart shows, for a person who does not see it."""
    x_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[tuple[str, str], ...] = ()
    """The style and the points of each line."""
    bars: tuple[tuple[str, float, float, float, float], ...] = ()
    """The style, left, top, width and height of each bar."""
    legend: tuple[tuple[str, str], ...] = ()
    """The style and the name of each line, where there are several."""
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    bottom: int = BOTTOM

    @property
    def grid(self) -> str:
        """The SVG path of the lines at the marked x and y."""
        upright = [f"M{x} {TOP}V{BOTTOM}" for x, _ in self.x_ticks]
        return "".join(upright + [f"M{LEFT} {y}H{RIGHT}" for y, _ in self.y_ticks])


def line_chart(
    title: str,
    caption: str,
    summary: str,
    lines: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    x_range: tuple[float, float],
    x_ticks: Sequence[float] | None = None,
    y_range: tuple[float, float] | None = None,
    powers: bool = False,
) -> Chart:
    """A chart of at most four lines.

    Args:
        title: its heading.
        caption: what the axes are.
        summary: see `Chart`.
        lines: x and y of each line by its name, all finite.
        x_label: the name of the horizontal axis.
        x_range: the first and the last x.
        x_ticks: the marked x; None for round numbers.
        y_range: the lowest and the highest y; None for those of the lines.
        powers: y is the logarithm to base 10 of what the axis shows.
    """
    values = [value for _, ys in lines.values() for value in ys]
    low, high = y_range or (min(values), max(values))
    y_ticks = _ticks(low, high, whole=powers)
    low, high = min(low, y_ticks[0]), max(high, y_ticks[-1])
    styled = list(zip(STYLES, lines.items(), strict=False))
    return Chart(
        title=title,
        caption=caption,
        summary=summary,
        x_label=x_label,
        x_ticks=tuple(
            (round(_x(tick, x_range), 1), f"{tick:g}") for tick in x_ticks or _ticks(*x_range) if tick <= x_range[1]
        ),
        y_ticks=tuple((round(_y(tick, low, high), 1), _power(tick) if powers else f"{tick:g}") for tick in y_ticks),
        lines=tuple((style, _points(*points, x_range, low, high)) for style, (_, points) in styled),
        legend=tuple((style, name) for style, (name, _) in styled) if len(lines) > 1 else (),
    )


def bar_chart(
    title: str, caption: str, summary: str, values: Sequence[float], styles: Sequence[str], *, x_label: str
) -> Chart:
    """A chart with one bar for each value, numbered from 0; its vertical axis has 0 in the middle.

    Args:
        title: its heading.
        caption: what the axes are.
        summary: see `Chart`.
        values: the height of each bar, from 0.
        styles: the style of each bar.
        x_label: the name of the horizontal axis.
    """
    largest = max(0.5, *map(abs, values))
    ticks = _ticks(-largest, largest)
    low, high = min(-largest, ticks[0]), max(largest, ticks[-1])
    step = (RIGHT - LEFT) / len(values)
    zero = _y(0, low, high)
    return Chart(
        title=title,
        caption=caption,
        summary=summary,
        x_label=x_label,
        x_ticks=tuple((round(LEFT + (place + 0.5) * step, 1), str(place)) for place in range(len(values))),
        y_ticks=tuple((round(_y(tick, low, high), 1), f"{tick:+g}" if tick else "0") for tick in ticks),
        bars=tuple(
            (
                style,
                round(LEFT + (place + 0.2) * step, 1),
                round(min(zero, _y(value, low, high)), 1),
                round(0.6 * step, 1),
                round(abs(zero - _y(value, low, high)), 1),
            )
            for place, (value, style) in enumerate(zip(values, styles, strict=True))
        ),
    )


def _points(xs: Sequence[float], ys: Sequence[float], x_range: tuple[float, float], low: float, high: float) -> str:
    left, top = _x(0, x_range), _y(0, low, high)
    across, down = _x(1, x_range) - left, _y(1, low, high) - top
    return " ".join([f"{left + x * across:.1f},{top + y * down:.1f}" for x, y in zip(xs, ys, strict=True)])


def _x(x: float, x_range: tuple[float, float]) -> float:
    return LEFT + (x - x_range[0]) / (x_range[1] - x_range[0]) * (RIGHT - LEFT)


def _y(y: float, low: float, high: float) -> float:
    return BOTTOM - (y - low) / (high - low) * (BOTTOM - TOP)


@lru_cache(maxsize=256)  # many charts have the same axes
def _ticks(low: float, high: float, whole: bool = False) -> tuple[float, ...]:
    """About five numbers of the form k * (1, 2 or 5) * 10^n from at most `low` to at least `high`."""
    span = max(high - low, 1e-6)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(span / step - 4))
    if whole:
        step = max(1.0, round(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(round(k * step, 10) + 0.0 for k in range(first, max(last, first + 1) + 1))


def _power(exponent: float) -> str:
    return "1" if exponent == 0 else f"10{str(round(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
