"""Every command that decodes files takes --max-pixels, and names a file that has more."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rediffuse.cli.flags import flags_of
from rediffuse.cli.main import COMMANDS, _load, main

WITHOUT = {"models", "models fetch", "sample", "info", "bench"}
"""They read no images of others."""
NETWORK = "--image-size 8 --model-channels 32 --channel-mult 1 --num-res-blocks 1 --attention-resolutions 1"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for label in ("real", "generated"):
        (folder / label).mkdir()
        for index in range(2):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{label}{index}.png")
    return folder


def test_every_command_that_reads_images_has_the_flag() -> None:
    have = {name for name, command in COMMANDS.items() if "--max-pixels" in {f.name for f in flags_of(_load(name)[1])}}
    assert have == COMMANDS.keys() - WITHOUT


@pytest.mark.parametrize(
    "words",
    [
        "detect DATA",
        "dire DATA --out OUT",
        "invert DATA --out OUT",
        "interpolate IMAGE IMAGE --out OUT",
        "eval nll DATA",
        "eval detector DATA",
        "eval robustness DATA --changes noise",
        "calibrate --real DATA/real --out OUT --max-false-alarms 0.4",
        "audit DATA",
        "align DATA OUT --size 16",
        f"train diffusion --data DATA --out OUT {NETWORK}",
        "train detector --data DATA --out OUT",
    ],
)
def test_a_file_with_more_pixels_is_named(
    words: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"IMAGE": data / "real" / "real0.png", "DATA": data, "OUT": tmp_path / "out"}
    for name, path in places.items():
        words = words.replace(name, str(path))
    assert main([*words.split(), "--max-pixels", "1000"]) in (1, 2)
    assert "40x40 pixels, at most 1000 in total are decoded" in "".join(capsys.readouterr())
