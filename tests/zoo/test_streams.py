"""Two batches of a small network at a time: order, cores, equal results, and how it ends."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rediffuse.bench.parts import write_images
from rediffuse.dire import job
from rediffuse.dire.job import FileResult, reconstruct_files
from rediffuse.dire.reconstruct import Reconstructor
from rediffuse.dire.settings import DireSettings
from rediffuse.images.find import find_images
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, load
from rediffuse.zoo.streams import STREAMS, in_streams, num_streams


@pytest.fixture(scope="module")
def model() -> DiffusionModel:
    return load("default")


@pytest.fixture(autouse=True)
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def nothing() -> None:
    pass


def test_only_small_networks_on_a_cpu_of_several_cores_have_two_streams(model: DiffusionModel) -> None:
    assert num_streams(model) == STREAMS
    assert num_streams(load("default").to("meta")) == 1
    torch.set_num_threads(1)
    assert num_streams(model) == 1


def test_a_large_network_has_one_stream(model: DiffusionModel) -> None:
    config = UNetConfig(image_size=256, model_channels=32, out_channels=6, channel_mult=(1, 2))
    assert num_streams(replace(model, network=UNetModel(config).eval())) == 1


@pytest.mark.parametrize(
    ("number", "cores"), [(1, [2]), (2, [1, 1]), (3, [1, 1, 2]), (4, [1, 1, 1, 1]), (5, [1, 1, 1, 1, 2])]
)
def test_batches_have_half_of_the_cores_and_a_last_one_without_company_has_all(number: int, cores: list[int]) -> None:
    def compute(batch: int) -> tuple[int, int]:
        return batch, torch.get_num_threads()

    assert list(in_streams(compute, range(number), 2, nothing)) == list(enumerate(cores))


def test_two_batches_are_computed_at_the_same_time_and_results_come_in_order() -> None:
    together = threading.Barrier(2, timeout=10)

    def compute(batch: int) -> int:
        together.wait()
        time.sleep(0.05 if batch % 2 == 0 else 0)
        return batch

    assert list(in_streams(compute, range(6), 2, nothing)) == list(range(6))


def test_the_caller_has_one_core_while_it_uses_a_result_and_all_of_them_afterwards() -> None:
    results = in_streams(lambda batch: batch, range(4), 2, nothing)
    assert [torch.get_num_threads() for _ in results] == [1] * 4
    assert torch.get_num_threads() == 2
    results = in_streams(lambda batch: batch, range(4), 2, nothing)
    next(results)
    results.close()
    assert torch.get_num_threads() == 2


def test_results_are_the_same_bits_as_those_of_one_batch_at_a_time(
    model: DiffusionModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = find_images([str(path) for path in write_images(tmp_path, 5, side=64)])
    settings = DireSettings.for_model(model, steps=4, crop="windows:3")

    def reconstructed() -> list[torch.Tensor]:
        results: list[FileResult] = list(reconstruct_files(model, files, settings, batch_size=4))
        return [one.reconstruction.x_0_hat for one in results if one.reconstruction is not None]

    two = reconstructed()
    monkeypatch.setattr(job, "num_streams", lambda _: 1)
    one = reconstructed()
    assert len(two) == len(one) == len(files)
    assert all(map(torch.equal, two, one))


def test_work_that_is_not_needed_any_more_ends_before_the_next_call_of_the_network(
    model: DiffusionModel, tmp_path: Path
) -> None:
    files = find_images([str(path) for path in write_images(tmp_path, 6, side=64)])
    settings = DireSettings.for_model(model, steps=100)
    calls, limit = [], 2 * 100
    counting = model.network.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        results = reconstruct_files(model, files, settings, batch_size=1)
        next(results)  # two others are being computed
        results.close()
        at_the_end = len(calls)
        time.sleep(0.2)
    finally:
        counting.remove()
    assert len(calls) == at_the_end < 3 * limit


def test_a_stopped_reconstruction_is_an_error(model: DiffusionModel) -> None:
    reconstruct = Reconstructor(model, DireSettings.for_model(model, steps=2))
    reconstruct.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        reconstruct(torch.zeros(1, *model.shape))


def test_an_error_of_a_batch_is_raised_at_its_turn_and_stops_the_others() -> None:
    stopped: list[bool] = []

    def compute(batch: int) -> float:
        return 1 / (2 - batch)

    results = in_streams(compute, range(9), 2, lambda: stopped.append(True))
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert stopped == [True]
