"""Frozen dataclasses to JSON and back; values are checked against the types of the fields when they are read."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from rediffuse.errors import ConfigError, nearest, shown
from rediffuse.stores import StoreFolder

T = TypeVar("T")

_MAX_DEPTH = 64
"""Deepest nesting of a JSON file. Python's JSON and dataclass functions are recursive, and fail at some hundreds."""


def added_field(default: Any) -> Any:
    """A field that a record got later: records in which it has its default keep the digest they had without it."""
    return dataclasses.field(default=default, metadata={"added": True})


def added_defaults(kind: type[Any]) -> dict[str, Any]:
    """The defaults of the fields from `added_field`, which files of earlier versions do not have."""
    return {field.name: field.default for field in dataclasses.fields(kind) if field.metadata.get("added")}


def dump(record: Any) -> dict[str, Any]:
    """The fields of a dataclass, nested ones included, as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(record), default=str))


def require_range(name: str, value: float, least: float, most: float = 2**63 - 1) -> None:
    """Check a number of a configuration.

    Raises:
        ConfigError: `value` is NaN, less than `least` or more than `most`.
    """
    if least <= value <= most:
        return
    allowed = f"at least {least} is needed" if not value > most else f"at most {most} is allowed"
    raise ConfigError(f"{name}={shown(value)}: {allowed}")


def read_json(path: Path | StoreFolder) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ConfigError: the file cannot be read, is not JSON, is nested too deeply, or holds something else than an object.
    """
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(f"{path}: cannot be read as JSON: {reason}") from None
    if not isinstance(fields, dict):
        raise ConfigError(f"{path}: holds {shown(fields)}; a JSON object is needed")
    level: list[Any] = [fields]
    for _ in range(_MAX_DEPTH):
        level = [inner for value in level for inner in _inner(value)]
    if level:
        raise ConfigError(f"{path}: is nested more than {_MAX_DEPTH} levels deep")
    return fields


def parse(kind: type[T], fields: Mapping[str, Any], source: str) -> T:
    """Build `kind` from plain values, each checked against the type of its field.

    Args:
        kind: a dataclass.
        fields: the values by field name; a field that has a default may be missing.
        source: where the values come from (a file, a flag), for the error.

    Raises:
        ConfigError: an unknown field, a missing one, or a value of another type; names `source` and the field.
    """
    from pydantic import ValidationError  # slow to import, and needed only to read files

    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in fields:
        if name not in names:
            raise ConfigError(f"{source}: unknown field {_unquoted(name)}{nearest(name, names)}")
    try:
        return _adapter(kind).validate_python(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(_unquoted, first["loc"])) + ": " if first["loc"] else ""
        given = "" if first["type"] == "missing" else f", given {shown(first['input'])}"
        raise ConfigError(f"{source}: {place}{first['msg']}{given}") from None


def digest(record: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the record's canonical JSON: equal fields, equal digest.

    Fields from `added_field` count where they differ from their default. Fields that are not compared do not count.
    """
    compared = {field.name for field in dataclasses.fields(record) if field.compare}
    fields = {name: value for name, value in dump(record).items() if name in compared}
    for name, default in added_defaults(type(record)).items():
        if getattr(record, name) == default:
            del fields[name]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@lru_cache
def _adapter(kind: type[Any]) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)  # takes a thousand times as long as reading a record with it


def _unquoted(name: Any) -> str:
    return shown(name).strip("'")


def _inner(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
