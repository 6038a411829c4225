import pytest
import torch

from golden_processes import GoldenProcess
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.process import GaussianDiffusion, SamplerOptions
from rediffuse.diffusion.schedule import NoiseSchedule
from rediffuse.errors import ConfigError


def test_q_equals_the_original(golden: GoldenProcess):
    v = golden.values
    assert golden.error("q_sample", golden.process.q_sample(v["x0"], v["ts"], v["noise"])) < 1e-6
    assert golden.error("posterior_mean", golden.process.posterior(v["x0"], v["xt"], v["ts"]).mean) < 1e-6


def test_p_equals_the_original(golden: GoldenProcess):
    v = golden.values
    p = golden.process.predict(golden.model, v["xt"], v["ts"], golden.options)
    assert golden.error("p_mean", p.mean) < 1e-6
    assert golden.error("p_variance", p.variance) < 1e-6
    assert golden.error("p_log_variance", p.log_variance) < 1e-6
    assert golden.error("p_pred_xstart", p.x_0) < 1e-6


def test_one_prediction_turns_into_the_others_and_back():
    process = ProcessConfig(num_timesteps=50).build()
    x_t, x_0, t = torch.randn(3, 2, 4, dtype=torch.float64), torch.randn(3, 2, 4, dtype=torch.float64), torch.arange(3)
    eps = process.eps_from_x_0(x_t, t, x_0)
    torch.testing.assert_close(process.x_0_from_eps(x_t, t, eps), x_0)
    torch.testing.assert_close(process.q_sample(x_0, t, eps), x_t)
    torch.testing.assert_close(process.x_0_from_x_prev(x_t, t, process.posterior(x_0, x_t, t).mean), x_0)


def test_v_turns_into_x_0_and_eps_and_back():
    process = ProcessConfig(num_timesteps=50, prediction="v", variance="fixed_small").build()
    x_0, eps, t = torch.randn(3, 2, 4, dtype=torch.float64), torch.randn(3, 2, 4, dtype=torch.float64), torch.arange(3)
    x_t, v = process.q_sample(x_0, t, eps), process.v_from_x_0(x_0, t, eps)
    torch.testing.assert_close(process.x_0_from_v(x_t, t, v), x_0)
    torch.testing.assert_close(process.eps_from_x_0(x_t, t, process.x_0_from_v(x_t, t, v)), eps)
    # v is the derivative of x_t by the angle whose cosine is sqrt(alpha_bar) (arXiv:2202.00512, Appendix D)
    angle = torch.from_numpy(process.schedule.sqrt_alpha_bar)[:3, None, None].acos()
    torch.testing.assert_close(angle.cos() * eps - angle.sin() * x_0, v)
    p = process.predict(lambda x, timesteps: v, x_t, t, SamplerOptions(clip_denoised=False))
    torch.testing.assert_close(p.x_0, x_0)


def test_a_flow_turns_into_x_0_also_of_pure_noise():
    schedule = NoiseSchedule.from_betas([0.1, 0.5, 1.0])
    process = GaussianDiffusion(schedule=schedule, prediction="flow", variance="fixed_small")
    x_0, eps, t = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64), torch.arange(3)
    p = process.predict(lambda x, t: eps - x_0, process.q_sample(x_0, t, eps), t, SamplerOptions(clip_denoised=False))
    torch.testing.assert_close(p.x_0, x_0)


def test_v_gives_x_0_and_eps_also_of_pure_noise():
    schedule = NoiseSchedule.from_betas([0.1, 0.5, 1.0])
    process = GaussianDiffusion(schedule=schedule, prediction="v", variance="fixed_small")
    x_t, v = torch.randn(2, 3), torch.randn(2, 3)
    torch.testing.assert_close(process.x_0_from_v(x_t, 2, v), -v)
    torch.testing.assert_close(process.eps_from_x_0(x_t, 2, -v), x_t)


def test_clipping_comes_after_denoised_fn():
    process = ProcessConfig(num_timesteps=50, prediction="x_0", variance="fixed_small").build()
    x_t = torch.full((1, 1, 2), 0.5)
    p = process.predict(lambda x, t: x, x_t, torch.tensor([3]), SamplerOptions(denoised_fn=lambda x: 4 * x))
    assert (p.x_0 == 1).all()


def test_a_predicted_x_prev_is_the_mean_also_where_its_x_0_is_clipped():
    process = ProcessConfig(num_timesteps=50, prediction="x_prev", variance="fixed_small").build()
    x_t = torch.full((1, 1, 2), 3.0)
    p = process.predict(lambda x, t: 2 * x, x_t, 7)
    assert (p.x_0 == 1).all()
    assert torch.equal(p.mean, 2 * x_t)


def test_noisy_images_have_the_variances_that_q_says():
    process = ProcessConfig(num_timesteps=50).build()
    x_0, eps, t = torch.zeros(2, 1), torch.tensor([[1.0], [1.0]]), torch.tensor([3, 40])
    q = process.q_mean_variance(x_0, t)
    torch.testing.assert_close(q.variance, process.q_sample(x_0, t, eps) ** 2)
    posterior = process.posterior(x_0, x_0, t)
    for gaussian in (q, posterior):
        torch.testing.assert_close(gaussian.log_variance.exp(), gaussian.variance)


def test_the_network_is_told_its_own_timesteps():
    t = torch.tensor([0, 1, 4])
    assert ProcessConfig(num_timesteps=1000).build("5").network_timesteps(t, t).tolist() == [0, 250, 999]
    rescaled = ProcessConfig(num_timesteps=500, rescale_timesteps=True).build("5")
    assert rescaled.network_timesteps(t, t).tolist() == [0, 250, 998]


def test_a_network_without_the_variance_it_is_asked_for_is_refused():
    process = ProcessConfig(num_timesteps=50, variance="learned").build()
    with pytest.raises(ConfigError, match=r"variance='learned'.*\(1, 3, 4, 4\).*\(1, 6, 4, 4\) is needed"):
        process.predict(lambda x, t: x, torch.zeros(1, 3, 4, 4), torch.tensor([0]))


def test_a_learned_range_reaches_from_the_posteriors_variance_to_beta():
    process = ProcessConfig(num_timesteps=50, variance="learned_range").build()
    x_t, t = torch.zeros(2, 1, 3), torch.tensor([2, 7])
    low = process.denoised(torch.cat([x_t, -torch.ones_like(x_t)], 1), x_t, t).variance
    high = process.denoised(torch.cat([x_t, torch.ones_like(x_t)], 1), x_t, t).variance
    torch.testing.assert_close(low, process.schedule.at("posterior_variance", t, x_t).expand_as(low))
    torch.testing.assert_close(high, process.schedule.at("betas", t, x_t).expand_as(high))


def test_one_index_for_all_samples_means_the_same_as_one_each(golden: GoldenProcess):
    x_t = golden.values["xt"].double()
    for index in (0, 7, golden.process.num_timesteps - 1):
        of_all = golden.process.predict(golden.model, x_t, index, golden.options)
        of_each = golden.process.predict(golden.model, x_t, torch.full((len(x_t),), index), golden.options)
        for one, other in zip(of_all, of_each, strict=True):
            torch.testing.assert_close(one.expand_as(other), other)
        x_0 = golden.process.predict_x_0(golden.model, x_t, index, golden.options)
        assert torch.equal(x_0, of_all.x_0)
