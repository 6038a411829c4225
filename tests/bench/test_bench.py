"""The benchmark: rows, comparators, and results that are kept. Speeds are compared as ratios, never as seconds."""

import importlib.util
from pathlib import Path

import pytest

import rediffuse
from golden_values import fill
from rediffuse import compat
from rediffuse.bench.parts import Options, measure
from rediffuse.bench.results import bench, tables
from rediffuse.bench.subjects import PLAIN
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import ConfigError, InputError
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance

OLD_NAMES = Path(compat.__file__).parent
"""A package guided_diffusion with the names of the original: the adapter."""
QUICK = Options(precisions=("fp32", "bf16"), batch_sizes=(2,), rounds=1, clock="cpu", num_images=2)


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    config = UNetConfig(image_size=16, model_channels=32, num_res_blocks=1, channel_mult=(1, 1))
    return DiffusionModel(
        network=fill(UNetModel(config)),
        process_config=ProcessConfig(variance="fixed_large"),
        provenance=Provenance(source="tiny", sha256="0" * 64),
    )


@pytest.mark.parametrize("part", ["forward", "round_trip"])
def test_own_paths_and_guided_diffusion_are_measured_with_the_plain_path_first(
    model: DiffusionModel, part: str
) -> None:
    rows = measure(part, model, Options(**{**vars(QUICK), "reference": OLD_NAMES}))
    names = [f"{PLAIN} fp32", "rediffuse fp32", "rediffuse bf16", "guided-diffusion fp32", "guided-diffusion bf16"]
    assert [row.subject for row in rows] == names
    assert [row.ratio is None for row in rows] == [True, False, False, False, False]
    assert len({row.operations for row in rows}) == 1
    assert all(row.share and row.share > 0 for row in rows)


@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs the extra bench")
def test_diffusers_has_a_network_of_the_same_widths(model: DiffusionModel) -> None:
    options = Options(**{**vars(QUICK), "precisions": ("fp32",), "diffusers": True})
    first, *_, theirs = measure("round_trip", model, options)
    assert theirs.subject == "diffusers fp32"
    assert first.operations
    assert theirs.operations
    assert 0.7 < theirs.operations / first.operations < 1.4


def test_a_training_step_of_every_program_is_measured(model: DiffusionModel) -> None:
    rows = measure("train", model, Options(**{**vars(QUICK), "reference": OLD_NAMES}))
    assert [row.subject for row in rows] == ["plain fp32", "guided-diffusion fp32", "rediffuse fp32", "rediffuse bf16"]


def test_a_job_costs_little_more_than_its_network_calls() -> None:
    network, job = measure(
        "job", rediffuse.load("default"), Options(**{**vars(QUICK), "batch_sizes": (16,), "num_images": 4})
    )
    assert 0.5 * network.seconds < job.seconds < 1.5 * network.seconds


def test_a_model_without_an_embedded_detector_has_no_job(model: DiffusionModel) -> None:
    with pytest.raises(ConfigError, match=r"^job: tiny has no embedded detector; only the model default has$"):
        measure("job", model, QUICK)


def test_parts_that_are_in_the_folder_are_not_measured_again(model: DiffusionModel, tmp_path: Path) -> None:
    first = bench(model, ["forward"], QUICK, tmp_path)
    assert bench(model, ["forward"], QUICK, tmp_path) == first
    other = Options(**{**vars(QUICK), "rounds": 2})
    assert bench(model, ["forward"], other, tmp_path)["forward"].options == other
    assert "| plain fp32 | 2 |" in tables(first)


def test_a_folder_without_guided_diffusion_is_an_error(model: DiffusionModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no guided_diffusion/unet\.py"):
        measure("forward", model, Options(**{**vars(QUICK), "reference": tmp_path}))


def test_numbers_below_one_are_errors() -> None:
    for wrong in ({"rounds": 0}, {"num_images": 0}, {"batch_sizes": (0,)}, {"precisions": ()}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Options(**wrong)
