"""Inspect weights without computing with them: configuration, sizes, costs, and differences."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import CheckpointError, ConfigError
from rediffuse.files import sha256_of
from rediffuse.models.checkpoints import compare, not_finite, read_state_dict
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.models.flops import flops
from rediffuse.models.layout import Layout
from rediffuse.models.memory import peak_activation_bytes
from rediffuse.zoo.find import find, find_pipeline
from rediffuse.zoo.folder import Found, Provenance
from rediffuse.zoo.model import DiffusionModel, load, meta_network
from rediffuse.zoo.pipelines.networks import PipelineNetwork
from rediffuse.zoo.pipelines.scheduler import SchedulerProcess

_ARBITRARY = {"image_size": 64, "use_new_attention_order": False}
"""Values for fields that the tensors do not determine: the names and shapes of a network do not depend on them."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The cost of one call of the network in float32."""

    batch_size: int
    operations: int
    """Multiplications and additions of convolutions, linear maps and attention, of the whole batch."""
    weight_bytes: int
    activation_bytes: int
    """Peak memory of the activations; an estimate (`models.memory`)."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """The numbers of tensors and parameters."""

    num_tensors: int
    num_parameters: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The facts about a source of weights."""

    provenance: Provenance
    totals: Totals
    layout: Layout | None = None
    """None if the tensors are those of no supported network."""
    reason: str = ""
    """The reason why there is no layout."""
    process: ProcessConfig | SchedulerProcess | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    difference: str = ""
    """Missing and unexpected tensors, and those of other shapes; empty if the tensors fit the layout."""
    not_finite: str = ""
    """How many values are NaN or infinite; empty if none is. Such weights cannot be loaded."""
    cost: Cost | None = None
    """None if the image size is unknown, or if the tensors do not fit."""


def inspect(
    source: str | Path,
    *,
    network: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    cache: Path | None = None,
) -> Inspection:
    """Inspect a source that `model.load` accepts, or a file of weights that it does not accept.

    Args:
        source: see `model.load`.
        network: see `model.load`.
        cache: see `model.load`.
        batch_size: images per call of the network, for its cost; at least 1.

    Raises:
        InputError: there is no such file, folder or model.
        CheckpointError: it holds no tensors, or a file in a folder is damaged.
        ConfigError: `batch_size` is below 1, or the configuration in a folder is wrong.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: at least 1 is needed")
    if find_pipeline(source, cache):
        return _inspect_pipeline(load(source, cache=cache), batch_size)
    try:
        return inspect_found(find(source, network, None, cache), batch_size)
    except (CheckpointError, ConfigError) as error:
        path = Path(source)
        if not path.is_file():
            raise
        provenance = Provenance(source=str(source), sha256=sha256_of(path))
        state = read_state_dict(path)
        return Inspection(provenance=provenance, totals=_totals(state), reason=str(error), not_finite=not_finite(state))


def inspect_found(found: Found, batch_size: int = 1) -> Inspection:
    """Inspect weights that were read before; see `inspect`."""
    layout = found.layout
    difference = misfit(found)
    is_known = not difference and "image_size" in layout.fields
    return Inspection(
        provenance=found.provenance,
        totals=_totals(found.state),
        layout=layout,
        process=found.process,
        training=found.training,
        difference=difference,
        not_finite=not_finite(found.state),
        cost=_cost(layout, batch_size) if is_known else None,
    )


def _inspect_pipeline(model: DiffusionModel, batch_size: int) -> Inspection:
    """Inspect a pipeline of diffusers, which loads only if its tensors fit."""
    network = model.network
    assert isinstance(network, PipelineNetwork)
    if network.denoises:
        network.prompted("", 1.0)  # which encodes the prompt, so that its cost is not counted
    return Inspection(
        provenance=model.provenance,
        totals=_totals(network.state_dict()),
        layout=Layout(source=model.provenance.source, kind=model.kind, fields=vars(network.config), unknown=()),
        process=model.process_config if network.denoises else None,
        cost=_cost_of(network, (batch_size, *model.shape)) if network.denoises else None,
    )


def misfit(found: Found) -> str:
    """How the tensors differ from those of the network of their configuration; empty if they fit."""
    return compare(meta_network(found.layout.kind, _any_config(found.layout)).state_dict(), found.state)


def _cost(layout: Layout, batch_size: int) -> Cost:
    config = _any_config(layout)
    network = meta_network(layout.kind, config)
    return _cost_of(network, (batch_size, config.in_channels, *(config.image_size,) * config.dims))


def _cost_of(network: nn.Module, shape: tuple[int, ...]) -> Cost:
    return Cost(
        batch_size=shape[0],
        operations=flops(network, shape),
        weight_bytes=4 * sum(parameter.numel() for parameter in network.parameters()),
        activation_bytes=peak_activation_bytes(network, shape),
    )


def _any_config(layout: Layout) -> UNetConfig | EncoderConfig:
    """A configuration whose network has the layout's tensors; unknown fields get arbitrary values."""
    kind = EncoderConfig if layout.kind == "encoder" else UNetConfig
    return kind(**{**_ARBITRARY, **layout.fields})


def _totals(state: Mapping[str, Tensor]) -> Totals:
    return Totals(
        num_tensors=len(state),
        num_parameters=sum(tensor.numel() for tensor in state.values()),
        dtypes=tuple(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})),
    )
