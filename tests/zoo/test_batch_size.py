"""The batch size of a job: measured for long jobs, limited by memory, recorded with the results."""

import logging
from pathlib import Path
from typing import Any

import pytest

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import ConfigError
from rediffuse.models.config import USUAL_BATCH_SIZE, BatchSize, UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.sampling.config import SamplingSettings
from rediffuse.zoo import batch_size
from rediffuse.zoo.batch_size import SIZES, choose_batch_size
from rediffuse.zoo.model import DiffusionModel, Provenance

LONG = 10**6
"""Network calls per image that make any job a long one."""


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    config = UNetConfig(image_size=8, model_channels=32, out_channels=3, channel_mult=(1,), num_res_blocks=1)
    process = ProcessConfig(variance="fixed_small")
    network = UNetModel(config).eval()
    return DiffusionModel(network=network, process_config=process, provenance=Provenance(source="tiny", sha256="0"))


def choose(model: DiffusionModel, given: BatchSize = "auto", **job: Any) -> int:
    return choose_batch_size(given, model, SamplingSettings(), "fp32", **({"num_images": 64, "num_calls": 5} | job))


def test_a_short_job_has_the_usual_size_without_a_measurement(model: DiffusionModel) -> None:
    assert choose(model) == USUAL_BATCH_SIZE


def test_a_long_job_has_a_measured_size(model: DiffusionModel, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert choose(model, num_calls=LONG, num_images=9) in (4, 8)
    assert "an image takes" in caplog.text


def test_an_interrupted_job_continues_with_the_recorded_size(model: DiffusionModel, tmp_path: Path) -> None:
    assert choose(model, 7, folder=tmp_path) == 7
    assert choose(model, folder=tmp_path, num_calls=LONG) == 7
    assert choose(model, 5, folder=tmp_path) == 5
    assert choose(model, folder=tmp_path) == 5


def test_a_size_fits_in_the_free_memory(
    model: DiffusionModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sizes = []
    for free in (0, 600_000, 2**40):
        monkeypatch.setattr(batch_size, "_free_bytes", lambda device, free=free: free)
        sizes.append(choose(model))
    assert sizes[0] == 1 < sizes[1] < sizes[2] == USUAL_BATCH_SIZE < SIZES[-1]
    assert "may not fit in the free memory of cpu" in caplog.text


def test_a_size_below_one_is_an_error(model: DiffusionModel) -> None:
    with pytest.raises(ConfigError, match="batch_size=0: at least 1 is needed"):
        choose(model, 0)


def test_a_damaged_record_is_an_error(model: DiffusionModel, tmp_path: Path) -> None:
    (tmp_path / "batch_size.json").write_text('{"batch_size": "many"}')
    with pytest.raises(ConfigError, match=r"batch_size\.json"):
        choose(model, folder=tmp_path)
