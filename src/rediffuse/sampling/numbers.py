"""Parse seeds and classes of a command line: `7`, `0-63`, `0-9,20`."""

import re
from collections.abc import Sequence

from rediffuse.errors import ConfigError
from rediffuse.sampling.config import Request

LARGEST_SEED = 2**32 - 1
MOST = 10_000_000
"""Largest number of numbers in one list."""
CYCLE = "cycle"
"""The word for all classes in turn."""

_PART = re.compile(r"(\d+)(?:-(\d+))?")


def parse_numbers(text: str, name: str, largest: int) -> tuple[int, ...]:
    """Parse numbers and ranges separated by commas. Ranges include both ends; repeated numbers are dropped.

    Args:
        text: text such as `0-63` or `0-9,20`.
        name: the flag's name in errors, such as `--seeds`.
        largest: the largest number that is allowed.

    Raises:
        ConfigError: the text has another form, a range is reversed, or a number is too large.
    """
    found: dict[int, None] = {}
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if not match:
            raise ConfigError(f"{name} {text}: numbers and ranges such as 7, 0-63 or 0-9,20 are allowed, not {part!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ConfigError(f"{name} {text}: {part.strip()} is reversed; write {last}-{first}")
        if last > largest:
            raise ConfigError(f"{name} {text}: {last} is too large; 0 to {largest} are allowed")
        if len(found) + last - first >= MOST:
            raise ConfigError(f"{name} {text}: more than {MOST} numbers; use several calls")
        found.update(dict.fromkeys(range(first, last + 1)))
    return tuple(found)


def parse_classes(text: str | None, num_classes: int | None) -> tuple[int, ...] | None:
    """Parse the classes of `--class`, for a model (or a classifier that guides it) with `num_classes`.

    Args:
        text: numbers and ranges as in `parse_numbers`, or `cycle`; None if the flag was not given.
        num_classes: None if neither model nor guidance has classes.

    Raises:
        ConfigError: classes are given but not used, or needed but not given, or one is out of range.
    """
    if num_classes is None:
        if text is not None:
            raise ConfigError(f"--class {text}: neither the model nor a classifier has classes; leave it out")
        return None
    if text is None:
        raise ConfigError(
            f"--class is needed: one of 0 to {num_classes - 1}, several such as 0-{num_classes - 1}, or {CYCLE}"
        )
    return tuple(range(num_classes)) if text == CYCLE else parse_numbers(text, "--class", num_classes - 1)


def requests(seeds: Sequence[int], classes: Sequence[int] | None) -> list[Request]:
    """One request per seed; the class of seed s is `classes[s % len(classes)]`, so it depends only on s."""
    if classes is None:
        return [Request(seed) for seed in seeds]
    return [Request(seed, classes[seed % len(classes)]) for seed in seeds]
