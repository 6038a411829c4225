"""What is measured: a model here, its plain path, and the same architecture in other programs."""

import copy
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rediffuse.diffusion import trajectory
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import ConfigError, InputError
from rediffuse.models.config import Precision, UNetConfig
from rediffuse.models.layers import GroupNorm
from rediffuse.sampling.config import SamplingSettings
from rediffuse.zoo.model import DTYPES, DiffusionModel

PLAIN, OWN = "plain", "rediffuse"
"""The name of the comparator to which every ratio refers, and that of the same network as the package runs it."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network and the loops around it."""

    name: str
    precision: Precision
    network: nn.Module
    """For inference, with weights in its own precision or in float32 under autocast."""
    predict: Callable[[Tensor, Tensor], Tensor]
    """(x_t, timesteps) -> eps (N, C, ...), without a learned variance."""
    round_trip: Callable[[Tensor, int, int], object]
    """(x_0, steps, depth): inversion and reconstruction by DDIM."""

    @property
    def title(self) -> str:
        return f"{self.name} {self.precision}"


class _PlainNorm(GroupNorm):
    """The normalisation of the plain path: every operation by itself."""

    def silu(self, x: Tensor, scale_shift: Tensor | None = None) -> Tensor:
        h = self(x)
        if scale_shift is not None:
            scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return nn.functional.silu(h)


def architecture(model: DiffusionModel) -> UNetConfig:
    """The configuration of a network of this package. Raises ConfigError for a pipeline of diffusers."""
    config = model.network.config
    if not isinstance(config, UNetConfig):
        raise ConfigError(f"{model.provenance.source}: is a pipeline of diffusers; bench measures U-Nets of rediffuse")
    return config


def trained_process(model: DiffusionModel) -> ProcessConfig:
    """The process of a network of this package."""
    assert isinstance(model.process_config, ProcessConfig)
    return model.process_config


def own(model: DiffusionModel, precision: Precision) -> Subject:
    """The model as the package runs it."""
    return _of_network(OWN, precision, model.network, model, model.denoiser(SamplingSettings(), precision))


def plain(model: DiffusionModel) -> Subject:
    """The model in float32 with the channels outermost, and every operation by itself."""
    network = copy.deepcopy(model.network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, GroupNorm):
            module.__class__ = _PlainNorm
    return _of_network(PLAIN, "fp32", network, model, network)


def reference(model: DiffusionModel, folder: Path, precision: Precision) -> Subject:
    """The same network of guided-diffusion, with its own sampling loops.

    In fp32 it runs as its programs run it; in half precision with the channels innermost and under autocast.

    Raises:
        InputError: `folder` holds no `guided_diffusion`.
    """
    unet = import_reference(folder, "unet")
    config = architecture(model)
    fields = {name: value for name, value in vars(config).items() if name not in ("frequency", "attention_resolutions")}
    network = unet.UNetModel(**fields, attention_resolutions=config.attention_resolutions)
    network.load_state_dict(model.network.state_dict())
    network.eval().to(model.device)
    if precision != "fp32":
        network.to(memory_format=torch.channels_last)
    call = _autocast(network, precision, model.device)

    def round_trip(x_0: Tensor, steps: int, depth: int) -> object:
        process = reference_process(model, folder, f"ddim{steps}")
        x, clip = x_0, True
        for index in range(depth):
            x = process.ddim_reverse_sample(call, x, _at(index, x), clip_denoised=clip)["sample"]
        for index in reversed(range(depth)):
            x = process.ddim_sample(call, x, _at(index, x), clip_denoised=clip)["sample"]
        return x

    return Subject(
        name="guided-diffusion", precision=precision, network=network, predict=_eps(call, model), round_trip=round_trip
    )


