import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import golden_values
from rediffuse.diffusion.schedule import NoiseSchedule
from rediffuse.diffusion.spacing import karras_sigmas, space_timesteps
from rediffuse.errors import ConfigError

_, BETAS = golden_values.load("schedules")
RESPACING = json.loads((golden_values.FOLDER / "respacing.json").read_text())


@pytest.mark.parametrize("key", sorted(BETAS))
def test_betas_equal_the_originals(key: str):
    _, name, num_timesteps = key.split("_")
    betas = NoiseSchedule.named(name, int(num_timesteps)).betas
    assert golden_values.relative_error(betas, BETAS[key]) < 1e-12


@pytest.mark.parametrize("key", sorted(RESPACING))
def test_respacing_keeps_the_originals_timesteps(key: str):
    num_timesteps, spec = key.split("|")
    assert list(space_timesteps(int(num_timesteps), spec)) == RESPACING[key]


def test_a_stride_that_does_not_exist_is_refused_with_the_nearest_that_do():
    with pytest.raises(ConfigError, match=r"ddim37.*1000 timesteps gives 37; .* are ddim35, ddim36, ddim38, ddim39$"):
        space_timesteps(1000, "ddim37")
    with pytest.raises(ConfigError, match=r"^respacing='ddim': no integer stride over 10 timesteps gives nothing; "):
        space_timesteps(10, "ddim")


def test_strides_reach_from_every_timestep_to_the_first_and_the_last():
    assert space_timesteps(10, "ddim10") == tuple(range(10))
    assert space_timesteps(3, "ddim2") == (0, 2)


@pytest.mark.parametrize("spec", ["ddim", "ddim1", "ddimx", "ten", "", "0", "-3", "11", "3,20"])
def test_a_malformed_respacing_is_refused(spec: str):
    with pytest.raises(ConfigError, match="respacing="):
        space_timesteps(10, spec)


@pytest.mark.parametrize(
    ("num_timesteps", "counts", "kept"),
    [(10, [1], (0,)), (10, [2, 2], (0, 4, 5, 9)), (11, [1, 2], (0, 6, 10)), (11, [6, 5], tuple(range(11)))],
)
def test_a_section_is_kept_from_its_first_to_its_last(num_timesteps: int, counts: list[int], kept: tuple[int, ...]):
    assert space_timesteps(num_timesteps, counts) == kept
    with pytest.raises(ConfigError, match=r"respacing=\[7, 5\]: 7 timesteps do not fit in a section of 6$"):
        space_timesteps(11, [7, 5])


@given(st.integers(1, 300), st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(any))
def test_sections_are_ascending_and_as_many_as_asked_for(num_timesteps: int, counts: list[int]):
    if max(counts) > num_timesteps // len(counts):
        return
    kept = space_timesteps(num_timesteps, counts)
    assert len(kept) == sum(counts)
    assert list(kept) == sorted(set(kept))
    assert 0 <= kept[0] <= kept[-1] < num_timesteps


@given(st.sampled_from(["linear", "cosine"]), st.sets(st.integers(0, 99), min_size=1))
def test_a_respaced_schedule_has_the_same_alpha_bar_where_it_stands(name: str, kept: set[int]):
    schedule = NoiseSchedule.named(name, 100)
    indices = sorted(kept)
    np.testing.assert_allclose(schedule.keep(indices).alpha_bar, schedule.alpha_bar[indices], rtol=1e-9)


def test_respacing_twice_tells_the_network_the_first_chains_timesteps():
    twice = NoiseSchedule.linear(1000).respace("ddim100").respace("ddim10")
    assert list(twice.timesteps) == list(range(0, 1000, 100))
    assert twice.num_train_timesteps == 1000


