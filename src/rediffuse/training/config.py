"""The settings of a training run, as dataclasses. Imports no torch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import ConfigError
from rediffuse.images.limits import Decoding
from rediffuse.models.config import EncoderConfig, Precision, UNetConfig
from rediffuse.records import require_range

Decay = Literal["none", "linear", "cosine"]
Only = Literal["frequency"]
"""Parts of a network that can be trained alone."""
LossName = Literal["mse", "rescaled_mse", "kl", "rescaled_kl"]
TimestepSampler = Literal["uniform", "low_noise", "loss_second_moment"]

FREE_FIELDS = frozenset(
    {"num_steps", "num_workers", "log_every", "save_every", "evaluate_every", "keep", "cache_limit_mb", "device"}
    | {"max_pixels"}
    | {"data", "labels", "validation", "validation_labels"}
)
"""Fields that may change when a run is resumed: they do not change the result of a training step.

The folder of images and the limit of their size may change, because the data that were read are compared by a
fingerprint of names and labels. Validation does not
affect the weights.
"""


def _check_takes_images(network: UNetConfig | EncoderConfig) -> None:
    for name, needed in (("dims", 2), ("in_channels", 3)):
        given = getattr(network, name)
        if given != needed:
            raise ConfigError(f"{name}={given}: {needed} is needed: images have two dimensions and three channels")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The settings of the training loop, common to all trainings."""

    num_steps: int
    """Optimiser steps of the whole run."""
    batch_size: int = 64
    """Images per step, over all processes together."""
    microbatch: int | None = None
    """Images per forward pass on one process; all of the process's share at once if not given."""
    learning_rate: float = 1e-4
    """Learning rate of AdamW, once warmed up."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    decay: Decay = "none"
    """How the learning rate falls to 0 from the end of the warm-up to the last step."""
    clip_norm: float | None = None
    """Clip the norm of the whole gradient at this value; not at all if not given."""
    ema_rates: tuple[float, ...] = (0.9999,)
    """Rates of the exponential moving averages of the weights; the first one is evaluated and exported."""
    precision: Precision = "fp32"
    """Number format of the forward and backward pass; weights and optimiser are fp32. fp16 scales the loss."""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU where there is one."""
    seed: int = 0
    """Random seed of weights, data order, crops, timesteps, noise and dropout."""
    num_workers: int = 0
    """Processes that read images that do not fit the cache; 0: a thread reads them while the network computes."""
    log_every: int = 50
    """Steps between two lines of the log (metrics.jsonl)."""
    save_every: int = 1000
    """Steps between two checkpoints."""
    evaluate_every: int = 1000
    """Steps between two sample grids (or validations)."""
    keep: int = 2
    """Number of checkpoints that are kept, the newest ones."""
    max_bad_steps: int = 20
    """Consecutive steps without a finite loss and gradient after which the run stops."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "log_every", "save_every", "evaluate_every", "keep", "max_bad_steps"):
            require_range(name, getattr(self, name), 1)
        for name in ("warmup_steps", "num_workers", "seed", "weight_decay"):
            require_range(name, getattr(self, name), 0)
        if self.microbatch is not None:
            require_range("microbatch", self.microbatch, 1)
        for name in ("learning_rate", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise ConfigError(f"{name}={value}: more than 0 is needed")
        if len(set(self.ema_rates)) != len(self.ema_rates):
            raise ConfigError(f"ema_rates={self.ema_rates}: every rate can be given once")
        for rate in self.ema_rates:
            if not 0 <= rate < 1:
                raise ConfigError(f"ema_rates={self.ema_rates}: at least 0 and less than 1 is needed")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of step number `step`, counted from 0. It depends on nothing else, so it needs no state."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        if self.decay == "none":
            return self.learning_rate
        progress = (step - self.warmup_steps) / max(1, self.num_steps - self.warmup_steps)
        factor = 1 - progress if self.decay == "linear" else (1 + math.cos(math.pi * progress)) / 2
        return self.learning_rate * factor


@dataclass(frozen=True, kw_only=True)
class ImageConfig(Decoding):
    """How images are read and cropped."""

    random_crop: bool = False
    """Cut a random square out of each image instead of the middle one."""
    random_flip: bool = True
    """Mirror images at random, half of them."""
    cache_limit_mb: int = 2048
    """Keep decoded images in memory if all of them fit into so many MB."""

    def __post_init__(self) -> None:
        require_range("cache_limit_mb", self.cache_limit_mb, 0)


@dataclass(frozen=True, kw_only=True)
class GridConfig:
    """The grid of samples that a training writes at intervals, always from the same noise."""

    num_images: int = 64
    """Images in the grid."""
    num_sampling_steps: int = 50
    """DDIM steps for the grid."""

    def __post_init__(self) -> None:
        require_range("num_images", self.num_images, 1)
        require_range("num_sampling_steps", self.num_sampling_steps, 1)


@dataclass(frozen=True, kw_only=True)
class DiffusionTraining:
    """All settings of the training of a diffusion model; recipes return it, and `config.json` of a run stores it."""

    data: str
    """Folder of images, searched recursively; its subfolders name the classes."""
    labels: str | None = None
    """CSV file with the columns path (relative to the folder) and label, instead of the subfolders."""
    network: UNetConfig
    process: ProcessConfig
    loop: LoopConfig
    images: ImageConfig = field(default_factory=ImageConfig)
    grid: GridConfig = field(default_factory=GridConfig)
    loss: LossName = "mse"
    """mse and rescaled_mse are hybrid losses where the variance is learned; kl is the variational bound."""
    timestep_sampler: TimestepSampler = "uniform"
    """How timesteps are drawn: all alike, more often those with little noise, or those with large losses."""
    only: Only | None = None
    """Train only the network's spectral gates; --init gives the rest of the network, which stays frozen."""

    def __post_init__(self) -> None:
        _check_takes_images(self.network)
        if self.only == "frequency" and self.network.frequency is None:
            raise ConfigError("only=frequency: the network has no spectral gates (frequency=None)")
        channels = self.network.in_channels * (2 if self.process.learns_variance else 1)
        if self.network.out_channels != channels:
            raise ConfigError(
                f"out_channels={self.network.out_channels}: {channels} are needed with variance {self.process.variance}"
            )


@dataclass(frozen=True, kw_only=True)
class SuperResTraining(DiffusionTraining):
    """All settings of the training of a super-resolution model, which also gets a small version of every image."""

    small_size: int
    """Side of the small images, in pixels; `image_size` is that of the large ones."""
    validation: str | None = None
    """Folder of images for the grid and its PSNR; training images if not given."""
    validation_labels: str | None = None
    """As `labels`, for the validation images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.small_size < self.network.image_size:
            raise ConfigError(
                f"small_size={self.small_size}: at least 1 and less than image_size={self.network.image_size} is needed"
            )


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining:
    """All settings of the training of a classifier of noisy images."""

    data: str
    """Folder of images, searched recursively; its subfolders name the classes."""
    labels: str | None = None
    """CSV file with the columns path (relative to the folder) and label, instead of the subfolders."""
    validation: str | None = None
    """Folder of images, with classes of the training, for the loss and accuracy every `evaluate_every` steps."""
    validation_labels: str | None = None
    """As `labels`, for the validation images."""
    network: EncoderConfig
    process: ProcessConfig
    """The noise schedule; a classifier does not use the other fields."""
    loop: LoopConfig
    images: ImageConfig = field(default_factory=ImageConfig)
    clean: bool = False
    """Train on images without noise (t = 0) instead of on all noise levels."""

    def __post_init__(self) -> None:
        _check_takes_images(self.network)
