"""Verdicts as sentences."""

from dataclasses import replace

import pytest

from rediffuse.report.words import CAUTION, caption, summary
from report.verdicts import judged, unjudged


def test_the_summary_counts_decisions() -> None:
    verdicts = [judged("a"), judged("b", "real"), judged("c", "real"), judged("d", "unsure"), unjudged("e")]
    assert summary(verdicts) == "5 files: 1 generated, 1 unsure, 2 real, 1 not judged"
    assert summary(verdicts[:1]) == "1 file: 1 generated, 0 unsure, 0 real"


@pytest.mark.parametrize("part", ["0.500", "from 0.800", "5.0%", "between the thresholds", "5 of 20 steps", CAUTION])
def test_the_caption_says_probability_thresholds_settings_and_limits(part: str) -> None:
    assert part in " ".join(caption(judged("a.png", "unsure")))


def test_the_caption_says_what_was_done_to_frequencies_where_anything_was() -> None:
    verdict = judged("a.png")
    assert verdict.settings is not None
    filtered = replace(verdict, settings=replace(verdict.settings, frequency="freeu", second_view=True))
    assert "skips freeu, a second view without the middle frequencies." in " ".join(caption(filtered))
    assert "skips" not in " ".join(caption(verdict))


def test_the_caption_leaves_out_what_is_not_known() -> None:
    assert caption(unjudged("a.png", "no pixels")) == ["Reason: no pixels.", CAUTION]
