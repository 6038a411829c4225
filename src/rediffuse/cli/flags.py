"""Flags from dataclasses: a command's flags are the fields of a dataclass, with their types, defaults and docstrings.

A field `batch_size: int = 16` becomes `--batch-size INT`; `int | Literal["auto"]` allows a word beside numbers,
`Literal` gives choices, `tuple[X, ...]` several values, `bool` a pair `--clip` and `--no-clip`. The flags of a
dataclass within a dataclass have its name as a prefix (`--resnet.seed`), unless it is marked as FLAT. argparse parses
the words. This module converts values, and writes help and errors: every error is one line, and help lists the most
important flags first.
"""

import argparse
import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar, Union

from rediffuse.errors import ConfigError, nearest

T = TypeVar("T")

MISSING: Any = dataclasses.MISSING
"""The value of a field whose flag is required."""


@dataclass(frozen=True)
class Argument:
    """Options of a field's flag, in `Annotated[type, Argument(...)]`."""

    name: str | None = None
    """The flag's name; by default that of the field."""
    metavar: str | None = None
    """The placeholder of the value in help."""
    short: str | None = None
    """A second name of one letter, such as `-q`."""
    positional: bool = False
    flat: bool = False
    """For a dataclass: the flags of its fields, and of dataclasses in it, have no prefix."""
    metavars: tuple[tuple[str, str], ...] = ()
    """For a dataclass: the placeholders of the values of some of its fields."""
    omit: tuple[str, ...] = ()
    """For a dataclass: fields without a flag, which keep their defaults."""


PATHS = Argument(metavar="PATH", positional=True)
MODEL = Argument(metavar="MODEL")
CROP = Argument(metavar="{center,squash,windows:N}")
FLAT = Argument(flat=True)


@dataclass(frozen=True, kw_only=True)
class CommandFlags:
    """The flags that every command has."""

    groups: ClassVar[Mapping[str, Sequence[str]]] = {}
    """The groups of help: a title and the names of its flags, the most important first."""

    quiet: Annotated[bool, Argument(short="-q")] = False
    """On standard error, show errors only: no warnings, info or progress bars."""
    verbose: Annotated[bool, Argument(short="-v")] = False
    """On standard error, also show the steps of the work."""
    json: bool = False
    """Print the result as one JSON document, and nothing else, on standard output."""


OUTPUT = ("--quiet", "--verbose", "--json")
INHERITED = ("--max-pixels",)
"""Flags of base classes, whose place among the fields says nothing about their importance."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """The flag of one field."""

    name: str
    """`--batch-size`; for a positional argument its placeholder in help."""
    field: tuple[str, ...]
    """The path to the field: the names of the outer fields and its own."""
    kind: Any
    """The type of one value: str, int, float, bool, Path or a Literal."""
    many: bool
    """Whether it takes any number of values."""
    default: Any
    metavar: str
    help: str
    short: str | None = None
    positional: bool = False
    words: tuple[str, ...] = ()
    """Words that are allowed beside values of the type."""

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values, if they can be listed."""
        return typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()

    @property
    def heading(self) -> str:
        """The flag in help: `--batch-size INT`."""
        if self.kind is bool:
            names = f"{self.name}, --no-{self.name[2:]}" if self.default is True else self.name
            return f"{self.short}, {names}" if self.short else names
        value = f"{self.metavar} ..." if self.many else self.metavar
        return value if self.positional else f"{self.name} {value}"


def flags_of(kind: type[Any], default: Any = None) -> list[Flag]:
    """The flags of a dataclass, in the order of its fields.

    Args:
        kind: the dataclass.
        default: an instance whose values replace the defaults of the fields; a field with MISSING is required.
    """
    return list(_flags(kind, default, (), "", Argument()))


def parse(kind: type[T], words: Sequence[str], *, command: str = "", default: T | None = None) -> T:
    """Parse the words of a call as an instance of `kind`.

    Args:
        kind: see `flags_of`.
        words: the words after the command; in names of flags, `_` is the same as `-`.
        command: the command, for errors.
        default: see `flags_of`.

    Raises:
        ConfigError: a flag is unknown, a value is missing or wrong, or `kind` itself raises it.
    """
    flags = flags_of(kind, default)
    values, rest = _read_named(words, flags)
    if unknown := [word for word in rest if word.startswith("-") and word != "-"]:
        raise ConfigError(_unknown_flag(unknown[0], flags, command))
    rest += words[words.index("--") + 1 :] if "--" in words else []
    for flag in flags:
        if flag.positional and rest:
            taken, rest = (rest, []) if flag.many else (rest[:1], rest[1:])
            values[flag.field] = _convert(flag, taken if flag.many else taken[0])
    if rest:
        raise ConfigError(f"{rest[0]}: {command} takes no further argument; see `{command} --help`")
    missing = [flag.heading for flag in flags if flag.required and flag.field not in values]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise ConfigError(f"{', '.join(missing)} {are} required; see `{command} --help`")
    return _build(kind, default, values, ())


