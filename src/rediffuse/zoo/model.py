"""Complete models: a trained network with its process and provenance; loading and saving."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

import torch
from torch import Tensor

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.process import GaussianDiffusion
from rediffuse.errors import CheckpointError, ConfigError
from rediffuse.models.checkpoints import require_finite, require_fit
from rediffuse.models.config import AS_TRAINED, EncoderConfig, Kind, Precision, Preset, UNetConfig
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.frequency import GATES, FrequencyGate
from rediffuse.models.graphs import Replayed
from rediffuse.models.inference import for_inference
from rediffuse.models.layout import Layout
from rediffuse.models.lpips import LEAST_SIDE, read_lpips
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.find import find, find_pipeline
from rediffuse.zoo.folder import Found, Provenance, write_folder
from rediffuse.zoo.gates import with_gates
from rediffuse.zoo.hub import push_folder
from rediffuse.zoo.pipelines.autoencoder import Autoencoder
from rediffuse.zoo.pipelines.networks import PipelineNetwork
from rediffuse.zoo.pipelines.pipeline import read_pipeline
from rediffuse.zoo.pipelines.scheduler import SchedulerProcess
from rediffuse.zoo.published import DEFAULT

if TYPE_CHECKING:
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline

LOGGER = logging.getLogger(__name__)
OFFLOAD = "offload"
LPIPS = "lpips:"
"""Before the folder of the weights of LPIPS, in a list of models."""

_NETWORKS: Mapping[Kind, type[Any]] = {
    "unet": UNetModel,
    "superres": SuperResModel,
    "encoder": EncoderUNetModel,
}

DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

Network = TypeVar("Network", bound=UNetModel | SuperResModel | EncoderUNetModel | PipelineNetwork)


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainedModel(Generic[Network]):
    """Abstract: a network, the process on which it was trained, and its provenance."""

    network: Network
    process_config: ProcessConfig | SchedulerProcess
    provenance: Provenance
    training: Mapping[str, Any] = field(default_factory=dict)
    """The record of the training: any JSON values."""

    def __repr__(self) -> str:
        """Source and size, not the layers of the network."""
        parameters = sum(parameter.numel() for parameter in self.network.parameters())
        parts = [repr(self.provenance.source), self.kind, f"{self.image_size} px", f"{parameters:,} parameters"]
        return f"{type(self).__name__}({', '.join([*parts, str(self.device)])})"

    @property
    def kind(self) -> Kind:
        if isinstance(self.network, PipelineNetwork):
            return "unet"  # its use, also where it is a transformer
        return next(kind for kind, network in _NETWORKS.items() if isinstance(self.network, network))

    @property
    def image_size(self) -> int:
        """Side of the training images, in pixels; of a latent model that of the images, not of their latents."""
        return self.network.config.image_size * (self.autoencoder.factor if self.autoencoder else 1)

    @property
    def autoencoder(self) -> Autoencoder | None:
        """The autoencoder of a latent model; None for a model of images."""
        return self.network.autoencoder if isinstance(self.network, PipelineNetwork) else None

    @property
    def device(self) -> torch.device:
        if isinstance(self.network, PipelineNetwork):
            return self.network.device
        return next(self.network.parameters()).device

    def process(self, respacing: str = "") -> GaussianDiffusion:
        """The diffusion process on all timesteps, or on those of `respacing` (such as `"ddim20"` or `"250"`)."""
        return self.process_config.build(respacing)

    def to(self, device: torch.device | str) -> Self:
        """Move the network (in place, as torch does); returns the model."""
        self.network.to(device)
        return self

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write a model folder for `load`, with a model card (README.md); a card that a person wrote is not replaced.

        Args:
            folder: the folder, which is created if missing; a model in it is replaced.
            dtype: precision on disk; None keeps the network's. `load` converts half precision to float32.

        Raises:
            StorageError: the disk is full, or the folder cannot be written to.
            ConfigError: the model is a pipeline of diffusers.
        """
        write_folder(folder, self._found(), dtype)

    def push_to_hub(
        self,
        repository: str,
        *,
        dtype: torch.dtype | None = None,
        private: bool | None = None,
        token: str | None = None,
    ) -> str:
        """Upload the files of `save` to the Hugging Face hub; returns the commit's address.

        Args:
            repository: `owner/name`, created if missing; then `load("owner/name")` loads the model. A model card that
                a person wrote is not replaced.
            dtype: as in `save`.
            private: whether a new repository is visible only to its owner; None is the owner's default.
            token: an access token; None uses the login of `hf auth login`.

        Raises:
            StorageError: the hub refuses the upload, or cannot be reached.
        """
        with TemporaryDirectory() as folder:
            write_folder(Path(folder), self._found(), dtype, name=repository)
            return push_folder(Path(folder), repository, private=private, token=token)

    def _found(self) -> Found:
        if isinstance(self.network, PipelineNetwork) or isinstance(self.process_config, SchedulerProcess):
            raise ConfigError(f"{self.provenance.source}: is a pipeline of diffusers, which its save_pretrained writes")
        layout = Layout(source=self.provenance.source, kind=self.kind, fields=vars(self.network.config), unknown=())
        return Found(
            layout=layout,
            process=self.process_config,
            training=self.training,
            state=self.network.state_dict(),
            provenance=self.provenance,
        )


