"""A trained network with everything needed to use it, from a folder, a file, a name or the hub, and back to a folder.

A folder of ours holds `model.safetensors` and `config.json`:
`{"kind": "unet", "network": {...}, "process": {...}, "training": {...}}`, the last of these free.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor

from rediffuse import records
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.diffusion.process import GaussianDiffusion
from rediffuse.errors import CheckpointError, ConfigError, InputError, nearest
from rediffuse.files import write_bytes
from rediffuse.models.checkpoints import load_into, read_state_dict, write_state_dict
from rediffuse.models.config import EncoderConfig, Kind, UNetConfig
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.layout import infer
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.download import sha256_of
from rediffuse.zoo.fetch import default_cache, fetch_from_hub, known_sha256, published_path
from rediffuse.zoo.published import DEFAULT, PUBLISHED, default_folder

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

_NETWORKS: Mapping[Kind, type[Any]] = {
    "unet": UNetModel,
    "superres": SuperResModel,
    "encoder": EncoderUNetModel,
}
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")

Network = TypeVar("Network", bound=UNetModel | SuperResModel | EncoderUNetModel)


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where weights come from."""

    source: str
    """What was asked for: a name, a path, or a hub's `owner/name@revision`."""
    sha256: str
    """Of the file of weights, in hex."""


@dataclass(frozen=True, kw_only=True)
class _Model(Generic[Network]):
    """Abstract: a network, the process it was trained on, and where it comes from."""

    network: Network
    process_config: ProcessConfig
    provenance: Provenance
    training: Mapping[str, Any] = field(default_factory=dict)
    """How it was trained; free, JSON values."""

    @property
    def kind(self) -> Kind:
        return next(kind for kind, network in _NETWORKS.items() if isinstance(self.network, network))

    @property
    def image_size(self) -> int:
        """Side of the images it was trained on, in pixels."""
        return self.network.config.image_size

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def process(self, respacing: str = "") -> GaussianDiffusion:
        """The diffusion process, on all timesteps or on those that `respacing` keeps (`"ddim20"`, `"250"`)."""
        return self.process_config.build(respacing)

    def to(self, device: torch.device | str) -> Self:
        """Move the network (in place, as torch does); returns the model."""
        self.network.to(device)
        return self

    def save(self, folder: Path, dtype: torch.dtype | None = None) -> None:
        """Write a folder that `load` reads.

        The configuration is written last: a folder that has one is complete.

        Args:
            folder: made if it is missing; a model in it is replaced.
            dtype: precision on disk; None keeps the network's. Half precision is used as float32 when it is loaded.

        Raises:
            StorageError: the disk is full, or the folder cannot be written to.
        """
        config = {
            "kind": self.kind,
            "network": records.dump(self.network.config),
            "process": records.dump(self.process_config),
            "training": dict(self.training),
        }
        (folder / CONFIG_FILE).unlink(missing_ok=True)
        state = self.network.state_dict()
        write_state_dict(folder / WEIGHTS_FILE, {name: tensor.to(dtype=dtype) for name, tensor in state.items()})
        write_bytes(folder / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())


@dataclass(frozen=True, kw_only=True)
class DiffusionModel(_Model[UNetModel | SuperResModel]):
    """A denoising network and its process.

    Raises ConfigError where the network's output channels do not fit the process's variance.
    """

    def __post_init__(self) -> None:
        config = self.network.config
        needed = config.in_channels * (2 if self.process_config.learns_variance else 1)
        if config.out_channels != needed:
            raise ConfigError(
                f"variance={self.process_config.variance!r} of {config.in_channels} channels "
                f"needs out_channels={needed}, but the network has {config.out_channels}"
            )

    @property
    def num_classes(self) -> int | None:
        """Classes that it is conditioned on, if any."""
        return self.network.config.num_classes


@dataclass(frozen=True, kw_only=True)
class ClassifierModel(_Model[EncoderUNetModel]):
    """A classifier of noisy images, and the process whose noise it knows: what guides a diffusion model."""

    @property
    def num_classes(self) -> int:
        """Classes that it tells apart."""
        return self.network.config.out_channels


def load(
    source: str | Path = DEFAULT,
    *,
    device: torch.device | str = "cpu",
    network: Mapping[str, Any] | None = None,
    process: ProcessConfig | None = None,
    cache: Path | None = None,
) -> DiffusionModel:
    """A diffusion model in eval mode and float32.

    Args:
        source: `"default"`; the name of a published model that has been fetched; a folder of ours; a `.pt` or
            `.safetensors` file; or `owner/name` on the Hugging Face hub, which is fetched. An existing path comes
            before a name on the hub, a published name before both.
        device: where the network goes; `"auto"` is the machine's accelerator, or the CPU if it has none.
        network: for a file of weights alone: what its tensors do not tell, by the fields of `UNetConfig`, and `kind`
            (`models.layout.infer`). A file that has a published file's name needs none of it.
        process: likewise the process that it was trained on.
        cache: where downloads lie; None is `fetch.default_cache()`, and for the hub its own cache.

    Raises:
        InputError: there is no such file, folder or model, or a published one is not fetched yet.
        CheckpointError: the weights are damaged, changed, of another architecture, or a classifier's.
        ConfigError: a configuration is wrong, or something about the network has to be given.
        FetchError: the hub does not have it or cannot be reached.
    """
    found = _find(source, network, process, cache)
    if found.kind == "encoder":
        raise CheckpointError(f"{source}: a classifier, not a diffusion model; load_classifier loads it")
    loaded = _network(found, device)
    assert not isinstance(loaded, EncoderUNetModel)
    return DiffusionModel(
        network=loaded, process_config=found.process, provenance=found.provenance, training=found.training
    )


