"""Respacing with the old names."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from rediffuse.compat.guided_diffusion import gaussian_diffusion as gd
from rediffuse.compat.guided_diffusion.respace import SpacedDiffusion, _WrappedModel, space_timesteps

PLAIN = {
    "model_mean_type": gd.ModelMeanType.EPSILON,
    "model_var_type": gd.ModelVarType.FIXED_LARGE,
    "loss_type": gd.LossType.MSE,
}


@pytest.mark.parametrize("counts", ["10,15,20", [10, 15, 20], (10, 15, 20)])
def test_section_counts_are_text_or_numbers(counts: str | Sequence[int]) -> None:
    kept = space_timesteps(300, counts)
    assert isinstance(kept, set)
    assert [len([t for t in kept if t // 100 == section]) for section in range(3)] == [10, 15, 20]


def test_kept_timesteps_keep_their_alpha_bar() -> None:
    betas = gd.get_named_beta_schedule("linear", 100)
    whole = gd.GaussianDiffusion(betas=betas, **PLAIN)
    spaced = SpacedDiffusion([70, 3, 99, 3], betas=betas, **PLAIN)
    assert spaced.timestep_map == [3, 70, 99]
    assert spaced.use_timesteps == {3, 70, 99}
    assert (spaced.num_timesteps, spaced.original_num_steps) == (3, 100)
    torch.testing.assert_close(spaced.alphas_cumprod, whole.alphas_cumprod[[3, 70, 99]], rtol=1e-12, atol=0)


def test_all_timesteps_are_the_whole_chain() -> None:
    betas = gd.get_named_beta_schedule("cosine", 50)
    spaced = SpacedDiffusion(space_timesteps(50, [50]), betas=betas, **PLAIN)
    torch.testing.assert_close(spaced.betas, betas, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("rescaled", "told"), [(False, [70, 3]), (True, [140.0, 6.0])])
def test_a_wrapped_model_translates_indices(rescaled: bool, told: list[float]) -> None:
    def model(x: Tensor, timesteps: Tensor, shift: int) -> Tensor:
        return timesteps + shift

    wrapped = _WrappedModel(model, [3, 70, 99], rescaled, 500)
    assert wrapped(torch.zeros(2, 1), torch.tensor([1, 0]), shift=1).tolist() == [t + 1 for t in told]


def test_a_model_is_wrapped_only_once() -> None:
    spaced = SpacedDiffusion({10, 20}, betas=gd.get_named_beta_schedule("linear", 100), **PLAIN)
    wrapped = spaced._wrap_model(lambda x, timesteps: x * timesteps.view(-1, 1))
    assert spaced._wrap_model(wrapped) is wrapped
    x, t = torch.ones(2, 1), torch.tensor([0, 1])
    once = spaced.p_mean_variance(wrapped.model, x, t)["mean"]
    assert torch.equal(spaced.p_mean_variance(wrapped, x, t)["mean"], once)
