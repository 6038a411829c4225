import pytest
import torch

from rediffuse.diffusion.noise import PerSampleNoise, from_generator


def test_a_samples_noise_depends_on_its_own_seed_alone():
    together = PerSampleNoise([3, 8, 5])
    alone = PerSampleNoise([8])
    for _ in range(3):
        torch.testing.assert_close(together(torch.zeros(3, 2, 5))[1:2], alone(torch.zeros(1, 2, 5)), rtol=0, atol=0)


def test_different_seeds_and_later_draws_differ():
    noise = PerSampleNoise([0, 1])
    first, second = noise.normal((100,)), noise.normal((100,))
    assert (first[0] != first[1]).all()
    assert (first != second).all()


def test_a_generator_is_advanced_by_every_draw():
    noise = from_generator(torch.Generator().manual_seed(0))
    expected = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(noise(torch.zeros(2, 3)), expected)
    assert (noise(torch.zeros(2, 3)) != expected).all()


def test_the_lowest_32_bits_of_a_seed_count_and_all_of_them():
    def draw(seed: int) -> torch.Tensor:
        return PerSampleNoise([seed]).normal((8,))

    for seed in (5 + 2**32, 5 + 2**80, 5 - 2**32):
        torch.testing.assert_close(draw(seed), draw(5), rtol=0, atol=0)
    assert (draw(5 + 2**31) != draw(5)).any()
    assert (draw(5 + 64) != draw(5)).any()


def test_noise_has_the_shape_precision_and_device_of_its_tensor_and_one_sample_per_seed():
    x = torch.zeros(2, 3, 4, dtype=torch.float64)
    for noise in (PerSampleNoise([0, 1]), from_generator(torch.Generator())):
        assert (noise(x).shape, noise(x).dtype) == (x.shape, x.dtype)
        assert noise(x.to("meta")).device.type == "meta"
    with pytest.raises(AssertionError, match="2 samples, 1 seeds"):
        PerSampleNoise([0])(x)