def load_classifier(
    source: str | Path,
    *,
    device: torch.device | str = "cpu",
    network: Mapping[str, Any] | None = None,
    process: ProcessConfig | None = None,
    cache: Path | None = None,
) -> ClassifierModel:
    """A classifier of noisy images; arguments and errors are those of `load`."""
    found = _find(source, network, process, cache)
    if found.kind != "encoder":
        raise CheckpointError(f"{source}: a diffusion model, not a classifier; load loads it")
    loaded = _network(found, device)
    assert isinstance(loaded, EncoderUNetModel)
    return ClassifierModel(
        network=loaded, process_config=found.process, provenance=found.provenance, training=found.training
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Tensors, and what describes them."""

    kind: Kind
    network: UNetConfig | EncoderConfig
    process: ProcessConfig
    training: Mapping[str, Any]
    state: Mapping[str, Tensor]
    provenance: Provenance


@dataclass(frozen=True, kw_only=True)
class _Description:
    """`config.json` as it is written."""

    kind: Kind
    network: dict[str, Any]
    process: dict[str, Any]
    training: dict[str, Any] = field(default_factory=dict)


def _find(
    source: str | Path, network: Mapping[str, Any] | None, process: ProcessConfig | None, cache: Path | None
) -> _Found:
    if source in PUBLISHED:
        model = PUBLISHED[str(source)]
        path = published_path(model, cache or default_cache())
        if not path.is_file():
            raise InputError(f"{source}: is not here yet; `rediffuse models fetch {source}` downloads it")
        found = _from_weights(path, network, process)
        expected = known_sha256(model, path)
        if expected not in (None, found.provenance.sha256):
            raise CheckpointError(f"{path}: sha256 is {found.provenance.sha256}, but {expected} was fetched; delete it")
        return found
    if source == DEFAULT:
        folder, origin = default_folder(), DEFAULT
    elif Path(source).is_dir():
        folder, origin = Path(source), str(source)
    elif Path(source).is_file():
        return _from_weights(Path(source), network, process)
    elif isinstance(source, str) and _HUB_NAME.fullmatch(source):
        folder = fetch_from_hub(source, cache and cache / "hub")
        origin = f"{source}@{folder.name}"  # the hub's client names the folder after the commit
    else:
        hint = nearest(str(source), [DEFAULT, *PUBLISHED])
        raise InputError(f"{source}: no such folder or file, and no model of that name{hint}")
    if network or process:
        raise ConfigError(f"{source}: has its own configuration; network and process are for files of weights alone")
    return _from_folder(folder, origin)


def _from_folder(folder: Path, source: str) -> _Found:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise InputError(f"{folder}: not a model's folder: there is no {CONFIG_FILE}")
    try:
        fields = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{path}: a JSON object is needed")
    description = records.parse(_Description, fields, str(path))
    kind = EncoderConfig if description.kind == "encoder" else UNetConfig
    weights = folder / WEIGHTS_FILE
    return _Found(
        kind=description.kind,
        network=records.parse(kind, description.network, f"{path}: network"),
        process=records.parse(ProcessConfig, description.process, f"{path}: process"),
        training=description.training,
        state=read_state_dict(weights),
        provenance=Provenance(source=source, sha256=sha256_of(weights)),
    )


def _from_weights(path: Path, network: Mapping[str, Any] | None, process: ProcessConfig | None) -> _Found:
    """A file without a configuration: its name may be a published one's, its tensors tell much, the user the rest."""
    known = dict(network or {})
    published = PUBLISHED.get(path.stem)
    if published:
        known = asdict(published.network) | {"kind": published.kind} | known
        process = process or published.process
    state = read_state_dict(path)
    layout = infer(state, str(path), known)
    if process is None:
        layout = replace(layout, unknown=(*layout.unknown, "process"))
    config = layout.config()
    assert process is not None  # otherwise it is unknown, and the line above raises
    return _Found(
        kind=layout.kind,
        network=config,
        process=process,
        training={},
        state=state,
        provenance=Provenance(source=str(path), sha256=sha256_of(path)),
    )


def _network(found: _Found, device: torch.device | str) -> UNetModel | SuperResModel | EncoderUNetModel:
    """The network without the cost of initial weights: shaped on the meta device, then filled where it belongs."""
    if device == "auto":
        device = torch.accelerator.current_accelerator(check_available=True) or "cpu"
    with torch.device("meta"):
        network = _NETWORKS[found.kind](found.network)
    try:
        network.to_empty(device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device}: {str(error).splitlines()[0]}") from None
    load_into(network, found.state, found.provenance.source)
    return network.eval()
