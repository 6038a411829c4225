"""Read pipelines of diffusers: a folder of `save_pretrained`, or a pipeline object."""

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from rediffuse.diffusion.config import MOST_TIMESTEPS
from rediffuse.errors import CheckpointError, ConfigError, RediffuseError
from rediffuse.records import read_json, require_range
from rediffuse.stores import one_line
from rediffuse.zoo.folder import Provenance
from rediffuse.zoo.pipelines.autoencoder import Autoencoder, AutoencoderAlone
from rediffuse.zoo.pipelines.families import AUTOENCODERS, Family, family_of
from rediffuse.zoo.pipelines.networks import PipelineNetwork
from rediffuse.zoo.pipelines.scheduler import SchedulerProcess, library, process_of

INDEX_FILE = "model_index.json"
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"
UNWANTED_FILES = ["*.fp16*", "*.non_ema*"]
"""Other forms of the same weights."""
_PARTS = (
    *("unet", "transformer", "scheduler", "vae", "vqvae"),
    *("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3"),
)
"""The parts of a pipeline that are loaded; others, such as a safety checker, have no effect on a reconstruction."""


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """The parts of a pipeline as those of a `DiffusionModel`."""

    network: PipelineNetwork
    process: SchedulerProcess
    """That of `DDPMScheduler()` for an autoencoder alone, which has none."""
    provenance: Provenance


def is_pipeline(folder: Path) -> bool:
    """Whether a folder holds a pipeline of diffusers."""
    return (folder / INDEX_FILE).is_file() or _is_autoencoder(folder)


def _is_autoencoder(folder: Path) -> bool:
    """Whether a folder holds an autoencoder alone."""
    try:
        return read_json(folder / "config.json").get("_class_name") in AUTOENCODERS.network
    except ConfigError:
        return False


def wanted_files(folder: Path) -> list[str]:
    """Patterns of the files to download of a pipeline; not of pickles and other formats of the weights.

    Args:
        folder: holds the index of a pipeline, or the configuration of an autoencoder alone.

    Raises:
        ConfigError: the index is damaged.
    """
    if not (folder / INDEX_FILE).is_file():
        return [WEIGHTS_FILE]
    # Files of pipelines of the first versions of diffusers are not in folders.
    at_root = ["scheduler_config.json", WEIGHTS_FILE]
    kinds = ("json", "safetensors", "txt", "model")  # the last two are files of tokenizers
    return [
        *at_root,
        *(f"{part}/*.{kind}" for part in _classes(read_json(folder / INDEX_FILE), folder) for kind in kinds),
    ]


def read_pipeline(source: Any, name: str, device: torch.device, *, offloads: bool = False) -> Pipeline:
    """Read a pipeline.

    Args:
        source: a folder of `save_pretrained`, in which weights are safetensors; or a pipeline object, whose networks
            are used as they are, in eval mode.
        name: its name in errors and in the provenance.
        device: the device of the networks.
        offloads: keep the networks in main memory, and move each to the device while it computes.

    Raises:
        ConfigError: diffusers is not installed; a network or scheduler is not known, or they do not fit; or the device
            cannot be used.
        CheckpointError: a part is missing, damaged, or pickled.
    """
    if isinstance(source, Path) and not (source / INDEX_FILE).is_file():
        options, kind = {}, read_json(source / "config.json")["_class_name"]
        parts = {"vae": _load(source, "vae", "diffusers", kind)}
    elif isinstance(source, Path):
        options = read_json(source / INDEX_FILE)
        parts = {part: _load(source, part, *kind) for part, kind in _classes(options, source).items()}
    else:
        options, loaded = getattr(source, "config", {}), getattr(source, "components", {})
        parts = {part: loaded[part] for part in _PARTS if loaded.get(part) is not None}
    try:
        denoiser, process = _assemble(parts, options)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # a number that is none, as of a stranger
        raise ConfigError(f"{name}: a configuration of its parts is wrong: {one_line(error)}") from error
    digests = {part: _digest(loaded, process) for part, loaded in sorted(parts.items())}
    lines = "".join(f"{digest} {part}\n" for part, digest in digests.items())
    try:
        if offloads:
            denoiser.to("cpu").offload_to(device)
        else:
            denoiser.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device={device}: {str(error).splitlines()[0]}") from None
    return Pipeline(
        network=denoiser.eval(),
        process=process,
        provenance=Provenance(source=name, sha256=hashlib.sha256(lines.encode()).hexdigest(), parts=digests),
    )


def _assemble(parts: Mapping[str, Any], options: Mapping[str, Any]) -> tuple[PipelineNetwork, SchedulerProcess]:
    """The network and the process of a pipeline's parts; `options` are those of its class."""
    if list(parts) == ["vae"]:
        network, parts = AutoencoderAlone(parts["vae"]), {**parts, "scheduler": library("diffusers").DDPMScheduler()}
    else:
        network = parts.get("unet", parts.get("transformer"))
    if network is None:
        raise ConfigError("not a diffusion model that rediffuse knows: there is no unet and no transformer")
    family = AUTOENCODERS if isinstance(network, AutoencoderAlone) else family_of(network)
    for part in ("scheduler", *family.needs):
        if part not in parts:
            raise ConfigError(f"{type(network).__name__} needs a {part}, and the pipeline has none")
    coder, scheduler = parts.get("vae", parts.get("vqvae")), parts["scheduler"]
    if coder is not None and type(coder).__name__ not in AUTOENCODERS.network:
        known = ", ".join(AUTOENCODERS.network)
        raise ConfigError(f"{type(coder).__name__}: not a known autoencoder; {known} are known")
    autoencoder = None if coder is None else Autoencoder(coder)
    # As in diffusers, a variance that the network predicts is used only by a scheduler that is told so.
    predicts_variance = network.config.get("out_channels") == 2 * network.config.in_channels
    has_variance = predicts_variance and "learned" in (scheduler.config.get("variance_type") or "")
    _, side = family.shape(network.config, autoencoder)
    process = process_of(
        scheduler,
        has_variance=has_variance,
        num_tokens=family.num_tokens(network.config, side) if isinstance(side, int) else 0,
        has_levels=family.has_levels,
    )
    denoiser = PipelineNetwork(
        network,
        family,
        pipeline=_prompted(family, parts, options),
        autoencoder=autoencoder,
        flow_timesteps=process.config["num_train_timesteps"] if process.is_flow else None,
        has_variance=has_variance,
    )
    return denoiser, process