def peek(kind: type[T], words: Sequence[str], default: T) -> T:
    """As `parse`, but ignores unknown flags: for flags on which other flags depend."""
    values, _ = _read_named(words, flags_of(kind, default))
    return _build(kind, default, values, ())


def add_to(parser: argparse.ArgumentParser, flags: Iterable[Flag]) -> list[argparse.Action]:
    """Add the flags to a parser, without conversion and without defaults."""
    actions = []
    for flag in flags:
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": flag.help.replace("%", "%%")}
        if flag.kind is bool:
            options |= {"action": argparse.BooleanOptionalAction}
        else:
            options |= {"metavar": flag.metavar, "nargs": "*" if flag.many else None}
            options |= {"action": "extend"} if flag.many and not flag.positional else {}
        if flag.positional:
            actions.append(parser.add_argument(_destination(flag), **options))
        else:
            names = [name for name in (flag.short, flag.name) if name]
            actions.append(parser.add_argument(*names, dest=_destination(flag), **options))
    return actions


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether `--help` is among the words of a call."""
    before_end = words[: words.index("--")] if "--" in words else words
    return "-h" in before_end or "--help" in before_end


def help_text(kind: type, *, command: str, default: Any = None, width: int = 80) -> str:
    """The help text: usage, description, and the flags in groups; required flags are first.

    Args:
        kind: see `parse`.
        command: see `parse`.
        default: see `parse`.
        width: width of the text, in characters.
    """
    flags = flags_of(kind, default)
    groups: Mapping[str, Sequence[str]] = getattr(kind, "groups", {})
    order = [name for names in groups.values() for name in names]
    required = sorted(
        (flag for flag in flags if flag.required), key=lambda flag: order.index(flag.name) if flag.name in order else -1
    )
    rest = {flag.name: flag for flag in flags if not flag.required}
    usage = " ".join(["usage:", command, *(flag.heading for flag in required), "[flags]"])
    text = [usage]
    for part in inspect.cleandoc(kind.__doc__ or "").split("\n\n"):
        text += ["", _wrapped(part, width)]
    by_field = {flag.field[-1]: flag.name for flag in flags}
    output = [rest.pop(name) for name in OUTPUT if name in rest]
    rest |= {name: rest.pop(name) for name in INHERITED if name in rest}  # to the end
    blocks = [("Required", required)]
    blocks += [(title, [rest.pop(name) for name in names if name in rest]) for title, names in groups.items()]
    blocks += [("Rarely needed" if groups else "Flags", list(rest.values())), ("Output", output)]
    for title, members in blocks:
        if members:
            text += ["", f"{title}:", *(_entry(flag, width, by_field) for flag in members)]
    return "\n".join(text)


_INDENT = 26
_NO_BREAK = "\N{NO-BREAK SPACE}"


def _entry(flag: Flag, width: int, by_field: Mapping[str, str]) -> str:
    head = f"  {flag.heading}"
    # Docstrings refer to another field as `batch_size`; help must show its flag, --batch-size.
    text = re.sub(r"`(\w+)`", lambda match: by_field.get(match[1], match[0]), flag.help)
    body = _wrapped(" ".join([text, *_default_note(flag)]), width, " " * _INDENT)
    entry = f"{head:<{_INDENT}}{body.lstrip()}" if len(head) + 2 <= _INDENT else f"{head}\n{body}"
    return entry.replace(_NO_BREAK, " ").rstrip()


def _default_note(flag: Flag) -> list[str]:
    value = flag.default
    if value is MISSING or value is None or value is False or value == ():
        return []
    if value is True:
        value = flag.name
    return [f"(default:{_NO_BREAK}{' '.join(map(str, value)) if flag.many else value})"]


def _wrapped(text: str, width: int, indent: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )


class _Parser(argparse.ArgumentParser):
    """An argparse parser that raises errors of one line, instead of printing its usage and ending the process."""

    def error(self, message: str) -> NoReturn:
        name, _, problem = message.removeprefix("argument ").partition(": ")
        raise ConfigError(f"{name}: {problem.replace('expected one argument', 'a value is needed after it')}")


def _flags(kind: type, default: Any, above: tuple[str, ...], prefix: str, within: Argument) -> Iterator[Flag]:
    hints = typing.get_type_hints(kind, include_extras=True)
    documented, metavars = _docs(kind), dict(within.metavars)
    for field in dataclasses.fields(kind):
        if field.name in within.omit:
            continue
        hint, argument = _annotation(hints[field.name])
        value = _value(field, default)
        inner = value if dataclasses.is_dataclass(value) else None
        if inner is not None or dataclasses.is_dataclass(hint):
            part: Any = hint if inner is None else type(inner)
            is_flat = within.flat or argument.flat
            below = prefix if is_flat else f"{prefix}{_dashed(field.name)}."
            yield from _flags(part, inner, (*above, field.name), below, dataclasses.replace(argument, flat=is_flat))
            continue
        one = _without_none(hint)
        if dataclasses.is_dataclass(one):  # an optional part that is None has no flags
            continue
        many = typing.get_origin(one) is tuple
        one = typing.get_args(one)[0] if many else one
        one, words = _with_words(one)
        name = argument.name or _dashed(field.name)
        metavar = (
            argument.metavar
            or metavars.get(field.name)
            or (name.upper() if argument.positional else "|".join([_metavar(one), *words]))
        )
        yield Flag(
            name=metavar if argument.positional else f"--{prefix}{name}",
            field=(*above, field.name),
            kind=one,
            many=many,
            default=value,
            metavar=metavar,
            help=documented.get(field.name, ""),
            short=argument.short,
            positional=argument.positional,
            words=words,
        )


def _build(kind: type[T], default: Any, values: Mapping[tuple[str, ...], Any], above: tuple[str, ...]) -> T:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        path = (*above, field.name)
        value = _value(field, default)
        hint, _ = _annotation(hints[field.name])
        if dataclasses.is_dataclass(value):
            fields[field.name] = _build(type(value), value, values, path)
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            fields[field.name] = _build(hint, None, values, path)
        else:
            fields[field.name] = values.get(path, value)
    return kind(**fields)


def _value(field: "dataclasses.Field[Any]", default: Any) -> Any:
    """The value of a field whose flag is not given."""
    if default is not None:
        return getattr(default, field.name)
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _annotation(hint: Any) -> tuple[Any, Argument]:
    if typing.get_origin(hint) is typing.Annotated:
        kind, *marks = typing.get_args(hint)
        return kind, next((mark for mark in marks if isinstance(mark, Argument)), Argument())
    return hint, Argument()


def _without_none(hint: Any) -> Any:
    if types.NoneType in typing.get_args(hint):
        [hint] = [part for part in typing.get_args(hint) if part is not types.NoneType]
    return hint


def _with_words(hint: Any) -> tuple[Any, tuple[str, ...]]:
    """The type and the words of `int | Literal["auto"]`."""
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return hint, ()
    kind, words = typing.get_args(hint)
    return kind, typing.get_args(words)


def _metavar(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return f"{{{','.join(typing.get_args(kind))}}}"
    return {int: "INT", float: "FLOAT", Path: "PATH"}.get(kind, "TEXT")


def _read_named(words: Sequence[str], flags: Sequence[Flag]) -> tuple[dict[tuple[str, ...], Any], list[str]]:
    """The values of named flags by field, and the remaining words."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    named = [flag for flag in flags if not flag.positional]
    add_to(parser, named)
    before_end = words[: words.index("--")] if "--" in words else words
    namespace, rest = parser.parse_known_args(list(map(_with_hyphens, before_end)))
    given = vars(namespace)
    return {
        flag.field: _convert(flag, given[_destination(flag)]) for flag in named if _destination(flag) in given
    }, rest


