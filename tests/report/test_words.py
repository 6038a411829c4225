"""Verdicts as sentences."""

from collections import Counter
from dataclasses import replace

import pytest

from rediffuse.detection.verdict import JudgedCopy
from rediffuse.images.changes import Change
from rediffuse.report.details import details
from rediffuse.report.words import counts_of, headline_of, meanings, sentences, settings_facts, share_in_words, summary
from report.verdicts import judged, unjudged


def test_the_summary_counts_decisions() -> None:
    verdicts = [judged("a"), judged("b", "real"), judged("c", "real"), judged("d", "unsure"), unjudged("e")]
    assert summary(counts_of(verdicts)) == "5 files: 1 generated, 1 unsure, 2 real, 1 not judged"
    assert summary(counts_of(verdicts[:1])) == "1 file: 1 generated, 0 unsure, 0 real"


@pytest.mark.parametrize(
    ("counts", "headline"),
    [
        ({"generated": 3, "unsure": 5}, "3 of 8 images look generated; 5 could not be decided"),
        ({"generated": 1, "unsure": 1}, "1 of 2 images looks generated; 1 could not be decided"),
        ({"unsure": 1}, "It could not be decided whether the image is generated"),
        ({"real": 2}, "None of 2 images look generated; 2 show no sign of generation"),
        (
            {"real": 1, "unjudged": 1},
            "None of 2 images look generated; 1 shows no sign of generation; 1 could not be judged",
        ),
    ],
)
def test_the_headline_is_a_sentence_for_a_person(counts: dict[str, int], headline: str) -> None:
    assert headline_of(Counter(counts)) == headline


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.05, "1 in 20"), (1 / 21, "1 in 21"), (0.051, "1 in 19"), (0.1, "1 in 10"), (0.363, "37 in 100")],
)
def test_a_share_is_rounded_up(share: float, words: str) -> None:
    assert share_in_words(share) == words


def test_a_verdict_is_stated_with_its_error_bound_and_where_it_holds() -> None:
    assert sentences(judged("a.png")) == [
        "The score is 0.93 on a scale from 0 to 1.",
        "At most 1 in 76 photographs from sources that the detector has not seen scores this high.",
    ]
    real = judged("a.png", "real")
    assert (
        sentences(real)[1]
        == "At most 37 in 100 images by the generators that its limits were measured on scores this low."
    )
    assert sentences(judged("a.png", "unsure"))[1] == (
        "Up to 1 in 76 photographs from sources that the detector has not seen scores this high, and up to 37 in 100 "
        "images by the generators that its limits were measured on scores this low: that decides nothing."
    )
    assert sentences(replace(real, real_bound=None, generated_bound=None)) == sentences(real)[:1]


def test_another_reason_than_the_score_is_stated_first() -> None:
    verdict = replace(judged("a.png", "unsure"), reason="unlike the images this detector was trained on")
    assert sentences(verdict) == [
        "The reason: unlike the images this detector was trained on.",
        "The score is 0.50 on a scale from 0 to 1.",
    ]
    assert sentences(unjudged("a.png", "holds no pixels")) == ["Holds no pixels."]


def test_every_decision_is_explained_with_its_limit_and_the_images_it_was_measured_on() -> None:
    meaning = meanings(judged("a.png"))
    assert meaning["generated"].endswith(
        "At most 1 in 20 photographs from sources that the detector has not seen gets this verdict (measured on 978 "
        "photographs from 231 sources, each left out of the training)."
    )
    assert "1 in 10 images by the generators that its limits were measured on" in meaning["real"]
    assert meaning["real"].startswith("This does not show that an image is a photograph.")
    assert "At most" not in " ".join(meanings(None).values())
    assert "mild change" not in meaning["unsure"]
    copy = JudgedCopy(change=Change("jpeg", 75), probability=0.25, decision="real")
    assert "mild change" in meanings(replace(judged("a.png"), copies=(copy,)))["unsure"]
    assert details(replace(judged("a.png"), copies=(copy,)))["copies"] == [
        (copy.change, "0.250", "No sign of generation found")
    ]


def test_the_settings_are_named_for_people() -> None:
    settings = judged("a.png").settings
    assert settings is not None
    facts = dict(settings_facts(settings))
    assert facts["steps"] == "5 of 20, in each direction"
    assert "second reconstruction" not in facts
    other = replace(settings, crop="windows:8", frequency="freeu", second_view=True)
    facts = dict(settings_facts(other))
    assert facts["input of the network"] == "up to 8 windows of 16 px, cut out of the image without resampling"
    assert facts["filter of the skip connections"] == "freeu"
    assert "second reconstruction" in facts
