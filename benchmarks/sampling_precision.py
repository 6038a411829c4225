"""Measure what half precision changes in samples, in latents and in a training, against fp32.

    python benchmarks/sampling_precision.py --data IMAGES --validation OTHERS --num-steps 200 --out runs/precision

Prints for samples of the same seeds, by sampler, the root mean square (RMS) of the differences from those of fp32, and
the largest one of an image; for latents the RMS of the errors of decoded images; and for trainings that differ in
nothing but the precision their losses on the other images, always computed in fp32. A training is kept in the folder of
`--out`, and continues there.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from script import read_flags
from torch import Tensor

from rediffuse.bench.subjects import architecture, trained_process
from rediffuse.diffusion import trajectory
from rediffuse.diffusion.losses import training_losses
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode
from rediffuse.images.find import find_images
from rediffuse.images.tensors import to_tensor
from rediffuse.models.config import Precision
from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.sample import denoise
from rediffuse.training.config import DiffusionTraining, GridConfig, LoopConfig
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.loop import train
from rediffuse.zoo.model import DiffusionModel, load

SAMPLERS = {"ddim": 50, "dpm_solver": 20, "heun": 20, "ddpm": 50}
"""The samplers, and the number of their steps."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compare precisions."""

    data: Path
    """A folder of images, to train on."""
    validation: Path
    """A folder of other images."""
    out: Path
    """Folder of the trainings."""
    num_images: int = 32
    """Samples of each sampler, and images whose latents are computed."""
    num_steps: int = 0
    """Steps of each training; 0 trains nothing."""
    precisions: tuple[str, ...] = ("fp32", "bf16")
    """Of the network: fp32, bf16, fp16. Trainings in fp16 need a GPU."""
    model: str = "default"
    """The model, as an argument of `rediffuse.load`."""


def main(flags: Flags) -> None:
    model = load(flags.model)
    precisions: list[Precision] = [one for one in ("fp32", "bf16", "fp16") if one in ("fp32", *flags.precisions)]
    for sampler, steps in SAMPLERS.items():
        settings = SamplingSettings(sampler=sampler, steps=steps)
        samples = {one: _samples(model, settings, one, flags.num_images) for one in precisions}
        for one in precisions:
            apart = (samples[one] - samples["fp32"]).square().flatten(1).mean(dim=1).sqrt()
            figures = f"RMS {_rms(samples[one]):.4f}, difference {_rms(apart):.4f}, largest {apart.max():.4f}"
            print(f"samples of {sampler} {steps}, {one}: {figures}", flush=True)
    images = _images(flags.validation, model.image_size, flags.num_images)
    for one in precisions:
        print(f"latents, {one}: error {_rms(_decoded(model, images, one) - images):.5f}", flush=True)
    for one in precisions if flags.num_steps else ():
        trained = _trained(model, one, flags)
        losses = [f"{_loss(trained, images, used):.5f} in {used}" for used in precisions]
        print(f"training in {one}: loss {', '.join(losses)}", flush=True)


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


def _images(folder: Path, size: int, number: int) -> Tensor:
    found = find_images([str(folder)])
    chosen = found[:: max(1, len(found) // number)][:number]
    return torch.cat([to_tensor(center_crop(decode(one.path).pixels, size)[None]) for one in chosen])


def _samples(model: DiffusionModel, settings: SamplingSettings, precision: Precision, number: int) -> Tensor:
    return trajectory.last(denoise(model, model.denoiser(settings, precision), range(number), settings))


def _decoded(model: DiffusionModel, images: Tensor, precision: Precision) -> Tensor:
    settings = SamplingSettings()
    process, network = model.process(settings.respacing), model.denoiser(settings, precision)
    x_T = trajectory.last(trajectory.invert("ddim", process, network, images))
    return trajectory.last(trajectory.sample("ddim", process, network, x_T))


def _trained(model: DiffusionModel, precision: Precision, flags: Flags) -> DiffusionModel:
    loop = LoopConfig(
        num_steps=flags.num_steps,
        batch_size=16,
        learning_rate=5e-4,
        ema_rates=(),
        precision=precision,
        save_every=50,
        evaluate_every=flags.num_steps,
    )
    config = DiffusionTraining(
        data=str(flags.data),
        network=architecture(model),
        process=trained_process(model),
        loop=loop,
        grid=GridConfig(num_images=1, num_sampling_steps=2),
    )
    train(DiffusionTask(config), loop, flags.out / precision)
    return load(flags.out / precision)


@torch.inference_mode()
def _loss(model: DiffusionModel, images: Tensor, precision: Precision) -> float:
    """The mean loss at timesteps that are evenly spread, with the same noise in every call."""
    generator, process = torch.Generator().manual_seed(0), model.process()
    noise = torch.randn(images.shape, generator=generator)
    t = torch.linspace(0, process.num_timesteps - 1, len(images)).long()
    network = model.denoiser(SamplingSettings(), precision)
    return float(training_losses(process, network, images, t, noise, "rescaled_mse")["loss"].mean())


if __name__ == "__main__":
    main(read_flags(Flags))
