"""The networks of pipelines as the callable of rediffuse's own networks: (x_t, timesteps, y) -> prediction."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rediffuse.errors import ConfigError
from rediffuse.models.lpips import Lpips
from rediffuse.zoo.pipelines.autoencoder import Autoencoder
from rediffuse.zoo.pipelines.families import AUTOENCODERS, Conditioning, Family

if TYPE_CHECKING:
    from rediffuse.zoo.pipelines.offload import Offload


@dataclass(frozen=True, kw_only=True)
class PipelineNetworkConfig:
    """The facts about a network that other modules read, under the names of `UNetConfig`."""

    image_size: int
    """Side of x_t, of an image or a latent."""
    in_channels: int
    out_channels: int
    num_classes: int | None = None
    """Number of classes; None for an unconditional network."""
    dims: int = 2


class PipelineNetwork(nn.Module):
    """The networks of a pipeline, with rediffuse's signature."""

    def __init__(
        self,
        network: Any,
        family: Family,
        *,
        pipeline: Any,
        autoencoder: Autoencoder | None,
        flow_timesteps: int | None,
        has_variance: bool,
    ) -> None:
        """Wrap the networks of a pipeline.

        Args:
            network: the denoising network.
            family: how it is called.
            pipeline: a pipeline that encodes prompts; None without prompts.
            autoencoder: that of latents; None for a network of images.
            flow_timesteps: T of a flow (`scheduler.SchedulerProcess.is_flow`); None for another process.
            has_variance: whether the variance that the network predicts is part of the output; otherwise it is ignored,
                as in diffusers.

        Raises:
            ConfigError: the size or the channels are not those of a denoising network of square images or latents.
        """
        super().__init__()
        kind, config = type(network).__name__, network.config
        channels, side = family.shape(config, autoencoder)
        predicted = (config.get("out_channels") or config.in_channels) // family.packing**2
        if predicted not in (channels, 2 * channels):
            raise ConfigError(
                f"{kind}: has {channels} channels and predicts {predicted}; {channels}, or {2 * channels} with a "
                "variance, are allowed"
            )
        if autoencoder is not None and autoencoder.channels != channels:
            raise ConfigError(f"{kind}: has {channels} channels, but the latents have {autoencoder.channels}")
        if not isinstance(side, int) or side % family.packing:
            multiple = f", a multiple of {family.packing}," if family.packing > 1 else ""
            raise ConfigError(f"{kind}: sample_size={side}; the side of a square{multiple} is needed")
        for part in network.modules():
            if isinstance(part, nn.RMSNorm):
                part.register_forward_pre_hook(_in_the_precision_of_weights)
        self.network, self._family = network, family
        self._autoencoders = nn.ModuleList([] if autoencoder is None else [autoencoder])
        parts = {} if pipeline is None else pipeline.components
        self._pipeline, self._flow_timesteps = pipeline, flow_timesteps
        self._embeds_guidance: bool = config.get("guidance_embeds") or False
        self.text_encoders = nn.ModuleDict({name: part for name, part in parts.items() if name.startswith("text_")})
        self._conditioning: dict[str | None, Conditioning] = {}
        self.lpips: Lpips | None = None
        """The distance by which the best of several autoencoders is chosen; None for the mean absolute error."""
        self.offload: Offload | None = None
        """Moves the parts to a device and back, if they are in main memory; see `offload_to`."""
        self.config = PipelineNetworkConfig(
            image_size=side,
            in_channels=channels,
            out_channels=2 * channels if has_variance else channels,
            num_classes=family.num_classes(config),
        )

    @property
    def denoises(self) -> bool:
        """Whether there is a denoising network, and not an autoencoder alone."""
        return self._family is not AUTOENCODERS

    @property
    def autoencoder(self) -> Autoencoder | None:
        """The autoencoder of the latents; None for a network of images."""
        return next(iter(self.autoencoders), None)

    @property
    def autoencoders(self) -> list[Autoencoder]:
        """That of the latents, and others for reconstructions by autoencoders alone."""
        return [one for one in self._autoencoders if isinstance(one, Autoencoder)]

    @property
    def device(self) -> torch.device:
        """Where the networks compute."""
        return next(self.parameters()).device if self.offload is None else self.offload.execution_device

    def offload_to(self, device: torch.device) -> None:
        """Compute on a device, but keep the parts in main memory, except for the part that is in use."""
        from rediffuse.zoo.pipelines.offload import Offload  # accelerate takes half a second to import

        self.offload = Offload(device)
        for part in (self.network, *self.text_encoders.values(), *(one.network for one in self.autoencoders)):
            self.offload.attach(part)

    def add(self, autoencoder: Autoencoder) -> None:
        """Add an autoencoder for reconstructions by autoencoders alone."""
        self._autoencoders.append(autoencoder)
        if self.offload is not None:
            self.offload.attach(autoencoder.network)

    def forward(
        self, x_t: Tensor, timesteps: Tensor, *, y: Tensor | None = None, prompt: str = "", guidance_scale: float = 1.0
    ) -> Tensor:
        """The prediction (N, C, S, S), or (N, 2C, S, S) with a variance, from x_t (N, C, S, S).

        Args:
            x_t: see above.
            timesteps: (N,), of the training chain.
            y: (N,) classes, for a class-conditional network.
            prompt: the text, for a network with prompts.
            guidance_scale: see `prompted`.
        """
        if self._flow_timesteps is not None:
            # A flow (arXiv:2403.03206, Eq. 13) is x = (1 - s) x_0 + s eps. Divided by the norm of the two factors it is
            # x_t of a process with alpha_bar = (1 - s)^2 / norm^2.
            s = (timesteps / self._flow_timesteps).view(-1, 1, 1, 1)
            x_t = x_t * ((1 - s) ** 2 + s**2).sqrt()
        if self.calls_per_step(guidance_scale) == 1:
            return self._predict(x_t, timesteps, y, [prompt], guidance_scale)
        # Classifier-free guidance (arXiv:2207.12598), Eq. 6 with w = scale - 1: without prompt or class, then with it
        both = None if y is None else torch.cat([torch.full_like(y, self.config.num_classes or 0), y])
        output = self._predict(
            torch.cat([x_t, x_t]), torch.cat([timesteps, timesteps]), both, [None, prompt], guidance_scale
        )
        without, given = output.chunk(2)
        return without + guidance_scale * (given - without)

    def prompted(self, prompt: str, guidance_scale: float) -> Callable[..., Tensor]:
        """The network under a prompt.

        Args:
            prompt: the text; empty for a network without prompts.
            guidance_scale: 1 is the prediction given the prompt or class; a larger scale moves it away from the
                prediction without them, with twice the network calls. An input of a network that embeds it.

        Raises:
            ConfigError: the network has no prompts, or no prediction without its class; or there is no network.
        """
        if not self.denoises or len(self.autoencoders) > 1:
            raise ConfigError("autoencoders alone: only solver=autoencoder can use them")
        if prompt and self._family.encode is None:
            raise ConfigError(f"prompt={prompt}: this model has no prompts")
        if guidance_scale != 1 and self._family.encode is None and not self._family.has_null_class:
            raise ConfigError(f"guidance_scale={guidance_scale}: this model has no prompts; 1 is allowed")
        for text in (prompt, None)[: self.calls_per_step(guidance_scale)]:
            self._encoded(text)
        return partial(self, prompt=prompt, guidance_scale=guidance_scale)

    def calls_per_step(self, guidance_scale: float) -> int:
        """How often the network is called for one prediction."""
        return 1 if guidance_scale == 1 or self._embeds_guidance else 2

    def _predict(
        self, x_t: Tensor, timesteps: Tensor, y: Tensor | None, prompts: list[str | None], guidance_scale: float
    ) -> Tensor:
        """The prediction of rows that have the prompts in turn, each for an equal number of rows."""
        encoded, each = [self._encoded(prompt) for prompt in prompts], len(x_t) // len(prompts)
        # A pipeline object may be in half precision.
        x = x_t.to(next(self.network.parameters()).dtype)
        given = {
            name: torch.cat([one[name].expand(each, *one[name].shape[1:]) for one in encoded]).to(x)
            for name in encoded[0]
        }
        if self._embeds_guidance:
            given["guidance"] = x.new_full((len(x),), guidance_scale)
        output = self._family.call(self.network, x, timesteps, y, given)
        return output[:, : self.config.out_channels].to(x_t.dtype)

    def _encoded(self, prompt: str | None) -> Conditioning:
        if self._family.encode is None:
            return {}
        if prompt not in self._conditioning:
            side = self.config.image_size * (self.autoencoder.factor if self.autoencoder else 1)
            with torch.no_grad():
                self._conditioning[prompt] = self._family.encode(self._pipeline, prompt, self.device, side)
        return self._conditioning[prompt]


def _in_the_precision_of_weights(norm: nn.RMSNorm, inputs: tuple[Tensor]) -> tuple[Tensor]:
    """Inputs of a normalisation as in autocast for layers of `nn.LayerNorm`; torch warns of another precision."""
    return inputs if norm.weight is None else (inputs[0].to(norm.weight.dtype),)