class NetworkSettings(Protocol):
    """The settings of a call of the network: `DireSettings` and `SamplingSettings` have them."""

    @property
    def frequency(self) -> str: ...
    @property
    def prompt(self) -> str: ...
    @property
    def guidance_scale(self) -> float: ...


@dataclass(frozen=True, kw_only=True, repr=False)
class DiffusionModel(TrainedModel[UNetModel | SuperResModel | PipelineNetwork]):
    """A denoising network and its process.

    Raises ConfigError where the network's output channels do not fit the process's variance.
    """

    def __post_init__(self) -> None:
        config = self.network.config
        needed = config.in_channels * (2 if self.process_config.learns_variance else 1)
        if config.out_channels != needed:
            raise ConfigError(
                f"variance={self.process_config.variance!r} of {config.in_channels} channels "
                f"needs out_channels={needed}, but the network has {config.out_channels}: as many outputs as "
                "inputs fit fixed_small and fixed_large, twice as many learned and learned_range"
            )

    @property
    def num_classes(self) -> int | None:
        """Number of classes of a class-conditional model; None for an unconditional one."""
        return self.network.config.num_classes

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one x_t: (C, S, S), with as many sides as the network has dimensions."""
        config = self.network.config
        return (config.in_channels, *[config.image_size] * config.dims)

    @property
    def image_channels(self) -> int:
        """Channels of the images, not of their latents."""
        return 3 if self.autoencoder else self.network.config.in_channels

    def encode(self, images: Tensor) -> Tensor:
        """The x_0 of the process: the latents (N, C, s, s) of images (N, 3, S, S), or the images themselves."""
        return self.autoencoder.encode(images) if self.autoencoder else images

    def decode(self, x_0: Tensor, *, clip: bool) -> Tensor:
        """The inverse of `encode`, on the model's device; with `clip` decoded images are clipped to [-1, 1]."""
        if self.autoencoder is None:
            return x_0
        images = self.autoencoder.decode(x_0)
        return images.clamp(-1, 1) if clip else images

    def autoencode(self, images: Tensor, *, clip: bool) -> tuple[Tensor, Tensor]:
        """Images after encoding and decoding, and their latents by the first autoencoder.

        Of several autoencoders each image keeps the result with the smallest distance (arXiv:2401.17879, Eq. 3): LPIPS
        in the second layer of VGG16, or the mean absolute error where the model has no LPIPS.

        Args:
            images: (N, 3, S, S) in [-1, 1], on the model's device.
            clip: clip the decoded images to [-1, 1].
        """
        assert isinstance(self.network, PipelineNetwork)
        latents = [autoencoder.encode(images) for autoencoder in self.network.autoencoders]
        pairs = zip(self.network.autoencoders, latents, strict=True)
        decoded = torch.stack([autoencoder.decode(z) for autoencoder, z in pairs])  # (K, N, 3, S, S)
        decoded = decoded.clamp(-1, 1) if clip else decoded
        lpips = self.network.lpips
        if lpips is None:
            distances = (decoded - images).abs().flatten(2).mean(dim=2)  # (K, N)
        else:
            distances = torch.stack([lpips(images, one)[:, 1] for one in decoded])
        best = distances.nan_to_num(nan=torch.inf).argmin(dim=0)  # (N,); an autoencoder that overflows is not chosen
        return decoded[best, torch.arange(len(images), device=images.device)], latents[0]

    def lpips(self, images: Tensor, others: Tensor) -> Tensor | None:
        """The distances of images by layer (`models.lpips.Lpips`), (N, 5); None for a model without LPIPS."""
        lpips = self.network.lpips if isinstance(self.network, PipelineNetwork) else None
        return None if lpips is None else lpips(images, others)

    def require_rgb_unet(self, purpose: str) -> None:
        """Raise ConfigError unless the network is a U-Net of RGB images.

        Args:
            purpose: the intended use, for the error, such as "reconstruct images".
        """
        channels, dims = self.image_channels, self.network.config.dims
        if self.kind != "unet" or dims != 2 or channels != 3:
            raise ConfigError(
                f"{self.provenance.source}: a {self.kind} of {channels} channels in {dims} dimensions "
                f"cannot {purpose}; a unet of 3 channels in 2 dimensions can"
            )

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None, **options: Any) -> "DiffusionModel":
        """The same as `load`, under the usual name in libraries for the Hugging Face hub.

        Args:
            source: see `load`.
            revision: a branch, a tag or a commit of a model on the hub.
            options: other arguments of `load`.
        """
        return load(source if revision is None else f"{source}@{revision}", **options)

    def check_settings(self, settings: "NetworkSettings") -> None:
        """Raise ConfigError if the model has no such filter of skip connections, no prompts, or no such guidance."""
        frequency, prompt, guidance_scale = settings.frequency, settings.prompt, settings.guidance_scale
        if isinstance(self.network, PipelineNetwork):
            if Preset.parse(frequency) != AS_TRAINED:
                raise ConfigError(
                    f"frequency={frequency}: the network of a pipeline has no such filter; trained is allowed"
                )
            self.network.prompted(prompt, guidance_scale)
        elif prompt or guidance_scale != 1:
            given = f"prompt={prompt}" if prompt else f"guidance_scale={guidance_scale}"
            raise ConfigError(f"{given}: {self.provenance.source} is a model without prompts")

    def denoiser(self, settings: "NetworkSettings", precision: Precision = "fp32") -> Callable[..., Tensor]:
        """The network as a function for samplers, under the settings of a reconstruction or a sample, at a precision.

        It is a copy of the network for inference (`models.inference.for_inference`), to be made once per job and not
        used after a change of the weights. On a GPU its calls become a CUDA graph (`models.graphs`). The network of a
        pipeline is not copied, but called in autocast.

        Args:
            settings: the filter of the skip connections, prompt and guidance.
            precision: of convolutions and attention; inputs, outputs and everything else are float32.

        Raises:
            ConfigError: see `check_settings`.
        """
        self.check_settings(settings)
        if isinstance(self.network, PipelineNetwork):
            return _in_autocast(self.network.prompted(settings.prompt, settings.guidance_scale), precision)
        network = for_inference(self.network, DTYPES[precision])
        preset = Preset.parse(settings.frequency)
        call = network if preset == AS_TRAINED else partial(network, frequency=preset)
        return Replayed(call) if self.device.type == "cuda" else call


