"""The importance samplers with their old names."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed as dist

from rediffuse.compat.guided_diffusion import resample
from rediffuse.compat.guided_diffusion.script_util import create_gaussian_diffusion

DIFFUSION = create_gaussian_diffusion(steps=100, timestep_respacing="4")


@pytest.fixture
def one_process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Rising(resample.ScheduleSampler):
    """A program's own sampler: probability grows with t."""

    def weights(self) -> np.ndarray:
        return np.array([1.0, 2.0, 3.0, 4.0])


def test_a_seeded_program_draws_its_old_timesteps() -> None:
    np.random.seed(3)
    expected = np.random.choice(4, size=(50,), p=[0.1, 0.2, 0.3, 0.4])
    np.random.seed(3)
    t, weights = Rising().sample(50, "cpu")
    assert (t.dtype, weights.dtype) == (torch.int64, torch.float32)
    assert t.tolist() == expected.tolist()
    torch.testing.assert_close(weights, 1 / (4 * (t + 1) / 10))


def test_uniform_weights_are_one() -> None:
    sampler = resample.create_named_schedule_sampler("uniform", DIFFUSION)
    assert sampler.weights().tolist() == [1, 1, 1, 1]
    assert sampler.sample(5, torch.device("cpu"))[1].tolist() == [1] * 5


def test_losses_count_without_a_process_group() -> None:
    sampler = resample.LossSecondMomentResampler(DIFFUSION, history_per_term=2, uniform_prob=0.5)
    for _ in range(2):
        assert sampler.weights().tolist() == [1, 1, 1, 1]
        sampler.update_with_local_losses(torch.arange(4), torch.tensor([1.0, 1.0, 1.0, 5.0]))
    np.testing.assert_allclose(sampler.weights(), [1 / 16 + 1 / 8] * 3 + [5 / 16 + 1 / 8])


def test_losses_count_with_a_process_group(one_process_group: None) -> None:
    sampler = resample.create_named_schedule_sampler("loss-second-moment", DIFFUSION)
    assert isinstance(sampler, resample.LossSecondMomentResampler)
    for _ in range(10):
        sampler.update_with_local_losses(torch.arange(4), torch.tensor([1.0, 1.0, 1.0, 5.0]))
    assert sampler.weights()[3] == pytest.approx(0.999 * 5 / 8 + 0.001 / 4)


def test_the_oldest_loss_makes_room_for_a_new_one() -> None:
    sampler = resample.LossSecondMomentResampler(DIFFUSION, history_per_term=1, uniform_prob=0)
    sampler.update_with_all_losses([0, 1, 2, 3, 3], [1.0, 1.0, 1.0, 9.0, 1.0])
    np.testing.assert_allclose(sampler.weights(), [0.25] * 4)


def test_an_unknown_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="did you mean uniform"):
        resample.create_named_schedule_sampler("unifrom", DIFFUSION)
