"""Verdicts as sentences: the figures, and what they do not prove."""

from collections.abc import Sequence

from rediffuse.detection.verdict import Decision, Verdict

CAUTION = (
    "A probability is a measurement, not a proof. It holds for images like those the detector was tested on; another "
    "generator, or an edited, resized or recompressed file, can be judged wrongly."
)


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many of each decision, in one line: `3 files: 1 generated, 0 unsure, 2 real`."""
    counts = dict.fromkeys(("generated", "unsure", "real"), 0)
    for verdict in verdicts:
        if verdict.decision is not None:
            counts[verdict.decision] += 1
    missing = len(verdicts) - sum(counts.values())
    parts = [f"{count} {decision}" for decision, count in counts.items()] + [f"{missing} not judged"] * bool(missing)
    return f"{len(verdicts)} {'file' if len(verdicts) == 1 else 'files'}: {', '.join(parts)}"


def meanings(verdict: Verdict) -> dict[Decision, str]:
    """What each decision of the detector of this verdict means, with its error limits, in sentences."""
    limits = {}
    for name, limit, unseen, images, source in (
        ("generated", verdict.max_false_alarms, verdict.real_limit_is_for_unseen, "photographs from", "sources"),
        ("real", verdict.max_misses, verdict.generated_limit_is_for_unseen, "images by", "generators"),
    ):
        sources = f"{source} that were not in its training" if unseen else f"the {source} of its training"
        limits[name] = "" if limit is None else f" The detector says so of at most {limit:.1%} of {images} {sources}."
    reversed_by_change = ", or a mild change of the image reverses the decision" * bool(verdict.copies)
    return {
        "generated": f"the reconstruction error is like that of generated images.{limits['generated']}",
        "unsure": "the measurement decides nothing: it occurs for photographs and for generated images, or the image "
        f"is unlike the images that the detector was trained on{reversed_by_change}.",
        "real": f"no sign of generation was found.{limits['real']}",
    }


def caption(verdict: Verdict) -> list[str]:
    """The verdict and how it was computed, as a list of sentences with all known numbers; `CAUTION` is last."""
    sentences = []
    if verdict.probability is not None:
        chance = f"{verdict.probability:.3f}"
        sentences.append(f"Probability that the image is generated, if half of all images were: {chance}.")
    if verdict.threshold is not None and verdict.real_threshold is not None:
        low, high = f"{verdict.real_threshold:.3f}", f"{verdict.threshold:.3f}"
        sentences.append(f"Generated from {high} on, real below {low}, unsure between.")
    if verdict.decision is not None:
        sentences.append(f"{verdict.decision.capitalize()} means: {meanings(verdict)[verdict.decision]}")
    if verdict.reason:
        sentences.append(f"Reason: {verdict.reason}.")
    sentences += [
        f"Probability after {copy.change}: {copy.probability:.3f} ({copy.decision})." for copy in verdict.copies
    ]
    if verdict.mean_dire is not None:
        sentences.append(f"Mean error {verdict.mean_dire:.4f} of at most 2.")
    if verdict.settings is not None:
        made = verdict.settings
        steps = f"{made.depth or made.steps} of {made.steps} steps"
        parts = [made.solver.upper(), steps, f"{made.grid} grid", made.precision, f"model {made.model_sha256[:8]}"]
        parts += [f"skips {made.frequency}"] * (made.frequency != "trained")
        parts += ["a second view without the middle frequencies"] * made.second_view
        sentences.append(f"Made with {', '.join(parts)}.")
        if verdict.windows:
            side, count = made.image_size, len(verdict.windows)
            what = "1 window" if count == 1 else f"{count} windows"
            sentences.append(f"Judged by {what} of {side} px, cut out of the image without resampling.")
    return [*sentences, CAUTION]