def _in_autocast(network: Callable[..., Tensor], precision: Precision) -> Callable[..., Tensor]:
    if precision == "fp32":
        return network

    def in_half(x_t: Tensor, timesteps: Tensor, **conditioning: Any) -> Tensor:
        with torch.autocast(x_t.device.type, dtype=DTYPES[precision]):
            return network(x_t, timesteps, **conditioning).float()

    return in_half


@dataclass(frozen=True, kw_only=True, repr=False)
class ClassifierModel(TrainedModel[EncoderUNetModel]):
    """A classifier of noisy images with its noise process, for classifier guidance."""

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None, **options: Any) -> "ClassifierModel":
        """The same as `load_classifier`; arguments as in `DiffusionModel.from_pretrained`."""
        return load_classifier(source if revision is None else f"{source}@{revision}", **options)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.network.config.out_channels


def load(
    source: "str | Path | DiffusionPipeline" = DEFAULT,
    *,
    device: torch.device | str = "cpu",
    network: Mapping[str, Any] | None = None,
    process: ProcessConfig | None = None,
    frequency: Path | None = None,
    cache: Path | None = None,
) -> DiffusionModel:
    """Load a diffusion model in eval mode and float32.

    Args:
        source: `"default"`; the name of a published model that was downloaded; a model folder; the run folder of a
            finished training; a `.pt` or `.safetensors` file; or `owner/name` on the Hugging Face hub, which is
            downloaded (`owner/name@revision` for a branch, a tag or a commit). A published name has priority over an
            existing path, and a path over a name on the hub. A folder or a name on the hub may also be a pipeline of
            diffusers, or its autoencoder (`owner/name/vae`); a pipeline object itself is allowed too (docs/models.md).
            Several names of latent models, separated by commas, are autoencoders for
            `DireSettings.solver="autoencoder"`; one of the names may be `lpips:FOLDER` (`models.lpips.read_lpips`).
        device: the device of the network; `"auto"` is the machine's accelerator, or the CPU if it has none.
            `"offload"` and `"offload:DEVICE"` keep the parts of a pipeline of diffusers in main memory, and move each
            to the device while it computes, which needs less memory there and more time.
        network: only for a file of weights: the fields of `UNetConfig`, and `kind`, that its tensors do not determine
            (`models.layout.infer`). A file with the name of a published file needs none. The field `frequency` adds
            spectral gates, which have no effect until they are trained.
        process: only for a file of weights: the process on which the network was trained.
        frequency: a file of trained spectral gates (`frequency.safetensors`) for this model.
        cache: the folder of downloads; None is `fetch.default_cache()`, and for the hub its own cache.

    Raises:
        InputError: there is no such file, folder or model, or a published model is not downloaded yet.
        CheckpointError: the weights are damaged, changed, of another architecture, or those of a classifier.
        ConfigError: a configuration is wrong, or a field of the network must be given.
        FetchError: the hub does not have the model, or cannot be reached.
    """
    if not isinstance(source, str | Path):
        return _from_pipeline(source, type(source).__name__, device)
    if "," in str(source) and not Path(source).exists():
        return _joined_of(str(source).split(","), device, cache)
    located = find_pipeline(source, cache)
    if located:
        if network or process or frequency:
            raise ConfigError(f"{source}: is a pipeline of diffusers, which takes no network, process or frequency")
        return _from_pipeline(*located, device)
    found = find(source, network, process, cache)
    if found.layout.kind == "encoder":
        raise CheckpointError(f"{source}: a classifier, not a diffusion model; use load_classifier")
    if frequency is not None:
        found = with_gates(found, frequency)
    loaded, process = _network(found, device, new_gates="frequency" in (network or {}))
    assert not isinstance(loaded, EncoderUNetModel)
    return DiffusionModel(network=loaded, process_config=process, provenance=found.provenance, training=found.training)


