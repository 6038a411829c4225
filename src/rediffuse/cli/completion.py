"""A completion script for all commands and flags, made by shtab; completion does not start Python."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import shtab

from rediffuse.cli.flags import CommandFlags, Flag, add_to, flags_of


@dataclass(frozen=True)
class Completed:
    """The facts about a command that completion needs."""

    module: ModuleType
    flags: type[CommandFlags]
    summary: str


def script(shell: str, commands: Mapping[str, Completed]) -> str:
    """The script for a shell to source.

    Args:
        shell: bash, zsh or fish.
        commands: the commands by name; commands with a common first word must be consecutive.
    """
    root = argparse.ArgumentParser(prog="rediffuse", add_help=True)
    root.add_argument("--version", action="store_true", help="print the version")
    root.add_argument("--print-completion", choices=("bash", "zsh", "fish"), help="print a completion script")
    below: dict[str, Any] = {"": root.add_subparsers()}
    for name, command in commands.items():
        group, _, last = name.rpartition(" ")
        if group and group not in below:
            parser = below[""].choices.get(group) or below[""].add_parser(group, help=f"{group} commands")
            below[group] = parser.add_subparsers()
        parser = below[group].add_parser(last, help=command.summary)
        _add_flags(parser, command)
    return shtab.complete(root, shell)


def _add_flags(parser: argparse.ArgumentParser, command: Completed) -> None:
    # Includes flags that exist only with other flags, such as those of spectral gates.
    default = command.module.defaults(["--gates"]) if hasattr(command.module, "defaults") else None
    flags = flags_of(command.flags, default)
    for flag, action in zip(flags, add_to(parser, flags), strict=True):
        if flag.choices:
            action.choices = flag.choices
        elif _is_path(flag):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # where shtab looks for it


def _is_path(flag: Flag) -> bool:
    return flag.kind is Path or flag.metavar in ("PATH", "MODEL")
