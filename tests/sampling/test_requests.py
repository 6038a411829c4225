import pytest

from rediffuse.errors import ConfigError
from rediffuse.sampling.config import Request, SamplingSettings
from rediffuse.sampling.numbers import parse_classes, parse_numbers, requests


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"sampler": "dppm"}, "sampler=dppm: ddim, ddpm, dpm_solver, heun are allowed; did you mean ddpm?"),
        ({"steps": 0}, "steps=0: at least 1"),
        ({"eta": 1.5}, "eta=1.5: from 0 to 1"),
        ({"eta": float("nan")}, "eta=nan: from 0 to 1"),
        ({"sampler": "ddpm", "eta": 0.5}, "sampler=ddpm has no eta; only ddim has"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=line.replace("?", r"\?")):
        SamplingSettings(**fields)


@pytest.mark.parametrize(
    ("text", "numbers"), [("7", (7,)), ("0-3", (0, 1, 2, 3)), ("8, 0-2,1", (8, 0, 1, 2)), ("5-5", (5,))]
)
def test_numbers_and_ranges_are_listed_once_each(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_numbers(text, "--seeds", 9) == numbers


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "numbers and ranges such as 7, 0-63 or 0-9,20 are allowed, not ''"),
        ("a-b", "not 'a-b'"),
        ("-1", "not '-1'"),
        ("9-0", "9-0 is reversed; write 0-9"),
        ("0-10", "10 is too large; 0 to 9 are allowed"),
    ],
)
def test_other_text_is_refused_with_the_flag_and_what_is_allowed(text: str, line: str) -> None:
    with pytest.raises(ConfigError, match=r"^--seeds ") as caught:
        parse_numbers(text, "--seeds", 9)
    assert line in str(caught.value)


def test_a_list_that_would_not_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="more than 10000000 numbers"):
        parse_numbers("0-4294967295", "--seeds", 2**32 - 1)


def test_classes_are_asked_for_never_chosen() -> None:
    with pytest.raises(ConfigError, match="--class is needed: one of 0 to 2, several such as 0-2, or cycle"):
        parse_classes(None, 3)
    with pytest.raises(ConfigError, match="neither the model nor a classifier has classes"):
        parse_classes("0", None)
    with pytest.raises(ConfigError, match="3 is too large; 0 to 2 are allowed"):
        parse_classes("3", 3)
    assert parse_classes("cycle", 3) == (0, 1, 2)
    assert parse_classes(None, None) is None


def test_a_seed_has_its_class_whatever_other_seeds_are_wanted() -> None:
    classes = (4, 7, 9)
    together = requests(range(10), classes)
    assert [requests([seed], classes)[0] for seed in range(10)] == together
    assert {request.label for request in together} == set(classes)


def test_names_have_the_class_first() -> None:
    assert Request(12).name == "000012"
    assert Request(12, 3).name == "003_000012"


@pytest.mark.parametrize(
    ("fields", "respacing"),
    [
        ({"steps": 20}, "ddim20"),
        ({"sampler": "heun", "steps": 20}, "20"),
        ({"spacing": "karras", "steps": 18}, "karras18"),
        ({"spacing": "timesteps:0,50,400", "steps": 3}, "timesteps:0,50,400"),
    ],
)
def test_spacing_says_where_the_timesteps_lie(fields: dict, respacing: str) -> None:
    assert SamplingSettings(**fields).respacing == respacing


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"spacing": "kerras"}, "spacing=kerras: even, karras, timesteps:T,T,... or sigmas:S,S,... are allowed"),
        ({"spacing": "timesteps:0,50", "steps": 3}, "has 2 levels, and steps=3; give steps=2"),
    ],
)
def test_a_spacing_that_is_none_is_refused(fields: dict, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        SamplingSettings(**fields)
