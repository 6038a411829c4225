"""The golden values through the old names: networks, process, DIRE, training and the importance sampler."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from golden_values import FOLDER, fill, load, relative_error, rnd
from rediffuse.compat.guided_diffusion import gaussian_diffusion as gd
from rediffuse.compat.guided_diffusion import unet
from rediffuse.compat.guided_diffusion.resample import LossSecondMomentResampler
from rediffuse.compat.guided_diffusion.respace import SpacedDiffusion, space_timesteps

PROCESSES = sorted(path.stem for path in FOLDER.glob("process_*.npz"))
SHORT = [name for name in PROCESSES if name != "process_full"]  # whole loops are stored for 50 steps or fewer
NETWORKS = sorted(path.stem for pattern in ("unet_*.npz", "encoder_*.npz") for path in FOLDER.glob(pattern))


@pytest.mark.parametrize("name", NETWORKS)
def test_network_and_its_gradients(name: str) -> None:
    meta, golden = load(name)
    network = fill(_network(meta))
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == meta["state_dict"]
    x = golden["x"].requires_grad_()
    out = network(x, golden["t"], **({"y": golden["y"]} if "y" in golden else {}))
    assert relative_error(out, golden["out"]) < 2e-5
    if "grad_logp" in golden:
        log_p = torch.log_softmax(out, -1)[range(2), [1, 2]].sum()
        assert relative_error(torch.autograd.grad(log_p, x)[0], golden["grad_logp"]) < 1e-4
        return
    stem: Any = network.get_parameter("input_blocks.0.0.weight")
    grad_x, grad_stem = torch.autograd.grad((out * golden["w"]).sum(), [x, stem])
    assert relative_error(grad_x, golden["grad_x"]) < 1e-4
    assert relative_error(grad_stem, golden["grad_in_conv"]) < 1e-4


def test_super_resolution_network() -> None:
    meta, golden = load("superres")
    network = fill(_network(meta))
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == meta["state_dict"]
    with torch.no_grad():
        out = network(golden["x"], golden["t"], low_res=golden["low_res"])
    assert relative_error(out, golden["out"]) < 2e-5


@pytest.mark.parametrize("steps", [100, 1000, 4000])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_betas(schedule: str, steps: int) -> None:
    _, golden = load("schedules")
    assert relative_error(gd.get_named_beta_schedule(schedule, steps), golden[f"betas_{schedule}_{steps}"]) < 1e-12


def test_kept_timesteps() -> None:
    for case, kept in json.loads((FOLDER / "respacing.json").read_text()).items():
        num_timesteps, spec = case.split("|")
        if isinstance(kept, list):
            assert sorted(space_timesteps(int(num_timesteps), spec)) == kept
        else:
            with pytest.raises(ValueError, match="respacing="):
                space_timesteps(int(num_timesteps), spec)


@pytest.mark.parametrize("name", PROCESSES)
def test_process(name: str) -> None:
    meta, golden = load(name)
    diffusion = _diffusion(meta)
    x_0, x_t, t, noise = (golden[key] for key in ("x0", "xt", "ts", "noise"))
    given = {
        "alphas_cumprod": diffusion.alphas_cumprod,
        "q_sample": diffusion.q_sample(x_0, t, noise),
        "posterior_mean": diffusion.q_posterior_mean_variance(x_0, x_t, t)[0],
    }
    predicted = diffusion.p_mean_variance(_analytic(meta), x_t, t, clip_denoised=meta["clip"])
    given |= {f"p_{key}": predicted[key] for key in ("mean", "variance", "log_variance", "pred_xstart")}
    losses = diffusion.training_losses(_analytic(meta), x_0, t, noise=noise)
    given |= {f"train_{key}": loss for key, loss in losses.items()}
    errors = {key: relative_error(value, golden[key]) for key, value in given.items()}
    assert max(errors.values()) < 2e-6, errors


@pytest.mark.parametrize("name", PROCESSES)
def test_single_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meta, golden = load(name)
    diffusion, model, clip = _diffusion(meta), _analytic(meta), meta["clip"]
    x_t, t = golden["xt"], golden["ts"]
    steps: dict[str, Callable[[], dict[str, Tensor]]] = {
        "p_sample": lambda: diffusion.p_sample(model, x_t, t, clip_denoised=clip),
        "p_sample_guided": lambda: diffusion.p_sample(model, x_t, t, clip_denoised=clip, cond_fn=_guide),
        "ddim_eta0.0": lambda: diffusion.ddim_sample(model, x_t, t, clip_denoised=clip, eta=0.0),
        "ddim_eta0.5": lambda: diffusion.ddim_sample(model, x_t, t, clip_denoised=clip, eta=0.5),
        "ddim_eta1.0": lambda: diffusion.ddim_sample(model, x_t, t, clip_denoised=clip, eta=1.0),
        "ddim_guided": lambda: diffusion.ddim_sample(model, x_t, t, clip_denoised=clip, cond_fn=_guide),
        "ddim_reverse": lambda: diffusion.ddim_reverse_sample(model, x_t, t, clip_denoised=clip),
    }
    errors = {}
    for key, step in steps.items():
        _draw_from(monkeypatch, f"{name}.z")
        errors[key] = relative_error(step()["sample"], golden[key])
    assert max(errors.values()) < 2e-5, errors


@pytest.mark.parametrize("name", SHORT)
def test_whole_loops(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meta, golden = load(name)
    diffusion, model = _diffusion(meta), _analytic(meta)
    shape, options = tuple(golden["x0"].shape), {"clip_denoised": meta["clip"], "device": "cpu"}
    _draw_from(monkeypatch, f"{name}.loop")
    given = {"p_loop": diffusion.p_sample_loop(model, shape, noise=golden["xt"], **options)}
    given["ddim_loop"] = diffusion.ddim_sample_loop(model, shape, noise=golden["xt"], **options)
    for real_step, suffix in ((0, ""), (5, "_real5")):
        options["real_step"] = real_step
        x_T = diffusion.ddim_reverse_sample_loop(model, shape, noise=golden["x0"], **options)
        given[f"ddim_invert{suffix}"] = x_T
        x_T = golden[f"ddim_invert{suffix}"]
        given[f"ddim_roundtrip{suffix}"] = diffusion.ddim_sample_loop(model, shape, noise=x_T, **options)
    errors = {key: relative_error(value, golden[key]) for key, value in given.items()}
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("name", SHORT)
def test_bits_per_dimension(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    meta, golden = load(name)
    _draw_from(monkeypatch, f"{name}.bpd")
    bits = _diffusion(meta).calc_bpd_loop(_analytic(meta), golden["x0"], clip_denoised=meta["clip"])
    errors = {key: relative_error(value, golden[f"bpd_{key}"]) for key, value in bits.items()}
    assert set(errors) == {"total_bpd", "prior_bpd", "vb", "xstart_mse", "mse"}
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("real_step", [0, 5])
def test_dire_of_image_files(real_step: int) -> None:
    meta, golden = load("dire_end_to_end")
    network = _network(meta | {"kind": "UNetModel"}).eval()
    network.load_state_dict({key: value.float() for key, value in load_file(FOLDER / meta["weights"]).items()})
    diffusion = _diffusion(meta | {"T": 1000, "loss": "MSE"})
    x_0, options = golden["x_0"], {"clip_denoised": meta["clip_denoised"], "real_step": real_step}
    shape = tuple(x_0.shape)
    x_T = diffusion.ddim_reverse_sample_loop(network, shape, noise=x_0, **options)
    assert relative_error(x_T, golden[f"x_T_{real_step}"]) < 1e-4
    x_0_hat = diffusion.ddim_sample_loop(network, shape, noise=x_T, **options)
    assert relative_error(x_0_hat, golden[f"x_0_hat_{real_step}"]) < 1e-3
    floored = ((x_0 - x_0_hat).abs() * 255 / 2).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    difference = floored.int() - golden[f"dire_u8_{real_step}"].int()
    assert difference.abs().max() <= 1
    assert (difference != 0).double().mean() < 1e-3


@pytest.mark.parametrize("name", ["train_mse", "train_hybrid"])
def test_training_trajectory(name: str) -> None:
    meta, golden = load(name)
    network = fill(_network(meta | {"kind": "UNetModel"})).train()
    diffusion = _diffusion(meta)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    losses = []
    for step in range(len(golden["losses"])):
        x_0 = rnd(f"{name}.x{step}", 4, 3, 16, 16).clamp(-1, 1)
        t = torch.from_numpy(np.random.RandomState(step).randint(0, 1000, 4))
        loss = diffusion.training_losses(network, x_0, t, noise=rnd(f"{name}.z{step}", 4, 3, 16, 16))["loss"]
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
        losses.append(loss.detach())
    assert relative_error(torch.stack(losses), golden["losses"]) < 1e-3
    with torch.no_grad():
        out = network.eval()(rnd(f"{name}.eval", 2, 3, 16, 16), torch.tensor([10, 900]))
    assert relative_error(out, golden["out"]) < 5e-3


def test_weights_of_the_loss_second_moment_sampler() -> None:
    meta, golden = load("loss_second_moment")
    diffusion = _diffusion(
        {"T": meta["T"], "schedule": "cosine", "mean": "EPSILON", "var": "FIXED_LARGE", "loss": "MSE"}
    )
    sampler = LossSecondMomentResampler(diffusion, meta["history_per_term"], meta["uniform_prob"])
    random = np.random.RandomState(0)
    for _ in range(70):
        t = random.randint(0, meta["T"], 4)
        losses = random.rand(4) * (1 + t)
        sampler.update_with_all_losses(t.tolist(), losses.tolist())
    assert relative_error(sampler.weights(), golden["weights"]) < 1e-12


def _network(meta: dict[str, Any]) -> torch.nn.Module:
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in meta["kwargs"].items()}
    return getattr(unet, meta["kind"])(**arguments)


def _diffusion(meta: dict[str, Any]) -> SpacedDiffusion:
    return SpacedDiffusion(
        use_timesteps=space_timesteps(meta["T"], meta.get("respacing") or [meta["T"]]),
        betas=gd.get_named_beta_schedule(meta["schedule"], meta["T"]),
        model_mean_type=gd.ModelMeanType[meta["mean"]],
        model_var_type=gd.ModelVarType[meta["var"]],
        loss_type=gd.LossType[meta["loss"]],
        rescale_timesteps=meta.get("rescale_timesteps", False),
    )


def _analytic(meta: dict[str, Any]) -> Callable[..., Tensor]:
    """The closed-form network of the golden README."""

    def model(x: Tensor, timesteps: Tensor) -> Tensor:
        tt = timesteps.float().view(-1, *[1] * (x.ndim - 1)) / 1000
        eps = x.tanh() * (3 * tt).cos() + 0.1 * x
        return torch.cat([eps, (2 * x + tt).sin()], 1) if meta["var"].startswith("LEARNED") else eps

    return model


def _guide(x: Tensor, timesteps: Tensor) -> Tensor:
    return -0.3 * x


def _draw_from(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let `torch.randn_like` return the golden draws `<name>.0`, `<name>.1`, ... in turn."""
    draws: Iterator[int] = iter(range(10**6))
    monkeypatch.setattr(torch, "randn_like", lambda x: rnd(f"{name}.{next(draws)}", *x.shape))