@pytest.mark.parametrize("indices", [[], [-1, 3], [3, 10]])
def test_indices_outside_the_chain_are_refused(indices: list[int]):
    assert NoiseSchedule.cosine(10).keep([9, 0, 9]).timesteps.tolist() == [0, 9]
    with pytest.raises(ConfigError, match=r"^timesteps=.*: numbers from 0 to 9 are needed$"):
        NoiseSchedule.cosine(10).keep(indices)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_posterior_weights_follow_from_bayes(name: str):
    # The precision of q(x_{t-1} | x_t, x_0) is the sum of those of q(x_t | x_{t-1}) and q(x_{t-1} | x_0).
    s = NoiseSchedule.named(name, 50)
    alpha, beta, before = 1 - s.betas[1:], s.betas[1:], s.alpha_bar[:-1]
    variance = 1 / (alpha / beta + 1 / (1 - before))
    np.testing.assert_allclose(s.posterior_variance[1:], variance)
    np.testing.assert_allclose(s.posterior_mean_x_t[1:], variance * np.sqrt(alpha) / beta)
    np.testing.assert_allclose(s.posterior_mean_x_0[1:], variance * np.sqrt(before) / (1 - before))


def test_coefficients_take_the_precision_of_their_tensor_but_never_less_than_float32():
    schedule, t = NoiseSchedule.linear(100), torch.tensor([0, 9])
    for given_dtype, dtype in [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
    ]:
        coefficient = schedule.at("alpha_bar", t, torch.zeros(2, 3, 4, 4, dtype=given_dtype))
        assert coefficient.dtype == dtype
        assert coefficient.shape == (2, 1, 1, 1)
        of_all = schedule.at("alpha_bar", 9, torch.zeros(2, 3, 4, 4, dtype=given_dtype))
        assert (of_all.dtype, of_all.shape) == (dtype, ())


def test_coefficients_are_on_the_device_of_their_indices_and_timesteps_on_that_of_x():
    schedule, t, x = NoiseSchedule.linear(100), torch.tensor([0, 9], device="meta"), torch.zeros(2, 3, device="meta")
    assert schedule.at("alpha_bar", t, x).device.type == "meta"
    assert schedule.at("alpha_bar", 9, x).device.type == "cpu"
    assert schedule.network_timesteps(9, x, rescaled=False).device.type == "meta"


def test_a_linear_schedule_too_short_for_its_betas_is_refused():
    with pytest.raises(ConfigError, match=r"num_timesteps=19: a linear schedule needs at least 20$"):
        NoiseSchedule.linear(19)
    assert NoiseSchedule.linear(20).betas[-1] == 1


def test_an_unknown_schedule_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean cosine"):
        NoiseSchedule.named("cosin", 10)


@pytest.mark.parametrize("betas", [[], [0.0, 0.1], [0.1, 1.5], [[0.1]]])
def test_betas_outside_their_range_are_refused(betas: list[float]):
    with pytest.raises(ConfigError, match=r"^betas: .* above 0 and up to 1 is needed$"):
        NoiseSchedule.from_betas(betas)


def test_karras_levels_are_even_in_the_seventh_root_within_the_papers_range():
    sigmas = karras_sigmas(5, 0.0004, 20_000)
    assert sigmas[[0, -1]] == pytest.approx([0.002, 80])
    assert np.diff(sigmas ** (1 / 7)) == pytest.approx(np.diff(sigmas ** (1 / 7))[0])
    assert karras_sigmas(1, 0.01, 50) == pytest.approx([50])
    assert karras_sigmas(2, 0.01, 50) == pytest.approx([0.01, 50])
    with pytest.raises(ConfigError, match="karras0: at least 1"):
        karras_sigmas(0, 0.01, 50)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_karras_spacing_of_a_chain_starts_at_its_least_noise(name: str):
    chain = NoiseSchedule.named(name, 1000)
    spaced = chain.respace("karras18")
    assert spaced.num_timesteps == 18
    assert spaced.sigma[0] == pytest.approx(chain.sigma[0])
    assert spaced.sigma[-1] == pytest.approx(80)
    assert (np.diff(spaced.timesteps) > 0).all()


def test_karras_spacing_of_a_chain_with_little_noise_ends_at_its_last_timestep():
    assert NoiseSchedule.from_betas([0.1] * 20).respace("karras5").timesteps[[0, -1]] == pytest.approx([0, 19])


