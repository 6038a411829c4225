"""Verdicts as sentences: what a decision means, how often it is wrong, and what the method cannot know."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from rediffuse.detection.verdict import BETWEEN, Bound, Verdict
from rediffuse.dire.settings import DireSettings

KINDS = ("generated", "unsure", "real", "unjudged")
"""The decisions, and that there is none, in the order in which verdicts are shown."""
TITLES: dict[str, str] = {
    "generated": "Looks generated",
    "unsure": "Could not be decided",
    "real": "No sign of generation found",
    "unjudged": "Not judged",
}
_OF_ONE: dict[str, str] = {
    "generated": "The image looks generated",
    "unsure": "It could not be decided whether the image is generated",
    "real": "No sign of generation was found in the image",
    "unjudged": "The image could not be judged",
}
UNKNOWN = (
    "An image without signs of generation can be generated all the same: another generator, or editing, reduction or "
    "compression of the file, can remove the signs that this method measures.",
    "An image that looks generated can be a photograph: the error rates on this page were measured on other images, "
    "and cameras, scans, drawings or processing that did not occur there can be judged wrongly more often.",
    "The method compares pixels with their reconstruction by a diffusion model; it does not know who made an image, "
    "whether its content is true, or whether a part was changed that it did not examine.",
)
"""What the method cannot know; it is on every page."""


def kind_of(verdict: Verdict) -> str:
    return verdict.decision or "unjudged"


def counts_of(verdicts: Sequence[Verdict]) -> Counter[str]:
    return Counter(map(kind_of, verdicts))


def summary(counts: Counter[str]) -> str:
    """How many of each kind, in one line: `3 files: 1 generated, 0 unsure, 2 real`."""
    parts = [f"{counts[kind]} {kind}" for kind in KINDS[:3]]
    parts += [f"{counts['unjudged']} not judged"] * bool(counts["unjudged"])
    return f"{counts.total()} {'file' if counts.total() == 1 else 'files'}: {', '.join(parts)}"


def headline_of(counts: Counter[str]) -> str:
    """The result for a person: `3 of 16 images look generated; 5 could not be decided`."""
    total, generated = counts.total(), counts["generated"]
    if total == 1:
        return _OF_ONE[next(kind for kind in KINDS if counts[kind])]
    parts = [f"{generated or 'None'} of {total} images {'looks' if generated == 1 else 'look'} generated"]
    if counts["unsure"]:
        parts.append(f"{counts['unsure']} could not be decided")
    if counts["real"]:
        parts.append(f"{counts['real']} {'shows' if counts['real'] == 1 else 'show'} no sign of generation")
    if counts["unjudged"]:
        parts.append(f"{counts['unjudged']} could not be judged")
    return "; ".join(parts)


def meanings(verdict: Verdict | None) -> dict[str, str]:
    """What each kind of verdict means, with the error limits of the detector.

    Args:
        verdict: any judged one of the detector's verdicts; None leaves the limits out.
    """
    real, generated = (None, None) if verdict is None else (verdict.real_bound, verdict.generated_bound)
    changed = ", or a mild change of the image reverses the verdict" * bool(verdict and verdict.copies)
    return {
        "generated": f"The reconstruction error is like that of generated images.{_limit(real, 'real')}",
        "unsure": "The score occurs for photographs and for generated images, or the image is unlike those that the "
        f"detector was trained on{changed}.",
        "real": f"This does not show that an image is a photograph.{_limit(generated, 'generated')}",
        "unjudged": "The file could not be read, or its reconstruction failed.",
    }


def sentences(verdict: Verdict) -> list[str]:
    """The verdict on one image with its error bound: what a reader needs before all details."""
    if not verdict.judged:
        return [_sentence(verdict.reason or "no reason is known")]
    score = "" if verdict.probability is None else f"The score is {verdict.probability:.2f} on a scale from 0 to 1."
    high, low = _share(verdict.real_bound, "real"), _share(verdict.generated_bound, "generated")
    match verdict.decision:
        case "generated":
            said = [score, f"At most {high} scores this high." if high else ""]
        case "real":
            said = [score, f"At most {low} scores this low." if low else ""]
        case _:
            if verdict.reason == BETWEEN and high and low:
                said = [score, f"Up to {high} scores this high, and up to {low} scores this low: that decides nothing."]
            else:
                said = [f"The reason: {verdict.reason}.", score]
    return [sentence for sentence in said if sentence]


def settings_facts(settings: DireSettings) -> list[tuple[str, str]]:
    """Names and values of the settings of a reconstruction, for people."""
    number = settings.num_windows
    inputs = f"up to {number} windows of {settings.image_size} px, cut out of the image without resampling"
    whole = f"the image as {settings.image_size} x {settings.image_size} px ({settings.crop})"
    facts = [
        ("input of the network", inputs if number else whole),
        ("solver", settings.solver),
        ("steps", f"{settings.depth or settings.steps} of {settings.steps}, in each direction"),
        ("spacing of the timesteps", settings.spacing),
        ("timesteps of the inversion", settings.grid),
        ("predicted image clipped to [-1, 1]", "yes" if settings.clip else "no"),
        ("precision", settings.precision),
        ("filter of the skip connections", settings.frequency),
    ]
    if settings.second_view:
        facts.append(("second reconstruction", "of the image without its middle frequencies"))
    return facts


def share_in_words(share: float) -> str:
    """`1 in 20` of 0.05, `37 in 100` of 0.363; rounded up, so that "at most" stays true."""
    if share <= 0.1:
        return f"1 in {math.floor(1 / share + 1e-6)}"
    return f"{min(100, math.ceil(100 * share - 1e-6))} in 100"


_OF_CLASS = {
    ("real", True): "photographs from sources that the detector has not seen",
    ("real", False): "photographs from the sources that its limits were measured on",
    ("generated", True): "images by generators that the detector has not seen",
    ("generated", False): "images by the generators that its limits were measured on",
}
_MEASURED = {"real": "photographs from {} sources", "generated": "images by {} generators or families of them"}


def _share(bound: Bound | None, label: Literal["real", "generated"]) -> str:
    if bound is None:
        return ""
    return f"{share_in_words(bound.share)} {_OF_CLASS[label, bound.is_for_unseen]}"


def _limit(bound: Bound | None, label: Literal["real", "generated"]) -> str:
    if bound is None:
        return ""
    measured = _MEASURED[label].format(bound.num_groups)
    return (
        f" At most {share_in_words(bound.limit)} {_OF_CLASS[label, bound.is_for_unseen]} gets this verdict (measured "
        f"on {bound.num_images} {measured}, each left out of the training)."
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
