import math

import pytest

from rediffuse.diffusion.config import ProcessConfig, check_guidance_scale, respacing
from rediffuse.errors import ConfigError


@pytest.mark.parametrize(
    ("spacing", "steps", "grid"),
    [
        ("even", 20, "ddim20"),
        ("karras", 18, "karras18"),
        ("timesteps:0,50,400", 3, "timesteps:0,50,400"),
        ("sigmas:0.5", 1, "sigmas:0.5"),
    ],
)
def test_a_spacing_and_a_number_of_steps_make_a_grid(spacing: str, steps: int, grid: str):
    assert respacing(spacing, steps, "ddim20") == grid


def test_another_spacing_and_another_number_of_levels_are_refused():
    allowed = r"even, karras, timesteps:T,T,\.\.\. or sigmas:S,S,\.\.\. are allowed$"
    for spacing in ("kerras", "levels:0,50"):
        with pytest.raises(ConfigError, match=rf"^spacing={spacing}: {allowed}"):
            respacing(spacing, 2, "ddim2")
    with pytest.raises(ConfigError, match=r"^spacing=sigmas:1,2: has 2 levels, and steps=3; give steps=2$"):
        respacing("sigmas:1,2", 3, "ddim3")


def test_a_scale_of_guidance_is_a_finite_number_from_0_on():
    check_guidance_scale(0)
    for scale in (-0.1, math.inf, math.nan):
        with pytest.raises(ConfigError, match=rf"^guidance_scale={scale}: 0 or more is needed$"):
            check_guidance_scale(scale)


def test_a_chain_has_1_to_100000_timesteps():
    assert ProcessConfig(schedule="cosine", num_timesteps=1).build().num_timesteps == 1
    with pytest.raises(ConfigError, match=r"^num_timesteps=0: at least 1 is needed$"):
        ProcessConfig(num_timesteps=0)
    with pytest.raises(ConfigError, match=r"^num_timesteps=100001: at most 100000 is allowed$"):
        ProcessConfig(num_timesteps=100_001)