def load_classifier(
    source: str | Path,
    *,
    device: torch.device | str = "cpu",
    network: Mapping[str, Any] | None = None,
    process: ProcessConfig | None = None,
    cache: Path | None = None,
) -> ClassifierModel:
    """Load a classifier of noisy images; arguments and errors are those of `load`."""
    found = find(source, network, process, cache)
    if found.layout.kind != "encoder":
        raise CheckpointError(f"{source}: a diffusion model, not a classifier; use load")
    loaded, process = _network(found, device, new_gates="frequency" in (network or {}))
    assert isinstance(loaded, EncoderUNetModel)
    return ClassifierModel(network=loaded, process_config=process, provenance=found.provenance, training=found.training)


def meta_network(kind: Kind, config: UNetConfig | EncoderConfig) -> UNetModel | SuperResModel | EncoderUNetModel:
    """The network on the meta device: its tensors have names and shapes, but no values."""
    with torch.device("meta"):
        return _NETWORKS[kind](config)


def resolve_device(device: torch.device | str) -> torch.device:
    """The device of a flag: `"auto"` is the machine's accelerator, or the CPU if it has none.

    Raises ConfigError if torch does not support the device.
    """
    if str(device).partition(":")[0] == OFFLOAD:
        raise ConfigError(f"device={device}: only the parts of pipelines of diffusers can be moved while they are used")
    if device == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device={device}: {str(error).splitlines()[0]}") from None


