"""When calls of a network are recorded and replayed; the recorder computes on the CPU instead of making a graph."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rediffuse.models.graphs import Replayed

T = torch.tensor


class Cpu:
    """A network, and a recorder of its calls; both count."""

    def __init__(self, error: Exception | None = None) -> None:
        self.num_calls, self.num_recordings, self.num_replays, self.error = 0, 0, 0, error
        self.rows_of_timesteps: list[int] = []

    def network(self, x_t: Tensor, timesteps: Tensor, *, y: Tensor | None = None) -> Tensor:
        self.num_calls += 1
        self.rows_of_timesteps.append(1 if timesteps.stride(0) == 0 else len(timesteps))
        return 2 * x_t + timesteps[:, None] + (0 if y is None else y[:, None])

    def record(self, compute: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, Callable[[], object]]:
        self.num_recordings += 1
        if self.error is not None:
            raise self.error
        output = torch.empty_like(compute())

        def replay() -> None:
            self.num_replays += 1
            output.copy_(compute())

        return output, replay


@torch.inference_mode()
def call(network: Callable[..., Tensor], num_images: int, timestep: int, width: int = 3) -> None:
    """Call with one timestep for all, and compare with the arithmetic of the network."""
    x = torch.randn(num_images, width)
    torch.testing.assert_close(network(x, T(timestep).expand(num_images)), 2 * x + timestep)


def test_the_second_of_two_equal_calls_is_recorded_and_replayed() -> None:
    cpu = Cpu()
    network = Replayed(cpu.network, cpu.record)
    replays = []
    for num_images, timestep in ((4, 7), (4, 8), (4, 9)):
        call(network, num_images, timestep)
        replays.append(cpu.num_replays)
    assert replays == [0, 1, 2]
    assert cpu.num_recordings == 1
    assert set(cpu.rows_of_timesteps) == {1}


def test_a_short_last_batch_is_padded() -> None:
    cpu = Cpu()
    network = Replayed(cpu.network, cpu.record)
    for num_images in (4, 4, 3, 1, 4):
        call(network, num_images, 5)
    assert (cpu.num_recordings, cpu.num_replays) == (1, 4)


def test_a_larger_batch_or_another_size_of_images_is_recorded_anew_when_it_repeats() -> None:
    cpu = Cpu()
    network = Replayed(cpu.network, cpu.record)
    for num_images, width in ((4, 3), (4, 3), (8, 3), (8, 3), (8, 3), (8, 5), (8, 3)):
        call(network, num_images, 5, width)
    assert (cpu.num_recordings, cpu.num_replays) == (2, 1 + 2 + 1)


def test_a_timestep_and_a_class_per_image_are_copied_for_every_call() -> None:
    cpu = Cpu()
    network = Replayed(cpu.network, cpu.record)
    for seed in range(4):
        x, t, y = torch.randn(2, 3), T([seed, 5]), T([1, seed])
        with torch.no_grad():
            torch.testing.assert_close(network(x, t, y=y), 2 * x + t[:, None] + y[:, None])
    assert cpu.num_replays == 3


def test_a_result_is_not_overwritten_by_the_next_call() -> None:
    cpu = Cpu()
    network = Replayed(cpu.network, cpu.record)
    with torch.no_grad():
        results = [network(torch.full((2, 3), float(value)), T(0).expand(2)) for value in range(4)]
    assert [result[0, 0].item() for result in results] == [0, 2, 4, 6]


def test_calls_with_gradients_run_the_network() -> None:
    cpu = Cpu()
    network = Replayed(cpu.network, cpu.record)
    x = torch.randn(2, 3, requires_grad=True)
    for _ in range(3):
        network(x, T(0).expand(2)).sum().backward()
    assert cpu.num_recordings == 0


def test_a_recording_that_fails_is_a_warning_and_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    cpu = Cpu(RuntimeError("operation not permitted when stream is capturing"))
    network = Replayed(cpu.network, cpu.record)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            call(network, 4, 7)
    assert cpu.num_recordings == len(caplog.records) == 1
    assert "not permitted" in caplog.text


def test_too_little_memory_is_left_to_the_caller() -> None:
    """It halves the batch (`zoo.parts`), which is recorded when it repeats."""
    cpu = Cpu(torch.OutOfMemoryError("out of memory"))
    network = Replayed(cpu.network, cpu.record)
    call(network, 4, 7)
    with pytest.raises(torch.OutOfMemoryError):
        call(network, 4, 7)
    cpu.error = None
    for _ in range(2):
        call(network, 2, 7)
    assert cpu.num_replays == 1