def _prompted(family: Family, parts: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """A pipeline of diffusers that encodes prompts; None for a family without prompts."""
    if family.pipeline is None:
        return None
    with _without_notes():
        kind = getattr(library("diffusers"), family.pipeline)
    arguments = inspect.signature(kind.__init__).parameters
    absent = {name: None for name, argument in arguments.items() if argument.default is argument.empty}
    absent.pop("self")
    scalars = {name: value for name, value in options.items() if name in arguments and isinstance(value, bool | int)}
    if "requires_safety_checker" in arguments:
        scalars["requires_safety_checker"] = False
    return kind(**{**absent, **scalars, **{name: part for name, part in parts.items() if name in arguments}})


def _classes(index: Mapping[str, Any], folder: Path) -> dict[str, tuple[str, str]]:
    """The library and class of each part that a pipeline has."""
    try:
        pairs = {part: tuple(index[part]) for part in _PARTS if part in index}
        return {part: (str(origin), str(kind)) for part, (origin, kind) in pairs.items() if kind is not None}
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{folder / INDEX_FILE}: does not list the parts of a pipeline: {error}") from None


def _load(folder: Path, part: str, origin: str, kind: str) -> Any:
    """A part of a folder, loaded by its class, without code from the folder."""
    # Pipelines of the first versions of diffusers have all files in one folder.
    place = folder / part if (folder / part).is_dir() else folder
    if origin not in ("diffusers", "transformers"):
        raise ConfigError(f"{folder}: {part} is code of its own ({origin}.{kind}), which is not run")
    loader: Any = getattr(library(origin), kind, None)
    if loader is None:
        raise ConfigError(f"{folder}: {part}: {origin} has no {kind}")
    options: dict[str, Any] = {}
    try:
        if hasattr(loader, "forward"):  # a network
            _check_weights(place)
            options = {"use_safetensors": True, "torch_dtype" if origin == "diffusers" else "dtype": torch.float32}
        if origin == "diffusers":
            _check_size(place, loader)
        with _without_bars() if origin == "transformers" else nullcontext():
            return loader.from_pretrained(place, local_files_only=True, **options)
    except RediffuseError:
        raise
    except Exception as error:  # those of diffusers, transformers, safetensors and torch have no common class
        raise CheckpointError(f"{place}: cannot be loaded as {kind}: {' '.join(str(error).split())}") from error


@contextmanager
def _without_notes() -> Iterator[None]:
    """Let transformers say nothing of torchvision while the block imports a pipeline, which can process images."""
    logging = library("transformers").utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Let transformers draw no bars while the block runs; it has one for every file of weights."""
    logging = library("transformers").utils.logging
    draws = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if draws:
            logging.enable_progress_bar()


def _check_weights(place: Path) -> None:
    if any(place.glob("*.safetensors")):
        return
    pickled = [path for path in sorted(place.glob("*")) if path.suffix in (".bin", ".ckpt", ".pt", ".pth")]
    if pickled:
        raise CheckpointError(
            f"{pickled[0]}: is a pickle, which can run code when it is read; safetensors are needed "
            "(save_pretrained writes them)"
        )
    raise CheckpointError(
        f"{place}: holds no safetensors; pickles, which can run code when they are read, are not fetched from the hub"
    )


def _check_size(place: Path, loader: Any) -> None:
    """Check, before memory is taken, the timesteps of a scheduler, and that the files can hold a network."""
    config = loader.load_config(place)
    if not hasattr(loader, "forward"):
        require_range(f"{place}: num_train_timesteps", config.get("num_train_timesteps", 1), 1, MOST_TIMESTEPS)
        return
    num_bytes = sum(path.stat().st_size for path in place.glob("*.safetensors"))
    with torch.device("meta"):
        num_parameters = sum(tensor.numel() for tensor in loader.from_config(config).parameters())
    if num_parameters > num_bytes:
        raise CheckpointError(
            f"{place}: has {num_bytes} bytes of weights, but the network of its configuration has {num_parameters}"
        )


def _digest(part: Any, process: SchedulerProcess) -> str:
    """SHA-256 of a part; the same for files and for loaded objects, and in every version of diffusers."""
    if hasattr(part, "get_vocab"):  # a tokenizer
        return hashlib.sha256(json.dumps(part.get_vocab(), sort_keys=True).encode()).hexdigest()
    if not isinstance(part, nn.Module):
        return process.sha256
    scales: Any = [getattr(part.config, name, None) for name in ("scaling_factor", "shift_factor")]
    content = hashlib.sha256(f"{type(part).__name__} {scales}".encode())
    for name, tensor in sorted(part.named_parameters()):
        content.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()
