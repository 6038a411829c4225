"""Settings of trainings: allowed values, and the learning rate."""

from dataclasses import replace

import pytest

from rediffuse.errors import ConfigError
from rediffuse.training.config import LoopConfig
from rediffuse.training.recipes import RECIPES


def test_learning_rate_warms_up_then_falls_to_zero() -> None:
    linear = LoopConfig(num_steps=10, learning_rate=1.0, warmup_steps=4, decay="linear")
    assert [linear.learning_rate_at(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert linear.learning_rate_at(7) == pytest.approx(0.5)
    cosine = replace(linear, decay="cosine")
    assert cosine.learning_rate_at(7) == pytest.approx(0.5)
    assert cosine.learning_rate_at(9) == pytest.approx(0.0670, abs=1e-4)
    assert replace(linear, decay="none").learning_rate_at(9) == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_steps": 0}, "num_steps=0: at least 1"),
        ({"microbatch": 0}, "microbatch=0: at least 1"),
        ({"warmup_steps": -1}, "warmup_steps=-1: at least 0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: more than 0"),
        ({"clip_norm": float("nan")}, "clip_norm=nan: more than 0"),
        ({"ema_rates": (1.0,)}, r"ema_rates=\(1.0,\): at least 0 and less than 1"),
        ({"ema_rates": (0.9, 0.9)}, "every rate can be given once"),
    ],
)
def test_settings_outside_what_is_allowed_are_named(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoopConfig(**{"num_steps": 1, **fields})


def test_network_has_to_fit_the_variance() -> None:
    recipe = RECIPES["clothing32"]("images")
    with pytest.raises(ConfigError, match="out_channels=6: 3 are needed with variance fixed_small"):
        replace(recipe, process=replace(recipe.process, variance="fixed_small"))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_valid(name: str) -> None:
    assert RECIPES[name]("images").data == "images"