def diffusers(model: DiffusionModel, precision: Precision) -> Subject:
    """A UNet2DModel of the same widths with random weights, and diffusers' DDIM schedulers.

    In half precision it has the channels innermost, as its documentation recommends.

    Raises:
        InputError: diffusers is not installed, or a width is not possible there.
    """
    library = import_diffusers()
    config = architecture(model)
    levels = list(zip(config.downsampling_factors, config.channel_mult, strict=True))
    kinds = ["AttnDownBlock2D" if factor in config.attention_resolutions else "DownBlock2D" for factor, _ in levels]
    network = library.UNet2DModel(
        sample_size=config.image_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=tuple(int(mult * config.model_channels) for _, mult in levels),
        layers_per_block=config.num_res_blocks,
        down_block_types=tuple(kinds),
        up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(kinds)),
        attention_head_dim=config.num_head_channels if config.num_head_channels != -1 else None,
        resnet_time_scale_shift="scale_shift" if config.use_scale_shift_norm else "default",
        downsample_type="resnet" if config.resblock_updown else "conv",
        upsample_type="resnet" if config.resblock_updown else "conv",
    ).eval()
    network.to(model.device)
    if precision != "fp32":
        network.to(dtype=DTYPES[precision], memory_format=torch.channels_last)

    def call(x_t: Tensor, timesteps: Tensor) -> Tensor:
        return network(x_t.to(DTYPES[precision]), timesteps, return_dict=False)[0].float()

    def round_trip(x_0: Tensor, steps: int, depth: int) -> object:
        process = trained_process(model)
        fields = {
            "num_train_timesteps": process.num_timesteps,
            "beta_schedule": {"cosine": "squaredcos_cap_v2", "linear": "linear"}[process.schedule],
            "clip_sample": True,
        }
        x, predict = x_0, _eps(call, model)
        inverse, forward = library.DDIMInverseScheduler(**fields), library.DDIMScheduler(**fields)
        for scheduler, part in ((inverse, slice(0, depth)), (forward, slice(-depth, None))):
            scheduler.set_timesteps(steps)
            for t in scheduler.timesteps[part]:
                x = scheduler.step(predict(x, _at(int(t), x)), t, x).prev_sample
        return x

    return Subject(
        name="diffusers", precision=precision, network=network, predict=_eps(call, model), round_trip=round_trip
    )


@cache
def import_reference(folder: Path, module: str) -> Any:
    """A module of the guided-diffusion in `folder`. Raises InputError if there is none."""
    if not (folder / "guided_diffusion" / f"{module}.py").is_file():
        raise InputError(f"{folder}: holds no guided_diffusion/{module}.py; a checkout of guided-diffusion is needed")
    before = _taken_out()
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(f"guided_diffusion.{module}")
    finally:
        sys.path.remove(str(folder))
        _taken_out()
        sys.modules.update(before)


def _taken_out() -> dict[str, ModuleType]:
    """Remove the modules of the package guided_diffusion, which may be the adapter, from those that are imported."""
    names = [name for name in sys.modules if name.split(".")[0] == "guided_diffusion"]
    return {name: sys.modules.pop(name) for name in names}


def reference_process(model: DiffusionModel, folder: Path, respacing: str) -> Any:
    """The process of the guided-diffusion in `folder` for the model."""
    process = trained_process(model)
    return import_reference(folder, "script_util").create_gaussian_diffusion(
        steps=process.num_timesteps,
        learn_sigma=process.learns_variance,
        noise_schedule=process.schedule,
        rescale_timesteps=process.rescale_timesteps,
        timestep_respacing=respacing,
    )


def import_diffusers() -> Any:
    """The library. Raises InputError if it is not installed."""
    if importlib.util.find_spec("diffusers") is None:
        raise InputError('diffusers is not installed: pip install "rediffuse[bench]"')
    return importlib.import_module("diffusers")


def operations(subject: Subject, shape: tuple[int, ...]) -> int:
    """Operations of one forward pass on an input of this shape, counted while it runs: 2 per multiply-add."""
    device = next(subject.network.parameters()).device
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        subject.predict(torch.zeros(shape, device=device), torch.ones((), device=device).expand(shape[0]))
    return counter.get_total_flops()


def _of_network(
    name: str, precision: Precision, network: nn.Module, model: DiffusionModel, call: Callable[..., Tensor]
) -> Subject:
    def round_trip(x_0: Tensor, steps: int, depth: int) -> object:
        process = model.process(f"ddim{steps}")
        options = trajectory.SamplerOptions(conditioning=_labels(model, len(x_0)))
        x_T = trajectory.last(trajectory.invert("ddim", process, call, x_0, options, depth=depth))
        return trajectory.last(trajectory.sample("ddim", process, call, x_T, options, depth=depth))

    return Subject(name=name, precision=precision, network=network, predict=_eps(call, model), round_trip=round_trip)


def _eps(call: Callable[..., Tensor], model: DiffusionModel) -> Callable[[Tensor, Tensor], Tensor]:
    channels = model.network.config.in_channels
    return lambda x_t, timesteps: call(x_t, timesteps, **_labels(model, len(x_t)))[:, :channels]


def _labels(model: DiffusionModel, number: int) -> dict[str, Tensor]:
    if model.num_classes is None:
        return {}
    return {"y": torch.zeros(number, dtype=torch.int64, device=model.device)}


def _autocast(network: nn.Module, precision: Precision, device: torch.device) -> Callable[..., Tensor]:
    if precision == "fp32":
        return network

    def call(x_t: Tensor, timesteps: Tensor, **conditioning: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=DTYPES[precision]):
            return network(x_t, timesteps, **conditioning).float()

    return call


def _at(index: int, x: Tensor) -> Tensor:
    return torch.full((len(x),), index, device=x.device)
