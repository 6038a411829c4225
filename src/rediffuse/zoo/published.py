"""Models with names: the embedded one, OpenAI's 15 published checkpoints (arXiv:2105.05233), Inception features.

Networks and processes follow from the flags that OpenAI documents for each file. There are no published checksums of
these files. If `sha256` is None, the checksum of the first download is recorded next to the file and checked at every
later use.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.script_flags import ProcessFlags, process_config
from rediffuse.models.config import EncoderConfig, Kind, UNetConfig
from rediffuse.models.script_flags import ClassifierFlags, UNetFlags, classifier_config, superres_config, unet_config

_ADDRESS = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021"
DEFAULT = "default"


class PublishedFile(Protocol):
    """The facts that are needed to download a file."""

    @property
    def file(self) -> str:
        """The file's name on the disk."""
        ...

    @property
    def address(self) -> str: ...

    @property
    def sha256(self) -> str | None:
        """The checksum in hex; None if it is not published."""
        ...

    @property
    def min_bytes(self) -> int:
        """The smallest possible size; a smaller file is another one, such as a login page."""
        ...


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """One checkpoint: its address, and everything that its tensors do not determine."""

    name: str
    kind: Kind
    parameters: int
    network: UNetConfig | EncoderConfig
    process: ProcessConfig
    """The process; for a classifier that of the diffusion model which it guides."""
    address: str
    sha256: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    """Known facts about the training, with the field names of rediffuse's own runs."""

    @property
    def file(self) -> str:
        return f"{self.name}.pt"

    @property
    def min_bytes(self) -> int:
        """4 bytes per parameter: the tensors are float32, and names and shapes add less than a thousandth."""
        return 4 * self.parameters


@dataclass(frozen=True, kw_only=True)
class PublishedScript:
    """One TorchScript file. Such a file is a program: loading it runs its code."""

    name: str
    address: str
    min_bytes: int
    sha256: str | None = None

    @property
    def file(self) -> str:
        return f"{self.name}.pt"


def default_folder() -> Path:
    """The folder of the embedded model."""
    return Path(str(resources.files("rediffuse"))) / "weights"


_LINEAR = process_config(ProcessFlags(learn_sigma=True, noise_schedule="linear"))
_COSINE = process_config(ProcessFlags(learn_sigma=True, noise_schedule="cosine"))
_ADM = UNetFlags(
    attention_resolutions="32,16,8",
    num_channels=256,
    resblock_updown=True,
    use_scale_shift_norm=True,
    learn_sigma=True,
)
_IMAGENET_64 = replace(
    _ADM,
    image_size=64,
    num_channels=192,
    num_res_blocks=3,
    num_head_channels=64,
    dropout=0.1,
    class_cond=True,
    use_new_attention_order=True,
)
_IMAGENET_128 = replace(_ADM, image_size=128, num_heads=4, class_cond=True)
_IMAGENET_256 = replace(_ADM, image_size=256, num_head_channels=64, class_cond=True)
_IMAGENET_256_UNCOND = replace(_IMAGENET_256, class_cond=False)
_IMAGENET_512 = replace(_IMAGENET_256, image_size=512)
_LSUN = replace(_IMAGENET_256_UNCOND, dropout=0.1)
_UPSAMPLER_256 = replace(_ADM, image_size=256, num_channels=192, num_heads=4, class_cond=True)
_UPSAMPLER_512 = replace(
    _ADM, image_size=512, num_channels=192, num_head_channels=64, class_cond=True, attention_resolutions="32,16"
)


def _diffusion(
    name: str, parameters: int, flags: UNetFlags, process: ProcessConfig = _LINEAR, sha256: str | None = None
) -> PublishedModel:
    return PublishedModel(
        name=name,
        kind="unet",
        parameters=parameters,
        network=unet_config(flags),
        process=process,
        address=f"{_ADDRESS}/{name}.pt",
        sha256=sha256,
    )


def _superres(name: str, parameters: int, flags: UNetFlags, small_size: int) -> PublishedModel:
    return PublishedModel(
        name=name,
        kind="superres",
        parameters=parameters,
        network=superres_config(flags),
        process=_LINEAR,
        address=f"{_ADDRESS}/{name}.pt",
        training={"small_size": small_size},
    )


def _classifier(
    name: str, parameters: int, image_size: int, depth: int = 2, process: ProcessConfig = _LINEAR
) -> PublishedModel:
    return PublishedModel(
        name=name,
        kind="encoder",
        parameters=parameters,
        network=classifier_config(ClassifierFlags(image_size=image_size, classifier_depth=depth)),
        process=process,
        address=f"{_ADDRESS}/{name}.pt",
    )


PUBLISHED: Mapping[str, PublishedModel] = {
    model.name: model
    for model in (
        _diffusion("64x64_diffusion", 295_904_454, _IMAGENET_64, _COSINE),
        _diffusion("128x128_diffusion", 421_529_606, _IMAGENET_128),
        _diffusion("256x256_diffusion", 553_838_086, _IMAGENET_256),
        _diffusion(
            "256x256_diffusion_uncond",
            552_814_086,
            _IMAGENET_256_UNCOND,
            # Recorded independently by many projects that use this file.
            sha256="a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        ),
        _diffusion("512x512_diffusion", 558_997_638, _IMAGENET_512),
        _diffusion("lsun_bedroom", 552_814_086, _LSUN),
        _diffusion("lsun_cat", 552_814_086, _LSUN),
        _diffusion("lsun_horse", 552_814_086, _LSUN),
        _diffusion("lsun_horse_nodropout", 552_814_086, replace(_LSUN, dropout=0.0)),
        _superres("64_256_upsampler", 311_795_910, _UPSAMPLER_256, small_size=64),
        _superres("128_512_upsampler", 308_835_270, _UPSAMPLER_512, small_size=128),
        _classifier("64x64_classifier", 65_438_568, 64, depth=4, process=_COSINE),
        _classifier("128x128_classifier", 42_568_040, 128),
        _classifier("256x256_classifier", 54_096_360, 256),
        _classifier("512x512_classifier", 54_448_360, 512),
    )
}

FEATURE_NETWORKS: Mapping[str, PublishedScript] = {
    script.name: script
    for script in (
        # NVIDIA's conversion of the network that TensorFlow published in 2015: 24 million weights of 4 bytes.
        PublishedScript(
            name="inception-2015-12-05",
            address="https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
            min_bytes=90_000_000,
        ),
    )
}
"""The feature networks of `evaluation.features`, by name."""
