"""Dataclasses to flags: which flags there are, what words make of them, and what help says."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest

from rediffuse.cli.flags import FLAT, MISSING, PATHS, Argument, flags_of, help_text, parse, peek
from rediffuse.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A part."""

    rate: float = 0.1
    """How fast."""
    many: tuple[int, ...] = (1, 2)
    where: Literal["here", "there"] = "here"

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ConfigError(f"rate={self.rate}: at least 0 is needed")


@dataclass(frozen=True, kw_only=True)
class Outer:
    """What it does.

    And more.
    """

    groups: ClassVar = {"Usual": ("--class", "--rate"), "More": ("--deep.rate",)}

    paths: Annotated[tuple[str, ...], PATHS]
    """What it
    reads."""
    out: Path
    """Where to."""
    class_: Annotated[int | None, Argument(name="class")] = None
    clip: bool = True
    """Cut it off at 100 %."""
    force: bool = False
    """Even without `clip` and `nothing`."""
    flat: Annotated[Inner, FLAT] = field(default_factory=Inner)
    deep: Annotated[Inner, Argument(omit=("where",))] = field(default_factory=Inner)
    absent: Inner | None = None


def read(words: str, default: Outer | None = None) -> Outer:
    return parse(Outer, words.split(), command="x", default=default)


def test_words_become_the_fields_of_nested_dataclasses() -> None:
    words = "a --out o b --class 3 --no-clip --force --rate 2 --many 4 5 --where there --deep.rate=3 c"
    assert read(words) == Outer(
        paths=("a", "b", "c"),
        out=Path("o"),
        class_=3,
        clip=False,
        force=True,
        flat=Inner(rate=2, many=(4, 5), where="there"),
        deep=Inner(rate=3),
    )


def test_defaults_come_from_an_instance_and_the_last_of_two_equal_flags_counts() -> None:
    default = Outer(paths=MISSING, out=MISSING, flat=Inner(rate=7), absent=Inner())
    given = read("a --out o --out p --absent.rate 9", default)
    assert (given.out, given.flat.rate, given.absent) == (Path("p"), 7, Inner(rate=9))


def test_a_flag_of_several_values_can_have_none() -> None:
    assert read("a --out o --many").flat.many == ()


def test_underscores_are_hyphens_in_names_and_stay_in_values() -> None:
    @dataclass(frozen=True)
    class Named:
        long_name: str = ""

    assert parse(Named, ["--long_name=a_b"]) == parse(Named, ["--long-name", "a_b"]) == Named("a_b")


def test_negative_numbers_and_a_single_hyphen_are_values() -> None:
    given = read("- --out - --class -1")
    assert (given.paths, given.out, given.class_) == (("-",), Path("-"), -1)


def test_after_two_hyphens_everything_is_a_path() -> None:
    assert read("--out o -- --x_y").paths == ("--x_y",)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("a --out o --rat 1", "--rat is not a flag of x; did you mean --rate?"),
        ("a --out o --deep.where there", "--deep.where is not a flag of x; did you mean --deep.rate?"),
        ("a --out o --many 1 x", "--many x: a whole number is needed"),
        ("a --out o --rate -1", "rate=-1.0: at least 0 is needed"),
        ("a --out o --clip=no", "--clip/--no-clip: ignored explicit argument 'no'"),
        ("--out o", "PATH ... is required; see `x --help`"),
    ],
)
def test_what_cannot_be_read_is_one_line(words: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(words)
    assert str(caught.value) == line


def test_flags_can_be_read_before_the_others_are_known() -> None:
    assert peek(Inner, ["--unknown", "--rate", "3", "a"], Inner()) == Inner(rate=3)


def test_help_has_what_is_required_then_groups_then_the_rest() -> None:
    assert help_text(Outer, command="x", width=70).splitlines() == [
        "usage: x PATH ... --out PATH [flags]",
        "",
        "What it does.",
        "",
        "And more.",
        "",
        "Required:",
        "  PATH ...                What it reads.",
        "  --out PATH              Where to.",
        "",
        "Usual:",
        "  --class INT",
        "  --rate FLOAT            How fast. (default: 0.1)",
        "",
        "More:",
        "  --deep.rate FLOAT       How fast. (default: 0.1)",
        "",
        "Rarely needed:",
        "  --clip, --no-clip       Cut it off at 100 %. (default: --clip)",
        "  --force                 Even without --clip and `nothing`.",
        "  --many INT ...          (default: 1 2)",
        "  --where {here,there}    (default: here)",
        "  --deep.many INT ...     (default: 1 2)",
    ]


def test_a_flag_knows_its_choices() -> None:
    choices = {flag.name: flag.choices for flag in flags_of(Outer)}
    assert choices["--where"] == ("here", "there")
    assert choices["--rate"] == ()


@dataclass(frozen=True, kw_only=True)
class Sized:
    """A size."""

    size: int | Literal["auto"] = "auto"
    """How many."""


def test_a_word_is_allowed_beside_numbers() -> None:
    assert [parse(Sized, words).size for words in ([], ["--size", "auto"], ["--size", "3"])] == ["auto", "auto", 3]
    assert "--size INT|auto" in help_text(Sized, command="it")
    with pytest.raises(ConfigError, match="--size many: a whole number or auto is needed"):
        parse(Sized, ["--size", "many"])