def _from_pipeline(source: "Path | DiffusionPipeline", name: str, device: torch.device | str) -> DiffusionModel:
    kind, _, place = str(device).partition(":")
    offloads = kind == OFFLOAD
    pipeline = read_pipeline(source, name, resolve_device(place or "auto" if offloads else device), offloads=offloads)
    return DiffusionModel(network=pipeline.network, process_config=pipeline.process, provenance=pipeline.provenance)


def _joined_of(names: Sequence[str], device: torch.device | str, cache: Path | None) -> DiffusionModel:
    """Several latent models, and LPIPS if it is one of the names."""
    folders = [name.removeprefix(LPIPS) for name in names if name.startswith(LPIPS)]
    models = [load(name, device=device, cache=cache) for name in names if not name.startswith(LPIPS)]
    if len(folders) > 1 or not models:
        raise ConfigError(f"{','.join(names)}: one {LPIPS}FOLDER and at least one latent model are needed")
    joined = _joined(models)
    if not folders:
        return joined
    network, sha256 = read_lpips(Path(folders[0]))
    if joined.image_size < LEAST_SIDE:
        raise ConfigError(f"{LPIPS}{folders[0]}: at least {LEAST_SIDE} px are needed; images have {joined.image_size}")
    assert isinstance(joined.network, PipelineNetwork)
    joined.network.lpips = network.to(joined.device)
    both = f"{joined.provenance.sha256}\n{sha256}\n"
    provenance = Provenance(
        source=",".join([joined.provenance.source, f"{LPIPS}{folders[0]}"]),
        sha256=hashlib.sha256(both.encode()).hexdigest(),
        parts={**joined.provenance.parts, "lpips": sha256},
    )
    return replace(joined, provenance=provenance)


def _joined(models: Sequence[DiffusionModel]) -> DiffusionModel:
    """The first of several latent models, with the autoencoders of all."""
    first = models[0]
    for model in models:
        autoencoder = model.autoencoder
        if autoencoder is None:
            raise ConfigError(f"{model.provenance.source}: has no autoencoder; several models must be latent models")
        if first.image_size % autoencoder.factor:
            raise ConfigError(
                f"{model.provenance.source}: images of {first.image_size} px, the size of {first.provenance.source}, "
                f"are not a multiple of {autoencoder.factor}, the factor of its autoencoder"
            )
        assert isinstance(first.network, PipelineNetwork)
        if model is not first:
            first.network.add(autoencoder)
    lines = "".join(f"{model.provenance.sha256}\n" for model in models)
    provenance = Provenance(
        source=",".join(model.provenance.source for model in models),
        sha256=hashlib.sha256(lines.encode()).hexdigest(),
        parts={model.provenance.source: model.provenance.sha256 for model in models},
    )
    return replace(first, provenance=provenance)


def _network(
    found: Found, device: torch.device | str, *, new_gates: bool
) -> tuple[UNetModel | SuperResModel | EncoderUNetModel, ProcessConfig]:
    """Build the network on the meta device, which skips the initialisation, and load the weights on `device`."""
    network = meta_network(found.layout.kind, found.layout.config())
    assert found.process is not None  # if it is unknown, the line above raises
    state = dict(found.state)
    adds_gates = new_gates and not any(name.startswith(GATES) for name in state)
    gates = {name: tensor for name, tensor in network.state_dict().items() if adds_gates and name.startswith(GATES)}
    # Before memory is taken: the configuration may ask for more than the file holds.
    require_fit(network, state | gates, found.provenance.source)
    require_finite(state, found.provenance.source)
    try:
        network.to_empty(device=resolve_device(device))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device}: {str(error).splitlines()[0]}") from None
    if adds_gates:
        for gate in network.frequency:
            assert isinstance(gate, FrequencyGate)
            gate.reset_parameters()
        state |= {name: tensor for name, tensor in network.state_dict().items() if name.startswith(GATES)}
    network.load_state_dict(state)
    LOGGER.debug(
        "loaded %s (%s) from %s to %s", found.layout.kind, found.provenance.sha256[:8], found.provenance.source, device
    )
    return network.eval(), found.process
