"""Scores of images whose group a classifier was not trained on, and the thresholds that they support.

A group is a source of images: a generator, a camera, a sender of photographs. Images of one group are alike, so an
error rate that is measured on images of known groups says little about a new group. Here a threshold is chosen so that
its error rate holds for an image of a new group: with n groups left out, and r_g the error rate in group g,

    (sum_g r_g + 1) / (n + 1) <= limit

bounds the error rate on the next group, if groups are exchangeable (hierarchical conformal prediction,
arXiv:2306.06342). The 1 stands for the new group, all of whose images may be errors: so a limit below
1 / (n + 1) cannot be met. With fewer than `ENOUGH` groups this would exclude the usual 5 %; then single images take the
place of groups (split conformal prediction), and the limit holds only for further images of the same groups.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np

from rediffuse.detection.calibration import Thresholds
from rediffuse.detection.verdict import Bound
from rediffuse.errors import ConfigError

ENOUGH = 19
"""With this number of groups, a limit of 5 % can be met on unseen groups: 1 / (19 + 1)."""

Label = Literal["real", "generated"]

NOUNS: dict[Label, str] = {"real": "photographs", "generated": "generated images"}


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Left-out probabilities of both classes, by group. A group's name is a path: its first part is the collection."""

    real: dict[str, tuple[float, ...]]
    generated: dict[str, tuple[float, ...]]
    copies: "LeftOut | None" = None
    """The same for changed copies of these images, in groups of the same names, and so on for other copies: limits hold
    for the images and for each kind of copies alone."""

    def __post_init__(self) -> None:
        for label in NOUNS:
            groups = getattr(self, label)
            if not groups:
                raise ConfigError(f"left_out: no scores of {NOUNS[label]}; at least 1 is needed")
            for name, scores in groups.items():
                if wrong := [score for score in scores if not 0 <= score <= 1]:  # NaN is wrong too
                    raise ConfigError(f"left_out: {label}/{name} has the score {wrong[0]}; from 0 to 1 are allowed")

    def thresholds(self, max_false_alarms: float, max_misses: float) -> Thresholds:
        """The thresholds with the fewest `unsure` decisions within these limits.

        Args:
            max_false_alarms: largest share of real images that may be called generated.
            max_misses: largest share of generated images that may be called real.

        Raises:
            ConfigError: a limit is not in (0, 0.5), or is smaller than the scores support; says what would be needed.
        """
        self._require("real", "max_false_alarms", max_false_alarms)
        self._require("generated", "max_misses", max_misses)
        highest_real = max(first_error(part.real, max_false_alarms) for part in self.parts)
        lowest_generated = min(-first_error(_negative(part.generated), max_misses) for part in self.parts)
        above, below = float(np.nextafter(highest_real, np.inf)), lowest_generated
        if above < below:  # the classes are well separated: nothing between them has to be unsure
            above = below = (above + below) / 2
        return Thresholds(real=below, generated=above, max_false_alarms=max_false_alarms, max_misses=max_misses)

    @property
    def parts(self) -> "list[LeftOut]":
        """These scores, and those of each kind of copies."""
        return [self, *([] if self.copies is None else self.copies.parts)]

    def with_own(self, scores: Mapping[Label, dict[str, tuple[float, ...]]]) -> Self:
        """The same with other scores of one class or both; they take the place of those of copies too."""
        copies = None if self.copies is None else self.copies.with_own(scores)
        return replace(self, copies=copies, **scores)

    def bound(self, label: Label, score: float, limit: float) -> Bound:
        """How common a score is among left-out images of this class: of `real` scores as high, else as low.

        The share is bounded as the error of a threshold at this score would be; see the module. Where there are copies
        it is the larger one of images and copies.

        Args:
            label: the class.
            score: a probability in [0, 1].
            limit: see `Bound.limit`.
        """
        groups = getattr(self, label)
        return Bound(
            share=max(part._share(label, score) for part in self.parts),
            limit=limit,
            is_for_unseen=self.is_for_unseen(label),
            num_images=num_images(groups),
            num_groups=len(groups),
        )

    def _share(self, label: Label, score: float) -> float:
        errors, bounds = self._tails[label]
        as_extreme = np.searchsorted(-errors, -score if label == "real" else score, side="right")
        return float(bounds[as_extreme])

    @cached_property
    def _tails(self) -> dict[Label, tuple[np.ndarray, np.ndarray]]:
        return {"real": _tail(self.real), "generated": _tail(_negative(self.generated))}

    def smallest_limit(self, label: Label) -> float:
        """The smallest limit that the scores of this class support: 1 / (n + 1) for n groups (or images)."""
        return 1 / (_num_units(getattr(self, label)) + 1)

    def is_for_unseen(self, label: Label) -> bool:
        """Whether the limit of this class holds for unseen groups, and not only for further images of the same ones."""
        return _is_enough(getattr(self, label))

    def _require(self, label: Label, name: str, limit: float) -> None:
        if not 0 < limit < 0.5:
            raise ConfigError(f"{name}={limit}: more than 0 and less than 0.5 is allowed")
        groups, smallest = getattr(self, label), self.smallest_limit(label)
        if limit < smallest:
            units, scope = ("groups", "unseen") if _is_enough(groups) else ("images", "the same")
            raise ConfigError(
                f"{name}={limit:g}: needs {int(np.ceil(1 / limit)) - 1} {units} of {NOUNS[label]} that were left out; "
                f"there are {num_images(groups)} images in {len(groups)} groups: the smallest limit that holds for "
                f"{scope} groups is {smallest:.3g}"
            )


