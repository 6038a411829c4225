"""Frozen dataclasses to JSON and back; values are checked against the types of the fields when they are read."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from rediffuse.errors import ConfigError, nearest

T = TypeVar("T")


def added_field(default: Any) -> Any:
    """A field that a record got later: records in which it has its default keep the digest they had without it."""
    return dataclasses.field(default=default, metadata={"added": True})


def dump(record: Any) -> dict[str, Any]:
    """The fields of a dataclass, nested ones included, as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(record), default=str))


def parse(kind: type[T], fields: Mapping[str, Any], source: str) -> T:
    """Build `kind` from plain values, each checked against the type of its field.

    Args:
        kind: a dataclass.
        fields: the values by field name; a field that has a default may be missing.
        source: where the values come from (a file, a flag), for the error.

    Raises:
        ConfigError: an unknown field, a missing one, or a value of another type; names `source` and the field.
    """
    from pydantic import TypeAdapter, ValidationError  # slow to import, and needed only to read files

    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in fields:
        if name not in names:
            raise ConfigError(f"{source}: unknown field {name}{nearest(name, names)}")
    try:
        return TypeAdapter(kind).validate_python(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) + ": " if first["loc"] else ""
        given = "" if first["type"] == "missing" else f", given {first['input']!r}"
        raise ConfigError(f"{source}: {place}{first['msg']}{given}") from None


def digest(record: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the record's canonical JSON: equal fields, equal digest.

    Fields from `added_field` count where they differ from their default.
    """
    fields = dump(record)
    for field in dataclasses.fields(record):
        if field.metadata.get("added") and getattr(record, field.name) == field.default:
            del fields[field.name]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