def _convert(flag: Flag, given: Any) -> Any:
    if flag.kind is bool:
        return given
    return tuple(_one(flag, word) for word in given) if flag.many else _one(flag, given)


def _one(flag: Flag, word: str) -> Any:
    if flag.choices:
        if word not in flag.choices:
            allowed = ", ".join(flag.choices)
            raise ConfigError(f"{flag.name} {word}: {allowed} are allowed{nearest(word, flag.choices)}")
        return word
    if word in flag.words:
        return word
    try:
        return flag.kind(word)
    except ValueError:
        needed = " or ".join(["a whole number" if flag.kind is int else "a number", *flag.words])
        raise ConfigError(f"{flag.name} {word}: {needed} is needed") from None


def _unknown_flag(word: str, flags: Sequence[Flag], command: str) -> str:
    name = word.partition("=")[0]
    names = [flag.name for flag in flags if not flag.positional]
    names += [f"--no-{flag.name[2:]}" for flag in flags if flag.default is True]
    return f"{name} is not a flag of {command}{nearest(name, names)}"


def _destination(flag: Flag) -> str:
    return ".".join(flag.field)


def _with_hyphens(word: str) -> str:
    """`--batch_size=a_b` as `--batch-size=a_b`."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word


def _dashed(name: str) -> str:
    return name.strip("_").replace("_", "-")


@cache
def _docs(kind: type) -> dict[str, str]:
    """The docstring below each field, also of base classes."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if dataclasses.is_dataclass(base):
            [body] = ast.parse(textwrap.dedent(inspect.getsource(base))).body
            assert isinstance(body, ast.ClassDef)
            for field, text in zip(body.body, body.body[1:], strict=False):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                        found[name] = " ".join(words.split())
    return found
