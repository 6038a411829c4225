"""Uses of a process with the old names that golden values do not cover: seeds, callbacks, subclasses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rediffuse.compat.guided_diffusion import gaussian_diffusion as gd
from rediffuse.compat.guided_diffusion.respace import SpacedDiffusion
from rediffuse.compat.guided_diffusion.script_util import create_gaussian_diffusion
from rediffuse.errors import ConfigError

SHAPE = (2, 3, 4, 4)
LOOPS = ["p_sample_loop", "ddim_sample_loop", "ddim_reverse_sample_loop"]


def eps_model(x: Tensor, timesteps: Tensor, **_: Any) -> Tensor:
    return x.tanh() * (timesteps.float() / 300).cos().view(-1, *[1] * (x.ndim - 1))


@pytest.fixture
def diffusion() -> SpacedDiffusion:
    return create_gaussian_diffusion(steps=100, timestep_respacing="8")


@pytest.fixture
def x_0() -> Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def _index(x: Tensor, t: int) -> Tensor:
    return torch.full((len(x),), t)


def test_attributes_are_the_arrays_of_the_chain() -> None:
    betas = gd.get_named_beta_schedule("cosine", 30)
    diffusion = gd.GaussianDiffusion(
        betas=betas,
        model_mean_type=gd.ModelMeanType.EPSILON,
        model_var_type=gd.ModelVarType.FIXED_SMALL,
        loss_type=gd.LossType.MSE,
    )
    alpha_bar = np.cumprod(1 - betas)
    before, after = np.append(1, alpha_bar[:-1]), np.append(alpha_bar[1:], 0)
    posterior = betas * (1 - before) / (1 - alpha_bar)
    expected = {
        "betas": betas,
        "alphas_cumprod": alpha_bar,
        "alphas_cumprod_prev": before,
        "alphas_cumprod_next": after,
        "sqrt_alphas_cumprod": np.sqrt(alpha_bar),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - alpha_bar),
        "log_one_minus_alphas_cumprod": np.log(1 - alpha_bar),
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / alpha_bar),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / alpha_bar - 1),
        "posterior_variance": posterior,
        "posterior_log_variance_clipped": np.log(np.append(posterior[1], posterior[1:])),
        "posterior_mean_coef1": betas * np.sqrt(before) / (1 - alpha_bar),
        "posterior_mean_coef2": (1 - before) * np.sqrt(1 - betas) / (1 - alpha_bar),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(diffusion, name), values, rtol=1e-12, err_msg=name)
    assert diffusion.num_timesteps == 30


def test_betas_follow_any_alpha_bar() -> None:
    betas = gd.betas_for_alpha_bar(4, lambda u: 1 - u, max_beta=0.9)
    np.testing.assert_allclose(betas, [1 / 4, 1 / 3, 1 / 2, 0.9])


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'lineal'.*did you mean linear"):
        gd.get_named_beta_schedule("lineal", 100)


def test_only_the_variational_losses_are_vb() -> None:
    assert [loss.is_vb() for loss in gd.LossType] == [False, False, True, True]


# --- seeded programs -----------------------------------------------------------------------------------------------


def test_a_seeded_ddpm_program_gives_its_old_numbers(diffusion: SpacedDiffusion) -> None:
    torch.manual_seed(3)
    x = torch.randn(*SHAPE)
    for index in reversed(range(diffusion.num_timesteps)):
        p = diffusion.p_mean_variance(eps_model, x, _index(x, index))
        x = p["mean"] + (index > 0) * (0.5 * p["log_variance"]).exp() * torch.randn_like(x)
    next_draw = torch.rand(3)

    torch.manual_seed(3)
    torch.testing.assert_close(diffusion.p_sample_loop(eps_model, SHAPE, device="cpu"), x)
    assert torch.equal(torch.rand(3), next_draw)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_seeded_ddim_program_gives_its_old_numbers(diffusion: SpacedDiffusion, eta: float) -> None:
    torch.manual_seed(3)
    x = torch.randn(*SHAPE)
    for index in reversed(range(diffusion.num_timesteps)):
        x_0 = diffusion.p_mean_variance(eps_model, x, _index(x, index))["pred_xstart"]
        a, a_prev = diffusion.alphas_cumprod[index], diffusion.alphas_cumprod_prev[index]
        sigma = eta * np.sqrt((1 - a_prev) / (1 - a) * (1 - a / a_prev))
        eps = (x - a**0.5 * x_0) / (1 - a) ** 0.5
        x = a_prev**0.5 * x_0 + (1 - a_prev - sigma**2) ** 0.5 * eps + sigma * torch.randn_like(x)
    next_draw = torch.rand(3)

    torch.manual_seed(3)
    sample = diffusion.ddim_sample_loop(eps_model, SHAPE, device="cpu", eta=eta)
    torch.testing.assert_close(sample, x, rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.rand(3), next_draw)


def test_inversion_draws_nothing(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    torch.manual_seed(3)
    diffusion.ddim_reverse_sample_loop(eps_model, SHAPE, noise=x_0)
    after = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(3), after)


def test_losses_draw_their_noise_once(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    t = torch.tensor([0, 5])
    torch.manual_seed(3)
    drawn = diffusion.training_losses(eps_model, x_0, t)
    torch.manual_seed(3)
    given = diffusion.training_losses(eps_model, x_0, t, noise=torch.randn_like(x_0))
    assert torch.equal(drawn["loss"], given["loss"])


def test_bits_draw_once_per_timestep_from_the_noisiest_on(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    torch.manual_seed(3)
    bits = diffusion.calc_bpd_loop(eps_model, x_0)
    torch.manual_seed(3)
    for column, index in enumerate(reversed(range(diffusion.num_timesteps))):
        x_t = diffusion.q_sample(x_0, _index(x_0, index))
        term = diffusion._vb_terms_bpd(eps_model, x_0, x_t, _index(x_0, index))
        torch.testing.assert_close(bits["vb"][:, column], term["output"])
        torch.testing.assert_close(bits["xstart_mse"][:, column], ((term["pred_xstart"] - x_0) ** 2).flatten(1).mean(1))
    torch.testing.assert_close(bits["prior_bpd"], diffusion._prior_bpd(x_0))
    torch.testing.assert_close(bits["total_bpd"], bits["vb"].sum(1) + bits["prior_bpd"])


def test_a_progressive_loop_draws_its_noise_when_it_is_first_asked(diffusion: SpacedDiffusion) -> None:
    steps = diffusion.p_sample_loop_progressive(eps_model, SHAPE, device="cpu")
    torch.manual_seed(3)
    first = next(steps)["sample"]
    torch.manual_seed(3)
    assert torch.equal(next(diffusion.p_sample_loop_progressive(eps_model, SHAPE, device="cpu"))["sample"], first)


# --- what the callbacks are given ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rescaled", [False, True])
def test_model_and_cond_fn_are_told_the_timesteps_of_training(rescaled: bool) -> None:
    diffusion = create_gaussian_diffusion(steps=50, timestep_respacing="ddim10", rescale_timesteps=rescaled)
    heard: dict[str, list[float]] = {"model": [], "cond_fn": []}

    def model(x: Tensor, timesteps: Tensor, y: int) -> Tensor:
        heard["model"] += timesteps.unique().tolist()
        return eps_model(x, timesteps) * y

    def cond_fn(x: Tensor, timesteps: Tensor, y: int) -> Tensor:
        heard["cond_fn"] += timesteps.unique().tolist()
        return -0.3 * x * y

    diffusion.p_sample_loop(model, SHAPE, cond_fn=cond_fn, model_kwargs={"y": 1}, device="cpu")
    expected = [t * (20 if rescaled else 1) for t in range(45, -1, -5)]
    assert heard == {"model": expected, "cond_fn": expected}


def test_the_unspaced_process_scales_timesteps_itself() -> None:
    diffusion = gd.GaussianDiffusion(
        betas=gd.get_named_beta_schedule("linear", 50),
        model_mean_type=gd.ModelMeanType.EPSILON,
        model_var_type=gd.ModelVarType.FIXED_LARGE,
        loss_type=gd.LossType.MSE,
        rescale_timesteps=True,
    )
    heard: list[float] = []

    def model(x: Tensor, timesteps: Tensor) -> Tensor:
        heard.extend(timesteps.tolist())
        return x

    diffusion.p_mean_variance(model, torch.zeros(2, 1, 4), torch.tensor([0, 49]))
    diffusion.training_losses(model, torch.zeros(1, 1, 4), torch.tensor([7]))
    assert heard == [0, 980, 140]


@pytest.mark.parametrize("step", ["p_sample", "ddim_sample"])
def test_cond_fn_works_without_model_kwargs(diffusion: SpacedDiffusion, x_0: Tensor, step: str) -> None:
    take: Callable[..., dict[str, Tensor]] = getattr(diffusion, step)
    t = _index(x_0, 4)
    torch.manual_seed(0)
    plain = take(eps_model, x_0, t)["sample"]
    torch.manual_seed(0)
    guided = take(eps_model, x_0, t, cond_fn=lambda x, timesteps: torch.ones_like(x))["sample"]
    assert (guided > plain).all()


def test_conditioning_by_hand_is_what_the_step_does(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    t = _index(x_0, 4)

    def cond_fn(x: Tensor, timesteps: Tensor) -> Tensor:
        return 0.5 - x

    p = diffusion.p_mean_variance(eps_model, x_0, t)
    shifted = diffusion.condition_mean(cond_fn, p, x_0, t)
    torch.testing.assert_close(shifted, p["mean"] + p["variance"] * (0.5 - x_0))
    moved = diffusion.condition_score(cond_fn, p | {"extra": x_0}, x_0, t)
    alpha_bar = diffusion.alphas_cumprod[4]
    eps = (x_0 - alpha_bar**0.5 * p["pred_xstart"]) / (1 - alpha_bar) ** 0.5 - (1 - alpha_bar) ** 0.5 * (0.5 - x_0)
    torch.testing.assert_close(moved["pred_xstart"], diffusion._predict_xstart_from_eps(x_0, t, eps))
    torch.testing.assert_close(moved["mean"], diffusion.q_posterior_mean_variance(moved["pred_xstart"], x_0, t)[0])
    assert moved["extra"] is x_0


def test_denoised_fn_is_applied_before_clipping(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    p = diffusion.p_mean_variance(eps_model, x_0, _index(x_0, 4), denoised_fn=lambda x: 0 * x + 7)
    assert (p["pred_xstart"] == 1).all()
    p = diffusion.p_mean_variance(eps_model, x_0, _index(x_0, 4), False, lambda x: 0 * x + 7)
    assert (p["pred_xstart"] == 7).all()


def test_predictions_and_posteriors_have_the_shape_of_x(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    t = _index(x_0, 4)
    outputs = list(diffusion.p_mean_variance(eps_model, x_0, t).values())
    outputs += [*diffusion.q_mean_variance(x_0, t), *diffusion.q_posterior_mean_variance(x_0, x_0, t)]
    assert {tuple(value.shape) for value in outputs} == {SHAPE}


def test_eps_and_x_0_and_x_prev_lead_to_one_another(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    t, eps = _index(x_0, 4), torch.ones(SHAPE)
    x_t = diffusion.q_sample(x_0, t, eps)
    torch.testing.assert_close(diffusion._predict_xstart_from_eps(x_t, t, eps), x_0)
    torch.testing.assert_close(diffusion._predict_eps_from_xstart(x_t, t, x_0), eps)
    x_prev = diffusion.q_posterior_mean_variance(x_0, x_t, t)[0]
    torch.testing.assert_close(diffusion._predict_xstart_from_xprev(x_t, t, x_prev), x_0, rtol=1e-4, atol=1e-4)


# --- loops ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_ends_where_its_progressive_form_ends(diffusion: SpacedDiffusion, x_0: Tensor, loop: str) -> None:
    torch.manual_seed(0)
    end = getattr(diffusion, loop)(eps_model, SHAPE, x_0)
    torch.manual_seed(0)
    steps = list(getattr(diffusion, f"{loop}_progressive")(eps_model, SHAPE, x_0))
    assert [set(step) for step in steps] == [{"sample", "pred_xstart"}] * 8
    assert torch.equal(steps[-1]["sample"], end)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("real_step", "taken"), [(0, 8), (1, 1), (3, 3), (8, 8), (100, 8)])
def test_every_loop_walks_real_step_steps_next_to_the_image(
    diffusion: SpacedDiffusion, x_0: Tensor, loop: str, real_step: int, taken: int
) -> None:
    visited: list[int] = []

    def model(x: Tensor, timesteps: Tensor) -> Tensor:
        visited.append(diffusion.timestep_map.index(int(timesteps[0])))
        return eps_model(x, timesteps)

    getattr(diffusion, loop)(model, SHAPE, noise=x_0, real_step=real_step)
    assert sorted(visited) == list(range(taken))
    assert visited == sorted(visited, reverse=loop != "ddim_reverse_sample_loop")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_negative_real_step_is_refused(diffusion: SpacedDiffusion, x_0: Tensor, loop: str) -> None:
    with pytest.raises(ConfigError, match="real_step=-1"):
        getattr(diffusion, loop)(eps_model, SHAPE, noise=x_0, real_step=-1)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_last_batch_may_be_shorter_than_the_shape_says(diffusion: SpacedDiffusion, x_0: Tensor, loop: str) -> None:
    assert getattr(diffusion, loop)(eps_model, SHAPE, noise=x_0[:1]).shape == (1, *SHAPE[1:])


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("shape", [(2, 1, 5), (1, 2, 2, 3, 4)])
def test_signals_and_volumes_go_through_every_loop(
    diffusion: SpacedDiffusion, loop: str, shape: tuple[int, ...]
) -> None:
    assert getattr(diffusion, loop)(eps_model, shape, device="cpu", progress=False).isfinite().all()


def test_intermediate_samples_are_all_steps_of_a_short_chain(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    samples = diffusion.ddim_sample_loop(eps_model, SHAPE, noise=x_0, return_intermediate=True)
    steps = diffusion.ddim_sample_loop_progressive(eps_model, SHAPE, noise=x_0)
    assert all(torch.equal(sample, step["sample"]) for sample, step in zip(samples, steps, strict=True))
    assert len(samples) == 8


def test_intermediate_samples_of_a_long_chain_are_every_nth() -> None:
    diffusion = create_gaussian_diffusion(steps=250)
    x_T = torch.zeros(1, 1, 2)
    samples = diffusion.ddim_sample_loop(eps_model, x_T.shape, noise=x_T, return_intermediate=True)
    assert len(samples) == 125  # n = 250 // 100


def test_a_program_may_replace_the_sample_between_two_steps(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    seen: list[float] = []

    def model(x: Tensor, timesteps: Tensor) -> Tensor:
        seen.append(float(x.mean()))
        return eps_model(x, timesteps)

    for step in diffusion.ddim_sample_loop_progressive(model, SHAPE, noise=x_0):
        step["sample"] = torch.full(SHAPE, 0.25)
    assert seen[1:] == [0.25] * 7


def test_a_progressive_loop_leaves_the_gradient_mode_of_its_reader_alone(
    diffusion: SpacedDiffusion, x_0: Tensor
) -> None:
    for step in diffusion.p_sample_loop_progressive(eps_model, SHAPE, noise=x_0):
        assert torch.is_grad_enabled()
        assert not step["sample"].requires_grad


def test_single_steps_let_gradients_through(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    x = x_0.clone().requires_grad_()
    diffusion.ddim_sample(eps_model, x, _index(x, 4))["sample"].sum().backward()
    assert x.grad is not None


def test_noise_is_drawn_where_the_network_lives(diffusion: SpacedDiffusion) -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, device="meta"))

        def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
            return x * self.scale

    assert diffusion.p_sample_loop(Network(), SHAPE).device.type == "meta"


def test_a_plain_function_needs_a_device_or_noise(diffusion: SpacedDiffusion) -> None:
    with pytest.raises(ConfigError, match="give the device"):
        diffusion.p_sample_loop(eps_model, SHAPE)


def test_inversion_has_no_noise_to_add(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"eta=0\.5"):
        diffusion.ddim_reverse_sample_loop(eps_model, SHAPE, noise=x_0, eta=0.5)


def test_progress_shows_a_bar(diffusion: SpacedDiffusion, x_0: Tensor, capsys: pytest.CaptureFixture[str]) -> None:
    diffusion.ddim_sample_loop(eps_model, SHAPE, noise=x_0)
    assert not capsys.readouterr().err
    diffusion.ddim_sample_loop(eps_model, SHAPE, noise=x_0, progress=True)
    assert "8/8" in capsys.readouterr().err


# --- subclasses ----------------------------------------------------------------------------------------------------


def _subclass(diffusion: SpacedDiffusion, **methods: Any) -> SpacedDiffusion:
    """The same process with methods overridden."""
    kind: Any = type("Subclass", (SpacedDiffusion,), methods)
    return kind(
        use_timesteps=diffusion.use_timesteps,
        betas=gd.get_named_beta_schedule("linear", 100),
        model_mean_type=diffusion.model_mean_type,
        model_var_type=diffusion.model_var_type,
        loss_type=diffusion.loss_type,
    )


def test_an_overridden_p_mean_variance_steers_every_loop(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    def p_mean_variance(self: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        p = SpacedDiffusion.p_mean_variance(self, *args, **kwargs)
        return p | {"mean": 0 * p["mean"] + 0.5, "pred_xstart": 0 * p["pred_xstart"] + 0.5}

    changed = _subclass(diffusion, p_mean_variance=p_mean_variance)
    for loop in ("p_sample_loop", "ddim_sample_loop"):
        torch.testing.assert_close(getattr(changed, loop)(eps_model, SHAPE, x_0), torch.full(SHAPE, 0.5))
    x_t = changed.ddim_reverse_sample(eps_model, x_0, _index(x_0, 0))
    assert (x_t["pred_xstart"] == 0.5).all()


@pytest.mark.parametrize(
    ("loop", "method"),
    [
        ("p_sample_loop", "p_sample"),
        ("ddim_sample_loop", "ddim_sample"),
        ("ddim_reverse_sample_loop", "ddim_reverse_sample"),
    ],
)
def test_an_overridden_step_is_what_its_loop_repeats(
    diffusion: SpacedDiffusion, x_0: Tensor, loop: str, method: str
) -> None:
    def halve(self: Any, model: Any, x: Tensor, t: Tensor, **_: Any) -> dict[str, Tensor]:
        return {"sample": x / 2, "pred_xstart": x}

    changed = _subclass(diffusion, **{method: halve})
    torch.testing.assert_close(getattr(changed, loop)(eps_model, SHAPE, noise=x_0), x_0 / 2**8)


@pytest.mark.parametrize(("step", "method"), [("p_sample", "condition_mean"), ("ddim_sample", "condition_score")])
def test_overridden_guidance_is_used_by_the_step(
    diffusion: SpacedDiffusion, x_0: Tensor, step: str, method: str
) -> None:
    calls: list[str] = []

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        return getattr(SpacedDiffusion, method)(self, *args, **kwargs)

    changed = _subclass(diffusion, **{method: count})
    getattr(changed, step)(eps_model, x_0, _index(x_0, 3), cond_fn=lambda x, timesteps: -x)
    assert calls == [method]


def test_an_overridden_wrap_model_is_what_the_network_goes_through(diffusion: SpacedDiffusion, x_0: Tensor) -> None:
    changed = _subclass(diffusion, _wrap_model=lambda self, model: lambda x, t, **kwargs: 0 * x)
    loss = changed.training_losses(eps_model, x_0, _index(x_0, 3), noise=torch.full(SHAPE, 2.0))["loss"]
    torch.testing.assert_close(loss, torch.full((2,), 4.0))
