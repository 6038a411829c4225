"""Verdicts as sentences."""

from dataclasses import replace

import pytest

from rediffuse.detection.verdict import JudgedCopy
from rediffuse.images.changes import Change
from rediffuse.report.words import CAUTION, caption, meanings, summary
from report.verdicts import judged, unjudged


def test_the_summary_counts_decisions() -> None:
    verdicts = [judged("a"), judged("b", "real"), judged("c", "real"), judged("d", "unsure"), unjudged("e")]
    assert summary(verdicts) == "5 files: 1 generated, 1 unsure, 2 real, 1 not judged"
    assert summary(verdicts[:1]) == "1 file: 1 generated, 0 unsure, 0 real"


def test_a_decision_is_explained_with_its_limit_and_where_the_limit_holds() -> None:
    generated, real = (" ".join(caption(judged("a.png", decision))) for decision in ("generated", "real"))
    assert (
        "Generated means: the reconstruction error is like that of generated images. The detector says so of at most "
        "5.0% of photographs from sources that were not in its training." in generated
    )
    assert (
        "Real means: no sign of generation was found. The detector says so of at most 10.0% of images by the "
        "generators of its training." in real
    )
    assert "at most" not in meanings(replace(judged("a.png"), max_false_alarms=None))["generated"]
    assert "decides nothing" in " ".join(caption(judged("a.png", "unsure")))


@pytest.mark.parametrize("part", ["0.500", "from 0.800", "between the thresholds", "5 of 20 steps", CAUTION])
def test_the_caption_says_probability_thresholds_settings_and_limits(part: str) -> None:
    assert part in " ".join(caption(judged("a.png", "unsure")))


def test_the_caption_says_what_was_done_to_frequencies_where_anything_was() -> None:
    verdict = judged("a.png")
    assert verdict.settings is not None
    filtered = replace(verdict, settings=replace(verdict.settings, frequency="freeu", second_view=True))
    assert "skips freeu, a second view without the middle frequencies." in " ".join(caption(filtered))
    assert "skips" not in " ".join(caption(verdict))


def test_the_caption_says_what_changed_copies_got_where_there_are_any() -> None:
    verdict = judged("a.png", "unsure")
    copy = JudgedCopy(change=Change("jpeg", 75), probability=0.25, decision="real")
    sentences = caption(replace(verdict, copies=(copy,)))
    assert "Probability after JPEG compression of quality 75: 0.250 (real)." in sentences
    assert "or a mild change of the image reverses the decision." in " ".join(sentences)
    assert "change" not in " ".join(caption(verdict))


def test_the_caption_leaves_out_what_is_not_known() -> None:
    assert caption(unjudged("a.png", "no pixels")) == ["Reason: no pixels.", CAUTION]
