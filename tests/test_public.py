"""The public names: the list of them, and that they are imported only when they are used."""

import subprocess
import sys

import pytest

import rediffuse

NAMES = [
    *("ClassifierModel", "Detector", "DiffusionModel", "DireMap", "DireSettings", "ProcessConfig", "Reconstruction"),
    *("SamplingSettings", "Verdict", "band_profile", "decode", "detect", "errors", "guide", "interpolate", "invert"),
    *(
        "keep_freed_memory",
        "load",
        "load_classifier",
        "load_detector",
        "read_image",
        "reconstruct",
        "sample",
        "samplers",
        "upscale",
        "write_image",
    ),
]


def test_the_public_names_are_these() -> None:
    assert rediffuse.__all__ == NAMES
    assert dir(rediffuse) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_the_thing_of_that_name(name: str) -> None:
    thing = getattr(rediffuse, name)
    assert thing.__name__.rpartition(".")[2] == name
    assert thing.__doc__


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sampel'"):
        rediffuse.sampel  # noqa: B018


def test_names_are_listed_and_light_ones_used_without_torch() -> None:
    program = (
        "import sys, rediffuse; dir(rediffuse); rediffuse.errors.ConfigError; "
        "rediffuse.DireSettings(image_size=64, model_sha256=''); rediffuse.ProcessConfig(); "
        "rediffuse.SamplingSettings(); "
        "rediffuse.Verdict(file='a.png'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
