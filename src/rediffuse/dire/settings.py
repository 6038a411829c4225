"""The settings of a reconstruction, which are stored with every map and detector."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Self

from rediffuse.diffusion.config import EVEN, MOST_TIMESTEPS, check_guidance_scale, respacing
from rediffuse.diffusion.samplers import get_sampler
from rediffuse.errors import ConfigError, SettingsMismatch
from rediffuse.images.config import num_windows
from rediffuse.models.config import LARGEST_IMAGE, Precision, Preset
from rediffuse.records import added_field, require_range

if TYPE_CHECKING:
    from rediffuse.zoo.model import DiffusionModel

AUTOENCODER = "autoencoder"
Grid = Literal["compat", "aligned"]
Kind = Literal["maps", "reconstructions", "latents"]
"""The parts of a reconstruction that a job can store."""
MapFormat = Literal["png16", "safetensors"]
"""The format of stored maps: 16 bits, with an error of at most 1/65535, or exact."""
StoreForm = Literal["files", "shards"]
"""Each result as a file of its own, or those of many images in a tar file (`shards.Shards`)."""


@dataclass(frozen=True, kw_only=True)
class DireSettings:
    """All settings on which the reconstruction error of an image depends."""

    image_size: int
    """Side of the network's input, in pixels."""
    model_sha256: str
    """SHA-256 of the weights."""
    solver: str = "ddim"
    """The sampler that inverts and reconstructs the image; it must draw no noise. `autoencoder`: only encode and decode
    the image with the autoencoder of a latent model (AEROBLADE, arXiv:2401.17879), whatever `steps` and `depth`."""
    steps: int = 20
    """Length of the timestep grid; with even spacing it must divide the training chain into equal strides (`ddimN`)."""
    spacing: str = added_field(EVEN)
    """The spacing of the timesteps; see `SamplingSettings.spacing`."""
    depth: int | None = None
    """Number of steps of the inversion, and of the sampling back (the original's `real_step`); None is all steps."""
    clip: bool = True
    """Clip the predicted x_0 to [-1, 1] in every step; of a latent model only the decoded image."""
    precision: Precision = "fp32"
    grid: Grid = "compat"
    """`compat`: the original's inversion grid, shifted by one step; only for the solver ddim. `aligned`: the reversed
    sampling grid."""
    crop: str = "center"
    """`center`: scale the shorter side to `image_size` and cut out the middle. `squash`: scale both sides.
    `windows:N`: up to N windows of the image, cut without resampling (`images.windows.textured_windows`)."""
    frequency: str = "trained"
    """The filter of the skip connections, in inversion and sampling: a preset of `models.config.Preset`."""
    second_view: bool = False
    """Also reconstruct the image without its middle frequencies (`bands.without_middle`): twice the network calls."""
    prompt: str = added_field("")
    """The text of inversion and sampling, for a model with prompts."""
    guidance_scale: float = added_field(1.0)
    """See `SamplingSettings.guidance_scale`; a scale other than 1 needs twice the network calls."""
    model_revision: str | None = field(default=None, compare=False)
    """The commit of a model of the hub. Equal weights are equal settings, whatever their commit."""
    model_parts: Mapping[str, str] = field(default_factory=dict, compare=False)
    """The SHA-256 of each part of a pipeline, by name; `model_sha256` is computed from them."""

    def __post_init__(self) -> None:
        require_range("steps", self.steps, 1, MOST_TIMESTEPS)
        if self.depth is not None and not 1 <= self.depth <= self.steps:
            raise ConfigError(f"depth={self.depth}: from 1 to steps={self.steps} are allowed")
        require_range("image_size", self.image_size, 1, LARGEST_IMAGE)
        num_windows(self.crop)  # a crop that is none is refused here
        Preset.parse(self.frequency)
        check_guidance_scale(self.guidance_scale)
        if self.solver != AUTOENCODER:
            get_sampler("solver", self.solver, inverts=True)
        assert self.respacing  # raises an error for a wrong spacing
        if self.grid == "compat" and self.solver not in ("ddim", AUTOENCODER):
            raise ConfigError(f"grid=compat: is only for solver=ddim; solver={self.solver} needs grid=aligned")

    @classmethod
    def for_model(cls, model: "DiffusionModel", **fields: Any) -> Self:
        """The settings of a reconstruction with `model`.

        Args:
            model: gives `image_size`, `model_sha256`, `model_revision` and `model_parts`.
            fields: other fields by name; each has a default.

        Raises:
            ConfigError: the model is not a U-Net of RGB images, a value is not allowed, or no integer stride gives
                `steps` timesteps of the model's chain.
        """
        model.require_rgb_unet("reconstruct images")
        settings = cls(**facts_of(model), **fields)
        if settings.solver != AUTOENCODER:  # these raise an error for what the model cannot do now, not during a job
            model.process(settings.respacing)
            model.check_settings(settings)
        elif model.autoencoder is None:
            raise ConfigError(f"solver={AUTOENCODER}: {model.provenance.source} has no autoencoder; a latent model has")
        return settings

    @property
    def num_windows(self) -> int | None:
        """N of `crop="windows:N"`: the most windows that an image has; None where a whole image is reconstructed."""
        return num_windows(self.crop)

    @property
    def respacing(self) -> str:
        """The grid as an argument of `ProcessConfig.build`."""
        return respacing(self.spacing, self.steps, f"ddim{self.steps}")


def facts_of(model: "DiffusionModel") -> dict[str, Any]:
    """The settings that a model determines, by name."""
    provenance = model.provenance
    return {
        "image_size": model.image_size,
        "model_sha256": provenance.sha256,
        "model_revision": provenance.revision,
        "model_parts": dict(provenance.parts),
    }


def require_same(*, given: DireSettings, expected: DireSettings, owner: str) -> None:
    """Check that two settings are equal in every field.

    Args:
        given: the settings to check.
        expected: the settings that they must equal.
        owner: the owner of `expected`, for the error, such as "the detector" or a folder.

    Raises:
        SettingsMismatch: names every field that differs, with both values; of other models also the commits, and the
            parts that differ.
    """
    if given == expected:
        return
    other_model = given.model_sha256 != expected.model_sha256
    differing = [
        f"{one.name}={getattr(given, one.name)} (there {getattr(expected, one.name)})"
        for one in fields(given)
        if getattr(given, one.name) != getattr(expected, one.name)
        and (one.compare or (one.name == "model_revision" and other_model))
    ]
    parts, there = given.model_parts, expected.model_parts
    if other_model and parts and there:
        others = [name for name in sorted({*parts, *there}) if parts.get(name) != there.get(name)]
        differing.append(f"parts of the model that differ: {', '.join(others)}")
    raise SettingsMismatch(f"{owner} has other settings: {', '.join(differing)}")
