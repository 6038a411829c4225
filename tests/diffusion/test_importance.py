import numpy as np
import pytest
import torch

from rediffuse.diffusion.importance import LossSecondMomentSampler, LowNoiseSampler, UniformSampler


def test_uniform_weights_are_one():
    t, weights = UniformSampler(7).sample(100, torch.Generator().manual_seed(0))
    assert set(t.tolist()) == set(range(7))
    torch.testing.assert_close(weights, torch.ones(100))


def test_timesteps_are_drawn_from_the_given_generator():
    one, other = (UniformSampler(1000).sample(20, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(one, other)


def test_a_uniform_sampler_has_nothing_to_keep_and_takes_nothing_of_another():
    sampler = UniformSampler(3)
    sampler.load_state_dict(UniformSampler(3).state_dict())
    with pytest.raises(ValueError, match="state of another timestep sampler"):
        sampler.load_state_dict(LossSecondMomentSampler(3).state_dict())


def test_five_of_eight_timesteps_with_low_noise_come_from_the_first_quarter():
    t, weights = LowNoiseSampler(100).sample(20_000, torch.Generator().manual_seed(0))
    assert abs((t < 25).float().mean() - 5 / 8) < 0.02
    assert weights[t < 25].unique().item() == pytest.approx(0.4)
    assert weights[t >= 25].unique().item() == pytest.approx(2)
    assert abs((weights * t).mean() - 49.5) < 1  # the expected value of anything stays what it was


def warmed_up(num_timesteps: int) -> LossSecondMomentSampler:
    sampler = LossSecondMomentSampler(num_timesteps)
    for round_ in range(25):
        t = torch.arange(num_timesteps)
        sampler.update(t, 1.0 + t * (round_ + 1) / 10)
    return sampler


def test_probabilities_follow_the_last_ten_losses():
    rows = np.array([[1 + t * (round_ + 1) / 10 for round_ in range(15, 25)] for t in range(4)])
    expected = np.sqrt((rows**2).mean(axis=1))
    expected = expected / expected.sum() * 0.999 + 0.001 / 4
    np.testing.assert_allclose(warmed_up(4).probabilities(), expected)


def test_all_timesteps_are_alike_until_each_has_its_history():
    sampler = LossSecondMomentSampler(3)
    for _ in range(10):
        sampler.update(torch.tensor([0, 1]), torch.tensor([5.0, 1.0]))
    np.testing.assert_allclose(sampler.probabilities(), 1 / 3)


@pytest.mark.parametrize("num_updates", [3, 4, 7])
def test_the_first_losses_count_until_later_ones_replace_them(num_updates: int):
    sampler = LossSecondMomentSampler(2, history=3, uniform=0)
    given = torch.arange(1.0, 2 * num_updates + 1).reshape(num_updates, 2)
    for losses in given:
        sampler.update(torch.tensor([0, 1]), losses)
    expected = given[-3:].square().mean(dim=0).sqrt().numpy()
    np.testing.assert_allclose(sampler.probabilities(), expected / expected.sum())


def test_every_timestep_has_a_loss():
    with pytest.raises(ValueError, match="shorter"):
        LossSecondMomentSampler(3).update(torch.tensor([0, 1]), torch.tensor([1.0]))


def test_weights_keep_the_expected_loss():
    sampler = warmed_up(4)
    loss = torch.tensor([3.0, 1.0, 4.0, 1.5])
    t, weights = sampler.sample(40_000, torch.Generator().manual_seed(0))
    assert abs((weights * loss[t]).mean() - loss.mean()) < 0.05


def test_a_restored_sampler_goes_on_where_it_was():
    one, other = warmed_up(4), LossSecondMomentSampler(4)
    other.load_state_dict(one.state_dict())
    one.update(torch.tensor([2]), torch.tensor([9.0]))
    other.update(torch.tensor([2]), torch.tensor([9.0]))
    np.testing.assert_array_equal(one.probabilities(), other.probabilities())
