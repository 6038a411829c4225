"""Charts: what is drawn lies where its axes say."""

import pytest

from rediffuse.report.charts import BOTTOM, LEFT, RIGHT, TOP, bar_chart, line_chart


def test_lines_lie_on_their_axes() -> None:
    chart = line_chart(
        "t", "c", "s", {"a": ([0, 5, 10], [0, 2, 4]), "b": ([0, 10], [4, 0])}, x_label="x", x_range=(0, 10)
    )
    assert chart.lines[0] == (
        "first",
        f"{LEFT}.0,{BOTTOM}.0 {(LEFT + RIGHT) / 2},{(TOP + BOTTOM) / 2} {RIGHT}.0,{TOP}.0",
    )
    assert dict(chart.y_ticks)[BOTTOM] == "0"
    assert dict(chart.y_ticks)[TOP] == "4"
    assert [label for _, label in chart.x_ticks] == ["0", "2", "4", "6", "8", "10"]
    assert chart.legend == (("first", "a"), ("second", "b"))


@pytest.mark.parametrize("values", [[0.0], [1e-9, 2e-9], [-3, 7000], [5.0, 5.0], [-0.004, 0.013]])
def test_every_value_is_within_the_chart(values: list[float]) -> None:
    chart = line_chart("t", "c", "s", {"a": (range(len(values)), values)}, x_label="x", x_range=(0, 1))
    assert 2 <= len(chart.y_ticks) <= 9
    for point in chart.lines[0][1].split():
        assert TOP <= float(point.split(",")[1]) <= BOTTOM


def test_powers_of_ten_are_marked_as_such() -> None:
    chart = line_chart("t", "c", "s", {"a": ([0, 1], [-4.5, 2])}, x_label="x", x_range=(0, 1), powers=True)
    assert {"1", "10⁻⁴", "10²"} <= {label for _, label in chart.y_ticks}


def test_bars_begin_at_zero_on_both_sides() -> None:
    chart = bar_chart("t", "c", "s", [2.0, -1.0], ["generated", "real"], x_label="x")
    zero = next(y for y, label in chart.y_ticks if label == "0")
    (up, _, top, _, height), (down, _, begin, _, depth) = chart.bars
    assert (up, down) == ("generated", "real")
    assert top + height == pytest.approx(zero, abs=0.1)
    assert begin == zero
    assert height == pytest.approx(2 * depth, abs=0.2)