def test_levels_at_timesteps_are_told_these_and_levels_between_them_fractions():
    chain = NoiseSchedule.linear(1000)
    between = np.sqrt(chain.sigma[40] * chain.sigma[41])
    spaced = chain.at_sigmas([chain.sigma[7], between, chain.sigma[900]])
    assert spaced.timesteps == pytest.approx([7, 40.5, 900])
    assert spaced.alpha_bar[[0, 2]] == pytest.approx(chain.alpha_bar[[7, 900]])
    x = torch.zeros(2, 1)
    assert spaced.network_timesteps(1, x, rescaled=False).tolist() == pytest.approx([40.5, 40.5])


def test_listed_timesteps_and_sigmas_are_read_from_text():
    chain = NoiseSchedule.cosine(1000)
    assert chain.respace("timesteps:0,50,400").timesteps.tolist() == [0, 50, 400]
    assert chain.respace("sigmas:0.02,0.5,40").sigma == pytest.approx([0.02, 0.5, 40])


@pytest.mark.parametrize(
    ("spec", "line"),
    [
        ("sigmas:0.02,abc", "sigmas='0.02,abc': numbers separated by commas"),
        ("sigmas:0.5,0.02", r"sigmas=\[0.5, 0.02\]: ascending numbers from 0.006"),
        ("sigmas:0.00001,1", "ascending numbers from"),
        ("timesteps:0,x", "^timesteps='0,x': numbers separated by commas"),
        ("timesteps:0,1000", "timesteps=0,1000: numbers from 0 to 999"),
        ("karrasx", "karras='x': numbers"),
    ],
)
def test_a_grid_that_the_chain_does_not_have_is_refused(spec: str, line: str):
    with pytest.raises(ConfigError, match=line):
        NoiseSchedule.cosine(1000).respace(spec)


@pytest.mark.parametrize("spec", [[], [-1, 3], [0, 0]])
def test_a_respacing_without_timesteps_is_refused(spec: list[int]):
    with pytest.raises(ConfigError, match="at least one timestep must be kept"):
        space_timesteps(10, spec)


def test_values_of_any_precision_become_float64():
    assert NoiseSchedule.from_betas(np.full(4, 0.1, dtype=np.float32)).betas.dtype == np.float64
    sigmas = np.full(1, 0.3, dtype=np.float32)
    assert NoiseSchedule.linear(100).at_sigmas(sigmas).sigma == pytest.approx(sigmas.astype(np.float64), rel=1e-12)


def test_the_noisiest_level_of_a_chain_is_the_last_that_it_has():
    chain = NoiseSchedule.linear(1000)
    assert chain.at_sigmas([1.0, chain.sigma[-1]]).timesteps[-1] == 999
    with pytest.raises(ConfigError, match="ascending numbers from"):
        chain.at_sigmas([1.0, 1.5 * chain.sigma[-1]])


def test_coefficients_first_used_in_inference_can_be_used_in_a_training():
    schedule, x, t = NoiseSchedule.linear(100), torch.ones(2, 1, requires_grad=True), torch.tensor([0, 5])
    for index in (5, t):
        with torch.inference_mode():
            schedule.at("alpha_bar", index, x)
        [gradient] = torch.autograd.grad((schedule.at("alpha_bar", index, x) * x).sum(), x)
        torch.testing.assert_close(gradient, schedule.at("alpha_bar", index, x).expand_as(x))


def test_the_last_of_many_noise_levels_is_checked_too():
    schedule = NoiseSchedule.linear(100)
    inside = [float(schedule.sigma[k]) for k in (20, 40, 60)]
    for outside in ([*inside, 2 * float(schedule.sigma[-1])], [inside[0], inside[1], inside[1]]):
        with pytest.raises(ConfigError, match=r"^sigmas=.*: ascending numbers from"):
            schedule.at_sigmas(outside)


def test_timesteps_of_the_network_are_whole_unless_they_are_rescaled_or_between_two():
    schedule, t, x = NoiseSchedule.linear(100), torch.tensor([3]), torch.zeros(1, 1)
    assert schedule.network_timesteps(t, x, rescaled=False).dtype == torch.int64
    assert schedule.network_timesteps(t, x, rescaled=True).dtype == torch.float32
    assert schedule.at_sigmas([0.3]).network_timesteps(0, x, rescaled=False).dtype == torch.float32