def first_error(scores: Mapping[str, tuple[float, ...]], limit: float) -> float:
    """The score above which the error rate is within the limit, and from which on it is not: see the module.

    Scores at or above a threshold are errors; any threshold above the returned score is allowed. The mean of the error
    rates of the collections, each the mean of its groups, is within the limit too: so a collection of many small groups
    does not outvote a collection of one large group.
    """
    errors, bounds = _tail(scores)
    return float(errors[np.argmax(bounds[1:] > limit + 1e-9)])


def _tail(scores: Mapping[str, tuple[float, ...]]) -> tuple[np.ndarray, np.ndarray]:
    """The scores in descending order, (N,), and the bound on the error rate if the k highest are errors, (N + 1,)."""
    sizes = np.array([len(group) for group in scores.values()])
    _, collection, num_groups = np.unique(
        [collection_of(name) for name in scores], return_inverse=True, return_counts=True
    )
    in_group = np.repeat(sizes, sizes)  # per image: the number of images in its group
    in_collection = np.repeat(num_groups[collection], sizes)  # per image: the number of groups in its collection
    errors = np.concatenate(list(scores.values()))
    order = np.argsort(-errors)
    shares = 1 / in_group if _is_enough(scores) else np.ones(len(errors))
    means = 1 / (in_group * in_collection * len(num_groups))
    of_groups, of_collections = (np.concatenate([[0.0], np.cumsum(each[order])]) for each in (shares, means))
    return errors[order], np.maximum((of_groups + 1) / (_num_units(scores) + 1), of_collections)


def by_group(groups: Iterable[str], scores: Iterable[float]) -> dict[str, tuple[float, ...]]:
    """Scores of images, given the group of each, as `LeftOut` has them; groups in the order of their names."""
    found: dict[str, list[float]] = {}
    for group, score in zip(groups, scores, strict=True):
        found.setdefault(group, []).append(score)
    return {group: tuple(found[group]) for group in sorted(found)}


def collection_of(group: str) -> str:
    """`clothing` of `clothing/sender12`; a name without a slash is a collection of its own."""
    return group.partition("/")[0]


def num_images(scores: Mapping[str, tuple[float, ...]]) -> int:
    return sum(map(len, scores.values()))


def _is_enough(scores: Mapping[str, tuple[float, ...]]) -> bool:
    return len(scores) >= ENOUGH


def _num_units(scores: Mapping[str, tuple[float, ...]]) -> int:
    return len(scores) if _is_enough(scores) else num_images(scores)


def _negative(scores: Mapping[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(-score for score in group) for name, group in scores.items()}
