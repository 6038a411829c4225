"""`rediffuse info`: the configuration, size and cost of a model."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rediffuse.cli.flags import FLAT, Argument, CommandFlags
from rediffuse.cli.foreign import NETWORK, NetworkFlags
from rediffuse.cli.result import Result
from rediffuse.records import dump

if TYPE_CHECKING:
    from rediffuse.zoo.inspect import Cost, Inspection


GROUPS = {"Flags": ("--batch-size",), "Network, for a file of weights whose tensors do not determine it": NETWORK}


@dataclass(frozen=True, kw_only=True)
class InfoFlags(CommandFlags):
    """Show the configuration of a model (inferred from the tensors if it is not stored), its size and its cost.

    Exit status: 0 known, 1 the tensors are those of no supported network, do not fit or are not finite, 2 usage error.
    """

    groups = GROUPS

    source: Annotated[str, Argument(positional=True)]
    """A model folder, a file of weights, a checkpoint of a training run, a published name, `default`, or owner/name on
    the hub."""
    batch_size: int = 1
    """Images per call of the network, for the number of operations and the memory."""
    network: Annotated[NetworkFlags, FLAT] = field(default_factory=NetworkFlags)


def run(args: InfoFlags) -> Result:
    """The facts about the source; status 1 if the model cannot be loaded: see `InfoFlags`."""
    found = _inspect(args)
    rows = [*_rows(found)]
    return Result(
        text="\n".join(f"{name:<12}{value}" for name, value in rows),
        record=_record(found),
        status=1 if found.layout is None or found.difference or found.not_finite else 0,
    )


def _inspect(args: InfoFlags) -> "Inspection":
    from rediffuse.training.extract import extract, read_run_state
    from rediffuse.zoo.inspect import inspect, inspect_found

    state = read_run_state(Path(args.source))
    if state is not None:
        return inspect_found(extract(state, Path(args.source)), args.batch_size)
    return inspect(args.source, network=args.network.given(), batch_size=args.batch_size)


def _rows(found: "Inspection") -> Iterator[tuple[str, str]]:
    yield "source", found.provenance.source
    yield "sha256", found.provenance.sha256
    for part, sha256 in found.provenance.parts.items():
        yield "part", f"{part} {sha256}"
    totals = found.totals
    yield "tensors", f"{totals.num_tensors:,}, {totals.num_parameters:,} parameters, {', '.join(totals.dtypes)}"
    if found.not_finite:
        yield "values", f"{found.not_finite}; such weights cannot be used"
    if found.layout is None:
        yield "network", f"not known: {found.reason}"
        return
    yield "kind", found.layout.kind
    yield "network", _fields(found.layout.fields)
    if found.process is not None:
        yield "process", _fields(asdict(found.process))
    if found.layout.unknown:
        unknown = ", ".join(found.layout.unknown)
        yield "unknown", f"{unknown}: not determined by the tensors ({found.layout.missing_flags})"
    classes = found.training.get("classes")
    if classes and isinstance(classes, list):
        yield "classes", ", ".join(f"{number} {name}" for number, name in enumerate(classes))
    if found.training:
        yield "training", _fields({name: value for name, value in found.training.items() if _is_short(value)})
    yield "names", found.difference or "those of the network"
    if found.cost is not None:
        yield from _cost_rows(found.cost)


def _cost_rows(cost: "Cost") -> Iterator[tuple[str, str]]:
    images = "1 image" if cost.batch_size == 1 else f"{cost.batch_size} images"
    total = cost.weight_bytes + cost.activation_bytes
    yield "operations", f"{cost.operations / 1e9:,.2f} G per call, {images}"
    yield (
        "memory",
        f"about {_size(total)} per call in float32, {images}: {_size(cost.weight_bytes)} weights and "
        f"{_size(cost.activation_bytes)} activations, without gradients",
    )


def _record(found: "Inspection") -> dict[str, Any]:
    layout = found.layout
    return {
        "source": found.provenance.source,
        "sha256": found.provenance.sha256,
        "parts": found.provenance.parts,
        **dump(found.totals),
        "kind": layout.kind if layout else None,
        "network": dict(layout.fields) if layout else None,
        "unknown": layout.unknown if layout else (),
        "process": dump(found.process) if found.process else None,
        "training": found.training,
        "difference": found.difference or found.reason,
        "not_finite": found.not_finite,
        "cost": dump(found.cost) if found.cost else None,
    }


def _fields(fields: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in fields.items())


def _is_short(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"
