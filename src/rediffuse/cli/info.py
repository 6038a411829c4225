"""`rediffuse info`: what weights tell about themselves."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from rediffuse.cli.foreign import NetworkFlags

if TYPE_CHECKING:
    from rediffuse.zoo.inspect import Cost, Inspection


@dataclass(frozen=True, kw_only=True)
class InfoFlags:
    """Say what a model is: its configuration, read off the tensors where it comes with none, its size and its cost."""

    source: tyro.conf.Positional[str]
    """A model folder, a file of weights, a checkpoint of a training run, a published name, `default`, or owner/name on
    the hub."""
    batch_size: int = 1
    """Images per call of the network, for operations and memory."""
    network: tyro.conf.OmitArgPrefixes[NetworkFlags] = field(default_factory=NetworkFlags)


def run(args: InfoFlags) -> int:
    """Print what is known; 1 where the tensors are of no known network, or do not fit."""
    found = _inspect(args)
    _row("source", found.provenance.source)
    _row("sha256", found.provenance.sha256)
    totals = found.totals
    _row("tensors", f"{totals.num_tensors:,}, {totals.num_parameters:,} parameters, {', '.join(totals.dtypes)}")
    if found.layout is None:
        _row("network", f"not known: {found.reason}")
        return 1
    _row("kind", found.layout.kind)
    _row("network", _fields(found.layout.fields))
    if found.process is not None:
        _row("process", _fields(asdict(found.process)))
    if found.layout.unknown:
        _row("unknown", f"{', '.join(found.layout.unknown)}: the tensors do not tell ({found.layout.missing_flags})")
    if found.training.get("classes"):
        _row("classes", ", ".join(f"{number} {name}" for number, name in enumerate(found.training["classes"])))
    if found.training:
        _row("training", _fields({name: value for name, value in found.training.items() if _is_short(value)}))
    _row("names", found.difference or "all that the network has, and no others")
    if found.cost is not None:
        _print_cost(found.cost)
    return 1 if found.difference else 0


def _inspect(args: InfoFlags) -> "Inspection":
    from rediffuse.training.extract import extract, read_run_state
    from rediffuse.zoo.inspect import inspect, inspect_found

    state = read_run_state(Path(args.source))
    if state is not None:
        return inspect_found(extract(state, Path(args.source)), args.batch_size)
    return inspect(args.source, network=args.network.told(), batch_size=args.batch_size)


def _print_cost(cost: "Cost") -> None:
    images = "1 image" if cost.batch_size == 1 else f"{cost.batch_size} images"
    total = cost.weight_bytes + cost.activation_bytes
    _row("operations", f"{cost.operations / 1e9:,.2f} G per call, {images}")
    _row(
        "memory",
        f"about {_size(total)} per call in float32, {images}: {_size(cost.weight_bytes)} weights and "
        f"{_size(cost.activation_bytes)} activations, without gradients",
    )


def _row(name: str, value: str) -> None:
    print(f"{name:<12}{value}")


def _fields(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in fields.items())


def _is_short(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"
